"""A profile as a Chrome trace: the JSON that chrome://tracing and Perfetto open."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from graphc.frontend.profiler.collect import Raw
from graphc.runtime.atomic import atomic_write

_CATEGORIES = {"range": "user_annotation", "step": "user_annotation", "op": "cpu_op", "call": "compiled_call"}


def trace(raws: Sequence[Raw], threads: Mapping[int, str], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The trace as plain data: complete events (ph X) with times in microseconds, and the names of threads."""
    pid = os.getpid()
    named: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": "graphc"}}
    ]
    named += [
        {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": f"{name} ({tid})"}}
        for tid, name in threads.items()
    ]
    return {
        "schemaVersion": 1,
        "displayTimeUnit": "ms",
        **metadata,
        "traceEvents": [*named, *(_event(raw, pid) for raw in raws)],
    }


def _event(raw: Raw, pid: int) -> dict[str, Any]:
    return {
        "ph": "X",
        "cat": _CATEGORIES.get(raw.kind, raw.kind),
        "name": raw.title if raw.kind == "call" else raw.name,
        "pid": pid,
        "tid": raw.thread,
        "ts": raw.begin / 1000,
        "dur": (raw.end - raw.begin) / 1000,
        "args": _told(raw),
    }


def _told(raw: Raw) -> dict[str, Any]:
    found = {
        "line": raw.place,
        "module": raw.module,
        "Input Dims": raw.shapes,
        "Call stack": ";".join(raw.stack),
    }
    return {name: value for name, value in found.items() if value} | raw.more


def write(
    path: str | os.PathLike[str], raws: Sequence[Raw], threads: Mapping[int, str], more: Mapping[str, Any]
) -> None:
    """Write the trace to a file, compressed when its name ends in `.gz`."""
    text = json.dumps(trace(raws, threads, more), allow_nan=False).encode()
    data = gzip.compress(text) if str(path).endswith(".gz") else text
    atomic_write(path, [data])
