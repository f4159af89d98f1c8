"""repr of tensors: the texts PyTorch gives (with graphc.float64 for torch.float64)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import graphc
from graphc.errors import ArgumentError


@pytest.fixture(autouse=True)
def default_options() -> Iterator[None]:
    yield
    graphc.set_printoptions(profile="default")


NAN, INF = float("nan"), float("inf")
CASES = [
    ([1.0, 2.0], "tensor([1., 2.])"),
    ([1.5, -2.0], "tensor([ 1.5000, -2.0000])"),
    ([1, -20], "tensor([  1, -20])"),
    ([True, False], "tensor([ True, False])"),
    (3.0, "tensor(3.)"),
    (7, "tensor(7)"),
    (-0.5, "tensor(-0.5000)"),
    ([], "tensor([])"),
    ([[], []], "tensor([], size=(2, 0))"),
    ([0.0, 1e-5], "tensor([0.0000e+00, 1.0000e-05])"),
    ([1e9, 1.0], "tensor([1.0000e+09, 1.0000e+00])"),
    ([1000.0, 1.0], "tensor([1000.,    1.])"),
    ([1001.0, 1.0], "tensor([1.0010e+03, 1.0000e+00])"),
    ([NAN, INF, -INF, 1.0], "tensor([nan, inf, -inf, 1.])"),
    ([NAN, 1.5], "tensor([   nan, 1.5000])"),
    ([0.0, 0.0], "tensor([0., 0.])"),
    ([[1, 2], [3, 4]], "tensor([[1, 2],\n        [3, 4]])"),
    ([[[1.0]], [[2.0]]], "tensor([[[1.]],\n\n        [[2.]]])"),
]


@pytest.mark.parametrize(("values", "text"), CASES, ids=[t for _, t in CASES])
def test_forms(values: object, text: str) -> None:
    assert repr(graphc.tensor(values)) == text
    assert str(graphc.tensor(values)) == text


def test_suffixes() -> None:
    x = graphc.tensor([1.0], requires_grad=True)
    assert repr(x) == "tensor([1.], requires_grad=True)"
    assert repr(x * 2) == "tensor([2.], grad_fn=<MulBackward0>)"
    assert repr(x.double().detach()) == "tensor([1.], dtype=graphc.float64)"
    assert repr(graphc.zeros(0, dtype=graphc.int64)) == "tensor([], dtype=graphc.int64)"
    wide = graphc.full((9,), 1.25, dtype=graphc.float64)
    assert repr(wide) == (
        "tensor([1.2500, 1.2500, 1.2500, 1.2500, 1.2500, 1.2500, 1.2500, 1.2500, 1.2500],\n       dtype=graphc.float64)"
    )


def test_long_rows_break_at_the_line_width() -> None:
    assert repr(graphc.arange(30)) == (
        "tensor([ 0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14, 15, 16, 17,\n"
        "        18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29])"
    )


def test_summary_of_many_elements() -> None:
    assert repr(graphc.arange(1001)) == "tensor([   0,    1,    2,  ...,  998,  999, 1000])"
    assert repr(graphc.arange(1200).reshape(200, 6).float()[:, :1]).count("\n") == 199
    assert repr(graphc.zeros(40, 40)).splitlines()[3] == "        ...,"


def test_print_options() -> None:
    x = graphc.tensor([0.123456789, 12.0])
    graphc.set_printoptions(precision=2)
    assert repr(x) == "tensor([ 0.12, 12.00])"
    graphc.set_printoptions(sci_mode=True)
    assert repr(x) == "tensor([1.23e-01, 1.20e+01])"
    graphc.set_printoptions(profile="default", threshold=4, edgeitems=1)
    assert repr(graphc.arange(5)) == "tensor([0,  ..., 4])"
    graphc.set_printoptions(profile="full")
    assert "..." not in repr(graphc.arange(2000))
    with pytest.raises(ArgumentError, match="profile must be one of default, short, full"):
        graphc.set_printoptions(profile="loud")


def test_a_view_prints_its_own_elements() -> None:
    assert repr(graphc.from_numpy(np.arange(6).reshape(2, 3)).t()[1]) == "tensor([1, 4])"
