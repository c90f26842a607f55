"""The files of a finished run: what they hold, how they are written and read.

result.json (:class:`Result`), features.npz (:class:`Features`) and, for a target without labels,
predictions.csv; model.pt is in ``models/saved.py``.
"""

import dataclasses
import io
import json
import platform
import reprlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

import symloss
from office import distributed, files
from office.console import UserError
from office.data.tasks import shares_of
from office.methods import METHODS
from office.models import saved
from office.models.backbones import Extractor
from office.options import Runtime
from office.results import scores
from office.training.runs import Run

# What results have that older ones lack.
ADDED: dict[str, Any] = {"predicted": {}, "expected": {}, "agreement": None, "trust": None}


@dataclass(frozen=True)
class Result:
    """The result of a run, and how it was made.

    Accuracies and recalls are in %, ``None`` if the target has no labels. The names of accuracies
    give domain and classifier: ``target_accuracy/C_t`` (the target classifier),
    ``target_accuracy/C_s`` (the source classifier) and ``source_accuracy/C_s``, the last on the
    training images. The classifier of a method with only one is C_t.
    """

    dataset: str
    task: str
    method: str
    seed: int
    classifier: str  # whose predictions count, "C_t" or "C_s"
    accuracy: float | None  # its own on the target, at the end of training
    final: dict[str, float | None]  # accuracies at the end of training
    epochs: list[dict[str, float | None]]  # of each: number, accuracies measured, mean losses
    per_category: dict[str, float | None]  # recall
    confusion: list[list[int]] | None  # images by category (row) and prediction (column)
    categories: list[str]
    recipe: dict[str, Any]  # every setting that changes the numbers
    predicted: dict[str, float]  # share of each category in the target
    expected: dict[str, float]  # the shares that a balanced run ended with, else the source's
    trust: float | None  # in estimated shares, as symloss.EstimatedPrior has it
    agreement: float | None  # share of target images on which C_t and C_s agree, if there are both
    images: list[int]  # of source and target, and the checksum of inputs.csv, which lists them
    machine: dict[str, Any]  # where it was trained, which does not change the numbers
    versions: dict[str, str]
    commit: str | None
    processes: int
    seconds: float
    peak_memory_bytes: int | None

    @property
    def title(self) -> str:
        """Name of the run."""
        return f"{self.dataset} {self.task} {self.method} seed {self.seed}"

    @property
    def worst_category(self) -> tuple[str, float] | None:
        """The category with the smallest recall, and that recall; ``None`` without labels."""
        recalls = [(name, r) for name, r in self.per_category.items() if r is not None and r == r]
        return min(recalls, key=lambda recall: recall[1], default=None)


def write_result(folder: Path, result: Result) -> None:
    """Write result.json."""
    text = json.dumps(dataclasses.asdict(result), indent=1)
    files.write(folder / "result.json", text.encode())


def read_result(path: Path) -> Result:
    """Read a result.json."""
    content = ADDED | files.load_json(path)
    types = get_type_hints(Result)
    for name, kind in types.items():
        if name not in content:
            raise UserError(f"{path} was not written by this train_office.py: it has no {name}")
        if not _has_type(content[name], kind):
            expected = kind.__name__ if type(kind) is type else kind
            raise UserError(f"{path}: {name} must be {expected}, got {reprlib.repr(content[name])}")
    result = Result(**{name: content[name] for name in types})
    if any("epoch" not in epoch for epoch in result.epochs):
        raise UserError(f"{path}: each entry of epochs must have its number, epoch")
    if result.predicted.keys() != result.expected.keys():
        raise UserError(f"{path}: predicted and expected must have the same categories")
    k, rows = len(result.categories), result.confusion
    if rows is not None and [*map(len, rows)] != [k] * k:
        raise UserError(f"{path}: confusion must be {k} x {k}, for {k} categories")
    return result


def _has_type(value: object, kind: Any) -> bool:
    """Whether a value from JSON has a type such as ``dict[str, float | None]``."""
    if isinstance(kind, UnionType):
        return any(_has_type(value, one) for one in get_args(kind))
    base = get_origin(kind) or kind
    if base is Any:
        return True
    if not isinstance(value, (int, float) if base is float else base):  # JSON's numbers are alike
        return False
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(_has_type(part, get_args(kind)[-1]) for part in parts)


@dataclass(frozen=True)
class Features:
    """Features of both domains at the end of training, source images first, in the task's order."""

    features: np.ndarray  # float16 (N, F), or float32 if a value is too large for that
    domain: np.ndarray  # uint8 (N,), 0 for the source and 1 for the target
    label: np.ndarray  # int16 (N,), -1 in a target without labels
    logits: np.ndarray | None = None  # float32, the head's of the target images, if saved


def write_features(folder: Path, features: Features) -> None:
    """Write features.npz."""
    arrays = {name: value for name, value in vars(features).items() if value is not None}
    content = io.BytesIO()
    np.savez(content, **arrays)
    files.write(folder / "features.npz", content.getvalue())


def read_features(path: Path) -> Features:
    """Read a features.npz; :class:`UserError` names path and error."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            features = Features(**{name: file[name] for name in file})
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not len(features.features) == len(features.domain) == len(features.label):
        raise UserError(f"{path}: features, domain and label must have the same length")
    if features.logits is not None and len(features.logits) != (features.domain == 1).sum():
        raise UserError(f"{path}: logits must have one row per target image")
    if not np.isfinite(features.features).all():
        raise UserError(f"{path}: features must be finite")
    return features


def write_run(
    run: Run,
    runtime: Runtime,
    extractor: Extractor,
    classifier: nn.Linear,
    features: tuple[Tensor, Tensor],
    logits: Tensor,
    history: list[dict[str, Any]],
    seconds: float,
    prior: Tensor | None = None,
    trust: float | None = None,
) -> Result:
    """Write the files of a trained run, result.json last, because it marks the run as finished.

    ``features`` are those of source and target, ``logits`` the head's of the target. The last entry
    of ``history``, one per epoch, has all accuracies at the end of training. ``prior`` has the
    target's shares that a balanced run ended with, ``trust`` how far estimated ones are trusted.
    """
    recipe, task, method = run.recipe, run.task, METHODS[run.method]
    categories, labels, folder = task.categories, task.target.labels, run.folder(runtime.out)
    k, device = len(categories), runtime.device
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    counting = scores.by_classifier(logits, k)[method.classifier]

    rows, half = torch.cat(features), torch.cat(features).half()
    of_both = [domain.labels or [-1] * len(domain.paths) for domain in (task.source, task.target)]
    content = Features(
        (half if half.isfinite().all() else rows).numpy(),
        np.repeat(np.arange(2, dtype=np.uint8), [*map(len, of_both)]),
        np.concatenate(of_both).astype(np.int16),
        logits.numpy(),
    )
    write_features(folder, content)
    model = saved.Model(
        recipe.backbone,
        recipe.bottleneck,
        extractor,
        classifier,
        categories,
        recipe.preprocessing,
        recipe.width,
    )
    saved.write_model(folder, model)
    if labels is None:
        confidence, prediction = (t.tolist() for t in counting.double().softmax(1).max(1))
        table: list[tuple[object, ...]] = [("path", "category", "confidence")]
        for path, i, p in zip(task.target.paths, prediction, confidence, strict=True):
            table.append((path, categories[i], f"{p:.12g}"))
        files.write(folder / "predictions.csv", files.table(table))

    final = {name: value for name, value in history[-1].items() if "_accuracy/" in name}
    confusion = None if labels is None else scores.confusion_matrix(counting, labels)
    recalls = [None] * k if confusion is None else scores.recalls(confusion)
    shares = shares_of("source", categories, task.source.labels or ()) if prior is None else prior
    predicted, expected = symloss.diagnostics.category_shares(counting, shares)
    packages = ("torch", "torchvision", "symloss", "timm")
    versions = {name: sys.modules[name].__version__ for name in packages if name in sys.modules}
    result = Result(
        dataset=recipe.dataset,
        task=task.name,
        method=run.method,
        seed=run.seed,
        classifier=method.classifier,
        accuracy=final[f"target_accuracy/{method.classifier}"],
        final=final,
        epochs=history,
        per_category=dict(zip(categories, recalls, strict=True)),
        confusion=confusion,
        categories=categories,
        recipe=run.settings,
        predicted=dict(zip(categories, predicted.tolist(), strict=True)),
        expected=dict(zip(categories, expected.tolist(), strict=True)),
        trust=trust,
        agreement=scores.agreement(logits, k),
        images=run.identity["images"],
        machine={"device": str(device), "workers": runtime.workers, "cache": runtime.cache},
        versions={"python": platform.python_version(), **versions},
        commit=_commit(),
        processes=distributed.processes(),
        seconds=seconds,
        peak_memory_bytes=memory,
    )
    write_result(folder, result)
    return result


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
