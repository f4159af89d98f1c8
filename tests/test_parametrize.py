"""Parametrizations, weight and spectral norms: against PyTorch where it is installed, eager and compiled bits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.errors import ArgumentError, DTypeError, RecordingError, ShapeError, StateError
from graphc.nn.utils import parametrizations, parametrize, remove_spectral_norm, remove_weight_norm

Make = Callable[[Any], Any]


def symmetric(lib: Any, double: bool = False) -> Any:
    """A Linear(4, 4) whose weight is symmetric (and doubled)."""

    class Symmetric(lib.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x.triu() + x.triu(1).transpose(-1, -2)

        def right_inverse(self, a: Any) -> Any:
            return a.triu()

    class Double(lib.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x * 2

        def right_inverse(self, a: Any) -> Any:
            return a / 2

    layer = lib.nn.Linear(4, 4)
    lib.nn.utils.parametrize.register_parametrization(layer, "weight", Symmetric())
    if double:
        lib.nn.utils.parametrize.register_parametrization(layer, "weight", Double())
        lib.nn.utils.parametrize.register_parametrization(layer, "bias", Double())
    return layer


def normed(lib: Any) -> Any:
    """nn.utils.parametrizations of either library."""
    return lib.nn.utils.parametrizations


CASES: dict[str, tuple[Make, tuple[int, ...]]] = {
    "weight": (lambda lib: normed(lib).weight_norm(lib.nn.Linear(4, 3)), (5, 4)),
    "weight of all": (lambda lib: normed(lib).weight_norm(lib.nn.Linear(4, 3), dim=None), (5, 4)),
    "weight dim 1": (lambda lib: normed(lib).weight_norm(lib.nn.Conv2d(2, 3, 3), dim=1), (2, 2, 5, 5)),
    "spectral": (lambda lib: normed(lib).spectral_norm(lib.nn.Linear(4, 3)), (5, 4)),
    "spectral transposed": (
        lambda lib: normed(lib).spectral_norm(lib.nn.ConvTranspose2d(2, 3, 3), n_power_iterations=2),
        (2, 2, 5, 5),
    ),
    "recurrent": (
        lambda lib: normed(lib).weight_norm(normed(lib).weight_norm(lib.nn.GRU(4, 3), "weight_hh_l0"), "weight_ih_l0"),
        (5, 2, 4),
    ),
    "own": (lambda lib: symmetric(lib, True), (5, 4)),
    "older weight": (lambda lib: lib.nn.utils.weight_norm(lib.nn.Conv1d(4, 3, 2)), (5, 4, 6)),
    "older spectral": (lambda lib: lib.nn.utils.spectral_norm(lib.nn.Linear(4, 3)), (5, 4)),
}


def output(model: Any, x: Any) -> Any:
    """The first result of a model."""
    found = model(x)
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("name", list(CASES))
def test_training_as_torch(name: str) -> None:
    """Keys, text, losses, trained values and evaluation."""
    torch = pytest.importorskip("torch")
    make, shape = CASES[name]
    mine, theirs = make(graphc).double(), make(torch).double()
    assert list(mine.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in mine.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert repr(mine) == repr(theirs)
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in mine.state_dict().items()})
    data = np.random.default_rng(1).standard_normal(shape)
    pairs = [(mine, optim, graphc.tensor(data)), (theirs, torch.optim, torch.tensor(data))]
    losses: list[list[float]] = []
    for model, optimisers, x in pairs:
        optimizer = optimisers.SGD(model.parameters(), lr=0.05, momentum=0.9)
        losses.append([])
        for _ in range(3):
            optimizer.zero_grad()
            loss = output(model, x).square().mean()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
        model.eval()
        losses[-1].append(output(model, x).sum().item())
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-10)
    for k, v in theirs.state_dict().items():
        np.testing.assert_allclose(mine.state_dict()[k].numpy(), v.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["weight", "spectral", "own", "older spectral"])
def test_compiled_training(name: str) -> None:
    """A whole step, power method and momentum included."""
    make, shape = CASES[name]
    graphc.manual_seed(3)
    model = make(graphc)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = output(model, x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    graphc.testing.assert_same(step, graphc.randn(*shape), state=(model, optimizer), reload=False)


def test_own_parametrization() -> None:
    """Assignment, several in a row, copies and both ways to take them away."""
    layer = symmetric(graphc, True)
    layer.weight = graphc.ones(4, 4)
    held: Any = layer.parametrizations
    assert held.weight.original.tolist() == graphc.ones(4, 4).triu().div(2).tolist()
    assert layer.weight.tolist() == graphc.ones(4, 4).tolist() and parametrize.is_parametrized(layer, "bias")
    assert parametrize.type_before_parametrizations(layer) is nn.Linear
    other = copy.deepcopy(layer)
    original = held.weight.original
    parametrize.remove_parametrizations(layer, "weight")
    assert layer.weight is original and original.tolist() == graphc.ones(4, 4).tolist()
    bias = held.bias.original
    parametrize.remove_parametrizations(layer, "bias", leave_parametrized=False)
    assert layer.bias is bias and type(layer) is nn.Linear and list(layer.state_dict()) == ["weight", "bias"]
    assert parametrize.is_parametrized(other, "weight") and other.weight.tolist() == graphc.ones(4, 4).tolist()


def test_compiled_modules_follow() -> None:
    """Parametrizing and undoing it reaches a module that is compiled already."""
    layer, x = nn.Linear(4, 4), graphc.randn(2, 4)
    compiled = graphc.compile(layer, fullgraph=True)

    def same() -> None:
        for _ in range(3):
            assert compiled(x).tolist() == layer(x).tolist()

    same()
    parametrizations.weight_norm(layer)
    with graphc.no_grad():
        layer.parametrizations.weight.original0.mul_(3.0)  # type: ignore[union-attr, operator]
    same()
    parametrize.remove_parametrizations(layer, "weight")
    same()
    assert compiled.stats.hits == 3


def test_cached() -> None:
    """Inside of cached() a weight is computed once, and compiled functions run eagerly."""
    layer, x = symmetric(graphc), graphc.randn(2, 4)
    compiled = graphc.compile(layer, fullgraph=True)
    for _ in range(3):
        expected = compiled(x).tolist()
    hits = compiled.stats.hits
    assert layer.weight is not layer.weight
    with parametrize.cached():
        assert layer.weight is layer.weight
        assert compiled(x).tolist() == expected
    assert compiled.stats.hits == hits and layer.weight is not layer.weight

    def inside(x: Any) -> Any:
        with parametrize.cached():
            return layer(x)

    with pytest.raises(RecordingError, match="cached"):
        graphc.compile(inside, fullgraph=True)(x)


def test_older_forms() -> None:
    """Their state loads into the newer one; removing leaves the value."""
    old, new = nn.utils.weight_norm(nn.Linear(4, 3)), parametrizations.weight_norm(nn.Linear(4, 3))
    assert list(old.state_dict()) == ["bias", "weight_g", "weight_v"]
    new.load_state_dict(old.state_dict())
    assert new.weight.tolist() == old.weight.tolist()
    value = old.weight.tolist()
    remove_weight_norm(old)
    assert type(old) is nn.Linear and old.weight.tolist() == value and isinstance(old.weight, nn.Parameter)
    layer = nn.utils.spectral_norm(nn.Linear(4, 3), n_power_iterations=9)
    layer(graphc.randn(1, 4))
    assert float(np.linalg.norm(layer.weight.detach().numpy(), 2)) == pytest.approx(1.0, abs=1e-3)
    value = layer.weight.tolist()
    remove_spectral_norm(layer)
    assert layer.weight.tolist() == value and not layer._forward_pre_hooks


class Half(nn.Module):
    """Not what a parametrization may be."""

    def __init__(self, part: Callable[[Any], Any]) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Any) -> Any:
        """Part of `x`."""
        return self.part(x)


register, remove = parametrize.register_parametrization, parametrize.remove_parametrizations
REFUSED: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (ArgumentError, "with name 'wide'", lambda: register(nn.Linear(2, 2), "wide", Half(abs))),
    (
        ShapeError, "keep the shape",
        lambda: register(nn.Linear(2, 2), "weight", Half(lambda x: x[:1])),
    ),
    (
        DTypeError, "keep the dtype",
        lambda: register(nn.Linear(2, 2), "weight", Half(lambda x: x.double())),
    ),
    (ShapeError, "keep the shape", lambda: register(symmetric(graphc), "weight", Half(sum))),
    (ArgumentError, "must return a Tensor", lambda: register(nn.Linear(2, 2), "bias", Half(id))),
    (ArgumentError, "a parametrization on bias", lambda: remove(symmetric(graphc), "bias")),
    (
        ArgumentError, "sequence of tensors",
        lambda: remove(parametrizations.weight_norm(nn.Linear(2, 2)), "weight", False),
    ),
    (
        StateError, "right_inverse",
        lambda: setattr(
            register(nn.Linear(2, 2), "weight", Half(abs)), "weight", graphc.ones(2, 2)
        ),
    ),
    (StateError, "is computed", lambda: setattr(symmetric(graphc), "weight", nn.Parameter(graphc.ones(4, 4)))),
    (StateError, "is computed", lambda: nn.utils.weight_norm(nn.utils.weight_norm(nn.Linear(2, 2)))),
    (ArgumentError, "not found", lambda: remove_weight_norm(nn.Linear(2, 2))),
    (ArgumentError, "to be positive", lambda: parametrizations.spectral_norm(nn.Linear(2, 2), n_power_iterations=0)),
    (ArgumentError, "out of range", lambda: parametrizations.weight_norm(nn.Linear(2, 2), dim=2)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "match", "call"), REFUSED)
def test_refused(error: type[Exception], match: str, call: Callable[[], Any]) -> None:
    """What does not fit is refused with the reason."""
    with pytest.raises(error, match=match):
        call()
