"""Sizes that depend on values: while recording, names for numbers that the graph computes.

`x[mask]` has as many elements as the mask has true ones. The recorder gives that size a name (`u0`); types and
attributes that follow from it are written with the name, as for the named sizes of `trace`. Equal counts have one name.
What Python or a rule of ours decides by such a size becomes a guard, and sizes below 2, which broadcast and squeeze
unlike others, are recorded as the numbers they are. A trace is run by first computing the counts: see sized.py.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import RecordingError
from graphc.frontend.autograd import Node
from graphc.frontend.mode import mode, using
from graphc.frontend.promote import size_scalar
from graphc.frontend.record.staged import LEAST, names_in
from graphc.frontend.record.trace import same_bits
from graphc.frontend.record.where import here
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.graph import Location, Value
from graphc.ir.op import Attrs, Op, op_named
from graphc.ir.passes.bind import bind_attrs
from graphc.ir.types import Dim, Size, TensorType, evaluate

_SAME = frozenset({"clone", "expand", "reshape"})  # what keeps the type keeps the elements
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

    The hook of Dim where no trace for named sizes is being made. What holds for all sizes that have names is no
    condition.
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
    if _least(gap) > 0:
        return _COMPARE[how](1, 0)
    result = _COMPARE[how](evaluate(gap, recorder.sizes), 0)
    recorder.on_compared(_OPS[how], size, other, result)
    return result


def _least(size: Dim) -> int:
    """The least number that `size` can be; 0 where that is not told by its signs."""
    if any(c < 0 for m, c in size.terms if m):
        return 0
    return sum(c * LEAST ** len(m) for m, c in size.terms)


class CountedSizes:
    """The part of a Recorder that knows sizes by name: those of `trace`, and those that depend on values."""

    sizes: dict[str, int]
    counted: list[Counted]
    forced = False  # Python asked for a named size as a number
    named_nodes: list[weakref.ref[Any]]  # of the tape, made since there were any

    def __init__(self) -> None:
        self.counted = []
        self.named_nodes = []

    # What has names is noted after a refusal, too: the function goes on, and what it gives is used outside.

    def on_op(self: Any, op: Op, operands: tuple[Tensor, ...], attrs: Attrs, outputs: tuple[Tensor, ...]) -> None:
        """Append the node; its outputs become roots of their new storages."""
        self._note_op(op, operands, attrs, outputs)
        if self.counted and self.refusal is not None:
            self.made += [(weakref.ref(t), None) for t in outputs]

    def on_tape(self: Any, operands: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        """Note the values of a tape node's operands and outputs."""
        edge = next((t._edge for t in outputs if t._edge is not None), None)
        if edge is not None:
            if self.counted:
                self.named_nodes.append(weakref.ref(edge[0]))
            self._note_tape(edge, operands, outputs)

    def symbolic_type(self: Any, tensor: Tensor) -> TensorType:
        """The type with named sizes, where this recording has any."""
        if not self.sizes or self._paused or self.refusal is not None:
            return tensor._l.type
        found: TensorType = self.value_of(tensor).type
        return found

    def bind_size(self, size: Dim) -> int:
        """The number a named size stands for now."""
        return evaluate(size, self.sizes)

    def on_size(self: Any, count: Tensor) -> Size:
        """A size is the number in `count`: a name from here on, or a small number as a condition."""
        number = int(count._a)
        if self._paused or self.finished or self.refusal is not None:
            return number
        if self.alone and self.sizes and not self.counted:
            self.on_escape(count, "a size that depends on values", "beside named sizes there is no place for it")
        try:
            return _count(self, count, number)
        except RecordingError as error:
            self.refuse(error)
            return number

    def on_compared(self: Any, name: str, size: Dim, other: Size, result: bool) -> None:
        """A comparison of a size that depends on values decides something: a condition."""
        if self._paused or self.finished or self.refusal is not None:
            return
        if self.alone and result is (name == "eq") and name in ("eq", "ne"):
            raise RecordingError(
                f"two sizes that depend on values meet at {here()}; a file cannot say that they are equal: use one "
                "mask for both"
            )
        with using(grad=False):
            right = size_scalar(other).tensor if isinstance(other, Dim) else other
            self.on_bool(op_named(name)(size_scalar(size).tensor, right), result)

    def measure(self: Any, name: str, leaf: int, tensor: Tensor) -> None:
        """The first size of an argument has a name, and is a graph input."""
        if name in self.sizes:
            return
        number = tensor._a.shape[0]
        self.add_source("size", leaf, f"size of {name}", fresh(np.asarray(number, np.int64)))
        self.sizes[name] = number
        self.counted.append(Counted(name, self.graph.inputs[-1].value, here()))

    def measures(self: Any, value: Value) -> bool:
        """True for a number that depends on the named size of an argument."""
        named = {c.name for c in self.counted if c.value.node is None}
        stack = [value] if named else []
        while stack:
            node = stack.pop().node
            if node is not None:
                if names_in(node.attrs.values()) & named:
                    return True
                stack.extend(node.inputs)
        return False

    def visible_size(self, size: Dim) -> Any:
        """What the user sees of a named size: a number that is followed where it depends on values."""
        return size_scalar(size) if self.counted else size

    def plain_size(self: Any, size: Dim) -> int | None:
        """The size as a number, as a condition; None where it is named for all calls."""
        if not self.counted:
            return None
        number: int = self.bind_size(size)
        self.on_int(size_scalar(size).tensor, number)
        return number


def _count(recorder: Any, count: Tensor, number: int) -> Size:
    name = named(recorder.counted, recorder.value_of(count))
    if name is None:
        with using(grad=False):
            recorder.on_bool(op_named("ge")(count, LEAST), number >= LEAST)
    if number < LEAST:
        recorder.on_int(count, number)
        return number
    if name is None:
        name = f"u{len(recorder.counted)}"
        recorder.sizes[name] = number
        recorder.counted.append(Counted(name, recorder.value_of(count), here()))
    return Dim(name)


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
            if saved is not None and hasattr(saved, "chain"):
                saved.chain = tuple((op, bind_attrs(attrs, sizes)) for op, attrs in saved.chain)
        stack += [e[0] for e in node.edges if e is not None]
