"""RECORDER.md, "Values leaving": every row, compiled, in a file, in threads and after exceptions; and control flow on
values.
"""

from __future__ import annotations

import pickle
import re
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import GuardError, RecordingError
from tests.contract_runs import Case, contract, run
from tests.recorder_checks import bits, marked_lines


def x23() -> Any:
    return graphc.arange(6.0).reshape(2, 3) - 2


def branch() -> Any:
    return lambda x: x * 2 if x.sum() > 0 else x - 1, (x23(),)


def bool_of_a_tensor() -> Any:
    return lambda x: x * 2 if bool(x[0, 0] < 0) else x - 1, (x23(),)


def assertion() -> Any:
    def f(x: Any) -> Any:
        assert x.sum() > 0
        return x + 1

    return f, (x23(),)


def equal_and_allclose() -> Any:
    def f(x: Any) -> Any:
        return x * 2 if graphc.equal(x, x + 0) and graphc.allclose(x, x * 1.0) else x

    return f, (x23(),)


def tensor_in_a_list() -> Any:
    return lambda x: x * 2 if x[0, 0] in [graphc.tensor(-2.0)] else x, (x23(),)


def item_in_arithmetic() -> Any:
    return lambda x: x * (x.sum().item() + 1.5), (x23(),)


def item_returned() -> Any:
    return lambda x: (x.sum().item(), x.long().sum().item()), (x23(),)


def item_compared() -> Any:
    return lambda x: x * 2 if x.max().item() > 1 else x, (x23(),)


def int_forced() -> Any:
    return lambda x: x[: int(x.max().item() > 1)] * range(5)[x.long().max().item()], (x23(),)


def float_forced() -> Any:
    def f(x: Any) -> Any:
        return x * float(x.sum())  # here

    return f, (x23(),)


def numpy_inside() -> Any:
    def f(x: Any) -> Any:
        return x + graphc.from_numpy(x.numpy() * 2)  # here

    return f, (x23(),)


def array_protocol() -> Any:
    def f(x: Any) -> Any:
        return x * float(np.asarray(x).sum())  # here

    return f, (x23(),)


def data_pointer() -> Any:
    def f(x: Any) -> Any:
        return x + (x.data_ptr() * 0)  # here

    return f, (x23(),)


def pickling() -> Any:
    def f(x: Any) -> Any:
        return x + len(pickle.dumps(x))  # here

    return f, (x23(),)


def to_list() -> Any:
    def f(x: Any) -> Any:
        return x + x.tolist()[0][0]  # here

    return f, (x23(),)


def shape_stride_dtype() -> Any:
    def f(x: Any) -> Any:
        ok = x.shape[0] == 2 and x.stride() == (3, 1) and x.is_contiguous() and x.dtype is graphc.float32
        return x * (x.shape[1] if ok else 0) if x.grad is None else x

    return f, (x23(),)


def length_and_iteration() -> Any:
    return lambda x: sum(row * len(x) for row in x), (x23(),)


def masked() -> Any:
    return lambda x: (x[x > 0] * 2, x.masked_select(x < 0).sum()), (x23(),)


def masked_assignment() -> Any:
    def f(x: Any) -> Any:
        y = x * 1
        y[y > 0] = 7.0
        return y

    return f, (x23(),)


def loop_until() -> Any:
    def f(x: Any) -> Any:
        n = 0
        while x.abs().max() > 0.5:
            x, n = x / 2, n + 1
        return x, n

    return f, (x23(),)


def returned_input_and_views() -> Any:
    def f(x: Any) -> Any:
        y = x * 2
        return x, y, y, y[0], x.T, {"n": 3, "none": None}

    return f, (x23(),)


def returned_state() -> Any:
    w = x23()
    return lambda x: (w, w[0], x + 1), (x23(),), lambda: w


def returned_object() -> Any:
    def f(x: Any) -> Any:
        return SimpleNamespace(y=x * 2)  # here

    return f, (x23(),)


CASES = [
    Case("if t", branch),
    Case("bool(t)", bool_of_a_tensor),
    Case("assert t", assertion),
    Case("equal, allclose", equal_and_allclose),
    Case("t in list", tensor_in_a_list),
    Case("item() in arithmetic", item_in_arithmetic),
    Case("item() returned", item_returned),
    Case("item() compared", item_compared),
    Case("an int forced", int_forced),
    Case("a float forced", float_forced, refused=True),
    Case("numpy()", numpy_inside, refused=True),
    Case("__array__", array_protocol, refused=True),
    Case("data_ptr()", data_pointer, refused=True),
    Case("pickling", pickling, refused=True),
    Case("tolist()", to_list, refused=True),
    Case("shape, stride, contiguity, dtype, grad is None", shape_stride_dtype),
    Case("len(x) and iteration", length_and_iteration),
    Case("x[mask] and masked_select", masked),
    Case("x[mask] = v", masked_assignment),
    Case("a loop whose count depends on values", loop_until),
    Case("returned: inputs, the same twice, views, plain values", returned_input_and_views),
    Case("returned: state and views of it", returned_state),
    Case("returned: an unknown object with tensors", returned_object, refused=True),
]


@contract(CASES)
def test_row(case: Case, setting: str) -> None:
    run(case, setting)


def test_what_a_file_returns_is_memory_of_its_own() -> None:
    f, (x,) = returned_input_and_views()
    results = graphc.trace(f, x)(x)[:5]
    assert len({id(r._s) for r in (x, *results)}) == 6
    before = bits(results[1:])
    results[0].zero_()
    assert bits(results[1:]) == before and bits(x) == bits(x23())


# ---- control flow on values


def _steps(limit: int) -> Any:
    def f(x: Any) -> Any:
        for k in range(limit):
            if x.max() < k:  # here
                return x * k
        return x - 1

    return f


def test_early_return_has_eight_paths_and_then_says_so_once() -> None:
    f = _steps(12)
    compiled = graphc.compile(f)
    values = [k + 0.5 for k in range(11)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for value in [v for v in values for _ in range(3)] + values * 2:
            x = graphc.tensor([value])
            assert bits(compiled(x)) == bits(f(x)), value
    told = [str(w.message) for w in caught]
    assert len(told) == 1 and "more than 8" in told[0], told
    assert any(line in told[0] for line in marked_lines(_steps)), "the line of the test that came out otherwise"
    stats = compiled.stats
    assert len(compiled.traces) == 8 and stats.compilations == 8 and stats.refused == 1
    assert stats.hits + stats.misses == stats.calls == 55
    hits = stats.hits
    x = graphc.tensor([values[0]])
    assert bits(compiled(x)) == bits(f(x)) and compiled.stats.hits == hits + 1, "a known path is still compiled"


def test_too_many_paths_raise_with_fullgraph() -> None:
    compiled = graphc.compile(_steps(12), fullgraph=True)
    with pytest.raises(RecordingError, match="more than 8"):
        for value in [k + 0.5 for k in range(11) for _ in range(3)]:
            compiled(graphc.tensor([value]))


def test_nested_branches_and_loops() -> None:
    def f(x: Any) -> Any:
        total = x * 0
        for row in x:
            if row.sum() > 0:
                while row.max() > 1:
                    row = row / 2
                total = total + row
            elif row.min() < -1:
                total = total - row
        return total

    compiled = graphc.compile(f)
    for sign in (1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0):
        assert bits(compiled(x23() * sign)) == bits(f(x23() * sign))
    assert compiled.stats.hits == 4 and compiled.stats.recordings == 4


_FACTOR = 1.0


class _Place:
    value = 1.0


def _missing(kind: str) -> tuple[Any, Any, Any]:
    """A function, its arguments at call k, and what changes before call k."""
    place, table = _Place(), {"scale": 1.0}
    scale = 1.0

    def closure(x: Any) -> Any:
        return x * scale

    def change(k: int) -> None:
        nonlocal scale
        scale = float(k // 2)

    x = graphc.ones(3)
    fixed: Any = lambda k: (x,)  # noqa: E731
    return {
        "closure": (closure, fixed, change),
        "attribute": (lambda x: x * place.value, fixed, lambda k: setattr(place, "value", float(k // 2))),
        "item": (lambda x: x * table["scale"], fixed, lambda k: table.update(scale=float(k // 2))),
        "global": (lambda x: x * _FACTOR, fixed, lambda k: globals().update(_FACTOR=float(k // 2))),
        "forced int": (lambda x, n: x.repeat(n), lambda k: (x, k // 2 + 1), lambda k: None),
        "value": (lambda x: x * int(x.max().long()), lambda k: (x * (k // 2),), lambda k: None),
    }[kind]


@pytest.mark.parametrize("kind", ["closure", "attribute", "item", "global", "forced int", "value"])
def test_every_way_of_missing_ends_in_one_warning(kind: str) -> None:
    f, given, change = _missing(kind)
    compiled = graphc.compile(f)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for k in range(30):
            change(k)
            assert bits(compiled(*given(k))) == bits(f(*given(k))), k
    told = [str(w.message) for w in caught]
    assert len(told) == 1 and "more than 8 different paths; the last miss: " in told[0], told
    assert re.search(r"test_contract_leaving\.py:\d+", told[0]), told[0]
    own = 1 if kind == "forced int" else 0  # its first number is a signature of its own
    assert compiled.stats.refused == 1 and len(compiled.traces) == 8 + own
    hits = compiled.stats.hits
    change(2)
    assert bits(compiled(*given(2))) == bits(f(*given(2)))
    assert compiled.stats.hits == hits + 1, "a known path is still compiled"


@pytest.mark.parametrize(
    "change", [lambda x: x.double(), lambda x: x.T.contiguous().T, lambda x: x[:1], lambda x: x.long()]
)
def test_another_layout_is_a_signature_of_its_own(change: Any) -> None:
    compiled = graphc.compile(lambda x: x * 2, fullgraph=True)
    for given in (x23(), change(x23())) * 4:
        assert bits(compiled(given)) == bits(given * 2)
    assert compiled.stats.recordings == 4 and compiled.stats.hits == 4


def test_a_file_goes_one_way_and_says_so() -> None:
    program = graphc.trace(lambda x: x * 2 if x.sum() > 0 else x - 1, x23())
    with pytest.raises(GuardError, match=r"test_contract_leaving\.py:\d+"):
        program(-x23())
    assert bits(program(x23())) == bits(x23() * 2)
