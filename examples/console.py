"""What all scripts need to print to whatever takes their lines."""

import sys


def take_any_character() -> None:
    """Let both streams escape what their encoding lacks, as in a name from another system."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not in a notebook
            stream.reconfigure(errors="backslashreplace")
