"""Inverse trigonometric functions, hyperbolic functions and their inverses, the inverse of erf.

The inverse tangent is the rational approximation of S. L. Moshier, "Methods and Programs for Mathematical Functions"
(Cephes), evaluated in float64 for every dtype; arcsine and arccosine are arctangents of quotients of square roots.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.ir import expr
from graphc.ir.expr import Expr
from graphc.ir.op import Array, Op
from graphc.ir.ops.activation import expm1, log1p, rsqrt, square
from graphc.ir.ops.create import scalar_like
from graphc.ir.ops.elementwise import (
    FLOATS,
    away,
    binary,
    binary_samples,
    chain,
    composition,
    samples_of,
    unary,
    unary_samples,
    uniform,
    wide,
)
from graphc.ir.ops.pointwise import (
    _sum_to,
    abs_,
    add,
    cast,
    div,
    eq,
    erf,
    exp,
    gt,
    log,
    lt,
    mul,
    neg,
    sqrt,
    sub,
    where,
)
from graphc.ir.types import float64

_P = (-8.750608600031904122785e-1, -1.615753718733365076637e1, -7.500855792314704667340e1, -1.228866684490136173410e2,
      -6.485021904942025371773e1)  # fmt: skip
_Q = (1.0, 2.485846490142306297962e1, 1.650270098316988542046e2, 4.328810604912902668951e2, 4.853903996359136964868e2,
      1.945506571482613964425e2)  # fmt: skip
_REST = 6.123233995736765886130e-17  # of pi / 2, behind its float64


def _c(value: float) -> Expr:
    return expr.const(value, float64)


def _polynomial(z: Expr, coefficients: Sequence[float]) -> Expr:
    total = _c(coefficients[0])
    for c in coefficients[1:]:
        total = expr.apply("add", expr.apply("mul", total, z), _c(c))
    return total


def _signed(size: Expr, like: Expr) -> Expr:
    """`size` with the sign of `like`, a zero's too (NaN counts as positive)."""
    f, zero = expr.apply, _c(0.0)
    below = f("or", f("lt", like, zero), f("and", f("eq", like, zero), f("lt", f("div", _c(1.0), like), zero)))
    return f("select", below, f("neg", size), size)


def _atan_size(a: Expr) -> Expr:
    """The arctangent of a float64 number that is not negative."""
    f, one = expr.apply, _c(1.0)
    steep, flat = f("gt", a, _c(math.tan(3 * math.pi / 8))), f("le", a, _c(0.66))
    turned = f("select", steep, f("div", _c(-1.0), a), f("div", f("sub", a, one), f("add", a, one)))
    x = f("select", flat, a, turned)
    start = f("select", flat, _c(0.0), f("select", steep, _c(math.pi / 2), _c(math.pi / 4)))
    rest = f("select", flat, _c(0.0), f("select", steep, _c(_REST), _c(_REST / 2)))
    z = f("mul", x, x)
    curve = f("div", f("mul", z, _polynomial(z, _P)), _polynomial(z, _Q))
    return f("add", start, f("add", f("add", f("mul", x, curve), x), rest))


def _in_float64(fn: Callable[..., Expr]) -> Callable[..., Expr]:
    def lower(*args: Expr) -> Expr:
        made = fn(*(expr.apply("cast", a, dtype=float64) for a in args))
        return expr.apply("cast", made, dtype=args[0].dtype)

    return lower


def _atan(x: Expr) -> Expr:
    return _signed(_atan_size(expr.apply("abs", x)), x)


def _asin(x: Expr) -> Expr:
    f, one = expr.apply, _c(1.0)
    other = f("sqrt", f("mul", f("sub", one, x), f("add", one, x)))
    return f("mul", _c(2.0), _atan(f("div", x, f("add", one, other))))


def _acos(x: Expr) -> Expr:
    f, one = expr.apply, _c(1.0)
    return f("mul", _c(2.0), _atan(f("div", f("sqrt", f("sub", one, x)), f("sqrt", f("add", one, x)))))


def _atan2(y: Expr, x: Expr) -> Expr:
    f, zero = expr.apply, _c(0.0)
    a, b = f("abs", y), f("abs", x)
    steep = f("gt", a, b)
    low, high = f("select", steep, b, a), f("select", steep, a, b)
    ratio = f("select", f("eq", low, high), f("select", f("eq", low, zero), zero, _c(1.0)), f("div", low, high))
    angle = _atan_size(ratio)
    angle = f("select", steep, f("add", f("sub", _c(math.pi / 2), angle), _c(_REST)), angle)
    left = f("lt", _signed(_c(1.0), x), zero)
    angle = f("select", left, f("add", f("sub", _c(math.pi), angle), _c(2 * _REST)), angle)
    lost = f("or", f("ne", x, x), f("ne", y, y))
    return f("select", lost, _c(math.nan), _signed(angle, y))


def _inside(*shape: int) -> Any:
    return uniform(-0.9, 0.9, *shape)


def _any(*shape: int) -> Any:
    return uniform(-5, 5, *shape)


_EDGES = samples_of(([-1.0, 1.0, -1.5, 2.0, 1e-9, -1e-9, 0.999999],), grad=False, dtypes=FLOATS)

atan: Op = unary(
    "atan", _in_float64(_atan), wide(np.arctan), unary_samples(_any), saves=("0",),
    vjp=lambda g, out, x, *, needs: (div(g, add(square(x), 1.0)),), doc="The arctangent, in -pi/2 to pi/2.",
)  # fmt: skip
asin: Op = unary(
    "asin", _in_float64(_asin), wide(np.arcsin), chain(unary_samples(_inside), _EDGES), saves=("0",),
    vjp=lambda g, out, x, *, needs: (mul(g, rsqrt(sub(1.0, square(x)))),), doc="The arcsine; NaN outside -1 to 1.",
)  # fmt: skip
acos: Op = unary(
    "acos", _in_float64(_acos), wide(np.arccos), chain(unary_samples(_inside), _EDGES), saves=("0",),
    vjp=lambda g, out, x, *, needs: (neg(mul(g, rsqrt(sub(1.0, square(x))))),),
    doc="The arccosine; NaN outside -1 to 1.",
)  # fmt: skip


def _atan2_vjp(g: Any, out: Any, y: Any, x: Any, *, needs: Any) -> tuple[Any, ...]:
    part = div(g, add(square(x), square(y)))
    return _sum_to(((needs[0], lambda: mul(part, x), y), (needs[1], lambda: neg(mul(part, y)), x)))


def _atan2_array(y: Array, x: Array) -> Array:
    return np.arctan2(y, x)


atan2: Op = binary(
    "atan2", _in_float64(_atan2), wide(_atan2_array),
    binary_samples(lambda *s: away(3.0, 3, *s), lambda *s: away(3.0, 3, *s)), FLOATS, vjp=_atan2_vjp, saves=("0", "1"),
    doc="The angle of the point (x, y), in -pi to pi; operands y, x.",
)  # fmt: skip


# ---------------------------------------------------------------- hyperbolic functions

_BIG = 22.0  # above, exp(-2x) is lost beside 1


def _odd(size: Any, x: Any) -> Any:
    """`size` of |x| with the sign of x; zero stays as it is."""
    return where(lt(x, 0), neg(size), where(eq(x, 0), x, size))


def _half_exp(a: Any) -> Any:
    half = exp(mul(a, 0.5))
    return mul(mul(half, 0.5), half)


def _sinh(x: Any) -> Any:
    a = abs_(x)
    t = expm1(where(lt(a, _BIG), a, scalar_like(a, 1)))
    return _odd(where(lt(a, _BIG), mul(add(t, div(t, add(t, 1.0))), 0.5), _half_exp(a)), x)


def _cosh(x: Any) -> Any:
    e = _half_exp(abs_(x))
    return add(e, div(0.25, e))


def _asinh(x: Any) -> Any:
    a = abs_(x)
    near = where(lt(a, 1e8), a, scalar_like(a, 1))
    z = square(near)
    small = log1p(add(near, div(z, add(sqrt(add(z, 1.0)), 1.0))))
    return _odd(where(lt(a, 1e8), small, add(log(a), math.log(2.0))), x)


def _acosh(x: Any) -> Any:
    t = sub(where(gt(x, 1e8), scalar_like(x, 1), x), 1.0)
    small = log1p(add(t, mul(sqrt(t), sqrt(add(t, 2.0)))))
    return where(gt(x, 1e8), add(log(x), math.log(2.0)), small)


def _atanh(x: Any) -> Any:
    a = abs_(x)
    return _odd(mul(log1p(div(mul(a, 2.0), sub(1.0, a))), 0.5), x)


sinh: Op = composition(
    "sinh", _sinh, wide(np.sinh), unary_samples(_any), saves=("0",),
    vjp=lambda g, out, x, *, needs: (mul(g, cosh(x)),), doc="The hyperbolic sine.",
)  # fmt: skip
cosh: Op = composition(
    "cosh", _cosh, wide(np.cosh), unary_samples(_any), saves=("0",),
    vjp=lambda g, out, x, *, needs: (mul(g, sinh(x)),), doc="The hyperbolic cosine.",
)  # fmt: skip
asinh: Op = composition(
    "asinh", _asinh, wide(np.arcsinh), unary_samples(_any), saves=("0",),
    vjp=lambda g, out, x, *, needs: (mul(g, rsqrt(add(square(x), 1.0))),), doc="The inverse of sinh.",
)  # fmt: skip
acosh: Op = composition(
    "acosh", _acosh, wide(np.arccosh), chain(samples_of((uniform(1.1, 9, 5),), (uniform(1.1, 9),)), _EDGES),
    saves=("0",), vjp=lambda g, out, x, *, needs: (mul(g, mul(rsqrt(sub(x, 1.0)), rsqrt(add(x, 1.0)))),),
    doc="The inverse of cosh from 1 on; NaN below.",
)  # fmt: skip
atanh: Op = composition(
    "atanh", _atanh, wide(np.arctanh), chain(unary_samples(_inside), _EDGES), saves=("0",),
    vjp=lambda g, out, x, *, needs: (div(g, sub(1.0, square(x))),), doc="The inverse of tanh; NaN outside -1 to 1.",
)  # fmt: skip


# ---------------------------------------------------------------- the inverse of erf

_NEAR = (0.886226899, -1.645349621, 0.914624893, -0.140543331), (-2.118377725, 1.442710462, -0.329097515, 0.012229801)
_FAR = (-1.970840454, -1.624906493, 3.429567803, 1.641345311), (3.543889200, 1.637067800)


def _horner(z: Any, coefficients: Sequence[float]) -> Any:
    total: Any = coefficients[-1]
    for c in coefficients[-2::-1]:
        total = add(mul(z, total), c)
    return total


def _erfinv(x: Any) -> Any:
    """A rational start value in the middle and one in the tails, then two steps of Newton's method, in float64."""
    dtype = x.ttype.dtype
    x = cast(x, dtype=float64) if dtype is not float64 else x
    a, z = abs_(x), square(x)
    middle = div(mul(x, _horner(z, _NEAR[0])), _horner(z, (1.0, *_NEAR[1])))
    tail = sqrt(neg(log(mul(sub(1.0, a), 0.5))))
    outer = div(_horner(tail, _FAR[0]), _horner(tail, (1.0, *_FAR[1])))
    y = where(lt(a, 0.7), middle, where(lt(x, 0), neg(outer), outer))
    for _ in range(2):
        y = sub(y, div(sub(erf(y), x), mul(exp(neg(square(y))), 2.0 / math.sqrt(math.pi))))
    y = where(eq(a, 1.0), mul(x, math.inf), y)
    return cast(y, dtype=dtype) if dtype is not float64 else y


def erfinv_float64(x: Array) -> Array:
    """The inverse of erf in float64, element by element."""
    return np.array([_erfinv_number(v) for v in np.ravel(x)], np.float64).reshape(np.shape(x))


def _erfinv_number(v: float) -> float:
    if v == 0 or v != v:
        return v
    if abs(v) >= 1:
        return math.copysign(math.inf, v) if abs(v) == 1 else math.nan
    from statistics import NormalDist  # takes longer to import than all the ops of this package

    y = math.copysign(-NormalDist().inv_cdf((1 - abs(v)) / 2) / math.sqrt(2), v)
    for _ in range(2 if abs(v) < 0.7 else 0):
        y -= (math.erf(y) - v) / (2 / math.sqrt(math.pi) * math.exp(-y * y))
    return y


erfinv: Op = composition(
    "erfinv", _erfinv, wide(erfinv_float64), chain(unary_samples(_inside), _EDGES), saves=("out",),
    vjp=lambda g, out, x, *, needs: (mul(g, mul(exp(square(out)), math.sqrt(math.pi) / 2)),),
    doc="The y with erf(y) = x; NaN outside -1 to 1.",
)  # fmt: skip
