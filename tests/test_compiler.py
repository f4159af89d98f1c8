"""The pipeline: passes by name, eager ops, and native code with the same bits fused, unfused and interpreted."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from lowering_graphs import cnn, f32, images, inputs_of, mixture, mlp, op, optimised, transformer, unary_graph
from random_graphs import random_graph, random_inputs, same_bits

import graphc
from graphc import compiler
from graphc.errors import ArgumentError, RecordingError
from graphc.ir.graph import Graph
from graphc.ir.op import Array, Attrs, Op, op_named
from graphc.ir.types import DType, Layout, bool_, float32, float64, int64
from graphc.runtime.executable import Executable
from graphc.runtime.interpret import interpret


def run_both(graph: Graph, arrays: list[Array]) -> list[Array]:
    """The outputs of native code, checked to be the same bits without fusion."""
    results = []
    for fuse in (True, False):
        executable = compiler.build(compiler.lower(graph, None, fuse))
        executable.poison = True  # a read of memory nobody wrote shows
        results.append([a.copy() for a in executable([a.copy() for a in arrays])])
    for o, a, b in zip(graph.outputs, *results, strict=True):
        assert same_bits(a, b), o.name
    return results[0]


@pytest.mark.parametrize("make", [mlp, cnn, lambda: transformer(False), lambda: transformer(True)])
def test_models_native(make: Callable[[], Graph]) -> None:
    graph = make()
    arrays = inputs_of(graph)
    for o, a, b in zip(graph.outputs, run_both(graph, arrays), interpret(compiler.lower(graph), arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5, err_msg=o.name)


@pytest.mark.parametrize("seed", range(12))
def test_mixtures_native(seed: int) -> None:
    graph = optimised(mixture(seed))
    run_both(graph, inputs_of(graph, seed))
    graph = optimised(images(seed))
    run_both(graph, inputs_of(graph, seed))


@pytest.mark.parametrize("seed", range(8))
def test_random_graphs_native_have_the_bits_of_the_interpreter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    arrays = random_inputs(rng, graph)
    graph = compiler.optimise(graph)
    with np.errstate(all="ignore"):
        expected = interpret(compiler.lower(graph), arrays)
    for o, a, b in zip(graph.outputs, run_both(graph, arrays), expected, strict=True):
        assert same_bits(a, b), o.name


def test_passes_can_be_traced_and_disabled() -> None:
    graph = unary_graph(f32(4), lambda x: op("add", op("softmax", x, dim=0), op("softmax", x, dim=0)))
    names: list[str] = []
    full = compiler.optimise(graph, trace=lambda name, g: names.append(name))
    assert names == ["decompose", "fold", "simplify", "cse", "dce"] == [n for n, _ in compiler.passes()]
    assert len(compiler.optimise(graph, disable=["cse"]).nodes) > len(full.nodes)
    for name in ("nothing", "decompose"):
        with pytest.raises(ArgumentError, match=f"cannot disable '{name}'"):
            compiler.optimise(graph, disable=[name])


def test_disabling_passes_keeps_the_bits() -> None:
    graph = unary_graph(f32(5, 7), lambda x: op("mul", op("softmax", x, dim=1), op("add", op("exp", x), 0.0)))
    arrays = inputs_of(graph)
    expected = compiler.compile_graph(graph)(arrays)[0]
    for disable in (["fold"], ["simplify"], ["cse", "dce"], ["fold", "simplify", "cse", "dce"]):
        assert same_bits(compiler.compile_graph(graph, disable=disable)(arrays)[0], expected)
        assert same_bits(compiler.compile_graph(graph, fuse=False, disable=disable)(arrays)[0], expected)


def test_eager_equals_compiled() -> None:
    x = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32)
    (scaled,) = compiler.eager_run(op_named("mul"), [x, np.asarray(0.3, np.float32)], {})
    (eager,) = compiler.eager_run(op_named("softmax"), [scaled], {"dim": 1})
    graph = unary_graph(f32(6, 40), lambda v: op("softmax", op("mul", v, 0.3), dim=1))
    assert same_bits(compiler.compile_graph(graph)([x])[0], eager)


def test_eager_results_are_fresh_and_contiguous() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    (y,) = compiler.eager_run(op_named("permute"), [x], {"dims": (1, 0)})
    assert y.flags.c_contiguous and not np.shares_memory(x, y) and np.array_equal(y, x.T)
    for view in (x[:, ::2], x[::-1], x.T, np.broadcast_to(x[0], (3, 4))):
        (z,) = compiler.eager_run(op_named("neg"), [view], {})
        assert z.flags.c_contiguous and np.array_equal(z, -view)


def test_eager_attributes_are_told_apart_by_bits() -> None:
    def filled(value: float) -> Array:
        return compiler.eager_run(op_named("full"), [], {"shape": (2,), "value": value, "dtype": float32})[0]

    assert not np.signbit(filled(0.0)).any() and np.signbit(filled(-0.0)).all()
    ints = compiler.eager_run(op_named("full"), [], {"shape": (2,), "value": 1, "dtype": int64})[0]
    assert ints.dtype == np.int64


def test_eager_executables_are_kept() -> None:
    before = len(compiler._eager)
    x = np.ones((3, 17), np.float32)
    for _ in range(3):
        compiler.eager_run(op_named("abs"), [x], {})
    assert len(compiler._eager) == before + 1


def test_eager_executables_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_eager", {})
    monkeypatch.setattr(compiler, "MAX_EAGER", 8)
    for n in range(1, 20):
        compiler.eager_run(op_named("abs"), [np.ones(n, np.float32)], {})
        assert 0 < len(compiler._eager) <= 8


def test_the_short_way_keeps_its_executable(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Executable]] = []
    real = compiler.eager_executable

    def watched(op: Op, layouts: Sequence[Layout], attrs: Attrs) -> Executable:
        exe = real(op, layouts, attrs)
        made.append(weakref.ref(exe))
        return exe

    monkeypatch.setattr(compiler, "eager_executable", watched)
    run = compiler.eager_plan(op_named("softplus"), [Layout(f32(100))], {})  # its constants lie in memory
    gc.collect()
    exe = made[0]()
    assert exe is not None and exe.program.constants
    del exe, run
    gc.collect()
    assert made[0]() is None


def test_several_outputs() -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, 4, 4)).astype(np.float32)
    attrs = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}
    values, places = compiler.eager_run(op_named("max_pool2d"), [x], attrs)
    assert np.array_equal(x.reshape(-1)[places], values)


def test_layouts_given_by_the_caller() -> None:
    graph = unary_graph(f32(4, 6), lambda x: op("exp", op("add", x, 1.0)))
    x = np.asfortranarray(np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32))
    (y,) = compiler.compile_graph(graph, [Layout.of(x)])([x])
    assert same_bits(y, compiler.compile_graph(graph)([np.ascontiguousarray(x)])[0])


def test_constants_are_folded_to_the_bits_of_kernels() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(50).astype(np.float32), rng.standard_normal(50).astype(np.float32)
    before = len(compiler._eager)
    for name, arrays in (("div", [x, y]), ("sqrt", [np.abs(x)]), ("maximum", [x, y]), ("lt", [x, y])):
        folded = compiler.evaluate(op_named(name), arrays, {})[0]
        assert len(compiler._eager) == before
        assert same_bits(folded, compiler.eager_run(op_named(name), arrays, {})[0])
        before = len(compiler._eager)
    for name, arrays, attrs in (("exp", [x], {}), ("sum", [x], {"dim": (0,), "keepdim": False})):
        assert same_bits(
            compiler.evaluate(op_named(name), arrays, attrs)[0], compiler.eager_run(op_named(name), arrays, attrs)[0]
        )


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(float32, v) for v in (0.0, -0.0, 0.1, 1e300, -1e39, 1e-46, float("inf"), float("nan"))]
    + [(float64, 0.1), (float64, 1e300), (int64, -(2**63)), (bool_, True)],
)
def test_a_fill_by_numpy_has_the_bits_of_the_kernel(dtype: DType, value: float) -> None:
    attrs = {"shape": (3, 5), "value": value, "dtype": dtype}
    (kernel,) = compiler.eager_executable(op_named("full"), [], attrs)([])
    (filled,) = compiler.eager_run(op_named("full"), [], attrs)
    assert filled.dtype == kernel.dtype == dtype.np and same_bits(filled, kernel)


def test_a_recording_does_not_watch_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[object] = []

    def planned(*args: Any) -> Any:
        hooks.append(sys.getprofile())
        return plan(*args)

    plan = compiler.eager_plan
    monkeypatch.setattr(compiler, "eager_plan", planned)

    log: list[int] = []

    def function(x: graphc.Tensor) -> graphc.Tensor:
        y = x * 3.0 - x.sin()
        log.append(1)  # after a compilation: the user's code is watched again
        return y

    before = sys.getprofile()
    with pytest.raises(RecordingError, match="log"):
        graphc.trace(function, graphc.ones(3, 17, 5))
    assert hooks and not any(hooks)
    assert sys.getprofile() is before
