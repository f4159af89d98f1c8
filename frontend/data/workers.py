"""Processes that load batches ahead.

They are forked where the system can fork, as in PyTorch: data sets may be local classes and hold lambdas, and nothing
of theirs is copied. graphc is ready for it: its locks are free in the child and its native threads start anew there
(runtime/pool.py). `multiprocessing_context` chooses "spawn" or "forkserver" for data sets whose own threads are not.

Each worker has one pipe. Batch k goes to worker k modulo their number, so results come in order without sorting, and
a worker that blocks on a full pipe still takes in the indices of its next batches on a thread of its own.
"""

from __future__ import annotations

import multiprocessing
import queue
import random
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphc.errors import ArgumentError
from graphc.frontend.random import Generator, use_generator
from graphc.frontend.threads import set_num_threads

if TYPE_CHECKING:
    from graphc.frontend.data.loader import DataLoader

__all__ = ["WorkerInfo", "Workers", "get_worker_info"]

_STOP_SECONDS = 5.0


class WorkerInfo(NamedTuple):
    """The process that is loading: its number, how many there are, its seed, its copy of the data set."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """What is known of the loading process; None in the process of the program."""
    return _info


class _End(NamedTuple):
    """A stream has no more samples."""


_END = _End()


class _Failure(NamedTuple):
    """An error of a worker: its class, and its text with the worker's traceback."""

    kind: type[BaseException]
    text: str


def _failure(number: int, error: BaseException) -> _Failure:
    where = f"Caught {type(error).__name__} in DataLoader worker process {number}."
    return _Failure(type(error), f"{where}\nOriginal {''.join(traceback.format_exception(error))}")


def _raise(failure: _Failure) -> None:
    """Raise the worker's error here: of its class where that can be made of a text."""
    try:
        error = failure.kind(failure.text)
    except Exception:
        raise RuntimeError(failure.text) from None
    raise error


# ---------------------------------------------------------------- in the worker


def _work(loader: DataLoader, number: int, pipe: Connection, others: tuple[Connection, ...]) -> None:
    """The life of a worker: epochs, and in each of them batches until there is nothing to do."""
    for end in others:  # ends of the program's own, which a fork has copied: a pipe closes when all of them do
        end.close()
    set_num_threads(1)
    todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, todo), daemon=True).start()
    stream: Iterator[Any] | None = None
    broken: _Failure | None = None
    try:
        while (job := todo.get()) is not None:
            kind, given = job
            if kind == "epoch":
                stream, broken = None, _begin(loader, number, given)
            elif broken is not None:
                pipe.send(broken)
            elif loader.streams:
                stream = loader.stream() if stream is None else stream
                _answer(pipe, number, given[0], partial(next, stream, _END))
            else:
                _answer(pipe, number, given[0], partial(loader.load, given[1]))
    except (BrokenPipeError, ConnectionError, KeyboardInterrupt):
        return  # the program has gone, or wants no more


def _listen(pipe: Connection, todo: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            todo.put(pipe.recv())
    except (EOFError, OSError):
        todo.put(None)


def _begin(loader: DataLoader, number: int, base: int) -> _Failure | None:
    """Seeds for an epoch, and at the first one the user's own start."""
    global _info
    first, seed = _info is None, (base + number) % 2**63
    random.seed(seed)
    np.random.seed(np.random.SeedSequence([base, number]).generate_state(4))
    _info = WorkerInfo(number, loader.num_workers, seed, loader.dataset)
    if not first or loader.worker_init_fn is None:
        return None
    try:
        loader.worker_init_fn(number)
    except Exception as error:
        return _failure(number, error)
    return None


def _answer(pipe: Connection, number: int, seed: int, load: Callable[[], Any]) -> None:
    """Send what `load` gives, or its error. A result that cannot be sent is an error, too."""
    try:
        with use_generator(Generator().manual_seed(seed % 2**63)):
            made = load()
        pipe.send((made,))
    except (BrokenPipeError, ConnectionError):
        raise
    except Exception as error:
        found = _failure(number, error)
        try:
            pipe.send(found)
        except (TypeError, AttributeError, ValueError):  # a class of the user's that cannot be sent
            pipe.send(_Failure(RuntimeError, found.text))


# ---------------------------------------------------------------- in the program


class _Worker:
    def __init__(self, context: Any, loader: DataLoader, number: int, others: list[Connection]) -> None:
        self.pipe, theirs = context.Pipe()
        inherited = (*others, self.pipe) if context.get_start_method() == "fork" else ()
        self.process = context.Process(target=_work, args=(loader, number, theirs, inherited), daemon=True)
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads; ours are native and hold no lock (see the top of this file)
            warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
            self.process.start()
        theirs.close()


class Workers:
    """The processes of one loader: `run` gives the batches of an epoch, in order."""

    def __init__(self, loader: DataLoader) -> None:
        context = loader.multiprocessing_context
        if context is None:
            context = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
        if isinstance(context, str):
            if context not in multiprocessing.get_all_start_methods():
                raise ArgumentError(
                    "DataLoader: multiprocessing_context should be one of "
                    f"{', '.join(multiprocessing.get_all_start_methods())}, got {context!r}"
                )
            context = multiprocessing.get_context(context)
        self.timeout = loader.timeout or None
        self.most = loader.prefetch_factor or 2
        self.workers: list[_Worker] = []
        for number in range(loader.num_workers):
            self.workers.append(_Worker(context, loader, number, [w.pipe for w in self.workers]))

    def run(self, base: int, indices: Iterable[Any]) -> Iterator[Any]:
        """Batches for `indices`, up to `prefetch_factor` a worker ahead; `base` is the seed of the epoch."""
        for worker in self.workers:
            worker.pipe.send(("epoch", base))
        jobs = ((base + k, given) for k, given in enumerate(indices))
        active, due = deque(self.workers), deque[_Worker]()

        def more() -> None:
            job = next(jobs, None) if active else None
            if job is not None:
                self._send(active[0], ("load", job))
                due.append(active[0])
                active.rotate(-1)

        for _ in range(self.most * len(self.workers)):
            more()
        while due:
            worker = due.popleft()
            answer = self._receive(worker)
            if isinstance(answer, _Failure):
                more()
                _raise(answer)
            elif isinstance(answer[0], _End):
                if worker in active:
                    active.remove(worker)
                more()
            else:
                more()
                yield answer[0]

    def _send(self, worker: _Worker, job: Any) -> None:
        try:
            worker.pipe.send(job)
        except (BrokenPipeError, ConnectionError):
            self._died(worker)

    def _receive(self, worker: _Worker) -> Any:
        try:
            if not worker.pipe.poll(self.timeout):
                raise TimeoutError(f"DataLoader timed out after {self.timeout} seconds")
            return worker.pipe.recv()
        except (EOFError, ConnectionError):
            self._died(worker)

    def _died(self, worker: _Worker) -> None:
        worker.process.join(1.0)
        raise RuntimeError(
            f"DataLoader worker (pid {worker.process.pid}) exited unexpectedly with exit code "
            f"{worker.process.exitcode}; run with num_workers=0 to see why"
        ) from None

    def close(self) -> None:
        """End the processes."""
        for worker in self.workers:
            worker.pipe.close()
        for worker in self.workers:
            worker.process.join(0.05)
            if worker.process.is_alive():
                worker.process.terminate()
            worker.process.join(_STOP_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.process.close()
        self.workers = []
