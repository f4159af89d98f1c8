"""The threads that kernels share. Python starts and counts them; the work itself is native (runtime/pool_ir.py).

No thread starts before the first graph that needs one. Threads block the signals a program may handle, hold no Python
state and touch only memory that is never unmapped, so the interpreter may end at any moment. A forked child starts
without threads and gets its own at its first need.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
import threading
import time

from graphc.config import config
from graphc.errors import ArgumentError
from graphc.runtime import pool_ir
from graphc.runtime.code import once
from graphc.runtime.driver import native
from graphc.runtime.memory import libc, map_pages, unmap_pages, whole_pages

MAX_THREADS = 256
# about 200 µs: longer than the gaps within a graph (waking a thread takes 50 to 150 µs), short beside a time slice
SPINS = 10_000
_STOP_SECONDS = 5.0
_PAGE_BYTES = pool_ir.RECORDS + pool_ir.RECORD_BYTES * MAX_THREADS
_COUNTS = (pool_ir.REMAINING, pool_ir.PENDING, pool_ir.SLEEPERS, pool_ir.LOCK, pool_ir.WAITING, pool_ir.LIVE)
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP}


class Pool:
    """The pool of this process. `page` is what native code is given; `ready` is False until the threads are started."""

    def __init__(self, threads: int) -> None:
        self.ready = False
        self.spins = SPINS  # of idle threads before they sleep
        self._threads = min(max(threads, 1), MAX_THREADS)
        self._lock = threading.Lock()
        self._scratch_bytes = 0
        self.page = map_pages(_PAGE_BYTES)
        self._word(pool_ir.SYSCALL).value = ctypes.cast(libc().syscall, ctypes.c_void_p).value or 0

    @property
    def threads(self) -> int:
        """Threads that work on one kernel, the caller included."""
        return self._threads

    @property
    def live(self) -> int:
        """Threads that exist besides the callers."""
        return self._count(pool_ir.LIVE).value

    def ensure(self) -> None:
        """Start the threads if that has not been done in this process."""
        with self._lock:
            if not self.ready:
                self._word(pool_ir.SPINS).value = self.spins if self._threads <= _cores() else 0
                self._resize()
                self.ready = True

    def set_threads(self, threads: int) -> None:
        """Change the number of threads, the caller included. Raises ArgumentError."""
        if not 1 <= threads <= MAX_THREADS:
            raise ArgumentError(f"set_num_threads: expected 1 to {MAX_THREADS} threads, got {threads}")
        with self._lock:
            self._threads = threads
            if self.ready:
                self._word(pool_ir.SPINS).value = self.spins if threads <= _cores() else 0
                self._resize()

    def reserve_scratch(self, nbytes: int) -> None:
        """Give every thread at least `nbytes` of scratch memory."""
        if nbytes <= self._scratch_bytes:
            return
        with self._lock:
            grown = whole_pages(1 << (nbytes - 1).bit_length())
            if grown <= self._scratch_bytes:
                return
            if self.ready:
                self._exclusively(functools.partial(self._replace_scratch, grown))
            self._scratch_bytes = grown

    def forget_threads(self) -> None:
        """In a forked child: the threads are gone, and another thread's job with them."""
        self._lock = threading.Lock()
        for offset in _COUNTS:
            self._count(offset).value = 0
        self._word(pool_ir.LIMIT).value = 0
        self.ready = False

    def _word(self, offset: int) -> ctypes.c_int64:
        return ctypes.c_int64.from_address(self.page + offset)

    def _count(self, offset: int) -> ctypes.c_int32:
        return ctypes.c_int32.from_address(self.page + offset)

    def _record(self, index: int) -> ctypes.Array[ctypes.c_int64]:
        return (ctypes.c_int64 * 4).from_address(self.page + pool_ir.RECORDS + pool_ir.RECORD_BYTES * (index - 1))

    def _exclusively(self, change: functools.partial[None]) -> None:
        """Do `change` while no job runs; callers meanwhile run alone."""
        while not native().try_lock(self.page):
            time.sleep(1e-4)
        try:
            change()
        finally:
            native().unlock(self.page)

    def _resize(self) -> None:
        others = self._threads - 1 if sys.platform == "linux" else 0
        self._exclusively(functools.partial(self._set_limit, others))

    def _set_limit(self, others: int) -> None:
        limit = self._word(pool_ir.LIMIT)
        before, limit.value = limit.value, others
        if others < before:
            self._await_leavers(others)
        for index in range(before + 1, others + 1):
            if not self._start(index):
                limit.value = index - 1
                break

    def _await_leavers(self, others: int) -> None:
        deadline = time.monotonic() + _STOP_SECONDS
        while self.live > others and time.monotonic() < deadline:
            native().wake_all(self.page)  # again and again: a thread may have been on its way to sleep
            time.sleep(1e-4)
        for index in range(others + 1, MAX_THREADS + 1):
            self._set_scratch(index, 0)

    def _start(self, index: int) -> bool:
        record = self._record(index)
        record[0], record[1] = self.page, index
        self._set_scratch(index, self._scratch_bytes)
        self._count(pool_ir.LIVE).value += 1  # safe without an atomic: nobody leaves while the limit grows
        thread = ctypes.c_uint64()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULTS)
        try:
            entry = ctypes.c_void_p(native().worker)
            failed = libc().pthread_create(ctypes.byref(thread), None, entry, ctypes.c_void_p(ctypes.addressof(record)))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if failed:
            self._count(pool_ir.LIVE).value -= 1
            import logging

            logging.getLogger("graphc.pool").warning("cannot start thread %d: %s", index, os.strerror(failed))
            return False
        libc().pthread_detach(thread)
        return True

    def _replace_scratch(self, nbytes: int) -> None:
        for index in range(1, self._word(pool_ir.LIMIT).value + 1):
            self._set_scratch(index, nbytes)

    def _set_scratch(self, index: int, nbytes: int) -> None:
        record = self._record(index)
        old, size = record[2], record[3]
        record[2], record[3] = map_pages(nbytes) if nbytes else 0, nbytes
        if old:
            unmap_pages(old, size)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@once
def pool() -> Pool:
    """The pool of this process."""
    made = Pool(config.num_threads)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=made.forget_threads)
    return made


def set_num_threads(threads: int) -> None:
    """Let kernels use `threads` threads, the calling one included; results do not change. Raises ArgumentError."""
    pool().set_threads(threads)


def get_num_threads() -> int:
    """The number of threads kernels may use, the calling one included."""
    return pool().threads
