"""Walking the parallel units of a kernel: a unit number as counters, like the digits of an odometer."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.emit import Emitter, V


def digits(e: Emitter, n: V, limits: Sequence[V]) -> list[V]:
    """Unit `n` as one counter a limit, the last one fastest."""
    found: list[V] = []
    for limit in reversed(limits[1:]):
        found.insert(0, e.bin("urem", n, limit))
        n = e.bin("udiv", n, limit)
    return [n, *found] if limits else []


def advance(e: Emitter, counters: Sequence[V], limits: Sequence[V]) -> list[V]:
    """The counters of the next unit, without a division."""
    if not counters:
        return []
    moved: list[V] = []
    carry = e.i64(1)
    for counter, limit in zip(reversed(counters[1:]), reversed(limits[1:]), strict=True):
        following = e.bin("add", counter, carry)
        full = e.icmp("eq", following, limit)
        moved.insert(0, e.select(full, 0, following))
        carry = e.convert("zext", full, "i64")
    return [e.bin("add", counters[0], carry), *moved]
