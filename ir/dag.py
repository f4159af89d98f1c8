"""Graphs seen as directed acyclic graphs: a networkx view for its algorithms, and an index for fast reachability."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Any

from graphc.errors import GraphError
from graphc.ir.graph import Graph, Value


def edges(graph: Graph) -> list[tuple[int, int, Value]]:
    """(producer, reader, value) by node number; one entry for each reader of a value, even if it reads it twice."""
    number = {node: k for k, node in enumerate(graph.nodes)}
    found = []
    for k, node in enumerate(graph.nodes):
        found += [(number[v.node], k, v) for v in dict.fromkeys(node.inputs) if v.node is not None]
    return found


def to_networkx(graph: Graph) -> Any:
    """A networkx.MultiDiGraph over node numbers; nodes carry `node`, edges the `value` they hand on.

    networkx is imported here, not with the package: its import costs more than compiling a small graph.
    """
    import networkx

    view = networkx.MultiDiGraph()
    view.add_nodes_from((k, {"node": node}) for k, node in enumerate(graph.nodes))
    view.add_edges_from((a, b, {"value": v}) for a, b, v in edges(graph))
    return view


def ancestors(graph: Graph) -> list[int]:
    """For every node the set of nodes it depends on, as a bitset: bit j of entry k says that node k needs node j."""
    found = [0] * len(graph.nodes)
    for a, b, _ in edges(graph):  # in order of b, and a < b: entry a is complete when it is read
        found[b] |= found[a] | 1 << a
    return found


def members(bits: int) -> list[int]:
    """The numbers in a bitset, ascending."""
    found = []
    while bits:
        low = bits & -bits
        found.append(low.bit_length() - 1)
        bits ^= low
    return found


def topological(count: int, arcs: Iterable[tuple[int, int]], priority: Sequence[Any] | None = None) -> list[int]:
    """An order of 0..count-1 in which every arc (a, b) has a before b; of those free, least `priority`, then number.

    Raises GraphError when the arcs form a cycle.
    """
    readers: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for a, b in dict.fromkeys(arcs):
        readers[a].append(b)
        waiting[b] += 1
    keys = [(priority[k] if priority is not None else 0, k) for k in range(count)]
    ready = [keys[k] for k in range(count) if not waiting[k]]
    heapify(ready)
    order: list[int] = []
    while ready:
        _, k = heappop(ready)
        order.append(k)
        for b in readers[k]:
            waiting[b] -= 1
            if not waiting[b]:
                heappush(ready, keys[b])
    if len(order) < count:
        raise GraphError(f"V5: the order of {count - len(order)} nodes is cyclic")
    return order
