"""The target's category shares, estimated from features of both domains without target labels."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from symloss import _adapt, _labels, _rows, _sklearn
from symloss._checks import checked_device
from symloss.heads import SymmetricHead
from symloss.objective import symnet_v2_losses

__all__ = ["EstimatedPrior", "estimate_prior"]

_ROWS = 20_000  # of each domain are looked at
_STEPS = 400  # of the network whose predictions are counted
_BATCH, _BOTTLENECK = 128, 256
_ROUNDS = 50  # of expectation maximisation
_SHRINKAGE = 0.3  # of the within-category covariance, towards a multiple of the identity
_SHARED = 0.2  # L1 error that estimates have in common, which their disagreement does not show
_LEAST = 0.02  # of an equal share


class EstimatedPrior(NamedTuple):
    """The target's shares, and how far they can be trusted.

    Attributes:
        prior: Share of each category in the target, ``(K,)``, float32, positive, in the order of
            the sorted labels; their sum is 1.
        trust: In [0, 1]. At 0, they do not clearly differ from equal ones, which are assumed; at 1,
            the estimate was not shrunk.

    Example:
        >>> prior, trust = EstimatedPrior(torch.tensor([0.7, 0.3]), trust=0.9)
        >>> round(trust, 1)
        0.9
    """

    prior: Tensor
    trust: float


def estimate_prior(
    features: Any,
    labels: Any,
    target_features: Any,
    *,
    preprocessing: str | None = "l2",
    random_state: Any = None,
    device: str | torch.device = "cpu",
) -> EstimatedPrior:
    r"""Estimate the share of each category in an unlabelled target.

    The mean :math:`m` of four estimates whose errors have different causes:

    1. Expectation maximisation on the features :math:`z`, whitened by the source's covariance
       within categories, for the mixture :math:`\sum_k \pi_k\,\mathcal{N}(z; c_k, \sigma^2 I)`.
       Its centres are anchored at the source's means :math:`\mu_k`, moved by one common shift
       :math:`\delta`, with the weight of :math:`\tau = M / K` of the M target rows:

       .. math::

           r_{ik} \propto \pi_k\, e^{-\lVert z_i - c_k \rVert^2 / 2 \sigma^2}, \qquad
           \pi_k = \frac{1}{M}\sum_i r_{ik}, \qquad
           c_k = \frac{\sum_i r_{ik} z_i + \tau (\mu_k + \delta)}{\sum_i r_{ik} + \tau}

    2. The first with :math:`\tau = 3 M / K`, which trusts the source's means more.
    3. The predictions of SymmNets-V2 (:func:`symloss.symnet_v2_losses`), trained for 400 steps
       without assuming any shares.
    4. The first on the features of that network's bottleneck, without a shift.

    The more they disagree, the more :math:`m` is shrunk towards equal shares :math:`u`. With
    :math:`e` their mean L1 distance from :math:`m`, but at least 0.2, since they share errors,

    .. math::

        \mathrm{trust} = \max\Bigl(0,\; 1 - 25 \Bigl(\frac{e}{\lVert m - u \rVert_1}\Bigr)^4
        \Bigr), \qquad \mathrm{prior} = u + \mathrm{trust} \cdot (m - u)

    No share is below a fiftieth of an equal one. If all four are wrong in the same way, nothing
    shows it: where source and target look very different, check the shares on a few labelled rows.
    If a domain has more than 20,000 rows, 20,000 are drawn at random.

    Args:
        features: Source features, ``(N, F)``: arrays, tensors or memory maps.
        labels: Source labels, ``(N,)``, none missing.
        target_features: Target features, ``(M, F)``.
        preprocessing: As in :class:`symloss.SymNetClassifier`.
        random_state: As in :class:`symloss.SymNetClassifier`.
        device: Where to compute.

    Returns:
        The shares, in the order of the sorted labels, and how far they can be trusted.

    Raises:
        TypeError: As :meth:`symloss.SymNetClassifier.fit`.
        ValueError: As :meth:`symloss.SymNetClassifier.fit`.

    Example:
        >>> labels = torch.arange(300) % 3
        >>> features = torch.eye(3)[labels] + 0.1 * torch.randn(300, 3)
        >>> prior, trust = estimate_prior(features, labels, features[labels != 1], random_state=0)
        >>> bool(prior[1] < 0.1)
        True
    """
    device = checked_device(device)
    with _rows.own_modes(device):
        _, y = _labels.encode(labels)
        source = _rows.as_rows("features", features)
        target = _rows.as_rows("target_features", target_features)
        _rows.check_pair(source, y, target)
        seed = _sklearn.seed(random_state)
        generator = torch.Generator("cpu").manual_seed(seed)
        prepared = _rows.Preprocessing(preprocessing, source.shape[1]).to(device)
        prepared.fit(source, target, generator)
        return Shares(prepared, source, y, target, generator).with_network()


class Shares:
    """Estimates of the shares before and during training, from the same rows.

    Args:
        preprocessing: Fitted preprocessing of the rows.
        source: Source rows, ``(N, F)``.
        y: Their categories' indices, ``(N,)``.
        target: Target rows, ``(M, F)``.
        generator: Draws rows and batches.
    """

    def __init__(
        self,
        preprocessing: _rows.Preprocessing,
        source: Tensor,
        y: Tensor,
        target: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.device, self.generator = preprocessing.mean.device, generator
        index_s, index_t = (_rows.sample(len(rows), _ROWS, generator) for rows in (source, target))
        left_out = torch.bincount(y[index_s], minlength=int(y.max()) + 1) == 0
        index_s = torch.cat([index_s, left_out[y].nonzero().squeeze(1)])  # each category is seen
        self.y = y[index_s].to(self.device)
        self.source, self.target = (
            _rows.apply(preprocessing, rows[index], self.device).to(self.device)
            for rows, index in ((source, index_s), (target, index_t))
        )
        self.num_classes = int(y.max()) + 1
        rows = self.source, self.y, self.target, self.num_classes
        self.on_features = [_mixture(*rows, anchor, shifted=True) for anchor in (1.0, 3.0)]

    def means(self) -> Tensor:
        """Return the means of the source's categories, ``(K, D)``."""
        return _rows.means(self.source, self.y, self.num_classes)

    def before(self) -> EstimatedPrior:
        """Return the estimate from the features alone."""
        return _shrunk(torch.stack(self.on_features))

    def with_network(self) -> EstimatedPrior:
        """Return the estimate with a SymmNets-V2 that is trained for it."""
        seed = int(torch.randint(2**31, (), generator=self.generator, device="cpu"))
        width = self.source.shape[1]
        extractor, head = _adapt.network(width, _BOTTLENECK, self.num_classes, seed)
        extractor, head = extractor.to(self.device), head.to(self.device)
        size = min(_BATCH, max(len(self.source), len(self.target)))
        training = _adapt.Training(
            extractor,
            head,
            (self.source, self.target),
            self.y,
            size=size,
            total=_STEPS,
            generator=self.generator,
        )
        for i in range(_STEPS):
            training.step(i, symnet_v2_losses)
        return self.seen_by(extractor, head)

    @torch.no_grad()
    def seen_by(self, extractor: nn.Module, head: SymmetricHead) -> EstimatedPrior:
        """Return the estimate with a network's predictions and bottleneck."""
        training = extractor.training
        extractor.eval()
        source, target = extractor(self.source), extractor(self.target)
        extractor.train(training)
        if not (source.isfinite().all() and target.isfinite().all()):
            raise FloatingPointError("training diverged")
        counts = torch.bincount(head.predict(target), minlength=self.num_classes)
        mixture = _mixture(source, self.y, target, self.num_classes, anchor=1.0, shifted=False)
        return _shrunk(torch.stack([*self.on_features, counts.double() / len(target), mixture]))


def _shrunk(estimates: Tensor) -> EstimatedPrior:
    """Average estimates ``(E, K)``, and shrink the mean the more they disagree."""
    mean, equal = estimates.mean(0), 1 / estimates.shape[1]
    disagreement = (estimates - mean).abs().sum(1).mean().clamp_min(_SHARED)
    distance = (mean - equal).abs().sum()
    trust = (1 - 25 * (disagreement / distance) ** 4).clamp_min(0).nan_to_num(0.0)
    prior = (equal + trust * (mean - equal)).clamp_min(_LEAST * equal)
    return EstimatedPrior((prior / prior.sum()).float().cpu(), float(trust))


def _mixture(
    source: Tensor, y: Tensor, target: Tensor, num_classes: int, anchor: float, shifted: bool
) -> Tensor:
    """Return the weights of the target's mixture of normal distributions, ``(K,)``, float64.

    Args:
        source: Source features, ``(N, F)``.
        y: Their categories' indices, ``(N,)``.
        target: Target features, ``(M, F)``.
        num_classes: K.
        anchor: Weight of the source's means, in rows of an average category.
        shifted: Whether to estimate a common shift of the target.
    """
    means = _rows.means(source, y, num_classes)
    within = source - means[y]
    covariance = (within.T @ within / len(source)).double()
    variance = covariance.diagonal().mean() + 1e-6 * source.var() + 1e-30
    covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * variance * torch.eye(
        len(covariance), dtype=torch.float64, device=source.device
    )
    whiten = torch.linalg.inv(torch.linalg.cholesky(covariance)).T.to(source.dtype)
    means, z = means @ whiten, target @ whiten
    shift = z.mean(0) - means.mean(0) if shifted else torch.zeros_like(z[0])
    centres, tau = means + shift, anchor * len(z) / num_classes
    shares = torch.full((num_classes,), 1 / num_classes, dtype=torch.float64, device=z.device)
    for _ in range(_ROUNDS):
        distance = torch.cdist(z, centres).square().double()
        spread = (distance.amin(1).mean() / z.shape[1]).clamp_min(1e-12)
        responsibility = (shares.log() - distance / (2 * spread)).softmax(1)
        shares = responsibility.mean(0).clamp_min(1e-12)
        r = responsibility.to(z.dtype)
        if shifted:
            shift = (z - r @ means).mean(0)
        centres = (r.T @ z + tau * (means + shift)) / (r.sum(0) + tau).unsqueeze(1)
    return shares / shares.sum()
