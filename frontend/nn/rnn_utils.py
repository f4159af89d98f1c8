"""Sequences of different lengths."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import ArgumentError, ShapeError
from graphc.frontend.creation import full
from graphc.frontend.functional import cat, stack
from graphc.frontend.tensor import Tensor

__all__ = ["pad_sequence", "unpad_sequence"]


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


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False) -> list[Tensor]:
    """The opposite of pad_sequence: the first `lengths` elements of each sequence."""
    x = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [x[k, : int(n)] for k, n in enumerate(lengths)]
