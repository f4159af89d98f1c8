"""Random Map kernels, any mix of types, accesses and functions, against their NumPy meaning, bit for bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from kernel_runs import check

from graphc.ir.expr import (
    FUNCTIONS,
    Expr,
    affine,
    apply,
    const,
    flat_index,
    iadd,
    iconst,
    idiv,
    imod,
    imul,
    index,
    load,
)
from graphc.ir.kernel import Map, Store
from graphc.ir.types import DType, bool_, float32, float64, int64

FLOAT = ["neg", "abs", "sign", "add", "sub", "mul", "div", "max", "min", "floor", "round", "sqrt", "fma", "frem"]
NAMES: dict[DType, list[str]] = {
    float32: FLOAT,
    float64: FLOAT,
    int64: ["neg", "abs", "add", "sub", "mul", "idiv", "irem", "max", "and", "shl", "shr"],
    bool_: ["and", "or", "not", "xor"],
}
TESTS = ["eq", "ne", "lt", "le", "gt", "ge"]


class Maker:
    """Makes one random kernel and its operands."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        rank = int(self.rng.integers(0, 5))
        sizes = [1, 2, 3, 5, 8, 16, 17, 33] if rank > 2 else [1, 3, 16, 31, 64, 70, 129]
        self.shape = tuple(int(self.rng.choice(sizes)) for _ in range(rank))
        self.index = [index(a) for a in range(rank)]
        self.types: list[DType] = []
        self.arrays: list[np.ndarray[Any, Any]] = []

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, options: list[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def operand(self, dtype: DType, size: int, limit: int = 0) -> int:
        if limit:
            x = self.rng.integers(0, limit, size)
        elif dtype.kind == "f":
            x = self.rng.standard_normal(size) * np.exp2(self.rng.integers(-30, 60, size))
            x[self.rng.random(size) < 0.1] = self.pick([0.0, -0.0, math.inf, -math.inf, math.nan, 1e-310])
        else:
            x = self.rng.integers(-(1 << 62), 1 << 62, size) >> self.rng.integers(0, 63, size)
        self.types.append(dtype)
        self.arrays.append(x.astype(dtype.np))
        return len(self.types) - 1

    def access(self, every_axis: bool = False) -> tuple[Expr, int]:
        """A flat index that walks the axes in some order, and the size of what it walks over."""
        order = self.rng.permutation(len(self.shape)) if self.chance(0.5) else np.arange(len(self.shape))
        steps, step, offset = [0] * len(self.shape), self.pick([1, 1, 1, 2]), self.pick([0, 0, 3])
        for axis in reversed(order):
            if every_axis or self.chance(0.85):
                steps[axis], step = step, step * self.shape[axis]
        size = offset + 1 + sum(s * (n - 1) for s, n in zip(steps, self.shape, strict=True))
        for axis in order:
            if self.chance(0.1):
                offset, steps[axis] = offset + steps[axis] * (self.shape[axis] - 1), -steps[axis]
        return flat_index(self.index, steps, offset), size

    def leaf(self, dtype: DType) -> Expr:
        kind = self.rng.random()
        if kind < 0.12:
            return const(self.pick([-1.5, 0.0, 3.0]) if dtype.kind == "f" else self.pick([-4, 0, 1, 7]), dtype)
        if kind < 0.2 and self.shape:
            e = iadd(imul(self.pick(self.index), self.pick([1, 2, 5])), self.pick([-3, 0, 2]))
            return apply("cast", self.pick([idiv, imod])(e, self.pick([1, 3, 7])), dtype=dtype)
        flat, size = self.access()
        if kind < 0.3:
            position = load(self.operand(int64, size, limit=50), int64, flat)
            return load(self.operand(dtype, 50), dtype, position)
        if kind < 0.45 and self.shape:
            return self.guarded(dtype, flat, size)
        return load(self.operand(dtype, size), dtype, flat)

    def guarded(self, dtype: DType, flat: Expr, size: int) -> Expr:
        """A load below a limit of one axis, from an operand that is no larger than that needs."""
        axis = int(self.rng.integers(len(self.shape)))
        limit = int(self.rng.integers(0, self.shape[axis] + 1))
        offset, steps = affine(flat, len(self.shape)) or (0, ())
        if all(s >= 0 for s in steps):
            last = [limit - 1 if a == axis else n - 1 for a, n in enumerate(self.shape)]
            size = max(1, offset + 1 + sum(s * n for s, n in zip(steps, last, strict=True)))
        where = apply("lt", self.index[axis], iconst(limit))
        return apply("select", where, load(self.operand(dtype, size), dtype, flat, where), const(1, dtype))

    def tree(self, dtype: DType, depth: int) -> Expr:
        if depth == 0 or self.chance(0.15):
            return self.leaf(dtype)
        if self.chance(0.15):
            return apply("cast", self.tree(self.pick(list(NAMES)), depth - 1), dtype=dtype)
        if self.chance(0.1):
            return apply(
                "select", self.tree(bool_, depth - 1), self.tree(dtype, depth - 1), self.tree(dtype, depth - 1)
            )
        if dtype is bool_ and self.chance(0.6):
            of = self.pick([float32, float64, int64])
            return apply(self.pick(TESTS), self.tree(of, depth - 1), self.tree(of, depth - 1))
        name = self.pick(NAMES[dtype])
        return apply(name, *(self.tree(dtype, depth - 1) for _ in range(FUNCTIONS[name])))

    def kernel(self) -> Map:
        stores = []
        for _ in range(self.pick([1, 2])):
            dtype = self.pick([float32, float32, float64, int64, bool_])
            value, (flat, size) = self.tree(dtype, self.pick([1, 2, 3])), self.access(every_axis=True)
            where = self.tree(bool_, 1) if self.chance(0.2) else None
            stores.append(Store(self.operand(dtype, size), flat, value, where))
        return Map(tuple(self.types), self.shape, tuple(stores))


@pytest.mark.parametrize("seed", range(60))
def test_random_map(seed: int) -> None:
    maker = Maker(seed)
    with np.errstate(all="ignore"):
        kernel = maker.kernel()
    check(kernel, maker.arrays)
