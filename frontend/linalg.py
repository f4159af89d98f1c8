"""Linear algebra of small dense matrices. Norms are compositions; the rest is NumPy's LAPACK, run as a host callback:
at every call by Python, also in a compiled function, with the same bits on one machine and thread setting.

Gradients: M. Giles, "An extended collection of matrix derivative results for forward and reverse mode algorithmic
differentiation" (2008); of the Cholesky factor, I. Murray, "Differentiation of the Cholesky decomposition" (2016).
They are operations again, so that gradients of gradients exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphc.errors import ArgumentError, DimError, DTypeError, LinAlgError, ShapeError
from graphc.frontend import functional as F
from graphc.frontend.autograd_function import Function, FunctionCtx
from graphc.frontend.creation import eye
from graphc.frontend.promote import convert, tensor_operand
from graphc.frontend.record.callbacks import host
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.infer import normalize_dim
from graphc.ir.types import DType, float32, float64

__all__ = [
    "LinAlgError",
    "cholesky",
    "det",
    "eigh",
    "eigvalsh",
    "inv",
    "matrix_norm",
    "norm",
    "slogdet",
    "solve",
    "vector_norm",
]


class EighResult(NamedTuple):
    """Ascending eigenvalues [..., N] and eigenvectors as columns [..., N, N]."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class SlogdetResult(NamedTuple):
    """The sign of a determinant and the logarithm of its size."""

    sign: Tensor
    logabsdet: Tensor


def _matrix(name: str, x: Any, square: bool = True) -> Tensor:
    """`x` itself. Raises ShapeError, DTypeError."""
    found = tensor_operand(name, x)
    if found.ndim < 2 or (square and found._l.shape[-1] != found._l.shape[-2]):
        what = "batches of square matrices" if square else "at least 2 dimensions"
        raise ShapeError(f"{name}: expected {what}, got {found._l.type}")
    if found.dtype not in (float32, float64):
        raise DTypeError(f"{name}: expected float32 or float64, got {found._l.type}; convert it first")
    return found


def _lapack(name: str, fn: Callable[..., Any], *tensors: Tensor) -> Any:
    try:
        return fn(*(t._a for t in tensors))
    except np.linalg.LinAlgError as error:
        raise LinAlgError(f"{name}: {error}") from None


def _inv_host(a: Tensor) -> Tensor:
    return fresh(_lapack("linalg.inv", np.linalg.inv, a))


def _solve_host(a: Tensor, b: Tensor) -> Tensor:
    return fresh(_lapack("linalg.solve", np.linalg.solve, a, b))


def _det_host(a: Tensor) -> Tensor:
    return fresh(np.asarray(_lapack("linalg.det", np.linalg.det, a)))


def _slogdet_host(a: Tensor) -> tuple[Tensor, Tensor]:
    sign, size = _lapack("linalg.slogdet", np.linalg.slogdet, a)
    return fresh(np.asarray(sign)), fresh(np.asarray(size))


def _cholesky_host(a: Tensor) -> Tensor:
    return fresh(_lapack("linalg.cholesky", np.linalg.cholesky, a))


def _eigh_host(a: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = _lapack("linalg.eigh", np.linalg.eigh, a)
    return fresh(values), fresh(vectors)


class _Inverse(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor) -> Tensor:
        """The inverse."""
        found: Tensor = host(_inv_host, a)
        ctx.save_for_backward(found)
        return found

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Any) -> Any:
        """-X^T g X^T."""
        (x,) = _saved(ctx)
        return -F.matmul(F.matmul(_t(x), grads[0]), _t(x))


class _Solve(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor, b: Tensor) -> Tensor:
        """X with A X = B."""
        found: Tensor = host(_solve_host, a, b)
        ctx.save_for_backward(a, found)
        return found

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Any) -> Any:
        """A^-T g for B, and -that X^T for A."""
        a, x = _saved(ctx)
        b: Tensor = _Solve.apply(_t(a), grads[0])
        return -F.matmul(b, _t(x)), b


class _Det(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor) -> Tensor:
        """The determinant."""
        found: Tensor = host(_det_host, a)
        ctx.save_for_backward(a, found)
        return found

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Any) -> Any:
        """g det A^-T."""
        a, d = _saved(ctx)
        return _wide(grads[0] * d) * _t(_Inverse.apply(a))


class _Slogdet(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor) -> tuple[Tensor, Tensor]:
        """Sign and log |det|."""
        sign, size = host(_slogdet_host, a)
        ctx.save_for_backward(a)
        ctx.mark_non_differentiable(sign)
        return sign, size

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Any) -> Any:
        """g A^-T."""
        (a,) = _saved(ctx)
        return _wide(grads[1]) * _t(_Inverse.apply(a))


class _Cholesky(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor) -> Tensor:
        """The lower factor."""
        found: Tensor = host(_cholesky_host, a)
        ctx.save_for_backward(found)
        return found

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Any) -> Any:
        """L^-T Phi(L^T g) L^-1, symmetric; Phi takes the lower triangle and half of the diagonal."""
        (low,) = _saved(ctx)
        inverse: Tensor = _Inverse.apply(low)
        phi = F.tril(F.matmul(_t(low), grads[0])) * _halves(low)
        found = F.matmul(F.matmul(_t(inverse), phi), inverse)
        return (found + _t(found)) * 0.5


class _Eigh(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors."""
        values, vectors = host(_eigh_host, a)
        ctx.save_for_backward(values, vectors)
        return values, vectors

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Any) -> Any:
        """V (diag(gw) + (V^T gV) / (w_j - w_i)) V^T, made symmetric."""
        values, vectors = _saved(ctx)
        gaps = F.unsqueeze(values, -2) - F.unsqueeze(values, -1)
        same = eye(gaps._l.shape[-1], dtype=gaps.dtype)
        inner = F.matmul(_t(vectors), grads[1]) * (1.0 - same) / (gaps + same) + same * F.unsqueeze(grads[0], -1)
        found = F.matmul(F.matmul(vectors, inner), _t(vectors))
        return (found + _t(found)) * 0.5


def _saved(ctx: FunctionCtx) -> tuple[Any, ...]:
    return ctx.saved_tensors


def _t(x: Any) -> Tensor:
    return F.transpose(x, -2, -1)


def _wide(x: Any) -> Tensor:
    return F.unsqueeze(F.unsqueeze(x, -1), -1)


def _halves(like: Any) -> Tensor:
    return 1.0 - 0.5 * eye(like._l.shape[-1], dtype=like.dtype)


def inv(A: Tensor) -> Tensor:
    """The inverses of [..., N, N]. Raises LinAlgError for a singular matrix, ShapeError, DTypeError."""
    found: Tensor = _Inverse.apply(_matrix("linalg.inv", A))
    return found


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X with A X = B (X A = B unless `left`) for A [..., N, N] and B [..., N, K] or, for a single system, [N].

    Batches broadcast. Raises LinAlgError for a singular matrix, ShapeError, DTypeError.
    """
    a, b = _matrix("linalg.solve", A), tensor_operand("linalg.solve", B)
    if a.dtype is not b.dtype:
        raise DTypeError(f"linalg.solve: expected A and B of one dtype, got {a._l.type} and {b._l.type}")
    # as PyTorch: B are vectors if it has one dimension, or the shape of A without its last axis
    vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b._l.shape == a._l.shape[:-1])
    b = F.unsqueeze(b, -1) if vector else b
    if not left:
        if vector:
            raise ShapeError("linalg.solve: left=False needs B to be a matrix or a batch of them")
        a, b = _t(a), _t(b)
    if b._l.shape[-2] != a._l.shape[-1]:
        raise ShapeError(f"linalg.solve: A {A._l.type} and B {B._l.type} do not fit")
    batch = F.broadcast_shapes(a._l.shape[:-2], b._l.shape[:-2])
    found: Tensor = _Solve.apply(F.expand(a, *batch, *a._l.shape[-2:]), F.expand(b, *batch, *b._l.shape[-2:]))
    if vector:
        return F.squeeze(found, -1)
    return found if left else _t(found)


def det(A: Tensor) -> Tensor:
    """The determinants of [..., N, N]. The gradient needs an inverse: LinAlgError for a singular matrix there."""
    found: Tensor = _Det.apply(_matrix("linalg.det", A))
    return found


def slogdet(A: Tensor) -> SlogdetResult:
    """Signs and logarithms of the sizes of the determinants of [..., N, N]; 0 and -inf for singular ones."""
    return SlogdetResult(*_Slogdet.apply(_matrix("linalg.slogdet", A)))


def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """L with L L^T = A (U with U^T U = A if `upper`) for symmetric positive definite [..., N, N], of which the lower
    triangle is read. Raises LinAlgError for others.
    """
    found: Tensor = _Cholesky.apply(_matrix("linalg.cholesky", A))
    return _t(found) if upper else found


def eigh(A: Tensor, UPLO: str = "L") -> EighResult:
    """Eigenvalues, ascending, and eigenvectors of symmetric [..., N, N], of which one triangle is read.

    The gradient through eigenvectors needs eigenvalues that differ. Raises ArgumentError unless UPLO is "L" or "U".
    """
    a = _matrix("linalg.eigh", A)
    if UPLO.upper() not in ("L", "U"):
        raise ArgumentError(f"linalg.eigh: UPLO must be 'L' or 'U', got {UPLO!r}")
    return EighResult(*_Eigh.apply(a if UPLO.upper() == "L" else _t(a)))


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of eigh()."""
    return eigh(A, UPLO).eigenvalues


# ---------------------------------------------------------------- norms


def _axes(name: str, x: Tensor, dim: int | Sequence[int]) -> list[int]:
    return [normalize_dim(name, d, x.ndim) for d in ([dim] if isinstance(dim, int) else dim)]


def vector_norm(
    x: Tensor,
    ord: float = 2,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Tensor:
    """The p-norm of the elements along `dim` (all of them): inf the largest, -inf the smallest, 0 the number of those
    that are not 0. Raises DTypeError for integers.
    """
    return F.norm(tensor_operand("linalg.vector_norm", x), float(ord), dim, keepdim, dtype=dtype)


def matrix_norm(
    A: Tensor,
    ord: float | str = "fro",
    dim: Sequence[int] = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Tensor:
    """A norm of the matrices in two axes: "fro", inf and -inf (largest and smallest sum of sizes of a row), 1 and -1
    (of a column). Raises ArgumentError for those of singular values.
    """
    name = "linalg.matrix_norm"
    x = tensor_operand(name, A)
    if not x.dtype.is_floating_point:
        raise DTypeError(f"{name}: expected a floating-point tensor, got {x._l.type}")
    axes = _axes(name, x, dim)
    if len(axes) != 2 or axes[0] == axes[1]:
        raise DimError(f"{name}: dim must be two different axes, got {dim!r}")
    x = x if dtype is None else convert(x, dtype)
    if ord == "fro":
        return F.norm(x, 2.0, axes, keepdim)
    if ord not in (1, -1, math.inf, -math.inf):
        raise ArgumentError(f"{name}: ord must be 'fro', 1, -1, inf or -inf, got {ord!r}; there is no SVD")
    rows, columns = axes
    summed, other = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = F.sum(F.abs(x), summed, True)
    found = (F.amax if ord > 0 else F.amin)(sums, other, True)
    return found if keepdim else F.squeeze(found, axes)


def norm(
    A: Tensor,
    ord: float | str | None = None,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Tensor:
    """The Euclidean norm of the elements without `ord`; with one, a vector norm for one axis and a matrix norm for two
    (without `dim`, those of the tensor). Raises ArgumentError.
    """
    x = tensor_operand("linalg.norm", A)
    if ord is None:
        return vector_norm(x, 2, dim, keepdim, dtype=dtype)
    axes = list(range(x.ndim)) if dim is None else _axes("linalg.norm", x, dim)
    if len(axes) == 2:
        return matrix_norm(x, ord, axes, keepdim, dtype=dtype)
    if len(axes) != 1 or isinstance(ord, str):
        raise ArgumentError(
            f"linalg.norm: ord {ord!r} needs one axis (a number) or two of them, got {len(axes)}; give dim"
        )
    return vector_norm(x, ord, axes, keepdim, dtype=dtype)
