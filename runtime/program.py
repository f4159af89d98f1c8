"""Program: a flat list of kernel calls over the caller's arrays, one arena and a pool of constants.

A program is data: which kernel runs on which memory, in which order. `runtime/executable.py` runs it with native code,
`runtime/interpret.py` with NumPy; both read nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from graphc.ir.expr import Expr, walk
from graphc.ir.graph import Location
from graphc.ir.kernel import Contract, Kernel, Map, MapStage, Rows, Scan, Store, Strided
from graphc.ir.types import Layout

ALIGNMENT = 64  # bytes: every arena offset is a multiple, and the arena itself must be aligned to it


@dataclass(frozen=True, slots=True)
class BufferRef:
    """A place in memory. A kernel's flat element indices count from its address.

    kind "input", "output" or "const": array number `index` of that list (output: the memory of the donated input, where
    one is); kind "arena": byte `offset` of the arena (index 0). `offset` is 0 for all others.
    """

    kind: str
    index: int
    offset: int = 0

    def __repr__(self) -> str:
        return f"arena+{self.offset}" if self.kind == "arena" else f"{self.kind}{self.index}"


@dataclass(frozen=True, slots=True)
class KernelCall:
    """One kernel on its operands. Calls run in the order of the list, each seeing all writes of the earlier ones.

    Two operands may be the same memory when one is written where the other is read at the same element ("in place").
    """

    kernel: Kernel
    operands: tuple[BufferRef, ...]
    label: str
    locs: tuple[Location, ...] = ()


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One output. `donated`: its memory is that of input `donated`, written in place (layout: that input's); None: a
    fresh contiguous array, never sharing memory with an input or another output.

    A donated output may have no call that writes it (the state did not change). Donated inputs must be writable and
    must not overlap any other input. kind and name are those of the graph's output.
    """

    layout: Layout
    donated: int | None
    kind: str
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A compiled graph for concrete sizes and layouts.

    inputs: the layout each array must have. constants: read-only contiguous arrays. arena_bytes: size of the scratch
    memory all intermediate values share (64-byte aligned; contents undefined at the start).
    """

    name: str
    inputs: tuple[Layout, ...]
    outputs: tuple[OutputSpec, ...]
    calls: tuple[KernelCall, ...]
    constants: tuple[np.ndarray[Any, Any], ...]
    arena_bytes: int

    def __str__(self) -> str:
        return print_program(self)


def call_flops(call: KernelCall) -> int:
    """Multiplications and additions of a matrix product or convolution; 0 for other kernels."""
    k = call.kernel
    return 2 * prod((*k.batch, *k.m, *k.n, *k.k)) if isinstance(k, Contract) else 0


def call_bytes(program: Program, call: KernelCall) -> int | None:
    """The size of the arrays a call reads or writes, each counted once; None where some lie in the arena, whose parts
    have no size of their own.
    """
    if any(ref.kind == "arena" for ref in call.operands):
        return None
    sizes = {
        "input": [layout.type.nbytes for layout in program.inputs],
        "output": [spec.layout.type.nbytes for spec in program.outputs],
        "const": [array.nbytes for array in program.constants],
    }
    return sum(sizes[ref.kind][ref.index] for ref in dict.fromkeys(call.operands))


def print_program(program: Program) -> str:
    """The program as readable text, one call a paragraph."""
    lines = [f"program {program.name}: {len(program.calls)} calls, arena {program.arena_bytes} bytes"]
    lines += [f"  input{k}: {layout}" for k, layout in enumerate(program.inputs)]
    lines += [f"  const{k}: {_constant(c)}" for k, c in enumerate(program.constants)]
    for k, o in enumerate(program.outputs):
        where = "" if o.donated is None else f" in place of input{o.donated}"
        lines.append(f"  output{k}: {o.layout} {o.kind} {o.name}{where}")
    for k, call in enumerate(program.calls):
        lines += [f"  call {k}: {call.label}" + _places(call), *("    " + line for line in kernel_lines(call))]
    return "\n".join(lines)


def kernel_lines(call: KernelCall) -> list[str]:
    """The kernel of a call in words: its domain, then one line a stage or store; names for what is used again."""
    kernel = call.kernel
    pairs = zip(call.operands, kernel.operands, strict=True)
    names = ", ".join(f"b{k}={ref}:{t.short}" for k, (ref, t) in enumerate(pairs))
    show = _Shower()
    if isinstance(kernel, Map):
        return [f"map {list(kernel.space)} {names}", *show.stores(kernel.stores)]
    if isinstance(kernel, Rows):
        lines = [f"rows {list(kernel.space)} run {kernel.run} {names}"]
        for stage in kernel.stages:
            if isinstance(stage, MapStage):
                lines += show.stores(stage.stores)
            else:
                lines += show.line(f"{stage.kind}:", stage.value)
        return lines + show.stores(kernel.stores)
    if isinstance(kernel, Contract):
        sides = f"a={_side(kernel.a)} b={_side(kernel.b)}"
        domain = f"batch {list(kernel.batch)} m {list(kernel.m)} n {list(kernel.n)} k {list(kernel.k)}"
        return [f"contract {domain} {names}", f"  {sides}", *show.stores(kernel.stores)]
    if isinstance(kernel, Scan):
        kind = f"{kernel.kind}{' descending' if kernel.descending else ''}:"
        head = f"scan {list(kernel.space)} run {kernel.run} {names}"
        return [head, *show.line(kind, kernel.value), *show.stores(kernel.stores)]
    head = f"b{kernel.target}[{show.text(kernel.flat)}] {'+=' if kernel.add else '='}"
    return [f"scatter {list(kernel.space)} run {kernel.run} {names}", *show.line(head, kernel.value, kernel.where)]


def _side(side: Strided) -> str:
    return f"b{side.operand}+{side.offset} strides {list(side.batch)} {list(side.outer)} {list(side.k)}"


class _Shower:
    """Prints expressions of one kernel, with a name for every part that is used more than once."""

    def __init__(self) -> None:
        self.named: dict[Expr, str] = {}
        self.texts: dict[Expr, str] = {}

    def stores(self, stores: Sequence[Store]) -> list[str]:
        """One line a store, after the lines of the names it needs."""
        found = self._name([e for s in stores for e in (s.value, s.where) if e is not None])
        for s in stores:
            found += self.line(f"b{s.operand}[{self.text(s.flat)}] =", s.value, s.where)
        return found

    def line(self, head: str, value: Expr, where: Expr | None = None) -> list[str]:
        """`head value where condition`, after the lines of the names it needs."""
        found = self._name([value] if where is None else [value, where])
        return [*found, f"  {head} {self.text(value)}" + ("" if where is None else f" where {self.text(where)}")]

    def _name(self, roots: Sequence[Expr]) -> list[str]:
        lines: list[str] = []
        uses: dict[Expr, int] = dict.fromkeys(roots, 1)
        order = walk(*roots)
        for e in order:
            for a in e.args if e.op != "load" else e.args[1:]:
                uses[a] = uses.get(a, 0) + 1
        for e in order:
            self.texts[e] = self._compose(e)
            if uses.get(e, 0) > 1 and e.args and e.op != "load" and e not in self.named:
                name = f"t{len(self.named)}"
                lines.append(f"  {name} = {self.texts[e]}")
                self.named[e] = self.texts[e] = name
        return lines

    def text(self, e: Expr) -> str:
        """`e` in the form of Expr.__repr__, names put in."""
        for part in walk(e):
            self.texts.setdefault(part, self._compose(part))
        return self.texts[e]

    def _compose(self, e: Expr) -> str:
        if e in self.named or not e.args:
            return self.named.get(e) or repr(e)
        args = ", ".join(self.texts[a] for a in e.args)
        if e.op == "load":
            return f"b{e.value}[{args}]"
        return f"{e.op}.{e.dtype.short}({args})" if e.op == "cast" else f"{e.op}({args})"


def _places(call: KernelCall) -> str:
    found = dict.fromkeys(str(loc) for loc in call.locs)
    return f"  ({', '.join(list(found)[:4])})" if found else ""


def _constant(array: np.ndarray[Any, Any]) -> str:
    return f"{array.dtype} {list(array.shape)}" + (f" = {array[()]}" if array.ndim == 0 else "")
