"""Numbers, devices and files on the command line, read the same way by all scripts."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch


def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Return an argparse type for whole numbers from ``least`` to ``most``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            bounds = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"must be a whole number {bounds}, got {text!r}")
        return value

    return read


def real(least: float, most: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """Return an argparse type for finite numbers from ``least``, or only above it, to ``most``."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or (above and value == least) or math.isinf(value):
            start = f"above {least:g}" if above else f"of at least {least:g}"
            to = "" if most == math.inf else f", at most {most:g}"
            raise argparse.ArgumentTypeError(f"must be a number {start}{to}, got {text!r}")
        return value

    return read


positive = whole(1)


def device(text: str) -> torch.device:
    """Read the name of a device that torch can use on this machine: cpu, cuda, cuda:1, mps."""
    try:
        found = torch.device(text)
        torch.zeros(1, device=found).item()
    except (AssertionError, NotImplementedError, RuntimeError):
        raise argparse.ArgumentTypeError(
            f"must be a device that torch can use on this machine, for example cpu, got {text!r}"
        ) from None
    return found


def new_file(text: str) -> Path:
    """Read the path of a file to write, in an existing folder."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in a folder that exists, got {text!r}")
    return path
