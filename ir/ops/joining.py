"""Ops that put several tensors into one: cat."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.ir.expr import Expr, apply, iconst, isub
from graphc.ir.op import Elementwise, Op, Operand, Sample, define
from graphc.ir.ops.movement import slice_of
from graphc.ir.ops.reindex import all_of, check_dim, replaced
from graphc.ir.types import Size, TensorType

At = Callable[..., Expr]
Index = Sequence[Expr]
Types = Sequence[TensorType]
Needs = Sequence[bool]


def _cat_infer(*xs: TensorType, dim: int) -> TensorType:
    if not xs:
        raise ArgumentError("cat: at least one tensor is needed")
    first = xs[0]
    check_dim("cat", dim, first.ndim)
    total: Size = 0
    for k, x in enumerate(xs):
        if x.dtype is not first.dtype:
            raise DTypeError(f"cat: tensor 0 is {first}, tensor {k} is {x}; the dtypes must be equal")
        if x.ndim != first.ndim or replaced(x.shape, dim) != replaced(first.shape, dim):
            raise ShapeError(
                f"cat: tensor 0 is {first}, tensor {k} is {x}; the sizes must be equal except along dim {dim}"
            )
        total = total + x.shape[dim]
    return first.with_shape(replaced(first.shape, dim, total))


def _cat_lower(at: At, index: Index, types: Types, *, dim: int) -> Expr:
    starts = list(itertools.accumulate((t.sizes[dim] for t in types), initial=0))
    filled = [k for k, t in enumerate(types) if t.sizes[dim]] or [0]
    out: Expr | None = None
    for k in reversed(filled):
        inner = list(index[: types[0].ndim])
        inner[dim] = isub(index[dim], starts[k])
        where = [apply("ge", index[dim], iconst(starts[k]))] if k != filled[0] else []
        where += [apply("lt", index[dim], iconst(starts[k + 1]))] if k != filled[-1] else []
        value = at(k, tuple(inner), all_of(where)) if where else at(k, tuple(inner))
        out = value if out is None else apply("select", where[-1], value, out)
    assert out is not None
    return out


def _cat_vjp(g: Any, out: Operand, *xs: Operand, needs: Needs, dim: int) -> tuple[Any, ...]:
    grads = []
    start: Size = 0
    for x, need in zip(xs, needs, strict=True):
        stop = start + x.ttype.shape[dim]
        grads.append(slice_of(g, dim, start, stop) if need else None)
        start = stop
    return tuple(grads)


def _cat_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for dim, shapes in (
        (0, ((2,),)), (0, ((2,), (3,))), (1, ((2, 1), (2, 0), (2, 3))), (0, ((0, 2), (0, 2))),
        (1, ((2, 3, 2), (2, 1, 2), (2, 2, 2), (2, 1, 2))),
    ):  # fmt: skip
        yield Sample(tuple(rng.standard_normal(s) for s in shapes), {"dim": dim}, f"{shapes} along {dim}")


cat = define(
    Op(
        "cat",
        _cat_infer,
        lambda *xs, dim: np.concatenate(xs, axis=dim),
        _cat_samples,
        lower=Elementwise(_cat_lower, movement=True),
        vjp=_cat_vjp,
        arity=None,
        doc="Tensors one after another along an existing axis.",
    )
)
