"""Every dtype in the front end: made, converted, looked at in other ways, printed, saved, computed with in a graph."""

from __future__ import annotations

import io
import warnings
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import AutogradError, DTypeError, RecordingError, ShapeError
from graphc.ir.types import DTYPES, DType
from graphc.testing import assert_same

REAL = tuple(t for t in DTYPES if not t.is_complex)
NUMBERS = tuple(t for t in REAL if t is not graphc.bool)
INTEGERS = tuple(t for t in REAL if t.is_integer)
FLOATS = tuple(t for t in REAL if t.is_floating_point)
COMPLEX = (graphc.complex64, graphc.complex128)


def some(dtype: DType) -> graphc.Tensor:
    """Small numbers that every dtype but bool holds."""
    return graphc.tensor([3, 0, 1, 5], dtype=dtype)


# ---------------------------------------------------------------- making and converting


@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_making(dtype: DType) -> None:
    kind = bool if dtype is graphc.bool else float if dtype.is_floating_point else int
    made = {
        "zeros": (graphc.zeros(2, dtype=dtype), [0, 0]),
        "ones": (graphc.ones(2, dtype=dtype), [1, 1]),
        "full": (graphc.full((2,), 1, dtype=dtype), [1, 1]),
        "eye": (graphc.eye(2, dtype=dtype)[0], [1, 0]),
        "tensor": (graphc.tensor([1, 0], dtype=dtype), [1, 0]),
        "array": (graphc.tensor(np.array([1.0, 0.0]), dtype=dtype), [1, 0]),
        "like": (graphc.zeros_like(some(dtype))[:2], [0, 0]),
        "randint": (graphc.randint(0, 1, (2,), dtype=dtype), [0, 0]),
    }
    for name, (x, values) in made.items():
        assert x.dtype is dtype, name
        assert x.tolist() == [kind(v) for v in values], name
        assert type(x[0].item()) is kind, name
    if dtype is not graphc.bool:
        assert graphc.arange(3, dtype=dtype).tolist() == [0, 1, 2]
        assert graphc.linspace(0, 4, 3, dtype=dtype).tolist() == [0, 2, 4]
    if dtype.is_floating_point:
        u = graphc.rand(4096, dtype=dtype)
        assert u.dtype is dtype
        assert u.min().item() >= 0
        assert u.max().item() < 1
        assert graphc.randn(4, dtype=dtype).dtype is dtype


@pytest.mark.parametrize(("name", "dtype"), [
    ("half", graphc.float16), ("bfloat16", graphc.bfloat16), ("float", graphc.float32), ("double", graphc.float64),
    ("byte", graphc.uint8), ("char", graphc.int8), ("short", graphc.int16), ("int", graphc.int32),
    ("long", graphc.int64), ("bool", graphc.bool), ("cfloat", graphc.complex64), ("cdouble", graphc.complex128),
])  # fmt: skip
def test_conversion_methods(name: str, dtype: DType) -> None:
    x = graphc.tensor([2.0, 0.0])
    assert getattr(x, name)().dtype is dtype
    assert x.to(dtype).dtype is dtype
    assert x.type(dtype).dtype is dtype
    if not dtype.is_complex:
        assert graphc.tensor([2, 0], dtype=dtype).type_as(x).dtype is x.dtype
    assert getattr(graphc, {"byte": "uint8", "char": "int8"}.get(name, name)) is dtype


@pytest.mark.parametrize("source", FLOATS, ids=str)
@pytest.mark.parametrize("target", INTEGERS, ids=str)
def test_float_to_integer_truncates_saturates_and_takes_nan_for_0(source: DType, target: DType) -> None:
    limits = graphc.iinfo(target)
    x = graphc.tensor([1.75, -1.75 if target.is_signed else 0.75, float("inf"), float("-inf"), float("nan")]).to(source)
    assert x.to(target).tolist() == [1, -1 if target.is_signed else 0, limits.max, limits.min, 0]


def test_integers_wrap_around_when_they_are_narrowed() -> None:
    x = graphc.tensor([300, -1, 2**31, 127])
    assert x.byte().tolist() == [44, 255, 0, 127]
    assert x.char().tolist() == [44, -1, 0, 127]
    assert x.int().tolist() == [300, -1, -(2**31), 127]


def test_16_bit_floats_are_rounded_to_even() -> None:
    x = graphc.tensor([1 + 2.0**-8, 1 + 3 * 2.0**-8], dtype=graphc.float64)
    assert x.bfloat16().tolist() == [1.0, 1 + 2.0**-6]
    assert graphc.tensor([2049.0, 65520.0, 65519.0]).half().tolist() == [2048.0, float("inf"), 65504.0]
    wanted = np.array([0.1, 3.14159, 1e-41], np.float32).astype(ml_dtypes.bfloat16)
    assert graphc.tensor([0.1, 3.14159, 1e-41]).bfloat16().tolist() == wanted.tolist()


def test_limits() -> None:
    for dtype in FLOATS:
        found, known = graphc.finfo(dtype), ml_dtypes.finfo(dtype.np)
        for name in ("bits", "eps", "max", "min", "tiny", "smallest_normal"):
            assert getattr(found, name) == float(getattr(known, name)), name
    for dtype in INTEGERS:
        known_int = np.iinfo(dtype.np)
        assert (graphc.iinfo(dtype).min, graphc.iinfo(dtype).max) == (known_int.min, known_int.max)
    assert repr(graphc.finfo(graphc.bfloat16)) == (
        "finfo(resolution=0.01, min=-3.38953e+38, max=3.38953e+38, eps=0.0078125, smallest_normal=1.17549e-38, "
        "tiny=1.17549e-38, dtype=bfloat16)"
    )
    assert graphc.finfo(graphc.complex64).dtype == "float32"
    with pytest.raises(DTypeError, match="iinfo: requires an integer dtype"):
        graphc.iinfo(graphc.float16)


def test_the_default_dtype_has_several_setters() -> None:
    try:
        graphc.set_default_dtype(graphc.float16)
        assert graphc.tensor([0.5]).dtype is graphc.zeros(1).dtype is graphc.float16
        graphc.set_default_tensor_type("torch.DoubleTensor")
        assert graphc.tensor([0.5]).dtype is graphc.float64
        assert graphc.tensor([1j]).dtype is graphc.complex128
        graphc.set_default_tensor_type(graphc.BFloat16Tensor)
        assert (graphc.tensor([1]) / 2).dtype is graphc.bfloat16
        with pytest.raises(DTypeError, match="only floating-point types"):
            graphc.set_default_tensor_type(graphc.IntTensor)
    finally:
        graphc.set_default_dtype(graphc.float32)


def test_older_names_of_types() -> None:
    x = graphc.HalfTensor([1, 2])
    assert x.dtype is graphc.float16
    assert graphc.ByteTensor(2, 3).shape == (2, 3)
    assert isinstance(x, graphc.HalfTensor)
    assert not isinstance(x, graphc.FloatTensor)
    assert x.type() == "graphc.HalfTensor"
    assert x.new(2, 1).dtype is graphc.float16


# ---------------------------------------------------------------- printing


@pytest.mark.parametrize(("x", "text"), [
    (lambda: graphc.tensor([1.5, 2], dtype=graphc.bfloat16), "tensor([1.5000, 2.0000], dtype=graphc.bfloat16)"),
    (lambda: graphc.tensor([1, 2], dtype=graphc.half), "tensor([1., 2.], dtype=graphc.float16)"),
    (lambda: graphc.tensor([1, -20], dtype=graphc.int8), "tensor([  1, -20], dtype=graphc.int8)"),
    (lambda: graphc.tensor([], dtype=graphc.uint8), "tensor([], dtype=graphc.uint8)"),
    (lambda: graphc.tensor([1 + 2j, 3]), "tensor([1.+2.j, 3.+0.j])"),
    (lambda: graphc.tensor(0.5j), "tensor(0.+0.5000j)"),
    (lambda: graphc.tensor([-1 - 0.5j], dtype=graphc.cdouble), "tensor([-1.-0.5000j], dtype=graphc.complex128)"),
    (lambda: graphc.tensor([1e10 + 2j, -0.5 - 1e-5j]),
     "tensor([ 1.0000e+10+2.0000e+00j, -5.0000e-01-1.0000e-05j])"),
])  # fmt: skip
def test_printing(x: Any, text: str) -> None:
    assert repr(x()) == text


# ---------------------------------------------------------------- the same memory as another dtype


@pytest.mark.parametrize("source", REAL, ids=str)
@pytest.mark.parametrize("target", NUMBERS, ids=str)
def test_view_as_another_dtype_reads_the_same_bytes(source: DType, target: DType) -> None:
    x = graphc.tensor([1, 0, 1, 1, 0, 1, 0, 0] * 2, dtype=source).reshape(2, 8)
    found = x.view(target)
    assert found.dtype is target
    assert found.numpy().tobytes() == x.numpy().tobytes()
    assert found.shape == (2, 8 * source.itemsize // target.itemsize)
    found.zero_()
    assert not x.any().item()


def test_view_as_another_dtype_has_rules() -> None:
    x = graphc.ones(4, 3)
    assert x.t().view(graphc.int32).shape == (3, 4)
    assert graphc.ones(()).view(graphc.int32).item() == 0x3F800000
    for bad, message in (
        (lambda: x.t().view(graphc.int16), r"stride\(-1\) must be 1 to view float32 as int16"),
        (lambda: graphc.ones(()).view(graphc.int8), "cannot be 0-d"),
        (lambda: graphc.ones(3, dtype=graphc.uint8).view(graphc.int16), r"size\(-1\) must be divisible by 2"),
        (lambda: graphc.ones(5, dtype=graphc.uint8)[1:].view(graphc.int16), "offset and the strides"),
    ):
        with pytest.raises(ShapeError, match=message):
            bad()
    with pytest.raises(DTypeError, match="bytes that are no bool"):
        graphc.ones(3, dtype=graphc.uint8).view(graphc.bool)
    leaf = graphc.ones(2, requires_grad=True)
    assert not leaf.view(graphc.int32).requires_grad
    assert graphc.zeros(0, 4).view(graphc.float64).shape == (0, 2)


def test_a_write_through_another_dtype_is_noticed_by_the_tape() -> None:
    x = graphc.ones(2, requires_grad=True)
    y = x.exp()
    z = (y * y).sum()
    y.detach().view(graphc.int32).zero_()
    with pytest.raises(AutogradError, match="modified by an inplace operation"):
        z.backward()


def test_a_recording_refuses_to_look_at_memory_in_another_way() -> None:
    def fn(x: graphc.Tensor) -> graphc.Tensor:
        return x.view(graphc.int32) + 1

    with pytest.raises(RecordingError, match=r"view\(dtype\)"):
        graphc.compile(fn, fullgraph=True)(graphc.ones(2))


# ---------------------------------------------------------------- complex numbers are stored


def test_complex_views_share_memory() -> None:
    x = graphc.tensor([[1 + 2j, 3 - 1j]])
    x.real[0, 0] = 7
    x.imag.mul_(2)
    assert x.tolist() == [[7 + 4j, 3 - 2j]]
    pairs = graphc.view_as_real(x)
    assert pairs.tolist() == [[[7, 4], [3, -2]]]
    back = graphc.view_as_complex(pairs)
    back.zero_()
    assert not bool((x != 0).any())
    assert graphc.view_as_complex(graphc.zeros(3, 2).double()).dtype is graphc.complex128
    real = graphc.ones(2)
    assert real.real is real


def test_complex_numbers_are_made_moved_compared_and_converted() -> None:
    x = graphc.tensor([1 + 2j, 3, -1j, 2])
    assert x.dtype is graphc.complex64
    assert x.reshape(2, 2).t().contiguous().tolist() == [[1 + 2j, -1j], [3, 2]]
    assert x[[0, 2]].tolist() == [1 + 2j, -1j]
    assert x[x == 3].tolist() == [3]
    assert (x != graphc.tensor([1 + 2j, 0, 0, 0])).tolist() == [False, True, True, True]
    assert graphc.equal(x, x.clone())
    assert graphc.stack([x, x]).shape == (2, 4)
    assert x.to(graphc.complex128).to(graphc.complex64).tolist() == x.tolist()
    assert graphc.tensor([1.5]).to(graphc.complex64).tolist() == [1.5 + 0j]
    assert complex(x[0]) == x[0].item() == 1 + 2j
    with pytest.warns(UserWarning, match="discards the imaginary part"):
        assert x.float().tolist() == [1, 3, 0, 2]
    assert graphc.complex(graphc.tensor([1.0]), graphc.tensor([2.0])).tolist() == [1 + 2j]
    assert graphc.full((2,), 1j).tolist() == [1j, 1j]
    graphc.testing.assert_close(graphc.polar(graphc.tensor([2.0]), graphc.tensor([0.0])), graphc.tensor([2 + 0j]))
    y = x.clone()
    y[1:3] = graphc.tensor([5j, 6])
    assert y.tolist() == [1 + 2j, 5j, 6, 2]


@pytest.mark.parametrize("call", [
    lambda x: x + x, lambda x: x * 2, lambda x: 1j * x, lambda x: -x, lambda x: x.abs(), lambda x: x.exp(),
    lambda x: x.sum(), lambda x: x.mean(), lambda x: x @ x, lambda x: x < x, lambda x: x.floor(), lambda x: x.sqrt(),
    lambda x: x.clamp(0, 1), lambda x: x.maximum(x), lambda x: x.square(), lambda x: x.isnan(), lambda x: x.sign(),
    lambda x: graphc.arange(3, dtype=graphc.complex64), lambda x: x.requires_grad_(), lambda x: x.softmax(0),
])  # fmt: skip
def test_complex_arithmetic_is_refused(call: Any) -> None:
    with pytest.raises((DTypeError, AutogradError), match=r"complex|c64|real_|floating-point"):
        call(graphc.tensor([1 + 2j, 3]))


# ---------------------------------------------------------------- files and modules


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_saved_and_loaded(dtype: DType) -> None:
    file = io.BytesIO()
    x = graphc.tensor([[1, 0], [1, 1]], dtype=dtype)
    graphc.save({"x": x, "none": x[:0], "one": x[0, 0]}, file)
    file.seek(0)
    found = graphc.load(file)
    assert found["x"].dtype is found["none"].dtype is found["one"].dtype is dtype
    assert found["x"].tolist() == x.tolist()
    assert found["none"].shape == (0, 2)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_modules_in_every_floating_dtype(dtype: DType) -> None:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).to(dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model[1].num_batches_tracked.dtype is graphc.int64
    x = graphc.randn(5, 3).to(dtype)
    out = model(x)
    assert out.dtype is dtype
    out.sum().backward()
    assert all(p.grad is not None and p.grad.dtype is dtype for p in model.parameters())
    named = {graphc.float16: model.half, graphc.bfloat16: model.bfloat16, graphc.float64: model.double}
    assert named.get(dtype, model.float)().state_dict()["0.weight"].dtype is dtype


# ---------------------------------------------------------------- graphs


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_compiled_as_eager_in_every_dtype(dtype: DType) -> None:
    def fn(x: graphc.Tensor, y: graphc.Tensor) -> tuple[graphc.Tensor, ...]:
        z = x * 2 + y
        z[1] = z[0] - 3
        return z, z.sum(), z > y, z.clamp(0, 9), z.float() / 2, z.maximum(y).flip(0), z.to(graphc.uint8)

    assert_same(fn, some(dtype), graphc.tensor([1, 2, 3, 4], dtype=dtype))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_gradients_in_every_floating_dtype(dtype: DType) -> None:
    def fn(x: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor | None]:
        w = x.detach().requires_grad_()
        loss = ((w.exp() * 3).softmax(0) * w.sin()).mean()
        loss.backward()
        return loss, w.grad

    assert_same(fn, graphc.tensor([0.1, -0.7, 2.0], dtype=dtype))


@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
def test_complex_numbers_pass_through_a_graph(dtype: DType) -> None:
    def fn(x: graphc.Tensor) -> tuple[graphc.Tensor, ...]:
        return x.flip(0), graphc.stack([x, x.clone()]).transpose(0, 1).contiguous(), x.reshape(2, 1)

    assert_same(fn, graphc.tensor([1 + 2j, 3 - 1j], dtype=dtype))


def test_a_number_is_rounded_to_16_bits_by_way_of_float32() -> None:
    """1 + 2^-11 + 2^-40 is 1.001 in float16, but 1 + 2^-11 in float32, and half of the way is even: 1."""
    number = 1 + 2**-11 + 2**-40

    def fn(x: graphc.Tensor) -> tuple[graphc.Tensor, ...]:
        filled = graphc.full((2,), number, dtype=graphc.float16)
        masked, padded = x.masked_fill(x > 0, number), graphc.nn.functional.pad(x, (1, 1), value=number)
        return (
            filled, filled + 0, x.clone().fill_(number), graphc.full_like(x, number), x.new_full((2,), number), masked,
            padded, x * number, graphc.where(x > 0, number, x), graphc.tensor(number, dtype=graphc.float16),
        )  # fmt: skip

    x = graphc.ones(2, dtype=graphc.float16)
    assert all(float(t.float().max()) == 1.0 for t in fn(x))
    assert_same(fn, x)
    assert_same(lambda x, y: (x * y, x + y, x / y), x, number)


def test_warnings_are_not_raised_by_ordinary_conversions() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for a in REAL:
            for b in DTYPES:
                some(a).to(b)
