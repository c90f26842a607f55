"""Adapt a classifier from printed digits, which have labels, to handwritten ones, which have none.

Source domain: digits rendered in the fonts that Matplotlib ships. Target domain: the 1,797
handwritten digits that scikit-learn ships. Both are 8x8 images, each pixel the number of
on-pixels, 0 to 16, in a 4x4 block of a 32x32 bitmap. A small network is trained twice from the
same seed:

    source-only   cross-entropy of C^t on printed digits: a plain 10-way classifier
    symnets       eq. (11) of the paper on printed digits and unlabelled handwritten ones

Both see the same printed digits in the same batches, and share initial weights, optimizer and
schedule. SymNets train on all 1,797 handwritten images, without their labels. Accuracy is measured
at the end of the last epoch on the images of odd index only: network, rendering and schedule were
chosen with the images of even index and with seeds 100 to 104.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from digits.data import Digits, load_handwritten, render_digits
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sklearn.manifold import TSNE
from torch import Tensor, nn
from tqdm import tqdm

import symloss

NAMES = {"source-only": "Source only", "symnets": "SymNets"}
SCORED = slice(1, None, 2)  # the development half is slice(0, None, 2)
SOURCE_SIZE = 4000
FEATURES = 128
TSNE_POINTS = 500  # of each domain
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"  # told apart by the colour-blind


class Run(NamedTuple):
    """One trained network, its scores after every epoch, and the seconds it took."""

    extractor: nn.Module
    head: symloss.SymmetricHead
    history: list[dict[str, float]]
    seconds: float


Score = Callable[[nn.Module, symloss.SymmetricHead], dict[str, float]]


# ---- Data -------------------------------------------------------------------------------------


def batches(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Yield indices of random batches without end; an incomplete batch is dropped."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).split(size)[: count // size]


# ---- Training ---------------------------------------------------------------------------------


def build_extractor() -> nn.Sequential:
    """Build the feature extractor, ``(N, 1, 8, 8)`` to ``(N, FEATURES)``."""

    def conv(channels: int, width: int) -> list[nn.Module]:
        layer = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        return [layer, nn.BatchNorm2d(width), nn.ReLU()]

    return nn.Sequential(
        *conv(1, 24),
        *conv(24, 24),
        nn.MaxPool2d(2),
        *conv(24, 48),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(48 * 2 * 2, FEATURES),
        nn.ReLU(),
    )


def train(
    method: str,
    source: Digits,
    target_images: Tensor,
    score: Score,
    *,
    seed: int,
    epochs: int,
    batch_size: int,
    lr: float,
) -> Run:
    """Train extractor and head from scratch; no label of the target domain comes in here.

    Args:
        method: ``"source-only"`` or ``"symnets"``.
        source: Labelled images.
        target_images: Unlabelled images, used by ``"symnets"`` only.
        score: Called after every epoch; what it returns goes into the history, nowhere else.
        seed: Seed of initial weights and batches.
        epochs: Passes over the source images.
        batch_size: Images of each domain in a batch.
        lr: Initial learning rate of extractor and head.
    """
    torch.manual_seed(seed)
    start = time.perf_counter()
    device = target_images.device
    extractor = build_extractor().to(device, memory_format=torch.channels_last)
    head = symloss.SymmetricHead(FEATURES, 10).to(device)
    optimizers = [
        torch.optim.SGD(m.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
        for m in (extractor, head)
    ]
    step = symloss.TwoOptimizerStep(*optimizers)
    steps_per_epoch = len(source.images) // batch_size
    total = epochs * steps_per_epoch
    schedulers = [symloss.AnnealedLR(optimizer, total) for optimizer in optimizers]
    source_batches = batches(len(source.images), batch_size, seed)
    target_batches = batches(len(target_images), batch_size, seed)

    history = []
    with tqdm(total=total, desc=f"seed {seed}, {method:11}", unit="step") as bar:
        for epoch in range(epochs):
            extractor.train()
            summed = torch.zeros((), device=device)
            for i in range(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch):
                index = next(source_batches)
                labels = source.labels[index]
                features = extractor(source.images[index])
                if method == "source-only":
                    loss = symloss.functional.target_task(head(features), labels)
                else:
                    target_features = extractor(target_images[next(target_batches)])
                    losses = symloss.symnet_losses(
                        head.route(features), labels, head.route(target_features)
                    )
                    loss = losses.total(symloss.progressive_lambda(i / total))
                step(loss)
                for scheduler in schedulers:
                    scheduler.step()
                summed += loss.detach()
                bar.update()
            mean_loss = summed.item() / steps_per_epoch
            if not math.isfinite(mean_loss):
                raise SystemExit(f"{method} diverged: loss {mean_loss}; try a smaller --lr")
            extractor.eval()
            history.append({"loss": mean_loss, **score(extractor, head)})
            if method == "source-only":
                del history[-1]["source"]  # C^s was not trained
            bar.set_postfix(loss=f"{mean_loss:.3f}", accuracy=f"{history[-1]['target']:.1f} %")
    return Run(extractor, head, history, time.perf_counter() - start)


@torch.no_grad()
def accuracy(extractor: nn.Module, head: symloss.SymmetricHead, digits: Digits) -> dict[str, float]:
    """Return the accuracy of C^t and C^s in percent: the one place where target labels are read."""
    features = extractor(digits.images)
    return {
        name: 100 * (head.predict(features, name) == digits.labels).double().mean().item()
        for name in ("target", "source")
    }


# ---- Report -----------------------------------------------------------------------------------


def mean_and_error(values: list[float]) -> str:
    """Format the mean and its standard error."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.1f} ± {error:.1f}"


def print_table(runs: dict[str, dict[int, Run]], scored: int) -> None:
    """Print accuracy and time of every run, then means, standard errors and the paired gain."""
    seeds = list(next(iter(runs.values())))
    rows = []
    for seed in [*seeds, "mean"] if len(seeds) > 1 else seeds:
        for method, by_seed in runs.items():
            chosen = by_seed.values() if seed == "mean" else [by_seed[seed]]
            c_t = [run.history[-1]["target"] for run in chosen]
            c_s = [run.history[-1].get("source", math.nan) for run in chosen]
            seconds = statistics.mean(run.seconds for run in chosen)
            c_s_text = "-" if math.isnan(c_s[0]) else mean_and_error(c_s)
            rows.append((method, str(seed), mean_and_error(c_t), c_s_text, f"{seconds:.1f}"))
    print(f"\nAccuracy (%) on {scored} handwritten digits after the last epoch")
    for row in [("method", "seed", "C^t", "C^s", "seconds"), *rows]:
        print("{:12} {:>5} {:>13} {:>13} {:>9}".format(*row))
    if len(runs) == 2:
        before, after = (
            [run.history[-1]["target"] for run in runs[method].values()] for method in NAMES
        )
        gains = [b - a for a, b in zip(before, after, strict=True)]
        print(f"{'gain':12} {'':5} {mean_and_error(gains):>13}")


def write_results(runs: dict[str, dict[int, Run]], settings: dict[str, object], path: Path) -> None:
    """Write settings and the history of every run as JSON."""
    results = {
        method: {
            str(seed): {"seconds": run.seconds, "epochs": run.history}
            for seed, run in by_seed.items()
        }
        for method, by_seed in runs.items()
    }
    versions = {"symloss": symloss.__version__, "torch": torch.__version__}
    text = json.dumps({"settings": settings, "versions": versions, "results": results}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def plot_samples(source: Digits, target: Tensor, path: Path) -> None:
    """Show images of both domains side by side."""
    figure = Figure(figsize=(6.4, 1.95), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set_title("Source: printed, labelled", color=BLUE)
    right.set_title("Target: handwritten, unlabelled", color=ORANGE)
    for axes, images in ((left, source.images), (right, target)):
        tiles = np.pad(images[:50, 0].cpu().numpy(), ((0, 0), (1, 1), (1, 1)))
        axes.imshow(tiles.reshape(5, 10, 10, 10).swapaxes(1, 2).reshape(50, 100), cmap="gray_r")
        axes.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=200)


def plot_convergence(runs: dict[str, dict[int, Run]], path: Path) -> None:
    """Plot the target error of both classifiers over epochs, the paper's Figure 4."""
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.subplots()
    for method, key, label, colour, style in (
        ("source-only", "target", "Source only", GREY, "s--"),
        ("symnets", "target", "SymNets, $C^t$", ORANGE, "o-"),
        ("symnets", "source", "SymNets, $C^s$", BLUE, "^:"),
    ):
        if method in runs:
            errors = 100 - np.array([[e[key] for e in r.history] for r in runs[method].values()])
            epochs = np.arange(1, errors.shape[1] + 1)
            axes.plot(epochs, errors.mean(0), style, color=colour, markersize=5, label=label)
    seeds = len(next(iter(runs.values())))
    mean = "" if seeds == 1 else f", mean of {seeds} seeds"
    axes.set(xlabel=f"Epoch{mean}", ylabel="Error on handwritten digits (%)", ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=200)


@torch.no_grad()
def plot_tsne(
    runs: dict[str, Run], source: Digits, target_images: Tensor, seed: int, path: Path
) -> None:
    """Plot a t-SNE of both domains' features for each method, the paper's Figure 3."""
    figure = Figure(figsize=(3.9 * len(runs), 4.2), layout="constrained")
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    rng = np.random.default_rng(seed)
    printed, handwritten = (
        rng.choice(len(images), TSNE_POINTS, replace=False)
        for images in (source.images, target_images)
    )
    images = torch.cat([source.images[printed], target_images[handwritten]])
    labels = source.labels[printed].cpu().numpy()
    outline = [withStroke(linewidth=3, foreground="white")]
    for axes, (method, run) in zip(panels, runs.items(), strict=True):
        points = TSNE(random_state=seed).fit_transform(run.extractor(images).cpu().numpy())
        left, right = points[:TSNE_POINTS], points[TSNE_POINTS:]
        axes.scatter(*left.T, 9, BLUE, marker="o", linewidths=0, label="Printed")
        axes.scatter(*right.T, 11, ORANGE, marker="x", linewidths=0.8, label="Handwritten")
        for digit in range(10):
            x, y = np.median(left[labels == digit], axis=0)
            text = axes.text(x, y, str(digit), size=13, weight="bold", ha="center", va="center")
            text.set_path_effects(outline)
        name, accuracy = NAMES[method], run.history[-1]["target"]
        axes.set(xticks=[], yticks=[], title=f"{name}: target accuracy {accuracy:.0f} %")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False, markerscale=2)
    figure.savefig(path, dpi=200)


# ---- Command line -----------------------------------------------------------------------------


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return an argparse type for whole numbers from ``low`` to ``high``."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {low} to {high}, got {text!r}"
            )
        return value

    return convert


def learning_rate(text: str) -> float:
    """Convert a learning rate for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def usable_device(text: str) -> torch.device:
    """Convert the name of a device for argparse, if this machine has it."""
    try:
        torch.zeros(1, device=text).item()
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise argparse.ArgumentTypeError(
            f"must be a device of this machine, such as cpu or cuda, got {text!r}"
        ) from error
    return torch.device(text)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s [options]",
        description="Adapt a classifier from printed digits, which have labels, to handwritten "
        "ones, which have none. Needs no download and no GPU.",
    )

    def add(name: str, what: str, default: Any, **options: Any) -> None:
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        parser.add_argument(name, default=default, help=f"{what} (default: {shown})", **options)

    add("--methods", "what to train", list(NAMES), nargs="+", choices=NAMES, metavar="METHOD")
    add(
        "--seeds",
        "seeds of digits, weights, batches",
        [0],
        nargs="+",
        type=whole(0, 2**32 - 1),
        metavar="N",
    )
    add("--epochs", "passes over the printed digits", 10, type=whole(1, 10**6), metavar="N")
    add("--batch-size", "images of each domain in a batch", 64, type=whole(2, 1797), metavar="N")
    add("--lr", "learning rate at the start", 0.05, type=learning_rate, metavar="X")
    add("--device", "such as cpu, cuda, cuda:1 or mps", "cpu", type=usable_device, metavar="NAME")
    add("--out", "folder for results and pictures", "runs/digits", type=Path, metavar="FOLDER")
    parser.add_argument("--no-plots", action="store_true", help="write results.json only")
    arguments = parser.parse_args(argv)
    for name in ("methods", "seeds"):
        values = getattr(arguments, name)
        if len(set(values)) < len(values):
            parser.error(f"argument --{name}: must differ, got {' '.join(map(str, values))}")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=arguments.out).close()
    except OSError as error:
        parser.error(
            f"argument --out: must be a folder that can be written to, got {arguments.out} "
            f"({error.strerror})"
        )
    return arguments


def main(argv: list[str] | None = None) -> None:
    """Train every method with every seed, print the table and write the results."""
    arguments = parse_arguments(argv)
    # The network is too small to gain from threads; one gives the same numbers on any count.
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    handwritten = load_handwritten().to(arguments.device)
    images = handwritten.images
    scored = Digits(images[SCORED], handwritten.labels[SCORED])
    score = partial(accuracy, digits=scored)

    runs: dict[str, dict[int, Run]] = {method: {} for method in arguments.methods}
    for seed in arguments.seeds:
        source = render_digits(SOURCE_SIZE, seed).to(arguments.device)
        for method in arguments.methods:
            runs[method][seed] = train(
                method,
                source,
                images,
                score,
                seed=seed,
                epochs=arguments.epochs,
                batch_size=arguments.batch_size,
                lr=arguments.lr,
            )

    out: Path = arguments.out
    print_table(runs, len(scored.labels))
    settings = {**vars(arguments), "device": str(arguments.device), "out": str(out)}
    write_results(runs, settings, out / "results.json")
    if not arguments.no_plots:
        # Samples and t-SNE show the last seed.
        plot_samples(source, images, out / "samples.png")
        plot_convergence(runs, out / "convergence.png")
        last = {method: by_seed[seed] for method, by_seed in runs.items()}
        plot_tsne(last, source, images, seed, out / "tsne.png")
    print(f"\nResults are in {out}")


if __name__ == "__main__":
    main()
