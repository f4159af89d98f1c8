"""Short reductions written out as one expression: pooling windows, which are too short for a loop over rows.

The same order as rule R of docs/numerics.md for at most 32 elements: s[p] += s[p+d] for d = 16, 8, 4, 2, 1, where a
missing element adds nothing (x + -0.0 is x).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from graphc.errors import InternalError
from graphc.ir.expr import Expr, apply, const, iconst
from graphc.ir.graph import Node
from graphc.ir.op import Reduction
from graphc.ir.types import int64

MAX_UNROLLED = 16

_COMBINE = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "or", "all": "and"}


def unrolled(node: Node, read: Callable[[Sequence[Expr]], Expr], index: Sequence[Expr]) -> Expr:
    """The result of a reduction over 1 to 32 elements at `index`; `read(place)` is an element of its input."""
    lower = node.op.lower
    assert isinstance(lower, Reduction)
    sizes = node.inputs[0].type.sizes
    dims = reduced_dims(node)
    kept = index if len(index) == len(sizes) else _with_axes(index, dims, len(sizes))
    values = []
    for position in itertools.product(*(range(sizes[d]) for d in dims)):  # row-major: the order of the run
        place = list(kept)
        for d, p in zip(dims, position, strict=True):
            place[d] = iconst(p)
        values.append(read(place))
    if not 1 <= len(values) <= 32:
        raise InternalError(f"{node.op.name}: a reduction of {len(values)} elements is not unrolled")
    if lower.kind in ("argmax", "argmin"):
        return _position("gt" if lower.kind == "argmax" else "lt", values)
    return _tree(_COMBINE[lower.kind], values)


def reduced_dims(node: Node) -> tuple[int, ...]:
    """The axes a reduction runs over."""
    dim = node.attrs["dim"]
    return (dim,) if isinstance(dim, int) else tuple(dim)


def _with_axes(index: Sequence[Expr], dims: Sequence[int], rank: int) -> list[Expr]:
    left = iter(index)
    return [iconst(0) if d in dims else next(left) for d in range(rank)]


def _tree(combine: str, values: Sequence[Expr]) -> Expr:
    partial = dict(enumerate(values))
    for d in (16, 8, 4, 2, 1):
        for p in range(d):
            if p + d in partial:
                partial[p] = apply(combine, partial[p], partial[p + d])
    return partial[0]


def _position(better: str, values: Sequence[Expr]) -> Expr:
    """First index of the extreme; the first NaN wins; -0 and +0 are equal."""
    best, place = values[0], const(0, int64)
    for k, x in enumerate(values[1:], 1):
        wins = apply(better, x, best)
        if x.dtype.kind == "f":
            nan = apply("and", apply("ne", x, x), apply("eq", best, best))
            wins = apply("or", wins, nan)
        best, place = apply("select", wins, x, best), apply("select", wins, iconst(k), place)
    return place
