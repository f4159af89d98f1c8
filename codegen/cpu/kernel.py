"""What a template hands to the runtime: code that can be shared, and the numbers that make it one kernel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.codegen.emit import I64, PTR, Emitter, V
from graphc.codegen.target import Target


@dataclass(frozen=True, slots=True)
class CpuKernel:
    """`emit(target)` is LLVM text defining `void @symbol(ptr block, i64 lo, i64 hi, ptr scratch)`: does units lo..hi.

    Equal `key`, equal code. The block is an array of 8-byte words: [operand addresses…][params…][table addresses…].
    `units` is the number of parallel units, `grain` the least worth a thread's chunk, `scratch` the bytes of 64-byte
    aligned memory each thread needs.
    """

    key: str
    emit: Callable[[Target], str]
    params: tuple[int, ...]
    tables: tuple[np.ndarray[Any, np.dtype[np.int64]], ...]
    units: int
    grain: int
    scratch: int

    @property
    def symbol(self) -> str:
        """The name of the function in the emitted text."""
        return symbol_of(self.key)


def symbol_of(key: str) -> str:
    """The symbol of the kernel with this key."""
    return "k_" + hashlib.sha256(key.encode()).hexdigest()[:24]


def kernel_text(key: str, target: Target, body: Callable[[Emitter, V, V, V, V], None]) -> str:
    """The module text of one kernel; `body(e, block, lo, hi, scratch)` writes its function."""
    e = Emitter(target, symbol_of(key))
    with e.function(symbol_of(key), [(PTR, "block"), (I64, "lo"), (I64, "hi"), (PTR, "scratch")]) as args:
        body(e, *args)
    return e.text()
