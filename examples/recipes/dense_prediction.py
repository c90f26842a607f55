"""Semantic segmentation: objectives under different light and object frequencies.

    python examples/recipes/dense_prediction.py --seeds 0 1 2 > results/dense.csv
    python examples/recipes/dense_prediction.py --cost > results/dense_cost.csv

For each seed and method: mean intersection over union on other scenes of the target, in %, with
the batch-norm statistics of training and with the target's, and the seconds of training.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

import symloss
from symloss.functional import source_task, split_logits, target_task

# Toy data: scenes of four kinds of objects. In the target, the light, the noise and the frequencies
# of the objects differ, and there are no labels.
NAMES = ("background", "disc", "square", "triangle", "cross")
K, SIZE, VOID = len(NAMES), 48, 255
COLOURS = torch.tensor(
    [[0.2, 0.25, 0.3], [0.85, 0.3, 0.3], [0.3, 0.75, 0.35], [0.35, 0.4, 0.9], [0.85, 0.75, 0.25]]
)
FREQUENCIES = {"source": (0.25, 0.25, 0.25, 0.25), "target": (0.5, 0.05, 0.4, 0.05)}
LIGHT = torch.tensor([[0.4, 0.5, 0.1], [0.1, 0.5, 0.2], [0.4, 0.0, 0.5]])  # target from source RGB


def draw(domain: str, count: int) -> tuple[Tensor, Tensor]:
    """Return scenes, (N, 3, H, W), and the category of each pixel, (N, H, W)."""
    labels = torch.zeros(count, SIZE, SIZE, dtype=torch.long)
    images = (COLOURS[0] + 0.12 * torch.randn(count, 3))[:, :, None, None].repeat(1, 1, SIZE, SIZE)
    grid = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    for image, label in zip(images, labels, strict=True):
        for kind in torch.multinomial(torch.tensor(FREQUENCIES[domain]), 4, replacement=True) + 1:
            radius = float(torch.empty(()).uniform_(4, 8))
            centre = torch.empty(2).uniform_(radius, SIZE - radius)
            y, x = ((g - c) / radius for g, c in zip(grid, centre, strict=True))
            far, near = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
            inside = (
                x**2 + y**2 < 1,
                far < 0.85,
                (y < 0.8) & (y > 2 * x.abs() - 1),
                (near < 0.3) & (far < 1),
            )[int(kind) - 1]
            label[inside] = kind
            image[:, inside] = (COLOURS[kind] + 0.2 * torch.randn(3))[:, None]
    if domain == "target":
        images = 0.1 + torch.einsum("ij,njhw->nihw", LIGHT, images)
    images += (0.05 if domain == "source" else 0.12) * torch.randn_like(images)
    outline = F.max_pool2d(labels[:, None].float(), 3, stride=1, padding=1)[:, 0] != labels
    return images, labels.masked_fill(outline, VOID)  # nobody labels outlines exactly


class Network(nn.Module):
    """A dilated encoder at half the images' size, and both classifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            Conv2dNormActivation(3, 24, stride=2),
            *(Conv2dNormActivation(24, 24, dilation=d) for d in (1, 2, 4, 2, 1)),
        )
        self.head = symloss.SymmetricHead2d(24, K)

    def route(self, x: Tensor) -> symloss.RoutedLogits:
        """Return the joint logits, (N, 2K, H, W), at the size of the images."""
        logits = self.head.route(self.backbone(x))
        return symloss.RoutedLogits(
            *(F.interpolate(v, x.shape[-2:], mode="bilinear") for v in logits)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the joint logits alone."""
        return F.interpolate(self.head(self.backbone(x)), x.shape[-2:], mode="bilinear")


COLUMNS = "seed,method,miou,with_target_statistics,seconds"
Pair = tuple[Tensor, Tensor]  # images and labels
Domains = tuple[Pair, Tensor, Pair]  # source, target images, test
Objective = Callable[[Network, Tensor, Tensor, Tensor, float], Tensor]


def source_only(
    network: Network, x_s: Tensor, y_s: Tensor, x_t: Tensor, progress: float, weight: Tensor
) -> Tensor:
    """Return the cross-entropies (5) and (6), which train both players."""
    logits = network(x_s)
    return source_task(logits, y_s, ignore_index=VOID, weight=weight) + target_task(
        logits, y_s, ignore_index=VOID, weight=weight
    )


def symnets(
    network: Network,
    x_s: Tensor,
    y_s: Tensor,
    x_t: Tensor,
    progress: float,
    weight: Tensor | None = None,
    later: bool = False,
) -> Tensor:
    """Return SymNets' objective; ``later``: λ is 0 in the first half of training."""
    source, target = network.route(x_s), network.route(x_t)
    losses = symloss.symnet_losses(source, y_s, target, weight=weight, ignore_index=VOID)
    return losses.total(
        symloss.progressive_lambda(max(0.0, 2 * progress - 1) if later else progress)
    )


def train(
    network: Network,
    objective: Objective,
    source: Pair,
    x_target: Tensor,
    steps: int = 300,
) -> None:
    """Train a network with an objective."""
    optimizer = partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    step = symloss.TwoOptimizerStep(
        extractor=optimizer(network.backbone.parameters()),
        head=optimizer(network.head.parameters()),
    )
    network.train()
    schedules = [symloss.AnnealedLR(player, steps) for player in step.players.values()]
    for i in range(steps):
        index_s, index_t = torch.randint(len(x_target), (2, 8))
        x_s, y_s = (tensor[index_s] for tensor in source)
        step(objective(network, x_s, y_s, x_target[index_t], i / steps))
        for schedule in schedules:
            schedule.step()


@torch.no_grad()
def take_statistics(network: Network, images: Tensor) -> None:
    """Replace batch norm's statistics with these images' (AdaBN)."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches, instead of the last ones
    network.train()
    for batch in images.split(32):
        network.backbone(batch)
    network.eval()


@torch.no_grad()
def predict(network: Network, images: Tensor) -> Tensor:
    """Return the target classifier's categories, (N, H, W)."""
    network.eval()
    return torch.cat([split_logits(network(x))[1].argmax(1) for x in images.split(32)])


def mean_iou(predicted: Tensor, labels: Tensor) -> float:
    """Return the mean over categories of intersection over union, in %."""
    labelled = labels != VOID
    pairs = (K * labels + predicted)[labelled].bincount(minlength=K * K).view(K, K)
    return float(100 * (pairs.diag() / (pairs.sum(0) + pairs.sum(1) - pairs.diag())).mean())


def kept_and_seconds(compute: Callable[[], Tensor]) -> tuple[float, float]:
    """Return the bytes that the backward pass keeps, and the seconds of forward and backward."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compute().backward()
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        compute().backward()
        seconds.append(time.perf_counter() - start)
    return sum(kept.values()), sorted(seconds)[10]


def print_cost() -> None:
    """Print what a training step costs, and the losses' share of it."""
    (x_s, y_s), (x_t, _) = draw("source", 8), draw("target", 8)
    network = Network()
    source, target = (
        symloss.RoutedLogits(*(v.detach().requires_grad_() for v in network.route(x)))
        for x in (x_s, x_t)
    )
    parts = {
        "step": lambda: symnets(network, x_s, y_s, x_t, 1.0),
        "losses": lambda: symloss.symnet_losses(source, y_s, target, ignore_index=VOID).total(1.0),
    }
    print("part,megabytes,milliseconds")
    for name, compute in parts.items():
        kept, seconds = kept_and_seconds(compute)
        print(f"{name},{kept / 1e6:.1f},{1e3 * seconds:.1f}")


def shares_of(labels: Tensor) -> Tensor:
    """Return each category's share of the labelled pixels, (K,)."""
    return labels[labels != VOID].bincount(minlength=K) / (labels != VOID).sum()


def class_weights(shares: Tensor) -> Tensor:
    """Return weights that fall with the square root of a category's share, 1 on average."""
    return shares.rsqrt() / shares.sqrt().sum()


def domains(seed: int, count: int = 256) -> Domains:
    """Return the source, the target's scenes, and other scenes of the target with labels."""
    torch.manual_seed(seed)
    source, (x_target, _) = draw("source", count), draw("target", count)
    return source, x_target, draw("target", count // 2)


def methods(weight: Tensor) -> dict[str, Objective]:
    """Return the methods to compare."""
    return {
        "source only": partial(source_only, weight=weight),
        "SymNets as published": symnets,
        "SymNets, class weights": partial(symnets, weight=weight),
        "SymNets, class weights, λ later": partial(symnets, weight=weight, later=True),
    }


def measure(name: str, objective: Objective, data: Domains, seed: int, steps: int = 300) -> Network:
    """Train a network, print its line, and return it with the target's statistics."""
    source, x_target, (images, labels) = data
    torch.manual_seed(seed)
    network, start = Network(), time.perf_counter()
    train(network, objective, source, x_target, steps)
    seconds = time.perf_counter() - start
    own = mean_iou(predict(network, images), labels)
    take_statistics(network, x_target)
    adapted = mean_iou(predict(network, images), labels)
    print(f'{seed},"{name}",{own:.1f},{adapted:.1f},{seconds:.1f}', flush=True)
    return network


def main(seeds: Iterable[int] = (0,), count: int = 256, steps: int = 300) -> None:
    """Print a line for each seed and method."""
    print(COLUMNS)
    for seed in seeds:
        data = domains(seed, count)
        weight = class_weights(shares_of(data[0][1]))
        for name, objective in methods(weight).items():
            measure(name, objective, data, seed, steps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cost", action="store_true", help="memory and time of a step instead")
    arguments = parser.parse_args()
    print_cost() if arguments.cost else main(arguments.seeds)
