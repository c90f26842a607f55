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
from typing import Any, NamedTuple

import numpy as np

from office import files
from office.console import UserError, visible
from office.data.benchmarks import DATASETS
from office.data.hashes import Content
from office.data.images import Preprocessing
from office.data.tasks import Domain, Task
from office.models import backbones, saved
from office.options import Frozen, Recipe


@dataclass(frozen=True)
class Extraction:
    """Which images of a domain the rows of NAME.npy belong to, and how they were made.

    Attributes:
        dataset: The benchmark, or "folders".
        domain: Its name.
        backbone: Its name, for :func:`backbones.build_extractor`.
        weights: "imagenet", "none" or the name of a file.
        weights_content: Size and hash of that file.
        preprocessing: From an image to the network's input.
        precision: Of the forward pass.
        views: Per image the centre crop, its mirror image, then random crops, mirrored or not.
        categories: Names of the K categories.
        labels: Category index of each image, ``None`` without labels.
        folder: Where the images were.
        paths: The images' paths below it.
        contents: Sizes and hashes of their files.
    """

    dataset: str
    domain: str
    backbone: str
    weights: str
    weights_content: Content | None
    preprocessing: Preprocessing
    precision: str
    views: int
    categories: list[str]
    labels: list[int] | None
    folder: str
    paths: list[str]
    contents: list[Content]

    def images(self) -> list[Path]:
        """Return the images' paths."""
        return [Path(self.folder) / path for path in self.paths]

    def settings(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


class Stored(NamedTuple):
    """A domain's features, ``(N, views, F)``, float16, and what they are."""

    extraction: Extraction
    features: np.ndarray


class Store:
    """The two files of a domain while they are written.

    Args:
        out: Their folder.
        extraction: What goes into them; another extraction's files are not touched.
        width: Features per view.

    Raises:
        UserError: If the files belong to another extraction, or the folder is not writable.
    """

    def __init__(self, out: Path, extraction: Extraction, width: int) -> None:
        self.path = out / f"{extraction.domain}.npy"
        self.part = self.path.with_suffix(".npy.part")
        self.extraction = extraction
        self.shape = (len(extraction.paths), extraction.views, width)
        told = self.path.with_suffix(".json")
        files.try_writing(out)
        begun = self.path.exists() or self.part.exists()
        if begun and told.exists():
            _agree(told, extraction)
        elif begun:
            raise UserError(f"{told} is missing; without it, {self.path} cannot be identified")
        else:
            files.write(told, json.dumps(extraction.settings(), indent=1).encode())

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
        return max(0, size - len(self._header())) // self._row

    @property
    def _row(self) -> int:
        return 2 * self.shape[1] * self.shape[2]

    def _header(self) -> bytes:
        header = io.BytesIO()
        about = {"descr": "<f2", "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(header, about)
        return header.getvalue()

    def add(self, features: np.ndarray) -> None:
        """Append the features of the next images, ``(n, views, F)``.

        Raises:
            UserError: If a feature is not finite in float16; names the image.
        """
        bad = ~np.isfinite(features).all((1, 2))
        if bad.any():
            path = self.extraction.images()[self.done + int(bad.argmax())]
            raise UserError(f"the features of {visible(path)} are not finite in float16")
        end = len(self._header()) + self.done * self._row
        with open(self.part, "r+b" if self.part.exists() else "w+b") as file:
            if self.done == 0:
                file.write(self._header())
            file.seek(end)  # overwrites an incomplete row
            file.write(features.astype("<f2").tobytes())

    def finish(self) -> None:
        """Give the complete file its final name."""
        with open(self.part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.path)


def read(folder: Path, names: Collection[str] | None = None) -> dict[str, Stored]:
    """Read a folder of features by domain; the features themselves stay on the disk until used.

    Args:
        folder: Where extract_features.py wrote them.
        names: The domains to read; all if None.

    Raises:
        UserError: If there are none, some are unfinished or broken, or they do not go together.
    """
    found = {}
    for told in sorted(folder.glob("*.json")):
        if names is not None and told.stem not in names:
            continue
        extraction = _read_extraction(told)
        found[extraction.domain] = Stored(extraction, _read_features(told, extraction))
    if not found:
        raise UserError(f"no features in {folder}: make them with extract_features.py")
    first, *others = (stored for stored in found.values())
    for stored in others:
        for name in ("dataset", "categories", *MADE):
            one, other = (getattr(s.extraction, name) for s in (first, stored))
            unlabelled = name == "categories" and not (one and other)
            if one != other and not unlabelled:
                raise UserError(
                    f"the features in {folder} differ in {name}: {one} for "
                    f"{first.extraction.domain}, {other} for {stored.extraction.domain}"
                )
        if first.features.shape[2] != stored.features.shape[2]:
            raise UserError(f"the features in {folder} differ in width")
    return found


MADE = ("backbone", "weights", "weights_content", "preprocessing", "precision", "views")


def _read_extraction(path: Path) -> Extraction:
    """Read a NAME.json."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        about = found["preprocessing"]
        colours = {name: tuple(about[name]) for name in ("mean", "std")}
        found["preprocessing"] = Preprocessing(**about | colours)
        found["contents"] = [Content(*content) for content in found["contents"]]
        if found["weights_content"] is not None:
            found["weights_content"] = Content(*found["weights_content"])
        return Extraction(**found)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} was not written by extract_features.py: {error!r}") from None


def _read_features(told: Path, extraction: Extraction) -> np.ndarray:
    path = told.with_suffix(".npy")
    if not path.exists():
        raise UserError(
            f"the features of {extraction.domain} are not finished: run the command that began "
            "them again to continue"
        )
    try:
        features = np.load(path, mmap_mode="c")  # torch wants arrays that could be written
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if features.dtype != np.float16 or features.shape[:2] != (
        len(extraction.paths),
        extraction.views,
    ):
        raise UserError(f"{path} does not match {told}: it has shape {features.shape}")
    return features


def _agree(path: Path, wanted: Extraction) -> None:
    """Raise :class:`UserError` if a NAME.json is another extraction's; the folder may differ."""
    there = _read_extraction(path)
    for name in ("dataset", "categories", *MADE):
        one, other = getattr(there, name), getattr(wanted, name)
        if one != other:
            raise UserError(
                f"{path} belongs to another extraction ({name} {one} there, {other} here); choose "
                "another --out or delete it and the .npy beside it"
            )
    if (there.paths, there.labels, there.contents) != (
        wanted.paths,
        wanted.labels,
        wanted.contents,
    ):
        pairs = zip(there.paths, there.contents, strict=True)
        differ = dict(pairs).items() ^ dict(zip(wanted.paths, wanted.contents, strict=True)).items()
        how = f"first {visible(min(differ)[0])}" if differ else "in order or labels"
        raise UserError(
            f"{path} belongs to other images ({len(there.paths):,} there, {len(wanted.paths):,} "
            f"here, differing {how}); choose another --out or delete it and the .npy beside it"
        )


def tasks(
    stored: Mapping[str, Stored], dataset: str, wanted: Sequence[str], *, partial: bool = False
) -> list[Task]:
    """Return tasks whose images are features, in the benchmark's order.

    Args:
        stored: Features by domain.
        dataset: The benchmark, perhaps another one with the same domains, or "folders".
        wanted: Names of tasks, or "all": those with features for both domains.
        partial: Whether the target may lack categories of the source.

    Raises:
        UserError: If they belong to another benchmark, a task's features are missing, or a target
            lacks categories.
    """
    made_of = next(iter(stored.values())).extraction.dataset
    domains = {name: benchmark.domains for name, benchmark in DATASETS.items()}
    fitting = [name for name in domains if domains[name] == domains.get(made_of)] or [made_of]
    if dataset not in fitting:
        raise UserError(f"the features are of {' or '.join(fitting)}, not of {dataset}")
    if dataset == "folders":
        names = {f"{s}2{t}": (s, t) for s, t in itertools.permutations(stored, 2)}
    else:
        parts = {short: part.name for short, part in domains[dataset].items()}
        pairs = {name: name.split("2") for name in DATASETS[dataset].tasks}
        names = {name: (parts[s], parts[t]) for name, (s, t) in pairs.items()}
    there = {
        name: (s, t)
        for name, (s, t) in names.items()
        if s in stored and t in stored and stored[s].extraction.labels
    }
    missing = [name for name in wanted if name != "all" and name not in there]
    if missing or not there:
        raise UserError(
            f"no features of {', '.join(missing) or 'two domains'}: there are features of "
            f"{', '.join(stored)}, for the tasks {', '.join(there) or 'none'}"
        )
    kept = DATASETS[dataset].kept if dataset in DATASETS else ()
    made = []
    for name in there if "all" in wanted else wanted:
        source, target = (stored[side].extraction for side in there[name])
        task = Task(name, _domain(source), _domain(target, kept), source.categories)
        if task.lacking and not (partial or kept):
            raise UserError(
                f"{task.target.name} lacks {', '.join(task.lacking)}, which {task.source.name} "
                "has; if it is meant to (partial adaptation), add --partial"
            )
        made.append(task)
    return made


def frozen(stored: Mapping[str, Stored]) -> Frozen:
    """Return what a recipe records about the features, the same in all domains."""
    one = next(iter(stored.values()))
    return Frozen(one.features.shape[2], one.extraction.views, one.extraction.precision)


def put_backbone(folder: Path, recipe: Recipe) -> None:
    """Put the backbone into a run's model.pt, which can then predict images."""
    model = saved.read_model(folder / "model.pt")
    if model.frozen:
        extractor = backbones.build_extractor(recipe.backbone, recipe.weights, recipe.bottleneck)
        extractor.bottleneck.load_state_dict(model.extractor.bottleneck.state_dict())
        model = dataclasses.replace(model, extractor=extractor, frozen=None)
        saved.write_model(folder, model)


def _domain(extraction: Extraction, kept: Sequence[str] = ()) -> Domain:
    """Return the domain with all features, or with those of kept categories."""
    paths, labels = extraction.images(), extraction.labels
    if not kept:
        return Domain(extraction.domain, paths, labels)
    pairs = zip(paths, labels or (), strict=True)
    pairs = [(path, label) for path, label in pairs if extraction.categories[label] in kept]
    name = f"{extraction.domain} ({len(kept)} categories)"
    return Domain(name, [path for path, _ in pairs], [label for _, label in pairs])
