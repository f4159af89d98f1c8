"""Exit codes, and what each error means to the user of the command line."""

from __future__ import annotations

import traceback
from pathlib import Path

from graphc.errors import (
    ArtifactError,
    GraphcError,
    GuardError,
    InternalError,
    OutOfMemoryError,
    RecordingError,
    UnsupportedError,
)

OK, MISMATCH, USAGE, BAD_ARTIFACT, UNSUPPORTED, MISSING_EXTRA, INTERNAL = 0, 1, 2, 3, 4, 5, 70
INTERRUPTED = 130
_EXTRAS = {"sklearn": "examples"}  # module -> the extra that brings it


class ScriptError(Exception):
    """The user's own script raised; the message names its line."""


class MissingExtra(Exception):
    """A command needs a package that is not installed; the message says what to install."""


def described(error: Exception) -> tuple[str, int]:
    """The message for an error that ended a command, and the exit code."""
    text = str(error)
    if isinstance(error, InternalError):
        return text, INTERNAL
    if isinstance(error, ScriptError):
        return text, USAGE
    if isinstance(error, MissingExtra):
        return text, MISSING_EXTRA
    if isinstance(error, ArtifactError):
        return text, BAD_ARTIFACT
    if isinstance(error, UnsupportedError | RecordingError | GuardError | OutOfMemoryError):
        return text, UNSUPPORTED
    if isinstance(error, GraphcError):
        return text, USAGE
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}", USAGE
    if isinstance(error, MemoryError):
        return f"not enough memory: {text or 'an allocation failed'}", UNSUPPORTED
    name = type(error).__name__
    return f"internal error: {name}: {text} (set GRAPHC_DEBUG=1 for the traceback and report it)", INTERNAL


def script_error(error: Exception, script: Path) -> Exception | None:
    """`error` as a fault of the user's script, with its nearest line. None for what is not the script's fault."""
    if isinstance(error, InternalError | UnsupportedError | RecordingError | GuardError):
        return None
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _EXTRAS:
        module = (error.name or "").partition(".")[0]
        return MissingExtra(f'{script.name} needs {module}: pip install "graphc[{_EXTRAS[module]}]"')
    if isinstance(error, SyntaxError) and error.filename == str(script):
        return ScriptError(f"{script.name}:{error.lineno}: SyntaxError: {error.msg}")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(script)]
    if not frames and isinstance(error, GraphcError):
        return None
    place = f"{script.name}:{frames[-1].lineno}" if frames else script.name
    text = error.message if isinstance(error, GraphcError) and error.place == place else str(error)
    return ScriptError(f"{place}: {type(error).__name__}: {text}")
