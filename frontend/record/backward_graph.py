"""The backward of a recorded forward as graphs of its own.

The gradient rules of the recorded tape are applied to graph values in the tape's order: contributions to one value add
left to right in descending number of the consumer, the first is taken as it is. So the executable gives the bits of
eager's backward. There is one graph a set of outputs that have gradients and of inputs that need one.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc import compiler
from graphc.frontend.autograd import TypeOnly
from graphc.frontend.record.cut import choose
from graphc.frontend.record.tape import NodePlan, SavedPlan
from graphc.frontend.record.trace import Trace
from graphc.ir.graph import Graph, Value, copy_graph
from graphc.ir.narrow import vjp
from graphc.ir.op import Array, op_named
from graphc.ir.types import Layout, TensorType

MAX_LAYOUTS = 4  # of the gradients given to one backward graph; others are copied first
Owner = tuple[str, int]


@dataclass(slots=True, eq=False)
class Code:
    """One backward graph. `inputs`: ("grad", output), ("prior", edge), ("kept", number) or ("owner", number)."""

    graph: Graph
    inputs: list[tuple[str, int]]
    outputs: list[int]  # the edges, in the order in which their gradients first arrive
    checked: list[int] = field(default_factory=list)  # owners that must not have been written
    frees: int = 0  # the nodes, a bit each, that give back what they saved
    executables: dict[tuple[Layout, ...], Any] = field(default_factory=dict)

    def executable(self, layouts: Sequence[Layout]) -> Any:
        """The code for inputs in these layouts."""
        key = tuple(layouts)
        found = self.executables.get(key)
        if found is None:
            found = self.executables[key] = compiler.compile_graph(self.graph, layouts)
        return found


class BackwardPlan:
    """What one trace needs for a backward() outside: what to keep, and the backward graphs made so far."""

    def __init__(self, trace: Trace) -> None:
        self.plans = trace.tape
        self.trace = trace
        self.roots = _roots(trace)
        self.place = {root: k for k, root in enumerate(self.roots)}
        inside = {(link[1], link[2]) for p in self.plans for link in p.links if link is not None and link[0] == "node"}
        self.interior = frozenset(k for k, root in enumerate(self.roots) if root in inside)
        sources = [link[1] for p in self.plans for link in p.links if link is not None and link[0] == "source"]
        self.ends = list(dict.fromkeys(sources))  # source numbers: the edges of the region
        self.end = {number: k for k, number in enumerate(self.ends)}
        self.saves = [tuple(s for s in (*p.saved_in, *(p.saved_out or ())) if s is not None) for p in self.plans]
        everything = [s for saves in self.saves for s in saves]
        self.owners: list[Owner] = list(dict.fromkeys(s_owner(s) for s in everything if s.kind in ("source", "base")))
        self.stale = {s_owner(s) for s in everything if s.stale}
        self.saving = sum(1 << k for k, saves in enumerate(self.saves) if saves and not self.plans[k].freed)
        self.kept = choose(trace.saved)
        self.forward, self.copies = copy_graph(trace.graph)
        for k, value in enumerate(self.kept):
            self.forward.add_output(self.copies[value], f"kept{k}")
        self._codes: dict[Any, Code | None] = {}
        self._again: Any = None
        self._lock = threading.RLock()

    def code(self, given: tuple[int, ...], needs: tuple[bool, ...], prior: tuple[bool, ...]) -> Code | None:
        """The backward for gradients of the outputs `given`; None where a node can only run eagerly."""
        key = given, needs, prior
        with self._lock:
            if key not in self._codes:
                self._codes[key] = _Builder(self, needs).build(given, prior)
            return self._codes[key]

    def reaching(self, needs: tuple[bool, ...], targets: Collection[int] = ()) -> set[int]:
        """The nodes from which one of `targets`, or an edge that needs a gradient, is reached. What was freed counts:
        running it is an error.
        """
        found: set[int] = set()
        for k, plan in enumerate(self.plans):
            for kind, number, _ in (link for link in plan.links if link is not None):
                if needs[self.end[number]] if kind == "source" else number in found or number in targets:
                    found.add(k)
            if plan.freed:
                found.add(k)
        return found

    def saved(self, kept: Sequence[Array]) -> list[Array]:
        """All saved values from those that were kept."""
        wanted = self.trace.saved
        if self.kept == wanted:
            return list(kept)
        with self._lock:
            if self._again is None:
                graph = Graph(f"{self.trace.graph.name} again")
                values = Again(graph, {v: graph.add_input(v.type, f"kept{k}") for k, v in enumerate(self.kept)})
                for k, v in enumerate(wanted):
                    graph.add_output(values.get(v), f"saved{k}")
                self._again = compiler.compile_graph(graph)
        found: list[Array] = self._again([np.asarray(a, order="C") for a in kept])  # an output may be strided
        return found

    def value_behind(self, owner: Owner) -> Value:
        """The forward value that the memory of an owner holds after the call."""
        kind, number = owner
        graph = self.trace.graph
        if kind == "base":
            return graph.outputs[number].value
        for effect in self.trace.effects:
            if effect.kind == "state" and effect.number == number:
                return graph.outputs[effect.output].value
        return graph.inputs[number].value


def s_owner(s: SavedPlan) -> Owner:
    """The tensor behind a saved array."""
    return s.kind, s.number


def _roots(trace: Trace) -> list[tuple[int, int]]:
    links = [link for leaf in (*trace.out_leaves, *trace.kept) for link in (leaf.edge, leaf.base_edge)]
    return sorted({(link[1], link[2]) for link in links if link is not None and link[0] == "node"})


class Again:
    """Forward values in another graph: given, or computed again there."""

    def __init__(self, graph: Graph, given: dict[Value, Value]) -> None:
        self.graph = graph
        self.known = given

    def get(self, value: Value) -> Value:
        """The value in the other graph."""
        stack = [value]
        while stack:
            v = stack[-1]
            if v in self.known:
                stack.pop()
                continue
            node = v.node
            assert node is not None, "a graph input that is neither kept nor given"
            missing = [u for u in node.inputs if u not in self.known]
            if missing:
                stack += missing
                continue
            with self.graph.like(node):
                made = self.graph.add(node.op, [self.known[u] for u in node.inputs], node.attrs)
            self.known.update(zip(node.outputs, made, strict=True))
        return self.known[value]


class _Builder:
    """Builds one backward graph."""

    def __init__(self, plan: BackwardPlan, needs: tuple[bool, ...]) -> None:
        self.plan = plan
        self.needs = needs
        self.graph = Graph(f"{plan.trace.graph.name} backward")
        self.graph.phase = "backward"
        self.code = Code(self.graph, [], [])
        self.given: dict[tuple[str, int], Value] = {}
        self.values = Again(self.graph, _Lazy(self))
        self.slots: dict[int, dict[int, Value]] = {}
        self.heap: list[int] = []
        self.totals: dict[int, Value] = {}
        self.needed = plan.reaching(needs)

    def input(self, kind: str, number: int, type: TensorType) -> Value:
        """The graph input that is fed from there."""
        found = self.given.get((kind, number))
        if found is None:
            found = self.given[kind, number] = self.graph.add_input(type, f"{kind}{number}")
            self.code.inputs.append((kind, number))
        return found

    def _wants(self, link: Any, needed: set[int]) -> bool:
        if link is None:
            return False
        return link[1] in needed if link[0] == "node" else self.needs[self.plan.end[link[1]]]

    def build(self, given: tuple[int, ...], prior: tuple[bool, ...]) -> Code | None:
        """The whole; None when a node on the way has no rule, was freed, or saved what was written since."""
        plan = self.plan
        for k in given:
            node, number = plan.roots[k]
            self._send(node, number, self.input("grad", k, plan.plans[node].outs[number]))
        for k, was in enumerate(prior):
            if was:
                self.totals[k] = self.input("prior", k, plan.trace.graph.inputs[plan.ends[k]].value.type)
        with self.graph.building():
            while self.heap:
                k = -heapq.heappop(self.heap)
                if k in self.needed and not self._step(k):
                    return None
        for k in self.code.outputs:
            self.graph.add_output(self.totals[k], f"grad{k}")
        return self.code

    def _send(self, node: int, number: int, g: Value) -> None:
        slot = self.slots.get(node)
        if slot is None:
            slot = self.slots[node] = {}
            heapq.heappush(self.heap, -node)
        slot[number] = op_named("add")(slot[number], g) if number in slot else g

    def _step(self, k: int) -> bool:
        plan = self.plan.plans[k]
        saves = self.plan.saves[k]
        if plan.freed or plan.op.vjp is None or any(s.stale for s in saves):
            return False
        if saves:
            self.code.frees |= 1 << k
        for link, g in zip(plan.links, self._rule(plan, self.slots.pop(k)), strict=True):
            if g is None or link is None or not self._wants(link, self.needed):
                continue
            if link[0] == "node":
                self._send(link[1], link[2], g)
                continue
            end = self.plan.end[link[1]]
            if end not in self.code.outputs:
                self.code.outputs.append(end)
            self.totals[end] = op_named("add")(self.totals[end], g) if end in self.totals else g
        return True

    def _rule(self, plan: NodePlan, slot: dict[int, Value]) -> tuple[Value | None, ...]:
        many = len(plan.outs) > 1
        g: Any = tuple(slot.get(k) for k in range(len(plan.outs))) if many else slot[0]
        ins = [self._saved(s, t) for s, t in zip(plan.saved_in, plan.ins, strict=True)]
        saved_out = plan.saved_out or (None,) * len(plan.outs)
        outs = [self._saved(s, t) for s, t in zip(saved_out, plan.outs, strict=True)]
        needs = tuple(self._wants(link, self.needed) for link in plan.links)
        return vjp(plan.op, g, tuple(outs) if many else outs[0], ins, needs, plan.attrs)

    def _saved(self, s: SavedPlan | None, type: TensorType) -> Value | TypeOnly:
        if s is None:
            return TypeOnly(type)
        if s.kind == "constant":
            assert s.array is not None
            return self.graph.constant(s.array)
        if s.kind == "saved":
            value = self.values.get(self.plan.trace.saved[s.number])
        else:
            number = self.plan.owners.index(s_owner(s))
            if number not in self.code.checked:
                self.code.checked.append(number)
            value = self.input("owner", number, self.plan.value_behind(s_owner(s)).type)
        for op, attrs in s.chain:
            value = op(value, **attrs)
        return value


class _Lazy(dict[Value, Value]):
    """The kept values, which become graph inputs when they are asked for."""

    def __init__(self, builder: _Builder) -> None:
        super().__init__()
        self.builder = builder
        self.numbers = {v: k for k, v in enumerate(builder.plan.kept)}

    def __contains__(self, value: object) -> bool:
        return value in self.numbers or super().__contains__(value)

    def __missing__(self, value: Value) -> Value:
        found = self[value] = self.builder.input("kept", self.numbers[value], value.type)
        return found
