"""Functions that make tensors from numbers; host.py has those from host data."""

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
from graphc.frontend.given import whole
from graphc.frontend.host import as_tensor, asarray, flagged, from_numpy, host_tensor, tensor
from graphc.frontend.ops import ops
from graphc.frontend.promote import (
    Number,
    as_dtype,
    check_fits,
    convert,
    fitting,
    get_default_dtype,
    no_complex,
    tensor_operand,
)
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor
from graphc.ir.types import Dim, DType, Shape, bool_, complex64, complex128, float32, float64, int64

__all__ = [
    "arange", "as_tensor", "asarray", "empty", "empty_like", "eye", "from_numpy", "full", "full_like", "linspace",
    "logspace", "ones", "ones_like", "range", "scalar_tensor", "tensor", "tril_indices", "triu_indices", "zeros",
    "zeros_like",
]  # fmt: skip


# ---------------------------------------------------------------- constant contents


def _options(name: str, dtype: DType | None, device: Any) -> DType:
    check_device(name, device)
    return get_default_dtype() if dtype is None else as_dtype(name, dtype)


def _filled(name: str, shape: Shape, value: Number, dtype: DType, requires_grad: bool) -> Tensor:
    return flagged(nullary(ops.full, shape=_checked(name, shape), value=value, dtype=dtype), requires_grad)


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
        return flagged(ops.clone(expand(convert(source, wanted or _natural(source.dtype)), shape)), requires_grad)
    if isinstance(fill_value, np.generic):
        fill_value = fill_value.item()
    if not isinstance(fill_value, (bool, int, float, complex)):
        raise ArgumentError(f"full: fill_value must be a number, got {type(fill_value).__name__}")
    dtype = wanted or _dtype_of_number(fill_value)
    if isinstance(fill_value, complex):
        if not dtype.is_complex:
            raise ArgumentError(f"full: the number {fill_value} does not fit in {dtype.name}; use a complex dtype")
        return host_tensor(np.full(concrete_sizes("full", shape), fill_value, dtype.np), fill_value)
    return _filled("full", shape, fitting("full", fill_value, dtype), dtype, requires_grad)


def _natural(dtype: DType) -> DType:
    return get_default_dtype() if dtype.is_floating_point else dtype


def _dtype_of_number(number: Any) -> DType:
    """What full() takes for a number."""
    if isinstance(number, bool):
        return bool_
    if isinstance(number, int):
        return int64
    real = get_default_dtype()
    return real if isinstance(number, float) else complex128 if real is float64 else complex64


def concrete_sizes(name: str, shape: Shape) -> tuple[int, ...]:
    """A shape as numbers. Raises ShapeError for named or negative sizes."""
    sizes = [s for s in _checked(name, shape) if isinstance(s, int)]
    if len(sizes) != len(shape):
        raise ShapeError(f"{name}: needs sizes that are numbers, got {list(shape)}")
    return tuple(sizes)


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


def scalar_tensor(s: Number, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """A 0-d tensor of a number, of the default dtype unless given."""
    return full((), s, dtype=dtype or get_default_dtype(), device=device)


# ---------------------------------------------------------------- sequences


def arange(
    *limits: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False, **named: Any
) -> Tensor:
    """arange(end), arange(start, end), arange(start, end, step): start + k * step below end.

    int64 when all are ints, else the default dtype. Raises ArgumentError for a step of 0 or one that leads away from
    the end.
    """
    check_device("arange", device)
    if len(limits) == 1 and isinstance(limits[0], Scalar) and limits[0].size is not None:
        limits = (limits[0].size,)
    if len(limits) == 1 and isinstance(limits[0], Dim):
        wanted = int64 if dtype is None else as_dtype("arange", dtype)
        return flagged(nullary(ops.iota, shape=limits, dim=0, dtype=wanted), requires_grad)
    start, end, step = _limits(limits, named)
    numbers = (start, end, step)
    natural = int64 if all(isinstance(v, int) for v in numbers) else get_default_dtype()
    wanted = natural if dtype is None else as_dtype("arange", dtype)
    if not all(map(math.isfinite, numbers)):
        raise ArgumentError(f"arange: start, end and step must be finite, got {start}, {end}, {step}")
    if step == 0 or (end - start) * step < 0:
        raise ArgumentError(f"arange: step must be nonzero and lead from {start} to {end}, got {step}")
    count = (
        max(-(-(end - start) // step), 0)
        if all(isinstance(v, int) for v in numbers)
        else math.ceil((end - start) / step)
    )
    if wanted is bool_ or wanted.is_complex:
        raise DTypeError(f"arange: {wanted.name} is not supported")
    if wanted.is_integer:  # a smaller type wraps around
        for what, number in (("start", start), ("end", end), ("step", step)):
            check_fits(f"arange: {what}", int(number), int64)
        return convert(_progression(int(start), int(step), count, int64), wanted)
    made = _progression(start, step, count, float64 if wanted is float64 or not isinstance(step, int) else float32)
    return flagged(convert(made, wanted), requires_grad)


def range(start: Any, end: Any = None, step: Any = 1, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """start, start + step, … up to and including end, in the default dtype unless given (arange() leaves end out)."""
    first, last = (0, start) if end is None else (start, end)
    low, high, gap = (_plain_number("range", v) for v in (first, last, step))
    count = math.floor((high - low) / gap) + 1
    if count < 1:
        raise ArgumentError(f"range: step must lead from {first} to {last}, got {step}")
    wanted = _options("range", dtype, device)
    number = nullary(ops.iota, shape=(count,), dim=0, dtype=float64)
    return convert(fm.add(fm.mul(number, float(step)), float(first)), wanted)


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
    if wanted.is_complex:
        raise no_complex("linspace", wanted)
    first, last = float(_plain_number("linspace", start)), float(_plain_number("linspace", end))
    n = as_index(steps)
    if n < 0:
        raise ArgumentError(f"linspace: number of steps must be non-negative, got {n}")
    work = float32 if wanted.is_low_precision else wanted if wanted.is_floating_point else float64
    if n == 1:
        return full((1,), first, dtype=wanted, requires_grad=requires_grad)
    number = nullary(ops.iota, shape=(n,), dim=0, dtype=work)
    gap = dispatch.scalar_tensor((last - first) / max(n - 1, 1), work)
    ahead = fm.add(fm.mul(number, gap), first)
    back = fm.sub(last, fm.mul(fm.sub(n - 1, number), gap))
    return flagged(convert(fm.where(fm.lt(number, n // 2), ahead, back), wanted), requires_grad)


def logspace(
    start: float,
    end: float,
    steps: int,
    base: float = 10.0,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """base ** linspace(start, end, steps), computed in float64."""
    wanted = _options("logspace", dtype, device)
    powers = fm.pow(float(base), linspace(start, end, steps, dtype=float64))
    return flagged(convert(powers, wanted), requires_grad)


def _triangle_places(name: str, row: int, col: int, offset: int, dtype: DType | None, lower: bool) -> Tensor:
    if row < 0 or col < 0:
        raise ArgumentError(f"{name}: the numbers of rows and columns must be non-negative, got {row} and {col}")
    places = (np.tril if lower else np.triu)(np.ones((row, col), bool), offset).nonzero()
    wanted = int64 if dtype is None else as_dtype(name, dtype)
    made = convert(tensor(np.stack(places).tolist(), dtype=int64), wanted)
    return made if places[0].size else zeros(2, 0, dtype=wanted)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """The places on and below a diagonal of a row x col matrix, row by row: shape (2, count), int64."""
    check_device("tril_indices", device)
    return _triangle_places("tril_indices", as_index(row), as_index(col), as_index(offset), dtype, True)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """The places on and above a diagonal of a row x col matrix, row by row: shape (2, count), int64."""
    check_device("triu_indices", device)
    return _triangle_places("triu_indices", as_index(row), as_index(col), as_index(offset), dtype, False)


def eye(
    n: int, m: int | None = None, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Ones on the diagonal of an n x m matrix (n x n), zeros elsewhere."""
    wanted = _options("eye", dtype, device)
    shape = _checked("eye", (whole("eye", "n", n), whole("eye", "m", n if m is None else m)))
    row, column = (nullary(ops.iota, shape=shape, dim=k, dtype=int64) for k in (0, 1))
    return flagged(convert(fm.eq(row, column), wanted), requires_grad)
