"""Files that are never half written: written aside, synced to disk, moved into place."""

import csv
import io
import json
import os
import re
import secrets
import sys
import tempfile
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

STDOUT = ("-", "/dev/stdout")


def write(path: Path, content: bytes) -> None:
    """Replace a file atomically: if killed at any moment, the old or the new one is there.

    Several jobs may write the same file: the last one wins.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:  # exclusively: no link of that name is followed
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink()
                raise
    except OSError as error:
        left = "the previous file is intact" if os.path.exists(path) else "there was no file before"
        raise UserError(f"cannot write {path}: {error.strerror or error}; {left}") from None


def put(path: Path, content: bytes) -> None:
    """Write a file where the user pointed, which may be a link, a pipe, a device or ``-``.

    The file behind a link is replaced as by :func:`write`; anything but a file is written directly.
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
    """Check that :func:`put` can write a file, before the work that fills it."""
    special = os.path.exists(path) and not os.path.isfile(path)  # a pipe, a device or a folder
    place = path if special else os.path.dirname(os.path.realpath(path))
    if str(path) not in STDOUT and (os.path.isdir(path) or not os.access(place, os.W_OK)):
        raise UserError(
            f"cannot write {path}: it must be a file in a folder that exists and is writable"
        )


def try_writing(folder: Path) -> None:
    """Check that a folder, created if needed, is writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(bytes(4096))
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from None


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Lock a folder for the block; if another job has locked it, wait, or raise an error."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    lock = os.open(folder / ".lock", flags, 0o666)
    try:
        if fcntl:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise UserError(f"another job is writing to {folder}") from None
                print(f"waiting for another job, which is writing to {folder}", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError:  # some network drives have no locks
                pass
        yield
    finally:
        os.close(lock)


def is_locked(folder: Path) -> bool:
    """Whether a job, perhaps this one, has locked a folder."""
    try:
        with locked(folder, wait=False):
            return False
    except UserError:
        return True


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


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values with one ``torch.save``, as :func:`write` does."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write(path, buffer.getvalue())


def load(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read tensors and plain values on the CPU; nothing in the file is executed.

    With ``mmap`` tensors are read only when they are used.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # errors in the file are reported below
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception:  # truncated and foreign files make torch.load raise nearly anything
        raise UserError(
            f"cannot read {path} ({path.stat().st_size:,} bytes): it must be a complete file of "
            "tensors alone, as torch.save(model.state_dict(), FILE) writes it, not a pickled model"
        ) from None
    if not isinstance(state, dict):
        raise UserError(f"{path} must contain a dictionary, got {type(state).__name__}")
    return state


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; :class:`UserError` names path and error."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must contain a JSON object, got {type(content).__name__}")
    return content
