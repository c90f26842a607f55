"""The mean of some seeds with its standard error."""

import math
import statistics
from collections.abc import Sequence
from typing import TypeAlias

Mean: TypeAlias = tuple[float, float | None]  # and its standard error, if there is one


def mean_and_error(values: Sequence[float]) -> Mean:
    """Return the mean and its standard error, the sample deviation over sqrt(n); none for n = 1."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.fmean(values), error


def plus_minus(mean: float, error: float | None, sign: str = "") -> str:
    """Return "90.8 ± 0.1", or "90.8" without an error; with the sign "+", "+90.8"."""
    return f"{mean:{sign}.1f}" + ("" if error is None else f" ± {error:.1f}")
