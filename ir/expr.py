"""Scalar expressions: the unit of fusion.

An Expr says how one element of a result is computed from loads at given places. Expressions are immutable and
hash-consed: equal expressions are the same object, so a DAG shares its common parts and `is` compares structure.
int64 expressions serve as indices; the smart constructors `iadd` and `imul` keep affine indices in one canonical form,
`affine()` reads it back. Only codegen decides how an Expr is vectorised; ir/expr_numpy.py holds its NumPy meaning.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from graphc.errors import InternalError
from graphc.ir.types import DType, bits_of, bool_, int64

# Arithmetic is on bool, int32, int64, float32 and float64; other types are loaded, selected and cast (ir/narrow.py).
# name -> number of operands. The result dtype is that of the first operand (select: the second) unless stated.
FUNCTIONS: dict[str, int] = {
    # float and integer arithmetic; integers wrap; idiv is floor division and irem its remainder with x//0 = x%0 = 0
    "neg": 1, "abs": 1, "sign": 1, "add": 2, "sub": 2, "mul": 2, "div": 2, "idiv": 2, "irem": 2, "fma": 3,
    "max": 2, "min": 2,  # NaN propagates, -0 < +0
    "floor": 1, "ceil": 1, "trunc": 1, "round": 1,  # round: half to even
    "sqrt": 1, "exp": 1, "log": 1, "tanh": 1, "sigmoid": 1, "erf": 1, "sin": 1, "cos": 1, "pow": 2,
    "frem": 2,  # exact floating remainder with the sign of the divisor (Python's %)
    "fmod": 2,  # exact floating remainder with the sign of the dividend (C's fmod)
    "eq": 2, "ne": 2, "lt": 2, "le": 2, "gt": 2, "ge": 2,  # -> bool; ordered (false on NaN) except ne
    "and": 2, "or": 2, "xor": 2, "not": 1,  # bool or integer, bitwise
    "shl": 2, "shr": 2,  # integer; arithmetic shift right; shifts of the width or more give 0 or the sign
    "select": 3,  # (bool, x, y)
    "cast": 1,  # dtype stated; float -> int truncates, saturates, NaN -> 0; to bool: x != 0; 16-bit floats via float32
    "philox": 4,  # (seed, offset, element, word) int64 -> int64 in [0, 2^32): word 0..3 of Philox4x32-10
}  # fmt: skip
_COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})


class Expr:
    """A node of a scalar expression. Build with the functions of this module, never directly."""

    __slots__ = ("__weakref__", "args", "dtype", "op", "value")
    op: str  # "load", "const", "index", "result", "acc" or a key of FUNCTIONS
    dtype: DType
    args: tuple[Expr, ...]  # load: (flat index,) or (flat index, where)
    value: Any  # load: operand number; const: Python number (see `const`); index: axis; result: stage number; else None
    _interned: ClassVar[WeakValueDictionary[tuple[Any, ...], Expr]] = WeakValueDictionary()

    def __repr__(self) -> str:
        if self.op == "const":
            return f"{self.value!r}"
        if self.op == "index":
            return f"i{self.value}"
        if self.op == "load":
            return f"b{self.value}[{', '.join(map(repr, self.args))}]"
        if self.op in ("result", "acc"):
            return f"{self.op}{'' if self.value is None else self.value}"
        name = f"{self.op}.{self.dtype.short}" if self.op == "cast" else self.op
        return f"{name}({', '.join(map(repr, self.args))})"


def _make(op: str, dtype: DType, args: tuple[Expr, ...] = (), value: Any = None) -> Expr:
    if value is None:
        key: tuple[Any, ...] = (op, dtype, *map(id, args))
    else:
        key = (op, dtype, (type(value), value.hex() if isinstance(value, float) else value), *map(id, args))
    found = Expr._interned.get(key)
    if found is None:
        found = object.__new__(Expr)
        found.op, found.dtype, found.args, found.value = op, dtype, args, value
        Expr._interned[key] = found  # args are held by `found`, so the ids in the key stay theirs as long as it lives
    return found


def const(value: bool | int | float | complex, dtype: DType) -> Expr:
    """A literal of `dtype`. NaN is one value; an integer wraps. Types without arithmetic (float16, bfloat16, complex)
    are kept as the bits of the rounded value, an int.
    """
    if dtype.is_complex or dtype.is_low_precision:
        return _make("const", dtype, value=bits_of(value, dtype))
    assert not isinstance(value, complex)
    if dtype.kind == "f":
        return _make("const", dtype, value=float("nan") if value != value else float(value))
    if dtype is bool_:
        return _make("const", dtype, value=bool(value))
    return _make("const", dtype, value=wrapped(int(value), dtype))


def wrapped(value: int, dtype: DType) -> int:
    """The number of an integer type with the last bits of `value`."""
    half = 1 << (dtype.bits - 1) if dtype.is_signed else 0
    return (value + half) % (1 << dtype.bits) - half


@functools.lru_cache(64)
def index(axis: int) -> Expr:
    """The position along iteration axis `axis`, an int64."""
    return _make("index", int64, value=axis)


def load(operand: int, dtype: DType, flat: Expr, where: Expr | None = None) -> Expr:
    """Element `flat` (in elements from the operand's address) of kernel operand `operand`.

    Where `where` is false nothing is read and the value is unspecified: the caller selects another.
    """
    return _make("load", dtype, (flat,) if where is None else (flat, where), operand)


def result(stage: int, dtype: DType) -> Expr:
    """What reduction stage `stage` of a Rows kernel gave for this row."""
    return _make("result", dtype, value=stage)


def acc(dtype: DType) -> Expr:
    """The finished sum of a Contract kernel at this output element."""
    return _make("acc", dtype)


def apply(name: str, *args: Expr, dtype: DType | None = None) -> Expr:
    """Function `name` of FUNCTIONS on `args`; `dtype` is for "cast" only."""
    if FUNCTIONS.get(name) != len(args):
        raise InternalError(f"expression function {name} called with {len(args)} operands")
    if name == "cast":
        assert dtype is not None
        return args[0] if args[0].dtype is dtype else _make("cast", dtype, args)
    operands = args[1:] if name == "select" else args
    if any(a.dtype is not operands[0].dtype for a in operands):
        raise InternalError(f"expression function {name} on mixed dtypes {[a.dtype.short for a in args]}")
    if operands[0].dtype is int64 and all(a.op == "const" for a in operands) and name in ("add", "sub", "mul"):
        x, y = operands[0].value, operands[1].value
        return const({"add": x + y, "sub": x - y, "mul": x * y}[name], int64)
    return _make(name, bool_ if name in _COMPARISONS else operands[0].dtype, args)


@functools.lru_cache(1024)
def iconst(value: int) -> Expr:
    """An int64 literal."""
    return const(value, int64)


def iadd(*terms: Expr | int) -> Expr:
    """Sum of int64 indices, affine parts merged into canonical form: const + c0*i0 + c1*i1 + …, then the rest."""
    return _canonical([(_lift(t), 1) for t in terms])


def isub(a: Expr | int, b: Expr | int) -> Expr:
    """Difference of int64 indices, canonical as iadd."""
    return _canonical([(_lift(a), 1), (_lift(b), -1)])


def imul(a: Expr | int, factor: int) -> Expr:
    """An int64 index times a number, canonical as iadd."""
    return _canonical([(_lift(a), factor)])


def idiv(a: Expr | int, divisor: int) -> Expr:
    """Floor division of an index by a positive number."""
    a = _lift(a)
    if divisor == 1:
        return a
    return iconst(a.value // divisor) if a.op == "const" else apply("idiv", a, iconst(divisor))


def imod(a: Expr | int, divisor: int) -> Expr:
    """Remainder of an index by a positive number."""
    a = _lift(a)
    if divisor == 1:
        return iconst(0)
    return iconst(a.value % divisor) if a.op == "const" else apply("irem", a, iconst(divisor))


def _lift(x: Expr | int) -> Expr:
    return iconst(x) if isinstance(x, int) else x


def linear_terms(e: Expr) -> tuple[int, dict[Expr, int]]:
    """`e` as const + Σ coefficient * atom; an atom is any int64 Expr that is not a sum or a constant multiple."""
    if e.op == "const":
        return int(e.value), {}
    if e.op in ("add", "sub"):
        (c0, t0), (c1, t1) = linear_terms(e.args[0]), linear_terms(e.args[1])
        sign = 1 if e.op == "add" else -1
        merged = dict(t0)
        for atom, k in t1.items():
            merged[atom] = merged.get(atom, 0) + sign * k
        return c0 + sign * c1, {a: k for a, k in merged.items() if k}
    if e.op == "mul" and e.args[1].op == "const":
        c, t = linear_terms(e.args[0])
        k = int(e.args[1].value)
        return c * k, {a: v * k for a, v in t.items() if v * k}
    return 0, {e: 1}


def _canonical(parts: Sequence[tuple[Expr, int]]) -> Expr:
    total, merged = 0, {}  # type: int, dict[Expr, int]
    for e, factor in parts:
        c, terms = linear_terms(e)
        total += c * factor
        for atom, k in terms.items():
            merged[atom] = merged.get(atom, 0) + k * factor
    ordered = sorted((a.value, a) for a in merged if a.op == "index")
    atoms = [a for _, a in ordered] + [a for a in merged if a.op != "index"]
    out: Expr | None = None
    for atom in atoms:
        k = merged[atom]
        if k:
            term = atom if k == 1 else apply("mul", atom, iconst(k))
            out = term if out is None else apply("add", out, term)
    if out is None:
        return iconst(total)
    return apply("add", out, iconst(total)) if total else out


def affine(e: Expr, rank: int) -> tuple[int, tuple[int, ...]] | None:
    """(offset, coefficient per axis) when `e` is affine in index(0) … index(rank-1), else None."""
    c, terms = linear_terms(e)
    if any(a.op != "index" or a.value >= rank for a in terms):
        return None
    coefficients = [0] * rank
    for atom, k in terms.items():
        coefficients[atom.value] = k
    return c, tuple(coefficients)


def flat_index(indices: Sequence[Expr | int], strides: Sequence[int], offset: int = 0) -> Expr:
    """offset + Σ index * stride."""
    return iadd(offset, *(imul(i, s) for i, s in zip(indices, strides, strict=True)))


def substitute(e: Expr, mapping: Mapping[Expr, Expr], memo: dict[Expr, Expr] | None = None) -> Expr:
    """`e` with every key of `mapping` replaced; int64 sums are brought back to canonical form."""
    memo = {} if memo is None else memo
    if e in mapping:
        return mapping[e]
    if not e.args:
        return e
    found = memo.get(e)
    if found is None:
        args = tuple(substitute(a, mapping, memo) for a in e.args)
        if all(a is b for a, b in zip(args, e.args, strict=True)):
            found = e
        elif e.dtype is int64 and e.op == "add":
            found = iadd(*args)
        elif e.dtype is int64 and e.op == "sub":
            found = isub(*args)
        elif e.dtype is int64 and e.op == "mul" and args[1].op == "const":
            found = imul(args[0], int(args[1].value))
        else:
            found = _make(e.op, e.dtype, args, e.value)
        memo[e] = found
    return found


def walk(*roots: Expr) -> list[Expr]:
    """Every distinct node under `roots`, operands before users."""
    seen: set[Expr] = set()
    order: list[Expr] = []
    stack: list[Expr | tuple[Expr]] = list(reversed(roots))  # in a tuple: its operands are done
    while stack:
        top = stack.pop()
        if isinstance(top, tuple):
            order.append(top[0])
        elif top not in seen:
            seen.add(top)
            if not top.args:
                order.append(top)
                continue
            stack.append((top,))
            stack.extend([a for a in reversed(top.args) if a not in seen])
    return order
