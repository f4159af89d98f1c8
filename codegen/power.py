"""pow: exp(y log x) with the logarithm in two floats, and the special cases of IEEE 754."""

from __future__ import annotations

from graphc.codegen.emit import Emitter, V
from graphc.codegen.reals import F
from graphc.codegen.vmath import INF, LN2_64, NAN, exp_of, log, split

# (log((1 + s) / (1 - s)) / (2 s) - 1 - s^2 / 3) / s^4 in s^2
POW_LOG = (0.05862885610905572, 0.058529940782504536, 0.06667406985646002, 0.07692297395881176, 0.09090909168496285,
           0.1111111111082441, 0.1428571428571469, 0.2)  # fmt: skip
THIRD = (0.3333333333333333, 1.850371707708594e-17)

Pair = tuple[F, F]  # an unevaluated sum, the second a correction of the first


def two_sum(a: F, b: F) -> Pair:
    """a + b without error (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def fast_sum(a: F, b: F) -> Pair:
    """a + b without error where |a| >= |b| or a = 0 (Dekker)."""
    s = a + b
    return s, b - (s - a)


def _times(a: Pair, b: Pair) -> Pair:
    p = a[0] * b[0]
    return fast_sum(p, a[0].fma(b[0], -p) + (a[0] * b[1] + a[1] * b[0]))


def _log_pair(x: F) -> Pair:
    """log of positive finite float64 with an error near 2**-66: 2 s (1 + s^2/3 + s^4 P(s^2)), s = r / (2 + r)."""
    _, n, m = split(x)
    r = m - 1.0
    d, d_low = fast_sum(r.like(2.0), r)
    s = r / d
    s_low = ((-s).fma(d, r) - s * d_low) / d
    z = _times((s, s_low), (s, s_low))
    third = fast_sum(r.like(THIRD[0]), z[0] * z[0].polynomial(POW_LOG) + THIRD[1])
    t = _times(z, third)
    ratio = _times((s + s, s_low + s_low), t)
    high, low = fast_sum(s + s, ratio[0])
    high, low = fast_sum(high, low + (ratio[1] + (s_low + s_low)))
    total, rest = two_sum(n * LN2_64[0], high)
    return fast_sum(total, rest + n.fma(LN2_64[1], low))


def _magnitude(x: F, y: F) -> F:
    """x ** y for positive finite x and finite y."""
    high, low = _log_pair(x)
    p = high * y
    rest = high.fma(y, -p) + low * y
    return exp_of(p, rest.where(abs(p).test("olt", 800.0), 0.0))


def _special(a: F, x: F, y: F, usual: F) -> F:
    """`usual` = a ** y, a = |x|, put right for zeros, infinities, NaN, negative x, and y = 0 or x = 1."""
    grows = x.e.bin("xor", a.test("olt", 1.0), y.test("ogt", 0.0))  # the result tends to infinity
    extreme = x.e.bin("or", a.test("oeq", 0.0), x.e.bin("or", a.test("oeq", INF), abs(y).test("oeq", INF)))
    size = x.like(INF).where(grows, 0.0).where(extreme, usual)
    size = x.like(1.0).where(x.e.bin("and", a.test("oeq", 1.0), y.test("oeq", y)), size)
    half = y * 0.5
    whole = y.test("oeq", y.floor())
    odd = x.e.bin("and", whole, half.test("une", half.floor()))
    odd = x.e.bin("and", odd, abs(y).test("olt", INF))
    signed = size.with_sign(x).where(odd, size)
    no_root = x.e.bin("and", x.test("olt", 0.0), x.e.invert(x.e.bin("or", whole, a.test("oeq", INF))))
    result = x.like(NAN).where(x.e.bin("or", no_root, x.test("uno", y)), signed)
    return x.like(1.0).where(x.e.bin("or", y.test("oeq", 0.0), x.test("oeq", 1.0)), result)


def power(e: Emitter, x_: V, y_: V) -> V:
    """x ** y. float32 is computed in float64 and rounded once."""
    x, y = F(e, x_), F(e, y_)
    if not x.double:
        x, y = x.convert("fpext", "double"), y.convert("fpext", "double")
    a = abs(x)
    usual = _magnitude(a, y) if x_.ty.elem == "double" else exp_of(log(a) * y)
    result = _special(a, x, y, usual)
    return result.v if x_.ty.elem == "double" else result.convert("fptrunc", "float").v
