"""Kernel calls on memory that has no place yet: what lowering gives and what the passes order and plan work on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from graphc.ir.expr import Expr, walk
from graphc.ir.graph import Location
from graphc.ir.kernel import Contract, Kernel, Map, MapStage, Rows, Scan, Scatter, Store


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
    _written: dict[Storage, None] | None = None
    _read: dict[Storage, None] | None = None

    def written(self) -> dict[Storage, None]:
        """What the kernel stores to."""
        if self._written is None:
            self._written = dict.fromkeys(self.operands[k] for k in written_operands(self.kernel))
        return self._written

    def read(self) -> dict[Storage, None]:
        """What the kernel loads from."""
        if self._read is None:
            self._read = dict.fromkeys(self.operands[k] for k in read_operands(self.kernel))
        return self._read


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
    """Every store of a Map, Rows, Contract or Scan."""
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
    if isinstance(kernel, Scan):
        found.append(kernel.value)
    return found


def written_operands(kernel: Kernel) -> dict[int, None]:
    """Numbers of the operands stored to."""
    if isinstance(kernel, Scatter):
        return {kernel.target: None}
    return dict.fromkeys(s.operand for s in stores_of(kernel))


def read_operands(kernel: Kernel) -> dict[int, None]:
    """Numbers of the operands loaded from; the target of a Scatter counts: it keeps what is not written."""
    found = {int(e.value): None for e in walk(*expressions_of(kernel)) if e.op == "load"}
    if isinstance(kernel, Contract):
        found |= {kernel.a.operand: None, kernel.b.operand: None}
    if isinstance(kernel, Scatter):
        found[kernel.target] = None
    return found


def in_place(kernel: Kernel, source: int, target: int) -> bool:
    """Whether operand `target` may be the memory of operand `source`: every element of the source is read only where
    the same element of the target is then written. In a Rows kernel what is read in an earlier stage of the same row
    is read before, what is read in a later one is not.
    """
    if isinstance(kernel, Scatter) or kernel.operands[source] is not kernel.operands[target]:
        return False
    if isinstance(kernel, Contract) and source in (kernel.a.operand, kernel.b.operand):
        return False
    stores = [s for s in stores_of(kernel) if s.operand == target]
    if len(stores) != 1 or stores[0].where is not None:
        return False
    loads = [e for e in walk(*expressions_of(kernel)) if e.op == "load" and e.value in (source, target)]
    if any(e.op == "load" and e.value == source for e in walk(*_after_store(kernel, target))):
        return False
    return all(e.value == source and e.args[0] is stores[0].flat for e in loads)


def _after_store(kernel: Kernel, target: int) -> list[Expr]:
    """What a Rows kernel evaluates for a row once a stage has stored to operand `target`."""
    if not isinstance(kernel, Rows):
        return []
    for k, stage in enumerate(kernel.stages):
        if isinstance(stage, MapStage) and any(s.operand == target for s in stage.stores):
            return expressions_of(replace(kernel, stages=kernel.stages[k + 1 :]))
    return []


def copied(call: Call) -> tuple[Storage, Storage] | None:
    """(source, target) of a call that only writes one piece of memory onto another, each element to the same place."""
    kernel = call.kernel
    if not isinstance(kernel, Map) or len(kernel.stores) != 1:
        return None
    (store,) = kernel.stores
    if store.value.op != "load" or len(store.value.args) != 1 or store.value.args[0] is not store.flat:
        return None
    return call.operands[int(store.value.value)], call.operands[store.operand]
