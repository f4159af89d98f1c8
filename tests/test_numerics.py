"""The order rules and the kernel interpreter against independent, element-by-element statements."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from graphc.errors import InternalError
from graphc.ir import expr
from graphc.ir.expr_numpy import Env, evaluate, run_kernel
from graphc.ir.kernel import Contract, Map, MapStage, ReduceStage, Rows, Scatter, Store, Strided
from graphc.ir.numerics import contraction, fma, reduction, segment_length
from graphc.ir.philox import philox
from graphc.ir.types import bool_, float32, float64, int64


def rule_r(x: list[Any], zero: Any) -> Any:
    """Rule R, one number at a time."""
    if not x:
        return zero
    if len(x) > 1024:
        return rule_r([rule_r(x[i : i + 1024], zero) for i in range(0, len(x), 1024)], zero)
    s = []
    for p in range(32):
        chain = x[p::32]
        total = chain[0] if chain else -zero
        for v in chain[1:]:
            total = total + v
        s.append(total)
    for d in (16, 8, 4, 2, 1):
        s = [s[p] + s[p + d] for p in range(d)]
    return s[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 2, 31, 32, 33, 1023, 1024, 1025, 5000])
def test_reduction_follows_rule_r(n: int, dtype: Any) -> None:
    x = np.random.default_rng(n).standard_normal((n, 2)).astype(dtype)
    want = [rule_r(list(x[:, c]), dtype(0)) for c in range(2)]
    found = reduction(x)
    assert found.dtype == dtype and found.tolist() == want


def test_reduction_over_two_levels_of_blocks() -> None:
    x = np.random.default_rng(0).standard_normal(2**20 + 1).astype(np.float32)
    blocks = [reduction(x[i : i + 1024]) for i in range(0, len(x), 1024)]
    assert reduction(x) == reduction(np.stack([reduction(np.stack(blocks[:1024])), blocks[1024]]))


def test_reduction_keeps_negative_zero_and_starts_from_the_identity() -> None:
    assert np.signbit(reduction(np.array([-0.0]))) and np.signbit(reduction(np.full(33, -0.0, np.float32)))
    assert not np.signbit(reduction(np.zeros(0))) and reduction(np.zeros((0, 3)), np.multiply).tolist() == [1, 1, 1]
    assert reduction(np.arange(1, 8), np.multiply) == 5040 and reduction(np.arange(3000)) == 4498500


def exact_fma(a: Any, b: Any, c: Any) -> Fraction:
    return Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-160, 1e160])
def test_fma_rounds_once_in_float64(scale: float) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal(300), rng.standard_normal(300) * scale
    for c in (-a * b, rng.standard_normal(300) * scale, rng.standard_normal(300) * scale * 1e-17, np.zeros(300)):
        for found, *operands in zip(fma(a, b, c), a, b, c, strict=True):
            assert found == float(exact_fma(*operands))


def test_fma_rounds_once_in_float32() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((2, 300)).astype(np.float32)
    for c in (-(a * b), (a * b * np.float32(2.0**30)), rng.standard_normal(300).astype(np.float32) * np.float32(1e-9)):
        for found, *operands in zip(fma(a, b, c), a, b, c, strict=True):
            error = abs(Fraction(float(found)) - exact_fma(*operands))
            for other in (np.nextafter(found, np.float32(np.inf)), np.nextafter(found, np.float32(-np.inf))):
                assert error <= abs(Fraction(float(other)) - exact_fma(*operands))
    # just below a tie: rounding the sum to float64 first would make it one, and give 1 + 2**-22
    above, below = np.float32(1 + 2**-23), np.float32(1 - 2**-23)
    assert fma(above, below * np.float32(2**-24), above) == above


def test_fma_of_infinities_and_zeros() -> None:
    inf = np.inf
    assert math.isnan(fma(np.float64(inf), np.float64(0), np.float64(1)))
    assert fma(np.float64(1e200), np.float64(1e200), np.float64(-inf)) == -inf
    assert fma(np.float64(1e200), np.float64(1e200), np.float64(-1)) == inf
    assert np.signbit(fma(np.float64(-0.0), np.float64(1), np.float64(-0.0)))
    assert not np.signbit(fma(np.float64(1), np.float64(1), np.float64(-1)))


@pytest.mark.parametrize("k", [0, 1, 511, 512, 513, 1300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_contraction_by_segments(k: int, dtype: Any) -> None:
    rng = np.random.default_rng(k)
    a, b = rng.standard_normal((2, k)).astype(dtype), rng.standard_normal((k, 3)).astype(dtype)
    found = contraction(a, b)
    assert found.dtype == dtype and found.shape == (2, 3)
    for m, n in itertools.product(range(2), range(3)):
        sums = []
        for start in range(0, k, 512):
            acc = dtype(0)
            for i in range(start, min(start + 512, k)):
                acc = fma(a[m, i], b[i, n], acc)[()]
            sums.append(acc)
        want = dtype(0) if not sums else sums[0]
        for s in sums[1:]:
            want = want + s
        assert found[m, n] == want


def test_segment_lengths() -> None:
    assert [segment_length(k) for k in (0, 1, 32768, 32769, 65537)] == [512, 512, 512, 1024, 1536]


def test_philox_known_answers() -> None:
    """The vectors of the authors' distribution (Random123, kat_vectors)."""

    def pair(low: int, high: int) -> Any:
        return np.uint64(low | high << 32).astype(np.int64)

    ones = 0xFFFFFFFF
    cases = {
        (0, 0, 0, 0, 0, 0): (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        (ones,) * 6: (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0): (
            0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1,
        ),
    }  # fmt: skip
    for (c0, c1, c2, c3, k0, k1), want in cases.items():
        assert tuple(map(int, philox(pair(k0, k1), pair(c0, c1), pair(c2, c3)))) == want


def test_expressions_of_integers() -> None:
    x, y = np.array([7, -7, 5, -(2**63)]), np.array([2, 2, 0, -1])
    env = Env((), [x, y, np.array([0, 3, 64, -1])])
    at = [expr.load(k, int64, expr.iconst(0)) for k in range(3)]
    for i in range(4):
        env = Env((), [x[i:], y[i:], env.operands[2]])
        assert evaluate(expr.apply("idiv", at[0], at[1]), env) == [3, -4, 0, -(2**63)][i]
        assert evaluate(expr.apply("irem", at[0], at[1]), env) == [1, 1, 0, 0][i]
    spots = Env((np.arange(4),), [np.array([0, 3, 64, -1])])
    by = expr.load(0, int64, expr.index(0))
    assert evaluate(expr.apply("shl", expr.iconst(1), by), spots).tolist() == [1, 8, 0, 0]
    assert evaluate(expr.apply("shr", expr.iconst(-9), by), spots).tolist() == [-9, -2, -1, -1]


def test_masked_loads_read_nothing_and_bad_loads_are_found() -> None:
    i = expr.index(0)
    inside = expr.apply("lt", i, expr.iconst(2))
    x = expr.load(0, float64, i, inside)
    env = Env((np.arange(4),), [np.array([5.0, 6.0])])
    assert evaluate(expr.apply("select", inside, x, expr.const(-1.0, float64)), env).tolist() == [5, 6, -1, -1]
    with pytest.raises(InternalError, match="out of bounds"):
        evaluate(expr.load(0, float64, i), env)


def test_map_and_rows() -> None:
    i, j = expr.index(0), expr.index(1)
    x = expr.load(0, float32, expr.flat_index((i, j), (5, 1)))
    double = Map((float32, float32), (3, 5), (Store(1, expr.flat_index((j, i), (3, 1)), expr.apply("add", x, x)),))
    data, out = np.arange(15, dtype=np.float32), np.zeros(15, np.float32)
    run_kernel(double, [data, out])
    np.testing.assert_array_equal(out.reshape(5, 3), 2 * data.reshape(3, 5).T)

    top = expr.result(0, float32)
    shifted = expr.apply("sub", x, top)
    rows = Rows(
        (float32, float32, int64, float32),
        (3,),
        5,
        (
            ReduceStage("max", x),
            ReduceStage("argmin", x),
            ReduceStage("sum", shifted),
            MapStage((Store(1, expr.flat_index((i, j), (5, 1)), shifted),)),
        ),
        (Store(2, i, expr.result(1, int64)), Store(3, i, expr.result(2, float32))),
    )
    place, total = np.full(3, -1), np.zeros(3, np.float32)
    run_kernel(rows, [data, out, place, total])
    np.testing.assert_array_equal(out.reshape(3, 5), [[-4, -3, -2, -1, 0]] * 3)
    assert place.tolist() == [0, 0, 0] and total.tolist() == [-10, -10, -10]


def test_extremes_of_bools_nan_and_nothing() -> None:
    def reduce(kind: str, values: Any, dtype: Any) -> Any:
        x = np.asarray(values, dtype.np)
        out_type = int64 if kind.startswith("arg") else dtype
        stage = ReduceStage(kind, expr.load(0, dtype, expr.index(0)))
        out = np.zeros(1, out_type.np)
        store = Store(1, expr.iconst(0), expr.result(0, out_type))
        run_kernel(Rows((dtype, out_type), (), len(x), (stage,), (store,)), [x, out])
        return out[0]

    assert reduce("any", [], bool_) == np.False_ and reduce("all", [], bool_) == np.True_
    assert reduce("any", [False, True], bool_) == np.True_ and reduce("all", [False, True], bool_) == np.False_
    assert math.isnan(reduce("max", [1, np.nan, 3], float32)) and reduce("argmax", [1, np.nan, 3], float32) == 1
    assert not np.signbit(reduce("max", [-0.0, 0.0, -0.0], float64)) and reduce("argmax", [-0.0, 0.0], float64) == 0
    assert reduce("max", [], float32) == -np.inf and reduce("min", [], int64) == 2**63 - 1
    assert reduce("argmin", [3, 1, 1], int64) == 1 and reduce("prod", [2, 3, 4], int64) == 24


def test_contract_kernel_with_bias() -> None:
    rng = np.random.default_rng(0)
    a, b, bias = rng.standard_normal((2, 3, 4)), rng.standard_normal((4, 5)), rng.standard_normal(5)
    axes = tuple(map(expr.index, range(3)))
    value = expr.apply("add", expr.acc(float64), expr.load(2, float64, axes[2]))
    kernel = Contract(
        (float64,) * 4, float64, (2,), (3,), (5,), (4,),
        Strided(0, 0, (12,), (4,), (1,)), Strided(1, 0, (0,), (1,), (5,)),
        (Store(3, expr.flat_index(axes, (15, 5, 1)), value),),
    )  # fmt: skip
    out = np.zeros(30)
    run_kernel(kernel, [a.ravel(), b.ravel(), bias, out])
    np.testing.assert_array_equal(out.reshape(2, 3, 5), contraction(a, b) + bias)
    np.testing.assert_allclose(out.reshape(2, 3, 5), a @ b + bias)


def test_scatter_adds_in_ascending_order() -> None:
    c, j = expr.index(0), expr.index(1)
    places = np.array([1, 0, 1, 5, 1])
    values = np.array([1e8, 1.0, 1.0, 9.0, -1e8], np.float32)
    row = expr.load(0, int64, j)
    kernel = Scatter(
        (int64, float32, float32), (2,), 5, 2, expr.iadd(expr.imul(row, 2), c), expr.load(1, float32, j), True,
        expr.apply("lt", row, expr.iconst(2)),
    )  # fmt: skip
    out = np.zeros(4, np.float32)
    run_kernel(kernel, [places, values, out])
    assert out.tolist() == [1, 1, 0, 0]
    clash = Scatter((int64, float32, float32), (2,), 5, 2, expr.iconst(0), expr.load(1, float32, j), False)
    with pytest.raises(InternalError, match="one place"):
        run_kernel(clash, [places, values, out])
