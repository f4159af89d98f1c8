"""Memory for what lives only during one run: arena and scratch. All executables share it.

A run takes one workspace and gives it back, so that a thousand executables that run one after the other need the
memory of the largest, and find it warm.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.runtime.memory import aligned_bytes

KEPT = 4  # workspaces kept for later: one for each thread that runs a graph at the same time, within reason

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

_free: list[Bytes] = []


def take_workspace(nbytes: int) -> Bytes:
    """At least `nbytes` of memory that starts on a cache line, for the caller alone until given back."""
    try:
        found = _free.pop()
    except IndexError:
        return aligned_bytes(nbytes)
    return found if found.nbytes >= nbytes else aligned_bytes(nbytes)


def give_workspace(workspace: Bytes) -> None:
    """Let others use a workspace again."""
    if len(_free) < KEPT:
        _free.append(workspace)


def release_workspaces() -> None:
    """Free the memory kept for later runs."""
    _free.clear()
