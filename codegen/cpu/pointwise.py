"""The template of Map kernels: nested loops over merged axes, the innermost one in vectors.

The axis with the smallest step of the first store runs innermost. Threads share out rows (points of the outer axes), or
blocks of BLOCK elements of the innermost axis where that is all there is, or where rows are long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.codegen.canonical import Abstraction, Node, Slot, StoreNode, all_nodes, index_forms, merge_axes, store_roots
from graphc.codegen.cpu.kernel import CpuKernel, kernel_text
from graphc.codegen.cpu.transpose import TILE, Tiles, scratch_bytes, tile_axis, turned_loads
from graphc.codegen.cpu.units import advance, digits
from graphc.codegen.emit import Emitter, Int, ParamBlock, V
from graphc.codegen.exprs import Printer, kernel_width
from graphc.codegen.target import Target
from graphc.ir.expr import Expr, affine
from graphc.ir.kernel import Map
from graphc.runtime.executable import trial

BLOCK = 4096  # elements of the innermost axis in one unit
TRIAL_BLOCK = 64  # the same where small arrays must be shared, too: runtime/executable.py, Trial.split
GRAIN_NS = 20_000  # work worth a thread's chunk
SHORT = 16  # rows of at most so many elements are one vector each
_LEAST_UNITS = 8  # so many are left to share out when one more axis goes into the units

# Rough cost of a vector of 16 float32 in nanoseconds, to choose the grain and the shape of tails.
_COST = {
    "div": 1.0, "sqrt": 1.0, "exp": 2.5, "log": 3.5, "tanh": 3.0, "sigmoid": 3.0, "erf": 4.5, "sin": 5.0, "cos": 5.0,
    "pow": 15.0, "frem": 20.0, "fmod": 20.0, "idiv": 20.0, "irem": 20.0, "divpos": 8.0, "rempos": 8.0, "philox": 12.0,
}  # fmt: skip
_CHEAP = 1.4  # bodies that cost more are written once, with masks, not a second time for the tail


@dataclass(frozen=True, slots=True)
class _Plan:
    """The structure of one Map kernel (nothing here depends on numbers but through the key)."""

    key: str
    operands: int
    params: int
    stores: tuple[StoreNode, ...]
    sizes: tuple[Slot, ...]  # of the merged axes; with a `block` the last but one counts blocks of the last
    block: int  # elements of the innermost axis in one unit, 0: all of them
    tile: int | None  # outer axis of transposed loads; its entry in `sizes` counts tiles
    tiled: Slot | None  # size of that axis
    short: int  # lanes that hold a row, 0 where rows are longer
    full: bool  # rows fill these lanes
    nested: bool  # the axis around a short row is inside the units


def lower(kernel: Map) -> CpuKernel:
    """Code and numbers of a Map kernel."""
    order = _axis_order(kernel)
    groups = merge_axes(order, kernel.space, index_forms(_roots(kernel)))
    extents = [math.prod(kernel.space[a] for a in g) for g in groups]
    axes: list[int | None] = [None] * len(kernel.space)
    for k, group in enumerate(groups):
        axes[group[-1]] = k
    made = Abstraction(axes, kernel.space, len(groups) - 1)
    stores = tuple(made.store(s.operand, kernel.operands[s.operand], s.flat, s.value, s.where) for s in kernel.stores)
    block = TRIAL_BLOCK if trial.split and extents and extents[-1] > TRIAL_BLOCK else BLOCK  # rather shared code
    split = bool(extents) and (len(extents) == 1 or extents[-1] >= 4 * block)
    blocks = -(-extents[-1] // block) if split else 1
    outer = [*extents[:-1], blocks] if split else extents[:-1]
    tile = tile_axis(store_roots(stores), extents)
    if tile is not None:
        outer[tile] = -(-extents[tile] // TILE)
    short = _short(extents) if tile is None else 0
    full = extents[-1:] == [short]
    nested = short > 0 and len(outer) > 1 and math.prod(outer[:-1]) >= _LEAST_UNITS
    sizes = tuple(made.param(n) for n in (*outer, *extents[-1:]))
    tiled = made.param(extents[tile]) if tile is not None else None
    head = (
        f"map {len(kernel.operands)} operands {len(extents)} axes{' split' if split else ''} tile {tile} "
        f"{'' if block == BLOCK or not split else f'block {block} '}"
        f"short {short} {full} {nested}"
    )
    plan = _Plan(
        made.key(head), len(kernel.operands), len(made.params), stores, sizes, block if split else 0, tile, tiled,
        short, full, nested,
    )  # fmt: skip
    units = math.prod(outer[:-1] if nested else outer) if 0 not in kernel.space else 0
    per_unit = max(1, math.prod(kernel.space)) / max(1, units) * _cost(store_roots(stores)) / 16
    grain = max(1, round(GRAIN_NS / per_unit))
    scratch = scratch_bytes(store_roots(stores), tile, len(extents) - 1) if tile is not None else 0
    return CpuKernel(plan.key, lambda target: _emit(plan, target), made.params, (), units, grain, scratch)


def _short(extents: Sequence[int]) -> int:
    """Lanes for rows that fit into one vector: a power of two, 4 or more; 0 where they are not short."""
    if len(extents) < 2 or not 1 < extents[-1] <= SHORT:
        return 0
    return max(4, 1 << (extents[-1] - 1).bit_length())


def _roots(kernel: Map) -> list[Expr]:
    return [x for s in kernel.stores for x in (s.flat, s.value, s.where) if x is not None]


def _axis_order(kernel: Map) -> list[int]:
    """Axes by falling step of the first store: the last one runs innermost."""
    rank = len(kernel.space)
    found = affine(kernel.stores[0].flat, rank)
    steps = found[1] if found is not None else (0,) * rank
    return sorted(range(rank), key=lambda a: (-abs(steps[a]), a)) if found is not None else list(range(rank))


def _arithmetic(roots: Sequence[Node]) -> float:
    """Nanoseconds of arithmetic for a vector of 16 float32."""
    return sum(_COST.get(n.op, 0.15) for n in all_nodes(roots) if n.op not in ("load", "const"))


def _cost(roots: Sequence[Node]) -> float:
    """Nanoseconds a vector of 16 float32 takes, memory included."""
    loads = [n for n in all_nodes(roots) if n.op == "load"]
    memory = sum(0.8 if n.args[0].op == "affine" and not n.args[0].args else 6.0 for n in loads)
    return _arithmetic(roots) + memory + 0.8


def _emit(plan: _Plan, target: Target) -> str:
    def body(e: Emitter, block: V, lo: V, hi: V, scratch: V) -> None:
        words = ParamBlock(e, block, plan.operands, plan.params)
        if not plan.sizes:
            Printer(e, words, None, 1).stores(plan.stores)
            return
        _Writer(plan, target, e, words, scratch).units(lo, hi)

    return kernel_text(plan.key, target, body)


class _Writer:
    """Writes the loops of one Map kernel."""

    def __init__(self, plan: _Plan, target: Target, e: Emitter, words: ParamBlock, scratch: V) -> None:
        self.plan, self.target, self.e, self.words = plan, target, e, words
        roots = store_roots(plan.stores)
        self.outer = (
            len(plan.sizes) - 1 - bool(plan.block)
        )  # axes 0 … outer-1 are rows, axis `outer` is the vector axis
        self.width = kernel_width(target, all_nodes(roots))
        self.expensive = _arithmetic(roots) > _CHEAP
        in_memory = [s.dtype for s in plan.stores] + [n.dtype for n in all_nodes(roots) if n.op == "load"]
        # AVX2 masks words of 4 and 8 bytes only
        self.maskable = target.vector_bits == 256 and all(d.itemsize in (4, 8) for d in in_memory)
        masks = self.maskable or target.vector_bits == 512
        self.short = 0 < plan.short <= self.width and (plan.full or masks)
        if self.short:
            self.width = plan.short
        self.printer = Printer(e, words, self.outer, self.width)
        self.tail = Printer(e, words, None, 1)
        self.sizes = [words.param(s.k) for s in plan.sizes]
        loads = turned_loads(roots, plan.tile, self.outer) if plan.tile is not None else []
        self.tiles = Tiles(e, self.printer, loads, scratch)

    def units(self, lo: V, hi: V) -> None:
        """All units lo … hi-1: counters run like an odometer, so that only the first unit costs divisions."""
        e = self.e
        self.printer.hoist_stores(self.plan.stores)
        if self.plan.block and self.outer == 0:  # one axis: neighbouring blocks are one run
            self._run(e.imul(lo, self.plan.block), e.i64(e.imin(e.imul(hi, self.plan.block), self.sizes[-1])), [])
            return
        if self.short:
            self._short_rows(lo, hi)
            return
        if self.plan.nested:
            lo, hi = (e.bin("mul", x, self.sizes[-2]) for x in (lo, hi))
        limits = self.sizes[:-1]
        with e.loop(lo, hi, carry=digits(e, lo, limits)) as loop:
            counters = loop.carried
            with self.printer.scope({a: c for a, c in enumerate(counters[: self.outer]) if a != self.plan.tile}):
                self.printer.hoist_stores(self.plan.stores)
                block = self.plan.block
                start: Int = e.imul(counters[-1], block) if block else 0
                end = e.i64(e.imin(e.iadd(start, block), self.sizes[-1])) if block else self.sizes[-1]
                if self.plan.tiled is None:
                    self._run(start, end, counters)
                else:
                    first = e.i64(e.imul(counters[self.plan.tile or 0], TILE))
                    self._run_tiles(first, self.words.param(self.plan.tiled.k), start, end)
            loop.next = advance(e, counters, limits)

    def _short_rows(self, lo: V, hi: V) -> None:
        """Units lo … hi-1 where a row is one vector: what all rows share is written once, before them."""
        e, stores, size = self.e, self.plan.stores, self.sizes[-1]
        mask = None if self.plan.full else e.tail_mask(size, self.width)
        inside = self.outer - self.plan.nested  # axes of the units
        with self.printer.block(0, mask, count=size):
            self.printer.hoist_vectors(stores)
            with e.loop(lo, hi, carry=digits(e, lo, self.sizes[:inside])) as loop:
                with self.printer.scope(dict(enumerate(loop.carried))):
                    self.printer.hoist_stores(stores)
                    self.printer.hoist_vectors(stores)
                    if self.plan.nested:
                        with e.loop(0, self.sizes[inside], guard=False) as row, self.printer.scope({inside: row.i}):
                            self.printer.stores(stores)
                    else:
                        self.printer.stores(stores)
                loop.next = advance(e, loop.carried, self.sizes[:inside])

    def _run(self, start: Int, end: V, counters: Sequence[V]) -> None:
        """The vector axis from start to end. Masked vectors throughout, or whole vectors and a tail."""
        e, masked = self.e, self.target.vector_bits == 512
        if self.expensive and (masked or self.maskable):
            with e.loop(start, end, self.width) as loop:
                self._vector(loop.i, e.isub(end, loop.i))
            return
        whole = e.bin("and", e.i64(e.isub(end, start)), -self.width)
        middle = e.i64(e.iadd(start, whole))
        with e.loop(start, middle, self.width) as loop:
            self._vector(loop.i, None)
        if masked:
            rest = e.isub(end, middle)
            e.when(e.icmp("slt", middle, end), lambda: self._vector(middle, rest))
            return
        rows = dict(enumerate(counters[: self.outer]))
        with e.loop(middle, end) as loop, self.tail.scope({**rows, self.outer: loop.i}):
            self.tail.stores(self.plan.stores)

    def _run_tiles(self, first: V, size: V, start: Int, end: V) -> None:
        """One unit of TILE rows from `first` on: square tiles, each filled, then run row by row."""
        e, width, tile = self.e, self.width, self.plan.tile or 0
        with e.loop(start, end, width) as columns, e.loop(first, e.imin(e.iadd(first, TILE), size), width) as rows:
            mask = e.tail_mask(e.isub(end, columns.i), width)
            count = e.imin(e.isub(size, rows.i), width)
            with self.printer.scope({tile: rows.i}):
                self.tiles.fill(count, columns.i, e.isub(end, 1))
            with e.loop(0, count, guard=False) as r:
                row = {tile: e.i64(e.iadd(rows.i, r.i))}
                with self.printer.scope(row), self.printer.block(columns.i, mask, given=self.tiles.row(r.i)):
                    self.printer.stores(self.plan.stores)

    def _vector(self, at: V, count: Int | None) -> None:
        """The vector at `at`, of which `count` lanes are wanted (None: all)."""
        lanes = None if count is None else self.e.i64(count)
        mask = None if lanes is None else self.e.tail_mask(lanes, self.width)
        with self.printer.block(at, mask, count=lanes):
            self.printer.stores(self.plan.stores)
