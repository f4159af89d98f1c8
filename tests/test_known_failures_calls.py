"""Known failures of other compilers, one test each: what changes from one call to the next."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import graphc
from graphc import nn
from tests.failure_checks import Made, cases, nothing, same, x34

SCALE = 2.0
SHIFT = graphc.tensor([1.0, 2.0, 3.0, 4.0])


# ---- a constant changed between calls


def _constant_of_the_closure() -> Made:
    scale = 2.0

    def given(k: int) -> Any:
        nonlocal scale
        scale = 3.0 if k >= 4 else 2.0
        return (x34(k),)

    return lambda x: x * scale + scale, given, nothing


def _constant_of_a_global() -> Made:
    def given(k: int) -> Any:
        globals()["SCALE"] = 3.0 if k >= 4 else 2.0
        return (x34(k),)

    return lambda x: x / SCALE, given, nothing


def _constant_in_nested_containers() -> Made:
    settings = {"a": [1.0, {"b": (2.0, 0.5)}]}

    def given(k: int) -> Any:
        settings["a"][1]["b"] = (2.0, 0.5 if k < 4 else 0.25)  # type: ignore[index]
        return (x34(k),)

    return lambda x: x * settings["a"][1]["b"][1], given, nothing  # type: ignore[index]


def _constant_of_a_module_two_levels_down() -> Made:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.eps = 0.5

        def forward(self, x: Any) -> Any:
            return x / (x.abs() + self.eps)

    net = nn.Sequential(nn.Sequential(Inner()), nn.ReLU())

    def given(k: int) -> Any:
        net[0][0].eps = 0.5 if k < 4 else 0.75
        return (x34(k),)

    return net, given, nothing


def _constant_of_a_default() -> Made:
    def f(x: Any, factor: float = 2.0) -> Any:
        return x * factor

    def given(k: int) -> Any:
        f.__defaults__ = (2.0 if k < 4 else 5.0,)
        return (x34(k),)

    return lambda x: f(x), given, nothing


def _constant_that_is_zero_of_the_other_sign() -> Made:
    here = SimpleNamespace(c=0.0)

    def given(k: int) -> Any:
        here.c = 0.0 if k < 4 else -0.0
        return (x34(k) * 0.0,)

    return lambda x: (x * 0.0 + here.c, 1.0 / (x * here.c)), given, nothing


@cases(
    _constant_of_the_closure,
    _constant_of_a_global,
    _constant_in_nested_containers,
    _constant_of_a_module_two_levels_down,
    _constant_of_a_default,
    _constant_that_is_zero_of_the_other_sign,
)
def test_a_constant_changed_between_calls(make: Any) -> None:
    """The first value stayed baked into the graph."""
    same(make, hits=4)


# ---- a closure tensor replaced between calls


def _tensor_of_the_closure() -> Made:
    tensors = w, _ = x34(), x34(1.0)

    def given(k: int) -> Any:
        nonlocal w
        w = tensors[k // 4]
        return (x34(k),)

    return lambda x: x * w, given, lambda: w


def _tensor_of_a_global() -> Made:
    tensors = graphc.full((4,), 1.0), graphc.full((4,), 2.0)

    def given(k: int) -> Any:
        globals()["SHIFT"] = tensors[k // 4]
        return (x34(k),)

    return lambda x: x + SHIFT, given, nothing


def _tensor_of_the_closure_written_inside() -> Made:
    w = x34()

    def f(x: Any) -> Any:
        w.add_(x)
        return w * 2

    def given(k: int) -> Any:
        nonlocal w
        if k == 4:
            w = x34(9.0)
        return (x34(k),)

    return f, given, lambda: w


def _tensor_of_another_type() -> Made:
    tensors = w, _, _ = x34(), x34().double(), x34().T.contiguous().T

    def given(k: int) -> Any:
        nonlocal w
        w = tensors[k // 3]
        return (x34(k),)

    return lambda x: x * w, given, lambda: w


def _tensor_that_is_the_argument() -> Made:
    w = x34()

    def f(x: Any) -> Any:
        x.mul_(2)
        return x + w

    def given(k: int) -> Any:
        nonlocal w
        x = x34(k)
        w = x if k >= 4 else x34(1.0)
        return (x,)

    return f, given, lambda: w


def _tensor_in_a_nested_function() -> Made:
    tensors = w, _ = x34(), x34(1.0)

    def inner(x: Any) -> Any:
        def deepest() -> Any:
            return x @ w.T

        return deepest()

    def given(k: int) -> Any:
        nonlocal w
        w = tensors[k // 4]
        return (x34(k),)

    return lambda x: inner(x), given, nothing


@cases(
    _tensor_of_the_closure,
    _tensor_of_a_global,
    _tensor_of_the_closure_written_inside,
    _tensor_of_another_type,
    _tensor_that_is_the_argument,
    _tensor_in_a_nested_function,
)
def test_a_closure_tensor_replaced_between_calls(make: Any) -> None:
    """The tensor of the recording was used for ever."""
    same(make, hits=2)


# ---- the same method on two instances


class Scaled:
    """A plain object with a tensor and a number."""

    def __init__(self, factor: float) -> None:
        self.w, self.factor = x34(factor), factor
        self.layer = nn.Linear(4, 2)

    def run(self, x: Any) -> Any:
        return self.layer(x * self.w) * self.factor


class ScaledModule(nn.Module):
    """The same as a Module."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.w, self.factor = nn.Parameter(x34(factor)), factor

    def run(self, x: Any) -> Any:
        return x * self.w * self.factor

    def forward(self, x: Any) -> Any:
        return self.run(x) + 1


def _method_of_the_class() -> Made:
    graphc.manual_seed(0)
    a, b = Scaled(1.0), Scaled(2.0)

    def given(k: int) -> Any:
        return (b if k % 3 == 2 else a, x34(k))

    return Scaled.run, given, nothing


def _method_called_on_either() -> Made:
    graphc.manual_seed(0)
    both = [Scaled(1.0), Scaled(2.0)]

    def given(k: int) -> Any:
        return (k % 2, x34(k))

    return lambda i, x: both[i].run(x), given, nothing


def _module_passed_as_argument() -> Made:
    graphc.manual_seed(0)
    a, b = ScaledModule(1.0), ScaledModule(2.0)

    def given(k: int) -> Any:
        return (a if k % 2 else b, x34(k))

    return lambda m, x: m(x), given, nothing


def _instances_that_swap_places() -> Made:
    a, b = ScaledModule(1.0), ScaledModule(2.0)
    pair = [a, b]

    def given(k: int) -> Any:
        pair[:] = [b, a] if k % 4 >= 2 else [a, b]
        return (x34(k),)

    return lambda x: pair[0].run(x) - pair[1](x), given, nothing


def _tables_of_two_instances() -> Made:
    a, b = ScaledModule(1.0), ScaledModule(2.0)
    a.w = b.w  # tied, and the numbers are each one's own

    def given(k: int) -> Any:
        return (a if k % 2 else b, x34(k))

    return ScaledModule.run, given, nothing


@cases(
    _method_of_the_class,
    _method_called_on_either,
    _module_passed_as_argument,
    _instances_that_swap_places,
    _tables_of_two_instances,
)
def test_the_same_method_on_two_instances(make: Any) -> None:
    """The code object was the key: the second instance ran with the tensors of the first."""
    same(make, hits=3, calls=12)


def test_a_compiled_method_of_two_instances() -> None:
    """A decorated method kept the graph of the first instance."""

    class Counter(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.register_buffer("total", graphc.zeros(4))
            self.factor = factor

        @graphc.compile(fullgraph=True)
        def step(self, x: Any) -> Any:
            self.total += x.sum(0) * self.factor
            return self.total * 2

    a, b = Counter(1.0), Counter(3.0)
    expected = {id(a): graphc.zeros(4), id(b): graphc.zeros(4)}
    for k in range(12):
        m = (a, b, b)[k % 3]
        expected[id(m)] += x34(k).sum(0) * m.factor
        assert graphc.equal(m.step(x34(k)), expected[id(m)] * 2)
        assert graphc.equal(m.total, expected[id(m)])
    assert Counter.step.stats.hits >= 6
