"""Four threads at once: compiled functions, eager code and training give what they give one after another."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.config import config
from graphc.nn import functional as F

THREADS = 4
CALLS = 75
Job = Callable[[], list[Any]]


@pytest.fixture(autouse=True)
def hasty() -> Iterator[None]:
    """Threads take turns often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def agree(make: Callable[[], list[Job]]) -> None:
    """Assert that the jobs give the same run one by one and all at once."""
    expected = [job() for job in make()]
    jobs = make()
    found: list[Any] = [None] * len(jobs)
    start = threading.Barrier(len(jobs))

    def run(k: int) -> None:
        start.wait()
        try:
            found[k] = jobs[k]()
        except Exception as error:
            found[k] = repr(error)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(len(jobs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for k, (a, b) in enumerate(zip(expected, found, strict=True)):
        assert not isinstance(b, str), f"thread {k}: {b}"
        assert a == b, f"thread {k}: call {next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)}"


def told(t: Any) -> bytes:
    return t.detach().numpy().tobytes()


def batch(seed: int, *shape: int) -> Any:
    return graphc.tensor(np.random.RandomState(seed).randn(*shape).astype("f"))


def test_one_compiled_function() -> None:
    w = batch(0, 8, 8)

    def loss(x: Any) -> Any:
        return ((x @ w).softmax(-1) * x).cumsum(0).sum()

    def make() -> list[Job]:
        compiled = graphc.compile(loss)

        def job(k: int) -> list[Any]:
            seen = []
            for call in range(CALLS):
                x = batch(k * 1000 + call, 3 + (call % 2) * k, 8).requires_grad_()
                y = compiled(x)
                y.backward()
                seen.append((told(y), told(x.grad)))
            return seen

        return [lambda k=k: job(k) for k in range(THREADS)]

    agree(make)


def test_eager_code() -> None:
    def job(k: int) -> list[Any]:
        seen = []
        for call in range(CALLS):
            x = batch(k * 1000 + call, 2 + call % 7, 3 + call % 5).requires_grad_()
            y = (x.t() * 2 + 1).exp()[::2].sum() + (x.bfloat16().float() * x).sum() + x.sort(0).values.cumsum(1).sum()
            a = x.detach().clone()
            a[a > 0] *= 2
            a[:, 0].add_(1)
            y.backward()
            seen.append((told(y), told(x.grad), told(a), told(graphc.cat([a, a])[graphc.tensor([0, -1])])))
        return seen

    agree(lambda: [lambda k=k: job(k) for k in range(THREADS)])


@pytest.mark.parametrize("how", ["eager", "step", "model", "lockstep"])
def test_training_of_separate_models_that_share_a_tensor(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "lockstep", "always")
    target = graphc.tensor([0, 1, 2, 3, 0])

    def one(k: int) -> Job:
        graphc.manual_seed(k)
        model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4))
        opt = optim.AdamW(model.parameters(), lr=0.01)
        net = graphc.compile(model) if how == "model" else model
        log: list[int] = []

        def step(x: Any) -> Any:
            opt.zero_grad()
            loss = F.cross_entropy(net(x), target)
            if how == "lockstep":
                log.append(len(log))
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            return loss.detach()

        run = graphc.compile(step) if how in ("step", "lockstep") else step

        def job() -> list[Any]:
            seen = [told(run(batch(k * 1000 + call, 5, 8))) for call in range(CALLS)]
            return [*seen, *map(told, model.parameters()), len(log)]

        return job

    def make() -> list[Job]:
        return [one(k) for k in range(THREADS)]

    with pytest.warns(graphc.RecordingWarning) if how == "lockstep" else monkeypatch.context():
        agree(make)
