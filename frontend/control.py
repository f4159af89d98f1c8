"""Control flow on tensors: `cond`, `while_loop`, `scan`.

Called line by line they are the Python statements they look like, so gradients, hooks and errors are those of the
statements. What they give is memory of its own. A recording without gradients makes a node of them, which holds the
graphs of their functions (record/branches.py); with gradients a decision becomes a condition on its value, as `if`
does, and every path gets a trace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import ArgumentError, ShapeError
from graphc.frontend.functional_shape import axis_of, select, stack
from graphc.frontend.given import callable_given
from graphc.frontend.ops import ops
from graphc.frontend.record import branches
from graphc.frontend.record.tree import TreeSpec, flatten, unflatten
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor
from graphc.ir.types import Dim

__all__ = ["cond", "scan", "while_loop"]

UNROLLED = 16  # steps of a scan that are written out: one piece of native code


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Sequence[Any] = ()) -> Any:
    """`true_fn(*operands)` if `pred` (a bool, or a tensor with one bool element) holds, else `false_fn(*operands)`.

    Only the chosen function runs, and only what it used gets gradients. Tensors it returns are copied: the result
    shares no memory with anything. In a recording where no gradient flows the other function is run, too, and undone.
    Raises ArgumentError for another kind of `pred` and functions that cannot be called.
    """
    for name, function in (("true_fn", true_fn), ("false_fn", false_fn)):
        if not callable(function):
            raise ArgumentError(f"cond: {name} is a {type(function).__name__}, expected a function")
    recorder = branches.recording()
    if recorder is not None and _flag("cond", "pred", pred) and branches.without_gradients(operands):
        done, result = branches.branch(recorder, pred, (true_fn, false_fn), operands)
        return result if done else _own(result)
    return _own((true_fn if _decided(pred, "cond", "pred") else false_fn)(*operands))


def while_loop(
    cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried_inputs: Sequence[Any]
) -> tuple[Any, ...]:
    """Repeat `values = body_fn(*values)` while `cond_fn(*values)` holds, from `carried_inputs` on; gives the values.

    `body_fn` returns as many values as it takes, tensors of the same dtype and shape (ShapeError otherwise); `cond_fn`
    returns a bool or a tensor with one bool element. The result shares no memory with anything.
    """

    def body(*values: Any) -> tuple[Any, ...]:
        found = body_fn(*values)
        after = tuple(found) if isinstance(found, (tuple, list)) else (found,)
        _check_same("while_loop: body_fn", values, after)
        return after

    values: tuple[Any, ...] = tuple(carried_inputs)
    pred: Any = None
    recorder = branches.recording()
    if recorder is not None and branches.without_gradients(values):
        done, found, pred = branches.repeat(recorder, cond_fn, body, values)
        values = tuple(found)
        if done:
            return values
    while _decided(cond_fn(*values) if pred is None else pred, "while_loop", "what cond_fn returns"):
        values, pred = body(*values), None
    return tuple(map(_own, values))


def scan(combine_fn: Callable[..., Any], init: Any, xs: Any, *, dim: int = 0, reverse: bool = False) -> tuple[Any, Any]:
    """Go through `xs` along `dim`: `carry, y = combine_fn(carry, x)`, from `init` on; gives the last carry and all ys.

    init, x and y: tensors or nested tuples, lists and dicts of them; every tensor of `xs` has the same size n > 0 along
    `dim`, an x is their k-th slices. The ys are stacked along `dim`, in the order of the xs also with `reverse`, which
    starts at the end. The result shares no memory with anything. Raises ArgumentError and ShapeError for xs without
    tensors or of different lengths, and for a carry that changes dtype, shape or structure.
    """

    def step(carry: Any, x: Any) -> tuple[Any, Any]:
        result = combine_fn(carry, x)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise ArgumentError("scan: combine_fn must return two things: the carry and y")
        _check_same("scan: the carry", carry, result[0])
        return tuple(result)

    callable_given("scan", "combine_fn", combine_fn)
    leaves, spec = flatten(xs)
    size = _length(leaves, dim)
    length = leaves[0]._a.shape[dim]
    order = range(length - 1, -1, -1) if reverse else range(length)
    carry = init
    steps: list[tuple[list[Any], TreeSpec]] = []
    recorder = branches.recording()
    graph = recorder is not None and (isinstance(size, Dim) or length > UNROLLED)
    if graph and branches.without_gradients((init, leaves)):
        done, carry, steps = branches.walk(recorder, step, init, leaves, spec, dim, order)
        if done:
            return carry, unflatten(steps[0][1], steps[0][0])
    if isinstance(size, Dim):
        branches.fix_length(size)
    for k in order[len(steps) :]:
        carry, y = step(carry, unflatten(spec, [select(x, dim, k) for x in leaves]))
        steps.append(flatten(y))
    if any(s != steps[0][1] for _, s in steps):
        raise ArgumentError("scan: y has not the same structure in every step")
    ordered = steps[::-1] if reverse else steps
    stacked = [stack(list(column), dim) for column in zip(*(found for found, _ in ordered), strict=True)]
    return _own(carry), unflatten(steps[0][1], stacked)


def _own(result: Any) -> Any:
    """The result with copies of its tensors."""
    leaves, spec = flatten(result)
    return unflatten(spec, [ops.clone(x) if isinstance(x, Tensor) else x for x in leaves])


def _flag(op: str, what: str, pred: Any) -> bool:
    """True for a tensor with one bool element. Raises ArgumentError for any other tensor."""
    if not isinstance(pred, Tensor):
        return False
    if pred.dtype.kind != "b" or pred.numel() != 1:
        raise ArgumentError(
            f"{op}: {what} is {pred._l.type}, expected one element of dtype bool; compare, or use all()"
        )
    return True


def _decided(pred: Any, op: str, what: str) -> bool:
    if isinstance(pred, (bool, Scalar)):
        return bool(pred)
    if not _flag(op, what, pred):
        raise ArgumentError(f"{op}: {what} is a {type(pred).__name__}, expected a bool or a tensor")
    return bool(pred._a.reshape(())) if branches.watched() else bool(pred)


def _length(leaves: Sequence[Any], dim: int) -> Any:
    """The size along `dim`, with its name where it has one."""
    if not leaves or not all(isinstance(x, Tensor) for x in leaves):
        raise ArgumentError("scan: xs must hold tensors and nothing else")
    sizes = [x.ttype.shape[axis_of("scan", x, dim)] for x in leaves]
    if any(isinstance(s, Dim) is not isinstance(sizes[0], Dim) or s != sizes[0] for s in sizes):
        types = ", ".join(str(x._l.type) for x in leaves)
        raise ShapeError(f"scan: the tensors of xs differ in size along dim {dim}: {types}")
    if not isinstance(sizes[0], Dim) and sizes[0] == 0:
        raise ArgumentError(f"scan: xs are empty along dim {dim}; there is no y to tell the type of the result")
    return sizes[0]


def _check_same(what: str, before: Any, after: Any) -> None:
    old, new = flatten(before), flatten(after)
    if old[1] != new[1]:
        raise ArgumentError(f"{what} returns another structure ({new[1].leaves} values) than it got ({old[1].leaves})")
    for k, (x, y) in enumerate(zip(old[0], new[0], strict=True)):
        if isinstance(x, Tensor) and isinstance(y, Tensor) and (x.dtype, x.shape) != (y.dtype, y.shape):
            raise ShapeError(f"{what} turns value {k} from {x._l.type} into {y._l.type}; keep dtype and shape")
        if isinstance(x, Tensor) is not isinstance(y, Tensor):
            raise ArgumentError(f"{what} turns value {k} from a {type(x).__name__} into a {type(y).__name__}")
