"""Bisection: which stage of compilation first changes a bit of a graph's results, and the smallest part that shows it.

The yardstick is the recorded graph run node by node, each node by its own eager kernel, which is what eager mode gives
(and each of those kernels is compared with what its op must give). Then the stages of bisect_stages.py are switched on
one by one; the first that gives other bits is named, and nodes are taken away from the graph, what they gave being
recorded, as long as that stage still differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphc.errors import ArgumentError
from graphc.frontend.record.export import Program, load, trace
from graphc.frontend.record.signature import Result, Signature
from graphc.frontend.record.tree import flatten
from graphc.frontend.same import _World
from graphc.fuzz.bisect_parts import Smallest, needed, part_of
from graphc.fuzz.bisect_stages import Ran, Stage, Values, run_by_op, stages
from graphc.fuzz.deep_exact import check_op
from graphc.fuzz.difference import Difference, first_difference
from graphc.fuzz.layouts import forwards
from graphc.ir.graph import Graph, Input, Node, copy_graph
from graphc.ir.op import Array
from graphc.ir.passes import decompose
from graphc.ir.types import Layout, TensorType, dtype_of

__all__ = ["Bisection", "bisect"]

KERNELS = "eager kernels"
INTERPRETED = 2_000_000  # elements of all values: beyond, comparing with definitions takes too long
SPECIAL = (0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-40, -1e-40, 3e38, -0.5, 1e-8)


@dataclass(frozen=True, slots=True)
class Wrong:
    """The first result that differs. `place`: the element (None where dtype or shape differ, or a run raised)."""

    result: str
    place: tuple[int, ...] | None = None
    expected: Any = None
    found: Any = None
    error: str = ""
    count: int = 0  # elements that differ

    def __str__(self) -> str:
        if self.error:
            return self.error
        if self.place is None:
            return f"{self.result} is {_type(self.found)}, expected {_type(self.expected)}"
        at = f"{self.result}{list(self.place) if self.place else ''}"
        what = f"expected {told(self.expected)}, found {told(self.found)}"
        return f"{at}: {what}; {self.count} element{'s differ' if self.count > 1 else ' differs'}"


@dataclass(frozen=True, slots=True)
class Bisection:
    """What a bisection found.

    `stages`: each stage that was run, what it adds and "same", "differs", "raises" or why it was left out. When one
    differs, `stage` is its name, `wrong` the first result of the whole graph that does, `graph` the smallest part found
    that shows it, on `inputs` (name -> array), `nodes` that part's nodes but constants, and `wrong_in_part` the first
    wrong result there. Otherwise `stage` is "".
    """

    name: str
    stages: list[tuple[str, str, str]]
    stage: str = ""
    wrong: Wrong | None = None
    graph: Graph | None = None
    inputs: dict[str, Array] = field(default_factory=dict)
    wrong_in_part: Wrong | None = None

    @property
    def differs(self) -> bool:
        """Whether any stage gives other bits than eager mode."""
        return bool(self.stage)

    @property
    def nodes(self) -> list[Node]:
        """The nodes of the smallest part, constants left out."""
        return [] if self.graph is None else [n for n in self.graph.nodes if n.op.name != "constant"]

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs of the smallest part."""
        return [] if self.graph is None else [o.name for o in self.graph.outputs]

    def __str__(self) -> str:
        if self.graph is None:
            return f"{self.name}: no stage changes a bit"
        lines = [f"{self.name}: {self.stage} changes the result: {self.wrong}"]
        lines.append(f"smallest part: {len(self.nodes)} node{'s' * (len(self.nodes) != 1)}")
        lines += [f"  %{name} = {brief(a)}" for name, a in self.inputs.items()]
        return "\n".join([*lines, str(self.graph).rstrip(), f"there: {self.wrong_in_part}"])

    def save(self, path: str | Path) -> None:
        """Write the smallest part as a model file that takes nothing: its inputs are its state. `graphc bisect` and
        `graphc check` of that file show the difference again. Raises ArgumentError when nothing differs.
        """
        if self.graph is None:
            raise ArgumentError(f"bisect: {self.name}: nothing differs, so that there is no part to save")
        graph, _ = copy_graph(self.graph)
        graph.inputs = [Input(i.value, "state", i.name) for i in graph.inputs]
        shown = [k for k, o in enumerate(graph.outputs) if o.kind in ("output", "grad")]
        _, nothing = flatten(((), {}))
        _, several = flatten(tuple(shown))
        note = f"bisect: {self.stage} changes a bit"
        signature = Signature([], nothing, [Result("tensor", k) for k in shown], several, [], 0, [note], [])
        Program(graph, {n: np.array(a, order="C") for n, a in self.inputs.items()}, signature).save(path)


def bisect(
    target: Callable[..., Any] | Program | str | Path, *args: Any, state: Any = (), threads: int = 2, seed: int = 0
) -> Bisection:
    """Find the first stage of compilation that changes a bit of a function or a model, and the smallest part of its
    graph that shows it.

    `target`: a function or Module, which is recorded for `args` (`graphc.trace`; `state`, what it changes besides what
    it names, is put back); or a program of `graphc.load`, or the path of its file, for `args`, or for random arguments
    of `seed`, special values among them, when none are given. State is as before afterwards. Raises ArgumentError for
    arguments that do not fit and RecordingError for a function that cannot be exported.
    """
    world = _World([args, state])
    start = world.snapshot()
    try:
        program = program_of(target, args)
        tries = [program.concrete(*args)] if args or not _tensors(program) else _random(program, seed)
        return first_of(tries, threads)
    finally:
        world.restore(start)


def first_of(tries: Sequence[tuple[Graph, Sequence[Array]]], threads: int = 2) -> Bisection:
    """`bisect_graph` of the first of these for which something differs; of the last when nothing does."""
    found = None
    for graph, arrays in tries:
        found = bisect_graph(graph, arrays, threads)
        if found.differs:
            break
    if found is None:
        raise ArgumentError("bisect: no inputs are given")
    return found


def program_of(target: Any, args: Sequence[Any]) -> Program:
    """The program to look at: one that is there, read from a file, or recorded."""
    if isinstance(target, Program):
        return target
    if isinstance(target, (str, Path)):
        return load(target)
    if not callable(target):
        raise ArgumentError(f"bisect: expected a function, a program or a path, got {type(target).__name__}")
    return trace(target, *args)


def _tensors(program: Program) -> list[str]:
    """The inputs a call has to give."""
    return [i.name for i in program.graph.inputs if i.name not in program.state]


def _random(program: Program, seed: int) -> list[tuple[Graph, list[Array]]]:
    """Inputs of two kinds: normal numbers, and special values among them."""
    graph = program.graph
    if graph.symbols() or graph.counted():
        raise ArgumentError(f"bisect: {graph.name} has named sizes; give arguments, which say what they are")
    found = []
    for special in (False, True):
        rng = np.random.default_rng([seed, special])
        made = {i.name: random_array(i.value.type, rng) for i in graph.inputs if i.name not in program.state}
        made = {name: with_special(a, rng) if special else a for name, a in made.items()}
        found.append((graph, [made[i.name] if i.name in made else program.state[i.name] for i in graph.inputs]))
    return found


def random_array(type: TensorType, rng: np.random.Generator) -> Array:
    """Normal numbers; integers 0 and 1, which are indices almost anywhere; bools."""
    if type.dtype.is_integer or type.dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, type.sizes), type.dtype.np)
    return np.asarray(rng.standard_normal(type.sizes), type.dtype.np)


def with_special(array: Array, rng: np.random.Generator) -> Array:
    """`array` with zeros of both signs, infinities, NaN, denormals and numbers near the limits at every fifth place."""
    if not dtype_of(array.dtype).is_floating_point:
        return array
    chosen = rng.choice(np.array(SPECIAL), array.shape)
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.where(rng.random(array.shape) < 0.2, chosen.astype(array.dtype), array), array.dtype)


# ---- one graph on one set of inputs


def bisect_graph(graph: Graph, arrays: Sequence[Array], threads: int = 2, budget_s: float = 120.0) -> Bisection:
    """Bisect a graph with numbers for sizes on these inputs. Nothing is changed in them.

    `budget_s` bounds the time spent on making the part smaller.
    """
    given = [forwards(a) for a in arrays]
    values = run_by_op(graph, given)
    done: list[tuple[str, str, str]] = []
    inside = _check_kernels(graph, values, done, threads, budget_s)
    if inside is not None:
        return inside
    expected = [values[o.value] for o in graph.outputs]
    strided = not all(a.flags.c_contiguous for a in given)
    for stage in stages(strided, threads):
        wrong = differing(stage, graph, given, expected)
        done.append((stage.name, "same" if wrong is None else "raises" if wrong.error else "differs", stage.adds))
        if wrong is not None:
            return _smallest(graph, values, stage, wrong, done, budget_s)
    return Bisection(graph.name, done)


def differing(stage: Stage, graph: Graph, arrays: Sequence[Array], expected: Sequence[Array]) -> Wrong | None:
    """The first result of a stage that is not as expected: outputs, then inputs that must stay as they are."""
    written = [o.name for o in graph.outputs if o.kind == "state"]
    try:
        for ran in stage.run(graph, arrays):
            found = _compare(graph, arrays, expected, ran, written)
            if found is not None:
                return found
    except Exception as error:  # of any kind: that it stops there is the finding
        return Wrong("", error=f"{type(error).__name__}: {error}")
    return None


def _compare(
    graph: Graph, arrays: Sequence[Array], expected: Sequence[Array], ran: Ran, written: Sequence[str]
) -> Wrong | None:
    for o, a, b in zip(graph.outputs, expected, ran.outputs, strict=True):
        wrong = compare(f"{o.kind} {o.name}", a, b)
        if wrong is not None:
            return wrong
    for i, a, b in zip(graph.inputs, arrays, ran.inputs, strict=True):
        if not (i.kind == "state" and i.name in written):
            wrong = compare(f"{i.kind} {i.name}, which is only read,", a, b)
            if wrong is not None:
                return wrong
    return None


def compare(result: str, expected: Array, found: Array) -> Wrong | None:
    """What differs between two arrays, all NaNs being equal; None for the same bits."""
    from graphc.fuzz.difference import differing as places

    place = first_difference(expected, found)
    if place is None:
        return None
    if isinstance(place, str):
        return Wrong(result, None, expected, found)
    return Wrong(result, place, expected[place], found[place], count=int(places(expected, found).sum()))


def _check_kernels(
    graph: Graph, values: Values, done: list[tuple[str, str, str]], threads: int, budget_s: float
) -> Bisection | None:
    """The eager kernel of every node against what its op must give; a composition that is wrong is bisected itself."""
    adds = "each op by a kernel of its own, as eager mode runs it"
    if sum(a.size for a in values.values()) > INTERPRETED:
        done.append((KERNELS, "left out: too many elements", adds))
        return None
    for node in graph.nodes:
        operands = [values[v] for v in node.inputs]
        found = [values[v] for v in node.outputs]
        try:
            check_op(node.op, operands, node.attrs, found, KERNELS, node.op.name.__str__)
        except Difference as error:
            return _wrong_kernel(graph, values, node, error, done, adds, threads, budget_s)
    done.append((KERNELS, "same", adds))
    return None


def _wrong_kernel(
    graph: Graph, values: Values, node: Node, error: Difference, done: list[tuple[str, str, str]], adds: str,
    threads: int, budget_s: float,
) -> Bisection:  # fmt: skip
    part, arrays, _ = part_of(graph, [node], values)
    done.append((KERNELS, "differs", adds))
    stage, inner = KERNELS, decompose.run(part)
    if inner is not part:  # a composition has gone through the stages itself
        found = bisect_graph(inner, arrays, threads, budget_s)
        if found.differs:
            return replace(found, name=f"{graph.name}, {node.op.name}", stages=[*done, *found.stages])
        stage = "decompose"
    wrong = _told_by(error, node)
    inputs = {i.name: a for i, a in zip(part.inputs, arrays, strict=True)}
    return Bisection(graph.name, done, stage, wrong, part, inputs, wrong)


def _told_by(error: Difference, node: Node) -> Wrong:
    if isinstance(error.expected, np.ndarray) and isinstance(error.found, np.ndarray):
        wrong = compare(f"the result of {node.op.name}", error.expected, error.found)
        if wrong is not None:
            return wrong
    return Wrong(node.op.name, error=f"{node.op.name}: {error.what}")


def _smallest(
    graph: Graph, values: Values, stage: Stage, wrong: Wrong, done: list[tuple[str, str, str]], budget_s: float
) -> Bisection:
    """The whole finding: nodes go as long as the stage still differs (or still raises) on what is left."""

    def found_in(nodes: Sequence[Node]) -> Wrong | None:
        part, arrays, expected = part_of(graph, nodes, values)
        found = differing(stage, part, arrays, expected)
        return found if found is not None and bool(found.error) == bool(wrong.error) else None

    nodes = needed(graph, [o.value for o in graph.outputs if f"{o.kind} {o.name}" == wrong.result])
    if not nodes or found_in(nodes) is None:
        nodes = list(graph.nodes)
    if found_in(nodes) is None:  # it takes the graph as it is: what is needed lies in its inputs and outputs
        inputs = {i.name: values[i.value] for i in graph.inputs}
        return Bisection(graph.name, done, stage.name, wrong, graph, inputs, wrong)
    kept = Smallest(nodes, lambda some: found_in(some) is not None, budget_s).find()
    part, arrays, _ = part_of(graph, kept, values)
    inputs = {i.name: a for i, a in zip(part.inputs, arrays, strict=True)}
    return Bisection(graph.name, done, stage.name, wrong, part, inputs, found_in(kept))


# ---- words


def told(x: Any) -> str:
    """A number with its bits."""
    return f"{x!s} (0x{np.asarray(x).tobytes()[::-1].hex()})"


def _type(a: Any) -> str:
    return str(TensorType(dtype_of(a.dtype), a.shape)) if isinstance(a, np.ndarray) else str(a)


def brief(a: Array) -> str:
    """An array in a line."""
    shown = " ".join(str(x) for x in a.reshape(-1)[:6])
    return f"{Layout.of(forwards(a))} {shown}{' …' if a.size > 6 else ''}"
