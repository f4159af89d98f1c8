"""Addresses beyond 2^31 elements and 2^33 bytes: every kind of kernel, on views of memory that is mostly not there."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from kernel_runs import host_targets
from kernel_runs import run as run_kernel_natively

import graphc
from graphc.codegen.target import Target
from graphc.compiler import compile_graph, eager_run, graph_of
from graphc.fuzz.difference import same_bits
from graphc.ir.expr import acc, apply, iconst, imul, index, load, result
from graphc.ir.expr_numpy import run_kernel
from graphc.ir.graph import Graph
from graphc.ir.kernel import Contract, Kernel, Map, MapStage, ReduceStage, Rows, Scan, Scatter, Store, Strided
from graphc.ir.op import Array, op_named
from graphc.ir.types import Layout, TensorType, float32, int64, uint8
from graphc.runtime.executable import trial

FAR = 2**31 + 40  # elements between two that are touched
NEAR = 128
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)  # mmap has the name since 3.13
BYTES = 4 * (3 * FAR + 200)  # beyond 2^34


@pytest.fixture(scope="module")
def memory() -> Iterator[Array]:
    """float32 memory of which next to nothing is there: a page comes with the first write to it."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
    try:
        pages = mmap.mmap(-1, BYTES, flags=flags)
    except (OSError, ValueError) as error:
        pytest.skip(f"no address space: {error}")
    yield np.frombuffer(pages, np.float32)


def view(memory: Array, shape: tuple[int, ...], strides: tuple[int, ...], seed: int = 0) -> Array:
    """A view in elements, filled."""
    found = np.lib.stride_tricks.as_strided(memory, shape, tuple(4 * s for s in strides))
    found[...] = np.random.default_rng(seed).standard_normal(shape)
    return found


OPS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "mul": ((3, 40), (FAR, 1), {}),
    "exp": ((40, 3), (1, FAR), {}),
    "sum": ((3, 33), (FAR, 1), {"dim": (0,), "keepdim": False}),
    "amax": ((33, 3), (1, FAR), {"dim": (1,), "keepdim": False}),
    "argmin": ((3, 33), (FAR, 1), {"dim": 0, "keepdim": False}),
    "softmax": ((33, 3), (1, FAR), {"dim": 1}),
    "cumsum": ((3, 20), (FAR, 1), {"dim": 0}),
    "argsort": ((20, 3), (1, FAR), {"dim": 1, "descending": False}),
    "permute": ((3, 20), (FAR, 1), {"dims": (1, 0)}),
    "flip": ((3, 20), (FAR, 2), {"dims": (0, 1)}),
    "pad": ((3, 20), (FAR, 1), {"pads": ((1, 1), (0, 2)), "value": 0.5}),
}


@pytest.mark.parametrize("target", host_targets(), ids=lambda t: t.name)
@pytest.mark.parametrize("name", OPS)
def test_one_operand(memory: Array, name: str, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, strides, attrs = OPS[name]
    x = view(memory, shape, strides)
    operands = [x, x] if name == "mul" else [x]
    check(op_named(name), operands, attrs, target, monkeypatch)


@pytest.mark.parametrize("target", host_targets(), ids=lambda t: t.name)
@pytest.mark.parametrize("strides", [(FAR, 1), (1, FAR)])
@pytest.mark.parametrize("side", ["a", "b"])
def test_products(
    memory: Array, side: str, strides: tuple[int, int], target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The long stride is that of the rows, the columns or what is summed over."""
    x = view(memory, (3, 3), strides)
    y = np.random.default_rng(1).standard_normal((3, 3)).astype(np.float32)
    operands = [x, y] if side == "a" else [y, x]
    for attrs in ({}, {"ta": True, "tb": True}):
        check(op_named("matmul"), operands, attrs, target, monkeypatch)


@pytest.mark.parametrize("target", host_targets(), ids=lambda t: t.name)
@pytest.mark.parametrize("name", ["index_add", "index_copy", "scatter_add"])
def test_scattered(memory: Array, name: str, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    source = view(memory, (3, 17), (FAR, 1))
    base = np.random.default_rng(2).standard_normal((5, 17)).astype(np.float32)
    places = np.array([4, 1, 0])
    if name == "scatter_add":
        places = np.broadcast_to(places[:, None], (3, 17)).copy()
    check(op_named(name), [base, places, source], {"dim": 0}, target, monkeypatch)


def check(op: Any, operands: list[Array], attrs: Any, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager and compiled: the bits of the same operands close together in memory."""
    (wanted,) = eager_run(op, [np.array(a, order="C") for a in operands], attrs)
    (found,) = eager_run(op, operands, attrs)
    assert same_bits(wanted, found)
    layouts = [Layout.of(a) for a in operands]
    for split in (False, True):
        monkeypatch.setattr(trial, "split", split)
        exe = compile_graph(graph_of(op, layouts, attrs), layouts, target=target)
        assert same_bits(wanted, exe(operands)[0]), f"{target.name}, split {split}"


@pytest.mark.parametrize("target", host_targets(), ids=lambda t: t.name)
def test_a_state_far_apart_is_written_in_place(memory: Array, target: Target) -> None:
    graph = Graph("state")
    x = graph.add_input(TensorType(float32, (3, 10)), "x", "state")
    graph.add_output(op_named("add")(op_named("mul")(x, 2.0), 1.0), "x", "state")
    state = view(memory, (3, 10), (FAR, 3))
    before = state * np.float32(2) + np.float32(1)
    exe = compile_graph(graph, [Layout.of(state)], target=target)
    (found,) = exe([state])
    assert found is state and same_bits(np.array(found), np.asarray(before))


# ---------------------------------------------------------------- stores far apart, kernel by kernel


def kernels(far: int) -> dict[str, Kernel]:
    """A kernel of each kind whose loads and stores lie `far` apart: operand 0 is read, operand 1 is written."""
    i, j = index(0), index(1)
    types = (float32, float32)
    apart = apply("add", imul(i, far), j)
    back = apply("add", apply("add", imul(i, far), j), iconst(64))
    x = load(0, float32, apart)
    stored = Store(1, back, apply("neg", x))
    return {
        "Map": Map(types, (3, 20), (stored,)),
        "Rows": Rows(types, (3,), 20, (ReduceStage("sum", x), MapStage((Store(1, back, apply("neg", x)),)))),
        "Contract": Contract(
            types, float32, (), (3,), (20,), (3,), Strided(0, 0, (), (far,), (1,)), Strided(0, 0, (), (1,), (far,)),
            (Store(1, back, acc(float32)),),
        ),
        "Scatter": Scatter(types, (3,), 20, 1, back, x, True),
        "Scan": Scan(types, (3,), 20, "sum", x, (Store(1, back, result(0, float32)),)),
    }  # fmt: skip


@pytest.mark.parametrize("target", host_targets(), ids=lambda t: t.name)
@pytest.mark.parametrize("kind", list(kernels(FAR)))
def test_stores(memory: Array, kind: str, target: Target) -> None:
    """The same kernel with a short distance, by its NumPy meaning, is what it must give."""
    near, kernel = kernels(NEAR)[kind], kernels(FAR)[kind]
    x = np.random.default_rng(3).standard_normal((3, 20)).astype(np.float32)
    close = np.zeros(3 * NEAR, np.float32)
    np.lib.stride_tricks.as_strided(close, (3, 20), (4 * NEAR, 4))[...] = x
    wanted = close.copy()
    run_kernel(near, [close, wanted])
    far = np.lib.stride_tricks.as_strided(memory, (3, 20), (4 * FAR, 4))
    out = np.lib.stride_tricks.as_strided(memory[64:], (3, 20), (4 * FAR, 4))
    far[...], out[...] = x, 0
    run_kernel_natively(kernel, [memory, memory], target)
    expected = np.lib.stride_tricks.as_strided(wanted[64:], (3, 20), (4 * NEAR, 4))
    assert same_bits(np.array(expected), np.array(out)) and same_bits(x, np.array(far))


# ---------------------------------------------------------------- indices beyond 2^31


def test_indices(memory: Array) -> None:
    bytes_ = memory.view(np.uint8)[: 2**32 + 100]
    places = np.array([2**31 - 1, 2**31, 2**31 + 5, 2**32 + 7, 0, 2**32 + 99])
    bytes_[places] = [1, 2, 3, 4, 5, 6]
    for target in host_targets():
        graph = graph_of(op_named("index_select"), [Layout.of(bytes_), Layout.of(places)], {"dim": 0})
        assert compile_graph(graph, target=target)([bytes_, places])[0].tolist() == [1, 2, 3, 4, 5, 6]
    attrs = {"dim": 0, "start": 2**32 + 7, "stop": 2**32 + 100, "step": 92}
    assert eager_run(op_named("slice"), [bytes_], attrs)[0].tolist() == [4, 6]
    graph = Graph("iota")
    x = graph.add_input(TensorType(uint8, (2**32 + 100,)), "x")
    with graph.building():
        where = op_named("add")(op_named("iota")(shape=(3,), dim=0, dtype=int64), 2**32 + 6)
    graph.add_output(op_named("index_select")(x, where, dim=0), "y")
    assert compile_graph(graph)([bytes_])[0].tolist() == [0, 4, 0]


def test_tensors(memory: Array) -> None:
    x = view(memory, (3, 12), (FAR, 1))
    close = np.array(x)

    def f(a: Any) -> Any:
        return (a[1:] * 2).sum(0) + a.T @ a[:, 0]

    wanted = f(graphc.tensor(close)).numpy()
    far = graphc.from_numpy(x)
    compiled = graphc.compile(f)
    runs: list[Callable[[Any], Any]] = [f, compiled, compiled, compiled, compiled]
    assert all(same_bits(wanted, run(far).numpy()) for run in runs)
    far[2, 3:5] = 7.0
    assert x[2, 2:6].tolist() == [close[2, 2], 7.0, 7.0, close[2, 5]] and same_bits(np.array(x[:2]), close[:2])
