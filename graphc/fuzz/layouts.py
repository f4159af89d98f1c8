"""Arrays with the same elements, otherwise laid out in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.ir.op import Array
from graphc.ir.types import Layout

_BYTE = 0xA5  # what fills the places between elements


def span(layout: Layout) -> int:
    """Bytes from the first to the last element of an array with non-negative strides."""
    if 0 in layout.shape:
        return 0
    last = sum((n - 1) * s for n, s in zip(layout.shape, layout.strides, strict=True))
    return (last + 1) * layout.type.dtype.itemsize


def looked_at(memory: Array, layout: Layout) -> Array:
    """Bytes as an array in `layout`, from their start."""
    dtype = layout.type.dtype
    strides = tuple(s * dtype.itemsize for s in layout.strides)
    if 0 in layout.shape:
        return np.zeros(layout.shape, dtype.np)
    return np.ndarray(layout.shape, dtype.np, memory, 0, strides)


def filled(memory: Array, array: Array) -> Array:
    """`array` in bytes as long as its span, which hold a pattern between the elements."""
    memory.fill(_BYTE)
    view = looked_at(memory, Layout.of(array))
    view[...] = array
    return view


def copied(array: Array) -> Array:
    """A copy in the same layout, in memory of its own."""
    if array.flags.c_contiguous or array.size == 0:
        return array.copy()
    return filled(np.empty(span(Layout.of(array)), np.uint8), array)


def forwards(array: Array) -> Array:
    """The array itself, or a row-major copy where it is walked backwards or in parts of elements."""
    bad = any(s < 0 or s % array.itemsize for s in array.strides)
    return np.array(array, order="C") if bad else array


def transposed(array: Array) -> Array:
    """The first axis innermost in memory."""
    return array.T.copy().T


def stepped(array: Array) -> Array:
    """Every other element of a larger array, along every axis."""
    whole = np.zeros(tuple(2 * n for n in array.shape), array.dtype)
    places: tuple[Any, ...] = (..., *(slice(None, None, 2) for _ in array.shape))
    view: Array = whole[places]
    view[...] = array
    return view


def offset(array: Array) -> Array:
    """Aligned to nothing but the size of an element."""
    whole = np.zeros(array.size + 3, array.dtype)
    view = whole[3:].reshape(array.shape)
    view[...] = array
    return view


LAYOUTS: tuple[Callable[[Array], Array], ...] = (transposed, stepped, offset)


def relaid(array: Array, rng: np.random.Generator) -> Array:
    """The same elements, laid out by chance."""
    return LAYOUTS[int(rng.integers(len(LAYOUTS)))](array) if array.ndim else offset(array)
