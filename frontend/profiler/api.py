"""What users call: `profile`, `record_function`, `tensorboard_trace_handler`."""

from __future__ import annotations

import functools
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from graphc.errors import ArgumentError, StateError, UnsupportedError
from graphc.frontend.hot import forget_views
from graphc.frontend.mode import mode, watching
from graphc.frontend.profiler import chrome
from graphc.frontend.profiler.collect import Collector, Raw, in_order
from graphc.frontend.profiler.events import EventList, events_of
from graphc.frontend.profiler.schedule import ProfilerAction, ProfilerActivity, supported_activities

__all__ = ["profile", "record_function", "tensorboard_trace_handler"]

F = TypeVar("F", bound=Callable[..., Any])
P = TypeVar("P", bound="profile")
_KEEPS = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)
_NOT_HERE = {
    "profile_memory": "the sizes of arrays are in the kernels' events",
    "use_cuda": "there is no CUDA here",
    "experimental_config": "it sets up Kineto, which is not used here",
    "execution_trace_observer": "graphc.trace() gives a program as data",
    "custom_trace_id_callback": "add_metadata() puts names into a trace",
}


class profile:
    """What runs inside, for how long, called from which line: a context manager, or start() and stop().

    Eager operations, gradient rules and optimiser updates are events, and so are calls of compiled functions (which say
    how they were answered: `hit`, `recording`, …) with their kernels, backward passes and what record_function() names.
    The times of operations are those of the native work; what Python does around it, and noting it all, shows as gaps.
    Events carry the user's line and the path of the Module; `record_shapes` adds the operands' shapes, `with_stack` all
    the user's lines.
    `with_flops` and `with_modules` are accepted: both are always noted where they are known.

    schedule: gives the action of each step, which step() ends. on_trace_ready: called with the profile when the events
    of a cycle are complete. acc_events: keep those of earlier cycles, too.

    Raises UnsupportedError for what is not supported, StateError when another profile runs, RecordingError inside a
    compiled function; warns when activities ask for CUDA.
    """

    def __init__(
        self,
        *,
        activities: Iterable[ProfilerActivity] | None = None,
        schedule: Callable[[int], ProfilerAction] | None = None,
        on_trace_ready: Callable[..., Any] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_flops: bool = False,
        with_modules: bool = False,
        experimental_config: Any = None,
        execution_trace_observer: Any = None,
        acc_events: bool = False,
        use_cuda: bool | None = None,
        custom_trace_id_callback: Callable[[], str] | None = None,
    ) -> None:
        _refuse(
            profile_memory=profile_memory, use_cuda=use_cuda, experimental_config=experimental_config,
            execution_trace_observer=execution_trace_observer, custom_trace_id_callback=custom_trace_id_callback,
        )  # fmt: skip
        _check_activities(activities)
        self.schedule = schedule
        self.on_trace_ready = on_trace_ready
        self.acc_events = acc_events
        self.step_num = 0
        self.current_action = ProfilerAction.NONE
        self._make = functools.partial(Collector, record_shapes, with_stack)
        self._shapes = record_shapes
        self._stacks = with_stack
        self._collector: Collector | None = None
        self._step_begin = 0
        self._running = False
        self._raws: list[Raw] = []
        self._threads: dict[int, str] = {}
        self._metadata: dict[str, Any] = {}

    # ---- from begin to end

    def start(self) -> None:
        """Begin. Raises StateError when it runs already, or another one does."""
        recorder = mode.get().recorder
        if recorder is not None:
            recorder.on_ambient("a profile is started")
        if self._running:
            raise StateError("profile: it is running already")
        if watching:
            raise StateError("profile: another profile is running; one at a time can")
        self._running = True
        self._enter(self._action())

    def stop(self) -> None:
        """End, and give the events to `on_trace_ready`. Raises StateError when it does not run."""
        recorder = mode.get().recorder
        if recorder is not None:
            recorder.on_ambient("a profile is stopped")
        if not self._running:
            raise StateError("profile: it is not running; call start() first")
        self._running = False
        kept = self._leave()
        if kept and self.on_trace_ready is not None:
            self.on_trace_ready(self)

    def step(self) -> None:
        """End a step and begin the next. Raises StateError when the profile does not run."""
        if not self._running:
            raise StateError("profile: step() outside of the profile; call start() first")
        before = self.current_action
        self._end_step()
        self.step_num += 1
        action = self._action()
        if before is ProfilerAction.RECORD_AND_SAVE or action in (ProfilerAction.NONE, ProfilerAction.WARMUP):
            kept = self._leave()
            if kept and before is ProfilerAction.RECORD_AND_SAVE and self.on_trace_ready is not None:
                self.on_trace_ready(self)
            self._enter(action)
            return
        if before is ProfilerAction.WARMUP and self._collector is not None:
            self._collector.forget()
        self._begin_step(action)

    def __enter__(self: P) -> P:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _action(self) -> ProfilerAction:
        if self.schedule is None:
            return ProfilerAction.RECORD
        found = self.schedule(self.step_num)
        if not isinstance(found, ProfilerAction):
            raise ArgumentError(f"profile: schedule must give a ProfilerAction, got {type(found).__name__}")
        return found

    def _enter(self, action: ProfilerAction) -> None:
        if action is not ProfilerAction.NONE:
            try:
                collector = self._make()
                collector.start()
            except RuntimeError as error:
                self._running = False
                raise StateError(f"profile: {error}") from None
            self._collector = collector
            forget_views()
        self._begin_step(action)

    def _begin_step(self, action: ProfilerAction) -> None:
        self.current_action = action
        self._step_begin = time.perf_counter_ns()

    def _end_step(self) -> None:
        if self._collector is not None:
            self._collector.note("step", f"ProfilerStep#{self.step_num}", self._step_begin, time.perf_counter_ns())

    def _leave(self) -> bool:
        """Stop collecting; True where there are events to keep."""
        collector, self._collector = self._collector, None
        if collector is None:
            return False
        collector.stop()
        forget_views()
        if self.current_action not in _KEEPS:
            return False
        if self.acc_events:
            self._raws += collector.events
        else:
            self._raws = collector.events
        self._threads |= collector.threads
        return True

    # ---- what was found

    def events(self) -> EventList:
        """Every event, in order of begin, as a tree. Raises StateError before there are any."""
        if self._collector is not None and self.current_action in _KEEPS:
            raise StateError("profile: the events are known when the profile has ended; call stop() first")
        raws = in_order(self._raws)
        return events_of(raws, raws[0].begin if raws else 0)

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0) -> EventList:
        """The sums over events of one name; apart by shapes (needs `record_shapes`) or by the innermost lines of the
        stack (needs `with_stack`), if asked. Raises ArgumentError where these were not recorded.
        """
        if group_by_input_shape and not self._shapes:
            raise ArgumentError("key_averages: group_by_input_shape needs profile(record_shapes=True)")
        if group_by_stack_n and not self._stacks:
            raise ArgumentError("key_averages: group_by_stack_n needs profile(with_stack=True)")
        return self.events().key_averages(group_by_input_shape, group_by_stack_n)

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write a Chrome trace, to be opened in Perfetto or chrome://tracing; compressed where the name ends in `.gz`.

        Raises OSError where the file cannot be written, StateError before the profile has ended.
        """
        self.events()
        chrome.write(path, in_order(self._raws), self._threads, self._metadata)

    def add_metadata(self, key: str, value: str) -> None:
        """Put a text of the user's into the trace. Raises ArgumentError for a name the format uses itself."""
        if key in ("traceEvents", "schemaVersion", "displayTimeUnit"):
            raise ArgumentError(f"add_metadata: {key!r} has a meaning of its own in a trace; choose another name")
        self._metadata[str(key)] = str(value)


def _refuse(**given: Any) -> None:
    for name, value in given.items():
        if value:
            raise UnsupportedError(f"profile: {name} is not supported: {_NOT_HERE[name]}")


def _check_activities(activities: Iterable[ProfilerActivity] | None) -> None:
    if activities is None:
        return
    asked = list(activities)
    for activity in asked:
        if not isinstance(activity, ProfilerActivity):
            raise ArgumentError(f"profile: activities must hold ProfilerActivity, got {activity!r}")
    if ProfilerActivity.CPU not in asked:
        raise UnsupportedError("profile: nothing to profile here among activities; add ProfilerActivity.CPU")
    for activity in asked:
        if activity not in supported_activities():
            warnings.warn(f"{activity.name} is not available, it is left out of the profile", UserWarning, stacklevel=3)


class record_function:
    """A named range in a profile: a context manager, or a decorator. Without a profile it costs next to nothing.

    Inside a compiled function it shows while the function is recorded or runs in lockstep (there, where operations
    were asked for, not where they ran); a compiled graph has no ranges.
    """

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name = name
        self.args = args
        self._open: list[AbstractContextManager[Any] | None] = []

    def __enter__(self) -> record_function:
        span = watching[0].span("range", self.name) if watching else None
        self._open.append(span)
        if span is not None:
            told = span.__enter__()
            if self.args is not None:
                told["args"] = self.args
        return self

    def __exit__(self, *error: Any) -> None:
        span = self._open.pop()
        if span is not None:
            span.__exit__(*error)

    def __call__(self, function: F) -> F:
        name, args = self.name, self.args

        @functools.wraps(function)
        def named(*given: Any, **keywords: Any) -> Any:
            with record_function(name, args):
                return function(*given, **keywords)

        return named  # type: ignore[return-value]


def tensorboard_trace_handler(
    dir_name: str, worker_name: str | None = None, use_gzip: bool = False
) -> Callable[[profile], None]:
    """An `on_trace_ready` that writes each trace to a file of its own in `dir_name`, named as TensorBoard looks for."""

    def handler(prof: profile) -> None:
        os.makedirs(dir_name, exist_ok=True)
        worker = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        name = f"{worker}.{time.time_ns()}.pt.trace.json{'.gz' if use_gzip else ''}"
        prof.export_chrome_trace(os.path.join(dir_name, name))

    return handler
