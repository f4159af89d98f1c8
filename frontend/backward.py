"""Running the tape backwards.

Contributions to one value add left to right in descending sequence number of the consumer; the first is taken as it
is.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from graphc.errors import AutogradError, InternalError, ShapeError
from graphc.frontend.autograd import AccumulateGrad, Edge, Node, TypeOnly, edge_of
from graphc.frontend.mode import mode, using
from graphc.frontend.tensor import Tensor
from graphc.ir.op import op_named
from graphc.ir.types import TensorType

__all__ = ["backward", "grad"]


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulate into `.grad` of the leaves (of `inputs` alone, if given) the gradients of the sum of `tensors`.

    `grad_tensors`: the gradient with respect to each tensor, needed unless it has one element.
    Raises AutogradError when a tensor has no history or the graph was freed, ShapeError when a gradient has another
    shape.
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
            f"input {k} appears to not have been used in the graph; set allow_unused=True if this is the "
            "desired behavior"
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
    for k, (t, g) in enumerate(zip(roots, grads, strict=True)):
        if edge_of(t) is None:
            raise AutogradError(f"element {k} of tensors does not require grad and does not have a grad_fn")
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

    return nullary(op_named("full"), shape=t.ttype.shape, value=1.0, dtype=t.dtype)


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
            if owner is not None and owner._retain and edge_of(owner) == (node, k):  # not written in place since
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
    node: Node,
    slot: dict[int, Tensor],
    retain: bool,
    send: Callable[[Edge, Tensor], None],
    needed: set[Any] | None,
    targets: set[Any],
) -> None:
    if node.freed:
        raise AutogradError(
            "Trying to backward through the graph a second time (or directly access saved tensors after they "
            "have already been freed); "
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
    if not retain and (node.saved_out is not None or any(s is not None for s in node.saved_in)):
        node.freed = True  # a node that saved nothing can run again, as in PyTorch
        node.saved_in = (None,) * len(node.saved_in)
        node.saved_out = None
    for k, (edge, g, need) in enumerate(zip(node.edges, found, needs, strict=True)):
        if edge is None or g is None or not need:
            continue
        if g._l.type.shape != _sizes(node.in_types[k], g):
            raise InternalError(
                f"the gradient rule of {node.op.name} gave {g._l.type} for operand {k} of type {node.in_types[k]}"
            )
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
        outs = [
            TypeOnly(t) if s is None else s.unpack(node, (node, k))
            for k, (s, t) in enumerate(zip(node.saved_out, node.out_types, strict=True))
        ]
    result = node.op.vjp(g, tuple(outs) if many else outs[0], *inputs, needs=needs, **node.attrs)
    return tuple(result)


def accumulate(leaf: Tensor, g: Tensor, create: bool) -> None:
    """Add `g` to `leaf.grad`. The first contribution is copied, so that `.grad` shares storage with nothing else; with
    `create` it is taken as it is, with its history.
    """
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
    """A copy: hooks and other tensors may hold `g`, and `.grad` is written in place later."""
    copy: Tensor = op_named("clone")(g)
    return copy
