"""graphc.profiler: structure and sums, the Chrome trace, the table, and that nothing else changes."""

from __future__ import annotations

import gzip
import json
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

import graphc
from graphc import nn
from graphc.errors import ArgumentError, StateError, UnsupportedError
from graphc.frontend import hot, mode, natives
from graphc.frontend.record.compiled import RecordingWarning
from graphc.profiler import (
    ProfilerAction,
    ProfilerActivity,
    profile,
    record_function,
    schedule,
    supported_activities,
    tensorboard_trace_handler,
)

HERE = Path(__file__).name


def names(prof: Any, kind: str = "op") -> list[str]:
    return [e.name for e in prof.events() if e.kind == kind]


def line_of(text: str) -> str:
    """Where in this file the only line that ends with `# text` is."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    (number,) = [k for k, line in enumerate(lines, 1) if line.endswith(f"# {text}")]
    return f"{HERE}:{number}"


# ---------------------------------------------------------------- operations


def test_every_operation_is_an_event_in_order() -> None:
    x = graphc.randn(4, 5)
    for _ in range(3):  # hot or not
        with profile() as prof:
            y = (x + x) * 2.0
            y = y.relu().sum(0)
            y[1:3]
            y[0]
        assert names(prof) == ["add", "mul", "relu", "sum", "slice", "select"]


def test_nothing_is_left_behind() -> None:
    x = graphc.randn(3)
    x + x
    before = {holder: holder.run for holder in list(natives._every) if hasattr(holder, "run")}
    with profile():
        assert mode.watching
        x + x, x[0], x * x, x.exp()
        assert all(holder.run is not run for holder, run in before.items())
    assert all(holder.run is run for holder, run in before.items())
    assert not mode.watching and not natives._wraps and not natives._plain
    x[0], x[0], x[1:], x[1:]
    assert any(hot._views)  # learnt again
    made = {holder for holder in list(natives._every) if holder not in before}
    assert all(getattr(holder.run, "__name__", "") != "timed" for holder in made)


def test_the_same_bits_and_gradients() -> None:
    graphc.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.5), nn.Tanh(), nn.Linear(7, 2))
    x = graphc.randn(6, 5)

    def run() -> list[Any]:
        graphc.manual_seed(3)
        model.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return [loss.detach(), *[p.grad.clone() for p in model.parameters()]]

    plain = run()
    with profile(record_shapes=True, with_stack=True):
        watched = run()
    assert all(graphc.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert all(graphc.equal(a, b) for a, b in zip(plain, run(), strict=True))


def test_lines_modules_shapes_and_stack() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU())

        def forward(self, x: Any) -> Any:
            return self.layers(x) + 1.0  # the addition

    net, x = Net(), graphc.randn(2, 3)
    with profile(record_shapes=True, with_stack=True) as prof:
        net(x)
    linear, relu, add = [e for e in prof.events() if e.kind == "op"]
    assert (linear.name, linear.module) == ("linear", "Net.layers.0")
    assert (relu.name, relu.module) == ("relu", "Net.layers.1")
    assert (add.name, add.module, add.place) == ("add", "Net", line_of("the addition"))
    assert linear.input_shapes == [[2, 3], [4, 3], [4]]
    assert "forward" in linear.stack[0] and "test_lines_modules" in linear.stack[1]


def test_children_lie_within_and_times_add_up() -> None:
    model, x = nn.Linear(300, 300), graphc.randn(300, 300)
    with profile() as prof, record_function("outer"):
        model(x).sum().backward()
    events = prof.events()
    assert events[0].name == "outer" and events[0].cpu_parent is None
    for event in events:
        for child in event.cpu_children:
            assert child.cpu_parent is event
            assert event.time_range.start <= child.time_range.start <= child.time_range.end <= event.time_range.end
        assert event.self_cpu_time_total >= -1e-6
    assert {e.name for e in events[0].cpu_children} >= {"linear", "sum", "backward"}
    kernels = [e for e in events if e.kind == "kernel"]
    assert kernels and all(k.cpu_parent is not None and k.place.startswith(HERE) for k in kernels)
    products = [k for k in kernels if k.more.get("flops")]
    assert products[0].flops == 2 * 300**3 and products[0].more["bytes"] >= 4 * 3 * 300**2
    total = sum(e.self_cpu_time_total for e in events)
    assert total == pytest.approx(events.self_cpu_time_total) == pytest.approx(events[0].cpu_time_total)


def test_backward_and_optimiser() -> None:
    p = nn.Parameter(graphc.randn(3, 37))
    opt = graphc.optim.SGD([p], lr=0.1, momentum=0.9)
    for _ in range(4):
        with profile() as prof:
            p.exp().sum().backward()
            opt.step()
            opt.zero_grad()
    assert names(prof, "backward") == ["backward"] and names(prof, "update") == ["Optimizer.step#SGD.step"]
    (backward,) = [e for e in prof.events() if e.kind == "backward"]
    assert "ExpBackward0" in [e.name for e in backward.cpu_children]
    assert names(prof).count("SGD update") == 1


def test_exceptions_end_ranges_and_the_profile() -> None:
    x = graphc.randn(3)
    prof = profile()
    with pytest.raises(ZeroDivisionError), prof, record_function("broken"):
        x + x
        1 / 0  # noqa: B018
    broken, add = prof.events()
    assert broken.more == {"error": "ZeroDivisionError"} and add.cpu_parent is broken
    assert not mode.watching
    with profile() as again:
        x + x
    assert names(again) == ["add"]


def test_threads_have_their_own_events() -> None:
    x = graphc.randn(8)

    def work() -> None:
        with record_function("work"):
            x.exp()

    with profile() as prof:
        others = [threading.Thread(target=work, name=f"worker {k}") for k in range(2)]
        for t in others:
            t.start()
        for t in others:
            t.join()
        x.log()
    works = [e for e in prof.events() if e.name == "work"]
    assert len({e.thread for e in works}) == 2
    assert all([c.name for c in e.cpu_children] == ["exp"] for e in works)
    (log,) = [e for e in prof.events() if e.name == "log"]
    assert log.thread == threading.get_native_id() not in {e.thread for e in works}


# ---------------------------------------------------------------- compiled functions


def test_calls_of_compiled_functions_say_how_they_were_answered() -> None:
    @graphc.compile
    def f(x: Any) -> Any:
        with record_function("inside"):
            return (x @ x).relu()  # the product

    x = graphc.randn(6, 6)
    with profile() as prof:
        results = [f(x) for _ in range(4)]
    assert all(graphc.equal(r, results[0]) for r in results) and f.stats.recordings == 2
    calls = [e for e in prof.events() if e.kind == "call"]
    assert [e.more["answer"] for e in calls] == ["recording", "recording, compiled", "hit", "hit"]
    assert [e.more.get("trace") for e in calls] == [None, None, 1, 1]
    assert [c.name for c in calls[0].cpu_children] == ["inside"] == [c.name for c in calls[1].cpu_children]
    for call in calls[2:]:  # a graph has no ranges
        assert {c.kind for c in call.cpu_children} == {"kernel"}
        assert {c.place for c in call.cpu_children} == {line_of("the product")}
    assert {e.key: e.count for e in prof.key_averages()}[f"{f.__qualname__} [hit]"] == 2


def test_a_recording_under_a_profile_is_the_same() -> None:
    def f(x: Any) -> Any:
        return (x * 2).sum() + x[0]

    x = graphc.randn(5)
    plain, watched = graphc.compile(f), graphc.compile(f)
    plain(x), plain(x)
    with profile(with_stack=True):
        watched(x)
    watched(x)
    assert str(plain.graph) == str(watched.graph) and watched.stats.compilations == 1


def test_lockstep_and_refusals() -> None:
    seen: list[float] = []

    def f(x: Any) -> Any:
        with record_function("inside"):
            y = (x * x).sum()
        seen.append(float(y))
        return y

    compiled, x = graphc.compile(f), graphc.randn(40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)
        with profile() as prof:
            for _ in range(6):
                compiled(x)
    answers = [e.more["answer"] for e in prof.events() if e.kind == "call"]
    assert answers[0] == "recording, refused" and set(answers[1:]) <= {"eager", "lockstep"}
    assert names(prof, "range") == ["inside"] * 6 and len(set(seen)) == 1


def test_a_profile_inside_a_compiled_function_is_refused_with_its_line() -> None:
    def f(x: Any) -> Any:
        with profile():  # the profile inside
            return x + 1

    with pytest.warns(RecordingWarning, match=rf"a profile is started at {line_of('the profile inside')}"):
        assert graphc.equal(graphc.compile(f)(graphc.ones(2)), graphc.full((2,), 2.0))
    assert not mode.watching


def test_a_loaded_file_is_a_call(tmp_path: Path) -> None:
    def double(x: Any) -> Any:
        return x * 2

    x = graphc.ones(3)
    graphc.trace(double, x).save(tmp_path / "double.gcz")
    loaded = graphc.load(tmp_path / "double.gcz")
    with profile() as prof:
        loaded(x)
    call, kernel = prof.events()
    assert (call.kind, call.name) == ("call", "double") and kernel.cpu_parent is call


# ---------------------------------------------------------------- the Chrome trace


def test_chrome_trace(tmp_path: Path) -> None:
    model, x = graphc.compile(nn.Linear(4, 4)), graphc.randn(2, 4)
    with profile(record_shapes=True, with_stack=True) as prof:
        for _ in range(3):
            with record_function("user", args="n=1"):
                model(x)
    prof.add_metadata("who", "me")
    path = tmp_path / "trace.json"
    prof.export_chrome_trace(path)
    trace = json.loads(path.read_text())
    assert trace["who"] == "me" and trace["displayTimeUnit"] == "ms"
    found = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert {e["ph"] for e in trace["traceEvents"]} == {"X", "M"}
    assert {e["name"] for e in trace["traceEvents"] if e["ph"] == "M"} == {"process_name", "thread_name"}
    for e in found:
        assert set(e) == {"ph", "cat", "name", "pid", "tid", "ts", "dur", "args"}
        assert e["dur"] >= 0 and isinstance(e["ts"], float)
    assert len(found) == len(prof.events())
    user, call, kernel = [e for e in found if e["ts"] >= [f for f in found if f["name"] == "user"][-1]["ts"]]
    assert (user["cat"], call["cat"], kernel["cat"]) == ("user_annotation", "compiled_call", "kernel")
    assert call["name"].endswith("[hit]") and user["args"]["args"] == "n=1"
    assert user["ts"] <= call["ts"] <= kernel["ts"]
    assert kernel["ts"] + kernel["dur"] <= call["ts"] + call["dur"] <= user["ts"] + user["dur"]
    ops = [e for e in found if e["cat"] == "cpu_op" and e["name"] == "linear"]
    assert ops[0]["args"]["Input Dims"] == [[2, 4], [4, 4], [4]] and HERE in ops[0]["args"]["line"]


def test_compressed_and_for_tensorboard(tmp_path: Path) -> None:
    x = graphc.ones(2)
    handler = tensorboard_trace_handler(str(tmp_path / "logs"), "me", use_gzip=True)
    with profile(on_trace_ready=handler):
        x + x
    (file,) = (tmp_path / "logs").iterdir()
    assert file.name.startswith("me.") and file.name.endswith(".pt.trace.json.gz")
    assert "add" in {e["name"] for e in json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]}


# ---------------------------------------------------------------- sums and the table


def test_sums_and_table() -> None:
    x, y = graphc.randn(4), graphc.randn(2, 3)
    with profile(record_shapes=True) as prof:
        for _ in range(3):
            x + x
        y + y
        y.exp()
    sums = {e.key: e for e in prof.key_averages()}
    assert {k: e.count for k, e in sums.items()} == {"add": 4, "exp": 1}
    assert sums["add"].cpu_time == pytest.approx(sums["add"].cpu_time_total / 4)
    apart = prof.key_averages(group_by_input_shape=True)
    assert [(e.key, e.count, e.input_shapes) for e in apart] == [
        ("add", 3, [[4], [4]]), ("add", 1, [[2, 3], [2, 3]]), ("exp", 1, [[2, 3]]),
    ]  # fmt: skip
    text = apart.table(sort_by="count", row_limit=2, header="mine")
    lines = text.splitlines()
    assert lines[0] == "mine" and lines[2].split("  ")[0] == "Name" and "# of Calls" in lines[2]
    assert [line.split()[0] for line in lines[4:6]] == ["add", "add"] and lines[-1].startswith("Self CPU time total: ")
    assert "Input Shapes" in lines[2] and "[[4], [4]]" in lines[4] and "exp" not in text
    assert prof.key_averages().total_average().count == 5
    with pytest.raises(ArgumentError, match="cannot sort by 'cuda_time_total'; choose from cpu_time_total"):
        prof.key_averages().table(sort_by="cuda_time_total")
    with pytest.raises(ArgumentError, match="group_by_stack_n needs profile"):
        prof.key_averages(group_by_stack_n=2)


def test_time_of_an_event_within_its_like_counts_once() -> None:
    with profile() as prof, record_function("a"), record_function("a"):
        graphc.ones(2)
    outer = next(e for e in prof.events() if e.name == "a")
    (both,) = [e for e in prof.key_averages() if e.key == "a"]
    assert both.count == 2 and both.cpu_time_total == pytest.approx(outer.cpu_time_total)


# ---------------------------------------------------------------- steps


def test_schedule_as_in_pytorch() -> None:
    action = schedule(wait=1, warmup=1, active=2, repeat=2, skip_first=1)
    none, warm, rec, save = ProfilerAction
    assert [action(k) for k in range(11)] == [none, none, warm, rec, save, none, warm, rec, save, none, none]
    torch = pytest.importorskip("torch")
    for settings in (
        {"wait": 1, "warmup": 1, "active": 2, "repeat": 2, "skip_first": 1},
        {"wait": 0, "warmup": 1, "active": 1},
        {"wait": 2, "warmup": 1, "active": 3, "skip_first": 2, "skip_first_wait": 1, "repeat": 1},
    ):
        ours, theirs = schedule(**settings), torch.profiler.schedule(**settings)
        assert [ours(k).name for k in range(20)] == [theirs(k).name for k in range(20)]


def test_steps_give_a_trace_a_cycle() -> None:
    x, ready = graphc.ones(2), []

    def on_ready(prof: Any) -> None:
        ready.append((prof.step_num, names(prof, "step"), names(prof)))

    with profile(schedule=schedule(wait=1, warmup=1, active=2, repeat=2), on_trace_ready=on_ready) as prof:
        for k in range(9):
            assert bool(mode.watching) == (k % 4 > 0 and k < 8)  # nothing is watched while it waits
            x + x
            prof.step()
    steps = [[f"ProfilerStep#{k}" for k in pair] for pair in ((2, 3), (6, 7))]
    assert ready == [(4, steps[0], ["add"] * 2), (8, steps[1], ["add"] * 2)]
    assert all(e.cpu_parent.kind == "step" for e in prof.events() if e.kind == "op")


def test_accumulated_cycles() -> None:
    with profile(schedule=schedule(wait=0, warmup=0, active=1, repeat=3), acc_events=True) as prof:
        for _ in range(3):
            graphc.ones(2) + 1.0
            prof.step()
    assert names(prof, "step") == [f"ProfilerStep#{k}" for k in range(3)]


# ---------------------------------------------------------------- misuse and the rest


def test_misuse() -> None:
    prof = profile()
    with pytest.raises(StateError, match="not running; call start"):
        prof.stop()
    with pytest.raises(StateError, match="step\\(\\) outside"):
        prof.step()
    prof.start()
    with pytest.raises(StateError, match="running already"):
        prof.start()
    with pytest.raises(StateError, match="another profile is running"):
        profile().start()
    with pytest.raises(StateError, match="call stop\\(\\) first"):
        prof.events()
    prof.stop()
    assert prof.events() == []
    with pytest.raises(UnsupportedError, match="profile_memory is not supported"):
        profile(profile_memory=True)
    with pytest.raises(ArgumentError, match="ProfilerActivity"):
        profile(activities=["cpu"])  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match="active must be positive"):
        schedule(wait=1, warmup=1, active=0)
    with pytest.warns(UserWarning, match="CUDA is not available"):
        profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
    assert supported_activities() == {ProfilerActivity.CPU}


def test_record_function_as_decorator_and_without_a_profile() -> None:
    @record_function("named")
    def f(x: Any) -> Any:
        """Doc."""
        return x + 1.0

    assert f.__doc__ == "Doc."
    f(graphc.ones(2))
    with profile() as prof:
        f(graphc.ones(2))
    assert names(prof, "range") == ["named"]


def test_the_older_form() -> None:
    from graphc.autograd import profiler

    x = graphc.ones(3)
    with profiler.profile(record_shapes=True) as prof, profiler.record_function("r"):
        x + x
    assert [e.name for e in prof.function_events if e.kind != "kernel"] == ["r", "add"]
    assert "add" in prof.table(row_limit=5) and prof.self_cpu_time_total > 0
    with profiler.profile(enabled=False) as off:
        x + x
    assert off.function_events == []
    with pytest.raises(UnsupportedError, match="only the CPU"):
        profiler.profile(use_device="cuda")
