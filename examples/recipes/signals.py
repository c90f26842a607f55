"""Sensor signals: the same movements, recorded by a sensor that is worn differently.

    python examples/recipes/signals.py > results/signals.csv

For each seed and method: accuracy on other windows of the target, in %, with the batch-norm
statistics of training and with the target's.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import symloss
from symloss.functional import category_balance, source_task, split_logits, target_task

# Toy data: windows of three axes, 2.56 s at 50 Hz. In the target, the sensor is turned, its scale
# and noise differ, and people move more slowly. Yours goes here, (N, channels, time).
KINDS = ("still", "walking", "stairs", "running", "cycling")
K = len(KINDS)
HERTZ = torch.tensor([0.3, 1.8, 1.5, 2.7, 1.2])
STRENGTH = torch.tensor([0.05, 0.5, 0.45, 1.2, 0.4])  # in g
AXES = torch.tensor([[1.0, 1, 1], [0.3, 0.5, 1], [0.8, 0.3, 0.7], [0.5, 0.4, 1], [1, 0.7, 0.2]])
OVERTONE = torch.tensor([0.0, 0.6, 0.3, 0.4, 0.1])


def record(domain: str, count: int) -> tuple[Tensor, Tensor]:
    """Return windows, (N, 3, 128), and what was done, (N,)."""
    labels = torch.arange(count) % K
    hertz = HERTZ[labels] * (1 + 0.1 * torch.randn(count)) * (1 if domain == "source" else 0.85)
    turns = hertz[:, None, None] * torch.arange(128) / 50 + torch.rand(count, 1, 1)
    offset = 0.25 * torch.tensor([0.0, 1.0, 2.0])[:, None]  # the axes swing one after the other
    swing = (2 * math.pi * (turns + offset)).sin()
    swing = swing + OVERTONE[labels][:, None, None] * (4 * math.pi * (turns + offset)).sin()
    strength = STRENGTH[labels][:, None] * AXES[labels] * (1 + 0.2 * torch.randn(count, 3))
    windows = strength[:, :, None] * swing + torch.tensor([0.0, 0.0, 1.0])[:, None]  # gravity
    if domain == "target":
        angle = torch.tensor(math.radians(50))
        c, s = angle.cos(), angle.sin()
        turn = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        windows = 0.8 * torch.einsum("ij,njt->nit", turn, windows)
    noise = 0.1 if domain == "source" else 0.2
    return windows + noise * torch.randn_like(windows), labels


class Network(nn.Module):
    """Windows, (N, 3, time), to 64 features, and both classifiers."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, width in ((3, 32), (32, 64), (64, 64)):
            layers += [nn.Conv1d(channels, width, 7, stride=2, padding=3), nn.BatchNorm1d(width)]
            layers += [nn.ReLU()]
        self.backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.head = symloss.SymmetricHead(64, K)

    def forward(self, x: Tensor) -> Tensor:
        """Return the joint logits."""
        logits: Tensor = self.head(self.backbone(x))
        return logits


def train(
    source: tuple[Tensor, Tensor],
    x_target: Tensor,
    total: int,
    adapt: bool = True,
    later: bool = False,
    shares: Tensor | None = None,
) -> Network:
    """Return a trained network.

    Args:
        source: Windows and labels.
        x_target: Windows.
        total: Steps of 32 + 32 windows.
        adapt: Whether to use SymNets; otherwise train on the source alone.
        later: Whether the extractor's domain losses start halfway through training.
        shares: Category shares that the target predictions are balanced towards.
    """
    network = Network()
    step = symloss.TwoOptimizerStep(
        extractor=torch.optim.SGD(network.backbone.parameters(), lr=0.02, momentum=0.9),
        head=torch.optim.SGD(network.head.parameters(), lr=0.02, momentum=0.9),
    )
    for i in range(total):
        index_s, index_t = torch.randint(len(x_target), (2, 32))
        x_s, y_s = (tensor[index_s] for tensor in source)
        if not adapt:
            logits = network(x_s)
            step(source_task(logits, y_s) + target_task(logits, y_s))
            continue
        routed_s = network.head.route(network.backbone(x_s))
        routed_t = network.head.route(network.backbone(x_target[index_t]))
        progress = max(0.0, 2 * i / total - 1) if later else i / total
        lam = symloss.progressive_lambda(progress)
        loss = symloss.symnet_losses(routed_s, y_s, routed_t).total(lam)
        if shares is not None:
            loss = loss + lam * category_balance(routed_t.extractor, shares)
        step(loss)
    return network.eval()


@torch.no_grad()
def take_statistics(network: Network, x: Tensor) -> None:
    """Replace batch norm's statistics, a mixture of both domains, with those of x (AdaBN)."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 1.0
    network.train()(x)
    network.eval()


@torch.no_grad()
def accuracy(network: Network, x: Tensor, labels: Tensor) -> float:
    """Return the target classifier's accuracy, in %."""
    _, logits = split_logits(network(x))
    return float(100 * (logits.argmax(1) == labels).float().mean())


@torch.no_grad()
def estimate_shares(network: Network, source: tuple[Tensor, Tensor], x_target: Tensor) -> Tensor:
    """Estimate the category shares of the target, from features with each domain's statistics."""
    features = []
    for x in (source[0], x_target):
        take_statistics(network, x)
        features.append(network.backbone(x))
    return symloss.estimate_prior(features[0], source[1], features[1], random_state=0).prior


def experiment(seed: int, total: int = 300) -> Iterator[tuple[str, float, float]]:
    """Yield each method and its accuracies, with training's and the target's statistics."""
    torch.manual_seed(seed)
    source, (x_target, _), test = (record(d, 1000) for d in ("source", "target", "target"))
    settings: dict[str, dict[str, Any]] = {
        "source only": {"adapt": False},
        "SymNets as published": {},
        "SymNets, λ later": {"later": True},
        "SymNets, λ later, balanced": {"later": True},
    }
    for name, setting in settings.items():
        torch.manual_seed(seed)
        network = train(source, x_target, total, **setting)
        own = accuracy(network, *test)
        take_statistics(network, x_target)
        yield name, own, accuracy(network, *test)
        if name == "source only":
            shares = estimate_shares(network, source, x_target)
            settings["SymNets, λ later, balanced"]["shares"] = shares


def main(seeds: Iterable[int] = (0, 1, 2), total: int = 300) -> None:
    """Print a line for each seed and method."""
    print("seed,method,accuracy,with_target_statistics")
    for seed in seeds:
        for name, own, adapted in experiment(seed, total):
            print(f'{seed},"{name}",{own:.1f},{adapted:.1f}', flush=True)


if __name__ == "__main__":
    main()
