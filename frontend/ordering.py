"""Sorting and what follows from it. Order alone comes from NumPy (stable, NaN above all numbers); values are gathered
by operations.

There is no kernel for these yet: they end a recording.
"""

from __future__ import annotations

from operator import index as as_index
from typing import Any, NamedTuple

import numpy as np

from graphc.errors import ShapeError
from graphc.frontend.functional_index import gather
from graphc.frontend.functional_shape import axis_of
from graphc.frontend.mode import mode
from graphc.frontend.ops import ops
from graphc.frontend.promote import tensor_operand
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.infer import normalize_dim
from graphc.ir.op import Array

__all__ = ["argsort", "sort", "topk", "unique"]


class Sorted(NamedTuple):
    """What sort and topk give."""

    values: Tensor
    indices: Tensor


_NO_GRAPH = "graphs have no sorting; use max(), min(), argmax() or argmin() where they do"


def _refuse_recording(x: Tensor, what: str) -> None:
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_escape(x, f"{what}()", _NO_GRAPH)


def _order(x: Array, axis: int, descending: bool) -> Array:
    """The stable order along one axis."""
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    backwards = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    return np.asarray(x.shape[axis] - 1 - np.flip(backwards, axis))


def argsort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = True) -> Tensor:
    """The places of the elements in order along `dim`; equal ones keep theirs. Raises DimError."""
    x = tensor_operand("argsort", input)
    _refuse_recording(input, "argsort")
    if not x._a.ndim:
        normalize_dim("argsort", dim, 0)
        return fresh(np.zeros((), np.int64))
    d = normalize_dim("argsort", dim, x._a.ndim)
    return fresh(np.array(_order(x._a, d, descending), np.int64, order="C"))


def sort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = True) -> Sorted:
    """(values, indices) in order along `dim`; equal elements keep their order; NaN counts as the largest.

    Raises DimError.
    """
    indices = argsort(input, dim, descending)
    return Sorted(gather(input, dim, indices), indices)


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Sorted:
    """The `k` largest (or smallest) elements along `dim` in order, with their places. Raises ShapeError, DimError."""
    x, count = tensor_operand("topk", input), as_index(k)
    d = normalize_dim("topk", dim, x._a.ndim)
    size = x._a.shape[d] if x._a.ndim else 1
    if not 0 <= count <= size:
        raise ShapeError(f"topk: k {count} is out of range for dimension {d} of {x._l.type} with size {size}")
    order = argsort(x, dim, largest)
    indices: Tensor = ops.clone(ops.slice(order, dim=d, start=0, stop=count, step=1)) if x._a.ndim else order
    return Sorted(gather(x, dim, indices), indices)


def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The distinct elements in order; with them, if asked for, the place of each element among them and how often each
    occurs.

    With `dim`, distinct slices along that axis.
    """
    x = tensor_operand("unique", input)
    _refuse_recording(input, "unique")
    axis = None if dim is None else axis_of("unique", x, dim)
    values, inverse, counts = np.unique(x._a, return_inverse=True, return_counts=True, axis=axis, equal_nan=False)
    found = [fresh(np.array(values, order="C"))]
    if return_inverse:
        inverse = inverse.reshape(x._a.shape) if axis is None else inverse.reshape(-1)
        found.append(fresh(np.array(inverse, np.int64, order="C")))
    if return_counts:
        found.append(fresh(np.array(counts, np.int64, order="C")))
    return found[0] if len(found) == 1 else tuple(found)
