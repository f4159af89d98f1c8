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
from graphc.cli.inputs import fill_inputs, given_values, parse_sizes
from graphc.cli.output import counted, one_line, say, say_json, say_table
from graphc.cli.sizes import graph_for
from graphc.config import config
from graphc.profiler import profile, record_function
from graphc.runtime.executable import Executable
from graphc.runtime.pool import get_num_threads, set_num_threads
from graphc.runtime.profile import KernelTimes, Watch
from graphc.runtime.program import KernelCall, call_flops
from graphc.runtime.segments import Runs

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
    trace: Path | None = None,
) -> int:
    """The command. `trace`: where to write some runs as a Chrome trace."""
    begin = time.perf_counter()
    program = graphc.load(model)
    loaded = time.perf_counter() - begin
    given = given_values(specs, archive, seed)
    arrays, bound = fill_inputs(program.graph, program.state, given, parse_sizes(sizes), seed)
    graph, counts = graph_for(program, arrays, bound)
    inputs = [np.array(arrays[i.name] if i.name in arrays else program.state[i.name]) for i in graph.inputs]
    begin = time.perf_counter()
    exe = compiler.compile_graph(graph)
    exe.run(inputs)
    compiled = time.perf_counter() - begin
    timings = _calls(exe, inputs, threads or sorted({1, len(os.sched_getaffinity(0))}), rounds, quiet=as_json)
    runs = _watched(exe, inputs)
    rows = _kernels(runs)
    if trace is not None:
        _write_trace(trace, program.graph.name, exe, inputs)
    facts = {
        "file": str(model),
        "load_s": loaded,
        "compile_and_first_call_s": compiled,
        "sizes": {**bound, **counts},
        "kernel_calls": len(runs[0]),
        "contraction_flops": sum(call_flops(done.call) for done in runs[0]),
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
    sizes = "".join(f", {name}={n}" for name, n in facts["sizes"].items())
    say(f"{counted(facts['kernel_calls'], 'kernel call')}, {counted(facts['rounds'], 'round')}{sizes}")


def _rate(flops: int, seconds: float) -> str:
    return f"{flops / seconds / 1e9:.1f} GFLOP/s" if flops else ""


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _calls(exe: Runs, inputs: Sequence[Any], counts: Sequence[int], rounds: int, quiet: bool) -> list[Timing]:
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


@dataclass(frozen=True, slots=True)
class Done:
    """One kernel call of a run: the program it belongs to, its number there, its nanoseconds."""

    exe: Executable
    number: int
    time: int

    @property
    def call(self) -> KernelCall:
        """The kernel call."""
        return self.exe.program.calls[self.number]


def _watched(exe: Runs, inputs: Sequence[Any]) -> list[list[Done]]:
    """The kernel calls of some runs. A graph with branches or loops is many programs, some of them run many times."""
    found: list[list[Done]] = []

    def note(times: KernelTimes) -> None:
        found[-1] += [Done(times.executable, k, end - begin) for k, (begin, end) in enumerate(times.spans)]

    with Watch(note):
        for _ in range(PROFILED):
            found.append([])
            exe.run(inputs)
    return found


def _kernels(runs: Sequence[Sequence[Done]]) -> list[dict[str, Any]]:
    """Every kernel with the median of its time in one run, the slowest first."""
    times: dict[tuple[Executable, int], list[int]] = {}
    calls: dict[tuple[Executable, int], KernelCall] = {}
    for run in runs:
        sums: dict[tuple[Executable, int], int] = {}
        for done in run:
            sums[done.exe, done.number] = sums.get((done.exe, done.number), 0) + done.time
            calls[done.exe, done.number] = done.call
        for key, time_ in sums.items():
            times.setdefault(key, []).append(time_)
    rows = []
    for k, (key, spent) in enumerate(times.items()):
        call = calls[key]
        place = next((str(loc) for loc in call.locs if loc is not None and loc.filename), "")
        median = statistics.median(spent) * 1e-9
        rows.append({"kernel": k, "label": call.label, "median_s": median, "place": place})
    return sorted(rows, key=lambda r: -float(str(r["median_s"])))


def _write_trace(path: Path, name: str, exe: Runs, inputs: Sequence[Any]) -> None:
    with profile() as prof:
        for k in range(PROFILED):
            with record_function(f"{name} run {k}"):
                exe.run(inputs)
    prof.export_chrome_trace(path)


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
