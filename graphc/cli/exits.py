"""Exit codes, and the one line a failed command writes to stderr."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from graphc.cli.output import plain
from graphc.errors import ArtifactError, GraphcError, GuardError, InternalError, RecordingError, UnsupportedError

OK, MISMATCH, USAGE, BAD_ARTIFACT, UNSUPPORTED, MISSING_EXTRA, INTERNAL = 0, 1, 2, 3, 4, 5, 70
INTERRUPTED = 130
_EXTRAS = {"sklearn": "examples"}  # module -> the extra that brings it


class ScriptError(Exception):
    """The user's own script raised; the message names its line."""


class MissingExtra(Exception):
    """A command needs a package that is not installed; the message says what to install."""


def run_app(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code. Nothing but the exit of the process itself gets past it."""
    with contextlib.suppress(Exception):  # stderr may be closed or have no file descriptor
        faulthandler.enable()
    from graphc.cli.app import app

    try:
        found = app.main(list(arguments), prog_name="graphc", standalone_mode=False)
        sys.stdout.flush()
        return found if isinstance(found, int) else OK
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except click.ClickException as error:
        return _report(error.format_message(), error, USAGE, _hint(error))
    except (KeyboardInterrupt, click.Abort) as error:
        return _report("interrupted", error, INTERRUPTED)
    except Exception as error:
        return _report(*_described(error))


def _described(error: Exception) -> tuple[str, Exception, int]:
    text = str(error)
    if isinstance(error, InternalError):
        return text, error, INTERNAL
    if isinstance(error, ScriptError):
        return text, error, USAGE
    if isinstance(error, MissingExtra):
        return text, error, MISSING_EXTRA
    if isinstance(error, ArtifactError):
        return text, error, BAD_ARTIFACT
    if isinstance(error, UnsupportedError | RecordingError | GuardError):
        return text, error, UNSUPPORTED
    if isinstance(error, GraphcError):
        return text, error, USAGE
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}", error, USAGE
    name = type(error).__name__
    return f"internal error: {name}: {text} (set GRAPHC_DEBUG=1 for the traceback and report it)", error, INTERNAL


def _hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f" (see {context.command_path} --help)" if context is not None else ""


def _report(message: str, error: BaseException, code: int, hint: str = "") -> int:
    from graphc.config import config

    if config.debug >= 1:
        traceback.print_exception(error)
    print(f"graphc: {plain(' '.join(message.split()))}{hint}", file=sys.stderr)
    return code


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
    return ScriptError(f"{place}: {type(error).__name__}: {error}")
