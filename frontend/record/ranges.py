"""Places and probabilities that a graph checks itself: a condition on the computed value."""

from __future__ import annotations

from typing import Any

from graphc.frontend.mode import using
from graphc.frontend.promote import size_scalar
from graphc.frontend.tensor import Tensor
from graphc.ir.graph import Value
from graphc.ir.op import op_named
from graphc.ir.types import Dim

_IN_RANGE = frozenset({"constant", "iota", "argmax", "argmin"})  # whose values are known, or places by nature


def in_range(recorder: Any, index: Tensor, low: float | None, high: float | Dim, ignored: int | None) -> Value | None:
    """The value that says whether all elements of `index` lie in [low, high) or are `ignored` (`low` None: -high); None
    where they do by nature.
    """
    recorder.value_of(index)
    root = recorder._root_of(index)
    if root.value.node is not None and root.value.node.op.name in _IN_RANGE:
        return None
    with using(grad=False):
        limit = size_scalar(high).tensor if isinstance(high, Dim) else high
        least = low if low is not None else op_named("neg")(limit) if isinstance(limit, Tensor) else -limit
        inside = op_named("bitwise_and")(op_named("ge")(index, least), op_named("lt")(index, limit))
        if ignored is not None:
            inside = op_named("bitwise_or")(inside, op_named("eq")(index, ignored))
        flag = op_named("all")(inside.reshape((-1,)), dim=(0,), keepdim=False)
    value: Value = recorder.value_of(flag)
    return value
