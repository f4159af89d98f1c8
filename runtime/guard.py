"""Arrays beside a page that cannot be touched: an access one byte too far ends the process at once."""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any

import numpy as np

from graphc.runtime.memory import PAGE, libc, map_pages, unmap_pages, whole_pages

_PROT_NONE = 0


def guarded_empty(nbytes: int, end: bool = True) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A byte array of `nbytes` whose last byte (`end`) or first byte (not `end`) touches a forbidden page.

    There is a forbidden page on both sides. The memory lives as long as the array or a view of it. Raises MemoryError.
    """
    inner = whole_pages(nbytes)
    total = inner + 2 * PAGE
    base = map_pages(total)
    for page in (base, base + PAGE + inner):
        if libc().mprotect(page, PAGE, _PROT_NONE):
            unmap_pages(base, total)
            raise MemoryError(f"cannot protect a page: {os.strerror(ctypes.get_errno())}")
    start = base + PAGE + (inner - nbytes if end else 0)
    buffer = (ctypes.c_uint8 * nbytes).from_address(start)
    weakref.finalize(buffer, unmap_pages, base, total).atexit = False
    return np.ctypeslib.as_array(buffer)
