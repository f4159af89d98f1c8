"""Pointwise functions of several operands made of the basic ones: limits, blends, fused forms."""

from __future__ import annotations

import math
from typing import Any

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.frontend.functional_math import add, div, mul, sub
from graphc.frontend.limits import finfo
from graphc.frontend.ops import ops
from graphc.frontend.promote import (
    Number,
    Operand,
    can_cast,
    check_fits,
    convert,
    fitting,
    floating,
    lift,
    plain,
    real_operand,
    result_type,
    rounded_once,
    tensor_operand,
)
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor
from graphc.ir.infer import broadcast_types
from graphc.ir.types import bool_

__all__ = [
    "addcdiv", "addcmul", "clamp", "clamp_max", "clamp_min", "clip", "lerp", "logaddexp", "masked_fill", "nan_to_num",
]  # fmt: skip


def masked_fill(input: Tensor, mask: Tensor, value: Operand) -> Tensor:
    """`value` (a number or 0-d tensor) where `mask` holds, else input; the dtype of `input` stays.

    Raises DTypeError unless `mask` is bool and the value fits the dtype.
    """
    x, m = tensor_operand("masked_fill", input), tensor_operand("masked_fill", mask)
    if m.dtype is not bool_:
        raise DTypeError(f"masked_fill: only supports boolean masks, got {m._l.type}; compare it with something first")
    if isinstance(value, Tensor) and value.ndim:
        raise ShapeError(f"masked_fill: only supports a 0-dimensional value tensor, got {value._l.type}; use where()")
    lossy = (
        not can_cast(value.dtype, x.dtype)
        if isinstance(value, Tensor)
        else not x.dtype.is_floating_point and not _finite(value)
    )
    if lossy:
        raise DTypeError(
            f"masked_fill: value {value} cannot be converted to {x.dtype} without loss; convert the tensor first"
        )
    check_fits("masked_fill", value, x.dtype)
    broadcast_types("masked_fill", x.ttype, m.ttype)  # to raise under this name
    made: Tensor = ops.where(m, lift(value, x.dtype), x)
    return made


def _finite(value: Any) -> bool:
    return isinstance(value, Scalar) or math.isfinite(value)


def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """minimum(maximum(input, min), max). Raises ArgumentError when both limits are missing."""
    x = real_operand("clamp", input)
    if min is None and max is None:
        raise ArgumentError("clamp: at least one of min or max must not be None")
    limits = [plain("clamp", v) for v in (min, max) if v is not None]
    dtype = result_type(x, *limits)
    x = convert(x, dtype)
    if _all_numbers(limits):
        if dtype is bool_:
            raise DTypeError("clamp: bool tensors are not supported; convert the tensor first")
        given = {k: fitting("clamp", v, dtype) for k, v in (("min", min), ("max", max)) if isinstance(v, (int, float))}
        made: Tensor = ops.clamp(x, **given)
        return made
    if min is not None:
        x = ops.maximum(x, lift(min, dtype))
    if max is not None:
        x = ops.minimum(x, lift(max, dtype))
    return x


def _all_numbers(values: list[Any]) -> bool:
    return all(isinstance(v, (bool, int, float)) for v in values)


def clamp_min(input: Tensor, min: Operand) -> Tensor:
    """maximum(input, min)."""
    return clamp(input, min=min)


def clamp_max(input: Tensor, max: Operand) -> Tensor:
    """minimum(input, max)."""
    return clamp(input, max=max)


@rounded_once
def lerp(input: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """input + weight * (end - input)."""
    return add(input, mul(weight, sub(end, input)))


@rounded_once
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    product = mul(tensor1, tensor2)
    return add(input, product if value == 1 else mul(product, value))


@rounded_once
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """input + value * tensor1 / tensor2."""
    quotient = div(tensor1, tensor2)
    return add(input, quotient if value == 1 else mul(quotient, value))


@rounded_once
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(exp(input) + exp(other)) without overflow."""
    x, y = floating("logaddexp", input, other)
    top = ops.maximum(x, y)
    apart = ops.neg(ops.abs(ops.sub(x, y)))
    same = ops.eq(x, y)  # two equal infinities have no difference
    made: Tensor = ops.add(top, ops.where(same, lift(math.log(2.0), top.dtype), ops.log1p(ops.exp(apart))))
    return made


def nan_to_num(input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """NaN and infinities replaced by finite numbers (the largest of the dtype unless given)."""
    x = real_operand("nan_to_num", input)
    if not x.dtype.is_floating_point:
        made: Tensor = ops.clone(x)
        return made
    top = finfo(x.dtype).max
    x = ops.where(ops.isnan(x), lift(float(nan), x.dtype), x)
    x = ops.where(ops.eq(x, math.inf), lift(top if posinf is None else float(posinf), x.dtype), x)
    finite: Tensor = ops.where(ops.eq(x, -math.inf), lift(-top if neginf is None else float(neginf), x.dtype), x)
    return finite


clip = clamp
