"""Known failures of other compilers, one test each: arguments, modes and modules of another kind at a later call."""

from __future__ import annotations

import enum
from typing import Any

import pytest

import graphc
from graphc import nn
from graphc.nn import functional as F
from graphc.testing import assert_same
from tests.failure_checks import Made, cases, nothing, same, x34

# ---- a branch argument flipped


def _flag() -> Made:
    def f(x: Any, flip: bool) -> Any:
        return x * 2 if flip else x + 2

    return f, lambda k: (x34(k), k % 3 == 1), nothing


def _flag_by_name_in_a_dict() -> Made:
    def f(x: Any, options: Any) -> Any:
        return x.exp() if options["mode"] == "exp" else x.abs()

    return f, lambda k: (x34(k), {"mode": "exp" if k % 3 else "abs"}), nothing


class Mode(enum.Enum):
    """Two ways."""

    UP = 1
    DOWN = 2


def _flag_of_an_enum() -> Made:
    def f(x: Any, mode: Mode) -> Any:
        return x + 1 if mode is Mode.UP else x - 1

    return f, lambda k: (x34(k), Mode.UP if k % 2 else Mode.DOWN), nothing


def _flag_of_a_tensor() -> Made:
    def f(x: Any, flag: Any) -> Any:
        if flag:
            x.add_(1)
            return x * 2
        return x.sub_(1)

    return f, lambda k: (x34(k), graphc.tensor(k % 3 == 1)), nothing


def _flag_deep_inside_after_a_write() -> Made:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    def f(x: Any) -> Any:
        y = net(x)
        return y.relu() if (y.sum() * 0 + x[0, 0]) > 0 else -y

    return f, lambda k: (x34(9.0 * (k % 2)),), lambda: list(net.state_dict().values())


def _flag_of_none() -> Made:
    def f(x: Any, mask: Any) -> Any:
        return x if mask is None else x * mask

    return f, lambda k: (x34(k), None if k % 2 else x34()), nothing


@cases(
    _flag, _flag_by_name_in_a_dict, _flag_of_an_enum, _flag_of_a_tensor, _flag_deep_inside_after_a_write, _flag_of_none
)
def test_a_branch_argument_flipped(make: Any) -> None:
    """The branch of the first call was taken for ever."""
    same(make, hits=6, calls=12)


# ---- None changing the number of outputs


def _one_or_two() -> Made:
    def f(x: Any, h: Any) -> Any:
        return (x * 2,) if h is None else (x * 2, h + 1)

    return f, lambda k: (x34(k), x34() if k % 2 else None), nothing


def _none_among_outputs() -> Made:
    def f(x: Any, h: Any) -> Any:
        return {"a": x + 1, "h": None if h is None else h * 2, "n": [None, x.sum()]}

    return f, lambda k: (x34(k), x34() if k % 2 else None), nothing


def _none_by_the_values() -> Made:
    def f(x: Any) -> Any:
        return (x * 2, x.sum()) if x.sum() > 0 else None

    return f, lambda k: (x34(10.0 * (k % 2)),), nothing


def _gradient_or_none() -> Made:
    w, v = nn.Parameter(x34()), nn.Parameter(x34(1.0))

    def f(x: Any, both: bool) -> Any:
        w.grad = v.grad = None
        ((x * w).sum() + ((x * v).sum() if both else 0)).backward()
        return [None if p.grad is None else p.grad * 1 for p in (w, v)]

    return f, lambda k: (x34(k), k % 2 == 1), lambda: [w.grad, v.grad]


@cases(_one_or_two, _none_among_outputs, _none_by_the_values, _gradient_or_none)
def test_none_changing_the_number_of_outputs(make: Any) -> None:
    """Outputs were counted once; None shifted those behind it."""
    same(make, hits=6, calls=12)


# ---- dtype, rank, shape and stride changes


@pytest.mark.parametrize("grad", [False, True])
def test_dtype_rank_shape_and_stride_changes(grad: bool) -> None:
    """A graph for one type was run with another: reads out of bounds, or numbers of the first dtype."""
    x = x34()
    forms = [x, x.double(), x[0], x[:2], x.T, x.T.contiguous(), x[:, ::2], x[:, 1:3], x.flip(1), x.bfloat16(), x[:0]]
    forms += [x[:1], x.reshape(2, 3, 2), x.half(), x[0, 0], x.expand(2, 3, 4), x.unsqueeze(0).permute(2, 0, 1)]

    def make() -> Made:
        def f(x: Any) -> Any:
            y = x * 2 + 1
            return y, y.sum(), (x * 3)[..., -1:].relu() if x.dim() else x.exp(), y.reshape(-1)

        row = [t.detach().requires_grad_(grad) for t in forms for _ in range(3)]
        return f, lambda k: (row[k % len(row)],), nothing

    same(make, hits=4 * len(forms), calls=6 * len(forms))


def test_integer_dtypes_with_the_same_bits_are_told_apart() -> None:
    """int32 and uint32, bool and uint8 shared a key."""

    def make() -> Made:
        dtypes = [graphc.int8, graphc.uint8, graphc.bool, graphc.int32, graphc.int64, graphc.int16]
        row = [graphc.tensor([200, 3, 0, 1]).to(t) for t in dtypes for _ in range(3)]
        return lambda x: (x * 2 if x.dtype is not graphc.bool else x & x, x.sum(), x > 1), lambda k: (row[k],), nothing

    same(make, hits=6, calls=18)


# ---- a dropped guard between 1 and True


@pytest.mark.parametrize(
    "values",
    [
        (1, True),
        (True, 1),
        (1, 1.0),
        (0, False),
        (0.0, -0.0),
        (float("nan"), -float("nan")),
        ("1", 1),
        (2**53, 2.0**53),
    ],
    ids=str,
)
def test_one_and_true_are_told_apart(values: Any) -> None:
    """`1 == True == 1.0`: a guard by == took one for another; a mask became an index."""

    def argument() -> Made:
        def f(x: Any, n: Any) -> Any:
            return (x * n if not isinstance(n, str) else x, x[n] if type(n) in (int, bool) and n < 3 else x, str(n))

        return f, lambda k: (x34(), values[k // 4 % 2]), nothing

    def attribute() -> Made:
        net = nn.Identity()

        def f(x: Any) -> Any:
            return x * 2 if isinstance(net.n, str) else x * net.n, type(net.n).__name__, [net.n]

        def given(k: int) -> Any:
            net.n = values[k // 4 % 2]
            return (x34(),)

        return f, given, nothing

    def key() -> Made:
        table = {values[0]: 2.0}

        def f(x: Any) -> Any:
            return [x * type(n)(1) if not isinstance(n, str) else x for n in table]

        def given(k: int) -> Any:
            table.clear()
            table[values[k // 4 % 2]] = 2.0
            return (x34(),)

        return f, given, nothing

    for make in (argument, attribute, key):
        same(make, hits=4, calls=12)


def test_a_dropped_guard_shows_in_the_dtype() -> None:
    """x * 1 is an int, x * True is an int, x * 1.0 a float: the dtype follows the type of the number."""

    def f(x: Any, n: Any) -> Any:
        return x * n, x + n, F.relu(x * n)

    compiled = graphc.compile(f, fullgraph=True)
    x = graphc.arange(3)
    for n in (1, True, 1.0, 1, True, 1.0) * 4:
        assert [t.dtype for t in compiled(x, n)] == [t.dtype for t in f(x, n)]
    assert compiled.stats.hits == 18
    assert_same(f, x, True)
