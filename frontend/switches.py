"""Switches that programs set at their start: what they ask for holds here already."""

from __future__ import annotations

from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.device import check_device, device

__all__ = [
    "are_deterministic_algorithms_enabled",
    "get_default_device",
    "get_float32_matmul_precision",
    "is_deterministic_algorithms_warn_only_enabled",
    "set_default_device",
    "set_float32_matmul_precision",
    "use_deterministic_algorithms",
]

_PRECISIONS = ("highest", "high", "medium")


class _State:
    deterministic = False
    warn_only = False
    precision = "highest"


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepted and noted: every operation gives the same bits each time, whatever this says."""
    if not isinstance(mode, bool):
        raise ArgumentError(f"use_deterministic_algorithms: mode must be a bool, got {type(mode).__name__}")
    _State.deterministic, _State.warn_only = mode, bool(warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    """What use_deterministic_algorithms() was told; False before."""
    return _State.deterministic


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """What use_deterministic_algorithms() was told of `warn_only`; False before."""
    return _State.warn_only


def set_float32_matmul_precision(precision: str) -> None:
    """How exact products of float32 matrices must be: "highest", "high" or "medium". Noted alone: they are always
    computed in float32, which all three allow. Raises ArgumentError for another word.
    """
    if precision not in _PRECISIONS:
        raise ArgumentError(
            f"set_float32_matmul_precision: expected one of {', '.join(_PRECISIONS)}, got {precision!r}"
        )
    _State.precision = precision


def get_float32_matmul_precision() -> str:
    """What set_float32_matmul_precision() was told; "highest" before."""
    return _State.precision


def set_default_device(device: Any) -> None:
    """Where new tensors live. Raises UnsupportedError for anything but "cpu" (or None)."""
    check_device("set_default_device", device)


def get_default_device() -> device:
    """device("cpu")."""
    return device("cpu")
