"""The pipeline, from a recorded graph to native code:

    decompose   compositions into primitives                          ir/passes/decompose.py
    fold        what depends on constants alone                       ir/passes/fold.py
    simplify    exact algebra                                         ir/passes/simplify.py
    cse         equal nodes become one                                ir/passes/cse.py
    dce         what nobody reads goes                                ir/passes/dce.py
    fuse        which values get memory, which nodes share a kernel   ir/passes/fuse.py, inline.py
    lower       groups become kernel records                          codegen/lower.py
    outputs     fresh memory, or in place of a state                  codegen/outputs.py
    order       least memory alive at once                            ir/passes/order.py
    plan        offsets in one arena                                  ir/passes/plan.py
    emit, load  machine code                                          codegen/cpu, runtime/code.py

The eager mode runs the same pipeline on graphs of one node. What users call of it: `disable`, `is_compiling`, `reset`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.config import config
from graphc.errors import ArgumentError, InternalError
from graphc.ir.graph import Graph
from graphc.ir.narrow import composed
from graphc.ir.op import Array, Attrs, Control, Op
from graphc.ir.quiet import no_collection
from graphc.ir.subgraph import Subgraph
from graphc.ir.types import DType, Layout

if TYPE_CHECKING:
    from graphc.codegen.target import Target
    from graphc.runtime.executable import Executable
    from graphc.runtime.program import Program
    from graphc.runtime.segments import Segmented

_CONTROLS = ("disable", "is_compiling", "reset")  # of compiled functions; those live in the front end, found when used

Pass = Callable[[Graph], Graph]
Trace = Callable[[str, Graph], None]

MAX_EAGER = 4096  # eager executables kept; the oldest go first


def __getattr__(name: str) -> Any:
    if name not in _CONTROLS:
        raise AttributeError(f"module 'graphc.compiler' has no attribute {name!r}")
    return getattr(import_module("graphc.frontend.record.front"), name)


def passes() -> tuple[tuple[str, Pass], ...]:
    """The graph passes in order, by name. Each takes a valid graph and gives one, the same object if unchanged."""
    from graphc.ir.passes import cse, dce, decompose, fold, simplify

    return (
        ("decompose", decompose.run),
        ("fold", lambda graph: fold.run(graph, evaluate)),
        ("simplify", simplify.run),
        ("cse", cse.run),
        ("dce", dce.run),
    )


def optimise(graph: Graph, disable: Collection[str] = (), trace: Trace | None = None) -> Graph:
    """Run the graph passes but those in `disable`; `trace(name, graph)` sees the result of each.

    Raises ArgumentError for an unknown pass, or when decompose is disabled: nothing else makes compositions runnable.
    """
    known = passes()
    unknown = [name for name in disable if name not in dict(known) or name == "decompose"]
    if unknown:
        raise ArgumentError(
            f"optimise: cannot disable {unknown[0]!r}; choose from {', '.join(n for n, _ in known[1:])}"
        )
    for name, run in known:
        if name not in disable:
            graph = run(graph)
            if config.verify:
                _verify(graph)
            if trace is not None:
                trace(name, graph)
    return graph


def lower(graph: Graph, layouts: Sequence[Layout] | None = None, fuse: bool = True, order: bool = True) -> Program:
    """The program of an optimised graph with concrete sizes, for inputs in `layouts` (contiguous when None)."""
    from graphc.codegen.assemble import assemble

    return assemble(graph, layouts, fuse, order)


def build(program: Program, target: Target | None = None) -> Executable:
    """Native code for a program, for this machine unless `target` says otherwise."""
    from graphc.codegen.cpu import lower_kernel
    from graphc.codegen.target import host_target
    from graphc.runtime.executable import Executable

    # equal records are lowered once: the steps of a recurrent network differ in the memory they use alone
    lowered = {kernel: lower_kernel(kernel) for kernel in dict.fromkeys(call.kernel for call in program.calls)}
    return Executable(program, [lowered[call.kernel] for call in program.calls], target or host_target())


def compile_graph(
    graph: Graph,
    layouts: Sequence[Layout] | None = None,
    fuse: bool = True,
    target: Target | None = None,
    disable: Collection[str] = (),
    order: bool = True,
) -> Executable | Segmented:
    """Compile a graph with concrete sizes. Same inputs, same bits, whatever `fuse`, `disable` and `order` say.

    A graph with branches or loops gives a Segmented, which is called in the same way.
    """
    with _compiling():
        return _compile(graph, layouts, fuse, target, disable, order)


@contextmanager
def _compiling() -> Iterator[None]:
    """What all compilation happens in: numbers are worked out as in kernels, whatever mode the host has set."""
    from graphc.runtime.float_mode import plain_mode

    with no_collection(), plain_mode():
        yield


def _compile(
    graph: Graph,
    layouts: Sequence[Layout] | None,
    fuse: bool,
    target: Target | None,
    disable: Collection[str],
    order: bool,
) -> Executable | Segmented:
    graph = optimise(graph, disable)
    if not any(isinstance(node.op.lower, Control) for node in graph.nodes):
        return build(lower(graph, layouts, fuse, order), target)
    from graphc.runtime.segments import Segmented

    def piece(part: Graph, given: Sequence[Layout]) -> Executable:
        return build(lower(part, given, fuse, order), target)

    def inner(part: Graph, given: Sequence[Layout]) -> Executable | Segmented:
        return compile_graph(part, given, fuse, target, disable, order)

    return Segmented(graph, layouts, piece, inner)


def graph_of(op: Op, layouts: Sequence[Layout], attrs: Attrs) -> Graph:
    """The graph of one op on inputs in these layouts."""
    graph = Graph(op.name)
    inputs = [graph.add_input(layout.type, f"x{k}") for k, layout in enumerate(layouts)]
    for k, value in enumerate(graph.add(op, inputs, attrs)):
        graph.add_output(value, f"y{k}")
    return graph


def eager_executable(op: Op, layouts: Sequence[Layout], attrs: Attrs) -> Executable | Segmented:
    """Native code for one op. A composition goes through the pipeline, but for the order of its few kernels; a
    primitive needs no pass but lowering.
    """
    graph = graph_of(op, layouts, attrs)
    if isinstance(op.lower, Control):
        return compile_graph(graph, layouts)
    if composed(op, [layout.type for layout in layouts], attrs):
        graph = optimise(graph, disable=("fold", "simplify"))
    return build(lower(graph, layouts, fuse=len(graph.nodes) > 1, order=False))


_eager: dict[tuple[Any, ...], Callable[..., Any]] = {}


def eager_run(op: Op, arrays: Sequence[Array], attrs: Attrs) -> list[Array]:
    """Run one op on arrays; outputs are fresh and contiguous."""
    key = (op, *((a.dtype, a.shape, a.strides) for a in arrays), frozen_attrs(attrs))
    found = _eager.get(key)
    if found is None:
        if not all(s % a.itemsize == 0 for a in arrays for s in a.strides):
            return eager_run(op, [a.copy(order="C") for a in arrays], attrs)
        found = eager_plan(op, [Layout.of(a) for a in arrays], attrs)
        if len(_eager) >= MAX_EAGER:
            for old in list(_eager)[: MAX_EAGER // 4]:
                _eager.pop(old, None)
        _eager[key] = found
    outputs = found(*arrays)
    return [outputs] if op.outputs == 1 else list(outputs)


def eager_plan(op: Op, layouts: Sequence[Layout], attrs: Attrs) -> Callable[..., Any]:
    """`run(*arrays)` for one op on arrays of exactly these layouts, unchecked: its one output bare, several as a tuple
    or list; outputs are fresh.
    """
    with _compiling():
        return _eager_plan(op, layouts, attrs)


def _eager_plan(op: Op, layouts: Sequence[Layout], attrs: Attrs) -> Callable[..., Any]:
    if op.name == "full":  # no arithmetic in it: NumPy gives the same bits, and at once
        return _filler(op.reference(**{**attrs, "shape": ()}), attrs["shape"])
    backwards = [any(s < 0 for s in layout.strides) for layout in layouts]
    if not any(backwards):
        return _runner(eager_executable(op, layouts, attrs))
    # kernels walk forwards only
    straight = [Layout(layout.type) if back else layout for layout, back in zip(layouts, backwards, strict=True)]
    run = _runner(eager_executable(op, straight, attrs))
    return lambda *arrays: run(*[a.copy(order="C") if back else a for a, back in zip(arrays, backwards, strict=True)])


def eager_graph(graph: Graph, layouts: Sequence[Layout]) -> Callable[..., Any]:
    """Like `eager_plan`, for a small graph of several ops."""
    with _compiling():
        graph = optimise(graph, disable=("fold", "simplify"))
        return _runner(build(lower(graph, layouts, fuse=True, order=False)))


def _runner(exe: Executable | Segmented) -> Callable[..., Any]:
    """The executable as a function of arrays, by the shortest way there is."""
    from graphc.runtime.direct import direct
    from graphc.runtime.segments import Segmented

    if isinstance(exe, Segmented):
        return lambda *arrays: exe.run(arrays)
    short = direct(exe)
    if short is not None:
        return short
    run = exe.run
    return (lambda *arrays: run(arrays)[0]) if len(exe.program.outputs) == 1 else lambda *arrays: run(arrays)


def _filler(element: Array, shape: tuple[int, ...]) -> Callable[[], Array]:
    """A function that gives a new array of one element over and over: bits are copied, whatever the host's mode is."""

    def fill() -> Array:
        try:
            return np.full(shape, element, element.dtype)
        except MemoryError:
            from graphc.runtime.memory import out_of_memory

            raise out_of_memory(math.prod(shape) * element.itemsize) from None

    return fill


# what NumPy gives in the same bits as our kernels: IEEE arithmetic, and nothing that is approximated
_APPROXIMATED = frozenset({"exp", "log", "tanh", "sigmoid", "erf", "sin", "cos", "pow", "frem", "fmod"})


def evaluate(op: Op, arrays: Sequence[Array], attrs: Attrs) -> list[Array]:
    """As `eager_run`, but exact pointwise kernels are interpreted: folding must not wait for machine code."""
    from graphc.ir.expr import walk
    from graphc.ir.kernel import Map
    from graphc.ir.steps import expressions_of
    from graphc.runtime.interpret import interpret

    if not all(map(_usable, arrays)):
        return eager_run(op, arrays, attrs)
    layouts = [Layout.of(a) for a in arrays]
    if composed(op, [layout.type for layout in layouts], attrs):
        return eager_run(op, arrays, attrs)
    program = lower(graph_of(op, layouts, attrs), layouts, fuse=False)
    for call in program.calls:
        if not isinstance(call.kernel, Map) or any(e.op in _APPROXIMATED for e in walk(*expressions_of(call.kernel))):
            return eager_run(op, arrays, attrs)
    with np.errstate(all="ignore"):
        return interpret(program, arrays)


def _usable(array: Array) -> bool:
    """Whether kernels can read the array where it lies: its strides are whole elements, none of them backwards."""
    return all(s >= 0 and s % array.itemsize == 0 for s in array.strides)


def eager_view(base: Array, view: Array) -> Callable[[Array], Array] | None:
    """`run(array)` that looks at an array laid out like `base` as `view` looks at `base`; None where NumPy must."""
    from graphc.runtime.entry import entries

    means = entries()
    return None if means is None else means.viewer(view, view.ctypes.data - base.ctypes.data)


_INTS = frozenset({int})
_NAMES = frozenset({str, DType, type(None)})  # types whose values are equal only when they mean the same


def frozen_attrs(attrs: Attrs) -> tuple[Any, ...]:
    """Attributes, in the order given, as a key: equal keys, same bits."""
    key: list[Any] = []
    for name, value in attrs.items():
        kind = type(value)
        if kind in _NAMES:
            key += (name, value)
        elif kind is int or kind is bool:
            key += (name, kind, value)
        elif kind is tuple and _INTS.issuperset(map(type, value)):
            key += (name, value)
        else:
            key += (name, _frozen(value))
    return tuple(key)


def _frozen(value: Any) -> Any:
    """An attribute as a key: equal keys, same bits (0.0 is not -0.0, 1 is not 1.0, nor True)."""
    kind = type(value)
    if kind in (tuple, list):
        return tuple(map(_frozen, value))
    if kind is float:
        return value.hex()
    if kind in (int, bool):
        return (kind, value)
    if kind is np.ndarray:
        return (value.dtype, value.shape, value.tobytes())
    if value is None or kind in (str, DType, Subgraph):
        return value
    raise InternalError(f"attribute {value!r} of type {kind.__name__}")


def _verify(graph: Graph) -> None:
    from graphc.ir.verify import verify

    verify(graph, primitive=True)
