"""Features and labels as users supply them: arrays, tensors and memory maps, read in batches."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PREPROCESSING = ("l2", "standardise", None)
_ROWS = 4096  # read at once outside training


class Preprocessing(nn.Module):
    """Preprocessing of features before the first layer: ``"l2"``, ``"standardise"`` or None."""

    mean: Tensor
    scale: Tensor

    def __init__(self, kind: str | None, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, source: Tensor, target: Tensor) -> None:
        """Compute each column's mean and scale over both domains, with equal weight.

        Raises:
            ValueError: If features are not finite; this is where all of them are checked.
        """
        device = self.mean.device
        both = _moments("features", source, device) + _moments("target_features", target, device)
        mean, square = both / 2
        variance = square - mean.square()
        self.mean.copy_(mean)
        self.scale.copy_(
            variance.where(variance > 1e-12 * square, 1.0).sqrt()
        )  # 1 for constant columns

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        if self.kind == "l2":
            return F.normalize(x)
        return (x - self.mean) / self.scale if self.kind == "standardise" else x


def as_rows(name: str, features: Any) -> Tensor:
    """Return features as a tensor ``(N, F)`` that shares their memory, even a memory map's.

    Raises:
        TypeError: If they are sparse, or not numbers.
        ValueError: If they are complex, empty or not two-dimensional.
    """
    rows = features.detach() if isinstance(features, Tensor) else _from_numpy(name, features)
    if rows.is_complex():
        raise ValueError(f"Complex data not supported: {name} must be real, got {rows.dtype}")
    if rows.dim() != 2:
        raise ValueError(
            f"{name} must have shape (N, F), got {tuple(rows.shape)}. Reshape your data: "
            "x.reshape(len(x), -1) for rows of any shape, x.reshape(1, -1) for a single row, "
            "x[:, 0] for one view of several"
        )
    if 0 in rows.shape:
        n, width = rows.shape
        raise ValueError(
            f"{name} must not be empty, got {n} sample(s) and {width} feature(s) "
            f"(shape={tuple(rows.shape)}) while a minimum of 1 is required."
        )
    return rows


def columns(features: Any) -> list[Any] | None:
    """Return the names of a table's columns, None for arrays and tensors."""
    found = getattr(features, "columns", None)
    return None if found is None else list(found)


def check_columns(name: str, features: Any, expected: list[Any] | None) -> None:
    """Raise ValueError if a table's columns are not those expected, where both have names."""
    if None not in (found := columns(features), expected) and found != expected:
        raise ValueError(f"{name} must have the columns of the source's features, in their order")


def _from_numpy(name: str, features: Any) -> Tensor:
    import numpy as np

    if hasattr(features, "toarray"):
        kind = type(features).__name__
        raise TypeError(f"{name} must be dense, got the sparse {kind}; call .toarray()")
    array = np.asarray(features)  # a memory map stays one
    if array.dtype.kind not in "fiubc":  # numbers stored as objects
        array = array.astype(np.float64)
    strange = array.dtype.itemsize > 8 and array.dtype.kind == "f"  # long double
    if strange or not array.dtype.isnative or min(array.strides, default=0) < 0:
        array = array.astype(np.float32)  # which torch can read
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)  # it is never written to


def encode(labels: Any) -> tuple[Any, Tensor]:
    """Return the categories, sorted, and each label's index among them, int64.

    Raises:
        ValueError: If labels are not one-dimensional, or are numbers that are not whole.
    """
    if labels is None:
        raise ValueError("labels must be given: requires y to be passed, but the target y is None")
    if not isinstance(labels, Tensor):
        import numpy as np

        labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"labels must have shape (N,), got {tuple(labels.shape)}")
    if isinstance(labels, Tensor):
        classes, index = torch.unique(labels.cpu(), return_inverse=True)
        continuous = classes.is_floating_point() and bool((classes != classes.round()).any())
    else:
        classes, inverse = np.unique(labels, return_inverse=True)
        index = torch.from_numpy(inverse)
        continuous = classes.dtype.kind == "f" and bool((classes != classes.round()).any())
    if continuous:
        raise ValueError("Unknown label type: labels must be categories, got continuous numbers")
    return classes, index


def check_pair(source: Tensor, y: Tensor, target: Tensor) -> None:
    """Raise ValueError unless a classifier can be trained on these features and labels."""
    if len(y) != len(source):
        raise ValueError(
            f"labels must have one entry for each of the {len(source)} rows of features, "
            f"got {len(y)}"
        )
    if source.shape[1] != target.shape[1]:
        raise ValueError(
            "features and target_features must have the same width, got "
            f"{source.shape[1]} and {target.shape[1]}"
        )
    for name, rows in (("features", source), ("target_features", target)):
        if len(rows) < 2:
            raise ValueError(f"{name} must have at least 2 rows, got 1 sample")
    if (y == y[0]).all():
        raise ValueError("labels must contain at least 2 categories, got 1 class")


def _moments(name: str, rows: Tensor, device: torch.device) -> Tensor:
    """Return mean and mean square of each column, float64 ``(2, F)``."""
    total = torch.zeros(2, rows.shape[1], dtype=torch.float64, device=device)
    for batch in batches(rows, device, name):
        wide = batch.double()
        total += torch.stack([wide.sum(0), wide.square().sum(0)])
    return total / len(rows)


def batches(rows: Tensor, device: torch.device, name: str | None = None) -> Iterator[Tensor]:
    """Yield all rows in order, float32 on the device.

    Raises:
        ValueError: If a row contains NaN, infinity or a number outside float32's range. This is
            checked only if ``name`` is given.
    """
    for start in range(0, len(rows), _ROWS):
        batch = rows[start : start + _ROWS].to(device, torch.float32)
        if name is not None and not (finite := batch.isfinite().all(1)).all():
            raise ValueError(
                f"{name} must be finite in float32, got NaN or inf in row "
                f"{start + int(finite.int().argmin())}"
            )
        yield batch


def shuffled(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield indices of random batches forever, dropping incomplete ones.

    Each batch is sorted, because files are read fastest in order.
    """
    while True:
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size].sort().values


def gather(rows: Tensor, index: Tensor, device: torch.device) -> Tensor:
    """Return the indexed rows, float32 on the device."""
    return rows[index.to(rows.device)].to(device, torch.float32)


def apply(
    call: Callable[[Tensor], Tensor], rows: Tensor, device: torch.device, name: str | None = None
) -> Tensor:
    """Apply ``call`` to all rows in :func:`batches` and return the result on the CPU."""
    result, start = torch.empty(0), 0
    for batch in batches(rows, device, name):
        part = call(batch)
        if start == 0:
            result = torch.empty((len(rows), *part.shape[1:]), dtype=part.dtype)
        result[start : start + len(part)] = part
        start += len(part)
    return result


def like(features: Any, result: Tensor) -> Any:
    """Return a result as a tensor if features were one, else as an array."""
    return result.to(features.device) if isinstance(features, Tensor) else result.numpy()


def named(features: Any, classes: Any, index: Tensor) -> Any:
    """Return the indexed categories, typed as by :func:`like`; strings are always an array."""
    if isinstance(classes, Tensor):
        return like(features, classes[index])
    chosen = classes[index.numpy()]
    if isinstance(features, Tensor) and chosen.dtype.kind in "biuf":
        return torch.from_numpy(chosen).to(features.device)
    return chosen


def as_array(values: list[Any]) -> Any:
    """Return a list as an array."""
    import numpy as np

    return np.asarray(values)


def plain(value: Any) -> Any:
    """Return an array, a tensor or one of their scalars as plain lists and numbers."""
    return value.tolist() if hasattr(value, "tolist") else value
