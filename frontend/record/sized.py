"""Running a trace whose sizes depend on values: the counts first, then the trace for these numbers (staged.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from graphc.frontend.record.staged import Kept, Staged
from graphc.frontend.record.tape import NodePlan, SavedPlan
from graphc.frontend.record.trace import Leaf, Trace
from graphc.ir.op import Array
from graphc.ir.passes.bind import bind_attrs
from graphc.ir.types import Layout


class Sized:
    """The stages of a trace, and the traces for numbers met so far."""

    def __init__(self, trace: Trace, finish: Callable[[Trace, Sequence[Layout]], None]) -> None:
        self.trace = trace
        self.finish = finish  # compiles a trace without named sizes
        # a backward outside is made from the graph of the whole call
        self.staged = Staged(trace.graph, {c.name: c.value for c in trace.counted}, whole=bool(trace.tape))
        self._bound = Kept()

    def bind(self, arrays: Sequence[Array]) -> tuple[Trace, list[Array]] | None:
        """The trace for the sizes these inputs give and the arrays it takes; None where it does not apply."""
        found = self.staged.numbers(arrays)
        if found is None:
            return None
        sizes, given = found
        bound = self._bound.get(tuple(sizes.values()), partial(self._bind, sizes, given))
        return None if bound is None else (bound, given)

    def _bind(self, sizes: Mapping[str, int], given: Sequence[Array]) -> Trace:
        trace = self.trace
        graph, mapping = self.staged.bound(sizes)
        leaves, kept = ([_bound_leaf(x, sizes) for x in part] for part in (trace.out_leaves, trace.kept))
        tape = tuple(_bound_plan(p, sizes) for p in trace.tape)
        saved = [mapping[v] for v in trace.saved]
        bound = replace(
            trace, graph=graph, out_leaves=leaves, kept=kept, tape=tape, saved=saved, counted=[], sized=None
        )
        self.finish(bound, [Layout.of(a) for a in given])
        return bound


def _bound_leaf(leaf: Leaf, sizes: Mapping[str, int]) -> Leaf:
    if leaf.kind not in ("fresh", "alias") or not leaf.value:
        return leaf
    return replace(leaf, value=tuple((op, bind_attrs(attrs, sizes)) for op, attrs in leaf.value))


def _bound_plan(plan: NodePlan, sizes: Mapping[str, int]) -> NodePlan:
    def chains(saved: Sequence[SavedPlan | None]) -> tuple[SavedPlan | None, ...]:
        return tuple(s and replace(s, chain=tuple((op, bind_attrs(a, sizes)) for op, a in s.chain)) for s in saved)

    ins, outs = (tuple(t.bind(sizes) for t in types) for types in (plan.ins, plan.outs))
    saved_out = None if plan.saved_out is None else chains(plan.saved_out)
    return replace(
        plan,
        attrs=bind_attrs(plan.attrs, sizes),
        ins=ins,
        outs=outs,
        saved_in=chains(plan.saved_in),
        saved_out=saved_out,
    )
