"""Files that are never half written: written aside, synced to disk, moved into place."""

import csv
import io
import json
import os
import re
import secrets
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from office.console import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # locks are then left out

# How files begin that are often mistaken for torch's, in lower case.
STARTS = {
    b"<!doctype html": "a web page, not the file that the link should have given",
    b"<html": "a web page, not the file that the link should have given",
    b"version https://git-lfs": "a Git LFS pointer; get the file itself with git lfs pull",
    b"\x89hdf": "an HDF5 file, as Keras writes; PyTorch weights are needed",
    b"\x93numpy": "a NumPy array; PyTorch weights are needed",
}


STDOUT = ("-", "/dev/stdout")


def write(path: Path, content: bytes) -> None:
    """Replace a file atomically: if killed at any moment, the old or the new one is there.

    Several jobs may write the same file: the last one wins.

    Raises:
        UserError: If the file cannot be written; the old one is then untouched.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    created = False
    try:
        with open(temporary, "xb") as file:  # exclusively: no link of that name is followed
            created = True
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        created = False
    except OSError as error:
        left = "the previous one is intact" if os.path.exists(path) else "there was no previous one"
        raise UserError(f"cannot write {path}: {error.strerror or error}; {left}") from None
    finally:
        if created:
            temporary.unlink(missing_ok=True)


def put(path: Path, content: bytes) -> None:
    """Write a file where the user pointed, which may be a link, a pipe, a device or ``-``.

    The file behind a link is replaced as by :func:`write`; what is no file is written plainly.

    Raises:
        UserError: If it cannot be written.
    """
    if str(path) in STDOUT:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    elif os.path.isfile(path) or not os.path.exists(path):
        write(Path(os.path.realpath(path)), content)
    else:
        try:
            path.write_bytes(content)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def check(path: Path) -> None:
    """Check that :func:`put` can write a file, before the work that fills it.

    Raises:
        UserError: If its folder is missing or not writable, or it is a folder itself.
    """
    folder = os.path.dirname(os.path.realpath(path))
    why = None
    if str(path) in STDOUT:
        return
    if os.path.isdir(path):
        why = "it is a folder"
    elif not os.path.isdir(folder):
        why = f"there is no folder {folder}"
    elif os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device
        why = None if os.access(path, os.W_OK) else "it is not writable"
    elif not os.access(folder, os.W_OK):
        why = f"the folder {folder} is not writable"
    if why:
        raise UserError(f"cannot write {path}: {why}")


def try_writing(folder: Path) -> None:
    """Write a small file into a folder, created if needed, and remove it.

    Raises:
        UserError: If the folder is not writable.
    """
    trial = folder / f".{secrets.token_hex(8)}.trial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from None
    write(trial, bytes(4096))
    trial.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for the block, after another job that holds it, if the file system can lock."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    lock = os.open(folder / ".lock", flags, 0o666)
    try:
        if fcntl:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another job, which writes to {folder}", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError:  # some network drives have no locks
                pass
        yield
    finally:
        os.close(lock)


# A spreadsheet would compute it, unless it is a number.
_FORMULA = re.compile(r"'*([=@\t\r]|[+-](?!((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|nan)$))")


def table(rows: Iterable[Iterable[object]]) -> bytes:
    """Return rows as CSV, safe for spreadsheets: text like a formula begins with an apostrophe.

    Bytes of a path that are not UTF-8 are escaped as in Python: backslash, "udce9".
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [f"'{cell}" if _FORMULA.match(str(cell)) else cell for cell in row] for row in rows
    )
    return text.getvalue().encode("utf-8", "backslashreplace")


def from_cell(cell: str) -> str:
    """Return the text that :func:`table` wrote into a cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values with one ``torch.save``, as :func:`write` does."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """Read tensors and plain values on the CPU; nothing in the file is executed.

    Raises:
        UserError: If the file is missing, truncated, or not a dictionary of such values.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # errors in the file are reported below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # truncated and foreign files make torch.load raise nearly anything
        size = f"{path.stat().st_size:,} bytes"
        raise UserError(f"cannot read {path} ({size}): {_what(path, str(error))}") from None
    if not isinstance(state, dict):
        raise UserError(f"{path} must contain a dictionary, got {type(state).__name__}")
    return state


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: If the file cannot be read or holds something else; names path and error.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must contain a JSON object, got {type(content).__name__}")
    return content


def _what(path: Path, error: str) -> str:
    """Say what kind of file torch.load rejected."""
    with open(path, "rb") as file:
        start = file.read(64)
    pickled = re.search(r"[Uu]nsupported (?:global|class).*?(?:GLOBAL )?([\w.]+\.\w+)", error)
    if pickled:
        return (
            f"a whole model or another object was pickled into it ({pickled[1]}), and loading it "
            "would run the file's code; save only tensors: torch.save(model.state_dict(), FILE)"
        )
    if "TorchScript" in error:
        return "a TorchScript archive; save torch.jit.load(FILE).state_dict() with torch.save"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return "a safetensors file; save safetensors.torch.load_file(FILE) with torch.save"
    for magic, what in STARTS.items():
        if start.lstrip().lower().startswith(magic):
            return what
    return "truncated, or not a file of tensors written by torch.save"
