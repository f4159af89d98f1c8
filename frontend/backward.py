"""Running the tape backwards.

Contributions to one value add left to right in descending sequence number of the consumer; the first is taken as it
is.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

from graphc.errors import ArgumentError, AutogradError, InternalError, ShapeError, UnsupportedError
from graphc.frontend import autograd_anomaly as anomaly
from graphc.frontend.autograd import AccumulateGrad, Edge, Node, PostHook, PreHook, TypeOnly, edge_of
from graphc.frontend.gradient_plan import gradients
from graphc.frontend.mode import debugging, mode, using, watching
from graphc.frontend.regions import Region, Walk
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.convert import number_array
from graphc.ir.narrow import vjp
from graphc.ir.op import op_named
from graphc.ir.types import Layout, TensorType

__all__ = ["backward", "grad"]

F = TypeVar("F", bound=Callable[..., Any])

_SMALL_BYTES = 1 << 15  # below, NumPy's copy costs less than a call of a kernel


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Tensor | Sequence[Tensor | None] | None = None,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulate into `.grad` of the leaves (of `inputs` alone, if given) the gradients of the sum of `tensors`.

    `grad_tensors` (`grad_variables` in old programs): the gradient with respect to each tensor, needed unless it has
    one element. Raises AutogradError when a tensor has no history, the graph was freed or `inputs` is empty, ShapeError
    when a gradient has another shape.
    """
    if grad_variables is not None:
        if grad_tensors is not None:
            raise ArgumentError(
                "backward: grad_tensors and grad_variables (deprecated) are the same argument; give grad_tensors alone"
            )
        grad_tensors = grad_variables
    roots = _tensors("backward", "tensors", tensors)
    if inputs is not None and not isinstance(inputs, Tensor) and not inputs:
        raise AutogradError("backward: the `inputs` argument cannot be empty; leave it out to reach every leaf")
    retain = create_graph if retain_graph is None else retain_graph
    recorder = mode.get().recorder
    plain = grad_tensors is None and inputs is None and len(roots) == 1 and not create_graph and not debugging
    if plain and recorder is not None and recorder.lockstep is not None:
        recorder.lockstep.backward(lambda: _whole(roots, retain), roots[0], retain)
        return
    seeds = _seeds(roots, grad_tensors)
    wanted = None if inputs is None else _tensors("backward", "inputs", inputs)
    if wanted is not None:
        found = _run(roots, seeds, retain, create_graph, [_edge_needed(t) for t in wanted])
        for t, g in zip(wanted, found, strict=True):
            if g is None or (t._retain and not t._requires_grad):  # it arrived when the pass went by
                continue
            edge = _edge_needed(t)
            with using(grad=create_graph):
                if isinstance(edge[0], AccumulateGrad):
                    _arrive(edge[0], {0: g}, create_graph)
                else:
                    accumulate(t, g, create_graph)
        return
    _run(roots, seeds, retain, create_graph, None)


def _whole(roots: list[Tensor], retain: bool) -> None:
    """backward() of one tensor with one element, to all its leaves."""
    _run(roots, _seeds(roots, None), retain, False, None)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of the sum of `outputs` with respect to `inputs`, returned instead of accumulated.

    The gradient of an input that was not used is an error, None with `allow_unused`, zeros with `materialize_grads`.
    Raises AutogradError when an input was not used or `inputs` is empty, ShapeError when a gradient has another shape,
    UnsupportedError for `is_grads_batched` and for `only_inputs=False`, which fills `.grad` of other leaves.
    """
    if is_grads_batched:
        raise UnsupportedError("grad: is_grads_batched is not supported; call grad() once for each gradient")
    if not only_inputs:
        raise UnsupportedError("grad: only_inputs=False is not supported; call backward() to fill .grad of all leaves")
    if materialize_grads and allow_unused is False:
        raise ArgumentError(
            "grad: expected allow_unused to be True or not passed when materialize_grads=True, but got: "
            "allow_unused=False"
        )
    roots, wanted = _tensors("grad", "outputs", outputs), _tensors("grad", "inputs", inputs)
    if not wanted:
        raise AutogradError("grad: the `inputs` argument cannot be empty")
    seeds = _seeds(roots, grad_outputs)
    retain = create_graph if retain_graph is None else retain_graph
    found = _run(roots, seeds, retain, create_graph, [_edge_needed(t) for t in wanted])
    if materialize_grads:
        return tuple(_filled(t, 0.0) if g is None else g for t, g in zip(wanted, found, strict=True))
    if not allow_unused and any(g is None for g in found):
        k = next(k for k, g in enumerate(found) if g is None)
        raise AutogradError(
            f"grad: input {k} ({wanted[k]._l.type}) appears to not have been used in the graph; set allow_unused=True "
            "if this is the desired behavior"
        )
    return tuple(found)


def _tensors(name: str, what: str, given: Any) -> list[Tensor]:
    """One tensor or several as a list. Raises ArgumentError for anything else."""
    found = [given] if isinstance(given, Tensor) or not isinstance(given, Iterable) else list(given)
    for k, t in enumerate(found):
        if not isinstance(t, Tensor):
            raise ArgumentError(f"{name}: {what} must be Tensors, number {k} is a {type(t).__name__}")
    return found


def _edge_needed(t: Tensor) -> Edge:
    edge = edge_of(t)
    if edge is None:
        raise AutogradError(
            f"grad: one of the differentiated Tensors does not require grad: {t._l.type}; call requires_grad_() on it "
            "first"
        )
    return edge


def _seeds(roots: list[Tensor], given: Tensor | Sequence[Tensor | None] | None) -> list[Tensor]:
    grads = [None] * len(roots) if given is None else [given] if isinstance(given, Tensor) else list(given)
    for g in grads:
        if g is not None and not isinstance(g, Tensor):
            raise ArgumentError(f"backward: the gradient must be a Tensor or None, got {type(g).__name__}")
    if len(grads) != len(roots):
        raise AutogradError(f"got {len(roots)} tensors and {len(grads)} gradients")
    seeds = []
    for k, (t, g) in enumerate(zip(roots, grads, strict=True)):
        if edge_of(t) is None:
            raise AutogradError(
                f"backward: element {k} of tensors does not require grad and does not have a grad_fn: {t._l.type}; "
                "nothing that led to it has a gradient (integer results, detach() and no_grad() have none)"
            )
        if g is None:
            if t._l.size != 1:
                raise AutogradError(
                    f"backward: grad can be implicitly created only for scalar outputs, this one is {t._l.type}; "
                    "reduce it, or give the gradient of it"
                )
            g = _filled(t, 1.0)
        elif g._l.type is not t._l.type:
            raise ShapeError(
                f"backward: the gradient is {g._l.type}, but the tensor is {t._l.type}; make it the same type"
            )
        seeds.append(g)
    return seeds


def _filled(t: Tensor, number: float) -> Tensor:
    from graphc.frontend.dispatch import nullary

    if mode.get().recorder is None:
        return fresh(np.full(t._l.type.sizes, number_array(number, t.dtype), t.dtype.np), Layout(t._l.type))
    return nullary(op_named("full"), shape=t.ttype.shape, value=number, dtype=t.dtype)


# what waits for the end of the backward pass that is running: key -> (value, what to call with it)
_ends: ContextVar[dict[Any, tuple[Any, Callable[[Any], None]]] | None] = ContextVar("graphc_ends", default=None)


def at_end(key: Any, value: Any, call: Callable[[Any], None]) -> tuple[Any, bool]:
    """Call `call(value)` at the end of the backward pass that is running. Gives the value first given under this key in
    this pass, and whether it is this one.
    """
    ends = _ends.get()
    if ends is None:
        raise InternalError("no backward pass is running")
    found = ends.setdefault(key, (value, call))[0]
    return found, found is value


def _with_end(run: F) -> F:
    @functools.wraps(run)
    def wrapper(*args: Any) -> Any:
        token = _ends.set({})
        try:
            if watching:
                with watching[0].span("backward", "backward"):
                    result = run(*args)
            else:
                result = run(*args)
            for value, call in (_ends.get() or {}).values():
                call(value)
        finally:
            _ends.reset(token)
        return result

    return wrapper  # type: ignore[return-value]


@_with_end
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
    plain = not create and recorder is None and not anomaly.enabled()

    def send(edge: Edge, g: Tensor) -> None:
        node, k = edge
        slot = grads.get(node)
        if slot is None:
            slot = grads[node] = {}
            heapq.heappush(heap, (-node.seq, next(counter), node))
        slot[k] = _add(slot[k], g) if k in slot else g

    walk = Walk(grads, send, wanted, needed)
    with using(grad=create), nullcontext() if recorder is None else recorder.phase("backward"):
        for t, g in zip(roots, seeds, strict=True):
            edge = edge_of(t)
            assert edge is not None
            send(edge, g)
        while heap:
            node = heapq.heappop(heap)[2]
            slot = grads.pop(node)
            if isinstance(node, Region):
                _region(node, slot, walk, results, plain, retain)
                continue
            slot = _after_hooks(node, slot)
            _note(node, slot, walk, results)
            if isinstance(node, AccumulateGrad):
                if wanted is None:
                    _arrive(node, slot, create)
                continue
            if needed is None or node in needed:
                _step(node, slot, retain, walk)
    return [] if wanted is None else [results.get(node.inner(k)) for node, k in wanted]


def _note(node: Any, slot: dict[int, Tensor], walk: Walk, results: dict[Edge, Tensor]) -> None:
    """Keep the gradients that were asked for."""
    for k, g in slot.items():
        if (node, k) in walk.keys:
            results[(node, k)] = g


def _region(
    node: Region, slot: dict[int, Tensor], walk: Walk, results: dict[Edge, Tensor], plain: bool, retain: bool
) -> None:
    """Run what a compiled call did backwards, as a whole if that is possible."""
    code = walk.ready(node, slot) if plain else None
    if code is not None:
        slot = _after_hooks(node, slot)
        _note(node, slot, walk, results)
        if walk.run(node, code, slot, retain):
            return
    walk.open(node, slot)


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
            stack.extend((e[0], False) for e in node.edges if e is not None and e[0] not in seen)
    reaching: set[Any] = set()
    for node in order:
        if any(e[0] in targets or e[0] in reaching for e in node.edges if e is not None):
            reaching.add(node)
    return reaching


def _after_hooks(node: Any, slot: dict[int, Tensor]) -> dict[int, Tensor]:
    """Apply tensor hooks and fill the `.grad` of non-leaves that retain it."""
    if node.retained is None and not (isinstance(node, AccumulateGrad) and node.leaf._hooks):
        return slot
    slot = dict(slot)  # what a hook replaces is seen by this run alone
    if isinstance(node, AccumulateGrad):
        slot[0] = _tensor_hooks(node.leaf._hooks, slot[0])
        return slot
    for k, (hooks, ref) in node.retained.items():
        if k in slot:
            slot[k] = _tensor_hooks(hooks, slot[k])
            owner = ref()
            if owner is not None and owner._retain and _now(owner) == (node, k):  # not written in place since
                accumulate(owner, slot[k], False)
    return slot


def _now(t: Tensor) -> Edge | None:
    edge = edge_of(t)
    return None if edge is None else edge[0].inner(edge[1])


def _tensor_hooks(hooks: dict[int, Any] | None, g: Tensor) -> Tensor:
    for hook in list((hooks or {}).values()):
        if isinstance(hook, PostHook):
            continue
        changed = hook(g)
        if changed is not None:
            if not isinstance(changed, Tensor):
                raise AutogradError(
                    f"a tensor hook returned a {type(changed).__name__} for a gradient {g._l.type}; return a Tensor, "
                    "or None to leave it as it is"
                )
            if changed._l.type is not g._l.type:
                raise AutogradError(f"a tensor hook returned {changed._l.type} for a gradient {g._l.type}")
            g = changed
    return g


def _arrive(node: AccumulateGrad, slot: dict[int, Tensor], create: bool) -> None:
    """A gradient reaches its leaf: the node's hooks around, the leaf's own hooks after."""
    (g,) = _before(node, (slot[0],))
    assert g is not None
    accumulate(node.leaf, g, create)
    for hook in list((node.hooks or {}).values()):
        if not isinstance(hook, PreHook):
            hook((), (g,))
    for hook in list((node.leaf._hooks or {}).values()):
        if isinstance(hook, PostHook):
            hook(node.leaf)


def _before(node: Node | AccumulateGrad, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """The gradients of a node's outputs after its pre-hooks."""
    for hook in list((node.hooks or {}).values()):
        if isinstance(hook, PreHook):
            changed = hook(grads)
            if changed is not None:
                grads = _replaced(node, changed, grads)
    return grads


def _replaced(node: Node | AccumulateGrad, changed: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """What a hook of a node returned in place of `grads`. Raises AutogradError unless it fits."""
    found = changed if isinstance(changed, tuple) else (changed,)
    if len(found) != len(grads):
        raise AutogradError(f"a hook of {node.name()} returned {len(found)} gradients, expected {len(grads)}")
    for new, old in zip(found, grads, strict=True):
        if new is not None and not isinstance(new, Tensor):
            raise AutogradError(f"a hook of {node.name()} returned a {type(new).__name__}, expected a Tensor or None")
        if new is not None and old is not None and new._l.type is not old._l.type:
            raise AutogradError(f"a hook of {node.name()} returned {new._l.type} for a gradient {old._l.type}")
    return found


def _step(
    node: Node,
    slot: dict[int, Tensor],
    retain: bool,
    walk: Walk,
) -> None:
    if node.freed:
        raise AutogradError(
            f"{node.op.name}: Trying to backward through the graph a second time (or directly access saved tensors "
            "after they have already been freed); "
            "specify retain_graph=True if you need to backward through it a second time"
        )
    needs = tuple(map(walk.wants, node.edges))
    if node.hooks:
        outs = _before(node, tuple(slot.get(k) for k in range(len(node.out_types))))
        slot = {k: g for k, g in enumerate(outs) if g is not None}
    found = anomaly.checked(node, lambda: _rule(node, slot, needs)) if debugging else _rule(node, slot, needs)
    if node.hooks:
        for hook in list(node.hooks.values()):
            changed = None if isinstance(hook, PreHook) else hook(found, outs)
            if changed is not None:
                found = _replaced(node, changed, found)
    if not retain and (node.custom or node.saved_out is not None or any(s is not None for s in node.saved_in)):
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
        walk.send(edge, g)


def _sizes(type: TensorType, g: Tensor) -> tuple[Any, ...]:
    return type.shape if type.static else g._l.type.shape


def _rule(node: Node, slot: dict[int, Tensor], needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    if node.custom:
        return node.gradients(slot, needs)
    if node.op.vjp is None:
        raise AutogradError(f"{node.op.name} has no gradient")
    here = mode.get()
    if here.recorder is None and not here.grad:
        found = gradients(node, slot, needs)
        if found is not None:
            return found
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
    result = vjp(node.op, g, tuple(outs) if many else outs[0], inputs, needs, node.attrs)
    return tuple(result)


def accumulate(leaf: Tensor, g: Tensor, create: bool) -> None:
    """Add `g` to `leaf.grad`. The first contribution is copied, so that `.grad` shares storage with nothing else; with
    `create` it is taken as it is, with its history.
    """
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_grad_read(leaf, not create)
    old = leaf._grad
    if old is None:
        new = g if create or g._alone else _own(g)
        if g._alone:
            g._alone = False
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
    here = mode.get()
    if here.recorder is None and not here.grad and g._l.contiguous and g._a.nbytes < _SMALL_BYTES:
        return fresh(g._a.copy(), g._l)
    copy: Tensor = op_named("clone")(g)
    return copy
