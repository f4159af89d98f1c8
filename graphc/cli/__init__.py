"""The command line: `graphc trace | show | run | check | explain`.

`app.py` declares the commands; each one lives in its own module, imported when it runs, so that `graphc --help` loads
neither NumPy nor LLVM. Exit codes and what goes to stderr are decided in `exits.py`.
"""

from __future__ import annotations


def main() -> None:
    """The entry point: run the command in sys.argv and end the process with its exit code."""
    import sys

    from graphc.cli.exits import run_app

    sys.exit(run_app(sys.argv[1:]))
