"""Common subexpression elimination: of nodes that compute the same, keep the first.

Two nodes compute the same if op, operands and attributes are equal. Attributes are compared by kind and bit, never by
`==`
alone: 1, 1.0 and True, or 0.0 and -0.0, are different. Random ops are functions of their state operand, so they need
no exception.
"""

from __future__ import annotations

from typing import Any

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.rewrite import Replacement, attrs_key, clone_node, rebuild


def run(graph: Graph) -> Graph:
    """Replace every node that repeats an earlier one by the results of that one."""
    if not _repeats(graph):
        return graph
    seen: dict[Any, tuple[Value, ...]] = {}

    def visit(out: Graph, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        key = (node.op, inputs, attrs_key(node.attrs))
        if key not in seen:
            seen[key] = clone_node(out, node, inputs)
        return seen[key]

    return rebuild(graph, visit)


def _repeats(graph: Graph) -> bool:
    """True if some node repeats another. A first repetition reads the same operands, so one look over the graph
    finds it.
    """
    keys = [(node.op, node.inputs, attrs_key(node.attrs)) for node in graph.nodes]
    return len(dict.fromkeys(keys)) < len(keys)
