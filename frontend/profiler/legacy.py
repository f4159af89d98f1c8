"""`autograd.profiler.profile`: the older form, with fewer arguments and a switch."""

from __future__ import annotations

from typing import Any

from graphc.errors import UnsupportedError
from graphc.frontend.profiler import api
from graphc.frontend.profiler.api import record_function
from graphc.frontend.profiler.events import EventList

__all__ = ["profile", "record_function"]


class profile:
    """A profile of what runs inside, if `enabled`: a context manager. See graphc.profiler.profile.

    Raises UnsupportedError for `use_device`, `profile_memory` and `use_cpu=False`.
    """

    def __init__(
        self,
        enabled: bool = True,
        *,
        use_cpu: bool = True,
        use_device: str | None = None,
        record_shapes: bool = False,
        with_flops: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_modules: bool = False,
    ) -> None:
        if use_device is not None or not use_cpu:
            raise UnsupportedError("profile: only the CPU can be profiled; leave out use_device and use_cpu")
        self.enabled = enabled
        self.profiler = api.profile(
            record_shapes=record_shapes,
            with_flops=with_flops,
            profile_memory=profile_memory,
            with_stack=with_stack,
            with_modules=with_modules,
        )

    def __enter__(self) -> profile:
        if self.enabled:
            self.profiler.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.enabled:
            self.profiler.stop()

    @property
    def function_events(self) -> EventList:
        """Every event."""
        return self.profiler.events()

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0) -> EventList:
        """The sums over events of one name."""
        return self.profiler.key_averages(group_by_input_shape, group_by_stack_n)

    def total_average(self) -> Any:
        """The sum over all events."""
        return self.function_events.total_average()

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds of all events."""
        return self.function_events.self_cpu_time_total

    def table(self, sort_by: str | None = None, row_limit: int = 100, **more: Any) -> str:
        """The events as text."""
        return self.function_events.table(sort_by, row_limit, **more)

    def export_chrome_trace(self, path: str) -> None:
        """Write a Chrome trace."""
        self.profiler.export_chrome_trace(path)
