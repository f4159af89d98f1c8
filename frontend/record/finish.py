"""From a finished recording to a Trace: outputs, effects, access paths, guards; refuses what no graph could repeat."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from graphc.errors import RecordingError
from graphc.frontend.autograd import AccumulateGrad, Edge, edge_of
from graphc.frontend.record.file_state import FileState
from graphc.frontend.record.paths import PathTable
from graphc.frontend.record.reach import Reach
from graphc.frontend.record.recorder import Recorder
from graphc.frontend.record.relations import Relation, Relations
from graphc.frontend.record.roots import Root
from graphc.frontend.record.tape import NodePlan, TapePlanner, own_version
from graphc.frontend.record.trace import Effect, Guard, Leaf, Source, Trace
from graphc.frontend.record.tree import TreeSpec, flatten
from graphc.frontend.record.watch import Watcher
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor
from graphc.ir.graph import Input, Location, Value
from graphc.ir.types import DType, int64

_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), DType)
_HELD_ONCE = 4  # references counted in _own_history: the holder, the tuple, the name and the argument


class Finisher:
    """Turns one recorder with its watcher into a Trace."""

    def __init__(
        self,
        recorder: Recorder,
        watcher: Watcher,
        function: Any,
        leaves: Sequence[Any],
        names: Sequence[str],
        export: bool = False,
    ) -> None:
        self.export = export  # for a file: every returned tensor is an output of its own
        self.strict = recorder.strict
        self.recorder = recorder
        self.watcher = watcher
        self.leaves = leaves
        self.names = names
        self.table = PathTable()
        self.guards: list[Guard] = []
        self.effects: list[Effect] = []
        self.outputs: list[tuple[Value, str, str]] = []
        self.owned: list[Tensor] = []
        self.reach = Reach(self.table, watcher.codes, recorder.old_grads, leaves, watcher.foreign)
        self.function = function
        self._bases: dict[int, tuple[Any, int]] = {}
        self._groups: dict[int, tuple[Tensor, int]] = {}  # detached tensors that are returned or viewed
        self.tape: tuple[NodePlan, ...] = ()
        self.saved: list[Value] = []  # what the tape needs for a backward() outside
        self.relations: list[Relation] = []
        self.distinct: list[int] = []
        self.file = FileState(recorder, self.reach, leaves, self.outputs, self.effects)

    def run(self, result: Any) -> Trace:
        """The whole sequence; raises RecordingError with the user's line for anything that cannot be repeated."""
        self._refuse_effects()
        self._refuse_calls()
        self._texts()
        out_leaves, spec = flatten(result)
        grads, attributes = self._kept_grads(), self._kept_attributes()
        everything = [*out_leaves, *(t for t, _, _ in grads if t is not None), *(t for t, _, _ in attributes)]
        self._lift(everything)
        with self.recorder.rebound.undone():
            self._walk()
        self._name_sources()
        self._relate()
        if self.export:
            self.file.separate()
        leaves = [self._leaf(x, k, everything) for k, x in enumerate(everything)]
        leaves = self._with_tape(leaves, everything)
        self._refuse_histories()
        self._state_effects()
        self._place_effects(grads, attributes, len(out_leaves))
        self._refuse_survivors(out_leaves)
        self._refuse_output()
        return self._trace(leaves[: len(out_leaves)], leaves[len(out_leaves) :], spec)

    def _lift(self, results: Sequence[Any]) -> None:
        """A tensor from outside that is only returned is an input too."""
        for x in results:
            if isinstance(x, Tensor) and not any(x is leaf for leaf in self.leaves):
                self.recorder.value_of(x)

    def _refuse_effects(self) -> None:
        for text, loc in self.watcher.effects():
            raise RecordingError(
                f"{text} at {loc or 'an unknown line'}: a graph cannot repeat an effect on Python; return the value, "
                "or move the line out of the compiled function"
            )

    def _refuse_calls(self) -> None:
        for what, loc in self.watcher.foreign.refused:
            raise RecordingError(
                f"{what}() is called at {loc}: what it answers can change between calls and no condition would notice; "
                "call it outside and pass what it gives as an argument"
            )

    def _refuse_output(self) -> None:
        shown = self._shown()
        if shown and not self.export:
            raise RecordingError(f"{shown[0]}: a graph writes nothing; move the line out of the compiled function")

    def _shown(self) -> list[str]:
        """What the function printed and wrote, with the lines."""
        prints = [f"print at {loc}" for loc in (*self.watcher.prints, *self.recorder.texts.shown)]
        return prints + [f"output at {loc}" for loc in self.watcher.writes]

    def _texts(self) -> None:
        """Python may act on a text that was not just shown: an int in it is a condition."""
        for tensor, loc in self.recorder.texts.take():
            if tensor.dtype is not int64 or tensor.ndim:
                raise RecordingError(
                    f"text made of a recorded value at {loc} cannot be followed; return the value instead, or print or "
                    "log it in the same statement"
                )
            self.recorder.on_int(tensor, int(tensor._a))

    # ---- returned values

    def _leaf(self, x: Any, k: int, all_leaves: list[Any]) -> Leaf:
        if isinstance(x, Tensor):
            return self._tensor_leaf(x, k, all_leaves)
        if isinstance(x, Scalar):
            return Leaf("number", self._output(self.recorder.value_of(x.tensor), f"number{k}"))
        for i, leaf in enumerate(self.leaves):
            if x is leaf and not isinstance(x, _CONSTANTS) and not self.export:
                return Leaf("input", i)
        if isinstance(x, _CONSTANTS):
            return Leaf("constant", value=x)
        raise RecordingError(
            f"the function returns a {type(x).__name__} at {self.last_line()}, which the recorder cannot make again; "
            "return tensors, numbers or containers of them"
        )

    def last_line(self) -> Location:
        """The line of the function's (last) return statement."""
        f = getattr(self.function, "forward", self.function)
        code = getattr(getattr(f, "__func__", f), "__code__", None)
        return Location() if code is None else Location(code, len(code.co_code) - 2)

    def _tensor_leaf(self, t: Tensor, k: int, all_leaves: list[Any]) -> Leaf:
        self.owned.append(t)
        if self.export:
            return Leaf("fresh", self._output(self.recorder.value_of(t), f"out{k}"))
        for i, leaf in enumerate(self.leaves):
            if t is leaf:
                return Leaf("input", i)
        for j in range(k):
            if all_leaves[j] is t:
                return Leaf("same", j)
        value = self.recorder.value_of(t)
        root = self.recorder._root_of(t)
        rest = t._chain[len(root.chain) :]
        if root.source is not None:
            number = self.recorder.sources.index(root.source)
            if t is root.source.tensor:
                return Leaf("source", number, requires_grad=t.requires_grad)
            return self._placed(Leaf("alias", number, rest, t.requires_grad), t, root)
        found = self._bases.get(id(t._s))
        if found is None:
            found = self._bases[id(t._s)] = (t._s, self._output(root.value if rest else value, f"out{k}"))
        return self._placed(Leaf("fresh", found[1], rest, t.requires_grad), t, root)

    def _placed(self, leaf: Leaf, t: Tensor, root: Root) -> Leaf:
        """The leaf with what it is a view of: the memory's own tensor, or one detached from its gradients."""
        base = t if t._gbase is None else t._gbase
        owner = root.tensor
        own = base is owner or base is owner._gbase if owner is not None else base._gbase is None and base._history >= 0
        if own:
            return replace(leaf, leaf=t._requires_grad)
        group = self._groups.setdefault(id(base), (base, len(self._groups)))[1]
        return replace(leaf, group=group, skip=max(len(base._chain) - len(root.chain), 0), shares=not own_version(t))

    def _with_tape(self, leaves: list[Leaf], tensors: Sequence[Any]) -> list[Leaf]:
        """The leaves with their edges."""
        planner = TapePlanner(self.recorder, self._bases, self.saved)
        pairs = [self._edges(leaf, t) for leaf, t in zip(leaves, tensors, strict=True)]
        self.tape = planner.plan([e for pair in pairs for e in pair])
        return [
            replace(leaf, edge=planner.link(a), base_edge=planner.link(b))
            for leaf, (a, b) in zip(leaves, pairs, strict=True)
        ]

    def _edges(self, leaf: Leaf, t: Any) -> tuple[Edge | None, Edge | None]:
        if self.export or leaf.kind not in ("fresh", "alias") or leaf.leaf:
            return None, None
        inside = t._gbase is not None and (leaf.kind == "fresh" or leaf.group >= 0)
        return edge_of(t), edge_of(t._gbase) if inside else None

    def _refuse_histories(self) -> None:
        """An input written in place with a value that requires gradients gets a new place on the tape."""
        recorder = self.recorder
        for root, edge in zip(recorder.source_roots, recorder.source_edges, strict=True):
            t = root.tensor
            if root.written is None or t is None or t._requires_grad or self.export:
                continue
            if edge_of(t) != edge:
                name = root.source.name if root.source is not None else "a tensor"
                raise RecordingError(
                    f"the write at {root.written} gives {name} a gradient history; write into a clone() of it, or "
                    "detach() the value"
                )

    def _output(self, value: Value, name: str) -> int:
        self.outputs.append((value, "output", name))
        return len(self.outputs) - 1

    # ---- effects

    def _kept_grads(self) -> list[tuple[Tensor | None, Tensor, Location]]:
        """(new .grad, leaf, line); gradients are no part of a file."""
        found: list[tuple[Tensor | None, Tensor, Location]] = []
        for leaf, grad, loc in () if self.export else self.recorder.grads.values():
            if leaf._grad is not grad:
                raise RecordingError(f"the gradient written at {loc} was replaced behind the recorder's back")
            if grad is not None and self.recorder._root_of(grad).source is not None and not grad._chain:
                raise RecordingError(f".grad is set to a tensor from outside at {loc}; clone() it")
            if grad is not None and grad.requires_grad:
                raise RecordingError(
                    f".grad is set to a tensor with a history at {loc}; detach() it, or use autograd.grad"
                )
            found.append((grad, leaf, loc))
        return found

    def _kept_attributes(self) -> list[tuple[Tensor, tuple[Any, str], Location]]:
        """(new value, (object, name), line)."""
        found: list[tuple[Tensor, tuple[Any, str], Location]] = []
        for (_, name), (obj, new, loc) in self.recorder.rebound.written.items():
            if not isinstance(new, Tensor):
                raise RecordingError(
                    f"the attribute {name!r} of {type(obj).__name__} is written at {loc}; only tensor attributes can "
                    "change in a compiled function"
                )
            if type(new) is not Tensor or new.requires_grad:
                raise RecordingError(
                    f"the attribute {name!r} of {type(obj).__name__} becomes a tensor that requires gradients at "
                    f"{loc}; store a detached one"
                )
            found.append((new, (obj, name), loc))
        return found

    def _place_effects(self, grads: list[Any], attributes: list[Any], first: int) -> None:
        if self.export:
            self.file.attributes(attributes, self._owner_step)
            self.file.gradients()
            self.file.refuse_shared()
            return
        for grad, leaf, loc in grads:
            found = self.reach.tensors.get(id(leaf))
            if found is None:
                raise RecordingError(
                    f"the tensor whose .grad is written at {loc} is not reachable from the function or its arguments"
                )
            self.effects.append(
                Effect("grad", found[1], -1 if grad is None else first, self.table.names[found[1]], loc)
            )
            first += grad is not None
        for leaf, is_none, loc in self.recorder.grad_reads.values():
            found = self.reach.tensors.get(id(leaf))
            if found is not None:
                self.guards.append(Guard("grad", found[1], is_none, loc))
        for _, (owner, name), loc in attributes:
            step = self._owner_step(owner)
            if step is not None:  # an object made inside the call needs no effect
                self.effects.append(Effect("attr", step, first, name, loc))
            first += 1

    def _walk(self) -> None:
        for i, (leaf, name) in enumerate(zip(self.leaves, self.names, strict=True)):
            self.reach.argument(leaf, i, name)
        self.reach.function(self.function, "function")
        self.reach.optimizers.finish(self.reach)
        self.reach.optimizers.conditions(self.reach, self.recorder.settings)
        self.guards += self.reach.guards
        if self.reach.unguarded:
            raise RecordingError(
                f"{self.reach.unguarded} values that the function could read lie beyond the first 1,000, too deep, or "
                f"are large arrays (the first: {self.reach.first_unguarded}) and would not be guarded; pass what is "
                "needed of them as an argument"
            )

    def _name_sources(self) -> None:
        taken: set[str] = set()
        for number, source in enumerate(self.recorder.sources):
            if source.kind == "path":
                self._resolve(source, number)
            elif source.kind == "setting":
                self._resolve_setting(source, number)
            name = source.name
            while name in taken:
                name = f"{name}_{number}"
            taken.add(name)
            source.name = name
            old = self.recorder.graph.inputs[number]
            old.value.name = name
            self.recorder.graph.inputs[number] = Input(old.value, old.kind, name)

    def _relate(self) -> None:
        """Conditions on tensors that are found on several paths, or share memory with an input."""
        found = Relations(self.recorder, self.reach, self.leaves, self.names, self._loose)
        if self.export:
            found.refuse_shared_arguments()
        self.guards += found.guards
        self.relations, self.distinct = found.relations, found.distinct

    def _resolve(self, source: Source, number: int) -> None:
        t = source.tensor
        assert t is not None
        known = self.reach.tensors
        for found, step in [known[id(t)]] if id(t) in known else known.values():
            if found._s is t._s and found._l is t._l and found._chain == t._chain:
                source.tensor, source.number, source.name = found, step, self.table.names[step]
                source.loose = self._loose(found, step)
                if found is not t:  # `t` is a detached alias made inside
                    source.needs = found.requires_grad
                    self.recorder.source_roots[number].tensor = found
                    self.recorder.source_edges[number] = edge_of(found)
                return
        raise RecordingError(
            f"a tensor {t._l.type} used at {source.loc} does not come from an argument, a closure, a global or a "
            "module; pass it as an argument"
        )

    def _loose(self, t: Tensor, step: int) -> bool:
        """`.grad`, optimiser state and rebound attributes are new tensors now and then; that alone is no other case."""
        if id(t) in self.reach.shared:
            return False
        replaced = self.recorder.rebound.was_replaced(t)
        return self.table.steps[step].kind == "grad" or replaced or step in self.reach.optimizers.states

    def _resolve_setting(self, source: Source, number: int) -> None:
        for (_, group, key), (owner, _, where) in self.recorder.settings.items():
            if where == number:
                step = self._owner_step(owner)
                if step is None:
                    raise RecordingError(
                        "the optimizer is not reachable from the function or its arguments; pass it as an argument"
                    )
                groups = self.table.step("item", self.table.step("var", step, "param_groups"), group)
                source.number = groups
                for part in (key,) if isinstance(key, str) else key:  # (name, place) for an item of a tuple
                    source.number = self.table.step("item", source.number, part)
                place = f"{self.table.names[step]}." if group == 0 else f"{self.table.names[step]}.{group}."
                source.name = place.lstrip(".") + (key if isinstance(key, str) else f"{key[0]}[{key[1]}]")
                return

    def _owner_step(self, owner: Any) -> int | None:
        found = self.reach.owners.get(id(owner))
        return None if found is None else found[1]

    def _state_effects(self) -> None:
        recorder = self.recorder
        for number, (source, root) in enumerate(zip(recorder.sources, recorder.source_roots, strict=True)):
            if root.written is None:
                continue
            if source.kind in ("float", "setting", "random"):
                raise RecordingError(f"{source.name} is written at {root.written}")
            if source.kind == "grad":  # goes out with its argument
                continue
            kind = "output" if self.export and source.kind == "arg" else "state"  # in a file, arguments are no state
            if kind == "state":
                recorder.mark_state(number)
            self.outputs.append((root.value, kind, source.name))
            self.effects.append(Effect("state", number, len(self.outputs) - 1, source.name, root.written))

    # ---- liveness

    def _refuse_survivors(self, out_leaves: list[Any]) -> None:
        owned: dict[int, Any] = {}
        for x in out_leaves:
            owned[id(x)] = x
            if isinstance(x, Scalar):
                self.owned.append(x.tensor)
        for leaf, grad, _ in self.recorder.grads.values():
            self.owned += [leaf] if grad is None else [leaf, grad]
        stack = list(self.owned)
        while stack:
            t = stack.pop()
            if id(t) not in owned or t._gbase is not None:
                owned[id(t)] = t
                if t._gbase is not None and id(t._gbase) not in owned:
                    stack.append(t._gbase)
        survivor = self._survivor(owned)
        if survivor is not None:
            gc.collect()  # a cycle of the user's may hold it a moment longer
            _own_history(owned)
            survivor = self._survivor(owned)
        if survivor is not None:
            raise RecordingError(
                f"the value made at {survivor} was stored by Python outside the function; return it instead, or store "
                "a detached copy after the call"
            )

    def _survivor(self, owned: dict[int, Any]) -> Any:
        for ref, loc in self.recorder.made:
            x = ref()
            if x is not None and id(x) not in owned:
                return loc
        return None

    # ---- the end

    def _trace(self, leaves: list[Leaf], kept: list[Leaf], spec: TreeSpec) -> Trace:
        recorder = self.recorder
        for guard in recorder.value_guards:
            self.outputs.append((guard.value, "output", f"guard{len(self.outputs)}"))
        if recorder.counted and recorder.hosts:
            raise RecordingError(
                f"host() and a size that depends on values (at {recorder.counted[0].loc}) cannot be in one graph; give "
                "them compiled functions of their own"
            )
        donate = self.export or not recorder.value_guards  # nothing may be written before the last guard was checked
        for value, kind, name in self.outputs:
            recorder.graph.add_output(value, name, kind if donate or kind != "state" else "output")
        for c in recorder.counted if self.export else ():
            recorder.graph.add_output(c.value, c.name, "size")
        notes = [f"shown while recording only: {text}" for text in self._shown()]
        return Trace(
            recorder.graph, self.table, recorder.sources, self.guards, recorder.value_guards, self.effects,
            spec, leaves, recorder.randoms, recorder.seed, self.tape, self.saved, kept, recorder.ranges, notes,
            recorder.constants, recorder.hosts, recorder.counted, self.relations, self.distinct, self.file.given,
            self.file.begin,
        )  # fmt: skip


def _own_history(owned: dict[int, Any]) -> None:
    """Add the leaves that nothing but the history of an owned tensor holds, and their gradients."""
    stack: list[Any] = [t._edge[0] for t in owned.values() if isinstance(t, Tensor) and t._edge is not None]
    seen: set[Any] = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        stack.extend(e[0] for e in node.edges if e is not None)
        if not isinstance(node, AccumulateGrad):
            continue
        for t in (node.leaf, node.leaf._grad):
            if t is None or id(t) in owned or sys.getrefcount(t) > _HELD_ONCE:
                break
            owned[id(t)] = t
