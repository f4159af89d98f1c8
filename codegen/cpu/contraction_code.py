"""The LLVM text of a Contract kernel; contraction.py plans it and lists the tables.

A unit of work is one batch element, one panel of columns and one run of rows. For each segment of k the panel is
copied to scratch unless it is read in place, then the microkernel adds the segment's sums to a tile of scratch; at the
end the stores run over the tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.codegen.canonical import StoreNode, all_nodes, store_roots
from graphc.codegen.casts import cast
from graphc.codegen.cpu.kernel import kernel_text
from graphc.codegen.emit import I64, PTR, Emitter, Int, ParamBlock, Ty, V, memory_elem
from graphc.codegen.exprs import Printer, kernel_width
from graphc.codegen.target import Target
from graphc.ir.types import DType

# A panel's record: when to read it in place, offset of its first column, first and last + 1 run of the stores, first
# piece to copy, pieces of whole vectors, of halves, others
PANEL_WORDS = 8
PIECE_BYTES = 64  # of a whole piece


@dataclass(frozen=True, slots=True)
class Structure:
    """What the code depends on."""

    dtype: DType
    row_dtype: DType  # of the memory: the same, or a narrower type
    column_dtype: DType
    operands: int
    row_operand: int
    column_operand: int
    rows_held: int  # 8: as many as fit beside two vectors; 6; 4; 1
    width: int  # columns of a panel
    transposed: bool  # panels are copied along k
    unit: bool  # neighbouring columns are neighbours in memory
    counts: tuple[int, int, int]  # merged axes of batch, rows, columns
    slots: tuple[int, ...]  # params m, k, segment length, segments, panels, chunks, rows of a chunk, column step
    stores: tuple[StoreNode, ...]

    def head(self) -> str:
        """The first line of the key."""
        return (
            f"contract {self.dtype.short} {self.row_dtype.short} {self.column_dtype.short} {self.operands} "
            f"{self.row_operand} {self.column_operand} {self.rows_held} {self.width} {int(self.transposed)} "
            f"{int(self.unit)} {self.counts} {self.slots}"
        )

    @property
    def dotted(self) -> bool:
        """One row and columns that run along k: transposed in registers and used at once."""
        return self.transposed and self.rows_held == 1

    def lanes(self, target: Target) -> int:
        """Elements of a vector; 32 bytes at most where shuffles are most of the work."""
        return min(target.lanes(self.dtype), 32 // self.dtype.itemsize if self.dotted else 64)

    def tile(self, target: Target) -> tuple[int, int]:
        """(rows, vectors) of the microkernel: as many accumulators as registers hold besides the operands."""
        if self.dotted:
            return 1, 2
        lanes = self.lanes(target)
        wide = target.vector_bits == 512 or target.name == "aarch64"
        most = {8: (8, 2), 6: (6, 4), 4: (4, 4), 1: (1, 16)} if wide else {8: (6, 2), 6: (6, 2), 4: (4, 2), 1: (1, 8)}
        rows, vectors = most[self.rows_held]
        return rows, min(vectors, self.width // lanes)


def kernel(key: str, s: Structure, params: int, tables: int) -> Callable[[Target], str]:
    """What CpuKernel.emit wants."""

    def emit(target: Target) -> str:
        def body(e: Emitter, block: V, lo: V, hi: V, scratch: V) -> None:
            _Code(e, s, ParamBlock(e, block, s.operands, params, tables)).units(lo, hi, scratch)

        return kernel_text(key, target, body)

    return emit


class _Code:
    """Writes one kernel. A unit has a row, a column and a segment, so most loops need no guard; k may be empty."""

    def __init__(self, e: Emitter, s: Structure, words: ParamBlock) -> None:
        self.e, self.s, self.words = e, s, words
        self.elem = memory_elem(s.dtype)
        self.of_rows, self.of_columns = memory_elem(s.row_dtype), memory_elem(s.column_dtype)
        self.lanes = s.lanes(e.target)
        self.rows, self.vectors = s.tile(e.target)
        self.part = 16 // s.dtype.itemsize  # elements in 16 bytes
        self.piece_size = PIECE_BYTES // s.dtype.itemsize
        self.vector = Ty(self.elem, self.lanes)
        self.float = s.dtype.is_floating_point

    # -- the parts, each a function of its own ---------------------------------------------------------------------

    def call(self, name: str, args: Sequence[V]) -> None:
        given = ", ".join(f"{a.ty} {a.ref}" for a in args)
        self.e.line(f"call void @{self.e.name}.{name}({given})")

    def microkernel(self) -> None:
        """tile[r][j] (+)= Σ a[r, k] * b[k, j] over `count` pairs of offsets (of a, of b)."""
        e = self.e
        names = [(PTR, "a"), (PTR, "rows"), (PTR, "pairs"), (I64, "count"), (PTR, "b"), (PTR, "tile"), (I64, "more")]
        with e.function(f"{e.name}.micro", names, internal=True) as (a, rows, pairs, count, b, tile, more):
            at = [e.gep(a, e.load(e.gep(rows, r, "i64"), I64), self.of_rows) for r in range(self.rows)]
            zero = [e.const(self.vector, 0)] * (self.rows * self.vectors)
            with e.loop(0, count, carry=[pairs, *zero]) as loop:
                pair, *sums = loop.carried
                of_a, of_b = e.load(pair, I64), e.load(e.gep(pair, 1, "i64"), I64)
                row = e.gep(b, of_b, self.elem)
                right = [e.load(e.gep(row, j * self.lanes, self.elem), self.vector) for j in range(self.vectors)]
                for r in range(self.rows):
                    left = e.splat(self.row_element(e.gep(at[r], of_a, self.of_rows)), self.lanes)
                    for j in range(self.vectors):
                        n = r * self.vectors + j
                        sums[n] = self.multiply_add(left, right[j], sums[n])
                loop.next = [e.gep(pair, 2, "i64"), *sums]
            self.finish(tile, loop.out[1:], more)

    def multiply_add(self, a: V, b: V, c: V) -> V:
        return self.e.fma(a, b, c) if self.float else self.e.bin("add", self.e.bin("mul", a, b), c)

    def finish(self, tile: V, sums: Sequence[V], more: V) -> None:
        """Put the sums of a segment into the tile, or add them to what is there."""
        e = self.e
        places = [
            e.gep(tile, r * self.s.width + j * self.lanes, self.elem)
            for r in range(self.rows)
            for j in range(self.vectors)
        ]
        name = "fadd" if self.float else "add"

        def added() -> list[V]:
            return [e.bin(name, e.load(p, self.vector), x) for p, x in zip(places, sums, strict=True)]

        for p, x in zip(places, e.branch(e.icmp("ne", more, 0), added, lambda: list(sums)), strict=True):
            e.store(x, p)

    def copy_columns(self) -> None:
        """Rows k of a panel to scratch, piece by piece: whole vectors, halves of them, then any others under a mask.

        Two pieces go down the rows together: their numbers are even, one may be done twice.
        """
        e = self.e
        counts = [(I64, name) for name in ("wholes", "halves", "others")]
        names = [(PTR, "b"), (PTR, "pairs"), (I64, "count"), (PTR, "pieces"), *counts, (PTR, "to")]
        with e.function(f"{e.name}.copy", names, internal=True) as (b, pairs, count, pieces, *many, to):
            for kind, number in enumerate(many):
                with e.loop(0, number, 2, carry=[pieces]) as pair:
                    first = pair.carried[0]
                    two = [self.triple(first), self.triple(e.gep(first, 3, "i64"))]
                    self.copy_two(b, pairs, count, two, self.piece_size // (2 if kind == 1 else 1), kind == 2, to)
                    pair.next = [e.gep(first, 6, "i64")]
                pieces = pair.out[0]

    def copy_two(
        self, b: V, pairs: V, count: V, pieces: Sequence[tuple[V, V, V]], lanes: int, masked: bool, to: V
    ) -> None:
        """Two pieces (column, offset, length) down all rows of a segment."""
        e, ty = self.e, Ty(self.elem, lanes)
        masks = [e.tail_mask(length, lanes) if masked else None for _, _, length in pieces]
        sources = [e.gep(b, offset, self.of_columns) for _, offset, _ in pieces]
        places = [e.gep(to, column, self.elem) for column, _, _ in pieces]
        with e.loop(0, count) as k:
            of_b, row = self.of_b(pairs, k.i), e.imul(k.i, self.s.width)
            for source, place, mask in zip(sources, places, masks, strict=True):
                here, there = e.gep(source, of_b, self.of_columns), e.gep(place, row, self.elem)
                if mask is None:
                    e.store(self.columns(e.load(here, ty.of(self.of_columns))), there)
                elif e.target.vector_bits == 512:
                    e.masked_store(self.columns(e.masked_load(here, mask, ty.of(self.of_columns))), there, mask)
                else:  # masked stores are slow there
                    read = self.columns(e.masked_load(here, mask, ty.of(self.of_columns)))
                    e.store(e.select(mask, read, e.load(there, ty)), there)

    def copy_strided(self) -> None:
        """Rows k of a panel to scratch, element by element, for columns `step` apart."""
        e = self.e
        names = [(PTR, "b"), (PTR, "pairs"), (I64, "count"), (PTR, "runs"), (I64, "many"), (I64, "step"), (PTR, "to")]
        with (
            e.function(f"{e.name}.copy", names, internal=True) as (b, pairs, count, runs, many, step, to),
            e.loop(0, count) as k,
        ):
            source = e.gep(b, self.of_b(pairs, k.i), self.of_columns)
            row = e.gep(to, e.imul(k.i, self.s.width), self.elem)
            with e.loop(0, many, carry=[runs], guard=False) as run:
                place, offset, length = self.triple(run.carried[0])
                here, there = e.gep(source, offset, self.of_columns), e.gep(row, place, self.elem)
                with e.loop(0, length) as one:
                    found = self.column_element(e.gep(here, e.imul(one.i, step), self.of_columns))
                    e.store(found, e.gep(there, one.i, self.elem))
                run.next = [e.gep(run.carried[0], 3, "i64")]

    def triple(self, address: V) -> tuple[V, V, V]:
        """Three words of a table."""
        a, b, c = (self.e.load(self.e.gep(address, x, "i64"), I64) for x in range(3))
        return a, b, c

    def of_b(self, pairs: V, k: V) -> V:
        return self.e.load(self.e.gep(pairs, self.e.iadd(self.e.imul(k, 2), 1), "i64"), I64)

    def row_element(self, address: V) -> V:
        """One element of the side that gives rows, as it is computed with."""
        return cast(self.e, self.e.load(address, Ty(self.of_rows)), self.s.row_dtype, self.s.dtype)

    def column_element(self, address: V) -> V:
        """One element of the side that gives columns, as it is computed with."""
        return self.columns(self.e.load(address, Ty(self.of_columns)))

    def columns(self, x: V) -> V:
        """What was read of the side that gives columns, as it is computed with."""
        return cast(self.e, x, self.s.column_dtype, self.s.dtype)

    def copy_rows(self) -> None:
        """A panel to scratch, read along k in pieces of 16 bytes that are transposed in registers.

        The last piece of a run ends where the run ends, so it may do some of the one before it again; runs shorter than
        a piece go one by one.
        """
        e, width, part = self.e, self.s.width, self.part
        names = [(PTR, "b"), (PTR, "columns"), (PTR, "runs"), (I64, "many"), (PTR, "to")]
        with (
            e.function(f"{e.name}.copy", names, internal=True) as (b, columns, runs, many, to),
            e.loop(0, many, carry=[runs]) as run,
        ):
            place, offset, length = self.triple(run.carried[0])
            source, corner = e.gep(b, offset, self.of_columns), e.gep(to, e.imul(place, width), self.elem)
            last = e.bin("sub", length, e.const(I64, part))
            long = e.icmp("sge", last, 0)
            with e.loop(0, width, self.lanes, guard=False) as group:
                table, start = e.gep(columns, group.i, "i64"), e.gep(corner, group.i, self.elem)
                at = [e.gep(source, e.load(e.gep(table, c, "i64"), I64), self.of_columns) for c in range(self.lanes)]
                with e.loop(0, e.select(long, length, 0), part) as piece:
                    k = e.imin(piece.i, last)
                    self.piece([e.gep(x, k, self.of_columns) for x in at], e.gep(start, e.imul(k, width), self.elem))
            with e.loop(0, e.select(long, e.i64(0), length)) as step, e.loop(0, width) as column:
                at_column = e.load(e.gep(columns, column.i, "i64"), I64)
                found = self.column_element(e.gep(e.gep(source, at_column, self.of_columns), step.i, self.of_columns))
                e.store(found, e.gep(corner, e.iadd(e.imul(step.i, width), column.i), self.elem))
            run.next = [e.gep(run.carried[0], 3, "i64")]

    def piece(self, at: list[V], to: V) -> None:
        """`part` elements of each of `lanes` columns to `part` rows: pieces of every part-th column make a vector."""
        rows = [self.gathered(at[i :: self.part]) for i in range(self.part)]
        for i, row in enumerate(self.transposed(rows)):
            self.e.store(row, self.e.gep(to, i * self.s.width, self.elem))

    def dots(self) -> None:
        """One row times a panel read along k: as copy_rows, but each transposed row is used at once."""
        e = self.e
        names = [
            (PTR, "a"),
            (PTR, "pairs"),
            (PTR, "b"),
            (PTR, "columns"),
            (PTR, "runs"),
            (I64, "many"),
            (PTR, "tile"),
            (I64, "more"),
        ]
        with (
            e.function(f"{e.name}.dots", names, internal=True) as (a, pairs, b, columns, runs, many, tile, more),
            e.loop(0, self.s.width, 2 * self.lanes, guard=False) as group,
        ):
            table = e.gep(columns, group.i, "i64")
            offsets = [e.load(e.gep(table, c, "i64"), I64) for c in range(2 * self.lanes)]
            at = [e.gep(b, x, self.of_columns) for x in offsets]
            with e.loop(0, many, carry=[runs, *[e.const(self.vector, 0)] * 2]) as run:
                place, offset, length = self.triple(run.carried[0])
                steps = e.gep(pairs, e.imul(place, 2), "i64")
                whole = e.bin("and", length, -self.part)
                with e.loop(0, whole, self.part, carry=run.carried[1:]) as piece:
                    k = e.iadd(offset, piece.i)
                    pieces = [e.gep(x, k, self.of_columns) for x in at]
                    piece.next = self.dot_piece(a, e.gep(steps, e.imul(piece.i, 2), "i64"), pieces, piece.carried)
                with e.loop(whole, length, carry=piece.out) as one:
                    here = e.gep(b, e.iadd(offset, one.i), self.of_columns)
                    after = e.gep(steps, e.imul(one.i, 2), "i64")
                    one.next = self.dot_one(a, after, here, table, one.carried)
                run.next = [e.gep(run.carried[0], 3, "i64"), *one.out]
            self.finish(e.gep(tile, group.i, self.elem), run.out[1:], more)

    def dot_piece(self, a: V, steps: V, at: list[V], sums: Sequence[V]) -> list[V]:
        """`part` steps of k for two vectors of columns."""
        e = self.e
        left = [
            self.row_element(e.gep(a, e.load(e.gep(steps, 2 * k, "i64"), I64), self.of_rows)) for k in range(self.part)
        ]
        splats = [e.splat(x, self.lanes) for x in left]
        out = []
        for v, total in enumerate(sums):
            mine = at[v * self.lanes : (v + 1) * self.lanes]
            for x, row in zip(
                splats, self.transposed([self.gathered(mine[i :: self.part]) for i in range(self.part)]), strict=True
            ):
                total = self.multiply_add(x, row, total)
            out.append(total)
        return out

    def dot_one(self, a: V, steps: V, b: V, table: V, sums: Sequence[V]) -> list[V]:
        """One step of k, the elements of b gathered."""
        e, lanes = self.e, self.lanes
        left = e.splat(self.row_element(e.gep(a, e.load(steps, I64), self.of_rows)), lanes)
        at = [e.load(e.gep(table, v * lanes, "i64"), Ty("i64", lanes)) for v in range(len(sums))]
        narrow = self.vector.of(self.of_columns)
        rows = [self.columns(e.gather(e.gep(b, x, self.of_columns), None, narrow)) for x in at]
        return [self.multiply_add(left, row, total) for row, total in zip(rows, sums, strict=True)]

    def gathered(self, addresses: list[V]) -> V:
        """The pieces at these addresses side by side."""
        pieces = [self.e.load(a, Ty(self.of_columns, self.part)) for a in addresses]
        while len(pieces) > 1:
            size = 2 * pieces[0].ty.width
            pieces = [self.e.shuffle(x, y, range(size)) for x, y in zip(pieces[::2], pieces[1::2], strict=True)]
        return self.columns(pieces[0])

    def transposed(self, rows: list[V]) -> list[V]:
        """Element i of vector j to element j of vector i, within every group of `part` lanes (2 or 4)."""
        n, part = self.lanes, self.part
        half = part // 2
        if part == 4:  # pairs of elements first, then pairs of pairs
            groups = range(0, n, 4)
            low = [x for g in groups for x in (g, n + g, g + 1, n + g + 1)]
            high = [x for g in groups for x in (g + 2, n + g + 2, g + 3, n + g + 3)]
            pairs = [self.e.shuffle(rows[r], rows[r + 1], pick) for pick in (low, high) for r in (0, 2)]
            rows = [pairs[0], pairs[2], pairs[1], pairs[3]]
        first = [x for g in range(0, n, part) for x in (*range(g, g + half), *range(n + g, n + g + half))]
        second = [x + half for x in first]
        return [self.e.shuffle(rows[r], rows[r + half], pick) for r in range(half) for pick in (first, second)]

    def select(self, cond: V, a: V, b: V) -> V:
        return self.e.op(f"select i1 {cond.ref}, ptr {a.ref}, ptr {b.ref}", PTR)

    # -- the kernel ------------------------------------------------------------------------------------------------

    def param(self, k: int) -> V:
        return self.words.param(self.s.slots[k])

    def units(self, lo: V, hi: V, scratch: V) -> None:
        """Units lo … hi of the kernel."""
        e = self.e
        if self.s.dotted:
            self.dots()
        else:
            self.microkernel()
            (self.copy_rows if self.s.transposed else self.copy_columns if self.s.unit else self.copy_strided)()
        panels, chunks, chunk = (self.param(k) for k in (4, 5, 6))
        packed = e.gep(scratch, e.imul(chunk, self.s.width), self.elem)
        with e.loop(lo, hi) as unit:
            outer, number = self.divided(unit.i, chunks)
            batch, panel = self.divided(outer, panels)
            record = e.gep(self.words.table(0), e.imul(batch, 2 + self.s.counts[0]), "i64")
            first = e.bin("mul", number, chunk)
            last = e.i64(e.imin(e.iadd(first, chunk), self.param(0)))
            at = e.gep(self.words.table(4), e.imul(panel, PANEL_WORDS), "i64")
            self.products(record, panel, at, first, last, scratch, packed)
            self.epilogue(record, at, first, last, scratch)

    def divided(self, x: V, by: V) -> tuple[V, V]:
        """Quotient and remainder of numbers of units, which are below 2**31."""
        small = [self.e.convert("trunc", v, "i32") for v in (x, by)]
        quotient = self.e.convert("zext", self.e.bin("udiv", small[0], small[1]), "i64")
        return quotient, self.e.bin("sub", x, self.e.bin("mul", quotient, by))

    def products(self, record: V, panel: V, at: V, first: V, last: V, tile: V, packed: V) -> None:
        """The sums of one unit, into the tile."""
        e, s = self.e, self.s
        a = e.gep(self.words.operand(s.row_operand), e.load(record, I64), self.of_rows)
        b = e.gep(self.words.operand(s.column_operand), e.load(e.gep(record, 1, "i64"), I64), self.of_columns)
        length = self.param(2)
        with e.loop(0, self.param(3), guard=False) as segment:
            start = e.bin("mul", segment.i, length)
            pairs = e.gep(self.words.table(2), e.imul(start, 2), "i64")
            if s.dotted:
                row = e.gep(a, e.load(self.words.table(1), I64), self.of_rows)
                columns, runs, many = self.runs_along_k(panel, segment.i)
                self.call("dots", [row, pairs, b, columns, runs, many, tile, segment.i])
            else:
                count = e.i64(e.imin(e.isub(self.param(1), start), length))
                packed_pairs = e.gep(self.words.table(3), e.imul(start, 2), "i64")
                source, steps = self.panel(b, panel, at, segment.i, count, (pairs, packed_pairs), packed)
                self.sweep(a, steps, count, source, first, last, tile, segment.i)

    def panel(self, b: V, panel: V, at: V, segment: V, count: V, pairs: tuple[V, V], packed: V) -> tuple[V, V]:
        """Address of a panel's segment, in place or in scratch, and the offsets that go with it."""
        e = self.e
        parts = self.s.width // (self.vectors * self.lanes)
        in_place = e.icmp("sge", e.load(at, I64), 2 if parts > 1 else 1)
        direct = e.gep(b, e.load(e.gep(at, 1, "i64"), I64), self.of_columns)
        e.when(e.invert(in_place), lambda: self.copy(b, panel, at, segment, pairs[0], count, packed))
        return self.select(in_place, direct, packed), self.select(in_place, *pairs)

    def sweep(self, a: V, steps: V, count: V, source: V, first: V, last: V, tile: V, more: V) -> None:
        """The microkernel over the rows of a unit and the parts of a panel."""
        e, width = self.e, self.s.width
        with (
            e.loop(first, last, self.rows, guard=False) as row,
            e.loop(0, width, self.vectors * self.lanes, guard=False) as column,
        ):
            rows = e.gep(self.words.table(1), row.i, "i64")
            place = e.iadd(e.imul(e.isub(row.i, first), width), column.i)
            target, right = e.gep(tile, place, self.elem), e.gep(source, column.i, self.elem)
            self.call("micro", [a, rows, steps, count, right, target, more])

    def runs_along_k(self, panel: V, segment: V) -> tuple[V, V, V]:
        """Column offsets of a panel; the runs along k of a segment and their number."""
        e = self.e
        columns = e.gep(self.words.table(8), e.imul(panel, self.s.width), "i64")
        edge = e.gep(self.words.table(9), segment, "i64")
        low, high = e.load(edge, I64), e.load(e.gep(edge, 1, "i64"), I64)
        return columns, e.gep(self.words.table(10), e.imul(low, 3), "i64"), e.i64(e.isub(high, low))

    def copy(self, b: V, panel: V, at: V, segment: V, pairs: V, count: V, packed: V) -> None:
        """One panel and segment to scratch."""
        e = self.e
        if self.s.transposed:
            self.call("copy", [b, *self.runs_along_k(panel, segment), packed])
            return
        first, *many = (e.load(e.gep(at, k, "i64"), I64) for k in (4, 5, 6, 7))
        pieces = e.gep(self.words.table(5), e.imul(first, 3), "i64")
        self.call("copy", [b, pairs, count, pieces, *(many if self.s.unit else [many[2], self.param(7)]), packed])

    def epilogue(self, record: V, at: V, first: V, last: V, tile: V) -> None:
        """The stores, over runs of columns along which only the last column axis moves, then rows."""
        e, (batch, rows, columns) = self.e, self.s.counts
        lanes = min(self.lanes, kernel_width(e.target, all_nodes(store_roots(self.s.stores))))
        printer = Printer(e, self.words, batch + rows + columns - 1 if columns else None, lanes if columns else 1)
        axes = {k: e.load(e.gep(record, 2 + k, "i64"), I64) for k in range(batch)}
        low, high = e.load(e.gep(at, 2, "i64"), I64), e.load(e.gep(at, 3, "i64"), I64)
        with printer.scope(axes), e.loop(low, high, guard=False) as run:
            words = e.gep(self.words.table(6), e.imul(run.i, 2 + columns), "i64")
            column, length, *values = (e.load(e.gep(words, k, "i64"), I64) for k in range(2 + columns))
            known = {batch + rows + k: v for k, v in enumerate(values[:-1])}
            with printer.scope(known), e.loop(first, last, guard=False) as row:
                line = e.gep(tile, e.iadd(e.imul(e.isub(row.i, first), self.s.width), column), self.elem)
                with printer.scope(self.row_axes(row.i)):
                    printer.hoist_stores(self.s.stores)
                    self.line(printer, line, length, values[-1] if values else 0)

    def row_axes(self, row: V) -> dict[int, V]:
        batch, rows, _ = self.s.counts
        if rows <= 1:
            return {batch: row} if rows else {}
        words = self.e.gep(self.words.table(7), self.e.imul(row, rows), "i64")
        return {batch + k: self.e.load(self.e.gep(words, k, "i64"), I64) for k in range(rows)}

    def line(self, printer: Printer, tile: V, length: V, start: Int) -> None:
        """The stores of one row and run."""
        e, width = self.e, printer.width
        whole: Int = 0
        if width > 1 and e.target.vector_bits < 512:  # masked stores are slow there: full vectors without a mask first
            whole = e.bin("and", length, -width)
            with e.loop(0, whole, width) as i:
                self.stores(printer, e.gep(tile, i.i, self.elem), e.iadd(start, i.i), None)
        with e.loop(whole, length, width, guard=whole != 0) as i:
            mask = e.tail_mask(e.isub(length, i.i), width) if width > 1 else None
            self.stores(printer, e.gep(tile, i.i, self.elem), e.iadd(start, i.i), mask)

    def stores(self, printer: Printer, tile: V, at: Int, mask: V | None) -> None:
        with printer.block(at, mask, self.e.load(tile, Ty(self.elem, printer.width))):
            printer.stores(self.s.stores)
