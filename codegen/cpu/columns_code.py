"""The code of Rows kernels with columns in vectors: "columns" (partial sums in scratch) and "window" (short runs)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from graphc.codegen.canonical import RESULT, Node, StoreNode, store_roots
from graphc.codegen.cpu.reductions import better, combine, is_ordered, lift, of_nothing
from graphc.codegen.cpu.rows_code import SLOT, FoldStage, RowsPlan, Writer, WriteStage
from graphc.codegen.emit import Emitter, Int, ParamBlock, Ty, V
from graphc.codegen.exprs import Printer
from graphc.codegen.target import Target
from graphc.ir.numerics import BLOCK, PARTIALS

_ROWS_AT_ONCE = 4  # rows added to a strip's partials in one sweep


class Strips(Writer):
    """The last space axis in vectors; a unit is a strip of it at a point of the other axes."""

    start: V
    count: V

    def __init__(self, plan: RowsPlan, target: Target, e: Emitter, words: ParamBlock, scratch: V) -> None:
        super().__init__(plan, target, e, words, scratch)
        self.strips = words.param(plan.first + plan.axes + 1)

    def printer(self) -> Printer:
        """A printer along the columns whose scopes follow the units."""
        made = Printer(self.e, self.words, self.plan.axes - 1, self.width)
        self.printers.append(made)
        return made

    def limits(self) -> list[V]:
        return [*self.sizes[:-1], self.strips]

    def known(self, counters: list[V]) -> dict[int, V]:
        return dict(enumerate(counters[:-1]))

    def unit(self, counters: list[V]) -> None:
        e = self.e
        self.start = e.bin("mul", counters[-1], self.plan.strip)
        self.count = e.i64(e.imin(e.bin("sub", self.sizes[-1], self.start), self.plan.strip))
        for printer in self.printers:
            for stage in self.plan.stages:
                self.hoist_stage(printer, stage)
        self.body()

    def body(self) -> None:
        """All stages and stores of a strip."""
        raise NotImplementedError


class WindowWriter(Strips):
    """A short run written out: one vector of columns goes through all stages in registers."""

    def __init__(self, plan: RowsPlan, target: Target, e: Emitter, words: ParamBlock, scratch: V) -> None:
        super().__init__(plan, target, e, words, scratch)
        self.final = self.printer()
        self.steps = [self.printer() for _ in range(plan.length)]

    def body(self) -> None:
        e = self.e
        with ExitStack() as stack:
            for r, printer in enumerate(self.steps):
                stack.enter_context(printer.scope({self.plan.axes: e.i64(r)}))
                for stage in self.plan.stages:
                    self.hoist_stage(printer, stage)
            self.final.hoist_stores(self.plan.stores)
            self.vectors(0, self.count, self.point)

    def point(self, c: Int, mask: V | None) -> None:
        """One vector of columns."""
        with ExitStack() as stack:
            for printer in self.printers:
                stack.enter_context(printer.block(self.e.iadd(self.start, c), mask))
            for stage in self.plan.stages:
                if isinstance(stage, WriteStage):
                    for printer in self.steps:
                        printer.stores(stage.stores)
                    continue
                value = self.lower_back(stage, self.fold(stage))
                for printer in self.printers:
                    printer.set_result(stage.number, value)
            self.final.stores(self.plan.stores)

    def fold(self, stage: FoldStage) -> V:
        """One reduction, a value a column."""
        e = self.e
        values = [lift(e, stage.kind, printer.value(stage.value)) for printer in self.steps]
        if not values:
            of = self.result_type(stage)
            return e.const(Ty(of, self.width), of_nothing(stage.kind, stage.dtype))
        if stage.kind.startswith("arg"):
            return self.place(stage, values)
        parts: list[V | None] = [*values, *[None] * (PARTIALS - len(values))]
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [self.join(stage, parts[k], parts[k + half]) for k in range(half)]
        assert parts[0] is not None
        return parts[0]

    def join(self, stage: FoldStage, a: V | None, b: V | None) -> V | None:
        """Combined partials; a missing one changes nothing."""
        return a if b is None else b if a is None else combine(self.e, stage.kind, a, b)

    def place(self, stage: FoldStage, values: Sequence[V]) -> V:
        """argmax, argmin of the values of a column."""
        e, ty = self.e, Ty("i64", self.width)
        best, place = values[0], e.const(ty, 0)
        for r, x in enumerate(values[1:], 1):
            take = better(e, stage.kind, x, best)
            best, place = e.select(take, x, best), e.select(take, e.const(ty, r), place)
        return place


class ColumnsWriter(Strips):
    """Partials of a strip in scratch: 32 rows of them, then a row a result, then a row a block result."""

    def __init__(self, plan: RowsPlan, target: Target, e: Emitter, words: ParamBlock, scratch: V) -> None:
        super().__init__(plan, target, e, words, scratch)
        self.final = self.printer()
        self.rows = [self.printer() for _ in range(1 if plan.expensive else _ROWS_AT_ONCE)]
        self.folds = sum(isinstance(s, FoldStage) for s in plan.stages)

    def row(self, region: int, row: Int, of: str) -> V:
        """Address of a row: regions 0 partials, 1 results, 2 block results."""
        e, strip = self.e, self.plan.strip
        first = (0, PARTIALS, PARTIALS + self.folds)[region]
        base = e.gep(self.scratch, strip * first * SLOT, "i8")
        if region == 1:  # one slot a column; rows of other regions are packed
            return e.gep(base, e.imul(row, strip * SLOT), "i8")
        return e.gep(base, e.imul(row, strip), of)

    def sweep(self, body: Callable[[V], None]) -> None:
        """Whole vectors over the strip in scratch alone."""
        with self.e.loop(0, self.count, self.width) as loop:
            body(loop.i)

    def body(self) -> None:
        for stage in self.plan.stages:
            if isinstance(stage, WriteStage):
                self.write(stage)
            elif stage.kind.startswith("arg"):
                self.place(stage)
            else:
                self.fold(stage)
        if self.plan.stores:
            self.final.hoist_stores(self.plan.stores)
            self.vectors(0, self.count, lambda c, mask: self.stores(self.final, self.plan.stores, c, mask))

    def stores(self, printer: Printer, stores: Sequence[StoreNode], c: Int, mask: V | None) -> None:
        """Stores at one vector of columns."""
        with printer.block(self.e.iadd(self.start, c), mask):
            self.results(printer, store_roots(stores), c)
            printer.stores(stores)

    def results(self, printer: Printer, roots: Sequence[Node], c: Int) -> None:
        """Make known the results that `roots` read."""
        used = frozenset[int]().union(*(n.depends for n in roots))
        for stage in self.plan.stages:
            if isinstance(stage, FoldStage) and RESULT + stage.number in used:
                of = self.result_type(stage)
                address = self.e.gep(self.row(1, stage.number, of), c, of)
                printer.set_result(stage.number, self.lower_back(stage, self.e.load(address, Ty(of, self.width))))

    def write(self, stage: WriteStage) -> None:
        """Stores over run and strip."""
        printer = self.rows[0]
        with self.e.loop(0, self.run) as loop, printer.scope({self.plan.axes: loop.i}):
            printer.hoist_stores(stage.stores)
            self.vectors(0, self.count, lambda c, mask: self.stores(printer, stage.stores, c, mask))

    def value(self, printer: Printer, stage: FoldStage, c: Int, mask: V | None) -> V:
        """The stage's value at one vector of columns."""
        with printer.block(self.e.iadd(self.start, c), mask):
            self.results(printer, [stage.value], c)
            return lift(self.e, stage.kind, printer.value(stage.value))

    def fold(self, stage: FoldStage) -> None:
        """One reduction into its result row."""
        e, of = self.e, self.lanes_of(stage).elem
        out = self.row(1, stage.number, of)
        if not (self.plan.blocked and is_ordered(stage.kind, stage.dtype)):
            self.accumulate(stage, 0, self.run)
            self.trees(stage, out)
            return

        def level(count: V, add: Callable[[Int, Int], None]) -> V:
            blocks = e.bin("lshr", e.bin("add", count, BLOCK - 1), BLOCK.bit_length() - 1)
            with e.loop(0, blocks, guard=False) as loop, self.scopes(self.printers):
                start = e.bin("mul", loop.i, BLOCK)
                add(start, e.imin(e.bin("add", start, BLOCK), count))
                self.trees(stage, self.row(2, loop.i, of))
            return blocks

        first = level(self.run, lambda start, end: self.accumulate(stage, start, end))
        with e.repeat([first]) as again, self.scopes(self.printers):
            left = level(again.carried[0], lambda start, end: self.gather(stage, start, end))
            again.next, again.i = [left], e.icmp("sgt", left, 1)
        ty = self.lanes_of(stage)
        self.sweep(lambda c: e.store(e.load(e.gep(self.row(2, 0, of), c, of), ty), e.gep(out, c, of)))

    def partials(self, stage: FoldStage) -> int:
        """Rows of partials: one where order does not show."""
        return PARTIALS if is_ordered(stage.kind, stage.dtype) else 1

    def clear(self, stage: FoldStage) -> None:
        """Partials of nothing."""
        e, ty = self.e, self.lanes_of(stage)
        with e.loop(0, self.partials(stage), guard=False) as loop:
            row = self.row(0, loop.i, ty.elem)
            self.sweep(lambda c: e.store(self.nothing(stage, ty), e.gep(row, c, ty.elem)))

    def accumulate(self, stage: FoldStage, start: Int, end: Int) -> None:
        """Rows start … end-1 of the run into the partials, several rows of one partial at a time."""
        e, parts, many = self.e, self.partials(stage), len(self.rows)
        self.clear(stage)
        group = parts * many
        middle = e.i64(start)
        if many > 1:
            whole = e.bin("and", e.i64(e.isub(end, start)), -group)
            middle = e.i64(e.iadd(start, whole))
            with (
                e.loop(start, middle, group) as outer,
                self.scopes(self.printers),
                e.loop(0, parts, guard=False) as loop,
                self.scopes(self.printers),
            ):
                first = e.bin("add", outer.i, loop.i)
                self.add(stage, loop.i, [e.i64(e.iadd(first, k * parts)) for k in range(many)])
        with e.loop(middle, end) as loop, self.scopes(self.printers):
            self.add(stage, e.bin("and", loop.i, parts - 1), [loop.i])

    def add(self, stage: FoldStage, partial: V, rows: Sequence[V]) -> None:
        """Some rows of the run, in order, added to one row of partials."""
        e, ty = self.e, self.lanes_of(stage)
        kept = self.row(0, partial, ty.elem)
        with ExitStack() as stack:
            for printer, r in zip(self.rows, rows, strict=False):
                stack.enter_context(printer.scope({self.plan.axes: r}))
                printer.hoist(stage.value)

            def body(c: Int, mask: V | None) -> None:
                address = e.gep(kept, c, ty.elem)
                total = e.load(address, ty)
                for printer, _ in zip(self.rows, rows, strict=False):
                    total = combine(e, stage.kind, total, self.value(printer, stage, c, mask))
                e.store(total, address)

            self.vectors(0, self.count, body)

    def gather(self, stage: FoldStage, start: Int, end: Int) -> None:
        """Block results start … end-1 into the partials."""
        e, ty = self.e, self.lanes_of(stage)
        self.clear(stage)
        with e.loop(start, end) as loop:
            kept = self.row(0, e.bin("and", loop.i, PARTIALS - 1), ty.elem)
            block = self.row(2, loop.i, ty.elem)

            def body(c: V) -> None:
                address = e.gep(kept, c, ty.elem)
                x = e.load(e.gep(block, c, ty.elem), ty)
                e.store(combine(e, stage.kind, e.load(address, ty), x), address)

            self.sweep(body)

    def trees(self, stage: FoldStage, out: V) -> None:
        """The partials reduced into the row `out`."""
        e, ty, count = self.e, self.lanes_of(stage), self.partials(stage)
        first = self.row(0, 0, ty.elem)

        def total(p: int, d: int, at: V) -> V:
            """Partial p once all distances from d up are done."""
            if d == count:
                return e.load(e.gep(at, p * self.plan.strip, ty.elem), ty)
            return combine(e, stage.kind, total(p, 2 * d, at), total(p + d, 2 * d, at))

        self.sweep(lambda c: e.store(total(0, 1, e.gep(first, c, ty.elem)), e.gep(out, c, ty.elem)))

    def place(self, stage: FoldStage) -> None:
        """argmax, argmin: the best of every column in partial row 0, its place in the result row."""
        e, ty, places = self.e, self.lanes_of(stage), Ty("i64", self.width)
        best, place = self.row(0, 0, ty.elem), self.row(1, stage.number, "i64")

        def clear(c: V) -> None:
            e.store(self.nothing(stage, ty), e.gep(best, c, ty.elem))
            e.store(e.const(places, 0), e.gep(place, c, "i64"))

        self.sweep(clear)
        printer = self.rows[0]
        with e.loop(0, self.run) as loop, printer.scope({self.plan.axes: loop.i}):
            printer.hoist(stage.value)

            def body(c: Int, mask: V | None) -> None:
                x = self.value(printer, stage, c, mask)
                old, at = e.gep(best, c, ty.elem), e.gep(place, c, "i64")
                before = e.load(old, ty)
                take = better(e, stage.kind, x, before)
                e.store(e.select(take, x, before), old)
                e.store(e.select(take, e.splat(loop.i, self.width), e.load(at, places)), at)

            self.vectors(0, self.count, body)
