"""Tensors of random numbers. Each call takes one count of its generator, whatever its size."""

from __future__ import annotations

from operator import index as as_index
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.frontend import functional_math as fm
from graphc.frontend import functional_mixed as fx
from graphc.frontend import functional_reduce as fr
from graphc.frontend import functional_shape as fs
from graphc.frontend.creation import _checked, _options, full
from graphc.frontend.device import check_device
from graphc.frontend.functional_shape import sizes_of
from graphc.frontend.given import whole
from graphc.frontend.host import flagged
from graphc.frontend.limits import finfo, iinfo
from graphc.frontend.mode import mode, refuse_values, using
from graphc.frontend.ops import ops
from graphc.frontend.promote import as_dtype, convert, tensor_operand
from graphc.frontend.random import Generator, draw
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType, float32, float64, int64

__all__ = [
    "bernoulli", "multinomial", "normal", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like",
    "randperm",
]  # fmt: skip


def _random(
    name: str, size: tuple[Any, ...], dtype: DType | None, device: Any, generator: Generator | None, requires_grad: bool
) -> Tensor:
    wanted = _options(name, dtype, device)
    if not wanted.is_floating_point:
        raise DTypeError(f"{name}: not implemented for {wanted}; use randint() for integers")
    shape = _checked(name, sizes_of(name, size))
    state, offset = draw(generator)
    made = getattr(ops, name)(state, shape=shape, dtype=float64 if wanted is float64 else float32, offset=offset)
    if wanted.is_low_precision and name == "rand":  # as many bits as the dtype has: 1 stays out of reach
        steps = 1.0 / (finfo(wanted).eps / 2)
        made = ops.mul(ops.trunc(ops.mul(made, steps)), 1.0 / steps)
    return flagged(convert(made, wanted), requires_grad)


def rand(
    *size: Any,
    generator: Generator | None = None,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform numbers in [0, 1)."""
    return _random("rand", size, dtype, device, generator, requires_grad)


def randn(
    *size: Any,
    generator: Generator | None = None,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normal numbers of mean 0 and variance 1."""
    return _random("randn", size, dtype, device, generator, requires_grad)


def rand_like(input: Tensor, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """rand() of the shape and dtype of `input`."""
    return rand(input.ttype.shape, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


def randn_like(input: Tensor, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """randn() of the shape and dtype of `input`."""
    return randn(input.ttype.shape, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


def randint(
    *args: Any,
    generator: Generator | None = None,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
    **named: Any,
) -> Tensor:
    """randint(high, size) or randint(low, high, size): integers in [low, high), int64 unless a dtype is given.

    Raises ArgumentError.
    """
    check_device("randint", device)
    values = (
        dict(zip(("high", "size") if len(args) + len(named) == 2 else ("low", "high", "size"), args, strict=False))
        | named
    )
    if values.keys() - {"low", "high", "size"} or not {"high", "size"} <= values.keys():
        raise ArgumentError("randint: takes (high, size) or (low, high, size)")
    low, high = whole("randint", "low", values.get("low", 0)), whole("randint", "high", values["high"])
    if low >= high:
        raise ArgumentError(f"randint: from < to is needed, but got from={low} >= to={high}")
    wanted = int64 if dtype is None else as_dtype("randint", dtype)
    if wanted.is_integer:
        limits = iinfo(wanted)
        if low < limits.min or high - 1 > limits.max:
            raise ArgumentError(f"randint: [{low}, {high}) does not fit in {wanted.name}, which holds {limits!r}")
    state, offset = draw(generator)
    shape = _checked("randint", sizes_of("randint", (values["size"],)))
    made = ops.randint(state, shape=shape, low=low, high=high, offset=offset)
    return flagged(convert(made, wanted), requires_grad)


def randint_like(input: Tensor, *limits: int, dtype: DType | None = None) -> Tensor:
    """randint() of the shape and dtype of `input`."""
    return randint(*limits, input.ttype.shape, dtype=dtype or input.dtype)


def normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: DType | None = None,
    device: Any = None,
) -> Tensor:
    """mean + std * randn(): of `size` for two numbers, else of the shape of the tensors."""
    from graphc.frontend.functional_shape import broadcast_shapes

    if size is None:
        shapes = [v.ttype.shape for v in (mean, std) if isinstance(v, Tensor)]
        if not shapes:
            raise ArgumentError("normal: give size= when mean and std are numbers")
        size = broadcast_shapes(*shapes)
    if isinstance(std, (int, float)) and not std >= 0:
        raise ArgumentError(f"normal: expects std >= 0, but found std {std}")
    made = randn(size, generator=generator, dtype=dtype, device=device)
    return fm.add(fm.mul(made, std), mean)


def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability each element says (or `p`), else 0, in the dtype of `input`.

    Raises DTypeError for integers without p, ArgumentError for what is no probability.
    """
    x = tensor_operand("bernoulli", input)
    if p is None and not x.dtype.is_floating_point:
        raise DTypeError(f"bernoulli: takes probabilities of a floating-point dtype, got {x._l.type}")
    dtype = x.dtype if x.dtype.is_floating_point else float32
    chance = probabilities("bernoulli", x.detach() if p is None else p, x, dtype)
    state, offset = draw(generator)
    return convert(ops.bernoulli(chance, state, offset=offset), x.dtype)


def probabilities(name: str, p: Any, like: Tensor, dtype: DType) -> Tensor:
    """A number as a tensor of the shape of `like`, or a tensor, in `dtype`. Raises ArgumentError outside [0, 1]."""
    if not isinstance(p, Tensor):
        number = float(p)
        if not 0.0 <= number <= 1.0:
            raise ArgumentError(f"{name}: expects p to be in [0, 1], but got p={number}")
        return full(like.ttype.shape, number, dtype=dtype)
    chance = convert(p, dtype)
    values = chance._a
    inside = (values >= 0.0) & (values <= 1.0)  # NaN is not
    if not inside.all():
        refuse_values(p)
        raise ArgumentError(
            f"{name}: the probabilities {p._l.type} must be in [0, 1], but one is {values[~inside].flat[0]}"
        )
    recorder = mode.get().recorder
    if recorder is not None and values.size:
        recorder.on_range(chance, 0.0, float(np.nextafter(dtype.np.type(1), dtype.np.type(2))))
    return chance


def randperm(n: int, *, generator: Generator | None = None, dtype: DType | None = None, device: Any = None) -> Tensor:
    """The numbers 0 to n-1 in random order, as int64 unless a dtype is given."""
    check_device("randperm", device)
    count = as_index(n)
    if count < 0:
        raise ArgumentError(f"randperm: n must be non-negative, got {count}")
    state, offset = draw(generator)
    keys = ops.randint(state, shape=(count,), low=0, high=2**63 - 1, offset=offset)
    order = ops.argsort(keys, dim=0, descending=False)
    return convert(order, int64 if dtype is None else as_dtype("randperm", dtype))


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Indices drawn with the (unnormalised) probabilities of each row, as int64. Raises ShapeError, ArgumentError.

    Without replacement: the largest of u ** (1 / p), Efraimidis and Spirakis, "Weighted random sampling with a
    reservoir", 2006.
    """
    x = tensor_operand("multinomial", input)
    if x._l.ndim not in (1, 2) or not x.dtype.is_floating_point:
        raise ShapeError(f"multinomial: takes probabilities of 1 or 2 dimensions, got {x._l.type}")
    count = as_index(num_samples)
    if count <= 0 or (not replacement and count > x._l.shape[-1]):
        raise ArgumentError(
            f"multinomial: cannot draw {count} of {x._l.shape[-1]} categories "
            f"{'with' if replacement else 'without'} replacement"
        )
    if not (np.isfinite(x._a).all() and (x._a >= 0).all() and (x._a.sum(-1) > 0).all()):
        refuse_values(x)
        raise ArgumentError(
            f"multinomial: the probabilities {x._l.type} must be finite, not negative, and not all 0 in a row"
        )
    recorder = mode.get().recorder
    if recorder is not None:
        with using(grad=False):
            recorder.on_bool(_drawable(x), True)
    chance = fx.clamp_min(convert(x.detach(), float64), 0.0)
    draws = count if replacement else 1
    keys = fm.div(fm.neg(fm.log(rand(draws, *x.ttype.shape, dtype=float64, generator=generator))), chance)
    order = ops.argsort(keys, dim=keys._l.ndim - 1, descending=False)
    if replacement:
        return fs.clone(fs.movedim(fs.select(order, -1, 0), 0, -1))
    return fs.clone(fs.narrow(fs.select(order, 0, 0), -1, 0, count))


def _drawable(x: Tensor) -> Tensor:
    """Whether the values are probabilities to draw with: finite, not negative, one above 0 in each row."""
    fit = fm.logical_and(fm.isfinite(x), fm.ge(x, 0))
    return fm.logical_and(fr.all(fit), fr.all(fr.any(fm.gt(x, 0), -1)))
