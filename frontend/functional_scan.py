"""Running sums, products and extremes along an axis."""

from __future__ import annotations

from graphc.frontend.functional_reduce import ValuesIndices, _accumulated, _real
from graphc.frontend.numpy_names import numpy_names
from graphc.frontend.ops import ops
from graphc.frontend.promote import tensor_operand
from graphc.frontend.tensor import Tensor
from graphc.ir.infer import normalize_dim
from graphc.ir.op import Op
from graphc.ir.types import DType

__all__ = ["cummax", "cummin", "cumprod", "cumsum", "logcumsumexp"]


def _scan(op: Op, x: Tensor, dim: int) -> Tensor:
    d = normalize_dim(op.name, dim, x._l.ndim)
    if x._l.ndim:
        made: Tensor = op(x, dim=d)
        return made
    row: Tensor = op(ops.reshape(x, shape=(1,)), dim=0)
    return ops.reshape(row, shape=())  # type: ignore[no-any-return]


@numpy_names
def cumsum(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """Sum of all so far along `dim`; integers and bools in int64. `dtype` converts the input first. Raises DimError."""
    return _scan(ops.cumsum, _accumulated("cumsum", input, dtype), dim)


@numpy_names
def cumprod(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """Product of all so far along `dim`; integers and bools in int64. `dtype` converts the input first.

    Raises DimError.
    """
    return _scan(ops.cumprod, _accumulated("cumprod", input, dtype), dim)


@numpy_names
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log of the running sum of exp(input) along `dim`, without overflow. Raises DTypeError for integers, DimError."""
    return _scan(ops.logcumsumexp, _real("logcumsumexp", input), dim)


def _extreme(op: Op, name: str, input: Tensor, dim: int) -> ValuesIndices:
    x = tensor_operand(name, input)
    d = normalize_dim(name, dim, x._l.ndim)
    indices = _scan(op, x, d)
    if x._l.ndim:
        return ValuesIndices(ops.gather(x, indices, dim=d), indices)
    return ValuesIndices(ops.clone(x), indices)


@numpy_names
def cummax(input: Tensor, dim: int) -> ValuesIndices:
    """(values, indices): the largest element so far along `dim`, and the place of the last such one; NaN stays.

    Raises DimError.
    """
    return _extreme(ops.argcummax, "cummax", input, dim)


@numpy_names
def cummin(input: Tensor, dim: int) -> ValuesIndices:
    """(values, indices): the smallest element so far along `dim`, and the place of the last such one; NaN stays.

    Raises DimError.
    """
    return _extreme(ops.argcummin, "cummin", input, dim)
