"""The template of Rows kernels: which axis runs in vectors, and the numbers of the kernel. The code is in
rows_code.py and columns_code.py.

Three forms, chosen by the steps of the loads and never seen in a result:
"rows": the run in vectors, a unit is one point of the space;
"columns": a space axis in vectors, the run outside it, partial sums of a strip of columns in scratch;
"window": as columns, for a short run, written out with everything in registers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.codegen.canonical import (
    DENSE,
    Abstraction,
    Node,
    StoreNode,
    all_nodes,
    index_forms,
    merge_axes,
    store_roots,
)
from graphc.codegen.cpu.columns_code import ColumnsWriter, WindowWriter
from graphc.codegen.cpu.kernel import CpuKernel, kernel_text
from graphc.codegen.cpu.pointwise import GRAIN_NS
from graphc.codegen.cpu.reductions import is_ordered
from graphc.codegen.cpu.rows_code import (
    KEEP_AT,
    KEEP_BYTES,
    KEEP_RUN,
    SLOT,
    FoldStage,
    RowsPlan,
    RowsWriter,
    Stage,
    WriteStage,
    stage_roots,
)
from graphc.codegen.emit import Emitter, ParamBlock, V
from graphc.codegen.target import Target
from graphc.ir.expr import Expr, linear_terms, walk
from graphc.ir.kernel import MapStage, Rows, Store
from graphc.ir.numerics import BLOCK, PARTIALS
from graphc.ir.types import bool_

STRIP = 512  # columns of one unit
WINDOW = 9  # the longest run that is written out
_WINDOW_NODES = 160  # and the most nodes it may become
_SHORT = 16  # a run that does not fill vectors
_SCRATCH = 1 << 20  # bytes of block results a strip should keep within
_DEAR = frozenset(
    ("exp", "log", "tanh", "sigmoid", "erf", "sin", "cos", "pow", "frem", "fmod", "philox", "idiv", "irem")
)


def lower(kernel: Rows) -> CpuKernel:
    """Code and numbers of a Rows kernel."""
    column = _column_axis(kernel)
    order = [a for a in range(len(kernel.space)) if a != column] + ([] if column is None else [column])
    groups = merge_axes(order, kernel.space, index_forms(_roots(kernel)))
    extents = [math.prod(kernel.space[a] for a in g) for g in groups]
    axes: list[int | None] = [None] * len(kernel.space)
    for k, group in enumerate(groups):
        axes[group[-1]] = k
    vector = len(groups) - (column is not None)
    made = Abstraction([*axes, len(groups)], [*kernel.space, kernel.run], vector)
    stages = _stages(made, kernel)
    stores = _stores(made, kernel, kernel.stores)
    form = "rows" if column is None else _strip_form(kernel, len(all_nodes(stage_roots(stages))))
    strip = 0 if column is None else _strip_size(kernel, extents[-1])
    plan = _plan(made, kernel, form, [*extents, kernel.run], strip, stages, stores)
    units = _units(kernel, extents, strip)
    grain = max(1, round(GRAIN_NS / _unit_cost(kernel, plan, units)))
    return CpuKernel(
        plan.key, lambda target: _emit(plan, target), made.params, (), units, grain, _scratch(kernel, plan, strip)
    )


def _plan(
    made: Abstraction,
    kernel: Rows,
    form: str,
    numbers: Sequence[int],
    strip: int,
    stages: tuple[Stage, ...],
    stores: tuple[StoreNode, ...],
) -> RowsPlan:
    """Adds the sizes to the params."""
    first = len(made.params)
    for n in (*numbers, *((-(-numbers[-2] // strip),) if strip else ())):
        made.param(n)
    blocked = kernel.run > BLOCK and any(isinstance(s, FoldStage) and is_ordered(s.kind, s.dtype) for s in stages)
    length = kernel.run if form == "window" or kernel.run == 0 else -1
    expensive = any(n.op in _DEAR for n in all_nodes([*stage_roots(stages), *store_roots(stores)]))
    operands, rank = len(kernel.operands), len(numbers) - 1
    shape = "; ".join(
        f"{s.kind} %{s.value.number}" if isinstance(s, FoldStage) else f"map {len(s.stores)}" for s in stages
    )
    kept = _kept(stages, rank) if form == "rows" and 0 < kernel.run <= KEEP_RUN else ()
    head = (
        f"rows {form} {operands} operands {rank} axes, blocked {blocked}, length {length}, strip {strip}, "
        f"dear {expensive}, kept {[n.number for n in kept]}: {shape}"
    )
    return RowsPlan(
        made.key(head), form, operands, len(made.params), first, rank, stages, stores, blocked, length, strip,
        expensive, kept,
    )  # fmt: skip


def _kept(stages: Sequence[Stage], run: int) -> tuple[Node, ...]:
    """Dear values along the run that a later stage uses again: the topmost nodes it shares with earlier ones."""
    found: list[Node] = []
    before: set[Node] = set()
    for stage in stages:
        stack, seen = stage_roots([stage]), set[Node]()
        while stack:
            n = stack.pop()
            if n in seen or run not in n.depends:
                continue
            seen.add(n)
            if n not in before or n.op == "affine":
                stack.extend(n.args)
            elif n not in found and n.dtype is not bool_ and any(x.op in _DEAR for x in all_nodes([n])):
                found.append(n)
        before |= set(all_nodes(stage_roots([stage])))
    return tuple(found)


def _emit(plan: RowsPlan, target: Target) -> str:
    writer = {"rows": RowsWriter, "columns": ColumnsWriter, "window": WindowWriter}[plan.form]

    def body(e: Emitter, block: V, lo: V, hi: V, scratch: V) -> None:
        writer(plan, target, e, ParamBlock(e, block, plan.operands, plan.params), scratch).units(lo, hi)

    return kernel_text(plan.key, target, body)


def _roots(kernel: Rows) -> list[Expr]:
    roots = _store_exprs(kernel.stores)
    for s in kernel.stages:
        roots += _store_exprs(s.stores) if isinstance(s, MapStage) else [s.value]
    return roots


def _store_exprs(stores: Sequence[Store]) -> list[Expr]:
    return [x for s in stores for x in (s.flat, s.value, s.where) if x is not None]


def _stages(made: Abstraction, kernel: Rows) -> tuple[Stage, ...]:
    found: list[Stage] = []
    folds = 0
    for s in kernel.stages:
        if isinstance(s, MapStage):
            found.append(WriteStage(_stores(made, kernel, s.stores)))
            continue
        found.append(FoldStage(folds, s.kind, s.value.dtype, made.node(s.value)))
        folds += 1
    return tuple(found)


def _stores(made: Abstraction, kernel: Rows, stores: Sequence[Store]) -> tuple[StoreNode, ...]:
    return tuple(made.store(s.operand, kernel.operands[s.operand], s.flat, s.value, s.where) for s in stores)


# ---- the choice of form


def _column_axis(kernel: Rows) -> int | None:
    """The space axis to run in vectors, None for the run itself."""
    flats = _accesses(kernel)
    candidates = [a for a, n in enumerate(kernel.space) if n > 1 and (n >= 8 or n >= kernel.run)]
    if not candidates:
        return None
    score, size, axis = max((_score(flats, a), kernel.space[a], a) for a in candidates)
    along = _score(flats, len(kernel.space))
    short = kernel.run < _SHORT and size >= _SHORT and score >= along
    return axis if score > along or short or kernel.run == 1 else None


def _accesses(kernel: Rows) -> list[Expr]:
    """Addresses the stages touch over space and run."""
    roots: list[Expr] = []
    flats: list[Expr] = []
    for s in kernel.stages:
        roots += _store_exprs(s.stores) if isinstance(s, MapStage) else [s.value]
        flats += [t.flat for t in s.stores] if isinstance(s, MapStage) else []
    return flats + [e.args[0] for e in walk(*roots) if e.op == "load"]


def _score(flats: Sequence[Expr], axis: int) -> int:
    """Addresses that step by 1 along `axis`, less those that jump; small steps are in between."""
    total = 0
    for flat in flats:
        _, terms = linear_terms(flat)
        step = sum(k for atom, k in terms.items() if atom.op == "index" and atom.value == axis)
        bent = any(e.op == "index" and e.value == axis for atom in terms if atom.op != "index" for e in walk(atom))
        if bent or step:
            total += -1 if bent or step not in (1, *DENSE) else int(step == 1)
    return total


def _strip_form(kernel: Rows, nodes: int) -> str:
    short = kernel.run <= WINDOW and kernel.run * nodes <= _WINDOW_NODES
    return "window" if short else "columns"


def _strip_size(kernel: Rows, columns: int) -> int:
    """Columns of one unit: 64, 128, … STRIP; fewer when very long runs leave many block results."""
    blocks = kernel.run // BLOCK + 1
    size = 64
    while size < min(columns, STRIP) and 2 * size * SLOT * blocks <= _SCRATCH:
        size *= 2
    return size


# ---- numbers


def _units(kernel: Rows, extents: Sequence[int], strip: int) -> int:
    if 0 in kernel.space:
        return 0
    return math.prod(extents[:-1]) * -(-extents[-1] // strip) if strip else math.prod(extents)


def _scratch(kernel: Rows, plan: RowsPlan, strip: int) -> int:
    """Bytes: block results of a row, or partials, results and block results of a strip."""
    blocks = -(-kernel.run // BLOCK) if plan.blocked else 0
    if not strip:
        return KEEP_AT + KEEP_BYTES * len(plan.kept) if plan.kept else SLOT * (blocks + 8)
    folds = sum(isinstance(s, FoldStage) for s in plan.stages)
    return SLOT * strip * (PARTIALS + folds + blocks) if plan.form == "columns" else 0


def _unit_cost(kernel: Rows, plan: RowsPlan, units: int) -> float:
    """Nanoseconds of one unit, roughly."""
    per_vector = 1.0
    for n in all_nodes(stage_roots(plan.stages)):
        if n.op == "load":
            per_vector += 0.8 if n.args[0].op == "affine" and not n.args[0].args else 6.0
        elif n.op not in ("const", "affine"):
            per_vector += 3.0 if n.op in _DEAR else 0.15
    return max(1.0, math.prod(kernel.space) * max(kernel.run, 1) / max(1, units) * per_vector / 16)
