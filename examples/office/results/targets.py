"""A target without labels, for people: predicted beside expected shares, a page with pictures."""

import base64
import heapq
import io
import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from office import files
from office.console import UserError, visible
from office.data import images
from symloss.diagnostics import Diagnosis

# An image with its most likely categories and their probabilities.
Row: TypeAlias = tuple[Path, list[tuple[str, float]]]
SHOWN = 20  # categories on the screen
HEADER = ("images", "predicted", "expected", "category")
DOUBTFUL = 10  # images on the page
NAMED = "The least confident predictions, with pictures:"
SIDE = 320  # pixels of a picture's longer side

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: auto; padding: 1rem }}
body {{ overflow-wrap: anywhere }} small {{ opacity: .75 }} figure {{ margin: 0 }}
div {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1.5rem }}
img {{ width: 100%; height: 9.5rem; object-fit: contain; object-position: 0 100% }}
table {{ border-collapse: collapse }} th + th, td + td {{ text-align: right; white-space: nowrap }}
th, td {{ text-align: left; padding: .2rem .3rem; border-bottom: 1px solid #8885 }}
th {{ overflow-wrap: normal }}
</style>
<h1>{title}</h1>
<p>Nobody has checked these predictions, and a confidence says little about how many are right. Look
at the pictures, and at some of the others.</p>
{findings}
<h2>Least confident predictions</h2>
<div>{pictures}</div>
<h2>Images per category</h2>
<p>Expected: {origin}.</p>
<table>{shares}</table>
</html>
"""


def confidence(p: float, digits: int = 12) -> str:
    """Return a probability with so many digits, and at least three of its distance to 1."""
    if math.isnan(p):
        return "nan"
    p = min(p, math.nextafter(1, 0))  # float64 may round to 1, which nothing is
    return f"{p:.{max(digits, 2 - math.floor(math.log10(1 - p)))}g}"


def percent(p: float) -> str:
    """Return a probability in %, with at least three digits of its distance to 100."""
    return f"{(Decimal(confidence(p, 3)) * 100).normalize():f}\N{NO-BREAK SPACE}%"


def likeliest(logits: Tensor, categories: Sequence[str], top: int) -> list[list[tuple[str, float]]]:
    """Return the ``top`` most likely categories of each image, with their probabilities."""
    # In float64, or all that are nearly certain would be equally so.
    p, order = logits.cpu().double().softmax(1).sort(dim=1, descending=True, stable=True)
    pairs = zip(order[:, :top].tolist(), p[:, :top].tolist(), strict=True)
    return [[(categories[k], q) for k, q in zip(*pair, strict=True)] for pair in pairs]


def table(rows: Iterable[Row], top: int = 1) -> bytes:
    """Return images with their ``top`` most likely categories as CSV."""
    ranks = [""] if top == 1 else [f"_{n}" for n in range(1, top + 1)]
    lines = [["path", *(f"{name}{n}" for n in ranks for name in ("category", "confidence"))]]
    for path, best in rows:
        lines.append([str(path), *(t for c, p in best[:top] for t in (c, confidence(p)))])
    return files.table(lines)


def shares(spread: Diagnosis) -> list[list[str]]:
    """Return the columns of :data:`HEADER`, the categories furthest below expectation first."""
    expected = spread.expected or (math.nan,) * len(spread.categories)
    rows = sorted(
        zip(spread.predicted, expected, spread.categories, strict=True), key=lambda r: r[0] / r[1]
    )
    n = spread.samples
    return [
        [f"{round(p * n):,}" if n else "-", f"{100 * p:.1f} %", f"{100 * e:.1f} %", name]
        for p, e, name in rows
    ]


def columns(spread: Diagnosis, origin: str) -> str:
    """Return the shares for the screen; ``origin`` says where the expected ones come from."""
    rows = shares(spread)
    if len(rows) > SHOWN:
        rows[SHOWN // 2 : -SHOWN // 2] = [["", "", "", f"... {len(rows) - SHOWN} more ..."]]
    rows.insert(0, [*HEADER[:3], f"{HEADER[3]} (expected: {origin})"])
    # Names last: they may be long, and those of some scripts are wider than their characters.
    return "\n".join(f"{n:>6}  {p:>9}  {e:>8}  {name}" for n, p, e, name in rows)


def describe(spread: Diagnosis, origin: str, remedy: str | None = None) -> str:
    """Return a diagnosis with all of the shares in columns, where it lists some in a line."""
    *before, _, categories = spread.describe(remedy).split("\n")
    return "\n".join([*before, columns(spread, origin), categories])


def page(
    title: str, spread: Diagnosis, origin: str, rows: Sequence[Row], bits: int | None = None
) -> bytes:
    """Return an HTML page; ``rows`` have at least two categories of each image.

    ``bits`` are those of grey images.
    """
    *before, _, categories = spread.describe().split("\n")
    doubtful = heapq.nsmallest(DOUBTFUL, rows, key=lambda row: row[1][0][1])
    text = PAGE.format(
        title=escape(title),
        findings="\n".join(f"<p>{escape(line)}</p>" for line in [*before, categories]),
        pictures="".join(_figure(row, bits) for row in doubtful),
        origin=escape(origin),
        shares="".join([_line(HEADER, "th"), *map(_line, shares(spread))]),
    )
    return text.encode()


def _line(row: Sequence[str], tag: str = "td") -> str:
    *numbers, name = map(escape, row)
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in (name, *numbers)) + "</tr>\n"


def _figure(row: Row, bits: int | None) -> str:
    path, ((first, p), (second, q), *_) = row
    try:
        image = images.load_image(path, bits)
        image.thumbnail((SIDE, SIDE))
        image.save(content := io.BytesIO(), "JPEG", quality=80)
        data = base64.b64encode(content.getvalue()).decode()
        picture = f'<img alt="" src="data:image/jpeg;base64,{data}">'
    except UserError:  # it may have moved since its features were made
        picture = "<p>The image cannot be read.</p>"
    first, second, name = (escape(visible(text)) for text in (first, second, path))
    told = f"<b>{first}</b> {percent(p)}<br>or {second} {percent(q)}<br>"
    return f"<figure>{picture}<figcaption>{told}<small>{name}</small></figcaption></figure>\n"
