"""The Scatter template against the NumPy interpreter of kernels: equal bits on every target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.codegen.cpu import lower_kernel
from graphc.codegen.target import Target
from graphc.ir import expr
from graphc.ir.expr_numpy import run_kernel
from graphc.ir.kernel import Scatter
from graphc.ir.types import DType, bool_, float32, float64, int64
from tests.kernel_runs import bits, guarded, host_targets, run

TARGETS = pytest.mark.parametrize("target", host_targets(), ids=lambda t: t.name)


def check(kernel: Scatter, arrays: list[Any], target: Target, pieces: int = 1) -> Any:
    """Both ways on copies of the same arrays, with forbidden memory around them; gives the target operand."""
    want = [a.copy() for a in arrays]
    run_kernel(kernel, want)
    for end in (True, False):
        found = [guarded(a, end) for a in arrays]
        run(kernel, found, target, pieces)
        for k, (a, b) in enumerate(zip(found, want, strict=True)):
            assert bits(a) == bits(b), f"operand {k}"
    return found[kernel.target]


def rows_kernel(dtype: DType, columns: int, run: int, add: bool, masked: bool) -> Scatter:
    """target[index[j], c] += source[j, c], where index[j] is not negative if masked."""
    c, j = expr.index(0), expr.index(1)
    row = expr.load(0, int64, j)
    where = expr.apply("ge", row, expr.iconst(0)) if masked else None
    flat = expr.iadd(expr.imul(row, columns), c)
    value = expr.load(1, dtype, expr.flat_index((j, c), (columns, 1)))
    return Scatter((int64, dtype, dtype), (columns,), run, 2, flat, value, add, where)


@TARGETS
@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize("dtype", [float32, float64, int64, bool_], ids=lambda d: d.name)
def test_rows(dtype: DType, add: bool, target: Target) -> None:
    rng = np.random.default_rng(0)
    for columns, run_length in ((1, 40), (3, 50), (64, 30), (300, 20), (17, 0)):
        for masked in (False, True):
            index = rng.integers(-3 if masked else 0, 7, run_length)
            source = (10 * rng.standard_normal(run_length * columns)).astype(dtype.np)
            base = (10 * rng.standard_normal(7 * columns)).astype(dtype.np)
            kernel = rows_kernel(dtype, columns, run_length, add, masked)
            found = check(kernel, [index, source, base], target, pieces=2)
            want = base.reshape(7, columns).copy()
            for j in range(run_length):
                if index[j] >= 0:
                    here = source.reshape(-1, columns)[j]
                    want[index[j]] = want[index[j]] + here if add else here
            np.testing.assert_array_equal(found, want.ravel())


@TARGETS
def test_index_per_element_along_the_last_axis(target: Target) -> None:
    """scatter_add(dim=1): places that no vector axis steps through."""
    rng = np.random.default_rng(1)
    rows, run_length, width = 37, 25, 6
    i, j = expr.index(0), expr.index(1)
    at = expr.flat_index((i, j), (run_length, 1))
    flat = expr.iadd(expr.imul(i, width), expr.load(0, int64, at))
    kernel = Scatter((int64, float32, float32), (rows,), run_length, 2, flat, expr.load(1, float32, at), True)
    index, source = rng.integers(0, width, rows * run_length), rng.standard_normal(rows * run_length)
    check(kernel, [index, source.astype(np.float32), np.zeros(rows * width, np.float32)], target, pieces=3)


@TARGETS
def test_one_place_gathers_all_in_order(target: Target) -> None:
    """A place that does not move with the run: every step sees the sum so far."""
    source = np.array([1e8, 1.0, -1e8, 1.0] * 4, np.float32)
    for space in ((), (5,)):
        j = expr.index(len(space))
        flat = expr.index(0) if space else expr.iconst(0)
        kernel = Scatter((float32, float32), space, 16, 1, flat, expr.load(0, float32, j), True)
        found = check(kernel, [source, np.zeros(5 if space else 1, np.float32)], target)
        total = np.float32(0)
        for v in source:
            total = np.float32(total + v)
        assert (found == total).all()


@TARGETS
def test_two_outer_axes(target: Target) -> None:
    """Overlapping windows added back: space (batch, row), run over windows and positions within them."""
    rng = np.random.default_rng(2)
    batch, channels, windows, size, step = 3, 20, 5, 4, 2
    b, c, r = (expr.index(a) for a in range(3))
    place = expr.iadd(expr.imul(expr.idiv(r, size), step), expr.imod(r, size))
    length = (windows - 1) * step + size
    flat = expr.flat_index((b, place, c), (length * channels, channels, 1))
    value = expr.load(0, float64, expr.flat_index((b, r, c), (windows * size * channels, channels, 1)))
    kernel = Scatter((float64, float64), (batch, channels), windows * size, 1, flat, value, True)
    source = rng.standard_normal(batch * windows * size * channels)
    check(kernel, [source, np.zeros(batch * length * channels)], target, pieces=2)


def test_code_is_shared_by_structure() -> None:
    a, b = (lower_kernel(rows_kernel(float32, c, n, True, False)) for c, n in ((5, 9), (300, 1)))
    other = lower_kernel(rows_kernel(float32, 5, 9, False, False))
    assert a.key == b.key and a.key != other.key
