"""The invariants of a graph, numbered. `verify` checks them all and names the one that is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, GraphcError, GraphError
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.limits import MAX_BYTES, MAX_INT, MAX_RANK, MAX_SIZE, Limits, legal_name
from graphc.ir.narrow import composed, expand
from graphc.ir.op import Op, all_ops
from graphc.ir.parse import HOSTILE, INPUT_KINDS, OUTPUT_KINDS, PHASES
from graphc.ir.schema import attr_problem
from graphc.ir.subgraph import Subgraph, nested
from graphc.ir.types import DTYPES, Dim, DType, TensorType, dtype_of, int64, symbols_of

_MAX_NESTING = Limits().nesting


def verify(graph: Graph, primitive: bool = False) -> None:
    """Check every invariant. Raises GraphError whose message starts with the number of the broken one.

    V1   Every value (of inputs, operands, results and outputs) belongs to this graph.
    V2   Input k's value has no node and index k.
    V3   Result k of a node names that node and index k; a node has as many results as its op.
    V4   A node stands once in the graph, a value is the result of one node only.
    V5   An operand is an input or the result of an earlier node.
    V6   A graph output is an input or the result of a node.
    V7   A node's op is the one in the op table under its name.
    V8   A node has as many operands as its op takes.
    V9   Attributes have plain names and values of the kinds that have a text form: None, bool, int (64 bits), float,
         str, DType, Dim, NumPy arrays of a known dtype, and tuples of these, nested at most 32 deep; or a graph (V21).
    V10  The types of a node's results are those its op infers from the operands' types and the attributes.
    V11  Names of inputs and outputs are at most 256 bytes without control characters; so are the names of values,
         modules and the graph.
    V12  No two inputs of one kind, and no two outputs of one kind, have the same name.
    V13  Kinds of inputs are "input", "state"; of outputs "output", "state", "grad", "size"; phases are "forward",
         "backward", "update".
    V14  An output of kind "state" has the name and the type of an input of kind "state".
    V15  A type has at most 32 dimensions, each at most 2^40, and at most 2^48 bytes; names of dimensions are ASCII.
    V16  A named dimension in a node's types and attributes occurs in the type of an input, or is the name of an output
         of kind "size" whose value an earlier node computes.
    V17  Arrays in attributes are read-only and row-major.
    V18  With `primitive`: every op can be lowered as it stands; none is left to decompose.
    V19  A node has no attributes but those its op declares, each of a declared kind (ir/schema.py).
    V20  An output of kind "size" is the i64[] result of a node, and its name that of a dimension no input has.
    V21  Graphs in attributes are nested at most 8 deep, and each keeps all of this; their inputs and outputs are of
         kind "input" and "output", and named dimensions may be those known outside.
    """
    for _ in nested(graph):
        pass
    _verify(graph, primitive, frozenset())


def _verify(graph: Graph, primitive: bool, outside: frozenset[str]) -> None:
    """`outside`: names of dimensions known where the graph stands."""
    _check_inputs(graph)
    defined = {i.value: True for i in graph.inputs}
    symbols = frozenset(graph.symbols()) | outside
    _check_sizes(graph, symbols)
    names = {v: name for name, v in graph.counted().items()}
    seen: dict[Node, bool] = {}
    for number, node in enumerate(graph.nodes):
        where = f"node {number} ({_origin(node)})"
        _require(node not in seen, "V4", where, "the node stands twice in the graph")
        seen[node] = True
        _check_operands(graph, node, defined, where)
        _check_node(node, symbols, where)
        _check_results(graph, node, defined, symbols, where)
        symbols |= {names[v] for v in node.outputs if v in names}
        if primitive:
            _require(is_primitive(node), "V18", where, f"{node.op.name} is left to decompose")
    _check_outputs(graph, defined)


def is_primitive(node: Node) -> bool:
    """True if the node can be lowered as it stands."""
    if node.op.lower is None:
        return False
    if not composed(node.op, [v.type for v in node.inputs], node.attrs):
        return True
    scratch = Graph()
    inputs = [scratch.add_input(v.type, str(k)) for k, v in enumerate(node.inputs)]
    with scratch.building():
        return expand(node.op, inputs, node.attrs) is None


def _require(holds: bool, number: str, where: str, message: str) -> None:
    if not holds:
        raise GraphError(f"{number}: {where}: {message}")


def _origin(node: Node) -> str:
    return node.op.name if node.loc is None else f"{node.op.name} at {node.loc}"


def _check_inputs(graph: Graph) -> None:
    _require(legal_name(graph.name), "V11", "graph", "its name is too long or has control characters")
    for k, i in enumerate(graph.inputs):
        where = f"input {k}"
        _require(i.value.graph is graph, "V1", where, "its value belongs to another graph")
        _require(i.value.node is None and i.value.index == k, "V2", where, "its value says it stands elsewhere")
        _require(i.kind in INPUT_KINDS, "V13", where, f"unknown kind {i.kind!r}")
        _require(legal_name(i.name), "V11", where, "its name is too long or has control characters")
        _require(legal_name(i.value.name), "V11", where, "its value's name is too long or has control characters")
        _check_type(i.value.type, where)
    _unique(((i.kind, i.name) for i in graph.inputs), "inputs")


def _check_outputs(graph: Graph, defined: Mapping[Value, bool]) -> None:
    states = {i.name: i.value.type for i in graph.inputs if i.kind == "state"}
    for k, o in enumerate(graph.outputs):
        where = f"output {k}"
        _require(o.value.graph is graph, "V1", where, "its value belongs to another graph")
        _require(o.value in defined, "V6", where, "its value is not computed in the graph")
        _require(o.kind in OUTPUT_KINDS, "V13", where, f"unknown kind {o.kind!r}")
        _require(legal_name(o.name), "V11", where, "its name is too long or has control characters")
        if o.kind == "state":
            state = states.get(o.name)
            _require(state is not None, "V14", where, f"no state input is called {o.name!r}")
            _require(state is o.value.type, "V14", where, f"state {o.name!r} is {state}, its new value {o.value.type}")
    _unique(((o.kind, o.name) for o in graph.outputs), "outputs")


def _check_sizes(graph: Graph, symbols: frozenset[str]) -> None:
    for name, value in graph.counted().items():
        where = f"size {name!r}"
        computed = value.type is TensorType(int64, ()) and value.node is not None
        _require(computed, "V20", where, "its value is not the i64[] result of a node")
        _require(name.isidentifier() and name not in symbols, "V20", where, "its name is not that of a new dimension")


def _unique(names: Iterable[tuple[str, str]], where: str) -> None:
    seen: dict[tuple[str, str], bool] = {}
    for name in names:
        _require(name not in seen, "V12", where, f"two of kind {name[0]!r} are called {name[1]!r}")
        seen[name] = True


def _check_operands(graph: Graph, node: Node, defined: Mapping[Value, bool], where: str) -> None:
    for k, v in enumerate(node.inputs):
        _require(v.graph is graph, "V1", where, f"operand {k} belongs to another graph")
        _require(v in defined, "V5", where, f"operand {k} is not computed before this node")


def _check_node(node: Node, symbols: frozenset[str], where: str) -> None:
    _require(all_ops().get(node.op.name) is node.op, "V7", where, f"{node.op.name!r} is not in the op table")
    arity = node.op.arity
    _require(arity in (None, len(node.inputs)), "V8", where, f"takes {arity} operands, has {len(node.inputs)}")
    _require(node.phase in PHASES, "V13", where, f"unknown phase {node.phase!r}")
    _require(legal_name(node.module), "V11", where, "its module path is too long or has control characters")
    for name, value in node.attrs.items():
        plain = name.isidentifier() and name.isascii() and legal_name(name)
        _require(plain, "V9", where, f"attribute name {name!r} is not a plain word")
        if isinstance(value, Subgraph):
            _check_subgraph(value, symbols, f"{where}, attribute {name}")
            continue
        _check_attr(value, symbols, f"{where}, attribute {name}", 0)
    problem = attr_problem(node.op, node.attrs)
    _require(problem is None, "V19", where, problem or "")


def _check_results(graph: Graph, node: Node, defined: dict[Value, bool], symbols: frozenset[str], where: str) -> None:
    for k, v in enumerate(node.outputs):
        _require(v.graph is graph, "V1", where, f"result {k} belongs to another graph")
        _require(v not in defined, "V4", where, f"result {k} has been computed before")
        _require(v.node is node and v.index == k, "V3", where, f"result {k} names another node or place")
        _require(legal_name(v.name), "V11", where, f"result {k}: its name is too long or has control characters")
        _check_type(v.type, f"{where}, result {k}")
        _check_symbols(symbols, (s for size in v.type.shape for s in symbols_of(size)), where)
        defined[v] = True
    count = len(node.outputs)
    _require(node.op.outputs in (None, count), "V3", where, f"{count} results, not {node.op.outputs}")
    found = infer_again(node.op, [v.type for v in node.inputs], node.attrs, where)
    given = tuple(v.type for v in node.outputs)
    _require(found == given, "V10", where, f"its results are {_listed(given)}, its op infers {_listed(found)}")


def infer_again(op: Op, types: list[TensorType], attrs: Mapping[str, Any], where: str) -> tuple[TensorType, ...]:
    """What `op` infers. Raises GraphError (V10) for anything `infer` raises."""
    try:
        return op.infer_types(types, attrs)
    except GraphcError as error:
        raise GraphError(f"V10: {where}: {error}") from error
    except HOSTILE as error:
        raise GraphError(
            f"V10: {where}: attributes that do not fit the op ({type(error).__name__}: {error})"
        ) from error


def _listed(types: Iterable[TensorType]) -> str:
    return ", ".join(map(str, types)) or "none"


def _check_type(type: TensorType, where: str) -> None:
    _require(type.ndim <= MAX_RANK, "V15", where, f"{type.ndim} dimensions, at most {MAX_RANK} are accepted")
    total = type.dtype.itemsize
    for size in type.shape:
        if isinstance(size, Dim):
            names = symbols_of(size)
            _require(all(n.isascii() and legal_name(n) for n in names), "V15", where, "a dimension's name is not ASCII")
        else:
            _require(size <= MAX_SIZE, "V15", where, f"a dimension of {size}, at most {MAX_SIZE} is accepted")
            total *= max(size, 1)
    _require(total <= MAX_BYTES, "V15", where, f"{type} has more than {MAX_BYTES} bytes")


def _check_symbols(symbols: frozenset[str], names: Iterable[str], where: str) -> None:
    for name in names:
        _require(name in symbols, "V16", where, f"the named dimension {name!r} occurs in no input")


def _check_attr(value: Any, symbols: frozenset[str], where: str, depth: int) -> None:
    if isinstance(value, tuple):
        _require(depth < _MAX_NESTING, "V9", where, f"tuples nested more than {_MAX_NESTING} deep")
        for item in value:
            _check_attr(item, symbols, where, depth + 1)
        return
    check = _ATTR_CHECKS.get(type(value))
    if check is None:
        raise GraphError(f"V9: {where}: a value of kind {type(value).__name__} has no text form")
    check(value, symbols, where)


def _check_subgraph(value: Subgraph, symbols: frozenset[str], where: str) -> None:
    kinds = {i.kind for i in value.graph.inputs} | {o.kind for o in value.graph.outputs}
    _require(kinds <= {"input", "output"}, "V21", where, "its graph has state, or results that are not plain")
    names = {s for t in value.inputs for size in t.shape for s in symbols_of(size)}
    _check_symbols(symbols, names, where)
    try:
        _verify(value.graph, False, symbols)
    except GraphError as error:
        number, _, text = str(error).partition(": ")
        raise GraphError(f"{number}: {where}: {text}") from error


def _check_int(value: int, symbols: frozenset[str], where: str) -> None:
    _require(-MAX_INT - 1 <= value <= MAX_INT, "V9", where, "an integer beyond 64 bits")


def _check_dtype(value: DType, symbols: frozenset[str], where: str) -> None:
    _require(value in DTYPES, "V9", where, f"{value!r} is not a known dtype")


def _check_dim(value: Dim, symbols: frozenset[str], where: str) -> None:
    _check_symbols(symbols, symbols_of(value), where)


def _check_array(value: np.ndarray[Any, Any], symbols: frozenset[str], where: str) -> None:
    _require(_known(value.dtype), "V9", where, f"an array of dtype {value.dtype}")
    kept = not value.flags.writeable and value.flags.c_contiguous
    _require(kept, "V17", where, "an array that can be written or is not row-major")


def _known(dtype: Any) -> bool:
    try:
        return dtype_of(dtype) in DTYPES
    except ArgumentError:
        return False


def _accept(value: Any, symbols: frozenset[str], where: str) -> None:
    """None, bool, float and str need no further check."""


_ATTR_CHECKS: dict[type, Callable[[Any, frozenset[str], str], None]] = {
    type(None): _accept,
    bool: _accept,
    float: _accept,
    str: _accept,
    int: _check_int,
    DType: _check_dtype,
    Dim: _check_dim,
    np.ndarray: _check_array,
}
