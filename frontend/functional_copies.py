"""Functions that give rearranged or repeated copies."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from operator import index as as_index
from typing import Any

from graphc.errors import ArgumentError, DimError, ShapeError
from graphc.frontend.dispatch import nullary, scalar_tensor
from graphc.frontend.functional_shape import (
    _dim,
    axis_of,
    broadcast_tensors,
    cat,
    clone,
    narrow,
    ravel,
    reshape,
    sizes_of,
    static_size,
    unsqueeze,
)
from graphc.frontend.given import whole
from graphc.frontend.ops import ops
from graphc.frontend.promote import fitting, tensor_operand
from graphc.frontend.tensor import Tensor
from graphc.ir.types import Size, int64

__all__ = [
    "atleast_1d", "atleast_2d", "flip", "fliplr", "flipud", "hstack", "meshgrid", "pad", "repeat", "repeat_interleave",
    "roll", "tile", "tril", "triu", "vstack",
]  # fmt: skip


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinate grids of 1-d (or 0-d) tensors. `indexing`: "ij" or "xy" (the first two axes exchanged)."""
    given = list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else list(tensors)
    if indexing not in ("ij", "xy"):
        raise ArgumentError(f"meshgrid: indexing must be 'xy' or 'ij', got {indexing!r}")
    for k, x in enumerate(given):
        if tensor_operand("meshgrid", x)._l.ndim > 1:
            raise ShapeError(f"meshgrid: expected 0-d or 1-d tensors, but tensor {k} is {x._l.type}")
    swapped = indexing == "xy" and len(given) >= 2
    if swapped:
        given[:2] = given[1::-1]
    n = len(given)
    grids = broadcast_tensors(*(reshape(x, (1,) * k + (-1,) + (1,) * (n - k - 1)) for k, x in enumerate(given)))
    return (grids[1], grids[0], *grids[2:]) if swapped else grids


def flip(input: Tensor, *dims: Any) -> Tensor:
    """A copy with the order along `dims` reversed."""
    x = tensor_operand("flip", input)
    given = tuple(_dim("flip", x, d) for d in sizes_of("flip", dims))  # type: ignore[arg-type]
    if len({*given}) != len(given):
        raise DimError(f"flip: a dim appears multiple times in {list(given)}")
    made: Tensor = ops.flip(x, dims=tuple(sorted(given))) if x._l.ndim else ops.clone(x)
    return made


def fliplr(input: Tensor) -> Tensor:
    """flip along axis 1."""
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """flip along axis 0."""
    return flip(input, 0)


def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """Elements moved by `shifts` along `dims`, coming back in at the other end; without dims in the flattened order."""
    x = tensor_operand("roll", input)
    if dims is None:
        shifts = whole("roll", "shifts", shifts)
        return reshape(roll(ravel(x), shifts, 0), x.ttype.shape)
    steps = [shifts] if isinstance(shifts, int) else list(shifts)
    axes = [dims] if isinstance(dims, int) else list(dims)
    if len(steps) != len(axes):
        raise ShapeError(f"roll: shifts and dimensions must align, got {len(steps)} shifts and {len(axes)} dims")
    for step, dim in zip(steps, axes, strict=True):
        d = axis_of("roll", x, dim)
        size = x.ttype.shape[d]
        if isinstance(size, int):
            step = step % size if size else 0
        if step:
            cut = size - step if step > 0 else -step
            x = ops.cat(narrow(x, d, cut, size - cut), narrow(x, d, 0, cut), dim=d)
    return x if x is not input else clone(x)


def atleast_1d(input: Tensor) -> Tensor:
    """`input` with at least one dimension."""
    return input if input._l.ndim else reshape(input, 1)


def atleast_2d(input: Tensor) -> Tensor:
    """`input` with at least two dimensions (new ones in front)."""
    return input if input._l.ndim >= 2 else unsqueeze(atleast_1d(input), 0)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """cat along axis 1 (axis 0 for 1-d tensors)."""
    given = [atleast_1d(x) for x in tensors]
    return cat(given, 0 if given and given[0]._l.ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """cat of rows along axis 0."""
    return cat([atleast_2d(x) for x in tensors], 0)


def repeat(input: Tensor, *repeats: Any) -> Tensor:
    """The tensor copied `repeats` times along each axis (new axes in front). Raises ShapeError for too few numbers."""
    x = tensor_operand("repeat", input)
    counts = sizes_of("repeat", repeats)
    lead = len(counts) - x._l.ndim
    if lead < 0:
        raise ShapeError(
            f"repeat: number of dimensions of repeat dims {list(counts)} can not be smaller than those of {x._l.type}"
        )
    shape = (1,) * lead + x.ttype.shape
    paired = tuple(s for n, size in zip(counts, shape, strict=True) for s in (1, size))
    target = tuple(s for n, size in zip(counts, shape, strict=True) for s in (n, size))
    spread = ops.expand(ops.reshape(x, shape=paired), shape=target)
    copy = ops.clone(spread)
    made: Tensor = ops.reshape(copy, shape=tuple(n * size for n, size in zip(counts, shape, strict=True)))
    return made


def tile(input: Tensor, *dims: Any) -> Tensor:
    """repeat() that takes fewer numbers than axes (1 is put in front)."""
    counts = sizes_of("tile", dims)
    return repeat(input, (1,) * (input._l.ndim - len(counts)) + counts)


def repeat_interleave(input: Tensor, repeats: int, dim: int | None = None) -> Tensor:
    """Each element `repeats` times in a row along `dim` (flattened without it)."""
    x = tensor_operand("repeat_interleave", input)
    if not isinstance(repeats, int):
        raise ArgumentError(
            f"repeat_interleave: repeats must be an int, got {type(repeats).__name__}; the size must not "
            "depend on values"
        )
    if dim is None:
        x, dim = ravel(x), 0
    d, shape = _dim("repeat_interleave", x, dim), x.ttype.shape
    wide = ops.expand(unsqueeze(x, d + 1), shape=(*shape[: d + 1], repeats, *shape[d + 1 :]))
    made: Tensor = ops.reshape(ops.clone(wide), shape=(*shape[:d], shape[d] * repeats, *shape[d + 1 :]))
    return made


def _triangle(name: str, input: Tensor, diagonal: int, lower: builtins.bool) -> Tensor:
    x = tensor_operand(name, input)
    if x._l.ndim < 2:
        raise ShapeError(f"{name}: input tensor must have at least 2 dimensions, got {x._l.type}")

    matrix = x.ttype.shape[-2:]
    row, column = (nullary(ops.iota, shape=matrix, dim=k, dtype=int64) for k in (0, 1))
    offset = ops.sub(column, row)
    mask = (ops.le if lower else ops.ge)(offset, scalar_tensor(as_index(diagonal), int64))
    made: Tensor = ops.where(mask, x, scalar_tensor(0, x.dtype))
    return made


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The elements on and below a diagonal of the last two axes; 0 elsewhere."""
    return _triangle("tril", input, diagonal, True)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The elements on and above a diagonal of the last two axes; 0 elsewhere."""
    return _triangle("triu", input, diagonal, False)


_PAD_MODES = ("constant", "reflect", "replicate", "circular")


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Elements added around the last axes: `pad` = (left, right, top, bottom, …) from the last axis on; negative
    numbers cut off.

    mode "constant" fills with `value` (0); "reflect", "replicate" and "circular" continue the tensor. Raises
    ShapeError, ArgumentError.
    """
    x = tensor_operand("pad", input)
    widths = [as_index(p) for p in pad]
    if len(widths) % 2 or len(widths) // 2 > x._l.ndim:
        raise ShapeError(
            f"pad: padding {widths} needs an even length of at most twice the {x._l.ndim} dimensions of {x._l.type}"
        )
    if mode not in _PAD_MODES:
        raise ArgumentError(f"pad: unrecognised padding mode {mode!r}; use one of {', '.join(_PAD_MODES)}")
    pairs = [(0, 0)] * (x._l.ndim - len(widths) // 2) + list(zip(widths[::2], widths[1::2], strict=True))[::-1]
    if mode != "constant":
        for d, (low, high) in enumerate(pairs):
            x = _pad_axis(x, d, low, high, mode)
        return x
    for d, (low, high) in enumerate(pairs):
        if low < 0 or high < 0:
            x = narrow(x, d, max(-low, 0), x.ttype.shape[d] + min(low, 0) + min(high, 0))
    positive = tuple((max(low, 0), max(high, 0)) for low, high in pairs)
    fill: Any = 0 if value is None else value
    made: Tensor = ops.pad(x, pads=positive, value=fitting("pad", fill, x.dtype))
    return made


def _pad_axis(x: Tensor, d: int, low: int, high: int, mode: str) -> Tensor:
    if not low and not high:
        return x
    size = static_size("pad", x, d)
    limit = {"reflect": size - 1, "circular": size, "replicate": max(low, high)}[mode]
    if max(low, high) > limit or min(low, high) < 0 or not size:
        raise ShapeError(
            f"pad: padding ({low}, {high}) at dim {d} does not fit {x._l.type} in mode {mode!r}; it may be 0 to {limit}"
        )
    if mode == "replicate":
        before = expand_axis(narrow(x, d, 0, 1), d, low)
        after = expand_axis(narrow(x, d, size - 1, 1), d, high)
    elif mode == "reflect":
        before = flip(narrow(x, d, 1, low), d)
        after = flip(narrow(x, d, size - 1 - high, high), d)
    else:
        before, after = narrow(x, d, size - low, low), narrow(x, d, 0, high)
    made: Tensor = ops.cat(before, x, after, dim=d)
    return made


def expand_axis(x: Tensor, d: int, size: Size) -> Tensor:
    """Axis `d` of size 1 repeated `size` times."""
    shape = x.ttype.shape
    made: Tensor = ops.expand(x, shape=(*shape[:d], size, *shape[d + 1 :]))
    return made
