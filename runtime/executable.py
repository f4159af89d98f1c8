"""Executables: a program bound to compiled kernels. One native call runs the whole graph.

A context is the array of words native code reads (runtime/frame.py). It serves one caller at a time; concurrent
callers of one executable get contexts of their own, and a few are kept for later. Arena and scratch come from
runtime/workspace.py.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from graphc.config import config
from graphc.errors import ArgumentError, InternalError
from graphc.ir.types import Layout
from graphc.runtime.code import KernelLibrary, library
from graphc.runtime.driver import native
from graphc.runtime.frame import IO_AT, BoundKernel, Instance, Template, build_template, scratch_offset
from graphc.runtime.llvm import TargetSpec
from graphc.runtime.memory import aligned_bytes, aligned_empty
from graphc.runtime.pool import pool
from graphc.runtime.program import BufferRef, OutputSpec, Program
from graphc.runtime.workspace import Bytes, give_workspace, take_workspace

Array = np.ndarray[Any, Any]

KEPT_CONTEXTS = 4
COPIED_CONSTANT_BYTES = 1 << 20  # smaller constants are copied to a cache-line boundary
ALIGNED_RESULT_BYTES = 1 << 15  # aligned stores gain 10 to 20 % from here on; below, np.empty is the quicker way
_POISONS = (0xFF, 0xCC)  # 0xFF: NaN in every floating-point type


class CompiledKernel(Protocol):
    """What code generation hands over for one kernel call."""

    @property
    def key(self) -> str:
        """Canonical structure: equal keys, equal code."""

    @property
    def symbol(self) -> str:
        """The name of the function that `emit` defines."""

    @property
    def params(self) -> tuple[int, ...]:
        """Run-time numbers, after the operand addresses in the block."""

    @property
    def tables(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], ...]:
        """Arrays whose addresses come last in the block."""

    @property
    def units(self) -> int:
        """Parallel units of work."""

    @property
    def grain(self) -> int:
        """Fewest units worth a chunk of their own."""

    @property
    def scratch(self) -> int:
        """Bytes of scratch memory each thread needs, aligned to 64."""

    @property
    def emit(self) -> Callable[[Any], str]:
        """The LLVM text of the kernel for a target."""


def _data_offset() -> int:
    """Where an ndarray object holds its data address, or -1 if that is not where this NumPy has it."""
    offset = object.__basicsize__
    probes = [np.empty(3), np.arange(12, dtype=np.int64).reshape(3, 4)[1:, ::2], np.zeros((), np.bool_)]
    found = (ctypes.c_void_p.from_address(id(a) + offset).value == a.ctypes.data for a in probes)
    return offset if all(found) else -1


DATA_OFFSET = _data_offset()
# runs a filled context in place of the native function: (executable, context, native function); runtime/profile.py
observer: Callable[[Executable, Instance, Callable[[int], None]], None] | None = None
_NO_WORKSPACE: Bytes = np.empty(0, np.uint8)


@dataclass(slots=True)
class Trial:
    """How executables made from now on run while they are tested."""

    poison: bool = False  # what `Executable.poison` starts as
    split: bool = False  # kernels are cut into chunks however little work a chunk is


trial = Trial()
_Make = Callable[[tuple[int, ...], np.dtype[Any]], Array]


@dataclass(slots=True)
class Stats:
    """Counts of one executable."""

    kernels: int  # calls of kernels in one run
    codes: int  # different pieces of code among them
    native_calls: int = 0


class Executable:
    """A program ready to run: `exe(inputs)` returns the outputs as new arrays (donated ones: the input itself).

    `kernels` holds the compiled kernel of each call of `program`, in order. Raises InternalError for a program that
    does not fit its kernels. With `poison` set, the arena, the scratch and the new outputs are filled with NaN (0xFF
    bytes) or 0xCC in turn before each run, so that a read of memory nobody wrote shows.
    """

    def __init__(
        self,
        program: Program,
        kernels: Sequence[CompiledKernel],
        target: TargetSpec,
        kernel_library: KernelLibrary | None = None,
    ) -> None:
        _check_program(program, kernels)
        self.program = program
        self.poison = trial.poison
        requests = [(kernel.key, kernel.symbol, kernel.emit) for kernel in kernels]
        self._codes = (kernel_library or library()).load(requests, target)
        self.stats = Stats(len(kernels), len({kernel.key for kernel in kernels}))
        self._constants = [_placed(array) for array in program.constants]
        self._tables = [tuple(np.ascontiguousarray(table, np.int64) for table in kernel.tables) for kernel in kernels]
        scratch = max((kernel.scratch for kernel in kernels), default=0)
        self.workspace_bytes = scratch_offset(program) + scratch
        shared = [kernel for kernel in kernels if kernel.units > (1 if trial.split else kernel.grain)]
        self._parallel = bool(shared)
        pool().reserve_scratch(max((kernel.scratch for kernel in shared), default=0))
        self._pool = pool()
        self._run = native().run
        self._expected = [_numpy_layout(layout) for layout in program.inputs]
        self._results = [_result(spec) for spec in program.outputs]
        self._any_donated = any(spec.donated is not None for spec in program.outputs)
        self._template = self._bind(kernels)
        self.pack = struct.Struct(f"={len(program.inputs) + len(program.outputs) + 1}q").pack_into
        self.new_context = self._template.instantiate
        self._free: list[Instance] = []

    def __call__(self, inputs: Sequence[Array], outs: Sequence[Array] | None = None) -> list[Array]:
        """Run on arrays of exactly the layouts of `program.inputs`.

        `outs`: where to write, one array an output (contiguous, of its type; for a donated output the input itself).
        Raises ArgumentError for arrays that do not fit.
        """
        try:
            known = [(a.__class__, a.shape, a.dtype, a.strides) for a in inputs] == self._expected
        except AttributeError:
            known = False
        if not known:
            self._check_inputs(inputs)
        if config.verify:
            self._check_fully(inputs)
        if outs is not None:
            self._check_outs(inputs, outs)
        return self.run(inputs, outs)

    def run(self, inputs: Sequence[Array], outs: Sequence[Array] | None = None) -> list[Array]:
        """Like a call, without any check: the caller vouches for the layouts, and wrong ones corrupt memory."""
        if outs is not None:
            results = list(outs)
        elif self._any_donated:
            results = [inputs[k] if k is not None else make(shape, dtype) for k, make, shape, dtype in self._results]
        else:
            results = [make(shape, dtype) for _, make, shape, dtype in self._results]
        if self._parallel and not self._pool.ready:
            self._pool.ensure()
        try:
            context = self._free.pop()
        except IndexError:
            context = self.new_context()
        workspace = take_workspace(self.workspace_bytes) if self.workspace_bytes else _NO_WORKSPACE
        if self.poison:
            self.fill(workspace, results)
        if DATA_OFFSET >= 0:
            self.pack(context.view, IO_AT, *map(id, [*inputs, *results, workspace]))
        else:
            self.pack(context.view, IO_AT, *(array.ctypes.data for array in (*inputs, *results, workspace)))
        if observer is None:
            self._run(context.frame)
        else:
            observer(self, context, self._run)
        self.stats.native_calls += 1
        if self.workspace_bytes:
            give_workspace(workspace)
        if len(self._free) < KEPT_CONTEXTS:
            self._free.append(context)
        return results

    def _bind(self, kernels: Sequence[CompiledKernel]) -> Template:
        bound = [
            BoundKernel(
                code.address,
                kernel.units,
                1 if trial.split else kernel.grain,
                kernel.params,
                tuple(t.ctypes.data for t in tables),
            )
            for kernel, code, tables in zip(kernels, self._codes, self._tables, strict=True)
        ]
        addresses = [array.ctypes.data for array in self._constants]
        return build_template(self.program, bound, addresses, DATA_OFFSET, self._pool.page)

    def fill(self, workspace: Bytes, results: Sequence[Array]) -> None:
        """What `poison` asks for, before a run."""
        byte = _POISONS[self.stats.native_calls % 2]
        workspace[: self.workspace_bytes].fill(byte)
        for array, spec in zip(results, self.program.outputs, strict=True):
            if spec.donated is None:
                array.reshape(-1).view(np.uint8).fill(byte)

    def _check_inputs(self, inputs: Sequence[Array]) -> None:
        if len(inputs) != len(self._expected):
            raise ArgumentError(f"{self.program.name}: expected {len(self._expected)} inputs, got {len(inputs)}")
        for k, (array, layout) in enumerate(zip(inputs, self.program.inputs, strict=True)):
            if not isinstance(array, np.ndarray):
                raise ArgumentError(f"{self.program.name}: input {k} must be an ndarray, got {type(array).__name__}")
            found = Layout.of(array)  # strides that are never used do not count
            if found is not layout:
                raise ArgumentError(f"{self.program.name}: input {k} is {found}, expected {layout}")

    def _check_outs(self, inputs: Sequence[Array], outs: Sequence[Array]) -> None:
        name = self.program.name
        if len(outs) != len(self.program.outputs):
            raise ArgumentError(f"{name}: expected {len(self.program.outputs)} output arrays, got {len(outs)}")
        for k, (array, spec) in enumerate(zip(outs, self.program.outputs, strict=True)):
            if spec.donated is not None and array is not inputs[spec.donated]:
                raise ArgumentError(f"{name}: output {k} is written in place of input {spec.donated}; pass that array")
            found = Layout.of(array)
            if found is not spec.layout or not array.flags.writeable:
                raise ArgumentError(f"{name}: output array {k} is {found}, expected {spec.layout}, writeable")

    def _check_fully(self, inputs: Sequence[Array]) -> None:
        for donated in (spec.donated for spec in self.program.outputs):
            if donated is None:
                continue
            if not inputs[donated].flags.writeable:
                raise ArgumentError(f"{self.program.name}: input {donated} is changed in place but read-only")
            for k, other in enumerate(inputs):
                if k != donated and np.may_share_memory(inputs[donated], other):
                    name = self.program.name
                    raise ArgumentError(f"{name}: input {donated} is changed in place but overlaps input {k}")


def _numpy_layout(layout: Layout) -> tuple[type, tuple[int, ...], np.dtype[Any], tuple[int, ...]]:
    """What the most common array of a layout looks like: its class, shape, dtype and strides in bytes."""
    dtype = layout.type.dtype
    return np.ndarray, layout.type.sizes, dtype.np, tuple(stride * dtype.itemsize for stride in layout.strides)


def _result(spec: OutputSpec) -> tuple[int | None, _Make, tuple[int, ...], np.dtype[Any]]:
    """Where an output comes from: the donated input, or a function that makes an array of a shape and dtype."""
    make: _Make = aligned_empty if spec.layout.type.nbytes >= ALIGNED_RESULT_BYTES else np.empty
    return spec.donated, make, spec.layout.type.sizes, spec.layout.type.dtype.np


def _placed(array: Array) -> Array:
    """The array itself, or a copy that starts on a cache line."""
    if array.nbytes > COPIED_CONSTANT_BYTES:
        return array
    copy = aligned_bytes(array.nbytes).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _check_program(program: Program, kernels: Sequence[CompiledKernel]) -> None:
    if len(kernels) != len(program.calls):
        raise InternalError(f"{program.name}: {len(program.calls)} calls but {len(kernels)} kernels")
    counts = {"input": len(program.inputs), "output": len(program.outputs), "const": len(program.constants), "arena": 1}
    for call in program.calls:
        for ref in call.operands:
            _check_ref(program, call.label, ref, counts)
    for array in program.constants:
        if not array.flags.c_contiguous:
            raise InternalError(f"{program.name}: a constant is not contiguous")
    for spec in program.outputs:
        if spec.donated is not None and program.inputs[spec.donated] is not spec.layout:
            raise InternalError(f"{program.name}: output {spec.name} has another layout than its donated input")
        if spec.donated is None and not spec.layout.contiguous:
            raise InternalError(f"{program.name}: output {spec.name} is not contiguous")


def _check_ref(program: Program, label: str, ref: BufferRef, counts: dict[str, int]) -> None:
    if not 0 <= ref.index < counts.get(ref.kind, 0):
        raise InternalError(f"{program.name}: call {label} uses {ref}, which does not exist")
    if ref.kind == "arena" and not 0 <= ref.offset <= program.arena_bytes:
        raise InternalError(f"{program.name}: call {label} uses {ref}, outside of {program.arena_bytes} bytes")
