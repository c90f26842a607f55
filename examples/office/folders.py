"""What is in a folder: its images, its folders, and what is neither or left out."""

import os
from pathlib import Path

from PIL import Image

try:
    import pillow_heif
except ImportError:
    HEIC = "pip install pillow-heif to read it"
else:
    pillow_heif.register_heif_opener()
    HEIC = ""

STUBS = {"BUFR", "GRIB", "HDF5", "MPEG"}  # which Pillow names, but cannot decode
# What systems leave behind, in lower case; so is whatever begins with a dot.
LEFTOVERS = {
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "@eadir",
    "#recycle",
    "@recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "__macosx",
    "__pycache__",
}


def is_leftover(path: Path) -> bool:
    """Whether a system left it behind, by its name."""
    return path.name.startswith(".") or path.name.lower() in LEFTOVERS


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, without what systems leave behind and without "_..."."""
    return sorted(
        p for p in folder.iterdir() if p.is_dir() and not is_leftover(p) and p.name[0] != "_"
    )


def is_image(path: Path) -> bool:
    """Whether Pillow can open a file, by its name's ending if that tells, else by its header."""
    if path.is_dir() or is_leftover(path):
        return False
    formats = Image.registered_extensions()  # of reading and of writing
    if formats.get(path.suffix.lower()) in Image.OPEN.keys() - STUBS:
        # A broken link counts, so that reading it names it; a pipe would never end.
        return path.is_file() or path.is_symlink()
    return opens(path)


def opens(path: Path) -> bool:
    """Whether Pillow takes a file's header for that of an image."""
    if not path.is_file():
        return False
    try:
        with Image.open(path):
            return True
    except Exception:  # decoders raise nearly anything
        return False


def image_files(folder: Path) -> list[Path]:
    """Return the images in a folder itself, whatever their names end in."""
    return sorted(path for path in folder.iterdir() if is_image(path))


def left_out(folder: Path) -> list[Path]:
    """Return what :func:`image_files` of a folder passes over, the images below it among that.

    What systems leave behind is there only if it is an image.
    """
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            found += images_below(path)
        elif is_leftover(path):
            found += [path] if opens(path) else []
        elif not is_image(path):
            found.append(path)
    return found


def images_below(folder: Path) -> list[Path]:
    """Return the images in a folder and in all folders below it, links to folders left aside."""
    files = [Path(base, name) for base, _, names in os.walk(folder) for name in names]
    return sorted(path for path in files if is_image(path) or opens(path))


def why(path: Path) -> str:
    """Return what can be done about a file that is left out, in brackets, or nothing."""
    if HEIC and path.suffix.lower() in (".heic", ".heif", ".hif"):
        return f" ({HEIC})"
    return ""
