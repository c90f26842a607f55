"""Files that are whole or not there: written aside, synced to the disk, moved into place."""

import io
import os
from pathlib import Path
from typing import Any

import torch

from office.errors import UserError


def write(path: Path, content: bytes) -> None:
    """Replace a file at once: killed at any moment, the old one or the new one is there.

    Raises:
        UserError: If the disk does not take it; the old file is then untouched.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        left = "the one written before is whole" if path.exists() else "nothing was written before"
        raise UserError(f"cannot write {path}: {error.strerror or error}; {left}") from None
    finally:
        temporary.unlink(missing_ok=True)


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
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # truncated and foreign files make torch.load raise nearly anything
        raise UserError(
            f"cannot read {path} ({path.stat().st_size:,} bytes): truncated, "
            "or not a file of tensors that torch.save wrote"
        ) from None
    if not isinstance(state, dict):
        raise UserError(f"{path} must hold a dictionary, got {type(state).__name__}")
    return state
