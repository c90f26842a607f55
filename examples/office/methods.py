r"""The nine rows of the paper's Table 4 and later methods: what each player minimises.

A method is an entry of :data:`METHODS`; its terms are functions of what one player sees, named as
in the logs. To add a method, add an entry, and a new term or head if needed. SymNets and
SymmNets-V2, the authors' successor (arXiv 2002.08681), use the library's objectives, which are the
same terms with closed-form gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import symloss
from symloss import RoutedLogits
from symloss import functional as L


@dataclass(frozen=True)
class Settings:
    """What a run gives to its terms.

    Attributes:
        num_classes: Number K of categories.
        balance: Weight of the balance.
        prior: Expected share of each category in the target, ``(K,)``.
        weight: Weight of each source category in a symmetric head's labelled losses, ``(K,)``;
            None if all are equal.
    """

    num_classes: int
    balance: float
    prior: Tensor
    weight: Tensor | None = None


@dataclass(frozen=True)
class Player:
    """One player's view of a batch: logits whose gradients reach only that player.

    Attributes:
        source: Logits of the source images, as the method's head returns them: joint logits
            ``(N, 2K)``, those of a single classifier ``(N, K)``, or these and a discriminator's
            ``(N, K + 2)``.
        labels: Categories of the source images, ``(N,)``.
        target: The same for the target images, ``(M, ...)``.
        settings: What some terms need besides.
    """

    source: Tensor
    labels: Tensor
    target: Tensor
    settings: Settings


Term: TypeAlias = Callable[[Player], Tensor]
Objective: TypeAlias = Callable[..., symloss.SymNetLosses | symloss.SymNetV2Losses]


def task(p: Player) -> Tensor:
    """Cross-entropy of the single classifier on source images, eq. (1)."""
    return F.cross_entropy(p.source[:, : p.settings.num_classes].float(), p.labels)


def discriminator(p: Player) -> Tensor:
    """Two-way cross-entropy of the discriminator, eq. (2)."""
    k = p.settings.num_classes
    return L.domain_discrimination(p.source[:, k:], p.target[:, k:])


def confusion(p: Player) -> Tensor:
    """Confusion of the discriminator on both domains, eq. (3)."""
    k = p.settings.num_classes
    return L.domain_confusion(p.source[:, k:]) + L.domain_confusion(p.target[:, k:])


def entropy(p: Player) -> Tensor:
    """Entropy of the single classifier on target images ("Em"), computed as the pair [v; v]."""
    return L.symmetric_entropy(torch.cat([p.target[:, : p.settings.num_classes]] * 2, 1))


def source_task(p: Player) -> Tensor:
    """Cross-entropy of the source classifier on source images, eq. (5)."""
    return L.source_task(p.source, p.labels, weight=p.settings.weight)


def target_task(p: Player) -> Tensor:
    """Cross-entropy of the target classifier on source images, eq. (6)."""
    return L.target_task(p.source, p.labels, weight=p.settings.weight)


def domain_discrimination(p: Player) -> Tensor:
    """Two-way cross-entropy of the two classifiers' total probabilities, eq. (7)."""
    return L.domain_discrimination(p.source, p.target)


def category_confusion(p: Player) -> Tensor:
    """Category-level confusion on source images, eq. (8)."""
    return L.category_confusion(p.source, p.labels, weight=p.settings.weight)


def domain_confusion(p: Player) -> Tensor:
    """Domain-level confusion on target images, eq. (9)."""
    return L.domain_confusion(p.target)


def symmetric_entropy(p: Player) -> Tensor:
    """Entropy of the summed pairs on target images, eq. (10)."""
    return L.symmetric_entropy(p.target)


def source_domain_confusion(p: Player) -> Tensor:
    """Domain-level confusion on source images, eq. (12)."""
    return L.domain_confusion(p.source)


def mean_task(p: Player) -> Tensor:
    """Mean of (5) and (6), eq. (13)."""
    return (source_task(p) + target_task(p)) / 2


def balance(p: Player) -> Tensor:
    """``--balance`` times the distance of the target batch's mean prediction from the prior."""
    return p.settings.balance * L.category_balance(p.target, p.settings.prior)


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
    head_terms: tuple[Term, ...] = ()
    extractor_terms: tuple[Term, ...] = ()
    lam_terms: tuple[Term, ...] = ()
    objective: Objective | None = None
    classifier: str = "C_t"  # target classifier, or "C_s", source: whose predictions count
    target: bool = True  # whether training sees target images

    @property
    def balanced(self) -> bool:
        """Whether ``--balance`` and ``--prior`` change its numbers."""
        return balance in self.lam_terms

    @property
    def symmetric(self) -> bool:
        """Whether its labelled losses use the weights of ``--partial``."""
        return self.head is symloss.SymmetricHead


METHODS = {
    "source-only": Method(
        row="ResNet-50",
        head=nn.Linear,
        head_terms=(task,),
        extractor_terms=(task,),
        target=False,
    ),
    "source-only-em": Method(
        row="ResNet-50 (Adding Em)",
        head=nn.Linear,
        head_terms=(task,),
        extractor_terms=(task,),
        lam_terms=(entropy,),
    ),
    "domain-confusion": Method(
        row="Domain Confusion",
        head=ClassifierAndDiscriminator,
        head_terms=(task, discriminator),
        extractor_terms=(task,),
        lam_terms=(confusion,),
    ),
    "domain-confusion-em": Method(
        row="Domain Confusion (Adding Em)",
        head=ClassifierAndDiscriminator,
        head_terms=(task, discriminator),
        extractor_terms=(task,),
        lam_terms=(confusion, entropy),
    ),
    "symnets-wo-target-task": Method(
        row="SymNets (w/o E^t_task)",
        head_terms=(source_task, domain_discrimination),
        extractor_terms=(category_confusion,),
        lam_terms=(domain_confusion, symmetric_entropy),
        classifier="C_s",
    ),
    "symnets-wo-entropy": Method(
        row="SymNets (w/o M^st)",
        head_terms=(source_task, target_task, domain_discrimination),
        extractor_terms=(category_confusion,),
        lam_terms=(domain_confusion,),
    ),
    "symnets-wo-confusion": Method(
        row="SymNets (w/o confusion)",
        head_terms=(source_task, target_task, domain_discrimination),
        extractor_terms=(mean_task,),
        lam_terms=(symmetric_entropy,),
    ),
    "symnets-wo-category-confusion": Method(
        row="SymNets (w/o category confusion)",
        head_terms=(source_task, target_task, domain_discrimination),
        extractor_terms=(source_domain_confusion,),
        lam_terms=(domain_confusion, symmetric_entropy),
    ),
    "symnets": Method(row="SymNets", objective=symloss.symnet_losses),
    "symnets-balanced": Method(
        row="SymNets (balanced)", objective=symloss.symnet_losses, lam_terms=(balance,)
    ),
    "symnets-v2": Method(row="SymmNets-V2", objective=symloss.symnet_v2_losses),
    "symnets-v2-balanced": Method(
        row="SymmNets-V2 (balanced)", objective=symloss.symnet_v2_losses, lam_terms=(balance,)
    ),
}


def category_weights(method: Method, logits: Tensor, progress: float) -> Tensor:
    """Return the weights of ``--partial``, ``(K,)``, from the target's logits.

    They depend only on the network and λ, so a resumed run gets the same ones.
    """
    source, target = L.split_logits(logits)
    lam = symloss.progressive_lambda(progress)
    counts = target if method.classifier == "C_t" else source
    return symloss.diagnostics.category_weights(counts, lam)


def plain_classifier(head: nn.Module, classifier: str) -> nn.Linear:
    """Return one classifier of a trained head as a linear layer, to predict without symloss.

    Args:
        head: A method's head.
        classifier: "C_t", the target classifier or the only one, or "C_s", the source classifier.
    """
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

    Args:
        method: A value of :data:`METHODS`.
        source: Routed logits of the source images, from the method's head.
        labels: Categories of the source images, ``(N,)``.
        target: Routed logits of the target images; None for methods that train on the source alone.
        lam: λ.
        settings: Of the run.
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
        for term in terms:
            value = term(player)
            total = total + weight * value
            values[term.__name__] = value
    return total, values
