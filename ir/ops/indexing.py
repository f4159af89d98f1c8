"""Indexing with several integer tensors, x[i, j], and masks: compositions on rows of a flattened tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DimError, ShapeError
from graphc.ir.convert import number_array
from graphc.ir.infer import broadcast_shape, broadcast_types, require_dtype, same_dtype
from graphc.ir.op import Array, Op, Operand, Sample, define
from graphc.ir.ops import create, movement
from graphc.ir.ops import pointwise as pw
from graphc.ir.ops.elementwise import NUMBERS, unbroadcast
from graphc.ir.ops.index import index_add, index_copy, index_select, wrapped_array
from graphc.ir.ops.reduce import fill
from graphc.ir.ops.statistics import number
from graphc.ir.types import DTYPES, Shape, Size, TensorType, bool_, dtype_of, int64

Needs = Sequence[bool]


def _indexed_shape(name: str, x: TensorType, indices: Sequence[TensorType], dim: int) -> Shape:
    """The shape of x[:, …, i, j, …] where the indices stand for axes `dim` on."""
    if not indices:
        raise ArgumentError(f"{name}: at least one index is needed")
    for k, i in enumerate(indices):
        require_dtype(name, i, (int64,), k + 1)
    if dim < 0 or dim + len(indices) > x.ndim:
        raise DimError(f"{name}: {len(indices)} indices from dim {dim} on are too many for {x}")
    shape = broadcast_shape(name, *(i.shape for i in indices))
    for d in range(dim, dim + len(indices)):
        if x.shape[d] == 0 and 0 not in shape:
            raise ShapeError(f"{name}: dim {d} of {x} has no element to index")
    return (*x.shape[:dim], *shape, *x.shape[dim + len(indices) :])


def _merged(shape: Shape, dim: int, count: int) -> Shape:
    """`shape` with the axes dim … dim+count-1 made into one."""
    total: Size = 1
    for n in shape[dim : dim + count]:
        total = total * n
    return (*shape[:dim], total, *shape[dim + count :])


def _row_numbers(indices: Sequence[Any], sizes: Shape) -> Any:
    """Indices of several axes as one index of the merged axis, each wrapped and clamped first."""
    flat: Any = None
    for index, size in zip(indices, sizes, strict=True):
        n = number(size, int64)
        from_start = pw.where(pw.lt(index, 0), pw.add(index, n), index)
        last = size - 1 if isinstance(size, int) else pw.sub(n, 1)
        place = pw.maximum(pw.minimum(from_start, last), 0)
        flat = place if flat is None else pw.add(pw.mul(flat, n), place)
    return flat


def _flat_array(indices: Sequence[Array], sizes: Sequence[int]) -> tuple[Array, ...]:
    return tuple(wrapped_array(i, n) for i, n in zip(indices, sizes, strict=True))


def _index_infer(x: TensorType, *indices: TensorType, dim: int) -> TensorType:
    return x.with_shape(_indexed_shape("index", x, indices, dim))


def _index_decompose(x: Any, *indices: Any, dim: int) -> Any:
    count = len(indices)
    if count == 1:
        return index_select(x, indices[0], dim=dim)
    rows = _row_numbers(indices, x.ttype.shape[dim : dim + count])
    return index_select(movement.reshape(x, shape=_merged(x.ttype.shape, dim, count)), rows, dim=dim)


def _index_reference(x: Array, *indices: Array, dim: int) -> Array:
    places = _flat_array(indices, x.shape[dim : dim + len(indices)])
    place: tuple[Any, ...] = (*(slice(None),) * dim, *places)
    return np.array(x[place])


def _index_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dim, places in (
        ((5, 3), 0, ((4,),)),
        ((5, 3), 0, ((4,), (4,))),
        ((5, 3, 2), 0, ((2, 1), (3,))),
        ((2, 5, 3), 1, ((), (3,))),
        ((2, 5, 0), 0, ((3,), (3,))),
        ((0, 3), 0, ((0,), (1,))),
    ):
        indices = [np.asarray(rng.integers(-shape[dim + k], max(shape[dim + k], 1), p)) for k, p in enumerate(places)]
        yield Sample(
            (np.asarray(rng.standard_normal(shape)), *indices), {"dim": dim}, f"{shape} from {dim} by {places}"
        )


index = define(
    Op(
        "index",
        _index_infer,
        _index_reference,
        _index_samples,
        decompose=_index_decompose,
        arity=None,
        any_width=True,
        doc="x[:, …, i, j]: integer indices, broadcast together, for the adjacent axes from `dim` on.",
    )
)


def _put_infer(base: TensorType, value: TensorType, *indices: TensorType, dim: int, accumulate: bool) -> TensorType:
    same_dtype("index_put", base, value)
    want = base.with_shape(_indexed_shape("index_put", base, indices, dim))
    if value is not want:
        raise ShapeError(
            f"index_put: the value is {value}, but base {base} and the indices need {want}; expand it first"
        )
    require_dtype("index_put", base, NUMBERS if accumulate else DTYPES)
    return base


def _put_decompose(base: Any, value: Any, *indices: Any, dim: int, accumulate: bool) -> Any:
    count, write = len(indices), index_add if accumulate else index_copy
    if count == 1:
        return write(base, indices[0], value, dim=dim)
    shape = base.ttype.shape
    rows = _row_numbers(indices, shape[dim : dim + count])
    flat = write(movement.reshape(base, shape=_merged(shape, dim, count)), rows, value, dim=dim)
    return movement.reshape(flat, shape=shape)


def _put_reference(base: Array, value: Array, *indices: Array, dim: int, accumulate: bool) -> Array:
    out = base.copy()
    places = np.broadcast_arrays(*_flat_array(indices, base.shape[dim : dim + len(indices)]))
    values = np.moveaxis(value, range(dim, dim + places[0].ndim), range(places[0].ndim))
    for k in np.ndindex(places[0].shape):
        at: tuple[Any, ...] = (*(slice(None),) * dim, *(int(p[k]) for p in places))
        out[at] = out[at] + values[k] if accumulate else values[k]
    return out


def _put_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for accumulate in (False, True):
        for sample in _index_samples(rng):
            base, *indices = sample.inputs
            value = np.asarray(rng.standard_normal(_index_reference(base, *indices, **sample.attrs).shape))
            attrs = {**sample.attrs, "accumulate": accumulate}
            yield Sample((base, value, *indices), attrs, sample.name)
    once = (np.array([[0], [2]]), np.array([1, 0, -1]))
    base, value = np.asarray(rng.standard_normal((3, 3))), np.asarray(rng.standard_normal((2, 3)))
    yield Sample((base, value, *once), {"dim": 0, "accumulate": False}, "each place once")


index_put = define(
    Op(
        "index_put",
        _put_infer,
        _put_reference,
        _put_samples,
        decompose=_put_decompose,
        arity=None,
        dtypes=NUMBERS,
        doc="base[:, …, i, j] = value, or += value in ascending order when `accumulate`; the value has the full shape.",
    )
)


def _masked_infer(x: TensorType, mask: TensorType, *, value: bool | int | float) -> TensorType:
    require_dtype("masked_fill", mask, (bool_,), 1)
    return x.with_shape(broadcast_types("masked_fill", x, mask))


def _masked_vjp(
    g: Any, out: Operand, x: Operand, mask: Any, *, needs: Needs, value: bool | int | float
) -> tuple[Any, None]:
    return unbroadcast(fill(g, mask, 0), x.ttype), None


def _masked_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, places in (((), ()), ((3, 4), (3, 4)), ((3, 4), (4,)), ((2, 1), (3,)), ((0, 2), (2,))):
        mask = np.asarray(rng.random(places) < 0.5)
        yield Sample((np.asarray(rng.standard_normal(shape)), mask), {"value": 2}, f"{shape} by {places}")


masked_fill = define(
    Op(
        "masked_fill",
        _masked_infer,
        lambda x, mask, *, value: np.asarray(np.where(mask, number_array(value, dtype_of(x.dtype)), x)),
        _masked_samples,
        decompose=lambda x, mask, *, value: fill(x, mask, value),
        vjp=_masked_vjp,
        saves=("1",),
        arity=2,
        any_width=True,
        doc="x with `value` where the mask holds.",
    )
)


def _embedding_infer(weight: TensorType, index: TensorType, *, padding_idx: int | None) -> TensorType:
    require_dtype("embedding", index, (int64,), 1)
    if weight.ndim != 2 or weight.shape[0] == 0:
        raise ShapeError(f"embedding: the weight is {weight}, but it must be a matrix of at least one row")
    return weight.with_shape((*index.shape, weight.shape[1]))


def _embedding_vjp(
    g: Any, out: Operand, weight: Operand, index: Any, *, needs: Needs, padding_idx: int | None
) -> tuple[Any, None]:
    if padding_idx is not None:
        padding = pw.eq(index, padding_idx)
        g = fill(g, movement.reshape(padding, shape=(*padding.ttype.shape, 1)), 0)
    return index_add(create.zeros_like(weight), index, g, dim=0), None


def _embedding_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for rows, width, places in ((5, 3, (4,)), (5, 3, (2, 3)), (4, 2, ()), (3, 2, (0,))):
        index = np.asarray(rng.integers(0, rows, places))
        yield Sample(
            (np.asarray(rng.standard_normal((rows, width))), index), {"padding_idx": None}, f"{rows} by {places}"
        )


embedding = define(
    Op(
        "embedding",
        _embedding_infer,
        lambda weight, index, *, padding_idx: weight[wrapped_array(index, len(weight))],
        _embedding_samples,
        decompose=lambda weight, index, *, padding_idx: index_select(weight, index, dim=0),
        vjp=_embedding_vjp,
        saves=("1",),
        arity=2,
        any_width=True,
        doc="Rows of the weight; the row `padding_idx` gets no gradient.",
    )
)
