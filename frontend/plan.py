"""What eager execution does for an operation on operands of known layouts: decided once, then looked up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc import compiler
from graphc.compiler import frozen_attrs
from graphc.frontend.mode import mode
from graphc.frontend.natives import Native, hold
from graphc.frontend.saving import operands_read
from graphc.frontend.tensor import Tensor
from graphc.ir.op import Array, Attrs, Op
from graphc.ir.types import Layout, TensorType

MAX_PLANS = 1024  # of one op


class Plan(Native):
    """How to run `op` with `attrs` on operands of certain layouts.

    `run(*arrays)` gives the output, several as a sequence; with `link` set it gives a view of its operand, and `link`
    is what a chain of views holds of it. `layouts` and `types` are those of the outputs, `in_types` those of the
    operands.
    """

    __slots__ = ("attrs", "backward", "in_types", "layouts", "link", "nothing", "op", "saved", "taped", "types")
    op: Op
    attrs: dict[str, Any]
    layouts: tuple[Layout, ...]
    types: tuple[TensorType, ...]
    in_types: tuple[TensorType, ...]
    link: tuple[tuple[Op, dict[str, Any]], ...]
    nothing: tuple[None, ...]  # what a tape node keeps that keeps no operand
    backward: dict[Any, Any]  # frontend/gradient_plan.py
    taped: bool  # its one output can carry a gradient
    saved: dict[tuple[bool, ...], tuple[tuple[bool, ...] | None, tuple[bool, ...] | None]]

    def title(self) -> str:
        """The operation's name."""
        return self.op.name

    def kept(self, needs: tuple[bool, ...]) -> tuple[tuple[bool, ...] | None, tuple[bool, ...] | None]:
        """Which operands and which outputs a tape node keeps when these gradients are wanted; None: none of them."""
        found = self.saved.get(needs)
        if found is None:
            found = self.saved[needs] = kept_by(self.op, self.in_types, self.types, self.attrs, needs)
        return found


def kept_by(
    op: Op, ins: tuple[TensorType, ...], outs: tuple[TensorType, ...], attrs: Attrs, needs: tuple[bool, ...]
) -> tuple[tuple[bool, ...] | None, tuple[bool, ...] | None]:
    """Which operands and outputs the gradient rule reads; None for none of them. Types must be static."""
    read = op.saves
    if read and (not all(needs) or len(outs) > 1):
        read = operands_read(op, ins, outs, attrs, needs)
    operands = tuple([str(k) in read for k in range(len(ins))])
    outputs = ("out" in read,) if len(outs) == 1 else tuple([f"out{k}" in read for k in range(len(outs))])
    return operands if any(operands) else None, outputs if any(outputs) else None


def plan_for(op: Op, tensors: tuple[Tensor, ...], attrs: Attrs) -> Plan:
    """The plan for these operands, made at the first call. Attributes hold no named sizes."""
    key = (*[t._l for t in tensors], frozen_attrs(attrs) if attrs else None)
    found: Plan | None = op.plans.get(key)
    if found is None:
        if len(op.plans) >= MAX_PLANS:
            op.plans.clear()
        with _unwatched():
            found = op.plans[key] = _made(op, tensors, attrs)
    return found


@contextmanager
def _unwatched() -> Iterator[None]:
    """Without the eyes of a recording: compiling runs nothing of the user's, but many thousand calls of ours."""
    hook = sys.getprofile() if mode.get().recorder is not None else None
    if not callable(hook):
        yield
        return
    sys.setprofile(None)
    try:
        yield
    finally:
        sys.setprofile(hook)


def _made(op: Op, tensors: tuple[Tensor, ...], attrs: Attrs) -> Plan:
    plan = Plan()
    plan.op, plan.attrs, plan.link, plan.saved, plan.backward = op, dict(attrs), (), {}, {}
    plan.in_types = tuple([t._l.type for t in tensors])
    plan.nothing = (None,) * len(tensors)
    plan.types = op.infer_types(plan.in_types, attrs)
    plan.taped = op.differentiable and len(plan.types) == 1 and plan.types[0].dtype.is_floating_point
    if op.scatter is None:
        plan.layouts = tuple(map(Layout, plan.types))
        hold(plan, compiler.eager_plan(op, [t._l for t in tensors], attrs))
        return plan
    base = tensors[0]._a
    array = op.reference(base, **attrs)
    plan.layouts = (Layout.of(array),)
    run = _reference(op, plan.attrs)
    if array.size == 0 or np.may_share_memory(array, base):
        plan.link = ((op, plan.attrs),)
        run = _settling(plan)
    hold(plan, run)
    return plan


def _settling(plan: Plan) -> Callable[[Array], Array]:
    """NumPy's view for the first call; what is called again gets a function of its own."""

    def first(array: Array) -> Array:
        hold(plan, second)
        return plan.op.reference(array, **plan.attrs)  # type: ignore[no-any-return]

    def second(array: Array) -> Array:
        view: Array = plan.op.reference(array, **plan.attrs)
        hold(plan, compiler.eager_view(array, view) or _reference(plan.op, plan.attrs))
        return view

    return first


def _reference(op: Op, attrs: Attrs) -> Callable[[Array], Array]:
    return lambda array: op.reference(array, **attrs)
