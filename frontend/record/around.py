"""What surrounds a recording that must leave no mark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc.frontend.record import rng
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.op import Array


class Around:
    """What surrounds a recording that must leave no mark: noted tensors, the random state, attributes, gradients,
    optimiser state.
    """

    def __init__(self) -> None:
        self.copies: dict[int, tuple[Tensor, Array]] = {}
        self.generator = rng.state_array()
        self.recorder: Any = None
        self.watchers: list[Any] = []
        self.begun: dict[int, Tensor] = {}  # by their ids, leaves that were given a gradient

    def begin(self, recorder: Any, watcher: Any) -> None:
        """A recording starts."""
        self.recorder = recorder
        self.watchers.append(watcher)

    def note(self, t: Tensor) -> None:
        """Keep the content of `t`, about to be used for the first time."""
        self.copies.setdefault(id(t), (t, t._a.copy()))

    def begin_gradients(self, like: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Give leaves a gradient of -0.0, to which whatever is added is that in every bit, in the layout of another."""
        for leaf, grad in like:
            zero = np.zeros_like(grad._a)
            leaf._grad = fresh(np.negative(zero, out=zero))  # (without out, that of no dimensions would be no array)
            self.begun[id(leaf)] = leaf

    @contextmanager
    def kept(self, leaves: Sequence[Any]) -> Iterator[None]:
        """One recording on arguments that get their content back."""
        for x in leaves:
            if isinstance(x, Tensor):
                self.note(x)
        try:
            yield
        finally:
            self.restore()

    def restore(self) -> None:
        """Put everything back but the state that optimisers made: the second recording needs it."""
        if self.recorder is not None:
            self.recorder.restore()
        for t, content in self.copies.values():
            if t._a.tobytes() != content.tobytes():
                np.copyto(t._a, content)
                t._s.version += 1
                t._v.value += 1
        rng.set_state(self.generator)


@contextmanager
def restoring() -> Iterator[Around]:
    """Afterwards no optimiser has state, and no leaf a gradient, that it did not have before."""
    around = Around()
    try:
        yield around
    finally:
        for leaf in around.begun.values():
            leaf._grad = None
        for watcher in reversed(around.watchers):
            watcher.restore_optimizers()
