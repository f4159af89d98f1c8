"""Index arithmetic and checks shared by the ops that move values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from graphc.errors import ArgumentError, DimError, ShapeError
from graphc.ir.expr import Expr, apply, const, iadd, iconst, idiv, imod, imul
from graphc.ir.types import Shape, Size, TensorType, bool_, contiguous_strides


def all_of(conditions: Sequence[Expr]) -> Expr:
    """The conjunction of bool expressions (true when there are none)."""
    out: Expr | None = None
    for c in conditions:
        out = c if out is None else apply("and", out, c)
    return const(True, bool_) if out is None else out


def between(i: Expr, low: int, high: int) -> list[Expr]:
    """The conditions low <= i < high."""
    return [apply("ge", i, iconst(low)), apply("lt", i, iconst(high))]


def check_dim(name: str, dim: Any, ndim: int) -> None:
    """Raises DimError unless 0 <= dim < ndim."""
    if not isinstance(dim, int) or not 0 <= dim < ndim:
        raise DimError(f"{name}: dim {dim!r} is out of range for a tensor of {ndim} dimensions")


def check_dims(name: str, dims: Sequence[int], ndim: int) -> None:
    """Raises DimError unless `dims` are distinct and in range."""
    for d in dims:
        check_dim(name, d, ndim)
    if len(set(dims)) != len(dims):
        raise DimError(f"{name}: a dim is given twice in {list(dims)}")


def replaced(shape: Shape, dim: int, *sizes: Size) -> Shape:
    """`shape` with axis `dim` replaced by `sizes`."""
    return (*shape[:dim], *sizes, *shape[dim + 1 :])


def split_index(terms: Sequence[tuple[Expr, int, int]], stride: int, size: int) -> Expr:
    """(Σ index * coefficient) // stride % size, for terms (index, coefficient, extent) with 0 <= index < extent.

    Terms that provably add nothing are dropped, so the result stays affine where the mapping is.
    """
    kept = [t for t in terms if t[1] % (stride * size)]
    whole = [(i, c // stride, n) for i, c, n in kept if c % stride == 0]
    parts = [t for t in kept if t[1] % stride]
    rest = sum(c * (n - 1) for _, c, n in parts) // stride  # the most the divided part can be
    bound = sum(c * (n - 1) for _, c, n in whole) + rest
    out = iadd(*(imul(i, c) for i, c, _ in whole))
    if rest:
        out = iadd(out, idiv(iadd(*(imul(i, c) for i, c, _ in parts)), stride))
    return out if bound < size else imod(out, size)


def _axis_groups(source: Sequence[int], target: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Cut both shapes (sizes >= 1) into the shortest matching pieces of equal size; yields the axes of each piece."""
    i = j = 0
    while i < len(source) or j < len(target):
        a, b, left, right = 1, 1, [], []  # type: int, int, list[int], list[int]
        while not left or not right or a != b:
            if (a <= b and i < len(source)) or j == len(target):
                if i == len(source):
                    break
                left.append(i)
                a *= source[i]
                i += 1
            else:
                right.append(j)
                b *= target[j]
                j += 1
        yield left, right


def reshape_index(index: Sequence[Expr], source: Sequence[int], target: Sequence[int]) -> tuple[Expr, ...]:
    """Where element `index` of the shape `target` lies in the shape `source` (equal row-major positions)."""
    if tuple(source) == tuple(target):
        return tuple(index[: len(source)])
    if 0 in source:
        return (iconst(0),) * len(source)
    found = [iconst(0)] * len(source)
    for left, right in _axis_groups(source, target):
        strides = contiguous_strides(tuple(target[j] for j in right))
        terms = [(index[j], s, target[j]) for j, s in zip(right, strides, strict=True) if target[j] > 1]
        for i, stride in zip(left, contiguous_strides(tuple(source[i] for i in left)), strict=True):
            found[i] = split_index(terms, stride, source[i])
    return tuple(found)


def inverse_permutation(dims: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes `dims`."""
    return tuple(sorted(range(len(dims)), key=lambda k: dims[k]))


def slice_size(name: str, x: TensorType, dim: int, start: Size, stop: Size, step: int) -> Size:
    """How many elements start:stop:step selects. Raises DimError, ArgumentError or ShapeError."""
    check_dim(name, dim, x.ndim)
    size = x.shape[dim]
    if not isinstance(step, int) or step < 1:
        raise ArgumentError(f"{name}: the step must be a positive integer, got {step!r}")
    negative = isinstance(start, int) and start < 0
    crossed = isinstance(start, int) and isinstance(stop, int) and start > stop
    outside = isinstance(stop, int) and isinstance(size, int) and stop > size
    if negative or crossed or outside:
        raise ShapeError(f"{name}: the range {start}:{stop} does not lie within dim {dim} of {x}")
    return stop - start if step == 1 else (stop - start + (step - 1)) // step
