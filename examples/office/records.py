"""One line for each finished run: what a results file keeps of it, and the file itself."""

import csv
import io
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from office import evaluation, files
from office.errors import UserError
from office.outputs import Features, Result
from symloss import scores

BINS = 15  # of the calibration error, as in Guo et al., ICML 2017


@dataclass(frozen=True)
class Record:
    """What a finished run found and how it was made; accuracies and shares are in %.

    ``None`` stands where the target has no labels, or the method no second classifier.

    Attributes:
        accuracy: Of the classifier that answers, on the target at the end of training.
        c_t: Of the target classifier, or of the only one.
        c_s: Of the source classifier.
        joint: Of the largest sum of a category's two probabilities.
        worst_category: The category of the smallest recall, and that recall.
        agreement: Share of target images on which both classifiers answer the same.
        calibration_error: Expected calibration error of the classifier that answers.
        information_maximization: This and the next three are of :mod:`symloss.scores`.
        settings: The recipe as JSON.
    """

    dataset: str
    task: str
    method: str
    seed: int
    accuracy: float | None
    c_t: float | None
    c_s: float | None
    joint: float | None
    worst_category: str | None
    worst_recall: float | None
    agreement: float | None
    calibration_error: float | None
    information_maximization: float
    nuclear_norm: float
    soft_neighborhood_density: float
    corr_c: float
    seconds: float
    weights: str
    settings: str
    device: str
    versions: str


def record(result: Result, features: Features) -> Record:
    """Return the line of a run, from what it wrote.

    Raises:
        UserError: If the features hold no target logits.
    """
    if features.logits is None:
        raise UserError("features.npz holds no logits of the target images")
    logits, k = torch.from_numpy(features.logits), len(result.categories)
    parts = evaluation.classifiers(logits, k)
    answers, symmetric = parts[result.classifier], len(parts) == 2
    label = torch.from_numpy(features.label[features.domain == 1]).long()
    labels = label.tolist() if (label >= 0).all() else None
    recalls = {name: r for name, r in result.per_category.items() if _is_number(r)}
    worst = min(recalls, key=recalls.__getitem__) if recalls else None
    p = logits.double().softmax(1)
    q = p[:, :k] + p[:, k:] if symmetric else p
    return Record(
        dataset=result.dataset,
        task=result.task,
        method=result.method,
        seed=result.seed,
        accuracy=result.accuracy,
        c_t=labels and evaluation.accuracy(parts["C_t"], labels),
        c_s=evaluation.accuracy(parts["C_s"], labels) if labels and symmetric else None,
        joint=labels and evaluation.accuracy(q, labels),
        worst_category=worst,
        worst_recall=worst and recalls[worst],
        agreement=100 * scores.agreement(logits).item() if symmetric else None,
        calibration_error=labels and calibration_error(answers, label),
        information_maximization=scores.information_maximization(answers, joint=False).item(),
        nuclear_norm=scores.nuclear_norm(answers, joint=False).item(),
        soft_neighborhood_density=scores.soft_neighborhood_density(answers, joint=False).item(),
        corr_c=scores.corr_c(answers, joint=False).item(),
        seconds=result.seconds,
        weights=str(result.recipe.get("weights")),
        settings=json.dumps(result.recipe, sort_keys=True),
        device=str(result.machine.get("device")),
        versions=json.dumps(result.versions, sort_keys=True),
    )


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    r"""Return the expected calibration error in %, over 15 bins of equal width.

    .. math:: \sum_b \frac{n_b}{n} \left| \mathrm{accuracy}_b - \mathrm{confidence}_b \right|
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    right = (predicted == labels).double()
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = torch.zeros(BINS, dtype=torch.float64).scatter_add(0, bins, right - confidence)
    return 100 * gaps.abs().sum().item() / len(labels)


def write(path: Path, records: list[Record]) -> None:
    """Write a CSV file, sorted; numbers keep six digits.

    Raises:
        UserError: If the disk does not take it.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(f.name for f in fields(Record))
    ordered = sorted(records, key=lambda r: (r.dataset, r.task, r.method, r.seed, r.settings))
    rows.writerows([_cell(value) for value in asdict(r).values()] for r in ordered)
    files.write(path, text.getvalue().encode())


def _cell(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def _is_number(value: float | None) -> bool:
    return value is not None and not math.isnan(value)
