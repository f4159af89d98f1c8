"""Promotion: tensors with dimensions, then 0-d tensors, then Python numbers; a lower group matters by its kind
alone.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphc
from graphc.errors import ArgumentError, DTypeError
from graphc.frontend.scalar import Scalar
from graphc.ir.types import DType, bool_, float32, float64, int64

DTYPES: tuple[DType, ...] = (bool_, int64, float32, float64)

KIND = {"b": 0, "i": 1, "f": 2}


def expected(groups: list[list[DType]]) -> DType:
    """The rule, stated on lists of dtypes a group: the first group wins unless a later one has a higher kind."""
    result: DType | None = None
    for group in groups:
        for dtype in group[:1] and [max(group, key=DTYPES.index)]:
            if result is None or KIND[dtype.kind] > KIND[result.kind]:
                result = dtype
    assert result is not None
    return result


def test_two_tensors_of_every_pair_of_dtypes() -> None:
    for a, b in itertools.product(DTYPES, DTYPES):
        x, y, s = graphc.ones(2, dtype=a), graphc.ones(2, dtype=b), graphc.ones((), dtype=b)
        assert (x * y).dtype is expected([[a, b]])
        assert (x * s).dtype is expected([[a], [b]])
        assert (s * x).dtype is expected([[a], [b]])
        assert graphc.result_type(x, s) is expected([[a], [b]])
        assert graphc.promote_types(a, b) is max(a, b, key=DTYPES.index)


@pytest.mark.parametrize(("number", "dtype"), [(True, bool_), (3, int64), (2.5, float32)])
def test_python_numbers_are_weak(number: float, dtype: DType) -> None:
    for a in DTYPES:
        for shape in ((2,), ()):
            x = graphc.ones(shape, dtype=a)
            assert (x * number).dtype is expected([[a], [dtype]])
            assert (number * x).dtype is expected([[a], [dtype]])


def test_three_groups() -> None:
    ints, real = graphc.ones(2, dtype=int64), graphc.tensor(1.0, dtype=float64)
    assert (ints + real).dtype is float64
    assert (ints.float() + real).dtype is float32
    assert graphc.result_type(ints, real, 2.5) is float64
    assert graphc.result_type(graphc.ones(2, dtype=bool_), 3) is int64


def test_numpy_numbers_count_as_python_numbers() -> None:
    x = graphc.ones(2)
    assert (x + np.float64(0.5)).dtype is float32
    assert (x + np.int64(2)).tolist() == [3.0, 3.0]


def test_a_recorded_number_is_weak() -> None:
    s = Scalar(graphc.tensor(0.5, dtype=float64), 0.5, None)  # type: ignore[arg-type]
    assert (graphc.ones(2) * s).dtype is float32
    assert (graphc.ones(2, dtype=int64) * s).tolist() == [0.5, 0.5]


def test_division_and_functions_of_integers_give_the_default_dtype() -> None:
    x = graphc.tensor([1, 2])
    assert (x / 2).tolist() == [0.5, 1.0]
    assert (x / x).dtype is float32
    assert x.exp().dtype is float32
    assert x.sum().dtype is int64
    assert graphc.tensor([True, True]).sum().item() == 2
    graphc.set_default_dtype(float64)
    try:
        assert (x / 2).dtype is float64
        assert graphc.tensor([0.1]).dtype is float64
        assert graphc.zeros(1).dtype is float64
    finally:
        graphc.set_default_dtype(float32)
    assert graphc.get_default_dtype() is float32


def test_bools_add_as_or_and_multiply_as_and() -> None:
    a, b = graphc.tensor([True, True, False]), graphc.tensor([True, False, False])
    assert (a + b).tolist() == [True, True, False]
    assert (a * b).tolist() == [True, False, False]


def test_in_place_results_keep_the_dtype() -> None:
    x = graphc.tensor([1, 2])
    x *= 2
    assert x.tolist() == [2, 4]
    y = graphc.ones(2)
    y += graphc.ones(2, dtype=float64)
    assert y.dtype is float32
    with pytest.raises(DTypeError, match="add_: result type float32 can't be cast to the desired output type int64"):
        x.add_(1.5)
    assert x.tolist() == [2, 4]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: graphc.ones(2) + "a", "add: expected a Tensor or a number, got str"),
        (lambda: graphc.ones(2) + np.ones(2), "add: expected a Tensor or a number, got ndarray; use graphc.from_numpy"),
        (lambda: graphc.ones(2) * None, "mul: expected a Tensor or a number, got NoneType"),
        (lambda: graphc.add(1, 2), "add: expected a Tensor, got int and int"),
        (lambda: graphc.tensor([1]) + 2**70, "does not fit in int64"),
        (lambda: graphc.set_default_dtype(int64), "only floating-point types are supported"),
        (lambda: graphc.zeros(1, dtype="float"), "zeros: dtype must be a graphc dtype"),
        (lambda: graphc.tensor([True]) - graphc.tensor([True]), "subtraction with a bool operand"),
        (lambda: -graphc.tensor([True]), "neg: operand 0 is b1"),
        (lambda: graphc.ones(2) & 1, "bitwise_and: takes bool and integer tensors"),
        (lambda: ~graphc.ones(2), "bitwise_not: takes bool and integer tensors"),
        (lambda: graphc.tensor([2]) ** -1, "integers to negative integer powers"),
        (lambda: graphc.add(graphc.tensor([1]), 1, alpha=0.5), "alpha must not be a floating point number"),
        (lambda: graphc.add(graphc.tensor([1]), graphc.tensor([1]), alpha=True), "add: a bool alpha is for bool"),
        (lambda: graphc.add(graphc.ones(1), [1], alpha=2), "add: expected a Tensor or a number, got list"),
        (lambda: graphc.div(graphc.ones(1), 1, rounding_mode="up"), "rounding_mode must be None, 'trunc' or 'floor'"),
    ],
)
def test_bad_operands(call: object, message: str) -> None:
    with pytest.raises((ArgumentError, DTypeError), match=message):
        call()  # type: ignore[operator]


def test_alpha_counts_in_the_dtype_of_the_result() -> None:
    x, n, b = graphc.tensor([1.0, 2.0]), graphc.tensor([1, 3]), graphc.tensor([True])
    assert x.add(n, alpha=0.5).tolist() == [1.5, 3.5]
    assert n.sub(x, alpha=0.5).tolist() == [0.5, 2.0]
    assert graphc.rsub(n, x, alpha=0.5).tolist() == [0.5, 0.5]
    assert x.sub(3, alpha=0.5).tolist() == [-0.5, 0.5]
    assert x.clone().add_(n, alpha=0.5).tolist() == [1.5, 3.5]
    assert b.add(b, alpha=2).dtype is bool_
    assert b.add(True, alpha=2).dtype is bool_
    wide = graphc.zeros(1, dtype=float64).add(graphc.tensor([0.1]), alpha=0.3)
    assert wide.item() == np.float64(np.float32(0.1)) * 0.3  # not rounded to float32 on the way
