"""Run a CPU kernel record on NumPy arrays, straight through llvmlite; for the tests of code generation."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from graphc.codegen.cpu import CpuKernel, lower_kernel
from graphc.codegen.target import X86_64_V3, X86_64_V4, Target, host_target
from graphc.ir.kernel import Kernel

Array = np.ndarray[Any, Any]
_engines: dict[tuple[str, str], tuple[Any, int]] = {}


def host_targets() -> list[Target]:
    """Every target this machine can run."""
    host = host_target()
    return [X86_64_V3, X86_64_V4] if host is X86_64_V4 else [host]


def machine(target: Target) -> Any:
    """The LLVM target machine of a target, set up as the runtime does."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    made = llvm.Target.from_triple(target.triple)
    return made.create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small", jit=False
    )


def object_of(text: str, target: Target) -> bytes:
    """The object file of a module text."""
    module = llvm.parse_assembly(text)
    module.verify()
    module.triple = target.triple
    return bytes(machine(target).emit_object(module))


def address_of(kernel: CpuKernel, target: Target) -> int:
    """The address of a kernel's function, compiled once."""
    found = _engines.get((kernel.key, target.name))
    if found is None:
        data = object_of(kernel.emit(target), target)
        plain = llvm.Target.from_triple(target.triple).create_target_machine()
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), plain)
        engine.add_object_file(llvm.ObjectFileRef.from_data(data))
        engine.finalize_object()
        found = _engines[kernel.key, target.name] = (engine, engine.get_function_address(kernel.symbol))
    return found[1]


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
    cuts = [made.units * k // pieces for k in range(pieces + 1)]
    for lo, hi in pairwise(cuts):
        if lo < hi:
            function(block.ctypes.data, lo, hi, aligned)
