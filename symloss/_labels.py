"""Users' labels: a category for every row, or an error that names the rows."""

import math
import warnings
from collections.abc import Hashable
from contextlib import suppress
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from symloss._rows import like, plain

_MISSING = ("", "nan", "None", "<NA>", "NaT")  # what str() makes of missing values
# How scikit-learn and torch mark rows without a label, and what NaN becomes as an integer.
_UNLABELLED = {-1, -100, -(2**31), -(2**63), "-1", "-1.0", "-100"}
_SHOWN = 5  # rows


def read(labels: Any) -> Any:
    """Return labels as a tensor on the CPU if they were one, else as an array, ``(N,)``.

    Raises:
        TypeError: If they are a sparse tensor.
        ValueError: If they are not one-dimensional, some are missing, or they mix numbers and
            text.
    """
    if labels is None:
        raise ValueError("labels must be given: requires y to be passed, but the target y is None")
    if isinstance(labels, Tensor):
        if labels.layout != torch.strided:
            raise TypeError(f"labels must be dense, got {labels.layout}; call .to_dense()")
        values: Any = labels.detach().cpu()
        _check_shape(values)
        floating = values.is_floating_point() or values.is_complex()
        missing = (~values.isfinite()).nonzero().flatten().tolist() if floating else []
        _check_complete(values, missing)
        return values
    return _read_array(labels)


def _read_array(labels: Any) -> Any:
    import numpy as np

    values = _as_array("labels", labels)
    if np.ma.isMaskedArray(labels):
        missing = np.flatnonzero(np.ma.getmaskarray(labels)).tolist()
        _check_complete(values.astype(object), missing, "a masked entry")
    kind = values.dtype.kind
    if kind in "fc":
        missing = np.flatnonzero(~np.isfinite(values)).tolist()
    elif kind in "mM":
        missing = np.flatnonzero(np.isnat(values)).tolist()
        _check_complete(values, missing, "NaT")
    elif kind in "biu":
        missing = []
    else:
        missing = [i for i, value in enumerate(values.tolist()) if _is_missing(value)]
    _check_complete(values, missing)
    kinds = {_kind(value) for value in values.tolist()} if kind in "OV" else set()
    if nested := kinds & {"tuple", "list", "ndarray", "dict"}:
        raise ValueError(f"labels must be numbers or text, got {nested.pop()}")
    if len(kinds) > 1:
        raise ValueError(f"labels must be of one kind, got {' and '.join(sorted(kinds))}")
    return values if hasattr(labels, "dtype") else np.asarray(labels)


def _as_array(name: str, labels: Any) -> Any:
    import numpy as np

    try:
        values = np.asarray(labels)
    except ValueError:  # NumPy's, on nested lists of several lengths
        raise ValueError(
            f"{name} must have shape (N,), got a ragged {type(labels).__name__}"
        ) from None
    if values.dtype.kind in "UT" and not hasattr(labels, "dtype"):  # NumPy made text of the rest
        values = np.asarray(labels, dtype=object)
    if values.dtype.kind == "T":  # NumPy's variable-width strings
        values = values.astype(object)
    _check_shape(values, table=hasattr(labels, "columns"), name=name)
    return values


def _check_shape(values: Any, table: bool = False, name: str = "labels") -> None:
    if values.ndim != 1:
        column = values.ndim == 2 and values.shape[1] == 1
        hint = (
            ("take the column: .iloc[:, 0]" if table else "call .reshape(-1)")
            if column
            else (
                f"for one-hot labels, call {'.idxmax(axis=1)' if table else '.argmax(1)'}; the "
                "order is fit(features, labels, target_features) and score(features, labels)"
            )
        )
        raise ValueError(f"{name} must have shape (N,), got {tuple(values.shape)}; {hint}")


def _check_complete(values: Any, missing: list[int], what: str | None = None) -> None:
    if missing:
        first = plain(values[missing[0]])
        written = isinstance(first, str | bytes) and first.strip()  # it may be meant
        raise ValueError(
            f"labels must hold a category for every row, got {what or repr(first)} in "
            f"{_rows(missing, len(values))}; leave these rows out of features and labels"
            f"{'. A real category needs another name' if written else ''}"
        )


def _rows(rows: list[int], count: int) -> str:
    return f"{len(rows)} of {count} rows (the first: {_listed(rows)})"


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, str | bytes):
        text = value if isinstance(value, str) else value.decode(errors="replace")
        return text.strip() in _MISSING
    with suppress(TypeError, ValueError, OverflowError):
        return not math.isfinite(value)
    try:
        return bool(value != value)  # NaT
    except (TypeError, ValueError):
        return True  # pandas.NA has no truth value


def _kind(value: Any) -> str:
    return (
        "numbers"
        if isinstance(value, Real)
        else "text"
        if isinstance(value, str)
        else type(value).__name__
    )


def encode(labels: Any) -> tuple[Any, Tensor]:
    """Return the categories, sorted, and each label's index among them, int64.

    Raises:
        TypeError: As :func:`read`.
        ValueError: As :func:`read`, or if labels are numbers that are not whole, or some seem to
            mark unlabelled rows.
    """
    values = read(labels)
    if isinstance(values, Tensor):
        classes, index = torch.unique(values, return_inverse=True)
    else:
        import numpy as np

        try:
            classes, inverse = np.unique(values, return_inverse=True)
        except TypeError:
            kind = type(values[0]).__name__
            raise ValueError(f"labels must be numbers or text, got {kind}") from None
        index = torch.from_numpy(inverse)
    categories = plain(classes)
    if any(isinstance(c, complex) for c in categories):
        raise ValueError("Complex data not supported: labels must be categories")
    if any(isinstance(c, Real) and c % 1 for c in categories):
        raise ValueError("Unknown label type: labels must be categories, got continuous numbers")
    _check_marks(categories, index)
    return classes, index


def _check_marks(categories: list[Any], index: Tensor) -> None:
    """Refuse labels that mark unlabelled rows, unless all are numbers symmetric around 0."""
    marks = [i for i, category in enumerate(categories) if category in _UNLABELLED]
    if not marks or len(categories) < 3:
        return
    mark = categories[marks[-1]]
    with suppress(TypeError, ValueError):
        numbers = {float(category) for category in categories}
        if numbers == {-number for number in numbers}:
            warnings.warn(
                f"labels hold {mark!r}, taken for one of {len(categories)} categories; if it marks "
                "rows without a label, leave these out of features and labels",
                stacklevel=4,
            )
            return
    rows = (index == marks[-1]).nonzero().flatten().tolist()
    raise ValueError(
        f"labels must be categories, got {mark!r} in {_rows(rows, len(index))}, which usually "
        f"marks rows without a label: with keep = labels != {mark!r}, call "
        "fit(features[keep], labels[keep], target_features). A real category needs another name"
    )


def positions(labels: Any, classes: Any, count: int) -> Tensor:
    """Return each label's index among the classes, -1 for a category that is not one of them.

    Raises:
        TypeError: As :func:`read`.
        ValueError: As :func:`read`, or if no label is one of the classes, or some mark unlabelled
            rows.
    """
    values, categories = plain(read(labels)), plain(classes)
    if len(values) != count:
        raise ValueError(
            f"labels must have one entry for each of the {count} rows of features, "
            f"got {len(values)}"
        )
    place = {category: i for i, category in enumerate(categories)}
    index = torch.tensor([place.get(value, -1) for value in values], dtype=torch.long, device="cpu")
    unlabelled = [i for i, value in enumerate(values) if value in _UNLABELLED - place.keys()]
    _check_complete(values, unlabelled)
    if values and (index < 0).all():
        raise ValueError(
            f"labels must be categories of classes_, {_listed(categories)}, got only others: "
            f"{_listed(sorted(set(values)))}"
        )
    return index


def of_target(labels: Any, classes: Any, count: int) -> Tensor:
    """Return the index among the classes of each target row's label, -1 where it is missing.

    A missing label is None or NaN, or -1 unless that is a class.

    Raises:
        TypeError: If they are a sparse tensor.
        ValueError: If there is not one for each row, or some are not classes.
    """
    name = "target_labels"
    if isinstance(labels, Tensor):
        if labels.layout != torch.strided:
            raise TypeError(f"{name} must be dense, got {labels.layout}; call .to_dense()")
        values: Any = labels.detach().cpu()
        _check_shape(values, name=name)
        holes = [False] * len(values)
    else:
        import numpy as np

        values = _as_array(name, labels)
        mask = np.isnat(values) if values.dtype.kind in "mM" else np.zeros(len(values), bool)
        if np.ma.isMaskedArray(labels):
            mask = mask | np.ma.getmaskarray(labels)
        holes = mask.tolist()
    if len(values) != count:
        raise ValueError(
            f"{name} must have one entry for each of the {count} rows of target_features, got "
            f"{len(values)}; mark rows without a label with -1, None or NaN"
        )
    categories, given = plain(classes), values.tolist()
    place = {category: i for i, category in enumerate(categories)}
    index, unknown = [], []
    for row, (value, hole) in enumerate(zip(given, holes, strict=True)):
        at = place.get(value) if isinstance(value, Hashable) and not hole else None
        index.append(-1 if at is None else at)
        number = value if isinstance(value, Real) else 0
        marked = hole or number == -1 or (_is_missing(value) and abs(number) != math.inf)
        if at is None and not marked:
            unknown.append(row)
    if unknown:
        raise ValueError(
            f"{name} must be categories of labels, {_listed(categories)}, or mark rows without a "
            f"label with {'' if -1 in place else '-1, '}None or NaN, got {given[unknown[0]]!r} in "
            f"{_rows(unknown, count)}"
        )
    return torch.tensor(index, dtype=torch.long, device="cpu")


def _listed(categories: list[Any]) -> str:
    more = ", ..." if len(categories) > _SHOWN else ""
    return ", ".join(map(repr, categories[:_SHOWN])) + more


def shares(prior: Any, classes: Any, least: float) -> Tensor | None:
    """Return the expected shares in the order of the classes, float64.

    A share of 0 is replaced by ``least`` times an equal share: the divergence from 0 is infinite.

    Raises:
        TypeError: If the shares are not numbers, or have no order and no names.
        ValueError: If a category has no share, or a share has no category.
    """
    if prior is None:
        return None
    categories, given = plain(classes), plain(prior)
    if isinstance(given, dict):  # by name
        absent = [category for category in categories if category not in given]
        unknown = [name for name in given if name not in categories]
        got = [f"none for {_listed(absent)} (0 if the target lacks it)"] if absent else []
        got += [f"shares of {_listed(unknown)}, which labels do not hold"] if unknown else []
        if got:
            raise ValueError(f"prior must have a share for each category, got {' and '.join(got)}")
        given = [given[category] for category in categories]
    try:
        if isinstance(given, str | bytes | set | frozenset):
            raise TypeError
        numbers = [float(share) for share in given]
    except (TypeError, ValueError):
        raise TypeError(f"prior must be K numbers, by position or by name, got {prior!r}") from None
    floor = least / max(len(categories), 1)
    rest = 1 - floor * numbers.count(0)
    filled = [share * rest if share else floor for share in numbers]  # of the same sum
    return torch.tensor(filled, dtype=torch.float64, device="cpu")


def named(features: Any, classes: Any, index: Tensor) -> Any:
    """Return the indexed categories, in the type of :func:`like`; strings are always an array."""
    if isinstance(classes, Tensor):
        return like(features, classes[index])
    chosen = classes[index.numpy()]
    if isinstance(features, Tensor) and chosen.dtype.kind in "biuf":
        return torch.from_numpy(chosen).to(features.device)
    return chosen


def saved(classes: Any) -> dict[str, Any]:
    """Return the classes in a form that ``torch.load(..., weights_only=True)`` accepts.

    Raises:
        TypeError: If they are neither numbers, text nor NumPy dates.
    """
    if isinstance(classes, Tensor):
        return {"classes": classes, "classes_dtype": None}
    kind, dtype = classes.dtype.kind, classes.dtype.str
    values = plain(classes.astype("int64") if kind in "mM" else classes)
    for value in values:
        if not isinstance(value, str | bytes | int | float):
            raise TypeError(
                f"labels of type {type(value).__name__} cannot be saved; use text or numbers"
            )
    return {"classes": values, "classes_dtype": dtype}


def restored(state: dict[str, Any]) -> Any:
    """Return the classes from the result of :func:`saved`."""
    classes, dtype = state["classes"], state.get("classes_dtype")
    if isinstance(classes, Tensor):
        return classes
    import numpy as np

    return np.asarray(classes) if dtype is None else np.asarray(classes).astype(dtype)
