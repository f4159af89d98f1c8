"""Limits of dtypes: finfo and iinfo."""

from __future__ import annotations

import math

from graphc.errors import DTypeError
from graphc.frontend.promote import as_dtype, get_default_dtype
from graphc.ir.types import DType, bfloat16, complex64, complex128, float16, float32, float64

__all__ = [
    "finfo", "iinfo",
]  # fmt: skip

# digits of the significand, exponent of the smallest normal number (IEEE 754; bfloat16 has the exponents of float32)
_FLOATS = {float16: (11, -14), bfloat16: (8, -126), float32: (24, -126), float64: (53, -1022)}


class finfo:
    """Limits of a floating-point dtype: bits, eps, max, min, tiny, smallest_normal, resolution.

    Without a dtype those of the default one, of a complex dtype those of its parts. Raises DTypeError for another.
    """

    def __init__(self, type: DType | None = None) -> None:
        given = get_default_dtype() if type is None else as_dtype("finfo", type)
        dtype = {complex64: float32, complex128: float64}.get(given, given)
        if not dtype.is_floating_point:
            raise DTypeError(f"finfo: requires a floating-point dtype, got {dtype!r}; use iinfo for integers")
        digits, least = _FLOATS[dtype]
        self.bits, self.dtype = dtype.bits, dtype.name
        self.eps = 2.0 ** (1 - digits)
        self.max = math.ldexp(2.0 - self.eps, 1 - least)
        self.min = -self.max
        self.tiny = self.smallest_normal = math.ldexp(1.0, least)
        self.resolution = float(f"1e-{math.floor((digits - 1) * math.log10(2.0))}")

    def __repr__(self) -> str:
        names = ("resolution", "min", "max", "eps", "smallest_normal", "tiny")
        numbers = ", ".join(f"{name}={getattr(self, name):g}" for name in names)
        return f"finfo({numbers}, dtype={self.dtype})"


class iinfo:
    """Limits of an integer dtype: bits, max, min. Raises DTypeError for another."""

    def __init__(self, type: DType) -> None:
        dtype = as_dtype("iinfo", type)
        if not dtype.is_integer:
            raise DTypeError(f"iinfo: requires an integer dtype, got {dtype!r}; use finfo for floating point")
        self.bits, self.dtype = dtype.bits, dtype.name
        self.max = 2 ** (dtype.bits - dtype.is_signed) - 1
        self.min = -self.max - 1 if dtype.is_signed else 0

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"
