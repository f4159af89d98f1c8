"""Philox4x32-10 in NumPy (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011).

The counter words are (offset low, offset high, element low, element high), the key words (seed low, seed high).
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(seed: Array, offset: Array, element: Array) -> tuple[Array, Array, Array, Array]:
    """The four words, each an int64 array in [0, 2^32), of int64 operands (broadcast)."""
    k0, k1 = _words(seed)
    c0, c1 = _words(offset)
    c2, c3 = _words(element)
    for _ in range(ROUNDS):
        p0, p1 = np.uint64(MULTIPLIERS[0]) * c0, np.uint64(MULTIPLIERS[1]) * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + np.uint64(WEYL[0])) & _LOW, (k1 + np.uint64(WEYL[1])) & _LOW
    words = np.broadcast_arrays(c0, c1, c2, c3)
    return (_signed(words[0]), _signed(words[1]), _signed(words[2]), _signed(words[3]))


def _words(x: Array) -> tuple[Any, Any]:
    bits = np.asarray(x, np.int64).astype(np.uint64)
    return bits & _LOW, bits >> _SHIFT


def _signed(words: Array) -> Array:
    return np.asarray(words).astype(np.int64)
