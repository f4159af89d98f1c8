"""What the reductions of kernel.ReduceStage do to values in registers: identities, combining, the final tree.

Values are accumulated as they are, but bools as i32 (0 or 1), and for max and min of float32 as keys: integers in the
order of the floats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.codegen.emit import Emitter, V, elem
from graphc.errors import InternalError
from graphc.ir.types import DType, bool_, float32

Literal = float | int
_FLOATS = ("float", "double")
_KEY_OF_INFINITY, _KEY_OF_MINUS_INFINITY = 0x7F800000, 0x007FFFFF - (1 << 31)
_NAN_KEY = {"max": (1 << 31) - 1, "min": -(1 << 31)}  # beyond every number, and NaN when turned back


def has_keys(kind: str, dtype: DType) -> bool:
    """True where values are accumulated as keys: the instruction for float extremes is slow to follow itself."""
    return kind in ("max", "min") and dtype is float32


def accumulator(kind: str, dtype: DType) -> str:
    """The register element a reduction of `dtype` is accumulated in."""
    return "i32" if dtype is bool_ or has_keys(kind, dtype) else elem(dtype)


def is_ordered(kind: str, dtype: DType) -> bool:
    """True when the order of combining shows in the result: float sums and products."""
    return kind in ("sum", "prod") and dtype.kind == "f"


def missing(kind: str, dtype: DType) -> Literal:
    """The accumulator that combines with any other to that other (argmax: never better than any)."""
    if kind == "sum":
        return -0.0 if dtype.kind == "f" else 0
    if kind == "prod":
        return 1
    if kind in ("any", "all"):
        return int(kind == "all")
    least = kind in ("max", "argmax")
    if has_keys(kind, dtype):
        return _KEY_OF_MINUS_INFINITY if least else _KEY_OF_INFINITY
    if dtype.kind == "f":
        return -math.inf if least else math.inf
    if dtype is bool_:
        return int(not least)
    half = 1 << (dtype.bits - 1)
    return -half if least else half - 1


def of_nothing(kind: str, dtype: DType) -> Literal:
    """The accumulator of an empty run."""
    return 0 if kind in ("sum", "argmax", "argmin") else missing(kind, dtype)


def lift(e: Emitter, kind: str, x: V) -> V:
    """A value as it is accumulated."""
    if x.ty.elem == "i1":
        return e.convert("zext", x, "i32")
    if x.ty.elem != "float" or kind not in ("max", "min"):
        return x
    key = _flip(e, e.convert("bitcast", x, "i32"))
    return e.select(e.fcmp("uno", x, x), _NAN_KEY[kind], key)


def lower_back(e: Emitter, kind: str, dtype: DType, x: V) -> V:
    """The value of an accumulator."""
    if has_keys(kind, dtype):
        return e.convert("bitcast", _flip(e, x), "float")
    return e.icmp("ne", x, 0) if dtype is bool_ and x.ty.elem == "i32" else x


def _flip(e: Emitter, x: V) -> V:
    """Float bits to integers in the order of the floats, -0 below +0, and back."""
    return e.bin("xor", x, e.bin("lshr", e.bin("ashr", x, 31), 1))


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
