"""Losses."""

from __future__ import annotations

import warnings

from graphc.errors import ArgumentError, DTypeError, IndexingError, ShapeError
from graphc.frontend.functional import broadcast_tensors, exp, squeeze, unsqueeze
from graphc.frontend.mode import mode, refuse_values
from graphc.frontend.nn.checks import float_input, reduction_of
from graphc.frontend.nn.pointwise import logsigmoid
from graphc.frontend.ops import ops
from graphc.frontend.promote import convert, result_type, tensor_operand
from graphc.frontend.record.where import outside
from graphc.frontend.tensor import Tensor
from graphc.ir.types import int64

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "nll_loss",
    "smooth_l1_loss",
]


def reduced(name: str, elements: Tensor, reduction: str) -> Tensor:
    """Elements of a loss as their mean, sum or themselves. Raises ArgumentError for another reduction."""
    if reduction == "none":
        return elements
    if reduction not in ("mean", "sum"):
        raise ArgumentError(f"{name}: {reduction!r} is not a valid value for reduction; use 'mean', 'sum' or 'none'")
    return elements.mean() if reduction == "mean" else elements.sum()


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Negative log likelihood of softmax(input): input [N, C, …] (or [C]), int64 targets [N, …] (or a number).

    Raises ShapeError, DTypeError, and (eagerly) IndexingError for a target that is no class.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    x, y, single = _class_inputs("cross_entropy", input, target, ignore_index)
    extra = () if weight is None else (weight,)
    out: Tensor = ops.cross_entropy(
        x, y, *extra, reduction=reduction, ignore_index=ignore_index, label_smoothing=float(label_smoothing)
    )
    return squeeze(out, 0) if single and reduction == "none" else out


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the input at the target class: input [N, C, …] of log probabilities, int64 targets [N, …].

    Raises ShapeError, DTypeError, and (eagerly) IndexingError for a target that is no class.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    x, y, single = _class_inputs("nll_loss", input, target, ignore_index)
    out: Tensor = ops.nll_loss(
        x, y, *(() if weight is None else (weight,)), reduction=reduction, ignore_index=ignore_index
    )
    return squeeze(out, 0) if single and reduction == "none" else out


def _class_inputs(name: str, input: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, bool]:
    x = float_input(name, input)
    if not isinstance(target, Tensor):
        raise ArgumentError(f"{name}: the target must be a Tensor, got {type(target).__name__}")
    if target.dtype is not int64:
        raise DTypeError(f"{name}: targets must be int64 class numbers, got {target._l.type}")
    if x.ndim:
        _check_targets(name, target, x._l.shape[0 if x.ndim == 1 else 1], ignore_index)
    if x.ndim == 1:
        return unsqueeze(x, 0), unsqueeze(target, 0), True
    return x, target, False


def _check_targets(name: str, target: Tensor, classes: int, ignore_index: int) -> None:
    y = target._a
    wrong = ((y < 0) | (y >= classes)) & (y != ignore_index)
    if wrong.any():
        refuse_values(target)
        raise IndexingError(
            f"{name}: target {int(y[wrong][0])} is out of bounds: there are {classes} classes, numbered from 0 "
            f"(ignore_index is {ignore_index})"
        )
    recorder = mode.get().recorder
    if recorder is not None and y.size:
        recorder.on_range(target, 0, classes, ignore_index)


def _pairwise(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    for x in (input, target):
        tensor_operand(name, x)
    if tuple(input.shape) != tuple(target.shape):
        raise ShapeError(f"{name}: input is {input._l.type} and target is {target._l.type}; make their shapes equal")
    dtype = result_type(input, target)
    return convert(float_input(name, input), dtype), convert(target, dtype)


def _spread(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The same for losses that broadcast, with a warning: that is seldom meant."""
    for x in (input, target):
        tensor_operand(name, x)
    if tuple(input.shape) != tuple(target.shape):
        warnings.warn(
            f"{name}: using a target size ({target.shape}) that is different to the input size ({input.shape}). This "
            "will likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
            UserWarning,
            stacklevel=outside(),
        )
        input, target = broadcast_tensors(input, target)
    return _pairwise(name, input, target)


def mse_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
) -> Tensor:
    """Mean of (input - target)^2."""
    reduction = reduction_of(size_average, reduce, reduction)
    out: Tensor = ops.mse_loss(*_spread("mse_loss", input, target), reduction=reduction)
    return out


def l1_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
) -> Tensor:
    """Mean of |input - target|."""
    reduction = reduction_of(size_average, reduce, reduction)
    out: Tensor = ops.l1_loss(*_spread("l1_loss", input, target), reduction=reduction)
    return out


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """Quadratic below `beta`, linear above."""
    reduction = reduction_of(size_average, reduce, reduction)
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    out: Tensor = ops.smooth_l1_loss(*_spread("smooth_l1_loss", input, target), reduction=reduction, beta=float(beta))
    return out


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Quadratic below `delta`, linear above, continuous in slope. Raises ArgumentError for a delta of 0 or less."""
    if not delta > 0:
        raise ArgumentError(f"huber_loss: delta must be greater than 0, got {delta}")
    out: Tensor = ops.huber_loss(*_spread("huber_loss", input, target), reduction=reduction, delta=float(delta))
    return out


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-(y log x + (1 - y) log(1 - x)) with the logarithms held above -100, times `weight`."""
    reduction = reduction_of(size_average, reduce, reduction)
    pairs = _pairwise("binary_cross_entropy", input, target)
    if weight is not None:
        elements: Tensor = ops.binary_cross_entropy(*pairs, reduction="none")
        return reduced("binary_cross_entropy", elements * weight, reduction)
    out: Tensor = ops.binary_cross_entropy(*pairs, reduction=reduction)
    return out


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """binary_cross_entropy(sigmoid(input), target), computed without overflow.

    Positive targets count `pos_weight` times.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    name = "binary_cross_entropy_with_logits"
    x, y = _pairwise(name, input, target)
    if weight is None and pos_weight is None:
        out: Tensor = ops.binary_cross_entropy_with_logits(x, y, reduction=reduction)
        return out
    if pos_weight is None:
        elements: Tensor = ops.binary_cross_entropy_with_logits(x, y, reduction="none")
    else:
        elements = (1.0 - y) * x - (1.0 + (pos_weight - 1.0) * y) * logsigmoid(x)
    return reduced(name, elements if weight is None else elements * weight, reduction)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """target * (log target - input); `log_target`: the target is given as logarithms.

    `reduction="batchmean"` divides the sum by the first size.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    x, y = _pairwise("kl_div", input, target)
    kind = "sum" if reduction == "batchmean" else reduction
    out: Tensor
    if log_target:
        out = reduced("kl_div", exp(y) * (y - x), kind)
    else:
        out = ops.kl_div(x, y, reduction=kind)
    return out / x.shape[0] if reduction == "batchmean" else out
