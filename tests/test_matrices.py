"""Random small functions against their compiled forms: what they read, and what they do to objects from outside."""

from __future__ import annotations

import pytest

from tests import effect_matrix, guard_matrix

VALUES, VALUES_PART = 600, 50
EFFECTS, EFFECTS_PART = 480, 40


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, VALUES, VALUES_PART))
def test_values_that_are_replaced_or_changed(first: int) -> None:
    """Whatever a function reads and wherever it finds it, each call gives what the function gives."""
    told = [guard_matrix.run_case(seed) for seed in range(first, first + VALUES_PART)]
    assert told.count("hit") >= VALUES_PART // 2, told  # cases that are refused prove nothing


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, EFFECTS, EFFECTS_PART))
def test_effects_on_objects_from_outside(first: int) -> None:
    """Whatever a function does to them, it does at every call of its compiled form, too."""
    told = [effect_matrix.run_case(seed) for seed in range(first, first + EFFECTS_PART)]
    assert told.count("eager") <= EFFECTS_PART // 2, told
