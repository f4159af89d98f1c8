"""Graphs with sizes that depend on values, run in stages.

What the counts need comes first (in as many stages as counts follow from one another), the rest is bound to the
numbers found. Kernels take sizes at run time, so equal structure shares code: another number costs the passes and
lowering. What is bound is kept, the least recently used goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from graphc import compiler
from graphc.errors import GraphcError
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Array
from graphc.ir.passes.bind import bind_attrs
from graphc.ir.types import Dim, Layout, symbols_of

LEAST = 2  # smaller sizes have no name: they broadcast and squeeze unlike others
MAX_BOUND = 64  # graphs kept for different numbers


class Kept:
    """A bounded table of what was made for different numbers; None where they do not go together."""

    def __init__(self) -> None:
        self._found: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """What is kept for `key`, made now if need be."""
        if key in self._found:
            self._found.move_to_end(key)
            return self._found[key]
        try:
            found = make()
        except GraphcError:  # whoever would have run with such sizes says so
            found = None
        self._found[key] = found
        if len(self._found) > MAX_BOUND:
            self._found.popitem(last=False)
        return found


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


class Staged:
    """The stages of a graph. `counts`: name of a size -> the 0-d int64 value it is. With `whole`, the last stage
    computes everything again, and takes the inputs of the graph alone.
    """

    def __init__(self, graph: Graph, counts: Mapping[str, Value], whole: bool = False) -> None:
        self.graph = graph
        self.counts = dict(counts)
        self.stages, self.rest = _cut(graph, self.counts, _levels(graph, self.counts))
        if whole:
            self.rest = Stage(self.rest.number, graph.nodes, [i.value for i in graph.inputs], [])
        self._codes = Kept()

    def numbers(
        self, arrays: Sequence[Array], sizes: Mapping[str, int] | None = None
    ) -> tuple[dict[str, int], list[Array]] | None:
        """The sizes these inputs give, and the arrays the last stage takes; None where one is too small.

        `sizes`: named sizes of the inputs.
        """
        known = {i.value: a for i, a in zip(self.graph.inputs, arrays, strict=True)}
        found = dict(sizes or {})
        if not self._measured(known, found):
            return None
        for stage in self.stages:
            if not stage.outputs:
                continue
            layouts = tuple(Layout.of(known[v]) for v in stage.inputs)
            key = (stage.number, *found.values(), layouts)
            run = self._codes.get(key, partial(self._code, stage, dict(found), layouts))
            if run is None:
                return None
            known |= zip(stage.outputs, run([known[v] for v in stage.inputs]), strict=True)
            if not self._measured(known, found):
                return None
        return found, [known[v] for v in self.rest.inputs]

    def _measured(self, known: Mapping[Value, Array], sizes: dict[str, int]) -> bool:
        """Note the sizes that are known by now; False when one is too small to have a name."""
        for name, value in self.counts.items():
            if value in known and name not in sizes:
                sizes[name] = int(known[value])
        return all(sizes[name] >= LEAST for name in self.counts if name in sizes)

    def bound(self, sizes: Mapping[str, int]) -> tuple[Graph, dict[Value, Value]]:
        """The last stage for these numbers, with the outputs of the graph, and the map from the graph's values.

        Raises the op's own error where the numbers do not fit.
        """
        graph, mapping = self.rest.graph(self.graph, sizes)
        for o in self.graph.outputs:
            graph.add_output(mapping[o.value], o.name, o.kind)
        return graph, mapping

    def _code(self, stage: Stage, sizes: Mapping[str, int], layouts: Sequence[Layout]) -> Any:
        graph, mapping = stage.graph(self.graph, sizes)
        for k, value in enumerate(stage.outputs):
            graph.add_output(mapping[value], f"v{k}")
        return compiler.compile_graph(graph, layouts)


def names_in(values: Iterable[Any]) -> set[str]:
    """The named sizes in attributes."""
    found: set[str] = set()
    stack = list(values)
    while stack:
        x = stack.pop()
        if isinstance(x, Dim):
            found.update(symbols_of(x))
        elif isinstance(x, tuple):
            stack.extend(x)
    return found


def _names(node: Node) -> set[str]:
    """The named sizes in what a node is."""
    return {s for v in node.outputs for size in v.type.shape for s in symbols_of(size)} | names_in(node.attrs.values())


def _levels(graph: Graph, counts: Mapping[str, Value]) -> dict[Value, int]:
    """How many counts, one following from the other, come before each value."""
    levels: dict[Value, int] = {i.value: 0 for i in graph.inputs}
    names: dict[str, int] = {}
    waiting = {value: name for name, value in counts.items()}
    for node in graph.nodes:
        level = max([*(levels[v] for v in node.inputs), *(names.get(s, 0) for s in _names(node))], default=0)
        for v in node.outputs:
            levels[v] = level
            if v in waiting:
                names[waiting[v]] = level + 1
    return levels


def _cut(graph: Graph, names: Mapping[str, Value], levels: Mapping[Value, int]) -> tuple[list[Stage], Stage]:
    """The stages that compute the counts, and the rest. What has no operand is computed where it is used."""
    needed: dict[Node, None] = {}
    stack = list(names.values())
    while stack:
        node = stack.pop().node
        if node is not None and node not in needed:
            needed[node] = None
            stack.extend(node.inputs)
    last = max(levels[v] for v in names.values()) + 1
    place = {n: levels[n.outputs[0]] if n in needed else last for n in graph.nodes}
    parts: list[list[Node]] = [[] for _ in range(last + 1)]
    for n in graph.nodes:
        if n.inputs:
            parts[place[n]].append(n)
    free = [n for n in graph.nodes if not n.inputs]
    stages = [_stage(k, nodes, free) for k, nodes in enumerate(parts)]
    wanted = [dict.fromkeys(v for s in stages[k + 1 :] for v in s.inputs) for k in range(last)]
    ends = [o.value for o in graph.outputs]
    counts = dict.fromkeys(names.values())
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
