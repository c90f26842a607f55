"""The paper's Figure 3: t-SNE maps of both domains' features, a panel for each method."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from office.results import evaluation, figures
from office.results.outputs import Features, Result

PANELS = (
    "source-only",
    "domain-confusion",
    "domain-confusion-em",
    "symnets",
    "symnets-balanced",
)
# How images are marked: name, colour, marker, size.
MARKS = (
    ("source", figures.BLUE, "o", 4),
    ("target", figures.VERMILION, "x", 7),
    ("target, misclassified", figures.INK, "x", 9),
)


def maps(runs: Sequence[tuple[Result, Features]], limit: int = 2000) -> Figure | None:
    """Draw a map for each of the :data:`PANELS` that was run; ``None`` without any.

    At most ``limit`` images of each domain are shown. Categories are named at their source images
    where the name fits, those with the lowest recall first.

    Args:
        runs: One of each method.
        limit: Of images.
    """
    shown = sorted(
        (run for run in runs if run[0].method in PANELS), key=lambda r: PANELS.index(r[0].method)
    )
    if not shown:
        return None
    columns, rows = min(2, len(shown)), math.ceil(len(shown) / 2)
    height = 0.3 + rows * (2.15 if columns == 2 else 4.3)
    figure = Figure(figsize=(figures.CHART, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    points = [_panel(axes, *run, limit) for axes, run in zip(grid, shown, strict=False)]
    marks = {}
    for axes in grid:
        handles, labels = axes.get_legend_handles_labels()
        marks |= dict(zip(labels, handles, strict=True))
    free = len(grid) > len(shown)
    if free:
        grid[-1].set_axis_off()
    place = {"loc": "center"} if free else {"loc": "outside lower center", "ncols": 3}
    (grid[-1] if free else figure).legend(
        marks.values(), marks, frameon=False, markerscale=2.5, fontsize=8, **place
    )
    figure.draw_without_rendering()  # after this the panels have their sizes
    for axes, (result, _), found in zip(grid, shown, points, strict=False):
        _name_categories(axes, result, *found)
    return figure


def _panel(
    axes: Axes, result: Result, saved: Features, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one map; return the source images' points and labels."""
    keep = _chosen(saved, limit)
    points, domain = _embed(saved.features[keep]), saved.domain[keep]
    label, mistaken = saved.label[keep], _mistaken(result, saved)[keep]
    kinds = (domain == 0, (domain == 1) & ~mistaken, mistaken)
    for (name, colour, marker, size), chosen in zip(MARKS, kinds, strict=True):
        if chosen.any():
            x, y = points[chosen].T
            ink = figures.colour_of(colour)
            axes.scatter(x, y, size, ink, marker=marker, lw=0.5, alpha=0.7, label=name)
    axes.spines[:].set(visible=True, color=rcParams["axes.edgecolor"], alpha=0.4)
    axes.set(xticks=[], yticks=[], title=figures.title([result]))
    return points[domain == 0], label[domain == 0]


def _chosen(saved: Features, limit: int) -> np.ndarray:
    """Return the indices of at most ``limit`` images of each domain."""
    order = np.random.default_rng(0).permutation(len(saved.features))
    of_both = [order[saved.domain[order] == value][:limit] for value in (0, 1)]
    return np.sort(np.concatenate(of_both))


def _embed(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float32)
    components = min(50, *features.shape)
    features = PCA(components, random_state=0).fit_transform(features)
    perplexity = min(30, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)


def _mistaken(result: Result, saved: Features) -> np.ndarray:
    """Return which images are of the target, labelled, and given another category."""
    mistaken = np.zeros(len(saved.features), dtype=bool)
    if saved.logits is not None:
        logits = torch.from_numpy(saved.logits)
        answers = evaluation.classifiers(logits, len(result.categories))[result.classifier]
        label = saved.label[saved.domain == 1]
        mistaken[saved.domain == 1] = (label >= 0) & (answers.argmax(1).numpy() != label)
    return mistaken


def _name_categories(axes: Axes, result: Result, points: np.ndarray, label: np.ndarray) -> None:
    """Write the categories' names above or below their points, where they meet no other name."""
    frame, taken = axes.get_window_extent(), []
    outline = [withStroke(linewidth=1.5, foreground=rcParams["axes.facecolor"])]
    recall = [result.per_category.get(name) for name in result.categories]
    order = np.argsort([np.inf if r is None else r for r in recall], kind="stable")
    for k in (k for k in order if (label == k).any()):
        x, y = _middle_half(points[label == k]).T
        for height, side in ((y.max(), "bottom"), (y.min(), "top")):
            text = axes.text(np.median(x), height, figures.plain(result.categories[k]), size=6)
            text.set(ha="center", va=side, path_effects=outline, in_layout=False)
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
