"""Running one command: the one line a failed one writes to stderr, and the exit code of each."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import traceback
from collections.abc import Sequence

import click

from graphc.cli.app import app
from graphc.cli.exits import INTERRUPTED, OK, USAGE, described
from graphc.cli.output import plain


def run_app(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code. Nothing but the exit of the process itself gets past it."""
    with contextlib.suppress(Exception):  # stderr may be closed or have no file descriptor
        faulthandler.enable()
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
        message, code = described(error)
        return _report(message, error, code)


def _hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f" (see {context.command_path} --help)" if context is not None else ""


def _report(message: str, error: BaseException, code: int, hint: str = "") -> int:
    from graphc.config import config

    if config.debug >= 1:
        traceback.print_exception(error)
    print(f"graphc: {plain(' '.join(message.split()))}{hint}", file=sys.stderr)
    return code
