"""The signature of a call: what must be equal for a trace to be tried."""

from __future__ import annotations

import array
from collections.abc import Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any

import numpy as np

from graphc.frontend.mode import mode
from graphc.frontend.promote import get_default_dtype
from graphc.frontend.record.guards import fingerprint, flat
from graphc.frontend.record.tree import TreeSpec
from graphc.frontend.size import Size
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType

_BY_VALUE = (range, PurePath, Fraction, date, time, timedelta, DType)  # cannot change, and equal ones are alike
_BY_TEXT = (complex, slice, Decimal)  # equal ones may differ: 0.0 and -0.0, 1 and True


def signature(leaves: Sequence[Any], spec: TreeSpec, exact: bool = False) -> tuple[Any, list[Any]]:
    """A hashable key of what must be equal for a trace to be tried, and the objects known by identity (to be held)."""
    parts: list[Any] = []
    held: list[Any] = []
    storages: dict[int, int] = {}
    for i, x in enumerate(leaves):
        if isinstance(x, Tensor):
            first = storages.setdefault(id(x._s), i)
            same = next((j for j in range(i) if leaves[j] is x), -1)
            parts.append((x._l, x.requires_grad, x.is_leaf, bool(x._hooks), first, same))
        elif type(x) is float:
            parts.append((float, x.hex()) if exact else float)
        elif isinstance(x, (bool, int, str, bytes, type(None))):
            parts.append((type(x), x))
        else:
            part = _value(x)
            if part is None:
                held.append(x)
                part = (object, id(x))
            parts.append(part)
    return (spec, tuple(parts), mode.get().grad, get_default_dtype()), held


def _value(x: Any) -> Any:
    """What tells a value from others of its type; None for an object known by identity.

    What can change (an ndarray, a set) has a guard on its content besides.
    """
    t = type(x)
    if isinstance(x, np.generic) and not x.dtype.hasobject:
        return t, str(x.dtype), x.tobytes()
    if t in _BY_VALUE or (isinstance(x, PurePath) and t.__module__.partition(".")[0] == "pathlib"):
        return t, x
    if t in _BY_TEXT and (t is not slice or flat((x.start, x.stop, x.step))):
        return t, repr(x)
    if t in (set, frozenset, Size) and flat(tuple(x)):
        return t, fingerprint(tuple(x) if t is Size else x)
    if t is np.ndarray:
        return t, str(x.dtype), x.shape, x.strides
    if t in (bytearray, array.array):
        return t, bytes(x)
    return None
