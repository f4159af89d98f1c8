"""Collecting what happens while a profile runs.

Nothing is asked of eager execution when no profile runs: while one does, the native functions that plans hold
(frontend/natives.py) are replaced by timed ones, and `mode.watching` names the collector to those that are asked
once a call of some length (compiled functions, backward passes, optimiser steps).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import FrameType
from typing import Any

from graphc.caller import kind_of
from graphc.frontend import natives
from graphc.frontend.mode import watching
from graphc.frontend.natives import Native
from graphc.frontend.nn.hooks import call_module
from graphc.ir.graph import Location
from graphc.runtime.profile import KernelTimes, Watch
from graphc.runtime.program import call_bytes, call_flops

MAX_STACK = 64  # lines kept of one stack
_clock = time.perf_counter_ns


@dataclass(slots=True, eq=False)
class Raw:
    """One thing that happened. Times in nanoseconds of `time.perf_counter_ns`.

    kind: "op", "kernel", "range" (named by the user), "step", "call" (of a compiled function or a loaded file),
    "backward" or "update".
    """

    kind: str
    name: str
    begin: int
    end: int
    thread: int
    place: str = ""
    module: str = ""
    shapes: list[Any] = field(default_factory=list)
    stack: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    lines: list[Location] = field(default_factory=list)  # worked out when the profile has ended
    modules: list[Any] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The name events are summed under: kernels and operations apart, calls by how they were answered."""
        if self.kind == "kernel":
            return f"kernel {self.name}"
        return f"{self.name} [{self.more['answer']}]" if "answer" in self.more else self.name


class Collector:
    """Gathers `events` while it is on. One at a time in a process."""

    def __init__(self, record_shapes: bool, with_stack: bool) -> None:
        self.events: list[Raw] = []
        self.threads: dict[int, str] = {}
        self._shapes, self._stacks = record_shapes, with_stack
        self._watch = Watch(self._ran)
        self._runs: list[tuple[int, KernelTimes]] = []
        self.on = False

    def start(self) -> None:
        """Begin. Raises RuntimeError when another profile runs."""
        self._watch.__enter__()
        watching.append(self)
        natives.wrap_all(self._timed)
        self.on = True

    def stop(self) -> None:
        """End: everything is as it was before."""
        self.on = False
        natives.unwrap_all()
        watching.remove(self)
        self._watch.__exit__()
        runs, self._runs = self._runs, []
        for thread, times in runs:
            self.events += _kernels(thread, times)
        self.events = in_order(self.events)
        _settle(self.events, self._stacks)

    def forget(self) -> None:
        """Keep nothing of what was seen until now."""
        self.events.clear()
        self._runs.clear()

    # ---- what is seen

    def note(self, kind: str, name: str, begin: int, end: int, more: dict[str, Any] | None = None) -> Raw | None:
        """Keep one event of this thread, with the line of the user's that is running."""
        if not self.on:  # a call that began before the end of the profile
            return None
        thread = threading.get_native_id()
        if thread not in self.threads:
            self.threads[thread] = threading.current_thread().name
        found = Raw(kind, name, begin, end, thread, more={} if more is None else more)
        found.lines, found.modules = _looked_around(sys._getframe(1), MAX_STACK if self._stacks else 1)
        self.events.append(found)
        return found

    @contextmanager
    def span(self, kind: str, name: str) -> Iterator[dict[str, Any]]:
        """An event from entering to leaving, also by an exception; gives the dictionary of what is said about it."""
        told: dict[str, Any] = {}
        begin = _clock()
        try:
            yield told
        except BaseException as error:
            told["error"] = type(error).__name__
            raise
        finally:
            self.note(kind, name, begin, _clock(), told)

    def _timed(self, holder: Native, run: natives.Run) -> natives.Run:
        """`run`, with an event for every call."""
        name = holder.title()

        def timed(*arrays: Any) -> Any:
            begin = _clock()
            try:
                return run(*arrays)
            finally:
                found = self.note("op", name, begin, _clock())
                if found is not None and self._shapes:
                    found.shapes = [list(a.shape) for a in arrays]

        return timed

    def _ran(self, times: KernelTimes) -> None:
        if self.on:
            self._runs.append((threading.get_native_id(), times))

    def calls(self, compiled: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, which answers a call of a compiled function, with an event that says how it was answered."""

        def answered(*given: Any) -> Any:
            with self.span("call", compiled._name()) as told:
                before = replace(compiled.stats)
                try:
                    return call(*given)
                finally:
                    told["answer"] = _how(before, compiled.stats)
                    if told["answer"] == "hit" and compiled.latest is not None:
                        told["trace"] = compiled.latest.number

        return answered


def _how(before: Any, after: Any) -> str:
    """How a compiled function answered the call between two states of its counts."""
    if after.hits > before.hits:
        return "hit"
    if after.refused > before.refused:
        return "recording, refused"
    if after.recordings > before.recordings:
        return "recording, compiled" if after.compilations > before.compilations else "recording"
    if after.lockstep > before.lockstep:
        return "lockstep"
    return "eager" if after.eager > before.eager else "error"


def _kernels(thread: int, times: KernelTimes) -> Iterator[Raw]:
    """The events of one run of a program."""
    program = times.executable.program
    for call, (begin, end) in zip(program.calls, times.spans, strict=True):
        found = Raw("kernel", call.label, begin, end, thread, more={"program": program.name})
        found.lines = [loc for loc in call.locs if loc is not None and loc.filename]
        flops, size = call_flops(call), call_bytes(program, call)
        if flops:
            found.more["flops"] = flops
        if size is not None:
            found.more["bytes"] = size
        yield found


def in_order(events: Sequence[Raw]) -> list[Raw]:
    """By begin; what is around comes before what is inside."""
    numbered = sorted(enumerate(events), key=lambda pair: (pair[1].begin, -pair[1].end, -pair[0]))
    return [event for _, event in numbered]


def parents(events: Sequence[Raw]) -> list[int]:
    """For each event, in order, the number of the innermost that is around it on its thread; -1 for none."""
    found: list[int] = []
    around: dict[int, list[int]] = {}
    for k, event in enumerate(events):
        open_ = around.setdefault(event.thread, [])
        while open_ and events[open_[-1]].end < event.end:
            open_.pop()
        found.append(open_[-1] if open_ else -1)
        open_.append(k)
    return found


def _settle(events: Sequence[Raw], stacks: bool) -> None:
    """Work out places as text. Code of eager operations is shared: its kernels have the line of the operation."""
    for event, parent in zip(events, parents(events), strict=True):
        if event.kind == "kernel" and (not event.lines or (parent >= 0 and events[parent].kind == "op")):
            event.place = events[parent].place if parent >= 0 else ""
            event.module = events[parent].module if parent >= 0 else ""
        elif event.lines:
            places = list(dict.fromkeys(map(str, event.lines)))
            event.place = places[0]
            if event.kind == "kernel" and len(places) > 1:
                event.more["lines"] = places
            elif stacks and event.kind != "kernel":
                event.stack = [_shown(line) for line in event.lines]
        event.module = event.module or _path(event.modules)
        event.lines, event.modules = [], []


def _looked_around(frame: FrameType | None, most: int) -> tuple[list[Location], list[Any]]:
    """The user's lines that are running, the innermost first, and the Modules, the outermost first."""
    lines: list[Location] = []
    modules: list[Any] = []
    while frame is not None:
        if frame.f_code is call_module.__code__:
            modules.append(frame.f_locals["module"])
        elif len(lines) < most and kind_of(frame.f_code) == "user":
            lines.append(Location(frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return lines, modules[::-1]


def _shown(line: Location) -> str:
    return f"{line.filename}({line.line}): {line.code.co_name if line.code is not None else '?'}"


def _path(modules: list[Any]) -> str:
    """Where a Module is, from the outermost that runs: `Net.layers.0`."""
    if not modules:
        return ""
    parts = [type(modules[0]).__name__]
    for outer, inner in pairwise(modules):
        names = (name for name, m in outer.named_modules(remove_duplicate=False) if m is inner and name)
        parts.append(next(names, type(inner).__name__))
    return ".".join(parts)
