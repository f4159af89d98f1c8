"""Python values around a graph: kinds of containers, of numbers and of objects, and what tells them apart."""

from __future__ import annotations

import copy
import enum
import importlib.util
import warnings
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from tests.recorder_checks import bits, follows, refused

Pair = namedtuple("Pair", "a b")


def v(*numbers: float) -> Any:
    return graphc.tensor(list(numbers or (1.0, 2.0)))


# ---- containers


def test_kinds_of_dict_returned() -> None:
    def f(x: Any) -> Any:
        log = defaultdict(list)
        log["a"].append(x * 2)
        return OrderedDict(b=x, a=x + 1), log

    compiled = follows(f, *[(v(k, 1.0),) for k in (1.0, 2.0, 3.0)])
    ordered, log = compiled(v())
    assert type(ordered) is OrderedDict and list(ordered) == ["b", "a"]
    assert type(log) is defaultdict and log["new"] == []


def test_kinds_of_dict_given() -> None:
    def f(d: Any) -> Any:
        return d["a"] * len(d), type(d) is dict

    makes: list[Callable[..., Any]] = [dict, OrderedDict, lambda **d: defaultdict(list, d)]
    compiled = follows(f, *[(make(a=v(k)),) for make in makes for k in (1.0, 2.0, 3.0, 4.0)])
    assert compiled.stats.hits == 6


@pytest.mark.parametrize("keys", [(1, True), (0.0, -0.0), ((1, 2), (True, 2))])
def test_keys_that_are_equal_are_told_apart(keys: tuple[Any, Any]) -> None:
    def f(d: Any) -> Any:
        return next(iter(d.values())) * 2, repr(next(iter(d)))

    compiled = follows(f, *[({key: v()},) for key in keys for _ in range(3)])
    assert compiled.stats.hits == 2


def test_classes_are_made_again_without_their_init() -> None:
    @dataclass(frozen=True)
    class Result:
        value: Any
        kind: str = field(init=False, default="sum")

        def __post_init__(self) -> None:
            object.__setattr__(self, "value", self.value * 2)

    class Both(Pair):
        def __new__(cls, x: Any) -> Any:
            return super().__new__(cls, x, x + 1)

    def f(x: Any) -> Any:
        return Result(x), Both(x * 3)

    compiled = graphc.compile(f, fullgraph=True)
    for k in range(4):
        got, both = compiled(v(k))
        assert type(got) is Result and type(both) is Both
        assert bits((got.value, got.kind, tuple(both))) == bits((v(2 * k), "sum", (v(3 * k), v(3 * k + 1))))
    assert compiled.stats.hits == 2


def test_an_instance_with_more_than_its_fields_is_refused() -> None:
    @dataclass
    class Result:
        value: Any

    def make() -> Any:
        def f(x: Any) -> Any:
            out = Result(x * 2)
            out.name = "more"  # type: ignore[attr-defined]
            return out  # here

        return f, (v(),)

    refused(make)


def test_int_keys_stay_ints_in_a_file(tmp_path: Path) -> None:
    graphc.trace(lambda d: {1: d[2] * 2, "1": d["b"]}, {2: v(), "b": v(3.0)}).save(tmp_path / "keys.graphc")
    found = graphc.load(tmp_path / "keys.graphc")({2: v(), "b": v(3.0)})
    assert bits([*found.items()]) == bits([(1, v() * 2), ("1", v(3.0))])


# ---- arguments


@pytest.mark.parametrize(
    "values",
    [
        (np.float64(1.5), np.float64(2.5)),
        (np.float32(0.0), np.float32(-0.0)),
        (np.int64(1), np.int64(2)),
        (np.bool_(True), np.bool_(False)),
        (Path("/a/b"), Path("/a/bc")),
        (range(2), range(3)),
        (slice(1), slice(2)),
        (slice(True), slice(1)),
        (complex(0.0, 1.0), complex(-0.0, 1.0)),
        (frozenset({1}), frozenset({True})),
        ({1.0}, {1.0, 2.0}),
        (bytearray(b"a"), bytearray(b"b")),
        (np.array([1.0, 2.0]), np.array([1.0, 3.0])),
        (graphc.ones(2).shape, graphc.ones(3).shape),
    ],
    ids=lambda pair: type(pair[0]).__name__,
)
def test_values_that_are_equal_share_a_trace(values: tuple[Any, Any]) -> None:
    def f(x: Any, value: Any) -> Any:
        return x * 2, repr(value)

    compiled = follows(f, *[(v(), copy.deepcopy(value)) for value in values for _ in range(4)])
    assert compiled.stats.recordings == 4
    assert compiled.stats.hits == 4


def test_members_of_enums() -> None:
    class Color(enum.Enum):
        RED = 1
        BLUE = 2

    class Level(enum.IntEnum):
        LOW = 1
        HIGH = 2

    def f(x: Any, color: Any, level: Any) -> Any:
        return x * level.value if color is Color.RED else x - level

    compiled = follows(f, *[(v(), c, n) for c in Color for n in (Level.LOW, 1 and Level.HIGH) for _ in range(3)])
    assert compiled.stats.hits == 4


def test_always_new_objects_end_in_one_warning() -> None:
    compiled = graphc.compile(lambda x, f: f(x))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for k in range(50):
            assert bits(compiled(v(), lambda x, k=k: x * k)) == bits(v() * k)
    assert len(caught) == 1
    assert "more than 32 different objects (function)" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert len(compiled._entries) <= 33


def test_signatures_that_never_come_back_are_forgotten() -> None:
    compiled = graphc.compile(lambda x, name: x * 2)
    for k in range(300):
        compiled(v(), f"name {k}")
    assert len(compiled._entries) == 256
    assert compiled.stats.refused == 0


# ---- numbers


def test_int_arithmetic_beyond_64_bits() -> None:
    def f(x: Any, n: int) -> Any:
        return x * 2, n * n - n, abs(n), -n, n // -1

    numbers = (2, 3, 4, 5, 2**30, -(2**31), 2**40, 2**62, -(2**63), 2**63, 7)
    compiled = graphc.compile(f)
    with pytest.warns(graphc.RecordingWarning, match="beyond 64 bits"):
        for n in numbers:
            assert bits(compiled(v(), n)) == bits(f(v(), n)), n
    assert compiled.stats.hits >= 3


def test_int_items_beyond_64_bits() -> None:
    def f(t: Any) -> Any:
        n = t.item()
        return n + n, n * 3

    compiled = graphc.compile(f)
    with pytest.warns(graphc.RecordingWarning, match="beyond 64 bits"):
        for n in (1, 2, 3, 2**40, 2**62, 2**63 - 1, -(2**63), 5):
            assert bits(compiled(graphc.tensor(n))) == bits(f(graphc.tensor(n))), n
    assert compiled.stats.hits == 3


def test_ints_that_no_float_holds() -> None:
    def f(x: Any, n: int, m: int, t: float) -> Any:
        return x * 2, n / m, n + t, n == t

    calls = [(2, 3, 3.0), (4, 5, 3.5), (6, 7, 6.0), (8, 9, 1.5), (2**40, 2**41 + 1, 0.5), (2**60 + 3, 3, 2.0**60)]
    compiled = graphc.compile(f)
    with pytest.warns(graphc.RecordingWarning, match="beyond 53 bits"):
        for n, m, t in [*calls, *calls]:
            assert bits(compiled(v(), n, m, t)) == bits(f(v(), n, m, t)), n
    follows(lambda x, n: (x, n / 2**53, 2**52 / n), *[(v(), n) for n in (1, 2, 3, 2**30)])


def test_a_division_by_zero_that_is_caught() -> None:
    def f(x: Any, t: float) -> Any:
        try:
            return x * (1 / t)
        except ZeroDivisionError:
            return x * 5

    compiled = follows(f, *[(v(), t) for t in (1.0, 2.0, 0.0, -0.0, 0.0, 4.0, 0.0)])
    assert compiled.stats.hits >= 2


def test_a_number_compared_by_identity(tmp_path: Path) -> None:
    path = tmp_path / "written.py"
    path.write_text("def f(x, n):\n    return x if n is 3 else -x\n")
    spec = importlib.util.spec_from_file_location("written", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        spec.loader.exec_module(module)
    follows(module.f, *[(v(), n) for n in (4, 5, 6, 3, 3, 3, 7)])
