"""Whether a trace applies: every condition that does not need a computed value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import InternalError
from graphc.frontend.record.guards import holds
from graphc.frontend.record.trace import Source, Trace
from graphc.frontend.tensor import Tensor


def fits(source: Source, t: Any) -> bool:
    """True when the object found at a source's path can be its tensor."""
    if not isinstance(t, Tensor) or not (source.loose or t is source.tensor):
        return False
    return t._l is source.layout and _needs(t) is source.needs and bool(t._hooks) is source.hooked


def _needs(t: Tensor) -> bool:
    """`t.requires_grad`, quickly for leaves."""
    return t._requires_grad if t._edge is None and t._gbase is None else t.requires_grad


def tensors_of(trace: Trace, leaves: Sequence[Any], values: Sequence[Any]) -> list[Tensor | None] | None:
    """The tensor behind every source, or None when one is another object or has another layout."""
    found: list[Tensor | None] = []
    for source in trace.sources:
        if source.kind == "arg":
            found.append(leaves[source.number])
        elif source.kind == "path":
            t = values[source.number]
            if not fits(source, t):
                return None
            found.append(t)
        else:
            found.append(None)
    return found


def static_guards_hold(trace: Trace, leaves: Sequence[Any]) -> bool:
    """True when everything but the computed values is as it was while recording."""
    values = trace.table.evaluate(leaves)
    return (
        all(holds(g, values[g.step]) for g in trace.guards)
        and tensors_of(trace, leaves, values) is not None
        and belong(trace, leaves, values)
    )


def belong(trace: Trace, leaves: Sequence[Any], values: Sequence[Any]) -> bool:
    """True when the tensors that were one object, or views of one memory, still are, and no argument became a state."""
    states = {id(values[n]) for n in trace.distinct}
    given = (s.number for s in trace.sources if s.kind == "arg")
    return not any(id(leaves[k]) in states for k in given) and all(r.holds(values) for r in trace.relations)


def repeats(trace: Trace, leaves: Sequence[Any]) -> bool:
    """True when a recording of this call must be equal to `trace`: as `static_guards_hold`, and arguments lie in the
    memory of the very states they lay in.
    """
    return static_guards_hold(trace, leaves) and trace.sharing == sharing(trace, leaves)


def sharing(trace: Trace, leaves: Sequence[Any]) -> frozenset[tuple[int, int]]:
    """Which arguments lie in the memory of which states: (leaf, path step)."""
    values = trace.table.evaluate(leaves)
    states = [(s.number, values[s.number]) for s in trace.sources if s.kind == "path"]
    homes = {id(t._s): step for step, t in states if isinstance(t, Tensor)}
    given = [(s.number, id(leaves[s.number]._s)) for s in trace.sources if s.kind == "arg"]
    return frozenset((k, homes[home]) for k, home in given if home in homes)


def confirm(trace: Trace, leaves: Sequence[Any]) -> None:
    """With GRAPHC_VERIFY: a call that was found to be like the last one must pass the full check, too."""
    if not static_guards_hold(trace, leaves):
        from graphc.frontend.record.explain import why_missed

        raise InternalError(f"{trace.graph.name}: a change was not noticed: {why_missed(trace, leaves)}")
