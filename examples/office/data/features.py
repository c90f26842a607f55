"""Features of a frozen network: two files per domain, whose writing can be interrupted.

NAME.npy contains them as float16 ``(N, views, F)``; ``np.load(..., mmap_mode="r")`` reads only what
is used. NAME.json (:class:`Extraction`) records the images and how the features were made.
"""

import dataclasses
import io
import itertools
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from office import files
from office.console import UserError, visible
from office.data.hashes import Content
from office.data.images import Preprocessing
from office.data.layouts import DATASETS
from office.data.tasks import Domain, Task

# How features were made; the same in all domains of a folder.
MADE = ("dataset", "backbone", "weights", "weights_content", "preprocessing", "precision", "views")


@dataclass(frozen=True)
class Extraction:
    """Which images of a domain the rows of NAME.npy belong to, and how they were made."""

    dataset: str  # the benchmark, or "folders"
    domain: str
    backbone: str  # for backbones.build_extractor
    weights: str  # "imagenet", "none" or the name of a file
    weights_content: Content | None  # of that file
    preprocessing: Preprocessing
    precision: str  # of the forward pass
    views: int  # per image: the centre crop, its mirror image, then random crops, mirrored or not
    categories: list[str]  # empty without labels
    labels: list[int] | None  # indices of categories
    folder: str  # where the images were
    paths: list[str]  # of the images, below it
    contents: list[Content]

    def images(self) -> list[Path]:
        """Return the images' paths."""
        return [Path(self.folder) / path for path in self.paths]

    def difference(self, other: "Extraction", mine: str, others: str) -> str:
        """Say which of :data:`MADE` differs first: "views 1 MINE, 2 OTHERS"; or nothing."""
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in MADE)
        differing = (f"{name} {a} {mine}, {b} {others}" for name, a, b in pairs if a != b)
        return next(differing, "")


class Stored(NamedTuple):
    """A domain's features, ``(N, views, F)``, float16, and what they are."""

    extraction: Extraction
    features: np.ndarray


class Store:
    """The two files of a domain in ``out`` while they are written, with ``width`` per view."""

    def __init__(self, out: Path, extraction: Extraction, width: int) -> None:
        self.path = out / f"{extraction.domain}.npy"
        self.part = self.path.with_suffix(".npy.part")
        self.extraction = extraction
        self.shape = (len(extraction.paths), extraction.views, width)
        self._row = 2 * extraction.views * width  # bytes
        header = io.BytesIO()
        about = {"descr": "<f2", "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(header, about)
        self._header = header.getvalue()
        description = self.path.with_suffix(".json")
        files.try_writing(out)
        if not (self.path.exists() or self.part.exists()):
            content = json.dumps(dataclasses.asdict(extraction), indent=1)
            files.write(description, content.encode())
        elif description.exists():
            _check_same(description, extraction)
        else:
            missing = f"{description} is missing"
            raise UserError(f"{missing}; without it, {self.path} cannot be identified")

    @property
    def finished(self) -> bool:
        """Whether all features have been written."""
        return self.path.exists()

    @property
    def done(self) -> int:
        """How many images' features have been written."""
        if self.finished:
            return self.shape[0]
        size = self.part.stat().st_size if self.part.exists() else 0
        return max(0, size - len(self._header)) // self._row

    def add(self, features: np.ndarray) -> None:
        """Append the features of the next images, ``(n, views, F)``."""
        done = self.done
        bad = ~np.isfinite(features).all((1, 2))
        if bad.any():
            path = self.extraction.images()[done + int(bad.argmax())]
            raise UserError(f"the features of {visible(path)} are not finite in float16")
        with open(self.part, "r+b" if self.part.exists() else "w+b") as file:
            if done == 0:
                file.write(self._header)
            file.seek(len(self._header) + done * self._row)  # overwrites an incomplete row
            file.write(features.astype("<f2").tobytes())

    def finish(self) -> None:
        """Give the complete file its final name."""
        with open(self.part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.path)


def _check_same(path: Path, extraction: Extraction) -> None:
    """Raise :class:`UserError` if a NAME.json is another extraction's; the folder may differ."""
    before = _read_extraction(path)
    difference = before.difference(extraction, "there", "here")
    fields = [(e.paths, e.contents, e.labels, e.categories) for e in (before, extraction)]
    if not difference and fields[0] != fields[1]:
        counts = f"{len(before.paths):,} there, {len(extraction.paths):,} here"
        difference = f"other images, labels or categories, {counts}"
    if difference:
        raise UserError(
            f"{path} belongs to another extraction ({difference}); choose another --out or delete "
            "it and the .npy beside it"
        )


def read(folder: Path, names: Collection[str] | None = None) -> dict[str, Stored]:
    """Read features by domain, all or the named ones; they stay on the disk until used."""
    stored: dict[str, Stored] = {}
    for path in sorted(folder.glob("*.json")):
        if names is None or path.stem in names:
            extraction = _read_extraction(path)
            features = _read_features(path.with_suffix(".npy"), extraction)
            stored[extraction.domain] = Stored(extraction, features)
    if not stored:
        raise UserError(f"no features in {folder}: make them with extract_features.py")
    first, *others = stored.values()
    for other in others:
        both = first.extraction, other.extraction
        if difference := both[0].difference(both[1], *(f"for {one.domain}" for one in both)):
            raise UserError(f"the features in {folder} differ: {difference}")
        if first.features.shape[2] != other.features.shape[2]:
            raise UserError(f"the features in {folder} differ in width")
    return stored


def _read_extraction(path: Path) -> Extraction:
    """Read a NAME.json."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        about = fields["preprocessing"]
        colours = {name: tuple(about[name]) for name in ("mean", "std")}
        fields["preprocessing"] = Preprocessing(**about | colours)
        fields["contents"] = [Content(*content) for content in fields["contents"]]
        if fields["weights_content"] is not None:
            fields["weights_content"] = Content(*fields["weights_content"])
        return Extraction(**fields)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} was not written by extract_features.py: {error!r}") from None


def _read_features(path: Path, extraction: Extraction) -> np.ndarray:
    """Map a NAME.npy into memory."""
    if not path.exists():
        raise UserError(
            f"the features of {extraction.domain} are not finished: run the command that began "
            "them again to continue"
        )
    try:
        features: np.ndarray = np.load(path, mmap_mode="c")  # torch wants writable arrays
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    shape = (len(extraction.paths), extraction.views)
    if features.dtype != np.float16 or features.shape[:2] != shape:
        description = path.with_suffix(".json")
        raise UserError(f"{path} does not match {description}: it has shape {features.shape}")
    return features


def tasks(
    stored: Mapping[str, Stored], dataset: str, names: Sequence[str], *, partial: bool = False
) -> list[Task]:
    """Return tasks whose images are features, in the benchmark's order.

    ``dataset`` may be another benchmark with the same domains; among ``names``, "all" are the tasks
    with features for both domains; in ``partial`` adaptation a target may lack categories.
    """
    made_of = next(iter(stored.values())).extraction.dataset
    domains = {name: benchmark.domains for name, benchmark in DATASETS.items()}
    fitting = [name for name in domains if domains[name] == domains.get(made_of)] or [made_of]
    if dataset not in fitting:
        raise UserError(f"the features are of {' or '.join(fitting)}, not of {dataset}")
    kept: Sequence[str] = ()
    if dataset == "folders":
        pairs = {f"{s}2{t}": (s, t) for s, t in itertools.permutations(stored, 2)}
    else:
        kept, parts = DATASETS[dataset].kept, domains[dataset]
        sides = {name: name.split("2") for name in DATASETS[dataset].tasks}
        pairs = {name: (parts[s].name, parts[t].name) for name, (s, t) in sides.items()}
    available = {
        name: (stored[s].extraction, stored[t].extraction)
        for name, (s, t) in pairs.items()
        if s in stored and t in stored and stored[s].extraction.labels
    }
    missing = [name for name in names if name != "all" and name not in available]
    if missing or not available:
        raise UserError(
            f"no features of {', '.join(missing) or 'two domains'}: there are features of "
            f"{', '.join(stored)}, for the tasks {', '.join(available) or 'none'}"
        )
    made = []
    for name in available if "all" in names else names:
        source, target = available[name]
        if target.labels is not None and source.categories != target.categories:
            has = [
                f"{e.domain} has {', '.join(map(visible, e.categories))}" for e in (source, target)
            ]
            raise UserError(
                f"the categories of {name} differ: {'; '.join(has)}; name tasks that agree with "
                "--task"
            )
        task = Task(name, _domain(source), _domain(target, kept), source.categories)
        if task.lacking and not (partial or kept):
            raise UserError(
                f"{task.target.name} lacks {', '.join(task.lacking)}, which {task.source.name} "
                "has; if it is meant to (partial adaptation), add --partial"
            )
        made.append(task)
    return made


def _domain(extraction: Extraction, kept: Sequence[str] = ()) -> Domain:
    """Return the domain with all features, or with those of kept categories."""
    name, paths, labels = extraction.domain, extraction.images(), extraction.labels
    if kept and labels:
        rows = [i for i, label in enumerate(labels) if extraction.categories[label] in kept]
        paths, labels = [paths[i] for i in rows], [labels[i] for i in rows]
        name += f" ({len(kept)} categories)"
    return Domain(name, paths, labels)
