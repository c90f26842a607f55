"""The demo's two domains, tables and pictures; train_digits.py has the network and the loop.

Both domains are 8x8 images, each pixel the number of on-pixels, 0 to 16, in a 4x4 block of a 32x32
bitmap: digits printed in Matplotlib's fonts, and scikit-learn's handwritten ones.
"""

import json
import math
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib import rcParams
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from office.results import outputs
from office.results.colours import SOURCE, TARGET
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

import symloss
from symloss.diagnostics import diagnose

FONTS = [
    f"{family}{style}.ttf"
    for family, styles in (
        ("DejaVuSans", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("DejaVuSansMono", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("DejaVuSerif", ("", "-Bold", "-Italic", "-BoldItalic")),
        ("STIXGeneral", ("", "Bol", "Italic", "BolIta")),
    )
    for style in styles
]
STROKES = (0, 1, 2, 3)  # added around a glyph of 64 pixels
COLUMNS = {
    "target_accuracy/C_t": "target C_t",
    "target_worst_recall/C_t": "worst digit",
    "target_accuracy/C_s": "target C_s",
    "source_accuracy/C_t": "source C_t",
    "source_accuracy/C_s": "source C_s",
}
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ROW = "{:16} {:>5}" + " {:>12}" * len(COLUMNS) + " {:>8}"
TITLES = {"source-only": "Source only", "symnets": "SymNets", "symnets-balanced": "Balanced"}
TSNE_POINTS = 500  # of each domain
ROWS = (0, 130, 256, 386, 516)  # where scikit-learn's digits come in order, by different hands


class Digits(NamedTuple):
    """Images ``(N, 1, 8, 8)`` in [0, 1] and their digits ``(N,)``."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Digits":
        """Return them on a device."""
        return Digits(self.images.to(device), self.labels.to(device))


def render_digits(count: int, seed: int) -> Digits:
    """Render printed digits, equally many of each, in random fonts, strokes and poses."""
    rng = np.random.default_rng(seed)
    glyphs = {
        (digit, font, stroke): draw_glyph(digit, font, stroke)
        for digit in range(10)
        for font in FONTS
        for stroke in STROKES
    }
    digits = [i % 10 for i in range(count)]
    bitmaps = np.stack(
        [warp(glyphs[digit, rng.choice(FONTS), rng.choice(STROKES)], rng) for digit in digits]
    )
    on_pixels = (bitmaps >= 128).reshape(count, 8, 4, 8, 4).sum((2, 4))
    return to_digits(on_pixels, np.array(digits))


def draw_glyph(digit: int, font: str, stroke: int) -> Image.Image:
    """Draw a digit of 64 pixels, white on black, cropped to its ink."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", font)
    face = ImageFont.truetype(str(path), 64)
    left, top, right, bottom = face.getbbox(str(digit), stroke_width=stroke)
    glyph = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)))
    ImageDraw.Draw(glyph).text((-left, -top), str(digit), 255, face, stroke_width=stroke)
    return glyph


def warp(glyph: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Place a glyph in 32x32 pixels with random size, shift, rotation and shear."""
    height = rng.uniform(26, 33)
    width = height * glyph.width / glyph.height * rng.uniform(0.75, 1.2)
    angle, shear = math.radians(rng.uniform(-15, 15)), rng.uniform(-0.3, 0.3)
    cos, sin = math.cos(angle), math.sin(angle)
    forward = np.array([[cos, cos * shear - sin], [sin, sin * shear + cos]])
    forward = forward * [width / glyph.width, height / glyph.height]
    inverse = np.linalg.inv(forward)  # Pillow asks where each output pixel comes from
    centre = 16 + rng.uniform(-2, 2, size=2)
    offset = np.array(glyph.size) / 2 - inverse @ centre
    coefficients = np.column_stack([inverse, offset]).ravel().tolist()
    return np.asarray(
        glyph.transform((32, 32), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    )


def load_handwritten() -> Digits:
    """Load scikit-learn's handwritten digits."""
    from sklearn.datasets import load_digits

    return to_digits(*load_digits(return_X_y=True))


def to_digits(on_pixels: np.ndarray, labels: np.ndarray) -> Digits:
    """Convert counts of on-pixels, 0 to 16, and labels to tensors."""
    images = torch.from_numpy(on_pixels / 16).float().view(-1, 1, 8, 8)
    return Digits(images, torch.from_numpy(labels).long())


@dataclass(frozen=True)
class Run:
    """One trained network with its loss and accuracies (%).

    An accuracy's name gives domain and classifier: ``target_accuracy/C_s`` is the source
    classifier's, C^s, on the target. ``history`` has an entry per epoch, with ``"loss"``;
    ``final`` has the accuracies after the last one, including those on the source's training
    images; ``estimated`` the target's shares at the last estimate.
    """

    method: str
    seed: int
    extractor: nn.Module
    head: symloss.SymmetricHead
    history: list[dict[str, float]]
    final: dict[str, float]
    seconds: float
    estimated: symloss.EstimatedPrior | None = None


def print_table(runs: list[Run], scored: int) -> None:
    """Print every run, then means and standard errors over the seeds.

    ``scored`` is the number of target images on which accuracy was measured.
    """
    print(f"\nAccuracy (%) after the last epoch: on {scored} handwritten digits (target), on the")
    print("worst digit among them, and on the printed training digits (source)")
    print(ROW.format("method", "seed", *COLUMNS.values(), "seconds"))
    methods = {run.method: [r for r in runs if r.method == run.method] for run in runs}
    rows = [(run.method, str(run.seed), [run]) for run in runs]
    if len(runs) > len(methods):
        rows += [(method, "mean", same) for method, same in methods.items()]
    for method, seed, same in rows:
        cells = [
            mean_and_error([run.final[name] for run in same]) if name in same[0].final else "-"
            for name in COLUMNS
        ]
        seconds = statistics.mean(run.seconds for run in same)
        print(ROW.format(method, seed, *cells, f"{seconds:.1f}"))


def mean_and_error(values: list[float]) -> str:
    """Format the mean and its standard error."""
    return outputs.plus_minus(*outputs.mean_and_error(values))


@torch.no_grad()
def print_diagnosis(runs: list[Run], images: Tensor) -> None:
    """Print a label-free diagnosis on the target images, for runs of one seed."""
    print(f"\nWithout labels, on all {len(images)} handwritten digits, seed {runs[0].seed}")
    for run in runs:
        source, target = symloss.functional.split_logits(run.head(run.extractor(images)))
        other = None if run.method == "source-only" else source  # its C^s is not trained
        remedy = "symnets-balanced" if run.method == "symnets" else None
        prior, trust = run.estimated or (None, None)
        found = replace(diagnose(target, NAMES, prior, other_logits=other), trust=trust)
        description = found.describe(remedy)
        print(run.method, indent(description, "  "), sep="\n")


def write_results(runs: list[Run], settings: dict[str, object], path: Path) -> None:
    """Write settings, versions and the accuracies of every run as JSON."""
    results: dict[str, dict[str, object]] = {}
    for run in runs:
        entry = {"seconds": run.seconds, "final": run.final, "epochs": run.history}
        results.setdefault(run.method, {})[str(run.seed)] = entry
    versions = {"symloss": symloss.__version__, "torch": torch.__version__}
    text = json.dumps({"settings": settings, "versions": versions, "results": results}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def plot_samples(printed: Tensor, handwritten: Tensor, path: Path) -> None:
    """Show five rows of each domain side by side, the digits 0 to 9 in each row."""
    figure = Figure(figsize=(6.4, 1.95), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set_title("Source: printed, labelled", color=SOURCE)
    right.set_title("Target: handwritten, unlabelled", color=TARGET)
    chosen = [row + digit for row in ROWS for digit in range(10)]
    # On a dark page, light ink.
    ink = LinearSegmentedColormap.from_list(
        "ink", [rcParams["axes.facecolor"], rcParams["text.color"]]
    )
    for axes, images in ((left, printed[:50, 0]), (right, handwritten[chosen, 0])):
        tiles = np.pad(images.cpu().numpy(), ((0, 0), (1, 1), (1, 1)))
        axes.imshow(tiles.reshape(5, 10, 10, 10).swapaxes(1, 2).reshape(50, 100), cmap=ink)
        axes.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=200)


@torch.no_grad()
def plot_tsne(runs: list[Run], source: Digits, target: Digits, path: Path) -> None:
    """Plot a t-SNE of both domains' features for runs of one seed, the paper's Figure 3.

    Handwritten digits that the target classifier C^t gets wrong stand out. Each digit is named
    beside the middle of its printed images, and of its handwritten ones.
    """
    from sklearn.manifold import TSNE

    seed = runs[0].seed
    figure = Figure(figsize=(3.6 * len(runs), 4.0), layout="constrained")
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    rng = np.random.default_rng(seed)
    printed, handwritten = (
        rng.choice(len(domain.images), TSNE_POINTS, replace=False) for domain in (source, target)
    )
    images = torch.cat([source.images[printed], target.images[handwritten]])
    outline = [withStroke(linewidth=3, foreground=rcParams["axes.facecolor"])]
    for axes, run in zip(panels, runs, strict=True):
        features = run.extractor(images)
        predicted = run.head.predict(features[TSNE_POINTS:])
        wrong = (predicted != target.labels[handwritten]).cpu().numpy()
        points = TSNE(random_state=seed).fit_transform(features.cpu().numpy())
        left, right = points[:TSNE_POINTS], points[TSNE_POINTS:]
        axes.scatter(*left.T, 9, SOURCE, marker="o", linewidths=0, label="Printed")
        for name, chosen, colour in (
            ("Handwritten", ~wrong, TARGET),
            ("Handwritten, misread", wrong, rcParams["text.color"]),
        ):
            axes.scatter(*right[chosen].T, 12, colour, marker="x", linewidths=0.8, label=name)
        for domain, digits, colour, side in (
            (left, source.labels[printed], SOURCE, "right"),
            (right, target.labels[handwritten], TARGET, "left"),
        ):
            for digit in digits.unique():
                x, y = np.median(domain[(digits == digit).cpu().numpy()], axis=0)
                name = axes.text(x, y, str(digit.item()), color=colour, size=13, weight="bold")
                name.set(ha=side, va="center", path_effects=outline)
        title, accuracy = TITLES[run.method], run.final["target_accuracy/C_t"]
        axes.set(xticks=[], yticks=[], title=f"{title}: {accuracy:.0f} % right, one seed")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False, markerscale=2)
    figure.savefig(path, dpi=200)
