"""A bottleneck and a symmetric head on fixed features, and how they are trained."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from symloss._rows import gather, shuffled
from symloss.functional import category_balance, category_confusion, source_task, target_task
from symloss.heads import RoutedLogits, SymmetricHead
from symloss.objective import SymNetLosses, SymNetV2Losses
from symloss.schedules import AnnealedLR, progressive_lambda
from symloss.training import TwoOptimizerStep

_PRESENT = 5  # a share above a fifth of an equal one counts fully
Objective = Callable[..., SymNetLosses | SymNetV2Losses]


def network(
    width: int, bottleneck: int, num_classes: int, seed: int
) -> tuple[nn.Sequential, SymmetricHead]:
    """Return a bottleneck and a head, initialised from their own generator."""
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
    """Training of extractor and head on the rows of two domains, step by step.

    Args:
        extractor: Module from rows to the bottleneck's features.
        head: The head, on the device where everything is computed.
        rows: Source rows, ``(N, F)``, and target rows, ``(M, F)``.
        y: The source's categories, as indices, ``(N,)``.
        size: Rows of each domain per step.
        total: Steps of the whole training, for the schedules.
        generator: Draws the batches.
        y_t: The target's categories, as indices, ``(M,)``, -1 where unknown.
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
        y_t: Tensor | None = None,
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
        self.labelled: tuple[Tensor, Tensor] | None = None  # rows of the target, their categories
        if y_t is not None and len(known := (y_t >= 0).nonzero().squeeze(1)):
            self.labelled = known, y_t[known]
            self.batches_l = shuffled(len(known), min(size, len(known)), generator)

    def step(
        self, i: int, objective: Objective, balance: float = 0.0, prior: Tensor | None = None
    ) -> tuple[list[str], Tensor]:
        """Train on one batch of each domain; return the losses' names and values.

        Categories that are nearly absent by ``prior`` get less weight in the labelled losses.
        """
        device, lam = self.head.weight.device, progressive_lambda(i / self.total)
        index = next(self.batches_s)
        x_s, y_s = gather(self.source, index, device), self.y[index].to(device)
        x_t = gather(self.target, next(self.batches_t), device)
        if self.labelled:
            chosen = next(self.batches_l)
            index, y_l = (values[chosen] for values in self.labelled)
            x_t = torch.cat([x_t, gather(self.target, index, device)])  # too few for a batch norm
        source, target = (self.head.route(self.extractor(x)) for x in (x_s, x_t))
        if self.labelled:
            known = RoutedLogits(*(logits[-len(y_l) :] for logits in target))
            target = RoutedLogits(*(logits[: -len(y_l)] for logits in target))
        weight = None if prior is None else (_PRESENT * len(prior) * prior).clamp_max(1)
        losses = objective(source, y_s, target, weight=weight)
        imbalance = category_balance(target.extractor, prior)
        total = losses.total(lam) + lam * balance * imbalance
        terms = losses._asdict() | {"category_balance": imbalance}
        if self.labelled:
            terms["target_labels"] = _supervised(known, y_l.to(device))
            total = total + terms["target_labels"]
        self.update(total)
        for schedule in self.schedules:
            schedule.step()
        return [*terms], torch.stack([*terms.values()]).detach()


def _supervised(logits: RoutedLogits, y: Tensor) -> Tensor:
    """Return (5) + (6) for the head plus (8) for the extractor, on labelled target rows."""
    task = source_task(logits.head, y) + target_task(logits.head, y)
    return task + category_confusion(logits.extractor, y)
