"""What each op of the table must give: the oracle of single nodes, independent of code generation.

`comparison` says how an op is judged:

bits    every bit of its NumPy reference, which is exact (order rules included)
ulp     the functions of codegen/vmath.py: so many units in the last place of a result in higher precision
kernel  every bit of its kernels interpreted, with the machine code of those functions alone put in; and near its
        reference, which sums in another order
parts   every bit of its decomposition, each part judged by its own rule; and near its reference
graphs  branches and loops: the graphs they run, node by node
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.compiler import eager_run, frozen_attrs, graph_of, lower
from graphc.fuzz.difference import Difference, first_difference
from graphc.fuzz.near import near, ulps_apart
from graphc.ir import expr_numpy, narrow
from graphc.ir.graph import Graph, Value
from graphc.ir.op import Array, Attrs, Contraction, Control, Op, op_named
from graphc.ir.passes import decompose
from graphc.ir.types import Layout, TensorType, dtype_of
from graphc.runtime.interpret import interpret
from graphc.runtime.program import Program

# units in the last place that docs/numerics.md allows: float32, float64
ULPS: dict[str, tuple[float, float]] = {
    "exp": (1.0, 1.0), "log": (0.8, 0.8), "tanh": (1.3, 1.3), "sigmoid": (2.3, 2.3), "erf": (1.1, 2.1),
    "sin": (1.5, 0.8), "cos": (1.5, 0.8), "pow": (0.501, 1.2),
}  # fmt: skip
_FORMULAS = ("atan", "asin", "acos", "atan2", "erfc", "lgamma", "polygamma", "randn", "logcumsumexp")
# compositions whose reference rounds where they do
_EXACT = (
    "reciprocal", "rsqrt", "square", "isnan", "isinf", "isfinite", "clamp", "leaky_relu", "relu6", "select", "mean",
    "index", "index_put", "masked_fill", "embedding", "bernoulli", "dropout", "hardshrink", "softshrink",
    "threshold", "softsign",
)  # fmt: skip
_MOST_KEPT = 2000  # graphs and programs of single ops

Run = Callable[[Op, Sequence[Array], Attrs], Sequence[Array]]


def comparison(op: Op) -> str:
    """How `op` is judged: "bits", "ulp", "kernel", "parts" or "graphs"."""
    if isinstance(op.lower, Control):
        return "graphs"
    if op.name in ULPS:
        return "ulp"
    if op.name in _FORMULAS or isinstance(op.lower, Contraction):
        return "kernel"
    return "parts" if op.lower is None and op.name not in _EXACT else "bits"


def expected(op: Op, arrays: Sequence[Array], attrs: Attrs, run: Run = eager_run) -> list[Array]:
    """The results `op` must give on these operands. View ops give views.

    `run` is what is on trial: it answers for the functions that are judged by ulp. Raises Difference where it, or what
    was worked out here, is not near the reference.
    """
    rule = comparison(op)
    with np.errstate(all="ignore"):
        if rule == "graphs":
            return _controlled(op, list(arrays), attrs, run)
        if rule == "bits" or (rule == "ulp" and not _is_float(arrays[0])):
            return [np.asarray(a) for a in narrow.reference(op, arrays, attrs)]
        found = _parts(op, arrays, attrs, run)
        if found is None:
            found = _judged(op, arrays, attrs, run) if rule == "ulp" else _interpreted(op, arrays, attrs, run)
        if rule != "ulp":
            _check_near(op, arrays, attrs, found)
        return found


def _is_float(array: Array) -> bool:
    return dtype_of(array.dtype).is_floating_point


def _check_near(op: Op, arrays: Sequence[Array], attrs: Attrs, found: Sequence[Array]) -> None:
    wrong = near(op, arrays, attrs, found)
    if wrong is not None:
        k, wanted = wrong
        raise Difference(f"output {k} is not near the NumPy reference", "reference", op.name, wanted, found[k])


# ---- compositions, and branches and loops


def _parts(op: Op, arrays: Sequence[Array], attrs: Attrs, run: Run) -> list[Array] | None:
    """The results of the decomposition, or None for an op that is primitive on these operands."""
    types = [TensorType(dtype_of(a.dtype), a.shape) for a in arrays]
    if not narrow.composed(op, types, attrs):
        return None
    graph: Graph = _kept(("parts", op, *types, frozen_attrs(attrs)), lambda: _decomposed(op, types, attrs))
    if len(graph.nodes) == 1 and graph.nodes[0].op is op:
        return None
    return run_graph(graph, arrays, run)


def _decomposed(op: Op, types: Sequence[TensorType], attrs: Attrs) -> Graph:
    return decompose.run(graph_of(op, [Layout(t) for t in types], attrs))


def run_graph(graph: Graph, arrays: Sequence[Array], run: Run = eager_run) -> list[Array]:
    """The outputs a graph must give: `expected` of every node."""
    values: dict[Value, Array] = {i.value: a for i, a in zip(graph.inputs, arrays, strict=True)}
    for node in graph.nodes:
        values.update(zip(node.outputs, expected(node.op, [values[v] for v in node.inputs], node.attrs, run),
                          strict=True))  # fmt: skip
    return [values[o.value] for o in graph.outputs]


def _controlled(op: Op, arrays: list[Array], attrs: Attrs, run: Run) -> list[Array]:
    if op.name == "cond":
        return run_graph(attrs["then" if arrays[0] else "other"].graph, arrays[1:], run)
    if op.name == "while_loop":
        count = attrs["carries"]
        carried, captured = arrays[:count], arrays[count:]
        while run_graph(attrs["test"].graph, [*carried, *captured], run)[0]:
            carried = run_graph(attrs["body"].graph, [*carried, *captured], run)
        return carried
    return _scanned(op, arrays, attrs, run)


def _scanned(op: Op, arrays: list[Array], attrs: Attrs, run: Run) -> list[Array]:
    count, body, end = attrs["carries"], attrs["body"].graph, attrs["carries"] + attrs["scanned"]
    carried, xs, captured = arrays[:count], arrays[count:end], arrays[end:]
    types = op.infer_types([TensorType(dtype_of(a.dtype), a.shape) for a in arrays], attrs)
    ys = [np.zeros(t.sizes, t.dtype.np) for t in types[count:]]
    length = len(xs[0])
    for k in range(length - 1, -1, -1) if attrs["reverse"] else range(length):
        found = run_graph(body, [*carried, *(np.asarray(x[k]) for x in xs), *captured], run)
        carried = found[:count]
        for y, one in zip(ys, found[count:], strict=True):
            y[k] = one
    return [*carried, *ys]


# ---- functions that are approximated, and kernels that use them


def _judged(op: Op, arrays: Sequence[Array], attrs: Attrs, run: Run) -> list[Array]:
    """What `run` gives, if it is near enough to the exact result."""
    (found,) = run(op, arrays, attrs)
    limit = ULPS[op.name][found.dtype == np.float64]
    wanted, apart = ulps_apart(op.name, arrays, found)
    if apart.size and not float(apart.max()) <= limit:
        worst = np.unravel_index(int(np.argmax(apart)), apart.shape)
        text = f"{op.name}({', '.join(repr(np.broadcast_to(a, found.shape)[worst]) for a in arrays)})"
        raise Difference(f"{float(apart[worst])} ulp off, {limit} allowed: {text}", "reference", op.name, wanted, found)
    return [np.asarray(found)]


def _interpreted(op: Op, arrays: Sequence[Array], attrs: Attrs, run: Run) -> list[Array]:
    """The op's own kernels by their NumPy meaning."""
    plain = [np.ascontiguousarray(a).reshape(a.shape) for a in arrays]
    layouts = [Layout.of(a) for a in plain]
    program: Program = _kept(
        ("kernel", op, *layouts, frozen_attrs(attrs)), lambda: lower(graph_of(op, layouts, attrs), layouts, fuse=False)
    )
    with expr_numpy.functions(_native(run)):
        return interpret(program, plain)


def _native(run: Run) -> dict[str, Callable[..., Any]]:
    """The approximated functions as `run` computes them, on arrays that broadcast."""

    def function(name: str) -> Callable[..., Array]:
        op = op_named(name)

        def call(*arrays: Array) -> Array:
            shape = np.broadcast_shapes(*(np.shape(a) for a in arrays))
            flat = [np.ascontiguousarray(np.broadcast_to(a, shape)).reshape(-1) for a in arrays]
            return np.asarray(run(op, flat, {})[0]).reshape(shape)

        return call

    table = {name: function(name) for name in ULPS}
    return {**table, "logaddexp": lambda a, b: _logaddexp(table, a, b)}


def _logaddexp(table: dict[str, Callable[..., Array]], a: Array, b: Array) -> Array:
    """log(e^a + e^b) as docs/numerics.md has it: m + log1p(e^-|a - b|) by Kahan's formula, m the larger."""
    m, low = op_named("maximum").reference(a, b), op_named("minimum").reference(a, b)
    one = np.asarray(1, m.dtype)
    t = table["exp"](np.asarray(low - m))
    u = np.asarray(t + one)
    ratio = t / np.where(u == 1, one, u - one)
    more = np.where(u == 1, t, table["log"](u) * ratio)
    return np.asarray(np.where((np.abs(m) == np.inf) | (low == -np.inf), m, m + more))


_made: OrderedDict[Any, Any] = OrderedDict()


def _kept(key: Any, make: Callable[[], Any]) -> Any:
    found = _made.get(key)
    if found is None:
        found = _made[key] = make()
        while len(_made) > _MOST_KEPT:
            _made.popitem(last=False)
    return found


def check_op(
    op: Op, arrays: Sequence[Array], attrs: Attrs, found: Sequence[Array], where: str, node: Callable[[], str]
) -> list[Array]:
    """Compare what a run of `op` gave with what it must give, which is returned. Raises Difference, `node` telling
    where.
    """
    try:
        wanted = expected(op, arrays, attrs)
    except Difference as error:
        raise Difference(error.what, where, node(), error.expected, error.found) from None
    for k, (a, b) in enumerate(zip(wanted, found, strict=True)):
        if first_difference(a, b) is not None:
            raise Difference(f"output {k} of {op.name} differs from {_oracle(op)}", where, node(), a, b)
    return wanted


def _oracle(op: Op) -> str:
    return {
        "bits": "its NumPy reference", "ulp": "itself", "kernel": "its kernels interpreted",
        "parts": "its decomposition", "graphs": "the graphs it runs",
    }[comparison(op)]  # fmt: skip
