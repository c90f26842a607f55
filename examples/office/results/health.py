"""What a run shows about its target without labels: rarely predicted categories, agreement."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

import symloss
from office.console import UserError, visible
from office.results.outputs import Result
from office.training.methods import METHODS
from symloss.scores import Diagnosis

COLUMNS = ("dataset", "task", "method", "seed", "agreement", "category", "predicted", "expected")


def label_free(
    logits: Tensor, answers: Tensor, categories: list[str], prior: list[float]
) -> dict[str, Any]:
    """Return ``predicted`` and ``expected`` shares by category, and ``agreement``, for a result.

    Args:
        logits: Task logits on the target, ``(N, 2K)``, or ``(N, K)`` for one classifier.
        answers: The answering classifier's logits, ``(N, K)``.
        categories: Names of the K categories.
        prior: Their expected shares.

    Raises:
        UserError: If a logit is NaN.
    """
    if logits.isnan().any():
        raise UserError("the logits of target images are NaN: the run has diverged")
    found = symloss.scores.diagnose(answers, categories, prior, joint=False)
    symmetric = logits.shape[1] == 2 * len(categories)
    return {
        "predicted": dict(zip(categories, found.predicted, strict=True)),
        "expected": dict(zip(categories, found.expected, strict=True)),
        "agreement": symloss.scores.agreement(logits).item() if symmetric else None,
    }


def diagnosis(result: Result) -> Diagnosis:
    """Return a result's :func:`label_free` findings, with printable names."""
    return Diagnosis(
        tuple(map(visible, result.predicted)),
        tuple(result.predicted.values()),
        tuple(result.expected.values()),
        result.agreement,
    )


def remedy(method: str, settings: Mapping[str, Any]) -> str | None:
    """Return what to try if categories are rarely predicted.

    Args:
        method: A key of :data:`METHODS`.
        settings: The run's settings, by name.
    """
    known = METHODS.get(method)
    if settings.get("partial") or (known and known.balanced):
        return None
    balanced = f"{method}-balanced"
    return f"--method {balanced if balanced in METHODS else 'symnets-balanced'}"


def summary(results: Iterable[Result]) -> str:
    """Return one line per run with rarely predicted categories, and a summary of the others."""
    told = [result for result in results if result.predicted]
    if not told:
        return ""
    lines = ["**On the targets, without their labels**", ""]
    for result in told:
        found = diagnosis(result)
        if found.rarely_predicted:
            run = f"{result.dataset} {result.task} {result.method} seed {result.seed}"
            advice = remedy(result.method, result.recipe)
            lines.append(f"- {run}: {found.sentence(advice)}")
    healthy = len(told) - len(lines) + 2
    lines.append(f"- In {healthy} of {len(told)} runs every category is predicted.")
    same = [100 * result.agreement for result in told if result.agreement is not None]
    if same:
        spread = f"{min(same):.1f} to {max(same):.1f} %"
        lines.append(f"- The source and target classifiers agree on {spread} of the target.")
    return "\n".join(lines) + "\n"


def write_csv(results: Iterable[Result], path: Path) -> None:
    """Write the shares of every run, one line per category."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for result in results:
            run = (result.dataset, result.task, result.method, result.seed, result.agreement)
            for category, share in result.predicted.items():
                writer.writerow([*run, category, share, result.expected[category]])
