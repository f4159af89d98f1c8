"""The loss of labels whose places in a sequence are not known.

A. Graves et al., "Connectionist temporal classification", 2006: the forward variables of equation 6, in logarithms. The
labels with blanks between and around them make 2 * S + 1 states; in one step a path stays, goes on by one state, or
by two where that skips a blank between two different labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.errors import ArgumentError, ShapeError
from graphc.frontend.creation import arange, full, tensor
from graphc.frontend.functional import gather, logsumexp, pad, stack, where
from graphc.frontend.nn.checks import fixed, float_input
from graphc.frontend.tensor import Tensor
from graphc.ir.types import int64

__all__ = ["ctc_loss"]

Lengths = Tensor | Sequence[int]
_LOW = -1e30  # the logarithm of no probability: finite, so that no gradient is inf - inf


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Minus the log probability of the targets under log_probs [T, N, C] (or [T, C]); int64 targets [N, S] or joined.

    "mean" divides each loss by its target's length. A target that does not fit its input costs inf, or 0 with
    `zero_infinity`. Raises ShapeError, ArgumentError.
    """
    name = "ctc_loss"
    x = float_input(name, log_probs)
    single = x.ndim == 2
    if single:
        x = x.unsqueeze(1)
    if x.ndim != 3 or not 0 <= blank < x._l.shape[2]:
        raise ShapeError(f"{name}: expected log probabilities [T, N, C] with blank {blank} below C, got {x._l.type}")
    batch = x._l.shape[1]
    spans, sizes = _lengths(name, input_lengths, batch), _lengths(name, target_lengths, batch)
    labels = _labels(name, targets, sizes, blank)
    losses = -_forward(x, labels, spans, sizes, blank)
    impossible = losses > -_LOW / 2
    losses = where(impossible, 0.0 if zero_infinity else math.inf, losses)
    if reduction == "none":
        return losses.squeeze(0) if single else losses
    if reduction not in ("mean", "sum"):
        raise ArgumentError(f"{name}: {reduction!r} is not a valid value for reduction; use 'mean', 'sum' or 'none'")
    if reduction == "sum":
        return losses.sum()
    return (losses / sizes.clamp_min(1).to(losses.dtype)).mean()


def _lengths(name: str, given: Lengths, batch: int) -> Tensor:
    """[N] int64. Raises ShapeError."""
    found = given if isinstance(given, Tensor) else tensor(list(given), dtype=int64)
    found = found.to(int64).reshape(-1)
    if found._a.size != batch:
        raise ShapeError(f"{name}: expected {batch} lengths, one for each sequence, got {found._l.type}")
    return found


def _labels(name: str, targets: Tensor, sizes: Tensor, blank: int) -> Tensor:
    """[N, S], with blanks behind each target."""
    batch = sizes._a.size
    if targets.ndim == 1 and batch == 1:
        targets = targets.unsqueeze(0)
    elif targets.ndim == 1:  # all in one row: their places depend on the lengths
        counts = np.array(sizes.tolist(), np.int64)
        if counts.sum() > targets._a.size:
            raise ShapeError(f"{name}: targets are {targets._l.type}, but the lengths sum to {int(counts.sum())}")
        starts = np.cumsum(counts) - counts
        places = starts[:, None] + np.arange(max(int(counts.max()), 1))
        targets = targets.index_select(0, fixed(np.minimum(places, targets._a.size - 1).reshape(-1)))
        targets = targets.reshape(places.shape)
    if targets.ndim != 2 or targets._a.shape[0] != batch:
        raise ShapeError(f"{name}: targets are {targets._l.type}, expected [{batch}, S] or all of them in one row")
    return where(arange(targets._a.shape[1]) < sizes.unsqueeze(1), targets.to(int64), blank)


def _forward(x: Tensor, labels: Tensor, spans: Tensor, sizes: Tensor, blank: int) -> Tensor:
    """The log probability of each target."""
    steps, batch, _ = x._a.shape
    count = 2 * labels._a.shape[1] + 1
    places = np.arange(count)
    odd = fixed(places % 2 == 1)
    if labels._a.shape[1]:
        states = where(odd, labels.index_select(1, fixed(np.minimum(places // 2, labels._a.shape[1] - 1))), blank)
    else:
        states = full((batch, count), blank, dtype=int64)
    seen = gather(x, 2, states.unsqueeze(0).expand(steps, batch, count))
    before = pad(states, (2, 0), value=blank)[:, :count]
    may_skip = odd & (states != before) & fixed(places >= 2)
    first = fixed(places == 0) | (fixed(places == 1) & (sizes > 0).unsqueeze(1))
    paths = where(first, seen[0], _LOW)
    for t in range(1, steps):
        ways = [paths, pad(paths, (1, 0), value=_LOW)[:, :count], pad(paths, (2, 0), value=_LOW)[:, :count]]
        ways[2] = where(may_skip, ways[2], _LOW)
        moved = logsumexp(stack(ways, 0), 0) + seen[t]
        paths = where((t < spans).unsqueeze(1), moved, paths)
    ends = (2 * sizes).unsqueeze(1)
    last = where(sizes.unsqueeze(1) > 0, gather(paths, 1, (ends - 1).clamp_min(0)), _LOW)
    return logsumexp(stack([gather(paths, 1, ends), last], 0), 0).squeeze(1)
