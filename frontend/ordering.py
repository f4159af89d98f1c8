"""Sorting and what follows from it: stable, -0 = +0, NaN above all numbers. Values are gathered by the order."""

from __future__ import annotations

import builtins
from typing import Any, NamedTuple

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.frontend import functional_math as fm
from graphc.frontend import functional_shape as fs
from graphc.frontend.creation import arange, tensor
from graphc.frontend.functional_mixed import lerp
from graphc.frontend.functional_reduce import ValuesIndices
from graphc.frontend.given import whole
from graphc.frontend.numpy_names import numpy_names
from graphc.frontend.ops import ops
from graphc.frontend.promote import convert, tensor_operand
from graphc.frontend.tensor import Tensor
from graphc.ir.infer import normalize_dim
from graphc.ir.types import int64

__all__ = ["argsort", "kthvalue", "median", "mode", "msort", "quantile", "sort", "topk"]


class Sorted(NamedTuple):
    """What sort and topk give."""

    values: Tensor
    indices: Tensor


def _row(name: str, input: Tensor, dim: int) -> tuple[Tensor, int, bool]:
    """The operand with at least one axis, the axis, and whether it had none."""
    x = tensor_operand(name, input)
    d = normalize_dim(name, dim, x._l.ndim)
    return (x, d, False) if x._l.ndim else (ops.reshape(x, shape=(1,)), 0, True)


def _first(x: Tensor, count: Any, dim: int) -> Tensor:
    """A copy of the first `count` places along `dim`."""
    made: Tensor = ops.clone(ops.slice(x, dim=dim, start=0, stop=count, step=1))
    return made


@numpy_names
def argsort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = True) -> Tensor:
    """The places of the elements in order along `dim`; equal ones keep theirs. Raises DimError."""
    x, d, single = _row("argsort", input, dim)
    order: Tensor = ops.argsort(x, dim=d, descending=bool(descending))
    return ops.reshape(order, shape=()) if single else order


@numpy_names
def sort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = True) -> Sorted:
    """(values, indices) in order along `dim`; equal elements keep their order; NaN counts as the largest.

    Raises DimError.
    """
    x, d, single = _row("sort", input, dim)
    order = ops.argsort(x, dim=d, descending=bool(descending))
    found = Sorted(ops.gather(x, order, dim=d), order)
    return Sorted(*(ops.reshape(t, shape=()) for t in found)) if single else found


def msort(input: Tensor) -> Tensor:
    """sort() along the first axis, the values alone."""
    return sort(input, 0).values


@numpy_names
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Sorted:
    """The `k` largest (or smallest) elements along `dim` in order, with their places. Raises ShapeError, DimError."""
    x, d, single = _row("topk", input, dim)
    count, size = whole("topk", "k", k), x._l.shape[d]
    if not 0 <= count <= size:
        raise ShapeError(f"topk: k {count} is out of range for dimension {d} of {x._l.type} with size {size}")
    order = _first(ops.argsort(x, dim=d, descending=bool(largest)), count, d)
    found = Sorted(ops.gather(x, order, dim=d), order)
    return Sorted(*(ops.reshape(t, shape=()) for t in found)) if single and count else found


def _picked(x: Tensor, order: Tensor, dim: int, keepdim: bool) -> ValuesIndices:
    """Values and places for an `order` with one place along `dim`."""
    found = ValuesIndices(ops.gather(x, order, dim=dim), order)
    return found if keepdim else ValuesIndices(*(fs.squeeze(t, dim) for t in found))


def _needs_elements(name: str, x: Tensor, dim: int) -> int:
    size: int = x._l.shape[dim]
    if not size:
        raise ShapeError(f"{name}: {x._l.type} has no element along dim {dim}; give it at least one")
    return size


@numpy_names
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """(values, indices): the k-th smallest element along `dim`, k from 1; NaN counts as the largest.

    Raises ShapeError, DimError.
    """
    x, d, single = _row("kthvalue", input, dim)
    count, size = whole("kthvalue", "k", k), x._l.shape[d]
    if not 1 <= count <= size:
        raise ShapeError(f"kthvalue: k {count} is out of range for dimension {d} of {x._l.type} with size {size}")
    order = ops.argsort(x, dim=d, descending=False)
    place = ops.clone(ops.slice(order, dim=d, start=count - 1, stop=count, step=1))
    return _picked(x, place, d, keepdim and not single)


@numpy_names
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The middle element, the lower of two; NaN where there is one. With `dim`: (values, indices) along it.

    Raises ShapeError, DimError.
    """
    if dim is None:
        x = tensor_operand("median", input)
        return median(fs.reshape(x, (x.ttype.numel,)), 0).values
    x, d, single = _row("median", input, dim)
    size = x.ttype.shape[d]
    _needs_elements("median", x, d)
    order = ops.argsort(x, dim=d, descending=False)
    place = ops.index_select(order, fm.floor_divide(_number(size) - 1, 2).reshape((1,)), dim=d)
    if x.dtype.is_floating_point:
        bad = ops.argmax(x, dim=d, keepdim=True)  # the first NaN if there is any
        place = ops.where(fm.isnan(ops.gather(x, bad, dim=d)), bad, place)
    return _picked(x, place, d, keepdim and not single)


def _number(size: Any) -> Tensor:
    """A size as an int64 tensor."""
    return fm.add(tensor(0), size)


@numpy_names
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """(values, indices): the most frequent element along `dim`, the smallest of several, and its last place.

    Raises ShapeError, DimError.
    """
    x, d, single = _row("mode", input, dim)
    _needs_elements("mode", x, d)
    order = ops.argsort(x, dim=d, descending=False)
    new = starts(ops.gather(x, order, dim=d), d)
    length = ops.sub(_spread(arange(x.ttype.shape[d]), x, d), ops.argcummax(new, dim=d))
    best = ops.argmax(length, dim=d, keepdim=True)
    return _picked(x, ops.gather(order, best, dim=d), d, keepdim and not single)


def _spread(row: Tensor, x: Tensor, dim: int) -> Tensor:
    """A vector along `dim`, in the shape of `x`."""
    shape = x.ttype.shape
    return fs.expand(fs.reshape(row, tuple(n if k == dim else 1 for k, n in enumerate(shape))), shape)


def starts(ordered: Tensor, dim: int) -> Tensor:
    """Where an element along `dim` is not the one before; no NaN equals another."""
    row = arange(ordered.ttype.shape[dim])
    before = ops.index_select(ordered, fm.maximum(fm.sub(row, 1), 0), dim=dim)
    return fm.logical_or(ops.ne(ordered, before), fm.eq(_spread(row, ordered, dim), 0))


_ROUNDINGS = ("linear", "lower", "higher", "midpoint", "nearest")


@numpy_names
def quantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """The values below which the shares `q` (a float, or a vector of them) of the elements lie, along `dim` or of all.

    NaN where there is one. A vector gives a new first axis. Raises DTypeError for integers, ArgumentError, ShapeError,
    DimError.
    """
    x = tensor_operand("quantile", input)
    if not x.dtype.is_floating_point:
        raise DTypeError(f"quantile: the input must be floating-point, got {x._l.type}; convert it with .float()")
    if interpolation not in _ROUNDINGS:
        raise ArgumentError(f"quantile: interpolation must be one of {', '.join(_ROUNDINGS)}, got {interpolation!r}")
    shares = _shares(x, q)
    rank = builtins.max(x._l.ndim, 1)
    if dim is None:
        x, d = fs.reshape(x, (x.ttype.numel,)), 0
    else:
        x, d, _ = _row("quantile", x, dim)
    _needs_elements("quantile", x, d)
    found = fs.movedim(_interpolated(x, fs.reshape(shares, (shares.ttype.numel,)), d, interpolation), d, 0)
    if keepdim:
        found = fs.unsqueeze(found, d + 1) if dim is not None else fs.reshape(found, (-1, *(1,) * rank))
    return found if shares._l.ndim else fs.squeeze(found, 0)


def _shares(x: Tensor, q: Any) -> Tensor:
    """The shares as a tensor of the dtype of `x`."""
    if not isinstance(q, Tensor):
        if not 0 <= q <= 1:
            raise ArgumentError(f"quantile: q must be in [0, 1], got {q}")
        return convert(fm.add(tensor(0.0, dtype=x.dtype), q), x.dtype)
    if q.dtype is not x.dtype or q._l.ndim > 1:
        raise ShapeError(f"quantile: q must be a number or a vector of {x.dtype}, got {q._l.type}")
    return q


def _interpolated(x: Tensor, shares: Tensor, d: int, interpolation: str) -> Tensor:
    """The quantiles along axis `d`, which then runs over the shares."""
    values = ops.gather(x, ops.argsort(x, dim=d, descending=False), dim=d)
    last = fm.sub(_number(x.ttype.shape[d]), 1)
    rank = fm.mul(shares, last)
    low, high = fm.floor(rank), fm.ceil(rank)
    if interpolation == "nearest":
        low = high = fm.round(rank)
    if interpolation == "lower":
        high = low
    if interpolation == "higher":
        low = high
    a, b = (ops.index_select(values, convert(r, int64), dim=d) for r in (low, high))
    share = tuple(-1 if k == d else 1 for k in range(x._l.ndim))
    weight = fs.reshape(fm.sub(rank, low), share)
    if interpolation == "linear":
        a = lerp(a, b, fs.expand(weight, a.ttype.shape))
    elif interpolation == "midpoint":
        a = lerp(a, b, 0.5)
    worst = ops.index_select(values, last.reshape((1,)), dim=d)  # NaN, if there is any
    made: Tensor = fm.where(fm.isnan(worst), worst, a)
    return made
