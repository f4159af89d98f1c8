"""Graphs seen as directed acyclic graphs: networkx views for the algorithms, and bitsets for fast reachability.

networkx is imported where a view is built, not with the package: its import takes 60 to 100 ms. At 10,000 nodes a view
takes 50 ms and its order 10 ms, but one search for a path would be paid for every question: who asks often keeps
`Ancestors` beside the view.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from typing import Any

from graphc.errors import GraphError
from graphc.ir.graph import Graph
from graphc.ir.quiet import no_collection

Arc = tuple[int, int]


@functools.cache
def load_networkx() -> Any:
    """The module. Importing it makes many objects and no garbage, yet would set off a collection that visits every
    object of the program and takes as long again: none runs meanwhile.
    """
    with no_collection():
        import networkx
    return networkx


def to_networkx(graph: Graph) -> Any:
    """A networkx.MultiDiGraph over node numbers; nodes carry `node`, edges the `value` they hand on.

    One edge for each value a node reads, even if it reads it twice.
    """
    networkx = load_networkx()
    number = {node: k for k, node in enumerate(graph.nodes)}
    view = networkx.MultiDiGraph()
    view.add_nodes_from((k, {"node": node}) for k, node in enumerate(graph.nodes))
    for k, node in enumerate(graph.nodes):
        for v in dict.fromkeys(node.inputs):
            if v.node is not None:
                view.add_edge(number[v.node], k, value=v)
    return view


def view_of(count: int, arcs: Iterable[Arc]) -> Any:
    """A networkx.DiGraph over 0..count-1 in which every arc (a, b) says that b needs a."""
    view = load_networkx().DiGraph()
    view.add_nodes_from(range(count))
    view.add_edges_from(arcs)
    return view


def in_order(view: Any) -> list[int]:
    """The numbers of a view so that whatever a number needs comes before it; of those free, the least first.

    Raises GraphError when the arcs form a cycle.
    """
    networkx = load_networkx()
    try:
        return list(networkx.lexicographical_topological_sort(view))
    except networkx.NetworkXUnfeasible:
        cyclic = [c for c in networkx.strongly_connected_components(view) if len(c) > 1]
        raise GraphError(f"V5: the order of {sum(map(len, cyclic))} nodes is cyclic") from None


def few_in_order(count: int, arcs: Collection[Arc]) -> list[int]:
    """The same for a handful of numbers, each found by looking at all: one op in eager mode needs no networkx."""
    order: list[int] = []
    left = dict.fromkeys(range(count))
    while left:
        waiting = {b for a, b in arcs if a in left}
        free = next((k for k in left if k not in waiting), None)
        if free is None:
            raise GraphError(f"V5: the order of {len(left)} nodes is cyclic")
        del left[free]
        order.append(free)
    return order


class Ancestors:
    """What each number needs, directly or through others, kept up while arcs are added: bit a of entry b says that b
    needs a.
    """

    def __init__(self, count: int = 0, arcs: Iterable[Arc] = ()) -> None:
        self._bits = [0] * count
        self._needed = 0  # by anyone
        for a, b in sorted(arcs, key=lambda arc: arc[1]):
            self.wait(b, self.closure((a,)))

    def append(self) -> None:
        """One more number, which needs nothing yet."""
        self._bits.append(0)

    def needs(self, b: int, a: int) -> bool:
        """Whether b needs a."""
        return bool(self._bits[b] >> a & 1)

    def closure(self, numbers: Iterable[int]) -> int:
        """The numbers and all they need, as a bitset."""
        bits = 0
        for k in numbers:
            bits |= self._bits[k] | 1 << k
        return bits

    def lacks(self, k: int, bits: int) -> int:
        """What of a closure k does not need yet."""
        return bits & ~self._bits[k]

    def wait(self, k: int, bits: int) -> None:
        """From now on k, and whoever needs k, needs a closure."""
        gained = self.lacks(k, bits)
        if not gained:
            return
        self._bits[k] |= gained
        self._needed |= gained
        if self._needed >> k & 1:
            for other, found in enumerate(self._bits):
                if found >> k & 1:
                    self._bits[other] = found | gained
