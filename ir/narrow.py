"""Types narrower than what is computed with: the one rule of every op on 16-bit floats and on 8- and 16-bit integers.

The operands are converted once, the op (a primitive or a composition, as the user called it) runs in the wider type,
and every result is rounded once (docs/numerics.md). float16 and bfloat16 are computed in float32. Narrow integers are
computed in int32: arithmetic that wraps gives the same last bits in any wider type, and everything else gives a number
that the narrow type holds. So kernels compute in five types only, and narrow ones are loaded, stored, moved and
converted. Ops that only move elements (`Op.any_width`) take every type as it is.

A gradient rule follows the same law: it runs in float32 on what was saved, and each gradient is rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import InternalError
from graphc.ir.convert import cast_array
from graphc.ir.expr import Expr
from graphc.ir.op import Array, Elementwise, Op, op_named
from graphc.ir.types import DType, TensorType, bfloat16, dtype_of, float16, float32, int8, int16, int32, uint8

WIDER: Mapping[DType, DType] = {uint8: int32, int8: int32, int16: int32, float16: float32, bfloat16: float32}


class TypeOnly:
    """Stands in for an operand whose type alone is read: no op can be called on it."""

    __slots__ = ("ttype",)

    def __init__(self, type: TensorType) -> None:
        self.ttype = type


def before_widening(e: Expr) -> Expr:
    """The narrow value that an expression widens; `e` itself where it widens none."""
    return e.args[0] if e.op == "cast" and WIDER.get(e.args[0].dtype) is e.dtype else e


def takes_any_width(op: Op) -> bool:
    """True for an op that needs no wider type: it moves elements, or says itself how they are converted."""
    return op.any_width or (isinstance(op.lower, Elementwise) and op.lower.movement)


def widens(op: Op, types: Sequence[TensorType], attrs: Mapping[str, Any]) -> bool:
    """Whether `op` on operands of these types is computed in a wider type."""
    if takes_any_width(op):
        return False
    return any(t.dtype in WIDER for t in types) or _drawn_in(attrs) is not None


def _drawn_in(attrs: Mapping[str, Any]) -> DType | None:
    """The wider type of an op that is told its dtype (random numbers)."""
    dtype = attrs.get("dtype")
    return WIDER.get(dtype) if isinstance(dtype, DType) else None


def composed(op: Op, types: Sequence[TensorType], attrs: Mapping[str, Any]) -> bool:
    """Whether `op` on these types may have something to expand: a decomposition, or the conversions of narrow types."""
    return op.decompose is not None or widens(op, types, attrs)


def expand(op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """What `op` on these operands is made of: a value, or several; None where it is primitive as it stands."""
    types = [x.ttype for x in operands]
    if not widens(op, types, attrs):
        return None if op.decompose is None else op.decompose(*operands, **attrs)
    found = op(*(_converted(x, WIDER.get(x.ttype.dtype)) for x in operands), **_wide_attrs(attrs))
    results = found if isinstance(found, tuple | list) else (found,)
    wanted = op.infer_types(types, attrs)
    rounded = tuple(_converted(y, t.dtype) for y, t in zip(results, wanted, strict=True))
    return rounded if op.outputs != 1 else rounded[0]


def _wide_attrs(attrs: Mapping[str, Any]) -> Mapping[str, Any]:
    wider = _drawn_in(attrs)
    return attrs if wider is None else {**attrs, "dtype": wider}


def _converted(x: Any, dtype: DType | None) -> Any:
    return x if dtype is None or x.ttype.dtype is dtype else op_named("cast")(x, dtype=dtype)


def vjp(
    op: Op, g: Any, out: Any, inputs: Sequence[Any], needs: Sequence[bool], attrs: Mapping[str, Any]
) -> tuple[Any, ...]:
    """The gradients of `op` by its own rule: one (or None) an operand. Arguments as for `Op.vjp`.

    On float16 and bfloat16 the rule runs in float32, and each gradient is rounded once.
    """
    if op.vjp is None:
        raise InternalError(f"{op.name} has no gradient rule of its own")
    if takes_any_width(op) or not any(x.ttype.dtype.is_low_precision for x in inputs):
        return tuple(op.vjp(g, out, *inputs, needs=tuple(needs), **attrs))
    wide_g, wide_out = (tuple(map(_up, x)) if isinstance(x, tuple) else _up(x) for x in (g, out))
    found = op.vjp(wide_g, wide_out, *map(_up, inputs), needs=tuple(needs), **attrs)
    return tuple(
        None if grad is None else _converted(grad, x.ttype.dtype) for grad, x in zip(found, inputs, strict=True)
    )


def _up(x: Any) -> Any:
    """A 16-bit float in float32; None and other types as they are; a stand-in with the type alone stays one."""
    if x is None or not x.ttype.dtype.is_low_precision:
        return x
    if getattr(type(x), "apply_op", None) is None:
        return TypeOnly(x.ttype.with_dtype(float32))
    return _converted(x, float32)


def reference(op: Op, arrays: Sequence[Array], attrs: Mapping[str, Any]) -> tuple[Array, ...]:
    """The reference's results: for narrow types those of the wider type, rounded once."""
    types = [TensorType(dtype_of(a.dtype), a.shape) for a in arrays]
    if not widens(op, types, attrs):
        return _as_arrays(op.reference(*arrays, **attrs))
    wide = [cast_array(a, WIDER.get(t.dtype, t.dtype)) for a, t in zip(arrays, types, strict=True)]
    found = _as_arrays(op.reference(*wide, **_wide_attrs(attrs)))
    wanted = op.infer_types(types, attrs)
    with np.errstate(all="ignore"):
        return tuple(cast_array(a, t.dtype) for a, t in zip(found, wanted, strict=True))


def _as_arrays(found: Any) -> tuple[Array, ...]:
    return tuple(found) if isinstance(found, tuple | list) else (found,)
