"""Odd input with a defined result: the documented value, in eager execution, compiled and from a file."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc.errors import EmptyMeanWarning
from graphc.testing import assert_same

NAN, INF = math.nan, math.inf
LOW32, LOW64 = -(2**31), -(2**63)


def t(*values: Any, dtype: Any = None) -> Any:
    return graphc.tensor(list(values), dtype=dtype)


def _shifted(x: Any) -> Any:
    x[1:] += x[:-1]
    return x * 1


def _copied(x: Any) -> Any:
    x[1:].copy_(x[:-1])
    return x * 1


VALUES: list[tuple[str, Callable[..., Any], Callable[[], tuple[Any, ...]], Any]] = [
    ("sum of nothing", lambda x: x.sum(), lambda: (graphc.ones(0),), 0.0),
    ("sum of nothing along an axis", lambda x: x.sum(0), lambda: (graphc.ones(0, 2),), [0.0, 0.0]),
    ("prod of nothing", lambda x: x.prod(), lambda: (graphc.ones(0),), 1.0),
    ("any and all of nothing", lambda x: graphc.stack([x.any(), x.all()]), lambda: (graphc.ones(0),), [False, True]),
    ("a product with no inner elements", lambda x: x @ x.t(), lambda: (graphc.ones(2, 0),), [[0.0, 0.0], [0.0, 0.0]]),
    ("uint8 minus", lambda x: -x, lambda: (t(1, 200, dtype=graphc.uint8),), [255, 56]),
    ("uint8 sum that wraps", lambda x: x + x, lambda: (t(1, 200, dtype=graphc.uint8),), [2, 144]),
    ("int32 sum that wraps", lambda x: x + 1, lambda: (t(2**31 - 1, dtype=graphc.int32),), [LOW32]),
    ("int64 product that wraps", lambda x: x * x, lambda: (t(2**62, 3),), [0, 9]),
    ("minus and abs of the least int", lambda x: graphc.cat([-x, x.abs()]), lambda: (t(LOW64),), [LOW64, LOW64]),
    ("left shift by the width and more", lambda x: x << 40, lambda: (t(1, -5, dtype=graphc.int32),), [0, 0]),
    ("right shift by the width and more", lambda x: x >> 32, lambda: (t(1, -5, dtype=graphc.int32),), [0, -1]),
    ("shift by less than 0", lambda x: x << -1, lambda: (t(1, -5, dtype=graphc.int32),), [0, 0]),
    ("int // 0", lambda x, y: x // y, lambda: (t(1, -5), t(0, 0)), [0, 0]),
    ("int % 0", lambda x, y: x % y, lambda: (t(1, -5), t(0, 0)), [0, 0]),
    ("int / 0", lambda x, y: x / y, lambda: (t(1, -5), t(0, 0)), [INF, -INF]),
    ("least int // -1", lambda x, y: x // y, lambda: (t(LOW64), t(-1)), [LOW64]),
    ("least int % -1", lambda x, y: x % y, lambda: (t(LOW32, dtype=graphc.int32), t(-1, dtype=graphc.int32)), [0]),
    ("float // 0 and % 0", lambda x: graphc.cat([x // 0.0, x % 0.0]), lambda: (t(1.0, -1.0),), [INF, -INF, NAN, NAN]),
    ("int tensor to negative int tensor", lambda x, y: x**y, lambda: (t(1, 2, -1), t(-1, -1, -3)), [1, 0, -1]),
    ("float to int32", lambda x: x.int(), lambda: (t(NAN, INF, -INF, 1e30),), [0, 2**31 - 1, LOW32, 2**31 - 1]),
    ("float to int64", lambda x: x.long(), lambda: (t(NAN, INF, -1e30),), [0, 2**63 - 1, LOW64]),
    ("float to uint8", lambda x: x.byte(), lambda: (t(NAN, 300.0, -3.0, 7.9),), [0, 255, 0, 7]),
    ("float to bool", lambda x: x.bool(), lambda: (t(NAN, 0.0, -0.0),), [True, False, False]),
    ("overlapping slices, added", _shifted, lambda: (t(0.0, 1.0, 2.0, 3.0),), [0.0, 1.0, 3.0, 5.0]),
    ("overlapping slices, copied", _copied, lambda: (t(0.0, 1.0, 2.0, 3.0),), [0.0, 0.0, 1.0, 2.0]),
    ("max with NaN", lambda x: x.max(), lambda: (t(1.0, NAN, 2.0),), NAN),
    ("a batch of 0", lambda x, w: F.linear(x, w), lambda: (graphc.ones(0, 3), graphc.ones(4, 3)), []),
    (
        "a batch of 0 in a filter",
        lambda x, w: F.conv2d(x, w),
        lambda: (graphc.ones(0, 1, 5, 5), graphc.ones(2, 1, 3, 3)),
        [],
    ),
    ("the loss of a batch of 0", lambda x: F.mse_loss(x, x), lambda: (graphc.ones(0),), NAN),
    ("a number of NumPy", lambda x: x * np.float32(2.0), lambda: (t(1.0, 2.0),), [2.0, 4.0]),
    ("rows of equal elements", lambda x: x.argmax(), lambda: (t(3.0, 3.0),), 0),
]


@pytest.mark.parametrize(("call", "make", "value"), [v[1:] for v in VALUES], ids=[v[0] for v in VALUES])
def test_values(call: Callable[..., Any], make: Callable[[], tuple[Any, ...]], value: Any) -> None:
    eager = call(*make())
    np.testing.assert_array_equal(eager.tolist(), value)
    assert_same(call, *make(), reload=False)
    program = graphc.trace(call, *make())
    assert program(*make()).numpy().tobytes() == eager.numpy().tobytes()


def test_the_mean_of_nothing_warns_at_the_line() -> None:
    def mean(x: Any) -> Any:
        return x.mean(0)

    line = mean.__code__.co_firstlineno + 1
    for function in (mean, graphc.compile(mean)):
        for shape in ((0,), (0, 2)):
            with pytest.warns(EmptyMeanWarning, match="mean: f32.* the mean of nothing is NaN") as caught:
                assert np.isnan(function(graphc.ones(*shape)).numpy()).all()
            assert [(Path(w.filename).name, w.lineno) for w in caught] == [(Path(__file__).name, line)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mean(graphc.ones(0, 0)).shape == (0,)  # no mean was asked for
        with pytest.raises(EmptyMeanWarning):
            mean(graphc.ones(0))
        with pytest.raises(EmptyMeanWarning):
            mean(graphc.ones(0))  # not at the first call alone


def test_layouts_and_kinds_of_arguments() -> None:
    """Compiled once for float32[4]; everything else that comes gives what the function itself gives."""

    def double(x: Any) -> Any:
        return x * 2 + 1

    compiled = graphc.compile(double)
    plain = np.arange(4, dtype=np.float32)
    unaligned = np.frombuffer(b"\0" * 13 + plain.tobytes(), np.uint8)[13:].view(np.float32)
    frozen = plain.copy()
    frozen.flags.writeable = False
    given = [
        graphc.from_numpy(plain), graphc.from_numpy(plain.astype(np.float64)), graphc.from_numpy(plain.reshape(2, 2)),
        graphc.from_numpy(np.arange(8, dtype=np.float32))[::2], graphc.as_tensor(unaligned),
        graphc.from_numpy(frozen), graphc.as_tensor(plain.astype(">f4")), graphc.as_tensor(plain[::-1]),
        graphc.from_numpy(np.array(3.0, np.float32)), graphc.tensor(np.float32(3.0)), graphc.tensor([1, 2]), 3, 2.5,
        True, np.float64(1.5),
    ]  # fmt: skip
    for x in given * 2:
        expected, found = double(x), compiled(x)
        assert type(found) is type(expected)
        if isinstance(expected, graphc.Tensor):
            assert found.dtype is expected.dtype and found.numpy().tobytes() == expected.numpy().tobytes()
        else:
            assert found == expected
