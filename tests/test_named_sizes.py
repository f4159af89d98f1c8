"""Functions on tensors with a named size: a program traced at one size gives the eager result at others, or refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.cli.entry import run_app
from graphc.errors import GraphcError, GuardError

Function = Callable[[graphc.Tensor], graphc.Tensor]

WORKING: dict[str, Function] = {
    "slice from": lambda x: x[1:],
    "slice to": lambda x: x[:-1],
    "slice between": lambda x: x[1:-1],
    "last row": lambda x: x[-1],
    "first rows": lambda x: x[:2],
    "sum": lambda x: x.sum(0),
    "var": lambda x: x.var(0),
    "softmax": lambda x: x.softmax(0),
    "norm": lambda x: x.norm(),
    "flat": lambda x: x.reshape(-1),
    "view": lambda x: x.view(x.shape[0], -1),
    "back and forth": lambda x: x.flatten().unflatten(0, (-1, 3)),
    "arange": lambda x: x + graphc.arange(x.shape[0]).float()[:, None],
    "matmul": lambda x: (x @ x.t()).tril(),
    "repeat": lambda x: x.repeat(2, 1),
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll((1, -2), (0, 0)),
    "cat": lambda x: graphc.cat([x, x[1:]]),
    "stack": lambda x: graphc.stack([x, x]).flatten(0, 1),
    "narrow": lambda x: x.narrow(0, 1, x.shape[0] - 1),
    "max": lambda x: x.max(0).values,
    "pick": lambda x: x[graphc.tensor([0, -1])],
    "pad": lambda x: graphc.pad(x, (0, 0, 1, -1)),
    "take": lambda x: x.take_along_dim(x.argmax(0, keepdim=True), 0),
    "expand": lambda x: x[None].expand(2, -1, -1),
    "fill": lambda x: graphc.zeros_like(x).fill_(2.0) + x,
}  # fmt: skip
REFUSED: dict[str, Function] = {
    "rows": lambda x: x.unbind(0)[0],
    "split": lambda x: x.split(2)[0],
    "chunk": lambda x: x.chunk(2)[0],
    "len": lambda x: x * len(x),
    "odd step": lambda x: x[::2],
}


@pytest.mark.parametrize("name", WORKING)
def test_another_size_gives_the_eager_result(name: str) -> None:
    function = WORKING[name]
    program = graphc.trace(function, graphc.rand(4, 3), dynamic={"x": {0: "N"}})
    for rows in (2, 9):
        x = graphc.rand(rows, 3)
        found, wanted = program(x), function(x)
        assert found.shape == wanted.shape
        assert graphc.equal(found, wanted)


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_the_number_is_refused(name: str) -> None:
    with pytest.raises(GraphcError, match="named size"):
        graphc.trace(REFUSED[name], graphc.rand(4, 3), dynamic={"x": {0: "N"}})


def test_a_size_that_does_not_fit_is_refused_at_the_call() -> None:
    program = graphc.trace(lambda x: x[3:], graphc.rand(4, 3), dynamic={"x": {0: "N"}})
    assert program(graphc.rand(6, 3)).shape == (3, 3)
    with pytest.raises(GraphcError):
        program(graphc.rand(2, 3))


INDEXED: dict[str, Callable[[graphc.Tensor, graphc.Tensor], graphc.Tensor]] = {
    "index": lambda x, i: x[i],
    "select": lambda x, i: x.index_select(0, i.remainder(100)),
    "embedding": lambda x, i: graphc.nn.functional.embedding(i.remainder(100), x),
    "write": lambda x, i: x.index_fill(0, i.remainder(100), 1.0),
}


@pytest.mark.parametrize("name", INDEXED)
def test_indices_are_checked_against_the_size_of_the_call(name: str) -> None:
    function = INDEXED[name]
    least = -1 if name == "index" else 0
    program = graphc.trace(function, graphc.rand(4, 3), graphc.tensor([0, 3, 1]), dynamic={"x": {0: "N"}})
    for rows in (3, 9):
        x = graphc.rand(rows, 3)
        i = graphc.tensor([rows - 1, 0, least * rows])
        assert graphc.equal(program(x, i), function(x, i))
        for bad in (rows, -rows - 1) if least else (rows,):
            with pytest.raises(GuardError, match=r"test_named_sizes\.py:.*out of range"):
                program(x, graphc.tensor([0, bad, 0]))


def test_several_sizes_from_the_command_line(tmp_path: Path) -> None:
    graphc.manual_seed(0)
    model = graphc.nn.Sequential(graphc.nn.Linear(3, 4), graphc.nn.ReLU(), graphc.nn.Linear(4, 2)).eval()
    program = graphc.trace(lambda x: model(x), graphc.rand(4, 3), dynamic={"x": {0: "N"}})
    path = tmp_path / "model.gcz"
    program.save(path)
    again = graphc.load(path)
    for rows in (1, 2, 7):
        x = graphc.rand(rows, 3)
        assert graphc.equal(again(x), model(x))
        np.savez(tmp_path / "in.npz", **{program.signature.arguments[0].name: x.numpy()})
        assert run_app(["run", str(path), "--inputs", str(tmp_path / "in.npz"), "-o", str(tmp_path / "out.npz")]) == 0
        assert np.array_equal(np.load(tmp_path / "out.npz")["out0"], model(x).detach().numpy())
