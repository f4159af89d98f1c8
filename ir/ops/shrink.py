"""Activations with a dead or bent part: compositions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphc.errors import ArgumentError
from graphc.ir.infer import require_arity, require_dtype
from graphc.ir.op import Array, Op, Sample
from graphc.ir.ops.activation import expm1
from graphc.ir.ops.create import scalar_like
from graphc.ir.ops.elementwise import FLOATS, away, composition, quiet, unary_samples, wide
from graphc.ir.ops.pointwise import abs_, add, div, exp, gt, le, mul, sub, tanh, where
from graphc.ir.types import TensorType

Number = float | int


def _typed(name: str, **usual: Number) -> Callable[..., TensorType]:
    """The type rule of an activation with the settings `usual`."""

    def infer(*types: TensorType, **settings: Number) -> TensorType:
        require_arity(name, types, 1)
        require_dtype(name, types[0], FLOATS)
        if settings.get("alpha") == 0:
            raise ArgumentError(f"{name}: alpha must not be 0")
        if not set(settings) <= set(usual):
            raise ArgumentError(f"{name}: the settings are {', '.join(usual)}, got {', '.join(settings)}")
        return types[0]

    return infer


def _samples(*settings: dict[str, Number]) -> Callable[[np.random.Generator], Iterator[Sample]]:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for attrs in ({}, *settings):
            for sample in unary_samples(lambda *s: away(0.5, 8, *s))(rng):
                yield Sample(sample.inputs, attrs, grad=sample.grad, dtypes=sample.dtypes)

    return samples


def _celu(x: Any, *, alpha: Number = 1.0) -> Any:
    return where(gt(x, 0), x, mul(expm1(div(x, alpha)), alpha))


def _celu_vjp(g: Any, out: Any, x: Any, *, needs: Any, alpha: Number = 1.0) -> tuple[Any, ...]:
    return (where(gt(x, 0), g, mul(g, exp(div(x, alpha)))),)


def _celu_float64(x: Array, *, alpha: Number = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(x / alpha))


celu: Op = composition(
    "celu", _celu, wide(_celu_float64), _samples({"alpha": 0.5}), infer=_typed("celu", alpha=1.0), vjp=_celu_vjp,
    saves=("0",), doc="x > 0 ? x : alpha * (exp(x / alpha) - 1).",
)  # fmt: skip


def _hardshrink(x: Any, *, lambd: Number = 0.5) -> Any:
    return where(le(abs_(x), lambd), scalar_like(x, 0), x)


def _hardshrink_vjp(g: Any, out: Any, x: Any, *, needs: Any, lambd: Number = 0.5) -> tuple[Any, ...]:
    return (where(le(abs_(x), lambd), scalar_like(g, 0), g),)


def _hardshrink_reference(x: Array, *, lambd: Number = 0.5) -> Array:
    return np.where(np.abs(x) <= x.dtype.type(lambd), x.dtype.type(0), x)


hardshrink: Op = composition(
    "hardshrink", _hardshrink, quiet(_hardshrink_reference), _samples({"lambd": 1.0}), saves=("0",),
    infer=_typed("hardshrink", lambd=0.5), vjp=_hardshrink_vjp, doc="|x| <= lambd ? 0 : x; NaN stays.",
)  # fmt: skip


def _softshrink(x: Any, *, lambd: Number = 0.5) -> Any:
    moved = where(gt(x, 0), sub(x, lambd), add(x, lambd))
    return where(le(abs_(x), lambd), scalar_like(x, 0), moved)


def _softshrink_reference(x: Array, *, lambd: Number = 0.5) -> Array:
    limit = x.dtype.type(lambd)
    out: Array = np.where(np.abs(x) <= limit, x.dtype.type(0), np.where(x > 0, x - limit, x + limit))
    return out


softshrink: Op = composition(
    "softshrink", _softshrink, quiet(_softshrink_reference), _samples({"lambd": 1.0}), saves=("0",),
    infer=_typed("softshrink", lambd=0.5), vjp=_hardshrink_vjp, doc="x moved towards 0 by lambd, at most to 0.",
)  # fmt: skip


def _threshold(x: Any, *, threshold: Number = 0.0, value: Number = 0.0) -> Any:
    return where(le(x, threshold), scalar_like(x, value), x)


def _threshold_vjp(
    g: Any, out: Any, x: Any, *, needs: Any, threshold: Number = 0.0, value: Number = 0.0
) -> tuple[Any, ...]:
    return (where(le(x, threshold), scalar_like(g, 0), g),)


def _threshold_reference(x: Array, *, threshold: Number = 0.0, value: Number = 0.0) -> Array:
    return np.where(x <= x.dtype.type(threshold), x.dtype.type(value), x)


threshold: Op = composition(
    "threshold", _threshold, quiet(_threshold_reference), _samples({"threshold": 0.5, "value": -3.0}), saves=("0",),
    infer=_typed("threshold", threshold=0.0, value=0.0), vjp=_threshold_vjp, doc="x <= threshold ? value : x.",
)  # fmt: skip

softsign: Op = composition(
    "softsign", lambda x: div(x, add(abs_(x), 1.0)), quiet(lambda x: x / (np.abs(x) + x.dtype.type(1))),
    _samples(), saves=("0",), doc="x / (1 + |x|).",
    vjp=lambda g, out, x, *, needs: (div(g, mul(add(abs_(x), 1.0), add(abs_(x), 1.0))),),
)  # fmt: skip

tanhshrink: Op = composition(
    "tanhshrink", lambda x: sub(x, tanh(x)), wide(lambda x: x - np.tanh(x)), _samples(), saves=("0",),
    vjp=lambda g, out, x, *, needs: (mul(g, mul(tanh(x), tanh(x))),), doc="x - tanh(x).",
)  # fmt: skip
