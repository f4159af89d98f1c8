"""Kernel calls on memory that has no place yet: what lowering gives and what the passes order and plan work on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graphc.ir.expr import Expr, walk
from graphc.ir.graph import Location
from graphc.ir.kernel import Contract, Kernel, Map, MapStage, Rows, Scatter, Store


@dataclass(slots=True, eq=False)
class Storage:
    """A piece of memory. kind: "input", "output", "const" (number `index`) or "arena" (`offset` once it is planned)."""

    kind: str
    index: int
    nbytes: int
    name: str = ""
    offset: int = 0

    def __repr__(self) -> str:
        return f"{self.kind}{self.index}:{self.name}"


@dataclass(slots=True, eq=False)
class Call:
    """One kernel and the memory of its operands."""

    kernel: Kernel
    operands: tuple[Storage, ...]
    label: str
    locs: tuple[Location, ...] = ()

    def written(self) -> dict[Storage, None]:
        """What the kernel stores to."""
        return dict.fromkeys(self.operands[k] for k in written_operands(self.kernel))

    def read(self) -> dict[Storage, None]:
        """What the kernel loads from."""
        return dict.fromkeys(self.operands[k] for k in read_operands(self.kernel))


@dataclass(slots=True, eq=False)
class Step:
    """Calls that run one after the other: one group of nodes, or one copy."""

    calls: list[Call] = field(default_factory=list)

    def written(self) -> dict[Storage, None]:
        """What any of the calls stores to."""
        return {s: None for c in self.calls for s in c.written()}

    def read(self) -> dict[Storage, None]:
        """What any of the calls loads from."""
        return {s: None for c in self.calls for s in c.read()}


def stores_of(kernel: Kernel) -> Iterator[Store]:
    """Every store of a Map, Rows or Contract."""
    if isinstance(kernel, Rows):
        for stage in kernel.stages:
            if isinstance(stage, MapStage):
                yield from stage.stores
    if not isinstance(kernel, Scatter):
        yield from kernel.stores


def expressions_of(kernel: Kernel) -> list[Expr]:
    """Every expression the kernel evaluates."""
    if isinstance(kernel, Scatter):
        return [kernel.flat, kernel.value] + ([] if kernel.where is None else [kernel.where])
    found = [e for s in stores_of(kernel) for e in (s.flat, s.value, s.where) if e is not None]
    if isinstance(kernel, Rows):
        found += [stage.value for stage in kernel.stages if not isinstance(stage, MapStage)]
    return found


def written_operands(kernel: Kernel) -> dict[int, None]:
    """Numbers of the operands stored to."""
    if isinstance(kernel, Scatter):
        return {kernel.target: None}
    return dict.fromkeys(s.operand for s in stores_of(kernel))


def read_operands(kernel: Kernel) -> dict[int, None]:
    """Numbers of the operands loaded from. A Scatter reads its target when it adds, and keeps what it does not write."""
    found = {int(e.value): None for e in walk(*expressions_of(kernel)) if e.op == "load"}
    if isinstance(kernel, Contract):
        found |= {kernel.a.operand: None, kernel.b.operand: None}
    if isinstance(kernel, Scatter):
        found[kernel.target] = None
    return found


def in_place(kernel: Kernel, source: int, target: int) -> bool:
    """Whether operand `target` may be the memory of operand `source`: every element of the source is read only where the same
    element of the target is then written.
    """
    if isinstance(kernel, Contract) and source in (kernel.a.operand, kernel.b.operand):
        return False
    if not isinstance(kernel, Map | Contract) or kernel.operands[source] is not kernel.operands[target]:
        return False
    places = [s.flat for s in kernel.stores if s.operand == target]
    if len(places) != 1 or any(s.operand == target and s.where is not None for s in kernel.stores):
        return False
    loads = [e for e in walk(*expressions_of(kernel)) if e.op == "load"]
    return all(e.args[0] is places[0] for e in loads if e.value == source) and all(e.value != target for e in loads)


def is_copy(call: Call) -> bool:
    """Whether the call does nothing: it writes a piece of memory onto itself, element by element."""
    kernel = call.kernel
    if not isinstance(kernel, Map) or len(kernel.stores) != 1:
        return False
    store = kernel.stores[0]
    same = store.value.op == "load" and len(store.value.args) == 1 and store.value.args[0] is store.flat
    return same and _same_place(call.operands[int(store.value.value)], call.operands[store.operand])


def _same_place(a: Storage, b: Storage) -> bool:
    return a is b or (a.kind == b.kind == "arena" and a.offset == b.offset)
