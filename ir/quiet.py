"""Work that makes many objects and little garbage, done without the garbage collector looking at all of them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0
_enabled = False


@contextmanager
def no_collection() -> Iterator[None]:
    """Inside, no garbage collection starts by itself: each visits every object of the program, and a compilation sets
    off dozens. No code of users may run inside. Threads and calls inside calls are counted.
    """
    global _inside, _enabled
    with _lock:
        if not _inside:
            _enabled = gc.isenabled()
            gc.disable()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and _enabled:
                gc.enable()
