"""Settings for adapting the segmentation of examples/recipes/dense_prediction.py.

    python benchmarks/dense.py > results/dense_development.csv

Scenes, network, optimizers and columns are the recipe's, whose settings were chosen on these seeds.
Tried:

    weights             class weights in every labelled loss
    later               λ is 0 in the first half of training
    V2                  symnet_v2_losses
    half                losses at the size of the features, a quarter of the positions
    balance             λ times category_balance, with shares that EM estimates from source only
    class confusion     λ times minimum class confusion (Jin et al., 2020), and source only
    entropy only        λ times the entropy of the target's predictions (10), and source only
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import timing  # noqa: F401 - puts examples/ on the path
import torch
from recipes import dense_prediction as recipe
from recipes.dense_prediction import Network, Objective
from torch import Tensor

import symloss
from symloss.functional import category_balance, split_logits, symmetric_entropy


@dataclass
class Setting:
    """SymNets' objective with one setting of those tried."""

    weight: Tensor | None = None
    losses: Callable[..., symloss.SymNetLosses | symloss.SymNetV2Losses] = symloss.symnet_losses
    later: bool = False
    half: bool = False
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
        lam = symloss.progressive_lambda(progress)
        loss = losses.total(lam)
        if self.prior is not None:
            loss = loss + lam * category_balance(target.extractor, self.prior)
        return loss


def class_confusion(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """Return minimum class confusion over all positions of the target classifier."""
    log_p = (split_logits(logits)[1].movedim(1, -1).flatten(0, -2) / temperature).log_softmax(1)
    certainty = 1 + (log_p.exp() * log_p).sum(1).exp()
    weight = (certainty / certainty.mean())[:, None]
    confusion = (weight * log_p.exp()).T @ log_p.exp()
    confusion = confusion / confusion.sum(1, keepdim=True)
    return (confusion.sum() - confusion.trace()) / len(confusion)


def with_target(
    loss: Callable[[Tensor], Tensor],
    network: Network,
    x_s: Tensor,
    y_s: Tensor,
    x_t: Tensor,
    progress: float,
    weight: Tensor,
) -> Tensor:
    """Return source only's losses and λ times a loss of the target."""
    on_source = recipe.source_only(network, x_s, y_s, x_t, progress, weight)
    lam = symloss.progressive_lambda(progress)
    return on_source + lam * loss(network(x_t))


@torch.no_grad()
def estimate_shares(network: Network, images: Tensor, trained_on: Tensor) -> Tensor:
    """Return the categories' shares of the pixels, (K,), by EM (Saerens et al., 2002)."""
    p = torch.cat([split_logits(network(x))[1].softmax(1) for x in images.split(32)])
    p = p[:, :, ::3, ::3].movedim(1, -1).flatten(0, 2)
    shares = trained_on
    for _ in range(50):
        posterior = p * (shares / trained_on)
        shares = (posterior / posterior.sum(1, keepdim=True)).mean(0)
    return shares


def settings(weight: Tensor, shares: Tensor) -> dict[str, Objective]:
    """Return the settings to compare with source only."""
    v2, setting = symloss.symnet_v2_losses, partial(Setting, weight)
    return {
        "as published": Setting(),
        "later": Setting(later=True),
        "weights": setting(),
        "weights, later": setting(later=True),
        "weights, later, half": setting(later=True, half=True),
        "weights, V2, later": setting(v2, later=True),
        "weights, later, balance": setting(later=True, prior=shares),
        "weights, class confusion": partial(with_target, class_confusion, weight=weight),
        "weights, entropy only": partial(with_target, symmetric_entropy, weight=weight),
    }


def main(argv: list[str] | None = None) -> None:
    """Train every setting with every seed and print a line for each."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[100, 101, 102], metavar="N")
    add("--quick", action="store_true", help="two steps, to check that the script runs")
    args = parser.parse_args(argv)
    count, steps = (16, 2) if args.quick else (256, 300)
    print(recipe.COLUMNS)
    for seed in args.seeds:
        data = recipe.domains(seed, count)
        source, x_target, _ = data
        shares = recipe.shares_of(source[1])
        weight = recipe.class_weights(shares)
        source_only = partial(recipe.source_only, weight=weight)
        network = recipe.measure("source only, weights", source_only, data, seed, steps)
        estimate = estimate_shares(network, x_target, weight * shares)
        for name, objective in settings(weight, estimate).items():
            recipe.measure(name, objective, data, seed, steps)


if __name__ == "__main__":
    main()
