"""What a benchmark's tree may look like on disk: from a folder or a list to paths by category."""

import re
from collections.abc import Sequence
from pathlib import Path

from office.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, without hidden ones."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._")


def image_files(folder: Path) -> list[Path]:
    """Return the images in a folder itself, by their names' endings."""
    # A broken link counts as an image, so that reading it names it.
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in EXTENSIONS and p.name[0] != "." and not p.is_dir()
    )


def find_folder(root: Path, names: Sequence[str]) -> Path | None:
    """Return the folder of a domain, in ``root`` or in a folder of it, or ``None``.

    Args:
        root: The benchmark's folder.
        names: Folder names of the domain in use, in lower case and without other characters.
    """
    for base in _bases(root):
        for folder in subfolders(base):
            if _key(folder.name) in names:
                return folder
    return None


def find_list(root: Path, names: Sequence[str]) -> Path | None:
    """Return the list of a domain's images, ``NAME.txt`` or ``NAMEList.txt``, or ``None``.

    Args:
        root: The benchmark's folder; the list is in it, in a folder of it, or in a folder
            ``list``, ``lists`` or ``image_list`` of one of these.
        names: As for :func:`find_folder`.
    """
    wanted = {*names, *(f"{name}list" for name in names)}
    for base in _bases(root):
        holders = [p for p in subfolders(base) if _key(p.name) in ("list", "lists", "imagelist")]
        for holder in [*holders, base]:
            for path in sorted(holder.glob("*.txt")):
                if _key(path.stem) in wanted:
                    return path
    return None


def read_folder(folder: Path, domain: str) -> dict[str, list[Path]]:
    """Return paths by category name from ``<category>/`` or ``images/<category>/``.

    Raises:
        UserError: If there is no category, or one without images.
    """
    inner = [p for p in subfolders(folder) if p.name.lower() == "images" and subfolders(p)]
    categories = subfolders(inner[0] if inner else folder)
    if not categories:
        has = "images outside category folders" if image_files(folder) else "no category folders"
        raise UserError(f"domain {domain} is empty: {folder} has {has}")
    paths = {category.name: image_files(category) for category in categories}
    for category in categories:
        if not paths[category.name]:
            raise UserError(
                f"category {category.name} of domain {domain} has no images: {category}"
            )
    return paths


def read_list(path: Path, root: Path) -> dict[int, list[Path]]:
    """Return paths by category number from lines "path label".

    Args:
        path: The list.
        root: The benchmark's folder. Images are looked for from there, from the list's folder and
            from the folder above that.

    Raises:
        UserError: If a line is not one, names no image that is there, or the list is empty.
    """
    numbered: dict[int, list[Path]] = {}
    place: tuple[Path, int] | None = None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            listed, label = line.rsplit(maxsplit=1)
            number = int(label)
        except ValueError:
            raise UserError(f"{path}, line {i}: expected 'path label', got {line!r}") from None
        parts = Path(listed.strip()).parts
        place = place or _place(parts, (root, path.parent, path.parent.parent))
        image = place[0].joinpath(*parts[place[1] :]) if place else root.joinpath(*parts)
        if not image.is_file():
            raise UserError(f"{path}, line {i}: no such image {image}")
        numbered.setdefault(number, []).append(image)
    if not numbered:
        raise UserError(f"the list is empty: {path}")
    return numbered


def explain(root: Path | None, missing: list[str]) -> str:
    """Say that domains are not found, what is there instead, and what could be."""
    if root is None:
        found = "--root is not given"
    elif not root.is_dir():
        found = f"{root} is not a folder"
    else:
        held = [p.name for p in subfolders(root)]
        more = ", ..." if len(held) > 8 else ""
        found = f"{root} holds {', '.join(held[:8]) + more if held else 'no folders'}"
    name = missing[0].replace(" ", "_")
    return "\n".join(
        (
            f"{' and '.join(missing)} not found: {found}.",
            f"Each domain must be one of these in {root or '--root'} or in a folder of it:",
            f"  {name}/images/<category>/*.jpg     as in the original archive of Office-31",
            f"  {name}/<category>/*.jpg            one folder per category",
            f"  image_list/{name}.txt, list/{name}List.txt     lines of 'path label'",
        )
    )


def _key(name: str) -> str:
    """Fold the spellings of one name: "Real World", "RealWorld" and "Real_World" are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _bases(root: Path) -> list[Path]:
    """The root and its folders: archives often unpack into one folder more."""
    return [root, *subfolders(root)] if root.is_dir() else []


def _place(parts: tuple[str, ...], bases: Sequence[Path]) -> tuple[Path, int] | None:
    """From which folder, and without how many of its first parts, a listed path is a file.

    Lists often keep the folders of the machine that they were made on.
    """
    for drop in range(len(parts)):
        for base in bases:
            if base.joinpath(*parts[drop:]).is_file():
                return base, drop
    return None
