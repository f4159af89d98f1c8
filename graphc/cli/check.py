"""`graphc check`: a model run in every way, and what differs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import graphc
from graphc.cli.compare import Finding, checks
from graphc.cli.exits import MISMATCH, OK
from graphc.cli.inputs import fill_inputs, given_values, parse_sizes
from graphc.cli.output import one_line, say, say_json, say_table
from graphc.cli.sizes import graph_for


def run(model: Path, specs: Sequence[str], archive: Path | None, sizes: Sequence[str], seed: int, as_json: bool) -> int:
    """The command: exit code 1 when anything differs."""
    program = graphc.load(model)
    given = given_values(specs, archive, seed)
    arrays, bound = fill_inputs(program.graph, program.state, given, parse_sizes(sizes), seed)
    graph, counts = graph_for(program, arrays, bound)
    inputs = [arrays[i.name] if i.name in arrays else program.state[i.name] for i in graph.inputs]
    found = list(_shown(checks(graph, inputs), quiet=as_json))
    wrong = [f for f in found if f.status == "differs"]
    if as_json:
        entries = [{"check": f.name, "status": f.status, "detail": f.detail, "place": f.place} for f in found]
        say_json({"file": str(model), "ok": not wrong, "sizes": {**bound, **counts}, "checks": entries})
        return MISMATCH if wrong else OK
    say_table("", ("check", "result", "detail"), [(f.name, f.status, f.detail) for f in found])
    for f in wrong[:1]:
        say(f"first difference: {f.name}: {one_line(f.detail)}{one_line(f' ({f.place})' if f.place else '')}")
    counted = "".join(f", {name}={n} counted" for name, n in counts.items())
    say(f"{len(graph.nodes)} nodes{counted}: {'DIFFERENT' if wrong else 'all agree'}")
    return MISMATCH if wrong else OK


def _shown(findings: Iterable[Finding], quiet: bool) -> Iterator[Finding]:
    """The findings, with the last one named on a line of stderr that a terminal keeps overwriting."""
    if quiet or not sys.stderr.isatty():
        yield from findings
        return
    from rich.console import Console

    with Console(stderr=True, markup=False, emoji=False).status("running op by op") as status:
        for finding in findings:
            status.update(finding.name)
            yield finding
