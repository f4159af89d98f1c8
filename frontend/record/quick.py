"""The guard check of a call like the last one, in a few C loops.

After a full check succeeded, every object on an access path is known. As long as each lookup (dictionary entry,
attribute, closure cell) gives the very same object again and no container changed its keys or length, all guards hold
as they did. Anything else means a full check; it takes a new picture when it succeeds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from contextvars import ContextVar
from itertools import chain
from operator import attrgetter, getitem, is_
from types import MappingProxyType
from typing import Any

import numpy as np

from graphc.frontend.record.guards import holds
from graphc.frontend.record.paths import look, missing
from graphc.frontend.record.trace import Guard, Trace
from graphc.frontend.tensor import Tensor
from graphc.ir.op import Array

_state = attrgetter("_l", "_requires_grad", "_edge", "_gbase", "_hooks")
_array = attrgetter("_a")
_contents = attrgetter("cell_contents")
_fields = attrgetter("__dict__")
_CHANGED = (KeyError, IndexError, AttributeError, ValueError, TypeError)
_IMMUTABLE = (tuple, frozenset)


def _variable(variable: ContextVar[Any]) -> Any:
    return variable.get(missing())


class Picture:
    """What a full check of `trace` found: `values` by path step, and the tensors behind the sources."""

    def __init__(self, trace: Trace, values: Sequence[Any], tensors: Sequence[Tensor | None]) -> None:
        self.trace = trace
        self.values = list(values)
        self.changing = _changing(trace, values)
        self.late: list[Guard] = []  # guards that are checked one by one
        self.owners: list[Any] = []  # lookups by key
        self.keys: list[Any] = []
        self.found: list[Any] = []
        self.attr_owners: list[Any] = []
        self.attr_names: list[str] = []
        self.attr_found: list[Any] = []
        self.cells: list[Any] = []
        self.cell_found: list[Any] = []
        self.variables: list[Any] = []  # of the context
        self.held_there: list[Any] = []
        self.objects: dict[int, Any] = {}  # whose __dict__ is looked into
        self.ordered: list[Any] = []  # containers whose keys and order matter
        self.sized: list[Any] = []  # lists: their items are looked up one by one
        self.empties: list[Any] = []
        self.leaves: list[tuple[int, Any]] = []  # argument leaves known by identity
        self.bare: list[Any] = []  # tensors guarded to have no .grad
        for step in sorted(_needed(trace) - self.changing):
            self._lookup(step)
        for guard in trace.guards:
            self._guard(guard)
        self._close()
        self._sources(tensors)

    def _lookup(self, number: int) -> None:
        step = self.trace.table.steps[number]
        value = self.values[number]
        if step.kind == "held":
            return
        if step.kind == "arg":
            self.leaves.append((step.parent, value))
            return
        owner = self.values[step.parent]
        if step.kind == "cell":
            self.cells.append(owner)
            self.cell_found.append(value)
        elif step.kind == "context":
            self.variables.append(owner)
            self.held_there.append(value)
        elif step.kind in ("attr", "grad"):
            self.attr_owners.append(owner)
            self.attr_names.append("_grad" if step.kind == "grad" else step.key)
            self.attr_found.append(value)
        else:
            if step.kind == "var":
                self.objects[id(owner)] = owner
                owner = owner.__dict__
            self.owners.append(owner)
            self.keys.append(step.key)
            self.found.append(value)

    def _guard(self, guard: Guard) -> None:
        value = self.values[guard.step]
        if guard.step in self.changing or guard.kind in ("array", "bytes"):
            self.late.append(guard)
        elif guard.kind == "fields":
            self.objects[id(value)] = value
            self.ordered.append(value.__dict__)
        elif guard.kind == "keys" and not isinstance(value, _IMMUTABLE):
            (self.ordered if isinstance(value, (dict, MappingProxyType)) else self.sized).append(value)
        elif guard.kind == "absent":
            self.sized.append(value)
        elif guard.kind == "flat" and not isinstance(value, _IMMUTABLE):
            if value:
                self.late.append(guard)
            else:
                self.empties.append(value)
        elif guard.kind == "grad":
            if guard.expected:
                self.bare.append(value)
            else:
                self.late.append(guard)

    def _close(self) -> None:
        self.holders = list(self.objects.values())
        self.dicts = list(map(_fields, self.holders))
        self.sized += self.ordered
        self.lengths = list(map(len, self.sized))
        self.order = list(chain.from_iterable(self.ordered))
        kept = _needed(self.trace) - self.changing
        self.values = [v if k in kept else None for k, v in enumerate(self.values)]  # nothing of one call is kept

    def _sources(self, tensors: Sequence[Tensor | None]) -> None:
        sources = self.trace.sources
        self.fixed = [k for k, s in enumerate(sources) if s.kind == "path" and s.number not in self.changing]
        self.moving = [k for k in range(len(sources)) if k not in set(self.fixed)]
        self.borrowed = [k for k in self.moving if sources[k].kind in ("arg", "path")]  # the rest are arrays of our own
        self.tensors: list[Tensor | None] = [t if k in set(self.fixed) else None for k, t in enumerate(tensors)]
        self.known = [t for t in self.tensors if t is not None]
        self.states = list(map(_state, self.known))
        self.arrays: list[Array] = []  # of the known tensors, when they were last found not to overlap
        self.written = {e.number for e in self.trace.effects if e.kind == "state"}
        self.starts: list[int] = []
        self.ends: list[int] = []

    def look(self, leaves: Sequence[Any]) -> list[Any] | None:
        """The value of every path step now; None when something changed."""
        try:
            if not self._same(leaves):
                return None
        except _CHANGED:
            return None
        values = self.values.copy()
        steps = self.trace.table.steps
        for number in sorted(self.changing):
            values[number] = look(steps[number], values, leaves)
        return values if all(holds(g, values[g.step]) for g in self.late) else None

    def _same(self, leaves: Sequence[Any]) -> bool:
        return (
            all(map(is_, map(_fields, self.holders), self.dicts))
            and all(map(is_, map(getitem, self.owners, self.keys), self.found))
            and all(map(is_, map(getattr, self.attr_owners, self.attr_names), self.attr_found))
            and all(map(is_, map(_contents, self.cells), self.cell_found))
            and (not self.variables or all(map(is_, map(_variable, self.variables), self.held_there)))
            and list(map(len, self.sized)) == self.lengths
            and all(map(is_, chain.from_iterable(self.ordered), self.order))
            and not any(map(len, self.empties))
            and all(leaves[k] is x for k, x in self.leaves)
            and all(t._grad is None for t in self.bare)
            and list(map(_state, self.known)) == self.states
        )

    # ---- memory

    def apart(self, arrays: Sequence[Array]) -> bool:
        """True when it is certain that no written memory is shared; `arrays` are those of the sources."""
        if any(k in self.written for k in self.moving):
            return False
        known = list(map(_array, self.known))
        if len(known) != len(self.arrays) or not all(map(is_, known, self.arrays)):
            return False
        return all(self._clear(arrays[k]) for k in self.borrowed)

    def _clear(self, array: Array) -> bool:
        if not self.starts or not array.nbytes:
            return True
        low, high = bounds(array)
        k = bisect_left(self.ends, low + 1)
        return k == len(self.starts) or self.starts[k] >= high

    def note_apart(self, arrays: Sequence[Array]) -> None:
        """A full check found that no written memory is shared."""
        self.arrays = list(map(_array, self.known))
        spans = sorted(bounds(arrays[k]) for k in self.written if arrays[k].nbytes)
        self.starts = [low for low, _ in spans]
        self.ends = [high for _, high in spans]


def bounds(array: Array) -> tuple[int, int]:
    """First address of the elements and the one behind the last."""
    if array.flags.c_contiguous:
        start: int = array.__array_interface__["data"][0]
        return start, start + array.nbytes
    low, high = np.lib.array_utils.byte_bounds(array)
    return int(low), int(high)


def _needed(trace: Trace) -> set[int]:
    """Steps that guards, sources or effects use, and those on the way."""
    steps = trace.table.steps
    todo = [g.step for g in trace.guards]
    todo += [s.number for s in trace.sources if s.kind in ("path", "setting")]
    todo += [e.number for e in trace.effects if e.kind != "state"]
    needed: set[int] = set()
    while todo:
        number = todo.pop()
        if number not in needed:
            needed.add(number)
            if steps[number].kind not in ("arg", "held"):
                todo.append(steps[number].parent)
    return needed


def _changing(trace: Trace, values: Sequence[Any]) -> set[int]:
    """Needed steps whose value may be another one at each call, and what is reached through them."""
    steps = trace.table.steps
    found = {s.number for s in trace.sources if s.kind == "setting"} | trace.moved
    for number in sorted(_needed(trace)):
        step = steps[number]
        if (step.kind == "arg" and isinstance(values[number], (Tensor, int, float, str, bytes))) or (
            step.kind not in ("arg", "held") and step.parent in found
        ):
            found.add(number)
    return found
