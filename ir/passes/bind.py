"""Bind: replace named dimensions by numbers, in types and attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphc.errors import ArgumentError, UnsupportedError
from graphc.ir.graph import Graph, Value, copy_outputs
from graphc.ir.subgraph import Subgraph
from graphc.ir.types import Dim, evaluate


def bind_dims(graph: Graph, values: Mapping[str, int]) -> Graph:
    """`graph` for the sizes `values`, with every type inferred again; `graph` itself when it names no dimension.

    Raises ArgumentError for a name without a value, UnsupportedError for a size that depends on values, and the op's
    own error where the numbers do not fit.
    """
    for name in graph.counted():
        raise UnsupportedError(
            f"{graph.name}: the size {name} depends on values, so that there is no one graph with numbers for sizes; "
            "run the program, which counts first"
        )
    symbols = graph.symbols()
    if not symbols:
        return graph
    missing = [s for s in symbols if s not in values]
    if missing:
        raise ArgumentError(f"no value for the named dimension {missing[0]!r}")
    return _bind(graph, values)


def _bind(graph: Graph, values: Mapping[str, int]) -> Graph:
    out = Graph(graph.name)
    mapping: dict[Value, Value] = {}
    for i in graph.inputs:
        mapping[i.value] = out.add_input(i.value.type.bind(values), i.name, i.kind)
        mapping[i.value].name = i.value.name
    for node in graph.nodes:
        with out.like(node):
            results = out.add(node.op, [mapping[v] for v in node.inputs], bind_attrs(node.attrs, values))
        for old, new in zip(node.outputs, results, strict=True):
            new.name = old.name
            mapping[old] = new
    copy_outputs(graph, out, mapping)
    return out


def bind_attrs(attrs: Mapping[str, Any], values: Mapping[str, int]) -> dict[str, Any]:
    """Attributes with named dimensions replaced by numbers."""
    return {name: _bound(value, values) for name, value in attrs.items()}


def _bound(value: Any, values: Mapping[str, int]) -> Any:
    if isinstance(value, Dim):
        return evaluate(value, values)
    if isinstance(value, Subgraph):
        return Subgraph(_bind(value.graph, values)) if value.symbols() else value
    if isinstance(value, tuple):
        return tuple(_bound(item, values) for item in value)
    return value
