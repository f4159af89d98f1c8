"""Scalar: a Python number that a recording follows.

It is no subclass of float or int: those are read by `math.sqrt`, `range` or `*` without any hook. Arithmetic with numbers, Scalars
and Tensors is recorded as float64 or int64 operations; a comparison is a guard; formatting shows the number; only `__float__`,
`__int__` and `__index__` force it.
"""

from __future__ import annotations

from typing import Any

from graphc.frontend.mode import RecorderHooks
from graphc.frontend.tensor import Tensor
from graphc.ir.op import op_named
from graphc.ir.types import DType, bool_, float64, int64


class Scalar:
    """A number inside a recording: `number` is its value now, `tensor` the 0-d float64, int64 or bool tensor it stands for."""

    __slots__ = ("__weakref__", "number", "recorder", "tensor")

    def __init__(self, tensor: Tensor, number: bool | int | float, recorder: RecorderHooks) -> None:
        self.tensor = tensor
        self.number = number
        self.recorder = recorder

    def as_tensor(self, dtype: DType) -> Tensor:
        """The scalar as a 0-d tensor of `dtype`."""
        if self.tensor.dtype is dtype:
            return self.tensor
        cast: Tensor = op_named("cast")(self.tensor, dtype=dtype)
        return cast

    def _wide(self) -> Tensor:
        return self.as_tensor(int64) if self.tensor.dtype is bool_ else self.tensor

    def _binary(self, name: str, other: Any, swap: bool = False) -> Any:
        if isinstance(other, Tensor):
            return NotImplemented
        if not isinstance(other, (Scalar, bool, int, float)):
            return NotImplemented
        mine = self._wide()
        if isinstance(other, Scalar):
            theirs: Any = other._wide()
        else:
            theirs = other
        real = mine.dtype is float64 or isinstance(other, float) or (isinstance(other, Scalar) and other.tensor.dtype is float64) or name == "div"
        wide = float64 if real else int64
        x: Any = self.as_tensor(wide)
        y: Any = other.as_tensor(wide) if isinstance(other, Scalar) else type(wide.np.type(theirs).item())(theirs)
        out: Tensor = op_named(name)(y, x) if swap else op_named(name)(x, y)
        return Scalar(out, out._a.item(), self.recorder)

    def __add__(self, other: Any) -> Any:
        return self._binary("add", other)

    def __radd__(self, other: Any) -> Any:
        return self._binary("add", other, swap=True)

    def __sub__(self, other: Any) -> Any:
        return self._binary("sub", other)

    def __rsub__(self, other: Any) -> Any:
        return self._binary("sub", other, swap=True)

    def __mul__(self, other: Any) -> Any:
        return self._binary("mul", other)

    def __rmul__(self, other: Any) -> Any:
        return self._binary("mul", other, swap=True)

    def __truediv__(self, other: Any) -> Any:
        return self._binary("div", other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._binary("div", other, swap=True)

    def __neg__(self) -> Any:
        return self._binary("mul", -1)

    def _compare(self, name: str, other: Any) -> Any:
        answer = self._binary(name, other)
        if answer is NotImplemented:
            return NotImplemented
        self.recorder.on_bool(answer.tensor, bool(answer.number))
        return bool(answer.number)

    def __lt__(self, other: Any) -> Any:
        return self._compare("lt", other)

    def __le__(self, other: Any) -> Any:
        return self._compare("le", other)

    def __gt__(self, other: Any) -> Any:
        return self._compare("gt", other)

    def __ge__(self, other: Any) -> Any:
        return self._compare("ge", other)

    def __eq__(self, other: object) -> Any:
        return self._compare("eq", other)

    def __ne__(self, other: object) -> Any:
        return self._compare("ne", other)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self != 0)

    def __float__(self) -> float:
        self.recorder.on_escape(self.tensor, "float()")
        return float(self.number)

    def __int__(self) -> int:
        return self._forced("int()")

    def __index__(self) -> int:
        if self.tensor.dtype is float64:
            raise TypeError("'float' object cannot be interpreted as an integer")
        return self._forced("an index")

    def _forced(self, what: str) -> int:
        if self.tensor.dtype is float64:
            self.recorder.on_escape(self.tensor, what)
            return int(self.number)
        same: Tensor = op_named("eq")(self.as_tensor(int64), int(self.number))
        self.recorder.on_bool(same, True)
        return int(self.number)

    def __repr__(self) -> str:
        return repr(self.number)

    def __format__(self, spec: str) -> str:
        return format(self.number, spec)

    def item(self) -> Any:
        """Itself, as a Python number has no item()."""
        return self
