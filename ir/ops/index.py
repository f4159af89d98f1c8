"""Ops that read and write at places given by an integer operand.

An index counts from the end when negative. A compiled kernel cannot raise, so an index out of range is clamped into the
axis, which keeps memory safe; eager execution checks first and raises. Contributions to one place add up in ascending
order of their position in the source (docs/numerics.md), and of several writes to one place the last wins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.expr import Expr, apply, const, iconst
from graphc.ir.infer import require_dtype
from graphc.ir.op import Array, Elementwise, Op, Operand, Sample, Scattering, define
from graphc.ir.ops import create, movement
from graphc.ir.ops import pointwise as pw
from graphc.ir.ops.elementwise import NUMBERS
from graphc.ir.ops.reindex import check_dim, replaced, reshape_index
from graphc.ir.types import DTYPES, DType, TensorType, int64

At = Callable[..., Expr]
Index = Sequence[Expr]
Types = Sequence[TensorType]
Needs = Sequence[bool]


def wrapped(index: Expr, size: int) -> Expr:
    """A place along an axis of `size` elements: negative ones count from the end, others are clamped into range."""
    from_end = apply("select", apply("lt", index, iconst(0)), apply("add", index, iconst(size)), index)
    return apply("max", apply("min", from_end, iconst(size - 1)), iconst(0))


def wrapped_array(index: Array, size: int) -> Array:
    """`wrapped` in NumPy."""
    return np.clip(np.where(index < 0, index + size, index), 0, max(size - 1, 0))


def _check_places(name: str, x: TensorType, dim: int, index: TensorType, operand: int = 1) -> None:
    require_dtype(name, index, (int64,), operand)
    check_dim(name, dim, x.ndim)
    if x.shape[dim] == 0 and index.numel != 0:
        raise ShapeError(f"{name}: dim {dim} of {x} has no element to index with {index}")


def _check_along(name: str, x: TensorType, dim: int, index: TensorType) -> None:
    """The checks of gather and scatter: `index` has the rank of `x` and fits into it except along `dim`."""
    _check_places(name, x, dim, index)
    if index.ndim != x.ndim:
        raise ShapeError(f"{name}: the index {index} must have as many dimensions as {x}")
    for k, (n, m) in enumerate(zip(index.shape, x.shape, strict=True)):
        if k != dim and n != m and not (isinstance(n, int) and isinstance(m, int) and n <= m):
            raise ShapeError(f"{name}: the index {index} is larger than {x} along dim {k}; only dim {dim} may be")


# ---- gather and scatter


def _gather_infer(x: TensorType, index: TensorType, *, dim: int) -> TensorType:
    _check_along("gather", x, dim, index)
    return x.with_shape(index.shape)


def _gather_lower(at: At, index: Index, types: Types, *, dim: int) -> Expr:
    if types[0].shape[dim] == 0:
        return const(0, types[0].dtype)
    place = list(index[: types[0].ndim])
    place[dim] = wrapped(at(1, tuple(place)), types[0].sizes[dim])
    return at(0, tuple(place))


def _places(index: Array, size: int, dim: int) -> tuple[Array, ...]:
    """The full index tuple of gather and scatter."""
    grid: list[Array] = list(np.indices(index.shape, sparse=True))
    grid[dim] = wrapped_array(index, size)
    return tuple(grid)


def _gather_vjp(g: Any, out: Operand, x: Operand, index: Any, *, needs: Needs, dim: int) -> tuple[Any, None]:
    return scatter_add(create.zeros_like(x), index, g, dim=dim), None


def _gather_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dim, places in (
        ((5,), 0, (7,)),
        ((3, 4), 0, (2, 4)),
        ((3, 4), 1, (3, 6)),
        ((2, 3, 4), 1, (2, 5, 3)),
        ((3, 4), 1, (3, 0)),
        ((0, 4), 1, (0, 2)),
    ):
        index = rng.integers(-shape[dim], shape[dim], places)
        yield Sample((rng.standard_normal(shape), index), {"dim": dim}, f"{shape} along {dim} by {places}")


gather = define(
    Op(
        "gather",
        _gather_infer,
        lambda x, index, *, dim: x[_places(index, x.shape[dim], dim)],
        _gather_samples,
        lower=Elementwise(_gather_lower),
        any_width=True,
        vjp=_gather_vjp,
        saves=("1",),
        arity=2,
        doc="out[i, j, k] = x[i, index[i, j, k], k] for dim 1, and so on: one place along `dim` for each element.",
    )
)


def _scatter_infer(name: str, dtypes: Sequence[DType]) -> Callable[..., TensorType]:
    def infer(base: TensorType, index: TensorType, src: TensorType, *, dim: int) -> TensorType:
        require_dtype(name, base, dtypes)
        _check_along(name, base, dim, index)
        if src.dtype is not base.dtype or src.shape != index.shape:
            want = TensorType(base.dtype, index.shape)
            raise ShapeError(f"{name}: the source is {src}, but base {base} and index {index} need {want}")
        return base

    return infer


def _scatter_lower(
    at: At, index: Index, types: Types, *, dim: int
) -> tuple[tuple[int, ...], int, tuple[Expr, ...], Expr, None]:
    sizes = types[1].sizes
    space, run = (*sizes[:dim], *sizes[dim + 1 :]), sizes[dim]
    source = (*index[:dim], index[len(space)], *index[dim : len(space)])
    place = list(source)
    place[dim] = wrapped(at(1, source), types[0].sizes[dim])
    return space, run, tuple(place), at(2, source), None


def _scatter_reference(add: bool) -> Callable[..., Array]:
    def reference(base: Array, index: Array, src: Array, *, dim: int) -> Array:
        out = base.copy()
        last = np.moveaxis(index, dim, 0)
        for j, value in enumerate(np.moveaxis(src, dim, 0)):  # one position along dim writes to disjoint places
            one = np.expand_dims(last[j], dim)
            place = _places(one, base.shape[dim], dim)
            out[place] = out[place] + np.expand_dims(value, dim) if add else np.expand_dims(value, dim)
        return out

    return reference


def _scatter_add_vjp(
    g: Any, out: Operand, base: Operand, index: Any, src: Operand, *, needs: Needs, dim: int
) -> tuple[Any, None, Any]:
    return g if needs[0] else None, None, gather(g, index, dim=dim) if needs[2] else None


def _scatter_vjp(
    g: Any, out: Operand, base: Operand, index: Any, src: Operand, *, needs: Needs, dim: int
) -> tuple[Any, None, Any]:
    kept = scatter(g, index, create.zeros_like(src), dim=dim) if needs[0] else None
    if not needs[2]:
        return kept, None, None
    # of several values written to one place only the last one is in the result
    number = create.iota(shape=index.ttype.shape, dim=dim, dtype=int64)
    last = scatter(create.full(shape=g.ttype.shape, value=0, dtype=int64), index, number, dim=dim)
    stays = pw.eq(gather(last, index, dim=dim), number)
    return kept, None, pw.where(stays, gather(g, index, dim=dim), create.zeros_like(src))


def _scatter_samples(unique: bool) -> Callable[[np.random.Generator], Iterator[Sample]]:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for shape, dim, places in (
            ((5,), 0, (4,)),
            ((3, 4), 0, (2, 4)),
            ((3, 4), 1, (3, 3)),
            ((2, 5, 4), 1, (2, 4, 3)),
            ((3, 4), 1, (3, 0)),
            ((0, 4), 1, (0, 2)),
        ):
            base, src = np.asarray(rng.standard_normal(shape)), np.asarray(rng.standard_normal(places))
            index = rng.integers(-shape[dim], shape[dim], places)
            yield Sample((base, index, src), {"dim": dim}, f"{shape} along {dim} by {places}")
            order = np.argsort(rng.random(shape), axis=dim)[tuple(slice(n) for n in places)]
            yield Sample((base, order, src), {"dim": dim}, f"{shape} along {dim} by {places}, each once")

    return samples


scatter_add = define(
    Op(
        "scatter_add",
        _scatter_infer("scatter_add", NUMBERS),
        _scatter_reference(add=True),
        _scatter_samples(unique=False),
        lower=Scattering(_scatter_lower, add=True),
        vjp=_scatter_add_vjp,
        saves=("1",),
        arity=3,
        dtypes=NUMBERS,
        doc="base with src[i, j, k] added at [i, index[i, j, k], k] for dim 1, and so on, in ascending order of j.",
    )
)
scatter = define(
    Op(
        "scatter",
        _scatter_infer("scatter", DTYPES),
        _scatter_reference(add=False),
        _scatter_samples(unique=True),
        lower=Scattering(_scatter_lower, add=False),
        any_width=True,
        vjp=_scatter_vjp,
        saves=("1",),
        arity=3,
        doc="base with src[i, j, k] written at [i, index[i, j, k], k] for dim 1, and so on; the last write wins.",
    )
)


# ---- index_select, index_add, index_copy: whole rows


def _select_infer(x: TensorType, index: TensorType, *, dim: int) -> TensorType:
    _check_places("index_select", x, dim, index)
    return x.with_shape(replaced(x.shape, dim, *index.shape))


def _select_lower(at: At, index: Index, types: Types, *, dim: int) -> Expr:
    rank, places = types[0].ndim, types[1].ndim
    if types[0].shape[dim] == 0:
        return const(0, types[0].dtype)
    row = wrapped(at(1, tuple(index[dim : dim + places])), types[0].sizes[dim])
    return at(0, (*index[:dim], row, *index[dim + places : rank + places - 1]))


def _select_vjp(g: Any, out: Operand, x: Operand, index: Any, *, needs: Needs, dim: int) -> tuple[Any, None]:
    return index_add(create.zeros_like(x), index, g, dim=dim), None


_ROWS: tuple[tuple[tuple[int, ...], int, tuple[int, ...]], ...] = (
    ((5,), 0, (7,)),
    ((5, 3), 0, ()),
    ((5, 3), 0, (2, 4)),
    ((2, 4, 3), 1, (3,)),
    ((2, 4, 3), 2, (2, 2)),
    ((4, 0), 0, (3,)),
    ((0, 2), 0, (0,)),
)


def _select_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dim, places in _ROWS:
        index = np.asarray(rng.integers(-shape[dim], max(shape[dim], 1), places))
        yield Sample((rng.standard_normal(shape), index), {"dim": dim}, f"{shape} along {dim} by {places}")


index_select = define(
    Op(
        "index_select",
        _select_infer,
        lambda x, index, *, dim: np.array(x[(*(slice(None),) * dim, wrapped_array(index, x.shape[dim]))]),
        _select_samples,
        lower=Elementwise(_select_lower),
        any_width=True,
        vjp=_select_vjp,
        saves=("1",),
        arity=2,
        doc="Rows of x along `dim` at the places of `index`, of any shape, whose axes take the place of `dim`.",
    )
)


def _rows_infer(name: str, dtypes: Sequence[DType]) -> Callable[..., TensorType]:
    def infer(base: TensorType, index: TensorType, src: TensorType, *, dim: int) -> TensorType:
        require_dtype(name, base, dtypes)
        _check_places(name, base, dim, index)
        want = base.with_shape(replaced(base.shape, dim, *index.shape))
        if src is not want:
            raise ShapeError(f"{name}: the source is {src}, but base {base} and index {index} need {want}")
        return base

    return infer


def _rows_lower(
    at: At, index: Index, types: Types, *, dim: int
) -> tuple[tuple[int, ...], int, tuple[Expr, ...], Expr, None]:
    sizes = types[0].sizes
    space, places = (*sizes[:dim], *sizes[dim + 1 :]), types[1].sizes
    run = math.prod(places)
    where = reshape_index((index[len(space)],), places, (run,))
    row = wrapped(at(1, where), sizes[dim])
    before, after = tuple(index[:dim]), tuple(index[dim : len(space)])
    return space, run, (*before, row, *after), at(2, (*before, *where, *after)), None


def _rows_reference(add: bool) -> Callable[..., Array]:
    def reference(base: Array, index: Array, src: Array, *, dim: int) -> Array:
        out = base.copy()
        rows = np.moveaxis(out, dim, 0)
        axes = range(dim, dim + index.ndim)
        values = np.moveaxis(src, axes, range(index.ndim)).reshape(index.size, *rows.shape[1:])
        for row, value in zip(wrapped_array(index, base.shape[dim]).ravel(), values, strict=True):
            rows[row] = rows[row] + value if add else value
        return out

    return reference


def _index_add_vjp(
    g: Any, out: Operand, base: Operand, index: Any, src: Operand, *, needs: Needs, dim: int
) -> tuple[Any, None, Any]:
    return g if needs[0] else None, None, index_select(g, index, dim=dim) if needs[2] else None


def _index_copy_vjp(
    g: Any, out: Operand, base: Operand, index: Any, src: Operand, *, needs: Needs, dim: int
) -> tuple[Any, None, Any]:
    kept = index_copy(g, index, create.zeros_like(src), dim=dim) if needs[0] else None
    if not needs[2]:
        return kept, None, None
    # of several rows written to one place only the last one is in the result
    shape, places = src.ttype.shape, index.ttype.shape
    number = create.iota(shape=(math.prod(places),), dim=0, dtype=int64)
    flat = movement.reshape(index, shape=number.ttype.shape)
    last = index_copy(create.full(shape=(g.ttype.shape[dim],), value=0, dtype=int64), flat, number, dim=0)
    stays = pw.eq(index_select(last, flat, dim=0), number)
    rows = movement.reshape(stays, shape=(*(1,) * dim, *places, *(1,) * (len(shape) - dim - len(places))))
    return kept, None, pw.where(rows, index_select(g, index, dim=dim), create.zeros_like(src))


def _rows_samples(unique: bool) -> Callable[[np.random.Generator], Iterator[Sample]]:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for shape, dim, places in _ROWS:
            base = np.asarray(rng.standard_normal(shape))
            src = np.asarray(rng.standard_normal((*shape[:dim], *places, *shape[dim + 1 :])))
            count = math.prod(places)
            once = unique and count <= shape[dim]
            order = (
                rng.permutation(shape[dim])[:count] if once else rng.integers(-shape[dim], max(shape[dim], 1), count)
            )
            attrs, name = {"dim": dim}, f"{shape} along {dim} by {places}"
            yield Sample((base, order.reshape(places), src), attrs, name)

    return samples


index_add = define(
    Op(
        "index_add",
        _rows_infer("index_add", NUMBERS),
        _rows_reference(add=True),
        _rows_samples(unique=False),
        lower=Scattering(_rows_lower, add=True),
        vjp=_index_add_vjp,
        saves=("1",),
        arity=3,
        dtypes=NUMBERS,
        doc="base with rows of src added along `dim` at the places of `index` (any shape), in ascending order.",
    )
)
index_copy = define(
    Op(
        "index_copy",
        _rows_infer("index_copy", DTYPES),
        _rows_reference(add=False),
        _rows_samples(unique=True),
        lower=Scattering(_rows_lower, add=False),
        any_width=True,
        vjp=_index_copy_vjp,
        saves=("1",),
        arity=3,
        doc="base with rows of src written along `dim` at the places of `index` (any shape); the last write wins.",
    )
)
