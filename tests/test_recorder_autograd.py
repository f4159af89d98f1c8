"""The recorder: gradients, optimisers, and compiled forwards under an outer backward."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest

import graphc
from graphc import nn, optim
from graphc.errors import RecordingError
from graphc.testing import assert_same
from tests.recorder_checks import bits, marked_lines, refused

quiet = pytest.mark.filterwarnings("ignore::graphc.frontend.record.compiled.RecordingWarning")


def x34() -> Any:
    return graphc.arange(12.0).reshape(3, 4) / 4 - 1.5


def net() -> Any:
    graphc.manual_seed(7)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


RULES: dict[str, Any] = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
    "AdamW": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("rule", sorted(RULES))
def test_training_step(rule: str) -> None:
    model = net()
    opt = RULES[rule](model.parameters())

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        opt.step()
        return loss.detach()

    compiled = assert_same(step, x34(), calls=6)
    assert compiled.stats.recordings == 2


def test_training_matches_a_copy_over_many_steps() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.2), nn.Linear(5, 2))
    other = copy.deepcopy(model)
    opts = [optim.Adam(m.parameters(), lr=0.01) for m in (model, other)]

    def step(model: Any, opt: Any, x: Any) -> Any:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), graphc.tensor([0, 1, 1]))
        loss.backward()
        opt.step()
        return loss

    compiled = graphc.compile(lambda x: step(model, opts[0], x), fullgraph=True)
    for k in range(20):
        x = x34() * (k + 1)
        graphc.manual_seed(k)
        a = compiled(x)
        graphc.manual_seed(k)
        assert bits(a) == bits(step(other, opts[1], x))
        assert bits(model.state_dict()) == bits(other.state_dict())
        assert bits([p.grad for p in model.parameters()]) == bits([p.grad for p in other.parameters()])
    assert bits(opts[0].state_dict()["state"]) == bits(opts[1].state_dict()["state"])
    assert compiled.stats.hits == 18


def test_state_dict_is_empty_before_the_first_step() -> None:
    model = net()
    opt = optim.Adam(model.parameters(), lr=0.01)

    @graphc.compile
    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = model(x).sum()
        loss.backward()
        opt.step()
        return loss

    assert opt.state_dict()["state"] == {}
    step(x34())
    assert len(opt.state_dict()["state"]) == 4


def test_gradients_kept_across_steps_stay() -> None:
    w = x34().requires_grad_()

    def step(x: Any) -> Any:
        w.grad = None
        loss = (w * x).sum()
        loss.backward()
        return loss

    compiled = graphc.compile(step, fullgraph=True)
    kept = []
    for k in range(6):
        compiled(graphc.full((3, 4), float(k)))
        kept.append(w.grad)
    assert [g[0, 0].item() for g in kept] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert len({id(g) for g in kept}) == 6 and len({id(g._s) for g in kept}) == 6


def test_gradient_accumulation_is_two_traces() -> None:
    def build() -> Any:
        model = net()
        return model, optim.SGD(model.parameters(), lr=0.1)

    def run(compile: bool) -> Any:
        model, opt = build()

        def accumulate(x: Any) -> Any:
            loss = model(x).square().mean()
            loss.backward()
            return loss

        fn = graphc.compile(accumulate, fullgraph=True) if compile else accumulate
        seen = []
        for k in range(16):
            seen.append(bits(fn(x34() * (k + 1))))
            seen.append(bits([p.grad for p in model.parameters()]))
            if k % 4 == 3:
                opt.step()
                opt.zero_grad()
        if compile:
            assert fn.stats.compilations == 2 and fn.stats.hits == 12
        return seen

    assert run(True) == run(False)


def test_accumulation_with_zeroed_gradients() -> None:
    model = net()
    opt = optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        opt.zero_grad(set_to_none=False)
        loss = model(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    model(x34()).sum().backward()
    assert_same(step, x34())


def test_negative_zero_gradients() -> None:
    w = graphc.tensor([1.0, -1.0], requires_grad=True)

    def f(x: Any) -> Any:
        w.grad = None
        (w * x).sum().backward()
        return w.grad.clone()

    assert_same(f, graphc.tensor([-0.0, 0.0]))
    v = graphc.tensor([1.0, -1.0], requires_grad=True)

    def g(x: Any) -> Any:
        y = v * 1
        return graphc.autograd.grad((y * x + y * x).sum(), v)

    assert_same(g, graphc.tensor([-0.0, 0.0]))


def test_grad_of_inputs_and_second_order() -> None:
    def f(x: Any) -> Any:
        x = x.detach().clone().requires_grad_()
        (g,) = graphc.autograd.grad((x**3).sum(), x, create_graph=True)
        (h,) = graphc.autograd.grad(g.sum(), x)
        return g.detach(), h

    assert_same(f, x34())


def test_backward_into_an_argument() -> None:
    x, x2 = x34().requires_grad_(), x34().requires_grad_()

    def f(x: Any) -> Any:
        x.grad = None
        loss = (x * x).sum()
        loss.backward()
        return loss

    compiled = graphc.compile(f, fullgraph=True)
    for _ in range(5):
        assert bits(compiled(x)) == bits(f(x2))
        assert bits(x.grad) == bits(x2.grad)


@quiet
def test_backward_through_the_caller_s_graph() -> None:
    def run(compile: bool) -> Any:
        w = x34().requires_grad_()

        def f(y: Any) -> Any:
            loss = (y * y).sum()
            loss.backward()
            return loss

        fn = graphc.compile(f) if compile else f
        seen = []
        for _ in range(5):
            w.grad = None
            seen.append((bits(fn(w * 2)), bits(w.grad)))
        return seen

    assert run(True) == run(False)


def test_two_losses_and_retained_graph() -> None:
    model = net()

    def f(x: Any) -> Any:
        model.zero_grad()
        y = model(x)
        y.sum().backward(retain_graph=True)
        y.square().sum().backward()
        return y.detach()

    assert_same(f, x34())


def test_outer_backward_of_a_compiled_forward() -> None:
    model, other = net(), net()
    compiled = graphc.compile(model, fullgraph=True)
    for k in range(6):
        x = x34() * (k + 1)
        for m in (model, other):
            m.zero_grad()
        compiled(x).square().sum().backward()
        other(x).square().sum().backward()
        assert bits([p.grad for p in model.parameters()]) == bits([p.grad for p in other.parameters()])
    assert compiled.stats.hits == 4


def test_outer_backward_twice_and_of_both_outputs() -> None:
    w, w2 = x34().requires_grad_(), x34().requires_grad_()

    def f(w: Any) -> Any:
        y = w * w
        return y.sum(), (y * y), y[0]

    compiled = graphc.compile(f, fullgraph=True)
    for _ in range(5):
        for weight, fn in ((w, compiled), (w2, f)):
            weight.grad = None
            a, b, c = fn(weight)
            (a + b.sum() * 2 + c.sum()).backward(retain_graph=True)
            a.backward()
        assert bits(w.grad) == bits(w2.grad)


def test_create_graph_through_a_compiled_forward() -> None:
    compiled = graphc.compile(lambda x: (x**3).sum(), fullgraph=True)
    x = x34().requires_grad_()
    for _ in range(4):
        (g,) = graphc.autograd.grad(compiled(x), x, create_graph=True)
        (h,) = graphc.autograd.grad(g.sum(), x)
        assert bits(h) == bits(
            graphc.autograd.grad(graphc.autograd.grad((x**3).sum(), x, create_graph=True)[0].sum(), x)[0]
        )


def test_outer_backward_after_a_write_raises_as_eager() -> None:
    w = x34().requires_grad_()
    compiled = graphc.compile(lambda w, x: (w * x).sum(), fullgraph=True)
    for _ in range(5):
        x = x34()
        loss = compiled(w, x)
        x.add_(1)
        with pytest.raises(graphc.errors.AutogradError, match="modified"):
            loss.backward()


def test_compiled_forward_with_batch_norm_and_dropout_under_outer_backward() -> None:
    graphc.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 1))
    other = copy.deepcopy(model)
    compiled = graphc.compile(model, fullgraph=True)
    for k in range(6):
        for m, fn in ((model, compiled), (other, other)):
            m.zero_grad()
            graphc.manual_seed(k)
            fn(x34()).sum().backward()
        assert bits([p.grad for p in model.parameters()]) == bits([p.grad for p in other.parameters()])
        assert bits(model.state_dict()) == bits(other.state_dict())


def test_loss_returned_after_backward_inside_raises_as_eager() -> None:
    w = x34().requires_grad_()

    def f() -> Any:
        w.grad = None
        loss = (w * w).sum()
        loss.backward()
        return loss

    compiled = graphc.compile(f, fullgraph=True)
    for _ in range(4):
        loss = compiled()
        assert loss.requires_grad
        with pytest.raises(graphc.errors.AutogradError):
            loss.backward()


def test_frozen_parameters() -> None:
    model = net()
    model[0].requires_grad_(False)

    def f(x: Any) -> Any:
        model.zero_grad()
        loss = model(x).sum()
        loss.backward()
        return loss.detach()

    assert_same(f, x34())
    assert model[0].weight.grad is None


def test_in_place_under_grad() -> None:
    w = x34().requires_grad_()

    def f(x: Any) -> Any:
        w.grad = None
        y = w * x
        y[0].mul_(2)
        y.add_(1)
        y.square().sum().backward()
        return w.grad.clone()

    assert_same(f, x34())


def test_hooks_inside() -> None:
    w = x34().requires_grad_()

    def f(x: Any) -> Any:
        w.grad = None
        y = w * x
        y.register_hook(lambda g: g * 2)
        y.retain_grad()
        y.sum().backward()
        return y.grad

    assert_same(f, x34())


def test_tensor_hook_registered_after_compiling() -> None:
    w = x34().requires_grad_()

    def f(x: Any) -> Any:
        w.grad = None
        (w * x).sum().backward()
        return w.grad.clone()

    compiled = graphc.compile(f)
    handle = None
    for k in range(12):
        if k == 4:
            handle = w.register_hook(lambda g: g * 3)
        if k == 8 and handle is not None:
            handle.remove()
        expected = x34() * (3 if 4 <= k < 8 else 1)
        assert bits(compiled(x34())) == bits(expected)


def test_module_hooks_with_gradients() -> None:
    model = net()
    model[0].register_full_backward_hook(lambda m, gi, go: None)
    model[1].register_forward_hook(lambda m, a, out: out * 2)

    def f(x: Any) -> Any:
        model.zero_grad()
        loss = model(x).sum()
        loss.backward()
        return loss.detach()

    assert_same(f, x34())


def test_clip_grad_norm_inside() -> None:
    model = net()
    opt = optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        opt.step()
        return loss.detach(), norm

    assert_same(step, x34())


def test_gradient_read_first_sets_a_guard() -> None:
    w = graphc.ones(3, requires_grad=True)

    def f(x: Any) -> Any:
        had = w.grad is not None
        (w * x).sum().backward()
        return w.grad * (2 if had else 1)

    other = graphc.ones(3, requires_grad=True)

    def g(x: Any) -> Any:
        had = other.grad is not None
        (other * x).sum().backward()
        return other.grad * (2 if had else 1)

    compiled = graphc.compile(f, fullgraph=True)
    for k in range(12):
        if k % 3 == 0:
            w.grad = other.grad = None
        assert bits(compiled(graphc.ones(3) * k)) == bits(g(graphc.ones(3) * k))


def test_a_gradient_given_from_outside() -> None:
    w, w2 = graphc.ones(3, requires_grad=True), graphc.ones(3, requires_grad=True)

    def step(w: Any, x: Any) -> Any:
        (w * x).sum().backward()
        return w.grad * 1

    compiled = graphc.compile(step, fullgraph=True)
    for k in range(8):
        if k in (0, 2, 5):
            w.grad, w2.grad = graphc.full((3,), float(k)), graphc.full((3,), float(k))
        assert bits(compiled(w, graphc.ones(3))) == bits(step(w2, graphc.ones(3)))
        assert bits(w.grad) == bits(w2.grad)


def test_backward_on_a_graph_kept_by_python_is_refused() -> None:
    def make() -> Any:
        w = graphc.ones(3, requires_grad=True)
        kept: list[Any] = []

        def f(x: Any) -> Any:
            y = w * x
            kept.append(y)  # here
            return y * 2

        return f, (graphc.ones(3),), lambda: len(kept)

    refused(make)


def test_set_grad_enabled_and_decorator() -> None:
    w = x34().requires_grad_()

    @graphc.no_grad()
    def inner(x: Any) -> Any:
        return w * x

    def f(x: Any) -> Any:
        a = inner(x)
        with graphc.enable_grad():
            b = w * x
        with graphc.set_grad_enabled(False):
            c = w * x
        return a, b, c

    assert_same(f, x34())
    with graphc.no_grad():
        assert_same(f, x34())


def test_optimizer_made_after_compiling() -> None:
    model, other = net(), net()

    def step(model: Any, opt: Any, x: Any) -> Any:
        opt.zero_grad()
        loss = model(x).sum()
        loss.backward()
        opt.step()
        return loss

    compiled = graphc.compile(step, fullgraph=True)
    for _ in range(3):
        opt, opt2 = optim.SGD(model.parameters(), lr=0.1), optim.SGD(other.parameters(), lr=0.1)
        for _ in range(4):
            assert bits(compiled(model, opt, x34())) == bits(step(other, opt2, x34()))
        assert bits(model.state_dict()) == bits(other.state_dict())


def test_optimizer_state_loaded_between_calls() -> None:
    model, other = net(), net()
    opt, opt2 = optim.SGD(model.parameters(), lr=0.1, momentum=0.9), optim.SGD(other.parameters(), lr=0.1, momentum=0.9)

    def step(model: Any, opt: Any, x: Any) -> Any:
        opt.zero_grad()
        loss = model(x).sum()
        loss.backward()
        opt.step()
        return loss

    compiled = graphc.compile(lambda x: step(model, opt, x), fullgraph=True)
    for k in range(9):
        if k == 4:
            saved, saved2 = copy.deepcopy(opt.state_dict()), copy.deepcopy(opt2.state_dict())
        if k == 6:
            opt.load_state_dict(saved)
            opt2.load_state_dict(saved2)
        assert bits(compiled(x34())) == bits(step(other, opt2, x34()))
        assert bits(model.state_dict()) == bits(other.state_dict())


def test_weights_changed_through_numpy_after_compiling() -> None:
    model, other = net(), net()
    alias, alias2 = model[0].weight.detach().numpy(), other[0].weight.detach().numpy()
    compiled = graphc.compile(model, fullgraph=True)
    for k in range(6):
        alias[0, 0] = alias2[0, 0] = k * 0.25
        assert bits(compiled(x34())) == bits(other(x34()))
    assert compiled.stats.hits == 4


def test_weights_loaded_between_calls() -> None:
    model, other = net(), net()
    compiled = graphc.compile(model, fullgraph=True)
    for k in range(6):
        state = {key: t * 0.5 + k for key, t in other.state_dict().items()}
        model.load_state_dict(state)
        other.load_state_dict(state)
        assert bits(compiled(x34())) == bits(other(x34()))
    assert compiled.stats.hits == 4


def test_gradient_penalty_with_a_leaf_made_inside() -> None:
    """What is returned has a used-up history that leads to a leaf of this call: nobody else holds that leaf."""
    critic = net()
    opt = optim.Adam(critic.parameters(), lr=0.01)

    def step(real: Any, fake: Any, mix: Any) -> Any:
        opt.zero_grad()
        between = (mix * real + (1 - mix) * fake).requires_grad_(True)
        scores = critic(between)
        (slope,) = graphc.autograd.grad(scores, between, graphc.ones_like(scores), create_graph=True)
        penalty = (slope.norm(2, dim=1) - 1).square().mean()
        loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
        loss.backward()
        opt.step()
        return loss, penalty

    compiled = assert_same(step, x34(), x34() * 0.5 + 1, graphc.tensor([[0.2], [0.5], [0.9]]), calls=5)
    assert compiled.stats.recordings == 2


def test_a_leaf_made_inside_and_kept_is_refused() -> None:
    def make() -> Any:
        keep = functools.lru_cache(lambda leaf: None)

        def f(x: Any) -> Any:
            inner = (x * 1).requires_grad_(True)
            loss = (inner * inner).sum()
            loss.backward()
            keep(inner)  # here: nobody can see into the cache
            return loss

        return f, (x34(),)

    refused(make)


def test_gradients_are_gathered_by_one_step_and_used_up_by_another() -> None:
    """`.grad` from before the call is read, then set to None: the path to it is that of the start of the call."""

    def run(compile: Any) -> list[Any]:
        model = net()
        opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)

        def gather(x: Any) -> Any:
            loss = model(x).square().mean() / 2
            loss.backward()
            return loss.detach()

        def update() -> Any:
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            opt.step()
            opt.zero_grad()
            return norm

        gather, update = compile(gather), compile(update)
        seen = [bits((gather(x34()), gather(x34() + 1), update())) for _ in range(5)]
        assert all(p.grad is None for p in model.parameters())
        assert not hasattr(update, "stats") or update.stats.hits >= 2
        return [*seen, *(bits(p) for p in model.parameters())]

    assert run(lambda f: f) == run(graphc.compile(fullgraph=True))


def test_trace_puts_back_a_gradient_that_the_function_drops() -> None:
    w = graphc.ones(2, requires_grad=True)
    w.grad = grad = graphc.tensor([2.0, 3.0])

    def f(x: Any) -> Any:
        y = w.grad * x  # here
        w.grad = None
        return y

    with pytest.raises(RecordingError, match=rf"{marked_lines(f)[0]}, and None after the call"):
        graphc.trace(f, graphc.tensor([1.0, 2.0]))
    assert w.grad is grad
