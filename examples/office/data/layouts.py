"""How a benchmark lies on disk: where its domains are, as folders or as lists of images."""

import codecs
import os
import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from office.console import UserError, same, told_apart, visible
from office.data import folders
from office.data.benchmarks import DATASETS, Benchmark
from office.data.folders import Contents, Skipped, subfolders

Numbered = dict[int, list[Path]]  # images by the number of their category
# For each domain 0 with as many categories as published, 1 with fewer (part of the benchmark), 2
# with more (another one); the difference in images; and the list or folder.
Fits = dict[str, tuple[int, int, Path]]


class Side(NamedTuple):
    """A domain on disk: its images by category, in order, and the skipped files beside them."""

    path: Path
    images: dict[str, list[Path]]
    skipped: list[Skipped]


def available(dataset: str, root: Path | None) -> set[str]:
    """Return the abbreviations of a benchmark's domains that are under ``root``."""
    return {domain for fits in _places(dataset, root).values() for domain in fits}


def read(dataset: str, root: Path | None, domains: Sequence[str]) -> list[Side]:
    """Read a benchmark's source and target, both from lists or both from folders.

    They are read from the place whose counts are nearest to the published ones. It is a folder that
    has both, where lists win; if there is none, they may be in two folders.

    Args:
        dataset: A key of :data:`DATASETS`.
        root: The benchmark's folder, or one with several benchmarks.
        domains: Abbreviations of source and target.

    Raises:
        UserError: If a domain is not found or empty, or a list is wrong.
    """
    benchmark, places = DATASETS[dataset], _places(dataset, root)
    names = {domain: benchmark.domains[domain].name for domain in domains}
    having = {place: fits for place, fits in places.items() if fits.keys() >= names.keys()}
    if not root or not having:
        known = available(dataset, root)
        missing = [name for domain, name in names.items() if domain not in known]
        raise UserError(_not_found(dataset, root, missing or [*names.values()]))
    together = [place for place in having if place[0]] or [*having]
    fitting = [(base, lists) for base, lists in together if lists or (base, True) not in together]
    base, listed = min(fitting, key=lambda place: (*_misfit(having[place]), not place[1]))
    paths = [having[base, listed][domain][-1] for domain in domains]
    if listed:
        return _read_lists(paths, root, [*names.values()])
    return [read_folder(*pair) for pair in zip(paths, names.values(), strict=True)]


def read_folder(folder: Path, domain: str) -> Side:
    """Read a domain from ``<category>/`` or ``images/<category>/``.

    Two folders whose names differ only in Unicode normalisation are one category.

    Raises:
        UserError: If there is no category, or a category has no images.
    """
    inner = _inner(folder)
    top = folders.look(inner or folder)
    skipped = _outside_categories(top)
    if inner:
        beside = folders.look(folder)
        skipped += _outside_categories(beside)
        for other in beside.folders:
            if other != inner:
                skipped += folders.skip_all(other, f"in a folder beside {inner.name}")
    if not top.folders:
        has = "images outside category folders" if top.images else "no category folders"
        raise UserError(f"domain {visible(domain)} is empty: {visible(folder)} has {has}")
    images: dict[str, list[Path]] = {}
    for category in top.folders:
        name = same(category.name)
        contents = folders.look(category)
        rest = [item._replace(category=name) for item in contents.skipped]
        for deeper in contents.folders:
            rest += folders.skip_all(deeper, "in a folder inside a category's", name)
        if not contents.images:
            only = f", only {folders.reasons(rest)}" if rest else ""
            raise UserError(
                f"category {visible(name)} of domain {visible(domain)} has no images{only}: "
                f"{visible(category)}"
            )
        images.setdefault(name, []).extend(contents.images)
        skipped += rest
    return Side(folder, dict(sorted(images.items())), skipped)


def read_list(path: Path, root: Path) -> tuple[Numbered, list[Skipped]]:
    """Return paths by category number from lines "path label", and skipped files beside them.

    UTF-8, UTF-16 and Windows-1252, a byte order mark, backslashes, a drive letter, quotes and a
    different case are understood. An image listed twice is read once. Images are searched from
    ``root``, from the list's folder and from the folder above that.

    Raises:
        UserError: If a line is malformed, names a missing image or gives an image a different
            label than before, or if the list is empty.
    """
    seen: dict[Path, tuple[int, int]] = {}
    repeated = 0
    search = _Search((root, path.parent, path.parent.parent))
    for i, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{visible(path)}, line {i}"
        columns = re.fullmatch(r"\s*(.*\S)\s+([0-9]{1,9})\s*", line)
        if not columns:
            expected = "expected 'path label', the label counted from 0"
            raise UserError(f"{where}: {expected}, got {line!a}")
        spellings = [Path(spelling).parts for spelling in _spellings(columns[1])]
        image, number = search.find(spellings), int(columns[2])
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
        warnings.warn(f"{visible(path)}: {repeated:,} {times} an earlier one", stacklevel=2)
    numbered: Numbered = {}
    for image, (_, number) in seen.items():
        numbered.setdefault(number, []).append(image)
    return numbered, [*_unlisted({*seen}, path, root)]


def _places(dataset: str, root: Path | None) -> dict[tuple[Path | None, bool], Fits]:
    """Return what fits each domain best, in the root or up to two levels below.

    A key is a folder, or ``None`` for all of them, and whether its lists or its folders are meant.
    """
    benchmark = DATASETS[dataset]
    places: dict[tuple[Path | None, bool], Fits] = defaultdict(dict)
    for folder in _bases(benchmark, root) if root else ():
        for domain, part in benchmark.domains.items():
            for path in _candidates(folder, part.folders):
                k, images = _size(path)
                kind = 2 if k > benchmark.categories else int(k < benchmark.categories)
                fit = kind, abs(images - part.images), path
                for base in (folder, None):
                    fits = places[base, path.is_file()]
                    fits[domain] = min(fits.get(domain, fit), fit, key=itemgetter(0, 1))
    return places


def _misfit(fits: Fits) -> tuple[int, int, int]:
    """Return what is lowest for the best-fitting counts of most domains."""
    kinds, differences, _ = zip(*fits.values(), strict=True)
    return max(kinds), -len(kinds), sum(differences)


def _bases(benchmark: Benchmark, root: Path) -> list[Path]:
    """Return the root and two levels of readable folders, without the domains themselves.

    A root may contain several benchmarks, and archives often unpack into an extra folder.
    """
    domains = {name for part in benchmark.domains.values() for name in part.folders}
    bases = level = [root] if root.is_dir() else []
    for _ in range(2):
        inner = [folder for base in level for folder in subfolders(base)]
        inner = [folder for folder in inner if _key(folder.name) not in domains]
        level = [folder for folder in inner if os.access(folder, os.R_OK | os.X_OK)]
        bases = bases + level
    return bases


def _candidates(base: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield lists ``NAME.txt`` and ``NAMEList.txt``, also in folders of lists, then folders."""
    inner = subfolders(base)
    stems = [f"{name}{end}" for name in names for end in ("", "list")]
    holders = [path for path in inner if _key(path.name) in ("list", "lists", "imagelist")]
    for path in (path for holder in (*holders, base) for path in sorted(holder.glob("[!.]*.*"))):
        if path.suffix.lower() == ".txt" and _key(path.stem) in stems and path.is_file():
            yield path
    yield from (path for path in inner if _key(path.name) in names)


def _key(name: str) -> str:
    """Normalise a name: "Real World", "RealWorld" and "Real_World" are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _size(path: Path) -> tuple[int, int]:
    """Return a quick estimate of the categories and images in a list or a domain's folder."""
    if path.is_file():
        rows = [line.split() for line in _lines(path) if line.strip()]
        return len({row[-1] for row in rows}), len(rows)
    categories = subfolders(_inner(path) or path)
    return len(categories), sum(len(os.listdir(category)) for category in categories)


def _inner(folder: Path) -> Path | None:
    """Return the folder ``images`` that contains a domain's categories in some archives."""
    inner = (p for p in subfolders(folder) if p.name.lower() == "images" and subfolders(p))
    return next(inner, None)


def _outside_categories(contents: Contents) -> list[Skipped]:
    """Return what a folder of categories contains besides these."""
    images = [Skipped(image, "an image outside category folders") for image in contents.images]
    return images + contents.skipped


def _not_found(dataset: str, root: Path | None, missing: list[str]) -> str:
    """Say which domains were not found, what is there instead, and what was expected."""
    benchmark, name, shown = DATASETS[dataset], missing[0].replace(" ", "_"), "--root"
    instead = "--root is not given"
    if root:
        shown = visible(root)
        instead = folders.no_folder(root)
        if root.is_dir():
            packed = [path.name for path in root.iterdir() if folders.is_archive(path)]
            names = [visible(path.name) for path in subfolders(root)]
            some = ", ".join(names[:8] + ["..."] * (len(names) > 8))
            instead = f"{shown} contains {some or 'no folders'}"
            if packed:
                instead += f", and {visible(packed[0])}, {folders.ARCHIVE}"
    return "\n".join(
        (
            f"{dataset}: {' and '.join(missing)} not found: {instead}.",
            f"Each domain must be one of these in {shown} or up to two levels below:",
            f"  {name}/images/<category>/*.jpg     as in the original archive of Office-31",
            f"  {name}/<category>/*.jpg            one folder per category",
            f"  image_list/{name}.txt, list/{name}List.txt     lines of 'path label'",
            f"The domains are {', '.join(part.name for part in benchmark.domains.values())}, with "
            f"{benchmark.categories} categories.",
            f"Published by {benchmark.reference}",
            "Download links: https://github.com/jindongwang/transferlearning/tree/master/data",
            "To try the method in a minute without any data: python examples/train_digits.py",
        )
    )


def _read_lists(paths: Sequence[Path], root: Path, domains: Sequence[str]) -> list[Side]:
    """Read source and target from lists; their categories are matched by number."""
    lists = [read_list(path, root) for path in paths]
    names = _names_of_numbers([numbered for numbered, _ in lists], domains)
    return [
        Side(path, {names[number]: numbered[number] for number in sorted(numbered)}, skipped)
        for path, (numbered, skipped) in zip(paths, lists, strict=True)
    ]


def _names_of_numbers(lists: Sequence[Numbered], domains: Sequence[str]) -> dict[int, str]:
    """Return names for numbered categories: their images' folder if it is unique, else the number.

    Raises:
        UserError: If the same folder has a different number in each list.
    """
    named = []
    for numbered in lists:
        pairs = {(n, same(path.parent.name)) for n, paths in numbered.items() for path in paths}
        names = dict(pairs)
        if not len(pairs) == len(names) == len({*names.values()}):
            return {number: str(number) for each in lists for number in each}
        named.append(names)
    source, target = named
    numbers = {name: number for number, name in target.items()}
    for name, number in sorted((name, number) for number, name in source.items()):
        if numbers.get(name, number) != number:
            raise UserError(
                f"category {told_apart(name)} has the number {number} in {domains[0]} and "
                f"{numbers[name]} in {domains[1]}: the two lists number the categories differently"
            )
    for number in sorted(source.keys() & target.keys()):
        one, other = told_apart(source[number]), told_apart(target[number])
        if one != other:
            warnings.warn(
                f"category {number} is {one} in {domains[0]} and {other} in {domains[1]}; "
                "matched by number",
                stacklevel=2,
            )
    return target | source


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


def _spellings(listed: str) -> Iterator[str]:
    """Yield the names a listed path may have on this system, most likely first."""
    for text in dict.fromkeys((listed, listed.strip("\"'"))):
        # A byte that is not UTF-8 may be part of the file's name, or the list is Windows-1252.
        windows = text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
        for name in (text, windows) if any("\udc80" <= c <= "\udcff" for c in text) else (text,):
            forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
            for form in dict.fromkeys(forms):
                yield from dict.fromkeys((form.replace("\\", "/"), form))


class _Search:
    """Finds the files of listed paths, all from the place where the first was found.

    Lists often keep the folders of the machine they were made on, so a place is a base and the
    number of leading path parts to drop.
    """

    def __init__(self, bases: Sequence[Path]) -> None:
        self.bases = bases
        self.place: tuple[Path, int] | None = None
        self.names: dict[Path, list[str]] = {}

    def find(self, spellings: Sequence[tuple[str, ...]]) -> Path | None:
        """Return the file of a path with several possible spellings."""
        for parts in spellings:
            places = [(base, drop) for drop in range(len(parts)) for base in self.bases]
            for base, drop in [self.place] if self.place else places:
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
            names = [part] if os.path.exists(path / part) else self._alike(path, part)
            if len(names) != 1:
                return None
            path /= names[0]
        return path if os.path.isfile(path) else None

    def _alike(self, folder: Path, name: str) -> list[str]:
        """Return the names in a folder that differ from a name in case alone."""
        if folder not in self.names:
            self.names[folder] = os.listdir(folder) if os.path.isdir(folder) else []
        return [other for other in self.names[folder] if other.casefold() == name.casefold()]


def _unlisted(listed: set[Path], path: Path, root: Path) -> Iterator[Skipped]:
    """Yield files beside the listed images that are not listed."""
    why = f"not in {visible(path.name)}"
    parents = {image.parent for image in listed}
    for parent in sorted(parents):
        contents = folders.look(parent)
        yield from (Skipped(image, why) for image in contents.images if image not in listed)
        yield from contents.skipped
    above = Path(os.path.commonpath(parents))
    if len(parents) > 1 and root in above.parents:
        for folder in subfolders(above):
            if not any(folder == parent or folder in parent.parents for parent in parents):
                yield from folders.skip_all(folder, why)
