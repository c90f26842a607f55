"""What runs are trained on, file by file, so that results on other files can be told apart.

A listing is CSV text, written as inputs.csv beside the results: one line per source image, then per
target image, in the order of features.npz, then one for the file of ``--weights``.
"""

import csv
import hashlib
import io
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from office import files
from office.console import UserError, same
from office.data import images
from office.data.tasks import Task, warn_about_copies

SETTLED = 2.0  # seconds; some file systems' clocks are no finer, so a newer file may still change


class Content(NamedTuple):
    """Bytes of a file, and a hash of them."""

    bytes: int
    hash: str


class Row(NamedTuple):
    """A line of a listing."""

    role: str  # source, target or weights
    path: str  # below the domain's common folder, so that a copy elsewhere has the same paths
    label: str  # name of the category; empty without labels
    bytes: int
    hash: str


def listings(tasks: Iterable[Task], weights: Path | None, out: Path) -> dict[str, str]:
    """Return the listing of each task, by name; warn about images in two places.

    Args:
        tasks: Tasks with different names.
        weights: The file that the backbone starts from, if it is one.
        out: Folder of the runs, where hashes.json stores earlier hashes.

    Raises:
        UserError: If all images of a domain are also the other's.
    """
    tasks = list(tasks)
    paths = [
        path for task in tasks for domain in (task.source, task.target) for path in domain.paths
    ]
    contents = hash_files([*paths, *([weights] if weights else [])], out / "hashes.json")
    by_path = {path: content.hash for path, content in contents.items()}
    for task in tasks:
        warn_about_copies(task, by_path)
    named = (weights.name, contents[weights]) if weights else None
    return {task.name: listing(task, contents, named) for task in tasks}


def listing(
    task: Task, contents: Mapping[Path, Content], weights: tuple[str, Content] | None
) -> str:
    """Return the listing of a task, given the hashes of its files and of the weights."""
    rows = []
    for role, domain in (("source", task.source), ("target", task.target)):
        folder = os.path.commonpath([path.parent for path in domain.paths])
        labels: Sequence[int | None] = domain.labels or [None] * len(domain.paths)
        for path, label in zip(domain.paths, labels, strict=True):
            name = "" if label is None else task.categories[label]
            rows.append(Row(role, same(path.relative_to(folder).as_posix()), name, *contents[path]))
    if weights:
        rows.append(Row("weights", weights[0], "", *weights[1]))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Row._fields, *rows])
    # Bytes of a name that are not UTF-8 are escaped, so that the file is UTF-8.
    return text.getvalue().encode("utf-8", "backslashreplace").decode()


def checksum(listing: str) -> int:
    """Return a 48-bit number, which every JSON reader keeps exactly."""
    return int.from_bytes(hashlib.blake2b(listing.encode(), digest_size=6).digest(), "big")


def differences(before: str, now: str) -> str:
    """Say how two listings differ: "12 of 2,817 source images differ, the first mug/1.jpg"."""
    old, new = (
        {(row["role"], row["path"]): row for row in csv.DictReader(io.StringIO(listing))}
        for listing in (before, now)
    )
    parts = []
    for role in ("source", "target"):
        ours = [key for key in new if key[0] == role]
        both = [key for key in ours if key in old]
        of = f" of {len(ours):,}" if len(ours) > 1 else ""
        other = [key for key in both if old[key]["hash"] != new[key]["hash"]]
        moved = [key for key in both if old[key]["label"] != new[key]["label"]]
        for keys, among, one, many in (
            (other, of, "differs", "differ"),
            (moved, of, "has another label", "have another label"),
            ([key for key in ours if key not in old], "", "is new", "are new"),
            ([key for key in old if key[0] == role and key not in new], "", "is gone", "are gone"),
        ):
            if keys:
                things = "image" if len(keys) == 1 and not among else "images"
                verb = one if len(keys) == 1 else many
                parts.append(f"{len(keys):,}{among} {role} {things} {verb}, the first {keys[0][1]}")
    for key in old.keys() & new.keys():
        if key[0] == "weights" and old[key]["hash"] != new[key]["hash"]:
            parts.append(f"the weights file {key[1]} has changed")
    return "; ".join(parts) or "the same images come in another order"


def hash_files(paths: Iterable[Path], cache: Path) -> dict[Path, Content]:
    """Hash files, except those whose size, times and inode match the cache.

    An unreadable file gets no bytes and no hash: reading the image later says why.

    Args:
        paths: Files, possibly repeated.
        cache: A file that stores the hashes for next time. If it is missing, broken or not
            writable, the next time takes as long as the first.
    """
    started, known = time.time(), None
    with suppress(OSError, ValueError):
        known = json.loads(cache.read_text(encoding="utf-8"))
    known = known if isinstance(known, dict) else {}

    def entry(path: Path) -> tuple[list[Any], bool]:
        """Return a file's line of the cache, and whether it may be kept there."""
        try:
            stat = os.stat(path)
            state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
            before = known.get(os.path.abspath(path))
            if isinstance(before, list) and before[:-1] == state:
                return before, True
            digest = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
        except OSError:
            return [0, ""], False
        return [*state, digest], max(stat.st_mtime, stat.st_ctime) < started - SETTLED

    paths = [*dict.fromkeys(paths)]
    entries = dict(zip(paths, images.in_threads(entry, paths, "hashing"), strict=True))
    kept = {os.path.abspath(path): line for path, (line, keep) in entries.items() if keep}
    if any(known.get(path) is not line for path, line in kept.items()):
        with suppress(OSError, UserError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            files.write(cache, json.dumps(known | kept).encode())
    return {path: Content(line[0], line[-1]) for path, (line, _) in entries.items()}
