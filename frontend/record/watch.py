"""What the user's Python did while a function was recorded: which code ran, and what it changed outside.

`sys.setprofile` tells which code objects ran. Before the body of each runs, the outside objects it can reach along the names it uses are
noted; after the recording they are compared by identity. A change is an effect on Python that a graph cannot repeat.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CellType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from graphc.frontend.record.where import kind_of
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor
from graphc.ir.graph import Location

_MISSING = object()
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type, FunctionType, BuiltinFunctionType, ModuleType, CodeType, CellType)
_MAX_ITEMS = 1000
_DEPTH = 6
_STORES = frozenset({"STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF", "DELETE_ATTR", "DELETE_GLOBAL", "DELETE_DEREF"})


def is_module(x: Any) -> bool:
    """True for nn.Module instances (told apart without importing nn)."""
    return hasattr(type(x), "_graphc_module")


def is_optimizer(x: Any) -> bool:
    """True for Optimizer instances."""
    return hasattr(type(x), "_graphc_optimizer")


class Watcher:
    """Collects executed user code and notes outside objects before they can change."""

    def __init__(self) -> None:
        self.codes: dict[CodeType, dict[str, Any]] = {}  # code -> its globals
        self.prints: list[Location] = []
        self._outside: dict[int, Any] = {}  # holds the objects, so their ids stay theirs
        self._notes: list[tuple[Any, Any, str]] = []  # (object, what it held, how the user calls it)
        self._globals: dict[tuple[int, str], tuple[dict[str, Any], str, Any]] = {}
        self._cells: dict[int, tuple[CellType, Any, str]] = {}
        self._calls: list[tuple[Any, Location]] = []  # bound C methods called on noted containers
        self._previous: Any = None

    def start(self, function: Any, arguments: list[Any]) -> None:
        """Begin watching a call of `function`; `arguments` are outside objects."""
        names = _code_names(function)
        for x in arguments:
            self._note(x, "an argument", names, 0)
        self._note(function, getattr(function, "__name__", "the function"), names, 0)
        self._previous = sys.getprofile()
        sys.setprofile(self._event)

    def stop(self) -> None:
        """End watching."""
        previous = self._previous
        if previous is None or callable(previous):
            sys.setprofile(previous)
            return
        sys.setprofile(None)
        previous.enable()  # a cProfile.Profile: it cannot be set, only switched on again

    def names(self) -> frozenset[str]:
        """Every name the executed user code mentions."""
        return frozenset(n for code in self.codes for n in (*code.co_names, *code.co_freevars))

    def _event(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            if kind_of(frame.f_code) == "user":
                self._enter(frame)
        elif event == "c_call" and kind_of(frame.f_code) == "user":
            owner = getattr(arg, "__self__", None)
            if arg is print:
                self.prints.append(Location(frame.f_code, frame.f_lasti))
            elif isinstance(owner, (list, dict, set)) and id(owner) in self._outside:
                self._calls.append((owner, Location(frame.f_code, frame.f_lasti)))

    def _enter(self, frame: FrameType) -> None:
        code = frame.f_code
        names = frozenset(code.co_names)
        if code not in self.codes:
            self.codes[code] = frame.f_globals
            for name in code.co_names:
                if name in frame.f_globals:
                    value = frame.f_globals[name]
                    self._globals.setdefault((id(frame.f_globals), name), (frame.f_globals, name, value))
                    self._note(value, name, names, 0)
                else:
                    self._globals.setdefault((id(frame.f_globals), name), (frame.f_globals, name, _MISSING))
        for name, value in frame.f_locals.items():
            if id(value) in self._outside:
                self._outside.pop(id(value))  # look again: this code may use other names
                self._note(value, name, names, 0)

    def _note(self, x: Any, label: str, names: frozenset[str], depth: int) -> None:
        if depth > _DEPTH or id(x) in self._outside or isinstance(x, Tensor):
            return
        if isinstance(x, FunctionType):
            self._note_function(x, names, depth)
            return
        if isinstance(x, MethodType):
            self._note(x.__self__, label, names, depth)
            return
        if isinstance(x, _PLAIN) and not isinstance(x, ModuleType):
            return
        self._outside[id(x)] = x
        if isinstance(x, (list, dict, set)):
            if len(x) <= _MAX_ITEMS:
                self._notes.append((x, list(x.items()) if isinstance(x, dict) else list(x), label))
            for key, item in _items(x):
                self._note(item, f"{label}[{key!r}]", names, depth + 1)
            return
        if isinstance(x, tuple):
            for item in x[:_MAX_ITEMS]:
                self._note(item, label, names, depth + 1)
            return
        self._note_object(x, label, names, depth)

    def _note_function(self, f: FunctionType, names: frozenset[str], depth: int) -> None:
        if kind_of(f.__code__) != "user":
            return
        self._outside[id(f)] = f
        inner = names | frozenset(f.__code__.co_names)
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:
                value = _MISSING
            self._cells.setdefault(id(cell), (cell, value, name))
            self._note(value, name, inner, depth + 1)
        for value in f.__defaults__ or ():
            self._note(value, f.__name__, inner, depth + 1)

    def _note_object(self, x: Any, label: str, names: frozenset[str], depth: int) -> None:
        fields = getattr(x, "__dict__", None)
        if not isinstance(fields, dict):
            return
        if is_module(x):
            for name, child in list(fields.get("_modules", {}).items()):
                self._note(child, f"{label}.{name}", names, max(depth - 1, 0))
        elif isinstance(x, ModuleType):
            if x.__name__.split(".")[0] in ("graphc", "numpy", "sys", "builtins"):
                return
        elif not is_optimizer(x):
            self._notes.append((x, dict(fields), label))
        for name in names & fields.keys():
            self._note(fields[name], f"{label}.{name}", names, depth + 1)

    def effects(self) -> Iterator[tuple[str, Location | None]]:
        """What changed outside: (description, user's line when known), in a fixed order."""
        for globals_, name, value in self._globals.values():
            now = globals_.get(name, _MISSING)
            if now is not value:
                yield f"the global {name!r} is written", self._line(("STORE_GLOBAL", "DELETE_GLOBAL"), name)
        for cell, value, name in self._cells.values():
            try:
                now = cell.cell_contents
            except ValueError:
                now = _MISSING
            if now is not value:
                yield f"the outer variable {name!r} is written", self._line(("STORE_DEREF", "DELETE_DEREF"), name)
        for x, before, label in self._notes:
            yield from self._changed(x, before, label)

    def _changed(self, x: Any, before: Any, label: str) -> Iterator[tuple[str, Location | None]]:
        if isinstance(x, (list, set, dict)):
            now = list(x.items()) if isinstance(x, dict) else list(x)
            if len(now) != len(before) or not all(map(_identical, now, before)):
                where = next((loc for owner, loc in self._calls if owner is x), None)
                yield f"{label} ({type(x).__name__}) is changed", where or self._line(("STORE_SUBSCR", "DELETE_SUBSCR"), None)
            return
        fields = x.__dict__
        for name in sorted(fields.keys() | before.keys()):
            if fields.get(name, _MISSING) is not before.get(name, _MISSING):
                yield f"{label}.{name} is written", self._line(("STORE_ATTR", "DELETE_ATTR"), name)

    def replace_scalars(self) -> None:
        """Where Python stored a recorded number outside, put the plain number."""
        for x, _, _ in self._notes:
            fields = x if isinstance(x, (list, dict)) else getattr(x, "__dict__", {})
            for key, item in _items(fields):
                if isinstance(item, Scalar):
                    fields[key] = item.number
        for globals_, name, _ in self._globals.values():
            if isinstance(globals_.get(name), Scalar):
                globals_[name] = globals_[name].number
        for cell, _, _ in self._cells.values():
            try:
                if isinstance(cell.cell_contents, Scalar):
                    cell.cell_contents = cell.cell_contents.number
            except ValueError:
                continue

    def _line(self, kinds: tuple[str, ...], name: str | None) -> Location | None:
        for code in self.codes:
            for instruction in dis.get_instructions(code):
                if instruction.opname in kinds and (name is None or instruction.argval == name):
                    return Location(code, instruction.offset)
        return None


def _identical(a: Any, b: Any) -> bool:
    if type(a) is tuple and type(b) is tuple:
        return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))
    return a is b


def _items(x: Any) -> list[tuple[Any, Any]]:
    pairs = list(x.items()) if isinstance(x, dict) else list(enumerate(x))
    return pairs[:_MAX_ITEMS]


def _code_names(function: Any) -> frozenset[str]:
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return frozenset(code.co_names) if code is not None else frozenset()
