"""Lowering: a fused graph becomes steps of kernel calls, each step one group.

Every value is either inlined (pulled as an expression into whatever reads it) or has memory: its own, or that of the
value whose buffer it shares under another shape. Operands are numbered as they are met, so equal structure gives
equal kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.codegen.build import Builder, map_call, squeezed_axes
from graphc.codegen.sides import restate, view_of
from graphc.codegen.walks import scan_call
from graphc.errors import InternalError
from graphc.ir.access import count, match
from graphc.ir.expr import Expr, acc, apply, const, flat_index, iconst, idiv, imod, index, isub, load, result
from graphc.ir.graph import Node, Value
from graphc.ir.index import both, merge_split
from graphc.ir.kernel import Contract, MapStage, ReduceStage, Rows, Scatter, Store, Strided
from graphc.ir.op import Contraction, ContractPiece, Reduction, Scattering
from graphc.ir.passes.fuse import Fusion, Group, is_constant
from graphc.ir.pull import Index
from graphc.ir.steps import Call, Step, Storage
from graphc.ir.types import Layout, contiguous_strides

Pads = tuple[tuple[int, int], ...]


class Memory:
    """The memory of every value of a fused graph: inputs, constants, and a buffer for each stored value."""

    def __init__(self, fusion: Fusion, layouts: Sequence[Layout]) -> None:
        self.fusion = fusion
        self.layouts = tuple(layouts)
        self.constants: list[Value] = []
        self._storages: dict[Value, Storage] = {}
        self._positions = {node: k for k, node in enumerate(fusion.graph.nodes)}
        for k, i in enumerate(fusion.graph.inputs):
            self._storages[i.value] = Storage("input", k, i.value.type.nbytes, i.name)

    def is_inlined(self, value: Value) -> bool:
        return value in self.fusion.inlined

    def position(self, node: Node) -> int:
        return self._positions[node]

    def storage_of(self, value: Value) -> Storage:
        buffer = self.fusion.buffer_of(value)
        found = self._storages.get(buffer)
        if found is None:
            found = self._storages[buffer] = self._new(buffer)
        return found

    def _new(self, value: Value) -> Storage:
        if is_constant(value):
            self.constants.append(value)
            return Storage("const", len(self.constants) - 1, value.type.nbytes, "const")
        if value not in self.fusion.stored:
            raise InternalError(f"{value} is read from memory but never stored")
        assert value.node is not None
        return self.temporary(value.type.nbytes, value.name or value.node.op.name)

    def temporary(self, nbytes: int, name: str) -> Storage:
        """Fresh memory in the arena."""
        return Storage("arena", 0, nbytes, name)

    def strides_of(self, value: Value) -> tuple[int, ...]:
        if value.node is None:
            return self.layouts[value.index].strides
        return self.fusion.laid.get(value) or contiguous_strides(value.type.sizes)


def lower_groups(fusion: Fusion, memory: Memory) -> list[Step]:
    """One step a group that stores anything, in the order of the groups."""
    lowerers = {
        "map": _lower_map, "rows": _lower_rows, "contract": _lower_contract, "scatter": _lower_scatter,
        "scan": _lower_scan,
    }  # fmt: skip
    steps = []
    for group in fusion.groups:
        stores = [n for n in group.nodes if n.out in fusion.stored and count(n.out.type.sizes)]
        if stores:
            steps.append(Step(lowerers[group.kind](memory, group, stores)))
    return steps


def copy_call(memory: Memory, value: Value, source: Storage | None, target: Storage, layout: Layout) -> Call | None:
    """The call that copies `value` to `target` in `layout`; None for an empty value.

    source: contiguous memory holding the value; None reads it from its own.
    """
    space = tuple(n for n in value.type.sizes if n != 1)
    if 0 in space:
        return None
    place = match(squeezed_axes(value.type.sizes), value.type)
    assert place is not None
    builder = Builder(memory, space)
    if source is None:
        e = builder.value(value, place)
    else:
        number = builder.operand(source, value.type.dtype)
        e = load(number, value.type.dtype, _flat(place, contiguous_strides(value.type.sizes)))
    store = builder.store_to(target, value.type.dtype, _flat(place, layout.strides), e)
    nodes = [] if value.node is None else [value.node]
    return map_call(builder, space, [store], nodes, "copy")


# ---- map and rows


def _lower_map(memory: Memory, group: Group, stored: list[Node]) -> list[Call]:
    axes = squeezed_axes(group.domain)
    space = tuple(n for _, n in axes)
    builder = Builder(memory, space, dict.fromkeys(n.out for n in group.nodes))
    _pull_all(builder, group, axes, "full")
    return [map_call(builder, space, _stores(builder, group, stored, axes, "full"), group.nodes)]


def _pull_all(builder: Builder, group: Group, axes: tuple[tuple[Expr, int], ...], level: str) -> None:
    """Pull the values of a level in order, so that no chain of them is ever pulled in one deep recursion."""
    for node in group.nodes:
        place = match(axes, node.out.type) if group.level[node.out] == level else None
        if place is not None:
            builder.value(node.out, place)


def _stores(
    builder: Builder, group: Group, stored: list[Node], axes: tuple[tuple[Expr, int], ...], level: str
) -> list[Store]:
    found = []
    for node in stored:
        if group.level[node.out] == level:
            place = match(axes, node.out.type)
            assert place is not None
            found.append(builder.store(node.out, place))
    return found


def _lower_rows(memory: Memory, group: Group, stored: list[Node]) -> list[Call]:
    axes = squeezed_axes(group.space)
    space = tuple(n for _, n in axes)
    run = count([group.domain[d] for d in group.dims])
    full = _full_index(group, axes)
    builder = Builder(memory, (*space, run), dict.fromkeys(n.out for n in group.nodes))
    for k, node in enumerate(group.reductions):  # all named before any is pulled: none may be inlined
        place = match(axes, node.out.type)
        assert place is not None
        builder.special[node.out] = place, result(k, node.out.type.dtype)
    stages: list[ReduceStage | MapStage] = []
    for node in group.nodes if run else ():
        if group.level[node.out] == "full":
            builder.value(node.out, full)
    for node in group.reductions:
        assert isinstance(node.op.lower, Reduction)
        e = builder.value(node.inputs[0], full) if run else const(0, node.inputs[0].type.dtype)  # nothing to read
        stages.append(ReduceStage(node.op.lower.kind, e))
    wide = [builder.store(n.out, full) for n in stored if group.level[n.out] == "full"]
    if wide:
        stages.append(MapStage(tuple(wide)))
    narrow = _stores(builder, group, stored, axes, "space")
    return [builder.call(Rows(builder.types(), space, run, tuple(stages), tuple(narrow)), group.nodes)]


def _full_index(group: Group, axes: tuple[tuple[Expr, int], ...]) -> Index:
    """The index into the full domain for the axes of the space and the run axis, which comes after them."""
    left = iter(axes)
    rest: Expr = index(len(axes))
    found: dict[int, Expr] = {}
    inner = [d for d in group.dims if group.domain[d] != 1]
    for d in reversed(inner):  # the run is walked in row-major order
        n = group.domain[d]
        found[d] = rest if d == inner[0] else imod(rest, n)
        rest = idiv(rest, n) if n else rest
    return tuple(iconst(0) if n == 1 else found[d] if d in found else next(left)[0] for d, n in enumerate(group.domain))


# ---- contractions


def _lower_contract(memory: Memory, group: Group, stored: list[Node]) -> list[Call]:
    anchor = group.nodes[0]
    lower = anchor.op.lower
    assert isinstance(lower, Contraction)
    pieces = lower.fn(tuple(v.type for v in anchor.inputs), **anchor.attrs)
    buffers: dict[tuple[int, Pads], Storage] = {}
    calls: list[Call] = []
    for piece in pieces:
        if 0 not in (*piece.core.batch, *piece.core.m, *piece.core.n):
            calls += _lower_piece(memory, group, stored, anchor, piece, buffers)
    return calls


def _lower_piece(
    memory: Memory,
    group: Group,
    stored: list[Node],
    anchor: Node,
    piece: ContractPiece,
    buffers: dict[tuple[int, Pads], Storage],
) -> list[Call]:
    core = piece.core
    extents = (*core.batch, *core.m, *core.n)
    builder = Builder(memory, extents, dict.fromkeys(n.out for n in group.nodes))
    before: list[Call] = []
    sides = [_side(memory, builder, anchor, piece, side, outer, buffers, before) for side, outer in _outers(core)]
    place = tuple(
        iconst(0) if n == 1 else builder.puller.simplify(i)
        for i, n in zip(piece.out, anchor.out.type.sizes, strict=True)
    )
    axes = tuple((i, n) for i, n in zip(place, anchor.out.type.sizes, strict=True) if n != 1)
    builder.special[anchor.out] = place, acc(core.dtype)
    _pull_all(builder, group, axes, "full")
    stores = []
    for node in stored:
        at = match(axes, node.out.type)
        assert at is not None
        stores.append(builder.store(node.out, at))
    kernel = replace(core, operands=builder.types(), a=sides[0], b=sides[1], stores=tuple(stores))
    return [*before, builder.call(kernel, group.nodes)]


def _outers(core: Contract) -> tuple[tuple[Strided, tuple[int, ...]], tuple[Strided, tuple[int, ...]]]:
    return (core.a, core.m), (core.b, core.n)


def _side(
    memory: Memory,
    builder: Builder,
    anchor: Node,
    piece: ContractPiece,
    side: Strided,
    outer: tuple[int, ...],
    buffers: dict[tuple[int, Pads], Storage],
    before: list[Call],
) -> Strided:
    """One side with its operand number in this kernel; appends to `before` what must run first (padding)."""
    value = anchor.inputs[side.operand]
    pads = tuple(piece.pads.get(side.operand, ()))
    if not pads:
        view = view_of(memory, value)
        found = None if view is None else restate(piece.core, side, outer, value.type.sizes, view)
        if view is not None and found is not None:
            return replace(found, operand=builder.operand(view[0], view[1]))
        pads = ((0, 0),) * value.type.ndim
    key = (side.operand, pads)
    if key not in buffers:
        buffers[key], call = _padded(memory, value, pads, anchor)
        before += [] if call is None else [call]
    return replace(side, operand=builder.operand(buffers[key], value.type.dtype))


def _padded(memory: Memory, value: Value, pads: Pads, anchor: Node) -> tuple[Storage, Call | None]:
    """Fresh contiguous memory holding `value` with zeros around it, and the call that fills it."""
    shape = tuple(n + low + high for n, (low, high) in zip(value.type.sizes, pads, strict=True))
    dtype = value.type.dtype
    target = memory.temporary(count(shape) * dtype.itemsize, "padded")
    axes = squeezed_axes(shape)
    space = tuple(n for _, n in axes)
    if 0 in space:
        return target, None
    builder = Builder(memory, space)
    places = match(axes, value.type.with_shape(shape))
    assert places is not None
    inside: Expr | None = None
    for i, n, (low, high) in zip(places, value.type.sizes, pads, strict=True):
        if low:
            inside = both(inside, apply("ge", i, iconst(low)))
        if high:
            inside = both(inside, apply("lt", i, iconst(low + n)))
    source = tuple(isub(i, low) for i, (low, _) in zip(places, pads, strict=True))
    if 0 in value.type.sizes:
        e = const(0, dtype)
    else:
        e = builder.puller.value(value, source, inside)
    if inside is not None:
        e = apply("select", inside, e, const(0, dtype))
    store = builder.store_to(target, dtype, _flat(places, contiguous_strides(shape)), e)
    return target, map_call(builder, space, [store], [anchor], "pad" if inside is not None else "copy")


# ---- scatter


def _lower_scatter(memory: Memory, group: Group, stored: list[Node]) -> list[Call]:
    (node,) = group.nodes
    lower = node.op.lower
    assert isinstance(lower, Scattering)
    target = memory.storage_of(node.out)
    first = copy_call_into(memory, node.inputs[0], target)
    types = tuple(v.type for v in node.inputs)
    many = tuple(index(k) for k in range(sum(t.ndim for t in types) + 2))

    def shape_only(k: int, place: Sequence[Expr], where: Expr | None = None) -> Expr:
        return const(0, types[k].dtype)

    space, run, *_ = lower.fn(shape_only, many, types, **node.attrs)
    if 0 in space or not run:
        return [first]
    builder = Builder(memory, (*space, run))
    builder.operand(target, node.out.type.dtype)
    _, _, out, value, where = lower.fn(
        lambda k, place, only=None: builder.puller.value(node.inputs[k], place, only),
        many[: len(space) + 1],
        types,
        **node.attrs,
    )
    flat = builder.flat(node.out, [builder.puller.simplify(i) for i in out])
    kernel = Scatter(builder.types(), tuple(space), run, 0, flat, value, lower.add, where)
    return [first, builder.call(kernel, [node])]


def _lower_scan(memory: Memory, group: Group, stored: list[Node]) -> list[Call]:
    return [scan_call(memory, group.nodes[0])]


def copy_call_into(memory: Memory, value: Value, target: Storage) -> Call:
    """The call that computes or copies `value` into `target`, contiguous. The value must not be empty."""
    call = copy_call(memory, value, None, target, Layout(value.type))
    if call is None:
        raise InternalError(f"an empty value {value} needs no copy")
    return call


def _flat(place: Sequence[Expr], strides: Sequence[int]) -> Expr:
    return merge_split(flat_index(place, strides))
