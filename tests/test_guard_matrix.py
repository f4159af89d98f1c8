"""Whatever a compiled function reads and wherever it finds it: each call gives what the function gives."""

from __future__ import annotations

import pytest

from tests.guard_matrix import run_case

CASES = 600
PART = 50


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, CASES, PART))
def test_values_that_are_replaced_or_changed(first: int) -> None:
    told = [run_case(seed) for seed in range(first, first + PART)]
    assert told.count("hit") >= PART // 2, told  # cases that are refused prove nothing
