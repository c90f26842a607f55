r"""The losses of SymNets and SymmNets-V2 as pure functions of joint logits.

Joint logits are the outputs of two classifiers side by side along dim 1:
:math:`v = [v^s; v^t]` with :math:`2K` entries, the first :math:`K` of the source classifier
:math:`C^s`, the last :math:`K` of the target classifier :math:`C^t`. As in
:func:`torch.nn.functional.cross_entropy`, any number of dimensions may follow: ``(N, 2K)`` for
images, ``(N, 2K, H, W)`` for dense prediction. Every index but dim 1 is a position. At each,

.. math::

    p^s = \mathrm{softmax}(v^s), \quad p^t = \mathrm{softmax}(v^t), \quad
    p^{st} = \mathrm{softmax}([v^s; v^t]),

.. math::

    a = \log\sum_k e^{v^s_k}, \quad b = \log\sum_k e^{v^t_k}, \quad d = a - b,

and :math:`P(\text{source} \mid x) = \sum_k p^{st}_k = \sigma(d)`, with :math:`\sigma` the
logistic function. Equations (5) to (13) are those of the paper (Zhang et al., *Domain-Symmetric
Networks for Adversarial Domain Adaptation*, CVPR 2019); (33) to (37) are SymmNets-V2's (Zhang et
al., *Unsupervised Multi-Class Domain Adaptation: Theory, Algorithms, and Practice*, TPAMI 2020),
where (33), (34) and (35) are (5), (6) and (8).

For every loss here:

- float16 and bfloat16 logits are computed in float32, also under autocast, and give float32
  results; float64 stays float64.
- Each loss can be differentiated twice.
- No logarithm of a probability is taken, except of the batch's mean in :func:`category_balance`.
  Finite logits give a finite loss and gradient as long as their differences fit the dtype of the
  computation.
- A NaN logit gives NaN in every loss that depends on it; an infinite one gives the equation's value
  or NaN.
"""

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
    halves,
    wide,
)

__all__ = [
    "split_logits",
    "source_task",
    "target_task",
    "domain_discrimination",
    "category_confusion",
    "domain_confusion",
    "symmetric_entropy",
    "category_discrimination",
    "target_category_confusion",
    "category_balance",
]


def split_logits(logits: Tensor) -> tuple[Tensor, Tensor]:
    r"""Split joint logits into the source and the target classifier's logits (section 3.1).

    .. math:: v = [v^s; v^t] \mapsto (v^s, v^t)

    Args:
        logits: Joint logits, ``(N, 2K, ...)``, of any floating dtype.

    Returns:
        Two views of ``logits``, source first, each ``(N, K, ...)``.

    Raises:
        TypeError: If ``logits`` is not a floating-point tensor.
        ValueError: If ``logits`` is empty, has fewer than 2 dimensions, or an odd dim 1.

    Example:
        >>> source, target = split_logits(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        >>> source, target
        (tensor([[1., 2.]]), tensor([[3., 4.]]))
    """
    check_logits("logits", logits)
    source, target = logits.chunk(2, dim=1)
    return source, target


def source_task(
    logits: Tensor,
    labels: Tensor,
    reduction: str = "mean",
    ignore_index: int = -100,
    *,
    weight: Tensor | None = None,
) -> Tensor:
    r"""Cross-entropy of the source classifier on labelled source samples, eq. (5).

    .. math:: \mathcal{E}^s_{task} = -\log p^s_y = a - v^s_y

    Args:
        logits: Joint logits of source samples, ``(N, 2K, ...)``, of any floating dtype.
        labels: Categories in ``[0, K)``, ``(N, ...)``, of any integer dtype.
        reduction: ``"mean"`` over the positions that are not ignored, ``"sum"``, or ``"none"``.
        ignore_index: Label of positions to ignore. Their loss is 0 under ``"none"``; if every
            position is ignored, the mean is NaN.
        weight: Weight of each category, ``(K,)``, at least 0, without gradient. As in
            :func:`torch.nn.functional.cross_entropy`, a position's loss is multiplied by its
            label's weight, and the mean divides by the sum of these weights (NaN if it is 0).

    Returns:
        A scalar, or ``(N, ...)`` under ``"none"``: at least 0, in nats; float32, or float64 for
        float64 logits.

    Raises:
        TypeError: If ``logits`` or ``weight`` is not floating point or ``labels`` is not integer.
        ValueError: If a shape does not fit, the batch is empty, ``reduction`` is unknown, a label
            is outside ``[0, K)`` and not ``ignore_index``, or a weight is negative, NaN, infinite,
            or on another device. Values are checked only on the CPU, and not under
            ``torch.compile`` or ``torch.func.vmap``; elsewhere, torch's own cross-entropy checks
            the labels.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0, 3.0, 3.0]])
        >>> source_task(logits, torch.tensor([1]))  # log 2
        tensor(0.6931)
    """
    return _task(0, logits, labels, reduction, ignore_index, weight)


def target_task(
    logits: Tensor,
    labels: Tensor,
    reduction: str = "mean",
    ignore_index: int = -100,
    *,
    weight: Tensor | None = None,
) -> Tensor:
    r"""Cross-entropy of the target classifier on labelled source samples, eq. (6).

    .. math:: \mathcal{E}^t_{task} = -\log p^t_y = b - v^t_y

    It ties neuron :math:`k` of the target classifier to neuron :math:`k` of the source classifier,
    as category-level confusion requires.

    Args:
        logits: Joint logits of source samples, ``(N, 2K, ...)``, of any floating dtype.
        labels: Categories in ``[0, K)``, ``(N, ...)``, of any integer dtype.
        reduction: As in :func:`source_task`.
        ignore_index: As in :func:`source_task`.
        weight: As in :func:`source_task`.

    Returns:
        As :func:`source_task`.

    Raises:
        TypeError: As in :func:`source_task`.
        ValueError: As in :func:`source_task`.

    Example:
        >>> logits = torch.tensor([[3.0, 3.0, 0.0, 0.0]])
        >>> target_task(logits, torch.tensor([0]))  # log 2
        tensor(0.6931)
    """
    return _task(1, logits, labels, reduction, ignore_index, weight)


@overload
def domain_discrimination(
    source_logits: Tensor, target_logits: Tensor, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor: ...


@overload
def domain_discrimination(
    source_logits: Tensor, target_logits: Tensor, reduction: Literal["none"]
) -> tuple[Tensor, Tensor]: ...


@overload
def domain_discrimination(
    source_logits: Tensor, target_logits: Tensor, reduction: str
) -> Tensor | tuple[Tensor, Tensor]: ...


def domain_discrimination(
    source_logits: Tensor, target_logits: Tensor, reduction: str = "mean"
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Two-way cross-entropy that tells source from target samples, eq. (7).

    .. math::

        \mathcal{E}^{st}_{domain} = -\log\sum_k p^{st}_k(x^s) - \log\sum_k p^{st}_{k+K}(x^t)
        = -\log\sigma(d(x^s)) - \log\sigma(-d(x^t))

    Args:
        source_logits: Joint logits of source samples, ``(N, 2K, ...)``, of any floating dtype.
        target_logits: Joint logits of target samples, ``(M, 2K, ...)``; the batch and the
            trailing sizes may differ from the source's.
        reduction: ``"mean"``, the mean over source plus the mean over target; ``"sum"``, the sum
            over both; or ``"none"``.

    Returns:
        A scalar, or the pair (source ``(N, ...)``, target ``(M, ...)``) under ``"none"``: at
        least 0, in nats; float32, or float64 for float64 logits.

    Raises:
        TypeError: If an argument is not a floating-point tensor.
        ValueError: If a shape does not fit, a batch is empty, the two have different dim 1, or
            ``reduction`` is unknown.

    Example:
        >>> source, target = torch.zeros(4, 6), torch.zeros(2, 6)
        >>> domain_discrimination(source, target)  # 2 log 2
        tensor(1.3863)
    """
    check_reduction(reduction)
    check_logits("source_logits", source_logits)
    check_logits("target_logits", target_logits)
    check_same_categories("source_logits", source_logits, "target_logits", target_logits)
    source = -F.logsigmoid(_domain_logit(halves(source_logits)))
    target = -F.logsigmoid(-_domain_logit(halves(target_logits)))
    if reduction == "none":
        return source, target
    return _reduce(source, reduction) + _reduce(target, reduction)


def category_confusion(
    source_logits: Tensor,
    labels: Tensor,
    reduction: str = "mean",
    ignore_index: int = -100,
    *,
    weight: Tensor | None = None,
) -> Tensor:
    r"""Cross-entropy between the uniform distribution and a source sample's neuron pair, eq. (8).

    .. math::

        \mathcal{F}^{st}_{category} = -\tfrac{1}{2}\log p^{st}_{y} - \tfrac{1}{2}\log p^{st}_{y+K}

    It equals ``(source_task + target_task) / 2 + domain_confusion``, all on the source sample,
    and is therefore at least :math:`\log 2`.

    Args:
        source_logits: Joint logits of source samples, ``(N, 2K, ...)``, of any floating dtype.
        labels: Categories in ``[0, K)``, ``(N, ...)``, of any integer dtype.
        reduction: As in :func:`source_task`.
        ignore_index: As in :func:`source_task`.
        weight: As in :func:`source_task`.

    Returns:
        As :func:`source_task`, but at least :math:`\log 2` unless ignored or weighted.

    Raises:
        TypeError: As in :func:`source_task`.
        ValueError: As in :func:`source_task`.

    Example:
        >>> category_confusion(torch.zeros(1, 4), torch.tensor([0]))  # log 4
        tensor(1.3863)
    """
    check_reduction(reduction)
    check_logits("source_logits", source_logits)
    labels = checked_labels(source_logits, labels, ignore_index).repeat_interleave(2, 0)
    v = halves(source_logits)
    weight = checked_weight(v, weight)
    log_p = _log_joint(v).flatten(0, 1)  # (2N, K, ...)
    pairs = F.nll_loss(log_p, labels, weight, ignore_index=ignore_index, reduction=reduction)
    if reduction == "none":
        return (pairs / 2).view(-1, 2, *pairs.shape[1:]).sum(1)
    return pairs if reduction == "mean" else pairs / 2


def domain_confusion(target_logits: Tensor, reduction: str = "mean") -> Tensor:
    r"""Cross-entropy between the uniform distribution and a sample's domain prediction, eq. (9).

    .. math::

        \mathcal{F}^{st}_{domain} = -\tfrac{1}{2}\log\sum_k p^{st}_{k+K}
        - \tfrac{1}{2}\log\sum_k p^{st}_k = -\tfrac{1}{2}[\log\sigma(-d) + \log\sigma(d)]

    On source logits it is eq. (12), the ablation without category-level confusion.

    Args:
        target_logits: Joint logits of target samples, ``(N, 2K, ...)``, of any floating dtype.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or ``(N, ...)`` under ``"none"``: at least :math:`\log 2`, reached at
        :math:`a = b`, in nats; float32, or float64 for float64 logits.

    Raises:
        TypeError: If ``target_logits`` is not a floating-point tensor.
        ValueError: If its shape does not fit, the batch is empty, or ``reduction`` is unknown.

    Example:
        >>> domain_confusion(torch.zeros(3, 4))  # log 2
        tensor(0.6931)
    """
    check_reduction(reduction)
    check_logits("target_logits", target_logits)
    d = _domain_logit(halves(target_logits))
    return _reduce(d / 2 - F.logsigmoid(d), reduction)  # logsigmoid(-d) = logsigmoid(d) - d


def symmetric_entropy(target_logits: Tensor, reduction: str = "mean") -> Tensor:
    r"""Entropy of the category prediction, summed over pairs of neurons, eq. (10).

    .. math::

        \mathcal{M}^{st} = -\sum_k q_k \log q_k, \qquad q_k = p^{st}_k + p^{st}_{k+K}

    A category masked by -inf in both halves gives NaN, not the limit 0 log 0 = 0.

    Args:
        target_logits: Joint logits of target samples, ``(N, 2K, ...)``, of any floating dtype.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or ``(N, ...)`` under ``"none"``: in :math:`[0, \log K]`, in nats; float32, or
        float64 for float64 logits.

    Raises:
        TypeError: If ``target_logits`` is not a floating-point tensor.
        ValueError: If its shape does not fit, the batch is empty, or ``reduction`` is unknown.

    Example:
        >>> symmetric_entropy(torch.zeros(3, 8))  # log 4
        tensor(1.3863)
    """
    check_reduction(reduction)
    check_logits("target_logits", target_logits)
    source, target = halves(target_logits).unbind(1)
    top = torch.maximum(source.detach(), target.detach())
    log_sum = ((source - top).exp_() + (target - top).exp_()).log()
    log_q = (log_sum + (top - top.amax(1, keepdim=True))).log_softmax(1)
    return _reduce(-(log_q.exp() * log_q).sum(1), reduction)


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

    SymmNets-V2 uses it instead of :func:`domain_discrimination`. On a source sample, it is the sum
    of :func:`source_task` and the source part of :func:`domain_discrimination`.

    Args:
        source_logits: Joint logits of source samples, ``(N, 2K, ...)``, of any floating dtype.
        labels: Categories in ``[0, K)``, ``(N, ...)``, of any integer dtype.
        target_logits: Joint logits of target samples, ``(M, 2K, ...)``; the batch and the
            trailing sizes may differ from the source's.
        reduction: ``"mean"``, the mean over source plus the mean over target; ``"sum"``, the sum
            over both; or ``"none"``.
        ignore_index: As in :func:`source_task`, for the source part.
        weight: As in :func:`source_task`, for the source part; the target part is not weighted.

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
    log_p = _log_joint(v)[:, 0]
    source = F.nll_loss(log_p, labels, weight, ignore_index=ignore_index, reduction=reduction)
    target = -F.logsigmoid(-_domain_logit(halves(target_logits)))
    return (source, target) if reduction == "none" else source + _reduce(target, reduction)


def target_category_confusion(target_logits: Tensor, reduction: str = "mean") -> Tensor:
    r"""Cross-entropy between the two halves of a sample's prediction, eq. (36).

    .. math::

        -\tfrac{1}{2}\sum_k \left[p^{st}_{k+K}\log p^{st}_{k} + p^{st}_{k}\log p^{st}_{k+K}\right]

    SymmNets-V2 uses it instead of :func:`domain_confusion` and :func:`symmetric_entropy`. It is
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
    d = _domain_logit(v).unsqueeze(1)
    d = torch.cat([d, -d], 1)
    # log p in two terms, of the half and of the domain, since the halves may lie far apart.
    log_p = v.log_softmax(2)
    within = (log_p.exp() * log_p.flip(1)).sum(2)
    return _reduce(-(torch.sigmoid(d) * (within + F.logsigmoid(-d))).sum(1) / 2, reduction)


def category_balance(
    target_logits: Tensor, prior: Tensor | Sequence[float] | None = None
) -> Tensor:
    r"""Divergence of a batch's mean prediction from the expected category shares.

    .. math::

        \mathrm{KL}(m \,\|\, \pi) = \sum_k m_k \log\frac{m_k}{\pi_k}, \qquad
        m_k = \text{mean of } q_k \text{ over positions}, \qquad q_k = p^{st}_k + p^{st}_{k+K}

    With the uniform prior it is :math:`\log K` minus the entropy of :math:`m`: the diversity term
    of information maximisation (Krause, Perona and Gomes, NeurIPS 2010; Liang, Hu and Feng, ICML
    2020). Entropy and confusion alone can make a category disappear. To prevent that, minimise
    ``losses.total(lam) + w * lam * category_balance(target.extractor)``. ``w = 1`` is classic
    information maximisation and the safer choice; 3 is better if the target's shares match the
    prior. If they do not, drop the term, which then lowers accuracy, or estimate the shares
    (:func:`symloss.estimate_prior`).

    It is a function of the whole batch, so there is no ``reduction``. Since a batch is a random
    sample of the target, even perfect predictions have a value of about :math:`(K - 1) / 2N`: 0.56
    at ``N = K`` and 0.13 at ``N = 4K``. Use at least ``N = 2K``; with fewer samples, chance decides
    which categories a batch holds. Under DistributedDataParallel the mean is taken within each
    process.

    Args:
        target_logits: Joint logits of target samples, ``(N, 2K, ...)``, of any floating dtype. A
            category that is -inf in both halves at every position counts as absent.
        prior: Expected share of each category, ``(K,)``: numbers, or a tensor of any real dtype on
            the logits' device, positive and summing to 1. Uniform if None. It gets no gradient.

    Returns:
        A scalar, at least 0 up to rounding, in nats; float32, or float64 for float64 logits.

    Raises:
        TypeError: If ``target_logits`` is not a floating-point tensor, or ``prior`` is not made of
            real numbers.
        ValueError: If a shape does not fit, the batch is empty, or ``prior`` is on another device,
            not positive, or its sum is not within 1e-4 of 1. The values of a tensor are checked
            only on the CPU, and not under ``torch.compile``.

    Example:
        >>> one_of_two = torch.tensor([[9.0, -9.0, 9.0, -9.0]])
        >>> category_balance(one_of_two)  # log 2
        tensor(0.6931)
        >>> category_balance(one_of_two, prior=[0.75, 0.25])  # log 4/3
        tensor(0.2877)
    """
    check_logits("target_logits", target_logits)
    p = wide(target_logits).softmax(1)
    m = p.mean((0, *range(2, p.dim()))).view(2, -1).sum(0)
    log_prior = -math.log(len(m)) if prior is None else checked_prior(m, prior).log()
    log_m = m.clamp_min(torch.finfo(m.dtype).tiny).log()  # m log m goes to 0 with m
    return (m * (log_m - log_prior)).sum()


def _task(
    half: int, logits: Tensor, labels: Tensor, reduction: str, ignore: int, weight: Tensor | None
) -> Tensor:
    check_reduction(reduction)
    check_logits("logits", logits)
    labels = checked_labels(logits, labels, ignore)
    v = halves(logits)
    weight = checked_weight(v, weight)
    return F.cross_entropy(v[:, half], labels, weight, ignore_index=ignore, reduction=reduction)


def _log_joint(v: Tensor) -> Tensor:
    """Return log p, ``(N, 2, K, ...)``, of :func:`halves`."""
    return v.flatten(1, 2).log_softmax(1).view_as(v)


def _domain_logit(v: Tensor) -> Tensor:
    """Return d = a - b, ``(N, ...)``, of :func:`halves`."""
    # Each half has its own maximum: a common one would round away the lower half. It needs no
    # gradient, since a and b do not depend on it.
    top = v.detach().amax(2)
    log_sum = (v - top.unsqueeze(2)).exp_().sum(2).log()
    return torch.sub(*log_sum.unbind(1)) + torch.sub(*top.unbind(1))


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    """Return the loss of each position, or the mean or sum over positions."""
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()
