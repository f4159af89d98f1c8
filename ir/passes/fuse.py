"""Fusion: which values get memory, and which nodes share a kernel.

Two decisions, both stated on the data flow between groups of nodes:

1. *Inlining* (`ir/passes/inline.py`): an Elementwise value that is cheap, or has one reader, is computed where it
   is read.
2. *Grouping* (here): every other node joins the group of a producer or of a sibling, or starts a group. A group
   becomes one kernel:
   "map" (pointwise results over one space), "rows" (reductions over one run, and what is pointwise over the rows or the
   space), "contract" (a contraction and its epilogue), "scatter" or "scan".

A node joins a group only when it reads the group's values at its own place (no other element is needed before it can
be computed) and when no path leads from the group through another group back to the node. So the graph with each group
contracted to one node, `Fusion.view()`, stays acyclic, and its topological order is that of the kernels. Paths are
looked up in bitsets of ancestors kept beside it. No decision changes a bit of any result: the order of every sum is
fixed by docs/numerics.md, whatever the kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphc.errors import InternalError
from graphc.ir.access import axes_of, count, match, own_index, squeezed
from graphc.ir.dag import Ancestors, Arc, few_in_order, in_order, view_of
from graphc.ir.expr import Expr, iconst, load
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Contraction, Elementwise, Reduction, Scanning, Scattering
from graphc.ir.passes.inline import choose_inlined
from graphc.ir.pull import Index, Puller
from graphc.ir.types import contiguous_strides
from graphc.ir.unroll import MAX_UNROLLED, reduced_dims

MAX_NODES = 24  # in a group, inlined ones not counted
MAX_COST = 600  # arithmetic of a kernel for one element (an exp: 20): bounds its code
MAX_READS = 24  # values a group loads
MAX_AGAIN = 40  # cost of what a later stage over the same rows may compute again; an exp costs 20
ALONE = ("scatter", "scan")  # kinds of groups that nothing joins
FEW = 8  # groups that need no graph to be put in order
FEW_ROWS, SMALL = 32, 16384  # fewer rows than this cannot keep the threads busy, unless the work is small anyway

_NOWHERE = iconst(0)
Read = tuple[Value, Index | None]  # None: the reader needs the whole buffer


@dataclass(slots=True, eq=False)
class Group:
    """Nodes that become one kernel. `domain`: the full shape it runs over; `dims`: the run axes of "rows".

    `nodes` in data-flow order, `reductions` those of them that are stages of "rows"; `level` says of each of their
    values whether it lives on the "full" domain or on the "space" (the domain without `dims`); `reads`: the values of
    memory it loads.
    """

    number: int
    kind: str
    domain: tuple[int, ...]
    dims: tuple[int, ...] = ()
    nodes: list[Node] = field(default_factory=list)
    reductions: list[Node] = field(default_factory=list)
    level: dict[Value, str] = field(default_factory=dict)
    reads: dict[Value, list[Index | None]] = field(default_factory=dict)
    cost: int = 0

    @property
    def space(self) -> tuple[int, ...]:
        """Sizes of the axes that are not reduced."""
        return tuple(n for d, n in enumerate(self.domain) if d not in self.dims)

    def expected(self, value: Value, reader: tuple[int, ...], level: str) -> Index | None:
        """Where a node of shape `reader` at `level` reads `value` of this group, if it reads at its own place."""
        if level == "space" and self.level[value] == "full":
            return None
        skip = self.dims if level == "full" and self.level[value] == "space" else ()
        return match(axes_of(reader, skip), value.type)


@dataclass(slots=True)
class Fusion:
    """The decisions. `inlined`: values computed where they are read. `base`: values that are another shape of a
    buffer, and the value whose buffer it is. `laid`: strides of values that do not lie in row-major order. `stored`:
    values of groups that need memory. Groups come in a valid order.
    """

    graph: Graph
    groups: list[Group]
    inlined: dict[Value, None]
    base: dict[Value, Value]
    laid: dict[Value, tuple[int, ...]]
    owner: dict[Value, Group]
    stored: dict[Value, None]

    def buffer_of(self, value: Value) -> Value:
        """The value whose buffer holds `value`."""
        return self.base.get(value, value)

    def __str__(self) -> str:
        lines = [f"fusion of {self.graph.name}: {len(self.groups)} groups, {len(self.inlined)} values inlined"]
        for g in self.groups:
            dims = f" over {list(g.dims)}" if g.dims else ""
            kept = ", ".join(repr(n.out) for n in g.nodes if n.out in self.stored)
            lines.append(f"  {g.kind} {list(g.domain)}{dims}: {', '.join(n.op.name for n in g.nodes)} -> {kept}")
        return "\n".join(lines)

    def check(self) -> None:
        """Check the groups against the data flow. Raises InternalError for a cycle or a wrong order."""
        place = {g.number: k for k, g in enumerate(self.groups)}
        if any(place[a] >= place[b] for a, b in self.view().edges):
            raise InternalError(f"{self.graph.name}: the groups of the fusion do not follow the data flow")
        for g in self.groups:
            if any(self.owner.get(n.out) is not g or n.out in self.inlined for n in g.nodes):
                raise InternalError(f"{self.graph.name}: group {g.number} does not own its nodes")

    def view(self) -> Any:
        """The graph with each group contracted to one node: a networkx.DiGraph over group numbers that carry `group`,
        with an edge where one group loads what another stores.
        """
        view = view_of(len(self.groups), _arcs(self.groups, self.owner))
        for g in self.groups:
            view.nodes[g.number]["group"] = g
        return view


def _arcs(groups: Iterable[Group], owner: Mapping[Value, Group]) -> list[Arc]:
    return [(owner[v].number, g.number) for g in groups for v in g.reads if v in owner]


def fuse(graph: Graph, strided: Iterable[Value] = (), enabled: bool = True) -> Fusion:
    """Decide inlining and groups for a graph of primitives with concrete sizes.

    strided: graph inputs that are not contiguous, so that a reshape of them must move data. With `enabled` false
    every value gets memory and every node its own kernel. Raises InternalError for a composition in the graph.
    """
    maker = _Fuser(graph, dict.fromkeys(strided))
    if enabled:
        maker.inlined, maker.costs = choose_inlined(graph, maker.is_alias)
    for node in graph.nodes:
        maker.place(node, enabled)
    return maker.finish()


def is_constant(value: Value) -> bool:
    """True for the result of a `constant` node: it lives in the pool of constants."""
    return value.node is not None and value.node.op.name == "constant"


class _Fuser:
    def __init__(self, graph: Graph, strided: dict[Value, None]) -> None:
        self.graph = graph
        self.strided = strided
        self.inlined: dict[Value, None] = {}
        self.costs: dict[Value, int] = {}
        self.base: dict[Value, Value] = {}
        self.laid: dict[Value, tuple[int, ...]] = {}
        self.owner: dict[Value, Group] = {}
        self.groups: list[Group] = []
        self.ancestors = Ancestors()  # of each group, by number
        self.users = graph.users()
        self.outputs = dict.fromkeys(o.value for o in graph.outputs)
        self.siblings: dict[tuple[object, ...], dict[Group, None]] = {}  # groups with room that read a value

    def is_alias(self, node: Node) -> bool:
        """True where the node only gives a contiguous buffer another shape."""
        if node.op.name != "reshape":
            return False
        source = node.inputs[0]
        return source not in self.strided and source.type.numel == node.out.type.numel

    def _pointwise(self, node: Node) -> bool:
        """True where the result is an expression of other values: Elementwise ops and reductions of short windows."""
        if isinstance(node.op.lower, Elementwise):
            return True
        if not isinstance(node.op.lower, Reduction) or node.inputs[0] not in self.inlined:
            return False
        source = node.inputs[0].node
        windows = source is not None and source.op.name == "windows"
        return windows and 0 < count([domain_of(node)[d] for d in reduced_dims(node)]) <= MAX_UNROLLED

    def _domain(self, node: Node) -> tuple[int, ...]:
        return node.out.type.sizes if self._pointwise(node) else domain_of(node)

    # ---- one node

    def place(self, node: Node, enabled: bool) -> None:
        if node.op.lower is None or len(node.outputs) != 1:
            raise InternalError(f"{node.op.name} is not a primitive of one output: decompose first")
        if isinstance(node.op.lower, Reduction) and not _one_run(reduced_dims(node)):
            raise InternalError(f"{node.op.name} over {reduced_dims(node)} is not a primitive: decompose first")
        if node.out in self.inlined or is_constant(node.out):
            return
        if self.is_alias(node) and node.inputs[0] not in self.inlined:
            self.base[node.out] = self.base.get(node.inputs[0], node.inputs[0])
            return
        if enabled and self._lay_out(node):
            return
        reads = self.reads_of(node)
        if enabled and self._pointwise(node):
            joined = self._join_elementwise(node, reads)
        elif enabled and isinstance(node.op.lower, Reduction):
            joined = self._join_reduction(node, reads)
        else:
            joined = False
        if not joined:
            self._start(node, reads)

    def _lay_out(self, node: Node) -> bool:
        """Let the producer of a permuted value write it in the permuted order, if nobody else reads it.

        Only where the last axis stays the last, so that stores stay contiguous there.
        """
        source = node.inputs[0] if node.op.name == "permute" else None
        if source is None or source in self.outputs or len(self.users[source]) > 1:
            return False
        if source not in self.owner or self.owner[source].kind in ALONE:
            return False
        dims: tuple[int, ...] = node.attrs["dims"]
        wide = [d for d in range(len(dims)) if source.type.sizes[d] != 1]
        if not wide or next(d for d in reversed(dims) if d in wide) != wide[-1]:
            return False
        strides = contiguous_strides(node.out.type.sizes)
        self.laid[source] = tuple(strides[dims.index(d)] for d in range(len(dims)))
        self.base[node.out] = source
        return True

    def reads_of(self, node: Node) -> list[Read]:
        """Every value of memory the node reads, with the index in terms of the node's own axes."""
        lower, domain = node.op.lower, self._domain(node)
        found: dict[Read, None] = {}
        whole = not isinstance(lower, Elementwise | Reduction)

        def leaf(value: Value, index: Index, where: Expr | None) -> Expr:
            opaque = whole or value in self.base
            found[self.base.get(value, value), None if opaque else index] = None
            return load(0, value.type.dtype, _NOWHERE)  # only the places matter here

        puller = Puller(leaf, self.inlined, domain)
        if self._pointwise(node):
            puller.node(node, own_index(domain))
        elif isinstance(lower, Reduction):
            puller.value(node.inputs[0], own_index(domain))
        else:
            for value in node.inputs:
                puller.value(value, own_index(value.type.sizes))
        return list(found)

    # ---- joining

    def _join_elementwise(self, node: Node, reads: list[Read]) -> bool:
        for group in self._producers(reads):
            if any(self._try(group, node, reads, level) for level in _levels(group, node)):
                return True
        shape = node.out.type.sizes
        for group in self._siblings(("map", squeezed(shape)), reads):
            if group.kind == "map" and not self._gains(group, reads) and self._try(group, node, reads, "full"):
                return True
        return False

    def _join_reduction(self, node: Node, reads: list[Read]) -> bool:
        domain, dims = self._domain(node), reduced_dims(node)
        if not keeps_threads_busy(domain, dims):
            return False
        for group in self._producers(reads):
            if group.kind == "map" and all(v.type.sizes == domain for v in group.level):
                group.dims = dims  # a trial: every value of a map is on the full domain, so nothing else changes
                if self._try(group, node, reads, "full"):
                    group.kind, group.domain = "rows", domain
                    return True
                group.dims = ()
            elif _same_rows(group, domain, dims) and self._try(group, node, reads, "full"):
                return True
        return any(
            _same_rows(group, domain, dims) and not self._gains(group, reads) and self._try(group, node, reads, "full")
            for group in self._siblings(("rows", domain, dims), reads)
        )

    def _producers(self, reads: list[Read]) -> list[Group]:
        """The groups whose values are read at an index: contractions first, then rows, then maps, the latest first."""
        found = dict.fromkeys(self.owner[v] for v, index in reads if index is not None and v in self.owner)
        rank = {"contract": 0, "rows": 1, "map": 2}
        return sorted((g for g in found if g.kind not in ALONE), key=lambda g: (rank[g.kind], -g.number))

    def _siblings(self, key: tuple[object, ...], reads: list[Read]) -> list[Group]:
        found: dict[Group, None] = {}
        room = MAX_READS - len(reads)
        for v, _ in reads:
            known = self.siblings.get((*key, v)) if count(v.type.sizes) > 1 else None
            if known:  # thousands may read a value: most of their groups are full
                full = [g for g in known if len(g.nodes) >= MAX_NODES or len(g.reads) >= MAX_READS]
                for g in full:
                    del known[g]
                found.update([(g, None) for g in known if len(g.reads) <= room])
        return list(found)

    def _try(self, group: Group, node: Node, reads: list[Read], level: str) -> bool:
        """Add the node to the group where that is legal and within the limits."""
        if len(group.nodes) >= MAX_NODES or len(group.reads) + len(reads) > MAX_READS:
            return False
        shape = self._domain(node)
        for value, index in reads:
            inside = self.owner.get(value) is group
            if inside and (index is None or index != group.expected(value, shape, level)):
                return False
        if group.dims and level == "full" and self._again(group, reads) > MAX_AGAIN:
            return False
        if any(self._depends(value, group) for value, _ in reads):
            return False
        self._add(group, node, reads, level)
        return True

    def _again(self, group: Group, reads: list[Read]) -> int:
        """The cost of the group's values over the full domain that a node with these reads computes again."""
        inside = (v for v, _ in reads if self.owner.get(v) is group and group.level[v] == "full")
        return sum(self.costs.get(v, 0) for v in dict.fromkeys(inside))

    def _depends(self, value: Value, group: Group) -> bool:
        """True where `value` is made by a group that needs `group`."""
        owner = self.owner.get(value)
        return owner is not None and self.ancestors.needs(owner.number, group.number)

    def _needs(self, reads: Iterable[Read], group: Group) -> int:
        """The groups that must run before one with these reads, `group` itself not counted."""
        owners = dict.fromkeys(self.owner[value] for value, _ in reads if value in self.owner)
        return self.ancestors.closure(g.number for g in owners if g is not group)

    def _gains(self, group: Group, reads: list[Read]) -> bool:
        """True where the group would have to wait for more than it waits for already (that lengthens lifetimes)."""
        return bool(self.ancestors.lacks(group.number, self._needs(reads, group)))

    def _start(self, node: Node, reads: list[Read]) -> None:
        lower = node.op.lower
        kind = "map" if self._pointwise(node) else "rows" if isinstance(lower, Reduction) else ""
        kind = kind or {Contraction: "contract", Scattering: "scatter", Scanning: "scan"}[type(lower)]
        dims = reduced_dims(node) if kind == "rows" else ()
        group = Group(len(self.groups), kind, self._domain(node), dims)
        self.groups.append(group)
        self.ancestors.append()
        self._add(group, node, reads, "full")

    def _add(self, group: Group, node: Node, reads: list[Read], level: str) -> None:
        group.cost += self.costs.get(node.out, 0)
        if node.out in self.costs:  # from here on with what it needs of its group
            self.costs[node.out] += self._again(group, reads)
        group.nodes.append(node)
        stage = isinstance(node.op.lower, Reduction) and not self._pointwise(node)
        if stage:
            group.reductions.append(node)
        group.level[node.out] = "space" if stage else level
        self.owner[node.out] = group
        key: tuple[object, ...] | None = None
        if stage:
            key = ("rows", group.domain, group.dims)
        elif group.kind == "map" and self._pointwise(node) and level == "full":
            key = ("map", squeezed(node.out.type.sizes))
        outside = [(v, index) for v, index in reads if self.owner.get(v) is not group]
        for value, index in outside:
            group.reads.setdefault(value, []).append(index)
            if key is not None:
                self.siblings.setdefault((*key, value), {})[group] = None
        self.ancestors.wait(group.number, self._needs(outside, group))

    # ---- the result

    def finish(self) -> Fusion:
        stored = dict.fromkeys(v for g in self.groups for v in g.reads if v in self.owner)
        for value in self.outputs:
            value = self.base.get(value, value)
            if value in self.owner:
                stored[value] = None
        fusion = Fusion(self.graph, self.groups, self.inlined, self.base, self.laid, self.owner, stored)
        few = len(self.groups) <= FEW
        order = few_in_order(len(self.groups), _arcs(self.groups, self.owner)) if few else in_order(fusion.view())
        fusion.groups = [self.groups[k] for k in order]
        return fusion


def domain_of(node: Node) -> tuple[int, ...]:
    """The shape a node's kernel runs over: that of its output, for a reduction that of its input."""
    value = node.inputs[0] if isinstance(node.op.lower, Reduction) else node.out
    return value.type.sizes


def keeps_threads_busy(domain: tuple[int, ...], dims: tuple[int, ...]) -> bool:
    """True where several stages over the same rows pay: the run is innermost, and there are rows to share out."""
    last = max((d for d, n in enumerate(domain) if n != 1 and d not in dims), default=-1)
    if any(d < last and domain[d] != 1 for d in dims):
        return False
    rows = count([n for d, n in enumerate(domain) if d not in dims])
    return rows >= FEW_ROWS or count(domain) <= SMALL


def _one_run(dims: tuple[int, ...]) -> bool:
    return bool(dims) and all(b == a + 1 for a, b in itertools.pairwise(dims))


def _same_rows(group: Group, domain: tuple[int, ...], dims: tuple[int, ...]) -> bool:
    return group.kind == "rows" and group.domain == domain and group.dims == dims


def _levels(group: Group, node: Node) -> tuple[str, ...]:
    """On which levels of the group an Elementwise node fits."""
    shape = node.out.type.sizes
    if group.kind != "rows":
        return ("full",) if squeezed(shape) == squeezed(group.domain) else ()
    space = ("space",) if squeezed(shape) == squeezed(group.space) else ()
    full = ("full",) if shape == group.domain and keeps_threads_busy(group.domain, group.dims) else ()
    return space + full
