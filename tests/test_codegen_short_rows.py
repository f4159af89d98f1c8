"""Map kernels whose rows fit into one vector, and loads a small step apart, against their NumPy meaning, bit for bit.

Every operand ends (or starts) at a page that ends the process when it is touched.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from kernel_runs import check

from graphc.codegen.cpu import lower_kernel
from graphc.ir.expr import Expr, apply, const, flat_index, iadd, iconst, imul, index, isub, load
from graphc.ir.kernel import Map, Store
from graphc.ir.types import DType, bool_, contiguous_strides, float32, float64, int64

F, D, N, B = float32, float64, int64, bool_


def run(dtypes: Sequence[DType], space: tuple[int, ...], stores: Sequence[Store], sizes: Sequence[int]) -> None:
    rng = np.random.default_rng(5)
    operands = [(100 * rng.standard_normal(n)).astype(d.np) for d, n in zip(dtypes, sizes, strict=True)]
    check(Map(tuple(dtypes), space, tuple(stores)), operands)


def row_major(*sizes: int) -> Expr:
    return flat_index([index(a) for a in range(len(sizes))], contiguous_strides(sizes))


@pytest.mark.parametrize("dtype", [F, D, N, B])
@pytest.mark.parametrize("step", [1, 2, 3, 4, -1])
@pytest.mark.parametrize("length", [3, 4, 7, 8, 9, 16, 17, 40])
def test_steps_of_rows_of_any_length(dtype: DType, step: int, length: int) -> None:
    span = abs(step) * (length - 1) + 1
    at = iadd(imul(index(0), span), imul(index(1), step), span - 1 if step < 0 else 0)
    run([dtype, dtype], (5, length), [Store(1, row_major(5, length), load(0, dtype, at))], [5 * span, 5 * length])


@pytest.mark.parametrize("length", [2, 4, 6, 8, 15])
@pytest.mark.parametrize("outer", [(3, 5), (4, 3, 5)])
def test_axis_around_short_rows(outer: tuple[int, ...], length: int) -> None:
    """Values of each level: of the lane, of the row, of the unit; sums of several axes in one address."""
    space = (*outer, length)
    a, r, lane = index(0), index(len(outer) - 1), index(len(outer))
    whole = load(0, F, row_major(*space))
    column, row = load(1, F, lane), load(1, F, r)
    kept = apply("select", apply("lt", iadd(lane, r), iconst(5)), apply("mul", whole, column), row)
    number = apply("cast", iadd(imul(a, 7), imul(lane, 3), r), dtype=F)
    n = int(np.prod(space))
    stores = [Store(2, row_major(*space), apply("add", kept, number)), Store(3, row_major(*space), iadd(a, lane))]
    run([F, F, F, N], space, stores, [n, 16, n, n])


@pytest.mark.parametrize("step", [1, 2, 3, -1])
@pytest.mark.parametrize("length", [5, 8, 24, 37])
def test_conditions_on_loads_a_step_apart(step: int, length: int) -> None:
    """Like a pooling window over padding: lanes off read nothing, nor does anything past the last one that is on."""
    i, j = index(0), index(1)
    start = isub(imul(j, step), 1) if step > 0 else isub(length - 3, j)
    width = step * (length - 2) if step > 0 else length - 2
    inside = apply("and", apply("ge", start, iconst(0)), apply("lt", start, iconst(width)))
    row = apply("and", apply("ge", i, iconst(1)), apply("lt", i, iconst(5)))
    for where, rows in ((inside, 6), (apply("and", row, inside), 4)):
        first = imul(i if rows == 6 else isub(i, 1), width)
        value = apply("select", where, load(0, F, iadd(first, start), where), const(-1.0, F))
        run([F, F], (6, length), [Store(1, row_major(6, length), value)], [rows * width, 6 * length])


def test_condition_on_the_row_alone_of_loads_a_step_apart() -> None:
    i, j = index(0), index(1)
    where = apply("lt", i, iconst(3))
    value = apply("select", where, load(0, F, iadd(imul(i, 79), imul(j, 2)), where), const(-1.0, F))
    run([F, F], (6, 40), [Store(1, row_major(6, 40), value)], [3 * 79, 240])


def test_numbers_of_short_rows_are_shared() -> None:
    """One code for all rows of 9 to 15 elements, whatever the sizes around."""

    def key(*space: int) -> str:
        return lower_kernel(
            Map(
                (F, F),
                space,
                (
                    Store(
                        1,
                        row_major(*space),
                        load(
                            0,
                            F,
                            iadd(
                                *[
                                    imul(index(a), s)
                                    for a, s in enumerate(contiguous_strides(tuple(n + 1 for n in space)))
                                ]
                            ),
                        ),
                    ),
                ),
            )
        ).key

    assert key(20, 30, 9) == key(10, 6, 15)
    assert key(20, 30, 9) != key(20, 30, 7)


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
@pytest.mark.parametrize("length", [6, 16, 41])
def test_comparisons_of_indices(name: str, length: int) -> None:
    """Bounds inside the row, at its ends and far beyond any lane, of a row number and of an operand."""
    i, j = index(0), index(1)
    stores = []
    bounds = [iconst(-1), iconst(0), iconst(7), iconst(2 * length), iconst(1 << 40), iconst(-(1 << 62)), imul(i, 9)]
    for k, bound in enumerate(bounds):
        value = apply(name, iadd(imul(i, 5), imul(j, 1 + k % 4), -3), bound)
        stores.append(Store(k, row_major(5, length), value))
    given = apply(name, iadd(imul(j, 2), load(len(bounds), N, i)), load(len(bounds), N, iconst(2)))
    stores.append(Store(len(bounds) + 1, row_major(5, length), given))
    n = 5 * length
    run([*[B] * len(bounds), N, B], (5, length), stores, [*[n] * len(bounds), 5, n])
