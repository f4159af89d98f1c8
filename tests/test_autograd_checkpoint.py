"""Checkpoints and second-order training: the bits of plain training, eagerly and compiled."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.autograd import Function, grad
from graphc.errors import ArgumentError, UnsupportedError
from graphc.testing import assert_same
from graphc.utils.checkpoint import CheckpointError, checkpoint, checkpoint_sequential
from tests.recorder_checks import bits, refused


def x34() -> graphc.Tensor:
    return graphc.tensor(np.linspace(-1.3, 2.1, 12).reshape(3, 4), dtype=graphc.float32)


def net(seed: int = 0) -> nn.Sequential:
    graphc.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.4), nn.Linear(8, 4), nn.Dropout(0.2), nn.Sigmoid())


def train(run: Any, steps: int = 3) -> Any:
    """The parameters, the losses and the random state after some steps."""
    model = net()
    opt = optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    losses = []
    for _ in range(steps):
        opt.zero_grad()
        loss = run(model, x34()).square().sum()
        loss.backward()
        opt.step()
        losses.append(bits(loss.detach()))
    return [bits(p.detach()) for p in model.parameters()], losses, graphc.get_rng_state().tolist()


WAYS = {
    "whole": lambda m, x: checkpoint(m, x, use_reentrant=False),
    "halves": lambda m, x: checkpoint(m[3:], checkpoint(m[:3], x)),
    "sequential": lambda m, x: checkpoint_sequential(m, 3, x),
    "nested": lambda m, x: checkpoint(lambda t: checkpoint(m[2:], m[:2](t)) * 1, x),
    "keywords": lambda m, x: checkpoint(lambda *, t: m(t), t=x, determinism_check="none"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_bits_of_training_without(way: str) -> None:
    assert train(WAYS[way]) == train(lambda m, x: m(x))


@pytest.mark.parametrize("way", WAYS)
def test_the_bits_of_training_without_when_compiled(way: str) -> None:
    model = net()
    opt = optim.SGD(model.parameters(), lr=0.2, momentum=0.9)

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = WAYS[way](model, x).square().sum()
        loss.backward()
        opt.step()
        return loss.detach()

    compiled = graphc.compile(step, fullgraph=True)
    graphc.manual_seed(7)
    found = [bits(compiled(x34())) for _ in range(5)], graphc.get_rng_state().tolist()
    assert compiled.stats.hits == 3
    model, plain = net(), net()
    opt = optim.SGD(plain.parameters(), lr=0.2, momentum=0.9)
    graphc.manual_seed(7)
    expected = []
    for _ in range(5):
        opt.zero_grad()
        loss = plain(x34()).square().sum()
        loss.backward()
        opt.step()
        expected.append(bits(loss.detach()))
    assert found == (expected, graphc.get_rng_state().tolist())


def test_a_compiled_step_with_a_checkpoint_is_eager_s() -> None:
    model = net()
    opt = optim.SGD(model.parameters(), lr=0.2)

    def step(x: Any) -> Any:
        opt.zero_grad()
        noise = graphc.rand(3, 4)
        loss = (checkpoint(model, x + noise) + graphc.rand(3, 4)).square().sum()
        loss.backward()
        opt.step()
        return loss

    assert_same(step, x34())


def test_the_second_run_is_computed_once_when_compiled() -> None:
    def made(run: Any) -> Any:
        model = net()

        def step(x: Any) -> Any:
            model.zero_grad()
            run(model, x).square().sum().backward()
            return model[0].weight.grad

        compiled = graphc.compile(step, fullgraph=True)
        for _ in range(3):
            compiled(x34())
        return compiled

    graph = made(WAYS["whole"]).graph
    assert sum(n.op.name == "tanh" for n in graph.nodes) == 2  # recorded twice; the passes find what is common


def test_nothing_is_kept_between_the_runs() -> None:
    kept: list[Any] = []

    class Spy(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y = x * 2
            kept.append(weakref.ref(y._s))
            ctx.save_for_backward(y)
            return y + 0

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (y,) = ctx.saved_tensors
            return g * y

    def body(x: Any) -> Any:
        return Spy.apply(x).exp().sum()

    x = x34().requires_grad_()
    loss = checkpoint(body, x)
    gc.collect()
    assert kept[0]() is None
    loss.backward()
    assert len(kept) == 2
    y = x34().requires_grad_()
    body(y).backward()
    assert x.grad is not None
    assert bits(x.grad) == bits(y.grad)


def test_grad_and_second_derivatives_through_a_checkpoint() -> None:
    results = []
    for way in (checkpoint, lambda f, x: f(x)):
        x = x34().requires_grad_()
        (g,) = grad(way(lambda t: (t.exp() * t).sin(), x).sum(), x, create_graph=True)
        assert g is not None
        g.square().sum().backward()
        results.append(bits(x.grad))
        y = x34().requires_grad_()
        loss = way(lambda t: t.exp().sin(), y).sum()
        loss.backward(retain_graph=True)
        loss.backward()
        results.append(bits(y.grad))
    assert results[:2] == results[2:]


def test_in_place_operations_inside() -> None:
    def body(x: Any) -> Any:
        y = x * 1.5
        y[0] = y[1] * 3
        y.mul_(x).mul_(y)
        y.t()[2].add_(y[0, 0])
        y.exp_().sub_(1)
        return (y * y.exp()).sum()

    results = []
    for way in (checkpoint, lambda f, x: f(x)):
        x = (x34() * 0.3).requires_grad_()
        way(body, x).backward()
        results.append(bits(x.grad))
    assert results[0] == results[1]


def test_no_gradients_no_checkpoint() -> None:
    calls = []
    with graphc.no_grad():
        checkpoint(lambda t: calls.append(1) or t * 2, x34().requires_grad_())
    found = checkpoint(lambda t: calls.append(1) or t * 2, x34())
    assert not found.requires_grad
    assert len(calls) == 2


def test_a_second_run_that_differs() -> None:
    count = [0]

    def more(x: Any) -> Any:
        count[0] += 1
        return x.exp() if count[0] == 1 else x.exp() * x

    def other(x: Any) -> Any:
        count[0] += 1
        return x.exp() if count[0] == 1 else x.sin()

    def shorter(x: Any) -> Any:
        count[0] += 1
        return x[: 3 - count[0]].exp()

    cases = ((more, "computed something else"), (other, "ExpBackward0"), (shorter, "when the function"))
    for function, message in cases:
        count[0] = 0
        loss = checkpoint(function, x34().requires_grad_(), determinism_check="default").sum()
        with pytest.raises(CheckpointError, match=message):
            loss.backward()
    count[0] = 0
    checkpoint(more, x34().requires_grad_(), determinism_check="none").sum().backward()
    x = x34().requires_grad_() * 1
    loss = checkpoint(lambda t: t.exp(), x).sum()
    x.add_(1)
    with pytest.raises(CheckpointError, match="written in place"):
        loss.backward()


def test_contexts_and_random_numbers_of_the_second_run() -> None:
    seen = []

    class Noted:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> None:
            seen.append(self.name)

        def __exit__(self, *error: Any) -> None:
            seen.append(f"{self.name} ends")

    x = x34().requires_grad_()
    loss = checkpoint(lambda t: t.exp(), x, context_fn=lambda: (Noted("first"), Noted("second"))).sum()
    loss.backward()
    assert seen == ["first", "first ends", "second", "second ends"]
    graphc.manual_seed(1)
    masks = []
    for preserve in (True, False):
        values: list[Any] = []

        def body(t: Any, values: Any = values) -> Any:
            values.append(graphc.rand(2).tolist())
            return t.exp()

        loss = checkpoint(body, x34().requires_grad_(), preserve_rng_state=preserve).sum()
        before = graphc.get_rng_state().tolist()
        loss.backward()
        masks.append((values[0] == values[1], before == graphc.get_rng_state().tolist()))
    assert masks == [(True, True), (False, False)]


def test_checkpoint_arguments() -> None:
    x = x34()
    with pytest.raises(UnsupportedError, match="use_reentrant"):
        checkpoint(lambda t: t, x, use_reentrant=True)
    with pytest.raises(UnsupportedError, match="debug"):
        checkpoint(lambda t: t, x, debug=True)
    with pytest.raises(ArgumentError, match="determinism_check"):
        checkpoint(lambda t: t, x, determinism_check="some")
    with pytest.raises(ArgumentError, match="segments"):
        checkpoint_sequential(net(), 0, x)
    assert checkpoint_sequential([lambda t: t + 1, lambda t: t * 2], 5, x).shape == (3, 4)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore::graphc.RecordingWarning")
def test_backward_outside_a_compiled_model(way: str) -> None:
    whole = way in ("whole", "keywords")  # a checkpoint of what was computed inside holds on to it: refused

    def train(compiled: bool) -> Any:
        model = net()
        opt = optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
        forward = graphc.compile(lambda x: WAYS[way](model, x), fullgraph=whole) if compiled else model
        losses = []
        for _ in range(5):
            opt.zero_grad()
            loss = forward(x34() * 2).square().sum()
            loss.backward()
            opt.step()
            losses.append(bits(loss.detach()))
        assert not compiled or forward.stats.hits == 3 * whole
        return losses, [bits(p.detach()) for p in model.parameters()], graphc.get_rng_state().tolist()

    assert train(True) == train(False)


def test_state_that_the_second_run_changes_again() -> None:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU())
    opt = optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = checkpoint(model, x).sum()
        loss.backward()
        opt.step()
        return loss.detach(), model[1].num_batches_tracked.clone()

    assert step(x34())[1].item() == 2  # as in PyTorch
    assert_same(step, x34())


def test_backward_outside_of_what_changes_state_runs_eagerly() -> None:
    def make() -> Any:
        norm = nn.BatchNorm1d(4)

        def f(x: Any) -> Any:
            return checkpoint(norm, x).sum()  # here

        def step(x: Any) -> Any:
            loss = forward(x)
            loss.backward()
            return norm.num_batches_tracked.clone(), norm.running_mean.clone(), norm.weight.grad.clone()

        forward = graphc.compile(f)
        with pytest.warns(graphc.RecordingWarning, match="of what changes state"):
            found = [bits(step(x34())) for _ in range(4)]
        forward, norm = f, nn.BatchNorm1d(4)
        assert found == [bits(step(x34())) for _ in range(4)]

    make()


def test_backward_outside_after_an_input_was_written_runs_eagerly() -> None:
    def make() -> Any:
        w = x34().requires_grad_()

        def f(x: Any) -> Any:
            y = x * 1
            loss = checkpoint(lambda t: (w * t).exp(), y).sum()  # here
            y.add_(1)
            return loss

        return f, (x34(),)

    refused(make, trace=False, match="checkpoint")


def test_a_checkpoint_from_before_the_call_is_refused() -> None:
    def make() -> Any:
        x = x34().requires_grad_()
        losses = [checkpoint(net(), x).sum() for _ in range(8)]

        def f() -> Any:
            x.grad = None
            losses[0].backward(retain_graph=True)  # here
            return x.grad.clone()

        return f, ()

    refused(make)


@pytest.mark.parametrize("before", [0, 1])
def test_a_seed_set_between_the_runs(before: int) -> None:
    w = x34().requires_grad_()

    def f(x: Any) -> Any:
        w.grad = None
        noise = [graphc.rand(2) for _ in range(before)]
        loss = checkpoint(lambda t: nn.functional.dropout(t * x, 0.5), w).exp().sum()
        graphc.manual_seed(3)
        more = graphc.rand(2)
        loss.backward()
        return w.grad.clone(), noise, more, graphc.rand(2)

    assert_same(f, x34())


# ---------------------------------------------------------------- second-order training


def test_gradient_penalty_is_one_graph() -> None:
    graphc.manual_seed(0)
    critic = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
    opt = optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.9))

    def step(real: Any, fake: Any) -> Any:
        opt.zero_grad()
        mix = graphc.rand(real.shape[0], 1)
        between = (mix * real + (1 - mix) * fake).requires_grad_(True)
        score = critic(between)
        (slope,) = grad(score, between, grad_outputs=graphc.ones_like(score), create_graph=True, retain_graph=True)
        penalty = ((slope.view(real.shape[0], -1).norm(2, dim=1) - 1) ** 2).mean()
        loss = critic(fake).mean() - critic(real).mean() + 10.0 * penalty
        loss.backward()
        opt.step()
        return loss, penalty.detach()

    fake = graphc.tensor(np.cos(np.arange(12.0)).reshape(3, 4), dtype=graphc.float32)
    assert_same(step, x34(), fake)
    compiled = graphc.compile(step, fullgraph=True)
    for _ in range(5):
        compiled(x34(), fake)
    assert (compiled.stats.recordings, compiled.stats.hits) == (2, 3)


def test_inputs_that_become_leaves_inside() -> None:
    model = net().eval()

    def attack(x: Any) -> Any:
        for _ in range(2):
            x = x.detach().requires_grad_()
            (slope,) = grad(model(x).square().sum(), x)
            x = x + 0.1 * slope.sign()
        twin = x.detach()
        twin.requires_grad = True
        model(twin).sum().backward(inputs=[twin])
        return x.detach(), twin.grad

    assert_same(attack, x34())


def test_an_alias_from_before_stays_refused() -> None:
    def make() -> Any:
        w = x34()
        twin = w.detach()

        def f(x: Any) -> Any:
            twin.requires_grad_()  # here
            result = (w * x).sum()
            twin.requires_grad_(False)
            return result

        return f, (x34(),)

    refused(make, match="requires_grad_")


def test_errors_in_backward_leave_eager_s_state() -> None:
    class Fails(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 1

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        Fails.apply(x34().requires_grad_()).sum().backward()
    with pytest.raises(ValueError, match="mine"):
        graphc.compile(lambda x: Fails.apply(x).sum().backward())(x34().requires_grad_())
