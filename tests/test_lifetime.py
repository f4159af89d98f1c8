"""What lasts: nothing grows over many calls or compilations, graphs of gradients need no garbage collector, and
processes that fork, share a cache or end leave things right. More calls: see `tests/lifetime_runs.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import graphc
from graphc.frontend.record import compiled

ROOT = Path(__file__).parent.parent


def run(code: str, *arguments: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """A new interpreter that must end well and say nothing on standard error."""
    command = [sys.executable, *(("-c", code) if code else ()), *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done


def grown(names: list[str], calls: int, warm: int, *options: str) -> dict[str, dict[str, float]]:
    """What `tests/lifetime_runs.py` found."""
    done = run("", "tests/lifetime_runs.py", ",".join(names), str(calls), str(warm), *options)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    assert list(found) == names
    return found


def check_steady(found: dict[str, dict[str, float]]) -> None:
    """Nothing is left behind but for the noise of measuring, much smaller than one object a call."""
    for name, left in found.items():
        assert left["malloc"] <= 4096, (name, left)
        assert left["blocks"] <= 600, (name, left)
        assert left["rss"] < 1024, (name, left)
        assert left["files"] == left["threads"] == left["cycles"] == 0, (name, left)


# ---------------------------------------------------------------- many calls

CALLS = [
    ["small", "several_results", "new_inputs", "numbers", "training", "two_traces", "loaded", "compiled_model"],
    ["backward_outside", "backward_dropped", "eager", "lockstep"],
    ["schedule", "eager_training", "lockstep_training"],
]


@pytest.mark.parametrize("names", CALLS, ids=lambda names: names[0])
def test_calls_leave_nothing_behind(names: list[str]) -> None:
    check_steady(grown(names, 1000, 200))


TAPES = [
    ["tape_backward", "tape_dropped", "tape_hooks", "tape_second_order", "tape_create_graph_into_grad", "tape_failed"],
    ["tape_checkpoint", "tape_function", "modules", "recurrent"],
]


@pytest.mark.parametrize("names", TAPES, ids=lambda names: names[0])
def test_graphs_of_gradients_need_no_garbage_collector(names: list[str]) -> None:
    check_steady(grown(names, 150, 20, "nogc"))


# ---------------------------------------------------------------- many compilations


@pytest.mark.parametrize("name", ["compiles", "compiled_training_steps", "one_that_is_reset", "compiled_dropped"])
def test_compilations_leave_little_behind(name: str) -> None:
    times, before = {"compiles": (80, 60), "compiled_training_steps": (20, 15)}.get(name, (60, 60))
    (left,) = grown([name], times, before).values()
    assert left["malloc"] < 4096 * times and left["rss"] < 4 * times + 1024, left
    assert left["blocks"] < 25 * times, left
    assert left["files"] == left["threads"] == 0, left


def test_signatures_that_nobody_calls_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MAX_SIGNATURES", 8)
    f = graphc.compile(lambda x, scale: x * scale)

    def call(n: int) -> None:
        for _ in range(3):
            assert f(graphc.ones(n), "a" and 2.0).tolist() == [2.0] * n

    for n in range(1, 40):
        call(n)
        call(1)  # wanted all the time: it stays
        assert len(f._entries) <= 8
    assert f.stats.compilations == 39
    call(39)
    assert f.stats.compilations == 39  # a late one is still there
    call(2)
    assert f.stats.compilations == 40  # an early one is not


def test_what_is_counted_for_signatures_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MAX_SIGNATURES", 8)
    f = graphc.compile(lambda x, n, thing: x * n, dynamic=True)
    for n in range(1, 60):
        thing = object()
        for k in range(2):
            f(graphc.ones(n, n), k + 1, thing)
    assert len(f._entries) <= 8 and len(f._kinds) <= 9 and len(f._ints) <= 9 and len(f._fixed) <= 9


# ---------------------------------------------------------------- processes

FORK = """
import os, sys, threading
import graphc
graphc.set_num_threads(2)

@graphc.compile
def f(x):
    return (x @ x).softmax(-1).sum(0)

x = graphc.rand(300, 300)
net = graphc.nn.Linear(300, 2)
opt = graphc.optim.Adam(net.parameters())

@graphc.compile
def step(x):
    opt.zero_grad()
    loss = net(x).square().mean()
    loss.backward()
    opt.step()
    return loss.detach()

want = [f(x).tolist() for _ in range(4)][0]
for _ in range(4):
    step(x)
weights = net.weight.tolist()
after = None
for child in range(4):
    pid = os.fork()
    if pid == 0:
        good = f(x).tolist() == want and f.stats.hits >= 3
        losses = [step(x).item() for _ in range(3)]
        g = graphc.compile(lambda x: (x * 3 + child).cumsum(0))
        news = [g(x) for _ in range(4)]
        good = good and g.stats.compilations == 1 and (news[0] == (x * 3 + child).cumsum(0)).all().item()
        good = good and sum(news[0].equal(n) for n in news) == 4 and losses[0] > losses[-1]
        seen = []
        threads = [threading.Thread(target=lambda: seen.append(f(x).tolist() == want)) for _ in range(3)]
        [t.start() for t in threads], [t.join() for t in threads]
        os._exit(0 if good and seen == [True] * 3 else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert f(x).tolist() == want and net.weight.tolist() == weights
step(x)
assert net.weight.tolist() != weights
"""


def test_fork_after_compile() -> None:
    run(FORK)


FORK_BUSY = """
import os, threading, warnings
import graphc
warnings.simplefilter("ignore")  # of newer Pythons, about forks with threads
graphc.set_num_threads(2)
x, stop, wrong = graphc.rand(200, 200), threading.Event(), []

def make(k):
    return graphc.compile(lambda x: (x * k + 1).softmax(-1).sum(-1))

hot = make(2)
want = [hot(x).tolist() for _ in range(3)][0]

def work(k):
    while not stop.is_set():
        if k and make(k).__call__(x) is None:
            wrong.append(k)
        if hot(x).tolist() != want:
            wrong.append("hot")
        k += 2 if k else 0

threads = [threading.Thread(target=work, args=(k,)) for k in (0, 3)]
[t.start() for t in threads]
for k in range(12):
    pid = os.fork()
    if pid == 0:
        fresh = make(1000 + k)
        good = all(fresh(x).tolist() == ((x * (1000 + k) + 1).softmax(-1).sum(-1)).tolist() for _ in range(3))
        os._exit(0 if good else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
stop.set()
[t.join() for t in threads]
assert not wrong, wrong
"""


def test_fork_while_other_threads_compile_and_run() -> None:
    run(FORK_BUSY)


COLD = """
import sys, time
import graphc
while time.time() < float(sys.argv[1]):
    pass
net = graphc.nn.Sequential(graphc.nn.Linear(4, 8), graphc.nn.GELU(), graphc.nn.Linear(8, 2))
for p in net.parameters():
    graphc.nn.init.constant_(p, 0.25)
f = graphc.compile(lambda x: net(x).softmax(-1).square().sum())
for _ in range(3):
    loss = f(graphc.arange(12.0).reshape(3, 4))
loss.backward()
print(loss.item().hex(), [p.grad.tolist() for p in net.parameters()])
"""


def test_processes_share_a_cold_cache(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GRAPHC_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", COLD, str(time.time() + 1.5)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env)
        for _ in range(8)
    ]
    ended = [(*p.communicate(timeout=120), p.returncode) for p in started]
    assert {(err, code) for _, err, code in ended} == {("", 0)}
    assert len({out for out, _, _ in ended}) == 1
    found = run("", "-m", "graphc", "cache", "--verify", GRAPHC_CACHE_DIR=env["GRAPHC_CACHE_DIR"]).stdout
    assert "0 damaged" in found, found
    names = [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert names and all(n.endswith(".gco") for n in names)  # no temporary file is left


EXIT = """
import sys, threading, time
import graphc
graphc.set_num_threads(3)
x = graphc.rand(400, 400)
f = graphc.compile(lambda x: (x @ x).softmax(-1))
net = graphc.compile(graphc.nn.Linear(400, 5))
loss = net(x).sum()
for _ in range(4):
    f(x), net(x)

def forever():
    with graphc.no_grad():
        while True:
            f(x)

def compile_forever():
    k = 0
    while True:
        k += 1
        g = graphc.compile(lambda x: x * k)
        g(x), g(x)

for work in (forever, forever, compile_forever):
    threading.Thread(target=work, daemon=True).start()
held = iter(lambda: f(x), None)
next(held)
cycle = [f, net, loss]
cycle.append(cycle)
time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize("seconds", ["0", "0.3"])
def test_the_end_of_a_process_with_much_alive(seconds: str) -> None:
    run(EXIT, seconds)
