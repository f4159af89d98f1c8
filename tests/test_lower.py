"""Lowering: programs give the values of the reference, and the same bits fused or not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from lowering_graphs import cnn, f32, images, inputs_of, kinds, mixture, mlp, op, optimised, transformer, unary_graph
from op_checks import sample_arrays
from random_graphs import random_graph, random_inputs, same_bits

from graphc.codegen.assemble import assemble
from graphc.compiler import graph_of
from graphc.errors import InternalError
from graphc.ir.graph import Graph
from graphc.ir.kernel import Contract
from graphc.ir.narrow import reference
from graphc.ir.op import Array, Control, all_ops
from graphc.ir.types import Layout, TensorType, float32, float64, int64
from graphc.runtime.interpret import interpret
from graphc.runtime.program import print_program
from graphc.runtime.reference import run_graph


def both_ways(graph: Graph, arrays: list[Array], layouts: list[Layout] | None = None) -> list[Array]:
    """The outputs with fusion, checked to be those without it, bit by bit."""
    fused, plain = (interpret(assemble(graph, layouts, fuse), arrays) for fuse in (True, False))
    for o, a, b in zip(graph.outputs, fused, plain, strict=True):
        assert same_bits(a, b), o.name
    return fused


@pytest.mark.parametrize("name", sorted(n for n, op in all_ops().items() if not isinstance(op.lower, Control)))
def test_every_op_has_the_values_of_its_reference(name: str) -> None:
    found = all_ops()[name]
    for sample in found.samples(np.random.default_rng(0)):
        dtypes = sample.dtypes or found.dtypes
        dtype = next((d for d in dtypes if d in (float32, float64)), dtypes[0])
        with np.errstate(all="ignore"):
            arrays = sample_arrays(sample, dtype)
            wanted = reference(found, arrays, sample.attrs)
        layouts = [Layout.of(a) for a in arrays]
        graph = optimised(graph_of(found, layouts, sample.attrs))
        outputs = both_ways(graph, list(arrays), layouts)
        for a, w in zip(outputs, wanted, strict=True):
            assert a.shape == w.shape and a.dtype == w.dtype
            if not same_bits(a, w):
                np.testing.assert_allclose(a, w, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_give_the_same_bits_fused_or_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    both_ways(optimised(graph), random_inputs(rng, graph))


@pytest.mark.parametrize("seed", range(60))
def test_mixtures_with_products_scatters_and_states(seed: int) -> None:
    graph = optimised(mixture(seed))
    arrays = inputs_of(graph, seed)
    before = [a.copy() for a in arrays]
    found = both_ways(graph, arrays)
    for a, b in zip(arrays, before, strict=True):
        assert np.array_equal(a, b)
    for a, w in zip(found, run_graph(graph, arrays), strict=True):
        np.testing.assert_allclose(a, w, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(40))
def test_images_with_convolutions_pools_and_norms(seed: int) -> None:
    graph = optimised(images(seed))
    arrays = inputs_of(graph, seed)
    for a, w in zip(both_ways(graph, arrays), run_graph(graph, arrays), strict=True):
        np.testing.assert_allclose(a, w, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("make", [mlp, cnn, lambda: transformer(False), lambda: transformer(True)])
def test_models(make: Callable[[], Graph]) -> None:
    graph = make()
    arrays = inputs_of(graph)
    for o, a, w in zip(graph.outputs, both_ways(graph, arrays), run_graph(graph, arrays), strict=True):
        np.testing.assert_allclose(a, w, rtol=1e-3, atol=1e-3, err_msg=o.name)


def test_strided_inputs_are_read_where_they_lie() -> None:
    g = Graph("strided")
    x, w = g.add_input(f32(4, 6), "x"), g.add_input(f32(6, 5), "w")
    g.add_output(op("matmul", op("exp", x), w), "y")
    g.add_output(op("matmul", x, w), "z")
    g.add_output(op("reshape", x, shape=(8, 3)), "r")
    rng = np.random.default_rng(0)
    arrays: list[Array] = [
        rng.standard_normal((6, 8)).astype(np.float32).T[::2],
        np.broadcast_to(rng.standard_normal(5).astype(np.float32), (6, 5)),
    ]
    layouts = [Layout.of(a) for a in arrays]
    found = both_ways(g, arrays, layouts)
    for a, b in zip(found, both_ways(g, [np.ascontiguousarray(a) for a in arrays]), strict=True):
        assert same_bits(a, b)
    assert kinds(assemble(g, layouts)).count("Contract") == 2


@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True), (True, True)])
def test_views_of_contraction_operands_are_not_copied(flags: tuple[bool, bool]) -> None:
    g = Graph("views")
    x, y = g.add_input(f32(3, 4, 5), "x"), g.add_input(f32(7, 12), "y")
    a = op("permute", x, dims=(2, 0, 1))  # [5, 3, 4]
    b = op("permute", op("reshape", op("slice", y, dim=0, start=1, stop=7, step=2), shape=(3, 3, 4)), dims=(0, 2, 1))
    a = op(
        "slice", op("expand", op("reshape", a, shape=(5, 1, 3, 4)), shape=(5, 2, 3, 4)), dim=0, start=0, stop=3, step=1
    )
    a = op("permute", a, dims=(0, 1, 3, 2)) if flags[0] else a
    c = op("expand", op("reshape", b, shape=(3, 1, 4, 3)), shape=(3, 2, 4, 3))
    c = op("permute", c, dims=(0, 1, 3, 2)) if flags[1] else c
    g.add_output(op("matmul", a, c, ta=flags[0], tb=flags[1]), "z")
    arrays = inputs_of(g)
    program = assemble(g)
    assert kinds(program) == ["Contract"]
    np.testing.assert_allclose(interpret(program, arrays)[0], run_graph(g, arrays)[0], rtol=1e-5)
    both_ways(g, arrays)


def test_flipped_operand_of_a_contraction() -> None:
    g = Graph("flipped")
    x, y = g.add_input(f32(3, 4), "x"), g.add_input(f32(4, 5), "y")
    g.add_output(op("matmul", op("flip", x, dims=(0, 1)), op("flip", y, dims=(0,))), "z")
    arrays = inputs_of(g)
    np.testing.assert_allclose(both_ways(g, arrays)[0], run_graph(g, arrays)[0], rtol=1e-5)


def test_run_of_two_axes_is_one_affine_axis() -> None:
    program = assemble(unary_graph(f32(2, 3, 4, 5), lambda x: op("sum", x, dim=(1, 2), keepdim=False)))
    (call,) = program.calls
    assert "idiv" not in print_program(program) and call.kernel.run == 12  # type: ignore[union-attr]


def test_zero_dimensional_constants_are_loaded_from_the_pool() -> None:
    programs = [assemble(unary_graph(f32(4), lambda x, c=c: op("mul", x, c))) for c in (2.0, 3.0)]  # type: ignore[misc]
    assert programs[0].calls[0].kernel == programs[1].calls[0].kernel
    assert [float(p.constants[0]) for p in programs] == [2.0, 3.0]


def test_empty_values_need_no_calls() -> None:
    g = Graph("empty")
    x, y = g.add_input(f32(3, 0), "x"), g.add_input(f32(0, 2), "y")
    g.add_output(op("add", x, 1.0), "a")
    g.add_output(op("matmul", x, y), "b")
    g.add_output(op("sum", x, dim=(1,), keepdim=False), "c")
    program = assemble(g)
    assert kinds(program).count("Map") == 0
    found = interpret(program, inputs_of(g))
    assert [a.shape for a in found] == [(3, 0), (3, 2), (3,)]
    assert not found[1].any() and not found[2].any()


def test_outputs_never_share_memory() -> None:
    g = Graph("outputs")
    x = g.add_input(f32(4), "x")
    y = op("exp", x)
    for name, value in (
        ("x", x),
        ("y", y),
        ("again", y),
        ("view", op("reshape", y, shape=(2, 2))),
        ("c", g.scalar(2.0, float32)),
    ):
        g.add_output(value, name)
    program = assemble(g)
    assert all(o.donated is None for o in program.outputs)
    written = [r for call in program.calls for r in call.operands if r.kind == "output"]
    assert {r.index for r in written} == {0, 1, 2, 3, 4}
    arrays = inputs_of(g)
    for a, w in zip(interpret(program, arrays), run_graph(g, arrays), strict=True):
        np.testing.assert_allclose(a, w, rtol=1e-6)


def test_text_of_a_program() -> None:
    g = Graph("text")
    x, w, b = g.add_input(f32(4, 8), "x"), g.add_input(f32(5, 8), "w"), g.add_input(f32(5), "b", "state")
    g.add_output(op("relu", op("linear", x, w, b)), "y")
    g.add_output(op("mul", b, 2.0), "b", "state")
    assert print_program(assemble(optimised(g))).splitlines() == [
        "program text: 2 calls, arena 0 bytes",
        "  input0: f32[4, 8]",
        "  input1: f32[5, 8]",
        "  input2: f32[5]",
        "  const0: float32 [] = 2.0",
        "  output0: f32[4, 5] output y",
        "  output1: f32[5] state b in place of input2",
        "  call 0: matmul+add+relu",
        "    contract batch [] m [4] n [5] k [8] b0=input0:f32, b1=input1:f32, b2=input2:f32, b3=output0:f32",
        "      a=b0+0 strides [] [8] [1] b=b1+0 strides [] [8] [1]",
        "      t0 = add(acc, b2[i1])",
        "      b3[add(mul(i0, 5), i1)] = select(lt(t0, 0.0), 0.0, t0)",
        "  call 1: mul",
        "    map [5] b0=input2:f32, b1=const0:f32, b2=output1:f32",
        "      b2[i0] = mul(b0[i0], b1[0])",
    ]


def test_compositions_and_wrong_layouts_are_refused() -> None:
    g = unary_graph(f32(4), lambda x: op("softmax", x, dim=0))
    with pytest.raises(InternalError, match="softmax is not a primitive"):
        assemble(g)
    split = unary_graph(f32(2, 3, 4), lambda x: op("sum", x, dim=(0, 2), keepdim=False))
    with pytest.raises(InternalError, match="sum over"):
        assemble(split)
    with pytest.raises(InternalError, match="layouts"):
        assemble(optimised(g), [Layout(f32(5))])


def test_float64_epilogue() -> None:
    g = Graph("double")
    x = g.add_input(f32(3, 3).with_dtype(float64), "x")
    g.add_output(op("mul", op("matmul", x, x), 2.0), "y")
    (call,) = assemble(g).calls
    assert isinstance(call.kernel, Contract) and call.kernel.dtype is float64


def test_an_operand_that_is_never_read_sets_no_order() -> None:
    """Along an axis of size 1 there is one place to gather from, whatever the index says."""
    g = Graph("one place")
    x, k, w = g.add_input(f32(5, 1), "x"), g.add_input(TensorType(int64, (5, 1)), "k"), g.add_input(f32(5, 64), "w")
    large, small = op("exp", w), op("exp", x)
    g.add_output(op("mul", large, 2.0), "z")
    g.add_output(op("gather", small, op("sub", k, k), dim=1), "y")
    arrays = inputs_of(g)
    for a, w in zip(both_ways(g, arrays), run_graph(g, arrays), strict=True):
        np.testing.assert_allclose(a, w, rtol=1e-5)
