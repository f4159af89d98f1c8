"""Linear algebra: against NumPy and PyTorch, gradients by differences, the same bits in compiled functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import linalg
from graphc.autograd import gradcheck, gradgradcheck
from graphc.errors import ArgumentError, DimError, DTypeError, LinAlgError, RecordingError, ShapeError

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((2, 4, 4)), RNG.standard_normal((2, 4, 3))
P = A @ A.swapaxes(-1, -2) + 4 * np.eye(4)
CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "inv": (lambda lib, x: lib.linalg.inv(x), (A,)),
    "solve": (lambda lib, x, y: lib.linalg.solve(x, y), (A, B)),
    "solve one": (lambda lib, x, y: lib.linalg.solve(x, y), (A[0], B[0, :, 0])),
    "solve many vectors": (lambda lib, x, y: lib.linalg.solve(x, y), (A, B[:, :, 0].copy())),
    "solve broadcast": (lambda lib, x, y: lib.linalg.solve(x, y), (A[0], B)),
    "solve right": (lambda lib, x, y: lib.linalg.solve(x, y, left=False), (A, B.swapaxes(-1, -2).copy())),
    "det": (lambda lib, x: lib.linalg.det(x), (A,)),
    "slogdet": (lambda lib, x: lib.linalg.slogdet(x)[0] * lib.linalg.slogdet(x).logabsdet, (A,)),
    "logdet": (lambda lib, x: x.logdet(), (P,)),
    "cholesky": (lambda lib, x: lib.linalg.cholesky(x), (P,)),
    "cholesky upper": (lambda lib, x: lib.linalg.cholesky(x, upper=True), (P,)),
    "eigvalsh": (lambda lib, x: lib.linalg.eigvalsh(x), (P,)),
    "eigh": (lambda lib, x: lib.linalg.eigh(x, "U")[1].square() @ lib.linalg.eigh(x)[0].unsqueeze(-1), (P,)),
    **{f"matrix norm {o}": (lambda lib, x, o=o: lib.linalg.matrix_norm(x, o), (A,)) for o in ("fro", 1, -1)},
    **{
        f"matrix norm {o}": (lambda lib, x, o=o: lib.linalg.matrix_norm(x, o, (2, 0), True), (A,))
        for o in (math.inf, -math.inf)
    },
    **{f"vector norm {o}": (lambda lib, x, o=o: lib.linalg.vector_norm(x, o, 1), (A,)) for o in (0, 1, 2, 3, math.inf)},
    "norm": (lambda lib, x: lib.linalg.norm(x), (A,)),
    "norm of axes": (lambda lib, x: lib.linalg.norm(x, 1, (0, 1)) + lib.linalg.norm(x, 3, -1).sum(), (A,)),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_as_torch(name: str) -> None:
    """Values and gradients."""
    torch = pytest.importorskip("torch")
    fn, arrays = CASES[name]

    def run(lib: Any) -> list[Any]:
        xs = [lib.tensor(a, requires_grad=True) for a in arrays]
        out = fn(lib, *xs)
        if out.requires_grad:
            (out * out).sum().backward()
        return [out.detach(), *(x.grad for x in xs if x.grad is not None)]

    for a, b in zip(run(graphc), run(torch), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["inv", "solve broadcast", "det", "cholesky", "eigh", "matrix norm 1"])
def test_compiled(name: str) -> None:
    """A compiled function is split at the callback; its gradients too."""
    fn, arrays = CASES[name]
    xs = [graphc.tensor(a.astype("float32"), requires_grad=True) for a in arrays]

    def run(*xs: Any) -> Any:
        for x in xs:
            x.grad = None
        out = fn(graphc, *xs)
        (out * out).sum().backward()
        return (out.detach(), *(x.grad for x in xs))

    graphc.testing.assert_same(run, *xs, reload=False)


def test_in_numpy() -> None:
    """What defines each result."""
    a, p = graphc.tensor(A), graphc.tensor(P)
    np.testing.assert_allclose((a @ a.inverse()).numpy(), np.broadcast_to(np.eye(4), (2, 4, 4)), atol=1e-12)
    np.testing.assert_allclose((a @ linalg.solve(a, graphc.tensor(B))).numpy(), B, atol=1e-12)
    low = linalg.cholesky(p)
    np.testing.assert_allclose((low @ low.mT).numpy(), P, rtol=1e-12)
    assert low.tolist() == low.tril().tolist()
    values, vectors = linalg.eigh(p)
    np.testing.assert_allclose((vectors @ values.diag_embed() @ vectors.mT).numpy(), P, rtol=1e-12)
    np.testing.assert_allclose(a.det().numpy(), np.linalg.det(A))
    assert graphc.logdet(graphc.tensor([[0.0, 1.0], [1.0, 0.0]])).isnan().item()
    assert graphc.logdet(graphc.zeros(2, 2)).item() == -math.inf


def test_gradients_of_gradients() -> None:
    x = graphc.tensor(A[0, :3, :3], requires_grad=True)
    for fn in (linalg.inv, linalg.det, lambda x: linalg.cholesky(x @ x.mT), lambda x: linalg.eigvalsh(x + x.mT)):
        assert gradcheck(fn, (x,)) and gradgradcheck(fn, (x,))


def test_singular_matrices() -> None:
    """Refused with the reason, in compiled functions too."""
    compiled = graphc.compile(lambda x: linalg.inv(x) + 1, fullgraph=True)
    for _ in range(3):
        assert compiled(graphc.eye(2)).tolist() == [[2, 1], [1, 2]]
    assert compiled.stats.hits == 1
    for call in (linalg.inv, lambda x: linalg.solve(x, x), compiled):
        with pytest.raises(LinAlgError, match=r"linalg\.\w+: Singular"):
            call(graphc.zeros(2, 2))
    with pytest.raises(LinAlgError, match="positive definite"):
        linalg.cholesky(-graphc.eye(2))


X = graphc.ones(3, 3)
REFUSED: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (ShapeError, "square", lambda: linalg.inv(X[:2])),
    (ShapeError, "square", lambda: linalg.det(X[0])),
    (DTypeError, "float32 or float64", lambda: linalg.inv(X.half())),
    (DTypeError, "one dtype", lambda: linalg.solve(X, X.double())),
    (ShapeError, "do not fit", lambda: linalg.solve(X, X[:2])),
    (ShapeError, "left=False", lambda: linalg.solve(X, X[0], left=False)),
    (ArgumentError, "UPLO", lambda: linalg.eigh(X, "X")),
    (ArgumentError, "no SVD", lambda: linalg.matrix_norm(X, 2)),
    (DimError, "different axes", lambda: linalg.matrix_norm(X, 1, (0, 0))),
    (DTypeError, "floating-point", lambda: linalg.matrix_norm(X.long())),
    (ArgumentError, "needs one axis", lambda: linalg.norm(X[None], 3)),
    (RecordingError, "cannot hold it", lambda: graphc.trace(linalg.inv, graphc.eye(2))),
]  # fmt: skip


@pytest.mark.parametrize(("error", "match", "call"), REFUSED)
def test_refused(error: type[Exception], match: str, call: Callable[[], Any]) -> None:
    """What does not fit is refused with the reason."""
    with pytest.raises(error, match=match):
        call()
