"""Inlining: which Elementwise values are computed where they are read instead of being stored.

The rules weigh arithmetic done again against memory traffic saved; `Access.cost` counts additions. A value is inlined
when it only moves values at no cost, when it has one reader that reads each element about once, or when it is cheap
and reads one large value. Never inlined: what a contraction must have in memory (unless it is a strided view of a
buffer), what feeds the last step of a contraction's epilogue at another place, and anything dear that would be
computed several times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.ir.access import Access, access_of, count, own_index, placeholder, squeezed
from graphc.ir.expr import Expr, affine
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.narrow import before_widening
from graphc.ir.op import Contraction, Elementwise, Scattering
from graphc.ir.pull import Index, Puller

MAX_DEPTH = 12  # inlined ops below one another: bounds recursion
MAX_LOADS = 12
MAX_COST = 200
CHEAP = 6  # cost of what may be computed in several kernels
CHEAP_MOVEMENT = 12  # a pad or a flip under windows


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known of a value if it is inlined, with all that is inlined into it."""

    cost: int
    depth: int
    loads: tuple[Value, ...]


def choose_inlined(graph: Graph, is_alias: Callable[[Node], bool]) -> tuple[dict[Value, None], dict[Value, int]]:
    """The values of `graph` to inline, and for every Elementwise value the cost of an element, inlined parts included.

    `is_alias(node)`: the node needs no kernel if its input has a contiguous buffer.
    """
    chooser = _Chooser(graph, is_alias)
    for node in graph.nodes:
        if isinstance(node.op.lower, Elementwise) and node.op.name != "constant":
            chooser.visit(node)
    return chooser.inlined, chooser.costs


class _Chooser:
    def __init__(self, graph: Graph, is_alias: Callable[[Node], bool]) -> None:
        self.is_alias = is_alias
        self.users = graph.users()
        self.outputs = dict.fromkeys(o.value for o in graph.outputs)
        self.inlined: dict[Value, None] = {}
        self.costs: dict[Value, int] = {}
        self.facts: dict[Value, _Facts] = {}
        self.access: dict[Node, Access] = {}
        self.epilogue: dict[Value, None] = {}  # results of contractions, and what is pointwise over them

    def visit(self, node: Node) -> None:
        facts = self._facts_of(node)
        value = node.out
        self.costs[value] = facts.cost
        if self._continues_epilogue(node):
            self.epilogue[value] = None
        if (
            value in self.outputs
            or not self._worth(node, facts)
            or not all(self._takes(u, node) for u in self.users[value])
        ):
            return
        self.inlined[value] = None
        self.facts[value] = facts

    def _access(self, node: Node) -> Access:
        found = self.access.get(node)
        if found is None:
            found = self.access[node] = access_of(node)
        return found

    def _facts_of(self, node: Node) -> _Facts:
        access = self._access(node)
        cost, depth, loads = access.cost, 0, dict[Value, None]()
        for k, _ in access.reads:
            below = self.facts.get(node.inputs[k])
            if below is None:
                loads[node.inputs[k]] = None
            else:
                cost += below.cost
                depth = max(depth, below.depth + 1)
                loads |= dict.fromkeys(below.loads)
        return _Facts(cost, depth, tuple(loads))

    def _worth(self, node: Node, facts: _Facts) -> bool:
        """Whether inlining saves more than it costs."""
        if facts.depth > MAX_DEPTH or len(facts.loads) > MAX_LOADS or facts.cost > MAX_COST:
            return False
        if node.out in self.epilogue and not self._is_step(node):
            return False
        if self._moves(node) and not self._access(node).simple:
            return False  # scattered reads: better once
        if facts.cost == 0:
            return True
        users = self.users[node.out]
        again = max((self._times(u, node.out) for u in users), default=0.0)
        if len(users) == 1 and again <= 1.5:
            return True
        large = [v for v in facts.loads if 2 * count(v.type.sizes) >= count(node.out.type.sizes)]
        limit = CHEAP_MOVEMENT if self._moves(node) else CHEAP
        return again <= 4 and facts.cost <= limit and len(large) <= 1

    def _moves(self, node: Node) -> bool:
        return isinstance(node.op.lower, Elementwise) and node.op.lower.movement

    def _times(self, user: Node, value: Value) -> float:
        """How often each element of `value` is computed if `user` computes it."""
        if not isinstance(user.op.lower, Elementwise):
            return 1.0
        reads = sum(user.inputs[k] is value for k, _ in self._access(user).reads)
        return reads * count(user.out.type.sizes) / max(count(value.type.sizes), 1)

    def _takes(self, user: Node, node: Node) -> bool:
        """Whether `user` can compute the result of `node` itself."""
        lower = user.op.lower
        if isinstance(lower, Contraction):
            return self._is_view(node)
        if isinstance(lower, Scattering):
            return self._moves(node) and self._access(node).cost == 0
        if isinstance(lower, Elementwise) and self.is_alias(user) and not self._access(user).simple:
            return False
        arithmetic = not self._moves(node) and bool(node.inputs)
        return not (arithmetic and self._moves(user) and self._feeds_contraction(user, 0))

    def _feeds_contraction(self, node: Node, depth: int) -> bool:
        """Whether a movement leads to a contraction, which then reads the buffer below it in strides."""
        for user in self.users[node.out]:
            if isinstance(user.op.lower, Contraction) or (
                depth < 8 and self._moves(user) and self._feeds_contraction(user, depth + 1)
            ):
                return True
        return False

    def _is_view(self, node: Node) -> bool:
        """Whether the result is one buffer read in strides, of a narrow type or of its own."""
        shape = node.out.type.sizes
        leaves: list[Value] = []

        def leaf(value: Value, index: Index, where: Expr | None) -> Expr:
            leaves.append(value)
            return placeholder(value, index)

        e = before_widening(Puller(leaf, self.inlined, shape).node(node, own_index(shape)))
        return e.op == "load" and len(e.args) == 1 and len(leaves) == 1 and affine(e.args[0], len(shape)) is not None

    def _continues_epilogue(self, node: Node) -> bool:
        """Whether the node is pointwise over the result of a contraction."""
        here = own_index(node.out.type.sizes)
        return any(
            index == here and (self._is_contraction(node.inputs[k]) or node.inputs[k] in self.epilogue)
            for k, index in self._access(node).reads
            if squeezed(node.inputs[k].type.sizes) == squeezed(node.out.type.sizes)
        )

    def _is_contraction(self, value: Value) -> bool:
        return value.node is not None and isinstance(value.node.op.lower, Contraction)

    def _is_step(self, node: Node) -> bool:
        """Whether the only reader continues the epilogue at the same place."""
        users = self.users[node.out]
        if len(users) != 1 or not isinstance(users[0].op.lower, Elementwise):
            return False
        user = users[0]
        here = own_index(user.out.type.sizes)
        places = [index for k, index in self._access(user).reads if user.inputs[k] is node.out]
        return user.out.type.sizes == node.out.type.sizes and all(index == here for index in places)
