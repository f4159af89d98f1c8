"""The words native code reads to run a program: frame, io addresses, calls, relocations and argument blocks.

The layout of each part is that of runtime/driver.py. A template holds the words with addresses inside the array
counted from its start; `instantiate` makes them absolute. All other memory is found through io when a run begins:
inputs, outputs, and the workspace, which holds the arena and behind it the scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.runtime.driver import CALL_WORDS, FRAME_WORDS, RELOCATION_WORDS
from graphc.runtime.memory import ALIGNMENT, aligned_bytes
from graphc.runtime.program import BufferRef, Program

IO_AT = 8 * FRAME_WORDS  # byte offset of the io addresses
_SCRATCH = 6  # word of the frame

Words = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class BoundKernel:
    """A kernel call with everything but its operands known: code address and the rest of its block."""

    address: int
    units: int
    grain: int
    params: tuple[int, ...]
    tables: tuple[int, ...]  # addresses


@dataclass(frozen=True, slots=True)
class Instance:
    """The words of one context. `frame` is the address of their start, `view` the same memory for packing."""

    words: Words
    view: memoryview
    frame: int


@dataclass(frozen=True, slots=True)
class Template:
    """Words to copy; `inside` lists those that hold relative addresses."""

    words: Words
    inside: Words

    def instantiate(self) -> Instance:
        """A copy of the words with absolute addresses."""
        words = aligned_bytes(self.words.nbytes).view(np.int64)
        start = words.ctypes.data
        words[:] = self.words
        words[self.inside] += start
        return Instance(words, words.data, start)


class _Blocks:
    """The argument blocks of all calls, one after the other, and what is to be filled in."""

    def __init__(self, program: Program, constants: Sequence[int]) -> None:
        self.words: list[int] = []
        self.relocations: list[tuple[int, int, int]] = []  # word, io index, byte offset
        outputs_at = len(program.inputs)
        self._first = {"input": 0, "output": outputs_at, "arena": outputs_at + len(program.outputs)}
        self._constants = constants

    def add(self, operands: Sequence[BufferRef], kernel: BoundKernel) -> int:
        """Append a block and return the number of its first word."""
        start = len(self.words)
        for ref in operands:
            self.words.append(self._operand(ref))
        self.words += kernel.params
        self.words += kernel.tables
        return start

    def _operand(self, ref: BufferRef) -> int:
        if ref.kind == "const":
            return self._constants[ref.index] + ref.offset
        self.relocations.append((len(self.words), self._first[ref.kind] + ref.index, ref.offset))
        return 0


def scratch_offset(program: Program) -> int:
    """Where in the workspace the scratch begins: behind the arena, on a cache line."""
    return -(-program.arena_bytes // ALIGNMENT) * ALIGNMENT


def build_template(
    program: Program, kernels: Sequence[BoundKernel], constants: Sequence[int], data_offset: int, pool_page: int
) -> Template:
    """The template of a program: `kernels` has one entry a call, `constants` the addresses of the constants.

    io has one word for each input, one for each output, and one for the workspace. `data_offset`, `pool_page`: see
    runtime/driver.py.
    """
    io = len(program.inputs) + len(program.outputs) + 1
    blocks = _Blocks(program, constants)
    starts = [blocks.add(call.operands, kernel) for call, kernel in zip(program.calls, kernels, strict=True)]
    calls_at = FRAME_WORDS + io
    relocations_at = calls_at + CALL_WORDS * len(kernels)
    count = len(blocks.relocations) + 1
    blocks_at = relocations_at + RELOCATION_WORDS * count
    words = [8 * calls_at, len(kernels), 8 * relocations_at, count, IO_AT, data_offset, 0, pool_page]
    words += [0] * io
    for start, kernel in zip(starts, kernels, strict=True):
        words += [kernel.address, 8 * (blocks_at + start), kernel.units, max(kernel.grain, 1)]
    words += [8 * _SCRATCH, io - 1, scratch_offset(program)]
    for word, index, offset in blocks.relocations:
        words += [8 * (blocks_at + word), index, offset]
    inside = [0, 2, 4, *range(calls_at + 1, relocations_at, CALL_WORDS)]
    inside += range(relocations_at, blocks_at, RELOCATION_WORDS)
    return Template(np.array(words + blocks.words, np.int64), np.array(inside, np.int64))
