"""RECORDER.md, under threads: every row of its tables with one compiled function that four threads call at once, each
with arguments and objects of its own; one records what others call already.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import graphc
from graphc.config import config
from graphc.frontend.record import compiled as compiled_module
from graphc.frontend.record import rng
from tests import (
    test_contract_autograd,
    test_contract_effects,
    test_contract_entering,
    test_contract_leaving,
    test_contract_views,
)
from tests.contract_runs import Case, at_once
from tests.recorder_checks import bits

THREADS = 4
CALLS = 6
ALL = {
    f"{where}: {case.name}": case
    for where, cases in (
        ("entering", test_contract_entering.CASES),
        ("leaving", test_contract_leaving.CASES),
        ("effects", test_contract_effects.CASES),
        ("views", test_contract_views.CASES),
        ("autograd", test_contract_autograd.CASES),
    )
    for case in cases
}


@pytest.fixture(autouse=True)
def hasty() -> Iterator[None]:
    """Threads take turns often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


class Own:
    """What one thread has made for itself."""

    def __init__(self, case: Case, k: int) -> None:
        graphc.manual_seed(5 + k)
        f, args, *seen = case.make()
        self.f = f
        self.args = tuple(_other(x, k) for x in args)
        self.seen = seen[0] if seen else lambda: None


def _other(x: Any, k: int) -> Any:
    """Another value of the same kind, for thread `k`."""
    if isinstance(x, graphc.Tensor) and x.dtype == graphc.float32 and not x.requires_grad and x.ndim:
        return x * (1.0, 0.5, 1.0, 1.25)[k]
    return x + 0.25 * k if type(x) is float else x


def _calls(fn: Any, args: Any, seen: Any) -> list[Any]:
    return [(bits(fn(*args)), bits(seen())) for _ in range(CALLS)]


def _agree(fn: Any, jobs: list[tuple[Any, Any]], expected: list[Any]) -> None:
    """Assert that four threads that call `fn` at once with the arguments of their jobs find what is expected."""
    start = threading.Barrier(THREADS)

    def job(k: int) -> Any:
        start.wait()
        return _calls(fn, *jobs[k])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", graphc.RecordingWarning)
        found = at_once(job, THREADS)
    for k in range(THREADS):
        assert found[k] == expected[k], (f"thread {k}", fn.explain())
    assert fn.stats.calls == THREADS * CALLS


def call(own: Own, *args: Any) -> Any:
    return own.f(*args)


@pytest.mark.parametrize("name", [name for name, case in ALL.items() if "random" not in name])
def test_threads_with_objects_of_their_own(name: str) -> None:
    owns = [Own(ALL[name], k) for k in range(THREADS)]
    expected = [_calls(call, (own, *own.args), own.seen) for own in owns]
    owns = [Own(ALL[name], k) for k in range(THREADS)]
    fn = graphc.compile(call)
    _agree(fn, [((own, *own.args), own.seen) for own in owns], expected)
    assert fn.stats.hits or ALL[name].refused, fn.explain()


@pytest.mark.parametrize("name", [n for n, c in ALL.items() if len(c.make()) == 2 and not c.refused and not c.shared])
def test_threads_that_share_all_but_arguments(name: str) -> None:
    own = Own(ALL[name], 0)
    given = [tuple(_other(x, k) for x in own.args) for k in range(THREADS)]
    expected = [_calls(own.f, args, lambda: None) for args in given]
    fn = graphc.compile(own.f)
    _agree(fn, [(args, lambda: None) for args in given], expected)
    assert fn.stats.refused == 0 and fn.stats.hits, fn.explain()


@pytest.mark.parametrize("name", [n for n, c in ALL.items() if "random" in n and not c.refused])
def test_threads_that_draw_from_one_random_state(name: str) -> None:
    """Which thread comes first is open; together they get the numbers that calls one after the other get."""
    own = Own(ALL[name], 0)
    expected = [_calls(own.f, own.args, lambda: None) for _ in range(THREADS)], rng.state_array().tolist()
    own = Own(ALL[name], 0)
    fn = graphc.compile(own.f)
    found = at_once(lambda k: _calls(fn, own.args, lambda: None), THREADS)
    assert rng.state_array().tolist() == expected[1]
    assert sorted(str(c) for calls in found for c in calls) == sorted(str(c) for calls in expected[0] for c in calls)
    assert fn.stats.hits == THREADS * CALLS - 2


@pytest.mark.parametrize("lockstep", ["always", "never"])
def test_threads_that_wait_for_each_other(lockstep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording keeps no thread out for good; what was refused runs in all threads at once, as eager code does."""
    monkeypatch.setattr(compiled_module, "PATIENCE", 0.1)
    monkeypatch.setattr(config, "lockstep", lockstep)
    w = graphc.arange(3.0).requires_grad_()

    def together(fn: Any, barrier: threading.Barrier) -> Any:
        return at_once(lambda k: [bits(fn(graphc.ones(3) * k, barrier)) for _ in range(CALLS)], THREADS)

    def f(x: Any, barrier: threading.Barrier) -> Any:
        y = x * w
        barrier.wait(60)
        return y.exp() * 2

    expected = together(f, threading.Barrier(THREADS))
    fn = graphc.compile(f)
    with pytest.warns(graphc.RecordingWarning, match="wait"):
        assert together(fn, threading.Barrier(THREADS)) == expected
    assert fn.stats.eager >= (THREADS - 1) * CALLS - 1 and fn.stats.calls == THREADS * CALLS


def test_callbacks_that_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_module, "PATIENCE", 0.1)
    barrier = threading.Barrier(2)

    def wait(t: Any) -> Any:
        barrier.wait(60)
        return t + 1

    def f(x: Any) -> Any:
        return graphc.host(wait, x * 2) * 3

    fn = graphc.compile(f)
    assert at_once(lambda k: [fn(graphc.ones(2) * k).tolist() for _ in range(CALLS)], 2) == [
        [[3.0, 3.0]] * CALLS, [[9.0, 9.0]] * CALLS
    ]  # fmt: skip
