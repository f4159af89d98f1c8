"""What a compiled call returns: tensors over the arrays of the graph's outputs, views of inputs, numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from graphc.frontend.record.region import Edges
from graphc.frontend.record.tape import base_of
from graphc.frontend.record.trace import Leaf, Trace
from graphc.frontend.tensor import Tensor, alias_of, view_of
from graphc.ir.op import Array

MISS = object()  # the answer of a trace that does not apply


def make_leaves(
    trace: Trace,
    wanted: Iterable[Leaf],
    leaves: Sequence[Any],
    tensors: Sequence[Tensor | None],
    results: Sequence[Array],
) -> list[Any]:
    """The `wanted` results of a call on argument `leaves`: those a trace returns, or these and what it keeps."""
    made: dict[int, Tensor] = {}
    groups: dict[int, Tensor] = {}
    edges = Edges(trace.backward, tensors, results, results[len(trace.graph.outputs) :], made)
    out: list[Any] = []
    for leaf in wanted:
        if leaf.kind == "constant":
            out.append(leaf.value)
        elif leaf.kind == "input":
            out.append(leaves[leaf.number])
        elif leaf.kind == "same":
            out.append(out[leaf.number])
        elif leaf.kind == "number":
            out.append(results[leaf.number].item())
        elif leaf.kind == "source":
            out.append(tensors[leaf.number])
        else:
            owner = base_of(made, leaf.number, results) if leaf.kind == "fresh" else tensors[leaf.number]
            assert owner is not None
            out.append(_tensor(leaf, owner, groups, edges))
    return out


def _tensor(leaf: Leaf, owner: Tensor, groups: dict[int, Tensor], edges: Edges) -> Tensor:
    """A returned tensor over the memory of `owner`, with its place on the tape."""
    base = owner
    if leaf.group >= 0:
        if leaf.group not in groups:
            groups[leaf.group] = alias_of(_views(owner, leaf.value[: leaf.skip]), share_version=leaf.shares)
        base = groups[leaf.group]
    t = _views(base, leaf.value[leaf.skip :])
    if t is owner and leaf.kind == "alias":  # a view equal to another argument is no argument
        t = view_of(owner, owner._a, ())
    if t is not owner or leaf.kind == "fresh":
        t._edge = edges.edge(leaf.edge)
    if t is not base and (leaf.kind == "fresh" or base is not owner):
        base._edge = edges.edge(leaf.base_edge)
    if leaf.leaf:
        t._requires_grad = True
    return t


def _views(t: Tensor, chain: Any) -> Tensor:
    for op, attrs in chain or ():
        t = view_of(t, op.reference(t._a, **attrs), ((op, attrs),))
    return t
