r"""The two players' objective, eq. (11), with the gradients in closed form.

At each position the gradients need three things: the softmax of each half, :math:`p^s` and
:math:`p^t`, and :math:`\pi = P(\text{source} \mid x) = \sigma(d)`, where
:math:`\partial d / \partial v = [p^s; -p^t]`. So the forward keeps the two softmaxes of each of the
four routed tensors and a few numbers per position, and the backward is products of them.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from symloss import functional
from symloss.heads import RoutedLogits


class SymNetLosses(NamedTuple):
    r"""The six terms of eq. (11), each a scalar, named as the functions of the library.

    .. math::

        \min_{C^s, C^t, C^{st}} \; \mathcal{E}^s_{task} + \mathcal{E}^t_{task}
        + \mathcal{E}^{st}_{domain}, \qquad
        \min_G \; \mathcal{F}^{st}_{category}
        + \lambda (\mathcal{F}^{st}_{domain} + \mathcal{M}^{st})

    Attributes:
        source_task: Eq. (5), for the head.
        target_task: Eq. (6), for the head.
        domain_discrimination: Eq. (7), for the head.
        category_confusion: Eq. (8), for the extractor.
        domain_confusion: Eq. (9), for the extractor.
        symmetric_entropy: Eq. (10), for the extractor.

    Example:
        >>> import torch
        >>> terms = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        >>> losses = SymNetLosses(*terms)
        >>> losses.classifier(), losses.extractor(lam=0.5), losses.total(lam=0.5)
        (tensor(6.), tensor(9.5000), tensor(15.5000))
    """

    source_task: Tensor
    target_task: Tensor
    domain_discrimination: Tensor
    category_confusion: Tensor
    domain_confusion: Tensor
    symmetric_entropy: Tensor

    def classifier(self) -> Tensor:
        """Return what the head minimises, (5) + (6) + (7), a scalar in nats."""
        return self.source_task + self.target_task + self.domain_discrimination

    def extractor(self, lam: float | Tensor) -> Tensor:
        """Return what the extractor minimises, (8) + lam ((9) + (10)), a scalar in nats.

        Args:
            lam: λ, in [0, 1] in the paper: a number or a 0-d tensor.

        Raises:
            ValueError: If ``lam`` is a tensor with dimensions.
        """
        if isinstance(lam, Tensor) and lam.dim() > 0:
            raise ValueError(f"lam must be a number or a 0-d tensor, got shape {tuple(lam.shape)}")
        return self.category_confusion + lam * (self.domain_confusion + self.symmetric_entropy)

    def total(self, lam: float | Tensor) -> Tensor:
        """Return the sum of both players' losses, for one backward, a scalar in nats.

        Args:
            lam: λ, in [0, 1] in the paper: a number or a 0-d tensor.

        Raises:
            ValueError: If ``lam`` is a tensor with dimensions.
        """
        return self.classifier() + self.extractor(lam)


def symnet_losses(
    source: RoutedLogits, labels: Tensor, target: RoutedLogits, *, ignore_index: int = -100
) -> SymNetLosses:
    r"""Compute all six terms of eq. (11), each with its gradient routed to its player.

    The head's terms (5), (6), (7) are taken on ``.classifier``, the extractor's terms (8), (9),
    (10) on ``.extractor``, each averaged over its positions; see :class:`SymNetLosses`. Both
    players' gradients are computed in closed form, and once: for second derivatives, and under
    :mod:`torch.func`, take the functions of :mod:`symloss.functional`.

    Args:
        source: Routed joint logits of labelled source samples, ``(N, 2K, ...)``, of any floating
            dtype.
        labels: Categories of the source samples in ``[0, K)``, ``(N, ...)``, of any integer dtype.
        target: Routed joint logits of unlabelled target samples, ``(M, 2K, ...)``.
        ignore_index: Label of source positions that (5), (6) and (8) leave out. If none is left,
            the three are NaN.

    Returns:
        Six scalars, float32, or float64 for float64 logits.

    Raises:
        TypeError: If ``source`` or ``target`` is not :class:`RoutedLogits`, logits are not
            floating point, or labels are not integer.
        ValueError: If the shapes of a pair or the 2K of source and target differ, or as the
            functions of :mod:`symloss.functional` do.
        RuntimeError: In a backward with ``create_graph=True``.

    Example:
        >>> import symloss, torch
        >>> extractor, head = torch.nn.Linear(8, 4), symloss.SymmetricHead(4, 3)
        >>> source = head.adversarial(extractor(torch.randn(6, 8)))
        >>> target = head.adversarial(extractor(torch.randn(5, 8)))
        >>> labels = torch.tensor([0, 1, 2, 0, 1, 2])
        >>> symloss.symnet_losses(source, labels, target).total(lam=0.1).backward()
    """
    for name, routed in (("source", source), ("target", target)):
        if not isinstance(routed, RoutedLogits):
            raise TypeError(
                f"{name} must be RoutedLogits, got {type(routed).__name__}; call "
                "head.adversarial(features), or symloss.route(head, features) for a wrapped head"
            )
        functional._check_logits(f"{name}.classifier", routed.classifier)
        functional._check_logits(f"{name}.extractor", routed.extractor)
        if routed.classifier.shape != routed.extractor.shape:
            raise ValueError(
                f"{name}.classifier and {name}.extractor must have the same shape, got "
                f"{tuple(routed.classifier.shape)} and {tuple(routed.extractor.shape)}"
            )
    if source.classifier.shape[1] != target.classifier.shape[1]:
        raise ValueError(
            "source and target must have the same dim 1 (2K), got shapes "
            f"{tuple(source.classifier.shape)} and {tuple(target.classifier.shape)}"
        )
    labels = functional._checked_labels(source.classifier, labels, "mean", ignore_index)
    ignored = labels == ignore_index
    index = labels.masked_fill(ignored, 0)[:, None, None].expand(-1, 2, 1, *labels.shape[1:])
    labelled = index, ignored[:, None, None], labels.numel() - ignored.sum()
    of_source, of_target = _softmax(source), _softmax(target)
    return SymNetLosses(
        *_ClassifierTerms.apply(
            source.classifier, target.classifier, *labelled, *of_source[0], *of_target[0]
        ),
        *_ExtractorTerms.apply(
            source.extractor, target.extractor, *labelled, *of_source[1], *of_target[1]
        ),
    )


class _ClassifierTerms(torch.autograd.Function):
    r"""Eqs. (5), (6) and (7), with :math:`e_y` the unit vector of the label.

    .. math::

        \frac{\partial (5)}{\partial v} = [p^s - e_y;\, 0], \quad
        \frac{\partial (6)}{\partial v} = [0;\, p^t - e_y], \quad
        \frac{\partial (7)}{\partial v} = \begin{cases}
            -(1 - \pi)\,[p^s;\, -p^t] & \text{on source} \\
            \pi\,[p^s;\, -p^t] & \text{on target}
        \end{cases}
    """

    @staticmethod
    def forward(ctx: Any, source: Tensor, target: Tensor, *known: Tensor) -> Any:
        index, ignored, count, p_s, top_s, rest_s, d_s, p_t, _, _, d_t = known
        ctx.save_for_backward(index, ignored, count, p_s, d_s, p_t, d_t)
        task = _labelled_mean(_task(source, index, top_s, rest_s), ignored, count)
        domain = F.logsigmoid(d_s[:, 0]).mean() + F.logsigmoid(d_t[:, 1]).mean()
        return *task.unbind(), -domain

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        _refuse_double_backward()
        index, ignored, count, p_s, d_s, p_t, d_t = ctx.saved_tensors
        unit = _labelled_grad(torch.stack(grads[:2]), ignored, count)
        wrong_s = torch.sigmoid(d_s[:, 1:]) * (grads[2] / (d_s.numel() / 2))
        wrong_t = torch.sigmoid(d_t[:, :1]) * (grads[2] / (d_t.numel() / 2))
        grad_s = _less_unit(p_s * (unit - _signed(wrong_s)), index, unit)
        grad_t = p_t * _signed(wrong_t)
        return grad_s.flatten(1, 2), grad_t.flatten(1, 2), *[None] * 11


class _ExtractorTerms(torch.autograd.Function):
    r"""Eqs. (8), (9) and (10), with :math:`H` the entropy (10) of the position.

    .. math::

        \frac{\partial (8)}{\partial v} = [\pi p^s;\, (1 - \pi) p^t] - \tfrac{1}{2} [e_y;\, e_y],
        \quad
        \frac{\partial (9)}{\partial v} = (\pi - \tfrac{1}{2})\,[p^s;\, -p^t], \quad
        \frac{\partial (10)}{\partial v_k} = -p^{st}_k (\log q_k + H)

    and the same :math:`\log q_k + H` for :math:`v_{k+K}`.
    """

    @staticmethod
    def forward(ctx: Any, source: Tensor, target: Tensor, *known: Tensor) -> Any:
        index, ignored, count, p_s, top_s, rest_s, d_s, p_t, top_t, rest_t, d_t = known
        log_domain = F.logsigmoid(d_t)
        log_p = (_halves(target) - top_t).add_(log_domain - rest_t)
        log_q = torch.logaddexp(*log_p.chunk(2, dim=1))
        entropy = -log_q.exp().mul_(log_q).sum(2, keepdim=True)
        ctx.save_for_backward(index, ignored, count, p_s, d_s, p_t, d_t, log_q.add_(entropy))
        pair = _task(source, index, top_s, rest_s) - F.logsigmoid(d_s)
        return _labelled_mean(pair, ignored, count).mean(), -log_domain.mean(), entropy.mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        _refuse_double_backward()
        index, ignored, count, p_s, d_s, p_t, d_t, certainty = ctx.saved_tensors
        unit = _labelled_grad(grads[0] / 2, ignored, count)
        grad_s = _less_unit(p_s * (torch.sigmoid(d_s) * (2 * unit)), index, unit)
        slope = torch.tanh(d_t / 2) * (grads[1] / d_t.numel())  # tanh(d / 2) = 2 pi - 1
        weight = torch.sigmoid(d_t) * (grads[2] / (d_t.numel() / -2))
        grad_t = (weight * certainty).add_(slope).mul_(p_t)
        return grad_s.flatten(1, 2), grad_t.flatten(1, 2), *[None] * 11


# Inside, logits are (N, 2, K, ...), and a number of each half at each position (N, 2, 1, ...).


def _halves(logits: Tensor) -> Tensor:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.reshape(logits.shape[0], 2, -1, *logits.shape[2:])


@torch.no_grad()
def _softmax(routed: RoutedLogits) -> list[tuple[Tensor, ...]]:
    """Return for each player p, and each half's maximum m, log sum exp(v - m) and [d; -d]."""
    v = torch.stack([_halves(logits) for logits in (routed.classifier, routed.extractor)])
    top = v.amax(3, keepdim=True)
    p = v.sub_(top).exp_()
    total = p.sum(3, keepdim=True)
    rest = total.log()
    d = _signed((top[:, :, :1] - top[:, :, 1:]) + (rest[:, :, :1] - rest[:, :, 1:]), 2)
    return [*zip(p.mul_(1 / total), top, rest, d, strict=True)]


def _task(logits: Tensor, index: Tensor, top: Tensor, rest: Tensor) -> Tensor:
    """Return -log p of each half at the label."""
    return (top - _halves(logits).gather(2, index)) + rest


def _less_unit(grad: Tensor, index: Tensor, unit: Tensor) -> Tensor:
    return grad.scatter_(2, index, grad.gather(2, index) - unit)


def _signed(x: Tensor, dim: int = 1) -> Tensor:
    """Return [x; -x], put together along ``dim``."""
    return x * torch.arange(1, -2, -2, device=x.device).view(2, *[1] * (x.dim() - dim - 1))


def _labelled_mean(loss: Tensor, ignored: Tensor, count: Tensor) -> Tensor:
    """Return each half's mean over the positions whose label counts, ``(2,)``."""
    return loss.masked_fill(ignored, 0).transpose(0, 1).flatten(1).sum(1) / count


def _labelled_grad(grad: Tensor, ignored: Tensor, count: Tensor) -> Tensor:
    """Return the gradient of :func:`_labelled_mean` at each position."""
    grad = (grad / count).view(-1, *[1] * (ignored.dim() - 2))
    return grad.expand(ignored.shape[0], grad.shape[0], *ignored.shape[2:]).masked_fill(ignored, 0)


def _refuse_double_backward() -> None:
    # once_differentiable would drop the second-order terms without a word.
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            "symnet_losses can be differentiated once; for second derivatives take the functions "
            "of symloss.functional on the fields of RoutedLogits"
        )
