r"""The losses that SymmNets-V2 adds to those of SymNets, and the balance of the categories."""

import math
from collections.abc import Sequence

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
from symloss._log_domain import domain_logit, halves, log_joint, log_q, reduce


def category_balance(
    target_logits: Tensor, prior: Tensor | Sequence[float] | None = None
) -> Tensor:
    r"""Divergence of a batch's mean prediction from the proportions of the categories.

    .. math::

        \mathrm{KL}(m \,\|\, \pi) = \sum_k m_k \log\frac{m_k}{\pi_k}, \qquad
        m_k = \tfrac{1}{N}\sum_i q_k(x_i), \qquad q_k = p^{st}_k + p^{st}_{k+K}

    Args:
        target_logits: Joint logits of target samples, ``(N, 2K, ...)``, of any floating dtype.
        prior: Expected share of each category, ``(K,)``, positive and of sum 1; uniform if None.

    Example:
        >>> category_balance(torch.tensor([[9.0, 0.0, 9.0, 0.0], [0.0, 9.0, 0.0, 9.0]]))
        tensor(0.)
    """
    check_logits("target_logits", target_logits)
    v = halves(target_logits)
    log_prior = checked_prior(v, prior).log()
    log = log_q(v)
    log_m = log.transpose(0, 1).flatten(1).logsumexp(1) - math.log(log.numel() // log.shape[1])
    return (log_m.exp() * (log_m - log_prior)).sum()


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

    .. math:: -\log p^{st}_y(x^s) - \log\sum_k p^{st}_{k+K}(x^t)
    """
    check_reduction(reduction)
    check_logits("source_logits", source_logits)
    check_logits("target_logits", target_logits)
    check_same_categories("source_logits", source_logits, "target_logits", target_logits)
    labels = checked_labels(source_logits, labels, ignore_index)
    v = halves(source_logits)
    weight = checked_weight(v, weight)
    source = F.nll_loss(
        log_joint(v)[:, 0], labels, weight, ignore_index=ignore_index, reduction=reduction
    )
    target = reduce(-F.logsigmoid(-domain_logit(halves(target_logits))), reduction)
    return (source, target) if reduction == "none" else source + target


def target_category_confusion(target_logits: Tensor, reduction: str = "mean") -> Tensor:
    r"""Cross-entropy of a target sample's neurons to those of the other half, eq. (36).

    .. math::

        -\tfrac{1}{2}\sum_k \left[p^{st}_{k+K}\log p^{st}_k + p^{st}_k\log p^{st}_{k+K}\right]
    """
    check_reduction(reduction)
    check_logits("target_logits", target_logits)
    v = halves(target_logits)
    d = domain_logit(v)
    log_p = v.log_softmax(2)
    cross = -(log_p.exp() * log_p.flip(1)).sum(2)  # of p^s with log p^t, and of p^t with log p^s
    both = torch.stack([d, -d], 1)
    return reduce((torch.sigmoid(both) * (cross - F.logsigmoid(-both))).sum(1) / 2, reduction)
