"""Pointwise, creation and random ops: types, values, gradients and lowering against the references."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from graphc.errors import ArgumentError, DimError, DTypeError, ShapeError
from graphc.ir import expr
from graphc.ir.expr_numpy import run_kernel
from graphc.ir.infer import normalize_dim, normalize_dims, reduced_shape
from graphc.ir.kernel import Map, Store
from graphc.ir.op import Elementwise, Op, all_ops, op_named
from graphc.ir.ops import activation, create, pointwise, random
from graphc.ir.types import Dim, TensorType, bool_, contiguous_strides, dtype_of, float32, float64, int64
from tests.op_checks import (
    all_samples,
    check_gradient,
    check_reference,
    evaluate,
    expand_composition,
    gradients,
    lowered_cases,
)
from tests.random_graphs import same_bits

FAMILIES = (pointwise, activation, create, random)
OPS = [op for op in all_ops().values() if any(op in vars(m).values() for m in FAMILIES)]
PRIMITIVES = [op for op in OPS if op.lower is not None and op.name != "constant"]
# what the last bits of a float64 library function, or of a rational in float32, may differ by
LOOSE = {"randn": (2e-6, 1e-6)}


def lowered(op: Op, arrays: tuple[Any, ...], attrs: Any, execute: Any = run_kernel) -> Any:
    """The op run through its own lowering as a Map kernel over contiguous operands."""
    assert isinstance(op.lower, Elementwise)
    types = [TensorType(dtype_of(a.dtype), a.shape) for a in arrays]
    (out,) = op.infer_types(types, attrs)

    def at(k: int, index: Any, where: Any = None) -> expr.Expr:
        assert len(index) == types[k].ndim
        return expr.load(k, types[k].dtype, expr.flat_index(index, contiguous_strides(types[k].sizes)), where)

    index = tuple(expr.index(a) for a in range(out.ndim))
    value = op.lower.fn(at, index, types, **attrs)
    assert value.dtype is out.dtype
    flat = expr.flat_index(index, contiguous_strides(out.sizes))
    kernel = Map((*(t.dtype for t in types), out.dtype), out.sizes, (Store(len(types), flat, value),))
    result = np.empty(int(np.prod(out.sizes)), out.dtype.np)
    execute(kernel, [*(np.ascontiguousarray(a).reshape(-1) for a in arrays), result])
    return result.reshape(out.sizes)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_reference_has_the_inferred_type_and_agrees_with_the_decomposition(op: Op) -> None:
    for sample in all_samples(op):
        with np.errstate(all="ignore"):
            check_reference(op, sample)


@pytest.mark.parametrize("op", PRIMITIVES, ids=lambda op: op.name)
def test_lowering_gives_the_reference(op: Op) -> None:
    for sample, arrays in lowered_cases(op):
        (want,) = evaluate(op, arrays, sample.attrs)
        found = lowered(op, arrays, sample.attrs)
        if op.name in LOOSE:
            rtol, atol = LOOSE[op.name] if want.dtype == np.float32 else (1e-13, 1e-14)
            np.testing.assert_allclose(found, want, rtol, atol)
        else:
            assert same_bits(found, want), f"{sample}: {found} is not {want}"


@pytest.mark.parametrize("op", [op for op in OPS if op.vjp is not None], ids=lambda op: op.name)
def test_gradient(op: Op) -> None:
    checked = 0
    for sample in all_samples(op):
        if sample.grad and any(a.dtype.kind == "f" for a in map(np.asarray, sample.inputs)):
            check_gradient(op, sample)
            checked += 1
    assert checked


def run(name: str, *arrays: Any, **attrs: Any) -> Any:
    """One op's reference on array-likes."""
    (out,) = evaluate(op_named(name), [np.asarray(a) for a in arrays], attrs)
    return out


def test_maximum_and_minimum_order_zeros_and_keep_nan() -> None:
    x, y = np.array([-0.0, 0.0, np.nan, 1.0]), np.array([0.0, -0.0, 1.0, np.nan])
    assert not np.signbit(run("maximum", x, y)[:2]).any()
    assert np.signbit(run("minimum", x, y)[:2]).all()
    assert np.isnan(run("maximum", x, y)[2:]).all() and np.isnan(run("minimum", x, y)[2:]).all()


def test_cast_saturates() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, -1.9, 1.9], np.float32)
    top, bottom = 2**63 - 1, -(2**63)
    assert run("cast", x, dtype=int64).tolist() == [0, top, bottom, top, bottom, -1, 1]
    assert run("cast", np.array([0.0, -0.0, np.nan, 0.1]), dtype=bool_).tolist() == [False, False, True, True]


def test_integer_division_by_zero_and_wrapping() -> None:
    low = np.array([-(2**63), 7, -7])
    by = np.array([-1, 0, 2])
    assert run("floor_divide", low, by).tolist() == [-(2**63), 0, -4]
    assert run("remainder", low, by).tolist() == [0, 0, 1]
    assert run("fmod", low, by).tolist() == [0, 0, -1]
    assert run("pow", np.array([3, 2, -1, 0]), np.array([41, 64, -3, -1])).tolist() == [3**41 - 2**65, 0, -1, 0]


def test_integer_powers_of_a_negative_exponent() -> None:
    x, y = np.array([-(2**63), -(2**63), 1 - 2**63, 1, -1, -1, 0, 2]), np.array([-1, -2, -1, -7, -7, -8, -1, -1])
    want = [0, 0, 0, 1, -1, 1, 0, 0]
    assert run("pow", x, y).tolist() == want
    assert lowered(op_named("pow"), (x, y), {}).tolist() == want


def test_integer_literals_wrap() -> None:
    top = expr.iconst(2**63 - 1)
    assert expr.apply("add", top, expr.iconst(1)) is expr.iconst(-(2**63))
    assert expr.apply("mul", top, expr.iconst(3)) is expr.iconst(2**63 - 3)


def gradient(name: str, *arrays: Any, upstream: Any = 1.0) -> list[list[float]]:
    """The gradients of one op for each of its operands."""
    operands = [np.asarray(a, np.float64) for a in arrays]
    g = np.broadcast_to(np.asarray(upstream, np.float64), operands[0].shape)
    with np.errstate(all="ignore"):
        return [np.asarray(found).tolist() for found in gradients(op_named(name), operands, {}, [g])]


@pytest.mark.parametrize("name", ["relu", "relu6"])
def test_gradients_pass_where_relu_gives_nan(name: str) -> None:
    assert gradient(name, [math.nan, -1.0, 0.0, 2.0]) == [[1.0, 0.0, 0.0, 1.0]]


@pytest.mark.parametrize(("name", "winner"), [("maximum", 1.0), ("minimum", 0.0)])
def test_gradients_of_extremes_go_to_both_where_one_is_nan(name: str, winner: float) -> None:
    of_x, of_y = gradient(name, [math.nan, 1.0, math.nan, 2.0, 3.0], [1.0, math.nan, math.nan, 2.0, 1.0])
    assert of_x == [1.0, 1.0, 1.0, 0.5, winner]
    assert of_y == [1.0, 1.0, 1.0, 0.5, 1.0 - winner]


def test_gradient_of_remainder_counts_whole_divisors() -> None:
    assert 1.0 / 0.1 == 10.0 and 1.0 // 0.1 == 9.0  # 0.1 is more than a tenth: the quotient rounds up
    assert gradient("remainder", [1.0, -1.0], [0.1, math.inf]) == [[1.0, 1.0], [-9.0, 1.0]]


def test_gradients_of_powers_that_are_flat_ignore_what_comes_from_above() -> None:
    of_x, of_y = gradient("pow", [3.0, 0.0], [0.0, 2.0], upstream=[math.inf, math.inf])
    assert of_x[0] == 0.0 and of_y[1] == 0.0


def test_relu_keeps_nan_and_negative_zero() -> None:
    out = run("relu", np.array([np.nan, -0.0, -3.0, 2.0]))
    assert math.isnan(out[0]) and np.signbit(out[1]) and out[2:].tolist() == [0.0, 2.0]


def test_small_arguments_of_log1p_and_expm1_keep_their_digits() -> None:
    for dtype in (np.float32, np.float64):
        x = np.array([1e-3, -1e-5, 1e-9, 1e-20], dtype)
        for name, exact in (("log1p", np.log1p), ("expm1", np.expm1)):
            found = expand_composition(op_named(name), [x], {})
            assert found is not None
            np.testing.assert_allclose(found[0], exact(x.astype(np.float64)), 4 * np.finfo(dtype).eps)


def test_errors_name_op_operand_and_types() -> None:
    f, d, i = TensorType(float32, (3, 4)), TensorType(float64, (3, 4)), TensorType(int64, (3, 4))
    with pytest.raises(DTypeError, match=r"^add: operand 1 is f64\[3, 4\] but operand 0 is f32\[3, 4\]"):
        op_named("add").infer(f, d)
    with pytest.raises(ShapeError, match=r"^mul: operand 1 of shape \[2, 4\] does not broadcast .* \[3, 4\]"):
        op_named("mul").infer(f, TensorType(float32, (2, 4)))
    floats = "float16, bfloat16, float32, float64"
    with pytest.raises(DTypeError, match=rf"^div: operand 0 is i64\[3, 4\], but div takes {floats}"):
        op_named("div").infer(i, i)
    with pytest.raises(DTypeError, match=r"^where: the condition is f32"):
        op_named("where").infer(f, f, f)
    with pytest.raises(ArgumentError, match=r"^add: takes 2 operands, got 1"):
        op_named("add").infer(f)
    with pytest.raises(ArgumentError, match=r"^clamp: neither"):
        op_named("clamp").infer(f)
    with pytest.raises(ShapeError, match=r"^rand: operand 0 is i64\[3, 4\]"):
        op_named("rand").infer(i, shape=(2,), dtype=float32)
    with pytest.raises(ArgumentError, match=r"^dropout: p must be"):
        op_named("dropout").infer(f, TensorType(int64, (2,)), p=1.5)


def test_broadcasting_of_named_sizes() -> None:
    n, m = Dim("N"), Dim("M")
    add = op_named("add").infer
    assert add(TensorType(float32, (n, 4)), TensorType(float32, (1, 4))) is TensorType(float32, (n, 4))
    assert add(TensorType(float32, (4,)), TensorType(float32, (n, 1))) is TensorType(float32, (n, 4))
    for other in (m, 4):
        with pytest.raises(ShapeError, match=r"^add: operand 1"):
            add(TensorType(float32, (n,)), TensorType(float32, (other,)))


def test_axes() -> None:
    assert normalize_dim("sum", -1, 3) == 2 and normalize_dim("sum", -1, 0) == 0
    assert normalize_dims("sum", None, 3) == (0, 1, 2) and normalize_dims("sum", (-1, 0), 3) == (0, 2)
    assert reduced_shape((2, 3, 4), (1,), True) == (2, 1, 4) and reduced_shape((2, 3, 4), (0, 2), False) == (3,)
    with pytest.raises(DimError, match=r"^sum: dim 3 is out of range for 3 dimensions; use -3 to 2"):
        normalize_dim("sum", 3, 3)
    with pytest.raises(DimError, match=r"^sum: dim 1 is given twice"):
        normalize_dims("sum", (1, -2), 3)
    with pytest.raises(ArgumentError, match=r"^sum: dim must be an int"):
        normalize_dim("sum", "x", 3)  # type: ignore[arg-type]


def test_rand_is_uniform_and_depends_on_seed_offset_and_element_only() -> None:
    state = np.array([5, 9])
    x = run("rand", state, shape=(20000,), dtype=float32)
    assert x.min() >= 0 and x.max() < 1 and abs(x.mean() - 0.5) < 0.01 and abs(x.std() - 12**-0.5) < 0.01
    np.testing.assert_array_equal(x[:12].reshape(3, 4), run("rand", state, shape=(3, 4), dtype=float32))
    np.testing.assert_array_equal(x, run("rand", np.array([5, 7]), shape=(20000,), dtype=float32, offset=2))
    assert (x != run("rand", np.array([6, 9]), shape=(20000,), dtype=float32)).mean() > 0.99
    np.testing.assert_allclose(x, run("rand", state, shape=(20000,), dtype=float64), atol=1e-7)


def test_randn_is_normal() -> None:
    for dtype in (float32, float64):
        x = run("randn", np.array([3, 4]), shape=(20000,), dtype=dtype)
        assert abs(x.mean()) < 0.03 and abs(x.std() - 1) < 0.02 and abs((np.abs(x) < 1).mean() - 0.6827) < 0.01


def test_dropout_keeps_the_rest_scaled() -> None:
    x = np.ones(20000, np.float32)
    y = run("dropout", x, np.array([1, 2]), p=0.25)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)} and abs((y == 0).mean() - 0.25) < 0.01
