r"""The terms of both objectives with closed-form gradients, one Function per player.

At each position the gradients need the softmax of each half, :math:`p^s` and :math:`p^t`, and
:math:`\pi = P(\text{source} \mid x) = \sigma(d)`, where :math:`\partial d / \partial v =
[p^s; -p^t]`. Each softmax is kept as :math:`p = e / z`, with :math:`e` the exponentials of the
logits minus their maximum and :math:`z` the sum of :math:`e`.

Internally, logits are ``(N, 2, K, ...)``, and one number per half and position is
``(N, 2, 1, ...)``. The suffixes ``_s`` and ``_t`` mark source and target samples. ``y`` is the
label of a labelled sample, and its terms are divided by ``count``: one number, or one per position
if categories are weighted.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from symloss._checks import halves


class HeadTerms(torch.autograd.Function):
    r"""Eqs. (5), (6) and (7), with :math:`e_y` the unit vector of the label.

    .. math::

        \frac{\partial (5)}{\partial v} = [p^s - e_y;\, 0], \quad
        \frac{\partial (6)}{\partial v} = [0;\, p^t - e_y], \quad
        \frac{\partial (7)}{\partial v} = \begin{cases}
            -(1 - \pi)\,[p^s;\, -p^t] & \text{on source} \\
            \pi\,[p^s;\, -p^t] & \text{on target}
        \end{cases}

    With ``by_label``, the source part of (7) is averaged like (5), which makes (7) equal (37) -
    (33).
    """

    @staticmethod
    def forward(
        ctx: Any,
        source: Tensor,
        target: Tensor,
        y: Tensor,
        ignored: Tensor,
        count: Tensor,
        by_label: bool,
    ) -> Any:
        v_s, v_t = halves(source), halves(target)
        e_s, z_s, d_s, top_s, log_z_s = _softmax(v_s)
        e_t, z_t, d_t, _, _ = _softmax(v_t)
        ctx.save_for_backward(e_s, z_s, d_s, e_t, z_t, d_t, y, ignored, count)
        ctx.by_label = by_label
        task = (top_s - v_s.gather(2, y)).add_(log_z_s).masked_fill_(ignored, 0)
        log_pi_s = F.logsigmoid(d_s)
        if by_label:
            domain_s = (log_pi_s.masked_fill_(ignored, 0) / count).sum()
        else:
            domain_s = log_pi_s.mean()
        domain = domain_s + F.logsigmoid(-d_t).mean()
        return *(task / count).flatten(2).sum((0, 2)).unbind(), -domain

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        _refuse_double_backward()
        e_s, z_s, d_s, e_t, z_t, d_t, y, ignored, count = ctx.saved_tensors
        grad_task = torch.stack(grads[:2]).view(2, *[1] * (y.dim() - 2))
        unit = torch.where(ignored, 0, grad_task / count)
        if ctx.by_label:
            share_s = torch.where(ignored, 0, grads[2] / count)
        else:
            share_s = grads[2] / d_s.numel()
        not_pi_s = _signed(torch.sigmoid(-d_s) * share_s)
        pi_t = _signed(torch.sigmoid(d_t) * (grads[2] / d_t.numel()))
        grad_s = (e_s * ((unit - not_pi_s) / z_s)).scatter_add_(2, y, -unit)
        grad_t = e_t * (pi_t / z_t)
        return grad_s.flatten(1, 2), grad_t.flatten(1, 2), None, None, None, None


class ExtractorTerms(torch.autograd.Function):
    r"""Eqs. (8), (9) and (10), with :math:`H` the entropy (10) of the position.

    .. math::

        \frac{\partial (8)}{\partial v} = p^{st} - \tfrac{1}{2} [e_y;\, e_y], \quad
        \frac{\partial (9)}{\partial v} = (\pi - \tfrac{1}{2})\,[p^s;\, -p^t], \quad
        \frac{\partial (10)}{\partial v_k} = -p^{st}_k (\log q_k + H)

    where :math:`p^{st} = [\pi p^s;\, (1 - \pi) p^t]`, with the same :math:`\log q_k + H` for
    :math:`v_{k+K}`.
    """

    @staticmethod
    def forward(
        ctx: Any, source: Tensor, target: Tensor, y: Tensor, ignored: Tensor, count: Tensor
    ) -> Any:
        log_p_s, confusion = _category_confusion(source, y, ignored, count)
        e_t, z_t, d_t, _, _ = _softmax(halves(target))
        d_t = _signed(d_t)
        pi_over_z_t = torch.sigmoid(d_t).div_(z_t)
        q = torch.add(*(e_t * pi_over_z_t).chunk(2, dim=1))
        log_q = q.clamp_min(torch.finfo(q.dtype).tiny).log_()  # q log q goes to 0 with q
        h = q.mul_(log_q).sum(2, keepdim=True).neg_()
        log_q_plus_h = log_q.add_(h)
        ctx.save_for_backward(log_p_s, e_t, z_t, d_t, pi_over_z_t, log_q_plus_h, y, ignored, count)
        return confusion, -F.logsigmoid(d_t).mean(), h.mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        _refuse_double_backward()
        log_p_s, e_t, z_t, d_t, pi_over_z_t, log_q_plus_h, y, ignored, count = ctx.saved_tensors
        grad_s = _category_confusion_backward(grads[0], log_p_s, y, ignored, count)
        two_pi_minus_1 = torch.tanh(d_t / 2)  # in the source half; 1 - 2 pi in the target half
        grad_d = two_pi_minus_1 * (grads[1] / d_t.numel())
        grad_t = pi_over_z_t * (grads[2] / (d_t.numel() / -2)) * log_q_plus_h
        grad_t.add_(grad_d / z_t).mul_(e_t)
        return grad_s.flatten(1, 2), grad_t.flatten(1, 2), None, None, None


class ExtractorTermsV2(torch.autograd.Function):
    r"""Eqs. (35), which is (8), and (36), where :math:`j'` is the same category in the other half.

    .. math::

        (36) = -\tfrac{1}{2} \sum_j p^{st}_j \log p^{st}_{j'}, \quad
        \frac{\partial (36)}{\partial v_j} = \tfrac{1}{2}
        \left[p^{st}_j (1 - \log p^{st}_{j'} - 2 \cdot (36)) - p^{st}_{j'}\right]

    Each logarithm is kept as two terms, that of the half, :math:`\log p^s` or :math:`\log p^t`, and
    that of the domain: their sum would be rounded when the halves lie far apart.
    """

    @staticmethod
    def forward(
        ctx: Any, source: Tensor, target: Tensor, y: Tensor, ignored: Tensor, count: Tensor
    ) -> Any:
        log_p_s, confusion = _category_confusion(source, y, ignored, count)
        v = halves(target)
        log_p = v.log_softmax(2)
        p = log_p.exp()
        top, top_p = v.amax(2, keepdim=True), log_p.amax(2, keepdim=True)
        d = (top - top.flip(1)).sub_(top_p - top_p.flip(1))  # (d, -d)
        pi = torch.sigmoid(d)
        other = log_p.flip(1).masked_fill_(p == 0, 0)  # p log p' goes to 0 with p
        cross = (p * other).sum(2, keepdim=True)
        both = cross + F.logsigmoid(-d)
        loss = (pi * both).mean().neg_()
        rest = torch.addcmul(1 + cross, pi.flip(1), both.flip(1) - both) - other
        ctx.save_for_backward(log_p_s, p.mul_(pi), rest, y, ignored, count)
        return confusion, loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        _refuse_double_backward()
        log_p_s, p, rest, y, ignored, count = ctx.saved_tensors
        grad_s = _category_confusion_backward(grads[0], log_p_s, y, ignored, count)
        grad_t = (p * rest).sub_(p.flip(1)).mul_(grads[1] / (2 * p[:, 0, 0].numel()))
        return grad_s.flatten(1, 2), grad_t.flatten(1, 2), None, None, None


def _category_confusion(
    source: Tensor, y: Tensor, ignored: Tensor, count: Tensor
) -> tuple[Tensor, Tensor]:
    v = halves(source)
    log_p = v.flatten(1, 2).log_softmax(1).view_as(v)
    pair = log_p.gather(2, y).masked_fill_(ignored, 0)
    return log_p, (pair / (-2 * count)).sum()


def _category_confusion_backward(
    grad: Tensor, log_p: Tensor, y: Tensor, ignored: Tensor, count: Tensor
) -> Tensor:
    unit = torch.where(ignored, 0, grad / count)
    return log_p.exp().mul_(unit).scatter_add_(2, y, (unit / -2).expand_as(y))


def _softmax(v: Tensor) -> tuple[Tensor, ...]:
    """Return (e, z, d, maximum, log z); all but d are per half."""
    top = v.amax(2, keepdim=True)
    e = (v - top).exp_()
    z = e.sum(2, keepdim=True)
    log_z = z.log()
    d = torch.sub(*top.chunk(2, dim=1)).add_(torch.sub(*log_z.chunk(2, dim=1)))
    return e, z, d, top, log_z


def _signed(x: Tensor) -> Tensor:
    return torch.cat([x, -x], dim=1)


def _refuse_double_backward() -> None:
    # once_differentiable would silently drop the second-order terms.
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            "an objective can be differentiated only once; for second derivatives, apply the "
            "functions of symloss.functional to the fields of RoutedLogits"
        )
