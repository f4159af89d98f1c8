"""Trace: what one recording found, as plain records. Two equal recordings confirm each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.frontend.record.paths import PathTable
from graphc.frontend.record.signature import Gradient
from graphc.frontend.record.tree import TreeSpec
from graphc.frontend.tensor import Tensor
from graphc.ir.graph import Graph, Location, Node, Value
from graphc.ir.subgraph import Subgraph
from graphc.ir.types import DType, Layout, TensorType

if TYPE_CHECKING:
    from graphc.frontend.record.counted import Counted
    from graphc.frontend.record.relations import Relation
    from graphc.frontend.record.tape import NodePlan


@dataclass(slots=True, eq=False)
class Source:
    """How graph input number k is fed.

    kind: "arg" (tensor argument, `number` = leaf), "float" and "int" (number argument), "path" (tensor state, `number`
    = path step), "random" (seed and offset), "setting" (float at a path: a learning rate).
    """

    kind: str
    number: int
    name: str
    layout: Layout
    tensor: Tensor | None = None  # the object found while recording
    loc: Location | None = None  # first use
    needs: bool = False  # it required gradients
    hooked: bool = False  # it had hooks
    # another tensor of the same kind may be at the path by now (`.grad`, an attribute that is rebound)
    loose: bool = False
    named: TensorType | None = None  # its type with named sizes


@dataclass(slots=True, eq=False)
class Guard:
    """A condition checked before the first write; `guards.CHECKS` says what each kind compares."""

    kind: str
    step: int
    expected: Any
    loc: Location | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RangeGuard:
    """All elements of graph input `number`, seen through the views of `chain`, must lie in [low, high) or be `ignored`:
    they are places to read or write, or probabilities.
    """

    number: int
    chain: tuple[Any, ...]
    low: float
    high: float
    ignored: int | None
    loc: Location


@dataclass(frozen=True, slots=True, eq=False)
class HostCall:
    """One graphc.host(): `fn` is given `values`; its results, of these layouts and arranged as `kind` says, are the
    graph inputs from number `first` on. `guards` conditions were tested before it.
    """

    fn: Any
    values: list[Value]
    kind: str
    results: list[Layout]
    first: int
    guards: int
    where: Location


@dataclass(slots=True, eq=False)
class ValueGuard:
    """A computed 0-d value that must come out as it did while recording: a bool (a branch) or an int (forced)."""

    value: Value
    expected: bool | int
    loc: Location
    bits: bytes = b""  # of the frozen value it is compared with


@dataclass(frozen=True, slots=True)
class Leaf:
    """How one returned leaf is made. kind: "fresh" (graph output `number` with the view operations of `value`), "alias"
    (of the tensor behind graph input `number`, with the view operations of `value`), "source" (the tensor behind graph
    input `number` itself), "input" (argument leaf `number` itself), "same" (leaf `number` again), "number" (graph
    output `number` as a Python number), "constant" (`value`).
    """

    kind: str
    number: int = -1
    value: Any = None
    requires_grad: bool = False
    edge: Any = None  # tape.Link: where its gradients go
    base_edge: Any = None  # where those of the tensor it is a view of go
    group: int = -1  # detached tensors over this memory: their number
    skip: int = 0  # links of `value` that lead to the tensor it is a view of
    shares: bool = True  # its writes are counted with those of its memory (`.data`: apart)
    leaf: bool = False  # requires_grad_() made it a leaf


@dataclass(slots=True, eq=False)
class Effect:
    """A write that outlives the call. kind: "state" (input `number` gets graph output `output`), "grad" (the leaf at
    step `number` gets kept leaf `output` as its `.grad`, or None when output is -1), "attr" (attribute `name` of the
    object at step `number` becomes kept leaf `output`, set the way Module.__setattr__ does).
    """

    kind: str
    number: int
    output: int
    name: str = ""
    loc: Location | None = None


@dataclass(slots=True, eq=False)
class Trace:
    """One recording, complete."""

    graph: Graph
    table: PathTable
    sources: list[Source]
    guards: list[Guard]
    value_guards: list[ValueGuard]
    effects: list[Effect]
    out_spec: TreeSpec
    out_leaves: list[Leaf]
    randoms: int  # random calls made
    seed: int | None  # manual_seed inside: the seed that holds at the end
    tape: tuple[NodePlan, ...] = ()  # what the returned tensors need for a backward() outside
    saved: list[Value] = field(default_factory=list)  # values that the tape keeps and nobody else holds
    kept: list[Leaf] = field(default_factory=list)  # what "grad" and "attr" effects store; numbered after out_leaves
    ranges: list[RangeGuard] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    constants: list[tuple[str, str]] = field(default_factory=list)  # (place, text) for explain()
    hosts: list[HostCall] = field(default_factory=list)
    counted: list[Counted] = field(default_factory=list)  # sizes that depend on values
    relations: list[Relation] = field(default_factory=list)  # tensors that belong together
    distinct: list[int] = field(default_factory=list)  # path steps of tensors that no argument may be
    gradients: list[Gradient] = field(default_factory=list)  # of arguments, for a file
    begin: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # (leaf whose .grad a file begins, like this)
    sharing: frozenset[tuple[int, int]] = frozenset()  # arguments in the memory of states, while it waits for another
    missed: str = ""  # the value that came out otherwise when it applied last but for that
    number: int = 0  # among those its function compiled, from 1
    executable: Any = None
    sized: Any = None  # sized.Sized, where there are any
    backward: Any = None  # backward_graph.BackwardPlan, where there is a tape
    picture: Any = None  # quick.Picture of the last full check
    repeat: Any = None  # repeat.Repeat, for calls like the last one
    moved: set[int] = field(default_factory=set)  # path steps of loose sources that were seen to change


def difference(a: Trace, b: Trace) -> str | None:
    """What differs between two recordings of the same call, as a sentence with the user's line; None when they are
    equal.
    """
    numbering: dict[Value, Value] = {}
    if len(a.sources) != len(b.sources):
        return _extra_source(a, b)
    for x, y in zip(a.sources, b.sources, strict=True):
        text = _source_difference(x, y)
        if text is not None:
            return text
    for i, j in zip(a.graph.inputs, b.graph.inputs, strict=True):
        numbering[i.value] = j.value
    for m, n in zip(a.graph.nodes, b.graph.nodes, strict=False):
        text = _node_difference(m, n, numbering)
        if text is not None:
            return text
        numbering.update(zip(m.outputs, n.outputs, strict=True))
    for (place, number), (_, other) in zip(a.constants, b.constants, strict=False):
        if number != other:  # numbers that differ before they are rounded to the dtype
            return f"{number} at {place} was {other} on the second call"
    if len(a.graph.nodes) != len(b.graph.nodes):
        longer, which = (a, "first") if len(a.graph.nodes) > len(b.graph.nodes) else (b, "second")
        node = longer.graph.nodes[min(len(a.graph.nodes), len(b.graph.nodes))]
        return f"{node.op.name} at {node.loc} ran on the {which} call only"
    return _end_difference(a, b, numbering)


def _extra_source(a: Trace, b: Trace) -> str:
    names = {s.name for s in a.sources} ^ {s.name for s in b.sources}
    return f"the two calls read different tensors: {', '.join(sorted(names)) or 'one more than the other'}"


def _source_difference(x: Source, y: Source) -> str | None:
    same = x.layout is y.layout if x.named is None else x.named is y.named
    if (x.kind, x.name) != (y.kind, y.name) or not same:
        return f"the tensor {x.name} ({x.layout}) was {y.name} ({y.layout}) on the second call (first used at {y.loc})"
    if x.kind == "path" and x.tensor is not y.tensor and not (x.loose and y.loose):
        return f"the tensor {x.name} was another object on the second call (first used at {y.loc})"
    return None


def _node_difference(m: Node, n: Node, numbering: dict[Value, Value]) -> str | None:
    if m.op is not n.op:
        return f"{m.op.name} at {m.loc} was {n.op.name} at {n.loc} on the second call"
    for key in m.attrs:
        if not same_bits(m.attrs[key], n.attrs.get(key)):
            return f"{_text(m.attrs[key])} at {m.loc} was {_text(n.attrs.get(key))} on the second call"
    if len(m.inputs) != len(n.inputs) or any(
        numbering.get(v) is not w for v, w in zip(m.inputs, n.inputs, strict=True)
    ):
        return f"{m.op.name} at {m.loc} was given other operands on the second call"
    if [v.type for v in m.outputs] != [v.type for v in n.outputs]:
        return f"{m.op.name} at {m.loc} gave {m.outputs[0].type}, then {n.outputs[0].type} on the second call"
    return None


def _end_difference(a: Trace, b: Trace, numbering: dict[Value, Value]) -> str | None:
    outs_a, outs_b = [(o.kind, o.name) for o in a.graph.outputs], [(o.kind, o.name) for o in b.graph.outputs]
    if outs_a != outs_b or any(
        numbering[o.value] is not p.value for o, p in zip(a.graph.outputs, b.graph.outputs, strict=True)
    ):
        return "the two calls returned or wrote different values"
    if a.out_spec != b.out_spec or len(a.out_leaves) != len(b.out_leaves) or len(a.kept) != len(b.kept):
        return "the two calls returned differently shaped results"
    for k, (x, y) in enumerate(zip(a.out_leaves + a.kept, b.out_leaves + b.kept, strict=True)):
        if _leaf_key(x) != _leaf_key(y) or not same_bits(x.value, y.value):
            return f"returned value {k} was {x.value!r}, then {y.value!r} on the second call"
    if [(g.expected, str(g.loc)) for g in a.value_guards] != [(g.expected, str(g.loc)) for g in b.value_guards]:
        return "the two calls took different branches"
    if (a.randoms, a.seed) != (b.randoms, b.seed):
        return "the two calls drew different random numbers"
    text = _hosts_difference(a, b, numbering)
    if text is not None:
        return text
    same = len(a.saved) == len(b.saved) and all(numbering[v] is w for v, w in zip(a.saved, b.saved, strict=True))
    if not same or not same_bits([n.key() for n in a.tape], [n.key() for n in b.tape]):
        return "the two calls returned values with different gradient histories"
    if [c.name for c in a.counted] != [c.name for c in b.counted] or any(
        numbering.get(c.value) is not d.value for c, d in zip(a.counted, b.counted, strict=True)
    ):
        return "the two calls had sizes that depend on other values"
    if list(map(_range_key, a.ranges)) != list(map(_range_key, b.ranges)):
        return "the two calls used other indices"
    if [(e.kind, e.output, e.name) for e in a.effects] != [(e.kind, e.output, e.name) for e in b.effects]:
        return "the two calls wrote to different places"
    return None


def _hosts_difference(a: Trace, b: Trace, numbering: dict[Value, Value]) -> str | None:
    from graphc.frontend.record.callbacks import callback_differs

    if len(a.hosts) != len(b.hosts):
        return "the two calls ran different callbacks"
    for x, y in zip(a.hosts, b.hosts, strict=True):
        text = callback_differs(x, y)
        if text is not None:
            return text
        if [numbering[v] for v in x.values] != y.values:
            return f"the callback at {x.where} was given other values on the second call"
    return None


def _range_key(r: RangeGuard) -> tuple[Any, ...]:
    return r.number, r.low, r.high, r.ignored


def _leaf_key(x: Leaf) -> tuple[Any, ...]:
    return x.kind, x.number, x.requires_grad, x.edge, x.base_edge, x.group, x.skip, x.shares, x.leaf


def branches_differ(a: Trace, b: Trace) -> bool:
    """True when the recordings part at a value guard: two legitimate paths of one function."""
    for x, y in zip(a.value_guards, b.value_guards, strict=False):
        if str(x.loc) != str(y.loc):
            return True
        if x.expected != y.expected or x.bits != y.bits:
            return True
    return False


def same_bits(x: Any, y: Any) -> bool:
    """Equality by type and bits: 1, True and 1.0 differ, 0.0 and -0.0 differ, NaN equals NaN."""
    if type(x) is not type(y):
        return False
    if isinstance(x, float):
        return bool(x.hex() == y.hex())
    if isinstance(x, np.ndarray):
        return bool(x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes())
    if isinstance(x, (tuple, list)):
        return len(x) == len(y) and all(map(same_bits, x, y))
    if isinstance(x, dict):
        return list(x) == list(y) and all(same_bits(v, y[k]) for k, v in x.items())
    if isinstance(x, (bool, int, str, bytes)) or x is None:
        return bool(x == y)
    return x is y or (isinstance(x, (DType, TensorType, Subgraph)) and x == y)


def _text(x: Any) -> str:
    if isinstance(x, np.ndarray):
        return repr(x.item()) if x.size == 1 else f"an array {x.dtype}{list(x.shape)}"
    return repr(x)
