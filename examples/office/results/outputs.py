"""The files of a finished run: their content, writers and readers.

result.json (:class:`Result`), features.npz (:class:`Features`) and, for a target without labels,
predictions.csv (:class:`Prediction`); model.pt is in ``models/saved.py``.
"""

import csv
import dataclasses
import io
import json
import re
import reprlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np

from office import files
from office.console import UserError

# What results have that older ones lack.
ADDED: dict[str, Any] = {"predicted": {}, "expected": {}, "agreement": None}


@dataclass(frozen=True)
class Result:
    """The result of a run, and how it was made.

    Accuracies and recalls are in %, ``None`` if the target has no labels. The names of accuracies
    give domain and classifier: ``target_accuracy/C_t`` (the target classifier),
    ``target_accuracy/C_s`` (the source classifier) and ``source_accuracy/C_s``, the last on the
    training images. The classifier of a method with only one is C_t.

    Attributes:
        classifier: The one whose predictions count, ``"C_t"`` or ``"C_s"``.
        accuracy: Its accuracy on the target at the end of training.
        final: Accuracies by name at the end of training.
        epochs: For each epoch its number, the accuracies measured, and its mean losses.
        per_category: Recall of each category.
        confusion: Images by category (row) and prediction (column).
        predicted: Predicted share of each category in the target.
        expected: Expected share of each category in the target.
        agreement: Share of target images for which C_t and C_s predict the same category, ``None``
            if there is only one classifier.
        images: Number of source and target images and the checksum of inputs.csv, which lists them.
        recipe: Every setting that changes the numbers.
        machine: Where it was trained, which does not change them.
    """

    dataset: str
    task: str
    method: str
    seed: int
    classifier: str
    accuracy: float | None
    final: dict[str, float | None]
    epochs: list[dict[str, float | None]]
    per_category: dict[str, float | None]
    confusion: list[list[int]] | None
    categories: list[str]
    recipe: dict[str, Any]
    predicted: dict[str, float]
    expected: dict[str, float]
    agreement: float | None
    images: list[int]
    machine: dict[str, Any]
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
    """Write result.json; :class:`UserError` if it cannot be written."""
    text = json.dumps(dataclasses.asdict(result), indent=1)
    files.write(folder / "result.json", text.encode())


def read_result(path: Path) -> Result:
    """Read a result.json.

    Raises:
        UserError: If the file cannot be read or contains something else; names path and error.
    """
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
    if kind is Any:
        return True
    if isinstance(kind, UnionType):
        return any(_has_type(value, one) for one in get_args(kind))
    if kind is float:  # JSON has only one kind of number
        return isinstance(value, (int, float))
    if not isinstance(value, get_origin(kind) or kind):
        return False
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(_has_type(part, get_args(kind)[-1]) for part in parts)


@dataclass(frozen=True)
class Features:
    """Features of both domains at the end of training, source images first, in the task's order.

    Attributes:
        features: float16 ``(N, F)``, or float32 if a value is too large for that.
        domain: uint8 ``(N,)``, 0 for the source and 1 for the target.
        label: int16 ``(N,)``, -1 in a target without labels.
        logits: float32, of the target images only: joint logits ``(M, 2K)``, or ``(M, K)`` for a
            method with one classifier; ``None`` if the file has none.
    """

    features: np.ndarray
    domain: np.ndarray
    label: np.ndarray
    logits: np.ndarray | None = None


def write_features(folder: Path, features: Features) -> None:
    """Write features.npz; :class:`UserError` if it cannot be written."""
    arrays = {name: value for name, value in vars(features).items() if value is not None}
    content = io.BytesIO()
    np.savez(content, **arrays)
    files.write(folder / "features.npz", content.getvalue())


def read_features(path: Path) -> Features:
    """Read a features.npz; :class:`UserError` names path and error."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            arrays = dict(file)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    for name in ("features", "domain", "label"):
        if name not in arrays:
            raise UserError(f"{path} was not written by train_office.py: it has no {name}")
    features = Features(arrays["features"], arrays["domain"], arrays["label"], arrays.get("logits"))
    if not len(features.features) == len(features.domain) == len(features.label):
        raise UserError(f"{path}: features, domain and label must have the same length")
    if features.logits is not None and len(features.logits) != (features.domain == 1).sum():
        raise UserError(f"{path}: logits must have one row per target image")
    return features


class Prediction(NamedTuple):
    """Category of a target image and its probability."""

    path: Path
    category: str
    confidence: float


def write_predictions(folder: Path, predictions: list[Prediction]) -> None:
    """Write predictions.csv; :class:`UserError` if it cannot be written."""
    rows = [(p.path, p.category, f"{p.confidence:.12g}") for p in predictions]
    files.write(folder / "predictions.csv", files.table([Prediction._fields, *rows]))


def read_predictions(path: Path) -> list[Prediction]:
    """Read a predictions.csv; :class:`UserError` names path and error."""
    read = files.from_cell
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [
                Prediction(
                    _unescaped(read(row["path"])), read(row["category"]), float(row["confidence"])
                )
                for row in csv.DictReader(file, strict=True)
            ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _unescaped(path: str) -> Path:
    return Path(re.sub(r"\\udc([89a-f][0-9a-f])", lambda m: chr(0xDC00 + int(m[1], 16)), path))
