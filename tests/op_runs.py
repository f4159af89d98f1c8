"""Ways to run a graph that all give the same bits: op by op, for a target, fused or not, with several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphc.codegen.cpu import lower_kernel
from graphc.codegen.target import X86_64_V3, X86_64_V4, Target, host_target
from graphc.compiler import compile_graph, eager_run, lower, optimise
from graphc.ir.graph import Graph, Value
from graphc.ir.narrow import vjp
from graphc.ir.op import Array, Control, Op, op_named
from graphc.ir.ops.elementwise import NUMBERS
from graphc.ir.passes import decompose
from graphc.ir.types import DType, Layout, TensorType, bool_, dtype_of
from graphc.runtime.executable import Executable
from graphc.runtime.pool import get_num_threads, set_num_threads
from graphc.runtime.segments import Segmented

HOST = host_target()


def _target(target: Target) -> Any:
    runs = target is HOST or (target is X86_64_V3 and HOST is X86_64_V4)
    return pytest.param(target, id=target.name, marks=pytest.mark.skipif(not runs, reason=f"not a {target.name}"))


# the fixed x86-64 targets, one of them skipped where the machine has no AVX-512; elsewhere the machine's own
TARGETS = [_target(t) for t in (X86_64_V3, X86_64_V4)] if HOST in (X86_64_V3, X86_64_V4) else [_target(HOST)]


def executable(
    graph: Graph,
    layouts: Sequence[Layout] | None = None,
    fuse: bool = True,
    target: Target = HOST,
    grain: int | None = None,
) -> Executable | Segmented:
    """The compiled graph, poisoned. `grain` 1 lets the threads share kernels however small they are."""
    if any(isinstance(node.op.lower, Control) for node in graph.nodes):
        segmented = compile_graph(graph, layouts, fuse, target)
        segmented.poison = True
        return segmented
    program = lower(optimise(graph), layouts, fuse)
    kernels = [lower_kernel(call.kernel) for call in program.calls]
    if grain is not None:
        kernels = [replace(kernel, grain=grain) for kernel in kernels]
    found = Executable(program, kernels, target)
    found.poison = True
    return found


def op_by_op(graph: Graph, arrays: Sequence[Array]) -> list[Array]:
    """The outputs when each node runs on its own, as the eager mode runs it."""
    values: dict[Value, Array] = dict(zip((i.value for i in graph.inputs), arrays, strict=True))
    for node in graph.nodes:
        values.update(zip(node.outputs, eager_run(node.op, [values[v] for v in node.inputs], node.attrs), strict=True))
    return [values[o.value] for o in graph.outputs]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """While active, kernels are shared by `count` threads."""
    before = get_num_threads()
    set_num_threads(count)
    try:
        yield
    finally:
        set_num_threads(before)


def embedded(op: Op, types: Sequence[TensorType], attrs: Mapping[str, Any], both: bool) -> Graph:
    """The op between a pointwise producer of each operand and a pointwise consumer of each result.

    The last inputs are the 0-d numbers of `numbers_for`. `both`: the results themselves are outputs too.
    """
    graph = Graph(op.name)
    inputs = [graph.add_input(t, f"x{k}") for k, t in enumerate(types)]
    outs = op.infer_types(types, attrs)
    dtypes = dict.fromkeys(t.dtype for t in (*types, *outs))
    numbers = {d: graph.add_input(TensorType(d, ()), d.name) for d in dtypes if not d.is_complex}
    before = [_with_number(x, numbers) for x in inputs]
    for k, y in enumerate(graph.add(op, before, attrs)):
        after = _with_number(y, numbers)
        graph.add_output(op_named("add")(after, y) if y.dtype in NUMBERS else after, f"after{k}")
        if both:
            graph.add_output(y, f"y{k}")
    return graph


def _with_number(x: Value, numbers: Mapping[DType, Value]) -> Value:
    """Something pointwise on `x`; complex numbers are moved only."""
    if x.dtype.is_complex:
        return op_named("flip")(x, dims=tuple(range(x.type.ndim)))
    name = "mul" if x.dtype.is_floating_point else "bitwise_xor" if x.dtype is bool_ else "add"
    return op_named(name)(x, numbers[x.dtype])


def numbers_for(graph: Graph, given: int) -> list[Array]:
    """The arrays of the inputs after the first `given` of an `embedded` graph: ints stay as they are, floats shrink."""
    types = [i.value.type for i in graph.inputs[given:]]
    return [np.asarray(0.9 if t.dtype.is_floating_point else 0, t.dtype.np) for t in types]


def compiled_gradients(
    op: Op,
    arrays: Sequence[Array],
    attrs: Mapping[str, Any],
    upstream: Sequence[Array | None],
    wrt: Sequence[int] | None = None,
) -> tuple[Array | None, ...]:
    """The gradients of the float operands (those in `wrt`), from one compiled graph of forward and backward."""
    graph = Graph(op.name)
    inputs = [graph.add_input(Layout.of(a).type, f"x{k}") for k, a in enumerate(arrays)]
    for y in graph.add(op, inputs, attrs):
        graph.add_output(y, f"y{y.index}")
    graph = graph if op.vjp is not None else decompose.run(graph)
    inputs, outs = [i.value for i in graph.inputs], [o.value for o in graph.outputs]
    wanted = [k for k, a in enumerate(arrays) if dtype_of(a.dtype).is_floating_point and (wrt is None or k in wrt)]
    given = [u for u in upstream if u is not None]
    found: dict[Value, Value] = {}
    with graph.building():
        for y, u in zip(outs, upstream, strict=True):
            if u is not None:
                _accumulate(found, y, graph.add_input(TensorType(dtype_of(u.dtype), u.shape), f"g{y.index}"))
        accumulate_backward(graph, [inputs[k] for k in wanted], found)
    graph.outputs.clear()
    reached = [k for k in wanted if inputs[k] in found]
    for k in reached:
        graph.add_output(found[inputs[k]], f"d{k}")
    results = dict(zip(reached, executable(graph)([np.array(a, order="C") for a in (*arrays, *given)]), strict=True))
    return tuple(results.get(k) for k in range(len(arrays)))


def with_gradients(graph: Graph) -> Graph:
    """The decomposed graph that also gives the gradient of the sum of its float outputs by each float input it can."""
    graph = decompose.run(graph)
    graph.outputs[:] = [o for o in graph.outputs if o.kind == "output"]
    inputs = [i.value for i in graph.inputs if i.value.dtype.is_floating_point]
    found: dict[Value, Value] = {}
    with graph.building():
        for y in dict.fromkeys(o.value for o in graph.outputs if o.value.dtype.is_floating_point):
            found[y] = op_named("full")(shape=y.shape, value=1.0, dtype=y.dtype)
        accumulate_backward(graph, inputs, found)
    for k, v in enumerate(inputs):
        if v in found:
            graph.add_output(found[v], f"d{k}")
    return graph


def accumulate_backward(graph: Graph, wanted: Sequence[Value], found: dict[Value, Value]) -> None:
    """Extend `found`, the gradients by value, from the outputs to what `wanted` needs."""
    needed = dict.fromkeys(wanted)
    for node in graph.nodes:
        if node.op.differentiable and any(v in needed for v in node.inputs):
            needed |= dict.fromkeys(node.outputs)
    for node in reversed(list(graph.nodes)):
        needs = tuple(v in needed for v in node.inputs)
        if not (node.op.differentiable and any(needs) and any(v in found for v in node.outputs)):
            continue
        assert node.op.vjp is not None, f"{node.op.name} is left after decompose and has no vjp"
        g, y = tuple(found.get(v) for v in node.outputs), node.outputs
        single = node.op.outputs == 1
        parts = vjp(node.op, g[0] if single else g, y[0] if single else y, node.inputs, needs, node.attrs)
        for v, part, need in zip(node.inputs, parts, needs, strict=True):
            if need and part is not None:
                _accumulate(found, v, part)


def _accumulate(found: dict[Value, Value], value: Value, part: Value) -> None:
    found[value] = op_named("add")(found[value], part) if value in found else part


def transposed(array: Array) -> Array:
    """The same elements, the first axis innermost in memory."""
    return array.T.copy().T


def stepped(array: Array) -> Array:
    """The same elements, every other one of a larger array."""
    whole = np.ones(tuple(2 * n for n in array.shape), array.dtype)
    view = whole[(..., *(slice(None, None, 2) for _ in array.shape))]
    view[...] = array
    return view


def backwards(array: Array) -> Array:
    """The same elements, last to first in memory."""
    turned = (..., *(slice(None, None, -1) for _ in array.shape))
    return array[turned].copy()[turned]


def offset(array: Array) -> Array:
    """The same elements, aligned to nothing but their own size."""
    whole = np.ones(array.size + 3, array.dtype)
    view = whole[3:].reshape(array.shape)
    view[...] = array
    return view


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "transposed": transposed,
    "stepped": stepped,
    "backwards": backwards,
    "offset": offset,
}
