"""The front door of a compiled function: a call with plain arguments like the last one's, known without a signature.

What it tests of each argument is what `kinds.signature` has of it. Containers, tensors with a history and arguments
by name take the usual way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from graphc.frontend.mode import Mode, mode
from graphc.frontend.promote import get_default_dtype
from graphc.frontend.record.trace import Trace
from graphc.frontend.record.tree import LEAF, TreeSpec
from graphc.frontend.tensor import Tensor
from graphc.ir.types import Layout

_VALUES = (bool, int, str, bytes, type(None))
MAX_TENSORS = 8  # pairs of them are compared


class Door:
    """The arguments of a call that `trace` answered."""

    __slots__ = ("_count", "_dtype", "_floats", "_objects", "_pairs", "_tensors", "_values", "grad", "repeat")

    def __init__(self, trace: Trace, leaves: Sequence[Any]) -> None:
        self.repeat = trace.repeat
        self.grad = mode.get().grad
        self._dtype = get_default_dtype()
        self._count = len(leaves)
        self._tensors: list[tuple[int, type[Any], Layout, bool]] = []
        self._floats: list[int] = []
        self._values: list[tuple[int, type, Any]] = []
        self._objects: list[tuple[int, Any]] = []
        for k, x in enumerate(leaves):
            if isinstance(x, Tensor):
                self._tensors.append((k, type(x), x._l, x._requires_grad))
            elif type(x) is float:
                self._floats.append(k)
            elif type(x) in _VALUES:
                self._values.append((k, type(x), x))
            else:
                self._objects.append((k, x))
        self._pairs = list(combinations([k for k, *_ in self._tensors], 2))

    def fits(self, args: Any, here: Mode) -> bool:
        """True when the signature of a call with these arguments (a tuple) is that of the last one."""
        if len(args) != self._count or here.grad is not self.grad or get_default_dtype() is not self._dtype:
            return False
        for k, kind, layout, needs in self._tensors:
            t = args[k]
            if (
                type(t) is not kind
                or t._l is not layout
                or t._requires_grad is not needs
                or t._edge is not None
                or t._gbase is not None
                or t._hooks
            ):
                return False
        for i, j in self._pairs:
            if args[i]._s is args[j]._s:
                return False
        for k in self._floats:
            if type(args[k]) is not float:
                return False
        for k, kind, value in self._values:
            if type(args[k]) is not kind or args[k] != value:
                return False
        return all(args[k] is x for k, x in self._objects) if self._objects else True


def door(trace: Trace, leaves: Sequence[Any], spec: TreeSpec, held: Sequence[Any], exact: bool) -> Door | None:
    """A door for calls like this one, which `trace` answered; None where it would not see every difference."""
    given, named = spec.children
    if trace.repeat is None or named.children or any(child is not LEAF for child in given.children):
        return None
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    if len(tensors) > MAX_TENSORS or len({id(t._s) for t in tensors}) < len(tensors):
        return None
    if any(t._edge is not None or t._gbase is not None or t._hooks for t in tensors):
        return None
    for x in leaves:  # others are known by their content
        if not isinstance(x, (Tensor, float)) and type(x) not in _VALUES and not any(x is h for h in held):
            return None
    plain = all(type(x) is float and not exact for x in leaves if isinstance(x, float))
    return Door(trace, leaves) if plain else None
