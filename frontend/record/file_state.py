"""What of attributes and gradients is state of a file.

Later calls of the function see what a call leaves behind. A file has no Python to hold it, so what the call reads of it
before writing it is an input of the graph, and what it becomes is an output: the state. A `.grad` that the call forgets
before reading it is no state, since no later call depends on it. Arguments come anew at every call, and so do their
gradients: they go in and out with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import RecordingError
from graphc.frontend.record.paths import PathTable
from graphc.frontend.record.reach import Reach
from graphc.frontend.record.recorder import Recorder
from graphc.frontend.record.signature import Gradient
from graphc.frontend.record.trace import Effect, Source
from graphc.frontend.tensor import Tensor
from graphc.ir.graph import Input, Location, Value

_AGAIN = "call the function once before trace(), or forget the gradient before that line"


class FileState:
    """Adds to the outputs and effects of a Finisher. `begin` are gradients that have to be there before the call."""

    def __init__(
        self,
        recorder: Recorder,
        reach: Reach,
        leaves: Sequence[Any],
        outputs: list[tuple[Value, str, str]],
        effects: list[Effect],
    ) -> None:
        self.recorder = recorder
        self.reach = reach
        self.table: PathTable = reach.table
        self.leaves = leaves
        self.outputs = outputs
        self.effects = effects
        self.given: list[Gradient] = []
        self.begin: list[tuple[Tensor, Tensor]] = []  # leaf, a gradient that is like it
        # what was bound anew, to which tensor, which it was before, line
        self._placed: list[tuple[str, Tensor, Tensor | None, Location]] = []

    # ---- attributes

    def attributes(
        self, written: Sequence[tuple[Tensor, tuple[Any, str], Location]], step_of: Callable[[Any], int | None]
    ) -> None:
        """A tensor attribute that is rebound is state with a new value."""
        for new, (owner, name), loc in written:
            step, value = step_of(owner), self.recorder.value_of(new)
            number = self._number(self.recorder.rebound.first_value(owner, name))
            if step is None:
                continue
            if number is None or self.recorder.graph.inputs[number].value.type is not value.type:
                raise RecordingError(
                    f"the attribute {name!r} of {type(owner).__name__} is written at {loc} without being read; a file "
                    "has no place for it: return it instead"
                )
            self._placed.append((f"the attribute {name!r} of {type(owner).__name__}", new, self._old(number), loc))
            self._new_state(number, value, loc)

    def _old(self, number: int) -> Tensor | None:
        return self.recorder.sources[number].tensor

    def _number(self, t: Tensor | None) -> int | None:
        """The graph input that `t`, which was outside before the call, is."""
        sources = enumerate(self.recorder.sources)
        return (
            None if t is None else next((n for n, s in sources if s.tensor is t and s.kind in ("path", "grad")), None)
        )

    def _new_state(self, number: int, value: Value, loc: Location) -> None:
        """Graph input `number` of a file becomes `value`."""
        self.recorder.mark_state(number)
        source = self.recorder.sources[number]
        kept = (value, "state", source.name)
        written = [n for n, (_, kind, name) in enumerate(self.outputs) if (kind, name) == kept[1:]]
        if written:  # written in place before: the tensor it became counts
            self.outputs[written[0]] = kept
            return
        self.outputs.append(kept)
        self.effects.append(Effect("state", number, len(self.outputs) - 1, source.name, loc))

    def refuse_shared(self) -> None:
        """Raise RecordingError where one tensor would be found in two places by the next call: in a file each place has
        an array of its own.
        """
        left = {id(old) for _, _, old, _ in self._placed}  # (tensors hold them)
        kept = [s for s in self.recorder.sources if s.kind in ("arg", "path", "grad") and id(s.tensor) not in left]
        for k, (what, new, old, loc) in enumerate(self._placed):
            if old is not None and id(old) in self.reach.shared:
                raise RecordingError(
                    f"{what} is replaced at {loc}, and what it was is found on another way, too: in a file both are "
                    "one; pass a clone() there"
                )
            self.recorder.value_of(new)
            others = [name for j, (name, x, _, _) in enumerate(self._placed) if j != k and x._s is new._s]
            others += [_name(s) for s in kept if s.tensor is not None and s.tensor._s is new._s]
            if others:
                raise RecordingError(
                    f"{what} becomes a tensor at {loc} that shares memory with {others[0]}: a file would have an array "
                    "for each of them; clone() it"
                )

    # ---- gradients

    def separate(self) -> None:
        """Gradients that arguments had are inputs that come with the arguments, no state."""
        for number, source in enumerate(self.recorder.sources):
            step = self.table.steps[source.number] if source.kind == "path" else None
            if step is None or step.kind != "grad" or self.table.steps[step.parent].kind != "arg":
                continue
            if id(source.tensor) in self.reach.shared:
                raise RecordingError(
                    f"{source.name} is read at {source.loc} and is found on another way, too: in a file it comes with "
                    "the argument; clone() it"
                )
            source.kind = "grad"
            old = self.recorder.graph.inputs[number]
            self.recorder.graph.inputs[number] = Input(old.value, "input", old.name)

    def gradients(self) -> None:
        """What becomes of every `.grad` that the call looked at or replaced."""
        recorder = self.recorder
        found = {key: (leaf, loc) for key, (leaf, _, loc) in (recorder.grads | recorder.grad_reads).items()}
        arguments = {id(s.tensor): s for s in recorder.sources if s.kind == "arg"}
        for key, (leaf, loc) in found.items():
            if key in arguments:
                self._given(leaf, arguments[key].name, arguments[key].number, loc)
            else:
                self._kept(leaf)

    def _ends(self, leaf: Tensor) -> tuple[Tensor | None, Tensor | None, Location | None]:
        """`.grad` before the call and after it; the line where it was replaced."""
        if id(leaf) not in self.recorder.grads:
            return leaf._grad, leaf._grad, None
        _, new, loc = self.recorder.grads[id(leaf)]
        return self.recorder.old_grads[id(leaf)][1], new, loc

    def _kept(self, leaf: Tensor) -> None:
        """The gradient of a tensor that the function reaches by itself."""
        old, new, loc = self._ends(leaf)
        read = self.recorder.grad_reads.get(id(leaf))
        if read is None:
            return
        sums = id(leaf) in self.recorder.grad_sums
        if old is None and new is not None and sums:
            self.begin.append((leaf, new))
        elif (old is None) != (new is None) or (id(leaf) in self.recorder.grad_begun and not sums):
            before, after = ("None", "a tensor") if old is None else ("a tensor", "None")
            way = _AGAIN if old is None else "set it to None before trace()"
            raise RecordingError(
                f".grad is {before} at {read[2]}, and {after} after the call: the next call goes another way, which a "
                f"file cannot; {way}"
            )
        number = self._number(old)
        if number is not None and new is not old:
            assert new is not None and loc is not None
            self._placed.append((".grad", new, old, loc))
            self._new_state(number, self.recorder.value_of(new), loc)

    def _given(self, leaf: Tensor, name: str, place: int, loc: Location) -> None:
        """The gradient of an argument."""
        old, new, written = self._ends(leaf)
        read = self.recorder.grad_reads.get(id(leaf))
        if leaf is not self.leaves[place]:  # a copy stands for what was given twice
            raise RecordingError(
                f"the .grad of {name} is used at {loc}, and another argument is the same tensor: in a file they are "
                "two; give trace() a clone()"
            )
        sums = id(leaf) in self.recorder.grad_sums
        if old is None and new is not None and sums:
            self.begin.append((leaf, new))
        number = self._number(old)
        before = "any" if read is None or sums else "none" if read[1] else "tensor"
        how, output = "keep", -1
        if new is not old:
            how = "bind" if new is not None else "drop"
        elif new is None and written is not None:
            how = "drop"
        elif number is not None and self.recorder.source_roots[number].written is not None:
            how = "write"
        if new is not None and how != "keep":
            if written is not None:
                self._placed.append((f"{name}.grad", new, old, written))
            self.outputs.append((self.recorder.value_of(new), "output", f"{name}.grad"))
            output = len(self.outputs) - 1
        source = "" if number is None else self.recorder.sources[number].name
        if source or how != "keep" or before != "any":
            self.given.append(Gradient(name, source, output, how, before, str(loc if read is None else read[2])))


def _name(source: Source) -> str:
    """What a graph input is called; only what a path leads to has a name."""
    return "a tensor from outside" if source.kind == "path" and source.number < 0 else source.name
