"""Pointwise functions: promotion in front of the ops.

Every name works as `graphc.name(x, …)` and, where PyTorch has it, as a method.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any, overload

from graphc.errors import ArgumentError, DTypeError
from graphc.frontend import hot
from graphc.frontend.ops import ops
from graphc.frontend.promote import (
    Number,
    Operand,
    check_fits,
    common,
    complex_among,
    convert,
    floating,
    lift,
    plain,
    real_operand,
    result_type,
    rounded_once,
    shown,
    tensor_operand,
)
from graphc.frontend.tensor import Tensor
from graphc.ir.types import bool_

__all__ = [
    "abs", "absolute", "add", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "ceil", "cos", "deg2rad",
    "div", "divide", "eq", "erf", "exp", "expm1", "floor", "floor_divide", "fmod", "frac", "ge", "greater",
    "greater_equal", "gt", "isfinite", "isinf", "isnan", "le", "less", "less_equal", "log", "log1p", "log2", "log10",
    "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "maximum", "minimum", "mul", "multiply", "ne",
    "neg", "negative", "not_equal", "pow", "reciprocal", "relu", "remainder", "round", "rsqrt", "rsub", "sigmoid",
    "sign", "sin", "sqrt", "square", "sub", "subtract", "tan", "tanh", "true_divide", "trunc", "where",
]  # fmt: skip

Unary = Callable[[Tensor], Tensor]
Binary = Callable[[Operand, Operand], Tensor]


def _named(function: Any, name: str, doc: str) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _float_unary(name: str, doc: str) -> Unary:
    """A function of floating-point numbers; integers become the default dtype first."""

    def function(input: Tensor) -> Tensor:
        (x,) = floating(name, input)
        made: Tensor = getattr(ops, name)(x)
        return made

    found: Unary = _named(function, name, f"{doc} Integers become the default floating-point dtype.")
    return hot.unary(found)


def _rounding(name: str, doc: str) -> Unary:
    """A function that leaves integers as they are."""

    def function(input: Tensor) -> Tensor:
        x = real_operand(name, input)
        if x.dtype is bool_:
            raise DTypeError(f"{name}: operand 0 is {x._l.type}; bool is not supported, convert it to int64 first")
        made: Tensor = getattr(ops, name)(x) if x.dtype.is_floating_point else ops.clone(x)
        return made

    found: Unary = _named(function, name, doc)
    return hot.unary(found)


exp = _float_unary("exp", "e ** input.")
expm1 = _float_unary("expm1", "exp(input) - 1, accurate for small input.")
log = _float_unary("log", "Natural logarithm.")
log1p = _float_unary("log1p", "log(1 + input), accurate for small input.")
sqrt = _float_unary("sqrt", "Square root; NaN below zero.")
rsqrt = _float_unary("rsqrt", "1 / sqrt(input).")
reciprocal = _float_unary("reciprocal", "1 / input.")
sin = _float_unary("sin", "Sine of radians.")
cos = _float_unary("cos", "Cosine of radians.")
tanh = _float_unary("tanh", "Hyperbolic tangent.")
sigmoid = _float_unary("sigmoid", "1 / (1 + exp(-input)).")
erf = _float_unary("erf", "Error function.")
floor = _rounding("floor", "The largest integer not above each element.")
ceil = _rounding("ceil", "The smallest integer not below each element.")
trunc = _rounding("trunc", "Each element without its fraction.")


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest integer, halves to even; `decimals` counts digits after the point (before it when negative)."""
    x = real_operand("round", input)
    if decimals == 0:
        return _round(x)
    scale = 10.0 ** builtins.abs(decimals)
    return div(_round(mul(x, scale)), scale) if decimals > 0 else mul(_round(div(x, scale)), scale)


_round = _rounding("round", "The nearest integer, halves to even.")


@rounded_once
def tan(input: Tensor) -> Tensor:
    """sin(input) / cos(input)."""
    return div(sin(input), cos(input))


@rounded_once
def log2(input: Tensor) -> Tensor:
    """Logarithm of base 2."""
    return mul(log(input), 1.0 / math.log(2.0))


@rounded_once
def log10(input: Tensor) -> Tensor:
    """Logarithm of base 10."""
    return mul(log(input), 1.0 / math.log(10.0))


def frac(input: Tensor) -> Tensor:
    """The fraction of each element, with its sign."""
    return sub(input, trunc(input))


@rounded_once
def deg2rad(input: Tensor) -> Tensor:
    """Degrees to radians."""
    (x,) = floating("deg2rad", input)
    return mul(x, math.pi / 180.0)


def _numeric(name: str, input: Tensor) -> Tensor:
    x = real_operand(name, input)
    if x.dtype is bool_:
        raise DTypeError(
            f"{name}: operand 0 is {x._l.type}; bool is not supported, use logical_not() or convert it first"
        )
    return x


@hot.unary
def neg(input: Tensor) -> Tensor:
    """-input. Raises DTypeError for bool."""
    made: Tensor = ops.neg(_numeric("neg", input))
    return made


def positive(input: Tensor) -> Tensor:
    """`input` itself. Raises DTypeError for bool."""
    return _numeric("positive", input)


@hot.unary
def abs(input: Tensor) -> Tensor:
    """Absolute value. Raises DTypeError for bool."""
    made: Tensor = ops.abs(_numeric("abs", input))
    return made


@hot.unary
def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1 (bool: itself)."""
    x = real_operand("sign", input)
    made: Tensor = ops.clone(x) if x.dtype is bool_ else ops.sign(x)
    return made


@hot.unary
def relu(input: Tensor) -> Tensor:
    """0 where input < 0, else input; NaN stays. Raises DTypeError for bool."""
    made: Tensor = ops.relu(_numeric("relu", input))
    return made


def square(input: Tensor) -> Tensor:
    """input * input (bool becomes int64)."""
    x = real_operand("square", input)
    made: Tensor = ops.square(lift(x, result_type(0)) if x.dtype is bool_ else x)
    return made


@hot.unary
def isnan(input: Tensor) -> Tensor:
    """Where elements are NaN, as bool."""
    return _test("isnan", input, False)


@hot.unary
def isinf(input: Tensor) -> Tensor:
    """Where elements are infinite, as bool."""
    return _test("isinf", input, False)


@hot.unary
def isfinite(input: Tensor) -> Tensor:
    """Where elements are neither NaN nor infinite, as bool."""
    return _test("isfinite", input, True)


def _test(name: str, input: Tensor, otherwise: bool) -> Tensor:
    x = real_operand(name, input)
    if x.dtype.is_floating_point:
        made: Tensor = getattr(ops, name)(x)
    else:
        from graphc.frontend.dispatch import nullary

        made = nullary(ops.full, shape=x.ttype.shape, value=otherwise, dtype=bool_)
    return made


# ---------------------------------------------------------------- arithmetic of two operands


def _scaled(name: str, input: Operand, other: Operand, alpha: Any) -> Operand:
    """other * alpha, in the dtype of the result."""
    if type(alpha) is int and alpha == 1:
        return other
    other = plain(name, other)
    dtype = result_type(plain(name, input), other)
    if isinstance(alpha, float) and not dtype.is_floating_point:
        raise DTypeError(
            f"{name}: for integral input tensors, argument alpha must not be a floating point number, got {alpha}"
        )
    if type(alpha) is bool and dtype is not bool_:
        raise DTypeError(f"{name}: a bool alpha is for bool results alone, this one is {dtype}; use an int")
    if isinstance(other, Tensor):
        return mul(convert(other, dtype), lift(alpha, dtype))
    scaled: Number = other * alpha  # numbers that a recording follows, too
    return bool(scaled) if dtype is bool_ else scaled


@hot.binary
def add(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """input + alpha * other; bools give their or. Raises DTypeError for an alpha of a higher kind than the result."""
    x, y = common("add", input, _scaled("add", input, other, alpha))
    made: Tensor = (ops.bitwise_or if _both_bool(x, y) else ops.add)(x, y)
    return made


def _both_bool(x: Any, y: Any) -> bool:
    return (x if isinstance(x, Tensor) else y).dtype is bool_


@hot.binary
def sub(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """input - alpha * other. Raises DTypeError for bools, and for an alpha of a higher kind than the result."""
    x, y = common("sub", input, _scaled("sub", input, other, alpha))
    if _bool_among(input, other):
        raise DTypeError(
            f"sub: subtraction with a bool operand is not supported: {shown(input)} - {shown(other)}; use logical_xor()"
        )
    made: Tensor = ops.sub(x, y)
    return made


def _bool_among(x: Operand, y: Operand) -> bool:
    return (
        type(x) is bool or type(y) is bool or getattr(x, "dtype", None) is bool_ or getattr(y, "dtype", None) is bool_
    )


def rsub(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """other - alpha * input."""
    return sub(other, input, alpha=alpha)


@hot.binary
def mul(input: Operand, other: Operand) -> Tensor:
    """input * other; bools give their and."""
    x, y = common("mul", input, other)
    made: Tensor = (ops.bitwise_and if _both_bool(x, y) else ops.mul)(x, y)
    return made


@hot.binary
def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """input / other in floating point; rounding_mode "trunc" or "floor" rounds the quotient and keeps integers.

    Raises ArgumentError for another rounding mode.
    """
    if rounding_mode is None:
        x, y = floating("div", input, other)
        made: Tensor = ops.div(x, y)
        return made
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode != "trunc":
        raise ArgumentError(f"div: rounding_mode must be None, 'trunc' or 'floor', got {rounding_mode!r}")
    x, y = _numbers("div", input, other)
    like = x if isinstance(x, Tensor) else y
    if like.dtype.is_floating_point:
        made = ops.trunc(ops.div(x, y))
    else:  # exact: the remainder of the truncated division is taken off first
        made = ops.floor_divide(ops.sub(x, ops.fmod(x, y)), y)
    return made


def _numbers(name: str, input: Operand, other: Operand) -> tuple[Any, Any]:
    x, y = common(name, input, other)
    if _both_bool(x, y):
        raise DTypeError(f"{name}: bool tensors are not supported; convert one of them to int64 or float32")
    return x, y


def floor_divide(input: Operand, other: Operand) -> Tensor:
    """floor(input / other), exact for integers; x // 0 is 0 for integers. Raises DTypeError for bools."""
    made: Tensor = ops.floor_divide(*_numbers("floor_divide", input, other))
    return made


def remainder(input: Operand, other: Operand) -> Tensor:
    """input - floor(input / other) * other: the sign of `other`. Raises DTypeError for bools."""
    made: Tensor = ops.remainder(*_numbers("remainder", input, other))
    return made


def fmod(input: Operand, other: Operand) -> Tensor:
    """input - trunc(input / other) * other: the sign of `input`. Raises DTypeError for bools."""
    made: Tensor = ops.fmod(*_numbers("fmod", input, other))
    return made


_POWERS = {2: "square", 0.5: "sqrt", -1: "reciprocal", -0.5: "rsqrt"}


def pow(input: Operand, exponent: Operand) -> Tensor:
    """input ** exponent. Raises ArgumentError for an integer tensor to a negative integer power."""
    x, y = common("pow", input, exponent)
    like = x if isinstance(x, Tensor) else y
    if like.dtype is bool_:  # true unless it is False ** True
        return bitwise_or(x, logical_not(lift(y, bool_)))
    if isinstance(exponent, (int, float)) and not isinstance(exponent, bool):
        if like.dtype.is_floating_point and exponent in _POWERS:
            made: Tensor = getattr(ops, _POWERS[exponent])(x)
            return made
        if not like.dtype.is_floating_point and exponent < 0:
            raise ArgumentError(
                f"pow: integers to negative integer powers are not allowed, got {shown(x)} to {exponent}; use .float()"
            )
        check_fits("pow", exponent, like.dtype)
    power: Tensor = ops.pow(x, y)
    return power


def _two(name: str, doc: str) -> Binary:
    """A function of two tensors or numbers without further arguments."""

    def function(input: Operand, other: Operand) -> Tensor:
        x, y = common(name, input, other)
        made: Tensor = getattr(ops, name)(x, y)
        return made

    found: Binary = _named(function, name, doc)
    return hot.binary(found)


maximum = _two("maximum", "The larger of each pair; NaN propagates.")
minimum = _two("minimum", "The smaller of each pair; NaN propagates.")
_eq, _ne = _two("eq", ""), _two("ne", "")


@hot.binary
def eq(input: Operand, other: Operand | complex) -> Tensor:
    """input == other, as bool."""
    if complex_among(input, other):
        return _by_parts(bitwise_and, _eq, input, other)
    return _eq(input, other)  # type: ignore[arg-type]


@hot.binary
def ne(input: Operand, other: Operand | complex) -> Tensor:
    """input != other, as bool."""
    if complex_among(input, other):
        return _by_parts(bitwise_or, _ne, input, other)
    return _ne(input, other)  # type: ignore[arg-type]


def _by_parts(join: Binary, compare: Binary, x: Any, y: Any) -> Tensor:
    """Complex numbers compared part by part."""
    from graphc.frontend.reinterpret import parts_of

    (a, b), (c, d) = parts_of(x), parts_of(y)
    return join(compare(a, c), compare(b, d))


lt = _two("lt", "input < other, as bool.")
le = _two("le", "input <= other, as bool.")
gt = _two("gt", "input > other, as bool.")
ge = _two("ge", "input >= other, as bool.")


def _bits(name: str, doc: str) -> Binary:
    def function(input: Operand, other: Operand) -> Tensor:
        x, y = common(name, input, other)
        like = x if isinstance(x, Tensor) else y
        if like.dtype.is_floating_point:
            raise DTypeError(f"{name}: takes bool and integer tensors, got {like._l.type}; convert it first")
        made: Tensor = getattr(ops, name)(x, y)
        return made

    found: Binary = _named(function, name, doc)
    return hot.binary(found)


bitwise_and = _bits("bitwise_and", "Bits set in both (bool: and). Raises DTypeError for floating point.")
bitwise_or = _bits("bitwise_or", "Bits set in either (bool: or). Raises DTypeError for floating point.")
bitwise_xor = _bits(
    "bitwise_xor", "Bits set in one of the two (bool: exclusive or). Raises DTypeError for floating point."
)


def bitwise_not(input: Tensor) -> Tensor:
    """All bits turned (bool: not). Raises DTypeError for floating point."""
    x = real_operand("bitwise_not", input)
    if x.dtype.is_floating_point:
        raise DTypeError(f"bitwise_not: takes bool and integer tensors, got {x._l.type}; convert it first")
    made: Tensor = ops.bitwise_not(x)
    return made


def _truth(name: str, x: Any) -> Tensor:
    t = tensor_operand(name, x)
    return t if t.dtype is bool_ else ne(t, 0)


def logical_and(input: Tensor, other: Tensor) -> Tensor:
    """Where both are not zero, as bool."""
    made: Tensor = ops.bitwise_and(_truth("logical_and", input), _truth("logical_and", other))
    return made


def logical_or(input: Tensor, other: Tensor) -> Tensor:
    """Where one or both are not zero, as bool."""
    made: Tensor = ops.bitwise_or(_truth("logical_or", input), _truth("logical_or", other))
    return made


def logical_xor(input: Tensor, other: Tensor) -> Tensor:
    """Where exactly one is not zero, as bool."""
    made: Tensor = ops.bitwise_xor(_truth("logical_xor", input), _truth("logical_xor", other))
    return made


def logical_not(input: Tensor) -> Tensor:
    """Where elements are zero, as bool."""
    made: Tensor = ops.bitwise_not(_truth("logical_not", input))
    return made


# ---------------------------------------------------------------- three operands and more


@overload
def where(condition: Tensor) -> tuple[Tensor, ...]: ...
@overload
def where(condition: Tensor, input: Operand, other: Operand) -> Tensor: ...
@hot.mixed
def where(condition: Tensor, input: Operand | None = None, other: Operand | None = None) -> Any:
    """input where condition holds, else other. Raises DTypeError unless `condition` is bool.

    With the condition alone: nonzero(condition, as_tuple=True), whose size depends on values.
    """
    if input is None and other is None:
        from graphc.frontend.indexing import nonzero

        return nonzero(condition, as_tuple=True)
    if input is None or other is None:
        raise ArgumentError("where: give both input and other, or neither of them")
    mask = tensor_operand("where", condition)
    if mask.dtype is not bool_:
        raise DTypeError(
            f"where: expected condition to be a boolean tensor, got {mask._l.type}; compare it with something first"
        )
    if isinstance(input, Tensor) or isinstance(other, Tensor):
        x, y = common("where", input, other)
    else:
        x = y = None
    dtype = result_type(input, other) if x is None else (x if isinstance(x, Tensor) else y).dtype
    check_fits("where", input, dtype)
    check_fits("where", other, dtype)
    made: Tensor = ops.where(
        mask, lift(input, dtype) if x is None else lift(x, dtype), lift(other, dtype) if y is None else lift(y, dtype)
    )
    return made


absolute = abs
divide = true_divide = div
greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne
multiply, negative, subtract = mul, neg, sub
