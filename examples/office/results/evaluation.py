"""Accuracies by name, recall per category and confusion matrices."""

from typing import Any

import torch
from torch import Tensor


def classifiers(logits: Tensor, num_classes: int) -> dict[str, Tensor]:
    """Split task logits into C_t's and C_s's (target and source); a single one counts as C_t."""
    if logits.shape[1] == num_classes:
        return {"C_t": logits}
    source, target = logits.chunk(2, dim=1)
    return {"C_t": target, "C_s": source}


def target_accuracies(
    logits: Tensor, labels: list[int] | None, num_classes: int
) -> dict[str, float | None]:
    """Return ``target_accuracy/C_t`` and, if there is one, ``/C_s``: %, ``None`` if unlabelled."""
    return {
        f"target_accuracy/{name}": None if labels is None else accuracy(part, labels)
        for name, part in classifiers(logits, num_classes).items()
    }


def source_accuracy(logits: Tensor, labels: list[int], num_classes: int) -> dict[str, float]:
    """Return ``source_accuracy/C_s`` in %, or ``/C_t`` if there is only one classifier."""
    name, part = [*classifiers(logits, num_classes).items()][-1]
    return {f"source_accuracy/{name}": accuracy(part, labels)}


def accuracy(logits: Tensor, labels: list[int]) -> float:
    """Return the accuracy in %."""
    return 100 * (logits.argmax(1) == torch.tensor(labels)).double().mean().item()


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Count images by label (row) and prediction (column), ``(K, K)``."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(
        num_classes, num_classes
    )


def by_category(logits: Tensor, labels: list[int] | None, categories: list[str]) -> dict[str, Any]:
    """Return ``per_category``, recall in %, and ``confusion`` for one classifier's logits.

    The recall of a category without images is ``None``.
    """
    if labels is None:
        return {"per_category": dict.fromkeys(categories), "confusion": None}
    counts = confusion_matrix(torch.tensor(labels), logits.argmax(1), len(categories))
    right, images = counts.diagonal().tolist(), counts.sum(1).tolist()
    per_category = {
        name: 100 * r / n if n else None
        for name, r, n in zip(categories, right, images, strict=True)
    }
    return {"per_category": per_category, "confusion": counts.tolist()}
