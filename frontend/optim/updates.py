"""The update of one parameter as one native call.

An update rule is a few dozen small operations on the parameter, its gradient and its state. It is watched once while
it works, what it computed becomes a graph, and the graph is compiled: the same bits, in place. What it read of its
settings is part of the key, but for the floats it takes as tensors (`Hyper`): those are inputs, so a schedule changes
nothing. A rule that does more than compute and write is never compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import compiler
from graphc.compiler import frozen_attrs
from graphc.frontend.dispatch import scalar_tensor
from graphc.frontend.mode import using
from graphc.frontend.natives import Native, hold
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.graph import Graph, Value
from graphc.ir.op import Attrs, Op
from graphc.ir.types import TensorType, float64

if TYPE_CHECKING:
    from graphc.frontend.optim.optimizer import Hyper

MAX_KEYS = 4096
MAX_VARIANTS = 4  # of one rule on tensors of certain layouts, for different settings; a fifth is not compiled

_KNOWN: dict[Any, list[Any]] = {}


Setting = str | tuple[str, int]  # the name of a setting, or a place in one that is a tuple


def setting_at(group: Mapping[str, Any], key: Setting) -> Any:
    """The value of a setting."""
    return group[key] if isinstance(key, str) else group[key[0]][key[1]]


class Update(Native):
    """A compiled update: `run(*tensors, *settings)`, for groups whose settings `read` are the same."""

    __slots__ = ("name", "read", "settings", "written")

    def __init__(
        self,
        name: str,
        run: Callable[..., Any],
        read: dict[str, Any],
        settings: tuple[Setting, ...],
        written: tuple[int, ...],
    ):
        self.name, self.settings, self.written = name, settings, written
        hold(self, run)
        self.read = tuple([(name, value, frozen_attrs({"": value})) for name, value in read.items()])

    def title(self) -> str:
        """The optimiser's name and what it does."""
        return f"{self.name} update"

    def fits(self, group: Mapping[str, Any]) -> bool:
        """Whether the rule would do the same for this group."""
        for name, value, bits in self.read:
            now = group[name]
            if now is not value and (type(now) is not type(value) or frozen_attrs({"": now}) != bits):
                return False
        return all(type(setting_at(group, name)) in (int, float) for name in self.settings)

    def __call__(self, tensors: list[Tensor], group: Mapping[str, Any]) -> bool:
        """Update the tensors in place; False (and nothing done) where memory is read-only or shared."""
        storages = {t._s for t in tensors}
        arrays = [t._a for t in tensors]
        if len(storages) != len(tensors) or not all(arrays[k].flags.writeable for k in self.written):
            return False
        self.run(*arrays, *[scalar_tensor(float(setting_at(group, name)), float64)._a for name in self.settings])
        for k in self.written:
            t = tensors[k]
            t._s.version += 1
            t._v.value += 1
        return True


class _Never:
    """In place of the updates of a rule that must run operation by operation."""

    def fits(self, group: Mapping[str, Any]) -> bool:
        """Whatever the settings are."""
        return True

    def __call__(self, tensors: list[Tensor], group: Mapping[str, Any]) -> bool:
        """Nothing is done."""
        return False


_NEVER = _Never()


def run_update(
    owner: Any,
    p: Tensor,
    g: Tensor,
    state: dict[str, Any],
    group: dict[str, Any],
    hyper: Hyper,
) -> None:
    """What `owner._update(p, g, state, group, hyper)` does."""
    tensors = [p, g, *state.values()]
    if not all(isinstance(t, Tensor) for t in tensors):
        owner._update(p, g, state, group, hyper)
        return
    key = (type(owner), *state, *[t._l for t in tensors])
    known = _KNOWN.get(key)
    if known is None:  # the first time; most rules run for shapes that stay, but nobody knows yet
        if len(_KNOWN) >= MAX_KEYS:
            _KNOWN.clear()
        _KNOWN[key] = []
        owner._update(p, g, state, group, hyper)
        return
    for update in known:
        if update.fits(group):
            if not update(tensors, group):
                owner._update(p, g, state, group, hyper)
            return
    if len(known) >= MAX_VARIANTS:
        owner._update(p, g, state, group, hyper)
        return
    made = _watched(owner, tensors, state, group, hyper)
    if made is None:
        known[:] = [_NEVER]
    else:
        known.append(made)


def _plain(value: Any) -> bool:
    return type(value) in (int, float, bool, str, type(None)) or (type(value) is tuple and all(map(_plain, value)))


class _Watched(Mapping[str, Any]):
    """A group that notes which settings are read."""

    def __init__(self, group: Mapping[str, Any]) -> None:
        self.group = group
        self.read: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        value = self.group[name]
        self.read[name] = value
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.group)

    def __len__(self) -> int:
        return len(self.group)


class _Observer:
    """Stands where a recorder does while an update is watched, and builds its graph.

    It refuses nothing, since the update is under way: where it cannot follow, the graph is given up.
    """

    lockstep = None

    def __init__(self, tensors: list[Tensor]) -> None:
        self.graph: Graph | None = Graph("update")
        self.values: dict[int, Value] = {}  # by the identity of a tensor in `held`
        self.held: list[Tensor] = []
        self.written: dict[int, Tensor] = {}
        self.settings: dict[Setting, Tensor] = {}
        for k, t in enumerate(tensors):
            self._hold(t, self.graph.add_input(t._l.type, f"x{k}", "input" if k == 1 else "state"))

    def _hold(self, t: Tensor, value: Value) -> None:
        self.held.append(t)
        self.values[id(t)] = value

    def _value(self, graph: Graph, t: Tensor) -> Value | None:
        found = self.values.get(id(t))
        if found is None and t._s.constant and not t._chain and not t._s.version:
            found = graph.constant(t._a)
            self._hold(t, found)
        return found

    def on_op(self, op: Op, operands: tuple[Tensor, ...], attrs: Attrs, outputs: tuple[Tensor, ...]) -> None:
        if self.graph is None:
            return
        values = [self._value(self.graph, t) for t in operands]
        if op.random or any(v is None for v in values):
            self.graph = None
            return
        made = self.graph.add(op, [v for v in values if v is not None], attrs)
        for t, value in zip(outputs, made, strict=True):
            self._hold(t, value)

    def on_write(self, target: Tensor, value: Tensor) -> None:
        if self.graph is None:
            return
        new = self._value(self.graph, value)
        if new is None or id(target) not in self.values:
            self.graph = None
            return
        for t in self.held:  # views of the memory show something else now
            if t._s is target._s and t is not target:
                self.values.pop(id(t), None)
        self.values[id(target)] = new
        self.written[id(target)] = target

    def on_setting(self, owner: Any, group: int, key: Setting, value: float) -> Tensor:
        made = self.settings.get(key)
        if made is None:
            made = self.settings[key] = fresh(np.asarray(value, np.float64))
            if self.graph is not None:
                self._hold(made, self.graph.add_input(TensorType(float64, ()), f"s{len(self.settings)}"))
        return made

    def on_item(self, tensor: Tensor, number: Any) -> Any:
        self.graph = None
        return number

    def symbolic_type(self, tensor: Tensor) -> TensorType:
        return tensor._l.type

    def phase(self, name: str) -> Any:
        return nullcontext()

    def __getattr__(self, name: str) -> Any:
        """Anything else a recorder is told."""

        def give_up(*args: Any) -> None:
            self.graph = None

        return give_up


def _watched(
    owner: Any,
    tensors: list[Tensor],
    state: dict[str, Any],
    group: dict[str, Any],
    hyper: Hyper,
) -> Update | None:
    """Update once, and compile what was done; None where it cannot be."""
    observer: Any = _Observer(tensors)
    seen = _Watched(group)
    before = list(state), list(state.values())
    with using(recorder=observer):
        owner._update(tensors[0], tensors[1], state, seen, hyper.watched(seen.read))
    graph: Graph | None = observer.graph
    kept = list(state) == before[0] and all(a is b for a, b in zip(state.values(), before[1], strict=True))
    if graph is None or not kept or not all(map(_plain, seen.read.values())):
        return None
    return _compiled(type(owner).__name__, observer, graph, tensors, seen.read)


def _compiled(
    name: str, observer: _Observer, graph: Graph, tensors: list[Tensor], read: dict[str, Any]
) -> Update | None:
    written = tuple([k for k, t in enumerate(tensors) if id(t) in observer.written])
    layouts = [t._l for t in (*tensors, *observer.settings.values())]
    backwards = any(stride < 0 for layout in layouts for stride in layout.strides)
    if not written or 1 in written or backwards or not all(tensors[k]._l.contiguous for k in written):
        return None
    for k in written:
        graph.add_output(observer.values[id(tensors[k])], f"x{k}", "state")
    return Update(name, compiler.eager_graph(graph, layouts), read, tuple(observer.settings), written)
