"""The paper's figures out of results: convergence, t-SNE maps, and a confusion matrix."""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from office.outputs import Features, Result
from office.tables import NAMES

COLUMN, PAGE = 3.3, 6.9  # width of a column and of a page, in inches
# Okabe and Ito's colours, told apart with any colour vision.
BLACK, ORANGE, SKY, GREEN, VERMILION, BLUE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#D55E00",
    "#0072B2",
)
STYLE = {
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 200,
    "text.parse_math": False,  # a category may hold a dollar sign
}
# Figure 4's curves: method, classifier, label, colour, line.
CURVES = [
    ("source-only", "C_t", NAMES["source-only"], BLACK, ":"),
    ("domain-confusion", "C_t", "Domain Confusion", ORANGE, "-."),
    ("domain-confusion-em", "C_t", "Domain Confusion (Em)", GREEN, (0, (5, 1.5))),
    ("symnets", "C_s", "SymNets-S", SKY, (0, (2, 1))),
    ("symnets", "C_t", "SymNets-T", VERMILION, "-"),
]
# Figure 3's panels, and how it marks the two domains: name, colour, marker, size.
PANELS = ("source-only", "domain-confusion", "domain-confusion-em", "symnets")
MARKS = (("source", BLUE, "o", 3), ("target", VERMILION, "x", 6))


def convergence(results: Sequence[Result]) -> Figure | None:
    """Draw the test error over epochs, mean of the seeds (Figure 4); ``None`` without curves."""
    figure = Figure(figsize=(COLUMN, 2.6), layout="constrained")
    axes = figure.add_subplot()
    for method, classifier, label, colour, line in CURVES:
        errors = defaultdict(list)
        for result in results:
            for epoch in result.epochs if result.method == method else []:
                accuracy = epoch.get(f"target_accuracy/{classifier}")
                if accuracy is not None:
                    errors[epoch["epoch"]].append(100 - accuracy)
        if len(errors) > 1:
            epochs = sorted(errors)
            means = [statistics.fmean(errors[epoch]) for epoch in epochs]
            axes.plot(epochs, means, color=colour, linestyle=line, linewidth=1.2, label=label)
    if not axes.lines:
        return None
    axes.set(xlabel="epoch", ylabel="test error (%)")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    axes.grid(axis="y", color="0.9", linewidth=0.5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, handlelength=2.8)
    return figure


def confusion(results: Sequence[Result]) -> Figure:
    """Draw which categories are taken for which, in % of each true category's images.

    The counts are added up over the results, one method's seeds, that know the first's categories.
    """
    categories = results[0].categories
    counts = np.sum([r.confusion for r in results if r.categories == categories], 0)
    share = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    small = len(categories) <= 12
    width = COLUMN if small else PAGE
    figure = Figure(figsize=(width, 0.92 * width), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[:].set_visible(False)
    # A root scale: the few confusions are what one looks for.
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    size = 6.5 if small else min(7, 300 / len(categories))
    axes.set_xticks(range(len(categories)), categories, rotation=90, fontsize=size)
    axes.set_yticks(range(len(categories)), categories, fontsize=size)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="true")
    if small:
        for i, j in zip(*np.nonzero(counts), strict=True):
            colour = "white" if share[i, j] > 30 else "black"
            text = f"{share[i, j]:.0f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=6, color=colour)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02, ticks=[0, 5, 25, 50, 100])
    bar.set_label("% of the true category")
    bar.outline.set_visible(False)
    return figure


def maps(features: dict[str, Features], limit: int = 2000) -> Figure | None:
    """Draw t-SNE maps (Figure 3) of features by method; ``None`` without any of its methods.

    At most ``limit`` images of each domain are shown.
    """
    shown = [method for method in PANELS if method in features]
    if not shown:
        return None
    columns, rows = min(2, len(shown)), math.ceil(len(shown) / 2)
    height = 0.3 + rows * (1.75 if columns == 2 else 2.6)
    figure = Figure(figsize=(COLUMN, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for letter, axes, method in zip("abcd", grid, shown, strict=False):
        _scatter(axes, *_embed(features[method], limit))
        axes.set_title(f"({letter}) {NAMES[method]}".replace("Adding ", ""), y=-0.14, fontsize=7)
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4, linestyle="", label=name)
        for name, colour, marker, _ in MARKS
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    return figure


def _scatter(axes: Axes, points: np.ndarray, domain: np.ndarray) -> None:
    axes.set_axis_on()
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("0.7")
    axes.set(xticks=[], yticks=[])
    for value, (_, colour, marker, size) in enumerate(MARKS):
        x, y = points[domain == value].T
        axes.scatter(x, y, s=size, c=colour, marker=marker, linewidths=0.4, alpha=0.6)


def _embed(saved: Features, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Two-dimensional t-SNE coordinates and the domain of at most ``2 * limit`` images."""
    features, domain = np.asarray(saved.features, np.float32), np.asarray(saved.domain)
    order = np.random.default_rng(0).permutation(len(features))
    keep = np.sort(np.concatenate([order[domain[order] == value][:limit] for value in (0, 1)]))
    features, domain = features[keep], domain[keep]
    components = min(50, *features.shape)
    features = PCA(components, random_state=0).fit_transform(features)
    perplexity = min(30, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features), domain
