"""Anomaly mode: an error or a NaN in a backward pass is told with the line of the forward operation.

The mode is one for the whole process, as in PyTorch. While it is on, compiled functions run eagerly: a graph checks
nothing.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import AutogradError
from graphc.frontend import autograd
from graphc.frontend.autograd import Node
from graphc.frontend.mode import debugging, mode
from graphc.frontend.tensor import Tensor

if TYPE_CHECKING:
    from graphc.ir.graph import Location

__all__ = ["detect_anomaly", "set_detect_anomaly"]


class _State:
    on = False
    check_nan = True


_state = _State()
_lines: weakref.WeakKeyDictionary[Node, Location] = weakref.WeakKeyDictionary()


def enabled() -> bool:
    """True while anomaly mode is on."""
    return _state.on


def is_anomaly_enabled() -> bool:
    """True while anomaly mode is on."""
    return _state.on


def is_anomaly_check_nan_enabled() -> bool:
    """True when anomaly mode looks for NaN."""
    return _state.check_nan


def _note(node: Node, operands: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
    from graphc.frontend.record.where import here

    _lines[node] = here()


def _set(on: bool, check_nan: bool) -> None:
    recorder = mode.get().recorder
    if recorder is not None and on != _state.on:
        recorder.on_ambient("anomaly mode is switched")
    _state.on, _state.check_nan = on, check_nan
    if on and _note not in autograd.observers:
        autograd.observers.append(_note)
        debugging.append("anomaly mode")
    elif not on and _note in autograd.observers:
        autograd.observers.remove(_note)
        debugging.remove("anomaly mode")


def checked(node: Node, rule: Callable[[], tuple[Tensor | None, ...]]) -> tuple[Tensor | None, ...]:
    """The gradients that `rule` gives. Raises AutogradError naming the forward line when one of them holds a NaN."""
    if not _state.on:
        return rule()
    try:
        found = rule()
    except Exception as error:
        error.add_note(f"Error detected in {node.name()}; {_told(node)}")
        raise
    for k, g in enumerate(found if _state.check_nan else ()):
        if g is not None and g._a.dtype.kind in "fc" and bool(np.isnan(g._a).any()):
            raise AutogradError(f"Function '{node.name()}' returned nan values in its {k}th output; {_told(node)}")
    return found


def _told(node: Node) -> str:
    line = _lines.get(node)
    if line is None:
        return "the forward operation ran before anomaly mode was switched on, so that its line is not known"
    return f"the forward operation ran at {line}"


class set_detect_anomaly:
    """Switch anomaly mode on or off: at once when called as a function, restored when used as a context manager.

    With `check_nan`, a backward pass that makes a NaN raises AutogradError with the forward line; without, only the
    errors of a backward pass are told with it.
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self.previous = (_state.on, _state.check_nan)
        _set(bool(mode), bool(check_nan))

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        _set(*self.previous)


class detect_anomaly:
    """Context manager: anomaly mode inside. Warns that it makes programs slow."""

    def __init__(self, check_nan: bool = True) -> None:
        self.check_nan = bool(check_nan)
        self.previous: list[tuple[bool, bool]] = []
        warnings.warn(
            "Anomaly Detection has been enabled. This mode will increase the runtime and should only be enabled for "
            "debugging.",
            UserWarning,
            stacklevel=2,
        )

    def __enter__(self) -> None:
        self.previous.append((_state.on, _state.check_nan))
        _set(True, self.check_nan)

    def __exit__(self, *error: Any) -> None:
        _set(*self.previous.pop())
