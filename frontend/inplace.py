"""In-place forms: compute the value, then write it through the one sink, with PyTorch's rules for dtype and shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.frontend import autograd, autograd_inplace
from graphc.frontend.creation import full
from graphc.frontend.dispatch import nullary, write
from graphc.frontend.functional_shape import expand_for
from graphc.frontend.mode import mode
from graphc.frontend.ops import ops
from graphc.frontend.promote import Operand, can_cast, convert, lift, plain
from graphc.frontend.random import Generator, draw
from graphc.frontend.random_tensors import probabilities, rand, randint, randn
from graphc.frontend.tensor import Tensor
from graphc.ir.types import bfloat16, bool_, float16, float32, float64, int8, int16, int32, uint8

P = ParamSpec("P")


def inplace(function: Callable[Concatenate[Tensor, P], Tensor]) -> Callable[Concatenate[Tensor, P], Tensor]:
    """The in-place form of a function: its result replaces the elements of its first argument, which is returned."""
    name = f"{function.__name__}_"

    def method(input: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        if not mode.get().grad:
            return store(input, function(input, *args, **kwargs), name, 0)
        autograd_inplace.check_inplace(input, name)
        since = autograd.ticket()
        return store(input, function(input, *args, **kwargs), name, since)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = (
        f"In-place form of {function.__name__}(): the result replaces the elements of this tensor, which is returned."
    )
    return method


def store(target: Tensor, value: Tensor, name: str, since: int) -> Tensor:
    """Write a computed value. `since`: a tape ticket taken before it was computed.

    Raises DTypeError when the dtype would lose its kind, ShapeError when the shape would change.
    """
    if value._l is target._l and value._l.contiguous and _stored(target, value):
        return target
    if not can_cast(value.dtype, target.dtype):
        raise DTypeError(
            f"{name}: result type {value.dtype.name} can't be cast to the desired output type "
            f"{target.dtype.name}; convert this tensor first"
        )
    if value.ttype.shape != target.ttype.shape:
        raise ShapeError(
            f"{name}: output with type {target._l.type} doesn't match the broadcast shape "
            f"{list(value.ttype.shape)}; the shape of a tensor stays"
        )
    value = convert(value, target.dtype)
    if mode.get().grad:
        autograd_inplace.keep_saved(value, target, since)
    write(target, value, name)
    if target._retain:
        autograd.watch(target)
    return target


def _stored(target: Tensor, value: Tensor) -> bool:
    """Write where neither a recorder nor gradients have a say and the memory can be written."""
    here = mode.get()
    if here.recorder is not None:
        return False
    if here.grad and (
        value._edge is not None
        or target._edge is not None
        or value._requires_grad
        or target._requires_grad
        or value._gbase is not None
        or target._gbase is not None
    ):
        return False
    try:
        target._a[...] = value._a
    except ValueError:  # read-only: the general way says so
        return False
    target._s.version += 1
    target._v.value += 1
    return True


def copy_(self: Tensor, src: Operand, non_blocking: bool = False) -> Tensor:
    """Replace the elements by those of `src`, broadcast and converted; gradients flow to `src`. Raises ShapeError."""
    source = lift(plain("copy_", src), self.dtype)
    since = autograd.ticket()
    value = source
    if value.ttype.shape != self.ttype.shape:
        value = expand_for("copy_", value, self.ttype.shape)
    if mode.get().grad and (value is src and value.requires_grad):
        value = ops.clone(value)
    return store(self, value, "copy_", since)


def fill_(self: Tensor, value: Operand) -> Tensor:
    """Set every element to a number or the element of a 0-d tensor. Raises ShapeError."""
    since = autograd.ticket()
    if isinstance(value, (bool, int, float)):
        made = full(self.ttype.shape, value, dtype=self.dtype)
    else:
        scalar = lift(value, self.dtype)
        if scalar._l.ndim:
            raise ShapeError(f"fill_: only supports a 0-dimension value tensor, got {scalar._l.type}; use copy_()")
        made = expand_for("fill_", scalar, self.ttype.shape)
    return store(self, made, "fill_", since)


def zero_(self: Tensor) -> Tensor:
    """Set every element to 0."""
    return store(self, nullary(ops.full, shape=self.ttype.shape, value=0, dtype=self.dtype), "zero_", autograd.ticket())


def _drawn(self: Tensor, name: str, made: Tensor) -> Tensor:
    """Write random numbers, converted to the dtype of the tensor."""
    return store(self, convert(made, self.dtype), name, autograd.ticket())


def _float_like(self: Tensor, name: str) -> Any:
    if not self.dtype.is_floating_point:
        raise DTypeError(f"{name}: not implemented for {self._l.type}; it needs a floating-point tensor")
    return float64 if self.dtype is float64 else float32  # the numbers of a 16-bit type are rounded from float32


def uniform_(self: Tensor, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Uniform numbers in [from_, to). Raises ArgumentError when to < from_."""
    if to < from_:
        raise ArgumentError(f"uniform_: expects to return a [from, to) range, but found from={from_} > to={to}")
    made = rand(self.ttype.shape, dtype=_float_like(self, "uniform_"), generator=generator)
    if to - from_ != 1.0:
        made = ops.mul(made, float(to - from_))
    return _drawn(self, "uniform_", ops.add(made, float(from_)) if from_ else made)


def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Normal numbers. Raises ArgumentError when std < 0."""
    if std < 0:
        raise ArgumentError(f"normal_: expects std >= 0.0, but found std {std}")
    made = randn(self.ttype.shape, dtype=_float_like(self, "normal_"), generator=generator)
    if std != 1.0:
        made = ops.mul(made, float(std))
    return _drawn(self, "normal_", ops.add(made, float(mean)) if mean else made)


def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Exponentially distributed numbers of rate `lambd`: -log(1 - u) / lambd. Raises ArgumentError unless lambd > 0."""
    if not lambd > 0:
        raise ArgumentError(f"exponential_: expects lambda > 0.0, but found lambda={lambd}")
    made = rand(self.ttype.shape, dtype=_float_like(self, "exponential_"), generator=generator)
    return _drawn(self, "exponential_", ops.div(ops.neg(ops.log1p(ops.neg(made))), float(lambd)))


# beyond: a float dtype holds all integers up to 2 ** its digits, an integer dtype up to its maximum
_LARGEST = {bool_: 2, uint8: 2**8, int8: 2**7, int16: 2**15, int32: 2**31, float16: 2**11 + 1, bfloat16: 2**8 + 1}
_LARGEST |= {float32: 2**24 + 1, float64: 2**53 + 1}


def random_(self: Tensor, *limits: int, generator: Generator | None = None) -> Tensor:
    """Integers in [0, to) or [from, to); without limits all non-negative integers the dtype holds exactly."""
    low, high = (0, limits[0]) if len(limits) == 1 else limits if limits else (0, _LARGEST.get(self.dtype, 2**63 - 1))
    return _drawn(self, "random_", randint(low, high, self.ttype.shape, generator=generator))


def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """1 with probability `p` (a number, or a tensor of this shape), else 0. Raises ArgumentError outside [0, 1]."""
    dtype = float64 if self.dtype is float64 else float32
    chance = probabilities("bernoulli_", p.detach() if isinstance(p, Tensor) else p, self, dtype)
    state, offset = draw(generator)
    made = ops.bernoulli(chance, state, offset=offset)
    return _drawn(self, "bernoulli_", expand_for("bernoulli_", made, self.ttype.shape))
