"""What tensors offer around gradients: `.grad`, `.grad_fn`, hooks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import ArgumentError, AutogradError, DTypeError, ShapeError
from graphc.frontend.autograd import Handle, PostHook, edge_of, watch
from graphc.frontend.backward import backward
from graphc.frontend.given import callable_given
from graphc.frontend.mode import mode
from graphc.frontend.tensor import Tensor, alias_of

__all__ = ["Variable"]


def Variable(data: Tensor, requires_grad: bool = False) -> Tensor:
    """The tensor itself in the spelling of old programs: a leaf over the same memory, or `data` if nothing changes."""
    if not isinstance(data, Tensor):
        raise ArgumentError(f"Variable: data must be a Tensor, got {type(data).__name__}")
    if not requires_grad:
        return data
    return alias_of(data).requires_grad_()


def tensor_backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulate into `.grad` of the leaves the gradient of this tensor; see graphc.autograd.backward."""
    backward(self, gradient, retain_graph, create_graph, inputs=inputs)


def get_grad(self: Tensor) -> Tensor | None:
    """The accumulated gradient, None before the first backward(). Warns where none will ever come: no leaf."""
    if self._grad is None and self._edge is not None and not self._retain:
        warnings.warn(
            f"grad: {self._l.type} is the result of an operation, so backward() leaves its .grad None; call "
            "retain_grad() on it before, or look at the .grad of the leaf it was computed from",
            UserWarning,
            stacklevel=2,
        )
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_grad_read(self)
    return self._grad


def set_grad(self: Tensor, value: Tensor | None) -> None:
    """Replace the gradient. Raises ArgumentError, DTypeError or ShapeError unless it is None or a tensor of this
    type.
    """
    if value is not None:
        if not isinstance(value, Tensor):
            raise ArgumentError(f"grad: assigned grad must be a Tensor or None, got {type(value).__name__}")
        if value is self:
            raise AutogradError("grad: can't assign Variable as its own grad")
        if value.dtype is not self.dtype:
            raise DTypeError(
                f"grad: assigned grad has data of a different type: {value._l.type} for a tensor {self._l.type}"
            )
        if value._l.type is not self._l.type:
            raise ShapeError(
                f"grad: assigned grad has data of a different size: {value._l.type} for a tensor {self._l.type}"
            )
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_grad_write(self, value)  # before the change: the recorder notes what was there
    self._grad = value


def grad_fn(self: Tensor) -> Any:
    """The tape node that made this tensor, None for leaves."""
    edge = edge_of(self)
    return None if edge is None or self._requires_grad else edge[0].opened(edge[1])[0]


def output_nr(self: Tensor) -> int:
    """Which output of its node this tensor is."""
    edge = edge_of(self)
    return 0 if edge is None else edge[0].opened(edge[1])[1]


def retain_grad(self: Tensor) -> None:
    """Keep the gradient of this non-leaf in `.grad`. Raises AutogradError when no gradient flows here."""
    if edge_of(self) is None:
        raise AutogradError("can't retain_grad on Tensor that has requires_grad=False")
    if not self._requires_grad:
        self._retain = True
        watch(self)


def retains_grad(self: Tensor) -> bool:
    """True for a non-leaf whose gradient is kept."""
    return self._retain


def register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> Handle:
    """Call `hook(grad)` when the gradient of this tensor is known; a returned tensor replaces it. The handle removes
    it.

    Raises AutogradError when no gradient flows here.
    """
    if edge_of(self) is None:
        raise AutogradError("cannot register a hook on a tensor that doesn't require gradient")
    callable_given("register_hook", "hook", hook)
    recorder = mode.get().recorder
    if recorder is not None and self._requires_grad:
        recorder.on_metadata(self, "register_hook")
    if self._hooks is None:
        self._hooks = {}
    watch(self)
    return Handle(self._hooks, hook)


def register_post_accumulate_grad_hook(self: Tensor, hook: Callable[[Tensor], None]) -> Handle:
    """Call `hook(tensor)` when backward() has added to the `.grad` of this leaf. The handle removes it.

    Raises AutogradError for a tensor that is no leaf or collects no gradient.
    """
    if not self._requires_grad:
        if edge_of(self) is None:
            raise AutogradError("cannot register a hook on a tensor that doesn't require gradient")
        raise AutogradError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_metadata(self, "register_post_accumulate_grad_hook")
    if self._hooks is None:
        self._hooks = {}
    return Handle(self._hooks, PostHook(hook))
