"""`graphc show`: a model at any stage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import click

import graphc
from graphc.cli.diff import counts, diff_stages
from graphc.cli.inputs import parse_sizes
from graphc.cli.output import counted, say, say_json
from graphc.cli.sizes import graph_of_sizes
from graphc.cli.stages import Stage, stages
from graphc.codegen.target import Target, target_named
from graphc.errors import ArgumentError


def run(model: Path, names: Sequence[str], lines: bool, target: str, sizes: Sequence[str], as_json: bool) -> int:
    """The command. `names`: the stages to show."""
    found = []
    for shown in _stages(model, names, target, sizes):
        if as_json:
            numbered = [{"text": line.text, "places": line.places.split()} for line in shown.lines]
            found.append({"stage": shown.name, "count": shown.count, "lines": numbered})
        else:
            if len(names) > 1:
                say(f"==== {shown.name}")
            say(shown.text(gutter=lines))
    if as_json:
        say_json({"file": str(model), "stages": found})
    return 0


def run_diff(pair: tuple[str, str], model: Path, lines: bool, target: str, sizes: Sequence[str], as_json: bool) -> int:
    """The command with --diff."""
    if lines:
        raise click.UsageError("--lines does not go with --diff")
    found = {stage.name: stage for stage in _stages(model, pair, target, sizes)}
    changes = diff_stages(found[pair[0]], found[pair[1]])
    added, removed = counts(changes)
    if as_json:
        say_json(
            {"file": str(model), "from": pair[0], "to": pair[1], "added": added, "removed": removed, "diff": changes}
        )
        return 0
    say("\n".join(changes) if changes else f"{pair[0]} and {pair[1]} are equal")
    if changes:
        say(f"{counted(removed, 'line')} out, {counted(added, 'line')} in")
    return 0


def _stages(model: Path, names: Sequence[str], target: str, sizes: Sequence[str]) -> Iterable[Stage]:
    graph = graphc.load(model).graph
    given = parse_sizes(sizes)
    bound = None if set(names) == {"recorded"} and not given else graph_of_sizes(graph, given)
    return stages(graph, bound, names, _target(target))


def _target(name: str) -> Target | None:
    try:
        return target_named(name) if name else None
    except ArgumentError as error:
        raise click.BadParameter(f"--target: {error}") from error
