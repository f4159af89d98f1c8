"""What a lockstep call does where a recorder is told something: mostly nothing, since Python really runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc.frontend.record import rng
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.op import Array, Attrs, Op
from graphc.ir.types import TensorType


class Hooks:
    """The part of a Lockstep that a Recorder has, too."""

    active: bool  # operations are compared
    over: bool  # they no longer are, or the call has ended
    settings: list[tuple[Any, ...]] | None  # (group, key, tensor): numbers an optimiser asked for in a region
    randoms: list[Tensor] | None  # random states used in a region
    values_used: bool  # our own Python looked at values from outside
    counted: tuple[Any, ...] = ()  # sizes that depend on values are numbers here
    _paused: int

    def recording(self) -> bool:
        """No graph is made."""
        return False

    def touch(self) -> None:
        """Compute all there is to compute."""
        raise NotImplementedError

    def on_op(self, op: Op, operands: tuple[Tensor, ...], attrs: Attrs, outputs: tuple[Tensor, ...]) -> None:
        """Ran eagerly."""

    def on_tape(self, operands: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        """Ran eagerly."""

    def on_write(self, target: Tensor, value: Tensor) -> None:
        """Runs eagerly now: what was noted before reads the old elements."""
        self.touch()

    def on_host_data(self, tensor: Tensor, source: Any) -> None:
        """New memory from outside."""

    def on_random(self) -> tuple[Tensor, int]:
        """As without a recorder."""
        state = rng.state_tensor()
        rng.advance(1, None)
        if self.randoms is not None:
            self.randoms.append(state)
        return state, 0

    def random_mark(self) -> tuple[Array, None]:
        """As without a recorder."""
        return rng.state_array(), None

    def follows(self, place: Any) -> bool:
        """The generator itself goes back."""
        return False

    def changed(self) -> None:
        """Python really runs."""

    @contextmanager
    def rewound(self, place: Any) -> Iterator[None]:
        """The generator itself goes back."""
        yield

    def on_seed(self, seed: int) -> None:
        """As without a recorder."""

    def on_item(self, tensor: Tensor, number: Any) -> Any:
        """A plain number."""
        return number

    def on_bool(self, tensor: Tensor, value: bool) -> None:
        """A plain branch."""

    def on_int(self, tensor: Tensor, number: int) -> None:
        """A plain number."""

    def on_size(self, count: Tensor) -> int:
        """A size that depends on values is a number here."""
        return int(count._a)

    def on_range(self, index: Tensor, low: float | None, high: float, ignored: int | None = None) -> None:
        """Checked at each call."""
        self.values_used = True

    def on_failure(self, tensor: Tensor) -> None:
        """Python sees the error."""

    def on_escape(self, tensor: Tensor, what: str, instead: str | None = None) -> None:
        """Memory is handed out: what was noted until now must not see what Python writes there."""
        if self.active and not self._paused:
            self.touch()

    def on_new_module(self, module: Any) -> None:
        """Python's own affair."""

    def on_show(self, tensor: Tensor) -> None:
        """Shown at each call."""

    def on_text(self, tensor: Tensor) -> None:
        """Shown at each call."""

    def on_grad_read(self, leaf: Tensor, sums: bool = False) -> None:
        """Python's own affair."""

    def on_grad_write(self, leaf: Tensor, grad: Tensor | None) -> None:
        """Python's own affair."""

    def on_metadata(self, tensor: Tensor, what: str) -> None:
        """A tensor may get other memory: finish with the old."""
        if self.active and not self._paused:
            self.touch()

    def on_ambient(self, what: str) -> None:
        """Python's own affair."""

    def on_attribute(self, owner: Any, name: str, old: Any, new: Any) -> None:
        """Python's own affair."""

    def on_setting(self, owner: Any, group: int, key: str | tuple[str, int], value: float) -> Tensor:
        """A number that may be another one at the next call."""
        t = fresh(np.asarray(value, np.float64))
        if self.settings is not None:
            self.settings.append((group, key, t))
        return t

    def symbolic_type(self, tensor: Tensor) -> TensorType:
        """No sizes are named."""
        return tensor._l.type

    def module_enter(self, module: Any) -> None:
        """Nothing to note."""

    def module_exit(self, module: Any) -> None:
        """Nothing to note."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Nothing to note."""
        yield

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing inside is compared; it runs at once."""
        self._paused += 1
        self.active = False
        try:
            yield
        finally:
            self._paused -= 1
            self.active = not self._paused and not self.over
