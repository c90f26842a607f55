"""A bottleneck and a symmetric head on fixed features, and how they are trained."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from symloss._rows import gather, shuffled
from symloss.functional import category_balance
from symloss.heads import SymmetricHead
from symloss.objective import SymNetLosses, SymNetV2Losses
from symloss.schedules import AnnealedLR, progressive_lambda
from symloss.training import TwoOptimizerStep

_PRESENT = 5  # a share above a fifth of an equal one counts fully
Objective = Callable[..., SymNetLosses | SymNetV2Losses]


def network(
    width: int, bottleneck: int, num_classes: int, seed: int
) -> tuple[nn.Sequential, SymmetricHead]:
    """Return a bottleneck and a head, initialised from a generator of their own."""
    generator = torch.Generator("cpu").manual_seed(seed)
    layer = nn.Linear(width, bottleneck, device="meta", dtype=torch.float32)
    head = SymmetricHead(bottleneck, num_classes, device="meta", dtype=torch.float32)
    for linear in (layer.to_empty(device="cpu"), head.to_empty(device="cpu")):
        # As torch does, but it would draw from its global generator.
        nn.init.kaiming_uniform_(linear.weight, a=math.sqrt(5), generator=generator)
        bound = 1 / math.sqrt(linear.in_features)
        nn.init.uniform_(linear.bias, -bound, bound, generator=generator)
    norm = nn.BatchNorm1d(bottleneck, device="cpu", dtype=torch.float32)
    return nn.Sequential(layer, norm, nn.ReLU()), head


class Training:
    """Both players' training on the rows of two domains, step by step.

    Args:
        extractor: Module from rows to the bottleneck's features.
        head: The head, on the device where everything is computed.
        rows: Source rows, ``(N, F)``, and target rows, ``(M, F)``.
        y: The source's categories, as indices, ``(N,)``.
        size: Rows of each domain per step.
        total: Steps until the end of training, which the schedules need.
        generator: Draws the batches.
        lr: Initial learning rate.
        weight_decay: Weight decay.
    """

    def __init__(
        self,
        extractor: nn.Module,
        head: SymmetricHead,
        rows: tuple[Tensor, Tensor],
        y: Tensor,
        *,
        size: int,
        total: int,
        generator: torch.Generator,
        lr: float = 0.01,
        weight_decay: float = 1e-4,
    ) -> None:
        self.extractor, self.head, self.total = extractor, head, total
        (self.source, self.target), self.y = rows, y
        sgd = partial(torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True)
        optimizers = [
            sgd(player.parameters(), weight_decay=weight_decay) for player in (extractor, head)
        ]
        self.update = TwoOptimizerStep(*optimizers)
        self.schedules = [AnnealedLR(optimizer, total) for optimizer in optimizers]
        self.batches_s = shuffled(len(self.source), size, generator)
        self.batches_t = shuffled(len(self.target), size, generator)

    def step(
        self, i: int, objective: Objective, balance: float = 0.0, prior: Tensor | None = None
    ) -> tuple[list[str], Tensor]:
        """Train on one batch of each domain; return the losses' names and values.

        Categories that ``prior`` holds for absent count less in the labelled losses.
        """
        device, lam = self.head.weight.device, progressive_lambda(i / self.total)
        index = next(self.batches_s)
        x_s, y_s = gather(self.source, index, device), self.y[index].to(device)
        x_t = gather(self.target, next(self.batches_t), device)
        source, target = (self.head.route(self.extractor(x)) for x in (x_s, x_t))
        weight = None if prior is None else (_PRESENT * len(prior) * prior).clamp_max(1)
        losses = objective(source, y_s, target, weight=weight)
        imbalance = category_balance(target.extractor, prior)
        self.update(losses.total(lam) + lam * balance * imbalance)
        for schedule in self.schedules:
            schedule.step()
        return [*losses._fields, "category_balance"], torch.stack([*losses, imbalance]).detach()
