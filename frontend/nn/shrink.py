"""Activations that shrink, cut, gate or draw a slope."""

from __future__ import annotations

from graphc.errors import ArgumentError, DimError, ShapeError
from graphc.frontend.functional import chunk, sigmoid, softmax, where
from graphc.frontend.nn.checks import float_input
from graphc.frontend.nn.pointwise import leaky_relu, maybe_in_place
from graphc.frontend.ops import ops
from graphc.frontend.random_tensors import rand
from graphc.frontend.tensor import Tensor
from graphc.ir.infer import normalize_dim
from graphc.ir.types import DType

__all__ = [
    "celu",
    "glu",
    "hardshrink",
    "rrelu",
    "softmin",
    "softshrink",
    "softsign",
    "tanhshrink",
    "threshold",
]


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, alpha * (exp(x / alpha) - 1) elsewhere (Barron, 2017). Raises ArgumentError for alpha 0."""
    x = float_input("celu", input)
    return maybe_in_place("celu", input, inplace, lambda: ops.celu(x, alpha=float(alpha)))


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """0 from -lambd to lambd, x elsewhere."""
    out: Tensor = ops.hardshrink(float_input("hardshrink", input), lambd=float(lambd))
    return out


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by `lambd`, at most to 0. Raises ArgumentError for a negative `lambd`."""
    if lambd < 0:
        raise ArgumentError(f"softshrink: lambda must be greater or equal to 0, but found to be {lambd}")
    out: Tensor = ops.softshrink(float_input("softshrink", input), lambd=float(lambd))
    return out


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    out: Tensor = ops.tanhshrink(float_input("tanhshrink", input))
    return out


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    out: Tensor = ops.softsign(float_input("softsign", input))
    return out


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where above `threshold`, `value` elsewhere."""
    x = float_input("threshold", input)
    return maybe_in_place(
        "threshold", input, inplace, lambda: ops.threshold(x, threshold=float(threshold), value=float(value))
    )


def softmin(input: Tensor, dim: int | None = None, dtype: DType | None = None) -> Tensor:
    """softmax(-x) along `dim`."""
    return softmax(-input if dtype is None else -input.to(dtype), dim)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half along `dim` times the sigmoid of the second (Dauphin et al., 2017).

    Raises DimError, and ShapeError for an odd size.
    """
    x = float_input("glu", input)
    if not x.ndim:
        raise DimError("glu does not support 0-dimensional tensors")
    dim = normalize_dim("glu", dim, x.ndim)
    if x._l.shape[dim] % 2:
        raise ShapeError(f"glu: halving dimension must be even, but dimension {dim} of {x._l.type} is not")
    kept, gate = chunk(x, 2, dim)
    return kept * sigmoid(gate)


def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """x where positive; elsewhere times a slope, drawn from [lower, upper) when training, else their mean (Xu et al.,
    2015).

    Raises ArgumentError unless lower <= upper.
    """
    if not lower <= upper:
        raise ArgumentError(f"rrelu: lower bound {lower} should be less than or equal to the upper bound {upper}")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    x = float_input("rrelu", input)

    def sloped() -> Tensor:
        slopes = rand(*x.ttype.shape, dtype=x.dtype) * (upper - lower) + lower
        return where(x > 0, x, x * slopes)

    return maybe_in_place("rrelu", input, inplace, sloped)
