"""What users call: compile, trace, load and their companions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

from graphc.errors import ArgumentError
from graphc.frontend import methods as methods  # Tensor gets its methods
from graphc.frontend.checkpoint import read, read_file, save
from graphc.frontend.record import export
from graphc.frontend.record.callbacks import freeze, host
from graphc.frontend.record.compiled import RecordingWarning, is_compiling, no_retrace
from graphc.frontend.record.export import Program, trace
from graphc.frontend.record.front import CompileNote, compile

__all__ = [
    "CompileNote",
    "Program",
    "RecordingWarning",
    "compile",
    "freeze",
    "host",
    "is_compiling",
    "load",
    "no_retrace",
    "save",
    "trace",
]

_ZIP = b"PK"


def load(f: str | os.PathLike[str] | BinaryIO, map_location: Any = None, *, weights_only: bool = True) -> Any:
    """What a file holds: the Program that Program.save() wrote, or the value that save() wrote; from a path or a binary
    file (values only).

    Runs nothing from the file. Tensors live on the CPU, whatever `map_location` says. Raises ArtifactError for anything
    but a valid file.
    """
    if not isinstance(f, (str, bytes, os.PathLike)) and not hasattr(f, "read"):
        raise ArgumentError(f"load: expected a path or a binary file, got {type(f).__name__} {f!r:.40}; give its name")
    if not hasattr(f, "read") and not _is_value(Path(f)):
        return export.load(os.fspath(f))
    data, name = read_file(f)
    return read(data, name)


def _is_value(path: Path) -> bool:
    """True for a file that is there and is no ZIP."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(2) != _ZIP
    except OSError:
        return False
