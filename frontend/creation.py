"""Functions that make tensors: from host data, from numbers, from the random generator."""

from __future__ import annotations

import math
from operator import index as as_index
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.frontend import dispatch
from graphc.frontend import functional_math as fm
from graphc.frontend.device import check_device
from graphc.frontend.dispatch import nullary
from graphc.frontend.functional_shape import sizes_of
from graphc.frontend.mode import mode
from graphc.frontend.ops import ops
from graphc.frontend.promote import Number, as_dtype, convert, get_default_dtype, lift, tensor_operand
from graphc.frontend.scalar import Scalar
from graphc.frontend.size import Size
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.op import Array
from graphc.ir.types import Dim, DType, Shape, bool_, dtype_of, float32, float64, int64

__all__ = [
    "BoolTensor", "DoubleTensor", "FloatTensor", "LongTensor", "arange", "as_tensor", "asarray", "empty",
    "empty_like", "eye", "from_numpy", "full", "full_like", "linspace", "ones", "ones_like", "scalar_tensor",
    "tensor", "zeros", "zeros_like",
]  # fmt: skip


# ---------------------------------------------------------------- host data


def tensor(data: Any, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of numbers, nested lists, or an array. Floats get the default dtype unless the array
    has one.

    Raises ArgumentError for ragged lists and foreign objects.
    """
    check_device("tensor", device)
    wanted = None if dtype is None else as_dtype("tensor", dtype)
    if isinstance(data, Tensor):
        made = convert(ops.clone(data.detach()), wanted or data.dtype)
    elif isinstance(data, Scalar):
        made = lift(data, wanted or _natural(data.tensor.dtype))
    elif isinstance(data, (list, tuple)) and _holds_tensors(data):
        made = _stack_nested(data, wanted)
    else:
        made = _host(_array("tensor", data, wanted), data)
    return _flagged(made, requires_grad)


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
            if x._a.size != 1:
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
        source = np.asarray(data)
    else:
        source = _from_python(name, data, dtype)
    if dtype is None or dtype.np == source.dtype:
        found = np.array(source, dtype_of(source.dtype).np, copy=True, order="C")
    else:
        found = _cast_array(name, source, dtype)
    return found


def _cast_array(name: str, source: Array, dtype: DType) -> Array:
    """The values in another dtype, rounded and truncated as `cast` does."""
    if source.dtype.kind in "iub":
        if dtype is int64 and source.dtype == np.uint64 and source.size and int(source.max()) >= 2**63:
            raise ArgumentError(f"{name}: the number {int(source.max())} does not fit in int64")
        return np.array(source.astype(dtype.np), order="C")
    if source.dtype.kind != "f":
        raise ArgumentError(f"{name}: cannot convert an array of {source.dtype}; use bool, int64, float32 or float64")
    wide = np.array(source, np.float64 if source.dtype != np.float32 else np.float32, order="C")
    return np.array(convert(fresh(wide), dtype)._a) if mode.get().recorder is None else _cast_paused(wide, dtype)


def _cast_paused(wide: Array, dtype: DType) -> Array:
    recorder = mode.get().recorder
    assert recorder is not None
    with recorder.paused():
        return np.array(convert(fresh(wide), dtype)._a)


def _from_python(name: str, data: Any, dtype: DType | None) -> Array:
    if not isinstance(data, (bool, int, float, list, tuple, range)) and not hasattr(data, "__array__"):
        data = list(data) if hasattr(data, "__iter__") and not isinstance(data, (str, bytes, dict)) else data
    try:
        source = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise ArgumentError(f"{name}: expected a sequence of equal length at each level: {error}") from None
    kind = source.dtype.kind
    if kind == "O" and _integers(source):
        raise ArgumentError(f"{name}: a number in the data does not fit in int64")
    if kind not in "biuf":
        raise ArgumentError(
            f"{name}: could not infer a dtype from {type(data).__name__}; give numbers, nested lists or a NumPy array"
        )
    if kind == "u" and dtype is None:
        raise ArgumentError(f"{name}: a number in the data does not fit in int64")
    if kind == "f" and dtype is None and not hasattr(data, "__array__"):
        return _cast_array(name, source, get_default_dtype())
    if not source.size and not hasattr(data, "__array__"):
        return source.astype((dtype or get_default_dtype()).np)
    return source


def _integers(source: Array) -> bool:
    return bool(source.size) and all(isinstance(x, int) for x in source.flat)


def _host(array: Array, source: Any) -> Tensor:
    made = fresh(array)
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_host_data(made, source)
    return made


def _flagged(t: Tensor, requires_grad: bool) -> Tensor:
    if requires_grad:
        if not t.dtype.is_floating_point:
            raise DTypeError(f"only Tensors of floating point dtype can require gradients, this one is {t._l.type}")
        t._requires_grad = True
    return t


def from_numpy(ndarray: Array) -> Tensor:
    """A tensor over the memory of a NumPy array: writes to one are seen in the other. Raises ArgumentError."""
    if not isinstance(ndarray, np.ndarray):
        raise ArgumentError(f"from_numpy: expected np.ndarray, got {type(ndarray).__name__}")
    if any(s < 0 for s in ndarray.strides):
        raise ArgumentError("from_numpy: negative strides are not supported; copy the array first")
    if not ndarray.dtype.isnative:
        raise ArgumentError(
            "from_numpy: the byte order is not that of this machine; use "
            "ndarray.astype(ndarray.dtype.newbyteorder('='))"
        )
    if ndarray.ctypes.data % ndarray.itemsize:
        raise ArgumentError("from_numpy: the array is not aligned; copy the array first")
    view = ndarray.view(np.ndarray)
    dtype_of(view.dtype)
    made = _host(view, ndarray)
    made._s.exposed = True
    return made


def as_tensor(data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """`data` itself if it is a tensor of the dtype, from_numpy() of an array of the dtype, else tensor()."""
    check_device("as_tensor", device)
    wanted = None if dtype is None else as_dtype("as_tensor", dtype)
    if isinstance(data, Tensor):
        return convert(data, wanted or data.dtype)
    if (
        isinstance(data, np.ndarray)
        and (wanted is None or wanted.np == data.dtype)
        and all(s >= 0 for s in data.strides)
    ):
        return from_numpy(data)
    return tensor(data, dtype=wanted)


def asarray(obj: Any, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """as_tensor() that can require gradients."""
    made = as_tensor(obj, dtype, device)
    return made.requires_grad_() if requires_grad else made


def scalar_tensor(s: Number, *, dtype: DType | None = None) -> Tensor:
    """A 0-d tensor of a number, of the default dtype unless given."""
    return full((), s, dtype=dtype or get_default_dtype())


def legacy_tensor(data: tuple[Any, ...], dtype: DType | None = None) -> Tensor:
    """What `Tensor(...)` and `LongTensor(...)` make: of sizes an empty tensor, of one list or array a copy."""
    wanted = get_default_dtype() if dtype is None else dtype
    if len(data) == 1 and not isinstance(data[0], int) and type(data[0]) is not Size:
        return tensor(data[0], dtype=wanted)
    return zeros(*data, dtype=wanted) if data else zeros(0, dtype=wanted)


def FloatTensor(*data: Any) -> Tensor:
    """A float32 tensor of a list, an array or sizes."""
    return legacy_tensor(data, float32)


def DoubleTensor(*data: Any) -> Tensor:
    """A float64 tensor of a list, an array or sizes."""
    return legacy_tensor(data, float64)


def LongTensor(*data: Any) -> Tensor:
    """An int64 tensor of a list, an array or sizes."""
    return legacy_tensor(data, int64)


def BoolTensor(*data: Any) -> Tensor:
    """A bool tensor of a list, an array or sizes."""
    return legacy_tensor(data, bool_)


# ---------------------------------------------------------------- constant contents


def _options(name: str, dtype: DType | None, device: Any) -> DType:
    check_device(name, device)
    return get_default_dtype() if dtype is None else as_dtype(name, dtype)


def _filled(name: str, shape: Shape, value: Number, dtype: DType, requires_grad: bool) -> Tensor:
    return _flagged(nullary(ops.full, shape=_checked(name, shape), value=value, dtype=dtype), requires_grad)


def _checked(name: str, shape: Shape) -> Shape:
    if any(isinstance(s, int) and s < 0 for s in shape):
        raise ShapeError(f"{name}: trying to create a tensor with a negative dimension: {list(shape)}")
    return shape


def zeros(*size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of a shape."""
    return _filled("zeros", sizes_of("zeros", size), 0, _options("zeros", dtype, device), requires_grad)


def ones(*size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of a shape."""
    return _filled("ones", sizes_of("ones", size), 1, _options("ones", dtype, device), requires_grad)


def empty(
    *size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False, memory_format: Any = None
) -> Tensor:
    """A tensor to be written later; its elements are 0, so that programs are reproducible."""
    return _filled("empty", sizes_of("empty", size), 0, _options("empty", dtype, device), requires_grad)


def full(
    size: Any, fill_value: Any, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A shape filled with a number (or the one element of a tensor); the dtype is that of the number unless given."""
    check_device("full", device)
    shape = sizes_of("full", (size,))
    wanted = None if dtype is None else as_dtype("full", dtype)
    if isinstance(fill_value, (Tensor, Scalar)):
        from graphc.frontend.functional_shape import expand

        source = fill_value.tensor if isinstance(fill_value, Scalar) else fill_value
        return _flagged(ops.clone(expand(convert(source, wanted or _natural(source.dtype)), shape)), requires_grad)
    if isinstance(fill_value, np.generic):
        fill_value = fill_value.item()
    if not isinstance(fill_value, (bool, int, float)):
        raise ArgumentError(f"full: fill_value must be a number, got {type(fill_value).__name__}")
    dtype = wanted or (
        bool_ if isinstance(fill_value, bool) else int64 if isinstance(fill_value, int) else get_default_dtype()
    )
    return _filled("full", shape, _fitting("full", fill_value, dtype), dtype, requires_grad)


def _fitting(name: str, value: Number, dtype: DType) -> Number:
    if dtype is bool_:
        return bool(value)
    if dtype is int64:
        if not math.isfinite(value) or not -(2**63) <= int(value) < 2**63:
            raise ArgumentError(f"{name}: the number {value} does not fit in int64")
        return int(value)
    return float(value)


def zeros_like(
    input: Tensor,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """Zeros of the shape and dtype of `input`."""
    return full_like(input, 0, dtype=dtype, device=device, requires_grad=requires_grad)


def ones_like(
    input: Tensor,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """Ones of the shape and dtype of `input`."""
    return full_like(input, 1, dtype=dtype, device=device, requires_grad=requires_grad)


empty_like = zeros_like


def full_like(
    input: Tensor,
    fill_value: Any,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """The shape and dtype of `input` filled with a number."""
    x = tensor_operand("full_like", input)
    return full(x.ttype.shape, fill_value, dtype=dtype or x.dtype, device=device, requires_grad=requires_grad)


def new_tensor(
    self: Tensor, data: Any, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """tensor() of the dtype of `self`."""
    return tensor(data, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)


def new_zeros(
    self: Tensor, *size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """zeros() of the dtype of `self`."""
    return zeros(*size, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)


def new_ones(
    self: Tensor, *size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """ones() of the dtype of `self`."""
    return ones(*size, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)


new_empty = new_zeros


def new_full(
    self: Tensor,
    size: Any,
    fill_value: Any,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """full() of the dtype of `self`."""
    return full(size, fill_value, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)


# ---------------------------------------------------------------- sequences


def arange(
    *limits: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False, **named: Any
) -> Tensor:
    """arange(end), arange(start, end), arange(start, end, step): start + k * step below end.

    int64 when all are ints, else the default dtype. Raises ArgumentError for a step of 0 or one that leads away from
    the end.
    """
    check_device("arange", device)
    if len(limits) == 1 and isinstance(limits[0], Dim):
        wanted = int64 if dtype is None else as_dtype("arange", dtype)
        return _flagged(nullary(ops.iota, shape=limits, dim=0, dtype=wanted), requires_grad)
    start, end, step = _limits(limits, named)
    numbers = (start, end, step)
    natural = int64 if all(isinstance(v, int) for v in numbers) else get_default_dtype()
    wanted = natural if dtype is None else as_dtype("arange", dtype)
    if step == 0 or not math.isfinite(start) or not math.isfinite(end) or (end - start) * step < 0:
        raise ArgumentError(f"arange: step must be nonzero and lead from {start} to {end}, got {step}")
    count = (
        max(-(-(end - start) // step), 0)
        if all(isinstance(v, int) for v in numbers)
        else math.ceil((end - start) / step)
    )
    if wanted is bool_:
        raise DTypeError("arange: bool is not supported")
    if wanted is int64:
        return _progression(int(start), int(step), count, int64)
    made = _progression(start, step, count, float64 if wanted is float64 or not isinstance(step, int) else float32)
    return _flagged(convert(made, wanted), requires_grad)


def _limits(limits: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any, Any]:
    values: dict[str, Any] = dict(zip(("end",) if len(limits) == 1 else ("start", "end", "step"), limits, strict=False))
    if len(limits) > 3 or named.keys() & values.keys() or not named.keys() <= {"start", "end", "step"}:
        raise ArgumentError(f"arange: takes end, start and end, or start, end and step, got {limits} {named or ''}")
    values |= named
    if "end" not in values:
        raise ArgumentError("arange: end is missing")
    found = values.get("start", 0), values["end"], values.get("step", 1)
    return tuple(_plain_number("arange", v) for v in found)


def _plain_number(name: str, value: Any) -> Any:
    if isinstance(value, (bool, int, float)):
        return int(value) if isinstance(value, bool) else value
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__index__"):
        return as_index(value)
    if hasattr(value, "__float__"):
        return float(value)
    raise ArgumentError(f"{name}: expected a number, got {type(value).__name__}")


def _progression(start: Any, step: Any, count: int, dtype: DType) -> Tensor:
    made = nullary(ops.iota, shape=(count,), dim=0, dtype=dtype)
    if step != 1:
        made = fm.mul(made, step)
    return fm.add(made, start) if start != 0 else made


def linspace(
    start: float, end: float, steps: int, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`steps` numbers at equal distance from start to end, both included.

    The second half is counted back from the end.
    """
    wanted = _options("linspace", dtype, device)
    first, last = float(_plain_number("linspace", start)), float(_plain_number("linspace", end))
    n = as_index(steps)
    if n < 0:
        raise ArgumentError(f"linspace: number of steps must be non-negative, got {n}")
    work = wanted if wanted.is_floating_point else float64
    if n == 1:
        return full((1,), first, dtype=wanted, requires_grad=requires_grad)
    number = nullary(ops.iota, shape=(n,), dim=0, dtype=work)
    gap = dispatch.scalar_tensor((last - first) / max(n - 1, 1), work)
    ahead = fm.add(fm.mul(number, gap), first)
    back = fm.sub(last, fm.mul(fm.sub(n - 1, number), gap))
    return _flagged(convert(fm.where(fm.lt(number, n // 2), ahead, back), wanted), requires_grad)


def eye(
    n: int, m: int | None = None, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Ones on the diagonal of an n x m matrix (n x n), zeros elsewhere."""
    wanted = _options("eye", dtype, device)
    shape = _checked("eye", (as_index(n), as_index(n if m is None else m)))
    row, column = (nullary(ops.iota, shape=shape, dim=k, dtype=int64) for k in (0, 1))
    return _flagged(convert(fm.eq(row, column), wanted), requires_grad)
