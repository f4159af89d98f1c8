"""Gradients, first and second order, of functions that are more than one operation, against differences."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from gradient_checks import check_compiled, check_first, check_second
from gradient_functions import CASES, LAYERS, Made

COMPILED = [name for name in sorted(CASES) if name not in LAYERS][::6]


def made(name: str) -> Made:
    return CASES[name](np.random.default_rng(zlib.crc32(name.encode())))


@pytest.mark.parametrize("name", sorted(CASES))
def test_first_and_second_order(name: str) -> None:
    f, arrays = made(name)
    check_first(f, arrays, name)
    check_second(f, arrays, name)


@pytest.mark.parametrize("name", COMPILED)
def test_second_order_compiled(name: str) -> None:
    check_compiled(*made(name), name)
