"""What a function of the user's changes, in what it can reach; where it is run on trial, that is put back."""

from __future__ import annotations

import random
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import CellType, CodeType
from typing import Any

import numpy as np

from graphc.frontend.record.snapshots import MISSING, alike, fields_of, held_now, inside, random_states
from graphc.frontend.record.texts import Texts
from graphc.frontend.record.watch import Watcher
from graphc.frontend.record.where import names_of

_OPAQUE = (np.ndarray, bytearray, memoryview, array)


class Changes:
    """Whether anything changed."""

    found = False


@contextmanager
def changes(watcher: Watcher, undo: bool) -> Iterator[Changes]:
    """Report whether the objects that `watcher` noted, or the random numbers of Python and NumPy, change inside; with
    `undo` they are put back.
    """
    report = Changes()
    before = [_state(kind, x, held) for kind, x, held, _ in watcher._notes]
    values = {k: globals_.get(name, MISSING) for k, (globals_, name, _) in watcher._globals.items()}
    cells = {k: inside(cell) for k, (cell, _, _) in watcher._cells.items()}
    python, numpy = random.getstate(), np.random.get_state()
    drawn = random_states()
    try:
        yield report
    finally:
        for k, (kind, x, held, _) in enumerate(watcher._notes):
            old = before[k] if k < len(before) else held  # noted meanwhile, before its code ran
            if not _same(kind, _state(kind, x, held), old):
                report.found = True
                if undo:
                    _put_back(kind, x, old)
        for place, (globals_, name, first) in watcher._globals.items():
            old = values.get(place, first)
            if globals_.get(name, MISSING) is not old:
                report.found = True
                if undo:
                    _put(globals_, name, old)
        for key, (cell, first, _) in watcher._cells.items():
            old = cells.get(key, first)
            if inside(cell) is not old:
                report.found = True
                if undo:
                    _fill(cell, old)
        if random_states() != drawn:
            report.found = True
            if undo:
                random.setstate(python)
                np.random.set_state(numpy)


class Surroundings(Watcher):
    """What functions reach by their variables. `opaque`: something among them could change unseen."""

    opaque = False


def noting(watcher: Watcher, functions: Sequence[Any]) -> Surroundings:
    """What functions reach, by the variables of the functions around them, too."""
    found = Surroundings(Texts())
    found._names = set(watcher._names)
    stack, seen = list(functions), set[int]()
    while stack:
        x = stack.pop()
        x = getattr(x, "__func__", x)
        found.opaque = found.opaque or isinstance(x, _OPAQUE)
        code = x if isinstance(x, CodeType) else getattr(x, "__code__", None)
        if code is None or id(code) in seen:
            continue
        seen.add(id(code))  # held by the functions
        found._names |= names_of(code)
        stack += [c for c in code.co_consts if isinstance(c, CodeType)]
        stack += [inside(cell) for cell in getattr(x, "__closure__", None) or ()]
    found._roots = [(f, "") for f in functions]
    found._walk()
    return found


def unsafe(local: Surroundings, watcher: Watcher) -> str:
    """What there is among the things noted that cannot be put back, or whose changes are not seen; "" for nothing."""
    if local.opaque:
        return "an array of Python's or NumPy's"
    return "an iterator" if any(kind == "iterator" for w in (local, watcher) for kind, *_ in w._notes) else ""


def _state(kind: str, x: Any, held: Any) -> Any:
    return len(x) if kind == "size" else held_now(kind, x, held)


def _same(kind: str, now: Any, old: Any) -> bool:
    return bool(now == old) if kind == "size" else alike(kind, now, old)


def _put_back(kind: str, x: Any, old: Any) -> None:
    if kind == "items":
        if isinstance(x, list):
            x[:] = old
        else:
            x.clear()
            x.extend(old) if isinstance(x, deque) else x.update(old)
    elif kind == "size" and isinstance(x, (list, deque, dict)):
        while len(x) > old:
            x.popitem() if isinstance(x, dict) else x.pop()
    elif kind not in ("size", "iterator"):
        now = fields_of(kind, x, old)
        put, take = (setattr, delattr) if isinstance(x, type) else (object.__setattr__, object.__delattr__)
        for name in [n for n in now if n not in old and not n.startswith("__")]:
            take(x, name)
        for name, value in old.items():
            if now.get(name, MISSING) is not value and not name.startswith("__"):
                put(x, name, value)


def _put(names: dict[str, Any], name: str, old: Any) -> None:
    if old is MISSING:
        names.pop(name, None)
    else:
        names[name] = old


def _fill(cell: CellType, old: Any) -> None:
    if old is MISSING:
        del cell.cell_contents
    else:
        cell.cell_contents = old
