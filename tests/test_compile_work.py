"""How much work a compilation does, counted and not timed: what grew faster than the graph once must not again."""

from __future__ import annotations

import gc
import subprocess
import sys

import numpy as np
import pytest

import graphc
from graphc import compiler, nn
from graphc.codegen import cpu
from graphc.frontend.record import where
from graphc.ir import graph as ir_graph
from graphc.ir import rewrite
from graphc.ir.ops.contract import matmul
from graphc.ir.ops.pointwise import add, mul, neg, tanh
from graphc.ir.passes import decompose, fold, fuse, simplify
from graphc.ir.quiet import no_collection
from graphc.ir.types import TensorType, float32
from graphc.testing import assert_same


def _chain(length: int) -> ir_graph.Graph:
    graph = ir_graph.Graph("chain")
    x = graph.add_input(TensorType(float32, (8,)), "x")
    y = graph.add_input(TensorType(float32, (8,)), "y")
    for _ in range(length):
        x = tanh(add(mul(x, y), y))
    graph.add_output(neg(neg(x)), "out")
    return graph


def _bits(x: graphc.Tensor) -> bytes:
    return x.numpy().tobytes()


def test_a_second_round_of_rules_looks_at_new_nodes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = _chain(200)
    looked = []
    original = simplify._simplify
    monkeypatch.setattr(simplify, "_simplify", lambda *args: looked.append(1) or original(*args))
    assert simplify.run(graph) is not graph
    assert 0 < len(looked) <= len(graph.nodes) + 2


def test_rules_that_apply_to_what_rules_made_still_apply() -> None:
    graph = ir_graph.Graph("g")
    x = graph.add_input(TensorType(float32, (8,)), "x")
    graph.add_output(neg(mul(x, graph.scalar(-1.0, float32).node.outputs[0])), "out")  # -(x * -1): neg(neg(x))
    found = simplify.run(graph)
    assert found.outputs[0].value is found.inputs[0].value


def test_passes_with_nothing_to_do_copy_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = _chain(50)
    copied = []
    original = rewrite.clone_node
    monkeypatch.setattr(rewrite, "clone_node", lambda *args: copied.append(1) or original(*args))
    assert decompose.run(graph) is graph
    assert fold.run(graph, compiler.evaluate) is graph
    assert copied == []


def test_equal_kernel_records_are_lowered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = ir_graph.Graph("steps")
    x = graph.add_input(TensorType(float32, (64, 64)), "x")
    w = graph.add_input(TensorType(float32, (64, 64)), "w")
    for _ in range(40):
        x = tanh(matmul(x, w))
    graph.add_output(x, "out")
    lowered = []
    original = cpu.lower_kernel
    monkeypatch.setattr(cpu, "lower_kernel", lambda kernel: lowered.append(kernel) or original(kernel))
    exe = compiler.compile_graph(graph)
    assert exe.stats.kernels >= 40
    assert len(lowered) == len(set(lowered)) <= 4


def test_a_value_with_many_readers_is_not_asked_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = ir_graph.Graph("fan")
    x = graph.add_input(TensorType(float32, (64,)), "x")
    for k in range(600):
        graph.add_output(tanh(mul(x, graph.scalar(k + 2.0, float32))), f"out{k}")
    asked = []
    original = fuse._Fuser._gains
    monkeypatch.setattr(fuse._Fuser, "_gains", lambda *args: asked.append(1) or original(*args))
    fused = fuse.fuse(graph)
    assert len(fused.groups) < 60
    assert len(asked) <= len(graph.nodes)


def test_one_look_for_the_line_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    original = where.user_frame
    monkeypatch.setattr(where, "user_frame", lambda *args: looked.append(1) or original(1 + (args or (1,))[0]))

    def chain(x: graphc.Tensor) -> graphc.Tensor:
        for _ in range(100):
            x = x * x + x
        return x

    graphc.compile(chain)(graphc.ones(4))
    assert 200 <= len(looked) <= 230


def test_no_collection_inside_and_after_errors() -> None:
    assert gc.isenabled()
    with no_collection(), no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), no_collection():
        raise KeyError
    assert gc.isenabled()
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_large_model_is_traced() -> None:
    """What Modules hold of themselves does not count as values of the user's (1,000 of them are followed)."""
    graphc.manual_seed(0)
    parts = [nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Tanh()) for _ in range(60)]
    model = nn.Sequential(*parts).eval()
    x = graphc.randn(3, 4)
    with graphc.no_grad():
        assert _bits(graphc.trace(model, x)(x)) == _bits(model(x))


def test_the_last_module_of_a_large_model_is_guarded() -> None:
    model = nn.Sequential(*[nn.Sequential(nn.Identity(), nn.Dropout(0.5)) for _ in range(80)]).eval()
    fast = graphc.compile(model)
    x = graphc.ones(64)
    with graphc.no_grad():
        for _ in range(3):
            assert _bits(fast(x)) == _bits(x)
        model[79][1].train()
        assert 0 in fast(x).tolist()


_DRAWS = """
import sys, warnings
import graphc
def plain(x):
    return x * 2
f = graphc.compile(plain)
for _ in range(3):
    f(graphc.ones(2))
assert "numpy.random" not in sys.modules, "a recording imports numpy.random"
def draws(x):
    import numpy.random
    return x * float(numpy.random.rand())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    graphc.compile(draws)(graphc.ones(2))
assert any("numpy.random" in str(w.message) for w in caught), [str(w.message) for w in caught]
"""


def test_random_numbers_of_numpy_are_watched_where_they_may_be_used() -> None:
    done = subprocess.run([sys.executable, "-c", _DRAWS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_loops_of_many_steps_give_the_same_bits() -> None:
    graphc.manual_seed(1)
    cell = nn.LSTMCell(4, 4)

    def run(x: graphc.Tensor) -> graphc.Tensor:
        h = c = graphc.zeros(2, 4)
        for t in range(20):
            h, c = cell(x[t], (h, c))
        return h

    x = graphc.tensor(np.random.default_rng(0).standard_normal((20, 2, 4)).astype("f4"))
    with graphc.no_grad():
        assert_same(run, x)
