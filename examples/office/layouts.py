"""What a benchmark's tree may look like on disk: from a folder or a list to paths by category."""

import codecs
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from office.errors import UserError
from office.folders import image_files, images_below, is_image, left_out, opens, subfolders


@dataclass(frozen=True)
class Found:
    """A domain on disk.

    Attributes:
        categories: Paths by a category's name, or by its number in a list.
        left_out: Files beside them that nobody will look at, by category, or by "" above them.
    """

    categories: dict
    left_out: dict[str, list[Path]] = field(default_factory=dict)


def find(root: Path, wanted: Sequence[Sequence[str]]) -> Iterator[list[Path]]:
    """Yield where domains may be, all in one place: lists before folders, ``root`` before others.

    Args:
        root: The benchmark's folder; a place is it or a folder of it.
        wanted: Of each domain its folder names in use, in lower case and without other characters.
    """
    for base in _bases(root):
        for one in (_list_in, _folder_in):
            places = [one(base, names) for names in wanted]
            if all(places):
                yield places
                break
    # Each domain may be in an archive of its own.
    places = [find_domain(root, names) for names in wanted]
    if all(places):
        yield places


def find_domain(root: Path, names: Sequence[str]) -> Path | None:
    """Return the first list or folder of a domain, or ``None``."""
    places = itertools.product((_list_in, _folder_in), _bases(root))
    return next(filter(None, (one(base, names) for one, base in places)), None)


def _folder_in(base: Path, names: Sequence[str]) -> Path | None:
    return next((folder for folder in subfolders(base) if _key(folder.name) in names), None)


def _list_in(base: Path, names: Sequence[str]) -> Path | None:
    """``NAME.txt`` or ``NAMEList.txt``, also in a folder ``list``, ``lists`` or ``image_list``."""
    wanted = {*names, *(f"{name}list" for name in names)}
    holders = [p for p in subfolders(base) if _key(p.name) in ("list", "lists", "imagelist")]
    lists = (path for holder in [*holders, base] for path in sorted(holder.glob("*.txt")))
    return next((path for path in lists if _key(path.stem) in wanted), None)


def read(place: Path, root: Path, domain: str) -> Found:
    """Return the categories of a list or a folder."""
    return read_list(place, root) if place.is_file() else read_folder(place, domain)


def read_folder(folder: Path, domain: str) -> Found:
    """Return paths by category name from ``<category>/`` or ``images/<category>/``.

    Names are those of Unicode's composed form, so that both spellings of "é" are one.

    Raises:
        UserError: If there is no category, or one without images.
    """
    inner = [p for p in subfolders(folder) if p.name.lower() == "images" and subfolders(p)]
    holder = inner[0] if inner else folder
    categories = subfolders(holder)
    if not categories:
        has = "images outside category folders" if image_files(folder) else "no category folders"
        raise UserError(f"domain {domain} is empty: {folder} has {has}")
    found = Found({}, {"": [path for path in holder.iterdir() if path not in categories]})
    if inner:
        found.left_out[""] += [path for path in folder.iterdir() if path != holder]
    found.left_out[""] = _worth_telling(found.left_out[""])
    for category in categories:
        name = unicodedata.normalize("NFC", category.name)
        found.categories.setdefault(name, []).extend(image_files(category))
        found.left_out.setdefault(name, []).extend(left_out(category))
        if not found.categories[name]:
            others = found.left_out[name]
            has = f"has no images, only {others[0].name}" if others else "has no images"
            raise UserError(f"category {category.name} of domain {domain} {has}: {category}")
    return found


def _worth_telling(paths: list[Path]) -> list[Path]:
    """Of what lies beside the categories, the images, also those in folders."""
    found = (
        images_below(path) if path.is_dir() else [path] * (is_image(path) or opens(path))
        for path in sorted(paths)
    )
    return [*itertools.chain(*found)]


def read_list(path: Path, root: Path) -> Found:
    """Return paths by category number from lines "path label", as any system writes them.

    Args:
        path: The list.
        root: The benchmark's folder. Images are looked for from there, from the list's folder and
            from the folder above that.

    Raises:
        UserError: If a line is not one, names no image that is there or one with two labels, or
            the list is empty.
    """
    numbers: dict[Path, int] = {}
    place: tuple[Path, int] | None = None
    for i, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            listed, label = line.rsplit(maxsplit=1)
            number = int(label)
        except ValueError:
            raise UserError(f"{path}, line {i}: expected 'path label', got {line!a}") from None
        parts = _parts(listed.strip().strip("\"'"))
        place = place or _place(parts, (root, path.parent, path.parent.parent))
        image = place[0].joinpath(*parts[place[1] :]) if place else root.joinpath(*parts)
        if not image.is_file():
            image = _other_spelling(image)
        if not image.is_file():
            raise UserError(f"{path}, line {i}: no such image {image} (from {listed!a})")
        if numbers.setdefault(image, number) != number:
            raise UserError(f"{path}, line {i}: {image} has label {numbers[image]} above")
    if not numbers:
        raise UserError(f"the list is empty: {path}")
    found = Found({})
    for image, number in numbers.items():
        found.categories.setdefault(number, []).append(image)
    return found


def _text(path: Path) -> str:
    """Read a list: UTF-8, or UTF-16 with its mark; other bytes stay those of a file name."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _parts(listed: str) -> tuple[str, ...]:
    """Split a path at slashes, and at backslashes, which Windows writes, without its drive."""
    if "\\" in listed:
        windows = PureWindowsPath(listed)
        return windows.parts[1:] if windows.anchor else windows.parts
    return Path(listed).parts


def _other_spelling(path: Path) -> Path:
    """Return the file whose name is this one in another Unicode form, if there is one."""
    forms = {form: unicodedata.normalize(form, path.name) for form in ("NFC", "NFD")}
    found = (path.with_name(name) for name in forms.values())
    return next((other for other in found if other.is_file()), path)


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
