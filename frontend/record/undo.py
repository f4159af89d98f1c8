"""Running a function of the user's without a trace: what it changed outside is put back."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import CellType
from typing import Any

import numpy as np

from graphc.frontend.record.texts import Texts
from graphc.frontend.record.watch import _MISSING, Watcher, _alike, _fields_of, _inside, _now, _random_states


class Undone:
    """Whether anything had to be put back."""

    changed = False


@contextmanager
def undoing(watcher: Watcher) -> Iterator[Undone]:
    """Afterwards the outside objects that `watcher` noted, and the random numbers of Python and NumPy, are as before.

    An iterator that moved on stays where it is; the report says so, as of everything that changed.
    """
    report = Undone()
    before = [_state(kind, x, held) for kind, x, held, _ in watcher._notes]
    values = {k: globals_.get(name, _MISSING) for k, (globals_, name, _) in watcher._globals.items()}
    cells = {k: _inside(cell) for k, (cell, _, _) in watcher._cells.items()}
    python, numpy = random.getstate(), np.random.get_state()
    drawn = _random_states()
    try:
        yield report
    finally:
        for k, (kind, x, held, _) in enumerate(watcher._notes):
            old = before[k] if k < len(before) else held  # noted meanwhile, before its code ran
            if not _same(kind, _state(kind, x, held), old):
                report.changed = True
                _put_back(kind, x, old)
        for place, (globals_, name, first) in watcher._globals.items():
            old = values.get(place, first)
            if globals_.get(name, _MISSING) is not old:
                report.changed = True
                _put(globals_, name, old)
        for key, (cell, first, _) in watcher._cells.items():
            old = cells.get(key, first)
            if _inside(cell) is not old:
                report.changed = True
                _fill(cell, old)
        if _random_states() != drawn:
            report.changed = True
            random.setstate(python)
            np.random.set_state(numpy)


def noting(watcher: Watcher, function: Any, given: Any) -> Watcher:
    """A watcher of what a function reaches by its variables, those of the functions around it included, and by what it
    is given.
    """
    found = Watcher(Texts())
    found._names = set(watcher._names)
    found._roots = [(function, ""), (given, "")]
    found._walk()
    return found


def _state(kind: str, x: Any, held: Any) -> Any:
    return len(x) if kind == "size" else _now(kind, x, held)


def _same(kind: str, now: Any, old: Any) -> bool:
    return bool(now == old) if kind == "size" else _alike(kind, now, old)


def _put_back(kind: str, x: Any, old: Any) -> None:
    if kind == "items":
        if isinstance(x, list):
            x[:] = old
        else:
            x.clear()
            x.extend(old) if isinstance(x, deque) else x.update(old)
    elif kind == "size" and isinstance(x, list):
        del x[old:]
    elif kind not in ("size", "iterator"):
        now = _fields_of(kind, x, old)
        put, take = (setattr, delattr) if isinstance(x, type) else (object.__setattr__, object.__delattr__)
        for name in [n for n in now if n not in old and not n.startswith("__")]:
            take(x, name)
        for name, value in old.items():
            if now.get(name, _MISSING) is not value and not name.startswith("__"):
                put(x, name, value)


def _put(names: dict[str, Any], name: str, old: Any) -> None:
    if old is _MISSING:
        names.pop(name, None)
    else:
        names[name] = old


def _fill(cell: CellType, old: Any) -> None:
    if old is _MISSING:
        del cell.cell_contents
    else:
        cell.cell_contents = old
