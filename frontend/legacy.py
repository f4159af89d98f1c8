"""The older names of tensor types: `FloatTensor(2, 3)`, `LongTensor([1, 2])`, `isinstance(x, FloatTensor)`."""

from __future__ import annotations

from typing import Any

from graphc.errors import DTypeError
from graphc.frontend.creation import zeros
from graphc.frontend.host import tensor
from graphc.frontend.promote import get_default_dtype, set_default_dtype
from graphc.frontend.size import Size
from graphc.frontend.tensor import Tensor
from graphc.ir.types import (
    DType,
    bfloat16,
    bool_,
    complex64,
    complex128,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
)

__all__ = [
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "HalfTensor",
    "IntTensor", "LongTensor", "ShortTensor", "set_default_tensor_type",
]  # fmt: skip

TYPE_NAMES: dict[DType, str] = {
    bool_: "BoolTensor",
    uint8: "ByteTensor",
    int8: "CharTensor",
    int16: "ShortTensor",
    int32: "IntTensor",
    int64: "LongTensor",
    float16: "HalfTensor",
    bfloat16: "BFloat16Tensor",
    float32: "FloatTensor",
    float64: "DoubleTensor",
    complex64: "ComplexFloatTensor",
    complex128: "ComplexDoubleTensor",
}


def legacy_tensor(data: tuple[Any, ...], dtype: DType | None = None) -> Tensor:
    """What `Tensor(...)` and `LongTensor(...)` make: of sizes an empty tensor, of one list or array a copy."""
    wanted = get_default_dtype() if dtype is None else dtype
    if len(data) == 1 and not isinstance(data[0], int) and type(data[0]) is not Size:
        return tensor(data[0], dtype=wanted)
    return zeros(*data, dtype=wanted) if data else zeros(0, dtype=wanted)


def new(self: Tensor, *data: Any) -> Tensor:
    """A tensor of this dtype of sizes, a list or an array (new_tensor() and new_zeros() say which)."""
    return legacy_tensor(data, self.dtype)


class TensorType(type):
    """The class of the names: a call makes a tensor of `dtype`, `isinstance` asks for it."""

    dtype: DType

    def __call__(cls, *data: Any) -> Tensor:
        return legacy_tensor(data, cls.dtype)

    def __instancecheck__(cls, x: object) -> bool:
        return isinstance(x, Tensor) and x.dtype is cls.dtype


class BoolTensor(metaclass=TensorType):
    """A bool tensor of a list, an array or sizes."""

    dtype = bool_


class ByteTensor(metaclass=TensorType):
    """A uint8 tensor of a list, an array or sizes."""

    dtype = uint8


class CharTensor(metaclass=TensorType):
    """An int8 tensor of a list, an array or sizes."""

    dtype = int8


class ShortTensor(metaclass=TensorType):
    """An int16 tensor of a list, an array or sizes."""

    dtype = int16


class IntTensor(metaclass=TensorType):
    """An int32 tensor of a list, an array or sizes."""

    dtype = int32


class LongTensor(metaclass=TensorType):
    """An int64 tensor of a list, an array or sizes."""

    dtype = int64


class HalfTensor(metaclass=TensorType):
    """A float16 tensor of a list, an array or sizes."""

    dtype = float16


class BFloat16Tensor(metaclass=TensorType):
    """A bfloat16 tensor of a list, an array or sizes."""

    dtype = bfloat16


class FloatTensor(metaclass=TensorType):
    """A float32 tensor of a list, an array or sizes."""

    dtype = float32


class DoubleTensor(metaclass=TensorType):
    """A float64 tensor of a list, an array or sizes."""

    dtype = float64


def dtype_called(name: str, wanted: str) -> DType:
    """The dtype of "FloatTensor", with any module in front. Raises DTypeError."""
    short = wanted.rpartition(".")[2]
    found = next((d for d, known in TYPE_NAMES.items() if known == short), None)
    if found is None:
        raise DTypeError(f"{name}: {wanted!r} is not one of {', '.join(TYPE_NAMES.values())}")
    return found


def set_default_tensor_type(t: Any) -> None:
    """set_default_dtype() by an older name: "torch.DoubleTensor" or DoubleTensor. Raises DTypeError."""
    if isinstance(t, TensorType):
        set_default_dtype(t.dtype)
    elif isinstance(t, str):
        set_default_dtype(dtype_called("set_default_tensor_type", t))
    else:
        raise DTypeError(f"set_default_tensor_type: expected a name such as 'FloatTensor', got {t!r}")
