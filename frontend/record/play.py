"""Running a Trace: check every guard, one native call, then commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import compiler
from graphc.config import config
from graphc.frontend.record import rng
from graphc.frontend.record.applies import belong, confirm, fits, tensors_of
from graphc.frontend.record.backward_graph import BackwardPlan
from graphc.frontend.record.guards import holds
from graphc.frontend.record.hosted import Hosted, Miss
from graphc.frontend.record.places import places_fit
from graphc.frontend.record.quick import Picture, bounds
from graphc.frontend.record.repeat import prepare_repeat
from graphc.frontend.record.results import MISS, make_leaves
from graphc.frontend.record.sized import Sized
from graphc.frontend.record.trace import Source, Trace
from graphc.frontend.record.tree import unflatten
from graphc.frontend.tensor import Tensor
from graphc.ir.op import Array
from graphc.ir.types import Layout

_NOTHING = np.empty(0)
Checked = tuple[list[Any], list[Tensor | None]]  # value of every path step, tensor of every source


def prepare(trace: Trace) -> None:
    """Compile the trace's graph; what depends on sizes that are not known waits for them."""
    if trace.counted:
        trace.sized = Sized(trace, _compile)
    else:
        _compile(trace, [s.layout for s in trace.sources])


def _compile(trace: Trace, layouts: Sequence[Layout]) -> None:
    graph = trace.graph
    if trace.tape:
        trace.backward = BackwardPlan(trace)
        graph = trace.backward.forward
    if trace.hosts:
        copies = None if trace.backward is None else trace.backward.copies
        trace.executable = Hosted(graph, layouts, trace.hosts, trace.value_guards, copies)
        return
    trace.executable = compiler.compile_graph(graph, layouts)


def play(trace: Trace, leaves: Sequence[Any]) -> Any:
    """Run the compiled trace on argument leaves; MISS, with nothing written, when it does not apply."""
    if trace.repeat is not None:
        result = trace.repeat(leaves)
        if result is not MISS:
            return result
    result = _general(trace, leaves)
    if result is not MISS:
        prepare_repeat(trace)
    return result


def _general(trace: Trace, leaves: Sequence[Any]) -> Any:
    checked = _quick(trace, leaves) or _full(trace, leaves)
    if checked is None:
        return MISS
    values, tensors = checked
    arrays = [_array(s, t, leaves, values) for s, t in zip(trace.sources, tensors, strict=True)]
    if not trace.picture.apart(arrays):
        if _overlaps(trace, arrays):
            return MISS
        trace.picture.note_apart(arrays)
    if not all(places_fit(g, arrays) for g in trace.ranges):
        return MISS
    if trace.sized is not None:
        bound = trace.sized.bind(arrays)
        if bound is None:
            return MISS
        trace, arrays = bound
    try:
        results = trace.executable(arrays)
    except Miss:
        return MISS
    if trace.value_guards and not _value_guards_hold(trace, results):
        return MISS
    _commit_states(trace, tensors, results)
    out = make_leaves(trace, (*trace.out_leaves, *trace.kept), leaves, tensors, results)
    _commit_places(trace, values, out)
    return unflatten(trace.out_spec, out[: len(trace.out_leaves)])


def _quick(trace: Trace, leaves: Sequence[Any]) -> Checked | None:
    """The check of a call that finds everything as the last one did."""
    picture = trace.picture
    values = None if picture is None else picture.look(leaves)
    if values is None:
        return None
    tensors = picture.tensors.copy()
    for k in picture.moving:
        source = trace.sources[k]
        if source.kind == "arg":
            tensors[k] = leaves[source.number]
        elif source.kind == "path":
            if not fits(source, values[source.number]):
                return None
            tensors[k] = values[source.number]
    if config.verify:
        confirm(trace, leaves)
    return values, tensors


def _full(trace: Trace, leaves: Sequence[Any]) -> Checked | None:
    values = trace.table.evaluate(leaves)
    if not all(holds(g, values[g.step]) for g in trace.guards):
        return None
    tensors = tensors_of(trace, leaves, values)
    if tensors is None or not belong(trace, leaves, values):
        return None
    if trace.picture is not None:
        before = trace.picture.values
        loose = [s.number for s in trace.sources if s.kind == "path" and s.loose]
        trace.moved.update(n for n in loose if before[n] is not values[n])
    trace.picture = Picture(trace, values, tensors)
    return values, tensors


def _array(source: Source, tensor: Tensor | None, leaves: Sequence[Any], values: Sequence[Any]) -> Array:
    if tensor is not None:
        return tensor._a
    if source.kind == "random":
        return rng.state_array()
    if source.kind == "size":
        return np.asarray(leaves[source.number]._a.shape[0], np.int64)
    if source.kind == "host":
        return _NOTHING
    number = values[source.number] if source.kind == "setting" else leaves[source.number]
    return np.asarray(number, np.int64 if source.kind == "int" else np.float64)


def _overlaps(trace: Trace, arrays: Sequence[Array]) -> bool:
    """True when memory that is written is read-only or shared with another input."""
    written = {e.number for e in trace.effects if e.kind == "state"}
    if not all(arrays[k].flags.writeable for k in written):
        return True
    spans = sorted((*bounds(a), k in written) for k, a in enumerate(arrays) if a.nbytes)
    last = last_written = 0  # ends of what came before
    for low, high, writes in spans:
        if low < (last if writes else last_written):
            return True
        last = max(last, high)
        last_written = max(last_written, high) if writes else last_written
    return False


def _value_guards_hold(trace: Trace, results: Sequence[Array]) -> bool:
    end = len(trace.graph.outputs)
    found = results[end - len(trace.value_guards) : end]
    for value, guard in zip(found, trace.value_guards, strict=True):
        if type(guard.expected)(value) != guard.expected:
            trace.missed = f"the value tested at {guard.loc} was {guard.expected} and is {type(guard.expected)(value)}"
            return False
    return True


def _commit_states(trace: Trace, tensors: Sequence[Tensor | None], results: Sequence[Array]) -> None:
    for effect in trace.effects:
        if effect.kind == "state":
            _commit_state(tensors[effect.number], results[effect.output])
    if trace.randoms or trace.seed is not None:
        rng.advance(trace.randoms, trace.seed)


def _commit_places(trace: Trace, values: Sequence[Any], made: Sequence[Any]) -> None:
    for effect in trace.effects:
        if effect.kind == "grad":
            values[effect.number]._grad = None if effect.output < 0 else made[effect.output]
        elif effect.kind == "attr":
            setattr(values[effect.number], effect.name, made[effect.output])


def _commit_state(t: Tensor | None, result: Array) -> None:
    assert t is not None
    if result is not t._a:
        np.copyto(t._a, result)
    t._s.version += 1
    t._v.value += 1
