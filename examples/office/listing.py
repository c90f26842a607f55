"""What is in a folder: images, folders, and what is left out of them, with the reason."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from office import formats
from office.names import visible

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
    """A file, or a folder with so many files, that is not read, and why."""

    path: Path
    why: str
    files: int = 1
    category: str | None = None


class Contents(NamedTuple):
    """What a folder itself holds; ``folders`` are those that may be categories or domains."""

    images: list[Path]
    folders: list[Path]
    left_out: list[LeftOut]


def look(folder: Path) -> Contents:
    """Sort out what a folder holds, without its folders' content.

    What systems leave behind is skipped, and only told of where it holds images.
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


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, without hidden ones and those of systems."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not _is_skipped(p.name))


def whole_folder(folder: Path, why: str, category: str | None = None) -> list[LeftOut]:
    """Return a folder as left out with all that it holds; nothing if that is no file."""
    images, files = _within(folder)
    if not files:
        return []
    held = f"{images} image{'s' * (images != 1)}" if images else "no images"
    return [LeftOut(folder, f"{why}, with {held}", files, category)]


def summary(domain: str, left_out: Iterable[LeftOut]) -> str:
    """Return in one line how many files of a domain are left out, why, and the first of them."""
    by_reason: dict[str, list[LeftOut]] = {}
    for item in left_out:
        by_reason.setdefault(item.why, []).append(item)
    reasons = []
    for why, items in by_reason.items():
        some = [visible("/".join(item.path.parts[-2:])) for item in items[:3]]
        more = [f"{len(items) - 3:,} more"] * (len(items) > 3)
        reasons.append(f"{', '.join(some + more)} ({why})")
    count = sum(item.files for items in by_reason.values() for item in items)
    files = "file is" if count == 1 else "files are"
    return f"{visible(domain)}: {count:,} {files} left out: {'; '.join(reasons)}"


def _is_systems(name: str) -> bool:
    name = name.lower()
    return name in _SYSTEM_FILES or name.endswith(_SYSTEM_ENDINGS) or name.startswith((".", "~$"))


def _is_skipped(name: str) -> bool:
    return name.lower() in _SYSTEM_FOLDERS or name[0] in "._"


def _skipped_folder(folder: Path) -> list[LeftOut]:
    images, _ = _within(folder)
    users = folder.name[0] == "_" and folder.name.lower() not in _SYSTEM_FOLDERS
    if users:
        return whole_folder(folder, "its name begins with _")
    return whole_folder(folder, "a hidden or a system's folder") if images else []


def _within(folder: Path) -> tuple[int, int]:
    """Count images and files in a folder and its folders, without what systems leave behind."""
    images = files = 0
    for base, _, names in os.walk(folder):
        for path in (Path(base, name) for name in names):
            hidden = _is_systems(path.name)
            image = formats.holds_image(path) if hidden else formats.is_image(path)
            images += image
            files += image or not hidden
    return images, files
