"""`graphc trace`: run a script, record a call of one of its functions, write the model file."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click
import numpy as np

from graphc.cli.exits import ScriptError, script_error
from graphc.cli.inputs import given_values
from graphc.cli.output import counted, say, say_json


def run(
    target: str,
    output: Path,
    dynamic: Sequence[str],
    specs: Sequence[str],
    archive: Path | None,
    seed: int,
    as_json: bool,
) -> int:
    """The command. Raises ScriptError for a script that fails, RecordingError for what cannot be recorded."""
    import graphc

    script, name = _split(target)
    given = given_values(specs, archive, seed)
    axes = _dynamic(dynamic)
    try:
        with redirect_stdout(sys.stderr):  # what the script prints is not part of this command's output
            function = load_function(script, name)
            program = graphc.trace(function, *_arguments(function, name, given), dynamic=axes)
    except Exception as error:
        found = script_error(error, script)
        if found is None or isinstance(error, click.ClickException | ScriptError):
            raise
        raise found from error
    program.save(output)
    nodes, state = len(program.graph.nodes), len(program.state)
    if as_json:
        notes = list(program.signature.notes)
        say_json({"file": str(output), "nodes": nodes, "state": state, "notes": notes})
    else:
        say(f"{output}: {counted(nodes, 'node')}, {counted(state, 'state tensor')}")
    return 0


def load_function(script: Path, name: str) -> Callable[..., Any]:
    """Run `script` as a module and give its `name` (dotted: an attribute of it). Raises ScriptError."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if not script.is_file() or spec is None or spec.loader is None:
        raise ScriptError(f"{script}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(script.parent))
    sys.modules[script.stem] = module  # dataclasses and annotations look their module up
    spec.loader.exec_module(module)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise ScriptError(f"{script.name}: there is no {name!r}")
        found = getattr(found, part)
    if not callable(found):
        raise ScriptError(f"{script.name}: {name} is a {type(found).__name__}, not a function or Module")
    return found  # type: ignore[no-any-return]


def _split(target: str) -> tuple[Path, str]:
    file, colon, name = target.rpartition(":")
    if not colon or not name or not file:
        raise click.BadParameter(f"expected SCRIPT.py:FUNCTION, got {target!r}")
    return Path(file).resolve(), name


def _dynamic(items: Sequence[str]) -> dict[str, dict[int, str]]:
    """`x:0=N` … as trace() takes it. Raises click.BadParameter."""
    found: dict[str, dict[int, str]] = {}
    for item in items:
        place, equals, size = item.partition("=")
        name, colon, axis = place.rpartition(":")
        if not (equals and colon and name and size.isidentifier() and axis.lstrip("-").isdigit()):
            raise click.BadParameter(f"--dynamic expects NAME:AXIS=SIZE such as x:0=N, got {item!r}")
        found.setdefault(name, {})[int(axis)] = size
    return found


def _arguments(function: Callable[..., Any], name: str, given: Mapping[str, Any]) -> list[Any]:
    """The values in the order of the function's parameters. Raises click.UsageError for a name too many or too few."""
    import graphc

    parameters = _parameters(function)
    unknown = [key for key in given if key not in parameters]
    if unknown:
        raise click.UsageError(f"{name} has no parameter {unknown[0]!r}; it has {', '.join(parameters) or 'none'}")
    found = []
    last = max((k for k, key in enumerate(parameters) if key in given), default=-1)
    for k, (key, parameter) in enumerate(parameters.items()):
        if key in given:
            value = given[key]
            found.append(graphc.from_numpy(value) if isinstance(value, np.ndarray) else value)
        elif parameter.default is parameter.empty:
            raise click.UsageError(f"{name} needs {key!r}; say --input {key}=f32[2,3] or --input {key}=NUMBER")
        elif k < last:  # an argument after it is given by position
            found.append(parameter.default)
    return found


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    forward = getattr(function, "forward", None)
    is_module = hasattr(type(function), "_graphc_module") and forward is not None
    signature = inspect.signature(forward if is_module else function)  # type: ignore[arg-type]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {name: p for name, p in signature.parameters.items() if p.kind in positional}
