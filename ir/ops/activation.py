"""Pointwise compositions: functions of one operand made of the primitives of pointwise.py, and activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphc.errors import ArgumentError
from graphc.ir.infer import require_arity, require_dtype
from graphc.ir.op import Array, Op, Sample, define
from graphc.ir.ops.create import scalar_like
from graphc.ir.ops.elementwise import (
    FLOATS,
    NUMBERS,
    away,
    bool_type,
    chain,
    composition,
    quiet,
    samples_of,
    unary_samples,
    uniform,
    wide,
)
from graphc.ir.ops.pointwise import (
    abs_,
    add,
    bitwise_and,
    bitwise_or,
    div,
    eq,
    erf,
    erf_float64,
    exp,
    ge,
    gt,
    le,
    log,
    lt,
    maximum,
    maximum_array,
    minimum,
    minimum_array,
    mul,
    ne,
    neg,
    sigmoid,
    sigmoid_float64,
    sqrt,
    sub,
    tanh,
    where,
)
from graphc.ir.types import TensorType

Number = float | int


def _span(low: float, high: float) -> Callable[..., Any]:
    return lambda *shape: uniform(low, high, *shape)


# ---- powers

reciprocal: Op = composition(
    "reciprocal", lambda x: div(1.0, x), quiet(lambda x: np.divide(x.dtype.type(1), x)), unary_samples(_span(0.5, 4)),
    vjp=lambda g, out, x, *, needs: (neg(mul(g, mul(out, out))),), saves=("out",), doc="1 / x.",
)  # fmt: skip

rsqrt: Op = composition(
    "rsqrt", lambda x: div(1.0, sqrt(x)), quiet(lambda x: np.divide(x.dtype.type(1), np.sqrt(x))),
    unary_samples(_span(0.5, 4)), vjp=lambda g, out, x, *, needs: (mul(g, mul(mul(mul(out, out), out), -0.5)),),
    saves=("out",), doc="1 / sqrt(x), each rounded.",
)  # fmt: skip


def _square_type(*types: TensorType) -> TensorType:
    require_arity("square", types, 1)
    require_dtype("square", types[0], NUMBERS)
    return types[0]


square: Op = define(
    Op(
        "square", _square_type, quiet(np.square), unary_samples(_span(-9, 9)), decompose=lambda x: mul(x, x),
        vjp=lambda g, out, x, *, needs: (mul(g, mul(x, 2.0)),), saves=("0",), dtypes=NUMBERS, doc="x * x.",
    )
)  # fmt: skip


# ---- exp and log near 0 and 1


def _log1p(x: Any) -> Any:
    """W. Kahan's formula (Goldberg, "What every computer scientist should know about floating-point arithmetic", 1991,
    theorem 4): log(u) * (x / (u - 1)) with u = 1 + x rounded; the errors of u cancel."""
    u = add(x, 1.0)
    corrected = mul(log(u), div(x, sub(u, 1.0)))
    return where(eq(u, 1.0), x, where(eq(u, x), log(u), corrected))


def _expm1(x: Any) -> Any:
    """W. Kahan's formula (Higham, "Accuracy and Stability of Numerical Algorithms", 1.14.1): (u - 1) * (x / log(u))
    with u = exp(x) rounded; the errors of u cancel."""
    u = exp(x)
    less = sub(u, 1.0)
    corrected = mul(less, div(x, log(u)))
    plain = where(eq(less, -1.0), less, where(eq(u, less), u, corrected))
    return where(eq(u, 1.0), x, plain)


log1p: Op = composition(
    "log1p", _log1p, wide(np.log1p),
    chain(unary_samples(_span(-0.5, 4)), samples_of(([1e-10, -1e-6, 1e-20, 3e-5],), grad=False)),
    vjp=lambda g, out, x, *, needs: (div(g, add(x, 1.0)),), saves=("0",), doc="log(1 + x), accurate for small x.",
)  # fmt: skip
expm1: Op = composition(
    "expm1", _expm1, wide(np.expm1),
    chain(unary_samples(_span(-2, 2)), samples_of(([1e-10, -1e-6, 1e-20, 3e-5, -60.0, 700.0],), grad=False)),
    vjp=lambda g, out, x, *, needs: (mul(g, add(out, 1.0)),), saves=("out",), doc="exp(x) - 1, accurate for small x.",
)  # fmt: skip


# ---- tests of one operand


def _test(name: str, decompose: Callable[[Any], Any], reference: Callable[..., Any], doc: str) -> Op:
    return composition(
        name, decompose, quiet(reference), unary_samples(_span(-9, 9)), infer=bool_type(name, 1, FLOATS),
        differentiable=False, doc=doc,
    )  # fmt: skip


isnan: Op = _test("isnan", lambda x: ne(x, x), np.isnan, "Whether x is NaN, as bool.")
isinf: Op = _test("isinf", lambda x: eq(abs_(x), math.inf), np.isinf, "Whether x is an infinity, as bool.")
isfinite: Op = _test("isfinite", lambda x: lt(abs_(x), math.inf), np.isfinite, "Whether x is a finite number, as bool.")


# ---- limits


def _clamp_type(*types: TensorType, min: Number | None = None, max: Number | None = None) -> TensorType:
    require_arity("clamp", types, 1)
    require_dtype("clamp", types[0], NUMBERS)
    if min is None and max is None:
        raise ArgumentError("clamp: neither min nor max is given; give one of them")
    return types[0]


def _clamp(x: Any, *, min: Number | None = None, max: Number | None = None) -> Any:
    out = x if min is None else maximum(x, min)
    return out if max is None else minimum(out, max)


def _clamp_reference(x: Array, *, min: Number | None = None, max: Number | None = None) -> Array:
    out = x if min is None else maximum_array(x, np.asarray(min, x.dtype))
    return out if max is None else minimum_array(out, np.asarray(max, x.dtype))


def _clamp_vjp(g: Any, out: Any, x: Any, *, needs: Any, min: Number | None = None, max: Number | None = None) -> Any:
    inside = le(x, max) if min is None else ge(x, min)
    if min is not None and max is not None:
        inside = bitwise_and(inside, le(x, max))
    return (where(inside, g, scalar_like(g, 0)),)


def _clamp_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for limits in ({"min": -2.0, "max": 2.0}, {"min": 0.0}, {"max": 4.0}, {"min": 2.0, "max": -2.0}):
        for sample in unary_samples(lambda *s: away(2.0, 4, *s))(rng):
            yield Sample(sample.inputs, limits, grad=sample.grad, dtypes=sample.dtypes)


clamp: Op = define(
    Op(
        "clamp",
        _clamp_type,
        quiet(_clamp_reference),
        _clamp_samples,
        decompose=_clamp,
        vjp=_clamp_vjp,
        saves=("0",),
        dtypes=NUMBERS,
        doc="minimum(maximum(x, min), max); NaN stays. The gradient passes where min <= x <= max.",
    )
)


# ---- activations


def _silu_vjp(g: Any, out: Any, x: Any, *, needs: Any) -> tuple[Any, ...]:
    s = sigmoid(x)
    return (mul(g, mul(s, add(mul(x, sub(1.0, s)), 1.0))),)


silu: Op = composition(
    "silu", lambda x: mul(x, sigmoid(x)), wide(lambda x: x * sigmoid_float64(x)), unary_samples(_span(-5, 5)),
    vjp=_silu_vjp, saves=("0",), doc="x * sigmoid(x).",
)  # fmt: skip

_TANH_SCALE = math.sqrt(2.0 / math.pi)
_TANH_CUBE = 0.044715  # D. Hendrycks and K. Gimpel, "Gaussian error linear units", 2016


def _gelu_type(*types: TensorType, approximate: str = "none") -> TensorType:
    require_arity("gelu", types, 1)
    require_dtype("gelu", types[0], FLOATS)
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return types[0]


def _gelu_inner(x: Any) -> Any:
    return mul(add(mul(mul(mul(x, x), x), _TANH_CUBE), x), _TANH_SCALE)


def _gelu(x: Any, *, approximate: str = "none") -> Any:
    bell = erf(mul(x, math.sqrt(0.5))) if approximate == "none" else tanh(_gelu_inner(x))
    return mul(mul(x, 0.5), add(bell, 1.0))


def _gelu_float64(x: Array, *, approximate: str = "none") -> Array:
    if approximate == "none":
        bell = erf_float64(x * math.sqrt(0.5))
    else:
        bell = np.tanh(_TANH_SCALE * (x + _TANH_CUBE * x * x * x))
    return 0.5 * x * (1.0 + bell)


def _gelu_vjp(g: Any, out: Any, x: Any, *, needs: Any, approximate: str = "none") -> tuple[Any, ...]:
    square_x = mul(x, x)
    if approximate == "none":
        cdf = mul(add(erf(mul(x, math.sqrt(0.5))), 1.0), 0.5)
        density = mul(exp(mul(square_x, -0.5)), 1.0 / math.sqrt(2.0 * math.pi))
        return (mul(g, add(cdf, mul(x, density))),)
    bell = tanh(_gelu_inner(x))
    inner_slope = add(mul(square_x, 3.0 * _TANH_CUBE * _TANH_SCALE), _TANH_SCALE)
    slope = mul(mul(mul(x, 0.5), sub(1.0, mul(bell, bell))), inner_slope)
    return (mul(g, add(mul(add(bell, 1.0), 0.5), slope)),)


def _gelu_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for approximate in ("none", "tanh"):
        for case in (uniform(-4, 4), uniform(-4, 4, 3, 4), uniform(-4, 4, 0, 2)):
            yield Sample((case(rng),), {"approximate": approximate})


gelu: Op = composition(
    "gelu", _gelu, wide(_gelu_float64), _gelu_samples, infer=_gelu_type, vjp=_gelu_vjp, saves=("0",),
    doc="x * Φ(x), Φ the normal distribution function; approximate='tanh' for the tanh form.",
)  # fmt: skip


def _softplus_type(*types: TensorType, beta: Number = 1.0, threshold: Number = 20.0) -> TensorType:
    require_arity("softplus", types, 1)
    require_dtype("softplus", types[0], FLOATS)
    return types[0]


def _softplus(x: Any, *, beta: Number = 1.0, threshold: Number = 20.0) -> Any:
    scaled = mul(x, beta)
    return where(gt(scaled, threshold), x, div(log1p(exp(scaled)), beta))


def _softplus_float64(x: Array, *, beta: Number = 1.0, threshold: Number = 20.0) -> Array:
    return np.where(x * beta > threshold, x, np.log1p(np.exp(x * beta)) / beta)


def _softplus_vjp(g: Any, out: Any, x: Any, *, needs: Any, beta: Number = 1.0, threshold: Number = 20.0) -> Any:
    scaled = mul(x, beta)
    return (where(gt(scaled, threshold), g, mul(g, sigmoid(scaled))),)


def _softplus_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for attrs in ({}, {"beta": 2.0, "threshold": 3.0}):
        for sample in unary_samples(lambda *s: away(1.5, 4, *s))(rng):
            yield Sample(sample.inputs, attrs, grad=sample.grad and not attrs, dtypes=sample.dtypes)


softplus: Op = composition(
    "softplus", _softplus, wide(_softplus_float64), _softplus_samples, infer=_softplus_type, vjp=_softplus_vjp,
    saves=("0",), doc="log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold.",
)  # fmt: skip


def _leaky_type(*types: TensorType, negative_slope: Number = 0.01) -> TensorType:
    require_arity("leaky_relu", types, 1)
    require_dtype("leaky_relu", types[0], FLOATS)
    return types[0]


def _leaky_reference(x: Array, *, negative_slope: Number = 0.01) -> Array:
    return np.where(x > 0, x, x * np.asarray(negative_slope, x.dtype))


def _leaky_vjp(g: Any, out: Any, x: Any, *, needs: Any, negative_slope: Number = 0.01) -> tuple[Any, ...]:
    return (where(gt(x, 0), g, mul(g, negative_slope)),)


def _leaky_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for attrs in ({}, {"negative_slope": 0.2}):
        for sample in unary_samples(lambda *s: away(2.0, 4, *s))(rng):
            yield Sample(sample.inputs, attrs, grad=sample.grad, dtypes=sample.dtypes)


leaky_relu: Op = composition(
    "leaky_relu", lambda x, *, negative_slope=0.01: where(gt(x, 0), x, mul(x, negative_slope)), quiet(_leaky_reference),
    _leaky_samples, infer=_leaky_type, vjp=_leaky_vjp, saves=("0",), doc="x > 0 ? x : x * negative_slope.",
)  # fmt: skip


def _elu_type(*types: TensorType, alpha: Number = 1.0) -> TensorType:
    require_arity("elu", types, 1)
    require_dtype("elu", types[0], FLOATS)
    return types[0]


def _elu(x: Any, *, alpha: Number = 1.0) -> Any:
    return where(gt(x, 0), x, mul(expm1(x), alpha))


def _elu_vjp(g: Any, out: Any, x: Any, *, needs: Any, alpha: Number = 1.0) -> tuple[Any, ...]:
    return (where(gt(x, 0), g, mul(g, mul(exp(x), alpha))),)


elu: Op = composition(
    "elu", _elu, wide(lambda x, *, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(x))),
    unary_samples(lambda *s: away(2.0, 4, *s)), infer=_elu_type, vjp=_elu_vjp, saves=("0",),
    doc="x > 0 ? x : alpha * (exp(x) - 1).",
)  # fmt: skip

relu6: Op = composition(
    "relu6", lambda x: clamp(x, min=0.0, max=6.0), quiet(lambda x: _clamp_reference(x, min=0.0, max=6.0)),
    unary_samples(lambda *s: away(2.0, 4, *s)), saves=("0",), doc="minimum(maximum(x, 0), 6).",
    vjp=lambda g, out, x, *, needs: (
        where(bitwise_or(le(x, 0.0), ge(x, 6.0)), scalar_like(g, 0), g),
    ),
)  # fmt: skip
