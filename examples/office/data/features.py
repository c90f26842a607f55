"""Features of a frozen network: two files per domain.

NAME.npy contains them as float16 ``(N, views, F)``; ``np.load(..., mmap_mode="r")`` reads only what
is used. NAME.json (:class:`Extraction`) records the images and how the features were made.
"""

import dataclasses
import io
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from office import files
from office.console import UserError, visible
from office.data.hashes import Content
from office.data.images import Preprocessing
from office.data.layouts import DATASETS, Side
from office.data.tasks import Domain, Task, benchmark_task, checked, labelled, match

# How features were made; the same in all domains of a folder.
MADE = ("dataset", "backbone", "weights", "weights_content", "preprocessing", "precision", "views")


@dataclass(frozen=True)
class Extraction:
    """The images of a domain behind the rows of NAME.npy, and how their features were made."""

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

    @property
    def complete(self) -> bool:
        """Whether there are categories, each with at least one image."""
        return 0 < len(self.categories) == len({*(self.labels or ())})

    def side(self) -> Side:
        """Return the images by category."""
        images: dict[str, list[Path]] = {}
        pairs = zip(self.labels or (), self.images(), strict=False)
        for label, path in sorted(pairs, key=lambda pair: pair[0]):
            images.setdefault(self.categories[label], []).append(path)
        return Side(Path(self.folder), images, [])

    def difference(self, other: "Extraction", mine: str, others: str) -> str:
        """Say which of :data:`MADE` differs first: "views 1 MINE, 2 OTHERS"; or nothing."""
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in MADE)
        differing = (f"{name} {a} {mine}, {b} {others}" for name, a, b in pairs if a != b)
        return next(differing, "")


class Stored(NamedTuple):
    """A domain's features, ``(N, views, F)``, float16, and what they are."""

    extraction: Extraction
    features: np.ndarray


def write(folder: Path, extraction: Extraction, features: np.ndarray) -> None:
    """Write a domain's two files, NAME.npy last; :class:`UserError` names an image at fault."""
    bad = ~np.isfinite(features).all((1, 2))
    if bad.any():
        path = visible(extraction.images()[int(bad.argmax())])
        raise UserError(f"the features of {path} are not finite in float16")
    description = json.dumps(dataclasses.asdict(extraction), indent=1)
    files.write(folder / f"{extraction.domain}.json", description.encode())
    content = io.BytesIO()
    np.save(content, features.astype("<f2"))
    files.write(folder / f"{extraction.domain}.npy", content.getvalue())


def is_written(folder: Path, extraction: Extraction) -> bool:
    """Whether a domain's features are in a folder; :class:`UserError` if the files hold others.

    The images may have moved since.
    """
    path, description = (folder / f"{extraction.domain}.{kind}" for kind in ("npy", "json"))
    if not path.exists():
        return False
    if not description.exists():
        raise UserError(f"{description} is missing; without it, {path} cannot be identified")
    before = _read_extraction(description)
    difference = before.difference(extraction, "there", "here")
    fields = [(e.paths, e.contents, e.labels, e.categories) for e in (before, extraction)]
    if not difference and fields[0] != fields[1]:
        counts = f"{len(before.paths):,} there, {len(extraction.paths):,} here"
        difference = f"other images, labels or categories, {counts}"
    if difference:
        raise UserError(
            f"{description} belongs to another extraction ({difference}); choose another --out or "
            "delete it and the .npy beside it"
        )
    return True


def read(folder: Path, names: Collection[str] | None = None) -> dict[str, Stored]:
    """Read features by domain, all or the named ones; they stay on the disk until used."""
    stored: dict[str, Stored] = {}
    for path in sorted(folder.glob("*.json")):
        if names is None or path.stem in names:
            extraction = _read_extraction(path)
            features = _read_features(path.with_suffix(".npy"), extraction)
            stored[extraction.domain] = Stored(extraction, features)
    if not stored:
        raise UserError(f"no features in {folder}: run extract_features.py first")
    first, *others = stored.values()
    for other in others:
        both = first.extraction, other.extraction
        if difference := both[0].difference(both[1], *(f"for {one.domain}" for one in both)):
            raise UserError(f"the features in {folder} were made in different ways: {difference}")
        if first.features.shape[2] != other.features.shape[2]:
            raise UserError(f"the features in {folder} have different widths")
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
    if dataset == "folders":
        pairs = {f"{s}2{t}": (s, t) for s, t in itertools.permutations(stored, 2)}
    else:
        sides = {name: name.split("2") for name in DATASETS[dataset].tasks}
        parts = domains[dataset]
        pairs = {name: (parts[s].name, parts[t].name) for name, (s, t) in sides.items()}
    available = {
        name: (stored[s].extraction, stored[t].extraction)
        for name, (s, t) in pairs.items()
        if s in stored and t in stored and stored[s].extraction.complete
    }
    missing = [name for name in names if name != "all" and name not in available]
    if missing or not available:
        raise UserError(
            f"no features for {', '.join(missing) or 'any task'}: there are features of "
            f"{', '.join(stored)}, enough for {', '.join(available) or 'no task'}"
        )
    return [
        _task(dataset, name, *available[name], partial=partial)
        for name in (available if "all" in names else names)
    ]


def _task(
    dataset: str, name: str, source: Extraction, target: Extraction, *, partial: bool
) -> Task:
    both = source.domain, target.domain
    sides = source.side(), target.side()
    if target.labels is None:
        images = Domain(target.domain, target.images(), None)
        return checked(name, labelled(both[0], sides[0], source.categories), images, sides[0])
    if dataset == "folders":
        return match(name, both, sides, partial=partial)
    return benchmark_task(dataset, name, sides, partial=partial)
