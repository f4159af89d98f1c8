"""Decompose: expand compositions until every node can be lowered as it stands."""

from __future__ import annotations

from graphc.errors import InternalError
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.narrow import expand
from graphc.ir.rewrite import Replacement, rebuild

_MAX_DEPTH = 64  # compositions of compositions; more means that a rule expands into itself


def run(graph: Graph) -> Graph:
    """Replace every node whose op has `decompose` by what the rule builds, until none is left. New nodes keep its line.

    A rule that returns None says that the node is primitive already. Raises InternalError for a rule that never ends.
    """
    for _ in range(_MAX_DEPTH):
        expanded = rebuild(graph, _expand)
        if expanded is graph:
            return graph
        graph = expanded
    names = sorted({n.op.name for n in graph.nodes if n.op.decompose is not None})
    raise InternalError(f"decompose does not end; it may be caused by {', '.join(names)}")


def _expand(out: Graph, node: Node, inputs: tuple[Value, ...]) -> Replacement:
    found = expand(node.op, inputs, node.attrs)
    if found is None and node.op.lower is None:
        raise InternalError(f"{node.op.name} has no lowering, but its decomposition says that it is primitive")
    return tuple(found) if isinstance(found, list) else found
