"""The template of Scatter kernels: a space axis in vectors, the run outside it in ascending order.

Threads share out points of the space, which write disjoint places; so do the lanes of a vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.codegen.canonical import Abstraction, StoreNode, index_forms, merge_axes
from graphc.codegen.cpu.kernel import CpuKernel, kernel_text
from graphc.codegen.cpu.pointwise import GRAIN_NS
from graphc.codegen.cpu.units import advance, digits
from graphc.codegen.emit import Emitter, Int, ParamBlock, V
from graphc.codegen.exprs import Printer, all_nodes, kernel_width, store_roots
from graphc.codegen.target import Target
from graphc.ir.expr import Expr, apply, linear_terms, load
from graphc.ir.kernel import Scatter
from graphc.ir.types import bool_

STRIP = 256  # elements of the vector axis in one unit
_STEP_NS = 4.0  # one position of the run in one unit


@dataclass(frozen=True, slots=True)
class _Plan:
    """The structure of one Scatter kernel. Params from `first`: sizes of the space axes, the run, strips."""

    key: str
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
    column = _vector_axis(kernel)
    order = [a for a in range(len(kernel.space)) if a != column] + ([] if column is None else [column])
    groups = merge_axes(order, kernel.space, index_forms(_roots(kernel)))
    extents = [math.prod(kernel.space[a] for a in g) for g in groups]
    axes: list[int | None] = [None] * len(kernel.space)
    for k, group in enumerate(groups):
        axes[group[-1]] = k
    made = Abstraction([*axes, len(groups)], [*kernel.space, kernel.run])
    store = made.store(kernel.target, dtype, kernel.flat, value, kernel.where)
    ahead = StoreNode(kernel.target, dtype, store.flat, made.node(kernel.value), store.where)
    first, strips = len(made.params), -(-extents[-1] // STRIP) if extents else 1
    for n in (*extents, kernel.run, strips):
        made.param(n)
    key = made.key(f"scatter {len(kernel.operands)} operands {len(groups)} axes")
    plan = _Plan(key, len(kernel.operands), len(made.params), first, len(groups), store, ahead)
    units = 0 if 0 in kernel.space else math.prod(extents[:-1]) * strips
    lanes = min(extents[-1], STRIP) if extents else 1
    grain = max(1, round(GRAIN_NS / (max(1, kernel.run) * (_STEP_NS + lanes / 16))))
    return CpuKernel(key, lambda target: _emit(plan, target), made.params, (), units, grain, 0)


def _roots(kernel: Scatter) -> list[Expr]:
    return [x for x in (kernel.flat, kernel.value, kernel.where) if x is not None]


def _vector_axis(kernel: Scatter) -> int | None:
    """The axis with neighbouring places, else the longest; None where there is but one point."""
    _, terms = linear_terms(kernel.flat)
    steps = {atom.value: k for atom, k in terms.items() if atom.op == "index"}
    candidates = [a for a, n in enumerate(kernel.space) if n > 1]
    return max(candidates, key=lambda a: (steps.get(a) == 1, kernel.space[a], a), default=None)


def _emit(plan: _Plan, target: Target) -> str:
    def body(e: Emitter, block: V, lo: V, hi: V, scratch: V) -> None:
        words = ParamBlock(e, block, plan.operands, plan.params)
        if plan.axes == 0:
            _single(plan, e, words)
            return
        _Writer(plan, target, e, words).units(lo, hi)

    return kernel_text(plan.key, target, body)


def _single(plan: _Plan, e: Emitter, words: ParamBlock) -> None:
    """One point: the run in scalars."""
    printer = Printer(e, words, None, 1)
    with e.loop(0, words.param(plan.first)) as loop, printer.scope({0: loop.i}):
        printer.stores([plan.store])


class _Writer:
    """Writes the loops of one Scatter kernel over strips."""

    def __init__(self, plan: _Plan, target: Target, e: Emitter, words: ParamBlock) -> None:
        self.plan, self.e = plan, e
        self.width = kernel_width(target, all_nodes(store_roots([plan.store])))
        self.printer = Printer(e, words, plan.axes - 1, self.width)
        self.sizes = [words.param(plan.first + k) for k in range(plan.axes)]
        self.run, self.strips = words.param(plan.first + plan.axes), words.param(plan.first + plan.axes + 1)

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
        """The whole run, in order, over elements start … end-1 of the vector axis."""
        e, width = self.e, self.width
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
