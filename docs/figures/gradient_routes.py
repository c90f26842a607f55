"""Draw ``gradient_routes.svg``: where data and gradients go in one step.

Run ``python docs/figures/gradient_routes.py`` after a change. The page holds the drawing inline,
and it takes the colour of the text around it, so that it follows the light or dark theme.
"""

from pathlib import Path

WIDTH, HEIGHT = 480, 672
LEFT, MIDDLE, RIGHT = 110, 240, 370
TITLE = "Data and gradients in one step"
DESCRIPTION = (
    "Images pass through the extractor G and become features f. The head's weights W and bias c "
    "meet them twice. On the left the features are detached: this gives the head's logits, "
    "whose losses (5), (6) and (7) send their gradient to W and c and no further. On the right W "
    "and c are detached: this gives the extractor logits, whose losses (8), (9) and (10) send "
    "their gradient to the features and into the extractor. One backward starts at the sum."
)

Point = tuple[float, float]


def box(x: float, y: float, width: float, *lines: str) -> str:
    """Return a box around (x, y) with one or two lines of text, the first of them bold."""
    height = 20 + 18 * len(lines)
    shapes = [
        f'<rect x="{x - width / 2}" y="{y - height / 2}" width="{width}" height="{height}" '
        'rx="6" fill="none" stroke-width="1.5"/>'
    ]
    for i, line in enumerate(lines):
        style = "font-size:13px" if i else "font-weight:bold"
        shapes.append(text(x, y + 5 - 9 * (len(lines) - 1) + 18 * i, line, style))
    return "\n".join(shapes)


def text(x: float, y: float, content: str, style: str, anchor: str = "middle") -> str:
    """Return one line of text whose baseline is at y."""
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" style="{style}" fill="currentColor" '
        f'stroke="none">{content}</text>'
    )


def data(*points: Point) -> str:
    """Return a thin solid arrow through the points."""
    return _arrow(points, 'stroke-width="1.5"')


def gradient(*points: Point) -> str:
    """Return a thick dashed arrow through the points."""
    return _arrow(points, 'stroke-width="2.5" stroke-dasharray="6 4"')


def _arrow(points: tuple[Point, ...], style: str) -> str:
    corners = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{corners}" fill="none" {style} marker-end="url(#arrowhead)"/>'


def stop(x: float, y: float) -> str:
    """Return two bars across a horizontal arrow: data passes, a gradient does not."""
    return "\n".join(
        f'<line x1="{x + dx}" y1="{y - 9}" x2="{x + dx}" y2="{y + 9}" stroke-width="3"/>'
        for dx in (-4, 4)
    )


def draw() -> str:
    """Return the drawing as SVG."""
    small = "font-size:13px"
    shapes = [
        box(MIDDLE, 25, 180, "images xˢ, xᵗ"),
        data((MIDDLE, 44), (MIDDLE, 72)),
        box(MIDDLE, 104, 190, "extractor G", "learns from (8), (9), (10)"),
        data((MIDDLE - 12, 132), (MIDDLE - 12, 166)),
        gradient((MIDDLE + 12, 171), (MIDDLE + 12, 138)),
        box(MIDDLE, 190, 110, "features f"),
        # Features to both passes.
        data((185, 190), (LEFT, 190), (LEFT, 304)),
        stop(148, 190),
        text(148, 174, "f.detach()", small),
        data((295, 182), (RIGHT + 12, 182), (RIGHT + 12, 304)),
        gradient((RIGHT - 12, 311), (RIGHT - 12, 200), (301, 200)),
        # The head's parameters to both passes.
        box(MIDDLE, 258, 184, "head W, c", "learns from (5), (6), (7)"),
        data((222, 286), (222, 322), (191, 322)),
        gradient((185, 342), (240, 342), (240, 292)),
        data((258, 286), (258, 330), (289, 330)),
        stop(274, 330),
        text(MIDDLE, 366, "W.detach()", small, "start"),
        text(MIDDLE, 382, "c.detach()", small, "start"),
        box(LEFT, 330, 150, "W f + c"),
        box(RIGHT, 330, 150, "W f + c"),
    ]
    for x, side, logits, losses, player in (
        (LEFT, 1, "logits for the head", "(5) + (6) + (7)", "the head's losses"),
        (RIGHT, -1, "logits for the extractor", "(8) + λ((9) + (10))", "the extractor's losses"),
    ):
        shapes += [
            data((x - 12, 349), (x - 12, 395)),
            gradient((x + 12, 400), (x + 12, 355)),
            box(x, 420, 180, logits),
            data((x - 12, 439), (x - 12, 476)),
            gradient((x + 12, 481), (x + 12, 445)),
            box(x, 510, 180, losses, player),
            data((x - 12 * side, 538), (x - 12 * side, 606), (MIDDLE - 106 * side, 606)),
            gradient((MIDDLE - 100 * side, 590), (x + 12 * side, 590), (x + 12 * side, 544)),
        ]
    shapes += [
        text(MIDDLE, 425, "=", "font-weight:bold"),
        box(MIDDLE, 598, 200, "sum: one backward"),
        data((20, 652), (62, 652)),
        text(76, 657, "data", small, "start"),
        gradient((140, 652), (182, 652)),
        text(196, 657, "gradient", small, "start"),
        data((285, 652), (327, 652)),
        stop(305, 652),
        text(341, 657, "no gradient passes", small, "start"),
    ]
    body = "\n".join(shapes)
    return (
        f'<svg class="drawing" role="img" aria-labelledby="routes-title routes-desc" '
        f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'stroke="currentColor" style="font-size:15px">\n'
        f'<title id="routes-title">{TITLE}</title>\n'
        f'<desc id="routes-desc">{DESCRIPTION}</desc>\n'
        '<defs><marker id="arrowhead" viewBox="0 0 8 8" refX="2" refY="4" markerWidth="9" '
        'markerHeight="9" markerUnits="userSpaceOnUse" orient="auto" stroke="none">'
        '<path d="M0,0 L8,4 L0,8 z" fill="currentColor"/></marker></defs>\n'
        f"{body}\n</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(), encoding="utf-8")
