"""What is in a folder: images, folders, and skipped files with the reason."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from office.console import visible
from office.data import formats

_SYSTEM_FILES = {
    "autorun.inf",
    "desktop.ini",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "icon\r",
    "picasa.ini",
    "sync.ffs_db",
    "thumbs.db",
    "zbthumbnail.info",
}
_SYSTEM_ENDINGS = (":zone.identifier", "@synoeastream", "@synoresource")
_SYSTEM_FOLDERS = {
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "@__thumb",
    "@eadir",
    "@recently-snapshot",
    "@recycle",
    "@tmp",
    "__macosx",
    "__pycache__",
    "cvs",
    "found.000",
    "lost+found",
    "network trash folder",
    "recycler",
    "system volume information",
    "temporary items",
}


class LeftOut(NamedTuple):
    """A skipped file, the reason, and the category whose folder it is in."""

    path: Path
    why: str
    category: str | None = None


class Contents(NamedTuple):
    """A folder's own content; ``folders`` are those that may be categories or domains."""

    images: list[Path]
    folders: list[Path]
    left_out: list[LeftOut]


def look(folder: Path) -> Contents:
    """Sort the content of a folder, without its subfolders' content.

    Files left behind by operating systems are skipped, and reported only if they are images.
    """
    found = Contents([], subfolders(folder), [])
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path not in found.folders:
                found.left_out.extend(_skipped_folder(path))
        elif _is_systems(path.name):
            if path.name.endswith(".icloud"):
                found.left_out.append(LeftOut(path, "not downloaded from iCloud"))
            elif formats.holds_image(path):
                found.left_out.append(LeftOut(path, "a hidden file"))
        elif why := formats.why_not(path):
            found.left_out.append(LeftOut(path, why))
        else:
            found.images.append(path)
    return found


def look_below(folder: Path) -> Contents:
    """Sort the content of a folder at any depth; the result has no ``folders``."""
    images, left_out, folders, seen = [], [], [folder], set()
    while folders:
        here = folders.pop(0)
        if here.resolve() in seen:  # a link to one of its parents
            continue
        seen.add(here.resolve())
        found = look(here)
        images += found.images
        left_out += found.left_out
        folders += found.folders
    return Contents(images, [], left_out)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, without hidden and system ones."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not _is_skipped(p.name))


def whole_folder(folder: Path, why: str, category: str | None = None) -> list[LeftOut]:
    """Return all files in a folder, at any depth, as skipped.

    Files left behind by operating systems are included only if they are images.
    """
    walk = ((Path(base), names) for base, _, names in os.walk(folder))
    files = sorted(base / name for base, names in walk for name in names)
    return [
        LeftOut(path, why, category)
        for path in files
        if not _is_systems(path.name) or formats.holds_image(path)
    ]


def summary(domain: str, left_out: Sequence[LeftOut]) -> str:
    """Say in one line how many files of a domain are skipped, the first ones, and why."""
    return f"{visible(domain)}: {len(left_out):,} skipped: {reasons(left_out)}"


def reasons(left_out: Sequence[LeftOut]) -> str:
    """Return the first skipped files for each reason."""
    by_reason: dict[str, list[LeftOut]] = {}
    for item in left_out:
        by_reason.setdefault(item.why, []).append(item)
    parts = []
    for why, items in by_reason.items():
        some = [visible(item.path.name) for item in items[:3]]
        more = [f"{len(items) - 3:,} more"] * (len(items) > 3)
        parts.append(f"{', '.join(some + more)} ({why})")
    return "; ".join(parts)


def _is_systems(name: str) -> bool:
    name = name.lower()
    return name in _SYSTEM_FILES or name.endswith(_SYSTEM_ENDINGS) or name.startswith((".", "~$"))


def _is_skipped(name: str) -> bool:
    return name.lower() in _SYSTEM_FOLDERS or name[0] in "._"


def _skipped_folder(folder: Path) -> list[LeftOut]:
    if folder.name[0] == "_" and folder.name.lower() not in _SYSTEM_FOLDERS:
        return whole_folder(folder, "in a folder whose name begins with _")
    files = whole_folder(folder, "in a hidden or system folder")
    return [item for item in files if formats.is_image(item.path)]
