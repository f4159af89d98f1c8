"""DLPack: tensors that share memory with other libraries, without a copy, in both directions.

NumPy holds the memory on both ways, so that no code of ours runs when the other library lets go of it. What NumPy does
not know, bfloat16, travels as 16 bits whose type is rewritten in the description (struct DLTensor of dlpack.h). A
description from outside is checked field by field before NumPy sees it.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, UnsupportedError
from graphc.frontend.dispatch import detached_error
from graphc.frontend.host import host_tensor
from graphc.frontend.mode import mode
from graphc.frontend.tensor import Tensor
from graphc.ir.limits import MAX_RANK
from graphc.ir.types import DType, bfloat16, dtype_named

__all__ = ["from_dlpack", "to_dlpack"]

_CPU = 1  # kDLCPU
_BFLOAT = 4  # kDLBfloat
_UINT = 1  # kDLUInt
_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}  # DLDataTypeCode
_MAX_VERSION = (1, 0)
_PLAIN, _VERSIONED = b"dltensor", b"dltensor_versioned"


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("dl", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _ManagedVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("dl", _Tensor),
    )


def _address(capsule: Any, name: bytes) -> int | None:
    """The address in a capsule of this name, or None for another object."""
    api = ctypes.pythonapi
    valid, pointer = api.PyCapsule_IsValid, api.PyCapsule_GetPointer
    valid.argtypes, valid.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_int
    pointer.argtypes, pointer.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_void_p
    found: int | None = pointer(capsule, name) if valid(capsule, name) else None
    return found


def _described(capsule: Any) -> _Tensor:
    """The description in an unused capsule. Raises ArgumentError for anything else and for an unknown version."""
    address = _address(capsule, _VERSIONED)
    if address:
        versioned = _ManagedVersioned.from_address(address)
        if versioned.major != _MAX_VERSION[0]:
            raise ArgumentError(f"from_dlpack: version {versioned.major}.{versioned.minor} of DLPack is not supported")
        found: _Tensor = versioned.dl
        return found
    address = _address(capsule, _PLAIN)
    if not address:
        raise ArgumentError("from_dlpack: expected an unused capsule named 'dltensor'; a capsule can be used once")
    plain: _Tensor = _Managed.from_address(address).dl
    return plain


# ---------------------------------------------------------------- out


def device_protocol(self: Tensor) -> tuple[int, int]:
    """(kDLCPU, 0): where the memory is."""
    return _CPU, 0


def dlpack_protocol(
    self: Tensor,
    *,
    stream: Any = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[int, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """A DLPack capsule of the memory of this tensor.

    Raises AutogradError when gradients are required, UnsupportedError for a stream or another device, ArgumentError
    for read-only memory where the other side cannot know.
    """
    if self.requires_grad:
        raise detached_error("__dlpack__()")
    if stream is not None:
        raise UnsupportedError(f"__dlpack__: tensors on the CPU take no stream, got {stream!r}; leave it out")
    if dl_device is not None and tuple(dl_device) != (_CPU, 0):
        raise UnsupportedError(f"__dlpack__: device {tuple(dl_device)} is not available; tensors live on the CPU")
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_escape(self, "__dlpack__()")
    array = self._a.copy() if copy else self._a
    if not copy:
        self._s.exposed = True
    version = None if max_version is None or max_version[0] < 1 else _MAX_VERSION
    low = self.dtype is bfloat16
    try:
        capsule = (array.view(np.uint16) if low else array).__dlpack__(max_version=version)
    except (BufferError, TypeError) as error:
        raise ArgumentError(f"__dlpack__: {self._l} cannot be handed out: {error}; clone() it") from None
    if low:
        _described(capsule).dtype.code = _BFLOAT
    return capsule


def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule of the memory of a tensor; it can be used once. Raises as `__dlpack__`."""
    return dlpack_protocol(tensor)


# ---------------------------------------------------------------- in


class _Handed:
    """What NumPy takes a capsule from."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CPU, 0


def _capsule_of(source: Any) -> Any:
    device = source.__dlpack_device__()
    if int(device[0]) != _CPU:
        raise UnsupportedError(f"from_dlpack: the memory is on device {tuple(map(int, device))}; copy it to the CPU")
    try:
        return source.__dlpack__(max_version=_MAX_VERSION)
    except TypeError:  # a library from before versions
        return source.__dlpack__()


def from_dlpack(ext_tensor: Any, *, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of another library's tensor or of a capsule; with `copy` one of its own.

    Raises ArgumentError for what is no valid description, DTypeError for a dtype that does not exist here,
    UnsupportedError for other devices.
    """
    if isinstance(ext_tensor, Tensor):
        return ext_tensor.clone() if copy else ext_tensor.detach()
    plain = not hasattr(ext_tensor, "__dlpack__")
    if not plain and not hasattr(ext_tensor, "__dlpack_device__"):
        raise ArgumentError(f"from_dlpack: {type(ext_tensor).__name__} has __dlpack__ but no __dlpack_device__")
    capsule = ext_tensor if plain else _capsule_of(ext_tensor)
    found = _described(capsule)
    dtype = _checked(found)
    address, low = found.data or 0, dtype is bfloat16
    writeable = _writeable(capsule)
    if low:
        found.dtype.code = _UINT
    array = np.from_dlpack(_Handed(capsule))
    array = array.view(dtype.np) if low else array
    if writeable and not array.flags.writeable and array.size:
        array = _unlocked(array, address)
    made = host_tensor(array.copy() if copy else array, array)
    made._s.exposed = not copy
    return made


def _writeable(capsule: Any) -> bool:
    """False where the description says read-only; one from before versions cannot say it."""
    address = _address(capsule, _VERSIONED)
    return not address or not _ManagedVersioned.from_address(address).flags & 1


class _Memory:
    """An array interface over memory that `owner` keeps."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.__array_interface__ = {**owner.__array_interface__, "data": (owner.__array_interface__["data"][0], False)}


def _unlocked(array: Any, address: int) -> Any:
    """The same memory, to be written: NumPy takes all from before versions for read-only."""
    bits = array.view(np.dtype(f"u{array.dtype.itemsize}")) if array.dtype == bfloat16.np else array
    return np.asarray(_Memory(bits)).view(array.dtype)


def _checked(found: _Tensor) -> DType:
    """The dtype of a description whose every field is in order."""
    dtype = _dtype(found.dtype)
    if found.device_type != _CPU or found.device_id != 0:
        raise UnsupportedError(f"from_dlpack: the memory is on device {found.device_type}:{found.device_id}; copy it")
    if not 0 <= found.ndim <= MAX_RANK or (found.ndim and not found.shape):
        raise ArgumentError(f"from_dlpack: the number of dimensions is {found.ndim}; it must be 0 to {MAX_RANK}")
    shape = [found.shape[k] for k in range(found.ndim)]
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize >= 2**62:
        raise ArgumentError(f"from_dlpack: the shape {shape} is not valid")
    strides = [found.strides[k] for k in range(found.ndim)] if found.strides else []
    if 0 in shape:
        return dtype
    if any(s < 0 for s, n in zip(strides, shape, strict=False) if n > 1):
        raise ArgumentError(f"from_dlpack: negative strides {strides} are not supported; copy the tensor first")
    reach = sum(s * (n - 1) for s, n in zip(strides, shape, strict=False) if n > 1)
    if reach * dtype.itemsize >= 2**62 or found.byte_offset >= 2**62:
        raise ArgumentError(f"from_dlpack: strides {strides} and offset {found.byte_offset} lead out of the memory")
    if not found.data:
        raise ArgumentError(f"from_dlpack: there is no memory for the shape {shape}")
    if (found.data + found.byte_offset) % min(dtype.itemsize, 8):
        raise ArgumentError("from_dlpack: the memory is not aligned; copy the tensor first")
    return dtype


def _dtype(given: _DataType) -> DType:
    kind = _KINDS.get(given.code)
    name = f"{kind}{given.bits}" if kind not in ("bool", "bfloat") else {"bool": "bool", "bfloat": "bfloat16"}[kind]
    right = given.lanes == 1 and given.bits == {"bool": 8, "bfloat": 16}.get(kind or "", given.bits)
    if kind is not None and right:
        try:
            return dtype_named(name)
        except ArgumentError:
            pass
    what = kind or f"type {given.code}"
    raise DTypeError(f"from_dlpack: {given.lanes} x {what} of {given.bits} bits is not supported")
