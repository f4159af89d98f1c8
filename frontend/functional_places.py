"""Elements taken from, or put at, computed places: flat positions, masks in order, diagonals, sliding windows."""

from __future__ import annotations

from operator import index as as_index
from typing import Any

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.frontend import functional_math as fm
from graphc.frontend import functional_shape as fs
from graphc.frontend.creation import arange, zeros
from graphc.frontend.functional_index import check_range
from graphc.frontend.functional_reduce import sum as sum_
from graphc.frontend.functional_scan import cumsum
from graphc.frontend.mode import mode, refuse_values
from graphc.frontend.ops import ops
from graphc.frontend.promote import convert, tensor_operand
from graphc.frontend.tensor import Tensor
from graphc.ir.infer import broadcast_shape, normalize_dim
from graphc.ir.types import bool_, int64

__all__ = ["argwhere", "diag_embed", "diagonal", "diagonal_scatter", "masked_scatter", "take"]


def argwhere(input: Tensor) -> Tensor:
    """nonzero(): the places of the elements that are not zero, one row each."""
    from graphc.frontend.indexing import nonzero

    found: Tensor = nonzero(input)
    return found


def _flat_places(name: str, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """`x` in a row, and `index` in a row, checked."""
    places = check_range(name, tensor_operand(name, index), x._l.size, 0)
    return fs.reshape(x, (x.ttype.numel,)), fs.reshape(places, (places.ttype.numel,))


def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements at positions of the flattened input, in the shape of `index`. Raises IndexingError, DTypeError."""
    x = tensor_operand("take", input)
    flat, places = _flat_places("take", x, index)
    made: Tensor = ops.reshape(ops.index_select(flat, places, dim=0), shape=index.ttype.shape)
    return made


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """`input` with the elements of `source` written (or added) at positions of the flattened input.

    Raises IndexingError, DTypeError, ShapeError.
    """
    x, src = tensor_operand("put", input), tensor_operand("put", source)
    if src.dtype is not x.dtype:
        raise DTypeError(f"put: expected self {x._l.type} and source {src._l.type} of one dtype; convert one of them")
    if src._l.size != index._l.size:
        raise ShapeError(f"put: source {src._l.type} and index {index._l.type} must have the same number of elements")
    flat, places = _flat_places("put", x, index)
    write = ops.index_add if accumulate else ops.index_copy
    made: Tensor = ops.reshape(write(flat, places, fs.reshape(src, places.ttype.shape), dim=0), shape=x.ttype.shape)
    return made


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """`input` with its elements where the mask holds replaced by those of `source` in order.

    Raises DTypeError for a mask that is not bool or another dtype, ShapeError when `source` has too few elements (a
    recording holds on to whether it has).
    """
    x, m, src = (tensor_operand("masked_scatter", t) for t in (input, mask, source))
    if m.dtype is not bool_:
        raise DTypeError(f"masked_scatter: only supports boolean masks, got {m._l.type}")
    if src.dtype is not x.dtype:
        raise DTypeError(f"masked_scatter: expected self and source of one dtype, got {x._l.type} and {src._l.type}")
    shape = broadcast_shape("masked_scatter", x.ttype.shape, m.ttype.shape)
    x, m = fs.expand(x, shape), fs.expand(m, shape)
    picked = fs.reshape(m, (m.ttype.numel,))
    count = int(m._a.sum())
    enough = fm.le(sum_(picked), src._l.size)
    if count > src._l.size:
        refuse_values(m)
        raise ShapeError(f"masked_scatter: the mask holds at {count} elements, but source {src._l.type} has fewer")
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_bool(enough, True)
    if not src._l.size:
        return fs.clone(x)
    order = fm.sub(cumsum(convert(picked, int64), 0), 1)
    values = ops.index_select(fs.reshape(src, (src.ttype.numel,)), ops.clamp(order, min=0, max=src._l.size - 1), dim=0)
    return fm.where(m, ops.reshape(values, shape=shape), x)


# ---------------------------------------------------------------- diagonals


def _diagonal_of(name: str, x: Tensor, offset: int, dim1: int, dim2: int) -> dict[str, Any]:
    """The attributes of a diagonal view. Raises DimError, ArgumentError."""
    a, b = fs.axis_of(name, x, dim1), fs.axis_of(name, x, dim2)
    if a == b:
        raise ArgumentError(f"{name}: dimensions cannot be identical, got {dim1} and {dim2}")
    fs.static_size(name, x, a)
    fs.static_size(name, x, b)
    return {"dims": (a, b), "offset": as_index(offset)}


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The view of a diagonal of two axes, as the last axis; `offset` above 0 lies to the right. Raises DimError."""
    x = tensor_operand("diagonal", input)
    made: Tensor = ops.diagonal(x, **_diagonal_of("diagonal", x, offset, dim1, dim2))
    return made


def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy of `input` with a diagonal replaced by `src`, of its dtype. Raises DimError, ShapeError, DTypeError."""
    x, value = tensor_operand("diagonal_scatter", input), tensor_operand("diagonal_scatter", src)
    made: Tensor = ops.diagonal_scatter(x, value, **_diagonal_of("diagonal_scatter", x, offset, dim1, dim2))
    return made


def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix; a method alone, `graphc.trace` records a function.

    Raises ShapeError unless there are two dimensions.
    """
    x = tensor_operand("trace", input)
    if x._l.ndim != 2:
        raise ShapeError(f"trace: expected a matrix, but got {x._l.type}")
    return sum_(diagonal(x))


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices whose diagonals are the last axis of `input`, 0 elsewhere, in the axes dim1 and dim2 of the result."""
    x = tensor_operand("diag_embed", input)
    size = fs.static_size("diag_embed", x, fs.axis_of("diag_embed", x, -1))
    k, n = as_index(offset), size + abs(as_index(offset))
    a, b = (normalize_dim("diag_embed", d, x._l.ndim + 1) for d in (dim1, dim2))
    if a == b:
        raise ArgumentError(f"diag_embed: dimensions cannot be identical, got {dim1} and {dim2}")
    lead = x.ttype.shape[:-1]
    step = arange(size)
    blank = zeros(*lead, n, n, dtype=x.dtype)
    made = ops.index_put(blank, x, fm.add(step, max(-k, 0)), fm.add(step, max(k, 0)), dim=len(lead), accumulate=False)
    return fs.movedim(made, (-2, -1), (a, b))


def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All windows of `size` elements along an axis, `step` apart, their elements as a new last axis.

    A view; where windows overlap it cannot be written. Raises DimError, ShapeError, ArgumentError.
    """
    x = self if self._l.ndim else fs.reshape(self, 1)
    d, width, gap = normalize_dim("unfold", dimension, x._l.ndim), as_index(size), as_index(step)
    total = fs.static_size("unfold", x, d)
    if not 0 <= width <= total:
        raise ShapeError(f"unfold: maximum size for tensor at dimension {d} is {total} but size is {width}")
    if gap <= 0:
        raise ArgumentError(f"unfold: step is {gap} but must be > 0")
    if not width:  # no element, so nothing to view
        counted = fs.narrow(x, d, 0, 0).unsqueeze(-1)
        return fs.expand(counted.transpose(d, -1), *x._l.shape[:d], total // gap + 1, *x._l.shape[d + 1 :], 0)
    made: Tensor = ops.windows(x, dims=(d,), size=(width,), stride=(gap,), dilation=(1,))
    return made
