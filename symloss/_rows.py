"""Users' features: arrays, tensors and memory maps, read in batches."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

PREPROCESSING = ("l2", "standardise", None)
_ROWS = 4096  # read at once outside training
_SPREAD = 1e-3  # of rows, relative to their length; chance comes at 1e-4
_ALMOST_ALL = 0.99  # of the variance
_LONGEST = 1e15  # batch norm squares it in float32
_AXES = 384  # principal components that are kept
_SAMPLE = 20_000  # rows of each domain that the components are computed from
_LOOK, _FEW, _APART = 1000, 10, 10  # rows looked at, too few to tell, and a difference of scale
_HELD = 2**28  # bytes of preprocessed rows that are held in memory
_ROUTING = (
    "A Pipeline transforms target_features only if it has transform_input=['target_features'], "
    "under scikit-learn's metadata routing"
)
_SKIPPED = (  # how errors begin when the target has not gone through a Pipeline's earlier steps
    "target_features must have the columns",
    "target_features must hold numbers",
    "target_features must be finite",
    "features and target_features must have the same width",
)


class Preprocessing(nn.Module):
    """Preprocessing of features before the first layer: ``"l2"``, ``"standardise"`` or None.

    It computes in float64, because float32 would round away a large offset or a small scale. If
    there are more than 384 columns, it keeps 384 principal components of both domains.
    """

    mean: Tensor
    scale: Tensor
    axes: Tensor | None  # (F, 384), orthonormal

    def __init__(self, kind: str | None, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64, device="cpu"))
        self.register_buffer("scale", torch.ones(width, dtype=torch.float64, device="cpu"))
        self.register_buffer("axes", None)

    @property
    def width(self) -> int:
        """Number of columns of the result."""
        return len(self.mean) if self.axes is None else self.axes.shape[1]

    def fit(self, source: Tensor, target: Tensor, generator: torch.Generator) -> None:
        """Compute means, scales and principal components, with equal weight for both domains.

        Warns (UserWarning) if little is left to learn from, or both domains have the same rows.

        Raises:
            ValueError: If features are not finite; only here are all of them checked.
        """
        shift = self._rescaled(source[:1].to(self.mean.device))  # else a large mean cancels
        moments_s = self._moments("features", source, shift)
        moments_t = self._moments("target_features", target, shift)
        mean, square = (moments_s + moments_t) / 2
        variance = (square - mean.square()).clamp_min(0)
        mean = shift[0] + mean
        rounding = max(_precision(rows.dtype) for rows in (source, target)) ** 2
        varies = variance > rounding * mean.square()
        if self.kind == "standardise" or len(mean) > _AXES:
            self.mean.copy_(mean)
        if self.kind == "standardise":
            self.scale.copy_(variance.where(varies, 1.0).sqrt())  # 1 for constant columns
        self._warn(mean, variance.where(varies, 0.0))
        same = len(source) == len(target) and torch.allclose(moments_s, moments_t, 1e-7, 0)
        if same:
            warnings.warn(
                "features and target_features hold the same rows, so there is nothing to adapt to: "
                "pass the target's features as the third argument",
                stacklevel=3,
            )
        if len(mean) > _AXES:
            self.axes = self._principal(source, target, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return features, float32, ``(N, width)``."""
        x = (self._rescaled(x) - self.mean) / self.scale
        return x.float() if self.axes is None else x.float() @ self.axes

    def _principal(self, source: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        """Return the leading principal axes, by subspace iteration on a sample of the rows."""
        parts = []
        for rows in (source, target):
            chosen = rows[sample(len(rows), _SAMPLE, generator)]
            parts.append(apply(self, chosen, self.mean.device) / len(chosen) ** 0.5)
        x = torch.cat(parts).to(self.mean.device)
        start = torch.randn(_AXES, len(x), generator=generator, device="cpu").to(x.device)
        axes: Tensor = torch.linalg.qr((start @ x).T).Q
        for _ in range(3):
            axes = torch.linalg.qr(x.T @ (x @ axes)).Q
        return axes

    def _rescaled(self, x: Tensor) -> Tensor:
        if self.kind != "l2":
            return x.double()
        x = x if x.is_floating_point() else x.double()
        norm: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float64)
        return x / norm.clamp_min(torch.finfo(torch.float64).tiny)

    def _moments(self, name: str, rows: Tensor, shift: Tensor) -> Tensor:
        """Return mean and mean square of each column minus its shift, float64 ``(2, F)``."""
        total = torch.zeros(2, rows.shape[1], dtype=torch.float64, device=shift.device)
        for batch in batches(rows, shift.device, name):
            moved = self._rescaled(batch) - shift
            total += torch.stack([moved.sum(0), moved.square().sum(0)])
        return total / len(rows)

    def _warn(self, mean: Tensor, variance: Tensor) -> None:
        """Warn if rows hardly differ after preprocessing, or only in one column."""
        total, largest = float(variance.sum()), float(variance.max())
        length = (float(mean.square().sum()) + total) ** 0.5
        spread = total**0.5 / max(length, 1.0)
        used, remedy = f"preprocessing={self.kind!r}", "use preprocessing='standardise'"
        if self.kind == "standardise":
            if total == 0:
                warnings.warn("every column of features is constant", stacklevel=4)
        elif spread < _SPREAD or (self.kind == "l2" and len(mean) == 1):
            warnings.warn(
                f"rows hardly differ after {used}: they spread by {spread:.1e} of their length, so "
                f"little can be learnt; {remedy}, which scales each column",
                stacklevel=4,
            )
        elif self.kind is None and length > _LONGEST:
            warnings.warn(
                f"rows have a length of {length:.1e}, which overflows in float32 with {used}; "
                f"{remedy}, which scales each column",
                stacklevel=4,
            )
        elif largest > _ALMOST_ALL * total and int((variance > 0).sum()) > 1:
            warnings.warn(
                f"after {used}, column {int(variance.argmax())} holds "
                f"{100 * largest / total:.2f} % of the variance, so the others hardly count; "
                f"{remedy}, which scales each column",
                stacklevel=4,
            )


def _precision(dtype: torch.dtype) -> float:
    return torch.finfo(dtype if dtype.is_floating_point else torch.float64).eps


@contextmanager
def own_modes(device: torch.device) -> Iterator[None]:
    """Switch off a caller's no_grad, inference_mode or autocast."""
    autocast = torch.is_autocast_enabled(device.type)
    off = torch.autocast(device.type, enabled=False) if autocast else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), off:
        yield


@contextmanager
def hint_at_routing() -> Iterator[None]:
    """Add to an error about the target how a Pipeline transforms it: it may have skipped a step."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if str(error).startswith(_SKIPPED):
            error.args = (f"{error}. {_ROUTING}",)
        raise


def as_rows(name: str, features: Any) -> Tensor:
    """Return features as a tensor ``(N, F)`` that shares their memory, even a memory map's.

    Raises:
        TypeError: If they are sparse, or not numbers.
        ValueError: If they are masked, complex, empty or not two-dimensional.
    """
    rows = _dense(name, features) if isinstance(features, Tensor) else _from_numpy(name, features)
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
    found = getattr(features, "column_names", getattr(features, "columns", None))
    return None if found is None else list(found)


def names(columns: list[str]) -> Any:
    """Return names as scikit-learn stores them, in an array of objects."""
    import numpy as np

    return np.asarray(columns, dtype=object)


def check_columns(name: str, features: Any, expected: list[Any] | None) -> None:
    """Raise ValueError if a table's columns are not the expected ones, if both have names."""
    given = columns(features)
    if given is None or expected is None or given == expected:
        return
    lacking = [column for column in expected if column not in given]
    unknown = [column for column in given if column not in expected]
    got = [f"without {lacking[:3]}"] if lacking else []
    got += [f"with {unknown[:3]}"] if unknown else []
    raise ValueError(
        f"{name} must have the columns of the source's features, in their order, got a table "
        f"{' and '.join(got) or 'with another order; reorder it: table[names]'}"
    )


def _dense(name: str, features: Tensor) -> Tensor:
    if features.layout != torch.strided:
        raise TypeError(f"{name} must be dense, got {features.layout}; call .to_dense()")
    if hasattr(features, "get_mask"):  # of torch.masked
        raise ValueError(f"{name} must not be masked; fill it: .to_tensor(value)")
    return features.detach()


def _from_numpy(name: str, features: Any) -> Tensor:
    import numpy as np

    if hasattr(features, "toarray"):
        kind = type(features).__name__
        raise TypeError(f"{name} must be dense, got the sparse {kind}; call .toarray()")
    if np.ma.isMaskedArray(features) and np.ma.getmaskarray(features).any():
        rows = int(np.ma.getmaskarray(features).reshape(len(features), -1).any(1).sum())
        raise ValueError(
            f"{name} must not be masked, got a mask over entries of {rows} rows; fill them "
            "(.filled(value)) or leave these rows out"
        )
    array = np.asarray(features)  # a memory map stays one
    if array.dtype.kind in "mM":
        array = np.where(np.isnat(array), np.nan, array.astype(np.float64))
    elif array.dtype.kind not in "fiubc":  # numbers stored as objects
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name} must hold numbers only{_where(array)}: {error}") from error
    if array.dtype.itemsize > 8 and array.dtype.kind == "f":  # long double
        array = array.astype(np.float64)
    elif not array.dtype.isnative or min(array.strides, default=0) < 0:  # unknown to torch
        array = array.astype(array.dtype.newbyteorder("="))
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)  # it is never written to


def _where(array: Any) -> str:
    """Name the first entry of an array of objects that is not a number."""
    for row, entries in enumerate(array if array.ndim == 2 else ()):
        for column, entry in enumerate(entries):
            try:
                float(entry)
            except (TypeError, ValueError):
                return f", got {plain(entry)!r} in row {row}, column {column}"
    return ""


def warn_about_order(features: Any, labels: Any, domain: str = "") -> None:
    """Warn if a table and its labels index the same rows in a different order."""
    rows: Any = getattr(features, "index", None)
    others: Any = getattr(labels, "index", None)  # a list's is a method
    if not hasattr(rows, "equals") or not hasattr(others, "equals") or rows.equals(others):
        return
    if len(rows) == len(others) and set(rows) == set(others):
        warnings.warn(
            f"{domain}features and {domain}labels have the same index in different orders, but "
            "rows are matched by position: if that is not what you mean, pass "
            f"{domain}labels.loc[{domain}features.index]",
            stacklevel=3,
        )


def warn_about_scale(source: Tensor, target: Tensor) -> None:
    """Warn if the target seems to have skipped transformers that the source went through.

    Scaling each column changes both domains alike if both are scaled. Domains that differ by an
    order of magnitude in most columns are therefore taken for a mistake, not a shift. Columns that
    are constant in a domain do not count.
    """
    if min(len(source), len(target)) < _FEW:
        return
    (mean_s, std_s), (mean_t, std_t) = (_spread(rows) for rows in (source, target))
    varies = (std_s > 0) & (std_t > 0)
    if not varies.any():
        return
    larger, smaller = torch.maximum(std_s, std_t), torch.minimum(std_s, std_t)
    apart = (mean_s - mean_t).abs() > _APART * ((std_s.square() + std_t.square()) / 2).sqrt()
    unlike = apart | (larger > _APART * smaller)
    share = float(unlike[varies].double().mean())
    if share > 0.5:
        warnings.warn(
            f"in {100 * share:.0f} % of the columns, features and target_features differ by more "
            f"than a factor of {_APART} in standard deviation, or by more than {_APART} standard "
            f"deviations in mean: scale both in the same way. {_ROUTING}",
            stacklevel=3,
        )


def _spread(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and standard deviation of each column, in a sample of the rows."""
    chosen = sample(len(rows), _LOOK, torch.Generator("cpu").manual_seed(0))
    std, mean = torch.std_mean(gather(rows, chosen, torch.device("cpu")).double(), dim=0)
    return mean, std.where(std > _precision(rows.dtype) * mean.abs(), 0.0)


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


def batches(rows: Tensor, device: torch.device, name: str | None = None) -> Iterator[Tensor]:
    """Yield all rows in order, on the device.

    Raises:
        ValueError: If a row contains NaN, infinity or a number outside float32's range. This is
            checked only if ``name`` is given.
    """
    for start in range(0, len(rows), _ROWS):
        batch = rows[start : start + _ROWS].to(device)
        if name is not None and not (finite := batch.float().isfinite().all(1)).all():
            raise ValueError(
                f"{name} must be finite in float32, got NaN or inf in row "
                f"{start + int(finite.int().argmin())}"
            )
        yield batch


def sample(count: int, most: int, generator: torch.Generator) -> Tensor:
    """Return the sorted indices of ``most`` random rows, or of all rows if there are fewer."""
    if count <= most:
        return torch.arange(count, device="cpu")
    return torch.randperm(count, generator=generator, device="cpu")[:most].sort().values


def held(
    preprocessing: Preprocessing, source: Tensor, target: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Return all rows preprocessed, or None if they would take too much memory."""
    if 4 * preprocessing.width * (len(source) + len(target)) > _HELD:
        return None
    device = preprocessing.mean.device
    return apply(preprocessing, source, device), apply(preprocessing, target, device)


def shuffled(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield indices of random batches forever, dropping incomplete ones.

    A batch larger than the domain repeats rows, all equally often except for the last few. Each
    batch is sorted, because files are read fastest in order.
    """
    draws = -(-size // count)
    while True:
        orders = [torch.randperm(count, generator=generator, device="cpu") for _ in range(draws)]
        order = torch.cat(orders)[:size] if draws > 1 else orders[0]
        for start in range(0, len(order) - size + 1, size):
            yield order[start : start + size].sort().values


def gather(rows: Tensor, index: Tensor, device: torch.device) -> Tensor:
    """Return the indexed rows on the device."""
    return rows[index.to(rows.device)].to(device)


def apply(
    call: Callable[[Tensor], Tensor], rows: Tensor, device: torch.device, name: str | None = None
) -> Tensor:
    """Apply ``call`` to all rows in :func:`batches` and return the result on the CPU."""
    result, start = torch.empty(0, device="cpu"), 0
    for batch in batches(rows, device, name):
        part = call(batch)
        if start == 0:
            result = torch.empty((len(rows), *part.shape[1:]), dtype=part.dtype, device="cpu")
        result[start : start + len(part)] = part
        start += len(part)
    return result


def means(rows: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """Return the mean of each category's rows, 0 if it has none."""
    sums = rows.new_zeros(num_classes, rows.shape[1]).index_add_(0, y, rows)
    return sums / torch.bincount(y, minlength=num_classes).clamp_min(1).unsqueeze(1)


def like(features: Any, result: Tensor) -> Any:
    """Return a result as a tensor if the features were one, else as an array."""
    return result.to(features.device) if isinstance(features, Tensor) else result.numpy()


def listed(values: Any) -> Any:
    """Return an array, a tensor or a Series (without its index) as a plain list."""
    return plain(values.tolist() if hasattr(values, "tolist") else values)


def plain(value: Any) -> Any:
    """Return arrays, tensors and scalars, even nested, as plain dicts, lists and numbers."""
    if hasattr(value, "items"):  # a dict, or a Series
        return {
            name if isinstance(name, tuple) else plain(name): plain(share)
            for name, share in value.items()
        }
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value
