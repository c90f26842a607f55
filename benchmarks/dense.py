"""Which settings adapt the segmentation of examples/recipes/dense_prediction.py?

    python benchmarks/dense.py --seeds 100 101 102 --out results/dense_development.csv

Scenes, network and optimizers are the recipe's, whose settings were chosen on these seeds. A line
holds seed, setting, mIoU in % on other target scenes, with batch norm's statistics of training and
with the target's, and the seconds of training. What was tried:

    as published        symnet_losses, λ from progressive_lambda
    weights             class weights in every labelled loss
    λ / 10              a tenth of λ throughout
    V2                  symnet_v2_losses
    half                losses at the features' size, a quarter of the positions
    later               λ is 0 in the first half of training
    balance w, shares   w λ category_balance with the source's shares, or with those estimated
    from source only    starts from the source-only network instead of random weights
    target labels       what the network reaches if it is given the target's labels
"""

import argparse
import copy
import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import timing
import torch
from recipes import dense_prediction as recipe  # timing has put examples/ on the path
from recipes.dense_prediction import Network, Objective
from torch import Tensor

import symloss

SOURCE_ONLY, CONTINUED = "source only, weights", "weights, from source only"
SUPERVISED = "target labels"
Pair = tuple[Tensor, Tensor]  # images and labels

COLUMNS = ["seed", "setting", "miou", "miou_target_statistics", "seconds"]


@dataclass
class Setting:
    """SymNets' objective with what was tried."""

    weight: Tensor | None = None
    losses: Callable[..., symloss.SymNetLosses | symloss.SymNetV2Losses] = symloss.symnet_losses
    scale: float = 1.0
    later: bool = False
    half: bool = False
    balance: float = 0.0
    prior: Tensor | None = None

    def __call__(
        self, network: Network, x_s: Tensor, y_s: Tensor, x_t: Tensor, progress: float
    ) -> Tensor:
        """Return both players' losses of a batch."""
        if self.half:
            source, target = (network.head.route(network.backbone(x)) for x in (x_s, x_t))
            y_s = y_s[:, ::2, ::2]
        else:
            source, target = network.route(x_s), network.route(x_t)
        losses = self.losses(source, y_s, target, weight=self.weight, ignore_index=recipe.VOID)
        progress = max(0.0, 2 * progress - 1) if self.later else progress
        lam = self.scale * symloss.progressive_lambda(progress)
        loss = losses.total(lam)
        if self.balance:
            balance = symloss.functional.category_balance(target.extractor, self.prior)
            loss = loss + self.balance * lam * balance
        return loss


def settings(weight: Tensor, shares: Tensor, estimated: Tensor) -> dict[str, Objective]:
    """Return what is tried, by name."""
    v2 = symloss.symnet_v2_losses
    balanced = partial(Setting, weight, prior=estimated)
    return {
        "as published": Setting(),
        "λ / 10": Setting(scale=0.1),
        "V2": Setting(losses=v2),
        "balance 3 estimated": Setting(balance=3, prior=estimated),
        "weights": Setting(weight),
        "weights, λ / 10": Setting(weight, scale=0.1),
        "weights, V2": Setting(weight, v2),
        "weights, half": Setting(weight, half=True),
        "weights, later": Setting(weight, later=True),
        "weights, balance 3 source": Setting(weight, balance=3, prior=shares),
        "weights, balance 1 estimated": balanced(balance=1),
        "weights, balance 3 estimated": balanced(balance=3),
        "weights, later, balance 1 estimated": balanced(balance=1, later=True),
        "weights, later, balance 3 estimated": balanced(balance=3, later=True),
        "weights, half, later, balance 3 estimated": balanced(balance=3, later=True, half=True),
    }


def measure(
    objective: Objective,
    labelled: Pair,
    x_target: Tensor,
    test: Pair,
    seed: int,
    steps: int,
    start: Network | None = None,
) -> tuple[Network, list[str]]:
    """Return a trained network, with the target's statistics, and the last cells of its line."""
    torch.manual_seed(seed)
    network = copy.deepcopy(start) if start else Network()
    began = time.perf_counter()
    recipe.train(network, objective, labelled, x_target, steps)
    seconds = time.perf_counter() - began
    own = recipe.mean_iou(network, *test)
    recipe.take_statistics(network, x_target)
    return network, [f"{x:.2f}" for x in (own, recipe.mean_iou(network, *test), seconds)]


def lines(seed: int, names: list[str], count: int, steps: int) -> Iterator[list[str]]:
    """Yield setting, mIoU, mIoU with the target's statistics, and seconds."""
    torch.manual_seed(seed)
    source, target = recipe.draw("source", count), recipe.draw("target", count)
    test = recipe.draw("target", count // 2)
    run = partial(measure, x_target=target[0], test=test, seed=seed, steps=steps)
    shares = recipe.shares_of(source[1])
    weight = recipe.class_weights(shares)
    supervised = partial(recipe.source_only, weight=weight)
    network, cells = run(supervised, source)  # whose estimate of the shares the others need
    if SOURCE_ONLY in names:
        yield [SOURCE_ONLY, *cells]
    estimated = recipe.estimate_shares(network, target[0], weight * shares)
    for name, objective in settings(weight, shares, estimated).items():
        if name in names:
            yield [name, *run(objective, source)[1]]
    if CONTINUED in names:
        yield [CONTINUED, *run(Setting(weight), source, start=network)[1]]
    if SUPERVISED in names:
        yield [SUPERVISED, *run(supervised, target)[1]]


def main(argv: list[str] | None = None) -> None:
    """Train every setting with every seed; print a line for each and add it to the file."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[100, 101, 102], metavar="N")
    names = [SOURCE_ONLY, *settings(*torch.ones(3, recipe.K)), CONTINUED, SUPERVISED]
    add("--settings", choices=names, nargs="+", default=names, metavar="NAME")
    add("--quick", action="store_true", help="two steps, to check that the script runs")
    add("--out", type=timing.console.new_file, metavar="FILE", help="CSV file to add the lines to")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    count, steps = (16, 2) if args.quick else (256, 300)
    for seed in args.seeds:
        for line in lines(seed, args.settings, count, steps):
            row = [str(seed), *line]
            print(*row, sep=", ", flush=True)
            if args.out:
                new = not args.out.exists()
                with open(args.out, "a", encoding="utf-8", newline="") as file:
                    csv.writer(file, lineterminator="\n").writerows(
                        [COLUMNS, row] if new else [row]
                    )


if __name__ == "__main__":
    main()
