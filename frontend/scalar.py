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
_EXACT = 2**53  # up to here every int is a float64
_SAFE = 2.0**62  # a float64 result below is an int64 result that fits


_GROWS = frozenset({"add", "sub", "mul", "floor_divide"})


def _bound(name: str, a: int, b: int) -> int:
    """How large the int result of an operation can get."""
    if name == "mul":
        return a * b
    if name in ("add", "sub"):
        return a + b
    return {"remainder": b, "floor_divide": a}.get(name, 1)


class Scalar:
    """A number inside a recording: `number` is its value now, `tensor` the 0-d float64, int64 or bool tensor it stands
    for. In later calls an int lies within +-`bound`. Its class has the name of the number's: messages mention it.
    """

    __slots__ = ("__weakref__", "bound", "number", "recorder", "size", "tensor")

    def __new__(cls, tensor: Tensor, number: bool | int | float, *rest: Any) -> Scalar:
        """One of the class for its type."""
        return object.__new__(_OF_TYPE[type(number)])

    def __init__(
        self, tensor: Tensor, number: bool | int | float, recorder: RecorderHooks, bound: int = _LIMIT
    ) -> None:
        self.tensor = tensor
        self.bound = bound
        self.number = number
        self.recorder = recorder
        self.size: Any = None  # the named size (a Dim) whose number this is

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
        theirs = given.number if isinstance(given, Scalar) else other
        if name == "div":
            self._zero(self if swap else given)
        result = compute(theirs, self.number) if swap else compute(self.number, theirs)  # raises what Python raises
        real = name == "div" or float in (type(self.number), type(theirs))
        if real and not (self._exact() and (given._exact() if isinstance(given, Scalar) else self._meets(theirs))):
            return result
        wide = float64 if real else int64
        x: Any = self.as_tensor(wide)
        y: Any = given.as_tensor(wide) if isinstance(given, Scalar) else (float(theirs) if real else theirs)
        if not real and not -_LIMIT <= theirs < _LIMIT:
            self.recorder.on_escape(self.tensor, "an integer beyond 64 bits")
            return result
        theirs_bound = given.bound if isinstance(given, Scalar) else int(abs(theirs)) if not real else 0
        bound = _LIMIT if real else _bound(name, self.bound, theirs_bound)
        first, second = (y, x) if swap else (x, y)
        size = self._sized(name, given, swap) if not real else None
        if bound >= _LIMIT and not real and name in _GROWS and not self._fits(name, first, second, result):
            return result
        out: Tensor = op_named(name)(first, second)
        made = Scalar(out, result, self.recorder, min(bound, _LIMIT))
        made.size = size
        return made

    def _sized(self, name: str, other: Any, swap: bool) -> Any:
        """The size that a sum, difference or product of sizes is."""
        theirs = other.size if isinstance(other, Scalar) else other if type(other) is int else None
        if self.size is None or theirs is None or name not in ("add", "sub", "mul"):
            return None
        a, b = (theirs, self.size) if swap else (self.size, theirs)
        found = {"add": operator.add, "sub": operator.sub, "mul": operator.mul}[name](a, b)
        return None if type(found) is int else found

    def _fits(self, name: str, x: Any, y: Any, result: int) -> bool:
        """Python's ints never overflow, so it is a condition that the result has 64 bits; False where it has not."""
        if not abs(result) < _SAFE:
            self.recorder.on_escape(self.tensor, "an integer beyond 64 bits")
            return False
        x, y = (op_named("cast")(t, dtype=float64) if isinstance(t, Tensor) else float(t) for t in (x, y))
        size: Tensor = op_named("abs")(op_named(name)(x, y))
        self.recorder.on_bool(op_named("lt")(size, _SAFE), True)
        return True

    def _exact(self) -> bool:
        """True where float64 holds the number, now and in later calls; else the recording ends."""
        if self.tensor.dtype is not int64 or self.bound <= _EXACT:
            return True
        if abs(self.number) > _EXACT:
            self.recorder.on_escape(self.tensor, "an integer beyond 53 bits that meets a float")
            return False
        for name, limit in (("ge", -_EXACT), ("le", _EXACT)):
            self.recorder.on_bool(op_named(name)(self.tensor, limit), True)
        return True

    def _meets(self, number: int | float) -> bool:
        """True for a plain number that float64 holds; else the recording ends."""
        if isinstance(number, float) or abs(number) <= _EXACT:
            return True
        self.recorder.on_escape(self.tensor, "an integer beyond 53 bits that meets a float")
        return False

    def _zero(self, divisor: Any) -> None:
        """Python raises for a division by zero, so it is a condition whether there is one."""
        if isinstance(divisor, Scalar):
            test: Tensor = op_named("ne")(divisor.tensor, 0)
            self.recorder.on_bool(test, bool(divisor.number != 0))

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
        if type(self.number) is int and type(other) is int and other != 0 and (other != -1 or self.bound < _LIMIT):
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
        if (
            self.tensor.dtype is int64
            and self.bound >= _LIMIT
            and not self._fits("mul", self.tensor, 1, int(self.number))
        ):
            return abs(self.number)
        out: Tensor = op_named("abs")(self.tensor)
        return Scalar(out, abs(self.number), self.recorder, self.bound)

    def _compare(self, name: str, other: Any, compute: Callable[[Any, Any], Any]) -> Any:
        answer = self._binary(name, other, compute)
        if not isinstance(answer, Scalar):
            return answer
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

    def __repr__(self) -> str:
        self.recorder.on_text(self.tensor)
        return repr(self.number)

    def __format__(self, spec: str) -> str:
        self.recorder.on_text(self.tensor)
        return format(self.number, spec)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self._force("a NumPy function"), dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [x._force("a NumPy function") if isinstance(x, Scalar) else x for x in inputs]
        return getattr(ufunc, method)(*plain, **kwargs)

    def __copy__(self) -> Scalar:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Scalar:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self.number), (self._force("pickle"),)

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


def _index(self: Scalar) -> int:
    return int(self._force("an index"))


def _class_of(kind: type) -> type:
    body: dict[str, Any] = {"__slots__": (), "__doc__": Scalar.__doc__}
    return type(kind.__name__, (Scalar,), body if kind is float else {**body, "__index__": _index})


_OF_TYPE = {kind: _class_of(kind) for kind in (bool, int, float)}
