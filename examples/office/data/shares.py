"""The expected share of each category in the target."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from office.console import UserError, same, told_apart

Shares: TypeAlias = tuple[tuple[str, float], ...]  # category names and shares


def read_shares(path: Path) -> Shares:
    """Read a file with one line per category, its name and share: ``mug,0.05``.

    Raises:
        UserError: If the file cannot be read, a share is not above 0, a name is repeated, or the
            sum is not 1; names the line.
    """
    shares: dict[str, float] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            lines = [(f"{path}, line {rows.line_num}", row) for row in rows if row]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    for at, row in lines:
        if len(row) != 2:
            raise UserError(f"{at} must be a category and its share, like mug,0.05, got {row}")
        name, share = same(row[0]), _number(row[1])
        if not 0 < share <= 1:
            raise UserError(
                f"{at}: the share of {told_apart(name)} must be a number above 0, at most 1, got "
                f"{row[1].strip()!r}; use a small one, like 0.001, if the target may lack it"
            )
        if name in shares:
            raise UserError(f"{at}: {told_apart(name)} is listed twice")
        shares[name] = share
    total = math.fsum(shares.values())
    if abs(total - 1) > 1e-4:
        raise UserError(f"{path}: the shares of all categories must sum to 1, got {total:g}")
    return tuple(shares.items())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def of_categories(
    prior: str | Shares, categories: Sequence[str], labels: Sequence[int]
) -> list[float]:
    """Return the expected shares in the order of a task's categories.

    Args:
        prior: ``"uniform"``, ``"source"`` for the source's shares, or shares by name.
        categories: The task's.
        labels: The source's.

    Raises:
        UserError: If the task's categories are not those with a share.
    """
    if prior == "uniform":
        return [1 / len(categories)] * len(categories)
    if isinstance(prior, str):
        return [labels.count(i) / len(labels) for i in range(len(categories))]
    shares = dict(prior)
    for names, others, fault in (
        (categories, shares, "has no share for"),
        (shares, categories, "has shares of categories that the source lacks:"),
    ):
        lacking = [told_apart(name) for name in names if name not in others]
        if lacking:
            raise UserError(f"--prior {fault} {', '.join(lacking)}")
    return [shares[name] for name in categories]
