"""The recorder: effects on Python, and what must be left alone."""

from __future__ import annotations

import gc
import sys
import warnings
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

import graphc
from graphc import nn, optim
from graphc.errors import RecordingError
from graphc.testing import assert_same
from tests.recorder_checks import bits, refused


def v4(scale: float = 1.0) -> Any:
    return graphc.tensor([1.0, -2.0, 3.0, 0.5]) * scale


# ---- stored by Python


def test_losses_append_is_refused() -> None:
    def make() -> Any:
        losses: list[Any] = []

        def f(x: Any) -> Any:
            loss = x.sum()
            losses.append(loss)  # here
            return loss

        return f, (v4(),), lambda: [bits(t) for t in losses]

    refused(make)


def test_item_appended_is_refused_and_is_a_number() -> None:
    def make() -> Any:
        losses: list[Any] = []

        def f(x: Any) -> Any:
            losses.append(x.sum().item())  # here
            return x * 2

        return f, (v4(),), lambda: list(losses)

    refused(make)


def test_attribute_of_a_plain_object_is_refused() -> None:
    def make() -> Any:
        class Cell:
            h: Any = None

            def step(self, x: Any) -> Any:
                h = x * 2 if self.h is None else self.h + x
                self.h = h  # here
                return h * 1

        cell = Cell()
        return cell.step, (v4(),), lambda: bits(cell.h)

    refused(make)


def test_dictionary_entry_is_refused() -> None:
    def make() -> Any:
        cache: dict[str, Any] = {}

        def f(x: Any) -> Any:
            cache["y"] = x * 2  # here
            return x + 1

        return f, (v4(),), lambda: bits(cache["y"])

    refused(make)


def test_stored_in_a_slots_object_is_refused() -> None:
    def make() -> Any:
        class Slotted:
            __slots__ = ("h",)

        box = Slotted()

        def f(x: Any) -> Any:
            box.h = x * 2  # here
            return x + 1

        return f, (v4(),), lambda: bits(box.h)

    refused(make)


def test_stored_in_an_unseen_place_is_refused() -> None:
    def make() -> Any:
        seen: list[Any] = []

        def keep(x: Any, where: Any = seen) -> None:
            where.extend([x])

        def f(x: Any) -> Any:
            y = x * 3  # here
            keep(y)
            return x + 1

        return f, (v4(),), lambda: [bits(t) for t in seen]

    def reason() -> None:
        fn, args, seen = make()
        with pytest.raises(RecordingError, match=r"test_recorder_effects\.py"):
            graphc.compile(fn, fullgraph=True)(*args)
        fn, args, seen = make()
        with pytest.warns(graphc.RecordingWarning, match=r"test_recorder_effects\.py"):
            compiled = graphc.compile(fn)
            for k in range(4):
                compiled(*args)
                assert len(seen()) == k + 1

    reason()


def test_stored_in_an_argument_container_is_refused() -> None:
    def make() -> Any:
        out: dict[str, Any] = {"y": None}

        def f(x: Any, out: Any) -> Any:
            out["y"] = x * 2  # here
            return x + 1

        return f, (v4(), out), lambda: bits(out["y"])

    fn, args, seen = make()
    with pytest.warns(graphc.RecordingWarning):
        compiled = graphc.compile(fn)
        for _ in range(4):
            compiled(*args)
            assert seen() == bits(v4() * 2)


# ---- counters, globals, cells

_COUNT = 0


def test_global_write_is_refused() -> None:
    def make() -> Any:
        global _COUNT
        _COUNT = 0

        def f(x: Any) -> Any:
            global _COUNT
            _COUNT += 1  # here
            return x * 2

        return f, (v4(),), lambda: _COUNT

    refused(make)


def test_nonlocal_write_is_refused() -> None:
    def make() -> Any:
        count = 0

        def f(x: Any) -> Any:
            nonlocal count
            count += 1  # here
            return x * 2

        return f, (v4(),), lambda: count

    refused(make)


@pytest.mark.parametrize(
    "kind", ["object", "dict", "list", "set", "module attribute", "deep", "setattr", "vars", "class", "same value"]
)
def test_counters_are_refused(kind: str) -> None:
    def make() -> Any:
        class Stats:
            total = 0

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.calls = 0

        stats = SimpleNamespace(n=0, inner=SimpleNamespace(n=0))
        table: dict[str, int] = {"n": 0}
        row = [0]
        names: set[int] = set()
        net = Net()

        def f(x: Any) -> Any:
            if kind == "object":
                stats.n += 1  # here
            elif kind == "dict":
                table["n"] += 1  # here
            elif kind == "list":
                row[0] += 1  # here
            elif kind == "set":
                names.add(len(names))  # here
            elif kind == "module attribute":
                net.calls += 1  # here
            elif kind == "deep":
                stats.inner.n += 1  # here
            elif kind == "setattr":
                setattr(stats, "n", stats.n + 1)  # noqa: B010  # here
            elif kind == "vars":
                vars(stats)["n"] = stats.n + 1  # here
            elif kind == "class":
                Stats.total += 1  # here
            else:
                row[0] = row[0] * 1 + 1000  # here
            return x * 2

        return f, (v4(),), lambda: (stats.n, stats.inner.n, table, row, len(names), net.calls, Stats.total)

    refused(make)


def test_objects_made_inside_are_free() -> None:
    def f(x: Any) -> Any:
        cache: dict[str, Any] = {}
        box = SimpleNamespace(n=0, h=None)
        for k in range(3):
            cache[str(k)] = x * k
            box.n += 1
            box.h = cache[str(k)]
        out = []
        out.append(box.h + box.n)
        return out

    assert_same(f, v4())


def test_module_tensor_attribute_is_a_state_output() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("h", graphc.zeros(4))
            self.last = graphc.zeros(4)

        def forward(self, x: Any) -> Any:
            self.h = self.h * 0.5 + x
            self.last = x * 2
            return self.h + 1

    net, other = Net(), Net()
    compiled = graphc.compile(net, fullgraph=True)
    for k in range(6):
        assert bits(compiled(v4(k))) == bits(other(v4(k)))
        assert bits([net.h, net.last]) == bits([other.h, other.last])
    assert compiled.stats.hits == 4


def test_module_attribute_from_none_to_tensor() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h: Any = None

        def forward(self, x: Any) -> Any:
            self.h = x if self.h is None else self.h + x * 2
            return self.h * 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", graphc.RecordingWarning)
        net, other = Net(), Net()
        compiled = graphc.compile(net)
        for k in range(7):
            assert bits(compiled(v4(k))) == bits(other(v4(k)))
            assert bits(net.h) == bits(other.h)


def test_scheduler_inside_is_refused() -> None:
    def make() -> Any:
        model = nn.Linear(4, 1)
        opt = optim.SGD(model.parameters(), lr=0.1)
        schedule = optim.lr_scheduler.StepLR(opt, step_size=1, gamma=0.5)

        def f(x: Any) -> Any:
            opt.zero_grad()
            loss = model(x).sum()
            loss.backward()
            opt.step()
            schedule.step()  # here
            return loss

        return f, (v4(),), lambda: (opt.param_groups[0]["lr"], bits(model.weight), schedule.last_epoch)

    refused(make)


def test_setting_of_an_optimizer_written_inside_is_refused() -> None:
    def make() -> Any:
        w = graphc.ones(4, requires_grad=True)
        opt = optim.SGD([w], lr=0.1)

        def f(x: Any) -> Any:
            opt.param_groups[0]["lr"] *= 0.5  # here
            return x * 2

        return f, (v4(),), lambda: opt.param_groups[0]["lr"]

    refused(make)


@pytest.mark.parametrize(
    "what", ["requires_grad_", "data", "detach_", "train", "register_hook", "register_forward_hook", "grad_hook"]
)
def test_metadata_changes_are_refused(what: str) -> None:
    def make() -> Any:
        w = graphc.ones(4, requires_grad=what in ("register_hook", "grad_hook"))
        if what == "detach_":
            w = graphc.ones(4, requires_grad=True) * 1
        net = nn.Linear(4, 1)
        state = SimpleNamespace(n=0)

        def f(x: Any) -> Any:
            if what == "requires_grad_":
                w.requires_grad_(state is not None and not w.requires_grad)  # here
            elif what == "data":
                w.data = x * 2  # here
            elif what == "detach_":
                w.detach_()  # here
            elif what == "train":
                net.train(not net.training)  # here
            elif what == "register_hook":
                w.register_hook(lambda g: g * 2)  # here
            elif what == "register_forward_hook":
                net.register_forward_hook(lambda m, a, o: o * 2)  # here
            else:
                w.register_hook(lambda g: g * 2)  # here
            return x * 2

        return f, (v4(),), lambda: (w.requires_grad, bits(w), net.training, len(net._forward_hooks))

    refused(make, calls=1 if what == "detach_" else 4)


# ---- liveness


def test_nothing_of_a_recording_is_kept() -> None:
    made: list[Any] = []

    def f(x: Any) -> Any:
        y = x * 2
        made.append(weakref.ref(y))
        return (y + 1).sum()

    def g(x: Any) -> Any:
        return (x * 2 + 1).sum()

    compiled = graphc.compile(g, fullgraph=True)
    x = v4()
    ref = weakref.ref(x)
    for _ in range(3):
        compiled(x)
    assert x._s.slot is None and x._memo is None
    storage = weakref.ref(x._s)
    del x
    gc.collect()
    assert ref() is None and storage() is None


def test_a_weight_has_no_slot_after_the_call() -> None:
    model = nn.Linear(4, 2)
    compiled = graphc.compile(model, fullgraph=True)
    for _ in range(3):
        compiled(v4())
        assert all(p._s.slot is None and p._memo is None for p in model.parameters())


def test_a_model_dies_with_its_compiled_function() -> None:
    model = nn.Linear(4, 2)
    compiled = graphc.compile(model)
    for _ in range(3):
        compiled(v4())
    ref = weakref.ref(model)
    del model, compiled
    gc.collect()
    assert ref() is None


def test_profile_function_is_put_back() -> None:
    calls: list[str] = []

    def profile(frame: Any, event: str, arg: Any) -> None:
        calls.append(event)

    compiled = graphc.compile(lambda x: x * 2)
    sys.setprofile(profile)
    try:
        compiled(v4())
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)
    compiled(v4())
    assert sys.getprofile() is None
