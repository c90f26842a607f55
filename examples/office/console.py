"""Behaviour of all scripts at the console: how they end, how names are shown, option types."""

import argparse
import io
import math
import os
import signal
import sys
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from tqdm import tqdm

EVERY = 60.0  # seconds between progress bars without a terminal


class UserError(Exception):
    """An error in files, options or data, told in one line if possible.

    Whatever reads or checks them raises it; :func:`run` prints it.
    """


def run(main: Callable[[], None]) -> None:
    """Run a script; if something ends it early, Ctrl-C or ``| head`` too, show no traceback."""
    if sys.getfilesystemencoding() != "utf-8":
        # Names of files would differ from those of the same files under another locale. Start again
        # in Python's UTF-8 mode; what is printed stays in the terminal's encoding.
        streams = {"PYTHONIOENCODING": sys.stdout.encoding, **os.environ}
        os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], streams)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may need characters it lacks
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job scheduler's, as Ctrl-C
    status: int | str | None = 0
    try:
        main()
        sys.stdout.flush()
    except SystemExit as end:  # --help, or an error that the script has reported
        status = end.code
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        status = 141
    except (UserError, OSError) as error:
        status = f"{Path(sys.argv[0]).name}: error: {error}"
    try:
        sys.stdout.flush()
    except OSError as error:  # a full disk; what is left must go, or Python complains at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError) and not status:
            status = f"{Path(sys.argv[0]).name}: error: cannot write to standard output: {error}"
    sys.exit(status)


def same(name: str) -> str:
    """Return a name in the Unicode normal form in which names are compared, NFC."""
    return unicodedata.normalize("NFC", name)


def visible(name: object) -> str:
    """Return a name for a message: bytes that are not UTF-8 and invisible characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def columns(rows: Sequence[Sequence[str]], *, right: bool = False) -> str:
    """Return rows in columns; with ``right``, all but the first are aligned at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = (
        [f"{cell:{'>' if right and i else '<'}{widths[i]}}" for i, cell in enumerate(row)]
        for row in rows
    )
    return "\n".join("  ".join(row).rstrip() for row in aligned)


def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Return an argparse type for whole numbers from ``least`` to ``most``."""

    def read(text: str) -> int:
        with suppress(ValueError):
            if least <= int(text) <= most:
                return int(text)
        bounds = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"must be a whole number {bounds}, got {text!r}")

    return read


def real(least: float, *, above: bool = False) -> Callable[[str], float]:
    """Return an argparse type for finite numbers from ``least``, or only above it."""

    def read(text: str) -> float:
        with suppress(ValueError):
            value = float(text)
            if least <= value < math.inf and not (above and value == least):
                return value
        start = f"above {least:g}" if above else f"of at least {least:g}"
        raise argparse.ArgumentTypeError(f"must be a number {start}, got {text!r}")

    return read


positive = whole(1)


def device(text: str) -> torch.device:
    """Read the name of a device that torch can use on this machine: cpu, cuda, cuda:1, mps."""
    with suppress(AssertionError, NotImplementedError, RuntimeError):
        torch.zeros(1, device=text).item()
        return torch.device(text)
    raise argparse.ArgumentTypeError(
        f"must be a device that torch can use on this machine, for example cpu, got {text!r}"
    )


def bar(name: str, total: int, done: int = 0, *, disable: bool = False) -> tqdm:
    """Return a progress bar of images; where there is no terminal, it is shown once a minute."""
    wait = 0.1 if sys.stderr.isatty() else EVERY
    about = {"unit": " images", "unit_scale": True, "disable": disable}
    return tqdm(desc=name, total=total, initial=done, mininterval=wait, maxinterval=60, **about)
