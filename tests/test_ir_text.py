"""The text form of graphs: exact round trip, golden text, and hostile text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from random_graphs import random_graph, random_inputs, same_bits

from graphc.errors import GraphError
from graphc.ir.graph import Graph, Location
from graphc.ir.limits import Limits
from graphc.ir.op import op_named
from graphc.ir.rewrite import attrs_key
from graphc.ir.text import constants_of, parse_graph, print_graph
from graphc.ir.types import Dim, TensorType, bool_, float32, float64, int64
from graphc.ir.verify import verify
from graphc.runtime.reference import run_graph


def example() -> Graph:
    """A graph with one of everything the text can say."""
    n = Dim("N")
    graph = Graph("train step")
    x = graph.add_input(TensorType(float32, (n, 2 * n + 1)), "x")
    w = graph.add_input(TensorType(float32, (1,)), '0.we"ight', "state")
    graph.add_input(TensorType(bool_, ()), "x", "state")
    with graph.building():
        graph.loc, graph.module = Location(file="/home/someone/model.py", number=41), "layer1.0"
        y = op_named("mul")(x, w)
        y.name = "y"
        graph.module, graph.phase = "", "backward"
        z = op_named("reshape")(y, shape=(2 * n + 1, n))
        graph.loc, graph.phase = Location(file="odd name-x.py", number=3), "update"
        a = graph.constant(np.array([0.1, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3.4028235e38], np.float32))
        a.name = "y"
        graph.loc = None
        b = graph.constant(np.arange(17.0))
        c = graph.constant(np.array([[True], [False]]))
        d = graph.constant(np.array(-(2**63)))
        e = op_named("full")(shape=(n, 3), value=-np.inf, dtype=float64)
        f = op_named("full")(shape=(), value=-0.0, dtype=float64)
        g = op_named("cast")(op_named("full")(shape=(0,), value=True, dtype=bool_), dtype=int64)
        new_w = op_named("neg")(w)
    for k, v in enumerate((z, a, b, c, d, e, f, g)):
        graph.add_output(v, f"out{k}")
    graph.add_output(new_w, '0.we"ight', "state")
    graph.add_output(w, "0.weight", "grad")
    return graph


def assert_same_structure(a: Graph, b: Graph) -> None:
    place = {v: k for k, v in enumerate(a.values())} | {v: k for k, v in enumerate(b.values())}
    assert [(i.kind, i.name, i.value.type) for i in a.inputs] == [(i.kind, i.name, i.value.type) for i in b.inputs]
    assert [(o.kind, o.name, place[o.value]) for o in a.outputs] == [
        (o.kind, o.name, place[o.value]) for o in b.outputs
    ]
    assert len(a.nodes) == len(b.nodes)
    for m, n in zip(a.nodes, b.nodes, strict=True):
        assert (m.op, m.module, m.phase) == (n.op, n.module, n.phase)
        assert list(m.attrs) == list(n.attrs) and attrs_key(m.attrs) == attrs_key(n.attrs)
        assert [place[v] for v in m.inputs] == [place[v] for v in n.inputs]
        assert [v.type for v in m.outputs] == [v.type for v in n.outputs]
        assert str(m.loc) == str(n.loc)


def test_round_trip_of_everything() -> None:
    graph = example()
    verify(graph)
    text = print_graph(graph)
    again = parse_graph(text, constants_of(graph))
    verify(again)
    assert print_graph(again) == text
    assert_same_structure(graph, again)


def test_golden_text(golden: Callable[[str, str], None]) -> None:
    golden("example.graph", print_graph(example()))


@pytest.mark.parametrize("seed", range(40))
def test_round_trip_of_random_graphs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    verify(graph)
    text = print_graph(graph)
    again = parse_graph(text, constants_of(graph))
    verify(again)
    assert print_graph(again) == text
    assert_same_structure(graph, again)
    arrays = random_inputs(rng, graph)
    for a, b in zip(run_graph(graph, arrays), run_graph(again, arrays), strict=True):
        assert same_bits(a, b)


def test_float32_elements_are_exact() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, (500, 16), np.uint32).view(np.float32)
    for row in bits:
        graph = Graph()
        graph.add_output(graph.constant(row), "y")
        (again,) = parse_graph(print_graph(graph)).nodes
        assert same_bits(again.attrs["value"], row)


def test_text_is_ascii_without_control_characters() -> None:
    graph = Graph("g")
    graph.add_input(TensorType(float32, (2,)), 'naïve <script>\u202e \x1b]8;;[red]\x7f"];')
    text = print_graph(graph)
    assert text.isascii() and all(c == "\n" or c.isprintable() for c in text)


def test_the_folder_of_a_file_is_not_told() -> None:
    assert "someone" not in print_graph(example())


def test_labels_never_clash() -> None:
    graph = Graph()
    x = graph.add_input(TensorType(float32, ()), "0")
    for name in ("a b", "a_b", "a_b", "a_b.1", "1", "", "_0"):
        x = op_named("neg")(x)
        x.name = name
    graph.add_output(x, "y")
    text = print_graph(graph)
    again = parse_graph(text)
    assert print_graph(again) == text
    assert_same_structure(graph, again)


def test_comments_and_blanks_are_skipped() -> None:
    text = '# a comment\ngraph g(%x: f32[2] input "x",) {\n\n  # more\n return %x output "y"\n}\n#end'
    assert len(parse_graph(text).outputs) == 1


GOOD = """graph g(%x: f32[2, N] input "x") {
  %0: f32[2, N] = neg(%x) @ "m" a.py:1 backward
  %1: f64[] = full() {shape=(), value=1.5, dtype=f64}
  return %0 output "y"
}
"""
_DEEP = "(" * 40 + ")" * 40

BROKEN = [
    # text to replace, its replacement, what the message must hold
    ("graph g", "grph g", "line 1, column 1: expected 'graph'"),
    ("neg(", "nge(", "line 2, column 19: unknown op 'nge'"),
    ("neg(%x)", "neg(%z)", "%z is not defined here"),
    ("neg(%x)", "neg(%x, %x)", "neg takes 1 operands, 2 are given"),
    ("neg(%x)", "neg(%x) {flag=1}", "neg has no attribute 'flag'"),
    ("f32[2, N] =", "f32[3, N] =", "neg gives f32[2, N], but the text says f32[3, N]"),
    ("f32[2, N] =", "f24[2, N] =", "expected a dtype"),
    ("%1: f64", "%0: f64", "line 3, column 3: %0 is defined twice"),
    ("shape=()", "shape=(), shape=()", "attribute 'shape' is given twice"),
    ("shape=()", f"shape={_DEEP}", "nested more than 32"),
    ("shape=()", "shape=(-1,)", "cannot be negative"),
    ("value=1.5", "value=99999999999999999999", "beyond 64 bits"),
    ("value=1.5", "value=9223372036854775808", "beyond 64 bits"),
    ("value=1.5", "value=1.55555555555555555555555555555555555555", "too many digits"),
    ("value=1.5", "value=@c9", "constant 'c9' is not given"),
    ("value=1.5", "value=f32[2]{1.0}", "an array of type f32[2] with 1 elements"),
    ("value=1.5", "value=f32[0, 9223372036854775807]{}", "a tensor of more than"),
    ("[2, N] input", f"[0{', 1000000000' * 5}] input", "a tensor of more than"),
    ("value=1.5", "value=f32[1]{1}", "an element that is not of type f32"),
    ("value=1.5", "value=i64[1]{True}", "an element that is not of type i64"),
    ("value=1.5", 'value="\\x"', "unknown escape"),
    ("value=1.5", "value=eval", "expected a dtype"),
    ("dtype=f64", "dtype=None", "full: attribute dtype must be DType, got None"),
    ("shape=()", "shape=(2.0,)", "full: attribute shape must be"),
    ("shape=()", "shape=(True,)", "full: attribute shape must be"),
    (", dtype=f64", "", "attributes that do not fit it"),
    ("dtype=f64}", "dtype=f64", "line 4"),
    ('"x"', '"x\\u001b"', "control characters"),
    ('"x"', f'"{"x" * 257}"', "more than 256 bytes"),
    ("input", "inptu", "expected input or state"),
    ("output", "secret", "expected output or state or grad"),
    ("a.py:1", "a.py:12345678901", "beyond the limits"),
    ("[2, N] input", f"[{'1,' * 33}] input", "33 dimensions"),
    ("[2, N] input", f"[{'N*' * 70}N] input", "more than 64 factors"),
    ("[2, N] input", f"[{'N+' * 70}N] input", "more than 64 terms"),
    ("[2, N] input", "[2, -3] input", "cannot be negative"),
    ("g(", f"{'g' * 300}(", "more than 256 bytes"),
    ("%x:", f"%{'x' * 300}:", "more than 256 bytes"),
    ("}\n", "} }\n", "expected the end, found '}'"),
    ("return", "\x00", "unexpected character"),
    ("return", "é", "unexpected character"),
    ('output "y"\n}', 'output "y', "unexpected character"),
]


@pytest.mark.parametrize(("old", "new", "message"), BROKEN)
def test_broken_text_says_what_and_where(old: str, new: str, message: str) -> None:
    assert parse_graph(GOOD)
    assert GOOD.count(old) >= 1
    broken = (
        GOOD[: GOOD.rindex(old)] + new + GOOD[GOOD.rindex(old) + len(old) :]
        if old == "}\n"
        else GOOD.replace(old, new, 1)
    )
    with pytest.raises(GraphError) as caught:
        parse_graph(broken)
    assert "graph text, line " in str(caught.value)
    assert message in str(caught.value)


def test_limits() -> None:
    with pytest.raises(GraphError, match="at most 100 are accepted"):
        parse_graph(GOOD, limits=Limits(text=100))
    with pytest.raises(GraphError, match="more than 1 nodes"):
        parse_graph(GOOD, limits=Limits(nodes=1))
    with pytest.raises(GraphError, match="more than 0 inputs"):
        parse_graph(GOOD, limits=Limits(tensors=0))
    with pytest.raises(GraphError, match="constant 'c0' is given but not used"):
        parse_graph(GOOD, {"c0": np.zeros(20)})


def test_every_prefix_and_mutation_is_a_graph_error_or_a_graph() -> None:
    graph = example()
    text, constants = print_graph(graph), constants_of(graph)
    for end in range(len(text) - 3):
        with pytest.raises(GraphError):
            parse_graph(text[:end], constants)
    rng = np.random.default_rng(1)
    for _ in range(1500):
        k, c = int(rng.integers(len(text))), chr(rng.integers(32, 127))
        try:
            changed = parse_graph(text[:k] + c + text[k + int(rng.integers(3)) :], constants)
        except GraphError:
            continue
        assert changed.nodes


@pytest.mark.parametrize(
    "noise", [" " * 2_000_000, "#" * 2_000_000, '"' + "a" * 2_000_000, "9" * 2_000_000, "(" * 200_000]
)
def test_long_noise_is_refused_quickly(noise: str) -> None:
    with pytest.raises(GraphError) as caught:
        parse_graph(GOOD.replace("value=1.5", "value=" + noise + "~"))
    assert len(str(caught.value)) < 400
