"""Conditions on Python values: numbers by type and bits, containers by fingerprint, the rest by identity."""

from __future__ import annotations

import abc
from collections import deque
from types import MappingProxyType
from typing import Any

import numpy as np

from graphc.frontend.record.containers import keys_of, size_of
from graphc.frontend.record.trace import Guard
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType

_FLAT = frozenset({bool, int, float, complex, str, bytes, type(None), DType})


def flat(x: Any) -> bool:
    """True for a container of numbers, strings and None only (keys of a dict included)."""
    if type(x) not in (list, tuple, dict, set, frozenset, deque):
        return False
    items = (*x, *x.values()) if type(x) is dict else x
    return all(type(i) in _FLAT or (type(i) is tuple and flat(i)) for i in items)


def fingerprint(x: Any) -> Any:
    """Type, order and bits of a flat container."""
    if isinstance(x, (set, frozenset)):
        return type(x), frozenset(map(_bits, x))
    if isinstance(x, dict):
        return dict, tuple(map(_bits, x)), tuple(map(_bits, x.values()))
    return type(x), tuple(map(_bits, x))


def _bits(x: Any) -> Any:
    t = type(x)
    if t is str:
        return x
    if t is float:
        return t, x.hex()
    if t is tuple:
        return fingerprint(x)
    return (t, repr(x)) if t is complex else (t, x)


def holds(guard: Guard, value: Any) -> bool:
    """True when the value found at the guard's step is what it was while recording."""
    return CHECKS[guard.kind](value, guard.expected)


def _is(value: Any, expected: Any) -> bool:
    return value is expected


def _same_number(value: Any, expected: Any) -> bool:
    if value is expected:
        return True
    if type(value) is not type(expected):
        return False
    if isinstance(value, float):
        return bool(value.hex() == expected.hex())
    return repr(value) == repr(expected) if isinstance(value, complex) else bool(value == expected)


def _keys(value: Any, expected: Any) -> bool:
    kind, keys = expected
    if type(value) is not kind or size_of(value) != len(keys):
        return False
    return not isinstance(value, (dict, MappingProxyType)) or all(map(_same_key, keys_of(value), keys))


def _same_key(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and _told(a) and bool(_bits(a) == _bits(b)))


def _told(key: Any) -> bool:
    """True for a key that equal bits say all of."""
    return type(key) in _FLAT or (type(key) is tuple and flat(key))


def _flat(value: Any, expected: Any) -> bool:
    return type(value) is expected[0] and flat(value) and bool(fingerprint(value) == expected)


def _kind(value: Any, expected: Any) -> bool:
    return type(value) is expected


def _token(value: Any, expected: Any) -> bool:
    return bool(abc.get_cache_token() == expected)


def _fields(value: Any, expected: Any) -> bool:
    found = getattr(value, "__dict__", None)
    return found is not None and tuple(found) == expected


def _array(value: Any, expected: Any) -> bool:
    dtype, shape, content = expected
    return (
        isinstance(value, np.ndarray) and value.dtype == dtype and value.shape == shape and value.tobytes() == content
    )


def _bytes(value: Any, expected: Any) -> bool:
    return type(value) is expected[0] and bytes(value) == expected[1]


def _absent(value: Any, expected: Any) -> bool:
    return isinstance(value, (dict, MappingProxyType)) and bool(expected.isdisjoint(value))


def _grad_is_none(value: Any, expected: Any) -> bool:
    return isinstance(value, Tensor) and (value._grad is None) is expected


def _zero(value: Any, expected: Any) -> bool:
    return type(value) is float and (value == 0) is expected


def described(t: Tensor) -> Any:
    """What Python can read of a tensor without reading its values."""
    return type(t), t._l, t.requires_grad, t.is_leaf, bool(t._hooks)


def _described(value: Any, expected: Any) -> bool:
    return isinstance(value, Tensor) and described(value) == expected


CHECKS = {
    "is": _is,
    "bits": _same_number,
    "keys": _keys,
    "flat": _flat,
    "fields": _fields,
    "array": _array,
    "bytes": _bytes,
    "absent": _absent,
    "grad": _grad_is_none,
    "zero": _zero,
    "tensor": _described,
    "type": _kind,
    "token": _token,
}
