"""Images shared by two domains or two categories: the same files, links to them, or copies."""

import filecmp
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

_PIECE = 4096  # bytes from a file's middle, which rarely agree in two images


def shared(source: Iterable[Path], target: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Return the source images that are also target images, each with the first match."""
    ours, theirs = _by_size(source), _by_size(target)
    found = []
    for size in ours.keys() & theirs.keys():
        twins = _Twins(theirs[size], size)
        found.extend((path, twin) for path in ours[size] if (twin := twins.of(path)))
    return sorted(found)


def in_two_categories(paths: Sequence[Path], labels: Sequence[int]) -> list[tuple[Path, Path]]:
    """Return images that are in another category of the domain too, each after its first match."""
    label, found = dict(zip(paths, labels, strict=True)), []
    for size, alike in _by_size(paths).items():
        twins = _Twins(alike[:1], size)
        for path in alike[1:]:
            twin = twins.of(path)
            if twin is None:
                twins.add(path)
            elif label[twin] != label[path]:
                found.append((twin, path))
    return sorted(found)


class _Twins:
    """Files of one size, to find a file's twin among them without reading them all."""

    def __init__(self, paths: Iterable[Path], size: int) -> None:
        self.size = size
        self.files: dict[tuple[int, int], Path] = {}
        self.pieces: dict[bytes, list[Path]] = defaultdict(list)
        for path in paths:
            self.add(path)

    def add(self, path: Path) -> None:
        self.files.setdefault(_file(path), path)
        self.pieces[self._piece(path)].append(path)

    def of(self, path: Path) -> Path | None:
        same_file = self.files.get(_file(path))
        alike = self.pieces.get(self._piece(path), []) if self.size else []
        copies = (other for other in alike if filecmp.cmp(path, other, shallow=False))
        return same_file or next(copies, None)

    def _piece(self, path: Path) -> bytes:
        with open(path, "rb") as file:
            file.seek(max(0, (self.size - _PIECE) // 2))
            return file.read(_PIECE)


def _file(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _by_size(paths: Iterable[Path]) -> dict[int, list[Path]]:
    """Group paths by size, without unreadable ones, which are reported when read."""
    sizes: dict[int, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        if os.access(path, os.R_OK):
            sizes[path.stat().st_size].append(path)
    return sizes
