"""Attention (Vaswani et al., 2017)."""

from __future__ import annotations

import math

from graphc.errors import ArgumentError, ShapeError
from graphc.frontend.creation import ones, zeros
from graphc.frontend.functional import (
    cat,
    linear,
    matmul,
    pad,
    repeat_interleave,
    reshape,
    softmax,
    transpose,
    tril,
    where,
)
from graphc.frontend.nn.checks import float_input
from graphc.frontend.nn.pointwise import dropout
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType, bool_

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query @ key.mT * scale + mask) @ value over [..., L, E], [..., S, E] and [..., S, V].

    The scale is 1/sqrt(E). A bool mask keeps where it is True, another is added; `is_causal` keeps the lower triangle;
    a row without anything to attend to gives 0. `enable_gqa` shares each head (axis -3) of key and value among several
    of the query. Raises ShapeError.
    """
    name = "scaled_dot_product_attention"
    q = float_input(name, query)
    if is_causal and attn_mask is not None:
        raise ShapeError(f"{name}: give either attn_mask or is_causal")
    if enable_gqa:
        key, value = (_shared_heads(name, q, x) for x in (key, value))
    factor = 1 / math.sqrt(q._l.shape[-1]) if scale is None else scale
    scores = matmul(q * factor, transpose(key, -2, -1))
    if is_causal:
        scores = where(tril(ones(scores.ttype.shape[-2:], dtype=bool_)), scores, -math.inf)
    elif attn_mask is not None:
        return matmul(dropout(_masked(scores, attn_mask), dropout_p), value)
    return matmul(dropout(softmax(scores, -1), dropout_p), value)


def _shared_heads(name: str, q: Tensor, x: Tensor) -> Tensor:
    if q.ndim < 3 or x.ndim < 3 or q._l.shape[-3] % x._l.shape[-3]:
        raise ShapeError(
            f"{name}: enable_gqa needs heads of the query (axis -3 of {q._l.type}) that are a multiple of those of "
            f"{x._l.type}"
        )
    times = q._l.shape[-3] // x._l.shape[-3]
    return x if times == 1 else repeat_interleave(x, times, -3)


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of what a mask leaves; 0 for rows it leaves nothing of, which pass no gradient either."""
    held = where(mask, scores, -math.inf) if mask.dtype is bool_ else scores + mask
    empty = (held == -math.inf).all(-1, keepdim=True)
    return where(empty, 0.0, softmax(where(empty, 0.0, held), -1))


def _added(name: str, mask: Tensor | None, dtype: DType) -> Tensor | None:
    """A mask to add: of a bool one, -inf where it is True. Raises ArgumentError for integers."""
    if mask is None or mask.dtype is dtype:
        return mask
    if mask.dtype is bool_:
        return where(mask, -math.inf, zeros((), dtype=dtype))
    if not mask.dtype.is_floating_point:
        raise ArgumentError(f"{name}: only bool and floating types are supported for masks, got {mask._l.type}")
    return mask.to(dtype)


def _projected(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: tuple[Tensor, ...],
    biases: tuple[Tensor | None, ...],
    joint: tuple[Tensor | None, Tensor | None],
) -> tuple[Tensor, ...]:
    """Query, key and value after their linear maps; one map where all three are the same tensor."""
    if query is key and key is value and joint[0] is not None:
        found: tuple[Tensor, ...] = tuple(linear(query, joint[0], joint[1]).chunk(3, -1))
        return found
    return tuple(linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of `num_heads` heads over query [L, N, E], key [S, N, …] and value [S, N, …] (or without N).

    Gives [L, N, E] and, with `need_weights`, the weights [N, L, S] averaged over heads ([N, heads, L, S] otherwise).
    Masks: `key_padding_mask` [N, S] and `attn_mask` [L, S] or [N * heads, L, S]; True leaves out, floats are added.
    `is_causal` says that `attn_mask` is the causal one. Raises ShapeError and ArgumentError.
    """
    name = "multi_head_attention_forward"
    if is_causal and attn_mask is None:
        raise ArgumentError(f"{name}: Need attn_mask if specifying the is_causal hint.")
    if static_k is not None or static_v is not None:
        raise ArgumentError(f"{name}: static_k and static_v are not supported; call scaled_dot_product_attention")
    single = query.ndim == 2
    _check_attention(name, query, key, value, embed_dim_to_check, num_heads)
    if use_separate_proj_weight:
        weights = tuple(w for w in (q_proj_weight, k_proj_weight, v_proj_weight) if w is not None)
    else:
        weights = () if in_proj_weight is None else tuple(in_proj_weight.chunk(3))
    if len(weights) != 3:
        raise ArgumentError(f"{name}: the weights of query, key and value are needed")
    biases = (None, None, None) if in_proj_bias is None else tuple(in_proj_bias.chunk(3))
    q, k, v = _projected(query, key, value, weights, biases, (in_proj_weight, in_proj_bias))
    if single:
        q, k, v = (x.unsqueeze(1) for x in (q, k, v))
    mask, padding = _added(name, attn_mask, q.dtype), _added(name, key_padding_mask, q.dtype)
    if bias_k is not None and bias_v is not None:
        n = k.ttype.shape[1]
        k, v = cat([k, bias_k.expand(1, n, -1)], 0), cat([v, bias_v.expand(1, n, -1)], 0)
        mask, padding = _one_more(mask), _one_more(padding)
    q, k, v = (_heads(x, num_heads) for x in (q, k, v))
    if add_zero_attn:
        k, v = pad(k, (0, 0, 0, 1)), pad(v, (0, 0, 0, 1))
        mask, padding = _one_more(mask), _one_more(padding)
    full = _joined(name, mask, padding, q, k)
    out, attention = _attend(q, k, v, full, dropout_p if training else 0.0, need_weights)
    n, heads, length, size = out.ttype.shape
    found = linear(reshape(out.permute(2, 0, 1, 3), (length, n, heads * size)), out_proj_weight, out_proj_bias)
    if attention is not None and average_attn_weights:
        attention = attention.mean(1)
    if single:
        found, attention = found.squeeze(1), None if attention is None else attention.squeeze(0)
    return found, attention


def _check_attention(name: str, query: Tensor, key: Tensor, value: Tensor, embed: int, heads: int) -> None:
    if query.ndim not in (2, 3) or key.ndim != query.ndim or value.ndim != query.ndim:
        raise ShapeError(
            f"{name}: query should be unbatched 2D or batched 3D, key and value alike; got {query._l.type}, "
            f"{key._l.type} and {value._l.type}"
        )
    if query._l.shape[-1] != embed or embed % heads:
        raise ShapeError(
            f"{name}: was expecting embedding dimension of {embed}, a multiple of {heads} heads, got {query._l.type}"
        )
    if key._l.shape[:-1] != value._l.shape[:-1]:
        raise ShapeError(f"{name}: key {key._l.type} and value {value._l.type} differ in length or batch")


def _one_more(mask: Tensor | None) -> Tensor | None:
    """A mask for one more key, which is never left out."""
    return None if mask is None else pad(mask, (0, 1))


def _heads(x: Tensor, heads: int) -> Tensor:
    """[S, N, E] -> [N, heads, S, E / heads]."""
    s, n, e = x.ttype.shape
    return reshape(x, (s, n, heads, e // heads)).permute(1, 2, 0, 3)


def _joined(name: str, mask: Tensor | None, padding: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
    """Both masks as one to add to the scores [N, heads, L, S]."""
    n, heads, length, _ = q.ttype.shape
    size = k.ttype.shape[2]
    if mask is not None:
        if tuple(mask.ttype.shape) not in ((length, size), (n * heads, length, size)):
            raise ShapeError(
                f"{name}: attn_mask is {mask._l.type}, expected {[length, size]} or {[n * heads, length, size]}"
            )
        mask = mask if mask.ndim == 2 else reshape(mask, (n, heads, length, size))
    if padding is None:
        return mask
    if padding.ndim == 1:
        padding = padding.unsqueeze(0)
    if tuple(padding.ttype.shape) != (n, size):
        raise ShapeError(f"{name}: key_padding_mask is {padding._l.type}, expected {[n, size]}")
    padding = reshape(padding, (n, 1, 1, size))
    return padding if mask is None else mask + padding


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float, need_weights: bool
) -> tuple[Tensor, Tensor | None]:
    """[N, heads, L, E], and the weights where they are wanted."""
    if not need_weights:
        return scaled_dot_product_attention(q, k, v, mask, dropout_p), None
    scores = matmul(q * math.sqrt(1.0 / q._l.shape[-1]), transpose(k, -2, -1))
    weights = dropout(softmax(scores if mask is None else scores + mask, -1), dropout_p)
    return matmul(weights, v), weights
