"""`graphc show`: a model at any stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

import graphc
from graphc.cli.inputs import bind_sizes, parse_sizes
from graphc.cli.output import say, say_json
from graphc.cli.stages import stages
from graphc.codegen.target import Target, target_named
from graphc.errors import ArgumentError
from graphc.ir.passes.bind import bind_dims


def run(model: Path, names: Sequence[str], lines: bool, target: str, sizes: Sequence[str], as_json: bool) -> int:
    """The command. `names`: the stages to show."""
    graph = graphc.load(model).graph
    given = parse_sizes(sizes)
    bound = None if tuple(names) == ("recorded",) and not given else bind_dims(graph, bind_sizes(graph, given))
    found = []
    for shown in stages(graph, bound, names, _target(target)):
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


def _target(name: str) -> Target | None:
    try:
        return target_named(name) if name else None
    except ArgumentError as error:
        raise click.BadParameter(f"--target: {error}") from error
