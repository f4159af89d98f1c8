"""Losses of values: compositions. `reduction` is "none", "sum" or "mean"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ShapeError
from graphc.ir.infer import require_dtype, same_dtype
from graphc.ir.op import Array, Op, Operand, Sample, define
from graphc.ir.ops import pointwise as pw
from graphc.ir.ops.activation import log1p
from graphc.ir.ops.elementwise import FLOATS
from graphc.ir.ops.reduce import fill, sum_
from graphc.ir.ops.statistics import mean, number
from graphc.ir.types import TensorType

Needs = Sequence[bool]
REDUCTIONS = ("none", "sum", "mean")


def all_dims(x: Any) -> tuple[int, ...]:
    """Every axis of `x`."""
    return tuple(range(x.ttype.ndim))


def check_reduction(name: str, reduction: str) -> None:
    """Raises ArgumentError for an unknown reduction."""
    if reduction not in REDUCTIONS:
        raise ArgumentError(f'{name}: reduction must be "none", "sum" or "mean", got {reduction!r}')


def _reduced(x: Any, reduction: str) -> Any:
    if reduction == "none":
        return x
    return (sum_ if reduction == "sum" else mean)(x, dim=all_dims(x), keepdim=False)


def _reduced_array(x: Array, reduction: str) -> Array:
    with np.errstate(all="ignore"):
        total = x if reduction == "none" else np.sum(x)
        return np.asarray(total / np.float64(x.size) if reduction == "mean" else total)


def _pairs(low: float, high: float, attrs: Mapping[str, float]) -> Callable[[np.random.Generator], Iterator[Sample]]:
    """Samples of two operands with elements in [low, high), under every reduction."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for shape in ((), (5,), (3, 4), (0, 2), (2, 40)):
            x, y = (np.asarray(rng.uniform(low, high, shape)) for _ in range(2))
            for reduction in REDUCTIONS:
                name = f"{shape} {reduction}"
                yield Sample((x, y), {"reduction": reduction, **attrs}, name, grad=bool(x.size))

    return samples


def _value_loss(
    name: str,
    terms: Callable[..., Any],
    terms_array: Callable[..., Array],
    slopes: Callable[..., tuple[Any, Any]] | None,
    doc: str,
    low: float = -2.0,
    high: float = 2.0,
    **defaults: float,
) -> Op:
    """A loss that compares elements; `slopes` are its derivatives in both operands."""

    def infer(x: TensorType, y: TensorType, *, reduction: str, **attrs: float) -> TensorType:
        check_reduction(name, reduction)
        require_dtype(name, x, FLOATS)
        same_dtype(name, x, y)
        if x.shape != y.shape:
            raise ShapeError(f"{name}: operand 0 is {x}, operand 1 is {y}; the shapes must be equal, expand one first")
        return x if reduction == "none" else x.with_shape(())

    def reference(x: Array, y: Array, *, reduction: str, **attrs: float) -> Array:
        with np.errstate(all="ignore"):
            wide = terms_array(x.astype(np.float64), y.astype(np.float64), **attrs)
        return np.asarray(_reduced_array(wide, reduction), x.dtype)

    def vjp(g: Any, out: Operand, x: Any, y: Any, *, needs: Needs, reduction: str, **attrs: float) -> tuple[Any, Any]:
        assert slopes is not None
        g = pw.div(g, number(x.ttype.numel, x.ttype.dtype)) if reduction == "mean" else g
        found = slopes(x, y, **attrs)
        return pw.mul(found[0], g) if needs[0] else None, pw.mul(found[1], g) if needs[1] else None

    return define(
        Op(
            name,
            infer,
            reference,
            _pairs(low, high, defaults),
            decompose=lambda x, y, *, reduction, **attrs: _reduced(terms(x, y, **attrs), reduction),
            vjp=None if slopes is None else vjp,
            saves=("0", "1") if slopes is not None else (),
            dtypes=FLOATS,
            arity=2,
            doc=doc,
        )
    )


def _mse(x: Any, y: Any) -> Any:
    d = pw.sub(x, y)
    return pw.mul(d, d)


def _mse_slopes(x: Any, y: Any) -> tuple[Any, Any]:
    return pw.mul(pw.sub(x, y), 2.0), pw.mul(pw.sub(y, x), 2.0)


mse_loss = _value_loss("mse_loss", _mse, lambda x, y: (x - y) ** 2, _mse_slopes, "(x - y)^2.")


def _l1_slopes(x: Any, y: Any) -> tuple[Any, Any]:
    return pw.sign(pw.sub(x, y)), pw.sign(pw.sub(y, x))


l1_loss = _value_loss(
    "l1_loss", lambda x, y: pw.abs_(pw.sub(x, y)), lambda x, y: np.abs(x - y), _l1_slopes, "|x - y|; gradient 0 at 0."
)


def _smooth_l1(x: Any, y: Any, *, beta: float) -> Any:
    size = pw.abs_(pw.sub(x, y))
    if beta == 0:
        return size
    near = pw.div(pw.mul(pw.mul(size, size), 0.5), beta)
    return pw.where(pw.lt(size, beta), near, pw.sub(size, 0.5 * beta))


def _smooth_l1_array(x: Array, y: Array, *, beta: float) -> Array:
    size = np.asarray(np.abs(x - y))
    return np.where(size < beta, size * size * 0.5 / beta, size - 0.5 * beta)


def _smooth_l1_slopes(x: Any, y: Any, *, beta: float) -> tuple[Any, Any]:
    d = pw.sub(x, y)
    slope = pw.sign(d) if beta == 0 else pw.maximum(pw.minimum(pw.div(d, beta), 1.0), -1.0)
    return slope, pw.neg(slope)


smooth_l1_loss = _value_loss(
    "smooth_l1_loss",
    _smooth_l1,
    _smooth_l1_array,
    _smooth_l1_slopes,
    "(x - y)^2 / (2 beta) where |x - y| < beta, else |x - y| - beta / 2.",
    beta=0.75,
)


def _huber_slopes(x: Any, y: Any, *, delta: float) -> tuple[Any, Any]:
    slope = pw.maximum(pw.minimum(pw.sub(x, y), delta), -delta)
    return slope, pw.neg(slope)


huber_loss = _value_loss(
    "huber_loss",
    lambda x, y, *, delta: pw.mul(_smooth_l1(x, y, beta=delta), delta),
    lambda x, y, *, delta: _smooth_l1_array(x, y, beta=delta) * delta,
    _huber_slopes,
    "(x - y)^2 / 2 where |x - y| < delta, else delta * (|x - y| - delta / 2).",
    delta=0.75,
)


def _logits(x: Any, y: Any) -> Any:
    return pw.add(pw.sub(pw.maximum(x, 0), pw.mul(x, y)), log1p(pw.exp(pw.neg(pw.abs_(x)))))


def _logits_array(x: Array, y: Array) -> Array:
    return np.asarray(np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x))))


binary_cross_entropy_with_logits = _value_loss(
    "binary_cross_entropy_with_logits",
    _logits,
    _logits_array,
    lambda x, y: (pw.sub(pw.sigmoid(x), y), pw.neg(x)),
    "-(y log sigmoid(x) + (1 - y) log(1 - sigmoid(x))), without overflow.",
)


def _log_at_least(x: Any) -> Any:
    return pw.maximum(pw.log(x), -100.0)


def _binary(x: Any, y: Any) -> Any:
    yes, no = pw.mul(y, _log_at_least(x)), pw.mul(pw.sub(1.0, y), _log_at_least(pw.sub(1.0, x)))
    return pw.neg(pw.add(yes, no))


def _binary_array(x: Array, y: Array) -> Array:
    return -(y * np.maximum(np.log(x), -100.0) + (1.0 - y) * np.maximum(np.log(1.0 - x), -100.0))


def _binary_slopes(x: Any, y: Any) -> tuple[Any, Any]:
    spread = pw.maximum(pw.mul(x, pw.sub(1.0, x)), 1e-12)
    return pw.div(pw.sub(x, y), spread), pw.sub(_log_at_least(pw.sub(1.0, x)), _log_at_least(x))


binary_cross_entropy = _value_loss(
    "binary_cross_entropy",
    _binary,
    _binary_array,
    _binary_slopes,
    "-(y log x + (1 - y) log(1 - x)), each logarithm at least -100.",
    low=0.1,
    high=0.9,
)


def _kl(x: Any, y: Any) -> Any:
    entropy = fill(pw.mul(y, pw.log(y)), pw.le(y, 0), 0)
    return pw.sub(entropy, pw.mul(y, x))


kl_div = _value_loss(
    "kl_div",
    _kl,
    lambda x, y: np.where(y <= 0, 0.0, y * np.log(y)) - y * x,
    None,
    "y * (log y - x) for a logarithm of probabilities x and probabilities y.",
    low=0.1,
    high=0.9,
)
