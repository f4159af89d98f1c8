"""Running a trace whose sizes depend on values: the counts first, then the graph for these numbers.

The graph is cut: what the counts need comes first (in as many stages as counts follow from one another), the rest is
bound to the numbers found. Kernels take sizes at run time, so equal structure shares code: another number costs the
passes and lowering. Bound graphs are kept, the least recently used go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from graphc import compiler
from graphc.errors import GraphcError
from graphc.frontend.record.counted import LEAST, Counted, names_in
from graphc.frontend.record.tape import NodePlan, SavedPlan
from graphc.frontend.record.trace import Leaf, Trace
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Array
from graphc.ir.passes.bind import bind_attrs
from graphc.ir.types import Layout, symbols_of

MAX_BOUND = 64  # graphs kept for different numbers


@dataclass(slots=True, eq=False)
class Stage:
    """Nodes that run together. `inputs`: values of the whole graph it reads; `outputs`: those it gives."""

    number: int
    nodes: list[Node]
    inputs: list[Value]
    outputs: list[Value]

    def graph(self, whole: Graph, sizes: Mapping[str, int]) -> tuple[Graph, dict[Value, Value]]:
        """The graph for these numbers, and the map from the values of the whole graph."""
        out = Graph(f"{whole.name} {self.number}")
        mapping: dict[Value, Value] = {}
        kinds = {i.value: (i.kind, i.name) for i in whole.inputs}
        for k, value in enumerate(self.inputs):
            kind, name = kinds.get(value, ("input", f"from {k}"))
            mapping[value] = out.add_input(value.type.bind(sizes), name, kind)
        for node in self.nodes:
            with out.like(node):
                made = out.add(node.op, [mapping[v] for v in node.inputs], bind_attrs(node.attrs, sizes))
            mapping.update(zip(node.outputs, made, strict=True))
        return out, mapping


class Sized:
    """The stages of a trace, and the traces for numbers met so far."""

    def __init__(self, trace: Trace, finish: Callable[[Trace, Sequence[Layout]], None]) -> None:
        self.trace = trace
        self.finish = finish  # compiles a trace without named sizes
        self.levels = _levels(trace.graph, trace.counted)
        self.stages, self.rest = _cut(trace, self.levels)
        if trace.tape:  # its backward is made from the graph of the whole call
            graph = trace.graph
            self.rest = Stage(self.rest.number, graph.nodes, [i.value for i in graph.inputs], [])
        self._bound: OrderedDict[tuple[int, ...], Trace | None] = OrderedDict()
        self._codes: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def bind(self, arrays: Sequence[Array]) -> tuple[Trace, list[Array]] | None:
        """The trace for the sizes these inputs give and the arrays it takes; None where it does not apply."""
        known = {i.value: a for i, a in zip(self.trace.graph.inputs, arrays, strict=True)}
        sizes: dict[str, int] = {}
        if not self._measured(known, sizes):
            return None
        for stage in self.stages:
            if not stage.outputs:
                continue
            key = (stage.number, *sizes.values())
            run = self._kept(self._codes, key, partial(self._code, stage, dict(sizes), known))
            if run is None:
                return None
            known |= zip(stage.outputs, run([known[v] for v in stage.inputs]), strict=True)
            if not self._measured(known, sizes):
                return None
        given = [known[v] for v in self.rest.inputs]
        found = self._kept(self._bound, tuple(sizes.values()), lambda: self._bind(sizes, given))
        return None if found is None else (found, given)

    def _measured(self, known: Mapping[Value, Array], sizes: dict[str, int]) -> bool:
        """Note the sizes that are known by now; False when one is too small to have a name."""
        for c in self.trace.counted:
            if c.value in known and c.name not in sizes:
                sizes[c.name] = int(known[c.value])
        return min(sizes.values(), default=LEAST) >= LEAST

    def _kept(self, table: OrderedDict[tuple[int, ...], Any], key: tuple[int, ...], make: Callable[[], Any]) -> Any:
        if key in table:
            table.move_to_end(key)
            return table[key]
        try:
            found = make()
        except GraphcError:  # sizes that do not go together: the function itself says so
            found = None
        table[key] = found
        if len(table) > MAX_BOUND:
            table.popitem(last=False)
        return found

    def _code(self, stage: Stage, sizes: Mapping[str, int], known: Mapping[Value, Array]) -> Any:
        graph, mapping = stage.graph(self.trace.graph, sizes)
        for k, value in enumerate(stage.outputs):
            graph.add_output(mapping[value], f"v{k}")
        return compiler.compile_graph(graph, [Layout.of(known[v]) for v in stage.inputs])

    def _bind(self, sizes: Mapping[str, int], given: Sequence[Array]) -> Trace:
        trace = self.trace
        graph, mapping = self.rest.graph(trace.graph, sizes)
        for o in trace.graph.outputs:
            graph.add_output(mapping[o.value], o.name, o.kind)
        leaves, kept = (tuple(_bound_leaf(x, sizes) for x in part) for part in (trace.out_leaves, trace.kept))
        tape = tuple(_bound_plan(p, sizes) for p in trace.tape)
        saved = [mapping[v] for v in trace.saved]
        bound = replace(
            trace, graph=graph, out_leaves=list(leaves), kept=list(kept), tape=tape, saved=saved, counted=[], sized=None
        )
        self.finish(bound, [Layout.of(a) for a in given])
        return bound


def _bound_leaf(leaf: Leaf, sizes: Mapping[str, int]) -> Leaf:
    if leaf.kind not in ("fresh", "alias") or not leaf.value:
        return leaf
    return replace(leaf, value=tuple((op, bind_attrs(attrs, sizes)) for op, attrs in leaf.value))


def _bound_plan(plan: NodePlan, sizes: Mapping[str, int]) -> NodePlan:
    def chains(saved: Sequence[SavedPlan | None]) -> tuple[SavedPlan | None, ...]:
        return tuple(s and replace(s, chain=tuple((op, bind_attrs(a, sizes)) for op, a in s.chain)) for s in saved)

    ins, outs = (tuple(t.bind(sizes) for t in types) for types in (plan.ins, plan.outs))
    saved_out = None if plan.saved_out is None else chains(plan.saved_out)
    return replace(
        plan,
        attrs=bind_attrs(plan.attrs, sizes),
        ins=ins,
        outs=outs,
        saved_in=chains(plan.saved_in),
        saved_out=saved_out,
    )


def _names(node: Node) -> set[str]:
    """The named sizes in what a node is."""
    return {s for v in node.outputs for size in v.type.shape for s in symbols_of(size)} | names_in(node.attrs.values())


def _levels(graph: Graph, counted: Sequence[Counted]) -> dict[Value, int]:
    """How many counts, one following from the other, come before each value."""
    levels: dict[Value, int] = {i.value: 0 for i in graph.inputs}
    names = {c.name: 0 for c in counted if c.value.node is None}
    waiting = {c.value: c.name for c in counted}
    for node in graph.nodes:
        level = max([*(levels[v] for v in node.inputs), *(names[s] for s in _names(node))], default=0)
        for v in node.outputs:
            levels[v] = level
            if v in waiting:
                names[waiting[v]] = level + 1
    return levels


def _cut(trace: Trace, levels: Mapping[Value, int]) -> tuple[list[Stage], Stage]:
    """The stages that compute the counts, and the rest. What has no operand is computed where it is used."""
    graph = trace.graph
    needed: dict[Node, None] = {}
    stack = [c.value for c in trace.counted]
    while stack:
        node = stack.pop().node
        if node is not None and node not in needed:
            needed[node] = None
            stack.extend(node.inputs)
    last = max(levels[c.value] for c in trace.counted) + 1
    place = {n: levels[n.outputs[0]] if n in needed else last for n in graph.nodes}
    parts: list[list[Node]] = [[] for _ in range(last + 1)]
    for n in graph.nodes:
        if n.inputs:
            parts[place[n]].append(n)
    free = [n for n in graph.nodes if not n.inputs]
    stages = [_stage(k, nodes, free) for k, nodes in enumerate(parts)]
    wanted = [dict.fromkeys(v for s in stages[k + 1 :] for v in s.inputs) for k in range(last)]
    ends = [o.value for o in graph.outputs]
    counts = dict.fromkeys(c.value for c in trace.counted)
    for k, stage in enumerate(stages[:-1]):
        own = [v for n in stage.nodes for v in n.outputs]
        stage.outputs = [v for v in own if v in wanted[k] or v in counts or v in ends]
    rest = stages[-1]
    made = {v: None for n in rest.nodes for v in n.outputs}
    inputs = [i.value for i in graph.inputs]
    extra = dict.fromkeys(v for v in [*rest.inputs, *ends] if v not in made and v not in inputs)
    nullary = {v: n for n in free for v in n.outputs}
    rest.nodes = [*(nullary[v] for v in extra if v in nullary), *rest.nodes]
    rest.inputs = [*inputs, *(v for v in extra if v not in nullary)]
    return stages[:-1], rest


def _stage(number: int, nodes: list[Node], free: Sequence[Node]) -> Stage:
    """Nodes with the nullary ones they use, and what they read from elsewhere."""
    read = {v: None for n in nodes for v in n.inputs}
    used = [n for n in free if any(v in read for v in n.outputs)]
    everything = [*used, *nodes]
    made = {v: None for n in everything for v in n.outputs}
    return Stage(number, everything, [v for v in read if v not in made], [])
