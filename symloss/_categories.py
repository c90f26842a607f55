r"""How the target predictions spread over the categories; public in :mod:`symloss.scores`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from symloss._checks import check_logits, checked_lam, checked_prior

_RARELY = 5  # times less often than expected
_SHOWN = 10  # categories


def rows(
    logits: Tensor, joint: bool, name: str = "target_logits", *, classifier: int = 1
) -> Tensor:
    """Return one classifier's logits ``(n, K)``, detached, in float32 (float64 stays)."""
    check_logits(name, logits, joint)
    v = logits.detach()
    v = v.chunk(2, dim=1)[classifier] if joint else v
    wide = v if v.dtype == torch.float64 else v.float()
    return wide.movedim(1, -1).flatten(0, -2)


def unless_nan(used: Tensor, value: Tensor) -> Tensor:
    """Return ``value``, or NaN if ``used`` contains one: argmax treats NaN as the largest."""
    return torch.where(used.isnan().any(), math.nan, value)


def agreement(target_logits: Tensor) -> Tensor:
    r"""Share of positions where the source and target classifiers predict the same category.

    .. math:: \frac{1}{n}\sum_i [\arg\max_k v^s_{ik} = \arg\max_k v^t_{ik}]

    It needs a symmetric head. The two classifiers can agree and both be wrong.

    Args:
        target_logits: Joint logits ``(N, 2K, ...)``, of any floating dtype.

    Returns:
        A scalar in [0, 1].

    Raises:
        TypeError: As in :func:`information_maximization`.
        ValueError: As in :func:`information_maximization`.

    Example:
        >>> agreement(torch.tensor([[2.0, 0.0, 1.0, 0.0], [2.0, 0.0, 0.0, 1.0]]))
        tensor(0.5000)
    """
    target = rows(target_logits, joint=True)
    source = rows(target_logits, joint=True, classifier=0)
    same = (source.argmax(1) == target.argmax(1)).to(target.dtype).mean()
    return unless_nan(torch.maximum(source, target), same)


def category_shares(
    target_logits: Tensor, prior: Tensor | Sequence[float] | None = None, *, joint: bool = True
) -> tuple[Tensor, Tensor]:
    r"""How often each category is predicted, and how often it should be. Not a score.

    .. math:: \frac{1}{n}\sum_i [\arg\max_j v^t_{ij} = k]

    A category that is predicted far less often than expected may have been lost in training.

    Args:
        target_logits: Joint logits ``(N, 2K, ...)``, as in :func:`information_maximization`.
        prior: Expected shares ``(K,)``, for example the source's; uniform if None.
        joint: As in :func:`information_maximization`.

    Returns:
        Predicted and expected shares, each ``(K,)`` and summing to 1.

    Raises:
        TypeError: As in :func:`information_maximization`.
        ValueError: As in :func:`information_maximization`, or if ``prior`` has the wrong shape
            or device, an entry that is not positive, or a sum other than 1.

    Example:
        >>> predicted, expected = category_shares(torch.eye(2)[[0, 0, 0, 1]], joint=False)
        >>> predicted, expected
        (tensor([0.7500, 0.2500]), tensor([0.5000, 0.5000]))
    """
    v = rows(target_logits, joint)
    shared = v.new_full(v.shape[1:], 1 / v.shape[1])
    expected = shared if prior is None else checked_prior(v.unsqueeze(1), prior)
    predicted = v.argmax(1)
    counts = predicted.new_zeros(v.shape[1])  # integers: float32 stops counting at 2^24
    counts.scatter_add_(0, predicted, torch.ones_like(predicted))
    return unless_nan(v, counts.to(v.dtype) / len(v)), expected


def category_weights(target_logits: Tensor, lam: float | Tensor, *, joint: bool = True) -> Tensor:
    r"""Weights that play down source categories missing from the target. Not a score.

    .. math::

        w_k = \lambda \frac{m_k}{\max_j m_j} + 1 - \lambda, \qquad
        m = \frac{1}{n}\sum_i p_i

    The rule of Zhang et al., *Unsupervised Multi-Class Domain Adaptation: Theory, Algorithms, and
    Practice*, TPAMI 2020, for partial adaptation: pass them to the losses as ``weight=``, and
    re-estimate them once per epoch on the whole target in evaluation mode.

    Args:
        target_logits: Joint logits ``(N, 2K, ...)``, as in :func:`information_maximization`.
        lam: λ in [0, 1], from :func:`symloss.progressive_lambda`: at 0 all weights are 1.
        joint: As in :func:`information_maximization`.

    Returns:
        Weights ``(K,)`` in [0, 1]; the largest is 1.

    Raises:
        TypeError: As in :func:`information_maximization`.
        ValueError: As in :func:`information_maximization`, or if ``lam`` is not in [0, 1].

    Example:
        >>> category_weights(torch.tensor([[9.0, 9.0, -99.0]]), lam=0.5, joint=False)
        tensor([1.0000, 1.0000, 0.5000])
    """
    mean = rows(target_logits, joint).softmax(1).mean(0)
    lam = checked_lam(lam, most=1)
    return lam * (mean / mean.max()) + (1 - lam)


@dataclass(frozen=True)
class Diagnosis:
    """How a model's predictions spread over the categories, as :func:`diagnose` returns it.

    ``print`` it for a short report.

    Attributes:
        categories: Names of the K categories.
        predicted: Predicted share of each category in the target.
        expected: Expected share of each category in the target.
        agreement: Share of the target where the two classifiers of a symmetric head predict the
            same category; None for a single classifier.

    Example:
        >>> found = Diagnosis(("bike", "mug"), predicted=(0.95, 0.05), expected=(0.5, 0.5))
        >>> found.rarely_predicted
        ['mug']
        >>> found.sentence(remedy="more")
        '1 of 2 categories is rarely or never predicted (mug): if the target contains it, try more.'
    """

    categories: tuple[str, ...]
    predicted: tuple[float, ...]
    expected: tuple[float, ...]
    agreement: float | None = None

    @property
    def rarely_predicted(self) -> list[str]:
        """Categories that are predicted less than a fifth as often as expected, or never."""
        shares = zip(self.categories, self.predicted, self.expected, strict=True)
        return [name for name, predicted, expected in shares if _RARELY * predicted < expected]

    def sentence(self, remedy: str | None = None) -> str:
        """Return one sentence about the rarely predicted categories.

        Args:
            remedy: What to try if there are any, for example ``"--balance 3"``.
        """
        count, names = len(self.categories), self.rarely_predicted
        if not names:
            return f"All {count} categories are predicted."
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        verb, them = ("is", "it") if len(names) == 1 else ("are", "them")
        listed = f"{', '.join(names[:_SHOWN])}{more}"
        found = f"{len(names)} of {count} categories {verb} rarely or never predicted ({listed})"
        return f"{found}: if the target contains {them}, try {remedy}." if remedy else f"{found}."

    def describe(self, remedy: str | None = None) -> str:
        """Return the whole diagnosis in a few lines; ``remedy`` as in :meth:`sentence`."""
        shares = [*zip(self.predicted, self.expected, self.categories, strict=True)]
        shares.sort(key=lambda share: share[0] / share[1])
        told = [f"{name} {100 * p:.1f} ({100 * e:.1f})" for p, e, name in shares]
        if len(told) > _SHOWN:
            told[_SHOWN // 2 : -_SHOWN // 2] = ["..."]
        lines = [f"Predicted (expected) share in %: {', '.join(told)}", self.sentence(remedy)]
        if self.agreement is not None:
            share = f"{100 * self.agreement:.1f} %"
            lines.insert(0, f"The source and target classifiers agree on {share} of the target.")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.describe()


def diagnose(
    target_logits: Tensor,
    categories: Sequence[str] | None = None,
    prior: Tensor | Sequence[float] | None = None,
    *,
    joint: bool = True,
) -> Diagnosis:
    r"""Report, without labels, which target categories may have been lost. Not a score.

    .. math:: \frac{1}{n}\sum_i [\arg\max_j v^t_{ij} = k] < \frac{\pi_k}{5}

    Unlike the scores, it waits for the logits' device.

    Args:
        target_logits: Joint logits ``(N, 2K, ...)``, as in :func:`information_maximization`.
        categories: Names of the K categories; their indices by default.
        prior: Expected shares :math:`\pi`, as in :func:`category_shares`.
        joint: As in :func:`information_maximization`.

    Returns:
        Shares and agreement, as plain numbers.

    Raises:
        TypeError: As in :func:`information_maximization`.
        ValueError: As in :func:`category_shares`, or if ``categories`` does not have length K or
            the logits contain NaN.

    Example:
        >>> logits = torch.eye(3)[[0, 0, 0, 1]]
        >>> print(diagnose(logits, ["bike", "mug", "pen"], joint=False))
        Predicted (expected) share in %: pen 0.0 (33.3), mug 25.0 (33.3), bike 75.0 (33.3)
        1 of 3 categories is rarely or never predicted (pen).
    """
    predicted, expected = (
        part.tolist() for part in category_shares(target_logits, prior, joint=joint)
    )
    names = tuple(range(len(expected)) if categories is None else categories)
    if len(names) != len(expected):
        raise ValueError(
            f"categories must have {len(expected)} names, one per category of the logits, "
            f"got {len(names)}"
        )
    same = agreement(target_logits).item() if joint else None
    if any(map(math.isnan, [*predicted, same or 0.0])):
        raise ValueError("target_logits must not contain NaN")
    return Diagnosis(tuple(map(str, names)), tuple(predicted), tuple(expected), same)
