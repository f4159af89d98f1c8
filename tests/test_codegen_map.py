"""Map kernels compiled for every target of this machine against their NumPy meaning, bit for bit."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from kernel_runs import check, object_of

from graphc.codegen.cpu import lower_kernel
from graphc.codegen.cpu.pointwise import TRIAL_BLOCK
from graphc.codegen.emit import F32, I64, PTR, Emitter, ParamBlock, Ty
from graphc.codegen.target import AARCH64, TARGETS, X86_64_V3, X86_64_V4, host_target, target_named
from graphc.config import config
from graphc.errors import ArgumentError, InternalError
from graphc.ir.expr import (
    FUNCTIONS,
    Expr,
    apply,
    const,
    flat_index,
    iadd,
    iconst,
    idiv,
    imod,
    imul,
    index,
    isub,
    load,
)  # fmt: skip
from graphc.ir.kernel import Map, Store
from graphc.ir.types import DType, bool_, contiguous_strides, float32, float64, int64
from graphc.runtime.executable import trial

Array = np.ndarray[Any, Any]
F, D, N, B = float32, float64, int64, bool_


def data(dtype: DType, n: int, seed: int = 0) -> Array:
    """`n` values with every special one among them."""
    rng = np.random.default_rng(seed)
    if dtype is B:
        return rng.random(n) < 0.5
    if dtype is N:
        x = rng.integers(-(1 << 63), (1 << 63) - 1, n) >> rng.integers(0, 64, n)
        special = [0, 1, -1, 63, 64, -64, (1 << 63) - 1, -(1 << 63)]
    else:
        x = (rng.standard_normal(n) * np.exp2(rng.integers(-20, 70, n))).astype(dtype.np)
        tiny = np.finfo(dtype.np).smallest_subnormal
        special = [0.0, -0.0, math.inf, -math.inf, math.nan, tiny, -tiny, 0.5, 1.5, 2.5, -0.5, 2.0**63, -(2.0**63), 1.0]
    places = rng.permutation(n)[: min(n, 3 * len(special))]
    x[places] = np.resize(np.array(special, dtype.np), places.size)
    return x


def run_map(operands: Sequence[DType], space: tuple[int, ...], stores: Sequence[Store], sizes: Sequence[int]) -> None:
    check(
        Map(tuple(operands), space, tuple(stores)),
        [data(d, n, k) for k, (d, n) in enumerate(zip(operands, sizes, strict=True))],
    )


def row_major(*sizes: int) -> Expr:
    return flat_index([index(a) for a in range(len(sizes))], contiguous_strides(sizes))


@pytest.mark.parametrize("n", [1, 7, 8, 15, 16, 17, 33, 4095, 4096, 4097, 9000])
def test_one_axis_of_any_length(n: int) -> None:
    i = index(0)
    run_map([F, F, F], (n,), [Store(2, i, apply("add", load(0, F, i), load(1, F, i)))], [n, n, n])


FLOAT = "neg abs sign floor ceil trunc round sqrt add sub mul div fma max min frem fmod eq ne lt le gt ge"
INT = "neg abs sign add sub mul idiv irem max min and or xor not shl shr eq ne lt le gt ge"


@pytest.mark.parametrize("name", FLOAT.split())
@pytest.mark.parametrize("dtype", [F, D])
def test_float_functions(name: str, dtype: DType) -> None:
    n, i = 1003, index(0)
    value = apply(name, *(load(k, dtype, i) for k in range(FUNCTIONS[name])))
    operands = [*[dtype] * FUNCTIONS[name], value.dtype]
    run_map(operands, (n,), [Store(FUNCTIONS[name], i, value)], [n] * len(operands))


@pytest.mark.parametrize("name", INT.split())
def test_int_functions(name: str) -> None:
    n, i = 503, index(0)
    value = apply(name, *(load(k, N, i) for k in range(FUNCTIONS[name])))
    operands = [*[N] * FUNCTIONS[name], value.dtype]
    run_map(operands, (n,), [Store(FUNCTIONS[name], i, value)], [n] * len(operands))


@pytest.mark.parametrize("name", ["and", "or", "xor", "not", "eq", "ne", "lt", "le", "gt", "ge", "max", "min"])
def test_bool_functions(name: str) -> None:
    n, i = 77, index(0)
    value = apply(name, *(load(k, B, i) for k in range(FUNCTIONS[name])))
    run_map([*[B] * FUNCTIONS[name], B], (n,), [Store(FUNCTIONS[name], i, value)], [n] * (FUNCTIONS[name] + 1))


@pytest.mark.parametrize("source", [F, D, N, B])
@pytest.mark.parametrize("to", [F, D, N, B])
def test_casts(source: DType, to: DType) -> None:
    n, i = 403, index(0)
    run_map([source, to], (n,), [Store(1, i, apply("cast", load(0, source, i), dtype=to))], [n, n])


def test_casts_at_the_limits_of_int64() -> None:
    i = index(0)
    x = np.array([2.0**63, -(2.0**63), 2.0**62, 9.3e18, -9.3e18, math.nan, math.inf, -math.inf, 0.9, -0.9, -0.0, 1e300])
    for dtype in (F, D):
        kernel = Map((dtype, N), (len(x),), (Store(1, i, apply("cast", load(0, dtype, i), dtype=N)),))
        with np.errstate(over="ignore"):
            check(kernel, [x.astype(dtype.np), np.zeros(len(x), np.int64)])


def test_broadcast_row_column_and_number() -> None:
    f, (m, n) = row_major(37, 53), (37, 53)
    total = apply(
        "add",
        apply("mul", load(0, F, f), load(1, F, index(1))),
        apply("mul", load(2, F, index(0)), load(3, F, iconst(0))),
    )
    run_map([F, F, F, F, F], (m, n), [Store(4, f, total)], [m * n, n, m, 1, m * n])


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 1, 9, 4), (5, 3, 1, 1), (2, 3, 4, 5, 6)])
def test_permuted_axes(shape: tuple[int, ...]) -> None:
    order = np.random.default_rng(len(shape)).permutation(len(shape))
    steps = [0] * len(shape)
    step = 1
    for axis in reversed(order):
        steps[axis], step = step, step * shape[axis]
    flat = flat_index([index(a) for a in range(len(shape))], steps)
    run_map([F, F], shape, [Store(1, flat, load(0, F, row_major(*shape)))], [math.prod(shape)] * 2)


@pytest.mark.parametrize("dtype", [F, D, N, B])
@pytest.mark.parametrize("shape", [(50, 61), (16, 128), (8, 300), (3, 70, 40), (2, 33, 3, 65)])
def test_transposed_tiles(dtype: DType, shape: tuple[int, ...]) -> None:
    rank, (rows, columns) = len(shape), (shape[1] if len(shape) > 2 else shape[0], shape[-1])
    turned = list(range(rank))
    turned[rank - 1], turned[0 if rank == 2 else 1] = turned[0 if rank == 2 else 1], turned[rank - 1]
    steps = contiguous_strides(tuple(shape[a] for a in turned))
    source = flat_index([index(a) for a in range(rank)], [steps[turned.index(a)] for a in range(rank)])
    total = math.prod(shape)
    kernel = Map(
        (dtype, B, dtype, dtype),
        shape,
        (
            Store(
                3,
                row_major(*shape),
                apply("select", load(1, B, row_major(*shape)), load(0, dtype, source), load(2, dtype, source)),
            ),
        ),
    )
    assert (lower_kernel(kernel).scratch > 0) == (dtype is not B and rows * columns >= 2048)
    check(kernel, [data(d, total, k) for k, d in enumerate(kernel.operands)])


def test_pad_reads_nothing_outside() -> None:
    i, j = index(0), index(1)
    inside = [
        apply("ge", i, iconst(1)),
        apply("lt", i, iconst(9)),
        apply("ge", j, iconst(2)),
        apply("lt", j, iconst(20)),
    ]
    where = apply("and", apply("and", inside[0], inside[1]), apply("and", inside[2], inside[3]))
    source = iadd(imul(isub(i, 1), 18), isub(j, 2))
    for dtype in (F, D, N, B):
        value = apply("select", where, load(0, dtype, source, where), const(1, dtype))
        run_map([dtype, dtype], (10, 23), [Store(1, row_major(10, 23), value)], [8 * 18, 230])


def test_where_that_depends_on_the_row_alone() -> None:
    i = index(0)
    where = apply("lt", i, iconst(3))
    value = apply("select", where, load(0, F, i, where), const(-1.0, F))
    run_map([F, F], (6, 40), [Store(1, row_major(6, 40), value)], [3, 240])


def test_where_by_lane_on_one_address() -> None:
    i = index(0)
    where = apply("lt", i, iconst(0))
    value = apply("select", where, load(0, F, iconst(1 << 40), where), const(2.0, F))
    run_map([F, F], (40,), [Store(1, i, value)], [1, 40])


@pytest.mark.parametrize("dtype", [F, D, N, B])
def test_gather_by_int64_index(dtype: DType) -> None:
    i, j = index(0), index(1)
    kernel = Map(
        (dtype, N, dtype), (30, 41), (Store(2, row_major(30, 41), load(0, dtype, iadd(imul(load(1, N, i), 41), j))),)
    )
    picks = np.random.default_rng(3).integers(0, 12, 30)
    check(kernel, [data(dtype, 12 * 41), picks, np.zeros(30 * 41, dtype.np)])
    by_lane = Map((dtype, N, dtype), (30,), (Store(2, i, load(0, dtype, imul(load(1, N, i), 2))),))
    check(by_lane, [data(dtype, 24), picks, np.zeros(30, dtype.np)])


@pytest.mark.parametrize("dtype", [F, D, N, B])
def test_strided_loads_and_stores(dtype: DType) -> None:
    i = index(0)
    back = isub(iconst(150), imul(i, 3))
    stores = [
        Store(1, imul(i, 3), load(0, dtype, imul(i, 2))),
        Store(2, i, load(0, dtype, isub(50, i))),
        Store(3, back, load(0, dtype, i)),
    ]
    run_map([dtype] * 4, (51,), stores, [101, 151, 51, 151])


def test_store_where() -> None:
    i = index(0)
    where = apply("gt", load(0, F, i), const(0.0, F))
    run_map(
        [F, F, F], (77,), [Store(1, i, load(0, F, i), where), Store(2, imul(i, 2), load(0, F, i), where)], [77, 77, 153]
    )


def test_index_arithmetic() -> None:
    f = row_major(12, 14)
    swapped = iadd(imul(imod(f, 7), 24), idiv(f, 7))
    run_map([F, F], (12, 14), [Store(1, f, load(0, F, swapped))], [168, 168])
    below = isub(f, 100)  # negative dividends
    stores = [Store(0, f, idiv(below, 9)), Store(1, f, imod(below, 9)), Store(2, f, apply("mul", f, f))]
    run_map([N, N, N], (12, 14), stores, [168] * 3)


def test_iota_in_every_type() -> None:
    f = row_major(9, 11)
    stores = [Store(k, f, apply("cast", imul(index(k % 2), 3), dtype=d)) for k, d in enumerate((F, D, N, B))]
    run_map([F, D, N, B], (9, 11), stores, [99] * 4)


def test_philox() -> None:
    f = row_major(5, 33)
    state = [load(0, N, iconst(0)), load(0, N, iconst(1))]
    stores = [Store(1 + w, f, apply("philox", *state, f, iconst(w))) for w in range(4)]
    run_map([N, N, N, N, N], (5, 33), stores, [2, 165, 165, 165, 165])


def test_number_kernel_and_empty_kernel() -> None:
    run_map([F, F, F], (), [Store(2, iconst(0), apply("sub", load(0, F, iconst(3)), load(1, F, iconst(0))))], [5, 1, 1])
    run_map([F, F], (1, 1), [Store(1, row_major(1, 1), load(0, F, iconst(0)))], [1, 1])
    run_map([F, F], (3, 0), [Store(1, row_major(3, 0), load(0, F, row_major(3, 0)))], [0, 0])


def test_stores_of_a_point_do_not_see_one_another() -> None:
    i = index(0)
    x, y = load(0, F, i), load(1, F, i)
    run_map([F, F], (100,), [Store(0, i, apply("add", x, y)), Store(1, i, apply("sub", x, y))], [100, 100])


def test_long_rows_are_cut() -> None:
    f, n = row_major(3, 20000), 20000
    kernel = Map((F, F, F), (3, n), (Store(2, f, apply("mul", load(0, F, f), load(1, F, index(0)))),))
    assert lower_kernel(kernel).units == 15
    check(kernel, [data(F, 3 * n), data(F, 3), np.zeros(3 * n, np.float32)])


def test_deep_expressions_do_not_recurse() -> None:
    i = index(0)
    value: Expr = load(0, F, i)
    for _ in range(3000):
        value = apply("mul", value, value)
    assert lower_kernel(Map((F, F), (8,), (Store(1, i, value),))).emit(X86_64_V3).count("fmul") >= 3000


def scaled(m: int, n: int, offset: int) -> Map:
    f = row_major(m, n)
    return Map((F, F, F), (m, n), (Store(2, f, apply("mul", load(0, F, iadd(f, offset)), load(1, F, index(1)))),))


def test_numbers_are_not_part_of_the_key() -> None:
    a, b = lower_kernel(scaled(8, 16, 3)), lower_kernel(scaled(16, 16, 70))
    assert a.key == b.key and a.params != b.params and a.emit(X86_64_V4) == b.emit(X86_64_V4)
    assert lower_kernel(scaled(8, 16, 0)).key != a.key  # 0 is structure
    assert lower_kernel(scaled(1, 16, 3)).key != a.key  # one axis less


def test_text_has_no_fast_math_and_no_calls() -> None:
    i = index(0)
    x = load(0, F, i)
    value = apply("pow", apply("sin", x), apply("fmod", apply("exp", x), apply("erf", x)))
    made = lower_kernel(Map((F, F), (100,), (Store(1, i, value),)))
    for target in TARGETS.values():
        text = made.emit(target)
        assert not re.search(r"\b(fast|nnan|ninf|nsz|arcp|contract|afn|reassoc)\b", text)
        assert set(re.findall(r"call \S.*? @([\w.]+)\(", text)) <= set(re.findall(r"llvm\.[\w.]+", text))
        object_of(text, target)  # refuses undefined symbols


def test_every_kind_of_access_compiles_for_aarch64() -> None:
    i = index(0)
    where = apply("gt", load(0, F, i), const(0.0, F))
    stores = (
        Store(1, imul(i, 3), load(0, F, imul(i, 2)), where),
        Store(2, i, apply("not", load(2, B, i))),
        Store(3, i, load(3, D, load(4, N, i))),
    )
    made = lower_kernel(Map((F, F, B, D, N), (50,), stores))
    assert object_of(made.emit(AARCH64), AARCH64)[:4] == b"\x7fELF"


def test_builder_refuses_what_is_not_in_the_table() -> None:
    e = Emitter(X86_64_V3, "t")
    with e.function("t", [(PTR, "block"), (I64, "n")]) as (block, n):
        x = e.const(F32, 1.0)
        for bad in (
            lambda: e.intrinsic("exp", x), lambda: e.intrinsic("fma", x, x), lambda: e.bin("frem", x, x),
            lambda: e.bin("add", x, x), lambda: e.bin("fadd", x, e.const(Ty("double"), 1.0)),
            lambda: e.convert("inttoptr", n, "ptr"), lambda: ParamBlock(e, block, 1, 2).param(2),
        ):  # fmt: skip
            with pytest.raises(InternalError):
                bad()


def test_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_target() in TARGETS.values()
    monkeypatch.setattr(config, "target", "x86-64-v3")
    assert host_target() is X86_64_V3
    monkeypatch.setattr(config, "target", "pentium")
    with pytest.raises(ArgumentError, match="pentium"):
        host_target()
    assert (X86_64_V4.lanes(F), X86_64_V4.lanes(D), target_named("aarch64").lanes(F)) == (16, 8, 4)


def test_small_kernels_under_trial_share_the_code_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(n: int, split: bool) -> tuple[str, int]:
        monkeypatch.setattr(trial, "split", split)
        made = lower_kernel(Map((F, F), (n,), (Store(1, index(0), load(0, F, index(0))),)))
        return made.key, made.units

    assert key(TRIAL_BLOCK, True) == key(TRIAL_BLOCK, False)
    assert key(TRIAL_BLOCK + 1, False)[1] == 1 and key(TRIAL_BLOCK + 1, True)[1] == 2
    assert key(TRIAL_BLOCK + 1, True)[0] != key(TRIAL_BLOCK + 1, False)[0]
