"""Layers that resize and pad images, and move channels to places and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontend.nn import functional as F
from graphc.frontend.nn.checks import Pair, several
from graphc.frontend.nn.module import Module
from graphc.frontend.tensor import Tensor

__all__ = [
    "ChannelShuffle",
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "Fold",
    "PixelShuffle",
    "PixelUnshuffle",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "Unfold",
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


class Upsample(Module):
    """[N, C, *places] with other sizes; see interpolate."""

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        if isinstance(scale_factor, tuple):
            self.scale_factor: Any = tuple(float(factor) for factor in scale_factor)
        else:
            self.scale_factor = None if scale_factor is None else float(scale_factor)
        self.size, self.mode, self.align_corners = size, mode, align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, *places] -> [N, C, *places']."""
        return F.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        """Size or factor, and mode."""
        what = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{what}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Upsample of images by the nearest element."""

    def __init__(self, size: Pair | None = None, scale_factor: float | tuple[float, float] | None = None) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """Upsample of images by bilinear weights, with aligned corners."""

    def __init__(self, size: Pair | None = None, scale_factor: float | tuple[float, float] | None = None) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)


class PixelShuffle(Module):
    """[N, C * r * r, H, W] -> [N, C, H * r, W * r]."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        """Channels become places."""
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        """The factor."""
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """[N, C, H * r, W * r] -> [N, C * r * r, H, W]."""

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        """Places become channels."""
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        """The factor."""
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """The channels of `groups` groups dealt out in turn."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as the input, [N, C, …]."""
        return F.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        """The number of groups."""
        return f"groups={self.groups}"


class Unfold(Module):
    """The blocks of [N, C, H, W] as columns [N, C * kh * kw, blocks]."""

    def __init__(self, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1) -> None:
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C * kh * kw, blocks]."""
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """Sizes."""
        text = f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}"
        return f"{text}, stride={self.stride}"


class Fold(Module):
    """Columns [N, C * kh * kw, blocks] added up to [N, C, *output_size]."""

    def __init__(
        self, output_size: Pair, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1
    ) -> None:
        super().__init__()
        self.output_size, self.kernel_size, self.dilation = output_size, kernel_size, dilation
        self.padding, self.stride = padding, stride

    def forward(self, input: Tensor) -> Tensor:
        """[N, C * kh * kw, blocks] -> [N, C, *output_size]."""
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """Sizes."""
        text = f"output_size={self.output_size}, kernel_size={self.kernel_size}, dilation={self.dilation}"
        return f"{text}, padding={self.padding}, stride={self.stride}"


class _Pad(Module):
    """Elements around the places of [N, C, *places]: two numbers a place, the last place first, or one for all."""

    mode = "constant"
    rank = 2

    def __init__(self, padding: Pair) -> None:
        super().__init__()
        self.padding = several(type(self).__name__, padding, "padding", 2 * self.rank)

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, *places] -> [N, C, *larger places]."""
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        """The numbers."""
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding: Pair, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, *places] -> [N, C, *larger places]."""
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        """The numbers and the value."""
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: Pair) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        """The numbers."""
        return f"{self.padding}"


class ConstantPad1d(_ConstantPad):
    """One value around [N, C, L]: (left, right), or one number for all."""

    rank = 1


class ConstantPad2d(_ConstantPad):
    """One value around [N, C, H, W]: (left, right, top, bottom), or one number for all."""


class ConstantPad3d(_ConstantPad):
    """One value around [N, C, D, H, W]: (left, right, top, bottom, front, back), or one number for all."""

    rank = 3


class ZeroPad1d(_ZeroPad):
    """Zeros around [N, C, L]: (left, right), or one number for all."""

    rank = 1


class ZeroPad2d(_ZeroPad):
    """Zeros around [N, C, H, W]: (left, right, top, bottom), or one number for all."""


class ZeroPad3d(_ZeroPad):
    """Zeros around [N, C, D, H, W]: (left, right, top, bottom, front, back), or one number for all."""

    rank = 3


class ReflectionPad1d(_Pad):
    """Continuation by reflection of [N, C, L]: (left, right), or one number for all."""

    rank = 1
    mode = "reflect"


class ReflectionPad2d(_Pad):
    """Continuation by reflection of [N, C, H, W]: (left, right, top, bottom), or one number for all."""

    mode = "reflect"


class ReflectionPad3d(_Pad):
    """Continuation by reflection of [N, C, D, H, W]: (left, right, top, bottom, front, back), or one number for all."""

    rank = 3
    mode = "reflect"


class ReplicationPad1d(_Pad):
    """Continuation by the border of [N, C, L]: (left, right), or one number for all."""

    rank = 1
    mode = "replicate"


class ReplicationPad2d(_Pad):
    """Continuation by the border of [N, C, H, W]: (left, right, top, bottom), or one number for all."""

    mode = "replicate"


class ReplicationPad3d(_Pad):
    """Continuation by the border of [N, C, D, H, W]: (left, right, top, bottom, front, back), or one number for all."""

    rank = 3
    mode = "replicate"


class CircularPad1d(_Pad):
    """Continuation from the other side of [N, C, L]: (left, right), or one number for all."""

    rank = 1
    mode = "circular"


class CircularPad2d(_Pad):
    """Continuation from the other side of [N, C, H, W]: (left, right, top, bottom), or one number for all."""

    mode = "circular"


class CircularPad3d(_Pad):
    """Continuation from the other side of [N, C, D, H, W]: (left, right, top, bottom, front, back), or one
    number for all.
    """

    rank = 3
    mode = "circular"
