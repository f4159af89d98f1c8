"""Random graphs of most of the op table give the same bits in every way to run them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from op_runs import HOST, executable, op_by_op, threads, with_gradients
from random_graphs import same_bits
from wide_graphs import copied, laid_inputs, wide_graph

from graphc.codegen.target import X86_64_V3, X86_64_V4
from graphc.config import config
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.parse import parse_graph
from graphc.ir.text import constants_of, print_graph
from graphc.ir.types import Layout
from graphc.runtime import artifact
from graphc.runtime.executable import Executable

SEEDS = 300
GRADIENTS = 40


def run(exe: Executable, arrays: Sequence[Array]) -> list[Array]:
    """The outputs; the inputs that are not donated must stay as they are."""
    donated = {o.donated for o in exe.program.outputs}
    given = [copied(a) for a in arrays]
    found = exe(given)
    for k, (a, b) in enumerate(zip(given, arrays, strict=True)):
        assert k in donated or same_bits(a, b), f"input {k} was changed"
    return found


def reloaded(graph: Graph, arrays: Sequence[Array], folder: Path) -> Graph:
    """The graph after a round trip through a model file."""
    state = {i.name: a for i, a in zip(graph.inputs, arrays, strict=True) if i.kind == "state"}
    path = folder / "model.gcz"
    artifact.save(path, graph, state, {})
    return artifact.load(path).graph


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_way_to_run_a_graph(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "verify", True)
    graph = wide_graph(seed)
    text = print_graph(graph)
    arrays = laid_inputs(graph, seed)
    layouts = [Layout.of(a) for a in arrays]
    wanted = op_by_op(graph, arrays)

    def check(way: str, found: Sequence[Array]) -> None:
        for o, a, w in zip(graph.outputs, found, wanted, strict=True):
            assert same_bits(a, w), f"seed {seed}, {way}, output {o.name}:\n{a}\nop by op:\n{w}\n{text}"

    fused = executable(graph, layouts, grain=1)
    with threads(1):
        check("compiled", run(fused, arrays))
        check("run again", run(fused, arrays))
    with threads(2):
        check("2 threads", run(fused, arrays))
    check("not fused", run(executable(graph, layouts, fuse=False), arrays))
    again = reloaded(graph, arrays, tmp_path) if seed % 2 else parse_graph(text, constants_of(graph))
    assert print_graph(again) == text
    check("reloaded", run(executable(again, layouts), arrays))
    contiguous = [np.array(a, order="C") for a in arrays]
    check("contiguous inputs", run(executable(graph), contiguous))
    if HOST is X86_64_V4 and seed % 2:
        check("x86-64-v3", run(executable(graph, layouts, target=X86_64_V3), arrays))
    assert print_graph(graph) == text, "compiling changed the graph"


@pytest.mark.parametrize("seed", range(1000, 1000 + GRADIENTS))
def test_every_way_to_run_gradients(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "verify", True)
    graph = with_gradients(wide_graph(seed, most=16))
    arrays = laid_inputs(graph, seed)
    wanted = op_by_op(graph, arrays)
    for fuse, target in ((True, HOST), (False, HOST), (True, X86_64_V3 if HOST is X86_64_V4 else HOST)):
        exe = executable(graph, [Layout.of(a) for a in arrays], fuse, target, grain=1)
        with threads(2):
            found = run(exe, arrays)
        for o, a, w in zip(graph.outputs, found, wanted, strict=True):
            assert same_bits(a, w), f"seed {seed}, {target.name}, fuse {fuse}, output {o.name}:\n{a}\n{w}\n{graph}"


def test_the_graphs_use_most_of_the_op_table() -> None:
    graphs = [wide_graph(seed) for seed in range(SEEDS)]
    assert len({node.op.name for graph in graphs for node in graph.nodes}) >= 85
    assert min(len(g.nodes) for g in graphs) <= 4 and 30 <= max(len(g.nodes) for g in graphs) <= 40
    assert any(0 in v.shape for g in graphs for v in g.values())
    assert print_graph(wide_graph(7)) == print_graph(graphs[7])
