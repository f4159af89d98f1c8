"""Layers that pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontend.nn import functional as F
from graphc.frontend.nn.adaptive import Sizes
from graphc.frontend.nn.checks import Pair, several
from graphc.frontend.nn.module import Module
from graphc.frontend.tensor import Tensor

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
]


class _MaxPool(Module):
    """Maximum over windows."""

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

    def _settings(self) -> tuple[Any, ...]:
        return self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices

    def extra_repr(self) -> str:
        """Sizes and mode."""
        text = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return f"{text}, dilation={self.dilation}, ceil_mode={self.ceil_mode}"


class MaxPool1d(_MaxPool):
    """Maximum over windows of [N, C, L]."""

    def forward(self, input: Tensor) -> Any:
        """[N, C, L] -> [N, C, L']; with return_indices also the places."""
        return F.max_pool1d(input, *self._settings())


class MaxPool2d(_MaxPool):
    """Maximum over windows of [N, C, H, W]."""

    def forward(self, input: Tensor) -> Any:
        """[N, C, H, W] -> [N, C, H', W']; with return_indices also the places."""
        return F.max_pool2d(input, *self._settings())


class MaxPool3d(_MaxPool):
    """Maximum over windows of [N, C, D, H, W]."""

    def forward(self, input: Tensor) -> Any:
        """[N, C, D, H, W] -> [N, C, D', H', W']; with return_indices also the places."""
        return F.max_pool3d(input, *self._settings())


class AvgPool1d(Module):
    """Mean over windows of [N, C, L]."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.kernel_size = several(name, kernel_size, "kernel_size", 1)
        self.stride = several(name, stride if stride is not None else kernel_size, "stride", 1)
        self.padding = several(name, padding, "padding", 1)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, L] -> [N, C, L']."""
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(Module):
    """Mean over windows of [N, C, H, W]."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode, self.count_include_pad = padding, ceil_mode, count_include_pad
        self.divisor_override = divisor_override

    def _settings(self) -> tuple[Any, ...]:
        sizes = (self.kernel_size, self.stride, self.padding)
        return *sizes, self.ceil_mode, self.count_include_pad, self.divisor_override

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H', W']."""
        return F.avg_pool2d(input, *self._settings())

    def extra_repr(self) -> str:
        """Sizes."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool3d(AvgPool2d):
    """Mean over windows of [N, C, D, H, W]."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, D, H, W] -> [N, C, D', H', W']."""
        return F.avg_pool3d(input, *self._settings())


class _LPPool(Module):
    """(sum of x ** norm_type over windows) ** (1 / norm_type)."""

    def __init__(
        self, norm_type: float, kernel_size: Pair, stride: Pair | None = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.norm_type, self.kernel_size, self.stride, self.ceil_mode = norm_type, kernel_size, stride, ceil_mode

    def extra_repr(self) -> str:
        """The power, sizes and mode."""
        text = f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}"
        return f"{text}, ceil_mode={self.ceil_mode}"


class LPPool1d(_LPPool):
    """(sum of x ** norm_type over windows of [N, C, L]) ** (1 / norm_type)."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, L] -> [N, C, L']."""
        return F.lp_pool1d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class LPPool2d(_LPPool):
    """(sum of x ** norm_type over windows of [N, C, H, W]) ** (1 / norm_type)."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H', W']."""
        return F.lp_pool2d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class LPPool3d(_LPPool):
    """(sum of x ** norm_type over windows of [N, C, D, H, W]) ** (1 / norm_type)."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, D, H, W] -> [N, C, D', H', W']."""
        return F.lp_pool3d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class _MaxUnpool(Module):
    """Zeros, and maxima where they were found; the stride defaults to the kernel size."""

    rank = 2

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        super().__init__()
        name = type(self).__name__
        self.kernel_size = several(name, kernel_size, "kernel_size", self.rank)
        self.stride = several(name, stride if stride is not None else kernel_size, "stride", self.rank)
        self.padding = several(name, padding, "padding", self.rank)

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """[N, C, *places] and the places found -> [N, C, *larger places]."""
        run = (F.max_unpool1d, F.max_unpool2d, F.max_unpool3d)[self.rank - 1]
        return run(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """The opposite of MaxPool1d."""

    rank = 1


class MaxUnpool2d(_MaxUnpool):
    """The opposite of MaxPool2d."""


class MaxUnpool3d(_MaxUnpool):
    """The opposite of MaxPool3d."""

    rank = 3


class _Adaptive(Module):
    """Pooling to a given size (None: the size of the input)."""

    output_size: Sizes

    def extra_repr(self) -> str:
        """The size."""
        return f"output_size={self.output_size}"


class _AdaptiveAvg(_Adaptive):
    def __init__(self, output_size: Sizes) -> None:
        super().__init__()
        self.output_size = output_size


class AdaptiveAvgPool1d(_AdaptiveAvg):
    """Mean over windows of [N, C, L], so many that the result has `output_size`."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, L] -> [N, C, output_size]."""
        return F.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(_AdaptiveAvg):
    """Mean over windows of [N, C, H, W], so many that the result has `output_size`."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, *output_size]."""
        return F.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveAvgPool3d(_AdaptiveAvg):
    """Mean over windows of [N, C, D, H, W], so many that the result has `output_size`."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, D, H, W] -> [N, C, *output_size]."""
        return F.adaptive_avg_pool3d(input, self.output_size)


class _AdaptiveMax(_Adaptive):
    def __init__(self, output_size: Sizes, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size, self.return_indices = output_size, return_indices


class AdaptiveMaxPool1d(_AdaptiveMax):
    """Maximum over windows of [N, C, L], so many that the result has `output_size`."""

    def forward(self, input: Tensor) -> Any:
        """[N, C, L] -> [N, C, output_size]; with return_indices also the places."""
        return F.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(_AdaptiveMax):
    """Maximum over windows of [N, C, H, W], so many that the result has `output_size`."""

    def forward(self, input: Tensor) -> Any:
        """[N, C, H, W] -> [N, C, *output_size]; with return_indices also the places."""
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool3d(_AdaptiveMax):
    """Maximum over windows of [N, C, D, H, W], so many that the result has `output_size`."""

    def forward(self, input: Tensor) -> Any:
        """[N, C, D, H, W] -> [N, C, *output_size]; with return_indices also the places."""
        return F.adaptive_max_pool3d(input, self.output_size, self.return_indices)
