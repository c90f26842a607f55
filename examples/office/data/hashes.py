"""Hashes of the files that runs are trained on, copies among them, and a look at each image.

A listing is CSV text, written as inputs.csv beside the results: one line per source image, then per
target image, in the order of features.npz, then one for the file of ``--weights``.
"""

import csv
import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from office import console
from office.console import UserError, same, visible
from office.data import images
from office.data.tasks import Task


class Content(NamedTuple):
    """Size of a file in bytes, and its hash; 0 and an empty text if it cannot be read."""

    bytes: int
    hash: str


def hash_files(paths: Iterable[Path]) -> dict[Path, Content]:
    """Hash each file once; what cannot be read is reported later, when the image is read."""

    def content(path: Path) -> Content:
        try:
            data = path.read_bytes()
        except OSError:
            return Content(0, "")
        return Content(len(data), hashlib.blake2b(data, digest_size=8).hexdigest())

    paths = [*dict.fromkeys(paths)]
    return dict(zip(paths, images.in_threads(content, paths, "hashing"), strict=True))


def listings(tasks: Sequence[Task], weights: Path | None) -> dict[str, str]:
    """Return the listing of each task, by name; warn about copies."""
    paths = [path for task in tasks for path in (*task.source.paths, *task.target.paths)]
    contents = hash_files([*paths, *([weights] if weights else [])])
    for task in tasks:
        warn_about_copies(task, contents)
    named = (weights.name, contents[weights]) if weights else None
    return {task.name: listing(task, contents, named) for task in tasks}


def listing(
    task: Task, contents: Mapping[Path, Content], weights: tuple[str, Content] | None
) -> str:
    """Return the listing of a task, given the hashes of its files and of the weights."""
    rows: list[tuple[object, ...]] = [("role", "path", "label", "bytes", "hash")]
    for role, domain in (("source", task.source), ("target", task.target)):
        # Paths below it are the same in a copy elsewhere.
        folder = os.path.commonpath([path.parent for path in domain.paths])
        labels: Sequence[int | None] = domain.labels or [None] * len(domain.paths)
        for path, label in zip(domain.paths, labels, strict=True):
            name = "" if label is None else task.categories[label]
            rows.append((role, same(path.relative_to(folder).as_posix()), name, *contents[path]))
    if weights:
        rows.append(("weights", weights[0], "", *weights[1]))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # Bytes of a name that are not UTF-8 are escaped, so that the file is UTF-8.
    return text.getvalue().encode("utf-8", "backslashreplace").decode()


def checksum(listing: str) -> int:
    """Return a checksum of 48 bits, which every JSON reader keeps exactly."""
    return int.from_bytes(hashlib.blake2b(listing.encode(), digest_size=6).digest(), "big")


def warn_about_copies(task: Task, contents: Mapping[Path, Content]) -> None:
    """Warn about images that are in both domains; :class:`UserError` if one has no others."""
    pair = task.source, task.target
    firsts = [
        {contents[path].hash: path for path in reversed(domain.paths) if contents[path].hash}
        for domain in pair
    ]
    if not (both := firsts[0].keys() & firsts[1].keys()):
        return
    counts = [sum(contents[path].hash in both for path in domain.paths) for domain in pair]
    one, other = min((visible(firsts[0][content]), visible(firsts[1][content])) for content in both)
    shared = (
        f"images in both {visible(pair[0].name)} and {visible(pair[1].name)}: {counts[0]:,} of "
        f"{len(pair[0].paths):,} and {counts[1]:,} of {len(pair[1].paths):,}, for example {one} is "
        f"{other}"
    )
    if any(count == len(domain.paths) for count, domain in zip(counts, pair, strict=True)):
        raise UserError(f"{shared}. These are the same files, links to them, or copies")
    warnings.warn(f"{shared}. The target accuracy includes these training images", stacklevel=2)


def check_images(tasks: Sequence[Task]) -> bool:
    """Print counts per category, and unreadable and skipped files; return whether all were read."""
    pairs = [(task, domain) for task in tasks for domain in (task.source, task.target)]
    domains = {domain.name: domain for _, domain in pairs}
    # In partial adaptation, the same domain may be a source in full and a target in part.
    paths = [*dict.fromkeys(path for domain in domains.values() for path in domain.paths)]
    skipped = [*dict.fromkeys(item for domain in domains.values() for item in domain.skipped)]
    contents = hash_files(paths)
    for task in tasks:
        warn_about_copies(task, contents)
    columns = {
        domain.name: Counter(task.categories[label] for label in domain.labels or ())
        for task, domain in pairs
    }
    columns["skipped"] = Counter(item.category or "no category" for item in skipped)
    totals = [*(len(domain.paths) for domain in domains.values()), len(skipped)]
    names = dict.fromkeys(name for task in tasks for name in task.categories)
    names |= dict.fromkeys(["no category"] * ("no category" in columns["skipped"]))
    rows: list[list[object]] = [["category", *columns]]
    rows += [[name, *(column[name] for column in columns.values())] for name in names]
    rows.append(["all", *totals])
    print(console.columns([[visible(cell or "-") for cell in row] for row in rows], right=True))
    _, faults = images.read_all(paths, lambda path: images.load_image(path).size, "reading")
    print(f"{len(paths) - len(faults):,} of {len(paths):,} images can be read", end="")
    print(f", {len(skipped):,} files are skipped" if skipped else "")
    images.find_depths({domain.name: domain.paths for domain in domains.values()})
    for item in skipped:
        print(f"skipped: {visible(item.path)} ({item.why})")
    print(*faults, sep="\n", end="\n" * bool(faults))
    return not faults
