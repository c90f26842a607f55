"""Images on disk: in folders, in lists, and as the domains of the published benchmarks."""

import itertools
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from office.console import UserError, same, told_apart, visible
from office.data.images import SUFFIXES

NEEDED = {".avif": "Pillow 11.3 or newer"}
NEEDED |= dict.fromkeys((".heic", ".heif", ".hif"), "pillow-heif: pip install pillow-heif")
ARCHIVES = {".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"}
ARCHIVE, OUTSIDE = "an archive: unpack it first", "outside category folders"
CLOSED = "a folder that cannot be opened"


class Skipped(NamedTuple):
    """A skipped file, the reason, and the category whose folder it is in."""

    path: Path
    why: str
    category: str | None = None


class Contents(NamedTuple):
    """A folder's own content; ``folders`` are those that may be categories or domains."""

    images: list[Path]
    folders: list[Path]
    skipped: list[Skipped]


class Side(NamedTuple):
    """A domain on disk: its images by category, in order, and the skipped files beside them."""

    path: Path
    images: dict[str, list[Path]]
    skipped: list[Skipped]


def look(folder: Path) -> Contents:
    """Sort the content of a folder; an image is told by its suffix, and fails when it is read."""
    contents = Contents([], subfolders(folder), [])
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path not in contents.folders:
                why = f"in a folder whose name begins with {path.name[0]}"
                contents.skipped.extend(s for s in skip_all(path, why) if _is_image(s.path))
        elif not _is_left_behind(path):
            reason = why_not(path)
            if reason:
                contents.skipped.append(Skipped(path, reason))
            else:
                contents.images.append(path)
    return contents


def look_below(folder: Path) -> Contents:
    """Sort the content of a folder at any depth; one that cannot be opened is skipped."""
    below, left, seen = Contents([], [], []), [folder], set[Path]()
    while left:
        current = left.pop(0)
        if current.resolve() not in seen:  # as a link to one of its parents would be
            seen.add(current.resolve())
            try:
                contents = look(current)
            except OSError as error:
                why = f"{CLOSED}: {error.strerror or error}"
                contents = Contents([], [], [Skipped(current, why)])
            below.images.extend(contents.images)
            below.skipped.extend(contents.skipped)
            left += contents.folders
    return below


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, without hidden ones and those of systems and drives."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._@#$")


def skip_all(folder: Path, why: str, category: str | None = None) -> list[Skipped]:
    """Return all files in a folder, at any depth, as skipped."""
    paths = sorted(Path(base, name) for base, _, names in os.walk(folder) for name in names)
    return [Skipped(path, why, category) for path in paths if not _is_left_behind(path)]


def why_not(path: Path) -> str | None:
    """Return why a file does not count as an image, or ``None`` if it does."""
    suffix = path.suffix.lower()
    if path.name[0] == ".":
        return "a hidden file"
    if _is_image(path) and (path.is_file() or not path.exists()):  # not a pipe
        return None
    if suffix in ARCHIVES:
        return ARCHIVE
    return f"it needs {NEEDED[suffix]}" if suffix in NEEDED else "not an image file"


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _is_left_behind(path: Path) -> bool:
    """Whether an operating system has left a file, which is then skipped in silence."""
    name = path.name.lower()
    hidden = name.startswith((".", "~$")) and (name.startswith("._") or not _is_image(path))
    return hidden or name in ("thumbs.db", "desktop.ini")


def no_folder(path: Path) -> str:
    """Say why a path is not a folder."""
    if not path.exists():
        return f"no such folder: {visible(path)}"
    archive = path.suffix.lower() in ARCHIVES
    return f"{visible(path)} is {ARCHIVE if archive else 'a file, not a folder'}"


def summary(domain: str, skipped: Sequence[Skipped]) -> str:
    """Say in one line how many files of a domain are skipped, the first ones, and why."""
    return f"{visible(domain)}: {len(skipped):,} skipped: {_reasons(skipped)}"


def _reasons(skipped: Sequence[Skipped]) -> str:
    by_reason: dict[str, list[str]] = {}
    for item in skipped:
        by_reason.setdefault(item.why, []).append(visible(item.path.name))
    return "; ".join(
        f"{', '.join(names[:3])}{f', {len(names) - 3:,} more' * (len(names) > 3)} ({why})"
        for why, names in by_reason.items()
    )


class Part(NamedTuple):
    """One domain of a benchmark: its name, published number of images, and folder names in use."""

    name: str
    images: int
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """Published facts of a benchmark; ``domains`` and ``tasks`` use the field's abbreviations."""

    domains: dict[str, Part]
    tasks: list[str]
    categories: int
    reference: str
    kept: tuple[str, ...] = ()  # categories that a target keeps in partial adaptation; all if empty
    kept_images: dict[str, int] = field(default_factory=dict)  # of these, in each domain


DATASETS = {
    "office31": Benchmark(
        domains={
            "A": Part("amazon", 2817, ("amazon",)),
            "W": Part("webcam", 795, ("webcam",)),
            "D": Part("dslr", 498, ("dslr",)),
        },
        tasks=["A2W", "D2W", "W2D", "A2D", "D2A", "W2A"],
        categories=31,
        reference="Saenko et al., ECCV 2010, https://faculty.cc.gatech.edu/~judy/domainadapt/",
    ),
    "imageclef-da": Benchmark(
        domains={
            "I": Part("i", 600, ("i", "imagenet", "ilsvrc2012")),
            "P": Part("p", 600, ("p", "pascal", "voc2012", "pascalvoc2012")),
            "C": Part("c", 600, ("c", "caltech", "caltech256")),
        },
        tasks=["I2P", "P2I", "I2C", "C2I", "C2P", "P2C"],
        categories=12,
        reference="ImageCLEF 2014, https://www.imageclef.org/2014/adaptation",
    ),
    "office-home": Benchmark(
        domains={
            "Ar": Part("Art", 2427, ("art",)),
            "Cl": Part("Clipart", 4365, ("clipart",)),
            "Pr": Part("Product", 4439, ("product",)),
            "Rw": Part("Real World", 4357, ("realworld",)),
        },
        tasks=[f"{s}2{t}" for s, t in itertools.permutations(("Ar", "Cl", "Pr", "Rw"), 2)],
        categories=65,
        reference="Venkateswara et al., CVPR 2017, https://www.hemanthdv.org/officeHomeDataset.html",
    ),
    "office-caltech10": Benchmark(
        domains={
            "A": Part("amazon", 958, ("amazon",)),
            "C": Part("caltech10", 1123, ("caltech10", "caltech", "caltech256")),
            "D": Part("dslr", 157, ("dslr",)),
            "W": Part("webcam", 295, ("webcam",)),
        },
        tasks=[f"{s}2{t}" for s, t in itertools.permutations("ACDW", 2)],
        categories=10,
        reference="Gong et al., CVPR 2012",
    ),
}

# Its targets keep the ten categories that are also in Caltech-256.
DATASETS["office31-partial"] = replace(
    DATASETS["office31"],
    kept=(
        *("back_pack", "bike", "calculator", "headphones", "keyboard", "laptop_computer"),
        *("monitor", "mouse", "mug", "projector"),
    ),
    kept_images={"A": 958, "W": 295, "D": 157},
)


def available(dataset: str, root: Path | None) -> set[str]:
    """Return the abbreviations of a benchmark's domains that are under ``root``."""
    return {domain for pair in _places(dataset, root) for place in pair for domain in place}


def read(dataset: str, root: Path | None, domains: Sequence[str]) -> list[Side]:
    """Read a benchmark's source and target, both from lists or both from folders.

    They are read from the folder that has both and whose counts are nearest to the published ones;
    in it, lists win.
    """
    benchmark = DATASETS[dataset]
    names = [benchmark.domains[domain].name for domain in domains]
    both = [
        next((place for place in pair if place.keys() >= {*domains}), None)
        for pair in _places(dataset, root)
    ]
    places = [place for place in both if place]
    if not root or not places:
        raise UserError(_not_found(dataset, root, domains))
    place = min(places, key=lambda place: _misfit(benchmark, place))
    paths = [place[domain] for domain in domains]
    if paths[0].is_file():
        return _read_lists(paths, root, names)
    return [read_folder(path, name) for path, name in zip(paths, names, strict=True)]


def read_folder(folder: Path, domain: str) -> Side:
    """Read a domain from ``<category>/`` or ``images/<category>/``.

    Two folders whose names differ only in Unicode normalisation are one category.
    """
    inner = _inner(folder)
    top = look(inner)
    skipped = [Skipped(image, OUTSIDE) for image in top.images] + top.skipped
    if inner != folder:
        beside = skip_all(folder, f"in a folder beside {inner.name}")
        skipped += [item for item in beside if inner not in item.path.parents]
    if not top.folders:
        has = f"images {OUTSIDE}" if top.images else "no category folders"
        raise UserError(f"domain {visible(domain)} is empty: {visible(folder)} has {has}")
    images: dict[str, list[Path]] = {}
    for category in top.folders:
        name, contents = same(category.name), look(category)
        rest = [item._replace(category=name) for item in contents.skipped]
        for deeper in contents.folders:
            rest += skip_all(deeper, "in a folder inside a category's", name)
        if not contents.images:
            only = f", only {_reasons(rest)}" if rest else ""
            raise UserError(
                f"category {visible(name)} of domain {visible(domain)} has no images{only}: "
                f"{visible(category)}"
            )
        images.setdefault(name, []).extend(contents.images)
        skipped += rest
    return Side(folder, dict(sorted(images.items())), skipped)


def read_list(path: Path, root: Path) -> dict[int, list[Path]]:
    """Return the images of each category's number from lines "path label" in UTF-8.

    Lists often keep the folders of the machine that they were made on: images are searched from
    ``root``, from the list's folder and from the folder above that, with fewer and fewer of the
    first path's leading folders; the others are read from where the first is found.
    """
    place: tuple[Path, int] | None = None
    labels: dict[Path, int] = {}
    for i, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{visible(path)}, line {i}"
        columns = re.fullmatch(r"\s*(.*\S)\s+([0-9]{1,9})\s*", line)
        if not columns:
            expected = "expected 'path label', the label counted from 0"
            raise UserError(f"{where}: {expected}, got {line!a}")
        parts, label = Path(columns[1].replace("\\", "/")).parts, int(columns[2])
        bases = (root, path.parent, path.parent.parent)
        places = [place] if place else [(b, n) for n in range(len(parts)) for b in bases]
        files = (p for p in places if os.path.isfile(p[0].joinpath(*parts[p[1] :])))
        place = next(files, None)
        if not place:
            raise UserError(f"{where}: no such image {visible(root.joinpath(*parts))}")
        image = place[0].joinpath(*parts[place[1] :])
        if labels.setdefault(image, label) != label:
            raise UserError(f"{where}: {visible(image)} has label {labels[image]} above")
    if not labels:
        raise UserError(f"the list is empty: {visible(path)}")
    numbered: dict[int, list[Path]] = {}
    for image, label in labels.items():
        numbered.setdefault(label, []).append(image)
    return numbered


def _places(dataset: str, root: Path | None) -> list[tuple[dict[str, Path], dict[str, Path]]]:
    """Return the lists, and the folders, of domains in the root and two levels of folders below.

    A root may contain several benchmarks, and archives often unpack into an extra folder.
    """
    parts = DATASETS[dataset].domains
    names = {name for part in parts.values() for name in part.folders}
    bases = level = [root] if root and root.is_dir() else []
    for _ in range(2):
        inner = [path for base in level for path in subfolders(base)]
        level = [p for p in inner if _key(p) not in names and os.access(p, os.R_OK | os.X_OK)]
        bases = bases + level
    places = []
    for base in bases:
        inner = subfolders(base)
        holders = [base, *(path for path in inner if _key(path) in ("list", "lists", "imagelist"))]
        texts = [path for folder in holders for path in sorted(folder.glob("[!.]*.txt"))]
        lists = {_key(path.with_suffix("")).removesuffix("list"): path for path in texts}
        folders = {_key(path): path for path in inner}
        lists, folders = (
            {
                domain: paths[name]
                for domain, part in parts.items()
                for name in reversed(part.folders)  # the first wins
                if name in paths
            }
            for paths in (lists, folders)
        )
        places.append((lists, folders))
    return places


def _misfit(benchmark: Benchmark, place: dict[str, Path]) -> tuple[int, int, int]:
    """Return what is lowest for the counts of categories and images nearest to the published."""
    sizes = {domain: _size(path) for domain, path in place.items()}
    images = (abs(count - benchmark.domains[domain].images) for domain, (_, count) in sizes.items())
    return max(abs(k - benchmark.categories) for k, _ in sizes.values()), -len(place), sum(images)


def _size(path: Path) -> tuple[int, int]:
    """Return a quick estimate of the categories and images in a list or a domain's folder."""
    if path.is_file():
        rows = [line.split() for line in _lines(path) if line.strip()]
        return len({row[-1] for row in rows}), len(rows)
    categories = subfolders(_inner(path))
    return len(categories), sum(len(os.listdir(category)) for category in categories)


def _key(path: Path) -> str:
    """Normalise a name: "Real World", "RealWorld" and "Real_World" are the same."""
    return re.sub(r"[^a-z0-9]", "", path.name.lower())


def _inner(folder: Path) -> Path:
    """Return the folder ``images`` that contains a domain's categories in some archives."""
    inner = (p for p in subfolders(folder) if p.name.lower() == "images" and subfolders(p))
    return next(inner, folder)


def _lines(path: Path) -> list[str]:
    """Read a list; bytes that are not UTF-8 are kept, as in names of files."""
    return path.read_text("utf-8-sig", "surrogateescape").split("\n")


def _not_found(dataset: str, root: Path | None, domains: Sequence[str]) -> str:
    """Say which domains were not found, what is there instead, and what was expected."""
    benchmark, known = DATASETS[dataset], available(dataset, root)
    missing = [domain for domain in domains if domain not in known] or domains
    names = [benchmark.domains[domain].name for domain in missing]
    name, instead = names[0].replace(" ", "_"), "--root is not given"
    if root:
        instead = no_folder(root)
        if root.is_dir():
            packed = [p for p in root.iterdir() if p.suffix.lower() in ARCHIVES]
            content = [visible(p.name) for p in subfolders(root)][:8]
            content += [f"{visible(p.name)}, {ARCHIVE}" for p in packed[:1]]
            instead = f"{visible(root)} contains {', '.join(content) or 'no folders'}"
    return "\n".join(
        (
            f"{dataset}: {' and '.join(names)} not found in one folder: {instead}.",
            "Expected, in --root or up to two levels below:",
            f"  {name}/images/<category>/*.jpg     as in the original archive of Office-31",
            f"  {name}/<category>/*.jpg            one folder per category",
            f"  image_list/{name}.txt, list/{name}List.txt     lines of 'path label'",
            f"Published by {benchmark.reference}",
            "Download links: https://github.com/jindongwang/transferlearning/tree/master/data",
            "To try the method in a minute without any data: python examples/train_digits.py",
        )
    )


def _read_lists(paths: Sequence[Path], root: Path, domains: Sequence[str]) -> list[Side]:
    """Read source and target from lists, whose categories are matched by number.

    A category is called as the folder of its images if that is unique, else by its number.
    """
    lists = [read_list(path, root) for path in paths]
    pairs = [
        {(same(image.parent.name), n) for n, images in numbered.items() for image in images}
        for numbered in lists
    ]
    numbers = [dict(each) for each in pairs]
    names = {number: name for each in numbers[::-1] for name, number in each.items()}
    if any(
        not len(p) == len(n) == len(each) for p, n, each in zip(pairs, numbers, lists, strict=True)
    ):
        names = {number: str(number) for numbered in lists for number in numbered}
    else:
        for name in sorted(numbers[0].keys() & numbers[1].keys()):
            if numbers[0][name] != numbers[1][name]:
                raise UserError(
                    f"category {told_apart(name)} has the number {numbers[0][name]} in "
                    f"{domains[0]} and {numbers[1][name]} in {domains[1]}: the two lists number "
                    "the categories differently"
                )
        for name, number in sorted(numbers[1].items()):
            if names[number] != name:
                warnings.warn(
                    f"category {number} is {told_apart(names[number])} in {domains[0]} and "
                    f"{told_apart(name)} in {domains[1]}; matched by number",
                    stacklevel=2,
                )
    listed = {image for numbered in lists for images in numbered.values() for image in images}
    sides = []
    for path, numbered in zip(paths, lists, strict=True):
        folders = sorted({image.parent for images in numbered.values() for image in images})
        rest = [p for folder in folders for p in look(folder).images if p not in listed]
        skipped = [Skipped(image, f"not in {path.name}") for image in rest]
        images = {names[number]: numbered[number] for number in sorted(numbered)}
        sides.append(Side(path, images, skipped))
    return sides
