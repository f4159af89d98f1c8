"""The command line: `graphc trace | show | run | check | explain`.

`app.py` declares the commands; each one lives in its own module, imported when it runs, so that `graphc --help` loads
neither NumPy nor LLVM. `entry.py` runs one and writes to
stderr what went wrong; `exits.py` decides the exit code.
"""

from __future__ import annotations


def main() -> None:
    """The entry point: run the command in sys.argv and end the process with its exit code."""
    import sys

    from graphc.cli.entry import run_app

    sys.exit(run_app(sys.argv[1:]))
