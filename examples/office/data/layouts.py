"""Layouts of a benchmark on disk: where its domains and their categories are."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from office.console import UserError, same, visible
from office.data import listing, lists
from office.data.listing import Contents, LeftOut, subfolders


class Place(NamedTuple):
    """A folder, and the lists or folders in it that may be each domain."""

    base: Path
    listed: bool
    domains: dict[str, list[Path]]


def find(root: Path, names: Mapping[str, Sequence[str]]) -> list[Place]:
    """Return where domains are: in a folder or up to two levels below it; lists first.

    Args:
        root: The benchmark's folder, or a folder with several benchmarks.
        names: For each domain the common names of its folder, as lower-case letters and digits. A
            list is called ``NAME.txt`` or ``NAMEList.txt`` and may be in a folder ``list``,
            ``lists`` or ``image_list``.
    """
    places = []
    for listed, find_all in ((True, _find_lists), (False, _find_folders)):
        for base in _bases(root, names):
            every = {domain: find_all(base, wanted) for domain, wanted in names.items()}
            found = {domain: paths for domain, paths in every.items() if paths}
            places += [Place(base, listed, found)] if found else []
    return places


def size(path: Path) -> tuple[int, int]:
    """Return a quick estimate of the categories and images in a list or a domain's folder."""
    if path.is_file():
        return lists.size(path)
    categories = subfolders(_inner(path) or path)
    return len(categories), sum(len(os.listdir(category)) for category in categories)


def _find_folders(base: Path, names: Sequence[str]) -> list[Path]:
    return [p for p in subfolders(base) if _key(p.name) in names]


def _find_lists(base: Path, names: Sequence[str]) -> list[Path]:
    wanted = {*names, *(f"{name}list" for name in names)}
    holders = [p for p in subfolders(base) if _key(p.name) in ("list", "lists", "imagelist")]
    files = [path for holder in [*holders, base] for path in sorted(holder.iterdir())]
    return [
        path
        for path in files
        if path.suffix.lower() == ".txt"
        and path.name[0] != "."
        and _key(path.stem) in wanted
        and path.is_file()
    ]


def _inner(folder: Path) -> Path | None:
    """Return the folder ``images`` that contains a domain's categories in some archives."""
    found = [p for p in subfolders(folder) if p.name.lower() == "images" and subfolders(p)]
    return found[0] if found else None


def read_folder(folder: Path, domain: str) -> tuple[dict[str, list[Path]], list[LeftOut]]:
    """Return paths by category name from ``<category>/`` or ``images/<category>/``, and the rest.

    Two folders whose names differ only in Unicode normalisation are one category.

    Raises:
        UserError: If there is no category, or a category has no images.
    """
    inner = _inner(folder)
    top = listing.look(inner or folder)
    left_out = _outside(top)
    if inner:
        beside = listing.look(folder)
        left_out += _outside(beside)
        for other in beside.folders:
            if other != inner:
                left_out += listing.whole_folder(other, f"in a folder beside {inner.name}")
    if not top.folders:
        has = "images outside category folders" if top.images else "no category folders"
        raise UserError(f"domain {visible(domain)} is empty: {visible(folder)} has {has}")
    paths: dict[str, list[Path]] = {}
    for category in top.folders:
        name = same(category.name)
        found = listing.look(category)
        rest = [item._replace(category=name) for item in found.left_out]
        for inside in found.folders:
            rest += listing.whole_folder(inside, "in a folder inside a category's", name)
        if not found.images:
            only = f", only {listing.reasons(rest)}" if rest else ""
            raise UserError(
                f"category {visible(name)} of domain {visible(domain)} has no images{only}: "
                f"{visible(category)}"
            )
        paths.setdefault(name, []).extend(found.images)
        left_out += rest
    return paths, left_out


def _outside(found: Contents) -> list[LeftOut]:
    """Return what a folder of categories contains besides these."""
    images = [LeftOut(image, "an image outside category folders") for image in found.images]
    return images + found.left_out


def explain(root: Path | None, missing: list[str]) -> str:
    """Say which domains were not found, what is there instead, and what was expected."""
    if root is None:
        found = "--root is not given"
    elif not root.is_dir():
        found = f"{visible(root)} is not a folder"
    else:
        held = [visible(p.name) for p in subfolders(root)]
        more = ", ..." if len(held) > 8 else ""
        found = f"{visible(root)} contains {', '.join(held[:8]) + more if held else 'no folders'}"
    name, shown = missing[0].replace(" ", "_"), visible(root or "--root")
    return "\n".join(
        (
            f"{' and '.join(missing)} not found: {found}.",
            f"Each domain must be one of these in {shown} or up to two levels below:",
            f"  {name}/images/<category>/*.jpg     as in the original archive of Office-31",
            f"  {name}/<category>/*.jpg            one folder per category",
            f"  image_list/{name}.txt, list/{name}List.txt     lines of 'path label'",
        )
    )


def _key(name: str) -> str:
    """Normalise a name: "Real World", "RealWorld" and "Real_World" are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _bases(root: Path, names: Mapping[str, Sequence[str]]) -> list[Path]:
    """Return the root and two levels of readable folders, without the domains themselves.

    A root may contain several benchmarks, and archives often unpack into an extra folder.
    """
    domains = {name for known in names.values() for name in known}
    bases, level = [], [root] if root.is_dir() else []
    for _ in range(3):
        bases += level
        inner = [folder for base in level for folder in subfolders(base)]
        level = [
            f for f in inner if _key(f.name) not in domains and os.access(f, os.R_OK | os.X_OK)
        ]
    return bases
