"""The graphs that native code is made of: one, or several where there are branches and loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import compiler
from graphc.ir.graph import Graph
from graphc.ir.op import Control
from graphc.ir.types import Layout
from graphc.runtime.executable import Stats
from graphc.runtime.program import Program
from graphc.runtime.segments import Runs, Segmented


def controls(graph: Graph) -> bool:
    """Whether an optimised graph has branches or loops."""
    return any(isinstance(node.op.lower, Control) for node in graph.nodes)


def parts(graph: Graph) -> list[Graph]:
    """What an optimised graph is cut into: itself, or the pieces between branches and loops and all inside of these."""
    if not controls(graph):
        return [graph]
    found: list[Graph] = []

    def piece(part: Graph, layouts: Sequence[Layout]) -> Runs:
        found.append(part)
        return _Nothing()

    def inner(part: Graph, layouts: Sequence[Layout]) -> Runs:
        found.extend(parts(compiler.optimise(part)))
        return _Nothing()

    Segmented(graph, None, piece, inner)
    return found


def programs(graph: Graph) -> list[Program]:
    """The programs of the parts of an optimised graph."""
    return [compiler.lower(part) for part in parts(graph)]


class _Nothing:
    """In place of native code, which nobody runs."""

    poison = False
    stats = Stats(0, 0)

    def run(self, inputs: Sequence[Any], outs: Sequence[Any] | None = None) -> list[Any]:
        """Never called."""
        raise NotImplementedError
