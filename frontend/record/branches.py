"""`cond`, `while_loop` and `scan` in a recording: a node that holds the graphs of their functions.

Where no gradient flows and the functions do nothing but compute (carve.py), a decision is then no condition: a call
that goes the other way, or round more often, runs the same graph. Else what ran stays in the graph as it is, the
decision is a condition as that of an `if`, and the statements go on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc.errors import RecordingError
from graphc.frontend.functional_shape import movedim, select
from graphc.frontend.mode import mode
from graphc.frontend.ops import ops
from graphc.frontend.record.carve import Region, cut, flag_of, require
from graphc.frontend.record.roots import Root
from graphc.frontend.record.trace import ValueGuard
from graphc.frontend.record.tree import TreeSpec, flatten, unflatten
from graphc.frontend.record.where import here, names_of
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.graph import Value
from graphc.ir.op import Array, Control, op_named
from graphc.ir.subgraph import Subgraph
from graphc.ir.types import Dim, TensorType, bool_

CHECKED = 3  # rounds of a loop that are recorded and compared; those after them are watched only


def recording() -> Any:
    """Who records here, None where nobody does."""
    recorder: Any = mode.get().recorder
    if recorder is None or recorder.lockstep is not None or not recorder.recording():
        return None
    return recorder


def watched() -> bool:
    """True in a round of a loop that is not recorded: what decides there decides in the graph."""
    recorder: Any = mode.get().recorder
    return hasattr(recorder, "region") and bool(recorder.real._paused)


def without_gradients(tree: Any) -> bool:
    """Whether `tree` holds no tensor that requires gradients, where they are recorded."""
    return not mode.get().grad or not any(isinstance(x, Tensor) and x.requires_grad for x in flatten(tree)[0])


def fix_length(size: Dim) -> None:
    """The steps of a scan are written out: their number is a condition. Raises RecordingError for a named size."""
    recorder: Any = mode.get().recorder
    if recorder.plain_size(size) is None:
        raise RecordingError(
            f"scan at {here()} goes through the named size {size}, but cannot be a loop of the graph: a gradient flows "
            "through it, or combine_fn does more than compute; run it under no_grad(), or trace it without making the "
            "size dynamic"
        )


def _real(recorder: Any) -> Any:
    return getattr(recorder, "real", recorder)


def _tell(recorder: Any) -> None:
    """The statements are recorded, with a condition: an outer region does not fit."""
    while hasattr(recorder, "region"):
        recorder.region.note("a branch")
        recorder = recorder.outer


def _results(real: Any, arrays: Sequence[Array], values: Sequence[Value]) -> list[Tensor]:
    """New tensors that hold what a node gave."""
    made = []
    for array, value in zip(arrays, values, strict=True):
        t = fresh(np.array(array, copy=True, order="C"))
        real._slot(t).roots.append(Root((), value, None, None))
        real._made(t)
        made.append(t)
    return made


def _filled(region: Region, tensors: Sequence[Tensor]) -> Any:
    """What a region returned, with other tensors."""
    assert region.spec is not None
    rest = iter(tensors)
    return unflatten(region.spec, [next(rest) if there else x for x, there in region.leaves])


# ---------------------------------------------------------------- cond


def branch(recorder: Any, pred: Tensor, functions: Sequence[Any], operands: Sequence[Any]) -> tuple[bool, Any]:
    """(True, what cond gives) where it became a node; else (False, what the chosen function returned)."""
    real = _real(recorder)
    number = bool(pred._a.reshape(()))
    flag = flag_of(real, pred)
    guards = len(real.value_guards)
    real.value_guards.append(ValueGuard(flag, number, here()))
    regions: list[Region] = []
    result = found = None
    # always in this order, so that recordings of calls that go different ways are equal
    for chosen, function in zip((True, False), functions, strict=True):
        region = Region(recorder, [function, operands], chosen is not number)
        if region.trial and (any(not r.fits for r in regions) or shows(function)):
            region.unfit = region.unfit or "not tried"
        regions.append(region)
        if region.trial and region.unfit:
            continue
        with region:
            found = function(*operands)
            region.returned(found)
        if region.trial:
            region.close()
        else:
            result = found
    then, other = regions
    if not (then.fits and other.fits and then.like(other) and then.results):
        regions[not number].flush()
        _tell(recorder)
        return False, result
    del real.value_guards[guards:]
    regions[not number].close()
    captures = list(dict.fromkeys([*then.captures, *other.captures]))
    checked = bool(then.checks or other.checks)
    attrs = {name: r.graph(name, captures, checked=checked) for name, r in zip(("then", "other"), regions, strict=True)}
    real._place()
    made = real.graph.add(op_named("cond"), [flag, *captures], attrs)
    if checked:
        *made, holds = made
        require(recorder, holds, here())
    taken = regions[not number]
    return True, _filled(taken, _results(real, [t._a for t in taken.tensors], made))


_SHOWS = frozenset({"print", "write", "writelines", "open", "warn", "debug", "info", "warning", "error", "exception"})


def shows(function: Any) -> bool:
    """Whether a function seems to print, write or log: it is not called where it would not run."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return code is not None and not _SHOWS.isdisjoint(names_of(code))


# ---------------------------------------------------------------- loops

Shape = tuple[list[Value], Subgraph]


class Loop:
    """A loop that may become a node. A round is a few regions, named `names`, the last of them the body."""

    def __init__(self, recorder: Any, names: Sequence[str], given: Sequence[Tensor]) -> None:
        self.recorder = recorder
        self.names = names
        self.real = _real(recorder)
        self.initial = [self.real.value_of(t) for t in given]
        self.start = len(self.real.graph.nodes)
        self.guards = len(self.real.value_guards)
        self.rounds = 1
        self.constants = 0
        self.ops: list[Any] = []  # those of the last round that was recorded
        self.params: list[Value] = []
        self.places: list[Value] = []
        self.first: list[Region] = []
        self.shapes: list[Shape] = []

    def copies(self, given: Sequence[Tensor]) -> list[Tensor]:
        """What the first round is given: copies, so that what it reads besides is told from it."""
        made: list[Tensor] = [ops.clone(t) for t in given]
        self.params = [self.real.value_of(t) for t in made]
        return made

    def began(self, regions: list[Region]) -> None:
        """The first round was recorded and fits: take it out of the recording."""
        self.first = regions
        self.shapes = self._shapes(regions, self.params)
        del self.real.value_guards[self.guards :]
        cut(self.real, self.start, dict.fromkeys(self.real.graph.nodes[self.start :]))

    def _shapes(self, regions: Sequence[Region], params: Sequence[Value]) -> list[Shape]:
        for region in reversed(regions):
            region.close(params)
        return [
            (r.captures, r.graph(name, [*params, *r.captures], checked=bool(r.checks)))
            for r, name in zip(regions, self.names, strict=False)
        ]

    def placed(self, arrays: Sequence[Array]) -> list[Tensor]:
        """What another recorded round is given. Its values stand for those of any round."""
        tensors = [fresh(a) for a in arrays]
        self.constants = len(self.real.constants)
        self.places = [Value(self.real.graph, p.type, None, -1) for p in self.params]
        for t, value in zip(tensors, self.places, strict=True):
            self.real._slot(t).roots.append(Root((), value, None, None))
        return tensors

    def ended(self, regions: Sequence[Region]) -> None:
        """Another round was recorded. Refused where it does something else than the first."""
        self.rounds += 1
        self.ops = [key for r in regions for key in r.ops]
        if self.real.refusal is not None:
            return
        del self.real.constants[self.constants :]  # those of the first round are noted
        same = all(r.fits and r.like(first) for r, first in zip(regions, self.first, strict=False))
        if same:
            shapes = self._shapes(regions, self.places)
            same = shapes == self.shapes[: len(shapes)]  # the last round is a test alone
        if not same:
            self._refuse(next((r.unfit for r in regions if r.unfit), "other operations"))

    @contextmanager
    def watched(self) -> Iterator[Region]:
        """Around the rounds after those: nothing is recorded; refused where one does what does not fit."""
        region = Region(self.recorder)
        nested = any(isinstance(n.op.lower, Control) for _, g in self.shapes for n in g.graph.nodes)
        region.expected = None if nested else self.ops  # what is nested runs otherwise where it is recorded
        with region, self.real.paused():
            yield region
        if region.unfit and self.real.refusal is None:
            self._refuse(region.unfit)

    def _refuse(self, what: str) -> None:
        self.real.refuse(
            RecordingError(f"a round of the loop at {here()} does something else than the first one ({what})")
        )

    def node(self, op: str, attrs: dict[str, Any], arrays: Sequence[Array]) -> list[Tensor]:
        """Add the node; its results are these arrays."""
        captures = list(dict.fromkeys(v for r in self.first for v in r.captures))
        graph, count = self.real.graph, attrs["carries"]
        self.real._place()
        given, params = list(self.initial), list(self.params)
        checked = bool(self.first[-1].checks)
        holds = Value(graph, TensorType(bool_, ()), None, -1) if checked else None
        if holds is not None:  # a carry of its own: a loop that went wrong ends
            given.insert(count, graph.constant(np.asarray(True)))
            params.insert(count, holds)
        for region, name in zip(self.first, self.names, strict=True):
            attrs[name] = region.graph(name, [*params, *captures], holds, checked and region is self.first[-1])
        if checked:
            attrs["body"] = _moved(attrs["body"], count)
        made = list(graph.add(op_named(op), [*given, *captures], attrs | {"carries": count + checked}))
        if checked:
            require(self.recorder, made.pop(count), here())
        return _results(self.real, arrays, made)


def _moved(graph: Subgraph, place: int) -> Subgraph:
    """The last output at another place."""
    outputs = graph.graph.outputs
    outputs.insert(place, outputs.pop())
    return Subgraph(graph.graph)


def repeat(
    recorder: Any, cond_fn: Callable[..., Any], body_fn: Callable[..., Any], values: Sequence[Any]
) -> tuple[bool, Sequence[Any], Any]:
    """(True, results, None) where the loop became a node; else (False, the values it came to, what cond_fn says of
    them, or None where it was not asked).
    """
    leaves, spec = flatten(tuple(values))
    if not leaves or not all(isinstance(x, Tensor) for x in leaves):
        return False, values, None
    loop = Loop(recorder, ("test", "body"), leaves)
    carries = unflatten(spec, loop.copies(leaves))
    test = Region(recorder, [cond_fn])
    with test:
        pred = cond_fn(*carries)
        test.tested(pred)
    if test.checks:  # the last test decides nothing that the graph could still say
        test.note("an index")
    if not test.fits:
        return False, carries, pred
    number = bool(pred._a.reshape(()))
    loop.real.value_guards.append(ValueGuard(test.results[0], number, here()))
    body = Region(recorder, [body_fn], not number)
    after: Any = carries
    if number or not body.unfit:
        with body:
            after = body_fn(*carries)
            body.returned(after)
    if not body.fits or [v.type for v in body.results] != [v.type for v in loop.params]:
        body.flush()
        if body.trial and body.ended:
            body.close()
        _tell(recorder)
        return False, after if number else carries, None if number else False
    arrays = [t._a for t in (body.tensors if number else leaves)]
    del pred, after
    loop.began([test, body])
    while number and loop.rounds < CHECKED:
        given = unflatten(spec, loop.placed(arrays))
        number, values, arrays = _round(loop, cond_fn, body_fn, given, arrays)
        if loop.real.refusal is not None:
            return False, values, None if number else False
    if number:
        values, pred = _rest(loop, cond_fn, body_fn, unflatten(spec, list(map(fresh, arrays))))
        if loop.real.refusal is not None:
            return False, values, pred
        arrays = [t._a for t in flatten(values)[0]]
    made = loop.node("while_loop", {"carries": len(leaves)}, arrays)
    return True, unflatten(spec, made), None


def _round(
    loop: Loop, cond_fn: Callable[..., Any], body_fn: Callable[..., Any], given: Any, arrays: list[Array]
) -> tuple[bool, Any, list[Array]]:
    """Another round: whether the body ran, the values it left, and their arrays."""
    test, body = Region(loop.recorder), Region(loop.recorder)
    with test:
        pred = cond_fn(*given)
        test.tested(pred)
    if not test.tensors:
        loop.ended([test])  # refused
    number = bool(pred._a.reshape(())) if test.tensors else bool(pred)
    after = given
    if number:
        with body:
            after = body_fn(*given)
            body.returned(after)
        arrays = [t._a for t in body.tensors]
    del pred
    loop.ended([test, body] if number else [test])
    return number, after, arrays


def _rest(loop: Loop, cond_fn: Callable[..., Any], body_fn: Callable[..., Any], values: Any) -> tuple[Any, Any]:
    """All other rounds: the values at the end, and what cond_fn says of them."""
    pred: Any = None
    with loop.watched() as region:
        while not region.unfit:
            pred = cond_fn(*values)
            region.tested(pred)
            if region.unfit or not pred._a.reshape(()):
                break
            values, pred = body_fn(*values), None
            region.round()
        region.tensors = []
    return values, pred


# ---------------------------------------------------------------- scan


def walk(
    recorder: Any,
    step: Callable[[Any, Any], Any],
    init: Any,
    xs: Sequence[Tensor],
    spec: TreeSpec,
    dim: int,
    order: range,
) -> tuple[bool, Any, list[tuple[list[Any], TreeSpec]]]:
    """(True, the last carry, [the ys, stacked]) where scan became a node; else (False, the carry it came to, what the
    steps so far gave). `order`: the places along `dim`.
    """  # fmt: skip
    leaves, carried = flatten(init)
    if not all(isinstance(x, Tensor) for x in leaves):
        return False, init, []
    real, count = _real(recorder), len(leaves)
    real._place()
    moved = [_to_front(real.value_of(x), dim % x._l.ndim) for x in xs]
    loop = Loop(recorder, ("body",), leaves)
    loop.initial += moved
    given = loop.copies([*leaves, *(select(x, dim, order[0]) for x in xs)])
    body = Region(recorder, [step])
    with body:
        result = step(unflatten(carried, given[:count]), unflatten(spec, given[count:]))
        body.returned(result)
    carry_types = [v.type for v in loop.params[:count]]
    tensors = all(there for _, there in body.leaves)
    if not body.fits or not tensors or [v.type for v in body.results[:count]] != carry_types:
        body.flush()
        return False, result[0], [flatten(result[1])]
    shape, types = flatten(result[1])[1], [t._l.type for t in body.tensors]
    rows = [[t._a for t in body.tensors]]
    del result, given
    loop.began([body])
    for k in order[1:CHECKED]:
        placed = loop.placed([*rows[-1][:count], *_slices(xs, dim, k)])
        body = Region(recorder)
        with body:
            result = step(unflatten(carried, placed[:count]), unflatten(spec, placed[count:]))
            body.returned(result)
        rows.append([t._a for t in body.tensors])
        del result
        loop.ended([body])
    if real.refusal is None and len(order) > CHECKED:
        with loop.watched() as region:
            for k in order[CHECKED:]:
                carry = unflatten(carried, list(map(fresh, rows[-1][:count])))
                result = step(carry, unflatten(spec, list(map(fresh, _slices(xs, dim, k)))))
                region.returned(result)
                region.round()
                if region.spec != loop.first[0].spec or [t._l.type for t in region.tensors] != types:
                    region.note("another y")
                rows.append([t._a for t in region.tensors])
                if region.unfit:
                    break
    if real.refusal is not None:
        carry = unflatten(carried, list(map(fresh, rows[-1][:count])))
        return False, carry, [(list(map(fresh, row[count:])), shape) for row in rows]
    return True, *_stacked(loop, rows, count, (carried, shape), dim, len(xs), order.step < 0)


def _slices(xs: Sequence[Tensor], dim: int, k: int) -> list[Array]:
    return [np.array(np.moveaxis(x._a, dim, 0)[k], order="C") for x in xs]


def _stacked(
    loop: Loop,
    rows: list[list[Array]],
    count: int,
    specs: tuple[TreeSpec, TreeSpec],
    dim: int,
    scanned: int,
    reverse: bool,
) -> tuple[Any, list[tuple[list[Any], TreeSpec]]]:
    """The node of a scan: its last carry and the ys of all steps."""  # fmt: skip
    columns = list(zip(*(row[count:] for row in (rows[::-1] if reverse else rows)), strict=True))
    arrays = [*rows[-1][:count], *(np.stack(column) for column in columns)]
    made = loop.node("scan", {"carries": count, "scanned": scanned, "reverse": reverse}, arrays)
    ys = [ops.clone(movedim(y, 0, d)) if (d := dim % y._l.ndim) else y for y in made[count:]]
    return unflatten(specs[0], made[:count]), [(ys, specs[1])]


def _to_front(value: Value, dim: int) -> Value:
    order = (dim, *(d for d in range(value.type.ndim) if d != dim))
    moved: Value = op_named("permute")(value, dims=order) if dim else value
    return moved
