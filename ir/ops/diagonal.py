"""The diagonal of two axes as a view, and writing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.expr import Expr, apply, iadd, isub
from graphc.ir.op import Array, Elementwise, Op, Operand, Sample, define
from graphc.ir.ops import create
from graphc.ir.ops.reindex import all_of, between, check_dims
from graphc.ir.types import Shape, TensorType

At = Callable[..., Expr]
Index = Sequence[Expr]
Types = Sequence[TensorType]
Needs = Sequence[bool]


def _kept(shape: Shape, dims: tuple[int, int]) -> list[int]:
    return [d for d in range(len(shape)) if d not in dims]


def diagonal_type(name: str, x: TensorType, dims: tuple[int, int], offset: int) -> TensorType:
    """The type of a diagonal of `x`. Raises DimError, and ShapeError for named sizes."""
    check_dims(name, dims, x.ndim)
    rows, columns = x.shape[dims[0]], x.shape[dims[1]]
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise ShapeError(f"{name}: dims {list(dims)} of {x} must have fixed sizes")
    count = min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)
    return x.with_shape((*(x.shape[d] for d in _kept(x.shape, dims)), max(count, 0)))


def _infer(x: TensorType, *, dims: tuple[int, int], offset: int) -> TensorType:
    return diagonal_type("diagonal", x, dims, offset)


def _lower(at: At, index: Index, types: Types, *, dims: tuple[int, int], offset: int) -> Expr:
    rank = types[0].ndim
    found = list(index[: rank - 1])
    inner = [found[-1]] * rank
    for d, i in zip(_kept(types[0].shape, dims), found, strict=False):
        inner[d] = i
    inner[dims[0]] = iadd(found[-1], max(-offset, 0))
    inner[dims[1]] = iadd(found[-1], max(offset, 0))
    return at(0, tuple(inner))


def _view(x: Array, *, dims: tuple[int, int], offset: int) -> Array:
    found = np.diagonal(x, offset, *dims)  # read-only: the view is one of `x` itself, as writable as that
    start = [slice(None)] * x.ndim
    start[dims[0]], start[dims[1]] = slice(max(-offset, 0), None), slice(max(offset, 0), None)
    return np.lib.stride_tricks.as_strided(x[tuple(start)], found.shape, found.strides, writeable=x.flags.writeable)


def _vjp(g: Any, out: Operand, x: Operand, *, needs: Needs, **attrs: Any) -> tuple[Any]:
    return (diagonal_scatter(create.zeros_like(x), g, **attrs),)


def _scatter(base: Operand, value: Any, **attrs: Any) -> Any:
    return diagonal_scatter(base, value, **attrs)


_CASES: tuple[tuple[tuple[int, ...], tuple[int, int], int], ...] = (
    ((4, 4), (0, 1), 0), ((3, 5), (0, 1), 1), ((5, 3), (1, 0), -1), ((2, 3, 4), (2, 0), 1), ((2, 3, 4), (0, 1), -1),
    ((3, 2, 3, 2), (1, 3), 0), ((3, 4), (0, 1), 4), ((0, 3), (0, 1), 0), ((1, 1), (0, 1), 0),
)  # fmt: skip


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dims, offset in _CASES:
        attrs = {"dims": dims, "offset": offset}
        yield Sample((rng.standard_normal(shape),), attrs, f"{shape} dims {dims} offset {offset}")


diagonal = define(
    Op(
        "diagonal",
        _infer,
        _view,
        _samples,
        lower=Elementwise(_lower, movement=True),
        vjp=_vjp,
        scatter=_scatter,
        doc="The elements x[…, i, …, i + offset, …] of two axes, as a new last axis; offset < 0 lies below.",
    )
)


def _scatter_infer(base: TensorType, src: TensorType, *, dims: tuple[int, int], offset: int) -> TensorType:
    want = diagonal_type("diagonal_scatter", base, dims, offset)
    if src.shape != want.shape:
        raise ShapeError(f"diagonal_scatter: src is {src}, the diagonal of {base} needs {want}")
    if src.dtype is not base.dtype:
        raise DTypeError(f"diagonal_scatter: base is {base}, src is {src}; the dtypes must be equal")
    return base


def _scatter_lower(at: At, index: Index, types: Types, *, dims: tuple[int, int], offset: int) -> Expr:
    rank = types[0].ndim
    row = index[dims[0]] if offset >= 0 else isub(index[dims[0]], -offset)
    column = isub(index[dims[1]], offset) if offset > 0 else index[dims[1]]
    inside = all_of([apply("eq", row, column), *between(row, 0, types[1].sizes[-1])])
    place = (*(index[d] for d in _kept(types[0].shape, dims)), row)
    return apply("select", inside, at(1, place, inside), at(0, tuple(index[:rank])))


def _scatter_reference(base: Array, src: Array, **attrs: Any) -> Array:
    out = base.copy()
    _view(out, **attrs)[...] = src
    return out


def _scatter_vjp(g: Any, out: Operand, base: Operand, src: Operand, *, needs: Needs, **attrs: Any) -> tuple[Any, Any]:
    kept = diagonal_scatter(g, create.zeros_like(src), **attrs) if needs[0] else None
    return kept, diagonal(g, **attrs) if needs[1] else None


def _scatter_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dims, offset in _CASES:
        attrs: dict[str, Any] = {"dims": dims, "offset": offset}
        base = np.asarray(rng.standard_normal(shape))
        src = np.asarray(rng.standard_normal(_view(base, **attrs).shape))
        yield Sample((base, src), attrs, f"{shape} dims {dims} offset {offset}")


diagonal_scatter = define(
    Op(
        "diagonal_scatter",
        _scatter_infer,
        _scatter_reference,
        _scatter_samples,
        lower=Elementwise(_scatter_lower, movement=True),
        vjp=_scatter_vjp,
        arity=2,
        doc="`base` with a diagonal of two axes replaced by `src`.",
    )
)
