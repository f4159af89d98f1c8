"""Convolution layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.creation import empty
from graphc.frontend.device import check_device
from graphc.frontend.nn import functional as F
from graphc.frontend.nn import init
from graphc.frontend.nn.checks import Pair, counts, several
from graphc.frontend.nn.layers import fill_bias
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

_MODES = ("zeros", "reflect", "replicate", "circular")


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
        if padding_mode not in _MODES:
            raise ArgumentError(f"{name}: padding_mode must be one of {', '.join(_MODES)}, got {padding_mode!r}")
        if isinstance(padding, str) and padding not in ("valid", "same"):
            raise ArgumentError(f"{name}: padding must be 'valid', 'same', an int or ints, got {padding!r}")
        counts(name, in_channels=in_channels, out_channels=out_channels)
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
        self.padding_mode = padding_mode
        self.weight = Parameter(empty(*self._channels(), *self.kernel_size, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_channels, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def _sizes(self, value: Pair, what: str) -> tuple[int, ...]:
        return several(type(self).__name__, value, what, self.rank)

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
        text += "" if self.bias is not None else ", bias=False"
        return text if self.padding_mode == "zeros" else text + f", padding_mode={self.padding_mode}"

    def _more(self) -> str:
        return ""

    def _padded(self, input: Tensor) -> tuple[Tensor, tuple[int, ...] | str]:
        """The input continued as `padding_mode` says, and the zeros the convolution still has to add."""
        if self.padding_mode == "zeros" or self.padding == "valid":
            return input, self.padding
        if self.padding == "same":
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            sides = [(t // 2, t - t // 2) for t in total]
        else:
            sides = [(int(p), int(p)) for p in self.padding]
        widths = [width for side in reversed(sides) for width in side]
        return F.pad(input, widths, self.padding_mode), (0,) * self.rank


class Conv2d(_Conv):
    """2-d convolution: [N, in_channels, H, W] -> [N, out_channels, H', W']; weight [out, in/groups, kh, kw]."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] (or [C, H, W]) -> [N, O, H', W']."""
        x, padding = self._padded(input)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Conv):
    """1-d convolution: [N, in_channels, L] -> [N, out_channels, L']; weight [out, in/groups, k]."""

    rank = 1

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, L] (or [C, L]) -> [N, O, L']."""
        x, padding = self._padded(input)
        return F.conv1d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv3d(_Conv):
    """3-d convolution: [N, in_channels, D, H, W] -> [N, out_channels, D', H', W']; weight [out, in/groups, kd, kh,
    kw].
    """

    rank = 3

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, D, H, W] (or [C, D, H, W]) -> [N, O, D', H', W']."""
        x, padding = self._padded(input)
        return F.conv3d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class _ConvTranspose(_Conv):
    """What the transposed convolutions share; weight [in, out/groups, …]."""

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
        if padding_mode != "zeros":
            raise ArgumentError(f"{type(self).__name__}: only 'zeros' padding mode is supported, got {padding_mode!r}")
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self.output_padding = self._sizes(output_padding, "output_padding")

    def _channels(self) -> tuple[int, int]:
        return self.in_channels, self.out_channels // self.groups

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """[N, C, *places] (or without N) -> [N, O, *places'].

        `output_size` chooses among the sizes that a convolution with these settings would shrink to the input's.
        """
        more = self.output_padding if output_size is None else self._more_for(input, tuple(output_size))
        run = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.rank - 1]
        return run(input, self.weight, self.bias, self.stride, self.padding, more, self.groups, self.dilation)

    def _more_for(self, input: Tensor, wanted: tuple[int, ...]) -> tuple[int, ...]:
        """The output padding that gives the size asked for. Raises ArgumentError where there is none."""
        wanted = wanted[-self.rank :]
        sizes = input._l.shape[input.ndim - self.rank :]
        least = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(sizes, self.stride, self.padding, self.dilation, self.kernel_size, strict=True)
        ]
        more = tuple(w - n for w, n in zip(wanted, least, strict=True))
        if any(not 0 <= m < s for m, s in zip(more, self.stride, strict=True)):
            raise ArgumentError(
                f"{type(self).__name__}: requested an output size of {list(wanted)}, but valid sizes range from "
                f"{least} to {[n + s - 1 for n, s in zip(least, self.stride, strict=True)]}"
            )
        return more

    def _more(self) -> str:
        return "" if self.output_padding == (0,) * self.rank else f", output_padding={self.output_padding}"


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution: [N, in_channels, L] -> [N, out_channels, L']; weight [in, out/groups, k]."""

    rank = 1


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution: [N, in_channels, H, W] -> [N, out_channels, H', W']; weight [in, out/groups, kh, kw]."""


class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution: [N, in_channels, D, H, W] -> [N, out_channels, D', H', W']; weight [in, out/groups, kd,
    kh, kw].
    """

    rank = 3
