"""From a finished recording to a Trace: outputs, effects, access paths, guards; refuses what a graph could not repeat."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

from graphc.errors import RecordingError
from graphc.frontend.autograd import edge_of
from graphc.frontend.record.paths import PathTable
from graphc.frontend.record.reach import Reach
from graphc.frontend.record.recorder import Recorder
from graphc.frontend.record.trace import Effect, Guard, Leaf, Source, Trace
from graphc.frontend.record.tree import TreeSpec, flatten
from graphc.frontend.record.watch import Watcher
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor
from graphc.ir.graph import Input, Value

_CONSTANTS = (bool, int, float, complex, str, bytes, type(None))


class Finisher:
    """Turns one recorder with its watcher into a Trace."""

    def __init__(self, recorder: Recorder, watcher: Watcher, function: Any, leaves: Sequence[Any], names: Sequence[str], export: bool = False) -> None:
        self.export = export  # for a file: every returned tensor is an output of its own
        self.recorder = recorder
        self.watcher = watcher
        self.leaves = leaves
        self.names = names
        self.table = PathTable()
        self.guards: list[Guard] = []
        self.effects: list[Effect] = []
        self.outputs: list[tuple[Value, str, str]] = []
        self.owned: list[Tensor] = []
        self.reach = Reach(self.table, watcher.codes)
        self.function = function
        self._bases: dict[int, tuple[Any, int]] = {}

    def run(self, result: Any) -> Trace:
        """The whole sequence; raises RecordingError with the user's line for anything that cannot be repeated."""
        self._refuse_effects()
        out_leaves, spec = flatten(result)
        leaves = [self._leaf(x, k, out_leaves) for k, x in enumerate(out_leaves)]
        self._grads()
        self._attributes()
        self._walk()
        self._name_sources()
        self._state_effects()
        self._owner_effects()
        self._refuse_survivors(out_leaves)
        return self._trace(leaves, spec)

    def _refuse_effects(self) -> None:
        for text, loc in self.watcher.effects():
            raise RecordingError(
                f"{text} at {loc or 'an unknown line'}: a graph cannot repeat an effect on Python; return the value, or move the line out of the compiled function"
            )

    # -- returned values ---------------------------------------------------------------------------------------------------

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
        raise RecordingError(f"the function returns a {type(x).__name__}, which the recorder cannot make again; return tensors, numbers or containers of them")

    def _tensor_leaf(self, t: Tensor, k: int, all_leaves: list[Any]) -> Leaf:
        if self.export:
            self.owned.append(t)
            return Leaf("fresh", self._output(self.recorder.value_of(t), f"out{k}"))
        for i, leaf in enumerate(self.leaves):
            if t is leaf:
                return Leaf("input", i)
        for j in range(k):
            if all_leaves[j] is t:
                return Leaf("same", j)
        value = self.recorder.value_of(t)
        root = self.recorder._root_of(t)
        self.owned.append(t)
        rest = t._chain[len(root.chain) :]
        if root.source is not None:
            return Leaf("alias", self.recorder.sources.index(root.source), rest, t.requires_grad)
        found = self._bases.get(id(t._s))
        if found is None:
            found = self._bases[id(t._s)] = (t._s, self._output(root.value if rest else value, f"out{k}"))
        edge = edge_of(t)
        freed = edge is not None and getattr(edge[0], "freed", False)
        return Leaf("fresh", found[1], rest, t.requires_grad, freed)

    def _output(self, value: Value, name: str) -> int:
        self.outputs.append((value, "output", name))
        return len(self.outputs) - 1

    # -- effects -----------------------------------------------------------------------------------------------------------

    def _grads(self) -> None:
        for leaf, grad, loc in () if self.export else self.recorder.grads.values():  # gradients are no part of a file
            if leaf._grad is not grad:
                raise RecordingError(f"the gradient written at {loc} was replaced behind the recorder's back")
            number = -1
            if grad is not None:
                root = self.recorder._root_of(grad)
                if root.source is not None and not grad._chain:
                    raise RecordingError(f".grad is set to a tensor from outside at {loc}; clone() it")
                number = self._output(self.recorder.value_of(grad), f"grad{len(self.outputs)}")
                self.owned.append(grad)
            self.effects.append(Effect("grad", -1, number, loc=loc))

    def _attributes(self) -> None:
        for owner, name in self.recorder.attributes:
            obj, new, loc = self.recorder.attributes[(owner, name)]
            if not isinstance(new, Tensor):
                raise RecordingError(f"the attribute {name!r} of {type(obj).__name__} is written at {loc}; only tensor attributes can change in a compiled function")
            self.owned.append(new)

    def _walk(self) -> None:
        for i, (leaf, name) in enumerate(zip(self.leaves, self.names, strict=True)):
            self.reach.argument(leaf, i, name)
        self.reach.function(self.function, "function")
        self.guards += self.reach.guards

    def _name_sources(self) -> None:
        taken: set[str] = set()
        for number, source in enumerate(self.recorder.sources):
            if source.kind == "path":
                self._resolve(source)
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

    def _resolve(self, source: Source) -> None:
        t = source.tensor
        assert t is not None
        for found, step in self.reach.tensors.values():
            if found is t or (found._s is t._s and found._l is t._l and found._chain == t._chain):
                source.tensor, source.number, source.name = found, step, self.table.names[step]
                return
        raise RecordingError(f"a tensor {t._l.type} used at {source.loc} does not come from an argument, a closure, a global or a module; pass it as an argument")

    def _resolve_setting(self, source: Source, number: int) -> None:
        for (_, group, key), (owner, _, where) in self.recorder.settings.items():
            if where == number:
                step = self._owner_step(owner)
                if step is None:
                    raise RecordingError("the optimizer is not reachable from the function or its arguments; pass it as an argument")
                groups = self.table.step("item", self.table.step("var", step, "param_groups"), group)
                source.number = self.table.step("item", groups, key)
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
            kind = "output" if self.export and source.kind == "arg" else "state"  # in a file, arguments are no state
            if kind == "state":
                recorder.mark_state(number)
            self.outputs.append((root.value, kind, source.name))
            self.effects.append(Effect("state", number, len(self.outputs) - 1, source.name, root.written))

    def _owner_effects(self) -> None:
        leaves = [] if self.export else [leaf for leaf, _, _ in self.recorder.grads.values()]
        kept = []
        for effect, leaf in zip([e for e in self.effects if e.kind == "grad"], leaves, strict=True):
            found = self.reach.tensors.get(id(leaf))
            if found is None:
                raise RecordingError(f"the tensor whose .grad is written at {effect.loc} is not reachable from the function or its arguments")
            kept.append(Effect("grad", found[1], effect.output, self.table.names[found[1]], effect.loc))
        self.effects = [e for e in self.effects if e.kind != "grad"] + kept
        for leaf, is_none, loc in self.recorder.grad_reads.values():
            found = self.reach.tensors.get(id(leaf))
            if found is not None:
                self.guards.append(Guard("grad", found[1], is_none, loc))
        for (_, name), (owner, new, loc) in self.recorder.attributes.items():
            step = self._owner_step(owner)
            if step is not None:  # an object made inside the call needs no effect
                number = self._output(self.recorder.value_of(new), f"attr{len(self.outputs)}")
                self.effects.append(Effect("attr", step, number, name, loc))

    # -- liveness ----------------------------------------------------------------------------------------------------------

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
            survivor = self._survivor(owned)
        if survivor is not None:
            raise RecordingError(f"the value made at {survivor} was stored by Python outside the function; return it instead, or store a detached copy after the call")

    def _survivor(self, owned: dict[int, Any]) -> Any:
        for ref, loc in self.recorder.made:
            x = ref()
            if x is not None and id(x) not in owned:
                return loc
        return None

    # -- the end -----------------------------------------------------------------------------------------------------------

    def _trace(self, leaves: list[Leaf], spec: TreeSpec) -> Trace:
        recorder = self.recorder
        for guard in recorder.value_guards:
            self.outputs.append((guard.value, "output", f"guard{len(self.outputs)}"))
        donate = not recorder.value_guards  # nothing may be written before the last guard was checked
        for value, kind, name in self.outputs:
            recorder.graph.add_output(value, name, kind if donate or kind != "state" else "output")
        notes = [f"shown while recording only: print at {loc}" for loc in (*self.watcher.prints, *recorder.shown)]
        if self.reach.unguarded:
            notes.append(f"{self.reach.unguarded} values beyond the first 1,000 are not guarded")
        return Trace(
            recorder.graph, self.table, recorder.sources, self.guards, recorder.value_guards, self.effects,
            spec, leaves, recorder.randoms, recorder.seed, notes, recorder.constants,
        )  # fmt: skip
