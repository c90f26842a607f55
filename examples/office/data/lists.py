"""Lists of images, with lines "path label", as any system may have written them."""

import codecs
import itertools
import os
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from office.console import UserError, visible
from office.data import listing
from office.data.listing import LeftOut


def read_list(path: Path, root: Path) -> tuple[dict[int, list[Path]], list[LeftOut]]:
    """Return paths by category number from lines "path label", and skipped files beside them.

    UTF-8, UTF-16 and Windows-1252, a byte order mark, backslashes, a drive letter, quotes and a
    different case are understood. An image listed twice is read once.

    Args:
        path: The list.
        root: The benchmark's folder. Images are searched from there, from the list's folder and
            from the folder above that.

    Raises:
        UserError: If a line is malformed, names a missing image or gives an image a different
            label than before, or if the list is empty.
    """
    seen: dict[Path, tuple[int, int]] = {}
    repeated = 0
    files = _Files((root, path.parent, path.parent.parent))
    for i, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{visible(path)}, line {i}"
        listed, number = _split(line, where)
        spellings = [Path(spelling).parts for spelling in _spellings(listed)]
        image = files.find(spellings)
        if not image:
            raise UserError(f"{where}: no such image {visible(root.joinpath(*spellings[0]))}")
        before, label = seen.setdefault(image, (i, number))
        if label != number:
            raise UserError(f"{where}: {visible(image)} has label {label} above, in line {before}")
        repeated += before != i
    if not seen:
        raise UserError(f"the list is empty: {visible(path)}")
    if repeated:
        times = "line repeats" if repeated == 1 else "lines repeat"
        warnings.warn(f"{visible(path)}: {repeated:,} {times} an earlier one", stacklevel=4)
    numbered: dict[int, list[Path]] = {}
    for image, (_, number) in seen.items():
        numbered.setdefault(number, []).append(image)
    return numbered, list(_unlisted(seen, path, root))


def size(path: Path) -> tuple[int, int]:
    """Return the numbers of categories and images, from the lines alone."""
    words = [line.split() for line in _lines(path)]
    return len({line[-1] for line in words if line}), sum(map(bool, words))


def _lines(path: Path) -> list[str]:
    """Decode a list by its byte order mark or its look; undecodable bytes are kept."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", "replace")
    elif b"\0" in content[:4]:
        text = content.decode("utf-16-le" if content[0] else "utf-16-be", "replace")
    else:
        text = content.decode("utf-8-sig", "surrogateescape")
    return re.split("\r\n|\n|\r", text)


def _split(line: str, where: str) -> tuple[str, int]:
    found = re.fullmatch(r"\s*(.*\S)\s+([0-9]{1,9})\s*", line)
    if not found:
        raise UserError(f"{where}: expected 'path label', the label counted from 0, got {line!a}")
    return found[1], int(found[2])


def _spellings(listed: str) -> Iterator[str]:
    """Yield the names a listed path may have on this system, most likely first."""
    bare = listed.strip("\"'")
    for text in dict.fromkeys((listed, bare)):
        # A byte that is not UTF-8 may be part of the file's name, or the list is Windows-1252.
        windows = text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
        for name in (text, windows) if any("\udc80" <= c <= "\udcff" for c in text) else (text,):
            forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
            for form in dict.fromkeys(forms):
                yield from dict.fromkeys((form.replace("\\", "/"), form))


class _Files:
    """Finds the files of listed paths, all from the place where the first was found.

    Lists often keep the folders of the machine they were made on, so a place is a base and the
    number of leading path parts to drop.
    """

    def __init__(self, bases: Sequence[Path]) -> None:
        self.bases = bases
        self.place: tuple[Path, int] | None = None
        self.folders: dict[Path, dict[str, list[str]]] = {}

    def find(self, spellings: Sequence[tuple[str, ...]]) -> Path | None:
        """Return the file of a path with several possible spellings."""
        for parts in spellings:
            places = itertools.product(range(len(parts)), self.bases)
            for base, drop in [self.place] if self.place else [(b, d) for d, b in places]:
                if path := self._file(base, parts[drop:]):
                    self.place = base, drop
                    return path
        return None

    def _file(self, base: Path, parts: tuple[str, ...]) -> Path | None:
        """Return a file, ignoring case if necessary, as Windows and macOS do."""
        path = base.joinpath(*parts)
        if os.path.isfile(path):
            return path
        path = base
        for part in parts:
            alike = (
                [part]
                if os.path.exists(path / part)
                else self._names(path).get(part.casefold(), [])
            )
            if len(alike) != 1:
                return None
            path /= alike[0]
        return path if os.path.isfile(path) else None

    def _names(self, folder: Path) -> dict[str, list[str]]:
        """Return the names in a folder by their case-folded form."""
        if folder not in self.folders:
            found = self.folders[folder] = {}
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                found.setdefault(name.casefold(), []).append(name)
        return self.folders[folder]


def _unlisted(listed: dict[Path, tuple[int, int]], path: Path, root: Path) -> Iterator[LeftOut]:
    """Yield files beside the listed images that are not listed."""
    why = f"not in {visible(path.name)}"
    parents = {image.parent for image in listed}
    for parent in sorted(parents):
        found = listing.look(parent)
        yield from (LeftOut(image, why) for image in found.images if image not in listed)
        yield from found.left_out
    above = Path(os.path.commonpath(parents))
    if len(parents) > 1 and root in above.parents:
        for folder in listing.subfolders(above):
            if not any(folder == parent or folder in parent.parents for parent in parents):
                yield from listing.whole_folder(folder, why)
