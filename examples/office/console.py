"""What all scripts share at the console: how they end, names as they are shown, option types."""

import argparse
import io
import math
import os
import signal
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import torch


class UserError(Exception):
    """What is wrong with files, options or data, in one line if possible."""

    def __str__(self) -> str:
        """Return the message, without the traceback that a DataLoader worker puts before it."""
        return super().__str__().rpartition("UserError: ")[2].strip()


def run(main: Callable[[], None]) -> None:
    """Run a script; whatever ends it early, Ctrl-C or ``| head`` too, leaves no traceback."""
    _decode_names_as_utf8()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may need characters it lacks
    warnings.formatwarning = _in_one_line
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job scheduler's, as Ctrl-C
    try:
        try:
            main()
        except SystemExit as end:  # --help, or an error that the script has reported
            if end.code and _stdout_fails():
                raise
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except KeyboardInterrupt:
        _stdout_fails()
        sys.exit(130)
    except BrokenPipeError:
        _stdout_fails()
        sys.exit(141)
    except (UserError, OSError) as error:
        if (full := _stdout_fails()) and isinstance(error, OSError):
            error = UserError(f"cannot write to standard output: {full.strerror or full}")
        sys.exit(f"{Path(sys.argv[0]).name}: error: {error}")


def _stdout_fails() -> OSError | None:
    """Write what is left; if that fails, drop it, or Python complains when it closes the stream."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def _decode_names_as_utf8() -> None:
    """Start again in Python's UTF-8 mode if the locale's encoding is another one.

    Names of files would differ from those of the same files under another locale.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    streams = {"PYTHONIOENCODING": sys.stdout.encoding, **os.environ}  # which stay as they are
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], streams)


def _in_one_line(message: Warning | str, *_: object, **__: object) -> str:
    return f"warning: {message}\n"


def same(name: str) -> str:
    """Return a name in the one Unicode normalisation (NFC) in which names are compared."""
    return unicodedata.normalize("NFC", name)


def visible(name: str | Path) -> str:
    """Return a name for a message: bytes that are not UTF-8 and invisible characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def told_apart(name: str) -> str:
    """Return a name for a message, with its escapes if it could be mistaken for another."""
    plain = name.isascii() and name.isprintable() and name == " ".join(name.split())
    return name if plain else f"{visible(name)} ({name!a})"


def printable(text: str) -> str:
    """Escape characters that standard output's encoding lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


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
