"""Pooling to a given size, and its opposite: putting maxima back where they were.

Window i of o over n elements goes from floor(i * n / o) to ceil((i + 1) * n / o), as in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ShapeError
from graphc.frontend.creation import zeros
from graphc.frontend.functional import gather, index_select, reshape, scatter, squeeze, where
from graphc.frontend.nn.checks import Pair, fixed, float_input, several, with_batch
from graphc.frontend.ops import ops
from graphc.frontend.tensor import Tensor
from graphc.ir.op import Array

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
]

Sizes = int | Sequence[int | None] | None


class _Windows:
    """Where the windows look in the flattened places of an input: [*wanted, elements of the largest window]."""

    def __init__(self, sizes: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        axes = [_axis(n, o) for n, o in zip(sizes, wanted, strict=True)]
        count = len(sizes)
        places, inside = np.zeros((), np.int64), np.ones((), bool)
        for k, (steps, real) in enumerate(axes):
            shape = [1] * (2 * count)
            shape[k], shape[count + k] = steps.shape
            places = places * sizes[k] + steps.reshape(shape)
            inside = inside & real.reshape(shape)
        self.places, self.inside = (x.reshape(*wanted, -1) for x in (places, inside))


def _axis(size: int, wanted: int) -> tuple[Array, Array]:
    """Places [wanted, longest] of the windows along one axis, and which of them are no filling."""
    starts = np.array([i * size // wanted for i in range(wanted)])
    stops = np.array([-(-(i + 1) * size // wanted) for i in range(wanted)])
    steps = np.arange((stops - starts).max())
    inside = steps < (stops - starts)[:, None]
    return np.where(inside, starts[:, None] + steps, starts[:, None]), inside


def _wanted(name: str, x: Tensor, output_size: Sizes, places: int) -> tuple[int, ...]:
    """The size asked for; None keeps the input's. Raises ArgumentError."""
    given = (output_size,) * places if isinstance(output_size, int) or output_size is None else tuple(output_size)
    if len(given) != places:
        raise ArgumentError(f"{name}: output_size must be an int or {places} of them, got {output_size!r}")
    sizes = tuple(n if o is None else o for o, n in zip(given, x._l.shape[2:], strict=True))
    if min(sizes) <= 0:
        raise ArgumentError(f"{name}: output_size must be positive, got {sizes}")
    if 0 in x._l.shape[2:]:
        raise ShapeError(f"{name}: {x._l.type} has no elements to pool; only the batch may be empty")
    return sizes


def _spread(x: Tensor, found: _Windows) -> Tensor:
    """[N, C, *places] as [N, C, *wanted, elements of a window]."""
    n, c = x.ttype.shape[:2]
    flat = reshape(x, (n, c, math.prod(x._l.shape[2:])))
    return reshape(index_select(flat, 2, fixed(found.places.reshape(-1))), (n, c, *found.places.shape))


def _average(name: str, input: Tensor, output_size: Sizes, places: int) -> Tensor:
    x, single = with_batch(name, float_input(name, input), places)
    wanted = _wanted(name, x, output_size, places)
    found = _Windows(x._l.shape[2:], wanted)
    total = where(fixed(found.inside), _spread(x, found), 0.0).sum(-1)
    out = total / fixed(found.inside.sum(-1)).to(x.dtype)
    return squeeze(out, 0) if single else out


def adaptive_avg_pool1d(input: Tensor, output_size: Sizes) -> Tensor:
    """Mean over windows of [N, C, L], so many that the result has `output_size`."""
    return _average("adaptive_avg_pool1d", input, output_size, 1)


def adaptive_avg_pool2d(input: Tensor, output_size: Sizes) -> Tensor:
    """Mean over windows of [N, C, H, W], so many that the result has the given size (None: as the input)."""
    name = "adaptive_avg_pool2d"
    x, single = with_batch(name, float_input(name, input), 2)
    wanted, sizes = _wanted(name, x, output_size, 2), x._l.shape[2:]
    if any(n % o for o, n in zip(wanted, sizes, strict=True)):
        return _average(name, input, output_size, 2)
    kernel = tuple(n // o for n, o in zip(sizes, wanted, strict=True))
    out: Tensor = ops.avg_pool2d(
        x, kernel=kernel, stride=kernel, padding=(0, 0), ceil_mode=False, count_include_pad=True
    )
    return squeeze(out, 0) if single else out


def adaptive_avg_pool3d(input: Tensor, output_size: Sizes) -> Tensor:
    """Mean over windows of [N, C, D, H, W], so many that the result has the given size (None: as the input)."""
    return _average("adaptive_avg_pool3d", input, output_size, 3)


def _maximum(name: str, input: Tensor, output_size: Sizes, places: int, return_indices: bool) -> Any:
    x, single = with_batch(name, float_input(name, input), places)
    wanted = _wanted(name, x, output_size, places)
    found = _Windows(x._l.shape[2:], wanted)
    held = where(fixed(found.inside), _spread(x, found), -math.inf)
    best = held.argmax(-1, keepdim=True)
    values = squeeze(gather(held, -1, best), -1)
    indices = squeeze(gather(fixed(found.places).expand(*held.ttype.shape), -1, best), -1)
    if single:
        values, indices = squeeze(values, 0), squeeze(indices, 0)
    return (values, indices) if return_indices else values


def adaptive_max_pool1d(input: Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
    """Maximum over windows of [N, C, L], so many that the result has `output_size`; also where, if asked for."""
    return _maximum("adaptive_max_pool1d", input, output_size, 1, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
    """Maximum over windows of [N, C, H, W] (None: the input's size); also where in the H*W plane, if asked for."""
    return _maximum("adaptive_max_pool2d", input, output_size, 2, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
    """Maximum over windows of [N, C, D, H, W] (None: the input's size); also where in the block, if asked for."""
    return _maximum("adaptive_max_pool3d", input, output_size, 3, return_indices)


def _unpool(
    name: str,
    input: Tensor,
    indices: Tensor,
    kernel_size: Pair,
    stride: Pair | None,
    padding: Pair,
    output_size: Sequence[int] | None,
    places: int,
) -> Tensor:
    x, single = with_batch(name, float_input(name, input), places)
    kernel, edges = several(name, kernel_size, "kernel_size", places), several(name, padding, "padding", places)
    steps = kernel if stride is None else several(name, stride, "stride", places)
    wide = tuple((n - 1) * s - 2 * p + k for n, s, p, k in zip(x._l.shape[2:], steps, edges, kernel, strict=True))
    if output_size is not None:
        wide = tuple(output_size)[-places:]
    if tuple(indices.shape) != tuple(input.shape):
        raise ShapeError(f"{name}: indices are {indices._l.type}, expected the shape of the input {input._l.type}")
    n, c = x.ttype.shape[:2]
    flat = (n, c, math.prod(x._l.shape[2:]))
    base = zeros(n, c, math.prod(wide), dtype=x.dtype)
    out = reshape(scatter(base, 2, reshape(indices, flat), reshape(x, flat)), (n, c, *wide))
    return squeeze(out, 0) if single else out


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros, and the elements of `input` [N, C, L] where max_pool1d found them."""
    return _unpool("max_unpool1d", input, indices, kernel_size, stride, padding, output_size, 1)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros, and the elements of `input` [N, C, H, W] where max_pool2d found them."""
    return _unpool("max_unpool2d", input, indices, kernel_size, stride, padding, output_size, 2)


def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros, and the elements of `input` [N, C, D, H, W] where max_pool3d found them."""
    return _unpool("max_unpool3d", input, indices, kernel_size, stride, padding, output_size, 3)
