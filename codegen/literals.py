"""Numbers as LLVM text."""

from __future__ import annotations

import math
import struct


def float_text(value: float, single: bool) -> str:
    """The exact hexadecimal literal LLVM reads; floats are written with the bits of their double."""
    if math.isnan(value):
        return "0x7FF8000000000000"
    if single:
        try:
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        except OverflowError:
            value = math.copysign(math.inf, value)
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
