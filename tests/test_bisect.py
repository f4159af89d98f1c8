"""Bisection: a fault planted at any stage is found there, with the few nodes that show it; right models have none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

import graphc
import graphc.codegen.cpu as cpu
import graphc.ir.passes.plan as plan_pass
from graphc import compiler, nn, optim
from graphc.cli.app import app
from graphc.codegen import assemble, outputs
from graphc.errors import ArgumentError
from graphc.fuzz.bisect import bisect_graph, with_special
from graphc.fuzz.bisect_parts import Smallest, part_of
from graphc.fuzz.bisect_stages import run_by_op
from graphc.fuzz.deep_variants import targets
from graphc.ir.graph import Graph, Node, copy_graph
from graphc.ir.op import op_named
from graphc.ir.passes import cse, dce, decompose, fold, simplify
from graphc.nn import functional as F
from graphc.testing import Bisection, bisect, compare_values

Patch = pytest.MonkeyPatch


def long_function(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
    """Some twenty nodes, among them one clamp."""
    h = F.softmax(x @ y, -1) * 3.0
    h = (h - h.mean(0)).tanh() + 0.25
    h = h.clamp(-0.125, 0.5)
    h = h / (h.abs().sum() + 1.0)
    return h.t().exp() * 2.0 - x.sum()


def arguments() -> tuple[graphc.Tensor, graphc.Tensor]:
    graphc.manual_seed(0)
    return graphc.randn(5, 7), graphc.randn(7, 6)


@pytest.fixture(autouse=True)
def kernels_of_their_own(monkeypatch: Patch) -> None:
    """What is compiled while a fault is planted is not kept."""
    monkeypatch.setattr(compiler, "_eager", {})


def planted(fn: Callable[..., Any], args: tuple[Any, ...], plant: Callable[[], None], **more: Any) -> Bisection:
    """Record first, so that the fault is in no kernel of the eager mode that stays, then plant and bisect."""
    program = graphc.trace(fn, *args)
    plant()
    return bisect(program, *args, **more)


def instead(name: str, wrong: str) -> Callable[[Graph], Graph]:
    """A fault of a pass: one op for another."""

    def run(graph: Graph) -> Graph:
        out, _ = copy_graph(graph)
        for node in out.nodes:
            if node.op.name == name:
                node.op = op_named(wrong)
        return out

    return run


def names(found: Bisection) -> list[str]:
    return [node.op.name for node in found.nodes]


# ---------------------------------------------------------------- nothing differs


def test_a_right_function_differs_nowhere() -> None:
    found = bisect(long_function, *arguments())
    assert not found.differs and found.stage == "" and found.graph is None and found.nodes == []
    assert [status for _, status, _ in found.stages] == ["same"] * len(found.stages)
    assert [name for name, _, _ in found.stages][:7] == [
        "eager kernels", "decompose", "fold", "simplify", "cse", "dce", "lower",
    ]  # fmt: skip
    assert str(found) == "long_function: no stage changes a bit"
    with pytest.raises(ArgumentError, match="nothing differs"):
        found.save("nowhere.gcz")


def test_a_training_step_differs_nowhere_and_keeps_its_state() -> None:
    graphc.manual_seed(1)
    layer = nn.Linear(4, 3)
    opt = optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    x = graphc.randn(2, 4).t().contiguous().t()

    def step(x: graphc.Tensor) -> graphc.Tensor:
        opt.zero_grad()
        loss = F.dropout(layer(x), 0.25).square().mean()
        loss.backward()
        opt.step()
        return loss

    before = layer.weight.detach().clone()
    found = bisect(step, x, state=[layer, opt])
    assert not found.differs, str(found)
    assert "layouts" in [name for name, _, _ in found.stages]
    assert graphc.equal(before, layer.weight) and layer.weight.grad is None


def test_branches_and_loops() -> None:
    def f(x: graphc.Tensor) -> graphc.Tensor:
        x = graphc.cond(x.sum() > 0, lambda t: t * 2, lambda t: t - 1, [x])
        return graphc.scan(lambda c, t: (c * 0.5 + t, c + t), graphc.zeros(3), x)[1]

    assert not bisect(f, graphc.randn(4, 3)).differs


# ---------------------------------------------------------------- a fault at each stage


PASSES: dict[str, tuple[Any, Callable[[Graph], Graph], list[str]]] = {
    "simplify": (simplify, instead("minimum", "maximum"), ["clamp"]),
    "cse": (cse, instead("tanh", "sin"), ["tanh"]),
    "dce": (dce, instead("abs", "neg"), ["abs"]),
    "decompose": (decompose, instead("exp", "sin"), ["exp"]),
}


@pytest.mark.parametrize("name", PASSES)
def test_a_fault_of_a_pass(name: str, monkeypatch: Patch) -> None:
    module, fault, nodes = PASSES[name]
    real = module.run
    found = planted(
        long_function, arguments(), lambda: monkeypatch.setattr(module, "run", lambda graph: fault(real(graph)))
    )
    assert found.stage == name, str(found)
    assert found.stages[-1][1] == "differs"
    assert len(found.nodes) == 1 and names(found)[0] in (*nodes, "softmax"), str(found)
    assert found.wrong is not None and found.wrong.place is not None and found.wrong_in_part is not None
    assert name == "decompose" or (found.wrong.result, found.stages[-1][0]) == ("output out0", name)


def test_a_fault_of_folding(monkeypatch: Patch) -> None:
    def f(x: graphc.Tensor) -> graphc.Tensor:
        return x * graphc.tensor([0.5, 1.0, 2.0, 3.0]).exp() + x.sin()

    real = fold.run

    def plant() -> None:
        monkeypatch.setattr(fold, "run", lambda graph, evaluate: negated(real(graph, evaluate)))

    def negated(graph: Graph) -> Graph:
        out, _ = copy_graph(graph)
        for node in out.nodes:
            if node.op.name == "constant" and node.attrs["value"].ndim:
                node.attrs["value"] = -node.attrs["value"]
        return out

    found = planted(f, (graphc.randn(4),), plant)
    assert found.stage == "fold"
    assert len(found.nodes) <= 3, str(found)


def mul_before_add(graph: Graph) -> Graph:
    """A product that a sum reads becomes a difference."""
    out, _ = copy_graph(graph)
    for node in out.nodes:
        for v in node.inputs:
            if node.op.name == "add" and v.node is not None and v.node.op.name == "mul":
                v.node.op = op_named("sub")
    return out


def test_a_fault_of_fusion(monkeypatch: Patch) -> None:
    real = assemble.fuse

    def faulty(graph: Graph, strided: Any, fused: bool) -> Any:
        return real(mul_before_add(graph) if fused else graph, strided, fused)

    def f(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        h = (x @ y).exp().sum(0) * 2.0 + y[0]
        return h.tanh() - h.mean()

    found = planted(f, arguments(), lambda: monkeypatch.setattr(assemble, "fuse", faulty))
    assert found.stage == "fuse"
    assert sorted(names(found)) == ["add", "mul"], str(found)


KEPT = graphc.arange(100) * 0.25


def update(g: graphc.Tensor) -> graphc.Tensor:
    """Writes a tensor that is kept, whose old value is read backwards."""
    h = (g * 0.5).tanh()
    KEPT.copy_(KEPT.flip(0) + h)
    return h.sum()


def test_a_fault_of_writing_in_place(monkeypatch: Patch) -> None:
    found = planted(
        update, (graphc.randn(100),), lambda: monkeypatch.setattr(outputs, "_reads_in_place", lambda *_: True)
    )
    assert found.stage == "outputs"
    assert len(found.nodes) <= 3 and "flip" in names(found), str(found)
    assert found.wrong is not None and found.wrong.result == "state KEPT"


def test_a_fault_of_the_order(monkeypatch: Patch) -> None:
    """The old value of a state is read after it was overwritten."""
    real = assemble.order

    def faulty(steps: Any, arcs: Any = ()) -> Any:
        return real(steps, [(b, a) for a, b in arcs])

    def f(g: graphc.Tensor) -> graphc.Tensor:
        h = KEPT.exp().cumsum(0)
        KEPT.add_(g.tanh())
        return h * 2

    found = planted(f, (graphc.randn(100),), lambda: monkeypatch.setattr(assemble, "order", faulty))
    assert found.stage == "order"
    assert len(found.nodes) <= 3, str(found)


def test_memory_freed_too_early(monkeypatch: Patch) -> None:
    real = plan_pass.lifetimes

    def faulty(calls: Any) -> Any:
        return {s: (first, max(first, last - 1)) for s, (first, last) in real(calls).items()}

    found = planted(
        lambda x, y: (((x @ y) @ y) @ x) + y,
        (graphc.randn(50, 50), graphc.randn(50, 50)),
        lambda: monkeypatch.setattr(plan_pass, "lifetimes", faulty),
    )
    assert found.stage == "plan"
    assert len(found.nodes) <= 3, str(found)


def emitting(replaced: str, by: str, target: str) -> Callable[[Any], Any]:
    """A fault of code generation, in one width for one target only. Its code has a key of its own."""
    real = cpu.lower_kernel

    def lower(kernel: Any) -> Any:
        made = real(kernel)

        def emit(to: Any) -> str:
            text = made.emit(to).replace(made.symbol, other.symbol)
            return text.replace(replaced, by) if to.name == target else text

        other: Any = replace(made, key=made.key + f" planted {replaced} {target}", emit=emit)
        return other

    return lower


def wide_product(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
    return (x.exp() * y).tanh() + y.sum()


def wide_arguments() -> tuple[graphc.Tensor, graphc.Tensor]:
    return graphc.randn(64), graphc.randn(64)


def test_a_fault_of_emission_in_vectors_only(monkeypatch: Patch) -> None:
    """The eager kernel has it too: it is the op's definition that tells."""
    host = targets()[0]
    width = host.vector_bits // 32
    fault = emitting(f"fmul <{width} x float>", f"fadd <{width} x float>", host.name)
    program = graphc.trace(lambda x, y: (x * y).relu() + y.amax(), *wide_arguments())
    monkeypatch.setattr(cpu, "lower_kernel", fault)
    found = bisect(program, *wide_arguments())
    assert found.stage == "eager kernels" and names(found) == ["mul"], str(found)


def test_a_fault_of_emission_for_the_other_target(monkeypatch: Patch) -> None:
    if len(targets()) < 2:
        pytest.skip("this machine runs one target")
    other = targets()[1]
    fault = emitting("fmul <8 x float>", "fadd <8 x float>", other.name)
    found = planted(
        lambda x, y: (x * y).relu() + y.amax(),
        wide_arguments(),
        lambda: monkeypatch.setattr(cpu, "lower_kernel", fault),
    )
    assert found.stage == f"emit for {other.name}" and names(found) == ["mul"], str(found)


def test_a_composition_wrong_in_eager_mode_is_bisected_itself(monkeypatch: Patch) -> None:
    """Fusion is at work in the eager kernel of a softmax as well: fusion is named, and a part of the softmax."""
    real = assemble.fuse

    def faulty(graph: Graph, strided: Any, fused: bool) -> Any:
        return real(instead("div", "mul")(graph) if fused else graph, strided, fused)

    found = planted(
        lambda x: x.sin().softmax(-1) * 2.0,
        (graphc.randn(3, 5),),
        lambda: monkeypatch.setattr(assemble, "fuse", faulty),
    )
    assert found.stage == "fuse" and names(found) == ["div"], str(found)


def test_a_stage_that_raises(monkeypatch: Patch) -> None:
    real = simplify.run

    def faulty(graph: Graph) -> Graph:
        if any(node.op.name == "abs" for node in graph.nodes):
            raise ZeroDivisionError("planted")
        return real(graph)

    found = planted(long_function, arguments(), lambda: monkeypatch.setattr(simplify, "run", faulty))
    assert found.stage == "simplify" and found.stages[-1][1] == "raises"
    assert names(found) == ["abs"] and "ZeroDivisionError: planted" in str(found)


def test_an_input_that_is_written(monkeypatch: Patch) -> None:
    """All outputs are right, and an argument is not what it was."""
    real = assemble.write_program
    from graphc.fuzz import bisect_stages

    found = planted(lambda x: x * 2, (graphc.randn(4),), lambda: None)
    assert not found.differs
    original = bisect_stages._whole

    def faulty(graph: Graph, arrays: Any) -> Any:
        for ran in original(graph, arrays):
            ran.inputs[0][0] = 7
            yield ran

    monkeypatch.setattr(bisect_stages, "_whole", faulty)
    found = bisect(lambda x: x * 2, graphc.randn(4))
    assert found.stage == "compiled" and found.wrong is not None and "only read" in found.wrong.result
    assert real is assemble.write_program


# ---------------------------------------------------------------- what it tells


def test_the_report_has_lines_bits_and_values(monkeypatch: Patch) -> None:
    real = simplify.run
    found = planted(
        long_function, arguments(),
        lambda: monkeypatch.setattr(simplify, "run", lambda g: instead("minimum", "maximum")(real(g))),
    )  # fmt: skip
    text = str(found)
    assert "long_function: simplify changes the result: output out0[" in text
    assert "smallest part: 1 node\n" in text
    assert "clamp(" in text and "@ test_bisect.py:" in text
    assert "(0x" in text and "expected" in text and "found" in text
    assert found.outputs == [o.name for o in found.graph.outputs] if found.graph else False


def test_a_saved_part_shows_it_again(monkeypatch: Patch, tmp_path: Path) -> None:
    real = simplify.run
    path = tmp_path / "small.gcz"
    found = planted(
        long_function, arguments(),
        lambda: monkeypatch.setattr(simplify, "run", lambda g: instead("minimum", "maximum")(real(g))),
    )  # fmt: skip
    found.save(path)
    again = bisect(path)
    assert (again.stage, names(again)) == ("simplify", ["clamp"])
    monkeypatch.setattr(simplify, "run", real)
    assert not bisect(path).differs
    graphc.load(path)()


def test_a_saved_part_keeps_its_state(monkeypatch: Patch, tmp_path: Path) -> None:
    path = tmp_path / "small.gcz"
    found = planted(
        update, (graphc.randn(100),), lambda: monkeypatch.setattr(outputs, "_reads_in_place", lambda *_: True)
    )
    found.save(path)
    assert bisect(path).stage == "outputs"


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(ArgumentError, match="expected a function, a program or a path, got int"):
        bisect(3)  # type: ignore[arg-type]
    program = graphc.trace(lambda x: x * 2, graphc.randn(3, 2), dynamic={"x": {0: "N"}})
    with pytest.raises(ArgumentError, match="has named sizes; give arguments"):
        bisect(program)
    assert not bisect(program, graphc.randn(5, 2)).differs
    with pytest.raises(ArgumentError):
        bisect(program, graphc.randn(5, 3))


def test_random_inputs_hold_special_values() -> None:
    found = with_special(np.zeros(1000, np.float32), np.random.default_rng(0))
    assert np.isnan(found).any() and np.isinf(found).any() and np.signbit(found[found == 0]).any()
    whole = np.arange(5)
    assert with_special(whole, np.random.default_rng(0)) is whole


# ---------------------------------------------------------------- every value


def test_values_are_compared_one_by_one(monkeypatch: Patch) -> None:
    """The first value that differs, and those that it spoils."""
    program, real = graphc.trace(long_function, *arguments()), simplify.run
    assert compare_values(program, *arguments()) == []
    monkeypatch.setattr(simplify, "run", lambda graph: instead("minimum", "maximum")(real(graph)))
    found = compare_values(program, *arguments())
    order = [node.op.name for node, _ in found]
    assert order[:2] == ["clamp", "abs"] and order[-1] == "sub"
    assert str(found[0][1]).startswith("the result of clamp[") and str(found[0][0].loc).startswith("test_bisect.py:")


def test_values_of_a_training_step_and_of_nothing() -> None:
    graphc.manual_seed(1)
    layer = nn.Linear(4, 3)
    opt = optim.AdamW(layer.parameters(), lr=0.1)

    def step(x: graphc.Tensor) -> graphc.Tensor:
        opt.zero_grad()
        loss = layer(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    before = layer.weight.detach().clone()
    assert compare_values(step, graphc.randn(2, 4), state=[layer, opt]) == []
    assert graphc.equal(before, layer.weight)
    assert compare_values(lambda x: x, graphc.randn(2)) == []


# ---------------------------------------------------------------- the search


def chain(length: int) -> tuple[Graph, list[Node]]:
    def f(x: graphc.Tensor) -> graphc.Tensor:
        for _ in range(length):
            x = x.sin()
        return x

    graph = graphc.trace(f, graphc.randn(2)).graph
    return graph, graph.nodes


@pytest.mark.parametrize("wanted", [{0}, {7}, {3, 4}, {0, 19}, {2, 9, 17}])
def test_the_smallest_set_of_nodes(wanted: set[int]) -> None:
    _, nodes = chain(20)
    asked = []

    def holds(some: list[Node]) -> bool:
        asked.append(tuple(map(nodes.index, some)))
        return wanted <= set(asked[-1])

    found = Smallest(nodes, holds, 60.0).find()
    assert {nodes.index(n) for n in found} == wanted
    assert len(asked) == len(set(asked)) < 150


def test_a_part_gives_what_the_whole_gave() -> None:
    program = graphc.trace(long_function, *arguments())
    graph, arrays = program.concrete(*arguments())
    values = run_by_op(graph, arrays)
    for k in range(len(graph.nodes)):
        part, given, expected = part_of(graph, graph.nodes[k : k + 3], values)
        found = run_by_op(part, given)
        assert [found[o.value].tobytes() for o in part.outputs] == [a.tobytes() for a in expected] != []


def test_no_time_is_left_for_making_it_small(monkeypatch: Patch) -> None:
    program = graphc.trace(long_function, *arguments())
    real = simplify.run
    monkeypatch.setattr(simplify, "run", lambda graph: instead("minimum", "maximum")(real(graph)))
    found = bisect_graph(*program.concrete(*arguments()), budget_s=0.0)
    assert found.stage == "simplify" and len(found.nodes) > 3


# ---------------------------------------------------------------- the command


def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.gcz"
    graphc.trace(long_function, *arguments()).save(path)
    return path


def command(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["bisect", *map(str, arguments)], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value, done.output


def test_the_command_on_a_right_model(tmp_path: Path) -> None:
    code, text = command(saved(tmp_path))
    assert code == 0
    assert "no stage changes a bit" in text and "eager kernels" in text and "compiled" in text


def test_the_command_on_a_wrong_one(tmp_path: Path, monkeypatch: Patch) -> None:
    path, real = saved(tmp_path), simplify.run
    monkeypatch.setattr(simplify, "run", lambda graph: instead("minimum", "maximum")(real(graph)))
    code, text = command(path, "--out", tmp_path / "small.gcz", "--seed", "3")
    assert code == 1
    assert "simplify changes the result" in text and "clamp(" in text and "small.gcz" in text
    assert command(tmp_path / "small.gcz")[0] == 1
    code, text = command(path, "--json")
    found = json.loads(text)
    assert code == 1 and found["stage"] == "simplify" and found["nodes"] == 1
    assert found["first"]["expected_bits"] != found["first"]["found_bits"]


def test_the_command_reads_arrays(tmp_path: Path) -> None:
    x, y = arguments()
    np.save(tmp_path / "x.npy", x.numpy())
    np.savez(tmp_path / "both.npz", x=x.numpy(), y=y.numpy())
    path = saved(tmp_path)
    code, text = command(path, "--input", f"x={tmp_path / 'x.npy'}", "--threads", "1")
    assert code == 0 and "threads" not in text
    with pytest.raises(click.UsageError, match="No such file"):
        command(path, "--input", "x=nowhere.npy")
    (tmp_path / "bad.npy").write_bytes(b"no array")
    with pytest.raises(click.UsageError, match=r"not a readable \.npy file"):
        command(path, "--input", f"x={tmp_path / 'bad.npy'}")
    with pytest.raises(click.UsageError, match=r"not a \.npy file"):
        np.savez(tmp_path / "other.npz", x=x.numpy())
        (tmp_path / "other.npz").rename(tmp_path / "other.npy")
        command(path, "--input", f"x={tmp_path / 'other.npy'}")
    assert command(path, "--inputs", tmp_path / "both.npz")[0] == 0
