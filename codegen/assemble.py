"""Assembly: from a fused graph to a Program: lower, place the outputs, order, plan memory, write the records."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.lower import Memory, lower_groups
from graphc.codegen.outputs import Placed, place_outputs
from graphc.config import config
from graphc.errors import InternalError
from graphc.ir.dag import few_in_order
from graphc.ir.graph import Graph
from graphc.ir.passes.fuse import fuse
from graphc.ir.passes.order import data_arcs, order
from graphc.ir.passes.plan import check_plan, plan
from graphc.ir.steps import Call, Storage, copied
from graphc.ir.types import Layout
from graphc.runtime.program import BufferRef, KernelCall, OutputSpec, Program


def assemble(
    graph: Graph, layouts: Sequence[Layout] | None = None, fused: bool = True, ordered: bool = True
) -> Program:
    """The program of a graph of primitives with concrete sizes, for inputs in `layouts` (contiguous when None).

    With `fused` false every value is stored and no memory is shared; with `ordered` false steps run in the order of
    the groups, whatever memory that takes, but where a state is written in place. Raises InternalError for a graph that
    is not primitive or layouts that do not fit it.
    """
    layouts = [Layout(i.value.type) for i in graph.inputs] if layouts is None else list(layouts)
    if [layout.type for layout in layouts] != [i.value.type for i in graph.inputs]:
        raise InternalError(f"{graph.name}: layouts {layouts} are not those of the inputs")
    strided = [i.value for i, layout in zip(graph.inputs, layouts, strict=True) if not layout.contiguous]
    fusion = fuse(graph, strided, fused)
    memory = Memory(fusion, layouts)
    steps = lower_groups(fusion, memory)
    placed = place_outputs(memory, steps)
    if ordered:
        steps = order(steps, placed.arcs)
    elif any(a > b for a, b in placed.arcs):  # a state must be read before it is overwritten
        arcs = dict.fromkeys((*data_arcs(steps), *placed.arcs))
        steps = [steps[k] for k in few_in_order(len(steps), arcs)]
    calls = [*(call for step in steps for call in step.calls), *placed.last]
    arena = plan(calls, reuse=fused)
    if config.verify:
        fusion.check()
        check_plan(calls, arena)
    return _program(graph, memory, placed, [c for c in calls if not _idle(c, placed)], arena)


def _program(graph: Graph, memory: Memory, placed: Placed, calls: Sequence[Call], arena: int) -> Program:
    outputs = tuple(
        OutputSpec(layout, donated, o.kind, o.name)
        for o, layout, donated in zip(graph.outputs, placed.layouts, placed.donated, strict=True)
    )
    constants = tuple(v.node.attrs["value"] for v in memory.constants if v.node is not None)
    records = tuple(KernelCall(c.kernel, tuple(_ref(s) for s in c.operands), c.label, c.locs) for c in calls)
    return Program(graph.name, memory.layouts, outputs, records, constants, arena)


def _idle(call: Call, placed: Placed) -> bool:
    """Whether the call copies a piece of memory onto itself."""
    pair = copied(call)
    if pair is None:
        return False
    source, target = pair
    if source.kind == "arena":
        return target.kind == "arena" and source.offset == target.offset
    return source.kind == "input" and target.kind == "output" and placed.donated[target.index] == source.index


def _ref(storage: Storage) -> BufferRef:
    if storage.kind == "arena":
        return BufferRef("arena", 0, storage.offset)
    return BufferRef(storage.kind, storage.index)
