"""exp, log, tanh … of our own."""

from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.emit import Emitter, V


def exponent(e: Emitter, x: V) -> V:
    """floor(log2 |x|) of positive finite doubles as i64, denormals included; -1076 or less for zero."""
    tiny = e.fcmp("olt", x, 2.0**-1022)
    bits = e.convert("bitcast", e.select(tiny, e.bin("fmul", x, 2.0**54), x), "i64")
    biased = e.bin("lshr", bits, 52)
    return e.bin("sub", biased, e.select(tiny, e.const(biased.ty, 1023 + 54), 1023))


def scale(e: Emitter, x: V, k: V) -> V:
    """x * 2**k of doubles for 0 <= k <= 2046 where nothing overflows: exact."""
    half = e.bin("lshr", k, 1)
    return e.bin("fmul", e.bin("fmul", x, pow2(e, half)), pow2(e, e.bin("sub", k, half)))


def pow2(e: Emitter, k: V) -> V:
    """2**k as a double for an i64 in [-1022, 1023], as a float for an i32 in [-126, 127]."""
    double = k.ty.elem == "i64"
    biased = e.bin("shl", e.bin("add", k, 1023 if double else 127), 52 if double else 23)
    return e.convert("bitcast", biased, "double" if double else "float")


FUNCTIONS: dict[str, Callable[..., V]] = {}
