"""Sizes that depend on values under compile(): all of these forms were refused before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import GraphcError, GuardError, RecordingError, UnsupportedError
from graphc.ir.parse import parse_graph
from graphc.ir.passes.bind import bind_dims
from graphc.ir.verify import verify
from graphc.nn import functional as F
from tests.recorder_checks import bits, refused


def inputs(seed: int, count: int = 24, width: int = 4) -> tuple[Any, Any]:
    """A matrix of numbers with equals among them, and a vector of classes."""
    rng = np.random.default_rng(seed)
    x = graphc.tensor((rng.integers(-8, 9, (count, width)) / 4).astype(np.float32).tolist())
    return x, graphc.tensor(rng.integers(0, width, count).tolist())


def nested(x: Any, y: Any) -> Any:
    z = x[x > 0]
    return z[z > 1].sum(), z[z < 0.6]


def backward(x: Any, y: Any) -> Any:
    w = (x * 1.5).detach().requires_grad_()
    loss = ((w[w > 0.25] - 1) ** 2).mean() + w[y > 0].sum()
    (g,) = graphc.autograd.grad(loss, w)
    return loss.detach(), g


def masked_cross_entropy(x: Any, y: Any) -> Any:
    w = x.detach().clone().requires_grad_()
    keep = y != 1
    loss = F.cross_entropy(w[keep], y[keep])
    loss.backward()
    return loss.detach(), w.grad


def with_view(x: Any, y: Any) -> Any:
    rows = x[y > 0]
    return rows[:, 1:], rows.T, rows.reshape(-1), rows.unsqueeze(1)


FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "sum and mean": lambda x, y: (x[x > 0].sum(), x[x > 0].mean(), x[x > 0].std()),
    "returned": lambda x, y: (x[x > 0], x[y == 2], y[y > 1]),
    "masked_select": lambda x, y: graphc.masked_select(x, x > 0.5) * 2 + 1,
    "nonzero": lambda x, y: (graphc.nonzero(x > 1), x.nonzero(as_tuple=True), y.nonzero()),
    "indexed by nonzero": lambda x, y: x[graphc.nonzero(y > 1)[:, 0]].exp(),
    "two masks of one content": lambda x, y: x[x > 0] * (x + 1)[x > 0],
    "mask with a number": lambda x, y: x[y > 0, 1],
    "mask on a later axis": lambda x, y: x.T[:, y > 0],
    "nested": nested,
    "unique": lambda x, y: (x.unique(), y.unique(return_inverse=True, return_counts=True)),
    "consecutive": lambda x, y: y.unique_consecutive(return_inverse=True, return_counts=True),
    "sorted part": lambda x, y: x[x > 0].sort(descending=True).values.cumsum(0),
    "matmul": lambda x, y: x[y > 0] @ x.T @ x[:, :2],
    "softmax": lambda x, y: F.softmax(x[y > 0], dim=-1).log(),
    "cat": lambda x, y: graphc.cat([x[y > 0], x[y == 0], x]),
    "backward": backward,
    "cross entropy": masked_cross_entropy,
    "views": with_view,
    "divided by its size": lambda x, y: x[x > 0].sum() / x[x > 0].shape[0],
    "size in a shape": lambda x, y: graphc.zeros(x[x > 0].shape[0], 2) + x[x > 0].reshape(-1, 1),
    "size times two": lambda x, y: x[y > 0].reshape(x[y > 0].shape[0] * 2, 2),
    "numel": lambda x, y: x[x > 0].numel() * 2 + 1,
    "size returned": lambda x, y: (x[x > 0].shape[0], x[y > 0].size(0), x[y > 0].size(1)),
    "same size is no condition": lambda x, y: x[x > 0].reshape(x[x > 0].shape) if x[x > 0].ndim == 1 else x,
    "written back": lambda x, y: graphc.zeros(24, 4).index_put((graphc.nonzero(y > 0)[:, 0],), x[y > 0]),
    "scatter": lambda x, y: graphc.zeros(4).index_add(0, y[y > 0], x[y > 0][:, 0]),
    "embedding": lambda x, y: F.embedding(y[y > 0], x),
    "flip and pad": lambda x, y: F.pad(x[y > 0].flip(0), (1, 1)),
    "quantile": lambda x, y: (x[x > 0].quantile(0.3), x[x > 0].median()),
    "random": lambda x, y: graphc.rand(24)[y > 0],
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_form(name: str) -> None:
    function = FORMS[name]
    compiled = graphc.compile(function, fullgraph=True)
    graphc.manual_seed(3)
    found = [bits(compiled(*inputs(seed))) for seed in range(7)]
    graphc.manual_seed(3)
    wanted = [bits(function(*inputs(seed))) for seed in range(7)]
    for k, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert a == b, f"call {k}"
    assert compiled.stats.recordings == 2 and compiled.stats.hits == 5


def test_none_one_and_many_are_traces_of_their_own() -> None:
    def f(x: Any) -> Any:
        return x[x > 0].squeeze() * 2

    compiled = graphc.compile(f, fullgraph=True)
    rows = [[-1.0, -2, -3], [1.0, -2, -3], [1.0, 2, -3], [1.0, 2, 3]]
    for _ in range(3):
        for row in rows:
            x = graphc.tensor(row)
            assert bits(compiled(x)) == bits(f(x))
    assert compiled.stats.compilations == 3


def test_what_python_decides_by_a_size_is_a_condition() -> None:
    def f(x: Any) -> Any:
        z = x[x > 0]
        if z.shape[0] > 3:
            return z.sum()
        return z.prod() * len(z)

    compiled = graphc.compile(f, fullgraph=True)
    for k in (2, 3, 4, 5, 2, 3, 4, 5, 2, 3, 4, 5, 2, 3):
        x = graphc.tensor([1.5] * k + [-1.0] * (6 - k))
        assert bits(compiled(x)) == bits(f(x))
    assert compiled.stats.compilations == 3 and compiled.stats.hits >= 6


def test_a_range_over_a_size_is_a_condition() -> None:
    def f(x: Any) -> Any:
        z = x[x > 0]
        return sum(z[k] * k for k in range(z.shape[0]))

    compiled = graphc.compile(f, fullgraph=True)
    for k in (2, 2, 2, 3, 3, 3, 2):
        x = graphc.tensor([1.5] * k + [-1.0] * (6 - k))
        assert bits(compiled(x)) == bits(f(x))
    assert compiled.stats.compilations == 2


def test_equal_sizes_by_chance_are_a_condition() -> None:
    def f(x: Any, y: Any) -> Any:
        return x[x > 0] + y[y > 0]

    compiled = graphc.compile(f)
    good = graphc.tensor([1.0, 2, 3, -1])
    for _ in range(3):
        assert bits(compiled(good, good.flip(0))) == bits(f(good, good.flip(0)))
    assert compiled.stats.hits == 1
    for call in (f, compiled):
        with pytest.raises(GraphcError, match="add"):
            call(good, graphc.tensor([1.0, 1, -1, -1]))
    assert bits(compiled(good, good)) == bits(f(good, good))


def test_unequal_sizes_are_a_condition() -> None:
    def f(x: Any, y: Any) -> Any:
        return x.sum() if graphc.equal(x[x > 0], y[y > 0]) else y.sum()

    compiled = graphc.compile(f)
    a, b = graphc.tensor([1.0, 2, 3, -1]), graphc.tensor([1.0, 2, -3, -1])
    for x, y in ((a, b), (a, b), (a, b), (a, a), (b, b), (a, b), (b, a), (a, a + 0)):
        assert bits(compiled(x, y)) == bits(f(x, y))


def test_an_index_out_of_range_raises_as_in_eager() -> None:
    def f(x: Any, y: Any) -> Any:
        return x[y[y > 0]]

    compiled = graphc.compile(f, fullgraph=True)
    x, good, bad = graphc.tensor([1.0, 2, 3]), graphc.tensor([0, 1, 2, 2]), graphc.tensor([0, 1, 2, 3])
    for _ in range(3):
        assert bits(compiled(x, good)) == bits(f(x, good))
    for call in (f, compiled):
        with pytest.raises(GraphcError, match="index 3 is out of bounds"):
            call(x, bad)


def test_state_is_written_once_the_counts_are_known() -> None:
    class Counter(graphc.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", graphc.zeros(()))

        def forward(self, x: Any) -> Any:
            self.total.add_(x[x > 0].sum())
            return self.total * 1

    module, plain = Counter(), Counter()
    compiled = graphc.compile(module, fullgraph=True)
    for k in range(6):
        x = inputs(k)[0]
        assert bits(compiled(x)) == bits(plain(x))
        assert bits(module.total) == bits(plain.total)
    assert compiled.stats.hits == 4


def test_training_on_picked_rows() -> None:
    def make() -> tuple[Any, Any]:
        graphc.manual_seed(1)
        model = graphc.nn.Sequential(graphc.nn.Linear(4, 8), graphc.nn.ReLU(), graphc.nn.Linear(8, 4))
        optimizer = graphc.optim.Adam(model.parameters(), lr=0.05)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            keep = y != 3
            loss = F.cross_entropy(model(x[keep]), y[keep])
            loss.backward()
            optimizer.step()
            return loss.detach()

        return model, step

    (model, step), (other, plain) = make(), make()
    compiled = graphc.compile(step, fullgraph=True)
    for k in range(8):
        assert bits(compiled(*inputs(k))) == bits(plain(*inputs(k)))
    assert bits(list(model.parameters())) == bits(list(other.parameters()))
    assert compiled.stats.hits == 6


def test_backward_outside() -> None:
    """The tape of the recorded calls holds no names, that of the compiled ones is made for each size."""

    def f(x: Any, w: Any) -> Any:
        z = (w * x)[x > 0]
        return z[1:].exp().reshape(-1, 1), (z * w[0, 0]).mean()

    compiled = graphc.compile(f, fullgraph=True)
    for seed in range(7):
        x, w, other = inputs(seed)[0], graphc.ones(24, 4).requires_grad_(), graphc.ones(24, 4).requires_grad_()
        found, wanted = compiled(x, w), f(x, other)
        assert bits(found) == bits(wanted)
        for out in (found, wanted):
            (out[0].sum() + out[1]).backward()
            out[0].detach().mul_(2)
        assert bits(w.grad) == bits(other.grad)
        assert bits(found[0][1:]) == bits(wanted[0][1:])
    assert compiled.stats.hits == 5


def test_a_refusal_after_a_counted_size_leaves_no_names() -> None:
    def f(x: Any, w: Any) -> Any:
        z = (w * x)[x > 0]
        total = float(z.sum())
        return (z.reshape(-1, 1) * w[0, 0]).sum() * total

    compiled = graphc.compile(f)
    with pytest.warns(graphc.RecordingWarning):
        for seed in range(4):
            x, w, other = inputs(seed)[0], graphc.ones(24, 4).requires_grad_(), graphc.ones(24, 4).requires_grad_()
            found, wanted = compiled(x, w), f(x, other)
            assert bits(found) == bits(wanted)
            found.backward()
            wanted.backward()
            assert bits(w.grad) == bits(other.grad)


@pytest.mark.parametrize("name", FORMS)
def test_traced_and_loaded(name: str, tmp_path: Any) -> None:
    function = FORMS[name]
    program = graphc.trace(function, *inputs(0))
    if name == "random":  # its state is its own
        return
    program.save(tmp_path / "counted.gcz")
    loaded = graphc.load(tmp_path / "counted.gcz")
    for seed in range(1, 4):
        wanted = bits(function(*inputs(seed)))
        assert bits(program(*inputs(seed))) == wanted
        assert bits(loaded(*inputs(seed))) == wanted


def test_a_file_says_when_a_size_is_too_small() -> None:
    program = graphc.trace(lambda x: x[x > 0] * 2, graphc.tensor([1.0, 2.0, -1.0]))
    assert program(graphc.tensor([1.0, 2.0, 3.0])).tolist() == [2.0, 4.0, 6.0]
    with pytest.raises(GuardError, match="was at least 2 in the trace"):
        program(graphc.tensor([-1.0, -1.0, 1.0]))


def test_named_and_counted_sizes_do_not_go_together() -> None:
    def f(x: Any) -> Any:
        return x[x > 0].sum()  # here

    with pytest.raises(RecordingError, match=r"size that depends on values at test_recorder_counted\.py"):
        graphc.trace(f, inputs(0)[0], dynamic={"x": {0: "N"}})


def test_callbacks_beside_counted_sizes_are_refused() -> None:
    def f(x: Any) -> Any:
        return graphc.host(lambda t: t * 2, x)[x > 0].sum()

    compiled = graphc.compile(f)
    with pytest.warns(graphc.RecordingWarning, match="host\\(\\) and a size that depends on values"):
        for seed in range(3):
            assert bits(compiled(inputs(seed)[0])) == bits(f(inputs(seed)[0]))


def test_sizes_that_depend_on_different_values_have_no_place_in_a_file() -> None:
    def f(x: Any, y: Any) -> Any:
        return x[x > 0] + y[y > 0]  # here

    with pytest.raises(RecordingError, match="a file cannot say that they are equal"):
        graphc.trace(f, graphc.tensor([1.0, 2.0, -1.0]), graphc.tensor([-1.0, 2.0, 1.0]))


def test_a_file_with_a_size_is_checked(tmp_path: Any) -> None:
    program = graphc.trace(lambda x: x[x > 0] * 2, inputs(0)[0])
    text = str(program.graph)
    assert ' size "u0"' in text
    graph = parse_graph(text)
    verify(graph)
    assert str(graph) == text and list(graph.counted()) == ["u0"]
    with pytest.raises(UnsupportedError, match="the size u0 depends on values"):
        bind_dims(graph, {})


def test_slices_are_told_apart_eagerly() -> None:
    def make() -> Any:
        def f(x: Any) -> Any:
            return x.unique(dim=0)  # here

        return f, (inputs(0)[0],)

    refused(make, match="unique(dim=")
