"""matmul, linear, conv2d and its gradients: types, references, gradients and lowerings, all against plain NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from graphc.errors import DTypeError, ShapeError, UnsupportedError
from graphc.ir.expr import affine
from graphc.ir.kernel import Strided
from graphc.ir.op import Contraction, ContractPiece, Op, Sample
from graphc.ir.ops.contract import linear, matmul
from graphc.ir.ops.conv import conv2d, conv2d_input_grad, conv2d_weight_grad
from graphc.ir.types import Dim, TensorType, dtype_of, float32, float64, int64

PRIMITIVES = (matmul, conv2d, conv2d_input_grad, conv2d_weight_grad)


class Eager:
    """An operand that runs every op by its reference."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array

    @property
    def ttype(self) -> TensorType:
        return TensorType(dtype_of(self.array.dtype), self.array.shape)

    @staticmethod
    def apply_op(op: Op, operands: tuple[Any, ...], attrs: Mapping[str, Any]) -> Eager:
        found = op.reference(*(x.array for x in operands), **attrs)
        assert op.infer(*(x.ttype for x in operands), **attrs) is TensorType(dtype_of(found.dtype), found.shape)
        return Eager(found)


def samples(*ops: Op) -> list[Any]:
    return [
        pytest.param(op, s, id=f"{op.name}-{k}")
        for op in ops
        for k, s in enumerate(op.samples(np.random.default_rng(7)))
    ]


@pytest.mark.parametrize(("op", "sample"), samples(*PRIMITIVES, linear))
@pytest.mark.parametrize("dtype", [int64, float32, float64])
def test_reference_has_the_inferred_type(op: Op, sample: Sample, dtype: Any) -> None:
    arrays = [(4 * x).astype(dtype.np) for x in sample.inputs]
    out = op.reference(*arrays, **sample.attrs)
    assert op.infer(*(TensorType(dtype, x.shape) for x in arrays), **sample.attrs) is TensorType(dtype, out.shape)
    assert out.dtype == dtype.np


@pytest.mark.parametrize(("op", "sample"), samples(*PRIMITIVES))
def test_gradients_are_the_adjoint(op: Op, sample: Sample) -> None:
    """The ops are linear in each operand: <g, f(dx, w)> = <vjp(g), dx> for any g and dx."""
    rng = np.random.default_rng(3)
    inputs = [Eager(x) for x in sample.inputs]
    out = op(*inputs, **sample.attrs)
    g = Eager(rng.standard_normal(out.array.shape))
    grads = op.vjp(g, out, *inputs, needs=(True, True), **sample.attrs)
    for k, grad in enumerate(grads):
        assert grad.array.shape == sample.inputs[k].shape
        moved = list(inputs)
        moved[k] = Eager(rng.standard_normal(sample.inputs[k].shape))
        direct = np.vdot(g.array, op(*moved, **sample.attrs).array)
        np.testing.assert_allclose(np.vdot(grad.array, moved[k].array), direct, rtol=1e-10, atol=1e-10)
    assert op.vjp(g, out, *inputs, needs=(False, False), **sample.attrs) == (None, None)


def operand(array: np.ndarray[Any, Any], side: Strided, batch: Any, outer: Any, k: Any) -> np.ndarray[Any, Any]:
    """[*batch, *outer, *k] read as `side` says; fails when a read leaves the array."""
    flat = np.full((*batch, *outer, *k), side.offset, np.int64)
    strides = (*side.batch, *side.outer, *side.k)
    for axis, (size, stride) in enumerate(zip(flat.shape, strides, strict=True)):
        flat += (np.arange(size) * stride).reshape([-1 if i == axis else 1 for i in range(flat.ndim)])
    assert not flat.size or (flat.min() >= 0 and flat.max() < array.size)
    return array.reshape(-1)[flat] if flat.size else np.zeros(flat.shape)


def run_piece(piece: ContractPiece, arrays: list[np.ndarray[Any, Any]], out: np.ndarray[Any, Any], hits: Any) -> None:
    core = piece.core
    padded = [np.pad(x, piece.pads[i]) if i in piece.pads else x for i, x in enumerate(arrays)]
    sizes = [int(np.prod(s)) for s in (core.batch, core.m, core.n, core.k)]
    a = operand(padded[core.a.operand], core.a, core.batch, core.m, core.k).reshape(sizes[0], sizes[1], sizes[3])
    b = operand(padded[core.b.operand], core.b, core.batch, core.n, core.k).reshape(sizes[0], sizes[2], sizes[3])
    acc = np.einsum("bmk,bnk->bmn", a, b).reshape(*core.batch, *core.m, *core.n)
    rank = acc.ndim
    places = [affine(e, rank) for e in piece.out]
    for point in itertools.product(*map(range, acc.shape)):
        place = tuple(p[0] + sum(c * i for c, i in zip(p[1], point, strict=True)) for p in places if p is not None)
        out[place] = acc[point]
        hits[place] += 1


@pytest.mark.parametrize(("op", "sample"), samples(*PRIMITIVES))
def test_lowering_covers_the_output_once_with_the_reference(op: Op, sample: Sample) -> None:
    types = tuple(TensorType(float64, x.shape) for x in sample.inputs)
    expected = op.reference(*sample.inputs, **sample.attrs)
    out, hits = np.full(expected.shape, np.nan), np.zeros(expected.shape, int)
    assert isinstance(op.lower, Contraction)
    for piece in op.lower.fn(types, **sample.attrs):
        run_piece(piece, list(sample.inputs), out, hits)
    assert (hits == 1).all()
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)


def naive_conv(x: Any, w: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    (sh, sw), (dh, dw) = stride, dilation
    kh, kw = w.shape[2:]
    ho, wo = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1, (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    out = np.zeros((x.shape[0], w.shape[0], ho, wo))
    for n, o, i, j in np.ndindex(*out.shape):
        window = x[n, :, i * sh : i * sh + dh * (kh - 1) + 1 : dh, j * sw : j * sw + dw * (kw - 1) + 1 : dw]
        out[n, o, i, j] = (window * w[o]).sum()
    return out


def test_conv2d_reference_is_the_sum_over_windows() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 8, 9)), rng.standard_normal((4, 3, 2, 3))
    how = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "dilation": (1, 2)}
    np.testing.assert_allclose(conv2d.reference(x, w, **how), naive_conv(x, w, *how.values()), rtol=1e-12)
    halves = [naive_conv(x[:, k : k + 1], w[2 * k : 2 * k + 2, :1], *how.values()) for k in range(2)]
    grouped = conv2d.reference(x[:, :2], w[:, :1], **how, groups=2)
    np.testing.assert_allclose(grouped, np.concatenate(halves, 1), rtol=1e-12)


def test_matmul_orders_of_operands() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4, 3)), rng.standard_normal((5, 4))
    np.testing.assert_allclose(matmul.reference(a, b, ta=True, tb=True), a.transpose(0, 2, 1) @ b.T)


def test_named_sizes() -> None:
    n = Dim("N")
    assert matmul.infer(TensorType(float32, (n, 3)), TensorType(float32, (3, 4))).shape == (n, 4)
    assert linear.infer(TensorType(float32, (n, 2, 3)), TensorType(float32, (4, 3))).shape == (n, 2, 4)
    x, w = TensorType(float32, (n, 4, 8, 8)), TensorType(float32, (6, 4, 3, 3))
    out = conv2d.infer(x, w, stride=(2, 2), padding=((1, 1), (1, 1)))
    assert out.shape == (n, 6, 4, 4)
    how = {"stride": (2, 2), "padding": ((1, 1), (1, 1))}
    assert conv2d_input_grad.infer(out, w, input_shape=(8, 8), **how) is x
    assert conv2d_weight_grad.infer(out, x, kernel_size=(3, 3), **how) is w
    tall = conv2d.infer(TensorType(float32, (1, 4, n, 8)), w)
    assert tall.shape == (1, 6, n + (-2), 6)


def test_errors_name_the_op_and_both_types() -> None:
    def f(*sizes: int) -> TensorType:
        return TensorType(float32, sizes)

    with pytest.raises(ShapeError, match=r"^matmul: operands f32\[2, 3\] and f32\[4, 5\] do not fit"):
        matmul.infer(f(2, 3), f(4, 5))
    with pytest.raises(ShapeError, match=r"^matmul: .*two dimensions"):
        matmul.infer(f(2), f(2, 2))
    with pytest.raises(ShapeError, match=r"^matmul: .*broadcast"):
        matmul.infer(f(2, 2, 2), f(3, 2, 2))
    with pytest.raises(DTypeError, match=r"^matmul: .*i64"):
        matmul.infer(f(2, 2), TensorType(int64, (2, 2)))
    with pytest.raises(ShapeError, match=r"^linear: bias"):
        linear.infer(f(2, 3), f(4, 3), f(3))
    with pytest.raises(ShapeError, match=r"^conv2d: .*channels"):
        conv2d.infer(f(1, 3, 4, 4), f(2, 4, 1, 1))
    with pytest.raises(ShapeError, match=r"^conv2d: a filter of size 5"):
        conv2d.infer(f(1, 3, 4, 4), f(2, 3, 5, 1))
    with pytest.raises(ShapeError, match=r"^conv2d: .*groups"):
        conv2d.infer(f(1, 3, 4, 4), f(2, 3, 1, 1), groups=2)
    with pytest.raises(UnsupportedError, match=r"^conv2d: algorithm"):
        conv2d.infer(f(1, 3, 4, 4), f(2, 3, 1, 1), algorithm="fft")
    with pytest.raises(ShapeError, match=r"^conv2d_input_grad: gradient"):
        conv2d_input_grad.infer(f(1, 2, 4, 4), f(2, 3, 1, 1), input_shape=(5, 4))
    with pytest.raises(ShapeError, match=r"^conv2d_weight_grad: gradient"):
        conv2d_weight_grad.infer(f(1, 2, 4, 4), f(1, 3, 5, 4), kernel_size=(1, 1))
