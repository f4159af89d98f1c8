"""Branches and loops: nodes whose attributes hold the graphs they run.

Such a graph sees nothing but its inputs, which are operands of the node, and has no effects, so a branch not taken
leaves no trace. No gradient flows through one of these: where it must, the front end records what ran instead. They
are not lowered to kernels; runtime/segments.py runs them between pieces of native code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from graphc.errors import ArgumentError, ShapeError
from graphc.ir.graph import Graph, Value
from graphc.ir.op import Array, Control, Op, Sample, define, op_named
from graphc.ir.subgraph import Subgraph
from graphc.ir.types import Size, TensorType, bool_, float32, int64

_FLAG = TensorType(bool_, ())


def _listed(types: Sequence[TensorType]) -> str:
    return ", ".join(map(str, types)) or "none"


def _check_inputs(op: str, name: str, graph: Subgraph, given: Sequence[TensorType]) -> None:
    if graph.inputs != tuple(given):
        raise ShapeError(f"{op}: {name} takes {_listed(graph.inputs)}, but is given {_listed(given)}; make them equal")
    kinds = {i.kind for i in graph.graph.inputs} | {o.kind for o in graph.graph.outputs}
    if not kinds <= {"input", "output"}:
        raise ArgumentError(f"{op}: {name} has state or named results; only plain inputs and outputs can be within")


def _split(op: str, types: Sequence[TensorType], *counts: int) -> list[tuple[TensorType, ...]]:
    """Types in groups of these numbers, and the rest."""
    if counts[0] < (op == "while_loop") or min(counts) < 0 or sum(counts) > len(types):
        raise ArgumentError(f"{op}: {len(types)} operands cannot be split into {list(counts)} and captured ones")
    found, start = [], 0
    for count in (*counts, len(types) - sum(counts)):
        found.append(tuple(types[start : start + count]))
        start += count
    return found


def _infer_cond(pred: TensorType, *captures: TensorType, then: Subgraph, other: Subgraph) -> tuple[TensorType, ...]:
    if pred is not _FLAG:
        raise ShapeError(f"cond: operand 0 is {pred}, expected bool[]; compare, or use all()")
    for name, graph in (("then", then), ("other", other)):
        _check_inputs("cond", name, graph, captures)
    if then.outputs != other.outputs or not then.outputs:
        raise ShapeError(
            f"cond: then gives {_listed(then.outputs)}, other gives {_listed(other.outputs)}; both must give the same, "
            "and something"
        )
    return then.outputs


def _cond(pred: Array, *captures: Array, then: Subgraph, other: Subgraph) -> tuple[Array, ...]:
    return tuple((then if pred else other).run(captures))


def _infer_while(*types: TensorType, test: Subgraph, body: Subgraph, carries: int) -> tuple[TensorType, ...]:
    carried, _ = _split("while_loop", types, carries)
    for name, graph, wanted in (("test", test, (_FLAG,)), ("body", body, carried)):
        _check_inputs("while_loop", name, graph, types)
        if graph.outputs != wanted:
            raise ShapeError(f"while_loop: {name} gives {_listed(graph.outputs)}, expected {_listed(wanted)}")
    return carried


def _while_loop(*arrays: Array, test: Subgraph, body: Subgraph, carries: int) -> tuple[Array, ...]:
    carried, captured = list(arrays[:carries]), arrays[carries:]
    while test.run([*carried, *captured])[0]:
        carried = body.run([*carried, *captured])
    return tuple(carried)


def _infer_scan(
    *types: TensorType, body: Subgraph, carries: int, scanned: int, reverse: bool
) -> tuple[TensorType, ...]:
    carried, xs, captured = _split("scan", types, carries, scanned)
    length = _length(xs)
    slices = [TensorType(x.dtype, x.shape[1:]) for x in xs]
    _check_inputs("scan", "body", body, [*carried, *slices, *captured])
    if body.outputs[:carries] != carried or not body.outputs:
        raise ShapeError(f"scan: body gives {_listed(body.outputs)}, expected {_listed(carried)} first")
    return (*carried, *(TensorType(y.dtype, (length, *y.shape)) for y in body.outputs[carries:]))


def _length(xs: Sequence[TensorType]) -> Size:
    if not xs or not all(x.ndim for x in xs):
        raise ShapeError(f"scan: there is nothing to go through in {_listed(xs)}; give tensors with a dimension")
    if any(x.shape[0] != xs[0].shape[0] for x in xs):
        raise ShapeError(f"scan: {_listed(xs)} differ in size along dim 0")
    return xs[0].shape[0]


def _scan(*arrays: Array, body: Subgraph, carries: int, scanned: int, reverse: bool) -> tuple[Array, ...]:
    carried, xs, captured = list(arrays[:carries]), arrays[carries : carries + scanned], arrays[carries + scanned :]
    length = len(xs[0])
    ys = [np.empty((length, *y.sizes), y.dtype.np) for y in body.outputs[carries:]]
    for k in reversed(range(length)) if reverse else range(length):
        found = body.run([*carried, *(x[k] for x in xs), *captured])
        carried = found[:carries]
        for y, one in zip(ys, found[carries:], strict=True):
            y[k] = one
    return (*carried, *ys)


# ---------------------------------------------------------------- samples


def _graph(name: str, types: Sequence[TensorType]) -> tuple[Graph, list[Value]]:
    graph = Graph(name)
    return graph, [graph.add_input(t, f"x{k}") for k, t in enumerate(types)]


def _ending(graph: Graph, *values: Value) -> Subgraph:
    for k, value in enumerate(values):
        graph.add_output(value, f"y{k}")
    return Subgraph(graph)


def _cond_samples(rng: np.random.Generator) -> Iterator[Sample]:
    t = TensorType(float32, (3,))
    for pred in (True, False):
        then, (a, b) = _graph("then", (t, t))
        other, (c, d) = _graph("other", (t, t))
        attrs = {"then": _ending(then, op_named("mul")(a, b), b), "other": _ending(other, d, op_named("exp")(c))}
        yield Sample((np.asarray(pred), rng.normal(size=3), rng.normal(size=3)), attrs, f"{pred}", grad=False)


def _while_samples(rng: np.random.Generator) -> Iterator[Sample]:
    types = (TensorType(float32, (2,)), TensorType(int64, ()), TensorType(int64, ()))
    for rounds in (0, 1, 5):
        test, (_, k, n) = _graph("test", types)
        body, (x, m, _) = _graph("body", types)
        attrs = {"test": _ending(test, op_named("lt")(k, n)), "carries": 2}
        attrs["body"] = _ending(body, op_named("mul")(x, 0.75), op_named("add")(m, 1))
        start = rng.normal(size=2), np.asarray(0), np.asarray(rounds)
        yield Sample(start, attrs, f"{rounds} rounds", grad=False)


def _scan_samples(rng: np.random.Generator) -> Iterator[Sample]:
    t = TensorType(float32, (2,))
    for length, reverse in ((4, False), (3, True), (0, False)):
        body, (carry, x, w) = _graph("body", (t, t, t))
        total = op_named("add")(op_named("mul")(carry, w), x)
        attrs = {"body": _ending(body, total, op_named("neg")(total), x), "carries": 1, "scanned": 1}
        arrays = rng.normal(size=2), rng.normal(size=(length, 2)), rng.normal(size=2)
        yield Sample(arrays, {**attrs, "reverse": reverse}, f"{length}, {reverse}", grad=False)


cond = define(
    Op(
        "cond", _infer_cond, _cond, _cond_samples, Control(), dtypes=(float32,), any_width=True, differentiable=False,
        arity=None, outputs=None,
        doc="The results of `then` if operand 0 holds, else those of `other`; both are given the remaining operands.",
    )
)  # fmt: skip
while_loop = define(
    Op(
        "while_loop", _infer_while, _while_loop, _while_samples, Control(), dtypes=(float32,), any_width=True,
        differentiable=False, arity=None, outputs=None,
        doc="While `test` holds, the first `carries` operands become what `body` gives; both see all operands.",
    )
)  # fmt: skip
scan = define(
    Op(
        "scan", _infer_scan, _scan, _scan_samples, Control(), dtypes=(float32,), any_width=True, differentiable=False,
        arity=None, outputs=None,
        doc="Along axis 0 of the `scanned` operands after the first `carries`: `body` gives the next carries, and ys "
        "that are stacked; the remaining operands are the same in every step.",
    )
)  # fmt: skip
