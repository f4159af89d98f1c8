"""Pointwise primitives: arithmetic, comparison, bit operations, where and cast.

Operands of one op have the same dtype and broadcast. Integers wrap, `x // 0 = x % 0 = 0`; maximum and minimum
propagate NaN and take -0 < +0. Names of ops that would hide a builtin carry an underscore: abs_, pow_, round_.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.errors import DTypeError
from graphc.ir import expr
from graphc.ir.convert import cast_array
from graphc.ir.expr import Expr
from graphc.ir.infer import broadcast_types, require_arity, same_dtype
from graphc.ir.op import Array, Op, define
from graphc.ir.ops.create import scalar_like, zeros_like
from graphc.ir.ops.elementwise import (
    FLOATS,
    INTEGERS,
    NUMBERS,
    REAL,
    away,
    binary,
    binary_samples,
    bool_type,
    chain,
    function,
    pointwise,
    quiet,
    samples_of,
    unary,
    unary_samples,
    unbroadcast,
    uniform,
    wide,
)
from graphc.ir.types import DType, TensorType, bool_, float64, int64


def _span(low: float, high: float) -> Callable[..., Any]:
    return lambda *shape: uniform(low, high, *shape)


def _grid(step: float, reach: int = 8) -> Callable[..., Any]:
    return lambda *shape: away(step, reach, *shape)


def _by_kind(on_bool: str | None, on_int: str, on_float: str) -> Callable[..., Expr]:
    """Function of Expr chosen by the dtype of the first operand."""

    def fn(*args: Expr) -> Expr:
        name = {"b": on_bool, "i": on_int, "f": on_float}[args[0].dtype.kind]  # unsigned: computed in int32
        assert name is not None
        return expr.apply(name, *args)

    return fn


def _zero_gradient(g: Any, out: Any, x: Any, *, needs: Any) -> tuple[Any, ...]:
    return (zeros_like(x),)


# ---- one operand

neg: Op = unary(
    "neg", function("neg"), quiet(np.negative), unary_samples(_span(-9, 9)), NUMBERS,
    vjp=lambda g, out, x, *, needs: (neg(g),), doc="-x.",
)  # fmt: skip

abs_: Op = unary(
    "abs", function("abs"), quiet(np.absolute), unary_samples(_grid(2.0)), NUMBERS, saves=("0",),
    vjp=lambda g, out, x, *, needs: (mul(g, sign(x)),), doc="|x|; the gradient at 0 is 0.",
)  # fmt: skip


sign: Op = unary(
    "sign", function("sign"), quiet(lambda x: (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)),
    unary_samples(_grid(2.0)), NUMBERS, vjp=_zero_gradient, doc="-1, 0 or 1; 0 for NaN and both zeros.",
)  # fmt: skip

exp: Op = unary(
    "exp", function("exp"), wide(np.exp), unary_samples(_span(-5, 5)), saves=("out",),
    vjp=lambda g, out, x, *, needs: (mul(g, out),), doc="e to the power x.",
)  # fmt: skip

log: Op = unary(
    "log", function("log"), wide(np.log), unary_samples(_span(0.1, 9)), saves=("0",),
    vjp=lambda g, out, x, *, needs: (div(g, x),), doc="Natural logarithm.",
)  # fmt: skip

sqrt: Op = unary(
    "sqrt", function("sqrt"), quiet(np.sqrt), unary_samples(_span(0.1, 9)), saves=("out",),
    vjp=lambda g, out, x, *, needs: (div(g, mul(out, 2.0)),), doc="Square root, correctly rounded.",
)  # fmt: skip

tanh: Op = unary(
    "tanh", function("tanh"), wide(np.tanh), unary_samples(_span(-3, 3)), saves=("out",),
    vjp=lambda g, out, x, *, needs: (mul(g, sub(1.0, mul(out, out))),), doc="Hyperbolic tangent.",
)  # fmt: skip


def sigmoid_float64(x: Array) -> Array:
    """1 / (1 + exp(-x)) in float64 without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1.0) / (1.0 + small)


sigmoid: Op = unary(
    "sigmoid", function("sigmoid"), wide(sigmoid_float64), unary_samples(_span(-5, 5)), saves=("out",),
    vjp=lambda g, out, x, *, needs: (mul(g, mul(out, sub(1.0, out))),), doc="1 / (1 + exp(-x)).",
)  # fmt: skip


def erf_float64(x: Array) -> Array:
    """The error function in float64, element by element."""
    flat = [math.erf(v) for v in np.ravel(x)]
    return np.array(flat, np.float64).reshape(np.shape(x))


def _erf_vjp(g: Any, out: Any, x: Any, *, needs: Any) -> tuple[Any, ...]:
    return (mul(g, mul(exp(neg(mul(x, x))), 2.0 / math.sqrt(math.pi))),)


erf: Op = unary(
    "erf", function("erf"), wide(erf_float64), unary_samples(_span(-3, 3)), saves=("0",), vjp=_erf_vjp,
    doc="Error function.",
)  # fmt: skip

sin: Op = unary(
    "sin", function("sin"), wide(np.sin), unary_samples(_span(-9, 9)), saves=("0",),
    vjp=lambda g, out, x, *, needs: (mul(g, cos(x)),), doc="Sine of x in radians.",
)  # fmt: skip

cos: Op = unary(
    "cos", function("cos"), wide(np.cos), unary_samples(_span(-9, 9)), saves=("0",),
    vjp=lambda g, out, x, *, needs: (neg(mul(g, sin(x))),), doc="Cosine of x in radians.",
)  # fmt: skip

floor: Op = unary(
    "floor", function("floor"), quiet(np.floor), unary_samples(_grid(1.0)), vjp=_zero_gradient, doc="Round down.",
)  # fmt: skip
ceil: Op = unary(
    "ceil", function("ceil"), quiet(np.ceil), unary_samples(_grid(1.0)), vjp=_zero_gradient, doc="Round up.",
)  # fmt: skip
trunc: Op = unary(
    "trunc", function("trunc"), quiet(np.trunc), unary_samples(_grid(1.0)), vjp=_zero_gradient, doc="Round to 0.",
)  # fmt: skip
round_: Op = unary(
    "round", function("round"), quiet(np.rint),
    chain(unary_samples(lambda *s: lambda rng: np.asarray(rng.integers(-4, 4, s) + rng.uniform(-0.25, 0.25, s))),
          samples_of(([0.5, 1.5, 2.5, -0.5, -1.5, 4503599627370497.5],), grad=False)),
    vjp=_zero_gradient, doc="Round to the nearest integer, halves to even.",
)  # fmt: skip


def _relu_expr(x: Expr) -> Expr:
    zero = expr.const(0, x.dtype)
    return expr.apply("select", expr.apply("lt", x, zero), zero, x)


def _relu_vjp(g: Any, out: Any, x: Any, *, needs: Any) -> tuple[Any, ...]:
    return (where(le(out, 0), scalar_like(g, 0), g),)


relu: Op = unary(
    "relu", _relu_expr, quiet(lambda x: np.where(x < 0, np.zeros((), x.dtype), x)), unary_samples(_grid(2.0)), NUMBERS,
    vjp=_relu_vjp, saves=("out",), doc="x < 0 ? 0 : x (NaN stays, -0 stays); the gradient at 0 is 0, at NaN it passes.",
)  # fmt: skip


# ---- two operands


def _sum_to(pairs: tuple[tuple[bool, Callable[[], Any], Any], ...]) -> tuple[Any, ...]:
    """Gradients worked out only where wanted, each summed back to the operand's shape."""
    return tuple(unbroadcast(make(), x.ttype) if wanted else None for wanted, make, x in pairs)


def _add_vjp(g: Any, out: Any, x: Any, y: Any, *, needs: Any) -> tuple[Any, ...]:
    return _sum_to(((needs[0], lambda: g, x), (needs[1], lambda: g, y)))


def _sub_vjp(g: Any, out: Any, x: Any, y: Any, *, needs: Any) -> tuple[Any, ...]:
    return _sum_to(((needs[0], lambda: g, x), (needs[1], lambda: neg(g), y)))


def _mul_vjp(g: Any, out: Any, x: Any, y: Any, *, needs: Any) -> tuple[Any, ...]:
    return _sum_to(((needs[0], lambda: mul(g, y), x), (needs[1], lambda: mul(g, x), y)))


def _div_vjp(g: Any, out: Any, x: Any, y: Any, *, needs: Any) -> tuple[Any, ...]:
    return _sum_to(((needs[0], lambda: div(g, y), x), (needs[1], lambda: neg(div(mul(g, out), y)), y)))


_ANY = _span(-9, 9)
_SOME = _grid(3.0, 3)

add: Op = binary(
    "add", _by_kind("or", "add", "add"), quiet(np.add), binary_samples(_ANY, _ANY), REAL, vjp=_add_vjp,
    doc="x + y; on bool: or.",
)  # fmt: skip
sub: Op = binary("sub", function("sub"), quiet(np.subtract), binary_samples(_ANY, _ANY), vjp=_sub_vjp, doc="x - y.")
mul: Op = binary(
    "mul", _by_kind("and", "mul", "mul"), quiet(np.multiply), binary_samples(_ANY, _ANY), REAL, vjp=_mul_vjp,
    saves=("0", "1"), doc="x * y; on bool: and.",
)  # fmt: skip
div: Op = binary(
    "div", function("div"), quiet(np.divide), binary_samples(_ANY, _span(0.5, 4)), FLOATS, vjp=_div_vjp,
    saves=("1", "out"), doc="x / y, correctly rounded. For integers use floor_divide, or cast first.",
)  # fmt: skip


def _pow_int(x: Expr, y: Expr) -> Expr:
    """Integer power by squaring, wrapping; x ** -n is what rounds 1 / x**n towards 0, and 0 for x = 0."""
    zero, one = expr.const(0, x.dtype), expr.const(1, x.dtype)
    negative = expr.apply("lt", y, zero)
    odd = expr.apply("eq", expr.apply("and", y, one), one)
    left, power, total = y, x, one
    for _ in range(x.dtype.bits - 1):
        bit = expr.apply("eq", expr.apply("and", left, one), one)
        total = expr.apply("select", bit, expr.apply("mul", total, power), total)
        power, left = expr.apply("mul", power, power), expr.apply("shr", left, one)
    sign_ = expr.apply("select", odd, x, one)
    unit = expr.apply("or", expr.apply("eq", x, one), expr.apply("eq", x, expr.const(-1, x.dtype)))
    return expr.apply("select", negative, expr.apply("select", unit, sign_, zero), total)


def _pow_reference(x: Array, y: Array) -> Array:
    if x.dtype.kind == "f":
        return np.power(x.astype(np.float64), y.astype(np.float64)).astype(x.dtype)
    inverse = np.where(np.abs(x) == 1, np.where(y % 2 == 1, x, 1), 0)
    return np.where(y < 0, inverse, np.power(x, np.maximum(y, 0)))


def _pow_vjp(g: Any, out: Any, x: Any, y: Any, *, needs: Any) -> tuple[Any, ...]:
    def of_base() -> Any:
        slope = mul(y, pow_(x, sub(y, 1.0)))
        return where(eq(y, 0.0), scalar_like(g, 0), mul(g, slope))

    def of_exponent() -> Any:
        slope = mul(out, log(x))
        flat = bitwise_and(eq(x, 0.0), ge(y, 0.0))
        return where(flat, scalar_like(g, 0), mul(g, slope))

    return _sum_to(((needs[0], of_base, x), (needs[1], of_exponent, y)))


pow_: Op = binary(
    "pow", lambda x, y: (expr.apply("pow", x, y) if x.dtype.kind == "f" else _pow_int(x, y)), quiet(_pow_reference),
    chain(binary_samples(_span(0.5, 3), _span(-2, 4)),
          samples_of(([2.0, -3.0, 0.0, 1.0, -1.0, 7.0, 0.0], [63.0, 41.0, 0.0, -3.0, -5.0, -2.0, -1.0]), grad=False),
          samples_of(([-(2.0**63), -(2.0**63), -(2.0**63)], [-1.0, -2.0, 1.0]), grad=False, dtypes=(int64,))),
    vjp=_pow_vjp, saves=("0", "1", "out"),
    doc="x to the power y; integers wrap, and a negative exponent gives 0 unless x is 1 or -1.",
)  # fmt: skip


def maximum_array(x: Array, y: Array) -> Array:
    """maximum of the contract: NaN propagates, -0 < +0."""
    if x.dtype.kind != "f":
        return np.maximum(x, y)
    return np.where((x == 0) & (y == 0), x + y, np.maximum(x, y))


def minimum_array(x: Array, y: Array) -> Array:
    """minimum of the contract: NaN propagates, -0 < +0."""
    if x.dtype.kind != "f":
        return np.minimum(x, y)
    return np.where((x == 0) & (y == 0), -(-x - y), np.minimum(x, y))


def _extreme_vjp(beats: Callable[[], Op]) -> Callable[..., tuple[Any, ...]]:
    """The gradient goes to the operand that won, half to each on a tie, all to both where one is NaN."""

    def vjp(g: Any, out: Any, x: Any, y: Any, *, needs: Any) -> tuple[Any, ...]:
        wins = beats()
        half, none, tie = mul(g, 0.5), scalar_like(g, 0), eq(x, y)

        def of(mine: Any, other: Any) -> Any:
            return where(tie, half, where(wins(other, mine), none, g))

        return _sum_to(((needs[0], lambda: of(x, y), x), (needs[1], lambda: of(y, x), y)))

    return vjp


maximum: Op = binary(
    "maximum", _by_kind("or", "max", "max"), quiet(maximum_array), binary_samples(_SOME, _ANY), REAL,
    vjp=_extreme_vjp(lambda: gt), saves=("0", "1"), doc="The larger; NaN propagates, -0 < +0.",
)  # fmt: skip
minimum: Op = binary(
    "minimum", _by_kind("and", "min", "min"), quiet(minimum_array), binary_samples(_SOME, _ANY), REAL,
    vjp=_extreme_vjp(lambda: lt), saves=("0", "1"), doc="The smaller; NaN propagates, -0 < +0.",
)  # fmt: skip


def _floor_divide_expr(x: Expr, y: Expr) -> Expr:
    """Python's rule for floats: the quotient less its exact remainder, snapped to an integer."""
    if x.dtype.is_integer:
        return expr.apply("idiv", x, y)
    f = expr.apply
    zero, one = expr.const(0.0, x.dtype), expr.const(1.0, x.dtype)
    quotient, left = f("div", x, y), f("fmod", x, y)
    ratio = f("div", f("sub", x, left), y)
    signs_differ = f("xor", f("lt", y, zero), f("lt", left, zero))
    ratio = f("select", f("and", f("ne", left, zero), signs_differ), f("sub", ratio, one), ratio)
    down = f("floor", ratio)
    snapped = f("select", f("gt", f("sub", ratio, down), expr.const(0.5, x.dtype)), f("add", down, one), down)
    whole = f("select", f("eq", ratio, zero), f("mul", quotient, zero), snapped)
    return f("select", f("eq", y, zero), quotient, whole)


floor_divide: Op = binary(
    "floor_divide", _floor_divide_expr, quiet(np.floor_divide),
    chain(binary_samples(_ANY, _grid(2.0)), samples_of(([-(2.0**63), 5.0, -5.0], [-1.0, 0.0, 3.0]), dtypes=(int64,))),
    differentiable=False, doc="x / y rounded down, as Python's //; x // 0 is 0 for integers.",
)  # fmt: skip


def _remainder_vjp(quotient: Callable[[Any, Any], Any]) -> Callable[..., tuple[Any, ...]]:
    """The gradient of x - quotient * y, for a quotient that is a whole number."""

    def vjp(g: Any, out: Any, x: Any, y: Any, *, needs: Any) -> tuple[Any, ...]:
        return _sum_to(((needs[0], lambda: g, x), (needs[1], lambda: neg(mul(g, quotient(x, y))), y)))

    return vjp


def _fmod_expr(x: Expr, y: Expr) -> Expr:
    if not x.dtype.is_integer:
        return expr.apply("fmod", x, y)
    f, zero = expr.apply, expr.const(0, x.dtype)
    left = f("irem", x, y)
    differ = f("and", f("ne", left, zero), f("xor", f("lt", x, zero), f("lt", left, zero)))
    return f("select", differ, f("sub", left, y), left)


# operands whose quotient keeps away from integers: the remainder jumps there
def _dividend(*shape: int) -> Callable[[np.random.Generator], Array]:
    return lambda rng: np.asarray(7.0 * (rng.integers(-4, 4, shape) + rng.uniform(0.35, 0.65, shape)))


def _divisor(*shape: int) -> Callable[[np.random.Generator], Array]:
    return lambda rng: np.asarray(7.0 * rng.choice([-1.0, 1.0], shape))


_EDGES = samples_of(([-7.0, 7.0, -7.0, 7.0, 5.0], [3.0, -3.0, -3.0, 3.0, 0.0]), grad=False)

remainder: Op = binary(
    "remainder", _by_kind(None, "irem", "frem"), quiet(np.remainder),
    chain(binary_samples(_dividend, _divisor), _EDGES), vjp=_remainder_vjp(floor_divide), saves=("0", "1"),
    doc="Exact remainder with the sign of y, as Python's %; x % 0 is 0 for integers, NaN for floats.",
)  # fmt: skip
fmod: Op = binary(
    "fmod", _fmod_expr, quiet(np.fmod), chain(binary_samples(_dividend, _divisor), _EDGES),
    vjp=_remainder_vjp(lambda x, y: trunc(div(x, y))), saves=("0", "1"),
    doc="Exact remainder with the sign of x, as C's fmod.",
)  # fmt: skip


# ---- comparisons and bits


def _not(x: Expr) -> Expr:
    return expr.apply("not", x)


_ON_BOOL: dict[str, Callable[[Expr, Expr], Expr]] = {
    "eq": lambda x, y: _not(expr.apply("xor", x, y)),
    "ne": lambda x, y: expr.apply("xor", x, y),
    "lt": lambda x, y: expr.apply("and", _not(x), y),
    "le": lambda x, y: expr.apply("or", _not(x), y),
    "gt": lambda x, y: expr.apply("and", x, _not(y)),
    "ge": lambda x, y: expr.apply("or", x, _not(y)),
}


def _comparison(name: str, reference: Callable[..., Any], doc: str) -> Op:
    def fn(x: Expr, y: Expr) -> Expr:
        return _ON_BOOL[name](x, y) if x.dtype is bool_ else expr.apply(name, x, y)

    return define(
        Op(
            name,
            bool_type(name, 2, REAL),
            quiet(reference),
            binary_samples(_grid(2.0, 2), lambda *s: lambda rng: np.asarray(rng.integers(-3, 3, s).astype(float))),
            pointwise(fn),
            dtypes=REAL,
            differentiable=False,
            arity=2,
            doc=doc,
        )
    )


eq: Op = _comparison("eq", np.equal, "x == y, as bool.")
ne: Op = _comparison("ne", np.not_equal, "x != y, as bool; true where one is NaN.")
lt: Op = _comparison("lt", np.less, "x < y, as bool.")
le: Op = _comparison("le", np.less_equal, "x <= y, as bool.")
gt: Op = _comparison("gt", np.greater, "x > y, as bool.")
ge: Op = _comparison("ge", np.greater_equal, "x >= y, as bool.")


def _bitwise(name: str, fn: str, reference: Callable[..., Any], doc: str, dtypes: tuple[DType, ...] = INTEGERS) -> Op:
    samples = binary_samples(_span(-9, 9), _span(-9, 9), special=False)
    return binary(name, function(fn), quiet(reference), samples, dtypes, differentiable=False, doc=doc)


bitwise_and: Op = _bitwise("bitwise_and", "and", np.bitwise_and, "x & y, on bool and integers.")
bitwise_or: Op = _bitwise("bitwise_or", "or", np.bitwise_or, "x | y, on bool and integers.")
bitwise_xor: Op = _bitwise("bitwise_xor", "xor", np.bitwise_xor, "x ^ y, on bool and integers.")
bitwise_not: Op = unary(
    "bitwise_not", function("not"), quiet(np.invert), samples_of((uniform(-9, 9, 5),), (uniform(-9, 9),)), INTEGERS,
    differentiable=False, doc="~x, on bool and integers.",
)  # fmt: skip


# ---- where and cast


def _where_type(*types: TensorType) -> TensorType:
    require_arity("where", types, 3)
    if types[0].dtype is not bool_:
        raise DTypeError(f"where: the condition is {types[0]}, but it must be bool; compare it with something first")
    dtype = same_dtype("where", *types[1:])
    return TensorType(dtype, broadcast_types("where", *types))


def _where_vjp(g: Any, out: Any, condition: Any, x: Any, y: Any, *, needs: Any) -> tuple[Any, ...]:
    none = scalar_like(g, 0)
    of_x, of_y = lambda: where(condition, g, none), lambda: where(condition, none, g)
    return (None, *_sum_to(((needs[1], of_x, x), (needs[2], of_y, y))))


where: Op = define(
    Op(
        "where",
        _where_type,
        quiet(np.where),
        samples_of(
            (np.asarray(True), uniform(-9, 9), uniform(-9, 9)),
            (np.arange(5) % 2 == 0, uniform(-9, 9, 5), uniform(-9, 9, 5)),
            (np.array([[True], [False]]), uniform(-9, 9, 3), uniform(-9, 9)),
            (np.zeros((0, 1), bool), uniform(-9, 9, 3), uniform(-9, 9, 1)),
        ),
        pointwise(function("select")),
        any_width=True,
        vjp=_where_vjp,
        saves=("0",),
        arity=3,
        doc="x where the condition holds, else y; nothing of the other is seen, be it NaN.",
    )
)


def _cast_vjp(g: Any, out: Any, x: Any, *, needs: Any, dtype: DType) -> tuple[Any, ...]:
    return (cast(g, dtype=x.ttype.dtype),)


def _cast_samples(rng: np.random.Generator) -> Any:
    edges = np.array([2.0**63, -(2.0**63), 2.0**63 - 1024, 1e300, -1e300, np.inf, -np.inf, np.nan, -0.0, 0.7, -1.7])
    for dtype in REAL:
        smooth = dtype is float64  # differences of rounded values are no gradients
        some = ((uniform(-9, 9, 3, 4),), (uniform(-9, 9),), (uniform(-9, 9, 0, 2),))
        yield from samples_of(*some, grad=smooth, dtype=dtype)(rng)
        yield from samples_of((edges,), grad=False, dtypes=(float64,), dtype=dtype)(rng)


def _cast_type(x: TensorType, *, dtype: DType) -> TensorType:
    if dtype is not x.dtype and (dtype.is_complex or x.dtype.is_complex):
        raise DTypeError(f"cast: operand 0 is {x}, to become {dtype.name}: complex numbers are stored and moved only")
    return x.with_dtype(dtype)


cast: Op = define(
    Op(
        "cast",
        _cast_type,
        quiet(cast_array),
        _cast_samples,
        pointwise(lambda x, *, dtype: expr.apply("cast", x, dtype=dtype)),
        dtypes=REAL,
        any_width=True,
        vjp=_cast_vjp,
        doc="x in another dtype. Float to int truncates, saturates and maps NaN to 0; to bool is x != 0.",
    )
)
