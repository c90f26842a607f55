"""From an image's path to a batch: reading, resizing, caching, cropping."""

import io
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from tqdm import tqdm

from office import distributed
from office.console import UserError, visible
from office.data import folders, memory

T = TypeVar("T")
Transform: TypeAlias = Callable[[Image.Image], Tensor]
NARROWEST = 100  # narrower images take too much memory when resized


@dataclass(frozen=True)
class Preprocessing:
    """From an image to the network's input; the defaults are the paper's, for ImageNet weights.

    Args:
        resize: Pixels of the shorter side after resizing.
        crop: Pixels of a side of the square that the network sees.
        mean: Mean of red, green and blue in [0, 1], which becomes 0.
        std: Their standard deviation, which becomes 1.
        interpolation: Torchvision's name for the interpolation.
        squash: Whether the longer side is resized to the same number of pixels.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    squash: bool = False


def load_image(path: Path) -> Image.Image:
    """Read an image as upright 8-bit RGB, whatever its format; if there are several, the first.

    EXIF rotation is applied, unless the EXIF block is broken, and transparency is put on white.
    Grey of more than 8 bits is scaled to 0..255: floats in [0, 1] are multiplied by 255, integers
    divided by the largest value of the smallest depth (8, 10, 12, 14 or 16 bits) that fits them.

    Raises:
        UserError: If the file cannot be fully decoded; names the path.
    """
    try:
        with _open(path) as image:
            if max(image.size) > NARROWEST * min(image.size):
                side = f"{NARROWEST} times as long as wide"
                raise ValueError(f"{image.width} x {image.height} pixels, more than {side}")
            deep = re.search(
                ";16[BLN]", str(image.tile)
            )  # of colours, Pillow keeps only the high bytes
            image.load()
            turn = _TURNS.get(_orientation(image))
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                image = Image.fromarray(_eight_bits(np.asarray(image)))
            elif deep and _highest(image) < 64:
                raise ValueError(
                    "16 bits per colour, but the high ones unused: save it with 8 bits"
                )
            elif image.has_transparency_data:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA"))
            image = image.convert("RGB")
            return image.transpose(turn) if turn is not None else image
    except Exception as error:  # a broken file makes decoders raise nearly anything
        raise UserError(f"cannot read the image {visible(path)}: {error}") from None


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _open(path: Path) -> Image.Image:
    if path.exists() and not path.is_file():  # opening a pipe would wait forever
        raise ValueError("not a regular file")
    try:
        image = Image.open(path)
        image.filename = (
            ""  # or Pillow maps the file into memory, and a rotated TIFF comes out garbled
        )
        return image
    except Image.UnidentifiedImageError:
        if folders.is_heif(path) and not folders.HEIF:
            raise ValueError(folders.NO_HEIF) from None
        content = path.read_bytes()
        if b"eXIf" not in content:
            raise
        return Image.open(io.BytesIO(_without_exif(content)))


def _without_exif(png: bytes) -> bytes:
    """Drop the EXIF chunks, because Pillow opens no PNG in which one has a wrong checksum."""
    parts, start = [png[:8]], 8
    while start < len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")
        if png[start + 4 : start + 8] != b"eXIf":
            parts.append(png[start:end])
        start = end
    return b"".join(parts)


def _orientation(image: Image.Image) -> Any:
    """Return a loaded image's EXIF orientation, or 1 (upright) if its EXIF block is broken."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the pixels are fine
        return 1


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    """Scale grey of more than 8 bits to 0..255, as :func:`load_image` describes."""
    low, high = grey.min(), grey.max()
    if grey.dtype.kind == "f":
        if not (low >= 0 and high <= 1):
            raise ValueError(f"floats from {low:g} to {high:g}: save it with values in [0, 1]")
        top = 1
    else:
        if low < 0 or high > 65535:
            raise ValueError(f"values from {low} to {high}: save it with 8 or 16 bits")
        top = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if high < 2**bits)
    return (grey.astype(np.float64) * 255 / top).round().astype(np.uint8)


def _highest(image: Image.Image) -> int:
    """The highest value of a colour."""
    bands = zip(image.getbands(), image.split(), strict=True)
    return max(band.getextrema()[1] for name, band in bands if name != "A")


class Look(NamedTuple):
    """A file's colour mode and number of pictures."""

    mode: str
    frames: int


def look(path: Path) -> Look:
    """Decode an image; :class:`UserError` names an unreadable file."""
    load_image(path)
    with _open(path) as image:
        # Phones store a preview or a depth map after the picture of an MPO.
        return Look(image.mode, 1 if image.format == "MPO" else getattr(image, "n_frames", 1))


def _resize(preprocessing: Preprocessing) -> v2.Resize:
    sides = [preprocessing.resize] * (2 if preprocessing.squash else 1)
    return v2.Resize(sides, v2.InterpolationMode(preprocessing.interpolation), antialias=True)


def resized(path: Path, preprocessing: Preprocessing) -> Tensor:
    """Read an image and resize it: uint8 ``(3, H, W)``; :class:`UserError` names the path."""
    image = _resize(preprocessing)(load_image(path))
    return v2.functional.pil_to_tensor(image).contiguous()  # so that crops copy quickly


def read_all(paths: list[Path], read: Callable[[Path], T], what: str) -> list[T | UserError]:
    """Call ``read`` on each path, in threads with a progress bar; return results or errors."""

    def attempt(path: Path) -> T | UserError:
        try:
            return read(path)
        except UserError as error:
            return error

    with ThreadPoolExecutor() as pool:
        found = pool.map(attempt, paths)
        hide = True if distributed.rank() else None  # None hides it without a terminal
        return list(tqdm(found, what, len(paths), unit=" images", leave=False, disable=hide))


def fill(
    place: str, paths: Iterable[Path], preprocessing: Preprocessing, device: torch.device
) -> dict[Path, Tensor]:
    """Decode every image, which also finds unreadable ones, and keep it for all runs.

    Args:
        place: Where to keep the images: "ram", "device", or "off" for nowhere.
        paths: Images that will be used, possibly repeated.
        preprocessing: Gives the size at which they are kept.
        device: Device of the training.

    Returns:
        Images from :func:`resized`, by path. Empty if off, or, with a warning, if they would take
        more than half of the free memory.

    Raises:
        UserError: In the first process, with one line per unreadable image.
    """
    paths = [*dict.fromkeys(paths)]
    where = device if place == "device" else torch.device("cpu")
    keep = place != "off" and distributed.from_first(_fits(paths, preprocessing, where))
    if distributed.rank() and not keep:
        return {}
    read = (lambda path: resized(path, preprocessing).to(where)) if keep else look
    found = read_all(paths, read, "decoding")
    faults = [str(image) for image in found if isinstance(image, UserError)]
    if faults and not distributed.rank():
        raise UserError("\n".join(faults))
    pairs = zip(paths, found, strict=True)
    return {path: image for path, image in pairs if isinstance(image, Tensor)}


def _fits(paths: list[Path], preprocessing: Preprocessing, where: torch.device) -> bool:
    """Whether every process can keep the images; the first prints their size."""
    if distributed.rank() or not paths:
        return False
    # Each GPU belongs to one process; all processes of a machine share its RAM.
    copies = 1 if where.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    sizes = read_all(paths, lambda path: _resized_bytes(path, preprocessing), "measuring")
    needed, free = copies * sum(sizes), memory.free_memory(where)
    size = tqdm.format_sizeof(needed, "B") + (f" in {copies} processes" if copies > 1 else "")
    name = where if where.type == "cuda" else "memory"
    if needed > free / 2:
        warnings.warn(
            f"images in {name} would take {size}, more than half of the "
            f"{tqdm.format_sizeof(free, 'B')} that are free: continuing with --cache off",
            stacklevel=3,
        )
        return False
    print(f"images in {name}: {size}", flush=True)
    return True


def _resized_bytes(path: Path, preprocessing: Preprocessing) -> int:
    """Return the bytes of :func:`resized`'s result, from the file's header; 0 if unreadable."""
    try:
        with Image.open(path) as image:
            ratio = 1 if preprocessing.squash else max(image.size) / min(image.size)
            return 3 * preprocessing.resize * int(preprocessing.resize * ratio)
    except Exception:  # reading it reports the error
        return 0


class Images(Dataset):
    """Crops by (index, seed), without labels: only the seed sets crop and flip, in any worker.

    Args:
        paths: Image files.
        preprocessing: The sizes of images and crops.
        cache: What :func:`fill` returned; other images are read.

    Returns:
        ``(crop, flip, index)``: a random uint8 crop ``(3, crop, crop)`` and whether to flip it;
        for the seed ``None``, the centre crop, not flipped.
    """

    def __init__(
        self, paths: list[Path], preprocessing: Preprocessing, cache: dict[Path, Tensor]
    ) -> None:
        self.paths, self.preprocessing, self.cache = paths, preprocessing, cache

    def __getitem__(self, key: tuple[int, int | None]) -> tuple[Tensor, bool, int]:
        """Return ``(crop, flip, index)``; :class:`UserError` names an unreadable file."""
        index, seed = key
        image = self.cache.get(self.paths[index])
        if image is None:
            image = resized(self.paths[index], self.preprocessing)
        side = self.preprocessing.crop
        if seed is None:
            return v2.functional.center_crop(image, [side]), False, index
        generator = torch.Generator().manual_seed(seed)
        top, left = (
            torch.randint(length - side + 1, (), generator=generator).item()
            for length in image.shape[1:]
        )
        flip = torch.rand((), generator=generator).item() < 0.5
        return image[:, top : top + side, left : left + side], flip, index


class _Loader(DataLoader):
    def __iter__(self) -> Iterator[Any]:
        # Interrupted while starting its workers, torch's iterator would print a traceback.
        with distributed.uninterrupted():
            return super().__iter__()


def loader(images: Images, device: torch.device, workers: int, **batches: Any) -> DataLoader:
    """Return a loader of batches for a device; cached images need no worker processes."""
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
    """Turn uint8 images, 0 to 255, into float32 with mean 0 and standard deviation 1."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        mean, std = (
            torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std)
        )
        # On the device, so that batches do not wait for them.
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(
        self, images: Tensor, memory_format: torch.memory_format = torch.contiguous_format
    ) -> Tensor:
        """Return images ``(N, 3, H, W)``, or a single ``(3, H, W)``, in a memory format."""
        images = images.to(torch.float32, memory_format=memory_format)
        return images.mul_(self.scale).add_(self.shift)


def eval_transform(preprocessing: Preprocessing) -> Transform:
    """Return a transform to a resized, centre-cropped, normalised float32 ``(3, crop, crop)``."""
    return v2.Compose(
        [
            _resize(preprocessing),
            v2.CenterCrop(preprocessing.crop),
            v2.PILToTensor(),
            Normalize(preprocessing),
        ]
    )
