"""Generated from the op table: gradients of 16-bit floats round those of float32, and gradients of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from op_checks import all_samples, is_float, sample_arrays
from op_runs import accumulate_backward, executable
from random_graphs import same_bits

from graphc.ir import narrow
from graphc.ir.convert import cast_array
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Array, Op, Sample, all_ops
from graphc.ir.rewrite import Replacement, rebuild
from graphc.ir.types import DType, Layout, bfloat16, float16, float32, float64
from graphc.runtime.reference import run_graph

DIFFERENTIABLE = [name for name, op in sorted(all_ops().items()) if op.differentiable]
WITH_RULE = [name for name in DIFFERENTIABLE if all_ops()[name].vjp is not None]
WRT = {"cross_entropy": (0,)}  # class weights get no gradient
MOST = 2  # samples of an op


def gradient_samples(op: Op, dtype: DType) -> list[Sample]:
    """Samples with a gradient that have elements, spread evenly over all of them."""
    fit = [s for s in all_samples(op) if s.grad and (s.dtypes is None or dtype in s.dtypes)]
    fit = [s for s in fit if any(np.asarray(a).dtype.kind == "f" for a in s.inputs)]
    full = [s for s in fit if all(np.size(a) for a in s.inputs)]
    return [full[k * (len(full) - 1) // max(1, MOST - 1)] for k in range(min(MOST, len(full)))]


def inputs_of(graph: Graph, arrays: Sequence[Array], name: str) -> list[Value]:
    """An input for each array."""
    return [graph.add_input(Layout.of(a).type, f"{name}{k}") for k, a in enumerate(arrays)]


# ---------------------------------------------------------------- 16-bit floats


def rule_graph(op: Op, arrays: Sequence[Array], outs: Sequence[Array], gs: Sequence[Array], attrs: Any) -> Graph:
    """The gradient rule alone: from operands, results and their gradients to the gradients of the float operands."""
    graph = Graph(op.name)
    x, y = inputs_of(graph, arrays, "x"), inputs_of(graph, outs, "y")
    given = iter(inputs_of(graph, gs, "g"))
    g = tuple(next(given) if is_float(o) else None for o in outs)
    wanted = WRT.get(op.name, range(len(arrays)))
    needs = tuple(is_float(a) and k in wanted for k, a in enumerate(arrays))
    with graph.building():
        single = op.outputs == 1
        found = narrow.vjp(op, g[0] if single else g, y[0] if single else tuple(y), x, needs, attrs)
    for k, (part, need) in enumerate(zip(found, needs, strict=True)):
        if need and part is not None:
            graph.add_output(part, f"d{k}")
    return graph


@pytest.mark.parametrize("name", [n for n in WITH_RULE if float16 in all_ops()[n].dtypes])
def test_a_gradient_of_16_bit_floats_is_that_of_float32_rounded_once(name: str) -> None:
    op = all_ops()[name]
    rng = np.random.default_rng(7)
    for k, sample in enumerate(gradient_samples(op, float16)):
        dtype = (float16, bfloat16)[k % 2]
        arrays = [np.array(a, order="C") for a in sample_arrays(sample, dtype)]
        outs = narrow.reference(op, arrays, sample.attrs)
        outs = [np.array(o, order="C") for o in outs]
        gs = [cast_array(rng.standard_normal(o.shape), dtype) for o in outs if is_float(o)]
        found = executable(rule_graph(op, arrays, outs, gs, sample.attrs))([*arrays, *outs, *gs])
        wide = [[cast_array(a, float32) if is_float(a) else a for a in some] for some in (arrays, outs, gs)]
        wanted = executable(rule_graph(op, *wide, sample.attrs))([a for some in wide for a in some])
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype == dtype.np and b.dtype == np.float32
            assert same_bits(a, cast_array(b, dtype)), f"{sample.name} {dict(sample.attrs)} {dtype}: {a} is not {b}"


# ---------------------------------------------------------------- gradients of gradients


def with_rules(graph: Graph) -> Graph:
    """Compositions without a gradient rule of their own are expanded, as eager execution does on the way."""

    def visit(out: Graph, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        if node.op.vjp is not None or not node.op.differentiable:
            return None
        found: Replacement = narrow.expand(node.op, inputs, node.attrs)
        return found

    while (expanded := rebuild(graph, visit)) is not graph:
        graph = expanded
    return graph


def first_gradients(op: Op, arrays: Sequence[Array], outs: Sequence[Array], attrs: Any) -> Graph:
    """From operands and gradients of the float results to the gradients of the float operands."""
    graph = Graph(op.name)
    x = inputs_of(graph, arrays, "x")
    for y in graph.add(op, x, attrs):
        graph.add_output(y, f"y{y.index}")
    graph = with_rules(graph)
    values = [o.value for o in graph.outputs]
    wanted = [k for k, a in enumerate(arrays) if is_float(a) and k in WRT.get(op.name, range(len(arrays)))]
    found: dict[Value, Value] = {}
    for y, o in zip(values, outs, strict=True):
        if is_float(o):
            found.setdefault(y, graph.add_input(y.type, f"g{y.index}"))
    with graph.building():
        accumulate_backward(graph, [graph.inputs[k].value for k in wanted], found)
    graph.outputs.clear()
    for k in wanted:
        if graph.inputs[k].value in found:
            graph.add_output(found[graph.inputs[k].value], f"d{k}")
    return with_rules(graph)


def second_gradients(graph: Graph, wanted: Sequence[int]) -> Graph:
    """From the same inputs, and a gradient for each output, to the gradients of the inputs numbered `wanted`. Changes
    the graph.
    """
    found: dict[Value, Value] = {}
    with graph.building():
        for k, y in enumerate([o.value for o in graph.outputs]):
            g = graph.add_input(y.type, f"u{k}")
            found[y] = g if y not in found else graph.add(all_ops()["add"], [found[y], g], {})[0]
        accumulate_backward(graph, [graph.inputs[k].value for k in wanted], found)
    graph.outputs.clear()
    for k in wanted:
        value = graph.inputs[k].value
        zero = {"shape": value.type.shape, "value": 0.0, "dtype": value.dtype}
        with graph.building():
            graph.add_output(found[value] if value in found else all_ops()["full"](**zero), f"dd{k}")
    return graph


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_of_gradients_against_differences(name: str) -> None:
    op = all_ops()[name]
    rng = np.random.default_rng(5)
    for sample in gradient_samples(op, float64):
        arrays = [np.array(a, order="C") for a in sample_arrays(sample, float64)]
        outs = narrow.reference(op, arrays, sample.attrs)
        first = first_gradients(op, arrays, outs, sample.attrs)
        if not first.outputs:
            continue
        given = [*arrays, *(rng.standard_normal(o.shape) for o in outs if is_float(o))]
        upstream = [rng.standard_normal(o.value.type.sizes) for o in first.outputs]
        wanted = [k for k, a in enumerate(given) if is_float(a) and (k >= len(arrays) or k in WRT.get(name, range(99)))]
        second = second_gradients(first_gradients(op, arrays, outs, sample.attrs), wanted)
        found = run_graph(second, [*given, *upstream])
        directions = [rng.standard_normal(np.shape(given[k])) for k in wanted]
        for k, d, grad in zip(wanted, directions, found, strict=True):
            slope = difference(first, given, k, d, upstream)
            scale = max(1.0, float(np.sum(np.abs(grad * d))))
            off = abs(slope - float(np.sum(grad * d)))
            assert off <= 1e-5 * scale, f"{sample.name} {dict(sample.attrs)}: of input {k}: {slope}, off by {off}"


def difference(graph: Graph, given: Sequence[Array], k: int, d: Array, upstream: Sequence[Array]) -> float:
    """The central difference of the outputs, weighted by `upstream`, when input k moves along d."""
    step, sides = 1e-6, []
    for sign in (1.0, -1.0):
        moved = [a + sign * step * d if j == k else a for j, a in enumerate(given)]
        outs = run_graph(graph, moved)
        sides.append(sum(float(np.sum(o * u)) for o, u in zip(outs, upstream, strict=True)))
    return (sides[0] - sides[1]) / (2.0 * step)
