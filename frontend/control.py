"""Control flow on tensors: `cond`, `while_loop`, `scan`.

Called line by line they are the Python statements they look like, so gradients, hooks and errors are those of the
statements. In a recording a decision becomes a condition on its value, as `if` does: every path gets a trace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import ArgumentError, ShapeError
from graphc.frontend.functional_shape import select, stack
from graphc.frontend.record.tree import TreeSpec, flatten, unflatten
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor

__all__ = ["cond", "scan", "while_loop"]


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Sequence[Any] = ()) -> Any:
    """`true_fn(*operands)` if `pred` (a bool, or a tensor with one bool element) holds, else `false_fn(*operands)`.

    Only the chosen function runs, and only what it used gets gradients. Raises ArgumentError for another kind of `pred`
    and functions that cannot be called.
    """
    for name, function in (("true_fn", true_fn), ("false_fn", false_fn)):
        if not callable(function):
            raise ArgumentError(f"cond: {name} is a {type(function).__name__}, expected a function")
    return (true_fn if _decided(pred, "cond", "pred") else false_fn)(*operands)


def while_loop(
    cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried_inputs: Sequence[Any]
) -> tuple[Any, ...]:
    """Repeat `values = body_fn(*values)` while `cond_fn(*values)` holds, from `carried_inputs` on; gives the values.

    `body_fn` returns as many values as it takes, tensors of the same dtype and shape (ShapeError otherwise); `cond_fn`
    returns a bool or a tensor with one bool element.
    """
    values = tuple(carried_inputs)
    while _decided(cond_fn(*values), "while_loop", "what cond_fn returns"):
        after = body_fn(*values)
        after = tuple(after) if isinstance(after, (tuple, list)) else (after,)
        _check_same("while_loop: body_fn", values, after)
        values = after
    return values


def scan(combine_fn: Callable[..., Any], init: Any, xs: Any, *, dim: int = 0, reverse: bool = False) -> tuple[Any, Any]:
    """Go through `xs` along `dim`: `carry, y = combine_fn(carry, x)`, from `init` on; gives the last carry and all ys.

    init, x and y: tensors or nested tuples, lists and dicts of them; every tensor of `xs` has the same size n > 0 along
    `dim`, an x is their k-th slices. The ys are stacked along `dim`, in the order of the xs also with `reverse`, which
    starts at the end. Raises ArgumentError and ShapeError for xs without tensors or of different lengths, and for a
    carry that changes dtype, shape or structure.
    """
    leaves, spec = flatten(xs)
    length = _length(leaves, dim)
    carry = init
    steps: list[tuple[list[Any], TreeSpec]] = []
    for k in range(length - 1, -1, -1) if reverse else range(length):
        result = combine_fn(carry, unflatten(spec, [select(x, dim, k) for x in leaves]))
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise ArgumentError("scan: combine_fn must return two things: the carry and y")
        _check_same("scan: the carry", carry, result[0])
        carry = result[0]
        steps.append(flatten(result[1]))
    if any(s != steps[0][1] for _, s in steps):
        raise ArgumentError("scan: y has not the same structure in every step")
    ordered = steps[::-1] if reverse else steps
    stacked = [stack(list(column), dim) for column in zip(*(found for found, _ in ordered), strict=True)]
    return carry, unflatten(steps[0][1], stacked)


def _decided(pred: Any, op: str, what: str) -> bool:
    if isinstance(pred, bool):
        return pred
    if isinstance(pred, Scalar):
        return bool(pred)
    if not isinstance(pred, Tensor):
        raise ArgumentError(f"{op}: {what} is a {type(pred).__name__}, expected a bool or a tensor")
    if pred.dtype.kind != "b" or pred.numel() != 1:
        raise ArgumentError(
            f"{op}: {what} is {pred._l.type}, expected one element of dtype bool; compare, or use all()"
        )
    return bool(pred)


def _length(leaves: Sequence[Any], dim: int) -> int:
    if not leaves or not all(isinstance(x, Tensor) for x in leaves):
        raise ArgumentError("scan: xs must hold tensors and nothing else")
    sizes = {x.shape[dim] for x in leaves}
    if len(sizes) > 1:
        types = ", ".join(str(x._l.type) for x in leaves)
        raise ShapeError(f"scan: the tensors of xs differ in size along dim {dim}: {types}")
    length = next(iter(sizes))
    if length == 0:
        raise ArgumentError(f"scan: xs are empty along dim {dim}; there is no y to tell the type of the result")
    return int(length)


def _check_same(what: str, before: Any, after: Any) -> None:
    old, new = flatten(before), flatten(after)
    if old[1] != new[1]:
        raise ArgumentError(f"{what} returns another structure ({new[1].leaves} values) than it got ({old[1].leaves})")
    for k, (x, y) in enumerate(zip(old[0], new[0], strict=True)):
        if isinstance(x, Tensor) and isinstance(y, Tensor) and (x.dtype, x.shape) != (y.dtype, y.shape):
            raise ShapeError(f"{what} turns value {k} from {x._l.type} into {y._l.type}; keep dtype and shape")
        if isinstance(x, Tensor) is not isinstance(y, Tensor):
            raise ArgumentError(f"{what} turns value {k} from a {type(x).__name__} into a {type(y).__name__}")
