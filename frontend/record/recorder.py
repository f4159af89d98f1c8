"""The recorder: real values run, and every operation call leaves a node.

There is no proxy for tensors and nothing is rewritten. Each storage met gets a slot that says which graph value its
root now holds; views are replayed from there, writes go back to the root as scatters. What the recorder does not know
it refuses.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from graphc.errors import GraphcError, RecordingError, ShapeError
from graphc.frontend import autograd
from graphc.frontend.dispatch import has_dim
from graphc.frontend.mode import using
from graphc.frontend.record import rng
from graphc.frontend.record.attributes import Rebindings
from graphc.frontend.record.counted import CountedSizes, forget_names
from graphc.frontend.record.grads import GradPlaces
from graphc.frontend.record.phases import Phases
from graphc.frontend.record.ranges import in_range
from graphc.frontend.record.roots import Root, Slot, drop_slot, make_slot, slot_in, starts_with
from graphc.frontend.record.texts import Texts
from graphc.frontend.record.trace import HostCall, RangeGuard, Source, ValueGuard
from graphc.frontend.record.where import here
from graphc.frontend.scalar import Scalar, holds_scalar
from graphc.frontend.tensor import Tensor, alias_of, fresh
from graphc.ir.graph import Graph, Input, Location, Value
from graphc.ir.op import Attrs, Op, op_named
from graphc.ir.types import Dim, TensorType, float64, int64

F = TypeVar("F", bound=Callable[..., Any])


def _hook(method: F) -> F:
    """A hook of the recorder: silent while paused or after a refusal; a refusal inside ends the recording, and raises
    only when strict.
    """

    @functools.wraps(method)
    def wrapper(self: Recorder, *args: Any) -> Any:
        if self._paused or self.finished or self.refusal is not None:
            return None
        try:
            return method(self, *args)
        except RecordingError as error:
            self.refuse(error)
            return None
        except GraphcError as error:
            if not self.counted:
                raise
            self.refuse(
                RecordingError(
                    f"sizes that depend on values meet others at {here()} ({error}); pad to one size with where() "
                    "instead"
                )
            )
            return None

    return wrapper  # type: ignore[return-value]


class Recorder(rng.Replays, Phases, CountedSizes, GradPlaces):
    """Builds a Graph while eager code runs. Implements frontend.mode.RecorderHooks.

    `on_lift(tensor)` is called before a tensor from outside is used for the first time (`trace` copies its content
    there, to restore it).
    """

    def __init__(
        self,
        name: str,
        sizes: Mapping[str, int] | None = None,
        on_lift: Callable[[Tensor], None] | None = None,
        strict: bool = False,
    ) -> None:
        self.graph = Graph(name)
        self.strict = strict
        self.alone = False  # the graph will run without us, from a file: what must hold is computed by the graph itself
        self.sizes = dict(sizes or {})
        CountedSizes.__init__(self)
        GradPlaces.__init__(self)
        self.on_lift = on_lift
        self.sources: list[Source] = []
        self.source_roots: list[Root] = []
        self.source_edges: list[autograd.Edge | None] = []  # where gradients of the sources went before the call
        self.value_guards: list[ValueGuard] = []
        self.ranges: list[RangeGuard] = []
        self.constants: list[tuple[str, str]] = []
        self.texts = Texts()
        self.rebound = Rebindings()
        # holds the optimiser
        self.settings: dict[tuple[int, int, str | tuple[str, int]], tuple[Any, Tensor, int]] = {}
        self.hosts: list[HostCall] = []
        self.frozen: list[Any] = []  # storages of constants that Python may look at
        self.watcher: Any = None
        self.made: list[tuple[weakref.ref[Any], Location]] = []
        self.tape: weakref.WeakKeyDictionary[Any, tuple[tuple[Value, ...], tuple[Value, ...]]] = (
            weakref.WeakKeyDictionary()
        )
        self.first_ticket = autograd.ticket()
        self.exact: Location | None = None  # a line that compares type(), or a number by `is`: none is followed
        self.refusal: RecordingError | None = None
        self.finished = False
        self.randoms = 0
        self.seed: int | None = None
        self._random_state: Tensor | None = None
        self._noted: list[weakref.ref[Any]] = []  # storages with a slot and tensors with a memo
        self._paused = 0
        self._modules: list[tuple[Any, str]] = []

    lockstep = None  # values are real while recording

    def refuse(self, error: RecordingError) -> None:
        """End the recording; the function goes on eagerly, unless `strict`: then raise at the user's line."""
        if self.strict:
            raise error
        self.refusal = error.with_traceback(None)  # its frames hold tensors
        self.advance_random()

    def advance_random(self) -> None:
        """The generator moves on as if the calls had run without a recorder."""
        if self.randoms or self.seed is not None:
            rng.advance(self.randoms, self.seed)
        self._random_state = None

    # ---- values

    def add_source(self, kind: str, number: int, name: str, tensor: Tensor, type: TensorType | None = None) -> Source:
        """Make `tensor` a graph input."""
        value = self.graph.add_input(
            type or tensor._l.type, name, "input" if kind in ("arg", "float", "int", "size") else "state"
        )
        source = Source(kind, number, name, tensor._l, tensor, here(), tensor.requires_grad, bool(tensor._hooks))
        source.named = type
        root = Root(tensor._chain, value, source, tensor)
        self.sources.append(source)
        self.source_roots.append(root)
        self.source_edges.append(autograd.edge_of(tensor))
        self._slot(tensor).roots.append(root)
        return source

    def recording(self) -> bool:
        """True while what happens goes into the graph."""
        return not self._paused and not self.finished and self.refusal is None

    def _slot(self, t: Tensor) -> Slot:
        slot = slot_in(t._s, self)
        if slot is None:
            slot = make_slot(t._s, self)
            self._noted.append(weakref.ref(t._s))
        return slot

    def value_of(self, t: Tensor) -> Value:
        """The graph value `t` holds now; lifts a tensor from outside."""
        root = self._root_of(t)
        memo = t._memo
        if memo is not None and memo[0] is self and memo[1] is root.value:
            found: Value = memo[2]
            return found
        value = root.value
        links = t._chain[len(root.chain) :]
        if links:
            self._place()
        for op, attrs in links:
            value = op(value, **attrs)
        if memo is None:
            self._noted.append(weakref.ref(t))
        t._memo = (self, root.value, value)
        return value

    def _root_of(self, t: Tensor) -> Root:
        slot = self._slot(t)
        best = None
        for root in slot.roots:
            n = len(root.chain)
            if (best is None or n > len(best.chain)) and starts_with(t._chain, root.chain):
                best = root
        return best if best is not None else self._lift(t, slot)

    def _lift(self, t: Tensor, slot: Slot) -> Root:
        if t._s.constant:
            return self._constant(t, slot)
        written = next((r for r in slot.roots if r.written is not None), None)
        if written is not None:
            raise RecordingError(
                f"a tensor read at {here()} shares memory with one written at {written.written}; pass one of them as "
                "an argument or clone() it"
            )
        if self.on_lift is not None:
            self.on_lift(t)
        self.add_source("path", -1, f"state{len(self.sources)}", t, self.grad_types.get(id(t)))
        return slot.roots[-1]

    def _constant(self, t: Tensor, slot: Slot) -> Root:
        self._place()
        root = Root((), self.graph.constant(t._a), None, None)
        slot.roots.append(root)
        if t._a.ndim == 0:
            self.constants.append((str(self.graph.loc), repr(t._s.constant[0] if t._s.constant else t._a.item())))
        return root

    def _place(self) -> None:
        self.graph.loc = here()
        self.graph.module = self.module_path

    # ---- hooks

    @_hook
    def _note_op(self, op: Op, operands: tuple[Tensor, ...], attrs: Attrs, outputs: tuple[Tensor, ...]) -> None:
        """Append the node; its outputs become roots of their new storages."""
        if op.scatter is not None and outputs[0]._s is operands[0]._s:
            self.value_of(operands[0])  # lift what is viewed, not the view
            self.value_of(outputs[0])
            self._made(outputs[0])
            return
        values = [self.value_of(t) for t in operands]
        self._place()
        made = self.graph.add(op, values, attrs, self._known_types(values, operands, outputs))
        for t, value in zip(outputs, made, strict=True):
            if value.type.bind(self.sizes) is not t._l.type:
                raise RecordingError(
                    f"{op.name} at {self.graph.loc} gave {t._l.type}, but {value.type} with named sizes {self.sizes}"
                )
            self._slot(t).roots.append(Root((), value, None, None))
            self._made(t)

    def _known_types(
        self, values: list[Value], operands: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
    ) -> list[TensorType] | None:
        """The types of the outputs in the graph: where it has the very types of the operands, those found for them."""
        if self.sizes or self.counted:
            return None
        for value, t in zip(values, operands, strict=True):
            if value.type is not t._l.type:
                return None
        return [t._l.type for t in outputs]

    def _made(self, x: Any) -> None:
        self.made.append((weakref.ref(x), self.graph.loc or Location()))

    @_hook
    def _note_tape(self, edge: autograd.Edge, operands: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        """Note the values of a tape node's operands and outputs."""
        node: Any = edge[0]
        if node.saved_out or any(s is not None for s in node.saved_in):
            self.tape[node] = tuple(map(self.value_of, operands)), tuple(map(self.value_of, outputs))

    @_hook
    def on_write(self, target: Tensor, value: Tensor) -> None:
        """Replay the write on the graph: scatter `value` back to the root."""
        new = self.value_of(value)
        root = self._root_of(target)
        others = [r for r in self._slot(target).roots if r is not root and r.source is not None]
        if others:
            other = others[0].source.name if others[0].source is not None else ""
            raise RecordingError(
                f"the write at {here()} changes memory that another input or state ({other}) shares; clone() one of "
                "them"
            )
        if root.source is not None and root.source.layout.overlaps():
            raise RecordingError(
                f"the write at {here()} changes more than one element of {root.source.name}, which share their memory; "
                "clone() it"
            )
        self._place()
        levels = [root.value]
        links = target._chain[len(root.chain) :]
        for op, attrs in links[:-1]:
            levels.append(op(levels[-1], **attrs))
        for (op, attrs), level in zip(reversed(links), reversed(levels), strict=False):
            if op.scatter is None:
                raise RecordingError(f"the write at {here()} goes through {op.name}, which cannot be written through")
            try:
                new = op.scatter(level, new, **attrs)
            except ShapeError as error:  # the elements of this view are apart, those of one on its way are not
                raise RecordingError(f"the write at {here()} goes through overlapping views: {error}") from None
        root.value = new
        root.written = self.graph.loc

    @_hook
    def on_host_data(self, tensor: Tensor, source: Any) -> None:
        """Host data is a constant, compared in every bit by the second recording; an array from outside is refused."""
        if isinstance(source, np.ndarray):
            raise RecordingError(
                f"a tensor is made from a NumPy array at {here()}; its content may change unseen: make it outside and "
                "pass it as an argument"
            )
        if holds_scalar(source):
            raise RecordingError(
                f"a tensor is made from a recorded number at {here()}; use stack() or full() on tensors instead"
            )
        root = self._constant(tensor, self._slot(tensor))
        self.constants.append((str(self.graph.loc), f"data {root.value.type}"))
        self._made(tensor)

    def on_random(self) -> tuple[Tensor, int]:
        """The random state is one int64[2] state input; calls are numbered from its offset."""
        if self.refusal is not None:
            state = rng.state_tensor()
            rng.advance(1, None)
            return state, 0
        if self._random_state is None:
            self._random_state = rng.state_tensor()
            self.add_source("random", -1, "random state", self._random_state)
        k = self.randoms
        self.randoms += 1
        return self._random_state, k

    def on_seed(self, seed: int) -> None:
        """A seed set inside is a constant state from here on."""
        if self.refusal is not None:
            rng.advance(0, int(seed))
            return
        self.seed = int(seed)
        self.randoms = 0
        self._random_state = fresh(np.array([seed, 0], np.int64))
        self._constant(self._random_state, self._slot(self._random_state))

    def on_item(self, tensor: Tensor, number: bool | int | float) -> Any:
        """A number read from a tensor is followed as a Scalar."""
        if not self.recording() or any(s is tensor._s for s in self.frozen):
            return number
        if isinstance(number, bool):  # Python tells True by identity, so it is a condition at once
            self.on_bool(tensor, number)
            return number
        if self.exact is not None:
            self.refuse(
                RecordingError(
                    f"item() at {here()} gives a number to follow, but {self.exact} looks at its type or identity"
                )
            )
            return number
        wide = tensor.detach() if tensor.requires_grad else tensor
        wide = wide.reshape(())
        if wide.dtype is not int64 and wide.dtype is not float64 and wide.dtype.kind == "f":
            wide = op_named("cast")(wide, dtype=float64)
        scalar = Scalar(wide, number, self)
        self.made.append((weakref.ref(scalar), here()))
        return scalar

    @_hook
    def on_bool(self, tensor: Tensor, value: bool) -> None:
        """A branch on a value is a guard."""
        if tensor.dtype.is_complex:
            raise RecordingError(f"the truth of a complex number at {here()} cannot be followed; test its real part")
        with using(grad=False):
            flat = alias_of(tensor).reshape(())
            flag = flat if flat.dtype.kind == "b" else op_named("ne")(flat, 0)
        self.value_guards.append(ValueGuard(self.value_of(flag), value, here()))

    @_hook
    def on_int(self, tensor: Tensor, number: int) -> None:
        """Python uses an int read from `tensor` (0-d) as a number of its own: a guard."""
        with using(grad=False):
            wide = tensor if tensor.dtype is int64 else op_named("cast")(tensor, dtype=int64)
        value = self.value_of(wide)
        self.forced = self.forced or self.measures(value)
        self.value_guards.append(ValueGuard(value, int(number), here()))

    @_hook
    def on_range(self, index: Tensor, low: float | None, high: float | Dim, ignored: int | None = None) -> None:
        """Indices and probabilities must stay in range: checked on the input where they are one, else
        on the computed value."""
        self.value_of(index)
        root = self._root_of(index)
        known = root.source is not None and root.source.kind in ("arg", "path") and root.written is None
        if known and not self.alone and not isinstance(high, Dim) and not self._has_names(index._chain):
            rest = index._chain[len(root.chain) :]
            number = self.source_roots.index(root)
            least = -high if low is None else low
            self.ranges.append(RangeGuard(number, rest, least, high, ignored, here()))
            return
        flag = in_range(self, index, low, high, ignored)
        if flag is not None:
            self.value_guards.append(ValueGuard(flag, True, here()))

    def _has_names(self, chain: Any) -> bool:
        return any(has_dim(value) for _, attrs in chain for value in attrs.values())

    def on_failure(self, tensor: Tensor) -> None:
        """The user may catch the error and go on; the graph would know nothing of it."""
        if not self._paused and not self.finished and self.refusal is None:
            self.refusal = RecordingError(
                f"the error at {here()} is caught, and depends on the values of {tensor._l.type}; test the values "
                "before, as a tensor operation or a branch"
            )
            self.advance_random()

    @_hook
    def on_escape(self, tensor: Tensor, what: str, instead: str | None = None) -> None:
        """Elements that leave for Python cannot be followed."""
        if any(s is tensor._s for s in self.frozen):
            return
        if instead is not None:
            raise RecordingError(
                f"{what} at {here()} cannot be part of a graph: {instead}, or move this line out of the compiled "
                "function"
            )
        raise RecordingError(
            f"{what} at {here()} hands a recorded value to Python; return the tensor instead, keep the number as "
            "item() without "
            "converting it, or move this line out of the compiled function"
        )

    @_hook
    def on_show(self, tensor: Tensor) -> None:
        """Printing shows the values while recording only."""
        self.texts.shown.append(here())
        self.texts.note(tensor)

    @_hook
    def on_text(self, tensor: Tensor) -> None:
        """A number read from `tensor` becomes text."""
        self.texts.note(tensor)

    def _is_mine(self, t: Tensor) -> bool:
        if t._born == self.first_ticket:
            self.made.append((weakref.ref(t), here()))
            return True
        slot = slot_in(t._s, self)
        return slot is not None and any(r.source is None for r in slot.roots)

    @_hook
    def on_metadata(self, tensor: Tensor, what: str) -> None:
        """Metadata of a tensor from outside must not change."""
        if not self._is_mine(tensor):
            raise RecordingError(
                f"{what} at {here()} changes a tensor from outside the compiled function; do it before the call"
            )

    @_hook
    def on_ambient(self, what: str) -> None:
        """A graph runs without the ambient modes of eager code."""
        raise RecordingError(f"{what} at {here()}; do it around the call of the compiled function")

    @_hook
    def on_attribute(self, owner: Any, name: str, old: Any, new: Any) -> None:
        """A tensor attribute of a Module is state; any other attribute that changes is an effect on Python."""
        self.rebound.note(owner, name, old, new, here())

    @_hook
    def on_new_module(self, module: Any) -> None:
        """What is made inside may change; it must not outlive the call."""
        self.made.append((self.rebound.made_inside(module), here()))

    def on_setting(self, owner: Any, group: int, key: str | tuple[str, int], value: float) -> Tensor:
        """A float in `optimizer.param_groups` is an input: a schedule never records again.

        `key` is (name, place) for an item of a tuple.
        """
        found = self.settings.get((id(owner), group, key))
        if found is None:
            t = fresh(np.asarray(value, np.float64))
            found = self.settings[(id(owner), group, key)] = (owner, t, len(self.sources))
            if self.refusal is None and not self._paused:
                self.add_source("setting", -1, f"param_groups[{group}][{key!r}]", t)
        return found[1]

    def restore(self) -> None:
        """Put `.grad` and Module attributes back to what they were before the call."""
        for leaf, old in self.old_grads.values():
            leaf._grad = old
        self.rebound.restore()

    def close(self) -> None:
        """Nothing of the recording stays on tensors that live on."""
        self.finished = True
        if self.counted:
            forget_names(self)
        for ref in self._noted:
            x = ref()
            if isinstance(x, Tensor):
                x._memo = None
            elif x is not None:
                drop_slot(x, self)
        self._noted.clear()
        for source in self.sources:
            if source.kind not in ("path", "setting"):
                source.tensor = None  # an argument of one call

    def mark_state(self, number: int) -> None:
        """Graph input `number` gets a new value at the end."""
        old = self.graph.inputs[number]
        self.graph.inputs[number] = Input(old.value, "state", old.name)
