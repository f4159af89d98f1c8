"""Running a graph with branches and loops: native code up to one, its own graphs, native code from there on.

A value belongs to the first piece of native code in which all it needs is there. The graphs of branches and loops are
compiled with the whole; which of them runs, and how often, is decided between native calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from graphc.errors import ArgumentError, InternalError
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Control
from graphc.ir.types import Layout, TensorType
from graphc.runtime.executable import Stats

Array = np.ndarray[Any, Any]


class Runs(Protocol):
    """What both kinds of executables are."""

    poison: bool

    @property
    def stats(self) -> Stats:
        """Counts."""

    def run(self, inputs: Sequence[Array], outs: Sequence[Array] | None = None) -> list[Array]:
        """The outputs, in memory of their own, for arrays of the layouts it was made for, unchecked."""


Make = Callable[[Graph, Sequence[Layout]], Runs]


@dataclass(slots=True, eq=False)
class Piece:
    """One piece of native code, and the branches and loops that follow it."""

    nodes: list[Node] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    reads: list[Value] = field(default_factory=list)
    gives: list[Value] = field(default_factory=list)
    code: Runs | None = None


class Segmented:
    """The executable of a graph with branches and loops, called as an Executable is.

    `piece` compiles a graph without them that was optimised, `inner` any graph. Outputs are always new arrays: the new
    value of a state is not written in its place.
    """

    def __init__(self, graph: Graph, layouts: Sequence[Layout] | None, piece: Make, inner: Make) -> None:
        self.graph = graph
        self.name = graph.name
        self.layouts = [Layout(i.value.type) for i in graph.inputs] if layouts is None else list(layouts)
        if [layout.type for layout in self.layouts] != [i.value.type for i in graph.inputs]:
            raise InternalError(f"{graph.name}: layouts {self.layouts} are not those of the inputs")
        self._known = {i.value: layout for i, layout in zip(graph.inputs, self.layouts, strict=True)}
        self.pieces = _cut(graph, inner)
        wanted = dict.fromkeys(o.value for o in graph.outputs)
        wanted.update((v, None) for p in self.pieces for s in p.steps for v in s.node.inputs)
        for k, p in enumerate(self.pieces):
            later = {v: None for q in self.pieces[k + 1 :] for n in q.nodes for v in n.inputs}
            self._build(p, {**wanted, **later}, f"{graph.name}.{k}", piece)

    def _build(self, piece: Piece, wanted: Mapping[Value, None], name: str, make: Make) -> None:
        graph = Graph(name)
        known: dict[Value, Value] = {}
        made = {v: None for n in piece.nodes for v in n.outputs}
        for v in dict.fromkeys(v for n in piece.nodes for v in n.inputs if v not in made):
            known[v] = graph.add_input(v.type, f"in{len(piece.reads)}")
            piece.reads.append(v)
        for node in piece.nodes:
            with graph.like(node):
                outs = graph.add(node.op, [known[v] for v in node.inputs], node.attrs)
            known.update(zip(node.outputs, outs, strict=True))
        piece.gives = [v for v in made if v in wanted]
        for k, v in enumerate(piece.gives):
            graph.add_output(known[v], f"out{k}")
        if piece.gives:
            piece.code = make(graph, [self._known.get(v) or Layout(v.type) for v in piece.reads])

    def __call__(self, inputs: Sequence[Array], outs: Sequence[Array] | None = None) -> list[Array]:
        """One new array an output, or those of `outs`, written. Raises ArgumentError for arrays that do not fit."""
        if len(inputs) != len(self.layouts):
            raise ArgumentError(f"{self.name}: expected {len(self.layouts)} inputs, got {len(inputs)}")
        for k, (array, layout) in enumerate(zip(inputs, self.layouts, strict=True)):
            if not isinstance(array, np.ndarray):
                raise ArgumentError(f"{self.name}: input {k} must be an ndarray, got {type(array).__name__}")
            if Layout.of(array) is not layout:
                raise ArgumentError(f"{self.name}: input {k} is {Layout.of(array)}, expected {layout}")
        for k, (array, o) in enumerate(zip(outs or (), self.graph.outputs, strict=outs is not None)):
            if Layout.of(array) is not Layout(o.value.type) or not array.flags.writeable:
                raise ArgumentError(
                    f"{self.name}: output array {k} is {Layout.of(array)}, expected {o.value.type}, writeable"
                )
        return self.run(inputs, outs)

    def run(self, inputs: Sequence[Array], outs: Sequence[Array] | None = None) -> list[Array]:
        """Like a call, without any check."""
        held = {i.value: a for i, a in zip(self.graph.inputs, inputs, strict=True)}
        for piece in self.pieces:
            if piece.code is not None:
                held.update(zip(piece.gives, piece.code.run([held[v] for v in piece.reads]), strict=True))
            for step in piece.steps:
                held.update(zip(step.node.outputs, step.run([held[v] for v in step.node.inputs]), strict=True))
        results = self._results(held, inputs)
        for target, found in zip(outs or (), results, strict=outs is not None):
            np.copyto(target, found)
        return results if outs is None else list(outs)

    def _results(self, held: Mapping[Value, Array], inputs: Sequence[Array]) -> list[Array]:
        """Arrays of their own: a value that is an input, or given twice, is copied."""
        taken = set(map(id, inputs))
        results = []
        for o in self.graph.outputs:
            array = held[o.value]
            if id(array) in taken:
                array = np.array(array, copy=True, order="C")
            taken.add(id(array))
            results.append(array)
        return results

    def parts(self) -> list[Runs]:
        """The executables it is made of."""
        codes = [p.code for p in self.pieces if p.code is not None]
        return [*codes, *(run for p in self.pieces for s in p.steps for run in s.runs)]

    @property
    def stats(self) -> Stats:
        """The counts of all parts together; each is counted once, however often it runs."""
        found = [part.stats for part in self.parts()]
        return Stats(sum(s.kernels for s in found), sum(s.codes for s in found), sum(s.native_calls for s in found))

    @property
    def poison(self) -> bool:
        """As for an Executable: memory is filled before each run of a part."""
        return all(part.poison for part in self.parts())

    @poison.setter
    def poison(self, on: bool) -> None:
        for part in self.parts():
            part.poison = on


def _cut(graph: Graph, inner: Make) -> list[Piece]:
    """The pieces: what needs no branch or loop first, then what needs one, and so on."""
    level = {i.value: 0 for i in graph.inputs}
    pieces = [Piece()]
    for node in graph.nodes:
        at = max((level[v] for v in node.inputs), default=0)
        controls = isinstance(node.op.lower, Control)
        if controls:
            pieces[at].steps.append(_STEPS[node.op.name](node, inner))
        else:
            pieces[at].nodes.append(node)
        level.update(dict.fromkeys(node.outputs, at + controls))
        if at + controls == len(pieces):
            pieces.append(Piece())
    return pieces


def _plain(array: Array) -> Array:
    """The array, or a row-major copy of it."""
    return array if array.flags.c_contiguous else np.array(array, copy=True, order="C")


class Step:
    """A node that runs graphs."""

    def __init__(self, node: Node, inner: Make) -> None:
        self.node = node
        self.runs: tuple[Runs, ...] = tuple(
            inner(node.attrs[name].graph, list(map(Layout, node.attrs[name].inputs))) for name in self.graphs
        )

    graphs: tuple[str, ...] = ()

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """The results of the node, none of them memory of an operand."""
        raise NotImplementedError


class Cond(Step):
    """One of two graphs."""

    graphs = ("then", "other")

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """What the chosen graph gives."""
        then, other = self.runs
        return (then if arrays[0] else other).run(list(map(_plain, arrays[1:])))


class While(Step):
    """A test before each round of a body."""

    graphs = ("test", "body")

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """The carries when the test no longer holds."""
        test, body = self.runs
        count = self.node.attrs["carries"]
        given = list(map(_plain, arrays))
        carried, captured = given[:count], given[count:]
        rounds = 0
        while test.run([*carried, *captured])[0]:
            carried = body.run([*carried, *captured])
            rounds += 1
        return carried if rounds else [np.array(a, copy=True, order="C") for a in carried]


class Scan(Step):
    """A body for every slice."""

    graphs = ("body",)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """The last carries, and what the body gave for each slice."""
        attrs, (body,) = self.node.attrs, self.runs
        count, scanned = attrs["carries"], attrs["scanned"]
        given = list(map(_plain, arrays))
        carried, xs, captured = given[:count], given[count : count + scanned], given[count + scanned :]
        ys = [_empty(v.type) for v in self.node.outputs[count:]]
        length = len(xs[0])
        for k in range(length - 1, -1, -1) if attrs["reverse"] else range(length):
            found = body.run([*carried, *(np.asarray(x[k]) for x in xs), *captured])
            carried = found[:count]
            for y, one in zip(ys, found[count:], strict=True):
                y[k] = one
        return [*(carried if length else [np.array(a, copy=True, order="C") for a in carried]), *ys]


def _empty(type: TensorType) -> Array:
    return np.empty(type.sizes, type.dtype.np)


_STEPS: dict[str, type[Step]] = {"cond": Cond, "while_loop": While, "scan": Scan}
