"""Whatever a function does to Python objects from outside, it does at every call of its compiled form, too."""

from __future__ import annotations

import pytest

from tests.effect_matrix import run_case

CASES = 480
PART = 40


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, CASES, PART))
def test_effects_on_objects_from_outside(first: int) -> None:
    told = [run_case(seed) for seed in range(first, first + PART)]
    assert told.count("eager") <= PART // 2, told
