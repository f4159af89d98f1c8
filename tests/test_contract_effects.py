"""RECORDER.md, "Effects on Python": every row, compiled, in a file, in threads and after exceptions."""

from __future__ import annotations

from typing import Any

import pytest

import graphc
from graphc import nn, optim
from tests.contract_runs import Case, contract, run


def x3() -> Any:
    return graphc.arange(3.0) - 1


def module_attribute() -> Any:
    m = nn.Identity()
    m.seen = graphc.zeros(3)

    def f(x: Any) -> Any:
        m.seen = m.seen * 0.5 + x
        return m.seen + 1

    return f, (x3(),), lambda: m.seen


def counter() -> Any:
    state = {"n": 0}

    def f(x: Any) -> Any:
        state["n"] += 1  # here
        return x + 1

    return f, (x3(),), lambda: dict(state)


def list_append() -> Any:
    losses: list[Any] = []

    def f(x: Any) -> Any:
        loss = (x * x).sum()
        losses.append(loss)  # here
        return loss

    return f, (x3(),), lambda: list(losses)


def plain_attribute() -> Any:
    class Cell:
        h = None

    cell = Cell()

    def f(x: Any) -> Any:
        cell.h = x * 2  # here
        return x + 1

    return f, (x3(),), lambda: cell.h


def nonlocal_write() -> Any:
    n = 0

    def f(x: Any) -> Any:
        nonlocal n
        n += 1  # here
        return x * 2

    return f, (x3(),), lambda: n


def scheduler_step() -> Any:
    w = graphc.ones(3).requires_grad_()
    o = optim.SGD([w], lr=1.0)
    s = optim.lr_scheduler.StepLR(o, 2)

    def f(x: Any) -> Any:
        w.grad = x.clone()
        o.step()
        s.step()  # here
        return w.detach().clone()

    return f, (x3(),), lambda: o.param_groups[0]["lr"]


def metadata_in_place() -> Any:
    given = x3()

    def f(x: Any) -> Any:
        x.requires_grad_(True)  # here
        return x.detach() * 2

    return f, (given,), lambda: given.requires_grad_(False)


def objects_made_inside() -> Any:
    def f(x: Any) -> Any:
        parts: list[Any] = []
        for k in range(3):
            parts.append(x * k)
        return {"sum": sum(parts)}

    return f, (x3(),)


def nested_compiled() -> Any:
    inner = graphc.compile(lambda x: x * 3)
    return lambda x: inner(x) + inner(x + 1), (x3(),)


CASES = [
    Case("a Module attribute becomes a state output", module_attribute),
    Case("a counter in a dict", counter, refused=True),
    Case("losses.append(loss)", list_append, refused=True),
    Case("an attribute of a plain object", plain_attribute, refused=True),
    Case("a nonlocal variable", nonlocal_write, refused=True),
    Case("scheduler.step()", scheduler_step, refused=True),
    Case("metadata in place on an input", metadata_in_place, refused=True),
    Case("objects made inside are free", objects_made_inside),
    Case("a nested compiled function is inlined", nested_compiled),
]


@contract(CASES)
def test_row(case: Case, setting: str) -> None:
    run(case, setting)


def test_generators_and_async_functions_are_errors_at_decoration() -> None:
    def generator(x: Any) -> Any:
        yield x

    async def later(x: Any) -> Any:
        return x

    for f in (generator, later):
        with pytest.raises(TypeError, match="is a generator or async function"):
            graphc.compile(f)


def _own(kind: type, method: str) -> Any:
    """A method that Python finds by no name, or by one of a container, writes what only its closure holds."""

    def make() -> Any:
        asked: list[Any] = []
        last = None

        def body(self: Any, *args: Any) -> Any:
            nonlocal last
            last = len(asked)  # here
            asked.append(last)  # here
            return 7.0

        own = type("Own", (kind,), {method: body})()
        ask = {"__missing__": lambda: own["a"], "__getitem__": lambda: own[0], "look": lambda: own.look()}.get(
            method, lambda: own()
        )
        return lambda x: x * ask(), (x3(),), lambda: list(asked)

    make.__wrapped__ = _own  # type: ignore[attr-defined]  # whose lines are marked
    return make


WRITERS = [(dict, "__missing__"), (dict, "__getitem__"), (dict, "look"), (list, "__getitem__"), (list, "look")]
WRITERS += [(object, "__getitem__"), (object, "__call__"), (object, "look")]
OWN = [Case(f"what {m} of {k.__name__} closes over", _own(k, m), refused=True) for k, m in WRITERS]


@contract(OWN)
def test_methods(case: Case, setting: str) -> None:
    run(case, setting)
