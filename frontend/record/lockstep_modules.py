"""Regions of a script that are calls of a layer of ours: what its forward does follows from its attributes, its tensors
and its operands, so it is done again as a whole, with the same nodes on the tape.
"""

from __future__ import annotations

from itertools import chain
from operator import is_
from types import FunctionType
from typing import TYPE_CHECKING, Any
from weakref import ref

from graphc.caller import kind_of
from graphc.frontend import autograd
from graphc.frontend.autograd import Edge, Node, Saved
from graphc.frontend.promote import get_default_dtype
from graphc.frontend.record.lockstep_regions import Found, Region, Start, bind, is_plain, writable
from graphc.frontend.record.lockstep_values import LateSaved, pending_on, pending_storage
from graphc.frontend.tensor import Chain, Storage, Tensor
from graphc.ir.op import Op
from graphc.ir.types import DType, Layout, TensorType

if TYPE_CHECKING:
    from graphc.frontend.record.lockstep import Lockstep

Place = tuple[int, int]  # (-1 - k, 0): the edge of tensor k of the key; (k, output): node k of the region
_TENSORS = ("_parameters", "_buffers")
_OTHERS = frozenset({*_TENSORS, "_state_callbacks", "_non_persistent"})
_new = object.__new__


class Layer:
    """What a region needs beside what all have: the layer as it was, the tape nodes to make, the output."""

    __slots__ = ("empty", "fields", "module", "nodes", "number", "output", "randoms")

    def __init__(self, module: Any, fields: list[Any], empty: list[Any]) -> None:
        self.module = module
        self.fields = fields
        self.empty = empty
        self.nodes: list[tuple[Any, ...]] = []
        self.output: Place | None = None
        self.number = 0
        self.randoms: list[int] = []

    def key(self) -> tuple[Any, ...]:
        """All that two recordings must agree in."""
        return self.module, self.nodes, self.output, self.number, self.randoms

    def unchanged(self, module: Any) -> bool:
        """True for the same layer with the very same attributes."""
        if module is not self.module or any(map(len, self.empty)):
            return False
        now = fields_of(module)
        return len(now) == len(self.fields) and all(map(is_, now, self.fields))


def fields_of(module: Any) -> list[Any]:
    """Names and values of all attributes, and the tensors."""
    d = module.__dict__
    return [*d, *d.values(), *d["_parameters"].values(), *d["_buffers"].values()]


def call(lock: Lockstep, module: Any, args: tuple[Any, ...], grad: bool) -> Any:
    """module.forward(*args)."""
    lock.boundary()
    found = _key(lock, module, args, grad) if lock.growing or lock.at in lock.script.regions else None
    if found is None or not lock.active:
        return module.forward(*args)
    if lock.growing:
        return _grow(lock, module, args, found)
    out = _play(lock, module, found)
    return module.forward(*args) if out is None else out


def _key(lock: Lockstep, module: Any, args: tuple[Any, ...], grad: bool) -> Found | None:
    if lock.growing and not _is_layer(module):
        return None
    found = Found(lock)
    found.key += [grad, get_default_dtype(), len(args)]
    d = module.__dict__
    for x in chain(args, d["_parameters"].values(), d["_buffers"].values()):
        if x is None:
            found.key.append(None)
        elif not isinstance(x, Tensor) or x._v is not x._s:
            return None
        else:
            found.key += [found.tensor(x), grad and autograd.edge_of(x) is not None]
    return found


def _is_layer(module: Any) -> bool:
    """One of ours, without children, whose attributes are plain."""
    kind = type(module)
    forward = kind.forward
    ours = kind.__module__.startswith("graphc.") and isinstance(forward, FunctionType)
    if not ours or kind_of(forward.__code__) != "ours":
        return False
    return all(
        name in _OTHERS or is_plain(value) or isinstance(value, DType) or value == {}
        for name, value in module.__dict__.items()
    )


# ---------------------------------------------------------------- a script grows


def _grow(lock: Lockstep, module: Any, args: tuple[Any, ...], found: Found) -> Any:
    empty = [x for name, x in module.__dict__.items() if isinstance(x, dict) and name not in _OTHERS]
    layer = Layer(module, fields_of(module), empty)
    edges = [autograd.edge_of(t) for t in found.tensors]
    start, ticket = Start(lock), autograd.ticket()
    lock.randoms, lock.values_used = [], False
    try:
        result = module.forward(*args)
        region = None if lock.values_used else start.region("module", found)
    finally:
        randoms, lock.randoms = lock.randoms, None
    if region is None or not layer.unchanged(module) or not _plain_result(result):
        return result
    if edges != [autograd.edge_of(t) for t in found.tensors]:  # written with gradients recorded
        return result
    layer.number = lock.number_of(result._s) or 0
    layer.randoms = [n for n in (lock.number_of(t._s) for t in randoms) if n is not None]
    made = {n for e in lock.script.events[start.at : region.end] for n in e.outputs}
    if layer.number in made and len(layer.randoms) == len(randoms):
        tape = _Tape(lock, found, edges, ticket, made, layer.randoms)
        if tape.read(result._edge):
            layer.nodes, layer.output = tape.plans, tape.place(result._edge)
            region.layer = layer
            lock.script.regions[start.at] = region
    return result


def _plain_result(t: Any) -> bool:
    if not isinstance(t, Tensor) or t._chain or t._gbase is not None or t._hooks or t._requires_grad or t._retain:
        return False
    return t._v is t._s and not t._s.version and not t._s.value and not t._s.history and not t._many


class _Tape:
    """Writes down the nodes that a layer put on the tape."""

    def __init__(
        self,
        lock: Lockstep,
        found: Found,
        edges: list[Edge | None],
        ticket: int,
        made: set[int],
        randoms: list[int],
    ) -> None:
        self.lock = lock
        self.randoms = randoms
        self.found = found
        self.ticket = ticket
        self.made = made
        self.plans: list[tuple[Any, ...]] = []
        self._sources = {e: k for k, e in enumerate(edges) if e is not None}
        self._places: dict[Any, int] = {}
        self._memory = {lock.number_of(t._s): t for t in found.tensors}

    def read(self, edge: Edge | None) -> bool:
        """Note the nodes from `edge` on; False when they lead elsewhere or keep what is not known."""
        nodes: dict[Any, None] = {}
        stack = [edge]
        while stack:
            e = stack.pop()
            if e is None or e in self._sources or e[0] in nodes:
                continue
            node: Any = e[0]
            if type(node) is not Node or node.seq <= self.ticket or node.hooks or node.retained or node.custom:
                return False
            nodes[node] = None
            stack += node.edges
        ordered = sorted(nodes, key=lambda n: n.seq)
        self._places = {n: k for k, n in enumerate(ordered)}
        for node in ordered:
            saved = [self._saved(s) for s in (*node.saved_in, *(node.saved_out or ()))]
            if False in saved:
                return False
            edges = tuple(map(self.place, node.edges))
            self.plans.append(
                (node.op, node.attrs, edges, node.in_types, node.out_types, saved, node.saved_out is not None)
            )
        return True

    def place(self, edge: Edge | None) -> Place | None:
        """Where an edge leads."""
        if edge is None:
            return None
        k = self._sources.get(edge)
        return (-1 - k, 0) if k is not None else (self._places[edge[0]], edge[1])

    def _saved(self, s: Saved | None) -> Any:
        """(memory, chain, layout, edge, tensor that is the leaf); False for what is not known."""
        if s is None:
            return None
        number = self.lock.number_of(s.storage)
        known = number in self.made or number in self._memory or number in self.randoms
        if not known or s.versions is not s.storage or s.versions.value != s.version:
            return False
        if number in self.made and s.storage.value:
            return False
        leaf = -1
        if s.leaf is not None:
            leaf = next((k for k, t in enumerate(self.found.tensors) if t is s.leaf), -2)
        if leaf == -2 or (s.edge is not None and s.edge not in self._sources and s.edge[0] not in self._places):
            return False
        return number, s.chain, s.layout, self.place(s.edge), leaf


# ---------------------------------------------------------------- again


def _play(lock: Lockstep, module: Any, found: Found) -> Tensor | None:
    region: Region | None = lock.script.regions.get(lock.at)
    layer: Layer | None = None if region is None else region.layer
    if region is None or layer is None or not layer.unchanged(module) or not found.same(region):
        return None
    with lock.guard:
        if not writable(lock, found, region) or not bind(lock, found, region, None):
            return None
        states = {number: lock.on_random()[0]._s for number in layer.randoms}
        for number, s in states.items():
            lock.bind(number, s)
        lock.at = region.end
        for k, count in region.writes:
            lock.mark(found.tensors[k])
            found.tensors[k]._s.version += count
            found.tensors[k]._v.value += count
        return _Again(lock, found, states).output(layer)


class _Again:
    """Makes the nodes and the output of one call."""

    def __init__(self, lock: Lockstep, found: Found, states: dict[int, Storage]) -> None:
        self.lock = lock
        self.late = ref(lock)
        self.tensors = found.tensors
        self.nodes: list[Node] = []
        self.memory = {lock.number_of(t._s) or 0: t._s for t in found.tensors} | states

    def output(self, layer: Layer) -> Tensor:
        """The tensor the layer gives."""
        for op, attrs, edges, ins, outs, saved, keeps in layer.nodes:
            self.nodes.append(self._node(op, attrs, edges, ins, outs, saved, keeps))
        script = self.lock.script
        t = pending_on(self.lock, self._storage(layer.number), script.layouts[layer.number])
        if layer.output is not None:
            t._edge = self._edge(layer.output)
        return t

    def _storage(self, number: int) -> Storage:
        found = self.memory.get(number)
        if found is None:
            found = self.memory[number] = pending_storage(self.lock, number, self.lock.script.layouts[number])
        return found

    def _edge(self, place: Place | None) -> Edge | None:
        if place is None:
            return None
        k, output = place
        return (self.nodes[k], output) if k >= 0 else autograd.edge_of(self.tensors[-1 - k])

    def _node(
        self,
        op: Op,
        attrs: dict[str, Any],
        edges: tuple[Place | None, ...],
        ins: tuple[TensorType, ...],
        outs: tuple[TensorType, ...],
        saved: list[Any],
        keeps: bool,
    ) -> Node:
        node = autograd._node(op, attrs, tuple(map(self._edge, edges)), ins, outs)
        kept = [None if s is None else self._saved(*s) for s in saved]
        node.saved_in = tuple(kept[: len(ins)])
        if keeps:
            node.saved_out = tuple(kept[len(ins) :])
        return node

    def _saved(self, number: int, chain: Chain, layout: Layout, edge: Place | None, leaf: int) -> Saved:
        s: LateSaved = _new(LateSaved)
        s.lock = self.late
        s.layout, s.chain = layout, chain
        s.storage = s.versions = self._storage(number)
        s.version = s.storage.value
        s.edge = self._edge(edge)
        s.leaf = self.tensors[leaf] if leaf >= 0 else None
        return s
