"""`.grad` of tensors from outside: what a recording finds there and leaves there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.frontend.record.where import here
from graphc.frontend.tensor import Tensor
from graphc.ir.graph import Location
from graphc.ir.types import TensorType


class GradPlaces:
    """Part of a Recorder. All of the dicts hold the tensors whose ids are their keys."""

    grads: dict[int, tuple[Tensor, Tensor | None, Location]]  # leaf, its new .grad, line

    def __init__(self) -> None:
        self.grads = {}
        self.grad_reads: dict[int, tuple[Tensor, bool, Location]] = {}  # leaf, whether it had none, line
        self.grad_sums: set[int] = set()  # of those read, which backward() added to before anything else saw them
        self.old_grads: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.grad_begun: set[int] = set()  # leaves with a gradient that trace() gave them
        self.grad_types: dict[int, TensorType | None] = {}  # named types of gradients that arguments have

    if TYPE_CHECKING:

        def recording(self) -> bool:
            """True while what happens goes into the graph."""

        def _is_mine(self, t: Tensor) -> bool:
            """True for what was made inside."""

    def on_grad_read(self, leaf: Tensor, sums: bool = False) -> None:
        """Looking at `.grad` before writing it is a condition. With `sums` backward() adds to it, or begins it."""
        if not self.recording() or id(leaf) in self.grads or id(leaf) in self.grad_reads or self._is_mine(leaf):
            return
        self.grad_reads[id(leaf)] = (leaf, leaf._grad is None, here())
        if sums:
            self.grad_sums.add(id(leaf))

    def on_grad_write(self, leaf: Tensor, grad: Tensor | None) -> None:
        """`.grad` is a place we own: its last value is a state output."""
        if self.recording() and not self._is_mine(leaf):
            self.old_grads.setdefault(id(leaf), (leaf, leaf._grad))
            self.grads[id(leaf)] = (leaf, grad, here())
