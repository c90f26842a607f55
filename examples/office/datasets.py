"""The benchmarks' facts, their tasks, and the matching of the two domains' categories.

A task is a labelled source domain and a target domain whose labels only the evaluation may use.
"""

import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from office import folders, images, layouts
from office.benchmarks import DATASETS, GUIDE, Benchmark, Part
from office.errors import UserError


@dataclass(frozen=True)
class Domain:
    """Images of one domain, with labels in ``[0, K)``, or ``None`` for an unlabelled folder."""

    name: str
    paths: list[Path]
    labels: list[int] | None
    left_out: dict[str, list[Path]] = field(default_factory=dict)  # by category, "" beside them


@dataclass(frozen=True)
class Task:
    """Two domains and the K category names that their labels index."""

    name: str
    source: Domain
    target: Domain
    categories: list[str]


def task_names(dataset: str) -> list[str]:
    """Return the tasks of a benchmark by the field's abbreviations, in the paper's order."""
    return list(DATASETS[dataset].tasks)


def available_tasks(dataset: str, root: Path) -> list[str]:
    """Return the tasks whose two domains are under ``root``."""
    benchmark = DATASETS[dataset]
    here = {
        name for name, part in benchmark.domains.items() if layouts.find_domain(root, part.folders)
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
    sides = _find(dataset, root, parts)
    names = None
    if all(isinstance(key, int) for side in sides for key in side.categories):
        names = _names_of_numbers([side.categories for side in sides], parts)
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


def _find(dataset: str, root: Path | None, parts: list[Part]) -> list[layouts.Found]:
    """Return the domains from the place whose numbers are nearest to the published ones."""
    benchmark = DATASETS[dataset]

    def distance(sides: list[layouts.Found]) -> tuple[int, int]:
        categories = sum(abs(len(side.categories) - benchmark.categories) for side in sides)
        images = [sum(map(len, side.categories.values())) for side in sides]
        published = (part.images for part in parts)
        return categories, sum(abs(n - p) for n, p in zip(images, published, strict=True))

    places = [] if root is None else [*layouts.find(root, [part.folders for part in parts])]
    if not places:
        there = [root and layouts.find_domain(root, part.folders) for part in parts]
        missing = [part.name for part, place in zip(parts, there, strict=True) if not place]
        raise UserError(f"{dataset}: {layouts.explain(root, missing)}\n{_about(benchmark)}")
    found, faults = [], []
    for place in places:
        try:
            read = (layouts.read(p, root, part.name) for p, part in zip(place, parts, strict=True))
            found.append([*read])
        except UserError as fault:
            faults.append(fault)
    nearest = min(found, key=distance, default=None)
    if faults and (nearest is None or distance(nearest)[0]):  # it may be what was meant
        raise faults[0]
    for name, other in DATASETS.items():
        if all(len(s.categories) == other.categories > benchmark.categories for s in nearest):
            raise UserError(
                f"{dataset} has {benchmark.categories} categories, but {places[0][0]} has those of "
                f"{name}, {other.categories}; give --root the folder of {dataset}"
            )
    return nearest


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
    paths = folders.image_files(target)
    if not paths:
        raise UserError(
            f"domain {names[1]} is empty: {target} has neither images nor category folders"
        )
    unlabelled = Domain(names[1], paths, None, {"": folders.left_out(target)})
    categories = sorted(labelled.categories)
    return _checked(Task(task, _domain(names[0], labelled), unlabelled, categories))


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

    _print_counts(tasks, domains, counts)
    faults = [look for look in looks if isinstance(look, UserError)]
    modes = Counter(look for look in looks if look != "RGB" and look not in faults)
    converted = ", ".join(f"{count} {mode}" for mode, count in modes.items())
    print(f"{len(paths) - len(faults):,} of {len(paths):,} images can be read", end="")
    print(f"; converted to RGB: {converted}" if converted else "")
    for fault in faults:
        print(fault)
    left_out = [p for d in domains.values() for paths in d.left_out.values() for p in paths]
    for path in left_out:
        print(f"left out: {path}{folders.why(path)}")
    return not faults


def _print_counts(
    tasks: list[Task], domains: dict[str, Domain], counts: dict[str, Counter]
) -> None:
    """Print the images of each category by domain, and the files that are left out."""

    def left_out(*names: str) -> str:
        return str(sum(len(d.left_out.get(n, ())) for d in domains.values() for n in names) or "-")

    categories = dict.fromkeys(name for task in tasks for name in task.categories)
    beside = {name for d in domains.values() for name, paths in d.left_out.items() if paths}
    beside -= categories.keys()
    table = [
        ["category", *domains, "left out"],
        *(
            [name, *(str(count[name] or "-") for count in counts.values()), left_out(name)]
            for name in categories
        ),
        *([["beside them", *("-" for _ in domains), left_out(*beside)]] if beside else []),
        ["all", *(str(len(d.paths)) for d in domains.values()), left_out(*categories, *beside)],
    ]
    table = [[_printable(cell) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for name, *cells in table:
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print(name.ljust(widths[0]), *numbers, sep="  ")


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


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
    task: str, names: list[str], sides: list[layouts.Found], labels: dict[int, str] | None = None
) -> Task:
    """Give both sides the same labels; ``labels`` names the categories known by number."""
    labels = labels or {}
    keys = [side.categories.keys() for side in sides]
    lines = [
        f"missing in {name}: {', '.join(_visible(str(labels.get(k, k))) for k in sorted(lacks))}"
        for name, lacks in zip(names, (keys[1] - keys[0], keys[0] - keys[1]), strict=True)
        if lacks
    ]
    if lines:
        raise UserError(
            f"{names[0]} and {names[1]} differ in categories; {'; '.join(lines)}. "
            "Both need the same: take a folder that one side lacks out of the other, or rename it"
        )
    source, target = (_domain(name, side) for name, side in zip(names, sides, strict=True))
    categories = [labels.get(key, str(key)) for key in sorted(keys[0])]
    return _checked(Task(task, source, target, categories))


def _visible(name: str) -> str:
    """Return a name, escaped where it could look like another one."""
    plain = name.isascii() and name.isprintable() and name == " ".join(name.split())
    return name if plain else ascii(name)


def _domain(name: str, side: layouts.Found) -> Domain:
    keys = sorted(side.categories)
    paths = [path for key in keys for path in side.categories[key]]
    labels = [label for label, key in enumerate(keys) for _ in side.categories[key]]
    return Domain(name, paths, labels, side.left_out)


def _checked(task: Task) -> Task:
    """Return a task that can be right; warn of what is doubtful in it, and of what is left out.

    Raises:
        UserError: If it has one category, or one domain is a part of the other.
    """
    if len(task.categories) < 2:
        raise UserError(
            f"{task.name} has a single category, {task.categories[0]}: any model is right on it. "
            "Each category needs a folder of its own in the source"
        )
    domains = (task.source, task.target)
    source, target = ({_file(path) for path in domain.paths} for domain in domains)
    shared = len(source & target)
    if shared and shared in (len(source), len(target)):
        raise UserError(
            f"{task.source.name} and {task.target.name} are the same images: {shared:,} of "
            f"{len(source):,} and {len(target):,} files are the same, or links to the same"
        )
    if shared:
        warnings.warn(
            f"{shared:,} images are in both {task.source.name} and {task.target.name}",
            stacklevel=4,
        )
    for domain in domains:
        paths = [path for paths in domain.left_out.values() for path in paths]
        if paths:
            told = ", ".join(path.name + folders.why(path) for path in paths[:5])
            more = f" and {len(paths) - 5:,} more, see --check" if len(paths) > 5 else ""
            warnings.warn(f"{domain.name}: left out {told}{more}", stacklevel=4)
    return task


def _file(path: Path) -> tuple:
    """Return what is the same for all links to a file, hard or soft."""
    try:
        status = path.stat()
    except OSError:  # a broken link, which reading names
        return (path,)
    return status.st_dev, status.st_ino


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
            f"Download links: {GUIDE}",
            "Without data, this shows the method in a minute: python examples/train_digits.py",
        )
    )
