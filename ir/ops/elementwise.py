"""What the pointwise families share: lowering, references, samples and the makers of unary and binary ops."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphc.ir import expr
from graphc.ir.expr import Expr
from graphc.ir.infer import broadcast_type, require_arity, require_dtype
from graphc.ir.op import Array, Elementwise, Op, Sample, define
from graphc.ir.types import (
    DTYPES,
    DType,
    TensorType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
)

FLOATS = (float16, bfloat16, float32, float64)
NUMBERS = (uint8, int8, int16, int32, int64, *FLOATS)
INTEGERS = (bool_, uint8, int8, int16, int32, int64)
REAL = (bool_, *NUMBERS)  # all but complex numbers, which are stored and moved only
Samples: TypeAlias = "Callable[[np.random.Generator], Iterator[Sample]]"  # quoted: np.random is imported at first use


def quiet(fn: Callable[..., Any]) -> Callable[..., Array]:
    """`fn` without floating-point warnings; its result is always an array."""

    @functools.wraps(fn)
    def reference(*arrays: Array, **attrs: Any) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(fn(*arrays, **attrs))

    return reference


def wide(fn: Callable[..., Any]) -> Callable[..., Array]:
    """`fn` computed in float64 and rounded once to the dtype of the operands."""

    @functools.wraps(fn)
    def reference(*arrays: Array, **attrs: Any) -> Array:
        return np.asarray(fn(*(a.astype(np.float64) for a in arrays), **attrs)).astype(arrays[0].dtype)

    return quiet(reference)


def pointwise(fn: Callable[..., Expr]) -> Elementwise:
    """The lowering that reads every operand at the broadcast output index and applies `fn(*exprs, **attrs)`."""

    def lower(at: Callable[..., Expr], index: Sequence[Expr], types: Sequence[TensorType], **attrs: Any) -> Expr:
        return fn(*(at(k, broadcast_index(index, t)) for k, t in enumerate(types)), **attrs)

    return Elementwise(lower)


def broadcast_index(index: Sequence[Expr], type: TensorType) -> tuple[Expr, ...]:
    """The index into an operand of `type` for the output index `index`: trailing axes, 0 where the size is 1."""
    own = index[len(index) - type.ndim :]
    return tuple(expr.iconst(0) if size == 1 else i for i, size in zip(own, type.shape, strict=True))


def function(name: str) -> Callable[..., Expr]:
    """The Expr builder that applies function `name`."""
    return functools.partial(expr.apply, name)


def unbroadcast(g: Any, type: TensorType) -> Any:
    """`g` summed over the axes that were broadcast, so that it has the shape of `type`."""
    shape = g.ttype.shape
    if shape == type.shape:
        return g
    from graphc.ir.ops.movement import reshape
    from graphc.ir.ops.reduce import sum_

    extra = len(shape) - type.ndim
    grown = [extra + a for a, size in enumerate(type.shape) if size == 1 and shape[extra + a] != 1]
    dims = (*range(extra), *grown)
    total = sum_(g, dim=dims, keepdim=True) if dims else g
    return reshape(total, shape=type.shape) if total.ttype.shape != type.shape else total


def samples_of(
    *cases: tuple[Any, ...], grad: bool = True, dtypes: tuple[DType, ...] | None = None, **attrs: Any
) -> Samples:
    """Samples from tuples of operands, each an array-like of float64, bool or int64."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for case in cases:
            arrays = tuple(c(rng) if callable(c) else np.asarray(c) for c in case)
            yield Sample(arrays, attrs, grad=grad, dtypes=dtypes)

    return samples


def chain(*parts: Samples) -> Samples:
    """All samples of several sources."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for part in parts:
            yield from part(rng)

    return samples


def uniform(low: float, high: float, *shape: int) -> Callable[[np.random.Generator], Array]:
    """Random operand with elements in [low, high)."""
    return lambda rng: np.asarray(rng.uniform(low, high, shape))


def away(step: float, reach: int, *shape: int) -> Callable[[np.random.Generator], Array]:
    """Random operand whose elements keep step/4 away from every multiple of `step` (kinks and jumps)."""
    return lambda rng: np.asarray(step * (rng.integers(-reach, reach, shape) + rng.uniform(0.25, 0.75, shape)))


SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 1e-40, 1e30, np.inf, -np.inf, np.nan)


def unary_samples(make: Callable[..., Any]) -> Samples:
    """Several shapes of `make(*shape)` and the special values, which are not for gradients."""
    return chain(
        samples_of((make(),), (make(5),), (make(3, 4),), (make(2, 0, 3),)),
        samples_of((SPECIAL,), grad=False, dtypes=FLOATS),
    )


def binary_samples(x: Callable[..., Any], y: Callable[..., Any], special: bool = True) -> Samples:
    """Broadcasting shapes of `x` and `y`, and every pair of special values, which are not for gradients."""
    pairs = np.array(np.meshgrid(SPECIAL, SPECIAL))
    parts = [
        samples_of((x(), y()), (x(5), y()), (x(3, 4), y(3, 4)), (x(2, 1, 3), y(4, 1)), (x(0, 3), y(1)), (x(1), y(2, 2)))
    ]
    if special:
        parts.append(samples_of((pairs[0], pairs[1]), grad=False, dtypes=FLOATS))
    return chain(*parts)


def unary(
    name: str,
    fn: Callable[..., Expr],
    reference: Callable[..., Array],
    samples: Samples,
    dtypes: tuple[DType, ...] = FLOATS,
    **rest: Any,
) -> Op:
    """Define a primitive of one operand that keeps its type."""
    return define(Op(name, same_type(name, 1, dtypes), reference, samples, pointwise(fn), dtypes=dtypes, **rest))


def binary(
    name: str,
    fn: Callable[..., Expr],
    reference: Callable[..., Array],
    samples: Samples,
    dtypes: tuple[DType, ...] = NUMBERS,
    **rest: Any,
) -> Op:
    """Define a primitive of two operands of one dtype, broadcast."""
    infer = same_type(name, 2, dtypes)
    return define(Op(name, infer, reference, samples, pointwise(fn), dtypes=dtypes, arity=2, **rest))


def composition(
    name: str, decompose: Callable[..., Any], reference: Callable[..., Array], samples: Samples, **rest: Any
) -> Op:
    """Define a composition of one float operand that keeps its type."""
    rest.setdefault("infer", same_type(name, 1, FLOATS))
    return define(Op(name, reference=reference, samples=samples, decompose=decompose, dtypes=FLOATS, **rest))


def same_type(name: str, arity: int, dtypes: tuple[DType, ...] = DTYPES) -> Callable[..., TensorType]:
    """Inference of an op whose operands share a dtype out of `dtypes` and broadcast to the result."""

    def infer(*types: TensorType, **attrs: Any) -> TensorType:
        require_arity(name, types, arity)
        require_dtype(name, types[0], dtypes)
        return broadcast_type(name, *types)

    return infer


def bool_type(name: str, arity: int, dtypes: tuple[DType, ...] = DTYPES) -> Callable[..., TensorType]:
    """As same_type, but the result is bool."""
    infer = same_type(name, arity, dtypes)
    return lambda *types, **attrs: infer(*types).with_dtype(bool_)
