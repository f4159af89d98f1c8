"""The text form of a graph: `print_graph` writes it, `parse_graph` (ir/parse.py) reads it back exactly.

    graph step(%x: f32[64, 8] input "x", %w: f32[8, 4] state "0.weight") {
      %0: f32[64, 4] = matmul(%x, %w) @ "0" train.py:41
      %y: f32[64, 4] = mul(%0, %0) {flag=True, pads=((0, 1), (2, 2)), size=<2*N+1>} @ model.py:7 backward
      return %y output "out"
    }

Attributes: `True`, `None`, `-3`, `0.5`, `-inf`, `nan`, `"text"`, a dtype (`f32`), a named size (`<2*N+1>`), tuples, and
subgraphs (`then=graph then(…) {…}`, values named apart from those outside), and
arrays: `f32[2]{0.5, 1.0}` up to 16 elements, larger ones by name (`@c0`), held in the table `constants_of(graph)`.
After `@` stand module path, place and phase, each left out when empty, unknown or "forward". `#` starts a comment.
Strings are ASCII with JSON escapes, so no name in a graph can put a control character on a terminal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from graphc.errors import GraphError
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Array
from graphc.ir.parse import parse_graph
from graphc.ir.subgraph import Subgraph
from graphc.ir.types import Dim, DType, TensorType, dtype_of

__all__ = ["constants_of", "parse_graph", "print_graph"]

INLINE_ELEMENTS = 16
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
_ILLEGAL = re.compile(r"[^A-Za-z0-9_.]")


def print_graph(graph: Graph) -> str:
    """The text of `graph`: the same for equal graphs, and read back by `parse_graph` to an equal one.

    Raises GraphError for an attribute of a kind that has no text form.
    """
    return f"{_Printer(graph).text()}\n"


def constants_of(graph: Graph) -> dict[str, Array]:
    """The arrays that the text of `graph` mentions only by name, in the order of the text."""
    return {f"c{k}": a for k, a in enumerate(_large_arrays(graph))}


def _large_arrays(graph: Graph) -> Iterator[Array]:
    for node in graph.nodes:
        for value in node.attrs.values():
            if isinstance(value, Subgraph):
                yield from _large_arrays(value.graph)
            else:
                yield from _arrays_in(value)


def _arrays_in(value: Any) -> Iterator[Array]:
    if isinstance(value, np.ndarray) and value.size > INLINE_ELEMENTS:
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _arrays_in(item)


def quote(text: str) -> str:
    """`text` as an ASCII string literal."""
    return json.dumps(text).replace("\x7f", "\\u007f")


def word(text: str) -> str:
    """`text` bare where it is a plain word, else quoted."""
    return text if _WORD.match(text) else quote(text)


class _Printer:
    """Prints one graph; holds the labels given to its values and counts the arrays named so far."""

    def __init__(self, graph: Graph, arrays: int = 0, indent: str = "") -> None:
        self.graph = graph
        self.arrays = arrays
        self.indent = indent
        self.labels: dict[Value, str] = {}
        self.taken: set[str] = set()
        unnamed = 0
        for value in graph.values():
            if value.name:
                self.labels[value] = self._free(value.name)
            else:
                self.labels[value] = str(unnamed)
                unnamed += 1

    def _free(self, name: str) -> str:
        """A label made of word characters, not yet taken; never a bare number, which marks unnamed values."""
        base = _ILLEGAL.sub("_", name)[:200]
        base = f"_{base}" if base[0].isdigit() and base.isdigit() else base
        label, k = base, 0
        while label in self.taken:
            k += 1
            label = f"{base}.{k}"
        self.taken.add(label)
        return label

    def text(self) -> str:
        inputs = ", ".join(f"{self.typed(i.value)} {i.kind} {quote(i.name)}" for i in self.graph.inputs)
        outputs = ", ".join(f"{self.use(o.value)} {o.kind} {quote(o.name)}" for o in self.graph.outputs)
        lines = [f"graph {word(self.graph.name)}({inputs}) {{"]
        lines += [f"{self.indent}  {self.node(node)}" for node in self.graph.nodes]
        lines += [f"{self.indent}  return {outputs}".rstrip(), f"{self.indent}}}"]
        return "\n".join(lines)

    def subgraph(self, graph: Graph) -> str:
        """A graph within, whose values have labels of their own."""
        inner = _Printer(graph, self.arrays, f"{self.indent}    ")
        text = inner.text()
        self.arrays = inner.arrays
        return text

    def use(self, value: Value) -> str:
        # a broken graph can still be looked at: a value that is not its own prints as %?
        return f"%{self.labels.get(value, '?')}"

    def typed(self, value: Value) -> str:
        return f"{self.use(value)}: {value.type}"

    def node(self, node: Node) -> str:
        outputs = ", ".join(map(self.typed, node.outputs))
        attrs = ", ".join(f"{k}={self.attr(v)}" for k, v in node.attrs.items())
        line = f"{outputs} = {node.op.name}({', '.join(map(self.use, node.inputs))})"
        return line + (f" {{{attrs}}}" if attrs else "") + self.origin(node)

    def origin(self, node: Node) -> str:
        parts = [quote(node.module)] if node.module else []
        if node.loc is not None and node.loc.filename:
            # the file's own name, not its folder: a shipped graph must not tell where it was built
            parts.append(f"{word(node.loc.filename.rsplit('/', 1)[-1])}:{node.loc.line}")
        if node.phase != "forward":
            parts.append(word(node.phase))
        return f" @ {' '.join(parts)}" if parts else ""

    def attr(self, value: Any) -> str:
        if value is None or isinstance(value, bool | int | float):
            return repr(value)
        if isinstance(value, str):
            return quote(value)
        if isinstance(value, DType):
            return value.short
        if isinstance(value, Dim):
            return f"<{value}>"
        if isinstance(value, tuple):
            return f"({', '.join(map(self.attr, value))}{',' if len(value) == 1 else ''})"
        if isinstance(value, np.ndarray):
            return self.array(value)
        if isinstance(value, Subgraph):
            return self.subgraph(value.graph)
        raise GraphError(f"V9: an attribute of kind {type(value).__name__} has no text form")

    def array(self, array: Array) -> str:
        if array.size > INLINE_ELEMENTS:
            self.arrays += 1
            return f"@c{self.arrays - 1}"
        items = ", ".join(_element(x) for x in array.flat)
        return f"{TensorType(dtype_of(array.dtype), array.shape)}{{{items}}}"


def _element(x: Any) -> str:
    """One array element, exact: the shortest text that gives the same bits when read as float64 and rounded."""
    number = x.item()
    if isinstance(number, complex):
        return f"({number.real!r}, {number.imag!r})"
    if isinstance(x, np.float32):
        short = str(x)
        return short if np.float32(float(short)) == x or number != number else repr(number)
    return repr(number)
