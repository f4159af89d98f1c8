"""Conditions on elements that a graph takes as places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.frontend.record.trace import RangeGuard
from graphc.ir.op import Array


def places_fit(guard: RangeGuard, arrays: Sequence[Array]) -> bool:
    """True when all elements of the guarded input lie where they must; `arrays` by input number."""
    places = arrays[guard.number]
    for op, attrs in guard.chain:
        places = op.reference(places, **attrs)
    if not places.size or (places.min() >= guard.low and places.max() < guard.high):
        return True
    outside = (places < guard.low) | (places >= guard.high)
    return guard.ignored is not None and bool(np.all(places[outside] == guard.ignored))
