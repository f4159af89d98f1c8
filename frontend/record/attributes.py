"""Module attributes written while recording: what they were before, and what they are after."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphc.frontend.mode import using
from graphc.ir.graph import Location

_ABSENT = object()


class Rebindings:
    """The writes of one recording. `written` maps (id of the owner, name) to (owner, last value, line); it holds the
    owner.
    """

    def __init__(self) -> None:
        self.written: dict[tuple[int, str], tuple[Any, Any, Location]] = {}
        self._before: list[tuple[Any, str, Any]] = []  # old value, or _ABSENT
        self._born: dict[int, weakref.ref[Any]] = {}  # modules made inside: theirs are no writes to the outside

    def made_inside(self, module: Any) -> weakref.ref[Any]:
        """Note a module made in this recording."""
        ref = self._born[id(module)] = weakref.ref(module)
        return ref

    def note(self, owner: Any, name: str, old: Any, new: Any, loc: Location) -> None:
        """`owner.name` is about to become `new`."""
        born = self._born.get(id(owner))
        if born is not None and born() is owner:
            return
        fields = owner.__dict__
        stores = ("_parameters", "_buffers", "_modules")
        exists = name in fields or any(name in fields.get(store, ()) for store in stores)
        self._before.append((owner, name, old if exists else _ABSENT))
        self.written[(id(owner), name)] = (owner, new, loc)

    def restore(self) -> None:
        """Put every attribute back to what it was before the call."""
        with using(recorder=None):
            for owner, name, old in reversed(self._before):
                if old is _ABSENT:
                    delattr(owner, name)
                else:
                    setattr(owner, name, old)

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Inside, attributes are what they were before the call."""
        self.restore()
        try:
            yield
        finally:
            with using(recorder=None):
                for (_, name), (owner, new, _) in self.written.items():
                    setattr(owner, name, new)

    def first_value(self, owner: Any, name: str) -> Any:
        """What a written attribute was before the call."""
        return next((old for o, n, old in self._before if o is owner and n == name), None)

    def was_replaced(self, value: Any) -> bool:
        """True for the old value of an attribute written in this recording."""
        return any(old is value for _, _, old in self._before)
