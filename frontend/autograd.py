"""Tape autograd: nodes hold edges to nodes and only the arrays their gradient rule needs.

Contributions to one value add left to right in descending sequence number of the consumer; the first is taken as it is. In-place
writes replace the edge of the written tensor; a write through a view rebases the base: its new edge is built by replaying the
view's chain backwards as scatters on stand-ins, so that no value is computed.
"""

from __future__ import annotations

import heapq
import itertools
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from graphc.errors import ArgumentError, AutogradError, DTypeError, InternalError, ShapeError
from graphc.frontend.mode import mode, using
from graphc.frontend.tensor import Chain, Storage, Tensor, VersionCounter, _clear
from graphc.ir.op import Array, Attrs, Op, op_named
from graphc.ir.types import Layout, TensorType

if TYPE_CHECKING:
    from typing import TypeAlias

_ticket = itertools.count(1).__next__
_new = object.__new__


class Node:
    """One recorded operation. `edges[k]` says where the gradient of operand k goes."""

    __slots__ = ("__weakref__", "attrs", "edges", "freed", "hooks", "in_types", "op", "out_types", "retained", "saved_in", "saved_out", "seq")
    op: Op
    attrs: dict[str, Any]
    edges: tuple[Edge | None, ...]
    in_types: tuple[TensorType, ...]
    out_types: tuple[TensorType, ...]
    saved_in: tuple[Saved | None, ...]
    saved_out: tuple[Saved, ...] | None
    seq: int
    hooks: dict[int, Callable[..., Any]] | None
    retained: dict[int, Any] | None  # output number -> weak reference to a tensor that wants its .grad
    freed: bool

    def name(self) -> str:
        """The name PyTorch users expect: `MulBackward0`."""
        return "".join(part.capitalize() for part in self.op.name.split("_")) + "Backward0"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """(node, output number) for every operand; (None, 0) where no gradient flows."""
        return tuple((None, 0) if e is None else e for e in self.edges)

    def register_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call `hook(grad_inputs, grad_outputs)` after this node ran in backward; a returned tuple replaces the input gradients."""
        if self.hooks is None:
            self.hooks = {}
        return Handle(self.hooks, hook)

    def __repr__(self) -> str:
        return f"<{self.name()}>"


class AccumulateGrad:
    """Where gradients of a leaf end."""

    __slots__ = ("__weakref__", "hooks", "leaf", "retained", "seq")

    def __init__(self, leaf: Tensor) -> None:
        self.leaf = leaf
        self.seq = 0
        self.hooks: dict[int, Callable[..., Any]] | None = None
        self.retained = None

    next_functions: tuple[tuple[Any, int], ...] = ()

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
    """An operand or output kept for the backward pass: the memory, its version then, and its edge (none for a node's own outputs)."""

    __slots__ = ("array", "chain", "edge", "layout", "leaf", "storage", "version", "versions")

    def __init__(self, t: Tensor, edge: Edge | None) -> None:
        self.array: Array = t._a
        self.layout: Layout = t._l
        self.storage: Storage = t._s
        self.chain: Chain = t._chain
        self.versions: VersionCounter = t._v
        self.version = t._v.value
        self.edge = edge
        self.leaf = t if t._requires_grad else None

    def unpack(self, node: Node, edge: Edge | None) -> Tensor:
        """The tensor as it was. Raises AutogradError when it was written in place since."""
        if self.versions.value != self.version:
            raise AutogradError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                f"a tensor {self.layout.type} saved by {node.op.name} is at version {self.versions.value}; expected version {self.version} instead. "
                "Hint: use an out-of-place form of the write, or clone() the tensor first"
            )
        if self.leaf is not None:
            return self.leaf
        t: Tensor = _new(Tensor)
        t._a, t._l, t._s, t._chain, t._v = self.array, self.layout, self.storage, self.chain, self.versions
        _clear(t)
        t._edge = edge
        t._history = -1
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
        _clear(t)
        t._history = -1
        return t


class TypeOnly:
    """Stands in for an operand a rule reads only the type of."""

    __slots__ = ("type",)

    def __init__(self, type: TensorType) -> None:
        self.type = type


class Ghost:
    """An operand with a type and a place on the tape but no value: calling an op on it extends the tape alone."""

    __slots__ = ("edge", "type")

    def __init__(self, type: TensorType, edge: Edge | None) -> None:
        self.type = type
        self.edge = edge

    @staticmethod
    def apply_op(op: Op, operands: tuple[Any, ...], attrs: Attrs) -> Ghost:
        """Add a tape node for `op` without running it."""
        ghosts = [x for x in operands if isinstance(x, Ghost)]
        if op.saves or len(ghosts) != len(operands) or op.outputs != 1:
            raise InternalError(f"{op.name} cannot be replayed on the tape without values")
        types = tuple(g.type for g in ghosts)
        out = op.infer_types(types, attrs)
        edges = tuple(g.edge for g in ghosts)
        if all(e is None for e in edges):
            return Ghost(out[0], None)
        node = _node(op, dict(attrs), edges, types, out)
        node.saved_in = (None,) * len(ghosts)
        return Ghost(out[0], (node, 0))


def _node(op: Op, attrs: dict[str, Any], edges: tuple[Edge | None, ...], ins: tuple[TensorType, ...], outs: tuple[TensorType, ...]) -> Node:
    node: Node = _new(Node)
    node.op, node.attrs, node.edges, node.in_types, node.out_types = op, attrs, edges, ins, outs
    node.seq = _ticket()
    node.hooks = node.retained = node.saved_out = None
    node.freed = False
    return node


def record(op: Op, tensors: tuple[Tensor, ...], edges: tuple[Edge | None, ...], attrs: dict[str, Any], outputs: tuple[Tensor, ...]) -> None:
    """Put `outputs = op(*tensors, **attrs)` on the tape."""
    node = _node(op, attrs, edges, tuple(t.type for t in tensors), tuple(o.type for o in outputs))
    node.saved_in = tuple(Saved(t, e) if str(k) in op.saves else None for k, (t, e) in enumerate(zip(tensors, edges, strict=True)))
    for k, out in enumerate(outputs):
        if out.dtype.is_floating_point:
            out._edge = (node, k)
    if "out" in op.saves:
        node.saved_out = tuple(Saved(o, None) for o in outputs)


def edge_of(t: Tensor) -> Edge | None:
    """Where gradients of `t` go, brought up to date if its base was written through another view; None when it carries none."""
    if t._history >= 0 and t._history != t._s.history and t._gbase is not None:
        t._edge = _replay(t._gbase, t).edge
        t._history = t._s.history
    if t._edge is not None:
        found: Edge = t._edge
        return found
    if t._requires_grad:
        node = None if t._leaf_node is None else t._leaf_node()
        if node is None:
            node = AccumulateGrad(t)
            t._leaf_node = weakref.ref(node)  # weak: the node holds its leaf
        return (node, 0)
    return None


def _autograd_chain(t: Tensor) -> Chain:
    return t._chain[t._gskip :]


def _replay(base: Tensor, view: Tensor) -> Ghost:
    ghost: Any = Ghost(base._l.type, edge_of(base))
    for op, attrs in _autograd_chain(view):
        ghost = op(ghost, **attrs)
    found: Ghost = ghost
    return found


def check_inplace(target: Tensor, name: str) -> None:
    """Raise AutogradError where PyTorch forbids writing in place while gradients are recorded."""
    if target._requires_grad:
        raise AutogradError(f"{name}: a leaf Variable that requires grad is being used in an in-place operation; use no_grad() or an out-of-place form")
    if target._gbase is not None and target._gbase._requires_grad and target._history >= 0:
        raise AutogradError(f"{name}: a view of a leaf Variable that requires grad is being used in an in-place operation; use no_grad() or clone() the leaf")


def rebase(target: Tensor, value: Tensor) -> None:
    """After `target` took the elements of `value`: give it (and the tensor it views) the history of `value`."""
    new, old = edge_of(value), edge_of(target)
    if new is None and old is None:
        return
    base = target._gbase
    if base is None or target._history < 0:
        target._edge = new
        target._s.history += 1
        if target._history >= 0:
            target._history = target._s.history
        return
    levels: list[Any] = [Ghost(base._l.type, edge_of(base))]
    chain = _autograd_chain(target)
    for op, attrs in chain[:-1]:
        levels.append(op(levels[-1], **attrs))
    ghost: Any = Ghost(value._l.type, new)
    for (op, attrs), level in zip(reversed(chain), reversed(levels), strict=True):
        assert op.scatter is not None
        ghost = op.scatter(level, ghost, **attrs)
    base._edge = ghost.edge
    target._s.history += 1
    base._history = target._s.history


def ticket() -> int:
    """A number below those of all nodes made from now on."""
    return _ticket()


def keep_saved(value: Tensor, target: Tensor, since: int) -> None:
    """Before `target` is overwritten by `value`: nodes made since `since` that saved memory of `target` get a copy."""
    edge = edge_of(value)
    stack: list[Any] = [] if edge is None else [edge[0]]
    seen: set[Any] = set()
    while stack:
        node = stack.pop()
        if node.seq <= since or node in seen:
            continue
        seen.add(node)
        stack.extend(n for n, _ in node.next_functions if n is not None)
        node.saved_in = tuple(
            s.copied() if s is not None and s.storage is target._s and s.leaf is None else s for s in node.saved_in
        )


def watch(t: Tensor) -> None:
    """Let the node that made `t` run its hooks and fill its `.grad` if it is retained."""
    edge = edge_of(t)
    if edge is None or isinstance(edge[0], AccumulateGrad):
        return
    node, k = edge
    if t._hooks is None:
        t._hooks = {}
    if node.retained is None:
        node.retained = {}
    node.retained[k] = (t._hooks, weakref.ref(t))


# ---- what tensors offer -----------------------------------------------------------------------------------------------


def tensor_backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulate into `.grad` of the leaves the gradient of this tensor; see graphc.autograd.backward."""
    backward(self, gradient, retain_graph, create_graph, inputs)


def get_grad(self: Tensor) -> Tensor | None:
    """The accumulated gradient, None before the first backward()."""
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_grad_read(self)
    return self._grad


def set_grad(self: Tensor, value: Tensor | None) -> None:
    """Replace the gradient. Raises ArgumentError, DTypeError or ShapeError unless it is None or a tensor of this type."""
    if value is not None:
        if not isinstance(value, Tensor):
            raise ArgumentError(f"grad: assigned grad must be a Tensor or None, got {type(value).__name__}")
        if value is self:
            raise AutogradError("grad: can't assign Variable as its own grad")
        if value.dtype is not self.dtype:
            raise DTypeError(f"grad: assigned grad has data of a different type: {value._l.type} for a tensor {self._l.type}")
        if value._l.type is not self._l.type:
            raise ShapeError(f"grad: assigned grad has data of a different size: {value._l.type} for a tensor {self._l.type}")
    self._grad = value
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_grad_write(self, value)


def grad_fn(self: Tensor) -> Any:
    """The tape node that made this tensor, None for leaves."""
    edge = edge_of(self)
    return None if edge is None or self._requires_grad else edge[0]


def output_nr(self: Tensor) -> int:
    """Which output of its node this tensor is."""
    edge = edge_of(self)
    return 0 if edge is None else edge[1]


def retain_grad(self: Tensor) -> None:
    """Keep the gradient of this non-leaf in `.grad`. Raises AutogradError when no gradient flows here."""
    if edge_of(self) is None:
        raise AutogradError("can't retain_grad on Tensor that has requires_grad=False")
    if not self._requires_grad:
        self._retain = True
        watch(self)


def retains_grad(self: Tensor) -> bool:
    """True for a non-leaf whose gradient is kept."""
    return self._retain


def register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> Handle:
    """Call `hook(grad)` when the gradient of this tensor is known; a returned tensor replaces it. The handle removes it.

    Raises AutogradError when no gradient flows here.
    """
    if edge_of(self) is None:
        raise AutogradError("cannot register a hook on a tensor that doesn't require gradient")
    recorder = mode.get().recorder
    if recorder is not None and self._requires_grad:
        recorder.on_metadata(self, "register_hook")
    if self._hooks is None:
        self._hooks = {}
    watch(self)
    return Handle(self._hooks, hook)


# ---- backward ---------------------------------------------------------------------------------------------------------


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulate into `.grad` of the leaves (of `inputs` alone, if given) the gradients of the sum of `tensors`.

    `grad_tensors`: the gradient with respect to each tensor, needed unless it has one element.
    Raises AutogradError when a tensor has no history or the graph was freed, ShapeError when a gradient has another shape.
    """
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    seeds = _seeds(roots, grad_tensors)
    retain = create_graph if retain_graph is None else retain_graph
    wanted = None if inputs is None else [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if wanted is not None:
        found = _run(roots, seeds, retain, create_graph, [_edge_needed(t) for t in wanted])
        for t, g in zip(wanted, found, strict=True):
            if g is not None:
                accumulate(t, g, create_graph)
        return
    _run(roots, seeds, retain, create_graph, None)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of the sum of `outputs` with respect to `inputs`, returned instead of accumulated.

    Raises AutogradError when an input was not used and `allow_unused` is false.
    """
    roots = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    seeds = _seeds(roots, grad_outputs)
    retain = create_graph if retain_graph is None else retain_graph
    found = _run(roots, seeds, retain, create_graph, [_edge_needed(t) for t in wanted])
    if not allow_unused and any(g is None for g in found):
        k = next(k for k, g in enumerate(found) if g is None)
        raise AutogradError(
            f"input {k} appears to not have been used in the graph; set allow_unused=True if this is the desired behavior"
        )
    return tuple(found)


def _edge_needed(t: Tensor) -> Edge:
    edge = edge_of(t)
    if edge is None:
        raise AutogradError("one of the differentiated Tensors does not require grad")
    return edge


def _seeds(roots: list[Tensor], given: Tensor | Sequence[Tensor | None] | None) -> list[Tensor]:
    grads = [None] * len(roots) if given is None else [given] if isinstance(given, Tensor) else list(given)
    if len(grads) != len(roots):
        raise AutogradError(f"got {len(roots)} tensors and {len(grads)} gradients")
    seeds = []
    for t, g in zip(roots, grads, strict=True):
        if edge_of(t) is None:
            raise AutogradError("element 0 of tensors does not require grad and does not have a grad_fn")
        if g is None:
            if t._a.size != 1:
                raise AutogradError(f"grad can be implicitly created only for scalar outputs, this one is {t._l.type}")
            g = _ones(t)
        elif g._l.type is not t._l.type:
            raise ShapeError(f"backward: the gradient is {g._l.type}, but the tensor is {t._l.type}")
        seeds.append(g)
    return seeds


def _ones(t: Tensor) -> Tensor:
    from graphc.frontend.dispatch import nullary

    return nullary(op_named("full"), shape=t.type.shape, value=1.0, dtype=t.dtype)


def _run(
    roots: list[Tensor], seeds: list[Tensor], retain: bool, create: bool, wanted: list[Edge] | None
) -> list[Tensor | None]:
    """Run the tape backwards. With `wanted` edges: give their gradients and touch no leaf."""
    recorder = mode.get().recorder
    grads: dict[Any, dict[int, Tensor]] = {}
    results: dict[tuple[Any, int], Tensor] = {}
    heap: list[tuple[int, int, Any]] = []
    counter = itertools.count()
    needed = None if wanted is None else _reaching(roots, wanted)
    keys = set() if wanted is None else set(wanted)

    def send(edge: Edge, g: Tensor) -> None:
        node, k = edge
        slot = grads.get(node)
        if slot is None:
            slot = grads[node] = {}
            heapq.heappush(heap, (-node.seq, next(counter), node))
        slot[k] = _add(slot[k], g) if k in slot else g

    with using(grad=create), nullcontext() if recorder is None else recorder.phase("backward"):
        for t, g in zip(roots, seeds, strict=True):
            edge = edge_of(t)
            assert edge is not None
            send(edge, g)
        while heap:
            node = heapq.heappop(heap)[2]
            slot = grads.pop(node)
            slot = _after_hooks(node, slot)
            for k, g in slot.items():
                if (node, k) in keys:
                    results[(node, k)] = g
            if isinstance(node, AccumulateGrad):
                if wanted is None:
                    accumulate(node.leaf, slot[0], create)
                continue
            if needed is None or node in needed:
                _step(node, slot, retain, send, needed, {n for n, _ in keys})
    return [] if wanted is None else [results.get(e) for e in wanted]


def _add(a: Tensor, b: Tensor) -> Tensor:
    total: Tensor = op_named("add")(a, b)
    return total


def _reaching(roots: list[Tensor], wanted: list[Edge]) -> set[Any]:
    """Nodes from which a wanted edge can be reached (those alone need running)."""
    targets = {node for node, _ in wanted}
    order: list[Any] = []
    seen: set[Any] = set()
    stack: list[tuple[Any, bool]] = [(e[0], False) for t in roots if (e := edge_of(t)) is not None]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((n, False) for n, _ in node.next_functions if n is not None and n not in seen)
    reaching: set[Any] = set()
    for node in order:
        if any(n in targets or n in reaching for n, _ in node.next_functions if n is not None):
            reaching.add(node)
    return reaching


def _after_hooks(node: Any, slot: dict[int, Tensor]) -> dict[int, Tensor]:
    """Apply tensor hooks and fill the `.grad` of non-leaves that retain it."""
    if node.retained is None and not (isinstance(node, AccumulateGrad) and node.leaf._hooks):
        return slot
    slot = dict(slot)
    if isinstance(node, AccumulateGrad):
        slot[0] = _tensor_hooks(node.leaf._hooks, slot[0])
        return slot
    for k, (hooks, ref) in node.retained.items():
        if k in slot:
            slot[k] = _tensor_hooks(hooks, slot[k])
            owner = ref()
            if owner is not None and owner._retain:
                accumulate(owner, slot[k], False)
    return slot


def _tensor_hooks(hooks: dict[int, Any] | None, g: Tensor) -> Tensor:
    for hook in list((hooks or {}).values()):
        changed = hook(g)
        if changed is not None:
            if changed._l.type is not g._l.type:
                raise AutogradError(f"a tensor hook returned {changed._l.type} for a gradient {g._l.type}")
            g = changed
    return g


def _step(
    node: Node, slot: dict[int, Tensor], retain: bool, send: Callable[[Edge, Tensor], None], needed: set[Any] | None, targets: set[Any]
) -> None:
    if node.freed:
        raise AutogradError(
            "Trying to backward through the graph a second time (or directly access saved tensors after they have already been freed); "
            "specify retain_graph=True if you need to backward through it a second time"
        )
    needs = tuple(e is not None and (needed is None or e[0] in needed or e[0] in targets) for e in node.edges)
    found = _rule(node, slot, needs)
    if node.hooks:
        outs = tuple(slot.get(k) for k in range(len(node.out_types)))
        for hook in list(node.hooks.values()):
            changed = hook(found, outs)
            if changed is not None:
                found = tuple(changed)
    if not retain:
        node.freed = True
        node.saved_in = (None,) * len(node.saved_in)
        node.saved_out = None
    for k, (edge, g, need) in enumerate(zip(node.edges, found, needs, strict=True)):
        if edge is None or g is None or not need:
            continue
        if g._l.type.shape != _sizes(node.in_types[k], g):
            raise InternalError(f"the gradient rule of {node.op.name} gave {g._l.type} for operand {k} of type {node.in_types[k]}")
        send(edge, g)


def _sizes(type: TensorType, g: Tensor) -> tuple[Any, ...]:
    return type.shape if type.static else g._l.type.shape


def _rule(node: Node, slot: dict[int, Tensor], needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    if node.op.vjp is None:
        raise AutogradError(f"{node.op.name} has no gradient")
    many = len(node.out_types) > 1
    g: Any = tuple(slot.get(k) for k in range(len(node.out_types))) if many else slot[0]
    inputs = [
        TypeOnly(t) if s is None else s.unpack(node, s.edge) for s, t in zip(node.saved_in, node.in_types, strict=True)
    ]
    if node.saved_out is None:
        outs: list[Any] = [TypeOnly(t) for t in node.out_types]
    else:
        outs = [s.unpack(node, (node, k)) for k, s in enumerate(node.saved_out)]
    result = node.op.vjp(g, tuple(outs) if many else outs[0], *inputs, needs=needs, **node.attrs)
    return tuple(result)


def accumulate(leaf: Tensor, g: Tensor, create: bool) -> None:
    """Add `g` to `leaf.grad`. The first contribution is taken as it is; `.grad` shares storage with nothing else."""
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_grad_read(leaf)
    old = leaf._grad
    if old is None:
        new = g if create else _own(g)
    elif create:
        new = _add(old, g)
    else:
        from graphc.frontend.dispatch import write

        write(old, _add(old, g), "backward")
        return
    if recorder is not None:
        recorder.on_grad_write(leaf, new)  # before the change: the recorder notes what was there
    leaf._grad = new


def _own(g: Tensor) -> Tensor:
    """`g` itself when nobody else can see its memory, else a copy; without history either way."""
    copy: Tensor = op_named("clone")(g)
    return copy


# ---- modes ------------------------------------------------------------------------------------------------------------


class _GradMode:
    """Context manager and decorator that sets gradient recording."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self._stack: list[Any] = []

    def __enter__(self) -> None:
        context = using(grad=self.enabled)
        context.__enter__()
        self._stack.append(context)

    def __exit__(self, *error: Any) -> None:
        self._stack.pop().__exit__(*error)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        import functools

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with using(grad=self.enabled):
                return function(*args, **kwargs)

        return wrapper


class no_grad(_GradMode):
    """Operations inside are not put on the tape. A context manager and a decorator (with or without parentheses)."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        made = super().__new__(cls)
        if function is None:
            return made
        _GradMode.__init__(made, False)
        return made(function)

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        super().__init__(False)


class enable_grad(_GradMode):
    """Operations inside are put on the tape, also within no_grad."""

    def __init__(self) -> None:
        super().__init__(True)


class set_grad_enabled(_GradMode):
    """Set gradient recording: at once when called as a function, restored when used as a context manager."""

    def __init__(self, mode_: bool) -> None:
        super().__init__(bool(mode_))
        self._token = mode.set(_with_grad(bool(mode_)))

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        mode.reset(self._token)


def _with_grad(enabled: bool) -> Any:
    from dataclasses import replace

    return replace(mode.get(), grad=enabled)


def is_grad_enabled() -> bool:
    """True when operations are put on the tape."""
    return mode.get().grad
