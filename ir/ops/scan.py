"""Walks along one axis: running sums, products and extremes, the order of elements, the places a mask holds.

Order of the running sums and products: docs/numerics.md. What moves elements by these (sort, cummax, kthvalue, …) are
gathers in the front end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import numerics
from graphc.ir.infer import require_dtype
from graphc.ir.op import Array, Op, Operand, Sample, Scanning, define
from graphc.ir.ops import movement
from graphc.ir.ops import pointwise as pw
from graphc.ir.ops.elementwise import FLOATS, NUMBERS, SPECIAL
from graphc.ir.ops.reduce import fill, spread, sum_
from graphc.ir.ops.reindex import check_dim
from graphc.ir.types import DType, TensorType, bool_, int64

Needs = Sequence[bool]
_ORDERED: tuple[DType, ...] = (bool_, *NUMBERS)
_SHAPES: tuple[tuple[tuple[int, ...], int], ...] = (
    ((5,), 0), ((1,), 0), ((3, 4), 0), ((3, 4), 1), ((2, 5, 3), 1), ((0,), 0), ((2, 0, 3), 2), ((2, 0, 3), 1),
)  # fmt: skip


def along(kind: str, dim: int, x: Array, descending: bool = False) -> Array:
    """The reference of a scan: `scanned` along axis `dim`."""
    from graphc.ir.expr_numpy import scanned  # which needs the ops

    return np.ascontiguousarray(np.moveaxis(scanned(kind, np.moveaxis(x, dim, 0), descending), 0, dim))


def _infer(name: str, dtypes: Sequence[DType], out: DType | None) -> Callable[..., TensorType]:
    def infer(x: TensorType, *, dim: int) -> TensorType:
        require_dtype(name, x, dtypes)
        check_dim(name, dim, x.ndim)
        return x if out is None else x.with_dtype(out)

    return infer


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dim in _SHAPES:
        x = np.asarray(rng.uniform(0.3, 1.5, shape) * rng.choice((-1, 1), shape))
        yield Sample((x,), {"dim": dim}, f"{shape} along {dim}")
    rows = np.asarray(rng.uniform(-2, 2, (2, 1030)))
    yield Sample((rows,), {"dim": 1}, "more than a block", grad=False)


def _equals(rng: np.random.Generator) -> Iterator[Sample]:
    """Values that meet again, and special ones."""
    for shape, dim in _SHAPES:
        x = rng.integers(-2, 3, shape).astype(np.float64)
        yield Sample((x,), {"dim": dim}, f"{shape} along {dim}", grad=False)
    special = np.array([[np.nan, 1, np.nan, -np.inf], [0.0, -0.0, 0.0, -0.0], [np.inf, -np.inf, 2, np.nan]])
    for dim in (0, 1):
        yield Sample((special,), {"dim": dim}, "special", grad=False, dtypes=FLOATS)


def _backwards(x: Any, op: Op, dim: int) -> Any:
    """`op` from the end of the axis."""
    return movement.flip(op(movement.flip(x, dims=(dim,)), dim=dim), dims=(dim,))


def _cumsum_vjp(g: Any, out: Operand, x: Operand, *, needs: Needs, dim: int) -> tuple[Any]:
    return (_backwards(g, cumsum, dim),)


def _cumprod_vjp(g: Any, out: Any, x: Any, *, needs: Needs, dim: int) -> tuple[Any]:
    # Before the first zero: Σ_{j >= i} g_j out_j / x_i. At it: Σ g_j * (the product without it). Behind it nothing
    # changes the result. No division by zero; of several zeros only the first has a gradient. What is multiplied by
    # that zero itself is there for the gradient of the gradient, which the second zero has too.
    zero = pw.eq(x, 0)
    zeros = cumsum(pw.cast(zero, dtype=int64), dim=dim)
    before = pw.eq(zeros, 0)
    first = pw.bitwise_and(zero, pw.eq(zeros, 1))
    second = pw.bitwise_and(zero, pw.eq(zeros, 2))
    nonzero = fill(x, zero, 1)
    ahead = _backwards(fill(pw.mul(g, out), pw.bitwise_not(before), 0), cumsum, dim)
    without = cumprod(fill(x, first, 1), dim=dim)
    at_first = _backwards(fill(pw.mul(g, without), before, 0), cumsum, dim)
    neither = cumprod(fill(x, pw.bitwise_or(first, second), 1), dim=dim)
    at_second = _backwards(fill(pw.mul(g, neither), pw.lt(zeros, 2), 0), cumsum, dim)
    the_zero = spread(sum_(fill(x, pw.bitwise_not(first), 0), dim=(dim,), keepdim=True), x, (dim,), True)
    divided = fill(pw.div(ahead, nonzero), pw.bitwise_not(before), 0)
    behind = pw.add(divided, pw.mul(the_zero, pw.div(at_first, nonzero)))
    return (pw.where(first, at_first, pw.where(second, pw.mul(the_zero, at_second), fill(behind, zero, 0))),)


def _logcumsumexp_vjp(g: Any, out: Any, x: Any, *, needs: Needs, dim: int) -> tuple[Any]:
    # Σ_{j >= i} g_j e^(x_i - out_j), positive and negative g_j apart, in logarithms: nothing overflows on the way
    def part(sign: float) -> Any:
        some = pw.gt(pw.mul(g, sign), 0.0)
        size = pw.log(fill(pw.mul(g, sign), pw.bitwise_not(some), 1.0))
        terms = fill(pw.sub(size, out), pw.bitwise_not(some), -np.inf)
        return pw.exp(pw.add(_backwards(terms, logcumsumexp, dim), x))

    return (pw.sub(part(1.0), part(-1.0)),)


cumsum = define(
    Op(
        "cumsum",
        _infer("cumsum", NUMBERS, None),
        lambda x, *, dim: along("sum", dim, x),
        _samples,
        lower=Scanning("sum"),
        vjp=_cumsum_vjp,
        dtypes=NUMBERS,
        doc="Sum of all so far along `dim`; order: chains in blocks of 1024, docs/numerics.md.",
    )
)
cumprod = define(
    Op(
        "cumprod",
        _infer("cumprod", NUMBERS, None),
        lambda x, *, dim: along("prod", dim, x),
        _samples,
        lower=Scanning("prod"),
        vjp=_cumprod_vjp,
        saves=("0", "out"),
        dtypes=NUMBERS,
        doc="Product of all so far along `dim`, in the order of cumsum.",
    )
)
logcumsumexp = define(
    Op(
        "logcumsumexp",
        _infer("logcumsumexp", FLOATS, None),
        lambda x, *, dim: along("logaddexp", dim, x),
        _samples,
        lower=Scanning("logaddexp"),
        vjp=_logcumsumexp_vjp,
        saves=("0", "out"),
        dtypes=FLOATS,
        doc="log(e^x_0 + … + e^x_j) along `dim`, in the order of cumsum.",
    )
)


def _places(name: str, kind: str, doc: str) -> Op:
    return define(
        Op(
            name,
            _infer(name, _ORDERED, int64),
            lambda x, *, dim: along(kind, dim, x),
            _equals,
            lower=Scanning(kind),
            dtypes=_ORDERED,
            differentiable=False,
            doc=doc,
        )
    )


argcummax = _places(
    "argcummax", "argmax", "Place of the largest so far along `dim`: the last of equals, the last NaN; -0 = +0."
)
argcummin = _places(
    "argcummin", "argmin", "Place of the smallest so far along `dim`: the last of equals, the last NaN; -0 = +0."
)


def _order_infer(x: TensorType, *, dim: int, descending: bool) -> TensorType:
    return _infer("argsort", _ORDERED, int64)(x, dim=dim)


def _order_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for sample in _equals(rng):
        for descending in (False, True):
            attrs = {**sample.attrs, "descending": descending}
            yield Sample(sample.inputs, attrs, sample.name, grad=False, dtypes=sample.dtypes)
    yield Sample((np.array(SPECIAL),), {"dim": 0, "descending": True}, "special", grad=False, dtypes=FLOATS)


argsort = define(
    Op(
        "argsort",
        _order_infer,
        lambda x, *, dim, descending: along("argsort", dim, x, descending),
        _order_samples,
        lower=Scanning("argsort"),
        dtypes=_ORDERED,
        differentiable=False,
        doc="Which place comes j-th along `dim`: equal elements keep their order, -0 = +0, NaN is the greatest.",
    )
)


def _positions_infer(mask: TensorType, *, dim: int) -> TensorType:
    require_dtype("positions", mask, (bool_,))
    if mask.ndim != 1 or dim != 0:
        raise ShapeError(f"positions: the mask is {mask}, but it must be a vector; reshape it first")
    return mask.with_dtype(int64)


def _positions_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for n, share in ((0, 0.5), (1, 1.0), (7, 0.5), (40, 0.1), (40, 1.0)):
        yield Sample((np.asarray(rng.random(n) < share),), {"dim": 0}, f"{n} with {share}", grad=False)


positions = define(
    Op(
        "positions",
        _positions_infer,
        lambda mask, *, dim: numerics.places_of(mask),
        _positions_samples,
        lower=Scanning("positions"),
        dtypes=(bool_, int64),
        differentiable=False,
        doc="The places of a vector where it holds, ascending, and zeros behind them.",
    )
)
