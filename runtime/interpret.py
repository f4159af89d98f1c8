"""Running a Program with NumPy, kernel record by kernel record: the oracle of code generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError
from graphc.ir.expr_numpy import run_kernel
from graphc.ir.types import DType, Layout
from graphc.runtime.program import BufferRef, KernelCall, Program

Array = np.ndarray[Any, Any]


def interpret(program: Program, arrays: Sequence[Array]) -> list[Array]:
    """The outputs of `program` as new arrays. Inputs stay as they are: what a run changes in place is copied first.

    Memory nobody has written holds 0xFF bytes (NaN). Raises ArgumentError for arrays that do not have the program's
    layouts, InternalError for a program that leaves the bounds of its memory.
    """
    found = [Layout.of(a) for a in arrays]
    if found != list(program.inputs):
        raise ArgumentError(f"{program.name}: inputs are {found}, expected {list(program.inputs)}")
    memory = _Memory(program, arrays)
    for call in program.calls:
        memory.run(call)
    return memory.outputs


class _Memory:
    def __init__(self, program: Program, arrays: Sequence[Array]) -> None:
        donated = {o.donated for o in program.outputs}
        self.inputs = [_same_layout(a) if k in donated else a for k, a in enumerate(arrays)]
        self.outputs = [
            np.full(o.layout.type.sizes, _poison(o.layout.type.dtype), o.layout.type.dtype.np)
            if o.donated is None
            else self.inputs[o.donated]
            for o in program.outputs
        ]
        self.constants = program.constants
        self.arena = np.full(program.arena_bytes, 0xFF, np.uint8)

    def run(self, call: KernelCall) -> None:
        """Run one call."""
        pairs = zip(call.operands, call.kernel.operands, strict=True)
        run_kernel(call.kernel, [self._flat(ref, dtype) for ref, dtype in pairs])

    def _flat(self, ref: BufferRef, dtype: DType) -> Array:
        if ref.kind == "arena":
            whole = self.arena[ref.offset :]
            return whole[: whole.size // dtype.itemsize * dtype.itemsize].view(dtype.np)
        return flat_memory({"input": self.inputs, "output": self.outputs, "const": self.constants}[ref.kind][ref.index])


def flat_memory(array: Array) -> Array:
    """The memory of an array with non-negative strides, from its first element to its last, as one axis."""
    if array.size == 0:
        return array.reshape(0)
    last = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True))
    return np.lib.stride_tricks.as_strided(array, (last // array.itemsize + 1,), (array.itemsize,))


def _same_layout(array: Array) -> Array:
    """A copy with the same strides."""
    if array.size == 0:
        return array.copy()
    return np.lib.stride_tricks.as_strided(flat_memory(array).copy(), array.shape, array.strides)


def _poison(dtype: DType) -> Any:
    return np.frombuffer(b"\x01" if dtype.kind == "b" else b"\xff" * dtype.itemsize, dtype.np)[0]
