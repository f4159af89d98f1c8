"""Tape autograd: nodes hold edges to nodes and only the arrays their gradient rule needs.

Contributions to one value add left to right in descending sequence number of the consumer; the first is taken as it
is. In-place writes replace the edge of the written tensor; a write through a view rebases the base: its new edge is
built by replaying the view's chain backwards as scatters on stand-ins, so that no value is computed.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc.errors import AutogradError, InternalError
from graphc.frontend.mode import mode, using
from graphc.frontend.plan import Plan, kept_by
from graphc.frontend.tensor import Chain, Storage, Tensor, VersionCounter
from graphc.ir.op import Array, Attrs, Op, op_named
from graphc.ir.types import Layout, TensorType

if TYPE_CHECKING:
    from typing import TypeAlias

TICKETS = 1 << 20  # numbers between two nodes: for those that a compiled call's node stands for
_ticket = itertools.count(TICKETS, TICKETS).__next__
_new = object.__new__
# called with every node put on the tape and its tensors, while anomaly mode, saved-tensor hooks or a checkpoint are
# active anywhere; each asks itself whether it is meant
observers: list[Callable[[Node, tuple[Tensor, ...], tuple[Tensor, ...]], None]] = []


class Node:
    """One recorded operation. `edges[k]` says where the gradient of operand k goes."""

    __slots__ = (
        "__weakref__",
        "attrs",
        "edges",
        "freed",
        "hooks",
        "in_types",
        "op",
        "out_types",
        "retained",
        "saved_in",
        "saved_out",
        "seq",
        "way",
    )
    op: Op
    attrs: dict[str, Any]
    edges: tuple[Edge | None, ...]
    in_types: tuple[TensorType, ...]
    out_types: tuple[TensorType, ...]
    saved_in: tuple[Saved | None, ...]
    saved_out: tuple[Saved | None, ...] | None
    way: Plan  # of the forward call, where it was put on the tape by one
    seq: int
    hooks: dict[int, Callable[..., Any]] | None
    retained: dict[int, Any] | None  # output number -> weak reference to a tensor that wants its .grad
    freed: bool
    custom = False  # a node of a user's Function: its gradients come from `gradients()`, not from a rule

    def inner(self, k: int) -> tuple[Node, int]:
        """Where output k is on the tape now: elsewhere once a compiled call's node was opened."""
        return self, k

    def opened(self, k: int) -> tuple[Node, int]:
        """The node of the one operation that gave output k, and its output."""
        return self, k

    def gradients(self, slot: dict[int, Tensor], needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        """The gradients of the operands from those of the outputs; for custom nodes alone."""
        raise InternalError(f"{self.op.name} is no custom node")

    def name(self) -> str:
        """The name PyTorch users expect: `MulBackward0`."""
        return "".join(part.capitalize() for part in self.op.name.split("_")) + "Backward0"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """(node, output number) for every operand; (None, 0) where no gradient flows."""
        return tuple((None, 0) if e is None else e[0].opened(e[1]) for e in self.edges)

    def register_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call `hook(grad_inputs, grad_outputs)` after this node ran; a returned tuple replaces the input gradients."""
        if self.hooks is None:
            self.hooks = {}
        return Handle(self.hooks, hook)

    def register_prehook(self, hook: Callable[..., Any]) -> Handle:
        """Call `hook(grad_outputs)` before this node runs; a returned tuple replaces the output gradients."""
        if self.hooks is None:
            self.hooks = {}
        return Handle(self.hooks, PreHook(hook))

    def __repr__(self) -> str:
        return f"<{self.name()}>"


class PreHook(functools.partial[Any]):
    """A hook of a node that runs before it."""


class PostHook(functools.partial[Any]):
    """A hook of a leaf that runs once its gradient is in `.grad`; it stands among the leaf's other hooks, whose
    presence a recording knows.
    """


class AccumulateGrad:
    """Where gradients of a leaf end."""

    __slots__ = ("__weakref__", "hooks", "leaf")
    hooks: dict[int, Any] | None
    seq = 0
    retained = None

    def __init__(self, leaf: Tensor) -> None:
        self.leaf = leaf
        self.hooks = None

    register_hook = Node.register_hook
    register_prehook = Node.register_prehook

    next_functions: tuple[tuple[Any, int], ...] = ()
    edges: tuple[Edge | None, ...] = ()

    def inner(self, k: int) -> Edge:
        """Itself."""
        return self, k

    opened = inner

    @property
    def variable(self) -> Tensor:
        """The leaf."""
        return self.leaf

    def name(self) -> str:
        """The name PyTorch users expect."""
        return "AccumulateGrad"

    def __repr__(self) -> str:
        return "<AccumulateGrad>"


if TYPE_CHECKING:
    Edge: TypeAlias = tuple[Node | AccumulateGrad, int]
else:
    Edge = tuple


class Handle:
    """Removes a hook again."""

    _ids = itertools.count()

    def __init__(self, hooks: dict[int, Any], hook: Any) -> None:
        self.hooks = hooks
        self.id = next(Handle._ids)
        hooks[self.id] = hook

    def remove(self) -> None:
        """Take the hook away; doing it twice is harmless."""
        self.hooks.pop(self.id, None)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


class Saved:
    """An operand or output kept for the backward pass: the memory, its version then, and its edge.

    A node's own outputs have no edge here, so that there is no cycle.
    """

    packed = False  # kept by others: hooks or a checkpoint
    again = False  # it can be computed again

    __slots__ = ("array", "chain", "edge", "layout", "leaf", "storage", "version", "versions")

    def __init__(self, t: Tensor, edge: Edge | None) -> None:
        self.array: Array = t._a
        self.layout: Layout = t._l
        self.storage: Storage = t._s
        self.chain: Chain = t._chain
        self.versions: Storage | VersionCounter = t._v
        self.version = t._v.value
        self.edge = edge
        self.leaf = t if t._requires_grad else None

    def unpack(self, node: Node, edge: Edge | None) -> Tensor:
        """The tensor as it was. Raises AutogradError when it was written in place since."""
        if self.versions.value != self.version:
            raise AutogradError(
                f"{node.op.name}: one of the variables needed for gradient computation has been modified by an inplace "
                f"operation: a tensor {self.layout.type} saved by {node.op.name} is at version {self.versions.value}; "
                f"expected version {self.version} instead. Hint: use an out-of-place form of the write, or clone() the "
                "tensor first; autograd.detect_anomaly() names the line of the forward operation"
            )
        if self.leaf is not None:
            return self.leaf
        t = self.unpack_now()
        t._edge = edge
        return t

    def copied(self) -> Saved:
        """The same elements in memory of their own."""
        with using(grad=False):
            copy: Tensor = op_named("clone")(self.unpack_now())
        return Saved(copy, self.edge)

    def unpack_now(self) -> Tensor:
        """A tensor over the memory, whatever its version."""
        t: Tensor = _new(Tensor)
        t._a, t._l, t._s, t._chain, t._v = self.array, self.layout, self.storage, self.chain, self.versions
        t._history = -1
        return t


class TypeOnly:
    """Stands in for an operand a rule reads only the type of."""

    __slots__ = ("ttype",)

    def __init__(self, type: TensorType) -> None:
        self.ttype = type


class Ghost:
    """An operand with a type and a place on the tape but no value: calling an op on it extends the tape alone."""

    __slots__ = ("edge", "ttype")

    def __init__(self, type: TensorType, edge: Edge | None) -> None:
        self.ttype = type
        self.edge = edge

    @staticmethod
    def apply_op(op: Op, operands: tuple[Any, ...], attrs: Attrs) -> Ghost:
        """Add a tape node for `op` without running it."""
        ghosts = [x for x in operands if isinstance(x, Ghost)]
        if op.saves or len(ghosts) != len(operands) or op.outputs != 1:
            raise InternalError(f"{op.name} cannot be replayed on the tape without values")
        types = tuple(g.ttype for g in ghosts)
        attrs = _settled(attrs)
        out = op.infer_types(types, attrs)
        edges = tuple(g.edge for g in ghosts)
        if all(e is None for e in edges):
            return Ghost(out[0], None)
        node = _node(op, dict(attrs), edges, types, out)
        node.saved_in = (None,) * len(ghosts)
        return Ghost(out[0], (node, 0))


def _settled(attrs: Attrs) -> Attrs:
    """Attributes of a view that lies on after its recording was refused: its named sizes are numbers again."""
    recorder = mode.get().recorder
    if recorder is None or getattr(recorder, "refusal", None) is None:
        return attrs
    from graphc.frontend.dispatch import concrete  # it is built on this module

    return concrete(attrs)


def _node(
    op: Op,
    attrs: dict[str, Any],
    edges: tuple[Edge | None, ...],
    ins: tuple[TensorType, ...],
    outs: tuple[TensorType, ...],
    kind: type[Node] = Node,
) -> Node:
    node: Node = _new(kind)
    node.op, node.attrs, node.edges, node.in_types, node.out_types = op, attrs, edges, ins, outs
    node.seq = _ticket()
    node.hooks = node.retained = node.saved_out = None
    node.freed = False
    return node


def record(
    op: Op,
    tensors: tuple[Tensor, ...],
    edges: tuple[Edge | None, ...],
    attrs: dict[str, Any],
    outputs: tuple[Tensor, ...],
) -> None:
    """Put `outputs = op(*tensors, **attrs)` on the tape."""
    node = _node(op, attrs, edges, tuple(t.ttype for t in tensors), tuple(o.ttype for o in outputs))
    needs = tuple(e is not None for e in edges)
    kept = kept_by(op, tuple(t._l.type for t in tensors), tuple(o._l.type for o in outputs), attrs, needs)
    _finish(node, kept, tensors, outputs)


def put(plan: Plan, tensors: tuple[Tensor, ...], edges: tuple[Edge | None, ...], outputs: tuple[Tensor, ...]) -> None:
    """Put the operation of a plan on the tape."""
    node = _planned(plan, edges)
    if plan.taped and not plan.op.saves and not observers:
        node.saved_in = plan.nothing
        outputs[0]._edge = (node, 0)
        return
    _finish(node, plan.kept(tuple([e is not None for e in edges])), tensors, outputs)


def put_one(plan: Plan, x: Tensor, out: Tensor) -> None:
    """The same for one operand and one output, if a gradient flows to the operand."""
    if not plan.taped:
        return
    edge = edge_of(x)
    if edge is None:
        return
    node = _planned(plan, (edge,))
    ins, outs = plan.saved.get(_ONE) or plan.kept(_ONE)
    node.saved_in = plan.nothing if ins is None else (Saved(x, edge),)
    out._edge = (node, 0)
    if outs is not None:
        node.saved_out = (Saved(out, None),)
    if observers:
        _tell(node, (x,), (out,))


def put_two(plan: Plan, x: Tensor, y: Tensor, out: Tensor) -> None:
    """The same for two operands and one output, if a gradient flows to one of them."""
    if not plan.taped:
        return
    first, second = edge_of(x), edge_of(y)
    needs = _PAIRS[first is not None, second is not None]
    if needs is None:
        return
    node = _planned(plan, (first, second))
    ins, outs = plan.saved.get(needs) or plan.kept(needs)
    if ins is None:
        node.saved_in = plan.nothing
    else:
        node.saved_in = (Saved(x, first) if ins[0] else None, Saved(y, second) if ins[1] else None)
    out._edge = (node, 0)
    if outs is not None:
        node.saved_out = (Saved(out, None),)
    if observers:
        _tell(node, (x, y), (out,))


_ONE = (True,)
_PAIRS = {(a, b): (a, b) if a or b else None for a in (False, True) for b in (False, True)}


def _planned(plan: Plan, edges: tuple[Edge | None, ...]) -> Node:
    node: Node = _new(Node)
    node.op = plan.op
    node.attrs = plan.attrs
    node.edges = edges
    node.in_types = plan.in_types
    node.out_types = plan.types
    node.seq = _ticket()
    node.hooks = node.retained = node.saved_out = None
    node.freed = False
    node.way = plan
    return node


def _tell(node: Node, tensors: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
    for observe in observers:
        observe(node, tensors, outputs)


def _finish(
    node: Node,
    kept: tuple[tuple[bool, ...] | None, tuple[bool, ...] | None],
    tensors: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
) -> None:
    """What `kept` says is kept, the outputs get their edges, and whoever watches is told."""
    ins, outs = kept
    node.saved_in = (
        (None,) * len(tensors)
        if ins is None
        else tuple([Saved(t, e) if k else None for t, e, k in zip(tensors, node.edges, ins, strict=True)])
    )
    for k, out in enumerate(outputs):
        if out._l.type.dtype.kind == "f":
            out._edge = (node, k)
    if outs is not None:
        node.saved_out = tuple([Saved(o, None) if k else None for o, k in zip(outputs, outs, strict=True)])
    if observers:
        _tell(node, tensors, outputs)


def edges_of(tensors: tuple[Tensor, ...]) -> tuple[Edge | None, ...] | None:
    """The edge of each tensor; None where no gradient flows to any of them."""
    for t in tensors:
        if t._edge is not None or t._requires_grad or t._gbase is not None:
            edges = tuple(map(edge_of, tensors))
            return edges if edges.count(None) < len(edges) else None
    return None


def edge_of(t: Tensor) -> Edge | None:
    """Where gradients of `t` go (None: nowhere), brought up to date if its base was written through another view."""
    if t._gbase is not None and t._history >= 0 and t._history != t._s.history:
        t._edge = _replay(t._gbase, t).edge
        t._history = t._s.history
    found: Edge | None = t._edge
    if found is not None:
        return found
    if t._requires_grad:
        node = None if t._leaf_node is None else t._leaf_node()
        if node is None:
            node = _new(AccumulateGrad)
            node.leaf, node.hooks = t, None
            t._leaf_node = weakref.ref(node)  # weak: the node holds its leaf
        return (node, 0)
    return None


def autograd_chain(t: Tensor) -> Chain:
    """The views that lead to `t` from the tensor whose gradient history it shares."""
    return t._chain[t._gskip :]


def _replay(base: Tensor, view: Tensor) -> Ghost:
    ghost: Any = Ghost(base._l.type, edge_of(base))
    for op, attrs in autograd_chain(view):
        ghost = op(ghost, **attrs)
    found: Ghost = ghost
    return found


def ticket() -> int:
    """A number below those of all nodes made from now on."""
    return _ticket()


def watch(t: Tensor) -> None:
    """Let the node that made `t` run its hooks and fill its `.grad` if it is retained."""
    edge = edge_of(t)
    if edge is None or isinstance(edge[0], AccumulateGrad):
        return
    node, k = edge[0].inner(edge[1])
    if node.retained is None:
        node.retained = {}
    found = node.retained.get(k)  # hooks from before an in-place write stay where they are, at another node
    t._hooks = {} if found is None else found[0]
    node.retained[k] = (t._hooks, weakref.ref(t) if found is None or t._retain else found[1])
