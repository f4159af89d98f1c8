"""The Rows template against the NumPy interpreter of kernels: equal bits on every target, layout and size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.codegen.cpu import lower_kernel
from graphc.codegen.target import Target
from graphc.ir import expr
from graphc.ir.expr_numpy import run_kernel
from graphc.ir.kernel import MapStage, ReduceStage, Rows, Store
from graphc.ir.types import DType, bool_, float32, float64, int64
from tests.kernel_runs import bits, guarded, host_targets, run

TARGETS = pytest.mark.parametrize("target", host_targets(), ids=lambda t: t.name)
SIZES = (0, 1, 2, 7, 31, 32, 33, 100, 1023, 1024, 1025, 3000)
KINDS = ("sum", "prod", "max", "min", "argmax", "argmin")


def reduction_kernel(
    kind: str, dtype: DType, space: tuple[int, ...], steps: tuple[int, ...], n: int, step: int
) -> Rows:
    """out[space] = reduction of x[Σ space * steps + run * step]."""
    rank = len(space)
    out = int64 if kind.startswith("arg") else dtype
    axes = tuple(map(expr.index, range(rank + 1)))
    x = expr.load(0, dtype, expr.flat_index(axes, (*steps, step)))
    contiguous = [int(np.prod(space[k + 1 :])) for k in range(rank)]
    store = Store(1, expr.flat_index(axes[:rank], contiguous), expr.result(0, out))
    return Rows((dtype, out), space, n, (ReduceStage(kind, x),), (store,))


def data(dtype: DType, size: int, seed: int = 0, special: bool = False) -> Any:
    """Random operands of about 1, so that products stay in range."""
    rng = np.random.default_rng(seed)
    if dtype is bool_:
        return rng.random(size) < 0.1
    if dtype is int64:
        return rng.integers(-3, 4, size)
    x = (1.0 + 0.1 * rng.standard_normal(size)).astype(dtype.np) * rng.choice([1, -1], size).astype(dtype.np)
    if special and size:
        x[rng.integers(0, size, max(1, size // 40))] = np.nan
        x[rng.integers(0, size, max(1, size // 10))] = -0.0
        x[rng.integers(0, size, max(1, size // 10))] = 0.0
    return x


def check(kernel: Rows, arrays: list[Any], target: Target, pieces: int = 1) -> None:
    """Both ways on copies of the same arrays, with forbidden memory after or before them; NaNs are one value."""
    want = [a.copy() for a in arrays]
    run_kernel(kernel, want)
    for end in (True, False):
        found = [guarded(a, end) for a in arrays]
        run(kernel, found, target, pieces)
        for k, (a, b) in enumerate(zip(found, want, strict=True)):
            assert bits(a) == bits(b), f"operand {k}"


def outputs(kernel: Rows) -> Any:
    """An array for operand 1."""
    return np.zeros(int(np.prod(kernel.space)), kernel.operands[1].np)


@TARGETS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [float32, float64, int64], ids=lambda d: d.name)
def test_contiguous_rows(kind: str, dtype: DType, target: Target) -> None:
    for n in SIZES:
        kernel = reduction_kernel(kind, dtype, (5,), (n,), n, 1)
        check(kernel, [data(dtype, 5 * n, n, special=True), outputs(kernel)], target, pieces=2)


@TARGETS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [float32, float64, int64], ids=lambda d: d.name)
def test_columns(kind: str, dtype: DType, target: Target) -> None:
    for n in SIZES:
        for columns in (37, 600) if n < 200 else (40,):
            kernel = reduction_kernel(kind, dtype, (2, columns), (n * columns, 1), n, columns)
            check(kernel, [data(dtype, 2 * n * columns, n, special=True), outputs(kernel)], target, pieces=2)


@TARGETS
@pytest.mark.parametrize("kind", ["any", "all", "max", "min", "argmax"])
def test_bools(kind: str, target: Target) -> None:
    for n in (0, 1, 31, 100, 1025):
        rows = reduction_kernel(kind, bool_, (4,), (n,), n, 1)
        check(rows, [data(bool_, 4 * n, n), outputs(rows)], target)
        columns = reduction_kernel(kind, bool_, (50,), (1,), n, 50)
        check(columns, [data(bool_, 50 * n, n), outputs(columns)], target)


@TARGETS
def test_strided_layouts_and_a_single_row(target: Target) -> None:
    x = data(float32, 60_000)
    for space, steps, n, step in (
        ((), (), 1500, 3),
        ((3,), (7,), 1100, 21),
        ((4, 5), (5000, 2), 100, 11),
        ((2, 3, 20), (30_000, 9000, 7), 64, 140),
        ((1, 6, 1), (5, 100, 3), 1, 50),
    ):
        kernel = reduction_kernel("sum", float32, space, steps, n, step)
        check(kernel, [x, outputs(kernel)], target)


@TARGETS
def test_three_levels_of_blocks(target: Target) -> None:
    n = 2**20 + 1
    for dtype in (float32, float64):
        kernel = reduction_kernel("sum", dtype, (), (), n, 1)
        check(kernel, [data(dtype, n), outputs(kernel)], target)
    columns = reduction_kernel("sum", float32, (8,), (1,), n, 8)
    check(columns, [data(float32, 8 * n), outputs(columns)], target)


def softmax_kernel(dtype: DType, space: tuple[int, ...], steps: tuple[int, ...], n: int, step: int) -> Rows:
    """x - max, its squares and their sum: the stages of a softmax without exp, and a store of the sum."""
    rank = len(space)
    axes = tuple(map(expr.index, range(rank + 1)))
    flat = expr.flat_index(axes, (*steps, step))
    x = expr.load(0, dtype, flat)
    shifted = expr.apply("sub", x, expr.result(0, dtype))
    square = expr.apply("mul", shifted, shifted)
    quotient = expr.apply("div", square, expr.result(1, dtype))
    contiguous = [int(np.prod(space[k + 1 :])) for k in range(rank)]
    place = expr.flat_index(axes[:rank], contiguous)
    scaled = expr.apply("mul", expr.result(1, dtype), expr.load(3, dtype, expr.iconst(0)))
    return Rows(
        (dtype, dtype, dtype, dtype), space, n,
        (ReduceStage("max", x), ReduceStage("sum", square), MapStage((Store(1, flat, quotient),))),
        (Store(2, place, scaled),),
    )  # fmt: skip


@TARGETS
@pytest.mark.parametrize("dtype", [float32, float64], ids=lambda d: d.name)
def test_stages(dtype: DType, target: Target) -> None:
    for n in (1, 5, 9, 10, 33, 1030):
        for space, steps, step in (((3,), (n,), 1), ((2, 70), (70 * n, 1), 70), ((2, 20), (40 * n, 2), 40)):
            kernel = softmax_kernel(dtype, space, steps, n, step)
            size = 2 * 70 * n + 80 * n
            scale = np.array([0.3], dtype.np)
            check(kernel, [data(dtype, size), np.zeros(size, dtype.np), np.zeros(500, dtype.np), scale], target, 2)


@TARGETS
def test_windows_with_masked_loads(target: Target) -> None:
    """Largest of 3x3 windows of a padded image and where it is: the run splits into rows and columns of the window."""
    height, width = 9, 21
    y, x, k = (expr.index(a) for a in range(3))
    row = expr.isub(expr.iadd(y, expr.idiv(k, 3)), 1)
    column = expr.isub(expr.iadd(x, expr.imod(k, 3)), 1)
    inside = expr.apply("and", within(row, height), within(column, width))
    value = expr.load(0, float32, expr.flat_index((row, column), (width, 1)), inside)
    value = expr.apply("select", inside, value, expr.const(-np.inf, float32))
    place = expr.flat_index((y, x), (width, 1))
    kernel = Rows(
        (float32, float32, int64), (height, width), 9, (ReduceStage("max", value), ReduceStage("argmax", value)),
        (Store(1, place, expr.result(0, float32)), Store(2, place, expr.result(1, int64))),
    )  # fmt: skip
    size = height * width
    check(kernel, [data(float32, size), np.zeros(size, np.float32), np.zeros(size, np.int64)], target)


def within(i: expr.Expr, size: int) -> expr.Expr:
    """0 <= i < size."""
    return expr.apply("and", expr.apply("ge", i, expr.iconst(0)), expr.apply("lt", i, expr.iconst(size)))


def test_code_is_shared_by_structure() -> None:
    a, b = (lower_kernel(reduction_kernel("sum", float32, (n,), (m,), m, 1)) for n, m in ((5, 100), (77, 300)))
    assert a.key == b.key and a.params != b.params
    others = [
        reduction_kernel("max", float32, (5,), (100,), 100, 1),
        reduction_kernel("sum", float64, (5,), (100,), 100, 1),
        reduction_kernel("sum", float32, (50,), (1,), 100, 50),
        reduction_kernel("sum", float32, (5,), (2000,), 2000, 1),
    ]
    assert len({a.key, *(lower_kernel(k).key for k in others)}) == 5


@TARGETS
def test_dear_values_that_are_kept_have_the_same_bits(target: Target) -> None:
    """A softmax keeps its exponentials between stages when it runs along rows; along columns it computes them again."""
    for n in (5, 100, 1500):
        x = data(float32, 40 * n).reshape(40, n)
        found = []
        for steps, step, memory in (((n,), 1, x), ((1,), 40, np.ascontiguousarray(x.T))):
            i, j = expr.index(0), expr.index(1)
            flat = expr.flat_index((i, j), (*steps, step))
            load = expr.load(0, float32, flat)
            e = expr.apply("exp", expr.apply("sub", load, expr.result(0, float32)))
            quotient = expr.apply("div", e, expr.result(1, float32))
            stages = (ReduceStage("max", load), ReduceStage("sum", e), MapStage((Store(1, flat, quotient),)))
            kernel = Rows((float32, float32), (40,), n, stages)
            out, want = np.zeros((2, 40 * n), np.float32)
            assert ("kept []" in lower_kernel(kernel).key) == (step != 1)
            run(kernel, [memory.ravel(), out], target, pieces=3)
            run_kernel(kernel, [memory.ravel(), want])
            np.testing.assert_allclose(out, want, 1e-6)
            found.append(out.reshape(memory.shape))
        np.testing.assert_array_equal(found[0].view(np.uint32), found[1].T.view(np.uint32))
