"""Lockstep: the user's Python runs at every call, its operations are only compared with a script.

An operation that is the next one of the script gives a tensor without memory; when a value is looked at, or the
function ends, the native code of the script's segment computes all that is still held, in one call. Anything else than
the script says: the operations so far run by the eager kernels, and the call goes on eagerly. A call without a script
runs the same way with a script that grows, its segments run by the eager kernels; so both kinds of call look at values
at the same places.

What makes waiting sound: memory of our own is read only through `_a`, which makes the call catch up; memory that was
handed out (`numpy()`) is copied when an operation is noted and never written later than the program says; a tensor from
outside with a write to come is pending, too, and no other tensor looks at its memory, or the write is done at once.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError
from graphc.frontend import autograd, autograd_inplace
from graphc.frontend.mode import mode
from graphc.frontend.plan import Plan, plan_for
from graphc.frontend.record import lockstep_modules, lockstep_regions
from graphc.frontend.record.lockstep_hooks import Hooks
from graphc.frontend.record.lockstep_script import (
    CONSTANT,
    Event,
    Ref,
    Script,
    Segment,
    agreement,
    prepare,
    replay,
    same_constant,
)
from graphc.frontend.record.lockstep_values import (
    PendingStorage,
    handed_out,
    is_pending,
    make_pending,
    pending,
    pending_alias,
    pending_view,
    put,
    settle,
    stand_in,
)
from graphc.frontend.record.where import here
from graphc.frontend.tensor import Storage, Tensor, fresh, view_of
from graphc.ir.narrow import expand
from graphc.ir.op import Array, Attrs, Op
from graphc.ir.types import Layout

MAX_EVENTS = 20_000


class Lockstep(Hooks):
    """One call. Implements frontend.mode.RecorderHooks; `active` until the call runs eagerly or ends.

    Without `scripts` it makes one: `script`.
    """

    active = True
    first_ticket = 0  # no recording

    def __init__(self, scripts: Sequence[Script] = (), name: str = "lockstep") -> None:
        self.name = name
        self.scripts = list(scripts)
        self.growing = not scripts
        self.over = False  # runs eagerly, or has ended
        self.script = scripts[0] if scripts else Script()
        self.at = 0  # events done
        self.start = 0  # first event of the segment that waits
        self.part = 0  # number of that segment
        self.missed = ""  # why the script was left
        self.refused = ""  # why there can be none
        self.natively = 0  # segments run by native code
        self.known: dict[Storage, int] = {}  # memory from outside and memory that is there by now
        self.storages: dict[int, Storage] = {}
        self.dirty: dict[Storage, Tensor] = {}  # with a write to come
        self.copies: dict[int, Array] = {}  # of memory that was handed out
        self.free: dict[tuple[int, int], Array] = {}
        # numbers an optimiser asked for in a region
        self.settings = self.randoms = None
        self.values_used = False  # our own Python looked at values from outside
        self._made: list[tuple[weakref.ref[Storage], int]] = []
        self._tensors: list[weakref.ref[Tensor]] = []
        self.guard = threading.RLock()  # another thread may look at our tensors
        self._busy = False
        self._paused = 0

    @property
    def lockstep(self) -> Lockstep | None:
        """Itself, until it runs eagerly."""
        return self if self.active else None

    # ---- what values ask

    def note_storage(self, s: Storage, number: int) -> None:
        """New pending memory."""
        self._made.append((weakref.ref(s), number))

    def note_tensor(self, t: Tensor) -> None:
        """A new pending tensor."""
        self._tensors.append(weakref.ref(t))

    def behind(self, s: Storage) -> bool:
        """True for memory that is not there or not up to date."""
        return s.__class__ is PendingStorage or s in self.dirty

    def number_of(self, s: Storage) -> int | None:
        """What the script calls this memory."""
        if s.__class__ is PendingStorage and s.lock is self:
            return s.number
        return self.known.get(s)

    # ---- the sinks

    def apply(self, op: Op, tensors: tuple[Tensor, ...], attrs: Attrs, grad: bool) -> Any:
        """What dispatch gives for the operation; None when it has to run it."""
        edges = autograd.edges_of(tensors) if grad and op.differentiable else None
        if edges is not None and op.vjp is None and op.decompose is not None:
            expanded = expand(op, tensors, attrs)
            if expanded is not None:
                return expanded
        if autograd.observers:
            self.leave("saved tensors are watched", final=True)
            return None
        plan = self._plan(op, tensors, attrs)
        if plan.link:
            outputs: tuple[Tensor, ...] = (self._view(tensors[0], plan),)
        else:
            numbers = self._match(plan, tensors)
            if numbers is None:
                return None
            outputs = tuple([pending(self, n, x) for n, x in zip(numbers, plan.layouts, strict=True)])
        if edges is not None:
            put(plan, tensors, edges, outputs)
        return outputs[0] if op.outputs == 1 else outputs

    def _plan(self, op: Op, tensors: tuple[Tensor, ...], attrs: Attrs) -> Plan:
        if op.scatter is not None and is_pending(tensors[0]):
            tensors = (stand_in(tensors[0]._l), *tensors[1:])
        return plan_for(op, tensors, attrs)

    def _view(self, base: Tensor, plan: Plan) -> Tensor:
        if is_pending(base):
            return pending_view(self, base, plan.link, plan.layouts[0])
        return view_of(base, plan.run(base._a), plan.link, plan.layouts[0])

    def write(self, target: Tensor, value: Tensor, name: str, grad: bool) -> bool:
        """Note a write that dispatch checked; False when dispatch has to do it."""
        if handed_out(target._s):
            self.leave(f"{name} at {here()} writes memory that was handed out (numpy(), DLPack)", final=True)
            return False
        if not is_pending(target) and not target._a.flags.writeable and target._a.size:
            raise ArgumentError(f"{name}: the memory of this tensor is read-only; clone() it first")
        with self.guard:
            if self._match(None, (target, value)) is None:
                return False
            self.mark(target)
            target._s.version += 1
            target._v.value += 1
        if grad:
            autograd_inplace.rebase(target, value)
        return True

    def mark(self, target: Tensor) -> None:
        """A write to this tensor is to come; where another tensor may look at its memory, it is done now."""
        if self.behind(target._s):
            return
        if self.alone(target) and make_pending(target):
            target.__dict__["_lock"] = self
            self.dirty[target._s] = target
        else:
            self.touch()

    def alone(self, t: Tensor) -> bool:
        """True when no other tensor, nor the tape, looks at the memory of `t`."""
        return sys.getrefcount(t._s) <= (_ALONE if t._s in self.known else _ALONE - 2)

    def alias(self, base: Tensor, share_version: bool) -> Tensor | None:
        """As `tensor.alias_of`, for a tensor whose memory is not there yet."""
        return pending_alias(self, base, share_version) if is_pending(base) else None

    # ---- comparing

    def _match(self, plan: Plan | None, tensors: tuple[Tensor, ...]) -> tuple[int, ...] | None:
        """Numbers of the outputs of the next event, which this is; None (and no longer active) if it is not."""
        with self.guard:
            if self.growing:
                return self._grow(plan, tensors)
            self.boundary()
            tried = [self.script]
            while self.active:
                if self._is_next(plan, tensors):
                    event = self.script.events[self.at]
                    self.at += 1
                    return event.outputs
                if not self._switch(self.at, tried):
                    self.leave(f"{'a write' if plan is None else plan.op.name} at {here()} is not what came before")
            return None

    def boundary(self) -> None:
        """At the end of a segment that nobody looked at: run it."""
        if self.at > self.start and self.at == self._end():
            self._catch_up()

    def _end(self) -> int:
        segments = self.script.segments
        return segments[self.part].end if self.part < len(segments) else -1

    def _is_next(self, plan: Plan | None, tensors: tuple[Tensor, ...]) -> bool:
        if self.at >= len(self.script.events):
            return False
        event = self.script.events[self.at]
        if len(event.operands) != len(tensors) or (event.plan is not plan and not _same_call(event, plan)):
            return False  # (some operands can be left out: a bias, tensors of a list)
        bound: list[Storage] = []
        for i, (ref, t) in enumerate(zip(event.operands, tensors, strict=True)):
            if not self._is_operand(ref, t, i, bound):
                for s in bound:
                    self.unbind(s)
                return False
        return self.active

    def _is_operand(self, ref: Ref, t: Tensor, i: int, bound: list[Storage]) -> bool:
        s = t._s
        if t._l is not ref.layout or (t._chain is not ref.chain and t._chain != ref.chain):
            return False
        number = self.number_of(s) if not handed_out(s) else self.unchanged(s)
        if number is not None:
            return number == ref.number
        if ref.number == CONSTANT:
            if ref.free and s.constant:
                self.free[self.at, i] = s.owner
                return True
            return bool(s.constant) and same_constant(ref, s)
        if self.script.first.get(ref.number) != self.at or not self.bind(ref.number, s):
            return False
        bound.append(s)
        return True

    def bind(self, number: int, s: Storage) -> bool:
        """From here on memory `s` from outside is `number`; False when it does not fit."""
        if number in self.storages or Layout.of(s.owner) is not self.script.layouts[number]:
            return False
        if handed_out(s):
            if not s.owner.flags.c_contiguous:
                return False
            self.copies[number] = s.owner.copy()
        self.known[s] = number
        self.storages[number] = s
        return True

    def unbind(self, s: Storage) -> None:
        """Take `bind` back."""
        number = self.known.pop(s)
        del self.storages[number]
        self.copies.pop(number, None)

    def unchanged(self, s: Storage) -> int | None:
        """The number of memory that Python may write unseen: only while it has not changed."""
        number = self.known.get(s)
        if number is None:
            return None
        kept = self.copies.get(number)
        if kept is not None and kept.tobytes() == s.owner.tobytes():
            return number
        if kept is not None:
            self.touch()
        self.known.pop(s, None)
        return None

    def _switch(self, at: int, tried: list[Script], end: bool = False) -> bool:
        """Go on with another script that is the same so far; `end`: with one that has a segment end here."""
        for other in self.scripts:
            if any(other is s for s in tried) or agreement(self.script, other) < at:
                continue
            segments = other.segments
            if self.part >= len(segments) or segments[self.part].start != self.start or segments[self.part].end < at:
                continue
            if end and segments[self.part].end != at:
                continue
            tried.append(other)
            self.script = other
            return True
        return False

    # ---- growing

    def _grow(self, plan: Plan | None, tensors: tuple[Tensor, ...]) -> tuple[int, ...] | None:
        if plan is not None and not lockstep_regions.in_table(plan.op):
            self.leave(f"the operation {plan.op.name!r} at {here()} is one of your own", final=True)
            return None
        if self.at >= MAX_EVENTS:
            self.leave(f"there are more than {MAX_EVENTS} operations in one call", final=True)
            return None
        operands = []
        for t in tensors:
            ref = self._ref(t)
            if ref is None:
                self.leave(f"a tensor {t._l.type} at {here()} views memory that was handed out", final=True)
                return None
            operands.append(ref)
        outputs = () if plan is None else tuple(map(self.script.number, plan.layouts))
        self.script.events.append(Event(plan, tuple(operands), outputs, here()))
        self.at += 1
        return outputs

    def _ref(self, t: Tensor) -> Ref | None:
        s = t._s
        number = self.number_of(s) if not handed_out(s) else self.unchanged(s)
        if number is None and s.constant and not t._chain:
            return Ref(CONSTANT, (), t._l, s)
        if number is None:
            number = self.script.number(Layout.of(s.owner))
            if not self.bind(number, s):
                return None
            self.script.first[number] = self.at
        return Ref(number, t._chain, t._l)

    # ---- catching up

    def touch(self) -> None:
        """A value is looked at: compute all there is to compute."""
        with self.guard:
            if self._busy or self.over:
                return
            if self.at == self.start:
                self._settle({})
            elif self.growing or self.at == self._end() or self._switch(self.at, [self.script], end=True):
                self._catch_up()
            else:
                self.leave(f"a value is looked at at {here()}, where none was before")

    def leave(self, why: str, final: bool = False) -> None:
        """Run eagerly from here on; `final`: no script can help."""
        with self.guard:
            if self.over:
                return
            self.missed = why
            self.refused = why if final else ""
            self._stop()

    def _stop(self) -> None:
        if self.at > self.start:
            self._eagerly(self._alive())
            self.start = self.at
        self._settle({})
        self.over, self.active = True, False

    def _alive(self) -> list[tuple[Storage, int]]:
        found = [(ref(), number) for ref, number in self._made]
        return [(s, number) for s, number in found if s is not None]

    def _catch_up(self) -> None:
        """Compute the segment that ends here."""
        alive = self._alive()
        if self.growing:
            segment = Segment(self.start, self.at, set())
            self.script.segments.append(segment)
        else:
            segment = self.script.segments[self.part]
        more = {number for _, number in alive} - segment.alive
        if self.growing or more:
            segment.alive |= more
            segment.executable = None
            self._eagerly(alive)
        else:
            self._natively(segment, alive)
        self.start = self.at
        self.part += 1

    def _eagerly(self, alive: list[tuple[Storage, int]]) -> None:
        events = self.script.events[self.start : self.at]
        memory: dict[int, Array] = {}
        inside = {n for e in events for n in e.outputs}
        for ref in (r for e in events for r in e.operands):
            if ref.number != CONSTANT and ref.number not in inside:
                memory[ref.number] = self._memory(ref.number)
        replay(events, self.start, memory, self.free, {number for _, number in alive})
        self._settle({number: memory[number] for _, number in alive})

    def _natively(self, segment: Segment, alive: list[tuple[Storage, int]]) -> None:
        if segment.executable is None:
            prepare(self.script, segment, self.name)
        arrays = [self.free[x] if isinstance(x, tuple) else self._memory(x) for x in segment.inputs]
        results = segment.executable(arrays)
        self.natively += 1
        for number, result in zip(segment.written, results, strict=False):
            array = self._memory(number)
            if result is not array:
                np.copyto(array, result)
        self._settle(dict(zip(segment.outputs, results[len(segment.written) :], strict=True)))

    def _memory(self, number: int) -> Array:
        found = self.copies.get(number)
        return self.storages[number].owner if found is None else found

    def _settle(self, memory: dict[int, Array]) -> None:
        """What waited is there: `memory` by number."""
        self._busy = True
        made, self._made = self._alive(), []
        try:
            for s, number in made:
                s.settle(memory[number])  # type: ignore[attr-defined]
                self.known[s] = number
                self.storages[number] = s
            for ref in self._tensors:
                t = ref()
                if t is not None:
                    settle(t)
            for t in self.dirty.values():
                settle(t)
        finally:
            self._busy = False
        self._tensors.clear()
        self.dirty.clear()
        self.free.clear()
        for number in self.copies:
            self.known.pop(self.storages[number], None)
        self.copies.clear()

    def finish(self, ended: bool = True) -> None:
        """The call is over (`ended`) or an exception leaves it."""
        with self.guard:
            if not self.over and ended:
                if not self.growing and self.at != len(self.script.events) and not self._ends_here():
                    self.leave("the call ended where none did before")
                elif self.at > self.start:
                    self._catch_up()
            if not self.over:
                self._stop()
            self.known.clear()
            self.storages.clear()

    def _ends_here(self) -> bool:
        at = self.at
        for other in self.scripts:
            if len(other.events) == at and agreement(self.script, other) >= at:
                self.script = other
                return True
        return False

    # ---- our own Python, as a whole

    def backward(self, run: Any, root: Any, retain: bool) -> None:
        """Run `run()`, which is root.backward(retain_graph=retain), or do what it did."""
        lockstep_regions.backward(self, run, root, retain)

    def update(self, optimizer: Any) -> None:
        """Run optimizer._step(), or do what it did."""
        lockstep_regions.update(self, optimizer)

    def layer(self, module: Any, args: tuple[Any, ...]) -> Any:
        """module.forward(*args)."""
        return lockstep_modules.call(self, module, args, mode.get().grad)


def _same_call(event: Event, plan: Plan | None) -> bool:
    """The same operation with the same attributes, found in a table of plans that was emptied in between."""
    if event.plan is None or plan is None or plan.op is not event.op:
        return False
    return Event(plan, (), (), None).frozen == event.frozen and plan.layouts == event.plan.layouts


def _alone() -> int:
    t = fresh(np.zeros(()))
    known, storages = {t._s: 0}, {0: t._s}
    return sys.getrefcount(t._s) if len(known) == len(storages) else 0


_ALONE = _alone()  # references to memory that a call knows and one tensor looks at
