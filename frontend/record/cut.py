"""Which values a forward graph keeps for its backward: the fewest bytes from which the rest is computed again.

What is kept is a minimum cut between what cannot be computed again cheaply and what the gradient rules read. Only
arithmetic that is cheap and movement are computed again, never a sum, a product of matrices, a transcendental function
or a random number; so the bits are the same either way.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dag import load_networkx
from graphc.ir.graph import Node, Value
from graphc.ir.op import Elementwise

# fmt: off
_CHEAP = frozenset({
    "add", "sub", "mul", "neg", "abs", "relu", "where", "maximum", "minimum", "cast", "sign", "eq", "ne", "lt", "le",
    "gt", "ge", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not",
})
# fmt: on
_SCALE = 4  # of capacities: among cuts of equal bytes the one with most required values, which need no computing


def cheap(node: Node) -> bool:
    """True for nodes worth running twice rather than keeping their results."""
    if node.op.random:
        return False
    if not node.inputs:
        return True
    lower = node.op.lower
    return isinstance(lower, Elementwise) and (lower.movement or node.op.name in _CHEAP)


def choose(required: Sequence[Value]) -> list[Value]:
    """The values to keep so that all `required` ones are kept or can be computed again."""
    region = _region(required)
    if all(v.node is None or not cheap(v.node) for v in region):
        return list(required)
    nx = load_networkx()  # not with the package: its import takes 60 to 100 ms
    net = nx.DiGraph()
    net.add_nodes_from(("start", "end"))
    wanted = set(required)
    for v in region:
        net.add_edge((v, "in"), (v, "out"), capacity=v.type.nbytes * _SCALE + (v not in wanted))
        if v in wanted:
            net.add_edge((v, "out"), "end")
        if v.node is None or not cheap(v.node):
            net.add_edge("start", (v, "in"))
            continue
        for u in dict.fromkeys(v.node.inputs):
            net.add_edge((u, "out"), (v, "in"))
    _, (near, _) = nx.minimum_cut(net, "start", "end")
    return [v for v in region if (v, "in") in near and (v, "out") not in near]


def _region(required: Sequence[Value]) -> list[Value]:
    """The required values and all that they could be computed from, required ones first."""
    found = dict.fromkeys(required)
    stack = list(reversed(required))
    while stack:
        node = stack.pop().node
        if node is None or not cheap(node):
            continue
        for u in node.inputs:
            if u not in found:
                found[u] = None
                stack.append(u)
    return list(found)
