"""What a comparison of two runs found, and the comparison itself: every bit counts, all NaNs are equal."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ir.op import Array
from graphc.ir.types import dtype_of


class Difference(AssertionError):
    """Two ways to run the same thing that do not agree.

    `what` was checked (one line), `where` is the part that found it, `node` the text of the node or buffer, `expected`
    and `found` are the two values.
    """

    def __init__(self, what: str, where: str, node: str = "", expected: Any = None, found: Any = None) -> None:
        super().__init__(_message(what, where, node, expected, found))
        self.what, self.where, self.node, self.expected, self.found = what, where, node, expected, found


def _message(what: str, where: str, node: str, expected: Any, found: Any) -> str:
    lines = [f"{where}: {what}"]
    if node:
        lines.append(f"  in {node}")
    place = None
    if isinstance(expected, np.ndarray) and isinstance(found, np.ndarray):
        place = first_difference(expected, found)
    if place is not None and isinstance(place, tuple):
        lines.append(f"  first at {list(place)}: expected {_told(expected[place])}, found {_told(found[place])}")
    for name, value in (("expected", expected), ("found", found)):
        if value is not None:
            lines.append(f"  {name} {_shown(value)}")
    return "\n".join(lines)


def _told(x: Any) -> str:
    return f"{x} ({x.tobytes()[::-1].hex()})" if isinstance(x, np.generic) else str(x)


def _shown(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return str(value)
    text = np.array2string(value, threshold=64, edgeitems=4)
    return f"{value.dtype}{list(value.shape)} {text}"


def first_difference(expected: Array, found: Array) -> tuple[int, ...] | str | None:
    """The index of the first element whose bits differ, a word when dtype or shape do, None for equal arrays."""
    if expected.dtype != found.dtype:
        return "dtype"
    if expected.shape != found.shape:
        return "shape"
    if expected.tobytes() == found.tobytes():
        return None
    places = np.argwhere(differing(expected, found))
    return tuple(int(k) for k in places[0]) if len(places) else None


def same_bits(expected: Array, found: Array) -> bool:
    """Equal in dtype, shape and every bit, all NaNs counted equal."""
    return first_difference(expected, found) is None


def differing(expected: Array, found: Array) -> Array:
    """Which elements of arrays of one type differ in a bit, NaNs being one value."""
    dtype = dtype_of(expected.dtype)
    if dtype.is_complex:
        return np.asarray(differing(expected.real, found.real) | differing(expected.imag, found.imag))
    unsigned = np.dtype(f"u{dtype.itemsize}")
    a, b = (np.array(x, order="C", copy=None).view(unsigned) for x in (expected, found))
    different = np.asarray(a != b)
    if not dtype.is_floating_point:
        return different
    with np.errstate(invalid="ignore"):
        return different & ~(np.isnan(expected) & np.isnan(found))
