"""Sliding windows, the base of pooling: an affine view made into an op, and its inverse, the overlap add."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.ir.expr import Expr, apply, const, iadd, iconst, idiv, imod, imul, isub
from graphc.ir.infer import require_dtype
from graphc.ir.op import Array, Elementwise, Op, Operand, Sample, define
from graphc.ir.ops import create
from graphc.ir.ops.elementwise import NUMBERS
from graphc.ir.ops.reindex import all_of, between, check_dims
from graphc.ir.types import Shape, Size, TensorType

At = Callable[..., Expr]
Index = Sequence[Expr]
Ints = tuple[int, ...]


def window_count(size: Size, window: int, stride: int, dilation: int) -> Size:
    """How many windows fit into `size` elements. A named size needs stride 1 or a division that is exact."""
    return (size - dilation * (window - 1) - 1) // stride + 1


def _check(name: str, x: TensorType, dims: Ints, size: Ints, stride: Ints, dilation: Ints) -> Shape:
    """The shape of the windows of `x`. Raises DimError, ArgumentError or ShapeError."""
    check_dims(name, dims, x.ndim)
    if not len(dims) == len(size) == len(stride) == len(dilation):
        raise ArgumentError(f"{name}: size, stride and dilation need one number for each of the dims {list(dims)}")
    if any(n < 1 for n in (*size, *stride, *dilation)):
        raise ArgumentError(f"{name}: size {size}, stride {stride} and dilation {dilation} must be positive")
    shape = list(x.shape)
    for d, n, s, step in zip(dims, size, stride, dilation, strict=True):
        have, span = shape[d], step * (n - 1) + 1
        if isinstance(have, int) and have < span:
            raise ShapeError(
                f"{name}: a window spans {span} elements, but dim {d} of {x} has {have}; pad the tensor first"
            )
        shape[d] = window_count(have, n, s, step)
    return (*shape, *size)


def _windows_infer(x: TensorType, *, dims: Ints, size: Ints, stride: Ints, dilation: Ints) -> TensorType:
    return x.with_shape(_check("windows", x, dims, size, stride, dilation))


def _windows_lower(
    at: At, index: Index, types: Sequence[TensorType], *, dims: Ints, size: Ints, stride: Ints, dilation: Ints
) -> Expr:
    rank = types[0].ndim
    inner = list(index[:rank])
    for k, d in enumerate(dims):
        inner[d] = iadd(imul(index[d], stride[k]), imul(index[rank + k], dilation[k]))
    return at(0, tuple(inner))


def _windows_view(x: Array, *, dims: Ints, size: Ints, stride: Ints, dilation: Ints) -> Array:
    shape, strides = list(x.shape), list(x.strides)
    for d, n, s, step in zip(dims, size, stride, dilation, strict=True):
        shape[d] = (shape[d] - step * (n - 1) - 1) // s + 1
        strides[d] *= s
    inner = [x.strides[d] * step for d, step in zip(dims, dilation, strict=True)]
    return np.lib.stride_tricks.as_strided(x, (*shape, *size), (*strides, *inner), writeable=x.flags.writeable)


def _windows_vjp(g: Any, out: Operand, x: Operand, *, needs: Sequence[bool], **attrs: Any) -> tuple[Any]:
    return (windows_grad(g, shape=x.ttype.shape, **attrs),)


def _windows_scatter(base: Operand, value: Any, **attrs: Any) -> Any:
    return windows_scatter(base, value, **attrs)


_CASES: tuple[tuple[Ints, Ints, Ints, Ints, Ints], ...] = (
    ((5,), (0,), (2,), (1,), (1,)),
    ((7,), (0,), (3,), (2,), (1,)),
    ((9,), (0,), (3,), (2,), (3,)),
    ((8,), (0,), (2,), (3,), (2,)),
    ((2, 3, 6, 5), (2, 3), (3, 2), (2, 1), (1, 2)),
    ((2, 3, 4, 4), (2, 3), (2, 2), (2, 2), (1, 1)),
    ((0, 4), (1,), (2,), (1,), (1,)),
    ((3, 2), (), (), (), ()),
)


def _windows_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dims, size, stride, dilation in _CASES:
        attrs = {"dims": dims, "size": size, "stride": stride, "dilation": dilation}
        yield Sample((rng.standard_normal(shape),), attrs, f"{shape} {attrs}")


windows = define(
    Op(
        "windows",
        _windows_infer,
        _windows_view,
        _windows_samples,
        lower=Elementwise(_windows_lower, movement=True),
        vjp=_windows_vjp,
        scatter=_windows_scatter,
        doc="Every window of `size` along `dims`: those axes count windows; a new last axis for each runs inside one.",
    )
)


def _grad_infer(g: TensorType, *, shape: Shape, dims: Ints, size: Ints, stride: Ints, dilation: Ints) -> TensorType:
    require_dtype("windows_grad", g, NUMBERS)
    want = _check("windows_grad", g.with_shape(shape), dims, size, stride, dilation)
    if g.shape != want:
        raise ShapeError(
            f"windows_grad: the windows of shape {list(shape)} have shape {list(want)}, but operand 0 is {g}"
        )
    return g.with_shape(shape)


def _candidates(i: Expr, count: int, size: int, stride: int, dilation: int) -> Iterator[tuple[Expr, Expr, list[Expr]]]:
    """(window, place in it, condition) of every window that may cover element `i`, windows ascending."""
    newest, rest = idiv(i, stride), imod(i, stride)
    for back in reversed(range(-(-(dilation * (size - 1) + 1) // stride))):
        window = isub(newest, back)
        offset = iadd(rest, back * stride)
        where = between(window, 0, count)
        if dilation > 1:
            where.append(apply("eq", imod(offset, dilation), iconst(0)))
        place = idiv(offset, dilation)
        where.append(apply("lt", place, iconst(size)))
        yield window, place, where


def _grad_lower(
    at: At,
    index: Index,
    types: Sequence[TensorType],
    *,
    shape: Any,
    dims: Ints,
    size: Ints,
    stride: Ints,
    dilation: Ints,
) -> Expr:
    g = types[0]
    ways = [
        list(_candidates(index[d], g.sizes[d], n, s, step))
        for d, n, s, step in zip(dims, size, stride, dilation, strict=True)
    ]
    total, zero = const(0, g.dtype), const(0, g.dtype)
    for choice in itertools.product(*ways):
        outer, inner, where = list(index[: len(shape)]), [], []  # type: list[Expr], list[Expr], list[Expr]
        for d, (window, place, holds) in zip(dims, choice, strict=True):
            outer[d] = window
            inner.append(place)
            where += holds
        inside = all_of(where)
        value = apply("select", inside, at(0, (*outer, *inner), inside), zero) if where else at(0, (*outer, *inner))
        total = apply("add", total, value)
    return total


def _grad_reference(g: Array, *, shape: Ints, dims: Ints, size: Ints, stride: Ints, dilation: Ints) -> Array:
    out = np.zeros(shape, g.dtype)
    inner = np.moveaxis(g, range(len(shape), g.ndim), range(g.ndim - len(shape)))
    counts = [g.shape[d] for d in dims]
    for inside in itertools.product(*(range(n - 1, -1, -1) for n in size)):  # later places belong to earlier windows
        place: list[slice] = [slice(None)] * len(shape)
        for d, k, count, s, step in zip(dims, inside, counts, stride, dilation, strict=True):
            place[d] = slice(k * step, k * step + s * (count - 1) + 1, s)
        out[tuple(place)] += inner[inside]
    return out


def _grad_vjp(gg: Any, out: Operand, g: Operand, *, needs: Sequence[bool], shape: Shape, **attrs: Any) -> tuple[Any]:
    return (windows(gg, **attrs),)


def _grad_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for sample in _windows_samples(rng):
        g = np.asarray(rng.standard_normal(_windows_view(sample.inputs[0], **sample.attrs).shape))
        yield Sample((g,), {"shape": sample.inputs[0].shape, **sample.attrs}, sample.name)


windows_grad = define(
    Op(
        "windows_grad",
        _grad_infer,
        _grad_reference,
        _grad_samples,
        lower=Elementwise(_grad_lower),
        vjp=_grad_vjp,
        dtypes=NUMBERS,
        doc="Overlap add, the gradient of windows: each element sums its places in all windows, ascending, from +0.",
    )
)


def _shared(count: Size, size: int, stride: int, dilation: int) -> bool:
    """Whether two windows share an element: that `a` windows on is that `b` places on in the same window."""
    common = math.gcd(stride, dilation)
    windows_on, places_on = dilation // common, stride // common
    return places_on < size and (not isinstance(count, int) or windows_on < count)


def _scatter_infer(
    base: TensorType, src: TensorType, *, dims: Ints, size: Ints, stride: Ints, dilation: Ints
) -> TensorType:
    want = base.with_shape(_check("windows_scatter", base, dims, size, stride, dilation))
    if src.shape != want.shape:
        raise ShapeError(f"windows_scatter: src is {src}, the windows of {base} need {want}")
    if src.dtype is not base.dtype:
        raise DTypeError(f"windows_scatter: base is {base}, src is {src}; the dtypes must be equal")
    counts = [want.shape[d] for d in dims]
    if 0 not in base.shape and any(map(_shared, counts, size, stride, dilation)):
        raise ShapeError("windows_scatter: the windows overlap, so that elements share a place; clone() them first")
    return base


def _scatter_lower(
    at: At, index: Index, types: Sequence[TensorType], *, dims: Ints, size: Ints, stride: Ints, dilation: Ints
) -> Expr:
    rank = types[0].ndim
    ways = []
    for d, n, s, step in zip(dims, size, stride, dilation, strict=True):
        span = step * (n - 1) + 1
        found = _candidates(index[d], types[1].sizes[d], n, max(s, span) if types[1].shape[d] == 1 else s, step)
        ways.append(list(found))
    value = at(0, tuple(index[:rank]))
    for choice in itertools.product(*ways):  # no two of them hold
        outer, inner, where = list(index[:rank]), [], []  # type: list[Expr], list[Expr], list[Expr]
        for d, (window, place, holds) in zip(dims, choice, strict=True):
            outer[d] = window
            inner.append(place)
            where += holds
        inside = all_of(where)
        value = apply("select", inside, at(1, (*outer, *inner), inside), value)
    return value


def _scatter_reference(base: Array, src: Array, **attrs: Any) -> Array:
    out = base.copy()
    _windows_view(out, **attrs)[...] = src
    return out


def _scatter_vjp(
    g: Any, out: Operand, base: Operand, src: Operand, *, needs: Sequence[bool], **attrs: Any
) -> tuple[Any, Any]:
    kept = windows_scatter(g, create.zeros_like(src), **attrs) if needs[0] else None
    return kept, windows(g, **attrs) if needs[1] else None


_APART: tuple[tuple[Ints, Ints, Ints, Ints, Ints], ...] = (
    ((6,), (0,), (2,), (2,), (1,)),
    ((8,), (0,), (2,), (3,), (2,)),
    ((9,), (0,), (1,), (2,), (1,)),
    ((2, 7, 5), (1, 2), (3, 2), (3, 2), (1, 1)),
    ((0, 4), (1,), (2,), (2,), (1,)),
    ((3, 2), (), (), (), ()),
    ((3, 4), (0, 1), (3, 2), (1, 3), (1, 1)),  # one window: no other overlaps it
    ((9,), (0,), (3,), (2,), (3,)),  # one between the elements of the other
    ((0, 4), (1,), (2,), (1,), (1,)),
)


def _scatter_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dims, size, stride, dilation in _APART:
        attrs: dict[str, Any] = {"dims": dims, "size": size, "stride": stride, "dilation": dilation}
        base = np.asarray(rng.standard_normal(shape))
        src = np.asarray(rng.standard_normal(_windows_view(base, **attrs).shape))
        yield Sample((base, src), attrs, f"{shape} {attrs}")


windows_scatter = define(
    Op(
        "windows_scatter",
        _scatter_infer,
        _scatter_reference,
        _scatter_samples,
        lower=Elementwise(_scatter_lower, movement=True),
        vjp=_scatter_vjp,
        arity=2,
        doc="`base` with the elements of all windows along `dims` replaced by `src`; the windows must not overlap.",
    )
)
