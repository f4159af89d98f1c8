"""Sizes at which the order rules of docs/numerics.md change course, against their NumPy statements, in every bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from op_runs import HOST, executable, op_by_op, threads
from op_runs import TARGETS as FULL_WIDTH
from random_graphs import same_bits

from graphc.codegen.target import AARCH64, X86_64_V3, Target
from graphc.ir.graph import Graph, Value
from graphc.ir.numerics import contraction, reduction
from graphc.ir.op import Array, op_named
from graphc.ir.types import DType, Layout, bfloat16, float16, int8, int16, int32, uint8

BIG = 2**20 + 1
REDUCED = (0, 1, 31, 32, 33, 1023, 1024, 1025, BIG)
CONTRACTED = (0, 1, 511, 512, 513, 32768, 32769)
FLOATS = (np.float32, np.float64)
NARROW_TYPES = (uint8, int8, int16, int32, float16, bfloat16)

# the widths of aarch64 (4 float32, 2 float64 lanes), run on x86-64
NARROW = Target("x86-64-v3 in 128 bits", X86_64_V3.triple, X86_64_V3.cpu, X86_64_V3.features, 128)
_ON_X86 = pytest.mark.skipif(HOST is AARCH64, reason="not an x86-64")
TARGETS = [*FULL_WIDTH, pytest.param(NARROW, id="narrow", marks=_ON_X86)]


def graph_for(arrays: Sequence[Array]) -> tuple[Graph, list[Value]]:
    """A graph with an input for each array."""
    graph = Graph("sizes")
    return graph, [graph.add_input(Layout.of(a).type, f"x{k}") for k, a in enumerate(arrays)]


def check(graph: Graph, arrays: Sequence[Array], wanted: Sequence[Array], target: Target) -> None:
    """The compiled graph gives `wanted`, by one thread and by two that share kernels as finely as they can be cut."""
    run = executable(graph, [Layout.of(a) for a in arrays], target=target, grain=1)
    for count in (1, 2):
        with threads(count):
            found = run(arrays)
        for output, a, w in zip(graph.outputs, found, wanted, strict=True):
            assert same_bits(a, np.asarray(w)), f"{output.name} by {count} threads: {a} is not {w}"


# ---------------------------------------------------------------- reductions


def blocks(n: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shapes and the reduced axes, `n` elements in all: everything, rows, columns of few and many, a run between."""
    if n == BIG:
        return [((n,), (0,)), ((2, n), (1,)), ((n, 3), (0,))]
    found = [((n,), (0,)), ((5, n), (1,)), ((n, 3), (0,)), ((n, 70), (0,)), ((3, n, 2), (1,)), ((2, n, 33), (1,))]
    return [*found, ((4, n // 11, 11), (1, 2)), ((n // 3, 3, 9), (0, 1))] if n in (33, 1023) else found


def rolled(x: Array, dims: tuple[int, ...]) -> Array:
    """The reduced axes as one, in front."""
    before, after = x.shape[: dims[0]], x.shape[dims[-1] + 1 :]
    run = int(np.prod([x.shape[d] for d in dims]))
    return np.moveaxis(x.reshape(*before, run, *after), len(before), 0)


def near_one(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, n: int) -> Array:
    """Factors whose product stays in range."""
    return np.asarray(np.exp(rng.standard_normal(shape) / max(1.0, n**0.5)), dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
@pytest.mark.parametrize("n", REDUCED)
@pytest.mark.parametrize("target", TARGETS)
def test_sums_and_products(n: int, target: Target, dtype: Any) -> None:
    rng = np.random.default_rng(n)
    for shape, dims in blocks(n):
        x, y = rng.standard_normal(shape).astype(dtype), near_one(rng, shape, dtype, n)
        graph, (a, b) = graph_for((x, y))
        graph.add_output(op_named("sum")(a, dim=dims, keepdim=False), f"sum of {shape} over {dims}")
        graph.add_output(op_named("prod")(b, dim=dims, keepdim=False), f"prod of {shape} over {dims}")
        # an expression that is computed inside the reduction has the same order of terms
        graph.add_output(op_named("sum")(op_named("mul")(a, b), dim=dims, keepdim=False), f"sum of products, {shape}")
        wanted = [reduction(rolled(v, dims), c) for v, c in ((x, np.add), (y, np.multiply), (x * y, np.add))]
        check(graph, (x, y), wanted, target)


def some_of(dtype: DType, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Integers of all bits, or floats around 0."""
    if dtype.is_integer:
        ends = np.iinfo(dtype.np)
        return rng.integers(ends.min, ends.max, shape, dtype.np, endpoint=True)
    return rng.standard_normal(shape).astype(np.float32).astype(dtype.np)


@pytest.mark.parametrize("dtype", NARROW_TYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("n", (0, 33, 1025))
@pytest.mark.parametrize("target", TARGETS)
def test_reductions_of_narrow_types(n: int, target: Target, dtype: DType) -> None:
    rng = np.random.default_rng(n)
    for shape, dims in (((5, n), (1,)), ((n, 70), (0,))):
        x = some_of(dtype, rng, shape)
        graph, (a,) = graph_for((x,))
        for name in ("sum", "prod") if n == 0 else ("sum", "prod", "amax", "amin"):
            graph.add_output(op_named(name)(a, dim=dims, keepdim=False), f"{name} of {shape} over {dims}")
        flat = rolled(x, dims)
        with np.errstate(all="ignore"):
            wanted = [np.asarray(f(flat), dtype.np) for f in (reduction, lambda v: reduction(v, np.multiply))]
            wanted += [] if n == 0 else [np.asarray(flat.max(0)), np.asarray(flat.min(0))]
        check(graph, (x,), wanted, target)


@pytest.mark.parametrize("dtype", NARROW_TYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("k", (0, 513))
@pytest.mark.parametrize("target", TARGETS)
def test_products_of_narrow_types(k: int, target: Target, dtype: DType) -> None:
    rng = np.random.default_rng(k)
    for left, right, ta, tb in list(products(k))[1:6:2]:
        x, y = some_of(dtype, rng, left), some_of(dtype, rng, right)
        with np.errstate(all="ignore"):
            wanted = contraction(np.swapaxes(x, -1, -2) if ta else x, np.swapaxes(y, -1, -2) if tb else y)
        graph, (a, b) = graph_for((x, y))
        product = op_named("matmul")(a, b, ta=ta, tb=tb)
        graph.add_output(product, f"{left} @ {right}")
        graph.add_output(op_named("relu")(product), f"relu({left} @ {right})")
        check(graph, (x, y), [wanted, np.where(wanted < 0, np.zeros((), dtype.np), wanted)], target)


@pytest.mark.parametrize("n", [n for n in REDUCED if n])
@pytest.mark.parametrize("target", TARGETS)
def test_extremes_and_places(n: int, target: Target) -> None:
    rng = np.random.default_rng(n)
    for shape, dims in blocks(n):
        x = rng.integers(-9, 9, shape).astype(np.float32)  # many equals: the first one counts
        x[rng.random(shape) < 0.3 / n] = np.nan
        graph, (a,) = graph_for((x,))
        flat = rolled(x, dims)
        # NumPy, too, lets NaN win and names the first of equals
        wanted: list[Array] = [flat.max(0), flat.min(0)]
        for name in ("amax", "amin"):
            graph.add_output(op_named(name)(a, dim=dims, keepdim=False), f"{name} of {shape} over {dims}")
        if len(dims) == 1:
            for name in ("argmax", "argmin"):
                graph.add_output(op_named(name)(a, dim=dims[0], keepdim=False), f"{name} of {shape} over {dims}")
            wanted += [flat.argmax(0), flat.argmin(0)]
        check(graph, (x,), wanted, target)


@pytest.mark.parametrize("n", REDUCED[:-1])
@pytest.mark.parametrize("target", TARGETS)
def test_ints_and_bools(n: int, target: Target) -> None:
    rng = np.random.default_rng(n)
    for shape, dims in blocks(n):
        x, y = rng.integers(-(2**62), 2**62, shape), rng.random(shape) < 0.5 / max(n, 1)
        graph, (a, b) = graph_for((x, y))
        flat, truth = rolled(x, dims), rolled(y, dims)
        with np.errstate(all="ignore"):
            wanted = [flat.sum(0), flat.prod(0), truth.any(0), truth.all(0)]
        for name, v in (("sum", a), ("prod", a), ("any", b), ("all", b)):
            graph.add_output(op_named(name)(v, dim=dims, keepdim=False), f"{name} of {shape} over {dims}")
        check(graph, (x, y), wanted, target)


@pytest.mark.parametrize("n", REDUCED[1:-1])
@pytest.mark.parametrize("target", TARGETS)
def test_several_sweeps_over_a_row(n: int, target: Target) -> None:
    rng = np.random.default_rng(n)
    for shape, dim in (((4, n), 1), ((n, 5), 0)):
        x = rng.standard_normal(shape).astype(np.float32)
        graph, (a,) = graph_for((x,))
        for name in ("softmax", "log_softmax"):
            graph.add_output(op_named(name)(a, dim=dim), f"{name} of {shape} along {dim}")
        graph.add_output(op_named("var")(a, dim=(dim,), correction=0, keepdim=True), f"var of {shape} along {dim}")
        check(graph, (x,), op_by_op(graph, (x,)), target)


# ---------------------------------------------------------------- contractions


def products(k: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], bool, bool]]:
    """Operand shapes of matmul over `k`, and which of them lie transposed."""
    few = k > 1000
    yield (1, k), (k, 1), False, False
    yield (1, k), (11, k), False, True
    yield (9, k), (k, 1), False, False
    yield (k, 6), (k, 17), True, False
    yield (2, 3, k), (2, k, 4), False, False
    if not few:
        yield (37, k), (k, 66), False, False
        yield (37, k), (66, k), False, True
        yield (3, 1, 5, k), (2, k, 7), False, False


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
@pytest.mark.parametrize("k", CONTRACTED)
@pytest.mark.parametrize("target", TARGETS)
def test_matrix_products(k: int, target: Target, dtype: Any) -> None:
    rng = np.random.default_rng(k)
    for left, right, ta, tb in products(k):
        x, y = rng.standard_normal(left).astype(dtype), rng.standard_normal(right).astype(dtype)
        wanted = contraction(np.swapaxes(x, -1, -2) if ta else x, np.swapaxes(y, -1, -2) if tb else y)
        graph, (a, b) = graph_for((x, y))
        product = op_named("matmul")(a, b, ta=ta, tb=tb)
        graph.add_output(product, f"{left} @ {right}")
        graph.add_output(op_named("relu")(product), f"relu({left} @ {right})")
        check(graph, (x, y), [wanted, np.where(wanted < 0, dtype(0), wanted)], target)


# channels, kernel, image, batch: channels times kernel size is the K of the convolution
CONVOLUTIONS = {
    1: (1, (1, 1), (3, 4), 2),
    511: (73, (1, 7), (3, 9), 2),
    512: (128, (2, 2), (4, 5), 2),
    513: (57, (3, 3), (5, 4), 2),
    32769: (10923, (1, 3), (1, 4), 1),
}


def patches(x: Array, kernel: tuple[int, int]) -> Array:
    """[N, Ho, Wo, kh * kw * C]: each window of an image in the order (kh, kw, c)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel, (2, 3))
    return windows.transpose(0, 2, 3, 4, 5, 1).reshape(windows.shape[0], *windows.shape[2:4], -1)


@pytest.mark.parametrize("k", CONVOLUTIONS)
@pytest.mark.parametrize("target", TARGETS)
def test_convolutions(k: int, target: Target) -> None:
    rng = np.random.default_rng(k)
    channels, kernel, image, batch = CONVOLUTIONS[k]
    x = rng.standard_normal((batch, channels, *image)).astype(np.float32)
    w = rng.standard_normal((5, channels, *kernel)).astype(np.float32)
    graph, (a, b) = graph_for((x, w))
    graph.add_output(op_named("conv2d")(a, b), "conv2d")
    wanted = contraction(patches(x, kernel), w.transpose(2, 3, 1, 0).reshape(k, 5)).transpose(0, 3, 1, 2)
    check(graph, (x, w), [np.ascontiguousarray(wanted)], target)


@pytest.mark.parametrize("k", [1, 511, 512, 513, 32769])
@pytest.mark.parametrize("target", TARGETS)
def test_weight_gradients(k: int, target: Target) -> None:
    rng = np.random.default_rng(k)
    batch = 3 if k % 3 == 0 else 7 if k % 7 == 0 else 1
    x = rng.standard_normal((batch, 4, 1, k // batch + 1)).astype(np.float32)
    g = rng.standard_normal((batch, 3, 1, k // batch)).astype(np.float32)
    graph, (a, b) = graph_for((g, x))
    graph.add_output(op_named("conv2d_weight_grad")(a, b, kernel_size=(1, 2)), "conv2d_weight_grad")
    windows = np.lib.stride_tricks.sliding_window_view(x, (1, 2), (2, 3)).transpose(0, 2, 3, 1, 4, 5).reshape(k, -1)
    wanted = contraction(g.transpose(1, 0, 2, 3).reshape(3, k), windows).reshape(3, 4, 1, 2)
    check(graph, (g, x), [wanted], target)


@pytest.mark.parametrize("k", [1, 511, 512, 513, 32769])
@pytest.mark.parametrize("target", TARGETS)
def test_input_gradients(k: int, target: Target) -> None:
    """Interior places see each of the k (kernel place, output channel) pairs once, kernel places ascending."""
    rng = np.random.default_rng(k)
    width = 3 if k % 3 == 0 else 7 if k % 7 == 0 else 1
    g = rng.standard_normal((2, k // width, 1, 12)).astype(np.float32)
    w = rng.standard_normal((k // width, 3, 1, width)).astype(np.float32)
    graph, (a, b) = graph_for((g, w))
    size = (1, 11 + width)
    graph.add_output(op_named("conv2d_input_grad")(a, b, input_shape=size), "conv2d_input_grad")
    padded = np.pad(g, ((0, 0), (0, 0), (0, 0), (width - 1, width - 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, 3)[..., ::-1]  # kernel place 0 meets the last
    rows = windows.transpose(0, 2, 3, 4, 1).reshape(2, size[1], k)
    wanted = contraction(rows, w.transpose(2, 3, 0, 1).reshape(k, 3)).transpose(0, 2, 1)[:, :, None]
    check(graph, (g, w), [np.ascontiguousarray(wanted)], target)
