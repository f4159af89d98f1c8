"""Windows, differences, areas under samples, distances between points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index as as_index
from typing import Any

from graphc.errors import ArgumentError, ShapeError
from graphc.frontend import functional_math as fm
from graphc.frontend import functional_reduce as fr
from graphc.frontend import functional_shape as fs
from graphc.frontend.creation import _options, arange, ones
from graphc.frontend.ops import ops
from graphc.frontend.promote import convert, floating, real_operand, tensor_operand
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType, bool_, float32, float64

__all__ = [
    "bartlett_window", "blackman_window", "cdist", "cosine_similarity", "diff", "dist", "hamming_window", "hann_window",
    "trapezoid", "trapz",
]  # fmt: skip


def _phases(name: str, length: int, periodic: bool, dtype: DType) -> tuple[Tensor | None, int]:
    """k / N for k < length, where a period has N samples; None for lengths whose window is 1."""
    n = as_index(length)
    if n < 0:
        raise ArgumentError(f"{name}: window_length must be non-negative, got {n}")
    work = float64 if dtype is float64 else float32
    if n <= 1:
        return None, n
    return fm.div(arange(n, dtype=work), float(n if periodic else n - 1)), n


def _cosines(
    name: str, length: int, periodic: bool, weights: Sequence[float], dtype: DType | None, device: Any, grad: bool
) -> Tensor:
    """The sum of weights[k] * cos(2 pi k * phase)."""
    wanted = _options(name, dtype, device)
    phase, n = _phases(name, length, periodic, wanted)
    if phase is None:
        return ones(n, dtype=wanted, requires_grad=grad)
    total: Any = weights[0]
    for k, w in enumerate(weights[1:], 1):
        total = fm.add(fm.mul(fm.cos(fm.mul(phase, 2.0 * math.pi * k)), w), total)
    made = convert(total, wanted)
    return made.requires_grad_() if grad else made


def hann_window(
    window_length: int,
    periodic: bool = True,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """0.5 - 0.5 cos(2 pi k / N): N is the length, one less unless `periodic`."""
    return _cosines("hann_window", window_length, periodic, (0.5, -0.5), dtype, device, requires_grad)


def hamming_window(
    window_length: int,
    periodic: bool = True,
    alpha: float = 0.54,
    beta: float = 0.46,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """alpha - beta cos(2 pi k / N)."""
    return _cosines("hamming_window", window_length, periodic, (alpha, -beta), dtype, device, requires_grad)


def blackman_window(
    window_length: int,
    periodic: bool = True,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """0.42 - 0.5 cos(2 pi k / N) + 0.08 cos(4 pi k / N)."""
    return _cosines("blackman_window", window_length, periodic, (0.42, -0.5, 0.08), dtype, device, requires_grad)


def bartlett_window(
    window_length: int,
    periodic: bool = True,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """1 - |2 k / N - 1|: a triangle."""
    wanted = _options("bartlett_window", dtype, device)
    phase, n = _phases("bartlett_window", window_length, periodic, wanted)
    if phase is None:
        return ones(n, dtype=wanted, requires_grad=requires_grad)
    made = convert(fm.sub(1.0, fm.abs(fm.sub(fm.mul(phase, 2.0), 1.0))), wanted)
    return made.requires_grad_() if requires_grad else made


def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """Differences of neighbours along `dim`, `n` times; bools give where they differ. Raises DimError."""
    x = real_operand("diff", input)
    d = fs.axis_of("diff", x, dim)
    if as_index(n) < 0:
        raise ArgumentError(f"diff: order must be non-negative, got {n}")
    parts = [t for t in (prepend, x, append) if t is not None]
    x = fs.cat(parts, d) if len(parts) > 1 else x
    for _ in range(as_index(n)):
        size = x.ttype.shape[d]
        length = size - 1 if not isinstance(size, int) or size else 0
        first, second = fs.narrow(x, d, 0, length), fs.narrow(x, d, min(1, x._l.shape[d]), length)
        x = fm.ne(second, first) if x.dtype is bool_ else fm.sub(second, first)
    return x if as_index(n) else fs.clone(x)


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1, dim: int = -1) -> Tensor:
    """The area under samples `y` along `dim` by the trapezoidal rule, at places `x` or `dx` apart.

    Raises DimError, ShapeError.
    """
    v = real_operand("trapezoid", y)
    d = fs.axis_of("trapezoid", v, dim)
    size = v.ttype.shape[d]
    if isinstance(size, int) and size < 2:
        return fr.sum(fs.narrow(v, d, 0, 0), d)
    pairs = fm.add(fs.narrow(v, d, 1, size - 1), fs.narrow(v, d, 0, size - 1))
    if x is None:
        return fm.mul(fr.sum(pairs, d), dx / 2)
    places = real_operand("trapezoid", x)
    if places._l.ndim == 1:
        places = fs.reshape(places, (-1, *(1 for _ in range(v._l.ndim - d - 1))))
        gaps = diff(places, dim=0)
    else:
        gaps = diff(places, dim=d - v._l.ndim)
    return fm.div(fr.sum(fm.mul(pairs, gaps), d), 2.0)


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of input - other."""
    x, y = floating("dist", input, other)
    return fr.norm(fm.sub(x, y), p)


_MODES = (
    "use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist",
)  # fmt: skip


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = _MODES[0]) -> Tensor:
    """The p-norms of the differences of all pairs of rows: [..., P, D] and [..., R, D] give [..., P, R].

    They are taken of the differences in every `compute_mode`. Raises ShapeError, ArgumentError.
    """
    x, y = floating("cdist", tensor_operand("cdist", x1), tensor_operand("cdist", x2))
    if compute_mode not in _MODES:
        raise ArgumentError(f"cdist: {compute_mode!r} is not a valid value for compute_mode; use one of {_MODES}")
    if x._l.ndim < 2 or y._l.ndim < 2 or x._l.shape[-1] != y._l.shape[-1]:
        raise ShapeError(f"cdist: takes at least 2-d tensors with the same last size, got {x._l.type} and {y._l.type}")
    if p < 0:
        raise ArgumentError(f"cdist: only supports non-negative p values, got {p}")
    gaps = ops.sub(fs.unsqueeze(x, -2), fs.unsqueeze(y, -3))
    return fr.norm(gaps, p, -1)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 along `dim`, divided by both norms, each held above `eps`; the shapes broadcast."""
    from graphc.frontend.nn import distance  # here, for programs without modules

    return distance.cosine_similarity(x1, x2, dim, eps)


trapz = trapezoid
