"""Random graphs of cheap, exact ops, rich in what passes look for: constants, repeats, inverse pairs, dead code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.ir.convert import cast_array
from graphc.ir.graph import Graph, Location, Value
from graphc.ir.op import Array, op_named
from graphc.ir.ops.elementwise import INTEGERS as WHOLE
from graphc.ir.ops.elementwise import NUMBERS, REAL
from graphc.ir.types import DType, TensorType, bool_, dtype_of, float32, float64, int64

DTYPES: tuple[DType, ...] = (bool_, int64, float32, float64)  # those in which most models are written
SPECIAL = (0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -3.0, np.inf, -np.inf, np.nan, 1e-40)
INTEGERS = (0, 1, -1, 2, 7, -(2**63), 2**63 - 1)


def random_array(rng: np.random.Generator, type: TensorType, special: float = 0.5) -> Array:
    """Elements of `type`; `special` is the share of infinities, zeros and the like."""
    shape = type.sizes
    if type.dtype is bool_:
        return np.asarray(rng.integers(0, 2, shape), np.bool_)
    if type.dtype.is_integer:
        whole = np.where(rng.random(shape) < special, rng.choice(INTEGERS, shape), rng.integers(-9, 9, shape))
        return whole.astype(type.dtype.np)
    mixed = np.where(rng.random(shape) < special, rng.choice(SPECIAL, shape), rng.standard_normal(shape))
    return cast_array(mixed, type.dtype)


def random_inputs(rng: np.random.Generator, graph: Graph) -> list[Array]:
    """One array for each input."""
    return [random_array(rng, i.value.type) for i in graph.inputs]


def same_bits(a: Array, b: Array) -> bool:
    """Equal in dtype, shape and every bit, all NaNs counted equal."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if dtype_of(a.dtype).is_complex:
        return same_bits(a.real, b.real) and same_bits(a.imag, b.imag)
    if not dtype_of(a.dtype).is_floating_point:
        return bool(np.array_equal(a, b))
    with np.errstate(invalid="ignore"):
        nan = np.isnan(a)
        equal = (a == b) & (np.signbit(a) == np.signbit(b))
        return bool(np.array_equal(nan, np.isnan(b)) and np.all(equal | nan))


class Maker:
    """Adds one random node at a time."""

    special = 0.5
    dtypes: tuple[DType, ...] = DTYPES

    def __init__(self, rng: np.random.Generator, graph: Graph) -> None:
        self.rng = rng
        self.graph = graph
        self.values: list[Value] = [i.value for i in graph.inputs]

    def dtype(self) -> DType:
        return self.dtypes[self.rng.integers(len(self.dtypes))]

    def pick(self, *dtypes: DType, ndim: int = 0) -> Value | None:
        fit = [v for v in self.values if v.dtype in (dtypes or REAL) and v.type.ndim >= ndim]
        # recent values are picked more often, so that chains grow
        return fit[-1 - int(len(fit) * self.rng.random() ** 2)] if fit else None

    def add(self, name: str, *operands: Any, **attrs: Any) -> None:
        found = op_named(name)(*operands, **attrs)
        self.values.append(found)

    def unary(self) -> None:
        x = self.pick(*NUMBERS)
        floats = ["floor", "ceil", "trunc", "relu"] if x is not None and x.dtype.is_floating_point else []
        if x is not None:
            self.add(str(self.rng.choice(["neg", "abs", "clone", *floats])), x)

    def binary(self) -> None:
        x = self.pick(*NUMBERS)
        if x is None:
            return
        partners = [v for v in self.values if v.type is x.type]
        y = partners[self.rng.integers(len(partners))]
        names = ["add", "sub", "mul", "maximum", "minimum", "eq", "lt"]
        self.add(str(self.rng.choice([*names, "div"] if x.dtype.is_floating_point else names)), x, y)

    def with_number(self) -> None:
        x = self.pick(*NUMBERS)
        if x is not None:
            is_float = x.dtype.is_floating_point
            number = self.rng.choice([0.0, -0.0, 1.0, -1.0, 2.0, 0.25, 3.0] if is_float else [0, 1, -1, 2]).item()
            name = str(self.rng.choice(["add", "sub", "mul", "div"] if is_float else ["add", "sub", "mul"]))
            self.add(name, *((x, number) if self.rng.random() < 0.7 else (x.graph.scalar(number, x.dtype), x)))

    def logic(self) -> None:
        x = self.pick(*WHOLE)
        if x is not None and self.rng.random() < 0.5:
            self.add("bitwise_not", x)
        elif x is not None:
            full = op_named("full")(shape=x.shape, value=bool(self.rng.integers(2)), dtype=bool_)
            y = full if x.dtype is bool_ else x
            self.add(str(self.rng.choice(["bitwise_and", "bitwise_or", "bitwise_xor"])), x, y)

    def choose(self) -> None:
        condition = self.pick(bool_)
        fit = [v for v in self.values if condition is not None and v.shape == condition.shape and v.dtype is float32]
        if condition is not None and fit:
            self.add("where", condition, fit[-1], fit[self.rng.integers(len(fit))])

    def cast(self) -> None:
        x = self.pick()
        if x is not None:
            self.add("cast", x, dtype=self.dtype())

    def move(self) -> None:
        x = self.pick(ndim=1)
        if x is None:
            return
        n, dim = x.type.ndim, int(self.rng.integers(x.type.ndim))
        size = x.type.sizes[dim]
        start = int(self.rng.integers(0, size + 1)) if self.rng.random() < 0.5 else 0
        kinds: dict[str, dict[str, Any]] = {
            "permute": {"dims": tuple(int(d) for d in self.rng.permutation(n))},
            "reshape": {"shape": tuple(reversed(x.shape))},
            "slice": {"dim": dim, "start": start, "stop": size, "step": int(self.rng.integers(1, 3))},
            "flip": {"dims": (dim,)},
            "expand": {"shape": (2, *x.shape) if n < 3 else x.shape},
            "pad": {"pads": ((0, int(self.rng.integers(2))),) * n, "value": np.zeros((), x.dtype.np).item()},
        }
        name = str(self.rng.choice(list(kinds)))
        self.add(name, x, **kinds[name])

    def join(self) -> None:
        x = self.pick(ndim=1)
        if x is not None:
            self.add("cat", *([x] * int(self.rng.integers(1, 3))), dim=int(self.rng.integers(x.type.ndim)))

    def reduce(self) -> None:
        x = self.pick(*NUMBERS, ndim=1)
        if x is not None:
            dim = tuple(d for d in range(x.type.ndim) if self.rng.random() < 0.5)
            self.add("sum", x, dim=dim, keepdim=bool(self.rng.integers(2)))

    def walk(self) -> None:
        x = self.pick(int64, float32, float64, ndim=1)
        if x is None:
            return
        name = str(self.rng.choice(["cumsum", "cumprod", "argcummax", "argcummin", "argsort"]))
        more = {"descending": bool(self.rng.integers(2))} if name == "argsort" else {}
        self.add(name, x, dim=int(self.rng.integers(x.type.ndim)), **more)

    def constant(self) -> None:
        shape = tuple(int(n) for n in self.rng.integers(1, 4, self.rng.integers(0, 3)))
        type = TensorType(self.dtype(), shape)
        self.values.append(self.graph.constant(random_array(self.rng, type, self.special)))

    def repeat(self) -> None:
        if self.graph.nodes:
            node = self.graph.nodes[self.rng.integers(len(self.graph.nodes))]
            self.values += self.graph.add(node.op, node.inputs, node.attrs)


def random_graph(rng: np.random.Generator, size: int = 30) -> Graph:
    """A valid graph of about `size` nodes with inputs of every dtype; results of at most a few hundred elements."""
    graph = Graph("random")
    for k, dtype in enumerate((*DTYPES, float32, float64)):
        shape = tuple(int(n) for n in rng.integers(1, 4, rng.integers(1, 3)))
        graph.add_input(TensorType(dtype, shape), f"x{k}", "state" if k == 3 else "input")
    graph.add_input(TensorType(float32, (0, 2)), "empty")
    maker = Maker(rng, graph)
    steps: list[Callable[[], None]] = [
        maker.unary, maker.binary, maker.with_number, maker.with_number, maker.logic, maker.choose, maker.cast,
        maker.move, maker.move, maker.join, maker.reduce, maker.walk, maker.constant, maker.repeat,
    ]  # fmt: skip
    with graph.building():
        for k in range(size):
            graph.loc = Location(file="model.py", number=k + 1)
            steps[rng.integers(len(steps))]()
            maker.values = [v for v in maker.values if v.type.nbytes <= 2000]
    for k, v in enumerate(maker.values[-6:]):
        graph.add_output(v, f"y{k}")
    return graph
