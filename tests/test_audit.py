"""compile(audit=…): sampled calls are run line by line as well, and every bit is compared."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.config import config
from graphc.errors import ArgumentError, AuditError, InternalError
from graphc.frontend.record import audit as auditing
from graphc.frontend.record import play
from tests.recorder_checks import bits


@pytest.fixture
def buffer_size() -> Iterator[Any]:
    """A number that NumPy keeps in C: no condition sees it change."""
    before = np.getbufsize()
    yield np.setbufsize
    np.setbufsize(before)


def scaled(x: Any) -> Any:
    return x * float(np.getbufsize())  # here


def test_a_constant_that_no_condition_sees_is_found(buffer_size: Any) -> None:
    buffer_size(4096)
    audited, plain = graphc.compile(scaled, fullgraph=True, audit=1), graphc.compile(scaled, fullgraph=True)
    for _ in range(4):
        assert audited(graphc.ones(2)).tolist() == plain(graphc.ones(2)).tolist() == [4096.0, 4096.0]
    buffer_size(8192)
    assert plain(graphc.ones(2)).tolist() == [4096.0, 4096.0]  # what the audit is for
    with pytest.raises(AuditError) as found:
        audited(graphc.ones(2))
    text = str(found.value)
    assert text.startswith("scaled: output 0 of the compiled call is 4096.0 at [0], run line by line 8192.0")
    assert "4096.0 at test_audit.py:" in text and "was 8192.0 in this call" in text, "the line that changed is named"
    assert "pass that as an argument" in text
    assert isinstance(found.value, InternalError)


@pytest.mark.parametrize(
    ("audit", "calls"),
    [(1, 10), (5, 3), (True, 2), (0.5, 6), (1.0, 10), (False, None)],
)
def test_which_calls_are_audited(audit: Any, calls: int | None) -> None:
    compiled = graphc.compile(lambda x: x * 2, audit=audit)
    for _ in range(12):
        compiled(graphc.ones(2))
    assert compiled.stats.hits == 10
    assert (compiled._audit.done if compiled._audit else None) == calls


@pytest.mark.parametrize("audit", [0, -1, 0.0, 1.5, "yes", (1,)])
def test_what_audit_takes(audit: Any) -> None:
    with pytest.raises(ArgumentError, match="audit must be"):
        graphc.compile(lambda x: x, audit=audit)


@pytest.mark.parametrize(("text", "period"), [("", 0), ("0", 0), ("true", 64), ("7", 7), ("0.25", 4)])
def test_the_environment_decides_where_it_is_not_given(monkeypatch: Any, text: str, period: int) -> None:
    monkeypatch.setattr(config, "audit", text)
    assert graphc.compile(lambda x: x).period == period
    assert graphc.compile(lambda x: x, audit=2).period == 2


def test_a_copy_is_audited_as_well() -> None:
    model = graphc.compile(nn.Linear(2, 2), audit=3)
    for other in (copy.deepcopy(model), copy.copy(model)):
        assert other._graphc_engine.period == 3
    assert graphc.compile(scaled, audit=3).__reduce__()[1][-1] == 3


def train(audit: Any) -> list[Any]:
    graphc.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model.seen = graphc.zeros(2)
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        loss = model(x).square().mean()
        loss.backward()  # gradients are gathered over two steps
        if model[0].weight.grad.abs().sum() > 1.0:
            optimizer.step()
            optimizer.zero_grad()
        model.seen = model.seen * 0.5 + loss.detach()
        return loss

    compiled = graphc.compile(step, audit=audit)
    out = []
    for k in range(10):
        out.append(bits(compiled(graphc.arange(12.0).reshape(4, 3) * 0.1 * (k % 3))))
        out.append([(bits(p), bits(p.grad)) for p in model.parameters()])
        out.append([bits(b) for b in model.buffers()] + [bits(model.seen), bits(graphc.get_rng_state())])
    assert compiled.stats.hits >= 3
    return out


def test_an_audit_leaves_no_mark() -> None:
    assert train(1) == train(False) == train(3)


def _flip(array: Any) -> Any:
    wrong = array.copy()
    wrong.reshape(-1)[-1] += 1
    return wrong


@pytest.mark.parametrize("what", ["result", "state", "gradient"])
def test_every_kind_of_difference_is_found(monkeypatch: Any, what: str) -> None:
    weight, seen = graphc.ones(3).requires_grad_(), graphc.zeros(3)

    def f(x: Any) -> Any:
        weight.grad = None
        y = (x * weight).sum()
        y.backward()
        with graphc.no_grad():
            seen.add_(x)
        return y.detach() if what == "result" else None

    compiled = graphc.compile(f, fullgraph=True, audit=1)
    for _ in range(4):
        compiled(graphc.ones(3))

    def broken(trace: Any, leaves: Any) -> Any:
        result = play.play(trace, leaves)
        target = {"result": result, "state": seen, "gradient": weight.grad}[what]
        np.copyto(target._a, _flip(target._a))
        return result

    monkeypatch.setattr("graphc.frontend.record.compiled.play", broken)
    expected = {"result": "output 0", "state": "tensor ", "gradient": "grad"}[what]
    with pytest.raises(AuditError, match=expected):
        compiled(graphc.ones(3))


def test_an_exception_that_the_compiled_call_does_not_raise(buffer_size: Any) -> None:
    def f(x: Any) -> Any:
        if np.getbufsize() > 4096:
            raise ValueError("too large")
        return x * 2

    buffer_size(4096)
    compiled = graphc.compile(f, fullgraph=True, audit=1)
    for _ in range(4):
        compiled(graphc.ones(2))
    buffer_size(8192)
    with pytest.raises(AuditError, match="ValueError: too large"):
        compiled(graphc.ones(2))
    buffer_size(4096)
    assert compiled(graphc.ones(2)).tolist() == [2.0, 2.0]


def test_callbacks_run_once_a_call() -> None:
    seen: list[float] = []

    def f(x: Any) -> Any:
        graphc.host(lambda t: seen.append(t.item()), x.sum())
        return x + 1

    compiled = graphc.compile(f, fullgraph=True, audit=1)
    for _ in range(5):
        compiled(graphc.ones(2))
    assert seen == [2.0] * 5


def test_audits_in_threads() -> None:
    weight = graphc.ones(3).requires_grad_()
    compiled = graphc.compile(lambda x: (x * weight).sum() + graphc.ones(()), audit=2)
    wrong: list[Any] = []

    def work(k: int) -> None:
        for i in range(20):
            if compiled(graphc.full((3,), float(k + i))).item() != 3.0 * (k + i) + 1:
                wrong.append((k, i))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and compiled._audit.done >= 30


def test_nan_and_minus_zero() -> None:
    assert not auditing._first_difference(float("nan"), float("nan"))
    assert auditing._first_difference(0.0, -0.0)
    zero = np.zeros(2, np.float32)
    assert auditing._array_difference(zero, -zero) == "is 0.0 at [0], run line by line -0.0"
    assert not auditing._array_difference(zero / np.float32("nan"), zero * np.float32("nan"))
