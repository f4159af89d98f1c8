"""Ops that move values and change none: reshape, permute, expand, slice, select, flip, pad, clone (cat: joining.py).

Dims in attributes are normalised: non-negative, in range. A view op has a `scatter` rule, which writes a value back
through the view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DimError, DTypeError, ShapeError
from graphc.ir.convert import number_array
from graphc.ir.expr import Expr, apply, const, iadd, iconst, idiv, imod, imul, isub
from graphc.ir.op import Array, Elementwise, Op, Operand, Sample, define
from graphc.ir.ops import create
from graphc.ir.ops.elementwise import unbroadcast
from graphc.ir.ops.reindex import (
    all_of,
    between,
    check_dim,
    check_dims,
    inverse_permutation,
    replaced,
    reshape_index,
    slice_size,
)
from graphc.ir.types import Shape, Size, TensorType, dtype_of

At = Callable[..., Expr]
Index = Sequence[Expr]
Types = Sequence[TensorType]
Needs = Sequence[bool]


def slice_of(x: Operand, dim: int, start: Size, stop: Size) -> Any:
    """x[start:stop] along `dim`."""
    return slice_(x, dim=dim, start=start, stop=stop, step=1)


def _reshape_infer(x: TensorType, *, shape: Shape) -> TensorType:
    out = x.with_shape(shape)
    if out.numel != x.numel:
        raise ShapeError(
            f"reshape: {x} has {x.numel} elements, shape {list(shape)} has {out.numel}; the counts must be equal"
        )
    return out


def _reshape_lower(at: At, index: Index, types: Types, *, shape: Shape) -> Expr:
    return at(0, reshape_index(index, types[0].sizes, shape))  # type: ignore[arg-type]


def _reshape_vjp(g: Any, out: Operand, x: Operand, *, needs: Needs, shape: Shape) -> tuple[Any]:
    return (reshape(g, shape=x.ttype.shape),)


def _reshape_scatter(base: Operand, value: Any, *, shape: Shape) -> Any:
    return reshape(value, shape=base.ttype.shape)


def _reshape_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for source, target in (
        ((2, 3), (6,)), ((6,), (2, 3)), ((4, 6), (6, 4)), ((), (1, 1)), ((1,), ()), ((0, 3), (3, 0, 2)),
        ((2, 1, 3), (1, 2, 3, 1)), ((2, 12), (2, 3, 4)), ((2, 6, 2), (4, 3, 2)), ((3, 4, 5), (3, 20)),
    ):  # fmt: skip
        yield Sample((rng.standard_normal(source),), {"shape": target}, f"{source}->{target}")


reshape = define(
    Op(
        "reshape",
        _reshape_infer,
        lambda x, *, shape: x.reshape(shape),
        _reshape_samples,
        lower=Elementwise(_reshape_lower, movement=True),
        vjp=_reshape_vjp,
        scatter=_reshape_scatter,
        doc="The same elements in row-major order under another shape.",
    )
)


def _permute_infer(x: TensorType, *, dims: tuple[int, ...]) -> TensorType:
    if sorted(dims) != list(range(x.ndim)):
        raise DimError(f"permute: dims {list(dims)} must name each of the {x.ndim} dimensions of {x} once")
    return x.with_shape(x.shape[d] for d in dims)


def _permute_lower(at: At, index: Index, types: Types, *, dims: tuple[int, ...]) -> Expr:
    return at(0, tuple(index[k] for k in inverse_permutation(dims)))


def _permute_vjp(g: Any, out: Operand, x: Operand, *, needs: Needs, dims: tuple[int, ...]) -> tuple[Any]:
    return (permute(g, dims=inverse_permutation(dims)),)


def _permute_scatter(base: Operand, value: Any, *, dims: tuple[int, ...]) -> Any:
    return permute(value, dims=inverse_permutation(dims))


def _permute_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dims in (((), ()), ((3,), (0,)), ((2, 3), (1, 0)), ((2, 3, 4), (2, 0, 1)), ((2, 0, 4), (1, 2, 0))):
        yield Sample((rng.standard_normal(shape),), {"dims": dims}, f"{shape} by {dims}")


permute = define(
    Op(
        "permute",
        _permute_infer,
        lambda x, *, dims: x.transpose(dims),
        _permute_samples,
        lower=Elementwise(_permute_lower, movement=True),
        vjp=_permute_vjp,
        scatter=_permute_scatter,
        doc="Axes in another order: axis k of the result is axis dims[k] of the input.",
    )
)


def _expand_infer(x: TensorType, *, shape: Shape) -> TensorType:
    lead = len(shape) - x.ndim
    if lead < 0 or any(a != b and a != 1 for a, b in zip(x.shape, shape[lead:], strict=True)):
        raise ShapeError(f"expand: {x} cannot be expanded to {list(shape)}; only sizes of 1 can grow")
    return x.with_shape(shape)


def _expand_lower(at: At, index: Index, types: Types, *, shape: Shape) -> Expr:
    inner = index[len(shape) - types[0].ndim : len(shape)]
    return at(0, tuple(iconst(0) if n == 1 else i for i, n in zip(inner, types[0].sizes, strict=True)))


def _expand_vjp(g: Any, out: Operand, x: Operand, *, needs: Needs, shape: Shape) -> tuple[Any]:
    return (unbroadcast(g, x.ttype),)


def _expand_scatter(base: Operand, value: Any, *, shape: Shape) -> Any:
    if base.ttype.numel != value.ttype.numel:
        raise ShapeError(
            f"expand: cannot write into {base.ttype} expanded to {list(shape)}, where elements share a place; "
            "clone() it first"
        )
    return reshape(value, shape=base.ttype.shape)


def _expand_view(x: Array, *, shape: tuple[int, ...]) -> Array:
    """np.broadcast_to, but as writable as `x`: where no place is shared, an expanded tensor can be written."""
    strides = np.broadcast_to(x, shape).strides
    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=x.flags.writeable)


def _expand_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for source, target in (
        ((), ()), ((), (2, 3)), ((3,), (3,)), ((1,), (4,)), ((3, 1), (2, 3, 4)), ((1, 3, 1), (2, 3, 1)),
        ((1, 2), (0, 2)),
    ):  # fmt: skip
        yield Sample((rng.standard_normal(source),), {"shape": target}, f"{source}->{target}")


expand = define(
    Op(
        "expand",
        _expand_infer,
        _expand_view,
        _expand_samples,
        lower=Elementwise(_expand_lower, movement=True),
        vjp=_expand_vjp,
        scatter=_expand_scatter,
        doc="Sizes of 1 (and new leading axes) repeated to `shape`.",
    )
)


def _slice_infer(x: TensorType, *, dim: int, start: Size, stop: Size, step: int) -> TensorType:
    return x.with_shape(replaced(x.shape, dim, slice_size("slice", x, dim, start, stop, step)))


def _slice_lower(at: At, index: Index, types: Types, *, dim: int, start: int, stop: int, step: int) -> Expr:
    inner = list(index[: types[0].ndim])
    inner[dim] = iadd(imul(inner[dim], step), start)
    return at(0, tuple(inner))


def _slice_view(x: Array, *, dim: int, start: int, stop: int, step: int) -> Array:
    return x[(slice(None),) * dim + (slice(start, stop, step),)]


def _slice_vjp(
    g: Any, out: Operand, x: Operand, *, needs: Needs, dim: int, start: Size, stop: Size, step: int
) -> tuple[Any]:
    if step == 1:
        pads = [(0, 0)] * x.ttype.ndim  # type: list[tuple[Size, Size]]
        pads[dim] = (start, x.ttype.shape[dim] - stop)
        return (pad(g, pads=tuple(pads), value=0),)
    return (slice_scatter(create.zeros_like(x), g, dim=dim, start=start, stop=stop, step=step),)


def _slice_scatter_rule(base: Operand, value: Any, *, dim: int, start: Size, stop: Size, step: int) -> Any:
    return slice_scatter(base, value, dim=dim, start=start, stop=stop, step=step)


_SLICES: tuple[tuple[tuple[int, ...], int, int, int, int], ...] = (
    ((5,), 0, 1, 4, 1), ((5,), 0, 0, 5, 2), ((5,), 0, 1, 5, 3), ((3, 4), 1, 2, 4, 1), ((3, 4), 0, 1, 1, 1),
    ((2, 7, 3), 1, 1, 6, 2), ((0, 3), 0, 0, 0, 1),
)  # fmt: skip


def _slice_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dim, start, stop, step in _SLICES:
        attrs = {"dim": dim, "start": start, "stop": stop, "step": step}
        yield Sample((rng.standard_normal(shape),), attrs, f"{shape} dim {dim} {start}:{stop}:{step}")


slice_ = define(
    Op(
        "slice",
        _slice_infer,
        _slice_view,
        _slice_samples,
        lower=Elementwise(_slice_lower, movement=True),
        vjp=_slice_vjp,
        scatter=_slice_scatter_rule,
        doc="x[start:stop:step] along one axis; 0 <= start <= stop <= size, step > 0.",
    )
)


def _slice_scatter_infer(
    base: TensorType, src: TensorType, *, dim: int, start: Size, stop: Size, step: int
) -> TensorType:
    want = base.with_shape(replaced(base.shape, dim, slice_size("slice_scatter", base, dim, start, stop, step)))
    if src.shape != want.shape:
        raise ShapeError(f"slice_scatter: src is {src}, the range {start}:{stop}:{step} of {base} needs {want}")
    if src.dtype is not base.dtype:
        raise DTypeError(f"slice_scatter: base is {base}, src is {src}; the dtypes must be equal")
    return base


def _slice_scatter_lower(at: At, index: Index, types: Types, *, dim: int, start: int, stop: int, step: int) -> Expr:
    i = index[dim]
    where = between(i, start, stop)
    if step > 1:
        where.append(apply("eq", imod(isub(i, start), step), iconst(0)))
    inside = all_of(where)
    moved = list(index[: types[0].ndim])
    moved[dim] = idiv(isub(i, start), step)
    return apply("select", inside, at(1, tuple(moved), inside), at(0, tuple(index[: types[0].ndim])))


def _slice_scatter_reference(base: Array, src: Array, **attrs: Any) -> Array:
    out = base.copy()
    _slice_view(out, **attrs)[...] = src
    return out


def _slice_scatter_vjp(
    g: Any, out: Operand, base: Operand, src: Operand, *, needs: Needs, **attrs: Any
) -> tuple[Any, Any]:
    kept = slice_scatter(g, create.zeros_like(src), **attrs) if needs[0] else None
    return kept, slice_(g, **attrs) if needs[1] else None


def _slice_scatter_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dim, start, stop, step in _SLICES:
        attrs = {"dim": dim, "start": start, "stop": stop, "step": step}
        base = np.asarray(rng.standard_normal(shape))
        src = np.asarray(rng.standard_normal(_slice_view(base, **attrs).shape))
        yield Sample((base, src), attrs, f"{shape} dim {dim} {start}:{stop}:{step}")


slice_scatter = define(
    Op(
        "slice_scatter",
        _slice_scatter_infer,
        _slice_scatter_reference,
        _slice_scatter_samples,
        lower=Elementwise(_slice_scatter_lower, movement=True),
        vjp=_slice_scatter_vjp,
        arity=2,
        doc="`base` with base[start:stop:step] along one axis replaced by `src`.",
    )
)


def _select_infer(x: TensorType, *, dim: int, index: Size) -> TensorType:
    check_dim("select", dim, x.ndim)
    size = x.shape[dim]
    if isinstance(index, int) and (index < 0 or (isinstance(size, int) and index >= size)):
        raise DimError(f"select: index {index} is out of range for dim {dim} of {x}")
    return x.with_shape(replaced(x.shape, dim))


def _select_decompose(x: Operand, *, dim: int, index: Size) -> Any:
    return reshape(slice_of(x, dim, index, index + 1), shape=replaced(x.ttype.shape, dim))


def _select_vjp(g: Any, out: Operand, x: Operand, *, needs: Needs, dim: int, index: Size) -> tuple[Any]:
    pads = [(0, 0)] * x.ttype.ndim  # type: list[tuple[Size, Size]]
    pads[dim] = (index, x.ttype.shape[dim] - index - 1)
    return (pad(reshape(g, shape=replaced(x.ttype.shape, dim, 1)), pads=tuple(pads), value=0),)


def _select_scatter(base: Operand, value: Any, *, dim: int, index: Size) -> Any:
    row = reshape(value, shape=replaced(base.ttype.shape, dim, 1))
    return slice_scatter(base, row, dim=dim, start=index, stop=index + 1, step=1)


def _select_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dim, index in (((4,), 0, 2), ((3, 4), 0, 0), ((3, 4), 1, 3), ((2, 3, 4), 1, 1), ((0, 3), 1, 2)):
        yield Sample((rng.standard_normal(shape),), {"dim": dim, "index": index}, f"{shape} dim {dim} at {index}")


select = define(
    Op(
        "select",
        _select_infer,
        lambda x, *, dim, index: x[(slice(None),) * dim + (slice(index, index + 1),)].squeeze(dim),
        _select_samples,
        decompose=_select_decompose,
        vjp=_select_vjp,
        scatter=_select_scatter,
        any_width=True,
        doc="The slice of size 1 at `index` along one axis, without the axis.",
    )
)


def _flip_infer(x: TensorType, *, dims: tuple[int, ...]) -> TensorType:
    check_dims("flip", dims, x.ndim)
    return x


def _flip_lower(at: At, index: Index, types: Types, *, dims: tuple[int, ...]) -> Expr:
    sizes = types[0].sizes
    return at(0, tuple(isub(sizes[d] - 1, index[d]) if d in dims else index[d] for d in range(types[0].ndim)))


def _flip_vjp(g: Any, out: Operand, x: Operand, *, needs: Needs, dims: tuple[int, ...]) -> tuple[Any]:
    return (flip(g, dims=dims),)


def _flip_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, dims in (((), ()), ((5,), (0,)), ((2, 3, 4), (0, 2)), ((2, 0), (1,)), ((3, 2), ())):
        yield Sample((rng.standard_normal(shape),), {"dims": dims}, f"{shape} dims {dims}")


flip = define(
    Op(
        "flip",
        _flip_infer,
        lambda x, *, dims: np.array(np.flip(x, dims)),
        _flip_samples,
        lower=Elementwise(_flip_lower, movement=True),
        vjp=_flip_vjp,
        doc="The order of elements reversed along `dims` (a copy, as in PyTorch).",
    )
)


# ---------------------------------------------------------------- pad

Pads = tuple[tuple[Size, Size], ...]


def _pad_infer(x: TensorType, *, pads: Pads, value: bool | int | float) -> TensorType:
    if len(pads) != x.ndim:
        raise ShapeError(f"pad: {len(pads)} pairs of pads for {x}; one pair a dimension is needed")
    if any(isinstance(p, int) and p < 0 for pair in pads for p in pair):
        raise ArgumentError(f"pad: pads must not be negative, got {pads}; slice the tensor instead")
    return x.with_shape(n + low + high for n, (low, high) in zip(x.shape, pads, strict=True))


def _pad_lower(at: At, index: Index, types: Types, *, pads: Pads, value: bool | int | float) -> Expr:
    x = types[0]
    where, inner = [], []
    for i, n, (low, high) in zip(index, x.sizes, pads, strict=False):
        moved = isub(i, low)  # type: ignore[arg-type]
        inner.append(moved)
        where += [apply("ge", moved, iconst(0))] if low else []
        where += [apply("lt", moved, iconst(n))] if high else []
    if not where:
        return at(0, tuple(inner))
    inside = all_of(where)
    return apply("select", inside, at(0, tuple(inner), inside), const(value, x.dtype))


def _pad_vjp(g: Any, out: Operand, x: Operand, *, needs: Needs, pads: Pads, value: bool | int | float) -> tuple[Any]:
    for dim, (low, high) in enumerate(pads):
        if low != 0 or high != 0:
            g = slice_of(g, dim, low, x.ttype.shape[dim] + low)
    return (g,)


def _pad_reference(x: Array, *, pads: Any, value: bool | int | float) -> Array:
    fill = number_array(value, dtype_of(x.dtype))
    out = np.full([n + low + high for n, (low, high) in zip(x.shape, pads, strict=True)], fill, x.dtype)
    out[tuple(slice(low, low + n) for n, (low, _) in zip(x.shape, pads, strict=True))] = x
    return out


def _pad_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, pads, value in (
        ((), (), 0), ((3,), ((1, 2),), 0), ((2, 3), ((0, 0), (2, 0)), 1), ((2, 3), ((0, 1), (1, 1)), 0),
        ((0, 2), ((1, 1), (0, 0)), 3), ((0, 2), ((0, 0), (1, 0)), 3), ((2,), ((0, 0),), 0),
    ):  # fmt: skip
        yield Sample((rng.standard_normal(shape),), {"pads": pads, "value": value}, f"{shape} by {pads}")


pad = define(
    Op(
        "pad",
        _pad_infer,
        _pad_reference,
        _pad_samples,
        lower=Elementwise(_pad_lower, movement=True),
        vjp=_pad_vjp,
        doc="The input surrounded by `value`: pads[k] = (before, after) along axis k.",
    )
)


def _clone_lower(at: At, index: Index, types: Types) -> Expr:
    return at(0, tuple(index[: types[0].ndim]))


def _clone_vjp(g: Any, out: Operand, x: Operand, *, needs: Needs) -> tuple[Any]:
    return (g,)


def _clone_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape in ((), (3,), (2, 3), (0, 2)):
        yield Sample((rng.standard_normal(shape),), {}, f"{shape}")


clone = define(
    Op(
        "clone",
        lambda x: x,
        lambda x: x.copy(),
        _clone_samples,
        lower=Elementwise(_clone_lower, movement=True),
        vjp=_clone_vjp,
        doc="A copy.",
    )
)
