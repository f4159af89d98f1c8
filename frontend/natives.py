"""Who holds a native function that eager execution calls: plans of operations, of gradient rules, of updates.

Whoever wants to see every such call (a profile) puts functions of its own in their places for a while, so that
nothing is asked on the way when nobody looks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

Run = Callable[..., Any]
Wrap = Callable[["Native", Run], Run]


class Native:
    """Something with a native function in `run`, which everyone reads anew at each call."""

    __slots__ = ("__weakref__", "run")
    run: Run

    def title(self) -> str:
        """What a user calls the work that `run` does."""
        raise NotImplementedError


_every: WeakSet[Native] = WeakSet()
_wraps: list[Wrap] = []  # at most one
_plain: dict[Native, Run] = {}  # the functions of their own, of holders that have another meanwhile
_lock = threading.RLock()


def hold(holder: Native, run: Run) -> None:
    """Give a holder its native function, or another one than it had."""
    with _lock:
        _every.add(holder)
        _set(holder, run)


def _set(holder: Native, run: Run) -> None:
    if _wraps:
        _plain[holder] = run
        run = _wraps[0](holder, run)
    holder.run = run


def wrap_all(wrap: Wrap) -> None:
    """Let `wrap(holder, run)` stand for `run` in every holder, also in those made from now on, until unwrap_all()."""
    with _lock:
        unwrap_all()
        _wraps.append(wrap)
        for holder in list(_every):
            _set(holder, holder.run)


def unwrap_all() -> None:
    """Give all holders their own functions again."""
    with _lock:
        _wraps.clear()
        while _plain:
            holder, run = _plain.popitem()
            holder.run = run
