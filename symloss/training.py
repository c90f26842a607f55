r"""One step for two optimizers, and the paper's schedules (its section 4.1)."""

import inspect
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from symloss._checks import checked_modules


class TwoOptimizerStep:
    r"""One backward of one scalar, then a step of both players of eq. (11).

    .. math::

        g = \nabla \tfrac{1}{m} \sum_{i=1}^{m} \mathcal{L}_i, \qquad
        \theta_G \leftarrow \mathrm{step}(\theta_G, g_G), \qquad
        \theta_C \leftarrow \mathrm{step}(\theta_C, g_C)

    where :math:`m` is ``accumulate`` and :math:`\mathcal{L}_i` the loss of call :math:`i`. The
    first call of a cycle clears the gradients, every call adds to them, and each :math:`m`-th call
    unscales and clips them, steps both optimizers and updates the scaler once; :meth:`finish` ends
    a cycle early. The scalar is usually ``losses.total(lam)``. Add terms of your own to it: what
    ``aux.backward()`` left before the first call of a cycle is cleared.

    Schedules such as :class:`AnnealedLR` count optimizer steps, not calls: their total is the
    number of batches divided by :math:`m`.

    After the first cycle's backward it looks once at the gradients and warns (UserWarning) of a
    player that got none, and of parameters that got one but are in neither optimizer.

    Args:
        extractor: Optimizer of the extractor's parameters.
        head: Optimizer of the head's parameters.
        scaler: A :class:`torch.amp.GradScaler` for float16. A player whose gradients are not
            finite is skipped alone.
        max_grad_norm: Largest 2-norm of each player's gradient, above 0; None does not clip.
        accumulate: Number m of calls that one step takes, at least 1.

    Raises:
        TypeError: If ``extractor`` or ``head`` is not an optimizer, needs a closure, or was wrapped
            by a framework that owns backward and scaler (Accelerate, Lightning): there, use one
            optimizer over :func:`parameter_groups`.
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
            _check_optimizer(name, optimizer)
            if not _parameters(optimizer):
                raise ValueError(f"{name} must have parameters, got an optimizer without any")
        shared = len(set(_parameters(extractor)) & set(_parameters(head)))
        if shared:
            raise ValueError(f"extractor and head must not share parameters, got {shared} in both")
        if accumulate < 1 or accumulate % 1:
            raise ValueError(f"accumulate must be a whole number from 1, got {accumulate}")
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be above 0 or None, got {max_grad_norm}")
        self.players = players
        self.scaler = scaler
        self.max_grad_norm = max_grad_norm
        self.accumulate = accumulate
        self._calls = 0
        self._looked = False

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
        if self._calls:
            return False
        if not self._looked:
            self._looked = True
            self._look(loss)
        return self._step()

    def finish(self) -> bool:
        r"""Step with the calls of a cycle that is not complete, at the end of an epoch.

        .. math:: g = \nabla \tfrac{1}{j} \sum_{i=1}^{j} \mathcal{L}_i

        Returns:
            As a call that completes a cycle; False if there was nothing to step with.
        """
        calls, self._calls = self._calls, 0
        if not calls:
            return False
        for optimizer in self.players.values():
            for parameter in _parameters(optimizer):
                if parameter.grad is not None:
                    parameter.grad.mul_(self.accumulate / calls)
        return self._step()

    def _look(self, loss: Tensor) -> None:
        """Warn of what would train silently wrong, as far as gradients tell."""
        for name, optimizer in self.players.items():
            # A rank of FSDP may hold empty shards only.
            held = [p for p in _parameters(optimizer) if p.numel()]
            if held and all(p.grad is None for p in held):
                warnings.warn(_NO_GRADIENT[name], stacklevel=3)
        owned = {id(p) for optimizer in self.players.values() for p in _parameters(optimizer)}
        lost = [p for p in _leaves(loss) if p.grad is not None and id(p) not in owned]
        if lost:
            shapes = ", ".join(str(tuple(p.shape)) for p in lost[:5])
            more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
            warnings.warn(
                f"{len(lost)} parameters of the loss are in neither optimizer and will not learn: "
                f"shapes {shapes}{more}. Perhaps a bottleneck was forgotten: give its parameters "
                "to the extractor's optimizer. If another optimizer of yours has them, filter this "
                "warning.",
                stacklevel=3,
            )

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

    A step is a step of the optimizer, not a batch: with ``accumulate=m`` in
    :class:`TwoOptimizerStep`, ``total_steps`` is the number of batches divided by m, and the
    scheduler is stepped when the call returned True. With the number of batches in its place, the
    rate would end 2.4 times too high for m = 4.

    A group that joins later (``optimizer.add_param_group``) is annealed from its own rate, at the
    same p. To train on for longer, load the state into a schedule of the new length: it keeps its
    own ``total_steps``, ``alpha`` and ``beta``, and warns that they differ.

    Args:
        optimizer: Optimizer whose groups are annealed.
        total_steps: Steps of the optimizer over which p goes from 0 to 1, at least 1.
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
        late = self.optimizer.param_groups[len(self.base_lrs) :]
        self.base_lrs += [group.setdefault("initial_lr", group["lr"]) for group in late]
        progress = min(self.last_epoch / self.total_steps, 1.0)
        return [lr / (1 + self.alpha * progress) ** self.beta for lr in self.base_lrs]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the step and the initial rates of ``state_dict()``, at this schedule's length.

        Args:
            state_dict: The state of a schedule of an optimizer with at most as many groups.

        Raises:
            ValueError: If the state is of an optimizer with more groups.
        """
        groups, saved = len(self.optimizer.param_groups), len(state_dict["base_lrs"])
        if saved > groups:
            raise ValueError(f"state_dict must be of at most {groups} groups, got {saved}")
        own = {name: getattr(self, name) for name in ("total_steps", "alpha", "beta")}
        differ = {name: state_dict[name] for name in own if state_dict[name] != own[name]}
        if differ:
            there = ", ".join(f"{name}={value}" for name, value in differ.items())
            here = ", ".join(f"{name}={own[name]}" for name in differ)
            warnings.warn(
                f"the state is of a schedule with {there}; this one keeps {here} and goes on from "
                f"step {state_dict['last_epoch']}",
                stacklevel=2,
            )
        super().load_state_dict(state_dict | own)


def parameter_groups(
    pretrained: nn.Module | list[nn.Module],
    new: nn.Module | list[nn.Module],
    lr: float,
    multiplier: float = 10.0,
) -> list[dict[str, Any]]:
    r"""Parameter groups in which new layers learn faster than pretrained ones (section 4.1).

    .. math:: \eta_{pretrained} = \eta, \qquad \eta_{new} = \mathrm{multiplier} \cdot \eta

    Args:
        pretrained: A module, or a list of modules, that learns at ``lr``: the backbone.
        new: What learns at ``multiplier * lr``: the head, and a bottleneck if there is one.
        lr: Learning rate η of what is pretrained, above 0.
        multiplier: Ratio of the two learning rates, above 0; 10 in the paper.

    Returns:
        Two groups, pretrained first, for any optimizer of :mod:`torch.optim`.

    Raises:
        TypeError: If ``pretrained`` or ``new`` is not a module or a list of modules.
        ValueError: If one has no parameters, or ``lr`` or ``multiplier`` is not above 0.

    Example:
        >>> backbone, bottleneck, head = nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(2, 2)
        >>> groups = parameter_groups(backbone, [bottleneck, head], lr=0.001)
        >>> [group["lr"] for group in groups]
        [0.001, 0.01]
        >>> optimizer = torch.optim.SGD(groups, lr=0.001, momentum=0.9)
    """
    for name, value in (("lr", lr), ("multiplier", multiplier)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    return [
        {"params": list(checked_modules("pretrained", pretrained).parameters()), "lr": lr},
        {"params": list(checked_modules("new", new).parameters()), "lr": lr * multiplier},
    ]


_NO_GRADIENT = {
    "extractor": (
        "no parameter of the extractor's optimizer got a gradient: the backbone is frozen, or "
        "the features were made under torch.no_grad() or read from a file, so nothing is adapted. "
        "Let the backbone learn; on fixed features, let a bottleneck be the extractor."
    ),
    "head": (
        "no parameter of the head's optimizer got a gradient, so the classifiers do not learn: "
        "give it the parameters of the head that made the logits, with requires_grad=True, and "
        "take the logits from head.route(features)."
    ),
}


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _check_optimizer(name: str, optimizer: object) -> None:
    kind = type(optimizer).__name__
    instead = (
        "use one optimizer over symloss.parameter_groups(backbone, head, lr) and the framework's "
        "own backward on losses.total(lam)"
    )
    if isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        raise TypeError(
            f"{name} must be a plain torch.optim.Optimizer, got {kind}, which wraps one and owns "
            f"the step; {instead}"
        )
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{name} must be a torch.optim.Optimizer, got {kind}")
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise TypeError(
            f"{name} must step without a closure, got {kind}; use SGD, Adam or another optimizer "
            "whose step() takes no arguments"
        )


def _leaves(loss: Tensor) -> Iterator[nn.Parameter]:
    """Yield the parameters that the loss was computed from."""
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)  # of AccumulateGrad
        if isinstance(leaf, nn.Parameter):
            yield leaf
        nodes += [after for after, _ in node.next_functions]
