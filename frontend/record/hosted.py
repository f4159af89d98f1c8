"""Running a graph with host callbacks in it: native code up to a callback, the callback, native code from there on.

A value belongs to the first segment in which all it needs is there. Conditions that the program tested before a
callback are checked before it runs: a call they do not hold for leaves it to the callbacks of another path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import compiler
from graphc.errors import ArgumentError
from graphc.frontend.record.callbacks import answer
from graphc.frontend.record.trace import HostCall, ValueGuard
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Array
from graphc.ir.types import Layout


class Miss(Exception):
    """The trace does not apply to this call; the callbacks that ran are remembered."""


class Segment:
    """One piece of native code."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.reads: list[Value] = []
        self.gives: list[Value] = []
        self.executable: Any = None


class Hosted:
    """The executable of a graph with callbacks: `hosted(arrays)`, with anything in the places of their results."""

    def __init__(
        self,
        graph: Graph,
        layouts: Sequence[Layout],
        hosts: Sequence[HostCall],
        guards: Sequence[ValueGuard],
        same: Mapping[Value, Value] | None = None,
    ) -> None:
        self.graph = graph
        self.hosts = hosts
        self.guards = guards
        self.at: Callable[[Value], Value] = (lambda v: v) if same is None else same.__getitem__
        self.layouts = {i.value: layout for i, layout in zip(graph.inputs, layouts, strict=True)}
        self.levels = self._levels()
        self.segments = [Segment(Graph(f"{graph.name}.{k}")) for k in range(len(hosts) + 1)]
        self._fill()

    def _levels(self) -> dict[Value, int]:
        levels = {i.value: 0 for i in self.graph.inputs}
        for k, call in enumerate(self.hosts):
            for number in range(call.first, call.first + len(call.results)):
                levels[self.graph.inputs[number].value] = k + 1
        for node in self.graph.nodes:
            level = max((levels[v] for v in node.inputs), default=0)
            levels.update(dict.fromkeys(node.outputs, level))
        return levels

    def _fill(self) -> None:
        wanted = dict.fromkeys(o.value for o in self.graph.outputs)
        wanted.update(dict.fromkeys(self.at(v) for call in self.hosts for v in call.values))
        for k, segment in enumerate(self.segments):
            nodes = [n for n in self.graph.nodes if self.levels[n.outputs[0]] == k and not _constant(n)]
            later = {v for n in self.graph.nodes if self.levels[n.outputs[0]] > k for v in n.inputs}
            self._build(segment, nodes, wanted, later)

    def _build(self, segment: Segment, nodes: list[Node], wanted: Mapping[Value, None], later: set[Value]) -> None:
        known: dict[Value, Value] = {}
        made = {v for n in nodes for v in n.outputs}
        constants = (
            [v for v in wanted if v.node is not None and _constant(v.node)] if segment is self.segments[0] else []
        )
        for v in dict.fromkeys([*(v for n in nodes for v in n.inputs), *constants]):
            if v in made:
                continue
            if v.node is not None and _constant(v.node):
                known.update(zip(v.node.outputs, segment.graph.add(v.node.op, (), v.node.attrs), strict=True))
                continue
            known[v] = segment.graph.add_input(v.type, f"in{len(segment.reads)}")
            segment.reads.append(v)
        for node in nodes:
            with segment.graph.like(node):
                outs = segment.graph.add(node.op, [known[v] for v in node.inputs], node.attrs)
            known.update(zip(node.outputs, outs, strict=True))
        for v in [*(v for n in nodes for v in n.outputs if v in wanted or v in later), *constants]:
            segment.graph.add_output(known[v], f"out{len(segment.gives)}")
            segment.gives.append(v)
        if segment.gives:
            layouts = [self.layouts.get(v) or Layout(v.type) for v in segment.reads]
            segment.executable = compiler.compile_graph(segment.graph, layouts)

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        """One array an output. Raises Miss when a condition does not hold, or a callback raised or returned another
        kind of value.
        """
        held = {i.value: a for i, a in zip(self.graph.inputs, arrays, strict=True)}
        for k, segment in enumerate(self.segments):
            if segment.gives:
                held.update(zip(segment.gives, segment.executable([held[v] for v in segment.reads]), strict=True))
            if k < len(self.hosts):
                self._ask(self.hosts[k], held)
        given: set[int] = set()
        results = []
        inputs = {id(a) for a in arrays}
        for o in self.graph.outputs:
            a = held[o.value]
            if id(a) in given or id(a) in inputs or o.value.node is None:
                a = np.array(a, copy=True, order="C")
            given.add(id(a))
            results.append(a)
        return results

    def _ask(self, call: HostCall, held: dict[Value, Array]) -> None:
        for guard in self.guards[: call.guards]:
            if type(guard.expected)(held[self.at(guard.value)]) != guard.expected:
                raise Miss
        given = [np.array(held[self.at(v)], copy=True, order="C") for v in call.values]
        try:
            kind, found = answer(call.fn, given, call.where)
        except ArgumentError as error:
            error.place = str(call.where)
            raise
        except Exception as error:
            raise Miss from error  # raised again where the function, run line by line, comes to it
        if kind != call.kind or [Layout.of(a) for a in found] != call.results:
            raise Miss
        for k, a in enumerate(found):
            held[self.graph.inputs[call.first + k].value] = a


def _constant(node: Node) -> bool:
    return not node.inputs and not node.op.random
