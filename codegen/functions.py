"""The functions of ir.expr.FUNCTIONS as LLVM instructions on scalars or vectors of any width (docs/numerics.md)."""

from __future__ import annotations

from collections.abc import Callable

from graphc.codegen import vmath
from graphc.codegen.casts import cast
from graphc.codegen.emit import Emitter, Ty, V
from graphc.codegen.power import power
from graphc.codegen.trig import cos, sin
from graphc.errors import InternalError
from graphc.ir.types import DType, bool_, float32, float64, int32, int64

_COMPUTED = (bool_, int32, int64, float32, float64)


def apply_function(e: Emitter, name: str, dtype: DType, args: list[V], source: DType) -> V:
    """Function `name` with a result of `dtype`, the first operand being of type `source`.

    Raises InternalError for one that is not known for these types.
    """
    if name == "cast":
        return cast(e, args[0], source, dtype)
    if name == "select":
        return e.select(*args)
    made = _FUNCTIONS.get((name, source.kind)) if source in _COMPUTED else None
    if made is None:
        raise InternalError(f"function {name} on {source.name} is not supported")
    return made(e, *args)


def least_and_greatest(ty: Ty) -> tuple[int, int]:
    """The ends of the signed integers of a type."""
    half = 1 << (ty.bits - 1)
    return -half, half - 1


def _sign(e: Emitter, x: V) -> V:
    """1, -1 or +0; NaN gives 0, as (x > 0) - (x < 0)."""
    return e.select(e.fcmp("ogt", x, 0.0), 1.0, e.select(e.fcmp("olt", x, 0.0), e.const(x.ty, -1.0), 0.0))


def _int_sign(e: Emitter, x: V) -> V:
    return e.select(e.icmp("sgt", x, 0), 1, e.bin("ashr", x, x.ty.bits - 1))


def _int_abs(e: Emitter, x: V) -> V:
    return e.select(e.icmp("slt", x, 0), e.neg(x), x)


def floor_div(e: Emitter, x: V, y: V) -> V:
    """Floor quotient of integers: x // 0 = 0, INT_MIN // -1 wraps. Never traps."""
    quotient, rest, divisor = _divide(e, x, y)
    low = e.icmp("slt", e.bin("xor", rest, divisor), 0)
    below = e.bin("and", e.icmp("ne", rest, 0), low)
    return e.select(e.icmp("eq", y, 0), 0, e.bin("sub", quotient, e.convert("zext", below, x.ty.elem)))


def floor_rem(e: Emitter, x: V, y: V) -> V:
    """Remainder of floor_div: the sign of the divisor; x % 0 = 0."""
    _, rest, divisor = _divide(e, x, y)
    low = e.icmp("slt", e.bin("xor", rest, divisor), 0)
    below = e.bin("and", e.icmp("ne", rest, 0), low)
    return e.select(e.icmp("eq", y, 0), 0, e.select(below, e.bin("add", rest, divisor), rest))


def _divide(e: Emitter, x: V, y: V) -> tuple[V, V, V]:
    """Truncated quotient and remainder by a divisor that cannot trap: 0 and INT_MIN / -1 are divided by 1 instead."""
    wraps = e.bin("and", e.icmp("eq", y, -1), e.icmp("eq", x, least_and_greatest(x.ty)[0]))
    divisor = e.select(e.bin("or", wraps, e.icmp("eq", y, 0)), 1, y)
    quotient = e.bin("sdiv", x, divisor)
    return quotient, e.bin("sub", x, e.bin("mul", quotient, divisor)), divisor


def _shl(e: Emitter, x: V, y: V) -> V:
    shifted = e.bin("shl", x, e.bin("and", y, x.ty.bits - 1))
    return e.select(e.icmp("ult", y, x.ty.bits), shifted, 0)


def _shr(e: Emitter, x: V, y: V) -> V:
    return e.bin("ashr", x, e.intrinsic("umin", y, e.const(y.ty, x.ty.bits - 1)))


def fmod(e: Emitter, x: V, y: V) -> V:
    """Exact remainder with the sign of x; NaN for y = 0 or infinite x.

    Each round takes an integer multiple of chunk = y * 2**k off the rest; fma subtracts it without rounding, because
    what is left is a multiple of the chunk's last bit and no larger than the chunk.
    """
    wide = x if x.ty.elem == "double" else e.convert("fpext", x, "double")
    by = y if y.ty.elem == "double" else e.convert("fpext", y, "double")
    a, b = e.intrinsic("fabs", wide), e.intrinsic("fabs", by)
    inf = float("inf")
    bad = e.bin("or", e.fcmp("uge", a, inf), e.bin("or", e.fcmp("uno", b, 0.0), e.fcmp("oeq", b, 0.0)))
    whole = e.bin("or", bad, e.fcmp("oeq", b, inf))
    rest, divisor = e.select(whole, 0.0, a), e.select(whole, 1.0, b)
    exponent = vmath.exponent(e, divisor)
    with e.repeat([rest]) as loop:
        rest = loop.carried[0]
        k = e.bin("sub", e.bin("sub", vmath.exponent(e, rest), exponent), 50)
        chunk = vmath.scale(e, divisor, e.intrinsic("smax", k, e.const(k.ty, 0)))
        quotient = e.intrinsic("trunc", e.bin("fdiv", rest, chunk))
        rest = e.intrinsic("fma", e.neg(quotient), chunk, rest)
        rest = e.select(e.fcmp("olt", rest, 0.0), e.bin("fadd", rest, chunk), rest)
        loop.next = [rest]
        loop.i = e.any_lane(e.fcmp("oge", rest, divisor))
    rest = e.select(whole, e.select(bad, float("nan"), a), loop.out[0])
    rest = e.intrinsic("copysign", rest, wide)
    return rest if x.ty.elem == "double" else e.convert("fptrunc", rest, "float")


def frem(e: Emitter, x: V, y: V) -> V:
    """Remainder with the sign of y: fmod, plus y where the signs differ; a zero takes the sign of y."""
    rest = fmod(e, x, y)
    moved = e.select(differ_in_sign(e, rest, y), e.bin("fadd", rest, y), rest)
    return e.select(e.fcmp("oeq", rest, 0.0), e.intrinsic("copysign", rest, y), moved)


def differ_in_sign(e: Emitter, x: V, y: V) -> V:
    """True where one is below zero and the other is not."""
    return e.bin("xor", e.fcmp("olt", x, 0.0), e.fcmp("olt", y, 0.0))


def philox(e: Emitter, seed: V, offset: V, element: V) -> list[V]:
    """The four words of Philox4x32-10 as i64 in [0, 2^32): key = seed, counter = (offset, element), low words first.

    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
    """
    low = 0xFFFFFFFF
    k0, k1 = e.bin("and", seed, low), e.bin("lshr", seed, 32)
    c = [e.bin("and", offset, low), e.bin("lshr", offset, 32), e.bin("and", element, low), e.bin("lshr", element, 32)]
    for turn in range(10):
        if turn:
            k0 = e.bin("and", e.bin("add", k0, 0x9E3779B9), low)
            k1 = e.bin("and", e.bin("add", k1, 0xBB67AE85), low)
        p0, p1 = e.bin("mul", c[0], 0xD2511F53), e.bin("mul", c[2], 0xCD9E8D57)
        c = [
            e.bin("xor", e.bin("xor", e.bin("lshr", p1, 32), c[1]), k0),
            e.bin("and", p1, low),
            e.bin("xor", e.bin("xor", e.bin("lshr", p0, 32), c[3]), k1),
            e.bin("and", p0, low),
        ]
    return c


def _bin(name: str) -> Callable[..., V]:
    return lambda e, x, y: e.bin(name, x, y)


def _call(name: str) -> Callable[..., V]:
    return lambda e, *args: e.intrinsic(name, *args)


def _icmp(pred: str) -> Callable[..., V]:
    return lambda e, x, y: e.icmp(pred, x, y)


def _fcmp(pred: str) -> Callable[..., V]:
    return lambda e, x, y: e.fcmp(pred, x, y)


_FUNCTIONS: dict[tuple[str, str], Callable[..., V]] = {
    ("neg", "f"): lambda e, x: e.neg(x), ("neg", "i"): lambda e, x: e.neg(x),
    ("abs", "f"): _call("fabs"), ("abs", "i"): _int_abs,
    ("sign", "f"): _sign, ("sign", "i"): _int_sign,
    ("add", "f"): _bin("fadd"), ("sub", "f"): _bin("fsub"), ("mul", "f"): _bin("fmul"), ("div", "f"): _bin("fdiv"),
    ("add", "i"): _bin("add"), ("sub", "i"): _bin("sub"), ("mul", "i"): _bin("mul"),
    ("idiv", "i"): floor_div, ("irem", "i"): floor_rem,
    ("fma", "f"): _call("fma"),
    ("max", "f"): _call("maximum"), ("min", "f"): _call("minimum"),
    ("max", "i"): _call("smax"), ("min", "i"): _call("smin"), ("max", "b"): _bin("or"), ("min", "b"): _bin("and"),
    ("floor", "f"): _call("floor"), ("ceil", "f"): _call("ceil"),
    ("trunc", "f"): _call("trunc"), ("round", "f"): _call("roundeven"), ("sqrt", "f"): _call("sqrt"),
    ("frem", "f"): frem, ("fmod", "f"): fmod,
    ("and", "b"): _bin("and"), ("or", "b"): _bin("or"), ("xor", "b"): _bin("xor"),
    ("and", "i"): _bin("and"), ("or", "i"): _bin("or"), ("xor", "i"): _bin("xor"),
    ("not", "b"): lambda e, x: e.invert(x), ("not", "i"): lambda e, x: e.invert(x),
    ("shl", "i"): _shl, ("shr", "i"): _shr,
}  # fmt: skip
for _name, _f, _u, _s in (
    ("eq", "oeq", "eq", "eq"), ("ne", "une", "ne", "ne"), ("lt", "olt", "ult", "slt"),
    ("le", "ole", "ule", "sle"), ("gt", "ogt", "ugt", "sgt"), ("ge", "oge", "uge", "sge"),
):  # fmt: skip
    _FUNCTIONS |= {(_name, "f"): _fcmp(_f), (_name, "b"): _icmp(_u), (_name, "i"): _icmp(_s)}
_FUNCTIONS |= {(name, "f"): function for name, function in vmath.FUNCTIONS.items()}
_FUNCTIONS |= {("pow", "f"): power, ("sin", "f"): sin, ("cos", "f"): cos}
