"""Products and distances of pairs of vectors."""

from __future__ import annotations

import numpy as np

from graphc.errors import ShapeError
from graphc.frontend.functional import matmul, reshape
from graphc.frontend.nn.checks import fixed, float_input
from graphc.frontend.tensor import Tensor

__all__ = ["bilinear", "cosine_similarity", "pairwise_distance", "pdist"]


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """sum over i, j of input1[..., i] * weight[k, i, j] * input2[..., j], plus bias[k].

    Raises ShapeError unless the leading sizes agree and the last ones fit the weight [out, in1, in2].
    """
    x, y = float_input("bilinear", input1), float_input("bilinear", input2)
    fits = weight.ndim == 3 and (x._l.shape[-1], y._l.shape[-1]) == weight._l.shape[1:]
    if not fits or x._l.shape[:-1] != y._l.shape[:-1]:
        raise ShapeError(f"bilinear: inputs {x._l.type} and {y._l.type} do not fit the weight {weight._l.type}")
    out, first, second = weight.ttype.shape
    lead = x.ttype.shape[:-1]
    spread = matmul(x, reshape(weight.permute(1, 0, 2), (first, out * second)))  # [..., out * in2]
    parts = reshape(spread, (*lead, out, second))
    found = reshape(matmul(parts, y.unsqueeze(-1)), (*lead, out))
    return found if bias is None else found + bias


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 along `dim`, divided by both norms, each held above `eps`; the shapes broadcast."""
    x, y = float_input("cosine_similarity", x1), float_input("cosine_similarity", x2)
    long = x.norm(2, dim, keepdim=True).clamp_min(eps), y.norm(2, dim, keepdim=True).clamp_min(eps)
    return ((x / long[0]) * (y / long[1])).sum(dim)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of x1 - x2 + eps along the last axis."""
    x, y = float_input("pairwise_distance", x1), float_input("pairwise_distance", x2)
    return (x - y + eps).norm(p, -1, keepdim=keepdim)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The distances of all pairs of rows of [N, D], the first row's first: [N * (N - 1) / 2]. Raises ShapeError."""
    x = float_input("pdist", input)
    if x.ndim != 2:
        raise ShapeError(f"pdist: only 2D tensors are supported, got {x._l.type}")
    first, second = (fixed(k) for k in np.triu_indices(x._l.shape[0], 1))
    return (x.index_select(0, first) - x.index_select(0, second)).norm(p, -1)
