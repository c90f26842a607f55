"""What all scripts need to print to whatever takes their lines."""

import os
import sys
from collections.abc import Callable


def run(main: Callable[[], None]) -> None:
    """Do what a script is for; Ctrl-C, or ``| head``, ends it without a traceback."""
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Or Python complains of the lines that are left when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def take_any_character() -> None:
    """Let both streams escape what their encoding lacks, as in a name from another system."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not in a notebook
            stream.reconfigure(errors="backslashreplace")
