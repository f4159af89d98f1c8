"""The Op record: all there is to know about one operation, in one place.

Calling an Op works on whatever it is given: the operand's `apply_op` decides (a Tensor runs it, a Value adds a node),
so one gradient rule or decomposition serves eager execution, the recorder and graph passes. Rules call Ops, never
operators of Tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from graphc.errors import InternalError, ShapeError
from graphc.ir.types import DTYPES, DType, TensorType

if TYPE_CHECKING:
    from graphc.ir.expr import Expr
    from graphc.ir.kernel import Contract

Array = np.ndarray[Any, Any]
Attrs = Mapping[str, Any]


class Operand(Protocol):
    """What an Op can be called on: a Tensor, a graph Value, or a type-only stand-in."""

    @property
    def ttype(self) -> TensorType: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One set of test operands. Float arrays are given in float64 and cast to each dtype under test."""

    inputs: tuple[Array, ...]
    attrs: Attrs = field(default_factory=dict)
    name: str = ""
    grad: bool = True  # False: a kink or a pole is too near for finite differences
    dtypes: tuple[DType, ...] | None = None  # overrides Op.dtypes for the float operands of this sample


@dataclass(frozen=True, slots=True)
class Elementwise:
    """Lowering of an op whose every output element is an expression of elements of the inputs ("pull" style).

    `fn(at, index, types, **attrs)`: `index` is one int64 Expr an output axis; `at(k, index, where=None)` is input k at
    that index (exactly one index an input axis). Where `where` is false the value of `at` is unspecified and must be
    selected away. Pointwise ops, movement, iota, random numbers, pad, cat and gather are all of this kind.
    """

    fn: Callable[..., Expr]
    movement: bool = False  # only moves values (no arithmetic): free to inline


@dataclass(frozen=True, slots=True)
class Reduction:
    """Lowering of a reduction over one run of adjacent axes; `kind` as in kernel.ReduceStage. Attributes: dim (tuple),
    keepdim.
    """

    kind: str


@dataclass(frozen=True, slots=True)
class ContractPiece:
    """One Contract of a contraction op: `core` without stores; `out` is the output index as Exprs over the axes
    (*batch, *m, *n).

    Operand numbers in core.a and core.b are input numbers of the op. `pads[k]` = ((lo, hi), …) pads input k with zeros
    first (strides in core are those of the padded, contiguous input). Several pieces write disjoint parts of the
    output.
    """

    core: Contract
    out: tuple[Expr, ...]
    pads: Mapping[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contraction:
    """Lowering of matmul and convolutions: `fn(types, **attrs)` gives the pieces. Inputs are contiguous, row-major."""

    fn: Callable[..., Sequence[ContractPiece]]


@dataclass(frozen=True, slots=True)
class Scattering:
    """Lowering of an op that starts from a copy of input 0 and writes or adds rows into it in ascending source order.

    `fn(at, index, types, **attrs)` gives (space, run, out_index, value, where): `index` holds len(space)+1 index Exprs
    (space axes, then run).
    """

    fn: Callable[..., tuple[tuple[int, ...], int, tuple[Expr, ...], Expr, Expr | None]]
    add: bool


@dataclass(frozen=True, slots=True)
class Scanning:
    """Lowering of a walk along one axis, with a result of the operand's shape; `kind` as in kernel.Scan.

    Attributes: dim (an axis), and descending for "argsort".
    """

    kind: str


@dataclass(frozen=True, slots=True)
class Control:
    """An op that runs graphs, which its attributes hold: there is no kernel for it (runtime/segments.py)."""


Lowering = Elementwise | Reduction | Contraction | Scattering | Scanning | Control


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One operation. `define()` checks that the record is complete.

    - `infer(*types, **attrs)` -> TensorType, or a tuple of them for several outputs. Sizes may be named: use ==, + and
      * only, and exact_div. Raises ShapeError/DTypeError/DimError whose message starts with the op's name.
    - `reference(*arrays, **attrs)` -> NumPy array(s) of exactly the inferred type: the oracle. For a view op it returns
      a NumPy view.
    - `vjp(g, out, *inputs, needs, **attrs)` -> one gradient (or None) an input; `needs[k]` says which are wanted.
      Operands not named in `saves` come as type-only stand-ins. For several outputs `g` and `out` are tuples; an unused
      output's g is None.
    - exactly one of `lower` (a primitive) and `decompose(*inputs, **attrs)` (a composition); both when a primitive form
      needs normalising first: decompose returns None when the node is primitive already.
    - `scatter(base, value, **attrs)`: this op is a view; gives the base with `value` written where the view looks.
    """

    name: str
    infer: Callable[..., TensorType | tuple[TensorType, ...]]
    reference: Callable[..., Any]
    samples: Callable[[np.random.Generator], Iterator[Sample]]
    lower: Lowering | None = None
    decompose: Callable[..., Any] | None = None
    vjp: Callable[..., tuple[Any, ...]] | None = None
    saves: tuple[str, ...] = ()  # "out" and/or input numbers as strings: what vjp reads beyond types
    dtypes: tuple[DType, ...] = DTYPES
    any_width: bool = False  # takes narrow types as they are (ir/narrow.py), though it may not only move values
    differentiable: bool = True  # False: outputs never carry gradients (comparisons, argmax, integer results)
    scatter: Callable[..., Any] | None = None
    arity: int | None = 1  # None: any number of operands (cat)
    outputs: int | None = 1  # None: as many as `infer` gives
    random: bool = False
    doc: str = ""
    # what eager execution does for operands of known layouts; filled and bounded by the front end
    plans: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __call__(self, *operands: Any, **attrs: Any) -> Any:
        """Apply to Tensors or Values; a Python number among them becomes a 0-d constant of the dtype of the first real
        operand.
        """
        for x in operands:
            handler = getattr(type(x), "apply_op", None)
            if handler is not None:
                return handler(self, operands, attrs)
        handler = _default_apply.get() or _fallback_apply
        if handler is None:
            raise InternalError(f"{self.name} has no operand and no builder is active")
        return handler(self, operands, attrs)

    def infer_types(self, types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        """`infer` with its result always a tuple."""
        found = self.infer(*types, **attrs)
        made = found if isinstance(found, tuple) else (found,)
        for t in made:
            if t.static and t.nbytes > _MAX_BYTES:
                raise ShapeError(f"{self.name}: the result {t} has more elements than memory has addresses; shrink it")
        return made

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return op_named, (self.name,)


# Who runs an op without tensor operands (full, iota, rand): set by whoever builds a graph, else eager execution.
_default_apply: ContextVar[Callable[[Op, tuple[Any, ...], Attrs], Any] | None] = ContextVar(
    "default_apply", default=None
)
# eager execution, once the front end is loaded
_fallback_apply: Callable[[Op, tuple[Any, ...], Attrs], Any] | None = None
_OPS: dict[str, Op] = {}
_MAX_BYTES = 2**63 - 1


def default_apply() -> ContextVar[Callable[[Op, tuple[Any, ...], Attrs], Any] | None]:
    """The context variable that decides who runs an op called without operands."""
    return _default_apply


def set_fallback_apply(handler: Callable[[Op, tuple[Any, ...], Attrs], Any]) -> None:
    """Who runs an op without operands when no graph is being built: the front end says so once, when it is loaded."""
    global _fallback_apply
    _fallback_apply = handler


def define(op: Op) -> Op:
    """Register `op`. Raises InternalError for an incomplete or duplicate record."""
    if op.name in _OPS:
        raise InternalError(f"op {op.name} is defined twice")
    if op.lower is None and op.decompose is None:
        raise InternalError(f"op {op.name} has neither lower nor decompose")
    if op.differentiable and op.vjp is None and op.decompose is None:
        raise InternalError(f"primitive op {op.name} is differentiable but has no vjp")
    if any(s != "out" and not s.isdigit() for s in op.saves):
        raise InternalError(f"op {op.name}: saves must name 'out' or input numbers")
    _OPS[op.name] = op
    return op


def op_named(name: str) -> Op:
    """The op called `name`. Raises KeyError; text and file readers turn that into their own error."""
    load_ops()
    return _OPS[name]


def all_ops() -> Mapping[str, Op]:
    """Every defined op by name, in order of definition."""
    load_ops()
    return MappingProxyType(_OPS)


def load_ops() -> None:
    """Import every family, so that the table is complete."""
    import graphc.ir.ops  # noqa: F401
