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
- No probability is put into a logarithm. Finite logits give a finite loss and gradient as long as
  their differences fit the dtype of the computation.
- A NaN logit gives NaN in every loss that depends on it; an infinite one gives the equation's
  value or NaN. Nothing is replaced.
"""

from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from symloss._checks import (
    check_logits,
    check_reduction,
    check_same_categories,
    checked_labels,
    checked_weight,
)
from symloss._log_domain import domain_logit, halves, log_joint, reduce
from symloss._v2 import category_balance, category_discrimination, target_category_confusion

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
            or on another device. Values are checked on the CPU only, not under
            ``torch.compile``: otherwise torch's own cross-entropy checks the labels. The check
            does not work under ``torch.func.vmap``; use ``"none"``.

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

    It ties neuron :math:`k` of the target classifier to neuron :math:`k` of the source
    classifier, which category-level confusion builds on.

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
    source = -F.logsigmoid(domain_logit(halves(source_logits)))
    target = -F.logsigmoid(-domain_logit(halves(target_logits)))
    if reduction == "none":
        return source, target
    return reduce(source, reduction) + reduce(target, reduction)


def category_confusion(
    source_logits: Tensor,
    labels: Tensor,
    reduction: str = "mean",
    ignore_index: int = -100,
    *,
    weight: Tensor | None = None,
) -> Tensor:
    r"""Cross-entropy of the uniform distribution and a source sample's pair of neurons, eq. (8).

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
        As :func:`source_task`, but at least :math:`\log 2` if not ignored or weighted.

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
    log_p = log_joint(v).flatten(0, 1)  # (2N, K, ...)
    pairs = F.nll_loss(log_p, labels, weight, ignore_index=ignore_index, reduction=reduction)
    if reduction == "none":
        return (pairs / 2).view(-1, 2, *pairs.shape[1:]).sum(1)
    return pairs if reduction == "mean" else pairs / 2


def domain_confusion(target_logits: Tensor, reduction: str = "mean") -> Tensor:
    r"""Cross-entropy of the uniform distribution and a sample's domain prediction, eq. (9).

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
    d = domain_logit(halves(target_logits))
    return reduce(d / 2 - F.logsigmoid(d), reduction)  # logsigmoid(-d) = logsigmoid(d) - d


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
    return reduce(-(log_q.exp() * log_q).sum(1), reduction)


def _task(
    half: int, logits: Tensor, labels: Tensor, reduction: str, ignore: int, weight: Tensor | None
) -> Tensor:
    check_reduction(reduction)
    check_logits("logits", logits)
    labels = checked_labels(logits, labels, ignore)
    v = halves(logits)
    weight = checked_weight(v, weight)
    return F.cross_entropy(v[:, half], labels, weight, ignore_index=ignore, reduction=reduction)
