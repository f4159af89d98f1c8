"""Graph passes: they keep every bit, leave valid graphs, do nothing twice, and do what they promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from random_graphs import random_array, random_graph, random_inputs, same_bits

from graphc.errors import ArgumentError, InternalError
from graphc.ir import dag
from graphc.ir.graph import Graph, Location, Value
from graphc.ir.op import Sample, all_ops, op_named
from graphc.ir.passes import cse, dce, decompose, fold, simplify
from graphc.ir.passes.bind import bind_dims
from graphc.ir.rewrite import attr_key, rebuild, uniform
from graphc.ir.text import print_graph
from graphc.ir.types import DTYPES, Dim, TensorType, bool_, float32, float64, int64
from graphc.ir.verify import verify
from graphc.runtime.reference import find_dims, run_graph, trace


def by_reference(op: Any, arrays: Any, attrs: Any) -> list[Any]:
    with np.errstate(all="ignore"):
        found = op.reference(*arrays, **attrs)
    return list(found) if isinstance(found, tuple) else [found]


def fold_all(graph: Graph) -> Graph:
    return fold.run(graph, by_reference)


def every_pass(graph: Graph) -> Graph:
    for run in (decompose.run, fold_all, simplify.run, cse.run, dce.run):
        graph = run(graph)
    return graph


PASSES: dict[str, Callable[[Graph], Graph]] = {
    "decompose": decompose.run,
    "fold": fold.run,
    "fold_all": fold_all,
    "simplify": simplify.run,
    "cse": cse.run,
    "dce": dce.run,
    "every": every_pass,
}


def call(name: str, *operands: Any, **attrs: Any) -> Any:
    return op_named(name)(*operands, **attrs)


def assert_same_results(before: Graph, after: Graph, arrays: list[Any]) -> None:
    for a, b in zip(run_graph(before, arrays), run_graph(after, arrays), strict=True):
        assert same_bits(a, b), f"{before}\n{after}"


@pytest.mark.parametrize("name", PASSES)
def test_passes_keep_every_bit_and_do_nothing_twice(name: str) -> None:
    changed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng)
        text = print_graph(graph)
        after = PASSES[name](graph)
        verify(after, primitive=name in ("decompose", "every"))
        assert print_graph(graph) == text, "a pass must leave its argument alone"
        arrays = random_inputs(rng, graph)
        assert_same_results(graph, after, arrays)
        if name != "every":
            assert PASSES[name](after) is after
        changed += after is not graph
    assert changed > 10


# ---------------------------------------------------------------- decompose


def samples_of_compositions() -> Iterator[tuple[str, Sample]]:
    for op in all_ops().values():
        if op.decompose is not None and op.arity is not None:
            yield from ((op.name, s) for s in op.samples(np.random.default_rng(0)))


def test_every_composition_ends_in_primitives_of_the_same_types() -> None:
    for name, sample in samples_of_compositions():
        graph = Graph(name)
        values = [
            graph.add_input(TensorType(float32 if a.dtype.kind == "f" else _dtype(a), a.shape), f"x{k}")
            for k, a in enumerate(sample.inputs)
        ]
        outputs = graph.add(op_named(name), values, sample.attrs)
        for k, v in enumerate(outputs):
            graph.add_output(v, f"y{k}")
        verify(decompose.run(graph), primitive=True)


def _dtype(array: Any) -> Any:
    return next(t for t in DTYPES if t.np == array.dtype)


def test_decomposed_nodes_keep_line_module_and_phase() -> None:
    graph = Graph()
    x = graph.add_input(TensorType(float32, (2, 3)), "x")
    graph.loc, graph.module, graph.phase = Location(file="a.py", number=7), "head", "backward"
    y = call("softmax", x, dim=1)
    y.name = "probabilities"
    graph.add_output(y, "y")
    out = decompose.run(graph)
    assert len(out.nodes) > 3
    assert {(str(n.loc), n.module, n.phase) for n in out.nodes} == {("a.py:7", "head", "backward")}
    assert out.outputs[0].value.name == "probabilities"


def test_a_rule_that_never_ends_is_our_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph()
    x = graph.add_input(TensorType(float32, (2,)), "x")
    graph.add_output(call("square", x), "y")
    square = graph.nodes[0].op
    endless = Graph()
    endless_x = endless.add_input(x.type, "x")
    loop = replace(square, decompose=lambda x: x.graph.apply(loop, (x,), {}))
    endless.add_output(endless.apply(loop, (endless_x,), {}), "y")
    with pytest.raises(InternalError, match="decompose does not end; it may be caused by square"):
        decompose.run(endless)


# ---------------------------------------------------------------- fold


def constants_graph(size: int) -> Graph:
    graph = Graph()
    x = graph.add_input(TensorType(float32, (size,)), "x")
    c = graph.constant(np.arange(size, dtype=np.float32))
    graph.add_output(call("add", call("flip", call("mul", c, c), dims=(0,)), x), "y")
    return graph


def names(graph: Graph) -> list[str]:
    return [n.op.name for n in dce.run(graph).nodes]


def test_fold_of_arithmetic_needs_an_evaluator() -> None:
    graph = constants_graph(5)
    assert fold.run(graph) is graph
    assert names(fold_all(graph)) == ["constant", "add"]


def test_fold_moves_constants_without_an_evaluator() -> None:
    graph = Graph()
    c = graph.constant(np.arange(6.0).reshape(2, 3))
    graph.add_output(call("reshape", call("permute", c, dims=(1, 0)), shape=(6,)), "y")
    out = fold.run(graph)
    assert names(out) == ["constant"]
    verify(out)


def test_fold_leaves_large_results() -> None:
    graph = Graph()
    c = graph.constant(np.zeros((1, 4)))
    graph.add_output(call("expand", c, shape=(1_000_000, 4)), "y")
    assert fold_all(graph) is graph
    graph = constants_graph(100_000)  # results no larger than the operands are folded at any size
    assert names(fold_all(graph)) == ["constant", "add"]


def test_fold_gives_the_evaluator_op_arrays_and_attributes() -> None:
    calls = []

    def evaluator(op: Any, arrays: Any, attrs: Any) -> list[Any]:
        calls.append((op.name, [a.shape for a in arrays], dict(attrs)))
        return by_reference(op, arrays, attrs)

    fold.run(constants_graph(3), evaluator)
    assert calls == [("mul", [(3,), (3,)], {})]  # flip moves values only: NumPy does that exactly


# ---------------------------------------------------------------- simplify

F = TensorType(float32, (2, 3))
D = TensorType(float64, (2, 3))
I = TensorType(int64, (2, 3))  # noqa: E741
B = TensorType(bool_, (2, 3))
V = TensorType(float32, (6,))

# operand types, the expression, and what it must become (ops left, None: operand 0 itself)
RULES: list[tuple[str, tuple[TensorType, ...], Callable[..., Value], list[str]]] = [
    ("x + -0.0", (F,), lambda x: call("add", x, -0.0), []),
    ("-0.0 + x", (F,), lambda x: call("add", x.graph.scalar(-0.0, float32), x), []),
    ("int x + 0", (I,), lambda x: call("add", x, 0), []),
    ("x - 0.0", (F,), lambda x: call("sub", x, 0.0), []),
    ("int x - 0", (I,), lambda x: call("sub", x, 0), []),
    ("x * 1", (F,), lambda x: call("mul", x, 1.0), []),
    ("1 * x", (I,), lambda x: call("mul", x.graph.scalar(1, int64), x), []),
    ("x * full(1)", (F,), lambda x: call("mul", x, call("full", shape=(2, 3), value=1, dtype=float32)), []),
    ("x * -1", (F,), lambda x: call("mul", x, -1.0), ["neg"]),
    ("int x * 0", (I,), lambda x: call("mul", x, call("full", shape=(2, 3), value=0, dtype=int64)), ["full"]),
    ("x / 1", (F,), lambda x: call("div", x, 1.0), []),
    ("x / 4", (F,), lambda x: call("div", x, 4.0), ["constant", "mul"]),
    ("x / -0.5", (D,), lambda x: call("div", x, -0.5), ["constant", "mul"]),
    ("x + -y", (F, F), lambda x, y: call("add", x, call("neg", y)), ["sub"]),
    ("-x + y", (F, F), lambda x, y: call("add", call("neg", x), y), ["sub"]),
    ("x - -y", (F, F), lambda x, y: call("sub", x, call("neg", y)), ["add"]),
    ("--x", (F,), lambda x: call("neg", call("neg", x)), []),
    ("int --x", (I,), lambda x: call("neg", call("neg", x)), []),
    ("abs(abs(x))", (F,), lambda x: call("abs", call("abs", x)), ["abs"]),
    ("abs(-x)", (I,), lambda x: call("abs", call("neg", x)), ["abs"]),
    ("max(x, x)", (F,), lambda x: call("maximum", x, x), []),
    ("min(x, x)", (I,), lambda x: call("minimum", x, x), []),
    ("floor(round(x))", (F,), lambda x: call("floor", call("round", x)), ["round"]),
    ("relu(relu(x))", (F,), lambda x: call("relu", call("relu", x)), ["relu"]),
    ("int x ** 1", (I,), lambda x: call("pow", x, 1), []),
    ("x & x", (B,), lambda x: call("bitwise_and", x, x), []),
    ("x | x", (I,), lambda x: call("bitwise_or", x, x), []),
    ("x & True", (B,), lambda x: call("bitwise_and", x, True), []),
    ("int x & -1", (I,), lambda x: call("bitwise_and", x, -1), []),
    ("x | False", (B,), lambda x: call("bitwise_or", x, False), []),
    ("x ^ 0", (I,), lambda x: call("bitwise_xor", x, 0), []),
    ("~~x", (I,), lambda x: call("bitwise_not", call("bitwise_not", x)), []),
    ("where(True, x, y)", (F, F), lambda x, y: call("where", x.graph.scalar(True, bool_), x, y), []),
    ("where(False, y, x)", (F, F), lambda x, y: call("where", x.graph.scalar(False, bool_), y, x), []),
    ("where(c, x, x)", (F, B), lambda x, c: call("where", c, x, x), []),
    ("where(~c, x, y)", (F, F, B), lambda x, y, c: call("where", call("bitwise_not", c), x, y), ["where"]),
    ("cast to itself", (F,), lambda x: call("cast", x, dtype=float32), []),
    ("f32 to f64 and back", (F,), lambda x: call("cast", call("cast", x, dtype=float64), dtype=float32), []),
    ("f32 to f64 to i64", (F,), lambda x: call("cast", call("cast", x, dtype=float64), dtype=int64), ["cast"]),
    ("b1 to i64 to f32", (B,), lambda x: call("cast", call("cast", x, dtype=int64), dtype=float32), ["cast"]),
    ("reshape to itself", (F,), lambda x: call("reshape", x, shape=(2, 3)), []),
    ("reshape twice", (F,), lambda x: call("reshape", call("reshape", x, shape=(6,)), shape=(3, 2)), ["reshape"]),
    ("reshape and back", (F,), lambda x: call("reshape", call("reshape", x, shape=(6,)), shape=(2, 3)), []),
    ("expand to itself", (F,), lambda x: call("expand", x, shape=(2, 3)), []),
    ("expand twice", (V,), lambda x: call("expand", call("expand", x, shape=(1, 6)), shape=(4, 6)), ["expand"]),
    ("permute by nothing", (F,), lambda x: call("permute", x, dims=(0, 1)), []),
    ("permute and back", (F,), lambda x: call("permute", call("permute", x, dims=(1, 0)), dims=(1, 0)), []),
    ("permute twice", (TensorType(float32, (2, 3, 4)),),
     lambda x: call("permute", call("permute", x, dims=(1, 2, 0)), dims=(0, 2, 1)), ["permute"]),
    ("the whole slice", (V,), lambda x: call("slice", x, dim=0, start=0, stop=6, step=1), []),
    ("slice of a slice", (V,), lambda x: call(
        "slice", call("slice", x, dim=0, start=1, stop=6, step=2), dim=0, start=1, stop=3, step=1), ["slice"]),
    ("stepped slice of a slice", (V,), lambda x: call(
        "slice", call("slice", x, dim=0, start=1, stop=6, step=1), dim=0, start=0, stop=5, step=3), ["slice"]),
    ("flip and back", (F,), lambda x: call("flip", call("flip", x, dims=(0, 1)), dims=(0, 1)), []),
    ("flip twice", (F,), lambda x: call("flip", call("flip", x, dims=(0,)), dims=(0, 1)), ["flip"]),
    ("flip of one", (TensorType(float32, (1, 3)),), lambda x: call("flip", x, dims=(0,)), []),
    ("pad by nothing", (F,), lambda x: call("pad", x, pads=((0, 0), (0, 0)), value=1.0), []),
    ("cat of one", (F,), lambda x: call("cat", x, dim=0), []),
    ("cat with an empty part", (F, TensorType(float32, (2, 0))), lambda x, e: call("cat", e, x, e, dim=1), []),
    ("clone twice", (F,), lambda x: call("clone", call("clone", x)), ["clone"]),
    ("sum over one", (TensorType(float32, (2, 1, 3)),), lambda x: call("sum", x, dim=(1,), keepdim=False), ["reshape"]),
    ("sum over nothing", (F,), lambda x: call("sum", x, dim=(), keepdim=False), []),
    ("amax over one", (TensorType(float32, (1,)),), lambda x: call("amax", x, dim=(0,), keepdim=True), []),
]  # fmt: skip


def rule_graph(types: tuple[TensorType, ...], build: Callable[..., Value]) -> Graph:
    graph = Graph()
    values = [graph.add_input(t, f"x{k}") for k, t in enumerate(types)]
    with graph.building():
        graph.add_output(build(*values), "y")
    return graph


@pytest.mark.parametrize(("types", "build", "left"), [r[1:] for r in RULES], ids=[r[0] for r in RULES])
def test_rules_apply_and_are_exact(types: Any, build: Any, left: list[str]) -> None:
    graph = rule_graph(types, build)
    out = simplify.run(graph)
    verify(out)
    assert names(out) == left
    rng = np.random.default_rng(3)
    for _ in range(20):
        assert_same_results(graph, out, [random_array(rng, t) for t in types])


def test_every_rule_is_tested() -> None:
    tested = {n.op.name for _, types, build, _ in RULES for n in rule_graph(types, build).nodes}
    # these share their rule with a tested op
    assert set(simplify.RULES) - tested == {"ceil", "trunc", "prod", "amin"}


INEXACT: list[tuple[str, TensorType, Callable[[Value], Value]]] = [
    ("x + 0.0", F, lambda x: call("add", x, 0.0)),
    ("x - -0.0", F, lambda x: call("sub", x, -0.0)),
    ("x * 0", F, lambda x: call("mul", x, 0.0)),
    ("x - x", F, lambda x: call("sub", x, x)),
    ("x / x", F, lambda x: call("div", x, x)),
    ("x / 3", F, lambda x: call("div", x, 3.0)),
    ("x / 2^-140", F, lambda x: call("div", x, 2.0**-140)),
    ("-(x - 1)", F, lambda x: call("neg", call("sub", x, 1.0))),
    ("f64 to f32 and back", D, lambda x: call("cast", call("cast", x, dtype=float32), dtype=float64)),
    ("i64 to f64 and back", I, lambda x: call("cast", call("cast", x, dtype=float64), dtype=int64)),
    ("int to bool and back", I, lambda x: call("cast", call("cast", x, dtype=bool_), dtype=int64)),
    ("x == x", F, lambda x: call("eq", x, x)),
    ("a broadcast that 1 makes", TensorType(float32, (3,)),
     lambda x: call("mul", x, call("full", shape=(2, 3), value=1, dtype=float32))),
    ("slice of another axis", F, lambda x: call(
        "slice", call("slice", x, dim=0, start=0, stop=1, step=1), dim=1, start=0, stop=1, step=1)),
    ("sum over two", F, lambda x: call("sum", x, dim=(0,), keepdim=False)),
    ("one clone", F, lambda x: call("clone", x)),
]  # fmt: skip


@pytest.mark.parametrize(("type", "build"), [r[1:] for r in INEXACT], ids=[r[0] for r in INEXACT])
def test_what_is_not_exact_is_left_alone(type: TensorType, build: Any) -> None:
    graph = rule_graph((type,), build)
    assert simplify.run(graph) is graph


def test_uniform_reads_constants_through_movement() -> None:
    graph = Graph()
    x = graph.add_input(F, "x")
    c = call("expand", call("reshape", graph.scalar(0.1, float32), shape=(1, 1)), shape=(2, 3))
    with graph.building():
        assert uniform(call("full", shape=(2,), value=0.1, dtype=float32)) == np.float32(0.1)
    assert uniform(c) == np.float32(0.1)
    assert uniform(x) is None
    assert uniform(graph.constant(np.ones(3))) is None


def test_simplify_leaves_named_sizes_to_their_binding() -> None:
    graph = Graph()
    x = graph.add_input(TensorType(float32, (Dim("N"), 3)), "x")
    graph.add_output(call("mean", x, dim=(0,), keepdim=False), "y")
    graph = decompose.run(graph)
    assert simplify.run(graph) is graph
    assert "full" in [n.op.name for n in graph.nodes]


# ---------------------------------------------------------------- cse, dce


def test_cse_tells_values_of_different_kinds_apart() -> None:
    different = [
        1,
        1.0,
        True,
        0.0,
        -0.0,
        0,
        False,
        None,
        "1",
        float("nan"),
        (1,),
        (1.0,),
        np.ones(1),
        np.ones(1, np.float32),
    ]
    keys = [attr_key(v) for v in different]
    assert len(dict.fromkeys(keys)) == len(different)
    assert attr_key(np.array(-0.0)) != attr_key(np.array(0.0))
    assert attr_key(float("nan")) == attr_key(float("nan"))


def test_cse_keeps_the_first_and_follows_users() -> None:
    graph = Graph()
    x = graph.add_input(F, "x")
    one, two = graph.scalar(1.0, float32), graph.scalar(1.0, float32)
    minus, plus = graph.scalar(-0.0, float32), graph.scalar(0.0, float32)
    for k, v in enumerate((call("add", x, one), call("add", x, two), call("add", x, minus), call("add", x, plus))):
        graph.add_output(v, f"y{k}")
    out = cse.run(graph)
    verify(out)
    assert len(out.nodes) == len(graph.nodes) - 2
    assert out.outputs[0].value is out.outputs[1].value
    assert out.outputs[2].value is not out.outputs[3].value


def test_dce_drops_what_no_output_needs_and_keeps_inputs() -> None:
    graph = Graph()
    x = graph.add_input(F, "x")
    graph.add_input(F, "unused")
    y = call("neg", x)
    call("exp", call("abs", y))
    graph.add_output(y, "y")
    out = dce.run(graph)
    verify(out)
    assert names(out) == ["neg"] and len(out.nodes) == 1
    assert [i.name for i in out.inputs] == ["x", "unused"]


def test_golden_passes(golden: Callable[[str, str], None]) -> None:
    graph = Graph("mlp")
    x = graph.add_input(TensorType(float32, (4, 3)), "x")
    w = graph.add_input(TensorType(float32, (2, 3)), "0.weight", "state")
    with graph.building():
        graph.module, graph.loc = "0", Location(file="model.py", number=11)
        h = call("linear", x, w)
        graph.module, graph.loc = "", Location(file="model.py", number=12)
        y = call("softmax", call("mul", call("add", h, -0.0), 1.0), dim=1)
        z = call("sub", call("softmax", h, dim=1), call("neg", y))
        call("exp", z)
    graph.add_output(z, "z")
    stages = {"recorded": graph}
    for name in ("decompose", "fold", "simplify", "cse", "dce"):
        stages[name] = PASSES[name](list(stages.values())[-1])
    golden("passes.graph", "\n".join(f"# {name}\n{print_graph(g)}" for name, g in stages.items()))


# ---------------------------------------------------------------- bind, rewrite, dag, reference


def dynamic() -> Graph:
    n = Dim("N")
    graph = Graph("dynamic")
    x = graph.add_input(TensorType(float32, (n, 3)), "x")
    y = call("reshape", x, shape=(3 * n,))
    y.name = "flat"
    with graph.building():
        graph.add_output(call("cat", y, call("full", shape=(n,), value=2.0, dtype=float32), dim=0), "y")
    return graph


def test_bind_replaces_names_by_numbers() -> None:
    graph = dynamic()
    out = bind_dims(graph, {"N": 5})
    verify(out)
    assert out.symbols() == () and out.nodes[0].attrs["shape"] == (15,)
    assert str(out.outputs[0].value.type) == "f32[20]" and out.nodes[0].out.name == "flat"
    assert bind_dims(out, {}) is out
    with pytest.raises(ArgumentError, match="'N'"):
        bind_dims(graph, {"M": 5})


def test_reference_reads_named_sizes_off_the_inputs() -> None:
    graph = dynamic()
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (y,) = run_graph(graph, [x])
    assert y.tolist() == [0, 1, 2, 3, 4, 5, 2, 2]
    values = trace(graph, [x])
    assert list(values) == list(graph.values())
    assert values[graph.nodes[0].out].shape == (6,)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([], "1 inputs are expected, 0 are given"),
        ([np.zeros((2, 3))], "input 'x' is f64"),
        ([np.zeros((2, 4), np.float32)], r"has shape \[2, 4\], expected \[2, 3\]"),
        ([np.zeros(3, np.float32)], "has 1 dimensions, expected 2"),
    ],
)
def test_reference_refuses_what_does_not_fit(arrays: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        run_graph(dynamic(), arrays)


def test_sizes_that_disagree_are_refused() -> None:
    graph = Graph()
    for name in ("a", "b"):
        graph.add_input(TensorType(float32, (Dim("N"),)), name)
    with pytest.raises(ArgumentError, match="input 'b' has shape"):
        find_dims(graph, [np.zeros(2), np.zeros(3)])


def test_results_are_new_arrays() -> None:
    graph = Graph()
    x = graph.add_input(F, "x")
    graph.add_output(x, "x")
    graph.add_output(call("reshape", x, shape=(6,)), "y")
    array = np.zeros((2, 3), np.float32)
    assert not any(np.shares_memory(array, r) for r in run_graph(graph, [array]))


def test_a_replacement_of_another_type_is_our_bug() -> None:
    graph = Graph()
    x = graph.add_input(F, "x")
    graph.add_output(call("reshape", x, shape=(6,)), "y")
    with pytest.raises(InternalError, match="reshape: a replacement is"):
        rebuild(graph, lambda out, node, inputs: inputs[0])


def test_dag_views() -> None:
    rng = np.random.default_rng(0)
    import networkx

    graph = random_graph(rng, 60)
    view = dag.to_networkx(graph)
    assert networkx.is_directed_acyclic_graph(view)
    index = dag.Ancestors(len(graph.nodes), [(a, b) for a, b in view.edges()])
    for k in range(len(graph.nodes)):
        assert {a for a in range(len(graph.nodes)) if index.needs(k, a)} == networkx.ancestors(view, k)
        assert view.nodes[k]["node"] is graph.nodes[k]


def test_arcs_added_late_reach_whoever_waits() -> None:
    index = dag.Ancestors(3, [(1, 2)])
    index.append()
    assert index.needs(2, 1) and not index.needs(2, 0)
    index.wait(1, index.closure([0, 3]))
    assert index.needs(2, 0) and index.needs(2, 3) and not index.needs(0, 3)
    assert index.lacks(2, index.closure([1, 2])) == 1 << 2


def test_topological_order_is_stable_and_finds_cycles() -> None:
    for order in (dag.few_in_order, lambda count, arcs: dag.in_order(dag.view_of(count, arcs))):
        assert order(4, [(3, 0), (3, 1)]) == [2, 3, 0, 1]
        assert order(3, []) == [0, 1, 2]
        with pytest.raises(ValueError, match="the order of 2 nodes is cyclic"):
            order(3, [(0, 1), (1, 0)])
