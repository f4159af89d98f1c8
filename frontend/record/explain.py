"""What a person wants to know of a compiled function, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.frontend.record.guards import holds
from graphc.frontend.record.paths import missing
from graphc.frontend.record.trace import Trace

if TYPE_CHECKING:
    from graphc.frontend.record.compiled import Entry, Stats

_SHOWN = 12


def explain(name: str, stats: Stats, entries: Sequence[Entry]) -> str:
    """Traces, guards, constants and refusals of a compiled function."""
    lines = [
        f"{name}: {stats.calls} calls, {stats.recordings} recorded, {stats.compilations} compiled, {stats.hits} "
        "answered by a compiled graph, "
        f"{stats.eager} run eagerly after a refusal" + (f", {stats.lockstep} in lockstep" if stats.lockstep else "")
    ]
    for entry in entries:
        if entry.refusal:
            lines.append(f"  refused: {entry.refusal}")
            if entry.lockstep is not None:
                lines.append(f"    {entry.lockstep.describe()}")
        for k, trace in enumerate(entry.traces):
            lines.append(f"  trace {k}:")
            lines += ["    " + line for line in describe(trace)]
        if entry.pending:
            lines.append(f"  {len(entry.pending)} recording(s) waiting for a second, equal call")
    return "\n".join(lines)


def describe(trace: Trace) -> list[str]:
    """One trace: size, inputs, guards, constants, effects."""
    graph = trace.graph
    lines = [f"{len(graph.nodes)} nodes, {len(graph.inputs)} inputs, {len(graph.outputs)} outputs"]
    for source in trace.sources:
        what = {
            "arg": "argument",
            "float": "number",
            "int": "number",
            "path": "state",
            "random": "random state",
            "setting": "setting",
            "size": "size",
            "host": "result of a callback",
        }[source.kind]
        lines.append(f"{what} {source.name}: {source.layout}")
    guards = [
        f"{trace.table.names[g.step]} {_condition(g)}" for g in trace.guards if g.kind in ("bits", "flat", "grad")
    ]
    lines += _some("guard", guards)
    lines += _some("guard", [f"the value tested at {g.loc} is {g.expected}" for g in trace.value_guards])
    lines += _some("constant", [f"{text} at {place}" for place, text in dict.fromkeys(trace.constants)])
    lines += _some("writes", [f"{e.name or e.kind} ({e.kind}) at {e.loc}" for e in trace.effects])
    if trace.backward is not None:
        size = sum(v.type.nbytes for v in trace.backward.kept)
        lines.append(f"keeps {len(trace.backward.kept)} values, {size} bytes, for a backward() outside")
    return lines + trace.notes


def why_missed(trace: Trace, leaves: Sequence[Any]) -> str:
    """The first condition of `trace` that does not hold now."""
    values = trace.table.evaluate(leaves)
    for guard in trace.guards:
        if not holds(guard, values[guard.step]):
            now = values[guard.step]
            seen = "gone" if now is missing() else repr(now)
            line = f" (used at {guard.loc})" if guard.loc is not None else ""
            return f"{trace.table.names[guard.step]} {_before(guard)} and is {seen}{line}"
    for source in trace.sources:
        if source.kind == "path" and values[source.number] is not source.tensor and not source.loose:
            return f"{source.name} is another tensor now"
    return trace.missed or "a value that decides a branch came out differently"


def _before(guard: Any) -> str:
    """What the condition asks for, of a time that is over."""
    if guard.kind == "zero":
        return "was zero" if guard.expected else "was not zero"
    if guard.kind == "keys":
        return f"had the keys {list(guard.expected[1])}"
    return _condition(guard).replace("is ", "was ", 1).replace("has ", "had ", 1)


def _condition(guard: Any) -> str:
    if guard.kind == "grad":
        return "has no .grad" if guard.expected else "has a .grad"
    if guard.kind == "tensor":
        kind, layout, needs, *_ = guard.expected
        return f"is a {kind.__name__} {layout}{', which requires gradients,' if needs else ''}"
    if guard.kind == "flat":
        return f"is {tuple(x[-1] if isinstance(x, tuple) else x for part in guard.expected[1:] for x in part)!r}"
    return f"is {guard.expected!r}"


def _some(title: str, items: Sequence[str]) -> list[str]:
    more = [] if len(items) <= _SHOWN else [f"{title}: … and {len(items) - _SHOWN} more"]
    return [f"{title}: {item}" for item in items[:_SHOWN]] + more
