"""The stages of compilation switched on one by one: ways to run a graph of which each adds one thing to the one before.

The first run a graph op by op after one pass more; the others are native code of the optimised graph, at first with
nothing but a kernel a node. Whatever a stage adds, every bit must stay as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.codegen.assemble import arrange, write_program
from graphc.codegen.target import Target
from graphc.compiler import build, compile_graph, eager_run, optimise, passes
from graphc.fuzz.deep_exact import expected
from graphc.fuzz.deep_variants import targets, threads
from graphc.fuzz.layouts import copied
from graphc.ir.graph import Graph, Input, Output, Value, copy_graph
from graphc.ir.op import Array, Control
from graphc.ir.types import Layout
from graphc.runtime import executable
from graphc.runtime.segments import Segmented

Values = dict[Value, Array]
RUNS = 2  # of each executable: what it reads unwritten is NaN in one, 0xCC in the other


@dataclass(frozen=True, slots=True)
class Ran:
    """The outputs of one run, and its inputs afterwards."""

    outputs: list[Array]
    inputs: list[Array]


@dataclass(frozen=True, slots=True)
class Stage:
    """A way to run a graph. `adds`: what it has that the stage before had not."""

    name: str
    adds: str
    run: Callable[[Graph, Sequence[Array]], Iterator[Ran]]


@dataclass(frozen=True, slots=True)
class Way:
    """What is on when native code is made and run."""

    fuse: bool = False
    states: bool = False  # states are written in their place
    order: bool = False
    share: bool = False  # values share the arena
    layouts: bool = False  # inputs are read as they lie, not as row-major copies
    threads: int = 1
    target: Target | None = None


def run_by_op(graph: Graph, arrays: Sequence[Array]) -> Values:
    """Every value of `graph`, each node run by the eager kernel of its op; the graphs of branches and loops as well."""
    values: Values = {i.value: a for i, a in zip(graph.inputs, arrays, strict=True)}
    for node in graph.nodes:
        run = expected if isinstance(node.op.lower, Control) else eager_run
        results = run(node.op, [values[v] for v in node.inputs], node.attrs)
        values.update(zip(node.outputs, map(np.asarray, results), strict=True))
    return values


def stages(strided: bool, count: int) -> list[Stage]:
    """All stages in order. `strided`: some input does not lie in row-major order; `count`: threads, from the stage
    of that name on.
    """
    host, *others = targets()
    found = [Stage(name, f"the graph after {name}, op by op", _after(name)) for name, _ in passes()]
    way = Way(target=host)
    steps: list[tuple[str, str, dict[str, Any]]] = [
        ("lower", "native code: a kernel for every value, nothing shared", {}),
        ("fuse", "values computed where they are read, kernels for several nodes", {"fuse": True}),
        ("outputs", "a new state is written in the place of the old one", {"states": True}),
        ("order", "kernels in the order that takes the least memory", {"order": True}),
        ("plan", "values share memory when their lives do not overlap", {"share": True}),
    ]
    if strided:
        steps.append(("layouts", "inputs are read as they lie in memory", {"layouts": True}))
    if count > 1:
        steps.append(("threads", f"{count} threads share every kernel", {"threads": count}))
    for name, adds, more in steps:
        way = replace(way, **more)
        found.append(Stage(name, adds, _native(way)))
    for target in others:
        found.append(Stage(f"emit for {target.name}", f"code for {target.name}", _native(replace(way, target=target))))
    return [*found, Stage("compiled", "all of it, as compile_graph puts it together", _whole)]


def _after(name: str) -> Callable[[Graph, Sequence[Array]], Iterator[Ran]]:
    def run(graph: Graph, arrays: Sequence[Array]) -> Iterator[Ran]:
        found: list[Graph] = []
        names = [n for n, _ in passes()]
        optimise(graph, names[names.index(name) + 1 :], lambda n, g: found.append(g))
        given = [copied(a) for a in arrays]
        values = run_by_op(found[-1], given)
        yield Ran([values[o.value] for o in found[-1].outputs], given)

    return run


def _native(way: Way) -> Callable[[Graph, Sequence[Array]], Iterator[Ran]]:
    def run(graph: Graph, arrays: Sequence[Array]) -> Iterator[Ran]:
        graph = graph if way.states else without_states(graph)
        make = copied if way.layouts else (lambda a: np.array(a, order="C"))
        with tried(), threads(way.threads):
            exe = executable_of(optimise(graph), [Layout.of(make(a)) for a in arrays], way)
            for _ in range(RUNS):
                given = [make(a) for a in arrays]
                yield Ran([np.array(a) for a in exe(given)], given)

    return run


def executable_of(graph: Graph, layouts: Sequence[Layout], way: Way) -> Any:
    """Code for an optimised graph in the way given."""

    def piece(part: Graph, given: Sequence[Layout]) -> Any:
        return build(write_program(arrange(part, given, way.fuse, way.order, way.share)), way.target)

    if not any(isinstance(node.op.lower, Control) for node in graph.nodes):
        return piece(graph, layouts)
    return Segmented(graph, layouts, piece, lambda part, given: executable_of(optimise(part), given, way))


def _whole(graph: Graph, arrays: Sequence[Array]) -> Iterator[Ran]:
    exe = compile_graph(graph, [Layout.of(a) for a in arrays])
    for _ in range(RUNS):
        given = [copied(a) for a in arrays]
        yield Ran([np.array(a) for a in exe(given)], given)


@contextmanager
def tried() -> Iterator[None]:
    """While active, what is compiled has its memory poisoned before each run and its kernels cut up however small."""
    before = executable.trial.poison, executable.trial.split
    executable.trial.poison = executable.trial.split = True
    try:
        yield
    finally:
        executable.trial.poison, executable.trial.split = before


def without_states(graph: Graph) -> Graph:
    """A copy in which states are plain inputs and outputs: nothing is written in its place."""
    out, _ = copy_graph(graph)
    out.inputs = [Input(i.value, "input", i.name) for i in out.inputs]
    out.outputs = [Output(o.value, "output", f"{o.kind} {o.name}") for o in out.outputs]
    return out
