"""Operands of contractions as strided views.

A contraction states its strides for contiguous operands. Where an operand is a transposed, sliced or expanded view of a
buffer, the strides are restated for the buffer, so that nothing is copied; the packing inside the kernel reads any
strides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.codegen.build import Builder, Memory
from graphc.ir.access import own_index
from graphc.ir.expr import affine
from graphc.ir.graph import Value
from graphc.ir.kernel import Contract, Strided
from graphc.ir.narrow import before_widening
from graphc.ir.steps import Storage
from graphc.ir.types import DType, contiguous_strides

View = tuple[Storage, DType, int, tuple[int, ...]]  # memory and its type, offset and stride of each axis, in elements


def view_of(memory: Memory, value: Value) -> View | None:
    """`value` as one buffer read in strides, or None where it has to be computed. The buffer may be of a narrower type:
    the kernel converts what it reads.
    """
    if not memory.is_inlined(value):
        return memory.storage_of(value), value.dtype, 0, memory.strides_of(value)
    shape = value.type.sizes
    builder = Builder(memory, shape)
    e = before_widening(builder.value(value, own_index(shape)))
    found = affine(e.args[0], len(shape)) if e.op == "load" and len(e.args) == 1 else None
    if found is None or len(builder.operands) != 1:
        return None
    return next(iter(builder.operands)), e.dtype, *found


def restate(
    core: Contract, side: Strided, n_outer: tuple[int, ...], shape: tuple[int, ...], view: View
) -> Strided | None:
    """`side`, stated for a contiguous operand of `shape`, for that operand as `view`. None where that cannot be done.

    Each stride is taken apart into whole steps along one axis of the operand; together they must never leave the
    axis, so that no step carries into the next axis.
    """
    _, _, offset, strides = view
    own = contiguous_strides(shape)
    if strides == own:
        return replace(side, offset=side.offset + offset)
    if side.offset < 0 or 0 in shape:
        return None
    start = [side.offset // s % n for s, n in zip(own, shape, strict=True)]
    low, high = list(start), list(start)
    groups = []
    for sizes, steps in ((core.batch, side.batch), (n_outer, side.outer), (core.k, side.k)):
        new = []
        for n, step in zip(sizes, steps, strict=True):
            if n <= 1 or step == 0:
                new.append(0)
                continue
            axis = _axis_of(abs(step), n, own, shape)
            if axis is None:
                return None
            times = step // own[axis] if step > 0 else -(-step // own[axis])
            low[axis] += min(0, times * (n - 1))
            high[axis] += max(0, times * (n - 1))
            new.append(times * strides[axis])
        groups.append(tuple(new))
    if any(a < 0 or b >= n for a, b, n in zip(low, high, shape, strict=True)):
        return None
    begin = offset + sum(i * s for i, s in zip(start, strides, strict=True))
    return Strided(side.operand, begin, *groups)


def _axis_of(step: int, places: int, own: Sequence[int], shape: Sequence[int]) -> int | None:
    """The axis along which `step` moves by whole places and stays inside for `places` steps."""
    for axis, (stride, n) in enumerate(zip(own, shape, strict=True)):
        if n > 1 and step % stride == 0 and step // stride * (places - 1) < n:
            return axis
    return None
