"""`compile(dynamic=True)`: the first axis of tensor arguments has a name, so that one recording serves every size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc.frontend.record.staged import LEAST
from graphc.frontend.tensor import Tensor
from graphc.ir.types import Dim, TensorType


def named_sizes(leaves: Sequence[Any]) -> dict[int, str]:
    """A name for the first axis of each argument that has one of free size: equal numbers, equal names. Small sizes
    (they broadcast unlike others), strided tensors and parameters have none.
    """
    names: dict[int, str] = {}
    found: dict[int, str] = {}
    for k, x in enumerate(leaves):
        if not isinstance(x, Tensor) or not x._l.type.shape or not x._l.contiguous or x._requires_grad:
            continue
        number = x._l.type.sizes[0]
        if number >= LEAST:
            found[k] = names.setdefault(number, f"s{len(names)}")
    return found


def loosened(key: Any, leaves: Sequence[Any], names: Mapping[int, str]) -> Any:
    """The signature of a call without the numbers that have names."""
    parts = list(key[1])
    for k, name in names.items():
        type = leaves[k]._l.type
        parts[k] = (name, type.dtype, type.shape[1:], *parts[k][1:])
    return key[0], tuple(parts), *key[2:]


def named_types(leaves: Sequence[Any], names: Mapping[int, str]) -> dict[int, TensorType]:
    """The types of the arguments with names."""
    return {k: TensorType(leaves[k].dtype, (Dim(name), *leaves[k]._l.type.shape[1:])) for k, name in names.items()}
