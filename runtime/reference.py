"""The reference interpreter: runs a graph with NumPy, op by op, by the references of the op table.

The oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.errors import ArgumentError, InternalError
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.narrow import reference
from graphc.ir.op import Array
from graphc.ir.passes.bind import bind_dims
from graphc.ir.types import Dim, Shape, TensorType, dtype_of, evaluate


def run_graph(graph: Graph, arrays: Sequence[Array], dims: Mapping[str, int] | None = None) -> list[Array]:
    """The outputs of `graph` for the inputs `arrays`, in order, as new arrays; inputs are left alone.

    `dims` gives the sizes of named dimensions; without it they are read off the inputs.
    Raises ArgumentError for inputs that do not fit, InternalError for a reference that does not give what its op
    infers.
    """
    bound, values = _evaluated(graph, arrays, dims)
    return [np.array(values[o.value], copy=True, order="C") for o in bound.outputs]


def trace(graph: Graph, arrays: Sequence[Array], dims: Mapping[str, int] | None = None) -> dict[Value, Array]:
    """Every value of `graph`, inputs included, for the inputs `arrays`. Errors as for `run_graph`."""
    bound, values = _evaluated(graph, arrays, dims)
    return {own: values[v] for own, v in zip(graph.values(), bound.values(), strict=True)}


def _evaluated(
    graph: Graph, arrays: Sequence[Array], dims: Mapping[str, int] | None
) -> tuple[Graph, dict[Value, Array]]:
    given = [np.asarray(a) for a in arrays]
    if len(given) != len(graph.inputs):
        raise ArgumentError(f"{graph.name}: {len(graph.inputs)} inputs are expected, {len(given)} are given")
    bound = bind_dims(graph, find_dims(graph, given) if dims is None else dims)
    values: dict[Value, Array] = {}
    for i, a in zip(bound.inputs, given, strict=True):
        if _type_of(a) is not i.value.type:
            raise ArgumentError(f"{graph.name}: input {i.name!r} is {_type_of(a)}, expected {i.value.type}")
        values[i.value] = a
    # the contract fixes what x/0 or an overflow gives: NumPy has nothing to warn about
    with np.errstate(all="ignore"):
        for node in bound.nodes:
            values.update(zip(node.outputs, _run_node(node, [values[v] for v in node.inputs]), strict=True))
    return bound, values


def _run_node(node: Node, inputs: Sequence[Array]) -> list[Array]:
    results = [np.asarray(r) for r in reference(node.op, inputs, node.attrs)]
    types = [v.type for v in node.outputs]
    if [_type_of(r) for r in results] != types:
        raise InternalError(f"{node.op.name}: its reference gives {[_type_of(r) for r in results]}, it infers {types}")
    return results


def _type_of(array: Array) -> TensorType:
    return TensorType(dtype_of(array.dtype), array.shape)


def find_dims(graph: Graph, arrays: Sequence[Array]) -> dict[str, int]:
    """Sizes of the named dimensions that stand alone in an input's shape, read off `arrays`.

    Raises ArgumentError when two inputs disagree on one, or one never stands alone.
    """
    found: dict[str, int] = {}
    for i, a in zip(graph.inputs, arrays, strict=True):
        _match(i.name, i.value.type.shape, a.shape, found)
    for i, a in zip(graph.inputs, arrays, strict=True):
        wanted = tuple(evaluate(s, found) for s in i.value.type.shape)
        if wanted != a.shape:
            raise ArgumentError(f"input {i.name!r} has shape {list(a.shape)}, expected {list(wanted)} for {found}")
    return found


def _match(name: str, shape: Shape, sizes: tuple[int, ...], found: dict[str, int]) -> None:
    if len(shape) != len(sizes):
        raise ArgumentError(f"input {name!r} has {len(sizes)} dimensions, expected {len(shape)}")
    for want, have in zip(shape, sizes, strict=True):
        if isinstance(want, Dim) and len(want.terms) == 1 and len(want.terms[0][0]) == 1 and want.terms[0][1] == 1:
            found.setdefault(want.terms[0][0][0], have)
