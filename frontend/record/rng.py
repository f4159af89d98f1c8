"""The default generator as a recording sees it: a state array, and a count to move it on by."""

from __future__ import annotations

import numpy as np

from graphc.frontend.random import default_generator
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.op import Array


def state_array() -> Array:
    """(seed, number of calls made), int64."""
    return default_generator.state


def state_tensor() -> Tensor:
    """The state as a tensor of its own."""
    return fresh(default_generator.state.copy())


def set_state(state: Array) -> None:
    """Go back to an earlier state."""
    default_generator.state = state


def advance(calls: int, seed: int | None) -> None:
    """Move on by `calls` random calls, counted from `seed` if one was set."""
    start = default_generator.state if seed is None else np.array([seed, 0], np.int64)
    default_generator.state = start + np.array([0, calls], np.int64)
