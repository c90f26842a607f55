"""Numbers computed from logits, and means of them; accuracies, recalls and errors are in %."""

import math
import statistics
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

import symloss

Mean: TypeAlias = tuple[float, float | None]  # and its standard error, if there is one
BINS = 15  # of the calibration error, as in Guo et al., ICML 2017


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
