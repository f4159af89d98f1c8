"""What random programs found: each was a difference between eager and compiled code, or an error that was none."""

from __future__ import annotations

from typing import Any

import pytest

import graphc
from graphc.testing import assert_same


def x3() -> graphc.Tensor:
    return graphc.tensor([0.5, -1.0, 2.0])


def test_dtype_argument_beside_a_float() -> None:
    """A dtype argument was taken for a container of fields, which ended in a TypeError beside a float."""

    def f(x: Any, s: float, dt: Any) -> Any:
        return x.to(dt) * s, dt

    compiled = graphc.compile(f, fullgraph=True)
    for dt in (graphc.float64, graphc.float16, graphc.float64):
        for s in (0.5, 1.5, 2.5):
            y, same = compiled(x3(), s, dt)
            assert y.dtype is dt and same is dt
            assert y.tolist() == f(x3(), s, dt)[0].tolist()
    assert compiled.stats.recordings == 4 and compiled.stats.hits == 5
    with pytest.raises(graphc.errors.GraphcError, match="the argument dt is a DType"):
        graphc.trace(f, x3(), 0.5, graphc.float64)
