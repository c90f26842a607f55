"""Draw Office-31's pictures beside this script, light and dark, from finished runs.

    python docs/figures/office31.py runs-frozen/

They are those of ``examples/report.py`` on A→W, 1200 pixels wide.
"""

import argparse
import io
import sys
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "examples"))

import report  # noqa: E402
from office.results import figures  # noqa: E402

TASK, WIDTH, COLOURS = "A2W", 1200, 128


def main(argv: list[str] | None = None) -> None:
    """Draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="folder with runs, searched at any depth")
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR")
    args = parser.parse_args(argv)
    results = report.read_results(args.runs)
    for ending, styles in (("", []), ("_dark", [HERE / "dark.mplstyle"])):
        with matplotlib.style.context([*styles, figures.STYLE]):
            for name, figure in report.draw(results, "office31", TASK).items():
                kind = name.removesuffix(f"-office31-{TASK}")
                save(figure, args.out / f"office31_{kind}{ending}.png")


def save(figure: Figure, path: Path) -> None:
    """Write a picture of few colours."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=WIDTH / figure.get_figwidth())
    image = Image.open(drawn).convert("RGB")
    few = image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


if __name__ == "__main__":
    main()
