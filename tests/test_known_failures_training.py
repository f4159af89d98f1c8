"""Known failures of other compilers, one test each: gradients, optimisers and what is kept between steps."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.testing import assert_same
from tests.failure_checks import Made, cases, fallback, fresh, nothing, same, x34
from tests.recorder_checks import bits


class World:
    """A model with its optimiser."""

    def __init__(self, rule: Any = graphc.optim.SGD, **settings: Any) -> None:
        self.net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 2))
        self.opt = rule(self.net.parameters(), **(settings or {"lr": 0.05, "momentum": 0.9}))

    def step(self, x: Any) -> Any:
        """One training step."""
        self.opt.zero_grad()
        loss = self.net(x).square().mean()
        loss.backward()
        self.opt.step()
        return loss

    def seen(self) -> Any:
        """All that a step leaves behind."""
        states = [list(s.values()) for s in self.opt.state.values()]
        return [list(self.net.state_dict().values()), states, [p.grad for p in self.net.parameters()]]


# ---- weights changed through their numpy() alias after compiling


def _by_numpy() -> Made:
    w = World()
    alias = w.net[0].weight.detach().numpy()

    def given(k: int) -> Any:
        if k == 5:
            alias[:] *= 0.5
        return (x34(k) * 0.1,)

    return w.step, given, w.seen


def _by_numpy_taken_later() -> Made:
    w = World()

    def given(k: int) -> Any:
        if k in (4, 6):
            w.net[4].bias.detach().numpy()[:] += k
        return (x34(k) * 0.1,)

    return w.net, given, lambda: list(w.net.state_dict().values())


def _of_a_buffer() -> Made:
    w = World()
    w.net.eval()

    def given(k: int) -> Any:
        w.net[1].running_var.numpy()[:2] = k + 1
        return (x34(k),)

    return w.net, given, lambda: list(w.net.state_dict().values())


def _of_an_optimiser_state() -> Made:
    w = World(graphc.optim.Adam, lr=0.01)

    def given(k: int) -> Any:
        if k == 5:
            w.opt.state[w.net[0].weight]["exp_avg"].numpy().fill(0.25)
        return (x34(k) * 0.1,)

    return w.step, given, w.seen


def _of_memory_from_numpy() -> Made:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    t = graphc.from_numpy(array)

    def given(k: int) -> Any:
        array[k % 3] = k
        return (x34(k),)

    return lambda x: x * t, given, lambda: t


@cases(_by_numpy, _by_numpy_taken_later, _of_a_buffer, _of_an_optimiser_state, _of_memory_from_numpy)
def test_weights_changed_through_their_numpy_alias(make: Any) -> None:
    """Weights folded or packed while compiling were those of the first call for ever."""
    same(make)


# ---- g = p.grad kept across steps


@pytest.mark.parametrize(
    "keep",
    [
        lambda p: p.grad,
        lambda p: p.grad.view(-1)[1:],
        lambda p: p.grad.numpy(),
        lambda p: p.grad.detach(),
        lambda p: {"deep": [p.grad]},
        lambda p: memoryview(p.grad.numpy()),
    ],
    ids=["tensor", "view", "array", "detached", "container", "buffer"],
)
@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_gradient_kept_across_steps(keep: Any, set_to_none: bool) -> None:
    """The buffer of the gradients was written by the next step, under who had kept them."""

    def told(x: Any) -> Any:
        if isinstance(x, dict):
            return told(x["deep"][0])
        return np.asarray(x).tobytes() if isinstance(x, memoryview) else bits(x)

    def run(wrap: Any) -> Any:
        graphc.manual_seed(0)
        w = World()

        def step(x: Any) -> Any:
            w.opt.zero_grad(set_to_none=set_to_none)
            loss = w.net(x).square().mean()
            loss.backward()
            w.opt.step()
            return loss

        fn, kept, found = wrap(step), [], []
        for k in range(10):
            fn(x34(k) * 0.1)
            if k % 3 != 1:
                kept.append(keep(w.net[0].weight))
            found.append([told(x) for x in kept])
        return fn, found

    fn, found = run(lambda f: graphc.compile(f, fullgraph=True))
    assert found == run(lambda f: f)[1]
    assert fn.stats.hits >= 6


# ---- an outer no_grad


def _call_in_no_grad() -> Made:
    net = nn.Linear(4, 3)

    def given(k: int) -> Any:
        graphc.set_grad_enabled(k % 4 < 2)
        return (x34(k).requires_grad_(),)

    return lambda x: net(x) * 2, given, lambda: graphc.set_grad_enabled(True) and None


def _inner_and_outer() -> Made:
    w = nn.Parameter(x34())

    def f(x: Any) -> Any:
        with graphc.no_grad():
            y = x * w
        with graphc.enable_grad():
            z = y + w
        return y, z, x + w

    def given(k: int) -> Any:
        graphc.set_grad_enabled(k % 4 < 2)
        return (x34(k),)

    return f, given, lambda: graphc.set_grad_enabled(True) and None


def _decorated() -> Made:
    net = nn.Linear(4, 3)

    @graphc.no_grad()
    def inner(x: Any) -> Any:
        return net(x)

    return lambda x: (inner(x), net(x)), fresh(3, 4), nothing


@cases(_call_in_no_grad, _inner_and_outer, _decorated)
def test_an_outer_no_grad(make: Any) -> None:
    """The graph of a call with gradients was run without, or the other way round."""
    same(make, hits=4, calls=12)


def test_inference_mode_and_back() -> None:
    """A graph recorded in inference mode gave tensors of its own kind later."""
    net = nn.Linear(4, 3)
    fast = graphc.compile(net)
    for k in range(12):
        with graphc.inference_mode(k % 4 < 2):
            y, z = fast(x34(k)), net(x34(k))
        assert bits(y) == bits(z) and y.requires_grad == z.requires_grad
    assert fast.compiled.stats.hits >= 6 if hasattr(fast, "compiled") else True


# ---- gradient accumulation


def _accumulated(every: int, inside: bool) -> Any:
    def made() -> Made:
        w = World()

        def step(x: Any, last: bool) -> Any:
            loss = w.net(x).square().mean() / every
            loss.backward()
            if last and inside:
                w.opt.step()
                w.opt.zero_grad()
            return loss.detach()

        def given(k: int) -> Any:
            if not inside and k % every == 0 and k:
                w.opt.step()
                w.opt.zero_grad()
            return (x34(k) * 0.1, (k + 1) % every == 0)

        return step, given, w.seen

    return made


@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_gradient_accumulation(every: int, inside: bool) -> None:
    """The gradient of the first step was replaced, or that of the last stayed."""
    same(_accumulated(every, inside), hits=12, calls=24)


def _two_backwards() -> Made:
    w = World()

    def step(x: Any) -> Any:
        w.opt.zero_grad()
        y = w.net(x)
        y.mean().backward(retain_graph=True)
        y.square().mean().backward()
        w.opt.step()
        return y.detach()

    return step, fresh(3, 4), w.seen


def _gradients_kept_from_before() -> Made:
    p = nn.Parameter(x34())
    p.grad = x34(1.0)

    def f(x: Any) -> Any:
        (p * x).sum().backward()
        return p.grad * 1  # type: ignore[operator]

    def given(k: int) -> Any:
        if k == 5:
            p.grad = x34(2.0)
        if k == 8:
            p.grad = None
        return (x34(k),)

    return f, given, lambda: p.grad


@cases(_two_backwards, _gradients_kept_from_before)
def test_gradients_that_add_up(make: Any) -> None:
    """As above, within one step and with a gradient from outside."""
    same(make, hits=5, calls=12)


# ---- deepcopy of a compiled model


def test_deepcopy_of_a_compiled_model() -> None:
    """The copy ran with the weights of the original, or trained them."""
    graphc.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    fast = graphc.compile(net)
    for k in range(4):
        fast(x34(k))
    other, plain = copy.deepcopy(fast), copy.deepcopy(net)
    opt = graphc.optim.SGD(other.parameters(), lr=0.5)
    plain_opt = graphc.optim.SGD(plain.parameters(), lr=0.5)
    before = bits(list(net.parameters()))
    for k in range(6):
        for model, o in ((other, opt), (plain, plain_opt)):
            o.zero_grad()
            model(x34(k)).square().sum().backward()
            o.step()
        assert bits(list(other.state_dict().values())) == bits(list(plain.state_dict().values()))
    assert bits(list(net.parameters())) == before
    reference = copy.deepcopy(net)
    assert bits(fast(x34(9.0))) == bits(reference(x34(9.0)))
    assert bits(other(x34(9.0))) == bits(plain(x34(9.0)))


def test_deepcopy_of_a_method_and_an_ensemble() -> None:
    """Copies of one model in one function had one set of weights."""
    models = [copy.deepcopy(nn.Linear(4, 2)) for _ in range(3)]
    for k, m in enumerate(models):
        m.weight.data.fill_(float(k))
    compiled = assert_same(lambda x: sum(m(x) for m in models), x34(), state=models)
    assert graphc.equal(compiled(x34()), sum(m(x34()) for m in models))


# ---- effects of training loops: done at every call


def _losses_append() -> Made:
    w, losses = World(), []  # type: ignore[var-annotated]

    def step(x: Any) -> Any:
        loss = w.step(x)
        losses.append(loss.detach())  # here
        return loss

    return step, fresh(3, 4), lambda: [w.seen(), list(losses)]


def _losses_append_item() -> Made:
    w, losses = World(), []  # type: ignore[var-annotated]

    def step(x: Any) -> Any:
        loss = w.step(x)
        losses.append(loss.item())  # here
        return loss

    return step, fresh(3, 4), lambda: [w.seen(), list(losses)]


def _running_total() -> Made:
    w, total = World(), {"loss": 0.0}

    def step(x: Any) -> Any:
        loss = w.step(x)
        total["loss"] += loss.item()  # here
        return loss

    return step, fresh(3, 4), lambda: [w.seen(), dict(total)]


def _attribute_of_a_plain_object() -> Made:
    class Holder:
        h: Any = None

    w, holder = World(), Holder()

    def step(x: Any) -> Any:
        holder.h = w.net(x).detach()  # here
        return w.step(x) + holder.h.sum()

    return step, fresh(3, 4), lambda: [w.seen(), holder.h]


def _scheduler_inside() -> Made:
    w = World()
    schedule = graphc.optim.lr_scheduler.StepLR(w.opt, step_size=2, gamma=0.5)

    def step(x: Any) -> Any:
        loss = w.step(x)
        schedule.step()  # here
        return loss

    return step, fresh(3, 4), lambda: [w.seen(), w.opt.param_groups[0]["lr"], schedule.last_epoch]


@cases(_losses_append, _losses_append_item, _running_total, _attribute_of_a_plain_object, _scheduler_inside)
def test_effects_of_a_training_loop(make: Any) -> None:
    """`losses.append(loss)`, `self.h = h`, a scheduler stepped inside: done while recording only."""
    fallback(make, lockstep=4)
