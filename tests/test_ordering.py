"""Sorting, running sums and what follows from them: against NumPy and PyTorch, gradients, and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import GraphcError, ShapeError
from tests.recorder_checks import bits, follows

Case = Callable[[Any, Any], Any]
FORMS: dict[str, Case] = {
    "sort": lambda N, x: x.sort(dim=0, stable=True),
    "sort down": lambda N, x: N.sort(x, dim=-1, descending=True, stable=True),
    "argsort": lambda N, x: x.argsort(dim=1, stable=True),
    "msort": lambda N, x: N.msort(x),
    "topk": lambda N, x: N.topk(x * 1.01 + N.arange(5), 3),
    "topk smallest": lambda N, x: (x + N.arange(5) / 7).topk(2, 1, largest=False),
    "kthvalue": lambda N, x: N.kthvalue(x + N.arange(5) / 7, 3),
    "kthvalue kept": lambda N, x: (x + N.arange(5) / 7).kthvalue(2, 1, keepdim=True),
    "median": lambda N, x: N.median(x),
    "median along": lambda N, x: (x + N.arange(5) / 7).median(1),
    "median kept": lambda N, x: x.median(0, True).values,
    "mode": lambda N, x: x.mode(1).values,
    "quantile": lambda N, x: x.quantile(0.3),
    "quantiles": lambda N, x: x.quantile(N.tensor([0.0, 0.25, 0.5, 1.0]), dim=1),
    "quantiles kept": lambda N, x: x.quantile(N.tensor([0.1, 0.9]), dim=0, keepdim=True),
    "quantile of all kept": lambda N, x: N.quantile(x, 0.75, keepdim=True),
    "cumsum": lambda N, x: (x.cumsum(0), N.cumsum(x, -1)),
    "cumprod": lambda N, x: x.cumprod(1),
    "cummax": lambda N, x: x.cummax(1),
    "cummin": lambda N, x: N.cummin(x, 0),
    "logcumsumexp": lambda N, x: x.logcumsumexp(1),
    "unique": lambda N, x: x.unique(return_inverse=True, return_counts=True),
    "unique_consecutive": lambda N, x: N.unique_consecutive(
        x.sort().values, return_inverse=True, return_counts=True
    ),
    "runs of rows": lambda N, x: N.unique_consecutive(x.sign(), return_inverse=True, return_counts=True, dim=0),
}  # fmt: skip
FORMS |= {f"quantile {how}": lambda N, x, how=how: x.quantile(0.4, 1, interpolation=how)  # type: ignore[misc]
          for how in ("linear", "lower", "higher", "midpoint", "nearest")}  # fmt: skip


def numbers(seed: int, special: bool = False) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    x = (rng.integers(-6, 7, (4, 5)) / 4).astype(np.float32)
    if special:
        x[1, 2], x[2, 0], x[2, 3], x[3, 1] = np.nan, np.inf, -np.inf, -0.0
    return x


def leaves(result: Any) -> list[Any]:
    if isinstance(result, (tuple, list)):
        return [t for x in result for t in leaves(x)]
    return [result]


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_as_pytorch(name: str, special: bool) -> None:
    torch = pytest.importorskip("torch")
    x = numbers(1, special)
    if "quantile" in name:
        x[np.isinf(x)] = 9  # PyTorch's way to interpolate makes NaN of an infinity
    found, wanted = leaves(FORMS[name](graphc, graphc.tensor(x))), leaves(FORMS[name](torch, torch.tensor(x)))
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert str(a.dtype).split(".")[-1] == str(b.dtype).split(".")[-1]
        assert tuple(a.shape) == tuple(b.shape)
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in FORMS if "arg" not in n and "unique" not in n and "runs" not in n])
def test_gradients_as_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    x = numbers(2) + np.arange(20, dtype=np.float32).reshape(4, 5) / 64  # no equals: they would share differently
    a, b = graphc.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    for N, t in ((graphc, a), (torch, b)):
        sum((y * y).sum() for y in leaves(FORMS[name](N, t)) if y.requires_grad).backward()
    assert a.grad is not None and b.grad is not None
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FORMS)
def test_compiled(name: str) -> None:
    def call(x: Any) -> Any:
        return FORMS[name](graphc, x)

    compiled = follows(call, *[(graphc.tensor(numbers(seed, seed > 2)),) for seed in range(6)])
    assert compiled.stats.hits >= 3


@pytest.mark.parametrize("zeros", [(), (2,), (1, 3), (0, 1, 4)])
def test_gradient_of_a_product_with_zeros(zeros: tuple[int, ...]) -> None:
    """Against the definition: the gradient of element i of output j is the product of the others up to j."""
    values = np.array([2.0, -3.0, 0.5, 4.0, -1.5])
    values[list(zeros)] = 0
    weights = np.array([1.0, 2.0, -1.0, 0.5, 3.0])
    x = graphc.tensor(values, requires_grad=True)
    (x.cumprod(0) * graphc.tensor(weights)).sum().backward()
    wanted = [
        sum(weights[j] * np.prod([v for k, v in enumerate(values[: j + 1]) if k != i]) for j in range(i, 5))
        for i in range(5)
    ]
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), wanted, atol=1e-12)


def test_integers_and_bools() -> None:
    x = graphc.tensor([[3, 1, 2], [2**62, -(2**62), 0]])
    assert x.sort().values.tolist() == [[1, 2, 3], [-(2**62), 0, 2**62]]
    assert x.cumsum(1).tolist() == [[3, 4, 6], [2**62, 0, 0]]
    mask = graphc.tensor([True, False, True, False])
    assert mask.sort(descending=True).indices.tolist() == [0, 2, 1, 3]
    assert mask.cumsum(0).tolist() == [1, 1, 2, 2]
    assert mask.cumsum(0).dtype is graphc.int64
    assert graphc.cumsum(mask, 0, dtype=graphc.float64).dtype is graphc.float64
    assert mask.unique(return_counts=True)[1].tolist() == [2, 2]


def test_without_axes() -> None:
    x = graphc.tensor(2.5)
    assert [t.tolist() for t in x.sort()] == [2.5, 0]
    assert [t.tolist() for t in x.cummax(0)] == [2.5, 0]
    assert x.cumsum(0).tolist() == 2.5
    assert x.median().tolist() == 2.5
    assert [t.tolist() for t in x.kthvalue(1)] == [2.5, 0]
    assert x.unique().tolist() == [2.5]
    assert graphc.nonzero(x).shape == (1, 0)


def test_nothing() -> None:
    x = graphc.zeros(0, 3)
    assert x.sort(0).values.shape == (0, 3)
    assert x.cumsum(0).shape == (0, 3)
    assert x.unique(return_inverse=True, return_counts=True)[1].shape == (0, 3)
    for call in (lambda: x.median(0), lambda: x.mode(0), lambda: x.quantile(0.5), lambda: x.median()):
        with pytest.raises(ShapeError, match="no element"):
            call()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.kthvalue(6),
        lambda x: x.topk(6),
        lambda x: x.cumsum(2),
        lambda x: x.sort(dim=-3),
        lambda x: x.long().quantile(0.5),
        lambda x: x.quantile(1.5),
        lambda x: x.quantile(0.5, interpolation="cubic"),
        lambda x: x.long().logcumsumexp(0),
    ],
)
def test_mistakes(call: Callable[[Any], Any]) -> None:
    with pytest.raises(GraphcError, match=r"^(kthvalue|topk|cumsum|sort|quantile|logcumsumexp):"):
        call(graphc.ones(4, 5))


def test_a_long_sort_is_stable_and_right() -> None:
    x = np.random.default_rng(0).integers(0, 1000, 20000).astype(np.float32)
    values, places = graphc.tensor(x).sort()
    assert values.numpy().tobytes() == np.sort(x).tobytes()
    assert places.numpy().tobytes() == np.argsort(x, kind="stable").tobytes()


def test_saved_and_loaded(tmp_path: Any) -> None:
    def f(x: Any) -> Any:
        return tuple(x.sort(1)), x.cumsum(0), x.cummax(1).indices, x.topk(2).values.exp()

    x = graphc.tensor(numbers(3))
    program = graphc.trace(f, x)
    program.save(tmp_path / "order.gcz")
    assert bits(graphc.load(tmp_path / "order.gcz")(x)) == bits(f(x))
    named = graphc.trace(f, x, dynamic={"x": {0: "N"}})
    y = graphc.tensor(np.tile(numbers(4), (2, 1)))
    assert bits(named(y)) == bits(f(y))
