"""Putting the samples of a batch together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ShapeError
from graphc.frontend.creation import from_numpy, tensor
from graphc.frontend.functional import stack
from graphc.frontend.mode import mode
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.types import float64, int64

__all__ = ["default_collate", "default_convert"]


def default_collate(batch: Sequence[Any]) -> Any:
    """One batch of a list of samples: tensors, arrays and numbers are stacked along a new first axis, strings stay a
    list, and tuples, lists and dicts are put together item by item.

    Python floats give float64 and ints int64, as in PyTorch. Raises ShapeError for samples of different sizes,
    ArgumentError for kinds it does not know.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return _stacked(batch)
    if isinstance(first, (np.ndarray, np.generic)) and first.dtype.kind in "biuf":
        _check_shapes([np.shape(x) for x in batch])
        return from_numpy(np.stack([np.asarray(x) for x in batch]))
    if isinstance(first, bool):
        return tensor(list(batch))
    if isinstance(first, (int, float)):
        return tensor(list(batch), dtype=int64 if isinstance(first, int) else float64)
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        return _like(first, {key: default_collate([x[key] for x in batch]) for key in first})
    if isinstance(first, Sequence):
        return _items(first, batch)
    raise ArgumentError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
        f"found {type(first).__name__}; give the loader a collate_fn"
    )


def _items(first: Sequence[Any], batch: Sequence[Sequence[Any]]) -> Any:
    if any(len(x) != len(first) for x in batch):
        raise ShapeError("default_collate: each element in list of batch should be of equal size")
    columns = [default_collate(column) for column in zip(*batch, strict=True)]
    if isinstance(first, tuple):
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    return _like(first, columns)


def _like(first: Any, made: Any) -> Any:
    """`made` in the class of the sample, where that can be built from it."""
    if type(first) is type(made):
        return made
    try:
        return type(first)(made)
    except TypeError:
        return made


def _check_shapes(shapes: list[tuple[int, ...]]) -> None:
    for shape in shapes:
        if shape != shapes[0]:
            raise ShapeError(
                f"default_collate: samples have sizes {list(shapes[0])} and {list(shape)}; "
                "a batch needs equal sizes, else give the loader a collate_fn"
            )


def _stacked(batch: Sequence[Tensor]) -> Tensor:
    _check_shapes([x._l.shape for x in batch])
    same = all(x.dtype is batch[0].dtype for x in batch)
    if same and mode.get().recorder is None and not any(x.requires_grad for x in batch):
        return fresh(np.stack([x._a for x in batch]))  # a plain copy of host data: no operation to compile
    return stack(list(batch))


def default_convert(data: Any) -> Any:
    """NumPy arrays inside a sample become tensors; everything else stays."""
    if isinstance(data, np.ndarray) and data.dtype.kind in "biuf":
        return from_numpy(np.ascontiguousarray(data))
    if isinstance(data, Mapping):
        return _like(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, tuple):
        made = [default_convert(x) for x in data]
        return type(data)(*made) if hasattr(data, "_fields") else made
    if isinstance(data, list):
        return [default_convert(x) for x in data]
    return data


Collate = Callable[[Any], Any]
