"""`graphc run`: a model on given or random inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import graphc
from graphc.cli.inputs import Array, fill_inputs, given_values, parse_sizes, write_archive
from graphc.cli.output import counted, say, say_json, say_table
from graphc.ir.types import TensorType, dtype_of

SHOWN = 6  # elements of an output in the table
LISTED = 64  # elements of an output in JSON


def run(
    model: Path,
    output: Path | None,
    specs: Sequence[str],
    archive: Path | None,
    sizes: Sequence[str],
    seed: int,
    as_json: bool,
) -> int:
    """The command. Raises GuardError where a branch of the trace would go another way for these inputs."""
    program = graphc.load(model)
    given = given_values(specs, archive, seed)
    arrays, _ = fill_inputs(program.graph, program.state, given, parse_sizes(sizes), seed)
    results = program.run(arrays)
    tested = {e.output for e in program.signature.expectations}
    found = {
        o.name: (o.kind, array)
        for k, (o, array) in enumerate(zip(program.graph.outputs, results, strict=True))
        if k not in tested
    }
    if output is not None:
        write_archive(output, {name: array for name, (_, array) in found.items()})
    if as_json:
        say_json({"file": str(model), "outputs": [_entry(n, k, a) for n, (k, a) in found.items()]})
        return 0
    say_table("", ("output", "kind", "type", "values"), [_row(n, k, a) for n, (k, a) in found.items()])
    if output is not None:
        say(f"{counted(len(found), 'array')} written to {output}")
    return 0


def _type(array: Array) -> str:
    return str(TensorType(dtype_of(array.dtype), array.shape))


def _row(name: str, kind: str, array: Array) -> tuple[str, str, str, str]:
    first = " ".join(f"{x:.6g}" if array.dtype.kind == "f" else str(x) for x in array.reshape(-1)[:SHOWN])
    return name, kind, _type(array), first + (" …" if array.size > SHOWN else "")


def _entry(name: str, kind: str, array: Array) -> dict[str, Any]:
    """An output in JSON: the values where they are few, a hash of the bytes always."""
    data = np.ascontiguousarray(array)
    entry = {"name": name, "kind": kind, "type": _type(array), "sha256": hashlib.sha256(data.tobytes()).hexdigest()}
    return entry | ({"values": _plain(data.tolist())} if data.size <= LISTED else {})


def _plain(values: Any) -> Any:
    """Nested lists as JSON knows them: a complex number is the pair of its parts."""
    if isinstance(values, list):
        return [_plain(v) for v in values]
    return [values.real, values.imag] if isinstance(values, complex) else values
