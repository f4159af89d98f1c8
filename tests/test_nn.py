"""Modules, parameters, containers, hooks, layers and losses, against what their formulas say."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import nn
from graphc.errors import (
    ArgumentError,
    AutogradError,
    DTypeError,
    IndexingError,
    ShapeError,
    StateError,
    UnsupportedError,
)


class Net(nn.Module):
    """Two linear layers that share a weight, and a buffer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("seen", graphc.zeros(2))
        self.register_buffer("scratch", graphc.zeros(1), persistent=False)
        self.note = "text"

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        """[N, 3] -> [N, 3]."""
        return self.second(self.first(x).tanh())


def numbers(*shape: int, seed: int = 0) -> graphc.Tensor:
    """Reproducible float64 numbers."""
    return graphc.tensor(np.random.default_rng(seed).standard_normal(shape))


def close(actual: graphc.Tensor, expected: Any) -> None:
    """Assert closeness in float64."""
    np.testing.assert_allclose(actual.detach().numpy(), np.asarray(expected), rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- Module


def test_walking() -> None:
    net = Net()
    assert [name for name, _ in net.named_parameters()] == ["first.weight", "first.bias"]
    assert [name for name, _ in net.named_parameters(remove_duplicate=False)] == [
        "first.weight",
        "first.bias",
        "second.weight",
    ]
    assert [name for name, _ in net.named_buffers()] == ["seen", "scratch"]
    assert [name for name, _ in net.named_modules()] == ["", "first", "second"]
    assert [name for name, _ in net.named_children()] == ["first", "second"]
    assert list(net.modules()) == [net, net.first, net.second] and list(net.children()) == [net.first, net.second]
    assert net.get_submodule("first") is net.first and net.get_parameter("second.weight") is net.first.weight
    assert net.get_buffer("seen") is net.seen
    for call in (net.get_submodule, net.get_parameter, net.get_buffer):
        with pytest.raises(AttributeError):
            call("first.missing")


def test_attributes() -> None:
    net = Net()
    net.first.weight = nn.Parameter(graphc.ones(3, 3))
    assert [name for name, _ in net.first.named_parameters()] == ["weight", "bias"], "an entry keeps its place"
    with pytest.raises(TypeError, match="as parameter 'weight'"):
        net.first.weight = graphc.zeros(3, 3)
    with pytest.raises(TypeError, match="as child module 'first'"):
        net.first = 3
    with pytest.raises(TypeError, match="as buffer 'seen'"):
        net.seen = [1.0]
    net.first = None
    net.seen = None
    assert net.first is None and net.seen is None and "first" in dir(net)
    del net.second
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'second'"):
        _ = net.second
    net.note = nn.Parameter(graphc.zeros(1))
    assert "note" in dict(net.named_parameters())


def test_registration_refuses() -> None:
    net = Net()
    for name in ("", "a.b"):
        with pytest.raises(KeyError):
            net.register_buffer(name, None)
    with pytest.raises(KeyError, match="'first' already exists"):
        net.register_buffer("first", None)
    with pytest.raises(TypeError):
        net.register_parameter("p", graphc.zeros(1))
    with pytest.raises(TypeError):
        net.add_module("m", object())

    class Early(nn.Module):
        def __init__(self) -> None:
            self.inner = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match="before Module"):
        Early()
    with pytest.raises(NotImplementedError, match="forward"):
        nn.Module()(1)


def test_modes_reach_overridden_train() -> None:
    class Frozen(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Any:
            return super().train(False)

    net = nn.Sequential(Frozen(2), nn.Dropout())
    assert net.train() is net and [m.training for m in net.modules()] == [True, False, True]
    assert not any(m.training for m in net.eval().modules())
    with pytest.raises(ValueError):
        net.train(1)
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())


def test_apply_and_zero_grad() -> None:
    net, order = Net(), []
    assert net.apply(order.append) is net and order == [net.first, net.second, net]
    net(graphc.ones(2, 3)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert net.first.weight.grad is not None and not net.first.weight.grad.any()
    net.zero_grad()
    assert net.first.weight.grad is None


def test_deepcopy_keeps_kinds_and_ties() -> None:
    net = Net()
    net(graphc.ones(2, 3)).sum().backward()
    other = copy.deepcopy(net)
    assert isinstance(other.first.weight, nn.Parameter) and other.first.weight is other.second.weight
    assert other.first.weight is not net.first.weight and graphc.equal(other.first.weight, net.first.weight)
    assert graphc.equal(other.first.weight.grad, net.first.weight.grad)
    with graphc.no_grad():
        other.first.weight.zero_()
    assert net.first.weight.any() and graphc.equal(other(graphc.ones(1, 3)), graphc.zeros(1, 3))


def test_conversion_keeps_parameters() -> None:
    net = Net()
    weight = net.first.weight
    net(graphc.ones(2, 3)).sum().backward()
    assert net.double() is net and net.first.weight is weight is net.second.weight
    assert weight.dtype is graphc.float64 and weight.grad.dtype is graphc.float64 and weight.is_leaf
    assert net.seen.dtype is graphc.float64
    weight.grad = None
    net(graphc.ones(2, 3, dtype=graphc.float64)).sum().backward()
    assert weight.grad.dtype is graphc.float64
    assert net.to("cpu", graphc.float32).first.weight.dtype is graphc.float32
    with pytest.raises(ArgumentError):
        net.to(graphc.int64)
    with pytest.raises(UnsupportedError):
        net.cuda()


def test_parameter() -> None:
    data = graphc.ones(2)
    p = nn.Parameter(data)
    assert repr(p) == "Parameter containing:\ntensor([1., 1.], requires_grad=True)"
    with graphc.no_grad():
        p.add_(1)
    assert data.tolist() == [2.0, 2.0], "a parameter shares the memory"
    assert isinstance(p, graphc.Tensor) and p.is_leaf and not nn.Parameter(data, requires_grad=False).requires_grad
    with pytest.raises(TypeError):
        nn.Parameter([1.0])


# ---------------------------------------------------------------- state


def test_state_dict_round_trip() -> None:
    graphc.manual_seed(1)
    one, two = Net(), Net()
    state = one.state_dict()
    assert list(state) == ["seen", "first.weight", "first.bias", "second.weight"]
    assert not any(isinstance(v, nn.Parameter) for v in state.values())
    assert str(two.load_state_dict(state)) == "<All keys matched successfully>"
    assert graphc.equal(one(graphc.ones(2, 3)), two(graphc.ones(2, 3)))
    with graphc.no_grad():
        one.first.bias.fill_(7.0)
    assert state["first.bias"].tolist() == [7.0] * 3, "a state dict shares memory"
    assert not two.first.bias.eq(7.0).any(), "loading copies"
    assert one.state_dict(keep_vars=True)["first.weight"] is one.first.weight


def test_load_reports_everything_and_changes_nothing() -> None:
    net = Net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    bad = {"seen": graphc.ones(2), "first.weight": graphc.ones(2, 2), "first.bias": [1.0], "extra": graphc.ones(1)}
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(bad)
    text = str(caught.value)
    for part in (
        "size mismatch for first.weight",
        "'first.bias': expected a Tensor",
        "Missing",
        "second.weight",
        "extra",
    ):
        assert part in text
    assert all(graphc.equal(value, net.state_dict()[key]) for key, value in before.items())
    found = net.load_state_dict({"seen": graphc.ones(2), "more": graphc.ones(1)}, strict=False)
    assert found.missing_keys == ["first.weight", "first.bias", "second.weight"] and found.unexpected_keys == ["more"]
    assert net.seen.tolist() == [1.0, 1.0]
    with pytest.raises(TypeError):
        net.load_state_dict([1])


def test_assigned_parameters_keep_the_flag_of_those_they_replace() -> None:
    net = nn.Linear(1, 1, bias=False)
    given = nn.Parameter(graphc.ones(1, 1), requires_grad=False)
    net.load_state_dict({"weight": given}, assign=True)
    assert net.weight is given
    assert given.requires_grad
    net.requires_grad_(False)
    net.load_state_dict({"weight": nn.Parameter(graphc.ones(1, 1))}, assign=True)
    assert not net.weight.requires_grad


@pytest.mark.parametrize("flag", [True, False])
def test_copies_of_parameters_are_parameters(flag: bool) -> None:
    p = nn.Parameter(graphc.tensor([1.0, 2.0]), requires_grad=flag)
    shallow, deep, pickled = copy.copy(p), copy.deepcopy(p), pickle.loads(pickle.dumps(p))
    for made in (shallow, deep, pickled):
        assert type(made) is nn.Parameter
        assert made.requires_grad is flag
        assert made.is_leaf
    with graphc.no_grad():
        p.add_(1)
    assert shallow.tolist() == [2, 3]  # the same memory
    assert deep.tolist() == pickled.tolist() == [1, 2]
    net = pickle.loads(pickle.dumps(nn.Linear(2, 3)))
    assert [type(q) for q in net.parameters()] == [nn.Parameter] * 2
    with pytest.raises(AutogradError, match=r"copy\.copy"):
        copy.copy(graphc.ones(1, requires_grad=True) * 2)


def test_load_by_assignment() -> None:
    net, weight = nn.Linear(2, 1), graphc.ones(1, 2)
    net.load_state_dict({"weight": weight, "bias": graphc.zeros(1)}, assign=True)
    assert isinstance(net.weight, nn.Parameter) and net.weight.requires_grad
    weight.fill_(5.0)
    assert net.weight.tolist() == [[5.0, 5.0]]


def test_state_hooks() -> None:
    net, calls = nn.Sequential(nn.Linear(1, 1)), []
    net[0].register_state_dict_pre_hook(lambda m, prefix, keep: calls.append(prefix))
    net[0].register_state_dict_post_hook(lambda m, state, prefix, meta: state.pop(prefix + "bias"))
    assert list(net.state_dict()) == ["0.weight"] and calls == ["0."]
    net[0]._state_callbacks["after"].clear()

    def rename(m: Any, state: Any, prefix: str, *rest: Any) -> None:
        state[prefix + "weight"] = state.pop("old")

    net[0].register_load_state_dict_pre_hook(rename)
    net.register_load_state_dict_post_hook(lambda m, keys: calls.append(keys.missing_keys))
    given = {"old": graphc.full((1, 1), 3.0), "0.bias": graphc.zeros(1)}
    net.load_state_dict(given)
    assert net[0].weight.item() == 3.0 and calls[-1] == [] and "old" in given


# ---------------------------------------------------------------- hooks


def test_forward_hooks() -> None:
    layer, calls = nn.Identity(), []
    layer.register_forward_pre_hook(lambda m, args: calls.append("pre") or (args[0] + 1,))
    first = layer.register_forward_hook(lambda m, args, out: calls.append("post") or out * 2, prepend=False)
    layer.register_forward_hook(lambda m, args, out: calls.append("early"), prepend=True)
    assert layer(graphc.tensor(1.0)).item() == 4.0 and calls == ["pre", "early", "post"]
    first.remove()
    assert layer(graphc.tensor(1.0)).item() == 2.0


def test_hooks_with_kwargs_and_always() -> None:
    class Scale(nn.Module):
        def forward(self, x: Any, *, by: float) -> Any:
            if by == 0:
                raise ValueError("zero")
            return x * by

    layer, seen = Scale(), []
    layer.register_forward_pre_hook(lambda m, args, kwargs: (args, {"by": kwargs["by"] + 1}), with_kwargs=True)
    layer.register_forward_hook(lambda m, args, kwargs, out: seen.append((kwargs, out)), with_kwargs=True)
    layer.register_forward_hook(lambda m, args, out: seen.append(out), always_call=True)
    assert layer(2.0, by=2) == 6.0 and seen == [({"by": 3}, 6.0), 6.0]
    with pytest.raises(ValueError, match="zero"):
        layer(2.0, by=-1)
    assert seen[-1] is None and len(seen) == 3
    layer.register_forward_pre_hook(lambda m, args, kwargs: 3, with_kwargs=True)
    with pytest.raises(ArgumentError):
        layer(2.0, by=2)


def test_full_backward_hooks() -> None:
    layer = nn.Linear(2, 1, bias=False)
    with graphc.no_grad():
        layer.weight.copy_(graphc.tensor([[2.0, 3.0]]))
    seen: list[Any] = []
    layer.register_full_backward_pre_hook(lambda m, grad_output: (grad_output[0] * 10,))
    layer.register_full_backward_hook(lambda m, ins, outs: seen.append((ins[0].tolist(), outs[0].tolist())))
    layer.register_full_backward_hook(lambda m, ins, outs: (ins[0] + 1,))
    x = graphc.tensor([[1.0, 1.0]], requires_grad=True)
    layer(x).sum().backward()
    assert seen == [([[20.0, 30.0]], [[10.0]])]
    assert x.grad.tolist() == [[21.0, 31.0]] and layer.weight.grad.tolist() == [[10.0, 10.0]]
    layer(graphc.ones(1, 2))  # no gradient flows in: only the output side is seen
    plain: list[Any] = []
    other = nn.Linear(2, 1)
    other.register_full_backward_hook(lambda m, ins, outs: plain.append((ins, outs[0].item())))
    other(graphc.ones(1, 2)).sum().backward()
    assert plain == [((None,), 1.0)]


def test_backward_hook_on_two_inputs() -> None:
    layer = nn.Module()
    layer.forward = lambda a, b: a * b
    seen: list[Any] = []
    handle = layer.register_full_backward_hook(lambda m, ins, outs: seen.append([g.item() for g in ins]))
    a, b = graphc.tensor(2.0, requires_grad=True), graphc.tensor(3.0, requires_grad=True)
    layer(a, b).backward()
    assert seen == [[3.0, 2.0]] and a.grad.item() == 3.0
    handle.remove()
    a.grad = b.grad = None
    handle = layer.register_full_backward_hook(lambda m, ins, outs: (ins[0] * 10, ins[1] * 100))
    layer(a, b).backward()
    assert (a.grad.item(), b.grad.item()) == (30.0, 200.0)
    handle.remove()
    layer.register_full_backward_hook(lambda m, ins, outs: ins[:1])
    with pytest.raises(AutogradError, match="invalid number of grad_input, got 1, but expected 2"):
        layer(a, b).backward()


def test_backward_hooks_where_an_output_is_not_used() -> None:
    layer = nn.Module()
    layer.forward = lambda a, b: (a * b, a + b)
    seen: list[Any] = []
    layer.register_full_backward_hook(lambda m, ins, outs: seen.append([g is None for g in (*ins, *outs)]))
    a, b = graphc.tensor(2.0, requires_grad=True), graphc.tensor(3.0)
    layer(a, b)[0].backward()
    assert seen == [[False, True, False, True]] and a.grad.item() == 3.0


# ---------------------------------------------------------------- containers


def test_sequential() -> None:
    net = nn.Sequential(OrderedDict(a=nn.Linear(2, 3), b=nn.ReLU(), c=nn.Linear(3, 1)))
    assert net(graphc.ones(4, 2)).shape == (4, 1) and len(net) == 3 and net[-1] is net.c
    part = net[:2]
    assert isinstance(part, nn.Sequential) and [n for n, _ in part.named_children()] == ["a", "b"]
    numbered = nn.Sequential(nn.ReLU()).append(nn.Tanh()).insert(0, nn.Identity())
    assert [type(m).__name__ for m in numbered] == ["Identity", "ReLU", "Tanh"]
    del numbered[1]
    assert list(dict(numbered.named_children())) == ["0", "1"] and isinstance(numbered.pop(), nn.Tanh)
    assert len(numbered + nn.Sequential(nn.ReLU())) == 2
    with pytest.raises(IndexError):
        _ = numbered[4]
    with pytest.raises(TypeError):
        nn.Sequential(nn.ReLU(), 3)
    assert nn.Sequential()(5) == 5


def test_lists_and_dicts() -> None:
    items = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
    items += [nn.ReLU()]
    items[3] = nn.Tanh()
    assert len(items[1:]) == 3 and len(list(items.parameters())) == 6 and "(0-2): 3 x Linear" in repr(items)
    named = nn.ModuleDict({"x": nn.ReLU()})
    named["y"] = nn.Tanh()
    named["x"] = nn.Sigmoid()
    assert list(named) == ["x", "y"] and "y" in named and isinstance(named.pop("x"), nn.Sigmoid) and len(named) == 1
    assert [type(m).__name__ for m in named.values()] == ["Tanh"] and list(named.keys()) == ["y"]
    with pytest.raises(KeyError):
        _ = named["z"]
    ps = nn.ParameterList([graphc.zeros(2), nn.Parameter(graphc.ones(1))])
    ps.append(graphc.zeros(3))
    assert all(isinstance(p, nn.Parameter) for p in ps) and list(ps.state_dict()) == ["0", "1", "2"]
    pd = nn.ParameterDict({"w": graphc.zeros(2, 3)})
    assert dict(pd.items())["w"] is pd["w"] and "float32 of size 2x3" in repr(pd)
    with pytest.raises(TypeError):
        items.append(3)


# ---------------------------------------------------------------- starting values


@pytest.mark.parametrize("shape", [(300, 200), (60, 40, 3, 3)])
def test_starting_values_follow_their_formulas(shape: tuple[int, ...]) -> None:
    graphc.manual_seed(0)
    receptive = math.prod(shape[2:])
    fan_in, fan_out = shape[1] * receptive, shape[0] * receptive
    cases: list[tuple[Callable[..., Any], dict[str, Any], float, float | None]] = [
        (nn.init.kaiming_uniform_, {"a": math.sqrt(5)}, 1 / math.sqrt(3 * fan_in), 1 / math.sqrt(fan_in)),
        (nn.init.kaiming_normal_, {"nonlinearity": "relu", "mode": "fan_out"}, math.sqrt(2 / fan_out), None),
        (nn.init.xavier_uniform_, {}, math.sqrt(2 / (fan_in + fan_out)), math.sqrt(6 / (fan_in + fan_out))),
        (nn.init.xavier_normal_, {"gain": 2.0}, 2 * math.sqrt(2 / (fan_in + fan_out)), None),
        (nn.init.normal_, {"std": 0.02}, 0.02, None),
        (nn.init.uniform_, {"a": -2.0, "b": 2.0}, 4 / math.sqrt(12), 2.0),
    ]
    for fill, settings, std, bound in cases:
        w = graphc.empty(*shape, requires_grad=True)
        assert fill(w, **settings) is w and w.requires_grad and w.is_leaf
        values = w.detach().numpy()
        assert abs(values.std() / std - 1) < 0.02 and abs(values.mean()) < 0.02 * std * 5
        if bound is not None:
            assert 0.99 * bound < np.abs(values).max() <= bound
    default = nn.Linear(shape[1], shape[0]).weight.detach().numpy() if len(shape) == 2 else None
    if default is not None:
        assert np.abs(default).max() <= 1 / math.sqrt(shape[1])


def test_other_starting_values() -> None:
    graphc.manual_seed(0)
    w = nn.init.trunc_normal_(graphc.empty(4000), mean=1.0, std=2.0, a=0.0, b=2.0).numpy()
    assert w.min() >= 0.0 and w.max() <= 2.0 and abs(w.mean() - 1.0) < 0.05 and w.std() > 0.5
    with pytest.raises(UnsupportedError):
        nn.init.trunc_normal_(graphc.empty(2), a=8.0, b=9.0)
    for shape in ((3, 5), (5, 3), (4, 2, 2)):
        q = nn.init.orthogonal_(graphc.empty(*shape, dtype=graphc.float64), gain=2.0).reshape(shape[0], -1).numpy()
        small = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
        np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-12)
    assert nn.init.eye_(graphc.empty(2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert nn.init.constant_(graphc.empty(2), 3.0).tolist() == [3, 3]
    assert nn.init.calculate_gain("leaky_relu", 1.0) == 1.0 and nn.init.calculate_gain("tanh") == 5 / 3
    for call in (lambda: nn.init.calculate_gain("x"), lambda: nn.init.xavier_uniform_(graphc.empty(2))):
        with pytest.raises(ArgumentError):
            call()
    one, two = (nn.init.normal_(graphc.empty(3), generator=graphc.Generator().manual_seed(4)) for _ in range(2))
    assert graphc.equal(one, two)


# ---------------------------------------------------------------- layers


def test_every_public_class_is_documented() -> None:
    for name in nn.__dict__:
        found = getattr(nn, name)
        if isinstance(found, type):
            assert inspect.getdoc(found), name


def test_dropout() -> None:
    graphc.manual_seed(0)
    x = graphc.ones(200, 100, requires_grad=True)
    y = F.dropout(x, 0.25)
    kept = (y != 0).detach().numpy()
    assert abs(kept.mean() - 0.75) < 0.02 and set(np.unique(y.detach().numpy())) == {0.0, np.float32(1 / 0.75)}
    y.sum().backward()
    assert graphc.equal(x.grad, y.detach()), "the gradient has the mask of the forward pass"
    assert not F.dropout(x, 1.0).any() and F.dropout(x, 0.0) is x and nn.Dropout(0.9).eval()(x) is x
    graphc.manual_seed(0)
    assert graphc.equal(F.dropout(x, 0.25), y)
    assert not graphc.equal(F.dropout(x, 0.25), y)
    z = F.dropout2d(graphc.ones(50, 20, 3, 3), 0.5).numpy().reshape(1000, 9)
    assert set(np.unique(z)) == {0.0, 2.0} and (z == z[:, :1]).all() and 400 < (z[:, 0] > 0).sum() < 600
    target = graphc.ones(100)
    assert F.dropout(target, 0.5, inplace=True) is target and (target == 0).any()
    with pytest.raises(ArgumentError):
        nn.Dropout(1.5)


def test_batch_norm_statistics() -> None:
    x = numbers(4, 3, 5)
    layer = nn.BatchNorm1d(3, momentum=None, dtype=graphc.float64)
    means, variances = [], []
    for k in range(3):
        batch = x * (k + 1)
        layer(batch)
        means.append(batch.numpy().mean((0, 2)))
        variances.append(batch.numpy().var((0, 2), ddof=1))
    close(layer.running_mean, np.mean(means, 0))
    close(layer.running_var, np.mean(variances, 0))
    assert layer.num_batches_tracked.item() == 3
    layer.eval()
    expected = (x.numpy() - np.mean(means, 0)[:, None]) / np.sqrt(np.mean(variances, 0)[:, None] + 1e-5)
    close(layer(x), expected)
    assert layer.num_batches_tracked.item() == 3
    layer.reset_running_stats()
    assert layer.running_var.tolist() == [1.0] * 3 and layer.num_batches_tracked.item() == 0
    for bad in (graphc.ones(2, 4), graphc.ones(3)):
        with pytest.raises(ShapeError):
            layer(bad)
    with pytest.raises(ShapeError, match="more than 1 value"):
        nn.BatchNorm1d(3)(graphc.ones(1, 3))


def test_plain_formulas() -> None:
    x = numbers(3, 4)
    v = x.numpy()
    close(F.hardsigmoid(x), np.clip(v + 3, 0, 6) / 6)
    close(F.logsigmoid(x * 400), np.minimum(v * 400, 0) - np.log1p(np.exp(-np.abs(v * 400))))
    close(F.normalize(x), v / np.sqrt((v * v).sum(1, keepdims=True)))
    close(F.rms_norm(x, (4,), eps=0.5), v / np.sqrt((v * v).mean(1, keepdims=True) + 0.5))
    close(nn.AdaptiveAvgPool2d(1)(numbers(2, 3, 4, 6)), numbers(2, 3, 4, 6).numpy().mean((2, 3), keepdims=True))
    close(F.one_hot(graphc.tensor([2, 0])), [[0, 0, 1], [1, 0, 0]])
    assert F.relu(graphc.tensor([-1.0, 1.0]), inplace=True).tolist() == [0.0, 1.0]
    y = graphc.tensor([-1.0, 1.0])
    assert nn.ReLU(inplace=True)(y) is y and y.tolist() == [0.0, 1.0]


def test_layers_refuse() -> None:
    cases: list[tuple[type[Exception], Callable[[], Any]]] = [
        (ShapeError, lambda: nn.Linear(3, 2)(graphc.ones(2, 4))),
        (ShapeError, lambda: nn.Conv2d(1, 1, 3)(graphc.ones(5))),
        (DTypeError, lambda: F.conv2d(graphc.ones(1, 1, 3, 3), graphc.ones(1, 1, 2, 2).double())),
        (ShapeError, lambda: F.conv2d(graphc.ones(1, 1, 3, 3), graphc.ones(2, 1, 2, 2), graphc.ones(3))),
        (ArgumentError, lambda: nn.Conv2d(3, 4, 3, groups=2)),
        (ArgumentError, lambda: nn.Conv2d(1, 1, 3, padding_mode="mirror")),
        (ArgumentError, lambda: nn.ConvTranspose2d(1, 1, 3, padding_mode="reflect")),
        (ArgumentError, lambda: nn.ConvTranspose2d(1, 1, 3, 2)(graphc.ones(1, 1, 3, 3), output_size=(9, 7))),
        (ShapeError, lambda: nn.Conv3d(1, 1, 3)(graphc.ones(1, 3, 3))),
        (ShapeError, lambda: F.conv3d(graphc.ones(1, 3, 3, 3), graphc.ones(1, 1, 3, 3))),
        (ArgumentError, lambda: nn.Conv2d(1, 1, 3, 2, padding="same")(graphc.ones(1, 1, 4, 4))),
        (ArgumentError, lambda: nn.Conv2d(1, 1, (1, 2, 3))),
        (ArgumentError, lambda: nn.ConvTranspose2d(1, 1, 3, output_padding=1)(graphc.ones(1, 1, 3, 3))),
        (ArgumentError, lambda: nn.AdaptiveAvgPool2d(0)(graphc.ones(1, 1, 3, 4))),
        (ArgumentError, lambda: nn.AdaptiveMaxPool2d((1, 2, 3))(graphc.ones(1, 1, 3, 4))),
        (ShapeError, lambda: nn.AdaptiveMaxPool1d(2)(graphc.ones(1, 1, 0))),
        (ShapeError, lambda: F.max_unpool2d(graphc.ones(1, 1, 2, 2), graphc.zeros(1, 1, 2, 1).long(), 2)),
        (UnsupportedError, lambda: F.interpolate(graphc.ones(1, 1, 4, 4), 2, mode="bilinear", antialias=True)),
        (ArgumentError, lambda: F.interpolate(graphc.ones(1, 1, 4, 4), 2, mode="cubic")),
        (ArgumentError, lambda: F.interpolate(graphc.ones(1, 1, 4, 4), 2, 0.5)),
        (ArgumentError, lambda: F.interpolate(graphc.ones(1, 1, 4, 4), scale_factor=0.1)),
        (ShapeError, lambda: F.interpolate(graphc.ones(1, 1, 4, 4), 2, mode="linear")),
        (ShapeError, lambda: F.fold(graphc.ones(1, 5, 4), 4, 2)),
        (ShapeError, lambda: F.pixel_unshuffle(graphc.ones(1, 1, 3, 4), 2)),
        (ShapeError, lambda: F.channel_shuffle(graphc.ones(1, 3, 3, 4), 2)),
        (ShapeError, lambda: F.glu(graphc.ones(3))),
        (ArgumentError, lambda: F.softshrink(graphc.ones(3), -1.0)),
        (ArgumentError, lambda: F.celu(graphc.ones(3), 0.0)),
        (ArgumentError, lambda: F.rrelu(graphc.ones(3), 0.5, 0.1)),
        (ArgumentError, lambda: F.alpha_dropout(graphc.ones(3), 1.5)),
        (ShapeError, lambda: F.feature_alpha_dropout(graphc.ones(3), 0.5, True)),
        (ShapeError, lambda: F.local_response_norm(graphc.ones(2, 3), 2)),
        (ShapeError, lambda: F.instance_norm(graphc.ones(2, 3, 1))),
        (ShapeError, lambda: nn.InstanceNorm1d(3)(graphc.ones(2, 4, 5))),
        (ShapeError, lambda: nn.Bilinear(2, 3, 4)(graphc.ones(5, 2), graphc.ones(4, 3))),
        (ShapeError, lambda: F.pdist(graphc.ones(3))),
        (UnsupportedError, lambda: nn.Embedding(3, 2, max_norm=1.0)),
        (UnsupportedError, lambda: nn.EmbeddingBag(3, 2, sparse=True)),
        (ShapeError, lambda: nn.EmbeddingBag(3, 2)(graphc.tensor([1, 2]))),
        (ArgumentError, lambda: F.embedding_bag(graphc.tensor([[1]]), graphc.ones(2, 2), mode="median")),
        (ArgumentError, lambda: nn.MultiheadAttention(4, 3)),
        (ShapeError, lambda: nn.MultiheadAttention(4, 2)(*(graphc.ones(3, 1, 5) for _ in range(3)))),
        (ArgumentError, lambda: nn.MultiheadAttention(4, 2)(*(graphc.ones(3, 4) for _ in range(3)), is_causal=True)),
        (ArgumentError, lambda: nn.TransformerEncoderLayer(4, 2, activation="tanh")),
        (ShapeError, lambda: nn.Transformer(4, 2, 1, 1, 4)(graphc.ones(3, 5), graphc.ones(3, 4))),
        (ArgumentError, lambda: nn.TripletMarginLoss(margin=0.0)),
        (ArgumentError, lambda: F.gaussian_nll_loss(graphc.ones(2), graphc.ones(2), -graphc.ones(2))),
        (ShapeError, lambda: F.gaussian_nll_loss(graphc.ones(2, 2), graphc.ones(2, 2), graphc.ones(3))),
        (ShapeError, lambda: F.cosine_embedding_loss(graphc.ones(2, 2), graphc.ones(2, 2), graphc.ones(2, 2))),
        (DTypeError, lambda: F.multi_margin_loss(graphc.ones(2, 2), graphc.ones(2))),
        (ShapeError, lambda: F.ctc_loss(graphc.ones(3, 2, 4), graphc.tensor([[1]]), [3, 3], [1])),
        (ShapeError, lambda: nn.LayerNorm(3)(graphc.ones(2, 4))),
        (IndexingError, lambda: nn.Embedding(3, 2)(graphc.tensor([3]))),
        (DTypeError, lambda: nn.Embedding(3, 2)(graphc.tensor([1.0]))),
        (ArgumentError, lambda: nn.Embedding(3, 2, padding_idx=4)),
        (DTypeError, lambda: F.gelu(graphc.tensor([1]))),
        (DTypeError, lambda: F.cross_entropy(graphc.ones(2, 3), graphc.ones(2))),
        (IndexingError, lambda: F.cross_entropy(graphc.ones(2, 3), graphc.tensor([0, 3]))),
        (IndexingError, lambda: F.cross_entropy(graphc.ones(3), graphc.tensor(-1))),
        (IndexingError, lambda: F.nll_loss(graphc.ones(1, 2, 2), graphc.tensor([[0, -100]]), ignore_index=-1)),
        (ArgumentError, lambda: F.mse_loss(graphc.ones(2), graphc.ones(2), reduction="median")),
        (IndexingError, lambda: F.one_hot(graphc.tensor([3]), 3)),
        (ShapeError, lambda: F.prelu(graphc.ones(2, 3), graphc.ones(2))),
    ]
    for error, call in cases:
        with pytest.raises(error):
            call()


@pytest.mark.parametrize(
    "program",
    [
        "from graphc import nn; nn.Sequential(nn.Linear(3, 2), nn.LSTM(2, 2), nn.Conv2d(1, 1, 3), nn.Embedding(3, 2))",
        "from graphc.nn import Linear; Linear(3, 2).weight.sum().backward()",
        "from graphc.utils.data import DataLoader; [(x * 2).tolist() for x in DataLoader([1.5, 2.5], 2)]",
        "import graphc.testing; import graphc.autograd",
    ],
)
def test_part_of_the_package_alone(program: str) -> None:
    """Tensor has its methods whichever module is imported first."""
    subprocess.run([sys.executable, "-c", program], check=True)


IN_PLACE: dict[str, dict[str, Any]] = {
    "relu": {}, "leaky_relu": {"negative_slope": 0.1}, "elu": {}, "selu": {}, "silu": {}, "relu6": {}, "hardtanh": {},
    "hardsigmoid": {}, "hardswish": {}, "mish": {}, "dropout": {"p": 0.4}, "dropout2d": {"p": 0.4},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(IN_PLACE))
def test_activations_in_place_have_gradients(name: str) -> None:
    """The rule reads the elements from before the write, though their memory is overwritten."""

    function = getattr(F, name)

    def run(x: graphc.Tensor, inplace: bool) -> tuple[graphc.Tensor, graphc.Tensor]:
        graphc.manual_seed(5)
        leaf = x.detach().clone().requires_grad_()
        y = leaf * 1
        z = function(y, inplace=inplace, **IN_PLACE[name])
        assert (z is y) is inplace
        z.square().sum().backward()
        assert leaf.grad is not None
        return z.detach(), leaf.grad

    x = numbers(4, 3) * 4
    for ours, other in zip(run(x, True), run(x, False), strict=True):
        assert graphc.equal(ours, other)
    graphc.testing.assert_same(lambda x: run(x, True), x, reload=False, threads=(1,))
    with pytest.raises(AutogradError, match=f"{name}: a leaf Variable that requires grad"):
        function(graphc.ones(2, 3, requires_grad=True), inplace=True)


def test_a_target_that_is_no_class_is_named() -> None:
    with pytest.raises(IndexingError, match="nll_loss: target 7 is out of bounds: there are 2 classes"):
        F.nll_loss(graphc.ones(3, 2), graphc.tensor([-100, 7, 0]))
    assert F.nll_loss(graphc.ones(3, 2), graphc.tensor([-100, 1, 0])).item() == -1


def test_cross_entropy_formula() -> None:
    x, w = numbers(5, 3), numbers(3).abs()
    c = graphc.tensor([0, 2, 1, 1, -100])
    logs = x.numpy() - np.log(np.exp(x.numpy()).sum(1, keepdims=True))
    chosen = np.array([0, 2, 1, 1])
    weights = w.numpy()[chosen]
    close(nn.CrossEntropyLoss()(x, c), -logs[range(4), chosen].mean())
    close(nn.CrossEntropyLoss(weight=w)(x, c), -(logs[range(4), chosen] * weights).sum() / weights.sum())
    smooth = -(0.9 * logs[range(4), chosen] + 0.1 * logs[:4].mean(1)).mean()
    close(nn.CrossEntropyLoss(label_smoothing=0.1)(x, c), smooth)
    assert nn.CrossEntropyLoss(reduction="none")(x, c)[4].item() == 0.0
    assert nn.CrossEntropyLoss()(x[0], graphc.tensor(1)).shape == ()


def test_clip_grad() -> None:
    p, q = graphc.zeros(2, requires_grad=True), graphc.zeros(1, requires_grad=True)
    p.grad, q.grad = graphc.tensor([3.0, 0.0]), graphc.tensor([4.0])
    assert nn.utils.clip_grad_norm_([p, q], 1.0).item() == 5.0
    np.testing.assert_allclose([*p.grad.tolist(), *q.grad.tolist()], [0.6, 0.0, 0.8], rtol=1e-5)
    nn.utils.clip_grad_value_([p, q], 0.5)
    assert p.grad.tolist() == [0.5, 0.0]
    assert nn.utils.clip_grad_norm_([graphc.zeros(1)], 1.0).item() == 0.0


def test_errors_are_typed() -> None:
    assert issubclass(StateError, KeyError) and issubclass(StateError, RuntimeError)


# ---------------------------------------------------------------- compiled


class Attention(nn.Module):
    """One block over token numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(7, 4, padding_idx=0), nn.LayerNorm(4)
        self.parts = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])

    def forward(self, tokens: graphc.Tensor) -> graphc.Tensor:
        """[N, T] -> [N, T, 4]."""
        x = self.table(tokens)
        return self.norm(x + F.scaled_dot_product_attention(*(part(x) for part in self.parts), is_causal=True))


def hooked() -> nn.Module:
    """A model with a backward hook and an activation in place."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.BatchNorm1d(4, momentum=None), nn.Dropout(0.2))
    model[0].register_full_backward_hook(lambda module, ins, outs: None)
    return model


TRAINED: list[tuple[Callable[[], nn.Module], Callable[[int], graphc.Tensor]]] = [
    (hooked, lambda n: numbers(n, 3).float()),
    (Attention, lambda n: graphc.arange(n * 3).reshape(n, 3) % 7),
    (
        lambda: nn.Sequential(nn.ConvTranspose2d(1, 2, 3, 2), nn.InstanceNorm2d(2)),
        lambda n: numbers(n, 1, 2, 3).float(),
    ),
]


@pytest.mark.parametrize(("make", "data"), TRAINED)
def test_training_steps_compile(make: Callable[[], nn.Module], data: Callable[[int], graphc.Tensor]) -> None:
    graphc.manual_seed(0)
    model = make()
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    graphc.testing.assert_same(step, data(4), reload=False, threads=(2,))


NAMED: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.GELU()), (3,)),
    (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, momentum=None), nn.MaxPool2d(2), nn.Flatten()),
        (1, 6, 6),
    ),
    (
        lambda: nn.Sequential(nn.ConvTranspose2d(1, 2, 2, 2), nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool2d(2)),
        (1, 3, 3),
    ),
    (lambda: nn.Sequential(nn.Conv1d(3, 2, 3), nn.MaxPool1d(2), nn.GroupNorm(1, 2), nn.PReLU(2)), (3, 8)),
]


@pytest.mark.parametrize(("make", "shape"), NAMED)
def test_batches_of_any_size(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    graphc.manual_seed(0)
    model = make()

    def step(x: graphc.Tensor) -> graphc.Tensor:
        model.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        return loss

    program = graphc.trace(step, numbers(5, *shape).float(), dynamic={"x": {0: "N"}})
    for n in (7, 2):
        x = numbers(n, *shape, seed=n).float()
        assert program(x).item() == step(x).item()
    for name, value in model.named_buffers():
        state = next(array for key, array in program.state.items() if key.endswith(name))
        np.testing.assert_array_equal(state, value.numpy(), name)


@pytest.mark.parametrize("loss", ["MSELoss", "L1Loss", "SmoothL1Loss", "BCELoss", "BCEWithLogitsLoss", "KLDivLoss"])
@pytest.mark.parametrize(
    ("old", "reduction"),
    [({"size_average": False}, "sum"), ({"reduce": False}, "none"), ({"size_average": True}, "mean")],
)
def test_the_old_spelling_of_a_reduction(loss: str, old: dict[str, bool], reduction: str) -> None:
    x, y = graphc.tensor([0.25, 0.5]), graphc.tensor([1.0, 0.0])
    expected = getattr(nn, loss)(reduction=reduction)(x, y)
    assert graphc.equal(getattr(nn, loss)(**old)(x, y), expected)
    name = {"BCELoss": "binary_cross_entropy", "BCEWithLogitsLoss": "binary_cross_entropy_with_logits"}.get(loss)
    name = name or {"SmoothL1Loss": "smooth_l1_loss", "KLDivLoss": "kl_div"}.get(loss, f"{loss[:-4].lower()}_loss")
    assert graphc.equal(getattr(F, name)(x, y, **old), expected)


@pytest.mark.parametrize("loss", ["CrossEntropyLoss", "NLLLoss"])
def test_the_old_spelling_of_a_reduction_over_classes(loss: str) -> None:
    x, y = graphc.tensor([[0.25, 0.5], [1.0, 2.0]]), graphc.tensor([1, 0])
    function = F.cross_entropy if loss == "CrossEntropyLoss" else F.nll_loss
    for old, reduction in (({"size_average": False}, "sum"), ({"reduce": False}, "none")):
        expected = getattr(nn, loss)(reduction=reduction)(x, y)
        assert graphc.equal(getattr(nn, loss)(**old)(x, y), expected)
        assert graphc.equal(function(x, y, **old), expected)  # type: ignore[arg-type]


DEVICE_LAYERS: dict[str, tuple[Any, ...]] = {
    "Linear": (1, 1),
    "Embedding": (1, 1),
    "Conv1d": (1, 1, 1),
    "Conv2d": (1, 1, 1),
    "ConvTranspose2d": (1, 1, 1),
    "BatchNorm1d": (1,),
    "BatchNorm2d": (1,),
    "LayerNorm": (1,),
    "RMSNorm": (1,),
    "GroupNorm": (1, 1),
    "InstanceNorm2d": (1,),
    "PReLU": (),
    "LSTM": (1, 1),
    "GRUCell": (1, 1),
}


@pytest.mark.parametrize(("layer", "sizes"), DEVICE_LAYERS.items(), ids=DEVICE_LAYERS)
def test_layers_refuse_devices_there_are_not(layer: str, sizes: tuple[Any, ...]) -> None:
    with pytest.raises(UnsupportedError, match=f"^{layer}: .*'cuda' is not available"):
        getattr(nn, layer)(*sizes, device="cuda")
    getattr(nn, layer)(*sizes, device="cpu")


def test_align_corners_has_no_meaning_for_nearest() -> None:
    with pytest.raises(ArgumentError, match="align_corners"):
        F.interpolate(graphc.ones(1, 1, 2, 2), scale_factor=2, align_corners=False)
