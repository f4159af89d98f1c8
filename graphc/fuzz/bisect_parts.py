"""Parts of a graph on recorded values, and the smallest part for which something still holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from graphc.ir.graph import Graph, Node, Value, copy_node
from graphc.ir.op import Array

Part = tuple[Graph, list[Array], list[Array]]  # the graph, its inputs, the outputs it must give


def part_of(graph: Graph, nodes: Sequence[Node], values: Mapping[Value, Array]) -> Part:
    """These nodes of `graph` (in its order) alone: what they read from elsewhere is an input with its recorded value.

    Outputs are those of the graph, and what other nodes read. An output stays a state where the part reads the state's
    old value.
    """
    out = Graph(graph.name)
    made = {v: None for n in nodes for v in n.outputs}
    read = dict.fromkeys(v for n in nodes for v in n.inputs if v not in made)
    mapping: dict[Value, Value] = {}
    taken = [i.name for i in graph.inputs if i.value in read]
    for i in graph.inputs:
        if i.value in read:
            mapping[i.value] = out.add_input(i.value.type, i.name, i.kind)
    number = 0
    for v in read:
        if v not in mapping:
            while f"t{number}" in taken:
                number += 1
            mapping[v] = out.add_input(v.type, f"t{number}")
            number += 1
    sources = list(mapping)
    for node in nodes:
        copy_node(out, node, mapping)
    given = _add_outputs(graph, out, nodes, mapping, made)
    return out, [values[v] for v in sources], [values[v] for v in given]


def _add_outputs(
    graph: Graph, out: Graph, nodes: Sequence[Node], mapping: Mapping[Value, Value], made: Mapping[Value, None]
) -> list[Value]:
    """Declare the outputs of the part; the values of `graph` they are."""
    states = {i.name for i in out.inputs if i.kind == "state"}
    found: list[Value] = []
    for o in graph.outputs:
        if o.value in made:
            kind = o.kind if o.kind != "state" or o.name in states else "output"
            name = o.name if kind == o.kind else f"new {o.name}"
            out.add_output(mapping[o.value], name, kind if kind != "size" else "output")
            found.append(o.value)
    inside = set(map(id, nodes))
    elsewhere = dict.fromkeys(v for n in graph.nodes if id(n) not in inside for v in n.inputs)
    for v in made:
        if v in elsewhere and v not in found:
            out.add_output(mapping[v], f"v{len(found)}")
            found.append(v)
    if not found:  # the graph has no use for any of them
        read = {v for n in nodes for v in n.inputs}
        for v in made:
            if v not in read:
                out.add_output(mapping[v], f"v{len(found)}")
                found.append(v)
    return found


def needed(graph: Graph, outputs: Sequence[Value]) -> list[Node]:
    """The nodes that these values depend on, in order."""
    wanted = dict.fromkeys(outputs)
    found = []
    for node in reversed(graph.nodes):
        if any(v in wanted for v in node.outputs):
            wanted.update(dict.fromkeys(node.inputs))
            found.append(node)
    return found[::-1]


class Smallest:
    """Delta debugging (Zeller and Hildebrandt 2002) on the nodes of a graph: halves first, then without each piece.

    `holds(nodes)` is asked once for each set of nodes, until `budget_s` is spent.
    """

    def __init__(self, nodes: Sequence[Node], holds: Callable[[list[Node]], bool], budget_s: float) -> None:
        self.nodes = list(nodes)
        self.holds = holds
        self.deadline = time.monotonic() + budget_s
        self.known: dict[tuple[int, ...], bool] = {}

    def find(self) -> list[Node]:
        """The smallest set found; all of them if none smaller will do."""
        kept, pieces = list(range(len(self.nodes))), 2
        while len(kept) > 1:
            smaller = self._smaller(kept, pieces)
            if smaller is not None:
                alone = len(smaller) <= -(-len(kept) // pieces)
                kept, pieces = smaller, 2 if alone else max(pieces - 1, 2)
            elif pieces >= len(kept):
                break
            else:
                pieces = min(2 * pieces, len(kept))
        return [self.nodes[k] for k in kept]

    def _smaller(self, kept: list[int], pieces: int) -> list[int] | None:
        """One of the pieces, or all without one of them, if it still holds."""
        size = -(-len(kept) // pieces)
        cut = [kept[k : k + size] for k in range(0, len(kept), size)]
        for piece in cut:
            if self._asked(piece):
                return piece
        for piece in cut if len(cut) > 2 else ():
            rest = [k for k in kept if k not in piece]
            if self._asked(rest):
                return rest
        return None

    def _asked(self, numbers: list[int]) -> bool:
        key = tuple(numbers)
        if key not in self.known:
            spent = time.monotonic() > self.deadline
            self.known[key] = not spent and self.holds([self.nodes[k] for k in numbers])
        return self.known[key]
