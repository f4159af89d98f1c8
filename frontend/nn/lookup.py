"""Rows of tables at indices."""

from __future__ import annotations

import math
from typing import Any

from graphc.errors import ArgumentError, DTypeError, IndexingError, ShapeError, UnsupportedError
from graphc.frontend.creation import arange, zeros
from graphc.frontend.functional import eq, gather, index_add, linear, where
from graphc.frontend.mode import mode, refuse_values
from graphc.frontend.ops import ops
from graphc.frontend.promote import convert
from graphc.frontend.tensor import Tensor
from graphc.ir.types import int32, int64

__all__ = ["embedding", "embedding_bag", "linear", "one_hot"]


def refuse_table(name: str, **settings: Any) -> None:
    """Raise UnsupportedError for what tables here do not do: max_norm, scale_grad_by_freq and sparse."""
    instead = {
        "max_norm": "scale the weight with no_grad() after each update",
        "scale_grad_by_freq": "divide the gradient of the weight by the counts",
        "sparse": "gradients are dense",
    }
    for what, value in settings.items():
        if value:
            raise UnsupportedError(f"{name}: {what}={value!r} is not supported; {instead[what]}")


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of `weight` [V, D] at the int64 or int32 indices `input`; row `padding_idx` gets no gradient.

    Raises IndexingError for an index out of range, UnsupportedError for max_norm, scale_grad_by_freq and sparse.
    """
    refuse_table("embedding", max_norm=max_norm, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)
    if padding_idx is not None and padding_idx < 0:
        padding_idx += weight._l.shape[0]
    if input.dtype is int32:
        input = convert(input, int64)
    if input.dtype is not int64:
        raise DTypeError(f"embedding: expected int64 or int32 indices, got {input._l.type}; convert it with .long()")
    if input._l.size:
        low, high = int(input._a.min()), int(input._a.max())
        if low < 0 or high >= weight._l.shape[0]:
            refuse_values(input)
            raise IndexingError(
                f"embedding: index {low if low < 0 else high} is out of range for {weight._l.shape[0]} rows"
            )
        recorder = mode.get().recorder
        if recorder is not None:
            recorder.on_range(input, 0, weight.ttype.shape[0])
    out: Tensor = ops.embedding(weight, input, padding_idx=padding_idx)
    return out


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sum, mean or maximum of the rows of `weight` [V, D] in each bag; rows `padding_idx` do not count.

    Bags are the rows of an int64 `input` [B, L], or parts of a long one [L] that start at `offsets` [B], in order
    (`include_last_offset`: one more tells the end). An empty bag gives 0. Raises ArgumentError, ShapeError,
    UnsupportedError.
    """
    name = "embedding_bag"
    refuse_table(name, max_norm=max_norm, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)
    if mode not in ("sum", "mean", "max"):
        raise ArgumentError(f"{name}: mode has to be one of sum, mean or max, got {mode!r}")
    if per_sample_weights is not None and (mode != "sum" or per_sample_weights.shape != input.shape):
        raise ArgumentError(f"{name}: per_sample_weights needs mode='sum' and the shape of the input")
    if input.ndim == 2 and offsets is None:
        count, length = input.ttype.shape
        bags = (arange(count).unsqueeze(1) + zeros(1, length, dtype=int64)).reshape(-1)
    elif input.ndim == 1 and offsets is not None and offsets.ndim == 1:
        starts = offsets[:-1] if include_last_offset else offsets
        count = starts.ttype.shape[0]
        bags = (arange(input.ttype.shape[0]).unsqueeze(1) >= starts).sum(1) - 1
    else:
        raise ShapeError(f"{name}: expected a 2D input, or a 1D input and 1D offsets, got {input._l.type}")
    flat = input.reshape(-1)
    rows = embedding(flat, weight, padding_idx)
    if padding_idx is None:
        counted = flat == flat
    else:
        counted = flat != (padding_idx if padding_idx >= 0 else padding_idx + weight._l.shape[0])
    if mode == "max":
        return _bag_max(rows, bags, counted, count)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(-1).unsqueeze(1)
    kept = where(counted.unsqueeze(1), rows, 0.0)
    total = index_add(zeros(count, rows.ttype.shape[1], dtype=rows.dtype), 0, bags, kept)
    if mode == "sum":
        return total
    sizes = index_add(zeros(count, dtype=rows.dtype), 0, bags, counted.to(rows.dtype))
    return total / sizes.clamp_min(1.0).unsqueeze(1)


def _bag_max(rows: Tensor, bags: Tensor, counted: Tensor, count: Any) -> Tensor:
    """The maximum of each bag and column; the first of equals gets the gradient."""
    member = (bags == arange(count).unsqueeze(1)) & counted  # [B, L]
    held = where(member.unsqueeze(2), rows.detach(), -math.inf)
    found = gather(rows, 0, held.argmax(1))
    return where(member.any(1).unsqueeze(1), found, 0.0)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """A last axis of `num_classes` with 1 at the index, int64; -1: one more than the largest index."""
    if tensor.dtype is not int64:
        raise DTypeError(f"one_hot: expected an int64 tensor, got {tensor._l.type}")
    classes = int(tensor.max().item()) + 1 if num_classes == -1 else num_classes
    if tensor._l.size and not 0 <= int(tensor._a.min()) <= int(tensor._a.max()) < classes:
        refuse_values(tensor)
        raise IndexingError(f"one_hot: the classes of {tensor._l.type} are not all in [0, {classes})")
    recorder = mode.get().recorder
    if recorder is not None and tensor._l.size:
        recorder.on_range(tensor, 0, classes)
    return eq(tensor.unsqueeze(-1), arange(classes)).to(int64)
