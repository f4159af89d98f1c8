"""Conversions of tensors to other dtypes, Python numbers, lists and NumPy arrays, and what is known of their memory."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, AutogradError, DimError, DTypeError, ShapeError, UnsupportedError
from graphc.frontend.device import CPU, check_device, device
from graphc.frontend.dispatch import detached_error
from graphc.frontend.mode import mode
from graphc.frontend.ops import ops
from graphc.frontend.promote import as_dtype, convert, tensor_operand
from graphc.frontend.size import Size
from graphc.frontend.tensor import Tensor, alias_of, fresh
from graphc.ir.infer import normalize_dim
from graphc.ir.op import Array
from graphc.ir.types import (
    DTYPES,
    Dim,
    DType,
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
from graphc.ir.types import bfloat16 as bfloat16_

__all__ = ["detach", "is_floating_point", "is_nonzero", "is_tensor"]


def is_tensor(obj: Any) -> builtins.bool:
    """True for a Tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> builtins.bool:
    """True for floating-point dtypes."""
    return input.dtype.is_floating_point


def is_signed(self: Tensor) -> builtins.bool:
    """True for dtypes that hold negative numbers."""
    return self.dtype.is_signed


# ---------------------------------------------------------------- dtype and device


def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """to(dtype), to(device), to(device, dtype), to(other); itself when nothing changes, unless copy=True.

    Keywords: dtype, device, non_blocking (no effect), copy, memory_format (no effect). Raises DTypeError,
    UnsupportedError.
    """
    dtype, copy = kwargs.pop("dtype", None), kwargs.pop("copy", False)
    where = kwargs.pop("device", None)
    kwargs.pop("non_blocking", None)
    kwargs.pop("memory_format", None)
    if kwargs:
        raise ArgumentError(f"to: unexpected keyword argument {next(iter(kwargs))!r}")
    for k, x in enumerate(args):
        if isinstance(x, Tensor):
            dtype = x.dtype
        elif isinstance(x, str) and x in (t.name for t in DTYPES):
            raise DTypeError(f"to: {x!r} is a string; use the dtype graphc.{x}")
        elif isinstance(x, (str, device)):
            where = x
        elif isinstance(x, builtins.bool):  # non_blocking, then copy
            copy = x if k and isinstance(args[k - 1], builtins.bool) else copy
        elif x is not None:
            dtype = x
    check_device("to", where)
    wanted = self.dtype if dtype is None else as_dtype("to", dtype)
    if wanted is not self.dtype:
        return convert(self, wanted)
    return ops.clone(self) if copy else self


def type_(self: Tensor, dtype: Any = None, non_blocking: builtins.bool = False) -> Any:
    """The name of the type ("graphc.FloatTensor"), or the tensor converted to `dtype` (a dtype or such a name).

    Raises DTypeError for an unknown name.
    """
    from graphc.frontend.legacy import TYPE_NAMES, TensorType, dtype_called

    if dtype is None:
        return f"graphc.{TYPE_NAMES[self.dtype]}"
    if isinstance(dtype, TensorType):
        dtype = dtype.dtype
    return to(self, dtype_called("type", dtype) if isinstance(dtype, str) else dtype)


def type_as(self: Tensor, other: Tensor) -> Tensor:
    """`self` in the dtype of `other`."""
    return convert(self, tensor_operand("type_as", other).dtype)


def _converter(dtype: DType, doc: str) -> Callable[..., Tensor]:
    def method(self: Tensor, memory_format: Any = None) -> Tensor:
        return convert(self, dtype)

    method.__name__ = method.__qualname__ = dtype.name
    method.__doc__ = doc
    return method


half = _converter(float16, "float16.")
bfloat16 = _converter(bfloat16_, "bfloat16.")
float = _converter(float32, "float32.")
double = _converter(float64, "float64.")
byte = _converter(uint8, "uint8: truncates, saturates, NaN becomes 0; integers wrap around.")
char = _converter(int8, "int8: truncates, saturates, NaN becomes 0; integers wrap around.")
short = _converter(int16, "int16: truncates, saturates, NaN becomes 0; integers wrap around.")
int_ = _converter(int32, "int32: truncates, saturates, NaN becomes 0; integers wrap around.")
long = _converter(int64, "int64: truncates, saturates, NaN becomes 0.")
bool = _converter(bool_, "bool: not zero.")
cfloat = _converter(complex64, "complex64.")
cdouble = _converter(complex128, "complex128.")


def cpu(self: Tensor) -> Tensor:
    """`self`: tensors live on the CPU."""
    return self


def cuda(self: Tensor, device: Any = None) -> Tensor:
    """Raises UnsupportedError: this version computes on the CPU."""
    check_device("cuda", "cuda")
    return self


def pin_memory(self: Tensor) -> Tensor:
    """`self`: there is no device to copy to."""
    return self


def get_device(self: Tensor) -> device:
    """device("cpu")."""
    return CPU


# ---------------------------------------------------------------- Python values


def item(self: Tensor) -> Any:
    """The one element as a Python number. Raises ShapeError for more or none."""
    if self._l.size != 1:
        raise ShapeError(
            f"item: a Tensor with {self._l.size} elements cannot be converted to Scalar; index it or use tolist()"
        )
    number = self._a.item()
    recorder = mode.get().recorder
    if recorder is not None and self.dtype.is_complex:
        recorder.on_escape(self, "item() of a complex tensor")
        return number
    return number if recorder is None else recorder.on_item(self, number)


def to_bool(self: Tensor) -> builtins.bool:
    """The truth of the one element. Raises ShapeError for more or none."""
    if self._l.size != 1:
        more = "no values" if not self._l.size else "more than one value"
        raise ShapeError(f"Boolean value of Tensor with {more} is ambiguous; use any() or all() ({self._l.type})")
    value = builtins.bool(self._a.item())
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_bool(self, value)
    return value


def is_nonzero(input: Tensor) -> builtins.bool:
    """The truth of the one element. Raises ShapeError for more or none."""
    return to_bool(tensor_operand("is_nonzero", input))


def to_float(self: Tensor) -> builtins.float:
    """`float(tensor)`. Raises ArgumentError unless there is one element."""
    return builtins.float(item(_single(self)))


def to_int(self: Tensor) -> int:
    """`int(tensor)`. Raises ArgumentError unless there is one element."""
    return int(item(_single(self)))


def to_complex(self: Tensor) -> complex:
    """`complex(tensor)`. Raises ArgumentError unless there is one element."""
    return complex(item(_single(self)))


def _single(self: Tensor) -> Tensor:
    if self._l.size != 1:
        raise ArgumentError(f"only one element tensors can be converted to Python scalars, got {self._l.type}")
    return self


def to_index(self: Tensor) -> int:
    """`operator.index(tensor)`. Raises DTypeError unless the tensor has one integer."""
    if self.dtype.is_floating_point or self.dtype.is_complex or self._l.size != 1:
        raise DTypeError(f"only integer tensors of a single element can be converted to an index, got {self._l.type}")
    number = item(self)
    return number.__index__()  # type: ignore[no-any-return]


def _escape(self: Tensor, what: str) -> None:
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_escape(self, what)


def tolist(self: Tensor) -> Any:
    """The elements as nested lists (a number for a 0-d tensor)."""
    _escape(self, "tolist()")
    return self._a.tolist()


def numpy(self: Tensor, *, force: builtins.bool = False) -> Array:
    """The elements as a NumPy array that shares the memory.

    Raises AutogradError when gradients are required, unless `force`.
    """
    if self.requires_grad and not force:
        raise detached_error("numpy()")
    _escape(self, "numpy()")
    self._s.exposed = True
    return self._a.view()  # the shape and flags of what is handed out are its own


def array_protocol(self: Tensor, dtype: Any = None, copy: builtins.bool | None = None) -> Array:
    """`np.asarray(tensor)`."""
    found = numpy(self)
    if dtype is not None and np.dtype(dtype) != found.dtype:
        if copy is False:
            raise ArgumentError(f"__array__: a copy is needed to convert {self._l.type} to {dtype}")
        return found.astype(dtype)
    return found.copy() if copy else found


# ---------------------------------------------------------------- history


def detach(input: Tensor) -> Tensor:
    """The same memory without gradient history; in-place writes are seen by both."""
    return alias_of(tensor_operand("detach", input))


def detach_(self: Tensor) -> Tensor:
    """Drop the gradient history in place. Raises AutogradError for a view."""
    if self._gbase is not None and self._history >= 0:
        raise AutogradError("detach_: can't detach views in-place; use detach() instead")
    recorder = mode.get().recorder
    if recorder is not None and self.requires_grad:
        recorder.on_metadata(self, "detach_")
    self._edge = None
    self._requires_grad = False
    self._s.history += 1
    return self


# ---------------------------------------------------------------- shape and memory


def shape(self: Tensor) -> Size:
    """The sizes."""
    return Size(visible(self.ttype.shape))


def size(self: Tensor, dim: int | None = None) -> Any:
    """The sizes, or the one of axis `dim`."""
    found = self.ttype.shape
    if dim is None:
        return Size(visible(found))
    if not found:
        raise_no_dims("size")
    return visible((found[normalize_dim("size", dim, len(found))],))[0]


def visible(sizes: Any) -> Any:
    """Sizes as the user gets them."""
    recorder = mode.get().recorder
    if recorder is None or not any(isinstance(s, Dim) for s in sizes):
        return sizes
    return tuple(recorder.visible_size(s) if isinstance(s, Dim) else s for s in sizes)


def raise_no_dims(name: str) -> None:
    """Raise the DimError for asking a 0-d tensor for an axis."""
    raise DimError(f"{name}: dimension specified but tensor has no dimensions")


def numel(self: Tensor) -> Any:
    """Number of elements."""
    return visible((self.ttype.numel,))[0]


def dim(self: Tensor) -> int:
    """Number of dimensions."""
    return self._l.ndim


def stride(self: Tensor, dim: int | None = None) -> Any:
    """The steps between elements, in elements, or that of axis `dim`."""
    if dim is None:
        return self._l.strides
    if not self._l.ndim:
        raise_no_dims("stride")
    return self._l.strides[normalize_dim("stride", dim, self._l.ndim)]


def storage_offset(self: Tensor) -> int:
    """Elements between the start of the storage and the first element."""
    _escape(self, "storage_offset()")  # a graph knows layouts, not where in a memory they begin
    if not self._l.size:
        return 0
    here, start = (a.__array_interface__["data"][0] for a in (self._a, self._s.owner))
    return int(here - start) // self._a.itemsize


def is_contiguous(self: Tensor, memory_format: Any = None) -> builtins.bool:
    """True when the memory is row-major without gaps."""
    return self._l.contiguous


def element_size(self: Tensor) -> int:
    """Bytes of an element."""
    return self._a.itemsize


def nbytes(self: Tensor) -> int:
    """Bytes of all elements."""
    return self._l.size * self._a.itemsize


def data_ptr(self: Tensor) -> int:
    """The address of the first element."""
    _escape(self, "data_ptr()")
    self._s.exposed = True
    return int(self._a.__array_interface__["data"][0])


def length(self: Tensor) -> int:
    """The size of the first axis. Raises ArgumentError for a 0-d tensor, UnsupportedError for a named size."""
    if not self._l.ndim:
        raise ArgumentError("len() of a 0-d tensor")
    found = self.ttype.shape[0]
    recorder = mode.get().recorder
    number = recorder.plain_size(found) if isinstance(found, Dim) and recorder is not None else None
    if number is not None:
        return number
    if isinstance(found, Dim):
        raise UnsupportedError(f"len(): the size is the named size {found} of this recording; use shape[0], not len()")
    return found


def iterate(self: Tensor) -> Any:
    """The slices along the first axis. Raises ArgumentError for a 0-d tensor."""
    from graphc.frontend.functional_shape import unbind

    if not self._l.ndim:
        raise ArgumentError("iteration over a 0-d tensor")
    return iter(unbind(self, 0))


def contains(self: Tensor, element: Any) -> builtins.bool:
    """`element in tensor`: is any element equal to a number or tensor?"""
    from graphc.frontend.functional_math import eq
    from graphc.frontend.functional_reduce import any

    return to_bool(any(eq(self, element)))


def get_data(self: Tensor) -> Tensor:
    """The same memory without history and with its own version counter."""
    return alias_of(self, share_version=False)


def set_data(self: Tensor, value: Tensor) -> None:
    """Let this tensor look at the memory of `value`. Raises DTypeError when the dtypes differ."""
    source = tensor_operand("data", value)
    if self.dtype is not source.dtype:
        raise DTypeError(f"data: cannot replace {self._l.type} by {source._l.type}: the dtypes differ")
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_metadata(self, "data =")
    self._a, self._l, self._s, self._chain = source._a, source._l, source._s, source._chain
    self._gbase, self._gskip, self._memo = None, 0, None
    self._history = -1 if self._edge is not None or source._chain else self._s.history


def deepcopy(self: Tensor, memo: dict[int, Any]) -> Tensor:
    """`copy.deepcopy(tensor)`: new memory, the same flags. Raises AutogradError for non-leaves."""
    if not self.is_leaf:
        raise AutogradError(
            "only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol; clone() them"
        )
    from graphc.frontend.grad_mode import no_grad

    with no_grad():
        made: Tensor = ops.clone(self)
    found = _of_kind(made, type(self))
    found._requires_grad = self._requires_grad
    if self._grad is not None:
        found._grad = deepcopy(self._grad, memo)
    memo[id(self)] = found
    return found


def reduce_protocol(self: Tensor, protocol: Any) -> Any:
    """Pickling copies the elements. Raises AutogradError for non-leaves."""
    if not self.is_leaf:
        raise AutogradError("only graph leaves can be pickled; detach() the tensor first")
    _escape(self, "pickling")
    return rebuild, (np.array(self._a, order="C"), self._requires_grad, type(self))


def rebuild(array: Array, requires_grad: builtins.bool, kind: builtins.type[Tensor] = Tensor) -> Tensor:
    """The tensor a pickle stands for."""
    made = _of_kind(fresh(array), kind)
    made._requires_grad = requires_grad
    return made


def copy_protocol(self: Tensor) -> Tensor:
    """`copy.copy(tensor)`: another leaf over the same memory. Raises AutogradError for non-leaves."""
    if not self.is_leaf:
        raise AutogradError("only graph leaves can be copied by copy.copy(); use detach() or clone()")
    return _of_kind(alias_of(self), type(self)).requires_grad_(self._requires_grad)


def _of_kind(made: Tensor, kind: builtins.type[Tensor]) -> Tensor:
    """`made` as an object of a subclass of Tensor."""
    kind = kind._plain_class or kind
    if kind is Tensor:
        return made
    array = made._a  # its memory is there from here on
    found: Tensor = object.__new__(kind)
    found.__dict__.update(made.__dict__, _a=array)
    return found


def format_protocol(self: Tensor, spec: str) -> str:
    """`f"{tensor:.3f}"` for one 0-d element; without a format as repr()."""
    return format(item(self), spec) if not self._l.ndim else object.__format__(self, spec)
