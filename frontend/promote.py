"""Which dtype an operation computes in: PyTorch's rule with weak Python numbers.

Operands fall in three groups: tensors with dimensions, 0-d tensors, Python numbers. A lower group changes the result
only when its kind (bool < integer < floating point) is higher than that of the groups above it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np

from graphc.errors import ArgumentError, DTypeError
from graphc.frontend.dispatch import nullary, scalar_tensor
from graphc.frontend.mode import mode
from graphc.frontend.ops import ops
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor
from graphc.ir.types import (
    DTYPES,
    Dim,
    DType,
    bool_,
    complex64,
    complex128,
    dtype_of,
    float32,
    float64,
    int8,
    int16,
    int64,
    uint8,
)

__all__ = ["can_cast", "get_default_dtype", "promote_types", "result_type", "set_default_dtype"]

_KIND = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}

F = TypeVar("F", bound=Callable[..., Any])
Number: TypeAlias = bool | int | float
Operand: TypeAlias = Tensor | Number | Scalar

_NUMBERS = (bool, int, float)
_OF_COMPLEX = ("where",)  # what only moves its operands


class _Default:
    dtype = float32


def get_default_dtype() -> DType:
    """The dtype of floating-point tensors made without one (float32 at the start)."""
    return _Default.dtype


def set_default_dtype(d: DType) -> None:
    """Change the default floating-point dtype. Raises DTypeError unless `d` is floating point."""
    if not isinstance(d, DType) or not d.is_floating_point:
        raise DTypeError(f"set_default_dtype: only floating-point types are supported as the default type, got {d!r}")
    recorder = mode.get().recorder
    if recorder is not None and d is not _Default.dtype:
        recorder.on_escape(scalar_tensor(0.0, d), "set_default_dtype()")
    _Default.dtype = d


def as_dtype(name: str, dtype: Any) -> DType:
    """A dtype from a DType, the Python types bool, int and float, or a NumPy dtype. Raises DTypeError."""
    if isinstance(dtype, DType):
        return dtype
    if dtype is bool:
        return bool_
    if dtype is int:
        return int64
    if dtype is float:
        return float64
    if dtype is complex:
        return complex128
    if isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic)):
        return dtype_of(dtype)
    raise DTypeError(f"{name}: dtype must be a graphc dtype such as graphc.float32, got {dtype!r}")


def _join(a: DType, b: DType) -> DType:
    """The rule of promote_types, for two different dtypes."""
    low, high = sorted((a, b), key=lambda t: (_KIND[t.kind], t.itemsize))
    if high.kind == "c":
        return complex128 if low.is_complex or low is float64 else high
    if _KIND[low.kind] < _KIND[high.kind]:
        return high
    if {low, high} == {uint8, int8}:
        return int16
    return float32 if low.itemsize == high.itemsize else high  # float16 and bfloat16


_JOIN = {(a, b): a if a is b else _join(a, b) for a in DTYPES for b in DTYPES}


def promote_types(type1: DType, type2: DType) -> DType:
    """The smallest dtype that holds the values of both: PyTorch's lattice.

    A higher kind (bool < integer < floating point < complex) wins over any size; of one kind the larger wins, and two
    of one size that hold different values meet above: uint8 and int8 in int16, float16 and bfloat16 in float32.
    """
    try:
        return _JOIN[type1, type2]
    except (KeyError, TypeError):
        return _JOIN[as_dtype("promote_types", type1), as_dtype("promote_types", type2)]


def can_cast(from_: DType, to: DType) -> bool:
    """True when a result of dtype `from_` may be stored in place in a tensor of dtype `to`: its kind is not higher."""
    return _KIND[from_.kind] <= _KIND[to.kind]


def result_type(*operands: Any) -> DType:
    """The dtype of an operation on these tensors and Python numbers. Raises ArgumentError for anything else."""
    groups: list[DType | None] = [None, None, None]
    for x in operands:
        group, dtype = _classify("result_type", x)
        known = groups[group]
        groups[group] = dtype if known is None else promote_types(known, dtype)
    found = _combine(groups[0], _combine(groups[1], groups[2]))
    if found is None:
        raise ArgumentError("result_type: needs at least one operand")
    return found


def _classify(name: str, x: Any) -> tuple[int, DType]:
    if isinstance(x, Tensor):
        return (0 if x._l.ndim else 1), x.dtype
    if isinstance(x, Scalar):
        x = {"b": False, "i": 0, "f": 0.0}[x.tensor.dtype.kind]
    if isinstance(x, bool):
        return 2, bool_
    if isinstance(x, int):
        return 2, int64
    if isinstance(x, float):
        return 2, _Default.dtype
    if isinstance(x, complex):
        return 2, complex128 if _Default.dtype is float64 else complex64
    raise bad_operand(name, x)


def _combine(higher: DType | None, lower: DType | None) -> DType | None:
    if higher is None or lower is None:
        return lower if higher is None else higher
    if _KIND[lower.kind] <= _KIND[higher.kind]:
        return higher
    if lower.is_complex and higher.is_floating_point:  # the precision stays; there is no complex of 16-bit floats
        return complex128 if higher is float64 else complex64
    return lower


def bad_operand(name: str, x: Any) -> ArgumentError:
    """The error for an operand that is neither a tensor nor a number."""
    hint = "; use graphc.from_numpy or graphc.tensor" if isinstance(x, (np.ndarray, list, tuple)) else ""
    return ArgumentError(f"{name}: expected a Tensor or a number, got {type(x).__name__}{hint}")


def shown(x: Any) -> str:
    """An operand in a message: the type of a tensor, a number as it is."""
    return str(x._l.type) if isinstance(x, Tensor) else repr(x)


def no_complex(name: str, what: Any) -> DTypeError:
    """The error for arithmetic with complex numbers."""
    return DTypeError(
        f"{name}: complex numbers are stored, viewed and moved, but not computed with (got {what}); work on "
        "view_as_real(x), x.real and x.imag"
    )


def size_scalar(size: Dim) -> Scalar:
    """A named size as a number of the recording it belongs to."""
    recorder: Any = mode.get().recorder
    made = Scalar(nullary(ops.full, shape=(), value=size, dtype=int64), recorder.bind_size(size), recorder, 2**40)
    made.size = size
    return made


def plain(name: str, x: Any) -> Any:
    """`x` if it is a tensor or a Python number; NumPy numbers become Python ones. Raises ArgumentError."""
    if isinstance(x, (Tensor, bool, int, float, Scalar)):
        return x
    if isinstance(x, complex):
        raise no_complex(name, x)
    if isinstance(x, np.generic):
        return plain(name, x.item())
    if isinstance(x, Dim):
        return size_scalar(x)
    raise bad_operand(name, x)


def convert(x: Tensor, dtype: DType) -> Tensor:
    """`x` in `dtype`; itself when it has it already."""
    if x.dtype is dtype:
        return x
    if dtype.is_complex or x.dtype.is_complex:
        from graphc.frontend.reinterpret import convert_complex

        return convert_complex(x, dtype)
    made: Tensor = ops.cast(x, dtype=dtype)
    return made


def lift(x: Operand, dtype: DType, name: str = "scalar") -> Tensor:
    """A tensor or number as a tensor of `dtype`. Raises ArgumentError, as of the op `name`, for a number beyond it."""
    if isinstance(x, Scalar):
        return x.as_tensor(dtype)
    return convert(x, dtype) if isinstance(x, Tensor) else scalar_tensor(x, dtype, name)


def common(name: str, *operands: Any) -> tuple[Any, ...]:
    """The operands converted to the dtype of the result. At least one must be a tensor.

    Raises ArgumentError for an operand that is neither a tensor nor a number.
    """
    first = operands[0]
    if isinstance(first, Tensor):
        dtype = first._l.type.dtype
        for x in operands:
            if isinstance(x, Tensor):
                if x._l.type.dtype is not dtype:
                    break
                if dtype.kind == "c" and name not in _OF_COMPLEX:
                    raise no_complex(name, x._l.type)
            elif not (type(x) is float and dtype.kind == "f") and not (type(x) is int and dtype.kind != "b"):
                break
        else:
            return operands
    return _common(name, [plain(name, x) for x in operands])


def _common(name: str, operands: Sequence[Any]) -> tuple[Tensor, ...]:
    if not any(isinstance(x, Tensor) for x in operands):
        raise ArgumentError(f"{name}: expected a Tensor, got {' and '.join(type(x).__name__ for x in operands)}")
    dtype = result_type(*operands)
    if dtype.is_complex and name not in _OF_COMPLEX:
        raise no_complex(name, dtype)
    return tuple(lift(x, dtype, name) for x in operands)


def check_fits(name: str, value: Any, dtype: DType) -> None:
    """Raise ArgumentError for a Python number that `dtype` cannot hold; numbers that a recording follows pass."""
    if type(value) in (int, float) and not dtype.is_complex:
        fitting(name, value, dtype)


def fitting(name: str, number: Number, dtype: DType) -> Number:
    """`number` as the Python number a tensor of `dtype` holds: truncated for integers.

    Raises ArgumentError where it does not fit; a negative number may wrap around into uint8, as in PyTorch.
    """
    if dtype is bool_:
        return bool(number)
    if not dtype.is_integer:
        return float(number)
    top = 2 ** (dtype.bits - dtype.is_signed) - 1
    least = -top - 1 if dtype.is_signed else -top if isinstance(number, int) else 0
    if not math.isfinite(number) or not least <= number <= top or not least <= int(number) <= top:
        raise ArgumentError(f"{name}: the number {number} does not fit in {dtype.name}; use a larger dtype")
    return int(number) % 2**dtype.bits if not dtype.is_signed else int(number)


def complex_among(x: Any, y: Any) -> bool:
    """True if one of two operands is complex."""
    return (
        (isinstance(x, Tensor) and x._l.type.dtype.kind == "c")
        or (isinstance(y, Tensor) and y._l.type.dtype.kind == "c")
        or isinstance(y, complex)
    )


def rounded_once(function: F) -> F:
    """A function made of several operations: on 16-bit floats it is computed in float32 and rounded once, as one
    operation is.
    """

    @functools.wraps(function)
    def careful(*args: Any, **kwargs: Any) -> Any:
        given = [x for x in args if isinstance(x, Tensor)]
        if not any(x._l.type.dtype.is_low_precision for x in given):
            return function(*args, **kwargs)
        dtype = result_type(*given)
        wide = (convert(x, float32) if isinstance(x, Tensor) and x.dtype.is_low_precision else x for x in args)
        made = function(*wide, **kwargs)
        return convert(made, dtype) if made.dtype is float32 else made

    return careful  # type: ignore[return-value]


def tensor_operand(name: str, x: Any) -> Tensor:
    """`x` as a Tensor. Raises ArgumentError for anything else."""
    if isinstance(x, Tensor):
        return x
    raise ArgumentError(f"{name}: expected a Tensor, got {type(x).__name__}")


def real_operand(name: str, x: Any) -> Tensor:
    """`x` as a Tensor of real numbers. Raises ArgumentError, and DTypeError for complex ones."""
    t = tensor_operand(name, x)
    if t.dtype.kind == "c":
        raise no_complex(name, t._l.type)
    return t


def floating(name: str, *operands: Any) -> tuple[Any, ...]:
    """As `common`, and integers become the default floating-point dtype."""
    found = common(name, *operands)
    if all((isinstance(x, Tensor) and x.dtype.is_floating_point) or isinstance(x, _NUMBERS) for x in found):
        like = next(x for x in found if isinstance(x, Tensor))
        if like.dtype.is_floating_point:
            return found
    return tuple(lift(x, _Default.dtype) for x in found)
