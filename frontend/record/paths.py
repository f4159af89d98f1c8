"""Access paths: how a value was reached from the compiled function, kept so that it can be looked up again at every
call.

A PathTable holds a tree of steps that share their prefixes; `evaluate` looks all of them up in one sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import CellType
from typing import Any

from graphc.frontend.record.containers import MISSING, item_of

_MISSING = MISSING


@dataclass(frozen=True, slots=True)
class Step:
    """kind: "arg" (leaf number of the arguments), "held" (the object itself), "cell", "item", "attr", "var" (instance
    dictionary), "grad", "context" (what a ContextVar holds).
    """

    kind: str
    parent: int
    key: Any

    def describe(self, parent: str) -> str:
        """The step as the user would write it."""
        if self.kind == "item":
            return f"{parent}[{self.key!r}]"
        if self.kind in ("attr", "var"):
            return f"{parent}.{self.key}"
        if self.kind == "grad":
            return f"{parent}.grad"
        return parent if self.kind == "cell" else str(self.key)


def _cell(owner: Any, _: Any) -> Any:
    try:
        return owner.cell_contents
    except ValueError:
        return _MISSING


def _attr(owner: Any, key: Any) -> Any:
    return getattr(owner, key, _MISSING)


def _var(owner: Any, key: Any) -> Any:
    found = getattr(owner, "__dict__", None)
    return _MISSING if found is None else found.get(key, _MISSING)


def _grad(owner: Any, _: Any) -> Any:
    return getattr(owner, "_grad", _MISSING)


def in_context(owner: Any, _: Any = None) -> Any:
    """What a ContextVar holds, its own default included."""
    try:
        return owner.get()
    except LookupError:
        return _MISSING


_GET: dict[str, Callable[[Any, Any], Any]] = {
    "cell": _cell, "item": item_of, "attr": _attr, "var": _var, "grad": _grad, "context": in_context,
}  # fmt: skip


class PathTable:
    """Steps with shared prefixes. Step numbers are stable: equal paths get equal numbers."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.held: list[Any] = []  # what "held" steps refer to
        self._numbers: dict[tuple[str, int, Any, type], int] = {}
        self.names: list[str] = []

    def arg(self, number: int, name: str) -> int:
        """The path to argument leaf `number`."""
        return self._add("arg", number, name, name)

    def hold(self, obj: Any, name: str) -> int:
        """The path to an object the trace itself keeps (the function, a module's globals)."""
        for number, other in enumerate(self.held):
            if other is obj:
                return self._add("held", number, name, name)
        self.held.append(obj)
        return self._add("held", len(self.held) - 1, name, name)

    def step(self, kind: str, parent: int, key: Any, name: str | None = None) -> int:
        """The path one step beyond `parent`."""
        label = name if name is not None else Step(kind, parent, key).describe(self.names[parent])
        return self._add(kind, parent, key, label)

    def cell(self, cell: CellType, name: str) -> int:
        """The path to a closure variable."""
        return self.step("cell", self.hold(cell, name), None, name)

    def _add(self, kind: str, parent: int, key: Any, name: str) -> int:
        # for "arg" and "held" the parent field holds their number
        number = self._numbers.get((kind, parent, key, type(key)))
        if number is None:
            number = self._numbers[(kind, parent, key, type(key))] = len(self.steps)
            self.steps.append(Step(kind, parent, key))
            self.names.append(name)
        return number

    def evaluate(self, leaves: Sequence[Any]) -> list[Any]:
        """The value of every step now; `missing()` where a step does not exist any more."""
        values: list[Any] = []
        add = values.append
        for step in self.steps:
            add(self.held[step.parent] if step.kind == "held" else look(step, values, leaves))
        return values


def look(step: Step, values: Sequence[Any], leaves: Sequence[Any]) -> Any:
    """The value of a step (not a "held" one) from those of the steps before it."""
    if step.kind == "arg":
        return leaves[step.parent]
    owner = values[step.parent]
    return _MISSING if owner is _MISSING else _GET[step.kind](owner, step.key)


def missing() -> Any:
    """What stands for a step that leads nowhere."""
    return _MISSING
