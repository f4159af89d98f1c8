"""The code of Rows kernels with the run in vectors, and what all forms share. Sums follow rule R (docs/numerics.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from graphc.codegen.canonical import Node, StoreNode, all_nodes, store_roots
from graphc.codegen.cpu.reductions import (
    accumulator,
    better,
    combine,
    first_of_lanes,
    is_ordered,
    lift,
    lower_back,
    missing,
    of_nothing,
    tree,
)
from graphc.codegen.cpu.units import advance, digits
from graphc.codegen.emit import Emitter, Int, ParamBlock, Ty, V, elem
from graphc.codegen.exprs import Printer, kernel_width
from graphc.codegen.target import Target
from graphc.ir.numerics import BLOCK, PARTIALS
from graphc.ir.types import DType

SLOT = 8  # bytes of a scratch slot, whatever is kept in it
KEEP_RUN = 8192  # the longest run whose dear values are kept in scratch
KEEP_AT, KEEP_BYTES = 256, SLOT * (KEEP_RUN + 64)  # where they start, behind the block results; bytes of one row
_CHAINS = 4  # accumulators where order does not show


@dataclass(frozen=True, slots=True)
class FoldStage:
    """A ReduceStage in canonical form; `number` counts the fold stages, `dtype` is that of the value."""

    number: int
    kind: str
    dtype: DType
    value: Node


@dataclass(frozen=True, slots=True)
class WriteStage:
    """A MapStage in canonical form."""

    stores: tuple[StoreNode, ...]


Stage = FoldStage | WriteStage


@dataclass(frozen=True, slots=True)
class RowsPlan:
    """The structure of one Rows kernel. Axes: 0 … axes-1 the space, `axes` the run.

    Params from `first`: the sizes of the space axes, the run; not for form "rows": the number of strips.
    """

    key: str
    form: str
    operands: int
    params: int
    first: int
    axes: int
    stages: tuple[Stage, ...]
    stores: tuple[StoreNode, ...]
    blocked: bool
    length: int  # the run where it is structure (window, or 0), else -1
    strip: int  # columns of a unit, 0 for form "rows"
    expensive: bool
    kept: tuple[Node, ...]  # form "rows": dear values that several stages use, kept in scratch by the first of them


def stage_roots(stages: Sequence[Stage]) -> list[Node]:
    """The nodes the stages need."""
    roots: list[Node] = []
    for s in stages:
        roots += [s.value] if isinstance(s, FoldStage) else store_roots(s.stores)
    return roots


class Writer:
    """What the forms share. `printers` are all those whose scopes follow the units."""

    def __init__(self, plan: RowsPlan, target: Target, e: Emitter, words: ParamBlock, scratch: V) -> None:
        self.plan, self.target, self.e, self.words, self.scratch = plan, target, e, words, scratch
        self.width = kernel_width(target, all_nodes([*stage_roots(plan.stages), *store_roots(plan.stores)]))
        self.sizes = [words.param(plan.first + k) for k in range(plan.axes)]
        self.run = words.param(plan.first + plan.axes)
        self.masked = plan.expensive and target.vector_bits == 512
        self.printers: list[Printer] = []

    def limits(self) -> list[V]:
        """Sizes of the counters units run over."""
        raise NotImplementedError

    def unit(self, counters: list[V]) -> None:
        """One unit, its axes being known to the printers."""
        raise NotImplementedError

    def known(self, counters: list[V]) -> dict[int, V]:
        """The axes a unit fixes."""
        return dict(enumerate(counters))

    def units(self, lo: V, hi: V) -> None:
        """Units lo … hi-1."""
        limits = self.limits()
        self.hoist()
        with self.e.loop(lo, hi, carry=digits(self.e, lo, limits)) as loop:
            with self.scopes(self.printers, self.known(loop.carried)):
                self.unit(loop.carried)
            loop.next = advance(self.e, loop.carried, limits)

    def hoist(self) -> None:
        """Write what is known here for all that follows."""
        for printer in self.printers:
            for stage in self.plan.stages:
                self.hoist_stage(printer, stage)

    def hoist_stage(self, printer: Printer, stage: Stage) -> None:
        """Write what is known here for one stage."""
        if isinstance(stage, FoldStage):
            printer.hoist(stage.value)
        else:
            printer.hoist_stores(stage.stores)

    @contextmanager
    def scopes(self, printers: Sequence[Printer], axes: dict[int, V] | None = None) -> Iterator[None]:
        """A scope of several printers."""
        with ExitStack() as stack:
            for printer in printers:
                stack.enter_context(printer.scope(axes))
            yield

    def vectors(self, start: Int, end: Int, body: Callable[[Int, V | None], None]) -> None:
        """body(at, mask) for vectors from start to end: masked ones throughout, or whole ones and a tail."""
        e, width = self.e, self.width
        if self.masked:
            with e.loop(start, end, width) as loop:
                body(loop.i, e.tail_mask(e.isub(end, loop.i), width))
            return
        middle = e.i64(e.iadd(start, e.bin("and", e.i64(e.isub(end, start)), -width)))
        with e.loop(start, middle, width) as loop:
            body(loop.i, None)
        e.when(e.icmp("slt", middle, e.i64(end)), lambda: body(middle, e.tail_mask(e.isub(end, middle), width)))

    def lanes_of(self, stage: FoldStage) -> Ty:
        """The type of a vector of accumulators."""
        return Ty(accumulator(stage.kind, stage.dtype), self.width)

    def nothing(self, stage: FoldStage, ty: Ty) -> V:
        """What combines to nothing, in every lane."""
        return self.e.const(ty, missing(stage.kind, stage.dtype))

    def lower_back(self, stage: FoldStage, x: V) -> V:
        """The result of a reduction, from its accumulator."""
        return lower_back(self.e, stage.kind, stage.dtype, x)

    def result_type(self, stage: FoldStage) -> str:
        """The element a result is kept in."""
        return "i64" if stage.kind.startswith("arg") else accumulator(stage.kind, stage.dtype)


class RowsWriter(Writer):
    """The run in vectors; a unit is a point of the space."""

    def __init__(self, plan: RowsPlan, target: Target, e: Emitter, words: ParamBlock, scratch: V) -> None:
        super().__init__(plan, target, e, words, scratch)
        self.main = Printer(e, words, plan.axes, self.width)
        self.single = Printer(e, words, None, 1)
        self.printers = [self.main, self.single]
        below = [(s, set(all_nodes(stage_roots([s])))) for s in plan.stages]
        self.kept = [(n, [s for s, nodes in below if n in nodes]) for n in plan.kept]

    def limits(self) -> list[V]:
        return self.sizes

    def hoist(self) -> None:
        for stage in self.plan.stages:
            self.hoist_stage(self.main, stage)

    def unit(self, counters: list[V]) -> None:
        for stage in self.plan.stages:
            self.hoist_stage(self.main, stage)
            if isinstance(stage, WriteStage):
                self.write(stage)
                continue
            value = self.lower_back(stage, self.fold(stage))
            for printer in self.printers:
                printer.set_result(stage.number, value)
        if self.plan.stores:
            self.single.stores(self.plan.stores)

    def write(self, stage: WriteStage) -> None:
        """Stores over the run."""

        def body(at: Int, mask: V | None) -> None:
            with self.main.block(at, mask), self.keeping(stage, at):
                self.main.stores(stage.stores)

        self.vectors(0, self.run, body)

    @contextmanager
    def keeping(self, stage: Stage, at: Int) -> Iterator[None]:
        """Around the code of one vector: kept values made by an earlier stage are read, new ones are written."""
        e, new = self.e, []
        for k, (n, used) in enumerate(self.kept):
            if stage in used:
                address = e.gep(e.gep(self.scratch, KEEP_AT + k * KEEP_BYTES, "i8"), at, elem(n.dtype))
                if stage is used[0]:
                    new.append((n, address))
                else:
                    self.main.give(n, e.load(address, Ty(elem(n.dtype), self.width)))
        yield
        for n, address in new:
            e.store(self.main.value(n), address)

    def fold(self, stage: FoldStage) -> V:
        """One reduction as a scalar accumulator."""
        if self.plan.length == 0:
            return self.e.const(Ty(self.result_type(stage)), of_nothing(stage.kind, stage.dtype))

        def read(at: Int, mask: V | None) -> V:
            with self.main.block(at, mask), self.keeping(stage, at):
                return lift(self.e, stage.kind, self.main.value(stage.value))

        if stage.kind.startswith("arg"):
            return self.place(stage, read)
        if self.plan.blocked and is_ordered(stage.kind, stage.dtype):
            return self.blocks(stage, read)
        return self.span(stage, 0, self.run, read)

    def blocks(self, stage: FoldStage, read: Callable[[Int, V | None], V]) -> V:
        """Rule R over more than a block: block results in scratch, the rule applied to them until one is left."""
        e, ty = self.e, self.lanes_of(stage)
        of = ty.elem

        def level(count: V, element: Callable[[Int, V | None], V]) -> V:
            blocks = e.bin("lshr", e.bin("add", count, BLOCK - 1), BLOCK.bit_length() - 1)
            with e.loop(0, blocks, guard=False) as loop, self.scopes(self.printers):
                start = e.bin("mul", loop.i, BLOCK)
                total = self.span(stage, start, e.imin(e.bin("add", start, BLOCK), count), element)
                e.store(total, e.gep(self.scratch, loop.i, of))
            return blocks

        def kept(at: Int, mask: V | None) -> V:
            address = e.gep(self.scratch, at, of)
            return e.load(address, ty) if mask is None else e.masked_load(address, mask, ty)

        with e.repeat([level(self.run, read)]) as again:
            left = level(again.carried[0], kept)
            again.next, again.i = [left], e.icmp("sgt", left, 1)
        return e.load(self.scratch, Ty(of))

    def span(self, stage: FoldStage, start: Int, end: Int, read: Callable[[Int, V | None], V]) -> V:
        """At most a block (any length where order does not show): 32 partials in registers, then the tree."""
        e, ty = self.e, self.lanes_of(stage)
        zero = self.nothing(stage, ty)
        count = PARTIALS // self.width
        if not is_ordered(stage.kind, stage.dtype):
            count = max(count, _CHAINS)
        partials, group = [zero] * count, count * self.width

        def step(at: Int, so_far: Sequence[V], limit: Int | None) -> list[V]:
            out = []
            for k, s in enumerate(so_far):
                here = e.iadd(at, k * self.width)
                mask = None if limit is None else e.tail_mask(e.isub(limit, here), self.width)
                x = read(here, mask)
                out.append(combine(e, stage.kind, s, x if mask is None else e.select(mask, x, zero)))
            return out

        if self.masked:
            with e.loop(start, end, group, partials) as loop:
                loop.next = step(loop.i, loop.carried, end)
            return tree(e, stage.kind, loop.out)
        middle = e.i64(e.iadd(start, e.bin("and", e.i64(e.isub(end, start)), -group)))
        with e.loop(start, middle, group, partials) as loop:
            loop.next = step(loop.i, loop.carried, None)
        whole = loop.out
        more = e.icmp("slt", middle, e.i64(end))
        return tree(e, stage.kind, e.branch(more, lambda: step(middle, whole, end), lambda: whole))

    def place(self, stage: FoldStage, read: Callable[[Int, V | None], V]) -> V:
        """argmax, argmin: every lane keeps its best and where it was; then the lanes are compared."""
        e, ty = self.e, self.lanes_of(stage)
        zero, lanes = self.nothing(stage, ty), e.lanes(ty.of("i64"))
        with e.loop(0, self.run, self.width, [zero, lanes]) as loop:
            mask = e.tail_mask(e.isub(self.run, loop.i), self.width)
            x = e.select(mask, read(loop.i, mask), zero)
            best, place = loop.carried
            take = better(e, stage.kind, x, best)
            here = e.bin("add", e.splat(loop.i, self.width), lanes)
            loop.next = [e.select(take, x, best), e.select(take, here, place)]
        return first_of_lanes(e, stage.kind, *loop.out)
