"""Float values with operators, for formulas that read as formulas: every operator is one IEEE 754 instruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.codegen.emit import Emitter, V


@dataclass(frozen=True, slots=True)
class F:
    """A float32 or float64 value, scalar or vector. Numbers become literals of its type."""

    e: Emitter
    v: V

    def like(self, x: float) -> F:
        """A literal of this type."""
        return F(self.e, self.e.const(self.v.ty, x))

    def _v(self, x: F | float) -> V:
        return x.v if isinstance(x, F) else self.e.const(self.v.ty, x)

    def __add__(self, x: F | float) -> F:
        return F(self.e, self.e.bin("fadd", self.v, self._v(x)))

    def __sub__(self, x: F | float) -> F:
        return F(self.e, self.e.bin("fsub", self.v, self._v(x)))

    def __mul__(self, x: F | float) -> F:
        return F(self.e, self.e.bin("fmul", self.v, self._v(x)))

    def __truediv__(self, x: F | float) -> F:
        return F(self.e, self.e.bin("fdiv", self.v, self._v(x)))

    def __rsub__(self, x: float) -> F:
        return self.like(x) - self

    def __neg__(self) -> F:
        return F(self.e, self.e.neg(self.v))

    def __abs__(self) -> F:
        return F(self.e, self.e.intrinsic("fabs", self.v))

    def fma(self, x: F | float, y: F | float) -> F:
        """self * x + y, rounded once."""
        return F(self.e, self.e.fma(self.v, self._v(x), self._v(y)))

    def with_sign(self, x: F) -> F:
        """The magnitude of self with the sign of x."""
        return F(self.e, self.e.intrinsic("copysign", self.v, x.v))

    def floor(self) -> F:
        """Rounded down."""
        return F(self.e, self.e.intrinsic("floor", self.v))

    def polynomial(self, coefficients: Sequence[float]) -> F:
        """Horner's rule with fma, highest coefficient first."""
        total = self.like(coefficients[0])
        for c in coefficients[1:]:
            total = total.fma(self, c)
        return total

    def test(self, predicate: str, x: F | float) -> V:
        """A comparison by its LLVM name (olt, ogt, oeq, une, uno …)."""
        return self.e.fcmp(predicate, self.v, self._v(x))

    def where(self, cond: V, otherwise: F | float) -> F:
        """cond ? self : otherwise."""
        return F(self.e, self.e.select(cond, self.v, self._v(otherwise)))

    def clamp(self, low: float, high: float) -> F:
        """Cut to [low, high]; NaN stays."""
        at_least = self.like(low).where(self.test("olt", low), self)
        return self.like(high).where(at_least.test("ogt", high), at_least)

    def convert(self, name: str, to: str) -> F:
        """fpext or fptrunc."""
        return F(self.e, self.e.convert(name, self.v, to))

    @property
    def bits(self) -> V:
        """The same bits as an integer."""
        return self.e.convert("bitcast", self.v, "i64" if self.double else "i32")

    @property
    def double(self) -> bool:
        """True for float64."""
        return self.v.ty.elem == "double"


def from_bits(e: Emitter, v: V) -> F:
    """The float with the bits of an integer."""
    return F(e, e.convert("bitcast", v, "double" if v.ty.elem == "i64" else "float"))
