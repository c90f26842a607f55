"""One line per finished run: what a results file keeps of it, and the file itself."""

import csv
import io
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from office import files
from office.results import evaluation
from office.results.outputs import Features, Result
from symloss import scores

# Fields that need the target's logits: three from this file, then the library's scores.
LOGITS = ("joint", "agreement", "calibration_error", "information_maximization")
LOGITS += ("nuclear_norm", "soft_neighborhood_density", "corr_c")
BINS = 15  # of the calibration error, as in Guo et al., ICML 2017


@dataclass(frozen=True)
class Record:
    """What a finished run found and how it was made; accuracies and shares are in %.

    ``None`` means that the target has no labels, the method no second classifier, or the run saved
    no logits.

    Attributes:
        accuracy: Target accuracy, at the end of training, of the classifier whose answers count.
        c_t: Target accuracy of the target classifier, or of the only one.
        c_s: Target accuracy of the source classifier.
        joint: Target accuracy of the largest sum of a category's two probabilities.
        worst_category: The category with the smallest recall, and that recall.
        agreement: Share of target images on which both classifiers agree.
        calibration_error: Expected calibration error of the classifier whose answers count.
        information_maximization: This and the next three are from :mod:`symloss.scores`.
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
    information_maximization: float | None
    nuclear_norm: float | None
    soft_neighborhood_density: float | None
    corr_c: float | None
    seconds: float
    weights: str
    settings: str
    device: str
    versions: str


def record(result: Result, features: Features | None) -> Record:
    """Return a run's line, from its result and, if saved, its features."""
    recalls = {name: r for name, r in result.per_category.items() if _is_number(r)}
    worst = min(recalls, key=recalls.__getitem__) if recalls else None
    told = dict.fromkeys(LOGITS)
    if features is not None and features.logits is not None:
        told = _of_logits(result, features)
    return Record(
        dataset=result.dataset,
        task=result.task,
        method=result.method,
        seed=result.seed,
        accuracy=result.accuracy,
        c_t=result.final["target_accuracy/C_t"],
        c_s=result.final.get("target_accuracy/C_s"),
        worst_category=worst,
        worst_recall=worst and recalls[worst],
        **told,
        seconds=result.seconds,
        weights=str(result.recipe.get("weights")),
        settings=json.dumps(result.recipe, sort_keys=True),
        device=str(result.machine.get("device")),
        versions=json.dumps(result.versions, sort_keys=True),
    )


def _of_logits(result: Result, features: Features) -> dict[str, float | None]:
    """Return the fields that come from the target's logits."""
    logits, k = torch.from_numpy(features.logits), len(result.categories)
    parts = evaluation.classifiers(logits, k)
    answers, symmetric = parts[result.classifier], len(parts) == 2
    label = torch.from_numpy(features.label[features.domain == 1]).long()
    labelled = bool((label >= 0).all())
    p = logits.double().softmax(1)
    q = p[:, :k] + p[:, k:] if symmetric else p
    found = [getattr(scores, name)(answers, joint=False).item() for name in LOGITS[3:]]
    return {
        "joint": evaluation.accuracy(q, label.tolist()) if labelled else None,
        "agreement": 100 * scores.agreement(logits).item() if symmetric else None,
        "calibration_error": calibration_error(answers, label) if labelled else None,
        **dict(zip(LOGITS[3:], found, strict=True)),
    }


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
        UserError: If the file cannot be written.
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
