"""NumPy's names of arguments, which PyTorch takes, too: `axis` for `dim`, `keepdims` for `keepdim`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from graphc.errors import ArgumentError

F = TypeVar("F", bound=Callable[..., Any])
_NAMES = {"axis": "dim", "keepdims": "keepdim"}


def numpy_names(function: F) -> F:
    """`function`, which takes `axis` where it has a `dim`, and `keepdims` where it has a `keepdim`.

    Raises ArgumentError when both are given.
    """
    taken = inspect.signature(function).parameters
    aliases = {a: name for a, name in _NAMES.items() if name in taken and a not in taken}
    if not aliases:
        return function

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        for alias, name in aliases.items():
            if alias in named:
                if name in named:
                    raise ArgumentError(f"{function.__name__}: {alias} and {name} are the same argument; give one")
                named[name] = named.pop(alias)
        return function(*args, **named)

    return call  # type: ignore[return-value]
