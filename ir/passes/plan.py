"""Memory plan: offsets of all intermediate memory in one arena.

One sweep over the calls in order. A piece of memory lives from the first call that writes it to the last that uses
it; at its birth it takes over the memory of an operand that dies in the same call and is read only at the element
being written, else the smallest free block that fits, else the end of the arena. All offsets are multiples of 64.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from graphc.errors import InternalError
from graphc.ir.steps import Call, Storage, in_place

ALIGNMENT = 64


def lifetimes(calls: Sequence[Call]) -> dict[Storage, tuple[int, int]]:
    """First and last call that uses each piece of arena memory. Raises InternalError for a read before any write."""
    found: dict[Storage, tuple[int, int]] = {}
    for k, call in enumerate(calls):
        written = call.written()
        for s in _used(call):
            if s not in found and s not in written and s.nbytes:
                raise InternalError(f"{call.label} reads {s}, which nothing has written")
            found[s] = (found.get(s, (k, k))[0], k)
    return found


def plan(calls: Sequence[Call], reuse: bool = True) -> int:
    """Set the offset of every piece of arena memory; returns the arena's size. `reuse` false: each its own place."""
    lives = lifetimes(calls)
    free = _FreeList()
    handed: set[Storage] = set()
    for k, call in enumerate(calls):
        for s in call.written():
            if s.kind != "arena" or lives[s][0] != k:
                continue
            heir_of = _dying(call, s, k, lives, handed) if reuse else None
            if heir_of is not None:
                s.offset = heir_of.offset
                handed.add(heir_of)
            else:
                s.offset = free.take(_rounded(s.nbytes))
        if reuse:
            for s in _used(call):
                if lives[s][1] == k and s not in handed:
                    free.give(s.offset, _rounded(s.nbytes))
    return free.end


def check_plan(calls: Sequence[Call], arena: int) -> None:
    """Check that memory alive at the same time never overlaps, but for what is handed over in place.

    Raises InternalError for a misplaced piece.
    """
    alive: dict[Storage, None] = {}
    lives = lifetimes(calls)
    ends: list[list[Storage]] = [[] for _ in calls]
    for s, (_, last) in lives.items():
        ends[last].append(s)
    for k, call in enumerate(calls):
        for new in (s for s in _used(call) if lives[s][0] == k):
            if new.offset % ALIGNMENT or new.offset + new.nbytes > arena:
                raise InternalError(f"{new} lies outside of the arena")
            for old in alive:
                if _overlap(old, new) and not (lives[old][1] == k and _handed_over(call, old, new)):
                    raise InternalError(f"{new} overlaps {old} in {call.label}")
            alive[new] = None
        for s in ends[k]:
            del alive[s]


def _used(call: Call) -> list[Storage]:
    """The arena memory the call loads or stores. An operand may be neither: an index along an axis of size 1."""
    touched = {**call.read(), **call.written()}
    return [s for s in dict.fromkeys(call.operands) if s.kind == "arena" and s in touched]


def _overlap(a: Storage, b: Storage) -> bool:
    return a.offset < b.offset + b.nbytes and b.offset < a.offset + a.nbytes


def _handed_over(call: Call, old: Storage, new: Storage) -> bool:
    number = {s: n for n, s in enumerate(call.operands)}
    return old in number and old.offset == new.offset and in_place(call.kernel, number[old], number[new])


def _dying(
    call: Call, target: Storage, k: int, lives: dict[Storage, tuple[int, int]], handed: set[Storage]
) -> Storage | None:
    """An operand of the call that dies in it and whose memory `target` may take over."""
    number = {s: n for n, s in enumerate(call.operands)}
    for s in call.read():
        fits = s.kind == "arena" and s is not target and _rounded(s.nbytes) == _rounded(target.nbytes)
        if fits and lives[s][1] == k and s not in handed and in_place(call.kernel, number[s], number[target]):
            return s
    return None


def _rounded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


@dataclass(slots=True)
class _FreeList:
    """Free blocks (offset, size) in ascending order, no two of them adjacent."""

    blocks: list[tuple[int, int]] = field(default_factory=list)
    end: int = 0

    def take(self, size: int) -> int:
        """The offset of `size` bytes."""
        fitting = [(n, at) for at, n in self.blocks if n >= size]
        if size and fitting:
            n, at = min(fitting)
            self.blocks.remove((at, n))
            if n > size:
                self._insert(at + size, n - size)
            return at
        at = self.end
        if size and self.blocks and sum(self.blocks[-1]) == self.end:  # grow the last block
            at, _ = self.blocks.pop()
        self.end = at + size
        return at

    def give(self, at: int, size: int) -> None:
        """Make a block free again."""
        if size:
            self._insert(at, size)

    def _insert(self, at: int, size: int) -> None:
        k = bisect_left(self.blocks, (at, size))
        if k < len(self.blocks) and at + size == self.blocks[k][0]:
            size += self.blocks.pop(k)[1]
        if k and sum(self.blocks[k - 1]) == at:
            before, length = self.blocks.pop(k - 1)
            at, size, k = before, length + size, k - 1
        self.blocks.insert(k, (at, size))
