"""One hook for the gradients of several tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.autograd import Handle
from graphc.frontend.backward import at_end
from graphc.frontend.gradients import register_hook
from graphc.frontend.tensor import Tensor

__all__ = ["register_multi_grad_hook"]


class _Handles(Handle):
    """Removes the hooks of all the tensors."""

    def __init__(self, parts: list[Handle]) -> None:
        self.parts = parts

    def remove(self) -> None:
        """Take the hook away; doing it twice is harmless."""
        for part in self.parts:
            part.remove()


def register_multi_grad_hook(tensors: Sequence[Tensor], fn: Callable[[Any], None], *, mode: str = "all") -> Handle:
    """Call `fn` once in each backward pass that reaches some of `tensors`. The handle removes it.

    With mode "all" it is `fn(gradients)`, None for those not reached, at the end of the pass; with "any" it is
    `fn(gradient)` with the first gradient that is known. Raises ArgumentError for another mode, AutogradError where no
    gradient flows to one of the tensors.
    """
    if mode not in ("all", "any"):
        raise ArgumentError(f"register_multi_grad_hook: mode must be 'all' or 'any', got {mode!r}")

    class Pass:  # names the hook in the pass that runs
        pass

    def hook(k: int) -> Callable[[Tensor], None]:
        def note(g: Tensor) -> None:
            grads: list[Tensor | None] = [None] * len(tensors)
            found, first = at_end(Pass, grads, fn if mode == "all" else _nothing)
            found[k] = g
            if first and mode == "any":
                fn(g)

        return note

    return _Handles([register_hook(t, hook(k)) for k, t in enumerate(tensors)])


def _nothing(grads: Any) -> None:
    return None
