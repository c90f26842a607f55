"""Two domains with the same categories, and what cannot be right about them."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from office import listing, overlap
from office.errors import UserError
from office.listing import LeftOut
from office.names import same, told_apart, visible

Key = TypeVar("Key", int, str)
Side: TypeAlias = tuple[dict[Key, list[Path]], list[LeftOut]]  # images by category, and the rest


@dataclass(frozen=True)
class Domain:
    """Images of one domain, with labels in ``[0, K)``, or ``None`` for an unlabelled folder.

    Attributes:
        left_out: Files beside them that are not read.
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


def match(
    task: str, names: Sequence[str], sides: Sequence[Side], labels: Mapping[int, str] | None = None
) -> Task:
    """Make a task of two domains; ``labels`` names the categories that are known by number.

    Raises:
        UserError: If the categories differ, or as for :func:`checked`.
    """
    labels = labels or {}
    here, there = (images.keys() for images, _ in sides)
    if here != there:
        raise UserError(_differ(names, sides, labels))
    source, target = (labelled(name, *side) for name, side in zip(names, sides, strict=True))
    return checked(Task(task, source, target, [labels.get(key, str(key)) for key in sorted(here)]))


def labelled(name: str, images: dict[Key, list[Path]], left_out: list[LeftOut]) -> Domain:
    """Return a domain whose labels count the sorted categories."""
    keys = sorted(images)
    paths = [path for key in keys for path in images[key]]
    labels = [label for label, key in enumerate(keys) for _ in images[key]]
    return Domain(name, paths, labels, left_out)


def checked(task: Task) -> Task:
    """Return a task that can be right; warn of files left out and of images in both domains.

    Raises:
        UserError: If there is one category alone, or all images of a domain are the other's too.
    """
    source, target = task.source, task.target
    for domain in (source, target):
        if domain.left_out:
            warnings.warn(listing.summary(domain.name, domain.left_out), stacklevel=4)
    if len(task.categories) < 2:
        raise UserError(
            f"there is one category alone, {visible(task.categories[0])}: whatever is predicted "
            "would be right. The source needs two categories or more, each in a folder of its own"
        )
    pairs = overlap.shared(source.paths, target.paths)
    if not pairs:
        return task
    theirs = len(overlap.shared(target.paths, [path for path, _ in pairs]))
    names = visible(source.name), visible(target.name)
    same_as = f"as {visible(pairs[0][1])} is {visible(pairs[0][0])}"
    if len(pairs) == len(source.paths) or theirs == len(target.paths):
        which = names if theirs == len(target.paths) else names[::-1]
        raise UserError(
            f"all images of {which[1]} are images of {which[0]} too, {same_as}: source and target "
            "must be different images"
        )
    warnings.warn(
        f"{theirs:,} of {len(target.paths):,} images of {names[1]} are images of {names[0]} too, "
        f"{same_as}: their accuracy is that of training images",
        stacklevel=4,
    )
    return task


def names_of_numbers(sides: Sequence[Side], names: Sequence[str]) -> dict[int, str]:
    """Category names of numbers: the images' folder where it tells, else the number."""
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
    for number in sorted(named[0].keys() & named[1].keys()):
        if named[0][number] != named[1][number]:
            one, other = (told_apart([named[i][number]], [named[1 - i][number]]) for i in range(2))
            warnings.warn(
                f"category {number} is {one} in {names[0]} and {other} in {names[1]}; "
                "matched by number",
                stacklevel=3,
            )
    return {**named[1], **named[0]}


def _differ(names: Sequence[str], sides: Sequence[Side], labels: Mapping[int, str]) -> str:
    """Say which categories a side lacks, and what one can do today."""
    shown = [{str(labels.get(key, key)) for key in images} for images, _ in sides]
    lacking = shown[1] - shown[0], shown[0] - shown[1]
    source, target = map(visible, names)
    told = told_apart(lacking[0], lacking[1]), told_apart(lacking[1], lacking[0])
    missing = [f"missing in {source}: {told[0]}"] * bool(told[0])
    missing += [f"missing in {target}: {told[1]}"] * bool(told[1])
    lines = [f"{source} and {target} differ in categories; {'; '.join(missing)}"]
    if lacking[0] and lacking[1]:
        lines.append("Where two of these are one, give their folders one name.")
    if lacking[1]:
        lines.append(
            f"A target that lacks categories (partial adaptation) is not there yet: what works "
            f"today is to take these out of {source}: {told[1]}"
        )
    if lacking[0]:
        lines.append(f"Categories of the target alone are never learnt: take them out of {target}")
    loose = [
        listing.summary(name, left_out)
        for name, (_, left_out) in zip(names, sides, strict=True)
        if left_out
    ]
    return "\n".join(lines + loose)
