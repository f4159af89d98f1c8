"""Pulling one element of a value through the ops that make it: how producers are inlined into their consumers.

An Elementwise lowering asks for elements of its inputs; the answer is either the expression of another Elementwise op
(inlined) or a leaf: a load, a reduction's result, a contraction's sum. Fusion uses it to see who reads what where,
lowering to build kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from graphc.errors import InternalError
from graphc.ir.expr import Expr, iconst
from graphc.ir.graph import Node, Value
from graphc.ir.index import IndexSimplifier, both
from graphc.ir.op import Elementwise, Reduction
from graphc.ir.unroll import unrolled

Index = tuple[Expr, ...]
Leaf = Callable[[Value, Index, Expr | None], Expr]


class Puller:
    """Builds the Expr of a value at an index. `extents`: sizes of the axes the indices run over.

    Values in `inlined` are replaced by the expression of their op, all others are asked of `leaf(value, index, where)`.
    `visited` collects the nodes that were inlined, in order.
    """

    def __init__(self, leaf: Leaf, inlined: Container[Value], extents: Sequence[int]) -> None:
        self.leaf = leaf
        self.inlined = inlined
        self.simplify = IndexSimplifier(extents)
        self.visited: dict[Node, None] = {}
        self._memo: dict[tuple[Value, Index, Expr | None], Expr] = {}

    def value(self, value: Value, index: Sequence[Expr], where: Expr | None = None) -> Expr:
        """The element of `value` at `index`; unspecified where `where` is false."""
        shape = value.type.shape
        if len(index) != len(shape):
            raise InternalError(f"{value} read with {len(index)} indices")
        # an axis of size 1 has one place only: one form for all, so that equal places are equal Exprs
        place = tuple(_ZERO if n == 1 else self.simplify(i) for i, n in zip(index, shape, strict=True))
        key = (value, place, where)
        found = self._memo.get(key)
        if found is None:
            if value.node is not None and value in self.inlined:
                found = self.node(value.node, place, where)
            else:
                found = self.leaf(value, place, where)
            self._memo[key] = found
        return found

    def node(self, node: Node, index: Index, where: Expr | None = None) -> Expr:
        """The result of an Elementwise node or a short reduction at `index`, whether or not it is to be inlined."""
        lower = node.op.lower
        self.visited[node] = None
        if isinstance(lower, Reduction):
            return unrolled(node, lambda place: self.value(node.inputs[0], place, where), index)
        if not isinstance(lower, Elementwise):
            raise InternalError(f"{node.op.name} cannot be inlined")

        def at(k: int, place: Sequence[Expr], only: Expr | None = None) -> Expr:
            only = None if only is None else self.simplify(only)
            return self.value(node.inputs[k], place, both(where, only))

        return lower.fn(at, index, tuple(v.type for v in node.inputs), **node.attrs)


_ZERO = iconst(0)
