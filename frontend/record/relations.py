"""Tensors on access paths that belong together: one object on two paths, or views of one memory.

A recording knows values by their memory. So a tensor found on a path that is an argument, too, or a view of one, or of
a state, has no graph input of its own: its value follows from theirs. That is true of a later call only if they still
belong together. And tensors that were apart (each with an input of its own) must not become one object: a `.grad` would
get both gradients, `is` would give another answer.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

from graphc.errors import RecordingError
from graphc.frontend.record.guards import described
from graphc.frontend.record.reach import Reach
from graphc.frontend.record.roots import Root, slot_in, starts_with
from graphc.frontend.record.trace import Guard
from graphc.frontend.record.where import remembered
from graphc.frontend.tensor import Chain, Tensor
from graphc.ir.types import Layout

Place = tuple[Tensor, int]  # a tensor and a path step that leads to it


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A tensor that is a view of another's memory, or over the same: how each looks at it."""

    layout: Layout
    chain: Chain
    other: Chain
    needs: bool
    hooked: bool

    def fits(self, t: Any, other: Any) -> bool:
        """True when `t` and `other` still look at one memory in this way."""
        return (
            isinstance(t, Tensor)
            and isinstance(other, Tensor)
            and t._s is other._s
            and t._l is self.layout
            and same_chain(t._chain, self.chain)
            and same_chain(other._chain, self.other)
            and t.requires_grad is self.needs
            and bool(t._hooks) is self.hooked
        )


@dataclass(frozen=True, slots=True, eq=False)
class Relation:
    """The tensor at path step `step` is that at step `other`, or (`view`) has its memory; it is `tensor`, if given."""

    step: int
    other: int
    view: View | None = None
    tensor: Tensor | None = None

    def holds(self, values: Sequence[Any]) -> bool:
        """True when the tensors found at the steps belong together as they did while recording."""
        found, other = values[self.step], values[self.other]
        if self.view is None:
            return found is other
        return (self.tensor is None or found is self.tensor) and self.view.fits(found, other)


def same_chain(a: Chain, b: Chain) -> bool:
    """True for equal chains of views."""
    return a is b or (len(a) == len(b) and starts_with(a, b))


class Relations:
    """What a recording found of tensors that belong together.

    `guards` and `relations` are conditions; `distinct` are the path steps of tensors that no argument may be.
    """

    def __init__(
        self,
        recorder: Any,
        reach: Reach,
        leaves: Sequence[Any],
        names: Sequence[str],
        loose: Callable[[Tensor, int], bool],
    ) -> None:
        self.recorder = recorder
        self.table = reach.table
        self.guards: list[Guard] = []
        self.relations: list[Relation] = []
        self._loose = loose  # another tensor may be at this path by now
        self._steps = {k: self.table.arg(k, names[k]) for k, x in enumerate(leaves) if isinstance(x, Tensor)}
        self._given = {id(leaves[k]): step for k, step in reversed(self._steps.items())}
        self._sources = {id(s.tensor): s for s in recorder.sources if s.kind == "path"}
        self._unused: list[Place] = []
        for t, step in self._places(reach):
            self._relate(t, step)
        self._described(reach)
        self.distinct = [s.number for s in self._sources.values()]
        self.distinct += [r.step for r in self.relations if r.view is not None]
        if any(map(compares, reach.codes)):
            self._identities(reach)

    def _places(self, reach: Reach) -> list[Place]:
        """Tensors with the paths they had before the call."""
        recorder, arguments = self.recorder, set(self._steps.values())
        new = {id(grad) for _, grad, _ in recorder.grads.values()} - {id(g) for _, g in recorder.old_grads.values()}
        places = [*reach.tensors.values(), *reach.again]
        kinds = [self.table.steps[step].kind for _, step in places]
        return [
            (t, step)
            for (t, step), kind in zip(places, kinds, strict=True)
            if step not in arguments and (id(t) not in new or kind != "grad")
        ]

    def _relate(self, t: Tensor, step: int) -> None:
        source = self._sources.get(id(t))
        if id(t) in self._given:
            self.relations.append(Relation(step, self._given[id(t)]))
        elif source is not None:
            if step != source.number:
                self.guards.append(Guard("is", step, t))
        else:
            root = _root(self.recorder, t)
            if root is None:
                self._unused.append((t, step))
            else:
                self._view(t, step, root)

    def _view(self, t: Tensor, step: int, root: Root) -> None:
        """`t` has no input of its own: its value follows from that of `root`."""
        source, base = root.source, root.tensor
        assert source is not None and base is not None
        if source.kind == "path":
            source.loose = False  # a view of another tensor would not be this one
        other = self._steps[source.number] if source.kind == "arg" else source.number
        view = View(t._l, t._chain, base._chain, t.requires_grad, bool(t._hooks))
        self.relations.append(Relation(step, other, view, None if self._loose(t, step) else t))

    def _described(self, reach: Reach) -> None:
        """Python may have read the shape or dtype of tensors that the graph never sees."""
        read = {id(leaf._grad) for leaf, _, _ in self.recorder.grad_reads.values()}
        for t, step in self._unused:
            if reach.table.steps[step].kind != "grad" or id(t) in read:
                self.guards.append(Guard("tensor", step, described(t)))

    def _identities(self, reach: Reach) -> None:
        """Python may have compared tensors that the graph never sees."""
        for t, step in self._unused:
            if not (self._loose(t, step) or step in reach.optimizers.states):
                self.guards.append(Guard("is", step, t))
                self.distinct.append(step)

    def refuse_shared_arguments(self) -> None:
        """Arguments and state of a file are apart. Raises RecordingError where they share memory."""
        arguments = set(self._steps.values())
        for r in self.relations:
            if r.other in arguments:
                raise RecordingError(
                    f"the argument {self.table.names[r.other]} shares memory with {self.table.names[r.step]}, which "
                    "the function can read: a file would have one input for both; pass a clone()"
                )


def _root(recorder: Any, t: Tensor) -> Root | None:
    """The graph input whose value that of `t` follows from."""
    slot = slot_in(t._s, recorder)
    found: Root | None = None
    for root in () if slot is None else slot.roots:
        if starts_with(t._chain, root.chain) and (found is None or len(root.chain) > len(found.chain)):
            found = root
    return found if found is not None and found.source is not None else None


# ---- code that looks at identity

_ASKED = frozenset({"id", "index", "count", "remove"})


@remembered
def compares(code: CodeType) -> bool:
    """True for code that may tell tensors apart by identity: `is` (but not with a constant), `in`, `id()`."""
    if not _ASKED.isdisjoint(code.co_names):
        return True
    before = ""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "CONTAINS_OP" or (instruction.opname == "IS_OP" and before != "LOAD_CONST"):
            return True
        before = instruction.opname
    return False
