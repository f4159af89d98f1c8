"""Pooling over the last two axes of [N, C, H, W]: compositions.

A window of few elements is unrolled into slices, so that it stays pointwise; a larger one is a reduction over sliding
windows. The choice depends on the kernel alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ShapeError
from graphc.ir.infer import require_dtype
from graphc.ir.op import Array, Op, Operand, Sample, define
from graphc.ir.ops import create, movement
from graphc.ir.ops import pointwise as pw
from graphc.ir.ops.elementwise import FLOATS
from graphc.ir.ops.index import scatter_add
from graphc.ir.ops.reduce import amax, argmax, sum_
from graphc.ir.ops.windows import windows, windows_grad
from graphc.ir.types import Shape, Size, TensorType, float64, int64

Pair = tuple[int, int]
Needs = Sequence[bool]

MOST_UNROLLED = 16  # elements of a window that is unrolled


def pooled_size(size: Size, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> tuple[Size, int]:
    """(windows, padding needed behind) along one axis, by PyTorch's rule: no window starts in the right pad."""
    span = dilation * (kernel - 1) + 1
    if not isinstance(size, int):
        return (size + 2 * padding - span) // stride + 1, padding
    free = size + 2 * padding - span
    count = (free + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    return count, padding + max(0, (count - 1) * stride + span - size - 2 * padding)


def _check(name: str, x: TensorType, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil: bool) -> Shape:
    """The pooled shape. Raises DTypeError, ShapeError or ArgumentError."""
    require_dtype(name, x, FLOATS)
    if x.ndim != 4:
        raise ShapeError(f"{name}: operand 0 is {x}, but [batch, channel, height, width] is needed; reshape it first")
    if 0 in x.shape[2:]:
        raise ShapeError(f"{name}: operand 0 is {x}, which has no pixels to pool; only the batch may be empty")
    if any(len(p) != 2 or min(p) < least for p, least in ((kernel, 1), (stride, 1), (padding, 0), (dilation, 1))):
        given = f"kernel {kernel}, stride {stride}, padding {padding} and dilation {dilation}"
        raise ArgumentError(f"{name}: {given} must be pairs of positive numbers (padding may be 0)")
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ArgumentError(f"{name}: padding {padding} must be at most half of the kernel {kernel}")
    sizes = []
    for k in (0, 1):
        count, _ = pooled_size(x.shape[2 + k], kernel[k], stride[k], padding[k], dilation[k], ceil)
        if isinstance(count, int) and count < 1:
            raise ShapeError(f"{name}: kernel {kernel}, dilation {dilation}, does not fit into {x} padded by {padding}")
        sizes.append(count)
    return (*x.shape[:2], *sizes)


def _pads(x: TensorType, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil: bool) -> tuple[Any, ...]:
    behind = [pooled_size(x.shape[2 + k], kernel[k], stride[k], padding[k], dilation[k], ceil)[1] for k in (0, 1)]
    return ((0, 0), (0, 0), *zip(padding, behind, strict=True))


def _padded(x: Any, pads: tuple[Any, ...], value: float) -> Any:
    return x if not any(p for pair in pads for p in pair) else movement.pad(x, pads=pads, value=value)


def _taps(
    padded: Any, counts: Sequence[Size], kernel: Pair, stride: Pair, dilation: Pair
) -> Iterator[tuple[Pair, Any]]:
    """((row, column) in the window, that element of every window), in row-major order."""
    for place in itertools.product(range(kernel[0]), range(kernel[1])):
        part = padded
        for k in (0, 1):
            start = place[k] * dilation[k]
            stop = start + (counts[k] - 1) * stride[k] + 1
            part = movement.slice_(part, dim=2 + k, start=start, stop=stop, step=stride[k])
        yield place, part


def _unrolled(kernel: Pair) -> bool:
    return kernel[0] * kernel[1] <= MOST_UNROLLED


# ---- max


def _max_infer(
    x: TensorType, *, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[TensorType, TensorType]:
    shape = _check("max_pool2d", x, kernel, stride, padding, dilation, ceil_mode)
    return x.with_shape(shape), TensorType(int64, shape)


def _best_taps(
    padded: Any, counts: Sequence[Size], kernel: Pair, stride: Pair, dilation: Pair, width: int
) -> tuple[Any, Any]:
    """(largest, its distance from the window's start in a plane of `width`): the first of equals, the first NaN."""
    best: Any = None
    offset: Any = None
    for (row, column), tap in _taps(padded, counts, kernel, stride, dilation):
        moved = row * dilation[0] * width + column * dilation[1]
        if best is None:
            best, offset = tap, create.full(shape=tap.ttype.shape, value=moved, dtype=int64)
            continue
        # not (tap <= best) holds for a NaN tap too; a NaN already found stays
        better = pw.bitwise_and(pw.bitwise_not(pw.le(tap, best)), pw.eq(best, best))
        best = pw.maximum(best, tap)
        offset = pw.where(better, create.scalar_like(offset, moved), offset)
    return best, offset


def _best_windows(padded: Any, kernel: Pair, stride: Pair, dilation: Pair, width: int) -> tuple[Any, Any]:
    """As _best_taps, by reductions over windows."""
    found = windows(padded, dims=(2, 3), size=kernel, stride=stride, dilation=dilation)
    shape = found.ttype.shape[:4]
    place = argmax(movement.reshape(found, shape=(*shape, kernel[0] * kernel[1])), dim=4, keepdim=False)
    rows = pw.mul(pw.floor_divide(place, kernel[1]), dilation[0] * width)
    columns = pw.mul(pw.remainder(place, kernel[1]), dilation[1])
    return amax(found, dim=(4, 5), keepdim=False), pw.add(rows, columns)


def _starts(shape: Shape, stride: Pair, padding: Pair) -> list[Any]:
    """Row and column where each window starts, negative in the padding."""
    return [pw.sub(pw.mul(create.iota(shape=shape, dim=2 + k, dtype=int64), stride[k]), padding[k]) for k in (0, 1)]


def _first_inside(start: Any, dilation: int) -> Any:
    """The first place of a window that is not padding before the tensor."""
    return pw.maximum(start, 0) if dilation == 1 else pw.where(pw.lt(start, 0), pw.remainder(start, dilation), start)


def _max_decompose(
    x: Any, *, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[Any, Any]:
    shape = _check("max_pool2d", x.ttype, kernel, stride, padding, dilation, ceil_mode)
    width = x.ttype.shape[3]
    padded = _padded(x, _pads(x.ttype, kernel, stride, padding, dilation, ceil_mode), float("-inf"))
    if _unrolled(kernel):
        best, offset = _best_taps(padded, shape[2:], kernel, stride, dilation, width)
    else:
        best, offset = _best_windows(padded, kernel, stride, dilation, width)
    rows, columns = _starts(shape, stride, padding)
    place = pw.add(pw.add(pw.mul(rows, width), columns), offset)
    if padding != (0, 0):  # -inf wins only where nothing else is: name the window's first element that is not padding
        rows, columns = _first_inside(rows, dilation[0]), _first_inside(columns, dilation[1])
        place = pw.where(pw.eq(best, float("-inf")), pw.add(pw.mul(rows, width), columns), place)
    return best, place


def _max_reference(
    x: Array, *, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[Array, Array]:
    like = TensorType(float64, x.shape)
    shape = like.with_shape(_check("max_pool2d", like, kernel, stride, padding, dilation, ceil_mode)).sizes
    values, places = np.zeros(shape, x.dtype), np.zeros(shape, np.int64)
    height, width = x.shape[2:]
    for n, c, i, j in np.ndindex(values.shape):
        rows = [r for r in range(i * stride[0] - padding[0], height, dilation[0])[: kernel[0]] if r >= 0]
        columns = [r for r in range(j * stride[1] - padding[1], width, dilation[1])[: kernel[1]] if r >= 0]
        window = x[n, c][np.ix_(rows, columns)]
        row, column = np.unravel_index(np.argmax(window), window.shape)
        values[n, c, i, j] = window[row, column]
        places[n, c, i, j] = rows[row] * width + columns[column]
    return values, places


def _max_vjp(g: Any, out: Any, x: Operand, *, needs: Needs, **attrs: Any) -> tuple[Any]:
    n, c, height, width = x.ttype.shape
    plane = create.full(shape=(n, c, height * width), value=0, dtype=x.ttype.dtype)
    rows, columns = out[1].ttype.shape[2:]
    flat = [movement.reshape(v, shape=(n, c, rows * columns)) for v in (out[1], g[0])]
    return (movement.reshape(scatter_add(plane, *flat, dim=2), shape=x.ttype.shape),)


_CASES: tuple[tuple[tuple[int, ...], Pair, Pair, Pair, Pair, bool], ...] = (
    ((2, 3, 4, 6), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((1, 2, 5, 5), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ((1, 2, 6, 5), (3, 2), (1, 2), (1, 0), (1, 1), False),
    ((1, 1, 6, 6), (2, 2), (2, 2), (0, 0), (1, 1), True),
    ((1, 2, 6, 7), (3, 3), (2, 2), (0, 1), (1, 1), True),
    ((1, 2, 7, 7), (5, 5), (1, 2), (2, 2), (1, 1), False),
)
_DILATED: tuple[tuple[tuple[int, ...], Pair, Pair, Pair, Pair, bool], ...] = (
    ((1, 2, 7, 6), (3, 2), (1, 2), (1, 1), (2, 2), False),
    ((1, 1, 9, 10), (3, 6), (2, 1), (1, 2), (2, 1), False),
)


def _max_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, kernel, stride, padding, dilation, ceil_mode in (*_CASES, *_DILATED):
        attrs = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
        distinct = rng.permutation(int(np.prod(shape))).reshape(shape) / 4.0  # finite differences meet no tie
        yield Sample((distinct,), attrs, f"{shape} {attrs}")
        ties = np.array([-np.inf, 0.0, 1.0])[rng.integers(0, 3, shape)]
        yield Sample((ties,), attrs, f"ties {attrs}", grad=False)
        yield Sample((np.full(shape, -np.inf),), attrs, f"-inf {attrs}", grad=False)
        holes = np.where(rng.random(shape) < 0.1, np.nan, distinct)
        yield Sample((holes,), attrs, f"nan {attrs}", grad=False)


max_pool2d = define(
    Op(
        "max_pool2d",
        _max_infer,
        _max_reference,
        _max_samples,
        decompose=_max_decompose,
        vjp=_max_vjp,
        saves=("out",),
        dtypes=FLOATS,
        outputs=2,
        doc="Largest of each window, and its place in the flattened plane (the first of equals).",
    )
)


# ---- average


def _avg_infer(
    x: TensorType, *, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool, count_include_pad: bool
) -> TensorType:
    return x.with_shape(_check("avg_pool2d", x, kernel, stride, padding, (1, 1), ceil_mode))


def _covered(size: int, kernel: int, stride: int, padding: int, count: int, include: bool) -> list[int]:
    """How many elements each window counts along one axis: with the pads asked for, or without any."""
    low, high = (-padding, size + padding) if include else (0, size)
    return [min(i * stride - padding + kernel, high) - max(i * stride - padding, low) for i in range(count)]


def _divide(
    total: Any, x: TensorType, *, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool, count_include_pad: bool
) -> Any:
    """`total` divided by the number of elements each window counts."""
    area = kernel[0] * kernel[1]
    if not ceil_mode and (count_include_pad or padding == (0, 0)):
        return pw.div(total, area)
    counts = [
        _covered(size, kernel[k], stride[k], padding[k], total.ttype.sizes[2 + k], count_include_pad)
        for k, size in enumerate(x.sizes[2:])
    ]
    divisors = np.outer(counts[0], counts[1])
    if (divisors == area).all():
        return pw.div(total, area)
    return pw.div(total, create.constant(value=divisors.astype(x.dtype.np)))


def _avg_decompose(
    x: Any, *, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool, count_include_pad: bool
) -> Any:
    attrs = {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    shape = _avg_infer(x.ttype, **attrs, count_include_pad=count_include_pad).shape  # type: ignore[arg-type]
    padded = _padded(x, _pads(x.ttype, kernel, stride, padding, (1, 1), ceil_mode), 0.0)
    if _unrolled(kernel):
        total: Any = None
        for _, tap in _taps(padded, shape[2:], kernel, stride, (1, 1)):
            total = tap if total is None else pw.add(total, tap)
    else:
        found = windows(padded, dims=(2, 3), size=kernel, stride=stride, dilation=(1, 1))
        total = sum_(found, dim=(4, 5), keepdim=False)
    return _divide(total, x.ttype, **attrs, count_include_pad=count_include_pad)  # type: ignore[arg-type]


def _avg_reference(
    x: Array, *, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool, count_include_pad: bool
) -> Array:
    like = TensorType(float64, x.shape)
    shape = like.with_shape(_check("avg_pool2d", like, kernel, stride, padding, (1, 1), ceil_mode)).sizes
    out = np.zeros(shape, x.dtype)
    for i, j in np.ndindex(out.shape[2:]):
        first = i * stride[0] - padding[0], j * stride[1] - padding[1]
        clipped = [slice(max(f, 0), max(f + k, 0)) for f, k in zip(first, kernel, strict=True)]
        part = x[:, :, clipped[0], clipped[1]].astype(np.float64)
        reach = padding if count_include_pad else (0, 0)
        covered = [min(f + k, n + p) - max(f, -p) for f, k, n, p in zip(first, kernel, x.shape[2:], reach, strict=True)]
        out[:, :, i, j] = part.sum(axis=(2, 3)) / (covered[0] * covered[1])
    return out


def _avg_vjp(g: Any, out: Operand, x: Operand, *, needs: Needs, **attrs: Any) -> tuple[Any]:
    kernel, stride = attrs["kernel"], attrs["stride"]
    pads = _pads(x.ttype, kernel, stride, attrs["padding"], (1, 1), attrs["ceil_mode"])
    share = _divide(g, x.ttype, **attrs)
    shape = share.ttype.shape
    every = movement.expand(movement.reshape(share, shape=(*shape, 1, 1)), shape=(*shape, *kernel))
    padded = tuple(n + low + high for n, (low, high) in zip(x.ttype.shape, pads, strict=True))
    grad = windows_grad(every, shape=padded, dims=(2, 3), size=kernel, stride=stride, dilation=(1, 1))
    for dim in (2, 3):
        low, high = pads[dim]
        if low or high:
            grad = movement.slice_of(grad, dim, low, x.ttype.shape[dim] + low)
    return (grad,)


def _avg_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, kernel, stride, padding, _, ceil_mode in _CASES:
        for include in (True, False):
            attrs = {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
            x = np.asarray(rng.standard_normal(shape))
            yield Sample((x,), {**attrs, "count_include_pad": include}, f"{shape} {attrs} {include}")


avg_pool2d = define(
    Op(
        "avg_pool2d",
        _avg_infer,
        _avg_reference,
        _avg_samples,
        decompose=_avg_decompose,
        vjp=_avg_vjp,
        dtypes=FLOATS,
        doc="Mean of each window; `count_include_pad` says whether zeros of the padding count.",
    )
)
