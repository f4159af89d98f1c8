"""Comparisons for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import ArgumentError
from graphc.frontend.creation import as_tensor
from graphc.frontend.tensor import Tensor
from graphc.ir.types import bfloat16, complex64, complex128, float16, float32, float64

__all__ = ["assert_close"]


def assert_close(
    actual: Any,
    expected: Any,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_dtype: bool = True,
) -> None:
    """Raise AssertionError unless shape, dtype and elements agree: |actual - expected| <= atol + rtol * |expected|.

    Default tolerances: 1.6e-2 and 1e-5 for bfloat16, 1e-3 and 1e-5 for float16, 1.3e-6 and 1e-5 for float32, 1e-7 and
    1e-7 for float64, 0 for integers. Sequences compare item by item.
    """
    if isinstance(actual, (list, tuple)) and isinstance(expected, (list, tuple)):
        if len(actual) != len(expected):
            raise AssertionError(f"the lengths differ: {len(actual)} and {len(expected)}")
        for a, b in zip(actual, expected, strict=True):
            assert_close(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan, check_dtype=check_dtype)
        return
    if (rtol is None) != (atol is None):
        raise ArgumentError("assert_close: give both rtol and atol or neither")
    x, y = _tensor(actual), _tensor(expected)
    if x._l.shape != y._l.shape:
        raise AssertionError(f"the shapes differ: {x._l.type} and {y._l.type}")
    if check_dtype and x.dtype is not y.dtype:
        raise AssertionError(f"the dtypes differ: {x._l.type} and {y._l.type}")
    _compare(x, y, *_tolerances(x, y, rtol, atol), equal_nan)


def _tensor(x: Any) -> Tensor:
    return x.detach() if isinstance(x, Tensor) else as_tensor(x)


def _tolerances(x: Tensor, y: Tensor, rtol: float | None, atol: float | None) -> tuple[float, float]:
    if rtol is not None and atol is not None:
        return rtol, atol
    found = [_TOLERANCES.get(t.dtype, (0.0, 0.0)) for t in (x, y)]
    return max(r for r, _ in found), max(a for _, a in found)


# relative and absolute, by the precision of the less exact one
_TOLERANCES = {
    bfloat16: (1.6e-2, 1e-5),
    float16: (1e-3, 1e-5),
    float32: (1.3e-6, 1e-5),
    float64: (1e-7, 1e-7),
    complex64: (1.3e-6, 1e-5),
    complex128: (1e-7, 1e-7),
}


def _compare(x: Tensor, y: Tensor, rtol: float, atol: float, equal_nan: bool) -> None:
    wide = np.complex128 if x.dtype.is_complex or y.dtype.is_complex else np.float64
    a, b = x._a.astype(wide), y._a.astype(wide)
    with np.errstate(all="ignore"):
        gap = np.abs(a - b)
        good = (a == b) | (gap <= atol + rtol * np.abs(b)) & np.isfinite(gap)
    if equal_nan:
        good |= np.isnan(a) & np.isnan(b)
    if not good.all():
        place = tuple(int(k) for k in np.argwhere(~good)[0])
        raise AssertionError(
            f"{int((~good).sum())} of {a.size} elements differ; first at {place}: {a[place]} and {b[place]} "
            f"(rtol {rtol}, atol {atol})"
        )
