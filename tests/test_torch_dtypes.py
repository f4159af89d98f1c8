"""The same expressions in PyTorch and here, for every dtype and every pair. Visibly skipped without torch.

What differs on purpose is left out: PyTorch refuses numbers in maximum() and bools in argmax(); bytes are not viewed
as bool here; complex numbers are only stored here.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch", reason="torch is not installed: the comparisons with PyTorch are not run")
pytestmark = pytest.mark.filterwarnings("ignore")

Case = Callable[..., Any]
REAL = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
ALL = (*REAL, "complex64", "complex128")
VALUES: dict[str, list[Any]] = {
    "b": [True, False, True], "u": [0, 3, 200], "i": [-7, 3, 100], "f": [-2.5, 0.75, 3.0], "c": [1 + 2j, 0, -1j],
}  # fmt: skip
TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 2e-5, "complex64": 2e-5}


def make(N: Any, dtype: str, zero_d: bool = False) -> Any:
    """Three numbers of a dtype, or one of them."""
    kind = "b" if dtype in ("bool",) else "f" if dtype == "bfloat16" else dtype[0]
    x = N.tensor(VALUES[kind], dtype=getattr(N, dtype))
    return x[1] if zero_d else x


def plain(result: Any) -> Any:
    """A result as (dtype name, shape, elements); other values as they are."""
    if isinstance(result, (tuple, list)):
        return [plain(x) for x in result]
    if hasattr(result, "detach"):
        name = str(result.dtype).split(".")[-1]
        values = np.array(result.detach().tolist(), complex if name.startswith("complex") else np.float64)
        return name, tuple(result.shape), values
    if isinstance(result, (torch.dtype, graphc.dtype)):
        return str(result).split(".")[-1]
    return result.replace("torch.", "graphc.") if isinstance(result, str) else result


def same(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, tuple):
        tolerance = TOLERANCE.get(a[0], 1e-9)
        return a[:2] == b[:2] and bool(np.allclose(a[2], b[2], tolerance, 1e-7, equal_nan=True))
    return bool(a == b)


def outcome(case: Case, N: Any) -> tuple[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return "value", plain(case(N))
        except Exception as error:
            return "error", error


def compare(cases: list[tuple[str, Case]]) -> None:
    """Every case gives the same in both, or an error in both."""
    wrong = []
    for name, case in cases:
        theirs, ours = outcome(case, torch), outcome(case, graphc)
        if theirs[0] != ours[0] or (theirs[0] == "value" and not same(theirs[1], ours[1])):
            wrong.append(f"{name}: PyTorch {theirs}, graphc {ours}")
    assert not wrong, "\n".join(wrong)


def test_promotion() -> None:
    cases: list[tuple[str, Case]] = []
    for a, b in itertools.product(ALL, ALL):
        cases += [
            (f"promote_types {a} {b}", lambda N, a=a, b=b: N.promote_types(getattr(N, a), getattr(N, b))),
            (f"can_cast {a} {b}", lambda N, a=a, b=b: N.can_cast(getattr(N, a), getattr(N, b))),
        ]
        if a != "float16" or not b.startswith("complex"):  # PyTorch has a complex of two float16
            cases.append((f"result_type {a} {b}", lambda N, a=a, b=b: N.result_type(make(N, a), make(N, b, True))))
    for a, number, zero_d in itertools.product(ALL, (True, 3, 2.5, 1j), (False, True)):
        if a != "float16" or number != 1j:
            cases.append((f"{a} {number}", lambda N, a=a, n=number, z=zero_d: N.result_type(make(N, a, z), n)))
    compare(cases)


BINARY = (
    "add", "sub", "mul", "div", "floor_divide", "remainder", "fmod", "eq", "ne", "lt", "le", "gt", "ge", "bitwise_and",
    "bitwise_or", "bitwise_xor", "logical_and", "logical_or", "bitwise_left_shift", "bitwise_right_shift", "pow",
    "maximum", "minimum", "fmax", "atan2", "hypot",
)  # fmt: skip
TENSORS_ALONE = ("maximum", "minimum", "fmax", "atan2", "hypot", "logical_and", "logical_or")


def _binary(op: str, a: str, b: str) -> Case:
    def case(N: Any) -> Any:
        y = make(N, b)
        if op in ("floor_divide", "remainder", "fmod"):
            y = N.where(y == 0, N.ones_like(y), y)  # PyTorch raises for integers divided by 0
        return getattr(N, op)(make(N, a), y)

    return case


@pytest.mark.parametrize("op", BINARY)
def test_two_operands(op: str) -> None:
    cases: list[tuple[str, Case]] = []
    for a, b in itertools.product(REAL, REAL):
        if (op == "pow" and b not in ("uint8", *REAL[6:])) or (op == "hypot" and "float" not in a + b):
            continue  # negative exponents of integers; PyTorch has no hypot of integers
        cases.append((f"{op} {a} {b}", _binary(op, a, b)))
    for a, number in itertools.product(REAL, (True, 2, 2.5, 300, -3)):
        if op not in TENSORS_ALONE and (op != "pow" or number > 0):
            cases.append((f"{op} {a} {number}", lambda N, a=a, n=number: getattr(N, op)(make(N, a), n)))
    compare(cases)


UNARY = (
    "neg", "abs", "sign", "relu", "square", "floor", "ceil", "round", "trunc", "exp", "log", "sqrt", "sin", "cos",
    "tan", "tanh", "sigmoid", "isnan", "isfinite", "bitwise_not", "logical_not", "reciprocal", "rsqrt", "erf",
    "expm1", "log1p", "log2", "log10", "nan_to_num", "acos", "asin", "atan", "sinh", "cosh", "asinh", "atanh",
    "erfinv", "exp2", "sinc", "signbit", "isposinf", "isneginf", "rad2deg",
)  # fmt: skip
REDUCTIONS = (
    "sum", "prod", "mean", "amax", "amin", "any", "all", "var", "std", "max", "min", "count_nonzero", "unique", "sort",
    "nonzero", "argsort",
)  # fmt: skip


@pytest.mark.parametrize("op", [*UNARY, *REDUCTIONS])
def test_one_operand(op: str) -> None:
    compare([(f"{op} {a}", lambda N, a=a: getattr(N, op)(make(N, a))) for a in REAL])


@pytest.mark.parametrize("op", ["sum", "prod", "mean"])
def test_reductions_told_a_dtype(op: str) -> None:
    pairs = [(a, b) for a in REAL for b in REAL if "float" not in a or b != "uint8"]  # C leaves -2.5 to uint8 open
    compare([(f"{op} {a} {b}", lambda N, a=a, b=b: getattr(N, op)(make(N, a), dtype=getattr(N, b))) for a, b in pairs])


def test_conversions() -> None:
    cases: list[tuple[str, Case]] = []
    for a, b in itertools.product(ALL, ALL):
        if b != "uint8" or a in ("bool", "uint8"):
            cases.append((f"to {a} {b}", lambda N, a=a, b=b: make(N, a).to(getattr(N, b))))
        if b not in ("bool", "float16", "bfloat16", "float32", "float64") and not b.startswith("complex"):
            cases.append((f"view {a} {b}", lambda N, a=a, b=b: N.arange(8).to(getattr(N, a)).view(getattr(N, b))))
    compare(cases)


PER_DTYPE: dict[str, Callable[[Any, Any, Any], Any]] = {
    "clamp": lambda N, x, d: x.clamp(1, 2),
    "clamp min": lambda N, x, d: x.clamp(min=1.5),
    "clamp beyond": lambda N, x, d: x.clamp(-5, 300),
    "where": lambda N, x, d: N.where(x == x, x, 5),
    "where float": lambda N, x, d: N.where(x == x, x, 2.5),
    "where beyond": lambda N, x, d: N.where(x == x, x, 300),
    "masked_fill": lambda N, x, d: x.masked_fill(make(N, "bool"), 7),
    "masked_fill beyond": lambda N, x, d: x.masked_fill(make(N, "bool"), 300),
    "masked_fill float": lambda N, x, d: x.masked_fill(make(N, "bool"), 2.5),
    "fill": lambda N, x, d: x.fill_(3),
    "fill beyond": lambda N, x, d: x.fill_(300),
    "fill below": lambda N, x, d: x.fill_(-3),
    "fill float": lambda N, x, d: x.fill_(2.7),
    "full": lambda N, x, d: N.full((2,), 7, dtype=d),
    "full beyond": lambda N, x, d: N.full((2,), 300, dtype=d),
    "full below": lambda N, x, d: N.full((2,), -1, dtype=d),
    "arange": lambda N, x, d: N.arange(5, dtype=d),
    "arange beyond": lambda N, x, d: N.arange(0, 300, dtype=d)[-2:],
    "eye": lambda N, x, d: N.eye(2, dtype=d),
    "tensor": lambda N, x, d: N.tensor([1, 300], dtype=d),
    "tensor of floats": lambda N, x, d: N.tensor([1.7, -1.2], dtype=d),
    "tensor below": lambda N, x, d: N.tensor([-3], dtype=d),
    "tensor far": lambda N, x, d: N.tensor([1e20], dtype=d),
    "tensor of an array": lambda N, x, d: N.tensor(np.array([1, 300, -2]), dtype=d),
    "slice": lambda N, x, d: x[1:],
    "index": lambda N, x, d: x[[0, 2]],
    "mask": lambda N, x, d: x[make(N, "bool")],
    "tolist": lambda N, x, d: x.tolist(),
    "item": lambda N, x, d: type(x[2].item()),
    "index_add": lambda N, x, d: x.index_add(0, N.tensor([1, 1]), N.ones(2, dtype=d)) if d != N.bool else 0,
    "scatter": lambda N, x, d: x.scatter(0, N.tensor([1]), 5),
    "gather": lambda N, x, d: x.gather(0, N.tensor([1])),
    "cat": lambda N, x, d: N.cat([x, make(N, "int8")]),
    "flip": lambda N, x, d: x.flip(0),
    "is_signed": lambda N, x, d: x.is_signed(),
    "element_size": lambda N, x, d: x.element_size(),
    "type": lambda N, x, d: x.type(),
    "tril": lambda N, x, d: N.tril(N.stack([x, x])),
    "add int": lambda N, x, d: x.__iadd__(1),
    "add float": lambda N, x, d: x.__iadd__(1.5),
    "mul float64": lambda N, x, d: x.__imul__(make(N, "float64")),
    "repr": lambda N, x, d: repr(x),
    "repr of none": lambda N, x, d: repr(x[:0]),
    "matmul": lambda N, x, d: x.matmul(x),
    "outer": lambda N, x, d: N.outer(x, x),
    "bool": lambda N, x, d: bool(x[1]),
    "isclose": lambda N, x, d: x.isclose(x),
    "equal": lambda N, x, d: N.equal(x, x),
    "bincount": lambda N, x, d: N.bincount(x.abs()),
    "rand": lambda N, x, d: N.rand(2, dtype=d).shape[0],
    "normal_": lambda N, x, d: x.normal_().shape[0],
    "bernoulli_": lambda N, x, d: x.bernoulli_(1.0),
    "iinfo": lambda N, x, d: (N.iinfo(d).min, N.iinfo(d).max),
    "finfo": lambda N, x, d: [getattr(N.finfo(d), n) for n in ("eps", "max", "min", "tiny", "resolution", "bits")],
}


@pytest.mark.parametrize("name", list(PER_DTYPE))
def test_every_dtype(name: str) -> None:
    case = PER_DTYPE[name]
    compare([(f"{name} {a}", lambda N, a=a: case(N, make(N, a), getattr(N, a))) for a in REAL])


OTHERS: dict[str, Case] = {
    "bincount": lambda N: N.bincount(N.tensor([1, 5, 1]), N.tensor([0.5, 1, 2]), minlength=9),
    "bincount below": lambda N: N.bincount(N.tensor([-1])),
    "searchsorted": lambda N: N.searchsorted(N.tensor([1, 3, 5]), N.tensor([[3, 6, 9], [0, 10, 3]])),
    "searchsorted rows": lambda N: N.searchsorted(N.tensor([[1, 3], [2, 4]]), N.tensor([[3], [4]]), side="right"),
    "searchsorted nan": lambda N: N.searchsorted(N.tensor([1.0, 3]), N.tensor([float("nan")])),
    "bucketize": lambda N: N.bucketize(N.tensor([[3, 6, 9]]), N.tensor([1, 3, 5, 7, 9]), out_int32=True),
    "isin": lambda N: N.isin(N.arange(100), N.arange(10, 90, 2), invert=True),
    "histc": lambda N: N.histc(N.tensor([1.0, 2, 1, float("nan"), 7]), 4, 0, 3),
    "histogram": lambda N: tuple(N.histogram(N.tensor([1.0, 2, 1]), 4, range=(0.0, 3.0), weight=N.tensor([1.0, 2, 4]))),
    "hann_window": lambda N: N.hann_window(5, False),
    "hamming_window": lambda N: N.hamming_window(5, dtype=N.float64),
    "blackman_window": lambda N: N.blackman_window(6),
    "bartlett_window": lambda N: N.bartlett_window(6),
    "diff": lambda N: N.diff(N.tensor([[1, 3, 2], [4, 5, 9]]), dim=0, prepend=N.tensor([[0, 0, 0]])),
    "diff bool": lambda N: N.diff(N.tensor([True, False, False])),
    "trapezoid": lambda N: N.trapezoid(N.arange(9).reshape(3, 3), N.tensor([1, 3, 6]), dim=0),
    "cdist": lambda N: N.cdist(N.arange(12.0).reshape(2, 3, 2), N.ones(2, 4, 2), p=1),
    "take": lambda N: N.take(N.arange(6).reshape(2, 3), N.tensor([[0, -1]])),
    "put": lambda N: N.arange(6).put(N.tensor([1, 1]), N.tensor([9, 8]), accumulate=True),
    "masked_scatter": lambda N: N.zeros(2, 3).masked_scatter(N.tensor([True, False, True]), N.arange(4.0)),
    "masked_scatter few": lambda N: N.zeros(2, 3).masked_scatter(N.tensor([True, False, True]), N.arange(3.0)),
    "diag_embed": lambda N: N.diag_embed(N.arange(6).reshape(2, 3), -1, 0, 2),
    "unfold": lambda N: N.arange(12).reshape(3, 4).unfold(0, 2, 1),
    "resize_": lambda N: N.arange(4).resize_(3),
    "transpose_": lambda N: N.ones(2, 3, 4).transpose_(0, 2),
    "where alone": lambda N: N.where(N.tensor([True, False, True])),
    "heaviside": lambda N: N.heaviside(N.tensor([-1.0, 0, 2, float("nan")]), N.tensor(0.5)),
    "xlogy": lambda N: N.xlogy(N.tensor([0.0, 1, 0]), N.tensor([0.0, 2, float("nan")])),
    "complex": lambda N: N.view_as_real(N.tensor([1 + 2j, -3j])),
    "complex parts": lambda N: (N.tensor([1 + 2j]).real, N.tensor([1 + 2j]).imag, N.is_complex(N.tensor(1j))),
    "complex repr": lambda N: repr(N.tensor([[1e10 + 2j, -0.5 - 1e-5j], [0, 1j]])),
    "polar": lambda N: N.polar(N.tensor([1.0, 2]), N.tensor([0.0, 1])),
    "legacy": lambda N: (N.HalfTensor([1, 2]), N.ByteTensor(2, 3).shape[1], N.tensor([1.5]).type(N.IntTensor)),
    "0-d key": lambda N: N.arange(120).reshape(2, 3, 4, 5)[:, N.tensor(1), :, N.tensor([0, 1])],
    "int key": lambda N: N.arange(120).reshape(2, 3, 4, 5)[0, :, [0, 1]],
    "bool key": lambda N: N.arange(6).reshape(2, 3)[:, True, N.tensor([0, 1])],
    "mask key": lambda N: N.arange(24).reshape(2, 3, 4)[:, N.arange(12).reshape(3, 4) > 6],
    "int32 key": lambda N: N.arange(6)[N.tensor([1, 2], dtype=N.int32)],
    "int16 key": lambda N: N.arange(6)[N.tensor([1, 2], dtype=N.int16)],
    "index_put": lambda N: N.zeros(3).index_put_((N.tensor([0, 0]),), N.tensor([1.0, 2]), accumulate=True),
    "index_put mask": lambda N: N.zeros(3).index_put((N.tensor([True, False, True]),), N.tensor(2.0)),
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_functions(name: str) -> None:
    compare([(name, OTHERS[name])])


@pytest.mark.parametrize("dtype", ALL)
def test_memory_is_shared_with_torch(dtype: str) -> None:
    x = graphc.tensor([0, 1, 1], dtype=getattr(graphc, dtype))
    theirs = torch.from_dlpack(x)
    assert theirs.dtype is getattr(torch, dtype)
    assert theirs.data_ptr() == x.data_ptr()
    theirs[0] = 1
    assert x.tolist() == [1, 1, 1]
    source = torch.zeros(4, 2, dtype=getattr(torch, dtype)).t()[:, 1::2]
    ours = graphc.from_dlpack(source)
    assert ours.dtype is x.dtype
    assert (ours.data_ptr(), ours.stride()) == (source.data_ptr(), source.stride())
    ours.fill_(1)
    assert source.tolist() == [[1, 1], [1, 1]]
    assert graphc.from_dlpack(torch.utils.dlpack.to_dlpack(source)).tolist() == source.tolist()
    with pytest.raises(RuntimeError, match="requires grad"):
        torch.from_dlpack(graphc.ones(2, requires_grad=True))
