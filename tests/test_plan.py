"""Order and memory plan: what is live never overlaps, states are written in place only where that is legal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from lowering_graphs import cnn, f32, inputs_of, kinds, mixture, mlp, op, optimised, transformer, unary_graph

import graphc
from graphc.codegen.assemble import assemble
from graphc.codegen.lower import Memory, lower_groups
from graphc.codegen.outputs import place_outputs
from graphc.errors import GraphError, InternalError
from graphc.ir.expr import apply, const, imul, index, load, result
from graphc.ir.graph import Graph
from graphc.ir.kernel import MapStage, ReduceStage, Rows, Store
from graphc.ir.passes.fuse import fuse
from graphc.ir.passes.order import data_arcs, order, peak_bytes
from graphc.ir.passes.plan import check_plan, lifetimes, plan
from graphc.ir.steps import Call, Step, Storage, in_place
from graphc.ir.types import Layout, float32
from graphc.runtime.interpret import interpret
from graphc.runtime.reference import run_graph
from graphc.testing import assert_same

MODELS: list[Callable[[], Graph]] = [mlp, cnn, lambda: transformer(False), lambda: transformer(True)]
MODELS += [lambda k=k: optimised(mixture(k)) for k in range(20)]  # type: ignore[misc]


def planned(graph: Graph) -> tuple[list[Call], int]:
    layouts = [Layout(i.value.type) for i in graph.inputs]
    memory = Memory(fuse(graph), layouts)
    steps = lower_groups(memory.fusion, memory)
    placed = place_outputs(memory, steps)
    calls = [c for s in order(steps, placed.arcs) for c in s.calls] + placed.last
    return calls, plan(calls)


@pytest.mark.parametrize("make", MODELS)
def test_live_memory_never_overlaps(make: Callable[[], Graph]) -> None:
    calls, arena = planned(make())
    check_plan(calls, arena)


def test_the_check_of_a_plan_finds_planted_mistakes() -> None:
    calls, arena = planned(transformer(False))
    lives = lifetimes(calls)
    for moved in list(lives)[:6]:
        kept = moved.offset
        others = [s for s in lives if s is not moved and s.nbytes and _live_together(lives, s, moved)]
        moved.offset = others[0].offset
        with pytest.raises(InternalError, match="overlaps"):
            check_plan(calls, arena)
        moved.offset = arena
        with pytest.raises(InternalError, match="outside"):
            check_plan(calls, arena)
        moved.offset = kept
    check_plan(calls, arena)


def _live_together(lives: dict[Storage, tuple[int, int]], a: Storage, b: Storage) -> bool:
    return max(lives[a][0], lives[b][0]) < min(lives[a][1], lives[b][1])


@pytest.mark.parametrize("make", MODELS)
def test_memory_is_shared(make: Callable[[], Graph]) -> None:
    graph = make()
    assert assemble(graph).arena_bytes <= assemble(graph, fused=False).arena_bytes


def chain_steps() -> list[Step]:
    """Two producers of large values that could both run early, and a consumer of each."""
    g = Graph("order")
    x = g.add_input(f32(4, 4), "x")
    big = [op("expand", op("reshape", op("matmul", x, x), shape=(4, 4, 1)), shape=(4, 4, 64)) for _ in range(3)]
    big = [op("exp", b) for b in big]
    small = [op("sum", op("flip", b, dims=(0,)), dim=(0, 1, 2), keepdim=False) for b in big]
    for k, s in enumerate(small):
        g.add_output(s, f"y{k}")
    memory = Memory(fuse(g, enabled=False), [Layout(f32(4, 4))])
    return lower_groups(memory.fusion, memory)


def test_order_lowers_the_peak() -> None:
    steps = chain_steps()
    ordered = order(steps)
    assert sorted(map(id, ordered)) == sorted(map(id, steps))
    assert peak_bytes(ordered) < peak_bytes(steps)
    place = {id(s): k for k, s in enumerate(ordered)}
    assert all(place[id(steps[a])] < place[id(steps[b])] for a, b in data_arcs(steps))
    assert [place[id(s)] for s in steps] == [{id(s): k for k, s in enumerate(order(steps))}[id(s)] for s in steps]


def test_order_respects_extra_arcs_and_refuses_cycles() -> None:
    steps = chain_steps()
    last, first = len(steps) - 1, 0
    ordered = order(steps, [(last, first)])
    assert ordered.index(steps[last]) < ordered.index(steps[first])
    with pytest.raises(GraphError):
        order(steps, [(first, last), (last, first)])


def test_a_chain_has_one_order_and_needs_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def planned(graph: Graph) -> list[Step]:
        memory = Memory(fuse(graph, enabled=False), [Layout(f32(4, 4))])
        return lower_groups(memory.fusion, memory)

    monkeypatch.setattr("graphc.ir.passes.order.view_of", None)
    steps = planned(unary_graph(f32(4, 4), lambda x: op("tanh", op("matmul", op("exp", x), x))))
    assert len(steps) == 3 and order(steps) == steps
    with pytest.raises(TypeError):
        order(planned(unary_graph(f32(4, 4), lambda x: op("matmul", op("tanh", x), op("exp", x)))))


def test_a_dying_operand_hands_over_its_memory() -> None:
    graph = unary_graph(f32(64), lambda x: op("flip", op("exp", op("flip", op("exp", x), dims=(0,))), dims=(0,)))
    assert assemble(optimised(graph)).arena_bytes <= 2 * 256
    calls, _ = planned(unary_graph(f32(4, 4), lambda x: op("matmul", op("tanh", op("matmul", x, x)), x)))
    assert len(calls) == 2


def test_reading_unwritten_memory_is_found() -> None:
    calls, _ = planned(unary_graph(f32(4, 4), lambda x: op("matmul", op("matmul", x, x), x)))
    with pytest.raises(InternalError, match="nothing has written"):
        plan(calls[1:])


# ---- states


def state_graph(update: Callable[..., object], states: int = 1) -> Graph:
    """A graph with states s0, s1, … of 4 x 4 and an input x; `update(graph, x, *states)` adds the outputs."""
    g = Graph("state")
    x = g.add_input(f32(4, 4), "x")
    update(g, x, *(g.add_input(f32(4, 4), f"s{k}", "state") for k in range(states)))
    return g


def check(graph: Graph, expected_copies: int) -> None:
    program = assemble(graph)
    arrays = inputs_of(graph)
    for a, w in zip(interpret(program, arrays), run_graph(graph, arrays), strict=True):
        np.testing.assert_allclose(a, w, rtol=1e-5)
    assert sum(c.label in ("copy", "clone") for c in program.calls) == expected_copies
    for o in program.outputs:
        assert (o.donated is not None) == (o.kind == "state")


def test_state_is_updated_in_place() -> None:
    check(state_graph(lambda g, x, s: g.add_output(op("add", s, x), "s0", "state")), 0)


def test_readers_of_the_old_state_come_first() -> None:
    def update(g: Graph, x: object, s: object) -> None:
        g.add_output(op("add", op("exp", s), x), "s0", "state")
        g.add_output(op("matmul", s, s), "y")

    graph = state_graph(update)
    check(graph, 0)
    assert kinds(assemble(graph)) == ["Contract", "Map"]


def test_a_late_reader_of_the_old_state_needs_a_copy() -> None:
    def needed(g: Graph, x: object, s: object) -> None:
        new = op("tanh", op("matmul", s, x))
        g.add_output(new, "s0", "state")
        g.add_output(op("matmul", op("matmul", new, x), s), "y")

    check(state_graph(needed), 1)


def test_state_read_at_other_places_is_not_overwritten() -> None:
    check(state_graph(lambda g, x, s: g.add_output(op("add", op("flip", s, dims=(0,)), x), "s0", "state")), 1)
    check(state_graph(lambda g, x, s: g.add_output(op("matmul", s, x), "s0", "state")), 1)


def test_states_swap() -> None:
    def swap(g: Graph, x: object, a: object, b: object) -> None:
        g.add_output(b, "s0", "state")  # type: ignore[arg-type]
        g.add_output(a, "s1", "state")  # type: ignore[arg-type]

    check(state_graph(swap, 2), 4)


def test_unchanged_state_needs_no_call() -> None:
    graph = state_graph(lambda g, x, s: g.add_output(s, "s0", "state"))
    assert not assemble(graph).calls
    check(graph, 0)


def test_state_that_is_also_returned() -> None:
    def update(g: Graph, x: object, s: object) -> None:
        new = op("add", s, x)
        g.add_output(new, "s0", "state")
        g.add_output(new, "y")

    check(state_graph(update), 1)


def test_old_state_is_returned() -> None:
    def update(g: Graph, x: object, s: object) -> None:
        g.add_output(op("add", s, x), "s0", "state")
        g.add_output(s, "old")  # type: ignore[arg-type]

    check(state_graph(update), 1)


def test_strided_state_is_written_back_in_its_layout() -> None:
    graph = state_graph(lambda g, x, s: g.add_output(op("add", s, x), "s0", "state"))
    arrays = inputs_of(graph)
    arrays[1] = np.asfortranarray(arrays[1])
    program = assemble(graph, [Layout.of(a) for a in arrays])
    (found,) = interpret(program, arrays)
    assert found.strides == arrays[1].strides
    np.testing.assert_array_equal(found, arrays[0] + arrays[1])


def test_scatter_into_a_state_starts_in_place() -> None:
    g = Graph("scatter")
    x, places = g.add_input(f32(3, 4), "x"), g.constant(np.array([2, 0, 2]))
    s = g.add_input(f32(5, 4), "s", "state")
    g.add_output(op("index_add", s, places, x, dim=0), "s", "state")
    program = assemble(g)
    assert kinds(program) == ["Scatter"]
    arrays = inputs_of(g)
    np.testing.assert_allclose(interpret(program, arrays)[0], run_graph(g, arrays)[0], rtol=1e-6)


def test_two_outputs_for_one_state_are_refused() -> None:
    def twice(g: Graph, x: object, s: object) -> None:
        g.add_output(op("add", s, x), "s0", "state")
        g.add_output(op("mul", s, x), "s0", "state")

    with pytest.raises(InternalError, match="two outputs"):
        assemble(state_graph(twice))


def test_plan_without_reuse_gives_everything_its_own_place() -> None:
    calls, shared = planned(transformer(False))
    own = plan(calls, reuse=False)
    pieces: list[Storage] = list(lifetimes(calls))
    assert own == sum(-(-s.nbytes // 64) * 64 for s in pieces) > shared


def test_rows_keep_what_a_later_stage_reads() -> None:
    row = imul(index(0), 1)  # a run of one element: the place in the run adds nothing
    x, one = load(0, float32, row), const(1.0, float32)
    stages = (ReduceStage("sum", x), MapStage((Store(1, row, apply("add", x, one)),)))
    alone = Rows((float32, float32, float32), (8,), 1, stages, (Store(2, row, result(0, float32)),))
    again = Rows(alone.operands, (8,), 1, stages, (Store(2, row, apply("mul", x, result(0, float32))),))
    assert in_place(alone, 0, 1) and not in_place(again, 0, 1)
    assert in_place(again, 0, 2)  # the last to read it


def test_rows_of_one_element_read_again_after_a_store() -> None:
    def program(a: graphc.Tensor, b: graphc.Tensor, c: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        x = (a @ b).index_add(0, graphc.arange(64), c)
        w = x.sin()
        place = w.argmax(1, keepdim=True)
        return w.T @ a, (place.to(graphc.float32) + x).T @ a

    rng = np.random.default_rng(0)
    shapes = ((64, 64), (64, 1), (64, 1))
    assert_same(program, *(graphc.tensor(rng.standard_normal(s).astype(np.float32)) for s in shapes))
