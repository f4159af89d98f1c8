"""What outside objects hold, as something that can be compared later."""

from __future__ import annotations

import io
import itertools
import operator
import random
import sys
from collections.abc import Mapping
from types import CellType, GeneratorType
from typing import Any

import numpy as np

from graphc.frontend.record.containers import content
from graphc.frontend.record.where import users_fields

MISSING = object()
MAX_ITEMS = 1000
MAX_BYTES = 1 << 18  # of an array


def fields_of(kind: str, x: Any, before: dict[str, Any]) -> Mapping[str, Any]:
    """The attributes that a note of this kind keeps of `x`; those it kept `before` tell which."""
    if kind == "fields":
        return x.__dict__  # type: ignore[no-any-return]
    names = users_fields(x) if kind == "given" else before
    return {n: getattr(x, n, MISSING) for n in names}


def held_now(kind: str, x: Any, before: Any) -> Any:
    """What a note says of `x` now."""
    if kind == "items":
        return content(x)
    if kind == "content":
        return bits(x)
    return position(x) if kind == "iterator" else dict(fields_of(kind, x, before))


def alike(kind: str, now: Any, before: Any) -> bool:
    """True when two notes of one kind say the same, objects by identity."""
    if kind == "items":
        return len(now) == len(before) and all(map(identical, now, before))
    if kind in ("iterator", "content"):
        return bool(now == before)
    return now.keys() == before.keys() and all(now[name] is before[name] for name in now)


def inside(cell: CellType) -> Any:
    """What a closure cell holds; MISSING for an empty one."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def identical(a: Any, b: Any) -> bool:
    """The same object, or tuples of the same objects."""
    if type(a) is tuple and type(b) is tuple:
        return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))
    return a is b


def random_states() -> tuple[Any, Any]:
    """The states of Python's generator and of NumPy's; None for that of a numpy.random that nobody has imported."""
    return random.getstate(), numpy_state() if "numpy.random" in sys.modules else None


def numpy_state() -> Any:
    """The state of NumPy's generator, as values that compare."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return name, bytes(keys), *rest  # type: ignore[arg-type]


def items(x: Any) -> list[tuple[Any, Any]]:
    """Keys or places with what is there."""
    found = content(x)
    return (found if isinstance(x, dict) else list(enumerate(found)))[:MAX_ITEMS]


def bits(x: Any) -> Any:
    """What an array or a stream in memory holds, as values that compare.

    None for a closed stream, and for arrays that no recording may read: of objects, and large ones.
    """
    if isinstance(x, np.ndarray):
        return None if x.dtype.hasobject or x.nbytes > MAX_BYTES else (x.dtype, x.shape, x.tobytes())
    if isinstance(x, (io.StringIO, io.BytesIO)):
        return None if x.closed else (x.tell(), x.getvalue())
    return bytes(x)


def position(x: Any) -> Any:
    """Something that changes when an iterator moves on; what does not tell (itertools.cycle, map) has always moved."""
    if isinstance(x, GeneratorType):
        return None if x.gi_frame is None else x.gi_frame.f_lasti
    if isinstance(x, itertools.count):
        return repr(x)
    if isinstance(x, (itertools.repeat, io.IOBase)):  # gives the same again and again; is watched as a file
        return repr(x) if isinstance(x, itertools.repeat) else -1
    try:
        found = operator.length_hint(x, -1)
    except TypeError:
        found = -1
    return object() if found < 0 else found


def slots(cls: type) -> tuple[str, ...]:
    """The slots a class itself defines, those of Python aside."""
    slots = cls.__dict__.get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(n for n in names if n not in ("__dict__", "__weakref__"))
