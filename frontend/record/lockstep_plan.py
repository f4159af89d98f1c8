"""What is kept of the lockstep calls of one signature: scripts, and whether to go on making them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Lock
from time import perf_counter
from typing import Any

from graphc.config import config
from graphc.errors import RecordingError
from graphc.frontend.mode import mode, using
from graphc.frontend.record.lockstep import Lockstep
from graphc.frontend.record.lockstep_script import Script, agreement, difference, merge, prepare

MAX_SCRIPTS = 8
TRIALS = 3  # calls of either kind that are timed before it is decided
MAX_GROWN = 24  # calls in which a script grew


class LockstepPlan:
    """The scripts of one function for one signature. `off`: why it runs eagerly instead."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.turn = Lock()  # of the thread that calls
        self.scripts: list[Script] = []
        self.waiting: list[Script] = []
        self.off = ""
        self.grown = 0
        self.calls = 0  # that ran in lockstep from start to end
        self.misses = 0
        self.why = ""  # the last miss
        self._grow = True
        self._times: dict[bool, list[float]] = {True: [], False: []}  # seconds of calls in lockstep, and eagerly

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, bool]:
        """(what the function gives, whether the call ran in lockstep)."""
        if not self.scripts or self._grow or config.lockstep != "auto" or len(self._times[False]) == TRIALS:
            return self._call(function, args, kwargs)
        start = perf_counter()
        if len(self._times[True]) < TRIALS:
            result, whole = self._call(function, args, kwargs)
            if not whole:
                return result, whole
        else:
            result, whole = function(*args, **kwargs), False
        self._times[whole].append(perf_counter() - start)
        if len(self._times[False]) == TRIALS:
            self._decide()
        return result, whole

    def _decide(self) -> None:
        """Small operations run faster than they are compared."""
        ours, eager = (1e6 * min(self._times[whole]) for whole in (True, False))
        if ours > 1.25 * eager:  # times vary
            times = f"it takes {eager:.0f} µs eagerly and {ours:.0f} µs in lockstep"
            self.off = f"{times}; GRAPHC_LOCKSTEP decides otherwise"

    def _call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, bool]:
        growing = self._grow or not self.scripts
        lock = Lockstep(() if growing else self.scripts, self.name)
        result = _run(lock, function, args, kwargs)
        if growing:
            self._learn(lock)
            return result, False
        if lock.script in self.scripts:
            self.scripts.remove(lock.script)
            self.scripts.insert(0, lock.script)
        if lock.missed:
            self.misses += 1
            self.why = lock.missed
            self._grow = self.grown < MAX_GROWN and len(self.scripts) < MAX_SCRIPTS
            if not self._grow and self.misses > 2 * MAX_GROWN + self.calls:
                self.off = f"too many calls took another path; the last: {lock.missed}"
            return result, False
        self.calls += 1
        return result, True

    def _learn(self, lock: Lockstep) -> None:
        """A call made a script: the second of its kind is kept."""
        self.grown += 1
        self._grow = False
        if lock.missed or not lock.script.events:
            self.off = lock.missed or "it calls no operation"
        elif not self._confirm(lock.script):
            self.waiting = [*self.waiting[1 - MAX_SCRIPTS :], lock.script]
            self._grow = True
        if self.grown >= MAX_GROWN:
            self._grow = False
            if not self.scripts:
                self.off = f"no two of {MAX_GROWN} calls did the same"

    def _confirm(self, script: Script) -> bool:
        for known in (*self.scripts, *self.waiting):
            if difference(known, script) is not None:
                continue
            if known in self.scripts and agreement(known, script) == len(script.events):
                return True
            merge(known, script)
            try:
                for segment in script.segments:
                    prepare(script, segment, self.name)
            except RecordingError as error:
                self.off = str(error)
                return True
            self.scripts = [script, *(s for s in self.scripts if s is not known)]
            self.waiting = [s for s in self.waiting if s is not known]
            return True
        return False

    def describe(self) -> str:
        """One line for explain()."""
        if self.off:
            return f"runs eagerly, not in lockstep: {self.off}"
        if not self.scripts:
            return "runs eagerly until two calls did the same, then in lockstep"
        parts = ", ".join(f"{len(s.events)} operations in {len(s.segments)} native calls" for s in self.scripts)
        missed = f"; {self.misses} calls left it, the last: {self.why}" if self.misses else ""
        return f"runs in lockstep: its Python at every call, {parts}{missed}"


def _run(lock: Lockstep, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    before = after = mode.get().grad
    try:
        with using(recorder=lock):
            ended = False
            try:
                result = function(*args, **kwargs)
                ended = True
            finally:
                after = mode.get().grad
                lock.finish(ended)
        return result
    finally:
        if after is not before:  # a gradient mode the call leaves behind holds on
            mode.set(replace(mode.get(), grad=after))
