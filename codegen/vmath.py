"""exp, log, tanh, sigmoid, erf and pow in plain IR: one text for every width, no library calls (sin, cos: trig.py).

Every float operation is IEEE 754 in a stated order, so the bits are the same on all targets. The polynomials are fits
of our own (interpolation at Chebyshev nodes in 60 digits); leading terms are exact, so that rounding a coefficient
hardly counts.
Accuracy is measured by tests/test_vmath.py and listed in docs/numerics.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc.codegen.emit import Emitter, V
from graphc.codegen.reals import F, from_bits

INF, NAN = math.inf, math.nan
LOG2E = 1.4426950408889634
# ln 2 in two parts; the first ends in zeros, so that its product with an exponent is exact
LN2_32 = (0.693145751953125, 1.4286068203094173e-06)
LN2_64 = (0.6931471805598903, 5.497923018708371e-14)

# (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2
EXP_32 = (0.0001989101718431695, 0.0013933673732931862, 0.008333310901725953, 0.04166646471137908, 0.16666666681647016,
          0.5000000013487226)  # fmt: skip
EXP_64 = (2.0914707069630052e-09, 2.5105245153901378e-08, 2.7557273594799366e-07, 2.755725533255441e-06,
          2.480158732558584e-05, 0.00019841269874873975, 0.0013888888888883737, 0.00833333333332612,
          0.04166666666666667, 0.1666666666666667, 0.5)  # fmt: skip
# (log(1 + r) - r + r^2 / 2) / r^3 on sqrt(1/2) <= 1 + r <= sqrt(2)
LOG_32 = (0.06971611471451178, -0.11479733846637635, 0.1168541992348674, -0.12425687331451106, 0.1424905764569748,
          -0.16667802319501254, 0.200007157488921, -0.24999996957950882, 0.33333331180030046)  # fmt: skip
# (log((1 + s) / (1 - s)) / s - 2) / s^2 in s^2, s = r / (2 + r)
LOG_64 = (0.14619343453512615, 0.15331487235865734, 0.18182896183483085, 0.2222221103781659, 0.28571428626570206,
          0.3999999999989819, 0.666666666666667)  # fmt: skip
# (tanh(x) / x - 1) / x^2 in x^2, |x| <= 0.625
TANH_32 = (0.002292744816178142, -0.008343945515839153, 0.02176891865102821, -0.053959259577204544, 0.1333330355691574,
           -0.3333333317214036)  # fmt: skip
TANH_64 = (6.485163482793113e-06, -3.12011014257974e-05, 9.257116129556769e-05, -0.0002375906496055562,
           0.0005896606577757043, -0.0014557754120478055, 0.0035921217511549622, -0.008863235103240878,
           0.021869488519008305, -0.05396825396789699, 0.13333333333333042, -0.3333333333333333)  # fmt: skip
# erf(x) / x - 1 in x^2, |x| <= 0.93 and 1
ERF_32 = (8.334718615209905e-05, -0.0008134709332119056, 0.005200368586864961, -0.026859151472438985,
          0.11283691519733097, -0.3761263351714081, 0.12837916662064427)  # fmt: skip
ERF_64 = (5.957176147748911e-11, -1.1372848856791674e-09, 1.4659775274047436e-08, -1.6350312701054695e-07,
          1.6461000484121368e-06, -1.4925595266831182e-05, 0.0001205533111164271, -0.000854832698083379,
          0.0052239776248180145, -0.026866170645076792, 0.11283791670954879, -0.3761263890318375,
          0.1283791670955126)  # fmt: skip
# log(erfc(x)) on 0.92 <= x <= 4
ERFC_32 = (1.6435696536038326e-06, -4.617791279040004e-05, 0.0005977434719606111, -0.0047635752491493495,
           0.026431017603369227, -0.110094480827649, -0.6318145166593842, -1.1302376163746712,
           0.00032044153127726646)  # fmt: skip
# erfc(x) * e^(x^2) in (x - 3) / (x + 3), 1 <= x <= 6
ERFC_64 = (1.2801900862962662e-06, 2.023603179641757e-06, -8.008021319412685e-06, -1.284889451252353e-05,
           6.406182073530546e-05, 4.525472635483354e-05, -0.0005970623517093284, 0.0007077464443901538,
           0.004269136347508256, -0.024392499318273194, 0.07166583719774874, -0.15011593650078744, 0.24560380171233195,
           -0.32623356004303716, 0.17900115118138996)  # fmt: skip


def pow2(e: Emitter, k: V) -> F:
    """2**k: float64 of an i64 in [-1022, 1023], float32 of an i32 in [-126, 127]."""
    double = k.ty.elem == "i64"
    return from_bits(e, e.bin("shl", e.bin("add", k, 1023 if double else 127), 52 if double else 23))


def exponent(e: Emitter, x: V) -> V:
    """floor(log2 |x|) of positive finite float64 as i64, denormals included; less than -1074 for zero."""
    tiny = e.fcmp("olt", x, 2.0**-1022)
    biased = e.bin("lshr", (F(e, x) * 2.0**54).where(tiny, F(e, x)).bits, 52)
    return e.bin("sub", biased, e.select(tiny, e.const(biased.ty, 1023 + 54), 1023))


def scale(e: Emitter, x: V, k: V) -> V:
    """x * 2**k, rounded at most once, for |k| up to twice the exponent range of x (k: i64 for float64, else i32)."""
    half = e.bin("ashr", k, 1)
    return (F(e, x) * pow2(e, half) * pow2(e, e.bin("sub", k, half))).v


def nearest(x: F, factor: float) -> tuple[F, V]:
    """The integer n nearest to x * factor, as a float and as an integer (|n| < 2**21; of NaN: any integer)."""
    n, bits = _nearest_bits(x, factor)
    return n, x.e.bin("sub", bits, 0x4338 << 48 if x.double else 0x4B400000)


def _nearest_bits(x: F, factor: float) -> tuple[F, V]:
    """As `nearest`, but of the integer only the last 12 bits (float32: 22) are right."""
    shifted = x.fma(factor, 1.5 * 2.0**52 if x.double else 1.5 * 2.0**23)
    return shifted - (1.5 * 2.0**52 if x.double else 1.5 * 2.0**23), shifted.bits


def int_to_float(e: Emitter, n: V) -> F:
    """A small integer as float64 (of an i64) or float32 (of an i32), without a conversion instruction."""
    double = n.ty.elem == "i64"
    magic = 1.5 * 2.0**52 if double else 1.5 * 2.0**23
    return from_bits(e, e.bin("add", n, 0x4338 << 48 if double else 0x4B400000)) - magic


def _exp_parts(x: F, low: F | None = None) -> tuple[F, V]:
    """(e^r - 1, n) with x + low = n ln 2 + r and |r| <= ln(2) / 2."""
    n, k = nearest(x, LOG2E)
    return _exp_rest(x, n, low), k


def _exp_rest(x: F, n: F, low: F | None) -> F:
    """e^r - 1 for r = x + low - n ln 2."""
    high_ln2, low_ln2 = LN2_64 if x.double else LN2_32
    r = n.fma(-high_ln2, x)
    r = n.fma(-low_ln2, r if low is None else r + low)
    return r.polynomial(EXP_64 if x.double else EXP_32).fma(r * r, r)


def exp_of(x: F, low: F | None = None) -> F:
    """e^(x + low) over the whole range: overflow gives inf, underflow denormals, then 0.

    Where no lane comes near an end, 2^n is added to the exponent; the bits are those of the product.
    """
    e, edge = x.e, 708.0 if x.double else 87.0

    def quick() -> list[V]:
        n, k = _nearest_bits(x, LOG2E)
        return [_moved_up(_exp_rest(x, n, low) + 1.0, k).v]

    def whole() -> list[V]:
        near = x.clamp(-746.0, 710.0) if x.double else x.clamp(-104.0, 89.0)
        m, k = _exp_parts(near, low)
        return [scale(e, (m + 1.0).v, k)]

    return F(e, e.branch(e.any_lane(abs(x).test("uge", edge)), whole, quick)[0])


def _moved_up(x: F, k: V) -> F:
    """x * 2**k where both are normal; only the last bits of k count."""
    return from_bits(x.e, x.e.bin("add", x.bits, x.e.bin("shl", k, 52 if x.double else 23)))


def _exp_mid(x: F) -> F:
    """e^x where neither x nor the result is large or denormal."""
    m, k = _exp_parts(x)
    return (m + 1.0) * pow2(x.e, k)


def split(x: F) -> tuple[V, F, F]:
    """(n, float n, m) with x = m * 2**n and m in [sqrt(1/2), sqrt(2)), for positive finite x, denormals included."""
    e, places = x.e, 52 if x.double else 23
    least, up = (2.0**-1022, 54) if x.double else (2.0**-126, 32)
    tiny = x.test("olt", least)
    bits = (x * 2.0**up).where(tiny, x).bits
    root = 0x3FE6A09E667F3BCD if x.double else 0x3F3504F3  # sqrt(1/2)
    n = e.bin("ashr", e.bin("sub", bits, root), places)
    m = from_bits(e, e.bin("sub", bits, e.bin("shl", n, places)))
    n = e.select(tiny, e.bin("sub", n, up), n)
    return n, int_to_float(e, n), m


def _log_32(n: F, m: F) -> F:
    r = m - 1.0
    z = r * r
    y = r.polynomial(LOG_32) * r * z
    y = z.fma(-0.5, n.fma(LN2_32[1], y))
    return n.fma(LN2_32[0], r + y)


def _log_64(n: F, m: F) -> F:
    """n ln 2 + log(m) with log(1 + r) = r - (r^2/2 - s (r^2/2 + R)), R = s^2 (2/3 + …), s = r / (2 + r)."""
    r = m - 1.0
    half = r * r * 0.5
    s = r / (r + 2.0)
    z = s * s
    rest = half + z * z.polynomial(LOG_64)
    return n.fma(LN2_64[0], r - (half - s.fma(rest, n * LN2_64[1])))


def log(x: F) -> F:
    """Natural logarithm: log(0) = -inf, of negative numbers NaN."""
    _, n, m = split(x)
    y = _log_64(n, m) if x.double else _log_32(n, m)
    y = x.where(x.test("oeq", INF), y)
    y = x.like(-INF).where(x.test("oeq", 0.0), y)
    return x.like(NAN).where(x.test("ult", 0.0), y)


def tanh(x: F) -> F:
    """Polynomial below 0.625, else 1 - 2 / (e^2|x| + 1)."""
    a = abs(x)
    z = a * a
    small = (z * z.polynomial(TANH_64 if x.double else TANH_32)).fma(a, a)
    b = a.clamp(0.0, 20.0 if x.double else 10.0)
    large = 1.0 - x.like(2.0) / (_exp_mid(b + b) + 1.0)
    return small.where(a.test("olt", 0.625), large).with_sign(x)


def sigmoid(x: F) -> F:
    """1 / (1 + e^-x), written so that neither end loses digits."""
    t = exp_of(-abs(x))
    return t.where(x.test("olt", 0.0), 1.0) / (t + 1.0)


def erf(x: F) -> F:
    """x (1 + polynomial) for small |x|, else 1 - erfc(|x|)."""
    a = abs(x)
    if x.double:
        t = a.clamp(0.0, 6.0)
        erfc = _exp_mid(-(t * t)) * ((t - 3.0) / (t + 3.0)).polynomial(ERFC_64)
    else:
        erfc = _exp_mid(a.clamp(0.0, 4.0).polynomial(ERFC_32))
    small = x.fma((x * x).polynomial(ERF_64 if x.double else ERF_32), x)
    return (1.0 - erfc).with_sign(x).where(a.test("ogt", 1.0 if x.double else 0.925), small)


def _named(function: Callable[[F], F]) -> Callable[..., V]:
    return lambda e, x: function(F(e, x)).v


FUNCTIONS: dict[str, Callable[..., V]] = {
    "exp": _named(exp_of), "log": _named(log), "tanh": _named(tanh), "sigmoid": _named(sigmoid), "erf": _named(erf),
}  # fmt: skip
"""name -> (emitter, operands…) -> result, for float32 and float64 of any width."""
