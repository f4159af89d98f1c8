"""Node by node: every node of a graph on its real operands, its eager kernel against what the op must give."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from graphc.compiler import eager_run
from graphc.fuzz.deep_exact import check_op
from graphc.fuzz.difference import Difference
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Array


def check_nodes(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """The outputs of the graph, run as the eager mode runs it: one kernel a node, views as views.

    Raises Difference for the first node whose kernel gives other bits than the op's definition, or changes an operand.
    """
    values: dict[Value, Array] = dict(zip((i.value for i in graph.inputs), inputs, strict=True))
    for node in graph.nodes:
        operands = [values[v] for v in node.inputs]
        before = [a.tobytes() for a in operands]
        found = eager_run(node.op, operands, node.attrs)
        for k, (a, content) in enumerate(zip(operands, before, strict=True)):
            if a.tobytes() != content:
                was = np.frombuffer(content, a.dtype).reshape(a.shape)
                raise Difference(f"operand {k} was changed by its eager kernel", "nodes", told(node), was, a)
        wanted = check_op(node.op, operands, node.attrs, found, "nodes", partial(told, node))
        # a view stays a view, so that the next kernel meets its strides
        values.update(zip(node.outputs, (_laid(a, b) for a, b in zip(wanted, found, strict=True)), strict=True))
    return [values[o.value] for o in graph.outputs]


def _laid(wanted: Array, found: Array) -> Array:
    whole = all(s % wanted.itemsize == 0 for s in wanted.strides)
    return wanted if whole and not wanted.flags.c_contiguous and wanted.base is not None else found


def told(node: Node) -> str:
    """The node as text, and where it is from."""
    operands, results = (", ".join(str(v.type) for v in values) for values in (node.inputs, node.outputs))
    attrs = ", ".join(f"{name}={_short(value)}" for name, value in node.attrs.items())
    return f"{node.op.name}({operands}) {{{attrs}}} -> {results} @ {node.loc or '?'}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
