"""Gradients of the arguments of an exported program: what they are before a call, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError
from graphc.frontend.record.signature import Gradient
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.op import Array


def before(graph: str, gradients: Sequence[Gradient], given: Mapping[str, Any]) -> dict[str, Array]:
    """The inputs of the graph that take gradients of the tensors `given` by name: -0.0 where there is none, to which
    whatever is added is that in every bit. Raises ArgumentError where one must be there, or must not, and is not so.
    """
    found: dict[str, Array] = {}
    for g in gradients:
        x = given[g.argument]
        held = x._grad if isinstance(x, Tensor) else None
        if g.before != "any" and (g.before == "none") is not (held is None):
            raise ArgumentError(
                f"{graph}: {g.argument}.grad was {'None' if g.before == 'none' else 'a tensor'} in the trace at "
                f"{g.place} and is {'None' if held is None else 'a tensor'} now: the call would go another way; "
                f"{'set it to None before the call' if held is not None else 'set it before the call'}"
            )
        if g.input:
            found[g.input] = np.full_like(_array(x), -0.0) if held is None else held._a
    written = [id(given[g.argument]) for g in gradients if g.how != "keep"]
    twice = [g.argument for g in gradients if g.how != "keep" and written.count(id(given[g.argument])) > 1]
    if twice and isinstance(given[twice[0]], Tensor):
        raise ArgumentError(
            f"{graph} gives .grad to {twice[0]} and {twice[1]}, which are one tensor; pass a copy of one of them"
        )
    return found


def _array(x: Any) -> Array:
    return x._a if isinstance(x, Tensor) else np.asarray(x)


def after(gradients: Sequence[Gradient], given: Mapping[str, Any], results: Sequence[Array]) -> None:
    """Leave behind what the call leaves in `.grad` of the tensors `given`; nothing on those that want no gradient."""
    for g in gradients:
        x = given[g.argument]
        if g.how == "keep" or not isinstance(x, Tensor) or not x.requires_grad:
            continue
        old = x._grad
        if g.how == "drop":
            x._grad = None
        elif g.how == "bind" or old is None:
            x._grad = fresh(results[g.output].copy())
        else:
            np.copyto(old._a, results[g.output])
            old._s.version += 1
            old._v.value += 1
