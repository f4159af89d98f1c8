"""What has a size that depends on values: the places a mask holds, and what is picked or told apart by them.

In a recording such a size is a name for a number that the graph computes; see record/sizes.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontend import functional_math as fm
from graphc.frontend import functional_shape as fs
from graphc.frontend.dispatch import nullary
from graphc.frontend.mode import mode
from graphc.frontend.ops import ops
from graphc.frontend.ordering import starts
from graphc.frontend.promote import tensor_operand
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.types import int64

__all__ = ["unique", "unique_consecutive"]


def places_where(mask: Tensor) -> Tensor:
    """The places where a vector of bools holds, ascending."""
    recorder = mode.get().recorder
    if recorder is None or recorder.lockstep is not None:
        return fresh(np.flatnonzero(mask._a))
    every = ops.positions(mask, dim=0)
    count = ops.sum(ops.cast(mask, dtype=int64), dim=(0,), keepdim=False)
    made: Tensor = ops.clone(ops.slice(every, dim=0, start=0, stop=recorder.on_size(count), step=1))
    return made


def flat(x: Tensor) -> Tensor:
    """The elements in a row."""
    return fs.reshape(x, (x.ttype.numel,))


def unravelled(places: Tensor, shape: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Places in a row as one place an axis of `shape`."""
    found: list[Tensor] = []
    for size in reversed(shape[1:]):
        found.insert(0, fm.remainder(places, size))
        places = fm.floor_divide(places, size)
    return (places, *found)


def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The distinct elements in order; with them, if asked for, the place of each element among them and how often each
    occurs.

    With `dim`, distinct slices along that axis, which ends a recording. No NaN equals another.
    """
    x = tensor_operand("unique", input)
    if dim is not None:
        return _unique_slices(x, dim, return_inverse, return_counts)
    row = flat(x)
    order = ops.argsort(row, dim=0, descending=False)
    new = starts(ops.gather(row, order, dim=0), 0)
    first = places_where(new)
    found = [ops.index_select(row, ops.index_select(order, first, dim=0), dim=0)]
    number = _numbers(new)
    if return_inverse:
        found.append(fs.reshape(ops.scatter(number, order, number, dim=0), x.ttype.shape))
    if return_counts:
        found.append(_lengths(first, number))
    return found[0] if len(found) == 1 else tuple(found)


def _numbers(new: Tensor) -> Tensor:
    """For each place the number of the run it lies in, given where runs begin."""
    return fm.sub(ops.cumsum(ops.cast(new, dtype=int64), dim=0), 1)


def _lengths(first: Tensor, number: Tensor) -> Tensor:
    """How many places lie in each run, given where the runs begin and the run of each place."""
    none, one = (nullary(ops.full, shape=t.ttype.shape, value=v, dtype=int64) for t, v in ((first, 0), (number, 1)))
    made: Tensor = ops.index_add(none, number, one, dim=0)
    return made


def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The elements (row-major) without those equal to the one before; with them, if asked for, the place of each
    element among them and how long each run is.

    With `dim`, runs of equal slices along that axis. No NaN equals another.
    """
    x = tensor_operand("unique_consecutive", input)
    if dim is None:
        row = flat(x)
        new = starts(row, 0)
    else:
        row = fs.movedim(x, fs.axis_of("unique_consecutive", x, dim), 0)
        rest = tuple(range(1, row._l.ndim))
        new = starts(row, 0)
        new = ops.any(new, dim=rest, keepdim=False) if rest else new
    first = places_where(new)
    picked = ops.index_select(row, first, dim=0)
    found = [picked if dim is None else fs.movedim(picked, 0, dim)]
    number = _numbers(new)
    if return_inverse:
        found.append(number if dim is not None else fs.reshape(number, x.ttype.shape))
    if return_counts:
        found.append(_lengths(first, number))
    return found[0] if len(found) == 1 else tuple(found)


def _unique_slices(x: Tensor, dim: int, return_inverse: bool, return_counts: bool) -> Any:
    """Distinct slices: in the order of their elements, which comes from NumPy."""
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_escape(x, "unique(dim=…)", "graphs order numbers, not slices; use unique() without dim")
    axis = fs.axis_of("unique", x, dim)
    values, inverse, counts = np.unique(x._a, return_inverse=True, return_counts=True, axis=axis, equal_nan=False)
    found = [fresh(np.array(values, order="C"))]
    if return_inverse:
        found.append(fresh(np.array(inverse.reshape(-1), np.int64, order="C")))
    if return_counts:
        found.append(fresh(np.array(counts, np.int64, order="C")))
    return found[0] if len(found) == 1 else tuple(found)
