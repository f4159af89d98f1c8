"""Graph, Node, Value: static single assignment over typed tensors.

The graph owns its nodes; networkx is used for algorithms on a view of it (`ir/dag.py`), never to store it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, GraphError, InternalError
from graphc.ir.convert import number_array
from graphc.ir.op import Array, Op, default_apply, op_named
from graphc.ir.types import DType, TensorType


@dataclass(frozen=True, slots=True)
class Location:
    """A place in the user's program. Kept as code object and instruction offset; file and line are worked out when
    asked for.
    """

    code: CodeType | None = None
    offset: int = -1
    file: str = ""
    number: int = 0

    @property
    def filename(self) -> str:
        """The file's path as Python knows it."""
        return self.code.co_filename if self.code is not None else self.file

    @property
    def line(self) -> int:
        """The line number, 0 when unknown."""
        if self.code is None:
            return self.number
        for start, stop, line in self.code.co_lines():
            if start <= self.offset < stop and line is not None:
                return line
        return self.code.co_firstlineno

    def __str__(self) -> str:
        name = self.filename.rsplit("/", 1)[-1]
        return f"{name}:{self.line}" if name else "?"


class Value:
    """One result of a node, or an input of the graph."""

    __slots__ = ("__weakref__", "graph", "index", "name", "node", "type")

    def __init__(self, graph: Graph, type: TensorType, node: Node | None, index: int, name: str = "") -> None:
        self.graph = graph
        self.type = type
        self.node = node  # None: a graph input
        self.index = index  # which output of the node, or which input of the graph
        self.name = name

    @staticmethod
    def apply_op(op: Op, operands: tuple[Any, ...], attrs: Mapping[str, Any]) -> Any:
        """Add a node to the graph of the first operand that has one."""
        graph = next(x.graph for x in operands if isinstance(x, Value))
        return graph.apply(op, operands, attrs)

    @property
    def ttype(self) -> TensorType:
        """The type, under the name rules ask every operand for (Tensor.type is PyTorch's method)."""
        return self.type

    @property
    def shape(self) -> tuple[Any, ...]:
        """Shorthand for type.shape."""
        return self.type.shape

    @property
    def dtype(self) -> DType:
        """Shorthand for type.dtype."""
        return self.type.dtype

    def __repr__(self) -> str:
        return f"%{self.name or (self.node.op.name if self.node else 'arg') + str(self.index)}: {self.type}"


@dataclass(slots=True, eq=False)
class Node:
    """One application of an op."""

    op: Op
    inputs: tuple[Value, ...]
    attrs: dict[str, Any]
    outputs: tuple[Value, ...] = ()
    loc: Location | None = None
    module: str = ""  # path of the Module whose forward ran, e.g. "layer1.0.conv2"
    phase: str = "forward"  # "forward", "backward" or "update"

    @property
    def out(self) -> Value:
        """The only output."""
        if len(self.outputs) != 1:
            raise InternalError(f"{self.op.name} has {len(self.outputs)} outputs")
        return self.outputs[0]


@dataclass(frozen=True, slots=True)
class Input:
    """How a graph input is fed. kind: "input" (an argument) or "state" (lifted: parameter, buffer, optimiser or
    random state).
    """

    value: Value
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Output:
    """What a graph gives. kind: "output" (a returned value), "state" (new value of the state input `name`),
    "grad" (a `.grad`, named) or "size" (0-d int64: the number the dimension `name` stands for after it).
    """

    value: Value
    kind: str
    name: str


@dataclass(slots=True, eq=False)
class Graph:
    """Nodes in an order that respects data flow, with named inputs and outputs."""

    name: str = "graph"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    # what new nodes get; set by whoever adds them
    loc: Location | None = None
    module: str = ""
    phase: str = "forward"

    def add_input(self, type: TensorType, name: str, kind: str = "input") -> Value:
        """A new graph input."""
        value = Value(self, type, None, len(self.inputs), name)
        self.inputs.append(Input(value, kind, name))
        return value

    def add_output(self, value: Value, name: str, kind: str = "output") -> None:
        """Declare `value` an output of the graph."""
        self.outputs.append(Output(value, kind, name))

    def add(
        self,
        op: Op,
        inputs: Sequence[Value],
        attrs: Mapping[str, Any],
        types: Sequence[TensorType] | None = None,
    ) -> tuple[Value, ...]:
        """Append a node; types are inferred, where the caller does not know them from having inferred them itself.
        Arrays among the attributes are copied unless read-only and row-major.
        """
        if types is None:
            types = op.infer_types([v.type for v in inputs], attrs)
        kept = {name: frozen(a) if isinstance(a, np.ndarray) else a for name, a in attrs.items()}
        node = Node(op, tuple(inputs), kept, (), self.loc, self.module, self.phase)
        node.outputs = tuple([Value(self, t, node, i) for i, t in enumerate(types)])
        self.nodes.append(node)
        return node.outputs

    def apply(self, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        """Append a node as an Op call does: Python numbers become constants; one output comes bare, several as a
        tuple. Raises GraphError for a value of another graph, ArgumentError for what is neither value nor number.
        """
        for k, x in enumerate(operands):
            if isinstance(x, Value) and x.graph is not self:
                raise GraphError(
                    f"{op.name}: operand {k} is {x.type} of the graph {x.graph.name!r}, but the node is added to the "
                    f"graph {self.name!r}; build both in one graph"
                )
            if not isinstance(x, (Value, bool, int, float, np.generic)):
                raise ArgumentError(
                    f"{op.name}: operand {k} is a {type(x).__name__}, expected a value of the graph {self.name!r} or a "
                    "number; add_input() makes one"
                )
        like = next((x.type.dtype for x in operands if isinstance(x, Value)), None)
        values = [x if isinstance(x, Value) else self.scalar(x, like) for x in operands]
        outputs = self.add(op, values, attrs)
        return outputs[0] if op.outputs == 1 else outputs

    def constant(self, array: Array) -> Value:
        """A constant node holding a copy of `array`."""
        data = np.array(array, copy=True, order="C")
        data.flags.writeable = False
        return self.add(op_named("constant"), (), {"value": data})[0]

    def scalar(self, number: bool | int | float, dtype: DType | None) -> Value:
        """A 0-d constant."""
        if dtype is None:
            raise InternalError("a number needs a dtype")
        return self.constant(number_array(number, dtype))

    @contextmanager
    def building(self) -> Iterator[Graph]:
        """While active, ops called without operands (full, iota, rand) add their node here."""
        token = default_apply().set(self.apply)
        try:
            yield self
        finally:
            default_apply().reset(token)

    @contextmanager
    def like(self, node: Node) -> Iterator[None]:
        """While active, new nodes carry the location, module and phase of `node`."""
        saved = self.loc, self.module, self.phase
        self.loc, self.module, self.phase = node.loc, node.module, node.phase
        try:
            yield
        finally:
            self.loc, self.module, self.phase = saved

    def users(self) -> dict[Value, list[Node]]:
        """For every value the nodes that read it, in order (one entry a node, even if it reads it twice)."""
        found: dict[Value, list[Node]] = {i.value: [] for i in self.inputs}
        for node in self.nodes:
            found.update((v, []) for v in node.outputs)
        for node in self.nodes:
            for v in dict.fromkeys(node.inputs):
                found[v].append(node)
        return found

    def values(self) -> Iterator[Value]:
        """Every value: inputs, then node outputs in order."""
        for i in self.inputs:
            yield i.value
        for node in self.nodes:
            yield from node.outputs

    def symbols(self) -> tuple[str, ...]:
        """Names of the dimensions the inputs depend on, sorted."""
        from graphc.ir.types import symbols_of

        return tuple(sorted({s for i in self.inputs for size in i.value.type.shape for s in symbols_of(size)}))

    def counted(self) -> dict[str, Value]:
        """The dimensions that depend on values: name -> the 0-d int64 value each is."""
        return {o.name: o.value for o in self.outputs if o.kind == "size"}

    def __str__(self) -> str:
        from graphc.ir.text import print_graph

        return print_graph(self)


def frozen(array: Array) -> Array:
    """`array` read-only and row-major: itself if it is, else a copy."""
    if not array.flags.writeable and array.flags.c_contiguous:
        return array
    data = np.array(array, copy=True, order="C")
    data.flags.writeable = False
    return data


def copy_graph(graph: Graph) -> tuple[Graph, dict[Value, Value]]:
    """A copy, and the map from old to new values. Types are kept as they are."""
    out = Graph(graph.name)
    mapping: dict[Value, Value] = {}
    for i in graph.inputs:
        mapping[i.value] = out.add_input(i.value.type, i.name, i.kind)
    for node in graph.nodes:
        copy_node(out, node, mapping)
    copy_outputs(graph, out, mapping)
    return out, mapping


def copy_node(out: Graph, node: Node, mapping: dict[Value, Value]) -> None:
    """Append a copy of `node` to `out`, reading mapped inputs; extends `mapping`."""
    with out.like(node):
        inputs = [mapping[v] for v in node.inputs]
        same = all(a.type is b.type for a, b in zip(inputs, node.inputs, strict=True))
        new = out.add(node.op, inputs, node.attrs, [v.type for v in node.outputs] if same else None)
    for old, fresh in zip(node.outputs, new, strict=True):
        fresh.name = old.name
        mapping[old] = fresh


def copy_outputs(graph: Graph, out: Graph, mapping: Mapping[Value, Value]) -> None:
    """Declare in `out` the outputs of `graph`."""
    for o in graph.outputs:
        out.add_output(mapping[o.value], o.name, o.kind)
