r"""One step for two optimizers, and the paper's schedules (its section 4.1)."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class TwoOptimizerStep:
    r"""One backward of one scalar, then a step of both players of eq. (11).

    .. math::

        g = \nabla \tfrac{1}{m} \sum_{i=1}^{m} \mathcal{L}_i, \qquad
        \theta_G \leftarrow \mathrm{step}(\theta_G, g_G), \qquad
        \theta_C \leftarrow \mathrm{step}(\theta_C, g_C)

    where :math:`m` is ``accumulate`` and :math:`\mathcal{L}_i` the loss of call :math:`i`. Every
    call adds to the gradients; each :math:`m`-th call unscales and clips them, steps both
    optimizers, which must not need a closure, and updates the scaler once. The scalar is usually
    ``losses.total(lam)``, to which terms of your own may be added.

    Args:
        extractor: Optimizer of the extractor's parameters.
        head: Optimizer of the head's parameters.
        scaler: A :class:`torch.amp.GradScaler` for float16. A player whose gradients are not
            finite is skipped alone. Where a framework owns the scaler (Accelerate, Lightning),
            use one optimizer over :func:`parameter_groups` instead of this class.
        max_grad_norm: Largest 2-norm of each player's gradient, above 0; None does not clip.
        accumulate: Number m of calls that one step takes, at least 1.

    Raises:
        TypeError: If ``extractor`` or ``head`` is not an optimizer.
        ValueError: If the optimizers share a parameter, one has none, ``accumulate`` is below 1,
            or ``max_grad_norm`` is not above 0.

    Example:
        >>> extractor, head = nn.Linear(4, 3), nn.Linear(3, 2)
        >>> step = TwoOptimizerStep(
        ...     extractor=torch.optim.SGD(extractor.parameters(), lr=0.001),
        ...     head=torch.optim.SGD(head.parameters(), lr=0.01),
        ... )
        >>> step(head(extractor(torch.ones(5, 4))).square().mean())
        True
    """

    def __init__(
        self,
        extractor: Optimizer,
        head: Optimizer,
        *,
        scaler: torch.amp.GradScaler | None = None,
        max_grad_norm: float | None = None,
        accumulate: int = 1,
    ) -> None:
        players = {"extractor": extractor, "head": head}
        for name, optimizer in players.items():
            if not isinstance(optimizer, Optimizer):
                raise TypeError(
                    f"{name} must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
                )
            if not _parameters(optimizer):
                raise ValueError(f"{name} must have parameters, got an optimizer without any")
        shared = len(set(_parameters(extractor)) & set(_parameters(head)))
        if shared:
            raise ValueError(
                f"extractor and head must not share parameters, got {shared} in both"
            )
        if accumulate < 1 or accumulate % 1:
            raise ValueError(f"accumulate must be a whole number from 1, got {accumulate}")
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be above 0 or None, got {max_grad_norm}")
        self.players = players
        self.scaler = scaler
        self.max_grad_norm = max_grad_norm
        self.accumulate = accumulate
        self._calls = 0

    def __call__(self, loss: Tensor) -> bool:
        """Add the gradient of ``loss / accumulate``; at the end of a cycle, step both optimizers.

        Args:
            loss: A scalar that both players' gradients come from.

        Returns:
            True when the optimizers stepped, so that schedulers follow; False inside an
            accumulation cycle, and when the scaler skipped a player. A player that the loss does
            not reach keeps its parameters, and does not count.

        Raises:
            TypeError: If ``loss`` is not a tensor.
            ValueError: If ``loss`` is not a scalar.
            RuntimeError: If ``loss`` has no gradient.
        """
        if not isinstance(loss, Tensor):
            raise TypeError(f"loss must be a tensor, got {type(loss).__name__}")
        if loss.dim() != 0:
            raise ValueError(f"loss must be a scalar, got shape {tuple(loss.shape)}")
        if self._calls == 0:
            for optimizer in self.players.values():
                optimizer.zero_grad()
        loss = loss / self.accumulate
        # A backward that fails ends its cycle, for its gradients are not whole.
        calls, self._calls = self._calls + 1, 0
        torch.autograd.backward(loss if self.scaler is None else self.scaler.scale(loss))
        self._calls = calls % self.accumulate
        return self._calls == 0 and self._step()

    def _step(self) -> bool:
        players = list(self.players.values())
        if self.scaler is not None:  # it refuses an optimizer that got no gradient at all
            players = [o for o in players if any(p.grad is not None for p in _parameters(o))]
            if not players:
                return False
        if self.max_grad_norm is not None:
            for optimizer in players:
                if self.scaler is not None:
                    self.scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(_parameters(optimizer), self.max_grad_norm)
        if self.scaler is None:
            for optimizer in players:
                optimizer.step()
            return True
        for optimizer in players:
            self.scaler.step(optimizer)
        scale = self.scaler.get_scale()
        self.scaler.update()
        return self.scaler.get_scale() >= scale  # it shrinks when a gradient was not finite

    def state_dict(self) -> dict[str, Any]:
        """Return a dict with the state of both optimizers, and of the scaler if there is one.

        Raises:
            RuntimeError: Inside an accumulation cycle, whose gradients would be lost.
        """
        self._check_cycle("state_dict")
        state = {name: optimizer.state_dict() for name, optimizer in self.players.items()}
        return state if self.scaler is None else state | {"scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` returned.

        Args:
            state: A state with the same players, and a scaler if there is one here.

        Raises:
            RuntimeError: Inside an accumulation cycle, whose gradients would be mixed in.
            ValueError: If ``state`` has other keys.
        """
        self._check_cycle("load_state_dict")
        loaders = {name: optimizer.load_state_dict for name, optimizer in self.players.items()}
        if self.scaler is not None:
            loaders["scaler"] = self.scaler.load_state_dict
        if state.keys() != loaders.keys():
            raise ValueError(f"state must have the keys {[*loaders]}, got {[*state]}")
        for name, load in loaders.items():
            load(state[name])

    def _check_cycle(self, method: str) -> None:
        if self._calls:
            raise RuntimeError(
                f"{method} must be called between accumulation cycles, got {self._calls} of "
                f"{self.accumulate} calls into one"
            )


def progressive_lambda(progress: float, gamma: float = 10.0) -> float:
    r"""Weight of the extractor's target terms as training goes on, from 0 to 1 (section 4.1).

    .. math:: \lambda_p = \frac{2}{1 + e^{-\gamma p}} - 1 = \tanh(\gamma p / 2)

    Args:
        progress: Part p of training that is done, in [0, 1].
        gamma: Steepness γ, at least 0, finite.

    Returns:
        λ, in [0, 1].

    Raises:
        ValueError: If ``progress`` is outside [0, 1] or ``gamma`` below 0 or infinite.

    Example:
        >>> [round(progressive_lambda(p), 3) for p in (0.0, 0.1, 0.5, 1.0)]
        [0.0, 0.462, 0.987, 1.0]
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must be in [0, 1], got {progress}")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma must be at least 0 and finite, got {gamma}")
    return math.tanh(gamma * progress / 2)


class AnnealedLR(LRScheduler):
    r"""Learning rate of every parameter group, stepped per iteration (section 4.1).

    .. math:: \eta_p = \frac{\eta_0}{(1 + \alpha p)^\beta}, \qquad p = \min(i / \text{total}, 1)

    with :math:`i` the number of steps taken and :math:`\eta_0` the group's own initial rate. The
    rate is set in closed form, so what another scheduler did to it before is overwritten.

    Args:
        optimizer: Optimizer whose groups are annealed.
        total_steps: Steps over which p goes from 0 to 1, at least 1.
        alpha: α, at least 0, finite.
        beta: β.

    Raises:
        ValueError: If ``total_steps`` is below 1, or ``alpha`` below 0 or infinite.

    Example:
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
        >>> scheduler = AnnealedLR(optimizer, total_steps=2)
        >>> for _ in range(2):
        ...     optimizer.step()
        ...     scheduler.step()
        >>> round(scheduler.get_last_lr()[0], 6)
        0.001656
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, alpha: float = 10.0, beta: float = 0.75
    ) -> None:
        if not total_steps >= 1:
            raise ValueError(f"total_steps must be at least 1, got {total_steps}")
        if not 0 <= alpha < math.inf:
            raise ValueError(f"alpha must be at least 0 and finite, got {alpha}")
        self.total_steps = total_steps
        self.alpha = alpha
        self.beta = beta
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group at the current step."""
        progress = min(self.last_epoch / self.total_steps, 1.0)
        return [lr / (1 + self.alpha * progress) ** self.beta for lr in self.base_lrs]


def parameter_groups(
    extractor: nn.Module, head: nn.Module, lr: float, head_multiplier: float = 10.0
) -> list[dict[str, Any]]:
    r"""Parameter groups for people who keep one optimizer (section 4.1).

    .. math:: \eta_G = \eta, \qquad \eta_C = \mathrm{head\_multiplier} \cdot \eta

    Args:
        extractor: Module that learns at ``lr``.
        head: Module that learns at ``head_multiplier * lr``.
        lr: Learning rate η of the extractor, above 0.
        head_multiplier: Ratio of the two learning rates, above 0; 10 in the paper.

    Returns:
        Two groups, extractor first, for any optimizer of :mod:`torch.optim`.

    Raises:
        ValueError: If ``lr`` or ``head_multiplier`` is not above 0.

    Example:
        >>> groups = parameter_groups(nn.Linear(4, 3), nn.Linear(3, 2), lr=0.001)
        >>> [group["lr"] for group in groups]
        [0.001, 0.01]
        >>> optimizer = torch.optim.SGD(groups, lr=0.001, momentum=0.9)
    """
    for name, value in (("lr", lr), ("head_multiplier", head_multiplier)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    return [
        {"params": list(extractor.parameters()), "lr": lr},
        {"params": list(head.parameters()), "lr": lr * head_multiplier},
    ]


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
