"""The benchmarks' facts, their tasks, and the matching of the two domains' categories.

A task is a labelled source domain and a target domain whose labels only the evaluation may use.
"""

import itertools
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from office import images, layouts
from office.errors import UserError


@dataclass(frozen=True)
class Domain:
    """Images of one domain, with labels in ``[0, K)``, or ``None`` for an unlabelled folder."""

    name: str
    paths: list[Path]
    labels: list[int] | None


@dataclass(frozen=True)
class Task:
    """Two domains and the K category names that their labels index."""

    name: str
    source: Domain
    target: Domain
    categories: list[str]


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


_GUIDE = "https://github.com/jindongwang/transferlearning/tree/master/data"

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
        reference=(
            "Venkateswara et al., CVPR 2017, https://www.hemanthdv.org/officeHomeDataset.html"
        ),
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


def task_names(dataset: str) -> list[str]:
    """Return the tasks of a benchmark by the field's abbreviations, in the paper's order."""
    return list(DATASETS[dataset].tasks)


def available_tasks(dataset: str, root: Path) -> list[str]:
    """Return the tasks whose two domains are under ``root``."""
    benchmark = DATASETS[dataset]
    here = {
        name
        for name, part in benchmark.domains.items()
        if layouts.find_folder(root, part.folders) or layouts.find_list(root, part.folders)
    }
    return [task for task in benchmark.tasks if here.issuperset(task.split("2"))]


def load_task(dataset: str, root: Path | None, name: str) -> Task:
    """Find the two domains of a task under ``root``, in whichever layout they are.

    Args:
        dataset: A key of :data:`DATASETS`.
        root: The benchmark's folder; only the task's two domains need to be there.
        name: A task such as ``"A2W"``.

    Raises:
        UserError: If the task is unknown, a domain is not found or empty, a category has no
            images or is missing on one side, or a list names a file that is not there.
    """
    benchmark = DATASETS[dataset]
    if name not in benchmark.tasks:
        raise UserError(f"{dataset} has no task {name}: {_why_no_task(benchmark, name)}")
    parts = [benchmark.domains[side] for side in name.split("2")]
    lists = [root and layouts.find_list(root, part.folders) for part in parts]
    sides: list[dict]
    if root and all(lists):
        sides = [layouts.read_list(path, root) for path in lists]
        names = _names_of_numbers(sides, parts)
    else:
        folders = [root and layouts.find_folder(root, part.folders) for part in parts]
        missing = [part.name for part, folder in zip(parts, folders, strict=True) if not folder]
        if missing:
            raise UserError(f"{dataset}: {layouts.explain(root, missing)}\n{_about(benchmark)}")
        sides = [
            layouts.read_folder(folder, part.name)
            for folder, part in zip(folders, parts, strict=True)
        ]
        names = None
    task = _match(name, [part.name for part in parts], sides, names)
    for part, domain in zip(parts, (task.source, task.target), strict=True):
        if len(domain.paths) != part.images:
            warnings.warn(
                f"{dataset} {part.name}: {len(domain.paths):,} images found, "
                f"{part.images:,} published",
                stacklevel=2,
            )
    if len(task.categories) != benchmark.categories:
        warnings.warn(
            f"{dataset}: {len(task.categories)} categories found, {benchmark.categories} published",
            stacklevel=2,
        )
    return task


def load_folders(source: Path, target: Path) -> Task:
    """Make a task of any two folders of images.

    Args:
        source: One subfolder per category.
        target: The same subfolders, or images without subfolders: then its labels are ``None``.

    Raises:
        UserError: As :func:`load_task`, or if the two folders are the same.
    """
    for folder in (source, target):
        if not folder.is_dir():
            raise UserError(f"no such folder: {folder}")
    if source.resolve() == target.resolve():
        raise UserError(f"source and target are the same folder: {source}")
    names = [source.resolve().name, target.resolve().name]
    if names[0] == names[1]:
        names = [
            f"{folder.resolve().parent.name}-{folder.resolve().name}" for folder in (source, target)
        ]
    task = "2".join(names)
    labelled = layouts.read_folder(source, names[0])
    if layouts.subfolders(target):
        return _match(task, names, [labelled, layouts.read_folder(target, names[1])])
    paths = layouts.image_files(target)
    if not paths:
        raise UserError(
            f"domain {names[1]} is empty: {target} has neither images nor category folders"
        )
    return Task(task, _domain(names[0], labelled), Domain(names[1], paths, None), sorted(labelled))


def check(tasks: Iterable[Task]) -> bool:
    """Decode every image of the tasks' domains and print how many each category holds.

    Returns:
        Whether all images could be read; the others are printed by path.
    """
    tasks = list(tasks)
    sides = [(task, domain) for task in tasks for domain in (task.source, task.target)]
    domains = {domain.name: domain for _, domain in sides}
    counts = {
        domain.name: Counter(task.categories[label] for label in domain.labels or [])
        for task, domain in sides
    }
    paths = [path for domain in domains.values() for path in domain.paths]
    looks = images.read_all(paths, images.mode, "reading")

    categories = dict.fromkeys(name for task in tasks for name in task.categories)
    table = [
        ["category", *domains],
        *([name, *(str(count[name] or "-") for count in counts.values())] for name in categories),
        ["all", *(str(len(domain.paths)) for domain in domains.values())],
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for name, *cells in table:
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print(name.ljust(widths[0]), *numbers, sep="  ")

    faults = [look for look in looks if isinstance(look, UserError)]
    modes = Counter(look for look in looks if look != "RGB" and look not in faults)
    converted = ", ".join(f"{count} {mode}" for mode, count in modes.items())
    print(f"{len(paths) - len(faults):,} of {len(paths):,} images can be read", end="")
    print(f"; converted to RGB: {converted}" if converted else "")
    for fault in faults:
        print(fault)
    return not faults


def _names_of_numbers(sides: list[dict[int, list[Path]]], parts: list[Part]) -> dict[int, str]:
    """Category names of numbers: the images' folder where it tells, else the number."""
    named = []
    for side in sides:
        folders = {number: {path.parent.name for path in paths} for number, paths in side.items()}
        names = {number: min(folder) for number, folder in folders.items()}
        single = all(len(folder) == 1 for folder in folders.values())
        if not single or len(set(names.values())) < len(names):
            return {number: str(number) for side in sides for number in side}
        named.append(names)
    for number in sorted(named[0].keys() & named[1].keys()):
        if named[0][number] != named[1][number]:
            warnings.warn(
                f"category {number} is {named[0][number]} in {parts[0].name} and "
                f"{named[1][number]} in {parts[1].name}; matched by number",
                stacklevel=3,
            )
    return {**named[1], **named[0]}


def _match(
    task: str, names: list[str], sides: list[dict], labels: dict[int, str] | None = None
) -> Task:
    """Give both sides the same labels; ``labels`` names the categories known by number."""
    labels = labels or {}
    lines = [
        f"missing in {name}: {', '.join(str(labels.get(key, key)) for key in sorted(lacks))}"
        for name, lacks in zip(
            names,
            (sides[1].keys() - sides[0].keys(), sides[0].keys() - sides[1].keys()),
            strict=True,
        )
        if lacks
    ]
    if lines:
        raise UserError(f"{names[0]} and {names[1]} differ in categories; {'; '.join(lines)}")
    source, target = (_domain(name, side) for name, side in zip(names, sides, strict=True))
    return Task(task, source, target, [labels.get(key, str(key)) for key in sorted(sides[0])])


def _domain(name: str, side: dict) -> Domain:
    keys = sorted(side)
    paths = [path for key in keys for path in side[key]]
    return Domain(name, paths, [label for label, key in enumerate(keys) for _ in side[key]])


def _why_no_task(benchmark: Benchmark, name: str) -> str:
    source, _, target = name.partition("2")
    why = (
        "its source and target are the same domain"
        if source == target and source in benchmark.domains
        else f"the domains are {', '.join(benchmark.domains)}"
    )
    return f"{why}; choose {', '.join(benchmark.tasks)}"


def _about(benchmark: Benchmark) -> str:
    return "\n".join(
        (
            f"The domains are {', '.join(part.name for part in benchmark.domains.values())}, "
            f"with {benchmark.categories} categories.",
            f"Published by {benchmark.reference}",
            f"Download links: {_GUIDE}",
            "Without data, this shows the method in a minute: python examples/train_digits.py",
        )
    )
