"""Random numbers: a counter-based generator, so that a recording and eager execution draw the same ones.

A generator is a seed and a count of calls. Each call that draws numbers takes one count; inside a recording the count
of earlier calls is added to the state tensor the recorder gives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from graphc.errors import ArgumentError
from graphc.frontend.mode import mode
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.op import Array
from graphc.ir.types import int64

__all__ = [
    "Generator",
    "default_generator",
    "fork_rng",
    "get_rng_state",
    "initial_seed",
    "manual_seed",
    "seed",
    "set_rng_state",
]


class Generator:
    """A source of random numbers. `state` is the int64 pair (seed, number of calls made)."""

    def __init__(self, device: Any = None) -> None:
        from graphc.frontend.device import check_device

        check_device("Generator", device)
        self.state = np.zeros(2, np.int64)

    def manual_seed(self, seed: int) -> Generator:
        """Start again from `seed`; returns itself. Raises ArgumentError unless it is an int below 2**64."""
        number = _seed(seed)
        recorder = mode.get().recorder
        if recorder is not None and self is default_generator:
            recorder.on_seed(number)
        elif recorder is not None:
            recorder.on_escape(fresh(self.state), "manual_seed() of a Generator of its own")
        self.state = np.array([number, 0], np.int64)
        return self

    def initial_seed(self) -> int:
        """The seed."""
        recorder = mode.get().recorder
        if recorder is not None:
            recorder.on_escape(fresh(self.state), "initial_seed()")
        return int(self.state[0]) % 2**64

    def seed(self) -> int:
        """Start again from a seed of the operating system; returns it."""
        import secrets

        number = secrets.randbits(63)
        self.manual_seed(number)
        return number

    def get_state(self) -> Tensor:
        """(seed, number of calls) as an int64 tensor."""
        recorder = mode.get().recorder
        if recorder is not None:
            recorder.on_escape(fresh(self.state), "get_rng_state()")  # which may count the calls made so far
        return fresh(self.state.copy())

    def set_state(self, new_state: Tensor) -> Generator:
        """Go back to a state of get_state(). Raises ArgumentError for another kind of tensor."""
        if not isinstance(new_state, Tensor) or new_state.dtype is not int64 or new_state._l.shape != (2,):
            raise ArgumentError("set_rng_state: expected the int64 tensor of two elements that get_rng_state() gives")
        recorder = mode.get().recorder
        if recorder is not None:
            recorder.on_escape(new_state, "set_rng_state()")
        self.state = new_state._a.copy()
        return self

    def draw(self) -> tuple[Tensor, int]:
        """The state tensor and offset for one call, which this counts."""
        recorder = mode.get().recorder
        if recorder is not None and self is default_generator:
            return recorder.on_random()
        state = fresh(self.state)
        if recorder is not None:
            recorder.on_escape(state, "a Generator of its own (only the default one can be followed)")
        self.state = self.state + np.array([0, 1], np.int64)
        return state, 0


def _seed(seed: int) -> int:
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise ArgumentError(f"manual_seed: the seed must be an int, got {type(seed).__name__}")
    number = seed.__index__()
    if not -(2**63) <= number < 2**64:
        raise ArgumentError(f"manual_seed: the seed must fit in 64 bits, got {number}")
    return number - 2**64 if number >= 2**63 else number


default_generator = Generator()


_local: ContextVar[Generator | None] = ContextVar("graphc_local_generator", default=None)


@contextmanager
def use_generator(generator: Generator) -> Iterator[None]:
    """Inside, in this context alone, numbers nobody gave a generator for are drawn from this one."""
    token = _local.set(generator)
    try:
        yield
    finally:
        _local.reset(token)


def draw(generator: Generator | None) -> tuple[Tensor, int]:
    """State and offset for one call from `generator` (the default one for None)."""
    return (generator or _local.get() or default_generator).draw()


def manual_seed(seed: int) -> Generator:
    """Seed the default generator; returns it. Raises ArgumentError unless `seed` is an int below 2**64."""
    return default_generator.manual_seed(seed)


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


def seed() -> int:
    """Seed the default generator from the operating system; returns the seed."""
    return default_generator.seed()


def get_rng_state() -> Tensor:
    """The state of the default generator."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Put the default generator back to a state of get_rng_state()."""
    default_generator.set_state(new_state)


class Mark(NamedTuple):
    """A place in the row of random numbers: the generator's state there and, in a recording, what it knows of it."""

    generator: Generator
    state: Array
    recorder: Any = None
    recorded: Any = None


def mark() -> Mark:
    """Where the row of random numbers is now."""
    generator = _local.get() or default_generator
    recorder = mode.get().recorder
    if recorder is None or generator is not default_generator:
        return Mark(generator, generator.state)
    state, recorded = recorder.random_mark()
    return Mark(generator, state, recorder, recorded)


@contextmanager
def rewound(place: Mark) -> Iterator[None]:
    """Inside, random numbers are drawn from `place` on; afterwards the row goes on where it was."""
    recorder = mode.get().recorder
    with contextlib.nullcontext() if recorder is None else recorder.rewound(place):
        generator, before = place.generator, place.generator.state
        if recorder is not None and recorder.follows(place):
            yield
            return
        generator.state = place.state
        try:
            yield
        finally:
            generator.state = before


@contextmanager
def fork_rng() -> Iterator[None]:
    """The default generator continues after the body as if the body had drawn nothing."""
    state = default_generator.get_state()
    try:
        yield
    finally:
        default_generator.set_state(state)


Generator.__module__ = "graphc"
