"""The NumPy meaning of expressions and kernels: the oracle of code generation. Slow; the order rules are exact."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.errors import InternalError
from graphc.ir.convert import cast_array
from graphc.ir.expr import Expr, walk
from graphc.ir.kernel import Contract, Kernel, Map, MapStage, ReduceStage, Rows, Scan, Scatter, Store, Strided
from graphc.ir.numerics import contraction, fma, last_extreme, places_of, reduction, scan, stable_order
from graphc.ir.ops.elementwise import wide
from graphc.ir.ops.pointwise import erf_float64, maximum_array, minimum_array, sigmoid_float64
from graphc.ir.philox import philox

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Env:
    """What an expression reads. The arrays of `index`, `results` and `acc` broadcast to the iteration space."""

    index: tuple[Array, ...]
    operands: Sequence[Array]  # flat
    results: Sequence[Array] = field(default=())
    acc: Array | None = None


def evaluate(e: Expr, env: Env) -> Array:
    """The value of `e` at every point of the space of `env`. Raises InternalError for a load out of bounds."""
    found: dict[Expr, Array] = {}
    with np.errstate(all="ignore"):
        for node in walk(e):
            found[node] = _node(node, env, [found[a] for a in node.args])
    return found[e]


def _node(e: Expr, env: Env, args: list[Array]) -> Array:
    if e.op == "const":
        if e.dtype.is_complex or e.dtype.is_low_precision:
            return np.frombuffer(e.value.to_bytes(e.dtype.itemsize, "little"), e.dtype.np).reshape(())
        return np.asarray(e.value, e.dtype.np)
    if e.op == "index":
        return np.asarray(env.index[e.value])
    if e.op == "load":
        return _load(env.operands[e.value], e, *args)
    if e.op == "result":
        return np.asarray(env.results[e.value])
    if e.op == "acc":
        if env.acc is None:
            raise InternalError("acc() outside a contraction")
        return env.acc
    if e.op == "cast":
        return cast_array(args[0], e.dtype)
    return np.asarray(_functions.get()[e.op](*args), e.dtype.np)


def _load(operand: Array, e: Expr, flat: Array, where: Array | None = None) -> Array:
    if operand.dtype != e.dtype.np:
        raise InternalError(f"load of {e.dtype.short} from an operand of {operand.dtype}")
    good = (flat >= 0) & (flat < operand.size)
    if not (good if where is None else good | ~where).all():
        raise InternalError(f"{e!r} is out of bounds of {operand.size} elements")
    if not operand.size:
        return np.zeros(np.shape(good), operand.dtype)
    return np.asarray(operand[np.where(good, flat, 0)])


def _shift(fn: Callable[..., Any], far: Callable[..., Any]) -> Callable[..., Any]:
    def shift(x: Array, y: Array) -> Array:
        inside = (y >= 0) & (y < 8 * x.dtype.itemsize)
        return np.asarray(np.where(inside, fn(x, np.where(inside, y, 0)), far(x)))

    return shift


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "neg": np.negative, "abs": np.absolute, "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "sign": lambda x: (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype),
    "idiv": np.floor_divide, "irem": np.remainder, "fma": fma, "max": maximum_array, "min": minimum_array,
    "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": np.rint, "sqrt": np.sqrt,
    "exp": wide(np.exp), "log": wide(np.log), "tanh": wide(np.tanh), "sigmoid": wide(sigmoid_float64),
    "erf": wide(erf_float64), "sin": wide(np.sin), "cos": wide(np.cos), "pow": wide(np.power),
    "frem": np.remainder, "fmod": np.fmod,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
    "shl": _shift(np.left_shift, np.zeros_like), "shr": _shift(np.right_shift, lambda x: np.where(x < 0, -1, 0)),
    "select": np.where,
    "philox": lambda seed, offset, element, word: np.choose(word, philox(seed, offset, element)),
}  # fmt: skip


_functions: ContextVar[Mapping[str, Callable[..., Any]]] = ContextVar("functions", default=_FUNCTIONS)


@contextmanager
def functions(given: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """While active, these functions of arrays stand for the operations of their names ("logaddexp": that of a Scan).

    The functions of codegen/vmath.py have no NumPy meaning in every bit; with their machine code put in here, all else
    in a kernel has.
    """
    token = _functions.set({**_FUNCTIONS, **given})
    try:
        yield
    finally:
        _functions.reset(token)


def run_kernel(kernel: Kernel, operands: Sequence[Array]) -> None:
    """Run `kernel` on flat arrays, in place. Raises InternalError for a record that breaks the rules of kernel.py."""
    if [o.dtype for o in operands] != [d.np for d in kernel.operands] or any(o.ndim != 1 for o in operands):
        raise InternalError("the operands do not have the dtypes of the kernel, or are not flat")
    runner: dict[type, Callable[..., None]] = {
        Map: _map, Rows: _rows, Contract: _contract, Scatter: _scatter, Scan: _scan,
    }  # fmt: skip
    runner[type(kernel)](kernel, operands)


def _mesh(sizes: Sequence[int]) -> tuple[Array, ...]:
    return tuple(np.arange(n, dtype=np.int64).reshape(-1, *(1,) * (len(sizes) - 1 - d)) for d, n in enumerate(sizes))


def _map(kernel: Map, operands: Sequence[Array]) -> None:
    _store(kernel.stores, kernel.space, Env(_mesh(kernel.space), operands))


def _store(stores: Sequence[Store], space: tuple[int, ...], env: Env) -> None:
    """Evaluate all values, then write them: stores of one group never see one another."""
    writes = []
    for s in stores:
        flat, value = (np.broadcast_to(evaluate(e, env), space).ravel() for e in (s.flat, s.value))
        if s.where is not None:
            keep = np.broadcast_to(evaluate(s.where, env), space).ravel()
            flat, value = flat[keep], value[keep]
        writes.append((env.operands[s.operand], flat, value))
    for target, flat, value in writes:
        if flat.size and (flat.min() < 0 or flat.max() >= target.size or len(np.unique(flat)) < flat.size):
            raise InternalError("a store is out of bounds or meets itself")
        if target.dtype != value.dtype:
            raise InternalError(f"store of {value.dtype} into {target.dtype}")
        target[flat] = value


def _rows(kernel: Rows, operands: Sequence[Array]) -> None:
    full = (*kernel.space, kernel.run)
    mesh = _mesh(full)
    results: list[Array] = []
    for stage in kernel.stages:
        env = Env(mesh, operands, [r[..., None] for r in results])
        if isinstance(stage, MapStage):
            _store(stage.stores, full, env)
        else:
            results.append(_reduce(stage, np.broadcast_to(evaluate(stage.value, env), full)))
    _store(kernel.stores, kernel.space, Env(_mesh(kernel.space), operands, results))


def _reduce(stage: ReduceStage, value: Array) -> Array:
    x = np.moveaxis(value, -1, 0)
    return np.asarray(REDUCTIONS[stage.kind](x))


def _extreme(combine: Callable[..., Array], empty: Callable[[np.dtype[Any]], Any]) -> Callable[[Array], Array]:
    """Maximum and minimum in any order: they are associative and commutative, NaN and signed zeros included."""

    def reduce(x: Array) -> Array:
        if not len(x):
            return np.full(x.shape[1:], empty(x.dtype), x.dtype)
        with np.errstate(all="ignore"):
            return np.asarray(functools.reduce(combine, x))

    return reduce


def _least(dtype: np.dtype[Any]) -> Any:
    return {"b": False, "i": np.iinfo(dtype if dtype.kind == "i" else np.int64).min, "f": -np.inf}[dtype.kind]


def _greatest(dtype: np.dtype[Any]) -> Any:
    return {"b": True, "i": np.iinfo(dtype if dtype.kind == "i" else np.int64).max, "f": np.inf}[dtype.kind]


def _position(fn: Callable[..., Any]) -> Callable[[Array], Array]:
    def reduce(x: Array) -> Array:
        return np.asarray(fn(x, axis=0)) if len(x) else np.zeros(x.shape[1:], np.int64)

    return reduce


REDUCTIONS: dict[str, Callable[[Array], Array]] = {
    "sum": lambda x: reduction(x, np.add),
    "prod": lambda x: reduction(x, np.multiply),
    "max": _extreme(maximum_array, _least),
    "min": _extreme(minimum_array, _greatest),
    "any": lambda x: np.asarray(x.any(axis=0)),
    "all": lambda x: np.asarray(x.all(axis=0)),
    "argmax": _position(np.argmax),
    "argmin": _position(np.argmin),
}
"""Reductions of kernel.ReduceStage over axis 0. argmax, argmin: first index, first NaN wins, -0 = +0; empty gives 0."""


def _contract(kernel: Contract, operands: Sequence[Array]) -> None:
    a = cast_array(_side(kernel.a, kernel.batch, (kernel.m, kernel.k), operands, outer_first=True), kernel.dtype)
    b = cast_array(_side(kernel.b, kernel.batch, (kernel.k, kernel.n), operands, outer_first=False), kernel.dtype)
    space = (*kernel.batch, *kernel.m, *kernel.n)
    acc = contraction(a, b).reshape(space)
    _store(kernel.stores, space, Env(_mesh(space), operands, acc=acc))


def _side(side: Strided, batch: tuple[int, ...], groups: Any, operands: Sequence[Array], outer_first: bool) -> Array:
    """One operand as [batch, rows, columns]."""
    strides = (*side.batch, *side.outer, *side.k) if outer_first else (*side.batch, *side.k, *side.outer)
    sizes = (*batch, *groups[0], *groups[1])
    flat = np.full((1,) * len(sizes), side.offset, np.int64)
    for i, stride in zip(_mesh(sizes), strides, strict=True):
        flat = flat + i * stride
    flat = np.broadcast_to(flat, sizes)
    if flat.size and (flat.min() < 0 or flat.max() >= operands[side.operand].size):
        raise InternalError("a side of a contraction is out of bounds")
    shape = tuple(int(np.prod(g, dtype=np.int64)) for g in (batch, *groups))
    return np.asarray(operands[side.operand][flat]).reshape(shape)


def _scatter(kernel: Scatter, operands: Sequence[Array]) -> None:
    full = (*kernel.space, kernel.run)
    env = Env(_mesh(full), operands)
    target = operands[kernel.target]
    shape = (int(np.prod(kernel.space, dtype=np.int64)), kernel.run)
    flat, value = (np.broadcast_to(evaluate(e, env), full).reshape(shape) for e in (kernel.flat, kernel.value))
    keep = np.ones(shape, bool)
    if kernel.where is not None:
        keep = np.broadcast_to(evaluate(kernel.where, env), full).reshape(shape)
    if (keep & ((flat < 0) | (flat >= target.size))).any():
        raise InternalError("a scatter is out of bounds")
    with np.errstate(all="ignore"):
        for j in range(kernel.run):
            rows = np.flatnonzero(keep[:, j])
            places, values = flat[rows, j], value[rows, j]
            if len(np.unique(places)) < places.size:
                raise InternalError("two points of a scatter's space write one place")
            target[places] = target[places] + values if kernel.add else values


def _scan(kernel: Scan, operands: Sequence[Array]) -> None:
    full = (*kernel.space, kernel.run)
    mesh = _mesh(full)
    value = np.broadcast_to(evaluate(kernel.value, Env(mesh, operands)), full)
    found = np.moveaxis(scanned(kernel.kind, np.moveaxis(value, -1, 0), kernel.descending), 0, -1)
    _store(kernel.stores, full, Env(mesh, operands, [found]))


def scanned(kind: str, x: Array, descending: bool = False) -> Array:
    """The results of a kernel.Scan along axis 0. What has 16 bits is computed in float32."""
    if kind in SCANS:
        wide = x.astype(np.float32) if x.dtype.kind not in "biu" and x.dtype.itemsize == 2 else x
        combine, nothing = SCANS[kind](x.dtype)
        return np.asarray(scan(wide, _functions.get().get(kind, combine), nothing)).astype(x.dtype)
    if kind == "argsort":
        return stable_order(x, descending)
    return places_of(x) if kind == "positions" else last_extreme(x, kind == "argmax")


SCANS: dict[str, Callable[[np.dtype[Any]], tuple[Any, float]]] = {
    "sum": lambda dtype: (np.add, 0 if dtype.kind in "iu" else -0.0),
    "prod": lambda dtype: (np.multiply, 1),
    "logaddexp": lambda dtype: (np.logaddexp, -np.inf),
}
"""Scans of kernel.Scan that combine values: how, and what changes nothing."""
