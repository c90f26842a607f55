"""The benchmarks' images: which layouts they come in, how they are matched, read and transformed.

A task is a labelled source domain and a target domain whose labels only the evaluation may use:
:class:`Images` therefore gives crops and their index, and labels stay in :class:`Domain`.
"""

import itertools
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from tqdm import tqdm

from office import distributed

RESIZE, CROP = 256, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, per channel of RGB in [0, 1]
T = TypeVar("T")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


class DataError(Exception):
    """What is wrong with the data, in words for the person who has to mend it."""

    def __str__(self) -> str:
        """Return the message; a DataLoader worker puts its traceback before it, dropped here."""
        return super().__str__().rpartition("DataError: ")[2].strip()


@dataclass(frozen=True)
class Domain:
    """Images of one domain, with labels in ``[0, K)``, or ``None`` for an unlabelled folder."""

    name: str
    paths: list[Path]
    labels: list[int] | None


@dataclass(frozen=True)
class Task:
    """Two domains and the K category names that their labels index."""

    name: str
    source: Domain
    target: Domain
    categories: list[str]


class Part(NamedTuple):
    """One domain of a benchmark: its name, published number of images, and folder names in use."""

    name: str
    images: int
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """Published facts of a benchmark; ``domains`` and ``tasks`` use the field's abbreviations."""

    domains: dict[str, Part]
    tasks: list[str]
    categories: int
    reference: str


_GUIDE = "https://github.com/jindongwang/transferlearning/tree/master/data"
_AMAZON_WEBCAM_DSLR = ("amazon", "webcam", "dslr")

DATASETS = {
    "office31": Benchmark(
        domains={
            "A": Part("amazon", 2817, ("amazon",)),
            "W": Part("webcam", 795, ("webcam",)),
            "D": Part("dslr", 498, ("dslr",)),
        },
        tasks=["A2W", "D2W", "W2D", "A2D", "D2A", "W2A"],
        categories=31,
        reference="Saenko et al., ECCV 2010, https://faculty.cc.gatech.edu/~judy/domainadapt/",
    ),
    "imageclef-da": Benchmark(
        domains={
            "I": Part("i", 600, ("i", "imagenet", "ilsvrc2012")),
            "P": Part("p", 600, ("p", "pascal", "voc2012", "pascalvoc2012")),
            "C": Part("c", 600, ("c", "caltech", "caltech256")),
        },
        tasks=["I2P", "P2I", "I2C", "C2I", "C2P", "P2C"],
        categories=12,
        reference="ImageCLEF 2014, https://www.imageclef.org/2014/adaptation",
    ),
    "office-home": Benchmark(
        domains={
            "Ar": Part("Art", 2427, ("art",)),
            "Cl": Part("Clipart", 4365, ("clipart",)),
            "Pr": Part("Product", 4439, ("product",)),
            "Rw": Part("Real World", 4357, ("realworld",)),
        },
        tasks=[f"{s}2{t}" for s, t in itertools.permutations(("Ar", "Cl", "Pr", "Rw"), 2)],
        categories=65,
        reference=(
            "Venkateswara et al., CVPR 2017, https://www.hemanthdv.org/officeHomeDataset.html"
        ),
    ),
    "office-caltech10": Benchmark(
        domains={
            "A": Part("amazon", 958, ("amazon",)),
            "C": Part("caltech10", 1123, ("caltech10", "caltech", "caltech256")),
            "D": Part("dslr", 157, ("dslr",)),
            "W": Part("webcam", 295, ("webcam",)),
        },
        tasks=[f"{s}2{t}" for s, t in itertools.permutations("ACDW", 2)],
        categories=10,
        reference="Gong et al., CVPR 2012",
    ),
}


def task_names(dataset: str) -> list[str]:
    """Return the tasks of a benchmark by the field's abbreviations, in the paper's order."""
    return list(DATASETS[dataset].tasks)


def available_tasks(dataset: str, root: Path) -> list[str]:
    """Return the tasks whose two domains are under ``root``."""
    benchmark = DATASETS[dataset]
    here = {
        name
        for name, part in benchmark.domains.items()
        if _find_folder(root, part) or _find_list(root, part)
    }
    return [task for task in benchmark.tasks if here.issuperset(task.split("2"))]


def load_task(dataset: str, root: Path | None, name: str) -> Task:
    """Find the two domains of a task under ``root``, in whichever layout they are.

    Args:
        dataset: A key of :data:`DATASETS`.
        root: The benchmark's folder; only the task's two domains need to be there.
        name: A task such as ``"A2W"``.

    Raises:
        DataError: If the task is unknown, a domain is not found or empty, a category has no
            images or is missing on one side, or a list names a file that is not there.
    """
    benchmark = DATASETS[dataset]
    if name not in benchmark.tasks:
        source, _, target = name.partition("2")
        why = (
            "its source and target are the same domain"
            if source == target and source in benchmark.domains
            else f"the domains are {', '.join(benchmark.domains)}"
        )
        raise DataError(f"{dataset} has no task {name}: {why}; choose {', '.join(benchmark.tasks)}")
    parts = [benchmark.domains[side] for side in name.split("2")]
    lists = [root and _find_list(root, part) for part in parts]
    sides: list[dict]
    if root and lists[0] and lists[1]:
        sides = [_read_list(path, root) for path in lists]
        names = _names_of_numbers(sides, parts)
    else:
        folders = [root and _find_folder(root, part) for part in parts]
        missing = [part.name for part, folder in zip(parts, folders, strict=True) if not folder]
        if missing:
            raise DataError(_explain(dataset, root, missing))
        sides = [_read_folder(f, part.name) for f, part in zip(folders, parts, strict=True)]
        names = None
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


def load_folders(source: Path, target: Path) -> Task:
    """Make a task of any two folders of images.

    Args:
        source: One subfolder per category.
        target: The same subfolders, or images without subfolders: then its labels are ``None``.

    Raises:
        DataError: As :func:`load_task`, or if the two folders are the same.
    """
    for folder in (source, target):
        if not folder.is_dir():
            raise DataError(f"no such folder: {folder}")
    if source.resolve() == target.resolve():
        raise DataError(f"source and target are the same folder: {source}")
    names = [source.resolve().name, target.resolve().name]
    if names[0] == names[1]:
        names = [
            f"{folder.resolve().parent.name}-{folder.resolve().name}" for folder in (source, target)
        ]
    task = "2".join(names)
    labelled = _read_folder(source, names[0])
    if _subfolders(target):
        return _match(task, names, [labelled, _read_folder(target, names[1])])
    images = _images(target)
    if not images:
        raise DataError(
            f"domain {names[1]} is empty: {target} has neither images nor category folders"
        )
    return Task(task, _domain(names[0], labelled), Domain(names[1], images, None), sorted(labelled))


def _key(name: str) -> str:
    """Fold the spellings of one name: "Real World", "RealWorld" and "Real_World" are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._")


def _images(folder: Path) -> list[Path]:
    # A broken link counts as an image, so that reading it names it.
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in EXTENSIONS and p.name[0] != "." and not p.is_dir()
    )


def _bases(root: Path) -> list[Path]:
    """The root and its folders: archives often unpack into one folder more."""
    return [root, *_subfolders(root)] if root.is_dir() else []


def _find_folder(root: Path, part: Part) -> Path | None:
    for base in _bases(root):
        for folder in _subfolders(base):
            if _key(folder.name) in part.folders:
                return folder
    return None


def _find_list(root: Path, part: Part) -> Path | None:
    wanted = {*part.folders, *(f"{name}list" for name in part.folders)}
    for base in _bases(root):
        holders = [p for p in _subfolders(base) if _key(p.name) in ("list", "lists", "imagelist")]
        for holder in [*holders, base]:
            for path in sorted(holder.glob("*.txt")):
                if _key(path.stem) in wanted:
                    return path
    return None


def _read_folder(folder: Path, name: str) -> dict[str, list[Path]]:
    """Paths by category name from ``<category>/`` or ``images/<category>/``."""
    inner = [p for p in _subfolders(folder) if p.name.lower() == "images" and _subfolders(p)]
    categories = _subfolders(inner[0] if inner else folder)
    if not categories:
        has = "images outside category folders" if _images(folder) else "no category folders"
        raise DataError(f"domain {name} is empty: {folder} has {has}")
    paths = {category.name: _images(category) for category in categories}
    for category in categories:
        if not paths[category.name]:
            raise DataError(f"category {category.name} of domain {name} has no images: {category}")
    return paths


def _read_list(path: Path, root: Path) -> dict[int, list[Path]]:
    """Paths by category number from lines "path label"."""
    numbered: dict[int, list[Path]] = {}
    place: tuple[Path, int] | None = None
    for i, line in enumerate(
        path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
    ):
        if not line.strip():
            continue
        try:
            listed, label = line.rsplit(maxsplit=1)
            number = int(label)
        except ValueError:
            raise DataError(f"{path}, line {i}: expected 'path label', got {line!r}") from None
        parts = Path(listed.strip()).parts
        # Lists often keep the folders of the machine they were made on: drop those once, on the
        # first line, until the file is found.
        place = place or next(
            (
                (base, drop)
                for drop in range(len(parts))
                for base in (root, path.parent, path.parent.parent)
                if base.joinpath(*parts[drop:]).is_file()
            ),
            None,
        )
        image = place[0].joinpath(*parts[place[1] :]) if place else root.joinpath(*parts)
        if not image.is_file():
            raise DataError(f"{path}, line {i}: no such image {image}")
        numbered.setdefault(number, []).append(image)
    if not numbered:
        raise DataError(f"the list is empty: {path}")
    return numbered


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
    task: str, names: list[str], sides: list[dict], labels: dict[int, str] | None = None
) -> Task:
    """Give both sides the same labels; ``labels`` names the categories known by number."""
    labels = labels or {}
    lines = [
        f"missing in {name}: {', '.join(str(labels.get(key, key)) for key in sorted(lacks))}"
        for name, lacks in zip(
            names,
            (sides[1].keys() - sides[0].keys(), sides[0].keys() - sides[1].keys()),
            strict=True,
        )
        if lacks
    ]
    if lines:
        raise DataError(f"{names[0]} and {names[1]} differ in categories; {'; '.join(lines)}")
    source, target = (_domain(name, side) for name, side in zip(names, sides, strict=True))
    return Task(task, source, target, [labels.get(key, str(key)) for key in sorted(sides[0])])


def _domain(name: str, side: dict) -> Domain:
    keys = sorted(side)
    paths = [path for key in keys for path in side[key]]
    return Domain(name, paths, [label for label, key in enumerate(keys) for _ in side[key]])


def _explain(dataset: str, root: Path | None, missing: list[str]) -> str:
    benchmark = DATASETS[dataset]
    if root is None:
        found = "--root is not given"
    elif not root.is_dir():
        found = f"{root} is not a folder"
    else:
        held = [p.name for p in _subfolders(root)]
        more = ", ..." if len(held) > 8 else ""
        found = f"{root} holds {', '.join(held[:8]) + more if held else 'no folders'}"
    name = missing[0].replace(" ", "_")
    return "\n".join(
        (
            f"{dataset}: {' and '.join(missing)} not found: {found}.",
            f"Each domain must be one of these in {root or '--root'} or in a folder of it:",
            f"  {name}/images/<category>/*.jpg     as in the original archive of Office-31",
            f"  {name}/<category>/*.jpg            one folder per category",
            f"  image_list/{name}.txt, list/{name}List.txt     lines of 'path label'",
            f"The domains are {', '.join(part.name for part in benchmark.domains.values())}, "
            f"with {benchmark.categories} categories.",
            f"Published by {benchmark.reference}",
            f"Download links: {_GUIDE}",
            "Without data, this shows the method in a minute: python examples/train_digits.py",
        )
    )


def load_image(path: Path) -> Image.Image:
    """Read an image as upright RGB, 8 bits, whatever its file holds.

    EXIF rotation is applied, transparency is put on white, 16-bit grey is scaled to 8 bits.

    Raises:
        DataError: If the file cannot be decoded to its end; names the path.
    """
    try:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                grey = np.asarray(image, np.float32)
                if image.mode == "F" or grey.min() < 0 or grey.max() > 65535:
                    raise ValueError(f"pixels of mode {image.mode}: save it with 8 or 16 bits")
                return Image.fromarray((grey / 257).round().astype(np.uint8)).convert("RGB")
            if image.has_transparency_data:
                white = Image.new("RGBA", image.size, "white")
                return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
            return image.convert("RGB")
    except Exception as error:  # a broken file makes decoders raise nearly anything
        raise DataError(f"cannot read the image {path}: {error}") from None


def resized(path: Path) -> Tensor:
    """Read an image, shorter side to 256: uint8 ``(3, H, W)``; :class:`DataError` names the path.

    256 and 224 stand for :data:`RESIZE` and :data:`CROP` in this module.
    """
    image = v2.functional.resize(load_image(path), [RESIZE], antialias=True)
    return v2.functional.pil_to_tensor(image).contiguous()  # so that crops are quick to copy


def resized_bytes(path: Path) -> int:
    """Return the size of what :func:`resized` gives, by the file's header; 0 if it has none."""
    try:
        with Image.open(path) as image:
            shorter, longer = sorted(image.size)
    except Exception:  # reading it names the fault
        return 0
    return 3 * RESIZE * int(RESIZE * longer / shorter)


class Images(Dataset):
    """Crops by (index, seed), without labels: the seed alone fixes crop and flip, in any worker.

    Args:
        paths: Image files.
        cache: Their :func:`resized` images; those that are not there are read.

    Returns:
        ``(crop, flip, index)``: uint8 ``(3, 224, 224)`` from a random place, and whether to flip
        it; the centre, not to be flipped, for the seed ``None``.
    """

    def __init__(self, paths: list[Path], cache: dict[Path, Tensor]) -> None:
        self.paths, self.cache = paths, cache

    def __getitem__(self, key: tuple[int, int | None]) -> tuple[Tensor, bool, int]:
        """Return ``(crop, flip, index)``; :class:`DataError` names a file that cannot be read."""
        index, seed = key
        image = self.cache.get(self.paths[index])
        if image is None:
            image = resized(self.paths[index])
        if seed is None:
            return v2.functional.center_crop(image, [CROP]), False, index
        # A seed is uniform in [0, 2^62), so its remainders are, to within 2^-40, and independent.
        seed, flip = divmod(seed, 2)
        seed, top = divmod(seed, image.shape[1] - CROP + 1)
        left = seed % (image.shape[2] - CROP + 1)
        return image[:, top : top + CROP, left : left + CROP], flip == 1, index


class _Loader(DataLoader):
    def __iter__(self) -> Iterator[Any]:
        # Stopped while it starts its workers, torch's iterator leaves a traceback behind.
        with distributed.uninterrupted():
            return super().__iter__()


def loader(images: Images, device: torch.device, workers: int, **batches: Any) -> DataLoader:
    """Return a loader of batches for a device; cached images need no processes that read."""
    workers = 0 if images.cache else workers
    there = any(image.is_cuda for image in images.cache.values())
    return _Loader(
        images,
        **batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda" and not there,
        generator=torch.Generator(),
        worker_init_fn=distributed.leave_group,
    )


class Normalize(nn.Module):
    """uint8 images of 0 to 255, to float32 of ``mean`` 0 and ``std`` 1, which are of [0, 1]."""

    def __init__(self, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> None:
        super().__init__()
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
        # On the device, so that a batch does not wait for them.
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(
        self, images: Tensor, memory_format: torch.memory_format = torch.contiguous_format
    ) -> Tensor:
        """Return images ``(N, 3, H, W)``, or one without N, in a memory format."""
        images = images.to(torch.float32, memory_format=memory_format)
        return images.mul_(self.scale).add_(self.shift)


def eval_transform(
    resize: int = RESIZE, crop: int = CROP, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> Callable[[Image.Image], Tensor]:
    """Shorter side to 256, centre 224 crop, normalised: float32 ``(3, 224, 224)``.

    The arguments are a saved model's preprocessing.
    """
    return v2.Compose(
        [
            v2.Resize(resize, antialias=True),
            v2.CenterCrop(crop),
            v2.PILToTensor(),
            Normalize(mean, std),
        ]
    )


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
    looks = read_all(paths, mode, "reading")

    categories = dict.fromkeys(name for task in tasks for name in task.categories)
    table = [
        ["category", *domains],
        *([name, *(str(count[name] or "-") for count in counts.values())] for name in categories),
        ["all", *(str(len(domain.paths)) for domain in domains.values())],
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for name, *cells in table:
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print(name.ljust(widths[0]), *numbers, sep="  ")

    faults = [look for look in looks if isinstance(look, DataError)]
    modes = Counter(look for look in looks if look != "RGB" and look not in faults)
    converted = ", ".join(f"{count} {mode}" for mode, count in modes.items())
    print(f"{len(paths) - len(faults):,} of {len(paths):,} images can be read", end="")
    print(f"; converted to RGB: {converted}" if converted else "")
    for fault in faults:
        print(fault)
    return not faults


def read_all(paths: list[Path], read: Callable[[Path], T], what: str) -> list[T | DataError]:
    """Return ``read`` of each path, or why it cannot be read, by threads and with a bar."""

    def attempt(path: Path) -> T | DataError:
        try:
            return read(path)
        except DataError as error:
            return error

    with ThreadPoolExecutor() as pool:
        found = pool.map(attempt, paths)
        hide = True if distributed.rank() else None  # without a terminal there is no bar
        return list(tqdm(found, what, len(paths), unit=" images", leave=False, disable=hide))


def mode(path: Path) -> str:
    """Decode an image and return its file's colour mode."""
    load_image(path)
    with Image.open(path) as image:
        return image.mode
