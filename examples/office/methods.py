"""The nine rows of the paper's Table 4 and later methods: what each player minimises.

A method is an entry of :data:`METHODS`; its terms are names in :data:`TERMS`, as in the logs. To
add a method, add an entry, and a new term or head if needed. SymNets and SymmNets-V2, the authors'
successor (arXiv 2002.08681), use the library's objectives, which are the same terms with
closed-form gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import symloss
from symloss import RoutedLogits
from symloss import functional as L

PRESENT = 5  # a share above a fifth of an equal one counts fully


@dataclass(frozen=True)
class Settings:
    """The settings of a run that its losses use."""

    num_classes: int
    balance: float  # weight of the balance
    prior: Tensor | None = None  # balanced methods': share of each category in the target, (K,)
    partial: Tensor | None = None  # weight of each category that --partial gives, (K,)

    @cached_property
    def weight(self) -> Tensor | None:
        """Weight of each category in a symmetric head's labelled losses, ``(K,)``.

        Categories with less than a fifth of an equal share count less.
        """
        if self.prior is None:
            return self.partial
        weight = (PRESENT * self.num_classes * self.prior).clamp_max(1)
        return weight if self.partial is None else weight * self.partial


class Player(NamedTuple):
    """One player's view of a batch: logits whose gradients reach only that player.

    Logits are those of the method's head: joint ones ``(N, 2K)``, those of a single classifier
    ``(N, K)``, or these and a discriminator's ``(N, K + 2)``.
    """

    source: Tensor
    labels: Tensor
    target: Tensor
    settings: Settings

    @property
    def classifier(self) -> list[Tensor]:
        """The single classifier's logits of source and target."""
        return [logits[:, : self.settings.num_classes] for logits in (self.source, self.target)]

    @property
    def discriminator(self) -> list[Tensor]:
        """The discriminator's logits of source and target."""
        return [logits[:, self.settings.num_classes :] for logits in (self.source, self.target)]

    def labelled(self, loss: Callable[..., Tensor]) -> Tensor:
        """Return a loss of the labelled source with the categories' weights."""
        return loss(self.source, self.labels, weight=self.settings.weight)


Term: TypeAlias = Callable[[Player], Tensor]
Objective: TypeAlias = Callable[..., symloss.SymNetLosses | symloss.SymNetV2Losses]

TERMS: dict[str, Term] = {
    # Of a single classifier and a discriminator: eqs. (1) to (3), and the entropy "Em", that of the
    # pair [v; v].
    "task": lambda p: F.cross_entropy(p.classifier[0].float(), p.labels),
    "discriminator": lambda p: L.domain_discrimination(p.discriminator[0], p.discriminator[1]),
    "confusion": lambda p: (
        L.domain_confusion(p.discriminator[0]) + L.domain_confusion(p.discriminator[1])
    ),
    "entropy": lambda p: L.symmetric_entropy(torch.cat([p.classifier[1]] * 2, 1)),
    # Of a symmetric head: eqs. (5) to (10), (12) and (13).
    "source_task": lambda p: p.labelled(L.source_task),
    "target_task": lambda p: p.labelled(L.target_task),
    "domain_discrimination": lambda p: L.domain_discrimination(p.source, p.target),
    "category_confusion": lambda p: p.labelled(L.category_confusion),
    "domain_confusion": lambda p: L.domain_confusion(p.target),
    "symmetric_entropy": lambda p: L.symmetric_entropy(p.target),
    "source_domain_confusion": lambda p: L.domain_confusion(p.source),
    "mean_task": lambda p: (p.labelled(L.source_task) + p.labelled(L.target_task)) / 2,
    # --balance times the distance of the target batch's mean prediction from the prior.
    "balance": lambda p: p.settings.balance * L.category_balance(p.target, p.settings.prior),
}


class ClassifierAndDiscriminator(nn.Module):
    """A linear classifier and, in training, the discriminator F-1024-1024-2 beside it."""

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.task = nn.Linear(features, num_classes)
        sizes = (nn.Linear(features, 1024), nn.Linear(1024, 1024), nn.Linear(1024, 2))
        self.domain = nn.Sequential(sizes[0], nn.ReLU(), sizes[1], nn.ReLU(), sizes[2])

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of categories and, in training, domains: ``(N, K + 2)``."""
        logits: Tensor = self.task(features)
        return torch.cat([logits, self.domain(features)], 1) if self.training else logits


@dataclass(frozen=True)
class Method:
    """The head, made from (features, categories), and what each player minimises.

    The head minimises the sum of ``head_terms``, the extractor the sum of ``extractor_terms`` plus
    λ times the sum of ``lam_terms``. A library ``objective`` is added to both.
    """

    row: str  # in tables, and in Table 4 if listed there
    head: Callable[[int, int], nn.Module] = symloss.SymmetricHead
    head_terms: tuple[str, ...] = ()
    extractor_terms: tuple[str, ...] = ()
    lam_terms: tuple[str, ...] = ()
    objective: Objective | None = None
    classifier: str = "C_t"  # target classifier, or "C_s", source: whose predictions count
    target: bool = True  # whether training sees target images

    @property
    def balanced(self) -> bool:
        """Whether ``--balance`` and ``--prior`` change its numbers."""
        return "balance" in self.lam_terms

    @property
    def symmetric(self) -> bool:
        """Whether its labelled losses use the weights of ``--partial``."""
        return self.head is symloss.SymmetricHead


HEAD = ("source_task", "target_task", "domain_discrimination")
ADVERSARIAL = ("task", "discriminator")
V1, V2 = symloss.symnet_losses, symloss.symnet_v2_losses
METHODS = {
    "source-only": Method("ResNet-50", nn.Linear, ("task",), ("task",), target=False),
    "source-only-em": Method(
        "ResNet-50 (Adding Em)", nn.Linear, ("task",), ("task",), ("entropy",)
    ),
    "domain-confusion": Method(
        "Domain Confusion", ClassifierAndDiscriminator, ADVERSARIAL, ("task",), ("confusion",)
    ),
    "domain-confusion-em": Method(
        "Domain Confusion (Adding Em)",
        ClassifierAndDiscriminator,
        head_terms=ADVERSARIAL,
        extractor_terms=("task",),
        lam_terms=("confusion", "entropy"),
    ),
    "symnets-wo-target-task": Method(
        "SymNets (w/o E^t_task)",
        head_terms=("source_task", "domain_discrimination"),
        extractor_terms=("category_confusion",),
        lam_terms=("domain_confusion", "symmetric_entropy"),
        classifier="C_s",
    ),
    "symnets-wo-entropy": Method(
        "SymNets (w/o M^st)",
        head_terms=HEAD,
        extractor_terms=("category_confusion",),
        lam_terms=("domain_confusion",),
    ),
    "symnets-wo-confusion": Method(
        "SymNets (w/o confusion)",
        head_terms=HEAD,
        extractor_terms=("mean_task",),
        lam_terms=("symmetric_entropy",),
    ),
    "symnets-wo-category-confusion": Method(
        "SymNets (w/o category confusion)",
        head_terms=HEAD,
        extractor_terms=("source_domain_confusion",),
        lam_terms=("domain_confusion", "symmetric_entropy"),
    ),
    "symnets": Method("SymNets", objective=V1),
    "symnets-balanced": Method("SymNets (balanced)", objective=V1, lam_terms=("balance",)),
    "symnets-v2": Method("SymmNets-V2", objective=V2),
    "symnets-v2-balanced": Method("SymmNets-V2 (balanced)", objective=V2, lam_terms=("balance",)),
}


def category_weights(method: Method, logits: Tensor, progress: float) -> Tensor:
    """Return the weights of ``--partial``, ``(K,)``, from the target's logits."""
    source, target = L.split_logits(logits)
    lam = symloss.progressive_lambda(progress)
    counts = target if method.classifier == "C_t" else source
    return symloss.diagnostics.category_weights(counts, lam)


def plain_classifier(head: nn.Module, classifier: str) -> nn.Linear:
    """Return a trained head's target (or only) classifier "C_t", or "C_s", as a plain layer."""
    if isinstance(head, symloss.SymmetricHead):
        return head.classifier({"C_t": "target", "C_s": "source"}[classifier])
    layer = head.task if isinstance(head, ClassifierAndDiscriminator) else head
    assert isinstance(layer, nn.Linear)
    return layer


def losses(
    method: Method,
    source: RoutedLogits,
    labels: Tensor,
    target: RoutedLogits | None,
    lam: float,
    settings: Settings,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sum of both players' losses, for one backward, and each term by name.

    ``target`` is None for methods that train on the source alone.
    """
    seen = target or source  # the terms of source-only read no target
    head = Player(source.head, labels, seen.head, settings)
    extractor = Player(source.extractor, labels, seen.extractor, settings)
    total, values = torch.zeros((), device=labels.device), {}
    if method.objective:
        objective = method.objective(source, labels, target, weight=settings.weight)
        total, values = objective.total(lam), objective._asdict()
    for player, terms, weight in (
        (head, method.head_terms, 1.0),
        (extractor, method.extractor_terms, 1.0),
        (extractor, method.lam_terms, lam),
    ):
        for name in terms:
            values[name] = TERMS[name](player)
            total = total + weight * values[name]
    return total, values
