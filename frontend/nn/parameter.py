"""Parameter: a tensor that a Module registers as its own."""

from __future__ import annotations

from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.tensor import Tensor, alias_of

__all__ = ["Parameter"]


class Parameter(Tensor):
    """A leaf tensor that becomes one of a Module's parameters when assigned to it. Shares memory with `data`."""

    __slots__ = ()

    def __new__(cls, data: Tensor, requires_grad: bool = True) -> Parameter:
        if not isinstance(data, Tensor):
            raise ArgumentError(f"Parameter: expected a Tensor, got {type(data).__name__}")
        source = alias_of(data)
        made: Parameter = object.__new__(cls)
        for slot in Tensor.__slots__:
            if slot != "__weakref__":
                setattr(made, slot, getattr(source, slot))
        made._history = 0
        made.requires_grad_(requires_grad)
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return "Parameter containing:\n" + Tensor.__repr__(self)


Parameter.__module__ = "graphc.nn"
