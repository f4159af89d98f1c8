"""Compositions on reductions: mean, var, std, logsumexp, softmax, log_softmax, each with its own gradient rule.

`dim` is a tuple of axes for mean, var, std and logsumexp, one axis for softmax and log_softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.infer import reduced_shape, require_dtype
from graphc.ir.op import Array, Op, Operand, Sample, define
from graphc.ir.ops import create, movement
from graphc.ir.ops import pointwise as pw
from graphc.ir.ops.elementwise import FLOATS
from graphc.ir.ops.reduce import Dims, amax, check_dims, fill, spread, sum_
from graphc.ir.types import DType, Shape, Size, TensorType

Needs = Sequence[bool]


def count_along(shape: Shape, dim: Sequence[int]) -> Size:
    """The number of elements along `dim`."""
    total: Size = 1
    for d in dim:
        total = total * shape[d]
    return total


def number(size: Size, dtype: DType) -> Any:
    """A size as an operand: a Python number, or a 0-d tensor whose value a binding of the names decides."""
    return size if isinstance(size, int) else create.full(shape=(), value=size, dtype=dtype)


def _infer(name: str) -> Callable[..., TensorType]:
    def infer(x: TensorType, *, dim: Dims, keepdim: bool, **_: Any) -> TensorType:
        require_dtype(name, x, FLOATS)
        check_dims(name, dim, x.ndim)
        return x.with_shape(reduced_shape(x.shape, dim, keepdim))

    return infer


def _samples(empty: bool, **attrs: Any) -> Callable[[np.random.Generator], Iterator[Sample]]:
    cases: tuple[tuple[tuple[int, ...], Dims, bool], ...] = (
        ((5,), (0,), False),
        ((3, 4), (1,), True),
        ((2, 3, 4), (0, 2), False),
        ((2, 3, 4), (1, 2), True),
        ((2, 40), (0, 1), False),
        ((0, 3), (1,), False),
    )
    without: tuple[tuple[tuple[int, ...], Dims, bool], ...] = (((), (), False),)

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for shape, dim, keepdim in (*without, *cases) if empty else cases:
            yield Sample(
                (rng.standard_normal(shape),), {"dim": dim, "keepdim": keepdim, **attrs}, f"{shape} over {dim}"
            )

    return samples


# ---------------------------------------------------------------- mean, var, std


def _mean_decompose(x: Any, *, dim: Dims, keepdim: bool) -> Any:
    return pw.div(sum_(x, dim=dim, keepdim=keepdim), number(count_along(x.ttype.shape, dim), x.ttype.dtype))


def _mean_reference(x: Array, *, dim: Dims, keepdim: bool) -> Array:
    with np.errstate(all="ignore"):
        n = np.asarray(count_along(x.shape, dim), x.dtype)
        return np.asarray(sum_.reference(x, dim=dim, keepdim=keepdim) / n)


def _mean_vjp(g: Any, out: Operand, x: Operand, *, needs: Needs, dim: Dims, keepdim: bool) -> tuple[Any]:
    share = pw.div(g, number(count_along(x.ttype.shape, dim), x.ttype.dtype))
    return (spread(share, x, dim, keepdim),)


mean = define(
    Op(
        "mean",
        _infer("mean"),
        _mean_reference,
        _samples(True),
        decompose=_mean_decompose,
        vjp=_mean_vjp,
        dtypes=FLOATS,
        doc="Sum over `dim` divided by the number of elements; NaN of nothing.",
    )
)


def _freedom(x: Operand, dim: Dims, correction: int | float) -> Any:
    """The divisor of a variance: elements less `correction`, at least 0."""
    count = count_along(x.ttype.shape, dim)
    if isinstance(count, int):
        return max(count - correction, 0)
    return pw.maximum(pw.sub(number(count, x.ttype.dtype), correction), 0)


def _deviation(x: Any, dim: Dims) -> Any:
    return pw.sub(x, mean(x, dim=dim, keepdim=True))


def _var_decompose(x: Any, *, dim: Dims, correction: int | float, keepdim: bool) -> Any:
    d = _deviation(x, dim)
    return pw.div(sum_(pw.mul(d, d), dim=dim, keepdim=keepdim), _freedom(x, dim, correction))


def _var_reference(x: Array, *, dim: Dims, correction: int | float, keepdim: bool) -> Array:
    with np.errstate(all="ignore"):
        d = x - _mean_reference(x, dim=dim, keepdim=True)
        n = np.asarray(max(int(count_along(x.shape, dim)) - correction, 0), x.dtype)  # type: ignore[arg-type]
        return np.asarray(sum_.reference(d * d, dim=dim, keepdim=keepdim) / n)


def _var_vjp(
    g: Any, out: Operand, x: Any, *, needs: Needs, dim: Dims, correction: int | float, keepdim: bool
) -> tuple[Any]:
    slope = pw.div(pw.mul(g, 2.0), _freedom(x, dim, correction))
    return (pw.mul(spread(slope, x, dim, keepdim), _deviation(x, dim)),)


var = define(
    Op(
        "var",
        _infer("var"),
        _var_reference,
        _samples(False, correction=1),
        decompose=_var_decompose,
        vjp=_var_vjp,
        saves=("0",),
        dtypes=FLOATS,
        doc="Mean squared deviation over `dim`, divided by the number of elements less `correction`; two passes.",
    )
)


def _std_vjp(
    g: Any, out: Any, x: Any, *, needs: Needs, dim: Dims, correction: int | float, keepdim: bool
) -> tuple[Any]:
    # where all elements are equal the slope has no limit; 0, as in PyTorch
    slope = fill(pw.div(g, out), pw.eq(out, 0), 0)
    return (pw.mul(spread(pw.div(slope, _freedom(x, dim, correction)), x, dim, keepdim), _deviation(x, dim)),)


std = define(
    Op(
        "std",
        _infer("std"),
        lambda x, **attrs: np.asarray(np.sqrt(_var_reference(x, **attrs))),
        _samples(False, correction=0.5),
        decompose=lambda x, **attrs: pw.sqrt(var(x, **attrs)),
        vjp=_std_vjp,
        saves=("0", "out"),
        dtypes=FLOATS,
        doc="The square root of var.",
    )
)


# ---------------------------------------------------------------- logsumexp, softmax, log_softmax


def _logsumexp_infer(x: TensorType, *, dim: Dims, keepdim: bool) -> TensorType:
    out = _infer("logsumexp")(x, dim=dim, keepdim=keepdim)
    if any(x.shape[d] == 0 for d in dim):
        raise ShapeError(f"logsumexp: {x} has no element along dims {list(dim)}; give it at least one")
    return out


def _logsumexp_decompose(x: Any, *, dim: Dims, keepdim: bool) -> Any:
    top = amax(x, dim=dim, keepdim=True)
    top = fill(top, pw.eq(pw.abs_(top), float("inf")), 0)  # inf - inf would be NaN
    total = pw.log(sum_(pw.exp(pw.sub(x, top)), dim=dim, keepdim=keepdim))
    shape = reduced_shape(x.ttype.shape, dim, keepdim)
    return pw.add(total, top if keepdim else movement.reshape(top, shape=shape))


def _logsumexp_reference(x: Array, *, dim: Dims, keepdim: bool) -> Array:
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        top = np.max(wide, axis=dim, keepdims=True)
        top = np.where(np.isinf(top), 0.0, top)
        out = np.asarray(np.log(np.sum(np.exp(wide - top), axis=dim, keepdims=True)) + top, x.dtype)
        return out.reshape(reduced_shape(x.shape, dim, keepdim))


def _logsumexp_vjp(g: Any, out: Any, x: Any, *, needs: Needs, dim: Dims, keepdim: bool) -> tuple[Any]:
    share = pw.exp(pw.sub(x, spread(out, x, dim, keepdim)))
    return (pw.mul(spread(g, x, dim, keepdim), share),)


logsumexp = define(
    Op(
        "logsumexp",
        _logsumexp_infer,
        _logsumexp_reference,
        _samples(True),
        decompose=_logsumexp_decompose,
        vjp=_logsumexp_vjp,
        saves=("0", "out"),
        dtypes=FLOATS,
        doc="log of the sum of exp over `dim`, without overflow.",
    )
)


def _softmax_infer(name: str) -> Callable[..., TensorType]:
    def infer(x: TensorType, *, dim: int) -> TensorType:
        require_dtype(name, x, FLOATS)
        check_dims(name, (dim,), x.ndim)
        return x

    return infer


def _softmax_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dim in (
        ((5,), 0),
        ((1,), 0),
        ((3, 4), 1),
        ((3, 4), 0),
        ((2, 3, 4), 1),
        ((0, 3), 1),
        ((3, 0), 1),
        ((2, 40), 1),
    ):
        yield Sample((rng.standard_normal(shape) * 3,), {"dim": dim}, f"{shape} along {dim}")


def _softmax_decompose(x: Any, *, dim: int) -> Any:
    if x.ttype.shape[dim] == 0:
        return movement.clone(x)
    e = pw.exp(pw.sub(x, amax(x, dim=(dim,), keepdim=True)))
    return pw.div(e, sum_(e, dim=(dim,), keepdim=True))


def _log_softmax_decompose(x: Any, *, dim: int) -> Any:
    if x.ttype.shape[dim] == 0:
        return movement.clone(x)
    moved = pw.sub(x, amax(x, dim=(dim,), keepdim=True))
    return pw.sub(moved, pw.log(sum_(pw.exp(moved), dim=(dim,), keepdim=True)))


def log_softmax_array(x: Array, dim: int) -> Array:
    """log_softmax in float64."""
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        moved = wide - np.max(wide, axis=dim, keepdims=True, initial=-np.inf)
        return np.asarray(moved - np.log(np.sum(np.exp(moved), axis=dim, keepdims=True)))


def _softmax_reference(x: Array, *, dim: int) -> Array:
    return np.exp(log_softmax_array(x, dim)).astype(x.dtype)


def _softmax_vjp(g: Any, out: Any, x: Operand, *, needs: Needs, dim: int) -> tuple[Any]:
    share = pw.mul(g, out)
    return (pw.sub(share, pw.mul(out, sum_(share, dim=(dim,), keepdim=True))),)


def _log_softmax_vjp(g: Any, out: Any, x: Operand, *, needs: Needs, dim: int) -> tuple[Any]:
    return (pw.sub(g, pw.mul(pw.exp(out), sum_(g, dim=(dim,), keepdim=True))),)


softmax = define(
    Op(
        "softmax",
        _softmax_infer("softmax"),
        _softmax_reference,
        _softmax_samples,
        decompose=_softmax_decompose,
        vjp=_softmax_vjp,
        saves=("out",),
        dtypes=FLOATS,
        doc="exp(x - max) divided by its sum along one axis.",
    )
)
log_softmax = define(
    Op(
        "log_softmax",
        _softmax_infer("log_softmax"),
        lambda x, *, dim: log_softmax_array(x, dim).astype(x.dtype),
        _softmax_samples,
        decompose=_log_softmax_decompose,
        vjp=_log_softmax_vjp,
        saves=("out",),
        dtypes=FLOATS,
        doc="x - max - log(sum(exp(x - max))) along one axis.",
    )
)
