"""Counting and finding: histograms, places in sorted sequences, membership."""

from __future__ import annotations

import math
from operator import index as as_index
from typing import Any

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.frontend import functional_math as fm
from graphc.frontend import functional_reduce as fr
from graphc.frontend import functional_shape as fs
from graphc.frontend.creation import linspace, ones, tensor, zeros
from graphc.frontend.functional_data import item
from graphc.frontend.functional_index import check_range
from graphc.frontend.mode import refuse_values
from graphc.frontend.ops import ops
from graphc.frontend.promote import Number, common, convert, real_operand, tensor_operand
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor
from graphc.ir.types import float64, int32, int64

__all__ = ["bincount", "bucketize", "histc", "histogram", "isin", "searchsorted"]


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each number from 0 on occurs in a 1-d integer tensor, or the sums of the weights there.

    The result has max + 1 elements, at least `minlength`: a recording holds on to that number. Raises ShapeError,
    DTypeError, ArgumentError for negative numbers.
    """
    x = real_operand("bincount", input)
    if x._l.ndim != 1 or not x.dtype.is_integer:
        raise ShapeError(f"bincount: only supports 1-d non-negative integral inputs, got {x._l.type}")
    least = as_index(minlength)
    if least < 0:
        raise ArgumentError(f"bincount: minlength should be >= 0, got {least}")
    if weights is not None and weights._l.shape != x._l.shape:
        raise ShapeError(f"bincount: weights should have the same length as input, got {weights._l.type}")
    size = least
    if x._l.size:
        if int(x._a.min()) < 0:
            refuse_values(x)
            raise ArgumentError(f"bincount: only supports 1-d non-negative integral inputs, one is {int(x._a.min())}")
        size = max(int(item(fr.amax(x))) + 1, least)
    places = check_range("bincount", convert(x, int64), max(size, 1), 0, 0) if x._l.size else convert(x, int64)
    if weights is None:
        source = ones(x.ttype.shape, dtype=int64)
    else:
        source = weights if weights.dtype.is_floating_point else convert(weights, float64)
    made: Tensor = ops.index_add(zeros(size, dtype=source.dtype), places, source, dim=0)
    return made


def searchsorted(
    sorted_sequence: Tensor,
    input: Tensor | Number,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where each value would be inserted into an ascending sequence (its last axis) to keep it sorted.

    Before equal elements, after them with right=True or side="right". The other axes of a sequence of several
    dimensions equal those of `input`. Raises ShapeError, ArgumentError.
    """
    rows = tensor_operand("searchsorted", sorted_sequence)
    if side not in (None, "left", "right") or (side == "left" and right):
        raise ArgumentError(f"searchsorted: side must be 'left' or 'right' and agree with right, got {side!r}")
    if sorter is not None:
        rows = ops.gather(rows, sorter, dim=sorter.ndim - 1)
    values = input if isinstance(input, Tensor) else tensor(input, dtype=None)
    if not rows._l.ndim or (rows._l.ndim > 1 and rows._l.shape[:-1] != values._l.shape[:-1]):
        raise ShapeError(
            f"searchsorted: the sequence {rows._l.type} should be 1-d, or agree with {values._l.type} but for the last "
            "dimension"
        )
    rows, values = common("searchsorted", rows, values)
    found = _inserted(rows.detach(), values.detach(), right or side == "right")
    return convert(found, int32) if out_int32 else found


def _inserted(rows: Tensor, values: Tensor, right: bool) -> Tensor:
    """Binary search by powers of two: an element counts when it is not above (right: not at or above) the value."""
    size = fs.static_size("searchsorted", rows, rows._l.ndim - 1)
    place = zeros(values.ttype.shape, dtype=int64)
    for step in reversed([1 << k for k in range(size.bit_length())]):
        ahead = fm.add(place, step)
        inside = fm.le(ahead, size)
        at = _pick(rows, fm.sub(fm.where(inside, ahead, 1), 1), values._l.ndim)
        passed = fm.logical_not(fm.gt(at, values) if right else fm.ge(at, values))
        place = fm.where(fm.logical_and(inside, passed), ahead, place)
    return place


def _pick(rows: Tensor, places: Tensor, ndim: int) -> Tensor:
    if rows._l.ndim == 1:
        flat = fs.reshape(places, (places.ttype.numel,))
        made: Tensor = ops.reshape(ops.index_select(rows, flat, dim=0), shape=places.ttype.shape)
        return made
    picked: Tensor = ops.gather(rows, places, dim=ndim - 1)
    return picked


def bucketize(input: Tensor | Number, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The bucket of each value between ascending boundaries; a boundary belongs to the bucket below, above if `right`.

    Raises ShapeError unless the boundaries are 1-d.
    """
    if tensor_operand("bucketize", boundaries)._l.ndim != 1:
        raise ShapeError(f"bucketize: boundaries tensor must be 1 dimension, but got {boundaries._l.type}")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


_FEW = 32


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Where elements are among `test_elements`, as bool (`invert`: where they are not). NaN is never.

    Many test elements are sorted first; `assume_unique` changes nothing. Raises ArgumentError for two numbers.
    """
    if not isinstance(elements, Tensor) and not isinstance(test_elements, Tensor):
        raise ArgumentError("isin: at least one of elements and test_elements must be a Tensor")
    x, tests = (t if isinstance(t, Tensor) else tensor(t) for t in (elements, test_elements))
    x, tests = common("isin", x.detach(), fs.reshape(tests.detach(), (tests.ttype.numel,)))
    if tests._l.size <= _FEW:
        found = fr.any(fm.eq(fs.unsqueeze(x, x._l.ndim), tests), -1)
    else:
        from graphc.frontend.ordering import sort

        ordered = sort(tests).values
        places = _inserted(ordered, x, False)
        last = fm.minimum(places, tests._l.size - 1)
        found = fm.eq(_pick(ordered, last, x._l.ndim), x)
    return fm.logical_not(found) if invert else found


def _limits(name: str, x: Tensor, low: float, high: float) -> tuple[float, float]:
    if low == high and x._l.size:
        low, high = (_plain(item(f(x))) for f in (fr.amin, fr.amax))
    if low == high:
        low, high = low - 1.0, high + 1.0
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ArgumentError(f"{name}: range of [{low}, {high}] is not finite")
    if low > high:
        raise ArgumentError(f"{name}: max must be larger than min, got [{low}, {high}]")
    return low, high


def _plain(number: Any) -> float:
    return float(number.plain() if isinstance(number, Scalar) else number)


def _histogram(x: Tensor, bins: int, low: float, high: float, weight: Tensor | None = None) -> Tensor:
    """Counts in equal parts of [low, high], in the dtype of `x`; the last part has its upper end."""
    flat = fs.reshape(x.detach(), (x.ttype.numel,))
    inside = fm.logical_and(fm.ge(flat, low), fm.le(flat, high))
    scaled = fm.mul(fm.div(fm.sub(flat, low), high - low), float(bins))
    part = fm.minimum(convert(fm.where(inside, scaled, 0.0), int64), bins - 1)
    source = ones(flat.ttype.shape, dtype=x.dtype) if weight is None else fs.reshape(weight, flat.ttype.shape)
    counted: Tensor = ops.index_add(
        zeros(bins + 1, dtype=x.dtype), fm.where(inside, part, bins), source, dim=0
    )  # the last one counts what is outside
    return ops.clone(ops.slice(counted, dim=0, start=0, stop=bins, step=1))  # type: ignore[no-any-return]


def histc(input: Tensor, bins: int = 100, min: Number = 0, max: Number = 0) -> Tensor:
    """Counts of the elements in `bins` equal parts of [min, max] (of the data when both are equal), in its dtype.

    Raises DTypeError for integers, ArgumentError for limits that are no range.
    """
    x = real_operand("histc", input)
    if not x.dtype.is_floating_point:
        raise DTypeError(f"histc: not implemented for {x._l.type}; convert it to floating point first")
    if as_index(bins) <= 0:
        raise ArgumentError(f"histc: bins must be > 0, got {bins}")
    low, high = _limits("histc", x, float(min), float(max))
    return _histogram(x, as_index(bins), low, high)


def histogram(
    input: Tensor,
    bins: int,
    *,
    range: tuple[float, float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> tuple[Tensor, Tensor]:
    """(counts or sums of weights, the bins + 1 limits) of equal parts; with `density` divided by total and width.

    Raises DTypeError for integers, ArgumentError for a sequence of limits.
    """
    x = real_operand("histogram", input)
    if not x.dtype.is_floating_point:
        raise DTypeError(f"histogram: not implemented for {x._l.type}; convert it to floating point first")
    if not hasattr(bins, "__index__") or as_index(bins) <= 0:
        raise ArgumentError("histogram: bins must be an int above 0")
    low, high = _limits("histogram", x, *(map(float, range) if range else (0.0, 0.0)))
    counts = _histogram(x, as_index(bins), low, high, weight)
    edges = linspace(low, high, as_index(bins) + 1, dtype=x.dtype)
    if density:
        counts = fm.div(fm.div(counts, fr.sum(counts)), (high - low) / as_index(bins))
    return counts, edges
