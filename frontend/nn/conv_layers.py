"""Convolution layers."""

from __future__ import annotations

import math
from typing import Any

from graphc.errors import ArgumentError, UnsupportedError
from graphc.frontend.creation import empty
from graphc.frontend.device import check_device
from graphc.frontend.nn import functional as F
from graphc.frontend.nn import init
from graphc.frontend.nn.checks import Pair, pair, single
from graphc.frontend.nn.layers import fill_bias
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType

__all__ = ["Conv1d", "Conv2d", "ConvTranspose2d"]


class _Conv(Module):
    """What the convolutions share: settings as tuples, parameters, their starting values."""

    rank = 2
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        check_device(type(self).__name__, device)
        name = type(self).__name__
        if padding_mode != "zeros":
            raise UnsupportedError(f"{name}: padding_mode is 'zeros', got {padding_mode!r}; pad with F.pad instead")
        if groups <= 0 or in_channels % groups or out_channels % groups:
            raise ArgumentError(
                f"{name}: in_channels {in_channels} and out_channels {out_channels} "
                f"must be divisible by groups {groups}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = self._sizes(kernel_size, "kernel_size")
        self.stride = self._sizes(stride, "stride")
        self.padding = padding if isinstance(padding, str) else self._sizes(padding, "padding")
        self.dilation = self._sizes(dilation, "dilation")
        self.weight = Parameter(empty(*self._channels(), *self.kernel_size, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_channels, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def _sizes(self, value: Pair, what: str) -> tuple[int, ...]:
        name = type(self).__name__
        return pair(name, value, what) if self.rank == 2 else (single(name, value, what),)

    def _channels(self) -> tuple[int, int]:
        return self.out_channels, self.in_channels // self.groups

    def reset_parameters(self) -> None:
        """Uniform on +-1/sqrt(fan_in), as PyTorch."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        fill_bias(self)

    def extra_repr(self) -> str:
        """Channels, sizes and what differs from the defaults."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.rank:
            text += f", padding={self.padding!r}" if not isinstance(self.padding, str) else f", padding={self.padding}"
        if self.dilation != (1,) * self.rank:
            text += f", dilation={self.dilation}"
        text += self._more()
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text if self.bias is not None else text + ", bias=False"

    def _more(self) -> str:
        return ""


class Conv2d(_Conv):
    """2-d convolution: [N, in_channels, H, W] -> [N, out_channels, H', W']; weight [out, in/groups, kh, kw]."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] (or [C, H, W]) -> [N, O, H', W']."""
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv1d(_Conv):
    """1-d convolution: [N, in_channels, L] -> [N, out_channels, L']; weight [out, in/groups, k]."""

    rank = 1

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, L] (or [C, L]) -> [N, O, L']."""
        return F.conv1d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose2d(_Conv):
    """Transposed convolution: [N, in_channels, H, W] -> [N, out_channels, H', W']; weight [in, out/groups, kh, kw]."""

    padding: tuple[int, ...]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Pair = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self.output_padding = self._sizes(output_padding, "output_padding")

    def _channels(self) -> tuple[int, int]:
        return self.in_channels, self.out_channels // self.groups

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] (or [C, H, W]) -> [N, O, H', W']."""
        return F.conv_transpose2d(
            input, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )

    def _more(self) -> str:
        return "" if self.output_padding == (0, 0) else f", output_padding={self.output_padding}"
