"""Transposed loads of a Map kernel: square tiles turned in registers and kept in a scratch that stays in the L1 cache.

A load that is consecutive along an outer axis, not along the vector axis, would touch one cache line a lane. Here a
tile of it is read along that axis, turned by log2(width) rounds of interleaving, and read back along the vector axis.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.canonical import Node, all_nodes
from graphc.codegen.emit import Emitter, Int, Ty, V, memory_elem
from graphc.codegen.exprs import Printer

TILE = 16  # steps of the outer axis in one unit: as many as the widest vector has lanes
LEAST = 8  # shorter axes are not worth a tile,
LEAST_AREA = 2048  # nor are small planes worth the longer code


def turned_loads(roots: Sequence[Node], axis: int, vector: int) -> list[Node]:
    """Loads that are consecutive along `axis` and take longer steps along the vector axis."""
    found = []
    for n in all_nodes(roots):
        plain = n.op == "load" and len(n.args) == 1 and n.dtype.itemsize in (4, 8)
        if plain and n.args[0].op == "affine" and not n.args[0].args:
            steps = dict(zip(n.args[0].axes, n.args[0].nums[1:], strict=True))
            if steps.get(axis) == 1 and steps.get(vector, 1) != 1:
                found.append(n)
    return found


def tile_axis(roots: Sequence[Node], extents: Sequence[int]) -> int | None:
    """The outer axis along which most transposed loads are consecutive, if tiles are worth it."""
    vector = len(extents) - 1
    if vector < 1 or extents[vector] < LEAST:
        return None
    worth = [a for a in range(vector) if extents[a] >= LEAST and extents[a] * extents[vector] >= LEAST_AREA]
    counts = {a: len(turned_loads(roots, a, vector)) for a in worth}
    best = max(counts, key=lambda a: counts[a], default=None)
    return best if best is not None and counts[best] else None


def scratch_bytes(roots: Sequence[Node], axis: int, vector: int) -> int:
    """What one thread needs for its tiles."""
    return sum(TILE * TILE * n.dtype.itemsize for n in turned_loads(roots, axis, vector))


class Tiles:
    """Writes the tiles of one kernel: `fill` before the loop over their rows, `row` inside it."""

    def __init__(self, e: Emitter, printer: Printer, loads: Sequence[Node], scratch: V) -> None:
        self.e, self.printer, self.loads = e, printer, loads
        self.width = printer.width
        self._places: list[V] = []
        offset = 0
        for n in loads:
            self._places.append(e.gep(scratch, offset, "i8"))
            offset += TILE * TILE * n.dtype.itemsize

    def fill(self, rows: Int, columns: V, last: Int) -> None:
        """Read and turn a tile of every load. The outer axis must be known (its first row); `rows` of it exist.

        Columns past `last` read column `last`: they are never stored.
        """
        mask = self.e.tail_mask(rows, self.width)
        for n, place in zip(self.loads, self._places, strict=True):
            ty = Ty(memory_elem(n.dtype), self.width)
            first = self.printer.row_address(n.value, n.args[0], ty.elem)
            step = self.printer.vector_step(n.args[0])
            columns_read = [
                self.e.masked_load(
                    self.e.gep(first, self.e.imul(self.e.imin(self.e.iadd(columns, c), last), step), ty.elem), mask, ty
                )
                for c in range(self.width)
            ]
            for r, turned in enumerate(_turn(self.e, columns_read)):
                self.e.store(turned, self.e.gep(place, r * self.width, ty.elem))

    def row(self, r: Int) -> dict[Node, V]:
        """The value of every load in row `r` of its tile."""
        values = {}
        for n, place in zip(self.loads, self._places, strict=True):
            ty = Ty(memory_elem(n.dtype), self.width)
            values[n] = self.e.load(self.e.gep(place, self.e.imul(r, self.width), ty.elem), ty)
        return values


def _turn(e: Emitter, vectors: list[V]) -> list[V]:
    """The transpose of a square of vectors: log2(width) times, interleave the first half with the second."""
    width = len(vectors)
    half = width // 2
    low = [k // 2 + (k % 2) * width for k in range(width)]
    high = [k + half for k in low]
    for _ in range(width.bit_length() - 1):
        pairs = [(vectors[k], vectors[k + half]) for k in range(half)]
        vectors = [e.shuffle(a, b, pick) for a, b in pairs for pick in (low, high)]
    return vectors
