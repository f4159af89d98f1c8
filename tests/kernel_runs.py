"""Run a CPU kernel record on NumPy arrays, one call at a time; for the tests of code generation."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from graphc.codegen.cpu import CpuKernel, lower_kernel
from graphc.codegen.target import X86_64_V3, X86_64_V4, Target, host_target
from graphc.ir.expr_numpy import run_kernel
from graphc.ir.kernel import Kernel
from graphc.runtime.guard import guarded_empty
from graphc.runtime.llvm import LoadedCode, compile_text, load_objects

Array = np.ndarray[Any, Any]
_loaded: dict[tuple[str, str], LoadedCode] = {}


def host_targets() -> list[Target]:
    """Every target this machine can run."""
    host = host_target()
    return [X86_64_V3, X86_64_V4] if host is X86_64_V4 else [host]


def object_of(text: str, target: Target) -> bytes:
    """The object file of a module text; it needs no symbol of anyone else."""
    return compile_text(text, target)


def address_of(kernel: CpuKernel, target: Target) -> int:
    """The address of a kernel's function, compiled once."""
    code = _loaded.get((kernel.key, target.name))
    if code is None:
        code = _loaded[kernel.key, target.name] = load_objects([object_of(kernel.emit(target), target)])
    return code.address(kernel.symbol)


def guarded(array: Array, end: bool = True) -> Array:
    """A copy whose last (or first) byte touches memory that ends the process when it is read or written."""
    copy = guarded_empty(array.nbytes, end).view(array.dtype) if array.nbytes else array.copy()
    copy[...] = array.ravel()
    return copy


def run(kernel: Kernel, operands: Sequence[Array], target: Target, pieces: int = 1) -> None:
    """Run `kernel` on flat arrays, in place, its units cut into `pieces` calls."""
    run_cpu(lower_kernel(kernel), operands, target, pieces)


def run_cpu(made: CpuKernel, operands: Sequence[Array], target: Target, pieces: int = 1) -> None:
    """Run a lowered kernel on flat arrays, in place."""
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(
        address_of(made, target)
    )
    tables = [t.ctypes.data for t in made.tables]
    block = np.array([*(o.ctypes.data for o in operands), *made.params, *tables, 0], np.int64)
    scratch = np.zeros(made.scratch + 64, np.uint8)
    aligned = scratch.ctypes.data + (-scratch.ctypes.data) % 64
    for lo, hi in pairwise(made.units * k // pieces for k in range(pieces + 1)):
        if lo < hi:
            function(block.ctypes.data, lo, hi, aligned)


def bits(array: Array) -> bytes:
    """The bits of an array, all NaNs made one."""
    return (
        np.where(np.isnan(array), np.array(np.nan, array.dtype), array) if array.dtype.kind == "f" else array
    ).tobytes()


def check(kernel: Kernel, operands: Sequence[Array]) -> None:
    """The compiled kernel gives the bits of its NumPy meaning on every target, however its units are cut."""
    wanted = [o.copy() for o in operands]
    run_kernel(kernel, wanted)
    for target in host_targets():
        for pieces, end in ((1, True), (3, False)):
            got = [guarded(o, end) for o in operands]
            run(kernel, got, target, pieces)
            for k, (a, b) in enumerate(zip(wanted, got, strict=True)):
                assert bits(a) == bits(b), f"operand {k} on {target.name} in {pieces} pieces"
