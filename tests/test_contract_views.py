"""RECORDER.md, "Views and mutation": every row, compiled, in a file, in threads and after exceptions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import AutogradError, ShapeError
from tests.contract_runs import Case, Raising, contract, raising, run, run_raising
from tests.recorder_checks import bits


def x34() -> Any:
    return graphc.arange(12.0).reshape(3, 4) - 5


def write_through_a_view() -> Any:
    def f(x: Any) -> Any:
        y = x * 1
        z = y[1:].T
        z[0] = 9.0
        return y, z + 1

    return f, (x34(),)


def other_views_are_read_again() -> Any:
    def f(x: Any) -> Any:
        y = x * 1
        a, b = y[0], y.reshape(-1)[2:]
        a.add_(1)
        b.mul_(2)
        return a + 0, b + 0, y

    return f, (x34(),)


def in_place_on_a_view_with_gradients() -> Any:
    w = x34().requires_grad_()

    def f(x: Any) -> Any:
        y = w * x
        y[1].mul_(3)
        return graphc.autograd.grad(y.square().sum(), w)[0]

    return f, (x34(),)


def state_written_through_a_view() -> Any:
    s = x34()

    def f(x: Any) -> Any:
        s[:, 1] += x[:, 0]
        return s.sum()

    return f, (x34(),), lambda: s


def data_and_detach() -> Any:
    w = x34()

    def f(x: Any) -> Any:
        w.data.mul_(0.5)
        w.detach().add_(x)
        return w * 2

    return f, (x34(),), lambda: w


def chain_of_views() -> Any:
    def f(x: Any) -> Any:
        y = x * 1
        y.T[1:].unflatten(0, (3, 1))[:, 0].diagonal().mul_(-1)
        return y

    return f, (x34(),)


def split_without_gradients() -> Any:
    def f(x: Any) -> Any:
        y = x * 1
        a, b = y.split(2, 1)
        a.add_(1)
        y.unbind(0)[2].mul_(b[0, 0])
        return y, a + b

    return f, (x34(),)


def argument_written() -> Any:
    given = x34()

    def f(x: Any) -> Any:
        x[1:].mul_(0.5)
        return x + 1

    return f, (given,), lambda: given


def gapped_argument_written() -> Any:
    base = graphc.arange(24.0).reshape(3, 8)

    def f(x: Any) -> Any:
        x.T[0] = 7.0
        x.add_(1)
        return x.sum()

    return f, (base[:, ::2],), lambda: base


def arguments_that_overlap() -> Any:
    base = graphc.arange(9.0)

    def f(a: Any, b: Any) -> Any:
        a.add_(1)  # here
        return a * b

    return f, (base[:6], base[3:]), lambda: base


def arguments_beside_each_other() -> Any:
    base = graphc.arange(9.0)

    def f(a: Any, b: Any) -> Any:
        a.add_(1)  # here
        return a * b

    return f, (base[:4], base[5:]), lambda: base


def argument_over_state() -> Any:
    s = graphc.arange(9.0)

    def f(x: Any) -> Any:
        s.mul_(0.5)  # here
        return x + s[3:]

    return f, (s[:6],), lambda: s


def views_of_state_from_outside() -> Any:
    s = x34()
    row = s[1]

    def f(x: Any) -> Any:
        row.add_(x[0])
        return s * 2  # here

    return f, (x34(),), lambda: [s, row]


def data_is_not_seen_by_gradients() -> Any:
    w = x34().requires_grad_()

    def f(x: Any) -> Any:
        z = x + 1
        y = (w * z).sum()
        z.data.mul_(3)
        return graphc.autograd.grad(y, w)[0]

    return f, (x34(),)


def no_grad_write_of_a_leaf() -> Any:
    w = x34().requires_grad_()

    def f(x: Any) -> Any:
        (w * x).sum().backward()
        with graphc.no_grad():
            w.sub_(w.grad, alpha=0.1)
            w.grad.zero_()
        return w * 1

    return f, (x34(),), lambda: [w, w.grad]


def weights_written_through_numpy() -> Any:
    w = x34()
    memory = w.numpy()

    def seen() -> Any:
        memory[1] += 1
        return w

    return lambda x: x @ w.T, (x34(),), seen


def weights_replaced_through_data() -> Any:
    w = x34().requires_grad_()

    def seen() -> Any:
        w.data = w.data * 2
        return w

    return lambda x: x @ w.detach().T, (x34(),), seen


def returned_views_share_memory() -> Any:
    def f(x: Any) -> Any:
        y = x * 2
        return y, y[0], y.T

    return f, (x34(),)


def written_through_the_result(result: Any) -> Any:
    y, row, t = result
    row.zero_()
    return y, t


CASES = [
    Case("a write through a view", write_through_a_view),
    Case("a chain of views is replayed backwards", chain_of_views),
    Case("other views are read again", other_views_are_read_again),
    Case("returned views share memory", returned_views_share_memory, use=written_through_the_result),
    Case("an in-place on a view rebases gradients", in_place_on_a_view_with_gradients),
    Case("state written through a view", state_written_through_a_view),
    Case("an argument is written through a view", argument_written),
    Case("an argument that is a gapped view is written", gapped_argument_written),
    Case("split and unbind in place without gradients", split_without_gradients),
    Case("writes by .data and detach()", data_and_detach),
    Case("the autograd version: not that of .data", data_is_not_seen_by_gradients),
    Case("the autograd version: a leaf under no_grad", no_grad_write_of_a_leaf),
    Case("the content version: numpy() of a weight", weights_written_through_numpy),
    Case("the content version: .data of a weight", weights_replaced_through_data),
    Case("mutated inputs that overlap", arguments_that_overlap, refused=True),
    Case("mutated inputs of one memory that do not overlap", arguments_beside_each_other, refused=True),
    Case("mutated state that an input overlaps", argument_over_state, refused=True),
    Case("mutated state and a view of it from outside", views_of_state_from_outside, refused=True),
]


@contract(CASES)
def test_row(case: Case, setting: str) -> None:
    run(case, setting)


# ---- what raises, as in PyTorch


def with_gradients() -> Any:
    return x34().requires_grad_()


def _on(x: Any, f: Any, fine: Any = None) -> Any:
    return lambda: (f, (x(),), fine)


def unbound(x: Any) -> Any:
    y = x * 2
    y.unbind(0)[0].add_(1)
    return y


def split_in_two(x: Any) -> Any:
    y = x * 2
    y.split(2, 1)[1].mul_(2)
    return y


def chunked(x: Any) -> Any:
    y = x * 2
    y.chunk(3)[0].zero_()
    return y


def seen_through_detach(x: Any) -> Any:
    y = (x * x).exp()
    loss = y.sum()
    y.detach().add_(1)
    return graphc.autograd.grad(loss, x)[0]


RAISING = [
    Raising("a write to an expanded view", _on(x34, lambda x: x[0].expand(3, 4).add_(1), None), ShapeError),
    Raising("a write to overlapping windows", _on(x34, lambda x: x.unfold(1, 3, 1).add_(1), None), ShapeError),
    Raising("an element set in an expanded view", _on(x34, lambda x: x[:1].expand(2, 4).copy_(x[:2])), ShapeError),
    Raising("in place on an output of unbind with gradients", _on(with_gradients, unbound, (x34(),)), AutogradError),
    Raising(
        "in place on an output of split with gradients", _on(with_gradients, split_in_two, (x34(),)), AutogradError
    ),
    Raising("in place on an output of chunk with gradients", _on(with_gradients, chunked, (x34(),)), AutogradError),
    Raising("in place on a leaf with gradients", _on(with_gradients, lambda x: x.add_(1)), AutogradError),
    Raising("in place on a view of a leaf with gradients", _on(with_gradients, lambda x: x[0].add_(1)), AutogradError),
    Raising(
        "detach() shares the autograd version", _on(with_gradients, seen_through_detach), AutogradError, "modified"
    ),
]


@raising(RAISING)
def test_raises(case: Raising, setting: str) -> None:
    run_raising(case, setting)


@pytest.mark.filterwarnings("ignore::graphc.RecordingWarning")
@pytest.mark.parametrize("make", [lambda b: (b[:4], b[5:]), lambda b: (b[:6], b[3:]), lambda b: (b[2:6], b[2:6])])
def test_inputs_that_share_memory_from_a_later_call_on(make: Any) -> None:
    def f(a: Any, b: Any) -> Any:
        a.add_(1)
        return a * 2 if len(a) != len(b) else a * b

    def history(fn: Any) -> Any:
        base, found = graphc.arange(9.0), []
        for k in range(12):
            n = len(make(base)[0]), len(make(base)[1])
            given = make(base) if k in (4, 5, 6, 9) else (graphc.ones(n[0]), graphc.ones(n[1]))
            found.append((bits(fn(*given)), bits(given), bits(base)))
        return found

    compiled = graphc.compile(f)
    assert history(compiled) == history(f)
    assert compiled.stats.hits >= 6


def test_a_view_of_memory_of_numpy_written_by_both() -> None:
    def history(compile: bool) -> Any:
        memory = np.arange(12.0, dtype="f").reshape(3, 4)
        x = graphc.from_numpy(memory)[1:]
        fn = graphc.compile(lambda v: v.mul_(0.5).sum(), fullgraph=True) if compile else lambda v: v.mul_(0.5).sum()
        found = []
        for _ in range(5):
            found.append((bits(fn(x)), bits(memory)))
            memory += 1
        return found

    assert history(True) == history(False)
