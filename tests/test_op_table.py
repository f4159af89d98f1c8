"""Generated from the op table: each op, sample and dtype against its reference, and itself in every way to run it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from op_checks import all_samples, cases, check_gradient, evaluate, is_float, sample_arrays
from op_runs import LAYOUTS, TARGETS, compiled_gradients, embedded, executable, numbers_for, op_by_op, threads
from random_graphs import same_bits

from graphc.codegen.target import Target
from graphc.compiler import eager_executable, eager_run
from graphc.ir import narrow
from graphc.ir.convert import cast_array
from graphc.ir.op import Array, Elementwise, Op, Sample, all_ops
from graphc.ir.types import DType, Layout, TensorType, bfloat16, dtype_of, float64

NAMES = sorted(all_ops())
WRT = {"cross_entropy": (0,)}  # class weights get no gradient
MOST_CASES = 12  # of an op, in the tests that compile each case several times


def arrays_of(sample: Sample, dtype: DType) -> tuple[Array, ...]:
    with np.errstate(all="ignore"):
        return tuple(np.array(a, order="C") for a in sample_arrays(sample, dtype))


def expected(op: Op, arrays: Sequence[Array], attrs: Any) -> tuple[Array, ...]:
    """The reference's results, which have the inferred types."""
    with np.errstate(all="ignore"):
        return evaluate(op, arrays, attrs)


def few_cases(op: Op) -> list[tuple[Sample, tuple[Array, ...]]]:
    """At most MOST_CASES samples, spread evenly, the dtypes in turn."""
    samples = all_samples(op)
    count = min(len(samples), max(MOST_CASES, len(op.dtypes)))
    chosen = [samples[k * len(samples) // count] for k in range(count)]
    found = []
    for k, sample in enumerate(chosen):
        dtypes = sample.dtypes or op.dtypes
        found.append((sample, arrays_of(sample, dtypes[k % len(dtypes)])))
    return found


# ---------------------------------------------------------------- completeness


@pytest.mark.parametrize("name", NAMES)
def test_samples_cover_dtypes_and_gradients(name: str) -> None:
    op = all_ops()[name]
    samples = all_samples(op)
    assert samples, f"{name} has no samples"
    seen: dict[DType, None] = {}
    for sample, dtype in cases(op):
        arrays = arrays_of(sample, dtype)
        outs = expected(op, arrays, sample.attrs)
        seen |= dict.fromkeys(dtype_of(a.dtype) for a in (*arrays, *outs))
    assert not [d for d in op.dtypes if d not in seen], f"{name}: no sample of a declared dtype"
    with_gradient = any(s.grad and (not s.dtypes or float64 in s.dtypes) for s in samples)
    assert with_gradient or not op.differentiable, f"{name}: no sample with a gradient"


# ---------------------------------------------------------------- values


def is_exact(op: Op) -> bool:
    """Whether every result is one of the operands' elements."""
    return isinstance(op.lower, Elementwise) and op.lower.movement


def bounds(op: Op, arrays: Sequence[Array], attrs: Any, eps: float) -> tuple[tuple[Array, ...], list[Array]]:
    """The results in float64, and how far off precision `eps` may be: a few roundings of each operand and result."""
    exact = [a.astype(np.float64) if is_float(a) else a for a in arrays]
    wanted = expected(op, exact, attrs)
    rng = np.random.default_rng(3)
    moves = [np.zeros(w.shape) for w in wanted]
    with np.errstate(all="ignore"):
        for _ in range(4):
            signs = [rng.choice((-1e-9, 1e-9), a.shape) if is_float(a) else 0 for a in exact]
            shaken = [np.asarray(a + a * s) if is_float(a) else a for a, s in zip(exact, signs, strict=True)]
            for m, w, v in zip(moves, wanted, expected(op, shaken, attrs), strict=True):
                if is_float(w):
                    np.maximum(m, np.nan_to_num(np.abs(v - w)) / 1e-9, out=m)
        return wanted, [eps * (16 * np.abs(w) + 16 * m + 2) for w, m in zip(wanted, moves, strict=True)]


def epsilon(a: Array) -> float:
    """The distance of 1 and the next number."""
    return 2.0**-7 if dtype_of(a.dtype) is bfloat16 else float(np.finfo(a.dtype).eps)


def check_close(op: Op, arrays: Sequence[Array], attrs: Any, found: Sequence[Array], label: str) -> None:
    """Same types; ints, bools and moved values in every bit; computed floats within their bounds."""
    wanted = expected(op, arrays, attrs)
    assert len(found) == len(wanted), label
    limits = None
    for k, (a, w) in enumerate(zip(found, wanted, strict=True)):
        assert a.dtype == w.dtype and a.shape == w.shape, f"{label}: {a.dtype}{a.shape}, wanted {w.dtype}{w.shape}"
        if same_bits(a, w):
            continue
        assert is_float(a) and not is_exact(op), f"{label}: {a} is not {w}"
        np.testing.assert_array_equal(np.isfinite(a), np.isfinite(w), err_msg=label)
        limits = limits or bounds(op, arrays, attrs, epsilon(a))
        with np.errstate(all="ignore"):
            good = (np.abs(a.astype(np.float64) - limits[0][k]) <= limits[1][k]) | (a == w) | np.isnan(a) & np.isnan(w)
        assert good.all(), f"{label}: output {k}: {a[~good]} is not {w[~good]}, bound {limits[1][k][~good]}"


def check_rounded(op: Op, arrays: Sequence[Array], attrs: Any, found: Sequence[Array], label: str) -> bool:
    """Where the op is computed in a wider type: it gives what it gives there, rounded once, in every bit."""
    types = [Layout.of(a).type for a in arrays]
    if not narrow.widens(op, types, attrs):
        return False
    wide = [cast_array(a, narrow.WIDER.get(t.dtype, t.dtype)) for a, t in zip(arrays, types, strict=True)]
    wide_attrs = {k: narrow.WIDER.get(v, v) if isinstance(v, DType) else v for k, v in attrs.items()}
    for a, b, t in zip(found, eager_run(op, wide, wide_attrs), op.infer_types(types, attrs), strict=True):
        assert same_bits(a, cast_array(b, t.dtype)), f"{label}: {a} is not {b} rounded"
    return True


@pytest.mark.parametrize("name", NAMES)
def test_values(name: str) -> None:
    op = all_ops()[name]
    for k, (sample, dtype) in enumerate(cases(op)):
        arrays = arrays_of(sample, dtype)
        before = [a.copy() for a in arrays]
        found = eager_run(op, arrays, sample.attrs)
        label = f"{name} case {k} {sample.name} {dtype} {dict(sample.attrs)}"
        types = op.infer_types([TensorType(dtype_of(a.dtype), a.shape) for a in arrays], sample.attrs)
        assert [TensorType(dtype_of(a.dtype), a.shape) for a in found] == list(types), label
        if not check_rounded(op, arrays, sample.attrs, found, label):
            check_close(op, arrays, sample.attrs, found, label)
        assert all(map(same_bits, arrays, before)), f"{label}: an operand was changed"


@pytest.mark.parametrize("name", [n for n in NAMES if all_ops()[n].differentiable])
def test_compiled_gradient_against_differences(name: str) -> None:
    op = all_ops()[name]
    for sample in all_samples(op):
        check_gradient(op, sample, wrt=WRT.get(name), through=compiled_gradients)


# ---------------------------------------------------------------- the same bits in every way


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_whole_graph_has_the_bits_of_op_by_op(name: str, target: Target) -> None:
    op = all_ops()[name]
    for k, (sample, arrays) in enumerate(few_cases(op)):
        graph = embedded(op, [Layout.of(a).type for a in arrays], sample.attrs, both=k % 2 == 1)
        inputs = [*arrays, *numbers_for(graph, len(arrays))]
        wanted = op_by_op(graph, inputs)
        for fuse in (True, False):
            found = executable(graph, fuse=fuse, target=target)(inputs)
            assert all(map(same_bits, found, wanted)), f"sample {k} {sample.name} {sample.attrs}, fuse {fuse}\n{graph}"


@pytest.mark.parametrize("name", NAMES)
def test_threads_share_a_kernel_without_a_trace(name: str) -> None:
    op = all_ops()[name]
    for k, (sample, arrays) in enumerate(few_cases(op)):
        graph = embedded(op, [Layout.of(a).type for a in arrays], sample.attrs, both=k % 2 == 1)
        inputs = [*arrays, *numbers_for(graph, len(arrays))]
        run = executable(graph, grain=1)
        with threads(1):
            alone = run(inputs)
        with threads(2):
            assert all(map(same_bits, run(inputs), alone)), f"sample {k} {sample.name} {sample.attrs}"


@pytest.mark.parametrize("name", [n for n in NAMES if all_ops()[n].arity != 0])
def test_layout_of_the_operands_makes_no_difference(name: str) -> None:
    op = all_ops()[name]
    for k, (sample, arrays) in enumerate(few_cases(op)):
        wanted = eager_run(op, arrays, sample.attrs)
        for kind, lay in list(LAYOUTS.items())[k % 2 :: 2]:
            laid = [lay(a) for a in arrays]
            found = eager_run(op, laid, sample.attrs)
            assert all(map(same_bits, found, wanted)), f"sample {k} {sample.name} {sample.attrs}, {kind}"
            if all(s >= 0 for a in laid for s in a.strides):
                exe = eager_executable(op, [Layout.of(a) for a in laid], sample.attrs)
                exe.poison = True
                assert all(map(same_bits, exe(laid), wanted)), f"sample {k} {sample.name} {sample.attrs}, {kind}"
