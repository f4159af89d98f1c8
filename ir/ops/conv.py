"""2-d convolution and its two gradients.

The three ops are closed under differentiation: the gradient of each is a pair of the other two. Operands are NCHW
(images) and OIHW (filters). The order in which products are added is rule "Contraction" of docs/numerics.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from graphc.errors import ShapeError, UnsupportedError
from graphc.ir.expr import Expr, iadd, imul, index
from graphc.ir.kernel import Contract, Strided
from graphc.ir.op import Array, Contraction, ContractPiece, Op, Sample, define
from graphc.ir.ops.contract import CONTRACTED, same_dtype, wide
from graphc.ir.types import (
    Dim,
    DType,
    Shape,
    Size,
    TensorType,
    contiguous_strides,
    dtype_of,
    exact_div,
    float64,
)

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
_NO_PADDING: Padding = ((0, 0), (0, 0))


def _out_size(name: str, size: Size, pads: Pair, kernel: Size, dilation: int, stride: int) -> Size:
    """How many places a filter takes along one axis."""
    span = size + sum(pads) - dilation * (kernel - 1) - 1
    if isinstance(span, Dim):
        return span + 1 if stride == 1 else exact_div(span, stride) + 1
    if span < 0:
        raise ShapeError(
            f"{name}: a filter of size {kernel} (dilation {dilation}) does not fit an axis of {size} padded by {pads}; "
            "pad more"
        )
    return span // stride + 1


def _check_conv(
    name: str, a: TensorType, b: TensorType, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> DType:
    dtype = same_dtype(name, a, b)
    if a.ndim != 4 or b.ndim != 4:
        raise ShapeError(f"{name}: operands are {a} and {b}; both need four dimensions (NCHW and OIHW)")
    if min(*stride, *dilation, groups) < 1:
        raise ShapeError(f"{name}: stride {stride}, dilation {dilation} and groups {groups} must be positive")
    if min(*padding[0], *padding[1]) < 0:
        raise ShapeError(f"{name}: padding {padding} must not be negative; slice the input instead")
    return dtype


def _divided(name: str, channels: Size, groups: int, what: str) -> Size:
    if isinstance(channels, int) and channels % groups:
        raise ShapeError(f"{name}: {channels} {what} channels cannot be shared out to {groups} groups")
    return exact_div(channels, groups)


def _places(
    name: str, image: Shape, kernel: Shape, stride: Pair, padding: Padding, dilation: Pair
) -> tuple[Size, Size]:
    h, w = (_out_size(name, image[i], padding[i], kernel[i], dilation[i], stride[i]) for i in range(2))
    return h, w


def _conv_infer(
    x: TensorType, w: TensorType, stride: Pair = (1, 1), padding: Padding = _NO_PADDING, dilation: Pair = (1, 1),
    groups: int = 1, algorithm: str = "direct",
) -> TensorType:  # fmt: skip
    dtype = _check_conv("conv2d", x, w, stride, padding, dilation, groups)
    if algorithm != "direct":
        raise UnsupportedError(f"conv2d: algorithm {algorithm!r} is not known; use 'direct'")
    _divided("conv2d", w.shape[0], groups, "output")
    if _divided("conv2d", x.shape[1], groups, "input") != w.shape[1]:
        raise ShapeError(
            f"conv2d: input {x} has {x.shape[1]} channels, weight {w} wants {w.shape[1]} for each of {groups} groups"
        )
    return TensorType(
        dtype, (x.shape[0], w.shape[0], *_places("conv2d", x.shape[2:], w.shape[2:], stride, padding, dilation))
    )


def _grad_infer(
    g: TensorType, w: TensorType, input_shape: tuple[Size, Size] = (1, 1), stride: Pair = (1, 1),
    padding: Padding = _NO_PADDING, dilation: Pair = (1, 1), groups: int = 1,
) -> TensorType:  # fmt: skip
    name = "conv2d_input_grad"
    dtype = _check_conv(name, g, w, stride, padding, dilation, groups)
    places = _places(name, tuple(input_shape), w.shape[2:], stride, padding, dilation)
    if g.shape[1] != w.shape[0] or g.shape[2:] != places:
        raise ShapeError(
            f"{name}: gradient {g} does not fit weight {w}; it needs shape [N, {w.shape[0]}, {places[0]}, {places[1]}]"
        )
    _divided(name, w.shape[0], groups, "output")
    return TensorType(dtype, (g.shape[0], w.shape[1] * groups, *input_shape))


def _weight_infer(
    g: TensorType, x: TensorType, kernel_size: tuple[Size, Size] = (1, 1), stride: Pair = (1, 1),
    padding: Padding = _NO_PADDING, dilation: Pair = (1, 1), groups: int = 1,
) -> TensorType:  # fmt: skip
    name = "conv2d_weight_grad"
    dtype = _check_conv(name, g, x, stride, padding, dilation, groups)
    places = _places(name, x.shape[2:], tuple(kernel_size), stride, padding, dilation)
    if g.shape[0] != x.shape[0] or g.shape[2:] != places:
        raise ShapeError(
            f"{name}: gradient {g} does not fit input {x}; it needs shape [{x.shape[0]}, C, {places[0]}, {places[1]}]"
        )
    _divided(name, g.shape[1], groups, "output")
    return TensorType(dtype, (g.shape[1], _divided(name, x.shape[1], groups, "input"), *kernel_size))


def _padded(x: Array, padding: Padding) -> Array:
    return np.pad(x, ((0, 0), (0, 0), *padding))


def _type(x: Array) -> TensorType:
    return TensorType(dtype_of(x.dtype), x.shape)


def _patches(x: Array, kernel: tuple[int, ...], places: tuple[int, ...], stride: Pair, dilation: Pair) -> Array:
    """View [N, C, Ho, Wo, kh, kw] of a padded image."""
    n, c, h, w = x.strides
    (sh, sw), (dh, dw) = stride, dilation
    shape = (*x.shape[:2], *places, *kernel)
    return np.lib.stride_tricks.as_strided(x, shape, (n, c, h * sh, w * sw, h * dh, w * dw), writeable=False)


def _split(x: Array, axis: int, groups: int) -> Array:
    return x.reshape(*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :])


def _conv_reference(
    x: Array, w: Array, stride: Pair = (1, 1), padding: Padding = _NO_PADDING, dilation: Pair = (1, 1),
    groups: int = 1, algorithm: str = "direct",
) -> Array:  # fmt: skip
    sizes = _conv_infer(_type(x), _type(w), stride, padding, dilation, groups).sizes
    patches = _patches(wide(_padded(x, padding)), w.shape[2:], sizes[2:], stride, dilation)
    with np.errstate(all="ignore"):
        out: Array = np.einsum("ngchwyx,gocyx->ngohw", _split(patches, 1, groups), _split(wide(w), 0, groups))
    return out.reshape(sizes).astype(x.dtype)


def _weight_reference(
    g: Array, x: Array, kernel_size: Pair = (1, 1), stride: Pair = (1, 1), padding: Padding = _NO_PADDING,
    dilation: Pair = (1, 1), groups: int = 1,
) -> Array:  # fmt: skip
    patches = _patches(wide(_padded(x, padding)), kernel_size, g.shape[2:], stride, dilation)
    with np.errstate(all="ignore"):
        out: Array = np.einsum("ngohw,ngchwyx->gocyx", _split(wide(g), 1, groups), _split(patches, 1, groups))
    return out.reshape(g.shape[1], x.shape[1] // groups, *kernel_size).astype(g.dtype)


def _grad_reference(
    g: Array, w: Array, input_shape: Pair = (1, 1), stride: Pair = (1, 1), padding: Padding = _NO_PADDING,
    dilation: Pair = (1, 1), groups: int = 1,
) -> Array:  # fmt: skip
    gs, ws = _split(wide(g), 1, groups), _split(wide(w), 0, groups)
    out = np.zeros((g.shape[0], groups, w.shape[1], *input_shape), gs.dtype)
    for y in range(w.shape[2]):
        rows, hit_rows, in_rows = _origins(input_shape[0], y, g.shape[2], stride[0], padding[0][0], dilation[0])
        for x in range(w.shape[3]):
            columns, hit_columns, in_columns = _origins(
                input_shape[1], x, g.shape[3], stride[1], padding[1][0], dilation[1]
            )
            picked = np.where(in_rows[:, None] & in_columns, gs[..., rows[:, None], columns], 0)
            with np.errstate(all="ignore"):
                term = np.einsum("ngohw,goc->ngchw", picked, ws[..., y, x])
                out += np.where(hit_rows[:, None] & hit_columns, term, 0)
    return out.reshape(g.shape[0], w.shape[1] * groups, *input_shape).astype(g.dtype)


def _origins(size: int, tap: int, places: int, stride: int, pad: int, dilation: int) -> tuple[Array, Array, Array]:
    """For every input position: the place that reads it with `tap`, whether it is no hole, whether it is in range."""
    shifted = np.arange(size) + pad - tap * dilation
    place = shifted // stride
    return np.clip(place, 0, places - 1), shifted % stride == 0, (place >= 0) & (place < places)


def _conv_lower(
    types: tuple[TensorType, ...], stride: Pair = (1, 1), padding: Padding = _NO_PADDING, dilation: Pair = (1, 1),
    groups: int = 1, algorithm: str = "direct",
) -> list[ContractPiece]:  # fmt: skip
    """m = output channels, n = places (contiguous in memory along a row), k = (kh, kw, ci)."""
    x, w = types
    out = _conv_infer(x, w, stride, padding, dilation, groups, algorithm)
    n, co, ho, wo = out.sizes
    _, ci, kh, kw = w.sizes
    per = co // groups
    wn, wc, wh, ww = contiguous_strides(w.sizes)
    xn, xc, xh, xw = contiguous_strides(_padded_sizes(x.sizes, padding))
    core = Contract(
        (x.dtype, w.dtype), x.dtype, (groups,), (per,), (n, ho, wo), (kh, kw, ci),
        Strided(1, 0, (per * wn,), (wn,), (wh, ww, wc)),
        Strided(0, 0, (ci * xc,), (xn, xh * stride[0], xw * stride[1]), (xh * dilation[0], xw * dilation[1], xc)), (),
    )  # fmt: skip
    return [ContractPiece(core, (index(2), _channel(per), index(3), index(4)), _pads(0, padding))]


def _weight_lower(
    types: tuple[TensorType, ...], kernel_size: Pair = (1, 1), stride: Pair = (1, 1), padding: Padding = _NO_PADDING,
    dilation: Pair = (1, 1), groups: int = 1,
) -> list[ContractPiece]:  # fmt: skip
    """m = output channels, n = (ci, kh, kw), k = (batch, ho, wo)."""
    g, x = types
    co, ci, kh, kw = _weight_infer(g, x, kernel_size, stride, padding, dilation, groups).sizes
    n, _, ho, wo = g.sizes
    per = co // groups
    gn, gc, gh, gw = contiguous_strides(g.sizes)
    xn, xc, xh, xw = contiguous_strides(_padded_sizes(x.sizes, padding))
    core = Contract(
        (g.dtype, x.dtype), g.dtype, (groups,), (per,), (ci, kh, kw), (n, ho, wo),
        Strided(0, 0, (per * gc,), (gc,), (gn, gh, gw)),
        Strided(1, 0, (ci * xc,), (xc, xh * dilation[0], xw * dilation[1]), (xn, xh * stride[0], xw * stride[1])), (),
    )  # fmt: skip
    return [ContractPiece(core, (_channel(per), index(2), index(3), index(4)), _pads(1, padding))]


def _channel(per: int) -> Expr:
    """Channel number from (group, channel of the group): axes 0 and 1."""
    return iadd(imul(index(0), per), index(1))


def _padded_sizes(sizes: tuple[int, ...], padding: Padding) -> tuple[int, ...]:
    n, c, h, w = sizes
    return n, c, h + sum(padding[0]), w + sum(padding[1])


def _pads(operand: int, padding: Padding) -> dict[int, tuple[Pair, ...]]:
    return {} if padding == _NO_PADDING else {operand: ((0, 0), (0, 0), *padding)}


class _Residue:
    """The input positions r, r + s, r + 2s, … along one axis: which taps reach them, from which places.

    Position r + s*i is read with tap first + step*p at place origin + i - back*p, for p = 0 … taps-1.
    """

    def __init__(self, r: int, size: int, kernel: int, stride: int, pad: int, dilation: int) -> None:
        self.r = r
        self.count = max(0, -(-(size - r) // stride))
        self.step = stride // math.gcd(stride, dilation)
        self.back = self.step * dilation // stride
        hits = [t for t in range(min(kernel, self.step)) if (r + pad - t * dilation) % stride == 0]
        self.first = hits[0] if hits else 0
        self.taps = -(-(kernel - self.first) // self.step) if hits else 0
        self.origin = (r + pad - self.first * dilation) // stride if hits else 0

    def reach(self) -> Pair:
        """Least and greatest place used; (0, 0) when none."""
        if not self.taps or not self.count:
            return 0, 0
        return self.origin - self.back * (self.taps - 1), self.origin + self.count - 1


def _grad_lower(
    types: tuple[TensorType, ...], input_shape: Pair = (1, 1), stride: Pair = (1, 1), padding: Padding = _NO_PADDING,
    dilation: Pair = (1, 1), groups: int = 1,
) -> list[ContractPiece]:  # fmt: skip
    """One piece a residue of positions modulo the stride; m = input channels, n = positions, k = (kh, kw, co)."""
    g, w = types
    classes = [
        [
            _Residue(r, input_shape[i], w.sizes[2 + i], stride[i], padding[i][0], dilation[i])
            for r in range(min(stride[i], input_shape[i]))
        ]
        for i in range(2)
    ]
    pads = _border(classes[0], g.sizes[2]), _border(classes[1], g.sizes[3])
    return [_grad_piece(g, w, rows, columns, pads, stride, groups) for rows in classes[0] for columns in classes[1]]


def _border(residues: list[_Residue], places: int) -> Pair:
    """Zeros to put before and after the gradient so that every place read exists."""
    low = min((r.reach()[0] for r in residues), default=0)
    high = max((r.reach()[1] for r in residues), default=0)
    return max(0, -low), max(0, high - (places - 1))


def _grad_piece(
    g: TensorType, w: TensorType, rows: _Residue, columns: _Residue, pads: Padding, stride: Pair, groups: int
) -> ContractPiece:
    co, ci, _, _ = w.sizes
    per = co // groups
    wo, wi, wh, ww = contiguous_strides(w.sizes)
    gn, gc, gh, gw = contiguous_strides(_padded_sizes(g.sizes, pads))
    start = (rows.origin + pads[0][0]) * gh + (columns.origin + pads[1][0]) * gw if rows.taps and columns.taps else 0
    core = Contract(
        (g.dtype, w.dtype), g.dtype, (groups,), (ci,), (g.sizes[0], rows.count, columns.count),
        (rows.taps, columns.taps, per),
        Strided(1, rows.first * wh + columns.first * ww, (per * wo,), (wi,), (rows.step * wh, columns.step * ww, wo)),
        Strided(0, start, (per * gc,), (gn, gh, gw), (-rows.back * gh, -columns.back * gw, gc)), (),
    )  # fmt: skip
    position = [iadd(imul(index(3 + i), stride[i]), axis.r) for i, axis in enumerate((rows, columns))]
    return ContractPiece(core, (index(2), _channel(ci), *position), _pads(0, pads))


def _conv_vjp(
    g: Any, out: Any, x: Any, w: Any, *, needs: tuple[bool, ...], algorithm: str = "direct", **how: Any
) -> Any:
    gx = conv2d_input_grad(g, w, input_shape=x.ttype.shape[2:], **how) if needs[0] else None
    gw = conv2d_weight_grad(g, x, kernel_size=w.ttype.shape[2:], **how) if needs[1] else None
    return gx, gw


def _grad_vjp(
    c: Any, out: Any, g: Any, w: Any, *, needs: tuple[bool, ...], input_shape: tuple[Size, Size], **how: Any
) -> Any:
    gg = conv2d(c, w, **how) if needs[0] else None
    gw = conv2d_weight_grad(g, c, kernel_size=w.ttype.shape[2:], **how) if needs[1] else None
    return gg, gw


def _weight_vjp(
    c: Any, out: Any, g: Any, x: Any, *, needs: tuple[bool, ...], kernel_size: tuple[Size, Size], **how: Any
) -> Any:
    gg = conv2d(x, c, **how) if needs[0] else None
    gx = conv2d_input_grad(g, c, input_shape=x.ttype.shape[2:], **how) if needs[1] else None
    return gg, gx


# (N, Ci, H, W), (Co, Ci / groups, kh, kw), attributes
_CASES: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    ((2, 3, 5, 4), (4, 3, 3, 3), {"padding": ((1, 1), (1, 1))}),
    ((1, 2, 6, 7), (3, 2, 3, 2), {"stride": (2, 2), "padding": ((1, 0), (0, 2))}),
    ((1, 2, 7, 6), (2, 2, 2, 3), {"dilation": (2, 2), "padding": ((0, 1), (2, 2))}),
    ((2, 4, 4, 5), (6, 2, 2, 3), {"groups": 2}),
    ((1, 2, 7, 9), (2, 1, 3, 3), {"groups": 2, "stride": (2, 3), "dilation": (2, 1), "padding": ((1, 1), (1, 1))}),
    ((1, 2, 5, 5), (3, 2, 1, 1), {"stride": (2, 2)}),  # residues without taps
    ((1, 0, 3, 3), (2, 0, 2, 2), {}),  # no channels: every sum is empty
    ((0, 2, 3, 3), (2, 2, 2, 2), {}),
)


def _conv_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for x, w, attrs in _CASES:
        yield Sample((rng.standard_normal(x), rng.standard_normal(w)), attrs)


def _grad_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for x, w, attrs in _CASES:
        g = _conv_infer(TensorType(float64, x), TensorType(float64, w), **attrs).sizes
        yield Sample((rng.standard_normal(g), rng.standard_normal(w)), {"input_shape": x[2:], **attrs})


def _weight_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for x, w, attrs in _CASES:
        g = _conv_infer(TensorType(float64, x), TensorType(float64, w), **attrs).sizes
        yield Sample((rng.standard_normal(g), rng.standard_normal(x)), {"kernel_size": w[2:], **attrs})


conv2d = define(
    Op(
        "conv2d",
        infer=_conv_infer,
        reference=_conv_reference,
        samples=_conv_samples,
        lower=Contraction(_conv_lower),
        vjp=_conv_vjp,
        saves=("0", "1"),
        dtypes=CONTRACTED,
        arity=2,
        doc="Cross-correlation of x [N, C, H, W] with w [O, C / groups, kh, kw]. Attributes: stride (sh, sw), "
        "padding ((top, bottom), (left, right)), dilation (dh, dw), groups, algorithm.",
    )
)

conv2d_input_grad = define(
    Op(
        "conv2d_input_grad",
        infer=_grad_infer,
        reference=_grad_reference,
        samples=_grad_samples,
        lower=Contraction(_grad_lower),
        vjp=_grad_vjp,
        saves=("0", "1"),
        dtypes=CONTRACTED,
        arity=2,
        doc="Gradient of conv2d by its input, from g [N, O, Ho, Wo] and w. Attributes: input_shape and conv2d's.",
    )
)

conv2d_weight_grad = define(
    Op(
        "conv2d_weight_grad",
        infer=_weight_infer,
        reference=_weight_reference,
        samples=_weight_samples,
        lower=Contraction(_weight_lower),
        vjp=_weight_vjp,
        saves=("0", "1"),
        dtypes=CONTRACTED,
        arity=2,
        doc="Gradient of conv2d by its filters, from g [N, O, Ho, Wo] and x. Attributes: kernel_size and conv2d's.",
    )
)
