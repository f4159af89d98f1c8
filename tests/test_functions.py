"""Functions made of others: NumPy is the oracle, and a graph gives the bits of eager execution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import ArgumentError, AutogradError, DTypeError, IndexingError, RecordingError, ShapeError
from graphc.testing import assert_same

X = np.array([-2.5, -1.0, -0.5, -0.0, 0.0, 0.25, 0.9, 1.0, 2.0, 30.0])
Y = np.array([1.5, -0.0, 2.0, 3.0, -1.0, 0.5, 0.0, -4.0, 0.25, 1.0])

UNARY: dict[str, Callable[[np.ndarray], Any]] = {
    "acos": np.arccos, "acosh": np.arccosh, "asin": np.arcsin, "asinh": np.arcsinh, "atan": np.arctan,
    "atanh": np.arctanh, "cosh": np.cosh, "sinh": np.sinh, "exp2": np.exp2, "rad2deg": np.rad2deg, "sinc": np.sinc,
    "isposinf": np.isposinf, "isneginf": np.isneginf, "signbit": np.signbit, "fix": np.fix,
    "sgn": lambda x: np.nan_to_num(np.sign(x)) + 0.0,
    "erfinv": lambda x: np.vectorize(_erfinv)(x),
    "logit": lambda x: np.log(x / (1 - x)),
}  # fmt: skip
BINARY: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "atan2": np.arctan2, "copysign": np.copysign, "fmax": np.fmax, "fmin": np.fmin, "hypot": np.hypot,
    "heaviside": np.heaviside, "float_power": np.float_power, "logaddexp2": np.logaddexp2,
    "ldexp": lambda x, y: x * 2.0**y,
    "xlogy": lambda x, y: np.where(x == 0, 0.0, x * np.log(y)),
}  # fmt: skip


def _erfinv(x: float) -> float:
    if not abs(x) < 1:
        return math.copysign(math.inf, x) if abs(x) == 1 else math.nan
    low, high = -7.0, 7.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < x else (low, middle)
    return low if x else x


@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_against_numpy(name: str) -> None:
    function = getattr(graphc, name)
    for extra in (np.array([]), np.array([np.inf, -np.inf, np.nan])):
        x, y = np.concatenate([X, extra]), np.concatenate([Y, extra[::-1]])
        if name == "heaviside":
            x, y = x[~np.isnan(x)], y[~np.isnan(x)]
        arrays = (x,) if name in UNARY else (x, y)
        with np.errstate(all="ignore"):
            expected = np.asarray((UNARY | BINARY)[name](*arrays))
        found = function(*map(graphc.tensor, arrays))
        np.testing.assert_allclose(found.numpy(), expected, rtol=2e-14, atol=1e-15)
        if expected.dtype == np.float64 and name != "atan2":
            zero = expected == 0
            np.testing.assert_array_equal(np.signbit(found.numpy()[zero]), np.signbit(expected[zero]))


@pytest.mark.parametrize("dtype", [graphc.float16, graphc.bfloat16, graphc.float32], ids=str)
def test_smaller_floats_are_computed_wider_and_rounded_once(dtype: Any) -> None:
    x = graphc.tensor(X).to(dtype)
    y = graphc.tensor(Y).to(dtype)
    for name in (*UNARY, *BINARY):
        operands = (x,) if name in UNARY else (x, y)
        found = getattr(graphc, name)(*operands)
        wide = getattr(graphc, name)(*(t.double() for t in operands))
        assert found.dtype is (wide.dtype if wide.dtype is graphc.bool or name == "float_power" else dtype)
        rounded = wide.to(found.dtype).to(wide.dtype)
        rtol = 4e-6 if dtype is graphc.float32 else 2 * graphc.finfo(dtype).eps
        graphc.testing.assert_close(found.to(wide.dtype), rounded, equal_nan=True, rtol=rtol, atol=1e-6)


def test_they_compile() -> None:
    def every(x: graphc.Tensor, y: graphc.Tensor) -> list[graphc.Tensor]:
        return [getattr(graphc, n)(x) for n in UNARY] + [getattr(graphc, n)(x, y) for n in BINARY]

    for dtype in (graphc.float64, graphc.float32, graphc.bfloat16):
        assert_same(every, graphc.tensor(X).to(dtype), graphc.tensor(Y).to(dtype), threads=(1,))


def test_their_gradients_compile() -> None:
    names = ("acos", "asin", "atan", "sinh", "cosh", "asinh", "atanh", "erfinv", "sinc", "logit")

    def fn(x: graphc.Tensor, y: graphc.Tensor) -> tuple[Any, ...]:
        a, b = x.detach().requires_grad_(), y.detach().requires_grad_()
        total = sum(getattr(graphc, n)(a).sum() for n in names)
        total = total + graphc.atan2(a, b).sum() + graphc.hypot(a, b).sum() + graphc.copysign(a, b).sum()
        (total + graphc.xlogy(a, b).sum() + graphc.fmax(a, b).sum()).backward()
        return a.grad, b.grad

    assert_same(fn, graphc.tensor([0.1, 0.5, 0.7]), graphc.tensor([2.0, 0.3, 0.6]), threads=(1,))


def test_gradients_where_the_formula_has_a_hole() -> None:
    x = graphc.tensor([0.0, 0.0, 1.0], requires_grad=True)
    y = graphc.tensor([0.0, 2.0, 1.0], requires_grad=True)
    (graphc.sinc(x) + graphc.hypot(x, y) + graphc.xlogy(x, y)).sum().backward()
    assert graphc.isfinite(x.grad[1:]).all()
    assert graphc.isfinite(y.grad).all()


@pytest.mark.parametrize("dtype", [graphc.uint8, graphc.int8, graphc.int16, graphc.int32, graphc.int64], ids=str)
def test_shifts(dtype: Any) -> None:
    values = [1, 2, 100] + ([-3] if dtype.is_signed else [])
    x = graphc.tensor(values, dtype=dtype)
    for count in (0, 1, 7, 8, 31, 63, 64, 100, -1):
        inside = 0 <= count < dtype.bits
        left = [(v << count if inside else 0) for v in values]
        right = [v >> (count if inside else dtype.bits) for v in values]
        assert (x << count).tolist() == np.array([v % 2**64 for v in left], np.uint64).astype(dtype.np).tolist()
        assert (x >> count).tolist() == right
    assert (1 << graphc.tensor([3], dtype=dtype)).tolist() == [8]
    x <<= 1
    assert x.dtype is dtype
    with pytest.raises(DTypeError, match="bitwise_left_shift: takes integer tensors"):
        graphc.ones(2) << 1


# ---------------------------------------------------------------- counting


def test_bincount() -> None:
    x = graphc.tensor([1, 5, 1])
    assert x.bincount().tolist() == [0, 2, 0, 0, 0, 1]
    assert graphc.bincount(x, graphc.tensor([0.5, 1.0, 2.0]), minlength=7).tolist() == [0, 2.5, 0, 0, 0, 1, 0]
    assert graphc.bincount(graphc.tensor([], dtype=graphc.int64)).shape == (0,)
    with pytest.raises(ArgumentError, match="non-negative integral inputs, one is -1"):
        graphc.bincount(graphc.tensor([-1]))
    assert_same(lambda t: graphc.bincount(t, minlength=8), x, threads=(1,))


@pytest.mark.parametrize("right", [False, True])
def test_searchsorted(right: bool) -> None:
    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 7, 8, 100):
        rows = np.sort(rng.integers(0, 20, size)).astype(float)
        values = rng.integers(-1, 22, (3, 5)).astype(float)
        expected = np.searchsorted(rows, values, "right" if right else "left")
        x, v = graphc.tensor(rows), graphc.tensor(values)
        assert graphc.searchsorted(x, v, right=right).tolist() == expected.tolist()
        assert graphc.bucketize(v, x, right=right, out_int32=True).dtype is graphc.int32
        assert_same(lambda a, b: graphc.searchsorted(a, b, right=right), x, v, threads=(1,))
    several = graphc.tensor([[1, 3, 5], [2, 4, 6]])
    assert graphc.searchsorted(several, graphc.tensor([[3, 6], [4, 1]]), side="left").tolist() == [[1, 3], [1, 0]]
    with pytest.raises(ShapeError, match="searchsorted: the sequence"):
        graphc.searchsorted(several, graphc.ones(3, 1))


@pytest.mark.parametrize("count", [0, 1, 20, 200])
def test_isin(count: int) -> None:
    rng = np.random.default_rng(1)
    x, tests = rng.integers(0, 50, (4, 6)), rng.integers(0, 50, count)
    found = graphc.isin(graphc.tensor(x), graphc.tensor(tests))
    assert found.tolist() == np.isin(x, tests).tolist()
    assert graphc.isin(graphc.tensor(x), graphc.tensor(tests), invert=True).tolist() == (~np.isin(x, tests)).tolist()
    nan = graphc.tensor([float("nan")])
    assert not graphc.isin(nan, nan).any()


def test_histograms() -> None:
    x = np.random.default_rng(2).uniform(-1, 3, 500)
    for bins, low, high in ((4, 0.0, 2.0), (10, -1.0, 3.0)):
        expected, edges = np.histogram(x, bins, (low, high))
        assert graphc.histc(graphc.tensor(x), bins, low, high).tolist() == expected.tolist()
        counts, limits = graphc.histogram(graphc.tensor(x), bins, range=(low, high), density=True)
        np.testing.assert_allclose(counts.numpy(), np.histogram(x, bins, (low, high), density=True)[0])
        np.testing.assert_allclose(limits.numpy(), edges)
    assert graphc.histc(graphc.tensor([1.0, 2.0, 5.0]), 2).tolist() == [2, 1]
    with pytest.raises(ArgumentError, match="max must be larger than min"):
        graphc.histc(graphc.tensor([1.0]), 2, 3, 1)
    assert_same(lambda t: graphc.histc(t, 5, -1, 2), graphc.tensor(x), threads=(1,))


# ---------------------------------------------------------------- windows, differences, distances


def test_windows() -> None:
    for n in (0, 1, 2, 7):
        for name, make in (("hann", np.hanning), ("hamming", np.hamming), ("blackman", np.blackman),
                           ("bartlett", np.bartlett)):  # fmt: skip
            function = getattr(graphc, f"{name}_window")
            np.testing.assert_allclose(function(n, False, dtype=graphc.float64).numpy(), make(n), atol=1e-15)
            if n > 1:
                np.testing.assert_allclose(function(n, dtype=graphc.float64).numpy(), make(n + 1)[:-1], atol=1e-15)


def test_differences_and_areas() -> None:
    x = np.random.default_rng(3).standard_normal((3, 5))
    t = graphc.tensor(x)
    for n in (0, 1, 2, 6):
        np.testing.assert_array_equal(graphc.diff(t, n).numpy(), np.diff(x, n))
    np.testing.assert_array_equal(t.diff(dim=0, append=t[:1]).numpy(), np.diff(x, axis=0, append=x[:1]))
    np.testing.assert_allclose(graphc.trapezoid(t, dx=0.5).numpy(), np.trapezoid(x, dx=0.5))
    places = np.array([0.0, 1.0, 3.0])
    np.testing.assert_allclose(
        graphc.trapezoid(t, graphc.tensor(places), dim=0).numpy(), np.trapezoid(x, places, axis=0)
    )
    assert_same(lambda a: (graphc.diff(a, 2), graphc.trapezoid(a, dim=0)), t, threads=(1,))


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.5, math.inf])
def test_distances(p: float) -> None:
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 5, 3))
    gaps = x[:, :, None] - y[:, None]
    expected = np.linalg.norm(gaps, p, axis=-1)
    np.testing.assert_allclose(graphc.cdist(graphc.tensor(x), graphc.tensor(y), p).numpy(), expected)
    if p:
        a = graphc.tensor(x, requires_grad=True)
        graphc.cdist(a, a.detach(), p).sum().backward()
        assert graphc.isfinite(a.grad).all()
    flat = np.linalg.norm((x[0] - x[1]).ravel(), p)
    np.testing.assert_allclose(graphc.dist(graphc.tensor(x[0]), graphc.tensor(x[1]), p).item(), flat)


def test_cosine_similarity() -> None:
    x, y = np.random.default_rng(5).standard_normal((2, 4, 3))
    expected = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    np.testing.assert_allclose(graphc.cosine_similarity(graphc.tensor(x), graphc.tensor(y)).numpy(), expected)


# ---------------------------------------------------------------- places


def test_take_and_put() -> None:
    x = graphc.arange(6).reshape(2, 3)
    assert x.take(graphc.tensor([[0, -1]])).tolist() == [[0, 5]]
    assert x.put(graphc.tensor([1, 1]), graphc.tensor([9, 8]), accumulate=True).tolist() == [[0, 18, 2], [3, 4, 5]]
    assert x.put_(graphc.tensor([-1]), graphc.tensor([7])) is x
    assert x[1, 2].item() == 7
    with pytest.raises(IndexingError, match="take: index 6 is out of bounds"):
        x.take(graphc.tensor([6]))
    assert_same(lambda t, i: (t.take(i), t.put(i, i, accumulate=True)), x, graphc.tensor([0, 4, 0]), threads=(1,))


def test_masked_scatter() -> None:
    def fn(x: graphc.Tensor, m: graphc.Tensor, s: graphc.Tensor) -> graphc.Tensor:
        return x.masked_scatter(m, s)

    x, m, s = graphc.zeros(2, 3), graphc.tensor([[True, False, True], [False, True, False]]), graphc.arange(5.0)
    expected = np.zeros((2, 3))
    expected[m.numpy()] = np.arange(3.0)
    assert fn(x, m, s).tolist() == expected.tolist()
    assert_same(fn, x, m, s, threads=(1,))
    v = graphc.arange(4.0).requires_grad_()
    fn(x, m, v).sum().backward()
    assert v.grad.tolist() == [1, 1, 1, 0]
    with pytest.raises(ShapeError, match="the mask holds at 3 elements, but source"):
        fn(x, m, s[:2])
    compiled = graphc.compile(fn)
    for _ in range(3):
        assert compiled(x, m, s[:3]).tolist() == expected.tolist()
    with pytest.raises(ShapeError, match="the mask holds at 6 elements"):
        compiled(x, m | ~m, s[:3])


def test_diagonals() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    t = graphc.tensor(x)
    for offset in range(-3, 5):
        for a, b in ((0, 1), (1, 2), (2, 0), (-1, -2)):
            expected = np.diagonal(x, offset, a, b)
            np.testing.assert_array_equal(t.diagonal(offset, a, b).numpy(), expected)
        made = t[0, :, 0].diag_embed(offset)
        np.testing.assert_array_equal(made.numpy(), np.diag(x[0, :, 0], offset))
    assert t[0].trace().item() == np.trace(x[0])
    w = graphc.tensor(x[0], requires_grad=True)
    w.diagonal(1).sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), np.eye(3, 4, 1))
    assert_same(lambda a: (a.diagonal(0, 1, 2), a[0, 0].diag_embed()), t, threads=(1,))
    t[0].diagonal(1).fill_(-1)
    assert t[0].tolist() == [[0, -1, 2, 3], [4, 5, -1, 7], [8, 9, 10, -1]]
    assert graphc.diagonal_scatter(graphc.zeros(2, 2), graphc.ones(2)).tolist() == [[1, 0], [0, 1]]


def test_windows_of_an_axis() -> None:
    x = graphc.arange(12.0).reshape(3, 4)
    expected = np.lib.stride_tricks.sliding_window_view(x.numpy(), 2, 1)
    assert x.unfold(1, 2, 1).tolist() == expected.tolist()
    assert x.unfold(0, 2, 1).shape == (2, 4, 2)
    assert graphc.arange(7).unfold(0, 3, 2).tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    w = x.clone().requires_grad_()
    w.unfold(1, 3, 1).sum().backward()
    assert w.grad.tolist() == [[1, 2, 2, 1]] * 3
    assert x.unfold(1, 0, 2).shape == (3, 3, 0)
    with pytest.raises(ShapeError, match="unfold: maximum size"):
        x.unfold(0, 4, 1)
    x.unfold(1, 2, 2)[0] = 0
    assert x[0].tolist() == [0, 0, 0, 0]
    with pytest.raises(ShapeError, match="single memory location"):
        x.unfold(1, 3, 1).add_(1)


# ---------------------------------------------------------------- in-place changes of shape


def test_in_place_changes_of_shape_are_views_of_the_same_memory() -> None:
    x = graphc.arange(6.0).reshape(2, 3).clone()
    other = x.detach()
    assert x.t_() is x
    assert x.shape == (3, 2)
    assert x.unsqueeze_(0).shape == (1, 3, 2)
    assert x.transpose_(0, 2).shape == (2, 3, 1)
    assert x.squeeze_().shape == (2, 3)
    x[0, 1] = 9
    assert other.shape == (2, 3)
    assert other[0, 1].item() == 9
    y = (x * graphc.ones(2, 3, requires_grad=True)).sum()
    assert y.requires_grad


def test_resize() -> None:
    x = graphc.arange(6)
    assert x.resize_(2, 2).tolist() == [[0, 1], [2, 3]]
    y = graphc.arange(3)
    assert y.resize_(2, 3).tolist() == [[0, 1, 2], [0, 0, 0]]
    assert y.resize_as_(graphc.ones(3, 2)).shape == (3, 2)
    with pytest.raises(ArgumentError, match="this tensor is a view"):
        graphc.arange(4)[1:].resize_(9)


def test_shapes_that_may_not_change_in_place() -> None:
    with pytest.raises(AutogradError, match=r"t_: a tensor that requires grad keeps its shape; use t\(\)"):
        graphc.ones(2, 3, requires_grad=True).t_()

    def fn(x: graphc.Tensor) -> graphc.Tensor:
        x.unsqueeze_(0)
        return x * 2

    with pytest.raises(RecordingError, match="unsqueeze_"):
        graphc.compile(fn, fullgraph=True)(graphc.ones(2))


def test_sequences() -> None:
    assert graphc.logspace(0, 2, 3).tolist() == [1.0, 10.0, 100.0]
    assert graphc.range(1, 2, 0.5).tolist() == [1.0, 1.5, 2.0]
    for k in (-1, 0, 2):
        assert graphc.tril_indices(3, 4, k).tolist() == np.stack(np.tril_indices(3, k, 4)).tolist()
        assert graphc.triu_indices(3, 4, k).tolist() == np.stack(np.triu_indices(3, k, 4)).tolist()
