"""Reductions over axes: sum, prod, amax, amin, any, all, argmax, argmin.

A primitive reduction runs over one run of adjacent axes; any other set of axes is split into runs, the innermost first
(docs/numerics.md).
`dim` is a tuple of sorted non-negative axes, except for argmax and argmin, which take one axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from graphc.errors import DimError, ShapeError
from graphc.ir import numerics
from graphc.ir.infer import reduced_shape, require_dtype
from graphc.ir.op import Array, Op, Operand, Reduction, Sample, define
from graphc.ir.ops import create, movement
from graphc.ir.ops import pointwise as pw
from graphc.ir.ops.elementwise import FLOATS, NUMBERS
from graphc.ir.types import DType, Shape, TensorType, bool_, int64

Needs = Sequence[bool]
Dims = tuple[int, ...]


# ---------------------------------------------------------------- helpers


def check_dims(name: str, dim: Any, ndim: int) -> None:
    """Raises DimError unless `dim` is a strictly ascending tuple of axes of a tensor of `ndim` dimensions."""
    if not isinstance(dim, tuple) or any(not isinstance(d, int) or not 0 <= d < ndim for d in dim):
        raise DimError(f"{name}: dim {dim!r} is out of range for a tensor of {ndim} dimensions")
    if any(a >= b for a, b in pairwise(dim)):
        raise DimError(f"{name}: dims {list(dim)} must be ascending and name no axis twice")


def runs_of(dim: Dims) -> list[Dims]:
    """`dim` cut into runs of adjacent axes, outermost first."""
    runs: list[Dims] = []
    for d in dim:
        if runs and runs[-1][-1] == d - 1:
            runs[-1] += (d,)
        else:
            runs.append((d,))
    return runs


def kept_shape(shape: Shape, dim: Sequence[int]) -> Shape:
    """`shape` with the axes `dim` set to 1."""
    return reduced_shape(shape, dim, True)


def spread(x: Any, like: Operand, dim: Sequence[int], keepdim: bool) -> Any:
    """A reduced operand brought back to the shape of `like` (which was reduced over `dim`)."""
    if not keepdim:
        x = movement.reshape(x, shape=kept_shape(like.ttype.shape, dim))
    return movement.expand(x, shape=like.ttype.shape)


def fill(x: Any, mask: Any, number: bool | int | float) -> Any:
    """`x` with `number` where `mask` holds."""
    return pw.where(mask, create.scalar_like(x, number), x)


def reduce_columns(fn: Callable[[Array], Array], x: Array, dim: Dims, keepdim: bool) -> Array:
    """Apply `fn` [run, columns] -> [columns] to each run of adjacent axes of `dim`, innermost first."""
    out = x
    for run in reversed(runs_of(dim)):
        lead, size = run[0], math.prod(out.shape[d] for d in run)
        rest = out.shape[run[-1] + 1 :]
        columns = np.moveaxis(out.reshape(*out.shape[:lead], size, *rest), lead, 0)
        flat = np.ascontiguousarray(columns).reshape(size, math.prod(columns.shape[1:]))
        out = np.asarray(fn(flat)).reshape(*out.shape[:lead], *(1,) * len(run), *rest)
    out = out.copy() if out is x else out
    return out.reshape(reduced_shape(x.shape, dim, keepdim))


def _shapes() -> Iterator[tuple[tuple[int, ...], Dims, bool]]:
    yield from (
        ((), (), False), ((5,), (0,), False), ((1,), (0,), True), ((3, 4), (0,), False),
        ((3, 4), (1,), True), ((3, 4), (0, 1), False),
        ((2, 3, 4), (1,), False), ((2, 3, 4), (0, 2), True), ((2, 3, 2, 3), (0, 2, 3), False),
        ((2, 3, 2, 3), (0, 2), False), ((2, 70), (1,), False),
        ((0, 3), (1,), False),
    )  # fmt: skip


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dim, keepdim in _shapes():
        yield Sample((rng.standard_normal(shape),), {"dim": dim, "keepdim": keepdim}, f"{shape} over {dim}")


def _samples_empty(rng: np.random.Generator) -> Iterator[Sample]:
    yield from _samples(rng)
    for shape, dim in (((0,), (0,)), ((2, 0, 3), (1,)), ((0, 3), (0, 1)), ((2, 0), (0,))):
        yield Sample((np.zeros(shape),), {"dim": dim, "keepdim": False}, f"{shape} over {dim}")


def _samples_bool(rng: np.random.Generator) -> Iterator[Sample]:
    for sample in _samples_empty(rng):
        x = sample.inputs[0]
        yield Sample((x > 0.5,), sample.attrs, sample.name, grad=False)
        yield Sample((x < 2.5,), sample.attrs, sample.name, grad=False)


def _infer(name: str, dtypes: Sequence[DType], empty: bool) -> Callable[..., TensorType]:
    def infer(x: TensorType, *, dim: Dims, keepdim: bool) -> TensorType:
        require_dtype(name, x, dtypes)
        check_dims(name, dim, x.ndim)
        if not empty and any(x.shape[d] == 0 for d in dim):
            raise ShapeError(
                f"{name}: {x} has no element along dims {list(dim)}, and {name} of nothing has no value; "
                "give it at least one"
            )
        return x.with_shape(reduced_shape(x.shape, dim, keepdim))

    return infer


def _primitive(
    name: str,
    kind: str,
    dtypes: tuple[DType, ...],
    columns: Callable[[Array], Array],
    vjp: Callable[..., tuple[Any, ...]] | None,
    saves: tuple[str, ...],
    doc: str,
    empty: bool = True,
) -> Op:
    def decompose(x: Any, *, dim: Dims, keepdim: bool) -> Any:
        runs = runs_of(dim)
        if len(runs) == 1:
            return None
        for run in reversed(runs):
            x = op(x, dim=run, keepdim=keepdim)
        return x if runs else movement.clone(x)

    samples = _samples_bool if dtypes == (bool_,) else _samples_empty if empty else _samples
    op = define(
        Op(
            name,
            _infer(name, dtypes, empty),
            lambda x, *, dim, keepdim: reduce_columns(columns, x, dim, keepdim),
            samples,
            lower=Reduction(kind),
            decompose=decompose,
            vjp=vjp,
            saves=saves,
            dtypes=dtypes,
            differentiable=vjp is not None,
            doc=doc,
        )
    )
    return op


# ---------------------------------------------------------------- sum, prod, amax, amin, any, all


def _sum_vjp(g: Any, out: Operand, x: Operand, *, needs: Needs, dim: Dims, keepdim: bool) -> tuple[Any]:
    return (spread(g, x, dim, keepdim),)


sum_ = _primitive(
    "sum",
    "sum",
    NUMBERS,
    numerics.reduction,
    _sum_vjp,
    (),
    "Sum over `dim`, +0 of nothing; order: rule R of docs/numerics.md.",
)


def _prod_vjp(g: Any, out: Any, x: Any, *, needs: Needs, dim: Dims, keepdim: bool) -> tuple[Any]:
    # With one zero in a row only that element has a gradient (the product of the others); with two, none has. What is
    # multiplied by the zeros themselves is there for the gradient of the gradient.
    zero = pw.eq(x, 0)
    zeros = spread(sum_(pw.cast(zero, dtype=x.ttype.dtype), dim=dim, keepdim=keepdim), x, dim, keepdim)
    safe = fill(x, zero, 1)
    others = spread(prod(safe, dim=dim, keepdim=keepdim), x, dim, keepdim)
    other_zero = spread(sum_(fill(x, pw.bitwise_not(zero), 0), dim=dim, keepdim=keepdim), x, dim, keepdim)
    at_zero = fill(pw.mul(others, pw.sub(other_zero, x)), pw.ne(zeros, 2), 0)
    at_zero = pw.where(pw.eq(zeros, 1), others, at_zero)
    divided = pw.div(others, safe)
    elsewhere = pw.where(pw.eq(zeros, 0), divided, fill(pw.mul(divided, other_zero), pw.ne(zeros, 1), 0))
    return (pw.mul(spread(g, x, dim, keepdim), pw.where(zero, at_zero, elsewhere)),)


prod = _primitive(
    "prod",
    "prod",
    NUMBERS,
    lambda columns: numerics.reduction(columns, np.multiply),
    _prod_vjp,
    ("0",),
    "Product over `dim`, 1 of nothing; order: rule R of docs/numerics.md.",
)


def _extreme_vjp(g: Any, out: Any, x: Any, *, needs: Needs, dim: Dims, keepdim: bool) -> tuple[Any]:
    # Equal extremes share the gradient evenly, as in PyTorch's amax.
    mask = pw.cast(pw.eq(x, spread(out, x, dim, keepdim)), dtype=x.ttype.dtype)
    count = sum_(mask, dim=dim, keepdim=keepdim)
    return (pw.mul(spread(pw.div(g, count), x, dim, keepdim), mask),)


def _max_columns(x: Array) -> Array:
    out = np.max(x, axis=0)
    if x.dtype.kind != "f":
        return np.asarray(out)
    negative = np.all((x < 0) | ((x == 0) & np.signbit(x)), axis=0)
    return np.where(out == 0, np.where(negative, -0.0, 0.0), out).astype(x.dtype)


def _min_columns(x: Array) -> Array:
    return np.asarray(np.min(x, axis=0)) if x.dtype.kind != "f" else -_max_columns(-x)


amax = _primitive(
    "amax",
    "max",
    NUMBERS,
    _max_columns,
    _extreme_vjp,
    ("0", "out"),
    "Largest over `dim`; NaN propagates, -0 < +0.",
    empty=False,
)
amin = _primitive(
    "amin",
    "min",
    NUMBERS,
    _min_columns,
    _extreme_vjp,
    ("0", "out"),
    "Smallest over `dim`; NaN propagates, -0 < +0.",
    empty=False,
)
any_ = _primitive(
    "any", "any", (bool_,), lambda columns: np.any(columns, axis=0), None, (), "Is any element true? False for none."
)
all_ = _primitive(
    "all", "all", (bool_,), lambda columns: np.all(columns, axis=0), None, (), "Are all elements true? True for none."
)


# ---------------------------------------------------------------- argmax, argmin


def _argument(name: str, find: Callable[..., Array], doc: str) -> Op:
    def infer(x: TensorType, *, dim: int, keepdim: bool) -> TensorType:
        require_dtype(name, x, NUMBERS)
        check_dims(name, (dim,), x.ndim)
        if x.shape[dim] == 0:
            raise ShapeError(
                f"{name}: {x} has no element along dim {dim}, so there is no position to name; give it at least one"
            )
        return TensorType(int64, reduced_shape(x.shape, (dim,), keepdim))

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for shape, dim in (((5,), 0), ((1,), 0), ((3, 4), 0), ((3, 4), 1), ((2, 3, 4), 1), ((0, 3), 1), ((2, 70), 1)):
            x = rng.integers(-3, 4, shape).astype(np.float64)
            yield Sample((x,), {"dim": dim, "keepdim": dim == 1}, f"{shape} along {dim}", grad=False)
        special = np.array([[1.0, np.nan, np.nan], [0.0, -0.0, 0.0], [-np.inf, np.inf, np.inf]])
        yield Sample((special,), {"dim": 1, "keepdim": False}, "special", grad=False, dtypes=FLOATS)

    return define(
        Op(
            name,
            infer,
            lambda x, *, dim, keepdim: np.asarray(find(x, axis=dim, keepdims=keepdim)).astype(np.int64),
            samples,
            lower=Reduction(name),
            dtypes=NUMBERS,
            differentiable=False,
            doc=doc,
        )
    )


# NumPy takes the first index too, and the first NaN; it counts -0 equal to +0.
argmax = _argument(
    "argmax", np.argmax, "Position of the largest element along one axis: the first of equals, the first NaN."
)
argmin = _argument(
    "argmin", np.argmin, "Position of the smallest element along one axis: the first of equals, the first NaN."
)
