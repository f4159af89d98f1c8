"""Building one kernel: operands are collected while expressions are pulled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from graphc.errors import InternalError
from graphc.ir.expr import Expr, flat_index, index, load
from graphc.ir.graph import Location, Node, Value
from graphc.ir.index import merge_split
from graphc.ir.kernel import Kernel, Map, Store
from graphc.ir.op import Elementwise
from graphc.ir.pull import Index, Puller
from graphc.ir.steps import Call, Storage
from graphc.ir.types import DType

MAX_LABEL = 6  # op names in the label of a kernel


class Memory(Protocol):
    """Where values live."""

    def is_inlined(self, value: Value) -> bool:
        """Whether the value is computed where it is read."""

    def storage_of(self, value: Value) -> Storage:
        """The memory of a value that is not inlined."""

    def strides_of(self, value: Value) -> tuple[int, ...]:
        """How it lies there, in elements."""

    def position(self, node: Node) -> int:
        """The place of a node in the graph."""


class Builder:
    """One kernel in the making. `here`: values this kernel computes; `special`: results of reductions and
    contractions with the only index at which this kernel has them.
    """

    def __init__(self, memory: Memory, extents: Sequence[int], here: dict[Value, None] | None = None) -> None:
        self.memory = memory
        self.here = here or {}
        self.special: dict[Value, tuple[Index, Expr]] = {}
        self.operands: dict[Storage, int] = {}
        self.dtypes: list[DType] = []
        self.puller = Puller(self._leaf, self, extents)
        self._flats: dict[tuple[Index, tuple[int, ...]], Expr] = {}

    def __contains__(self, value: object) -> bool:
        assert isinstance(value, Value)
        return value not in self.special and (value in self.here or self.memory.is_inlined(value))

    def operand(self, storage: Storage, dtype: DType) -> int:
        """The operand number of `storage`."""
        found = self.operands.get(storage)
        if found is None:
            found = self.operands[storage] = len(self.dtypes)
            self.dtypes.append(dtype)
        return found

    def value(self, value: Value, place: Sequence[Expr]) -> Expr:
        """An element of `value`."""
        return self.puller.value(value, place)

    def flat(self, value: Value, place: Sequence[Expr]) -> Expr:
        """Where that element lies in its memory."""
        key = tuple(place), self.memory.strides_of(value)
        found = self._flats.get(key)
        if found is None:
            found = self._flats[key] = merge_split(flat_index(*key))
        return found

    def _leaf(self, value: Value, place: Index, where: Expr | None) -> Expr:
        special = self.special.get(value)
        if special is not None:
            if special[0] != place:
                raise InternalError(f"{value} is read at {place} in its own kernel, which has it at {special[0]}")
            return special[1]
        number = self.operand(self.memory.storage_of(value), value.type.dtype)
        return load(number, value.type.dtype, self.flat(value, place), where)

    def store(self, value: Value, place: Sequence[Expr]) -> Store:
        """The store of `value` to its memory."""
        return self.store_to(
            self.memory.storage_of(value), value.type.dtype, self.flat(value, place), self.value(value, place)
        )

    def store_to(self, storage: Storage, dtype: DType, flat: Expr, e: Expr) -> Store:
        """A store of `e` to any memory."""
        return Store(self.operand(storage, dtype), flat, e)

    def call(self, kernel: Kernel, nodes: Sequence[Node], label: str = "") -> Call:
        """The finished call; `nodes` are those it stands for."""
        storages = tuple(self.operands)
        together = sorted({**self.puller.visited, **dict.fromkeys(nodes)}, key=self.memory.position)
        locations: dict[Location, None] = {n.loc: None for n in together if n.loc is not None}
        return Call(kernel, storages, label or label_of(together), tuple(locations))

    def types(self) -> tuple[DType, ...]:
        """The dtypes of the operands so far."""
        return tuple(self.dtypes)


def label_of(nodes: Sequence[Node]) -> str:
    """Op names joined by "+", movement and the middle of long lists left out."""
    shown = [n for n in nodes if not (isinstance(n.op.lower, Elementwise) and n.op.lower.movement)]
    names = [n.op.name for n in shown or nodes]
    if len(names) > MAX_LABEL:
        names = [*names[: MAX_LABEL - 1], "…", names[-1]]
    return "+".join(names)


def squeezed_axes(shape: Sequence[int]) -> tuple[tuple[Expr, int], ...]:
    """The axes of `shape` with more than one place, numbered anew: the space of a kernel."""
    return tuple((index(k), n) for k, n in enumerate(n for n in shape if n != 1))


def map_call(
    builder: Builder, space: tuple[int, ...], stores: Sequence[Store], nodes: Sequence[Node], label: str = ""
) -> Call:
    """A Map of `stores` over `space`."""
    return builder.call(Map(builder.types(), space, tuple(stores)), nodes, label)
