"""The CPU template of contractions gives the bits of ir/numerics.py, whatever the target, the roles and the cuts."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from graphc.codegen.cpu.contraction import lower
from graphc.codegen.cpu.kernel import CpuKernel
from graphc.codegen.target import AARCH64, X86_64_V3, X86_64_V4, Target, host_target
from graphc.ir.expr import Expr, acc, apply, const, flat_index, index, load
from graphc.ir.kernel import Contract, Store, Strided
from graphc.ir.numerics import contraction
from graphc.ir.op import Contraction, ContractPiece, Op
from graphc.ir.ops.contract import matmul
from graphc.ir.ops.conv import conv2d, conv2d_input_grad, conv2d_weight_grad
from graphc.ir.types import DType, TensorType, bool_, contiguous_strides, float32, float64, int64
from graphc.runtime import llvm

TARGETS = [t for t in (X86_64_V3, X86_64_V4) if host_target() in (t, X86_64_V4)]
Array = np.ndarray[Any, Any]


@functools.cache
def compiled(key: str, target: Target, kernel: Any) -> Any:
    code = llvm.load_objects([llvm.compile_text(kernel.value.emit(target), target)])
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    return code, call(code.address(kernel.value.symbol))


class ByKey:
    """A kernel that is equal to any other of the same key: code is compiled once a structure."""

    def __init__(self, value: CpuKernel) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByKey) and other.value.key == self.value.key

    def __hash__(self) -> int:
        return hash(self.value.key)


def run(c: Contract, target: Target, arrays: Sequence[Array], parts: int = 1) -> None:
    """Run the kernel in `parts` pieces with fresh, poisoned scratch for each."""
    k = lower(c)
    _, function = compiled(k.key, target, ByKey(k))
    block = np.array([a.ctypes.data for a in arrays] + [*k.params] + [t.ctypes.data for t in k.tables], np.int64)
    step = max(1, -(-k.units // parts))
    for low in range(0, k.units, step):
        scratch = np.full(k.scratch + 128, 0xFF, np.uint8)
        start = -scratch.ctypes.data % 64
        function(block.ctypes.data, low, min(low + step, k.units), scratch.ctypes.data + start)
        assert (scratch[start + k.scratch :] == 0xFF).all(), "wrote past the scratch"


def product(dtype: DType, m: int, n: int, k: int, ta: bool = False, tb: bool = False) -> Contract:
    """A plain matrix product into operand 2."""
    a = Strided(0, 0, (), (1 if ta else k,), (m if ta else 1,))
    b = Strided(1, 0, (), (k if tb else 1,), (1 if tb else n,))
    out = Store(2, flat_index((index(0), index(1)), (n, 1)), acc(dtype))
    return Contract((dtype, dtype, dtype), dtype, (), (m,), (n,), (k,), a, b, (out,))


def values(rng: np.random.Generator, dtype: DType, *shape: int) -> Array:
    return (rng.standard_normal(shape) * 8).astype(dtype.np)


def same(x: Array, y: Array) -> bool:
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


SIZES = [
    (1, 1, 1, "nn"), (5, 7, 0, "nn"), (3, 5, 1, "nn"), (33, 65, 511, "nn"), (9, 33, 512, "nt"), (17, 40, 513, "tn"),
    (9, 35, 1025, "tt"), (3, 100, 20, "nn"), (1, 300, 70, "nn"), (1, 70, 33, "nt"), (70, 1, 33, "nn"),
    (2, 3, 32769, "nn"), (2, 3, 32769, "nt"), (100, 31, 17, "nt"), (300, 4, 9, "nn"), (2, 40, 2, "nt"),
    (6, 70, 40, "nn"), (11, 100, 513, "nt"), (18, 65, 9, "tn"),
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [float32, float64, int64], ids=lambda t: t.short)
@pytest.mark.parametrize(("m", "n", "k", "how"), SIZES)
def test_matrix_products_have_the_bits_of_the_rule(
    target: Target, dtype: DType, m: int, n: int, k: int, how: str
) -> None:
    if dtype is float64 and k > 32768:
        pytest.skip("the oracle is slow in float64")
    rng = np.random.default_rng(m * n + k)
    ta, tb = (letter == "t" for letter in how)
    a, b = values(rng, dtype, *((k, m) if ta else (m, k))), values(rng, dtype, *((n, k) if tb else (k, n)))
    expected = contraction(a.T if ta else a, b.T if tb else b)
    for parts in (1, 2):
        out = values(rng, dtype, m, n)
        run(product(dtype, m, n, k, ta, tb), target, (a, b, out), parts)
        assert same(out, expected)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_many_rows_and_page_strides(target: Target) -> None:
    """Several runs of rows a panel, and a panel that is copied because its rows are a page apart."""
    rng = np.random.default_rng(0)
    for m, n, k in ((530, 70, 40), (100, 1024, 30)):
        a, b, out = values(rng, float32, m, k), values(rng, float32, k, n), np.zeros((m, n), np.float32)
        run(product(float32, m, n, k), target, (a, b, out), 2)
        assert same(out, contraction(a, b))


def test_special_values() -> None:
    """Signed zeros, infinities, NaN and denormals; garbage in scratch lanes never shows."""
    rng = np.random.default_rng(5)
    pool = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3e38, 1e-30], np.float32)
    a, b = rng.choice(pool, (9, 5)), rng.choice(pool, (5, 37))
    out = np.zeros((9, 37), np.float32)
    run(product(float32, 9, 37, 5), host_target(), (a, b, out))
    expected = contraction(a, b)
    assert (np.isnan(out) == np.isnan(expected)).all()
    assert same(np.nan_to_num(out, nan=7), np.nan_to_num(expected, nan=7))


def placed(piece: ContractPiece, out: tuple[int, ...]) -> Contract:
    """The piece with a store into operand 2, a contiguous array of shape `out`."""
    core = piece.core
    flat = flat_index(piece.out, contiguous_strides(out))
    return Contract(
        (*core.operands, core.dtype), core.dtype, core.batch, core.m, core.n, core.k, core.a, core.b,
        (Store(2, flat, acc(core.dtype)),),
    )  # fmt: skip


def read(array: Array, side: Strided, *sizes: tuple[int, ...]) -> Array:
    flat = np.full([n for s in sizes for n in s], side.offset, np.int64)
    for axis, (size, stride) in enumerate(zip(flat.shape, (*side.batch, *side.outer, *side.k), strict=True)):
        flat += (np.arange(size) * stride).reshape([-1 if i == axis else 1 for i in range(flat.ndim)])
    picked = array.reshape(-1)[flat] if flat.size else np.zeros(flat.shape, array.dtype)
    return picked.reshape([math.prod(s) for s in sizes])


def op_bits(op: Op, arrays: Sequence[Array], target: Target, **attrs: Any) -> tuple[Array, Array]:
    """(what the kernels give, what the rule gives)."""
    dtype = {np.dtype(np.float32): float32, np.dtype(np.float64): float64}[arrays[0].dtype]
    types = tuple(TensorType(dtype, x.shape) for x in arrays)
    found = op.infer(*types, **attrs)
    assert isinstance(found, TensorType)
    assert isinstance(op.lower, Contraction)
    out, oracle = np.full(found.sizes, 77, dtype.np), np.full(found.sizes, 77, dtype.np)
    for piece in op.lower.fn(types, **attrs):
        core = piece.core
        padded = [np.pad(x, piece.pads[i]) if i in piece.pads else x for i, x in enumerate(arrays)]
        contract = placed(piece, found.sizes)
        run(contract, target, (*padded, out), 2)
        a = read(padded[core.a.operand], core.a, core.batch, core.m, core.k)
        b = read(padded[core.b.operand], core.b, core.batch, core.n, core.k)
        sums = contraction(a, np.swapaxes(b, 1, 2)).reshape(*core.batch, *core.m, *core.n)
        places = [evaluate(e, sums.shape) for e in piece.out]
        oracle[tuple(places)] = sums
    return out, oracle


def evaluate(e: Expr, shape: tuple[int, ...]) -> Array:
    """An affine index over the whole space."""
    if e.op == "index":
        return np.indices(shape, sparse=True)[e.value] + np.zeros(shape, np.int64)
    if e.op == "const":
        return np.full(shape, e.value)
    x, y = (evaluate(a, shape) for a in e.args)
    return x + y if e.op == "add" else x * y


CONVOLUTIONS = [
    ((2, 5, 9, 11), (7, 5, 3, 3), {"padding": ((1, 1), (1, 1))}),
    ((1, 40, 8, 8), (33, 40, 3, 3), {"padding": ((1, 1), (1, 1))}),
    ((2, 3, 13, 12), (8, 3, 3, 2), {"stride": (2, 2), "padding": ((1, 0), (0, 2))}),
    ((1, 4, 12, 40), (6, 2, 2, 3), {"groups": 2, "dilation": (2, 2), "padding": ((0, 1), (2, 2))}),
    ((3, 2, 5, 5), (3, 2, 1, 1), {"stride": (2, 2)}),
    ((5, 3, 8, 8), (6, 3, 3, 3), {"padding": ((1, 1), (1, 1))}),
    ((5, 4, 7, 7), (17, 4, 3, 3), {"padding": ((1, 1), (1, 1))}),
    ((2, 2, 18, 28), (9, 2, 3, 3), {"padding": ((1, 1), (1, 1))}),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize(("x", "w", "how"), CONVOLUTIONS)
@pytest.mark.parametrize("op", [conv2d, conv2d_input_grad, conv2d_weight_grad], ids=lambda op: op.name)
def test_convolutions_have_the_bits_of_the_rule(target: Target, x: Any, w: Any, how: dict[str, Any], op: Op) -> None:
    rng = np.random.default_rng(1)
    image, filters = values(rng, float32, *x), values(rng, float32, *w)
    g = values(rng, float32, *conv2d.infer(TensorType(float32, x), TensorType(float32, w), **how).sizes)  # type: ignore[union-attr]
    if op is conv2d:
        out, oracle = op_bits(op, (image, filters), target, **how)
    elif op is conv2d_input_grad:
        out, oracle = op_bits(op, (g, filters), target, input_shape=x[2:], **how)
    else:
        out, oracle = op_bits(op, (g, image), target, kernel_size=w[2:], **how)
    assert same(out, oracle)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_batched_products(target: Target) -> None:
    rng = np.random.default_rng(1)
    for a, b, how in (
        ((2, 3, 5, 7), (3, 7, 20), {}), ((4, 9, 6), (6, 33), {}),
        ((2, 1, 6, 40), (1, 3, 50, 6), {"ta": True, "tb": True}),
    ):  # fmt: skip
        out, oracle = op_bits(matmul, (values(rng, float32, *a), values(rng, float32, *b)), target, **how)
        assert same(out, oracle)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize(("m", "n"), [(20, 45), (1, 45), (45, 1)])
def test_epilogue(target: Target, m: int, n: int) -> None:
    """Two outputs of different dtypes, a bias along n, one along m, a residual and a condition."""
    rng = np.random.default_rng(2)
    k = 30
    a, b, row, column, residual = (values(rng, float32, *s) for s in ((m, k), (k, n), (m,), (n,), (m, n)))
    flat = flat_index((index(0), index(1)), (n, 1))
    total = apply("add", apply("add", acc(float32), load(2, float32, index(1))), load(3, float32, index(0)))
    shown = apply("max", apply("mul", total, load(4, float32, flat)), const(0.0, float32))
    transposed = flat_index((index(1), index(0)), (m, 1))
    stores = (
        Store(5, flat, shown),
        Store(6, transposed, apply("cast", acc(float32), dtype=float64), apply("lt", index(1), const(40, int64))),
        Store(7, flat, apply("gt", shown, const(1.0, float32))),
    )
    operands = (float32,) * 6 + (float64, bool_)
    c = Contract(
        operands, float32, (), (m,), (n,), (k,), Strided(0, 0, (), (k,), (1,)), Strided(1, 0, (), (1,), (n,)), stores
    )
    out, wide, positive = np.zeros((m, n), np.float32), np.full((n, m), 5.0), np.zeros((m, n), np.bool_)
    run(c, target, (a, b, column, row, residual, out, wide, positive), 2)
    sums = contraction(a, b)
    expected = np.maximum((sums + column + row[:, None]) * residual, np.float32(0))
    assert same(out, expected)
    assert same(positive, expected > 1)
    assert (wide[:40] == sums.T[:40]).all()
    assert (wide[40:] == 5).all()


def random_side(rng: np.random.Generator, operand: int, *sizes: tuple[int, ...]) -> tuple[Strided, int]:
    """A random affine view (permuted, strided, repeated or reversed axes) and the elements it needs."""
    flat = [n for s in sizes for n in s]
    strides, step, offset = [0] * len(flat), 1, 0
    for axis in rng.permutation(len(flat)):
        if rng.random() < 0.1:
            continue
        strides[axis] = step * int(rng.choice([1, 1, 1, 2]))
        step = strides[axis] * max(flat[axis], 1)
        if rng.random() < 0.1:
            offset += strides[axis] * max(flat[axis] - 1, 0)
            strides[axis] *= -1
    edges = [len(sizes[0]), len(sizes[0]) + len(sizes[1])]
    parts = strides[: edges[0]], strides[edges[0] : edges[1]], strides[edges[1] :]
    reach = offset + sum(max(s, 0) * max(n - 1, 0) for s, n in zip(strides, flat, strict=True))
    return Strided(operand, offset, *(tuple(p) for p in parts)), reach + 1


@pytest.mark.parametrize("seed", range(12))
def test_random_contracts(seed: int) -> None:
    """Any number of axes of any size and stride, a permuted output and a bias along a random axis."""
    rng = np.random.default_rng(seed)
    for _ in range(4):
        batch, m, n, k = (
            tuple(int(rng.choice([1, 2, 3, rng.integers(1, 40)])) for _ in range(rng.integers(0, 3))) for _ in range(4)
        )
        shape = (*batch[:1], *m, *n)
        batch, rank = batch[:1], len(shape)
        if math.prod(shape) * math.prod(k) > 300_000:
            continue
        (a, size_a), (b, size_b) = random_side(rng, 0, batch, m, k), random_side(rng, 1, batch, n, k)
        order = [int(i) for i in rng.permutation(rank)]
        strides = [0] * rank
        for axis, stride in zip(order, contiguous_strides(tuple(shape[i] for i in order)), strict=True):
            strides[axis] = stride
        along = int(rng.integers(rank)) if rank else 0
        value = apply("add", acc(float32), load(3, float32, index(along))) if rank else acc(float32)
        out = Store(2, flat_index([index(i) for i in range(rank)], strides), value)
        c = Contract((float32,) * 4, float32, batch, m, n, k, a, b, (out,))
        left, right = values(rng, float32, size_a), values(rng, float32, size_b)
        bias = values(rng, float32, shape[along] if rank else 1)
        found = np.zeros(math.prod(shape), np.float32)
        run(c, TARGETS[seed % len(TARGETS)], (left, right, found, bias), 1 + seed % 3)
        expected = contraction(read(left, a, batch, m, k), np.swapaxes(read(right, b, batch, n, k), 1, 2)).reshape(
            shape
        )
        if rank:
            expected = expected + bias.reshape([-1 if i == along else 1 for i in range(rank)])
        assert same(found, np.ascontiguousarray(expected.transpose(order)).reshape(-1))


def test_sizes_are_not_part_of_the_code() -> None:
    keys = {lower(product(float32, m, n, k)).key for m, n, k in ((20, 100, 30), (200, 70, 3000), (77, 96, 5))}
    assert len(keys) == 1
    assert lower(product(float32, 20, 100, 30)).key != lower(product(float64, 20, 100, 30)).key
    assert lower(product(float32, 0, 5, 3)).units == 0
    assert lower(product(float32, 5, 0, 3)).units == 0


def test_other_targets_compile() -> None:
    for how in ({}, {"tb": True}):
        assert llvm.compile_text(lower(product(float32, 64, 64, 64, **how)).emit(AARCH64), AARCH64)
