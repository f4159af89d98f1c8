"""Reading images at given places: grid_sample and affine_grid."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.frontend import functional_math as fm
from graphc.frontend.functional import (
    clamp,
    expand,
    floor,
    fmod,
    matmul,
    remainder,
    reshape,
    select,
    transpose,
    unsqueeze,
    where,
)
from graphc.frontend.grad_mode import no_grad
from graphc.frontend.nn.checks import fixed, float_input
from graphc.frontend.ops import ops
from graphc.frontend.promote import convert
from graphc.frontend.tensor import Tensor
from graphc.ir.op import Array
from graphc.ir.types import int64

__all__ = ["affine_grid", "grid_sample"]

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")
_CUBIC = -0.75  # as in interpolate


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """The elements of [N, C, H, W] at the places of [N, H', W', 2]: [N, C, H', W'], or of [N, C, D, H, W] at those of
    [N, D', H', W', 3].

    A place is (x, y) or (x, y, z): -1 is the left (upper, front) end and 1 the other one, the middles of the outermost
    elements with `align_corners`, else their outer edges. Modes: "bilinear" (of 5-d inputs trilinear), "nearest",
    "bicubic" (4-d inputs). Outside there are zeros, or the nearest element ("border"), or the image mirrored
    ("reflection"). No gradient crosses a border. Raises ShapeError, DTypeError, ArgumentError.
    """
    x, at = float_input("grid_sample", input), float_input("grid_sample", grid)
    count = x.ndim - 2
    if count not in (2, 3) or at.ndim != x.ndim or at._l.shape[-1] != count or at._l.shape[0] != x._l.shape[0]:
        raise ShapeError(
            f"grid_sample: expected [N, C, H, W] and [N, H', W', 2], or [N, C, D, H, W] and [N, D', H', W', 3], got "
            f"{x._l.type} and {at._l.type}"
        )
    if x.dtype is not at.dtype:
        raise DTypeError(f"grid_sample: input {x._l.type} and grid {at._l.type} must have the same dtype")
    if mode not in _MODES or padding_mode not in _PADDINGS or (mode == "bicubic" and count == 3):
        raise ArgumentError(
            f"grid_sample: mode must be one of {', '.join(_MODES)} (bicubic for 4-d inputs alone) and padding_mode one "
            f"of {', '.join(_PADDINGS)}, got {mode!r} and {padding_mode!r}"
        )
    if 0 in x._l.shape[2:]:
        raise ShapeError(f"grid_sample: the places of {x._l.type} must not be empty")
    image = _Image(x, padding_mode, bool(align_corners))
    places = [image.place(select(at, -1, count - 1 - d), d) for d in range(count)]
    found = {"bilinear": _linear, "nearest": _nearest, "bicubic": _bicubic}[mode](image, places)
    return reshape(found, (*x.ttype.shape[:2], *at.ttype.shape[1:-1]))


class _Image:
    """An input and what lies outside of it. Places are numbers of elements, one tensor an axis, [N, …]."""

    def __init__(self, x: Tensor, padding: str, corners: bool) -> None:
        self.sizes = x._l.shape[2:]
        self.padding, self.corners = padding, corners
        n, c = x.ttype.shape[:2]
        self.flat = reshape(x, (n, c, int(np.prod(self.sizes))))

    def place(self, at: Tensor, axis: int) -> Tensor:
        """Coordinates -1 to 1 as numbers of elements."""
        size = self.sizes[axis]
        return (at + 1) / 2 * (size - 1) if self.corners else ((at + 1) * size - 1) / 2

    def inside(self, at: Tensor, axis: int) -> Tensor:
        """Places brought inside by the rule of the padding (zeros: none)."""
        size = self.sizes[axis]
        if self.padding == "reflection":
            at = _mirrored(at, 0.0, size - 1.0) if self.corners else _mirrored(at, -0.5, size - 0.5)
        if self.padding != "zeros":  # where, not clamp: at the border there is no gradient
            at = where(at > 0, where(at < size - 1, at, float(size - 1)), 0.0)
        return at

    def read(self, whole: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        """The elements at whole places, times a weight: [N, C, places]. Zero where they lie outside."""
        index, within = None, None
        with no_grad():
            for at, size in zip(whole, self.sizes, strict=True):
                near = convert(clamp(at, 0, size - 1), int64)
                index = near if index is None else index * size + near
                if self.padding == "zeros":
                    holds = (at >= 0) & (at <= size - 1)
                    within = holds if within is None else within & holds
        assert index is not None
        n, c = self.flat.ttype.shape[:2]
        count = index.ttype.numel // n if n else 0
        wide = expand(reshape(index, (n, 1, count)), n, c, count)
        found: Tensor = ops.gather(self.flat, wide, dim=2)
        if weight is not None:
            found = found * reshape(weight, (n, 1, count))
        return found if within is None else where(reshape(within, (n, 1, count)), found, 0.0)


def _mirrored(at: Tensor, low: float, high: float) -> Tensor:
    """Places mirrored at both ends until they lie between."""
    span = high - low
    if not span:
        return at * 0.0
    moved = at - low
    moved = where(moved < 0, -moved, moved)
    rest = fmod(moved, span)
    with no_grad():
        even = remainder(floor(moved / span), 2) == 0
    return where(even, rest + low, span - rest + low)


def _nearest(image: _Image, places: list[Tensor]) -> Tensor:
    with no_grad():
        whole = [fm.round(image.inside(at, d)) for d, at in enumerate(places)]
    return image.read(whole, None)


def _linear(image: _Image, places: list[Tensor]) -> Tensor:
    """The corners of the cell around each place, weighted by the cell opposite; the last axis runs fastest."""
    places = [image.inside(at, d) for d, at in enumerate(places)]
    with no_grad():
        low = [floor(at) for at in places]
        high = [at + 1 for at in low]
    shares = [(b - at, at - a) for at, a, b in zip(places, low, high, strict=True)]
    total = None
    for corner in itertools.product((0, 1), repeat=len(places)):
        weight = None
        for k, share in reversed(list(zip(corner, shares, strict=True))):  # x first, as PyTorch
            weight = share[k] if weight is None else weight * share[k]
        part = image.read([(a, b)[k] for k, a, b in zip(corner, low, high, strict=True)], weight)
        total = part if total is None else total + part
    assert total is not None
    return total


def _bicubic(image: _Image, places: list[Tensor]) -> Tensor:
    """Four rows of four neighbours, each brought inside by itself."""
    with no_grad():
        low = [floor(at) for at in places]
        near = [[image.inside(at + k, d) for k in range(-1, 3)] for d, at in enumerate(low)]
    rows, columns = (_cubic(at - a) for at, a in zip(places, low, strict=True))
    total = None
    for y, row in zip(near[0], rows, strict=True):
        line = None
        for x, column in zip(near[1], columns, strict=True):
            part = image.read([y, x], column)
            line = part if line is None else line + part
        assert line is not None
        n, _, count = line.ttype.shape
        line = line * reshape(row, (n, 1, count))
        total = line if total is None else total + line
    assert total is not None
    return total


def _cubic(t: Tensor) -> list[Tensor]:
    """The weights of the four neighbours of a place `t` behind the second (Keys, 1981)."""

    def near(d: Tensor) -> Tensor:
        return ((_CUBIC + 2.0) * d - (_CUBIC + 3.0)) * d * d + 1.0

    def far(d: Tensor) -> Tensor:
        return ((_CUBIC * d - 5.0 * _CUBIC) * d + 8.0 * _CUBIC) * d - 4.0 * _CUBIC

    return [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The grid for grid_sample that an affine map gives: theta [N, 2, 3] and size [N, C, H, W] give [N, H, W, 2];
    theta [N, 3, 4] and size [N, C, D, H, W] give [N, D, H, W, 3]. Raises ShapeError, DTypeError.
    """
    maps, sizes = float_input("affine_grid", theta), [int(n) for n in size]
    count = len(sizes) - 2
    if count not in (2, 3) or maps._l.shape != (sizes[0], count, count + 1) or min(sizes) < 1:
        raise ShapeError(
            f"affine_grid: expected theta [N, 2, 3] for a size of 4 positive numbers, or [N, 3, 4] for one of 5, got "
            f"{maps._l.type} and {sizes}"
        )
    base = fixed(_base_grid(sizes[2:], bool(align_corners)).astype(maps.dtype.np))
    found = matmul(expand(unsqueeze(base, 0), sizes[0], *base._l.shape), transpose(maps, 1, 2))
    return reshape(found, (sizes[0], *sizes[2:], count))


def _base_grid(sizes: Sequence[int], corners: bool) -> Array:
    """The places of an image in coordinates -1 to 1, x first, then 1: [places, axes + 1]."""
    lines = []
    for n in sizes:
        line = np.linspace(-1.0, 1.0, n) if n > 1 else np.zeros(1)
        lines.append(line if corners else line * (n - 1) / n)
    axes = np.meshgrid(*lines, indexing="ij")
    return np.stack([*(a.ravel() for a in reversed(axes)), np.ones(axes[0].size)], 1)
