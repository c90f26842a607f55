"""Names of files and categories from other systems: when two are one, and how to show them."""

import sys
import unicodedata
from collections.abc import Collection
from pathlib import Path


def same(name: str) -> str:
    """Return a name in the one Unicode normalisation (NFC) in which names are compared."""
    return unicodedata.normalize("NFC", name)


def visible(name: str | Path) -> str:
    """Return a name for a message: bytes that are not UTF-8 and invisible characters escaped."""
    name = str(name)
    inner = name.strip()
    start = len(name) - len(name.lstrip())
    end = start + len(inner)
    return "".join(
        c if c.isprintable() and start <= i < end else _escaped(c) for i, c in enumerate(name)
    )


def printable(text: str) -> str:
    """Escape what standard output's encoding lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def told_apart(names: Collection[str], others: Collection[str]) -> str:
    """Return names for a message; of one that looks like one of the others, the escapes too."""
    lookalikes = {_looks(name) for name in others}
    return ", ".join(
        f"{visible(name)} ({_differing(name)})" if _looks(name) in lookalikes else visible(name)
        for name in sorted(names)
    )


def _escaped(c: str) -> str:
    if 0xDC80 <= ord(c) <= 0xDCFF:  # a byte that Python could not decode
        return f"\\x{ord(c) - 0xDC00:02x}"
    return c.encode("unicode_escape").decode() if not 32 <= ord(c) < 127 else f"\\x{ord(c):02x}"


def _differing(name: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() and c != " " else _escaped(c) for c in name)


# Letters of other scripts that fonts draw like Latin ones.
_TWINS = str.maketrans(
    "асеорхуіјѕһԁɡԛԝАВЕКМНОРСТХУЅІЈαονρικΑΒΕΖΗΙΚΜΝΟΡΤΥΧıℓ’‘ʼ´`‐‑‒–—−",  # noqa: RUF001
    "aceopxyijshdgqwABEKMHOPCTXYSIJaovpikABEZHIKMNOPTYXil'''''------",
)


def _looks(name: str) -> str:
    """Fold what one may not see: marks, spaces, case, compatibility forms, other scripts."""
    folded = unicodedata.normalize("NFKD", name).translate(_TWINS).casefold()
    return "".join(c for c in folded if c.isprintable() and c not in " _" and not _mark(c))


def _mark(c: str) -> bool:
    return unicodedata.category(c) in ("Mn", "Cf")
