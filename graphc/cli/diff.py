"""`graphc show --diff`: what changed between two stages of a model.

Passes renumber values, so texts are aligned first, and what stands in both keeps the names it has in the first.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from graphc.cli.stages import Stage

CONTEXT = 2  # unchanged lines shown around a change
_NAME = re.compile(r"%[\w.?]+")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def diff_stages(first: Stage, second: Stage) -> list[str]:
    """The lines of a unified diff; none when the stages are equal."""
    before = [line.text for line in first.lines]
    after = _renamed(before, [line.text for line in second.lines])
    found = difflib.unified_diff(before, after, first.name, second.name, n=CONTEXT, lineterm="")
    return [line for line in found if not line.startswith("@@") or line.strip("@ ")]


def _renamed(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """The lines `after` with the names of `before` where a line computes the same; new names end in '."""
    shapes = [list(map(_shape, lines)) for lines in (before, after)]
    names: dict[str, str] = {}
    for kind, i, _, j, stop in difflib.SequenceMatcher(None, shapes[0], shapes[1], autojunk=False).get_opcodes():
        for k in range(j, stop):
            old = _defined(before[i + k - j]) if kind == "equal" else []
            for position, name in enumerate(_defined(after[k])):
                names.setdefault(name, old[position] if position < len(old) else f"{name}'")
    return [_NAME.sub(lambda m: names.get(m.group(), m.group()), line) for line in after]


def _shape(line: str) -> str:
    """What a line says but for the names of values."""
    return _NAME.sub("%", line)


def _defined(line: str) -> list[str]:
    """The values a line defines: graph inputs, or the results of a node."""
    if line.startswith("graph "):
        head = _STRING.sub('""', line)
        return [m.group() for m in re.finditer(r"%[\w.?]+(?=: )", head)]
    results, equals, _ = line.partition(" = ")
    return _NAME.findall(results) if equals and results.lstrip().startswith("%") else []


def counts(lines: Sequence[str]) -> tuple[int, int]:
    """Lines added and removed by a diff."""
    body = list(_body(lines))
    return sum(line.startswith("+") for line in body), sum(line.startswith("-") for line in body)


def _body(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[2:]
