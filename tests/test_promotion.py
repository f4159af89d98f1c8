"""Promotion: tensors with dimensions, then 0-d tensors, then Python numbers; a lower group matters by its kind
alone.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

import graphc
from graphc.errors import ArgumentError, DTypeError
from graphc.frontend.scalar import Scalar
from graphc.ir.types import DTYPES, DType, bool_, dtype_named, float16, float32, float64, int8, int16, int64, uint8

KIND = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}
REAL = tuple(t for t in DTYPES if not t.is_complex)

# promote_types of every pair of DTYPES, in their order, as PyTorch has it
LATTICE = """
  b1   u8   i8  i16  i32  i64  f16 bf16  f32  f64  c64 c128
  u8   u8  i16  i16  i32  i64  f16 bf16  f32  f64  c64 c128
  i8  i16   i8  i16  i32  i64  f16 bf16  f32  f64  c64 c128
 i16  i16  i16  i16  i32  i64  f16 bf16  f32  f64  c64 c128
 i32  i32  i32  i32  i32  i64  f16 bf16  f32  f64  c64 c128
 i64  i64  i64  i64  i64  i64  f16 bf16  f32  f64  c64 c128
 f16  f16  f16  f16  f16  f16  f16  f32  f32  f64  c64 c128
bf16 bf16 bf16 bf16 bf16 bf16  f32 bf16  f32  f64  c64 c128
 f32  f32  f32  f32  f32  f32  f32  f32  f32  f64  c64 c128
 f64  f64  f64  f64  f64  f64  f64  f64  f64  f64 c128 c128
 c64  c64  c64  c64  c64  c64  c64  c64  c64 c128  c64 c128
c128 c128 c128 c128 c128 c128 c128 c128 c128 c128 c128 c128
"""
TABLE = {
    (a, b): dtype_named(name)
    for a, row in zip(DTYPES, LATTICE.strip().splitlines(), strict=True)
    for b, name in zip(DTYPES, row.split(), strict=True)
}


def expected(groups: list[list[DType]]) -> DType:
    """The rule, stated on lists of dtypes a group: the first group wins unless a later one has a higher kind."""
    result: DType | None = None
    for group in groups:
        for dtype in group[:1] and [functools.reduce(lambda a, b: TABLE[a, b], group)]:
            if result is None or KIND[dtype.kind] > KIND[result.kind]:
                result = dtype
    assert result is not None
    return result


def test_the_lattice() -> None:
    for (a, b), dtype in TABLE.items():
        assert graphc.promote_types(a, b) is dtype
        assert dtype is TABLE[b, a]
        assert TABLE[a, dtype] is dtype is TABLE[b, dtype], "an upper bound"
    for a, b, c in itertools.product(DTYPES, repeat=3):
        if {a, b, c} >= {uint8, int8} or len({a, b, c} & {float16, dtype_named("bfloat16")}) == 2:
            continue  # PyTorch's lattice is not associative there
        assert TABLE[TABLE[a, b], c] is TABLE[a, TABLE[b, c]]


def test_two_tensors_of_every_pair_of_dtypes() -> None:
    for a, b in itertools.product(REAL, REAL):
        x, y, s = graphc.ones(2, dtype=a), graphc.ones(2, dtype=b), graphc.ones((), dtype=b)
        assert (x * y).dtype is expected([[a, b]])
        assert (x * s).dtype is expected([[a], [b]])
        assert (s * x).dtype is expected([[a], [b]])
        assert graphc.result_type(x, s) is expected([[a], [b]])


def test_every_pair_of_dtypes_divides_compares_and_joins() -> None:
    for a, b in itertools.product(REAL, REAL):
        x, y = graphc.full((2,), 1, dtype=a), graphc.full((2,), 1, dtype=b)
        both = TABLE[a, b]
        assert (x / y).dtype is (both if both.is_floating_point else float32)
        assert (x == y).tolist() == [True, True]
        assert (x <= y).dtype is bool_
        assert graphc.cat([x, y]).dtype is both
        assert graphc.where(x == y, x, y).dtype is both
        assert x.sum().dtype is (a if a.is_floating_point else int64)


def test_can_cast_follows_the_kind() -> None:
    for a, b in itertools.product(DTYPES, DTYPES):
        assert graphc.can_cast(a, b) is (KIND[a.kind] <= KIND[b.kind])


def test_complex_numbers_meet_the_precision_of_the_tensor() -> None:
    c64, c128 = dtype_named("complex64"), dtype_named("complex128")
    assert graphc.result_type(graphc.ones(2), 1j) is c64
    assert graphc.result_type(graphc.ones(2, dtype=float64), 1j) is c128
    assert graphc.result_type(graphc.ones(2), graphc.zeros((), dtype=c128)) is c64
    assert graphc.result_type(graphc.tensor([1]), 1j) is c64


@pytest.mark.parametrize(("number", "dtype"), [(True, bool_), (3, int64), (2.5, float32)])
def test_python_numbers_are_weak(number: float, dtype: DType) -> None:
    for a in REAL:
        for shape in ((2,), ()):
            x = graphc.ones(shape, dtype=a)
            assert (x * number).dtype is expected([[a], [dtype]])
            assert (number * x).dtype is expected([[a], [dtype]])


@pytest.mark.parametrize("dtype", [t for t in DTYPES if t.is_integer], ids=str)
def test_numbers_beyond_an_integer_dtype_wrap_around_in_arithmetic(dtype: DType) -> None:
    x = graphc.tensor([1, 100], dtype=dtype)
    wrapped = np.array([300]).astype(dtype.np)[0]
    with np.errstate(over="ignore"):
        assert (x + 300).tolist() == (np.array([1, 100], dtype.np) + wrapped).tolist()
        assert (300 * x).tolist() == (np.array([1, 100], dtype.np) * wrapped).tolist()
    assert (x < 300).tolist() == (np.array([1, 100]) < int(wrapped)).tolist()
    with pytest.raises(ArgumentError, match="does not fit in int64"):
        x + 2**70


@pytest.mark.parametrize(
    "store",
    [
        lambda x, n: graphc.full((2,), n, dtype=x.dtype),
        lambda x, n: graphc.tensor([n], dtype=x.dtype),
        lambda x, n: x.fill_(n),
        lambda x, n: x.clamp(max=n),
        lambda x, n: x.masked_fill(x == x, n),
        lambda x, n: graphc.where(x == x, x, n),
        lambda x, n: x.index_fill(0, graphc.tensor([0]), n),
        lambda x, n: x**n,
    ],
)
def test_numbers_to_be_stored_must_fit(store: object) -> None:
    for dtype, number in ((uint8, 256), (int8, 128), (int8, -129), (int16, 2**15)):
        with pytest.raises(ArgumentError, match=f"(does not fit in {dtype.name}|negative integer powers)"):
            store(graphc.tensor([1, 2], dtype=dtype), number)  # type: ignore[operator]


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
