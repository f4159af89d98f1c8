"""Random numbers: functions of the random state alone.

The state is int64 [2]: (seed, offset). Element i of a call numbered `offset` is made of words of Philox4x32-10 with key
= seed and counter = (state offset + call offset, i), so every target, eager or compiled, draws the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ShapeError
from graphc.ir import expr
from graphc.ir.expr import Expr, flat_index, iadd, iconst
from graphc.ir.infer import require_dtype
from graphc.ir.op import Array, Elementwise, Op, Sample, define
from graphc.ir.ops.create import scalar_like
from graphc.ir.ops.elementwise import FLOATS, quiet
from graphc.ir.ops.pointwise import cast, ge, lt, mul, where
from graphc.ir.philox import philox
from graphc.ir.types import DType, Shape, TensorType, contiguous_strides, float32, float64, int64

STATES = ((0, 0), (1234567, 3), (-1, 2**40 + 7))


def _check_state(op: str, state: TensorType, operand: int = 0) -> None:
    require_dtype(op, state, (int64,), operand)
    if state.shape != (2,):
        raise ShapeError(f"{op}: operand {operand} is {state}, but the random state is i64[2]: (seed, offset)")


def _float_type(name: str) -> Callable[..., TensorType]:
    def infer(state: TensorType, *, shape: Shape, dtype: DType, offset: int = 0) -> TensorType:
        _check_state(name, state)
        out = TensorType(dtype, shape)
        if dtype not in FLOATS:
            raise ArgumentError(f"{name}: dtype must be float32 or float64, got {dtype.name}; use randint for integers")
        return out

    return infer


def _samples(**attrs: Any) -> Callable[[np.random.Generator], Iterator[Sample]]:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for state in STATES:
            for shape in ((), (7,), (3, 33), (0, 2)):
                for offset in (0, 5):
                    yield Sample((np.array(state, np.int64),), {"shape": shape, "offset": offset, **attrs}, grad=False)

    return samples


def _float_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for dtype in FLOATS:
        yield from _samples(dtype=dtype)(rng)


def words_array(state: Array, shape: tuple[int, ...], offset: int) -> tuple[Array, ...]:
    """The four Philox words of every element of `shape`, as int64 arrays."""
    element = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.int64)
    return tuple(w.reshape(shape) for w in philox(state[0], np.asarray(state[1] + np.int64(offset)), element))


def _words(at: Callable[..., Expr], index: Sequence[Expr], shape: Shape, offset: int, count: int) -> list[Expr]:
    sizes = TensorType(int64, shape).sizes
    element = flat_index(index, contiguous_strides(sizes))
    seed, counter = at(0, (iconst(0),)), iadd(at(0, (iconst(1),)), offset)
    return [expr.apply("philox", seed, counter, element, iconst(w)) for w in range(count)]


# ---- uniform


def rand_array(state: Array, *, shape: tuple[int, ...], dtype: DType, offset: int = 0) -> Array:
    """Uniform numbers in [0, 1): 24 random bits in float32, 53 in float64."""
    w0, w1, _, _ = words_array(state, shape, offset)
    if dtype is float32:
        return np.asarray((w0 >> 8).astype(np.float32) * np.float32(2.0**-24))
    return np.asarray((((w0 >> 5) << 26) + (w1 >> 6)).astype(np.float64) * 2.0**-53)


def _uniform(at: Callable[..., Expr], index: Sequence[Expr], shape: Shape, dtype: DType, offset: int) -> Expr:
    f = expr.apply
    if dtype is float32:
        (w0,) = _words(at, index, shape, offset, 1)
        bits, step = f("shr", w0, iconst(8)), 2.0**-24
    else:
        w0, w1 = _words(at, index, shape, offset, 2)
        high = f("shl", f("shr", w0, iconst(5)), iconst(26))
        bits, step = f("or", high, f("shr", w1, iconst(6))), 2.0**-53
    return f("mul", f("cast", bits, dtype=dtype), expr.const(step, dtype))


def _rand_expr(at: Any, index: Any, types: Any, *, shape: Shape, dtype: DType, offset: int = 0) -> Expr:
    return _uniform(at, index, shape, dtype, offset)


rand: Op = define(
    Op(
        "rand",
        _float_type("rand"),
        quiet(rand_array),
        _float_samples,
        Elementwise(_rand_expr),
        dtypes=(int64,),
        differentiable=False,
        random=True,
        doc="Uniform in [0, 1) from the random state; `offset` numbers the call.",
    )
)


# ---- normal

# M. Giles, "Approximating the erfinv function", GPU Computing Gems Jade Edition, 2011: single precision,
# a polynomial in w - 2.5 for w < 5 and one in sqrt(w) - 3 else, w = -log(1 - x*x); highest power first.
_GILES_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
_GILES_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip

# M. Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37, 1988:
# numerator and denominator near the middle, in the tails and far out; lowest power first.
_AS241_CENTRE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
_AS241_TAIL = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_AS241_FAR = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip


def _horner(x: Expr, highest_first: Sequence[float]) -> Expr:
    total = expr.const(highest_first[0], x.dtype)
    for c in highest_first[1:]:
        total = expr.apply("fma", total, x, expr.const(c, x.dtype))
    return total


def _ratio(x: Expr, pair: tuple[Sequence[float], Sequence[float]]) -> Expr:
    return expr.apply("div", _horner(x, pair[0][::-1]), _horner(x, pair[1][::-1]))


def _normal32(x: Expr) -> Expr:
    """sqrt(2) * erfinv(x) in float32, |x| < 1."""
    f = expr.apply

    def c(v: float) -> Expr:
        return expr.const(v, float32)

    w = f("neg", f("log", f("mul", f("sub", c(1.0), x), f("add", c(1.0), x))))
    centre = _horner(f("sub", w, c(2.5)), _GILES_CENTRE)
    tail = _horner(f("sub", f("sqrt", w), c(3.0)), _GILES_TAIL)
    slope = f("select", f("lt", w, c(5.0)), centre, tail)
    return f("mul", f("mul", slope, x), c(2.0**0.5))


def _normal64(x: Expr) -> Expr:
    """sqrt(2) * erfinv(x) in float64, |x| < 1."""
    f = expr.apply

    def c(v: float) -> Expr:
        return expr.const(v, float64)

    q = f("mul", x, c(0.5))
    size = f("abs", q)
    centre = f("mul", q, _ratio(f("sub", c(0.180625), f("mul", q, q)), _AS241_CENTRE))
    r = f("sqrt", f("neg", f("log", f("sub", c(0.5), size))))
    tail = _ratio(f("sub", r, c(1.6)), _AS241_TAIL)
    far = _ratio(f("sub", r, c(5.0)), _AS241_FAR)
    outer = f("select", f("le", r, c(5.0)), tail, far)
    outer = f("select", f("lt", q, c(0.0)), f("neg", outer), outer)
    return f("select", f("le", size, c(0.425)), centre, outer)


def _randn_expr(at: Any, index: Any, types: Any, *, shape: Shape, dtype: DType, offset: int = 0) -> Expr:
    """The midpoint of the uniform number's interval, in (-1, 1) and exact, through the inverse error function."""
    f = expr.apply
    half_step = 2.0**-24 if dtype is float32 else 2.0**-53
    u = _uniform(at, index, shape, dtype, offset)
    doubled = f("sub", f("mul", u, expr.const(2.0, dtype)), expr.const(1.0, dtype))
    x = f("add", doubled, expr.const(half_step, dtype))
    return _normal32(x) if dtype is float32 else _normal64(x)


def randn_array(state: Array, *, shape: tuple[int, ...], dtype: DType, offset: int = 0) -> Array:
    """Standard normal numbers: the inverse distribution function at the midpoints of `rand`'s intervals."""
    uniform = rand_array(state, shape=shape, dtype=dtype, offset=offset).astype(np.float64)
    half_step = 2.0**-25 if dtype is float32 else 2.0**-54
    from statistics import NormalDist

    inverse = NormalDist().inv_cdf
    # 1 - p is exact where p itself would be rounded
    high = uniform >= 0.5
    tail = np.where(high, (1.0 - uniform) - half_step, uniform + half_step)
    size = np.array([-inverse(p) for p in tail.ravel().tolist()], np.float64).reshape(shape)
    return np.where(high, size, -size).astype(dtype.np)


randn: Op = define(
    Op(
        "randn",
        _float_type("randn"),
        quiet(randn_array),
        _float_samples,
        Elementwise(_randn_expr),
        dtypes=(int64,),
        differentiable=False,
        random=True,
        doc="Standard normal numbers from the random state; `offset` numbers the call.",
    )
)


# ---- integers


def _randint_type(state: TensorType, *, shape: Shape, low: int, high: int, offset: int = 0) -> TensorType:
    _check_state("randint", state)
    if not -(2**63) <= low < high <= 2**63 or high - low >= 2**63:
        raise ArgumentError(f"randint: needs low < high, less than 2**63 apart, in int64; got low {low}, high {high}")
    return TensorType(int64, shape)


def randint_array(state: Array, *, shape: tuple[int, ...], low: int, high: int, offset: int = 0) -> Array:
    """Integers in [low, high): 63 random bits modulo their number."""
    w0, w1, _, _ = words_array(state, shape, offset)
    return np.asarray(((w0 << 31) | (w1 >> 1)) % np.int64(high - low) + np.int64(low))


def _randint_expr(at: Any, index: Any, types: Any, *, shape: Shape, low: int, high: int, offset: int = 0) -> Expr:
    f = expr.apply
    w0, w1 = _words(at, index, shape, offset, 2)
    bits = f("or", f("shl", w0, iconst(31)), f("shr", w1, iconst(1)))
    return f("add", f("irem", bits, iconst(high - low)), iconst(low))


def _randint_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for low, high in ((0, 10), (-5, 5), (-(2**63), -1), (7, 8)):
        yield from _samples(low=low, high=high)(rng)


randint: Op = define(
    Op(
        "randint",
        _randint_type,
        quiet(randint_array),
        _randint_samples,
        Elementwise(_randint_expr),
        dtypes=(int64,),
        differentiable=False,
        random=True,
        doc="int64 in [low, high) from the random state; `offset` numbers the call.",
    )
)


# ---- compositions


def _bernoulli_type(p: TensorType, state: TensorType, *, offset: int = 0) -> TensorType:
    require_dtype("bernoulli", p, FLOATS)
    _check_state("bernoulli", state, 1)
    return p


def _bernoulli(p: Any, state: Any, *, offset: int = 0) -> Any:
    u = rand(state, shape=p.ttype.shape, dtype=p.ttype.dtype, offset=offset)
    return cast(lt(u, p), dtype=p.ttype.dtype)


def _bernoulli_reference(p: Array, state: Array, *, offset: int = 0) -> Array:
    dtype = float32 if p.dtype == np.float32 else float64
    return (rand_array(state, shape=p.shape, dtype=dtype, offset=offset) < p).astype(p.dtype)


def _bernoulli_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape in ((), (40,), (3, 4), (0, 2)):
        yield Sample((rng.uniform(0, 1, shape), np.array(STATES[1], np.int64)), {"offset": 2}, grad=False)


bernoulli: Op = define(
    Op(
        "bernoulli",
        _bernoulli_type,
        quiet(_bernoulli_reference),
        _bernoulli_samples,
        decompose=_bernoulli,
        dtypes=FLOATS,
        differentiable=False,
        arity=2,
        random=True,
        doc="1 with probability p, else 0, in the dtype of p.",
    )
)


def _dropout_type(x: TensorType, state: TensorType, *, p: float, offset: int = 0) -> TensorType:
    require_dtype("dropout", x, FLOATS)
    _check_state("dropout", state, 1)
    if not 0.0 <= p <= 1.0:
        raise ArgumentError(f"dropout: p must be between 0 and 1, got {p}")
    return x


def _keep(x: Any, state: Any, p: float, offset: int) -> Any:
    """The mask; drawn in float32 for every dtype."""
    return ge(rand(state, shape=x.ttype.shape, dtype=float32, offset=offset), p)


def _scale(p: float) -> float:
    return 1.0 / (1.0 - p) if p < 1.0 else 0.0


def _dropout(x: Any, state: Any, *, p: float, offset: int = 0) -> Any:
    return where(_keep(x, state, p, offset), mul(x, _scale(p)), scalar_like(x, 0))


def _dropout_reference(x: Array, state: Array, *, p: float, offset: int = 0) -> Array:
    keep = rand_array(state, shape=x.shape, dtype=float32, offset=offset) >= np.float32(p)
    return np.asarray(np.where(keep, x * x.dtype.type(_scale(p)), x.dtype.type(0)))


def _dropout_vjp(g: Any, out: Any, x: Any, state: Any, *, needs: Any, p: float, offset: int = 0) -> tuple[Any, ...]:
    return (_dropout(g, state, p=p, offset=offset), None)


def _dropout_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for p in (0.0, 0.5, 0.25, 1.0):
        for shape in ((), (40,), (3, 4), (0, 2)):
            yield Sample((rng.uniform(-4, 4, shape), np.array(STATES[1], np.int64)), {"p": p, "offset": 4})


dropout: Op = define(
    Op(
        "dropout",
        _dropout_type,
        quiet(_dropout_reference),
        _dropout_samples,
        decompose=_dropout,
        vjp=_dropout_vjp,
        saves=("1",),
        dtypes=FLOATS,
        arity=2,
        random=True,
        doc="x / (1 - p) with probability 1 - p, else 0.",
    )
)
