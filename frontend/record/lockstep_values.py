"""Tensors whose memory a lockstep call has not computed yet.

Such a tensor is an instance of a subclass whose `_a` is a property: asking for it makes the call catch up, after which
the tensor is of its own class again, with its array. A tensor from outside that a pending write will change is of such
a class for as long, too. Tensors elsewhere pay nothing.
"""

from __future__ import annotations

import sys
import weakref
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.frontend import autograd
from graphc.frontend.autograd import Edge, Saved
from graphc.frontend.plan import Plan
from graphc.frontend.tensor import Chain, Storage, Tensor, VersionCounter, fresh
from graphc.ir.op import Array
from graphc.ir.types import Layout

if TYPE_CHECKING:
    from graphc.frontend.record.lockstep import Lockstep

_new = object.__new__


class PendingStorage(Storage):
    """Memory that is not there yet. `number`: what the script calls it."""

    lock: Lockstep
    number: int

    @property
    def owner(self) -> Array:  # type: ignore[override]
        """The array, computed now."""
        self.lock.touch()
        array: Array = self.__dict__["owner"]
        return array

    def settle(self, array: Array) -> None:
        """The memory is there."""
        self.__class__ = Storage  # type: ignore[assignment]
        fields = self.__dict__
        fields["owner"] = array
        del fields["lock"], fields["number"]


def _array(t: Tensor) -> Array:
    t._lock.touch()  # type: ignore[attr-defined]
    fields = t.__dict__
    return fields["_a"] if "_a" in fields else array_of(t)


def _replace(t: Tensor, array: Array) -> None:
    t._lock.touch()  # type: ignore[attr-defined]
    settle(t)
    t.__dict__["_a"] = array


def _pending_form(kind: type) -> type:
    fields = {"_a": property(_array, _replace), "_plain_class": kind}
    fields |= {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), fields)


PendingTensor = _pending_form(Tensor)
_CLASSES: dict[type, type] = {Tensor: PendingTensor}
_PLAIN: dict[type, type] = {PendingTensor: Tensor}


def make_pending(t: Tensor) -> bool:
    """Give a tensor the pending form of its class; False for a class of the user's with slots of its own."""
    kind = t.__class__
    found = _CLASSES.get(kind)
    if found is None:
        found = _CLASSES[kind] = _pending_form(kind)
        _PLAIN[found] = kind
    try:
        t.__class__ = found
    except TypeError:
        return False
    return True


def is_pending(t: Tensor) -> bool:
    """True for a tensor whose memory is not there or not up to date."""
    return t.__class__ in _PLAIN


def settle(t: Tensor) -> None:
    """Give a pending tensor its own class and, where it has none, its array."""
    kind = _PLAIN.get(t.__class__)
    if kind is None:
        return
    fields = t.__dict__
    if "_a" not in fields:
        fields["_a"] = array_of(t)
    t.__class__ = kind
    fields.pop("_lock", None)


def array_of(t: Tensor) -> Array:
    """The array of a tensor from its storage's."""
    return through(t._s.owner, t._chain)


def through(array: Array, chain: Chain) -> Array:
    """The array that a chain of views leads to."""
    for op, attrs in chain:
        array = op.reference(array, **attrs)
    return array


def pending_storage(lock: Lockstep, number: int, layout: Layout) -> PendingStorage:
    """New memory, still to be computed."""
    s: PendingStorage = _new(PendingStorage)
    s.lock, s.number, s.root = lock, number, layout.type
    lock.note_storage(s, number)
    return s


def pending_on(lock: Lockstep, s: Storage, layout: Layout) -> Tensor:
    """A tensor that is the root of this memory."""
    t: Tensor = _new(PendingTensor)
    fields = t.__dict__
    fields["_lock"] = lock
    fields["_l"] = layout
    fields["_s"] = fields["_v"] = s
    lock.note_tensor(t)
    return t


def pending(lock: Lockstep, number: int, layout: Layout) -> Tensor:
    """A tensor that is the root of new memory, still to be computed."""
    return pending_on(lock, pending_storage(lock, number, layout), layout)


def pending_over(lock: Lockstep, base: Any, layout: Layout, chain: Chain) -> Tensor:
    """A tensor over the memory of `base` (a Tensor or Saved-like object with `_s` and `_v`), to be computed."""
    t: Tensor = _new(PendingTensor)
    t._lock = lock  # type: ignore[attr-defined]
    t._l, t._s, t._v, t._chain = layout, base._s, base._v, chain
    lock.note_tensor(t)
    return t


def pending_view(lock: Lockstep, base: Tensor, link: Chain, layout: Layout) -> Tensor:
    """As `tensor.view_of`."""
    t = pending_over(lock, base, layout, base._chain + link)
    t._gbase = base if base._gbase is None else base._gbase
    t._gskip = t._gbase._gskip if t._gbase._gbase is not None else len(t._gbase._chain)
    t._history = base._s.history
    if base._many:
        t._many = base._many
    return t


def pending_alias(lock: Lockstep, base: Tensor, share_version: bool) -> Tensor:
    """As `tensor.alias_of`."""
    t = pending_over(lock, base, base._l, base._chain)
    if not share_version:
        t._v = VersionCounter()
    t._history = -1
    return t


class LateSaved(Saved):
    """What a tape node keeps of a pending tensor."""

    __slots__ = ("lock",)

    def __init__(self, t: Tensor, edge: Edge | None) -> None:
        self.lock = weakref.ref(t._lock)  # type: ignore[attr-defined]
        self.layout, self.storage, self.chain, self.versions = t._l, t._s, t._chain, t._v
        self.version = t._v.value
        self.edge = edge
        self.leaf = t if t._requires_grad else None

    @property
    def array(self) -> Array:  # type: ignore[override]
        """The memory, computed now if need be."""
        return through(self.storage.owner, self.chain)

    def unpack_now(self) -> Tensor:
        """A tensor over the memory, whatever its version."""
        lock = self.lock()
        if lock is not None and lock.behind(self.storage):
            t: Tensor = _new(PendingTensor)
            t._lock = lock  # type: ignore[attr-defined]
            t._l, t._s, t._chain, t._v = self.layout, self.storage, self.chain, self.versions
            t._history = -1
            lock.note_tensor(t)
            return t
        return super().unpack_now()


def put(plan: Plan, tensors: tuple[Tensor, ...], edges: tuple[Edge | None, ...], outputs: tuple[Tensor, ...]) -> None:
    """As `autograd.put`, with pending tensors."""
    node = autograd._node(plan.op, plan.attrs, edges, plan.in_types, plan.types)
    ins, outs = plan.kept(tuple([e is not None for e in edges]))
    node.saved_in = (
        plan.nothing
        if ins is None
        else tuple([_saved(t, e) if k else None for t, e, k in zip(tensors, edges, ins, strict=True)])
    )
    for k, out in enumerate(outputs):
        if out._l.type.dtype.kind == "f":
            out._edge = (node, k)
    if outs is not None:
        node.saved_out = tuple([_saved(o, None) if k else None for o, k in zip(outputs, outs, strict=True)])
    for observe in autograd.observers:
        observe(node, tensors, outputs)


def _saved(t: Tensor, edge: Edge | None) -> Saved:
    return LateSaved(t, edge) if is_pending(t) else Saved(t, edge)


def handed_out(s: Storage) -> bool:
    """True for memory that NumPy or another library may look at now: some array over it is still held."""
    return s.exposed and (s.owner.base is not None or sys.getrefcount(s.owner) > _HELD)


def _held() -> int:
    t = fresh(np.zeros(()))
    return sys.getrefcount(t._s.owner)


_HELD = _held()  # references to an array that its tensor alone has


@lru_cache(maxsize=256)
def stand_in(layout: Layout) -> Tensor:
    """A tensor of this layout with no memory behind it: for what looks at types and strides alone."""
    item = np.empty(1, layout.type.dtype.np)
    steps = tuple(s * item.itemsize for s in layout.strides)
    array = np.lib.stride_tricks.as_strided(item, layout.type.sizes, steps, writeable=False)
    return fresh(array, layout)
