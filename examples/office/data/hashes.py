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
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from office import files
from office.console import UserError
from office.data import images
from office.data.tasks import Domain, Task, warn_about_copies

SETTLED = 2.0  # seconds; some file systems' clocks are no finer, so a newer file may still change


class Content(NamedTuple):
    """Bytes of a file, and a hash of them."""

    bytes: int
    hash: str


class Row(NamedTuple):
    """A line of a listing.

    Attributes:
        role: "source", "target" or "weights".
        path: Below the domain's common folder, so that a copy of the data set elsewhere has the
            same paths; in one Unicode normalisation, because systems differ.
        label: Name of the category; empty without labels.
        bytes: Size of the file.
        hash: Of its content.
    """

    role: str
    path: str
    label: str
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
    domains = [domain for task in tasks for domain in (task.source, task.target)]
    paths = [path for domain in domains for path in domain.paths]
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
    rows = [
        *_rows("source", task.source, task.categories, contents),
        *_rows("target", task.target, task.categories, contents),
    ]
    return _text([*rows, Row("weights", weights[0], "", *weights[1])] if weights else rows)


def _rows(
    role: str, domain: Domain, categories: list[str], contents: Mapping[Path, Content]
) -> Iterator[Row]:
    folder = os.path.commonpath([path.parent for path in domain.paths])
    for path, label in zip(domain.paths, domain.labels or [None] * len(domain.paths), strict=True):
        below = unicodedata.normalize("NFC", path.relative_to(folder).as_posix())
        name = "" if label is None else categories[label]
        yield Row(role, below, name, *contents[path])


def _text(rows: list[Row]) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(Row._fields)
    lines.writerows(rows)
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
                said = one if len(keys) == 1 else many
                parts.append(f"{len(keys):,}{among} {role} {things} {said}, the first {keys[0][1]}")
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
    known, started = _read_cache(cache), time.time()

    def look(path: Path) -> tuple[list, bool]:
        """Return a file's cache entry, and whether it may be cached."""
        try:
            stat = os.stat(path)
            seen = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
            before = known.get(os.path.abspath(path))
            if isinstance(before, list) and before[:-1] == seen:
                return before, True
            found = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
        except OSError:
            return [0, ""], False
        return [*seen, found], max(stat.st_mtime, stat.st_ctime) < started - SETTLED

    paths = [*dict.fromkeys(paths)]
    looks = dict(zip(paths, images.read_all(paths, look, "hashing"), strict=True))
    kept = {os.path.abspath(path): entry for path, (entry, keep) in looks.items() if keep}
    if any(known.get(path) is not entry for path, entry in kept.items()):
        with suppress(OSError, UserError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            files.write(cache, json.dumps(known | kept).encode())
    return {path: Content(entry[0], entry[-1]) for path, (entry, _) in looks.items()}


def _read_cache(path: Path) -> dict[str, list]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
