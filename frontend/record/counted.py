"""Sizes that depend on values: while recording, names for numbers that the graph computes.

`x[mask]` has as many elements as the mask has true ones. The recorder gives that size a name (`u0`); types and
attributes that follow from it are written with the name, as for the named sizes of `trace`. Equal counts have one name.
What Python or a rule of ours decides by such a size becomes a guard, and sizes below 2, which broadcast and squeeze
unlike others, are recorded as the numbers they are. A trace is run by first computing the counts: see sized.py.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.frontend.autograd import Node
from graphc.frontend.mode import mode, using
from graphc.frontend.record.trace import same_bits
from graphc.frontend.tensor import Tensor
from graphc.ir.graph import Location, Value
from graphc.ir.passes.bind import bind_attrs
from graphc.ir.types import Dim, Size, evaluate

_SAME = frozenset({"clone", "expand", "reshape"})  # what keeps the type keeps the elements
LEAST = 2  # smaller sizes have no name
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_OPS = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """The size called `name` is the number `value` (0-d int64)."""

    name: str
    value: Value
    loc: Location


def alike(a: Value, b: Value) -> bool:
    """True when two values are computed in the same way from the same graph inputs."""
    pairs, seen = [(a, b)], {(a, b)}
    while pairs:
        x, y = map(_source, pairs.pop())
        if x is y:
            continue
        m, n = x.node, y.node
        if m is None or n is None or m.op is not n.op or x.index != y.index or x.type is not y.type:
            return False
        if not same_bits(m.attrs, n.attrs) or len(m.inputs) != len(n.inputs):
            return False
        fresh = [p for p in zip(m.inputs, n.inputs, strict=True) if p not in seen]
        seen.update(fresh)
        pairs += fresh
    return True


def _source(value: Value) -> Value:
    """The value that `value` is an equal copy of."""
    while value.node is not None and value.node.op.name in _SAME and value.node.inputs[0].type is value.type:
        value = value.node.inputs[0]
    return value


def named(found: Sequence[Counted], value: Value) -> str | None:
    """The name of the size that `value` counts, if it has one."""
    return next((c.name for c in found if alike(c.value, value)), None)


def answer(size: Dim, how: str, other: Any) -> Any:
    """How a comparison of a size that depends on values comes out now, which then is a condition.

    The hook of Dim where no trace for named sizes is being made. Two sizes that are not the same name and not equal
    now are simply unequal: being equal in another call changes nothing that a graph of unequal ones computes.
    """
    recorder: Any = mode.get().recorder
    if how == "hash" or recorder is None or not recorder.counted:
        return NotImplemented
    if how == "bool":
        how, other = "!=", 0
    if not isinstance(other, (int, Dim)) or isinstance(other, bool):
        return NotImplemented
    gap = size - other
    if isinstance(gap, int):
        return _COMPARE[how](gap, 0)
    result = _COMPARE[how](evaluate(gap, recorder.sizes), 0)
    if how in ("==", "!="):
        if result is (how == "!="):
            return result
    recorder.on_compared(_OPS[how], size, other, result)
    return result


def guard_compared(recorder: Any, name: str, size: Dim, other: Size, result: bool) -> None:
    """Make it a condition that the comparison `name` of two sizes comes out as `result`."""
    from graphc.frontend.promote import size_scalar
    from graphc.ir.op import op_named

    with using(grad=False):
        right = size_scalar(other).tensor if isinstance(other, Dim) else other
        recorder.on_bool(op_named(name)(size_scalar(size).tensor, right), result)


def forget_names(recorder: Any) -> None:
    """Put numbers for the names in what outlives the recording: views of tensors, and the tape behind them."""
    sizes, seen = recorder.sizes, set[Any]()
    stack = [ref() for ref in recorder.named_nodes]
    for ref, _ in recorder.made:
        t = ref()
        if isinstance(t, Tensor):
            t._chain = tuple((op, bind_attrs(attrs, sizes)) for op, attrs in t._chain)
            stack += [x._edge[0] for x in (t, t._gbase) if x is not None and x._edge is not None]
    while stack:
        node = stack.pop()
        if node in seen or not isinstance(node, Node):
            continue
        seen.add(node)
        node.attrs = bind_attrs(node.attrs, sizes)
        node.in_types, node.out_types = (tuple(t.bind(sizes) for t in ts) for ts in (node.in_types, node.out_types))
        for saved in (*(node.saved_in or ()), *(node.saved_out or ())):
            if saved is not None and getattr(saved, "chain", ()):
                saved.chain = tuple((op, bind_attrs(attrs, sizes)) for op, attrs in saved.chain)
        stack += [e[0] for e in node.edges if e is not None]
