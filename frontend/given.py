"""Checks of arguments that are no tensors: a wrong one is an ArgumentError that names it."""

from __future__ import annotations

from collections.abc import Callable
from operator import index as as_index
from typing import Any, TypeVar

from graphc.errors import ArgumentError

F = TypeVar("F", bound=Callable[..., Any])


def whole(name: str, what: str, value: Any) -> int:
    """`value` as an int. Raises ArgumentError."""
    try:
        return as_index(value)
    except TypeError:
        raise ArgumentError(f"{name}: {what} must be an int, got {type(value).__name__} {value!r:.40}") from None


def callable_given(name: str, what: str, function: F) -> F:
    """`function` itself. Raises ArgumentError for what cannot be called."""
    if not callable(function):
        raise ArgumentError(f"{name}: {what} must be a function, got {type(function).__name__} {function!r:.40}")
    return function


def probability(name: str, p: Any) -> None:
    """Raise ArgumentError for what is no number from 0 to 1."""
    if not isinstance(p, (int, float)) or not 0 <= p <= 1:
        raise ArgumentError(
            f"{name}: dropout probability has to be between 0 and 1, but got p={p!r}; give a number such as 0.5"
        )
