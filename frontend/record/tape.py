"""The tape behind what a compiled call returns, for a backward() outside of it.

While a function is recorded, eager code makes its usual tape. What of it can be reached from the returned tensors is
written down here with graph values in the places of saved arrays; those become further outputs of the graph. A compiled
call then makes the same nodes again, so gradients, errors and gradients of gradients are eager's own: detached parts
stay detached, writes after the call are noticed by the same version counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphc.errors import RecordingError
from graphc.frontend import autograd
from graphc.frontend.autograd import AccumulateGrad, Edge, Node, Saved
from graphc.frontend.record.recorder import Recorder
from graphc.frontend.record.roots import slot_in
from graphc.frontend.tensor import Chain, Storage, Tensor, VersionCounter, fresh
from graphc.ir.graph import Value
from graphc.ir.op import Array, Op, op_named
from graphc.ir.types import Layout, TensorType

Link = tuple[
    str, int, int
]  # ("source", number, 0): the edge of that tensor; ("node", position on the tape, output number)
_new = object.__new__


@dataclass(frozen=True, slots=True, eq=False)
class SavedPlan:
    """Where a saved array is found. kind: "source" (tensor behind graph input `number`), "base" (returned storage from
    graph output `number`), "saved" (number `number` of the values kept for this alone), "constant" (`array`). `chain`
    leads from there to the saved tensor.
    """

    kind: str
    number: int
    chain: Chain
    layout: Layout | None  # None: it depends on values
    link: Link | None
    leaf: bool
    stale: bool  # written since: unpacking it raises, as in eager code
    array: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class NodePlan:
    """One tape node to make."""

    op: Op
    attrs: dict[str, Any]
    links: tuple[Link | None, ...]
    ins: tuple[TensorType, ...]
    outs: tuple[TensorType, ...]
    saved_in: tuple[SavedPlan | None, ...]
    saved_out: tuple[SavedPlan | None, ...] | None
    freed: bool

    def key(self) -> tuple[Any, ...]:
        """Everything, as plain tuples."""
        saved = tuple(s and _saved_key(s) for s in (*self.saved_in, *(self.saved_out or ())))
        return self.op, self.attrs, self.links, self.ins, self.outs, saved, self.freed


def _saved_key(s: SavedPlan) -> tuple[Any, ...]:
    return s.kind, s.number, s.chain, s.layout, s.link, s.leaf, s.stale, s.array


# ---------------------------------------------------------------- from a recording


class TapePlanner:
    """Writes down the tape that leads to some edges.

    `bases` says for a storage's id which graph output its root is; further values to keep are added to `saved`.
    """

    def __init__(self, recorder: Recorder, bases: dict[int, tuple[Any, int]], saved: list[Value]) -> None:
        self.recorder = recorder
        self.bases = bases
        self.saved = saved
        self._sources: dict[Edge, int] = {}
        for number, (edge, root) in enumerate(zip(recorder.source_edges, recorder.source_roots, strict=True)):
            if edge is not None and root.source is not None and root.source.tensor is root.tensor:
                self._sources.setdefault(edge, number)
        self._outputs: dict[Value, int] = {}
        self._places: dict[Node, int] = {}

    def plan(self, roots: Sequence[Edge | None]) -> tuple[NodePlan, ...]:
        """The nodes reached from `roots`, oldest first."""
        nodes: dict[Node, None] = {}
        stack = [e for e in roots if e is not None]
        while stack:
            edge = stack.pop()
            node: Any = edge[0]
            if edge in self._sources or node in nodes:
                continue
            self._check(node)
            nodes[node] = None
            if not node.freed:
                stack += [e for e in node.edges if e is not None]
        ordered = sorted(nodes, key=lambda n: n.seq)
        self._places = {node: k for k, node in enumerate(ordered)}
        return tuple(map(self._node, ordered))

    def link(self, edge: Edge | None) -> Link | None:
        """An edge by position; after plan()."""
        if edge is None:
            return None
        number = self._sources.get(edge)
        node: Any = edge[0]
        return ("source", number, 0) if number is not None else ("node", self._places[node], edge[1])

    def _check(self, node: Any) -> None:
        if isinstance(node, AccumulateGrad):
            raise RecordingError(
                f"gradients of a returned value end at a leaf {node.leaf._l.type} that is no input of the compiled "
                "function; detach() what is returned"
            )
        if node.seq <= self.recorder.first_ticket:
            raise RecordingError(
                f"a returned value has a gradient history ({node.name()}) from before the call that is not that of an "
                "input; detach() it"
            )
        if node.custom and not node.freed:
            raise RecordingError(
                f"a returned value has a history with {node.cls.__name__}, a Function called at {node.line}; call "
                "backward() inside the compiled function, or detach() the value"
            )
        if any(s is not None and s.packed and not s.again for s in (*node.saved_in, *(node.saved_out or ()))):
            raise RecordingError(
                f"a returned value has a history ({node.name()}{self._line(node)}) whose saved tensors are kept by "
                "hooks, or by a checkpoint of what changes state or whose input was written since; call backward() "
                "inside the compiled function, or detach() the value"
            )
        if not node.freed and (node.hooks or node.retained):
            raise RecordingError(
                f"a hook or retain_grad() waits at {node.name()} for a backward() outside the compiled function; move "
                "it out of the function"
            )
        if not node.custom and not _defined(node.op):
            raise RecordingError(
                f"a returned value has a history with the operation {node.op.name!r} of your own; detach() it"
            )

    def _line(self, node: Node) -> str:
        values = self.recorder.tape.get(node, ((), ()))[1]
        return f" at {values[0].node.loc}" if values and values[0].node is not None else ""

    def _node(self, node: Node) -> NodePlan:
        if node.freed:
            return NodePlan(node.op, dict(node.attrs), (), (), node.out_types, (), None, True)
        ins, outs = self.recorder.tape.get(node, ((), ()))
        saved_in = tuple(
            None if s is None else self._saved(s, ins[k], self.link(s.edge)) for k, s in enumerate(node.saved_in)
        )
        saved_out = (
            None
            if node.saved_out is None
            else tuple(
                None if s is None else self._saved(s, v, None) for s, v in zip(node.saved_out, outs, strict=True)
            )
        )
        return NodePlan(
            node.op,
            dict(node.attrs),
            tuple(map(self.link, node.edges)),
            node.in_types,
            node.out_types,
            saved_in,
            saved_out,
            False,
        )

    def _saved(self, s: Saved, value: Value, link: Link | None) -> SavedPlan:
        layout = None if self.recorder.counted else s.layout
        if s.packed:  # a checkpoint's: kept, or computed again, as the graph of the gradients says
            return self._kept(value, s.layout, layout, link, False)
        stale = s.versions.value != s.version
        source = self._source(s)
        if source is not None:
            number, rest = source
            return SavedPlan("source", number, rest, layout, link, s.leaf is not None and not rest, stale)
        found = self.bases.get(id(s.storage))
        if found is not None:
            return SavedPlan("base", found[1], s.chain, layout, link, False, stale)
        return self._kept(value, s.layout, layout, link, stale)

    def _kept(self, value: Value, exact: Layout, layout: Layout | None, link: Link | None, stale: bool) -> SavedPlan:
        """A constant, or a value kept for this alone."""
        if value.node is not None and value.node.op.name == "constant":
            return SavedPlan("constant", -1, (), exact, link, False, stale, value.node.attrs["value"])
        number = self._outputs.get(value, -1)
        if number < 0:
            number = self._outputs[value] = len(self.saved)
            self.saved.append(value)
        return SavedPlan("saved", number, (), layout, link, False, stale)

    def _source(self, s: Saved) -> tuple[int, Chain] | None:
        """The input or state whose memory was saved, and the views from there."""
        slot = slot_in(s.storage, self.recorder)
        roots = [] if slot is None else slot.roots
        best: tuple[int, Chain] | None = None
        for root in roots:
            n = len(root.chain)
            if root.source is None or root.source.kind not in ("arg", "path") or s.chain[:n] != root.chain:
                continue
            if best is None or len(s.chain) - n < len(best[1]):
                best = self.recorder.sources.index(root.source), s.chain[n:]
        return best


def _defined(op: Op) -> bool:
    try:
        return op_named(op.name) is op
    except KeyError:
        return False


# ---------------------------------------------------------------- at a call

# what a tape keeps of a tensor: its memory, and how to tell that it was written since
Held = tuple[Array, Storage, Chain, Storage | VersionCounter, int, Tensor | None]


def held(t: Tensor, stale: bool) -> Held:
    """What is kept of `t`; `stale`: some node saved it before its last write."""
    if stale and not t._v.value:
        t._v.value = 1
    return t._a, t._s, t._chain, t._v, t._v.value, t if t._requires_grad else None


class Tape:
    """The eager nodes of one compiled call, made when they are asked for.

    `edges`: where the links to a source lead. `owners`: what was kept of sources and returned storages. `arrays`: the
    values kept for the tape alone. `freed`: the nodes (a bit each) whose saved arrays are gone. `last`: a number below
    it is the last node's.
    """

    def __init__(
        self,
        plans: Sequence[NodePlan],
        edges: dict[int, Edge | None],
        owners: dict[tuple[str, int], Held],
        arrays: Sequence[Array],
        freed: int,
        last: int,
    ) -> None:
        self.edges = edges
        self.owners = owners
        self.arrays = arrays
        self.nodes: list[Node] = []
        self._private: dict[int, Tensor] = {}
        for k, plan in enumerate(plans):
            self.nodes.append(self._node(plan, bool(freed >> k & 1)))
            self.nodes[-1].seq = last - len(plans) + k

    def edge(self, link: Link | None) -> Edge | None:
        """The edge a link stands for in this call."""
        if link is None:
            return None
        kind, number, k = link
        return (self.nodes[number], k) if kind == "node" else self.edges[number]

    def _node(self, plan: NodePlan, freed: bool) -> Node:
        node = autograd._node(plan.op, plan.attrs, tuple(map(self.edge, plan.links)), plan.ins, plan.outs)
        node.freed = plan.freed or freed
        node.saved_in = tuple(None if s is None or freed else self._saved(s) for s in plan.saved_in)
        if plan.saved_out is not None and not freed:
            node.saved_out = tuple(None if s is None else self._saved(s) for s in plan.saved_out)
        return node

    def _saved(self, plan: SavedPlan) -> Saved:
        array, storage, chain, versions, version, leaf = self._owner(plan)
        for op, attrs in plan.chain:
            array = op.reference(array, **attrs)
        saved: Saved = _new(Saved)
        saved.array, saved.storage, saved.chain = array, storage, (*chain, *plan.chain)
        # what a graph gives has other strides than eager's view had
        saved.layout = Layout.of(array) if plan.layout is None or plan.kind == "saved" else plan.layout
        saved.versions = versions
        saved.version = version - plan.stale
        saved.edge = self.edge(plan.link)
        saved.leaf = leaf if plan.leaf else None
        return saved

    def _owner(self, plan: SavedPlan) -> Held:
        if plan.kind in ("source", "base"):
            return self.owners[plan.kind, plan.number]
        if plan.kind == "constant":
            assert plan.array is not None
            return held(fresh(plan.array, plan.layout), False)
        return held(base_of(self._private, plan.number, self.arrays), plan.stale)


def base_of(made: dict[int, Tensor], number: int, results: Sequence[Array]) -> Tensor:
    """The tensor over graph output `number`, made once."""
    base = made.get(number)
    if base is None:
        base = made[number] = fresh(results[number])
    return base


def own_version(t: Tensor) -> bool:
    """True for tensors (`.data`) whose writes are counted apart."""
    return isinstance(t._v, VersionCounter)
