"""Tensors from host data: numbers, lists, NumPy arrays, other libraries' tensors.

`tensor` copies whatever it gets. `from_numpy` and `as_tensor` share the memory of an array; a layout that a tensor
cannot have (negative or odd strides, a foreign byte order, an odd address) is refused by the first and copied by the
second.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError
from graphc.frontend.device import check_device
from graphc.frontend.mode import mode
from graphc.frontend.ops import ops
from graphc.frontend.promote import as_dtype, convert, get_default_dtype
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.op import Array
from graphc.ir.types import DType, bfloat16, complex64, complex128, dtype_of, float64, int64

__all__ = ["as_tensor", "asarray", "from_numpy", "tensor"]


def tensor(
    data: Any, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """A new tensor with a copy of numbers, nested lists, or an array. Floats get the default dtype unless the array
    has one; with `dtype` the values are converted as by `cast`.

    Raises ArgumentError for ragged lists, numbers that do not fit and foreign objects.
    """
    check_device("tensor", device)
    wanted = None if dtype is None else as_dtype("tensor", dtype)
    if isinstance(data, Tensor):
        made = convert(ops.clone(data.detach()), wanted or data.dtype)
    elif isinstance(data, Scalar):
        made = convert(ops.clone(data.tensor), wanted or _natural(data.tensor.dtype))
    elif isinstance(data, (list, tuple)) and _holds_tensors(data):
        made = _stack_nested(data, wanted)
    else:
        made = host_tensor(_array("tensor", data, wanted), data)
    return flagged(made, requires_grad)


def _natural(dtype: DType) -> DType:
    return get_default_dtype() if dtype.is_floating_point else dtype


def _holds_tensors(data: Any) -> bool:
    if isinstance(data, (list, tuple)):
        return any(_holds_tensors(x) for x in data[:1]) or any(isinstance(x, (Tensor, Scalar)) for x in data)
    return isinstance(data, (Tensor, Scalar))


def _stack_nested(data: Any, dtype: DType | None) -> Tensor:
    """Lists that hold tensors (of one element) or recorded numbers: put together by operations."""
    from graphc.frontend.functional_shape import reshape, stack

    parts = []
    for x in data:
        if isinstance(x, (list, tuple)):
            parts.append(_stack_nested(x, dtype))
        elif isinstance(x, Tensor):
            if x._l.size != 1:
                raise ArgumentError(
                    f"tensor: only one element tensors can be put in a list, got {x._l.type}; use stack()"
                )
            parts.append(reshape(x.detach(), ()))
        else:
            parts.append(tensor(x))
    made = stack(parts)
    return made if dtype is None else convert(made, dtype)


def _array(name: str, data: Any, dtype: DType | None) -> Array:
    """A private, contiguous array of the data."""
    if isinstance(data, (np.ndarray, np.generic)):
        if _is_masked(data):
            raise ArgumentError(f"{name}: {_MASKED}")
        source = np.asarray(data)
        source = source.astype(source.dtype.newbyteorder("="), copy=False)
    else:
        source = _from_python(name, data, dtype)
    if dtype is None or dtype.np == source.dtype:
        return np.array(source, dtype_of(source.dtype).np, copy=True, order="C")
    return _cast_array(name, source, dtype)


_MASKED = "a masked array has no tensor form: the mask would be lost; use .filled(number)"


def _is_masked(data: Any) -> bool:
    return type(data) is not np.ndarray and hasattr(data, "mask") and hasattr(data, "filled")


def _cast_array(name: str, source: Array, dtype: DType) -> Array:
    """The values in another dtype, rounded and truncated as `cast` does."""
    kind = "f" if source.dtype == bfloat16.np else source.dtype.kind
    if kind not in "biufc" or (kind == "c" and not dtype.is_complex):
        raise ArgumentError(f"{name}: cannot convert {source.dtype} numbers to {dtype.name}; use .real or .astype()")
    if kind in "biu" and not dtype.is_floating_point:
        if source.dtype == np.uint64 and dtype is int64 and source.size and int(source.max()) >= 2**63:
            raise ArgumentError(f"{name}: the number {int(source.max())} does not fit in int64")
        return np.array(source.astype(dtype.np), order="C")
    if dtype.is_complex:
        return np.array(source.astype(np.complex128 if kind != "c" else source.dtype).astype(dtype.np), order="C")
    base = _supported(source)
    recorder = mode.get().recorder
    if recorder is None:
        return np.array(convert(fresh(base), dtype)._a)
    with recorder.paused():
        return np.array(convert(fresh(base), dtype)._a)


def _supported(source: Array) -> Array:
    """The same values in a dtype that tensors have."""
    try:
        return np.array(source, dtype_of(source.dtype).np, order="C")
    except ArgumentError:
        wide = np.int64 if source.dtype.kind in "iu" and source.dtype != np.uint64 else np.float64
        return np.array(source, wide, order="C")


def _from_python(name: str, data: Any, dtype: DType | None) -> Array:
    if not isinstance(data, (bool, int, float, complex, list, tuple, range)) and not hasattr(data, "__array__"):
        data = list(data) if hasattr(data, "__iter__") and not isinstance(data, (str, bytes, dict)) else data
    try:
        source = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise ArgumentError(f"{name}: expected a sequence of equal length at each level: {error}") from None
    kind = source.dtype.kind
    if kind == "O" and _integers(source):
        raise ArgumentError(f"{name}: a number in the data does not fit in int64")
    if kind not in "biufc" and source.dtype != bfloat16.np:
        raise ArgumentError(
            f"{name}: could not infer a dtype from {type(data).__name__}; give numbers, nested lists or a NumPy array"
        )
    if kind == "u" and dtype is None and not hasattr(data, "__array__"):
        raise ArgumentError(f"{name}: a number in the data does not fit in int64")
    if hasattr(data, "__array__"):
        return source
    if dtype is None and kind in "fc":
        real = get_default_dtype()
        wide = complex128 if real is float64 else complex64
        return _cast_array(name, source, real if kind == "f" else wide)
    if not source.size:
        return source.astype((dtype or get_default_dtype()).np)
    if dtype is not None and dtype.is_integer:
        _check_numbers(name, source, dtype)
    return source


def _check_numbers(name: str, source: Array, dtype: DType) -> None:
    """Raise ArgumentError for a Python number beyond the range of an integer dtype."""
    top = 2 ** (dtype.bits - dtype.is_signed) - 1
    least = -top - 1 if dtype.is_signed else -top if source.dtype.kind == "i" else 0
    beyond = (source > top) | (source < least)
    if beyond.any():
        raise ArgumentError(f"{name}: the number {source[beyond].flat[0]} does not fit in {dtype.name}")


def _integers(source: Array) -> bool:
    return bool(source.size) and all(isinstance(x, int) for x in source.flat)


def host_tensor(array: Array, source: Any) -> Tensor:
    """A tensor over `array`, which holds what the user gave as `source`."""
    made = fresh(array)
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_host_data(made, source)
    return made


def flagged(t: Tensor, requires_grad: bool) -> Tensor:
    """`t`, a new leaf, with its flag set. Raises DTypeError unless it is floating point."""
    if requires_grad:
        if not t.dtype.is_floating_point:
            raise DTypeError(
                f"requires_grad: only Tensors of floating point dtype can require gradients, this one is {t._l.type}; "
                "give a floating-point dtype"
            )
        t._requires_grad = True
    return t


def _unshareable(array: Array) -> str | None:
    """Why a tensor cannot look at the memory of an array, or None."""
    if not array.dtype.isnative:
        return "the byte order is not that of this machine; use ndarray.astype(ndarray.dtype.newbyteorder('='))"
    if any(s < 0 for s in array.strides):
        return "negative strides are not supported; copy the array first"
    if array.ctypes.data % array.dtype.alignment or not array.flags.aligned:
        return "the array is not aligned; copy the array first"
    if _is_masked(array):
        return _MASKED
    if any(s % array.itemsize for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        return "a stride is no multiple of the element size; copy the array first"
    return None


def from_numpy(ndarray: Array) -> Tensor:
    """A tensor over the memory of a NumPy array: writes to one are seen in the other. Raises ArgumentError."""
    if not isinstance(ndarray, np.ndarray):
        raise ArgumentError(f"from_numpy: expected np.ndarray, got {type(ndarray).__name__}")
    problem = _unshareable(ndarray)
    if problem is not None:
        raise ArgumentError(f"from_numpy: {problem}")
    view = ndarray.view(np.ndarray)
    dtype_of(view.dtype)
    made = host_tensor(view, ndarray)
    made._s.exposed = True
    return made


def as_tensor(data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """`data` itself if it is a tensor of the dtype, over the same memory if it is an array of the dtype whose layout a
    tensor can have, else tensor().
    """
    check_device("as_tensor", device)
    wanted = None if dtype is None else as_dtype("as_tensor", dtype)
    if isinstance(data, Tensor):
        return convert(data, wanted or data.dtype)
    if isinstance(data, np.ndarray) and (wanted is None or wanted.np == data.dtype) and _unshareable(data) is None:
        return from_numpy(data)
    return tensor(data, dtype=wanted)


def asarray(
    obj: Any,
    *,
    dtype: DType | None = None,
    device: Any = None,
    copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """as_tensor() that also takes the memory of another library's tensor (DLPack) and can require gradients.

    copy=True copies, copy=False raises ArgumentError where that would be needed.
    """
    if hasattr(obj, "__dlpack__") and not isinstance(obj, (Tensor, np.ndarray)):
        from graphc.frontend.dlpack import from_dlpack

        obj = from_dlpack(obj)
    if copy:
        made = tensor(obj, dtype=dtype, device=device)
    else:
        made = as_tensor(obj, dtype, device)
        if copy is False and not _shares(made, obj):
            raise ArgumentError(f"asarray: {type(obj).__name__} cannot be used without a copy; leave copy=False out")
    return made.requires_grad_() if requires_grad else made


def _shares(made: Tensor, obj: Any) -> bool:
    if isinstance(obj, Tensor):
        return made is obj
    return isinstance(obj, np.ndarray) and (not obj.size or np.may_share_memory(made._a, obj))
