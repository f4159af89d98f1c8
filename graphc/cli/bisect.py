"""`graphc bisect`: the first stage of compilation that changes a bit, and the smallest part that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import graphc
from graphc.cli.exits import MISMATCH, OK
from graphc.cli.inputs import Array, fill_inputs, given_values, parse_sizes
from graphc.cli.output import counted, one_line, say, say_json, say_table
from graphc.cli.sizes import graph_for
from graphc.fuzz.bisect import Bisection, Wrong, brief, first_of, told, with_special
from graphc.ir.graph import Graph


def run(
    model: Path,
    specs: Sequence[str],
    archive: Path | None,
    sizes: Sequence[str],
    seed: int,
    out: Path | None,
    threads: int,
    as_json: bool,
) -> int:
    """The command: exit code 1 when a stage differs."""
    program = graphc.load(model)
    given = given_values(specs, archive, seed)
    found = first_of(_tries(program, given, parse_sizes(sizes), seed), threads)
    if out is not None and found.differs:
        found.save(out)
    if as_json:
        say_json(_facts(model, found, out))
    else:
        _tell(found, out)
    return MISMATCH if found.differs else OK


def _tries(
    program: Any, given: dict[str, Any], sizes: dict[str, int], seed: int
) -> list[tuple[Graph, Sequence[Array]]]:
    """The model on its inputs; where some are random, once more with special values in these."""
    arrays, bound = fill_inputs(program.graph, program.state, given, sizes, seed)
    rng = np.random.default_rng([seed, 1])
    special = {name: a if name in given else with_special(a, rng) for name, a in arrays.items()}
    tries = [arrays] if all(special[name] is a for name, a in arrays.items()) else [arrays, special]
    found: list[tuple[Graph, Sequence[Array]]] = []
    for one in tries:
        graph, _ = graph_for(program, one, bound)
        found.append((graph, [one[i.name] if i.name in one else program.state[i.name] for i in graph.inputs]))
    return found


def _tell(found: Bisection, out: Path | None) -> None:
    say_table("", ("stage", "result", "what it adds"), found.stages)
    name = one_line(found.name)
    if found.graph is None:
        say(f"{name}: no stage changes a bit")
        return
    say(f"{name}: {one_line(found.stage)} changes the result")
    say(f"first: {one_line(str(found.wrong))}")
    say()
    say(f"smallest part that shows it, {counted(len(found.nodes), 'node')}:")
    say(str(found.graph).rstrip())
    say_table("", ("its input", "values"), [(f"%{n}", brief(a)) for n, a in found.inputs.items()])
    say(f"there: {one_line(str(found.wrong_in_part))}")
    if out is not None:
        say(f"written to {out}: graphc bisect {out} shows it again")


def _facts(model: Path, found: Bisection, out: Path | None) -> dict[str, Any]:
    return {
        "file": str(model),
        "ok": not found.differs,
        "stages": [{"stage": name, "result": result} for name, result, _ in found.stages],
        "stage": found.stage or None,
        "first": _difference(found.wrong),
        "nodes": len(found.nodes),
        "part": None if found.graph is None else str(found.graph),
        "first_in_part": _difference(found.wrong_in_part),
        "inputs": {name: brief(a) for name, a in found.inputs.items()},
        "out": None if out is None or not found.differs else str(out),
    }


def _difference(wrong: Wrong | None) -> dict[str, Any] | None:
    if wrong is None:
        return None
    if wrong.place is None:
        return {"result": wrong.result, "text": str(wrong)}
    return {
        "result": wrong.result,
        "place": list(wrong.place),
        "expected": str(wrong.expected),
        "found": str(wrong.found),
        "expected_bits": told(wrong.expected).rsplit("(", 1)[-1].rstrip(")"),
        "found_bits": told(wrong.found).rsplit("(", 1)[-1].rstrip(")"),
        "elements": wrong.count,
    }
