"""The one sink of every operation call: run it, tell the recorder, put it on the tape."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, AutogradError, InternalError, ShapeError
from graphc.frontend import autograd, autograd_inplace
from graphc.frontend.mode import RecorderHooks, mode
from graphc.frontend.plan import Plan, plan_for
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor, fresh, view_of
from graphc.ir.convert import number_array
from graphc.ir.narrow import expand
from graphc.ir.op import Array, Attrs, Op, default_apply, set_fallback_apply
from graphc.ir.types import Dim, DType

_SCALARS: dict[tuple[type, str, DType], Tensor] = {}
_FLOATS: dict[tuple[float, DType], Tensor] = {}  # the same tensors, found at less cost
_MAX_SCALARS = 4096


def scalar_tensor(number: bool | int | float, dtype: DType, name: str = "scalar") -> Tensor:
    """The 0-d constant for a Python number, one object a (bits, dtype). Raises ArgumentError, as of the op `name`, for
    a number that an integer dtype cannot hold.
    """
    if type(number) is float and number and number == number:  # zeros and NaNs are told apart by bits below
        at: Any = (number, dtype)
        known = _FLOATS.get(at)
        if known is not None:
            return known
    else:
        at = None
    key = (type(number), number.hex() if isinstance(number, float) else str(number), dtype)
    found = _SCALARS.get(key)
    if found is None:
        if len(_SCALARS) >= _MAX_SCALARS:
            _SCALARS.clear()
            _FLOATS.clear()
        found = fresh(_number_array(number, dtype, name))
        found._s.constant = (number,)  # as it was before rounding: two recordings compare it
        _SCALARS[key] = found
    if at is not None:
        _FLOATS[at] = found
    return found


def _number_array(number: bool | int | float, dtype: DType, name: str) -> Array:
    if dtype.is_integer:
        if not -(2**63) <= number < 2**63:  # NaN is not
            raise ArgumentError(
                f"{name}: the number {number} does not fit in int64; use a smaller one, or a floating-point tensor"
            )
        number = int(number)  # beyond a smaller type it wraps around below, as in PyTorch
    with np.errstate(all="ignore"):
        array = number_array(number, dtype) if dtype.is_low_precision else np.asarray(number).astype(dtype.np)
    array.flags.writeable = False
    return array


def _forced(value: Any) -> Any:
    """An attribute is part of an operation's name: numbers that a recording follows are forced."""
    if type(value) is tuple or type(value) is list:
        return type(value)(map(_forced, value))
    return value.plain() if isinstance(value, Scalar) else value


def apply_op(op: Op, operands: tuple[Any, ...], attrs: Attrs) -> Any:
    """Run `op`; one output comes bare, several as a tuple.

    Python numbers take the dtype of the first tensor operand.
    """
    tensors = operands
    for x in operands:
        if type(x) is not Tensor and not isinstance(x, Tensor):
            tensors = _lift(op, operands)
            break
    here = mode.get()
    if here.recorder is not None:
        return _recorded(op, tensors, attrs, here.recorder, here.grad)
    edges = autograd.edges_of(tensors) if here.grad and op.differentiable else None
    if edges is not None and op.vjp is None and op.decompose is not None:
        expanded = expand(op, tensors, attrs)  # differentiate through the composition
        if expanded is not None:
            return expanded
    plan = plan_for(op, tensors, attrs)
    if op.outputs == 1:
        out = run_one(plan, tensors)
        if edges is not None:
            autograd.put(plan, tensors, edges, (out,))
        return out
    outputs = _run_all(plan, tensors)
    if edges is not None:
        autograd.put(plan, tensors, edges, outputs)
    return outputs


def run_one(plan: Plan, tensors: tuple[Tensor, ...]) -> Tensor:
    """The output of a plan that has one."""
    array = plan.run(*[t._a for t in tensors])
    if plan.link:
        return view_of(tensors[0], array, plan.link, plan.layouts[0])
    return fresh(array, plan.layouts[0])


def _run_all(plan: Plan, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(map(fresh, plan.run(*[t._a for t in tensors]), plan.layouts))


def _recorded(op: Op, tensors: tuple[Tensor, ...], attrs: Attrs, recorder: RecorderHooks, grad: bool) -> Any:
    """The same while a recorder watches: it is told of everything, and attributes may hold named sizes."""
    if recorder.lockstep is not None:
        later = recorder.lockstep.apply(op, tensors, attrs, grad)
        if later is not None:
            return later
    if attrs:
        attrs = {k: _forced(v) for k, v in attrs.items()}
    edges = autograd.edges_of(tensors) if grad and op.differentiable else None
    if op.decompose is not None and (op.vjp is None and edges is not None):
        expanded = expand(op, tensors, attrs)
        if expanded is not None:
            return expanded
    hook = sys.getprofile() if _UNWATCHED else None
    if not callable(hook):
        outputs = _run_and_tell(op, tensors, attrs, recorder)
    else:
        sys.setprofile(None)
        try:
            outputs = _run_and_tell(op, tensors, attrs, recorder)
        finally:
            sys.setprofile(hook)
    if edges is not None:
        autograd.record(op, tensors, edges, dict(attrs), outputs)
        recorder.on_tape(tensors, outputs)
    return outputs[0] if op.outputs == 1 else outputs


# no code of the user's runs in there, but dozens of calls of ours; from 3.12 on, changing the hook costs more than it
_UNWATCHED = sys.version_info < (3, 12)


def _run_and_tell(op: Op, tensors: tuple[Tensor, ...], attrs: Attrs, recorder: RecorderHooks) -> tuple[Tensor, ...]:
    plan = plan_for(op, tensors, concrete(attrs) if attrs else attrs)
    if plan.link:  # the chain keeps the named sizes
        array = plan.run(tensors[0]._a)
        outputs: tuple[Tensor, ...] = (view_of(tensors[0], array, ((op, dict(attrs)),), plan.layouts[0]),)
    else:
        outputs = (run_one(plan, tensors),) if op.outputs == 1 else _run_all(plan, tensors)
    recorder.on_op(op, tensors, attrs, outputs)
    return outputs


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
            lifted.append(scalar_tensor(x, like, op.name))
        else:
            raise ArgumentError(f"{op.name}: operand {k} is a {type(x).__name__}, expected a Tensor or a number")
    return tuple(lifted)


def concrete(attrs: Attrs) -> Attrs:
    """`attrs` with named sizes replaced by the numbers of the running recording."""
    if not any(has_dim(v) for v in attrs.values()):
        return attrs
    recorder = mode.get().recorder
    bind = getattr(recorder, "bind_size", None)
    if bind is None:
        raise InternalError("a named size outside a recording")
    return {k: _bind(v, bind) for k, v in attrs.items()}


def has_dim(value: Any) -> bool:
    """Whether an attribute holds a named size."""
    return isinstance(value, Dim) or (isinstance(value, tuple) and any(has_dim(v) for v in value))


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
        autograd_inplace.check_inplace(target, name)
        autograd_inplace.check_view(target, value, name)
    if target._l.overlaps():
        raise ShapeError(
            f"{name}: more than one element of the written-to tensor refers to a single memory location; clone() it "
            "before writing"
        )
    lockstep = None if here.recorder is None else here.recorder.lockstep
    if lockstep is not None and lockstep.write(target, value, name, here.grad):
        return target
    if not target._a.flags.writeable and target._l.size:
        raise ArgumentError(f"{name}: the memory of this tensor is read-only; clone() it first")
    if here.recorder is not None:
        here.recorder.on_write(target, value)  # before the write: it may still need the old elements
    np.copyto(target._a, value._a)
    target._s.version += 1
    target._v.value += 1
    if here.grad:
        autograd_inplace.rebase(target, value)
    return target


def detached_error(what: str) -> AutogradError:
    """The error for looking at memory of a tensor that requires gradients."""
    return AutogradError(f"can't call {what} on a Tensor that requires grad; use tensor.detach().{what} instead")
