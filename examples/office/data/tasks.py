"""Tasks from the benchmarks or from any two folders, and the expected shares of their categories.

A task is a labelled source domain and a target domain whose labels are used only in evaluation.
"""

import csv
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from office.console import UserError, same, told_apart, visible
from office.data import layouts
from office.data.layouts import DATASETS, Side, Skipped

Shares: TypeAlias = tuple[tuple[str, float], ...]  # category names and shares


@dataclass(frozen=True)
class Domain:
    """Images of one domain, with labels in ``[0, K)``, or ``None`` for an unlabelled folder."""

    name: str
    paths: list[Path]
    labels: list[int] | None
    skipped: Sequence[Skipped] = ()  # other files beside them


@dataclass(frozen=True)
class Task:
    """Two domains and the K category names that their labels index."""

    name: str
    source: Domain
    target: Domain
    categories: list[str]

    @property
    def lacking(self) -> list[str]:
        """Categories of which a labelled target has no image."""
        present = set(self.target.labels or range(len(self.categories)))
        return [name for label, name in enumerate(self.categories) if label not in present]


def available_tasks(dataset: str, root: Path | None) -> list[str]:
    """Return the tasks whose two domains are under ``root``."""
    domains = layouts.available(dataset, root)
    return [task for task in DATASETS[dataset].tasks if domains.issuperset(task.split("2"))]


def load_task(dataset: str, root: Path | None, name: str, *, partial: bool = False) -> Task:
    """Load a benchmark's task such as ``"A2W"`` from its folder, or one with several benchmarks.

    Only the task's two domains need to be there; a ``partial`` target may lack categories.
    """
    benchmark = DATASETS[dataset]
    if name not in benchmark.tasks:
        raise UserError(f"{dataset} has no task {name}; choose {', '.join(benchmark.tasks)}")
    source, target = layouts.read(dataset, root, name.split("2"))
    parts = [benchmark.domains[domain] for domain in name.split("2")]
    names, published = [part.name for part in parts], [part.images for part in parts]
    if kept := benchmark.kept:
        images = {category: paths for category, paths in target.images.items() if category in kept}
        if not images:
            where, has = visible(target.path), ", ".join(map(visible, target.images))
            raise UserError(f"{where} has none of the categories {', '.join(kept)}: it has {has}")
        target = Side(
            target.path, images, [s for s in target.skipped if s.category in (None, *kept)]
        )
        names[1] += f" ({len(kept)} categories)"
        published[1] = benchmark.kept_images[name.split("2")[1]]
    task = _match(name, names, [source, target], partial=partial or bool(kept))
    _compare_with_published(dataset, task, published)
    return task


def load_folders(
    source: Path, target: Path, *, partial: bool = False, unlabelled: bool = False
) -> Task:
    """Make a task from any two folders of images.

    Args:
        source: One subfolder per category.
        target: The same subfolders, or images without subfolders; then its labels are ``None``.
        partial: Whether the target may lack subfolders of the source.
        unlabelled: Whether the target's folders, at any depth, are not categories.
    """
    for folder in (source, target):
        if not folder.is_dir():
            raise UserError(layouts.no_folder(folder))
    ours, theirs = source.resolve().parts, target.resolve().parts
    if ours == theirs:
        raise UserError(f"source and target are the same folder: {visible(source)}")
    n = next(n for n in range(1, len(ours + theirs)) if ours[-n:] != theirs[-n:])
    names = ["-".join(parts[1:][-n:]) for parts in (ours, theirs)]  # that differ
    try:
        side = layouts.read_folder(source, names[0])
    except UserError as error:
        if layouts.subfolders(source) or not layouts.subfolders(target):
            raise
        swapped = f"{visible(target)} has: are --source and --target swapped?"
        raise UserError(f"{error}, but {swapped}") from None
    contents = layouts.look_below(target) if unlabelled else layouts.look(target)
    if contents.folders:
        try:
            sides = [side, layouts.read_folder(target, names[1])]
            return _match("2".join(names), names, sides, partial=partial)
        except UserError as error:
            raise UserError(
                f"{error}; if the folders in {visible(target)} are not categories, add --unlabelled"
            ) from None
    if not contents.images:
        rest = f"; {layouts.summary(names[1], contents.skipped)}" if contents.skipped else ""
        raise UserError(
            f"domain {visible(names[1])} is empty: {visible(target)} has neither images nor "
            f"category folders{rest}"
        )
    images = Domain(names[1], contents.images, None, contents.skipped)
    return _checked("2".join(names), _labelled(names[0], side, [*side.images]), images, side)


def read_shares(path: Path) -> Shares:
    """Read a file with one line per category, its name and share: ``mug,0.05``."""
    shares: dict[str, float] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            lines = [(f"{path}, line {rows.line_num}", row) for row in rows if row]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    for at, row in lines:
        try:
            name, share = same(row[0]), float(row[1])
        except (LookupError, ValueError):
            name, share = "", math.nan
        if len(row) != 2 or not 0 < share <= 1:
            raise UserError(
                f"{at} must be a category and its share, above 0 and at most 1, like mug,0.05, got "
                f"{row}; use a small one, like 0.001, if the target may lack it"
            )
        if name in shares:
            raise UserError(f"{at}: {told_apart(name)} is listed twice")
        shares[name] = share
    total = math.fsum(shares.values())
    if abs(total - 1) > 1e-4:
        raise UserError(f"{path}: the shares of all categories must sum to 1, got {total:g}")
    return tuple(shares.items())


def shares_of(prior: str | Shares, categories: Sequence[str], labels: Sequence[int]) -> list[float]:
    """Return the expected shares in the order of a task's categories.

    They are ``"uniform"``, those of the ``"source"``'s labels, or by name: :class:`UserError` if
    the task's categories are not those with a share.
    """
    if prior == "uniform":
        return [1 / len(categories)] * len(categories)
    if isinstance(prior, str):
        return [labels.count(i) / len(labels) for i in range(len(categories))]
    shares = dict(prior)
    for names, fault in (
        ([name for name in categories if name not in shares], "has no share for"),
        ([name for name in shares if name not in categories], "has more than the source:"),
    ):
        if names:
            raise UserError(f"--prior {fault} {', '.join(map(told_apart, names))}")
    return [shares[name] for name in categories]


def _match(name: str, domains: Sequence[str], sides: Sequence[Side], *, partial: bool) -> Task:
    """Make a task from two domains with the same categories, or fewer in a ``partial`` target."""
    source, target = (side.images.keys() for side in sides)
    if source != target and not (partial and target < source):
        raise UserError(_differ(domains, sides))
    one, other = (_labelled(*side, [*source]) for side in zip(domains, sides, strict=True))
    return _checked(name, one, other, sides[0])


def _labelled(name: str, side: Side, categories: Sequence[str]) -> Domain:
    images = [side.images.get(category, []) for category in categories]
    labels = [label for label, paths in enumerate(images) for _ in paths]
    return Domain(name, [path for paths in images for path in paths], labels, side.skipped)


def _checked(name: str, source: Domain, target: Domain, side: Side) -> Task:
    """Return a task, if the source has several categories; warn about skipped files."""
    if len(side.images) < 2:
        raise UserError(
            f"{visible(name)} has a single category, {visible(*side.images)}, so every "
            "prediction would be right. Each category needs its own folder in the source"
        )
    for domain in (source, target):
        if domain.skipped:
            warnings.warn(layouts.summary(domain.name, domain.skipped), stacklevel=2)
    # Files and figures use the names: what is not UTF-8 in them is escaped.
    name, *categories = (
        text.encode("utf-8", "backslashreplace").decode() for text in (name, *side.images)
    )
    return Task(name, source, target, categories)


def _differ(domains: Sequence[str], sides: Sequence[Side]) -> str:
    """Say which categories a side lacks, and what to do about it."""
    source, target = map(visible, domains)
    ours, theirs = (side.images.keys() for side in sides)
    fault = f"{source} and {target} differ in categories"
    if not ours & theirs:
        fault = f"none of {source}'s categories is one of {target}'s"
    for domain, names in ((source, theirs - ours), (target, ours - theirs)):
        if names:
            fault += f"; missing in {domain}: {', '.join(map(told_apart, sorted(names)))}"
    lines = [f"{fault}. Both need the same categories, under the same names"]
    if ours < theirs:
        lines.append(
            f"{target} has all of {source}'s, and more: are --source and --target swapped?"
        )
    if theirs < ours:
        lines.append(
            f"If {target} is meant to have only some of {source}'s categories (partial "
            "adaptation), add --partial"
        )
    pairs = zip(domains, sides, strict=True)
    lines += [layouts.summary(name, side.skipped) for name, side in pairs if side.skipped]
    return "\n".join(lines)


def _compare_with_published(dataset: str, task: Task, images: Sequence[int]) -> None:
    """Refuse another benchmark's domains of the same names; warn of other counts."""
    k, counts = len(task.categories), [len(task.source.paths), len(task.target.paths)]
    published = DATASETS[dataset].categories
    likely = [
        name
        for name, other in DATASETS.items()
        if other.categories == k != published
        and not other.kept
        and (k > published or {*counts} <= {part.images for part in other.domains.values()})
    ]
    if k > published or likely:
        where = visible(task.source.paths[0].parent.parent)
        raise UserError(
            f"{dataset} has {published} categories, but {where} has {k}"
            f"{''.join(f', as {name}' for name in likely)}; set --root to the folder of {dataset}"
        )
    for name, count, expected, things in (
        (f"{dataset} {task.source.name}", counts[0], images[0], "images"),
        (f"{dataset} {task.target.name}", counts[1], images[1], "images"),
        (dataset, k, published, "categories"),
    ):
        if count != expected:
            warnings.warn(f"{name}: {count:,} {things} found, {expected:,} published", stacklevel=2)
