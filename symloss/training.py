r"""One step for two optimizers, and the learning rate of each part (section 4.1 of the paper)."""

import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from symloss._checks import check_optimizer, checked_modules

Player: TypeAlias = nn.Module | Optimizer | Iterable[Tensor]


class TwoOptimizerStep:
    r"""One backward pass for both players of eq. (11), then a step of each one's optimizer.

    .. math::

        g = \nabla \tfrac{1}{m} \sum_{i=1}^{m} \mathcal{L}_i, \qquad
        \theta_G \leftarrow \mathrm{step}(\theta_G, g_G), \qquad
        \theta_C \leftarrow \mathrm{step}(\theta_C, g_C)

    where :math:`m` is ``accumulate`` and :math:`\mathcal{L}_i` the loss of call :math:`i`. The
    first call of a cycle clears the gradients, every call adds to them, and each :math:`m`-th call
    unscales and clips them, steps both optimizers and updates the scaler once; :meth:`finish` ends
    a cycle early. The loss is usually ``losses.total(lam)`` plus your own terms; do not call
    ``aux.backward()`` for these before the first call of a cycle, which would clear its gradients.

    Schedules such as :class:`AnnealedLR` count optimizer steps, not calls: their total is the
    number of batches divided by :math:`m`.

    At the end of its first cycle, before the step, it checks the gradients once, as
    :func:`check_wiring` does. If the scaler's scale fell to 0 or is not finite, it warns once and
    takes no step.

    Args:
        extractor: Optimizer of the extractor's parameters.
        head: Optimizer of the head's parameters.
        scaler: A :class:`torch.amp.GradScaler` for float16. A player whose gradients are not finite
            skips its step.
        max_grad_norm: Largest 2-norm of each player's gradient, above 0; no clipping if None.
        accumulate: Number m of calls per step, at least 1.

    Raises:
        TypeError: If ``extractor`` or ``head`` is not an optimizer, needs a closure, or was wrapped
            by a framework that owns backward and scaler (Accelerate, Lightning), where you need one
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
            check_optimizer(name, optimizer)
        _checked_players(extractor, head)
        if accumulate < 1 or accumulate % 1:
            raise ValueError(f"accumulate must be a whole number of at least 1, got {accumulate}")
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be above 0 or None, got {max_grad_norm}")
        self.players = players
        self.scaler = scaler
        self.max_grad_norm = max_grad_norm
        self.accumulate = accumulate
        self._calls = 0
        self._reached: dict[Tensor, None] | None = {}  # by the first cycle's losses; then None
        self._scale_told = False

    def __call__(self, loss: Tensor) -> bool:
        """Add the gradient of ``loss / accumulate``; at the end of a cycle, step both optimizers.

        Args:
            loss: A scalar that both players' gradients come from.

        Returns:
            True when the optimizers stepped, so that schedulers can follow; False inside an
            accumulation cycle, and when the scaler skipped a player. A player that the loss does
            not reach is left unchanged and does not affect the result.

        Raises:
            TypeError: If ``loss`` is not a tensor.
            ValueError: If ``loss`` is not a scalar.
            RuntimeError: If ``loss`` has no gradient.
        """
        _check_loss(loss)
        if self._calls == 0:
            for optimizer in self.players.values():
                optimizer.zero_grad()
        loss = loss / self.accumulate
        # A failed backward ends its cycle, because its gradients are incomplete.
        calls, self._calls = self._calls + 1, 0
        torch.autograd.backward(loss if self.scaler is None else self.scaler.scale(loss))
        self._calls = calls % self.accumulate
        if self._reached is not None:
            self._reached.update(dict.fromkeys(_leaves(loss)))
        return False if self._calls else self._step()

    def finish(self) -> bool:
        r"""Step after an incomplete cycle, for example at the end of an epoch.

        .. math:: g = \nabla \tfrac{1}{j} \sum_{i=1}^{j} \mathcal{L}_i

        Returns:
            As for a call that completes a cycle; False if no call is pending.
        """
        calls, self._calls = self._calls, 0
        if not calls:
            return False
        for optimizer in self.players.values():
            for parameter in _parameters(optimizer):
                if parameter.grad is not None:
                    parameter.grad.mul_(self.accumulate / calls)
        return self._step()

    def _step(self) -> bool:
        if self._reached is not None:
            for mistake in _mistakes(_checked_players(**self.players), self._reached):
                warnings.warn(mistake, stacklevel=3)
            self._reached = None
        players = list(self.players.values())
        if self.scaler is not None:  # it refuses an optimizer that got no gradient at all
            players = [o for o in players if any(p.grad is not None for p in _parameters(o))]
            if not players:
                return False
            scale = self.scaler.get_scale()
            if not torch.finfo(torch.float32).tiny <= scale < math.inf:  # else it makes NaN of 0
                if not self._scale_told:
                    self._scale_told = True
                    warnings.warn(
                        f"the scaler's scale is {scale} and cannot recover, so no more steps are "
                        "taken. The gradients were not finite for many steps in a row: look for "
                        "NaN in the data and in the loss, then start with a new GradScaler.",
                        stacklevel=3,
                    )
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
        self.scaler.update()
        return self.scaler.get_scale() >= scale  # the scale shrinks if a gradient was not finite

    def state_dict(self) -> dict[str, Any]:
        """Return a dict with the states of both optimizers and of the scaler, if any.

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
                f"{method} must be called between accumulation cycles, got a call after "
                f"{self._calls} of {self.accumulate} steps"
            )


def check_wiring(
    loss: Tensor,
    extractor: Player,
    head: Player,
) -> None:
    r"""Warn about mistakes that raise no error, as :class:`TwoOptimizerStep` does.

    .. math::

        \exists\, \theta \in \theta_G : g_\theta \text{ exists}, \qquad
        \exists\, \theta \in \theta_C : g_\theta \text{ exists}, \qquad
        \theta(\mathcal{L}) \subseteq \theta_G \cup \theta_C

    For training with one optimizer or in a framework. Call it once, after the first backward and
    before the gradients are cleared. It warns (UserWarning) if no parameter of a player has a
    ``.grad``, and about parameters that got one from the loss but belong to neither player.

    Args:
        loss: The scalar whose backward has run.
        extractor: The extractor's parameters, or a module or optimizer with them. Those in the
            optimizer, ``optimizer.param_groups[0]["params"]``, are what will learn.
        head: The head's parameters, likewise.

    Raises:
        TypeError: If ``loss`` is not a tensor, or ``extractor`` or ``head`` holds anything else.
        ValueError: If ``loss`` is not a scalar or is detached, one player has no parameters, or
            both share some.
        RuntimeError: If no parameter has a gradient yet.

    Example:
        >>> backbone, head = nn.Linear(4, 3), nn.Linear(3, 2)
        >>> groups = parameter_groups(backbone, head, lr=0.001)
        >>> optimizer = torch.optim.SGD(groups, momentum=0.9)
        >>> loss = head(backbone(torch.ones(5, 4))).square().mean()
        >>> loss.backward()
        >>> check_wiring(loss, *(group["params"] for group in optimizer.param_groups))
    """
    _check_loss(loss)
    if loss.grad_fn is None:
        raise ValueError("loss must be the one that backward ran on, got a detached tensor")
    players = _checked_players(extractor, head)
    reached = list(_leaves(loss))
    everyone = [*reached, *players["extractor"], *players["head"]]
    if reached and all(parameter.grad is None for parameter in everyone):
        raise RuntimeError(
            "check_wiring must be called after the loss's backward and before zero_grad, got no "
            "gradient in any parameter"
        )
    for mistake in _mistakes(players, reached):
        warnings.warn(mistake, stacklevel=2)


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
        new: A module, or a list of modules, that learns at ``multiplier * lr``: the head, and a
            bottleneck if there is one.
        lr: Learning rate η of the pretrained part, above 0.
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
        "no parameter of the extractor got a gradient: the backbone is frozen, or the features "
        "were made under torch.no_grad() or read from a file, so nothing is adapted. Unfreeze the "
        "backbone; on fixed features, use a small trainable bottleneck as the extractor, or "
        "symloss.SymNetClassifier."
    ),
    "head": (
        "no parameter of the head got a gradient, so the classifiers do not learn: train the "
        "parameters of the head that made the logits, with requires_grad=True (in PEFT, "
        'modules_to_save=["head"]), and get the logits from head.route(features).'
    ),
}


def _mistakes(players: dict[str, list[Tensor]], reached: Iterable[Tensor]) -> Iterator[str]:
    """Yield the mistakes that gradients reveal, given the parameters behind the loss."""
    for name, parameters in players.items():
        held = [p for p in parameters if p.numel()]  # an FSDP rank may hold only empty shards
        if held and all(p.grad is None for p in held):
            yield _NO_GRADIENT[name]
    owned = {p for parameters in players.values() for p in parameters}
    lost = [p for p in reached if p.grad is not None and p not in owned]
    if lost:
        shapes = ", ".join(str(tuple(p.shape)) for p in lost[:5])
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        yield (
            f"{len(lost)} parameters of the loss belong to neither extractor nor head and will not "
            f"learn: shapes {shapes}{more}. If this is a bottleneck, add its parameters to the "
            "extractor's. If another optimizer updates them, filter this warning."
        )


def _check_loss(loss: Tensor) -> None:
    if not isinstance(loss, Tensor):
        hint = "; call its .total(lam)" if hasattr(loss, "total") else ""
        raise TypeError(f"loss must be a tensor, got {type(loss).__name__}{hint}")
    if loss.dim() != 0:
        raise ValueError(f"loss must be a scalar, got shape {tuple(loss.shape)}")


def _checked_players(extractor: Player, head: Player) -> dict[str, list[Tensor]]:
    """Return both players' parameters, after a check that neither is empty and none is shared."""
    players = {"extractor": _parameters(extractor), "head": _parameters(head)}
    for name, parameters in players.items():
        if not parameters:
            raise ValueError(f"{name} must have parameters, got none")
        for parameter in parameters:
            if not isinstance(parameter, Tensor):
                raise TypeError(
                    f"{name} must be a module, an optimizer or parameters, got a "
                    f"{type(parameter).__name__} among these"
                )
    shared = len(set(players["extractor"]) & set(players["head"]))
    if shared:
        raise ValueError(f"extractor and head must not share parameters, got {shared} in both")
    return players


def _parameters(player: Player) -> list[Tensor]:
    if isinstance(player, Optimizer):
        return [parameter for group in player.param_groups for parameter in group["params"]]
    return list(player.parameters() if isinstance(player, nn.Module) else player)


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
