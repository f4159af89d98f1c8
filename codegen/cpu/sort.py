"""Sorting along the run of a Scan kernel: a bottom-up merge sort of words that hold key and place.

A key is an unsigned integer in the order of the values. With the place behind it no two words are equal, so that any
sort is stable, and merging needs no branch on the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from graphc.codegen.emit import Emitter, Ty, V
from graphc.ir.types import DType

_SHORT, _LONG = "i64", "i128"  # 32 bits of key and 32 of place, or 64 and 64


class Plan(Protocol):
    """What sorting needs of a ScanPlan."""

    @property
    def descending(self) -> bool: ...
    @property
    def words(self) -> str: ...
    @property
    def dtype(self) -> DType: ...


def memory(dtype: DType, run: int) -> tuple[str, int]:
    """The words to sort `run` values with, and the bytes of one of two buffers: the run and one more word, which a
    merge may look at.
    """
    words = _SHORT if dtype.itemsize <= 4 and run < 1 << 32 else _LONG
    return words, -(-(run + 1) * Ty(words).bits // (8 * 64)) * 64


def argsort(
    e: Emitter, plan: Plan, run: V, buffer: V, scratch: V, value: Callable[[V], V], put: Callable[[V, V], None]
) -> None:
    """`put(j, place)` for every j: place of the value that comes j-th. `buffer`: bytes of one buffer in `scratch`."""
    word = Ty(plan.words)
    first, second = scratch, e.gep(scratch, buffer, "i8")
    with e.loop(0, run) as loop:
        packed = _word(e, word, _key(e, plan, value(loop.i)), loop.i)
        e.store(packed, e.gep(first, loop.i, word.elem))
    with e.repeat([first, second, e.i64(1)]) as passes:
        source, target, length = passes.carried
        _pass(e, word, source, target, length, run)
        double = e.bin("shl", length, 1)
        passes.next = [target, source, double]
        passes.i = e.icmp("slt", double, run)
    ordered = passes.out[0]
    with e.loop(0, run) as loop:
        found = e.load(e.gep(ordered, loop.i, word.elem), word)
        low = e.bin("and", found, (1 << 32) - 1) if word.elem == _SHORT else e.convert("trunc", found, "i64")
        put(loop.i, low)


def _key(e: Emitter, plan: Plan, x: V) -> V:
    """An unsigned integer of half a word, in the wanted order of the values; -0 is 0, NaNs are one and the greatest."""
    half = "i32" if plan.words == _SHORT else "i64"
    bits = 32 if half == "i32" else 64
    if x.ty.elem in ("float", "double"):
        if x.ty.elem == "float" and half == "i64":
            x = e.convert("fpext", x, "double")
        plain = e.select(e.fcmp("uno", x, x), float("nan"), e.bin("fadd", x, 0.0))
        raw = e.convert("bitcast", plain, half)
        key = e.bin("xor", raw, e.bin("lshr", e.bin("ashr", raw, bits - 1), 1))
    else:
        key = _resized(e, x, half, plan.dtype.kind in "bu")
    return e.bin("xor", key, -(1 << (bits - 1)) if not plan.descending else (1 << (bits - 1)) - 1)


def _resized(e: Emitter, x: V, half: str, unsigned: bool) -> V:
    """An integer as one of half a word: the value fits."""
    if x.ty.elem == half:
        return x
    if x.ty.bits > Ty(half).bits:
        return e.convert("trunc", x, half)
    return e.convert("zext" if unsigned else "sext", x, half)


def _word(e: Emitter, word: Ty, key: V, place: V) -> V:
    """The key above the place."""
    high = e.bin("shl", e.convert("zext", key, word.elem), word.bits // 2)
    return e.bin("or", high, place if word.elem == _SHORT else e.convert("zext", place, word.elem))


def _pass(e: Emitter, word: Ty, source: V, target: V, length: V, run: V) -> None:
    """Merge neighbouring sorted pieces of `length` words into pieces of twice that length."""
    pairs = e.bin("udiv", e.bin("sub", e.bin("add", run, e.bin("shl", length, 1)), 1), e.bin("shl", length, 1))
    with e.loop(0, pairs) as loop:
        start = e.bin("mul", loop.i, e.bin("shl", length, 1))
        middle = e.i64(e.imin(e.bin("add", start, length), run))
        end = e.i64(e.imin(e.bin("add", middle, length), run))
        with e.loop(start, end, carry=[start, middle], guard=False) as merge:
            left, right = merge.carried
            a, b = (e.load(e.gep(source, k, word.elem), word) for k in (left, right))
            smaller = e.bin("and", e.icmp("slt", left, middle), e.icmp("ult", a, b))
            take = e.bin("or", smaller, e.icmp("sge", right, end))
            e.store(e.select(take, a, b), e.gep(target, merge.i, word.elem))
            step = e.convert("zext", take, "i64")
            merge.next = [e.bin("add", left, step), e.bin("sub", e.bin("add", right, 1), step)]
