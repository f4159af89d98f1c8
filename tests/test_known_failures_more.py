"""More known failures of other compilers, found in their issue trackers: one test a kind of mistake."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import graphc
from graphc import nn
from graphc.nn import functional as F
from graphc.testing import assert_same
from tests.failure_checks import Made, cases, either, fallback, fresh, nothing, same, x34


class Holder:
    """A plain object."""

    def __init__(self, v: Any) -> None:
        self.v = v


# ---- one object on two paths: only the first path was a condition


def _two_names_of_an_object() -> Made:
    a = Holder(2.0)
    b, new = a, Holder(5.0)

    def given(k: int) -> Any:
        nonlocal b
        b = a if k < 5 else new
        return (x34(k),)

    return lambda x: x * a.v + b.v, given, nothing


def _an_argument_that_is_also_a_closure_variable() -> Made:
    a, new = Holder(2.0), Holder(5.0)
    now = a

    def given(k: int) -> Any:
        nonlocal now
        now = a if k < 5 else new
        return (a, x34(k))

    return lambda o, x: x * o.v + now.v, given, nothing


def _two_names_of_a_list() -> Made:
    a = [2.0, graphc.ones(4)]
    b, new = a, [5.0, graphc.full((4,), 3.0)]

    def given(k: int) -> Any:
        nonlocal b
        b = a if k < 5 else new
        return (x34(k),)

    return lambda x: x * a[0] + b[0] * b[1], given, nothing


def _a_layer_used_twice_replaced_once() -> Made:
    first, new = nn.Linear(4, 4), nn.Linear(4, 4)
    net = nn.Sequential(first, nn.Tanh(), first)

    def given(k: int) -> Any:
        net[2] = first if k < 5 else new
        return (x34(k),)

    return net, given, nothing


def _two_names_of_an_optimiser() -> Made:
    p = nn.Parameter(x34())
    a, new = graphc.optim.SGD([p], lr=0.1), graphc.optim.SGD([p], lr=0.5)
    b = a

    def f(x: Any) -> Any:
        a.zero_grad()
        (x * p).sum().backward()
        b.step()
        return p * 1

    def given(k: int) -> Any:
        nonlocal b
        b = a if k < 5 else new
        return (x34(k),)

    return f, given, lambda: p


def _objects_that_swap() -> Made:
    a, b = Holder(x34()), Holder(x34(1.0))
    pair = [a, a]

    def given(k: int) -> Any:
        pair[:] = [a, a] if k < 4 else [a, b] if k < 8 else [b, a]
        return (x34(k),)

    return lambda x: x * pair[0].v + pair[1].v * 2, given, nothing


@cases(
    _two_names_of_an_object,
    _an_argument_that_is_also_a_closure_variable,
    _two_names_of_a_list,
    _a_layer_used_twice_replaced_once,
    _two_names_of_an_optimiser,
    _objects_that_swap,
)
def test_one_object_on_two_paths(make: Any) -> None:
    """An alias among the things a function reads: the second path to it was never looked up again."""
    same(make, hits=5, calls=14)


# ---- the order of dicts, and keys


def _reordered_dict() -> Made:
    config = {"a": 1.0, "b": 2.0}

    def given(k: int) -> Any:
        if k == 4:
            config["a"] = config.pop("a")
        return (x34(k),)

    return lambda x: x * next(iter(config.values())) + list(config.values())[1], given, nothing


def _reordered_argument() -> Made:
    def f(x: Any, d: Any) -> Any:
        return x * next(iter(d.values()))

    a, b = x34(1.0), x34(2.0)
    return f, lambda k: (x34(k), {"a": a, "b": b} if k % 2 else {"b": b, "a": a}), nothing


def _keyword_order() -> Made:
    def f(**tensors: Any) -> Any:
        return sum((k + 1.0) * t for k, t in enumerate(tensors.values()))

    def call(x: Any, swap: bool) -> Any:
        return f(p=x, q=x * 2) if swap else f(q=x * 2, p=x)

    return call, lambda k: (x34(k), k % 2 == 0), nothing


@cases(_reordered_dict, _reordered_argument, _keyword_order)
def test_the_order_of_a_dict(make: Any) -> None:
    """The keys were compared as a set."""
    same(make, hits=3, calls=12)


# ---- memory


def _copy_into_a_row_of_an_input() -> Made:
    def f(a: Any, b: Any) -> Any:
        high, low = graphc.maximum(a, b), graphc.minimum(a, b)
        a.copy_(high + graphc.log(1 + graphc.exp(low - high)))

    return f, lambda k: (graphc.zeros(2, 3, 5)[:, 1, :] + 0.25 * k, graphc.ones(2, 5)), nothing


def _row_of_an_outer_tensor() -> Made:
    outer = graphc.zeros(2, 3, 7)

    def f(a: Any, b: Any) -> None:
        a.copy_(a + b)

    return f, lambda k: (outer[:, k % 3, :], graphc.ones(2, 7) * k), lambda: outer


def _two_writes_to_a_column() -> Made:
    def f(x: Any) -> Any:
        y = graphc.zeros_like(x)
        y[:, 0] += x[:, 2].abs()
        y[:, 0] += x[:, 2].abs()
        return graphc.autograd.grad(y.sum(), x)[0]

    return f, lambda k: (x34(k).requires_grad_(),), nothing


def _alias_before_data_is_set() -> Made:
    def f(x: Any) -> Any:
        y = x.clone()
        alias = y[:]
        y.data = graphc.ones(3, 4)
        return alias, y

    return f, fresh(3, 4), nothing


def _shift_of_a_buffer() -> Made:
    state = [graphc.zeros(40, 16)]

    def f(buffer: Any, new: Any) -> Any:
        moved = graphc.cat([buffer[1:], new])
        return moved, moved[:1]

    def given(k: int) -> Any:
        return (state[0], graphc.full((1, 16), float(k)))

    def shifted(buffer: Any, new: Any) -> Any:
        return f(buffer, new)

    return shifted, given, nothing


def _shift_in_place() -> Made:
    buffer = graphc.arange(24, dtype=graphc.float32).view(6, 4)

    def f(new: Any) -> Any:
        buffer[:-1] = buffer[1:].clone()
        buffer[-1] = new
        return buffer[0] * 1

    return f, lambda k: (graphc.full((4,), float(k)),), lambda: buffer


def _swap_of_two_states() -> Made:
    a, b = x34(), x34(1.0)

    def f(x: Any) -> Any:
        old = a.clone()
        a.copy_(b + x)
        b.copy_(old)
        return a - b

    return f, fresh(3, 4), lambda: [a, b]


def _read_before_and_after_a_write() -> Made:
    def f(x: Any) -> Any:
        before = x.T
        total = before.sum()
        x.mul_(2)
        return total, before + 1, before.contiguous().sum(), x.view(-1)[::2]

    return f, lambda k: (x34(k),), nothing


def _view_of_another_dtype() -> Made:
    def f(x: Any) -> Any:
        bits = x.view(graphc.int32)  # here
        bits.bitwise_and_(0x7FFFFFFF)
        return x * 2, bits

    return f, lambda k: (x34(k),), nothing


@cases(
    _copy_into_a_row_of_an_input,
    _row_of_an_outer_tensor,
    _two_writes_to_a_column,
    _alias_before_data_is_set,
    _shift_of_a_buffer,
    _shift_in_place,
    _swap_of_two_states,
    _read_before_and_after_a_write,
)
def test_writes_and_views(make: Any) -> None:
    """A write was lost, done twice, reordered, or seen through a view that was made before."""
    either(make, warned="is written", calls=8)


def test_a_view_of_another_dtype() -> None:
    """A write through the integers of a float was lost."""
    fallback(_view_of_another_dtype, match="view(dtype)")


# ---- numbers


def _small_integers(x: Any) -> Any:
    c, y = x[:4], x[4:8]
    return c * (x[8:12] + y), c * x[8:12] + c * y, (c + 100) // 3, (c * 50) % 7, -c, c << 6, (c * 100).float()


@pytest.mark.parametrize("dtype", [graphc.int8, graphc.uint8, graphc.int16, graphc.int32, graphc.int64], ids=str)
def test_integers_wrap_in_their_own_width(dtype: Any) -> None:
    """int8 arithmetic was done in 32 bits when fused: it did not wrap."""
    assert_same(_small_integers, graphc.tensor([6, 120, -100, 127, 5, 4, 77, -128, 90, 3, -1, 100]).to(dtype))


def test_divisions_of_integers() -> None:
    """x // 0, INT_MIN // -1, and negative remainders: another answer, or a signal."""
    x = graphc.tensor([7, -7, 0, -(2**31), 2**31 - 1]).to(graphc.int32)
    y = graphc.tensor([0, 2, 0, -1, -3]).to(graphc.int32)
    assert_same(lambda x, y: (x // y, x % y, graphc.fmod(x, y), x // -2, x % 5, x / y), x, y)


def test_functions_of_large_and_negative_numbers() -> None:
    """asinh of large negative numbers was -inf in a decomposed form; log1p and expm1 lost their digits."""
    x = graphc.tensor([487875.875, -956238.8125, -1e30, 1e30, 1e-20, -1e-20, 88.0, -104.0, 0.0, -0.0] * 3)
    functions = [graphc.asinh, graphc.log1p, graphc.expm1, graphc.sinh, graphc.tanh, graphc.erf, F.softplus, F.silu]
    assert_same(lambda x: [f(x) for f in functions], x)
    found = graphc.compile(graphc.asinh)(x[:3])
    assert (found.abs() < 100).all()


def test_empty_sizes_in_the_midst() -> None:
    """Sizes of 0 and 1: a loop that ran once too often, an empty sum that was not 0, a shape that collapsed."""

    def f(x: Any) -> Any:
        return (
            x.sum(0),
            x.prod(),
            (x * 2).T,
            graphc.cat([x, x]),
            x.reshape(-1, 1) + x.reshape(1, -1),
            x.mean(1).shape[0],
        )

    for shape in ((0, 3), (1, 3), (3, 1), (1, 1), (5, 33)):
        assert_same(f, graphc.ones(*shape), threads=(1,), reload=False)


def test_a_requires_grad_chain_without_gradients() -> None:
    """clone().detach().requires_grad_() inside: the shape, or the gradient, was that of another value."""

    def f(x: Any) -> Any:
        y = x.clone().detach().requires_grad_(True)
        z = y.abs().sqrt().transpose(0, 1)
        (g,) = graphc.autograd.grad(z.sum(), y)
        return z.detach(), g, z.ndim

    assert_same(f, x34())


# ---- what else stayed from the first call


def _seed_inside() -> Made:
    def f(x: Any, seed: int) -> Any:
        graphc.manual_seed(seed)
        return x + graphc.randn(3, 4), graphc.rand(2)

    return f, lambda k: (x34(k), k % 2), nothing


def _dropout_with_a_probability_that_changes() -> Made:
    layer = nn.Dropout(0.5)

    def given(k: int) -> Any:
        layer.p = 0.5 if k < 4 else 0.1 if k < 8 else 0.0
        return (x34(k),)

    return lambda x: layer(x), given, nothing


def _momentum_of_a_norm() -> Made:
    net = nn.BatchNorm1d(4)

    def given(k: int) -> Any:
        net.momentum = 0.1 if k < 4 else 0.5 if k < 8 else None
        net.eps = 1e-5 if k < 6 else 1e-3
        return (x34(k),)

    return net, given, lambda: list(net.state_dict().values())


def _class_attribute_hidden_by_an_instance() -> Made:
    class Net(nn.Module):
        scale = 2.0

        def forward(self, x: Any) -> Any:
            return x * self.scale

    net = Net()

    def given(k: int) -> Any:
        if k == 4:
            net.scale = 3.0
        if k == 8:
            del net.scale
        return (x34(k),)

    return net, given, nothing


def _function_in_a_namespace() -> Made:
    place = SimpleNamespace(act=F.relu)

    def given(k: int) -> Any:
        place.act = F.relu if k < 4 else F.gelu if k < 8 else graphc.sin
        return (x34(k),)

    return lambda x: place.act(x), given, nothing


def _number_of_groups_of_an_optimiser() -> Made:
    a, b = nn.Parameter(x34()), nn.Parameter(x34(1.0))
    opt = graphc.optim.SGD([a], lr=0.1)

    def f(x: Any) -> Any:
        opt.zero_grad()
        ((a + b) * x).sum().backward()
        opt.step()
        return a * 1, b * 1

    def given(k: int) -> Any:
        if k == 5:
            opt.add_param_group({"params": [b], "lr": 0.01})
        return (x34(k) * 0.1,)

    return f, given, lambda: [a, b, a.grad, b.grad]


@cases(
    _seed_inside,
    _dropout_with_a_probability_that_changes,
    _momentum_of_a_norm,
    _class_attribute_hidden_by_an_instance,
    _function_in_a_namespace,
    _number_of_groups_of_an_optimiser,
)
def test_settings_that_change(make: Any) -> None:
    """A setting was read once."""
    same(make, hits=3, calls=12)
