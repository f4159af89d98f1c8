"""How many threads a kernel may use."""

from __future__ import annotations

from graphc.errors import ArgumentError
from graphc.frontend.switches import no_condition
from graphc.runtime import pool

__all__ = ["get_num_threads", "set_num_threads"]


def set_num_threads(threads: int) -> None:
    """Let kernels use up to `threads` threads, the caller's included; results do not depend on it.

    Raises ArgumentError unless it is an int from 1 to 256.
    """
    if not isinstance(threads, int) or isinstance(threads, bool):
        raise ArgumentError(f"set_num_threads: expected an int, but got {type(threads).__name__}")
    no_condition("set_num_threads()")
    pool.set_num_threads(threads)


def get_num_threads() -> int:
    """How many threads kernels may use, the caller's included."""
    no_condition("get_num_threads()")
    return pool.get_num_threads()
