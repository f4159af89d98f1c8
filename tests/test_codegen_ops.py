"""Every pointwise, creation and random primitive compiled: the reference values, the same bits on every target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.ir.op import Op
from tests.kernel_runs import host_targets, run
from tests.op_checks import evaluate, lowered_cases
from tests.random_graphs import same_bits
from tests.test_ops_pointwise import PRIMITIVES, lowered

# units in the last place by which functions that are not correctly rounded may miss the rounded exact value
ULP = {"exp": 1, "log": 1, "tanh": 2, "sigmoid": 2, "erf": 1, "sin": 1, "cos": 1, "pow": 1, "randn": 8}


def bits(x: Any) -> Any:
    """The bits, NaNs being one value."""
    return np.where(np.isnan(x), 0, x).view(f"u{x.itemsize}") if x.dtype.kind == "f" else x


def close(found: Any, want: Any, ulp: int) -> bool:
    """Same NaNs and signs, numbers within `ulp` units."""
    with np.errstate(all="ignore"):
        good = (found == want) | (np.abs(found.astype(np.float64) - want) <= ulp * np.spacing(np.abs(want)))
    numbers = ~np.isnan(want)
    same_signs = (np.signbit(found) == np.signbit(want))[numbers].all()
    return bool(np.array_equal(np.isnan(found), np.isnan(want)) and good[numbers].all() and same_signs)


@pytest.mark.parametrize("op", PRIMITIVES, ids=lambda op: op.name)
def test_compiled_op(op: Op) -> None:
    seen = set()
    for sample, arrays in reversed(lowered_cases(op)):  # special values come last
        dtypes = tuple(a.dtype for a in arrays)
        case = (dtypes, arrays[-1].ndim if arrays else 0, str(sample.attrs.get("dtype")))
        if case in seen:
            continue
        seen.add(case)
        (want,) = evaluate(op, arrays, sample.attrs)
        found = [lowered(op, arrays, sample.attrs, lambda k, a, t=t: run(k, a, t)) for t in host_targets()]
        for other in found[1:]:
            assert same_bits(other, found[0])
        if want.dtype.kind == "f":
            assert close(found[0], want, ULP.get(op.name, 0)), f"{op.name} {dtypes} {sample}"
        else:
            assert same_bits(found[0], want), f"{op.name} {dtypes} {sample}"
