"""Adapt a classifier from printed digits, which have labels, to handwritten ones, which have none.

Source domain: digits rendered in the fonts that Matplotlib ships. Target domain: the 1,797
handwritten digits that scikit-learn ships. Both are 8x8 pixels. A small network is trained three
times from the same seed (C^t is the target classifier):

    source-only        cross-entropy of C^t on printed digits: a plain 10-way classifier
    symnets            eq. (11) of the paper on printed digits and unlabelled handwritten ones
    symnets-balanced   eq. (11); the target's shares of the digits are estimated four times in
                       training, and while they seem equal, a penalty on digits that are predicted
                       more or less often than others

All three see the same printed digits in the same batches and share initial weights, optimizer and
schedule. SymNets train on all 1,797 handwritten images, without their labels. Accuracy is measured
after the last epoch on the odd-indexed images only: network, rendering, schedule and balance weight
were chosen on the even-indexed images, with seeds 100 to 104.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import digits as demo
import torch
from digits import Digits, Run, load_handwritten, render_digits
from office import console, files
from office.console import device, positive, real, whole
from torch import Tensor, nn
from tqdm import tqdm

import symloss

METHODS = ["source-only", "symnets", "symnets-balanced"]
SCORED = slice(1, None, 2)  # the development half is slice(0, None, 2)
SOURCE_SIZE = 4000
FEATURES = 128
TRUSTED = 0.5  # at least, of shares that are believed
ESTIMATES = (0.2, 0.4, 0.6, 0.8)  # of the steps, when symnets-balanced looks at the shares

Score = Callable[[nn.Module, symloss.SymmetricHead], dict[str, float]]
Objective = Callable[..., Tensor]  # of source, labels, target and λ, as symnets


@dataclass(frozen=True)
class Method:
    """A way to train: SymNets with an objective, or without one only C^t, on the source."""

    name: str
    objective: Objective | None = None
    estimates: bool = False  # the target's shares in training, for an argument ``shares``

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The trained classifiers; the last one is also scored on the source."""
        return ("target", "source") if self.objective else ("target",)


@dataclass(frozen=True)
class Recipe:
    """How a run is trained: all settings, besides method and seed, that change the numbers."""

    epochs: int = 10  # passes over the source images
    batch_size: int = 64  # images of each domain
    lr: float = 0.05  # at the start, of extractor and head
    balance: float = 10.0  # its weight in symnets-balanced; the entropy's is 1


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


def symnets(
    source: symloss.RoutedLogits,
    labels: Tensor,
    target: symloss.RoutedLogits,
    lam: float,
    categories: Tensor | None = None,
) -> Tensor:
    """Sum both players' losses of eq. (11); ``categories`` has weights of the digits' labels."""
    losses = symloss.symnet_losses(source, labels, target, weight=categories)
    return losses.total(lam)


def symnets_balanced(
    source: symloss.RoutedLogits,
    labels: Tensor,
    target: symloss.RoutedLogits,
    lam: float,
    weight: float,
    shares: symloss.EstimatedPrior | None = None,
) -> Tensor:
    """Add a penalty, for the extractor, on digits predicted more or less often than others.

    Where ``shares`` tell that the digits are not equally frequent, there is none, because it would
    pull the predictions along with the estimate's errors; digits that seem absent then count less
    in the labelled losses. Nor is there one before the first estimate: on untrained features it
    makes digits change places, equally often, which no count of predictions shows.
    """
    if shares is None:
        return symnets(source, labels, target, lam)
    if shares.trust >= TRUSTED:
        categories = (5 * len(shares.prior) * shares.prior).clamp_max(1)
        return symnets(source, labels, target, lam, categories)
    balance = symloss.functional.category_balance(target.extractor)
    return symnets(source, labels, target, lam) + weight * lam * balance


def estimate_shares(
    extractor: nn.Module, source: Digits, target_images: Tensor, seed: int
) -> symloss.EstimatedPrior:
    """Estimate the digits' shares in the target from the features of a network in training.

    They are those of the estimate before it was shrunk, or equal ones, with trust 0.
    """
    extractor.eval()
    with torch.no_grad():
        features = [extractor(images) for images in (source.images, target_images)]
    extractor.train()
    device = source.images.device
    prior, trust = symloss.estimate_prior(
        *(features[0], source.labels, features[1]), random_state=seed, device=device
    )
    equal = torch.full_like(prior, 1 / len(prior))
    if trust < TRUSTED:
        return symloss.EstimatedPrior(equal.to(device), 0.0)
    shares = (equal + (prior - equal) / trust).clamp_min(0.002)
    return symloss.EstimatedPrior((shares / shares.sum()).to(device), trust)


def batches(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Yield indices of random batches forever, dropping incomplete ones."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).split(size)[: count // size]


def train(
    method: Method, source: Digits, target_images: Tensor, score: Score, recipe: Recipe, seed: int
) -> Run:
    """Train extractor and head from scratch, without any target labels.

    ``score`` is called after every epoch; its result is recorded and used for nothing else.
    """
    torch.manual_seed(seed)
    start, device = time.perf_counter(), target_images.device
    extractor = build_extractor().to(device).to(memory_format=torch.channels_last)
    head = symloss.SymmetricHead(FEATURES, 10).to(device)
    sgd = partial(torch.optim.SGD, lr=recipe.lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
    optimizers = [sgd(extractor.parameters()), sgd(head.parameters())]
    step = symloss.TwoOptimizerStep(*optimizers)
    steps_per_epoch = len(source.images) // recipe.batch_size
    total = recipe.epochs * steps_per_epoch
    schedulers = [symloss.AnnealedLR(optimizer, total) for optimizer in optimizers]
    source_batches = batches(len(source.images), recipe.batch_size, seed)
    target_batches = batches(len(target_images), recipe.batch_size, seed)

    estimates = {int(part * total) for part in ESTIMATES} if method.estimates else set()
    estimated, options = None, {}
    history = []
    with tqdm(total=total, desc=f"seed {seed}, {method.name:16}", unit="step") as bar:
        for epoch in range(recipe.epochs):
            extractor.train()
            summed = torch.zeros((), device=device)
            for i in range(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch):
                if i in estimates:
                    estimated = estimate_shares(extractor, source, target_images, seed)
                    options = {"shares": estimated}
                index = next(source_batches)
                x_s, y_s = source.images[index], source.labels[index]
                if method.objective is None:
                    loss = symloss.functional.target_task(head(extractor(x_s)), y_s)
                else:
                    x_t = target_images[next(target_batches)]
                    routed_s, routed_t = head.route(extractor(x_s)), head.route(extractor(x_t))
                    lam = symloss.progressive_lambda(i / total)
                    loss = method.objective(routed_s, y_s, routed_t, lam, **options)
                step(loss)
                for scheduler in schedulers:
                    scheduler.step()
                summed += loss.detach()
                bar.update()
            mean_loss = summed.item() / steps_per_epoch
            if not math.isfinite(mean_loss):
                raise SystemExit(f"{method.name} diverged: loss {mean_loss}; try a smaller --lr")
            scores = score(extractor, head)
            history.append({"loss": mean_loss, **scores})
            bar.set_postfix(loss=mean_loss, accuracy=scores["target_accuracy/C_t"])
    seconds = time.perf_counter() - start
    final = scores | accuracies(extractor, head, "source", source, method.classifiers[-1:])
    return Run(method.name, seed, extractor, head, history, final, seconds, estimated)


@torch.no_grad()
def accuracies(
    extractor: nn.Module,
    head: symloss.SymmetricHead,
    domain: str,
    digits: Digits,
    classifiers: Sequence[str],
) -> dict[str, float]:
    """Return accuracies and the worst digit's recall (%) in evaluation mode.

    Target labels are read only here and for the colours of the t-SNE.
    """
    extractor.eval()
    features = extractor(digits.images)
    result = {}
    for name in classifiers:
        right = (head.predict(features, name) == digits.labels).double()
        recalls = [right[digits.labels == digit].mean() for digit in digits.labels.unique()]
        result[f"{domain}_accuracy/C_{name[0]}"] = 100 * right.mean().item()
        result[f"{domain}_worst_recall/C_{name[0]}"] = 100 * min(recalls).item()
    return result


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s [options]",
        description="Adapt a classifier from printed digits, which have labels, to handwritten "
        "ones, which have none. Needs no download and no GPU.",
    )
    recipe, size = Recipe(), whole(2, 1797)
    seed, rate = whole(0, 2**32 - 1), real(0, above=True)

    def add(name: str, metavar: str, default: Any, about: str, **settings: Any) -> None:
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        about = f"{about} (default: {shown})"
        parser.add_argument(name, metavar=metavar, default=default, help=about, **settings)

    add("--methods", "M", METHODS, "what to train", nargs="+", choices=METHODS)
    add("--seeds", "N", [0], "seeds of digits, weights and batches", nargs="+", type=seed)
    add("--epochs", "N", recipe.epochs, "passes over the printed digits", type=positive)
    add("--batch-size", "N", recipe.batch_size, "images per domain and step", type=size)
    add("--lr", "X", recipe.lr, "initial learning rate", type=rate)
    add("--balance", "X", recipe.balance, "weight of symnets-balanced's penalty", type=real(0))
    add("--device", "D", "cpu", "for example cpu, cuda, cuda:1 or mps", type=device)
    add("--out", "DIR", "runs/digits", "folder for results and pictures", type=Path)
    parser.add_argument("--no-plots", action="store_true", help="save no pictures")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Train every method with every seed, print the table and write the results."""
    args = parse_arguments(argv)
    files.try_writing(args.out)
    recipe = Recipe(args.epochs, args.batch_size, args.lr, args.balance)
    objectives = [None, symnets, partial(symnets_balanced, weight=recipe.balance)]
    estimates = METHODS[-1] if recipe.balance else None
    methods = {
        name: Method(name, objective, name == estimates)
        for name, objective in zip(METHODS, objectives, strict=True)
    }
    # The network is too small to gain from threads; one gives the same numbers on every machine.
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    handwritten = load_handwritten().to(args.device)
    scored = Digits(handwritten.images[SCORED], handwritten.labels[SCORED])

    runs = []
    for seed in dict.fromkeys(args.seeds):
        source = render_digits(SOURCE_SIZE, seed).to(args.device)
        for name in dict.fromkeys(args.methods):
            classifiers = methods[name].classifiers
            score = partial(accuracies, domain="target", digits=scored, classifiers=classifiers)
            runs.append(train(methods[name], source, handwritten.images, score, recipe, seed))

    # Diagnosis, samples and t-SNE show the last seed.
    last = [run for run in runs if run.seed == seed]
    demo.print_table(runs, len(scored.labels))
    demo.print_diagnosis(last, handwritten.images)
    settings = {**asdict(recipe), "device": str(args.device)}
    demo.write_results(runs, settings, args.out / "results.json")
    if not args.no_plots:
        demo.plot_samples(source.images, handwritten.images, args.out / "samples.png")
        demo.plot_tsne(last, source, scored, args.out / "tsne.png")
    print(f"\nResults are in {args.out}")


if __name__ == "__main__":
    console.run(main)
