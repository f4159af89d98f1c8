"""Ops of the op table in random programs, straight from their records: a new op needs nothing here.

A sample of the op gives shapes, attributes and places; the operands are tensors of the program brought into the
sample's shapes, and the sizes change now and then, as long as the op's own `infer` agrees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from graphc.errors import GraphcError
from graphc.fuzz.parts import KIND, Parts, Shape, Var
from graphc.ir.op import Control, Op, Sample, all_ops, op_named
from graphc.ir.types import DType, TensorType, dtype_named

# ops that no statement of this kind calls, and why
NOT_APPLIED = {
    "constant": "what every tensor(list) and number is",
    "cond": "holds graphs: graphc.cond writes them",
    "while_loop": "holds graphs: graphc.while_loop writes them",
    "scan": "holds graphs: graphc.scan writes them",
    "rand": "takes a state of the generator: graphc.rand draws it",
    "randn": "takes a state of the generator: graphc.randn draws it",
    "randint": "takes a state of the generator: graphc.randint draws it",
    "bernoulli": "takes a state of the generator: graphc.bernoulli draws it",
    "dropout": "takes a state of the generator: F.dropout draws it",
}
IMPORT = "from graphc.ir.op import op_named"
_SIZES = (1, 2, 3, 4, 5, 7, 8, 16, 17)
_EDGES = (0, 31, 32, 33, 64)
_BIG = (127, 128, 129, 511, 512, 513, 1023, 1024, 1025)
_Shapes = tuple[Shape, ...]


@cache
def applied_ops() -> tuple[str, ...]:
    """The names of the ops that statements of this kind apply."""
    return tuple(n for n, op in all_ops().items() if n not in NOT_APPLIED and not isinstance(op.lower, Control))


@cache
def samples_of(name: str) -> tuple[Sample, ...]:
    """The samples of an op."""
    return tuple(op_named(name).samples(np.random.default_rng(0)))


def resized(op: Op, sample: Sample, dtype: DType, old: int, new: int) -> tuple[_Shapes, dict[str, Any]] | None:
    """The sample with every size `old` made `new`, in operands and attributes; None if the op does not take that."""
    shapes = tuple(tuple(new if n == old else n for n in x.shape) for x in sample.inputs)
    if any(math.prod(s) > 1 << 21 for s in shapes):
        return None
    for attrs in (_swapped(sample.attrs, old, new), dict(sample.attrs)):
        types = [TensorType(_dtype(x, dtype), s) for x, s in zip(sample.inputs, shapes, strict=True)]
        try:
            op.infer_types(types, attrs)
        except (GraphcError, IndexError, TypeError, ValueError):
            continue
        return shapes, attrs
    return None


def _swapped(attrs: Mapping[str, Any], old: int, new: int) -> dict[str, Any]:
    """Sizes in attributes called shape or size, and slices' ends, follow."""
    changed = dict(attrs)
    for key in ("shape", "input_shape", "stop"):
        value = changed.get(key)
        if isinstance(value, tuple):
            changed[key] = tuple(new if n == old else n for n in value)
        elif value == old:
            changed[key] = new
    return changed


def _dtype(x: Any, chosen: DType) -> DType:
    """Float operands of a sample stand for the dtype under test."""
    return chosen if x.dtype == np.float64 else dtype_named(x.dtype.name)


class Table(Parts):
    """Statements that apply an op of the table."""

    reach: int

    def applied(self) -> None:
        """Some op of the table."""
        self.apply_named(self.rng.choice(applied_ops()))

    def apply_named(self, name: str) -> bool:
        """Apply an op; tells whether there is such a statement now."""
        op = op_named(name)
        sample = self.rng.choice(samples_of(name))
        dtypes = [d for d in (sample.dtypes or op.dtypes) if d.name in KIND and KIND[d.name] < 3]
        if not dtypes:
            return False  # a sample of complex numbers
        chosen = self.rng.choice(dtypes)
        v = self.pick(lambda v: v.dtype in {d.name for d in dtypes})
        if v is not None and self.chance(0.7):
            chosen = next(d for d in dtypes if d.name == v.dtype)
        shapes, attrs = tuple(x.shape for x in sample.inputs), dict(sample.attrs)
        sizes = sorted({n for s in shapes for n in s})
        self.reach = 1 << 20
        if sizes and self.chance(0.5):
            size = self._size()
            found = resized(op, sample, chosen, self.rng.choice(sizes), size)
            if found is not None:
                shapes, attrs = found
                self.reach = max(size, 1)
        operands = []
        for x, shape in zip(sample.inputs, shapes, strict=True):
            if math.prod(shape) > self.limit:
                return False
            operands.append(self._operand(x, shape, chosen))
        if IMPORT not in self.imports:
            self.imports.append(IMPORT)
            if self.follow is not None:
                self.follow.names["op_named"] = op_named
        text = ", ".join(operands + [f"{key}={written(value)}" for key, value in attrs.items()])
        return self.made(f'op_named("{name}")({text})') is not None

    def _size(self) -> int:
        return self.rng.choice(self.rng.choice([_SIZES, _SIZES, _EDGES, _BIG if self.limit > 1000 else _EDGES]))

    def _operand(self, x: Any, shape: Shape, chosen: DType) -> str:
        """A tensor of the program as this operand: floats in a shape, or places and flags as in the sample."""
        if x.dtype == np.float64:
            return self.shaped(shape, chosen.name)
        if x.dtype == np.bool_ or x.shape != shape:
            return self.shaped(shape, x.dtype.name) + ("" if x.dtype == np.bool_ else f" % {self._reach(x)}")
        if x.size and x.min() >= 0 and (self.reach <= x.max() or self.chance(0.5)):
            return self.shaped(shape, x.dtype.name) + f" % {self._reach(x)}"
        return f"graphc.tensor({x.tolist()}, dtype=graphc.{x.dtype.name})"

    def _reach(self, x: Any) -> int:
        """Places are below this."""
        return min(int(x.max()) + 1 if x.size else 1, self.reach)

    def shaped(self, shape: Shape, dtype: str) -> str:
        """An expression of this shape and dtype, of a tensor of the program where one fits."""
        v = self.pick(lambda v: v.dtype == dtype and v.shape == shape)
        if v is not None:
            return v.name
        v = self.pick(lambda v: v.dtype == dtype) or (
            self.pick(lambda v: v.real or KIND[dtype] == 0 or v.whole) if self.chance(0.7) else None
        )
        if v is None or (v.real and KIND[dtype] == 1):
            return f"({self.fill(shape, dtype)})"
        cast = "" if v.dtype == dtype else f".to(graphc.{dtype})"
        if not shape:
            return f"{v.name}.reshape(-1)[{self.rng.randrange(v.size)}]{cast}"
        return self.repeated(v, shape) + cast

    def repeated(self, v: Var, shape: Shape) -> str:
        """The elements of `v`, over and over, in a shape."""
        raise NotImplementedError


def written(value: Any) -> str:
    """An attribute as program text."""
    if isinstance(value, tuple):
        return f"({', '.join(map(written, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, float) and not math.isfinite(value):
        return "graphc.nan" if math.isnan(value) else ("" if value > 0 else "-") + "graphc.inf"
    return repr(value)
