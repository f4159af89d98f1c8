"""The complementary error function, log |Gamma| and its derivatives, evaluated in float64 for every dtype.

The polynomials are fits of our own (interpolation at Chebyshev nodes in 60 digits). Beyond them: Stirling's series,
the recurrence of Gamma and its reflection formula, Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964),
6.1.40, 6.1.15, 6.1.17, 6.4.6, 6.4.7 and 6.4.11.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError
from graphc.ir import expr
from graphc.ir.expr import Expr
from graphc.ir.infer import require_dtype
from graphc.ir.op import Array, Op, Sample, define
from graphc.ir.ops.elementwise import (
    FLOATS,
    chain,
    pointwise,
    samples_of,
    unary,
    unary_samples,
    uniform,
    wide,
)
from graphc.ir.ops.inverse import _c, _in_float64, _polynomial
from graphc.ir.ops.pointwise import exp, mul, neg
from graphc.ir.types import TensorType, float32, float64

# log Gamma(2 + z) / z on |z| <= 1/2
_LOG_GAMMA = (
    6.379047507619774e-08, -1.3412819758517287e-07, 2.0304806751615227e-07, -4.303558760359961e-07,
    9.578663334114758e-07, -2.0449201467015115e-06, 4.374374916915131e-06, -9.438458716242811e-06,
    2.050726741605779e-05, -4.4926351103833334e-05, 9.945750909889392e-05, -0.00022315475074520367,
    0.0005096695248853096, -0.0011927539120010226, 0.002890510330738737, -0.0073855510286681535,
    0.02058080842778457, -0.06735230105319814, 0.3224670334241132, 0.42278433509846713,
)  # fmt: skip
# erfc(x) e^(x^2) (1 + 2x) in (x - 3) / (x + 3), 1/2 <= x <= 28
_ERFC = (
    2.530478256290314e-09, -6.795035322911804e-09, -1.7932947990627186e-08, 4.1367990839283595e-08,
    1.078880701472726e-07, -1.4324034589200596e-07, -6.211741712587419e-07, 3.5900188708545566e-07,
    3.4745846128523814e-06, -7.328307002418314e-07, -2.010126378463004e-05, 4.949956945761098e-06,
    0.0001250995042238072, -0.00010515990298771089, -0.0007798322945107705, 0.0018886903726146294,
    0.0025293918182127816, -0.02377051491960952, 0.06830802734385681, -0.1192736634152754, 0.12964515870276397,
    -0.047562294353451176, -0.1356211061245812, 1.2530080582697296,
)  # fmt: skip
# B(2k) for k = 1, 2, …
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330,
              854513 / 138, -236364091 / 2730)  # fmt: skip
_STIRLING = tuple(b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI[:8], 1))[::-1]
MAX_ORDER = 10  # of polygamma

f = expr.apply


def _erfc(x: Expr) -> Expr:
    a = f("min", f("abs", x), _c(28.0))
    z = f("cast", f("cast", a, dtype=float32), dtype=float64)  # z * z is exact
    rest = f("mul", f("sub", z, a), f("add", z, a))  # z^2 - a^2, below 1e-4
    more = f("mul", rest, f("add", _c(1.0), f("mul", rest, f("add", _c(0.5), f("mul", rest, _c(1 / 6))))))
    bell = f("exp", f("neg", f("mul", z, z)))
    bell = f("add", bell, f("mul", bell, more))
    t = f("div", f("sub", a, _c(3.0)), f("add", a, _c(3.0)))
    tail = f("mul", bell, f("div", _polynomial(t, _ERFC), f("add", _c(1.0), f("mul", a, _c(2.0)))))
    tail = f("select", f("lt", x, _c(0.0)), f("sub", _c(2.0), tail), tail)
    return f("select", f("lt", a, _c(0.5)), f("sub", _c(1.0), f("erf", x)), tail)


def _from_whole(x: Expr) -> Expr:
    """The distance of x to the nearest integer, exact, with its sign."""
    return f("select", f("lt", f("abs", x), _c(0.5)), x, f("sub", x, f("round", x)))


def _lgamma(x: Expr) -> Expr:
    """log Gamma(2 + z) by the polynomial, with the logarithm of what Gamma's recurrence multiplies or divides by."""
    a = f("abs", x)
    near, left = f("lt", a, _c(0.5)), f("le", x, _c(-0.5))
    b = f("select", left, a, x)
    z, product = f("sub", b, _c(2.0)), _c(1.0)
    for k in range(1, 7):
        beyond = f("ge", b, _c(k + 1.5))
        z = f("select", beyond, f("sub", b, _c(k + 2.0)), z)
        product = f("mul", product, f("select", beyond, f("sub", b, _c(float(k))), _c(1.0)))
    low, big = f("lt", b, _c(1.5)), f("ge", b, _c(8.0))
    z = f("select", near, x, f("select", low, f("sub", b, _c(1.0)), z))
    factor = f("select", near, f("mul", a, f("add", _c(1.0), x)), f("select", low, b, product))
    log = f("log", f("select", big, b, factor))
    small = f("add", f("mul", z, _polynomial(z, _LOG_GAMMA)), f("select", low, f("neg", log), log))
    inverse = f("div", _c(1.0), b)
    series = f("mul", inverse, _polynomial(f("mul", inverse, inverse), _STIRLING))
    half = 0.5 * math.log(2 * math.pi) - 0.5
    large = f("add", f("mul", f("sub", b, _c(0.5)), f("sub", log, _c(1.0))), f("add", _c(half), series))
    found = f("select", big, large, small)
    # Gamma(-b) Gamma(b) = -pi / (b sin(pi b))
    sine = f("abs", f("sin", f("mul", _c(math.pi), _from_whole(b))))
    mirrored = f("sub", f("log", f("div", _c(math.pi), f("mul", b, sine))), found)
    return f("select", f("eq", a, _c(math.inf)), a, f("select", left, mirrored, found))


def _power(x: Expr, n: int) -> Expr:
    total = x
    for _ in range(n - 1):
        total = f("mul", total, x)
    return total if n else _c(1.0)


def _cotangent(n: int) -> list[float]:
    """Coefficients, highest first, of the polynomial in c = cot(t) that is the n-th derivative of cot(t)."""
    found = [0.0, 1.0]
    for _ in range(n):
        slope = [k * v for k, v in enumerate(found)][1:]  # times -(1 + c^2)
        found = [0.0] * (len(slope) + 2)
        for k, v in enumerate(slope):
            found[k] -= v
            found[k + 2] -= v
    return found[::-1]


def _upper(x: Expr, n: int) -> Expr:
    """psi_n of x >= 1/2: the recurrence up to 10 + n, then the asymptotic series."""
    ends, terms, y = 10 + n, [], x
    for k in range(ends):
        at = f("add", x, _c(float(k)))
        short = f("lt", at, _c(float(ends)))
        y = f("select", short, f("add", x, _c(k + 1.0)), y)
        terms.append(f("select", short, f("div", _c(1.0), _power(at, n + 1)), _c(0.0)))
    total = terms[-1]
    for term in terms[-2::-1]:
        total = f("add", total, term)
    inverse = f("div", _c(1.0), y)
    factors = [b * math.factorial(2 * k + n - 1) / math.factorial(2 * k) for k, b in enumerate(_BERNOULLI, 1)]
    z = f("mul", inverse, inverse)
    series = f("mul", z, _polynomial(z, factors[::-1]))
    series = f("add", series, f("mul", inverse, _c(math.factorial(n) / 2)))
    if n:
        series = f("mul", _power(inverse, n), f("add", series, _c(float(math.factorial(n - 1)))))
    else:
        series = f("sub", series, f("log", y))
    found = f("add", f("mul", total, _c(float(math.factorial(n)))), series)
    return found if n % 2 else f("neg", found)


def _polygamma(x: Expr, *, n: int) -> Expr:
    left = f("lt", x, _c(0.5))
    upper = _upper(f("select", left, f("sub", _c(1.0), x), x), n)
    angle = f("mul", _c(math.pi), _from_whole(x))
    cotangent = f("div", f("cos", angle), f("sin", angle))
    slope = f("mul", _c(math.pi ** (n + 1)), _polynomial(cotangent, _cotangent(n)))
    mirrored = f("sub", f("neg", upper) if n % 2 else upper, slope)
    if not n:  # from the left and from the right of a pole it is another infinity
        pole = f("and", f("lt", x, _c(0.0)), f("eq", x, f("round", x)))
        mirrored = f("select", pole, _c(math.nan), mirrored)
    return f("select", left, mirrored, upper)


# ---------------------------------------------------------------- the references


def _each(fn: Callable[[float], float]) -> Callable[[Array], Array]:
    def reference(x: Array) -> Array:
        return np.array([fn(float(v)) for v in np.ravel(x)], np.float64).reshape(np.shape(x))

    return reference


def _log_gamma(v: float) -> float:
    if math.isinf(v) or (v <= 0 and v == math.floor(v)):
        return math.inf
    if math.isnan(v):
        return v
    try:
        return math.lgamma(v)
    except OverflowError:  # beyond 2.5e305
        return math.inf


def _polygamma_number(v: float, n: int) -> float:
    """The recurrence up to 30, then fewer terms of the series than the kernels take."""
    if math.isnan(v) or v == -math.inf or (n == 0 and v < 0 and v == math.floor(v)):
        return math.nan
    if v == math.inf:
        return math.inf if n == 0 else 0.0
    v = np.float64(v)  # powers overflow to infinity, where Python raises
    if v < 0.5:
        r = v - round(v) if abs(v) >= 0.5 else v
        cot = np.float64(math.copysign(math.inf, r) if r == 0 else 1 / math.tan(math.pi * r))
        slope = 0.0
        for k, c in enumerate(reversed(_cotangent(n))):
            slope += c * cot**k if c else 0.0
        return float((-1.0) ** n) * _polygamma_number(1 - v, n) - math.pi ** (n + 1) * slope
    terms = [float(math.factorial(n) / (v + k) ** (n + 1)) for k in range(max(30 - int(v), 0))]
    y = v + len(terms)
    terms.append(math.factorial(n - 1) / y**n if n else -math.log(y))
    terms.append(math.factorial(n) / (2 * y ** (n + 1)))
    for k, b in enumerate(_BERNOULLI[:8], 1):
        terms.append(b * math.factorial(2 * k + n - 1) / math.factorial(2 * k) / y ** (2 * k + n))
    return float((-1.0) ** (n + 1)) * math.fsum(terms)


def _polygamma_array(x: Array, *, n: int) -> Array:
    return _each(lambda v: _polygamma_number(v, n))(x)


# ---------------------------------------------------------------- the ops


def _span(low: float, high: float) -> Callable[..., Any]:
    return lambda *shape: uniform(low, high, *shape)


_BELL = 2 / math.sqrt(math.pi)

erfc: Op = unary(
    "erfc", _in_float64(_erfc), wide(_each(math.erfc)),
    chain(unary_samples(_span(-3, 3)), samples_of((uniform(3, 9, 6),), grad=False)), saves=("0",),
    vjp=lambda g, out, x, *, needs: (neg(mul(g, mul(exp(neg(mul(x, x))), _BELL))),),
    doc="1 - erf(x), accurate in the tail.",
)  # fmt: skip
lgamma: Op = unary(
    "lgamma", _in_float64(_lgamma), wide(_each(_log_gamma)),
    chain(unary_samples(_span(0.2, 12)), samples_of((uniform(-0.9, -0.1, 5),)), samples_of((uniform(9, 300, 5),))),
    saves=("0",), vjp=lambda g, out, x, *, needs: (mul(g, polygamma(x, n=0)),), doc="log |Gamma(x)|.",
)  # fmt: skip


def _infer(x: TensorType, *, n: int) -> TensorType:
    require_dtype("polygamma", x, FLOATS)
    if not isinstance(n, int) or not 0 <= n <= MAX_ORDER:
        raise ArgumentError(f"polygamma: n must be 0 to {MAX_ORDER}, got {n!r}")
    return x


def _vjp(g: Any, out: Any, x: Any, *, needs: Sequence[bool], n: int) -> tuple[Any]:
    return (mul(g, polygamma(x, n=n + 1)),)


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    for n in (0, 1, 2, 5):
        yield Sample((rng.uniform(0.6, 14, 6),), {"n": n}, f"n {n}")
        yield Sample((rng.uniform(-1.8, -1.2, (2, 2)),), {"n": n}, f"n {n} left of 0")
    yield Sample((rng.uniform(1, 2, (0, 3)),), {"n": 1}, "empty")


def _lower(x: Expr, *, n: int) -> Expr:
    return _in_float64(lambda a: _polygamma(a, n=n))(x)


polygamma: Op = define(
    Op(
        "polygamma",
        _infer,
        wide(_polygamma_array),
        _samples,
        pointwise(_lower),
        vjp=_vjp,
        saves=("0",),
        dtypes=FLOATS,
        doc="The n-th derivative of digamma, the derivative of log Gamma(x).",
    )
)
