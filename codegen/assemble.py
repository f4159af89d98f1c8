"""Assembly: from a fused graph to a Program: lower, place the outputs, order, plan memory, write the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from graphc.ir.types import Layout, TensorType, uint8
from graphc.runtime.program import BufferRef, KernelCall, OutputSpec, Program


@dataclass(slots=True)
class Arranged:
    """Calls in order on memory that has its place: what a program is written from. Some copy memory onto itself."""

    graph: Graph
    memory: Memory
    placed: Placed
    calls: list[Call]
    arena: int

    def pieces(self) -> list[Storage]:
        """The pieces of arena memory, in the order they are used."""
        used = dict.fromkeys(s for call in self.calls for s in call.operands)
        return [s for s in used if s.kind == "arena"]


def assemble(
    graph: Graph, layouts: Sequence[Layout] | None = None, fused: bool = True, ordered: bool = True
) -> Program:
    """The program of a graph of primitives with concrete sizes, for inputs in `layouts` (contiguous when None).

    With `fused` false every value is stored and no memory is shared; with `ordered` false steps run in the order of
    the groups, whatever memory that takes, but where a state is written in place. Raises InternalError for a graph that
    is not primitive or layouts that do not fit it.
    """
    return write_program(arrange(graph, layouts, fused, ordered))


def arrange(
    graph: Graph,
    layouts: Sequence[Layout] | None = None,
    fused: bool = True,
    ordered: bool = True,
    shared: bool | None = None,
) -> Arranged:
    """What `assemble` makes a program of, with the same arguments and errors. `shared`: whether values that are not
    needed at the same time share memory; where it is None they do if `fused`.
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
    arena = plan(calls, reuse=fused if shared is None else shared)
    if config.verify:
        fusion.check()
        check_plan(calls, arena)
    return Arranged(graph, memory, placed, calls, arena)


def write_program(arranged: Arranged, apart: bool = False) -> Program:
    """The program. `apart`: it has no arena and no constants; inputs behind those of the graph take the constants, and
    outputs behind those of the graph, byte arrays, are the pieces of the arena (`Arranged.pieces`), each by itself.
    """
    graph, memory, placed = arranged.graph, arranged.memory, arranged.placed
    calls = [c for c in arranged.calls if not _idle(c, placed, apart)]
    outputs = tuple(
        OutputSpec(layout, donated, o.kind, o.name)
        for o, layout, donated in zip(graph.outputs, placed.layouts, placed.donated, strict=True)
    )
    constants = tuple(v.node.attrs["value"] for v in memory.constants if v.node is not None)
    refs = _Apart(arranged) if apart else _ref
    records = tuple(KernelCall(c.kernel, tuple(map(refs, c.operands)), c.label, c.locs) for c in calls)
    if not apart:
        return Program(graph.name, memory.layouts, outputs, records, constants, arranged.arena)
    inputs = (*memory.layouts, *map(Layout.of, constants))
    pieces = [TensorType(uint8, (s.nbytes,)) for s in arranged.pieces()]
    scratch = (OutputSpec(Layout(t), None, "arena", f"piece {k}") for k, t in enumerate(pieces))
    return Program(graph.name, inputs, (*outputs, *scratch), records, (), 0)


def _idle(call: Call, placed: Placed, apart: bool) -> bool:
    """Whether the call copies a piece of memory onto itself."""
    pair = copied(call)
    if pair is None:
        return False
    source, target = pair
    if source.kind == "arena":
        return target.kind == "arena" and source.offset == target.offset and not apart
    return source.kind == "input" and target.kind == "output" and placed.donated[target.index] == source.index


def _ref(storage: Storage) -> BufferRef:
    if storage.kind == "arena":
        return BufferRef("arena", 0, storage.offset)
    return BufferRef(storage.kind, storage.index)


class _Apart:
    """References to memory of which every piece is an array of its own."""

    def __init__(self, arranged: Arranged) -> None:
        self.inputs, self.outputs = len(arranged.memory.layouts), len(arranged.graph.outputs)
        self.number = {s: k for k, s in enumerate(arranged.pieces())}

    def __call__(self, storage: Storage) -> BufferRef:
        if storage.kind == "arena":
            return BufferRef("output", self.outputs + self.number[storage])
        if storage.kind == "const":
            return BufferRef("input", self.inputs + storage.index)
        return BufferRef(storage.kind, storage.index)
