"""The template of Scan kernels: walks along a run that carry a state in registers (sorting: codegen/cpu/sort.py).

Two forms, which no result shows: "vector", where what is written along a space axis is consecutive: neighbouring walks
in the lanes of a vector; "points": one walk after the other, in scalars. Threads share out the walks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.codegen import vmath
from graphc.codegen.canonical import Abstraction, Node, StoreNode, all_nodes, index_forms, merge_axes, store_roots
from graphc.codegen.cpu import sort
from graphc.codegen.cpu.kernel import CpuKernel, kernel_text
from graphc.codegen.cpu.pointwise import GRAIN_NS
from graphc.codegen.cpu.units import advance, digits
from graphc.codegen.emit import Emitter, Int, ParamBlock, Ty, V, elem
from graphc.codegen.exprs import Printer, kernel_width
from graphc.codegen.target import Target
from graphc.ir.expr import Expr, linear_terms, walk
from graphc.ir.kernel import Scan
from graphc.ir.numerics import BLOCK
from graphc.ir.types import DType

STRIP = 64  # walks in one unit of form "vector"
_STEP_NS = {"logaddexp": 20.0, "argsort": 60.0}  # one place of a run; else:
_CHEAP_NS = 2.0
_BLOCKED = ("sum", "prod", "logaddexp")


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """The structure of one Scan kernel. Params from `first`: sizes of the space axes, the run, strips, and for sorting
    the bytes of one buffer.
    """

    key: str
    kind: str
    form: str
    descending: bool
    words: str  # element of the words that are sorted
    operands: int
    params: int
    first: int
    axes: int
    dtype: DType
    value: Node
    stores: tuple[StoreNode, ...]


def lower(kernel: Scan) -> CpuKernel:
    """Code and numbers of a Scan kernel."""
    column = _column(kernel) if kernel.kind not in ("argsort", "positions") else None
    order = [a for a in range(len(kernel.space)) if a != column] + ([] if column is None else [column])
    groups = merge_axes(order, kernel.space, index_forms(_roots(kernel)))
    extents = [math.prod(kernel.space[a] for a in g) for g in groups]
    axes: list[int | None] = [None] * len(kernel.space)
    for k, group in enumerate(groups):
        axes[group[-1]] = k
    made = Abstraction([*axes, len(groups)], [*kernel.space, kernel.run])
    value = made.node(kernel.value)
    stores = tuple(made.store(s.operand, kernel.operands[s.operand], s.flat, s.value, s.where) for s in kernel.stores)
    first, strips = len(made.params), -(-extents[-1] // STRIP) if column is not None else 1
    words, buffer = sort.memory(kernel.value.dtype, kernel.run) if kernel.kind == "argsort" else ("", 0)
    for n in (*extents, kernel.run, strips, buffer):
        made.param(n)
    form = "points" if column is None else "vector"
    head = f"scan {kernel.kind} {kernel.descending} {words} {form} {len(kernel.operands)} operands {len(groups)} axes"
    key = made.key(f"{head} of %{value.number}")
    plan = ScanPlan(
        key, kernel.kind, form, kernel.descending, words, len(kernel.operands), len(made.params), first, len(groups),
        kernel.value.dtype, value, stores,
    )  # fmt: skip
    units = 0 if 0 in kernel.space else math.prod(extents[:-1] if column is not None else extents) * strips
    step = _STEP_NS.get(kernel.kind, _CHEAP_NS) * (max(1, min(extents[-1], STRIP) / 8) if column is not None else 1)
    grain = max(1, round(GRAIN_NS / (max(1, kernel.run) * step)))
    return CpuKernel(key, lambda target: _emit(plan, target), made.params, (), units, grain, 2 * buffer)


def _roots(kernel: Scan) -> list[Expr]:
    return [kernel.value, *(e for s in kernel.stores for e in (s.flat, s.value, s.where) if e is not None)]


def _column(kernel: Scan) -> int | None:
    """The space axis that runs in vectors: the largest along which all that is written is consecutive."""
    axes = [a for a, n in enumerate(kernel.space) if n > 1 and all(_step(s.flat, a) == 1 for s in kernel.stores)]
    return max(axes, key=lambda a: (kernel.space[a], a), default=None)


def _step(flat: Expr, axis: int) -> int | None:
    """How far an address moves along an axis; None where that is not the same everywhere."""
    _, terms = linear_terms(flat)
    if any(e.op == "index" and e.value == axis for atom in terms if atom.op != "index" for e in walk(atom)):
        return None
    return sum(k for atom, k in terms.items() if atom.op == "index" and atom.value == axis)


def _emit(plan: ScanPlan, target: Target) -> str:
    def body(e: Emitter, block: V, lo: V, hi: V, scratch: V) -> None:
        _Walks(plan, target, e, ParamBlock(e, block, plan.operands, plan.params), scratch).units(lo, hi)

    return kernel_text(plan.key, target, body)


class _Walks:
    """Writes the loops of one Scan kernel."""

    def __init__(self, plan: ScanPlan, target: Target, e: Emitter, words: ParamBlock, scratch: V) -> None:
        self.plan, self.e, self.scratch = plan, e, scratch
        nodes = all_nodes([plan.value, *store_roots(plan.stores)])
        self.width = kernel_width(target, nodes) if plan.form == "vector" else 1
        self.printer = Printer(e, words, plan.axes - 1 if self.width > 1 else None, self.width)
        self.sizes = [words.param(plan.first + k) for k in range(plan.axes)]
        self.run, self.strips, self.buffer = (words.param(plan.first + plan.axes + k) for k in range(3))

    def units(self, lo: V, hi: V) -> None:
        """Units lo … hi-1."""
        e, vector = self.e, self.plan.form == "vector"
        limits = [*self.sizes[:-1], self.strips] if vector else self.sizes
        if not limits:
            self.walk()
            return
        with e.loop(lo, hi, carry=digits(e, lo, limits)) as loop:
            counters = loop.carried
            with self.printer.scope(dict(enumerate(counters[:-1] if vector else counters))):
                if vector:
                    start = e.bin("mul", counters[-1], STRIP)
                    self.strip(start, e.imin(e.bin("add", start, STRIP), self.sizes[-1]))
                else:
                    self.walk()
            loop.next = advance(e, counters, limits)

    def strip(self, start: V, end: Int) -> None:
        """The walks start … end-1 along the last axis."""
        e, printer = self.e, self.printer
        if self.width == 1:
            with e.loop(start, end) as loop, printer.scope({self.plan.axes - 1: loop.i}):
                self.walk()
            return
        printer.hoist_stores(self.plan.stores)
        printer.hoist(self.plan.value)
        with e.loop(start, end, self.width) as loop:
            rest = e.isub(end, loop.i)
            whole = e.icmp("sge", e.i64(rest), self.width)
            e.branch(whole, lambda: self.lanes(loop.i, None), lambda: self.lanes(loop.i, e.tail_mask(rest, self.width)))

    def lanes(self, at: V, mask: V | None) -> list[V]:
        """The walks of one vector."""
        with self.printer.block(at, mask):
            self.walk()
        return []

    def walk(self) -> None:
        """One walk, or one a lane."""
        plan = self.plan
        if plan.kind == "argsort":
            sort.argsort(self.e, plan, self.run, self.buffer, self.scratch, self.value_at, self.put)
        elif plan.kind == "positions":
            self.positions()
        elif plan.kind in _BLOCKED:
            self.blocks()
        else:
            self.extremes()

    def value_at(self, j: V) -> V:
        """The value at place j of the run."""
        with self.printer.scope({self.plan.axes: j}):
            return self.printer.value(self.plan.value)

    def put(self, j: V, result: V) -> None:
        """Store what is due at place j of the run."""
        with self.printer.scope({self.plan.axes: j}):
            self.printer.set_result(0, result)
            self.printer.stores(self.plan.stores)

    def blocks(self) -> None:
        """Chains over blocks of the run, each result combined with the total of the blocks before."""
        e = self.e
        nothing = e.const(Ty(elem(self.plan.dtype), self.width), _nothing(self.plan.kind, self.plan.dtype))
        with e.loop(0, self.run, BLOCK, carry=[nothing]) as block:
            (before,) = block.carried
            end = e.imin(e.bin("add", block.i, BLOCK), self.run)
            with e.loop(block.i, end, carry=[nothing], guard=False) as loop:
                with self.printer.scope({self.plan.axes: loop.i}):
                    chain = _combine(e, self.plan.kind, loop.carried[0], self.printer.value(self.plan.value))
                    self.printer.set_result(0, _combine(e, self.plan.kind, before, chain))
                    self.printer.stores(self.plan.stores)
                loop.next = [chain]
            block.next = [_combine(e, self.plan.kind, before, loop.out[0])]

    def extremes(self) -> None:
        """The place of the extreme so far."""
        e, dtype = self.e, self.plan.dtype
        ty = Ty(elem(dtype), self.width)
        carry = [e.const(ty, _worst(self.plan.kind, dtype, ty.bits)), e.const(ty.of("i64"), 0)]
        with e.loop(0, self.run, carry=carry) as loop:
            with self.printer.scope({self.plan.axes: loop.i}):
                x = self.printer.value(self.plan.value)
                take = _no_worse(e, self.plan.kind, dtype, x, loop.carried[0])
                place = e.select(take, e.splat(loop.i, self.width), loop.carried[1])
                self.printer.set_result(0, place)
                self.printer.stores(self.plan.stores)
            loop.next = [e.select(take, x, loop.carried[0]), place]

    def positions(self) -> None:
        """Every place is stored where the next one goes, and the count moves on if its value holds."""
        e = self.e
        with e.loop(0, self.run, carry=[e.i64(0)]) as loop:
            holds = self.value_at(loop.i)
            self.put(loop.carried[0], loop.i)
            loop.next = [e.bin("add", loop.carried[0], e.convert("zext", holds, "i64"))]
        with e.loop(loop.out[0], self.run) as rest:
            self.put(rest.i, e.i64(0))


def _nothing(kind: str, dtype: DType) -> float | int:
    """What combines with any value to that value."""
    if kind == "prod":
        return 1
    if kind == "logaddexp":
        return -math.inf
    return -0.0 if dtype.kind == "f" else 0


def _combine(e: Emitter, kind: str, a: V, b: V) -> V:
    """`a` and then `b`."""
    real = a.ty.elem in ("float", "double")
    if kind == "sum":
        return e.bin("fadd" if real else "add", a, b)
    if kind == "prod":
        return e.bin("fmul" if real else "mul", a, b)
    return _logaddexp(e, a, b)


def _logaddexp(e: Emitter, a: V, b: V) -> V:
    """log(e^a + e^b) = m + log1p(e^-|a - b|), m the larger; m itself where both are one infinity or one is -inf.

    log1p(t) = log(u) * t / (u - 1) with u = 1 + t rounded, t where u is 1 (Higham, "Accuracy and Stability", 1.14).
    """
    m, low = e.intrinsic("maximum", a, b), e.intrinsic("minimum", a, b)
    t = vmath.FUNCTIONS["exp"](e, e.bin("fsub", low, m))
    u = e.bin("fadd", t, 1.0)
    flat = e.fcmp("oeq", u, 1.0)
    ratio = e.bin("fdiv", t, e.select(flat, 1.0, e.bin("fsub", u, 1.0)))
    more = e.select(flat, t, e.bin("fmul", vmath.FUNCTIONS["log"](e, u), ratio))
    alone = e.fcmp("oeq", e.intrinsic("fabs", m), math.inf)
    done = e.bin("or", alone, e.fcmp("oeq", low, -math.inf))
    return e.select(done, m, e.bin("fadd", m, more))


def _worst(kind: str, dtype: DType, bits: int) -> float | int:
    """No value is worse."""
    low = kind == "argmax"
    if dtype.kind == "f":
        return -math.inf if low else math.inf
    if dtype.kind in "bu":
        return 0 if low else (1 << bits) - 1
    return -(1 << (bits - 1)) if low else (1 << (bits - 1)) - 1


def _no_worse(e: Emitter, kind: str, dtype: DType, x: V, best: V) -> V:
    """True where `x` takes the place of `best`: equals do, and a NaN does always."""
    greater = kind == "argmax"
    if dtype.kind == "f":
        return e.bin("or", e.fcmp("oge" if greater else "ole", x, best), e.fcmp("uno", x, x))
    sign = "u" if dtype.kind in "bu" else "s"
    return e.icmp(f"{sign}{'ge' if greater else 'le'}", x, best)
