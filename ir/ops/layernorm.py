"""Layer norm, RMS norm and group norm: compositions. Weight and bias are further operands when given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError
from graphc.ir.op import Array, Op, Operand, Sample, define
from graphc.ir.ops import movement
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
from graphc.ir.ops.statistics import mean
from graphc.ir.types import Shape, TensorType

Needs = Sequence[bool]


def _trailing(name: str, x: TensorType, dims: int) -> Shape:
    if not 1 <= dims <= x.ndim:
        raise ArgumentError(f"{name}: cannot normalise the last {dims} dimensions of {x}")
    return x.shape[x.ndim - dims :]


def _last(ndim: int, dims: int) -> Dims:
    return tuple(range(ndim - dims, ndim))


def _ln_infer(x: TensorType, *affine: TensorType, normalized_dims: int, eps: float) -> TensorType:
    check_count("layer_norm", 1 + len(affine), (1, 2, 3))
    check_parameters("layer_norm", x, _trailing("layer_norm", x, normalized_dims), affine)
    return x


def _normalized(x: Any, dims: Dims, eps: float) -> tuple[Any, Any]:
    """(x - mean) / std along `dims`, and 1 / std."""
    centred = pw.sub(x, mean(x, dim=dims, keepdim=True))
    inverse = inverse_std(mean(pw.mul(centred, centred), dim=dims, keepdim=True), eps)
    return pw.mul(centred, inverse), inverse


def _ln_decompose(x: Any, *affine: Any, normalized_dims: int, eps: float) -> Any:
    y, _ = _normalized(x, _last(x.ttype.ndim, normalized_dims), eps)
    y = pw.mul(y, affine[0]) if affine else y
    return pw.add(y, affine[1]) if len(affine) == 2 else y


def _ln_array(x: Array, dims: int, eps: float) -> tuple[Array, Array]:
    axes, wide = _last(x.ndim, dims), x.astype(np.float64)
    with np.errstate(all="ignore"):
        size = np.float64(math.prod(x.shape[d] for d in axes))
        centred = wide - np.sum(wide, axis=axes, keepdims=True) / size
        inverse = 1.0 / np.sqrt(np.sum(centred**2, axis=axes, keepdims=True) / size + eps)
        return centred * inverse, inverse


def _ln_reference(x: Array, *affine: Array, normalized_dims: int, eps: float) -> Array:
    y = _ln_array(x, normalized_dims, eps)[0]
    y = y * affine[0] if affine else y
    return np.asarray(y + affine[1] if len(affine) == 2 else y, x.dtype)


def _ln_vjp(
    g: Any, out: Operand, x: Any, *affine: Any, needs: Needs, normalized_dims: int, eps: float
) -> tuple[Any, ...]:
    weight = affine[0] if affine else ones(x.ttype.shape[x.ttype.ndim - normalized_dims :], x)
    grads = layer_norm_grad(g, x, weight, normalized_dims=normalized_dims, eps=eps)
    return tuple(grads[: 1 + len(affine)])


_SEQUENCES: tuple[tuple[tuple[int, ...], int], ...] = (
    ((5,), 1),
    ((3, 4), 1),
    ((2, 3, 4), 2),
    ((2, 3, 40), 1),
    ((0, 3), 1),
)


def _ln_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dims in _SEQUENCES:
        inner = shape[len(shape) - dims :]
        x, w, b = (np.asarray(rng.standard_normal(s)) for s in (shape, inner, inner))
        for affine in ((w, b), (w,), ()):
            yield Sample((x, *affine), {"normalized_dims": dims, "eps": 1e-5}, f"{shape} last {dims}, {len(affine)}")


layer_norm = define(
    Op(
        "layer_norm",
        _ln_infer,
        _ln_reference,
        _ln_samples,
        decompose=_ln_decompose,
        vjp=_ln_vjp,
        saves=("0", "1"),
        dtypes=FLOATS,
        arity=None,
        doc="x normalised along its last dimensions, times weight and plus bias when given.",
    )
)


def _ln_grad_infer(
    g: TensorType, x: TensorType, weight: TensorType, *, normalized_dims: int, eps: float
) -> tuple[TensorType, ...]:
    check_parameters("layer_norm_grad", x, _trailing("layer_norm_grad", x, normalized_dims), (weight,), 2)
    check_parameters("layer_norm_grad", x, x.shape, (g,), 0)
    return x, weight, weight


def _ln_grad_decompose(g: Any, x: Any, weight: Any, *, normalized_dims: int, eps: float) -> tuple[Any, ...]:
    dims = _last(x.ttype.ndim, normalized_dims)
    lead = tuple(range(x.ttype.ndim - normalized_dims))
    xhat, inverse = _normalized(x, dims, eps)
    scaled = pw.mul(g, weight)
    along = pw.mul(xhat, mean(pw.mul(scaled, xhat), dim=dims, keepdim=True))
    gx = pw.mul(pw.sub(pw.sub(scaled, mean(scaled, dim=dims, keepdim=True)), along), inverse)
    return gx, sum_(pw.mul(g, xhat), dim=lead, keepdim=False), sum_(g, dim=lead, keepdim=False)


def _ln_grad_reference(
    g: Array, x: Array, weight: Array, *, normalized_dims: int, eps: float
) -> tuple[Array, Array, Array]:
    axes, lead = _last(x.ndim, normalized_dims), tuple(range(x.ndim - normalized_dims))
    xhat, inverse = _ln_array(x, normalized_dims, eps)
    wide = g.astype(np.float64)
    scaled, size = wide * weight, np.float64(max(math.prod(x.shape[d] for d in axes), 1))
    along = xhat * (np.sum(scaled * xhat, axis=axes, keepdims=True) / size)
    gx = (scaled - np.sum(scaled, axis=axes, keepdims=True) / size - along) * inverse
    parts = gx, np.sum(wide * xhat, axis=lead), np.sum(wide, axis=lead)
    return parts[0].astype(x.dtype), np.asarray(parts[1], x.dtype), np.asarray(parts[2], x.dtype)


def _ln_grad_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dims in _SEQUENCES:
        arrays = tuple(np.asarray(rng.standard_normal(s)) for s in (shape, shape, shape[len(shape) - dims :]))
        yield Sample(arrays, {"normalized_dims": dims, "eps": 1e-5}, f"{shape} last {dims}")


layer_norm_grad = define(
    Op(
        "layer_norm_grad",
        _ln_grad_infer,
        _ln_grad_reference,
        _ln_grad_samples,
        decompose=_ln_grad_decompose,
        dtypes=FLOATS,
        arity=3,
        outputs=3,
        doc="Gradients of layer_norm for x, weight and bias, from (g, x, weight).",
    )
)


def _rms_infer(x: TensorType, *weight: TensorType, normalized_dims: int, eps: float) -> TensorType:
    check_count("rms_norm", 1 + len(weight), (1, 2))
    check_parameters("rms_norm", x, _trailing("rms_norm", x, normalized_dims), weight)
    return x


def _rms_decompose(x: Any, *weight: Any, normalized_dims: int, eps: float) -> Any:
    dims = _last(x.ttype.ndim, normalized_dims)
    y = pw.mul(x, inverse_std(mean(pw.mul(x, x), dim=dims, keepdim=True), eps))
    return pw.mul(y, weight[0]) if weight else y


def _rms_reference(x: Array, *weight: Array, normalized_dims: int, eps: float) -> Array:
    axes, wide = _last(x.ndim, normalized_dims), x.astype(np.float64)
    size = np.float64(max(math.prod(x.shape[d] for d in axes), 1))
    y = wide / np.sqrt(np.sum(wide**2, axis=axes, keepdims=True) / size + eps)
    return np.asarray(y * weight[0] if weight else y, x.dtype)


def _rms_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for sample in _ln_samples(rng):
        if len(sample.inputs) < 3:
            yield sample


rms_norm = define(
    Op(
        "rms_norm",
        _rms_infer,
        _rms_reference,
        _rms_samples,
        decompose=_rms_decompose,
        dtypes=FLOATS,
        arity=None,
        doc="x divided by the root of its mean square along its last dimensions, times weight when given.",
    )
)


def _group_infer(x: TensorType, *affine: TensorType, groups: int, eps: float) -> TensorType:
    check_count("group_norm", 1 + len(affine), (1, 3))
    channels = channels_of("group_norm", x)
    check_parameters("group_norm", x, channels, affine)
    if groups < 1 or not isinstance(channels[0], int) or channels[0] % groups:
        raise ArgumentError(f"group_norm: the {channels[0]} channels of {x} cannot be cut into {groups} groups")
    return x


def _group_decompose(x: Any, *affine: Any, groups: int, eps: float) -> Any:
    n, c, *space = x.ttype.shape
    cut = movement.reshape(x, shape=(n, groups, c // groups, *space))
    y, _ = _normalized(cut, tuple(range(2, cut.ttype.ndim)), eps)
    y = movement.reshape(y, shape=x.ttype.shape)
    if not affine:
        return y
    return pw.add(pw.mul(y, per_channel(affine[0], x.ttype.ndim)), per_channel(affine[1], x.ttype.ndim))


def _group_reference(x: Array, *affine: Array, groups: int, eps: float) -> Array:
    cut = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    y = _ln_array(cut, cut.ndim - 2, eps)[0].reshape(x.shape)
    if affine:
        y = y * per_channel_array(affine[0], x.ndim) + per_channel_array(affine[1], x.ndim)
    return y.astype(x.dtype)


def _group_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, groups in (((3, 4), 2), ((2, 4, 5), 4), ((2, 6, 2, 3), 2)):
        x, w, b = (np.asarray(rng.standard_normal(s)) for s in (shape, shape[1], shape[1]))
        yield Sample((x, w, b), {"groups": groups, "eps": 1e-2}, f"{shape} in {groups}")
        yield Sample((x,), {"groups": groups, "eps": 1e-2}, f"{shape} in {groups} plain")


group_norm = define(
    Op(
        "group_norm",
        _group_infer,
        _group_reference,
        _group_samples,
        decompose=_group_decompose,
        dtypes=FLOATS,
        arity=None,
        doc="x [N, C, …] normalised over each of `groups` groups of channels, times weight plus bias when given.",
    )
)
