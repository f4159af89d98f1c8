"""Functions on images: convolution, pooling, resizing."""

from __future__ import annotations

from typing import Any

from graphc.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from graphc.frontend.functional import expand, pad, permute, reshape, squeeze, unsqueeze
from graphc.frontend.nn.checks import Pair, batched, float_input, pair, single
from graphc.frontend.ops import ops
from graphc.frontend.tensor import Tensor

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "interpolate",
    "max_pool1d",
    "max_pool2d",
    "pad",
    "pixel_shuffle",
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
    pads = _conv_padding(padding, steps, holes, weight)
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
    made: Tensor = ops.add(out, ops.reshape(bias, shape=(1, channels, 1, 1)))
    return made


def _one_dtype(name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    for what, t in (("weight", weight), ("bias", bias)):
        if t is not None and t.dtype is not x.dtype:
            raise DTypeError(f"{name}: input is {x._l.type}, {what} is {t._l.type}; use one dtype for all")


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
    if any(m >= max(s, d) for m, s, d in zip(more, steps, holes, strict=True)):
        raise ArgumentError(f"{name}: output padding must be smaller than either stride or dilation, got {more}")
    sizes: list[Any] = [
        n * s + (d * (k - 1) + m + 1 - s - 2 * p)
        for n, s, d, k, m, p in zip(x.ttype.shape[2:], steps, holes, weight._a.shape[2:], more, pads, strict=True)
    ]
    both = tuple((p, p) for p in pads)
    made: Tensor = ops.conv2d_input_grad(
        x, weight, input_shape=tuple(sizes), stride=steps, padding=both, dilation=holes, groups=groups
    )
    out = _with_bias(name, made, bias)
    return squeeze(out, 0) if single_ else out


def _conv_padding(
    padding: Pair | str, stride: tuple[int, int], dilation: tuple[int, int], weight: Tensor
) -> tuple[tuple[int, int], tuple[int, int]]:
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        if stride != (1, 1):
            raise ArgumentError("conv2d: padding='same' is not supported for strided convolutions")
        total = [d * (k - 1) for d, k in zip(dilation, weight._a.shape[2:], strict=True)]
        return (total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2)
    if isinstance(padding, str):
        raise ArgumentError(f"conv2d: padding must be 'same', 'valid', an int or a pair, got {padding!r}")
    h, w = pair("conv2d", padding, "padding")
    return (h, h), (w, w)


def max_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of [N, C, H, W]; with `return_indices` also where it was in the H*W plane.

    The stride defaults to the kernel size.
    """
    x, single_ = batched("max_pool2d", float_input("max_pool2d", input))
    kernel = pair("max_pool2d", kernel_size, "kernel_size")
    values, indices = ops.max_pool2d(
        x,
        kernel=kernel,
        stride=kernel if stride is None or stride == () else pair("max_pool2d", stride, "stride"),
        padding=pair("max_pool2d", padding, "padding"),
        dilation=pair("max_pool2d", dilation, "dilation"),
        ceil_mode=ceil_mode,
    )
    if single_:
        values, indices = squeeze(values, 0), squeeze(indices, 0)
    return (values, indices) if return_indices else values


def avg_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean over windows of [N, C, H, W]. The stride defaults to the kernel size."""
    if divisor_override is not None:
        raise UnsupportedError("avg_pool2d: divisor_override is not supported; scale the result instead")
    x, single_ = batched("avg_pool2d", float_input("avg_pool2d", input))
    kernel = pair("avg_pool2d", kernel_size, "kernel_size")
    out: Tensor = ops.avg_pool2d(
        x,
        kernel=kernel,
        stride=kernel if stride is None else pair("avg_pool2d", stride, "stride"),
        padding=pair("avg_pool2d", padding, "padding"),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )
    return squeeze(out, 0) if single_ else out


def max_pool1d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of [N, C, L] (or [C, L]); with `return_indices` also where it was."""
    size = single("max_pool1d", kernel_size, "kernel_size")
    step = size if stride is None or stride == () else single("max_pool1d", stride, "stride")
    edge, hole = single("max_pool1d", padding, "padding"), single("max_pool1d", dilation, "dilation")
    if input.ndim not in (2, 3):
        raise ShapeError(f"max_pool1d: expected 2D (unbatched) or 3D (batched) input, got {input._l.type}")
    found = max_pool2d(unsqueeze(input, -2), (1, size), (1, step), (0, edge), (1, hole), ceil_mode, return_indices)
    return tuple(squeeze(x, -2) for x in found) if return_indices else squeeze(found, -2)


def adaptive_avg_pool2d(input: Tensor, output_size: int | tuple[int | None, ...]) -> Tensor:
    """Mean over equal windows of [N, C, H, W], so many that the result has the given size (None: as the input).

    Raises UnsupportedError where the windows would not be equal: each size must be a multiple of the output's.
    """
    x, single_ = batched("adaptive_avg_pool2d", float_input("adaptive_avg_pool2d", input))
    given = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    sizes = x._a.shape[2:]
    wanted = [n if o is None else o for o, n in zip(given, sizes, strict=True)]
    if any(o <= 0 or n % o for o, n in zip(wanted, sizes, strict=True)):
        raise UnsupportedError(
            f"adaptive_avg_pool2d: the sizes of {x._l.type} must be multiples of the output size {tuple(wanted)}"
        )
    kernel = tuple(n // o for n, o in zip(sizes, wanted, strict=True))
    out: Tensor = ops.avg_pool2d(
        x, kernel=kernel, stride=kernel, padding=(0, 0), ceil_mode=False, count_include_pad=True
    )
    return squeeze(out, 0) if single_ else out


def interpolate(
    input: Tensor,
    size: Pair | None = None,
    scale_factor: float | tuple[float, ...] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """[N, C, H, W] enlarged by whole factors, each element repeated.

    Raises UnsupportedError for other modes and factors, ArgumentError unless one of size and scale_factor is given.
    """
    x, single_ = batched("interpolate", input)
    if (size is None) == (scale_factor is None):
        raise ArgumentError("interpolate: give either size or scale_factor")
    sizes = x._a.shape[2:]
    if size is not None:
        scales = [o / n for o, n in zip(pair("interpolate", size, "size"), sizes, strict=True)]
    else:
        scales = [scale_factor] * 2 if isinstance(scale_factor, (int, float)) else list(scale_factor or ())
    if mode != "nearest" or any(s != int(s) or s < 1 for s in scales):
        raise UnsupportedError(
            f"interpolate: mode 'nearest' with whole factors is supported, got {mode!r} and {scales}"
        )
    if align_corners is not None:
        raise ArgumentError("interpolate: align_corners can only be set with interpolating modes, not 'nearest'")
    up, across = (int(s) for s in scales)
    n, c, h, w = x.ttype.shape
    spread = expand(reshape(x, (n, c, h, 1, w, 1)), (n, c, h, up, w, across))
    out = reshape(spread, (n, c, h * up, w * across))
    return squeeze(out, 0) if single_ else out


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """[N, C * r * r, H, W] -> [N, C, H * r, W * r]. Raises ShapeError."""
    x, single_ = batched("pixel_shuffle", input)
    r = upscale_factor
    n, c, h, w = x.ttype.shape
    if x._a.shape[1] % (r * r):
        raise ShapeError(f"pixel_shuffle: the channels of {x._l.type} must be a multiple of {r}^2")
    split = reshape(x, (n, c // (r * r), r, r, h, w))
    out = reshape(permute(split, (0, 1, 4, 2, 5, 3)), (n, c // (r * r), h * r, w * r))
    return squeeze(out, 0) if single_ else out
