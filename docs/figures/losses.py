"""Draw ``losses.svg``: which neurons each loss wants to hold the probability.

Run ``python docs/figures/losses.py`` after a change. The page holds the drawing inline, and its
lines take the colour of the text around them, so that it follows the light or dark theme.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "examples"))

from office.results.colours import SOURCE, TARGET  # noqa: E402

K, Y = 4, 1  # categories, and the label of the labelled image
CELL, WIDTH, HEIGHT = 24, 380, 448
TITLE = "What each loss wants"
DESCRIPTION = (
    "Each panel shows the 2K neurons as two rows, the source classifier above the target "
    "classifier, with one column for each category. Dark cells are those that the loss wants to "
    "hold the probability. Head: (5) the label's cell in the upper row, (6) the label's cell in "
    "the lower row, (7) the whole upper row for a source image and the whole lower row for a "
    "target image. Extractor: (8) the label's cells in both rows, half each; (9) both rows, half "
    "each; (10) one column, whichever it is."
)


def text(x: float, y: float, content: str, style: str = "", anchor: str = "middle") -> str:
    """Return one line of text whose baseline is at y."""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" style="{style}" fill="currentColor" '
        f'stroke="none">{content}</text>'
    )


def grid(x: float, y: float, wanted: dict[tuple[int, int], float], off: int | None = None) -> str:
    """Return two rows of K neurons at (x, y), the wanted ones filled; row ``off`` is dotted."""
    shapes = []
    for row, colour in enumerate((SOURCE, TARGET)):
        for column in range(K):
            strength = wanted.get((row, column), 0.0)
            dotted = ' stroke-dasharray="1 3"' if row == off else ""
            shapes.append(
                f'<rect x="{x + CELL * column:g}" y="{y + CELL * row:g}" width="{CELL - 4}" '
                f'height="{CELL - 4}" rx="4" fill="{colour}" fill-opacity="{strength:g}"{dotted}/>'
            )
    return "\n".join(shapes)


def panel(x: float, y: float, title: str, images: str, drawing: str) -> str:
    """Return a drawing with its equation above and the images it is taken on below."""
    middle = x + CELL * K / 2 - 2
    lines = [
        text(middle, y - 12, title, "font-weight:bold"),
        drawing,
        text(middle, y + 2 * CELL + 16, images, "font-size:14px"),
    ]
    return "\n".join(lines)


def draw() -> str:
    """Return the drawing as SVG."""
    upper, lower = {(0, k): 0.9 for k in range(K)}, {(1, k): 0.9 for k in range(K)}
    both = {cell: 0.45 for cell in (*upper, *lower)}
    pair = {(0, Y): 0.45, (1, Y): 0.45}
    column = {(0, 2): 0.9, (1, 2): 0.9}
    head, domains, extractor = 72, 186, 356
    first, second, third = 48, 164, 280
    shapes = [
        text(0, 24, "The head minimises", "font-size:17px", "start"),
        text(0, 308, "The extractor minimises", "font-size:17px", "start"),
        *(
            text(36, y + 15 + CELL * row, name, "font-style:italic", "end")
            for y in (head, domains, extractor)
            for row, name in enumerate(("Cˢ", "Cᵗ"))
        ),
        panel(first, head, "(5)", "source", grid(first, head, {(0, Y): 0.9}, off=1)),
        panel(second, head, "(6)", "source", grid(second, head, {(1, Y): 0.9}, off=0)),
        panel(first, domains, "(7)", "source", grid(first, domains, upper)),
        panel(second, domains, "(7)", "target", grid(second, domains, lower)),
        panel(first, extractor, "(8)", "source", grid(first, extractor, pair)),
        panel(second, extractor, "(9)", "target, × λ", grid(second, extractor, both)),
        panel(third, extractor, "(10)", "target, × λ", grid(third, extractor, column)),
    ]
    body = "\n".join(shapes)
    return (
        f'<svg class="drawing" role="img" aria-labelledby="losses-title losses-desc" '
        f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'stroke="currentColor" style="font-size:15px;max-width:26rem">\n'
        f'<title id="losses-title">{TITLE}</title>\n'
        f'<desc id="losses-desc">{DESCRIPTION}</desc>\n'
        f"{body}\n</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(), encoding="utf-8")
