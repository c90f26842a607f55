"""Draw ``method.svg`` and ``method_dark.svg``: two classifiers in one layer, two gradient routes.

Run ``python docs/figures/method.py`` after a change. Its words are legible on a phone.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "examples"))

from office.results.colours import SOURCE, TARGET  # noqa: E402

WIDTH, HEIGHT = 390, 474
LEFT, MIDDLE, RIGHT = 105, 195, 285
INK = {"": "#1f2328", "_dark": "#e6e6e6"}
DESCRIPTION = (
    "Labelled source images and unlabelled target images pass through one backbone. Its features "
    "go into the head, one linear layer with two classifiers side by side: the source classifier "
    "and the target classifier. The gradient of the head's losses stops at the head, which learns "
    "the categories and the domains. The gradient of the backbone's losses passes the head by and "
    "goes into the backbone, which learns to confuse the domains, category by category."
)

Point = tuple[float, float]


def draw(ink: str) -> str:
    """Return the drawing as SVG, its lines and words in the colour ``ink``."""
    shapes = [
        *box(LEFT, 30, 166, "source images", "with labels", colour=SOURCE),
        *box(RIGHT, 30, 166, "target images", "without labels", colour=TARGET),
        arrow((LEFT, 56), (LEFT, 86)),
        arrow((RIGHT, 56), (RIGHT, 86)),
        *box(MIDDLE, 112, 300, "backbone", height=38),
        arrow((MIDDLE, 131), (MIDDLE, 178)),
        text(MIDDLE + 10, 158, "features", anchor="start"),
        # The head: a classifier of three neurons on each side.
        *half(LEFT, "Cˢ", "source classifier", SOURCE),
        *half(RIGHT, "Cᵗ", "target classifier", TARGET),
        '<rect x="25" y="190" width="340" height="100" rx="8" fill="none" stroke-width="1.5"/>',
        text(MIDDLE, 308, "the head: one linear layer"),
        arrow((LEFT + 30, 316), (LEFT + 30, 348)),
        arrow((RIGHT - 30, 316), (RIGHT - 30, 348)),
        *box(86, 395, 160, "Head learns", "to name category", "and domain"),
        *box(282, 395, 204, "Backbone learns", "to confuse domains,", "category by category"),
        arrow((45, 360), (45, 302), gradient=True),
        arrow((378, 360), (378, 112), (357, 112), gradient=True),
        arrow((96, 458), (132, 458)),
        text(144, 463, "data", anchor="start"),
        arrow((204, 458), (240, 458), gradient=True),
        text(252, 463, "gradient", anchor="start"),
    ]
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" color="{ink}" stroke="currentColor" '
        'font-family="system-ui, Segoe UI, Roboto, Helvetica, Arial, sans-serif" font-size="16">\n'
        f"<title>SymNets in one step</title>\n<desc>{DESCRIPTION}</desc>\n"
        '<defs><marker id="arrowhead" viewBox="0 0 8 8" refX="2" refY="4" markerWidth="9" '
        'markerHeight="9" markerUnits="userSpaceOnUse" orient="auto" stroke="none">'
        '<path d="M0,0 L8,4 L0,8 z" fill="currentColor"/></marker></defs>\n'
        f"{body}\n</svg>\n"
    )


def box(
    x: float, y: float, width: float, *lines: str, height: float = 0, colour: str = "currentColor"
) -> list[str]:
    """Return a box around (x, y) with lines of text, the first of them bold."""
    height = height or 12 + 20 * len(lines)
    first = y + 5.5 - 10 * (len(lines) - 1)
    return [
        f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width}" height="{height}" '
        f'rx="8" fill="{colour}" fill-opacity="{0 if colour == "currentColor" else 0.15}" '
        f'stroke="{colour}" stroke-width="1.5"/>',
        *(text(x, first + 20 * i, line, bold=not i) for i, line in enumerate(lines)),
    ]


def half(x: float, symbol: str, name: str, colour: str) -> list[str]:
    """Return a classifier: its symbol and name above its neurons."""
    side = 25 if x < MIDDLE else MIDDLE
    neurons = (x + 34 * i for i in (-1, 0, 1))
    return [
        f'<rect x="{side}" y="190" width="170" height="100" fill="{colour}" fill-opacity="0.15" '
        'stroke="none"/>',
        text(x, 216, symbol, bold=True),
        text(x, 238, name),
        *(f'<circle cx="{n:g}" cy="264" r="10" fill="{colour}" stroke="none"/>' for n in neurons),
    ]


def text(x: float, y: float, content: str, *, bold: bool = False, anchor: str = "middle") -> str:
    """Return one line of text whose baseline is at y."""
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="currentColor" stroke="none"'
        f"{weight}>{content}</text>"
    )


def arrow(*points: Point, gradient: bool = False) -> str:
    """Return an arrow through the points: thin for data, thick and dashed for a gradient."""
    style = 'stroke-width="2.5" stroke-dasharray="6 4"' if gradient else 'stroke-width="1.5"'
    corners = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline points="{corners}" fill="none" {style} marker-end="url(#arrowhead)"/>'


if __name__ == "__main__":
    for ending, ink in INK.items():
        (HERE / f"method{ending}.svg").write_text(draw(ink), encoding="utf-8")
