"""cond, while_loop and scan as nodes: one recording for every way, files that hold them, what stays a statement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.compiler import compile_graph, graph_of
from graphc.errors import GraphError, GuardError, IndexingError, RecordingError
from graphc.frontend import control
from graphc.ir.graph import Graph
from graphc.ir.op import op_named
from graphc.ir.parse import parse_graph
from graphc.ir.passes.bind import bind_dims
from graphc.ir.subgraph import MAX_NESTING, Subgraph
from graphc.ir.text import constants_of, print_graph
from graphc.ir.types import Layout, TensorType, bool_, float32
from graphc.ir.verify import verify
from graphc.runtime.reference import run_graph
from graphc.runtime.segments import Segmented
from graphc.testing import assert_same
from tests.recorder_checks import bits

Args = tuple[Any, ...]


@pytest.fixture(autouse=True)
def _seed() -> None:
    graphc.manual_seed(3)


def zero() -> graphc.Tensor:
    return graphc.zeros((), dtype=graphc.int64)


def whole(fn: Callable[..., Any], calls: Sequence[Args], path: Path, dynamic: Any = None) -> Any:
    """One trace after two recordings, and one program, give eager's bits for all calls; gives the compiled function."""
    run = graphc.compile(fn, fullgraph=True)
    for _ in range(2):
        for args in calls:
            assert bits(run(*args)) == bits(fn(*args))
    assert run.stats.recordings == 2 and len(run.traces) == 1, run.stats
    program = graphc.trace(fn, *calls[0], dynamic=dynamic)
    program.save(path / "program.gcz")
    loaded = graphc.load(path / "program.gcz")
    for args in calls:
        assert bits(program(*args)) == bits(loaded(*args)) == bits(fn(*args))
    return run


def in_paths(fn: Callable[..., Any], calls: Sequence[Args], paths: int) -> Any:
    """So many traces: decisions are conditions, as those of an `if`."""
    run = graphc.compile(fn, fullgraph=True)
    for _ in range(2):
        for args in calls:
            assert bits(run(*args)) == bits(fn(*args))
    assert len(run.traces) == paths
    return run


def signs(n: int = 3) -> list[Args]:
    return [(graphc.full((n,), float(s)),) for s in (1, -1, 2, -3)]


# ---------------------------------------------------------------- one graph for every way


def test_both_ways_of_a_branch_are_one_recording(tmp_path: Path) -> None:
    def f(x: Any) -> Any:
        return graphc.cond(x.sum() > 0, lambda a: (a * 2 + 1, a), lambda a: (a.exp() - 3, a * 1), (x,))

    whole(f, signs(), tmp_path)
    assert_same(f, graphc.randn(5))


def test_loops_of_different_lengths_are_one_recording(tmp_path: Path) -> None:
    def halve(x: Any, limit: Any) -> Any:
        return graphc.while_loop(lambda v, n: v.abs().max() > limit, lambda v, n: (v * 0.5, n + 1), (x, zero()))

    x = graphc.tensor([3.0, -9.0])
    one = graphc.tensor(1.0)
    whole(halve, [(x * k, one) for k in (1.0, 0.0, 8.0, 1000.0)], tmp_path)
    whole(halve, [(x * k, one) for k in (0.0, 5.0)], tmp_path)  # the first call goes round not once
    assert_same(halve, x, one)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dim", [1, -2])
def test_a_scan_serves_every_length(tmp_path: Path, reverse: bool, dim: int) -> None:
    def f(xs: Any) -> Any:
        def combine(c: Any, x: Any) -> Any:
            return c + x["a"].sum() * 0.5, [x["a"] * c, x["b"]]

        return graphc.scan(combine, graphc.zeros(()), {"a": xs, "b": xs * 2}, dim=dim, reverse=reverse)

    assert_same(f, graphc.randn(2, 20, 3))
    program = graphc.trace(f, graphc.randn(2, 6, 3), dynamic={"xs": {1: "T", 0: "B"}})
    program.save(tmp_path / "scan.gcz")
    loaded = graphc.load(tmp_path / "scan.gcz")
    for shape in ((2, 2, 3), (4, 17, 3), (2, 41, 3)):
        xs = graphc.randn(*shape)
        assert bits(program(xs)) == bits(loaded(xs)) == bits(f(xs))


def test_a_scan_over_what_a_mask_leaves() -> None:
    def f(x: Any) -> Any:
        return graphc.scan(lambda c, t: (c * 0.5 + t, c), graphc.zeros(()), x[x > 0])

    run, program = graphc.compile(f, fullgraph=True), graphc.trace(f, graphc.ones(20))
    for _ in range(8):
        x = graphc.randn(20)
        assert bits(run(x)) == bits(program(x)) == bits(f(x))
    assert run.stats.recordings == 2


def test_short_scans_are_written_out_and_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = nn.GRUCell(3, 4)

    def f(xs: Any) -> Any:
        with graphc.no_grad():
            return graphc.scan(lambda h, x: (cell(x, h), h), graphc.zeros(2, 4), xs)

    xs = graphc.randn(control.UNROLLED, 2, 3)
    written = graphc.trace(f, xs)
    assert not any(n.op.name == "scan" for n in written.graph.nodes)
    monkeypatch.setattr(control, "UNROLLED", 1)
    looped = graphc.trace(f, xs)
    assert any(n.op.name == "scan" for n in looped.graph.nodes)
    assert bits(written(xs)) == bits(looped(xs)) == bits(f(xs))


def test_nested(tmp_path: Path) -> None:
    def f(x: Any, rounds: Any) -> Any:
        def body(v: Any, n: Any) -> Any:
            v = graphc.cond(v.sum() > 4, lambda: v * 0.5, lambda: v + n * 0.25)
            w, _ = graphc.while_loop(lambda w, m: m < n, lambda w, m: (w * 0.9 + v, m + 1), (v * 2, zero()))
            c, _ = graphc.scan(lambda c, t: (c + t, c * t), w.sum(), graphc.cat([v] * 9))
            return w * 0.1 + c * 0.001, n + 1

        return graphc.while_loop(lambda v, n: n < rounds, body, (x, zero()))

    calls = [(graphc.randn(3), graphc.tensor(k)) for k in (0, 3, 1, 6)]
    whole(f, calls, tmp_path)
    whole(f, calls[::-1], tmp_path)


def test_parameters_may_change_between_calls(tmp_path: Path) -> None:
    left, right = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))

    def f(x: Any) -> Any:
        with graphc.no_grad():
            return graphc.cond(x.sum() > 0, left, right, (x,))

    calls = [(graphc.randn(2, 3),) for _ in range(6)]
    run = whole(f, calls, tmp_path)
    with graphc.no_grad():
        left.weight.mul_(3.0)
        right[0].bias.add_(1.0)
    for args in calls:
        assert bits(run(*args)) == bits(f(*args))
    assert run.stats.recordings == 2


def test_beside_gradients_and_writes() -> None:
    model, best = nn.Linear(3, 1), graphc.full((), 9.0)
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        with graphc.no_grad():
            norm = model.weight.grad.norm()
            scale = graphc.cond(norm > 1, lambda: 1 / norm, lambda: graphc.ones(()))
            for p in model.parameters():
                p.grad.mul_(scale)
            best.copy_(graphc.cond(loss < best, lambda: loss, lambda: best))
        optimizer.step()
        return loss.detach()

    assert_same(step, graphc.randn(4, 3), state=[model, best])
    run = graphc.compile(step, fullgraph=True)
    for k in range(6):
        run(graphc.randn(4, 3) * float(k))
    assert run.stats.recordings == 2


def test_backward_outside() -> None:
    model = nn.Linear(3, 2)

    def f(x: Any) -> Any:
        return model(graphc.cond(x.sum() > 0, lambda: x * 2, lambda: x - 1))

    run = graphc.compile(f, fullgraph=True)
    for _ in range(6):
        x, grads = graphc.randn(4, 3), []
        for function in (f, run):
            model.zero_grad()
            function(x).square().sum().backward()
            grads.append(bits([p.grad for p in model.parameters()]))
        assert grads[0] == grads[1]
    assert run.stats.recordings == 2


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float64", "int32", "uint8"])
def test_dtypes(tmp_path: Path, name: str) -> None:
    def f(x: Any) -> Any:
        y = graphc.cond(x.sum() > 3, lambda: x * 2, lambda: x + 1)
        return graphc.while_loop(lambda v: v.sum() < 50, lambda v: v + v + 1, (y,))

    dtype = getattr(graphc, name)
    whole(f, [(graphc.tensor([1, 2, 0]).to(dtype),), (graphc.tensor([5, 2, 7]).to(dtype),)], tmp_path)


def test_results_are_memory_of_their_own(tmp_path: Path) -> None:
    def f(x: Any) -> Any:
        y, z, w = graphc.cond(x.sum() > 0, lambda: (x, (x * 2)[1:], x.t()), lambda: (x + 1, x[1:], (x * 3).t()))
        y.add_(1)
        (v,) = graphc.while_loop(lambda v: v.sum() > 1e9, lambda v: v, (z,))
        v.mul_(2)
        return x, y, z, w, v

    whole(f, [(graphc.randn(3, 3),), (graphc.randn(3, 3) - 9,)], tmp_path)


def test_work_inside_on_new_memory_and_its_gradients(tmp_path: Path) -> None:
    def f(x: Any) -> Any:
        def yes() -> Any:
            a = x * 2
            a.add_(1)
            a[0] = 5.0
            return {"a": a, "way": 1}

        return graphc.cond(x.sum() > 0, yes, lambda: {"a": x - x[0].item(), "way": 1})

    whole(f, signs(), tmp_path)


# ---------------------------------------------------------------- indices


def decode(steps: int = 12) -> tuple[Callable[..., Any], list[Args]]:
    table, head = nn.Embedding(7, 5), nn.Linear(5, 7)

    def f(token: Any, n: Any) -> Any:
        def body(t: Any, k: Any, out: Any) -> Any:
            t = head(table(t)).argmax()
            return t, k + 1, graphc.where(graphc.arange(steps) == k, t, out)

        with graphc.no_grad():
            start = (token, zero(), graphc.zeros(steps, dtype=graphc.int64))
            return graphc.while_loop(lambda t, k, out: k < n, body, start)

    return f, [(graphc.tensor(t), graphc.tensor(n)) for t, n in ((1, 3), (2, 9), (6, 0), (3, 12))]


def test_indices_inside_are_checked_by_the_graph(tmp_path: Path) -> None:
    f, calls = decode()
    run = whole(f, calls, tmp_path)
    with pytest.raises(IndexingError, match="index 9 is out of range"):
        run(graphc.tensor(9), graphc.tensor(2))
    with pytest.raises(GuardError, match="out of range"):
        graphc.load(tmp_path / "program.gcz")(graphc.tensor(9), graphc.tensor(2))


def test_indices_in_branches_in_loops(tmp_path: Path) -> None:
    t = graphc.randn(6, 2)

    def f(x: Any, i: Any) -> Any:
        def body(v: Any, k: Any) -> Any:
            return graphc.cond(v.sum() > 0, lambda: t[k] * 2 + v, lambda: v + 1), k + 1

        v, _ = graphc.while_loop(lambda v, k: k < 4, body, (x, i))
        places = i.reshape(1).abs() + graphc.zeros(20, dtype=graphc.int64)
        return v, graphc.scan(lambda c, k: (c + t[k], t[k].sum()), graphc.zeros(2), places)

    run = whole(f, [(graphc.ones(2) * s, graphc.tensor(i)) for s, i in ((1, 2), (-1, 3), (-1, 0), (1, -5))], tmp_path)
    for start, place in ((1.0, -9), (1.0, 6)):
        with pytest.raises(IndexingError, match=f"index {abs(place) if place > 0 else place}"):
            run(graphc.ones(2) * start, graphc.tensor(place))


# ---------------------------------------------------------------- what stays a statement


def test_what_python_keeps_stays_in_the_graph() -> None:
    def f(x: Any) -> Any:
        values, copies = [], []

        def body(v: Any, n: Any) -> Any:
            copies.append(v * 3)
            v = v * 0.5
            values.append(v)
            return v, n + 1

        v, _ = graphc.while_loop(lambda v, n: n < 3, body, (x, zero()))
        return v, graphc.stack(values), graphc.stack(copies)

    in_paths(f, [(graphc.randn(3),)], 1)


def test_the_function_not_taken_leaves_no_trace() -> None:
    counts = {"n": 0}

    def f(x: Any) -> Any:
        seen: list[Any] = []
        y = graphc.cond(x.sum() > 0, lambda: seen.append(x * 2) or x + 1, lambda: x - 1)
        return y, len(seen)

    def g(x: Any) -> Any:
        def no() -> Any:
            counts["n"] += 1
            return x

        return graphc.cond(x.sum() > 0, lambda: x * 2, no)

    in_paths(f, signs(), 2)
    in_paths(g, [(graphc.ones(3),)], 1)
    assert counts == {"n": 0}


class Counter:
    n = 0


@pytest.mark.parametrize("kind", ["list", "field", "variable", "iterator", "generator", "array"])
def test_what_changes_beside_the_tensors(kind: str) -> None:
    def f(x: Any) -> Any:
        count, holder, items, array = 0, Counter(), [0], np.zeros(1)
        ahead, more = iter([1.0, 2.0, 3.0]), (float(k) for k in range(1, 9))

        def yes() -> Any:
            nonlocal count
            if kind == "list":
                items.append(1)
            elif kind == "field":
                holder.n += 1
            elif kind == "variable":
                count += 1
            elif kind == "array":
                array[0] += 1
            return x * 2 if "ator" not in kind else x * next(ahead if kind == "iterator" else more)

        y = graphc.cond(x.sum() > 0, yes, lambda: x)
        return y, len(items), holder.n, count, float(array[0]), next(ahead), next(more)

    in_paths(f, signs(), 2)
    in_paths(f, [*signs()[::2], *signs()[1::2]] * 2, 2)


def test_writes_to_what_was_there_before_are_of_the_way_taken() -> None:
    def f(x: Any) -> Any:
        total = x.clone()

        def yes() -> Any:
            total.add_(1)
            return total * 2

        return graphc.cond(x.sum() > 0, yes, lambda: x - 1), total

    in_paths(f, signs(), 2)


def test_random_numbers_are_drawn_on_the_way_taken() -> None:
    def f(x: Any) -> Any:
        return graphc.cond(x.sum() > 0, lambda: graphc.rand(3), lambda: x - 1), graphc.rand(2)

    run = graphc.compile(f, fullgraph=True)
    for k, args in enumerate(signs() * 2):
        graphc.manual_seed(k)
        expected = bits(f(*args))
        graphc.manual_seed(k)
        assert bits(run(*args)) == expected
    assert len(run.traces) == 2


def test_a_condition_inside_is_a_condition() -> None:
    def f(x: Any) -> Any:
        def yes() -> Any:
            return x * 100 if x[0] > 1.5 else x * 2

        return graphc.cond(x.sum() > 0, yes, lambda: x - 1)

    in_paths(f, signs(), 3)


@pytest.mark.parametrize("other", ["raises", "another type", "another number", "nothing"])
def test_functions_that_do_not_go_together(other: str) -> None:
    def f(x: Any) -> Any:
        def no() -> Any:
            if other == "raises":
                raise ValueError("never called with these values")
            return {"another type": x[1:], "another number": (x, 2), "nothing": None}[other]

        return graphc.cond(x.sum() > 0, lambda: (x, 1) if other == "another number" else x * 2, no)

    in_paths(f, signs()[: 1 if other == "raises" else 4], 1 if other == "raises" else 2)


def test_gradients_go_through_the_statements() -> None:
    model = nn.Linear(3, 3)

    def f(x: Any) -> Any:
        model.zero_grad()
        graphc.cond(x.sum() > 0, lambda: model(x), lambda: model(x) * 2).sum().backward()
        return model.weight.grad.clone()

    in_paths(f, [(graphc.ones(2, 3),), (-graphc.ones(2, 3),)], 2)


def test_a_scan_of_a_named_size_that_must_be_written_out_is_refused() -> None:
    cell = nn.RNNCell(2, 3)

    def f(xs: Any) -> Any:
        return graphc.scan(lambda h, x: (cell(x, h), h), graphc.zeros(4, 3), xs)  # here

    with pytest.raises(RecordingError, match=r"scan at test_control_graphs.py:\d+ goes through the named size N.*no_"):
        graphc.trace(f, graphc.randn(5, 4, 2), dynamic={"xs": {0: "N"}})


def test_a_round_that_does_something_else_is_refused() -> None:
    class Odd:
        """State that nobody sees."""

        __slots__ = ("_bytes",)

        def __init__(self) -> None:
            self._bytes = bytearray()

        def __call__(self) -> int:
            self._bytes.append(1)
            return len(self._bytes)

    def f(x: Any, rounds: int) -> Any:
        odd = Odd()
        return graphc.while_loop(lambda v: v.sum() < 1000, lambda v: v * 2 if odd() < rounds else v * 3, (x,))

    for rounds in (2, 5):
        with pytest.raises(RecordingError, match=r"a round of the loop at .* does something else than the first one"):
            graphc.trace(f, graphc.ones(2), rounds)
    run = graphc.compile(f)
    with pytest.warns(graphc.RecordingWarning, match="does something else"):
        for _ in range(3):
            assert bits(run(graphc.ones(2), 2)) == bits(f(graphc.ones(2), 2))


def test_nested_beyond_the_limit() -> None:
    def deep(level: int, x: Any) -> Any:
        return graphc.cond(x.sum() > 0, lambda: deep(level - 1, x * 2), lambda: x + level) if level else x

    for level in (MAX_NESTING, MAX_NESTING + 1):
        program = graphc.trace(lambda x, level=level: deep(level, x), graphc.ones(2))
        verify(program.graph)
        assert bits(program(graphc.ones(2))) == bits(deep(level, graphc.ones(2)))
        assert any(n.op.name == "cond" for n in program.graph.nodes) is (level == MAX_NESTING)


def test_layers_that_draw_and_count() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.drop, self.norm = nn.Linear(3, 3), nn.Dropout(0.5), nn.BatchNorm1d(3)

        def forward(self, x: Any) -> Any:
            return self.a(graphc.cond(x.sum() > 0, lambda: self.drop(self.a(x)), lambda: self.norm(x)))

    model = Model()
    xs = [graphc.randn(4, 3) * 3 for _ in range(8)]
    state = {name: t.clone() for name, t in model.state_dict().items()}

    def history(run: Any) -> Any:
        model.load_state_dict(state)
        graphc.manual_seed(1)
        with graphc.no_grad():
            return [bits(run(x)) for x in xs], bits(model.state_dict())

    for training, paths in ((True, 2), (False, 1)):
        model.train(training)
        run = graphc.compile(model, fullgraph=True)
        assert history(run) == history(model)
        assert len(run.traces) == paths


def test_a_gradient_mode_that_stays() -> None:
    def f(x: Any) -> Any:
        def yes() -> Any:
            graphc.set_grad_enabled(False)
            return x * 2

        with graphc.enable_grad():
            y = graphc.cond(x.sum() > 0, yes, lambda: x - 1)
            return y, graphc.is_grad_enabled()

    in_paths(f, signs(), 2)


def test_beside_callbacks() -> None:
    seen: list[Any] = []

    def f(x: Any) -> Any:
        y = graphc.cond(x.sum() > 0, lambda: x * 2, lambda: x - 1)
        z = graphc.host(lambda t: seen.append(t.tolist()) or t * 3, y)
        return graphc.while_loop(lambda v: v.sum() < 50, lambda v: v.abs() * 2 + 1, (z,))

    def g(x: Any) -> Any:
        return graphc.cond(x.sum() > 0, lambda: graphc.host(lambda t: seen.append(1) or t * 3, x), lambda: x - 1)

    for function, paths in ((f, 1), (g, 2)):
        run = in_paths(function, signs(), paths)
        for args in signs():
            seen.clear()
            function(*args)
            expected = list(seen)
            seen.clear()
            run(*args)
            assert seen == expected


# ---------------------------------------------------------------- graphs and files


def branching(large: bool = False) -> Graph:
    """A graph with a branch whose functions hold constants."""
    t = TensorType(float32, (20 if large else 2,))
    graph = Graph("g")
    flag, x = graph.add_input(TensorType(bool_, ()), "p"), graph.add_input(t, "x")
    parts = {}
    for name in ("then", "other"):
        inner = Graph(name)
        given = inner.add_input(t, "x")
        held = inner.constant(np.full(t.sizes, 3.0 if name == "then" else 4.0, np.float32))
        inner.add_output(op_named("mul")(given, held), "y")
        parts[name] = Subgraph(inner)
    (y,) = graph.add(op_named("cond"), (flag, x), parts)
    graph.add_output(op_named("neg")(y), "y")
    return graph


def test_constants_within_are_in_the_table_of_the_file(tmp_path: Path) -> None:
    graph = branching(large=True)
    found = constants_of(graph)
    assert [a[0] for a in found.values()] == [3.0, 4.0]
    again = parse_graph(print_graph(graph), found)
    verify(again)
    x = np.arange(20, dtype=np.float32)
    for pred in (True, False):
        (y,) = compile_graph(again)([np.asarray(pred), x])
        assert np.array_equal(y, run_graph(graph, [np.asarray(pred), x])[0])
        assert np.array_equal(y, -x * (3 if pred else 4))


def test_equal_graphs_within_are_equal_nodes() -> None:
    a, b = branching().nodes[0].attrs, branching().nodes[0].attrs
    assert a == b and hash(a["then"]) == hash(b["then"]) and a["then"] != a["other"]
    assert branching(large=True).nodes[0].attrs["then"] != branching(large=True).nodes[0].attrs["other"]


def test_named_sizes_within_are_bound() -> None:
    def f(x: Any) -> Any:
        return graphc.cond(x.sum() > 0, lambda: x * 2 - x.mean(0), lambda: graphc.zeros(x.shape[0], 3) + x.sum(0))

    program = graphc.trace(f, graphc.randn(4, 3), dynamic={"x": {0: "N"}})
    bound = bind_dims(program.graph, {"N": 6})
    verify(bound)
    assert "N" not in print_graph(bound)
    for n in (2, 5, 9):
        for shift in (5.0, -5.0):
            x = graphc.randn(n, 3) + shift
            assert bits(program(x)) == bits(f(x))


GOOD = print_graph(branching())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("then=graph then(%x: f32[2] input", "then=graph then(%x: f32[3] input", "mul"),
        ("then=graph then(%x: f32[2] input", "then=graph then(%x: f32[2] state", "only plain inputs"),
        ("mul(%x, %0)", "mul(%p, %0)", "%p is not defined here"),
        ('return %1 output "y"\n    }, other', 'return %1 state "x"\n    }, other', "only plain inputs"),
        ('return %1 output "y"\n    }, other', "return\n    }, other", "both must give the same"),
        ("then=graph then", "then=grph then", "expected a dtype"),
        ("other=graph other", "then=graph other", "is given twice"),
        ("then=graph then(", "then=(graph then(", "expected"),
        ("cond(%p, %x)", "cond(%x, %x)", "operand 0 is f32[2], expected bool[]"),
        ("cond(%p, %x)", "cond(%p)", "is given none"),
        ("neg(%0)", "neg(%0) {then=graph g() { return }}", "neg has no attribute 'then'"),
        ("neg(%0)", "while_loop(%0) {test=1, body=2, carries=1}", "must be Subgraph, got 1"),
    ],
)
def test_broken_text(old: str, new: str, message: str) -> None:
    assert parse_graph(GOOD) and GOOD.count(old) >= 1
    with pytest.raises(GraphError) as error:
        parse_graph(GOOD.replace(old, new, 1))
    assert message in str(error.value) and "graph text, line " in str(error.value)


def test_deep_text_is_refused_quickly() -> None:
    text = "graph g() { %0: f32[] = cond() {then=" * 5000
    with pytest.raises(GraphError, match="nested more than 8 deep"):
        parse_graph(text)


def test_limits_hold_for_all_graphs_together() -> None:
    from graphc.ir.limits import Limits

    parse_graph(GOOD, limits=Limits(nodes=6, tensors=4))
    with pytest.raises(GraphError, match="more than 5 nodes"):
        parse_graph(GOOD, limits=Limits(nodes=5))
    with pytest.raises(GraphError, match="more than 3 inputs"):
        parse_graph(GOOD, limits=Limits(tensors=3))


def test_every_prefix_and_mutation_is_refused_or_a_valid_graph() -> None:
    for end in range(0, len(GOOD) - 3, 3):
        with pytest.raises(GraphError):
            parse_graph(GOOD[:end])
    rng = np.random.default_rng(1)
    for _ in range(500):
        k, c = int(rng.integers(len(GOOD))), chr(rng.integers(32, 127))
        try:
            changed = parse_graph(GOOD[:k] + c + GOOD[k + int(rng.integers(3)) :])
            verify(changed)
        except GraphError:
            continue
        assert changed.nodes


# ---------------------------------------------------------------- the executable


def test_the_executable_is_called_as_any_other() -> None:
    exe = compile_graph(branching())
    assert isinstance(exe, Segmented)
    exe.poison = True
    flag, x, out = np.asarray(True), np.array([1.0, 2.0], np.float32), np.zeros(2, np.float32)
    assert exe([flag, x], [out])[0] is out and out.tolist() == [-3.0, -6.0]
    assert exe.stats.native_calls == 2 and exe.stats.kernels == 3
    with pytest.raises(graphc.errors.ArgumentError, match="expected 2 inputs, got 1"):
        exe([flag])
    with pytest.raises(graphc.errors.ArgumentError, match=r"input 1 is .*expected f32\[2\]"):
        exe([flag, np.zeros(3, np.float32)])
    with pytest.raises(graphc.errors.ArgumentError, match="output array 0"):
        exe([flag, x], [np.zeros(3, np.float32)])


def test_results_that_are_operands_are_copied() -> None:
    t = TensorType(float32, (2,))
    inner = Graph("same")
    inner.add_output(inner.add_input(t, "x"), "y")
    test = Graph("test")
    test.add_input(t, "x")
    test.add_output(test.constant(np.asarray(False)), "y")
    attrs = {"test": Subgraph(test), "body": Subgraph(inner), "carries": 1}
    graph = graph_of(op_named("while_loop"), [Layout(t)], attrs)
    graph.add_output(graph.inputs[0].value, "x")
    x = np.array([1.0, 2.0], np.float32)
    a, b = compile_graph(graph)([x])
    assert a.tolist() == b.tolist() == x.tolist()
    assert not any(np.shares_memory(p, q) for p, q in ((a, b), (a, x), (b, x)))
