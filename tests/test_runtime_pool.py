"""The thread pool and the native driver, with kernels written by hand."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from graphc.errors import ArgumentError
from graphc.runtime import pool_ir
from graphc.runtime.code import library
from graphc.runtime.driver import native
from graphc.runtime.pool import MAX_THREADS, Pool, get_num_threads, pool, set_num_threads
from tests.runtime_kernels import function, host_target

ROOT = Path(__file__).parent.parent

# counts[i] += 1, then what a number of multiplications costs, so that chunks overlap in time
COUNT = """  %a = getelementptr i64, ptr %p0, i64 %i
  %x = load i64, ptr %a, align 8
  %y = add i64 %x, 1
  store i64 %y, ptr %a, align 8
  store volatile i64 %i, ptr %scratch, align 8"""

# who[i] = the thread: the address of its scratch memory
WHO = """  %a = getelementptr i64, ptr %p0, i64 %i
  %s = ptrtoint ptr %scratch to i64
  store i64 %s, ptr %a, align 8
  %v = getelementptr i8, ptr %scratch, i64 4095
  store volatile i8 1, ptr %v, align 1"""

SPIN = """  %a = getelementptr i64, ptr %p0, i64 %i
  br label %again
again:
  %k = phi i64 [ 0, %body ], [ %k1, %again ]
  %k1 = add i64 %k, 1
  store volatile i64 %k1, ptr %a, align 8
  %c = icmp slt i64 %k1, TIMES
  br i1 %c, label %again, label %spun
spun:
  %s = ptrtoint ptr %scratch to i64
  store i64 %s, ptr %a, align 8"""

BUSY = SPIN.replace("TIMES", "200000")
_TIMES = "  %extra = mul i64 %i, 8000000\n  %times = add i64 %extra, 2000000\n"  # unit 1: five times as long as unit 0
UNEVEN = SPIN.replace("TIMES", "%times").replace("  br label %again\nagain", _TIMES + "  br label %again\nagain")


@pytest.fixture
def threads() -> Iterator[Pool]:
    before = get_num_threads()
    pool().ensure()
    yield pool()
    set_num_threads(before)


def code(body: str) -> int:
    key = f"test {body}"
    name = f"k_{zlib.crc32(key.encode()):x}"
    return library().addresses([(key, name, lambda _: function(name, body))], host_target())[0]


class Job:
    """One kernel over an array of int64, run through the driver."""

    def __init__(self, body: str, units: int, grain: int = 1) -> None:
        self.data = np.zeros(units, np.int64)
        self.scratch = np.zeros(4096, np.uint8)
        pool().reserve_scratch(self.scratch.nbytes)
        self.block = np.array([self.data.ctypes.data], np.int64)
        self.calls = np.array([code(body), self.block.ctypes.data, units, grain], np.int64)
        self.frame = np.array([self.calls.ctypes.data, 1, 0, 0, 0, -1, self.scratch.ctypes.data, pool().page], np.int64)

    def run(self, times: int = 1) -> None:
        for _ in range(times):
            native().run(self.frame.ctypes.data)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize(("units", "grain"), [(0, 1), (1, 1), (2, 1), (7, 1), (1000, 1), (1000, 300), (1000, 5000)])
def test_each_unit_is_done_exactly_once(threads: Pool, count: int, units: int, grain: int) -> None:
    set_num_threads(count)
    assert threads.live == count - 1
    job = Job(COUNT, units, grain)
    job.run(200)
    assert (job.data == 200).all()


def test_work_is_shared_and_each_thread_has_its_own_scratch(threads: Pool) -> None:
    set_num_threads(3)
    job, seen = Job(WHO, 5000), set()
    deadline = time.monotonic() + 20
    while len(seen) < 3 and time.monotonic() < deadline:
        job.run()
        seen |= set(job.data.tolist())
    assert len(seen) == 3 and job.scratch.ctypes.data in seen
    assert all(address % 64 == 0 for address in seen - {job.scratch.ctypes.data})


def test_scratch_grows_under_running_jobs(threads: Pool) -> None:
    set_num_threads(3)
    job = Job(COUNT, 500)
    worker = threading.Thread(target=job.run, args=(3000,))
    worker.start()
    for k in range(14, 22):
        threads.reserve_scratch(1 << k)
    worker.join()
    assert (job.data == 3000).all()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def word(threads: Pool, offset: int) -> ctypes.c_int32:
    return ctypes.c_int32.from_address(threads.page + offset)


def test_sleeping_threads_wake(threads: Pool) -> None:
    set_num_threads(2)
    job, sleepers = Job(BUSY, 8), word(threads, pool_ir.SLEEPERS)

    def helped() -> bool:
        job.run()
        return len(set(job.data.tolist())) == 2

    for _ in range(5):
        wait_until(lambda: sleepers.value == 1)
        wait_until(helped)


def test_a_caller_sleeps_while_others_work_and_wakes(threads: Pool) -> None:
    set_num_threads(2)
    job, waiting = Job(UNEVEN, 2), word(threads, pool_ir.WAITING)

    def slept() -> bool:
        job.run()
        assert (job.data > 1).all()
        return waiting.value == 1

    for _ in range(3):
        wait_until(slept)


def test_concurrent_callers(threads: Pool) -> None:
    set_num_threads(3)
    jobs = [Job(COUNT, 300 + k) for k in range(4)]
    callers = [threading.Thread(target=job.run, args=(2000,)) for job in jobs]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for job in jobs:
        assert (job.data == 2000).all()


def test_changing_the_number_of_threads_under_load(threads: Pool) -> None:
    job, stop = Job(COUNT, 100), threading.Event()
    runs = [0]

    def work() -> None:
        while not stop.is_set():
            job.run()
            runs[0] += 1

    caller = threading.Thread(target=work)
    caller.start()
    for count in [1, 4, 2, 6, 1, 3] * 3:
        set_num_threads(count)
        assert get_num_threads() == count and threads.live == count - 1
    stop.set()
    caller.join()
    assert (job.data == runs[0]).all()


@pytest.mark.parametrize("count", [0, -1, MAX_THREADS + 1])
def test_a_wrong_number_of_threads_is_refused(count: int) -> None:
    with pytest.raises(ArgumentError, match="set_num_threads"):
        set_num_threads(count)


def test_signals_go_to_python_threads(threads: Pool) -> None:
    set_num_threads(3)
    blocked = []
    for task in os.listdir("/proc/self/task"):
        status = Path(f"/proc/self/task/{task}/status").read_text()
        mask = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")), 16)
        blocked.append(bool(mask >> (signal.SIGINT - 1) & 1))
    assert sum(blocked) >= 2  # our two, and perhaps those of other libraries


FORK = """
import os, sys, threading
from tests.test_runtime_pool import COUNT, Job, get_num_threads, pool, set_num_threads
set_num_threads(3)
pool().ensure()
job = Job(COUNT, 1000)
job.run(10)
stop = threading.Event()
other = Job(COUNT, 1000)
def load():
    while not stop.is_set():
        other.run()
caller = threading.Thread(target=load)
caller.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        first = pool().live
        job.run(5)                      # alone: no thread has been started yet
        pool().ensure()
        job.run(5)
        good = first == 0 and pool().live == 2 and get_num_threads() == 3 and (job.data == 20).all()
        os._exit(0 if good else 3)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
stop.set()
caller.join()
job.run(10)
assert (job.data == 20).all() and pool().live == 2
"""

FORK_AND_GROW = """
import os
from graphc.runtime import pool as module
mapped, wrong, real = {}, [], (module.map_pages, module.unmap_pages)
def map_pages(nbytes):
    address = real[0](nbytes)
    mapped[address] = nbytes
    return address
def unmap_pages(address, nbytes):
    wrong.extend([nbytes] if mapped.pop(address) != nbytes else [])
    real[1](address, nbytes)
module.map_pages, module.unmap_pages = map_pages, unmap_pages
module.set_num_threads(2)
module.pool().reserve_scratch(4096)
module.pool().ensure()
child = os.fork()
if child == 0:
    module.pool().reserve_scratch(1 << 20)
    module.pool().ensure()
    os._exit(3 if wrong or sorted(mapped.values())[-1] != 1 << 20 else 0)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
"""

EXIT = """
import threading, sys
from tests.test_runtime_pool import BUSY, Job, pool, set_num_threads
set_num_threads(4)
pool().ensure()
job = Job(BUSY, 64)
job.run()
threading.Thread(target=job.run, args=(100000,), daemon=True).start()
"""


FIRST_CALLS = """
import sys, threading
from graphc.runtime.code import library
from graphc.runtime.driver import native
from graphc.runtime.pool import pool
sys.setswitchinterval(1e-6)
for first in (library, native, pool):
    found, barrier = [], threading.Barrier(8)
    def call():
        barrier.wait()
        found.append(first())
    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 8 and all(x is found[0] for x in found), first
"""


def run_python(code: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_fork_with_a_running_pool() -> None:
    run_python(FORK)


def test_threads_that_call_first_share_what_is_made() -> None:
    run_python(FIRST_CALLS)


def test_scratch_that_grows_in_a_child_leaves_other_memory_alone() -> None:
    run_python(FORK_AND_GROW)


def test_exit_with_threads_asleep_spinning_and_working() -> None:
    for _ in range(3):
        run_python(EXIT)
