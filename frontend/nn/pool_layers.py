"""Layers that pool, resize and pad images."""

from __future__ import annotations

from typing import Any

from graphc.frontend.nn import functional as F
from graphc.frontend.nn.checks import Pair
from graphc.frontend.nn.module import Module
from graphc.frontend.tensor import Tensor

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "MaxPool1d",
    "MaxPool2d",
    "PixelShuffle",
    "ReflectionPad2d",
    "ReplicationPad2d",
    "Upsample",
    "ZeroPad2d",
]


class MaxPool2d(Module):
    """Maximum over windows of [N, C, H, W]."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        dilation: Pair = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.return_indices, self.ceil_mode = padding, dilation, return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        """[N, C, H, W] -> [N, C, H', W']; with return_indices also the places."""
        return F.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self) -> str:
        text = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return f"{text}, dilation={self.dilation}, ceil_mode={self.ceil_mode}"


class MaxPool1d(MaxPool2d):
    """Maximum over windows of [N, C, L]."""

    def forward(self, input: Tensor) -> Any:
        """[N, C, L] -> [N, C, L']; with return_indices also the places."""
        return F.max_pool1d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )


class AvgPool2d(Module):
    """Mean over windows of [N, C, H, W]."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode, self.count_include_pad = padding, ceil_mode, count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H', W']."""
        return F.avg_pool2d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """Mean over equal windows of [N, C, H, W], so many that the result has `output_size`."""

    def __init__(self, output_size: int | tuple[int | None, ...]) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, *output_size]."""
        return F.adaptive_avg_pool2d(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class Upsample(Module):
    """[N, C, H, W] enlarged by whole factors, each element repeated."""

    def __init__(
        self,
        size: Pair | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
    ) -> None:
        super().__init__()
        scale = scale_factor if scale_factor is None or isinstance(scale_factor, tuple) else float(scale_factor)
        self.size, self.scale_factor, self.mode, self.align_corners = size, scale, mode, align_corners

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H', W']."""
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        what = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{what}, mode={self.mode!r}"


class PixelShuffle(Module):
    """[N, C * r * r, H, W] -> [N, C, H * r, W * r]."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        """Channels become places."""
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class _Pad2d(Module):
    """Elements around images: (left, right, top, bottom), or one number for all."""

    mode = "constant"

    def __init__(self, padding: int | tuple[int, int, int, int]) -> None:
        super().__init__()
        self.padding = (padding,) * 4 if isinstance(padding, int) else tuple(padding)

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H + top + bottom, W + left + right]."""
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        """The four numbers."""
        return f"{self.padding}"


class ZeroPad2d(_Pad2d):
    """Zeros around images: (left, right, top, bottom), or one number for all."""


class ReflectionPad2d(_Pad2d):
    """Images continued by reflection at the border: (left, right, top, bottom), or one number for all."""

    mode = "reflect"


class ReplicationPad2d(_Pad2d):
    """Images continued by their border: (left, right, top, bottom), or one number for all."""

    mode = "replicate"
