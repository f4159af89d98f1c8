"""What a profile gives: events in a tree, and sums of those of one name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.profiler import chrome
from graphc.frontend.profiler.collect import Raw, parents
from graphc.frontend.profiler.table import build_table


@dataclass(frozen=True, slots=True)
class Interval:
    """Microseconds since the profile began."""

    start: float
    end: float

    def elapsed_us(self) -> float:
        """The length."""
        return self.end - self.start


@dataclass(eq=False)
class FunctionEvent:
    """One event. Times in microseconds; `self_` times leave out the children.

    kind: "op", "kernel", "range", "step", "call", "backward" or "update". `key` is the name events are summed under
    (kernels apart from operations, calls of compiled functions by how they were answered). `place` is the user's line,
    `module` the path of the Module that ran it, `more` what else is known: of kernels `flops`, `bytes`, `program`; of
    calls the `answer` of a compiled function ("hit", "recording", …) and the number of its `trace`.
    """

    id: int
    kind: str
    name: str
    key: str
    time_range: Interval
    thread: int
    place: str
    module: str
    input_shapes: list[Any]
    stack: list[str]
    more: dict[str, Any]
    cpu_children: list[FunctionEvent] = field(default_factory=list)
    cpu_parent: FunctionEvent | None = None

    @property
    def count(self) -> int:
        """One."""
        return 1

    @property
    def flops(self) -> int:
        """Multiplications and additions of the matrix products and convolutions among the kernels inside, where each
        kernel is seen.
        """
        return int(self.more.get("flops", 0)) + sum(c.flops for c in self.cpu_children)

    @property
    def cpu_time_total(self) -> float:
        """From begin to end."""
        return self.time_range.elapsed_us()

    cpu_time = cpu_time_total

    @property
    def self_cpu_time_total(self) -> float:
        """Without the children."""
        return self.cpu_time_total - sum(c.cpu_time_total for c in self.cpu_children)

    def __repr__(self) -> str:
        return f"<FunctionEvent {self.kind} {self.name!r} {self.cpu_time_total:.3f}us at {self.place or '?'}>"


class FunctionEventAvg:
    """The events of one name (and, if asked, shapes or stack) together. Times in microseconds."""

    key: str
    kind: str
    place: str
    input_shapes: list[Any]
    stack: list[str]

    def __init__(self, first: FunctionEvent | FunctionEventAvg) -> None:
        self.key = first.key
        self.kind = first.kind
        self.place = first.place
        self.input_shapes = first.input_shapes
        self.stack = first.stack
        self.count = self.flops = 0
        self.cpu_time_total = self.self_cpu_time_total = 0.0

    def add(self, event: FunctionEvent | FunctionEventAvg) -> FunctionEventAvg:
        """Count one more event, or those of another sum."""
        self.count += event.count
        self.cpu_time_total += 0.0 if _inside_itself(event) else event.cpu_time_total
        self.self_cpu_time_total += event.self_cpu_time_total
        self.flops += event.flops
        return self

    @property
    def cpu_time(self) -> float:
        """The mean."""
        return self.cpu_time_total / self.count if self.count else 0.0

    def __repr__(self) -> str:
        return (
            f"<FunctionEventAvg key={self.key} self_cpu_time={self.self_cpu_time_total:.3f}us "
            f"cpu_time={self.cpu_time:.3f}us input_shapes={self.input_shapes}>"
        )


def _inside_itself(event: FunctionEvent | FunctionEventAvg) -> bool:
    """Whether an event of the same name is around this one: its time is counted there."""
    parent = event.cpu_parent if isinstance(event, FunctionEvent) else None
    while parent is not None:
        if parent.key == event.key:
            return True
        parent = parent.cpu_parent
    return False


class EventList(list[Any]):
    """Events, or their sums."""

    def __init__(self, items: Iterable[Any] = (), total: float = 0.0) -> None:
        super().__init__(items)
        self.self_cpu_time_total = total

    def key_averages(self, group_by_input_shapes: bool = False, group_by_stack_n: int = 0) -> EventList:
        """The sums over the events of one name, in order of their first; also apart by shapes, and by the innermost
        lines of the stack, if asked.
        """
        found: dict[Any, FunctionEventAvg] = {}
        for event in self:
            key = (event.key, str(event.input_shapes) if group_by_input_shapes else "", *event.stack[:group_by_stack_n])
            if key not in found:
                found[key] = FunctionEventAvg(event)
                if not group_by_input_shapes:
                    found[key].input_shapes = []
                found[key].stack = event.stack[:group_by_stack_n]
            found[key].add(event)
        return EventList(found.values(), self.self_cpu_time_total)

    def total_average(self) -> FunctionEventAvg:
        """The sum over all events. Raises ArgumentError when there are none."""
        if not self:
            raise ArgumentError("total_average: there are no events")
        total = FunctionEventAvg(self[0])
        total.key, total.input_shapes, total.stack = "Total", [], []
        for event in self:
            total.add(event)
        total.cpu_time_total = self.self_cpu_time_total
        return total

    def table(
        self,
        sort_by: str | None = None,
        row_limit: int = 100,
        max_src_column_width: int = 75,
        max_name_column_width: int = 55,
        max_shapes_column_width: int = 80,
        header: str | None = None,
        top_level_events_only: bool = False,
    ) -> str:
        """The events as text, `row_limit` of them (-1: all), largest first by `sort_by` if given.

        `sort_by`: "cpu_time_total", "self_cpu_time_total", "cpu_time", "count", "flops" or "name". Raises ArgumentError
        for another one.
        """
        rows: Sequence[Any] = self
        if top_level_events_only:
            rows = [e for e in rows if getattr(e, "cpu_parent", None) is None]
        widths = (max_name_column_width, max_src_column_width, max_shapes_column_width)
        return build_table(rows, self.self_cpu_time_total, sort_by, row_limit, widths, header)

    def export_chrome_trace(self, path: str) -> None:
        """Write the events as a Chrome trace. Raises ArgumentError for sums of events."""
        if any(isinstance(e, FunctionEventAvg) for e in self):
            raise ArgumentError("export_chrome_trace: these are sums; write the trace of events()")
        chrome.write(path, [_raw(e) for e in self], {}, {})

    def __str__(self) -> str:
        return self.table()


def _raw(e: FunctionEvent) -> Raw:
    begin, end = round(e.time_range.start * 1000), round(e.time_range.end * 1000)
    return Raw(e.kind, e.name, begin, end, e.thread, e.place, e.module, e.input_shapes, e.stack, e.more)


def events_of(raws: Sequence[Raw], start: int) -> EventList:
    """Events in order as a tree: a child lies within its parent, on the same thread."""
    made: list[FunctionEvent] = []
    for raw, parent in zip(raws, parents(raws), strict=True):
        span = Interval((raw.begin - start) / 1000, (raw.end - start) / 1000)
        event = FunctionEvent(
            len(made), raw.kind, raw.name, raw.title, span, raw.thread, raw.place, raw.module, raw.shapes, raw.stack,
            raw.more,
        )  # fmt: skip
        if parent >= 0:
            event.cpu_parent = made[parent]
            made[parent].cpu_children.append(event)
        made.append(event)
    return EventList(made, sum(e.cpu_time_total for e in made if e.cpu_parent is None))
