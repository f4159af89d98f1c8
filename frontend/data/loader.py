"""DataLoader: batches of a data set, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, repeat
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.data.collate import Collate, default_collate, default_convert
from graphc.frontend.data.dataset import IterableDataset, Subset, TensorDataset
from graphc.frontend.data.sampler import BatchSampler, RandomSampler, SequentialSampler
from graphc.frontend.data.workers import Workers, get_worker_info
from graphc.frontend.random import Generator
from graphc.frontend.random_tensors import randint

__all__ = ["DataLoader", "get_worker_info"]


class DataLoader:
    """Iterates over batches of a data set.

    `num_workers` > 0 loads ahead in as many processes, up to `prefetch_factor` (2) batches each: batches keep their
    order, an error is raised where its batch is due, with the worker's traceback, and numbers that graphc draws while
    loading come from a generator of the batch, so that they do not depend on the processes. Python's and NumPy's are
    seeded for each worker; `get_worker_info()` tells a stream which part is its own. `worker_init_fn(number)` runs in
    each worker first; `persistent_workers` keeps them for the next epoch; `timeout` bounds the wait for a batch.
    `multiprocessing_context` is "fork" (where there is one), "spawn" or "forkserver". `pin_memory` is accepted without
    effect: there is no device to copy to. Raises ArgumentError for settings that exclude each other.
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
        in_order: bool = True,
    ) -> None:
        if not isinstance(num_workers, int) or num_workers < 0:
            raise ArgumentError("DataLoader: num_workers should be a non-negative int; 0 loads in the calling thread")
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers, multiprocessing_context)
        if sampler is not None and shuffle:
            raise ArgumentError("DataLoader: sampler option is mutually exclusive with shuffle")
        _check_batching(batch_size, shuffle, sampler, batch_sampler, drop_last)
        stream = isinstance(dataset, IterableDataset)
        if stream and (shuffle or sampler is not None or batch_sampler is not None):
            raise ArgumentError("DataLoader: an IterableDataset has no order to choose: leave out shuffle and samplers")
        needed = ("__getitem__",) if sampler is not None or batch_sampler is not None else ("__getitem__", "__len__")
        missing = [method for method in needed if not stream and not hasattr(dataset, method)]
        if missing:
            raise ArgumentError(
                f"DataLoader: dataset is a {type(dataset).__name__} without {missing[0]}; give a sequence, a Dataset "
                "or an IterableDataset"
            )
        self.dataset, self.num_workers, self.generator = dataset, num_workers, generator
        self.pin_memory, self.timeout, self.worker_init_fn = pin_memory, timeout, worker_init_fn
        self.prefetch_factor, self.persistent_workers = prefetch_factor, persistent_workers
        self.multiprocessing_context, self.in_order = multiprocessing_context, in_order
        self._workers: Workers | None = None
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
        if self.num_workers:
            return self._ahead()
        return self.stream() if self.streams else map(self.load, self._indices())

    @property
    def streams(self) -> bool:
        """Whether the data set is a stream."""
        return isinstance(self.dataset, IterableDataset)

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

    def load(self, indices: Any) -> Any:
        """The batch of these indices."""
        if self.batch_sampler is None:
            return self.collate_fn(self.dataset[indices])
        if self.collate_fn is default_collate:
            quick = _quick_batch(self.dataset, indices)
            if quick is not None:
                return quick
        many = getattr(self.dataset, "__getitems__", None)
        return self.collate_fn(many(indices) if callable(many) else [self.dataset[i] for i in indices])

    def stream(self) -> Iterator[Any]:
        """The batches of a stream."""
        samples = iter(self.dataset)
        if self.batch_size is None:
            yield from map(self.collate_fn, samples)
            return
        while batch := list(islice(samples, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield self.collate_fn(batch)

    def _ahead(self) -> Iterator[Any]:
        base = int(randint(0, 2**63 - 1, (1,), generator=self.generator).numpy()[0])
        workers, self._workers = self._workers or Workers(self), None  # a second pass meanwhile gets its own
        finished = False
        try:
            yield from workers.run(base, repeat(None) if self.streams else self._indices())
            finished = True
        finally:
            if finished and self.persistent_workers and self._workers is None:
                self._workers = workers
            else:
                workers.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_workers": None}  # processes stay where they are

    def __del__(self) -> None:
        if self.__dict__.get("_workers") is not None:
            self._workers.close()  # type: ignore[union-attr]


def _check_workers(count: int, timeout: float, prefetch: int | None, persistent: bool, context: Any) -> None:
    if timeout < 0:
        raise ArgumentError("DataLoader: timeout option should be non-negative")
    if prefetch is not None and (not isinstance(prefetch, int) or prefetch < 1):
        raise ArgumentError(f"DataLoader: prefetch_factor should be a positive int, got {prefetch!r}")
    if count == 0 and (prefetch is not None or persistent or context is not None or timeout):
        raise ArgumentError(
            "DataLoader: prefetch_factor, persistent_workers, multiprocessing_context and timeout need num_workers > 0"
        )


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
