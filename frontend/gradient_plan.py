"""Gradient rules as one native call: what a rule computes for operands of known layouts is compiled as a whole.

A rule is applied once to graph values and the graph compiled; the bits are those of its operations one by one, since
fusing changes none. Rules that hand views of their operands on stay as they are: they compute nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc import compiler
from graphc.frontend.autograd import Node, Saved, TypeOnly
from graphc.frontend.natives import Native, hold
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.graph import Graph, Value
from graphc.ir.narrow import vjp
from graphc.ir.op import Array
from graphc.ir.types import Layout

MAX_PLANS = 256  # of one operation on operands of one layout


class GradientPlan(Native):
    """`run(*arrays)` gives the outputs of `layouts` (None: there are none); `places[k]` says where the gradient of
    operand k is found: None (no gradient), ~j: output j, j: gradient j that was given, handed on.
    """

    __slots__ = ("layouts", "name", "places")

    def __init__(
        self, name: str, run: Callable[..., Any] | None, layouts: tuple[Layout, ...], places: tuple[int | None, ...]
    ):
        self.name, self.layouts, self.places = name, layouts, places
        if run is not None:
            hold(self, run)

    def title(self) -> str:
        """The name of the tape's node."""
        return self.name


def gradients(node: Node, slot: dict[int, Tensor], needs: tuple[bool, ...]) -> tuple[Tensor | None, ...] | None:
    """The gradients `node`'s rule gives, unless it must be applied operation by operation."""
    plan = getattr(node, "way", None)
    if plan is None:
        return None
    key: list[Any] = [needs]
    arrays: list[Array] = []
    for k in range(len(node.out_types)):
        g = slot.get(k)
        if g is None:
            key.append(None)
        else:
            key.append(g._l)
            arrays.append(g._a)
    for s in (*node.saved_in, *node.saved_out) if node.saved_out is not None else node.saved_in:
        if s is None:
            key.append(None)
        elif type(s) is not Saved or s.versions.value != s.version:
            return None  # the general way knows what to say
        else:
            key.append(s.layout)
            arrays.append(s.array)
    at = tuple(key)
    found = plan.backward.get(at)
    if found is None:
        if len(plan.backward) >= MAX_PLANS:
            plan.backward.clear()
        found = plan.backward[at] = _made(node, at, needs) or False
    if found is False:
        return None
    outputs: Any = found.run(*arrays) if found.layouts else ()
    made = [fresh(outputs, found.layouts[0])] if len(found.layouts) == 1 else list(map(fresh, outputs, found.layouts))
    return tuple([None if j is None else made[~j] if j < 0 else slot[j] for j in found.places])


def _made(node: Node, key: tuple[Any, ...], needs: tuple[bool, ...]) -> GradientPlan | None:
    if any(stride < 0 for layout in key[1:] if layout is not None for stride in layout.strides):
        return None
    graph = Graph(f"{node.op.name}_backward")
    values = [None if layout is None else graph.add_input(layout.type, f"x{k}") for k, layout in enumerate(key[1:])]
    many = len(node.out_types) > 1
    gs, rest = values[: len(node.out_types)], values[len(node.out_types) :]
    ins = [TypeOnly(t) if v is None else v for v, t in zip(rest, node.in_types, strict=False)]
    outs = rest[len(node.in_types) :] or [None] * len(node.out_types)
    stand_ins = [TypeOnly(t) if v is None else v for v, t in zip(outs, node.out_types, strict=True)]
    with graph.building():
        g: Any = tuple(gs) if many else gs[0]
        found = vjp(node.op, g, tuple(stand_ins) if many else stand_ins[0], ins, needs, node.attrs)
    wanted: list[Value] = []
    places: list[int | None] = []
    for grad, need in zip(found, needs, strict=True):
        if grad is None or not need:
            places.append(None)
        elif grad.node is not None and grad.node.op.scatter is None:
            if grad not in wanted:
                wanted.append(grad)
            places.append(~wanted.index(grad))
        elif grad.node is None and grad in gs:
            places.append(gs.index(grad))
        else:
            return None
    for k, value in enumerate(wanted):
        graph.add_output(value, f"y{k}")
    layouts = [layout for layout in key[1:] if layout is not None]
    run = compiler.eager_graph(graph, layouts) if wanted else None
    return GradientPlan(node.name(), run, tuple([Layout(v.type) for v in wanted]), tuple(places))
