"""Running cases in forked processes, so that a signal, a hang or a blow-up of memory ends one case alone.

One long-lived worker serves one job: what it compiled stays warm. It writes the number of the case it is at, and when
it began, into memory shared with its parent; a worker that dies or hangs was at that case, and another one goes on
with the next.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import mmap
import os
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import IO

from graphc.errors import GraphcError, UnsupportedError

MEMORY_BYTES = 6 << 30  # of address space beyond what the parent uses: more is a finding
RETIRE_BYTES = 3 << 29  # a worker that grew by so much hands over to a fresh one
SETTLE_EVERY = 64  # cases
COLLECTED = (20_000, 50, 100)  # thresholds of the garbage collector: `_settle` does what is left
_SLOT = struct.Struct("=qd")  # number of the case, when it began
_POLL_SECONDS = 0.2
_LAST_WORDS_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one case. `kind`: "done", or what went wrong: "difference", "error", "signal", "hang",
    "memory" or "exit".
    """

    number: int
    kind: str
    text: str  # how the program was treated, or what went wrong
    detail: str = ""  # a traceback, or what the fault handler wrote
    seconds: float = 0.0
    program: str = ""  # of a case that went wrong


Note = Callable[[str], None]  # told the text of the program before it runs
Run = Callable[[int, Note], str]  # runs a case and tells how it was treated


class _Job:
    """One worker and the cases it has yet to do."""

    def __init__(self, cases: Sequence[int], run: Run) -> None:
        self.cases = list(cases)
        self.run = run
        self.done = 0
        self.slot = mmap.mmap(-1, _SLOT.size)
        self.pid = 0
        self.reader: IO[bytes] | None = None
        self.buffer = b""
        self.errors, self.text = _unlinked(), _unlinked()

    def start(self) -> None:
        """Fork a worker for the cases that are left."""
        self._say(-1)
        os.ftruncate(self.errors, 0)
        given, taken = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(given)
            self._serve(taken)
        os.close(taken)
        self.pid, self.reader, self.buffer = pid, os.fdopen(given, "rb", buffering=0), b""

    def _serve(self, out: int) -> None:
        """The worker's side; never returns."""
        code = 1
        try:
            _prepare(self.errors)
            grown = _resident() + RETIRE_BYTES
            for count, number in enumerate(self.cases[self.done :]):
                if count % SETTLE_EVERY == 0:
                    _settle()
                self._say(number)
                os.ftruncate(self.text, 0)
                _write(out, _judge(number, self.run, self.text))
                if _resident() > grown:
                    break
            code = 0
        except BaseException:
            with contextlib.suppress(OSError):
                os.write(self.errors, traceback.format_exc().encode("utf-8", "replace"))
        finally:
            os._exit(code)

    def _say(self, number: int) -> None:
        self.slot[:] = _SLOT.pack(number, time.monotonic())

    def at(self) -> tuple[int, float]:
        """The case the worker is at, and how long it has been."""
        number, began = _SLOT.unpack(self.slot[:])
        return number, time.monotonic() - began

    def read(self) -> tuple[list[Verdict], bool]:
        """Verdicts that came, and whether the worker has ended."""
        assert self.reader is not None
        data = os.read(self.reader.fileno(), 1 << 16)
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        found = [Verdict(**json.loads(line)) for line in lines]
        self.done += len(found)
        return found, not data

    def end(self) -> Verdict | None:
        """Wait for the worker; what it died of, if it died at a case."""
        assert self.reader is not None
        self.reader.close()
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        if status == 0 or self.done == len(self.cases):
            return None
        number, seconds = self.cases[self.done], self.at()[1]
        self.done += 1
        detail, program = _read(self.errors, 20_000), _read(self.text, 1 << 20)
        if os.WIFSIGNALED(status):
            kind, text = "signal", f"the process died of {signal.Signals(os.WTERMSIG(status)).name}"
        else:
            kind, text = "exit", f"the process ended with status {os.WEXITSTATUS(status)}"
        return Verdict(number, kind, text, detail, seconds, program)

    def kill(self) -> None:
        """End the worker, if there is one."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Leave nothing behind."""
        if self.pid:
            self.kill()
            os.waitpid(self.pid, 0)
            if self.reader is not None:
                self.reader.close()
        self.slot.close()
        os.close(self.errors)
        os.close(self.text)


def _read(file: int, most: int) -> str:
    size = os.lseek(file, 0, os.SEEK_END)
    return os.pread(file, min(size, most), 0).decode("utf-8", "replace")


def _unlinked() -> int:
    """A file in memory, for one process to write and another to read."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("graphc-fuzz")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _prepare(errors: int) -> None:
    """Settings of a worker: faults are written to `errors`, what the program prints goes nowhere, memory is limited."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    sys.stdout = sys.stderr = open(nothing, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  (as long as it lives)
    faulthandler.enable(errors)
    gc.set_threshold(*COLLECTED)
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(kind, signal.SIG_DFL)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        limit = _address_space() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _settle() -> None:
    """What is left by now stays, mostly: plans and kernels. The collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


def _pages(field: int) -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[field]) * mmap.PAGESIZE


def _address_space() -> int:
    return _pages(0)


def _resident() -> int:
    with contextlib.suppress(OSError):
        return _pages(1)
    return 0


def _judge(number: int, run: Run, text: int) -> Verdict:
    found = judged(number, run, lambda program: _keep(text, program))
    return found if found.kind == "done" else replace(found, program=_read(text, 1 << 20))


def judged(number: int, run: Run, note: Note = lambda text: None) -> Verdict:
    """Run a case in this process; what it raises is the verdict."""
    began = time.monotonic()
    kind, told, detail = "done", "", ""
    try:
        told = run(number, note)
    except MemoryError as error:
        kind, told, detail = "memory", f"MemoryError: {error}", traceback.format_exc()
    except AssertionError as error:
        kind = "error" if isinstance(error, GraphcError) else "difference"
        told, detail = str(error) if kind == "difference" else _named(error), traceback.format_exc()
    except Exception as error:
        kind, told, detail = "error", _named(error), traceback.format_exc()
    return Verdict(number, kind, told, detail, time.monotonic() - began)


def _keep(file: int, text: str) -> None:
    os.pwrite(file, text.encode("utf-8", "replace"), 0)


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _write(out: int, verdict: Verdict) -> None:
    data = json.dumps(asdict(verdict)).encode("ascii") + b"\n"
    while data:
        data = data[os.write(out, data) :]


def run_cases(cases: Sequence[int], run: Run, jobs: int, seconds: float) -> Generator[Verdict, None, None]:
    """Run `run(number)` for each case in `jobs` workers at once; one verdict a case, in the order they come.

    A case that takes longer than `seconds` is a hang. Raises UnsupportedError where processes cannot be forked.
    """
    if not hasattr(os, "fork"):
        raise UnsupportedError("fuzz: cases run in forked processes, which this system does not have")
    working = [_Job(cases[k::jobs], run) for k in range(min(jobs, len(cases)))]
    try:
        for job in working:
            job.start()
        running = list(working)
        while running:
            yield from _step(running, seconds)
    finally:
        for job in working:
            job.close()


def _step(running: list[_Job], seconds: float) -> Iterator[Verdict]:
    """Wait a little for verdicts; replace workers that ended."""
    readers = {job.reader.fileno(): job for job in running if job.reader is not None}
    ready, _, _ = select.select(list(readers), [], [], _POLL_SECONDS)
    for number in ready:
        job = readers[number]
        found, ended = job.read()
        yield from found
        if ended:
            died = job.end()
            if died is not None:
                yield died
            _go_on(job, running)
    for job in list(running):
        at, since = job.at()
        if at >= 0 and since > seconds:
            yield from _hung(job, at, seconds, running)


def _go_on(job: _Job, running: list[_Job]) -> None:
    if job.done < len(job.cases):
        job.start()
    else:
        running.remove(job)


def _hung(job: _Job, at: int, seconds: float, running: list[_Job]) -> Iterator[Verdict]:
    """Kill a worker that takes too long, unless it has gone on meanwhile; it tells where it was."""
    assert job.reader is not None
    os.kill(job.pid, signal.SIGSTOP)
    number, since = job.at()
    if number != at or since <= seconds or select.select([job.reader.fileno()], [], [], 0)[0]:
        os.kill(job.pid, signal.SIGCONT)
        return
    for kind in (signal.SIGABRT, signal.SIGCONT):  # the fault handler writes where it hangs
        os.kill(job.pid, kind)
    if not select.select([job.reader.fileno()], [], [], _LAST_WORDS_SECONDS)[0]:
        job.kill()
    died = job.end()
    if died is not None:
        yield replace(died, kind="hang", text=f"no end after {seconds:g} s")
    _go_on(job, running)


def run_alone(number: int, run: Run, seconds: float) -> Verdict:
    """One case in a fresh process."""
    (found,) = run_cases([number], run, 1, seconds)
    return found
