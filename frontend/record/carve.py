"""A stretch of a recording that becomes a graph of its own: the function of a branch, the body of a loop.

It is recorded like everything else, so that what does not fit stays where it is, as the statements that ran. It fits
when it did nothing but compute: no condition, no random number, no write to what was there before, nothing on the tape
that leaves it. Then its nodes are taken out again, and what they read from outside becomes what the graph is given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import reduce
from types import TracebackType
from typing import Any

import numpy as np

from graphc.compiler import frozen_attrs
from graphc.frontend.mode import mode, using
from graphc.frontend.record.ranges import in_range
from graphc.frontend.record.roots import drop_slot, slot_in
from graphc.frontend.record.trace import ValueGuard, same_bits
from graphc.frontend.record.tree import TreeSpec, flatten
from graphc.frontend.record.undo import changes, noting, unsafe
from graphc.frontend.record.where import here
from graphc.frontend.tensor import Tensor, alias_of
from graphc.ir.graph import Graph, Location, Node, Value
from graphc.ir.op import Attrs, Op, op_named
from graphc.ir.subgraph import MAX_NESTING, Subgraph
from graphc.ir.types import Dim, bool_

# what a function may not do that is to become a graph: the hooks of a recorder that hear of it
_UNFIT = (
    "on_random", "on_seed", "on_bool", "on_int", "on_failure", "on_escape", "on_show", "on_text",
    "on_grad_read", "on_grad_write", "on_metadata", "on_ambient", "on_attribute", "on_setting", "on_new_module",
    "on_size",
)  # fmt: skip
# lists of a recorder that grow with what does not fit
_LISTS = ("value_guards", "ranges", "hosts", "counted")


class Unfit(BaseException):
    """Ends a trial. No Exception: the user's handlers are not meant."""


class Watch:
    """The recorder inside a region: tells the region what does not fit, and the recorder outside everything."""

    def __init__(self, region: Region, outer: Any) -> None:
        self.region = region
        self.outer = outer
        self.real = region.real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.outer, name)

    def on_op(self, op: Op, operands: tuple[Tensor, ...], attrs: Attrs, outputs: tuple[Tensor, ...]) -> None:
        """What requires gradients does not fit."""
        if mode.get().grad and any(t.requires_grad for t in operands):
            self.region.note("gradients")
        self.region.ran(op, operands, attrs)
        self.outer.on_op(op, operands, attrs, outputs)

    def on_item(self, tensor: Tensor, number: bool | int | float) -> Any:
        """A number is followed where it is recorded; elsewhere it is a constant, another one in every round."""
        if self.real._paused:
            self.region.expected = None
        return self.outer.on_item(tensor, number)

    def on_range(self, index: Tensor, low: float | None, high: float | Dim, ignored: int | None = None) -> None:
        """Places must be in range whenever the graph runs: it says so itself."""
        if self.region.unfit:
            self.outer.on_range(index, low, high, ignored)
        elif not self.real._paused:
            with self.region.unseen():
                flag = in_range(self.real, index, low, high, ignored)
            if flag is not None:
                self.region.checks.append((flag, here()))

    def on_write(self, target: Tensor, value: Tensor) -> None:
        """A write to what was there before does not fit."""
        slot = slot_in(target._s, self.real)
        if slot is None or not slot.roots or any(r.value.node not in self.region.nodes() for r in slot.roots):
            self.region.note("a write")
        self.outer.on_write(target, value)


def _telling(name: str) -> Callable[..., Any]:
    def hook(self: Watch, *args: Any) -> Any:
        self.region.note(name)
        return getattr(self.outer, name)(*args)

    return hook


for _name in _UNFIT:
    setattr(Watch, _name, _telling(_name))


class Region:
    """Use as a context manager around the call of a function of the user's. `functions`: it and those around it, whose
    variables it may change. With `trial`, the call is undone: nothing of it may last, and what does not fit ends it.
    """

    def __init__(self, recorder: Any, functions: Sequence[Any] = (), trial: bool = False) -> None:
        self.recorder = recorder
        self.real = getattr(recorder, "real", recorder)
        self.trial = trial
        self.depth: int = 1 + getattr(getattr(recorder, "region", None), "depth", 0)
        self.unfit = "" if self.depth <= MAX_NESTING else "nested too deep"
        self.results: list[Value] = []
        self.checks: list[tuple[Value, Location]] = []  # what must hold whenever the graph runs
        self.tensors: list[Tensor] = []
        self.leaves: list[tuple[Any, bool]] = []  # what was returned: (None, True) for a tensor
        self.spec: TreeSpec | None = None
        self.captures: list[Value] = []
        self.ended = False
        self.ops: list[Any] = []  # what ran
        self.expected: list[Any] | None = None  # what every round is to run, where nothing is recorded
        self.at = 0
        self._unseen = False
        self._local = noting(self.real.watcher, functions)
        if functions:
            self.unfit = self.unfit or unsafe(self._local, self.real.watcher)
        self._kept: list[Node] = []
        self._nodes: dict[Node, None] = {}

    def __enter__(self) -> Region:
        real = self.real
        self.start = len(real.graph.nodes)
        self._before = self._counts()
        self._lasting = len(real.constants), len(real.texts._pending), len(real.made)
        self._strict = real.strict
        self._watching = ExitStack()
        self._changes = [self._watching.enter_context(changes(self._local, self.trial))]
        if self.trial:
            real.strict = True  # a refusal is no more than a reason not to fit
            self._changes.append(self._watching.enter_context(changes(real.watcher, True)))
        self._using = using(recorder=Watch(self, self.recorder))
        self._using.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        after = mode.get().grad
        self._using.__exit__(None, None, None)
        if after is not mode.get().grad:
            self.unfit = self.unfit or "a gradient mode that stays"
            if not self.trial:
                mode.set(replace(mode.get(), grad=after))
        fits = self.fits
        self.nodes()
        self.ended = True
        forget(self.real, self._nodes)
        self._watching.close()
        self.real.strict = self._strict
        if any(c.found for c in self._changes):
            self.unfit = self.unfit or "an effect on Python"
        if kind is None:
            if fits and self.fits and self._held():
                self.unfit = "a value that is kept"
            if self.unfit:
                self.flush()
            return False
        self.unfit = self.unfit or kind.__name__
        self.flush()
        return self.trial and issubclass(kind, (Exception, Unfit))

    def note(self, what: str) -> None:
        """Something does not fit."""
        self.unfit = self.unfit or f"{what} at {here()}"
        self.flush()
        if self.trial:
            raise Unfit

    def flush(self) -> None:
        """It does not fit: what must hold is a condition of the recording, or of the region around."""
        if not self.trial:
            for flag, where in self.checks:
                require(self.recorder, flag, where)
        self.checks = []

    def ran(self, op: Op, operands: tuple[Tensor, ...], attrs: Attrs) -> None:
        """An operation ran. In rounds that are not recorded it must be the one that ran in those that were."""
        if self._unseen:
            return
        key = (op, [t._s.constant for t in operands], None if self.real.sizes else frozen_attrs(attrs))
        if self.expected is None:
            self.ops.append(key)
        elif self.at >= len(self.expected) or self.expected[self.at] != key:
            self.note("other operations")
        self.at += 1

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Around operations that are not the user's."""
        self._unseen = True
        try:
            yield
        finally:
            self._unseen = False

    def round(self) -> None:
        """A round ended that was not recorded."""
        if self.expected is not None and self.at != len(self.expected):
            self.note("fewer operations")
        self.at = 0

    def nodes(self) -> dict[Node, None]:
        """The nodes recorded in the region so far."""
        if not self.ended:
            found = self.real.graph.nodes
            for k in range(self.start + len(self._nodes), len(found)):
                self._nodes[found[k]] = None
        return self._nodes

    def _counts(self) -> list[int]:
        real, watcher = self.real, self.real.watcher
        return [len(getattr(real, name)) for name in _LISTS] + [
            real.randoms, len(real.grads), len(real.settings), len(watcher.prints), len(watcher.writes),
        ]  # fmt: skip

    def _held(self) -> bool:
        """Whether Python holds something made in the region besides what was returned."""
        views = [t._gbase for t in self.tensors if t._gbase is not None]
        allowed = {id(t): t for t in (*self.tensors, *views)}
        inside = [ref() for ref, _ in self.real.made[self._lasting[2] :]]
        if any(x is not None and id(x) not in allowed for x in inside):
            return True
        bases = [sum(t is base for base in views) for t in self.tensors]
        del views, allowed, inside
        counts = [sum(t is u for u in self.tensors) for t in self.tensors]
        for k in range(len(self.tensors)):
            t = self.tensors[k]
            # a count for what was returned, one for the list of its tensors; here: the name, the argument
            if self._made_here(t) and sys.getrefcount(t) > 2 * counts[k] + bases[k] + 2:
                return True
        return False

    def _made_here(self, t: Tensor) -> bool:
        slot = slot_in(t._s, self.real)
        return slot is not None and any(r.value.node in self._nodes for r in slot.roots)

    def tested(self, pred: Any) -> None:
        """Note what a test returned; call it inside the region."""
        if not isinstance(pred, Tensor) or pred.dtype is not bool_ or pred._l.size != 1:
            self.unfit = self.unfit or "a test that is no tensor"
            return
        self.tensors = [pred]
        if self.fits and not self.real._paused:
            with self.unseen():
                self.results = [flag_of(self.real, pred)]

    def returned(self, result: Any) -> None:
        """Note what the function returned; call it inside the region."""
        leaves, self.spec = flatten(result)
        self.tensors = [x for x in leaves if isinstance(x, Tensor)]
        self.leaves = [(None, True) if isinstance(x, Tensor) else (x, False) for x in leaves]
        if mode.get().grad and any(t.requires_grad for t in self.tensors):
            self.unfit = self.unfit or "gradients"
        elif not all(x is None or type(x) in (bool, int, float, str) for x, _ in self.leaves):
            self.unfit = self.unfit or "a result that is no tensor"
        elif self.fits and not self.real._paused:
            self.results = [self.real.value_of(t) for t in self.tensors]

    @property
    def fits(self) -> bool:
        """Whether it can become a graph."""
        if not self.unfit and not self.ended and (self.real.refusal is not None or self._counts() != self._before):
            self.unfit = "a condition, or an effect"
        return not self.unfit

    def like(self, other: Region) -> bool:
        """Whether two regions return the same, as far as types tell."""
        same = self.spec == other.spec and same_bits(self.leaves, other.leaves)
        return same and [v.type for v in self.results] == [v.type for v in other.results]

    def close(self, params: Sequence[Value] = ()) -> None:
        """Take the nodes out of the recording, and keep those that the results need. `params`: values from outside that
        another call may have otherwise.
        """
        nodes = self.nodes()
        ends = [*self.results, *(flag for flag, _ in self.checks)]
        needed = dict.fromkeys(ends)
        for node in reversed(nodes):
            if any(v in needed for v in node.outputs) and node.op.name != "constant":
                needed.update(dict.fromkeys(node.inputs))
                self._kept.append(node)
        self._kept.reverse()
        given = dict.fromkeys(params)
        read = dict.fromkeys(v for v in [*(v for n in self._kept for v in n.inputs), *ends])
        self.captures = [v for v in read if v not in given and v.node not in nodes and not _constant(v)]
        real = self.real
        for name, count in zip(_LISTS, self._before, strict=False):
            del getattr(real, name)[count:]
        constants, texts, made = self._lasting
        if self.unfit:
            del real.constants[constants:]
        if self.trial:
            del real.texts._pending[texts:]
        del real.made[made:]
        cut(real, self.start, nodes)

    def graph(self, name: str, inputs: Sequence[Value], before: Value | None = None, checked: bool = False) -> Subgraph:
        """What was taken out, as a graph of these values; constants stand where they are read first. With `checked`
        the last result says whether all that must hold does, and `before` did; else results are `before` with `before`.
        """
        out = Graph(name)
        mapping = {v: out.add_input(v.type, f"x{k}") for k, v in enumerate(inputs)}
        for node in self._kept:
            with out.like(node):
                operands = [_inside(out, v, mapping) for v in node.inputs]
                made = out.add(node.op, operands, node.attrs)
            mapping.update(zip(node.outputs, made, strict=True))
        results = [_inside(out, v, mapping) for v in self.results]
        if checked:
            flags = [_inside(out, v, mapping) for v in (before, *(flag for flag, _ in self.checks)) if v is not None]
            results.append(reduce(op_named("bitwise_and"), flags) if flags else out.constant(np.asarray(True)))
        elif before is not None:
            results = [op_named("bitwise_and")(v, mapping[before]) for v in results]
        for k, v in enumerate(results):
            out.add_output(v, f"y{k}")
        return Subgraph(out)


def _inside(out: Graph, value: Value, mapping: dict[Value, Value]) -> Value:
    """The value in the graph being made; a constant is repeated there."""
    if value not in mapping and value.node is not None:
        mapping[value] = out.add(value.node.op, (), value.node.attrs)[0]
    return mapping[value]


def require(recorder: Any, flag: Value, where: Location) -> None:
    """`flag` must be true in every call."""
    region = getattr(recorder, "region", None)
    if region is None:
        recorder.value_guards.append(ValueGuard(flag, True, where))
    elif region.unfit:
        require(recorder.outer, flag, where)
    else:
        region.checks.append((flag, where))


def flag_of(real: Any, pred: Tensor) -> Value:
    """The 0-d value of a tensor with one bool element."""
    with using(grad=False):
        value: Value = real.value_of(alias_of(pred).reshape(()) if pred._l.ndim else pred)
    return value


def forget(real: Any, nodes: dict[Node, None]) -> None:
    """Views seen in a region are recorded again outside."""
    for ref in real._noted:
        x = ref()
        memo = x._memo if isinstance(x, Tensor) else None
        if memo is not None and memo[0] is real and memo[2].node in nodes:
            x._memo = None


def cut(real: Any, start: int, nodes: dict[Node, None]) -> None:
    """Take `nodes`, those from number `start` on, out of a recording, and forget the tensors they made."""
    del real.graph.nodes[start:]
    kept = []
    for ref in real._noted:
        x = ref()
        if isinstance(x, Tensor):
            memo = x._memo
            if memo is not None and memo[0] is real and (memo[2].node in nodes or memo[1].node in nodes):
                x._memo = None
            else:
                kept.append(ref)
        elif x is not None and (slot := slot_in(x, real)) is not None:
            slot.roots = [r for r in slot.roots if r.value.node not in nodes]
            if slot.roots:
                kept.append(ref)
            else:
                drop_slot(x, real)
    real._noted[:] = kept


def _constant(value: Value) -> bool:
    return value.node is not None and value.node.op.name == "constant"
