"""Tables, and attention."""

from __future__ import annotations

import math

from graphc.errors import DTypeError, IndexingError, ShapeError
from graphc.frontend.creation import arange, ones
from graphc.frontend.functional import eq, linear, matmul, softmax, transpose, tril, where
from graphc.frontend.mode import mode, refuse_values
from graphc.frontend.nn.checks import float_input
from graphc.frontend.nn.pointwise import dropout
from graphc.frontend.ops import ops
from graphc.frontend.tensor import Tensor
from graphc.ir.types import bool_, int64

__all__ = ["embedding", "linear", "one_hot", "scaled_dot_product_attention"]


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows of `weight` [V, D] at the int64 indices `input`. Raises IndexingError for one out of range."""
    if input.dtype is not int64:
        raise DTypeError(f"embedding: expected int64 indices, got {input._l.type}")
    if input._a.size:
        low, high = int(input._a.min()), int(input._a.max())
        if low < 0 or high >= weight._a.shape[0]:
            refuse_values(input)
            raise IndexingError(
                f"embedding: index {low if low < 0 else high} is out of range for {weight._a.shape[0]} rows"
            )
        recorder = mode.get().recorder
        if recorder is not None:
            recorder.on_range(input, 0, weight._a.shape[0])
    out: Tensor = ops.embedding(weight, input, padding_idx=padding_idx)
    return out


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """A last axis of `num_classes` with 1 at the index, int64; -1: one more than the largest index."""
    if tensor.dtype is not int64:
        raise DTypeError(f"one_hot: expected an int64 tensor, got {tensor._l.type}")
    classes = int(tensor.max().item()) + 1 if num_classes == -1 else num_classes
    if tensor._a.size and not 0 <= int(tensor._a.min()) <= int(tensor._a.max()) < classes:
        refuse_values(tensor)
        raise IndexingError(f"one_hot: the classes of {tensor._l.type} are not all in [0, {classes})")
    recorder = mode.get().recorder
    if recorder is not None and tensor._a.size:
        recorder.on_range(tensor, 0, classes)
    return eq(tensor.unsqueeze(-1), arange(classes)).to(int64)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(query @ key.mT * scale + mask) @ value over [..., L, E], [..., S, E] and [..., S, V].

    The scale is 1/sqrt(E). A bool mask keeps where it is True, another is added; `is_causal` keeps the lower triangle.
    Raises ShapeError. (Vaswani et al., 2017)
    """
    q = float_input("scaled_dot_product_attention", query)
    if is_causal and attn_mask is not None:
        raise ShapeError("scaled_dot_product_attention: give either attn_mask or is_causal")
    factor = 1 / math.sqrt(q._a.shape[-1]) if scale is None else scale
    scores = matmul(q * factor, transpose(key, -2, -1))
    if is_causal:
        attn_mask = tril(ones(scores.ttype.shape[-2:], dtype=bool_))
    if attn_mask is not None and attn_mask.dtype is bool_:
        scores = where(attn_mask, scores, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return matmul(dropout(softmax(scores, -1), dropout_p), value)
