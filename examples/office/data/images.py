"""From an image's path to pixels: reading any format, resizing, decoding all images once."""

import math
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO, Any, TextIO, TypeVar

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps
from torch import Tensor, nn
from tqdm import tqdm

from office import distributed
from office.console import UserError, visible

try:
    import pillow_heif
except ImportError:
    pass
else:
    pillow_heif.register_heif_opener()

Image.MAX_IMAGE_PIXELS = None  # load_image has a limit of its own, and names the file
FORMATS = {"AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"}
SUFFIXES = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
T = TypeVar("T")
NARROWEST = 100  # narrower images take too much memory when resized
LARGE, LARGEST = 178_956_970, 1_000_000_000  # pixels; above, images are reduced, or refused
BITS = (8, 10, 12, 14, 16)  # depths of grey
_depths: dict[Path, int] = {}  # that find_depths found


@dataclass(frozen=True)
class Preprocessing:
    """From an image to the network's input; the defaults are the paper's, for ImageNet weights."""

    resize: int = 256  # pixels of the shorter side after resizing
    crop: int = 224  # pixels of a side of the square that the network sees
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of colours in [0, 1]; becomes 0
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)  # becomes 1
    interpolation: str = "bilinear"  # torchvision's name
    squash: bool = False  # whether the longer side is resized to the same number of pixels


def load_image(path: Path, bits: int | None = None) -> Image.Image:
    """Read an image as upright 8-bit RGB, whatever its format; of several in a file, the first.

    EXIF rotation is applied, unless the EXIF block is broken, and transparency is put on white.
    Grey of more than 8 bits is divided by the largest value of ``bits``, by default those that
    :func:`find_depths` found or the fewest that hold it. Images of more than 179 megapixels are
    reduced. :class:`UserError` names a file that cannot be fully decoded.
    """
    try:
        with _open(path) as file:
            width, height = file.size
            if max(file.size) > NARROWEST * min(file.size):
                most = f"{NARROWEST} times as long as wide"
                raise ValueError(f"{width} x {height} pixels, more than {most}")
            bits = bits or _depths.get(path)
            return _upright(file, bits) if width * height <= LARGE else _reduced(path, file, bits)
    except Exception as error:  # a broken file makes decoders raise nearly anything
        raise UserError(f"cannot read the image {visible(path)}: {error}") from None


def _open(path: Path) -> ImageFile.ImageFile:
    if path.exists() and not path.is_file():  # opening a pipe would wait forever
        raise ValueError("not a regular file")
    image = Image.open(path)
    # With a name, Pillow maps the file into memory, and a rotated TIFF comes out garbled.
    image.filename = ""
    return image


def _reduced(path: Path, file: ImageFile.ImageFile, bits: int | None) -> Image.Image:
    """Decode a large image, one at a time, and reduce it."""
    width, height = file.size
    size = f"{width:,} x {height:,} pixels"
    if width * height > LARGEST:
        raise ValueError(f"{size}, more than {LARGEST // 10**6:,} megapixels: save a smaller copy")
    side = math.ceil(math.sqrt(width * height / LARGE))
    warnings.warn(
        f"{visible(path)}: {size}, reduced to 1/{side} of each side; reading it takes time and "
        "memory, so save a smaller copy",
        stacklevel=3,
    )
    with _ONE_AT_A_TIME:
        file.draft(file.mode, (width // side, height // side))  # JPEG's can reduce by 2^n
        image = _upright(file, bits)
        return image.reduce(math.ceil(math.sqrt(image.width * image.height / LARGE)))


def _upright(file: ImageFile.ImageFile, bits: int | None) -> Image.Image:
    """Decode an opened image, as :func:`load_image` describes."""
    # Of 16 bits per colour, Pillow keeps only the high ones.
    deep = re.search(";16[BLN]", str(file.tile))
    file.load()
    image: Image.Image = file
    with suppress(Exception):  # a broken EXIF block; the pixels are fine
        image = ImageOps.exif_transpose(file)
    if image.mode == "F":
        raise ValueError("its pixels are floats: save it with 8 or 16 bits")
    if _is_deep_grey(image):
        grey = np.asarray(image)
        low, high, most = grey.min(), grey.max(), bits or BITS[-1]
        if low < 0 or high >= 2**most:
            raise ValueError(f"its values, {low} to {high}, do not fit into {most} bits")
        top = 2 ** (bits or _fewest_bits(high)) - 1
        image = Image.fromarray((grey.astype(np.float64) * 255 / top).round().astype(np.uint8))
    elif deep and np.asarray(image.convert("RGB")).max() < 64:
        raise ValueError("16 bits per colour, the high ones unused: save it with 8 bits")
    elif image.mode == "RGBA" and _EXTRA not in getattr(file, "tag_v2", [_EXTRA]):
        # Nothing says that the fourth band is transparency: it may be near infrared.
        image = Image.merge("RGB", image.split()[:3])
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


_ONE_AT_A_TIME = threading.Lock()
_EXTRA = 338  # TIFF's tag ExtraSamples
_EIGHT_BITS = (".bmp", ".gif", ".jpeg", ".jpg", ".webp")  # per colour, at most


def find_depths(domains: Mapping[str, Sequence[Path]], file: TextIO | None = None) -> None:
    """Find the bit depth of a domain's grey images of more than 8 bits, for :func:`load_image`.

    It is the smallest of 8, 10, 12, 14 and 16 bits that holds the domain's largest value, and is
    printed: files do not state it, and a guess for each would make darker images brighter.
    """

    def find() -> dict[Path, int]:
        depths: dict[Path, int] = {}
        for name, paths in domains.items():
            # The others are not opened: reading each image at most twice starts a run fast.
            may_be_deep = [path for path in paths if path.suffix.lower() not in _EIGHT_BITS]
            tops = dict(
                zip(may_be_deep, in_threads(_top_of_grey, may_be_deep, "looking"), strict=True)
            )
            if deep := {path: top for path, top in tops.items() if top is not None}:
                top = max(deep.values())
                bits, images = _fewest_bits(top), "image" if len(deep) == 1 else "images"
                about = f"{len(deep):,} {images} read as {bits}-bit grey (largest value {top:,})"
                print(f"{visible(name)}: {about}", file=file or sys.stdout, flush=True)
                # In partial adaptation, a domain may be a source in full and a target in part.
                depths |= {path: max(bits, depths.get(path, 0)) for path in deep}
        return depths

    _depths.update(distributed.in_first(find))


def _top_of_grey(path: Path) -> int | None:
    """Return the largest value of grey of more than 8 bits; None for other and unreadable files."""
    with suppress(Exception), _open(path) as image:  # reading it later says what is wrong with it
        if _is_deep_grey(image):
            top = int(np.asarray(image).max())
            return top if 0 <= top < 2 ** BITS[-1] else None
    return None


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode.startswith("I")


def _fewest_bits(top: int) -> int:
    return next(bits for bits in BITS if top < 2**bits)


def _resize(preprocessing: Preprocessing) -> Callable[[Image.Image], Image.Image]:
    from torchvision.transforms import v2

    sides = [preprocessing.resize] * (2 if preprocessing.squash else 1)
    mode = v2.InterpolationMode(preprocessing.interpolation)
    resize: Callable[[Image.Image], Image.Image] = v2.Resize(sides, mode, antialias=True)
    return resize


def resized(path: Path, preprocessing: Preprocessing) -> Tensor:
    """Read an image and resize it: uint8 ``(3, H, W)``; :class:`UserError` names the path."""
    image = _resize(preprocessing)(load_image(path))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return pixels.contiguous()  # so that crops copy quickly


def in_threads(call: Callable[[Path], T], paths: list[Path], what: str) -> list[T]:
    """Call a function on each path, with a progress bar in the first process."""
    hide = True if distributed.rank() else None  # None hides it without a terminal
    with ThreadPoolExecutor() as pool:
        results = pool.map(call, paths)
        return list(tqdm(results, what, len(paths), unit=" images", leave=False, disable=hide))


def read_all(paths: list[Path], read: Callable[[Path], T], what: str) -> tuple[list[T], list[str]]:
    """Read images in threads; return the results, and a line for each unreadable image."""

    def attempt(path: Path) -> T | UserError:
        try:
            return read(path)
        except UserError as error:
            return error

    results = in_threads(attempt, paths, what)
    faults = [str(result) for result in results if isinstance(result, UserError)]
    return [result for result in results if not isinstance(result, UserError)], faults


def decode(
    cache: str,
    paths: Iterable[Path],
    preprocessing: Preprocessing,
    device: torch.device,
    folder: Path,
) -> dict[Path, Tensor]:
    """Decode every image once, which also finds unreadable ones, and keep it for all runs.

    The first process of each machine decodes into a file that all its processes map into memory.

    The file lies in ``folder`` and disappears with the processes that use it. With the ``cache``
    "device" its content is moved there; with "off" nothing is kept, and nothing returned.
    """
    paths = [*dict.fromkeys(paths)]
    if cache == "off" or not paths:
        distributed.in_first(lambda: _decode(paths, lambda p: load_image(p).size), of_machine=True)
        return {}
    # Nothing is left of a file without a name, even if the process is killed.
    alone = distributed.processes() == 1
    temporary: Callable[..., Any] = TemporaryFile if alone else NamedTemporaryFile
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary(dir=folder, prefix=".decoded-") as file:  # of the others, it stays empty
            source, places = distributed.in_first(
                lambda: (file if alone else file.name, _write(file, paths, preprocessing)),
                of_machine=True,
            )
            pixels = torch.from_numpy(np.memmap(source, np.uint8, "r+"))
            distributed.gather(None)  # the name is needed until all processes have mapped the file
    except OSError as error:
        raise UserError(
            f"cannot keep the decoded images in {folder}: {error.strerror or error}; free some "
            "space, choose another --out or use --cache off"
        ) from None
    if cache == "device":
        pixels = pixels.to(device)
    if distributed.rank() == 0:
        where = device if pixels.is_cuda else "memory"
        print(f"images in {where}: {tqdm.format_sizeof(pixels.nbytes, 'B')}", flush=True)
    return {
        path: pixels[start : start + shape.numel()].view(shape)
        for path, (start, shape) in zip(paths, places, strict=True)
    }


def _write(
    file: IO[bytes], paths: list[Path], preprocessing: Preprocessing
) -> list[tuple[int, torch.Size]]:
    """Write every image to a file; return where each one starts, and its shape."""
    lock = threading.Lock()

    def write(path: Path) -> tuple[int, torch.Size]:
        image = resized(path, preprocessing)
        with lock:  # a slow disk delays the decoding, so that images do not pile up in memory
            start = file.tell()
            file.write(image.numpy().data)
        return start, image.shape

    places = _decode(paths, write)
    file.flush()
    return places


def _decode(paths: list[Path], read: Callable[[Path], T]) -> list[T]:
    results, faults = read_all(paths, read, "decoding")
    if faults:
        raise UserError("\n".join(faults))
    return results


class Normalize(nn.Module):
    """Turn uint8 images, 0 to 255, into float32 with mean 0 and standard deviation 1."""

    scale: Tensor
    shift: Tensor

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


def eval_transform(preprocessing: Preprocessing) -> Callable[[Image.Image], Tensor]:
    """Return a transform to a resized, centre-cropped, normalised float32 ``(3, crop, crop)``."""
    from torchvision.transforms import v2

    crop = [_resize(preprocessing), v2.CenterCrop(preprocessing.crop), v2.PILToTensor()]
    transform: Callable[[Image.Image], Tensor] = v2.Compose([*crop, Normalize(preprocessing)])
    return transform
