"""Subgraph: a graph that is an attribute of a node, as the branches of `cond` and the bodies of loops are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import GraphError
from graphc.ir.types import Dim, TensorType, symbols_of

if TYPE_CHECKING:
    from graphc.ir.graph import Graph, Value
    from graphc.ir.op import Array

MAX_NESTING = 8  # of graphs in graphs


class Subgraph:
    """A graph held by a node. Its inputs are the node's operands (which ones says the op), its outputs plain results.

    Never changed once made. Equal subgraphs have the same text and the same bits in their constants.
    """

    __slots__ = ("_key", "graph")

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._key: tuple[Any, ...] | None = None

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        """The types of the inputs."""
        return tuple(i.value.type for i in self.graph.inputs)

    @property
    def outputs(self) -> tuple[TensorType, ...]:
        """The types of the outputs."""
        return tuple(o.value.type for o in self.graph.outputs)

    def key(self) -> tuple[Any, ...]:
        """What tells it from others: the text, and the arrays that the text only names."""
        if self._key is None:
            from graphc.ir.text import constants_of, print_graph

            arrays = constants_of(self.graph).values()
            self._key = (print_graph(self.graph), *((a.dtype.str, a.shape, a.tobytes()) for a in arrays))
        return self._key

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Subgraph) and self.key() == other.key())

    def __hash__(self) -> int:
        return hash(self.key())

    def __repr__(self) -> str:
        return f"<subgraph {self.graph.name}: {len(self.graph.nodes)} nodes>"

    def symbols(self) -> set[str]:
        """The named sizes in types and attributes, of graphs within as well."""
        found = {s for v in self.graph.values() for size in v.type.shape for s in symbols_of(size)}
        for node in self.graph.nodes:
            for value in node.attrs.values():
                found.update(symbols_in(value))
        return found

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """The outputs for these inputs by the references of the op table; all sizes must be numbers."""
        from graphc.ir.narrow import reference

        held: dict[Value, Any] = {i.value: a for i, a in zip(self.graph.inputs, arrays, strict=True)}
        for node in self.graph.nodes:
            found = reference(node.op, [held[v] for v in node.inputs], node.attrs)
            held.update(zip(node.outputs, found, strict=True))
        return [held[o.value] for o in self.graph.outputs]


def symbols_in(value: Any) -> Iterator[str]:
    """The named sizes in an attribute."""
    if isinstance(value, Dim):
        yield from symbols_of(value)
    elif isinstance(value, Subgraph):
        yield from value.symbols()
    elif isinstance(value, tuple):
        for item in value:
            yield from symbols_in(item)


def nested(graph: Graph) -> Iterator[Graph]:
    """The graph and those in its nodes, outer ones first. Raises GraphError when nested more than MAX_NESTING deep."""
    stack = [(graph, 0)]
    while stack:
        found, depth = stack.pop()
        yield found
        inner = [a.graph for n in found.nodes for a in n.attrs.values() if isinstance(a, Subgraph)]
        if inner and depth == MAX_NESTING:
            raise GraphError(f"V21: {graph.name}: graphs nested more than {MAX_NESTING} deep")
        stack += [(g, depth + 1) for g in inner]
