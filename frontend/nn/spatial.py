"""Functions on images: resizing, moving channels to places and back, overlapping blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ShapeError, UnsupportedError
from graphc.frontend.functional import expand, index_select, pad, permute, reshape, squeeze
from graphc.frontend.nn.adaptive import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from graphc.frontend.nn.checks import Pair, batched, fixed, float_input, pair
from graphc.frontend.ops import ops
from graphc.frontend.tensor import Tensor
from graphc.ir.op import Array

__all__ = [
    "channel_shuffle",
    "fold",
    "interpolate",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "unfold",
    "upsample",
]

_RANKS = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2}
_MODES = ("nearest", "nearest-exact", "area", *_RANKS)
_CUBIC = -0.75  # the free number of R. Keys, "Cubic convolution interpolation", 1981, as PyTorch has it


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """[N, C, *places] with other sizes, for one to three places.

    Modes: "nearest", "nearest-exact", "area"; for one place "linear", for two "bilinear" and "bicubic", for three
    "trilinear".
    Raises ArgumentError unless one of size and scale_factor is given, and UnsupportedError for antialias.
    """
    x = float_input("interpolate", input) if mode != "nearest" else input
    if x.ndim not in (3, 4, 5):
        raise ShapeError(f"interpolate: expected [N, C, places], got {x._l.type}")
    _check_mode(x, mode, align_corners, antialias)
    sizes = x._l.shape[2:]
    wanted, scales = _sizes(sizes, size, scale_factor)
    if recompute_scale_factor:
        scales = [None] * len(sizes)
    if mode == "area":
        pool = (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)[len(sizes) - 1]
        return pool(x, wanted)
    steps = [n / o if s is None else 1.0 / s for n, o, s in zip(sizes, wanted, scales, strict=True)]
    if mode.startswith("nearest"):
        return _new(_nearest(x, sizes, wanted, steps, 0.5 if mode == "nearest-exact" else 0.0), input)
    for k, (n, o, step) in enumerate(zip(sizes, wanted, steps, strict=True)):
        if n != o or mode == "bicubic":  # as PyTorch: the others leave an axis of the right size as it is
            x = _resized(x, 2 + k, n, o, step, mode, bool(align_corners))
    return _new(x, input)


def _check_mode(x: Tensor, mode: str, align_corners: bool | None, antialias: bool) -> None:
    if antialias:
        raise UnsupportedError("interpolate: antialias is not supported; blur the image with a convolution first")
    if mode not in _MODES:
        raise ArgumentError(f"interpolate: mode must be one of {', '.join(_MODES)}, got {mode!r}")
    if mode not in _RANKS and align_corners is not None:
        raise ArgumentError(f"interpolate: align_corners can only be set with interpolating modes, not {mode!r}")
    if mode in _RANKS and x.ndim != _RANKS[mode] + 2:
        raise ShapeError(f"interpolate: mode {mode!r} needs a tensor of {_RANKS[mode] + 2} dimensions, got {x._l.type}")


def _sizes(
    sizes: tuple[int, ...], size: int | Sequence[int] | None, scale_factor: float | Sequence[float] | None
) -> tuple[list[int], list[float | None]]:
    """The sizes to make, and the scales given (None: those of the sizes)."""
    if (size is None) == (scale_factor is None):
        raise ArgumentError("interpolate: give either size or scale_factor")
    given: Any = size if scale_factor is None else scale_factor
    items = list(given) if isinstance(given, (list, tuple)) else [given] * len(sizes)
    if len(items) != len(sizes):
        raise ArgumentError(f"interpolate: expected one number for each of the {len(sizes)} places, got {given!r}")
    if scale_factor is None:
        return [int(o) for o in items], [None] * len(sizes)
    wanted = [math.floor(n * s) for n, s in zip(sizes, items, strict=True)]
    if min(wanted) < 1:
        raise ArgumentError(f"interpolate: the sizes {list(sizes)} times {given} leave nothing")
    return wanted, [float(s) for s in items]


def _nearest(x: Tensor, sizes: tuple[int, ...], wanted: list[int], steps: list[float], shift: float) -> Tensor:
    """The element nearest to each place, moved by `shift`, along every axis."""
    tables = []
    for n, o, step in zip(sizes, wanted, steps, strict=True):
        # PyTorch computes the places in float32, and in images leaves out the step for the same and for twice the size
        at = (np.arange(o) + np.float32(shift)).astype(np.float32) * np.float32(step)
        short = len(sizes) == 2 and not shift and o in (n, 2 * n)
        tables.append(np.arange(o) // (o // n) if short else np.minimum(np.floor(at).astype(np.int64), n - 1))
    times = [o // n for n, o in zip(sizes, wanted, strict=True)]
    if all(
        o == n * t and (at == np.arange(o) // t).all() for n, o, t, at in zip(sizes, wanted, times, tables, strict=True)
    ):
        return _repeated(x, times)
    for k, places in enumerate(tables):
        x = _picked(x, 2 + k, places)
    return x


def _repeated(x: Tensor, times: list[int]) -> Tensor:
    """Every element repeated along each place."""
    n, c, *sizes = x.ttype.shape
    split = [part for size in sizes for part in (size, 1)]
    wide = [part for size, t in zip(sizes, times, strict=True) for part in (size, t)]
    spread = expand(reshape(x, (n, c, *split)), (n, c, *wide))
    return reshape(spread, (n, c, *(size * t for size, t in zip(sizes, times, strict=True))))


def _resized(x: Tensor, dim: int, size: int, wanted: int, step: float, mode: str, corners: bool) -> Tensor:
    """Axis `dim` of `size` elements as a weighted sum of two or four neighbours."""
    places = np.arange(wanted)
    if corners:
        at = places * ((size - 1) / (wanted - 1) if wanted > 1 else 0.0)
    else:
        at = (places + 0.5) * step - 0.5
    if mode != "bicubic":
        at = np.maximum(at, 0.0)
    low = np.floor(at).astype(np.int64)
    share = at - low
    taps = _cubic(share) if mode == "bicubic" else {0: 1.0 - share, 1: share}
    shape = [1] * x.ndim
    shape[dim] = wanted
    parts = [
        _picked(x, dim, np.clip(low + k, 0, size - 1)) * fixed(weight.reshape(shape).astype(x.dtype.np))
        for k, weight in taps.items()
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _picked(x: Tensor, dim: int, places: Array) -> Tensor:
    return index_select(x, dim, fixed(places))


def _cubic(t: Array) -> dict[int, Array]:
    """The weights of the four neighbours of a place `t` behind the second."""

    def near(d: Array) -> Array:
        return ((_CUBIC + 2.0) * d - (_CUBIC + 3.0)) * d * d + 1.0

    def far(d: Array) -> Array:
        return ((_CUBIC * d - 5.0 * _CUBIC) * d + 8.0 * _CUBIC) * d - 4.0 * _CUBIC

    return {-1: far(t + 1.0), 0: near(t), 1: near(1.0 - t), 2: far(2.0 - t)}


def upsample(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """interpolate under its old name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def unfold(input: Tensor, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1) -> Tensor:
    """The blocks of [N, C, H, W] as columns: [N, C * kh * kw, blocks]."""
    x, single_ = batched("unfold", input)
    (ph, pw), kernel = pair("unfold", padding, "padding"), pair("unfold", kernel_size, "kernel_size")
    steps, holes = pair("unfold", stride, "stride"), pair("unfold", dilation, "dilation")
    if ph or pw:
        x = pad(x, (pw, pw, ph, ph))
    found = ops.windows(x, dims=(2, 3), size=kernel, stride=steps, dilation=holes)
    n, c, rows, columns, kh, kw = found.ttype.shape
    out = reshape(permute(found, (0, 1, 4, 5, 2, 3)), (n, c * kh * kw, rows * columns))
    return _new(squeeze(out, 0) if single_ else out, input)


def fold(
    input: Tensor,
    output_size: Pair,
    kernel_size: Pair,
    dilation: Pair = 1,
    padding: Pair = 0,
    stride: Pair = 1,
) -> Tensor:
    """Columns [N, C * kh * kw, blocks] added up to [N, C, *output_size], the opposite of unfold. Raises ShapeError."""
    name = "fold"
    if input.ndim not in (2, 3):
        raise ShapeError(f"fold: expected 2D (unbatched) or 3D (batched) input, got {input._l.type}")
    x = input if input.ndim == 3 else input.unsqueeze(0)
    (ph, pw), (kh, kw) = pair(name, padding, "padding"), pair(name, kernel_size, "kernel_size")
    steps, holes = pair(name, stride, "stride"), pair(name, dilation, "dilation")
    height, width = pair(name, output_size, "output_size")
    high, wide = height + 2 * ph, width + 2 * pw
    rows = (high - holes[0] * (kh - 1) - 1) // steps[0] + 1
    columns = (wide - holes[1] * (kw - 1) - 1) // steps[1] + 1
    n, c, blocks = x.ttype.shape
    if x._l.shape[1] % (kh * kw) or blocks != rows * columns:
        raise ShapeError(
            f"fold: input is {input._l.type}, expected [N, C * {kh * kw}, {rows * columns}] for these sizes"
        )
    parts = permute(reshape(x, (n, c // (kh * kw), kh, kw, rows, columns)), (0, 1, 4, 5, 2, 3))
    out: Tensor = ops.windows_grad(
        parts, shape=(n, c // (kh * kw), high, wide), dims=(2, 3), size=(kh, kw), stride=steps, dilation=holes
    )
    if ph or pw:
        out = pad(out, (-pw, -pw, -ph, -ph))
    return squeeze(out, 0) if input.ndim == 2 else out


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """[N, C * r * r, H, W] -> [N, C, H * r, W * r]. Raises ShapeError."""
    x, single_ = batched("pixel_shuffle", input)
    r = upscale_factor
    n, c, h, w = x.ttype.shape
    if x._l.shape[1] % (r * r):
        raise ShapeError(f"pixel_shuffle: the channels of {x._l.type} must be a multiple of {r}^2")
    split = reshape(x, (n, c // (r * r), r, r, h, w))
    out = reshape(permute(split, (0, 1, 4, 2, 5, 3)), (n, c // (r * r), h * r, w * r))
    return _new(squeeze(out, 0) if single_ else out, input)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """[N, C, H * r, W * r] -> [N, C * r * r, H, W]. Raises ShapeError."""
    x, single_ = batched("pixel_unshuffle", input)
    r = downscale_factor
    n, c, h, w = x.ttype.shape
    if x._l.shape[2] % r or x._l.shape[3] % r:
        raise ShapeError(f"pixel_unshuffle: the height and width of {x._l.type} must be multiples of {r}")
    split = reshape(x, (n, c, h // r, r, w // r, r))
    out = reshape(permute(split, (0, 1, 3, 5, 2, 4)), (n, c * r * r, h // r, w // r))
    return _new(squeeze(out, 0) if single_ else out, input)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """[N, C, …]: channels of `groups` groups dealt out in turn (Zhang et al., 2017). Raises ShapeError."""
    n, c, *rest = input.ttype.shape
    if input._l.shape[1] % groups:
        raise ShapeError(f"channel_shuffle: the channels of {input._l.type} must be a multiple of {groups}")
    split = reshape(input, (n, groups, c // groups, *rest))
    order = (0, 2, 1, *range(3, split.ndim))
    return _new(reshape(permute(split, order), (n, c, *rest)), input)


def _new(out: Tensor, x: Tensor) -> Tensor:
    """A result in memory of its own, as PyTorch has it, also where nothing moves and it would be a view of `x`."""
    return out.clone() if out._s is x._s else out
