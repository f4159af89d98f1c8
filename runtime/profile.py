"""Timing each kernel of an executable: its calls are given to the native loop one by one, a clock between them.

The code that runs, its threads and its bits are those of an ordinary run; about half a microsecond a kernel is added.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from graphc.runtime import executable
from graphc.runtime.driver import CALL_WORDS
from graphc.runtime.executable import Executable
from graphc.runtime.frame import Instance

_CALLS, _COUNT, _RELOCATIONS = 0, 1, 3  # words of the frame (runtime/driver.py)


@dataclass(slots=True)
class KernelTimes:
    """What one run took. Times in nanoseconds of `time.perf_counter_ns`; `spans` has one (begin, end) a kernel call."""

    executable: Executable
    spans: list[tuple[int, int]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Nanoseconds inside kernels."""
        return sum(end - begin for begin, end in self.spans)


def timed_run(exe: Executable, context: Instance, run: Callable[[int], None]) -> KernelTimes:
    """Run a context whose io words are filled, one native call a kernel."""
    words, clock = context.words, time.perf_counter_ns
    kept = [int(words[at]) for at in (_CALLS, _COUNT, _RELOCATIONS)]
    found = KernelTimes(exe)
    words[_COUNT] = 0
    run(context.frame)  # puts the addresses in their places
    words[_COUNT], words[_RELOCATIONS] = 1, 0
    try:
        for k in range(kept[1]):
            words[_CALLS] = kept[0] + 8 * CALL_WORDS * k
            begin = clock()
            run(context.frame)
            found.spans.append((begin, clock()))
    finally:
        for at, word in zip((_CALLS, _COUNT, _RELOCATIONS), kept, strict=True):
            words[at] = word
    return found


class Watch:
    """While entered, every run of an executable is timed kernel by kernel and handed to `seen`.

    One at a time in a process; entering a second raises RuntimeError. Small eager operations that have a path of their
    own (runtime/direct.py) are not seen.
    """

    def __init__(self, seen: Callable[[KernelTimes], None]) -> None:
        self.seen = seen

    def _observe(self, exe: Executable, context: Instance, run: Callable[[int], None]) -> None:
        self.seen(timed_run(exe, context, run))

    def __enter__(self) -> Watch:
        if executable.observer is not None:
            raise RuntimeError("another profile is running")
        executable.observer = self._observe
        return self

    def __exit__(self, *exc: object) -> None:
        executable.observer = None
