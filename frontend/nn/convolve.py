"""Convolutions of one, two and three places, and their transposes.

The ones of one place are conv2d with a height of 1. Those of three put the depth of the filter among the channels:
windows along the depth, then one conv2d of every slice.
"""

from __future__ import annotations

from typing import Any

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.frontend.functional import pad, permute, reshape, squeeze, unsqueeze
from graphc.frontend.nn.checks import Pair, batched, float_input, pair, several, single, with_batch
from graphc.frontend.ops import ops
from graphc.frontend.tensor import Tensor

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """2-d convolution: input [N, C, H, W] (or [C, H, W]), weight [O, C/groups, kh, kw], bias [O].

    `padding` is an int, a pair, "valid" or "same" (stride 1 only). Raises ShapeError, DTypeError, ArgumentError.
    """
    x, single_ = batched("conv2d", float_input("conv2d", input))
    _one_dtype("conv2d", x, weight, bias)
    steps, holes = pair("conv2d", stride, "stride"), pair("conv2d", dilation, "dilation")
    pads = _conv_padding("conv2d", padding, steps, holes, weight)
    out: Tensor = ops.conv2d(x, weight, stride=steps, padding=pads, dilation=holes, groups=groups)
    out = _with_bias("conv2d", out, bias)
    return squeeze(out, 0) if single_ else out


def _with_bias(name: str, out: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return out
    channels = out.ttype.shape[1]
    if bias.ndim != 1 or bias.ttype.shape[0] != channels:
        raise ShapeError(
            f"{name}: bias is {bias._l.type}, expected one number for each of the {channels} output channels"
        )
    made: Tensor = ops.add(out, ops.reshape(bias, shape=(1, channels, *(1 for _ in range(out.ndim - 2)))))
    return made


def _one_dtype(name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    for what, t in (("weight", weight), ("bias", bias)):
        if not isinstance(t, Tensor) and (t is not None or what == "weight"):
            raise ArgumentError(f"{name}: {what} must be a Tensor, got {type(t).__name__}")
        if t is not None and t.dtype is not x.dtype:
            raise DTypeError(f"{name}: input is {x._l.type}, {what} is {t._l.type}; use one dtype for all")


def _conv_padding(
    name: str, padding: Pair | str, stride: tuple[int, ...], dilation: tuple[int, ...], weight: Tensor
) -> tuple[tuple[int, int], ...]:
    """Zeros before and after each place."""
    count = len(stride)
    if padding == "valid":
        return ((0, 0),) * count
    if padding == "same":
        if stride != (1,) * count:
            raise ArgumentError(f"{name}: padding='same' is not supported for strided convolutions")
        total = [d * (k - 1) for d, k in zip(dilation, weight._l.shape[2:], strict=True)]
        return tuple((t // 2, t - t // 2) for t in total)
    if isinstance(padding, str):
        raise ArgumentError(f"{name}: padding must be 'same', 'valid', an int or a tuple of ints, got {padding!r}")
    return tuple((p, p) for p in several(name, padding, "padding", count))


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """1-d convolution: input [N, C, L] (or [C, L]), weight [O, C/groups, k], bias [O].

    Raises ShapeError, DTypeError, ArgumentError.
    """
    if input.ndim not in (2, 3) or weight.ndim != 3:
        raise ShapeError(f"conv1d: expected 2D or 3D input and 3D weight, got {input._l.type} and {weight._l.type}")
    pads = padding if isinstance(padding, str) else (0, single("conv1d", padding, "padding"))
    steps, holes = (1, single("conv1d", stride, "stride")), (1, single("conv1d", dilation, "dilation"))
    return squeeze(conv2d(unsqueeze(input, -2), unsqueeze(weight, 2), bias, steps, pads, holes, groups), -2)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """3-d convolution: input [N, C, D, H, W] (or [C, D, H, W]), weight [O, C/groups, kd, kh, kw], bias [O].

    `padding` is an int, three, "valid" or "same" (stride 1 only). Raises ShapeError, DTypeError, ArgumentError.
    """
    name = "conv3d"
    x, single_ = with_batch(name, float_input(name, input), 3)
    _three_places(name, x, weight, bias)
    steps, holes = several(name, stride, "stride", 3), several(name, dilation, "dilation", 3)
    pads = _conv_padding(name, padding, steps, holes, weight)
    if any(pads[0]):
        x = pad(x, (0, 0, 0, 0, *pads[0]))
    o, per, depth, kh, kw = weight.ttype.shape
    # [N, C, D', H, W, kd] -> [N * D', C * kd, H, W]: the filter's depth lies within each channel
    found = ops.windows(x, dims=(2,), size=(depth,), stride=steps[:1], dilation=holes[:1])
    n, c, d, h, w, _ = found.ttype.shape
    flat = reshape(permute(found, (0, 2, 1, 5, 3, 4)), (n * d, c * depth, h, w))
    filters = reshape(weight, (o, per * depth, kh, kw))
    made: Tensor = ops.conv2d(flat, filters, stride=steps[1:], padding=pads[1:], dilation=holes[1:], groups=groups)
    out = permute(reshape(made, (n, d, *made.ttype.shape[1:])), (0, 2, 1, 3, 4))
    out = _with_bias(name, out, bias)
    return squeeze(out, 0) if single_ else out


def _three_places(name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    _one_dtype(name, x, weight, bias)
    if weight.ndim != 5:
        raise ShapeError(f"{name}: expected 5D weight, got {weight._l.type}")


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Tensor:
    """Transposed convolution, the gradient of conv2d by its input.

    Input [N, C, H, W] (or [C, H, W]), weight [C, O/groups, kh, kw], bias [O].
    Sizes become (size - 1) * stride - 2 * padding + dilation * (k - 1) + output_padding + 1. Raises ShapeError,
    DTypeError, ArgumentError.
    """
    name = "conv_transpose2d"
    x, single_ = batched(name, float_input(name, input))
    _one_dtype(name, x, weight, bias)
    steps, holes = pair(name, stride, "stride"), pair(name, dilation, "dilation")
    pads, more = pair(name, padding, "padding"), pair(name, output_padding, "output_padding")
    _check_more(name, more, steps, holes)
    out = _with_bias(name, _spread(x, weight, steps, pads, more, holes, groups), bias)
    return squeeze(out, 0) if single_ else out


def _check_more(name: str, more: tuple[int, ...], steps: tuple[int, ...], holes: tuple[int, ...]) -> None:
    if any(m >= max(s, d) for m, s, d in zip(more, steps, holes, strict=True)):
        raise ArgumentError(f"{name}: output padding must be smaller than either stride or dilation, got {more}")


def _spread(
    x: Tensor,
    weight: Tensor,
    steps: tuple[int, ...],
    pads: tuple[int, ...],
    more: tuple[int, ...],
    holes: tuple[int, ...],
    groups: int,
) -> Tensor:
    """The gradient of conv2d: `x` [N, C, H, W] by `weight` [C, O/groups, kh, kw]."""
    sizes: list[Any] = [
        n * s + (d * (k - 1) + m + 1 - s - 2 * p)
        for n, s, d, k, m, p in zip(x.ttype.shape[2:], steps, holes, weight._l.shape[2:], more, pads, strict=True)
    ]
    both = tuple((p, p) for p in pads)
    made: Tensor = ops.conv2d_input_grad(
        x, weight, input_shape=tuple(sizes), stride=steps, padding=both, dilation=holes, groups=groups
    )
    return made


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Tensor:
    """Transposed 1-d convolution: input [N, C, L] (or [C, L]), weight [C, O/groups, k], bias [O].

    Raises ShapeError, DTypeError, ArgumentError.
    """
    name = "conv_transpose1d"
    if input.ndim not in (2, 3) or weight.ndim != 3:
        raise ShapeError(f"{name}: expected 2D or 3D input and 3D weight, got {input._l.type} and {weight._l.type}")
    steps, holes = (1, single(name, stride, "stride")), (1, single(name, dilation, "dilation"))
    pads, more = (0, single(name, padding, "padding")), (0, single(name, output_padding, "output_padding"))
    made = conv_transpose2d(unsqueeze(input, -2), unsqueeze(weight, 2), bias, steps, pads, more, groups, holes)
    return squeeze(made, -2)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Tensor:
    """Transposed 3-d convolution: input [N, C, D, H, W] (or [C, D, H, W]), weight [C, O/groups, kd, kh, kw], bias [O].

    Raises ShapeError, DTypeError, ArgumentError.
    """
    name = "conv_transpose3d"
    x, single_ = with_batch(name, float_input(name, input), 3)
    _three_places(name, x, weight, bias)
    steps, holes = several(name, stride, "stride", 3), several(name, dilation, "dilation", 3)
    pads, more = several(name, padding, "padding", 3), several(name, output_padding, "output_padding", 3)
    _check_more(name, more, steps, holes)
    n, c, d, h, w = x.ttype.shape
    _, per, depth, kh, kw = weight.ttype.shape
    flat = reshape(permute(x, (0, 2, 1, 3, 4)), (n * d, c, h, w))
    filters = reshape(weight, (c, per * depth, kh, kw))
    made = _spread(flat, filters, steps[1:], pads[1:], more[1:], holes[1:], groups)
    # [N * D, O * kd, H', W'] -> windows [N, O, D, H', W', kd] that overlap along the depth
    high, wide = made.ttype.shape[2:]
    found = permute(reshape(made, (n, d, per * groups, depth, high, wide)), (0, 2, 1, 4, 5, 3))
    span = (d - 1) * steps[0] + holes[0] * (depth - 1) + 1
    out: Tensor = ops.windows_grad(
        found, shape=(n, per * groups, span, high, wide), dims=(2,), size=(depth,), stride=steps[:1],
        dilation=holes[:1],
    )  # fmt: skip
    if pads[0] or more[0]:
        out = pad(out, (0, 0, 0, 0, -pads[0], more[0] - pads[0]))
    out = _with_bias(name, out, bias)
    return squeeze(out, 0) if single_ else out
