"""Images on disk: in folders, in lists, and as the domains of the published benchmarks."""

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from office.console import UserError, same, visible
from office.data.images import SUFFIXES

NEEDED = {".avif": "Pillow 11.3 or newer"}
NEEDED |= dict.fromkeys((".heic", ".heif", ".hif"), "pillow-heif: pip install pillow-heif")
ARCHIVES = {".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"}
ARCHIVE = "an archive: unpack it first"
OUTSIDE = "outside category folders"
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
    """Sort the content of a folder; images are known by their suffix, and may still be broken."""
    contents = Contents([], subfolders(folder), [])
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path not in contents.folders:
                why = f"in a folder whose name begins with {path.name[0]}"
                contents.skipped.extend(s for s in skip_all(path, why) if _is_image(s.path))
        elif not _is_left_behind(path):
            if reason := why_not(path):
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
    """Return the folders in a folder, without hidden ones and those of operating systems."""
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
    """Whether a file was left by an operating system; such files are skipped silently."""
    name = path.name.lower()
    hidden = name.startswith((".", "~$")) and (name.startswith("._") or not _is_image(path))
    return hidden or name in ("thumbs.db", "desktop.ini")


def no_folder(path: Path) -> str:
    """Say why a path is not a folder."""
    archive = path.suffix.lower() in ARCHIVES and path.exists()
    return f"{visible(path)} is {ARCHIVE}" if archive else f"{visible(path)} is not a folder"


def summary(domain: str, skipped: Sequence[Skipped]) -> str:
    """Say in one line how many files of a domain are skipped, with the first names and reasons."""
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
    """One domain of a benchmark: its name, published number of images, and usual folder names."""

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
    """Read a benchmark's source and target from the first folder that has both.

    In it, lists win over folders.
    """
    names = [DATASETS[dataset].domains[domain].name for domain in domains]
    for lists, folders in _places(dataset, root):
        if root and lists.keys() >= {*domains}:
            return [read_list(lists[domain], root) for domain in domains]
        if folders.keys() >= {*domains}:
            pairs = zip(domains, names, strict=True)
            return [read_folder(folders[domain], name) for domain, name in pairs]
    raise UserError(_not_found(dataset, root, domains))


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
        but = f"only images {OUTSIDE}" if top.images else "none"
        raise UserError(
            f"domain {visible(domain)}: {visible(folder)} must have a folder of images for each "
            f"category, but has {but}"
        )
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


def read_list(path: Path, root: Path) -> Side:
    """Read a domain from lines "path label" in UTF-8, the label counted from 0 or 1.

    Paths begin in ``root``, in the list's folder or in the one above. A category is named after
    its images' folder if each has a folder of its own, else by its number.
    """
    labels: dict[Path, int] = {}
    # Bytes that are not UTF-8 are kept, as in names of files.
    lines = path.read_text("utf-8-sig", "surrogateescape").split("\n")
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{visible(path)}, line {i}"
        columns = re.fullmatch(r"\s*(.*\S)\s+([0-9]{1,9})\s*", line)
        if not columns:
            raise UserError(f"{where}: expected 'path label' with a number as label, got {line!a}")
        places = [folder / columns[1] for folder in (root, path.parent, path.parent.parent)]
        image = next(filter(os.path.isfile, places), None)
        if not image:
            raise UserError(f"{where}: no such image {visible(places[0])}")
        if labels.setdefault(image, int(columns[2])) != int(columns[2]):
            raise UserError(f"{where}: {visible(image)} already has label {labels[image]}")
    if not labels:
        raise UserError(f"the list is empty: {visible(path)}")
    numbered: dict[int, list[Path]] = {number: [] for number in sorted({*labels.values()})}
    for image, number in labels.items():
        numbered[number].append(image)
    folders = {(same(image.parent.name), number) for image, number in labels.items()}
    names = {number: name for name, number in folders}
    if not len(folders) == len({name for name, _ in folders}) == len(names):
        names = {number: str(number) for number in numbered}
    beside = (p for folder in sorted({p.parent for p in labels}) for p in look(folder).images)
    skipped = [Skipped(image, f"not in {path.name}") for image in beside if image not in labels]
    return Side(path, {names[number]: images for number, images in numbered.items()}, skipped)


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


def _key(path: Path) -> str:
    """Normalise a name: "Real World", "RealWorld" and "Real_World" are the same."""
    return re.sub(r"[^a-z0-9]", "", path.name.lower())


def _inner(folder: Path) -> Path:
    """Return the folder ``images`` that contains a domain's categories in some archives."""
    inner = (p for p in subfolders(folder) if p.name.lower() == "images" and subfolders(p))
    return next(inner, folder)


def _not_found(dataset: str, root: Path | None, domains: Sequence[str]) -> str:
    """Say which domains were not found, and what was expected."""
    benchmark, known = DATASETS[dataset], available(dataset, root)
    missing = [domain for domain in domains if domain not in known] or domains
    names = [benchmark.domains[domain].name for domain in missing]
    name = names[0].replace(" ", "_")
    where = f"looked in {visible(root)} and two levels below" if root else "--root is not given"
    if root and not root.is_dir():
        where = no_folder(root)
    elif root and (packed := [p for p in root.iterdir() if p.suffix.lower() in ARCHIVES]):
        where += f"; {visible(packed[0].name)} is {ARCHIVE}"
    return "\n".join(
        (
            f"{dataset}: {' and '.join(names)} not found in one folder: {where}.",
            f"Expected {name}/<category>/*.jpg, {name}/images/<category>/*.jpg, or "
            f"image_list/{name}.txt with lines of 'path label'",
            f"Published by {benchmark.reference}",
            "Download links: https://github.com/jindongwang/transferlearning/tree/master/data",
            "To try the method in a minute without any data: python examples/train_digits.py",
        )
    )
