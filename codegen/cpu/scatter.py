"""The template of Scatter kernels. Threads share out points of the space, which write disjoint places.

Three forms, which no result shows:
"vector": the places of neighbouring points are neighbours: a space axis in vectors, the run outside it;
"strip": the same in scalars, where only what is read lies along a space axis: vector gathers and scatters are slower;
"points": one point after another, the run inside, in scalars.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.codegen.canonical import Abstraction, StoreNode, all_nodes, index_forms, merge_axes, store_roots
from graphc.codegen.cpu.kernel import CpuKernel, kernel_text
from graphc.codegen.cpu.pointwise import GRAIN_NS
from graphc.codegen.cpu.units import advance, digits
from graphc.codegen.emit import Emitter, Int, ParamBlock, V
from graphc.codegen.exprs import Printer, kernel_width
from graphc.codegen.target import Target
from graphc.ir.expr import Expr, apply, linear_terms, load, walk
from graphc.ir.kernel import Scatter
from graphc.ir.types import bool_

STRIP = 256  # elements of the inner axis in one unit
_STEP_NS = 4.0  # one position of the run in one unit
_SCALAR_NS = 1.2  # one place in scalars


@dataclass(frozen=True, slots=True)
class _Plan:
    """The structure of one Scatter kernel. Params from `first`: sizes of the space axes, the run, strips."""

    key: str
    form: str
    operands: int
    params: int
    first: int
    axes: int
    store: StoreNode
    ahead: StoreNode  # the same without reading the target: what may be computed before it is due


def lower(kernel: Scatter) -> CpuKernel:
    """Code and numbers of a Scatter kernel."""
    dtype = kernel.operands[kernel.target]
    old = load(kernel.target, dtype, kernel.flat, kernel.where)
    value = apply("or" if dtype is bool_ else "add", old, kernel.value) if kernel.add else kernel.value
    form, column = _form(kernel)
    order = [a for a in range(len(kernel.space)) if a != column] + ([] if column is None else [column])
    groups = merge_axes(order, kernel.space, index_forms(_roots(kernel)))
    extents = [math.prod(kernel.space[a] for a in g) for g in groups]
    axes: list[int | None] = [None] * len(kernel.space)
    for k, group in enumerate(groups):
        axes[group[-1]] = k
    made = Abstraction([*axes, len(groups)], [*kernel.space, kernel.run])
    store = made.store(kernel.target, dtype, kernel.flat, value, kernel.where)
    ahead = StoreNode(kernel.target, dtype, store.flat, made.node(kernel.value), store.where)
    first, strips = len(made.params), -(-extents[-1] // STRIP) if column is not None else 1
    for n in (*extents, kernel.run, strips):
        made.param(n)
    key = made.key(f"scatter {form} {len(kernel.operands)} operands {len(groups)} axes")
    plan = _Plan(key, form, len(kernel.operands), len(made.params), first, len(groups), store, ahead)
    units = 0 if 0 in kernel.space else math.prod(extents[:-1] if column is not None else extents) * strips
    inside = min(extents[-1], STRIP) if column is not None else 1
    step = _STEP_NS + inside / 16 if form == "vector" else _SCALAR_NS * inside
    grain = max(1, round(GRAIN_NS / (max(1, kernel.run) * step)))
    return CpuKernel(key, lambda target: _emit(plan, target), made.params, (), units, grain, 0)


def _roots(kernel: Scatter) -> list[Expr]:
    return [x for x in (kernel.flat, kernel.value, kernel.where) if x is not None]


def _form(kernel: Scatter) -> tuple[str, int | None]:
    """The form, and the space axis that runs inside the run."""
    candidates = [a for a, n in enumerate(kernel.space) if n > 1]
    flat = [a for a in candidates if _step(kernel.flat, a) == 1]
    if flat:
        return "vector", max(flat, key=lambda a: (kernel.space[a], a))
    roots = [x for x in (kernel.flat, kernel.value, kernel.where) if x is not None]
    reads = [e.args[0] for e in walk(*roots) if e.op == "load"]

    def score(axis: int) -> int:
        return sum(_step(r, axis) == 1 for r in reads)

    best = max(candidates, key=lambda a: (score(a), kernel.space[a], a), default=None)
    if best is None or score(best) <= score(len(kernel.space)):
        return "points", None
    return "strip", best


def _step(flat: Expr, axis: int) -> int | None:
    """How far an address moves along an axis; None where that is not the same everywhere."""
    _, terms = linear_terms(flat)
    if any(e.op == "index" and e.value == axis for atom in terms if atom.op != "index" for e in walk(atom)):
        return None
    return sum(k for atom, k in terms.items() if atom.op == "index" and atom.value == axis)


def _emit(plan: _Plan, target: Target) -> str:
    def body(e: Emitter, block: V, lo: V, hi: V, scratch: V) -> None:
        words = ParamBlock(e, block, plan.operands, plan.params)
        writer = _Points if plan.form == "points" else _Strips
        writer(plan, target, e, words).units(lo, hi)

    return kernel_text(plan.key, target, body)


class _Points:
    """Writes the loops of one Scatter kernel point by point."""

    def __init__(self, plan: _Plan, target: Target, e: Emitter, words: ParamBlock) -> None:
        self.plan, self.e = plan, e
        self.printer = Printer(e, words, None, 1)
        self.sizes = [words.param(plan.first + k) for k in range(plan.axes)]
        self.run, self.strips = words.param(plan.first + plan.axes), words.param(plan.first + plan.axes + 1)

    def units(self, lo: V, hi: V) -> None:
        """Units lo … hi-1."""
        e = self.e
        if not self.sizes:
            self.point([])
            return
        with e.loop(lo, hi, carry=digits(e, lo, self.sizes)) as loop:
            self.point(loop.carried)
            loop.next = advance(e, loop.carried, self.sizes)

    def point(self, counters: list[V]) -> None:
        """The run at one point of the space."""
        with self.e.loop(0, self.run) as loop:
            self.point_at(dict(enumerate([*counters, loop.i])))

    def point_at(self, axes: dict[int, V]) -> None:
        """One place."""
        with self.printer.scope(axes):
            self.printer.stores([self.plan.store])


class _Strips(_Points):
    """Writes the loops of one Scatter kernel over strips of the last axis, in vectors or scalars."""

    def __init__(self, plan: _Plan, target: Target, e: Emitter, words: ParamBlock) -> None:
        super().__init__(plan, target, e, words)
        self.width = kernel_width(target, all_nodes(store_roots([plan.store]))) if plan.form == "vector" else 1
        if self.width > 1:
            self.printer = Printer(e, words, plan.axes - 1, self.width)

    def units(self, lo: V, hi: V) -> None:
        """Units lo … hi-1."""
        e, limits = self.e, [*self.sizes[:-1], self.strips]
        self.printer.hoist_stores([self.plan.ahead])
        with e.loop(lo, hi, carry=digits(e, lo, limits)) as loop:
            counters = loop.carried
            with self.printer.scope(dict(enumerate(counters[:-1]))):
                self.printer.hoist_stores([self.plan.ahead])
                start = e.bin("mul", counters[-1], STRIP)
                self.strip(start, e.imin(e.bin("add", start, STRIP), self.sizes[-1]))
            loop.next = advance(e, counters, limits)

    def strip(self, start: V, end: Int) -> None:
        """The whole run, in order, over elements start … end-1 of the last axis."""
        e, width = self.e, self.width
        if width == 1:
            with e.loop(0, self.run) as loop, e.loop(start, end) as inner:
                self.point_at({self.plan.axes: loop.i, self.plan.axes - 1: inner.i})
            return
        whole = e.bin("and", e.i64(e.isub(end, start)), -width)
        middle = e.bin("add", start, whole)
        rest = e.tail_mask(e.isub(end, middle), width)
        with e.loop(0, self.run) as loop, self.printer.scope({self.plan.axes: loop.i}):
            self.printer.hoist_stores([self.plan.ahead])
            with e.loop(start, middle, width) as inner:
                self.vector(inner.i, None)
            e.when(e.icmp("slt", middle, e.i64(end)), lambda: self.vector(middle, rest))

    def vector(self, at: V, mask: V | None) -> None:
        """One vector of places, written where the mask is on."""
        with self.printer.block(at, mask):
            self.printer.stores([self.plan.store])
