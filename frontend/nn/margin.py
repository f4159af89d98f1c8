"""Losses of rankings, distances and distributions."""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.frontend.creation import arange, full
from graphc.frontend.functional import exp, gather, log, log1p, minimum, where
from graphc.frontend.grad_mode import no_grad
from graphc.frontend.nn.checks import float_input, reduction_of
from graphc.frontend.nn.criteria import reduced
from graphc.frontend.nn.distance import pairwise_distance
from graphc.frontend.nn.pointwise import logsigmoid
from graphc.frontend.tensor import Tensor
from graphc.ir.types import int64

__all__ = [
    "cosine_embedding_loss",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "margin_ranking_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "poisson_nll_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]

Flag = bool | None
Distance = Callable[[Tensor, Tensor], Tensor]


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: Flag = None,
    reduce: Flag = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, -target * (input1 - input2) + margin), for targets 1 (the first ranks higher) and -1."""
    x = float_input("margin_ranking_loss", input1)
    if not x.ndim == input2.ndim == target.ndim:
        raise ShapeError(
            "margin_ranking_loss: all input tensors should have the same number of dimensions, got "
            f"{x._l.type}, {input2._l.type} and {target._l.type}"
        )
    elements = (-target * (x - input2) + margin).clamp_min(0)
    return reduced("margin_ranking_loss", elements, reduction_of(size_average, reduce, reduction))


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: Flag = None,
    reduce: Flag = None,
    reduction: str = "mean",
) -> Tensor:
    """The input where the target is 1, max(0, margin - input) where it is -1."""
    x = float_input("hinge_embedding_loss", input)
    elements = where(target != -1, x, 0.0) + where(target != 1, (margin - x).clamp_min(0), 0.0)
    return reduced("hinge_embedding_loss", elements, reduction_of(size_average, reduce, reduction))


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: Flag = None,
    reduce: Flag = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos(input1, input2) where the target is 1, max(0, cos - margin) where it is -1; [N, D] or [D]."""
    x = float_input("cosine_embedding_loss", input1)
    if x.shape != input2.shape or target.ndim != x.ndim - 1:
        raise ShapeError(
            f"cosine_embedding_loss: inputs {x._l.type} and {input2._l.type} need one shape, [N, D] with targets [N] "
            f"or [D] with one target; got {target._l.type}"
        )
    sizes = ((x * x).sum(-1) + 1e-12) * ((input2 * input2).sum(-1) + 1e-12)
    cosine = (x * input2).sum(-1) / sizes.sqrt()
    elements = where(target == 1, 1 - cosine, 0.0) + where(target == -1, (cosine - margin).clamp_min(0), 0.0)
    return reduced("cosine_embedding_loss", elements, reduction_of(size_average, reduce, reduction))


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: Flag = None,
    reduce: Flag = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) with the p-norm as distance (Balntas et al., 2016)."""

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return pairwise_distance(x, y, p, eps)

    reduction = reduction_of(size_average, reduce, reduction)
    return _triplet("triplet_margin_loss", anchor, positive, negative, distance, margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Distance | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """triplet_margin_loss with a distance of the caller (the 2-norm by default)."""
    name = "triplet_margin_with_distance_loss"
    return _triplet(name, anchor, positive, negative, distance_function or pairwise_distance, margin, swap, reduction)


def _triplet(
    name: str,
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    distance: Distance,
    margin: float,
    swap: bool,
    reduction: str,
) -> Tensor:
    if margin <= 0:
        raise ArgumentError(f"{name}: margin must be greater than 0, got {margin}")
    near, far = distance(float_input(name, anchor), positive), distance(anchor, negative)
    if swap:
        far = minimum(far, distance(positive, negative))
    return reduced(name, (margin + near - far).clamp_min(0), reduction)


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: Flag = None,
    eps: float = 1e-8,
    reduce: Flag = None,
    reduction: str = "mean",
) -> Tensor:
    """exp(input) - target * input, or input - target * log(input + eps) without `log_input`.

    `full` adds Stirling's approximation of log(target!) for targets above 1.
    """
    x = float_input("poisson_nll_loss", input)
    elements = exp(x) - target * x if log_input else x - target * log(x + eps)
    if full:
        rest = target * log(target) - target + 0.5 * log(2 * math.pi * target)
        elements = elements + where(target > 1, rest, 0.0)
    return reduced("poisson_nll_loss", elements, reduction_of(size_average, reduce, reduction))


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log(var) + (input - target)^2 / var) / 2 with variances held above `eps`; `full` adds log(2 pi) / 2.

    Raises ShapeError, and ArgumentError for a negative variance.
    """
    x = float_input("gaussian_nll_loss", input)
    spread = var if isinstance(var, Tensor) else _constant(x, float(var))
    if spread.shape != x.shape:
        if spread.shape == x.shape[:-1]:
            spread = spread.unsqueeze(-1)
        elif spread.shape[:-1] != x.shape[:-1] or spread._l.shape[-1] != 1:
            raise ShapeError(f"gaussian_nll_loss: var is of incorrect size: {spread._l.type} for {x._l.type}")
    if (spread < 0).any():
        raise ArgumentError("gaussian_nll_loss: var has negative entry/entries")
    spread = spread.clone()
    with no_grad():
        spread.clamp_(min=eps)
    elements = 0.5 * (log(spread) + (x - target).square() / spread)
    if full:
        elements = elements + 0.5 * math.log(2 * math.pi)
    return reduced("gaussian_nll_loss", elements, reduction)


def _constant(x: Tensor, value: float) -> Tensor:
    """One value in the shape and dtype of `x`."""
    return full(x.ttype.shape, value, dtype=x.dtype)


def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: Flag = None, reduce: Flag = None, reduction: str = "mean"
) -> Tensor:
    """log(1 + exp(-target * input)) for targets 1 and -1."""
    elements = log1p(exp(-target * float_input("soft_margin_loss", input)))
    return reduced("soft_margin_loss", elements, reduction_of(size_average, reduce, reduction))


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Flag = None,
    reduce: Flag = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean over classes (the last axis) of the binary cross entropies of sigmoid(input)."""
    x = float_input("multilabel_soft_margin_loss", input)
    elements = -(target * logsigmoid(x) + (1 - target) * logsigmoid(-x))
    if weight is not None:
        elements = elements * weight
    rows = elements.sum(-1) / elements._l.shape[-1]
    return reduced("multilabel_soft_margin_loss", rows, reduction_of(size_average, reduce, reduction))


def _classes(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Input [N, C] and int64 target with N first; True: there was no N."""
    x = float_input(name, input)
    if target.dtype is not int64:
        raise DTypeError(f"{name}: targets must be int64 class numbers, got {target._l.type}")
    if x.ndim not in (1, 2):
        raise ShapeError(f"{name}: expected an input [N, C] or [C], got {x._l.type}")
    return (x, target, False) if x.ndim == 2 else (x.unsqueeze(0), target.unsqueeze(0), True)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: Flag = None,
    reduce: Flag = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean over classes j but the target y of max(0, margin - input[y] + input[j])^p: [N, C] and int64 [N]."""
    if p not in (1, 2):
        raise ArgumentError(f"multi_margin_loss: only p == 1 and p == 2 supported, got {p}")
    x, y, single = _classes("multi_margin_loss", input, target)
    places = y.reshape(-1, 1)
    above = (margin - gather(x, 1, places) + x).clamp_min(0)
    if p == 2:
        above = above * above
    if weight is not None:
        above = above * weight.index_select(0, y.reshape(-1)).unsqueeze(1)
    rows = where(arange(x._l.shape[1]) == places, 0.0, above).sum(1) / x._l.shape[1]
    return reduced(
        "multi_margin_loss", rows.squeeze(0) if single else rows, reduction_of(size_average, reduce, reduction)
    )


def multilabel_margin_loss(
    input: Tensor, target: Tensor, size_average: Flag = None, reduce: Flag = None, reduction: str = "mean"
) -> Tensor:
    """Sum over target classes y and other classes i of max(0, 1 - input[y] + input[i]), divided by C.

    The int64 target [N, C] lists classes up to the first -1.
    """
    x, y, single = _classes("multilabel_margin_loss", input, target)
    if x.shape != y.shape:
        raise ShapeError(f"multilabel_margin_loss: input {x._l.type} and target {y._l.type} need one shape")
    count = x._l.shape[1]
    numbers = arange(count)
    end = where(y < 0, numbers, count).amin(1, keepdim=True)
    listed = numbers < end  # [N, C]: this place of the list counts
    classes = y.clamp_min(0)
    wanted = ((classes.unsqueeze(2) == numbers) & listed.unsqueeze(2)).any(1)
    gaps = (1 - gather(x, 1, classes).unsqueeze(2) + x.unsqueeze(1)).clamp_min(0)
    rows = where(listed.unsqueeze(2) & ~wanted.unsqueeze(1), gaps, 0.0).sum((1, 2)) / count
    return reduced(
        "multilabel_margin_loss", rows.squeeze(0) if single else rows, reduction_of(size_average, reduce, reduction)
    )
