"""The guard check of a call like the last one.

After a full check succeeded, every object on an access path is known. As long as each lookup (dictionary entry,
attribute, closure cell) gives the very same object again and no container changed its keys or length, all guards hold
as they did: see lookups.py. Anything else means a full check; it takes a new picture when it succeeds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter, is_
from types import MappingProxyType
from typing import Any

import numpy as np

from graphc.frontend.record.guards import holds
from graphc.frontend.record.lookups import Lookups, Watched, watched
from graphc.frontend.record.paths import look
from graphc.frontend.record.trace import Guard, Trace
from graphc.frontend.record.where import is_user_class
from graphc.frontend.tensor import Tensor
from graphc.ir.op import Array

_array = attrgetter("_a")
_IMMUTABLE = (tuple, frozenset)
MAX_WAIT = 32  # calls between attempts to put look-ups in words


class Picture:
    """What a full check of `trace` found: `values` by path step, and the tensors behind the sources."""

    def __init__(self, trace: Trace, values: Sequence[Any], tensors: Sequence[Tensor | None]) -> None:
        self.trace = trace
        self.values = list(values)
        self.changing = _changing(trace, values)
        self.order = sorted(self.changing)
        self.late: list[Guard] = []  # guards that are checked one by one
        self.bystanders: list[Tensor] = []  # tensors that are no inputs
        self.leaves: list[tuple[int, Any]] = []  # argument leaves known by identity
        self.objects: dict[int, Any] = {}  # whose __dict__ is looked into
        self.lookups = Lookups()
        for step in sorted(_needed(trace) - self.changing):
            self._lookup(step)
        for guard in trace.guards:
            self._guard(guard)
        self.lookups.dicts = [(x, x.__dict__) for x in self.objects.values()]
        self._forget()
        self._sources(tensors)
        self.given = [s.number for s in trace.sources if s.kind == "arg"]
        self.states = {id(x): x for n in trace.distinct if n not in self.changing for x in (self.values[n],)}
        self.wandering = [n for n in trace.distinct if n in self.changing]
        self.lookups.close()
        self.watched: Watched | None = None  # the same in words
        self._busy: dict[int, Any] = {}  # what Python is asked for
        self._once: dict[int, Any] = {}  # what changed before
        self._age, self._wait, self._patience = 0, 0, 1  # calls since, and until, a new attempt

    def _lookup(self, number: int) -> None:
        step = self.trace.table.steps[number]
        value = self.values[number]
        found = self.lookups
        if step.kind == "held":
            return
        if step.kind == "arg":
            self.leaves.append((step.parent, value))
            return
        owner = self.values[step.parent]
        if step.kind == "cell":
            found.cells.append((owner, value))
        elif step.kind == "context":
            found.variables.append((owner, value))
        elif step.kind in ("attr", "grad"):
            found.attributes.append((owner, "_grad" if step.kind == "grad" else step.key, value))
        else:
            if step.kind == "var":
                self.objects[id(owner)] = owner
                owner = owner.__dict__
            found.items.append((owner, step.key, value))

    def _guard(self, guard: Guard) -> None:
        value = self.values[guard.step]
        found = self.lookups
        if guard.step in self.changing or guard.kind in ("array", "bytes", "token"):
            self.late.append(guard)
        elif guard.kind == "type":
            found.kinds.append((value, guard.expected))
        elif guard.kind == "tensor":
            self.bystanders.append(value)
        elif guard.kind == "fields":
            self.objects[id(value)] = value
            found.ordered.append(value.__dict__)
        elif guard.kind == "keys" and is_user_class(type(value)):
            self.late.append(guard)
        elif guard.kind == "keys" and not isinstance(value, _IMMUTABLE):
            (found.ordered if isinstance(value, (dict, MappingProxyType)) else found.sized).append(value)
        elif guard.kind == "absent":
            found.absent += [(value, key) for key in guard.expected]
        elif guard.kind == "flat" and not isinstance(value, _IMMUTABLE):
            if value:
                self.late.append(guard)
            else:
                found.empties.append(value)
        elif guard.kind == "grad":
            if guard.expected:
                found.bare.append(value)
            else:
                self.late.append(guard)

    def _forget(self) -> None:
        """Keep nothing of one call."""
        kept = _needed(self.trace) - self.changing
        self.values = [v if k in kept else None for k, v in enumerate(self.values)]

    def _sources(self, tensors: Sequence[Tensor | None]) -> None:
        sources = self.trace.sources
        self.fixed = [k for k, s in enumerate(sources) if s.kind == "path" and s.number not in self.changing]
        fixed = set(self.fixed)
        self.moving = [k for k in range(len(sources)) if k not in fixed]
        self.borrowed = [k for k in self.moving if sources[k].kind in ("arg", "path")]  # the rest are arrays of our own
        self.tensors: list[Tensor | None] = [t if k in fixed else None for k, t in enumerate(tensors)]
        self.known = [t for t in self.tensors if t is not None]
        self.lookups.tensors = [*self.known, *self.bystanders]
        self.arrays: list[Array] = []  # of the known tensors, when they were last found not to overlap
        self.written = {e.number for e in self.trace.effects if e.kind == "state"}
        self.starts: list[int] = []
        self.ends: list[int] = []

    def look(self, leaves: Sequence[Any]) -> list[Any] | None:
        """The value of every path step now; None when something changed."""
        if not all(leaves[k] is x for k, x in self.leaves) or not self.same():
            return None
        values = self.values.copy()
        return values if self.follow(leaves, values) and self.distinct(leaves, values) else None

    def follow(self, leaves: Sequence[Any], values: list[Any]) -> bool:
        """Look up what may be another value at each call, into `values`; False when a condition on it fails."""
        steps = self.trace.table.steps
        for number in self.order:
            values[number] = look(steps[number], values, leaves)
        return all(holds(g, values[g.step]) for g in self.late) and all(r.holds(values) for r in self.trace.relations)

    def distinct(self, leaves: Sequence[Any], values: Sequence[Any]) -> bool:
        """True when no argument is one of the states."""
        for k in self.given:
            if id(leaves[k]) in self.states:
                return False
        return not any(values[n] is leaves[k] for n in self.wandering for k in self.given)

    def same(self) -> bool:
        """True when every look-up that does not change from call to call is as it was."""
        if self.watched is not None:
            self._age += 1
            if self.watched.same():
                return True
        if not self.lookups.same():
            return False
        if self._wait > 0:
            self._wait -= 1
        else:
            self._watch()
        return True

    def _watch(self) -> None:
        """Put the look-ups in words, but for what changes again and again; less often if they do not hold for long."""
        if self.watched is not None:
            self._patience = 1 if self._age > MAX_WAIT else min(2 * self._patience, MAX_WAIT)
            for owner in self.watched.changed():
                if id(owner) in self._once:
                    self._busy[id(owner)] = owner
                self._once[id(owner)] = owner
        self.watched = watched(self.lookups, self._busy)
        self._age, self._wait = 0, self._patience

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
    todo += [n for r in trace.relations for n in (r.step, r.other)]
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
