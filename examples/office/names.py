"""Names of files and categories from other systems: when two are the same, how to show them."""

import sys
import unicodedata
from pathlib import Path


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
