"""Constant folding: nodes whose operands are all constants become constants.

Ops that only move values are folded by their reference. Arithmetic is folded only with an `evaluator`, which runs the
kernels that compiled code runs: the numerics contract asks for the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Array, Control, Elementwise, Op
from graphc.ir.rewrite import Replacement, rebuild_some

Evaluator = Callable[[Op, Sequence[Array], Mapping[str, Any]], Sequence[Array]]

MAX_BYTES = 1 << 16  # of a result that is larger than its operands: more would only bloat the program


def run(graph: Graph, evaluator: Evaluator | None = None, max_bytes: int = MAX_BYTES) -> Graph:
    """Fold nodes whose operands are constants, unless the results are larger than both `max_bytes` and the operands."""

    def visit(out: Graph, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        arrays = [_constant(v) for v in inputs]
        known = [a for a in arrays if a is not None]
        if not inputs or len(known) < len(arrays) or not _small(node, known, max_bytes):
            return None
        if isinstance(node.op.lower, Control):  # a loop may be long, or never end
            return None
        if isinstance(node.op.lower, Elementwise) and node.op.lower.movement:
            results: Sequence[Array] = [node.op.reference(*known, **node.attrs)]  # exact, and needs no kernel
        elif evaluator is not None:
            results = evaluator(node.op, known, node.attrs)
        else:
            return None
        return tuple(out.constant(np.asarray(r)) for r in results)

    foldable = _over_constants(graph)
    return rebuild_some(graph, visit, foldable.__contains__)[0] if foldable else graph


def _over_constants(graph: Graph) -> set[Node]:
    """The nodes that depend on constants alone."""
    known: set[Node] = set()
    constant: set[Node] = set()
    for node in graph.nodes:
        if node.op.name == "constant":
            constant.add(node)
        elif node.inputs and all(v.node in constant or v.node in known for v in node.inputs):
            known.add(node)
    return known


def _constant(value: Value) -> Array | None:
    node = value.node
    if node is None or node.op.name != "constant":
        return None
    array: Array = node.attrs["value"]
    return array


def _small(node: Node, arrays: Sequence[Array], max_bytes: int) -> bool:
    if not all(v.type.static for v in node.outputs):
        return False
    results = sum(v.type.nbytes for v in node.outputs)
    return results <= max(max_bytes, sum(a.nbytes for a in arrays))
