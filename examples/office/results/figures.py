"""Figures out of results: convergence, recall of each category, confusion matrices."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke

from office.results.outputs import Result
from office.results.tables import NAMES as ROWS

NAMES = {method: row.replace("Adding ", "") for method, row in ROWS.items()}
COLUMN, CHART, PAGE = 3.3, 4.8, 6.9  # width of a column, of a chart and of a page, in inches
# Okabe and Ito's colours, told apart with any colour vision.
ORANGE, SKY, GREEN, VERMILION, BLUE = "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2"
INK = "text"  # the colour of text: black, or light on a dark page
STYLE = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
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
    ("source-only", "C_t", NAMES["source-only"], INK, ":"),
    ("domain-confusion", "C_t", NAMES["domain-confusion"], ORANGE, "-."),
    ("domain-confusion-em", "C_t", NAMES["domain-confusion-em"], GREEN, (0, (5, 1.5))),
    ("symnets", "C_s", "SymNets-S", SKY, (0, (2, 1))),
    ("symnets", "C_t", "SymNets-T", VERMILION, "-"),
    ("symnets-balanced", "C_t", NAMES["symnets-balanced"], BLUE, "-"),
]
# Of what methods recalls are compared, and their marks: colour, marker, size.
COMPARED = {
    "source-only": (INK, "|", 40),
    "symnets": (VERMILION, "o", 34),
    "symnets-balanced": (BLUE, "D", 14),
}


def colour_of(name: str) -> str:
    """Return a colour, that of text for :data:`INK`."""
    return rcParams["text.color"] if name == INK else name


def convergence(results: Sequence[Result]) -> Figure | None:
    """Draw the target accuracy over epochs, mean of the seeds; ``None`` without curves.

    The paper's Figure 4 shows the same as an error.
    """
    figure = Figure(figsize=(CHART, 2.9), layout="constrained")
    axes = figure.add_subplot()
    for method, classifier, label, colour, line in CURVES:
        found = defaultdict(list)
        for result in results:
            for epoch in result.epochs if result.method == method else []:
                accuracy = epoch.get(f"target_accuracy/{classifier}")
                if accuracy is not None:
                    found[epoch["epoch"]].append(accuracy)
        if len(found) > 1:
            epochs = sorted(found)
            means = [statistics.fmean(found[epoch]) for epoch in epochs]
            axes.plot(
                epochs, means, color=colour_of(colour), linestyle=line, linewidth=1.4, label=label
            )
    if not axes.lines:
        return None
    axes.set(xlabel="epoch", ylabel="target accuracy (%)")
    axes.margins(x=0.02)
    axes.grid(axis="y", alpha=0.3, linewidth=0.5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _label_ends(axes)
    return figure


def _label_ends(axes: Axes) -> None:
    """Write each line's name and last value at its end, one above the other where they meet."""
    low, high = axes.get_ylim()
    lines = sorted(axes.lines, key=lambda line: line.get_ydata()[-1])
    heights = np.array([line.get_ydata()[-1] for line in lines])
    for _ in range(100):
        push = (0.07 * (high - low) - np.diff(heights)).clip(0) / 2
        heights[:-1] -= push
        heights[1:] += push
    for line, height in zip(lines, heights, strict=True):
        x, y = line.get_xdata()[-1], line.get_ydata()[-1]
        axes.annotate(
            f"{line.get_label()} {y:.1f}",
            (x, y),
            (1.08, height),
            textcoords=("axes fraction", "data"),
            arrowprops={"arrowstyle": "-", "color": line.get_color(), "relpos": (0, 0.5)},
            va="center",
        )


def recalls(results: Sequence[Result]) -> Figure | None:
    """Draw each category's recall with the methods of :data:`COMPARED`, means of the seeds.

    On top is what the last method recovered from the one before it, at the bottom what it lost.
    ``None`` without two of them.
    """
    groups = _groups(results, COMPARED)
    if len(groups) < 2:
        return None
    counts = np.array([_counts(group) for group in groups])
    known = counts[0].sum(1) > 0  # a category without an image has no recall
    recall = 100 * (counts.diagonal(axis1=1, axis2=2) / counts.sum(2).clip(1))[:, known]
    order = np.lexsort((recall[0], recall[-1] - recall[-2]))
    names = np.array([plain(name) for name in groups[0][0].categories])[known][order]
    recall, rows = recall[:, order], np.arange(len(names))
    figure = Figure(figsize=(CHART, 0.75 + 0.15 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    lost, recovered = (colour_of(COMPARED[group[0].method][0]) for group in groups[-2:])
    colours = np.where(recall[-1] > recall[-2], recovered, lost)
    axes.hlines(rows, recall[-2], recall[-1], colours, linewidth=1.6, alpha=0.6)
    for group, values in zip(groups, recall, strict=True):
        colour, marker, size = COMPARED[group[0].method]
        dots = axes.scatter(values, rows, size, colour_of(colour), marker=marker, zorder=3)
        dots.set(label=title(group), clip_on=False)
    axes.set_yticks(rows, names)
    axes.set(xlabel="recall (%)", xlim=(0, 100), ylim=(-0.7, len(names) - 0.3))
    axes.grid(axis="x", alpha=0.3, linewidth=0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    place = {"loc": "outside upper center", "ncols": 3}
    figure.legend(frameon=False, handletextpad=0.1, columnspacing=1, **place)
    return figure


def _groups(results: Sequence[Result], methods: Iterable[str]) -> list[list[Result]]:
    """Return each method's results with counts, those that know the first's categories."""
    counted = [result for result in results if result.confusion]
    alike = [result for result in counted if result.categories == counted[0].categories]
    groups = [[result for result in alike if result.method == method] for method in methods]
    return [group for group in groups if group]


def _counts(results: Sequence[Result]) -> np.ndarray:
    return np.sum([result.confusion for result in results], 0)


def plain(name: str) -> str:
    """Return a category's name with spaces, as a figure shows it."""
    return name.replace("_", " ")


def confusion(results: Sequence[Result]) -> Figure | None:
    """Draw which categories are taken for which, in % of each true category's images.

    A panel for SymNets and one for its balanced variant, or for the first method if neither was
    run; the counts of the seeds are added up. ``None`` without counts.
    """
    groups = _groups(results, ("symnets", "symnets-balanced"))
    groups = groups or _groups(results, dict.fromkeys(r.method for r in results))[:1]
    if not groups:
        return None
    categories = [plain(name) for name in groups[0][0].categories]
    small = len(categories) <= 12
    width = COLUMN * len(groups) if small else PAGE
    height = 0.92 * COLUMN if small else PAGE * (0.92 if len(groups) == 1 else 0.74)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, group in zip(grid, groups, strict=True):
        image = _matrix(axes, _counts(group), categories, small)
        size = 6.5 if small else min(7.5 if len(groups) == 1 else 6, 200 / len(categories))
        axes.set_xticks(range(len(categories)), categories, rotation=90, fontsize=size)
        axes.set(xlabel="predicted", title=title(group))
    size = 6.5 if small else min(8, 250 / len(categories))
    grid[0].set_yticks(range(len(categories)), categories, fontsize=size)
    grid[0].set(ylabel="true")
    bar = figure.colorbar(
        image, ax=grid, fraction=0.04, pad=0.01, aspect=40, ticks=[0, 5, 25, 50, 100]
    )
    bar.set_label("% of the true category taken for another")
    bar.outline.set_visible(False)
    return figure


def _matrix(axes: Axes, counts: np.ndarray, names: Sequence[str], numbers: bool) -> AxesImage:
    """Draw one matrix, right answers blue, mistakes vermilion; return the mistakes' layer."""
    share = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    right = np.eye(len(share), dtype=bool)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for colour, hidden in ((BLUE, ~right), (VERMILION, right)):
        shades = LinearSegmentedColormap.from_list("", [to_rgba(colour, 0), to_rgba(colour, 1)])
        # A root scale: the few mistakes are what one looks for.
        layer = np.ma.masked_array(share, hidden)
        image = axes.imshow(layer, cmap=shades, norm=PowerNorm(0.5, 0, 100), aspect="auto")
    edges = np.arange(len(share) + 1) - 0.5
    axes.hlines(edges, edges[0], edges[-1], linewidth=0.3, alpha=0.25, color=colour_of(INK))
    axes.vlines(edges, edges[0], edges[-1], linewidth=0.3, alpha=0.25, color=colour_of(INK))
    if not numbers:
        _name_lost(axes, share, names)
    else:
        for i, j in zip(*np.nonzero(counts), strict=True):
            colour = "white" if share[i, j] > 30 else colour_of(INK)
            text = f"{share[i, j]:.0f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=6, color=colour)
    return image


def _name_lost(axes: Axes, share: np.ndarray, names: Sequence[str]) -> None:
    """Name what more than half of a category is taken for, beside the cell, where there is room."""
    outline = [withStroke(linewidth=2, foreground=rcParams["axes.facecolor"])]
    for i, j in zip(*np.nonzero(share > 50), strict=True):
        if i != j:
            side, align = (0.8, "left") if j < len(names) / 2 else (-0.8, "right")
            text = axes.text(j + side, i, names[j], ha=align, va="center", fontsize=7)
            text.set(path_effects=outline, in_layout=False)


def title(results: Sequence[Result]) -> str:
    """Return the method's name and the mean of its accuracies."""
    name = NAMES.get(results[0].method, results[0].method)
    accuracies = [result.accuracy for result in results if result.accuracy is not None]
    return f"{name}: {statistics.fmean(accuracies):.1f} %" if accuracies else name
