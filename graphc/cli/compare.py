"""A model run in every way, each compared with the next: the work of `graphc check`.

The yardstick is the recorded graph run op by op, each op by its own compiled kernel. Every pass, every target and every
number of threads must give the same bits; the NumPy reference of each op, and the kernel interpreter, must come close.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc import compiler
from graphc.cli.parts import controls
from graphc.codegen.target import X86_64_V3, X86_64_V4, Target, host_target
from graphc.ir.graph import Graph, Node, Value, copy_graph
from graphc.ir.narrow import reference
from graphc.ir.passes.dce import run as without_dead_code
from graphc.ir.types import dtype_of
from graphc.runtime.interpret import interpret
from graphc.runtime.pool import get_num_threads, set_num_threads

Array = np.ndarray[Any, Any]
Values = dict[Value, Array]
Runner = Callable[[Graph, Sequence[Array]], list[Array]]

# of the largest number of a node's operands and results
CLOSE = {"float16": 1e-2, "bfloat16": 8e-2, "float32": 1e-4, "float64": 1e-9}
SMALL_ELEMENTS = 2_000_000  # elements of all values: beyond, the kernel interpreter takes too long
SEARCHED = 400  # nodes compiled one by one to find the first that differs


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one comparison. `detail`: why it was left out, or the first difference; `place`: its line."""

    name: str
    status: str  # "same", "close", "differs" or "left out"
    detail: str = ""
    place: str = ""


def is_real(a: Array) -> bool:
    """Whether an array holds floats, bfloat16 among them (NumPy knows them as a foreign kind)."""
    return dtype_of(a.dtype).kind == "f"


def as_bits(a: Array) -> Array:
    """An array of complex numbers as their bits; any other as it is."""
    return np.ascontiguousarray(a).view(np.uint8) if a.dtype.kind == "c" else a


def _wide(a: Array) -> Array:
    """Floats as NumPy can test them, exactly."""
    return a if a.dtype.kind == "f" else a.astype(np.float32)


def same_bits(a: Array, b: Array) -> bool:
    """Equal dtype, shape and bits, all NaNs counted equal."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if not is_real(a):
        return bool(np.array_equal(as_bits(a), as_bits(b)))
    a, b = _wide(a), _wide(b)
    nan = np.isnan(a)
    equal = (a == b) & (np.signbit(a) == np.signbit(b))
    return bool(np.array_equal(nan, np.isnan(b)) and np.all(equal | nan))


def close(found: Array, wanted: Array, scale: float) -> bool:
    """Whether floats lie within CLOSE of each other, measured against `scale`; anything else must be equal."""
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return False
    if not is_real(found):
        return bool(np.array_equal(as_bits(found), as_bits(wanted)))
    relative = CLOSE[found.dtype.name]
    found, wanted = _wide(found), _wide(wanted)
    with np.errstate(all="ignore"):
        gap = np.abs(found.astype(np.float64) - wanted)
        limit = relative * np.maximum(np.abs(wanted.astype(np.float64)), scale)
        return bool(np.all((found == wanted) | (gap <= limit) | (np.isnan(found) & np.isnan(wanted))))


def run_by_op(graph: Graph, arrays: Sequence[Array]) -> Values:
    """Every value of `graph`, each node run by the eager kernel of its op."""
    values: Values = {i.value: a for i, a in zip(graph.inputs, arrays, strict=True)}
    for node in graph.nodes:
        results = compiler.eager_run(node.op, [values[v] for v in node.inputs], node.attrs)
        values.update(zip(node.outputs, results, strict=True))
    return values


def checks(graph: Graph, arrays: Sequence[Array]) -> Iterator[Finding]:
    """All comparisons, one after the other. `graph` has concrete sizes."""
    values = run_by_op(graph, arrays)
    yield _against_references(graph, values)
    stages: list[tuple[str, Graph]] = []
    compiler.optimise(graph, trace=lambda name, g: stages.append((name, g)))
    for name, stage in stages:
        wanted = [values[o.value] for o in graph.outputs]
        if _first_wrong(wanted, _outputs_by_op(stage, arrays)) is None:
            yield Finding(f"after {name}", "same")
        else:
            yield _located(f"after {name}", graph, arrays, values, _up_to(name))
    yield _by_interpreter(stages[-1][1], graph, arrays, values)
    for target in targets():
        for threads in (1, 2):
            yield _native(graph, arrays, values, target, threads)


def targets() -> list[Target]:
    """The targets this machine can run, the best first."""
    best = host_target()
    return [best, X86_64_V3] if best is X86_64_V4 else [best]


def _against_references(graph: Graph, values: Values) -> Finding:
    """Each node's NumPy reference on the very operands the eager kernel had, so that errors do not add up."""
    for node in graph.nodes:
        operands = [values[v] for v in node.inputs]
        with np.errstate(all="ignore"):
            wanted = reference(node.op, operands, node.attrs)
        for k, (v, w) in enumerate(zip(node.outputs, wanted, strict=True)):
            expected = np.asarray(w)
            if not close(values[v], expected, _scale([*operands, expected])):
                return _difference("NumPy reference", node, k, values[v], expected)
    return Finding("NumPy reference", "close")


def _scale(arrays: Sequence[Array]) -> float:
    """The largest finite magnitude among float arrays: what rounding errors are measured against."""
    found = 0.0
    for a in arrays:
        if is_real(a) and a.size:
            wide = _wide(a)
            finite = np.abs(wide[np.isfinite(wide)])
            found = max(found, float(finite.max(initial=0.0)))
    return found


def _up_to(name: str) -> Runner:
    """Runs a graph op by op after the passes up to and including `name`."""

    def run(graph: Graph, arrays: Sequence[Array]) -> list[Array]:
        found: list[Graph] = []
        compiler.optimise(graph, trace=lambda n, g: found.append(g) if n == name else None)
        return _outputs_by_op(found[0], arrays)

    return run


def _outputs_by_op(graph: Graph, arrays: Sequence[Array]) -> list[Array]:
    values = run_by_op(graph, arrays)
    return [values[o.value] for o in graph.outputs]


def _by_interpreter(stage: Graph, graph: Graph, arrays: Sequence[Array], values: Values) -> Finding:
    name = "kernel interpreter"
    elements = sum(a.size for a in values.values())
    if elements > SMALL_ELEMENTS:
        return Finding(name, "left out", f"{elements:,} elements are too many for it")
    if controls(stage):
        return Finding(name, "left out", "it runs no branches and loops")
    found = interpret(compiler.lower(stage), list(arrays))
    scale = _scale(list(values.values()))
    for o, array in zip(graph.outputs, found, strict=True):
        if not close(array, values[o.value], scale):
            where = _describe(o.value.node, o.value.index, array, values[o.value])
            return Finding(name, "differs", f"output {o.name}: {where}", _place(o.value.node))
    return Finding(name, "close")


def _native(graph: Graph, arrays: Sequence[Array], values: Values, target: Target, threads: int) -> Finding:
    name = f"compiled for {target.name}, {threads} thread{'s' * (threads > 1)}"

    def run(part: Graph, inputs: Sequence[Array]) -> list[Array]:
        # copies: state is written in place
        return compiler.compile_graph(part, target=target)([np.array(a, order="C") for a in inputs])

    before = get_num_threads()
    set_num_threads(threads)
    try:
        wrong = _first_wrong([values[o.value] for o in graph.outputs], run(graph, arrays))
        return Finding(name, "same") if wrong is None else _located(name, graph, arrays, values, run)
    finally:
        set_num_threads(before)


def _first_wrong(wanted: Sequence[Array], found: Sequence[Array]) -> int | None:
    return next((k for k, (w, f) in enumerate(zip(wanted, found, strict=True)) if not same_bits(w, f)), None)


def _located(name: str, graph: Graph, arrays: Sequence[Array], values: Values, run: Runner) -> Finding:
    """The first node whose value, as the only output of the graph, already differs; else the first output that does."""
    for node in graph.nodes[:SEARCHED]:
        for k, value in enumerate(node.outputs):
            found = run(_only(graph, value), arrays)[0]
            if not same_bits(values[value], found):
                return _difference(name, node, k, found, values[value])
    results = run(graph, arrays)
    wrong = _first_wrong([values[o.value] for o in graph.outputs], results)
    if wrong is None:
        return Finding(name, "differs", "in one run and not in the next")
    o = graph.outputs[wrong]
    detail = f"output {o.name}: {_describe(o.value.node, o.value.index, results[wrong], values[o.value])}"
    return Finding(name, "differs", detail, _place(o.value.node))


def _only(graph: Graph, value: Value) -> Graph:
    """A copy of `graph` with `value` as its one output."""
    copy, mapping = copy_graph(graph)
    copy.outputs = []
    copy.add_output(mapping[value], "probe")
    return without_dead_code(copy)


def _difference(name: str, node: Node, output: int, found: Array, wanted: Array) -> Finding:
    return Finding(name, "differs", _describe(node, output, found, wanted), _place(node))


def _describe(node: Node | None, output: int, found: Array, wanted: Array) -> str:
    head = "an input" if node is None else node.op.name + (f" (result {output})" if len(node.outputs) > 1 else "")
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return f"{head} is {found.dtype}{list(found.shape)}, expected {wanted.dtype}{list(wanted.shape)}"
    if is_real(found):
        found, wanted = _wide(found), _wide(wanted)
    wrong = (found != wanted) & ~((found != found) & (wanted != wanted))
    if not wrong.any() and found.dtype.kind == "f":
        wrong = np.signbit(found) != np.signbit(wanted)
    place = tuple(int(k) for k in np.argwhere(wrong)[0])
    count = f"{int(wrong.sum())} of {wrong.size} elements"
    return f"{head} differs in {count}; at {list(place)} {found[place]!s}, expected {wanted[place]!s}"


def _place(node: Node | None) -> str:
    return str(node.loc) if node is not None and node.loc is not None and node.loc.filename else ""
