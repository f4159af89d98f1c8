"""Known failures of other compilers, one test each: modules that change between calls."""

from __future__ import annotations

from typing import Any

import pytest

import graphc
from graphc import nn
from tests.failure_checks import Made, cases, fallback, fresh, nothing, same, x34

# ---- a hook registered or removed after compiling


def _hooked(register: Any, on: Any = lambda net: net[0]) -> Any:
    """A model, a hook on calls 4 to 7."""

    def made(backward: bool = False) -> Made:
        net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
        handles: list[Any] = []

        def f(x: Any) -> Any:
            net.zero_grad()
            y = net(x)
            y.sum().backward()
            return y.detach() * 2

        def given(k: int) -> Any:
            if k == 4:
                handles.append(register(on(net)))
            if k == 8:
                handles.pop().remove()
            return (x34(k),)

        return f, given, lambda: [p.grad for p in net.parameters()]

    return made


@pytest.mark.parametrize(
    "make",
    [
        _hooked(lambda m: m.register_forward_hook(lambda m, a, out: out * 2)),
        _hooked(lambda m: m.register_forward_pre_hook(lambda m, a: (a[0] + 1,))),
        _hooked(lambda m: m.register_full_backward_hook(lambda m, gi, go: (gi[0] * 2,)), lambda net: net[2]),
        _hooked(lambda m: m.register_full_backward_pre_hook(lambda m, go: (go[0] * 3,))),
        _hooked(lambda m: m.weight.register_hook(lambda g: g * 2)),
        _hooked(lambda m: m.weight.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(3))),
        _hooked(lambda m: m.register_forward_hook(lambda m, a, out: -out), lambda net: net),
        _hooked(lambda m: nn.modules.module.register_module_forward_hook(lambda m, a, out: out + 1)),
    ],
    ids=["forward", "pre", "backward", "backward pre", "tensor", "accumulated", "outer", "global"],
)
def test_a_hook_registered_or_removed_after_compiling(make: Any) -> None:
    """Hooks were left out, or called for ever after they were removed."""
    same(make, hits=4, calls=12)


# ---- train() and eval() toggled


def _whole_model() -> Made:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    return net, lambda k: (net.train(k % 6 < 3) and x34(k),), lambda: list(net.state_dict().values())


def _one_module_down() -> Made:
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)))
    return net, lambda k: (net[1][1].train(k % 6 < 3) and x34(k),), lambda: list(net.state_dict().values())


def _flag_set_by_hand() -> Made:
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 4))

    def given(k: int) -> Any:
        net[0].training = k % 6 < 3
        return (x34(k),)

    return lambda x: net(x), given, nothing


def _toggled_inside() -> Made:
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))

    def f(x: Any) -> Any:
        net.eval()  # here
        y = net(x)
        net.train()  # here
        return y, net(x)

    return f, fresh(3, 4), lambda: net.training


def _with_backward_outside() -> Made:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))

    def given(k: int) -> Any:
        net.train(k % 6 < 3)
        return (x34(k).requires_grad_(),)

    return lambda x: net(x).exp(), given, lambda: list(net.state_dict().values())


@cases(_whole_model, _one_module_down, _flag_set_by_hand, _with_backward_outside)
def test_train_and_eval_toggled(make: Any) -> None:
    """The graph of training went on in evaluation, running statistics and all."""
    same(make, hits=6, calls=12)


def test_train_and_eval_toggled_inside() -> None:
    """The toggle happened while recording only."""
    fallback(_toggled_inside, lockstep=3, match="training")


# ---- a module attribute or list that grows


def _grows(start: Any, change: Any, forward: Any) -> Any:
    def made() -> Made:

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                start(self)

            def forward(self, x: Any) -> Any:
                return forward(self, x)

        net = Net()

        def given(k: int) -> Any:
            if k in (4, 8):
                change(net, k)
            return (x34(k),)

        return net, given, lambda: list(net.state_dict().values())

    return made


def _chain(layers: Any, x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x


@pytest.mark.parametrize(
    "make",
    [
        _grows(
            lambda m: setattr(m, "parts", nn.ModuleList([nn.Linear(4, 4)])),
            lambda m, k: m.parts.append(nn.Linear(4, 4)),
            lambda m, x: _chain(m.parts, x),
        ),
        _grows(
            lambda m: setattr(m, "parts", [graphc.ones(4)]),
            lambda m, k: m.parts.append(graphc.full((4,), 1.0 * k)),
            lambda m, x: x * sum(m.parts),
        ),
        _grows(
            lambda m: setattr(m, "table", {"a": 1.5}),
            lambda m, k: m.table.update({f"b{k}": 2.0 * k}),
            lambda m, x: x * sum(m.table.values()),
        ),
        _grows(
            lambda m: setattr(m, "parts", nn.Sequential(nn.Tanh())),
            lambda m, k: m.parts.add_module(f"more{k}", nn.ReLU()),
            lambda m, x: m.parts(x),
        ),
        _grows(
            lambda m: setattr(m, "base", 2.0),
            lambda m, k: setattr(m, f"extra{k}", 3.0),
            lambda m, x: x * m.base * (m.extra4 if hasattr(m, "extra4") else 1.0),
        ),
        _grows(
            lambda m: None,
            lambda m, k: m.register_parameter(f"w{k}", nn.Parameter(graphc.full((4,), 1.0 + k))),
            lambda m, x: sum((x * p for p in m.parameters()), x),
        ),
    ],
    ids=["module list", "list of tensors", "dict", "sequential", "attribute", "parameters"],
)
def test_a_module_attribute_or_list_that_grows(make: Any) -> None:
    """What came after recording was not seen."""
    same(make, hits=6, calls=12)


# ---- requires_grad toggled


def _argument() -> Made:
    return lambda x: (x * 2).exp(), lambda k: (x34(k).requires_grad_(k % 2 == 1),), nothing


def _weight() -> Made:
    net = nn.Linear(4, 4)

    def f(x: Any) -> Any:
        net.zero_grad()
        net(x).sum().backward()
        return net.bias.grad * 1

    def given(k: int) -> Any:
        net.weight.requires_grad_(k % 6 < 3)
        return (x34(k),)

    return f, given, lambda: [net.weight.grad, net.bias.grad]


def _closure_tensor() -> Made:
    w = x34()

    def given(k: int) -> Any:
        w.requires_grad_(k % 6 < 3)
        return (x34(k),)

    return lambda x: x * w, given, nothing


def _view_of_an_argument() -> Made:
    def f(x: Any) -> Any:
        return x[1:] * 2, x.requires_grad, x.T

    return f, lambda k: (x34(k).requires_grad_(k % 2 == 1),), nothing


def _frozen_under_an_optimiser() -> Made:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    opt = graphc.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def f(x: Any) -> Any:
        opt.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        opt.step()
        return loss.detach()

    def given(k: int) -> Any:
        net[0].requires_grad_(k % 8 < 4)
        return (x34(k),)

    return f, given, lambda: [list(net.parameters()), [p.grad for p in net.parameters()]]


@cases(_argument, _weight, _closure_tensor, _view_of_an_argument, _frozen_under_an_optimiser)
def test_requires_grad_toggled(make: Any) -> None:
    """The first setting stayed; outputs had no gradient, or a frozen weight had one."""
    same(make, hits=4, calls=12)


# ---- a parameter replaced


def _replaced(change: Any) -> Any:
    def made() -> Made:
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        old = net[0].weight

        def f(x: Any) -> Any:
            net.zero_grad()
            y = net(x)
            y.sum().backward()
            return y.detach()

        def given(k: int) -> Any:
            if k == 4:
                change(net)
            return (x34(k),)

        return f, given, lambda: [old, list(net.parameters()), [p.grad for p in net.parameters()]]

    return made


def _other(*shape: int) -> Any:
    return nn.Parameter(graphc.full(shape or (4, 4), 0.25))


@pytest.mark.parametrize(
    "make",
    [
        _replaced(lambda net: setattr(net[0], "weight", _other())),
        _replaced(lambda net: setattr(net[0].weight, "data", graphc.full((4, 4), 0.5))),
        _replaced(lambda net: setattr(net[0], "weight", net[1].weight)),
        _replaced(lambda net: net[0]._parameters.__setitem__("bias", None)),
        _replaced(lambda net: net.load_state_dict({k: v * 2 for k, v in net.state_dict().items()})),
        _replaced(lambda net: net.load_state_dict({k: v * 2 for k, v in net.state_dict().items()}, assign=True)),
        _replaced(lambda net: net.__setitem__(0, nn.Linear(4, 4, bias=False))),
        _replaced(lambda net: net.__setitem__(0, net[1])),
        _replaced(lambda net: net.double() and net.float()),
        _replaced(lambda net: setattr(net[0].weight, "data", net[0].weight.data.T)),
    ],
    ids=[
        "set",
        "data",
        "tied",
        "none",
        "loaded",
        "assigned",
        "layer",
        "layer twice",
        "dtype and back",
        "transposed data",
    ],
)
def test_a_parameter_replaced(make: Any) -> None:
    """The graph went on with the old parameter, or with its memory."""
    same(make, hits=4, calls=10)
