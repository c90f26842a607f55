"""The files of a finished run: what they hold, how they are written and read.

result.json (:class:`Result`), features.npz (:class:`Features`) and, for a target without labels,
predictions.csv and predictions.html; model.pt is in ``models/saved.py``. Below them are the numbers
that they hold, from logits; accuracies, recalls and errors are in %.
"""

import dataclasses
import io
import json
import math
import platform
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

import symloss
from office import distributed, files
from office.console import UserError, visible
from office.data.tasks import shares_of
from office.methods import METHODS
from office.models import saved
from office.models.backbones import Extractor
from office.options import Runtime
from office.results import targets
from office.training.runs import Run
from symloss.diagnostics import Diagnosis

Mean: TypeAlias = tuple[float, float | None]  # and its standard error, if there is one
BINS = 15  # of the calibration error, as in Guo et al., ICML 2017
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

    @property
    def diagnosis(self) -> Diagnosis:
        """How the predictions spread over the categories, with printable names."""
        return Diagnosis(
            tuple(map(visible, self.predicted)),
            tuple(self.predicted.values()),
            tuple(self.expected.values()),
            self.agreement,
            samples=self.images[1] if self.images else None,
            trust=self.trust,
        )

    @property
    def origin(self) -> str:
        """Where the expected shares come from, in words."""
        method, prior = METHODS.get(self.method), self.recipe.get("prior", "uniform")
        if self.trust:
            return f"estimated, trust {self.trust:.2f}"
        if not (method and method.balanced) or prior == "source":
            return "the source's shares"
        return "given with --prior" if isinstance(prior, list) else "equal shares"


def write_result(folder: Path, result: Result) -> None:
    """Write result.json."""
    text = json.dumps(dataclasses.asdict(result), indent=1)
    files.write(folder / "result.json", text.encode())


def read_result(path: Path) -> Result:
    """Read a result.json."""
    content = ADDED | files.load_json(path)
    try:
        return Result(**{field.name: content[field.name] for field in dataclasses.fields(Result)})
    except KeyError as missing:
        raise UserError(f"{path} was not written by this train_office.py: no {missing}") from None


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
            return Features(**{name: file[name] for name in file})
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def write_run(
    run: Run,
    runtime: Runtime,
    extractor: Extractor,
    classifier: nn.Linear,
    features: Sequence[Tensor],
    logits: Sequence[Tensor],
    history: list[dict[str, Any]],
    seconds: float,
    prior: Tensor | None = None,
    trust: float | None = None,
) -> Result:
    """Write the files of a trained run, result.json last, because it marks the run as finished.

    ``features`` and the head's ``logits`` are those of source and target. The last entry of
    ``history``, one per epoch, has all accuracies at the end of training. ``prior`` has the
    target's shares that a balanced run ended with, ``trust`` how far estimated ones are trusted.
    """
    if not all(tensor.isfinite().all() for tensor in (*features, *logits)):
        raise UserError(
            f"{run.title}: the trained network's features or logits are not finite; the run has "
            f"diverged, try a lower --lr than {run.recipe.lr:g}"
        )
    recipe, task, method = run.recipe, run.task, METHODS[run.method]
    categories, labels, folder = task.categories, task.target.labels, run.folder(runtime.out)
    k, device = len(categories), runtime.device
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    counting = by_classifier(logits[1], k)[method.classifier]

    rows, half = torch.cat([*features]), torch.cat([*features]).half()
    of_both = [domain.labels or [-1] * len(domain.paths) for domain in (task.source, task.target)]
    content = Features(
        (half if half.isfinite().all() else rows).numpy(),
        np.repeat(np.arange(2, dtype=np.uint8), [*map(len, of_both)]),
        np.concatenate(of_both).astype(np.int16),
        logits[1].numpy(),
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

    final = {name: value for name, value in history[-1].items() if "_accuracy/" in name}
    confusion = None if labels is None else confusion_matrix(counting, labels)
    recall = [None] * k if confusion is None else recalls(confusion)
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
        per_category=dict(zip(categories, recall, strict=True)),
        confusion=confusion,
        categories=categories,
        recipe=run.settings,
        predicted=dict(zip(categories, predicted.tolist(), strict=True)),
        expected=dict(zip(categories, expected.tolist(), strict=True)),
        trust=trust,
        agreement=agreement(logits[1], k),
        images=run.identity["images"],
        machine={"device": str(device), "workers": runtime.workers, "cache": runtime.cache},
        versions={"python": platform.python_version(), **versions},
        commit=_commit(),
        processes=distributed.processes(),
        seconds=seconds,
        peak_memory_bytes=memory,
    )
    if labels is None:
        likeliest = targets.likeliest(counting, categories, 2)
        predictions = [*zip(task.target.paths, likeliest, strict=True)]
        files.write(folder / "predictions.csv", targets.table(predictions))
        title = f"{len(predictions):,} images of {task.target.name}, predicted by {result.method}"
        page = targets.page(title, result.diagnosis, result.origin, predictions)
        files.write(folder / "predictions.html", page)
    write_result(folder, result)
    return result


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


# Numbers from logits, and means of them


def by_classifier(logits: Tensor, num_classes: int) -> dict[str, Tensor]:
    """Return the logits of C_t and C_s (target and source classifier); a single one is C_t."""
    if logits.shape[1] == num_classes:
        return {"C_t": logits}
    source, target = logits.chunk(2, dim=1)
    return {"C_t": target, "C_s": source}


def accuracy(logits: Tensor, labels: Sequence[int]) -> float:
    """Return the accuracy of one classifier."""
    return 100 * (logits.argmax(1) == torch.tensor(labels)).double().mean().item()


def target_accuracies(
    logits: Tensor, labels: Sequence[int] | None, num_classes: int
) -> dict[str, float | None]:
    """Return ``target_accuracy/C_t`` and, if there is one, ``/C_s``; ``None`` without labels."""
    return {
        f"target_accuracy/{name}": None if labels is None else accuracy(part, labels)
        for name, part in by_classifier(logits, num_classes).items()
    }


def source_accuracy(logits: Tensor, labels: Sequence[int], num_classes: int) -> dict[str, float]:
    """Return ``source_accuracy/C_s``, or ``/C_t`` if there is only one classifier."""
    name, part = [*by_classifier(logits, num_classes).items()][-1]
    return {f"source_accuracy/{name}": accuracy(part, labels)}


def confusion_matrix(logits: Tensor, labels: Sequence[int]) -> list[list[int]]:
    """Count images by label (row) and prediction (column) of one classifier."""
    k = logits.shape[1]
    pairs = torch.tensor(labels) * k + logits.argmax(1)
    counts: list[list[int]] = torch.bincount(pairs, minlength=k * k).view(k, k).tolist()
    return counts


def recalls(confusion: Sequence[Sequence[int]]) -> list[float | None]:
    """Return the recall of each category, ``None`` for one without images."""
    return [100 * row[k] / sum(row) if any(row) else None for k, row in enumerate(confusion)]


def agreement(logits: Tensor, num_classes: int) -> float | None:
    """Return the share of images, in [0, 1], for which C_t and C_s predict the same category."""
    if logits.shape[1] == num_classes:
        return None
    return symloss.diagnostics.agreement(logits).item()


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    r"""Return one classifier's expected calibration error, over 15 bins of equal width.

    .. math:: \sum_b \frac{n_b}{n} \left| \mathrm{accuracy}_b - \mathrm{confidence}_b \right|
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    right = (predicted == labels).double()
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = torch.zeros(BINS, dtype=torch.float64).scatter_add(0, bins, right - confidence)
    return 100 * gaps.abs().sum().item() / len(labels)


def mean_and_error(values: Sequence[float]) -> Mean:
    """Return the mean and its standard error, the sample deviation over sqrt(n); none for n = 1."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.fmean(values), error


def plus_minus(mean: float, error: float | None, sign: str = "") -> str:
    """Return "90.8 ± 0.1", or "90.8" without an error; with the sign "+", "+90.8"."""
    return f"{mean:{sign}.1f}" + ("" if error is None else f" ± {error:.1f}")
