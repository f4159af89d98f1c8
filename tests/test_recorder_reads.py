"""What a function reads in unusual ways, changed between calls; and effects in unusual places."""

from __future__ import annotations

import array
import cProfile
import os
import random
import sys
import types
from collections import ChainMap, UserDict, deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from tests.recorder_checks import bits, follows, refused

_LATER = "RECORDER_LATER"


def v(*numbers: float) -> Any:
    return graphc.tensor(list(numbers or (1.0, 2.0)))


def _change(case: tuple[Callable[..., Any], Callable[[], Any]]) -> None:
    """Assert that the compiled function sees the change, and runs compiled before and after."""
    f, change = case
    compiled = graphc.compile(f, fullgraph=True)
    for _ in range(2):
        for k in range(4):
            assert bits(compiled(v(k + 1.0))) == bits(f(v(k + 1.0)))
        before = f(v())
        change()
        if _ == 0:
            assert bits(before) != bits(f(v())), "the change changes nothing"
    assert compiled.stats.hits >= 4


def _tensor_tag() -> Any:
    t = v(2.0)
    t.tag = 3.0
    return lambda x: x * t * t.tag, lambda: setattr(t, "tag", 5.0)


def _tensor_tag_is_a_tensor() -> Any:
    t = v(2.0)
    t.scale = v(3.0)
    return lambda x: x * t * t.scale, lambda: setattr(t, "scale", v(5.0))


def _tensor_without_tag() -> Any:
    t = v(2.0)
    return lambda x: x * t if hasattr(t, "tag") else x, lambda: setattr(t, "tag", 1)


def _parameter_tag() -> Any:
    m = nn.Linear(2, 2)
    m.weight.rate = 3.0
    return lambda x: x * m.weight[0].detach() * m.weight.rate, lambda: setattr(m.weight, "rate", 5.0)


def _deque() -> Any:
    d = deque([2.0])
    return lambda x: x * sum(d), lambda: d.append(5.0)


def _deque_of_tensors() -> Any:
    d = deque([v(2.0)])
    return lambda x: x * sum(d), lambda: d.append(v(5.0))


def _proxy() -> Any:
    base = {"a": 2.0}
    proxy = types.MappingProxyType(base)
    return lambda x: x * proxy["a"], lambda: base.update(a=5.0)


def _chain_map() -> Any:
    base = {"a": 2.0}
    chain = ChainMap({}, base)
    return lambda x: x * chain["a"], lambda: base.update(a=5.0)


def _user_dict() -> Any:
    d: Any = UserDict(a=2.0)
    return lambda x: x * d["a"], lambda: d.update(a=5.0)


def _array() -> Any:
    a = array.array("d", [2.0])
    return lambda x: x * a[0], lambda: a.append(1.0) or a.__setitem__(0, 5.0)


def _bytearray() -> Any:
    a = bytearray(b"ab")
    return lambda x: x * a[0], lambda: a.__setitem__(0, 5)


def _large_ndarray() -> Any:
    a = np.ones(3000)
    return lambda x: x * float(a[7]), lambda: a.__setitem__(7, 5.0)


def _context_variable() -> Any:
    variable: ContextVar[float] = ContextVar("variable", default=2.0)
    return lambda x: x * variable.get(), lambda: variable.set(5.0)


def _environment() -> Any:
    os.environ["GRAPHC_TEST_NUMBER"] = "2"
    return lambda x: x * float(os.environ["GRAPHC_TEST_NUMBER"]), lambda: os.environ.update(GRAPHC_TEST_NUMBER="5")


def _function_attribute() -> Any:
    def h(x: Any) -> Any:
        return x * h.k  # type: ignore[attr-defined]

    h.k = 2.0  # type: ignore[attr-defined]
    return lambda x: h(x) + 1, lambda: setattr(h, "k", 5.0)


def _function_code() -> Any:
    def h(x: Any) -> Any:
        return x * 2

    def other(x: Any) -> Any:
        return x * 3

    return lambda x: h(x), lambda: setattr(h, "__code__", other.__code__)


def _method_behind_super() -> Any:
    class Base:
        def scale(self, x: Any) -> Any:
            return x * 2

    class Derived(Base):
        def scale(self, x: Any) -> Any:
            return super().scale(x) + 1

    d = Derived()
    return lambda x: d.scale(x), lambda: setattr(Base, "scale", lambda self, x: x * 5)


def _module_imported_inside() -> Any:
    module: Any = types.ModuleType("recorder_reads_module")
    module.k = 2.0
    sys.modules["recorder_reads_module"] = module

    def f(x: Any) -> Any:
        from recorder_reads_module import k  # type: ignore[import-not-found]

        return x * k

    return f, lambda: setattr(module, "k", 5.0)


def _global_made_later() -> Any:
    globals().pop(_LATER, None)

    def f(x: Any) -> Any:
        try:
            return x * RECORDER_LATER  # type: ignore[name-defined]
        except NameError:
            return x

    return f, lambda: globals().__setitem__(_LATER, 5.0)


def _all_attributes() -> Any:
    place: Any = types.SimpleNamespace()
    cls = type("Settings", (), {"__module__": __name__})
    place = cls()
    place.first = 2.0
    return lambda x: x * sum(vars(place).values()), lambda: setattr(place, "first", 5.0)


def _rate_read_by_hand() -> Any:
    o = optim.SGD([v().requires_grad_()], lr=2.0)
    return lambda x: x * o.param_groups[0]["lr"], lambda: o.param_groups[0].update(lr=5.0)


@pytest.mark.parametrize(
    "make",
    [
        _tensor_tag,
        _tensor_tag_is_a_tensor,
        _tensor_without_tag,
        _parameter_tag,
        _deque,
        _deque_of_tensors,
        _proxy,
        _chain_map,
        _user_dict,
        _array,
        _bytearray,
        _large_ndarray,
        _context_variable,
        _environment,
        _function_attribute,
        _function_code,
        _method_behind_super,
        _module_imported_inside,
        _global_made_later,
        _all_attributes,
        _rate_read_by_hand,
    ],
)
def test_a_change_is_seen(make: Callable[[], Any]) -> None:
    _change(make())


def test_an_attribute_named_by_an_argument() -> None:
    class Settings:
        first = 0.0

    settings = Settings()
    settings.first = 2.0

    def f(x: Any, name: str) -> Any:
        return x * getattr(settings, name)

    compiled = graphc.compile(f)
    for k in range(12):
        settings.first = 2.0 if k < 6 else 5.0
        assert bits(compiled(v(), "first")) == bits(f(v(), "first"))
    assert compiled.stats.hits == 8


# ---- effects


@pytest.mark.parametrize("place", ["tensor", "argument", "list", "function"])
def test_writes_to_attributes_are_refused(place: str) -> None:
    def make() -> Any:
        t = v()

        def h(x: Any) -> Any:
            return x

        t.log = [] if place == "list" else 0
        h.n = 0  # type: ignore[attr-defined]

        def f(x: Any) -> Any:
            if place == "tensor":
                t.log = 7  # here
            elif place == "argument":
                x.seen = 7  # here
            elif place == "list":
                t.log.append(1)  # here
            else:
                h.n = 7  # type: ignore[attr-defined] # here
            return h(x) * t

        given = v()
        return f, (given,), lambda: (t.log, h.n, getattr(given, "seen", None))  # type: ignore[attr-defined]

    refused(make)


@pytest.mark.parametrize("what", ["draw", "seed", "numpy"])
def test_the_random_state_of_python_is_an_effect(what: str) -> None:
    def make() -> Any:
        random.seed(1)
        np.random.seed(1)

        def f(x: Any) -> Any:  # here
            if what == "draw":
                return x if random.random() < 2 else -x  # here
            if what == "seed":
                random.seed(3)  # here
            else:
                np.random.seed(3)  # here
            return x * 2

        return f, (v(),), lambda: (random.random(), float(np.random.rand()))

    refused(make, match="random is moved on")


def test_an_error_about_values_that_is_caught_is_refused() -> None:
    w = v(1.0, 2.0, 3.0)

    def f(i: Any) -> Any:
        try:
            return w[i] * 1
        except IndexError:
            return w[:1] * 9

    def make() -> Any:
        def g(i: Any) -> Any:
            try:
                return w[i] * 1  # here
            except IndexError:
                return w[:1] * 9

        return g, (graphc.tensor([7]),)

    refused(make, match="is caught")
    compiled = follows(f, *[(graphc.tensor([k]),) for k in (0, 1, 2, 0)])
    assert compiled.stats.hits == 2


def test_attributes_nobody_mentions_may_come_and_go() -> None:
    """`self.out = compiled(x)` is no new path; one that hides a class attribute the code reads is."""

    class Trainer:
        scale = 2.0

        def step(self, x: graphc.Tensor) -> graphc.Tensor:
            return x * self.scale

    trainer = Trainer()
    step = graphc.compile(trainer.step, fullgraph=True)
    for _ in range(4):
        trainer.out = step(graphc.ones(2))  # type: ignore[attr-defined]
    assert step.stats.recordings == 2 and step.stats.hits == 2
    trainer.scale = 5.0
    assert step(graphc.ones(2)).tolist() == [5.0, 5.0]
    del trainer.scale
    assert step(graphc.ones(2)).tolist() == [2.0, 2.0]


def test_recording_under_a_profiler() -> None:
    """cProfile goes on behind a recording."""
    profile = cProfile.Profile()
    step = graphc.compile(lambda x: x * 2 + 1, fullgraph=True)
    profile.enable()
    for _ in range(3):
        step(graphc.ones(2))
    graphc.testing.assert_close(step(graphc.ones(2)), graphc.full((2,), 3.0))
    profile.disable()
    assert step.stats.hits == 2
    assert any("assert_close" in str(entry.code) for entry in profile.getstats())


def test_hooks_of_the_import_system_are_no_part_of_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Finder:
        """Writes down what is imported, as hooks of test runners do."""

        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> None:
            seen.append(name)

    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])

    def f(x: Any) -> Any:
        from colorsys import ONE_THIRD

        return x * 3 * ONE_THIRD

    compiled = graphc.compile(f, fullgraph=True)
    for _ in range(4):
        assert compiled(graphc.ones(2)).tolist() == [1.0, 1.0]
    assert seen == ["colorsys"]
    assert compiled.stats.hits == 2
