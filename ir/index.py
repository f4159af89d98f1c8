"""Simplification of index expressions, with the ranges of the iteration axes known.

Only exact rules on integers, all of them valid for every point of the space:
floor((d*x + y) / d) = x + floor(y / d);  (d*x + y) mod d = y mod d;  floor(y / d) = 0 and y mod d = y for 0 <= y < d;
d*floor(a / d) + (a mod d) = a.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.expr import Expr, apply, const, iadd, iconst, imul, isub, linear_terms
from graphc.ir.types import bool_, int64

Range = tuple[int, int]


class IndexSimplifier:
    """Simplifies index Exprs over axes of the given extents. Keeps its results, so one object serves a whole kernel."""

    def __init__(self, extents: Sequence[int]) -> None:
        self.extents = tuple(extents)
        self._memo: dict[Expr, Expr] = {}

    def __call__(self, e: Expr) -> Expr:
        """An equal, simpler expression."""
        if not e.args or e.op == "load":
            return e
        found = self._memo.get(e)
        if found is None:
            found = self._memo[e] = self._rebuild(e, tuple(self(a) for a in e.args))
        return found

    def _rebuild(self, e: Expr, args: tuple[Expr, ...]) -> Expr:
        if e.dtype is int64 and e.op in ("add", "sub"):
            return merge_split(iadd(*args) if e.op == "add" else isub(*args))
        if e.dtype is int64 and e.op == "mul" and args[1].op == "const":
            return imul(args[0], int(args[1].value))
        if e.op in ("idiv", "irem") and args[1].op == "const" and args[1].value > 0:
            return self._divide(e.op, args[0], int(args[1].value))
        if e.op in ("ge", "lt") and args[1].op == "const":
            return self._compare(e.op, args[0], args[1])
        if e.op == "and" and e.dtype is bool_:
            return both(*args) or const(True, bool_)
        if all(a is b for a, b in zip(args, e.args, strict=True)):
            return e
        return apply(e.op, *args, dtype=e.dtype) if e.op == "cast" else apply(e.op, *args)

    def _divide(self, op: str, a: Expr, divisor: int) -> Expr:
        offset, terms = linear_terms(a)
        whole = iadd(offset // divisor, *(imul(t, k // divisor) for t, k in terms.items() if k % divisor == 0))
        rest = iadd(offset % divisor, *(imul(t, k) for t, k in terms.items() if k % divisor))
        bounds = self.range_of(rest)
        small = bounds is not None and bounds[0] >= 0 and bounds[1] < divisor
        if op == "irem":
            return rest if small else apply("irem", rest, iconst(divisor))
        return whole if small else iadd(whole, apply("idiv", rest, iconst(divisor)))

    def _compare(self, op: str, a: Expr, limit: Expr) -> Expr:
        bounds = self.range_of(a)
        if bounds is not None:
            low, high = (r >= limit.value if op == "ge" else r < limit.value for r in bounds)
            if low == high:
                return const(low, bool_)
        return apply(op, a, limit)

    def range_of(self, e: Expr) -> Range | None:
        """Least and greatest value `e` takes, where that is known."""
        low, terms = linear_terms(e)
        high = low
        for atom, k in terms.items():
            bounds = self._atom_range(atom)
            if bounds is None:
                return None
            ends = sorted((bounds[0] * k, bounds[1] * k))
            low, high = low + ends[0], high + ends[1]
        return low, high

    def _atom_range(self, e: Expr) -> Range | None:
        if e.op == "index" and e.value < len(self.extents):
            return 0, max(self.extents[e.value] - 1, 0)
        if e.op in ("idiv", "irem") and e.args[1].op == "const" and e.args[1].value > 0:
            divisor = int(e.args[1].value)
            inner = self.range_of(e.args[0])
            if e.op == "idiv":
                return None if inner is None else (inner[0] // divisor, inner[1] // divisor)
            fits = inner is not None and inner[0] >= 0
            return (0, min(inner[1], divisor - 1)) if fits and inner is not None else (0, divisor - 1)
        return None


def both(*conditions: Expr | None) -> Expr | None:
    """The conjunction of conditions; None stands for true, and comes back when nothing is left to test."""
    left = [c for c in dict.fromkeys(conditions) if c is not None and not (c.op == "const" and c.value is True)]
    if not left:
        return None if None in conditions else const(True, bool_)
    out = left[0]
    for c in left[1:]:
        out = apply("and", out, c)
    return out


def merge_split(e: Expr) -> Expr:
    """`e` with every k*d*(a // d) + k*(a % d) put together to k*a: the trace of an axis split and laid out whole."""
    offset, terms = linear_terms(e)
    merged = False
    for atom, k in list(terms.items()):
        if atom.op != "irem" or atom.args[1].op != "const" or atom not in terms:
            continue
        quotient = apply("idiv", *atom.args)
        if terms.get(quotient) == k * atom.args[1].value:
            del terms[atom], terms[quotient]
            whole_offset, whole = linear_terms(atom.args[0])
            offset += whole_offset * k
            for inner, c in whole.items():
                terms[inner] = terms.get(inner, 0) + c * k
            merged = True
    if not merged:
        return e
    return merge_split(iadd(offset, *(imul(t, k) for t, k in terms.items() if k)))
