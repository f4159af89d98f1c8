"""Conversions between all types: exhaustive or random bits against NumPy, for every target, without library calls."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_runs import host_targets, object_of, run
from random_graphs import same_bits

from graphc.codegen.cpu import lower_kernel
from graphc.codegen.target import TARGETS, X86_64_V3, Target
from graphc.compiler import eager_run
from graphc.errors import DTypeError
from graphc.ir.convert import cast_array
from graphc.ir.expr import apply, index, load
from graphc.ir.kernel import Map, Store
from graphc.ir.op import Array, op_named
from graphc.ir.ops.elementwise import REAL
from graphc.ir.types import (
    DTYPES,
    DType,
    TensorType,
    bfloat16,
    bool_,
    complex64,
    dtype_of,
    float16,
    float32,
    float64,
    int8,
    uint8,
)

COUNT = 4001  # a tail at every width
NARROW = Target("x86-64-v3 in 128 bits", X86_64_V3.triple, X86_64_V3.cpu, X86_64_V3.features, 128)
EDGES = [0.0, -0.0, 0.4, -0.6, 1.5, -1.5, 127.5, 128.0, -128.9, -129.0, 255.5, 256.0, 2.0**15, -(2.0**15) - 1, 2.0**31,
         -(2.0**31), 2.0**63, -(2.0**63), 2.0**63 - 1024, 65504.0, 65519.9, 65520.0, 2.0**-24, 2.0**-25, 3 * 2.0**-26,
         1e-40, 1e-45, 3.39e38, 1e300, np.inf, -np.inf, np.nan]  # fmt: skip


def numbers(dtype: DType) -> Array:
    """Random bits of a type, and for floats what lies at the ends of others."""
    rng = np.random.default_rng(3)
    if dtype is bool_:
        return rng.integers(0, 2, COUNT).astype(np.bool_)
    bits = rng.integers(0, 256, COUNT * dtype.itemsize).astype(np.uint8).view(dtype.np)
    if dtype.kind == "f":
        ends = cast_array(np.asarray(EDGES), dtype)
        bits[: len(ends)] = ends
    return bits


def kernel(source: DType, count: int) -> Map:
    """One load, stored as every type."""
    x = load(0, source, index(0))
    stores = tuple(Store(k, index(0), apply("cast", x, dtype=t)) for k, t in enumerate(REAL, 1))
    return Map((source, *REAL), (count,), stores)


@pytest.mark.parametrize("target", [*host_targets(), *([NARROW] if X86_64_V3 in host_targets() else [])])
@pytest.mark.parametrize("source", REAL, ids=lambda d: d.name)
def test_every_conversion(source: DType, target: Target) -> None:
    x = numbers(source)
    found = [np.zeros(x.size, t.np) for t in REAL]
    run(kernel(source, x.size), [x, *found], target)
    for a, t in zip(found, REAL, strict=True):
        wanted = cast_array(x, t)
        assert same_bits(a, wanted), f"{source} to {t}: {x[a != wanted]} gave {a[a != wanted]}"


@pytest.mark.parametrize("target", list(TARGETS.values()), ids=lambda t: t.name)
@pytest.mark.parametrize("source", REAL, ids=lambda d: d.name)
def test_no_conversion_is_a_library_call(source: DType, target: Target) -> None:
    object_of(lower_kernel(kernel(source, 100)).emit(target), target)  # refuses undefined symbols


@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=lambda d: d.name)
def test_every_16_bit_float_survives_float32(dtype: DType) -> None:
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype.np)
    (wide,) = eager_run(op_named("cast"), [x], {"dtype": float32})
    assert same_bits(wide, x.astype(np.float32))
    (back,) = eager_run(op_named("cast"), [wide], {"dtype": dtype})
    assert same_bits(back, x)


@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=lambda d: d.name)
def test_rounding_is_to_nearest_even_at_every_midpoint(dtype: DType) -> None:
    x = np.arange(1 << 15, dtype=np.uint16).view(dtype.np).astype(np.float32)
    x = x[np.isfinite(x)]
    middle = ((x[:-1].astype(np.float64) + x[1:]) / 2).astype(np.float32)
    for near in (middle, np.nextafter(middle, np.float32(np.inf)), np.nextafter(middle, np.float32(0)), -middle):
        (found,) = eager_run(op_named("cast"), [near], {"dtype": dtype})
        assert same_bits(found, near.astype(dtype.np))


def test_float64_is_rounded_by_way_of_float32() -> None:
    x = np.array([1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-11 + 2.0**-40])  # just above midpoints of 16-bit floats
    for dtype, k in ((bfloat16, 0), (float16, 1)):
        (found,) = eager_run(op_named("cast"), [x[k : k + 1]], {"dtype": dtype})
        assert float(found[0]) == 1.0


def test_float_to_integer_saturates_and_integers_wrap() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 300.0, -300.0, -1.9, 127.9])
    for dtype, wanted in ((uint8, [0, 255, 0, 255, 0, 0, 127]), (int8, [0, 127, -128, 127, -128, -1, 127])):
        assert eager_run(op_named("cast"), [x], {"dtype": dtype})[0].tolist() == wanted
    y = np.array([300, -300, 128, -129, 255])
    for dtype, wanted in ((uint8, [44, 212, 128, 127, 255]), (int8, [44, -44, -128, 127, -1])):
        assert eager_run(op_named("cast"), [y], {"dtype": dtype})[0].tolist() == wanted


def test_integer_division_of_every_type() -> None:
    for dtype in (t for t in DTYPES if t.is_integer):
        low = int(np.iinfo(dtype.np).min)
        x = np.array([low, 7, -7 if dtype.is_signed else 249, low], dtype.np)
        y = np.array([-1 if dtype.is_signed else 255, 0, 2, 1], dtype.np)
        wanted = [low, 0, -4 if dtype.is_signed else 124, low]
        (found,) = eager_run(op_named("floor_divide"), [x, y], {})
        assert found.dtype == dtype.np and found.tolist() == wanted
        (rest,) = eager_run(op_named("remainder"), [x, y], {})
        assert rest.tolist() == [0, 0, 1, 0]


def test_complex_numbers_are_stored_and_moved_only() -> None:
    z = TensorType(complex64, (2,))
    for name, attrs in (("add", {}), ("eq", {}), ("matmul", {"ta": False, "tb": False})):
        with pytest.raises(DTypeError, match=f"^{name}: .*c64"):
            op_named(name).infer(z, z, **attrs)
    for dtype in (float32, bool_):
        with pytest.raises(DTypeError, match=r"^cast: .*complex numbers are stored and moved only"):
            op_named("cast").infer(z, dtype=dtype)
        with pytest.raises(DTypeError, match=r"^cast: .*complex"):
            op_named("cast").infer(TensorType(dtype, (2,)), dtype=complex64)
    for n in (1, 7, 70):
        x = (np.arange(3 * n) - 1j * np.arange(3 * n)[::-1]).reshape(3, n)
        for dtype in (np.complex64, np.complex128):
            (found,) = eager_run(op_named("permute"), [x.astype(dtype)], {"dims": (1, 0)})
            assert dtype_of(found.dtype).is_complex and same_bits(found, np.ascontiguousarray(x.astype(dtype).T))


def test_casts_of_casts_are_left_out_only_where_that_changes_nothing() -> None:
    from graphc.compiler import compile_graph
    from graphc.ir.graph import Graph

    for source in REAL:
        x = numbers(source)[:64]
        for middle in REAL:
            graph = Graph("casts")
            value = op_named("cast")(graph.add_input(TensorType(source, (64,)), "x"), dtype=middle)
            for target in REAL:
                graph.add_output(op_named("cast")(value, dtype=target), target.name)
            for a, t in zip(compile_graph(graph)([x]), REAL, strict=True):
                wanted = cast_array(cast_array(x, middle), t)
                assert same_bits(a, wanted), f"{source} to {middle} to {t}: {a} is not {wanted}"


def test_float64_rounded_to_float16_keeps_both_roundings_in_one_kernel() -> None:
    x = np.random.default_rng(0).standard_normal(1000)
    (found,) = eager_run(op_named("cast"), [x], {"dtype": float16})
    assert same_bits(found, x.astype(np.float32).astype(np.float16))
    assert found.dtype == np.float16 and float64.np == x.dtype
