"""Shared helpers of type inference: broadcasting, dtype checks, axis normalisation, with the typed errors of all ops.

Every message starts with the name of the op, names the operand and the types involved and says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index as as_index

from graphc.errors import ArgumentError, DimError, DTypeError, ShapeError
from graphc.ir.types import DType, Shape, Size, TensorType


def broadcast_shape(op: str, *shapes: Shape, types: Sequence[TensorType] = ()) -> Shape:
    """NumPy broadcasting; a named size meets itself or 1 only. Raises ShapeError, naming the `types` if given."""
    rank = max((len(s) for s in shapes), default=0)
    out: list[Size] = [1] * rank
    for number, shape in enumerate(shapes):
        for axis, size in enumerate(shape, rank - len(shape)):
            if out[axis] == 1:
                out[axis] = size
            elif size != 1 and size != out[axis]:
                so_far = "operand 0" if number == 1 else f"operands 0 to {number - 1}"
                operands = f" of {', '.join(map(str, types))}" if types else ""
                raise ShapeError(
                    f"{op}: operand {number} of shape {_show(shape)} does not broadcast with the shape "
                    f"{_show(broadcast_shape(op, *shapes[:number]))} of {so_far} (sizes {size} and {out[axis]} at axis "
                    f"{axis - rank}{operands}); make the sizes equal or one of them 1"
                )
    return tuple(out)


def broadcast_type(op: str, *types: TensorType) -> TensorType:
    """The type of a pointwise result: operands of one dtype, shapes broadcast. Raises DTypeError, ShapeError."""
    dtype = same_dtype(op, *types)
    return TensorType(dtype, broadcast_types(op, *types))


def broadcast_types(op: str, *types: TensorType) -> Shape:
    """The shape that operands of any dtypes broadcast to. Raises ShapeError naming them."""
    return broadcast_shape(op, *(t.shape for t in types), types=types)


def same_dtype(op: str, *types: TensorType) -> DType:
    """The one dtype of all operands. Raises DTypeError."""
    first = types[0]
    for number, t in enumerate(types):
        if t.dtype is not first.dtype:
            raise DTypeError(
                f"{op}: operand {number} is {t} but operand 0 is {first}; convert one of them so that the dtypes agree"
            )
    return first.dtype


def require_dtype(op: str, type: TensorType, allowed: Sequence[DType], operand: int = 0) -> None:
    """Check the dtype of one operand. Raises DTypeError."""
    if type.dtype not in allowed:
        names = ", ".join(t.name for t in allowed)
        raise DTypeError(f"{op}: operand {operand} is {type}, but {op} takes {names}; convert it first")


def require_arity(op: str, types: Sequence[TensorType], count: int) -> None:
    """Check the number of operands. Raises ArgumentError."""
    if len(types) != count:
        raise ArgumentError(f"{op}: takes {count} operands, got {len(types)}")


def normalize_dim(op: str, dim: int, ndim: int) -> int:
    """`dim` counted from the front; a 0-d operand accepts 0 and -1. Raises DimError."""
    try:
        number = as_index(dim)
    except TypeError:
        raise ArgumentError(f"{op}: dim must be an int, got {type(dim).__name__} {dim!r}") from None
    reach = max(ndim, 1)
    if not -reach <= number < reach:
        raise DimError(f"{op}: dim {number} is out of range for {ndim} dimensions; use {-reach} to {reach - 1}")
    return number % reach


def normalize_dims(op: str, dims: int | Iterable[int] | None, ndim: int) -> tuple[int, ...]:
    """Sorted, non-negative axes; None means all. Raises DimError for one out of range or given twice."""
    if dims is None:
        return tuple(range(ndim))
    given = (dims,) if isinstance(dims, int) else tuple(dims)
    found = [normalize_dim(op, d, ndim) for d in given]
    for position, d in enumerate(found):
        if d in found[:position]:
            raise DimError(f"{op}: dim {d} is given twice in {list(given)}; name each axis once")
    return tuple(sorted(found)) if ndim else ()


def reduced_shape(shape: Shape, dims: Sequence[int], keepdim: bool) -> Shape:
    """`shape` with the axes `dims` (non-negative) reduced to 1 or taken out."""
    if keepdim:
        return tuple(1 if axis in dims else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in dims)


def _show(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"
