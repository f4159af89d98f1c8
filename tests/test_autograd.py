"""The tape: values of gradients, order, hooks, freed graphs, second derivatives, in-place writes, lifetime."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import AutogradError, DTypeError, GraphcError, ShapeError
from graphc.frontend.autograd import Node
from graphc.frontend.saving import operands_read
from graphc.ir.op import op_named
from graphc.ir.types import TensorType, float32

A = np.arange(6.0).reshape(2, 3) + 0.5


PLACES = graphc.tensor([[0, 0], [2, 1]])


def leaf(array: Any = A) -> graphc.Tensor:
    return graphc.tensor(np.asarray(array, np.float64), requires_grad=True)


def numeric(function: Callable[[graphc.Tensor], graphc.Tensor], array: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences of a scalar function."""
    slopes = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        ends = []
        for sign in (1, -1):
            moved = array.copy()
            moved[place] += sign * step
            ends.append(function(graphc.tensor(moved)).item())
        slopes[place] = (ends[0] - ends[1]) / (2 * step)
    return slopes


def in_place_rows(x: graphc.Tensor) -> graphc.Tensor:
    y = x * 1
    y[0] = y[1] * 3
    y.t()[2].mul_(y[0, 0])
    return (y * y).sum()


def in_place_chain(x: graphc.Tensor) -> graphc.Tensor:
    y = x.clone()
    y.div_(2).sub_(0.1).pow_(2).add_(x).clamp_(0.2, 9.0).exp_()
    return y.sum()


def in_place_self(x: graphc.Tensor) -> graphc.Tensor:
    y = x * 1
    y.mul_(y)
    y += y.sum()
    return (y * x).sum()


def in_place_view_of_view(x: graphc.Tensor) -> graphc.Tensor:
    y = x.clone()
    v = y.view(3, 2)[1:]
    v.t()[0].copy_(x[0, :2] * x[1, 1:])
    v[0, 1] = 2.0
    return (y**3).sum() + (v * v).sum()


def in_place_masks(x: graphc.Tensor) -> graphc.Tensor:
    y = x * 2
    y[y > 5] = 0.0
    y[:, [0, 2]] = x[:, 1:] * x[:, :2]
    y.masked_fill_(y > 20, 1.0)
    return (y * y).sum()


FUNCTIONS = [
    in_place_rows,
    in_place_chain,
    in_place_self,
    in_place_view_of_view,
    in_place_masks,
    lambda x: (x.softmax(1) * x).sum() + x.logsumexp(0).sum() + x.log_softmax(-1)[0, 1],
    lambda x: x.max(1).values.sum() + x.amin(0).prod() + x.var() + x.std(1).sum() + x.norm() + x.norm(3),
    lambda x: graphc.einsum("ij,kj->ik", x, x).tanh().sum() + (x @ x.t()).diag().sum() + graphc.outer(x[0], x[1]).sum(),
    lambda x: graphc.cat([x, x.flip(0) ** 2]).roll(1, 0).tril()[1:].sum() + x.repeat(2, 2)[1:3, 2:].prod(),
    lambda x: (x[[0, 1, 0]] * x[graphc.tensor([1, 1, 0])]).sum() + x.gather(1, PLACES).pow(2).sum(),
    lambda x: (graphc.where(x > 2, x.sqrt(), x * x) + graphc.maximum(x, 1 / x) + x.remainder(1.3)).sum(),
    lambda x: graphc.pad(x, (1, 1), mode="reflect").pow(2).sum(),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(FUNCTIONS)))
def test_gradients_against_differences(number: int) -> None:
    x = leaf()
    FUNCTIONS[number](x).backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), numeric(FUNCTIONS[number], A), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("number", range(5, len(FUNCTIONS)))
def test_second_derivatives_against_differences(number: int) -> None:
    def slope(x: graphc.Tensor) -> graphc.Tensor:
        x = x if x.requires_grad else x.requires_grad_()
        (g,) = graphc.autograd.grad(FUNCTIONS[number](x), x, create_graph=True)
        assert g is not None
        return (g * graphc.tensor(np.cos(A))).sum()

    x = leaf()
    slope(x).backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), numeric(slope, A), rtol=2e-4, atol=1e-5)


def test_in_place_on_a_leaf_of_zeros_takes_the_history_of_what_is_written() -> None:
    x, z = leaf(), graphc.zeros(2, 3, dtype=graphc.float64)
    row = z[0]
    row.copy_(x[1])
    assert z.requires_grad
    assert row.requires_grad
    (z * z).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), [[0, 0, 0], 2 * A[1]])


# ---------------------------------------------------------------- order and accumulation


def test_contributions_add_from_the_last_use_to_the_first() -> None:
    x = graphc.tensor([1.0], requires_grad=True)
    big, small = 1e8, 1.0
    y = x * small + (x * -big + x * big)  # uses in order: small, -big, big
    y.backward()
    expected = (np.float32(big) + np.float32(-big)) + np.float32(small)
    assert x.grad is not None
    assert x.grad.item() == expected == 1.0
    z = graphc.tensor([1.0], requires_grad=True)
    ((z * big + z * small) + z * -big).backward()  # -big + small is -big in float32, then + big
    assert z.grad is not None
    assert z.grad.item() == np.float32(np.float32(-big) + np.float32(small)) + np.float32(big)


def test_grad_accumulates_in_the_same_memory_and_shares_none() -> None:
    x, y = leaf(), leaf()
    (x + y).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad._s is not y.grad._s
    first = x.grad
    (x * 2).sum().backward()
    assert x.grad is first
    assert first.tolist() == [[3.0] * 3] * 2
    x.grad = None
    (x * 2).sum().backward()
    assert x.grad is not first


def test_backward_of_inputs_and_grad_touch_nothing_else() -> None:
    x, y = leaf(), leaf()
    z = (x * y).sum()
    z.backward(inputs=[x], retain_graph=True)
    assert y.grad is None
    assert x.grad is not None
    g, unused = graphc.autograd.grad(z, [y, leaf()], allow_unused=True)
    assert g is not None
    assert g.tolist() == A.tolist()
    assert unused is None
    assert y.grad is None


# ---------------------------------------------------------------- hooks


def test_hooks_of_leaves_and_results() -> None:
    x, seen = leaf(), []
    y = x * 2
    first = y.register_hook(lambda g: seen.append("y") or g * 10)
    handle = x.register_hook(lambda g: seen.append("x") or None)
    y.retain_grad()
    y.sum().backward()
    assert seen == ["y", "x"]
    assert x.grad is not None
    assert x.grad.tolist() == [[20.0] * 3] * 2
    assert y.grad is not None
    assert y.grad.tolist() == [[10.0] * 3] * 2
    handle.remove()
    handle.remove()
    first.remove()
    (x * 3).sum().backward()
    assert seen == ["y", "x"]


def test_node_hooks_see_and_replace_gradients() -> None:
    x = leaf()
    y = (x * 3).sum()
    node = y.grad_fn.next_functions[0][0]
    seen = []
    node.register_hook(lambda ins, outs: seen.append((len(ins), outs[0].tolist())) or (ins[0] * 2, None))
    y.backward()
    assert seen == [(2, [[1.0] * 3] * 2)]
    assert x.grad is not None
    assert x.grad.tolist() == [[6.0] * 3] * 2


def test_a_retained_gradient_follows_an_in_place_write() -> None:
    y = leaf() * 2
    y.retain_grad()
    y.mul_(3)
    y.sum().backward()
    assert y.grad is not None
    assert y.grad.tolist() == [[1.0] * 3] * 2
    assert y.retains_grad


# ---------------------------------------------------------------- properties


def test_leaves_and_nodes() -> None:
    x = leaf()
    y = x * 2
    assert (x.is_leaf, x.grad_fn, y.is_leaf, y.requires_grad, y.output_nr) == (True, None, False, True, 0)
    assert isinstance(y.grad_fn, Node)
    assert y.grad_fn.name() == "MulBackward0"
    assert repr(y.grad_fn.next_functions[0][0]) == "<AccumulateGrad>"
    assert y.grad_fn.next_functions[1] == (None, 0)
    assert y.detach().is_leaf
    assert not (x > 1).requires_grad
    assert not x.argmax().requires_grad
    assert not x.long().requires_grad
    y.detach_()
    assert (y.requires_grad, y.is_leaf) == (False, True)
    x.requires_grad_(False)
    assert not x.requires_grad
    twin = copy.deepcopy(leaf())
    assert twin.requires_grad


def test_variable_is_the_old_spelling_of_a_leaf() -> None:
    data = graphc.ones(2)
    x = graphc.autograd.Variable(data, requires_grad=True)
    (x * 3).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 3.0]
    assert not data.requires_grad
    assert x._s is data._s
    assert graphc.autograd.Variable(data) is data


def test_modes() -> None:
    x = leaf()

    @graphc.no_grad()
    def twice(t: graphc.Tensor) -> graphc.Tensor:
        return t * 2

    @graphc.no_grad
    def thrice(t: graphc.Tensor) -> graphc.Tensor:
        return t * 3

    with graphc.no_grad():
        assert not (x * 2).requires_grad
        with graphc.enable_grad():
            assert (x * 2).requires_grad
        assert not graphc.is_grad_enabled()
        x.add_(1)
    with graphc.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    with graphc.inference_mode():
        assert not (x * 2).requires_grad
    assert not twice(x).requires_grad
    assert not thrice(x).requires_grad
    assert graphc.is_grad_enabled()
    with pytest.raises(ZeroDivisionError), graphc.no_grad():
        raise ZeroDivisionError
    assert graphc.is_grad_enabled()


# ---------------------------------------------------------------- what is kept, and what is refused


def test_only_what_the_wanted_gradients_read_is_kept() -> None:
    x, w = leaf(), leaf(A.T)
    assert [s is not None for s in (x * 2).grad_fn.saved_in] == [False, True]
    assert [s is not None for s in (x * x).grad_fn.saved_in] == [True, True]
    assert [s is not None for s in (x @ w.detach()).grad_fn.saved_in] == [False, True]
    assert [s is not None for s in (x + 1).grad_fn.saved_in] == [False, False]
    t = TensorType(float32, (2,))
    mul = op_named("mul")
    assert operands_read(mul, (t, t), (t,), {}, (True, False)) == ("1",)
    assert operands_read(mul, (t, t), (t,), {}, (False, True)) == ("0",)


def test_the_gradient_of_no_leaf_is_asked_for_in_vain() -> None:
    x = leaf()
    y = x * 2
    with pytest.warns(UserWarning, match=r"grad: f64\[2, 3\] is the result of an operation.*retain_grad") as caught:
        assert y.grad is None
    assert caught[0].filename == __file__
    y.retain_grad()
    assert y.grad is None and x.grad is None and x.detach().grad is None
    y.sum().backward()
    assert graphc.equal(y.grad, graphc.ones_like(x))


def test_an_output_that_no_gradient_reads_may_be_written() -> None:
    """Batch norm and max pooling read their other outputs only: `relu(inplace=True)` may follow."""
    image = np.random.default_rng(0).standard_normal((3, 2, 4, 4))

    def grad(inplace: bool, layer: Any) -> Any:
        x = leaf(image)
        y = layer(x)
        (y.relu_() if inplace else y.relu()).square().sum().backward()
        return x.grad

    for layer in (graphc.nn.BatchNorm2d(2).double(), graphc.nn.MaxPool2d(2)):
        assert graphc.equal(grad(True, layer), grad(False, layer))
    x = leaf(image)
    y = graphc.nn.BatchNorm2d(2).double()(x)
    assert [s is not None for s in y.grad_fn.saved_out] == [False, True, True]


def saved_operand(x: graphc.Tensor) -> None:
    y = x * 1
    z = y * y
    y.add_(1)
    z.sum().backward()


def saved_output(x: graphc.Tensor) -> None:
    y = x.exp()
    y.add_(1)
    y.sum().backward()


def saved_through_a_view(x: graphc.Tensor) -> None:
    y = x * 1
    z = y * y
    y[0].zero_()
    z.sum().backward()


def saved_through_detach(x: graphc.Tensor) -> None:
    z = (x * x).sum()
    x.detach().add_(1)
    z.backward()


@pytest.mark.parametrize("function", [saved_operand, saved_output, saved_through_a_view, saved_through_detach])
def test_a_saved_tensor_must_not_change(function: Callable[[graphc.Tensor], None]) -> None:
    with pytest.raises(
        AutogradError, match=r"modified by an inplace operation: a tensor f64.* is at version 1; expected version 0"
    ):
        function(leaf())


def test_data_hides_a_write_from_the_tape() -> None:
    x = leaf()
    z = (x * x).sum()
    x.data.add_(1)
    z.backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), 2 * (A + 1))


def twice_backward(x: graphc.Tensor) -> None:
    y = (x * x).sum()
    y.backward()
    y.backward()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (twice_backward, AutogradError, "Trying to backward through the graph a second time"),
        (lambda x: (x * 2).backward(), AutogradError, "grad can be implicitly created only for scalar outputs"),
        (lambda x: x.detach().sum().backward(), AutogradError, "does not require grad and does not have a grad_fn"),
        (lambda x: (x * 2).backward(graphc.ones(3)), ShapeError, "backward: the gradient is f32\\[3\\]"),
        (lambda x: x.add_(1), AutogradError, "add_: a leaf Variable that requires grad"),
        (lambda x: x[0].mul_(2), AutogradError, "mul_: a view of a leaf Variable that requires grad"),
        (lambda x: x.__setitem__(0, 1), AutogradError, "setitem: a leaf Variable"),
        (lambda x: graphc.autograd.grad(x.sum(), leaf()), AutogradError, "input 0 .* appears to not have been used"),
        (lambda x: graphc.autograd.grad(x.sum(), x.detach()), AutogradError, "does not require grad"),
        (lambda x: (x * 2).requires_grad_(False), AutogradError, "only change requires_grad flags of leaf variables"),
        (
            lambda x: graphc.tensor([1]).requires_grad_(),
            AutogradError,
            "only floating-point tensors can require gradients",
        ),
        (lambda x: graphc.tensor([1], requires_grad=True), DTypeError, "floating point dtype can require gradients"),
        (lambda x: x.numpy(), AutogradError, "can't call numpy\\(\\) on a Tensor that requires grad"),
        (lambda x: np.asarray(x), AutogradError, "can't call numpy\\(\\)"),
        (lambda x: setattr(x, "grad", graphc.zeros(2)), DTypeError, "grad: assigned grad has data of a different type"),
        (lambda x: setattr(x, "grad", x.detach()[0]), ShapeError, "grad: assigned grad has data of a different size"),
        (lambda x: setattr(x, "grad", 1), GraphcError, "grad: assigned grad must be a Tensor or None, got int"),
        (lambda x: setattr(x, "grad", x), AutogradError, "can't assign Variable as its own grad"),
        (lambda x: setattr(x, "data", graphc.zeros(2)), DTypeError, "data: cannot replace f64"),
        (lambda x: x.detach().register_hook(print), AutogradError, "cannot register a hook"),
        (lambda x: x.detach().retain_grad(), AutogradError, "can't retain_grad"),
        (lambda x: (x * 1)[0].detach_(), AutogradError, "can't detach views in-place"),
        (lambda x: copy.deepcopy(x * 1), AutogradError, "graph leaves"),
        (lambda x: (x * 1).expand(2, 2, 3).add_(1), ShapeError, "more than one element of the written-to tensor"),
    ],
)
def test_bad_calls(call: Callable[[graphc.Tensor], object], kind: type[Exception], message: str) -> None:
    x = leaf()
    with pytest.raises(kind, match=message):
        call(x)
    assert x.tolist() == A.tolist()


# ---------------------------------------------------------------- lifetime


def test_the_tape_makes_no_cycles() -> None:
    gc.collect()
    gc.disable()
    try:
        x = leaf()
        y = x.exp()
        view = y[0]
        y.retain_grad()
        z = (y * x).sum()
        z.backward(retain_graph=True)
        references = [weakref.ref(t) for t in (x, y, view, z, z.grad_fn)]
        del x, y, view, z
        assert [r() for r in references] == [None] * len(references)
    finally:
        gc.enable()


def test_backward_frees_what_was_kept() -> None:
    x = leaf()
    y = x.exp()
    kept = weakref.ref(y._s)
    z = y.sin().sum()
    del y
    assert kept() is not None
    z.backward()
    assert kept() is None


PARTS: dict[str, Callable[[Any], Any]] = {
    "split": lambda y: y.split(1)[0],
    "split_with_sizes": lambda y: y.split_with_sizes([1, 2])[1],
    "chunk": lambda y: y.chunk(2)[0],
    "unbind": lambda y: y.unbind()[1],
    "iteration": lambda y: next(iter(y)),
    "a view of one": lambda y: y.unbind()[1][0:1],
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_views_made_together_are_not_written_with_gradients(part: Callable[[Any], Any]) -> None:
    y = graphc.ones(3, 2, requires_grad=True) * 2
    message = r"_: this tensor is an output of \w+\(\), a function that returns multiple views"
    with pytest.raises(AutogradError, match=message):
        part(y).mul_(3)
    with pytest.raises(AutogradError, match=message):
        part(y).zero_()
    plain = graphc.zeros(3, 2)
    with pytest.raises(AutogradError, match=message):
        part(plain).copy_(y[0, 0])
    assert (y == 2).all()
    assert (plain == 0).all()
    part(plain).add_(1)  # without gradients it is a write like any other
    part(y).detach().add_(1)
    with graphc.no_grad():
        part(y).add_(1)
    assert plain.sum().item() * 2 == y.sum().item() - 12
    assert plain.sum().item() > 0


def test_a_view_made_without_gradients_is_not_written_with_them() -> None:
    x = graphc.ones(2, requires_grad=True)
    y = x * 1
    with graphc.no_grad():
        view = y[0:1]
        view.mul_(2)
    with pytest.raises(AutogradError, match="mul_: a view created under no_grad"):
        view.mul_(2)
    assert y.tolist() == [2, 1]
    free = graphc.ones(2)
    with graphc.no_grad():
        view = free[0:1]
    view.mul_(2)
    assert free.tolist() == [2, 1]
