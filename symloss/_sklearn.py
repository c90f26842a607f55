"""What scikit-learn requires of a classifier; scikit-learn is imported only where it is used."""

import inspect
from contextlib import suppress
from typing import Any


def tags() -> Any:
    """Return the estimator tags that scikit-learn asks for."""
    from sklearn.utils import ClassifierTags, Tags, TargetTags, TransformerTags

    return Tags(
        estimator_type="classifier",
        target_tags=TargetTags(required=True),
        classifier_tags=ClassifierTags(),
        transformer_tags=TransformerTags(preserves_dtype=["float32"]),
    )


def described(model: Any) -> str:
    """Return the constructor call of a model, without arguments that have their default."""
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
