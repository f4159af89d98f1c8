"""Functions that rearrange elements: views where PyTorch gives views, copies where it gives copies."""

from __future__ import annotations

import builtins
import math
from collections.abc import Iterable, Sequence
from operator import index as as_index
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DimError, ShapeError, UnsupportedError
from graphc.frontend import hot
from graphc.frontend.dispatch import concrete
from graphc.frontend.mode import mode
from graphc.frontend.numpy_names import numpy_names
from graphc.frontend.ops import ops
from graphc.frontend.promote import convert, promote_types, tensor_operand
from graphc.frontend.scalar import Scalar
from graphc.frontend.size import Size
from graphc.frontend.tensor import Tensor
from graphc.ir.infer import broadcast_shape, broadcast_types, normalize_dim
from graphc.ir.types import Dim, DType, Shape, exact_div
from graphc.ir.types import Size as AnySize

__all__ = [
    "broadcast_shapes", "broadcast_tensors", "broadcast_to", "cat", "chunk", "clone", "concat", "concatenate",
    "contiguous", "expand", "expand_as", "flatten", "moveaxis", "movedim", "narrow", "numel", "permute", "ravel",
    "reshape", "reshape_as", "select", "split", "split_with_sizes", "squeeze", "stack", "swapaxes", "swapdims", "t",
    "transpose", "unbind", "unflatten", "unsqueeze", "view", "view_as",
]  # fmt: skip

ShapeLike = Sequence[AnySize]


def sizes_of(name: str, sizes: tuple[Any, ...]) -> tuple[AnySize, ...]:
    """`(2, 3)` or `((2, 3),)` as a tuple of sizes. Raises ArgumentError for anything but ints and named sizes."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    return tuple(s if type(s) is int else size_of(name, s) for s in sizes)


def size_of(name: str, size: Any) -> AnySize:
    """One size. Raises ArgumentError unless it is an int (or has `__index__`) or a named size."""
    if isinstance(size, Dim):
        return size
    if isinstance(size, Scalar) and size.size is not None:
        return size.size  # type: ignore[no-any-return]
    if isinstance(size, builtins.bool) or not hasattr(size, "__index__"):
        raise ArgumentError(f"{name}: sizes must be ints, got {type(size).__name__} {size!r}")
    return as_index(size)


def _dim(name: str, x: Tensor, dim: int, extra: int = 0) -> int:
    return normalize_dim(name, dim, x._l.ndim + extra)


def axis_of(name: str, x: Tensor, dim: int) -> int:
    """An axis that must exist, counted from the front. Raises DimError, for a 0-d tensor too."""
    if not x._l.ndim:
        raise DimError(
            f"{name}: dimension {dim} is out of range: {x._l.type} has no dimensions; use unsqueeze(0) first"
        )
    return normalize_dim(name, dim, x._l.ndim)


def static_size(name: str, x: Tensor, dim: int) -> int:
    """The size along an axis as a number. Raises UnsupportedError where a recording knows it by name only."""
    size = x.ttype.shape[dim]
    if isinstance(size, Dim):
        recorder: Any = mode.get().recorder
        number: int | None = recorder.plain_size(size)
        if number is not None:
            return number
        raise UnsupportedError(
            f"{name}: the size of dim {dim} is the named size {size} of this recording, but a number is "
            "needed; trace without making this size dynamic"
        )
    return size


# ---------------------------------------------------------------- one element order, another shape


def _target_shape(name: str, x: Tensor, shape: tuple[AnySize, ...]) -> Shape:
    """`shape` with its -1 filled in. Raises ShapeError."""
    total = x.ttype.numel
    if -1 not in shape:
        if any(isinstance(s, int) and s < 0 for s in shape):
            raise ShapeError(f"{name}: invalid shape dimension in {list(shape)}; only one may be -1")
        return shape
    if shape.count(-1) > 1:
        raise ShapeError(
            f"{name}: only one dimension can be inferred, got shape {list(shape)} for {x._l.type}; give all but one as "
            "sizes"
        )
    known: AnySize = 1
    for s in shape:
        if s != -1:
            known = known * s
    if known == 0:
        raise ShapeError(
            f"{name}: cannot reshape {x._l.type} into {list(shape)}: the size of -1 could be any; write it out"
        )
    if isinstance(known, int) and isinstance(total, int) and total % known:
        raise ShapeError(
            f"{name}: shape {list(shape)} is invalid for input of size {total} ({x._l.type}); the product of the sizes "
            "must divide it"
        )
    return tuple(exact_div(total, known) if s == -1 else s for s in shape)


@hot.with_arguments
def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape: a view where the layout allows it, else a copy. One size may be -1.

    Raises ShapeError when the number of elements differs.
    """
    x = tensor_operand("reshape", input)
    made: Tensor = ops.reshape(x, shape=_target_shape("reshape", x, sizes_of("reshape", shape)))
    return made


@hot.with_arguments
def view(input: Tensor, *shape: Any) -> Tensor:
    """The same memory in another shape, or with elements of another dtype.

    Raises ShapeError when the layout does not allow it; use reshape() then.
    """
    x = tensor_operand("view", input)
    if len(shape) == 1 and isinstance(shape[0], DType):
        from graphc.frontend.reinterpret import view_dtype

        return view_dtype(x, shape[0])
    target = _target_shape("view", x, sizes_of("view", shape))
    if all(type(n) is int for n in target) and math.prod(target) != x._l.size:
        raise ShapeError(
            f"view: {x._l.type} has {x._l.size} elements, shape {list(target)} has {math.prod(target)}; the counts "
            "must be equal"
        )
    if not x._l.contiguous and not _viewable(x, target):
        raise ShapeError(
            f"view: view size {list(target)} is not compatible with input tensor's size and stride ({x._l}; at "
            "least one dimension "
            "spans across two contiguous subspaces); use .reshape(...) instead"
        )
    made: Tensor = ops.reshape(x, shape=target)
    return made


def _viewable(x: Tensor, target: Shape) -> builtins.bool:
    if x._l.size == 0:
        return True
    numbers = concrete({"shape": target})["shape"]
    if np.prod(numbers, dtype=object) != x._l.size:
        return True  # the op reports the count
    return np.may_share_memory(x._a.reshape(numbers), x._a)


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """reshape() to the shape of `other`."""
    return reshape(input, other.ttype.shape)


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """view() with the shape of `other`."""
    return view(input, other.ttype.shape)


@hot.with_arguments
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes start_dim to end_dim as one. Raises ShapeError when start_dim comes after end_dim."""
    x = tensor_operand("flatten", input)
    first, last = _dim("flatten", x, start_dim), _dim("flatten", x, end_dim)
    if first > last:
        raise ShapeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    if x._l.ndim and first == last:
        return x
    shape = x.ttype.shape
    merged: AnySize = 1
    for s in shape[first : last + 1]:
        merged = merged * s
    made: Tensor = ops.reshape(x, shape=(*shape[:first], merged, *shape[last + 1 :]))
    return made


def ravel(input: Tensor) -> Tensor:
    """All elements in one axis."""
    return reshape(input, -1) if input._l.size else reshape(input, 0)


def unflatten(input: Tensor, dim: int, sizes: ShapeLike) -> Tensor:
    """The axis `dim` as several; one of `sizes` may be -1. Raises ShapeError when they do not multiply to its size."""
    x = tensor_operand("unflatten", input)
    d, shape = axis_of("unflatten", x, dim), x.ttype.shape
    parts = sizes_of("unflatten", (tuple(sizes),))
    known: AnySize = 1
    for s in parts:
        if s != -1:
            known = known * s
    full = tuple(exact_div(shape[d], known) if s == -1 else s for s in parts)
    product: AnySize = 1
    for s in full:
        product = product * s
    if product != shape[d]:
        raise ShapeError(
            f"unflatten: sizes {list(parts)} do not multiply up to the size {shape[d]} of dim {dim} of {x._l.type}"
        )
    made: Tensor = ops.reshape(x, shape=(*shape[:d], *full, *shape[d + 1 :]))
    return made


@hot.with_arguments
def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Axes of size 1 taken out: all of them, or those of `dim` that have size 1."""
    x = tensor_operand("squeeze", input)
    shape = x.ttype.shape
    wanted = (
        range(len(shape)) if dim is None else [_dim("squeeze", x, d) for d in ([dim] if isinstance(dim, int) else dim)]
    )
    kept = tuple(s for d, s in enumerate(shape) if d not in wanted or s != 1)
    made: Tensor = ops.reshape(x, shape=kept)
    return made


@hot.with_arguments
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A new axis of size 1 before axis `dim` of the result."""
    x = tensor_operand("unsqueeze", input)
    d, shape = _dim("unsqueeze", x, dim, 1), x.ttype.shape
    made: Tensor = ops.reshape(x, shape=(*shape[:d], 1, *shape[d:]))
    return made


# ---------------------------------------------------------------- axes


@hot.with_arguments
def permute(input: Tensor, *dims: Any) -> Tensor:
    """A view with the axes in the order `dims`. Raises ShapeError or DimError unless every axis is named once."""
    x = tensor_operand("permute", input)
    given = sizes_of("permute", dims)
    if len(given) != x._l.ndim:
        raise ShapeError(
            f"permute: {x._l.type} has {x._l.ndim} dimensions, but the order {list(given)} names {len(given)}"
        )
    order = tuple(_dim("permute", x, d) for d in given)  # type: ignore[arg-type]
    if len({*order}) != len(order):
        raise DimError(
            f"permute: duplicate dims are not allowed, got {list(given)} for {x._l.type}; name each axis once"
        )
    made: Tensor = ops.permute(x, dims=order)
    return made


@hot.with_arguments
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """A view with two axes exchanged."""
    x = tensor_operand("transpose", input)
    a, b = _dim("transpose", x, dim0), _dim("transpose", x, dim1)
    order = list(range(x._l.ndim))
    if order:
        order[a], order[b] = order[b], order[a]
    made: Tensor = ops.permute(x, dims=tuple(order))
    return made


@hot.with_arguments
def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors and 0-d tensors as they are. Raises ShapeError beyond 2 dimensions."""
    x = tensor_operand("t", input)
    if x._l.ndim > 2:
        raise ShapeError(f"t: expects a tensor with <= 2 dimensions, but self is {x._l.type}; use mT or transpose()")
    return transpose(x, 0, 1) if x._l.ndim == 2 else permute(x, tuple(range(x._l.ndim)))


def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """A view with the axes `source` moved to the places `destination`."""
    x = tensor_operand("movedim", input)
    froms = [_dim("movedim", x, d) for d in ([source] if isinstance(source, int) else source)]
    tos = [_dim("movedim", x, d) for d in ([destination] if isinstance(destination, int) else destination)]
    if len(froms) != len(tos):
        raise ShapeError(f"movedim: {len(froms)} source dims and {len(tos)} destination dims; give equally many")
    places = dict(zip(tos, froms, strict=True))
    rest = iter(d for d in range(x._l.ndim) if d not in froms)
    return permute(x, tuple(places[k] if k in places else next(rest) for k in range(x._l.ndim)))


@hot.with_arguments
def expand(input: Tensor, *sizes: Any) -> Tensor:
    """A view with axes of size 1 repeated to `sizes`; -1 keeps a size. Raises ShapeError."""
    return expand_for("expand", input, *sizes)


def expand_for(name: str, input: Tensor, *sizes: Any) -> Tensor:
    """expand() inside of the function `name`, which its errors name."""
    x = tensor_operand(name, input)
    given, shape = sizes_of(name, sizes), x.ttype.shape
    lead = len(given) - len(shape)
    if lead < 0:
        raise ShapeError(
            f"{name}: the number of sizes {list(given)} must not be below the number of dimensions of {x._l.type}"
        )
    if -1 in given[:lead]:
        raise ShapeError(f"{name}: -1 is not allowed for a new leading dimension, got {list(given)}")
    target = tuple(shape[k - lead] if s == -1 else s for k, s in enumerate(given))
    for k, (s, old) in enumerate(zip(target[lead:], shape, strict=True)):
        if old != 1 and s != old:
            raise ShapeError(
                f"{name}: the expanded size {s} must match the existing size {old} at non-singleton dimension "
                f"{k + lead}; {x._l.type} to {list(given)}"
            )
    made: Tensor = ops.expand(x, shape=target)
    return made


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """expand() to the shape of `other`."""
    return expand(input, other.ttype.shape)


def broadcast_to(input: Tensor, size: ShapeLike) -> Tensor:
    """expand() under NumPy's name."""
    return expand(input, tuple(size))


def broadcast_shapes(*shapes: ShapeLike) -> Size:
    """The shape of a pointwise result. Raises ShapeError."""
    return Size(broadcast_shape("broadcast_shapes", *(sizes_of("broadcast_shapes", (tuple(s),)) for s in shapes)))


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Views of all tensors in their common shape."""
    given = [tensor_operand("broadcast_tensors", x) for x in tensors]
    shape = broadcast_types("broadcast_tensors", *(x.ttype for x in given))
    return tuple(expand(x, shape) for x in given)


# ---------------------------------------------------------------- parts


@hot.with_arguments
def narrow(input: Tensor, dim: int, start: AnySize, length: AnySize) -> Tensor:
    """The view of `length` elements from `start` along `dim`. Raises DimError, ShapeError out of range."""
    x = tensor_operand("narrow", input)
    d = axis_of("narrow", x, dim)
    size, first, count = x.ttype.shape[d], size_of("narrow", start), size_of("narrow", length)
    if isinstance(size, int) and isinstance(first, int) and not -size <= first <= size:
        raise DimError(f"narrow: start {first} is out of range for size {size}; use {-size} to {size}")
    begin = size + first if isinstance(first, int) and first < 0 else first
    end = begin + count
    if (isinstance(count, int) and count < 0) or (isinstance(end, int) and isinstance(size, int) and end > size):
        raise ShapeError(
            f"narrow: start ({begin}) + length ({count}) exceeds dimension size ({size}) or length is negative"
        )
    made: Tensor = ops.slice(x, dim=d, start=begin, stop=end, step=1)
    return made


@hot.with_arguments
def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The view at `index` along `dim`, without that axis. Raises DimError out of range."""
    x = tensor_operand("select", input)
    d = axis_of("select", x, dim)
    size, k = x._l.shape[d], as_index(index)
    if not -size <= k < size:
        raise DimError(f"select: index {k} out of range for tensor of size {list(x._l.shape)} at dimension {d}")
    made: Tensor = ops.select(x, dim=d, index=k if k >= 0 else x.ttype.shape[d] + k)
    return made


@numpy_names
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The views at each index along `dim`."""
    x = tensor_operand("unbind", input)
    d = axis_of("unbind", x, dim)
    return _many("unbind", (ops.select(x, dim=d, index=k) for k in range(static_size("unbind", x, d))))


def _many(name: str, parts: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Views that one function returned together."""
    found = tuple(parts)
    for part in found:
        part._many = name
    return found


@numpy_names
def split(input: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of parts along `dim`: of one size (the last may be smaller) or of the sizes listed. Raises ShapeError."""
    x = tensor_operand("split", input)
    if isinstance(split_size_or_sections, (list, tuple)):
        return split_with_sizes(x, split_size_or_sections, dim)
    d, step = axis_of("split", x, dim), as_index(split_size_or_sections)  # type: ignore[arg-type]
    size = static_size("split", x, d)
    if step < 0 or (step == 0 and size):
        raise ShapeError(f"split: expects split_size be positive, got {step}")
    if not size:
        return _many("split", [narrow(x, d, 0, 0)])
    return _many("split", (narrow(x, d, k, min(step, size - k)) for k in range(0, size, step)))


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of parts of the given sizes along `dim`. Raises ShapeError unless they add up to its size."""
    x = tensor_operand("split_with_sizes", input)
    d = axis_of("split_with_sizes", x, dim)
    sizes = [as_index(s) for s in split_sizes]
    if sum(sizes) != static_size("split_with_sizes", x, d) or any(s < 0 for s in sizes):
        raise ShapeError(
            f"split_with_sizes: sizes {sizes} must be >= 0 and sum exactly to {x._l.shape[d]} (size of dim {d} "
            f"of {x._l.type})"
        )
    return _many("split_with_sizes", (narrow(x, d, sum(sizes[:k]), s) for k, s in enumerate(sizes)))


@numpy_names
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` views of equal size (the last may be smaller) along `dim`.

    Raises ShapeError unless chunks > 0.
    """
    x = tensor_operand("chunk", input)
    count = as_index(chunks)
    if count <= 0:
        raise ShapeError(f"chunk: expects chunks to be greater than 0, got {count}")
    size = static_size("chunk", x, axis_of("chunk", x, dim))
    return split(x, max(-(-size // count), 1), dim) if size else tuple(narrow(x, dim, 0, 0) for _ in range(count))


# ---------------------------------------------------------------- joins and copies


def _all_tensors(name: str, tensors: Iterable[Tensor]) -> list[Tensor]:
    if isinstance(tensors, Tensor):
        raise ArgumentError(f"{name}: expects a list or tuple of Tensors, got one Tensor")
    given = [tensor_operand(name, x) for x in tensors]
    if not given:
        raise ArgumentError(f"{name}: expects a non-empty list of Tensors")
    dtype = given[0].dtype
    for x in given:
        dtype = promote_types(dtype, x.dtype)
    return [convert(x, dtype) for x in given]


@hot.joined
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along an existing axis. Raises ShapeError unless the other sizes agree."""
    given = _all_tensors("cat", tensors)
    given = [x for x in given if x._l.shape != (0,)] or given[
        :1
    ]  # as PyTorch: a 1-d tensor without elements fits anywhere
    if not given[0]._l.ndim:
        raise ShapeError("cat: zero-dimensional tensors cannot be concatenated; use stack()")
    made: Tensor = ops.cat(*given, dim=_dim("cat", given[0], dim))
    return made


@numpy_names
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis. Raises ShapeError."""
    given = _all_tensors("stack", tensors)
    for k, x in enumerate(given):
        if x.ttype.shape != given[0].ttype.shape:
            raise ShapeError(
                f"stack: expects each tensor to be equal size, but got {given[0]._l.type} at entry 0 and "
                f"{x._l.type} at entry {k}"
            )
    d = _dim("stack", given[0], dim, 1)
    made: Tensor = ops.cat(*(unsqueeze(x, d) for x in given), dim=d)
    return made


def clone(input: Tensor) -> Tensor:
    """A copy of the elements in new memory, with gradients."""
    made: Tensor = ops.clone(tensor_operand("clone", input))
    return made


def contiguous(input: Tensor) -> Tensor:
    """`input` itself when its memory is row-major, else a copy that is."""
    return input if input._l.contiguous else clone(input)


def numel(input: Tensor) -> int:
    """Number of elements."""
    return tensor_operand("numel", input)._l.size


concat = concatenate = cat
moveaxis = movedim
swapaxes = swapdims = transpose
