"""Draw the logo and the favicon: two classifiers, mirror images of each other, and one axis.

Run ``python docs/figures/logo.py`` after a change; it writes ``docs/_static/logo.svg`` and
``docs/_static/favicon.svg``.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "examples"))

from office.results.colours import SOURCE, TARGET  # noqa: E402

STATIC = HERE.parent / "_static"


def draw(neurons: int) -> str:
    """Return the drawing as SVG: each half disc holds a column of neurons."""
    shapes = []
    for colour, sign, sweep in ((SOURCE, -1, 0), (TARGET, 1, 1)):
        edge = 32 + 3 * sign
        shapes.append(f'<path d="M{edge},4 A28,28 0 0 {sweep} {edge},60 z" fill="{colour}"/>')
        for i in range(neurons):
            y = 32 + 14 * (i - (neurons - 1) / 2)
            shapes.append(f'<circle cx="{32 + 13 * sign}" cy="{y:g}" r="4.5" fill="#fff"/>')
    body = "\n".join(shapes)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" role="img">\n'
        f"<title>symloss</title>\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    for name, neurons in (("logo", 3), ("favicon", 1)):
        (STATIC / f"{name}.svg").write_text(draw(neurons), encoding="utf-8")
