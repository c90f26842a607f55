"""The protocols of scikit-learn's classifiers; scikit-learn is imported only where it is used."""

import copy
import inspect
from contextlib import suppress
from typing import Any

import torch

_ROUTED = ("target_features", "target_labels")  # arguments of fit


def tags() -> Any:
    """Return the estimator tags that scikit-learn asks for."""
    from sklearn.utils import ClassifierTags, Tags, TargetTags, TransformerTags

    return Tags(
        estimator_type="classifier",
        target_tags=TargetTags(required=True),
        classifier_tags=ClassifierTags(),
        transformer_tags=TransformerTags(preserves_dtype=["float32"]),
    )


def requests(model: Any) -> Any:
    """Return the metadata that scikit-learn passes on to the model's methods."""
    from sklearn.utils.metadata_routing import MetadataRequest

    if hasattr(model, "_metadata_request"):  # scikit-learn's name for it, which clone copies
        return copy.deepcopy(model._metadata_request)
    found = MetadataRequest(owner=type(model).__name__)
    for name in _ROUTED:
        found.fit.add_request(param=name, alias=True)
    found.score.add_request(param="sample_weight", alias=True)
    return found


def request(model: Any, changes: dict[str, Any]) -> None:
    """Change what :func:`requests` returns.

    Raises:
        TypeError: If a name is not an argument of fit that can be requested.
    """
    if unknown := [name for name in changes if name not in _ROUTED]:
        raise TypeError(f"set_fit_request takes {' and '.join(_ROUTED)}, got {unknown[0]!r}")
    found = requests(model)
    for name, alias in changes.items():
        found.fit.add_request(param=name, alias=alias)
    model._metadata_request = found


def described(model: Any) -> str:
    """Return a model's constructor call, without arguments that have their defaults."""
    defaults = inspect.signature(type(model)).parameters
    own = [
        f"{name}={value!r}"
        for name, value in model.get_params().items()
        if repr(value) != repr(defaults[name].default)
    ]
    return f"{type(model).__name__}({', '.join(own)})"


def check_fitted(model: Any) -> None:
    """Raise NotFittedError (without scikit-learn, AttributeError) unless the model is fitted."""
    if hasattr(model, "head_"):
        return
    name = type(model).__name__
    message = f"this {name} is not fitted yet: call fit(features, labels, target_features) first"
    with suppress(ImportError):
        from sklearn.exceptions import NotFittedError

        raise NotFittedError(message)
    raise AttributeError(message)


def real(name: str, value: Any) -> float:
    """Return a number as a Python float, or raise a TypeError that names the parameter."""
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None


def whole(name: str, value: Any, least: int) -> int:
    """Return a whole number, which may be written 20.0, as an int.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is below ``least`` or not whole.
    """
    number = real(name, value)
    if number < least or number % 1 != 0:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value}")
    return int(value)


def seed(random_state: Any) -> int:
    """Return a seed, or draw one from a generator of torch, NumPy or Python.

    If None, it is drawn from torch's global generator.

    Raises:
        TypeError: If it is neither a number nor a generator.
        ValueError: If it is not a whole number from 0 to 2**64 - 1.
    """
    if random_state is None or isinstance(random_state, torch.Generator):
        device = "cpu" if random_state is None else random_state.device
        return int(torch.randint(2**31, (), generator=random_state, device=device))
    if hasattr(random_state, "getrandbits"):  # random.Random
        return int(random_state.getrandbits(31))
    for draw in ("integers", "randint"):  # NumPy's Generator and RandomState
        if hasattr(random_state, draw):
            return int(getattr(random_state, draw)(2**31))
    number = whole("random_state", random_state, 0)
    if number >= 2**64:
        raise ValueError(f"random_state must be below 2**64, got {number}")
    return number
