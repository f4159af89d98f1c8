"""autograd.grad and backward in full, Jacobians and their products, gradcheck."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.autograd import Function, backward, grad, gradcheck, gradgradcheck
from graphc.autograd import functional as AF
from graphc.autograd.function import once_differentiable
from graphc.errors import ArgumentError, AutogradError, ShapeError, UnsupportedError
from graphc.testing import assert_close, assert_same
from tests.recorder_checks import bits

A = np.linspace(-1.2, 2.3, 6).reshape(2, 3)


def leaf(array: Any = A) -> graphc.Tensor:
    return graphc.tensor(np.asarray(array, np.float64), requires_grad=True)


# ---------------------------------------------------------------- grad and backward


def test_grad_of_several_outputs_with_given_gradients() -> None:
    x, y = leaf(), leaf()
    found = grad([x * y, x.sum()], [x, y], grad_outputs=[graphc.full((2, 3), 2.0, dtype=graphc.float64), None])
    assert found[0] is not None and found[1] is not None
    np.testing.assert_allclose(found[0].numpy(), 2 * A + 1)
    np.testing.assert_allclose(found[1].numpy(), 2 * A)
    assert x.grad is None
    twice = grad(x.sum(), [x, x])
    assert bits(twice[0]) == bits(twice[1])


def test_inputs_that_are_not_used() -> None:
    x, y = leaf(), leaf()
    loss = (x * 3).sum()
    with pytest.raises(AutogradError, match=r"input 1 .* appears to not have been used"):
        grad(loss, [x, y], retain_graph=True)
    assert grad(loss, [x, y], retain_graph=True, allow_unused=True)[1] is None
    filled = grad(loss, [x, y], materialize_grads=True)[1]
    assert filled is not None
    assert filled.tolist() == [[0.0] * 3] * 2
    with pytest.raises(ArgumentError, match="allow_unused"):
        grad(loss, [x], allow_unused=False, materialize_grads=True)


@pytest.mark.parametrize(
    "call, kind, message",
    [
        (lambda x: grad(x * 2, x), AutogradError, "only for scalar outputs"),
        (lambda x: grad(x * 2, x, graphc.ones(2, dtype=graphc.float64)), ShapeError, "the gradient is"),
        (lambda x: grad(x.sum(), []), AutogradError, "cannot be empty"),
        (lambda x: grad(x.sum(), x, is_grads_batched=True), UnsupportedError, "is_grads_batched"),
        (lambda x: grad(x.sum(), x, only_inputs=False), UnsupportedError, "only_inputs"),
        (lambda x: grad(x.sum(), x.detach()), AutogradError, "does not require grad"),
        (lambda x: grad(x.detach().sum(), x), AutogradError, "does not require grad"),
        (lambda x: x.sum().backward(inputs=[]), AutogradError, "cannot be empty"),
        (lambda x: backward([x.sum()], [None, None]), AutogradError, "1 tensors and 2 gradients"),
        (
            lambda x: backward(x.sum(), graphc.ones(()), grad_variables=graphc.ones(())),
            ArgumentError,
            "grad_variables",
        ),
    ],
)
def test_bad_calls(call: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        call(leaf())


def test_backward_into_some_leaves_and_non_leaves() -> None:
    x, y = leaf(), leaf()
    z = x * y
    backward([z.sum(), x.sum()], inputs=[x])
    assert x.grad is not None
    assert y.grad is None
    np.testing.assert_allclose(x.grad.numpy(), A + 1)
    z = x * 2
    z.retain_grad()
    z.pow(2).sum().backward(inputs=z)
    assert z.grad is not None
    np.testing.assert_allclose(z.grad.numpy(), 4 * A)
    backward(x.sum(), grad_variables=graphc.tensor(3.0, dtype=graphc.float64), inputs=y, retain_graph=True)
    assert y.grad is None


def test_modes_of_generators_and_functions() -> None:
    x = leaf()

    @graphc.no_grad()
    def steps() -> Any:
        received = yield (x * 2).requires_grad
        yield received, (x * 2).requires_grad

    found = steps()
    assert next(found) is False
    assert (x * 2).requires_grad  # between two steps the caller's mode holds
    assert found.send(7) == (7, False)
    found.close()

    @graphc.set_grad_enabled(False)
    def off() -> bool:
        return (x * 2).requires_grad

    assert not off()
    assert (x * 2).requires_grad

    @graphc.inference_mode()
    def quiet() -> bool:
        return (x * 2).requires_grad

    assert not quiet()

    with pytest.raises(ArgumentError, match="decorate its methods"):
        graphc.no_grad()(type("Plain", (), {}))

    @graphc.no_grad
    def broken() -> Any:
        try:
            yield (x * 2).requires_grad
        except ValueError:
            yield (x * 3).requires_grad
        return 5

    found = broken()
    assert next(found) is False
    assert found.throw(ValueError()) is False
    with pytest.raises(StopIteration) as end:
        next(found)
    assert end.value.value == 5


# ---------------------------------------------------------------- functional


def matrix(x: Any) -> Any:
    return (x.t() @ x).tanh()


def scalar(x: Any) -> Any:
    return (x * x.exp()).sum() + x[0, 0] * x[1, 2]


def numeric(f: Any, a: Any, step: float = 1e-6) -> Any:
    rows = []
    for place in np.ndindex(a.shape):
        d = np.zeros(a.shape)
        d[place] = step
        rows.append((f(graphc.tensor(a + d)).numpy() - f(graphc.tensor(a - d)).numpy()) / (2 * step))
    columns = np.array(rows).reshape(*a.shape, *rows[0].shape)
    return np.moveaxis(columns, range(a.ndim), range(columns.ndim - a.ndim, columns.ndim))


def test_jacobian() -> None:
    found = AF.jacobian(matrix, graphc.tensor(A))
    assert found.shape == (3, 3, 2, 3)
    assert not found.requires_grad
    np.testing.assert_allclose(found.numpy(), numeric(matrix, A), atol=1e-8)
    x, y = graphc.tensor([1.0, 2.0]), graphc.tensor([3.0])
    (a, b), (c, d) = AF.jacobian(lambda x, y: (x * y, x.sum()), (x, y))
    assert (a.tolist(), b.tolist(), c.tolist(), d.tolist()) == ([[3, 0], [0, 3]], [[1], [2]], [1, 1], [0])


def test_products_are_those_with_the_jacobian() -> None:
    x = graphc.tensor(A)
    whole = AF.jacobian(matrix, x).numpy()
    v, u = np.cos(np.arange(9.0)).reshape(3, 3), np.sin(np.arange(6.0)).reshape(2, 3)
    out, left = AF.vjp(matrix, x, graphc.tensor(v))
    assert_close(out, matrix(x))
    np.testing.assert_allclose(left.numpy(), np.einsum("ab,abij->ij", v, whole))
    out, right = AF.jvp(matrix, x, graphc.tensor(u))
    assert_close(out, matrix(x))
    np.testing.assert_allclose(right.numpy(), np.einsum("abij,ij->ab", whole, u))
    assert not right.requires_grad
    out, (first, second) = AF.vjp(lambda a, b: (a * b).sum(), (x, x * 2))
    np.testing.assert_allclose(first.numpy(), 2 * A)
    np.testing.assert_allclose(second.numpy(), A)


def test_hessian_and_its_products() -> None:
    x = graphc.tensor(A)
    whole = AF.hessian(scalar, x)
    assert whole.shape == (2, 3, 2, 3)

    def slope(t: Any) -> Any:
        t = t.detach().requires_grad_()
        return grad(scalar(t), t)[0]

    np.testing.assert_allclose(whole.numpy(), numeric(slope, A), atol=1e-7)
    v = np.sin(np.arange(6.0)).reshape(2, 3)
    for product in (AF.vhp, AF.hvp):
        out, found = product(scalar, x, graphc.tensor(v))
        assert out.item() == scalar(x).item()
        np.testing.assert_allclose(found.numpy(), np.einsum("ijkl,kl->ij", whole.numpy(), v))
    (a, b), (c, d) = AF.hessian(lambda p, q: (p * p * q).sum(), (graphc.tensor([2.0]), graphc.tensor([3.0])))
    assert [t.item() for t in (a, b, c, d)] == [6.0, 4.0, 4.0, 0.0]
    assert AF.hessian(lambda t: t.sum(), x).tolist() == np.zeros((2, 3, 2, 3)).tolist()


def test_create_graph() -> None:
    x = leaf()
    for found in (
        AF.jacobian(matrix, x, create_graph=True),
        AF.hessian(scalar, x, create_graph=True),
        AF.vjp(scalar, x, create_graph=True)[1],
        AF.jvp(scalar, x, graphc.ones_like(x), create_graph=True)[1],
        AF.hvp(scalar, x, graphc.ones_like(x), create_graph=True)[1],
    ):
        assert found.requires_grad
    assert gradcheck(lambda t: AF.vhp(scalar, t, graphc.ones_like(t), create_graph=True)[1], x)
    assert not AF.vjp(scalar, x)[1].requires_grad


def test_strict() -> None:
    x, y = graphc.ones(2), graphc.ones(2)
    assert AF.vjp(lambda a, b: a.sum(), (x, y))[1][1].tolist() == [0, 0]
    with pytest.raises(AutogradError, match="independent of input 1"):
        AF.vjp(lambda a, b: a.sum(), (x, y), strict=True)
    with pytest.raises(AutogradError, match="output 0 of the function is independent"):
        AF.jacobian(lambda a: graphc.ones(2), x, strict=True)
    with pytest.raises(AutogradError, match="independent of input 0"):
        AF.hessian(lambda a: a.sum(), x, strict=True)


def test_functional_errors() -> None:
    x = graphc.ones(2)
    with pytest.raises(AutogradError, match="v can only be None"):
        AF.vjp(lambda a: a * 2, x)
    with pytest.raises(ShapeError, match=r"v\[0\]"):
        AF.vjp(lambda a: a * 2, x, graphc.ones(3))
    with pytest.raises(AutogradError, match="v has 2 tensors"):
        AF.jvp(lambda a: a * 2, x, (x, x))
    with pytest.raises(AutogradError, match="single Tensor of one element"):
        AF.hessian(lambda a: a * 2, x)
    with pytest.raises(ArgumentError, match="element 1 is a int"):
        AF.jacobian(lambda a, b: a * b, (x, 3))
    with pytest.raises(UnsupportedError, match="vectorize"):
        AF.jacobian(lambda a: a * 2, x, vectorize=True)
    with pytest.raises(UnsupportedError, match="forward-mode"):
        AF.hessian(lambda a: a.sum(), x, outer_jacobian_strategy="forward-mode")


def test_functional_inside_a_compiled_function() -> None:
    def f(x: Any) -> Any:
        out, product = AF.vjp(matrix, x, graphc.ones(3, 3))
        return (
            out,
            product,
            AF.jacobian(lambda t: t[0] * t[1], x),
            AF.hessian(lambda t: (t[0] * t[1] * t[1]).sum(), x),
            AF.hvp(lambda t: t.exp().sum(), x, x)[1],
            AF.jvp(matrix, x, x)[1],
        )

    assert_same(f, graphc.tensor(A, dtype=graphc.float32))


# ---------------------------------------------------------------- gradcheck


class Wrong(Function):
    """A gradient that is off by a little."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * 2.01 * ctx.saved_tensors[0]


class Constant(Function):
    """A backward that forgets the gradient it is given."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.sum()

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return graphc.ones(2, 3, dtype=graphc.float64)


class Forgetful(Function):
    """A backward that wants every gradient."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.set_materialize_grads(False)
        return x * 2, x * 3

    @staticmethod
    def backward(ctx: Any, g: Any, h: Any) -> Any:
        if g is None:
            return h * 3 if (h != 0).any() else h + 1
        return g * 2 + (0 if h is None else h * 3)


class Moody(Function):
    """A backward that gives something else each time."""

    count = 0

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        Moody.count += 1
        return g * (2 + Moody.count * 1e-9)


@pytest.mark.parametrize("fast", [False, True])
def test_gradcheck_finds_what_is_wrong(fast: bool) -> None:
    assert gradcheck(lambda x, k: (x.sin() * k, x.sum()), (leaf(), 3), fast_mode=fast)
    assert gradcheck(lambda x: x.detach() * 0 + 1, leaf())
    for bad, message in (
        (Wrong.apply, "Jacobian mismatch for output 0 with respect to input 0"),
        (Constant.apply, "not multiplied by grad_output"),
        (Forgetful.apply, "missing gradient of output 0"),
        (Moody.apply, "not reentrant"),
        (lambda x: x.detach() * 2, "expected to be zero"),
    ):
        if bad == Forgetful.apply and fast:
            continue
        with pytest.raises(AutogradError, match=message):
            gradcheck(bad, leaf(), fast_mode=fast)
        assert gradcheck(bad, leaf(), raise_exception=False, fast_mode=fast) is False
    assert gradcheck(Moody.apply, leaf(), nondet_tol=1e-3, fast_mode=fast)
    assert gradcheck(Wrong.apply, leaf(), rtol=0.1, fast_mode=fast)


def test_gradcheck_arguments() -> None:
    with pytest.raises(ArgumentError, match="at least one input tensor to require gradient"):
        gradcheck(lambda x: x * 2, leaf().detach())
    with pytest.raises(UnsupportedError, match="check_forward_ad"):
        gradcheck(lambda x: x * 2, leaf(), check_forward_ad=True)
    with pytest.raises(ArgumentError, match="nothing to check"):
        gradcheck(lambda x: x * 2, leaf(), check_backward_ad=False)
    with pytest.raises(ArgumentError, match="return a Tensor"):
        gradcheck(lambda x: 3, leaf())
    with pytest.raises(ArgumentError, match="share memory"):
        gradcheck(lambda x: x * 2, graphc.ones(1, dtype=graphc.float64).expand(3).requires_grad_())
    with pytest.warns(UserWarning, match="float64"):
        gradcheck(lambda x: x * 2, graphc.ones(2, requires_grad=True), eps=1e-2, atol=1e-2)
    x = leaf()
    before = bits(x)
    gradcheck(lambda t: t.exp(), x)
    assert bits(x) == before
    assert x.grad is None


def test_gradgradcheck() -> None:
    x, y = leaf(), leaf()
    assert gradgradcheck(lambda a, b: ((a * b).sin(), a.exp()), (x, y))
    assert gradgradcheck(lambda a: a.t().exp(), x, gen_non_contig_grad_outputs=True)
    assert gradgradcheck(lambda a: (a**3).sum(), x, graphc.tensor(2.0, dtype=graphc.float64, requires_grad=True))

    class Once(Wrong):
        @staticmethod
        @once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2 * ctx.saved_tensors[0]

    assert gradcheck(Once.apply, leaf())
    with pytest.raises(AutogradError, match="once_differentiable"):
        gradgradcheck(Once.apply, leaf())
    with pytest.raises(UnsupportedError, match="check_fwd_over_rev"):
        gradgradcheck(lambda a: a * 2, x, check_fwd_over_rev=True)
