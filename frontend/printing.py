"""How tensors print: PyTorch's rules for width, integer and scientific form, summaries and suffixes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from graphc.errors import ArgumentError
from graphc.frontend.mode import mode
from graphc.frontend.promote import get_default_dtype
from graphc.frontend.tensor import Tensor
from graphc.ir.op import Array
from graphc.ir.types import bfloat16, bool_, complex64, complex128, float64, int64

__all__ = ["set_printoptions"]


@dataclass(frozen=True)
class _Options:
    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_PROFILES = {
    "default": _Options(),
    "short": _Options(precision=2, edgeitems=2),
    "full": _Options(threshold=math.inf),
}


class _Current:
    options = _Options()


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Change how tensors print. `profile`: "default", "short" or "full", changed by the other arguments.

    precision: digits; threshold: elements above which a tensor is summarised; edgeitems: elements shown at each end
    then; linewidth:
    characters of a line; sci_mode: True or False to force or forbid the scientific form, None to choose. Raises
    ArgumentError.
    """
    if profile is not None and profile not in _PROFILES:
        raise ArgumentError(f"set_printoptions: profile must be one of {', '.join(_PROFILES)}, got {profile!r}")
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_ambient("set_printoptions()")
    base = _Current.options if profile is None else _PROFILES[profile]
    given: dict[str, Any] = {
        "precision": precision,
        "threshold": threshold,
        "edgeitems": edgeitems,
        "linewidth": linewidth,
    }
    for name, value in given.items():
        kinds = (int, float) if name == "threshold" else int
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or value < 0):
            raise ArgumentError(f"set_printoptions: {name} must be a number of at least 0, got {value!r}")
    plain: dict[str, Any] = {k: float(v) if isinstance(v, float) else int(v) for k, v in given.items() if v is not None}
    _Current.options = replace(base, sci_mode=sci_mode, **plain)


def show(self: Tensor) -> str:
    """`repr(tensor)`."""
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_show(self)
    return text_of(self._a, _suffixes(self))


def text_of(array: Array, suffixes: list[str], prefix: str = "tensor(") -> str:
    """The text of an array between `prefix` and `suffixes`."""
    indent = len(prefix)
    if array.size:
        summary = array.size > _Current.options.threshold
        shown = _ends(array) if summary else array
        formatter = _ComplexFormatter(shown) if shown.dtype.kind == "c" else _Formatter(shown)
        body = _nested(array, indent, summary, formatter)
    else:
        body = "[]"
    return _joined(prefix + body, suffixes, indent)


def _suffixes(t: Tensor) -> list[str]:
    found = []
    if not t._l.size and t._l.ndim != 1:
        found.append(f"size={tuple(t._l.shape)}")
    real = get_default_dtype()
    whole = complex128 if real is float64 else complex64
    natural = (real, whole) if not t._l.size else (real, whole, int64, bool_)
    if t.dtype not in natural:
        found.append(f"dtype={t.dtype}")
    if t._requires_grad:
        found.append("requires_grad=True")
    elif t.requires_grad:
        from graphc.frontend.gradients import grad_fn

        found.append(f"grad_fn=<{grad_fn(t).name()}>")
    return found


def _joined(text: str, suffixes: list[str], indent: int) -> str:
    used = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if used + len(suffix) + 2 > _Current.options.linewidth:
            text += ",\n" + " " * indent + suffix
            used = indent + len(suffix)
        else:
            text += ", " + suffix
            used += len(suffix) + 2
    return text + ")"


def _ends(array: Array) -> Array:
    """The elements a summary shows."""
    n = _Current.options.edgeitems
    for axis, size in enumerate(array.shape):
        if size > 2 * n:
            array = np.take(array, [*range(n), *range(size - n, size)], axis)
    return array


class _Formatter:
    """One form and width for all elements shown."""

    def __init__(self, shown: Array) -> None:
        self.floating = shown.dtype.kind == "f" or shown.dtype == bfloat16.np
        self.whole, self.scientific, self.width = True, False, 1
        options = _Current.options
        if not self.floating:
            self.width = max([1, *(len(str(v)) for v in shown.ravel().tolist())])
            return
        values = [v for v in shown.ravel().tolist() if v != 0 and math.isfinite(v)]
        if not values:
            return
        sizes = [abs(v) for v in values]
        least, most = min(sizes), max(sizes)
        self.whole = all(v == math.ceil(v) for v in values)
        self.scientific = most / least > 1000.0 or most > 1.0e8 or (not self.whole and least < 1.0e-4)
        if options.sci_mode is not None:
            self.scientific = options.sci_mode
        self.width = max(1, *(len(self.element(v)) for v in values))

    def element(self, value: Any) -> str:
        """One element, not padded."""
        if not self.floating:
            return str(value)
        if self.scientific:
            return f"{value:.{_Current.options.precision}e}"
        if self.whole:
            return f"{value:.0f}" + ("." if math.isfinite(value) else "")
        return f"{value:.{_Current.options.precision}f}"

    def padded(self, value: Any) -> str:
        """One element, padded on the left."""
        return self.element(value).rjust(self.width)


class _ComplexFormatter:
    """Each part in a form and width of its own."""

    def __init__(self, shown: Array) -> None:
        self.parts = _Formatter(shown.real), _Formatter(shown.imag)
        self.width = self.parts[0].width + self.parts[1].width + 1

    def padded(self, value: complex) -> str:
        """One element; the real part is padded on the left."""
        real, imag = self.parts
        second = f"{imag.element(value.imag)}j"
        return real.padded(value.real) + (second if second[0] == "-" else f"+{second}")


_AnyFormatter: TypeAlias = _Formatter | _ComplexFormatter


def _nested(array: Array, indent: int, summary: bool, formatter: _AnyFormatter) -> str:
    if array.ndim == 0:
        return formatter.padded(array.item())
    if array.ndim == 1:
        return _row(array, indent, summary, formatter)
    n, size = _Current.options.edgeitems, len(array)
    shown: list[int | None] = list(range(size))
    if summary and size > 2 * n:
        shown = [*range(n), None, *range(size - n, size)]
    parts = ["..." if k is None else _nested(array[k, ...], indent + 1, summary, formatter) for k in shown]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def _row(array: Array, indent: int, summary: bool, formatter: _AnyFormatter) -> str:
    n, values = _Current.options.edgeitems, array.tolist()
    if summary and not n:
        items = ["..."]
    elif summary and len(values) > 2 * n:
        items = [*map(formatter.padded, values[:n]), " ...", *map(formatter.padded, values[-n:])]
    else:
        items = [formatter.padded(v) for v in values]
    per_line = max(1, (_Current.options.linewidth - indent) // (formatter.width + 2))
    lines = [", ".join(items[k : k + per_line]) for k in range(0, len(items), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
