"""The script of a lockstep call: every operation and every write in order, in segments that each are one graph.

Memory has numbers: an operation's outputs in the order they are made, memory from outside when it is first met. An
operand is a number and the views that lead from there. Two calls that do the same have equal scripts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc import compiler
from graphc.compiler import frozen_attrs
from graphc.errors import RecordingError, ShapeError
from graphc.frontend.plan import Plan
from graphc.frontend.record.lockstep_values import through
from graphc.frontend.tensor import Chain, Storage
from graphc.ir.graph import Graph, Input, Location, Value
from graphc.ir.op import Array, Op
from graphc.ir.types import Layout

CONSTANT = -1  # number of an operand that is a Python number


class Ref:
    """An operand: memory `number` seen through `chain`, or a constant with its `storage`. `free`: a number that is
    another one at each call, so an input.
    """

    __slots__ = ("array", "chain", "free", "layout", "number", "storage")

    def __init__(self, number: int, chain: Chain, layout: Layout, storage: Storage | None = None) -> None:
        self.number = number
        self.chain = chain
        self.layout = layout
        self.storage = storage
        self.array: Array | None = None if storage is None else storage.owner
        self.free = False

    def same(self, other: Ref) -> bool:
        """Equal in every bit; constants apart."""
        return (
            self.number == other.number
            and self.layout is other.layout
            and (self.chain is other.chain or self.chain == other.chain)
        )


class Event:
    """One operation (`plan` says which), or a write of the second operand into the first (`plan` is None)."""

    __slots__ = ("frozen", "loc", "op", "operands", "outputs", "plan")

    def __init__(
        self, plan: Plan | None, operands: tuple[Ref, ...], outputs: tuple[int, ...], loc: Location | None
    ) -> None:
        self.plan = plan
        self.op: Op | None = None if plan is None else plan.op
        self.frozen = None if plan is None or not plan.attrs else frozen_attrs(plan.attrs)
        self.operands = operands
        self.outputs = outputs
        self.loc = loc

    def same(self, other: Event) -> bool:
        """The same operation on the same memory; constants may differ."""
        return (
            self.op is other.op
            and self.frozen == other.frozen
            and self.outputs == other.outputs
            and len(self.operands) == len(other.operands)
            and all(a.same(b) for a, b in zip(self.operands, other.operands, strict=True))
        )


@dataclass(slots=True, eq=False)
class Segment:
    """Events [start, end) that run together. `alive`: memory made here that something holds at its end."""

    start: int
    end: int
    alive: set[int]
    inputs: list[int | tuple[int, int]] = field(default_factory=list)  # memory, or (event, operand) of a free number
    outputs: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)  # memory from before that is written
    executable: Any = None


@dataclass(slots=True, eq=False)
class Script:
    """All of one call. `layouts`: of the memory each number stands for; `outside`: numbers met, not made."""

    events: list[Event] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    layouts: dict[int, Layout] = field(default_factory=dict)
    first: dict[int, int] = field(default_factory=dict)  # number from outside -> event that meets it first
    regions: dict[int, Any] = field(default_factory=dict)  # event -> what our own Python does from there
    count: int = 0  # numbers given

    def number(self, layout: Layout) -> int:
        """A new number."""
        self.count += 1
        self.layouts[self.count] = layout
        return self.count


def difference(a: Script, b: Script) -> str | None:
    """What differs between two scripts beside numbers of Python's and what was held; None when they agree."""
    for k, (x, y) in enumerate(zip(a.events, b.events, strict=False)):
        if not x.same(y):
            return f"{_name(x)} at {x.loc} was {_name(y)} at {y.loc} on the second call, or had other operands ({k})"
    if len(a.events) != len(b.events):
        longer = max(a, b, key=lambda s: len(s.events))
        event = longer.events[min(len(a.events), len(b.events))]
        return f"{_name(event)} at {event.loc} ran on one call only"
    if [(s.start, s.end) for s in a.segments] != [(s.start, s.end) for s in b.segments]:
        return "values were looked at in other places on the second call"
    if a.layouts != b.layouts or a.first != b.first or a.regions.keys() != b.regions.keys():
        return "the two calls used other memory"
    return None


def _name(event: Event) -> str:
    return "a write" if event.op is None else event.op.name


def merge(a: Script, b: Script) -> None:
    """Let `b`, which does the same, stand for both: constants that differ become inputs, what either held is kept."""
    for x, y in zip(a.events, b.events, strict=True):
        for r, s in zip(x.operands, y.operands, strict=True):
            if s.number == CONSTANT:
                s.free = r.free or not same_constant(r, s.storage)
    for m, n in zip(a.segments, b.segments, strict=True):
        n.alive |= m.alive
    for k, region in a.regions.items():
        events = b.events[k : region.end]
        if not region.same(b.regions[k]) or any(r.free for e in events for r in e.operands):
            del b.regions[k]


def same_constant(ref: Ref, storage: Any) -> bool:
    """True when `storage` holds the constant of `ref`, in every bit."""
    if storage is ref.storage:
        return True
    array = ref.array
    assert array is not None
    other: Array = storage.owner
    return array.dtype == other.dtype and array.tobytes() == other.tobytes()


def agreement(a: Script, b: Script) -> int:
    """How many events from the start are the same, constants included, in the same segments."""
    count = 0
    for x, y in zip(a.events, b.events, strict=False):
        if not (x.same(y) and _constants(x, y)):
            break
        count += 1
    for m, n in zip(a.segments, b.segments, strict=False):
        if m.end != n.end:
            return min(count, m.end, n.end)
    return count


def _constants(x: Event, y: Event) -> bool:
    pairs = [(r, s) for r, s in zip(x.operands, y.operands, strict=True) if r.number == CONSTANT]
    return all(r.free == s.free and (r.free or same_constant(r, s.storage)) for r, s in pairs)


# ---------------------------------------------------------------- one segment as a graph


class _Builder:
    def __init__(self, script: Script, segment: Segment, name: str) -> None:
        self.script = script
        self.segment = segment
        self.graph = Graph(name)
        self.roots: dict[int, Value] = {}
        self.outside: dict[int, int] = {}  # number -> graph input
        segment.inputs, segment.outputs, segment.written = [], [], []

    def run(self) -> Graph:
        segment = self.segment
        for k in range(segment.start, segment.end):
            self._event(k, self.script.events[k])
        for number in segment.written:
            place = self.outside[number]
            old = self.graph.inputs[place]
            self.graph.inputs[place] = Input(old.value, "state", old.name)
            self.graph.add_output(self.roots[number], old.name, "state")
        for number in sorted(segment.alive):
            segment.outputs.append(number)
            self.graph.add_output(self.roots[number], f"value{number}")
        return self.graph

    def _event(self, k: int, event: Event) -> None:
        if event.loc is not None:
            self.graph.loc = event.loc
        if event.plan is None:
            self._write(k, event)
            return
        values = [self._value(k, i, ref) for i, ref in enumerate(event.operands)]
        made = self.graph.add(event.plan.op, values, event.plan.attrs)
        self.roots.update(zip(event.outputs, made, strict=True))

    def _value(self, k: int, i: int, ref: Ref) -> Value:
        if ref.number == CONSTANT:
            assert ref.array is not None
            return self._input((k, i), ref.layout, f"number{k}_{i}") if ref.free else self.graph.constant(ref.array)
        value = self._root(ref.number)
        for op, attrs in ref.chain:
            value = op(value, **attrs)
        return value

    def _input(self, what: int | tuple[int, int], layout: Layout, name: str) -> Value:
        self.segment.inputs.append(what)
        return self.graph.add_input(layout.type, name, "input")

    def _root(self, number: int) -> Value:
        found = self.roots.get(number)
        if found is None:
            self.outside[number] = len(self.segment.inputs)
            found = self.roots[number] = self._input(number, self.script.layouts[number], f"memory{number}")
        return found

    def _write(self, k: int, event: Event) -> None:
        """Scatter the value back to the root, as `Recorder.on_write`."""
        target, source = event.operands
        new = self._value(k, 1, source)
        levels = [self._root(target.number)]
        for op, attrs in target.chain[:-1]:
            levels.append(op(levels[-1], **attrs))
        for (op, attrs), level in zip(reversed(target.chain), reversed(levels), strict=False):
            if op.scatter is None:
                raise RecordingError(f"a write at {event.loc} goes through {op.name}, which cannot be written through")
            try:
                new = op.scatter(level, new, **attrs)
            except ShapeError as error:  # the elements of this view are apart, those of one on its way are not
                raise RecordingError(f"a write at {event.loc} goes through overlapping views: {error}") from None
        self.roots[target.number] = new
        if target.number in self.outside and target.number not in self.segment.written:
            self.segment.written.append(target.number)


def prepare(script: Script, segment: Segment, name: str) -> None:
    """Compile one segment."""
    graph = _Builder(script, segment, name).run()
    layouts = []
    for what in segment.inputs:
        if isinstance(what, tuple):
            layouts.append(script.events[what[0]].operands[what[1]].layout)
        else:
            layouts.append(script.layouts[what])
    segment.executable = compiler.compile_graph(graph, layouts)


# ---------------------------------------------------------------- one segment by the eager kernels


def replay(
    events: Sequence[Event],
    first: int,
    memory: dict[int, Array],
    free: Mapping[tuple[int, int], Array],
    kept: Collection[int],
) -> None:
    """Run events one by one; `memory` has the arrays by number and gets those of `kept`."""
    last = {ref.number: k for k, event in enumerate(events, first) for ref in event.operands}
    for k, event in enumerate(events, first):
        arrays = [_array(ref, memory, free, (k, i)) for i, ref in enumerate(event.operands)]
        if event.plan is None:
            np.copyto(arrays[0], arrays[1])
            continue
        made = event.plan.run(*arrays)
        outputs = (made,) if event.plan.op.outputs == 1 else made
        memory.update(zip(event.outputs, outputs, strict=True))
        del made, outputs, arrays
        for number in {ref.number for ref in event.operands} | set(event.outputs):
            if number not in kept and last.get(number, k) == k:
                memory.pop(number, None)  # not read again


def _array(
    ref: Ref, memory: Mapping[int, Array], free: Mapping[tuple[int, int], Array], place: tuple[int, int]
) -> Array:
    if ref.number == CONSTANT:
        assert ref.array is not None
        return free.get(place, ref.array)
    return through(memory[ref.number], ref.chain)
