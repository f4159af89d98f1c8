"""Gradients through a compiled call from outside: the recorded graph run again, op by op, under the tape.

A compiled call whose outputs require gradients runs without a tape. Its outputs get one node that keeps the inputs;
when backward reaches it, the recorded operations are run eagerly on them (the same bits, by the numerics contract),
which builds the tape that backward then follows. Costs a second forward pass; is right for gradients of any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import AutogradError
from graphc.frontend import autograd
from graphc.frontend.backward import grad
from graphc.frontend.mode import mode, using
from graphc.frontend.record.trace import Leaf, Trace
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.graph import Node, Value
from graphc.ir.op import Array, Op


class History:
    """The inputs of one compiled call, and the tape node its differentiable outputs share."""

    def __init__(self, trace: Trace, tensors: Sequence[Tensor | None], arrays: Sequence[Array]) -> None:
        self.trace = trace
        self.needed = _needed(trace)
        self.inputs: list[Tensor | None] = []
        self.versions: list[int] = []
        written = {e.number for e in trace.effects if e.kind == "state"}
        for k, (t, array) in enumerate(zip(tensors, arrays, strict=True)):
            value = trace.graph.inputs[k].value
            if value not in self.needed:
                self.inputs.append(None)
            elif t is None or (k in written and not t.requires_grad):
                self.inputs.append(fresh(array.copy()))
            else:
                self.inputs.append(t)
            kept = self.inputs[-1]
            self.versions.append(0 if kept is None else kept._v.value)
        self.node = self._node()
        self.places: dict[int, int] = {}

    def _node(self) -> autograd.Node:
        differentiable = [t for t in self.inputs if t is not None and t.requires_grad]
        edges = tuple(autograd.edge_of(t) for t in differentiable)
        self.differentiable = differentiable
        op = Op(
            "compiled", infer=_no_types, reference=_no_types, samples=_no_samples, vjp=self.vjp, decompose=_no_types
        )
        outs = tuple(self.trace.graph.outputs[i].value.type for i in _numbers(self.trace))
        node = autograd._node(op, {}, edges, tuple(t._l.type for t in differentiable), outs)
        node.saved_in = (None,) * len(edges)
        return node

    def give(self, base: Tensor, leaf: Leaf) -> None:
        """Make `base` an output of the node; its views follow."""
        if base._edge is None:
            base._edge = (self.node, _numbers(self.trace).index(leaf.number))
            base._s.history += 1
            base._history = base._s.history

    def vjp(self, g: Any, out: Any, *inputs: Any, needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        """Run the forward again under the tape and differentiate it."""
        for t, version in zip(self.inputs, self.versions, strict=True):
            if t is not None and t._v.value != version:
                raise AutogradError(
                    f"an input {t._l.type} of the compiled function {self.trace.graph.name!r} was modified in place "
                    "after the call; "
                    "run backward before the write, or put both into the compiled function"
                )
        create = mode.get().grad
        gs = g if isinstance(g, tuple) else (g,)
        with using(grad=True):
            outs = self._forward()
        pairs = [(o, x) for o, x in zip(outs, gs, strict=True) if x is not None and o.requires_grad]
        if not pairs:
            return (None,) * len(self.differentiable)
        return grad(
            [o for o, _ in pairs],
            self.differentiable,
            [x for _, x in pairs],
            retain_graph=True,
            create_graph=create,
            allow_unused=True,
        )

    def _forward(self) -> list[Tensor]:
        env: dict[Value, Any] = {}
        for i, t in zip(self.trace.graph.inputs, self.inputs, strict=True):
            env[i.value] = t
        for node in self.trace.graph.nodes:
            if any(v in self.needed for v in node.outputs):
                self._run_node(node, env)
        return [env[self.trace.graph.outputs[i].value] for i in _numbers(self.trace)]

    def _run_node(self, node: Node, env: dict[Value, Any]) -> None:
        if node.op.name == "constant":
            env[node.out] = fresh(node.attrs["value"])
            return
        if not node.inputs:
            from graphc.frontend.dispatch import nullary

            env[node.out] = nullary(node.op, **node.attrs)
            return
        made = node.op(*(env[v] for v in node.inputs), **node.attrs)
        for v, t in zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True):
            env[v] = t


def history_of(trace: Trace, tensors: Sequence[Tensor | None], arrays: Sequence[Array]) -> History | None:
    """The History of a call about to run, when one of its outputs needs one."""
    return History(trace, tensors, arrays) if _numbers(trace) else None


def give_freed(base: Tensor) -> None:
    """Mark `base` as made by a graph whose backward has run: it requires gradients, and backward through it raises."""
    if base._edge is None:
        base._edge = (_freed_node(base), 0)


def _freed_node(base: Tensor) -> autograd.Node:
    op = Op("compiled", infer=_no_types, reference=_no_types, samples=_no_samples, vjp=_no_types, decompose=_no_types)
    node = autograd._node(op, {}, (), (), (base._l.type,))
    node.saved_in = ()
    node.freed = True
    return node


def _numbers(trace: Trace) -> list[int]:
    return list(
        dict.fromkeys(
            leaf.number for leaf in trace.out_leaves if leaf.kind == "fresh" and leaf.requires_grad and not leaf.freed
        )
    )


def _needed(trace: Trace) -> set[Value]:
    needed = {trace.graph.outputs[i].value for i in _numbers(trace)}
    for node in reversed(trace.graph.nodes):
        if any(v in needed for v in node.outputs):
            needed.update(node.inputs)
    return needed


def _no_types(*_: Any, **__: Any) -> Any:
    raise AutogradError("a compiled call has no rule of its own")


def _no_samples(_: Any) -> Any:
    return iter(())
