"""Reductions: `dim` is an int, several, or None for all axes; negative ones count from the end."""

from __future__ import annotations

import builtins
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from graphc.errors import ArgumentError, DimError, DTypeError, EmptyMeanWarning, ShapeError
from graphc.frontend import functional_math as fm
from graphc.frontend import functional_mixed as fx
from graphc.frontend import hot
from graphc.frontend.numpy_names import numpy_names
from graphc.frontend.ops import ops
from graphc.frontend.promote import Operand, as_dtype, convert, floating, real_operand, tensor_operand
from graphc.frontend.record.where import outside
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor
from graphc.ir.infer import normalize_dim, normalize_dims
from graphc.ir.types import DType, bool_, int64, uint8

__all__ = [
    "all", "allclose", "amax", "amin", "aminmax", "any", "argmax", "argmin", "count_nonzero", "equal", "isclose",
    "log_softmax", "logsumexp", "max", "mean", "min", "norm", "prod", "softmax", "std", "std_mean", "sum", "var",
    "var_mean",
]  # fmt: skip

Dims: TypeAlias = int | Sequence[int] | None


class ValuesIndices(NamedTuple):
    """What max and min along an axis give."""

    values: Tensor
    indices: Tensor


class MinMax(NamedTuple):
    """What aminmax gives."""

    min: Tensor
    max: Tensor


def _dims(name: str, x: Tensor, dim: Dims) -> tuple[int, ...]:
    if dim is not None and not isinstance(dim, int):
        if not isinstance(dim, Iterable):
            raise ArgumentError(f"{name}: dim must be an int or a tuple of ints, got {type(dim).__name__} {dim!r}")
        dim = tuple(dim) or None  # as PyTorch: no axis means all
    return normalize_dims(name, dim, x._l.ndim)


def _accumulated(name: str, input: Tensor, dtype: DType | None) -> Tensor:
    """Integers are summed in int64; `dtype` converts first."""
    x = real_operand(name, input)
    if dtype is None:
        return x if x.dtype.is_floating_point else convert(x, int64)
    return convert(x, as_dtype(name, dtype))


@hot.with_arguments
def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """Sum; integers and bools in int64. `dtype` converts the input first."""
    if dtype is bool_:
        return any(_true("sum", input), dim, keepdim)
    x = _accumulated("sum", input, dtype)
    made: Tensor = ops.sum(x, dim=_dims("sum", x, dim), keepdim=keepdim)
    return made


@hot.with_arguments
def prod(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """Product; integers and bools in int64. `dtype` converts the input first."""
    if dtype is bool_:
        return all(_true("prod", input), dim, keepdim)
    x = _accumulated("prod", input, dtype)
    made: Tensor = ops.prod(x, dim=_dims("prod", x, dim), keepdim=keepdim)
    return made


def _real(name: str, input: Tensor, dtype: DType | None = None) -> Tensor:
    x = tensor_operand(name, input)
    if dtype is not None:
        x = convert(x, as_dtype(name, dtype))
    if not x.dtype.is_floating_point:
        raise DTypeError(
            f"{name}: only supports floating-point input, got {x._l.type}; convert it with .float() or give dtype="
        )
    return x


@hot.with_arguments
def mean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """Sum divided by the number of elements; NaN and EmptyMeanWarning for none. Raises DTypeError for integers."""
    x = _real("mean", input, dtype)
    dims = _dims("mean", x, dim)
    made: Tensor = ops.mean(x, dim=dims, keepdim=keepdim)
    if not x._l.size and made._l.size:
        warnings.warn(
            f"mean: {x._l.type} has no element along dims {list(dims)}; the mean of nothing is NaN",
            EmptyMeanWarning,
            stacklevel=outside(),
        )
        made = ops.reshape(made, shape=made.ttype.shape)  # two operations have no hot path: the next call warns, too
    return made


def _spread(op: Any, input: Tensor, dim: Any, unbiased: bool | None, keepdim: bool, correction: float | None) -> Tensor:
    x = _real(op.name, input)
    if isinstance(dim, bool):  # the form x.var(False)
        dim, unbiased = None, dim
    if unbiased is not None:
        if correction is not None:
            raise ArgumentError(f"{op.name}: give unbiased or correction, not both")
        correction = 1 if unbiased else 0
    if correction is not None and not isinstance(correction, (int, float, Scalar)):
        raise ArgumentError(f"{op.name}: correction must be a number, got {type(correction).__name__} {correction!r}")
    made: Tensor = op(
        x, dim=_dims(op.name, x, dim), correction=1 if correction is None else correction, keepdim=keepdim
    )
    return made


@numpy_names
def var(
    input: Tensor,
    dim: Dims = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Variance, divided by the number of elements less `correction` (1). Raises DTypeError for integers."""
    return _spread(ops.var, input, dim, unbiased, keepdim, correction)


@numpy_names
def std(
    input: Tensor,
    dim: Dims = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The square root of var()."""
    return _spread(ops.std, input, dim, unbiased, keepdim, correction)


@numpy_names
def var_mean(
    input: Tensor,
    dim: Dims = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """(var(), mean())."""
    along = None if isinstance(dim, bool) else dim
    return var(input, dim, unbiased, keepdim, correction=correction), mean(input, along, keepdim)


@numpy_names
def std_mean(
    input: Tensor,
    dim: Dims = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """(std(), mean())."""
    along = None if isinstance(dim, bool) else dim
    return std(input, dim, unbiased, keepdim, correction=correction), mean(input, along, keepdim)


def _ordered(x: Tensor) -> Tensor:
    return convert(x, int64) if x.dtype is bool_ else x


def _extreme(op: Any, input: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    x = tensor_operand(op.name, input)
    made: Tensor = op(_ordered(x), dim=_dims(op.name, x, dim), keepdim=keepdim)
    return convert(made, x.dtype)


@hot.with_arguments
def amax(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The largest element; equal ones share the gradient. Raises ShapeError for none."""
    return _extreme(ops.amax, input, dim, keepdim)


@hot.with_arguments
def amin(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The smallest element; equal ones share the gradient. Raises ShapeError for none."""
    return _extreme(ops.amin, input, dim, keepdim)


@numpy_names
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> MinMax:
    """(amin, amax)."""
    return MinMax(amin(input, dim, keepdim), amax(input, dim, keepdim))


def _some(name: str, x: Tensor, dim: int) -> int:
    if not x._l.shape[dim]:
        raise DimError(f"{name}: expected reduction dim {dim} of {x._l.type} to have non-zero size")
    return dim


def _position(op: Any, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    x = _ordered(tensor_operand(op.name, input))
    if dim is not None and x._l.ndim:
        _some(op.name, x, normalize_dim(op.name, dim, x._l.ndim))
    if dim is None:
        flat = ops.reshape(x, shape=(x.ttype.numel,))
        made: Tensor = op(flat, dim=0, keepdim=False)
        return ops.reshape(made, shape=(1,) * x._l.ndim) if keepdim else made
    d = normalize_dim(op.name, dim, x._l.ndim)
    if not x._l.ndim:
        x, keepdim = ops.reshape(x, shape=(1,)), False
    found: Tensor = op(x, dim=d, keepdim=keepdim)
    return found


@hot.with_arguments
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Position of the largest element (the first of equals; in the flattened order without dim), as int64."""
    return _position(ops.argmax, input, dim, keepdim)


@hot.with_arguments
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Position of the smallest element (the first of equals; in the flattened order without dim), as int64."""
    return _position(ops.argmin, input, dim, keepdim)


def _along(name: str, op: Any, input: Tensor, dim: int, keepdim: bool) -> ValuesIndices:
    x = tensor_operand(name, input)
    if not x._l.ndim:
        normalize_dim(name, dim, 0)
        return ValuesIndices(ops.clone(x), _position(op, x, 0, False))
    d = _some(name, x, normalize_dim(name, dim, x._l.ndim))
    indices: Tensor = op(_ordered(x), dim=d, keepdim=True)
    values: Tensor = ops.gather(x, indices, dim=d)
    if not keepdim:
        shape = indices.ttype.shape
        values, indices = (ops.reshape(t, shape=shape[:d] + shape[d + 1 :]) for t in (values, indices))
    return ValuesIndices(values, indices)


def _whole(name: str, reduce: Any, input: Tensor) -> Tensor:
    x = tensor_operand(name, input)
    if not x._l.size:
        raise ShapeError(
            f"{name}: {x._l.type} has no element, and {name} of nothing has no value; give it at least one"
        )
    made: Tensor = reduce(x)
    return made


@numpy_names
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Operand | None = None) -> Any:
    """max(x): the largest element; max(x, dim): (values, indices) along an axis; max(x, other): maximum(x, other)."""
    if isinstance(dim, Tensor) or other is not None:
        return fm.maximum(input, dim if other is None else other)
    return _whole("max", amax, input) if dim is None else _along("max", ops.argmax, input, dim, keepdim)


@numpy_names
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Operand | None = None) -> Any:
    """min(x): the smallest element; min(x, dim): (values, indices) along an axis; min(x, other): minimum(x, other)."""
    if isinstance(dim, Tensor) or other is not None:
        return fm.minimum(input, dim if other is None else other)
    return _whole("min", amin, input) if dim is None else _along("min", ops.argmin, input, dim, keepdim)


def _true(name: str, input: Tensor) -> Tensor:
    x = tensor_operand(name, input)
    return x if x.dtype is bool_ else fm.ne(x, 0)


def _no_axis(dim: Dims) -> bool:
    """As PyTorch: an empty `dim` reduces nothing in any() and all(), everything elsewhere."""
    return isinstance(dim, (tuple, list)) and not dim


@numpy_names
def any(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Is any element not zero? False for none. As bool, of uint8 as uint8."""
    x = _true("any", input)
    if _no_axis(dim):
        return x
    made: Tensor = ops.any(x, dim=_dims("any", x, dim), keepdim=keepdim)
    return convert(made, uint8) if input.dtype is uint8 else made


@numpy_names
def all(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Are all elements not zero? True for none. As bool, of uint8 as uint8."""
    x = _true("all", input)
    if _no_axis(dim):
        return x
    made: Tensor = ops.all(x, dim=_dims("all", x, dim), keepdim=keepdim)
    return convert(made, uint8) if input.dtype is uint8 else made


@numpy_names
def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """How many elements are not zero."""
    return sum(_true("count_nonzero", input), dim)


@hot.with_arguments
def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) without overflow; integers become the default dtype."""
    (x,) = floating("logsumexp", input)
    made: Tensor = ops.logsumexp(x, dim=_dims("logsumexp", x, dim), keepdim=keepdim)
    return made


def _soft(op: Any, input: Tensor, dim: int | None, dtype: DType | None) -> Tensor:
    x = _real(op.name, input, dtype)
    if dim is None:
        raise ArgumentError(f"{op.name}: dim is required; give the axis that sums to 1")
    d = normalize_dim(op.name, dim, x._l.ndim)
    if not x._l.ndim:
        made: Tensor = ops.reshape(op(ops.reshape(x, shape=(1,)), dim=0), shape=())
        return made
    shares: Tensor = op(x, dim=d)
    return shares


@hot.with_arguments
def softmax(input: Tensor, dim: int | None = None, dtype: DType | None = None) -> Tensor:
    """exp(input) divided by its sum along `dim`. Raises ArgumentError without dim, DTypeError for integers."""
    return _soft(ops.softmax, input, dim, dtype)


@hot.with_arguments
def log_softmax(input: Tensor, dim: int | None = None, dtype: DType | None = None) -> Tensor:
    """log(softmax(input)) without overflow. Raises ArgumentError without dim, DTypeError for integers."""
    return _soft(ops.log_softmax, input, dim, dtype)


@numpy_names
def norm(
    input: Tensor, p: float | str | None = "fro", dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The p-norm of the elements along `dim`: "fro" and 2 Euclidean, math.inf largest, 0 number of non-zeros.

    The gradient where the norm is 0 is 0. Raises DTypeError for integers, ArgumentError for another string.
    """
    x = _real("norm", input, dtype)
    if isinstance(p, str) and p != "fro":
        raise ArgumentError(f"norm: p must be a number or 'fro', got {p!r}")
    order = 2.0 if p is None or isinstance(p, str) else float(p)
    if order == 0.0:
        return convert(sum(fm.ne(x, 0), dim, keepdim), x.dtype)
    size = fm.abs(x)
    if order == math.inf:
        return amax(size, dim, keepdim)
    if order == -math.inf:
        return amin(size, dim, keepdim)
    if order == 1.0:
        return sum(size, dim, keepdim)
    total = sum(fm.square(x) if order == 2.0 else fm.pow(size, order), dim, keepdim)
    return _root(total, order)


def _root(total: Tensor, order: float) -> Tensor:
    """total ** (1 / order), with the gradient 0 at 0: the root is taken of 1 there and set to 0."""
    from graphc.frontend.autograd import edge_of

    exponent = 0.5 if order == 2.0 else 1.0 / order
    if edge_of(total) is None:
        return fm.pow(total, exponent)
    zero = ops.eq(total, 0)
    root = fm.pow(fx.masked_fill(total, zero, 1.0), exponent)
    return fx.masked_fill(root, zero, 0.0)


# ---------------------------------------------------------------- comparisons of whole tensors


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """|input - other| <= atol + rtol * |other|, as bool; infinities are close to themselves.

    Raises DTypeError for two dtypes.
    """
    x, y = tensor_operand("isclose", input), tensor_operand("isclose", other)
    if x.dtype is not y.dtype:
        raise DTypeError(f"isclose: {x._l.type} and {y._l.type} do not have the same dtype; convert one of them")
    same = fm.eq(x, y)
    if equal_nan and x.dtype.is_floating_point:
        same = fm.logical_or(same, fm.logical_and(fm.isnan(x), fm.isnan(y)))
    if x.dtype is bool_ or (not rtol and not atol):
        return same
    if not x.dtype.is_floating_point:
        x, y = floating("isclose", x, y)
    gap = fm.abs(fm.sub(x, y))
    near = fm.le(gap, fm.add(fm.abs(fm.mul(y, rtol)), atol))
    return fm.logical_or(same, fm.logical_and(fm.isfinite(gap), near))


def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> builtins.bool:
    """True when isclose() holds everywhere: a Python bool, so a branch for a recording."""
    from graphc.frontend.functional_data import to_bool

    return to_bool(all(isclose(input, other, rtol, atol, equal_nan)))


def equal(input: Tensor, other: Tensor) -> builtins.bool:
    """True for the same shape and elements: a Python bool, so a branch for a recording."""
    from graphc.frontend.functional_data import to_bool

    x, y = tensor_operand("equal", input), tensor_operand("equal", other)
    if x.ttype.shape != y.ttype.shape:
        return False
    return to_bool(all(fm.eq(x, y)))
