"""The demo's pictures: both domains' images, the error over epochs, a t-SNE of the features."""

from pathlib import Path

import numpy as np
import torch
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sklearn.manifold import TSNE
from torch import Tensor

from digits.data import Digits
from digits.results import Run

TITLES = {"source-only": "Source only", "symnets": "SymNets", "symnets-balanced": "Balanced"}
TSNE_POINTS = 500  # of each domain
# Distinguishable for colour-blind readers.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#888888"


def plot_samples(printed: Tensor, handwritten: Tensor, path: Path) -> None:
    """Show images of both domains side by side."""
    figure = Figure(figsize=(6.4, 1.95), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set_title("Source: printed, labelled", color=BLUE)
    right.set_title("Target: handwritten, unlabelled", color=ORANGE)
    for axes, images in ((left, printed), (right, handwritten)):
        tiles = np.pad(images[:50, 0].cpu().numpy(), ((0, 0), (1, 1), (1, 1)))
        axes.imshow(tiles.reshape(5, 10, 10, 10).swapaxes(1, 2).reshape(50, 100), cmap="gray_r")
        axes.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=200)


def plot_convergence(runs: list[Run], path: Path) -> None:
    """Plot the target error of both classifiers over epochs, the paper's Figure 4."""
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.subplots()
    for method, accuracy, label, colour, style in (
        ("source-only", "target_accuracy/C_t", "Source only", GREY, "s--"),
        ("symnets", "target_accuracy/C_t", "SymNets, $C^t$", ORANGE, "o-"),
        ("symnets", "target_accuracy/C_s", "SymNets, $C^s$", BLUE, "^:"),
        ("symnets-balanced", "target_accuracy/C_t", "Balanced, $C^t$", GREEN, "D-"),
    ):
        histories = [run.history for run in runs if run.method == method]
        if histories:
            errors = 100 - np.array([[epoch[accuracy] for epoch in h] for h in histories])
            epochs = np.arange(1, errors.shape[1] + 1)
            axes.plot(epochs, errors.mean(0), style, color=colour, markersize=5, label=label)
    seeds = len({run.seed for run in runs})
    mean = "" if seeds == 1 else f", mean of {seeds} seeds"
    axes.set(xlabel=f"Epoch{mean}", ylabel="Error on handwritten digits (%)", ylim=(0, None))
    axes.locator_params("x", integer=True)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=200)


@torch.no_grad()
def plot_tsne(runs: list[Run], source: Digits, target: Digits, path: Path) -> None:
    """Plot a t-SNE of both domains' features for runs of one seed, the paper's Figure 3.

    Handwritten digits that the target classifier C^t gets wrong stand out.
    """
    seed = runs[0].seed
    figure = Figure(figsize=(3.6 * len(runs), 4.0), layout="constrained")
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    rng = np.random.default_rng(seed)
    printed, handwritten = (
        rng.choice(len(images), TSNE_POINTS, replace=False)
        for images in (source.images, target.images)
    )
    images = torch.cat([source.images[printed], target.images[handwritten]])
    labels = source.labels[printed].cpu().numpy()
    outline = [withStroke(linewidth=3, foreground=rcParams["axes.facecolor"])]
    for axes, run in zip(panels, runs, strict=True):
        features = run.extractor(images)
        predicted = run.head.predict(features[TSNE_POINTS:])
        wrong = (predicted != target.labels[handwritten]).cpu().numpy()
        points = TSNE(random_state=seed).fit_transform(features.cpu().numpy())
        left, right = points[:TSNE_POINTS], points[TSNE_POINTS:]
        axes.scatter(*left.T, 9, BLUE, marker="o", linewidths=0, label="Printed")
        axes.scatter(*right[~wrong].T, 11, ORANGE, marker="x", linewidths=0.8, label="Handwritten")
        axes.scatter(
            *right[wrong].T,
            14,
            rcParams["text.color"],
            marker="x",
            linewidths=1,
            label="Handwritten, misread",
        )
        for digit in range(10):
            x, y = np.median(left[labels == digit], axis=0)
            text = axes.text(x, y, str(digit), size=13, weight="bold", ha="center", va="center")
            text.set_path_effects(outline)
        title, accuracy = TITLES[run.method], run.final["target_accuracy/C_t"]
        axes.set(xticks=[], yticks=[], title=f"{title}: target accuracy {accuracy:.0f} %")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False, markerscale=2)
    figure.savefig(path, dpi=200)
