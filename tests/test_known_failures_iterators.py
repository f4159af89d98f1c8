"""Known failures of other compilers, one test each: generators and iterators, inside and from outside."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import graphc
from graphc import nn
from tests.failure_checks import Made, cases, either, fallback, fresh, nothing, same, x34


def _generator_inside() -> Made:
    def parts(x: Any) -> Any:
        for row in x:
            yield row * 2
        yield x.sum(0)

    return lambda x: sum(parts(x)), fresh(3, 4), nothing


def _generator_expression() -> Made:
    net = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
    return lambda x: graphc.stack([m(x) for m in net]).sum(0) + max(y.sum() for y in x), lambda k: (x34(k),), nothing


def _generator_left_half_way() -> Made:
    def rows(x: Any) -> Any:
        try:
            yield from x
        finally:
            x.mul_(2)

    def f(x: Any) -> Any:
        for row in rows(x):
            if row.sum() > -100:
                break
        return x + row

    return f, fresh(3, 4), nothing


@cases(_generator_inside, _generator_expression, _generator_left_half_way)
def test_generators_inside(make: Any) -> None:
    """A generator was run out while recording and found empty later."""
    same(make, hits=3)


def test_a_generator_function_itself_is_an_error() -> None:
    """It returned a generator over values of the recording."""

    def rows(x: Any) -> Any:
        yield x * 2

    with pytest.raises(TypeError, match="generator"):
        graphc.compile(rows)


def _generator_from_outside() -> Made:
    def numbers() -> Any:
        yield from (0.5, 0.5, 0.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)

    n = numbers()

    def f(x: Any) -> Any:
        return x * next(n)  # here

    return f, fresh(3, 4), nothing


def _endless_generator() -> Made:
    def numbers() -> Any:
        k = 0
        while True:
            k += 1
            yield 0.5 if k < 4 else 2.0

    n = numbers()

    def f(x: Any) -> Any:
        return x * next(n)  # here

    return f, fresh(3, 4), nothing


def _tensor_from_an_iterator() -> Made:
    batches = iter([x34(k) for k in range(12)])

    def f(x: Any) -> Any:
        return x + next(batches)  # here

    return f, fresh(3, 4), nothing


def _tensor_from_a_cycle() -> Made:
    a, b = x34(), x34(1.0)
    batches = itertools.cycle([a, a, a, b])

    def f(x: Any) -> Any:
        return x * a + next(batches)  # here

    return f, fresh(3, 4), nothing


def _view_from_a_cycle() -> Made:
    a = x34()
    batches = itertools.cycle([a[0], a[0], a[0], a[1]])

    def f(x: Any) -> Any:
        return x * a + next(batches)  # here

    return f, fresh(3, 4), nothing


def _number_from_a_map() -> Made:
    numbers = map(float, [1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])

    def f(x: Any) -> Any:
        return x * next(numbers)  # here

    return f, fresh(3, 4), nothing


class Batches:
    """An iterator of a user's."""

    def __init__(self) -> None:
        self.k = 0
        self.batches = [x34(), x34(1.0)]

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Any:
        self.k += 1  # here
        return self.batches[self.k // 4 % 2]


def _tensor_from_a_loop_over_an_iterator() -> Made:
    batches = iter([x34(k) for k in range(30)])

    def f(x: Any) -> Any:
        for batch in batches:  # here
            x = x + batch  # here
            break
        return x

    return f, fresh(3, 4), nothing


@cases(
    _generator_from_outside,
    _endless_generator,
    _tensor_from_an_iterator,
    _tensor_from_a_cycle,
    _view_from_a_cycle,
    _number_from_a_map,
    _tensor_from_a_loop_over_an_iterator,
)
def test_what_comes_from_an_iterator(make: Any) -> None:
    """The tensor (or number) of the first call was used for ever, and the iterator stood still."""
    fallback(make)


def test_an_iterator_of_a_user_s_class() -> None:
    """Its place was an attribute that nobody looked at."""

    def make() -> Made:
        batches = Batches()
        return lambda x: x + next(batches), fresh(3, 4), lambda: batches.k

    either(make, warned="is moved on")
