"""Runs the examples of a Markdown file: `python doc_blocks.py FILE`, in an empty folder.

Blocks are run in order and share names and the folder. What they must print stands below each command:
    ```python   a session with >>> prompts; without prompts the block is just run
    ```console  lines with $ are commands; `graphc` and `python` are those of this interpreter
    ```python title=net.py   the block becomes that file
`...` in expected output stands for anything. Other blocks (```sh, ```text) are not run.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", re.M | re.S)
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.FAIL_FAST


def blocks(text: str) -> list[tuple[str, str, str, int]]:
    """(language, title, content, line) of every fenced block."""
    return [(m[1], m[2] or "", m[3], text.count("\n", 0, m.start()) + 2) for m in _BLOCK.finditer(text)]


def run(path: Path) -> int:
    """Run all examples of `path` in the current folder and return how many there were. Raises AssertionError."""
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for language, title, content, line in blocks(path.read_text(encoding="utf-8")):
        where = f"{path.name}:{line}"
        if title:
            Path(title).write_text(content, encoding="utf-8")
        elif language == "python":
            count += _python(content, names, where)
        elif language == "console":
            count += _console(content, where)
    return count


def _python(content: str, names: dict[str, Any], where: str) -> int:
    if ">>>" not in content:
        exec(compile(content, where, "exec"), names)
        return 1
    test = doctest.DocTestParser().get_doctest(content, names, where, where, 0)
    runner = doctest.DocTestRunner(optionflags=_FLAGS)
    assert runner.run(test, clear_globs=False).failed == 0, where
    names.update(test.globs)
    return len(test.examples)


def _console(content: str, where: str) -> int:
    parts = re.split(r"^\$ ", content, flags=re.M)[1:]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for part in parts:
        command, _, expected = part.partition("\n")
        done = subprocess.run(command, shell=True, capture_output=True, text=True, env={**os.environ, "PATH": path})
        found = "\n".join(line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip())
        wanted = "\n".join(line.strip() for line in expected.splitlines() if line.strip())
        assert doctest.OutputChecker().check_output(wanted, found, _FLAGS), f"{where}: {command}\n{found}"
    return len(parts)


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # the files of the examples, not those of the tests
    print(run(Path(sys.argv[1])))
