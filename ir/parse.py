"""Reading the text form of a graph (described in ir/text.py).

Text is data: whatever it holds, the only error is GraphError.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, GraphcError, GraphError
from graphc.ir.graph import Graph, Location, Value, frozen
from graphc.ir.limits import MAX_BYTES, MAX_INT, MAX_NAME, MAX_RANK, MAX_SIZE, Limits, legal_name
from graphc.ir.op import Array, Op, op_named
from graphc.ir.schema import attr_problem
from graphc.ir.subgraph import MAX_NESTING, Subgraph
from graphc.ir.types import Dim, DType, Size, TensorType, dtype_named

_BLANK = r"(?:[ \t\r\n]++|\#[^\n]*+)*+"
_TOKEN = re.compile(
    _BLANK
    + r"""(?:
    (?P<value>%[A-Za-z0-9_.]++) | (?P<place>[A-Za-z_][A-Za-z0-9_.]*+:[0-9]++) | (?P<word>[A-Za-z_][A-Za-z0-9_.]*+)
    | (?P<string>"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+")
    | (?P<float>[0-9]++(?:\.[0-9]++(?:e[+-]?[0-9]++)?|e[+-]?[0-9]++)) | (?P<int>[0-9]++)
    | (?P<mark>[-+*=:,@(){}<>]|\[|\]) | (?P<end>\Z))""",
    re.VERBOSE,
)
_SKIP = re.compile(_BLANK)
_MAX_DIGITS = 19  # of an int64
_MAX_FLOAT = 32  # characters of the longest repr of a float64
_MAX_STRING = 65_536
_MAX_TERMS = 64  # of a named size, and its greatest degree
PHASES = ("forward", "backward", "update")
INPUT_KINDS = ("input", "state")
OUTPUT_KINDS = ("output", "state", "grad", "size")
# what an infer function may raise when hostile attributes have kinds it never meets from the front end
HOSTILE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError)


def parse_graph(text: str, constants: Mapping[str, Array] | None = None, limits: Limits | None = None) -> Graph:
    """The graph that `text` describes; `constants` holds the arrays it mentions as `@name`.

    Types are inferred again and compared with the printed ones. Raises GraphError, with line and column, for any text
    that is not a graph of known ops, and for one beyond `limits`.
    """
    limits = limits or Limits()
    if len(text) > limits.text:
        raise GraphError(f"graph text: {len(text)} characters, at most {limits.text} are accepted")
    parser = _Parser(text, dict(constants or {}), limits)
    graph = parser.whole()
    if parser.unused:
        raise GraphError(f"graph text: constant {sorted(parser.unused)[0]!r} is given but not used")
    return graph


class _Parser:
    """Recursive descent with one token of lookahead. `kind` and `text` are the current token."""

    def __init__(self, source: str, constants: dict[str, Array], limits: Limits) -> None:
        self.source = source
        self.constants = constants
        self.unused = set(constants)
        self.limits = limits
        self.values: dict[str, Value] = {}
        self.nodes = self.inputs = self.level = 0  # of the graphs read so far, and how many are open
        self.ops: dict[str, Op] = {}
        self.end = 0
        self.start = 0
        self.kind = ""
        self.text = ""
        self.advance()

    # tokens

    def advance(self) -> None:
        match = _TOKEN.match(self.source, self.end)
        if match is None or match.lastgroup is None:
            blank = _SKIP.match(self.source, self.end)
            self.start = blank.end() if blank else self.end
            raise self.error(f"unexpected character {self.source[self.start : self.start + 1]!r}")
        self.kind = match.lastgroup
        self.text = match[self.kind]
        self.start, self.end = match.start(self.kind), match.end()

    def error(self, message: str) -> GraphError:
        before = self.source[: self.start]
        line, column = before.count("\n") + 1, self.start - (before.rfind("\n") + 1) + 1
        return GraphError(f"graph text, line {line}, column {column}: {message}")

    def unexpected(self, wanted: str) -> GraphError:
        found = "the end" if self.kind == "end" else repr(self.text[:80])
        return self.error(f"expected {wanted}, found {found}")

    def take(self, kind: str, wanted: str) -> str:
        if self.kind != kind:
            raise self.unexpected(wanted)
        text = self.text
        self.advance()
        return text

    def at(self, mark: str) -> bool:
        return self.kind == "mark" and self.text == mark

    def accept(self, mark: str) -> bool:
        found = self.at(mark)
        if found:
            self.advance()
        return found

    def expect(self, text: str) -> None:
        if self.text != text or self.kind not in ("mark", "word"):
            raise self.unexpected(repr(text))
        self.advance()

    def comma_list(self, close: str, item: Callable[[], Any]) -> list[Any]:
        """Items separated by commas up to the mark `close`, which is consumed; one trailing comma is allowed."""
        items: list[Any] = []
        while not self.accept(close):
            items.append(item())
            if not self.at(close):
                self.expect(",")
        return items

    def string(self, wanted: str) -> str:
        if self.kind == "string" and len(self.text) > _MAX_STRING:
            raise self.error(f"a string of more than {_MAX_STRING} characters")
        if self.kind != "string":
            raise self.unexpected(wanted)
        try:
            text = json.loads(self.text)
        except ValueError:
            raise self.error("a string with an unknown escape") from None
        self.advance()
        return str(text)

    def name(self, wanted: str) -> str:
        start = self.start
        text = self.string(wanted)
        if not legal_name(text):
            self.start = start
            raise self.error("a name of more than 256 bytes or with control characters")
        return text

    def word_or_name(self, wanted: str) -> str:
        if self.kind != "word":
            return self.name(wanted)
        self.bounded()
        return self.take("word", wanted)

    def bounded(self) -> None:
        """Refuse a bare word longer than a name may be."""
        if len(self.text) > MAX_NAME:
            raise self.error(f"a name of more than {MAX_NAME} bytes")

    def one_of(self, words: tuple[str, ...]) -> str:
        if self.kind != "word" or self.text not in words:
            raise self.unexpected(" or ".join(words))
        return self.take("word", "")

    def integer(self, wanted: str = "an integer", sign: int = 1) -> int:
        start = self.start
        digits = self.take("int", wanted)
        number = sign * int(digits) if len(digits) <= _MAX_DIGITS else MAX_INT + 1
        if not -MAX_INT - 1 <= number <= MAX_INT:
            self.start = start
            raise self.error("an integer beyond 64 bits")
        return number

    # types

    def size(self) -> Size:
        """A polynomial: terms joined by + and -, factors by *."""
        total: Size = 0
        minus = self.accept("-")
        for _ in range(_MAX_TERMS):
            term = self.term()
            total = total - term if minus else total + term
            minus = self.at("-")
            if not minus and not self.at("+"):
                return total
            self.advance()
        raise self.error(f"a size of more than {_MAX_TERMS} terms")

    def term(self) -> Size:
        product: Size = 1
        for _ in range(_MAX_TERMS):
            product = product * self.factor()
            if not self.accept("*"):
                return product
        raise self.error(f"a size of more than {_MAX_TERMS} factors")

    def factor(self) -> Size:
        if self.kind == "int":
            return self.integer()
        name = self.take("word", "a size")
        if not name.isidentifier() or not legal_name(name):
            raise self.error(f"{name[:80]!r} is not the name of a size")
        return Dim(name)

    def type(self) -> TensorType:
        dtype = self.dtype()
        self.expect("[")
        return self.shaped(dtype)

    def dtype(self) -> DType:
        try:
            dtype = dtype_named(self.text)
        except ArgumentError:
            raise self.unexpected("a dtype") from None
        self.advance()
        return dtype

    def shaped(self, dtype: DType) -> TensorType:
        """The rest of a type, after its opening bracket."""
        shape = self.comma_list("]", self.size)
        if len(shape) > MAX_RANK:
            raise self.error(f"{len(shape)} dimensions, at most {MAX_RANK} are accepted")
        sizes = [s for s in shape if isinstance(s, int)]
        if any(s > MAX_SIZE for s in sizes) or math.prod(max(s, 1) for s in sizes) * dtype.itemsize > MAX_BYTES:
            raise self.error(f"a tensor of more than {MAX_SIZE} in one dimension or {MAX_BYTES} bytes")
        try:
            return TensorType(dtype, shape)
        except GraphcError as error:
            raise self.error(str(error)) from error

    # attributes

    def attrs(self) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def one() -> None:
            name = self.text
            if self.kind != "word" or not name.isidentifier() or not legal_name(name):
                raise self.unexpected("an attribute name")
            if name in found:
                raise self.error(f"attribute {name!r} is given twice")
            self.advance()
            self.expect("=")
            found[name] = self.attr(0)

        self.comma_list("}", one)
        return found

    def attr(self, depth: int) -> Any:
        if depth > self.limits.nesting:
            raise self.error(f"tuples nested more than {self.limits.nesting} deep")
        if self.kind == "string":
            return self.string("a string")
        if self.kind == "word" and self.text == "graph":
            return self.subgraph()
        if self.kind == "word" and self.text not in ("inf", "nan"):
            return self.keyword()
        if self.accept("("):
            return tuple(self.comma_list(")", lambda: self.attr(depth + 1)))
        if self.accept("<"):
            size = self.size()
            self.expect(">")
            return size
        if self.accept("@"):
            return self.constant()
        return self.number()

    def number(self) -> int | float:
        sign = -1 if self.accept("-") else 1
        if self.kind == "float" or self.text in ("inf", "nan"):
            return sign * self.real()
        return self.integer("a value", sign)

    def real(self) -> float:
        if len(self.text) > _MAX_FLOAT:
            raise self.error("a number of too many digits")
        number = float(self.text)
        self.advance()
        return number

    def keyword(self) -> Any:
        words: dict[str, Any] = {"True": True, "False": False, "None": None}
        if self.text in words:
            return words[self.take("word", "")]
        dtype = self.dtype()
        return self.array(self.shaped(dtype)) if self.accept("[") else dtype

    def array(self, type: TensorType) -> Array:
        self.expect("{")
        items = self.comma_list("}", self.pair if type.dtype.is_complex else lambda: self.attr(self.limits.nesting))
        kinds = {"b": (bool,), "i": (int,), "u": (int,), "f": (float,), "c": (complex,)}[type.dtype.kind]
        if not type.static or len(items) != type.numel:
            raise self.error(f"an array of type {type} with {len(items)} elements")
        if any(item.__class__ not in kinds for item in items):
            raise self.error(f"an element that is not of type {type.dtype.short}")
        with np.errstate(all="ignore"):
            wide = {"f": np.float64, "c": np.complex128}.get(type.dtype.kind, type.dtype.np)
            return frozen(np.array(items, wide).astype(type.dtype.np).reshape(type.sizes))

    def pair(self) -> complex:
        """A complex number: its real and its imaginary part."""
        self.expect("(")
        parts = self.comma_list(")", self.number)
        if [part.__class__ for part in parts] != [float, float]:
            raise self.error("a complex number is two floats, as in (1.0, -0.0)")
        return complex(*parts)

    def constant(self) -> Array:
        name = self.take("word", "the name of a constant")
        found = self.constants.get(name)
        if found is None:
            raise self.error(f"constant {name[:80]!r} is not given")
        self.unused.discard(name)
        return frozen(found)

    # the graph

    def whole(self) -> Graph:
        graph = self.graph()
        if self.kind != "end":
            raise self.unexpected("the end")
        return graph

    def subgraph(self) -> Subgraph:
        """A graph within an attribute; its values are named apart from those outside."""
        if self.level > MAX_NESTING:
            raise self.error(f"graphs nested more than {MAX_NESTING} deep")
        outside, self.values = self.values, {}
        graph = self.graph()
        self.values = outside
        return Subgraph(graph)

    def graph(self) -> Graph:
        self.level += 1
        self.expect("graph")
        graph = Graph(self.word_or_name("the graph's name"))
        self.expect("(")
        self.comma_list(")", lambda: self.input(graph))
        self.expect("{")
        while self.text != "return" or self.kind != "word":
            self.nodes += 1
            if self.nodes > self.limits.nodes:
                raise self.error(f"more than {self.limits.nodes} nodes")
            self.node(graph)
        self.advance()
        self.comma_list("}", lambda: self.output(graph))
        self.level -= 1
        return graph

    def input(self, graph: Graph) -> None:
        self.inputs += 1
        if self.inputs > self.limits.tensors:
            raise self.error(f"more than {self.limits.tensors} inputs")
        start = self.start
        label = self.take("value", "an input such as %x")
        self.expect(":")
        type = self.type()
        kind = self.one_of(INPUT_KINDS)
        value = graph.add_input(type, self.name("the input's name"), kind)
        here, self.start = self.start, start
        self.name_value(label, value)
        self.start = here

    def output(self, graph: Graph) -> None:
        value = self.use()
        kind = self.one_of(OUTPUT_KINDS)
        graph.add_output(value, self.name("the output's name"), kind)

    def use(self) -> Value:
        found = self.values.get(self.text)
        if found is None:
            if self.kind == "value":
                raise self.error(f"{self.text[:80]} is not defined here")
            raise self.unexpected("a value such as %x")
        self.advance()
        return found

    def node(self, graph: Graph) -> None:
        start = self.start
        labels: list[str] = []
        types: list[TensorType] = []
        while not self.accept("="):
            if labels:
                self.expect(",")
            labels.append(self.take("value", "a value such as %x, or 'return'"))
            self.expect(":")
            types.append(self.type())
        op = self.op()
        self.expect("(")
        inputs = self.comma_list(")", self.use)
        attrs = self.attrs() if self.accept("{") else {}
        graph.loc, graph.module, graph.phase = None, "", "forward"
        if self.accept("@"):
            self.origin(graph)
        here, self.start = self.start, start  # what is found wrong from here on is the node's fault
        outputs = self.add(graph, op, inputs, attrs)
        if [v.type for v in outputs] != types:
            raise self.error(f"{op.name} gives {_listed(v.type for v in outputs)}, but the text says {_listed(types)}")
        for label, value in zip(labels, outputs, strict=True):
            self.name_value(label, value)
        self.start = here

    def op(self) -> Op:
        name = self.text
        found = self.ops.get(name)
        if found is None:
            if self.kind != "word":
                raise self.unexpected("the name of an op")
            try:
                found = self.ops[name] = op_named(name)
            except KeyError:
                raise self.error(
                    f"unknown op {name[:80]!r}; the file may come from a newer version of graphc"
                ) from None
        self.advance()
        return found

    def add(self, graph: Graph, op: Op, inputs: list[Value], attrs: dict[str, Any]) -> tuple[Value, ...]:
        if op.arity is not None and len(inputs) != op.arity:
            raise self.error(f"{op.name} takes {op.arity} operands, {len(inputs)} are given")
        problem = attr_problem(op, attrs)
        if problem is not None:
            raise self.error(problem)
        try:
            return graph.add(op, inputs, attrs)
        except GraphcError as error:
            raise self.error(str(error)) from error
        except HOSTILE as error:
            raise self.error(
                f"{op.name}: attributes that do not fit it ({type(error).__name__}: {str(error)[:200]})"
            ) from error

    def origin(self, graph: Graph) -> None:
        """Module path, place and phase, each optional, in this order."""
        if self.kind == "string":
            text = self.name("a module path or file")
            if self.accept(":"):
                graph.loc = Location(file=text, number=self.integer())
            else:
                graph.module = text
        if graph.loc is None and self.kind in ("string", "place"):
            graph.loc = self.place()
        if self.kind == "word" and self.text in PHASES:
            graph.phase = self.one_of(PHASES)

    def place(self) -> Location:
        if self.kind == "string":
            file = self.name("a file")
            self.expect(":")
            return Location(file=file, number=self.integer())
        file, _, line = self.text.rpartition(":")
        if len(file) > MAX_NAME or len(line) > 9:
            raise self.error("a place beyond the limits")
        self.advance()
        return Location(file=file, number=int(line))

    def name_value(self, label: str, value: Value) -> None:
        if label in self.values:
            raise self.error(f"{label[:80]} is defined twice")
        if len(label) > MAX_NAME:
            raise self.error(f"a name of more than {MAX_NAME} bytes")
        self.values[label] = value
        value.name = "" if label[1:].isdigit() else label[1:]


def _listed(types: Any) -> str:
    return ", ".join(map(str, types))
