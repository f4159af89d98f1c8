"""sin and cos over the whole range: a fast reduction by fma for usual angles, integer arithmetic for huge ones."""

from __future__ import annotations

from itertools import pairwise

from graphc.codegen.emit import I64, Emitter, Ty, V
from graphc.codegen.reals import F, from_bits
from graphc.codegen.vmath import NAN, nearest

TWO_OVER_PI = 0.6366197723675814
# pi/2 as a sum of floats
HALF_PI_32 = (1.570796251296997, 7.549789415861596e-08, 5.390302953474238e-15)  # all positive, so that sin(-0) = -0
HALF_PI_64 = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33)
LIMIT_32, LIMIT_64 = 2.0**15, 2.0**20  # angles the fast reduction is good for

# (sin(r) / r - 1) / r^2 and (cos(r) - 1 + r^2 / 2) / r^4 in r^2, |r| <= 0.81
SIN_32 = (2.7230479502176694e-06, -0.0001983993199073292, 0.00833333157905359, -0.16666666663070318)
COS_32 = (2.453189290669784e-05, -0.0013888226393554423, 0.04166666425253917)
SIN_64 = (-7.582865337039258e-13, 1.6058464548403667e-10, -2.5052105795698537e-08, 2.7557319218041026e-06,
          -0.00019841269841263341, 0.008333333333333331, -0.16666666666666666)  # fmt: skip
COS_64 = (4.743741449626916e-14, -1.1470423596823495e-11, 2.087675554825211e-09, -2.755731922068108e-07,
          2.480158730158369e-05, -0.0013888888888888887, 0.041666666666666664)  # fmt: skip

# 64 zero bits, then 1280 bits of 2/pi
_TABLE = (
    0x0000000000000000, 0xA2F9836E4E441529, 0xFC2757D1F534DDC0, 0xDB6295993C439041, 0xFE5163ABDEBBC561,
    0xB7246E3A424DD2E0, 0x06492EEA09D1921C, 0xFE1DEB1CB129A73E, 0xE88235F52EBB4484, 0xE99C7026B45F7E41,
    0x3991D639835339F4, 0x9C845F8BBDF9283B, 0x1FF897FFDE05980F, 0xEF2F118B5A0A6D1F, 0x6D367ECF27CB09B7,
    0x4F463F669E5FEA2D, 0x7527BAC7EBE5F17B, 0x3D0739F78A5292EA, 0x6BFB5FB11F8D5D08, 0x56033046FC7B6BAB,
    0xF0CFBC209AF4361D,
)  # fmt: skip

Angle = tuple[F, F, V]  # r, a correction of r, and the quarter turns: x = quarters * pi/2 + r + correction


def sin(e: Emitter, x: V) -> V:
    """Sine; NaN for infinities."""
    r, low, quarters = _reduce(F(e, x))
    return _wave(r, low, quarters)


def cos(e: Emitter, x: V) -> V:
    """Cosine: the sine a quarter turn on."""
    r, low, quarters = _reduce(F(e, x))
    return _wave(r, low, e.bin("add", quarters, 1))


def _wave(r: F, low: F, quarters: V) -> V:
    e = r.e
    odd = e.icmp("ne", e.bin("and", quarters, 1), 0)
    value = _cos_near(r, low).where(odd, _sin_near(r, low))
    sign = e.bin("shl", e.bin("and", quarters, 2), 62 if r.double else 30)
    return from_bits(e, e.bin("xor", value.bits, sign)).v


def _sin_near(r: F, low: F) -> F:
    z = r * r
    if not r.double:
        return (r * z).fma(z.polynomial(SIN_32), r).with_sign(r)
    return (r + (r * z).fma(z.polynomial(SIN_64), low * (1.0 - z * 0.5))).with_sign(r)


def _cos_near(r: F, low: F) -> F:
    z = r * r
    if not r.double:
        return z.polynomial((*COS_32, -0.5, 1.0))
    half = z * 0.5
    w = 1.0 - half
    return w + (((1.0 - w) - half) + (z * z).fma(z.polynomial(COS_64), -(r * low)))


def _reduce(x: F) -> Angle:
    e = x.e
    r, low, quarters = _reduce_usual(x)
    huge = abs(x).test("ogt", LIMIT_64 if x.double else LIMIT_32)

    def slowly() -> list[V]:
        wide = x if x.double else x.convert("fpext", "double")
        a, b, n = _reduce_huge(wide)
        if not x.double:
            a, b = (v.convert("fptrunc", "float") for v in (a, b))
            n = e.convert("trunc", n, "i32")
        return [e.select(huge, new, old) for new, old in ((a.v, r.v), (b.v, low.v), (n, quarters))]

    found = e.branch(e.any_lane(huge), slowly, lambda: [r.v, low.v, quarters])
    return F(e, found[0]), F(e, found[1]), found[2]


def _reduce_usual(x: F) -> Angle:
    """Cody and Waite: the first fma is exact, since x and n * pi/2 are near and share their last bit."""
    n, quarters = nearest(x, TWO_OVER_PI)
    first, second, third = HALF_PI_64 if x.double else HALF_PI_32
    a = n.fma(-first, x)
    r = n.fma(-second, a)
    if not x.double:
        return n.fma(-third, r), x.like(0.0), quarters
    return r, n.fma(-third, n.fma(-second, a - r)), quarters


def _reduce_huge(x: F) -> Angle:
    """Lane by lane in integers (Payne and Hanek)."""
    e, width = x.e, x.v.ty.width
    if width == 1:
        return _reduce_one(x)
    zero, none = x.like(0.0).v, e.const(Ty("i64", width), 0)
    with e.loop(0, width, carry=[zero, zero, none], guard=False) as loop:
        made = _reduce_one(F(e, e.extract(x.v, loop.i)))
        lanes = zip(loop.carried, (made[0].v, made[1].v, made[2]), strict=True)
        loop.next = [e.insert(old, new, loop.i) for old, new in lanes]
    return F(e, loop.out[0]), F(e, loop.out[1]), loop.out[2]


def _reduce_one(x: F) -> Angle:
    """|x| = m * 2**p with a 53-bit m: multiply m by the 192 bits of 2/pi that matter, those worth less than 4 / m."""
    e = x.e
    biased = e.bin("lshr", abs(x).bits, 52)
    m = e.bin("or", e.bin("and", x.bits, (1 << 52) - 1), 1 << 52)
    start = e.intrinsic("smax", e.bin("sub", biased, 1075 + 2 - 64), e.const(I64, 0))
    w0, w1, w2 = _window(e, start)
    m_, w1_, w2_ = (e.convert("zext", v, "i128") for v in (m, w1, w2))
    middle = e.bin("add", e.bin("mul", m_, w1_), e.bin("lshr", e.bin("mul", m_, w2_), 64))
    top = e.bin("add", e.convert("trunc", e.bin("lshr", middle, 64), "i64"), e.bin("mul", m, w0))
    turns = e.bin("shl", e.convert("zext", top, "i128"), 64)
    turns = e.bin("or", turns, e.bin("and", middle, (1 << 64) - 1))  # quarters: 2 bits, then their fraction
    quarters = e.bin("add", e.bin("lshr", top, 62), e.bin("and", e.bin("lshr", top, 61), 1))
    part = e.bin("shl", turns, 2)  # signed: the fraction of a quarter turn in [-1/2, 1/2) * 2**128
    below = e.icmp("slt", part, 0)
    r, low = _fraction_times_half_pi(e, e.select(below, e.neg(part), part))
    negative = e.bin("xor", below, e.icmp("slt", x.bits, 0))
    bad = e.icmp("eq", biased, 2047)
    r = r.like(NAN).where(bad, (-r).where(negative, r))
    quarters = e.select(e.icmp("slt", x.bits, 0), e.neg(quarters), quarters)
    return r, (-low).where(negative, low), quarters


def _window(e: Emitter, start: V) -> list[V]:
    """192 bits of the table from bit `start` on."""
    table = e.table("two_over_pi", _TABLE)
    first = e.gep(table, e.bin("lshr", start, 6), "i64")
    words = [e.load(e.gep(first, k, "i64"), I64) for k in range(4)]
    by = e.bin("and", start, 63)
    back = e.bin("sub", e.i64(63), by)
    return [e.bin("or", e.bin("shl", a, by), e.bin("lshr", e.bin("lshr", b, 1), back)) for a, b in pairwise(words)]


def _fraction_times_half_pi(e: Emitter, part: V) -> tuple[F, F]:
    """part * 2**-128 * pi/2 as two floats, from its 32-bit digits."""
    digits = []
    for place in (96, 64, 32, 0):
        digit = e.bin("and", e.convert("trunc", e.bin("lshr", part, place), "i64"), 0xFFFFFFFF)
        digits.append(F(e, e.convert("sitofp", digit, "double")) * 2.0 ** (place - 128))
    s = digits[0] + digits[1]
    rest = (digits[1] - (s - digits[0])) + (digits[2] + digits[3])
    high = s + rest
    low = rest - (high - s)
    r = high * HALF_PI_64[0]
    return r, high.fma(HALF_PI_64[0], -r) + (high * HALF_PI_64[1] + low * HALF_PI_64[0])
