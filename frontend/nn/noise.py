"""Functions that draw random numbers: the kinds of dropout, and samples of categories."""

from __future__ import annotations

import math

from graphc.errors import ShapeError
from graphc.frontend.creation import ones, zeros_like
from graphc.frontend.functional import log, scatter, softmax, where
from graphc.frontend.given import probability
from graphc.frontend.nn.checks import float_input
from graphc.frontend.nn.pointwise import dropout, maybe_in_place
from graphc.frontend.random_tensors import rand
from graphc.frontend.tensor import Tensor
from graphc.ir.types import Shape

__all__ = [
    "alpha_dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
    "gumbel_softmax",
]

_ALPHA = 1.7580993408473766  # scale * alpha of selu: minus its limit on the left


def _channels(name: str, x: Tensor) -> Shape:
    """The shape of one number a channel. Raises ShapeError."""
    if x.ndim < 2:
        raise ShapeError(f"{name}: expected channels on axis 1, got {x._l.type}")
    return (*x.ttype.shape[:2], *(1 for _ in range(x.ndim - 2)))


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero whole channels of [N, C, …] with probability `p` and scale the others by 1 / (1 - p)."""
    x = float_input("dropout2d", input)
    if not training or p == 0.0:
        return dropout(input, p, training)
    kept = dropout(ones(*_channels("dropout2d", x), dtype=x.dtype), p)
    return maybe_in_place("dropout2d", input, inplace, lambda: x * kept)


dropout1d = dropout3d = dropout2d


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout to the left limit of selu, then a line that keeps mean 0 and variance 1 (Klambauer et al., 2017)."""
    return _alpha("alpha_dropout", input, p, training, inplace, whole=False)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """alpha_dropout of whole channels of [N, C, …]."""
    return _alpha("feature_alpha_dropout", input, p, training, inplace, whole=True)


def _alpha(name: str, input: Tensor, p: float, training: bool, inplace: bool, whole: bool) -> Tensor:
    probability(name, p)
    x = float_input(name, input)
    if not training or p == 0.0:
        return input
    if p == 1.0:
        return maybe_in_place(name, input, inplace, lambda: x * 0.0)
    scale = 1.0 / math.sqrt((_ALPHA * _ALPHA * p + 1.0) * (1.0 - p))
    shape = _channels(name, x) if whole else x.ttype.shape
    kept = rand(*shape, dtype=x.dtype) >= p
    return maybe_in_place(name, input, inplace, lambda: where(kept, x, -_ALPHA) * scale + _ALPHA * scale * p)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """Samples of categories that gradients flow through (Jang et al., 2017): softmax((logits + noise) / tau).

    `hard` gives one-hot rows with the gradients of the soft ones; `eps` has no effect, as in PyTorch.
    """
    x = float_input("gumbel_softmax", logits)
    noise = -log(-log(rand(*x.ttype.shape, dtype=x.dtype)))
    soft = softmax((x + noise) / tau, dim)
    if not hard:
        return soft
    best = soft.detach().argmax(dim, keepdim=True)
    return scatter(zeros_like(soft), dim, best, 1.0) - soft.detach() + soft
