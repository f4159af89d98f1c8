"""What fusion has to know of one op: which places of its inputs an output element reads, and what it costs."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphc.ir.expr import Expr, affine, flat_index, iconst, index, load, walk
from graphc.ir.graph import Node, Value
from graphc.ir.op import Elementwise, Op
from graphc.ir.types import TensorType, contiguous_strides

# Rough costs in units of one addition. Only their order matters: what is dear is never computed twice to save a load.
_DEAR = dict.fromkeys(("exp", "log", "tanh", "sigmoid", "erf", "sin", "cos", "pow", "frem", "fmod"), 20) | {
    "philox": 40, "div": 4, "sqrt": 4, "idiv": 4, "irem": 4,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Access:
    """One Elementwise node at the general index of its output.

    reads: (input number, index) of every place read. cost: arithmetic for one element, index arithmetic included.
    simple: every place read is affine in the output index, so inlining adds no index arithmetic.
    """

    reads: tuple[tuple[int, tuple[Expr, ...]], ...]
    cost: int
    simple: bool


def own_index(shape: Sequence[int]) -> tuple[Expr, ...]:
    """The general index into `shape`: axis d is index(d), or 0 where its size is 1."""
    return tuple(iconst(0) if n == 1 else index(d) for d, n in enumerate(shape))


def access_of(node: Node) -> Access:
    """The Access of a node whose lowering is Elementwise."""
    types = tuple(v.type for v in node.inputs)
    try:
        return _access(node.op, types, node.out.type, tuple(sorted(node.attrs.items())))
    except TypeError:  # an attribute that cannot be hashed
        return _access.__wrapped__(node.op, types, node.out.type, tuple(sorted(node.attrs.items())))


@functools.lru_cache(maxsize=4096)
def _access(op: Op, types: tuple[TensorType, ...], out: TensorType, attrs: tuple[tuple[str, Any], ...]) -> Access:
    lower = op.lower
    assert isinstance(lower, Elementwise)
    shape = out.sizes
    reads: dict[tuple[int, tuple[Expr, ...]], int] = {}

    def at(k: int, place: Sequence[Expr], where: Expr | None = None) -> Expr:
        place = tuple(iconst(0) if n == 1 else i for i, n in zip(place, types[k].sizes, strict=True))
        number = reads.setdefault((k, place), len(reads))
        return load(k, types[k].dtype, iconst(number), where)

    value = lower.fn(at, own_index(shape), types, **dict(attrs))
    cost = sum(_cost(e) for e in walk(value, *(i for _, place in reads for i in place)))
    simple = all(affine(i, len(shape)) is not None for _, place in reads for i in place)
    return Access(tuple(reads), cost, simple)


def _cost(e: Expr) -> int:
    if e.op in ("load", "const", "index"):
        return 0
    if e.op in ("add", "mul", "sub") and e.args[-1].op in ("const", "index") and e.dtype.kind == "i":
        return 0  # address arithmetic, or as cheap
    return _DEAR.get(e.op, 1)


def match(axes: Sequence[tuple[Expr, int]], type: TensorType) -> tuple[Expr, ...] | None:
    """The index into a value of `type` that walks `axes` (Expr and size of each, none of size 1) in order.

    None when the sizes other than 1 are not those of the axes, one by one.
    """
    left = list(axes)
    found = []
    for n in type.sizes:
        if n == 1:
            found.append(iconst(0))
        elif left and left[0][1] == n:
            found.append(left.pop(0)[0])
        else:
            return None
    return None if left else tuple(found)


def axes_of(shape: Sequence[int], skip: Sequence[int] = ()) -> tuple[tuple[Expr, int], ...]:
    """The axes of `shape` with more than one place, numbered as in the shape, but for those in `skip`."""
    return tuple((index(d), n) for d, n in enumerate(shape) if n != 1 and d not in skip)


def squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """`shape` without its axes of size 1."""
    return tuple(n for n in shape if n != 1)


def count(shape: Sequence[int]) -> int:
    """Number of elements."""
    return math.prod(shape)


def placeholder(value: Value, index: Sequence[Expr]) -> Expr:
    """Stands for an element of `value` while only the places read matter: a load from a contiguous buffer."""
    return load(0, value.type.dtype, flat_index(index, contiguous_strides(value.type.sizes)))
