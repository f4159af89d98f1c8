"""The dtypes under their public names, memory formats, and numbers."""

from __future__ import annotations

import math

from graphc.ir.types import DType as dtype
from graphc.ir.types import (
    bfloat16,
    bool_,
    complex64,
    complex128,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
)

__all__ = [
    "bfloat16", "bool", "cdouble", "cfloat", "channels_last", "complex64", "complex128", "contiguous_format", "double",
    "dtype", "e", "float", "float16", "float32", "float64", "half", "inf", "int", "int8", "int16", "int32", "int64",
    "layout", "long", "memory_format", "nan", "newaxis", "pi", "preserve_format", "short", "strided", "uint8",
]  # fmt: skip

bool = bool_
half = float16
float = float32
double = float64
short = int16
int = int32
long = int64
cfloat = complex64
cdouble = complex128

e = math.e
inf = math.inf
nan = math.nan
newaxis = None
pi = math.pi


class memory_format:
    """How elements lie in memory: accepted where PyTorch takes one. Tensors made here are row-major."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"graphc.{self.name}"


class layout(memory_format):
    """Dense or sparse: `strided` is the only one here."""


contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last")
strided = layout("strided")
