r"""The two players' objective, eq. (11), with the gradients in closed form.

At each position the gradients need three things: the softmax of each half, :math:`p^s` and
:math:`p^t`, and :math:`\pi = P(\text{source} \mid x) = \sigma(d)`, where
:math:`\partial d / \partial v = [p^s; -p^t]`. So the forward keeps the exponentials of each of the
four routed tensors (of the one under (8), their logarithms), for (10) :math:`\log q_k + H`, and a
few numbers per position; the backward is products of them.
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
        >>> losses.head(), losses.extractor(lam=0.5), losses.total(lam=0.5)
        (tensor(6.), tensor(9.5000), tensor(15.5000))
    """

    source_task: Tensor
    target_task: Tensor
    domain_discrimination: Tensor
    category_confusion: Tensor
    domain_confusion: Tensor
    symmetric_entropy: Tensor

    def head(self) -> Tensor:
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
        return self.head() + self.extractor(lam)


def symnet_losses(
    source: RoutedLogits, labels: Tensor, target: RoutedLogits, *, ignore_index: int = -100
) -> SymNetLosses:
    r"""Compute all six terms of eq. (11), each with its gradient routed to its player.

    The head's terms (5), (6), (7) are taken on ``.head``, the extractor's terms (8), (9),
    (10) on ``.extractor``, each averaged over its positions; see :class:`SymNetLosses`. Both
    players' gradients are computed in closed form, and once: for second derivatives, and under
    :mod:`torch.func`, take the functions of :mod:`symloss.functional`. A category whose two logits
    are minus infinity is as if it were not there.

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
        >>> source = head.route(extractor(torch.randn(6, 8)))
        >>> target = head.route(extractor(torch.randn(5, 8)))
        >>> labels = torch.tensor([0, 1, 2, 0, 1, 2])
        >>> symloss.symnet_losses(source, labels, target).total(lam=0.1).backward()
    """
    for name, routed in (("source", source), ("target", target)):
        if not isinstance(routed, RoutedLogits):
            raise TypeError(
                f"{name} must be RoutedLogits, got {type(routed).__name__}; call "
                "head.route(features), or symloss.route(head, features) for a wrapped head"
            )
        functional._check_logits(f"{name}.head", routed.head)
        functional._check_logits(f"{name}.extractor", routed.extractor)
        if routed.head.shape != routed.extractor.shape:
            raise ValueError(
                f"{name}.head and {name}.extractor must have the same shape, got "
                f"{tuple(routed.head.shape)} and {tuple(routed.extractor.shape)}"
            )
    if source.head.shape[1] != target.head.shape[1]:
        raise ValueError(
            "source and target must have the same dim 1 (2K), got shapes "
            f"{tuple(source.head.shape)} and {tuple(target.head.shape)}"
        )
    labels = functional._checked_labels(source.head, labels, "mean", ignore_index)
    labels = labels.unsqueeze(1).unsqueeze(1)
    ignored = labels == ignore_index
    index = labels.masked_fill(ignored, 0).expand(-1, 2, *labels.shape[2:])
    labelled = index, ignored, labels.numel() - ignored.count_nonzero()  # of (5), (6) and (8)
    return SymNetLosses(
        *_ClassifierTerms.apply(source.head, target.head, *labelled),
        *_ExtractorTerms.apply(source.extractor, target.extractor, *labelled),
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
    def forward(
        ctx: Any, source: Tensor, target: Tensor, index: Tensor, ignored: Tensor, count: Tensor
    ) -> Any:
        source, target = _halves(_wide(source)), _halves(_wide(target))
        exp_s, sum_s, d_s, top, log_sum = _softmax(source)
        exp_t, sum_t, d_t, _, _ = _softmax(target)
        ctx.save_for_backward(exp_s, sum_s, d_s, exp_t, sum_t, d_t, index, ignored, count)
        task = (top - source.gather(2, index)).add_(log_sum).masked_fill_(ignored, 0)
        domain = F.logsigmoid(d_s).mean() + F.logsigmoid(-d_t).mean()
        return *(task.flatten(2).sum((0, 2)) / count).unbind(), -domain

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        _refuse_double_backward()
        exp_s, sum_s, d_s, exp_t, sum_t, d_t, index, ignored, count = ctx.saved_tensors
        of_halves = torch.stack(grads[:2]).view(2, *[1] * (index.dim() - 2))
        unit = torch.where(ignored, 0, of_halves / count)
        wrong_s = _signed(torch.sigmoid(-d_s) * (grads[2] / d_s.numel()))
        wrong_t = _signed(torch.sigmoid(d_t) * (grads[2] / d_t.numel()))
        grad_s = (exp_s * ((unit - wrong_s) / sum_s)).scatter_add_(2, index, -unit)
        grad_t = exp_t * (wrong_t / sum_t)
        return grad_s.flatten(1, 2), grad_t.flatten(1, 2), None, None, None


class _ExtractorTerms(torch.autograd.Function):
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
        ctx: Any, source: Tensor, target: Tensor, index: Tensor, ignored: Tensor, count: Tensor
    ) -> Any:
        log_joint = _halves(_wide(source).log_softmax(1))
        pair = log_joint.gather(2, index).masked_fill_(ignored, 0)
        exp_t, sum_t, d_t, _, _ = _softmax(_halves(_wide(target)))
        signed_d = _signed(d_t)
        scale = torch.sigmoid(signed_d).div_(sum_t)
        q = torch.add(*(exp_t * scale).chunk(2, dim=1))
        log_q = q.clamp_min(torch.finfo(q.dtype).tiny).log_()  # q log q goes to 0 with q
        entropy = q.mul_(log_q).sum(2, keepdim=True).neg_()
        certainty = log_q.add_(entropy)
        ctx.save_for_backward(
            log_joint, exp_t, scale, sum_t, signed_d, certainty, index, ignored, count
        )
        return pair.sum() / (-2 * count), -F.logsigmoid(signed_d).mean(), entropy.mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        _refuse_double_backward()
        log_joint, exp_t, scale, sum_t, signed_d, certainty, index, ignored, count = (
            ctx.saved_tensors
        )
        unit = torch.where(ignored, 0, grads[0] / count)
        grad_s = log_joint.exp().mul_(unit).scatter_add_(2, index, (unit / -2).expand_as(index))
        slope = torch.tanh(signed_d / 2) * (grads[1] / signed_d.numel())  # tanh(d / 2) = 2 pi - 1
        grad_t = scale * (grads[2] / (signed_d.numel() / -2)) * certainty
        grad_t.add_(slope / sum_t).mul_(exp_t)
        return grad_s.flatten(1, 2), grad_t.flatten(1, 2), None, None, None


# Inside, logits are (N, 2, K, ...), and a number of each half at each position (N, 2, 1, ...).


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _halves(logits: Tensor) -> Tensor:
    return logits.view(logits.shape[0], 2, -1, *logits.shape[2:])


def _softmax(v: Tensor) -> tuple[Tensor, ...]:
    """Return (e, sum of e, d, max, log of the sum) of each half, where e = exp(v - max)."""
    top = v.amax(2, keepdim=True)
    exp = (v - top).exp_()
    total = exp.sum(2, keepdim=True)
    log_total = total.log()
    d = torch.sub(*top.chunk(2, dim=1)).add_(torch.sub(*log_total.chunk(2, dim=1)))
    return exp, total, d, top, log_total


def _signed(x: Tensor) -> Tensor:
    return torch.cat([x, -x], dim=1)


def _refuse_double_backward() -> None:
    # once_differentiable would drop the second-order terms without a word.
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            "symnet_losses can be differentiated once; for second derivatives take the functions "
            "of symloss.functional on the fields of RoutedLogits"
        )
