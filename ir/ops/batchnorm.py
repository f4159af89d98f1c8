"""Batch norm: compositions. Statistics over channel and space are two reductions, space first (docs/numerics.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphc.ir.op import Array, Op, Sample, define
from graphc.ir.ops import create, movement
from graphc.ir.ops import pointwise as pw
from graphc.ir.ops.elementwise import FLOATS
from graphc.ir.ops.normal import (
    channels_of,
    check_count,
    check_parameters,
    inverse_std,
    ones,
    per_channel,
    per_channel_array,
)
from graphc.ir.ops.reduce import Dims, sum_
from graphc.ir.ops.statistics import count_along, mean, number
from graphc.ir.types import TensorType

Needs = Sequence[bool]


def _others(ndim: int) -> Dims:
    """Every axis but the channels."""
    return (0, *range(2, ndim))


def _apply_channels(centred: Any, variance: Any, affine: Sequence[Any], eps: float) -> Any:
    """(x - mean) / std * weight + bias with one multiplication an element; everything shaped to meet `centred`."""
    scale = inverse_std(variance, eps)
    if not affine:
        return pw.mul(centred, scale)
    return pw.add(pw.mul(centred, pw.mul(scale, affine[0])), affine[1])


def _train_infer(x: TensorType, *affine: TensorType, eps: float) -> tuple[TensorType, ...]:
    check_count("batch_norm", 1 + len(affine), (1, 3))
    channels = channels_of("batch_norm", x)
    check_parameters("batch_norm", x, channels, affine)
    return x, x.with_shape(channels), x.with_shape(channels)


def _train_decompose(x: Any, *affine: Any, eps: float) -> tuple[Any, Any, Any]:
    ndim, channels = x.ttype.ndim, x.ttype.shape[1:2]
    centre = mean(x, dim=_others(ndim), keepdim=True)
    centred = pw.sub(x, centre)
    variance = mean(pw.mul(centred, centred), dim=_others(ndim), keepdim=True)
    y = _apply_channels(centred, variance, [per_channel(p, ndim) for p in affine], eps)
    return y, movement.reshape(centre, shape=channels), movement.reshape(variance, shape=channels)


def _train_reference(x: Array, *affine: Array, eps: float) -> tuple[Array, Array, Array]:
    with np.errstate(all="ignore"):
        wide, others = x.astype(np.float64), _others(x.ndim)
        size = math.prod(x.shape[d] for d in others)
        centre = np.asarray(np.sum(wide, axis=others) / np.float64(size))
        variance = np.asarray(np.sum((wide - per_channel_array(centre, x.ndim)) ** 2, axis=others) / np.float64(size))
        y = eval_array(wide, centre, variance, *affine, eps=eps)
    return y.astype(x.dtype), centre.astype(x.dtype), variance.astype(x.dtype)


def _train_vjp(g: Any, out: Any, x: Any, *affine: Any, needs: Needs, eps: float) -> tuple[Any, ...]:
    gy, g_mean, g_variance = g
    centre, variance = out[1], out[2]
    weight = affine[0] if affine else ones(centre.ttype.shape, x)
    gy = create.zeros_like(x) if gy is None else gy
    gx, gw, gb = batch_norm_grad(gy, x, centre, variance, weight, eps=eps)
    for extra in _statistics_grads(g_mean, g_variance, x, centre):
        gx = pw.add(gx, extra)
    return (gx, gw, gb) if affine else (gx,)


def _statistics_grads(g_mean: Any, g_variance: Any, x: Any, centre: Any) -> Iterator[Any]:
    """What the gradients of the batch statistics themselves add to that of x."""
    ndim, shape = x.ttype.ndim, x.ttype.shape
    count = number(count_along(shape, _others(ndim)), x.ttype.dtype)
    if g_mean is not None:
        yield movement.expand(per_channel(pw.div(g_mean, count), ndim), shape=shape)
    if g_variance is not None:
        slope = pw.div(pw.mul(g_variance, 2.0), count)
        yield pw.mul(per_channel(slope, ndim), pw.sub(x, per_channel(centre, ndim)))


_IMAGES: tuple[tuple[int, ...], ...] = ((4, 3), (3, 2, 5), (2, 3, 2, 4))


def _train_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape in _IMAGES:
        x, w, b = rng.standard_normal(shape) * 2 + 1, rng.uniform(0.5, 2, shape[1]), rng.standard_normal(shape[1])
        yield Sample((x, w, b), {"eps": 1e-5}, f"{shape}")
        yield Sample((x,), {"eps": 1e-3}, f"{shape} plain")


batch_norm_train = define(
    Op(
        "batch_norm_train",
        _train_infer,
        _train_reference,
        _train_samples,
        decompose=_train_decompose,
        vjp=_train_vjp,
        saves=("0", "1", "out"),
        dtypes=FLOATS,
        arity=None,
        outputs=3,
        doc="x [N, C, …] normalised by its own statistics, times weight plus bias; batch mean; biased variance.",
    )
)


def _bn_grad_infer(
    g: TensorType, x: TensorType, centre: TensorType, variance: TensorType, weight: TensorType, *, eps: float
) -> tuple[TensorType, ...]:
    channels = channels_of("batch_norm_grad", x)
    check_parameters("batch_norm_grad", x, channels, (centre, variance, weight), 2)
    check_parameters("batch_norm_grad", x, x.shape, (g,), 0)
    return x, weight, weight


def _bn_grad_decompose(g: Any, x: Any, centre: Any, variance: Any, weight: Any, *, eps: float) -> tuple[Any, ...]:
    ndim, others = x.ttype.ndim, _others(x.ttype.ndim)
    centred = pw.sub(x, per_channel(centre, ndim))
    inverse = inverse_std(per_channel(variance, ndim), eps)
    bias_grad = sum_(g, dim=others, keepdim=True)
    weight_grad = pw.mul(sum_(pw.mul(g, centred), dim=others, keepdim=True), inverse)
    # gx = weight/std * (g - mean(g) - xhat * mean(g * xhat)), with all that is a number a channel worked out first
    count = number(count_along(x.ttype.shape, others), x.ttype.dtype)
    slope = pw.div(pw.mul(weight_grad, inverse), count)
    inner = pw.sub(pw.sub(g, pw.div(bias_grad, count)), pw.mul(centred, slope))
    gx = pw.mul(inner, pw.mul(per_channel(weight, ndim), inverse))
    return (
        gx,
        movement.reshape(weight_grad, shape=weight.ttype.shape),
        movement.reshape(bias_grad, shape=weight.ttype.shape),
    )


def _bn_grad_reference(
    g: Array, x: Array, centre: Array, variance: Array, weight: Array, *, eps: float
) -> tuple[Array, ...]:
    with np.errstate(all="ignore"):
        others = _others(x.ndim)
        gw, xw = g.astype(np.float64), x.astype(np.float64)
        inverse = 1.0 / np.sqrt(per_channel_array(variance.astype(np.float64), x.ndim) + eps)
        xhat = (xw - per_channel_array(centre, x.ndim)) * inverse
        count = np.float64(math.prod(x.shape[d] for d in others))
        sums = np.sum(gw, axis=others), np.sum(gw * xhat, axis=others)
        inner = gw - per_channel_array(sums[0] / count, x.ndim) - xhat * per_channel_array(sums[1] / count, x.ndim)
        gx = per_channel_array(weight, x.ndim) * inverse * inner
    return gx.astype(x.dtype), sums[1].astype(x.dtype), sums[0].astype(x.dtype)


def _bn_grad_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape in _IMAGES:
        c = shape[1]
        tensors = rng.standard_normal(shape), rng.standard_normal(shape) + 1
        channels = rng.standard_normal(c), rng.uniform(0.5, 2, c), rng.uniform(0.5, 2, c)
        yield Sample((*tensors, *channels), {"eps": 1e-5}, f"{shape}")


batch_norm_grad = define(
    Op(
        "batch_norm_grad",
        _bn_grad_infer,
        _bn_grad_reference,
        _bn_grad_samples,
        decompose=_bn_grad_decompose,
        dtypes=FLOATS,
        arity=5,
        outputs=3,
        doc="Gradients of batch_norm_train for x, weight and bias, from (g, x, mean, var, weight).",
    )
)


def _eval_infer(x: TensorType, centre: TensorType, variance: TensorType, *affine: TensorType, eps: float) -> TensorType:
    check_count("batch_norm", 3 + len(affine), (3, 5))
    check_parameters("batch_norm", x, channels_of("batch_norm", x), (centre, variance, *affine))
    return x


def _eval_decompose(x: Any, centre: Any, variance: Any, *affine: Any, eps: float) -> Any:
    ndim = x.ttype.ndim
    centred = pw.sub(x, per_channel(centre, ndim))
    return _apply_channels(centred, per_channel(variance, ndim), [per_channel(p, ndim) for p in affine], eps)


def _eval_vjp(
    g: Any, out: Any, x: Any, centre: Any, variance: Any, *affine: Any, needs: Needs, eps: float
) -> tuple[Any, ...]:
    ndim, others = x.ttype.ndim, _others(x.ttype.ndim)
    scale = inverse_std(variance, eps)
    hat = pw.mul(pw.sub(x, per_channel(centre, ndim)), per_channel(scale, ndim))
    weighted = pw.mul(g, per_channel(affine[0], ndim)) if affine else g
    gx = pw.mul(weighted, per_channel(scale, ndim))
    found: list[Any] = [gx if needs[0] else None, None, None]
    if needs[1]:
        found[1] = pw.neg(sum_(gx, dim=others, keepdim=False))
    if needs[2]:  # d hat / d variance = -hat / (2 (variance + eps)) = -hat * scale^2 / 2
        found[2] = pw.mul(sum_(pw.mul(weighted, hat), dim=others, keepdim=False), pw.mul(pw.mul(scale, scale), -0.5))
    if affine:
        found.append(sum_(pw.mul(g, hat), dim=others, keepdim=False) if needs[3] else None)
        found.append(sum_(g, dim=others, keepdim=False) if needs[4] else None)
    return tuple(found)


def eval_array(x: Array, centre: Array, variance: Array, *affine: Array, eps: float) -> Array:
    """Batch norm with given statistics, in float64."""
    wide = [per_channel_array(v.astype(np.float64), x.ndim) for v in (centre, variance, *affine)]
    y = (x.astype(np.float64) - wide[0]) / np.sqrt(wide[1] + eps)
    return np.asarray(y * wide[2] + wide[3] if affine else y)


def _eval_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape in (*_IMAGES, (0, 2, 3)):
        c = shape[1]
        x = np.asarray(rng.standard_normal(shape))
        v = [np.asarray(rng.uniform(0.5, 2, c)) for _ in range(4)]
        yield Sample((x, *v), {"eps": 1e-5}, f"{shape}")
        yield Sample((x, *v[:2]), {"eps": 1e-5}, f"{shape} plain")


batch_norm_eval = define(
    Op(
        "batch_norm_eval",
        _eval_infer,
        lambda x, *rest, eps: eval_array(x, *rest, eps=eps).astype(x.dtype),
        _eval_samples,
        decompose=_eval_decompose,
        vjp=_eval_vjp,
        saves=("0", "1", "2", "3"),
        dtypes=FLOATS,
        arity=None,
        doc="x [N, C, …] normalised by given (mean, var), times weight plus bias when given.",
    )
)
