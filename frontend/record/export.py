"""`graphc.trace`: one call recorded twice from the same state, as a program that stands on its own and ships as one
file.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc import compiler
from graphc.errors import ArgumentError, ArtifactError, DimError, GuardError, RecordingError, ShapeError
from graphc.frontend.mode import watching
from graphc.frontend.record import given_grads, rng
from graphc.frontend.record.around import Around, restoring
from graphc.frontend.record.session import argument_names, check_function, record_call
from graphc.frontend.record.signature import (
    Argument,
    Expectation,
    Result,
    Signature,
    is_constant,
    same_constant,
    signature_json,
    signature_of,
)
from graphc.frontend.record.staged import Staged
from graphc.frontend.record.trace import Trace, difference
from graphc.frontend.record.tree import TreeSpec, flatten, to_json, unflatten
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.passes import bind
from graphc.ir.types import Dim, Layout, TensorType, symbols_of

_BINDINGS = 16  # executables kept for different values of the named sizes


class Program:
    """An exported program: a graph, its state and its signature. Calling it runs the compiled graph on its own state.

    `graph` is the recorded graph, `state` maps names to arrays (weights, buffers, optimiser and random state).
    """

    def __init__(self, graph: Graph, state: dict[str, Array], signature: Signature) -> None:
        self.graph = graph
        self.state = state
        self.signature = signature
        self._executables: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.RLock()
        counts = graph.counted()
        self._staged = Staged(graph, counts) if counts else None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run on arguments shaped as in the trace. Raises ArgumentError for others, GuardError where a traced branch
        would go another way.
        """
        leaves, spec = flatten((args, kwargs))
        if to_json(spec) != to_json(self.signature.in_tree):
            raise ArgumentError(f"{self.graph.name}: expected {self._expected()}, got {_arrangement(args, kwargs)}")
        given, tensors = self._inputs(leaves), self._tensors(leaves)
        self._refuse_overlaps(given)
        with self._lock:
            results = self.run(given)
            given_grads.after(self.signature.gradients, tensors, results)
            for name, number in self.signature.writes:
                _write_back(self.graph.name, name, leaves[self._argument(name)], results[number])
        out = [self._result(r, results) for r in self.signature.results]
        return unflatten(self.signature.out_tree, out)

    def _refuse_overlaps(self, given: Mapping[str, Array]) -> None:
        written = [name for name, _ in self.signature.writes]
        for name in written + [g.input for g in self.signature.gradients if g.how == "write"]:
            if Layout.of(given[name]).overlaps():
                raise ArgumentError(
                    f"{self.graph.name} writes to {name}, in whose memory elements overlap; pass a copy of it"
                )
            for other, array in given.items():
                if other != name and np.may_share_memory(array, given[name]):
                    raise ArgumentError(
                        f"{self.graph.name} writes to {name}, whose memory {other} shares; pass a copy of one of them"
                    )

    def concrete(self, *args: Any, **kwargs: Any) -> tuple[Graph, list[Array]]:
        """The graph with numbers for all sizes these arguments give it, and the arrays of its inputs. Errors as for a
        call; nothing is run but what sizes depend on.
        """
        given = self._inputs(flatten((args, kwargs))[0])
        sizes = self._sizes(given)
        arrays = [given[i.name] if i.name in given else self.state[i.name] for i in self.graph.inputs]
        if self._staged is None:
            return (bind.bind_dims(self.graph, sizes) if sizes else self.graph), arrays
        counted = self._staged.numbers(arrays, sizes)
        if counted is None:
            raise GuardError(f"{self.graph.name}: a size that depends on values is not what it was in the trace")
        return Staged(self.graph, self.graph.counted(), whole=True).bound(counted[0])[0], arrays

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Run on named arrays: one array a graph output; state is updated."""
        sizes = self._sizes(inputs)
        arrays = [inputs[i.name] if i.name in inputs else self.state[i.name] for i in self.graph.inputs]
        if watching:
            with watching[0].span("call", self.graph.name):
                results: list[Array] = self._results(sizes, arrays)
        else:
            results = self._results(sizes, arrays)
        for e in self.signature.expectations:
            now = type(e.expected)(results[e.output])
            if now != e.expected:
                raise GuardError(
                    f"{self.graph.name}: what is tested at {e.place} was {e.expected} in the trace and is {now} for "
                    "these inputs (a branch goes another way, or an index is out of range); trace that case too, or "
                    "mend the inputs"
                )
        for output, result in zip(self.graph.outputs, results, strict=True):
            if output.kind == "state" and result is not self.state[output.name]:
                np.copyto(self.state[output.name], result)
        self._advance_random()
        return results

    def _advance_random(self) -> None:
        state = self.state.get("random state")
        if state is None:
            return
        if self.signature.seed is not None:
            state[:] = self.signature.seed, 0
        state[1] += self.signature.randoms

    def _inputs(self, leaves: Sequence[Any]) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for argument, x in zip(self.signature.arguments, leaves, strict=True):
            if argument.kind == "tensor":
                found[argument.name] = _array_of(argument.name, x)
            elif argument.kind == "float":
                if type(x) not in (float, int):
                    raise ArgumentError(f"{self.graph.name}: {argument.name} must be a number, got {type(x).__name__}")
                found[argument.name] = np.asarray(float(x))
            elif not (is_constant(x) and same_constant(x, argument.value)):
                raise ArgumentError(
                    f"{self.graph.name}: {argument.name} was {argument.value!r} in the trace and cannot be {x!r}; "
                    "trace again with it"
                )
        if self.signature.gradients:
            found |= given_grads.before(self.graph.name, self.signature.gradients, self._tensors(leaves))
        return found

    def _tensors(self, leaves: Sequence[Any]) -> dict[str, Any]:
        pairs = zip(self.signature.arguments, leaves, strict=True)
        return {a.name: x for a, x in pairs if a.kind == "tensor"} if self.signature.gradients else {}

    def _sizes(self, inputs: Mapping[str, Array]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for i in self.graph.inputs:
            if i.name in inputs:
                _match(self.graph.name, i.name, i.value.type, inputs[i.name], sizes)
        return sizes

    def _results(self, sizes: dict[str, int], arrays: Sequence[Array]) -> Any:
        """The outputs; sizes that depend on values are counted first."""
        if self._staged is None:
            return self._executable(sizes, arrays)(arrays)
        counted = self._staged.numbers(arrays, sizes)
        if counted is None:
            raise GuardError(
                f"{self.graph.name}: a size that depends on values was at least 2 in the trace and is not for these "
                "inputs; trace that case too"
            )
        try:
            return self._executable(*counted)(counted[1])
        except (ShapeError, DimError) as error:
            raise GuardError(f"{self.graph.name}: the sizes of these inputs do not go together: {error}") from error

    def _executable(self, sizes: dict[str, int], arrays: Sequence[Array]) -> Any:
        layouts = [Layout.of(a) for a in arrays]
        key = (tuple(sorted(sizes.items())), tuple(layouts))
        found = self._executables.get(key)
        if found is None:
            if self._staged is not None:
                graph = self._staged.bound(sizes)[0]
            else:
                graph = bind.bind_dims(self.graph, sizes) if sizes else self.graph
            graph = self._guarded(graph)
            found = self._executables[key] = compiler.compile_graph(graph, layouts)
            while len(self._executables) > _BINDINGS:
                self._executables.popitem(last=False)
        return found

    def _guarded(self, graph: Graph) -> Graph:
        """The graph to compile: state is not written in place before expectations are checked."""
        if not self.signature.expectations:
            return graph
        from graphc.ir.graph import Output, copy_graph

        plain, _ = copy_graph(graph)
        plain.outputs = [Output(o.value, "output", o.name) for o in plain.outputs]
        return plain

    def _result(self, r: Result, results: Sequence[Array]) -> Any:
        if r.kind == "constant":
            return r.value
        return fresh(results[r.output]) if r.kind == "tensor" else results[r.output].item()

    def _argument(self, name: str) -> int:
        return next(k for k, a in enumerate(self.signature.arguments) if a.name == name)

    def _expected(self) -> str:
        return ", ".join(f"{a.name} ({a.kind})" for a in self.signature.arguments)

    def explain(self) -> str:
        """Inputs, state, results and what the recording noted."""
        kinds = {a.name: a.kind for a in self.signature.arguments}
        lines = [f"{self.graph.name}: {len(self.graph.nodes)} nodes"]
        for i in self.graph.inputs:
            lines.append(
                f"  {'state' if i.name in self.state else kinds.get(i.name, 'input')} {i.name}: {i.value.type}"
            )
        lines += [f"  valid where the value tested at {e.place} is {e.expected}" for e in self.signature.expectations]
        return "\n".join(lines + [f"  {n}" for n in self.signature.notes])

    def state_dict(self) -> dict[str, Tensor]:
        """The state as tensors that share its memory."""
        return {name: fresh(a) for name, a in self.state.items()}

    def save(self, path: str | Path) -> None:
        """Write one file (`.gcz`): the graph as text, the state as safetensors, the signature. Atomic; raises
        ArtifactError naming the path.
        """
        from graphc.runtime import artifact

        if not isinstance(path, (str, os.PathLike)):
            raise ArgumentError(f"save: expected a path, got {type(path).__name__} {path!r:.40}; give the file's name")
        artifact.save(path, self.graph, self.state, signature_json(self.signature))

    def __repr__(self) -> str:
        return f"<graphc program {self.graph.name}: {len(self.graph.nodes)} nodes, {len(self.state)} state tensors>"


def trace(
    fn: Callable[..., Any],
    *inputs: Any,
    dynamic: Mapping[str, Mapping[int, Any]] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Program:
    """Record `fn(*inputs, **kwargs)` and give the program: `.graph`, `.explain()`, `.save(path)`, callable in the same
    way.

    `dynamic` names sizes that may change: `{"x": {0: "N"}}` (argument name -> axis -> name). The function is run twice
    from the same state, which is restored afterwards: parameters, buffers, optimiser and random state are as before.
    Raises RecordingError at the line of anything a graph cannot repeat.
    """
    check_function("trace", fn)
    given = (inputs, dict(kwargs or {}))
    leaves, spec = flatten(given)
    names = argument_names(fn, *given, spec)
    types, sizes = _named_types(leaves, names, dynamic or {})
    with restoring() as around:
        first = _record(fn, given, leaves, spec, names, types, sizes, around)
        if first.begin:  # gradients that add up from call to call begin with the first
            around.begin_gradients(first.begin)
            first = _record(fn, given, leaves, spec, names, types, sizes, around)
        second = _record(fn, given, leaves, spec, names, types, sizes, around)
        text = difference(first, second)
        if text is not None:
            raise RecordingError(
                f"trace: two runs from the same state were not the same: {text}; pass what changes as an argument"
            )
    return _program(second, leaves, names, spec)


def _record(
    fn: Callable[..., Any],
    given: tuple[Sequence[Any], dict[str, Any]],
    leaves: Sequence[Any],
    spec: TreeSpec,
    names: Sequence[str],
    types: dict[int, TensorType],
    sizes: dict[str, int],
    around: Around,
) -> Trace:
    with around.kept(leaves):
        recorded = record_call(
            fn,
            leaves,
            spec,
            names,
            given=given,
            types=types,
            sizes=sizes,
            on_lift=around.note,
            strict=True,
            export=True,
            around=around,
        )
    if recorded.refusal is not None:
        raise recorded.refusal
    assert recorded.trace is not None
    return recorded.trace


def _named_types(
    leaves: Sequence[Any], names: Sequence[str], dynamic: Mapping[str, Mapping[int, Any]]
) -> tuple[dict[int, TensorType], dict[str, int]]:
    if not isinstance(dynamic, Mapping):
        raise ArgumentError(
            f"trace: dynamic must be a dict such as {{'x': {{0: 'batch'}}}}, got {type(dynamic).__name__}"
        )
    unknown = sorted(set(dynamic) - set(names))
    if unknown:
        raise ArgumentError(f"trace: dynamic names {unknown[0]!r}, but the arguments are {', '.join(names)}")
    types: dict[int, TensorType] = {}
    sizes: dict[str, int] = {}
    for k, (x, name) in enumerate(zip(leaves, names, strict=True)):
        if name not in dynamic:
            continue
        if not isinstance(x, Tensor):
            raise ArgumentError(f"trace: dynamic names {name!r}, which is not a tensor")
        if not isinstance(dynamic[name], Mapping):
            raise ArgumentError(
                f"trace: dynamic[{name!r}] must be a dict of axis and name such as {{0: 'N'}}, got {dynamic[name]!r}"
            )
        shape: list[Any] = list(x._l.type.shape)
        for axis, label in dynamic[name].items():
            if not -len(shape) <= axis < len(shape):
                raise ArgumentError(f"trace: {name} has {len(shape)} dimensions, dynamic names axis {axis}")
            number = shape[axis]
            if sizes.setdefault(str(label), number) != number:
                raise ArgumentError(f"trace: the size {label} is {sizes[str(label)]} and {number}")
            if number < 2:
                raise ArgumentError(
                    f"trace: the size {label} of {name} is {number}; trace with a size of at least 2, since 0 and 1 "
                    "broadcast differently"
                )
            shape[axis] = Dim(str(label))
        types[k] = TensorType(x.dtype, shape)
    return types, sizes


def _program(trace: Trace, leaves: Sequence[Any], names: Sequence[str], spec: TreeSpec) -> Program:
    graph = trace.graph
    state: dict[str, Array] = {}
    for source, i in zip(trace.sources, graph.inputs, strict=True):
        if source.kind == "random":
            state[i.name] = rng.state_array().copy()
        elif source.kind in ("path", "setting"):
            assert source.tensor is not None
            state[i.name] = np.array(source.tensor._a, copy=True, order="C")
    followed = {s.number for s in trace.sources if s.kind == "float"}
    arguments = [_argument(x, n, k in followed) for k, (x, n) in enumerate(zip(leaves, names, strict=True))]
    results = [
        Result({"fresh": "tensor"}.get(leaf.kind, leaf.kind), leaf.number, leaf.value) for leaf in trace.out_leaves
    ]
    first = len(graph.outputs) - len(trace.value_guards) - len(trace.counted)
    expectations = [Expectation(first + k, g.expected, str(g.loc)) for k, g in enumerate(trace.value_guards)]
    constants = [f"constant: {text} at {place}" for place, text in dict.fromkeys(trace.constants)]
    notes = list(dict.fromkeys([*trace.notes, *constants]))
    writes = [(e.name, e.output) for e in trace.effects if e.kind == "state" and trace.sources[e.number].kind == "arg"]
    return Program(
        graph,
        state,
        Signature(
            arguments,
            spec,
            results,
            trace.out_spec,
            expectations,
            trace.randoms,
            notes,
            writes,
            trace.seed,
            trace.gradients,
        ),
    )


def _argument(x: Any, name: str, followed: bool) -> Argument:
    if isinstance(x, Tensor):
        return Argument(name, "tensor")
    if followed:
        return Argument(name, "float")
    if is_constant(x):
        return Argument(name, "constant", x)
    raise RecordingError(
        f"trace: the argument {name} is a {type(x).__name__}; a file can only take tensors, numbers, texts and "
        "dtypes, so close over it instead"
    )


def _arrangement(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Arguments by their kinds, for an error."""
    kinds = [type(x).__name__ for x in args] + [f"{name}={type(x).__name__}" for name, x in kwargs.items()]
    return f"({', '.join(kinds)}); give them as in the trace"


def _array_of(name: str, x: Any) -> Array:
    if isinstance(x, Tensor):
        return x._a
    if isinstance(x, np.ndarray):
        return x
    raise ArgumentError(f"program: {name} must be a Tensor or a NumPy array, got {type(x).__name__}; convert it")


def _write_back(graph: str, name: str, argument: Any, result: Array) -> None:
    target = _array_of(name, argument)
    if not target.flags.writeable:
        raise ArgumentError(f"{graph} writes to {name}, whose memory is read-only; pass a copy")
    np.copyto(target, result)
    if isinstance(argument, Tensor):
        argument._s.version += 1
        argument._v.value += 1


def _match(graph: str, name: str, type: TensorType, array: Array, sizes: dict[str, int]) -> None:
    """Check `array` against `type`; named sizes of one symbol take their number from it."""
    given = Layout.of(array).type
    if given.dtype is not type.dtype or given.ndim != type.ndim:
        raise ArgumentError(f"{graph}: {name} is {given}, expected {type}")
    for size, number in zip(type.shape, given.sizes, strict=True):
        if isinstance(size, int):
            fits = size == number
        elif size.terms == (((str(size),), 1),):
            fits = sizes.setdefault(str(size), number) == number
        else:
            fits = all(s in sizes for s in symbols_of(size)) and TensorType(type.dtype, (size,)).bind(sizes).shape == (
                number,
            )
        if not fits:
            raise ArgumentError(f"{graph}: {name} is {given}, expected {type}{f' with {sizes}' if sizes else ''}")


# ---- files


def load(path: str | Path) -> Program:
    """The program saved at `path`. Runs nothing from the file; raises ArtifactError for anything but a valid one."""
    from graphc.runtime import artifact

    found = artifact.load(path)
    try:
        signature = signature_of(found.signature, found.graph)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path}: the signature is not valid: {error}") from error
    state = {name: np.array(a, copy=True, order="C") for name, a in found.state.items()}
    _check_state(path, found.graph, state, signature)
    return Program(found.graph, state, signature)


def _check_state(path: Any, graph: Graph, state: Mapping[str, Array], signature: Signature) -> None:
    fed = {a.name for a in signature.arguments if a.kind != "constant"} | {g.input for g in signature.gradients}
    for i in graph.inputs:
        if i.name in fed:
            continue
        if i.name not in state:
            raise ArtifactError(f"{path}: the graph needs the state {i.name!r}, which the file does not hold")
        if Layout.of(state[i.name]).type is not i.value.type:
            raise ArtifactError(
                f"{path}: the state {i.name!r} is {Layout.of(state[i.name]).type}, the graph needs {i.value.type}"
            )
    if signature.randoms and signature.seed is None and "random state" not in state:
        raise ArtifactError(f"{path}: the random state is missing")
