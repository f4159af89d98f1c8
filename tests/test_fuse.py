"""Fusion: how many kernels graphs become, and that every decision respects data flow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from lowering_graphs import (
    add_adam,
    cnn,
    f32,
    inputs_of,
    kinds,
    layer_norm,
    mixture,
    mlp,
    op,
    optimised,
    transformer,
    unary_graph,
)
from random_graphs import random_array, same_bits

from graphc.codegen.assemble import assemble
from graphc.errors import InternalError
from graphc.ir.access import access_of
from graphc.ir.expr import iadd, iconst, idiv, imod, imul, index
from graphc.ir.graph import Graph, Value
from graphc.ir.index import IndexSimplifier, merge_split
from graphc.ir.passes.fuse import fuse
from graphc.ir.types import bool_
from graphc.runtime.interpret import interpret
from graphc.runtime.program import Program, print_program
from graphc.runtime.reference import run_graph


def kernels(graph: Graph) -> list[str]:
    return kinds(assemble(optimised(graph)))


def of(build: Callable[[Value], Value], *shape: int) -> list[str]:
    return kernels(unary_graph(f32(*shape), build))


def test_pointwise_chain_is_one_map() -> None:
    assert of(lambda x: op("exp", op("mul", op("relu", op("add", x, 1.0)), op("tanh", x))), 4, 5) == ["Map"]


def test_long_chains_are_cut_but_give_few_kernels() -> None:
    def chain(x: Value) -> Value:
        for _ in range(300):
            x = op("tanh", op("add", x, 1.0))
        return x

    assert 1 < len(of(chain, 4)) <= 40


def test_movement_is_inlined() -> None:
    def moved(x: Value) -> Value:
        y = op("permute", op("slice", x, dim=0, start=1, stop=4, step=1), dims=(1, 0))
        return op("add", op("reshape", y, shape=(2, 2, 3)), op("flip", op("reshape", y, shape=(2, 2, 3)), dims=(2,)))

    assert of(moved, 5, 4) == ["Map"]


def test_reshape_of_a_buffer_is_free() -> None:
    program = assemble(unary_graph(f32(4, 6), lambda x: op("exp", op("reshape", op("exp", x), shape=(3, 8)))))
    assert kinds(program) == ["Map", "Map"]
    assert "idiv" not in print_program(program)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("shape", [(64, 50), (4, 8), (2, 3, 40, 9)])
def test_softmax_is_one_rows_kernel(name: str, shape: tuple[int, ...]) -> None:
    assert of(lambda x: op(name, x, dim=len(shape) - 1), *shape) == ["Rows"]


def test_few_long_rows_are_not_given_to_one_thread() -> None:
    assert "Map" in of(lambda x: op("softmax", x, dim=1), 2, 100_000)


def test_reduction_over_columns_keeps_to_one_stage() -> None:
    found = assemble(optimised(unary_graph(f32(500, 64), lambda x: op("softmax", x, dim=0))))
    assert all(len(c.kernel.stages) == 1 for c in found.calls if kinds(found)[found.calls.index(c)] == "Rows")  # type: ignore[union-attr]


def test_layer_norm_is_one_rows_kernel() -> None:
    g = Graph("norm")
    x, scale, shift = g.add_input(f32(64, 48), "x"), g.add_input(f32(48), "scale"), g.add_input(f32(48), "shift")
    g.add_output(op("relu", layer_norm(x, scale, shift)), "y")
    assert kernels(g) == ["Rows"]


def test_mean_over_everything_is_one_kernel() -> None:
    assert of(lambda x: op("mean", op("mul", x, x), dim=(0, 1), keepdim=False), 300, 300) == ["Rows"]


def test_linear_bias_relu_is_one_contract() -> None:
    g = Graph("linear")
    x, w, b = g.add_input(f32(4, 8), "x"), g.add_input(f32(5, 8), "w"), g.add_input(f32(5), "b")
    g.add_output(op("gelu", op("linear", x, w, b)), "y")
    assert kernels(g) == ["Contract"]


def test_residual_joins_the_second_product() -> None:
    g = Graph("residual")
    x, w = g.add_input(f32(8, 8), "x"), g.add_input(f32(8, 8), "w")
    h = op("relu", op("matmul", x, w))
    g.add_output(op("relu", op("add", op("matmul", h, w), op("mul", h, 0.5))), "y")
    assert kernels(g) == ["Contract", "Contract"]


def test_epilogue_value_and_its_raw_sum_are_both_stored() -> None:
    g = Graph("two")
    x = g.add_input(f32(8, 8), "x")
    c = op("matmul", x, x)
    g.add_output(c, "raw")
    g.add_output(op("exp", c), "y")
    program = assemble(g)
    assert kinds(program) == ["Contract"] and len(program.calls[0].kernel.stores) == 2  # type: ignore[union-attr]


def test_adam_is_one_map_a_parameter_in_place() -> None:
    g = Graph("adam")
    for k, shape in enumerate(((6, 7), (7,), (5, 6, 7))):
        add_adam(g, f"p{k}", g.add_input(f32(*shape), f"p{k}", "state"), g.add_input(f32(*shape), f"g{k}"))
    program = assemble(optimised(g))
    assert kinds(program) == ["Map"] * 3
    assert all(len(c.kernel.stores) == 3 for c in program.calls)  # type: ignore[union-attr]
    assert program.arena_bytes == 0


def test_a_product_is_stored_in_permuted_order() -> None:
    g = Graph("heads")
    x, w = g.add_input(f32(2, 4, 6, 8), "x"), g.add_input(f32(2, 4, 8, 3), "w")
    seen = op("permute", op("relu", op("matmul", x, w)), dims=(0, 2, 1, 3))
    g.add_output(op("matmul", op("reshape", seen, shape=(12, 12)), op("reshape", w, shape=(12, 16))), "y")
    g.add_output(op("permute", op("matmul", x, op("tanh", w)), dims=(2, 0, 1, 3)), "z")
    assert sorted(kernels(g)) == ["Contract", "Contract", "Contract", "Map"]
    arrays = inputs_of(g)
    for a, b, w_ in zip(
        *(interpret(assemble(g, None, f), arrays) for f in (True, False)), run_graph(g, arrays), strict=True
    ):
        assert same_bits(a, b)
        np.testing.assert_allclose(a, w_, rtol=1e-4)


def test_dear_values_are_not_computed_twice() -> None:
    g = Graph("dear")
    x, y = g.add_input(f32(6, 1), "x"), g.add_input(f32(6, 50), "y")
    e = op("exp", x)
    g.add_output(op("mul", op("expand", e, shape=(6, 50)), y), "spread")
    assert kernels(g) == ["Map", "Map"]


def test_cheap_values_are_computed_twice_instead_of_stored() -> None:
    g = Graph("cheap")
    x = g.add_input(f32(6, 50), "x")
    y = op("mul", x, 2.0)
    g.add_output(op("sum", op("add", y, 1.0), dim=(0,), keepdim=False), "a")
    g.add_output(op("permute", op("exp", y), dims=(1, 0)), "b")
    assert sorted(kernels(g)) == ["Map", "Rows"]


def test_siblings_share_a_kernel() -> None:
    g = Graph("siblings")
    x, y = g.add_input(f32(40, 50), "x"), g.add_input(f32(40, 50), "y")
    g.add_output(op("exp", x), "a")
    g.add_output(op("mul", x, y), "b")
    assert kernels(g) == ["Map"]
    g.add_output(op("sum", x, dim=(1,), keepdim=False), "c")
    g.add_output(op("amax", x, dim=(1,), keepdim=False), "d")
    assert sorted(kernels(g)) == ["Map", "Rows"]


def test_a_path_through_another_kernel_keeps_nodes_apart() -> None:
    g = Graph("path")
    x = g.add_input(f32(8, 8), "x")
    a = op("exp", x)
    g.add_output(a, "a")
    g.add_output(op("add", a, op("matmul", a, x)), "b")
    assert kernels(g) == ["Map", "Contract"]


def test_what_a_gather_reads_elsewhere_is_finished_first() -> None:
    g = Graph("shifted")
    x = g.add_input(f32(8), "x")
    a = op("exp", x)
    g.add_output(a, "a")
    g.add_output(op("add", a, op("flip", a, dims=(0,))), "b")
    assert kernels(g) == ["Map", "Map"]


def test_switched_off_every_node_is_a_kernel() -> None:
    g = optimised(unary_graph(f32(4, 8), lambda x: op("softmax", x, dim=1)))
    nodes = [n for n in g.nodes if n.op.name != "constant"]
    assert len(assemble(g, fused=False).calls) == len(nodes)


@pytest.mark.parametrize(
    "make", [mlp, cnn, lambda: transformer(True)] + [lambda k=k: optimised(mixture(k)) for k in range(20)]
)  # type: ignore[misc]
def test_groups_are_acyclic_and_in_order(make: Callable[[], Graph]) -> None:
    fusion = fuse(make())
    fusion.check()
    assert str(fusion).count("\n") == len(fusion.groups)
    for group in fusion.groups:
        assert all(v not in fusion.inlined for v in group.reads)


def test_the_check_of_a_fusion_finds_planted_mistakes() -> None:
    fusion = fuse(transformer(False))
    fusion.groups.reverse()
    with pytest.raises(InternalError, match="data flow"):
        fusion.check()
    fusion.groups.reverse()
    fusion.inlined[fusion.groups[0].nodes[0].out] = None
    with pytest.raises(InternalError, match="does not own"):
        fusion.check()


def test_kernel_counts_of_models() -> None:
    counts = {name: _counts(assemble(graph)) for name, graph in _models().items()}
    assert counts["transformer"]["Contract"] == 8
    assert counts["transformer"]["Rows"] == 3
    assert counts["mlp"]["Contract"] == 5
    assert sum(counts["mlp"].values()) <= 13
    assert sum(counts["cnn"].values()) <= 24


def _models() -> dict[str, Graph]:
    return {"mlp": mlp(), "cnn": cnn(), "transformer": transformer(False)}


def _counts(program: Program) -> dict[str, int]:
    return {kind: kinds(program).count(kind) for kind in ("Map", "Rows", "Contract", "Scatter")}


def test_access_of_broadcast_and_movement() -> None:
    g = Graph("access")
    x, b = g.add_input(f32(3, 4), "x"), g.add_input(f32(4), "b")
    add = op("add", x, b).node
    found = access_of(add)
    assert found.reads == ((0, (index(0), index(1))), (1, (index(1),)))
    assert found.cost == 1 and found.simple
    merged = access_of(op("reshape", x, shape=(12,)).node)
    assert not merged.simple and merged.cost > 0


def test_index_simplifier() -> None:
    simple = IndexSimplifier((6, 8))
    i, j = index(0), index(1)
    flat = iadd(imul(i, 8), j)
    assert simple(idiv(flat, 8)) is i
    assert simple(imod(flat, 8)) is j
    assert simple(idiv(iadd(flat, 80), 8)) is iadd(i, 10)
    assert simple(imod(idiv(flat, 4), 2)) is idiv(j, 4)
    assert merge_split(iadd(imul(idiv(j, 4), 12), imul(imod(j, 4), 3))) is imul(j, 3)
    assert simple(idiv(iadd(j, -8), 8)) is iconst(-1)
    assert simple(idiv(iadd(j, -5), 8)) is iadd(idiv(iadd(j, 3), 8), -1)
    assert simple(idiv(iconst(-1), 8)) is iconst(-1)


@pytest.mark.parametrize("name", ["sum", "prod", "amax", "amin", "argmax", "argmin"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 16])
def test_short_windows_are_written_out_in_the_same_order(name: str, size: int) -> None:
    g = Graph("windows")
    x = g.add_input(f32(3, 40), "x")
    seen = op("windows", x, dims=(1,), size=(size,), stride=(2,), dilation=(1,))
    g.add_output(op(name, seen, dim=2 if name.startswith("arg") else (2,), keepdim=size % 2 == 0), "y")
    rng = np.random.default_rng(size)
    values = random_array(rng, f32(3, 40))
    fused, plain = (assemble(g, None, fuse) for fuse in (True, False))
    assert kinds(fused) == ["Map"] and kinds(plain) == ["Map", "Rows"]
    with np.errstate(all="ignore"):
        assert same_bits(interpret(fused, [values])[0], interpret(plain, [values])[0])


def test_any_and_all_over_windows() -> None:
    for name in ("any", "all"):
        g = Graph("windows")
        x = g.add_input(f32(4, 4).with_dtype(bool_), "x")
        seen = op("windows", x, dims=(0, 1), size=(2, 2), stride=(2, 2), dilation=(1, 1))
        g.add_output(op(name, seen, dim=(2, 3), keepdim=False), "y")
        values = np.random.default_rng(0).random((4, 4)) > 0.4
        program = assemble(g)
        assert kinds(program) == ["Map"]
        assert np.array_equal(interpret(program, [values])[0], run_graph(g, [values])[0])
