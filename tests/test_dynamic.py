"""compile(dynamic=True): one recording for every size of the first axis."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import graphc
from graphc import nn, optim
from graphc.errors import GraphcError
from tests.recorder_checks import bits


def test_one_trace_for_all_batch_sizes() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    compiled = graphc.compile(model, fullgraph=True, dynamic=True)
    with graphc.no_grad():
        for rows in (4, 9, 2, 17, 9, 33):
            x = graphc.rand(rows, 3)
            assert bits(compiled(x)) == bits(model(x))
    stats = compiled.stats
    assert (stats.recordings, stats.compilations, stats.hits, len(compiled.traces)) == (2, 1, 4, 1)
    assert "s0" in str(compiled.graph.inputs[0].value.type)


def test_training_with_the_loss_inside_and_outside() -> None:
    def run(compile: Any, inside: bool) -> Any:
        graphc.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 4))
        opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        forward = model if inside else compile(model)

        def step(x: Any, y: Any) -> Any:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(forward(x), y)
            loss.backward()
            opt.step()
            return loss.detach()

        fn = compile(step) if inside else step
        seen = []
        for rows in (5, 8, 3, 12, 5, 8):
            seen.append(bits(fn(graphc.randn(rows, 3), graphc.arange(rows) % 4)))
        return seen, bits(model.state_dict()), (fn if inside else forward)

    for inside in (True, False):
        plain = run(lambda f: f, inside)
        found = run(lambda f: graphc.compile(f, fullgraph=True, dynamic=True), inside)
        assert found[:2] == plain[:2]
        assert found[2].stats.recordings == 2 and found[2].stats.hits == 4


def test_sizes_in_arithmetic_and_shapes() -> None:
    def f(x: Any) -> Any:
        n = x.shape[0]
        return x.reshape(n * 2, -1), x.sum(0) / n, graphc.arange(n) + x.size(0), graphc.zeros(n, 2), x[1:], x @ x.t()

    compiled = graphc.compile(f, fullgraph=True, dynamic=True)
    for rows in (4, 6, 3, 10, 4):
        x = graphc.rand(rows, 2)
        assert bits(compiled(x)) == bits(f(x))
    assert compiled.stats.hits == 3


def test_a_branch_on_a_size_is_a_condition() -> None:
    def f(x: Any) -> Any:
        return x * 2 if x.shape[0] > 5 else x * 3

    compiled = graphc.compile(f, fullgraph=True, dynamic=True)
    for rows in (4, 3, 8, 9, 5, 6, 2, 30):
        x = graphc.rand(rows)
        assert bits(compiled(x)) == bits(f(x))
    assert compiled.stats.compilations == 2 and compiled.stats.hits == 4


def test_a_size_forced_to_a_number_is_recorded_for_itself() -> None:
    def f(x: Any) -> Any:
        return sum(x[k] * k for k in range(x.shape[0]))

    compiled = graphc.compile(f, fullgraph=True, dynamic=True)
    for rows in (*range(2, 14), *range(2, 14), *range(2, 14)):
        x = graphc.rand(rows, 2)
        assert bits(compiled(x)) == bits(f(x))
    assert compiled.stats.compilations == 12 and compiled.stats.hits == 11  # the first call found out
    assert compiled.stats.refused == 0


def test_small_and_strided_arguments() -> None:
    compiled = graphc.compile(lambda x, y: (x + y, x.sum()), fullgraph=True, dynamic=True)
    base = graphc.rand(12, 3)
    for x, y in [
        (base[:4], base[4:8]), (base[:6], base[6:]), (base[:1], base[:1]), (base[:4], base[:1]), (base[::2], base[:6]),
        (base[:5], base[5:10]), (base[:0], base[:0]), (base[:4], base[4:5]),
    ] * 3:  # fmt: skip
        assert bits(compiled(x, y)) == bits((x + y, x.sum()))
    assert compiled.stats.hits > 8


def test_sizes_that_differ_among_arguments() -> None:
    def f(x: Any, y: Any) -> Any:
        return x @ y, graphc.cat([x, x]).sum(0)

    compiled = graphc.compile(f, fullgraph=True, dynamic=True)
    for m, k in ((2, 3), (5, 4), (4, 4), (7, 2), (6, 6), (3, 9), (8, 8)):
        x, y = graphc.rand(m, k), graphc.rand(k, 2)
        assert bits(compiled(x, y)) == bits(f(x, y))


def test_errors_are_the_function_s_own() -> None:
    weight = graphc.rand(4, 2)

    def f(x: Any) -> Any:
        return x.t() @ weight

    compiled = graphc.compile(f, dynamic=True)
    for rows in (4, 4, 4, 5, 4):
        x = graphc.rand(rows, 3)
        if rows == 5:
            with pytest.raises(GraphcError) as first:
                f(x)
            with pytest.raises(type(first.value)) as second:
                compiled(x)
            assert str(first.value) == str(second.value)
        else:
            assert bits(compiled(x)) == bits(f(x))


def test_copies_stay_dynamic() -> None:
    compiled = graphc.compile(nn.Linear(3, 2), dynamic=True)
    other = copy.deepcopy(compiled)
    assert other.dynamic
    with graphc.no_grad():
        for rows in (4, 5, 6, 7):
            other(graphc.rand(rows, 3))
    assert other.stats.hits == 2


def test_warm_with_named_sizes() -> None:
    compiled = graphc.compile(lambda x: (x * 2).sum(0), fullgraph=True, dynamic=True)
    compiled.warm(graphc.rand(4, 3))
    for rows in (3, 4, 5):
        x = graphc.rand(rows, 3)
        assert bits(compiled(x)) == bits((x * 2).sum(0))
    assert compiled.stats.hits == 3


@pytest.mark.parametrize("viewed", [False, True])
def test_what_is_refused_in_the_midst_has_numbers_for_names(viewed: bool) -> None:
    w = graphc.ones(2, 2, requires_grad=True)

    def f(x: Any) -> Any:
        h = x @ w
        y = graphc.cat([h, h * 2], 0)[::2]  # every second of 2 n rows: a size that is not followed
        return y if viewed else y.tanh()

    compiled = graphc.compile(f, dynamic=True)
    for rows in (3, 4, 4, 5, 5, 5):
        found = []
        for fn in (f, compiled):
            w.grad = None
            y = fn(graphc.ones(rows, 2))
            y.sum().backward()
            z = y.detach()
            z.add_(1)
            found.append((bits(w.grad), bits(z), bits(graphc.compile(lambda z=z: z * 2)())))
        assert found[0] == found[1]
