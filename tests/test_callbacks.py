"""graphc.host and graphc.freeze: recorded values in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.errors import ArgumentError, GuardError, RecordingError
from tests.recorder_checks import bits, marked_lines


def x3() -> Any:
    return graphc.tensor([0.5, -1.0, 2.0])


def both(make: Any, *calls: tuple[Any, ...], misses: int = 2) -> Any:
    """The same results and the same effects eagerly and compiled, call by call."""
    fn, seen = make()
    expected = [(bits(fn(*args)), seen()) for args in calls]
    fn, seen = make()
    compiled = graphc.compile(fn, fullgraph=True)
    found = [(bits(compiled(*args)), seen()) for args in calls]
    assert found == expected
    assert compiled.stats.hits == len(calls) - misses
    return compiled


def test_a_callback_runs_once_a_call_with_real_values() -> None:
    def make() -> Any:
        log: list[Any] = []

        def note(t: Any) -> Any:
            log.append(t.tolist())
            return graphc.tensor(np.sort(t.numpy()))

        def f(x: Any) -> Any:
            y = graphc.host(note, x * 2)
            return y + x, y

        return f, lambda: list(log)

    compiled = both(make, *[(x3() * k,) for k in range(6)])
    assert len(compiled.traces[0].executable.segments) == 2


def test_callbacks_in_a_row_with_values_in_between() -> None:
    def make() -> Any:
        log: list[Any] = []

        def f(x: Any) -> Any:
            a = x.exp()
            b, c = graphc.host(lambda p, q: (p + q, p * q), a, x)
            graphc.host(lambda t: log.append(t.sum().item()), b)
            d = b * a + c
            (e,) = graphc.host(lambda t: [t * 10], d)
            graphc.host(lambda: log.append("end"))
            return e + a, d[1:], b

        return f, lambda: list(log)

    both(make, *[(x3() + k,) for k in range(5)])


def test_inputs_and_results_are_copies() -> None:
    kept: list[Any] = []

    def spoil(t: Any) -> Any:
        t.zero_()
        kept.append(graphc.ones(3))
        return kept[-1]

    def f(x: Any) -> Any:
        y = graphc.host(spoil, x)
        y.add_(1)
        return x * y

    compiled = graphc.compile(f, fullgraph=True)
    for fn in (f, compiled, compiled, compiled):
        x = x3()
        out = fn(x)
        assert out.tolist() == [1.0, -2.0, 4.0] and x.tolist() == x3().tolist()
        assert kept[-1].tolist() == [1.0] * 3
        kept[-1].zero_()
        assert out.tolist() == [1.0, -2.0, 4.0]


def test_no_gradients_flow_through_a_callback() -> None:
    def run(compile: Any) -> Any:
        w = graphc.tensor([1.0, 2.0, 3.0], requires_grad=True)

        def f(x: Any) -> Any:
            y = w * x
            z = graphc.host(lambda t: t * 3, y)
            assert not z.requires_grad
            return (y * z).sum()

        fn = compile(f)
        for k in range(5):
            fn(x3() * k).backward()
        return bits(w.grad)

    assert run(lambda f: f) == run(lambda f: graphc.compile(f, fullgraph=True))


def test_a_training_step_with_a_callback() -> None:
    def run(compile: Any) -> Any:
        graphc.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
        opt = optim.Adam(model.parameters(), lr=0.01)
        losses: list[float] = []

        def step(x: Any) -> Any:
            opt.zero_grad()
            loss = model(x).square().mean()
            graphc.host(lambda t: losses.append(t.item()), loss)
            loss.backward()
            opt.step()
            return loss.detach()

        fn = compile(step)
        for k in range(6):
            fn(graphc.full((2, 3), 1.0 + k))
        return losses, bits(model.state_dict())

    expected = run(lambda f: f)
    assert len(expected[0]) == 6
    assert run(lambda f: graphc.compile(f, fullgraph=True)) == expected


def test_conditions_before_and_after_a_callback() -> None:
    """A call that turns out to take another path has run its callbacks once all the same."""

    def make() -> Any:
        log: list[Any] = []

        def f(x: Any) -> Any:
            y = x * 2
            if y.sum() > 0:
                y = graphc.host(lambda t: (log.append("a"), t + 1)[1], y)
            else:
                y = graphc.host(lambda t: (log.append("b"), t - 1)[1], y)
            z = graphc.host(lambda t: (log.append("c"), t * 2)[1], y)
            if z.sum() > 10:
                graphc.host(lambda: log.append("d"))
                return z * 3
            return z * 5

        return f, lambda: list(log)

    calls = [(x3() * k,) for k in (0.1, 0.1, 0.1, -1.0, -1.0, -1.0, 9.0, 9.0, 9.0, 0.1, -1.0, 9.0)]
    both(make, *calls, misses=6)


def test_a_callback_that_raises() -> None:
    def run(compile: Any) -> Any:
        model = nn.BatchNorm1d(2)
        log: list[Any] = []

        def check(t: Any) -> None:
            log.append(t.tolist())
            if t[0] > 3:
                raise KeyError("too large")

        def f(x: Any) -> Any:
            y = model(x)
            graphc.host(check, x[0])
            return y * 2

        fn = compile(f)
        seen = []
        for k in range(8):
            try:
                seen.append(bits(fn(graphc.full((2, 2), float(k)))))
            except KeyError as error:
                seen.append(str(error))
            seen.append(bits(model.state_dict()))
        return seen, log

    expected = run(lambda f: f)
    assert "'too large'" in expected[0] and len(expected[1]) == 8
    assert run(lambda f: graphc.compile(f, fullgraph=True)) == expected


def test_a_callback_that_changes_its_mind() -> None:
    def make() -> Any:
        sizes = iter([3, 3, 3, 2, 2, 2, 3])
        return (lambda x: graphc.host(lambda: graphc.ones(next(sizes))).sum() + x), lambda: None

    both(make, *[(x3(),) for _ in range(7)], misses=4)


def test_effects_of_a_callback_are_not_those_of_the_function() -> None:
    class Meter:
        def __init__(self) -> None:
            self.total, self.seen = 0.0, {"n": 0}

        def add(self, t: Any) -> None:
            self.total += t.item()
            self.seen["n"] += 1

    def make() -> Any:
        meter = Meter()

        def f(x: Any) -> Any:
            graphc.host(meter.add, x.sum())
            return x * 2

        return f, lambda: (meter.total, dict(meter.seen))

    both(make, *[(x3() * k,) for k in range(5)])

    meter = Meter()

    def g(x: Any) -> Any:
        graphc.host(meter.add, x.sum())
        meter.total += 1  # here
        return x

    with pytest.raises(RecordingError) as error:
        graphc.compile(g, fullgraph=True)(x3())
    lines = marked_lines(test_effects_of_a_callback_are_not_those_of_the_function)
    assert any(line in str(error.value) for line in lines)


def test_callbacks_that_are_refused() -> None:
    def captures(x: Any) -> Any:
        y = x * 2
        return graphc.host(lambda: y.sum()) + x

    compiled = graphc.compile(captures, fullgraph=True)
    with pytest.raises(RecordingError, match="local variable"):
        for _ in range(3):
            compiled(x3())

    def draws(x: Any) -> Any:
        return graphc.host(lambda: graphc.rand(3)) + x

    for fn in (draws, graphc.compile(draws)):
        with pytest.raises(RecordingError, match="Generator of its own"):
            fn(x3())

    def f(x: Any) -> Any:
        return graphc.host(lambda t: t, x)

    with pytest.raises(RecordingError, match="file cannot hold it"):
        graphc.trace(f, x3())
    with pytest.raises(ArgumentError, match="returned a float"):
        graphc.host(lambda t: t.item(), graphc.ones(1))
    with pytest.raises(ArgumentError, match="argument 0 is a float"):
        graphc.host(f, 1.0)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="expected a function"):
        graphc.host(x3())  # type: ignore[arg-type]


def test_a_callback_may_call_compiled_functions() -> None:
    inner = graphc.compile(lambda t: graphc.host(lambda u: u + 1, t) * 2)

    def make() -> Any:
        return (lambda x: graphc.host(lambda t: inner(t), x) - x), lambda: None

    both(make, *[(x3() * k,) for k in range(6)])
    assert inner.stats.hits > 4


# ---- freeze


def test_freeze_gives_python_a_number() -> None:
    def f(x: Any) -> Any:
        n = int(graphc.freeze(x.sum()).item())
        scale = float(graphc.freeze(x.max()))
        return x[: min(n, 2)] * scale + sum(graphc.freeze(x).tolist()) + graphc.freeze(x).numpy().shape[0]

    compiled = graphc.compile(f, fullgraph=True)
    for _ in range(4):
        assert bits(compiled(x3())) == bits(f(x3()))
    assert compiled.stats.hits == 2
    for _ in range(3):
        assert bits(compiled(x3() + 1)) == bits(f(x3() + 1))  # other values: another trace
    assert compiled.stats.compilations == 2 and compiled.stats.recordings == 4


@pytest.mark.parametrize("pair", [(0.0, -0.0), (float("nan"), 1.0), (float("inf"), -float("inf"))])
def test_freeze_tells_bits_apart(pair: tuple[float, float]) -> None:
    compiled = graphc.compile(lambda x: x * 0 + graphc.freeze(x), fullgraph=True)
    for _ in range(3):
        for value in pair:
            x = graphc.tensor([value, 1.0])
            assert bits(compiled(x)) == bits(x * 0 + x)
    for value in pair:
        hits = compiled.stats.hits
        compiled(graphc.tensor([value, 1.0]))
        assert compiled.stats.hits == hits + 1


def test_frozen_values_are_constants() -> None:
    w = graphc.ones(3, requires_grad=True)

    def f(x: Any) -> Any:
        c = graphc.freeze(w * 2)
        assert not c.requires_grad
        return (w * c * x).sum()

    compiled = graphc.compile(f, fullgraph=True)
    for _ in range(4):
        w.grad = None
        compiled(x3()).backward()
        assert w.grad is not None and w.grad.tolist() == (x3() * 2).tolist()
    frozen = graphc.freeze(x3())
    with pytest.raises(ArgumentError, match="read-only"):
        frozen.add_(1)
    assert graphc.freeze(3) == 3 and graphc.freeze("a") == "a" and graphc.freeze(None) is None
    with pytest.raises(ArgumentError, match="freeze"):
        graphc.freeze(object())


def test_freeze_of_an_array() -> None:
    table = np.arange(3.0, dtype=np.float32)
    compiled = graphc.compile(lambda x: x * graphc.freeze(table), fullgraph=True)
    for _ in range(3):
        assert bits(compiled(x3())) == bits(x3() * graphc.tensor(table))
    table[0] = 5.0
    for _ in range(3):
        assert bits(compiled(x3())) == bits(x3() * graphc.tensor(table))
    assert compiled.stats.hits == 2


def test_freeze_in_a_program() -> None:
    program = graphc.trace(lambda x: x * float(graphc.freeze(x.max())), x3())
    assert program(x3()).tolist() == (x3() * 2).tolist()
    with pytest.raises(GuardError, match=r"test_callbacks\.py"):
        program(x3() + 1)


def test_variables_behind_decorators_and_inner_functions_are_still_conditions() -> None:
    scale = 2.0
    w = graphc.ones(3)

    @graphc.no_grad()
    def behind(x: Any) -> Any:
        return x * scale * w

    def f(x: Any) -> Any:
        def inner(y: Any) -> Any:
            return y + scale

        return inner(behind(x)) + sum(v * scale for v in (x, x))

    compiled = graphc.compile(f, fullgraph=True)
    for scale in (2.0, 2.0, 2.0, 3.0, 3.0, 3.0):  # noqa: B007
        assert bits(compiled(x3())) == bits(f(x3()))
    w = graphc.ones(3) * 5
    for _ in range(3):
        assert bits(compiled(x3())) == bits(f(x3()))
    assert compiled.stats.compilations == 3
