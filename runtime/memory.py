"""Memory outside Python's heap, through mmap: it is never freed behind the back of a running thread, and can be
protected."""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import os
from typing import Any

import numpy as np

from graphc.errors import OutOfMemoryError

PAGE = mmap.PAGESIZE
ALIGNMENT = 64  # bytes: a cache line, and the widest vector


@functools.cache
def libc() -> ctypes.CDLL:
    """The C library of this process, with the signatures used here."""
    lib = ctypes.CDLL(None, use_errno=True)
    lib.mmap.restype = ctypes.c_void_p
    lib.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    lib.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    lib.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return lib


def whole_pages(nbytes: int) -> int:
    """`nbytes` rounded up to pages, at least one."""
    return -(-max(nbytes, 1) // PAGE) * PAGE


def map_pages(nbytes: int) -> int:
    """The address of `nbytes` (rounded up to pages) of zeroed private memory. Raises OutOfMemoryError."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    found = libc().mmap(None, whole_pages(nbytes), mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if found is None or found == ctypes.c_void_p(-1).value:
        raise OutOfMemoryError(
            f"not enough memory: {nbytes} bytes cannot be mapped ({os.strerror(ctypes.get_errno())}); work on smaller "
            "parts"
        )
    return int(found)


def unmap_pages(address: int, nbytes: int) -> None:
    """Give back what `map_pages(nbytes)` returned."""
    libc().munmap(address, whole_pages(nbytes))


def out_of_memory(nbytes: int) -> OutOfMemoryError:
    """The error for memory that cannot be had."""
    return OutOfMemoryError(f"not enough memory: {nbytes} bytes cannot be allocated; work on smaller parts")


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Like np.empty, but it starts on a cache line: np.empty starts large arrays 16 bytes behind one."""
    return np.ndarray(shape, dtype, aligned_bytes(math.prod(shape) * dtype.itemsize))


def aligned_bytes(nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A byte array of `nbytes`, not initialised, that starts on a cache line."""
    try:
        raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    except MemoryError:
        raise out_of_memory(nbytes) from None
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]
