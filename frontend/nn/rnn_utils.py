"""Sequences of different lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.frontend.creation import full
from graphc.frontend.device import check_device
from graphc.frontend.functional import cat, index_copy, index_select, reshape, stack, transpose
from graphc.frontend.nn.checks import fixed
from graphc.frontend.ordering import argsort
from graphc.frontend.tensor import Tensor
from graphc.ir.op import Array

__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]

Lengths = Tensor | Sequence[int]


def host_ints(name: str, values: Lengths) -> list[int]:
    """The numbers of a list or a 1-d integer tensor. They decide sizes: a recording is for these numbers alone.

    Raises ShapeError, DTypeError.
    """
    if isinstance(values, Tensor):
        if values.ndim != 1:
            raise ShapeError(f"{name}: expected lengths in one dimension, got {values._l.type}")
        if values.dtype.is_floating_point or values.dtype.is_complex:
            raise DTypeError(f"{name}: lengths must be integers, got {values._l.type}")
    return [int(n) for n in values]


class _Fields(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Fields):
    """Sequences without padding: `data` holds the first elements of all of them, longest first, then the second
    elements of those that have one, and so on; `batch_sizes` counts them. Made by pack_padded_sequence().
    """

    __slots__ = ()

    def __new__(
        cls,
        data: Tensor,
        batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:
        if not isinstance(data, Tensor) or not isinstance(batch_sizes, Tensor):
            raise ArgumentError("PackedSequence: expected tensors data and batch_sizes; use pack_padded_sequence()")
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    @property
    def is_cuda(self) -> bool:
        """False: the only device is the CPU."""
        return False

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """With the data as Tensor.to() has it; itself when that changes nothing."""
        data = self.data.to(*args, **kwargs)
        return self if data is self.data else self._replace(data=data)

    def cpu(self) -> PackedSequence:
        """Itself: the only device is the CPU."""
        return self

    def cuda(self, device: Any = None) -> PackedSequence:
        """Raises UnsupportedError: this version computes on the CPU."""
        check_device("PackedSequence.cuda", "cuda")
        return self

    def pin_memory(self) -> PackedSequence:
        """Itself: there is no device that would need it."""
        return self

    def double(self) -> PackedSequence:
        """With data in float64."""
        return self._replace(data=self.data.double())

    def float(self) -> PackedSequence:
        """With data in float32."""
        return self._replace(data=self.data.float())

    def half(self) -> PackedSequence:
        """With data in float16."""
        return self._replace(data=self.data.half())

    def long(self) -> PackedSequence:
        """With data in int64."""
        return self._replace(data=self.data.long())

    def int(self) -> PackedSequence:
        """With data in int32."""
        return self._replace(data=self.data.int())


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The order that undoes `permutation`, [N] int64; None for None."""
    return None if permutation is None else argsort(permutation)


def _places(lengths: list[int], batch: int) -> tuple[Array, Array]:
    """(batch_sizes, places of the packed rows in a padded [T * batch]) for lengths in descending order."""
    steps = np.arange(lengths[0])[:, None]
    held = np.array(lengths) > steps
    return held.sum(1), (steps * batch + np.arange(batch))[held]


def pack_padded_sequence(
    input: Tensor, lengths: Lengths, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Padded sequences [T, N, …] (or [N, T, …]) of `lengths` without the padding.

    `lengths` decide sizes: under compile every combination of them has a recording of its own.
    Raises ShapeError, ArgumentError unless lengths are positive and at most T, and in descending order with
    `enforce_sorted`.
    """
    name = "pack_padded_sequence"
    counts = host_ints(name, lengths)
    if input.ndim < 2:
        raise ShapeError(f"{name}: expected [T, N, …], got {input._l.type}")
    x = transpose(input, 0, 1) if batch_first else input
    longest, batch = x._l.shape[:2]
    if len(counts) != batch:
        raise ShapeError(f"{name}: expected one length for each of {batch} sequences, got {len(counts)}")
    if not counts or min(counts) <= 0 or max(counts) > longest:
        raise ArgumentError(f"{name}: the lengths of all samples must be 1 to {longest}, got {counts}")
    order = sorted(range(batch), key=lambda k: -counts[k])
    if enforce_sorted and order != list(range(batch)):
        raise ArgumentError(
            f"{name}: `lengths` must be sorted in decreasing order when `enforce_sorted` is True; pass "
            f"`enforce_sorted=False`, got {counts}"
        )
    sorted_indices = unsorted_indices = None
    if not enforce_sorted:
        sorted_indices, unsorted_indices = fixed(np.array(order)), fixed(np.argsort(order))
        x = index_select(x, 1, sorted_indices)
    sizes, places = _places([counts[k] for k in order], batch)
    data = index_select(reshape(x, (longest * batch, *x._l.shape[2:])), 0, fixed(places))
    return PackedSequence(data, fixed(sizes), sorted_indices, unsorted_indices)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """The opposite of pack_padded_sequence: ([T, N, …] or [N, T, …] filled up with a value, lengths [N]).

    T is the longest length, or `total_length`. Raises ArgumentError when that is shorter.
    """
    name = "pad_packed_sequence"
    sizes = host_ints(name, sequence.batch_sizes)
    longest, batch, x = len(sizes), sizes[0], sequence.data
    if total_length is not None:
        if total_length < longest:
            raise ArgumentError(
                f"{name}: total_length must be at least the length of the longest sequence, {longest}, got "
                f"{total_length}"
            )
        longest = total_length
    lengths = [sum(n > k for n in sizes) for k in range(batch)]
    _, places = _places(lengths, batch)
    blank = full((longest * batch, *x._l.shape[1:]), padding_value, dtype=x.dtype)
    padded = reshape(index_copy(blank, 0, fixed(places), x), (longest, batch, *x._l.shape[1:]))
    found = fixed(np.array(lengths))
    if sequence.unsorted_indices is not None:
        padded = index_select(padded, 1, sequence.unsorted_indices)
        found = index_select(found, 0, sequence.unsorted_indices)
    return (transpose(padded, 0, 1) if batch_first else padded), found


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Tensors [L_i, …] packed. Raises as pad_sequence and pack_padded_sequence."""
    given = list(sequences)
    lengths = [x._l.shape[0] for x in given if x.ndim]
    return pack_padded_sequence(pad_sequence(given), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The opposite of pack_sequence: a tensor [L_i, …] for each sequence."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)


def pad_sequence(
    sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    """Tensors [L_i, …] as one [longest, N, …] (or [N, longest, …]), filled up with a value.

    Raises ShapeError unless all but the lengths agree, ArgumentError.
    """
    if padding_side not in ("left", "right"):
        raise ArgumentError(f"pad_sequence: padding_side must be 'left' or 'right', got {padding_side!r}")
    given = list(sequences)
    if not given:
        raise ArgumentError("pad_sequence: received an empty list of sequences")
    rest = given[0]._a.shape[1:]
    for x in given:
        if not x.ndim or x._a.shape[1:] != rest:
            raise ShapeError(f"pad_sequence: {x._l.type} and {given[0]._l.type} differ beyond their lengths")
    longest = max(x._a.shape[0] for x in given)
    return stack([_filled(x, longest, padding_value, padding_side) for x in given], 0 if batch_first else 1)


def _filled(x: Tensor, length: int, value: float, side: str) -> Tensor:
    missing = length - x._a.shape[0]
    if not missing:
        return x
    more = full((missing, *x._a.shape[1:]), value, dtype=x.dtype)
    return cat([x, more] if side == "right" else [more, x], 0)


def unpad_sequence(padded_sequences: Tensor, lengths: Lengths, batch_first: bool = False) -> list[Tensor]:
    """The opposite of pad_sequence: the first `lengths` elements of each sequence."""
    x = padded_sequences if batch_first else transpose(padded_sequences, 0, 1)
    return [x[k, :n] for k, n in enumerate(host_ints("unpad_sequence", lengths))]
