"""Regions of a script: what backward() and an optimiser's step do in Python of our own, done again as a whole.

No code of the user's runs inside them, so what they do follows from what they find: the tape from the loss on, or the
optimiser's settings and tensors. That is written down as a key; while a call finds an equal one, the region's events
are taken as run, and only what Python can see of it is done: `.grad`, counts of writes, freed tape nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.caller import kind_of
from graphc.compiler import frozen_attrs
from graphc.frontend import autograd
from graphc.frontend.autograd import AccumulateGrad, Node, Saved
from graphc.frontend.record.lockstep_script import CONSTANT, Script
from graphc.frontend.record.lockstep_values import PendingTensor, handed_out, pending
from graphc.frontend.record.trace import same_bits
from graphc.frontend.tensor import Storage, Tensor, fresh
from graphc.ir.op import Op, op_named

if TYPE_CHECKING:
    from graphc.frontend.record.lockstep import Lockstep

_FROZEN: dict[int, tuple[Any, Any]] = {}  # by id; holds the object
_MAX_FROZEN = 1024
_FOLLOWED = frozenset({"lr"})  # settings of which only "is it 0" decides anything


class Found:
    """What a region finds: a key of plain values, the tensors and memory met on the way."""

    def __init__(self, lock: Lockstep) -> None:
        self.lock = lock
        self.key: list[Any] = []
        self.unknown: list[Tensor | Saved] = []  # whose memory the script has not met yet
        self.numbers: set[int] = set()  # memory the script knows
        self.nodes: list[Any] = []  # of the tape
        self.tensors: list[Tensor] = []
        self._new: dict[int, int] = {}  # by id; `unknown` holds who holds the memory

    def memory(self, s: Storage, holder: Tensor | Saved) -> int:
        """A key for memory: its number, or below -1 for the first, second, … unknown one."""
        number = self.lock.number_of(s) if not handed_out(s) else self.lock.unchanged(s)
        if number is not None:
            self.numbers.add(number)
            return number
        place = self._new.get(id(s))
        if place is None:
            place = self._new[id(s)] = -2 - len(self.unknown)
            self.unknown.append(holder)
        return place

    def tensor(self, t: Tensor) -> tuple[Any, ...]:
        """A key for a tensor that the region may write."""
        self.tensors.append(t)
        return self.memory(t._s, t), t._chain, t._l, t._requires_grad

    def same(self, other: Region) -> bool:
        """True when the region would do what it did."""
        try:
            return len(self.unknown) == other.unknown and _equal(self.key, other.key)
        except ValueError:  # an array among the attributes
            return False


def memory_of(holder: Tensor | Saved) -> Storage:
    """Its storage."""
    return holder._s if isinstance(holder, Tensor) else holder.storage


class Region:
    """Events up to `end`. `binds`: which unknown memory gets which number, `settings`: which numbers are settings,
    `grads`: (leaf, number) of new gradients, `writes`: how often a known tensor is written, `freed`: tape nodes.
    """

    __slots__ = ("binds", "end", "freed", "grads", "key", "kind", "layer", "settings", "unknown", "writes")

    def __init__(self, kind: str, found: Found, end: int) -> None:
        self.kind = kind
        self.key = found.key
        self.unknown = len(found.unknown)
        self.end = end
        self.binds: list[tuple[int, int]] = []
        self.settings: list[tuple[int, str | tuple[str, int], int]] = []
        self.grads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.freed: list[int] = []
        self.layer: Any = None  # of a call of a layer

    def same(self, other: Region) -> bool:
        """Equal in all that counts."""
        names = [n for n in Region.__slots__ if n not in ("key", "layer")]
        if not (_equal(self.key, other.key) and all(getattr(self, n) == getattr(other, n) for n in names)):
            return False
        if self.layer is None or other.layer is None:
            return self.layer is other.layer
        return _equal(self.layer.key(), other.layer.key())


def _equal(a: Any, b: Any) -> bool:
    return bool(a == b)


# ---------------------------------------------------------------- backward


def backward(lock: Lockstep, run: Callable[[], None], root: Any, retain: bool) -> None:
    """`run()` is root.backward(retain_graph=retain)."""
    lock.boundary()
    found = _tape(lock, root, retain) if lock.active else None
    if found is None or not lock.active:
        run()
    elif lock.growing:
        _grow_backward(lock, run, found)
    elif not _play(lock, "backward", found):
        run()


def _tape(lock: Lockstep, root: Any, retain: bool) -> Found | None:
    """The tape from `root` on; None where the user's code may run, or an error be raised."""
    edge = autograd.edge_of(root) if isinstance(root, Tensor) else None
    if edge is None or root._l.size != 1:
        return None
    places: dict[Any, int] = {edge[0]: 0}
    nodes: list[Any] = [edge[0]]
    for node in nodes:  # grows
        for e in node.edges:
            if e is not None and e[0] not in places:
                places[e[0]] = len(nodes)
                nodes.append(e[0])
    found = Found(lock)
    found.nodes = nodes
    found.key += [retain, edge[1], root._l]
    order = sorted(range(len(nodes)), key=lambda k: nodes[k].seq)
    found.key.append(order)  # the order in which gradients add up
    for node in nodes:
        key = _node(node, places, found)
        if key is None:
            return None
        found.key.append(key)
    return found


def _node(node: Any, places: dict[Any, int], found: Found) -> tuple[Any, ...] | None:
    if type(node) is AccumulateGrad:
        leaf = node.leaf
        if node.hooks or node.retained or leaf._hooks:
            return None
        grad = leaf._grad
        return leaf._l, None if grad is None else found.tensor(grad)
    if type(node) is not Node or node.freed or node.hooks or node.retained or node.op.vjp is None:
        return None
    if not in_table(node.op):
        return None
    edges = tuple([None if e is None else (places[e[0]], e[1]) for e in node.edges])
    saved = [_saved(s, found) for s in node.saved_in]
    if node.saved_out is not None:
        saved += [_saved(s, found) for s in node.saved_out]
    if False in saved:
        return None
    return node.op, _attrs(node.attrs), edges, node.in_types, node.out_types, saved, node.saved_out is None


def _attrs(attrs: dict[str, Any]) -> Any:
    """Attributes as a key: equal keys, same bits. Those of plans are the same object each time."""
    if not attrs:
        return None
    found = _FROZEN.get(id(attrs))
    if found is None or found[0] is not attrs:
        if len(_FROZEN) >= _MAX_FROZEN:
            _FROZEN.clear()
        found = _FROZEN[id(attrs)] = (attrs, frozen_attrs(attrs))
    return found[1]


@cache
def in_table(op: Op) -> bool:
    """True for an operation of the op table, not one of the user's own."""
    try:
        return op_named(op.name) is op
    except KeyError:
        return False


def _saved(s: Saved | None, found: Found) -> Any:
    if s is None:
        return None
    if s.packed or s.versions.value != s.version:
        return False
    return found.memory(s.storage, s), s.chain, s.layout, s.leaf is not None


def _grow_backward(lock: Lockstep, run: Callable[[], None], found: Found) -> None:
    leaves = [(k, n.leaf, n.leaf._grad) for k, n in enumerate(found.nodes) if type(n) is AccumulateGrad]
    start = Start(lock)
    run()
    region = start.region("backward", found)
    if region is None:
        return
    for k, leaf, before in leaves:
        after = leaf._grad
        if after is before:
            continue
        number = None if after is None else lock.number_of(after._s)
        if before is not None or after is None or number is None or after._chain or not _plain_grad(after):
            return
        region.grads.append((k, number))
    region.freed = [k for k, n in enumerate(found.nodes) if type(n) is Node and n.freed]
    lock.script.regions[start.at] = region


def _plain_grad(t: Tensor) -> bool:
    own = t._v is t._s and t._gbase is None and t._edge is None and not t._requires_grad and t._s.version == 0
    return own and t.__class__ is PendingTensor


class Start:
    """Where a region starts, while a script grows."""

    def __init__(self, lock: Lockstep) -> None:
        self.lock = lock
        self.at = lock.at
        self.segments = len(lock.script.segments)
        self.count = lock.script.count

    def region(self, kind: str, found: Found) -> Region | None:
        """The region that ends here; None where a value was looked at, or memory was used that is not in the key."""
        lock = self.lock
        if not lock.active or len(lock.script.segments) != self.segments or lock.at == self.at:
            return None
        region = Region(kind, found, lock.at)
        known = set(found.numbers)
        for k, holder in enumerate(found.unknown):
            number = lock.number_of(memory_of(holder))
            if number is not None:
                region.binds.append((k, number))
                known.add(number)
        for t in lock.randoms or ():
            known.add(lock.number_of(t._s) or 0)
        for group, key, t in lock.settings or ():
            number = lock.number_of(t._s)
            if number is not None:
                region.settings.append((group, key, number))
                known.add(number)
        return region if self._closed(lock.script, known, found, region) else None

    def _closed(self, script: Script, known: set[int], found: Found, region: Region) -> bool:
        """True when the region reads what the key tells of, and writes only tensors of the key; notes the writes."""
        made: set[int] = set()
        writes: dict[int, int] = {}
        for event in script.events[self.at : region.end]:
            for ref in event.operands:
                if ref.number != CONSTANT and ref.number not in made and ref.number not in known:
                    return False
            if event.plan is None and event.operands[0].number not in made:
                number = event.operands[0].number
                writes[number] = writes.get(number, 0) + 1
            made.update(event.outputs)
        places = {self.lock.number_of(t._s): k for k, t in enumerate(found.tensors)}
        if any(number not in places for number in writes):
            return False
        region.writes = [(places[number], count) for number, count in sorted(writes.items())]
        return True


# ---------------------------------------------------------------- optimisers


def update(lock: Lockstep, optimizer: Any) -> None:
    """Run `optimizer._step()`, or do what it did."""
    lock.boundary()
    found = _optimizer(lock, optimizer) if lock.active else None
    if found is None or not lock.active:
        optimizer._step()
    elif lock.growing:
        _grow_update(lock, optimizer, found)
    elif not _play(lock, "update", found, optimizer):
        optimizer._step()


def _optimizer(lock: Lockstep, optimizer: Any) -> Found | None:
    """Settings and tensors of an optimiser of ours; None for others and before it has its state."""
    kind = type(optimizer)
    methods = [getattr(kind, n, None) for n in ("_step", "_update", "_make_state", "_state_of")]
    if any(m is None or kind_of(m.__code__) != "ours" for m in methods):
        return None
    found = Found(lock)
    found.key.append(kind)
    for group in optimizer.param_groups:
        settings = _settings(group)
        if settings is None:
            return None
        found.key.append(settings)
        for p in group["params"]:
            g = p._grad
            if g is None:
                found.key.append(None)
                continue
            state = optimizer.state.get(p)
            if state is None:
                return None
            found.key += [found.tensor(p), found.tensor(g), tuple(state)]
            for x in state.values():
                if not isinstance(x, Tensor) and not is_plain(x):
                    return None
                found.key.append(found.tensor(x) if isinstance(x, Tensor) else _frozen(x))
    return found


def _settings(group: dict[str, Any]) -> tuple[Any, ...] | None:
    found: list[Any] = []
    for key, value in group.items():
        if key == "params":
            found.append(len(value))
        elif key in _FOLLOWED and type(value) is float:
            found.append((key, value == 0.0))
        elif is_plain(value):
            found.append((key, _frozen(value)))
        elif key != "param_names":
            return None
    return tuple(found)


def is_plain(x: Any) -> bool:
    """True for values that cannot change."""
    return x is None or type(x) in (bool, int, float, str) or (type(x) is tuple and all(map(is_plain, x)))


def _frozen(x: Any) -> Any:
    """Equal keys, same bits."""
    if type(x) is tuple:
        return tuple(map(_frozen, x))
    return (type(x), x.hex() if type(x) is float else x)


def _grow_update(lock: Lockstep, optimizer: Any, found: Found) -> None:
    start = Start(lock)
    fields = dict(vars(optimizer))
    lock.settings = []
    try:
        optimizer._step()
        region = start.region("update", found)
    finally:
        lock.settings = None
    if region is None or not _unchanged(fields, vars(optimizer)):
        return
    after = _optimizer(lock, optimizer)
    if after is None or len(after.tensors) != len(found.tensors):
        return
    if any(a is not b for a, b in zip(after.tensors, found.tensors, strict=True)):
        return  # state is another object at each step
    if [k for k in after.key if not isinstance(k, tuple)] != [k for k in found.key if not isinstance(k, tuple)]:
        return
    if not same_bits(_plain_keys(after), _plain_keys(found)):
        return  # numbers of Python's count steps
    lock.script.regions[start.at] = region


def _plain_keys(found: Found) -> list[Any]:
    """Those of settings and of state that is no tensor."""
    return [str(k) for k in found.key if isinstance(k, tuple) and not (len(k) == 4 and isinstance(k[0], int))]


def _unchanged(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return before.keys() == after.keys() and all(before[k] is after[k] for k in before)


# ---------------------------------------------------------------- again


def _play(lock: Lockstep, kind: str, found: Found, optimizer: Any = None) -> bool:
    """Do what the region that starts here did; False when it is another case."""
    region: Region | None = lock.script.regions.get(lock.at)
    if region is None or region.kind != kind or not found.same(region):
        return False
    with lock.guard:
        if not writable(lock, found, region) or not bind(lock, found, region, optimizer):
            return False
        lock.at = region.end
        for k, count in region.writes:
            t = found.tensors[k]
            lock.mark(t)
            t._s.version += count
            t._v.value += count
        for k, number in region.grads:
            found.nodes[k].leaf._grad = pending(lock, number, lock.script.layouts[number])
        for k in region.freed:
            node = found.nodes[k]
            node.freed = True
            node.saved_in = (None,) * len(node.saved_in)
            node.saved_out = None
    return True


def writable(lock: Lockstep, found: Found, region: Region) -> bool:
    """True when what the region writes is memory that nothing else looks at."""
    for k, _ in region.writes:
        t = found.tensors[k]
        if handed_out(t._s) or t._chain:
            return False
        if lock.behind(t._s):
            continue
        if not lock.alone(t) or not t._a.flags.writeable:
            return False
    return True


def bind(lock: Lockstep, found: Found, region: Region, optimizer: Any) -> bool:
    """Give memory that is met here its numbers; False, with nothing done, when it does not fit."""
    bound: list[Storage] = []
    todo = [(memory_of(found.unknown[k]), number) for k, number in region.binds]
    for group, key, number in region.settings:
        given = optimizer.param_groups[group]
        value = np.asarray(given[key] if isinstance(key, str) else given[key[0]][key[1]], np.float64)
        todo.append((fresh(value)._s, number))
    for s, number in todo:
        if not lock.bind(number, s):
            for earlier in bound:
                lock.unbind(earlier)
            return False
        bound.append(s)
    return True
