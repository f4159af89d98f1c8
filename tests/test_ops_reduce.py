"""Reductions and what is made of them: types, values, order of summation, gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from op_checks import (
    ArrayOperand,
    all_samples,
    array_building,
    check_gradient,
    check_reference,
    evaluate,
    expand_composition,
    gradients,
    lowered_cases,
)
from op_lowering import lowered

from graphc.errors import DimError, DTypeError, ShapeError
from graphc.ir.numerics import reduction
from graphc.ir.op import Op, all_ops, op_named
from graphc.ir.ops.reduce import runs_of
from graphc.ir.types import Dim, TensorType, bool_, float32, float64, int64

PRIMITIVES = ["all", "amax", "amin", "any", "argmax", "argmin", "prod", "sum"]
COMPOSITIONS = ["log_softmax", "logsumexp", "mean", "softmax", "std", "var"]
OPS = [all_ops()[n] for n in (*PRIMITIVES, *COMPOSITIONS)]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_reference_has_the_inferred_type_and_agrees_with_the_decomposition(op: Op) -> None:
    for sample in all_samples(op):
        check_reference(op, sample)


@pytest.mark.parametrize("op", [op for op in OPS if op.differentiable], ids=lambda op: op.name)
def test_gradient(op: Op) -> None:
    for sample in all_samples(op):
        assert sample.grad
        check_gradient(op, sample)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_lowering_gives_the_bits_of_the_reference(name: str) -> None:
    op = op_named(name)
    checked = 0
    for sample, arrays in lowered_cases(op):
        dims = sample.attrs["dim"]
        if isinstance(dims, tuple) and len(runs_of(dims)) != 1:
            continue
        (want,) = evaluate(op, arrays, sample.attrs)
        np.testing.assert_array_equal(lowered(op, arrays, sample.attrs), want, strict=True)
        checked += 1
    assert checked > 5


def value(name: str, x: Any, **attrs: Any) -> Any:
    (out,) = evaluate(op_named(name), [np.asarray(x)], attrs)
    return out


def test_runs_are_maximal_and_the_innermost_goes_first() -> None:
    assert runs_of((0, 2, 3, 5)) == [(0,), (2, 3), (5,)]
    x = np.random.default_rng(0).standard_normal((40, 3, 70)).astype(np.float32)
    inner = reduction(np.moveaxis(x, 2, 0))
    np.testing.assert_array_equal(value("sum", x, dim=(0, 2), keepdim=False), reduction(inner))
    together = value("sum", x.reshape(40, 210), dim=(0, 1), keepdim=False)
    assert together == reduction(x.reshape(-1, 1))[0]


def test_a_primitive_reduction_decomposes_no_further() -> None:
    assert expand_composition(op_named("sum"), [np.ones((2, 3, 4))], {"dim": (1, 2), "keepdim": True}) is None
    assert expand_composition(op_named("sum"), [np.ones((2, 3, 4))], {"dim": (0, 2), "keepdim": True}) is not None


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 1023, 1024, 1025])
def test_sums_of_every_length_are_near_the_exact_sum(n: int) -> None:
    x = np.random.default_rng(n).standard_normal(n)
    assert abs(value("sum", x, dim=(0,), keepdim=False) - math.fsum(x)) <= 1e-15 * max(1.0, np.abs(x).sum())
    assert value("sum", np.full(n, 3), dim=(0,), keepdim=False) == 3 * n


def test_reductions_of_nothing() -> None:
    empty = {"dim": (1,), "keepdim": False}
    x = np.zeros((2, 0))
    assert value("sum", x, **empty).tolist() == [0.0, 0.0] and not np.signbit(value("sum", x, **empty)).any()
    assert value("prod", x, **empty).tolist() == [1.0, 1.0]
    assert value("any", x.astype(bool), **empty).tolist() == [False, False]
    assert value("all", x.astype(bool), **empty).tolist() == [True, True]
    assert np.isnan(value("mean", x, **empty)).all()
    for name in ("amax", "amin"):
        with pytest.raises(ShapeError, match=f"^{name}: "):
            value(name, x, **empty)
    with pytest.raises(ShapeError, match=r"^argmax: "):
        value("argmax", x, dim=1, keepdim=False)
    assert value("softmax", x, dim=1).shape == (2, 0)


def test_extremes_propagate_nan_and_order_zeros() -> None:
    x = np.array([[1.0, np.nan, 3.0], [-0.0, 0.0, -0.0], [-0.0, -0.0, -0.0], [-1.0, -0.0, 0.0]])
    attrs = {"dim": (1,), "keepdim": False}
    high, low = value("amax", x, **attrs), value("amin", x, **attrs)
    assert np.isnan(high[0]) and np.isnan(low[0])
    assert np.signbit(high[1:]).tolist() == [False, True, False]
    assert np.signbit(low[1:]).tolist() == [True, True, True]
    assert value("argmax", x, dim=1, keepdim=False).tolist() == [1, 0, 0, 1]
    assert value("argmin", x, dim=1, keepdim=False).tolist() == [1, 0, 0, 0]


def grad_of(name: str, x: list[Any], g: list[float], **attrs: Any) -> Any:
    (found,) = gradients(op_named(name), [np.array(x)], attrs, [np.array(g)])
    assert found is not None
    return found.tolist()


def test_equal_extremes_share_the_gradient() -> None:
    x = [[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]]
    assert grad_of("amax", x, [6.0, 1.0], dim=(1,), keepdim=False) == [[0.0, 3.0, 3.0], [1.0, 0.0, 0.0]]
    assert grad_of("amin", x, [6.0, 1.0], dim=(1,), keepdim=False) == [[6.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_gradient_of_a_product_with_zeros() -> None:
    x = [[2.0, 3.0, 4.0], [0.0, 3.0, 4.0], [0.0, 0.0, 4.0]]
    want = [[12.0, 8.0, 6.0], [12.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert grad_of("prod", x, [1.0, 1.0, 1.0], dim=(1,), keepdim=False) == want


def test_softmax_of_large_and_infinite_numbers() -> None:
    x = np.array([[1000.0, 1000.0, -np.inf], [-1e5, 0.0, -np.inf]])
    with np.errstate(all="ignore"):
        (found,) = expand_composition(op_named("softmax"), [x], {"dim": 1})  # type: ignore[misc]
    assert found.tolist() == [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]
    (found,) = expand_composition(
        op_named("logsumexp"), [np.array([-np.inf, -np.inf])], {"dim": (0,), "keepdim": False}
    )  # type: ignore[misc]
    assert found == -np.inf


def test_the_gradient_of_std_is_zero_where_all_elements_are_equal() -> None:
    assert grad_of("std", [2.0, 2.0], 1.0, dim=(0,), correction=1, keepdim=False) == [0.0, 0.0]  # type: ignore[arg-type]


def test_named_sizes() -> None:
    n = Dim("N")
    x = TensorType(float32, (n, 4))
    assert op_named("sum").infer(x, dim=(0,), keepdim=True).shape == (1, 4)
    assert op_named("mean").infer(x, dim=(1,), keepdim=False).shape == (n,)


def test_the_mean_over_a_named_size_divides_by_a_tensor_of_that_size() -> None:
    from graphc.ir.graph import Graph

    graph = Graph()
    x = graph.add_input(TensorType(float32, (Dim("N"), 4)), "x")
    with graph.building():
        out = op_named("mean").decompose(x, dim=(0,), keepdim=False)  # type: ignore[misc]
    assert out.ttype is TensorType(float32, (4,))
    assert [n.op.name for n in graph.nodes] == ["sum", "full", "div"] and graph.nodes[1].attrs["value"] is Dim("N")


@pytest.mark.parametrize(
    ("name", "error", "dtype", "attrs"),
    [
        ("sum", DTypeError, bool_, {"dim": (0,), "keepdim": False}),
        ("sum", DimError, float64, {"dim": (2,), "keepdim": False}),
        ("sum", DimError, float64, {"dim": (1, 0), "keepdim": False}),
        ("sum", DimError, float64, {"dim": 0, "keepdim": False}),
        ("any", DTypeError, float64, {"dim": (0,), "keepdim": False}),
        ("argmax", DTypeError, bool_, {"dim": 0, "keepdim": False}),
        ("argmax", DimError, float64, {"dim": 2, "keepdim": False}),
        ("mean", DTypeError, int64, {"dim": (0,), "keepdim": False}),
        ("softmax", DTypeError, int64, {"dim": 0}),
        ("softmax", DimError, float64, {"dim": 2}),
    ],
)
def test_errors_start_with_the_name_of_the_op(name: str, error: type[Exception], dtype: Any, attrs: Any) -> None:
    with pytest.raises(error, match=f"^{name}: "):
        op_named(name).infer(TensorType(dtype, (3, 4)), **attrs)


def test_rules_build_from_arrays_alone() -> None:
    with array_building():
        out = op_named("var")(ArrayOperand(np.arange(6.0)), dim=(0,), correction=1, keepdim=False)
    assert out.array == np.var(np.arange(6.0), ddof=1)
