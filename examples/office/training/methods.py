r"""The nine rows of the paper's Table 4 and later methods: which terms each player minimises.

A method is an entry of :data:`METHODS`. Its terms are functions of what one player sees, named as
in the logs; to add a method, add an entry, and a new term or head if needed. SymNets and
SymmNets-V2, the authors' successor (arXiv 2002.08681), use the library's objectives, which are the
same terms with closed-form gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import symloss
from symloss import RoutedLogits
from symloss import functional as L

if TYPE_CHECKING:
    from office.options import Recipe


class View(NamedTuple):
    """What one player sees: logits by head, whose gradients reach only that player.

    Attributes:
        labels: Categories of the source images, ``(N,)``.
        source: Logits of the source images: ``"task"`` ``(N, 2K)`` or, for a single classifier,
            ``(N, K)``; ``"domain"`` ``(N, 2)`` for methods with a discriminator.
        target: The same for the target images, ``(M, ...)``; empty if the method uses none.
        recipe: The run's settings, which some terms use.
        prior: Expected share of each category in the target, ``(K,)``; ``None`` if uniform.
        weight: Weight of each source category in the labelled losses, ``(K,)``; ``None`` if all
            are equal.
    """

    labels: Tensor
    source: dict[str, Tensor]
    target: dict[str, Tensor]
    recipe: "Recipe"
    prior: Tensor | None
    weight: Tensor | None


Term = Callable[[View], Tensor]
Objective = Callable[..., symloss.SymNetLosses | symloss.SymNetV2Losses]


def task(v: View) -> Tensor:
    """Cross-entropy of the single classifier on source images, eq. (1)."""
    return F.cross_entropy(v.source["task"].float(), v.labels)


def discriminator(v: View) -> Tensor:
    """Two-way cross-entropy of the discriminator, eq. (2)."""
    return L.domain_discrimination(v.source["domain"], v.target["domain"])


def confusion(v: View) -> Tensor:
    """Confusion of the discriminator on both domains, eq. (3)."""
    return L.domain_confusion(v.source["domain"]) + L.domain_confusion(v.target["domain"])


def entropy(v: View) -> Tensor:
    """Entropy of the single classifier on target images ("Em"), computed as the pair [v; v]."""
    return L.symmetric_entropy(torch.cat([v.target["task"]] * 2, 1))


def source_task(v: View) -> Tensor:
    """Cross-entropy of the source classifier on source images, eq. (5)."""
    return L.source_task(v.source["task"], v.labels, weight=v.weight)


def target_task(v: View) -> Tensor:
    """Cross-entropy of the target classifier on source images, eq. (6)."""
    return L.target_task(v.source["task"], v.labels, weight=v.weight)


def domain_discrimination(v: View) -> Tensor:
    """Two-way cross-entropy of the two classifiers' total probabilities, eq. (7)."""
    return L.domain_discrimination(v.source["task"], v.target["task"])


def category_confusion(v: View) -> Tensor:
    """Category-level confusion on source images, eq. (8)."""
    return L.category_confusion(v.source["task"], v.labels, weight=v.weight)


def domain_confusion(v: View) -> Tensor:
    """Domain-level confusion on target images, eq. (9)."""
    return L.domain_confusion(v.target["task"])


def symmetric_entropy(v: View) -> Tensor:
    """Entropy of the summed pairs on target images, eq. (10)."""
    return L.symmetric_entropy(v.target["task"])


def source_domain_confusion(v: View) -> Tensor:
    """Domain-level confusion on source images, eq. (12)."""
    return L.domain_confusion(v.source["task"])


def mean_task(v: View) -> Tensor:
    """Mean of (5) and (6), eq. (13)."""
    return (source_task(v) + target_task(v)) / 2


def balance(v: View) -> Tensor:
    """``--balance`` times the distance of the target batch's mean prediction from the prior."""
    return v.recipe.balance * L.category_balance(v.target["task"], v.prior)


def mlp(features: int, _: int) -> nn.Module:
    """Build the discriminator F-1024-1024-2."""
    return nn.Sequential(
        nn.Linear(features, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 2)
    )


ONE_CLASSIFIER = {"task": nn.Linear}
WITH_DISCRIMINATOR = {"task": nn.Linear, "domain": mlp}
SYMMETRIC = {"task": symloss.SymmetricHead}


@dataclass(frozen=True)
class Method:
    """Heads, made from (features, categories), and what each player minimises.

    The heads minimise the sum of ``head``, the extractor the sum of ``extractor`` plus λ times the
    sum of ``weighted``. A library ``objective`` is added to both.
    """

    row: str  # in tables, and in Table 4 if listed there
    heads: dict[str, Callable[[int, int], nn.Module]]
    head: tuple[Term, ...] = ()
    extractor: tuple[Term, ...] = ()
    weighted: tuple[Term, ...] = ()
    objective: Objective | None = None
    classifier: str = "C_t"  # target classifier, or "C_s", source: the one whose answers count
    target: bool = True  # whether training sees target images

    @property
    def balanced(self) -> bool:
        """Whether ``--balance`` and ``--prior`` change its numbers."""
        return balance in self.weighted

    @property
    def symmetric(self) -> bool:
        """Whether its labelled losses use the weights of ``--partial``."""
        return self.heads == SYMMETRIC


METHODS = {
    "source-only": Method(
        row="ResNet-50",
        heads=ONE_CLASSIFIER,
        head=(task,),
        extractor=(task,),
        target=False,
    ),
    "source-only-em": Method(
        row="ResNet-50 (Adding Em)",
        heads=ONE_CLASSIFIER,
        head=(task,),
        extractor=(task,),
        weighted=(entropy,),
    ),
    "domain-confusion": Method(
        row="Domain Confusion",
        heads=WITH_DISCRIMINATOR,
        head=(task, discriminator),
        extractor=(task,),
        weighted=(confusion,),
    ),
    "domain-confusion-em": Method(
        row="Domain Confusion (Adding Em)",
        heads=WITH_DISCRIMINATOR,
        head=(task, discriminator),
        extractor=(task,),
        weighted=(confusion, entropy),
    ),
    "symnets-wo-target-task": Method(
        row="SymNets (w/o E^t_task)",
        heads=SYMMETRIC,
        head=(source_task, domain_discrimination),
        extractor=(category_confusion,),
        weighted=(domain_confusion, symmetric_entropy),
        classifier="C_s",
    ),
    "symnets-wo-entropy": Method(
        row="SymNets (w/o M^st)",
        heads=SYMMETRIC,
        head=(source_task, target_task, domain_discrimination),
        extractor=(category_confusion,),
        weighted=(domain_confusion,),
    ),
    "symnets-wo-confusion": Method(
        row="SymNets (w/o confusion)",
        heads=SYMMETRIC,
        head=(source_task, target_task, domain_discrimination),
        extractor=(mean_task,),
        weighted=(symmetric_entropy,),
    ),
    "symnets-wo-category-confusion": Method(
        row="SymNets (w/o category confusion)",
        heads=SYMMETRIC,
        head=(source_task, target_task, domain_discrimination),
        extractor=(source_domain_confusion,),
        weighted=(domain_confusion, symmetric_entropy),
    ),
    "symnets": Method(
        row="SymNets",
        heads=SYMMETRIC,
        objective=symloss.symnet_losses,
    ),
    "symnets-balanced": Method(
        row="SymNets (balanced)",
        heads=SYMMETRIC,
        objective=symloss.symnet_losses,
        weighted=(balance,),
    ),
    "symnets-v2": Method(
        row="SymmNets-V2",
        heads=SYMMETRIC,
        objective=symloss.symnet_v2_losses,
    ),
    "symnets-v2-balanced": Method(
        row="SymmNets-V2 (balanced)",
        heads=SYMMETRIC,
        objective=symloss.symnet_v2_losses,
        weighted=(balance,),
    ),
}


class Network(nn.Module):
    """Extractor and heads in one module, with one forward for both domains, as DDP needs."""

    def __init__(self, extractor: nn.Module, method: Method, num_classes: int) -> None:
        super().__init__()
        self.extractor = extractor
        self.heads = nn.ModuleDict(
            {name: make(extractor.num_features, num_classes) for name, make in method.heads.items()}
        )

    def forward(self, *domains: Tensor) -> list[dict[str, RoutedLogits]]:
        """Return routed logits by head for each batch of images, each forwarded separately."""
        features = [self.extractor(images) for images in domains]
        return [
            {name: symloss.route(head, f) for name, head in self.heads.items()} for f in features
        ]


def losses(
    method: Method,
    outputs: list[dict[str, RoutedLogits]],
    labels: Tensor,
    lam: float,
    recipe: "Recipe",
    prior: Tensor | None = None,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sum of both players' losses, for one backward, and each term by name.

    Args:
        method: A value of :data:`METHODS`.
        outputs: What :class:`Network` returns for (source,) or (source, target) images.
        labels: Categories of the source images, ``(N,)``.
        lam: λ.
        recipe: The run's settings.
        prior: Expected shares of the categories, ``(K,)``; uniform by default.
        weight: Weight of each category in a symmetric head's labelled losses, ``(K,)``.
    """
    players = []
    for player in ("head", "extractor"):
        logits = [{k: getattr(routed, player) for k, routed in out.items()} for out in outputs]
        target = logits[1] if len(logits) > 1 else {}
        players.append(View(labels, logits[0], target, recipe, prior, weight))
    head, extractor = players
    total, values = torch.zeros((), device=labels.device), {}
    if method.objective:
        found = method.objective(outputs[0]["task"], labels, outputs[1]["task"], weight=weight)
        total, values = found.total(lam), {k: term.detach() for k, term in found._asdict().items()}
    for view, terms, weight in (
        (head, method.head, 1.0),
        (extractor, method.extractor, 1.0),
        (extractor, method.weighted, lam),
    ):
        for term in terms:
            value = term(view)
            total = total + weight * value
            values[term.__name__] = value.detach()
    return total, values
