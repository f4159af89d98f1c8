"""RECORDER.md, "Autograd": every row, compiled, in a file, in threads and after exceptions."""

from __future__ import annotations

from typing import Any

import graphc
from graphc import nn, optim
from tests.contract_runs import Case, contract, run


def x43() -> Any:
    return graphc.arange(12.0).reshape(4, 3) * 0.1 - 0.5


def contributions_in_order() -> Any:
    w = x43().requires_grad_()

    def f(x: Any) -> Any:
        y = w * x + w.exp() * w
        return graphc.autograd.grad(y.sum(), w)[0]

    return f, (x43(),)


def rules_of_the_level_called() -> Any:
    w = x43().requires_grad_()
    return lambda x: graphc.autograd.grad((graphc.softmax(w * x, 1) * x).sum(), w)[0], (x43(),)


def second_order() -> Any:
    w = x43().requires_grad_()

    def f(x: Any) -> Any:
        (g,) = graphc.autograd.grad((w**3 * x).sum(), w, create_graph=True)
        return graphc.autograd.grad(g.sum(), w)[0]

    return f, (x43(),)


def gradients_gathered() -> Any:
    w = x43().requires_grad_()

    def f(x: Any) -> Any:
        (w * x).sum().backward()
        return w.grad * 2

    return f, (x43(),), lambda: w.grad


def optimiser_state() -> Any:
    w = x43().requires_grad_()
    o = optim.Adam([w], lr=0.1)

    def f(x: Any) -> Any:
        o.zero_grad()
        loss = (w * x).square().sum()
        loss.backward()
        o.step()
        return loss

    return f, (x43(),), lambda: w


def batch_norm_without_momentum() -> Any:
    m = nn.BatchNorm1d(3, momentum=None)
    return lambda x: m(x), (x43(),), lambda: list(m.buffers())


def backward_outside() -> Any:
    w = x43().requires_grad_()

    def f(x: Any) -> Any:
        return (w * x).exp().sum()

    def seen() -> Any:
        w.grad = None
        f(graphc.ones(4, 3)).backward()
        return w.grad

    return f, (x43(),), seen


CASES = [
    Case("contributions add in order", contributions_in_order),
    Case("the rule of the level called", rules_of_the_level_called),
    Case("second order", second_order),
    Case("gradients are gathered", gradients_gathered, file="other"),
    Case("the state of an optimiser", optimiser_state),
    Case("BatchNorm with momentum=None", batch_norm_without_momentum),
    Case("a backward() outside", backward_outside),
]


@contract(CASES)
def test_row(case: Case, setting: str) -> None:
    run(case, setting)
