"""Hooks of tensors, leaves, nodes and modules, saved-tensor hooks, anomaly mode: eagerly and in compiled functions."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.autograd import Function, detect_anomaly, set_detect_anomaly
from graphc.autograd.graph import (
    disable_saved_tensors_hooks,
    register_multi_grad_hook,
    save_on_cpu,
    saved_tensors_hooks,
)
from graphc.errors import ArgumentError, AutogradError
from graphc.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
    register_module_full_backward_pre_hook,
)
from graphc.testing import assert_same
from tests.recorder_checks import bits, marked_lines, refused


def x34() -> graphc.Tensor:
    return graphc.tensor(np.linspace(-1.3, 2.1, 12).reshape(3, 4), dtype=graphc.float32)


def ones() -> graphc.Tensor:
    return graphc.ones(3, requires_grad=True)


# ---------------------------------------------------------------- tensors, leaves and nodes


def test_tensor_hooks_run_in_order_on_what_the_ones_before_gave() -> None:
    x, seen = ones(), []
    y = x * 1
    handles = [y.register_hook(lambda g, k=k: seen.append((k, g[0].item())) or g * 2) for k in range(3)]
    y.sum().backward(retain_graph=True)
    assert seen == [(0, 1.0), (1, 2.0), (2, 4.0)]
    assert x.grad is not None
    assert x.grad.tolist() == [8.0] * 3
    handles[1].remove()
    x.grad = None
    y.sum().backward()
    assert x.grad.tolist() == [4.0] * 3
    with x.register_hook(lambda g: g * 0):
        (x * 3).sum().backward()
    (x * 3).sum().backward()
    assert x.grad.tolist() == [7.0] * 3


def test_hooks_from_before_an_in_place_write_see_the_gradient_of_the_values_before() -> None:
    seen = []
    y = ones() * 1
    y.register_hook(lambda g: seen.append(("old", g[0].item())))
    y.retain_grad()
    y.mul_(2)
    y.register_hook(lambda g: seen.append(("new", g[0].item())))
    y.sum().backward()
    assert seen == [("new", 1.0), ("old", 2.0)]
    assert y.grad is not None
    assert y.grad.tolist() == [1.0] * 3


@pytest.mark.parametrize(
    "hook, message", [(lambda g: g[:1], "returned f32"), (lambda g: 3, "returned a int"), (lambda g: g.double(), "f64")]
)
def test_hooks_that_return_something_else(hook: Any, message: str) -> None:
    y = ones() * 2
    y.register_hook(hook)
    with pytest.raises(AutogradError, match=message):
        y.sum().backward()


def test_post_accumulate_hooks() -> None:
    x, seen = ones(), []

    def hook(t: Any) -> None:
        seen.append((t is x, t.grad.tolist()))
        t.grad = None

    handle = x.register_post_accumulate_grad_hook(hook)
    for _ in range(2):
        (x * 2 + x).sum().backward()
    assert seen == [(True, [3.0] * 3)] * 2
    assert x.grad is None
    handle.remove()
    x.sum().backward()
    assert x.grad is not None
    with pytest.raises(AutogradError, match="non-leaf"):
        (x * 2).register_post_accumulate_grad_hook(hook)
    with pytest.raises(AutogradError, match="doesn't require gradient"):
        graphc.ones(2).register_post_accumulate_grad_hook(hook)


def test_an_optimiser_in_backward_gives_the_bits_of_one_after_it() -> None:
    def train(inside: bool) -> Any:
        graphc.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
        opts = {p: optim.SGD([p], lr=0.1) for p in model.parameters()}

        def update(p: Any) -> None:
            opts[p].step()
            opts[p].zero_grad()

        for p in model.parameters() if inside else ():
            p.register_post_accumulate_grad_hook(update)
        for _ in range(3):
            model(x34()).square().sum().backward()
            for p in () if inside else model.parameters():
                update(p)
        return [bits(p.detach()) for p in model.parameters()]

    assert train(True) == train(False)


def test_backward_into_given_leaves_runs_their_hooks() -> None:
    x, seen = ones(), []
    x.register_hook(lambda g: seen.append("hook"))
    x.register_post_accumulate_grad_hook(lambda t: seen.append("after"))
    (x * 2).sum().backward(inputs=[x])
    assert seen == ["hook", "after"]
    graphc.autograd.grad((x * 2).sum(), x)
    assert seen == ["hook", "after", "hook"]


def test_node_hooks_before_and_after() -> None:
    x, seen = ones(), []
    y = x * 2
    node = y.grad_fn
    first = node.register_prehook(lambda gs: seen.append("before") or (gs[0] * 10,))
    node.register_hook(lambda ins, outs: seen.append(("after", outs[0][0].item(), ins[1])))
    y.sum().backward()
    assert seen == ["before", ("after", 10.0, None)]
    assert x.grad is not None
    assert x.grad.tolist() == [20.0] * 3
    first.remove()
    z = x * 2
    z.grad_fn.register_hook(lambda ins, outs: (ins[0],))
    with pytest.raises(AutogradError, match="returned 1 gradients, expected 2"):
        z.sum().backward()
    z = x * 2
    z.grad_fn.register_prehook(lambda outs: (3,))
    with pytest.raises(AutogradError, match="returned a int"):
        z.sum().backward()


def test_hooks_where_a_leaf_s_gradients_end() -> None:
    x, seen = ones(), []
    end = (x * 1).grad_fn.next_functions[0][0]
    end.register_prehook(lambda gs: (gs[0] * 3,))
    end.register_hook(lambda ins, outs: seen.append((ins, outs[0].tolist(), x.grad is not None)))
    (x * 2).sum().backward()
    assert seen == [((), [6.0] * 3, True)]


def test_hooks_of_several_tensors() -> None:
    x, y, seen = ones(), ones(), []
    a, b, c = x * 1, y * 2, x + y
    handle = register_multi_grad_hook([a, b, c], lambda gs: seen.append([g is not None for g in gs]))
    (a + b).sum().backward(retain_graph=True)
    assert seen == [[True, True, False]]
    (a * 1 + b + c).sum().backward(retain_graph=True)
    assert seen[1:] == [[True, True, True]]
    handle.remove()
    (a + b).sum().backward()
    assert len(seen) == 2
    a, b = x * 1, y * 2
    with register_multi_grad_hook([a, b], lambda g: seen.append(g.tolist()), mode="any"):
        (a + b).sum().backward(retain_graph=True)
        (a + b).sum().backward()
    assert seen[2:] == [[1.0] * 3] * 2
    with pytest.raises(ArgumentError, match="mode"):
        register_multi_grad_hook([a], print, mode="some")


def test_names_of_nodes() -> None:
    x = ones()
    assert repr((x + 1).grad_fn) == "<AddBackward0>"
    assert (x.sum()).grad_fn.name() == "SumBackward0"
    assert "grad_fn=<MulBackward0>" in repr(x * 2)


def test_hooks_of_every_kind_inside_a_compiled_function() -> None:
    w = x34().requires_grad_()

    def f(x: Any) -> Any:
        w.grad = None
        y = w * x
        y.register_hook(lambda g: g * 2)
        y.grad_fn.register_prehook(lambda gs: (gs[0] + 1,))
        y.grad_fn.register_hook(lambda ins, outs: (ins[0] * outs[0], *ins[1:]))
        inner = (x * 1).requires_grad_()
        inner.register_post_accumulate_grad_hook(lambda t: setattr(t, "grad", t.grad * 3))
        (y * inner).sum().backward()
        return w.grad, inner.grad

    assert_same(f, x34())


def test_a_post_accumulate_hook_comes_and_goes_after_compiling() -> None:
    w = x34().requires_grad_()

    def f(x: Any) -> Any:
        w.grad = None
        (w * x).sum().backward()
        return w.grad.clone()

    def triple(t: Any) -> None:
        t.grad = t.grad * 3

    compiled, handle = graphc.compile(f, fullgraph=True), None
    for k in range(12):
        if k == 4:
            handle = w.register_post_accumulate_grad_hook(triple)
        if k == 8 and handle is not None:
            handle.remove()
        assert bits(compiled(x34())) == bits(x34() * (3 if 4 <= k < 8 else 1))
    assert compiled.stats.hits > 6


def test_a_post_accumulate_hook_on_a_tensor_from_outside_is_refused() -> None:
    def make() -> Any:
        w = x34().requires_grad_()

        def f(x: Any) -> Any:
            w.grad = None
            with w.register_post_accumulate_grad_hook(lambda t: None):  # here
                (w * x).sum().backward()
            return w.grad.clone()

        return f, (x34(),)

    refused(make, match="register_post_accumulate_grad_hook")


# ---------------------------------------------------------------- modules


def test_global_module_hooks() -> None:
    model, seen = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), []
    name = lambda m: type(m).__name__  # noqa: E731
    handles = [
        register_module_forward_pre_hook(lambda m, a: seen.append(("pre", name(m)))),
        register_module_forward_hook(lambda m, a, out: seen.append(("forward", name(m)))),
        register_module_full_backward_pre_hook(lambda m, go: seen.append(("backward pre", name(m)))),
        register_module_full_backward_hook(lambda m, gi, go: seen.append(("backward", name(m)))),
    ]
    model[1].register_forward_hook(lambda m, a, out: seen.append(("own", name(m))))
    try:
        model(graphc.ones(1, 3, requires_grad=True)).sum().backward()
    finally:
        for handle in (*handles, *handles):
            handle.remove()
    assert seen == [
        ("pre", "Sequential"),
        ("pre", "Linear"),
        ("forward", "Linear"),
        ("pre", "ReLU"),
        ("forward", "ReLU"),
        ("own", "ReLU"),
        ("forward", "Sequential"),
        ("backward pre", "Sequential"),
        ("backward pre", "ReLU"),
        ("backward", "ReLU"),
        ("backward pre", "Linear"),
        ("backward", "Linear"),
        ("backward", "Sequential"),
    ]
    model(graphc.ones(1, 3)).sum()
    assert seen[13:] == [("own", "ReLU")]


def test_global_hooks_that_replace() -> None:
    layer = nn.Identity()
    with (
        register_module_forward_pre_hook(lambda m, a: (a[0] + 1,)),
        register_module_forward_hook(lambda m, a, kw, out: out * 10 if not kw else None, with_kwargs=True),
    ):
        assert layer(graphc.ones(1)).item() == 20.0
    assert layer(graphc.ones(1)).item() == 1.0


def test_compiled_functions_run_eagerly_under_global_hooks() -> None:
    model, seen = nn.Linear(4, 2), []
    compiled = graphc.compile(model)
    for _ in range(3):
        expected = compiled(x34())
    with register_module_forward_hook(lambda m, a, out: seen.append(m)):
        assert bits(compiled(x34()).detach()) == bits(expected.detach())
    assert seen == [model]
    hits = compiled.stats.hits
    compiled(x34())
    assert (len(seen), compiled.stats.hits) == (1, hits + 1)


def test_a_global_hook_set_inside_is_refused() -> None:
    def make() -> Any:
        model = nn.Linear(4, 2)

        def f(x: Any) -> Any:
            handle = register_module_forward_hook(lambda m, a, out: out * 2)  # here
            result = model(x).detach()
            handle.remove()
            return result

        return f, (x34(),)

    refused(make, match="a hook of all modules")


# ---------------------------------------------------------------- saved tensors


def test_saved_tensor_hooks() -> None:
    x, log = ones(), []

    def pack(t: Any) -> Any:
        log.append("pack")
        return t.numpy(force=True).copy()

    def unpack(kept: Any) -> Any:
        log.append("unpack")
        return graphc.tensor(kept)

    with saved_tensors_hooks(pack, unpack):
        y = (x + x).exp() * x
    assert log == ["pack"] * 3  # exp keeps its result, the product both operands
    y.sum().backward()
    assert log[3:] == ["unpack"] * 3
    z = ones()
    ((z + z).exp() * z).sum().backward()
    assert x.grad is not None
    assert bits(x.grad) == bits(z.grad)
    _ = x.exp()
    assert len(log) == 6


def test_saved_tensor_hooks_see_in_place_writes_in_time() -> None:
    results = []
    for hooked in (False, True):
        x = graphc.tensor([0.5, 2.0, 3.0], requires_grad=True)
        y = x * 1
        with saved_tensors_hooks(lambda t: t, lambda t: t) if hooked else graphc.enable_grad():
            y.mul_(x).exp_().sub_(1).pow_(3)
        y.sum().backward()
        results.append(bits(x.grad))
    assert results[0] == results[1]


def test_second_derivatives_through_packed_tensors() -> None:
    grads = []
    for context in (save_on_cpu(), graphc.enable_grad()):
        x = graphc.tensor([0.5, 2.0], requires_grad=True)
        with context:
            y = (x.exp() * x).sin()
        (g,) = graphc.autograd.grad(y.sum(), x, create_graph=True)
        g.square().sum().backward()
        grads.append(bits(x.grad))
    assert grads[0] == grads[1]


def test_saved_tensor_hooks_and_their_errors() -> None:
    x = ones()
    with saved_tensors_hooks(lambda t: t, lambda t: 3):
        y = x * x
    with pytest.raises(AutogradError, match="unpack_hook returned a int"):
        y.sum().backward()
    with saved_tensors_hooks(lambda t: t, lambda t: t[:1]):
        y = x.exp()
    with pytest.raises(AutogradError, match="unpack_hook returned f32"):
        y.sum().backward()
    with disable_saved_tensors_hooks("not here"), pytest.raises(AutogradError, match="not here"), save_on_cpu():
        pass
    with pytest.raises(ArgumentError, match="callable"):
        saved_tensors_hooks(3, print)  # type: ignore[arg-type]


def test_hooks_of_a_function_s_saved_tensors() -> None:
    class Square(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y = x * x
            ctx.save_for_backward(x, y)
            return y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            x, y = ctx.saved_tensors
            return g * x * 2 + 0 * y

    x, packed = ones(), []
    with saved_tensors_hooks(lambda t: packed.append(t) or len(packed) - 1, lambda k: packed[k]):
        y = Square.apply(x)
    assert len(packed) == 2
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0] * 3


def test_saved_tensor_hooks_inside_a_compiled_function() -> None:
    w = x34().requires_grad_()

    def f(x: Any) -> Any:
        w.grad = None
        with saved_tensors_hooks(lambda t: t.double(), lambda t: t.float()), save_on_cpu():
            y = (w * x).exp()
        (y * y).sum().backward()
        return w.grad

    assert_same(f, x34())


def test_saved_tensor_hooks_with_backward_outside_run_eagerly() -> None:
    def make() -> Any:
        w = x34().requires_grad_()

        def f(x: Any) -> Any:
            with save_on_cpu():
                return (w * x).exp().sum()  # here

        return f, (x34(),)

    refused(make, trace=False, match="kept by hooks")


# ---------------------------------------------------------------- anomaly mode


def line_of(function: Any) -> str:
    (line,) = marked_lines(function)
    return line


def test_a_nan_is_told_with_the_forward_line() -> None:
    def forward(x: Any) -> Any:
        y = x.sqrt()  # here
        return (y * 0).sum()

    x = graphc.zeros(2, requires_grad=True)
    with set_detect_anomaly(True), pytest.raises(AutogradError, match="'SqrtBackward0' returned nan values") as error:
        forward(x).backward()
    assert line_of(forward) in str(error.value)
    forward(x).backward()  # as before
    with set_detect_anomaly(True, check_nan=False):
        forward(x).backward()


def test_any_error_is_told_with_the_forward_line() -> None:
    def forward(x: Any) -> Any:
        y = x * 1
        z = y.exp() * y  # here
        y.add_(1)
        return z.sum()

    with pytest.warns(UserWarning, match="Anomaly Detection"):
        mode = detect_anomaly()
    with mode, pytest.raises(AutogradError, match="modified by an inplace") as error:
        forward(graphc.zeros(2, requires_grad=True)).backward()
    (note,) = error.value.__notes__
    assert "MulBackward0" in note
    assert line_of(forward) in note
    late = graphc.zeros(2, requires_grad=True).sqrt()
    with set_detect_anomaly(True), pytest.raises(AutogradError, match="before anomaly mode was switched on"):
        (late * 0).sum().backward()


def test_anomaly_mode_as_a_function() -> None:
    set_detect_anomaly(True)
    try:
        with pytest.raises(AutogradError, match="nan"):
            (graphc.zeros(2, requires_grad=True).sqrt() * 0).sum().backward()
    finally:
        set_detect_anomaly(False)
    (graphc.zeros(2, requires_grad=True).sqrt() * 0).sum().backward()


def test_a_compiled_step_finds_its_nan() -> None:
    w = x34().requires_grad_()

    def step(x: Any) -> Any:
        w.grad = None
        loss = (w * x).sqrt().sum()  # here
        loss.backward()
        return loss

    compiled = graphc.compile(step)
    for _ in range(3):
        compiled(x34().abs() + 1)
    with set_detect_anomaly(True), pytest.raises(AutogradError, match="SqrtBackward0") as error:
        compiled(-x34())
    assert line_of(step) in str(error.value)
    hits = compiled.stats.hits
    compiled(x34().abs() + 1)
    assert compiled.stats.hits == hits + 1


def test_anomaly_mode_switched_on_inside_is_refused() -> None:
    def make() -> Any:
        w = (x34().abs() + 1).requires_grad_()

        def f(x: Any) -> Any:
            w.grad = None
            with set_detect_anomaly(True):  # here
                (w * x).sum().backward()
            return w.grad.clone()

        return f, (x34(),)

    refused(make, match="anomaly mode")


def test_a_compiled_model_with_backward_outside_finds_its_nan() -> None:
    model = nn.Linear(4, 2)
    compiled = graphc.compile(lambda x: model(x).relu().sqrt())
    for _ in range(3):
        compiled(x34())
    with set_detect_anomaly(True), pytest.raises(AutogradError, match=os.path.basename(__file__)):
        (compiled(x34()) * 0).sum().backward()
    before = (compiled(x34()) * 0).sum()
    with set_detect_anomaly(True), pytest.raises(AutogradError, match="before anomaly mode was switched on"):
        before.backward()
