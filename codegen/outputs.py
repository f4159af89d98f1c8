"""Where the outputs of a graph live: fresh arrays, or the memory of a state input written in place.

A new state may be written over the old one by its own step when every other reader of the old value can run before,
and the step itself reads the old value only at the element it writes. Otherwise it is made elsewhere and copied at
the very end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from graphc.codegen.lower import Memory, copy_call
from graphc.errors import InternalError
from graphc.ir.dag import Ancestors, Arc
from graphc.ir.graph import Output, Value
from graphc.ir.passes.order import data_arcs
from graphc.ir.steps import Call, Step, Storage, in_place
from graphc.ir.types import Layout


@dataclass(slots=True)
class Placed:
    """The layout and donated input of each output, arcs the order must respect, and calls that come after all steps."""

    layouts: list[Layout]
    donated: list[int | None]
    arcs: list[Arc] = field(default_factory=list)
    last: list[Call] = field(default_factory=list)


def place_outputs(memory: Memory, steps: list[Step]) -> Placed:
    """Give every output its memory; appends to `steps` the copies that are needed."""
    outputs = memory.fusion.graph.outputs
    donated = _donated(memory, outputs)
    layouts = [Layout(o.value.type) if k is None else memory.layouts[k] for o, k in zip(outputs, donated, strict=True)]
    placed = Placed(layouts, donated)
    for j, o in enumerate(outputs):
        if donated[j] is None:
            _place_fresh(memory, steps, j, o.value)
    states = [(j, k, outputs[j].value) for j, k in enumerate(donated) if k is not None]
    saved = {j: _saved_input(memory, steps, k, value) for j, k, value in states}
    reach = _Reach(steps)
    for j, k, value in states:
        _place_state(memory, reach, placed, j, k, value, saved[j])
    return placed


def _donated(memory: Memory, outputs: Sequence[Output]) -> list[int | None]:
    """For each output the number of the state input it replaces."""
    states = {i.name: k for k, i in enumerate(memory.fusion.graph.inputs) if i.kind == "state"}
    found = [states.get(o.name) if o.kind == "state" else None for o in outputs]
    for o, k in zip(outputs, found, strict=True):
        if k is not None and memory.fusion.graph.inputs[k].value.type is not o.value.type:
            raise InternalError(f"state {o.name} changes its type to {o.value.type}")
    used = [k for k in found if k is not None]
    if len(set(used)) < len(used):
        raise InternalError("a state is written by two outputs")
    return found


def _place_fresh(memory: Memory, steps: list[Step], j: int, value: Value) -> None:
    buffer = memory.fusion.buffer_of(value)
    storage = memory.storage_of(buffer)
    if buffer in memory.fusion.stored and storage.kind == "arena":
        storage.kind, storage.index = "output", j
        return
    target = Storage("output", j, value.type.nbytes, "copy")
    call = copy_call(memory, value, None, target, Layout(value.type))
    if call is not None:
        steps.append(Step([call]))


def _saved_input(memory: Memory, steps: list[Step], k: int, value: Value) -> Storage | None:
    """A copy of an input that becomes the state of another one, made while its old value is still there."""
    buffer = memory.fusion.buffer_of(value)
    if buffer.node is not None or buffer.index == k:
        return None
    target = memory.temporary(value.type.nbytes, "saved")
    call = copy_call(memory, value, None, target, Layout(value.type))
    if call is not None:
        steps.append(Step([call]))
    return target


def _place_state(
    memory: Memory, reach: _Reach, placed: Placed, j: int, k: int, value: Value, saved: Storage | None
) -> None:
    buffer = memory.fusion.buffer_of(value)
    if buffer is memory.fusion.graph.inputs[k].value or not value.type.nbytes:
        return  # the state did not change
    storage = memory.storage_of(buffer)
    old = memory.storage_of(memory.fusion.graph.inputs[k].value)
    own = buffer in memory.fusion.stored and storage.kind == "arena"
    if own and memory.layouts[k].contiguous and reach.write_over(old, storage):
        storage.kind, storage.index = "output", j
        placed.arcs += reach.taken
        reach.taken = []
        return
    target = Storage("output", j, value.type.nbytes, "state")
    call = copy_call(memory, value, saved, target, placed.layouts[j])
    if call is not None:
        placed.last.append(call)


class _Reach:
    """Which step needs which, kept up while arcs are added."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.taken: list[Arc] = []
        self.ancestors = Ancestors(len(steps), data_arcs(steps))
        self.writer = {s: k for k, step in enumerate(steps) for s in step.written()}
        self.readers: dict[Storage, list[int]] = {}
        for k, step in enumerate(steps):
            for s in step.read():
                self.readers.setdefault(s, []).append(k)

    def write_over(self, old: Storage, new: Storage) -> bool:
        """Whether the step that makes `new` may write it over `old`; if so, the arcs for that are added to `taken`."""
        writer = self.writer[new]
        if not _reads_in_place(self.steps[writer], old, new):
            return False
        others = [k for k in self.readers.get(old, ()) if k != writer]
        if any(self.ancestors.needs(k, writer) for k in others):
            return False
        self.taken = [(k, writer) for k in others]
        self.ancestors.wait(writer, self.ancestors.closure(others))
        return True


def _reads_in_place(step: Step, old: Storage, new: Storage) -> bool:
    """Whether the step reads `old` only before it writes `new`, or in the same call element by element."""
    started = False
    for call in step.calls:
        reads, writes = old in call.read(), new in call.written()
        if reads and (
            started or (writes and not in_place(call.kernel, call.operands.index(old), call.operands.index(new)))
        ):
            return False
        started = started or writes
    return True
