"""The objectives of SymNets and SymmNets-V2, with each term routed to its player."""

from typing import NamedTuple

from torch import Tensor

from symloss._checks import (
    check_logits,
    check_no_transform,
    check_same_categories,
    checked_labels,
    checked_lam,
    checked_weight,
    halves,
    rebuildable,
)
from symloss._closed_form import ExtractorTerms, ExtractorTermsV2, HeadTerms
from symloss.heads import RoutedLogits


@rebuildable
class SymNetLosses(NamedTuple):
    r"""The six terms of eq. (11), each a scalar, named after the library's functions.

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
        >>> losses.head(), losses.extractor(lam=0.5), losses.total(lam=0.5)
        (tensor(6.), tensor(9.5000), tensor(15.5000))
    """

    source_task: Tensor
    target_task: Tensor
    domain_discrimination: Tensor
    category_confusion: Tensor
    domain_confusion: Tensor
    symmetric_entropy: Tensor

    def head(self) -> Tensor:
        """Return what the head minimises, (5) + (6) + (7), a scalar in nats."""
        return self.source_task + self.target_task + self.domain_discrimination

    def extractor(self, lam: float | Tensor) -> Tensor:
        """Return what the extractor minimises, (8) + lam ((9) + (10)), a scalar in nats.

        Args:
            lam: λ, in [0, 1] in the paper: a number or a 0-d tensor, finite and at least 0, for
                example from :func:`symloss.progressive_lambda`.

        Raises:
            ValueError: If ``lam`` is negative, NaN or infinite, or a tensor with dimensions.
        """
        lam = checked_lam(lam)
        return self.category_confusion + lam * (self.domain_confusion + self.symmetric_entropy)

    def total(self, lam: float | Tensor) -> Tensor:
        """Return the sum of both players' losses, for one backward, a scalar in nats.

        Args:
            lam: As in :meth:`extractor`.

        Raises:
            ValueError: As :meth:`extractor`.
        """
        return self.head() + self.extractor(lam)


@rebuildable
class SymNetV2Losses(NamedTuple):
    r"""The five terms of SymmNets-V2, each a scalar, named after the library's functions.

    .. math::

        \min_{C^s, C^t, C^{st}} \; (33) + (34) + (37), \qquad \min_G \; (35) + \lambda \, (36)

    Attributes:
        source_task: Eq. (33), which is (5), for the head.
        target_task: Eq. (34), which is (6), for the head.
        category_discrimination: Eq. (37), for the head.
        category_confusion: Eq. (35), which is (8), for the extractor.
        target_category_confusion: Eq. (36), for the extractor.

    Example:
        >>> import torch
        >>> losses = SymNetV2Losses(*torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
        >>> losses.head(), losses.extractor(lam=0.5), losses.total(lam=0.5)
        (tensor(6.), tensor(6.5000), tensor(12.5000))
    """

    source_task: Tensor
    target_task: Tensor
    category_discrimination: Tensor
    category_confusion: Tensor
    target_category_confusion: Tensor

    def head(self) -> Tensor:
        """Return what the head minimises, (33) + (34) + (37), a scalar in nats."""
        return self.source_task + self.target_task + self.category_discrimination

    def extractor(self, lam: float | Tensor) -> Tensor:
        """Return what the extractor minimises, (35) + lam (36), a scalar in nats.

        Args:
            lam: As in :meth:`SymNetLosses.extractor`.

        Raises:
            ValueError: As :meth:`SymNetLosses.extractor`.
        """
        return self.category_confusion + checked_lam(lam) * self.target_category_confusion

    def total(self, lam: float | Tensor) -> Tensor:
        """Return the sum of both players' losses, for one backward, a scalar in nats.

        Args:
            lam: As in :meth:`SymNetLosses.extractor`.

        Raises:
            ValueError: As :meth:`SymNetLosses.extractor`.
        """
        return self.head() + self.extractor(lam)


def symnet_losses(
    source: RoutedLogits,
    labels: Tensor,
    target: RoutedLogits,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
) -> SymNetLosses:
    r"""Compute all six terms of eq. (11), each with its gradient routed to its player.

    The head's terms (5), (6), (7) are computed on ``.head``, the extractor's terms (8), (9), (10)
    on ``.extractor``, each averaged over its positions; see :class:`SymNetLosses`. Their
    closed-form gradients cannot be differentiated again: for second derivatives, and under
    :mod:`torch.func`, use the functions of :mod:`symloss.functional`. A category with both logits
    at minus infinity is ignored.

    Args:
        source: Routed joint logits of labelled source samples, ``(N, 2K, ...)``, of any floating
            dtype.
        labels: Categories of the source samples in ``[0, K)``, ``(N, ...)``, of any integer dtype.
        target: Routed joint logits of unlabelled target samples, ``(M, 2K, ...)``.
        weight: Weight of each category in (5), (6) and (8), ``(K,)``, as in
            :func:`symloss.functional.source_task`.
        ignore_index: Label of source positions that (5), (6) and (8) ignore. If every position is
            ignored, these three are NaN.

    Returns:
        Six scalars, float32, or float64 for float64 logits.

    Raises:
        TypeError: If ``source`` or ``target`` is not :class:`RoutedLogits`, logits or weights are
            not floating point, or labels are not integer.
        ValueError: If the shapes of a pair or the 2K of source and target differ, or as in the
            functions of :mod:`symloss.functional`.
        RuntimeError: Under :mod:`torch.func`, or in a backward pass with ``create_graph=True``.

    Example:
        >>> import symloss, torch
        >>> extractor, head = torch.nn.Linear(8, 4), symloss.SymmetricHead(4, 3)
        >>> source = head.route(extractor(torch.randn(6, 8)))
        >>> target = head.route(extractor(torch.randn(5, 8)))
        >>> labels = torch.tensor([0, 1, 2, 0, 1, 2])
        >>> symloss.symnet_losses(source, labels, target).total(lam=0.1).backward()
    """
    labelled = _labelled(source, labels, target, weight, ignore_index)
    return SymNetLosses(
        *HeadTerms.apply(source.head, target.head, *labelled, False),
        *ExtractorTerms.apply(source.extractor, target.extractor, *labelled),
    )


def symnet_v2_losses(
    source: RoutedLogits,
    labels: Tensor,
    target: RoutedLogits,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
) -> SymNetV2Losses:
    r"""Compute all five terms of SymmNets-V2, each with its gradient routed to its player.

    The head's terms (33), (34), (37) are computed on ``.head``, the extractor's terms (35), (36)
    on ``.extractor``; see :class:`SymNetV2Losses`. Everything else is as in :func:`symnet_losses`,
    including the closed-form gradients.

    Args:
        source: As in :func:`symnet_losses`, ``(N, 2K, ...)``.
        labels: As in :func:`symnet_losses`, ``(N, ...)``.
        target: As in :func:`symnet_losses`, ``(M, 2K, ...)``.
        weight: Weight of each category in (33), (34), (35) and the source part of (37), ``(K,)``,
            as in :func:`symloss.functional.source_task`.
        ignore_index: Label of source positions that (33), (34), (35) and (37) ignore. If every
            position is ignored, these four are NaN.

    Returns:
        Five scalars, float32, or float64 for float64 logits.

    Raises:
        TypeError: As :func:`symnet_losses`.
        ValueError: As :func:`symnet_losses`.
        RuntimeError: As :func:`symnet_losses`.

    Example:
        >>> import symloss, torch
        >>> extractor, head = torch.nn.Linear(8, 4), symloss.SymmetricHead(4, 3)
        >>> source = head.route(extractor(torch.randn(6, 8)))
        >>> target = head.route(extractor(torch.randn(5, 8)))
        >>> labels = torch.tensor([0, 1, 2, 0, 1, 2])
        >>> symloss.symnet_v2_losses(source, labels, target).total(lam=0.1).backward()
    """
    labelled = _labelled(source, labels, target, weight, ignore_index)
    source_task, target_task, domain = HeadTerms.apply(source.head, target.head, *labelled, True)
    return SymNetV2Losses(
        source_task,
        target_task,
        source_task + domain,
        *ExtractorTermsV2.apply(source.extractor, target.extractor, *labelled),
    )


def _labelled(
    source: RoutedLogits,
    labels: Tensor,
    target: RoutedLogits,
    weight: Tensor | None,
    ignore_index: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Check all arguments; return labels, the mask of ignored ones, and the terms' divisor."""
    check_no_transform()
    for name, routed in (("source", source), ("target", target)):
        _check_routed(name, routed)
    if source is target:
        raise ValueError(
            "source and target must be the logits of two domains, got the same object twice"
        )
    check_same_categories("source", source.head, "target", target.head)
    labels = checked_labels(source.head, labels, ignore_index).unsqueeze(1).unsqueeze(1)
    ignored = labels == ignore_index
    y = labels.masked_fill(ignored, 0)
    weight = checked_weight(halves(source.head), weight)
    if weight is None:
        count = labels.numel() - ignored.count_nonzero()
    else:
        each = weight[y].masked_fill(ignored, 0)
        count = each.sum() / each
    return y.expand(-1, 2, *y.shape[2:]), ignored, count


def _check_routed(name: str, routed: RoutedLogits) -> None:
    if not isinstance(routed, RoutedLogits):
        hint = (
            "; if a reentrant checkpoint made a tuple of them, use use_reentrant=False"
            if isinstance(routed, tuple)
            else ""
        )
        raise TypeError(
            f"{name} must be RoutedLogits, got {type(routed).__name__}; call "
            f"head.route(features), or symloss.route(head, features) for a wrapped head{hint}"
        )
    check_logits(f"{name}.head", routed.head)
    check_logits(f"{name}.extractor", routed.extractor)
    if routed.head is routed.extractor:
        raise ValueError(
            f"{name}.head and {name}.extractor must be two tensors, got the same one twice, whose "
            "gradient would reach both players; call head.route(features)"
        )
    if routed.head.shape != routed.extractor.shape:
        raise ValueError(
            f"{name}.head and {name}.extractor must have the same shape, got "
            f"{tuple(routed.head.shape)} and {tuple(routed.extractor.shape)}"
        )
