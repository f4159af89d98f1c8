"""Checks and shapes shared by the normalisations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import ArgumentError, ShapeError
from graphc.ir.infer import require_dtype, same_dtype
from graphc.ir.op import Array, Operand
from graphc.ir.ops import create, movement
from graphc.ir.ops import pointwise as pw
from graphc.ir.ops.elementwise import FLOATS
from graphc.ir.types import Shape, TensorType


def ones(shape: Shape, like: Operand) -> Any:
    """Ones of `shape` in the dtype of `like`."""
    return create.full(shape=shape, value=1, dtype=like.ttype.dtype)


def check_parameters(name: str, x: TensorType, shape: Shape, parameters: Sequence[TensorType], first: int = 1) -> None:
    """Raises DTypeError or ShapeError unless each parameter has the dtype of `x` and `shape`."""
    require_dtype(name, x, FLOATS)
    same_dtype(name, x, *parameters)
    for k, p in enumerate(parameters):
        if p.shape != shape:
            raise ShapeError(f"{name}: operand {first + k} is {p}, but {x} needs {x.with_shape(shape)}")


def check_count(name: str, count: int, allowed: Sequence[int]) -> None:
    """Raises ArgumentError unless the number of operands is one of `allowed`."""
    if count not in allowed:
        raise ArgumentError(f"{name}: takes {' or '.join(map(str, allowed))} operands, got {count}")


def channels_of(name: str, x: TensorType) -> Shape:
    """The shape [C] of the parameters of `x` [N, C, …]. Raises ShapeError for fewer than two dimensions."""
    if x.ndim < 2:
        raise ShapeError(f"{name}: operand 0 is {x}, but at least the dimensions [batch, channel] are needed")
    return (x.shape[1],)


def per_channel(v: Any, ndim: int) -> Any:
    """A value a channel, shaped to meet [N, C, …]."""
    return movement.reshape(v, shape=(1, *v.ttype.shape, *(1,) * (ndim - 2)))


def per_channel_array(v: Array, ndim: int) -> Array:
    """`per_channel` in NumPy."""
    return v.reshape(1, -1, *(1,) * (ndim - 2))


def inverse_std(variance: Any, eps: float) -> Any:
    """1 / sqrt(variance + eps), each step rounded."""
    return pw.div(1.0, pw.sqrt(pw.add(variance, eps)))
