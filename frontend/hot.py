"""The hot path of eager execution: small operations on floating-point tensors of known layouts.

What an operation does is decided once for each pair of layouts and kept in `op.plans`: promotion, broadcasting,
inference and the choice of code are one dictionary look-up afterwards, since layouts are interned. Whatever is not an
everyday case goes to the general function, which also is what a plan is made from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from graphc import compiler
from graphc.frontend import autograd
from graphc.frontend.dispatch import scalar_tensor
from graphc.frontend.mode import mode
from graphc.frontend.ops import ops
from graphc.frontend.tensor import Storage, Tensor
from graphc.ir.op import Array, Op
from graphc.ir.types import Layout

F = TypeVar("F", bound=Callable[..., Any])

MAX_PLANS = 1024  # of one operation
_new = object.__new__
_mode = mode.get


def _wrap(array: Array, layout: Layout) -> Tensor:
    t: Tensor = _new(Tensor)
    t._a = array
    t._l = layout
    t._s = t._v = storage = _new(Storage)
    storage.root = layout.type
    storage.owner = array
    return t


def unary(name: str, general: F) -> F:
    """`general(x)`, which calls op `name` on a floating-point tensor, with a hot path before it."""
    state: list[tuple[Op, dict[Layout, Any]]] = []

    def call(input: Any) -> Any:
        try:
            op, plans = state[0]
            run, layout = plans[input._l]
        except (LookupError, AttributeError):
            return _first(state, name, general, input)
        here = _mode()
        if here.recorder is not None:
            return general(input)
        out = _wrap(run(input._a), layout)
        if here.grad and (input._edge is not None or input._requires_grad or input._gbase is not None):
            _record(op, (input,), out)
        return out

    return _dressed(call, general)


def binary(name: str, general: F) -> F:
    """`general(x, y)`, which calls op `name` on floating-point operands of one dtype as they are, with a hot path
    before it.
    """
    state: list[tuple[Op, dict[tuple[Layout, Layout], Any]]] = []

    def call(input: Any, other: Any) -> Any:
        if type(other) is float:
            other = _number(input, other)
        try:
            op, plans = state[0]
            run, layout = plans[input._l, other._l]
        except (LookupError, AttributeError):
            return _first(state, name, general, input, other)
        here = _mode()
        if here.recorder is not None:
            return general(input, other)
        out = _wrap(run(input._a, other._a), layout)
        if here.grad and (
            input._edge is not None
            or other._edge is not None
            or input._requires_grad
            or other._requires_grad
            or input._gbase is not None
            or other._gbase is not None
        ):
            _record(op, (input, other), out)
        return out

    return _dressed(call, general)


def _number(input: Any, number: float) -> Any:
    """The constant a float is beside a floating-point tensor; the float itself beside anything else."""
    if isinstance(input, Tensor) and input._l.type.dtype.kind == "f":
        return scalar_tensor(number, input._l.type.dtype)
    return number


def _record(op: Op, operands: tuple[Tensor, ...], out: Tensor) -> None:
    edges = tuple(map(autograd.edge_of, operands))
    if any(e is not None for e in edges):
        autograd.record(op, operands, edges, {}, (out,))


def _first(state: list[Any], name: str, general: Callable[..., Any], *operands: Any) -> Any:
    """The general way, and a plan for the next time where one is possible."""
    result = general(*operands)
    if not state:
        op: Op = getattr(ops, name)
        state.append((op, op.plans))
    op, plans = state[0]
    if not all(isinstance(x, Tensor) for x in operands):
        return result
    layouts = tuple(x._l for x in operands)
    if any(x.type.dtype is not layouts[0].type.dtype or x.type.dtype.kind != "f" for x in layouts):
        return result
    run = compiler.eager_direct(op, layouts)
    if run is not None:
        if len(plans) >= MAX_PLANS:
            plans.clear()
        plans[layouts[0] if len(layouts) == 1 else layouts] = (run, _contiguous(op, layouts))
    return result


def _contiguous(op: Op, layouts: tuple[Layout, ...]) -> Layout:
    return Layout(op.infer_types([x.type for x in layouts], {})[0])


def _dressed(call: Callable[..., Any], general: F) -> F:
    call.__name__, call.__qualname__, call.__doc__ = general.__name__, general.__qualname__, general.__doc__
    return call  # type: ignore[return-value]
