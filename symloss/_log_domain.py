"""Log-domain helpers shared by the losses; ``v`` is joint logits as ``(N, 2, K, ...)``."""

import torch
from torch import Tensor


def halves(logits: Tensor) -> Tensor:
    """Return joint logits as ``(N, 2, K, ...)``, source first, in float32 (float64 stays)."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.view(logits.shape[0], 2, -1, *logits.shape[2:])


def log_joint(v: Tensor) -> Tensor:
    """Return log p, ``(N, 2, K, ...)``."""
    return v.flatten(1, 2).log_softmax(1).view_as(v)


def domain_logit(v: Tensor) -> Tensor:
    """Return d = a - b, ``(N, ...)``."""
    # Each half has its own maximum: a common one would round away the lower half. It needs no
    # gradient, since a and b do not depend on it.
    top = v.detach().amax(2)
    log_sum = (v - top.unsqueeze(2)).exp_().sum(2).log()
    return torch.sub(*log_sum.unbind(1)) + torch.sub(*top.unbind(1))


def reduce(loss: Tensor, reduction: str) -> Tensor:
    """Return the loss of each position, or the mean or sum over positions."""
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()
