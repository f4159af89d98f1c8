"""grid_sample, affine_grid and interpolate: against PyTorch where it is installed; eager and compiled bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc.errors import ArgumentError, DTypeError, ShapeError

FORMS = [
    (places, mode, padding, corners)
    for places, mode, padding, corners in itertools.product(
        (2, 3), ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"), (True, False)
    )
    if not (places == 3 and mode == "bicubic")
]


def image_and_grid(places: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """[2, 3, places] and places in, at and beyond the borders."""
    rng = np.random.default_rng(seed)
    grid = rng.uniform(-2.5, 2.5, (2, *(4, 3, 2)[-places:], places))
    grid.reshape(-1, places)[:2] = [[1.0] * places, [-1.0] * places]
    return rng.standard_normal((2, 3, *(5, 4, 3)[:places])), grid


@pytest.mark.parametrize(("places", "mode", "padding", "corners"), FORMS)
def test_grid_sample_as_torch(places: int, mode: str, padding: str, corners: bool) -> None:
    """Values and both gradients."""
    torch = pytest.importorskip("torch")
    data, grid = image_and_grid(places)

    def run(lib: Any, sample: Any) -> list[Any]:
        x, at = lib.tensor(data, requires_grad=True), lib.tensor(grid, requires_grad=mode != "nearest")
        out = sample(x, at, mode, padding, corners)
        (out * out).sum().backward()
        return [out.detach(), x.grad] if mode == "nearest" else [out.detach(), x.grad, at.grad]

    theirs = run(torch, torch.nn.functional.grid_sample)
    for a, b in zip(run(graphc, F.grid_sample), theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10, atol=1e-11)


def test_bilinear_by_hand() -> None:
    """Each place is the mean of its four neighbours, weighted by nearness; zeros lie outside."""
    x = graphc.arange(6.0).reshape(1, 1, 2, 3)
    grid = graphc.tensor([[[[0.0, 0.0], [-1.0, -1.0], [1.0, 0.5], [2.0, 0.0]]]])
    assert F.grid_sample(x, grid, align_corners=True).flatten().tolist() == [2.5, 0.0, 4.25, 0.0]
    # with outer edges the corner (-1, -1) sees a quarter of its element
    assert F.grid_sample(x + 1, grid, align_corners=False).flatten()[1].item() == 0.25
    assert F.grid_sample(x, grid, "nearest", "border", True).flatten().tolist() == [1.0, 0.0, 5.0, 2.0]


@pytest.mark.parametrize(("mode", "padding"), [("bilinear", "zeros"), ("nearest", "border"), ("bicubic", "reflection")])
def test_compiled_grid_sample(mode: str, padding: str) -> None:
    """A spatial transformer with its gradients."""
    data, _ = image_and_grid(2)
    x = graphc.tensor(data.astype("float32"), requires_grad=True)
    theta = graphc.tensor([[[0.9, 0.2, 0.1], [-0.3, 1.2, 0.4]]] * 2, requires_grad=mode != "nearest")

    def run(x: Any, theta: Any) -> Any:
        x.grad = theta.grad = None
        out = F.grid_sample(x, F.affine_grid(theta, (2, 3, 4, 4), False), mode, padding, False)
        (out * out).sum().backward()
        return out.detach(), x.grad, theta.grad

    graphc.testing.assert_same(run, x, theta, reload=False)


def test_affine_grid() -> None:
    """The identity gives the middles of the elements, and grid_sample at them the image."""
    same = graphc.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    for corners in (True, False):
        grid = F.affine_grid(same, (1, 1, 2, 4), corners)
        x = graphc.arange(8.0).reshape(1, 1, 2, 4)
        np.testing.assert_allclose(F.grid_sample(x, grid, align_corners=corners).numpy(), x.numpy(), atol=1e-6)
    assert grid[0, 0].tolist() == [[-0.75, -0.5], [-0.25, -0.5], [0.25, -0.5], [0.75, -0.5]]


@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid")
def test_affine_grid_as_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    for size, places in (((2, 3, 4, 5), 2), ((2, 3, 1, 2), 2), ((2, 3, 2, 1, 4), 3)):
        theta = rng.standard_normal((2, places, places + 1))
        for corners in (True, False):
            expected = torch.nn.functional.affine_grid(torch.tensor(theta), size, corners).numpy()
            np.testing.assert_allclose(F.affine_grid(graphc.tensor(theta), size, corners).numpy(), expected, atol=1e-14)


MODES = {
    "nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "area": (1, 2, 3), "linear": (1,), "bilinear": (2,),
    "bicubic": (2,), "trilinear": (3,),
}  # fmt: skip


@pytest.mark.parametrize(("mode", "places"), [(mode, n) for mode, many in MODES.items() for n in many])
def test_interpolate_as_torch(mode: str, places: int) -> None:
    """Sizes and factors, those that leave an axis as it is among them."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    for sizes in itertools.product((2, 3), repeat=places):
        data = rng.standard_normal((1, 2, *sizes))
        given: list[dict[str, Any]] = [{"scale_factor": s} for s in (1.3, 2.4, (1.3, 2.4, 1.9)[:places], 3.2, 0.7)]
        given += [{"size": (6, 1, 4)[:places]}, {"scale_factor": 1.3, "recompute_scale_factor": True}]
        for options in given:
            mine = F.interpolate(graphc.tensor(data), mode=mode, **options)
            theirs = torch.nn.functional.interpolate(torch.tensor(data), mode=mode, **options)
            np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-6, atol=1e-6, err_msg=f"{sizes} {options}")


X, G = graphc.ones(1, 1, 3, 3), graphc.zeros(1, 2, 2, 2)
REFUSED: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (ShapeError, "expected", lambda: F.grid_sample(X, G[0])),
    (ShapeError, "expected", lambda: F.grid_sample(X, graphc.zeros(2, 2, 2, 2))),
    (ShapeError, "not be empty", lambda: F.grid_sample(X[:, :, :0], G)),
    (DTypeError, "same dtype", lambda: F.grid_sample(X.double(), G)),
    (DTypeError, "floating-point", lambda: F.grid_sample(X.long(), G)),
    (ArgumentError, "mode must be", lambda: F.grid_sample(X, G, "cubic")),
    (ArgumentError, "padding_mode", lambda: F.grid_sample(X, G, padding_mode="wrap")),
    (ArgumentError, "bicubic for 4-d", lambda: F.grid_sample(X[None], graphc.zeros(1, 2, 2, 2, 3), "bicubic")),
    (ShapeError, "expected theta", lambda: F.affine_grid(graphc.ones(1, 2, 2), (1, 1, 2, 2))),
    (ShapeError, "positive", lambda: F.affine_grid(graphc.ones(1, 2, 3), (1, 1, 0, 2))),
]


@pytest.mark.parametrize(("error", "match", "call"), REFUSED)
def test_refused(error: type[Exception], match: str, call: Callable[[], Any]) -> None:
    """What does not fit is refused with the reason."""
    with pytest.raises(error, match=match):
        call()
