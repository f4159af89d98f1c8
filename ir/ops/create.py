"""Ops that make a tensor out of attributes alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from graphc.errors import DTypeError, InternalError
from graphc.ir import expr
from graphc.ir.convert import number_array
from graphc.ir.expr import Expr
from graphc.ir.infer import normalize_dim
from graphc.ir.op import Array, Elementwise, Op, Sample, define
from graphc.ir.ops.elementwise import FLOATS, NUMBERS
from graphc.ir.types import DTYPES, Dim, DType, Shape, TensorType, bool_, complex128, dtype_of, float32, float64, int64


def _constant_type(*, value: Array) -> TensorType:
    return TensorType(dtype_of(value.dtype), value.shape)


def _constant_expr(at: Any, index: tuple[Expr, ...], types: tuple[TensorType, ...], *, value: Array) -> Expr:
    if value.size != 1:
        raise InternalError("constant: an array of several elements is kept in memory, it is no expression")
    return expr.const(value.reshape(()).item(), dtype_of(value.dtype))


def _constant_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for dtype in DTYPES:
        for value in (np.asarray(1.5), np.arange(6).reshape(2, 3), np.zeros((0, 2))):
            yield Sample((), {"value": value.astype(dtype.np)}, dtypes=(dtype,))
    yield Sample((), {"value": np.array([1.5 - 2j, complex(-0.0, np.inf)])}, dtypes=(complex128,))


constant: Op = define(
    Op(
        "constant",
        infer=_constant_type,
        reference=lambda *, value: np.array(value, copy=True, order="C"),
        samples=_constant_samples,
        lower=Elementwise(_constant_expr),
        any_width=True,
        differentiable=False,
        arity=0,
        doc="The array `value`.",
    )
)


def scalar_like(like: Any, number: bool | int | float) -> Any:
    """A 0-d constant of the dtype of the operand `like`."""
    return constant(value=number_array(number, like.ttype.dtype))


def zeros_like(like: Any) -> Any:
    """Zeros of the type of the operand `like`."""
    return full(shape=like.ttype.shape, value=0, dtype=like.ttype.dtype)


def _full_type(*, shape: Shape, value: bool | int | float | Dim, dtype: DType) -> TensorType:
    return TensorType(dtype, shape)


def _full_reference(*, shape: tuple[int, ...], value: bool | int | float, dtype: DType) -> Array:
    return np.full(shape, number_array(value, dtype), dtype.np)


def _full_expr(at: Any, index: Any, types: Any, *, value: bool | int | float, dtype: DType, shape: Shape) -> Expr:
    return expr.const(value, dtype)


def _full_samples(rng: np.random.Generator) -> Iterator[Sample]:
    cases: list[tuple[Shape, bool | int | float, DType]] = [
        ((), 2.5, float32),
        ((3, 4), -0.0, float64),
        ((0, 2), 1, int64),
        ((5,), True, bool_),
        ((2,), float("nan"), float32),
        ((2,), -(2**63), int64),
        *(((2, 3), 5, dtype) for dtype in DTYPES),
        *(((3,), -1.1, dtype) for dtype in FLOATS),
    ]
    for shape, value, dtype in cases:
        yield Sample((), {"shape": shape, "value": value, "dtype": dtype}, dtypes=(dtype,))


full: Op = define(
    Op(
        "full",
        infer=_full_type,
        reference=_full_reference,
        samples=_full_samples,
        lower=Elementwise(_full_expr),
        any_width=True,
        differentiable=False,
        arity=0,
        doc="A tensor of type (dtype, shape), every element `value`.",
    )
)


def _iota_type(*, shape: Shape, dim: int, dtype: DType) -> TensorType:
    if dtype is bool_ or dtype.is_complex:
        raise DTypeError(f"iota: dtype {dtype.name} cannot count; use an integer or a floating-point type")
    normalize_dim("iota", dim, len(shape))
    return TensorType(dtype, shape)


def _iota_reference(*, shape: tuple[int, ...], dim: int, dtype: DType) -> Array:
    if not shape:
        return np.zeros((), dtype.np)
    along = [1] * len(shape)
    along[dim] = shape[dim]
    return np.broadcast_to(np.arange(shape[dim]).reshape(along), shape).astype(dtype.np)


def _iota_expr(at: Any, index: tuple[Expr, ...], types: Any, *, shape: Shape, dim: int, dtype: DType) -> Expr:
    return expr.apply("cast", index[dim] if shape else expr.iconst(0), dtype=dtype)


def _iota_samples(rng: np.random.Generator) -> Iterator[Sample]:
    cases: list[tuple[Shape, int, DType]] = [
        ((), 0, int64),
        ((7,), 0, float32),
        ((3, 4), 0, float64),
        ((3, 4), 1, int64),
        ((0, 4), 1, int64),
        *(((2, 300), 1, dtype) for dtype in NUMBERS),
    ]
    for shape, dim, dtype in cases:
        yield Sample((), {"shape": shape, "dim": dim, "dtype": dtype}, dtypes=(dtype,))


iota: Op = define(
    Op(
        "iota",
        infer=_iota_type,
        reference=_iota_reference,
        samples=_iota_samples,
        lower=Elementwise(_iota_expr),
        any_width=True,
        dtypes=NUMBERS,
        differentiable=False,
        arity=0,
        doc="0, 1, 2, … along axis `dim` of `shape`, repeated over the other axes.",
    )
)
