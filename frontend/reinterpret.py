"""The same memory read as another dtype: `view(dtype)`, complex numbers as pairs of real ones and back.

A reinterpretation shares the memory and notices writes of the gradient tape, but has no gradient itself and counts as
memory handed out. A recording has no operation for it and refuses it.
"""

from __future__ import annotations

import builtins
import warnings
from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.frontend.functional_math import ne
from graphc.frontend.mode import mode
from graphc.frontend.ops import ops
from graphc.frontend.promote import convert, promote_types, tensor_operand
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.op import Array
from graphc.ir.types import DType, bool_, complex64, complex128, float32, float64

__all__ = ["complex", "imag", "is_complex", "real", "resolve_conj", "view_as_complex", "view_as_real"]

_PARTS = {complex64: float32, complex128: float64}
_WHOLE = {float32: complex64, float64: complex128}


def _alias(x: Tensor, array: Array, what: str) -> Tensor:
    """A tensor of its own over memory of `x`."""
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_escape(x, what, "a graph has no memory to look at in another way; do it outside")
    made = fresh(array)
    made._v = x._v
    made._s.exposed = x._s.exposed = True
    return made


def view_dtype(x: Tensor, dtype: DType) -> Tensor:
    """The memory of `x` as elements of `dtype`; with another element size the last axis shrinks or grows.

    Raises ShapeError where the last axis cannot (a 0-d tensor, a stride that is not 1, an odd size). The result has no
    gradient. Another bool than 0 and 1 cannot be made: DTypeError unless `x` is bool, too.
    """
    if dtype is x.dtype:
        return ops.reshape(x, shape=x.ttype.shape)  # type: ignore[no-any-return]
    if dtype is bool_:
        raise DTypeError(f"view: {x._l.type} has bytes that are no bool; compare it with 0 instead")
    old, new = x.dtype.itemsize, dtype.itemsize
    if old != new:
        _check_last(x, dtype)
    if x._l.size or old == new:
        return _alias(x, x._a.view(dtype.np), "view(dtype)")
    shape = (*x._l.shape[:-1], x._l.shape[-1] * old // new)
    return _alias(x, np.empty(shape, dtype.np), "view(dtype)")


def _check_last(x: Tensor, dtype: DType) -> None:
    old, new = x.dtype.itemsize, dtype.itemsize
    what = f"to view {x.dtype.name} as {dtype.name} (different element sizes), but got"
    if not x._l.ndim:
        raise ShapeError(f"view: the tensor cannot be 0-d {what} {x._l.type}")
    if x._l.strides[-1] != 1:
        raise ShapeError(f"view: stride(-1) must be 1 {what} {x._l}")
    if new > old:
        ratio = new // old
        if x._l.shape[-1] % ratio:
            raise ShapeError(f"view: size(-1) must be divisible by {ratio} {what} {x._l.type}")
        address = x._a.__array_interface__["data"][0]
        steps = (s for s, n in zip(x._l.strides[:-1], x._l.shape[:-1], strict=True) if n > 1)
        if address % new or builtins.any(s % ratio for s in steps):
            raise ShapeError(f"view: the offset and the strides must be multiples of {ratio} {what} {x._l}")


# ---------------------------------------------------------------- complex numbers


def is_complex(input: Tensor) -> builtins.bool:
    """True for complex dtypes."""
    return tensor_operand("is_complex", input).dtype.is_complex


def view_as_real(input: Tensor) -> Tensor:
    """A view of complex numbers with a last axis (real, imaginary). Raises DTypeError for real numbers."""
    x = _complex("view_as_real", input)
    pairs = x._a[..., None].view(_PARTS[x.dtype].np) if x._l.size else np.empty((*x._l.shape, 2), _PARTS[x.dtype].np)
    return _alias(x, pairs, "view_as_real()")


def view_as_complex(input: Tensor) -> Tensor:
    """A view of pairs in the last axis as complex numbers. Raises DTypeError unless it is float32 or float64,
    ShapeError unless the last axis has size 2 and stride 1 and the other strides are even.
    """
    x = tensor_operand("view_as_complex", input)
    if x.dtype not in _WHOLE:
        raise DTypeError(f"view_as_complex: is only supported for float32 and float64, got {x._l.type}; convert it")
    if not x._l.ndim or x._l.shape[-1] != 2:
        raise ShapeError(f"view_as_complex: the tensor must have a last dimension of size 2, got {x._l.type}")
    dtype = _WHOLE[x.dtype]
    if not x._l.size:
        return _alias(x, np.empty(x._l.shape[:-1], dtype.np), "view_as_complex()")
    steps = (s for s, n in zip(x._l.strides[:-1], x._l.shape[:-1], strict=True) if n > 1)
    if x._l.strides[-1] != 1 or builtins.any(s % 2 for s in steps):
        raise ShapeError(f"view_as_complex: needs a last stride of 1 and even other strides, got {x._l}; clone() it")
    return _alias(x, x._a.view(dtype.np)[..., 0], "view_as_complex()")


def _complex(name: str, input: Tensor) -> Tensor:
    x = tensor_operand(name, input)
    if not x.dtype.is_complex:
        raise DTypeError(f"{name}: is only implemented for complex tensors, got {x._l.type}")
    return x


def real(input: Tensor) -> Tensor:
    """The real parts, as a view; a real tensor itself."""
    x = tensor_operand("real", input)
    return _alias(x, x._a.real, "x.real") if x.dtype.is_complex else x


def imag(input: Tensor) -> Tensor:
    """The imaginary parts, as a view. Raises DTypeError for real numbers."""
    x = _complex("imag", input)
    return _alias(x, x._a.imag, "x.imag")


def resolve_conj(input: Tensor) -> Tensor:
    """`input`: nothing is conjugated lazily here."""
    return tensor_operand("resolve_conj", input)


def complex(real: Tensor, imag: Tensor) -> Tensor:
    """Complex numbers of their parts, both float32 or both float64. Raises DTypeError for anything else."""
    from graphc.frontend.functional_shape import broadcast_tensors, stack

    x, y = tensor_operand("complex", real), tensor_operand("complex", imag)
    if x.dtype is not y.dtype or x.dtype not in _WHOLE:
        raise DTypeError(f"complex: expected both float32 or both float64, got {x._l.type} and {y._l.type}")
    return view_as_complex(stack(broadcast_tensors(x.detach(), y.detach()), -1))


def parts_of(x: Any) -> tuple[Any, Any]:
    """(real, imaginary) of a tensor or a number."""
    if isinstance(x, Tensor):
        return (real(x), imag(x)) if x.dtype.is_complex else (x, 0)
    return x.real, x.imag


def convert_complex(x: Tensor, dtype: DType) -> Tensor:
    """cast() where one of the dtypes is complex: parts are converted each; to real the imaginary part is dropped, with
    a warning as in PyTorch.
    """
    if x.dtype.is_complex and not dtype.is_complex:
        if dtype is bool_:
            return ne(x, 0)
        warnings.warn("Casting complex values to real discards the imaginary part", UserWarning, stacklevel=3)
        return convert(ops.clone(real(x)), dtype)
    parts = _PARTS[dtype]
    if x.dtype.is_complex:
        return view_as_complex(convert(view_as_real(x), parts))
    y = convert(x.detach(), promote_types(x.dtype, parts) if x.dtype.is_floating_point else parts)
    y = convert(y, parts)
    return complex(y, _zeros(y))


def _zeros(x: Tensor) -> Any:
    from graphc.frontend.creation import zeros_like

    return zeros_like(x)
