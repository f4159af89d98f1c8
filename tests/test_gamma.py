"""erfc, lgamma, digamma and polygamma: accuracy against exact identities and the standard library, special values."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.compiler import eager_run
from graphc.errors import ArgumentError
from graphc.ir.op import op_named
from graphc.testing import assert_same

Array = np.ndarray[Any, Any]
INF, NAN = math.inf, math.nan
EULER = 0.57721566490153286


def ulps(found: Array, want: Array) -> float:
    """The greatest difference in units in the last place of `want`."""
    return float(np.max(np.abs(found - want) / np.spacing(np.abs(want))))


def spread(low: float, high: float, seed: int = 0) -> Array:
    """Random arguments."""
    return np.random.default_rng(seed).uniform(low, high, 2000)


@pytest.mark.parametrize(("low", "high"), [(-6.0, 0.5), (0.5, 2.0), (2.0, 26.0)])
def test_erfc(low: float, high: float) -> None:
    """Below 3 ulp of the true value, down to the end of the normal numbers; the library's own error on top."""
    x = spread(low, high)
    assert ulps(graphc.tensor(x).erfc().numpy(), np.vectorize(math.erfc)(x)) <= 5
    assert ulps(graphc.tensor(x.astype("f")).erfc().numpy(), np.vectorize(math.erfc)(x.astype("f")).astype("f")) <= 1


def log_gamma(x: Array) -> Array:
    """In long double: the recurrence up to 40, then Stirling's series."""
    y = np.asarray(x, np.longdouble)
    product = np.ones_like(y)
    for _ in range(40):
        product, y = product * y, y + 1
    pi = np.arctan(np.longdouble(1)) * 4
    series = 1 / (12 * y) - 1 / (360 * y**3) + 1 / (1260 * y**5) - 1 / (1680 * y**7) + 1 / (1188 * y**9)
    return np.asarray((y - 0.5) * np.log(y) - y + np.log(2 * pi) / 2 + series - np.log(np.abs(product)))


@pytest.mark.parametrize(("low", "high"), [(-0.5, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 8.0), (8.0, 1e4)])
def test_lgamma(low: float, high: float) -> None:
    """Below 4 ulp for x > -0.5, at the zeros 1 and 2 too."""
    x = spread(low, high)
    error = np.abs(graphc.tensor(x).lgamma().numpy() - log_gamma(x))
    want = log_gamma(x).astype(np.float64)
    assert np.all(
        error <= 4 * np.spacing(np.abs(want)) + 1e-16
    )  # the reference has an error of its own next to 1 and 2


def test_lgamma_of_whole_numbers_and_negatives() -> None:
    """log (n - 1)!, exact zeros, and the reflected side, whose error is that of its terms."""
    n = np.arange(1.0, 150.0)
    want = np.array([math.log(math.factorial(int(k) - 1)) for k in n])
    found = graphc.tensor(n).lgamma().numpy()
    assert found[:2].tolist() == [0.0, 0.0] and ulps(found[2:], want[2:]) <= 4
    near = 1e-9  # lgamma(1 + z) = -EULER z + pi^2 / 12 z^2 - …, lgamma(2 + z) = (1 - EULER) z + …
    z = 1 + near - 1
    assert graphc.tensor(1 + near, dtype=graphc.float64).lgamma().item() == pytest.approx(
        -EULER * z + math.pi**2 / 12 * z * z, rel=1e-15
    )
    x = spread(-30, -0.5)
    np.testing.assert_allclose(graphc.tensor(x).lgamma().numpy(), np.vectorize(math.lgamma)(x), rtol=1e-14, atol=5e-14)


def test_digamma_of_whole_numbers_and_halves() -> None:
    """psi(n) = H(n - 1) - EULER; psi(n + 1/2) = -EULER - 2 log 2 + 2 (1 + 1/3 + … + 1/(2n - 1))."""
    sums = [sum((Fraction(1, k) for k in range(1, n)), Fraction(0)) for n in range(1, 40)]
    want = np.array([float(s) - EULER for s in sums])
    found = graphc.arange(1.0, 40.0, dtype=graphc.float64).digamma().numpy()
    np.testing.assert_allclose(found, want, rtol=2e-15)
    odd = [sum((Fraction(2, 2 * k - 1) for k in range(1, n + 1)), Fraction(0)) for n in range(20)]
    want = np.array([float(s) for s in odd]) - EULER - 2 * math.log(2)
    found = graphc.arange(0.5, 20.0, dtype=graphc.float64).digamma().numpy()
    np.testing.assert_allclose(found, want, rtol=4e-15, atol=1e-15)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10])
def test_polygamma_recurrence_and_reflection(n: int) -> None:
    """psi_n(x + 1) - psi_n(x) = (-1)^n n! / x^(n + 1), on both sides of 0 and across the ends of every range."""
    x = np.concatenate([spread(0.05, 15), np.arange(-4.0, 0.0).repeat(5) + np.tile([0.15, 0.3, 0.45, 0.6, 0.8], 4)])
    here, there = (graphc.polygamma(n, graphc.tensor(v)).numpy() for v in (x, x + 1))
    step = (-1) ** n * math.factorial(n) / x ** (n + 1)
    size = np.maximum(np.abs(here), np.abs(step))
    assert np.max(np.abs(there - here - step) / size) < 2e-14


def test_polygamma_constants() -> None:
    """psi_1(1) = pi^2 / 6, psi_1(1/2) = pi^2 / 2, psi_3(1) = pi^4 / 15."""
    x = graphc.tensor([1.0, 0.5], dtype=graphc.float64)
    np.testing.assert_allclose(graphc.polygamma(1, x).numpy(), [math.pi**2 / 6, math.pi**2 / 2], rtol=1e-15)
    assert x.polygamma(3)[0].item() == pytest.approx(math.pi**4 / 15, rel=1e-15)
    assert graphc.polygamma(0, x).tolist() == x.digamma().tolist()


SPECIAL = [0.0, -0.0, -1.0, -2.0, INF, -INF, NAN]
VALUES = {
    "lgamma": [INF, INF, INF, INF, INF, INF, NAN],
    "digamma": [-INF, INF, NAN, NAN, INF, NAN, NAN],
    "erfc": [1.0, 1.0, None, None, 0.0, 2.0, NAN],
}


@pytest.mark.parametrize("name", list(VALUES))
def test_special_values(name: str) -> None:
    for dtype in (graphc.float32, graphc.float64):
        found = getattr(graphc, name)(graphc.tensor(SPECIAL, dtype=dtype)).tolist()
        for x, a, b in zip(SPECIAL, found, VALUES[name], strict=True):
            assert b is None or a == b or (math.isnan(a) and math.isnan(b)), (name, x, a)


def test_as_torch() -> None:
    """Values and gradients in float32 and float64, integers, and torch's special values."""
    torch = pytest.importorskip("torch")
    for dtype, tolerance in (("float32", 2e-6), ("float64", 1e-13)):
        data = np.concatenate([spread(-0.9, -0.1)[:50], spread(0.1, 20)[:50]]).astype(dtype)
        for name in ("erfc", "lgamma", "digamma"):
            x, y = graphc.tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
            a, b = getattr(x, name)(), getattr(y, name)()
            a.sum().backward()
            b.sum().backward()
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-5 if dtype == "float32" else 1e-8)
    for name in ("erfc", "lgamma", "digamma"):
        a, b = (getattr(lib, name)(lib.tensor(SPECIAL)).numpy() for lib in (graphc, torch))
        np.testing.assert_array_equal(a, b)
    assert graphc.lgamma(graphc.tensor([3])).dtype is graphc.float32


def test_compiled() -> None:
    """A Dirichlet likelihood with its gradient, and second derivatives."""
    a = graphc.rand(5, 3).add(0.3).requires_grad_()

    def loss(a: Any, x: Any) -> Any:
        a.grad = None
        found = ((a.sum(-1).lgamma() - a.lgamma().sum(-1)) + ((a - 1) * x.log()).sum(-1)).sum() + a.erfc().sum()
        found.backward()
        return found.detach(), a.grad, graphc.polygamma(2, a.detach())

    assert_same(loss, a, graphc.softmax(graphc.randn(5, 3), -1), reload=False)
    b = graphc.tensor([1.3], dtype=graphc.float64, requires_grad=True)
    (first,) = graphc.autograd.grad(b.lgamma().sum(), b, create_graph=True)
    first.sum().backward()
    assert b.grad.item() == graphc.polygamma(1, b.detach()).item()


def test_refused() -> None:
    with pytest.raises(ArgumentError, match="polygamma: n must be 0 to 10"):
        graphc.polygamma(11, graphc.ones(1))


@pytest.mark.parametrize(("name", "attrs"), [("lgamma", {}), *(("polygamma", {"n": n}) for n in range(4))])
def test_references_where_results_overflow(name: str, attrs: dict[str, int]) -> None:
    """They give the infinities of the kernels, where Python's own functions would raise."""
    op = op_named(name)
    x = np.array([1e-300, -1e-300, 1e306, 1e308, -1e-320, 3e150, 0.0, -0.0, -2.0, 5e-324, 1e-50])
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(eager_run(op, [x], attrs)[0], op.reference(x, **attrs), rtol=1e-12)
