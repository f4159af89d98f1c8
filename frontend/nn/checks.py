"""Checks of what layers are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.frontend.functional import unsqueeze
from graphc.frontend.host import host_tensor
from graphc.frontend.tensor import Tensor
from graphc.ir.op import Array

Pair = int | Sequence[int]


def pair(name: str, value: Pair, what: str) -> tuple[int, int]:
    """An int twice, or a pair of ints. Raises ArgumentError."""
    items = (value, value) if isinstance(value, int) else tuple(value)
    if len(items) == 1:
        items = (items[0], items[0])
    if len(items) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) for v in items):
        raise ArgumentError(f"{name}: {what} must be an int or a pair of ints, got {value!r}")
    return items[0], items[1]


def float_input(name: str, x: Any) -> Tensor:
    """`x` itself. Raises ArgumentError for what is no Tensor, DTypeError for integers."""
    if not isinstance(x, Tensor):
        raise ArgumentError(f"{name}: expected a Tensor, got {type(x).__name__}")
    if not x.dtype.is_floating_point:
        raise DTypeError(f"{name}: expected a floating-point tensor, got {x._l.type}; convert it with .float()")
    return x


def batched(name: str, x: Tensor) -> tuple[Tensor, bool]:
    """A 4-d tensor; a 3-d one gets a batch of one (True). Raises ShapeError."""
    if x.ndim == 3:
        return unsqueeze(x, 0), True
    if x.ndim != 4:
        raise ShapeError(
            f"{name}: expected 3D (unbatched) or 4D (batched) input, got {x._l.type}; reshape or unsqueeze() it"
        )
    return x, False


def counts(name: str, **given: Any) -> None:
    """Check numbers of features. Raises ArgumentError for what is no int, or is negative."""
    for what, value in given.items():
        if not hasattr(value, "__index__") or value < 0:
            raise ArgumentError(
                f"{name}: {what} must be an int of at least 0, got {type(value).__name__} {value!r}; give a number of "
                "features"
            )


def single(name: str, value: Pair, what: str) -> int:
    """An int, or a sequence of one. Raises ArgumentError."""
    items = (value,) if isinstance(value, int) else tuple(value)
    if len(items) != 1 or not isinstance(items[0], int) or isinstance(items[0], bool):
        raise ArgumentError(f"{name}: {what} must be an int, got {value!r}")
    return items[0]


def reduction_of(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction of a loss. The first two are its old spelling, and count before the third where they are given."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"


def several(name: str, value: Pair, what: str, count: int) -> tuple[int, ...]:
    """An int `count` times, or `count` ints. Raises ArgumentError."""
    items = (value,) if isinstance(value, int) else tuple(value)
    if len(items) == 1:
        items = items * count
    if len(items) != count or not all(isinstance(v, int) and not isinstance(v, bool) for v in items):
        raise ArgumentError(f"{name}: {what} must be an int or {count} ints, got {value!r}")
    return items


def with_batch(name: str, x: Tensor, places: int) -> tuple[Tensor, bool]:
    """A tensor [N, C, *places]; one without N gets a batch of one (True). Raises ShapeError."""
    if x.ndim == places + 1:
        return unsqueeze(x, 0), True
    if x.ndim != places + 2:
        raise ShapeError(
            f"{name}: expected {places + 1}D (unbatched) or {places + 2}D (batched) input, got {x._l.type}; reshape or "
            "unsqueeze() it"
        )
    return x, False


def fixed(array: Array) -> Tensor:
    """Numbers computed from sizes and settings alone, as a tensor: a constant of a recording."""
    return host_tensor(np.array(array, order="C"), ())
