"""The losses that SymmNets-V2 adds to SymNets, and category balance."""

import math
from collections.abc import Sequence
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from symloss._checks import (
    check_logits,
    check_reduction,
    check_same_categories,
    checked_labels,
    checked_prior,
    checked_weight,
)
from symloss._log_domain import domain_logit, halves, log_joint, reduce


@overload
def category_discrimination(
    source_logits: Tensor,
    labels: Tensor,
    target_logits: Tensor,
    reduction: Literal["mean", "sum"] = "mean",
    ignore_index: int = -100,
    *,
    weight: Tensor | None = None,
) -> Tensor: ...


@overload
def category_discrimination(
    source_logits: Tensor,
    labels: Tensor,
    target_logits: Tensor,
    reduction: Literal["none"],
    ignore_index: int = -100,
    *,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]: ...


@overload
def category_discrimination(
    source_logits: Tensor,
    labels: Tensor,
    target_logits: Tensor,
    reduction: str,
    ignore_index: int = -100,
    *,
    weight: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]: ...


def category_discrimination(
    source_logits: Tensor,
    labels: Tensor,
    target_logits: Tensor,
    reduction: str = "mean",
    ignore_index: int = -100,
    *,
    weight: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Cross-entropy that tells source categories from each other and from the target, eq. (37).

    .. math::

        -\log p^{st}_{y}(x^s) - \log\sum_k p^{st}_{k+K}(x^t)

    SymmNets-V2 uses it instead of :func:`domain_discrimination`. On a source sample it is the sum
    of :func:`source_task` and that function's source part.

    Args:
        source_logits: Joint logits of source samples, ``(N, 2K, ...)``, of any floating dtype.
        labels: Categories in ``[0, K)``, ``(N, ...)``, of any integer dtype.
        target_logits: Joint logits of target samples, ``(M, 2K, ...)``; the batch and the
            trailing sizes may differ from the source's.
        reduction: ``"mean"``, the mean over source plus the mean over target; ``"sum"``, the sum
            over both; or ``"none"``.
        ignore_index: As in :func:`source_task`, for the source part.
        weight: As in :func:`source_task`, for the source part; the target part has no weights.

    Returns:
        A scalar, or the pair (source ``(N, ...)``, target ``(M, ...)``) under ``"none"``: at
        least 0, in nats; float32, or float64 for float64 logits.

    Raises:
        TypeError: As in :func:`source_task`.
        ValueError: As in :func:`source_task`, or if source and target have different dim 1.

    Example:
        >>> source, target = torch.zeros(4, 6), torch.zeros(2, 6)
        >>> category_discrimination(source, torch.tensor([0, 1, 2, 0]), target)  # log 6 + log 2
        tensor(2.4849)
    """
    check_reduction(reduction)
    check_logits("source_logits", source_logits)
    check_logits("target_logits", target_logits)
    check_same_categories("source_logits", source_logits, "target_logits", target_logits)
    labels = checked_labels(source_logits, labels, ignore_index)
    v = halves(source_logits)
    weight = checked_weight(v, weight)
    log_p = log_joint(v)[:, 0]
    source = F.nll_loss(log_p, labels, weight, ignore_index=ignore_index, reduction=reduction)
    target = -F.logsigmoid(-domain_logit(halves(target_logits)))
    return (source, target) if reduction == "none" else source + reduce(target, reduction)


def target_category_confusion(target_logits: Tensor, reduction: str = "mean") -> Tensor:
    r"""Cross-entropy between the two halves of a sample's prediction, eq. (36).

    .. math::

        -\tfrac{1}{2}\sum_k \left[p^{st}_{k+K}\log p^{st}_{k} + p^{st}_{k}\log p^{st}_{k+K}\right]

    SymmNets-V2 uses it instead of :func:`domain_confusion` and :func:`symmetric_entropy`: it is
    smallest where the two neurons of one category share all of the probability. A category masked
    by -inf in both halves gives NaN.

    Args:
        target_logits: Joint logits of target samples, ``(N, 2K, ...)``, of any floating dtype.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or ``(N, ...)`` under ``"none"``: at least :math:`\tfrac{1}{2} \log 2`, in nats;
        float32, or float64 for float64 logits.

    Raises:
        TypeError: If ``target_logits`` is not a floating-point tensor.
        ValueError: If its shape does not fit, the batch is empty, or ``reduction`` is unknown.

    Example:
        >>> target_category_confusion(torch.zeros(3, 8))  # (log 8) / 2
        tensor(1.0397)
    """
    check_reduction(reduction)
    check_logits("target_logits", target_logits)
    v = halves(target_logits)
    d = domain_logit(v).unsqueeze(1)
    d = torch.cat([d, -d], 1)
    # log p in two terms, of the half and of the domain, since the halves may lie far apart.
    log_p = v.log_softmax(2)
    within = (log_p.exp() * log_p.flip(1)).sum(2)
    return reduce(-(torch.sigmoid(d) * (within + F.logsigmoid(-d))).sum(1) / 2, reduction)


def category_balance(
    target_logits: Tensor, prior: Tensor | Sequence[float] | None = None
) -> Tensor:
    r"""Divergence of a batch's mean prediction from the expected category shares.

    .. math::

        \mathrm{KL}(m \,\|\, \pi) = \sum_k m_k \log\frac{m_k}{\pi_k}, \qquad
        m_k = \text{mean of } q_k \text{ over positions}, \qquad q_k = p^{st}_k + p^{st}_{k+K}

    With the uniform prior it is :math:`\log K` minus the entropy of :math:`m`: the diversity term
    of information maximisation (Krause, Perona and Gomes, NeurIPS 2010; Liang, Hu and Feng, ICML
    2020). Entropy and confusion alone can empty a category. To prevent that, add this term to the
    loss: ``losses.total(lam) + w * lam * category_balance(target.extractor)``. ``w = 1`` is classic
    information maximisation and the safer choice; 3 is better if the target's shares match the
    prior. Drop the term if they do not: it does harm where the target lacks categories or has them
    in other shares.

    It is a function of the batch, not of each sample, so there is no ``reduction``. A batch is a
    sample of the target: even perfect predictions have a value of about :math:`(K - 1) / 2N`, 0.56
    at ``N = K`` and 0.13 at ``N = 4K``. Use at least ``N = 2K``: on the digits (weight 3,
    three seeds) accuracy is 94.8 % with ``N = 2K``, 81.4 % with ``N = K``, 86.1 % without balance.
    Under DistributedDataParallel the mean is taken within each process.

    Args:
        target_logits: Joint logits of target samples, ``(N, 2K, ...)``, of any floating dtype. A
            category that is -inf in both halves at every position gives NaN.
        prior: Expected share of each category, ``(K,)``: numbers, or a tensor of any real dtype on
            the logits' device, positive and summing to 1. Uniform if None. It gets no gradient.

    Returns:
        A scalar, at least 0 up to rounding, in nats; float32, or float64 for float64 logits.

    Raises:
        TypeError: If ``target_logits`` is not a floating-point tensor, or ``prior`` is not made of
            real numbers.
        ValueError: If a shape does not fit, the batch is empty, or ``prior`` is on another device,
            not positive, or its sum is not within 1e-4 of 1. The values of a tensor are checked
            on the CPU only, and not under ``torch.compile``.

    Example:
        >>> one_of_two = torch.tensor([[9.0, -9.0, 9.0, -9.0]])
        >>> category_balance(one_of_two)  # log 2
        tensor(0.6931)
        >>> category_balance(one_of_two, prior=[0.75, 0.25])  # log 4/3
        tensor(0.2877)
    """
    check_logits("target_logits", target_logits)
    v = halves(target_logits)
    num_classes = v.shape[2]
    log_prior = -math.log(num_classes) if prior is None else checked_prior(v, prior).log()
    log_p = log_joint(v)
    all_but_category = (0, 1, *range(3, log_p.dim()))
    log_m = log_p.logsumexp(all_but_category) - math.log(log_p.numel() // (2 * num_classes))
    return (log_m.exp() * (log_m - log_prior)).sum()
