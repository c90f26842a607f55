"""Which files are images that Pillow can open here, whatever their suffix."""

import functools
from pathlib import Path

from PIL import EpsImagePlugin, Image, ImageFile

try:
    import pillow_heif
except ImportError:
    HEIF = False
else:
    pillow_heif.register_heif_opener()
    HEIF = True

RAW = "a camera's raw file: convert it"
NO_AVIF = "AVIF needs Pillow 11.3 or newer"
NO_HEIF = "HEIC needs pillow-heif: pip install pillow-heif"
_HEIF_ENDINGS = (".heic", ".heif", ".heics", ".heifs", ".hif")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_RAW_ENDINGS = (".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mrw")
_RAW_ENDINGS += (".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srw", ".x3f")
_USUAL = ("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF")
_USUAL += ("WEBP",)


def why_not(path: Path) -> str | None:
    """Return why a file does not count as an image, or ``None`` if it does.

    A common image suffix is trusted, so that a broken image is reported when read; other files are
    opened.
    """
    ending = path.suffix.lower()
    if path.is_symlink() and not path.exists():
        return None if ending in _believed() else "a link to nothing"
    if not path.is_file():  # opening a pipe would wait forever
        return "not a regular file"
    if ending in _HEIF_ENDINGS and not HEIF:
        return NO_HEIF
    if ending in _RAW_ENDINGS:  # Pillow would open the small preview inside
        return RAW
    if ending == ".avif" and ending not in _believed():
        return NO_AVIF
    return None if ending in _believed() else _looked_at(path)


def is_image(path: Path) -> bool:
    """Whether a file is an image, readable here or not."""
    return why_not(path) in (None, NO_HEIF, NO_AVIF, RAW)


def holds_image(path: Path) -> bool:
    """Whether a file's content is an image, whatever its name."""
    return path.is_file() and _looked_at(path) in (None, NO_HEIF)


def is_heif(path: Path) -> bool:
    """Whether a file is a HEIC image, by its beginning."""
    with open(path, "rb") as file:
        start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS


@functools.cache
def _believed() -> frozenset[str]:
    """The suffixes that only images use."""
    Image.init()
    endings = Image.registered_extensions().items()
    return frozenset(ending for ending, name in endings if name in _USUAL)


@functools.cache
def _formats(ending: str) -> list[str]:
    """Formats recognised by their first bytes, and the suffix's own format."""
    Image.init()
    own = Image.registered_extensions().get(ending)
    return [
        name
        for name, (factory, accept) in Image.OPEN.items()
        if (accept or name == own) and name != "MPEG" and not _is_stub(factory)
    ]


def _is_stub(factory: object) -> bool:
    return isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)


def _looked_at(path: Path) -> str | None:
    status = path.stat()
    return _opened(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _opened(path: Path, size: int, changed: int) -> str | None:
    """Why an image cannot be opened, cached until the file changes, since tasks share domains."""
    if not size:
        return "an empty file"
    try:
        if is_heif(path) and not HEIF:
            return NO_HEIF
        with Image.open(path, formats=_formats(path.suffix.lower())) as image:
            if image.format == "EPS" and not EpsImagePlugin.has_ghostscript():
                return "EPS needs Ghostscript"
            return None
    except Exception as error:  # text that begins like an image makes plugins raise nearly anything
        told = getattr(error, "strerror", None)  # the system's, such as missing permissions
        return f"cannot be opened: {told}" if told else "not an image that Pillow can open"
