"""Eager and compiled compared at every value of a function, not at its results alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graphc.compiler import compile_graph
from graphc.frontend.record.export import Program
from graphc.frontend.same import _World
from graphc.fuzz.bisect import Wrong, compare, program_of
from graphc.fuzz.bisect_stages import run_by_op, without_states
from graphc.fuzz.layouts import copied, forwards
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ir.types import Layout

__all__ = ["compare_values"]


def compare_values(
    target: Callable[..., Any] | Program | str | Path, *args: Any, state: Any = ()
) -> list[tuple[Node, Wrong]]:
    """The nodes of the recorded graph whose values differ in a bit when compiled, in order, each with its first element
    that does: where a difference starts and how it spreads. Empty when eager and compiled agree everywhere.

    The graph is compiled with every value as an output, so that fusion has less to do than in `bisect`, which finds
    what this does not. Arguments and errors are those of `bisect`; arguments must be given. State is as before.
    """
    world = _World([args, state])
    start = world.snapshot()
    try:
        graph, arrays = program_of(target, args).concrete(*args)
        return values_apart(graph, arrays)
    finally:
        world.restore(start)


def values_apart(graph: Graph, arrays: Sequence[Array]) -> list[tuple[Node, Wrong]]:
    """The nodes of a graph with numbers for sizes whose values differ when compiled."""
    given = [forwards(a) for a in arrays]
    values = run_by_op(graph, given)
    whole = without_states(graph)
    whole.outputs = []
    for number, node in enumerate(whole.nodes):
        for k, v in enumerate(node.outputs):
            whole.add_output(v, f"{number}.{k}")
    if not whole.outputs:
        return []
    results = iter(compile_graph(whole, [Layout.of(a) for a in given])([copied(a) for a in given]))
    found = []
    for node in graph.nodes:
        wrongs = [compare(f"the result of {node.op.name}", values[v], next(results)) for v in node.outputs]
        found += [(node, wrong) for wrong in wrongs if wrong is not None][:1]
    return found
