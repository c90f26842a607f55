r"""The paper's schedules of λ and the learning rate (section 4.1)."""

import copy
import math
import warnings
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def progressive_lambda(progress: float, gamma: float = 10.0) -> float:
    r"""Weight of the extractor's target terms, rising from 0 to 1 during training (section 4.1).

    .. math:: \lambda_p = \frac{2}{1 + e^{-\gamma p}} - 1 = \tanh(\gamma p / 2)

    Args:
        progress: Fraction p of training completed, in [0, 1].
        gamma: Steepness γ, finite and at least 0.

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
        raise ValueError(f"gamma must be finite and at least 0, got {gamma}")
    return math.tanh(gamma * progress / 2)


class AnnealedLR(LRScheduler):
    r"""Learning rate of every parameter group, stepped per iteration (section 4.1).

    .. math:: \eta_p = \frac{\eta_0}{(1 + \alpha p)^\beta}, \qquad p = \min(i / \text{total}, 1)

    with :math:`i` the number of steps so far and :math:`\eta_0` the group's initial rate. Setting
    it in closed form overwrites the changes of any other scheduler. A group's ``lr_scale`` (timm's
    layer decay) multiplies it, as in timm's schedulers.

    A step is an optimizer step, not a batch: with ``accumulate=m`` in :class:`TwoOptimizerStep`,
    ``total_steps`` is the number of batches divided by m, and the scheduler steps when the call
    returned True. With the number of batches, the rate would end 2.4 times too high for m = 4.

    A group added later (``optimizer.add_param_group``) is annealed from its own rate, at the same
    p. To train for longer, load the state into a schedule of the new length, which keeps its own
    ``total_steps``, ``alpha`` and ``beta`` and warns if they differ.

    Args:
        optimizer: Optimizer whose groups are annealed.
        total_steps: Optimizer steps over which p goes from 0 to 1, at least 1.
        alpha: α, finite and at least 0.
        beta: β.

    Raises:
        ValueError: If ``total_steps`` is below 1, or ``alpha`` below 0 or infinite.

    Example:
        >>> import torch
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
            raise ValueError(f"alpha must be finite and at least 0, got {alpha}")
        self.total_steps = total_steps
        self.alpha = alpha
        self.beta = beta
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group at the current step."""
        groups = self.optimizer.param_groups
        for group in groups[len(self.base_lrs) :]:
            # A copy, because a rate that is a tensor is changed in place.
            initial = copy.deepcopy(group.setdefault("initial_lr", copy.deepcopy(group["lr"])))
            self.base_lrs = [*self.base_lrs, initial]
        progress = min(self.last_epoch / self.total_steps, 1.0)
        decay = (1 + self.alpha * progress) ** self.beta
        return [
            lr * group.get("lr_scale", 1.0) / decay
            for lr, group in zip(self.base_lrs, groups, strict=True)
        ]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a state's step and initial rates, keeping this schedule's own length.

        Args:
            state_dict: State of a schedule whose optimizer had at most as many groups.

        Raises:
            ValueError: If the state has more groups.
        """
        groups, saved = len(self.optimizer.param_groups), len(state_dict["base_lrs"])
        if saved > groups:
            raise ValueError(f"state_dict must have at most {groups} groups, got {saved}")
        own = {name: getattr(self, name) for name in ("total_steps", "alpha", "beta")}
        differ = {name: state_dict[name] for name in own if state_dict[name] != own[name]}
        if differ:
            there = ", ".join(f"{name}={value}" for name, value in differ.items())
            here = ", ".join(f"{name}={own[name]}" for name in differ)
            warnings.warn(
                f"the state comes from a schedule with {there}; this one keeps {here} and "
                f"continues at step {state_dict['last_epoch']}",
                stacklevel=2,
            )
        super().load_state_dict(state_dict | own)
