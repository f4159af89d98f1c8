"""Parameter: a tensor that a Module registers as its own."""

from __future__ import annotations

from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.mode import mode
from graphc.frontend.printing import show
from graphc.frontend.promote import convert
from graphc.frontend.tensor import Tensor, alias_of
from graphc.ir.types import DType

__all__ = ["Parameter"]


class Parameter(Tensor):
    """A leaf tensor that becomes one of a Module's parameters when assigned to it. Shares memory with `data`."""

    def __new__(cls, data: Tensor, requires_grad: bool = True) -> Parameter:
        if not isinstance(data, Tensor):
            raise ArgumentError(f"Parameter: expected a Tensor, got {type(data).__name__}")
        source = alias_of(data)
        made: Parameter = object.__new__(cls)
        made.__dict__.update(source.__dict__, _a=source._a)  # a value that waits to be computed has no array of its own
        made._history = 0
        made.requires_grad_(requires_grad)
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return "Parameter containing:\n" + show(self)


def retype(p: Tensor, dtype: DType) -> None:
    """Let `p` and its gradient hold their values in another dtype, in new memory."""
    recorder = mode.get().recorder
    if recorder is not None and p.dtype is not dtype:
        recorder.on_metadata(p, "a change of dtype")
    source = convert(p.detach(), dtype)
    p._a, p._l, p._s, p._chain = source._a, source._l, source._s, source._chain
    p._gbase, p._gskip, p._memo, p._history = None, 0, None, source._s.history
    if p._grad is not None:
        p._grad = convert(p._grad.detach(), dtype)


Parameter.__module__ = "graphc.nn"
