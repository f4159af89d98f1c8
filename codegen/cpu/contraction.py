"""The CPU plan of a Contract kernel: which side is vectorised, how operands are reached, and the tables that say so.

One side of the product gives rows (an element of it is broadcast), the other gives columns (the lanes of a vector).
All addresses are sums of table entries, worked out here from the affine axes, so that one piece of code serves matrix
products, convolutions and their gradients. Columns are done in panels. A panel whose columns follow one another in
memory is read in place; any other is copied to scratch first, one segment of k at a time. What is chosen here never
changes a bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.codegen.canonical import Abstraction, StoreNode, index_forms, merge_axes
from graphc.codegen.cpu.contraction_code import PIECE_BYTES, Structure, kernel
from graphc.codegen.cpu.kernel import CpuKernel
from graphc.ir.expr import Expr
from graphc.ir.kernel import Contract, Strided
from graphc.ir.numerics import segment_length

Table = np.ndarray[Any, np.dtype[np.int64]]
_PAGE = 4096
_PAD_ROWS = 24  # more than the rows of any microkernel
_GRAIN = 4_000_000  # floating-point operations worth a thread's chunk
_SPILL = 16  # elements that copying may write, and stores may read, past the end


def _offsets(sizes: tuple[int, ...], strides: tuple[int, ...]) -> Table:
    """Σ index * stride at every point of a row-major space, flat."""
    out = np.zeros(1, np.int64)
    for size, stride in zip(sizes, strides, strict=True):
        out = (out[:, None] + np.arange(size, dtype=np.int64) * stride).reshape(-1)
    return out


def _join(*parts: Any) -> Table:
    """Tables and numbers, one after another."""
    return np.concatenate([p if isinstance(p, np.ndarray) else np.array(p, np.int64, ndmin=1) for p in parts])


def _distinct(*parts: Table) -> Table:
    """The different numbers of some tables, ascending. (np.unique would import all of numpy.ma: 30 ms.)"""
    numbers = np.sort(np.concatenate(parts))
    first = np.ones(len(numbers), np.bool_)
    np.not_equal(numbers[1:], numbers[:-1], out=first[1:])
    return numbers[first]


def _step(offsets: Table) -> int:
    """The most frequent difference of neighbours; of equals the smallest."""
    differences = np.diff(offsets)
    if not len(differences):
        return 1
    steps = _distinct(differences)
    counts = np.bincount(np.searchsorted(steps, differences))
    return int(steps[np.argmax(counts)])


def _starts(offsets: Table, step: int = 1) -> Table:
    """Positions where a run of offsets that grow by `step` begins."""
    return _join([0], np.flatnonzero(np.diff(offsets) != step) + 1)[: len(offsets)]


@dataclass(frozen=True, slots=True)
class _Roles:
    """A Contract seen as rows times columns."""

    rows: Strided
    columns: Strided
    row_axes: tuple[int, ...]  # numbers of kernel axes
    column_axes: tuple[int, ...]
    row_at: Table
    column_at: Table
    k_row: Table
    k_column: Table

    @property
    def extents(self) -> tuple[int, int, int]:
        """Rows, columns, k."""
        return len(self.row_at), len(self.column_at), len(self.k_row)


def _roles(c: Contract, swap: bool) -> _Roles:
    nb, nm, nn = len(c.batch), len(c.m), len(c.n)
    m_axes, n_axes = tuple(range(nb, nb + nm)), tuple(range(nb + nm, nb + nm + nn))
    a, b = (c.b, c.a) if swap else (c.a, c.b)
    m, n = (c.n, c.m) if swap else (c.m, c.n)
    rows, columns = (n_axes, m_axes) if swap else (m_axes, n_axes)
    at = _offsets(m, a.outer), _offsets(n, b.outer), _offsets(c.k, a.k), _offsets(c.k, b.k)
    return _Roles(a, b, rows, columns, *at)


def _copy_costs(r: _Roles) -> tuple[float, float]:
    """Rough cycles (16 lanes) of copying every panel once, along the columns and along k."""
    _, n, k = r.extents
    step = _step(r.column_at)
    lengths = np.diff(_join(_starts(r.column_at, step), n))
    along = _piece_costs(lengths) if step == 1 else 5.0 * len(lengths) + 1.5 * n
    runs = np.diff(_join(_starts(r.k_column), k))
    long = runs[runs >= 4]
    return along * k, n * (0.3 * int(long.sum()) + 1.5 * int(k - long.sum()))


def _piece_costs(lengths: Table) -> float:
    """Rough cycles of one row of every panel, in pieces: those under a mask take twice as long, and panels cut runs."""
    halves = lengths // 8 % 2
    others = int(np.count_nonzero(lengths % 8))
    cuts = int(lengths.sum()) / 32 if others else 0.0
    return 1.8 * float((lengths // 16).sum() + halves.sum()) + 1.7 * others + 3.5 * cuts


def _cost(c: Contract, r: _Roles) -> float:
    """Rough cycles with 16 lanes: to choose which side gives the lanes."""
    m, n, k = r.extents
    columns = -(-n // 32) * 2 if n > 16 else 1
    work = (m if m == 1 else -(-m // 8) * 8) * columns * k
    copies = 0.0 if len(_starts(r.column_at)) <= 1 else min(_copy_costs(r)) * -(-m // 256)
    last = r.column_axes[-1] if r.column_axes else -1
    unit = all(_coefficient(s.flat, last) == 1 for s in c.stores) or n == 1
    return work + copies + (m * columns * 4 if unit else m * n * 2.5)


def _coefficient(flat: Expr, axis: int) -> int:
    return sum(form.get(axis, 0) for form in index_forms([flat])[:1])


def _choose(c: Contract) -> _Roles:
    straight, swapped = _roles(c, False), _roles(c, True)
    gain = 1.0 if 1 in (straight.extents[0], straight.extents[1]) else 0.85  # else the usual roles: more code is shared
    return swapped if _cost(c, swapped) < gain * _cost(c, straight) else straight


def _shape(r: _Roles, transposed: bool) -> tuple[int, int]:
    """(row class, panel width): how many rows the microkernel holds at most, and columns of a panel."""
    m, n, _ = r.extents
    if m == 1:
        return 1, 16 if n <= 16 and transposed else 64 if transposed or n <= 128 else 256
    if n <= 16:
        return 8, 16
    if m <= 4 and n > 32:
        return 4, 64
    return (6, 64) if n > 32 and -(-m // 6) * 6.5 < -(-m // 8) * 8 else (8, 32)


@dataclass(frozen=True, slots=True)
class _Epilogue:
    """The stores in canonical form, and the values of their axes."""

    abstraction: Abstraction
    stores: tuple[StoreNode, ...]
    batch: tuple[Table, ...]  # one array a merged axis: its value for every batch / row / column
    rows: tuple[Table, ...]
    columns: tuple[Table, ...]


def _epilogue(c: Contract, r: _Roles) -> _Epilogue:
    sizes = (*c.batch, *c.m, *c.n)
    roots = [e for s in c.stores for e in (s.flat, s.value, s.where) if e is not None]
    forms = index_forms(roots)
    mapped: list[int | None] = [None] * len(sizes)
    values: list[tuple[Table, ...]] = []
    count = 0
    for axes in (tuple(range(len(c.batch))), r.row_axes, r.column_axes):
        groups = merge_axes(axes, sizes, forms)
        for group in groups:
            mapped[group[-1]] = count
            count += 1
        values.append(_group_values(axes, groups, sizes))
    abstraction = Abstraction(mapped, sizes)
    stores = tuple(abstraction.store(s.operand, c.operands[s.operand], s.flat, s.value, s.where) for s in c.stores)
    return _Epilogue(abstraction, stores, *values)


def _group_values(axes: tuple[int, ...], groups: list[list[int]], sizes: tuple[int, ...]) -> tuple[Table, ...]:
    """The value of each merged axis at every point of the row-major space of `axes`."""
    found = []
    for group in groups:
        strides, step = dict.fromkeys(axes, 0), 1
        for axis in reversed(group):
            strides[axis] = step
            step *= sizes[axis]
        found.append(_offsets(tuple(sizes[a] for a in axes), tuple(strides[a] for a in axes)))
    return tuple(found)


def lower(c: Contract) -> CpuKernel:
    """Plan a Contract."""
    r = _choose(c)
    m, n, k = r.extents
    batch = math.prod(c.batch)
    along, across = _copy_costs(r) if m and n and k else (0.0, 0.0)
    transposed = len(_starts(r.column_at)) > 1 and across < along
    rows_held, width = _shape(r, transposed)
    epilogue = _epilogue(c, r)
    counts = len(epilogue.batch), len(epilogue.rows), len(epilogue.columns)
    length = min(segment_length(k), max(k, 1))
    panels = -(-n // width)
    chunks, chunk = _chunks(m, panels * batch)
    tables = _tables(c, r, epilogue, width, length, transposed)
    numbers = (m, k, length, -(-k // length) if k else 1, panels, chunks, chunk, _step(r.column_at))
    slots = tuple(epilogue.abstraction.param(x).k for x in numbers)
    structure = Structure(
        c.dtype,
        c.operands[r.rows.operand],
        c.operands[r.columns.operand],
        len(c.operands),
        r.rows.operand,
        r.columns.operand,
        rows_held,
        width,
        transposed,
        _step(r.column_at) == 1,
        counts,
        slots,
        epilogue.stores,
    )
    key = epilogue.abstraction.key(structure.head())
    params = epilogue.abstraction.params
    item = c.dtype.itemsize
    return CpuKernel(
        key=key,
        emit=kernel(key, structure, len(params), len(tables)),
        params=params,
        tables=tables,
        units=batch * panels * chunks if m and n else 0,
        grain=max(1, _GRAIN // max(1, 2 * chunk * width * max(k, 16))),
        scratch=((chunk + (0 if structure.dotted else length)) * width + _SPILL) * item,
    )


def _chunks(m: int, others: int) -> tuple[int, int]:
    """How many runs of rows, and rows of each: enough work items for threads, few enough to repeat little packing."""
    wanted = max(-(-m // 256), min(-(-16 // max(others, 1)), m // 48))
    wanted -= wanted % 2 if others == 1 and 1 < wanted < 8 else 0  # an odd one would keep two threads waiting
    chunk = -(-max(m, 1) // max(wanted, 1))
    chunk = chunk if m <= 1 else -(-chunk // _PAD_ROWS) * _PAD_ROWS  # a microkernel may write rows past the last
    return -(-m // chunk), chunk


def _tables(
    c: Contract, r: _Roles, epilogue: _Epilogue, width: int, length: int, transposed: bool
) -> tuple[Table, ...]:
    m, n, k = r.extents
    position = np.arange(k, dtype=np.int64) % length * width
    batch = _columns(
        _offsets(c.batch, r.rows.batch) + r.rows.offset,
        _offsets(c.batch, r.columns.batch) + r.columns.offset,
        *epilogue.batch,
    )
    read = c.operands[r.columns.operand] is c.dtype  # what has to be converted is never read in place
    panels, copies, stores = _panels(r, epilogue.columns, width, m if read else None, PIECE_BYTES // c.dtype.itemsize)
    last = r.row_at[-1:] if m else np.zeros(1, np.int64)
    tables = [
        batch,
        _join(r.row_at, np.repeat(last, _PAD_ROWS)),
        _columns(r.k_row, r.k_column),
        _columns(r.k_row, position),
        panels,
        copies,
        stores,
        _columns(*epilogue.rows) if len(epilogue.rows) > 1 else np.zeros(1, np.int64),
    ]
    if transposed:
        tail = -(-n // width) * width - n
        tables += [_join(r.column_at, np.repeat(r.column_at[-1:], tail)), *_k_runs(r.k_column, length)]
    return tuple(np.ascontiguousarray(t.reshape(-1), np.int64) for t in tables)


def _columns(*parts: Table) -> Table:
    return np.stack(parts, axis=1) if parts else np.zeros(1, np.int64)


def _panels(
    r: _Roles, values: tuple[Table, ...], width: int, rows: int | None, whole: int
) -> tuple[Table, Table, Table]:
    """Panel records (see PANEL_WORDS); pieces to copy (column in the panel, offset, length), at most `whole` long where
    columns are neighbours; runs of the stores (column in the panel, length, axis values at its start).
    """
    n = len(r.column_at)
    edges = np.arange(0, n, width)
    step = _step(r.column_at)
    starts = _distinct(_starts(r.column_at, step), edges)
    breaks = [edges]
    if values:
        breaks.append(np.flatnonzero(np.diff(values[-1]) != 1) + 1)
        breaks.extend(np.flatnonzero(np.diff(v) != 0) + 1 for v in values[:-1])
    store_starts = _distinct(*breaks)
    store_lengths = np.diff(_join(store_starts, n))
    ends = np.minimum(edges + width, n)
    bounds = [np.searchsorted(store_starts, e) for e in (edges, ends)]
    runs = np.searchsorted(starts, ends) - np.searchsorted(starts, edges)
    direct = ((runs == 1) & (ends - edges == width) & (step == 1)) * (0 if rows is None else _in_place(r, rows))
    at, lengths, firsts, counts = _pieces(starts, n, width, whole if step == 1 else 0)
    panels = _columns(direct, r.column_at[edges], *bounds, firsts, *counts)
    copies = _columns(at % width, r.column_at[at], lengths)
    return panels, copies, _columns(store_starts % width, store_lengths, *(v[store_starts] for v in values))


def _pieces(starts: Table, n: int, width: int, whole: int) -> tuple[Table, Table, Table, list[Table]]:
    """Runs of columns as pieces of at most `whole` (0: uncut), those of a panel by kind: whole ones, halves, others;
    of each kind an even number, the last one twice if need be. Start and length of each; first piece of each panel, and
    its number of pieces of each kind.
    """
    lengths = np.diff(_join(starts, n))
    if whole:
        many = -(-lengths // whole)
        within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        starts, lengths = np.repeat(starts, many) + whole * within, np.repeat(lengths, many) - whole * within
        lengths = np.minimum(lengths, whole)
    kind = np.where(lengths == whole, 0, np.where(2 * lengths == whole, 1, 2))
    group = starts // width * 3 + kind
    order = np.argsort(group, kind="stable")
    starts, lengths, group = starts[order], lengths[order], group[order]
    counts = np.bincount(group, minlength=-(-n // width) * 3)
    if whole:
        last = np.append(np.diff(group) != 0, True)
        twice = 1 + (last & (counts[group] % 2 == 1))
        starts, lengths, counts = np.repeat(starts, twice), np.repeat(lengths, twice), counts + counts % 2
    table = counts.reshape(-1, 3)
    firsts = np.cumsum(table.sum(axis=1)) - table.sum(axis=1)
    return starts, lengths, firsts, [table[:, k] for k in range(3)]


def _in_place(r: _Roles, rows: int) -> int:
    """When to read a panel in place: 2 = always, 1 = unless it is read again for each of its parts, 0 = never.

    Rows a multiple of a page apart fight for the same cache sets, and rows far apart take a cache line for each part.
    """
    if rows <= 64:
        return 2 if rows <= 32 else 1
    steps = _distinct(np.diff(r.k_column))
    return 0 if len(steps) == 1 and steps[0] * 4 % _PAGE == 0 else 1


def _k_runs(k_column: Table, length: int) -> tuple[Table, Table]:
    """First run of every segment (and the end); runs along k: (position in the segment, offset, length)."""
    k = len(k_column)
    edges = np.arange(0, k, length)
    starts = _distinct(_starts(k_column), edges)
    first = _join(np.searchsorted(starts, edges), len(starts)).astype(np.int64)
    return first, _columns(starts % length, k_column[starts], np.diff(_join(starts, k)))
