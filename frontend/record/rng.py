"""The default generator as a recording sees it: a state array, and a count to move it on by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import RecordingError
from graphc.frontend.random import Mark, default_generator
from graphc.frontend.record.attributes import Rebindings
from graphc.frontend.record.roots import Root
from graphc.frontend.record.trace import Source
from graphc.frontend.record.where import here
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.graph import Location
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


class Replays:
    """The part of a Recorder that goes back in the row of random numbers, for a checkpoint that runs again."""

    randoms: int
    seed: int | None
    refusal: RecordingError | None
    finished: bool
    sources: list[Source]
    source_roots: list[Root]
    rebound: Rebindings
    grads: dict[int, tuple[Tensor, Tensor | None, Location]]
    _random_state: Tensor | None

    if TYPE_CHECKING:

        def refuse(self, error: RecordingError) -> None:
            """End the recording."""

    def _now(self) -> Array:
        start = default_generator.state if self.seed is None else np.array([self.seed, 0], np.int64)
        return start + np.array([0, self.randoms], np.int64)

    def random_mark(self) -> tuple[Array, tuple[Tensor | None, int, int | None] | None]:
        """The state the generator would have now without a recorder, and what this recording knows of it."""
        if self.refusal is not None or self.finished:
            return default_generator.state, None
        return self._now(), (self._random_state, self.randoms, self.seed)

    def changed(self) -> tuple[Any, ...]:
        """What was written until now of all that outlives the call."""
        written = [id(r.value) for r in self.source_roots if r.written is not None]  # the graph holds the values
        attributes = [(key, id(new)) for key, (_, new, _) in self.rebound.written.items()]
        grads = [(key, id(new)) for key, (_, new, _) in self.grads.items()]
        return written, attributes, grads, self.seed

    def follows(self, place: Mark) -> bool:
        """True for a place in the row that this recording, which still runs, has noted."""
        return place.recorder is self and place.recorded is not None and self.refusal is None and not self.finished

    @contextmanager
    def rewound(self, place: Mark) -> Iterator[None]:
        """Random calls inside are numbered from `place` on. A place from before the recording is refused."""
        if not self.follows(place):
            if self.refusal is None and not self.finished:
                self.refuse(
                    RecordingError(
                        f"random numbers drawn before the call are drawn again at {here()} by a checkpoint; move both "
                        "into the function"
                    )
                )
            yield
            return
        after, before = self._now(), (self._random_state, self.randoms, self.seed)
        self._random_state, self.randoms, self.seed = place.recorded
        if self._random_state is None:  # from before the first draw
            self._random_state = next((s.tensor for s in self.sources if s.kind == "random"), None)
        try:
            yield
        finally:
            if self.refusal is None:
                first = self._random_state
                self._random_state, self.randoms, self.seed = before
                self._random_state = first if before[0] is None else before[0]
            else:
                default_generator.state = after
