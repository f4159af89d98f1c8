"""Functions that read and write at places given by integer tensors.

Places out of range raise IndexingError in eager execution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, IndexingError, ShapeError
from graphc.frontend.functional_shape import axis_of, expand
from graphc.frontend.mode import mode, refuse_values
from graphc.frontend.numpy_names import numpy_names
from graphc.frontend.ops import ops
from graphc.frontend.promote import Number, Operand, can_cast, check_fits, convert, lift, result_type, tensor_operand
from graphc.frontend.tensor import Tensor
from graphc.ir.infer import broadcast_shape, normalize_dim
from graphc.ir.op import Op
from graphc.ir.types import Dim, Size, int32, int64

__all__ = [
    "gather", "index_add", "index_copy", "index_fill", "index_select", "scatter", "scatter_add", "take_along_dim",
]  # fmt: skip


def check_range(name: str, index: Tensor, bound: Size, dim: int, low: int | None = None) -> Tensor:
    """`index` if all of it lies in [low, bound).

    Raises DTypeError unless it is int64, IndexingError naming the first bad value.
    """
    if index.dtype is not int64:
        raise DTypeError(f"{name}: expected an int64 index, got {index._l.type}; convert it with .long()")
    recorder: Any = mode.get().recorder
    size: int = recorder.bind_size(bound) if isinstance(bound, Dim) else bound
    least = -size if low is None else low
    places = index._a
    if places.size and (int(np.min(places)) < least or int(np.max(places)) >= size):
        bad = places[(places < least) | (places >= size)].flat[0]
        refuse_values(index)
        raise IndexingError(
            f"{name}: index {bad} is out of bounds for dimension {dim} with size {size}; use {least} to {size - 1}"
        )
    if recorder is not None and places.size:
        recorder.on_range(index, low, bound)
    return index


def _placed(name: str, input: Tensor, dim: int, index: Tensor, low: int | None = 0) -> tuple[Tensor, int, Tensor]:
    x, places = tensor_operand(name, input), tensor_operand(name, index)
    d = normalize_dim(name, dim, x._l.ndim)
    if places.dtype is int32:
        places = convert(places, int64)
    return x, d, check_range(name, places, x.ttype.shape[d] if x._l.ndim else 1, d, low)


@numpy_names
def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """out[i, j] = input[i, index[i, j]] for dim 1, and so on. Raises IndexingError, ShapeError."""
    x, d, places = _placed("gather", input, dim, index)
    if not x._l.ndim:
        return ops.reshape(ops.clone(x), shape=places.ttype.shape)  # type: ignore[no-any-return]
    made: Tensor = ops.gather(x, places, dim=d)
    return made


@numpy_names
def take_along_dim(input: Tensor, indices: Tensor, dim: int) -> Tensor:
    """gather() with the other axes broadcast. Raises IndexingError, ShapeError."""
    x = tensor_operand("take_along_dim", input)
    d = axis_of("take_along_dim", x, dim)
    if indices._l.ndim != x._l.ndim:
        raise ShapeError(
            f"take_along_dim: input {x._l.type} and indices {indices._l.type} should have the same number of dimensions"
        )
    spread = [tuple(1 if k == d else n for k, n in enumerate(t.ttype.shape)) for t in (x, indices)]
    shape = broadcast_shape("take_along_dim", *spread)
    wide, narrow = ((*shape[:d], t.ttype.shape[d], *shape[d + 1 :]) for t in (x, indices))
    return gather(expand(x, wide), d, expand(indices, narrow))


@numpy_names
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices of `input` at the places of a 1-d `index` along `dim`. Raises IndexingError, ShapeError."""
    x, d, places = _placed("index_select", input, dim, index)
    if places._l.ndim > 1:
        raise ShapeError(f"index_select: index is supposed to be a vector, got {places._l.type}")
    if not places._l.ndim:
        places = ops.reshape(places, shape=(1,))
    made: Tensor = ops.index_select(x, places, dim=d)
    return made


def _source(name: str, x: Tensor, index: Tensor, src: Operand) -> Tensor:
    if not isinstance(src, Tensor):
        spread: Tensor = expand(lift(src, x.dtype), index.ttype.shape)
        return spread
    if src.dtype is not x.dtype:
        raise DTypeError(
            f"{name}: expected self.dtype to be equal to src.dtype, got {x._l.type} and {src._l.type}; convert "
            "one of them"
        )
    sizes = index._l.shape
    if src._l.ndim != index._l.ndim or any(a > b for a, b in zip(sizes, src._l.shape, strict=True)):
        raise ShapeError(f"{name}: index {index._l.type} must have the rank of src {src._l.type} and fit into it")
    fitted: Tensor = src
    for d, (a, b) in enumerate(zip(sizes, src._l.shape, strict=True)):
        if a < b:
            fitted = ops.slice(fitted, dim=d, start=0, stop=index.ttype.shape[d], step=1)
    return fitted


def scatter(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Operand | None = None,
    *,
    value: Number | None = None,
    reduce: str | None = None,
) -> Tensor:
    """`input` with src[i, j] written at [i, index[i, j]] for dim 1, and so on; of several writes to a place the last
    wins.

    reduce="add" adds instead. Raises IndexingError, ShapeError, DTypeError, ArgumentError.
    """
    x, d, places = _placed("scatter", input, dim, index)
    given = src if value is None else value
    if given is None or (src is not None and value is not None):
        raise ArgumentError("scatter: give src or value")
    if reduce not in (None, "add"):
        raise ArgumentError(f"scatter: reduce must be None or 'add', got {reduce!r}")
    return _scattered(ops.scatter if reduce is None else ops.scatter_add, x, d, places, given)


def _scattered(op: Op, x: Tensor, d: int, places: Tensor, given: Operand) -> Tensor:
    source = _source(op.name, x, places, given)
    if x._l.ndim:
        made: Tensor = op(x, places, source, dim=d)
        return made
    made = op(*(ops.reshape(t, shape=(1,)) for t in (x, places, source)), dim=0)
    return ops.reshape(made, shape=())  # type: ignore[no-any-return]


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """`input` with src[i, j] added at [i, index[i, j]] for dim 1, and so on, in ascending order of j."""
    x, d, places = _placed("scatter_add", input, dim, index)
    return _scattered(ops.scatter_add, x, d, places, src)


def _rows(name: str, input: Tensor, dim: int, index: Tensor, source: Tensor) -> tuple[Tensor, int, Tensor, Tensor]:
    x, d, places = _placed(name, input, dim, index)
    src = tensor_operand(name, source)
    if places._l.ndim != 1:
        raise ShapeError(f"{name}: index is supposed to be a vector, got {places._l.type}")
    if src.dtype is not x.dtype:
        raise DTypeError(
            f"{name}: self {x._l.type} and source {src._l.type} must have the same dtype; convert one of them"
        )
    return x, d, places, src


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Number = 1) -> Tensor:
    """`input` with the slices of alpha * source added at the places of `index` along `dim`, in ascending order."""
    x, d, places, src = _rows("index_add", input, dim, index, source)
    if alpha != 1:
        src = ops.mul(src, alpha)
    made: Tensor = ops.index_add(x, places, src, dim=d)
    return made


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """`input` with its slices at the places of `index` along `dim` replaced by those of `source`; the last write
    wins.
    """
    x, d, places, src = _rows("index_copy", input, dim, index, source)
    made: Tensor = ops.index_copy(x, places, src, dim=d)
    return made


def index_fill(input: Tensor, dim: int, index: Tensor, value: Operand) -> Tensor:
    """`input` with its slices at the places of `index` along `dim` set to a number; negative places count from
    the end.
    """
    x, d, places = _placed("index_fill", input, dim, index, None)
    if not can_cast(result_type(value), x.dtype):
        raise DTypeError(f"index_fill: value {value} does not fit the dtype of {x._l.type}; convert one of them")
    check_fits("index_fill", value, x.dtype)
    shape: Sequence[Any] = (*x.ttype.shape[:d], *places.ttype.shape, *x.ttype.shape[d + 1 :])
    made: Tensor = ops.index_copy(x, places, expand(lift(value, x.dtype), tuple(shape)), dim=d)
    return made
