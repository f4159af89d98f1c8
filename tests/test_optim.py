"""Optimisers and schedules: hand-made formulas, groups, state, resumption, compiled steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.errors import ArgumentError, StateError, UnsupportedError
from graphc.optim.lr_scheduler import (
    CosineAnnealingLR,
    CyclicLR,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from graphc.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

ALL: list[Callable[[Any], Any]] = [
    lambda p: optim.SGD(p, lr=0.1),
    lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.01),
    lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    lambda p: optim.Adam(p, lr=0.05, amsgrad=True, weight_decay=0.1),
    lambda p: optim.AdamW(p, lr=0.05),
    lambda p: optim.RMSprop(p, momentum=0.5, centered=True),
    lambda p: optim.Adagrad(p, lr_decay=0.1),
    lambda p: optim.Adadelta(p),
    lambda p: optim.NAdam(p, lr=0.02, decoupled_weight_decay=True, weight_decay=0.1),
    lambda p: optim.RAdam(p, lr=0.05),
    lambda p: optim.Adamax(p, lr=0.05),
    lambda p: optim.ASGD(p, lr=0.1, lambd=0.01, t0=2.0),
    lambda p: optim.Rprop(p, lr=0.01),
]


def problem(seed: int = 0) -> tuple[nn.Module, Callable[[nn.Module], graphc.Tensor]]:
    """A small model, and a loss of such a model on fixed data."""
    graphc.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    rng = np.random.default_rng(0)
    x, y = (graphc.tensor(rng.standard_normal((6, n)), dtype=graphc.float32) for n in (3, 2))
    return model, lambda m: nn.functional.mse_loss(m(x), y)


def advance(optimizer: Any, model: nn.Module, loss: Callable[[nn.Module], graphc.Tensor], steps: int) -> float:
    """Take steps; gives the last loss."""
    value = 0.0
    for _ in range(steps):
        optimizer.zero_grad()
        found = loss(model)
        found.backward()
        optimizer.step()
        value = found.item()
    return value


def bits(model: nn.Module) -> list[bytes]:
    """The bytes of every parameter."""
    return [p.detach().numpy().tobytes() for p in model.parameters()]


def test_sgd_by_hand() -> None:
    p = graphc.tensor([1.0], dtype=graphc.float64, requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1, momentum=0.5, dampening=0.25, weight_decay=0.1)
    value, buffer = 1.0, None
    for g in (2.0, -1.0, 3.0):
        p.grad = graphc.tensor([g], dtype=graphc.float64)
        optimizer.step()
        d = g + 0.1 * value
        buffer = d if buffer is None else 0.5 * buffer + 0.75 * d
        value -= 0.1 * buffer
        np.testing.assert_allclose(p.item(), value, rtol=1e-14)


def test_adam_by_hand() -> None:
    p = graphc.tensor([1.0], dtype=graphc.float64, requires_grad=True)
    optimizer = optim.Adam([p], lr=0.1, betas=(0.8, 0.9), eps=1e-3)
    value, m, v = 1.0, 0.0, 0.0
    for t, g in enumerate((2.0, -1.0, 3.0), 1):
        p.grad = graphc.tensor([g], dtype=graphc.float64)
        optimizer.step()
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        value -= 0.1 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3)
        np.testing.assert_allclose(p.item(), value, rtol=1e-13)


@pytest.mark.parametrize("make", ALL)
def test_the_loss_falls(make: Callable[[Any], Any]) -> None:
    model, loss = problem()
    start = loss(model).item()
    assert advance(make(model.parameters()), model, loss, 15) < start


@pytest.mark.parametrize("make", ALL)
def test_resumed_run_gives_the_same_bits(make: Callable[[Any], Any]) -> None:
    model, loss = problem()
    optimizer = make(model.parameters())
    advance(optimizer, model, loss, 3)
    other, _ = problem(1)
    other.load_state_dict(model.state_dict())
    resumed = make(other.parameters())
    resumed.load_state_dict(optimizer.state_dict())
    advance(optimizer, model, loss, 3)
    advance(resumed, other, loss, 3)
    assert bits(other) == bits(model)


@pytest.mark.parametrize("make", ALL)
def test_compiled_steps_give_the_same_bits(make: Callable[[Any], Any]) -> None:
    def run(compiled: bool) -> list[bytes]:
        model, loss = problem()
        optimizer = make(model.parameters())
        schedule = StepLR(optimizer, 2, 0.5)

        def step() -> graphc.Tensor:
            optimizer.zero_grad()
            value = loss(model)
            value.backward()
            optimizer.step()
            return value

        call = graphc.compile(step) if compiled else step
        for _ in range(5):
            call()
            schedule.step()
        return bits(model)

    assert run(True) == run(False)


def test_groups() -> None:
    p, q = graphc.ones(1, requires_grad=True), graphc.ones(1, requires_grad=True)
    optimizer = optim.SGD([{"params": [p], "lr": 1.0}, {"params": q}], lr=0.5)
    p.grad, q.grad = graphc.ones(1), graphc.ones(1)
    optimizer.step()
    assert (p.item(), q.item()) == (0.0, 0.5)
    r = graphc.ones(1, requires_grad=True)
    optimizer.add_param_group({"params": [r], "lr": 0.25})
    optimizer.param_groups[0]["lr"] = 0.0
    r.grad = graphc.ones(1)
    optimizer.step()
    assert (p.item(), q.item(), r.item()) == (0.0, 0.0, 0.75)
    optimizer.zero_grad()
    assert p.grad is None
    q.grad = graphc.ones(1)
    optimizer.zero_grad(set_to_none=False)
    assert q.grad.item() == 0.0
    named = optim.SGD([("w", p)], lr=0.1)
    assert named.param_groups[0]["params"] == [p]


def test_closure_and_hooks() -> None:
    p, calls = graphc.ones(1, requires_grad=True), []
    optimizer = optim.SGD([p], lr=0.5)
    optimizer.register_step_pre_hook(lambda *args: calls.append("pre"))
    handle = optimizer.register_step_post_hook(lambda *args: calls.append("post"))

    def closure() -> graphc.Tensor:
        calls.append("closure")
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with graphc.no_grad():
        assert optimizer.step(closure).item() == 1.0
    assert p.item() == 0.0 and calls == ["pre", "closure", "post"]
    handle.remove()
    optimizer.step()
    assert calls[-1] == "pre"


def test_parameters_without_gradient_stay() -> None:
    p, q = graphc.ones(1, requires_grad=True), graphc.ones(1, requires_grad=True)
    optimizer = optim.Adam([p, q])
    p.grad = graphc.ones(1)
    optimizer.step()
    assert q.item() == 1.0 and p.item() < 1.0 and set(optimizer.state_dict()["state"]) == {0}


def test_state_dict_form() -> None:
    p = graphc.ones(2, requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9)
    assert optimizer.state_dict()["state"] == {}
    p.grad = graphc.ones(2)
    optimizer.step()
    state = optimizer.state_dict()
    assert state["param_groups"][0]["params"] == [0] and state["state"][0]["momentum_buffer"].tolist() == [1.0, 1.0]
    other = optim.SGD([graphc.ones(2, requires_grad=True)], lr=0.7, momentum=0.1)
    other.load_state_dict(state)
    assert other.param_groups[0]["lr"] == 0.1
    state["state"][0]["momentum_buffer"].fill_(9.0)
    assert other.state_dict()["state"][0]["momentum_buffer"].tolist() == [1.0, 1.0], "loading copies"
    with pytest.raises(ArgumentError, match="parameters"):
        optim.SGD([p, graphc.ones(1, requires_grad=True)], lr=0.1).load_state_dict(state)
    with pytest.raises(StateError, match="momentum_buffer"):
        optim.SGD([graphc.ones(3, requires_grad=True)], lr=0.1).load_state_dict(state)
    assert "Parameter Group 0" in repr(optimizer) and "momentum: 0.9" in repr(optimizer)


def test_a_tensor_as_learning_rate() -> None:
    p, lr = graphc.ones(1, requires_grad=True), graphc.tensor(0.5)
    optimizer = optim.SGD([p], lr=lr)
    p.grad = graphc.ones(1)
    optimizer.step()
    lr.fill_(0.25)
    optimizer.step()
    assert p.item() == 0.25


def test_errors() -> None:
    p = graphc.ones(1, requires_grad=True)
    cases: list[Callable[[], Any]] = [
        lambda: optim.SGD([]),
        lambda: optim.SGD(p),
        lambda: optim.SGD([p * 2]),
        lambda: optim.SGD([3]),
        lambda: optim.SGD([p, p]),
        lambda: optim.SGD([{"params": [p]}, {"params": [p]}]),
        lambda: optim.SGD([{"params": {p}}]),
        lambda: optim.SGD([p], lr=-1.0),
        lambda: optim.SGD([p], momentum=float("nan")),
        lambda: optim.SGD([p], nesterov=True),
        lambda: optim.Adam([p], betas=(1.0, 0.9)),
        lambda: optim.Adam([p], eps=-1e-8),
        lambda: optim.SGD([p]).add_param_group([p]),
        lambda: StepLR(p, 1),
        lambda: StepLR(optim.SGD([p]), 1, last_epoch=3),
        lambda: LambdaLR(optim.SGD([p]), [abs, abs]),
        lambda: ReduceLROnPlateau(optim.SGD([p]), factor=1.0),
    ]
    for call in cases:
        with pytest.raises(ArgumentError):
            call()


def test_schedules() -> None:
    def rates(make: Callable[[Any], Any], count: int = 6) -> list[float]:
        optimizer = optim.SGD([graphc.ones(1, requires_grad=True)], lr=1.0)
        schedule = make(optimizer)
        seen = []
        for _ in range(count):
            seen.append(optimizer.param_groups[0]["lr"])
            schedule.step()
        return seen

    assert rates(lambda o: StepLR(o, 2, 0.5)) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert rates(lambda o: LambdaLR(o, lambda e: 1 / (e + 1)), 3) == [1.0, 0.5, 1 / 3]
    np.testing.assert_allclose(rates(lambda o: CosineAnnealingLR(o, 4), 5), [1, 0.5 + 2**-1.5, 0.5, 0.5 - 2**-1.5, 0])


def test_schedule_state() -> None:
    optimizer = optim.SGD([graphc.ones(1, requires_grad=True)], lr=1.0)
    schedule = StepLR(optimizer, 3, 0.5)
    for _ in range(2):
        schedule.step()
    other_optimizer = optim.SGD([graphc.ones(1, requires_grad=True)], lr=1.0)
    other = StepLR(other_optimizer, 7)
    other.load_state_dict(schedule.state_dict())
    other.step()
    assert other.get_last_lr() == [0.5] and other_optimizer.param_groups[0]["lr"] == 0.5


def test_plateau() -> None:
    optimizer = optim.SGD([graphc.ones(1, requires_grad=True)], lr=1.0)
    schedule = ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=1)
    seen = []
    for value in (graphc.tensor(1.0), 2.0, 2.0, 2.0, 2.0, 2.0):
        schedule.step(value)
        seen.append(schedule.get_last_lr()[0])
    assert seen == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]


def test_loaded_state_has_the_dtype_of_the_parameters() -> None:
    p, q = (graphc.ones(2, dtype=dtype, requires_grad=True) for dtype in (graphc.float32, graphc.float64))
    first, second = optim.Adam([p]), optim.Adam([q])
    p.grad = graphc.ones(2)
    first.step()
    second.load_state_dict(first.state_dict())
    assert {key: value.dtype for key, value in second.state[q].items()} == dict.fromkeys(
        ("step", "exp_avg", "exp_avg_sq"), graphc.float64
    )
    third = optim.Adam([p])
    third.load_state_dict(second.state_dict())
    assert third.state[p]["exp_avg"].dtype is graphc.float32
    assert third.state[p]["step"].dtype is graphc.float64


def test_lbfgs_is_no_part_of_a_compiled_function() -> None:
    """It is refused with its line, and runs all the same."""
    model, loss = problem()
    optimizer = optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")

    def closure() -> graphc.Tensor:
        optimizer.zero_grad()
        found = loss(model)
        found.backward()
        return found

    def step() -> graphc.Tensor:
        optimizer.step(closure)
        return loss(model).detach()

    compiled = graphc.compile(step)
    before = loss(model).item()
    with pytest.warns(UserWarning, match="LBFGS"):
        after = compiled().item()
    assert after < before / 2
    with pytest.raises(ArgumentError, match="closure"):
        optimizer.step()
    with pytest.raises(ArgumentError, match="groups"):
        optim.LBFGS([{"params": [p]} for p in model.parameters()])


def test_a_cycle_of_rates_and_betas_records_twice() -> None:
    """The first beta that OneCycleLR moves is an input, like the rate; eager and compiled give the same bits."""

    def run(compiled: bool) -> tuple[list[bytes], int]:
        model, loss = problem()
        optimizer = optim.AdamW(model.parameters(), lr=0.01)
        schedule = OneCycleLR(optimizer, 0.05, 200)

        def step() -> graphc.Tensor:
            optimizer.zero_grad()
            found = loss(model)
            found.backward()
            optimizer.step()
            return found.detach()

        run_step = graphc.compile(step, fullgraph=True) if compiled else step
        seen = set()
        for _ in range(200):
            run_step()
            schedule.step()
            seen.add(optimizer.param_groups[0]["betas"])
        assert len(seen) > 50
        return bits(model), run_step.stats.recordings if compiled else 0

    eager, made = run(False), run(True)
    assert made == (eager[0], 2)


def test_settings_of_other_ways_to_compute() -> None:
    """foreach, fused and capturable change nothing; differentiable is refused."""
    p = graphc.ones(2, requires_grad=True)
    for name in ("SGD", "Adam", "AdamW", "Adagrad"):
        assert getattr(optim, name)([p], foreach=False, fused=True).param_groups[0]["fused"] is True
        with pytest.raises(ArgumentError, match="fused"):
            getattr(optim, name)([p], foreach=True, fused=True)
    for name in ("SGD", "Adam", "RMSprop", "Adadelta", "NAdam", "RAdam", "Adamax", "ASGD", "Rprop"):
        with pytest.raises(UnsupportedError, match=f"^{name}: differentiable"):
            getattr(optim, name)([p], differentiable=True)
    for make in (lambda: optim.Rprop([p], etas=(1.5, 2.0)), lambda: optim.LBFGS([p], line_search_fn="golden")):
        with pytest.raises(ArgumentError):
            make()


def test_state_of_compound_schedules() -> None:
    """A schedule goes on where a saved one stopped."""

    def make() -> tuple[Any, Any]:
        optimizer = optim.SGD([graphc.ones(1, requires_grad=True)], lr=0.1, momentum=0.9)
        parts = [StepLR(optimizer, 2, 0.5), CosineAnnealingLR(optimizer, 10)]
        return optimizer, SequentialLR(optimizer, parts, [3])

    first, schedule = make()
    for _ in range(4):
        schedule.step()
    second, other = make()
    other.load_state_dict(schedule.state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(4):
        schedule.step()
        other.step()
        assert first.param_groups[0]["lr"] == second.param_groups[0]["lr"]
    for refused in (
        lambda: SequentialLR(first, [], []),
        lambda: SequentialLR(second, [schedule], []),
        lambda: OneCycleLR(first, 0.1),
        lambda: OneCycleLR(first, [0.1, 0.2], 10),
        lambda: CyclicLR(optim.Adagrad([graphc.ones(1)]), 0.1, 0.2),
    ):
        with pytest.raises(ArgumentError):
            refused()


def test_averaged_models() -> None:
    """The mean of the weights after each of three steps; statistics of batch norms are computed anew."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    averaged = AveragedModel(model)
    moving = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    seen = []
    for k in range(3):
        with graphc.no_grad():
            model[0].weight.add_(float(k))
        seen.append(model[0].weight.detach().clone())
        averaged.update_parameters(model)
        moving.update_parameters(model)
    assert int(averaged.n_averaged) == 3
    graphc.testing.assert_close(averaged.module[0].weight.detach(), sum(seen[1:], seen[0]) / 3)
    graphc.testing.assert_close(moving.module[0].weight.detach(), (seen[0] + seen[1]) * 0.25 + seen[2] * 0.5)
    x = graphc.randn(8, 3)
    update_bn([x[:4], x[4:]], averaged)
    wanted = averaged.module[0](x).detach()
    graphc.testing.assert_close(averaged.module[1].running_mean, wanted.mean(0), rtol=1e-5, atol=1e-6)
    assert averaged.module[1].momentum == 0.1 and int(averaged.module[1].num_batches_tracked) == 2
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    schedule = SWALR(optimizer, 0.1, anneal_epochs=4, anneal_strategy="linear")
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(5):
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(rates, [0.5, 0.4, 0.3, 0.2, 0.1, 0.1], rtol=1e-12)
