"""Random graphs of most of the op table: functions, reductions, products, windows, indexing, random numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from op_runs import offset, stepped, transposed
from random_graphs import DTYPES, Maker, random_array

from graphc.ir.graph import Graph, Location, Value
from graphc.ir.op import Array, op_named
from graphc.ir.ops.elementwise import FLOATS, NUMBERS, REAL
from graphc.ir.types import TensorType, bool_, int64

EVERY = 3  # one graph in so many has values of every dtype but complex ones
FUNCTIONS = (
    "exp", "log", "sqrt", "tanh", "sigmoid", "erf", "sin", "cos", "floor", "ceil", "trunc", "round", "sign", "relu",
    "abs", "reciprocal", "rsqrt", "log1p", "expm1", "silu", "gelu", "softplus", "elu", "leaky_relu", "relu6", "square",
    "neg", "isnan", "isinf", "isfinite", "clone",
)  # fmt: skip
BOTH = ("add", "sub", "mul", "div", "pow", "maximum", "minimum", "floor_divide", "remainder", "fmod")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
SIZES = (1, 2, 3, 4, 5, 7, 8, 16, 17, 33)
MOST_BYTES = 70_000
SPECIAL = 0.03  # more, and most results are NaN


class WideMaker(Maker):
    """Adds one random node or a few at a time."""

    special = SPECIAL

    def some(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def axis(self, x: Value) -> int:
        return int(self.rng.integers(x.type.ndim))

    def sized(self, *dtypes: Any, ndim: int = 1) -> Value | None:
        """A value with elements."""
        x = self.pick(*dtypes, ndim=ndim)
        return x if x is not None and 0 not in x.shape else None

    def function(self) -> None:
        x = self.pick(*FLOATS)
        if x is not None:
            self.add(self.some(*FUNCTIONS), x)

    def stretched(self) -> None:
        """Two operands that broadcast: a value, and a value of its dtype that fits, or some of the value's own axes."""
        x = self.pick(*NUMBERS)
        if x is None:
            return
        fitting = [v for v in self.values if v.dtype is x.dtype and _broadcasts(v.shape, x.shape)]
        y = self.some(*fitting)
        if x.type.ndim and self.rng.random() < 0.3:
            y = op_named("sum")(x, dim=(self.axis(x),), keepdim=True)
        pair = (x, y) if self.rng.random() < 0.5 else (y, x)
        names = [n for n in BOTH if n != "div" or x.dtype.is_floating_point]
        self.add(self.some(*names, *COMPARISONS), *pair)

    def chosen(self) -> None:
        x = self.pick(*NUMBERS)
        conditions = [v for v in self.values if v.dtype is bool_ and x is not None and _broadcasts(v.shape, x.shape)]
        if x is not None and conditions:
            others = [v for v in self.values if v.type is x.type]
            self.add("where", self.some(*conditions), *((x, self.some(*others))[:: self.some(1, -1)]))

    def reduced(self) -> None:
        x = self.sized(*NUMBERS)
        if x is None:
            return
        dim = tuple(d for d in range(x.type.ndim) if self.rng.random() < 0.6)
        more = ("mean", "var", "std", "logsumexp") if x.dtype in FLOATS else ()
        name, attrs = self.some("sum", "prod", "amax", "amin", *more), {"dim": dim, "keepdim": bool(self.some(0, 1))}
        self.add(name, x, **attrs, **({"correction": self.some(0, 1)} if name in ("var", "std") else {}))

    def placed(self) -> None:
        x = self.sized(*NUMBERS)
        if x is not None:
            self.add(self.some("argmax", "argmin"), x, dim=self.axis(x), keepdim=bool(self.some(0, 1)))

    def judged(self) -> None:
        x = self.pick(bool_, ndim=1)
        if x is not None:
            self.add(self.some("any", "all"), x, dim=(self.axis(x),), keepdim=bool(self.some(0, 1)))

    def normed(self) -> None:
        x = self.sized(*FLOATS)
        if x is not None and self.rng.random() < 0.3:
            self.add(self.some("layer_norm", "rms_norm"), x, normalized_dims=1, eps=1e-5)
        elif x is not None:
            self.add(self.some("softmax", "log_softmax"), x, dim=self.axis(x))

    def centred(self) -> None:
        """What normalisation layers are made of: a value less its mean, over its spread."""
        x = self.sized(*FLOATS)
        if x is None:
            return
        dim = tuple(d for d in range(x.type.ndim) if self.rng.random() < 0.6)
        mean = op_named("mean")(x, dim=dim, keepdim=True)
        y = op_named("sub")(x, mean)
        self.values += [mean, y]
        spread = op_named("mean")(op_named("mul")(y, y), dim=dim, keepdim=True)
        self.add("mul", y, op_named("rsqrt")(op_named("add")(spread, 1e-5)))

    def batched(self) -> None:
        x = self.sized(*FLOATS, ndim=2)
        if x is not None and math.prod(x.type.sizes) > x.type.sizes[1]:
            self.values += op_named("batch_norm_train")(x, eps=1e-5)

    def lost(self) -> None:
        x = self.sized(*FLOATS, ndim=2)
        if x is not None and x.type.ndim == 2:
            target = self.index_below(x.type.sizes[1], (x.type.sizes[0],))
            attrs = {"reduction": self.some("none", "mean", "sum"), "ignore_index": self.some(-100, 0)}
            self.add("cross_entropy", x, target, **attrs, label_smoothing=self.some(0.0, 0.1))

    def compared(self) -> None:
        x = self.pick(*FLOATS)
        if x is not None:
            y = self.some(*(v for v in self.values if v.type is x.type))
            self.add(self.some("mse_loss", "l1_loss"), x, y, reduction=self.some("none", "mean", "sum"))

    def limited(self) -> None:
        x = self.pick(*NUMBERS)
        if x is not None:
            self.add("clamp", x, min=-1, max=2)

    def product(self) -> None:
        x = self.pick(*NUMBERS, ndim=2)
        if x is None:
            return
        ta, tb = bool(self.some(0, 1)), bool(self.some(0, 1))
        k = x.shape[-2 if ta else -1]
        fitting = [
            v
            for v in self.values
            if v.dtype is x.dtype and v.type.ndim >= 2 and v.shape[-1 if tb else -2] == k
            and _broadcasts(v.shape[:-2], x.shape[:-2], both=True)
        ]  # fmt: skip
        if fitting:
            self.add("matmul", x, self.some(*fitting), ta=ta, tb=tb)
        else:
            weight = self.graph.constant(random_array(self.rng, TensorType(x.dtype, (k, 3)), SPECIAL))
            self.add("matmul", x, weight, ta=ta)

    def convolved(self) -> None:
        x = self.pick(*NUMBERS, ndim=4)
        if x is None or x.type.ndim != 4 or 0 in x.shape:
            return
        size = tuple(int(self.rng.integers(1, min(3, n) + 1)) for n in x.shape[2:])
        weight = self.graph.constant(random_array(self.rng, TensorType(x.dtype, (3, x.shape[1], *size)), SPECIAL))
        attrs = {"stride": self.some((1, 1), (2, 1)), "padding": self.some(((0, 0), (0, 0)), ((1, 1), (0, 1)))}
        y = op_named("conv2d")(x, weight, **attrs)
        self.values.append(y)
        if self.rng.random() < 0.5:
            self.add("conv2d_weight_grad", y, x, kernel_size=size, **attrs)
        if self.rng.random() < 0.5:
            self.add("conv2d_input_grad", y, weight, input_shape=x.shape[2:], **attrs)

    def imaged(self) -> None:
        """Something four-dimensional."""
        x = self.sized(*NUMBERS)
        if x is not None:
            n = math.prod(x.type.sizes)
            c = next(c for c in (2, 3, 1) if n % c == 0)
            h = next(h for h in (4, 3, 5, 2, 1) if n // c % h == 0)
            self.add("reshape", x, shape=(1, c, h, n // c // h))

    def windowed(self) -> None:
        x = self.sized(*NUMBERS)
        if x is None or x.type.ndim > 4:
            return
        if x.type.ndim == 4 and x.dtype in FLOATS and min(x.shape[2:]) >= 2 and self.rng.random() < 0.6:
            attrs: dict[str, Any] = {
                "kernel": (2, 2),
                "stride": self.some((1, 1), (2, 2)),
                "padding": self.some((0, 0), (1, 1)),
            }
            if self.rng.random() < 0.5:
                self.add("avg_pool2d", x, **attrs, ceil_mode=False, count_include_pad=bool(self.some(0, 1)))
            else:
                self.values += op_named("max_pool2d")(x, **attrs, dilation=(1, 1), ceil_mode=bool(self.some(0, 1)))
            return
        dim = self.axis(x)
        size = int(self.rng.integers(1, min(3, x.shape[dim]) + 1))
        attrs = {"dims": (dim,), "size": (size,), "stride": (self.some(1, 2),), "dilation": (1,)}
        y = op_named("windows")(x, **attrs)
        self.values.append(y)
        if self.rng.random() < 0.5:
            self.add("windows_grad", op_named("mul")(y, y), shape=x.shape, **attrs)

    def index_below(self, n: int, shape: tuple[int, ...]) -> Value:
        """Whole numbers from 0 to n - 1, computed from a value if one has the shape."""
        fitting = [v for v in self.values if v.dtype is int64 and v.shape == shape]
        if fitting:
            return op_named("remainder")(self.some(*fitting), n)  # type: ignore[no-any-return]
        return self.graph.constant(self.rng.integers(0, n, shape))

    def looked_up(self) -> None:
        x = self.sized()
        if x is None:
            return
        dim, count = self.axis(x), self.some(0, 1, 3, 9)
        n = x.type.sizes[dim]
        if self.rng.random() < 0.3:
            shape = tuple(count if d == dim else s for d, s in enumerate(x.type.sizes))
            self.add("gather", x, self.index_below(n, shape), dim=dim)
        elif self.rng.random() < 0.3:
            self.add("index", x, self.index_below(n, (count,)), dim=dim)
        else:
            self.add("index_select", x, self.index_below(n, (count,)), dim=dim)

    def added_to(self) -> None:
        x = self.sized(*NUMBERS)
        if x is None:
            return
        dim = self.axis(x)
        n = x.type.sizes[dim]
        source = self.some(*(v for v in self.values if v.type is x.type))
        name = self.some("index_add", "scatter_add", "index_put")
        if name == "scatter_add":
            self.add(name, x, self.index_below(n, x.type.sizes), source, dim=dim)
        elif name == "index_add":
            self.add(name, x, self.index_below(n, (n,)), source, dim=dim)
        else:
            self.add(name, x, source, self.index_below(n, (n,)), dim=dim, accumulate=True)

    def written_to(self) -> None:
        x = self.sized()
        if x is None:
            return
        dim = self.axis(x)
        n = x.type.sizes[dim]
        source = self.some(*(v for v in self.values if v.type is x.type))
        if self.rng.random() < 0.5:
            place = self.graph.constant(np.asarray(self.rng.permutation(n), np.int64))
            self.add("index_copy", x, place, source, dim=dim)
        else:
            start = int(self.rng.integers(n + 1))
            part = op_named("slice")(source, dim=dim, start=start, stop=n, step=1)
            self.add("slice_scatter", x, part, dim=dim, start=start, stop=n, step=1)

    def drawn(self) -> None:
        state, offset_ = self.graph.inputs[0].value, int(self.rng.integers(9))
        shape = tuple(int(n) for n in self.rng.choice(SIZES, self.rng.integers(0, 3)))
        x = self.pick(*FLOATS)
        name = self.some("rand", "randn", "randint", "dropout")
        if name == "dropout" and x is not None:
            self.add(name, x, state, p=0.25, offset=offset_)
        elif name == "randint":
            self.add(name, state, shape=shape, offset=offset_, low=-3, high=20)
        else:
            self.add(
                "rand" if name == "dropout" else name, state, shape=shape, offset=offset_, dtype=self.some(*FLOATS)
            )

    def counted(self) -> None:
        shape = tuple(int(n) for n in self.rng.choice(SIZES, self.rng.integers(1, 3)))
        self.add("iota", shape=shape, dim=int(self.rng.integers(len(shape))), dtype=self.some(*NUMBERS))

    def joined(self) -> None:
        x = self.pick(ndim=1)
        if x is None:
            return
        dim = self.axis(x)
        fitting = [v for v in self.values if v.dtype is x.dtype and _but(v.shape, dim) == _but(x.shape, dim)]
        self.add("cat", x, *(self.some(*fitting) for _ in range(int(self.rng.integers(1, 4)))), dim=dim)

    def picked(self) -> None:
        x = self.sized()
        if x is not None:
            dim = self.axis(x)
            self.add("select", x, dim=dim, index=int(self.rng.integers(x.type.sizes[dim])))


def _but(shape: tuple[Any, ...], dim: int) -> tuple[Any, ...] | None:
    return (len(shape), *shape[:dim], *shape[dim + 1 :]) if dim < len(shape) else None


def _broadcasts(small: tuple[Any, ...], large: tuple[Any, ...], both: bool = False) -> bool:
    """Whether the two shapes broadcast; to `large` unless `both`."""
    pairs = list(zip(reversed(small), reversed(large), strict=False))
    return (both or len(small) <= len(large)) and all(a == b or a == 1 or (both and b == 1) for a, b in pairs)


def wide_graph(seed: int, most: int = 33) -> Graph:
    """A valid graph of 3 to `most` nodes, or a few more; its first input is a random number state."""
    rng = np.random.default_rng(seed)
    graph = Graph(f"wide{seed}")
    graph.add_input(TensorType(int64, (2,)), "rng")
    a, b, c = (int(n) for n in rng.choice(SIZES, 3))
    if rng.random() < 0.1:
        a, b, c = 2, 1025, 3  # more than one block of a reduction
    shapes: list[tuple[int, ...]] = [(a, b), (b,), (a, 1), (c, a), (1, 2, 4, 5), (), (2, a, b)]
    if rng.random() < 0.25:
        shapes[int(rng.integers(len(shapes)))] = (0, b)
    dtypes = REAL if seed % EVERY == 2 else DTYPES
    floats = [d for d in dtypes if d.is_floating_point]
    main = floats[int(rng.integers(len(floats)))]
    for k, shape in enumerate(shapes):
        dtype = main if rng.random() < 0.7 else dtypes[int(rng.integers(len(dtypes)))]
        graph.add_input(TensorType(dtype, shape), f"x{k}", "state" if k == 1 else "input")
    maker = WideMaker(rng, graph)
    maker.dtypes = dtypes
    maker.values = maker.values[1:]
    m = maker
    steps: list[Callable[[], None]] = [
        *(m.function,) * 6, *(m.stretched,) * 5, *(m.reduced,) * 2, *(m.move,) * 2, *(m.windowed,) * 2, m.chosen,
        m.placed, m.judged, m.normed, m.product, m.convolved, m.imaged, m.looked_up, m.added_to, m.written_to, m.drawn,
        m.counted, m.joined, m.picked, m.cast, m.logic, m.centred, m.batched, m.lost, m.compared, m.limited,
        m.with_number, m.constant, m.repeat,
    ]  # fmt: skip
    size = int(rng.integers(3, most + 1))
    with graph.building():
        while len(graph.nodes) < size:
            graph.loc = Location(file="model.py", number=len(graph.nodes) + 1)
            steps[int(rng.integers(len(steps)))]()
            maker.values = [v for v in maker.values if v.type.nbytes <= MOST_BYTES and v.type.ndim <= 6]
    states = [v for v in maker.values if v.type is graph.inputs[2].value.type]
    for k, v in enumerate(maker.values[-int(rng.integers(1, 6)) :]):
        graph.add_output(v, f"y{k}")
    if rng.random() < 0.5:
        graph.add_output(states[-1], "x1", "state")
    return graph


def laid_inputs(graph: Graph, seed: int) -> list[Array]:
    """An array for each input, half of them not contiguous; states are."""
    rng = np.random.default_rng(seed + 10**6)
    found = []
    for i in graph.inputs:
        array = random_array(rng, i.value.type, SPECIAL if seed % 3 else 0.5)
        if i.name == "rng":
            array = rng.integers(0, 2**62, 2)
        lay = (transposed, stepped, offset, _repeated)[int(rng.integers(4))]
        found.append(array if i.kind == "state" or rng.random() < 0.5 else lay(array))
    return found


def _repeated(array: Array) -> Array:
    """The first row over and over, at one place in memory."""
    return np.broadcast_to(array[:1], array.shape) if array.ndim and array.size else array


def copied(array: Array) -> Array:
    """A copy of the memory an array spans, looked at alike."""
    if array.flags.c_contiguous or array.size == 0:
        return array.copy()
    last = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True))
    flat = np.lib.stride_tricks.as_strided(array, (last // array.itemsize + 1,), (array.itemsize,)).copy()
    return np.lib.stride_tricks.as_strided(flat, array.shape, array.strides)
