"""Runs a primitive op through its own lowering: one kernel over contiguous operands, on the NumPy interpreter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.ir import expr
from graphc.ir.expr_numpy import run_kernel
from graphc.ir.kernel import Map, ReduceStage, Rows, Scan, Scatter, Store
from graphc.ir.op import Array, Elementwise, Op, Reduction, Scanning, Scattering
from graphc.ir.types import TensorType, contiguous_strides, dtype_of


def lowered(op: Op, arrays: Sequence[Array], attrs: Mapping[str, Any]) -> Array:
    """The op's only result. Raises InternalError for a read out of bounds."""
    types = [TensorType(dtype_of(a.dtype), a.shape) for a in arrays]
    (out,) = op.infer_types(types, attrs)
    flat = [np.ascontiguousarray(a).reshape(-1) for a in arrays]
    runners = {Elementwise: _elementwise, Reduction: _reduction, Scattering: _scattering, Scanning: _scanning}
    runner = runners[type(op.lower)]
    return runner(op.lower, types, flat, out, attrs).reshape(out.sizes)


def _reader(types: Sequence[TensorType]) -> Any:
    def at(k: int, index: Sequence[expr.Expr], where: expr.Expr | None = None) -> expr.Expr:
        assert len(index) == types[k].ndim
        flat = expr.flat_index(index, contiguous_strides(types[k].sizes))
        return expr.load(k, types[k].dtype, flat, where)

    return at


def _elementwise(lower: Elementwise, types: Any, flat: list[Array], out: TensorType, attrs: Mapping[str, Any]) -> Array:
    index = tuple(expr.index(a) for a in range(out.ndim))
    value = lower.fn(_reader(types), index, types, **attrs)
    assert value.dtype is out.dtype
    if 0 in out.sizes:  # no kernel runs; its expressions may read what is not there
        return np.empty(0, out.dtype.np)
    store = Store(len(types), expr.flat_index(index, contiguous_strides(out.sizes)), value)
    result = np.empty(math.prod(out.sizes), out.dtype.np)
    run_kernel(Map((*(t.dtype for t in types), out.dtype), out.sizes, (store,)), [*flat, result])
    return result


def _reduction(lower: Reduction, types: Any, flat: list[Array], out: TensorType, attrs: Mapping[str, Any]) -> Array:
    x = types[0]
    dims = attrs["dim"] if isinstance(attrs["dim"], tuple) else (attrs["dim"],)
    outer, run = math.prod(x.sizes[: dims[0]]), math.prod(x.sizes[d] for d in dims)
    inner = math.prod(x.sizes[dims[-1] + 1 :])
    i, j, k = (expr.index(a) for a in range(3))
    value = expr.load(0, x.dtype, expr.flat_index((i, k, j), (run * inner, inner, 1)))
    store = Store(1, expr.flat_index((i, j), (inner, 1)), expr.result(0, out.dtype))
    result = np.empty(outer * inner, out.dtype.np)
    kernel = Rows((x.dtype, out.dtype), (outer, inner), run, (ReduceStage(lower.kind, value),), (store,))
    run_kernel(kernel, [*flat, result])
    return result


def _scattering(lower: Scattering, types: Any, flat: list[Array], out: TensorType, attrs: Mapping[str, Any]) -> Array:
    axes = tuple(expr.index(a) for a in range(out.ndim + 1))
    space, run, place, value, where = lower.fn(_reader(types), axes, types, **attrs)
    target = expr.flat_index(place, contiguous_strides(out.sizes))
    result = flat[0].copy()
    if 0 in (*space, run):
        return result
    kernel = Scatter((*(t.dtype for t in types), out.dtype), space, run, len(types), target, value, lower.add, where)
    run_kernel(kernel, [*flat, result])
    return result


def _scanning(lower: Scanning, types: Any, flat: list[Array], out: TensorType, attrs: Mapping[str, Any]) -> Array:
    sizes, dim = out.sizes, attrs["dim"]
    i, j, k = (expr.index(a) for a in range(3))
    outer, run, inner = math.prod(sizes[:dim]), sizes[dim], math.prod(sizes[dim + 1 :])
    place = expr.flat_index((i, k, j), (run * inner, inner, 1))
    value, store = expr.load(0, types[0].dtype, place), Store(1, place, expr.result(0, out.dtype))
    result = np.empty(math.prod(sizes), out.dtype.np)
    operands, descending = (types[0].dtype, out.dtype), attrs.get("descending", False)
    run_kernel(Scan(operands, (outer, inner), run, lower.kind, value, (store,), descending), [*flat, result])
    return result
