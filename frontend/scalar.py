"""Scalar: a Python number that a recording follows.

It is no subclass of float or int: those are read by `math.sqrt`, `range` or `*` without any hook (`isinstance` is
answered as for the number). Arithmetic with numbers, Scalars and Tensors is recorded as float64 or int64 operations; a
comparison is a guard; formatting shows the number. Whatever else is asked of it forces the number: a guard for an int,
the end of the recording for a float.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.frontend.mode import RecorderHooks
from graphc.frontend.tensor import Tensor
from graphc.ir.op import op_named
from graphc.ir.types import DType, float64, int64

_LIMIT = 2**63


class Scalar:
    """A number inside a recording: `number` is its value now, `tensor` the 0-d float64, int64 or bool tensor it stands
    for.
    """

    __slots__ = ("__weakref__", "number", "recorder", "tensor")

    def __init__(self, tensor: Tensor, number: bool | int | float, recorder: RecorderHooks) -> None:
        self.tensor = tensor
        self.number = number
        self.recorder = recorder

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """What `isinstance` sees: the type of the number."""
        return type(self.number)

    def as_tensor(self, dtype: DType) -> Tensor:
        """The scalar as a 0-d tensor of `dtype`."""
        if self.tensor.dtype is dtype:
            return self.tensor
        cast: Tensor = op_named("cast")(self.tensor, dtype=dtype)
        return cast

    def _force(self, what: str) -> Any:
        """The number itself: a guard for an int or bool, the end of the recording for a float."""
        if self.tensor.dtype is float64:
            self.recorder.on_escape(self.tensor, what)
        else:
            self.recorder.on_int(self.tensor, int(self.number))
        return self.number

    def plain(self) -> Any:
        """The number, forced: an attribute of an operation."""
        return self._force("a setting of an operation")

    def _binary(self, name: str, other: Any, compute: Callable[[Any, Any], Any], swap: bool = False) -> Any:
        given: Any = other  # a Scalar is an int or float for isinstance(), and for the type checker from here on
        if isinstance(other, Tensor) or not isinstance(other, (bool, int, float)):
            return NotImplemented
        theirs = given.number if type(given) is Scalar else other
        result = compute(theirs, self.number) if swap else compute(self.number, theirs)  # raises what Python raises
        real = name == "div" or float in (type(self.number), type(theirs))
        if not real and not -_LIMIT <= result < _LIMIT:
            self.recorder.on_escape(self.tensor, "an integer beyond 64 bits")
            return result
        if name == "div":
            self._not_zero(self if swap else given)
        wide = float64 if real else int64
        x: Any = self.as_tensor(wide)
        y: Any = given.as_tensor(wide) if type(given) is Scalar else (float(theirs) if real else int(theirs))
        out: Tensor = op_named(name)(y, x) if swap else op_named(name)(x, y)
        return Scalar(out, result, self.recorder)

    def _not_zero(self, divisor: Any) -> None:
        """Python raises for a division by zero, so it is a condition that there is none."""
        if type(divisor) is Scalar:
            test: Tensor = op_named("ne")(divisor.tensor, 0)
            self.recorder.on_bool(test, True)

    def __add__(self, other: Any) -> Any:
        return self._binary("add", other, operator.add)

    def __radd__(self, other: Any) -> Any:
        return self._binary("add", other, operator.add, swap=True)

    def __sub__(self, other: Any) -> Any:
        return self._binary("sub", other, operator.sub)

    def __rsub__(self, other: Any) -> Any:
        return self._binary("sub", other, operator.sub, swap=True)

    def __mul__(self, other: Any) -> Any:
        return self._binary("mul", other, operator.mul)

    def __rmul__(self, other: Any) -> Any:
        return self._binary("mul", other, operator.mul, swap=True)

    def __truediv__(self, other: Any) -> Any:
        return self._binary("div", other, operator.truediv)

    def __rtruediv__(self, other: Any) -> Any:
        return self._binary("div", other, operator.truediv, swap=True)

    def _whole(self, name: str, other: Any, compute: Callable[[Any, Any], Any]) -> Any:
        """Floor division and remainder by an int known now are recorded for ints; anything else forces the number."""
        if type(self.number) is int and type(other) is int and other != 0:
            return self._binary(name, other, compute)
        return NotImplemented if isinstance(other, Tensor) else compute(self._force(name), other)

    def __floordiv__(self, other: Any) -> Any:
        return self._whole("floor_divide", other, operator.floordiv)

    def __mod__(self, other: Any) -> Any:
        return self._whole("remainder", other, operator.mod)

    def __neg__(self) -> Any:
        return self._binary("mul", -1, operator.mul)

    def __pos__(self) -> Any:
        return self._binary("mul", 1, operator.mul)

    def __abs__(self) -> Any:
        if type(self.number) is bool:
            return abs(self._force("abs()"))
        out: Tensor = op_named("abs")(self.tensor)
        return Scalar(out, abs(self.number), self.recorder)

    def _compare(self, name: str, other: Any, compute: Callable[[Any, Any], Any]) -> Any:
        answer = self._binary(name, other, compute)
        if answer is NotImplemented:
            return NotImplemented
        self.recorder.on_bool(answer.tensor, bool(answer.number))
        return bool(answer.number)

    def __lt__(self, other: Any) -> Any:
        return self._compare("lt", other, operator.lt)

    def __le__(self, other: Any) -> Any:
        return self._compare("le", other, operator.le)

    def __gt__(self, other: Any) -> Any:
        return self._compare("gt", other, operator.gt)

    def __ge__(self, other: Any) -> Any:
        return self._compare("ge", other, operator.ge)

    def __eq__(self, other: object) -> Any:
        return self._compare("eq", other, operator.eq)

    def __ne__(self, other: object) -> Any:
        return self._compare("ne", other, operator.ne)

    def __bool__(self) -> bool:
        return bool(self != 0)

    def __index__(self) -> int:
        if self.tensor.dtype is float64:
            raise TypeError("'float' object cannot be interpreted as an integer")
        return int(self._force("an index"))

    def __repr__(self) -> str:
        self.recorder.on_text(self.tensor)
        return repr(self.number)

    def __format__(self, spec: str) -> str:
        self.recorder.on_text(self.tensor)
        return format(self.number, spec)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self._force("a NumPy function"), dtype)

    def __getattr__(self, name: str) -> Any:
        if name == "item" or not hasattr(self.number, name):
            raise AttributeError(f"{type(self.number).__name__!r} object has no attribute {name!r}")
        return getattr(self._force(name), name)


def _forced(what: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Scalar, *others: Any) -> Any:
        if others and isinstance(others[0], Tensor):
            return NotImplemented
        return compute(self._force(what), *others)

    return method


def _swapped(compute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda number, other: compute(other, number)


for _name, _what, _compute in (
    ("__float__", "float()", float),
    ("__int__", "int()", int),
    ("__complex__", "complex()", complex),
    ("__hash__", "hash()", hash),
    ("__round__", "round()", round),
    ("__trunc__", "math.trunc()", math.trunc),
    ("__floor__", "math.floor()", math.floor),
    ("__ceil__", "math.ceil()", math.ceil),
    ("__divmod__", "divmod()", divmod),
    ("__pow__", "**", pow),
    ("__lshift__", "<<", operator.lshift),
    ("__rshift__", ">>", operator.rshift),
    ("__and__", "&", operator.and_),
    ("__or__", "|", operator.or_),
    ("__xor__", "^", operator.xor),
    ("__invert__", "~", operator.invert),
    ("__rfloordiv__", "//", _swapped(operator.floordiv)),
    ("__rmod__", "%", _swapped(operator.mod)),
    ("__rdivmod__", "divmod()", _swapped(divmod)),
    ("__rpow__", "**", _swapped(pow)),
    ("__rlshift__", "<<", _swapped(operator.lshift)),
    ("__rrshift__", ">>", _swapped(operator.rshift)),
    ("__rand__", "&", _swapped(operator.and_)),
    ("__ror__", "|", _swapped(operator.or_)),
    ("__rxor__", "^", _swapped(operator.xor)),
):
    setattr(Scalar, _name, _forced(_what, _compute))


def holds_scalar(x: Any) -> bool:
    """True for a Scalar, and for lists and tuples that hold one at any depth."""
    if isinstance(x, (list, tuple)):
        return any(map(holds_scalar, x))
    return isinstance(x, (Scalar, Tensor))
