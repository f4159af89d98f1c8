"""Conversions between dtypes in NumPy, by docs/numerics.md: what the references and the oracle of kernels use."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ir.types import DType, dtype_of, float32

Array = np.ndarray[Any, Any]


def cast_array(x: Array, dtype: DType) -> Array:
    """`x` converted by the contract: float to int truncates, saturates and maps NaN to 0; to bool is x != 0; 16-bit
    floats are reached by way of float32.
    """
    source = dtype_of(x.dtype)
    if source is dtype:
        return x
    with np.errstate(all="ignore"):
        if dtype.is_low_precision:
            return cast_array(x, float32).astype(dtype.np)
        if source.is_low_precision:
            return cast_array(x.astype(np.float32), dtype)
        if source.kind == "f" and dtype.is_integer:
            return _whole(x.astype(np.float64), dtype)
        return x.astype(dtype.np)


def number_array(value: bool | int | float | complex, dtype: DType) -> Array:
    """A Python number as a 0-d array, rounded as a tensor would be: to 16 bits by way of float32."""
    with np.errstate(all="ignore"):
        if dtype.is_low_precision:
            return np.asarray(value, np.float32).astype(dtype.np)
        return np.asarray(value, dtype.np)


def _whole(x: Array, dtype: DType) -> Array:
    limits = np.iinfo(dtype.np)
    whole, low, high = np.trunc(x), float(limits.min), 2.0 ** (dtype.bits - dtype.is_signed)
    inside = np.where((whole >= low) & (whole < high), whole, 0.0).astype(dtype.np)
    least, greatest = (np.asarray(n, dtype.np) for n in (limits.min, limits.max))
    return np.where(whole >= high, greatest, np.where(whole < low, least, inside))
