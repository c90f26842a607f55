"""Tasks from the benchmarks or from any two folders, and a check of all their images.

A task is a labelled source domain and a target domain whose labels are used only in evaluation.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from office.console import UserError, printable, visible
from office.data import benchmarks, images, layouts, listing, lists, tasks
from office.data.benchmarks import DATASETS, Benchmark, Part
from office.data.layouts import Place
from office.data.listing import LeftOut
from office.data.tasks import Domain, Task


def task_names(dataset: str) -> list[str]:
    """Return a benchmark's tasks by their usual abbreviations, in the paper's order."""
    return list(DATASETS[dataset].tasks)


def available_tasks(dataset: str, root: Path) -> list[str]:
    """Return the tasks whose two domains are under ``root``."""
    benchmark = DATASETS[dataset]
    here = {name for place in _places(benchmark, root) for name in place.domains}
    return [task for task in benchmark.tasks if here.issuperset(task.split("2"))]


def load_task(dataset: str, root: Path | None, name: str, *, partial: bool = False) -> Task:
    """Find a task's two domains under ``root``, in any known layout.

    If ``root`` contains several benchmarks, the folder whose domains and counts fit best is used.

    Args:
        dataset: A key of :data:`DATASETS`.
        root: The benchmark's folder; only the task's two domains need to exist.
        name: A task such as ``"A2W"``.
        partial: Whether the target may lack categories of the source.

    Raises:
        UserError: If the task is unknown, a domain is not found, is empty or belongs to another
            benchmark, a category has no images or is missing on one side, a list names a missing
            file, or both domains have the same images.
    """
    benchmark = DATASETS[dataset]
    if name not in benchmark.tasks:
        raise UserError(f"{dataset} has no task {name}: {benchmarks.why_no_task(benchmark, name)}")
    sides = name.split("2")
    parts = [benchmark.domains[side] for side in sides]
    names = [part.name for part in parts]
    place = _choose(benchmark, root, sides)
    if not place:
        here = {side for place in _places(benchmark, root) for side in place.domains}
        missing = [benchmark.domains[side].name for side in sides if side not in here]
        explained = layouts.explain(root, missing or names)
        raise UserError(f"{dataset}: {explained}\n{benchmarks.about(benchmark)}")
    paths = [place.domains[side][0] for side in sides]
    labels = {}
    if place.listed:
        found = [lists.read_list(path, root) for path in paths]
        labels = tasks.names_of_numbers(found, names)
    else:
        found = [layouts.read_folder(path, n) for path, n in zip(paths, names, strict=True)]
    if benchmark.kept:
        all_of_target, found[1] = found[1][0], tasks.keep(found[1], benchmark.kept, labels)
        if not found[1][0]:
            there = ", ".join(visible(labels.get(key, key)) for key in sorted(all_of_target))
            raise UserError(
                f"{visible(paths[1])} has none of the categories {', '.join(benchmark.kept)}: it "
                f"has {there}"
            )
        names[1] += f" ({len(benchmark.kept)} categories)"
    task = tasks.match(name, names, found, labels, partial=partial or bool(benchmark.kept))
    _refuse_another_benchmark(dataset, task, parts)
    expected = [parts[0].images, benchmark.kept_images.get(sides[1], parts[1].images)]
    _compare_with_published(dataset, task, expected)
    return task


def load_folders(
    source: Path, target: Path, *, partial: bool = False, unlabelled: bool = False
) -> Task:
    """Make a task from any two folders of images.

    Args:
        source: One subfolder per category.
        target: The same subfolders, or images without subfolders; then its labels are ``None``.
        partial: Whether the target may lack subfolders of the source.
        unlabelled: Whether the target's folders, at any depth, are not categories.

    Raises:
        UserError: As :func:`load_task`, or if the two folders are the same.
    """
    for folder in (source, target):
        if not folder.is_dir():
            raise UserError(f"no such folder: {visible(folder)}")
    if source.resolve() == target.resolve():
        raise UserError(f"source and target are the same folder: {visible(source)}")
    names = _names_of_folders(source.resolve(), target.resolve())
    task = "2".join(names)
    side = layouts.read_folder(source, names[0])
    found = listing.look_below(target) if unlabelled else listing.look(target)
    if found.folders:
        try:
            sides = [side, layouts.read_folder(target, names[1])]
            return tasks.match(task, names, sides, partial=partial)
        except UserError as error:
            raise UserError(
                f"{error}; if the folders in {visible(target)} are not categories, add --unlabelled"
            ) from None
    if not found.images:
        rest = f"; {listing.summary(names[1], found.left_out)}" if found.left_out else ""
        raise UserError(
            f"domain {visible(names[1])} is empty: {visible(target)} has neither images nor "
            f"category folders{rest}"
        )
    categories = sorted(side[0])
    labelled = tasks.labelled(names[0], *side, categories)
    unlabelled = Domain(names[1], found.images, None, found.left_out)
    return tasks.checked(Task(task, labelled, unlabelled, categories))


def _names_of_folders(*folders: Path) -> list[str]:
    """Return two folders' names, prefixed with parent folders until they differ."""
    n = 1
    while True:
        names = ["-".join(folder.parts[1:][-n:]) for folder in folders]
        if names[0] != names[1]:
            return names
        n += 1


def check(wanted: Iterable[Task]) -> bool:
    """Decode every image of the tasks' domains; print counts per category, and of skipped files.

    Returns:
        Whether all images could be read; unreadable and skipped ones are printed by path.
    """
    sides = [(task, domain) for task in wanted for domain in (task.source, task.target)]
    domains = {domain.name: domain for _, domain in sides}
    # In partial adaptation, the same domain may be a source in full and a target in part.
    paths = [*dict.fromkeys(path for domain in domains.values() for path in domain.paths)]
    left_out = [*dict.fromkeys(item for domain in domains.values() for item in domain.left_out)]
    looks = images.read_all(paths, images.look, "reading")
    for line in _table(sides, domains, left_out):
        print(printable(line))

    faults = [look for look in looks if isinstance(look, UserError)]
    seen = [look for look in looks if not isinstance(look, UserError)]
    modes = Counter(look.mode for look in seen if look.mode != "RGB")
    converted = ", ".join(f"{count} {mode}" for mode, count in modes.items())
    verb = "files are read" if left_out else "images can be read"
    print(f"{len(seen):,} of {len(paths) + len(left_out):,} {verb}", end="")
    print(f", {len(left_out):,} skipped" if left_out else "", end="")
    print(f"; converted to RGB: {converted}" if converted else "")
    several = [p for p, look in zip(paths, looks, strict=True) if look in seen and look.frames > 1]
    if several:
        print(f"only the first picture is read in {len(several):,} multi-picture files:", end=" ")
        print(printable(visible(several[0])), *["..."] * (len(several) > 1))
    for item in left_out:
        print(printable(f"skipped: {visible(item.path)} ({item.why})"))
    for fault in faults:
        print(printable(str(fault)))
    return not faults


def _table(
    sides: list[tuple[Task, Domain]], domains: dict[str, Domain], items: list[LeftOut]
) -> list[str]:
    """Return lines with the number of images per category and domain, and of skipped files."""
    counts = {
        domain.name: Counter(task.categories[label] for label in domain.labels or [])
        for task, domain in sides
    }
    left_out = Counter(item.category for item in items)
    columns = [*counts.values(), left_out]
    names = [*map(visible, domains), "skipped"]
    totals = [*(len(domain.paths) for domain in domains.values()), left_out.total()]
    categories = dict.fromkeys(name for task, _ in sides for name in task.categories)
    rows = {visible(name): [column[name] for column in columns] for name in categories}
    if left_out[None]:
        rows["no category"] = [column[None] for column in columns]
    table = [
        ["category", *names],
        *([name, *(str(count or "-") for count in row)] for name, row in rows.items()),
        ["all", *(str(total or "-") for total in totals)],
    ]
    table = [[printable(cell) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            [name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:], strict=True))]
        )
        for name, *cells in table
    ]


def _places(benchmark: Benchmark, root: Path | None) -> list[Place]:
    names = {name: part.folders for name, part in benchmark.domains.items()}
    return layouts.find(root, names) if root else []


def _choose(benchmark: Benchmark, root: Path | None, sides: Sequence[str]) -> Place | None:
    """Return the place with the best-fitting counts and most domains, with one path per domain.

    Both domains should be in one folder; if no folder has both, they may be in two.
    """
    places = _places(benchmark, root)
    joined = []
    for listed in (True, False) if root else ():
        domains: dict[str, list[Path]] = {}
        for place in places:
            if place.listed == listed:
                domains = place.domains | domains  # if two have a domain, the first wins
        joined.append(Place(root, listed, domains))
    for candidates in (places, joined):
        having = [place for place in candidates if place.domains.keys() >= {*sides}]
        listed = {place.base for place in having if place.listed}
        # In one folder, lists win over folders.
        fits = [_fit(p, benchmark) for p in having if p.listed or p.base not in listed]
        if fits:
            return min(fits, key=lambda fit: fit[0])[1]
    return None


def _fit(place: Place, benchmark: Benchmark) -> tuple[tuple[int, int, int], Place]:
    """Return a place's misfit to the published counts, and the place with the best paths."""

    def misfit(path: Path, part: Part) -> tuple[int, int]:
        categories, found = layouts.size(path)
        # Fewer categories may be part of the benchmark; more mean another one.
        kind = 2 if categories > benchmark.categories else int(categories < benchmark.categories)
        return kind, abs(found - part.images)

    best, misfits = {}, []
    for name, paths in place.domains.items():
        misfits.append(min(misfit(path, benchmark.domains[name]) for path in paths))
        best[name] = [min(paths, key=lambda path: misfit(path, benchmark.domains[name]))]
    kinds, differences = zip(*misfits, strict=True)
    rank = (max(kinds), -len(best), sum(differences))
    return rank, place._replace(domains=best)


def _refuse_another_benchmark(dataset: str, task: Task, parts: list[Part]) -> None:
    """Raise :class:`UserError` if the domains belong to another benchmark with the same names."""
    k, counts = len(task.categories), [len(task.source.paths), len(task.target.paths)]

    def has_these(other: Benchmark) -> bool:
        found = [
            [p.images for p in other.domains.values() if {*p.folders} & {*part.folders}]
            for part in parts
        ]
        pairs = zip(counts, found, strict=True)
        return other.categories == k and all(count in images for count, images in pairs)

    whole = {name: other for name, other in DATASETS.items() if not other.kept}
    names = [name for name, other in whole.items() if has_these(other)]
    if k > DATASETS[dataset].categories or (names and dataset not in names):
        likely = names or [name for name, other in whole.items() if other.categories == k]
        those = f"those of {' or '.join(likely)}, {k}" if likely else f"{k}"
        raise UserError(
            f"{dataset} has {DATASETS[dataset].categories} categories, but "
            f"{visible(task.source.paths[0].parent.parent)} has {those}; set --root to the folder "
            f"of {dataset}"
        )


def _compare_with_published(dataset: str, task: Task, images: list[int]) -> None:
    """Warn if the number of images or categories differs from the published one."""
    for published, domain in zip(images, (task.source, task.target), strict=True):
        if len(domain.paths) != published:
            warnings.warn(
                f"{dataset} {domain.name}: {len(domain.paths):,} images found, "
                f"{published:,} published",
                stacklevel=3,
            )
    found, published = len(task.categories), DATASETS[dataset].categories
    if found != published:
        warnings.warn(f"{dataset}: {found} categories found, {published} published", stacklevel=3)
