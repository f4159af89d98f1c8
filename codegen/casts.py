"""Literals and conversions of all types as LLVM instructions on scalars or vectors of any width (docs/numerics.md).

A 16-bit float is in registers what it is in memory, the integer of its bits; arithmetic is on its float32 alone.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.emit import Emitter, Ty, V, elem
from graphc.errors import InternalError
from graphc.ir.types import DType, bfloat16, float16, float32, float64, int32


def literal(e: Emitter, dtype: DType, value: float | int | bool) -> V:
    """The constant of an Expr (see ir.expr.const). LLVM reads integers with their sign."""
    if dtype.kind in "uc" or dtype.is_low_precision:
        bits = int(value)
        value = bits - (1 << dtype.bits) if bits >> (dtype.bits - 1) else bits
    return e.const(Ty(elem(dtype)), value)


def cast(e: Emitter, x: V, source: DType, to: DType) -> V:
    """Conversion between types: float to integer truncates and saturates, NaN gives 0; to bool: x != 0.

    16-bit floats come and go by way of float32. Raises InternalError for complex numbers.
    """
    if source is to:
        return x
    if source.is_complex or to.is_complex:
        raise InternalError(f"cast of {source.name} to {to.name}")
    if source.is_low_precision:
        return cast(e, _lengthened(e, x, source), float32, to)
    if to.is_low_precision:
        return _shortened(e, cast(e, x, source, float32), to)
    return _CASTS[_kind(source) + _kind(to)](e, x, source, to)


def _kind(dtype: DType) -> str:
    return "i" if dtype.is_integer else dtype.kind


def _lengthened(e: Emitter, x: V, source: DType) -> V:
    """The float32 of the bits of a 16-bit float."""
    if source is bfloat16:
        return e.convert("bitcast", e.bin("shl", e.convert("zext", x, "i32"), 16), "float")
    return e.convert("fpext", e.convert("bitcast", x, "half"), "float")


def _shortened(e: Emitter, x: V, to: DType) -> V:
    """The bits of a float32 rounded to a 16-bit float, to nearest, halves to even; a NaN stays one."""
    if to is float16:
        # LLVM would merge it with a rounding of float64 before it, which is a library call; the fence is no code
        return e.convert("bitcast", e.convert("fptrunc", e.intrinsic("arithmetic.fence", x), "half"), "i16")
    bits = e.convert("bitcast", x, "i32")
    odd = e.bin("and", e.bin("lshr", bits, 16), 1)
    rounded = e.bin("add", bits, e.bin("add", odd, 0x7FFF))
    kept = e.select(e.fcmp("uno", x, x), e.bin("or", bits, 0x400000), rounded)
    return e.convert("trunc", e.bin("lshr", kept, 16), "i16")


def _to_bool(e: Emitter, x: V, source: DType, to: DType) -> V:
    return e.fcmp("une", x, 0.0) if source.kind == "f" else e.icmp("ne", x, 0)


def _from_bool(e: Emitter, x: V, source: DType, to: DType) -> V:
    ty = x.ty.of(elem(to))
    return e.select(x, e.const(ty, 1), e.const(ty, 0))


def _resized(e: Emitter, x: V, source: DType, to: DType) -> V:
    """An integer in another width: its last bits, or filled up by its sign."""
    if source.itemsize == to.itemsize:
        return x
    if to.itemsize < source.itemsize:
        return e.convert("trunc", x, elem(to))
    return e.convert("sext" if source.is_signed else "zext", x, elem(to))


def _int_to_float(e: Emitter, x: V, source: DType, to: DType) -> V:
    return e.convert("sitofp", _resized(e, x, source, int32) if source.itemsize < 4 else x, elem(to))


def _float_to_float(e: Emitter, x: V, source: DType, to: DType) -> V:
    return e.convert("fpext" if to is float64 else "fptrunc", x, elem(to))


def _float_to_int(e: Emitter, x: V, source: DType, to: DType) -> V:
    if to.itemsize < 4:
        least = -(1 << (to.bits - 1)) if to.is_signed else 0
        whole = _float_to_int(e, x, source, int32)
        whole = e.intrinsic("smax", whole, e.const(whole.ty, least))
        whole = e.intrinsic("smin", whole, e.const(whole.ty, least + (1 << to.bits) - 1))
        return e.convert("trunc", whole, elem(to))
    limit = 2.0 ** (to.bits - 1)
    low, high = e.fcmp("olt", x, -limit), e.fcmp("oge", x, limit)
    fits = e.bin("and", e.fcmp("oge", x, -limit), e.fcmp("olt", x, limit))
    inside = e.convert("fptosi", e.select(fits, x, 0.0), elem(to))
    return e.select(high, (1 << (to.bits - 1)) - 1, e.select(low, -(1 << (to.bits - 1)), inside))


_CASTS: dict[str, Callable[[Emitter, V, DType, DType], V]] = {
    "ib": _to_bool, "fb": _to_bool, "bi": _from_bool, "bf": _from_bool,
    "ii": _resized, "if": _int_to_float, "fi": _float_to_int, "ff": _float_to_float,
}  # fmt: skip
