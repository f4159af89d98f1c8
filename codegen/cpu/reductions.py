"""What the reductions of kernel.ReduceStage do to values in registers: identities, combining, the final tree.

Values are accumulated as they are, but bools as i32 (0 or 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.codegen.emit import Emitter, V, elem
from graphc.codegen.functions import INT_MAX, INT_MIN
from graphc.errors import InternalError
from graphc.ir.types import DType, bool_

Literal = float | int
_FLOATS = ("float", "double")


def accumulator(dtype: DType) -> str:
    """The register element a reduction of `dtype` is accumulated in."""
    return "i32" if dtype is bool_ else elem(dtype)


def is_ordered(kind: str, dtype: DType) -> bool:
    """True when the order of combining shows in the result: float sums and products."""
    return kind in ("sum", "prod") and dtype.kind == "f"


def missing(kind: str, of: str) -> Literal:
    """What combines with any value to that value (argmax: never better than any)."""
    floating = of in _FLOATS
    if kind == "sum":
        return -0.0 if floating else 0
    if kind == "prod":
        return 1
    if kind in ("any", "all"):
        return int(kind == "all")
    least = kind in ("max", "argmax")
    if floating:
        return -math.inf if least else math.inf
    if of == "i32":
        return int(not least)
    return INT_MIN if least else INT_MAX


def of_nothing(kind: str, of: str) -> Literal:
    """The reduction of an empty run."""
    return 0 if kind in ("sum", "argmax", "argmin") else missing(kind, of)


def lift(e: Emitter, x: V) -> V:
    """A value as it is accumulated."""
    return e.convert("zext", x, "i32") if x.ty.elem == "i1" else x


def lower_back(e: Emitter, x: V) -> V:
    """The value of an accumulator."""
    return e.icmp("ne", x, 0) if x.ty.elem == "i32" else x


_COMBINE = {
    ("sum", "f"): "fadd", ("prod", "f"): "fmul", ("sum", "i"): "add", ("prod", "i"): "mul",
    ("max", "f"): "maximum", ("min", "f"): "minimum", ("max", "i"): "smax", ("min", "i"): "smin",
    ("any", "i"): "or", ("all", "i"): "and",
}  # fmt: skip
_INTRINSICS = ("maximum", "minimum", "smax", "smin")


def combine(e: Emitter, kind: str, a: V, b: V) -> V:
    """a and b reduced, `a` the earlier one."""
    name = _COMBINE.get((kind, "f" if a.ty.elem in _FLOATS else "i"))
    if name is None:
        raise InternalError(f"reduction {kind} on {a.ty}")
    return e.intrinsic(name, a, b) if name in _INTRINSICS else e.bin(name, a, b)


def tree(e: Emitter, kind: str, parts: Sequence[V]) -> V:
    """Partials 0, 1, … in the lanes of `parts` reduced to a scalar: s[p] += s[p + d], d = half, quarter, …, 1."""
    row = list(parts)
    while len(row) > 1:
        half = len(row) // 2
        row = [combine(e, kind, row[k], row[k + half]) for k in range(half)]
    x = row[0]
    while x.ty.width > 1:
        x = combine(e, kind, *_halves(e, x))
    return x


def _halves(e: Emitter, x: V) -> tuple[V, V]:
    """The lower and the upper lanes."""
    half = x.ty.width // 2
    if half == 1:
        return e.extract(x, 0), e.extract(x, 1)
    return e.shuffle(x, None, range(half)), e.shuffle(x, None, range(half, 2 * half))


def better(e: Emitter, kind: str, a: V, b: V) -> V:
    """True when `a` beats `b` (argmax, argmin): NaN beats every number, and equals are no better."""
    greater = kind == "argmax"
    if a.ty.elem not in _FLOATS:
        return e.icmp("sgt" if greater else "slt", a, b)
    beyond = e.fcmp("ogt" if greater else "olt", a, b)
    first_nan = e.bin("and", e.fcmp("uno", a, a), e.fcmp("ord", b, b))
    return e.bin("or", beyond, first_nan)


def _equal(e: Emitter, a: V, b: V) -> V:
    if a.ty.elem not in _FLOATS:
        return e.icmp("eq", a, b)
    both_nan = e.bin("and", e.fcmp("uno", a, a), e.fcmp("uno", b, b))
    return e.bin("or", e.fcmp("oeq", a, b), both_nan)


def first_of_lanes(e: Emitter, kind: str, best: V, place: V) -> V:
    """The place of the best lane; among equals the least place."""
    while best.ty.width > 1:
        (a, b), (at_a, at_b) = _halves(e, best), _halves(e, place)
        earlier = e.bin("and", _equal(e, a, b), e.icmp("slt", at_b, at_a))
        take = e.bin("or", better(e, kind, b, a), earlier)
        best, place = e.select(take, b, a), e.select(take, at_b, at_a)
    return place
