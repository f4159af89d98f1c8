"""Data sets, samplers, collation and the loader."""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import ArgumentError, IndexingError, ShapeError, UnsupportedError
from graphc.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
    random_split,
)

Point = namedtuple("Point", "x y")


class Squares(Dataset):
    """(i, i * i) for i below a size."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[int, graphc.Tensor]:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return index, graphc.tensor(float(index * index))


def order(loader: DataLoader) -> list[int]:
    """The first item of every sample, in the order they come."""
    return [int(i) for batch in loader for i in batch[0].tolist()]


# ---------------------------------------------------------------- data sets


def test_tensor_dataset() -> None:
    x, y = graphc.arange(12).reshape(6, 2), graphc.arange(6)
    data = TensorDataset(x, y)
    assert len(data) == 6 and data[2][0].tolist() == [4, 5] and data[-1][1].item() == 5
    assert [t.tolist() for t in data[1:3]] == [[[2, 3], [4, 5]], [1, 2]]
    with pytest.raises(IndexingError):
        data.take([0, 6])
    for bad in ((), (x, graphc.zeros(5)), (graphc.zeros(()),)):
        with pytest.raises((ArgumentError, ShapeError)):
            TensorDataset(*bad)


def test_subset_and_concat() -> None:
    both = Squares(3) + Squares(4)
    assert isinstance(both, ConcatDataset) and len(both) == 7
    assert [both[k][0] for k in (0, 2, 3, 6, -1, -7)] == [0, 2, 0, 3, 3, 0]
    with pytest.raises(IndexError):
        _ = both[7]
    part = Subset(both, [6, 1])
    assert len(part) == 2 and [p[0] for p in part] == [3, 1]
    assert [i for i, _ in Squares(3)] == [0, 1, 2], "a data set iterates until its IndexError"
    with pytest.raises(ArgumentError):
        ConcatDataset([])


def test_random_split() -> None:
    parts = random_split(Squares(10), [7, 3], graphc.Generator().manual_seed(5))
    again = random_split(Squares(10), [7, 3], graphc.Generator().manual_seed(5))
    assert [p.indices for p in parts] == [p.indices for p in again] and parts[0].indices != list(range(7))
    assert sorted(i for p in parts for i in p.indices) == list(range(10))
    assert [len(p) for p in random_split(Squares(10), [0.5, 0.25, 0.25])] == [6, 2, 2]
    for lengths in ([5, 4], [-1, 11], [0.5, 0.2], [1.5, -0.5]):
        with pytest.raises(ArgumentError):
            random_split(Squares(10), lengths)


# ---------------------------------------------------------------- samplers


def test_samplers() -> None:
    data = Squares(8)
    assert list(SequentialSampler(data)) == list(range(8)) and len(SequentialSampler(data)) == 8
    graphc.manual_seed(3)
    first, second = list(RandomSampler(data)), list(RandomSampler(data))
    assert sorted(first) == list(range(8)) and first != second
    graphc.manual_seed(3)
    assert list(RandomSampler(data)) == first
    assert len(list(RandomSampler(data, num_samples=19))) == 19
    drawn = list(RandomSampler(data, replacement=True, num_samples=200))
    assert len(drawn) == 200 and set(drawn) == set(range(8))
    assert sorted(SubsetRandomSampler([5, 6, 7])) == [5, 6, 7]
    counts = Counter(WeightedRandomSampler([1.0, 0.0, 3.0], 2000))
    assert set(counts) == {0, 2} and 2.3 < counts[2] / counts[0] < 4.0
    assert sorted(WeightedRandomSampler([1.0, 2.0, 3.0], 3, replacement=False)) == [0, 1, 2]
    assert list(BatchSampler(SequentialSampler(data), 3)) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert list(BatchSampler(range(8), 3, drop_last=True)) == [[0, 1, 2], [3, 4, 5]]
    assert [len(BatchSampler(range(8), 3, drop)) for drop in (False, True)] == [3, 2]
    for call in (
        lambda: BatchSampler(data, 0),
        lambda: BatchSampler(data, 2, 1),  # type: ignore[arg-type]
        lambda: RandomSampler(data, num_samples=-1),
        lambda: WeightedRandomSampler([1.0], 0),
        lambda: WeightedRandomSampler([[1.0]], 1),  # type: ignore[list-item]
    ):
        with pytest.raises(ArgumentError):
            call()


# ---------------------------------------------------------------- collation


def test_collate() -> None:
    samples = [
        {"a": graphc.ones(2), "n": k, "f": 0.5, "b": True, "s": "x", "p": Point(k, [k, 2.0]), "v": np.float32(k)}
        for k in range(3)
    ]
    batch = default_collate(samples)
    assert batch["a"].shape == (3, 2) and batch["n"].tolist() == [0, 1, 2] and batch["n"].dtype is graphc.int64
    assert batch["f"].dtype is graphc.float64 and batch["b"].dtype is graphc.bool and batch["s"] == ["x"] * 3
    assert isinstance(batch["p"], Point) and batch["p"].y[1].tolist() == [2.0] * 3
    assert batch["v"].dtype is graphc.float32
    pair = default_collate([(1, np.zeros(2)), (2, np.ones(2))])
    assert isinstance(pair, list) and pair[0].tolist() == [1, 2] and pair[1].tolist() == [[0, 0], [1, 1]]
    with pytest.raises(ShapeError, match="equal"):
        default_collate([graphc.ones(2), graphc.ones(3)])
    with pytest.raises(ShapeError):
        default_collate([[1], [1, 2]])
    with pytest.raises(TypeError, match="found object"):
        default_collate([object()])
    w = graphc.ones(2, requires_grad=True)
    default_collate([w, w * 2]).sum().backward()
    assert w.grad.tolist() == [3.0, 3.0], "gradients flow through a batch"


def test_a_batch_is_a_copy() -> None:
    x = graphc.zeros(4)
    for (batch,) in DataLoader(TensorDataset(x), batch_size=2):
        batch.fill_(1.0)
    assert not x.any()


# ---------------------------------------------------------------- loader


@pytest.mark.parametrize("workers", [0, 3])
def test_batches(workers: int) -> None:
    loader = DataLoader(Squares(7), batch_size=3, num_workers=workers)
    batches = list(loader)
    assert len(loader) == 3 and [b[0].tolist() for b in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert batches[1][1].tolist() == [9.0, 16.0, 25.0]
    dropped = DataLoader(Squares(7), batch_size=3, drop_last=True, num_workers=workers)
    assert len(dropped) == 2 and order(dropped) == list(range(6))
    assert order(DataLoader(Squares(3), batch_sampler=[[2, 0], [1]], num_workers=workers)) == [2, 0, 1]
    assert order(DataLoader(Squares(5), batch_size=2, sampler=[4, 2, 0], num_workers=workers)) == [4, 2, 0]
    single = list(DataLoader(Squares(3), batch_size=None, num_workers=workers))
    assert [s[0] for s in single] == [0, 1, 2]
    assert list(DataLoader(Squares(4), 2, collate_fn=len, num_workers=workers)) == [2, 2]


@pytest.mark.parametrize(
    "data", [Squares(20), TensorDataset(graphc.arange(20)), Subset(TensorDataset(graphc.arange(20)), range(20))]
)
def test_shuffle_is_reproducible(data: Any) -> None:
    def once(**settings: Any) -> list[int]:
        return order(DataLoader(data, batch_size=6, shuffle=True, **settings))

    graphc.manual_seed(1)
    first, second = once(), once()
    assert sorted(first) == list(range(20)) and first != second
    graphc.manual_seed(1)
    assert (once(), once()) == (first, second)
    state = graphc.get_rng_state().tolist()
    assert once(generator=graphc.Generator().manual_seed(2)) == once(generator=graphc.Generator().manual_seed(2))
    assert graphc.get_rng_state().tolist() == state, "a generator of its own leaves the default one alone"


def test_the_quick_path_agrees() -> None:
    x, y = graphc.randn(11, 3), graphc.arange(11)

    class Slow(TensorDataset):
        pass

    for dataset in (Subset(TensorDataset(x, y), [7, 3, 3, 9, 0]), TensorDataset(x, y)):
        slow: Any = Subset(Slow(x, y), dataset.indices) if isinstance(dataset, Subset) else Slow(x, y)
        for quick, plain in zip(DataLoader(dataset, 3), DataLoader(slow, 3), strict=True):
            assert type(quick) is type(plain) is list
            assert all(graphc.equal(a, b) and a.dtype is b.dtype for a, b in zip(quick, plain, strict=True))


def test_many_at_once() -> None:
    class Many(Squares):
        def __getitems__(self, indices: list[int]) -> list[tuple[int, int]]:
            return [(i, -i) for i in indices]

    assert [b[1].tolist() for b in DataLoader(Many(4), 2)] == [[0, -1], [-2, -3]]


def test_streams() -> None:
    class Count(IterableDataset):
        def __iter__(self) -> Iterator[int]:
            return iter(range(5))

    assert [b.tolist() for b in DataLoader(Count(), 2)] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in DataLoader(Count(), 2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(DataLoader(Count(), None)) == [0, 1, 2, 3, 4]
    with pytest.raises(ArgumentError):
        DataLoader(Count(), shuffle=True)
    with pytest.raises(UnsupportedError):
        _ = Count()[0]


def test_workers_load_in_other_processes() -> None:
    """Batches in order, whichever is ready first; seeds and numbers of the workers; their own start."""

    class Where(Squares):
        mark = 0

        def __getitem__(self, index: int) -> Any:
            time.sleep(0.002 * (index % 3))  # later batches may be ready first
            info = get_worker_info()
            assert info is not None and info.dataset is self
            known = info.id, info.num_workers, info.seed
            return index, os.getpid(), *known, self.mark, random.random(), np.random.rand()

    def start(number: int) -> None:
        info = get_worker_info()
        assert info is not None
        info.dataset.mark = 10 + number

    loader = DataLoader(Where(12), batch_size=1, num_workers=3, worker_init_fn=start)
    batches = [[x.item() for x in b] for b in loader]
    assert [b[0] for b in batches] == list(range(12)) and [b[2] for b in batches] == [0, 1, 2] * 4
    assert len({b[1] for b in batches}) == 3 and os.getpid() not in {b[1] for b in batches}
    assert {b[3] for b in batches} == {3} and [b[5] for b in batches] == [10, 11, 12] * 4
    seeds = [b[4] for b in batches[:3]]
    assert seeds == [seeds[0], seeds[0] + 1, seeds[0] + 2] and get_worker_info() is None
    assert len({b[6] for b in batches}) == len({b[7] for b in batches}) == 12
    graphc.manual_seed(3)
    first = [[b[6].item(), b[7].item()] for b in loader]
    graphc.manual_seed(3)
    assert first == [[b[6].item(), b[7].item()] for b in loader]


def test_workers_compute() -> None:
    """A forked worker runs kernels, with more than one thread in the program."""

    class Sums(Squares):
        def __getitem__(self, index: int) -> Any:
            return (graphc.ones(300, 300) * index).sum()

    assert graphc.ones(500, 500).sum().item() == 250000  # the program's threads exist
    found = graphc.cat(list(DataLoader(Sums(4), num_workers=2)))
    assert found.tolist() == [0.0, 90000.0, 180000.0, 270000.0]


class Part(IterableDataset):
    """Every n-th number below 10, for n workers; the last worker has one more batch."""

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        step, first = (1, 0) if info is None else (info.num_workers, info.id)
        yield from range(first, 10, step)


def test_streams_in_workers() -> None:
    """Each worker runs through its copy; the ones that end first are left out."""
    assert [b.tolist() for b in DataLoader(Part(), 2, num_workers=3)] == [[0, 3], [1, 4], [2, 5], [6, 9], [7], [8]]
    whole = DataLoader(Part(), 2, num_workers=3, drop_last=True)
    assert [b.tolist() for b in whole] == [[0, 3], [1, 4], [2, 5], [6, 9]]
    assert list(DataLoader(Part(), None, num_workers=2)) == list(range(10))


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_ways_to_start_workers(context: str) -> None:
    data = TensorDataset(graphc.arange(10))
    loader = DataLoader(data, 5, num_workers=1, multiprocessing_context=context, prefetch_factor=1)
    assert [b[0].tolist() for b in loader] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_persistent_workers() -> None:
    """The same processes serve every epoch; one left early is not used again."""

    class Pids(Squares):
        def __getitem__(self, index: int) -> Any:
            return os.getpid(), index

    loader = DataLoader(Pids(4), None, num_workers=2, persistent_workers=True)
    first = list(loader)
    assert list(loader) == first and [k for _, k in first] == [0, 1, 2, 3]
    next(iter(loader))
    assert [k for _, k in loader] == [0, 1, 2, 3]
    fresh = DataLoader(Pids(4), None, num_workers=2)
    assert {p for p, _ in fresh}.isdisjoint({p for p, _ in fresh})


def test_workers_that_fail() -> None:
    """Errors of every kind come out as errors of the program, and it never hangs."""

    class Odd(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(a, b)

    class Bad(Squares):
        kind = ""

        def __getitem__(self, index: int) -> Any:
            if self.kind == "exit":
                os._exit(3)
            if self.kind == "sleep":
                time.sleep(60)
            if self.kind == "odd":
                raise Odd(1, 2)
            return threading.Lock()  # cannot be sent

    def run(kind: str, **settings: Any) -> None:
        data = Bad(2)
        data.kind = kind
        list(DataLoader(data, None, num_workers=1, **settings))

    with pytest.raises(RuntimeError, match="exited unexpectedly with exit code 3"):
        run("exit")
    with pytest.raises(TimeoutError, match=r"timed out after 0\.1 seconds"):
        run("sleep", timeout=0.1)
    with pytest.raises(RuntimeError, match="Caught Odd in DataLoader worker process 0"):
        run("odd")
    with pytest.raises(TypeError, match="pickle"):
        run("lock")
    with pytest.raises(ZeroDivisionError, match=r"(?s)worker process 0.*in fail"):
        run("lock", worker_init_fn=fail)


def fail(number: int) -> None:
    """A start that does not succeed."""
    raise ZeroDivisionError(number)


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_come_where_their_batch_is_due(workers: int) -> None:
    class Bad(Squares):
        def __getitem__(self, index: int) -> Any:
            if index == 5:
                raise ZeroDivisionError("sample 5")
            return index

    seen: list[int] = []
    with pytest.raises(ZeroDivisionError, match="sample 5"):
        for batch in DataLoader(Bad(9), batch_size=2, num_workers=workers):
            seen += batch.tolist()
    assert seen == [0, 1, 2, 3]


def test_random_numbers_do_not_depend_on_the_workers() -> None:
    class Noise(Squares):
        def __getitem__(self, index: int) -> Any:
            return graphc.rand(2)

    def draw(workers: int) -> list[list[float]]:
        graphc.manual_seed(7)
        found = graphc.cat(list(DataLoader(Noise(12), batch_size=2, num_workers=workers)))
        return found.tolist()

    assert draw(1) == draw(4) == draw(4) and len({tuple(r) for r in draw(2)}) == 12


def test_leaving_early_ends_the_workers() -> None:
    before = set(multiprocessing.active_children())
    for _ in DataLoader(Squares(50), batch_size=1, num_workers=2):
        break
    assert set(multiprocessing.active_children()) <= before


def test_large_indices_and_batches_do_not_block() -> None:
    """More than a pipe holds, in both directions at once."""
    indices = [list(range(k, k + 100_000)) for k in range(6)]
    data = TensorDataset(graphc.arange(100_006))
    found = [b[0] for b in DataLoader(data, batch_sampler=indices, num_workers=1, prefetch_factor=4)]
    assert [b[0].item() for b in found] == list(range(6)) and all(len(b) == 100_000 for b in found)


def test_settings_that_exclude_each_other() -> None:
    data = Squares(4)
    cases: list[Callable[[], Any]] = [
        lambda: DataLoader(data, shuffle=True, sampler=[0]),
        lambda: DataLoader(data, 2, batch_sampler=[[0]]),
        lambda: DataLoader(data, batch_sampler=[[0]], drop_last=True),
        lambda: DataLoader(data, None, drop_last=True),
        lambda: DataLoader(data, 0),
        lambda: DataLoader(data, num_workers=-1),
        lambda: DataLoader(data, timeout=-1),
        lambda: DataLoader(data, prefetch_factor=2),
        lambda: DataLoader(data, persistent_workers=True),
        lambda: DataLoader(data, num_workers=1, prefetch_factor=0),
        lambda: list(DataLoader(data, num_workers=1, multiprocessing_context="teleport")),
    ]
    for call in cases:
        with pytest.raises(ArgumentError):
            call()
