"""The canonical form of a kernel's expressions: structure apart from numbers, so that equal structure shares code.

`Abstraction` turns Exprs into Nodes. Sums of int64 values become one "affine" node; every integer constant other than 0
and 1 becomes a run-time param. Printers see Nodes only, so the key text (which lists them) fully decides the code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.ir.expr import Expr, walk
from graphc.ir.types import DType, int64

RESULT = 1000  # dependence tokens: axis numbers, RESULT + stage, ACC
ACC = 2000
_SMALL = 1 << 52  # quotients of non-negative integers below this are exact in float64
Form = tuple[int, dict[Expr, int]]


@dataclass(frozen=True, slots=True)
class Slot:
    """A number known when the kernel is called: word `k` of the params."""

    k: int


Num = int | Slot  # 0, 1 (a step of the vector axis: also a DENSE one) or a slot
DENSE = (-1, 2, 3, 4)  # steps of the vector axis worth code of their own: whole vectors are read and shuffled


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Node:
    """An expression without numbers. op: "affine", "load", "const", "result", "acc", "divpos", "rempos" or a function.

    affine: Σ nums[1 + k] * axis axes[k] + Σ (following nums) * args + nums[0]. divpos/rempos: floor division by the
    number nums[0] > 0; value "small" says that the dividend is known to be in [0, 2**52).
    """

    number: int
    op: str
    dtype: DType
    args: tuple[Node, ...]
    value: Any
    nums: tuple[Num, ...]
    axes: tuple[int, ...]
    depends: frozenset[int]

    def __repr__(self) -> str:
        return f"%{self.number} {self.op}"


@dataclass(frozen=True, slots=True)
class StoreNode:
    """A Store in canonical form."""

    operand: int
    dtype: DType
    flat: Node
    value: Node
    where: Node | None


def all_nodes(roots: Iterable[Node]) -> list[Node]:
    """Every node under `roots`, by number."""
    seen: dict[int, Node] = {}
    stack = list(roots)
    while stack:
        n = stack.pop()
        if n.number not in seen:
            seen[n.number] = n
            stack.extend(n.args)
    return [seen[k] for k in sorted(seen)]


def store_roots(stores: Iterable[StoreNode]) -> list[Node]:
    """The nodes a list of stores needs."""
    return [n for s in stores for n in (s.flat, s.value, s.where) if n is not None]


def below(root: Node, done: Callable[[Node], bool], operands: Callable[[Node], Sequence[Node]]) -> list[Node]:
    """What is not `done` under `root`, operands first."""
    order: list[Node] = []
    stack = [(root, False)]
    seen: set[int] = set()
    while stack:
        x, ready = stack.pop()
        if ready:
            order.append(x)
        elif x.number not in seen and not done(x):
            seen.add(x.number)
            stack.append((x, True))
            stack.extend((a, False) for a in reversed(operands(x)))
    return order


class Abstraction:
    """Collects the Nodes, the key text and the params of one kernel.

    `axes[k]` is the new number of kernel axis k, or None when it is dropped (size 1) or merged into a later axis;
    `sizes` are the sizes of the kernel's own axes, `vector` is the new number of the axis that runs in vectors.
    """

    def __init__(self, axes: Sequence[int | None], sizes: Sequence[int], vector: int | None = None) -> None:
        self._axes = tuple(axes)
        self._vector = vector
        self._sizes = tuple(sizes)
        self._params: list[int] = []
        self._lines: list[str] = []
        self._nodes: dict[Expr, Node] = {}
        self._forms: dict[Expr, Form] = {}
        self._bounds: dict[Expr, tuple[int, int] | None] = {}

    @property
    def params(self) -> tuple[int, ...]:
        """The numbers to pass at run time."""
        return tuple(self._params)

    def key(self, head: str) -> str:
        """The canonical text of everything asked for so far; `head` names the template and its structural choices."""
        return "\n".join([head, *self._lines])

    def param(self, value: int) -> Slot:
        """A run-time number of its own."""
        self._params.append((value + (1 << 63)) % (1 << 64) - (1 << 63))
        return Slot(len(self._params) - 1)

    def num(self, value: int) -> Num:
        """0 and 1 are structure, all else is a param."""
        return value if value in (0, 1) else self.param(value)

    def store(self, operand: int, dtype: DType, flat: Expr, value: Expr, where: Expr | None) -> StoreNode:
        """A store of a kernel whose operand `operand` has type `dtype`."""
        nodes = self.node(flat), self.node(value), self.node(where) if where is not None else None
        self._lines.append(f"store {operand} {dtype.short} {' '.join(f'%{n.number}' if n else '-' for n in nodes)}")
        return StoreNode(operand, dtype, *nodes)

    def node(self, e: Expr) -> Node:
        """The Node of an Expr: the same for the same Expr."""
        for x in walk(e):  # operands first: no deep recursion
            if x not in self._nodes and x.dtype is not int64:
                self._nodes[x] = self._plain(x)
        return self._get(e)

    def _get(self, e: Expr) -> Node:
        found = self._nodes.get(e)
        if found is None:
            found = self._nodes[e] = self._build(e)
        return found

    def _build(self, e: Expr) -> Node:
        if e.dtype is int64 and e.op in ("const", "index", "add", "sub", "mul"):
            constant, terms = form = self._form(e)
            if e.op != "mul" or form != (0, {e: 1}):
                return self._affine(constant, terms)
        if e.dtype is int64 and e.op in ("idiv", "irem") and e.args[1].op == "const" and e.args[1].value > 0:
            low_high = self.bounds(e.args[0])
            small = low_high is not None and low_high[0] >= 0 and max(low_high[1], e.args[1].value) < _SMALL
            name = "divpos" if e.op == "idiv" else "rempos"
            args, nums = (self._get(e.args[0]),), (self.param(e.args[1].value),)
            return self._new(name, int64, args, "small" if small else None, nums)
        return self._plain(e)

    def _plain(self, e: Expr) -> Node:
        args = e.args[:3] if e.op == "philox" else e.args
        value = e.args[3].value if e.op == "philox" else e.value
        return self._new(e.op, e.dtype, tuple(self._get(a) for a in args), value)

    def _affine(self, constant: int, terms: dict[Expr, int]) -> Node:
        by_axis = {self._axes[a.value]: k for a, k in terms.items() if a.op == "index"}
        axes = tuple(sorted(a for a in by_axis if a is not None))
        atoms = [(a, k) for a, k in terms.items() if a.op != "index"]
        args = tuple(self._get(a) for a, _ in atoms)
        nums = (self.num(constant), *(self._step(a, by_axis[a]) for a in axes), *(self.num(k) for _, k in atoms))
        return self._new("affine", int64, args, None, nums, axes)

    def _step(self, axis: int, step: int) -> Num:
        return step if axis == self._vector and step in DENSE else self.num(step)

    def _new(
        self,
        op: str,
        dtype: DType,
        args: tuple[Node, ...],
        value: Any,
        nums: tuple[Num, ...] = (),
        axes: tuple[int, ...] = (),
    ) -> Node:
        depends = frozenset(axes).union(*(a.depends for a in args))
        if op in ("result", "acc"):
            depends |= {RESULT + value if op == "result" else ACC}
        node = Node(len(self._lines), op, dtype, args, value, nums, axes, depends)
        shown = value.hex() if isinstance(value, float) else value
        given = [*(f"%{a.number}" for a in args), *(f"p{n.k}" if isinstance(n, Slot) else str(n) for n in nums)]
        self._lines.append(f"{op} {node.dtype.short} {shown} {' '.join([*given, *(f'i{a}' for a in axes)])}")
        return node

    def _form(self, e: Expr) -> Form:
        found = self._forms.get(e)
        if found is None:
            for x in walk(e):
                if x not in self._forms:
                    self._forms[x] = linear(x, self._forms)
            found = self._forms[e]
        return found

    def bounds(self, e: Expr) -> tuple[int, int] | None:
        """The least and greatest value of an int64 Expr of indices alone, else None."""
        if e not in self._bounds:
            self._bounds[e] = self._find_bounds(e)
        return self._bounds[e]

    def _find_bounds(self, e: Expr) -> tuple[int, int] | None:
        if e.op == "index":
            return 0, max(self._sizes[e.value] - 1, 0)
        if e.op in ("idiv", "irem") and e.args[1].op == "const" and e.args[1].value > 0:
            inner, d = self.bounds(e.args[0]), int(e.args[1].value)
            if inner is None:
                return None
            return (inner[0] // d, inner[1] // d) if e.op == "idiv" else (0, d - 1)
        constant, terms = self._form(e)
        if e in terms:
            return None
        low = high = constant
        for atom, k in terms.items():
            inner = self.bounds(atom)
            if inner is None:
                return None
            ends = (inner[0] * k, inner[1] * k)
            low, high = low + min(ends), high + max(ends)
        return low, high


def linear(e: Expr, forms: dict[Expr, Form]) -> Form:
    """`e` as constant + Σ coefficient * atom, from the forms of its operands."""
    if e.dtype is int64 and e.op == "const":
        return int(e.value), {}
    if e.dtype is int64 and e.op in ("add", "sub"):
        (c0, t0), (c1, t1) = forms[e.args[0]], forms[e.args[1]]
        sign = 1 if e.op == "add" else -1
        merged = dict(t0)
        for atom, k in t1.items():
            merged[atom] = merged.get(atom, 0) + sign * k
        return c0 + sign * c1, {a: k for a, k in merged.items() if k}
    if e.dtype is int64 and e.op == "mul" and e.args[1].op == "const":
        c, t = forms[e.args[0]]
        k = int(e.args[1].value)
        return c * k, {a: v * k for a, v in t.items() if v * k}
    return 0, {e: 1}


def index_forms(roots: Iterable[Expr]) -> list[dict[int, int]]:
    """Coefficients by axis of every linear form of indices that is used under `roots`."""
    forms: dict[Expr, Form] = {}
    order = walk(*roots)
    for e in order:
        forms[e] = linear(e, forms)
    used = [*roots, *(a for e in order if e in forms[e][1] for a in e.args)]
    found = []
    for e in dict.fromkeys(used):
        axes = {a.value: k for a, k in forms[e][1].items() if a.op == "index"}
        if axes:
            found.append(axes)
    return found


def can_merge(outer: int, inner: int, inner_size: int, forms: Sequence[dict[int, int]]) -> bool:
    """True when two nested loops over these axes can be one: every form steps `outer` by inner_size times `inner`."""
    return all(f.get(outer, 0) == f.get(inner, 0) * inner_size for f in forms)


def merge_axes(order: Sequence[int], sizes: Sequence[int], forms: Sequence[dict[int, int]]) -> list[list[int]]:
    """Axes `order` (outermost first) grouped so that each group can run as one loop; size-1 axes are left out.

    A group is walked row-major; its last axis carries the coefficients (see Abstraction: the others are given None).
    """
    groups: list[list[int]] = []
    for axis in order:
        if sizes[axis] == 1:
            continue
        if groups and can_merge(groups[-1][-1], axis, sizes[axis], forms):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    return groups
