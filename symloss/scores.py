r"""Scores of target predictions that need no target labels; higher is better.

Each takes the logits ``(N, K, ...)`` of one classifier on target samples, in evaluation mode. From
a symmetric head's joint logits ``v``, take
:func:`split_logits(v)[1] <symloss.functional.split_logits>`. Every index but dim 1 is a position;
:math:`n` is their number, :math:`p = \mathrm{softmax}(v)` a position's probabilities, :math:`P`
the ``(n, K)`` matrix of all and :math:`H` the entropy in nats.

Use scores to rank candidates on the same target. None is an accuracy, and each can be fooled, as
its entry says: check with :func:`symloss.diagnostics.diagnose` which categories are predicted at
all.

For every score here:

- It is computed in float32, also under autocast, or in float64 for float64 logits; it carries no
  gradient.
- It stays on the logits' device; only the singular values of :func:`nuclear_norm` wait for it.
- NaN gives NaN; among candidates, only for the one that has it.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from symloss._checks import checked_rows

__all__ = [
    "information_maximization",
    "nuclear_norm",
    "soft_neighborhood_density",
    "corr_c",
    "ensemble_agreement",
]

_ELEMENTS = 2**24  # of an n x n matrix, held at once


def information_maximization(target_logits: Tensor) -> Tensor:
    r"""Mutual information of input and prediction: high if certain and spread over categories.

    .. math:: H\left(\frac{1}{n}\sum_i p_i\right) - \frac{1}{n}\sum_i H(p_i)

    Krause, Perona and Gomes, *Discriminative Clustering by Regularized Information Maximization*,
    NeurIPS 2010. It assumes categories of equal size.

    Args:
        target_logits: Logits of one classifier, ``(N, K, ...)``, of any floating dtype.

    Returns:
        A scalar in :math:`[0, \log K]`, in nats.

    Raises:
        TypeError: If ``target_logits`` is not a floating-point tensor.
        ValueError: If its shape does not fit, or it is empty.

    Example:
        >>> certain = 100 * torch.eye(4)
        >>> information_maximization(certain)  # log 4
        tensor(1.3863)
        >>> information_maximization(torch.zeros(4, 4))
        tensor(0.)
    """
    p = checked_rows("target_logits", target_logits).softmax(1)
    return _entropy(p.mean(0)) - _entropy(p).mean()


def nuclear_norm(target_logits: Tensor) -> Tensor:
    r"""Sum of the prediction matrix's singular values, relative to the largest possible sum.

    .. math:: \frac{\lVert P \rVert_*}{\sqrt{n \min(n, K)}}

    Cui et al., *Towards Discriminability and Diversity: Batch Nuclear-norm Maximization under Label
    Insufficient Situations*, CVPR 2020, which divides by n instead. Like
    :func:`information_maximization`, it assumes categories of equal size.

    Args:
        target_logits: Logits of one classifier, ``(N, K, ...)``, of any floating dtype.

    Returns:
        A scalar in :math:`[1/K, 1]` for :math:`n \ge K`: 1 if all predictions are certain and the
        categories equally frequent.

    Raises:
        TypeError: As in :func:`information_maximization`.
        ValueError: As in :func:`information_maximization`.

    Example:
        >>> certain, flat = 100 * torch.eye(4), torch.zeros(4, 4)
        >>> [round(nuclear_norm(logits).item(), 4) for logits in (certain, flat)]
        [1.0, 0.25]
    """
    p = checked_rows("target_logits", target_logits).softmax(1)
    r = torch.linalg.qr(p, mode="r").R  # with the singular values of P, and small
    norm = torch.linalg.svdvals(r.nan_to_num()).sum() / math.sqrt(len(p) * len(r))
    return torch.where(p.isnan().any(), math.nan, norm)


def soft_neighborhood_density(target_logits: Tensor, temperature: float = 0.05) -> Tensor:
    r"""Soft count of the neighbours of each prediction among the others.

    .. math::

        \frac{1}{n}\sum_i H(s_i), \qquad
        s_{ij} \propto \exp\frac{\cos(p_i, p_j)}{T} \;\; (j \ne i), \quad s_{ii} = 0

    Saito et al., *Tune it the Right Way: Unsupervised Validation of Domain Adaptation via Soft
    Neighborhood Density*, ICCV 2021, on softmax outputs. A classifier that always predicts the same
    category reaches the maximum. Time grows with the square of n, memory does not.

    Args:
        target_logits: Logits of one classifier, ``(N, K, ...)``, with at least 2 positions.
        temperature: T, above 0.

    Returns:
        A scalar in :math:`[0, \log(n - 1)]`, in nats.

    Raises:
        TypeError: As in :func:`information_maximization`.
        ValueError: As in :func:`information_maximization`, or if there is only one position or
            ``temperature`` is not a positive number.

    Example:
        >>> soft_neighborhood_density(torch.zeros(5, 3))  # log 4
        tensor(1.3863)
    """
    v = checked_rows("target_logits", target_logits)
    n = len(v)
    if n < 2:
        raise ValueError(
            f"target_logits must have at least 2 positions, got shape {tuple(target_logits.shape)}"
        )
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be finite and above 0, got {temperature}")
    p = F.normalize(v.softmax(1), dim=1)
    total = p.new_zeros(())
    step = max(1, _ELEMENTS // n)
    with _no_autocast(p):
        for start in range(0, n, step):
            s = (p[start : start + step] / temperature) @ p.T
            s.diagonal(start).fill_(-math.inf)
            s -= s.amax(1, keepdim=True)
            e = s.exp()
            s.diagonal(start).fill_(0)
            z = e.sum(1)
            total += (z.log() - s.mul_(e).sum(1) / z).sum()
    return total / n


def corr_c(target_logits: Tensor) -> Tensor:
    r"""Cosine similarity of the category correlation matrix and the identity matrix.

    .. math:: \frac{\mathrm{tr}(P^\top P)}{\sqrt{K} \, \lVert P^\top P \rVert_F}

    Tu et al., *What Does Softmax Probability Tell Us about Classifiers Ranking Across Diverse Test
    Conditions?*, TMLR 2024 ("SoftmaxCorr"). It assumes equally frequent categories.

    Args:
        target_logits: Logits of one classifier, ``(N, K, ...)``, of any floating dtype.

    Returns:
        A scalar in :math:`[1/\sqrt{K}, 1]`: 1 if all predictions are certain and the categories
        equally frequent.

    Raises:
        TypeError: As in :func:`information_maximization`.
        ValueError: As in :func:`information_maximization`.

    Example:
        >>> corr_c(100 * torch.eye(4)), corr_c(torch.zeros(4, 4))
        (tensor(1.), tensor(0.5000))
    """
    p = checked_rows("target_logits", target_logits).softmax(1)
    with _no_autocast(p):
        correlation = p.T @ p / len(p)
    norm = correlation.square().sum().sqrt()
    return correlation.trace() / (math.sqrt(len(correlation)) * norm)


def ensemble_agreement(candidates: Sequence[Tensor]) -> Tensor:
    r"""Agreement of each candidate with the mean prediction of all candidates.

    .. math::

        a_m = \frac{1}{n}\sum_i \left[\arg\max_k p^{(m)}_{ik}
        = \arg\max_k \sum_{m'} p^{(m')}_{ik}\right]

    Hu et al., *EnsV* (ensemble-based validation). It compares candidates with each other, so most
    of them must be sound. A candidate with NaN gets NaN and does not count for the others.

    Args:
        candidates: Logits of M candidates, ``(N, K, ...)``, all of the same shape, on the same
            images in the same order.

    Returns:
        A score in [0, 1] for each, ``(M,)``.

    Raises:
        TypeError: If a candidate is not a floating-point tensor.
        ValueError: If there are no candidates, or a shape does not fit.

    Example:
        >>> one, other = torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0, 0.0]])
        >>> ensemble_agreement([one, other, other])
        tensor([0., 1., 1.])
    """
    if len(candidates) == 0:
        raise ValueError("candidates must contain at least one candidate's logits, got none")
    parts = [checked_rows(f"candidates[{m}]", v) for m, v in enumerate(candidates)]
    for m, v in enumerate(candidates):
        if v.shape != candidates[0].shape:
            raise ValueError(
                f"candidates must all have the same shape, got {tuple(candidates[0].shape)} and "
                f"{tuple(v.shape)} (candidates[{m}])"
            )
    mean = torch.zeros_like(parts[0])
    sound = []
    for v in parts:
        p = v.softmax(1)
        sound.append(~p.isnan().any())
        mean += p.where(sound[-1], 0)
    common = mean.argmax(1)
    return torch.stack(
        [
            (v.argmax(1) == common).to(mean.dtype).mean().where(counts, math.nan)
            for v, counts in zip(parts, sound, strict=True)
        ]
    )


def _entropy(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p).sum(-1)


def _no_autocast(p: Tensor) -> AbstractContextManager[None]:
    """Compute products in the dtype of ``p``."""
    enabled = torch.is_autocast_enabled(p.device.type)
    return torch.autocast(p.device.type, enabled=False) if enabled else nullcontext()
