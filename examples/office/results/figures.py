"""Figures of one task: convergence, recall of each category, t-SNE."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from office.results import outputs
from office.results.colours import BALANCED, SOURCE, SOURCE_ONLY, SYMNETS, TARGET
from office.results.outputs import Features, Result
from office.results.tables import NAMES as ROWS

NAMES = {method: row.replace("Adding ", "") for method, row in ROWS.items()}
WIDTH = 4.8  # inches
INK = "text"  # the colour of text: black, or light on a dark page
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 200,
    "text.parse_math": False,  # a category may hold a dollar sign
}
# Figure 4's curves: method, classifier, label, colour, line.
CURVES = [
    ("source-only", "C_t", NAMES["source-only"], SOURCE_ONLY, "-"),
    ("domain-confusion", "C_t", NAMES["domain-confusion"], INK, "-."),
    ("domain-confusion-em", "C_t", NAMES["domain-confusion-em"], INK, (0, (5, 1.5))),
    ("symnets", "C_s", "SymNets, Cˢ", SYMNETS, (0, (2, 1))),
    ("symnets", "C_t", "SymNets, Cᵗ", SYMNETS, "-"),
    ("symnets-balanced", "C_t", NAMES["symnets-balanced"], BALANCED, "-"),
]
# The methods whose recalls are compared, and their marks: colour, marker, size.
COMPARED = {
    "source-only": (SOURCE_ONLY, "|", 40),
    "symnets": (SYMNETS, "o", 34),
    "symnets-balanced": (BALANCED, "D", 14),
}
# The methods with a t-SNE panel, and the marks of images: name, colour, marker, size.
LIMIT = 2000  # images per domain
PANELS = ("source-only", "domain-confusion", "domain-confusion-em", "symnets", "symnets-balanced")
MARKS = (
    ("source", SOURCE, "o", 4),
    ("target", TARGET, "x", 7),
    ("target, misclassified", INK, "x", 9),
)


def _colour(name: str) -> str:
    return rcParams["text.color"] if name == INK else name


def _title(results: Sequence[Result]) -> str:
    """Return the method's name and the mean of its accuracies."""
    name = NAMES.get(results[0].method, results[0].method)
    accuracies = [result.accuracy for result in results if result.accuracy is not None]
    return f"{name}: {statistics.fmean(accuracies):.1f} %" if accuracies else name


def _seeds(results: Iterable[Result]) -> str:
    """Say how many runs stand behind a number."""
    count = len({result.seed for result in results})
    return "one seed" if count == 1 else f"mean of {count} seeds"


def _plain(categories: Iterable[str]) -> list[str]:
    return [category.replace("_", " ") for category in categories]


def convergence(results: Sequence[Result]) -> Figure | None:
    """Draw the target accuracy over epochs, mean of the seeds; ``None`` without curves.

    The paper's Figure 4 shows the same as an error.
    """
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.add_subplot()
    drawn: list[Result] = []
    for method, classifier, label, colour, line in CURVES:
        accuracies: dict[float, list[float]] = defaultdict(list)
        for entry in (e for result in results if result.method == method for e in result.epochs):
            epoch, accuracy = entry["epoch"], entry.get(f"target_accuracy/{classifier}")
            if epoch is not None and accuracy is not None:
                accuracies[epoch].append(accuracy)
        if len(accuracies) > 1:
            epochs = sorted(accuracies)
            means = [statistics.fmean(accuracies[epoch]) for epoch in epochs]
            label = f"{label} {means[-1]:.1f}"
            drawn += [result for result in results if result.method == method]
            axes.plot(epochs, means, color=_colour(colour), linestyle=line, label=label)
    if not axes.lines:
        return None
    axes.set(xlabel="epoch", ylabel=f"target accuracy (%), {_seeds(drawn)}")
    axes.grid(axis="y", alpha=0.3)
    axes.locator_params("x", integer=True)
    figure.legend(loc="outside right upper")
    return figure


def recalls(results: Sequence[Result]) -> Figure | None:
    """Draw each category's recall with the methods of :data:`COMPARED`, means of the seeds.

    On top is what the last method recovered from the one before it, at the bottom what it lost.
    ``None`` without two of them.
    """
    counted = [result for result in results if result.confusion]
    alike = [result for result in counted if result.categories == counted[0].categories]
    by_method = ([result for result in alike if result.method == method] for method in COMPARED)
    groups = [group for group in by_method if group]
    if len(groups) < 2:
        return None
    counts = np.array([np.array([r.confusion for r in group]).sum(0) for group in groups])
    known = counts[0].sum(1) > 0  # a category without an image has no recall
    recall = 100 * (counts.diagonal(axis1=1, axis2=2) / counts.sum(2).clip(1))[:, known]
    order = np.lexsort((recall[0], recall[-1] - recall[-2]))
    names = np.array(_plain(groups[0][0].categories))[known][order]
    recall, rows = recall[:, order], np.arange(len(names))
    figure = Figure(figsize=(WIDTH, 0.75 + 0.15 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.hlines(rows, recall[-2], recall[-1], "grey", alpha=0.6)
    for group, values in zip(groups, recall, strict=True):
        colour, marker, size = COMPARED[group[0].method]
        dots = axes.scatter(values, rows, size, _colour(colour), marker=marker, zorder=3)
        dots.set(label=_title(group), clip_on=False)
    axes.set_yticks(rows, names)
    seeds = _seeds(result for group in groups for result in group)
    axes.set(xlabel=f"recall (%), {seeds}", xlim=(0, 100), ylim=(-0.7, len(names) - 0.3))
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def tsne(runs: Sequence[tuple[Result, Features]]) -> Figure | None:
    """Draw the paper's Figure 3, t-SNE of both domains' features; ``None`` without :data:`PANELS`.

    There is one run of each method. Each category is named at its source images.
    """
    by_method = {run[0].method: run for run in runs}
    shown = [by_method[method] for method in PANELS if method in by_method]
    if not shown:
        return None
    columns, rows = min(2, len(shown)), math.ceil(len(shown) / 2)
    figure = Figure(figsize=(WIDTH, 0.3 + rows * WIDTH / columns), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, run in zip(grid, shown, strict=False):
        _panel(axes, *run)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    marks: dict[str, Any] = {}
    for axes in grid:
        handles, labels = axes.get_legend_handles_labels()
        marks |= dict(zip(labels, handles, strict=True))
    legend = figure.legend(
        marks.values(), marks, loc="outside lower center", ncols=3, markerscale=2.5
    )
    if any(result.accuracy is not None for result, _ in shown):
        legend.set_title("accuracy on the target, one seed")
    return figure


def _panel(axes: Axes, result: Result, saved: Features) -> None:
    order = np.random.default_rng(0).permutation(len(saved.features))
    of_both = [order[saved.domain[order] == value][:LIMIT] for value in (0, 1)]
    keep = np.sort(np.concatenate(of_both))
    points, domain, label = _embed(saved.features[keep]), saved.domain[keep], saved.label[keep]
    mistaken = _mistaken(result, saved)[keep]
    kinds = (domain == 0, (domain == 1) & ~mistaken, mistaken)
    for (name, colour, marker, size), chosen in zip(MARKS, kinds, strict=True):
        if chosen.any():
            x, y = points[chosen].T
            ink = _colour(colour)
            axes.scatter(x, y, size, ink, marker=marker, lw=0.5, alpha=0.7, label=name)
    outline = [withStroke(linewidth=1.5, foreground=rcParams["axes.facecolor"])]
    for k, name in enumerate(_plain(result.categories)):
        if (here := (domain == 0) & (label == k)).any():
            x, y = np.median(points[here], axis=0)
            axes.text(x, y, name, size=4.5, ha="center", path_effects=outline, clip_on=True)
    axes.margins(0.12)  # for names at the edge
    axes.set(xticks=[], yticks=[], title=_title([result]))


def _embed(features: np.ndarray) -> np.ndarray:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

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
        logits = outputs.by_classifier(torch.from_numpy(saved.logits), len(result.categories))
        prediction = logits[result.classifier].argmax(1).numpy()
        label = saved.label[saved.domain == 1]
        mistaken[saved.domain == 1] = (label >= 0) & (prediction != label)
    return mistaken
