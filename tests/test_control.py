"""cond, while_loop and scan: eager, compiled and differentiated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import ArgumentError, ShapeError
from graphc.testing import assert_same


def test_cond_runs_one_function_only() -> None:
    seen: list[str] = []
    x = graphc.tensor([1.0, -2.0])
    y = graphc.cond(x.sum() > 0, lambda a: seen.append("then"), lambda a: seen.append("else") or a * 2, (x,))
    assert seen == ["else"] and y.tolist() == [2.0, -4.0]
    assert graphc.cond(True, lambda: 1, lambda: 2) == 1


def test_cond_compiled_takes_both_ways_with_gradients() -> None:
    graphc.manual_seed(0)
    left, right = nn.Linear(3, 3), nn.Linear(3, 3)

    def step(x: Any) -> Any:
        for p in (*left.parameters(), *right.parameters()):
            p.grad = None
        y = graphc.cond(x.sum() > 0, lambda a: left(a).tanh(), lambda a: right(a) * 3, (x,))
        y.square().sum().backward()
        return y.detach()

    assert_same(step, graphc.ones(2, 3), state=[left, right])
    run = graphc.compile(step, fullgraph=True)
    for k in range(12):
        x = graphc.full((2, 3), float((-1) ** k * (k + 1)))
        expected = step(x)
        grads = [p.grad if p.grad is None else p.grad.clone() for p in (left.weight, right.weight)]
        assert graphc.equal(run(x), expected)
        for p, g in zip((left.weight, right.weight), grads, strict=True):
            assert (p.grad is None) is (g is None) and (g is None or graphc.equal(p.grad, g))
        assert (left.weight.grad is None) is bool(k % 2)  # what did not run gets no gradient
    assert len(run.traces) == 2 and run.stats.hits >= 8


def test_while_loop_halves_until_small() -> None:
    def halve(x: Any, limit: Any) -> Any:
        count = graphc.zeros((), dtype=graphc.int64)
        return graphc.while_loop(lambda v, n: v.abs().max() > limit, lambda v, n: (v * 0.5, n + 1), (x, count))

    x = graphc.tensor([3.0, -9.0])
    y, n = halve(x, 1.0)
    assert n.item() == 4 and y.tolist() == [3 / 16, -9 / 16]
    run = graphc.compile(halve, fullgraph=True)
    for k in range(9):
        given = x * float(2 ** (k % 3))
        expected = halve(given, 1.0)
        assert all(graphc.equal(a, b) for a, b in zip(run(given, 1.0), expected, strict=True))
    assert len(run.traces) == 1 and run.stats.recordings == 2


def test_while_loop_with_gradients() -> None:
    def grow(x: Any) -> Any:
        x = x.detach().clone().requires_grad_()
        (y,) = graphc.while_loop(lambda v: v.sum() < 50, lambda v: (v * v + 1,), (x,))
        (g,) = graphc.autograd.grad(y.sum(), x)
        return y.detach(), g

    assert_same(grow, graphc.tensor([1.0, 0.5]))
    y, g = grow(graphc.tensor([1.0, 0.5]))
    a, b = 1.0, 0.5
    da = db = 1.0
    while a + b < 50:
        da, db, a, b = da * 2 * a, db * 2 * b, a * a + 1, b * b + 1
    np.testing.assert_allclose([*y.tolist(), *g.tolist()], [a, b, da, db], rtol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_is_the_loop_written_out(reverse: bool) -> None:
    graphc.manual_seed(1)
    cell = nn.RNNCell(4, 5)
    xs = graphc.randn(7, 2, 4)
    order = range(6, -1, -1) if reverse else range(7)

    def loop(xs: Any) -> Any:
        h = graphc.zeros(2, 5)
        ys: dict[int, Any] = {}
        for k in order:
            h = cell(xs[k], h)
            ys[k] = h * 2
        return h, graphc.stack([ys[k] for k in range(7)])

    def scanned(xs: Any) -> Any:
        def combine(h: Any, x: Any) -> Any:
            h = cell(x, h)
            return h, h * 2

        return graphc.scan(combine, graphc.zeros(2, 5), xs, reverse=reverse)

    def train(run: Any, xs: Any) -> Any:
        cell.zero_grad()
        h, ys = run(xs)
        (h.sum() + ys.square().mean()).backward()
        return h.detach(), ys.detach(), [p.grad.clone() for p in cell.parameters()]

    for a, b in zip(train(loop, xs)[2], train(scanned, xs)[2], strict=True):
        assert graphc.equal(a, b)
    assert all(graphc.equal(a, b) for a, b in zip(loop(xs), scanned(xs), strict=True))
    assert_same(lambda x: train(scanned, x), xs, state=cell)


def test_scan_of_trees_along_another_dimension() -> None:
    xs = {"a": graphc.arange(6.0).reshape(2, 3), "b": (graphc.ones(2, 3),)}

    def combine(carry: Any, x: Any) -> Any:
        total = carry["sum"] + x["a"] * x["b"][0]
        return {"sum": total}, [total, x["a"]]

    carry, ys = graphc.scan(combine, {"sum": graphc.zeros(2)}, xs, dim=1)
    assert carry["sum"].tolist() == [3.0, 12.0]
    assert ys[0].tolist() == [[0.0, 1.0, 3.0], [3.0, 7.0, 12.0]] and graphc.equal(ys[1], xs["a"])


def test_mistakes() -> None:
    x = graphc.ones(3)
    with pytest.raises(ArgumentError, match=r"cond: pred is f32\[3\]"):
        graphc.cond(x, lambda: 1, lambda: 2)
    with pytest.raises(ArgumentError, match="true_fn is a int"):
        graphc.cond(True, 1, lambda: 2)
    with pytest.raises(ShapeError, match=r"value 0 from f32\[3\] into f32\[6\]"):
        graphc.while_loop(lambda v: True, lambda v: (graphc.cat([v, v]),), (x,))
    with pytest.raises(ArgumentError, match="structure"):
        graphc.while_loop(lambda v: True, lambda v: (v, v), (x,))
    with pytest.raises(ShapeError, match="differ in size"):
        graphc.scan(lambda c, x: (c, c), x, (graphc.ones(3), graphc.ones(4)))
    with pytest.raises(ArgumentError, match="two things"):
        graphc.scan(lambda c, x: c, x, graphc.ones(3))
    with pytest.raises(ArgumentError, match="empty"):
        graphc.scan(lambda c, x: (c, c), x, graphc.ones(0))
    with pytest.raises(ArgumentError, match="from a Tensor into a float"):
        graphc.scan(lambda c, x: (1.0, x), x, graphc.ones(3))
