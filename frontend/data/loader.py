"""DataLoader: batches of a data set, in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

from graphc.errors import ArgumentError
from graphc.frontend.data.collate import Collate, default_collate, default_convert
from graphc.frontend.data.dataset import IterableDataset, Subset, TensorDataset
from graphc.frontend.data.sampler import BatchSampler, RandomSampler, SequentialSampler
from graphc.frontend.random import Generator, use_generator
from graphc.frontend.random_tensors import randint

__all__ = ["DataLoader", "get_worker_info"]

_worker = threading.local()


class DataLoader:
    """Iterates over batches of a data set.

    `num_workers` > 0 loads ahead in as many threads: batches keep their order, an error is raised where its batch is
    due, and random numbers drawn while loading come from a generator of the batch, so that they do not depend on the
    threads. `pin_memory`, `timeout`, `persistent_workers` and `multiprocessing_context` are accepted without effect.
    Raises ArgumentError for settings that exclude each other.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Collate | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
    ) -> None:
        if not isinstance(num_workers, int) or num_workers < 0:
            raise ArgumentError("DataLoader: num_workers should be a non-negative int; 0 loads in the calling thread")
        if sampler is not None and shuffle:
            raise ArgumentError("DataLoader: sampler option is mutually exclusive with shuffle")
        _check_batching(batch_size, shuffle, sampler, batch_sampler, drop_last)
        stream = isinstance(dataset, IterableDataset)
        if stream and (shuffle or sampler is not None or batch_sampler is not None):
            raise ArgumentError("DataLoader: an IterableDataset has no order to choose: leave out shuffle and samplers")
        self.dataset, self.num_workers, self.generator = dataset, num_workers, generator
        self.pin_memory, self.timeout, self.worker_init_fn = pin_memory, timeout, worker_init_fn
        self.prefetch_factor, self.persistent_workers = prefetch_factor, persistent_workers
        if sampler is None and not stream:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        if batch_size is not None and batch_sampler is None and sampler is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        elif batch_sampler is not None:
            batch_size, drop_last = None, False
        self.batch_size, self.drop_last = batch_size, drop_last
        self.sampler, self.batch_sampler = sampler, batch_sampler
        batched = batch_sampler is not None or batch_size is not None
        self.collate_fn: Collate = collate_fn or (default_collate if batched else default_convert)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.dataset, IterableDataset):
            return self._stream()
        if self.num_workers:
            return self._ahead()
        return map(self._load, self._indices())

    def __len__(self) -> int:
        if isinstance(self.dataset, IterableDataset):
            count = len(self.dataset)  # type: ignore[arg-type]
            if self.batch_size is None:
                return count
            return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
        return len(self._indices())  # type: ignore[arg-type]

    def _indices(self) -> Iterable[Any]:
        """Lists of indices, or single ones where batches are switched off."""
        found = self.sampler if self.batch_sampler is None else self.batch_sampler
        assert found is not None
        return found

    def _load(self, indices: Any) -> Any:
        if self.batch_sampler is None:
            return self.collate_fn(self.dataset[indices])
        if self.collate_fn is default_collate:
            quick = _quick_batch(self.dataset, indices)
            if quick is not None:
                return quick
        many = getattr(self.dataset, "__getitems__", None)
        return self.collate_fn(many(indices) if callable(many) else [self.dataset[i] for i in indices])

    def _stream(self) -> Iterator[Any]:
        samples = iter(self.dataset)
        if self.batch_size is None:
            yield from map(self.collate_fn, samples)
            return
        while batch := list(islice(samples, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield self.collate_fn(batch)

    def _ahead(self) -> Iterator[Any]:
        base = int(randint(0, 2**63 - 1, (1,), generator=self.generator).numpy()[0])
        jobs: deque[Future[Any]] = deque()
        limit = self.num_workers * (self.prefetch_factor or 2)
        with ThreadPoolExecutor(self.num_workers, "graphc-loader", _start_worker, (self, iter(range(2**62)))) as pool:
            try:
                for number, indices in enumerate(self._indices()):
                    jobs.append(pool.submit(self._load_seeded, indices, base + number))
                    if len(jobs) == limit:
                        yield jobs.popleft().result()
                while jobs:
                    yield jobs.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _load_seeded(self, indices: Any, seed: int) -> Any:
        with use_generator(Generator().manual_seed(seed % 2**63)):
            return self._load(indices)


def _check_batching(
    batch_size: int | None, shuffle: bool | None, sampler: Any, batch_sampler: Any, drop_last: bool
) -> None:
    if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
        raise ArgumentError(
            "DataLoader: batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
        )
    if batch_size is None and drop_last:
        raise ArgumentError("DataLoader: drop_last needs a batch_size")
    if batch_size is not None and (not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0):
        raise ArgumentError(
            f"DataLoader: batch_size should be a positive integer value, but got batch_size={batch_size!r}"
        )


def _quick_batch(dataset: Any, indices: Any) -> list[Any] | None:
    """A batch of a TensorDataset (or of a Subset of one) by one index operation a tensor."""
    if type(dataset) is Subset:
        return _quick_batch(dataset.dataset, [dataset.indices[i] for i in indices])
    return dataset.take(indices) if type(dataset) is TensorDataset else None


class WorkerInfo(NamedTuple):
    """The thread that is loading: its number, how many there are, the data set."""

    id: int
    num_workers: int
    dataset: Any


def _start_worker(loader: DataLoader, numbers: Iterator[int]) -> None:
    number = next(numbers)
    _worker.info = WorkerInfo(number, loader.num_workers, loader.dataset)
    if loader.worker_init_fn is not None:
        loader.worker_init_fn(number)


def get_worker_info() -> WorkerInfo | None:
    """What is known of the loading thread; None in the thread of the program."""
    return getattr(_worker, "info", None)
