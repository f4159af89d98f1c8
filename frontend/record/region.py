"""The tape node of one compiled call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontend import autograd
from graphc.frontend.autograd import Edge, Node
from graphc.frontend.record.backward_graph import MAX_LAYOUTS, BackwardPlan, Code
from graphc.frontend.record.tape import Held, Link, Tape, base_of, held
from graphc.frontend.regions import Region
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.op import Array
from graphc.ir.types import Layout

_new = object.__new__


class CompiledRegion(Region):
    """What one compiled call keeps for backward(): arrays, with the versions they had, and where gradients go."""

    plan: BackwardPlan
    owners: list[Held]
    kept: Sequence[Array]
    done: int  # nodes, a bit each, that gave back what they saved

    def reaching(self, needs: tuple[bool, ...], targets: set[int]) -> set[int]:
        """The inner nodes from which a target, or an edge that needs a gradient, is reached."""
        return self.plan.reaching(needs, targets)

    def ready(self, given: tuple[int, ...], needs: tuple[bool, ...], prior: tuple[bool, ...]) -> Code | None:
        """The code, if all it reads is as it was."""
        if len(set(self.edges)) < len(self.edges):  # two sources are one tensor: their contributions take turns
            return None
        code = self.plan.code(given, needs, prior)
        return None if code is None or not self._unchanged(code) else code

    def _unchanged(self, code: Code) -> bool:
        if code.frees & self.done:
            return False
        for k in code.checked:
            array, _, _, versions, version, leaf = self.owners[k]
            if versions.value != version or (leaf is not None and leaf._a is not array):
                return False
        return True

    def run(
        self, code: Code, slot: dict[int, Tensor], priors: Sequence[Tensor | None], retain: bool
    ) -> list[tuple[int, Tensor]] | None:
        """One native call."""
        if not self._unchanged(code):
            return None
        arrays = [self._array(kind, k, slot, priors) for kind, k in code.inputs]
        layouts = tuple(map(Layout.of, arrays))
        if layouts not in code.executables and len(code.executables) >= MAX_LAYOUTS:
            given = [kind in ("grad", "prior") for kind, _ in code.inputs]
            arrays = [a.copy(order="C") if g else a for a, g in zip(arrays, given, strict=True)]
            layouts = tuple(map(Layout.of, arrays))
        results = code.executable(layouts)(arrays)
        if not retain:
            self._free(code)
        return [(k, fresh(a)) for k, a in zip(code.outputs, results, strict=True)]

    def _array(self, kind: str, k: int, slot: dict[int, Tensor], priors: Sequence[Tensor | None]) -> Array:
        if kind == "kept":
            return self.kept[k]
        if kind == "owner":
            return self.owners[k][0]
        t = slot[k] if kind == "grad" else priors[k]
        assert t is not None
        return t._a if all(s >= 0 for s in t._a.strides) else t._a.copy(order="C")

    def _free(self, code: Code) -> None:
        self.done |= code.frees
        if self.done == self.plan.saving:
            self.owners, self.kept = [], ()

    def make(self) -> list[Node]:
        """The eager nodes, over the same arrays."""
        plan = self.plan
        gone = self.done == plan.saving
        owners = {} if gone else dict(zip(plan.owners, self.owners, strict=True))
        arrays = () if gone else plan.saved(self.kept)
        edges = dict(zip(plan.ends, self.edges, strict=True))
        nodes = Tape(plan.plans, edges, owners, arrays, self.done, self.seq).nodes
        self.owners, self.kept = [], ()
        return nodes


class Edges:
    """The edges of what a compiled call returns."""

    def __init__(
        self,
        plan: BackwardPlan | None,
        tensors: Sequence[Tensor | None],
        results: Sequence[Array],
        kept: Sequence[Array],
        bases: dict[int, Tensor],
    ) -> None:
        self.tensors = tensors
        self.plan = plan
        self.region = None if plan is None else self._region(plan, results, kept, bases)

    def _source(self, number: int) -> Edge | None:
        t = self.tensors[number]
        return None if t is None else autograd.edge_of(t)

    def _region(
        self, plan: BackwardPlan, results: Sequence[Array], kept: Sequence[Array], bases: dict[int, Tensor]
    ) -> CompiledRegion:
        region: CompiledRegion = _new(CompiledRegion)
        region.plan, region.kept, region.done = plan, kept, 0
        region.edges = tuple(map(self._source, plan.ends))
        region.seq = autograd.ticket()
        region.hooks = region.retained = region.saved_out = None
        region.saved_in, region.freed = (), False
        region.places, region.interior = plan.roots, plan.interior
        region.owners = [self._held(owner, plan, results, bases) for owner in plan.owners]
        return region

    def _held(
        self, owner: tuple[str, int], plan: BackwardPlan, results: Sequence[Array], bases: dict[int, Tensor]
    ) -> Held:
        kind, number = owner
        t: Any = self.tensors[number] if kind == "source" else base_of(bases, number, results)
        return held(t, owner in plan.stale)

    def edge(self, link: Link | None) -> Edge | None:
        """The edge a link stands for in this call."""
        if link is None:
            return None
        kind, number, k = link
        if kind == "source":
            return self._source(number)
        assert self.plan is not None and self.region is not None
        return self.region, self.plan.place[number, k]
