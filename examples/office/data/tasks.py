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

import torch
from torch import Tensor

import symloss
from office import distributed
from office.console import UserError, same, visible
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
    if name not in (known := DATASETS[dataset].tasks):
        raise UserError(f"{dataset} has no task {name}; choose from {', '.join(known)}")
    sides = layouts.read(dataset, root, name.split("2"))
    task = benchmark_task(dataset, name, sides, partial=partial)
    _compare_with_published(dataset, task)
    return task


def benchmark_task(
    dataset: str, name: str, sides: Sequence[Side], *, partial: bool = False
) -> Task:
    """Make a benchmark's task; in partial adaptation its target keeps some of the categories."""
    benchmark, (source, target) = DATASETS[dataset], sides
    names = [benchmark.domains[domain].name for domain in name.split("2")]
    if kept := benchmark.kept:
        images = {category: paths for category, paths in target.images.items() if category in kept}
        if not images:
            where, has = visible(target.path), ", ".join(map(visible, target.images))
            raise UserError(f"{where} has none of the categories {', '.join(kept)}: it has {has}")
        skipped = [item for item in target.skipped if item.category in (None, *kept)]
        target = Side(target.path, images, skipped)
        names[1] += f" ({len(kept)} categories)"
    return match(name, names, [source, target], partial=partial or bool(kept))


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
        raise UserError(
            f"{error}. If {visible(target)} is meant to be the source, swap --source and --target"
        ) from None
    contents = layouts.look_below(target) if unlabelled else layouts.look(target)
    if contents.folders:
        try:
            sides = [side, layouts.read_folder(target, names[1])]
            return match("2".join(names), names, sides, partial=partial)
        except UserError as error:
            raise UserError(
                f"{error}. If the folders in {visible(target)} are not categories, add --unlabelled"
            ) from None
    if not contents.images:
        rest = f"; {layouts.summary(names[1], contents.skipped)}" if contents.skipped else ""
        raise UserError(
            f"domain {visible(names[1])} is empty: {visible(target)} has neither images nor "
            f"category folders{rest}"
        )
    images = Domain(names[1], contents.images, None, contents.skipped)
    return checked("2".join(names), labelled(names[0], side, [*side.images]), images, side)


def read_shares(path: Path) -> Shares:
    """Read a file with one line per category, its name and share: ``mug,0.05``."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(same(name), float(share)) for name, share in filter(None, csv.reader(file))]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}; each line must be like mug,0.05") from None
    names, shares = [name for name, _ in rows], [share for _, share in rows]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path}: {visible(twice[0])} is listed twice")
    if not all(share > 0 for share in shares) or abs(math.fsum(shares) - 1) > 1e-4:
        raise UserError(
            f"{path}: the shares must be above 0 and sum to 1, got {shares}; for a category that "
            "the target may lack, use a small share such as 0.001"
        )
    return tuple(rows)


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
        (
            [name for name in shares if name not in categories],
            "names categories that the source lacks:",
        ),
    ):
        if names:
            raise UserError(f"--prior {fault} {', '.join(map(visible, names))}")
    return [shares[name] for name in categories]


def estimate_shares(
    task: Task, features: Sequence[Tensor], seed: int, device: torch.device
) -> symloss.EstimatedPrior:
    """Estimate the target's shares from features of both domains.

    The first process estimates them for all.
    """

    def estimate() -> symloss.EstimatedPrior:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of features that an untrained network makes
            try:
                return symloss.estimate_prior(
                    features[0], task.source.labels, features[1], random_state=seed, device=device
                )
            except (ValueError, FloatingPointError) as error:
                raise UserError(f"{task.name}: the shares cannot be estimated: {error}") from None

    prior, trust = distributed.in_first(estimate)
    return symloss.EstimatedPrior(prior.to(device), trust)


def match(name: str, domains: Sequence[str], sides: Sequence[Side], *, partial: bool) -> Task:
    """Make a task from two domains with the same categories, or fewer in a ``partial`` target."""
    source, target = (side.images.keys() for side in sides)
    if source != target and not (partial and target < source):
        raise UserError(_differ(domains, sides))
    one, other = (labelled(*side, [*source]) for side in zip(domains, sides, strict=True))
    return checked(name, one, other, sides[0])


def labelled(name: str, side: Side, categories: Sequence[str]) -> Domain:
    """Return a domain whose labels index the categories."""
    images = [side.images.get(category, []) for category in categories]
    labels = [label for label, paths in enumerate(images) for _ in paths]
    return Domain(name, [path for paths in images for path in paths], labels, side.skipped)


def checked(name: str, source: Domain, target: Domain, side: Side) -> Task:
    """Return a task, if the source has several categories; warn about skipped files."""
    if len(side.images) < 2:
        raise UserError(
            f"{visible(name)} has only one category, {visible(*side.images)}, so every "
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
    fault = f"{source} and {target} have different categories"
    if not ours & theirs:
        fault = f"none of {source}'s categories is one of {target}'s"
    for domain, names in ((source, theirs - ours), (target, ours - theirs)):
        if names:
            fault += f"; missing in {domain}: {', '.join(map(visible, sorted(names)))}"
    if ours < theirs:
        fault += f". If {target} is meant to be the source, swap the two domains"
    if theirs < ours:
        fault += (
            f". If {target} is meant to have only some of {source}'s categories (partial "
            "adaptation), add --partial"
        )
    return fault


def _compare_with_published(dataset: str, task: Task) -> None:
    """Refuse another benchmark whose domains have the same names; warn if counts differ."""
    benchmark, (source, target) = DATASETS[dataset], task.name.split("2")
    images = [benchmark.domains[domain].images for domain in (source, target)]
    images[1] = benchmark.kept_images.get(target, images[1])
    k, counts = len(task.categories), [len(task.source.paths), len(task.target.paths)]
    published = benchmark.categories
    others = [n for n, b in DATASETS.items() if b.categories == k != published and not b.kept]
    if k > published or others:
        where = visible(task.source.paths[0].parent.parent)
        raise UserError(
            f"{dataset} has {published} categories, but {where} has {k}"
            f"{''.join(f', like {name}' for name in others)}; set --root to the folder of "
            f"{dataset}"
        )
    for name, count, expected, things in (
        (f"{dataset} {task.source.name}", counts[0], images[0], "images"),
        (f"{dataset} {task.target.name}", counts[1], images[1], "images"),
        (dataset, k, published, "categories"),
    ):
        if count != expected:
            warnings.warn(f"{name}: {count:,} {things} found, {expected:,} published", stacklevel=2)
