"""Comparison with references that are not exact: units in the last place, and bounds that follow the operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.fuzz.difference import same_bits
from graphc.ir import narrow
from graphc.ir.op import Array, Attrs, Op
from graphc.ir.ops.pointwise import erf_float64
from graphc.ir.types import bfloat16, dtype_of

_ROUNDINGS = 64  # of the result, of every operand and of 1/8 that a result may be off
_TAME = 2.0**40  # between this and its inverse (and 0) no order of operations overflows or loses everything
_NUDGE = 1e-9
_TRIES = 4


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


_PRECISE: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "log": np.log, "tanh": np.tanh, "sigmoid": _sigmoid, "sin": np.sin, "cos": np.cos, "pow": np.power,
    "erf": lambda x: erf_float64(x.astype(np.float64)),
}  # fmt: skip


def ulps_apart(name: str, arrays: Sequence[Array], found: Array) -> tuple[Array, Array]:
    """The result of a function rounded from higher precision, and how many of its units `found` is off: infinity for a
    wrong NaN, infinity or sign.
    """
    with np.errstate(all="ignore"):
        exact = np.asarray(_PRECISE[name](*(a.astype(np.longdouble) for a in arrays))).astype(np.longdouble)
        wanted = exact.astype(found.dtype)
        edge = np.longdouble(2) ** np.finfo(found.dtype).maxexp  # where the next number would be
        unit = np.spacing(np.minimum(np.abs(wanted), np.finfo(found.dtype).max)).astype(np.longdouble)
        apart = np.abs(np.clip(found.astype(np.longdouble), -edge, edge) - np.clip(exact, -edge, edge)) / unit
        nan = np.isnan(exact)
        wrong = (nan != np.isnan(found)) | (~nan & (np.signbit(exact) != np.signbit(found)))
    return wanted, np.asarray(np.where(wrong, np.inf, np.where(nan, 0, apart)))


def near(op: Op, arrays: Sequence[Array], attrs: Attrs, found: Sequence[Array]) -> tuple[int, Array] | None:
    """The number and the reference's value of the first result that is not near the reference, if there is one.

    Floats may be off by some roundings of the result and of every operand, whose effect is found by trying. Where an
    operand is not of ordinary size, orders of operations differ by more than can be said: nothing is compared.
    """
    with np.errstate(all="ignore"):
        if not all(map(_tame, arrays)):
            return None
        wanted = narrow.reference(op, arrays, attrs)
        open_ = [k for k, (a, w) in enumerate(zip(found, wanted, strict=True)) if not same_bits(np.asarray(w), a)]
        if not open_:
            return None
        bounds: list[tuple[Array, Array]] | None = None
        for k in open_:
            a, w = found[k], np.asarray(wanted[k])
            if a.dtype != w.dtype or a.shape != w.shape or not _floats(a):
                return k, w
            good = _within(a, w.astype(np.float64), _slack(a) * (np.abs(w.astype(np.float64)) + 1 / 8))
            if good.all():
                continue
            bounds = bounds or _bounds(op, arrays, attrs)
            size = _greatest(bounds[k][0]) + _greatest(bounds[k][1]) + 1 / 8  # a small element may come of large ones
            if not (good | _within(a, bounds[k][0], np.asarray(_slack(a) * size))).all():
                return k, w
    return None


def _floats(a: Array) -> bool:
    return dtype_of(a.dtype).is_floating_point


def _tame(a: Array) -> bool:
    if not _floats(a):
        return True
    size = np.abs(a.astype(np.float64))
    return bool(((size == 0) | ((size <= _TAME) & (size >= 1 / _TAME))).all())


def _slack(a: Array) -> float:
    """The relative error of _ROUNDINGS roundings."""
    return _ROUNDINGS * (2.0**-7 if dtype_of(a.dtype) is bfloat16 else float(np.finfo(a.dtype).eps))


def _within(found: Array, wanted: Array, bound: Array) -> Array:
    wide = found.astype(np.float64)
    return np.asarray((np.abs(wide - wanted) <= bound) | (wide == wanted) | (np.isnan(wide) & np.isnan(wanted)))


def _greatest(a: Array) -> float:
    return float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a)))


def _bounds(op: Op, arrays: Sequence[Array], attrs: Attrs) -> list[tuple[Array, Array]]:
    """The results in float64, and how much they move when every operand does, relative to its size."""
    exact = [a.astype(np.float64) if _floats(a) else a for a in arrays]
    wanted = [np.asarray(w) for w in narrow.reference(op, exact, attrs)]
    moves = [np.zeros(w.shape) for w in wanted]
    rng = np.random.default_rng(3)
    for _ in range(_TRIES):
        signs = [rng.choice((-_NUDGE, _NUDGE), a.shape) if _floats(a) else 0 for a in exact]
        shaken = [np.asarray(a + a * s) if _floats(a) else a for a, s in zip(exact, signs, strict=True)]
        for m, w, v in zip(moves, wanted, narrow.reference(op, shaken, attrs), strict=True):
            if _floats(w):
                np.maximum(m, np.nan_to_num(np.abs(v - w)) / _NUDGE, out=m)
    return [(w.astype(np.float64) if _floats(w) else w, m) for w, m in zip(wanted, moves, strict=True)]
