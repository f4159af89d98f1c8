"""Losses of classes: compositions. `reduction` is "none", "sum" or "mean"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ShapeError, UnsupportedError
from graphc.ir.infer import require_dtype, same_dtype
from graphc.ir.op import Array, Op, Operand, Sample, define
from graphc.ir.ops import create, movement
from graphc.ir.ops import pointwise as pw
from graphc.ir.ops.elementwise import FLOATS
from graphc.ir.ops.index import gather, index_select, wrapped_array
from graphc.ir.ops.loss import REDUCTIONS, all_dims, check_reduction
from graphc.ir.ops.reduce import fill, sum_
from graphc.ir.ops.statistics import log_softmax, log_softmax_array, softmax
from graphc.ir.types import Shape, TensorType, int64

Needs = Sequence[bool]


def class_dim(ndim: int) -> int:
    """The axis of the classes: 1, or 0 for a single sample."""
    return 0 if ndim == 1 else 1


def _check_classes(
    name: str, x: TensorType, target: TensorType, weight: Sequence[TensorType], reduction: str
) -> TensorType:
    check_reduction(name, reduction)
    require_dtype(name, x, FLOATS)
    require_dtype(name, target, (int64,), 1)
    if x.ndim == 0 or len(weight) > 1:
        raise ShapeError(f"{name}: operand 0 is {x}, but [classes] or [batch, classes, …] is needed")
    dim = class_dim(x.ndim)
    want = (*x.shape[:dim], *x.shape[dim + 1 :])
    if target.shape != want:
        raise ShapeError(f"{name}: the target is {target}, but operand 0, {x}, needs {TensorType(int64, want)}")
    if x.shape[dim] == 0:
        raise ShapeError(f"{name}: operand 0 is {x}, which has no classes")
    for w in weight:
        same_dtype(name, x, w)
        if w.shape != (x.shape[dim],):
            raise ShapeError(f"{name}: the weight is {w}, but {x} needs {x.with_shape((x.shape[dim],))}")
    return x.with_shape(want if reduction == "none" else ())


def _sample_weights(target: Any, weight: Sequence[Any], like: Any, ignore_index: int) -> tuple[Any, Any, Any]:
    """(is the sample kept, its class or 0, its weight or 0)."""
    kept = pw.ne(target, ignore_index)
    safe = fill(target, pw.bitwise_not(kept), 0)
    if not weight:
        return kept, safe, pw.cast(kept, dtype=like.ttype.dtype)
    return kept, safe, fill(index_select(weight[0], safe, dim=0), pw.bitwise_not(kept), 0)


def _with_class_axis(shape: Shape, size: Any) -> Shape:
    dim = class_dim(len(shape) + 1)
    return (*shape[:dim], size, *shape[dim:])


def _nll_terms(log_p: Any, kept: Any, safe: Any, weights: Any) -> Any:
    """-weight * log p of the target class, 0 where the sample is ignored."""
    dim = class_dim(log_p.ttype.ndim)
    place = movement.reshape(safe, shape=_with_class_axis(safe.ttype.shape, 1))
    picked = movement.reshape(gather(log_p, place, dim=dim), shape=safe.ttype.shape)
    return fill(pw.neg(pw.mul(picked, weights)), pw.bitwise_not(kept), 0)


def _weighted(terms: Any, weights: Any, reduction: str) -> Any:
    if reduction == "none":
        return terms
    total = sum_(terms, dim=all_dims(terms), keepdim=False)
    return total if reduction == "sum" else pw.div(total, sum_(weights, dim=all_dims(weights), keepdim=False))


def _nll_decompose(log_p: Any, target: Any, *weight: Any, reduction: str, ignore_index: int) -> Any:
    kept, safe, weights = _sample_weights(target, weight, log_p, ignore_index)
    return _weighted(_nll_terms(log_p, kept, safe, weights), weights, reduction)


def _class_array(
    log_p: Array, target: Array, weight: Sequence[Array], reduction: str, ignore_index: int, smoothing: float
) -> Array:
    dim = class_dim(log_p.ndim)
    kept = target != ignore_index
    safe = wrapped_array(np.where(kept, target, 0), log_p.shape[dim])
    classes = weight[0].astype(np.float64) if weight else np.ones(log_p.shape[dim])
    weights = np.where(kept, classes[safe], 0.0)
    picked = np.take_along_axis(log_p, np.expand_dims(safe, dim), dim).squeeze(dim)
    terms = np.where(kept, -picked * weights, 0.0)
    if smoothing:
        shaped = classes.reshape(-1, *(1,) * (log_p.ndim - dim - 1))
        smooth = np.where(kept, -np.sum(log_p * shaped, axis=dim), 0.0)
        terms = (1 - smoothing) * terms + smoothing / log_p.shape[dim] * smooth
    if reduction == "none":
        return terms
    with np.errstate(all="ignore"):
        return np.asarray(np.sum(terms) / (np.sum(weights) if reduction == "mean" else 1.0))


def _nll_reference(log_p: Array, target: Array, *weight: Array, reduction: str, ignore_index: int) -> Array:
    out = _class_array(log_p.astype(np.float64), target, weight, reduction, ignore_index, 0.0)
    return np.asarray(out, log_p.dtype)


def _class_samples(smoothings: Sequence[float]) -> Callable[[np.random.Generator], Iterator[Sample]]:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for shape in ((4, 3), (3,), (2, 3, 4), (2, 4, 2, 3), (40, 5)):
            dim = class_dim(len(shape))
            x, w = np.asarray(rng.standard_normal(shape)), rng.uniform(0.5, 2, shape[dim])
            target = np.asarray(rng.integers(0, shape[dim], (*shape[:dim], *shape[dim + 1 :])))
            ignoring = target if target.ndim == 0 else np.where(rng.random(target.shape) < 0.3, -100, target)
            for reduction in REDUCTIONS:
                for smoothing in smoothings:
                    attrs = {"reduction": reduction, "ignore_index": -100}
                    attrs |= {"label_smoothing": smoothing} if len(smoothings) > 1 else {}
                    yield Sample((x, target), attrs, f"{shape} {attrs}")
                    yield Sample((x, ignoring, w), attrs, f"{shape} {attrs} weighted")

    return samples


nll_loss = define(
    Op(
        "nll_loss",
        lambda x, target, *weight, reduction, ignore_index: _check_classes("nll_loss", x, target, weight, reduction),
        _nll_reference,
        _class_samples((0.0,)),
        decompose=_nll_decompose,
        dtypes=FLOATS,
        arity=None,
        doc="-log_p of the target class (times its weight); the mean divides by the weights of the samples kept.",
    )
)


def _cross_infer(
    x: TensorType, target: TensorType, *weight: TensorType, reduction: str, ignore_index: int, label_smoothing: float
) -> TensorType:
    if not 0.0 <= label_smoothing <= 1.0:
        raise ArgumentError(f"cross_entropy: label_smoothing must lie in [0, 1], got {label_smoothing}")
    return _check_classes("cross_entropy", x, target, weight, reduction)


def _per_class(values: Any, ndim: int) -> Any:
    """A value a class, shaped to meet the logits."""
    return movement.reshape(values, shape=(*values.ttype.shape, *(1,) * (ndim - class_dim(ndim) - 1)))


def _cross_decompose(
    x: Any, target: Any, *weight: Any, reduction: str, ignore_index: int, label_smoothing: float
) -> Any:
    dim = class_dim(x.ttype.ndim)
    log_p = log_softmax(x, dim=dim)
    kept, safe, weights = _sample_weights(target, weight, x, ignore_index)
    terms = _nll_terms(log_p, kept, safe, weights)
    if label_smoothing:
        weighted = pw.mul(log_p, _per_class(weight[0], x.ttype.ndim)) if weight else log_p
        smooth = pw.neg(sum_(weighted, dim=(dim,), keepdim=False))
        smooth = fill(smooth, pw.bitwise_not(kept), 0)
        share = pw.mul(smooth, label_smoothing / x.ttype.shape[dim])
        terms = pw.add(pw.mul(terms, 1.0 - label_smoothing), share)
    return _weighted(terms, weights, reduction)


def _cross_reference(
    x: Array, target: Array, *weight: Array, reduction: str, ignore_index: int, label_smoothing: float
) -> Array:
    log_p = log_softmax_array(x, class_dim(x.ndim))
    return np.asarray(_class_array(log_p, target, weight, reduction, ignore_index, label_smoothing), x.dtype)


def _cross_vjp(g: Any, out: Operand, x: Any, target: Any, *weight: Any, needs: Needs, **attrs: Any) -> tuple[Any, ...]:
    if any(needs[2:]):
        raise UnsupportedError("cross_entropy: the class weights get no gradient; detach() them")
    grad = cross_entropy_grad(g, x, target, *weight, **attrs) if needs[0] else None
    return (grad, None, *(None for _ in weight))


cross_entropy = define(
    Op(
        "cross_entropy",
        _cross_infer,
        _cross_reference,
        _class_samples((0.0, 0.1)),
        decompose=_cross_decompose,
        vjp=_cross_vjp,
        saves=("0", "1", "2"),
        dtypes=FLOATS,
        arity=None,
        doc="nll_loss of log_softmax, with part `label_smoothing` of the target spread over all classes.",
    )
)


def _cross_grad_infer(
    g: TensorType, x: TensorType, target: TensorType, *weight: TensorType, **attrs: Any
) -> TensorType:
    want = _cross_infer(x, target, *weight, **attrs)
    if g is not want:
        raise ShapeError(f"cross_entropy_grad: the upstream gradient is {g}, but {x} needs {want}")
    return x


def _cross_grad_decompose(
    g: Any, x: Any, target: Any, *weight: Any, reduction: str, ignore_index: int, label_smoothing: float
) -> Any:
    """(p * Σq - q) * g, where q is how much each class weighs in the sample's loss."""
    ndim, shape = x.ttype.ndim, x.ttype.shape
    dim = class_dim(ndim)
    kept, safe, weights = _sample_weights(target, weight, x, ignore_index)
    if reduction == "mean":
        g = pw.div(g, sum_(weights, dim=all_dims(weights), keepdim=False))
    upstream = fill(movement.expand(g, shape=target.ttype.shape), pw.bitwise_not(kept), 0)
    along = _with_class_axis(target.ttype.shape, 1)
    upstream, place, total = (movement.reshape(v, shape=along) for v in (upstream, safe, weights))
    hit = pw.eq(create.iota(shape=shape, dim=dim, dtype=int64), place)
    q = pw.where(hit, total, create.scalar_like(x, 0))
    if label_smoothing:
        share = label_smoothing / shape[dim]
        q, total = pw.mul(q, 1.0 - label_smoothing), pw.mul(total, 1.0 - label_smoothing)
        q = pw.add(q, pw.mul(_per_class(weight[0], ndim), share) if weight else share)
        everywhere = sum_(weight[0], dim=(0,), keepdim=False) if weight else create.scalar_like(x, shape[dim])
        total = pw.add(total, pw.mul(everywhere, share))
    return pw.mul(pw.sub(pw.mul(softmax(x, dim=dim), total), q), upstream)


def _cross_grad_reference(
    g: Array, x: Array, target: Array, *weight: Array, reduction: str, ignore_index: int, label_smoothing: float
) -> Array:
    dim, p = class_dim(x.ndim), np.exp(log_softmax_array(x, class_dim(x.ndim)))
    kept = np.expand_dims(target != ignore_index, dim)
    safe = np.where(kept, np.expand_dims(target, dim), 0)
    classes = weight[0].astype(np.float64) if weight else np.ones(x.shape[dim])
    shaped = classes.reshape(-1, *(1,) * (x.ndim - dim - 1))
    weights = np.where(kept, classes[safe], 0.0)
    onehot = np.arange(x.shape[dim]).reshape(shaped.shape) == safe
    q = (1 - label_smoothing) * onehot * weights + label_smoothing / x.shape[dim] * shaped
    with np.errstate(all="ignore"):
        upstream = g.astype(np.float64) / (np.sum(weights) if reduction == "mean" else 1.0)
        upstream = np.expand_dims(np.broadcast_to(upstream, target.shape), dim)
    return np.where(kept, (p * np.sum(q, axis=dim, keepdims=True) - q) * upstream, 0.0).astype(x.dtype)


def _cross_grad_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for sample in cross_entropy.samples(rng):
        x, target = sample.inputs[:2]
        g = np.asarray(rng.standard_normal(target.shape if sample.attrs["reduction"] == "none" else ()))
        yield Sample((g, x, target, *sample.inputs[2:]), sample.attrs, sample.name)


cross_entropy_grad = define(
    Op(
        "cross_entropy_grad",
        _cross_grad_infer,
        _cross_grad_reference,
        _cross_grad_samples,
        decompose=_cross_grad_decompose,
        dtypes=FLOATS,
        arity=None,
        doc="Gradient of cross_entropy for the logits, from (g, logits, target[, weight]).",
    )
)
