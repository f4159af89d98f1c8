"""Dead code elimination: drop nodes that no output depends on. Inputs stay, they are part of the signature."""

from __future__ import annotations

from graphc.ir.graph import Graph, Node, Value, copy_outputs
from graphc.ir.rewrite import clone_node


def run(graph: Graph) -> Graph:
    """Keep the nodes that outputs need, in their order."""
    live = _live(graph)
    if len(live) == len(graph.nodes):
        return graph
    out = Graph(graph.name)
    mapping: dict[Value, Value] = {}
    for i in graph.inputs:
        mapping[i.value] = out.add_input(i.value.type, i.name, i.kind)
        mapping[i.value].name = i.value.name
    for node in graph.nodes:
        if node in live:
            results = clone_node(out, node, [mapping[v] for v in node.inputs])
            mapping.update(zip(node.outputs, results, strict=True))
    copy_outputs(graph, out, mapping)
    return out


def _live(graph: Graph) -> dict[Node, bool]:
    wanted = {o.value for o in graph.outputs}
    live: dict[Node, bool] = {}
    for node in reversed(graph.nodes):
        if any(v in wanted for v in node.outputs):
            live[node] = True
            wanted.update(node.inputs)
    return live
