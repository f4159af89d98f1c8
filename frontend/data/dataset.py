"""Data sets: what a loader takes samples from."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, IndexingError, ShapeError, UnsupportedError
from graphc.frontend.creation import tensor
from graphc.frontend.mode import mode
from graphc.frontend.random import Generator
from graphc.frontend.random_tensors import randperm
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.types import int64

__all__ = ["ConcatDataset", "Dataset", "IterableDataset", "Subset", "TensorDataset", "random_split"]


class Dataset:
    """Base of data sets with an index: a subclass gives `__getitem__`, and `__len__` where samplers need it.

    `Dataset[int]` may be written as in PyTorch; the parameter has no effect.
    """

    def __class_getitem__(cls, item: Any) -> type:
        return cls

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")

    def __add__(self, other: Dataset) -> ConcatDataset:
        """This data set followed by another."""
        return ConcatDataset([self, other])


class IterableDataset(Dataset):
    """Base of data sets that are streams: a subclass gives `__iter__`."""

    def __getitem__(self, index: Any) -> Any:
        raise UnsupportedError(f"{type(self).__name__} is a stream; it has no samples by index")

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")


class TensorDataset(Dataset):
    """Samples `(t[i] for t in tensors)`. Raises ShapeError unless the tensors have equal first sizes."""

    tensors: tuple[Tensor, ...]

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors:
            raise ArgumentError("TensorDataset: expected at least one tensor")
        for k, t in enumerate(tensors):
            if not isinstance(t, Tensor):
                raise ArgumentError(f"TensorDataset: argument {k} is a {type(t).__name__}, expected a Tensor")
            if not t.ndim or t.size(0) != tensors[0].size(0):
                raise ShapeError(
                    f"TensorDataset: argument {k} is {t._l.type} and argument 0 is {tensors[0]._l.type}; "
                    "the first sizes must be equal"
                )
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])

    def take(self, indices: Sequence[int]) -> list[Tensor]:
        """A batch: the samples at `indices`, one tensor for each of `tensors`. Raises IndexingError."""
        size = len(self)
        bad = next((i for i in indices if not -size <= i < size), None)
        if bad is not None:
            raise IndexingError(f"TensorDataset: index {bad} is out of range for {size} samples")
        if mode.get().recorder is None and not any(t.requires_grad for t in self.tensors):
            chosen = np.array(indices, np.int64)
            return [fresh(t._a[chosen]) for t in self.tensors]  # a plain copy of host data, ahead of any operation
        places = tensor(list(indices), dtype=int64)
        return [t[places] for t in self.tensors]


class Subset(Dataset):
    """The samples of a data set at `indices`."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset):
    """Several data sets one after the other."""

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ArgumentError("ConcatDataset: datasets should not be an empty iterable")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise UnsupportedError("ConcatDataset: an IterableDataset has no samples by index")
        self.cumulative_sizes = list(accumulate(len(d) for d in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: Any) -> Any:
        place = index.__index__()
        size = len(self)
        if not -size <= place < size:
            raise IndexingError(f"ConcatDataset: index {place} is out of range for {size} samples")
        place %= size
        which = bisect_right(self.cumulative_sizes, place)
        return self.datasets[which][place - (self.cumulative_sizes[which - 1] if which else 0)]


def random_split(dataset: Any, lengths: Sequence[float], generator: Generator | None = None) -> list[Subset]:
    """Split a data set at random into subsets of the given lengths, or of shares that sum to 1.

    Shares are rounded down; what is left goes one by one to the first ones. Raises ArgumentError.
    """
    size = len(dataset)
    sizes = _counts(lengths, size)
    if sum(sizes) != size:
        raise ArgumentError(f"random_split: the lengths sum to {sum(sizes)}, but the dataset has {size} samples")
    order = randperm(size, generator=generator).tolist()
    return [Subset(dataset, order[end - count : end]) for end, count in zip(accumulate(sizes), sizes, strict=True)]


def _counts(lengths: Sequence[float], size: int) -> list[int]:
    if math.isclose(sum(lengths), 1.0) and sum(lengths) <= 1.0 + 1e-9 and not all(isinstance(n, int) for n in lengths):
        if any(not 0 <= share <= 1 for share in lengths):
            raise ArgumentError(f"random_split: every share must be between 0 and 1, got {list(lengths)}")
        counts = [math.floor(size * share) for share in lengths]
        for k in range(size - sum(counts)):
            counts[k % len(counts)] += 1
        return counts
    if any(not isinstance(n, int) or n < 0 for n in lengths):
        raise ArgumentError(f"random_split: lengths must be non-negative integers or sum to 1, got {list(lengths)}")
    return [int(n) for n in lengths]
