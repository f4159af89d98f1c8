"""The dtypes under their public names, and numbers."""

from __future__ import annotations

import math

from graphc.ir.types import DType as dtype
from graphc.ir.types import bool_ as bool
from graphc.ir.types import float32, float64, int64

__all__ = [
    "bool", "contiguous_format", "double", "dtype", "e", "float", "float32", "float64", "inf", "int64", "long", "nan",
    "pi", "preserve_format",
]  # fmt: skip

float = float32
double = float64
long = int64

e = math.e
inf = math.inf
nan = math.nan
pi = math.pi

contiguous_format = "contiguous_format"
preserve_format = "preserve_format"
