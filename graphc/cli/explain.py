"""`graphc explain`: what a model takes, keeps, gives and assumes, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import graphc
from graphc import compiler
from graphc.cli.inputs import bind_sizes, parse_sizes
from graphc.cli.output import bytes_text, counted, one_line, say, say_json, say_table
from graphc.cli.parts import controls, programs
from graphc.ir.graph import Graph
from graphc.ir.passes.bind import bind_dims
from graphc.runtime.artifact import verify_file
from graphc.runtime.program import Program, call_flops


def run(model: Path, sizes: Sequence[str], as_json: bool) -> int:
    """The command."""
    identity = verify_file(model)
    program = graphc.load(model)
    given = parse_sizes(sizes)
    symbols = program.graph.symbols()
    unknown = (symbols and not given) or program.graph.counted()  # sizes that are not given, or depend on values
    bound = None if unknown else bind_dims(program.graph, bind_sizes(program.graph, given))
    facts: dict[str, Any] = {"file": str(model), "id": identity, **_facts(program)}
    facts["plan"] = None if bound is None else _plan(bound)
    if as_json:
        say_json(facts)
    else:
        _tell(facts)
    return 0


def _facts(program: Any) -> dict[str, Any]:
    signature, graph = program.signature, program.graph
    kinds = {a.name: a.kind for a in signature.arguments}
    return {
        "name": graph.name,
        "nodes": len(graph.nodes),
        "sizes": list(graph.symbols()),
        "arguments": [{"name": a.name, "kind": a.kind, "value": a.value} for a in signature.arguments],
        "inputs": [_input(i, kinds.get(i.name, "tensor")) for i in graph.inputs if i.name not in program.state],
        "state": [_input(i, "state") for i in graph.inputs if i.name in program.state],
        "outputs": [{"name": o.name, "kind": o.kind, "type": str(o.value.type)} for o in graph.outputs],
        "expectations": [{"expected": e.expected, "place": e.place} for e in signature.expectations],
        "random_calls": signature.randoms,
        "notes": list(signature.notes),
    }


def _input(i: Any, kind: str) -> dict[str, Any]:
    return {"name": i.name, "kind": kind, "type": str(i.value.type)}


def _plan(graph: Graph) -> dict[str, Any]:
    """The compiled form in numbers. No code is generated."""
    from graphc.codegen.cpu import lower_kernel

    optimised = compiler.optimise(graph)
    found = programs(optimised)
    calls = [call for program in found for call in program.calls]
    return {
        "kernel_calls": len(calls),
        "kernels": len({lower_kernel(call.kernel).key for call in calls}),
        "arena_bytes": sum(program.arena_bytes for program in found),
        "constant_bytes": sum(c.nbytes for program in found for c in program.constants),
        "input_bytes": sum(i.value.type.nbytes for i in graph.inputs),
        "output_bytes": sum(o.value.type.nbytes for o in graph.outputs) - sum(map(_in_place, found)),
        "in_place": sum(o.donated is not None for program in found for o in program.outputs),
        "contraction_flops": sum(map(call_flops, calls)),
        "controls": controls(optimised),
    }


def _in_place(program: Program) -> int:
    return sum(o.layout.type.nbytes for o in program.outputs if o.donated is not None)


def _tell(facts: dict[str, Any]) -> None:
    say(f"{one_line(facts['name'])}: {counted(facts['nodes'], 'node')}, id {facts['id'][:16]}")
    rows = [(i["kind"], i["name"], i["type"]) for i in facts["inputs"]]
    rows += [("constant", a["name"], repr(a["value"])) for a in facts["arguments"] if a["kind"] == "constant"]
    written = [o["name"] for o in facts["outputs"] if o["kind"] == "state"]
    rows += [("state, updated" if i["name"] in written else "state", i["name"], i["type"]) for i in facts["state"]]
    kinds = {"output": "result", "grad": "gradient"}
    rows += [(kinds[o["kind"]], o["name"], o["type"]) for o in facts["outputs"] if o["kind"] in kinds]
    say_table("", ("kind", "name", "type"), rows)
    for e in facts["expectations"]:
        say(f"valid where the value tested at {one_line(e['place'])} is {e['expected']}")
    if facts["random_calls"]:
        say(f"draws random numbers {counted(facts['random_calls'], 'time')} a run")
    for note in facts["notes"]:
        say(one_line(note))
    _tell_plan(facts["plan"], facts["sizes"])


def _tell_plan(plan: dict[str, Any] | None, symbols: Sequence[str]) -> None:
    if plan is None and not symbols:
        say("sizes depend on values: they are counted at each run, and the rest is compiled for the numbers found")
        return
    if plan is None:
        options = " ".join(f"--size {s}=NUMBER" for s in symbols)
        say(f"named sizes: {', '.join(symbols)} (say {options} to see the plan)")
        return
    kernels = counted(plan["kernels"], "kernel")
    how = "those of branches and loops as often as these run" if plan["controls"] else "one native call a run"
    say(f"compiled: {counted(plan['kernel_calls'], 'kernel call')} ({kernels}), {how}")
    parts = (("arena", "arena"), ("constants", "constant"), ("inputs and state", "input"), ("outputs", "output"))
    memory = ", ".join(f"{name} {bytes_text(plan[f'{key}_bytes'])}" for name, key in parts)
    say(f"memory: {memory}; {counted(plan['in_place'], 'output')} in place")
    say(f"matrix products and convolutions: {plan['contraction_flops'] / 1e6:,.3f} million operations a run")
