"""Words of memory: every change of what they say is seen, and nothing else; counting many attributes at once."""

from __future__ import annotations

import sys
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc.runtime import counters, words
from graphc.runtime.counters import Counters
from graphc.runtime.words import Watch

pytestmark = pytest.mark.skipif(not words.readable(), reason="nothing is known of this interpreter's memory")


class Thing:
    usual = 1

    def __init__(self) -> None:
        self.a, self.b = object(), object()


class Strange(dict[Any, Any]):
    def __getitem__(self, key: Any) -> Any:
        return key


def test_this_interpreter_is_known() -> None:
    assert sys.implementation.name == "cpython"
    assert sys.version_info[:2] in ((3, 11), (3, 12))


def test_a_watch_tells_the_first_change() -> None:
    numbers = np.arange(10)
    start = numbers.ctypes.data
    watch = Watch([(start + 8 * k, k) for k in range(10)])
    assert watch.first_change() == watch.count == 10
    numbers[7] = numbers[3] = 99
    assert watch.first_change() == 3
    numbers[3] = 3
    assert watch.first_change() == 7
    assert Watch([]).first_change() == 0


def check(found: words.Words, harmless: Callable[[], Any], change: Callable[[], Any]) -> None:
    assert found is not None
    watch = Watch(found)
    harmless()
    assert watch.first_change() == watch.count
    change()
    assert watch.first_change() < watch.count


def test_dicts_and_sets() -> None:
    for make in (dict, lambda x: defaultdict(list, x)):
        d: Any = make({"a": 1, "b": 2})
        check(words.same_items(d), lambda d=d: (d["a"], d.get("z"), list(d), d.copy()), lambda d=d: d.update(a=3))  # type: ignore[misc]
        check(words.same_items(d), lambda: None, lambda d=d: d.pop("b"))  # type: ignore[misc]
    assert words.same_items(Strange()) is None
    assert words.same_items(OrderedDict(a=1)) is None  # its order changes unseen
    assert words.same_items([]) is None
    s = {1}
    check(words.same_size(s), lambda: 1 in s, s.clear)


def test_lists() -> None:
    items = [object(), object(), object()]
    check(words.same_list(items, [0, -1]), lambda: items.__setitem__(1, 5), lambda: items.__setitem__(2, 5))
    check(words.same_list(items), lambda: items.reverse(), lambda: items.append(1))
    assert words.same_list(items, [7]) is None
    assert words.same_list((), []) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("with_dict", [False, True])
def test_instance_attributes(with_dict: bool) -> None:
    def make() -> Any:
        made = Thing()
        if with_dict:
            vars(made)
        return made

    x = make()
    check(words.same_fields(x, ("a", "usual")), lambda: (setattr(x, "b", 1), x.usual), lambda: setattr(x, "usual", 1))
    x = make()
    check(words.same_fields(x, ("a",)), lambda: setattr(x, "b", 1), lambda: delattr(x, "a"))
    x = make()
    check(words.same_fields(x, ("a",)), lambda: setattr(x, "b", 1), lambda: setattr(x, "__dict__", {"a": 1}))
    x = make()
    check(words.same_fields(x, ("a", "more")), lambda: None, lambda: setattr(x, "more", 1))
    assert words.same_fields(1, ("real",)) is None


def test_whole_instances() -> None:
    x = Thing()
    check(words.same_instance(x), lambda: (x.a, x.usual), lambda: setattr(x, "b", 1))
    check(words.same_instance(x), lambda: None, lambda: setattr(x, "new", 1))
    vars(x)
    assert words.same_instance(x) is None


def test_references() -> None:
    x, others = Thing(), []
    found = words.references(x, sys.getrefcount(x) - 2)
    check(found, lambda: [x, x], lambda: others.append(x))
    y, refs = Thing(), []
    check(words.references(y, sys.getrefcount(y) - 2), lambda: None, lambda: refs.append(weakref.ref(y)))


def test_arrays() -> None:
    a = np.zeros((2, 3))
    check(words.same_array(a), lambda: a.fill(1.0), lambda: a.resize((3, 2), refcheck=False))
    check(words.same_array(a), lambda: a.sum(), lambda: a.setflags(write=False))
    assert words.same_array(np.rec.array([1.0])) is None
    assert words.data_of(a) == a.ctypes.data


def test_counters_count() -> None:
    class Count:
        version = 0

    some = []
    for k in range(50):
        some.append(Count())
        some[-1].version = 250 + k % 3  # past the small integers that Python shares
    fresh, odd = Count(), Count()
    vars(odd)["version"] = 10**6
    count = Counters([*((x, "version") for x in some), (fresh, "version"), (odd, "version")])
    for _ in range(9):
        count.add_one()
    assert [x.version for x in some] == [259 + k % 3 for k in range(50)]
    assert (fresh.version, odd.version, Count.version) == (9, 10**6 + 9, 0)
    vars(some[20])  # its attributes move
    some[30].version = 5
    for _ in range(3):
        count.add_one()
    expected = [262 + k % 3 for k in range(50)]
    expected[30] = 8
    assert [x.version for x in some] == expected


def test_counters_leave_no_reference_behind() -> None:
    class Count:
        pass

    some: list[Any] = []
    for k in range(40):
        some.append(Count())
        some[-1].n = 10_000 + k // 20
    count = Counters([(x, "n") for x in some])
    assert len(count._inline) == 40
    for _ in range(5):
        count.add_one()
    assert some[0].n is some[19].n and some[20].n is some[39].n and some[0].n == 10_005
    held = sys.getrefcount(some[0].n)
    assert held == 21  # twenty attributes, and the argument of this question
    add, functions = counters._native()
    assert add(count._address, 0, functions) == 0
