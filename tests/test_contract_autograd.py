"""RECORDER.md, "Autograd": every row, compiled, in a file, in threads and after exceptions."""

from __future__ import annotations

from typing import Any

import pytest

import graphc
from graphc import nn, optim
from graphc.errors import AutogradError
from tests.contract_runs import Case, Raising, contract, raising, run, run_raising
from tests.recorder_checks import bits


def x43() -> Any:
    return graphc.arange(12.0).reshape(4, 3) * 0.1 - 0.5


def contributions_in_order() -> Any:
    w = x43().requires_grad_()

    def f(x: Any) -> Any:
        y = w * x + w.exp() * w
        return graphc.autograd.grad(y.sum(), w)[0]

    return f, (x43(),)


def rules_of_the_level_called() -> Any:
    w = x43().requires_grad_()
    return lambda x: graphc.autograd.grad((graphc.softmax(w * x, 1) * x).sum(), w)[0], (x43(),)


def second_order() -> Any:
    w = x43().requires_grad_()

    def f(x: Any) -> Any:
        (g,) = graphc.autograd.grad((w**3 * x).sum(), w, create_graph=True)
        return graphc.autograd.grad(g.sum(), w)[0]

    return f, (x43(),)


def gradients_gathered() -> Any:
    w = x43().requires_grad_()

    def f(x: Any) -> Any:
        (w * x).sum().backward()
        return w.grad * 2

    return f, (x43(),), lambda: w.grad


def optimiser_state() -> Any:
    w = x43().requires_grad_()
    o = optim.Adam([w], lr=0.1)

    def f(x: Any) -> Any:
        o.zero_grad()
        loss = (w * x).square().sum()
        loss.backward()
        o.step()
        return loss

    return f, (x43(),), lambda: w


def batch_norm_without_momentum() -> Any:
    m = nn.BatchNorm1d(3, momentum=None)
    return lambda x: m(x), (x43(),), lambda: list(m.buffers())


def first_contribution_as_is() -> Any:
    """-0.0 stays -0.0, as 0 + -0.0 would not."""
    w = x43().requires_grad_()

    def f(x: Any) -> Any:
        w.grad = None
        (w * (x * -0.0)).sum().backward()
        return x + 1

    return f, (graphc.ones(4, 3),), lambda: w.grad


def second_contribution_is_added() -> Any:
    w = x43().requires_grad_()

    def f(x: Any) -> Any:
        (w * (x * -0.0)).sum().backward()
        return x + 1

    return f, (graphc.ones(4, 3),), lambda: w.grad


def gradient_is_its_own_memory() -> Any:
    w, v = x43().requires_grad_(), x43().requires_grad_()

    def f(x: Any) -> Any:
        w.grad = v.grad = None
        g = x * 2
        (w + v).backward(g)
        g.add_(1)
        w.grad.mul_(3)
        return g

    return f, (x43(),), lambda: [w.grad, v.grad]


def only_wanted_gradients() -> Any:
    w, v, frozen = x43().requires_grad_(), x43().requires_grad_(), x43()

    def f(x: Any) -> Any:
        y = (w * x) @ (v * frozen).T
        return graphc.autograd.grad(y.square().sum(), v)[0]

    return f, (x43(),), lambda: [w.grad, v.grad]


def saved_output_is_an_array() -> Any:
    w = x43().requires_grad_()

    def f(x: Any) -> Any:
        y = (w * x).exp()
        loss = (y.tanh() * y.sigmoid()).sum()
        return graphc.autograd.grad(loss, w)[0], y.detach()

    return f, (x43(),)


def gradient_buffers_kept_by_python() -> Any:
    w = x43().requires_grad_()
    kept: list[Any] = []

    def f(x: Any) -> Any:
        w.grad = None
        (w * w * x).sum().backward()
        return x + 1

    def seen() -> Any:
        kept.append(w.grad)
        with graphc.no_grad():
            w.add_(0.25)
        return list(kept)

    return f, (x43(),), seen


def view_of_a_gradient_kept() -> Any:
    w = x43().requires_grad_()
    kept: list[Any] = []

    def f(x: Any) -> Any:
        if w.grad is not None:  # here
            w.grad.zero_()
        (w * w * x).sum().backward()
        return x + 1

    def seen() -> Any:
        kept[:] = [] if w.grad is None else [w.grad[0], w.grad.numpy()[1]]
        return [bits(k) for k in kept]

    return f, (x43(),), seen


def first_momentum() -> Any:
    w = x43().requires_grad_()
    o = optim.SGD([w], lr=0.1, momentum=0.9, dampening=0.5)

    def f(x: Any) -> Any:
        o.zero_grad()
        (w * x * -0.0).sum().backward()
        o.step()
        return x + 1

    return f, (x43(),), lambda: [w, [list(s.values()) for s in o.state.values()]]


def state_dict_of_an_optimiser() -> Any:
    w = x43().requires_grad_()
    o = optim.Adam([w], lr=0.1)

    def f(x: Any) -> Any:
        o.zero_grad()
        (w * x).square().sum().backward()
        o.step()
        return x + 1

    return f, (x43(),), lambda: o.state_dict()["state"]


def forward_alone() -> Any:
    w = x43().requires_grad_()

    def f(x: Any) -> Any:
        return (w * x).exp().sum(0) * w[1]

    return f, (x43(),), lambda: w.grad


def backward_outside(y: Any) -> None:
    y.sum().backward()


def other_argument_with_gradients() -> Any:
    x = x43().requires_grad_()
    return lambda y: ((x * y) ** 3).sum(), (x43(),), lambda: x.grad


def backward_with_create_graph(y: Any) -> None:
    y.backward(create_graph=True)


def modified_before_backward(y: Any) -> str:
    with graphc.no_grad():
        y.add_(1)
    with pytest.raises(AutogradError) as error:
        (y * 1.0).sum().backward()
    return str(error.value).split("(")[0]


def saved_output() -> Any:
    w = x43().requires_grad_()
    return lambda x: (w * x).exp(), (x43(),)


def freed_history(y: Any) -> str:
    y.sum().backward()
    with pytest.raises(AutogradError) as error:
        y.sum().backward()
    return str(error.value)


def retained_history(y: Any) -> None:
    y.sum().backward(retain_graph=True)
    (y * 2).sum().backward()


CASES = [
    Case("contributions add in order", contributions_in_order),
    Case("the first contribution is taken as is", first_contribution_as_is),
    Case("the second contribution is added", second_contribution_is_added),
    Case("a gradient shares storage with nothing", gradient_is_its_own_memory),
    Case("the rule of the level called", rules_of_the_level_called),
    Case("only wanted gradients", only_wanted_gradients),
    Case("a saved output is kept as array", saved_output_is_an_array),
    Case("second order", second_order),
    Case("gradients are gathered", gradients_gathered),
    Case("gradient buffers kept by Python", gradient_buffers_kept_by_python),
    Case("a view of a gradient kept by Python", view_of_a_gradient_kept, file="refused"),
    Case("the state of an optimiser", optimiser_state),
    Case("state_dict() of an optimiser", state_dict_of_an_optimiser),
    Case("the first momentum of SGD", first_momentum),
    Case("BatchNorm with momentum=None", batch_norm_without_momentum),
    Case("backward() outside", forward_alone, use=backward_outside),
    Case("backward() outside: a saved output modified", saved_output, use=modified_before_backward),
    Case("backward() outside: history freed", forward_alone, use=freed_history),
    Case("backward() outside: history retained", forward_alone, use=retained_history),
    Case("create_graph through a compiled call", other_argument_with_gradients, use=backward_with_create_graph),
]


@contract(CASES)
def test_row(case: Case, setting: str) -> None:
    run(case, setting)


def _on(f: Any) -> Any:
    return lambda: (f, (x43().requires_grad_(),), None)


def saved_output_modified(x: Any) -> Any:
    y = x.exp()
    y.add_(1)
    return graphc.autograd.grad(y.sum(), x)[0]


def saved_input_modified(x: Any) -> Any:
    z = x * 2
    y = z * z
    z.zero_()
    return graphc.autograd.grad(y.sum(), x)[0]


def backward_twice(x: Any) -> Any:
    y = (x * x).sum()
    graphc.autograd.grad(y, x)
    return graphc.autograd.grad(y, x)[0]


def no_history(x: Any) -> Any:
    return graphc.autograd.grad(x.detach().sum(), x)[0]


def not_a_number(x: Any) -> Any:
    return graphc.autograd.grad(x * 2, x)[0]


RAISING = [
    Raising("a saved output modified", _on(saved_output_modified), AutogradError, "modified"),
    Raising("a saved input modified", _on(saved_input_modified), AutogradError, "modified"),
    Raising("backward twice", _on(backward_twice), AutogradError),
    Raising("no history", _on(no_history), AutogradError),
    Raising("gradients of many numbers", _on(not_a_number), AutogradError),
]


@raising(RAISING)
def test_raises(case: Raising, setting: str) -> None:
    run_raising(case, setting)


def _trainer() -> Any:
    graphc.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    o = optim.Adam(model.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        o.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        o.step()
        return loss.detach()

    return model, o, step


def test_nodes_carry_their_phase_and_module() -> None:
    _, _, step = _trainer()
    compiled = graphc.compile(step, fullgraph=True)
    for _ in range(3):
        compiled(x43())
    nodes = compiled.graph.nodes
    phases = [n.phase for n in nodes if n.op.name != "constant"]
    assert phases == sorted(phases, key=["forward", "backward", "update"].index)
    assert {n.phase for n in nodes} == {"forward", "backward", "update"}
    modules = [n.module for n in nodes if n.phase == "forward" and n.module]
    assert list(dict.fromkeys(modules)) == ["0", "1", "2"]


def test_an_optimiser_makes_its_state_before_the_recording_sees_it() -> None:
    _, o, step = _trainer()
    compiled = graphc.compile(step, fullgraph=True)
    assert o.state_dict()["state"] == {}
    for _ in range(5):
        compiled(x43())
    assert compiled.stats.compilations == 1 and compiled.stats.recordings == 2 and compiled.stats.hits == 3
    assert all(s["step"].shape == () and s["step"].item() == 5 for s in o.state_dict()["state"].values())


def test_saved_values_are_a_minimal_cut() -> None:
    w = x43().requires_grad_()
    compiled = graphc.compile(lambda x: ((w * x).exp() * 2 + 1).relu().mul(3).square().sum(), fullgraph=True)
    for _ in range(4):
        w.grad = None
        compiled(x43()).backward()
    (trace,) = compiled.traces
    assert trace.backward is not None and trace.saved is not None
    assert len(trace.saved) > 2, "what the rules read"
    kept = [v for v in trace.backward.kept if v.node is not None]
    assert [v.node.op.name for v in kept] == ["exp"], "from which the rest follows by cheap arithmetic"


def test_a_compiled_model_keeps_its_interface() -> None:
    model, _, _ = _trainer()
    model.extra = "kept"
    compiled = graphc.compile(model)
    for training in (True, False, True):
        compiled.train(training)
        assert bits(compiled(x43())) == bits(model(x43()))
        assert compiled.training is model.training is model[0].training is training
    assert list(compiled.state_dict()) == list(model.state_dict()) and compiled.extra == "kept"
    assert [id(p) for p in compiled.parameters()] == [id(p) for p in model.parameters()]
