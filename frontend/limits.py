"""Limits of dtypes: finfo and iinfo."""

from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError
from graphc.frontend.promote import get_default_dtype
from graphc.ir.types import DType

__all__ = [
    "finfo", "iinfo",
]  # fmt: skip


class finfo:
    """Limits of a floating-point dtype: bits, eps, max, min, tiny, smallest_normal, resolution.

    Raises DTypeError for another.
    """

    def __init__(self, type: DType | None = None) -> None:
        dtype = get_default_dtype() if type is None else type
        if not isinstance(dtype, DType) or not dtype.is_floating_point:
            raise DTypeError(f"finfo: requires a floating-point dtype, got {dtype!r}; use iinfo for integers")
        found = np.finfo(dtype.np)
        self.bits, self.dtype = int(found.bits), dtype.name
        self.eps, self.max, self.min = float(found.eps), float(found.max), float(found.min)
        self.tiny = self.smallest_normal = float(found.tiny)
        self.resolution = float(found.resolution)

    def __repr__(self) -> str:
        names = ("resolution", "min", "max", "eps", "tiny")
        numbers = ", ".join(f"{name}={getattr(self, name):g}" for name in names)
        return f"finfo({numbers}, dtype={self.dtype})"


class iinfo:
    """Limits of an integer dtype: bits, max, min. Raises DTypeError for another."""

    def __init__(self, type: DType) -> None:
        if not isinstance(type, DType) or type.kind != "i":
            raise DTypeError(f"iinfo: requires an integer dtype, got {type!r}; use finfo for floating point")
        found = np.iinfo(type.np)
        self.bits, self.dtype = int(found.bits), type.name
        self.max, self.min = int(found.max), int(found.min)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"
