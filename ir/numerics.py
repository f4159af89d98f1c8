"""The order rules of docs/numerics.md in NumPy: the oracle of every reduction and contraction. Slow and exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

PARTIALS = 32
BLOCK = 1024
SEGMENT = 512
MOST_SEGMENTS = 64  # K is cut into at most this many


def segment_length(k: int) -> int:
    """Length of the segments a contraction over `k` elements is cut into."""
    return SEGMENT * max(1, -(-k // (SEGMENT * MOST_SEGMENTS)))


def reduction(x: Array, combine: np.ufunc = np.add) -> Array:
    """Reduce axis 0 by rule R. `combine` is np.add or np.multiply; empty gives +0 or 1.

    Up to 1024 elements: 32 partials, each a chain over every 32nd element, then a tree; a missing element is -0.0
    (or 1). More: the rule applied to the results of consecutive blocks of 1024. 16-bit floats accumulate in float32 and
    are rounded once.
    """
    if _is_short(x):
        return reduction(x.astype(np.float32), combine).astype(x.dtype)
    identity, missing = (0, -0.0) if combine is np.add else (1, 1)
    if len(x) == 0:
        return np.full(x.shape[1:], identity, x.dtype)
    with np.errstate(all="ignore"):
        while True:
            x = _reduce_blocks(x, combine, missing)
            if len(x) == 1:
                return np.asarray(x[0])


def _is_short(x: Array) -> bool:
    """Whether `x` holds 16-bit floats (NumPy counts bfloat16, which comes from ml_dtypes, as no float)."""
    return bool(x.dtype == np.float16) or x.dtype.name == "bfloat16"


def _reduce_blocks(x: Array, combine: np.ufunc, missing: float) -> Array:
    blocks = -(-len(x) // BLOCK)
    padded = np.full((blocks * BLOCK, *x.shape[1:]), missing, x.dtype)
    padded[: len(x)] = x
    parts = padded.reshape(blocks, BLOCK // PARTIALS, PARTIALS, *x.shape[1:])
    s = parts[:, 0]
    for step in range(1, BLOCK // PARTIALS):
        s = combine(s, parts[:, step])
    for width in (16, 8, 4, 2, 1):
        s = combine(s[:, :width], s[:, width : 2 * width])
    return np.asarray(s[:, 0])


def scan(x: Array, combine: Callable[[Array, Array], Array], nothing: float) -> Array:
    """Everything so far along axis 0: a chain from `nothing` over each block of 1024, combined with the total of the
    blocks before, which is a chain itself. `nothing` combined with any value gives that value.
    """
    out, before = np.empty_like(x), np.full(x.shape[1:], nothing, x.dtype)
    with np.errstate(all="ignore"):
        for start in range(0, len(x), BLOCK):
            chain = np.full(x.shape[1:], nothing, x.dtype)
            for j in range(start, min(start + BLOCK, len(x))):
                chain = combine(chain, x[j])
                out[j] = combine(before, chain)
            before = combine(before, chain)
    return out


def last_extreme(x: Array, greatest: bool) -> Array:
    """The place along axis 0 of the extreme of all so far: the last of equals, the last NaN."""
    place, best = np.zeros(x.shape, np.int64), np.array(x[:1].reshape(x.shape[1:]) if len(x) else 0)
    at = np.zeros(x.shape[1:], np.int64)
    for j, value in enumerate(x):
        better = (value >= best if greatest else value <= best) | (value != value)
        best, at = np.where(better, value, best), np.where(better, j, at)
        place[j] = at
    return place


def stable_order(x: Array, descending: bool) -> Array:
    """The place along axis 0 of the element that comes j-th: equal ones keep their order, -0 = +0, NaN the greatest."""
    if not descending:
        return np.argsort(x, axis=0, kind="stable")
    backwards = np.argsort(np.flip(x, 0), axis=0, kind="stable")
    return np.asarray(len(x) - 1 - np.flip(backwards, 0))


def places_of(mask: Array) -> Array:
    """The places along the only axis where `mask` holds, ascending, and zeros behind them."""
    out = np.zeros(mask.shape, np.int64)
    found = np.flatnonzero(mask)
    out[: found.size] = found
    return out


def contraction(a: Array, b: Array) -> Array:
    """a @ b over (…, M, K) and (…, K, N): fma chains of one segment each, segment results added in ascending order.

    16-bit floats are converted to float32 first, and the sum is rounded once; integers wrap, in any order.
    """
    if _is_short(a):
        return contraction(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)
    if a.dtype.kind != "f":
        return np.asarray(np.matmul(a, b))
    k = a.shape[-1]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    total = np.zeros((*batch, a.shape[-2], b.shape[-1]), a.dtype)
    length = segment_length(k)
    whole = k - k % length
    with np.errstate(all="ignore"):
        sums = _chains(a[..., :whole], b[..., :whole, :], length)
        parts = [sums[..., s, :, :] for s in range(whole // length)]
        if whole < k:
            parts.append(_chains(a[..., whole:], b[..., whole:, :], k - whole)[..., 0, :, :])
        for number, part in enumerate(parts):
            total = part if number == 0 else total + part
    return total


def _chains(a: Array, b: Array, length: int) -> Array:
    """The fma chains of the segments of `length` that make up K, as (…, segment, M, N): each ascending from +0.0."""
    segments = a.shape[-1] // length
    a = np.swapaxes(a.reshape(*a.shape[:-1], segments, length), -2, -3)
    b = b.reshape(*b.shape[:-2], segments, length, b.shape[-1])
    acc = np.zeros((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), a.dtype)
    for i in range(length):
        acc = fma(a[..., i, None], b[..., i, None, :], acc)
    return acc


def fma(a: Array, b: Array, c: Array) -> Array:
    """a * b + c rounded once, elementwise and broadcast, in float32 or float64."""
    with np.errstate(all="ignore"):
        if np.asarray(a).dtype == np.float32:
            return _fma32(a, b, c)
        return _fma64(*np.broadcast_arrays(a, b, c))


def _fma32(a: Array, b: Array, c: Array) -> Array:
    """The float64 product is exact; a sum rounded to odd makes the second rounding harmless (Boldo, Melquiond 2008)."""
    product = np.asarray(a, np.float64) * b
    return np.asarray(_add_odd(product, np.asarray(c, np.float64))).astype(np.float32)


def _add_odd(x: Array, y: Array) -> Array:
    """x + y in float64 rounded to odd: an inexact sum becomes the neighbour whose last bit is 1."""
    s, error = two_sum(x, y)
    even = (np.asarray(s).view(np.int64) & 1) == 0
    adjust = np.isfinite(s) & (error != 0) & even
    return np.where(adjust, np.nextafter(s, np.where(error > 0, np.inf, -np.inf)), s)


def two_sum(x: Array, y: Array) -> tuple[Array, Array]:
    """Rounded sum and its exact error (Knuth)."""
    s = np.asarray(x + y)
    part = s - x
    return s, np.asarray((x - (s - part)) + (y - part))


def two_product(x: Array, y: Array) -> tuple[Array, Array]:
    """Rounded float64 product and its exact error (Dekker), barring overflow and underflow."""
    p = np.asarray(x * y)
    (xh, xl), (yh, yl) = _split(x), _split(y)
    return p, np.asarray(((xh * yh - p) + xh * yl + xl * yh) + xl * yl)


def _split(x: Array) -> tuple[Array, Array]:
    scaled = x * 134217729.0  # 2**27 + 1
    high = scaled - (scaled - x)
    return high, x - high


def _fma64(a: Array, b: Array, c: Array) -> Array:
    """Error-free transformations and one rounding to odd (Boldo, Melquiond 2008); fractions near the range limits."""
    product, low = two_product(a, b)
    t, t_low = two_sum(c, low)
    v, v_low = two_sum(product, t)
    out = np.asarray(v + _add_odd(t_low, v_low))
    size, addend = np.abs(product), np.abs(c)
    plain = (a == 0) | (b == 0)
    inputs = np.maximum(np.abs(a), np.abs(b)) < 1e150
    safe = inputs & (size > 1e-150) & (size < 1e150) & ((addend < 1e150) & (addend > 1e-150) | (addend == 0))
    out = np.asarray(np.where(plain, product + c, out))
    for i in np.flatnonzero(~(safe | plain)):
        out.flat[i] = _fma_exact(float(a.flat[i]), float(b.flat[i]), float(c.flat[i]))
    return out


def _fma_exact(a: float, b: float, c: float) -> float:
    if not np.isfinite([a, b]).all():
        return a * b + c
    if not np.isfinite(c):
        return c
    from fractions import Fraction

    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return 0.0 if a and b else a * b + c
    try:
        return exact.numerator / exact.denominator
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")
