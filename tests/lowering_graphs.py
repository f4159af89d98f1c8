"""Graphs for the tests of fusion, lowering and memory planning: small models, updates, random mixtures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.ir.expr import walk
from graphc.ir.graph import Graph, Value
from graphc.ir.op import Array, op_named
from graphc.ir.passes import cse, dce, decompose, simplify
from graphc.ir.steps import expressions_of
from graphc.ir.types import TensorType, float32, int64
from graphc.runtime.program import KernelCall, Program


def f32(*shape: int) -> TensorType:
    """A float32 type."""
    return TensorType(float32, shape)


def op(name: str, *operands: Any, **attrs: Any) -> Any:
    """Apply an op."""
    return op_named(name)(*operands, **attrs)


def optimised(graph: Graph) -> Graph:
    """The graph after the passes that need no kernels."""
    for run in (decompose.run, simplify.run, cse.run, dce.run):
        graph = run(graph)
    return graph


def inputs_of(graph: Graph, seed: int = 0) -> list[Array]:
    """Inputs for a model: small positive numbers, class numbers below 4."""
    rng = np.random.default_rng(seed)
    found = []
    for i in graph.inputs:
        t = i.value.type
        x = rng.integers(0, 4, t.sizes) if t.dtype is int64 else np.abs(rng.standard_normal(t.sizes)) * 0.3
        found.append(np.asarray(x, t.dtype.np))
    return found


def kinds(program: Program) -> list[str]:
    """The kind of kernel of each call."""
    return [type(call.kernel).__name__ for call in program.calls]


def loads(call: KernelCall) -> int:
    """How many different places a kernel loads."""
    return sum(e.op == "load" for e in walk(*expressions_of(call.kernel)))


def unary_graph(type: TensorType, build: Callable[[Value], Value], name: str = "g") -> Graph:
    """The graph of one function of one input."""
    graph = Graph(name)
    x = graph.add_input(type, "x")
    with graph.building():
        graph.add_output(build(x), "y")
    return graph


def add_adam(graph: Graph, name: str, p: Value, grad: Value) -> None:
    """The update of one parameter, as state outputs."""
    m = graph.add_input(p.type, f"{name}.m", "state")
    v = graph.add_input(p.type, f"{name}.v", "state")
    m2 = op("add", op("mul", m, 0.9), op("mul", grad, 0.1))
    v2 = op("add", op("mul", v, 0.99), op("mul", op("mul", grad, grad), 0.01))
    p2 = op("sub", p, op("div", op("mul", m2, 0.01), op("add", op("sqrt", v2), 1e-8)))
    for key, new in ((name, p2), (f"{name}.m", m2), (f"{name}.v", v2)):
        graph.add_output(new, key, "state")


def gradients(graph: Graph, loss: Value, wanted: Sequence[Value]) -> list[Value]:
    """The gradients of a 0-d value of a graph of primitives, by the rules of the op table."""
    needed = dict.fromkeys(wanted)
    for node in graph.nodes:
        if node.op.differentiable and any(v in needed for v in node.inputs):
            needed |= dict.fromkeys(node.outputs)
    with graph.building():
        found: dict[Value, Value] = {loss: op("full", shape=(), value=1.0, dtype=loss.dtype)}
        for node in reversed(list(graph.nodes)):
            if node.out not in found or not any(v in needed for v in node.inputs):
                continue
            assert node.op.vjp is not None
            needs = tuple(v in needed for v in node.inputs)
            parts = node.op.vjp(found[node.out], node.out, *node.inputs, needs=needs, **node.attrs)
            for v, part, need in zip(node.inputs, parts, needs, strict=True):
                if need and part is not None:
                    found[v] = op("add", found[v], part) if v in found else part
    return [found[v] for v in wanted]


def training(graph: Graph, loss: Value) -> Graph:
    """The graph with a loss, its gradients by every state and an Adam update."""
    graph.add_output(loss, "loss")
    graph = optimised(graph)
    states = [i for i in graph.inputs if i.kind == "state"]
    found = gradients(graph, graph.outputs[0].value, [i.value for i in states])
    for i, grad in zip(states, found, strict=True):
        add_adam(graph, i.name, i.value, grad)
    return optimised(graph)


def mlp() -> Graph:
    """Two linear layers, cross entropy, one training step."""
    g = Graph("mlp")
    x, y = g.add_input(f32(32, 20), "x"), g.add_input(TensorType(int64, (32,)), "y")
    w1, b1 = g.add_input(f32(30, 20), "w1", "state"), g.add_input(f32(30), "b1", "state")
    w2, b2 = g.add_input(f32(10, 30), "w2", "state"), g.add_input(f32(10), "b2", "state")
    z = op("linear", op("relu", op("linear", x, w1, b1)), w2, b2)
    chosen = op("gather", op("log_softmax", z, dim=1), op("reshape", y, shape=(32, 1)), dim=1)
    return training(g, op("neg", op("mean", chosen, dim=(0, 1), keepdim=False)))


def cnn() -> Graph:
    """Convolution with bias, batch norm, relu and max pool; one training step."""
    g = Graph("cnn")
    x, w = g.add_input(f32(4, 3, 12, 12), "x"), g.add_input(f32(8, 3, 3, 3), "w", "state")
    b, scale, shift = (g.add_input(f32(8), n, "state") for n in ("b", "scale", "shift"))

    def channel(t: Value) -> Value:
        return op("reshape", t, shape=(1, 8, 1, 1))  # type: ignore[no-any-return]

    c = op("add", op("conv2d", x, w, padding=((1, 1), (1, 1))), channel(b))
    mean = op("mean", c, dim=(0, 2, 3), keepdim=True)
    var = op("var", c, dim=(0, 2, 3), correction=0, keepdim=True)
    normed = op("div", op("sub", c, mean), op("sqrt", op("add", var, 1e-5)))
    h = op("relu", op("add", op("mul", normed, channel(scale)), channel(shift)))
    padded = op("pad", h, pads=((0, 0), (0, 0), (1, 1), (1, 1)), value=float("-inf"))
    seen = op("windows", padded, dims=(2, 3), size=(3, 3), stride=(2, 2), dilation=(1, 1))
    pooled = op("amax", seen, dim=(4, 5), keepdim=False)
    return training(g, op("mean", op("mul", pooled, pooled), dim=(0, 1, 2, 3), keepdim=False))


def layer_norm(x: Value, scale: Value, shift: Value) -> Value:
    """Over the last axis, spelled out."""
    dim = (x.type.ndim - 1,)
    mean = op("mean", x, dim=dim, keepdim=True)
    var = op("var", x, dim=dim, correction=0, keepdim=True)
    normed = op("div", op("sub", x, mean), op("sqrt", op("add", var, 1e-5)))
    return op("add", op("mul", normed, scale), shift)  # type: ignore[no-any-return]


def transformer(train: bool) -> Graph:
    """A pre-norm transformer block."""
    b, s, d, heads = 2, 10, 16, 4
    g = Graph("transformer")
    x = g.add_input(f32(b, s, d), "x")
    sizes = {"q": (d, d), "k": (d, d), "v": (d, d), "o": (d, d), "f1": (4 * d, d), "f2": (d, 4 * d)}
    w = {name: g.add_input(f32(*size), name, "state") for name, size in sizes.items()}
    bias, scale, shift = (g.add_input(f32(d), n, "state") for n in ("bias", "scale", "shift"))

    def split(t: Value) -> Value:
        return op("permute", op("reshape", t, shape=(b, s, heads, d // heads)), dims=(0, 2, 1, 3))  # type: ignore[no-any-return]

    h = layer_norm(x, scale, shift)
    q, k, v = split(op("linear", h, w["q"], bias)), split(op("linear", h, w["k"])), split(op("linear", h, w["v"]))
    scores = op("mul", op("matmul", q, op("permute", k, dims=(0, 1, 3, 2))), 0.5)
    seen = op("permute", op("matmul", op("softmax", scores, dim=3), v), dims=(0, 2, 1, 3))
    x = op("add", x, op("linear", op("reshape", seen, shape=(b, s, d)), w["o"]))
    x = op("add", x, op("linear", op("gelu", op("linear", layer_norm(x, scale, shift), w["f1"])), w["f2"]))
    if train:
        return training(g, op("mean", op("mul", x, x), dim=(0, 1, 2), keepdim=False))
    g.add_output(x, "y")
    return optimised(g)


def mixture(seed: int, size: int = 25) -> Graph:
    """A random graph over matrices of one size: pointwise, reductions, products, movement, scatter, states."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    g = Graph(f"mixture{seed}")
    values = [g.add_input(f32(n, n), f"x{k}", "state" if k % 2 else "input") for k in range(4)]
    row = g.add_input(f32(n), "row")
    places = g.add_input(TensorType(int64, (n,)), "places")

    def pick() -> Value:
        return values[-1 - int(len(values) * rng.random() ** 2)]

    def square(t: Value) -> Value:
        return op("expand", t, shape=(n, n))  # type: ignore[no-any-return]

    steps: list[Callable[[], Value]] = [
        lambda: op("add", pick(), pick()),
        lambda: op("mul", pick(), 0.5),
        lambda: op("sub", pick(), row),
        lambda: op("tanh", pick()),
        lambda: op("relu", pick()),
        lambda: op("maximum", pick(), pick()),
        lambda: op("matmul", pick(), pick(), tb=bool(rng.integers(2))),
        lambda: op("permute", pick(), dims=(1, 0)),
        lambda: op("flip", pick(), dims=(int(rng.integers(2)),)),
        lambda: op("softmax", pick(), dim=int(rng.integers(2))),
        lambda: square(op("sum", pick(), dim=(int(rng.integers(2)),), keepdim=True)),
        lambda: square(op("mean", pick(), dim=(0, 1), keepdim=True)),
        lambda: op("reshape", op("reshape", pick(), shape=(n * n,)), shape=(n, n)),
        lambda: op("slice", op("cat", pick(), pick(), dim=0), dim=0, start=n // 2, stop=n // 2 + n, step=1),
        lambda: op("index_select", pick(), places, dim=0),
        lambda: op("index_add", pick(), places, pick(), dim=0),
    ]
    with g.building():
        for _ in range(size):
            values.append(steps[rng.integers(len(steps))]())
    for k in (1, 3):
        g.add_output(pick(), f"x{k}", "state")
    for k in range(3):
        g.add_output(pick(), f"y{k}")
    return g


def images(seed: int, size: int = 18) -> Graph:
    """A random graph over images of one size: convolutions, pools, norms, reductions, layout changes."""
    rng = np.random.default_rng(seed)
    n, c, h, w = (int(k) for k in rng.integers(1, 5, 4))
    g = Graph(f"images{seed}")
    shape = (n, c, h, w)
    values = [g.add_input(f32(*shape), f"x{k}", "state" if k else "input") for k in range(2)]
    filters = g.add_input(f32(c, c, 3, 3), "filters", "state")
    channel = op("reshape", g.add_input(f32(c), "channel"), shape=(1, c, 1, 1))
    one = ((1, 1), (1, 1))

    def pick() -> Value:
        return values[-1 - int(len(values) * rng.random() ** 2)]

    def spread(t: Value) -> Value:
        return op("expand", t, shape=shape)  # type: ignore[no-any-return]

    def pool(name: str, **attrs: Any) -> Value:
        fill = float("-inf") if name == "amax" else 0.0
        padded = op("pad", pick(), pads=((0, 0), (0, 0), *one), value=fill)
        seen = op("windows", padded, dims=(2, 3), size=(3, 3), stride=(1, 1), dilation=(1, 1))
        return op(name, seen, dim=(4, 5), keepdim=False, **attrs)  # type: ignore[no-any-return]

    def flat() -> Value:
        rows = op("reshape", op("permute", pick(), dims=(0, 2, 3, 1)), shape=(n * h * w, c))
        mixed = op(
            "matmul", rows, op("reshape", op("slice", filters, dim=3, start=1, stop=2, step=1), shape=(c, 3 * c))
        )
        back = op("reshape", op("slice", mixed, dim=1, start=c, stop=2 * c, step=1), shape=(n, h, w, c))
        return op("permute", back, dims=(0, 3, 1, 2))  # type: ignore[no-any-return]

    def normed() -> Value:
        x = pick()
        mean = op("mean", x, dim=(0, 2, 3), keepdim=True)
        var = op("var", x, dim=(0, 2, 3), correction=0, keepdim=True)
        return op("div", op("sub", x, mean), op("sqrt", op("add", var, 1e-2)))  # type: ignore[no-any-return]

    steps: list[Callable[[], Value]] = [
        lambda: op("conv2d", pick(), filters, padding=one),
        lambda: op("conv2d_input_grad", pick(), filters, input_shape=(h, w), padding=one),
        lambda: op("add", op("conv2d", pick(), filters, padding=one), channel),
        lambda: spread(op("mean", pick(), dim=(2, 3), keepdim=True)),
        lambda: op("mul", pick(), channel),
        lambda: op("add", pick(), pick()),
        lambda: op("relu", pick()),
        lambda: op("sigmoid", pick()),
        lambda: pool("amax"),
        lambda: pool("sum"),
        flat,
        normed,
        lambda: op("softmax", pick(), dim=int(rng.integers(4))),
        lambda: spread(op("amax", pick(), dim=(1,), keepdim=True)),
        lambda: op("flip", pick(), dims=(2, 3)),
        lambda: op("slice", op("cat", pick(), pick(), dim=1), dim=1, start=0, stop=2 * c, step=2),
    ]  # fmt: skip
    with g.building():
        for _ in range(size):
            values.append(op("mul", steps[rng.integers(len(steps))](), 0.5))
    g.add_output(op("conv2d_weight_grad", pick(), pick(), kernel_size=(3, 3), padding=one), "filters", "state")
    g.add_output(pick(), "x1", "state")
    g.add_output(op("mean", pick(), dim=(0, 1, 2, 3), keepdim=False), "loss")
    g.add_output(op("permute", pick(), dims=(0, 2, 3, 1)), "nhwc")
    return g
