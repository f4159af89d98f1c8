"""Pooling over one, two or three places."""

from __future__ import annotations

from typing import Any

from graphc.errors import ShapeError
from graphc.frontend.functional import gather, pad, reshape, squeeze, unsqueeze
from graphc.frontend.nn.checks import Pair, batched, float_input, pair, several, single, with_batch
from graphc.frontend.ops import ops
from graphc.frontend.tensor import Tensor

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
]

Steps = Pair | None


def _stride(name: str, stride: Steps, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """The stride, which defaults to the kernel's size."""
    return kernel if stride is None or stride == () else several(name, stride, "stride", len(kernel))


def max_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Steps = None,
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
        stride=_stride("max_pool2d", stride, kernel),
        padding=pair("max_pool2d", padding, "padding"),
        dilation=pair("max_pool2d", dilation, "dilation"),
        ceil_mode=ceil_mode,
    )
    if single_:
        values, indices = squeeze(values, 0), squeeze(indices, 0)
    return (values, indices) if return_indices else values


def max_pool1d(
    input: Tensor,
    kernel_size: Pair,
    stride: Steps = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of [N, C, L] (or [C, L]); with `return_indices` also where it was."""
    size = single("max_pool1d", kernel_size, "kernel_size")
    (step,) = _stride("max_pool1d", stride, (size,))
    edge, hole = single("max_pool1d", padding, "padding"), single("max_pool1d", dilation, "dilation")
    x = _line("max_pool1d", input)
    found = max_pool2d(x, (1, size), (1, step), (0, edge), (1, hole), ceil_mode, return_indices)
    return tuple(squeeze(x, -2) for x in found) if return_indices else squeeze(found, -2)


def _line(name: str, input: Tensor) -> Tensor:
    """[N, C, L] as an image of height 1. Raises ShapeError."""
    if input.ndim not in (2, 3):
        raise ShapeError(f"{name}: expected 2D (unbatched) or 3D (batched) input, got {input._l.type}")
    return unsqueeze(input, -2)


def max_pool3d(
    input: Tensor,
    kernel_size: Pair,
    stride: Steps = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of [N, C, D, H, W]; with `return_indices` also where it was in the D*H*W block."""
    name = "max_pool3d"
    x, single_ = with_batch(name, float_input(name, input), 3)
    kernel = several(name, kernel_size, "kernel_size", 3)
    steps = _stride(name, stride, kernel)
    edges, holes = several(name, padding, "padding", 3), several(name, dilation, "dilation", 3)
    n, c, d, h, w = x.ttype.shape
    # every slice first, then along the depth: the first of equals is the same one
    planes, inside = max_pool2d(
        reshape(x, (n, c * d, h, w)), kernel[1:], steps[1:], edges[1:], holes[1:], ceil_mode, True
    )
    high, wide = planes.ttype.shape[2:]
    columns = reshape(planes, (n, c, d, high * wide))
    values, indices = max_pool2d(columns, (kernel[0], 1), (steps[0], 1), (edges[0], 0), (holes[0], 1), ceil_mode, True)
    shape = (*values.ttype.shape[:3], high, wide)
    flat = reshape(indices, (n, c, shape[2] * high * wide))
    plane = gather(reshape(inside, (n, c, d * high * wide)), 2, flat)
    places = reshape((flat // (high * wide)) * (h * w) + plane, shape)
    values = reshape(values, shape)
    if single_:
        values, places = squeeze(values, 0), squeeze(places, 0)
    return (values, places) if return_indices else values


def avg_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Steps = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean over windows of [N, C, H, W]. The stride defaults to the kernel size.

    `count_include_pad` says whether zeros of the padding count; `divisor_override` divides by that number.
    """
    x, single_ = batched("avg_pool2d", float_input("avg_pool2d", input))
    kernel = pair("avg_pool2d", kernel_size, "kernel_size")
    steps, edges = _stride("avg_pool2d", stride, kernel), pair("avg_pool2d", padding, "padding")
    if divisor_override is not None:
        out = _window_sum(x, kernel, steps, edges, ceil_mode) / divisor_override
    else:
        out = ops.avg_pool2d(
            x, kernel=kernel, stride=steps, padding=edges, ceil_mode=ceil_mode, count_include_pad=count_include_pad
        )
    return squeeze(out, 0) if single_ else out


def _window_sum(
    x: Tensor, kernel: tuple[int, ...], steps: tuple[int, ...], edges: tuple[int, ...], ceil_mode: bool
) -> Tensor:
    """Sums over windows of the last axes of `x`, with zeros around."""
    from graphc.ir.ops.pool import pooled_size  # the op table is loaded by the first operation

    count = len(kernel)
    behind = [pooled_size(x.ttype.shape[2 + k], kernel[k], steps[k], edges[k], 1, ceil_mode)[1] for k in range(count)]
    widths = [p for k in reversed(range(count)) for p in (edges[k], behind[k])]
    dims = tuple(range(2, 2 + count))
    found: Tensor = ops.windows(pad(x, widths), dims=dims, size=kernel, stride=steps, dilation=(1,) * count)
    return found.sum(tuple(range(2 + count, 2 + 2 * count)))


def avg_pool1d(
    input: Tensor,
    kernel_size: Pair,
    stride: Steps = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Mean over windows of [N, C, L] (or [C, L]). The stride defaults to the kernel size."""
    size = single("avg_pool1d", kernel_size, "kernel_size")
    (step,) = _stride("avg_pool1d", stride, (size,))
    edge = single("avg_pool1d", padding, "padding")
    x = _line("avg_pool1d", input)
    return squeeze(avg_pool2d(x, (1, size), (1, step), (0, edge), ceil_mode, count_include_pad), -2)


def avg_pool3d(
    input: Tensor,
    kernel_size: Pair,
    stride: Steps = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean over windows of [N, C, D, H, W]: of every slice first, then along the depth."""
    name = "avg_pool3d"
    x, single_ = with_batch(name, float_input(name, input), 3)
    kernel = several(name, kernel_size, "kernel_size", 3)
    steps, edges = _stride(name, stride, kernel), several(name, padding, "padding", 3)
    if divisor_override is not None:
        out = _window_sum(x, kernel, steps, edges, ceil_mode) / divisor_override
        return squeeze(out, 0) if single_ else out
    n, c, d, h, w = x.ttype.shape
    planes = avg_pool2d(reshape(x, (n, c * d, h, w)), kernel[1:], steps[1:], edges[1:], ceil_mode, count_include_pad)
    high, wide = planes.ttype.shape[2:]
    columns = reshape(planes, (n, c, d, high * wide))
    found = avg_pool2d(columns, (kernel[0], 1), (steps[0], 1), (edges[0], 0), ceil_mode, count_include_pad)
    out = reshape(found, (*found.ttype.shape[:3], high, wide))
    return squeeze(out, 0) if single_ else out


def _power_mean(pooled: Tensor, norm_type: float, count: int) -> Tensor:
    """(count * pooled) ** (1 / norm_type), with PyTorch's treatment of negative sums."""
    return ((pooled.sign() * pooled.abs().relu()) * count).pow(1.0 / norm_type)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Pair, stride: Steps = None, ceil_mode: bool = False
) -> Tensor:
    """(sum of x ** norm_type over windows of [N, C, L]) ** (1 / norm_type)."""
    size = single("lp_pool1d", kernel_size, "kernel_size")
    return _power_mean(avg_pool1d(input.pow(norm_type), size, stride, 0, ceil_mode), norm_type, size)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Pair, stride: Steps = None, ceil_mode: bool = False
) -> Tensor:
    """(sum of x ** norm_type over windows of [N, C, H, W]) ** (1 / norm_type)."""
    kh, kw = pair("lp_pool2d", kernel_size, "kernel_size")
    return _power_mean(avg_pool2d(input.pow(norm_type), (kh, kw), stride, 0, ceil_mode), norm_type, kh * kw)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Pair, stride: Steps = None, ceil_mode: bool = False
) -> Tensor:
    """(sum of x ** norm_type over windows of [N, C, D, H, W]) ** (1 / norm_type)."""
    sizes = several("lp_pool3d", kernel_size, "kernel_size", 3)
    count = sizes[0] * sizes[1] * sizes[2]
    return _power_mean(avg_pool3d(input.pow(norm_type), sizes, stride, 0, ceil_mode), norm_type, count)
