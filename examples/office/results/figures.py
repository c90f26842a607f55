"""Figures of one task: convergence, recall of each category, confusion matrices, t-SNE."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from office.results import scores
from office.results.outputs import Features, Result
from office.results.tables import NAMES as ROWS

NAMES = {method: row.replace("Adding ", "") for method, row in ROWS.items()}
COLUMN, CHART, PAGE = 3.3, 4.8, 6.9  # width of a column, of a chart and of a page, in inches
# Okabe and Ito's colours, told apart with any colour vision.
ORANGE, SKY, GREEN, VERMILION, BLUE = "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2"
INK = "text"  # the colour of text: black, or light on a dark page
STYLE: dict[Any, Any] = {
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
# The methods whose recalls are compared, and their marks: colour, marker, size.
COMPARED = {
    "source-only": (INK, "|", 40),
    "symnets": (VERMILION, "o", 34),
    "symnets-balanced": (BLUE, "D", 14),
}
# The methods with a t-SNE panel, and the marks of images: name, colour, marker, size.
LIMIT = 2000  # of images per domain
PANELS = ("source-only", "domain-confusion", "domain-confusion-em", "symnets", "symnets-balanced")
MARKS = (
    ("source", BLUE, "o", 4),
    ("target", VERMILION, "x", 7),
    ("target, misclassified", INK, "x", 9),
)


def _colour(name: str) -> str:
    """Return a colour, that of text for :data:`INK`."""
    return rcParams["text.color"] if name == INK else name


def _title(results: Sequence[Result]) -> str:
    """Return the method's name and the mean of its accuracies."""
    name = NAMES.get(results[0].method, results[0].method)
    accuracies = [result.accuracy for result in results if result.accuracy is not None]
    return f"{name}: {statistics.fmean(accuracies):.1f} %" if accuracies else name


def _plain(category: str) -> str:
    return category.replace("_", " ")


def _write(axes: Axes, x: float, y: float, text: str, outline: float, **style: Any) -> Text:
    """Write on top of a figure, with an outline in the colour of the background."""
    stroke = withStroke(linewidth=outline, foreground=rcParams["axes.facecolor"])
    return axes.text(x, y, text, path_effects=[stroke], in_layout=False, **style)


def convergence(results: Sequence[Result]) -> Figure | None:
    """Draw the target accuracy over epochs, mean of the seeds; ``None`` without curves.

    The paper's Figure 4 shows the same as an error.
    """
    figure = Figure(figsize=(CHART, 2.9), layout="constrained")
    axes = figure.add_subplot()
    for method, classifier, label, colour, line in CURVES:
        accuracies: dict[float, list[float]] = defaultdict(list)
        for entry in (e for result in results if result.method == method for e in result.epochs):
            epoch, accuracy = entry["epoch"], entry.get(f"target_accuracy/{classifier}")
            if epoch is not None and accuracy is not None:
                accuracies[epoch].append(accuracy)
        if len(accuracies) > 1:
            epochs = sorted(accuracies)
            means = [statistics.fmean(accuracies[epoch]) for epoch in epochs]
            axes.plot(
                epochs, means, color=_colour(colour), linestyle=line, linewidth=1.4, label=label
            )
    if not axes.lines:
        return None
    axes.set(xlabel="epoch", ylabel="target accuracy (%)")
    axes.margins(x=0.02)
    axes.grid(axis="y", alpha=0.3, linewidth=0.5)
    axes.locator_params("x", integer=True)
    _label_ends(axes)
    return figure


def _label_ends(axes: Axes) -> None:
    """Write each line's name and last value at its end, one above the other where they meet."""
    low, high = axes.get_ylim()
    ends = [(np.asarray(line.get_data())[:, -1], line) for line in axes.lines]
    ends.sort(key=lambda end: end[0][1])
    heights = np.array([y for (_, y), _ in ends])
    for _ in range(100):
        push = (0.07 * (high - low) - np.diff(heights)).clip(0) / 2
        heights[:-1] -= push
        heights[1:] += push
    for ((x, y), line), height in zip(ends, heights, strict=True):
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
    names = np.array([_plain(name) for name in groups[0][0].categories])[known][order]
    recall, rows = recall[:, order], np.arange(len(names))
    figure = Figure(figsize=(CHART, 0.75 + 0.15 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    lost, recovered = (_colour(COMPARED[group[0].method][0]) for group in groups[-2:])
    colours = np.where(recall[-1] > recall[-2], recovered, lost)
    axes.hlines(rows, recall[-2], recall[-1], colours.tolist(), linewidth=1.6, alpha=0.6)
    for group, values in zip(groups, recall, strict=True):
        colour, marker, size = COMPARED[group[0].method]
        dots = axes.scatter(values, rows, size, _colour(colour), marker=marker, zorder=3)
        dots.set(label=_title(group), clip_on=False)
    axes.set_yticks(rows, names)
    axes.set(xlabel="recall (%)", xlim=(0, 100), ylim=(-0.7, len(names) - 0.3))
    axes.grid(axis="x", alpha=0.3, linewidth=0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    figure.legend(
        loc="outside upper center", ncols=3, frameon=False, handletextpad=0.1, columnspacing=1
    )
    return figure


def _groups(results: Sequence[Result], methods: Iterable[str]) -> list[list[Result]]:
    """Return each method's results with counts, those that know the first's categories."""
    counted = [result for result in results if result.confusion]
    alike = [result for result in counted if result.categories == counted[0].categories]
    groups = [[result for result in alike if result.method == method] for method in methods]
    return [group for group in groups if group]


def _counts(results: Sequence[Result]) -> np.ndarray:
    counts: np.ndarray = np.array([result.confusion for result in results]).sum(0)
    return counts


def confusion(results: Sequence[Result]) -> Figure | None:
    """Draw which categories are taken for which, in % of each true category's images.

    A panel for SymNets and one for its balanced variant, or for the first method if neither was
    run; the counts of the seeds are added up. ``None`` without counts.
    """
    groups = _groups(results, ("symnets", "symnets-balanced"))
    groups = groups or _groups(results, dict.fromkeys(r.method for r in results))[:1]
    if not groups:
        return None
    categories = [_plain(name) for name in groups[0][0].categories]
    small = len(categories) <= 12
    width = COLUMN * len(groups) if small else PAGE
    height = 0.92 * COLUMN if small else PAGE * (0.92 if len(groups) == 1 else 0.74)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, group in zip(grid, groups, strict=True):
        image = _matrix(axes, _counts(group), categories, small)
        size = 6.5 if small else min(7.5 if len(groups) == 1 else 6, 200 / len(categories))
        axes.set_xticks(range(len(categories)), categories, rotation=90, fontsize=size)
        axes.set(xlabel="predicted", title=_title(group))
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
    """Draw one matrix, right predictions blue, mistakes vermilion; return the mistakes' layer.

    Instead of numbers it may have names, of what more than half of a category is taken for.
    """
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
    axes.hlines(edges, edges[0], edges[-1], linewidth=0.3, alpha=0.25, color=_colour(INK))
    axes.vlines(edges, edges[0], edges[-1], linewidth=0.3, alpha=0.25, color=_colour(INK))
    for i, j in zip(*np.nonzero(counts), strict=True):
        if numbers:
            colour = "white" if share[i, j] > 30 else _colour(INK)
            text = f"{share[i, j]:.0f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=6, color=colour)
        elif i != j and share[i, j] > 50:  # named beside the cell, where there is room
            side, align = (0.8, "left") if j < len(names) / 2 else (-0.8, "right")
            _write(axes, j + side, i, names[j], 2, ha=align, va="center", fontsize=7)
    return image


# t-SNE


def tsne(runs: Sequence[tuple[Result, Features]]) -> Figure | None:
    """Draw the paper's Figure 3, t-SNE of both domains' features; ``None`` without :data:`PANELS`.

    There is one run of each method. Categories are named at their source images where the name
    fits, those with the lowest recall first.
    """
    by_method = {run[0].method: run for run in runs}
    shown = [by_method[method] for method in PANELS if method in by_method]
    if not shown:
        return None
    columns, rows = min(2, len(shown)), math.ceil(len(shown) / 2)
    height = 0.3 + rows * (2.15 if columns == 2 else 4.3)
    figure = Figure(figsize=(CHART, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    points = [_panel(axes, *run) for axes, run in zip(grid, shown, strict=False)]
    marks: dict[str, Any] = {}
    for axes in grid:
        handles, labels = axes.get_legend_handles_labels()
        marks |= dict(zip(labels, handles, strict=True))
    style = {"frameon": False, "markerscale": 2.5, "fontsize": 8}
    if len(grid) > len(shown):  # the legend has the panel that is left
        grid[-1].set_axis_off()
        grid[-1].legend(marks.values(), marks, loc="center", **style)
    else:
        figure.legend(marks.values(), marks, loc="outside lower center", ncols=3, **style)
    figure.draw_without_rendering()  # after this the panels have their sizes
    for axes, (result, _), (source, label) in zip(grid, shown, points, strict=False):
        _name_categories(axes, result, source, label)
    return figure


def _panel(axes: Axes, result: Result, saved: Features) -> tuple[np.ndarray, np.ndarray]:
    """Draw a method's panel; return the source images' points and labels."""
    order = np.random.default_rng(0).permutation(len(saved.features))
    of_both = [order[saved.domain[order] == value][:LIMIT] for value in (0, 1)]
    keep = np.sort(np.concatenate(of_both))
    points, domain = _embed(saved.features[keep]), saved.domain[keep]
    label, mistaken = saved.label[keep], _mistaken(result, saved)[keep]
    kinds = (domain == 0, (domain == 1) & ~mistaken, mistaken)
    for (name, colour, marker, size), chosen in zip(MARKS, kinds, strict=True):
        if chosen.any():
            x, y = points[chosen].T
            ink = _colour(colour)
            axes.scatter(x, y, size, ink, marker=marker, lw=0.5, alpha=0.7, label=name)
    axes.spines[:].set(visible=True, color=rcParams["axes.edgecolor"], alpha=0.4)
    axes.set(xticks=[], yticks=[], title=_title([result]))
    return points[domain == 0], label[domain == 0]


def _embed(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float32)
    if (features == features[0]).all():  # t-SNE would divide by 0, and crash
        return np.zeros((len(features), 2))
    components = min(50, *features.shape)
    features = PCA(components, random_state=0).fit_transform(features)
    perplexity = min(30, (len(features) - 1) / 3)
    embedding = TSNE(perplexity=perplexity, init="pca", random_state=0)
    points: np.ndarray = embedding.fit_transform(features)
    return points


def _mistaken(result: Result, saved: Features) -> np.ndarray:
    """Return which images are of the target, labelled, and given another category."""
    mistaken = np.zeros(len(saved.features), dtype=bool)
    if saved.logits is not None:
        logits = scores.by_classifier(torch.from_numpy(saved.logits), len(result.categories))
        prediction = logits[result.classifier].argmax(1).numpy()
        label = saved.label[saved.domain == 1]
        mistaken[saved.domain == 1] = (label >= 0) & (prediction != label)
    return mistaken


def _name_categories(axes: Axes, result: Result, points: np.ndarray, label: np.ndarray) -> None:
    """Write the categories' names above or below their points, where they meet no other name."""
    frame = axes.get_window_extent()
    taken: list[Bbox] = []
    recall = [result.per_category.get(name) for name in result.categories]
    order = np.argsort([np.inf if r is None else r for r in recall], kind="stable")
    for k in (k for k in order if (label == k).any()):
        x, y = _middle_half(points[label == k]).T
        name = _plain(result.categories[k])
        for height, side in ((y.max(), "bottom"), (y.min(), "top")):
            text = _write(axes, np.median(x), height, name, 1.5, size=6, ha="center", va=side)
            box = text.get_window_extent().padded(3, 0)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def _middle_half(points: np.ndarray) -> np.ndarray:
    """Return the half of the points nearest to their median: a category may lie in two places."""
    distance = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return points[np.argsort(distance)[: len(points) // 2 + 1]]
