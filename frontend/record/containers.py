"""What a container holds, by the methods of Python's own class: those of a class of the user's are his program, and a
defaultdict makes what is asked for.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from types import MappingProxyType
from typing import Any

MISSING = object()
_PLAIN = frozenset({dict, list, tuple, deque, set, frozenset, MappingProxyType})  # without methods of anyone else
_KINDS = (list, tuple, deque, set, frozenset)


def is_plain(x: Any) -> bool:
    """True for a container of one of Python's own classes in which a look changes nothing."""
    return type(x) in _PLAIN


def item_of(x: Any, key: Any) -> Any:
    """What is there under a key or at a place; MISSING if nothing is."""
    try:
        if type(x) in _PLAIN:
            return x[key]
        if isinstance(x, dict):
            return dict.get(x, key, MISSING)
        kind: Any = _kind(x)
        return x[key] if kind is None else kind.__getitem__(x, key)
    except (KeyError, IndexError, TypeError):
        return MISSING


def size_of(x: Any) -> int:
    """How many items there are."""
    if type(x) in _PLAIN:
        return len(x)
    if isinstance(x, dict):
        return dict.__len__(x)
    kind = _kind(x)
    return len(x) if kind is None else kind.__len__(x)


def keys_of(x: Any) -> list[Any]:
    """The keys of a dict, in order; the places of what is a sequence."""
    if isinstance(x, OrderedDict):
        return list(OrderedDict.__iter__(x))
    if isinstance(x, dict):
        return list(dict.__iter__(x))
    return list(x) if isinstance(x, MappingProxyType) else list(range(size_of(x)))


def content(x: Any) -> list[Any]:
    """Items; of a dict, keys with values."""
    if isinstance(x, dict):
        return list(x.items()) if type(x) is dict else [(key, dict.__getitem__(x, key)) for key in keys_of(x)]
    kind = _kind(x)
    return list(x) if kind is None else list(kind.__iter__(x))


def _kind(x: Any) -> Any:
    return next((kind for kind in _KINDS if isinstance(x, kind)), None)
