"""Two domains with the same categories, and checks of what cannot be right."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from office.console import UserError, same, told_apart, visible
from office.data import listing, overlap
from office.data.listing import LeftOut

Key = TypeVar("Key", int, str)
Side: TypeAlias = tuple[dict[Key, list[Path]], list[LeftOut]]  # images by category, and the rest


@dataclass(frozen=True)
class Domain:
    """Images of one domain, with labels in ``[0, K)``, or ``None`` for an unlabelled folder.

    Attributes:
        left_out: Skipped files beside them.
    """

    name: str
    paths: list[Path]
    labels: list[int] | None
    left_out: Sequence[LeftOut] = ()


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
        there = set(self.target.labels or range(len(self.categories)))
        return [name for label, name in enumerate(self.categories) if label not in there]


def match(
    task: str,
    names: Sequence[str],
    sides: Sequence[Side],
    labels: Mapping[int, str] | None = None,
    *,
    partial: bool = False,
) -> Task:
    """Make a task from two domains; ``labels`` gives the names of categories known by number.

    Raises:
        UserError: If the categories differ, except those that a target may lack in ``partial``
            adaptation, or as for :func:`checked`.
    """
    labels = labels or {}
    here, there = (images.keys() for images, _ in sides)
    if here != there and not (partial and there < here):
        raise UserError(_differ(names, sides, labels))
    keys = sorted(here)
    source, target = (labelled(name, *side, keys) for name, side in zip(names, sides, strict=True))
    return checked(Task(task, source, target, [labels.get(key, str(key)) for key in keys]))


def labelled(
    name: str, images: dict[Key, list[Path]], left_out: list[LeftOut], keys: Sequence[Key]
) -> Domain:
    """Return a domain whose labels index ``keys``."""
    paths = [path for key in keys for path in images.get(key, [])]
    labels = [label for label, key in enumerate(keys) for _ in images.get(key, [])]
    return Domain(name, paths, labels, left_out)


def keep(side: Side, kept: Sequence[str], labels: Mapping[int, str]) -> Side:
    """Return a side with only the categories in ``kept``, for the target of partial adaptation.

    Args:
        side: Images by category, and skipped files.
        kept: Names of the categories to keep.
        labels: Names of categories known by number.
    """
    images, left_out = side
    return (
        {key: paths for key, paths in images.items() if labels.get(key, key) in kept},
        [item for item in left_out if item.category is None or item.category in kept],
    )


def checked(task: Task) -> Task:
    """Return the task if it can be right; warn about skipped files and images in two places.

    Raises:
        UserError: If there is only one category, or all images of a domain are also the other's.
    """
    source, target = task.source, task.target
    if len(task.categories) < 2:
        raise UserError(
            f"{visible(task.name)} has a single category, {visible(task.categories[0])}, so every "
            "prediction would be right. Each category needs its own folder in the source"
        )
    for domain in (source, target):
        if domain.left_out:
            warnings.warn(listing.summary(domain.name, domain.left_out), stacklevel=4)
        pairs = overlap.in_two_categories(domain.paths, domain.labels or [0] * len(domain.paths))
        if pairs:
            images = "image is" if len(pairs) == 1 else "images are"
            one = f"{visible(pairs[0][0])} is {visible(pairs[0][1])}"
            warnings.warn(
                f"{len(pairs):,} {images} in two categories of {visible(domain.name)}, for example "
                f"{one}",
                stacklevel=4,
            )
    pairs = overlap.shared(source.paths, target.paths)
    if not pairs:
        return task
    numbers = [len(pairs), len(overlap.shared(target.paths, [path for path, _ in pairs]))]
    totals = [len(source.paths), len(target.paths)]
    names = f"{visible(source.name)} and {visible(target.name)}"
    one = f"{visible(pairs[0][0])} is {visible(pairs[0][1])}"
    if numbers[0] == totals[0] or numbers[1] == totals[1]:
        raise UserError(
            f"{names} are the same images: {numbers[0]:,} of {totals[0]:,} and {numbers[1]:,} of "
            f"{totals[1]:,} files are the same, links to the same, or copies; for example {one}"
        )
    images = "image is" if numbers[1] == 1 else "images are"
    warnings.warn(
        f"{numbers[1]:,} {images} in both {names}, for example {one}: the target's accuracy "
        "includes these training images",
        stacklevel=4,
    )
    return task


def names_of_numbers(sides: Sequence[Side], names: Sequence[str]) -> dict[int, str]:
    """Return names for numbered categories: their images' folder if it is unique, else the number.

    Raises:
        UserError: If the same folder has a different number in each list.
    """
    named = []
    for side, _ in sides:
        folders = {
            number: {same(path.parent.name) for path in paths} for number, paths in side.items()
        }
        found = {number: min(folder) for number, folder in folders.items()}
        single = all(len(folder) == 1 for folder in folders.values())
        if not single or len(set(found.values())) < len(found):
            return {number: str(number) for side, _ in sides for number in side}
        named.append(found)
    numbers = [{name: number for number, name in found.items()} for found in named]
    for name in sorted(numbers[0].keys() & numbers[1].keys()):
        one, other = numbers[0][name], numbers[1][name]
        if one != other:
            raise UserError(
                f"category {told_apart(name)} has the number {one} in {names[0]} and {other} in "
                f"{names[1]}: the two lists number the categories differently"
            )
    for number in sorted(named[0].keys() & named[1].keys()):
        if named[0][number] != named[1][number]:
            here, there = (told_apart(found[number]) for found in named)
            warnings.warn(
                f"category {number} is {here} in {names[0]} and {there} in {names[1]}; "
                "matched by number",
                stacklevel=3,
            )
    return {**named[1], **named[0]}


def _differ(names: Sequence[str], sides: Sequence[Side], labels: Mapping[int, str]) -> str:
    """Say which categories a side lacks, and what to do about it."""
    shown = [{str(labels.get(key, key)) for key in images} for images, _ in sides]
    lacking = shown[1] - shown[0], shown[0] - shown[1]
    source, target = map(visible, names)
    told = [", ".join(told_apart(name) for name in sorted(lack)) for lack in lacking]
    missing = [f"missing in {source}: {told[0]}"] * bool(told[0])
    missing += [f"missing in {target}: {told[1]}"] * bool(told[1])
    lines = [f"{source} and {target} differ in categories; {'; '.join(missing)}"]
    lines[0] += ". Both need the same categories: remove the extra folder, or rename it"
    if lacking[1] and not lacking[0]:
        lines.append(
            f"If {target} is meant to have only some of {source}'s categories (partial "
            "adaptation), add --partial"
        )
    loose = [
        listing.summary(name, left_out)
        for name, (_, left_out) in zip(names, sides, strict=True)
        if left_out
    ]
    return "\n".join(lines + loose)
