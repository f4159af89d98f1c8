"""`graphc bench`: how long a model takes to load, to compile and to run, and where the time goes."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import graphc
from graphc import compiler
from graphc.cli.explain import contraction_flops
from graphc.cli.inputs import fill_inputs, given_values, parse_sizes
from graphc.cli.output import counted, one_line, say, say_json, say_table
from graphc.config import config
from graphc.ir.passes.bind import bind_dims
from graphc.runtime.executable import Executable
from graphc.runtime.pool import get_num_threads, set_num_threads
from graphc.runtime.profile import KernelTimes, Watch

MIN_ROUND = 2e-3  # seconds: a round repeats a short call until it is this long
PROFILED = 10  # runs behind the times of kernels


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds a call: median, and the quartiles around it."""

    threads: int
    median: float
    low: float
    high: float


def run(
    model: Path,
    rounds: int,
    threads: Sequence[int],
    kernels: int,
    specs: Sequence[str],
    archive: Path | None,
    sizes: Sequence[str],
    seed: int,
    as_json: bool,
) -> int:
    """The command."""
    begin = time.perf_counter()
    program = graphc.load(model)
    loaded = time.perf_counter() - begin
    given = given_values(specs, archive, seed)
    arrays, bound = fill_inputs(program.graph, program.state, given, parse_sizes(sizes), seed)
    graph = bind_dims(program.graph, bound)
    inputs = [np.array(arrays[i.name] if i.name in arrays else program.state[i.name]) for i in graph.inputs]
    begin = time.perf_counter()
    exe = compiler.compile_graph(graph)
    exe.run(inputs)
    compiled = time.perf_counter() - begin
    timings = _calls(exe, inputs, threads or sorted({1, len(os.sched_getaffinity(0))}), rounds, quiet=as_json)
    rows = _kernels(exe, inputs)
    facts = {
        "file": str(model),
        "load_s": loaded,
        "compile_and_first_call_s": compiled,
        "kernel_calls": len(exe.program.calls),
        "contraction_flops": contraction_flops(exe.program),
        "rounds": rounds,
        "calls": [{"threads": t.threads, "median_s": t.median, "q1_s": t.low, "q3_s": t.high} for t in timings],
        "kernels": rows[:kernels],
    }
    if as_json:
        say_json(facts)
    else:
        _tell(facts, timings, sum(r["median_s"] for r in rows))
    return 0


def _tell(facts: dict[str, Any], timings: Sequence[Timing], total: float) -> None:
    times = _time(facts["load_s"]), _time(facts["compile_and_first_call_s"])
    say(f"loaded in {times[0]}; compiled and first called in {times[1]}{'' if config.cache else ', nothing cached'}")
    flops = facts["contraction_flops"]
    rows = [
        (counted(t.threads, "thread"), _time(t.median), f"{_time(t.low)} to {_time(t.high)}", _rate(flops, t.median))
        for t in timings
    ]
    say_table("", ("one call", "median", "middle half", "contractions"), rows)
    if facts["kernels"]:
        listed = [
            (
                str(r["kernel"]),
                one_line(r["label"]),
                _time(r["median_s"]),
                f"{100 * r['median_s'] / max(total, 1e-12):.1f} %",
                one_line(r["place"]),
            )
            for r in facts["kernels"]
        ]
        say_table("", ("kernel", "what", "median", "share", "line"), listed)
    say(f"{counted(facts['kernel_calls'], 'kernel call')}, {counted(facts['rounds'], 'round')}")


def _rate(flops: int, seconds: float) -> str:
    return f"{flops / seconds / 1e9:.1f} GFLOP/s" if flops else ""


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _calls(exe: Executable, inputs: Sequence[Any], counts: Sequence[int], rounds: int, quiet: bool) -> list[Timing]:
    """Calls with each number of threads."""
    found = []
    with _progress(len(counts), quiet) as step:
        for count in counts:
            with _threads(count):
                found.append(_timed(count, lambda: exe.run(inputs), rounds))
            step()
    return found


def _timed(threads: int, call: Callable[[], Any], rounds: int) -> Timing:
    clock = time.perf_counter
    call()
    begin = clock()
    call()
    repeat = max(1, int(MIN_ROUND / max(clock() - begin, 1e-7)))
    found = []
    for _ in range(rounds):
        begin = clock()
        for _ in range(repeat):
            call()
        found.append((clock() - begin) / repeat)
    low, median, high = statistics.quantiles(found, n=4) if len(found) > 1 else found * 3
    return Timing(threads, median, low, high)


def _kernels(exe: Executable, inputs: Sequence[Any]) -> list[dict[str, Any]]:
    """Every kernel call with its median time, the slowest first."""
    found: list[KernelTimes] = []
    with Watch(found.append):
        for _ in range(PROFILED):
            exe.run(inputs)
    medians = [
        statistics.median(e - b for b, e in spans) * 1e-9 for spans in zip(*(f.spans for f in found), strict=True)
    ]
    rows = []
    for k, (call, median) in enumerate(zip(exe.program.calls, medians, strict=True)):
        place = next((str(loc) for loc in call.locs if loc is not None and loc.filename), "")
        rows.append({"kernel": k, "label": call.label, "median_s": median, "place": place})
    return sorted(rows, key=lambda r: -float(str(r["median_s"])))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = get_num_threads()
    set_num_threads(count)
    try:
        yield
    finally:
        set_num_threads(before)


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar on stderr where that is a terminal; gives the function that moves it one step."""
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("timing", total=total)
        yield lambda: bar.advance(task)
