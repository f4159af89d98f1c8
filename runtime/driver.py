"""The native loop over the kernels of a graph, as LLVM text, and the functions Python calls in it.

`graphc_run(frame)` runs a whole graph: it puts the addresses of inputs and outputs where the kernels look for them,
then runs each kernel, in chunks on the pool where it is large enough. Floating-point mode (rounding, flushing, traps)
is the default inside and the caller's again outside: host programs do change it.

Frame, in 8-byte words: calls, number of calls, relocations, number of relocations, io, data offset, scratch, pool.
Call: function, block, units, grain. Relocation: address of a block word (or of the scratch word), index into io, byte
offset to add.
io holds data addresses, or (data offset >= 0) addresses of objects that hold the data address at that offset.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from graphc.runtime import llvm
from graphc.runtime.code import library, once
from graphc.runtime.entry_ir import entry_text
from graphc.runtime.llvm import TargetSpec
from graphc.runtime.pool_ir import fill, machine_of, pool_text

FRAME_WORDS = 8
CALL_WORDS = 4
RELOCATION_WORDS = 3

_RUN = """define void @graphc_run(ptr %frame) nounwind {
entry:
  $set_mode
  %calls = load ptr, ptr %frame, align 8
  %f1 = getelementptr i64, ptr %frame, i64 1
  %n = load i64, ptr %f1, align 8
  %f2 = getelementptr i64, ptr %frame, i64 2
  %relocations = load ptr, ptr %f2, align 8
  %f3 = getelementptr i64, ptr %frame, i64 3
  %m = load i64, ptr %f3, align 8
  %f4 = getelementptr i64, ptr %frame, i64 4
  %io = load ptr, ptr %f4, align 8
  %f5 = getelementptr i64, ptr %frame, i64 5
  %data = load i64, ptr %f5, align 8
  %scratch.at = getelementptr i64, ptr %frame, i64 6
  %f7 = getelementptr i64, ptr %frame, i64 7
  %pool = load ptr, ptr %f7, align 8
  %objects = icmp sge i64 %data, 0
  %pooled = icmp ne ptr %pool, null
  %limit.at = getelementptr i8, ptr %pool, i64 $LIMIT
  %lock = getelementptr i8, ptr %pool, i64 $LOCK
  br label %relocate
relocate:
  %k = phi i64 [ 0, %entry ], [ %k1, %store ]
  %more = icmp slt i64 %k, %m
  br i1 %more, label %fetch, label %ready
fetch:
  %k3 = mul i64 %k, 3
  %r0 = getelementptr i64, ptr %relocations, i64 %k3
  %word = load ptr, ptr %r0, align 8
  %r1 = getelementptr i64, ptr %r0, i64 1
  %index = load i64, ptr %r1, align 8
  %r2 = getelementptr i64, ptr %r0, i64 2
  %offset = load i64, ptr %r2, align 8
  %given.at = getelementptr i64, ptr %io, i64 %index
  %given = load ptr, ptr %given.at, align 8
  br i1 %objects, label %inside, label %store
inside:
  %held.at = getelementptr i8, ptr %given, i64 %data
  %held = load ptr, ptr %held.at, align 8
  br label %store
store:
  %base = phi ptr [ %given, %fetch ], [ %held, %inside ]
  %address = getelementptr i8, ptr %base, i64 %offset
  store ptr %address, ptr %word, align 8
  %k1 = add i64 %k, 1
  br label %relocate
ready:
  %scratch = load ptr, ptr %scratch.at, align 8
  br label %next
next:
  %i = phi i64 [ 0, %ready ], [ %i1, %done ]
  %left = icmp slt i64 %i, %n
  br i1 %left, label %call, label %leave
call:
  %i4 = shl i64 %i, 2
  %c0 = getelementptr i64, ptr %calls, i64 %i4
  %function = load ptr, ptr %c0, align 8
  %c1 = getelementptr i64, ptr %c0, i64 1
  %block = load ptr, ptr %c1, align 8
  %c2 = getelementptr i64, ptr %c0, i64 2
  %units = load i64, ptr %c2, align 8
  %c3 = getelementptr i64, ptr %c0, i64 3
  %grain = load i64, ptr %c3, align 8
  %large = icmp sgt i64 %units, %grain
  %split = and i1 %large, %pooled
  br i1 %split, label %team, label %alone
team:
  %limit = load atomic i64, ptr %limit.at acquire, align 8
  %others = icmp sgt i64 %limit, 0
  br i1 %others, label %try, label %alone
try:
  %swap = cmpxchg ptr %lock, i32 0, i32 1 acquire monotonic
  %won = extractvalue { i32, i1 } %swap, 1
  br i1 %won, label %share, label %alone
share:
  call void @parallel(ptr %pool, ptr %function, ptr %block, i64 %units, i64 %grain, ptr %scratch.at)
  store atomic i32 0, ptr %lock release, align 4
  br label %done
alone:
  call void %function(ptr %block, i64 0, i64 %units, ptr %scratch)
  br label %done
done:
  %i1 = add i64 %i, 1
  br label %next
leave:
  $restore_mode
  ret void
}
"""


@dataclass(frozen=True, slots=True)
class _Portable:
    triple: str
    cpu: str
    features: str


@dataclass(frozen=True, slots=True)
class Native:
    """The native functions, as Python calls and as addresses. A call through ctypes lets other Python threads run."""

    run: Callable[[int], None]
    run_held: Callable[[int], None]  # the same, keeping the interpreter lock
    try_lock: Callable[[int], int]
    unlock: Callable[[int], None]
    wake_all: Callable[[int], None]
    worker: int
    entry: int  # runtime/entry.py
    view: int


def driver_text(triple: str) -> str:
    """The LLVM text of driver, pool and entries. Raises UnsupportedError for a processor it does not know."""
    return pool_text(triple) + fill(_RUN, machine_of(triple)) + entry_text(8 * FRAME_WORDS)


def native_target() -> TargetSpec:
    """What the code of the runtime itself is compiled for."""
    triple = llvm.host()[0]
    x86 = triple.startswith("x86_64")
    return _Portable(triple, "x86-64-v3" if x86 else "generic", "")


@once
def native() -> Native:
    """The functions of this machine, compiled or taken from the cache at the first use. Raises UnsupportedError."""
    names = ("graphc_run", "graphc_try_lock", "graphc_unlock", "graphc_wake_all", "graphc_worker")
    target = native_target()
    loaded = library().module(lambda spec: driver_text(spec.triple), target)
    run, try_lock, unlock, wake_all, worker = (loaded.address(name) for name in names)
    entry, view = loaded.address("graphc_entry"), loaded.address("graphc_view")
    address = ctypes.c_void_p
    return Native(
        ctypes.CFUNCTYPE(None, address)(run),
        ctypes.PYFUNCTYPE(None, address)(run),
        ctypes.CFUNCTYPE(ctypes.c_int64, address)(try_lock),
        ctypes.CFUNCTYPE(None, address)(unlock),
        ctypes.CFUNCTYPE(None, address)(wake_all),
        worker,
        entry,
        view,
    )
