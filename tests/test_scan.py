"""The Scan template against the NumPy interpreter of kernels: equal bits on every target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.codegen.cpu import lower_kernel
from graphc.ir import expr
from graphc.ir.expr_numpy import run_kernel
from graphc.ir.kernel import Scan, Store
from graphc.ir.types import DType, bool_, float32, float64, int64
from tests.kernel_runs import check, host_targets, run_cpu

DTYPES = pytest.mark.parametrize("dtype", [float32, float64, int64, bool_], ids=lambda d: d.name)
NUMBERS = pytest.mark.parametrize("dtype", [float32, float64, int64], ids=lambda d: d.name)


def along(kind: str, dtype: DType, rows: int, run: int, columns: int, descending: bool = False) -> Scan:
    """A scan over the middle axis of [rows, run, columns]."""
    i, c, j = (expr.index(k) for k in range(3))
    flat = expr.flat_index((i, j, c), (run * columns, columns, 1))
    out = dtype if kind in ("sum", "prod", "logaddexp") else int64
    store = Store(1, flat, expr.result(0, out))
    return Scan((dtype, out), (rows, columns), run, kind, expr.load(0, dtype, flat), (store,), descending)


def operands(kernel: Scan, seed: int = 0, special: bool = False) -> list[Any]:
    """Values with many equals; with `special`, NaN, infinities and both zeros among them."""
    rng, n = np.random.default_rng(seed), int(np.prod(kernel.space)) * kernel.run
    x = (rng.integers(-4, 5, n) / 4).astype(kernel.operands[0].np)
    if special and x.dtype.kind == "f" and n:
        some = rng.random(n) < 0.3
        x[some] = rng.choice(np.array([np.nan, -np.inf, np.inf, -0.0, 0.0], x.dtype), int(some.sum()))
    return [x, np.zeros(n, kernel.operands[1].np)]


SHAPES = ((1, 1, 1), (3, 40, 1), (2, 33, 5), (1, 7, 130), (2, 1025, 1), (1, 2050, 3), (2, 0, 3))


@NUMBERS
@pytest.mark.parametrize("kind", ["sum", "prod"])
def test_chains_in_blocks(kind: str, dtype: DType) -> None:
    for rows, run, columns in SHAPES:
        kernel = along(kind, dtype, rows, run, columns)
        arrays = operands(kernel)
        arrays[0] = (arrays[0] + 0.3 if dtype.kind == "f" and kind == "sum" else arrays[0]).astype(dtype.np)
        check(kernel, arrays)


def test_the_order_of_a_sum() -> None:
    x = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    arrays = [x, np.zeros_like(x)]
    run_kernel(along("sum", float32, 1, 3000, 1), arrays)
    assert arrays[1][:1024].tobytes() == np.cumsum(x[:1024]).tobytes()
    first, second = np.cumsum(x[:1024])[-1], np.cumsum(x[1024:2048])
    assert arrays[1][1024:2048].tobytes() == (first + second).tobytes()
    assert arrays[1][2048] == (first + second[-1]) + x[2048]


@DTYPES
@pytest.mark.parametrize("kind", ["argmax", "argmin"])
def test_extremes_so_far(kind: str, dtype: DType) -> None:
    for rows, run, columns in SHAPES:
        kernel = along(kind, dtype, rows, run, columns)
        check(kernel, operands(kernel))
        check(kernel, operands(kernel, special=True))


@DTYPES
@pytest.mark.parametrize("descending", [False, True])
def test_argsort(descending: bool, dtype: DType) -> None:
    for rows, run, columns in (*SHAPES, (2, 2, 2), (1, 64, 1), (1, 65, 2)):
        kernel = along("argsort", dtype, rows, run, columns, descending)
        check(kernel, operands(kernel, special=True))


def test_argsort_tells_all_numbers_apart() -> None:
    tiny, big = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    x = np.array([np.inf, big, 1, tiny, 0.0, -0.0, -tiny, -1, -big, -np.inf, np.nan, -np.nan], np.float32)
    for values in (x, x.astype(np.float64), np.array([2**63 - 1, -(2**63), 0, -1, 2**40, -(2**40)])):
        dtype = {"float32": float32, "float64": float64, "int64": int64}[values.dtype.name]
        for descending in (False, True):
            check(along("argsort", dtype, 1, len(values), 1, descending), [values, np.zeros(len(values), np.int64)])


def test_positions() -> None:
    j = expr.index(0)
    for n in (0, 1, 5, 1000):
        kernel = Scan((bool_, int64), (), n, "positions", expr.load(0, bool_, j), (Store(1, j, expr.result(0, int64)),))
        for chance in (0.0, 0.3, 1.0):
            mask = np.random.default_rng(1).random(n) < chance
            check(kernel, [mask, np.full(n, 7, np.int64)])


@pytest.mark.parametrize("dtype", [float32, float64], ids=lambda d: d.name)
def test_logaddexp_is_near(dtype: DType) -> None:
    for rows, length, columns in ((1, 9, 1), (2, 1030, 17)):
        kernel = along("logaddexp", dtype, rows, length, columns)
        arrays = operands(kernel, special=True)
        want = [a.copy() for a in arrays]
        run_kernel(kernel, want)
        found = []
        for target in host_targets():
            got = [a.copy() for a in arrays]
            run_cpu(lower_kernel(kernel), got, target)
            np.testing.assert_allclose(got[1], want[1], rtol=1e-5 if dtype is float32 else 1e-12)
            found.append(got[1].tobytes())
        assert len(set(found)) == 1


def test_scans_are_shown_in_words() -> None:
    from graphc.compiler import lower, optimise
    from graphc.ir.graph import Graph
    from graphc.ir.op import op_named
    from graphc.ir.types import TensorType

    graph = Graph("scans")
    x = graph.add_input(TensorType(float32, (3, 5)), "x")
    graph.add_output(op_named("argsort")(x, dim=1, descending=True), "y")
    graph.add_output(op_named("cumsum")(x, dim=0), "z")
    text = str(lower(optimise(graph)))
    assert "scan [3] run 5" in text and "argsort descending: b0[" in text
    assert "scan [5] run 3" in text and "sum: b0[" in text
