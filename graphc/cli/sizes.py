"""A model's graph with numbers for its sizes: the named ones and those that depend on values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from graphc.cli.inputs import Array, bind_sizes
from graphc.errors import UnsupportedError
from graphc.frontend.record.staged import LEAST, Staged
from graphc.ir.graph import Graph
from graphc.ir.passes.bind import bind_dims


def graph_for(program: Any, arrays: Mapping[str, Array], sizes: Mapping[str, int]) -> tuple[Graph, dict[str, int]]:
    """The graph of a loaded program for these inputs, and the sizes that were counted for it.

    `arrays`: those that are not state. Raises UnsupportedError where a counted size is too small for the graph.
    """
    graph: Graph = program.graph
    counts = graph.counted()
    if not counts:
        return bind_dims(graph, sizes), {}
    staged = Staged(graph, counts, whole=True)
    given = [arrays[i.name] if i.name in arrays else program.state[i.name] for i in graph.inputs]
    found = staged.numbers(given, sizes)
    if found is None:
        raise UnsupportedError(
            f"{graph.name}: a size that depends on values is less than {LEAST} for these inputs, or does not fit the "
            "others; give inputs with --inputs, or another --seed"
        )
    return staged.bound(found[0])[0], {name: found[0][name] for name in counts}


def graph_of_sizes(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """The graph for these sizes, all given as `--size NAME=NUMBER`. Raises click.UsageError for one missing or one too
    many.
    """
    counts = graph.counted()
    for name in counts:
        if name not in sizes:
            raise click.UsageError(
                f"the size {name} depends on values; say --size {name}=NUMBER to see the graph for that number"
            )
        if sizes[name] < LEAST:
            raise click.UsageError(f"--size {name}: sizes that depend on values are at least {LEAST} in a graph")
    named = bind_sizes(graph, {name: n for name, n in sizes.items() if name not in counts})
    if not counts:
        return bind_dims(graph, named)
    return Staged(graph, counts, whole=True).bound({**named, **{name: sizes[name] for name in counts}})[0]
