"""The same programs in PyTorch and here: values, dtypes, shapes, error classes. Visibly skipped without torch.

The cases are deliberately terse: `N` is torch or graphc, `x` a tensor. What differs on purpose is not listed: PyTorch
refuses numbers in maximum(), bool in argmax() and integer division by zero, and its names of tape nodes are its own.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch", reason="torch is not installed: the comparisons with PyTorch are not run")
pytestmark = pytest.mark.filterwarnings("ignore")

Case = Callable[..., Any]
NAMES = ("bool", "int64", "float32", "float64")
VALUES = [1.0, 2.0, -3.0, 0.0, 5.0, 2.5]


def data(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    return np.resize(np.array(VALUES), count).reshape(shape).astype(dtype)


def ramp(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def outcome(function: Case, *args: Any) -> tuple[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return "value", function(*args)
        except Exception as error:
            return "error", error


def plain(result: Any) -> Any:
    """A result as Python and NumPy objects: dtype name, shape, elements."""
    if isinstance(result, (tuple, list)):
        return [plain(x) for x in result]
    if hasattr(result, "detach"):
        values = np.array(result.detach().tolist(), dtype=np.float64)
        return (str(result.dtype).split(".")[-1], tuple(result.shape), values)
    return result


def same(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, tuple) and len(a) == 3 and isinstance(a[2], np.ndarray):
        tolerance = 1e-5 if a[0] == "float32" else 1e-9
        alike = isinstance(b, tuple) and a[:2] == b[:2]
        return alike and np.allclose(a[2], b[2], rtol=tolerance, atol=tolerance, equal_nan=True)
    if isinstance(a, float) and isinstance(b, float):
        return a == pytest.approx(b, rel=1e-5, nan_ok=True)
    return type(a) is type(b) and bool(a == b)


def compare(function: Case, *arrays: Any) -> None:
    def given(N: Any) -> list[Any]:
        return [N.tensor(a) if isinstance(a, np.ndarray) else a for a in arrays]

    theirs, ours = outcome(function, torch, *given(torch)), outcome(function, graphc, *given(graphc))
    note = f"{function.__name__} (line {function.__code__.co_firstlineno}) of {arrays}: torch {theirs}, graphc {ours}"
    assert theirs[0] == ours[0], note
    if theirs[0] == "value":
        assert same(plain(theirs[1]), plain(ours[1])), note
        return
    expected = type(theirs[1])
    assert isinstance(ours[1], graphc.errors.GraphcError) or "tuple index" in str(theirs[1]), note
    if expected not in (
        NotImplementedError,
        RuntimeError,
    ):  # a RuntimeError of PyTorch often has a more precise class here
        assert isinstance(ours[1], expected), note


# ---------------------------------------------------------------- promotion

BINARY: dict[str, Case] = {
    "add": lambda N, x, y: x + y,
    "sub": lambda N, x, y: x - y,
    "mul": lambda N, x, y: x * y,
    "div": lambda N, x, y: x / y,
    "eq": lambda N, x, y: x == y,
    "lt": lambda N, x, y: x < y,
    "and": lambda N, x, y: x & y,
    "alpha": lambda N, x, y: N.sub(x, y, alpha=2),
    "where": lambda N, x, y: N.where(N.tensor([[True, False, True], [False, True, False]]), x, y),
    "clamp": lambda N, x, y: N.clamp(x, max=y),
    "add_": lambda N, x, y: x.add_(y),
    "mul_": lambda N, x, y: x.mul_(y),
    "div_": lambda N, x, y: x.div_(y),
    "copy_": lambda N, x, y: x.copy_(y),
}
OPERANDS: list[Any] = [*(data(d, s) for s in ((2, 3), ()) for d in NAMES), True, 3, 2.5, -1]


@pytest.mark.parametrize("name", BINARY)
def test_promotion_of_two_operands(name: str) -> None:
    for x in OPERANDS:
        for y in OPERANDS:
            if isinstance(x, np.ndarray) or (isinstance(y, np.ndarray) and not name.endswith("_")):
                compare(BINARY[name], x, y)


DIVISION: list[Case] = [
    lambda N, x, y: x // y,
    lambda N, x, y: x % y,
    lambda N, x, y: N.div(x, y, rounding_mode="floor"),
    lambda N, x, y: N.div(x, y, rounding_mode="trunc"),
    lambda N, x, y: x**y,
]


@pytest.mark.parametrize("function", DIVISION)
def test_division_and_powers(function: Case) -> None:
    divisors = [np.array([[1, 2, -3], [4, -5, 2]]), np.array([[1.5, 2, -3], [0, 5, -2]], np.float32), 3, 2.5, -2.0]
    for x in (data(d, s) for s in ((2, 3), ()) for d in ("int64", "float32", "float64")):
        for y in divisors:
            compare(
                function, np.abs(x) if function is DIVISION[-1] else x, np.abs(y) if function is DIVISION[-1] else y
            )


UNARY = [
    "abs",
    "neg",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "sin",
    "cos",
    "tan",
    "tanh",
    "sigmoid",
    "erf",
    "floor",
    "ceil",
    "trunc",
    "round",
    "sign",
    "relu",
    "square",
    "isnan",
    "isinf",
    "isfinite",
    "log1p",
    "expm1",
    "log2",
    "log10",
    "logical_not",
    "bitwise_not",
    "sum",
    "mean",
    "prod",
    "amax",
    "amin",
    "any",
    "all",
    "var",
    "std",
    "norm",
    "max",
    "min",
    "flatten",
    "t",
    "clone",
    "nonzero",
    "unbind",
    "count_nonzero",
    "deg2rad",
    "nan_to_num",
]


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_operand(name: str) -> None:
    for d in NAMES:
        for shape in ((2, 3), (), (6,)):
            compare(lambda N, x: getattr(N, name)(x), data(d, shape))


@pytest.mark.parametrize(
    "name",
    [
        "sum",
        "mean",
        "amax",
        "amin",
        "var",
        "std",
        "norm",
        "logsumexp",
        "max",
        "min",
        "prod",
        "argmax",
        "argmin",
        "any",
        "all",
    ],
)
def test_reductions_along_axes(name: str) -> None:
    dims: tuple[Any, ...] = (0, 1, -1, 2, -3)
    if name not in ("max", "min", "prod", "argmax", "argmin"):
        dims += ((0, 1), (1,), (0, 0))

    def call(N: Any, x: Any, dim: Any, keepdim: bool) -> Any:
        return x.norm(2, dim, keepdim) if name == "norm" else getattr(x, name)(dim, keepdim=keepdim)

    for dtype in NAMES[1:]:
        for dim in dims:
            for keepdim in (False, True):
                compare(call, data(dtype, (2, 3)), dim, keepdim)


# ---------------------------------------------------------------- shapes, conversions, products, places

FORMS: list[Case] = [
    lambda N, x: x.reshape(6, 4),
    lambda N, x: x.reshape(-1),
    lambda N, x: x.reshape((4, -1)),
    lambda N, x: x.reshape(5, 5),
    lambda N, x: x.view(2, -1),
    lambda N, x: x.transpose(0, 1).view(6, 4),
    lambda N, x: x.transpose(0, 1).reshape(6, 4),
    lambda N, x: x.flatten(),
    lambda N, x: x.flatten(1),
    lambda N, x: x.flatten(0, 1),
    lambda N, x: x.flatten(2, 1),
    lambda N, x: x.unflatten(0, (1, -1)),
    lambda N, x: x.permute(tuple(reversed(range(x.dim())))),
    lambda N, x: x.permute(0, 0),
    lambda N, x: x.transpose(0, -1),
    lambda N, x: x.t(),
    lambda N, x: x.T,
    lambda N, x: x.squeeze(),
    lambda N, x: x.unsqueeze(0),
    lambda N, x: x.unsqueeze(-1),
    lambda N, x: x.unsqueeze(5),
    lambda N, x: x.unsqueeze(0).squeeze(0),
    lambda N, x: x.expand(2, *x.shape),
    lambda N, x: x.expand(-1, -1),
    lambda N, x: x.narrow(0, 1, 1),
    lambda N, x: x.narrow(0, -1, 1),
    lambda N, x: x.narrow(0, 1, 5),
    lambda N, x: x.select(0, 1),
    lambda N, x: x.select(0, -1),
    lambda N, x: x.select(0, 9),
    lambda N, x: x.split(2),
    lambda N, x: x.split([1, 1]),
    lambda N, x: x.split(2, -1),
    lambda N, x: x.chunk(2),
    lambda N, x: x.chunk(3, -1),
    lambda N, x: x.chunk(0),
    lambda N, x: x.unbind(),
    lambda N, x: x.unbind(-1),
    lambda N, x: N.cat([x, x]),
    lambda N, x: N.cat([x, x], -1),
    lambda N, x: N.cat([x, x], 7),
    lambda N, x: N.stack([x, x]),
    lambda N, x: N.stack([x, x], -1),
    lambda N, x: x.flip(0),
    lambda N, x: x.flip((0, -1)),
    lambda N, x: x.roll(1),
    lambda N, x: x.roll(1, 0),
    lambda N, x: x.roll((1, 2), (0, -1)),
    lambda N, x: x.repeat(2, 1, 1, 2),
    lambda N, x: x.repeat(2),
    lambda N, x: N.tile(x, (2,)),
    lambda N, x: x.repeat_interleave(2),
    lambda N, x: x.repeat_interleave(2, 0),
    lambda N, x: x.tril(),
    lambda N, x: x.triu(1),
    lambda N, x: x.triu(-1),
    lambda N, x: N.nn.functional.pad(x, (1, 2)) if N is torch else N.pad(x, (1, 2)),
    lambda N, x: N.nn.functional.pad(x, (1, -1)) if N is torch else N.pad(x, (1, -1)),
    lambda N, x: N.nn.functional.pad(x, (1, 1), value=3.0) if N is torch else N.pad(x, (1, 1), value=3.0),
    lambda N, x: x.numel(),
    lambda N, x: x.size(),
    lambda N, x: x.size(0),
    lambda N, x: x.size(-1),
    lambda N, x: x.size(4),
    lambda N, x: x.dim(),
    lambda N, x: x.ndim,
    lambda N, x: len(x),
    lambda N, x: x.shape,
    lambda N, x: x.transpose(0, -1).is_contiguous(),
    lambda N, x: x.contiguous().is_contiguous(),
    lambda N, x: x.storage_offset(),
    lambda N, x: x[1:].storage_offset(),
    lambda N, x: x.element_size(),
    lambda N, x: x.tolist(),
    lambda N, x: x.item(),
    lambda N, x: x.sum().item(),
    lambda N, x: bool(x),
    lambda N, x: float(x),
    lambda N, x: int(x),
    lambda N, x: x.gather(0, N.zeros(x.shape, dtype=N.long)),
    lambda N, x: x.gather(-1, N.ones(x.shape, dtype=N.long)),
    lambda N, x: x.gather(0, N.full(x.shape, 7)),
    lambda N, x: x.index_select(0, N.tensor([1, 0, 1])),
    lambda N, x: x.index_select(-1, N.tensor([1, 0, 1])),
    lambda N, x: x.index_select(0, N.tensor([9])),
    lambda N, x: x.scatter(0, N.zeros(x.shape, dtype=N.long), x),
    lambda N, x: x.scatter(-1, N.zeros(x.shape, dtype=N.long), 5.0),
    lambda N, x: x.scatter_add(0, N.zeros(x.shape, dtype=N.long), x),
    lambda N, x: x.index_add(0, N.tensor([0, 0]), x[:2]),
    lambda N, x: x.index_fill(0, N.tensor([1]), 7.0),
    lambda N, x: x.masked_fill(x > 2, 0),
    lambda N, x: x.masked_fill(x, 0),
    lambda N, x: x.masked_select(x > 2),
    lambda N, x: x.nonzero(),
    lambda N, x: x.new_zeros(2),
    lambda N, x: x.new_full((2,), 3),
    lambda N, x: N.zeros_like(x),
    lambda N, x: N.full_like(x, 2.5),
    lambda N, x: N.ones_like(x, dtype=N.long),
    lambda N, x: x.to(N.float64),
    lambda N, x: x.to("cpu"),
    lambda N, x: x.double(),
    lambda N, x: x.long(),
    lambda N, x: x.bool(),
    lambda N, x: x.type_as(N.zeros(1, dtype=N.long)),
    lambda N, x: x @ x,
    lambda N, x: x @ x.T,
    lambda N, x: x.matmul(N.ones(x.shape[-1])),
    lambda N, x: N.outer(x, x),
    lambda N, x: N.dot(x, x),
    lambda N, x: N.diag(x),
    lambda N, x: N.diag(x, 1),
    lambda N, x: N.diag(x, -1),
    lambda N, x: N.einsum("ij->ji", x),
    lambda N, x: N.einsum("i,i->", x, x),
    lambda N, x: N.einsum("ij,kj->ik", x, x),
    lambda N, x: N.einsum("bij,bkj->bik", x, x),
    lambda N, x: N.einsum("i,j", x, x),
    lambda N, x: N.meshgrid(x, x, indexing="ij"),
    lambda N, x: N.meshgrid(x, x, indexing="xy"),
    lambda N, x: N.broadcast_to(x, (2, *x.shape)),
    lambda N, x: x.movedim(0, -1),
    lambda N, x: x.swapaxes(0, -1),
    lambda N, x: N.hstack([x, x]),
    lambda N, x: N.vstack([x, x]),
    lambda N, x: x.equal(x),
    lambda N, x: x.allclose(x + 1e-9),
    lambda N, x: N.isclose(x, x + 1),
    lambda N, x: x.view_as(x),
    lambda N, x: x.sort(),
    lambda N, x: x.sin().sort(dim=0, descending=True, stable=True),
    lambda N, x: x.remainder(3).sort(dim=-1, stable=True),
    lambda N, x: x.remainder(3).argsort(dim=-1, descending=True, stable=True),
    lambda N, x: x.sin().topk(2),
    lambda N, x: x.sin().topk(1, 0, largest=False),
    lambda N, x: x.topk(99),
    lambda N, x: x.remainder(3).unique(),
    lambda N, x: x.remainder(3).unique(return_inverse=True, return_counts=True),
    lambda N, x: N.unique(x.remainder(2), dim=0),
    lambda N, x: x.index_put((N.tensor([1, 0]),), N.tensor(5.0)),
    lambda N, x: x.index_put_((N.tensor([1, 1]),), N.tensor(5.0), accumulate=True),
    lambda N, x: x.expand_as(N.cat([x[None], x[None]])),
    lambda N, x: x.ravel(),
    lambda N, x: x.max(0),
    lambda N, x: x.min(-1),
    lambda N, x: x.max(0, keepdim=True).values,
    lambda N, x: x.argmax(0),
    lambda N, x: x.var(0, unbiased=False),
    lambda N, x: x.std(0),
    lambda N, x: x.var(False),
    lambda N, x: x.norm(),
    lambda N, x: x.norm(1),
    lambda N, x: x.norm(2, dim=0),
    lambda N, x: x.norm(float("inf")),
    lambda N, x: x.norm(3),
    lambda N, x: x.prod(0),
    lambda N, x: x.softmax(0),
    lambda N, x: x.log_softmax(-1),
    lambda N, x: x.clamp(1, 3),
    lambda N, x: x.clamp(min=2),
    lambda N, x: x.clamp(),
    lambda N, x: x.pow(2),
    lambda N, x: x**0.5,
    lambda N, x: 2**x,
    lambda N, x: x.round(decimals=1),
    lambda N, x: 2 in x,
    lambda N, x: x.count_nonzero(0),
    lambda N, x: N.addmm(x, x, x),
    lambda N, x: N.addcmul(x, x, x, value=2),
    lambda N, x: N.lerp(x, x + 1, 0.5),
    lambda N, x: x.fill_(3),
    lambda N, x: x.zero_(),
    lambda N, x: x.t().add_(1),
    lambda N, x: x.expand(2, *x.shape).add_(1),
    lambda N, x: x.long().add_(1.5),
    lambda N, x: x.add_(N.ones(2, *x.shape)),
    lambda N, x: x.take_along_dim(x.argmax(0, keepdim=True), 0),
    lambda N, x: [list(y.shape) for y in x],
    lambda N, x: f"{x.sum():.2f}",
    lambda N, x: N.logaddexp(x, x),
    lambda N, x: N.nan_to_num(x / 0),
    lambda N, x: N.arange(5),
    lambda N, x: N.arange(1, 2.5, 0.5),
    lambda N, x: N.arange(5, 0, -2),
    lambda N, x: N.arange(3, dtype=N.float32),
    lambda N, x: N.linspace(0, 1, 5),
    lambda N, x: N.linspace(3, 10, 1),
    lambda N, x: N.linspace(-10, 10, 8),
    lambda N, x: N.eye(3),
    lambda N, x: N.eye(2, 3),
    lambda N, x: N.full((2,), 3),
    lambda N, x: N.full((2,), True),
    lambda N, x: N.full((2,), 1.5),
    lambda N, x: N.zeros(2, 3, dtype=N.long),
    lambda N, x: N.zeros((2, 3)),
    lambda N, x: N.empty(2, 0),
    lambda N, x: N.ones([]),
    lambda N, x: N.tensor([[1, 2], [3, 4]]),
    lambda N, x: N.tensor([1, 2.5]),
    lambda N, x: N.tensor([True]),
    lambda N, x: N.tensor(3),
    lambda N, x: N.tensor([]),
    lambda N, x: N.tensor([[], []]),
    lambda N, x: N.tensor([[1], [1, 2]]),
    lambda N, x: N.tensor("a"),
    lambda N, x: N.tensor([1, True]),
    lambda N, x: N.tensor(np.arange(3.0)),
    lambda N, x: N.tensor([N.tensor(1), N.tensor(2)]),
    lambda N, x: N.tensor(2**70),
    lambda N, x: N.as_tensor([1.0]),
    lambda N, x: N.from_numpy(np.arange(3)),
    lambda N, x: N.from_numpy([1]),
    lambda N, x: N.zeros(-1),
    lambda N, x: N.cat([]),
    lambda N, x: N.promote_types(N.long, N.float32).is_floating_point,
    lambda N, x: N.result_type(N.tensor(1), 2.5).is_floating_point,
    lambda N, x: N.finfo(N.float32).eps,
    lambda N, x: N.iinfo(N.int64).max,
    lambda N, x: N.is_tensor(3),
    lambda N, x: N.device("cpu").type,
]
INPUTS = [ramp((2, 3, 4)), ramp((3, 4)), ramp((6,)), np.array(3.0, np.float32), np.zeros((0, 3), np.float32)]


@pytest.mark.parametrize("function", FORMS)
def test_forms(function: Case) -> None:
    for x in INPUTS:
        compare(function, x)


# ---------------------------------------------------------------- indexing

READS: list[Case] = [
    lambda N, x: x[0],
    lambda N, x: x[-1],
    lambda N, x: x[5],
    lambda N, x: x[:],
    lambda N, x: x[1:],
    lambda N, x: x[::2],
    lambda N, x: x[..., 0],
    lambda N, x: x[None],
    lambda N, x: x[..., None],
    lambda N, x: x[0, ...],
    lambda N, x: x[:, 1],
    lambda N, x: x[:, 1:3],
    lambda N, x: x[[0, 1]],
    lambda N, x: x[[1, 0, 1]],
    lambda N, x: x[N.tensor([1, 0])],
    lambda N, x: x[N.tensor([[1, 0], [0, 1]])],
    lambda N, x: x[:, N.tensor([1, 0])],
    lambda N, x: x[N.tensor([1, 0]), N.tensor([0, 1])],
    lambda N, x: x[N.tensor([1, 0]), :, N.tensor([0, 1])],
    lambda N, x: x[0, :, N.tensor([0, 1])],
    lambda N, x: x[:, 0, N.tensor([0, 1])],
    lambda N, x: x[x > 2],
    lambda N, x: x[N.tensor([5])],
    lambda N, x: x[N.tensor([-1])],
    lambda N, x: x[1.5],
    lambda N, x: x[0, 0, 0, 0],
    lambda N, x: x[N.tensor(1)],
    lambda N, x: x[N.tensor([1.0])],
    lambda N, x: x[()],
    lambda N, x: x[5:2],
    lambda N, x: x[-100:100],
    lambda N, x: x[0:1, ..., -1:],
    lambda N, x: x[np.array([0, 1])],
    lambda N, x: x[(N.tensor([True, False]))],
    lambda N, x: x[:, [True, False, True]],
    lambda N, x: x[[]],
    lambda N, x: x[N.arange(0)],
]


@pytest.mark.parametrize("function", READS)
def test_indexing_reads(function: Case) -> None:
    for x in INPUTS:
        compare(function, x)


def store(key: Callable[[Any, Any], Any], value: Callable[[Any, Any], Any]) -> Case:
    def function(N: Any, x: Any) -> Any:
        x[key(N, x)] = value(N, x)
        return x

    return function


WRITES: list[Case] = [
    store(lambda N, x: 0, lambda N, x: 5),
    store(lambda N, x: -1, lambda N, x: N.zeros(())),
    store(lambda N, x: (slice(None, None), 1), lambda N, x: 7),
    store(lambda N, x: slice(1, None), lambda N, x: x[:-1].clone()),
    store(lambda N, x: (..., 0), lambda N, x: 1.5),
    store(lambda N, x: None, lambda N, x: 3),
    store(lambda N, x: [0, 1], lambda N, x: 9),
    store(lambda N, x: N.tensor([0, 0]), lambda N, x: N.ones_like(x[:2])),
    store(lambda N, x: x > 2, lambda N, x: 0),
    store(lambda N, x: x > 2, lambda N, x: -x[x > 2]),
    store(lambda N, x: (slice(None, None), N.tensor([1, 0])), lambda N, x: 5),
    store(lambda N, x: (0, slice(None, None), N.tensor([0, 1])), lambda N, x: 1),
    store(lambda N, x: (N.tensor([1, 0]), slice(None, None), N.tensor([0, 1])), lambda N, x: 2),
    store(lambda N, x: 9, lambda N, x: 1),
    store(lambda N, x: 0, lambda N, x: N.ones(7)),
    store(lambda N, x: N.tensor([9]), lambda N, x: 1),
    store(lambda N, x: 0, lambda N, x: N.tensor(2)),
    store(lambda N, x: slice(None, None), lambda N, x: N.arange(x.shape[-1])),
    store(lambda N, x: slice(None, None, 2), lambda N, x: x[::2] * 2),
    store(lambda N, x: (slice(1, 2), ...), lambda N, x: x[0:1]),
]


@pytest.mark.parametrize("function", WRITES)
def test_indexing_writes(function: Case) -> None:
    for x in INPUTS[:4]:
        compare(function, x)


# ---------------------------------------------------------------- gradients

A = np.arange(6.0).reshape(2, 3) + 0.5
B = np.array([1.0, -2.0, 3.0])
PROGRAMS: list[Case] = []


def program(function: Case) -> Case:
    PROGRAMS.append(function)
    return function


def leaf(N: Any, array: np.ndarray) -> Any:
    return N.tensor(array).requires_grad_()


@program
def p1(N: Any) -> Any:
    a, b = leaf(N, A), leaf(N, B)
    (a * b + a.sin()).sum().backward()
    return a.grad, b.grad


@program
def p2(N: Any) -> Any:
    a = leaf(N, A)
    y = a * 2
    y[0] = y[1] * 3
    y.sum().backward()
    return a.grad


@program
def p3(N: Any) -> Any:
    a = leaf(N, A)
    y = a.clone()
    v = y[0]
    v.mul_(3)
    v2 = y[:, 1]
    v2.add_(v.sum())
    (y * y).sum().backward()
    return a.grad, y


@program
def p4(N: Any) -> Any:
    a = leaf(N, A)
    (g,) = N.autograd.grad((a**3).sum(), a, create_graph=True)
    (g * g).sum().backward()
    return a.grad


@program
def p5(N: Any) -> Any:
    a = leaf(N, A)
    y = a.exp()
    z = y.sum()
    z.backward(retain_graph=True)
    z.backward()
    return a.grad


@program
def p6(N: Any) -> Any:
    a = leaf(N, A)
    y = a.exp().sum()
    y.backward()
    y.backward()


@program
def p7(N: Any) -> Any:
    a = leaf(N, A)
    y = a * a
    y.backward()


@program
def p8(N: Any) -> Any:
    a = leaf(N, A)
    a.add_(1)


@program
def p9(N: Any) -> Any:
    a = leaf(N, A)
    a[0].add_(1)


@program
def p10(N: Any) -> Any:
    a = leaf(N, A)
    y = a * 1
    z = y * y
    y.add_(1)
    z.sum().backward()


@program
def p11(N: Any) -> Any:
    a = leaf(N, A)
    y = a.exp()
    y.add_(1)
    y.sum().backward()


@program
def p12(N: Any) -> Any:
    a = leaf(N, A)
    y = a * 2
    y.retain_grad()
    y.register_hook(lambda g: g * 10)
    (y * y).sum().backward()
    return a.grad, y.grad


@program
def p13(N: Any) -> Any:
    a = leaf(N, A)
    o = []
    h = a.register_hook(lambda g: o.append(g.sum().item()) or g * 2)
    (a * 3).sum().backward()
    h.remove()
    (a * 3).sum().backward()
    return a.grad, o


@program
def p15(N: Any) -> Any:
    a = leaf(N, A)
    b = leaf(N, B)
    y = a * 1
    y.mul_(b)
    y.sum().backward()
    return a.grad, b.grad


@program
def p16(N: Any) -> Any:
    a = leaf(N, A)
    d = a.detach()
    y = (a * a).sum()
    d.add_(1)
    y.backward()


@program
def p17(N: Any) -> Any:
    a = leaf(N, A)
    y = (a * a).sum()
    a.data.add_(1)
    y.backward()
    return a.grad


@program
def p18(N: Any) -> Any:
    a = leaf(N, A)
    with N.no_grad():
        a.add_(1)
        b = a * 2
    return a.requires_grad, b.requires_grad, a


@program
def p19(N: Any) -> Any:
    a = leaf(N, A)
    z = N.zeros(2, 3, dtype=N.float64)
    z.copy_(a)
    z[0].zero_()
    (z * z).sum().backward()
    return a.grad


@program
def p20(N: Any) -> Any:
    a = leaf(N, A)
    return a.max(1).values.sum().backward(), a.grad


@program
def p21(N: Any) -> Any:
    a = leaf(N, A)
    (a.softmax(1) * N.tensor(A)).sum().backward()
    b = leaf(N, A)
    (b.log_softmax(0) ** 2).sum().backward()
    c = leaf(N, A)
    c.logsumexp(1).sum().backward()
    return a.grad, b.grad, c.grad


@program
def p22(N: Any) -> Any:
    a = leaf(N, A)
    w = leaf(N, B)
    (a @ w).tanh().sum().backward()
    return a.grad, w.grad


@program
def p23(N: Any) -> Any:
    a = leaf(N, A)
    v = a.view(6).clone()
    v.view(3, 2).t()[0].fill_(2.0)
    (v * v).sum().backward()
    return a.grad


@program
def p25(N: Any) -> Any:
    a = leaf(N, A)
    N.autograd.grad(a.sum(), leaf(N, B))


@program
def p26(N: Any) -> Any:
    a = leaf(N, A)
    b = leaf(N, B)
    return N.autograd.grad(a.sum(), [a, b], allow_unused=True)


@program
def p27(N: Any) -> Any:
    a = leaf(N, A)
    a.sum().backward()
    a.grad.zero_()
    (a * 2).sum().backward()
    g = a.grad
    a.grad = None
    (a * 3).sum().backward()
    return g, a.grad


@program
def p28(N: Any) -> Any:
    a = leaf(N, A)
    a.grad = N.zeros(2)


@program
def p29(N: Any) -> Any:
    a = leaf(N, A)
    a.requires_grad_(False)
    return a.requires_grad, a.is_leaf


@program
def p30(N: Any) -> Any:
    a = leaf(N, A)
    (a * 2).requires_grad_(False)


@program
def p31(N: Any) -> Any:
    N.tensor([1]).requires_grad_()


@program
def p32(N: Any) -> Any:
    a = leaf(N, A)
    y = a * 2
    y.detach_()
    return y.requires_grad, y.is_leaf


@program
def p33(N: Any) -> Any:
    a = leaf(N, A)
    a.numpy()


@program
def p34(N: Any) -> Any:
    a = leaf(N, A)
    x = a[[0, 1, 0]]
    x2 = a[:, N.tensor([0, 0, 2])]
    (x.sum() + (x2 * x2).sum()).backward()
    return a.grad


@program
def p35(N: Any) -> Any:
    a = leaf(N, A)
    y = a.clone()
    y[y > 2] = 0
    y[[0], 1] = 5.0
    y.sum().backward()
    return a.grad, y


@program
def p36(N: Any) -> Any:
    a = leaf(N, A)
    (N.cat([a, a * 2], 1).var(1) + a.std(1) + a.norm(dim=1) + a.prod(1) + a.amax(1)).sum().backward()
    return a.grad


@program
def p37(N: Any) -> Any:
    a = leaf(N, A * 0)
    a.norm().backward()
    return a.grad


@program
def p38(N: Any) -> Any:
    a = leaf(N, A)
    y = N.where(a > 2, a.sqrt(), a * a)
    y = y.clamp(1, 3).pow(1.5) + N.maximum(a, a * 0 + 2) + a.abs().log() + a / (a + 1) + a.fmod(2) + a.remainder(1.5)
    y.sum().backward()
    return a.grad


@program
def p39(N: Any) -> Any:
    a = leaf(N, A)
    y = (
        a.gather(1, N.tensor([[0, 0], [2, 1]])).sum()
        + a.index_select(0, N.tensor([1, 1])).sum() * 2
        + a.masked_fill(a > 3, 0).sum()
        + a.tril().sum()
        + a.roll(1, 0)[0].sum()
        + a.flip(0)[0].sum() * 3
        + a.repeat(2, 2).sum()
    )
    y.backward()
    return a.grad


@program
def p40(N: Any) -> Any:
    a = leaf(N, A)
    y = (
        a.scatter(1, N.tensor([[0], [1]]), a[:, :1] * 5).sum()
        + a.scatter_add(0, N.tensor([[0, 1, 0]]), a[:1]).pow(2).sum()
        + a.index_add(1, N.tensor([0, 0]), a[:, 1:]).pow(2).sum()
    )
    y.backward()
    return a.grad


@program
def p41(N: Any) -> Any:
    a = leaf(N, A)
    y = a * 2
    y.sum().backward(inputs=[a])
    return a.grad


@program
def p42(N: Any) -> Any:
    a = leaf(N, A)
    y = a * 2
    (g,) = N.autograd.grad((y * y).sum(), y)
    return g, a.grad


@program
def p43(N: Any) -> Any:
    a = leaf(N, A)
    (a * a).backward(N.ones(2, 3, dtype=N.float64) * 3)
    return a.grad


@program
def p44(N: Any) -> Any:
    a = leaf(N, A)
    (a * a).backward(N.ones(3))


@program
def p45(N: Any) -> Any:
    a = leaf(N, A)
    N.einsum("ij,kj->ik", a, a).sum().backward()
    return a.grad


@program
def p46(N: Any) -> Any:
    a = leaf(N, A)
    b = a.expand(2, 2, 3)
    c = (b * b).sum(0)
    g = N.autograd.grad(c.sum(), a, create_graph=True)[0]
    return N.autograd.grad(g.sum(), a)


@program
def p47(N: Any) -> Any:
    a = leaf(N, A)
    y = a.sigmoid()
    (g,) = N.autograd.grad(y.sum(), a, create_graph=True)
    (h,) = N.autograd.grad(g.sum(), a, create_graph=True)
    return h, N.autograd.grad(h.sum(), a)[0]


@program
def p48(N: Any) -> Any:
    a = leaf(N, A)
    y = a.clone()
    v = y[0]
    y.mul_(2)
    return v.grad_fn is not None, (v * v).sum().backward(), a.grad


@program
def p49(N: Any) -> Any:
    a = leaf(N, A)
    y = a.clone().detach()
    v = y[0]
    y.mul_(a)
    return v.requires_grad, (v * v).sum().backward(), a.grad


@program
def p50(N: Any) -> Any:
    a = leaf(N, A)
    z = N.zeros(2, 3, dtype=N.float64)
    v = z[0]
    v.copy_(a[1])
    return z.requires_grad, (z * z).sum().backward(), a.grad


@program
def p51(N: Any) -> Any:
    a = leaf(N, A)
    z = a * 1
    z.div_(2).sub_(a).pow_(2).clamp_(0, 5).neg_()
    z.sum().backward()
    return a.grad, z


@program
def p52(N: Any) -> Any:
    a = leaf(N, A)
    y = a * 2
    y.retain_grad()
    y.add_(1)
    y.sum().backward()
    return y.grad


@program
def p53(N: Any) -> Any:
    a = leaf(N, A)
    with N.set_grad_enabled(False):
        y = a * 2
    with N.no_grad(), N.enable_grad():
        z = a * 2

    @N.no_grad()
    def f():
        return a * 1

    return y.requires_grad, z.requires_grad, f().requires_grad, N.is_grad_enabled()


@program
def p54(N: Any) -> Any:
    a = leaf(N, A)
    b = copy.deepcopy(a)
    b.data[0] = 0
    return a, b, b.requires_grad


@program
def p55(N: Any) -> Any:
    copy.deepcopy(leaf(N, A) * 1)


@program
def p56(N: Any) -> Any:
    x = leaf(N, A)
    y = x.permute(1, 0).reshape(-1) * 2
    y[::2] = 0
    y.view(3, 2)[1] += x[0, 0]
    y.sum().backward()
    return x.grad


@program
def p57(N: Any) -> Any:
    x = leaf(N, A)
    y = x.unsqueeze(0).squeeze(0).flatten().unflatten(0, (3, 2)).narrow(0, 1, 2).chunk(2)[0].unbind(1)[1]
    y.sum().backward()
    return x.grad


@program
def p58(N: Any) -> Any:
    x = leaf(N, A)
    x.data = N.zeros(4, dtype=N.float64)
    return x, x.requires_grad


@program
def p59(N: Any) -> Any:
    x = leaf(N, A)
    y = x.double().float().double() * 2.0
    y.sum().backward()
    return x.grad


@program
def p60(N: Any) -> Any:
    t = N.tensor(A)
    t.requires_grad = True
    u = t * 2
    u.sum().backward()
    return t.grad, u.grad_fn is None, t.grad_fn is None, u.is_leaf


@program
def p62(N: Any) -> Any:
    x = leaf(N, A)
    y = x * 1
    y.expand(2, 2, 3).add_(1)


@program
def p63(N: Any) -> Any:
    x = leaf(N, A)
    y = N.tensor(A)
    y += x
    y *= 2
    y.sum().backward()
    return x.grad, y


@program
def p64(N: Any) -> Any:
    x = leaf(N, A)
    f = x.sum().grad_fn
    return len(f.next_functions), f.next_functions[0][1]


@pytest.mark.parametrize("function", PROGRAMS, ids=lambda f: f.__name__)
def test_gradients(function: Case) -> None:
    compare(function)
