"""Known failures of other compilers, one test each: tensors that are one only sometimes.

A value is known by its memory. What was one tensor while recording may be two later, and the other way round.
"""

from __future__ import annotations

from typing import Any

import pytest

import graphc
from graphc import nn
from graphc.errors import RecordingError
from tests.failure_checks import Made, cases, either, nothing, same, x34

ORDERS = {"late": lambda k: k % 5 == 4, "early": lambda k: k % 5 != 4, "in turn": lambda k: k % 2 == 1}
orders = pytest.mark.parametrize("order", ORDERS)


def _gradients(order: Any) -> Made:
    w, other = nn.Parameter(x34()), nn.Parameter(x34(2.0))

    def f(x: Any) -> Any:
        x.grad = w.grad = None
        (x * w * w).sum().backward()
        return x.grad * 1, w.grad * 1

    return f, lambda k: (w if order(k) else other,), lambda: [w.grad, other.grad]


def _history(order: Any) -> Made:
    w, other = nn.Parameter(x34()), nn.Parameter(x34(2.0))
    return lambda x: (x * w).exp(), lambda k: (w if order(k) else other,), lambda: [w, other]


def _statistics(order: Any) -> Made:
    net, other = nn.BatchNorm1d(4), graphc.zeros(4)

    def f(x: Any, t: Any) -> Any:
        return net(x) + t, t * 2, t

    return f, lambda k: (x34(k), net.running_mean if order(k) else other), lambda: [net.running_mean, other]


def _written(order: Any) -> Made:
    w, other = x34(), x34(1.0)

    def f(t: Any) -> Any:
        w.add_(1)
        return t * 2, w * 1

    return f, lambda k: (w if order(k) else other,), lambda: [w, other]


def _rebound_attribute(order: Any) -> Made:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h = x34()

        def forward(self, x: Any) -> Any:
            self.h = self.h * 0.5 + x
            return self.h * 2

    net = Net()
    return net, lambda k: (net.h if order(k) else x34(k),), lambda: net.h


def _own_gradient(order: Any) -> Made:
    w = nn.Parameter(x34())
    w.grad = x34()

    def f(g: Any) -> Any:
        r = w.grad + g  # type: ignore[operator]
        w.grad = r * 0.5
        return r

    return f, lambda k: (w.grad if order(k) else x34(k),), lambda: w.grad


def _identity(order: Any) -> Made:
    w, other = x34(), x34(1.0)
    return lambda x: x * 2 if x is w else x * 3, lambda k: (w if order(k) else other,), nothing


def _identity_in_a_list(order: Any) -> Made:
    w, other = x34(), x34(1.0)
    known = [w]
    return lambda x: x * (2 if any(x is t for t in known) else 3), lambda k: (w if order(k) else other,), nothing


@orders
@pytest.mark.parametrize(
    "make",
    [_gradients, _history, _statistics, _written, _rebound_attribute, _own_gradient, _identity, _identity_in_a_list],
    ids=lambda f: f.__name__.strip("_"),
)
def test_an_argument_that_is_a_state_only_sometimes(make: Any, order: str) -> None:
    """The argument and the state had one place in the graph (or two) for ever."""
    same(lambda: make(ORDERS[order]), hits=6, calls=14)


@orders
@pytest.mark.parametrize(
    "view", [lambda t: t[0], lambda t: t.view(4, 3), lambda t: t.detach()], ids=["row", "view", "detached"]
)
@pytest.mark.parametrize("write", [False, True])
def test_an_argument_that_is_a_view_of_a_state_only_sometimes(view: Any, order: str, write: bool) -> None:
    """The same with another look at the memory; written ones are refused where they share."""

    def make() -> Made:
        w, other = x34(), x34(1.0)

        def f(t: Any) -> Any:
            if write:
                w.add_(1)
            return t * 2, w * 1

        return f, lambda k: (view(w if ORDERS[order](k) else other),), lambda: [w, other]

    either(make, warned="shares" if write else "", hits=0 if write else 6)


# ---- two paths to one tensor


def _replaced_later(change: Any, read: Any) -> Any:
    def made() -> Made:
        a, b = nn.Linear(4, 4), nn.Linear(4, 4)
        b.weight = a.weight
        new = nn.Parameter(graphc.full((4, 4), 0.25))
        opt = graphc.optim.SGD([*a.parameters(), b.bias], lr=0.1, momentum=0.5)

        def f(x: Any) -> Any:
            opt.zero_grad()
            y = read(a, b, x)
            y.square().sum().backward()
            opt.step()
            return y.detach()

        def given(k: int) -> Any:
            if k == 5:
                change(a, b, opt, new)
            return (x34(k) * 0.1,)

        return f, given, lambda: [a.weight, b.weight, new, a.weight.grad, b.weight.grad]

    return made


@pytest.mark.parametrize(
    "change",
    [
        lambda a, b, opt, new: setattr(a, "weight", new),
        lambda a, b, opt, new: setattr(b, "weight", new),
        lambda a, b, opt, new: opt.param_groups[0]["params"].__setitem__(0, new),
        lambda a, b, opt, new: setattr(b, "weight", nn.Parameter(a.weight.detach())),
        lambda a, b, opt, new: setattr(b, "weight", nn.Parameter(a.weight.detach().clone())),
        lambda a, b, opt, new: setattr(b, "bias", a.bias),
    ],
    ids=["first", "second", "in the optimiser", "same memory", "copy", "tied"],
)
def test_tied_weights_untied_later(change: Any) -> None:
    """One of the two paths was looked up at later calls, the other never."""
    either(_replaced_later(change, lambda a, b, x: a(x) + b(x) * 2), warned="shares memory", hits=3)


def _cells(pair: Any, later: Any) -> Any:
    def made() -> Made:
        w = x34()
        v = pair(w)
        new = later(w)

        def given(k: int) -> Any:
            nonlocal v
            if k == 5:
                v = new
            return (x34(k),)

        return lambda x: x * w + v * 3, given, nothing

    return made


@pytest.mark.parametrize(
    "make",
    [
        _cells(lambda w: w, lambda w: x34(3.0)),
        _cells(lambda w: w[0], lambda w: w[1]),
        _cells(lambda w: w[0], lambda w: x34(3.0)[0]),
        _cells(lambda w: w.detach(), lambda w: x34(3.0)),
        _cells(lambda w: x34(3.0), lambda w: w),
        _cells(lambda w: x34(3.0)[0], lambda w: w[1]),
        _cells(lambda w: w[:, :1], lambda w: w[:, 1:2]),
    ],
    ids=["object", "row", "other row", "detached", "becomes one", "becomes a row", "columns"],
)
def test_a_view_of_a_state_replaced(make: Any) -> None:
    """What was a view of another state had no look-up of its own."""
    same(make, hits=6, calls=12)


def _data_of_the_base() -> Made:
    w = x34()
    row, new = w[0], x34(7.0)

    def given(k: int) -> Any:
        if k == 5:
            w.data = new
        return (x34(k),)

    return lambda x: x * w + row * 3, given, nothing


def _data_of_the_alias() -> Made:
    w = x34()
    alias, new = w.detach(), x34(7.0)

    def f(x: Any) -> Any:
        w.add_(1)
        return x * w + alias * 3

    def given(k: int) -> Any:
        if k == 5:
            alias.data = new
        return (x34(k),)

    return f, given, lambda: [w, alias]


def _gradient_of_the_alias() -> Made:
    w = x34()
    alias = w.detach()

    def given(k: int) -> Any:
        alias.requires_grad_(k >= 5)
        return (x34(k),)

    return lambda x: x * w + alias * 3, given, nothing


@cases(_data_of_the_base, _data_of_the_alias)
def test_memory_that_is_no_longer_shared(make: Any) -> None:
    """The two went on as one after `.data` of either was set."""
    same(make, hits=6, calls=12)


def test_an_alias_that_requires_gradients_later() -> None:
    """The gradient of the alias went to the other, or nowhere."""
    either(_gradient_of_the_alias, warned="end at a leaf", hits=3)


def test_a_base_and_its_view_as_arguments() -> None:
    """The offset of the view was that of the first call."""

    def make() -> Made:
        base = x34()
        return lambda a, b: a * 2 + b, lambda k: (base, base[k // 5]), nothing

    same(make, calls=14)


def test_a_file_has_no_argument_that_is_a_state() -> None:
    """A file had one input for both: with another argument it was wrong."""
    w = x34()
    row = w[0]
    for f, x in ((lambda x: x * w, w), (lambda x: x * w, w.detach()), (lambda x: x * row, w)):
        with pytest.raises(RecordingError, match="shares memory"):
            graphc.trace(f, x)
    for x in (w.clone(), w[0]):
        program = graphc.trace(lambda x: x * w, x)
        other = x34(5.0) if x.ndim == 2 else x34(5.0)[1]
        assert graphc.equal(program(other), other * w)
