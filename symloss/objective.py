r"""The two players' objective, eq. (11)."""

from typing import NamedTuple

from torch import Tensor

from symloss import functional
from symloss.heads import RoutedLogits


class SymNetLosses(NamedTuple):
    r"""The six terms of eq. (11), each a scalar, named as the functions of the library.

    .. math::

        \min_{C^s, C^t, C^{st}} \; \mathcal{E}^s_{task} + \mathcal{E}^t_{task}
        + \mathcal{E}^{st}_{domain}, \qquad
        \min_G \; \mathcal{F}^{st}_{category}
        + \lambda (\mathcal{F}^{st}_{domain} + \mathcal{M}^{st})

    Attributes:
        source_task: Eq. (5), for the head.
        target_task: Eq. (6), for the head.
        domain_discrimination: Eq. (7), for the head.
        category_confusion: Eq. (8), for the extractor.
        domain_confusion: Eq. (9), for the extractor.
        symmetric_entropy: Eq. (10), for the extractor.

    Example:
        >>> import torch
        >>> terms = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        >>> losses = SymNetLosses(*terms)
        >>> losses.classifier(), losses.extractor(lam=0.5), losses.total(lam=0.5)
        (tensor(6.), tensor(9.5000), tensor(15.5000))
    """

    source_task: Tensor
    target_task: Tensor
    domain_discrimination: Tensor
    category_confusion: Tensor
    domain_confusion: Tensor
    symmetric_entropy: Tensor

    def classifier(self) -> Tensor:
        """Return what the head minimises, (5) + (6) + (7), a scalar in nats."""
        return self.source_task + self.target_task + self.domain_discrimination

    def extractor(self, lam: float | Tensor) -> Tensor:
        """Return what the extractor minimises, (8) + lam ((9) + (10)), a scalar in nats.

        Args:
            lam: λ, in [0, 1] in the paper: a number or a 0-d tensor.

        Raises:
            ValueError: If ``lam`` is a tensor with dimensions.
        """
        if isinstance(lam, Tensor) and lam.dim() > 0:
            raise ValueError(f"lam must be a number or a 0-d tensor, got shape {tuple(lam.shape)}")
        return self.category_confusion + lam * (self.domain_confusion + self.symmetric_entropy)

    def total(self, lam: float | Tensor) -> Tensor:
        """Return the sum of both players' losses, for one backward, a scalar in nats.

        Args:
            lam: λ, in [0, 1] in the paper: a number or a 0-d tensor.

        Raises:
            ValueError: If ``lam`` is a tensor with dimensions.
        """
        return self.classifier() + self.extractor(lam)


def symnet_losses(
    source: RoutedLogits, labels: Tensor, target: RoutedLogits, *, ignore_index: int = -100
) -> SymNetLosses:
    r"""Compute all six terms of eq. (11), each with its gradient routed to its player.

    The head's terms (5), (6), (7) are taken on ``.classifier``, the extractor's terms (8), (9),
    (10) on ``.extractor``, each averaged over its positions; see :class:`SymNetLosses`.

    Args:
        source: Routed joint logits of labelled source samples, ``(N, 2K, ...)``, of any floating
            dtype.
        labels: Categories of the source samples in ``[0, K)``, ``(N, ...)``, of any integer dtype.
        target: Routed joint logits of unlabelled target samples, ``(M, 2K, ...)``.
        ignore_index: Label of source positions that (5), (6) and (8) leave out. If none is left,
            the three are NaN.

    Returns:
        Six scalars, float32, or float64 for float64 logits.

    Raises:
        TypeError: If ``source`` or ``target`` is not :class:`RoutedLogits`, logits are not
            floating point, or labels are not integer.
        ValueError: If the shapes of a pair or the 2K of source and target differ, or as the
            functions of :mod:`symloss.functional` do.

    Example:
        >>> import symloss, torch
        >>> extractor, head = torch.nn.Linear(8, 4), symloss.SymmetricHead(4, 3)
        >>> source = head.adversarial(extractor(torch.randn(6, 8)))
        >>> target = head.adversarial(extractor(torch.randn(5, 8)))
        >>> labels = torch.tensor([0, 1, 2, 0, 1, 2])
        >>> symloss.symnet_losses(source, labels, target).total(lam=0.1).backward()
    """
    for name, routed in (("source", source), ("target", target)):
        if not isinstance(routed, RoutedLogits):
            raise TypeError(
                f"{name} must be RoutedLogits, got {type(routed).__name__}; call "
                "head.adversarial(features), or symloss.route(head, features) for a wrapped head"
            )
        functional._check_logits(f"{name}.classifier", routed.classifier)
        functional._check_logits(f"{name}.extractor", routed.extractor)
        if routed.classifier.shape != routed.extractor.shape:
            raise ValueError(
                f"{name}.classifier and {name}.extractor must have the same shape, got "
                f"{tuple(routed.classifier.shape)} and {tuple(routed.extractor.shape)}"
            )
    return SymNetLosses(
        source_task=functional.source_task(source.classifier, labels, ignore_index=ignore_index),
        target_task=functional.target_task(source.classifier, labels, ignore_index=ignore_index),
        domain_discrimination=functional.domain_discrimination(
            source.classifier, target.classifier
        ),
        category_confusion=functional.category_confusion(
            source.extractor, labels, ignore_index=ignore_index
        ),
        domain_confusion=functional.domain_confusion(target.extractor),
        symmetric_entropy=functional.symmetric_entropy(target.extractor),
    )
