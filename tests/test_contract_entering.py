"""RECORDER.md, "Values entering": every row, compiled, in a file, in threads and after exceptions."""

from __future__ import annotations

import dataclasses
import itertools
import queue
from typing import Any

import numpy as np

import graphc
from graphc import nn, optim
from tests.contract_runs import Case, contract, run


def x23() -> Any:
    return graphc.arange(6.0).reshape(2, 3) - 2


def tensor_argument() -> Any:
    return lambda x, y: x * 2 + y.T, (x23(), graphc.ones(3, 2))


def tensor_passed_twice() -> Any:
    x = x23()
    return lambda a, b: a * 2 + b, (x, x)


def tensor_that_requires_grad() -> Any:
    x = x23().requires_grad_()

    def f(x: Any) -> Any:
        return graphc.autograd.grad((x * x).sum(), x)[0]

    return f, (x,)


def closure_tensor() -> Any:
    w = x23()
    return lambda x: x * w, (x23(),), lambda: w


def closure_tensor_written() -> Any:
    w = x23()

    def f(x: Any) -> Any:
        w.add_(x)
        return w * 2

    return f, (x23(),), lambda: w


def module_parameter() -> Any:
    m = nn.Linear(3, 2)
    return lambda x: m(x), (x23(),), lambda: list(m.parameters())


def optimizer_path() -> Any:
    m = nn.Linear(3, 2)
    o = optim.SGD(m.parameters(), lr=0.1, momentum=0.9)

    def f(x: Any) -> Any:
        o.zero_grad()
        loss = m(x).square().sum()
        loss.backward()
        o.step()
        return loss

    return f, (x23(),), lambda: list(m.parameters())


def tensor_from_an_iterator() -> Any:
    parts = itertools.cycle([graphc.ones(3), graphc.zeros(3)])

    def f(x: Any) -> Any:
        y = next(parts)  # here
        return x + y  # here

    return f, (x23(),)


def tensor_from_a_queue() -> Any:
    q: Any = queue.SimpleQueue()
    for k in range(40):
        q.put(graphc.full((3,), float(k)))

    def f(x: Any) -> Any:
        return x + q.get()  # here

    return f, (x23(),)


def float_argument() -> Any:
    return lambda x, s: x * s, (x23(), 0.3)


def float_of_param_groups() -> Any:
    w = graphc.ones(3).requires_grad_()
    o = optim.SGD([w], lr=0.5)
    rates = iter([0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.001] * 3)

    def f(x: Any) -> Any:
        o.zero_grad()
        (x * w).sum().backward()
        o.step()
        return w.detach() * 1

    def seen() -> Any:
        o.param_groups[0]["lr"] = next(rates)
        return w

    return f, (x23(),), seen


def int_argument() -> Any:
    return lambda x, n: x[:n] * n, (x23(), 2)


def bool_and_str_arguments() -> Any:
    return lambda x, flag, how: (x if flag else -x).sum() if how == "sum" else x, (x23(), True, "sum")


def none_and_dtype_arguments() -> Any:
    return lambda x, extra, d: x.to(d) if extra is None else x, (x23(), None, graphc.float64)


def callable_argument() -> Any:
    return lambda x, act: act(x), (x23(), graphc.relu)


def containers_and_dataclasses() -> Any:
    @dataclasses.dataclass
    class Pair:
        left: Any
        right: Any

    return lambda p, d: p.left * d["a"][0] + p.right, (Pair(x23(), x23()), {"a": [graphc.ones(3)]})


def module_argument() -> Any:
    return lambda m, x: m(x), (nn.ReLU(), x23())


def python_scalar_met_inside() -> Any:
    class Settings:
        temperature = 0.7

    s = Settings()
    return lambda x: x * s.temperature / 3, (x23(),)


def host_data_of_a_list() -> Any:
    return lambda x: x + graphc.tensor([1.0, 2.0, 3.0]), (x23(),)


def host_data_that_changes() -> Any:
    calls = itertools.count()

    def f(x: Any) -> Any:
        return x + graphc.tensor([float(next(calls)), 2.0, 3.0])  # here

    return f, (x23(),)


def memory_of_numpy_as_argument() -> Any:
    return lambda x: x * 2, (graphc.from_numpy(np.arange(3.0)),)


def ambient_no_grad_outside() -> Any:
    w = x23().requires_grad_()
    f = graphc.no_grad()(lambda x: x * w)
    return lambda x: f(x), (x23(),)


def no_grad_inside_is_structure() -> Any:
    w = x23().requires_grad_()

    def f(x: Any) -> Any:
        with graphc.no_grad():
            y = x * w
        return y, x * w

    return f, (x23(),)


def training_flag() -> Any:
    m = nn.BatchNorm1d(3)
    return lambda x: m(x), (x23(),), lambda: list(m.buffers())


def random_state() -> Any:
    return lambda x: x + graphc.randn(2, 3) * graphc.rand(3), (x23(),)


def manual_seed_inside() -> Any:
    def f(x: Any) -> Any:
        graphc.manual_seed(3)
        return x + graphc.randn(3)

    return f, (x23(),)


def initial_seed_is_an_escape() -> Any:
    def f(x: Any) -> Any:
        return x + graphc.initial_seed()  # here

    return f, (x23(),)


def rng_state_is_an_escape() -> Any:
    def f(x: Any) -> Any:
        graphc.get_rng_state()  # here
        return x + 1

    return f, (x23(),)


CASES = [
    Case("tensor argument", tensor_argument),
    Case("tensor argument passed twice", tensor_passed_twice),
    Case("tensor argument that requires grad", tensor_that_requires_grad),
    Case("tensor from a closure", closure_tensor),
    Case("tensor from a closure, written", closure_tensor_written),
    Case("tensor from a Module", module_parameter, shared=True),
    Case("tensor from an optimiser", optimizer_path, shared=True),
    Case("tensor from an iterator", tensor_from_an_iterator, refused=True),
    Case("tensor from a queue", tensor_from_a_queue, refused=True),
    Case("float argument", float_argument),
    Case("float in param_groups", float_of_param_groups),
    Case("int argument", int_argument),
    Case("bool and str arguments", bool_and_str_arguments),
    Case("None and dtype arguments", none_and_dtype_arguments),
    Case("callable argument", callable_argument, file="the argument act is a function"),
    Case("containers and dataclasses", containers_and_dataclasses),
    Case("Module argument", module_argument, file="the argument m is a ReLU"),
    Case("Python scalar met inside", python_scalar_met_inside),
    Case("host data of a list", host_data_of_a_list),
    Case("host data that changes", host_data_that_changes, refused=True),
    Case("memory of NumPy as an argument", memory_of_numpy_as_argument),
    Case("ambient state: no_grad around a function", ambient_no_grad_outside),
    Case("ambient state: no_grad inside is structure", no_grad_inside_is_structure),
    Case("ambient state: training", training_flag),
    Case("random state", random_state, shared=True),
    Case("random state: manual_seed inside", manual_seed_inside, shared=True),
    Case("random state: initial_seed", initial_seed_is_an_escape, refused=True, shared=True),
    Case("random state: get_rng_state", rng_state_is_an_escape, refused=True, shared=True),
]


@contract(CASES)
def test_row(case: Case, setting: str) -> None:
    run(case, setting)
