"""Pointwise functions beyond arithmetic: inverse and hyperbolic functions, steps, signs, shifts, careful forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphc.errors import DTypeError
from graphc.frontend import functional_math as fm
from graphc.frontend.functional_mixed import masked_fill
from graphc.frontend.ops import ops
from graphc.frontend.promote import Operand, common, floating, lift, real_operand, rounded_once, tensor_operand
from graphc.frontend.tensor import Tensor
from graphc.ir.types import bool_, float64

__all__ = [
    "acos", "acosh", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "asin", "asinh",
    "atan", "atan2", "atanh", "bitwise_left_shift", "bitwise_right_shift", "copysign", "cosh", "digamma", "erfc",
    "erfinv", "exp2", "fix", "float_power", "fmax", "fmin", "heaviside", "hypot", "isneginf", "isposinf", "isreal",
    "ldexp", "lgamma", "logaddexp2", "logit", "polar", "polygamma", "rad2deg", "sgn", "signbit", "sinc", "sinh",
    "xlogy",
]  # fmt: skip


def _unary(name: str, doc: str) -> Callable[[Tensor], Tensor]:
    def function(input: Tensor) -> Tensor:
        (x,) = floating(name, input)
        made: Tensor = getattr(ops, name)(x)
        return made

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{doc} Integers become the default floating-point dtype."
    return function


acos = _unary("acos", "The angle in radians, 0 to pi, with this cosine; NaN outside -1 to 1.")
acosh = _unary("acosh", "The inverse of cosh; NaN below 1.")
asin = _unary("asin", "The angle in radians, -pi/2 to pi/2, with this sine; NaN outside -1 to 1.")
asinh = _unary("asinh", "The inverse of sinh.")
atan = _unary("atan", "The angle in radians, -pi/2 to pi/2, with this tangent.")
atanh = _unary("atanh", "The inverse of tanh; NaN outside -1 to 1.")
cosh = _unary("cosh", "The hyperbolic cosine.")
sinh = _unary("sinh", "The hyperbolic sine.")
erfc = _unary("erfc", "1 - erf(x), accurate where it is small.")
lgamma = _unary("lgamma", "log |Gamma(x)|.")
erfinv = _unary("erfinv", "The inverse of erf; NaN outside -1 to 1.")


def digamma(input: Tensor) -> Tensor:
    """The derivative of lgamma; NaN for negative integers. Integers become the default floating-point dtype."""
    (x,) = floating("digamma", input)
    made: Tensor = ops.polygamma(x, n=0)
    return made


def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of digamma, n up to 10. Integers become the default dtype. Raises ArgumentError."""
    (x,) = floating("polygamma", input)
    made: Tensor = ops.polygamma(x, n=n)
    return made


def atan2(input: Operand, other: Operand) -> Tensor:
    """The angle of the point (other, input) in radians, -pi to pi. Integers become the default dtype."""
    made: Tensor = ops.atan2(*floating("atan2", input, other))
    return made


@rounded_once
def exp2(input: Tensor) -> Tensor:
    """2 ** input."""
    (x,) = floating("exp2", input)
    return fm.pow(2.0, x)


@rounded_once
def rad2deg(input: Tensor) -> Tensor:
    """Radians to degrees."""
    (x,) = floating("rad2deg", input)
    return fm.mul(x, 180.0 / math.pi)


@rounded_once
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), of x held between eps and 1 - eps if `eps` is given."""
    (x,) = floating("logit", input)
    if eps is not None:
        x = ops.clamp(x, min=float(eps), max=1.0 - float(eps))
    return fm.log(fm.div(x, fm.sub(1.0, x)))


@rounded_once
def sinc(input: Tensor) -> Tensor:
    """sin(pi x) / (pi x), 1 at 0."""
    (x,) = floating("sinc", input)
    zero = fm.eq(x, 0)
    angle = fm.mul(masked_fill(x, zero, 1.0), math.pi)
    return masked_fill(fm.div(fm.sin(angle), angle), zero, 1.0)


def isposinf(input: Tensor) -> Tensor:
    """Where elements are +infinity, as bool."""
    x = real_operand("isposinf", input)
    return fm.eq(x, math.inf) if x.dtype.is_floating_point else fm.isinf(x)


def isneginf(input: Tensor) -> Tensor:
    """Where elements are -infinity, as bool."""
    x = real_operand("isneginf", input)
    return fm.eq(x, -math.inf) if x.dtype.is_floating_point else fm.isinf(x)


def isreal(input: Tensor) -> Tensor:
    """Where the imaginary part is 0, as bool."""
    from graphc.frontend.creation import ones_like

    return fm.eq(input.imag, 0) if input.dtype.is_complex else ones_like(input, dtype=bool_)


# ---------------------------------------------------------------- signs and steps


def signbit(input: Tensor) -> Tensor:
    """Where elements are below 0 or -0, as bool; the sign of a NaN counts as positive."""
    x = real_operand("signbit", input)
    if not x.dtype.is_floating_point:
        return fm.lt(x, 0)
    return fm.logical_or(fm.lt(x, 0), fm.logical_and(fm.eq(x, 0), fm.lt(fm.div(1.0, x), 0)))


def copysign(input: Operand, other: Operand) -> Tensor:
    """The size of `input` with the sign of `other` (-0 is negative). Integers become the default dtype.

    The gradient of `input` is 0 where it is 0.
    """
    x, y = floating("copysign", input, other)
    like = x if isinstance(x, Tensor) else y
    size = fm.abs(x) if isinstance(x, Tensor) else abs(x)
    second = signbit(lift(y, like.dtype).detach())
    return fm.where(second, fm.neg(size) if isinstance(size, Tensor) else -size, size)


def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 below 0, 1 above, `values` at 0; NaN counts as 0. Raises DTypeError for two dtypes."""
    x, v = real_operand("heaviside", input), real_operand("heaviside", values)
    if x.dtype is not v.dtype:
        raise DTypeError(f"heaviside: tensors must have the same dtype, got {x._l.type} and {v._l.type}")
    x, v = x.detach(), v.detach()
    step: Tensor = ops.cast(fm.gt(x, 0), dtype=x.dtype)
    return fm.where(fm.eq(x, 0), v, step)


def _other_if_nan(name: str, op: Any, input: Operand, other: Operand) -> Tensor:
    x, y = common(name, input, other)
    like = x if isinstance(x, Tensor) else y
    x, y = lift(x, like.dtype), lift(y, like.dtype)
    best: Tensor = op(x, y)
    if not like.dtype.is_floating_point:
        return best
    return fm.where(fm.isnan(x), y, fm.where(fm.isnan(y), x, best))


def fmax(input: Operand, other: Operand) -> Tensor:
    """The larger of each pair; of a number and NaN the number."""
    return _other_if_nan("fmax", ops.maximum, input, other)


def fmin(input: Operand, other: Operand) -> Tensor:
    """The smaller of each pair; of a number and NaN the number."""
    return _other_if_nan("fmin", ops.minimum, input, other)


# ---------------------------------------------------------------- two operands


@rounded_once
def hypot(input: Tensor, other: Tensor) -> Tensor:
    """sqrt(input ** 2 + other ** 2) without overflow; the gradient at (0, 0) is 0."""
    x, y = floating("hypot", input, other)
    a, b = (fm.abs(lift(t, (x if isinstance(x, Tensor) else y).dtype)) for t in (x, y))
    large, small = fm.maximum(a, b), fm.minimum(a, b)
    plain = fm.logical_or(fm.eq(large, 0), fm.isinf(large))
    ratio = fm.div(small, masked_fill(large, plain, 1.0))
    found = fm.mul(large, fm.sqrt(fm.add(fm.square(masked_fill(ratio, plain, 0.0)), 1.0)))
    infinite = fm.logical_or(fm.isinf(a), fm.isinf(b))
    return masked_fill(found, infinite, math.inf)


def float_power(input: Operand, exponent: Operand) -> Tensor:
    """input ** exponent in float64."""
    x, y = (lift(t, float64) if isinstance(t, Tensor) else float(t) for t in (input, exponent))
    return fm.pow(x, y)


@rounded_once
def xlogy(input: Operand, other: Operand) -> Tensor:
    """input * log(other), 0 where input is 0 (NaN where other is NaN)."""
    x, y = floating("xlogy", input, other)
    dtype = (x if isinstance(x, Tensor) else y).dtype
    x, y = lift(x, dtype), lift(y, dtype)
    nothing = fm.logical_and(fm.eq(x, 0), fm.logical_not(fm.isnan(y)))
    return masked_fill(fm.mul(x, fm.log(fm.where(nothing, 1.0, y))), nothing, 0.0)


@rounded_once
def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """log2(2 ** input + 2 ** other) without overflow."""
    from graphc.frontend.functional_mixed import logaddexp

    x, y = floating("logaddexp2", tensor_operand("logaddexp2", input), tensor_operand("logaddexp2", other))
    unit = math.log(2.0)
    return fm.div(logaddexp(fm.mul(x, unit), fm.mul(y, unit)), unit)


def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input * 2 ** other."""
    return fm.mul(input, fm.pow(2.0, other))


def _shift(name: str, op: str, input: Operand, other: Operand) -> Tensor:
    x, y = common(name, input, other)
    like = x if isinstance(x, Tensor) else y
    if not like.dtype.is_integer:
        raise DTypeError(f"{name}: takes integer tensors, got {like._l.type}; convert it first")
    made: Tensor = getattr(ops, op)(x, y)
    return made


def bitwise_left_shift(input: Operand, other: Operand) -> Tensor:
    """input << other; a count below 0 or beyond the width gives 0. Raises DTypeError for floating point."""
    return _shift("bitwise_left_shift", "left_shift", input, other)


def bitwise_right_shift(input: Operand, other: Operand) -> Tensor:
    """input >> other, with the sign kept; a count below 0 or beyond the width gives 0 or -1.

    Raises DTypeError for floating point.
    """
    return _shift("bitwise_right_shift", "right_shift", input, other)


def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """Complex numbers of their sizes and angles, both float32 or both float64. Raises DTypeError."""
    from graphc.frontend.reinterpret import complex as complex_

    return complex_(fm.mul(abs, fm.cos(angle)), fm.mul(abs, fm.sin(angle)))


arccos, arccosh, arcsin, arcsinh = acos, acosh, asin, asinh
arctan, arctan2, arctanh = atan, atan2, atanh
fix = fm.trunc
sgn = fm.sign
