"""How little rows resemble the source's categories, judged before adaptation."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from symloss import _rows
from symloss.prior import Shares

_PROTOTYPES, _MOST = 4, 256  # of the target, per category; at most
_ROUNDS = 20  # of k-means
_TEMPERATURE = 0.2
_UNUSUAL = 0.05  # of held-out source rows
_MANY, _FEWEST = 1 / 4, 5  # of the target; categories, below which nothing can be said
_DIVERSE, _LOOKED_AT = 1.25, 2000  # target beside source, beyond which neither; rows


class Novelty(nn.Module):
    """Novelty of preprocessed rows: see :meth:`symloss.SymNetClassifier.novelty`.

    Args:
        origin: The mean that the target would have with equal shares, ``(D,)``.
        directions: Directions from the source's mean to those of its categories, ``(K, D)``.
        centre: The target's mean, ``(D,)``.
        prototypes: Directions from ``centre`` to the target's clusters, ``(P, D)``.
        values: Mean similarity of a cluster's rows to their nearest category, ``(P,)``.
        radius: Largest distance of a target row from the origin.
        nearness: Smallest cosine between a target row and its nearest prototype.
        usual: Similarity that nearly all held-out source rows reach.
        diversity: Distance of a target row's nearest neighbour, relative to a source row's.
    """

    origin: Tensor
    directions: Tensor
    centre: Tensor
    prototypes: Tensor
    values: Tensor
    radius: Tensor
    nearness: Tensor
    usual: Tensor
    diversity: Tensor

    def __init__(self, **buffers: Tensor) -> None:
        super().__init__()
        for name, value in buffers.items():
            self.register_buffer(name, value)

    @classmethod
    @torch.no_grad()
    def of(cls, rows: Shares) -> "Novelty":
        """Fit it to the rows that the shares are estimated from."""
        means = rows.means()
        middle, centre = means.mean(0), rows.target.mean(0)
        equal = 1 / len(means) - rows.on_features[0].to(means.dtype)
        origin, directions = centre + equal @ means, normalize(means - middle)
        z = normalize(rows.target - centre)
        prototypes = _clusters(z, min(_PROTOTYPES * len(means), _MOST), rows.generator)
        cosine, cluster = (z @ prototypes.T).max(1)
        similarity = _similarity(rows.target, origin, directions)
        sums = similarity.new_zeros(len(prototypes)).index_add_(0, cluster, similarity)
        return cls(
            origin=origin,
            directions=directions,
            centre=centre,
            prototypes=prototypes,
            values=sums / torch.bincount(cluster, minlength=len(prototypes)).clamp_min(1),
            radius=(rows.target - origin).norm(dim=1).max(),
            nearness=cosine.min().clamp_min(1e-3),
            usual=_held_out(rows.source, rows.y, len(means)).quantile(_UNUSUAL),
            diversity=_nearest(rows.target, rows.generator) / _nearest(rows.source, rows.generator),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the novelty of rows ``(N, D)``, ``(N,)``."""
        cosine = normalize(x - self.centre) @ self.prototypes.T
        similarity = (cosine / _TEMPERATURE).softmax(1) @ self.values
        distance = (x - self.origin).norm(dim=1).clamp_min(1e-12)
        within = (self.radius / distance).clamp_max(1)
        within = within * (cosine.amax(1) / self.nearness).clamp(0, 1)
        novelty: Tensor = 1 - within * similarity
        return novelty

    def unusual(self, x: Tensor) -> Tensor:
        """Return which rows resemble their category less than nearly all source rows do."""
        return _similarity(x, self.origin, self.directions) < self.usual

    def reported(self, share: float) -> float:
        """Return the share of unusual rows, or 0 if known categories alone may explain it.

        A target that is more diverse than the source has many rows that are unusual for the source.
        """
        comparable = len(self.directions) >= _FEWEST and self.diversity < _DIVERSE
        return share if share > _MANY and comparable else 0.0


def _similarity(x: Tensor, origin: Tensor, directions: Tensor) -> Tensor:
    return (normalize(x - origin) @ directions.T).amax(1)


def _held_out(source: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """Return the similarity of each source row to category means of other source rows."""
    order = y.argsort(stable=True)
    second = torch.empty_like(y, dtype=torch.bool)
    second[order] = torch.arange(len(y), device=y.device) % 2 == 1
    parts = []
    for fitted in (second, ~second):
        means = _rows.means(source[fitted], y[fitted], num_classes)
        middle = means.mean(0)
        parts.append(_similarity(source[~fitted], middle, normalize(means - middle)))
    return torch.cat(parts)


def _nearest(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Return the median distance (1 - cosine, about the mean) of a row's nearest neighbour."""
    some = rows[_rows.sample(len(rows), _LOOKED_AT, generator).to(rows.device)]
    z = normalize(some - some.mean(0))
    distance = (1 - z @ z.T).fill_diagonal_(2)
    return distance.amin(1).median().clamp_min(1e-6)


def _clusters(z: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return the centres of at most ``count`` clusters of directions, by spherical k-means."""
    centres, far = z[:0], torch.ones_like(z[:, 0])
    for _ in range(min(count, len(z))):
        weight = far.clamp_min(0).cpu() + 1e-9
        centre = z[torch.multinomial(weight, 1, generator=generator).to(z.device)]
        centres, far = torch.cat([centres, centre]), far.minimum(1 - (z @ centre.T).squeeze(1))
    for _ in range(_ROUNDS):
        sums = torch.zeros_like(centres).index_add_(0, (z @ centres.T).argmax(1), z)
        centres = normalize(torch.where(sums.any(1, keepdim=True), sums, centres))
    return centres
