"""Memory: every buffer of a compiled graph in a mapping of its own between pages that cannot be touched, and a check of
the memory plan that trusts nobody.

An access one byte outside of an operand, a constant, a piece of the arena, the scratch or a table ends the process.
What lies between the elements of an operand must stay as it is, and all of an operand that is not written in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.codegen.assemble import Arranged, arrange, write_program
from graphc.codegen.cpu import lower_kernel
from graphc.codegen.target import Target, host_target
from graphc.compiler import optimise
from graphc.fuzz.deep_variants import compare
from graphc.fuzz.difference import Difference
from graphc.fuzz.layouts import filled, looked_at, span
from graphc.ir.graph import Graph
from graphc.ir.op import Array, Control
from graphc.ir.steps import Storage
from graphc.ir.types import Layout
from graphc.runtime.driver import native
from graphc.runtime.executable import DATA_OFFSET, Executable, Stats
from graphc.runtime.frame import IO_AT
from graphc.runtime.guard import guarded_empty
from graphc.runtime.segments import Segmented

_POISONS = (0xFF, 0xCC)  # for buffers that end, and that start, at a forbidden page


def check_memory(graph: Graph, inputs: Sequence[Array], wanted: Sequence[Array], target: Target | None = None) -> None:
    """Run the graph with every buffer guarded, once at its end and once at its start; the outputs must be `wanted`.

    Raises Difference; a stray access ends the process.
    """
    layouts = [Layout.of(a) for a in inputs]
    exe = guarded(optimise(graph), layouts, target or host_target())
    for end in (True, False):
        for part in _parts(exe):
            part.end = end
        where = f"memory (guarded {'ends' if end else 'starts'})"
        compare(graph, wanted, exe.run(inputs), where)


def guarded(graph: Graph, layouts: Sequence[Layout], target: Target) -> Any:
    """Code for an optimised graph that runs in guarded memory."""
    if not any(isinstance(node.op.lower, Control) for node in graph.nodes):
        return Guarded(arrange(graph, layouts), target)
    return Segmented(
        graph,
        layouts,
        lambda part, given: Guarded(arrange(part, given), target),
        lambda part, given: guarded(optimise(part), given, target),
    )


def _parts(exe: Any) -> list[Guarded]:
    return [exe] if isinstance(exe, Guarded) else [p for part in exe.parts() for p in _parts(part)]


class Guarded:
    """An executable whose every buffer is guarded; called as an Executable is, by one thread."""

    poison = True

    def __init__(self, arranged: Arranged, target: Target) -> None:
        check_plan(arranged)
        self.program = write_program(arranged, apart=True)
        self.constants = [v.node.attrs["value"] for v in arranged.memory.constants if v.node is not None]
        self.asked, self.given = len(arranged.graph.outputs), len(arranged.memory.layouts)
        kernels = [lower_kernel(call.kernel) for call in self.program.calls]
        self.end = True
        kernels = [replace(k, tables=tuple(map(_guarded_copy, k.tables))) for k in kernels]
        self._exe = Executable(self.program, kernels, target)
        self.stats: Stats = self._exe.stats

    def run(self, inputs: Sequence[Array], outs: Sequence[Array] | None = None) -> list[Array]:
        """New arrays, one an output. Raises Difference where memory changed that must not."""
        given = [_Buffer(layout, self.end, a) for layout, a in zip(self.program.inputs, [*inputs, *self.constants],
                                                                   strict=True)]  # fmt: skip
        made = [
            given[o.donated] if o.donated is not None else _Buffer(o.layout, self.end) for o in self.program.outputs
        ]
        self._call([b.array for b in (*given, *made)])
        written = {o.donated for o in self.program.outputs}
        for k, buffer in enumerate(given):
            buffer.check_kept(k in written, f"input {k}" if k < self.given else f"constant {k - self.given}")
        found = [np.array(b.array, order="C") for b in made[: self.asked]]
        for target, array in zip(outs or (), found, strict=outs is not None):
            np.copyto(target, array)
        return found if outs is None else list(outs)

    def _call(self, arrays: Sequence[Array]) -> None:
        context = self._exe.new_context()
        nbytes = -(-self._exe.workspace_bytes // 64) * 64  # a cache line: what the kernels may count on
        scratch = guarded_empty(max(nbytes, 64), self.end)
        scratch.fill(_POISONS[self.end])
        operands = [*arrays, scratch]
        words = map(id, operands) if DATA_OFFSET >= 0 else (a.ctypes.data for a in operands)
        self._exe.pack(context.view, IO_AT, *words)
        native().run(context.frame)


def _guarded_copy(table: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    copy = guarded_empty(max(table.nbytes, 8)).view(np.int64)[: table.size].reshape(table.shape)
    copy[...] = table
    return copy


class _Buffer:
    """Guarded memory of one array. Without content it is poisoned."""

    def __init__(self, layout: Layout, end: bool, content: Array | None = None) -> None:
        self.layout = layout
        self.memory = guarded_empty(max(span(layout), 1), end)[: span(layout)]
        self.memory.fill(_POISONS[end])
        # of an empty array only the address matters: it is that of guarded memory
        self.array = looked_at(self.memory, layout) if span(layout) else np.ndarray(
            layout.shape, layout.type.dtype.np, guarded_empty(layout.type.dtype.itemsize, end)
        )  # fmt: skip
        if content is not None and span(layout):
            filled(self.memory, content)
        self.before = self.memory.copy()

    def check_kept(self, written: bool, name: str) -> None:
        """Raise Difference if bytes changed that are nobody's to change."""
        if written and span(self.layout):
            looked_at(self.before, self.layout)[...] = self.array
        if not np.array_equal(self.before, self.memory):
            what = "bytes between its elements were changed" if written else "it was changed"
            raise Difference(what, "memory", name, self.before, self.memory)


def check_plan(arranged: Arranged) -> None:
    """Follow who wrote each byte of the arena, call by call: a call reads only what is wholly as its writer left it.

    It knows nothing of lifetimes, the free list or who hands memory to whom. Raises Difference.
    """
    owner = np.zeros(arranged.arena, np.int64)  # 0: nobody
    numbers = {s: k + 1 for k, s in enumerate(arranged.pieces())}
    for k, call in enumerate(arranged.calls):
        label = f"call {k}: {call.label}"
        read = [s for s in call.read() if s.kind == "arena" and (s not in call.written() or _keeps(call.kernel))]
        for s in read:
            if s.offset + s.nbytes > arranged.arena or (owner[s.offset : s.offset + s.nbytes] != numbers[s]).any():
                raise Difference(f"{s} is read where it is no longer, or not yet", "memory (plan)", label)
        new = [s for s in call.written() if s.kind == "arena"]
        for s in new:
            if s.offset < 0 or s.offset % 64 or s.offset + s.nbytes > arranged.arena:
                raise Difference(f"{s} lies outside of the arena", "memory (plan)", label)
            if any(_partly(s, other) for other in [*read, *new] if other is not s):
                raise Difference(f"{s} is written over part of an operand", "memory (plan)", label)
            owner[s.offset : s.offset + s.nbytes] = numbers[s]


def _keeps(kernel: Any) -> bool:
    """Whether a kernel reads what it writes before it writes it: a scatter keeps what it does not write."""
    return type(kernel).__name__ == "Scatter"


def _partly(a: Storage, b: Storage) -> bool:
    return a.offset != b.offset and a.offset < b.offset + b.nbytes and b.offset < a.offset + a.nbytes
