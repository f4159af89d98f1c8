"""RECORDER.md, "Values entering": objects from outside whose position moves on, or that hold another thing every time:
followed or refused with the line, never a constant. Compiled, in a file, in threads and after exceptions.
"""

from __future__ import annotations

import array
import collections
import contextlib
import copy
import csv
import io
import itertools
import os
import queue
import random
import re
import socket
import struct
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from tests.contract_runs import Case, contract, run
from tests.recorder_checks import bits

LINES = [f"{k}.5\n" for k in range(64)]


def x3() -> Any:
    return graphc.arange(3.0) - 1


_open = contextlib.ExitStack()


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Files and sockets of a case are closed after it."""
    with _open:
        yield


def _file(text: str) -> Any:
    f: Any = _open.enter_context(contextlib.closing(tempfile.TemporaryFile("w+")))  # noqa: SIM115
    f.write(text)
    f.seek(0)
    return f


def next_line() -> Any:
    source = _file("".join(LINES))

    def f(x: Any) -> Any:
        return x * float(next(source))  # here

    return f, (x3(),)


def lines_in_a_loop() -> Any:
    source = _file("".join(LINES))

    def f(x: Any) -> Any:
        for line in source:  # here
            x = x + float(line)  # here
            break
        return x

    return f, (x3(),)


def all_lines() -> Any:
    """The second call finds no lines."""
    source = _file("1.5\n2.5\n")

    def f(x: Any) -> Any:
        for line in source:  # here
            x = x + float(line)  # here
        return x

    return f, (x3(),)


def readline() -> Any:
    source = _file("".join(LINES))

    def f(x: Any) -> Any:
        return x * float(source.readline())  # here

    return f, (x3(),)


def read() -> Any:
    source = _file("1234567890" * 10)

    def f(x: Any) -> Any:
        return x * len(source.read(7)) + float(source.tell())  # here

    return f, (x3(),)


def text_in_memory() -> Any:
    source = io.StringIO("".join(LINES))

    def f(x: Any) -> Any:
        for line in source:  # here
            return x + float(line)  # here
        return x

    return f, (x3(),)


def bytes_in_memory() -> Any:
    source = io.BytesIO(bytes(range(64)))

    def f(x: Any) -> Any:
        return x + source.read(1)[0]  # here

    return f, (x3(),)


def table() -> Any:
    rows = csv.reader(LINES)

    def f(x: Any) -> Any:
        for row in rows:  # here
            return x * float(row[0])  # here
        return x

    return f, (x3(),)


def table_of_dicts() -> Any:
    rows = csv.DictReader(["a,b\n", *[f"{k}.5,1\n" for k in range(64)]])

    def f(x: Any) -> Any:
        return x * float(next(rows)["a"])  # here

    return f, (x3(),)


def connection() -> Any:
    a, b = map(_open.enter_context, socket.socketpair())
    b.sendall(bytes(range(100)))

    def f(x: Any) -> Any:
        return x + a.recv(1)[0] + 0 * b.fileno()  # here

    return f, (x3(),)


def descriptor() -> Any:
    r, w = os.pipe()
    for end in (r, w):
        _open.callback(os.close, end)
    os.write(w, bytes(range(100)))

    def f(x: Any) -> Any:
        return x + os.read(r, 1)[0]  # here

    return f, (x3(),)


def generator() -> Any:
    def counts() -> Iterator[float]:
        yield from map(float, range(100))

    numbers = counts()

    def f(x: Any) -> Any:
        for n in numbers:  # here
            return x * n  # here
        return x

    return f, (x3(),)


def _iterator(make: Any) -> Any:
    def case() -> Any:
        numbers = make()

        def f(x: Any) -> Any:
            for n in numbers:  # here
                return x * n  # here
            return x

        return f, (x3(),)

    return case


def iterator_as_argument() -> Any:
    numbers = iter(list(map(float, range(64))))

    def f(x: Any, numbers: Any) -> Any:
        return x * next(numbers)  # here

    return f, (x3(), numbers)


def iterator_by_unpacking() -> Any:
    numbers = iter(list(map(float, range(128))))

    def f(x: Any) -> Any:
        a, b = (n for _, n in zip(range(2), numbers))  # here  # noqa: B905
        return x * a + b

    return f, (x3(),)


def iterator_by_builtins() -> Any:
    numbers = iter([1.0, 2.0, 3.0])

    def f(x: Any) -> Any:
        return x + sum(numbers)  # here

    return f, (x3(),)


def iterator_by_in() -> Any:
    numbers = iter(list(range(3)) * 20)

    def f(x: Any) -> Any:
        return x + 1 if 2 in numbers and next(numbers) == 0 else x  # here

    return f, (x3(),)


def own_iterator() -> Any:
    """Its position is an attribute that is written: an effect."""

    class Numbers:
        def __init__(self) -> None:
            self.k = 0

        def __iter__(self) -> Numbers:
            return self

        def __next__(self) -> float:
            self.k += 1  # here
            return float(self.k)

    numbers = Numbers()

    def f(x: Any) -> Any:
        return x * next(numbers)

    f.__wrapped_lines__ = Numbers  # type: ignore[attr-defined]
    return f, (x3(),), lambda: numbers.k


def deque_rotated() -> Any:
    numbers = collections.deque([1.0, 2.0, 3.0])

    def f(x: Any) -> Any:
        numbers.rotate(1)  # here
        return x * numbers[0]

    return f, (x3(),), lambda: list(numbers)


def popped() -> Any:
    numbers = list(map(float, range(64)))

    def f(x: Any) -> Any:
        return x * numbers.pop()  # here

    return f, (x3(),), lambda: list(numbers)


def queue_of_numbers() -> Any:
    q: Any = queue.Queue()
    for k in range(64):
        q.put(float(k))

    def f(x: Any) -> Any:
        return x * q.get()  # here

    return f, (x3(),)


def own_random() -> Any:
    source = random.Random(3)

    def f(x: Any) -> Any:
        return x * source.random()  # here

    return f, (x3(),)


def numpy_generator() -> Any:
    source = np.random.default_rng(3)

    def f(x: Any) -> Any:
        return x * float(source.random())  # here

    return f, (x3(),)


def matches() -> Any:
    found = re.finditer(r"\d+", "".join(LINES))

    def f(x: Any) -> Any:
        return x * float(next(found).group())  # here

    return f, (x3(),)


def unpacked_structs() -> Any:
    parts = struct.iter_unpack("B", bytes(range(64)))

    def f(x: Any) -> Any:
        (n,) = next(parts)  # here
        return x * n

    return f, (x3(),)


def _changing(numbers: Any) -> Any:
    """Its content is a condition."""

    def case() -> Any:
        held, calls = copy.copy(numbers), itertools.count(1)

        def seen() -> Any:
            if next(calls) in (3, 5):
                held.append(3)
                held[0] += 1
            return bytes(held)

        return lambda x: x * held[0] + len(held), (x3(),), seen

    return case


def descriptor_of_the_user() -> Any:
    """Looking for conditions must not run it."""
    numbers = iter(range(64))

    class Next:
        def __get__(self, owner: Any, kind: Any) -> int:
            return next(numbers)  # here

    class Place:
        value = Next()

    place = Place()
    return lambda x: x * place.value + Place.value, (x3(),)  # here


def property_of_a_class() -> Any:
    numbers = iter(range(64))

    class Kind(type):
        @property
        def value(cls) -> int:
            return next(numbers)

    class Place(metaclass=Kind):
        pass

    return lambda x: x * Place.value, (x3(),)  # here


def iterator_made_inside() -> Any:
    numbers = [1.0, 2.0]

    def f(x: Any) -> Any:
        it = iter(numbers)
        lines = io.StringIO("0.5\n1.5\n")
        rows = csv.reader(["3,4"])
        return x * next(it) + next(it) * float(next(lines)) + float(next(rows)[1])

    return f, (x3(),)


CASES = [
    Case("next(file)", next_line, refused=True),
    Case("for line in file", lines_in_a_loop, refused=True),
    Case("for line in file, to its end", all_lines, refused=True),
    Case("file.readline()", readline, refused=True),
    Case("file.read() and tell()", read, refused=True),
    Case("for line in StringIO", text_in_memory, refused=True),
    Case("BytesIO.read()", bytes_in_memory, refused=True),
    Case("for row in csv.reader", table, refused=True),
    Case("next(csv.DictReader)", table_of_dicts, refused=True),
    Case("socket.recv()", connection, refused=True),
    Case("os.read()", descriptor, refused=True),
    Case("for n in a generator", generator, refused=True),
    Case("for n in iter(list)", _iterator(lambda: iter(list(map(float, range(64))))), refused=True),
    Case("for n in iter(range)", _iterator(lambda: iter(range(64))), refused=True),
    Case("for n in map", _iterator(lambda: map(float, range(64))), refused=True),
    Case("for n in filter", _iterator(lambda: filter(None, range(64))), refused=True),
    Case("for n in reversed", _iterator(lambda: reversed(range(64))), refused=True),
    Case("for n in iter(dict)", _iterator(lambda: iter(dict.fromkeys(range(64)))), refused=True),
    Case("for n in iter(callable)", _iterator(lambda: iter(list(range(64)).pop, -1)), refused=True),
    Case("for n in iter(memoryview)", _iterator(lambda: iter(memoryview(bytes(64)))), refused=True),
    Case("an iterator as an argument", iterator_as_argument, refused=True),
    Case("an iterator unpacked", iterator_by_unpacking, refused=True),
    Case("sum(iterator)", iterator_by_builtins, refused=True),
    Case("n in iterator", iterator_by_in, refused=True),
    Case("deque.rotate()", deque_rotated, refused=True),
    Case("list.pop()", popped, refused=True),
    Case("Queue.get()", queue_of_numbers, refused=True),
    Case("random.Random", own_random, refused=True),
    Case("numpy.random.Generator", numpy_generator, refused=True),
    Case("re.finditer()", matches, refused=True),
    Case("struct.iter_unpack()", unpacked_structs, refused=True),
    Case("a descriptor of the user's", descriptor_of_the_user, refused=True),
    Case("a property of a class", property_of_a_class, refused=True),
    Case("an array.array that changes", _changing(array.array("d", [1.0, 2.0]))),
    Case("a bytearray that changes", _changing(bytearray(b"abc"))),
    Case("iterators made inside", iterator_made_inside),
]


@contract(CASES)
def test_row(case: Case, setting: str) -> None:
    run(case, setting)


# ---- looking for conditions changes nothing


def entries_that_are_made_when_asked_for() -> Any:
    tensors = collections.defaultdict(lambda: graphc.ones(1) * 5, a=graphc.ones(1), b=graphc.ones(1) * 2)
    numbers = collections.defaultdict(float, a=1.0, b=2.0)

    def change(k: int) -> None:
        if k in (3, 8):
            tensors.pop("b", None)
            numbers.pop("b", None)
        if k == 6:
            tensors.pop("a", None)
            tensors["b"] = graphc.ones(1)

    return lambda x: x + tensors["a"] * numbers["a"], change, lambda: [dict(tensors), dict(numbers)]


def list_that_counts() -> Any:
    asked = collections.Counter[str]()

    class Row(list[Any]):
        def __len__(self) -> int:
            asked["len"] += 1
            return super().__len__()

        def __iter__(self) -> Iterator[Any]:
            asked["iter"] += 1
            return super().__iter__()

        def __getitem__(self, k: Any) -> Any:
            asked["item"] += 1
            return super().__getitem__(k)

    row = Row([graphc.ones(3), 2.0])
    return lambda x: x + row[0] * row[1], lambda k: k == 5 and row.append(3.0), lambda: dict(asked)


def dict_that_orders_by_use() -> Any:
    class Recent(collections.OrderedDict[str, Any]):
        used = 0

        def __getitem__(self, key: str) -> Any:
            self.used += 1
            self.move_to_end(key)
            return super().__getitem__(key)

        def keys(self) -> Any:
            self.used += 100
            return super().keys()

    recent = Recent(a=graphc.ones(3), b=2.0)

    def f(x: Any) -> Any:
        return x + len(recent)

    def g(x: Any) -> Any:
        return x * recent["a"]

    calls = itertools.count()
    return lambda x: f(x) if next(calls) % 3 else g(x), lambda k: None, lambda: [recent.used, list(recent)]


def dict_of_which_the_size_is_asked() -> Any:
    made = []

    class Made(dict[str, Any]):
        def __missing__(self, key: str) -> Any:
            made.append(key)
            return 7.0

    d = Made(a=1.0, b=graphc.ones(3))
    return lambda x: x * d["a"] + d["b"], lambda k: k in (3, 7) and d.pop("ab"[k == 7]), lambda: list(made)


@pytest.mark.filterwarnings("ignore::graphc.RecordingWarning")
@pytest.mark.parametrize(
    "make",
    [entries_that_are_made_when_asked_for, list_that_counts, dict_that_orders_by_use, dict_of_which_the_size_is_asked],
)
def test_looking_for_conditions_changes_nothing(make: Any) -> None:
    def history(compile: bool) -> Any:
        f, change, seen = make()
        fn = graphc.compile(f) if compile else f
        found = []
        for k in range(12):
            change(k)
            found.append((bits(fn(x3())), bits(seen())))
        return found

    assert history(True) == history(False)
