"""Matrix products. The order in which products are added is rule "Contraction" of docs/numerics.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.expr import index
from graphc.ir.infer import broadcast_shape
from graphc.ir.kernel import Contract, Strided
from graphc.ir.op import Array, Contraction, ContractPiece, Op, Sample, define, op_named
from graphc.ir.ops.elementwise import NUMBERS, unbroadcast
from graphc.ir.types import (
    DType,
    Shape,
    Size,
    TensorType,
    contiguous_strides,
)

CONTRACTED = NUMBERS


def same_dtype(name: str, a: TensorType, b: TensorType) -> DType:
    """The one dtype of two operands of a contraction. Raises DTypeError."""
    if a.dtype is not b.dtype or a.dtype not in CONTRACTED:
        allowed = ", ".join(t.name for t in CONTRACTED)
        raise DTypeError(
            f"{name}: operands are {a} and {b}; both must have one dtype of {allowed}: convert one with .to()"
        )
    return a.dtype


def wide(x: Array) -> Array:
    """float32 as float64, the rest as it is: the references sum in float64 and round once."""
    return x.astype(np.float64) if x.dtype == np.float32 else x


def _matmul_infer(a: TensorType, b: TensorType, ta: bool = False, tb: bool = False) -> TensorType:
    dtype = same_dtype("matmul", a, b)
    if a.ndim < 2 or b.ndim < 2:
        raise ShapeError(f"matmul: operands {a} and {b} need two dimensions or more: add one with unsqueeze")
    m, k = a.shape[-2:][::-1] if ta else a.shape[-2:]
    kb, n = b.shape[-2:][::-1] if tb else b.shape[-2:]
    how = f"operands {a}{' (transposed)' if ta else ''} and {b}{' (transposed)' if tb else ''}"
    if k != kb:
        raise ShapeError(f"matmul: {how} do not fit: {k} columns meet {kb} rows; transpose or reshape one of them")
    return TensorType(dtype, (*broadcast_shape("matmul", a.shape[:-2], b.shape[:-2]), m, n))


def _matmul_reference(a: Array, b: Array, ta: bool = False, tb: bool = False) -> Array:
    a, b = (np.swapaxes(a, -1, -2) if ta else a), (np.swapaxes(b, -1, -2) if tb else b)
    with np.errstate(all="ignore"):
        product: Array = np.matmul(wide(a), wide(b))
    return product.astype(a.dtype)


def _matmul_lower(types: tuple[TensorType, ...], ta: bool = False, tb: bool = False) -> list[ContractPiece]:
    a, b = types
    out = _matmul_infer(a, b, ta, tb)
    batch = out.sizes[:-2]
    sa, sb = _batch_strides(a, batch), _batch_strides(b, batch)
    (am, ak), (bk, bn) = _matrix_strides(a, ta), _matrix_strides(b, tb)
    m, n = out.sizes[-2:]
    k = a.sizes[-2 if ta else -1]
    rank = len(batch)
    axes = tuple(index(i) for i in range(rank + 2))
    if any(sb):
        core = Contract(
            (a.dtype, b.dtype), a.dtype, batch, (m,), (n,), (k,),
            Strided(0, 0, sa, (am,), (ak,)), Strided(1, 0, sb, (bn,), (bk,)), (),
        )  # fmt: skip
    else:  # one matrix b for the whole batch: the batch is only more rows
        core = Contract(
            (a.dtype, b.dtype), a.dtype, (), (*batch, m), (n,), (k,),
            Strided(0, 0, (), (*sa, am), (ak,)), Strided(1, 0, (), (bn,), (bk,)), (),
        )  # fmt: skip
    return [ContractPiece(core, axes)]


def _matrix_strides(t: TensorType, transposed: bool) -> tuple[int, int]:
    row, column = contiguous_strides(t.sizes)[-2:]
    return (column, row) if transposed else (row, column)


def _batch_strides(t: TensorType, batch: tuple[int, ...]) -> tuple[int, ...]:
    missing = len(batch) - (t.ndim - 2)
    own = zip(t.sizes[:-2], contiguous_strides(t.sizes)[:-2], strict=True)
    return (0,) * missing + tuple(0 if size == 1 else stride for size, stride in own)


def _rows(x: Any) -> Any:
    """All leading axes folded into one."""
    shape: Shape = x.ttype.shape
    rows: Size = 1
    for s in shape[:-1]:
        rows = rows * s
    return op_named("reshape")(x, shape=(rows, shape[-1])) if len(shape) > 2 else x


def _matmul_vjp(
    g: Any, out: Any, a: Any, b: Any, *, needs: tuple[bool, ...], ta: bool = False, tb: bool = False
) -> tuple[Any, Any]:
    ga = gb = None
    if needs[0]:
        ga = matmul(b, g, ta=tb, tb=True) if ta else matmul(g, b, ta=False, tb=not tb)
        ga = unbroadcast(ga, a.ttype)
    if needs[1]:
        if b.ttype.ndim == 2 and not ta:  # one sum over every row, not one a batch element
            a, g = _rows(a), _rows(g)
        gb = matmul(g, a, ta=True, tb=ta) if tb else matmul(a, g, ta=not ta, tb=False)
        gb = unbroadcast(gb, b.ttype)
    return ga, gb


def _matmul_samples(rng: np.random.Generator) -> Iterator[Sample]:
    def sample(a: tuple[int, ...], b: tuple[int, ...], **attrs: Any) -> Sample:
        return Sample((rng.standard_normal(a), rng.standard_normal(b)), attrs)

    yield sample((3, 4), (4, 5))
    yield sample((1, 1), (1, 1))
    yield sample((3, 0), (0, 2))
    yield sample((0, 3), (3, 2))
    yield sample((1, 7), (7, 33))
    yield sample((4, 3), (4, 5), ta=True)
    yield sample((3, 4), (5, 4), tb=True)
    yield sample((4, 3), (5, 4), ta=True, tb=True)
    yield sample((2, 3, 4), (2, 4, 5))
    yield sample((2, 3, 4), (4, 5))
    yield sample((2, 3, 4), (5, 4), tb=True)
    yield sample((3, 4), (2, 4, 5))
    yield sample((2, 1, 3, 2), (1, 3, 2, 2))
    yield sample((2, 1, 2, 3), (3, 2, 2), ta=True, tb=True)


matmul = define(
    Op(
        "matmul",
        infer=_matmul_infer,
        reference=_matmul_reference,
        samples=_matmul_samples,
        lower=Contraction(_matmul_lower),
        vjp=_matmul_vjp,
        saves=("0", "1"),
        dtypes=CONTRACTED,
        arity=2,
        doc="Product of the matrices in the last two axes, leading axes broadcast. Attributes ta, tb: transpose first.",
    )
)


def _linear_infer(x: TensorType, w: TensorType, *bias: TensorType) -> TensorType:
    same_dtype("linear", x, w)
    if x.ndim < 2 or w.ndim != 2 or x.shape[-1] != w.shape[1]:
        raise ShapeError(
            f"linear: input {x} does not fit weight {w}; the last size of the input must be the weight's second"
        )
    if bias:
        same_dtype("linear", x, bias[0])
        if bias[0].shape != (w.shape[0],):
            raise ShapeError(f"linear: bias {bias[0]} does not fit weight {w}; it must have shape [{w.shape[0]}]")
    return TensorType(x.dtype, (*x.shape[:-1], w.shape[0]))


def _linear_reference(x: Array, w: Array, *bias: Array) -> Array:
    product = _matmul_reference(x, w, tb=True)
    return product + bias[0] if bias else product


def _linear_decompose(x: Any, w: Any, *bias: Any) -> Any:
    product = matmul(x, w, tb=True)
    return op_named("add")(product, bias[0]) if bias else product


def _linear_vjp(g: Any, out: Any, x: Any, w: Any, *bias: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    gx = matmul(g, w) if needs[0] else None
    gw = matmul(_rows(g), _rows(x), ta=True) if needs[1] else None
    if not bias:
        return gx, gw
    leading = tuple(range(g.ttype.ndim - 1))
    return gx, gw, op_named("sum")(g, dim=leading, keepdim=False) if needs[2] else None


def _linear_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample((rng.standard_normal((3, 4)), rng.standard_normal((5, 4))))
    yield Sample((rng.standard_normal((3, 4)), rng.standard_normal((5, 4)), rng.standard_normal(5)))
    yield Sample((rng.standard_normal((2, 3, 4)), rng.standard_normal((5, 4)), rng.standard_normal(5)))


linear = define(
    Op(
        "linear",
        infer=_linear_infer,
        reference=_linear_reference,
        samples=_linear_samples,
        decompose=_linear_decompose,
        vjp=_linear_vjp,
        saves=("0", "1"),
        dtypes=CONTRACTED,
        arity=None,
        doc="x @ w.T (+ bias): x [..., in], w [out, in], bias [out].",
    )
)
