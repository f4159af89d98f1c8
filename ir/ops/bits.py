"""Shifts of integers."""

from __future__ import annotations

import numpy as np

from graphc.ir import expr
from graphc.ir.expr import Expr
from graphc.ir.op import Array, Op, define
from graphc.ir.ops.elementwise import INTEGERS, pointwise, quiet, same_type, samples_of
from graphc.ir.types import bool_

_SHIFTED = tuple(t for t in INTEGERS if t is not bool_)


def _shift(name: str, fn: str, left: bool, doc: str) -> Op:
    def lower(x: Expr, n: Expr) -> Expr:
        width = expr.const(x.dtype.bits, x.dtype)  # a count below 0 is one beyond the width
        far = expr.apply("lt", n, expr.const(0, n.dtype))
        return expr.apply(fn, x, expr.apply("select", far, width, n))

    def reference(x: Array, n: Array) -> Array:
        bits = 8 * x.dtype.itemsize
        beyond = (n < 0) | (n >= bits)
        count = np.where(beyond, 0 if left else bits - 1, n).astype(x.dtype)
        if not left:
            return np.asarray(np.right_shift(x, count))
        return np.asarray(np.where(beyond, 0, np.left_shift(x, count)).astype(x.dtype))

    samples = samples_of(
        ([[1.0], [-1.0], [77.0], [-2.0]], [0.0, 1.0, 5.0, 31.0, 64.0, -1.0]), (5.0, 2.0), (np.zeros((0, 2)), 1.0)
    )
    return define(
        Op(
            name,
            same_type(name, 2, _SHIFTED),
            quiet(reference),
            samples,
            pointwise(lower),
            dtypes=_SHIFTED,
            differentiable=False,
            arity=2,
            doc=doc,
        )
    )


left_shift: Op = _shift(
    "left_shift", "shl", True, "x << n on integers: bits beyond the width are lost; n < 0 or beyond the width gives 0."
)
right_shift: Op = _shift(
    "right_shift", "shr", False, "x >> n on integers with the sign kept; n < 0 or beyond the width gives 0 or -1."
)
