"""What a folder contains: images that Pillow can open here, folders, and files that are skipped."""

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import EpsImagePlugin, Image, ImageFile

from office.console import visible

try:
    import pillow_heif
except ImportError:
    HEIF = False
else:
    pillow_heif.register_heif_opener()
    HEIF = True

Image.MAX_IMAGE_PIXELS = None  # images.load_image has a limit of its own, and names the file

RAW = "a camera's raw file: convert it"
ARCHIVE = "an archive: unpack it first"
CLOSED = "a folder that cannot be opened"
NO_AVIF = "AVIF needs Pillow 11.3 or newer"
NO_HEIF = "HEIC needs pillow-heif: pip install pillow-heif"
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_HEIF_SUFFIX = re.compile(r"\.(hei[cf]s?|hif)")
_RAW_SUFFIX = re.compile(
    r"\.(3fr|arw|cr2|cr3|crw|dng|erf|iiq|kdc|mrw|nef|nrw|orf|pef|raf|raw|rw2|sr2|srw|x3f)"
)
_ARCHIVE_NAME = re.compile(
    r".*\.(7z|rar|tar|tgz|zip|tar\.(bz2|gz|xz|zst))", re.IGNORECASE | re.DOTALL
)
_USUAL_FORMAT = re.compile("AVIF|BMP|DIB|GIF|HEIF|JPEG|JPEG2000|MPO|PNG|PPM|TIFF|WEBP")
# Left behind by operating systems and network drives.
_SYSTEM_FILE = re.compile(
    r"(\.|~\$).*|.*(:zone\.identifier|@synoeastream|@synoresource)|autorun\.inf|desktop\.ini"
    r"|ehthumbs(_vista)?\.db|icon\r|picasa\.ini|sync\.ffs_db|thumbs\.db|zbthumbnail\.info",
    re.IGNORECASE | re.DOTALL,
)
_SYSTEM_FOLDER = re.compile(
    r"#recycle|#snapshot|\$recycle\.bin|@(__thumb|eadir|recently-snapshot|recycle|tmp)|__macosx"
    r"|__pycache__|cvs|found\.000|lost\+found|network trash folder|recycler"
    r"|system volume information|temporary items",
    re.IGNORECASE,
)


class Skipped(NamedTuple):
    """A skipped file, the reason, and the category whose folder it is in."""

    path: Path
    why: str
    category: str | None = None


class Contents(NamedTuple):
    """A folder's own content; ``folders`` are those that may be categories or domains."""

    images: list[Path]
    folders: list[Path]
    skipped: list[Skipped]


def look(folder: Path) -> Contents:
    """Sort the content of a folder, without its subfolders' content.

    Files left behind by operating systems are skipped, and reported only if they are images.
    """
    contents = Contents([], subfolders(folder), [])
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path not in contents.folders:
                contents.skipped.extend(_in_skipped_folder(path))
        elif not _SYSTEM_FILE.fullmatch(path.name):
            if why := why_not(path):
                contents.skipped.append(Skipped(path, why))
            else:
                contents.images.append(path)
        elif path.name.endswith(".icloud"):
            contents.skipped.append(Skipped(path, "not downloaded from iCloud"))
        elif _holds_image(path):
            contents.skipped.append(Skipped(path, "a hidden file"))
    return contents


def look_below(folder: Path) -> Contents:
    """Sort the content of a folder at any depth; the result has no ``folders``.

    A folder that cannot be opened is skipped.
    """
    below, left, seen = Contents([], [], []), [folder], set[Path]()
    while left:
        current = left.pop(0)
        if current.resolve() not in seen:  # as a link to one of its parents would be
            seen.add(current.resolve())
            try:
                contents = look(current)
            except OSError as error:
                why = f"{CLOSED}: {error.strerror or error}"
                contents = Contents([], [], [Skipped(current, why)])
            below.images.extend(contents.images)
            below.skipped.extend(contents.skipped)
            left += contents.folders
    return below


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, without hidden and system ones."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not _is_skipped(p.name))


def skip_all(folder: Path, why: str, category: str | None = None) -> list[Skipped]:
    """Return all files in a folder, at any depth, as skipped.

    Files left behind by operating systems are included only if they are images.
    """
    walk = ((Path(base), names) for base, _, names in os.walk(folder))
    return [
        Skipped(path, why, category)
        for path in sorted(base / name for base, names in walk for name in names)
        if not _SYSTEM_FILE.fullmatch(path.name) or _holds_image(path)
    ]


def no_folder(path: Path) -> str:
    """Say why a path is not a folder."""
    if is_archive(path):
        return f"{visible(path)} is {ARCHIVE}"
    if path.exists():
        return f"{visible(path)} is a file, not a folder"
    return f"no such folder: {visible(path)}"


def is_archive(path: Path) -> bool:
    """Whether a file is an archive, by its name."""
    return path.is_file() and bool(_ARCHIVE_NAME.fullmatch(path.name))


def summary(domain: str, skipped: Sequence[Skipped]) -> str:
    """Say in one line how many files of a domain are skipped, the first ones, and why."""
    return f"{visible(domain)}: {len(skipped):,} skipped: {reasons(skipped)}"


def reasons(skipped: Sequence[Skipped]) -> str:
    """Return the first skipped files for each reason."""
    by_reason: dict[str, list[str]] = {}
    for item in skipped:
        by_reason.setdefault(item.why, []).append(visible(item.path.name))
    parts = []
    for why, names in by_reason.items():
        more = [f"{len(names) - 3:,} more"] * (len(names) > 3)
        parts.append(f"{', '.join(names[:3] + more)} ({why})")
    return "; ".join(parts)


def why_not(path: Path) -> str | None:
    """Return why a file does not count as an image, or ``None`` if it does.

    A common image suffix is trusted, so that a broken image is reported when read; other files are
    opened.
    """
    suffix = path.suffix.lower()
    trusted = suffix in _trusted_suffixes()
    if path.is_symlink() and not path.exists():
        return None if trusted else "a link to nothing"
    if not path.is_file():  # opening a pipe would wait forever
        return "not a regular file"
    if is_archive(path):
        return ARCHIVE
    if not HEIF and _HEIF_SUFFIX.fullmatch(suffix):
        return NO_HEIF
    if _RAW_SUFFIX.fullmatch(suffix):  # Pillow would open the small preview inside
        return RAW
    if suffix == ".avif" and not trusted:
        return NO_AVIF
    return None if trusted else _try_opening(path)


def is_image(path: Path) -> bool:
    """Whether a file is an image, readable here or not."""
    return why_not(path) in (None, NO_HEIF, NO_AVIF, RAW)


def is_heif(path: Path) -> bool:
    """Whether a file is a HEIC image, by its beginning."""
    with open(path, "rb") as file:
        start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS


def _holds_image(path: Path) -> bool:
    """Whether a file's content is an image, whatever its name."""
    return path.is_file() and _try_opening(path) in (None, NO_HEIF)


def _is_skipped(folder: str) -> bool:
    return folder[0] in "._" or bool(_SYSTEM_FOLDER.fullmatch(folder))


def _in_skipped_folder(folder: Path) -> list[Skipped]:
    if folder.name[0] == "_" and not _SYSTEM_FOLDER.fullmatch(folder.name):
        return skip_all(folder, "in a folder whose name begins with _")
    files = skip_all(folder, "in a hidden or system folder")
    return [item for item in files if is_image(item.path)]


@functools.cache
def _trusted_suffixes() -> frozenset[str]:
    """Return the suffixes that only images use."""
    Image.init()
    suffixes = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in suffixes if _USUAL_FORMAT.fullmatch(name))


@functools.cache
def _formats(suffix: str) -> list[str]:
    """Return the formats recognised by their first bytes, and the suffix's own format."""
    Image.init()
    own = Image.registered_extensions().get(suffix)
    return [
        name
        for name, (factory, accept) in Image.OPEN.items()
        if (accept or name == own)
        and name != "MPEG"
        and not (isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile))
    ]


def _try_opening(path: Path) -> str | None:
    """Return why a file cannot be opened as an image, or ``None``."""
    status = path.stat()
    return _try_opening_once(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _try_opening_once(path: Path, size: int, changed: int) -> str | None:
    """Do it once until the file changes, since tasks share domains."""
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
        reason = getattr(error, "strerror", None)  # the system's, such as missing permissions
        return f"cannot be opened: {reason}" if reason else "not an image that Pillow can open"
