"""Decompose: expand compositions until every node can be lowered as it stands."""

from __future__ import annotations

from graphc.errors import InternalError
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.narrow import expand, widens
from graphc.ir.rewrite import Replacement, rebuild_some

_MAX_DEPTH = 64  # compositions of compositions; more means that a rule expands into itself


def run(graph: Graph) -> Graph:
    """Replace every node whose op has `decompose` by what the rule builds, until none is left. New nodes keep its line.

    A rule that returns None says that the node is primitive already. Raises InternalError for a rule that never ends.
    """
    made = graph.nodes
    for _ in range(_MAX_DEPTH):
        if not any(map(_is_open, made)):  # whoever was looked at once stays as it is
            return graph
        expanded, made = rebuild_some(graph, _expand, _is_open)
        if expanded is graph:
            return graph
        graph = expanded
    names = sorted({n.op.name for n in graph.nodes if n.op.decompose is not None})
    raise InternalError(f"decompose does not end; it may be caused by {', '.join(names)}")


def _is_open(node: Node) -> bool:
    """Whether the node may have something to expand."""
    op = node.op
    return op.lower is None or op.decompose is not None or widens(op, [v.type for v in node.inputs], node.attrs)


def _expand(out: Graph, node: Node, inputs: tuple[Value, ...]) -> Replacement:
    found = expand(node.op, inputs, node.attrs)
    if found is None and node.op.lower is None:
        raise InternalError(f"{node.op.name} has no lowering, but its decomposition says that it is primitive")
    return tuple(found) if isinstance(found, list) else found
