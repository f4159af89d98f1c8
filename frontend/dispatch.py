"""The one sink of every operation call: run it, tell the recorder, put it on the tape."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc import compiler
from graphc.compiler import frozen_attrs
from graphc.errors import ArgumentError, AutogradError, InternalError, ShapeError
from graphc.frontend import autograd
from graphc.frontend.mode import mode
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor, fresh, view_of
from graphc.ir.op import Array, Attrs, Op, default_apply, set_fallback_apply
from graphc.ir.types import Dim, DType, Layout, int64

_SCALARS: dict[tuple[type, str, DType], Tensor] = {}
_MAX_SCALARS = 4096
MAX_PLANS = 1024  # of one op


def scalar_tensor(number: bool | int | float, dtype: DType) -> Tensor:
    """The 0-d constant for a Python number, one object a (bits, dtype)."""
    key = (type(number), number.hex() if isinstance(number, float) else str(number), dtype)
    found = _SCALARS.get(key)
    if found is None:
        if len(_SCALARS) >= _MAX_SCALARS:
            _SCALARS.clear()
        found = fresh(_number_array(number, dtype))
        found._s.constant = (number,)  # as it was before rounding: two recordings compare it
        _SCALARS[key] = found
    return found


def _number_array(number: bool | int | float, dtype: DType) -> Array:
    if dtype is int64 and not -(2**63) <= number < 2**63:
        raise ArgumentError(f"the number {number} does not fit in int64")
    with np.errstate(all="ignore"):
        array = np.asarray(number).astype(dtype.np)
    array.flags.writeable = False
    return array


def _forced(value: Any) -> Any:
    """An attribute is part of an operation's name: numbers that a recording follows are forced."""
    if type(value) is tuple:
        return tuple(map(_forced, value))
    return value.plain() if type(value) is Scalar else value


def apply_op(op: Op, operands: tuple[Any, ...], attrs: Attrs) -> Any:
    """Run `op`; one output comes bare, several as a tuple.

    Python numbers take the dtype of the first tensor operand.
    """
    tensors = _lift(op, operands)
    here = mode.get()
    if attrs and here.recorder is not None:
        attrs = {k: _forced(v) for k, v in attrs.items()}
    edges = _edges(op, tensors) if here.grad else None
    if op.decompose is not None and (op.vjp is None and edges is not None):
        expanded = op.decompose(*tensors, **attrs)  # differentiate through the composition
        if expanded is not None:
            return expanded
    outputs = _run(op, tensors, attrs)
    if here.recorder is not None:
        here.recorder.on_op(op, tensors, attrs, outputs)
    if edges is not None:
        autograd.record(op, tensors, edges, dict(attrs), outputs)
        if here.recorder is not None:
            here.recorder.on_tape(tensors, outputs)
    return outputs[0] if op.outputs == 1 else outputs


set_fallback_apply(apply_op)
Tensor.apply_op = staticmethod(apply_op)


def nullary(op: Op, **attrs: Any) -> Tensor:
    """Call an op without operands (full, iota) eagerly, whatever graph is being built around."""
    token = default_apply().set(apply_op)
    try:
        made: Tensor = op(**attrs)
    finally:
        default_apply().reset(token)
    return made


def _lift(op: Op, operands: tuple[Any, ...]) -> tuple[Tensor, ...]:
    if all(type(x) is Tensor or isinstance(x, Tensor) for x in operands):
        return operands
    like = next((x.dtype for x in operands if isinstance(x, Tensor)), None)
    lifted = []
    for k, x in enumerate(operands):
        if isinstance(x, Tensor):
            lifted.append(x)
        elif isinstance(x, (bool, int, float)) and like is not None:
            lifted.append(scalar_tensor(x, like))
        else:
            raise ArgumentError(f"{op.name}: operand {k} is a {type(x).__name__}, expected a Tensor or a number")
    return tuple(lifted)


def _edges(op: Op, tensors: tuple[Tensor, ...]) -> tuple[autograd.Edge | None, ...] | None:
    if not op.differentiable:
        return None
    edges = tuple(autograd.edge_of(t) for t in tensors)
    return edges if any(e is not None for e in edges) else None


def _run(op: Op, tensors: tuple[Tensor, ...], attrs: Attrs) -> tuple[Tensor, ...]:
    numbers = concrete(attrs) if attrs else attrs
    key = (tuple([t._l for t in tensors]), frozen_attrs(numbers))
    plan = op.plans.get(key)
    if plan is None:
        if len(op.plans) >= MAX_PLANS:
            op.plans.clear()
        with _unwatched():
            plan = op.plans[key] = _plan(op, tensors, numbers)
    run, layouts = plan
    if run is None:  # a view
        base = tensors[0]
        return (view_of(base, op.reference(base._a, **numbers), op, dict(attrs), layouts[0]),)
    return tuple([fresh(a, layout) for a, layout in zip(run([t._a for t in tensors]), layouts, strict=True)])


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


def _plan(op: Op, tensors: tuple[Tensor, ...], attrs: Attrs) -> tuple[Any, tuple[Layout, ...]]:
    """How to run `op` on operands of these layouts: a function of arrays (None: it only views its operand), and the
    layouts it gives.
    """
    types = op.infer_types([t._l.type for t in tensors], attrs)
    if op.scatter is not None:
        array = op.reference(tensors[0]._a, **attrs)
        if array.size == 0 or np.may_share_memory(array, tensors[0]._a):
            return None, (Layout.of(array),)
        return lambda arrays: [op.reference(arrays[0], **attrs)], (Layout.of(array),)
    return compiler.eager_plan(op, [t._l for t in tensors], attrs), tuple(map(Layout, types))


def concrete(attrs: Attrs) -> Attrs:
    """`attrs` with named sizes replaced by the numbers of the running recording."""
    if not any(_has_dim(v) for v in attrs.values()):
        return attrs
    recorder = mode.get().recorder
    bind = getattr(recorder, "bind_size", None)
    if bind is None:
        raise InternalError("a named size outside a recording")
    return {k: _bind(v, bind) for k, v in attrs.items()}


def _has_dim(value: Any) -> bool:
    return isinstance(value, Dim) or (isinstance(value, tuple) and any(_has_dim(v) for v in value))


def _bind(value: Any, bind: Any) -> Any:
    if isinstance(value, Dim):
        return bind(value)
    return tuple(_bind(v, bind) for v in value) if isinstance(value, tuple) else value


def write(target: Tensor, value: Tensor, name: str) -> Tensor:
    """Replace the elements `target` looks at by those of `value` (same type): the one sink of every in-place operation.

    Raises AutogradError for a leaf that requires gradients and views not made
    to be written with gradients, ShapeError for views whose elements overlap.
    """
    here = mode.get()
    if value._l.type is not target._l.type:
        raise ShapeError(f"{name}: result is {value._l.type}, but the tensor written in place is {target._l.type}")
    if here.grad:
        autograd.check_inplace(target, name)
        autograd.check_view(target, value, name)
    _check_overlap(target, name)
    if not target._a.flags.writeable and target._a.size:
        raise ArgumentError(f"{name}: the memory of this tensor is read-only; clone() it first")
    if here.recorder is not None:
        here.recorder.on_write(target, value)  # before the write: it may still need the old elements
    np.copyto(target._a, value._a)
    target._s.version += 1
    target._v.value += 1
    if here.grad:
        autograd.rebase(target, value)
    return target


def _check_overlap(target: Tensor, name: str) -> None:
    if target._l.contiguous or target._a.size <= 1:
        return
    span = 1
    for stride, size in sorted((abs(s), n) for s, n in zip(target._l.strides, target._a.shape, strict=True)):
        if size == 1:
            continue
        if stride < span:
            raise ShapeError(
                f"{name}: more than one element of the written-to tensor refers to a single memory location; "
                "clone() it before writing"
            )
        span = stride * (size - 1) + span


def detached_error(what: str) -> AutogradError:
    """The error for looking at memory of a tensor that requires gradients."""
    return AutogradError(f"can't call {what} on a Tensor that requires grad; use tensor.detach().{what} instead")
