"""Rebuilding a graph node by node: what every pass that replaces nodes shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import InternalError
from graphc.ir.graph import Graph, Node, Value, copy_outputs
from graphc.ir.types import Dim

Replacement = Value | tuple[Value, ...] | None
Visit = Callable[[Graph, Node, tuple[Value, ...]], Replacement]


def rebuild(graph: Graph, visit: Visit) -> Graph:
    """A copy of `graph` in which `visit` may replace nodes; `graph` itself when it replaced none.

    `visit(out, node, inputs)` is called in order with the graph being built and the node's operands in it. It returns
    None to keep the node, or the values that stand for its results; ops it calls are added to `out` under the node's
    line, module and phase. Raises InternalError when a replacement has another type.
    """
    return rebuild_some(graph, visit, None)[0]


def rebuild_some(graph: Graph, visit: Visit, wanted: Callable[[Node], bool] | None) -> tuple[Graph, list[Node]]:
    """Like `rebuild`, for nodes that are `wanted` alone (all when None: others are kept as they are), and the nodes
    that stand for replaced ones.
    """
    out = Graph(graph.name)
    mapping: dict[Value, Value] = {i.value: out.add_input(i.value.type, i.name, i.kind) for i in graph.inputs}
    for i in graph.inputs:
        mapping[i.value].name = i.value.name
    changed = False
    made: list[Node] = []
    nodes = out.nodes
    with out.building():
        for node in graph.nodes:
            inputs = tuple([mapping[v] for v in node.inputs])
            if wanted is None or wanted(node):
                start = len(nodes)
                out.loc, out.module, out.phase = node.loc, node.module, node.phase
                found = visit(out, node, inputs)
                if found is not None:
                    changed = True
                    made += nodes[start:]
                    _map_results(node, found, mapping)
                    continue
                del nodes[start:]  # what a rule built before it gave up
            mapping.update(zip(node.outputs, clone_node(out, node, inputs), strict=True))
    if not changed:
        return graph, []
    out.loc, out.module, out.phase = None, "", "forward"
    copy_outputs(graph, out, mapping)
    return out, made


def _map_results(node: Node, found: Value | tuple[Value, ...], mapping: dict[Value, Value]) -> None:
    results = found if isinstance(found, tuple) else (found,)
    for old, new in zip(node.outputs, results, strict=True):
        if new.type is not old.type:
            raise InternalError(f"{node.op.name}: a replacement is {new.type} where {old.type} stood")
        if old.name and not new.name:
            new.name = old.name
        mapping[old] = new


def clone_node(out: Graph, node: Node, inputs: Sequence[Value]) -> tuple[Value, ...]:
    """Append a copy of `node` reading `inputs`, which have the types of its own operands, so that nothing is
    inferred again.
    """
    copy = Node(node.op, tuple(inputs), dict(node.attrs), (), node.loc, node.module, node.phase)
    copy.outputs = tuple([Value(out, v.type, copy, v.index, v.name) for v in node.outputs])
    out.nodes.append(copy)
    return copy.outputs


def uniform(value: Value) -> bool | int | float | None:
    """The number every element of `value` is known to be, or None; a named size is not known.

    Looks through movement ops that only repeat or reorder.
    """
    node = value.node
    while node is not None and node.op.name in _REORDERING:
        node = node.inputs[0].node
    if node is None:
        return None
    if node.op.name == "full" and not isinstance(node.attrs["value"], Dim):
        # through the dtype, since full(value=0.1, dtype=float32) holds the rounded number
        with np.errstate(all="ignore"):
            return _number(np.asarray(node.attrs["value"]).astype(node.out.dtype.np))
    if node.op.name == "constant" and node.attrs["value"].size == 1:
        return _number(node.attrs["value"])
    return None


_REORDERING = frozenset({"reshape", "permute", "expand", "slice", "flip", "clone"})


def _number(array: Any) -> bool | int | float:
    number: bool | int | float = array.reshape(()).item()
    return number


def attr_key(value: Any) -> Any:
    """A hashable stand-in for an attribute: equal only for values equal in kind and in every bit."""
    if isinstance(value, tuple):
        return ("tuple", *map(attr_key, value))
    if isinstance(value, float):
        return ("float", value.hex(), np.float64(value).tobytes())
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.str, value.shape, value.tobytes())
    return (type(value).__name__, value)


def attrs_key(attrs: Mapping[str, Any]) -> Any:
    """A hashable stand-in for the attributes of a node, whatever their order."""
    return tuple([(name, attr_key(attrs[name])) for name in sorted(attrs)]) if attrs else ()
