"""Filling parameters with starting values, in place and without gradients. Names and formulas follow torch.nn.init."""

from __future__ import annotations

import math
import warnings

import numpy as np

from graphc.errors import ArgumentError, UnsupportedError
from graphc.frontend.creation import eye, from_numpy
from graphc.frontend.functional import where
from graphc.frontend.grad_mode import no_grad
from graphc.frontend.random import Generator
from graphc.frontend.random_tensors import randn, randperm
from graphc.frontend.record.where import outside
from graphc.frontend.tensor import Tensor

__all__ = [
    "_calculate_fan_in_and_fan_out",
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps variance through a nonlinearity. Raises ArgumentError for an unknown name."""
    gains = dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d", "sigmoid"), 1.0)
    gains |= {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 0.75}
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in gains:
        raise ArgumentError(f"unsupported nonlinearity {nonlinearity}")
    return gains[nonlinearity]


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """Numbers of inputs and outputs a weight [out, in, …] connects. Raises ArgumentError below two dimensions."""
    if tensor.ndim < 2:
        raise ArgumentError("fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    receptive = math.prod(tensor._l.shape[2:])
    return tensor._l.shape[1] * receptive, tensor._l.shape[0] * receptive


fans = _calculate_fan_in_and_fan_out


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform on [a, b)."""
    with no_grad():
        tensor.uniform_(a, b, generator=generator)
    return tensor


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with mean and standard deviation."""
    with no_grad():
        tensor.normal_(mean, std, generator=generator)
    return tensor


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Normal with mean and standard deviation, held to [a, b]: numbers outside are drawn again.

    Raises UnsupportedError when less than one in a hundred would lie there.
    """
    root = std * math.sqrt(2.0)
    if math.erf((b - mean) / root) - math.erf((a - mean) / root) < 0.02:
        raise UnsupportedError(f"trunc_normal_: [{a}, {b}] is too far from mean {mean} and std {std}")
    with no_grad():
        drawn = randn(tensor.ttype.shape, dtype=tensor.dtype, generator=generator) * std + mean
        while bool(((drawn < a) | (drawn > b)).any()):
            again = randn(tensor.ttype.shape, dtype=tensor.dtype, generator=generator) * std + mean
            drawn = where((drawn < a) | (drawn > b), again, drawn)
        tensor.copy_(drawn)
    return tensor


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Every element `val`."""
    with no_grad():
        tensor.fill_(val)
    return tensor


def ones_(tensor: Tensor) -> Tensor:
    """Every element 1."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """Every element 0."""
    return constant_(tensor, 0.0)


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix. Raises ArgumentError unless there are two dimensions."""
    if tensor.ndim != 2:
        raise ArgumentError(f"eye_: only tensors with 2 dimensions are supported, got {tensor._l.type}")
    with no_grad():
        tensor.copy_(eye(*tensor._l.shape, dtype=tensor.dtype))
    return tensor


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution weight [out, in, …] that keeps as many channels as it can, in each group. Raises ArgumentError."""
    if tensor.ndim not in (3, 4, 5):
        raise ArgumentError(f"dirac_: only tensors with 3, 4, or 5 dimensions are supported, got {tensor._l.type}")
    shape = tensor._a.shape
    if shape[0] % groups:
        raise ArgumentError(f"dirac_: dim 0 of {tensor._l.type} must be divisible by groups {groups}")
    made = np.zeros(shape, np.float64)
    each, centre = shape[0] // groups, tuple(n // 2 for n in shape[2:])
    for g in range(groups):
        for d in range(min(each, shape[1])):
            made[(g * each + d, d, *centre)] = 1.0
    with no_grad():
        tensor.copy_(from_numpy(made).to(tensor.dtype))
    return tensor


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """A normal matrix with a share `sparsity` of zeros in each column (Martens, 2010). Raises ArgumentError."""
    if tensor.ndim != 2:
        raise ArgumentError(f"sparse_: only tensors with 2 dimensions are supported, got {tensor._l.type}")
    rows, columns = tensor._a.shape
    zeros = math.ceil(sparsity * rows)
    normal_(tensor, 0.0, std, generator)
    with no_grad():
        for column in range(columns):
            tensor[randperm(rows, generator=generator)[:zeros], column] = 0.0
    return tensor


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform with variance gain^2 * 2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with variance gain^2 * 2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))), generator)


def _is_empty(tensor: Tensor) -> bool:
    """Whether there is nothing to initialise; says so, as PyTorch."""
    if not tensor._l.size:
        warnings.warn("Initializing zero-element tensors is a no-op", UserWarning, stacklevel=outside())
    return not tensor._l.size


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f"mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    return fans(tensor)[mode == "fan_out"]


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Uniform with variance gain^2 / fan (He et al., 2015)."""
    if _is_empty(tensor):
        return tensor
    bound = math.sqrt(3.0) * calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Normal with variance gain^2 / fan (He et al., 2015)."""
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)), generator)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """A random matrix [out, everything else] with orthonormal rows or columns, times `gain` (Saxe et al., 2013).

    Raises ArgumentError below two dimensions.
    """
    if tensor.ndim < 2:
        raise ArgumentError("orthogonal_: only tensors with 2 or more dimensions are supported")
    rows = tensor._l.shape[0]
    columns = tensor._l.size // max(rows, 1)
    with no_grad():
        flat = randn(max(rows, columns), min(rows, columns), dtype=tensor.dtype, generator=generator)
        q, r = np.linalg.qr(flat.numpy())
        q = q * np.sign(np.diag(r))  # makes the distribution uniform
        made = from_numpy(np.ascontiguousarray(q if rows >= columns else q.T))
        tensor.copy_(made.reshape(tensor._l.shape) * gain)
    return tensor
