"""The floating-point mode of the calling thread: rounding, flushing of denormals, traps.

Native code of ours sets its own mode and puts the caller's back (runtime/driver.py). These functions are for those who
test that, and for hosts that want to see or change the mode.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from graphc.runtime import llvm
from graphc.runtime.code import library, once
from graphc.runtime.driver import native_target

_X86 = """declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define i64 @graphc_get_mode() nounwind {
  %at = alloca i32, align 4
  call void @llvm.x86.sse.stmxcsr(ptr %at)
  %mode = load i32, ptr %at, align 4
  %wide = zext i32 %mode to i64
  ret i64 %wide
}
define void @graphc_set_mode(i64 %wide) nounwind {
  %at = alloca i32, align 4
  %mode = trunc i64 %wide to i32
  store i32 %mode, ptr %at, align 4
  call void @llvm.x86.sse.ldmxcsr(ptr %at)
  ret void
}
"""
_AARCH64 = """declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define i64 @graphc_get_mode() nounwind {
  %mode = call i64 @llvm.aarch64.get.fpcr()
  ret i64 %mode
}
define void @graphc_set_mode(i64 %mode) nounwind {
  call void @llvm.aarch64.set.fpcr(i64 %mode)
  ret void
}
"""
_STATUS = 0x3F  # MXCSR also holds flags of what has happened; they are no mode


@dataclass(frozen=True, slots=True)
class _Modes:
    get: Callable[[], int]
    set: Callable[[int], None]
    flush: int  # bits: denormal results become 0, denormal operands are read as 0
    roundings: dict[str, int]
    kept: int  # bits that are a mode
    plain: int  # nearest, nothing flushed, no traps


@once
def _modes() -> _Modes:
    x86 = llvm.host()[0].startswith("x86_64")
    loaded = library().module(lambda spec: _X86 if x86 else _AARCH64, native_target())
    get = ctypes.PYFUNCTYPE(ctypes.c_int64)(loaded.address("graphc_get_mode"))
    put = ctypes.PYFUNCTYPE(None, ctypes.c_int64)(loaded.address("graphc_set_mode"))
    shift, down, up = (13, 1, 2) if x86 else (22, 2, 1)
    roundings = {"nearest": 0, "down": down << shift, "up": up << shift, "zero": 3 << shift}
    return _Modes(get, put, 0x8040 if x86 else 1 << 24, roundings, ~_STATUS if x86 else -1, 0x1F80 if x86 else 0)


def get_float_mode() -> int:
    """The mode of this thread as the processor has it (MXCSR without its status flags, FPCR)."""
    modes = _modes()
    return modes.get() & modes.kept


@contextmanager
def float_mode(flush: bool = True, rounding: str = "nearest") -> Iterator[int]:
    """While active, this thread flushes denormals (`flush`) and rounds "nearest", "down", "up" or to "zero". Gives the
    mode. Python's own arithmetic follows it.
    """
    modes = _modes()
    before = modes.get()
    mode = before & ~modes.flush & ~modes.roundings["zero"] | modes.roundings[rounding] | (modes.flush if flush else 0)
    modes.set(mode)
    try:
        yield mode & modes.kept
    finally:
        modes.set(before)


@contextmanager
def plain_mode() -> Iterator[None]:
    """While active, this thread rounds to nearest, keeps denormals and does not trap: for arithmetic of Python and
    NumPy whose results are part of a program.
    """
    modes = _modes()
    before = modes.get()
    if before & modes.kept == modes.plain:
        yield
        return
    modes.set(modes.plain)
    try:
        yield
    finally:
        modes.set(before)
