"""Files that are never half written: written aside, synced to disk, moved into place."""

import io
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from office.console import UserError

# How files begin that are often mistaken for torch's, in lower case.
STARTS = {
    b"<!doctype html": "a web page, not the file that the link should have given",
    b"<html": "a web page, not the file that the link should have given",
    b"version https://git-lfs": "a Git LFS pointer; get the file itself with git lfs pull",
    b"\x89hdf": "an HDF5 file, as Keras writes; PyTorch weights are needed",
    b"\x93numpy": "a NumPy array; PyTorch weights are needed",
}


def write(path: Path, content: bytes) -> None:
    """Replace a file atomically: if killed at any moment, the old or the new one is there.

    Raises:
        UserError: If the file cannot be written; the old one is then untouched.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        left = "the previous one is intact" if path.exists() else "there was no previous one"
        raise UserError(f"cannot write {path}: {error.strerror or error}; {left}") from None
    finally:
        temporary.unlink(missing_ok=True)


def try_writing(folder: Path) -> None:
    """Write a small file into a folder, created if needed, and remove it.

    Raises:
        UserError: If the folder is not writable.
    """
    trial = folder / ".trial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from None
    write(trial, bytes(4096))
    trial.unlink()


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
