"""Switches that programs set at their start: what they ask for holds here already."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import ArgumentError
from graphc.frontend.device import check_device, device
from graphc.frontend.mode import mode as recording
from graphc.frontend.tensor import fresh

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


def no_condition(what: str) -> None:
    """Refuse to record a line that reads or changes a setting of the process: compiled calls would not notice."""
    recorder = recording.get().recorder
    if recorder is not None:
        recorder.on_escape(
            fresh(np.zeros((), np.int64)),
            what,
            "a graph follows no setting of the process; pass the answer as an argument",
        )


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepted and noted: every operation gives the same bits each time, whatever this says."""
    if not isinstance(mode, bool):
        raise ArgumentError(f"use_deterministic_algorithms: mode must be a bool, got {type(mode).__name__}")
    no_condition("use_deterministic_algorithms()")
    _State.deterministic, _State.warn_only = mode, bool(warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    """What use_deterministic_algorithms() was told; False before."""
    no_condition("are_deterministic_algorithms_enabled()")
    return _State.deterministic


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """What use_deterministic_algorithms() was told of `warn_only`; False before."""
    no_condition("is_deterministic_algorithms_warn_only_enabled()")
    return _State.warn_only


def set_float32_matmul_precision(precision: str) -> None:
    """How exact products of float32 matrices must be: "highest", "high" or "medium". Noted alone: they are always
    computed in float32, which all three allow. Raises ArgumentError for another word.
    """
    if precision not in _PRECISIONS:
        raise ArgumentError(
            f"set_float32_matmul_precision: expected one of {', '.join(_PRECISIONS)}, got {precision!r}"
        )
    no_condition("set_float32_matmul_precision()")
    _State.precision = precision


def get_float32_matmul_precision() -> str:
    """What set_float32_matmul_precision() was told; "highest" before."""
    no_condition("get_float32_matmul_precision()")
    return _State.precision


def set_default_device(device: Any) -> None:
    """Where new tensors live. Raises UnsupportedError for anything but "cpu" (or None)."""
    check_device("set_default_device", device)


def get_default_device() -> device:
    """device("cpu")."""
    return device("cpu")
