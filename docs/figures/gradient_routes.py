"""Draw ``gradient_routes.svg``: where data and gradients go in one step.

Run ``python docs/figures/gradient_routes.py`` after a change. The page holds the drawing inline,
and it takes the colour of the text around it, so that it follows the light or dark theme.
"""

from pathlib import Path

WIDTH, HEIGHT = 400, 716
LEFT, MIDDLE, RIGHT = 100, 200, 300
SMALL = "font-size:14px"
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
    """Return a box around (x, y) with lines of text, the first of them bold."""
    height = 20 + 18 * len(lines)
    shapes = [
        f'<rect x="{x - width / 2}" y="{y - height / 2}" width="{width}" height="{height}" '
        'rx="6" fill="none" stroke-width="1.5"/>'
    ]
    for i, line in enumerate(lines):
        style = SMALL if i else "font-weight:bold"
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
    shapes = [
        box(MIDDLE, 25, 180, "images xˢ, xᵗ"),
        data((MIDDLE, 44), (MIDDLE, 72)),
        box(MIDDLE, 104, 190, "extractor G", "learns from (8), (9), (10)"),
        data((MIDDLE - 12, 132), (MIDDLE - 12, 166)),
        gradient((MIDDLE + 12, 171), (MIDDLE + 12, 138)),
        box(MIDDLE, 190, 110, "features f"),
        # Features to both passes.
        data((145, 190), (LEFT - 20, 190), (LEFT - 20, 324)),
        stop(118, 190),
        text(108, 172, "f.detach()", SMALL),
        data((255, 182), (RIGHT + 24, 182), (RIGHT + 24, 324)),
        gradient((RIGHT, 331), (RIGHT, 200), (261, 200)),
        # The head's parameters to both passes.
        box(MIDDLE, 266, 140, "head W, c", "learns from", "(5), (6), (7)"),
        data((180, 303), (180, 342), (156, 342)),
        gradient((150, 360), (200, 360), (200, 309)),
        data((218, 303), (218, 350), (244, 350)),
        stop(231, 350),
        text(MIDDLE + 6, 388, "W.detach()", SMALL, "start"),
        text(MIDDLE + 6, 405, "c.detach()", SMALL, "start"),
        box(LEFT, 350, 100, "W f + c"),
        box(RIGHT, 350, 100, "W f + c"),
    ]
    for x, side, player, losses, owner in (
        (LEFT, 1, "for the head", "(5) + (6) + (7)", "the head's losses"),
        (RIGHT, -1, "for the extractor", "(8) + λ((9) + (10))", "the extractor's losses"),
    ):
        shapes += [
            data((x - 12, 369), (x - 12, 411)),
            gradient((x + 12, 417), (x + 12, 375)),
            box(x, 445, 170, "logits", player),
            data((x - 12, 473), (x - 12, 503)),
            gradient((x + 12, 509), (x + 12, 479)),
            box(x, 537, 170, losses, owner),
            data((x - 12 * side, 565), (x - 12 * side, 647), (MIDDLE - 71 * side, 647)),
            gradient((MIDDLE - 65 * side, 629), (x + 12 * side, 629), (x + 12 * side, 571)),
        ]
    shapes += [
        text(MIDDLE, 450, "=", "font-weight:bold"),
        box(MIDDLE, 638, 130, "sum", "one backward"),
        data((8, 696), (40, 696)),
        text(53, 701, "data", SMALL, "start"),
        gradient((100, 696), (132, 696)),
        text(145, 701, "gradient", SMALL, "start"),
        data((216, 696), (254, 696)),
        stop(234, 696),
        text(267, 701, "no gradient passes", SMALL, "start"),
    ]
    body = "\n".join(shapes)
    return (
        f'<svg class="drawing" role="img" aria-labelledby="routes-title routes-desc" '
        f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'stroke="currentColor" style="font-size:15px;max-width:26rem">\n'
        f'<title id="routes-title">{TITLE}</title>\n'
        f'<desc id="routes-desc">{DESCRIPTION}</desc>\n'
        '<defs><marker id="arrowhead" viewBox="0 0 8 8" refX="2" refY="4" markerWidth="9" '
        'markerHeight="9" markerUnits="userSpaceOnUse" orient="auto" stroke="none">'
        '<path d="M0,0 L8,4 L0,8 z" fill="currentColor"/></marker></defs>\n'
        f"{body}\n</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(), encoding="utf-8")
