"""Tasks from the benchmarks or from any two folders.

A task is a labelled source domain and a target domain whose labels are used only in evaluation.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from office.console import UserError, told_apart, visible
from office.data import folders, layouts
from office.data.benchmarks import DATASETS, Benchmark, Part
from office.data.folders import Skipped
from office.data.layouts import Side


@dataclass(frozen=True)
class Domain:
    """Images of one domain, with labels in ``[0, K)``, or ``None`` for an unlabelled folder.

    Attributes:
        skipped: Other files beside them.
    """

    name: str
    paths: list[Path]
    labels: list[int] | None
    skipped: Sequence[Skipped] = ()


@dataclass(frozen=True)
class Task:
    """Two domains and the K category names that their labels index."""

    name: str
    source: Domain
    target: Domain
    categories: list[str]

    @property
    def lacking(self) -> list[str]:
        """Categories of which a labelled target has no image."""
        present = set(self.target.labels or range(len(self.categories)))
        return [name for label, name in enumerate(self.categories) if label not in present]


def available_tasks(dataset: str, root: Path | None) -> list[str]:
    """Return the tasks whose two domains are under ``root``."""
    domains = layouts.available(dataset, root)
    return [task for task in DATASETS[dataset].tasks if domains.issuperset(task.split("2"))]


def load_task(dataset: str, root: Path | None, name: str, *, partial: bool = False) -> Task:
    """Load a benchmark's task, in any known layout.

    Args:
        dataset: A key of :data:`DATASETS`.
        root: The benchmark's folder, or a folder with several benchmarks, of which the one that
            fits best is used; only the task's two domains need to exist.
        name: A task such as ``"A2W"``.
        partial: Whether the target may lack categories of the source.

    Raises:
        UserError: If the task is unknown, or its images are missing, incomplete or another
            benchmark's.
    """
    benchmark = DATASETS[dataset]
    if name not in benchmark.tasks:
        raise UserError(f"{dataset} has no task {name}; choose {', '.join(benchmark.tasks)}")
    parts = [benchmark.domains[domain] for domain in name.split("2")]
    names, images = [part.name for part in parts], [part.images for part in parts]
    source, target = layouts.read(dataset, root, name.split("2"))
    if benchmark.kept:
        target = _keep(target, benchmark.kept)
        names[1] += f" ({len(benchmark.kept)} categories)"
        images[1] = benchmark.kept_images[name.split("2")[1]]
    task = _match(name, names, [source, target], partial=partial or bool(benchmark.kept))
    _refuse_another_benchmark(dataset, task, parts)
    _compare_with_published(dataset, task, images)
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
        UserError: If a folder is missing or empty, or they do not go together.
    """
    for folder in (source, target):
        if not folder.is_dir():
            raise UserError(folders.no_folder(folder))
    if source.resolve() == target.resolve():
        raise UserError(f"source and target are the same folder: {visible(source)}")
    names = _names_of_folders(source.resolve(), target.resolve())
    try:
        side = layouts.read_folder(source, names[0])
    except UserError as error:
        if folders.subfolders(source) or not folders.subfolders(target):
            raise
        raise UserError(
            f"{error}, but {visible(target)} has: are --source and --target swapped?"
        ) from None
    contents = folders.look_below(target) if unlabelled else folders.look(target)
    if contents.folders:
        try:
            sides = [side, layouts.read_folder(target, names[1])]
            return _match("2".join(names), names, sides, partial=partial)
        except UserError as error:
            raise UserError(
                f"{error}; if the folders in {visible(target)} are not categories, add --unlabelled"
            ) from None
    if not contents.images:
        rest = f"; {folders.summary(names[1], contents.skipped)}" if contents.skipped else ""
        raise UserError(
            f"domain {visible(names[1])} is empty: {visible(target)} has neither images nor "
            f"category folders{rest}"
        )
    categories = [*side.images]
    images = Domain(names[1], contents.images, None, contents.skipped)
    return _checked("2".join(names), _labelled(names[0], side, categories), images, categories)


def warn_about_copies(task: Task, hashes: Mapping[Path, str]) -> None:
    """Warn about images that are in two categories of a domain, or in both domains.

    Args:
        task: The task.
        hashes: A hash of each image's content; empty, and ignored, if it cannot be read.

    Raises:
        UserError: If all images of a domain are also the other's.
    """
    pair = task.source, task.target
    ours, theirs = (_by_hash(domain.paths, hashes) for domain in pair)
    for domain, alike in zip(pair, (ours, theirs), strict=True):
        label = dict(zip(domain.paths, domain.labels or [0] * len(domain.paths), strict=True))
        firsts = [(first, path) for first, *others in alike.values() for path in others]
        copies = sorted((first, path) for first, path in firsts if label[first] != label[path])
        if copies:
            warnings.warn(
                f"{_images_are(len(copies))} in two categories of {visible(domain.name)}, for "
                f"example {visible(copies[0][0])} is {visible(copies[0][1])}",
                stacklevel=2,
            )
    both = ours.keys() & theirs.keys()
    if both:
        path = min(path for content in both for path in ours[content])
        example = f"for example {visible(path)} is {visible(theirs[hashes[path]][0])}"
        names = f"{visible(pair[0].name)} and {visible(pair[1].name)}"
        counts = [sum(len(alike[content]) for content in both) for alike in (ours, theirs)]
        of = [len(domain.paths) for domain in pair]
        if counts[0] == of[0] or counts[1] == of[1]:
            raise UserError(
                f"{names} are the same images: {counts[0]:,} of {of[0]:,} and {counts[1]:,} of "
                f"{of[1]:,} files are the same, links to the same, or copies; {example}"
            )
        warnings.warn(
            f"{_images_are(counts[1])} in both {names}, {example}: the target's accuracy includes "
            "these training images",
            stacklevel=2,
        )


def _by_hash(paths: Sequence[Path], hashes: Mapping[Path, str]) -> dict[str, list[Path]]:
    alike: dict[str, list[Path]] = {}
    for path in paths:
        if hashes[path]:
            alike.setdefault(hashes[path], []).append(path)
    return alike


def _images_are(count: int) -> str:
    return f"{count:,} image is" if count == 1 else f"{count:,} images are"


def _match(name: str, domains: Sequence[str], sides: Sequence[Side], *, partial: bool) -> Task:
    """Make a task from two domains with the same categories, or fewer in a ``partial`` target."""
    source, target = (side.images.keys() for side in sides)
    if source != target and not (partial and target < source):
        raise UserError(_differ(domains, sides))
    one, other = (_labelled(*side, [*source]) for side in zip(domains, sides, strict=True))
    return _checked(name, one, other, [*source])


def _labelled(name: str, side: Side, categories: Sequence[str]) -> Domain:
    images = [side.images.get(category, []) for category in categories]
    labels = [label for label, paths in enumerate(images) for _ in paths]
    return Domain(name, [path for paths in images for path in paths], labels, side.skipped)


def _checked(name: str, source: Domain, target: Domain, categories: list[str]) -> Task:
    """Return a task, if there are several categories; warn about skipped files."""
    if len(categories) < 2:
        raise UserError(
            f"{visible(name)} has a single category, {visible(categories[0])}, so every "
            "prediction would be right. Each category needs its own folder in the source"
        )
    for domain in (source, target):
        if domain.skipped:
            warnings.warn(folders.summary(domain.name, domain.skipped), stacklevel=2)
    # Files and figures use the names: what is not UTF-8 in them is escaped.
    name, *categories = (
        text.encode("utf-8", "backslashreplace").decode() for text in (name, *categories)
    )
    return Task(name, source, target, categories)


def _differ(domains: Sequence[str], sides: Sequence[Side]) -> str:
    """Say which categories a side lacks, and what to do about it."""
    source, target = map(visible, domains)
    ours, theirs = (side.images.keys() for side in sides)
    lacking = {source: sorted(theirs - ours), target: sorted(ours - theirs)}
    missing = [
        f"missing in {domain}: {', '.join(map(told_apart, names))}"
        for domain, names in lacking.items()
        if names
    ]
    if not ours & theirs:
        lines = [
            f"none of {source}'s categories is one of {target}'s: {source} has "
            f"{', '.join(lacking[target])}; {target} has {', '.join(lacking[source])}. Both need "
            "the same categories, under the same names"
        ]
    else:
        lines = [
            f"{source} and {target} differ in categories; {'; '.join(missing)}. Both need the same "
            "categories: remove the extra folder, or rename it"
        ]
    if ours and ours < theirs:
        lines.append(
            f"{target} has all of {source}'s categories, and more: are --source and --target "
            "swapped?"
        )
    if theirs < ours:
        lines.append(
            f"If {target} is meant to have only some of {source}'s categories (partial "
            "adaptation), add --partial"
        )
    pairs = zip(domains, sides, strict=True)
    lines += [folders.summary(name, side.skipped) for name, side in pairs if side.skipped]
    return "\n".join(lines)


def _keep(side: Side, kept: Sequence[str]) -> Side:
    """Return a side with only the categories in ``kept``, for the target of partial adaptation."""
    images = {name: paths for name, paths in side.images.items() if name in kept}
    if not images:
        has = ", ".join(map(visible, side.images))
        raise UserError(
            f"{visible(side.path)} has none of the categories {', '.join(kept)}: it has {has}"
        )
    skipped = [item for item in side.skipped if item.category is None or item.category in kept]
    return Side(side.path, images, skipped)


def _names_of_folders(source: Path, target: Path) -> list[str]:
    """Return two folders' names, prefixed with parent folders until they differ."""
    n = 1
    while source.parts[-n:] == target.parts[-n:]:
        n += 1
    return ["-".join(folder.parts[1:][-n:]) for folder in (source, target)]


def _refuse_another_benchmark(dataset: str, task: Task, parts: Sequence[Part]) -> None:
    """Raise :class:`UserError` if the domains belong to another benchmark with the same names."""
    k, counts = len(task.categories), [len(task.source.paths), len(task.target.paths)]

    def has_these(other: Benchmark) -> bool:
        named = [(folder, p.images) for p in other.domains.values() for folder in p.folders]
        pairs = zip(parts, counts, strict=True)
        return other.categories == k and all(
            any((folder, count) in named for folder in part.folders) for part, count in pairs
        )

    whole = {name: other for name, other in DATASETS.items() if not other.kept}
    names = [name for name, other in whole.items() if has_these(other)]
    published = DATASETS[dataset].categories
    if k > published or (names and dataset not in names):
        likely = names or [name for name, other in whole.items() if other.categories == k]
        those = f"those of {' or '.join(likely)}, {k}" if likely else f"{k}"
        raise UserError(
            f"{dataset} has {published} categories, but "
            f"{visible(task.source.paths[0].parent.parent)} has {those}; set --root to the folder "
            f"of {dataset}"
        )


def _compare_with_published(dataset: str, task: Task, images: Sequence[int]) -> None:
    """Warn if the number of images or categories differs from the published one."""
    rows = [
        (f"{dataset} {task.source.name}", len(task.source.paths), images[0], "images"),
        (f"{dataset} {task.target.name}", len(task.target.paths), images[1], "images"),
        (dataset, len(task.categories), DATASETS[dataset].categories, "categories"),
    ]
    for name, count, published, things in rows:
        if count != published:
            message = f"{name}: {count:,} {things} found, {published:,} published"
            warnings.warn(message, stacklevel=2)
