"""RECORDER.md, "Views and mutation": every row, compiled, in a file, in threads and after exceptions."""

from __future__ import annotations

from typing import Any

import graphc
from tests.contract_runs import Case, contract, run


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


CASES = [
    Case("a write through a view", write_through_a_view),
    Case("other views are read again", other_views_are_read_again),
    Case("an in-place on a view rebases gradients", in_place_on_a_view_with_gradients),
    Case("state written through a view", state_written_through_a_view),
    Case("writes by .data and detach()", data_and_detach),
]


@contract(CASES)
def test_row(case: Case, setting: str) -> None:
    run(case, setting)
