"""Kernels: what is computed, with no schedule. CPU and PTX templates turn the same records into code.

A kernel names its operands by position; `operands[k]` is the dtype of operand k and every access is a flat element
index from that operand's address. Iteration axes are numbered by `index(axis)`. The sizes, strides and offsets in a
record are numbers, but codegen passes them at run time: two kernels that differ in such numbers alone share one piece
of code.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.expr import Expr
from graphc.ir.types import DType


@dataclass(frozen=True, slots=True)
class Store:
    """operands[operand][flat] = value, at every point of the kernel's space (where `where` holds, if given)."""

    operand: int
    flat: Expr
    value: Expr
    where: Expr | None = None


@dataclass(frozen=True, slots=True)
class Map:
    """For every point of `space`, in any order: do the stores. Stores of one Map never overlap one another."""

    operands: tuple[DType, ...]
    space: tuple[int, ...]
    stores: tuple[Store, ...]


@dataclass(frozen=True, slots=True)
class ReduceStage:
    """result(k) = the reduction `kind` of `value` over the run axis (axis number len(space)), k = number of this stage
    among the reduce stages.

    kind: "sum", "prod" (order rule R of docs/numerics.md), "max", "min" (NaN propagates, -0 < +0),
    "any", "all" (bool), "argmax", "argmin" (int64; first index of the extreme; the first NaN wins).
    """

    kind: str
    value: Expr


@dataclass(frozen=True, slots=True)
class MapStage:
    """Stores over space x run; may use result(j) of earlier stages."""

    stores: tuple[Store, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """For every point of `space`: the stages in order over a run of `run` elements, then `stores` over the space alone.

    Axes 0 … len(space)-1 are the space, axis len(space) is the run. `stores` may use result(j). Loads in later stages
    may read what an earlier MapStage of the same row stored only by recomputing it, never through memory.
    """

    operands: tuple[DType, ...]
    space: tuple[int, ...]
    run: int
    stages: tuple[ReduceStage | MapStage, ...]
    stores: tuple[Store, ...] = ()


@dataclass(frozen=True, slots=True)
class Strided:
    """One side of a contraction: operand number, offset, and a stride (in elements) for each axis of its two groups."""

    operand: int
    offset: int
    batch: tuple[int, ...]
    outer: tuple[int, ...]  # a: strides over the m axes; b: strides over the n axes
    k: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Contract:
    """acc[batch, m, n] = Σ_k a[batch, m, k] * b[batch, k, n] in the contraction order of docs/numerics.md.

    batch, m, n and k are tuples of axis sizes, each walked in row-major order; k in ascending order. `stores` run over
    the axes (*batch, *m, *n), numbered in that order, and use acc(); they hold bias, scale, activation and residual.
    """

    operands: tuple[DType, ...]
    dtype: DType
    batch: tuple[int, ...]
    m: tuple[int, ...]
    n: tuple[int, ...]
    k: tuple[int, ...]
    a: Strided
    b: Strided
    stores: tuple[Store, ...]


@dataclass(frozen=True, slots=True)
class Scatter:
    """For each point of `space`, for j = 0 … run-1 ascending: operands[target][flat] += value (or = value when not
    `add`).

    `flat` and `value` may use the space axes and the run axis; points of the space write disjoint places, so the space
    is what threads share out.
    """

    operands: tuple[DType, ...]
    space: tuple[int, ...]
    run: int
    target: int
    flat: Expr
    value: Expr
    add: bool
    where: Expr | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """For every point of `space`: a walk along `run` values, then `stores` over space x run, which may use result(0).

    result(0) at place j of the run, by kind:
    "sum", "prod", "logaddexp": value(0) … value(j) combined (docs/numerics.md: chains in blocks of 1024, then totals);
    "argmax", "argmin" (int64): place of the extreme of value(0) … value(j): the last of equals, the last NaN;
    "argsort" (int64): which place comes j-th in ascending (or `descending`) order: stable, -0 = +0, NaN the greatest;
    "positions" (int64; bool values): the j-th place whose value holds, 0 where there are no more.

    Axes 0 … len(space)-1 are the space, axis len(space) is the run, as in Rows.
    """

    operands: tuple[DType, ...]
    space: tuple[int, ...]
    run: int
    kind: str
    value: Expr
    stores: tuple[Store, ...]
    descending: bool = False


Kernel = Map | Rows | Contract | Scatter | Scan
