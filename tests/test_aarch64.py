"""Code for aarch64 gives the bits of this machine: every op and a training step, under qemu where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aarch64_runs import QEMU, run_programs
from kernel_runs import bits
from op_checks import all_samples
from test_op_table import arrays_of

import graphc
from graphc import compiler, nn
from graphc.ir.graph import Graph
from graphc.ir.op import Array, Control, Op, all_ops
from graphc.ir.types import Layout

pytestmark = pytest.mark.skipif(QEMU is None, reason="needs qemu-aarch64 (Debian: qemu-user)")

PER_OP = 3  # samples, the dtypes in turn
PARTS = 8  # of the op table, each one program under qemu


def graph_of(op: Op, arrays: Any, attrs: Any) -> Graph:
    return compiler.graph_of(op, [Layout.of(a) for a in arrays], attrs)


def cases(op: Op) -> list[tuple[Graph, list[Array]]]:
    """Samples spread over the op's list, each with another dtype, those with elements first."""
    samples = sorted(all_samples(op), key=lambda s: any(np.size(a) == 0 for a in s.inputs))
    count = min(PER_OP, len(samples))
    found = []
    for k in range(max(count, len(op.dtypes) if op.dtypes else 0)):
        sample = samples[k * len(samples) // max(count, len(op.dtypes)) % len(samples)]
        dtypes = sample.dtypes or op.dtypes
        arrays = arrays_of(sample, dtypes[k % len(dtypes)])
        found.append((graph_of(op, arrays, sample.attrs), list(arrays)))
    return found


def check(graphs: list[tuple[Graph, list[Array]]], folder: Path) -> None:
    """Equal bits here and there."""
    programs = [compiler.lower(compiler.optimise(graph)) for graph, _ in graphs]
    found = run_programs([(p, arrays) for p, (_, arrays) in zip(programs, graphs, strict=True)], folder)
    for (graph, arrays), results in zip(graphs, found, strict=True):
        wanted = compiler.compile_graph(graph)([np.array(a, order="C") for a in arrays])
        for o, want, got in zip(graph.outputs, wanted, results, strict=True):
            assert bits(want) == bits(got), f"{graph.name}: output {o.name}"


@pytest.mark.parametrize("part", range(PARTS))
def test_every_op(part: int, tmp_path: Path) -> None:
    names = sorted(n for n, op in all_ops().items() if not isinstance(op.lower, Control))[part::PARTS]
    check([case for name in names for case in cases(all_ops()[name])], tmp_path)


def test_a_training_step(tmp_path: Path) -> None:
    graphc.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(96, 33), nn.GELU(), nn.LayerNorm(33), nn.Linear(33, 10),
    )  # fmt: skip
    optimizer = graphc.optim.AdamW(model.parameters(), lr=0.01)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    program = graphc.trace(step, graphc.randn(19, 1, 8, 8), graphc.arange(19) % 10)
    rng = np.random.default_rng(0)
    arrays: list[Array] = []
    for i in program.graph.inputs:
        kept = program.state.get(i.name)
        random = rng.standard_normal(i.value.type.sizes) if i.value.type.dtype.is_floating_point else None
        given = np.arange(19) % 10 if random is None else random
        arrays.append(np.array(given if kept is None else kept, i.value.type.dtype.np, order="C"))
    check([(program.graph, arrays)], tmp_path)
