"""Running code made for aarch64 on another machine: a static program of our kernels, under qemu's user emulation.

No cross compiler is needed: objects come from LLVM, the few relocations they use are applied here (ELF for the Arm
64-bit Architecture, section 5.7), and the program's own loop is LLVM text. It reads jobs from stdin: a memory image,
the words of it that are addresses, and the kernel calls to make; it writes the image back after each job.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.codegen.cpu import CpuKernel, lower_kernel
from graphc.codegen.target import AARCH64
from graphc.runtime import llvm
from graphc.runtime.program import BufferRef, Program

Array = np.ndarray[Any, Any]

QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
BASE = 0x400000
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
_PROGRAM = struct.Struct("<IIQQQQQQ")

# _start: bl main (offset filled in); then syscall(number, a, b, c, d, e, f): mov x8, x0; mov x0, x1; …; svc #0; ret
_STUB = (0x94000000, 0xAA0003E8, 0xAA0103E0, 0xAA0203E1, 0xAA0303E2, 0xAA0403E3, 0xAA0503E4, 0xAA0603E5,
         0xD4000001, 0xD65F03C0)  # fmt: skip

_MAIN = """declare i64 @syscall(i64, i64, i64, i64, i64, i64, i64) nounwind
define internal void @all(i64 %what, i64 %fd, i64 %at, i64 %bytes) nounwind {
entry:
  br label %next
next:
  %done = phi i64 [ 0, %entry ], [ %sum, %more ]
  %left = sub i64 %bytes, %done
  %any = icmp sgt i64 %left, 0
  br i1 %any, label %go, label %leave
go:
  %to = add i64 %at, %done
  %n = call i64 @syscall(i64 %what, i64 %fd, i64 %to, i64 %left, i64 0, i64 0, i64 0)
  %good = icmp sgt i64 %n, 0
  br i1 %good, label %more, label %stop
more:
  %sum = add i64 %done, %n
  br label %next
stop:
  %gone = call i64 @syscall(i64 93, i64 0, i64 0, i64 0, i64 0, i64 0, i64 0)
  unreachable
leave:
  ret void
}
define void @main() nounwind {
entry:
  %head = alloca [4 x i64], align 16
  %head.i = ptrtoint ptr %head to i64
  br label %job
job:
  call void @all(i64 63, i64 0, i64 %head.i, i64 32)
  %size = load i64, ptr %head
  %h1 = getelementptr i64, ptr %head, i64 1
  %relocations = load i64, ptr %h1
  %h2 = getelementptr i64, ptr %head, i64 2
  %calls = load i64, ptr %h2
  %h3 = getelementptr i64, ptr %head, i64 3
  %image.bytes = load i64, ptr %h3
  %base = call i64 @syscall(i64 222, i64 0, i64 %size, i64 3, i64 34, i64 -1, i64 0)
  call void @all(i64 63, i64 0, i64 %base, i64 %size)
  %words = inttoptr i64 %base to ptr
  br label %relocate
relocate:
  %r = phi i64 [ 0, %job ], [ %r.next, %set ]
  %r.any = icmp slt i64 %r, %relocations
  br i1 %r.any, label %set, label %call
set:
  %at.at = getelementptr i64, ptr %words, i64 %r
  %at = load i64, ptr %at.at
  %word = getelementptr i8, ptr %words, i64 %at
  %relative = load i64, ptr %word
  %absolute = add i64 %relative, %base
  store i64 %absolute, ptr %word, align 1
  %r.next = add i64 %r, 1
  br label %relocate
call:
  %c = phi i64 [ 0, %relocate ], [ %c.next, %run ]
  %c.any = icmp slt i64 %c, %calls
  br i1 %c.any, label %run, label %answer
run:
  %c5 = mul i64 %c, 5
  %c.word = add i64 %c5, %relocations
  %w0 = getelementptr i64, ptr %words, i64 %c.word
  %index = load i64, ptr %w0
  %w1 = getelementptr i64, ptr %w0, i64 1
  %block = load ptr, ptr %w1
  %w2 = getelementptr i64, ptr %w0, i64 2
  %low = load i64, ptr %w2
  %w3 = getelementptr i64, ptr %w0, i64 3
  %high = load i64, ptr %w3
  %w4 = getelementptr i64, ptr %w0, i64 4
  %scratch = load ptr, ptr %w4
  %f.at = getelementptr ptr, ptr @table, i64 %index
  %f = load ptr, ptr %f.at
  call void %f(ptr %block, i64 %low, i64 %high, ptr %scratch)
  %c.next = add i64 %c, 1
  br label %call
answer:
  %image = sub i64 %size, %image.bytes
  %from = add i64 %base, %image
  call void @all(i64 64, i64 1, i64 %from, i64 %image.bytes)
  %unmapped = call i64 @syscall(i64 215, i64 %base, i64 %size, i64 0, i64 0, i64 0, i64 0)
  br label %job
}
"""


def _main_text(symbols: Sequence[str]) -> str:
    names = ", ".join(f"ptr @{s}" for s in symbols)
    declared = "\n".join(f"declare dso_local void @{s}(ptr, i64, i64, ptr)" for s in symbols)
    return f"{declared}\n@table = internal constant [{len(symbols)} x ptr] [{names}]\n{_MAIN}"


# ---------------------------------------------------------------- objects to one program


@dataclass
class _Object:
    """The allocated sections of an object, where they were put, and its symbols."""

    data: bytes
    sections: list[tuple[int, ...]]
    placed: dict[int, int]

    @classmethod
    def read(cls, data: bytes) -> _Object:
        header = _HEADER.unpack_from(data, 0)
        return cls(data, [_SECTION.unpack_from(data, header[6] + _SECTION.size * i) for i in range(header[12])], {})

    def place(self, image: bytearray) -> None:
        """Append the sections that take memory."""
        for k, (_, kind, flags, _, offset, size, _, _, align, _) in enumerate(self.sections):
            if flags & 2 and size:
                image.extend(bytes(-len(image) % max(align, 1)))
                self.placed[k] = BASE + len(image)
                image.extend(bytes(size) if kind == 8 else self.data[offset : offset + size])

    def symbols(self) -> list[tuple[str, int | None]]:
        """Name and address (None: defined elsewhere) of each symbol."""
        table = next(s for s in self.sections if s[1] == 2)
        strings = self.sections[table[6]][4]
        found: list[tuple[str, int | None]] = []
        for at in range(table[4], table[4] + table[5], _SYMBOL.size):
            name, _, _, section, value, _ = _SYMBOL.unpack_from(self.data, at)
            text = self.data[strings + name : self.data.index(b"\0", strings + name)].decode()
            home = self.placed.get(section)
            found.append((text, None if home is None else home + value))
        return found


def link(objects: Sequence[bytes]) -> bytes:
    """A static program of objects; one of them defines `main`."""
    image = bytearray(_HEADER.size + _PROGRAM.size)
    image.extend(bytes(-len(image) % 16))
    start = BASE + len(image)
    image.extend(struct.pack(f"<{len(_STUB)}I", *_STUB))
    parts = [_Object.read(data) for data in objects]
    for part in parts:
        part.place(image)
    names = {name: at for part in parts for name, at in part.symbols() if name and at is not None}
    names["syscall"] = start + 4
    _patch(image, start, 283, start, names["main"])
    for part in parts:
        _relocate(part, image, names)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    image[: _HEADER.size] = _HEADER.pack(ident, 2, 183, 1, start, _HEADER.size, 0, 0, 64, _PROGRAM.size, 1, 0, 0, 0)
    segment = _PROGRAM.pack(1, 7, 0, BASE, BASE, len(image), len(image), 0x10000)
    image[_HEADER.size : _HEADER.size + _PROGRAM.size] = segment
    return bytes(image)


def _relocate(part: _Object, image: bytearray, names: dict[str, int]) -> None:
    symbols = part.symbols()
    for _, kind, _, _, offset, size, _, target, _, _ in part.sections:
        home = part.placed.get(target)
        if kind != 4 or home is None:
            continue
        for at in range(offset, offset + size, _RELA.size):
            where, info, addend = _RELA.unpack_from(part.data, at)
            name, value = symbols[info >> 32]
            _patch(
                image, home + where, info & 0xFFFFFFFF, home + where, (names[name] if value is None else value) + addend
            )


def _patch(image: bytearray, at: int, kind: int, place: int, value: int) -> None:
    """Apply one relocation: `value` is symbol + addend."""
    k = at - BASE
    if kind == 257:  # ABS64
        struct.pack_into("<Q", image, k, value)
        return
    if kind == 261:  # PREL32
        struct.pack_into("<i", image, k, value - place)
        return
    (word,) = struct.unpack_from("<I", image, k)
    if kind in (282, 283):  # JUMP26, CALL26
        word |= (value - place) >> 2 & 0x3FFFFFF
    elif kind == 275:  # ADR_PREL_PG_HI21
        pages = (value >> 12) - (place >> 12)
        word |= (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
    elif kind in (277, 278, 284, 285, 286, 299):  # ADD, LDST8, LDST16, LDST32, LDST64, LDST128: low 12 bits
        shift = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4}[kind]
        word |= ((value & 0xFFF) >> shift) << 10
    else:
        raise AssertionError(f"relocation {kind} is new")
    struct.pack_into("<I", image, k, word)


# ---------------------------------------------------------------- programs as jobs


def run_programs(jobs: Sequence[tuple[Program, Sequence[Array]]], folder: Any) -> list[list[Array]]:
    """The outputs of each program on its inputs, computed by aarch64 code; two chunks of units a kernel."""
    lowered = [[lower_kernel(call.kernel) for call in program.calls] for program, _ in jobs]
    kernels = {kernel.symbol: kernel for made in lowered for kernel in made}
    symbols = list(kernels)
    objects = [llvm.compile_text(k.emit(AARCH64), AARCH64) for k in kernels.values()]
    path = folder / "program"
    path.write_bytes(link([*objects, llvm.compile_text(_main_text(symbols), AARCH64, {*symbols, "syscall"})]))
    path.chmod(0o755)
    images = [_image(program, made, arrays, symbols) for (program, arrays), made in zip(jobs, lowered, strict=True)]
    assert QEMU is not None
    found = subprocess.run(
        [QEMU, "-cpu", "cortex-a57", str(path)], input=b"".join(i.job for i in images), capture_output=True, check=True
    )
    results, at = [], 0
    for (program, _), image in zip(jobs, images, strict=True):
        memory = found.stdout[at : at + image.nbytes]
        assert len(memory) == image.nbytes, "the program ended early"
        results.append([_read(memory, image, program, k) for k in range(len(program.outputs))])
        at += image.nbytes
    assert at == len(found.stdout)
    return results


@dataclass(frozen=True, slots=True)
class _Image:
    job: bytes
    nbytes: int
    outputs: tuple[int, ...]


class _Memory:
    """A memory image under construction; addresses count from the start of the job."""

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, data: bytes) -> int:
        self.data.extend(b"\xcc" * (-len(self.data) % 64))
        self.data.extend(data)
        return len(self.data) - len(data)


def _image(program: Program, kernels: Sequence[CpuKernel], arrays: Sequence[Array], symbols: Sequence[str]) -> _Image:
    memory = _Memory()
    inputs = [memory.add(np.ascontiguousarray(a).tobytes()) for a in arrays]
    outputs = tuple(
        inputs[o.donated] if o.donated is not None else memory.add(b"\xff" * o.layout.type.nbytes)
        for o in program.outputs
    )
    homes = {
        "input": inputs,
        "output": outputs,
        "const": [memory.add(np.ascontiguousarray(c).tobytes()) for c in program.constants],
    }
    homes["arena"] = [memory.add(b"\xcc" * program.arena_bytes)]
    scratch = memory.add(b"\xcc" * max((k.scratch for k in kernels), default=0))
    relocations: list[int] = []
    calls: list[int] = []
    for call, kernel in zip(program.calls, kernels, strict=True):
        block = _block(memory, call.operands, kernel, homes, relocations)
        half = kernel.units // 2
        for low, high in ((0, half), (half, kernel.units)):
            if low < high:
                calls += [symbols.index(kernel.symbol), block, low, high, scratch]
    count, made = len(relocations), len(calls) // 5
    addresses = [8 * (count + 2 * made + 5 * k + w) for k in range(made) for w in (1, 4)]  # block and scratch of a call
    head = 8 * (count + 2 * made + 5 * made)
    head += -head % 64
    shifted = [calls[i] + (head if i % 5 in (1, 4) else 0) for i in range(len(calls))]
    words = [r + head for r in relocations] + addresses + shifted
    for r in relocations:
        struct.pack_into("<q", memory.data, r, struct.unpack_from("<q", memory.data, r)[0] + head)
    body = struct.pack(f"<{len(words)}q", *words).ljust(head, b"\0") + bytes(memory.data)
    header = struct.pack("<4q", len(body), count + 2 * made, made, len(memory.data))
    return _Image(header + body, len(memory.data), outputs)


def _block(
    memory: _Memory, operands: Sequence[BufferRef], kernel: CpuKernel, homes: dict[str, Any], relocations: list[int]
) -> int:
    words = [homes[ref.kind][ref.index] + ref.offset for ref in operands]
    addresses = len(words)
    words += kernel.params
    tables = [memory.add(np.ascontiguousarray(t, np.int64).tobytes()) for t in kernel.tables]
    places = [*range(addresses), *range(len(words), len(words) + len(tables))]
    block = memory.add(struct.pack(f"<{len(words) + len(tables) + 1}q", *words, *tables, 0))
    relocations += [block + 8 * k for k in places]
    return block


def _read(memory: bytes, image: _Image, program: Program, k: int) -> Array:
    type = program.outputs[k].layout.type
    count = type.nbytes // type.dtype.itemsize
    return np.frombuffer(memory, type.dtype.np, count, image.outputs[k]).reshape(type.sizes)
