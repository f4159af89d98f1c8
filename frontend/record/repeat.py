"""A call that finds everything as the last one did: operands, states and results are prepared.

The words of look-ups (lookups.py) also say that the arrays of all states are the same ones, so native code is given
only what moves: arguments, settings, new results. Gradients stay where they are when nobody else holds the old ones;
`g = p.grad` kept from an earlier call does, and then this call makes new ones.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.config import config
from graphc.frontend.record import rng
from graphc.frontend.record.applies import confirm, fits
from graphc.frontend.record.places import places_fit
from graphc.frontend.record.quick import Picture
from graphc.frontend.record.results import MISS, make_leaves
from graphc.frontend.record.trace import Effect, Leaf, Trace
from graphc.frontend.record.tree import LEAF, unflatten
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.op import Array
from graphc.ir.types import Layout
from graphc.runtime import words
from graphc.runtime.bound import Bound, bindable
from graphc.runtime.counters import Counters
from graphc.runtime.words import Watch, Word

_NUMBERS = {"float": np.float64, "int": np.int64, "setting": np.float64}
_KINDS = {*_NUMBERS, "arg", "path", "random"}
_GRADIENT = 2, 3, 2  # references to an old gradient (its leaf, Gradients), its array (three of them), its storage
MAX_WAIT = 64  # calls between attempts to reuse gradients
Room = tuple[Any, tuple[int, ...], Any]  # a function that makes an array, with the shape and dtype to give it


class Gradients:
    """The new .grad of leaves: array and Tensor of the last call, if nobody else has them, else new ones.

    `outputs` are their numbers among the graph's outputs, `rooms` what makes an array for each.
    """

    def __init__(self, owners: Sequence[Tensor], outputs: Sequence[int], rooms: Sequence[Room]) -> None:
        self.owners = owners
        self.outputs = outputs
        self.renewals = 0
        self._rooms = rooms
        self._arrays: list[Array] | None = None  # new ones, in this call
        self._made: list[Tensor] = []
        self._watch: Watch | None = None  # they are in place, and nobody else holds them
        self._released: Watch | None = None  # zero_grad() outside took them away, and nobody holds them
        self._away = False
        self._age, self._wait, self._patience = 0, 0, 1

    def room(self, put: Callable[[int, Array], None]) -> None:
        """See that native code has memory to write to."""
        watch, released = self._watch, self._released
        if watch is not None and released is not None:
            self._age += 1
            self._away = False
            if watch.first_change() == watch.count:
                return
            self._away = released.first_change() == released.count
            if self._away:
                return
        self._watch = None
        self._arrays = [make(shape, dtype) for make, shape, dtype in self._rooms]
        for k, array in zip(self.outputs, self._arrays, strict=True):
            put(k, array)

    def commit(self) -> None:
        """Put new ones in place."""
        if self._watch is not None and not self._away:
            return
        if self._arrays is not None:
            self._made, self._arrays = list(map(fresh, self._arrays)), None
            self.renewals += 1
        for owner, made in zip(self.owners, self._made, strict=True):
            owner._grad = made
        if self._wait:
            self._wait -= 1
        elif self._watch is None:
            self._look_out()

    def _look_out(self) -> None:
        """Begin to watch for others that hold them; less often where there soon are some."""
        self._patience = 1 if self._age > MAX_WAIT else min(2 * self._patience, MAX_WAIT)
        self._age, self._wait = 0, self._patience
        found: list[Word] = []
        released: list[Word] = []
        for owner, made in zip(self.owners, self._made, strict=True):
            more = _held_here(owner, made)
            if more is None:
                return
            found += more
            released += _taken_away(owner, made, more)
        self._watch, self._released = Watch(found), Watch(released)


def _held_here(owner: Tensor, made: Tensor) -> list[Word] | None:
    """Words that say: `made` is the gradient of `owner`, as it was made, and nobody else holds it or its memory."""
    parts = [words.same_fields(owner, ("_grad",)), words.same_instance(made), words.same_array(made._a)]
    parts += [words.references(x, n) for x, n in zip((made, made._a, made._s), _GRADIENT, strict=True)]
    if owner._grad is not made or None in parts:
        return None
    return [w for part in parts for w in part or ()]


def _taken_away(owner: Tensor, made: Tensor, held: Sequence[Word]) -> list[Word]:
    """The same words for `owner.grad = None`."""
    place = (words.same_fields(owner, ("_grad",)) or [(0, 0)])[-1][0]
    now = {place: id(None), id(made): _GRADIENT[0] - 1}
    return [(address, now.get(address, expected)) for address, expected in held]


class Repeat:
    """How to run `trace` again as long as `watched` holds."""

    def __init__(self, trace: Trace, picture: Picture) -> None:
        assert picture.watched is not None
        self.trace = trace
        self.picture = picture
        self.watched = picture.watched
        self.values = list(picture.values)
        self.tensors = list(picture.tensors)
        self.bound = Bound(trace.executable)
        self.running = False
        self.calls = 0  # answered
        self._feed()
        self._states()
        self._results()

    def _feed(self) -> None:
        picture, sources, put = self.picture, self.trace.sources, self.bound.put
        fixed: list[Any] = self.tensors
        for k in picture.fixed:
            put(k, fixed[k]._a)
        moving = [(k, sources[k]) for k in picture.moving]
        io = self.bound.io
        self.arguments = [(k, s.number, io + k) for k, s in moving if s.kind == "arg"]
        self.loose = [(k, s) for k, s in moving if s.kind == "path"]
        self.random = [k for k, s in moving if s.kind == "random"]
        self.numbers: list[tuple[Array, bool, int]] = []
        for k, source in moving:
            if source.kind in _NUMBERS:
                room = np.empty((), _NUMBERS[source.kind])
                put(k, room)
                self.numbers.append((room, source.kind == "setting", source.number))
        borrowed = [(k, s.layout) for k, s in moving if s.kind in ("arg", "path")] if picture.starts else []
        self.steady = not (picture.order or picture.late or self.trace.relations)
        self.alone = bool(picture.given and (picture.states or picture.wandering))  # no argument may be a state
        self.spans = [(k, *_extent(layout)) for k, layout in borrowed if layout.size]

    def _states(self) -> None:
        outputs, first = self.trace.executable.program.outputs, len(self.trace.sources)
        self.copies: list[tuple[Array, Array]] = []
        states = [e for e in self.trace.effects if e.kind == "state"]
        tensors: list[Any] = [self.tensors[e.number] for e in states]
        self.versions = Counters([*((t._s, "version") for t in tensors), *((t._v, "value") for t in tensors)])
        for effect, t in zip(states, tensors, strict=True):
            array = t._a
            if outputs[effect.output].donated is None:  # written at the end, from room of our own
                array = np.empty(t._l.type.sizes, t._l.type.dtype.np)
                self.copies.append((t._a, array))
            self.bound.put(first + effect.output, array)
        self.settled = {e.output for e in states}

    def _results(self) -> None:
        trace, first = self.trace, len(self.trace.sources)
        rooms: list[Room] = [room[1:] for room in trace.executable._results]
        effects = [e for e in trace.effects if e.kind == "grad"]
        owners = [self.values[e.number] for e in effects]
        taken = [] if self.loose else _private(trace, effects)
        self.gradients = Gradients(owners, [first + k for k in taken], [rooms[k] for k in taken]) if taken else None
        self.places = [] if taken else [(t, e.output) for t, e in zip(owners, effects, strict=True)]
        self.leaves = trace.out_leaves if taken else [*trace.out_leaves, *trace.kept]
        settled = self.settled.union(taken)
        self.new = [(first + k, *room) for k, room in enumerate(rooms) if k not in settled]
        self.taken = [*(k for k, *_ in self.arguments), *(k for k, _ in self.loose)]
        self.brief = [*self.taken, *(k for k, *_ in self.new)]
        layouts = [spec.layout for spec in trace.executable.program.outputs]
        numbers = [leaf.number for leaf in self.leaves if _plain(leaf)]
        self.plain: list[tuple[int, Layout]] | None = None  # results that are tensors of their own
        if len(numbers) == len(self.leaves) == len(set(numbers)) and trace.backward is None:
            self.plain = [(first + k, layouts[k]) for k in numbers]

    def __call__(self, leaves: Sequence[Any]) -> Any:
        """The result of the call; MISS, with nothing written, when it is not like the last one."""
        if self.running or not bindable(self.trace.executable):
            return MISS
        self.running = True
        try:
            if not self.ready(leaves):
                return MISS
            if config.verify:
                self.trace.executable._check_fully(self.bound.operands[: len(self.trace.sources)])
            self._room()
            self.bound.run()
            self.calls += 1
            return self._commit(leaves)
        finally:
            self._forget()
            self.running = False

    def ready(self, leaves: Sequence[Any]) -> bool:
        """Check everything, and hand over what moved."""
        picture, values = self.picture, self.values
        for k, x in picture.leaves:
            if leaves[k] is not x:
                return False
        if not self.watched.same() or not (self.steady or picture.follow(leaves, values)):
            return False
        if self.alone and not picture.distinct(leaves, values):
            return False
        if config.verify:
            confirm(self.trace, leaves)
        operands, addresses = self.bound.operands, self.bound.addresses
        for k, number, at in self.arguments:
            t = leaves[number]
            operands[k] = array = t._a
            self.tensors[k] = t
            addresses[at] = id(array)
        for k, source in self.loose:
            t = values[source.number]
            if not fits(source, t):
                return False
            self.tensors[k] = t
            self.bound.put(k, t._a)
        for room, is_setting, number in self.numbers:
            room[()] = values[number] if is_setting else leaves[number]
        for k in self.random:
            self.bound.put(k, rng.state_array())
        if self.spans and not self._apart():
            return False
        return not self.trace.ranges or all(places_fit(g, self.bound.operands) for g in self.trace.ranges)

    def _apart(self) -> bool:
        """True when nothing that moved shares memory with what is written."""
        starts, ends, operands = self.picture.starts, self.picture.ends, self.bound.operands
        for k, low, high in self.spans:
            start = words.data_of(operands[k])
            place = bisect_right(ends, start + low)
            if place < len(starts) and starts[place] < start + high:
                return False
        return True

    def _room(self) -> None:
        operands, addresses, io = self.bound.operands, self.bound.addresses, self.bound.io
        for k, make, shape, dtype in self.new:
            operands[k] = array = make(shape, dtype)
            addresses[io + k] = id(array)
        if self.gradients is not None:
            self.gradients.room(self.bound.put)

    def _commit(self, leaves: Sequence[Any]) -> Any:
        trace = self.trace
        for old, new in self.copies:
            np.copyto(old, new)
        self.versions.add_one()
        if trace.randoms or trace.seed is not None:
            rng.advance(trace.randoms, trace.seed)
        operands = self.bound.operands
        if self.plain is not None:
            out: list[Any] = [fresh(operands[k], layout) for k, layout in self.plain]
        else:
            out = make_leaves(trace, self.leaves, leaves, self.tensors, operands[len(trace.sources) :])
        if self.gradients is not None:
            self.gradients.commit()
        for owner, k in self.places:
            owner._grad = None if k < 0 else out[k]
        return out[0] if trace.out_spec is LEAF else unflatten(trace.out_spec, out[: len(trace.out_leaves)])

    def _forget(self) -> None:
        """Keep nothing of one call."""
        operands, values, tensors = self.bound.operands, self.values, self.tensors
        for k in self.brief:
            operands[k] = None
        for k in self.taken:
            tensors[k] = None
        for number in self.picture.order:
            values[number] = None


def _extent(layout: Layout) -> tuple[int, int]:
    """Where the elements begin and end, in bytes from the address of the first."""
    width = layout.type.dtype.itemsize
    steps = [(n - 1) * stride * width for n, stride in zip(layout.type.sizes, layout.strides, strict=True)]
    return sum(s for s in steps if s < 0), sum(s for s in steps if s > 0) + width


def _private(trace: Trace, effects: Sequence[Effect]) -> list[int]:
    """The graph outputs that become .grad of leaves and nothing else; empty unless all that is kept is of this kind."""
    kept = [trace.kept[e.output - len(trace.out_leaves)] for e in effects if e.output >= 0]
    numbers = [leaf.number for leaf in kept if _plain(leaf)]
    used = [leaf.number for leaf in (*trace.out_leaves, *trace.kept) if leaf.kind in ("fresh", "number")]
    owners = () if trace.backward is None else trace.backward.owners
    outputs = trace.executable.program.outputs
    fine = len(numbers) == len(kept) == len(effects) == len(trace.kept) == len(set(numbers))
    fine = fine and all(used.count(n) == 1 and ("base", n) not in owners for n in numbers)
    return numbers if fine and all(outputs[n].donated is None for n in numbers) else []


def _plain(leaf: Leaf) -> bool:
    plain = leaf.kind == "fresh" and not leaf.value and leaf.group < 0 and not leaf.leaf
    return plain and leaf.edge is None and leaf.base_edge is None


def prepare_repeat(trace: Trace) -> None:
    """After a call: prepare the next ones, if they can be, and are not."""
    picture = trace.picture
    if trace.repeat is not None and trace.repeat.watched is picture.watched:
        return
    trace.repeat = Repeat(trace, picture) if _repeatable(trace, picture) else None
    if trace.repeat is not None and not picture.watched.same():  # another thread was faster
        trace.repeat = None


def _repeatable(trace: Trace, picture: Picture) -> bool:
    if picture.watched is None or not bindable(trace.executable):
        return False
    if trace.value_guards or trace.sized is not None or not all(s.kind in _KINDS for s in trace.sources):
        return False
    fixed = set(picture.fixed)
    if not all(e.kind == "grad" or (e.kind == "state" and e.number in fixed) for e in trace.effects):
        return False
    return not any(e.kind == "grad" and e.number in picture.changing for e in trace.effects)
