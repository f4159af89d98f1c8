"""The recorder: host data, random numbers, and changes after many hits."""

from __future__ import annotations

import dataclasses
import enum
import functools
import itertools
import random
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.testing import assert_same
from tests.recorder_checks import bits, follows, refused


def x34(start: float = 0.0) -> Any:
    return graphc.tensor([[start + i * 4 + j - 5.5 for j in range(4)] for i in range(3)])


# ---- host data


def test_host_data_is_a_confirmed_constant() -> None:
    assert_same(lambda x: x + graphc.tensor([1.0, 2.0, 3.0, 4.0]) + graphc.tensor(3), x34())
    assert_same(lambda x: x + graphc.arange(4) + graphc.ones(3, 4) + graphc.full((4,), 0.5) + graphc.eye(3, 4), x34())


def test_host_data_that_changes_is_refused() -> None:
    def make() -> Any:
        turn = itertools.count()

        def f(x: Any) -> Any:
            return x + graphc.tensor([float(next(turn)), 1.0])  # here

        return f, (graphc.ones(2),)

    refused(make)


def test_host_data_of_a_closed_over_list() -> None:
    values = [1.0, 2.0]

    def f(x: Any) -> Any:
        return x + graphc.tensor(values)

    compiled = graphc.compile(f, fullgraph=True)
    for k in range(8):
        values[0] = 1.0 if k < 4 else 5.0
        assert bits(compiled(graphc.ones(2))) == bits(f(graphc.ones(2)))


def test_numpy_arrays_inside_are_refused() -> None:
    def from_numpy() -> Any:
        a = np.ones(2, np.float32)

        def f(x: Any) -> Any:
            return x + graphc.from_numpy(a)  # here

        return f, (graphc.ones(2),)

    def operand() -> Any:
        a = np.ones(2, np.float32)

        def f(x: Any) -> Any:
            return x + graphc.tensor(a)  # here

        return f, (graphc.ones(2),)

    refused(from_numpy)
    refused(operand)


def test_numpy_memory_of_an_argument_and_of_weights() -> None:
    array = np.arange(4, dtype=np.float32)
    x = graphc.from_numpy(array)
    model = nn.Linear(4, 2)
    alias = model.weight.detach().numpy()
    compiled = graphc.compile(lambda x: model(x), fullgraph=True)
    for k in range(6):
        array[0] = k
        alias[0, 0] = -k
        assert bits(compiled(x)) == bits(model(x))


# ---- random numbers, time, counters


@pytest.mark.parametrize("source", [random.random, np.random.rand, time.perf_counter])
def test_python_randomness_and_time_are_refused(source: Any) -> None:
    def make() -> Any:
        random.seed(1)
        np.random.seed(1)

        def f(x: Any) -> Any:  # here
            return x * (0.0 * float(source()))  # here

        return f, (graphc.ones(2),)

    if source is time.perf_counter:

        def timed() -> Any:
            def f(x: Any) -> Any:
                return x + (source() > 0) * 0.0 + source() * 0.0

            return f, (graphc.ones(2),)

        compiled = graphc.compile(timed()[0])
        for _ in range(4):
            assert compiled(graphc.ones(2)).tolist() == [1.0, 1.0]
        return

    def drift() -> Any:
        random.seed(1)
        np.random.seed(1)

        def f(x: Any) -> Any:  # here
            return x * float(source())  # here

        return f, (graphc.ones(2),)

    refused(drift, match="random is moved on")


def test_random_state_advances_as_eager() -> None:
    def f(x: Any) -> Any:
        return nn.functional.dropout(x, 0.5) + graphc.rand(3, 4) + graphc.randn(4)

    graphc.manual_seed(3)
    expected = [bits(f(x34())) for _ in range(6)] + [bits(graphc.rand(2))]
    graphc.manual_seed(3)
    compiled = graphc.compile(f, fullgraph=True)
    got = [bits(compiled(x34())) for _ in range(6)] + [bits(graphc.rand(2))]
    assert got == expected
    assert compiled.stats.hits == 4
    assert_same(f, x34())


def test_manual_seed_inside() -> None:
    def f(x: Any) -> Any:
        a = graphc.rand(4)
        graphc.manual_seed(11)
        return x + a, graphc.rand(4), graphc.rand(4)

    assert_same(f, x34())
    graphc.manual_seed(4)
    expected = [bits(f(x34())) for _ in range(4)] + [bits(graphc.rand(2))]
    graphc.manual_seed(4)
    compiled = graphc.compile(f, fullgraph=True)
    assert [bits(compiled(x34())) for _ in range(4)] + [bits(graphc.rand(2))] == expected


def test_random_state_is_not_moved_by_a_miss() -> None:
    def f(x: Any) -> Any:
        y = x * graphc.rand(4)
        return y + 1 if y.sum() > 0 else y - 1

    graphc.manual_seed(3)
    signs = [1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0]
    expected = [bits(f(graphc.full((4,), s))) for s in signs]
    graphc.manual_seed(3)
    compiled = graphc.compile(f, fullgraph=True)
    assert [bits(compiled(graphc.full((4,), s))) for s in signs] == expected
    assert compiled.stats.compilations == 2


@pytest.mark.parametrize("call", [graphc.initial_seed, graphc.get_rng_state])
def test_random_state_escapes_are_refused(call: Any) -> None:
    def make() -> Any:
        def f(x: Any) -> Any:
            call()  # here
            return x + 1

        return f, (graphc.ones(2),)

    refused(make)


# ---- what a call like the last one must still see

_CONFIG: dict[str, Any] = {"rate": 0.5}
_RATE = 0.5


def helper(x: Any) -> Any:
    return x * _CONFIG["rate"]


@pytest.mark.parametrize(
    "change",
    [
        "set",
        "array",
        "no_grad closure",
        "order of submodules",
        "wrapped",
        "deep dict",
        "list item",
        "tuple replaced",
        "enum",
        "classmethod",
        "static",
        "group flag",
        "groups replaced",
        "key appears",
        "hook on the model",
        "slot of a base class",
        "dataclass field",
        "property replaced",
        "global function",
        "module constant",
    ],
)
def test_a_change_after_many_hits_is_seen(change: str) -> None:
    class Mode(enum.Enum):
        A = 2.0
        B = 3.0

    class Base:
        __slots__ = ("slot",)

    class Thing(Base):
        factor = 2.0

        @classmethod
        def make(cls) -> float:
            return cls.factor

        @staticmethod
        def helper(x: Any) -> Any:
            return x * 2

        @property
        def prop(self) -> float:
            return 2.0

    @dataclasses.dataclass
    class Config:
        rate: float = 2.0

    box = SimpleNamespace(
        names={"a"},
        array=np.ones(2),
        table={"a": {"b": 2.0}},
        row=[1.0, 2.0],
        pair=(1.0, 2.0),
        mode=Mode.A,
        config=Config(),
    )
    thing = Thing()
    thing.slot = 2.0
    scale = 2.0
    stack = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Tanh()})
    opt = optim.SGD(stack.parameters(), lr=0.1)

    @graphc.no_grad()
    def under(x: Any) -> Any:
        return x * scale

    @functools.wraps(under)
    def wrapped(x: Any) -> Any:
        return under(x)

    def f(x: Any) -> Any:
        y = under(x) + wrapped(x) + (1.0 if "b" in box.names else 0.0) + float(box.array.sum())
        y = y * box.table["a"]["b"] + box.row[1] * box.pair[1] + box.mode.value + box.config.rate + thing.make()
        for layer in stack.values():
            y = layer(y)
        y = thing.helper(y) * thing.slot + thing.prop + helper(y) + getattr(box, "extra", 0.0) + _RATE
        return y * (2 if opt.param_groups[0]["nesterov"] else 1) * len(opt.param_groups)

    def act() -> None:
        nonlocal scale
        global _RATE
        {
            "set": lambda: box.names.add("b"),
            "array": lambda: box.array.fill(3.0),
            "order of submodules": lambda: stack.__setitem__("a", stack.pop("a")),
            "deep dict": lambda: box.table["a"].update(b=5.0),
            "list item": lambda: box.row.__setitem__(1, 7.0),
            "tuple replaced": lambda: setattr(box, "pair", (1.0, 9.0)),
            "enum": lambda: setattr(box, "mode", Mode.B),
            "classmethod": lambda: setattr(Thing, "make", classmethod(lambda cls: 8.0)),
            "static": lambda: setattr(Thing, "helper", staticmethod(lambda x: x * 3)),
            "group flag": lambda: opt.param_groups[0].update(nesterov=True),
            "groups replaced": lambda: opt.add_param_group({"params": [graphc.ones(1)]}),
            "key appears": lambda: setattr(box, "extra", 4.0),
            "hook on the model": lambda: stack["a"].register_forward_hook(lambda m, a, o: o * 2),
            "slot of a base class": lambda: setattr(thing, "slot", 5.0),
            "dataclass field": lambda: setattr(box.config, "rate", 6.0),
            "property replaced": lambda: setattr(Thing, "prop", property(lambda self: 9.0)),
            "global function": lambda: _CONFIG.update(rate=0.125),
        }.get(change, lambda: None)()
        if change in ("no_grad closure", "wrapped"):
            scale = 5.0
        if change == "module constant":
            _RATE = 2.5

    global _RATE
    compiled = graphc.compile(f, fullgraph=True)
    try:
        for k in range(9):
            if k == 5:
                before = bits(f(x34()))
                act()
                assert bits(f(x34())) != before
            assert bits(compiled(x34())) == bits(f(x34())), k
        assert compiled.stats.compilations == 2 and compiled.stats.hits == 5
    finally:
        _CONFIG.update(rate=0.5)
        _RATE = 0.5


def test_isinstance_of_a_number_argument() -> None:
    def f(x: Any, a: Any) -> Any:
        if isinstance(a, float):
            return x * a
        return x - a if isinstance(a, int) and not isinstance(a, bool) else x

    follows(f, *[(x34(), a) for a in (1.5, 2.5, 3.5, 4.5, 1, 2, 3, 4, True, True, True)])


def test_division_by_a_number_argument_raises_as_python() -> None:
    def f(x: Any, a: float) -> Any:
        return x * (1.0 / a)

    compiled = follows(f, *[(x34(), a) for a in (1.0, 2.0, 4.0)])
    with pytest.raises(ZeroDivisionError):
        compiled(x34(), 0.0)
    assert bits(compiled(x34(), 8.0)) == bits(f(x34(), 8.0))


def test_numbers_inside_an_argument_container_stay_where_they_are() -> None:
    settings = {"rate": 0.5, "inner": [1.0, 2]}

    def f(x: Any, s: Any) -> Any:
        return x * s["rate"] + s["inner"][0] * s["inner"][1]

    compiled = graphc.compile(f, fullgraph=True)
    for k in range(6):
        settings["rate"] = 0.25 * k
        assert bits(compiled(x34(), settings)) == bits(f(x34(), settings))
        assert settings == {"rate": 0.25 * k, "inner": [1.0, 2]} and type(settings["rate"]) is float
    assert compiled.stats.hits == 4
