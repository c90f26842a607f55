r"""Diagnosis of target predictions without target labels: lost categories, disagreeing classifiers.

Unlike the functions of :mod:`symloss.scores`, these do not rank models. Each takes the logits
``(N, K, ...)`` of one classifier on target samples, in evaluation mode; only :func:`agreement`,
which compares the two classifiers of a symmetric head, takes its joint logits ``(N, 2K, ...)``.
Every index but dim 1 is a position, and :math:`n` is their number. Results are float32, or float64
for float64 logits, without gradient and on the logits' device. Nothing but :func:`diagnose`, which
returns plain numbers, waits for that device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from symloss._checks import check_logits, checked_lam, checked_prior, checked_rows

__all__ = ["category_shares", "category_weights", "agreement", "Diagnosis", "diagnose"]

_RARELY = 5  # times less often than expected
_ABSENT = 20  # times rarer than with equal shares
_SHOWN = 10  # categories
_AGREEMENT = 0.5  # share of the target; below it, classifiers disagree
_FRACTIONS = {
    "About a fifth": 0.2,
    "About a quarter": 0.25,
    "About a third": 1 / 3,
    "About two fifths": 0.4,
    "About half": 0.5,
    "About two thirds": 2 / 3,
    "Most": 0.85,
}


def category_shares(
    target_logits: Tensor, prior: Tensor | Sequence[float] | None = None
) -> tuple[Tensor, Tensor]:
    r"""Share of each category in the predictions, and the share expected of it.

    .. math:: \frac{1}{n}\sum_i [\arg\max_j v_{ij} = k]

    A category that is predicted far less often than expected may have been lost in training.

    Args:
        target_logits: Logits of one classifier, ``(N, K, ...)``, of any floating dtype.
        prior: Expected shares ``(K,)``, for example the source's; uniform if None.

    Returns:
        Predicted and expected shares, each ``(K,)`` and summing to 1; NaN logits give NaN.

    Raises:
        TypeError: If ``target_logits`` is not a floating-point tensor, or ``prior`` is not made of
            real numbers.
        ValueError: If ``target_logits`` is empty or its shape does not fit, or if ``prior`` has
            the wrong shape or device, an entry that is not positive, or a sum other than 1.

    Example:
        >>> predicted, expected = category_shares(torch.eye(2)[[0, 0, 0, 1]])
        >>> predicted, expected
        (tensor([0.7500, 0.2500]), tensor([0.5000, 0.5000]))
    """
    v = checked_rows("target_logits", target_logits)
    index = v.argmax(1)  # takes NaN for the largest
    counts = index.new_zeros(v.shape[1])  # integers: float32 stops counting at 2^24
    counts.scatter_add_(0, index, torch.ones_like(index))
    predicted = torch.where(v.isnan().any(), math.nan, counts.to(v.dtype) / len(v))
    uniform = torch.full_like(predicted, 1 / len(predicted))
    return predicted, uniform if prior is None else checked_prior(predicted, prior)


def category_weights(target_logits: Tensor, lam: float | Tensor) -> Tensor:
    r"""Weights that play down source categories missing from the target.

    .. math::

        w_k = \lambda \frac{m_k}{\max_j m_j} + 1 - \lambda, \qquad
        m = \frac{1}{n}\sum_i \mathrm{softmax}(v_i)

    The rule of Zhang et al., *Unsupervised Multi-Class Domain Adaptation: Theory, Algorithms, and
    Practice*, TPAMI 2020, for partial adaptation: pass them to the losses as ``weight=``, and
    re-estimate them once per epoch on the whole target in evaluation mode.

    Args:
        target_logits: Logits of the target classifier, ``(N, K, ...)``, of any floating dtype.
        lam: λ in [0, 1], from :func:`symloss.progressive_lambda`: at 0 all weights are 1.

    Returns:
        Weights ``(K,)`` in [0, 1]; the largest is 1. NaN logits give NaN.

    Raises:
        TypeError: If ``target_logits`` is not a floating-point tensor.
        ValueError: If ``target_logits`` is empty or its shape does not fit, or if ``lam`` is not
            in [0, 1].

    Example:
        >>> category_weights(torch.tensor([[9.0, 9.0, -99.0]]), lam=0.5)
        tensor([1.0000, 1.0000, 0.5000])
    """
    mean = checked_rows("target_logits", target_logits).softmax(1).mean(0)
    lam = checked_lam(lam, most=1)
    return lam * (mean / mean.max()) + (1 - lam)


def agreement(target_logits: Tensor) -> Tensor:
    r"""Share of positions where the source and target classifiers predict the same category.

    .. math:: \frac{1}{n}\sum_i [\arg\max_k v^s_{ik} = \arg\max_k v^t_{ik}]

    The two classifiers can agree and both be wrong.

    Args:
        target_logits: Joint logits of a symmetric head, ``(N, 2K, ...)``, of any floating dtype.

    Returns:
        A scalar in [0, 1]; NaN logits give NaN.

    Raises:
        TypeError: If ``target_logits`` is not a floating-point tensor.
        ValueError: If ``target_logits`` is empty, has fewer than 2 dimensions, or an odd dim 1.

    Example:
        >>> agreement(torch.tensor([[2.0, 0.0, 1.0, 0.0], [2.0, 0.0, 0.0, 1.0]]))
        tensor(0.5000)
    """
    check_logits("target_logits", target_logits)
    v = checked_rows("target_logits", target_logits)
    source, target = v.chunk(2, dim=1)
    same = (source.argmax(1) == target.argmax(1)).to(v.dtype).mean()
    return torch.where(v.isnan().any(), math.nan, same)


@dataclass(frozen=True)
class Diagnosis:
    """Result of :func:`diagnose`: how a model's predictions spread over the categories.

    ``print`` it for a short report, the most important first.

    Attributes:
        categories: Names of the K categories.
        predicted: Predicted share of each category in the target.
        expected: Expected share of each category in the target; None if none were assumed.
        agreement: Share of the target where the two classifiers of a symmetric head predict the
            same category; None for a single classifier.
        samples: Number n of target samples (positions); None if unknown.
        trust: How far estimated shares can be trusted (:class:`symloss.EstimatedPrior`); None if
            they were given.
        novel: Share of the target that resembles no category
            (:meth:`symloss.SymNetClassifier.novelty`); 0 if a target of known categories may look
            the same; None if unknown.

    Example:
        >>> found = Diagnosis(("bike", "mug"), predicted=(0.95, 0.05), expected=(0.5, 0.5))
        >>> found.rarely_predicted
        ['mug']
        >>> found.sentence(remedy="more")
        '1 of 2 categories is rarely or never predicted (mug): if the target contains it, try more.'
    """

    categories: tuple[str, ...]
    predicted: tuple[float, ...]
    expected: tuple[float, ...] | None
    agreement: float | None = None
    samples: int | None = None
    trust: float | None = None
    novel: float | None = None

    @property
    def classifiers_disagree(self) -> bool:
        """Whether the two classifiers agree on less than half of the target.

        After training they usually agree on more than 90 %. Below half, a prediction depends more
        on the classifier than on the sample, and the shares say little.
        """
        return self.agreement is not None and self.agreement < _AGREEMENT

    @property
    def rarely_predicted(self) -> list[str]:
        """Categories that are predicted less than a fifth as often as expected, or never.

        Categories whose expected share is below a twentieth of an equal one are left out.
        """
        if self.expected is None:
            return []
        shares = zip(self.categories, self.predicted, self.expected, strict=True)
        least = 1 / (_ABSENT * len(self.categories))
        return [
            name
            for name, predicted, expected in shares
            if _RARELY * predicted < expected and expected > least
        ]

    @property
    def absent(self) -> list[str]:
        """Categories whose estimated share is less than a fifth of an equal one."""
        if not self.trust or self.expected is None:
            return []
        shares = zip(self.categories, self.expected, strict=True)
        return [name for name, share in shares if _RARELY * share * len(self.categories) < 1]

    @property
    def absent_by_chance(self) -> float:
        r"""Expected number of categories without a sample, :math:`\sum_k (1 - \pi_k)^n`.

        For n samples with expected shares :math:`\pi`; 0 if n is unknown.
        """
        n = self.samples
        return (
            0.0
            if n is None or self.expected is None
            else sum((1 - share) ** n for share in self.expected)
        )

    @property
    def healthy(self) -> bool:
        """Whether the classifiers agree on at least half, and no category seems lost, no row novel.

        Rarely predicted categories do not count as lost if there are at most as many as chance
        leaves out, plus two standard deviations (of a Poisson distribution).
        """
        chance = self.absent_by_chance
        within = len(self.rarely_predicted) <= chance + 2 * math.sqrt(chance)
        return within and not self.classifiers_disagree and not self.novel

    def sentence(self, remedy: str | None = None) -> str:
        """Return the main finding: disagreement, else unknown objects, else rare categories.

        Args:
            remedy: Advice if categories seem lost, for example ``"--balance 3"``.
        """
        if self.classifiers_disagree:
            return self._on_agreement()
        return self._on_novelty() if self.novel else self._on_categories(remedy)

    def describe(self, remedy: str | None = None) -> str:
        """Return the whole diagnosis, in a few lines; ``remedy`` as in :meth:`sentence`."""
        expected = self.expected or (1.0,) * len(self.categories)
        shares = [*zip(self.predicted, expected, self.categories, strict=True)]
        shares.sort(key=lambda share: share[0] / share[1])
        listed = [
            f"{name}: {100 * p:.1f}" + (f" ({100 * e:.1f})" if self.expected else "")
            for p, e, name in shares
        ]
        if len(listed) > _SHOWN:
            listed[_SHOWN // 2 : -_SHOWN // 2] = ["..."]
        what = "Predicted (expected)" if self.expected else "Predicted"
        lines = [f"{what} share in %: {', '.join(listed)}", self._on_categories(remedy)]
        if self.trust is not None:
            lines.insert(0, self._on_shares())
        if self.novel:
            lines.insert(0, self._on_novelty())
        if self.agreement is not None:
            lines.insert(0, self._on_agreement())
        return "\n".join(lines)

    def __str__(self) -> str:
        """Return :meth:`describe`, without a remedy."""
        return self.describe()

    def _on_agreement(self) -> str:
        share = f"{100 * (self.agreement or 0):.1f} % of the target"
        if not self.classifiers_disagree:
            return f"The source and target classifiers agree on {share}."
        return (
            f"The source and target classifiers agree on only {share}, so neither can be "
            "trusted: training was too short, or λ or a learning rate is wrong."
        )

    def _on_novelty(self) -> str:
        about = min(_FRACTIONS, key=lambda name: abs(_FRACTIONS[name] - (self.novel or 0)))
        return (
            f"{about} of the target resembles no category, so predictions there mean nothing: see "
            "novelty(target_features)."
        )

    def _on_shares(self) -> str:
        if not self.trust:
            return "No clear difference from equal shares was found; equal ones were assumed."
        if not (names := self.absent):
            return f"The target's shares were estimated (trust {self.trust:.2f})."
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        verb = "seems" if len(names) == 1 else "seem"
        return (
            f"{len(names)} of {len(self.categories)} categories {verb} absent from the target "
            f"({', '.join(names[:_SHOWN])}{more}; trust {self.trust:.2f})."
        )

    def _on_categories(self, remedy: str | None) -> str:
        count, names = len(self.categories), self.rarely_predicted
        if self.expected is None:
            return "No shares were assumed, so none are compared."
        if not names:
            return f"All {count} categories are predicted."
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        verb, them = ("is", "it") if len(names) == 1 else ("are", "them")
        listed = f"{', '.join(names[:_SHOWN])}{more}"
        text = f"{len(names)} of {count} categories {verb} rarely or never predicted ({listed})"
        if (chance := self.absent_by_chance) > 0.5:
            text += f"; with so few samples ({self.samples}), chance alone explains {chance:.0f}"
        advised = remedy is not None and not self.classifiers_disagree and not self.healthy
        return f"{text}: if the target contains {them}, try {remedy}." if advised else f"{text}."


def diagnose(
    target_logits: Tensor,
    categories: Sequence[str] | None = None,
    prior: Tensor | Sequence[float] | None = None,
    *,
    other_logits: Tensor | None = None,
) -> Diagnosis:
    r"""Report, without labels, whether classifiers disagree and which categories may be lost.

    .. math:: \frac{1}{n}\sum_i [\arg\max_j v_{ij} = k] < \frac{\pi_k}{5}

    Args:
        target_logits: Logits of one classifier, ``(N, K, ...)``, of any floating dtype.
        categories: Names of the K categories; their indices by default.
        prior: Expected shares :math:`\pi`, as in :func:`category_shares`.
        other_logits: Logits of a symmetric head's other classifier on the same samples, of the same
            shape; needed to report the agreement.

    Returns:
        Shares, agreement and number of samples, as plain numbers.

    Raises:
        TypeError: As in :func:`category_shares`.
        ValueError: As in :func:`category_shares`, or if ``categories`` does not have length K,
            ``other_logits`` has another shape, or logits contain NaN.

    Example:
        >>> logits = torch.eye(3)[[0, 0, 0, 1] * 10]
        >>> print(diagnose(logits, ["bike", "mug", "pen"]))
        Predicted (expected) share in %: pen: 0.0 (33.3), mug: 25.0 (33.3), bike: 75.0 (33.3)
        1 of 3 categories is rarely or never predicted (pen).
    """
    predicted, expected = (part.tolist() for part in category_shares(target_logits, prior))
    names = tuple(range(len(expected)) if categories is None else categories)
    if len(names) != len(expected):
        joint = 2 * len(names) == len(expected)
        hint = "; of joint logits, pass split_logits(logits)[1]" if joint else ""
        raise ValueError(
            f"categories must have {len(expected)} names, one per category of the logits, "
            f"got {len(names)}{hint}"
        )
    same = None
    if other_logits is not None:
        check_logits("other_logits", other_logits, joint=False)
        if other_logits.shape != target_logits.shape:
            raise ValueError(
                f"other_logits must have the shape of target_logits, {tuple(target_logits.shape)}, "
                f"got {tuple(other_logits.shape)}"
            )
        same = agreement(torch.cat([other_logits, target_logits], 1)).item()
    if any(map(math.isnan, [*predicted, same or 0.0])):
        raise ValueError("target_logits and other_logits must not contain NaN")
    samples = target_logits.numel() // len(expected)
    return Diagnosis(tuple(map(str, names)), tuple(predicted), tuple(expected), same, samples)
