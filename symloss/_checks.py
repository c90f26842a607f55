"""Argument checks shared by all modules, and the forms in which losses take logits.

Values are checked only where that does not wait for a device.
"""

import functools
import inspect
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Named = TypeVar("Named", bound=tuple[Any, ...])

_LAST_LAYER = (
    "; if these are a network's logits, remove its last layer, for example with "
    "backbone.fc = torch.nn.Identity()"
)

SHARDED = (
    "the head's weight is sharded (a DTensor) and the features are a plain tensor: call the head "
    "and its methods inside the forward of the module that fully_shard was given, where the weight "
    "is whole; to predict outside of it, call that module's unshard() first"
)


def readable(tensor: Tensor) -> bool:
    """Whether values can be checked: on the CPU, and outside ``torch.compile``."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def _extremes(values: Tensor) -> tuple[float, float] | None:
    """Return the least and the largest value, or None where values cannot be checked."""
    if not readable(values):
        return None
    least, most = values.aminmax()
    try:
        return least.item(), most.item()
    except RuntimeError:  # inside torch.func.vmap, a tensor has no values
        return None


def rebuildable(cls: type[Named]) -> type[Named]:
    """Let ``cls(iterable)`` make a named tuple too.

    Code that knows only tuples, such as Transformers' Trainer, rebuilds an output with
    ``type(output)(f(x) for x in output)``.
    """
    make = cls.__new__

    @functools.wraps(make)
    def from_fields_or_iterable(cls: type[Named], *fields: Any, **named: Any) -> Named:
        if len(fields) == 1 and not named and not isinstance(fields[0], Tensor):
            fields = tuple(fields[0])
        return make(cls, *fields, **named)

    # A NamedTuple's body may not define it.
    setattr(cls, "__new__", staticmethod(from_fields_or_iterable))  # noqa: B010
    return cls


def check_positive(**sizes: int) -> None:
    """Raise ValueError unless every size is at least 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


def check_reduction(reduction: str) -> None:
    """Raise ValueError unless ``reduction`` is ``"mean"``, ``"sum"`` or ``"none"``."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def wide(logits: Tensor) -> Tensor:
    """Return logits in float32, or in float64 if they are."""
    return logits if logits.dtype == torch.float64 else logits.float()


def halves(logits: Tensor) -> Tensor:
    """Return joint logits as ``(N, 2, K, ...)``, source first, in the dtype of :func:`wide`."""
    return wide(logits).view(logits.shape[0], 2, -1, *logits.shape[2:])


def checked_rows(name: str, logits: Tensor) -> Tensor:
    """Return one classifier's logits as ``(n, K)``, detached, in the dtype of :func:`wide`."""
    check_logits(name, logits, joint=False)
    return wide(logits.detach()).movedim(1, -1).flatten(0, -2)


def check_logits(name: str, logits: Tensor, joint: bool = True) -> None:
    """Raise TypeError or ValueError unless these are joint logits, or one classifier's."""
    if not isinstance(logits, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(logits).__name__}")
    if not logits.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {logits.dtype}")
    if logits.dim() < 2 or logits.shape[1] == 0 or (joint and logits.shape[1] % 2):
        form = "(N, 2K, ...) with dim 1 even and" if joint else "(N, K, ...) with dim 1"
        raise ValueError(f"{name} must have shape {form} positive, got {tuple(logits.shape)}")
    if logits.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(logits.shape)}")


def check_no_transform() -> None:
    """Raise RuntimeError inside a transform of torch.func."""
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            "an objective cannot be used under torch.func, whose transforms its closed-form "
            "gradients do not support; apply the functions of symloss.functional to the fields of "
            "RoutedLogits"
        )


def check_same_categories(
    source_name: str, source: Tensor, target_name: str, target: Tensor
) -> None:
    """Raise ValueError unless both have the same dim 1, 2K."""
    if source.shape[1] != target.shape[1]:
        raise ValueError(
            f"{source_name} and {target_name} must have the same dim 1 (2K), got shapes "
            f"{tuple(source.shape)} and {tuple(target.shape)}"
        )


def checked_labels(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return labels ``(N, ...)`` as int64, each a category of ``logits`` or ``ignore_index``."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a tensor, got {type(labels).__name__}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integer, got {labels.dtype}")
    expected = logits.shape[:1] + logits.shape[2:]
    if labels.shape != expected:
        one_hot = labels.shape[1:2] == (logits.shape[1] // 2,)
        raise ValueError(
            f"labels must have shape {tuple(expected)} for logits of shape "
            f"{tuple(logits.shape)}, got {tuple(labels.shape)}"
            + ("; for one-hot labels, call .argmax(1)" if one_hot else "")
        )
    labels = labels.long()
    if (extremes := _extremes(labels)) is not None:
        num_classes = logits.shape[1] // 2
        least, most = extremes
        if least < 0 or most >= num_classes:  # rare, unless some are ignored
            wrong = labels[((labels < 0) | (labels >= num_classes)) & (labels != ignore_index)]
            if wrong.numel():
                raise ValueError(
                    f"labels must be in [0, {num_classes}) or ignore_index={ignore_index}, "
                    f"got {int(wrong[0])}" + ("; count from 0" if wrong[0] == num_classes else "")
                )
    return labels


def checked_weight(v: Tensor, weight: Tensor | None) -> Tensor | None:
    """Return the category weights ``(K,)``, detached, for logits ``(N, 2, K, ...)``."""
    if weight is None:
        return None
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight must be a tensor, got {type(weight).__name__}")
    if not weight.is_floating_point():
        raise TypeError(f"weight must be floating point, got {weight.dtype}")
    _check_one_per_category("weight", tuple(weight.shape), v.shape[2])
    _check_device("weight", weight, v)
    weight = weight.detach().to(v.dtype)
    if (extremes := _extremes(weight)) is not None:
        least, most = extremes
        if not (least >= 0 and most < math.inf):
            raise ValueError(f"weight must be finite and at least 0, got {weight.tolist()}")
    return weight


def checked_prior(shares: Tensor, prior: Tensor | Sequence[float]) -> Tensor:
    """Return the expected shares ``(K,)``, detached, like the predicted ones ``(K,)``."""
    if isinstance(prior, Tensor):
        if prior.is_complex():
            raise TypeError(f"prior must be real, got {prior.dtype}")
        _check_one_per_category("prior", tuple(prior.shape), len(shares))
        _check_device("prior", prior, shares)
        if readable(prior):
            _check_distribution(prior.tolist())
        return prior.detach().to(shares.dtype)
    try:
        numbers = [float(share) for share in prior]
    except (TypeError, ValueError):
        raise TypeError(f"prior must be K numbers or None, got {prior!r}") from None
    _check_one_per_category("prior", (len(numbers),), len(shares))
    _check_distribution(numbers)
    on_host = torch.tensor(numbers, dtype=shares.dtype)
    return on_host.to(shares.device, non_blocking=True)  # does not wait for the device


def _check_distribution(prior: list[float]) -> None:
    if not (min(prior) > 0 and abs(sum(prior) - 1) <= 1e-4):
        raise ValueError(
            f"prior must be positive and sum to 1, got {prior}; divide counts by their sum"
        )


def _check_one_per_category(name: str, shape: tuple[int, ...], num_classes: int) -> None:
    if shape != (num_classes,):
        raise ValueError(
            f"{name} must have shape ({num_classes},), one number per category, got {shape}"
        )


def _check_device(name: str, values: Tensor, like: Tensor) -> None:
    if values.device != like.device:
        raise ValueError(
            f"{name} must be on the logits' device, {like.device}, got {values.device}"
        )


def check_floating(features: Tensor) -> None:
    """Raise TypeError unless ``features`` is a floating-point tensor."""
    if not isinstance(features, Tensor) or not features.is_floating_point():
        got = features.dtype if isinstance(features, Tensor) else type(features).__name__
        raise TypeError(f"features must be a floating-point tensor, got {got}")


def is_sharded(tensor: Tensor) -> bool:
    """Whether this is a DTensor, which holds one process's part of a tensor."""
    return hasattr(tensor, "device_mesh")  # importing its class takes long


def check_features(features: Tensor, weight: Tensor) -> None:
    """Raise an error unless features suit a head's weight ``(2K, F, ...)``."""
    check_floating(features)
    dims, width = weight.dim(), weight.shape[1]
    if features.dim() != dims or features.shape[1] != width:
        expected = f"(N, {width})" if dims == 2 else f"(N, {width}, H, W)"
        shape = tuple(features.shape)
        raise ValueError(
            f"features must have shape {expected}, got {shape}{_shape_hint(shape, dims, width)}"
        )
    if is_sharded(weight) and not is_sharded(features):
        raise RuntimeError(SHARDED)
    if features.dtype != weight.dtype and not torch.is_autocast_enabled(features.device.type):
        raise TypeError(
            f"features must have the head's dtype, {weight.dtype}, got {features.dtype}; run the "
            f"head under torch.autocast, or convert one of them: features.to({weight.dtype})"
        )


def _shape_hint(shape: tuple[int, ...], dims: int, width: int) -> str:
    """Return how to get ``(N, width)``, or for 4 dims ``(N, width, H, W)``, if it is clear."""
    if len(shape) == dims - 1 and shape[0] == width:
        return "; call features.unsqueeze(0) for a batch of one"
    if dims == 4 and len(shape) == 4 and shape[3] == width:
        return "; call features.permute(0, 3, 1, 2)"
    if len(shape) == dims:
        return _LAST_LAYER
    if dims == 2 and len(shape) > 2:
        if math.prod(shape[1:]) == width:
            return "; call features.flatten(1)"
        if width in (shape[-1], shape[1]):
            positions = range(1, len(shape) - 1) if shape[-1] == width else range(2, len(shape))
            over = positions[0] if len(positions) == 1 else tuple(positions)
            token = " or take one, features[:, 0]" if positions == range(1, 2) else ""
            return f"; average the positions, features.mean({over}){token}"
    return ""


def checked_lam(lam: float | Tensor, most: float = math.inf) -> float | Tensor:
    """Return λ, a finite number or 0-d tensor from 0 to ``most``."""
    if isinstance(lam, Tensor):
        if lam.dim() > 0:
            raise ValueError(f"lam must be a number or a 0-d tensor, got shape {tuple(lam.shape)}")
        if not readable(lam):
            return lam
    elif torch.compiler.is_compiling():
        return lam
    value = float(lam)
    if not 0 <= value <= most or value == math.inf:
        limits = "finite and at least 0" if most == math.inf else f"in [0, {most:g}]"
        raise ValueError(f"lam must be {limits}, got {value}")
    return lam


def checked_modules(name: str, modules: nn.Module | list[nn.Module]) -> nn.ModuleList:
    """Return one module or several as a ModuleList that has parameters."""
    listed = [modules] if isinstance(modules, nn.Module) else modules
    if not isinstance(listed, list | tuple) or not all(isinstance(m, nn.Module) for m in listed):
        raise TypeError(
            f"{name} must be a torch.nn.Module or a list of modules, got "
            f"{type(modules).__name__}; pass the module itself, not its parameters"
        )
    found = nn.ModuleList(listed)
    if next(found.parameters(), None) is None:
        raise ValueError(f"{name} must have parameters, got none")
    return found


def checked_device(device: Any) -> torch.device:
    """Return a device; ValueError if torch cannot use it on this machine."""
    try:
        torch.zeros(1, device=device).item()
        return torch.device(device)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(
            "device must be one that torch can use on this machine, for example 'cpu', got "
            f"{device!r}"
        ) from error


def check_optimizer(name: str, optimizer: object) -> None:
    """Raise TypeError unless it is a plain optimizer that steps without a closure."""
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
