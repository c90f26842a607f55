"""One-dimensional series: the same movements, recorded by a sensor that is worn differently."""

import math
import statistics
from collections.abc import Iterator

import torch
from torch import Tensor, nn

import symloss
from symloss.functional import source_task, target_task

# Toy data: windows of three axes, 2.56 s at 50 Hz. In the target the sensor is turned, its scale
# and noise are others, and people move more slowly. Yours goes here, (N, channels, time).
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


def new_backbone() -> nn.Sequential:
    """Return a network of windows, (N, 3, time), to features, (N, 64)."""
    layers: list[nn.Module] = []
    for channels, width in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv1d(channels, width, 7, stride=2, padding=3), nn.BatchNorm1d(width)]
        layers += [nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten())


def train(
    adapt: bool, x_source: Tensor, y_source: Tensor, x_target: Tensor, total: int = 300
) -> tuple[nn.Sequential, symloss.SymmetricHead]:
    """Return backbone and head, trained on the source alone or with SymNets."""
    backbone, head = new_backbone(), symloss.SymmetricHead(64, K)
    step = symloss.TwoOptimizerStep(
        extractor=torch.optim.SGD(backbone.parameters(), lr=0.02, momentum=0.9),
        head=torch.optim.SGD(head.parameters(), lr=0.02, momentum=0.9),
    )
    for i in range(total):
        index_s, index_t = torch.randint(len(x_source), (2, 32))
        x_s, y_s, x_t = x_source[index_s], y_source[index_s], x_target[index_t]
        if adapt:
            source, target = head.route(backbone(x_s)), head.route(backbone(x_t))
            losses = symloss.symnet_losses(source, y_s, target)
            step(losses.total(lam=symloss.progressive_lambda(i / total)))
        else:
            logits = head(backbone(x_s))
            step(source_task(logits, y_s) + target_task(logits, y_s))
    return backbone.eval(), head


@torch.inference_mode()
def accuracy(backbone: nn.Module, head: symloss.SymmetricHead, x: Tensor, y: Tensor) -> float:
    """Return the target classifier's accuracy, in %."""
    return float(100 * (head.predict(backbone(x)) == y).float().mean())


@torch.inference_mode()
def take_statistics(backbone: nn.Module, x: Tensor) -> None:
    """Replace batch norm's statistics by those of these windows (AdaBN)."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 1.0
    backbone.train()(x)
    backbone.eval()


def experiment(seed: int, total: int = 300) -> Iterator[tuple[str, float]]:
    """Yield each method and its accuracy on other windows of the target."""
    torch.manual_seed(seed)
    source, (x_target, _), test = (record(d, 1000) for d in ("source", "target", "target"))
    for adapt in (False, True):
        torch.manual_seed(seed)
        backbone, head = train(adapt, *source, x_target, total)
        if adapt:
            yield "SymNets", accuracy(backbone, head, *test)
        else:
            yield "source only", accuracy(backbone, head, *test)
            take_statistics(backbone, x_target)
            yield "source only, statistics of the target", accuracy(backbone, head, *test)


def main(seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Print accuracies, seed by seed, and their means."""
    results: dict[str, list[float]] = {}
    for seed in seeds:
        for name, value in experiment(seed):
            results.setdefault(name, []).append(value)
    for name, values in results.items():
        each = " ".join(f"{value:.1f}" for value in values)
        error = statistics.stdev(values) / math.sqrt(len(values))
        print(f"{name}: {each}; target accuracy: {statistics.mean(values):.1f} ± {error:.1f} %")


if __name__ == "__main__":
    main()
