"""The verifier: every numbered invariant has graphs that break it, and each is refused by its number."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphc.errors import GraphError
from graphc.ir.graph import Graph, Input, Output, Value
from graphc.ir.op import all_ops, op_named
from graphc.ir.schema import attr_problem, schema
from graphc.ir.subgraph import Subgraph
from graphc.ir.types import Dim, DType, TensorType, bool_, float32, float64, int64
from graphc.ir.verify import verify

MATRIX = TensorType(float32, (2, 3))


def healthy() -> Graph:
    """x, state w; a = x + w; b = -a; c = full; outputs b, new w."""
    graph = Graph("g")
    x = graph.add_input(MATRIX, "x")
    w = graph.add_input(MATRIX, "w", "state")
    a = op_named("add")(x, w)
    b = op_named("neg")(a)
    with graph.building():
        op_named("full")(shape=(4,), value=1.5, dtype=float32)
    graph.constant(np.arange(3.0))
    graph.add_output(b, "y")
    graph.add_output(a, "w", "state")
    return graph


Break = Callable[[Graph], Any]
BROKEN: list[tuple[str, str, Break]] = []


def breaks(number: str, message: str) -> Callable[[Break], Break]:
    """Register a way to break the graph and what the verifier must say."""

    def register(fn: Break) -> Break:
        BROKEN.append((number, message, fn))
        return fn

    return register


def stranger(type: TensorType = MATRIX) -> Value:
    return Graph("other").add_input(type, "z")


@breaks("V1", "input 0: its value belongs to another graph")
def foreign_input(g: Graph) -> None:
    g.inputs[0] = Input(stranger(), "input", "x")


@breaks("V1", "operand 0 belongs to another graph")
def foreign_operand(g: Graph) -> None:
    g.nodes[1].inputs = (stranger(),)


@breaks("V1", "result 0 belongs to another graph")
def foreign_result(g: Graph) -> None:
    g.nodes[1].outputs = (stranger(),)


@breaks("V1", "output 0: its value belongs to another graph")
def foreign_output(g: Graph) -> None:
    g.outputs[0] = Output(stranger(), "output", "y")


@breaks("V2", "stands elsewhere")
def input_index(g: Graph) -> None:
    g.inputs[1].value.index = 0


@breaks("V2", "stands elsewhere")
def input_with_node(g: Graph) -> None:
    g.inputs[0].value.node = g.nodes[0]


@breaks("V3", "names another node or place")
def result_of_another(g: Graph) -> None:
    g.nodes[1].out.node = g.nodes[0]


@breaks("V3", "names another node or place")
def result_index(g: Graph) -> None:
    g.nodes[1].out.index = 1


@breaks("V3", "0 results, not 1")
def no_result(g: Graph) -> None:
    g.nodes[2].outputs = ()


@breaks("V4", "the node stands twice")
def node_twice(g: Graph) -> None:
    g.nodes.append(g.nodes[0])


@breaks("V4", "has been computed before")
def result_twice(g: Graph) -> None:
    g.nodes[1].outputs = g.nodes[0].outputs


@breaks("V5", "operand 0 is not computed before this node")
def out_of_order(g: Graph) -> None:
    g.nodes[0], g.nodes[1] = g.nodes[1], g.nodes[0]


@breaks("V5", "operand 0 is not computed before this node")
def own_operand(g: Graph) -> None:
    g.nodes[1].inputs = g.nodes[1].outputs


@breaks("V6", "is not computed in the graph")
def lost_output(g: Graph) -> None:
    del g.nodes[1]


@breaks("V7", "'neg' is not in the op table")
def unknown_op(g: Graph) -> None:
    g.nodes[1].op = replace(g.nodes[1].op)


@breaks("V8", "takes 2 operands, has 1")
def too_few_operands(g: Graph) -> None:
    g.nodes[0].inputs = g.nodes[0].inputs[:1]


@breaks("V9", "kind list has no text form")
def list_attribute(g: Graph) -> None:
    g.nodes[2].attrs["shape"] = [4]


@breaks("V9", "kind int64 has no text form")
def numpy_number(g: Graph) -> None:
    g.nodes[2].attrs["shape"] = (np.int64(4),)


@breaks("V9", "beyond 64 bits")
def huge_integer(g: Graph) -> None:
    g.nodes[2].attrs["value"] = 1 << 63


@breaks("V9", "is not a plain word")
def odd_attribute_name(g: Graph) -> None:
    g.nodes[2].attrs["a b"] = 1


@breaks("V9", "nested more than 32")
def deep_attribute(g: Graph) -> None:
    value: Any = 0
    for _ in range(40):
        value = (value,)
    g.nodes[2].attrs["shape"] = value


@breaks("V9", "is not a known dtype")
def made_up_dtype(g: Graph) -> None:
    g.nodes[2].attrs["dtype"] = DType("float32", "f32", "f", 4)


@breaks("V9", "an array of dtype uint16")
def strange_array(g: Graph) -> None:
    g.nodes[3].attrs["value"] = np.zeros(3, np.uint16)


@breaks("V10", "its op infers f32[2, 3]")
def wrong_type(g: Graph) -> None:
    g.nodes[1].out.type = TensorType(float64, (2, 3))


@breaks("V10", "add: ")
def operands_that_do_not_fit(g: Graph) -> None:
    g.inputs[1].value.type = TensorType(float64, (2, 3))


@breaks("V10", "attributes that do not fit the op (TypeError")
def missing_attribute(g: Graph) -> None:
    del g.nodes[2].attrs["dtype"]


@breaks("V11", "graph: its name")
def graph_name(g: Graph) -> None:
    g.name = "a\nb"


@breaks("V11", "input 0: its name")
def input_name(g: Graph) -> None:
    g.inputs[0] = Input(g.inputs[0].value, "input", "\x1b[31m")


@breaks("V11", "input 0: its value's name")
def value_name(g: Graph) -> None:
    g.inputs[0].value.name = "é" * 129


@breaks("V11", "result 0: its name")
def result_name(g: Graph) -> None:
    g.nodes[0].out.name = "\ud800"


@breaks("V11", "output 0: its name")
def output_name(g: Graph) -> None:
    g.outputs[0] = Output(g.outputs[0].value, "output", "\x7f")


@breaks("V11", "its module path")
def module_name(g: Graph) -> None:
    g.nodes[0].module = "\x9b"


@breaks("V12", "inputs: two of kind 'state' are called 'w'")
def same_input_name(g: Graph) -> None:
    g.inputs[0] = Input(g.inputs[0].value, "state", "w")


@breaks("V12", "outputs: two of kind 'output' are called 'y'")
def same_output_name(g: Graph) -> None:
    g.outputs.append(g.outputs[0])


@breaks("V13", "input 0: unknown kind 'secret'")
def input_kind(g: Graph) -> None:
    g.inputs[0] = Input(g.inputs[0].value, "secret", "x")


@breaks("V13", "output 0: unknown kind 'secret'")
def output_kind(g: Graph) -> None:
    g.outputs[0] = Output(g.outputs[0].value, "secret", "y")


@breaks("V13", "unknown phase 'sideways'")
def phase(g: Graph) -> None:
    g.nodes[0].phase = "sideways"


@breaks("V14", "no state input is called 'v'")
def unknown_state(g: Graph) -> None:
    g.outputs[1] = Output(g.outputs[1].value, "state", "v")


@breaks("V14", "no state input is called 'x'")
def state_of_an_argument(g: Graph) -> None:
    g.outputs[1] = Output(g.outputs[1].value, "state", "x")


@breaks("V14", "state 'w' is f32[2, 3], its new value f32[4]")
def state_of_another_type(g: Graph) -> None:
    g.outputs[1] = Output(g.nodes[2].out, "state", "w")


@breaks("V15", "33 dimensions")
def high_rank(g: Graph) -> None:
    g.inputs[0].value.type = TensorType(float32, (1,) * 33)


@breaks("V15", "a dimension of")
def huge_dimension(g: Graph) -> None:
    g.inputs[0].value.type = TensorType(float32, ((1 << 40) + 1,))


@breaks("V15", "more than")
def huge_tensor(g: Graph) -> None:
    g.inputs[0].value.type = TensorType(float32, (0, 1 << 30, 1 << 30))


@breaks("V15", "name is not ASCII")
def odd_dimension_name(g: Graph) -> None:
    g.inputs[0].value.type = TensorType(float32, (Dim("Ñ"),))


@breaks("V16", "'N' occurs in no input")
def unknown_symbol(g: Graph) -> None:
    g.nodes[2].attrs["shape"] = (Dim("N"),)


@breaks("V16", "'M' occurs in no input")
def unknown_symbol_in_a_type(g: Graph) -> None:
    g.nodes[2].out.type = TensorType(float32, (Dim("M"),))


@breaks("V16", "'u0' occurs in no input")
def size_used_before_it_is_counted(g: Graph) -> None:
    g.nodes[2].attrs["shape"] = (Dim("u0"),)
    with g.building():
        count = op_named("full")(shape=(), value=3, dtype=int64)
    g.add_output(count, "u0", "size")


@breaks("V20", "not the i64[] result of a node")
def size_of_another_type(g: Graph) -> None:
    g.add_output(g.nodes[2].out, "u0", "size")


@breaks("V20", "not that of a new dimension")
def size_without_a_name(g: Graph) -> None:
    with g.building():
        count = op_named("full")(shape=(), value=3, dtype=int64)
    g.add_output(count, "2 3", "size")


@breaks("V21", "nested more than 8 deep")
def deep_graphs(g: Graph) -> None:
    inner = Graph("inner")
    inner.add_output(inner.add_input(g.nodes[0].out.type, "x"), "y")
    for _ in range(9):
        outer = Graph("outer")
        flag = outer.add_input(TensorType(bool_, ()), "p")
        x = outer.add_input(g.nodes[0].out.type, "x")
        passing = Graph("passing")
        passing.add_output(passing.add_input(x.type, "x"), "y")
        (out,) = outer.add(op_named("cond"), (flag, x), {"then": Subgraph(passing), "other": Subgraph(passing)})
        outer.nodes[-1].attrs["other"] = Subgraph(inner)
        outer.add_output(out, "y")
        inner = outer
    g.nodes[0].attrs["other"] = Subgraph(inner)


@breaks("V21", "has state")
def state_within(g: Graph) -> None:
    inner = Graph("inner")
    inner.add_output(inner.add_input(g.nodes[0].out.type, "x", "state"), "y")
    g.nodes[0].attrs["then"] = Subgraph(inner)


@breaks("V10", "attribute then: node 0")
def broken_graph_within(g: Graph) -> None:
    inner = Graph("inner")
    x = inner.add_input(TensorType(float32, (2,)), "x")
    (y,) = inner.add(op_named("neg"), (x,), {})
    y.type = TensorType(float32, (3,))
    inner.add_output(y, "y")
    g.nodes[0].attrs["then"] = Subgraph(inner)


@breaks("V17", "can be written or is not row-major")
def writable_array(g: Graph) -> None:
    g.nodes[3].attrs["value"] = np.arange(3.0)


@breaks("V17", "can be written or is not row-major")
def strided_array(g: Graph) -> None:
    array = np.arange(6.0)[::2]
    array.flags.writeable = False
    g.nodes[3].attrs["value"] = array


@breaks("V19", "neg has no attribute 'axis'")
def undeclared_attribute(g: Graph) -> None:
    g.nodes[1].attrs["axis"] = 1


@breaks("V19", "attribute shape must be")
def float_in_a_shape(g: Graph) -> None:
    g.nodes[2].attrs["shape"] = (4.0,)


@breaks("V19", "attribute shape must be")
def bool_in_a_shape(g: Graph) -> None:
    g.nodes[2].attrs["shape"] = (True, 4)


def test_a_healthy_graph_passes() -> None:
    verify(healthy())
    verify(healthy(), primitive=True)


@pytest.mark.parametrize(("number", "message", "break_it"), BROKEN, ids=[fn.__name__ for _, _, fn in BROKEN])
def test_a_broken_graph_is_refused_by_number(number: str, message: str, break_it: Break) -> None:
    graph = healthy()
    break_it(graph)
    with pytest.raises(GraphError) as caught:
        verify(graph)
    assert str(caught.value).startswith(f"{number}: ")
    assert message in str(caught.value)


def test_compositions_are_refused_where_primitives_are_asked_for() -> None:
    graph = Graph()
    x = graph.add_input(MATRIX, "x")
    graph.add_output(op_named("softmax")(x, dim=1), "y")
    verify(graph)
    with pytest.raises(GraphError, match=r"V18: node 0 \(softmax\): softmax is left to decompose"):
        verify(graph, primitive=True)


def test_a_primitive_in_a_form_that_must_be_split_is_refused() -> None:
    graph = Graph()
    x = graph.add_input(TensorType(int64, (2, 3, 4)), "x")
    graph.add_output(op_named("sum")(x, dim=(0, 2), keepdim=False), "y")
    with pytest.raises(GraphError, match="V18"):
        verify(graph, primitive=True)
    assert len(graph.nodes) == 1


def test_every_invariant_of_the_docstring_is_tested() -> None:
    stated = set(re.findall(r"^    (V\d+) ", verify.__doc__ or "", re.MULTILINE))
    assert stated == {number for number, _, _ in BROKEN} | {"V18"}


def test_samples_fit_the_schema_of_their_op() -> None:
    for op in all_ops().values():
        for sample in op.samples(np.random.default_rng(0)):
            assert attr_problem(op, sample.attrs) is None


def test_every_attribute_has_a_declared_kind() -> None:
    assert [op.name for op in all_ops().values() if Any in schema(op).values()] == []
