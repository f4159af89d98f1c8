"""Functions of the user's own: values, history, errors, and the same bits inside compiled functions."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.autograd import Function, gradcheck, gradgradcheck
from graphc.autograd.function import once_differentiable
from graphc.errors import ArgumentError, AutogradError, ShapeError, UnsupportedError
from graphc.testing import assert_same
from tests.recorder_checks import refused


def x34() -> graphc.Tensor:
    return graphc.tensor(np.linspace(-1.3, 2.1, 12).reshape(3, 4), dtype=graphc.float32)


def leaf64() -> graphc.Tensor:
    return graphc.tensor(np.linspace(-1.3, 2.1, 6).reshape(2, 3), requires_grad=True)


class Cube(Function):
    """x**3 by saved input."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return g * 3 * x * x


class Exp(Function):
    """exp by saved output."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * ctx.saved_tensors[0]


class Scale(Function):
    """x * k, forward without ctx, an argument that is no tensor."""

    @staticmethod
    def forward(x: Any, k: float) -> Any:  # type: ignore[override]
        return x * k

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.k = inputs[1]

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * ctx.k, None


class Two(Function):
    """Two outputs of two inputs."""

    @staticmethod
    def forward(ctx: Any, x: Any, y: Any) -> Any:
        ctx.save_for_backward(x, y)
        return x * y, x + y

    @staticmethod
    def backward(ctx: Any, g: Any, h: Any) -> Any:
        x, y = ctx.saved_tensors
        return g * y + h if ctx.needs_input_grad[0] else None, g * x + h if ctx.needs_input_grad[1] else None


class Straight(Function):
    """round() with the gradient of the identity; saves nothing."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.round()

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g


class Double_(Function):
    """In place."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * 2


class Reshaped(Function):
    """A view of the input."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.view(-1)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g.view(2, 3)


class Same(Function):
    """The input itself."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * 5


CALLS = [Cube.apply, Exp.apply, lambda x: Scale.apply(x, 2.5), lambda x: Scale.apply(x, k=2.5)]


@pytest.mark.parametrize("call", CALLS)
def test_gradients_of_both_orders(call: Any) -> None:
    assert gradcheck(call, leaf64())
    assert gradgradcheck(call, leaf64())


def test_several_inputs_and_outputs() -> None:
    x, y = leaf64(), leaf64()
    assert gradcheck(Two.apply, (x, y.detach().exp().requires_grad_()))
    assert gradgradcheck(Two.apply, (x, y))
    _, total = Two.apply(x, y.detach())
    assert total.grad_fn.name() == "TwoBackward"
    assert total.output_nr == 1
    assert total.grad_fn.needs_input_grad == (True, False)
    total.sum().backward()  # the gradient of the other output is zeros
    assert x.grad is not None
    assert x.grad.tolist() == [[1.0] * 3] * 2
    assert y.grad is None


def test_third_derivative() -> None:
    x = graphc.tensor([2.0], requires_grad=True)
    y: Any = Cube.apply(x)
    for expected in (12.0, 12.0, 6.0):
        (y,) = graphc.autograd.grad(y, x, create_graph=True)
        assert y.item() == expected


def test_node_and_printing() -> None:
    x = leaf64()
    y = Scale.apply(x, 3.0)
    assert repr(y.grad_fn) == "<ScaleBackward>"
    assert y.grad_fn.next_functions[0][0].variable is x
    assert len(y.grad_fn.next_functions) == 1
    assert y.grad_fn.k == 3.0
    assert "grad_fn=<ScaleBackward>" in repr(y)
    assert Scale.apply(x.detach(), 3.0).grad_fn is None
    with graphc.no_grad():
        assert not Scale.apply(x, 3.0).requires_grad
    (saved,) = Cube.apply(x * 1).grad_fn.saved_tensors
    assert saved.requires_grad


def test_outputs_without_gradients() -> None:
    seen = []

    class Sorted(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, materialize: bool) -> Any:
            ctx.set_materialize_grads(materialize)
            low, high = x * 2, x * 3
            ctx.mark_non_differentiable(high)
            return low, high, x.argmax(), 7, x * 4

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            seen.append([g if g is None else g.tolist() for g in grads])
            return grads[0], None

    x = graphc.ones(2, requires_grad=True)
    for materialize in (True, False):
        low, high, place, number, _ = Sorted.apply(x, materialize)
        assert (low.requires_grad, high.requires_grad, place.requires_grad, number) == (True, False, False, 7)
        low.sum().backward()
    assert seen == [[[1.0, 1.0], [0.0, 0.0], 0, None, [0.0, 0.0]], [[1.0, 1.0], None, None, None, None]]


def test_in_place() -> None:
    x = leaf64()
    y = x * 1
    z = Double_.apply(y)
    assert z is y
    (z * z).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), 8 * x.detach().numpy())
    whole = leaf64()
    base = whole * 1
    Double_.apply(base[0])
    base.sum().backward()
    assert whole.grad is not None
    assert whole.grad.tolist() == [[2.0] * 3, [1.0] * 3]
    with pytest.raises(AutogradError, match="a leaf Variable that requires grad"):
        Double_.apply(leaf64())


def test_views_and_the_input_itself() -> None:
    for kind, factor in ((Reshaped, 1.0), (Same, 5.0)):
        x = leaf64()
        y = kind.apply(x)
        assert y is not x
        assert y.grad_fn.name() == f"{kind.__name__}Backward"
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == [[factor] * 3] * 2
        with pytest.raises(AutogradError, match="a custom Function"):
            kind.apply(x * 1).mul_(2)


def test_saved_tensors_are_checked_and_freed() -> None:
    x = leaf64()
    inner = x * 1
    y = Cube.apply(inner)
    inner.add_(1)
    with pytest.raises(AutogradError, match="modified by an inplace operation"):
        y.sum().backward()
    y = Cube.apply(x)
    y.sum().backward()
    with pytest.raises(AutogradError, match="second time"):
        y.sum().backward()
    with pytest.raises(AutogradError, match="second time"):
        _ = y.grad_fn.saved_tensors
    y = Cube.apply(x)
    y.sum().backward(retain_graph=True)
    y.sum().backward()


def test_no_cycles() -> None:
    gc.collect()
    gc.disable()
    try:
        y = Exp.apply(leaf64() * 1)
        ref = weakref.ref(y.grad_fn)
        del y
        assert ref() is None
    finally:
        gc.enable()


def test_gradients_are_fitted_to_the_inputs() -> None:
    class Wide(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any) -> Any:
            return x + y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g, g.double()

    x, y = graphc.ones(3, requires_grad=True), graphc.ones(2, 1, requires_grad=True)
    Wide.apply(x, y).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad.tolist() == [2.0] * 3
    assert (y.grad.tolist(), y.grad.dtype) == ([[3.0], [3.0]], graphc.float32)


def returning(made: Any) -> Any:
    class Bad(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, k: float) -> Any:
            return x * k

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return made(g)

    return Bad


@pytest.mark.parametrize(
    "made, kind, message",
    [
        (lambda g: g, AutogradError, r"incorrect number of gradients \(expected 2, got 1\)"),
        (lambda g: (g, g), AutogradError, "different than None at position 2"),
        (lambda g: (g, None, g), AutogradError, "incorrect number of gradients"),
        (lambda g: (g[:2], None), ShapeError, "invalid gradient at index 0"),
        (lambda g: (3, None), AutogradError, "expected a Tensor or None, got int"),
    ],
)
def test_bad_gradients(made: Any, kind: Any, message: str) -> None:
    x = graphc.ones(3, requires_grad=True)
    with pytest.raises(kind, match=message):
        returning(made).apply(x, 2.0).sum().backward()


def test_gradients_that_may_be_left_out() -> None:
    x = graphc.ones(3, requires_grad=True)
    returning(lambda g: (None, None)).apply(x, 2.0).sum().backward()
    assert x.grad is None
    returning(lambda g: (g, None, None)).apply(x, 2.0).sum().backward()
    assert x.grad is not None


def test_bad_calls() -> None:
    class Bare(Function):
        pass

    class OnlyForward(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 1

    class Lost(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.mark_dirty(x)
            return x.mul_(2) * 1

    class Keeps(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x, 3)

    x = leaf64()
    with pytest.raises(UnsupportedError, match="forward function"):
        Bare.apply(x)
    with pytest.raises(UnsupportedError, match="either the backward or vjp"):
        OnlyForward.apply(x).sum().backward()
    with pytest.raises(AutogradError, match="marked as dirty"):
        Lost.apply(x * 1)
    with pytest.raises(ArgumentError, match="argument 1 is of type int"):
        Keeps.apply(x)
    with pytest.raises(AutogradError, match="Legacy"):
        Cube()(x)


def test_once_differentiable() -> None:
    class Square(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2 * ctx.saved_tensors[0]

    x = leaf64()
    (g,) = graphc.autograd.grad((Square.apply(x) ** 2).sum(), x, create_graph=True)
    with pytest.raises(AutogradError, match="once_differentiable"):
        g.sum().backward()
    Square.apply(x).sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), 2 * x.detach().numpy())


# ---------------------------------------------------------------- compiled


class Quantised(nn.Module):
    """A layer with Functions inside."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(x34() * 0.3)

    def forward(self, x: Any) -> Any:
        w = Straight.apply(self.weight * 8) / 8
        return Exp.apply(Scale.apply(Cube.apply(x @ w.t()), 0.05))


def test_training_step_is_one_graph() -> None:
    model = Quantised()
    opt = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    assert_same(step, x34())
    compiled = graphc.compile(step, fullgraph=True)
    for _ in range(4):
        compiled(x34())
    assert compiled.stats.hits == 2


def test_a_function_s_own_result_is_returned() -> None:
    w = x34().requires_grad_()

    def f(x: Any) -> Any:
        w.grad = None
        loss = Scale.apply((w * x).sum(), 0.5)
        loss.backward()
        return loss

    assert_same(f, x34())
    compiled = graphc.compile(f, fullgraph=True)
    for _ in range(3):
        loss = compiled(x34())
    with pytest.raises(AutogradError, match="second time"):
        loss.backward()


def test_every_form_inside() -> None:
    w = (x34() * 0.5).requires_grad_()

    def f(x: Any) -> Any:
        w.grad = None
        a, b = Two.apply(w * 1, x)
        c = Double_.apply(a * 1)
        d = Same.apply(c + Cube.apply(b)).sum()
        (g,) = graphc.autograd.grad(d, w, create_graph=True)
        g.square().sum().backward()
        return d.detach(), w.grad

    assert_same(f, x34())


def test_a_number_of_the_function_is_a_condition() -> None:
    factor = [2.0]

    class Scaled(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * factor[0]

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * factor[0]

    w = x34().requires_grad_()

    def f(x: Any) -> Any:
        w.grad = None
        Scaled.apply(w * x).sum().backward()
        return w.grad

    compiled = graphc.compile(f)
    for k in range(8):
        factor[0] = 2.0 if k < 4 else 3.0
        assert compiled(x34()).tolist() == f(x34()).tolist()


@pytest.mark.parametrize("name", ["forward", "backward", "setup_context"])
def test_a_part_of_a_function_is_replaced_after_compiling(name: str) -> None:
    class Own(Function):
        @staticmethod
        def forward(x: Any) -> Any:  # type: ignore[override]
            return x * 2

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.factor = 2.0

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.factor

    def f(x: Any) -> Any:
        w = x.detach().requires_grad_()
        y = Own.apply(w)
        (g,) = graphc.autograd.grad((y * y).sum(), w)
        return g

    others = {
        "forward": lambda x: x * 7,
        "backward": lambda ctx, g: g * 3,
        "setup_context": lambda ctx, inputs, output: setattr(ctx, "factor", 5.0),
    }
    compiled = graphc.compile(f, fullgraph=True)
    for k in range(8):
        if k == 4:
            setattr(Own, name, staticmethod(others[name]))
        assert compiled(x34()).tolist() == f(x34()).tolist()
    assert compiled.stats.compilations == 2


def test_backward_outside_runs_eagerly() -> None:
    def make() -> Any:
        w = x34().requires_grad_()

        def f(x: Any) -> Any:
            return Cube.apply(w * x).sum()  # here

        def step(x: Any) -> Any:
            return f(x)

        return step, (x34(),)

    refused(make, trace=False, match="Cube")


def test_second_gradients_of_a_function_to_a_single_number() -> None:
    x = graphc.tensor([1.0, -2.0, 0.5], dtype=graphc.float64, requires_grad=True)
    assert graphc.autograd.gradgradcheck(lambda x: (x * x * x).sum(), (x,))
