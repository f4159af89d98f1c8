"""Calls like the last one: every kind of change between them is noticed, and nothing else is written than eagerly."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.config import config
from graphc.errors import AutogradError, InternalError
from graphc.frontend.record import lookups
from graphc.nn import functional as F
from graphc.runtime import words
from tests.recorder_checks import bits

FACTOR = 1.5
TABLE = {"a": 2.0, "list": [1.0, 3.0]}
HERE: ContextVar[float] = ContextVar("HERE", default=2.0)
CALLS = 6

needs_words = pytest.mark.skipif(not words.readable(), reason="this interpreter is asked by Python alone")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
        self.register_buffer("seen", graphc.zeros(2))
        self.scale = 1.25
        self.numbers = [1.0, 2.0]
        self.names = {"k": 0.5}
        self.parts = [self.inner]

    def forward(self, x: Any) -> Any:
        y = x
        for part in self.parts:
            y = part(y)
        y = y * self.scale * self.numbers[-1] * len(self.numbers) + self.names["k"] * len(self.names)
        with graphc.no_grad():
            self.seen += y.detach().mean(0)
        return y


def make() -> SimpleNamespace:
    graphc.manual_seed(3)
    net = Net()
    net.eval()
    opt = graphc.optim.Adam(net.parameters(), lr=0.01)
    strength, rule = 0.5, F.mse_loss
    world = SimpleNamespace(net=net, opt=opt)

    def helper(y: Any, factor: float = 2.0, *, offset: float = 0.25) -> Any:
        return y * factor + offset

    def step(x: Any, t: Any) -> Any:
        world.opt.zero_grad()
        out = helper(world.net(x)) * strength * FACTOR + TABLE["a"] * TABLE["list"][0] + HERE.get()
        loss = rule(out, t)
        loss.backward()
        world.opt.step()
        return loss

    def put(value: float) -> None:
        nonlocal strength
        strength = value

    def choose(other: Any) -> None:
        nonlocal rule
        rule = other

    world.step, world.put, world.choose, world.helper = step, put, choose, helper
    world.first = net.inner[0].weight
    return world


def state(w: SimpleNamespace) -> Any:
    grads = [p.grad for p in w.net.parameters()]
    return bits([list(w.net.state_dict().values()), grads, [dict(s) for s in w.opt.state.values()]])


def arguments() -> tuple[Any, Any]:
    graphc.manual_seed(8)
    return graphc.randn(5, 3), graphc.randn(5, 2)


def runs(w: SimpleNamespace, step: Callable[..., Any], change: Callable[..., Any], count: int = CALLS) -> list[Any]:
    x, t = arguments()
    found: list[Any] = [(bits(step(x, t)), state(w)) for _ in range(count)]
    change(w)
    try:
        found += [(bits(step(x, t)), state(w)) for _ in range(count)]
    except Exception as error:  # what eager code does then, too
        found.append((type(error).__name__, state(w)))
    return found


def set_item(owner: Any, key: Any, value: Any) -> None:
    owner[key] = value


def other_opt(w: SimpleNamespace) -> None:
    w.opt = graphc.optim.Adam(w.net.parameters(), lr=0.5)


def other_data(w: SimpleNamespace) -> None:
    w.first.data = graphc.ones(4, 3)


def in_place(w: SimpleNamespace) -> None:
    with graphc.no_grad():
        w.first.mul_(2.0)


def helper_code(w: SimpleNamespace) -> None:
    def helper(y: Any, factor: float = 2.0, *, offset: float = 0.25) -> Any:
        return y * factor - offset

    w.helper.__code__ = helper.__code__


CHANGES: dict[str, Callable[[Any], Any]] = {
    "an attribute of a module": lambda w: setattr(w.net, "scale", 3.0),
    "vars() of a module": lambda w: set_item(vars(w.net), "scale", 3.0),
    "object.__setattr__": lambda w: object.__setattr__(w.net, "scale", 3.0),
    "an attribute that hides a class's": lambda w: setattr(w.net, "forward", lambda x: x.sum() * w.first.sum()),
    "a list of a module": lambda w: set_item(w.net.numbers, 1, 7.0),
    "a longer list": lambda w: w.net.numbers.append(2.0),
    "a list of modules": lambda w: w.net.parts.append(nn.Identity()) or w.net.parts.insert(0, nn.ReLU()),
    "a dict of a module": lambda w: set_item(w.net.names, "k", 0.75),
    "a longer dict": lambda w: set_item(w.net.names, "l", 0.75),
    "a parameter, directly": lambda w: set_item(w.net.inner[0]._parameters, "weight", nn.Parameter(graphc.ones(4, 3))),
    "a submodule, directly": lambda w: set_item(w.net.inner._modules, "0", nn.Linear(3, 4, bias=False)),
    "a buffer": lambda w: setattr(w.net, "seen", graphc.ones(2)),
    "training": lambda w: w.net.train(),
    "a flag of one module": lambda w: setattr(w.net.inner[1], "training", True),
    "a hook of a module": lambda w: w.net.inner[0].register_forward_hook(lambda m, a, out: out * 2),
    "a hook of a tensor": lambda w: w.first.register_hook(lambda g: g * 2),
    "requires_grad": lambda w: w.first.requires_grad_(False),
    "data": other_data,
    "elements": in_place,
    "elements by NumPy": lambda w: w.first.detach().numpy().fill(0.5),
    "a gradient": lambda w: setattr(w.first, "grad", None),
    "a closure variable": lambda w: w.put(0.125),
    "a function in a closure": lambda w: w.choose(F.l1_loss),
    "defaults": lambda w: setattr(w.helper, "__defaults__", (3.0,)),
    "keyword defaults": lambda w: setattr(w.helper, "__kwdefaults__", {"offset": 0.5}),
    "code": helper_code,
    "lr": lambda w: set_item(w.opt.param_groups[0], "lr", 0.5),
    "betas": lambda w: set_item(w.opt.param_groups[0], "betas", (0.5, 0.9)),
    "weight_decay": lambda w: set_item(w.opt.param_groups[0], "weight_decay", 0.1),
    "params": lambda w: set_item(w.opt.param_groups[0], "params", [w.first]),
    "a parameter less": lambda w: w.opt.param_groups[0]["params"].pop(),
    "the state of the optimiser": lambda w: w.opt.state.clear(),
    "a state of one parameter": lambda w: set_item(w.opt.state[w.first], "exp_avg", graphc.ones(4, 3)),
    "a loaded state": lambda w: w.opt.load_state_dict(w.opt.state_dict()),
    "the optimiser": other_opt,
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_between_calls_are_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, given = make(), make()
    expected = runs(plain, plain.step, CHANGES[name])
    step = graphc.compile(given.step)
    used: list[int] = []

    def change(w: SimpleNamespace) -> None:
        used.extend(t.repeat.calls for t in step.traces if t.repeat is not None)
        CHANGES[name](w)

    assert runs(given, step, change) == expected
    assert sum(used) >= 2 or not words.readable()
    monkeypatch.setattr(config, "verify", True)
    again = make()
    assert runs(again, graphc.compile(again.step), CHANGES[name]) == expected


@pytest.mark.parametrize("name", ["FACTOR", "TABLE"])
def test_changed_globals_are_noticed(name: str) -> None:
    def change(_: Any) -> None:
        globals()["FACTOR"] = 4.0
        globals()["TABLE"] = TABLE if name == "FACTOR" else {"a": 5.0, "list": [1.0]}

    before = FACTOR, TABLE
    found = []
    for how in (lambda f: f, graphc.compile):
        w = make()
        try:
            found.append(runs(w, how(w.step), change))
        finally:
            globals()["FACTOR"], globals()["TABLE"] = before
    assert found[0] == found[1]
    assert found[0][CALLS - 1] != found[0][CALLS]


def test_an_attribute_that_comes_while_another_goes_is_noticed() -> None:
    class Holder:
        def __init__(self) -> None:
            self.weight = graphc.ones(3)
            self.unread = 1

        def run(self, x: Any) -> Any:
            y = x * self.weight
            return y + self.__dict__["bonus"] if "bonus" in self.__dict__ else y

        def default(self, x: Any) -> Any:
            return x * getattr(self, "factor", 2.0) * self.weight

    for name, value in (("run", 3.0), ("default", 5.0)):
        found = []
        for how in (lambda f: f, graphc.compile):
            h = Holder()
            fn, x = how(getattr(h, name)), graphc.full((3,), 2.0)
            seen = [bits(fn(x)) for _ in range(CALLS)]
            del h.unread
            setattr(h, "bonus" if name == "run" else "factor", value)
            seen += [bits(fn(x)) for _ in range(CALLS)]
            assert seen[0] != seen[-1]
            found.append(seen)
        assert found[0] == found[1], name


def test_changed_entries_and_context_variables_are_noticed() -> None:
    for change in (lambda w: TABLE["list"].__setitem__(0, 9.0), lambda w: HERE.set(5.0)):  # type: ignore[attr-defined]
        found = []
        for how in (lambda f: f, graphc.compile):
            w, token = make(), HERE.set(2.0)
            try:
                found.append(runs(w, how(w.step), change))
            finally:
                TABLE["list"] = [1.0, 3.0]
                HERE.reset(token)
        assert found[0] == found[1]


@needs_words
def test_what_changes_at_every_call_is_left_to_python() -> None:
    """The globals of a script change whenever its loop goes on."""
    w, (x, t) = make(), arguments()
    step = graphc.compile(w.step)
    for _ in range(120):
        globals()["_counter"] = object()
        w.net.__dict__["unread"] = object()  # breaks the guard on the names once, then changes a value
        step(x, t)
    assert step.stats.recordings == 2
    repeat = step.traces[0].repeat
    assert repeat.calls >= 20
    assert len(repeat.watched.rest.items) <= 40
    del globals()["_counter"]


@needs_words
def test_nearly_everything_is_said_in_words() -> None:
    layers = [nn.Linear(2, 2) for _ in range(8)]
    net = nn.Sequential(*layers)
    opt = graphc.optim.Adam(net.parameters())

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = net(x).sum()
        loss.backward()
        opt.step()
        return loss

    compiled, x = graphc.compile(step), graphc.ones(1, 2)
    for _ in range(10):
        compiled(x)
    repeat = compiled.traces[0].repeat
    rest = repeat.watched.rest
    assert len(repeat.watched.watch._table) > 16 * 3 * 6
    assert not (rest.tensors or rest.dicts or rest.cells or rest.ordered or rest.sized or rest.attributes)
    assert len(rest.items) < 12  # context variables and the globals of this module, at most
    assert repeat.gradients.renewals <= 2 and repeat.calls >= 6
    assert len(repeat.numbers) == 4 and len(repeat.arguments) == 1 and not repeat.copies


@pytest.mark.parametrize("key", ["weight_decay", "momentum", "dampening"])
def test_whether_a_setting_is_zero_decides(key: str) -> None:
    """Eagerly, a weight decay of 0.0 is left out: -0.0 stays -0.0."""
    found = []
    for how in (lambda f: f, graphc.compile):
        graphc.manual_seed(0)
        p = nn.Parameter(graphc.randn(4))
        opt = graphc.optim.SGD([p], lr=0.1, momentum=0.5, weight_decay=0.5)

        def step(x: Any, p: Any = p, opt: Any = opt) -> Any:
            opt.zero_grad()
            loss = (p * x).sum()
            loss.backward()
            opt.step()
            return loss

        fn, seen = how(step), []
        for value in (0.0, 0.25, 0.0, 0.5):
            opt.param_groups[0][key] = value
            seen += [(bits(fn(graphc.full((4,), -0.5))), bits(p)) for _ in range(4)]
        found.append(seen)
    assert found[0] == found[1]


def test_gradients_that_python_holds_keep_their_values() -> None:
    def keep_grad(w: Any) -> Any:
        return w.first.grad

    def keep_view(w: Any) -> Any:
        return w.first.grad[0]

    def keep_array(w: Any) -> Any:
        return w.first.grad.numpy()

    def keep_detached(w: Any) -> Any:
        return w.first.grad.detach()

    def keep_bytes(w: Any) -> Any:
        return memoryview(w.first.grad.numpy()).cast("B")

    x, t = arguments()
    for keep in (keep_grad, keep_view, keep_array, keep_detached, keep_bytes):
        w = make()
        step = graphc.compile(w.step)
        for _ in range(CALLS):
            step(x, t)
        held = keep(w)
        copy = bytes(held) if isinstance(held, memoryview) else bits(held)
        for _ in range(3):
            step(x, t)
        assert (bytes(held) if isinstance(held, memoryview) else bits(held)) == copy, keep.__name__
        assert bits(keep(w) if not isinstance(held, memoryview) else w.first.grad) != copy


@needs_words
def test_gradients_nobody_holds_stay_where_they_are() -> None:
    w, (x, t) = make(), arguments()
    step = graphc.compile(w.step)
    for _ in range(CALLS):
        step(x, t)
    gradients, grad = step.traces[0].repeat.gradients, id(w.first.grad)
    renewals = gradients.renewals
    for _ in range(3):
        step(x, t)
    assert gradients.renewals == renewals and id(w.first.grad) == grad
    kept = w.first.grad
    step(x, t)
    assert gradients.renewals == renewals + 1 and w.first.grad is not kept
    renewals, values = gradients.renewals, bits(w.first.grad)
    del kept
    for _ in range(5):
        w.opt.zero_grad()  # outside: they are put back
        assert w.first.grad is None
        step(x, t)
        assert bits(w.first.grad) != values
        values = bits(w.first.grad)
    assert gradients.renewals <= renewals + 2
    kept = w.first.grad
    w.opt.zero_grad()
    values = bits(kept)
    step(x, t)
    assert kept is not w.first.grad and bits(kept) == values
    ref = weakref.ref(w.first.grad)
    for _ in range(3):
        step(x, t)
    assert ref() is None  # as eagerly: the old gradient is gone


def test_gradients_changed_outside() -> None:
    def scale(w: Any) -> None:
        w.first.grad.mul_(3.0)

    def attribute(w: Any) -> None:
        w.first.grad.note = "mine"

    def shape(w: Any) -> None:
        w.first.grad = graphc.ones(4, 3)

    for change in (scale, attribute, shape, lambda w: w.opt.zero_grad()):
        plain, given = make(), make()
        step = graphc.compile(given.step)
        assert runs(given, step, change) == runs(plain, plain.step, change)
        assert not hasattr(given.first.grad, "note")


def test_gradients_that_are_added_up_are_not_reused() -> None:
    found = []
    for how in (lambda f: f, graphc.compile):
        graphc.manual_seed(0)
        p = nn.Parameter(graphc.randn(4))

        def step(x: Any, p: Any = p) -> Any:
            loss = (p * x).sum()
            loss.backward()
            return loss

        fn = how(step)
        found.append([(bits(fn(graphc.full((4,), float(k)))), bits(p.grad)) for k in range(8)])
    assert found[0] == found[1]


def test_versions_are_counted() -> None:
    w, (x, t) = make(), arguments()
    step = graphc.compile(w.step)
    for _ in range(CALLS):
        step(x, t)
    y = (w.first * w.first).sum()
    before = w.first._s.version, w.first._v.value
    step(x, t)
    assert (w.first._s.version, w.first._v.value) == (before[0] + 1, before[1] + 1)
    with pytest.raises(AutogradError, match="modified by an inplace"):
        y.backward()


@pytest.mark.filterwarnings("ignore:.*shares:UserWarning")
def test_arguments_over_the_memory_of_a_state() -> None:
    found = []
    for how in (lambda f: f, graphc.compile):
        buffer = graphc.arange(6.0)

        def step(x: Any, buffer: Any = buffer) -> Any:
            buffer.add_(1.0)
            return x * 2

        fn, other = how(step), graphc.ones(3)
        seen = [bits(fn(other)) for _ in range(CALLS)]
        seen += [bits(fn(buffer[k : k + 3])) for k in (0, 3, 2)] + [bits(fn(other)), bits(buffer)]
        found.append(seen)
    assert found[0] == found[1]


def test_an_error_midway_leaves_everything_as_it_was() -> None:
    table = nn.Embedding(4, 2)
    opt = graphc.optim.SGD(table.parameters(), lr=0.5)

    def step(k: Any) -> Any:
        opt.zero_grad()
        loss = table(k).sum()
        loss.backward()
        opt.step()
        return loss

    fn, good = graphc.compile(step), graphc.tensor([0, 3])
    for _ in range(CALLS):
        fn(good)
    before, grad = bits(table.weight), bits(table.weight.grad)
    with pytest.raises(Exception, match="out of range"):
        fn(graphc.tensor([0, 4]))
    assert bits(table.weight) == before
    fn(good)
    assert bits(table.weight.grad) == grad and bits(table.weight) != before


def test_the_door_tells_arguments_apart() -> None:
    def f(x: Any, y: Any, k: Any = 2) -> Any:
        return x * y + (k if isinstance(k, bool) else k * 3), graphc.is_grad_enabled()

    compiled = graphc.compile(f)
    x, y = graphc.ones(3), graphc.full((3,), 2.0)
    wide, long, leaf = graphc.ones(3, 1), graphc.ones(3, dtype=graphc.float64), graphc.ones(3, requires_grad=True)
    calls: list[tuple[Any, ...]] = [
        (x, y), (x, y, 2), (x, y, True), (x, y, 1), (x, y, 1.0), (x, y, 2.5), (x, x), (wide, y), (long, y), (leaf, y),
        (leaf * 2, y), (x, 3.0), (x, 3), (x, 4), (x[::1], y), (x.detach(), x), (graphc.ones(6)[::2], y),
    ]  # fmt: skip
    for args in [*calls, *reversed(calls)]:
        for _ in range(4):
            got, expected = compiled(*args), f(*args)
            assert bits(got) == bits(expected)
        with graphc.no_grad():
            assert bits(compiled(*args)) == bits(f(*args))
            assert bits(compiled(*args)) == bits(f(*args))
        assert bits(compiled(*args)) == bits(f(*args))


def test_the_default_dtype_is_part_of_the_call() -> None:
    def f(x: Any) -> Any:
        return x + 0.1 + graphc.zeros(())

    compiled, x = graphc.compile(f), graphc.arange(3)
    for _ in range(CALLS):
        compiled(x)
    graphc.set_default_dtype(graphc.float64)
    try:
        assert bits(compiled(x)) == bits(f(x)) and compiled(x).dtype is graphc.float64
    finally:
        graphc.set_default_dtype(graphc.float32)
    assert bits(compiled(x)) == bits(f(x))


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")  # NumPy 2.5 advises against it
def test_the_shape_of_an_array_handed_out_is_its_own() -> None:
    state = graphc.ones(2, 3)
    array = state.numpy()

    def f(x: Any) -> Any:
        return state + x

    compiled, x = graphc.compile(f), graphc.zeros(2, 3)
    for _ in range(CALLS):
        compiled(x)
    array.shape = (3, 2)  # as in PyTorch: the tensor keeps its shape, and shares the memory
    array[2, 1] = 5.0
    array.setflags(write=False)
    x.numpy().shape = (6,)
    assert bits(compiled(x)) == bits(f(x)) and compiled(x)[1, 2] == 5.0
    state.add_(1.0)
    assert bits(compiled(x)) == bits(f(x)) and array[2, 1] == 6.0


def test_threads_call_one_function() -> None:
    w = SimpleNamespace(bias=graphc.ones(4))

    def f(x: Any) -> Any:
        return x * 2 + w.bias

    compiled = graphc.compile(f)
    for _ in range(CALLS):
        compiled(graphc.ones(4))
    wrong: list[Any] = []

    def work(start: int) -> None:
        for k in range(200):
            x = graphc.full((4,), float(start + k))
            if bits(compiled(x)) != bits(f(x)):
                wrong.append((start, k))

    threads = [threading.Thread(target=work, args=(1000 * k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and compiled.stats.hits >= 800


@needs_words
def test_verification_finds_a_change_that_was_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    w, (x, t) = make(), arguments()
    step = graphc.compile(w.step)
    for _ in range(CALLS):
        step(x, t)
    monkeypatch.setattr(lookups.Watched, "same", lambda self: True)
    monkeypatch.setattr(config, "verify", True)
    step(x, t)
    w.net.scale = 3.0
    with pytest.raises(InternalError, match=r"a change was not noticed: .*scale"):
        step(x, t)


def test_an_interpreter_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "readable", lambda: False)
    for name in ("vars() of a module", "data", "the state of the optimiser"):
        plain, given = make(), make()
        expected = runs(plain, plain.step, CHANGES[name])
        step = graphc.compile(given.step)
        assert runs(given, step, CHANGES[name]) == expected
        assert all(t.repeat is None for t in step.traces)


def test_nothing_of_a_call_is_kept() -> None:
    def f(x: Any) -> Any:
        return x * 2

    compiled = graphc.compile(f)
    x = graphc.ones(4)
    for _ in range(CALLS):
        out = compiled(x)
    refs = [weakref.ref(x), weakref.ref(out), weakref.ref(x._a), weakref.ref(out._a)]
    del x, out
    assert [r() for r in refs] == [None] * 4
    assert np.array_equal(compiled(graphc.ones(4)).numpy(), np.full(4, 2.0, np.float32))
