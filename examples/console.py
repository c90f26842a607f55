"""Console output and exit codes, the same for all scripts."""

import os
import sys
from collections.abc import Callable


def run(main: Callable[[], None]) -> None:
    """Run a script; Ctrl-C, or ``| head``, ends it without a traceback."""
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Or Python complains about unwritten lines when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def take_any_character() -> None:
    """Escape characters that the console's encoding lacks, as in a name from another system."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not in a notebook
            stream.reconfigure(errors="backslashreplace")
