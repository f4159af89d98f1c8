"""What the user's Python did while a function was recorded: which code ran, and what it changed outside.

`sys.setprofile` tells which code objects ran. Before the body of each runs, the outside objects it can reach along the
names it uses are noted; after the recording they are compared by identity. A change is an effect on Python that a graph
cannot repeat.
"""

from __future__ import annotations

import array
import dataclasses
import io
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np

from graphc.caller import KINDS, kind_of
from graphc.errors import RecordingError
from graphc.frontend.mode import using
from graphc.frontend.record.calls import Calls
from graphc.frontend.record.containers import content, size_of
from graphc.frontend.record.snapshots import (
    MAX_ITEMS,
    MISSING,
    alike,
    bits,
    fields_of,
    held_now,
    identical,
    inside,
    items,
    numpy_state,
    position,
    random_states,
    slots,
)
from graphc.frontend.record.texts import Texts, is_logging
from graphc.frontend.record.where import (
    by_import,
    imported_modules,
    instructions_of,
    is_class_body,
    is_user_class,
    method_of,
    names_of,
    users_fields,
)  # fmt: skip
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor
from graphc.ir.graph import Location
from graphc.ir.types import DType

_PLAIN = (bool, int, float, complex, str, bytes, type(None), BuiltinFunctionType, CodeType, CellType)
_CONTAINERS = (list, dict, set, deque)
_MEMORY = (bytearray, array.array, np.ndarray, io.StringIO, io.BytesIO)
_CHANGEABLE = (*_CONTAINERS, *_MEMORY)
_DEPTH = 6
_HOOKS = ("_modules", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
_LIBRARIES = frozenset({"graphc", "numpy", "sys", "builtins"})
_WRITES = frozenset({"write", "writelines"})
_RANDOM = frozenset({"random", "numpy.random"})  # how code calls the module
_LOADS = ("LOAD_DEREF", "LOAD_GLOBAL", "LOAD_ATTR", "LOAD_FAST")
_STARTS = frozenset({"call", "c_call"})

Effect = tuple[str, Location | None]


def is_module(x: Any) -> bool:
    """True for nn.Module instances (told apart without importing nn)."""
    return hasattr(type(x), "_graphc_module")


def is_optimizer(x: Any) -> bool:
    """True for Optimizer instances."""
    return hasattr(type(x), "_graphc_optimizer")


class Watcher:
    """Collects executed user code and notes outside objects before they can change."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts
        self.foreign = Calls()
        self.codes: dict[CodeType, dict[str, Any]] = {}  # code -> its globals
        self.prints: list[Location] = []
        self.writes: list[Location] = []  # to files, streams and logs
        # those seen, with their state before the call
        self.optimizers: list[tuple[Any, dict[Any, dict[str, Any]]]] = []
        self._names: set[str] = set()
        self._roots: list[tuple[Any, str]] = []
        self._seen: set[int] = set()  # of the walk that is running
        self._outside: dict[int, Any] = {}  # holds the objects, so their ids stay theirs
        self._notes: list[tuple[str, Any, Any, str]] = []  # (kind, object, what it held, how the user calls it)
        self._globals: dict[tuple[int, str], tuple[dict[str, Any], str, Any]] = {}
        self._cells: dict[int, tuple[CellType, Any, str]] = {}
        self._draws: list[Location] = []  # random numbers of Python's
        self._calls: list[tuple[Any, Location]] = []  # methods the user called on noted objects
        self._methods: dict[int, Any] = {}  # methods that ran
        self._previous: Any = sys.getprofile()

    def start(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Begin watching a call of `function`; the arguments are outside objects."""
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        names = () if code is None else code.co_varnames[hasattr(function, "__func__") : code.co_argcount]
        self._names.update(names_of(code) if code is not None else ())
        self._roots += zip(args, chain(names, repeat("an argument")), strict=False)
        self._roots += [(x, name) for name, x in kwargs.items()]
        self._roots.append((function, getattr(function, "__name__", "the function")))
        self._random = random_states()
        self._expect_random()
        self._walk()
        self._previous = sys.getprofile()
        sys.setprofile(self._event)

    def stop(self) -> None:
        """End watching."""
        if self._previous is None or callable(self._previous):
            sys.setprofile(self._previous)
            return
        sys.setprofile(None)
        self._previous.enable()  # cProfile's object, which sys.setprofile() gives but does not take

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Inside, Python may change what it likes: that is no effect of the function watched."""
        hook = sys.getprofile()
        sys.setprofile(None)
        before = [held_now(kind, x, held) for kind, x, held, _ in self._notes]
        values = {k: globals_.get(name, MISSING) for k, (globals_, name, _) in self._globals.items()}
        cells = {k: inside(cell) for k, (cell, _, _) in self._cells.items()}
        drawn = random_states()
        try:
            yield
        finally:
            for k, (state, (kind, x, held, label)) in enumerate(zip(before, self._notes, strict=False)):
                if alike(kind, state, held):
                    self._notes[k] = (kind, x, held_now(kind, x, held), label)
            for place, value in values.items():
                globals_, name, held = self._globals[place]
                if value is held:
                    self._globals[place] = (globals_, name, globals_.get(name, MISSING))
            for c, value in cells.items():
                cell, held, name = self._cells[c]
                if value is held:
                    self._cells[c] = (cell, inside(cell), name)
            if drawn == self._random:
                self._random = random_states()
            sys.setprofile(hook)

    def _event(self, frame: FrameType, event: str, arg: Any) -> None:
        if event not in _STARTS:
            return
        code = frame.f_code
        kind = KINDS.get(code.co_filename) or kind_of(code)
        if event == "call":
            if kind == "ours":
                if code.co_argcount:
                    self._called(frame)
            elif kind == "user":
                self._enter(frame)
            elif frame.f_back is not None and is_logging(frame):
                self.texts.show(frame.f_back)
            elif self.foreign.entered(frame):
                self._enter(frame)
        elif kind == "ours":
            return  # functions in C that graphc itself calls
        elif arg.__name__ in _WRITES and isinstance(getattr(arg, "__self__", None), io.IOBase):
            self._written(frame, arg.__self__)
        elif kind == "library":
            self.foreign.called_behind(frame, arg)
        elif kind == "user":
            owner = getattr(arg, "__self__", None)
            self.foreign.called(frame, arg)
            if arg is print:
                self.prints.append(Location(frame.f_code, frame.f_lasti))
                self.texts.show(frame)
            elif isinstance(owner, random.Random):
                self._draws.append(Location(frame.f_code, frame.f_lasti))
            elif isinstance(owner, _CHANGEABLE) and id(owner) in self._outside:
                self._calls.append((owner, Location(frame.f_code, frame.f_lasti)))

    def _written(self, frame: FrameType | None, file: io.IOBase) -> None:
        """The user writes to a file or to the log, perhaps through the standard library."""
        while frame is not None and kind_of(frame.f_code) == "library":
            frame = frame.f_back
        if frame is not None and kind_of(frame.f_code) == "user" and not isinstance(file, (io.StringIO, io.BytesIO)):
            self.writes.append(Location(frame.f_code, frame.f_lasti))
            self.texts.show(frame)

    def _called(self, frame: FrameType) -> None:
        """The user calls a method of ours: where, should it change its object."""
        caller = frame.f_back
        users = caller is not None and kind_of(caller.f_code) == "user" and frame.f_code.co_varnames[0] == "self"
        if caller is not None and users and id(owner := frame.f_locals.get("self")) in self._outside:
            self._calls.append((owner, Location(caller.f_code, caller.f_lasti)))

    def _enter(self, frame: FrameType) -> None:
        code = frame.f_code
        if by_import(frame):
            return
        method = method_of(frame) if code.co_freevars else None  # with variables that are found along no name
        if method is not None and not any(code in outer.co_consts for outer in self.codes if is_class_body(outer)):
            self._roots.append((method, code.co_name))
            if code in self.codes and id(method) not in self._methods:
                self._walk()
            self._methods[id(method)] = method
        if code in self.codes:
            return
        self.codes[code] = frame.f_globals
        self._names |= names_of(code)
        self._expect_random()
        for name in code.co_names:
            value = frame.f_globals.get(name, MISSING)
            self._globals.setdefault((id(frame.f_globals), name), (frame.f_globals, name, value))
            if value is not MISSING:
                self._roots.append((value, name))
        for name in sorted(imported_modules(code) & sys.modules.keys()):
            self._roots.append((sys.modules[name], name))
        self._walk()

    def _expect_random(self) -> None:
        """numpy.random takes a while to import: it is looked at once code that may use it is about to run."""
        if self._random[1] is None and not _RANDOM.isdisjoint(self._names):
            self._random = (self._random[0], numpy_state())

    # ---- noting

    def _walk(self) -> None:
        """Note all that can be reached from outside along the names known by now."""
        self._seen = set()
        with using(recorder=None):  # a label may show a tensor that is a key
            for x, label in self._roots:
                self._note(x, label, 0)

    def _keep(self, kind: str, x: Any, before: Any, label: str) -> None:
        if id(x) not in self._outside:
            self._outside[id(x)] = x
            self._notes.append((kind, x, before, label))

    def _note(self, x: Any, label: str, depth: int) -> None:
        if depth > _DEPTH or id(x) in self._seen or isinstance(x, _PLAIN):
            return
        if isinstance(x, Tensor):
            self._note_tensor(x, label, depth)
            return
        self._seen.add(id(x))
        if isinstance(x, FunctionType):
            self._note_function(x, depth)
        elif isinstance(x, MethodType):
            self._note(x.__self__, label, depth)
        elif isinstance(x, _CONTAINERS):
            if size_of(x) <= MAX_ITEMS:
                self._keep("items", x, content(x), label)
            else:
                self._keep("size", x, size_of(x), label)
            for key, item in items(x):
                self._note(item, f"{label}[{key!r}]", depth + 1)
        elif isinstance(x, _MEMORY):
            self._keep("content", x, bits(x), label)
        elif isinstance(x, tuple):
            for item in x[:MAX_ITEMS]:
                self._note(item, label, depth + 1)
        elif isinstance(x, type):
            self._note_class(x, depth)
        elif hasattr(type(x), "__next__"):
            self._keep("iterator", x, position(x), label)
        elif not isinstance(x, ModuleType) or x.__name__.split(".")[0] not in _LIBRARIES:
            self._note_object(x, label, depth)

    def _note_tensor(self, t: Tensor, label: str, depth: int) -> None:
        """Only what a user gave it: attributes of our own are followed."""
        names = users_fields(t)
        self._keep("given", t, {n: t.__dict__[n] for n in names}, label)
        for name in sorted(self._names & names):
            self._note(t.__dict__[name], f"{label}.{name}", depth + 1)

    def _note_function(self, f: FunctionType, depth: int) -> None:
        cells = zip(f.__code__.co_freevars, f.__closure__ or (), strict=True)
        if kind_of(f.__code__) == "user":
            self._keep("fields", f, dict(f.__dict__), f.__name__)
            for name in sorted(self._names & f.__dict__.keys()):
                self._note(f.__dict__[name], f"{f.__name__}.{name}", depth + 1)
        for name, cell in cells:
            try:
                value = cell.cell_contents
            except ValueError:
                value = MISSING
            if kind_of(f.__code__) == "user":
                self._cells.setdefault(id(cell), (cell, value, name))
            self._note(value, name, depth + 1)
        for value in (*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values()):
            self._note(value, f.__name__, depth + 1)

    def _note_class(self, cls: type, depth: int) -> None:
        if not is_user_class(cls):
            return
        self._keep("fields", cls, dict(cls.__dict__), cls.__name__)
        for name in sorted(self._names & cls.__dict__.keys()):
            self._note(cls.__dict__[name], f"{cls.__name__}.{name}", depth + 1)

    def _note_object(self, x: Any, label: str, depth: int) -> None:
        fields = getattr(x, "__dict__", None)
        if is_user_class(type(x)):
            self._note_class(type(x), depth)
            held = {n: getattr(x, n, MISSING) for c in type(x).__mro__ for n in slots(c)}
            if held:
                self._keep("slots", x, held, label)
        if not isinstance(fields, dict):
            return
        if is_module(x):
            self._note_module(x, fields, label, depth)
        elif is_optimizer(x):
            self._note_optimizer(x, label, depth)
        elif hasattr(type(x), "_graphc_compiled"):
            self._note(x.function, label, depth)
            return
        else:
            self._keep("fields", x, dict(fields), label)
        for name in sorted(self._names & fields.keys()):
            self._note(fields[name], f"{label}.{name}", depth + 1)

    def _note_module(self, x: Any, fields: dict[str, Any], label: str, depth: int) -> None:
        self._outside[id(x)] = x
        for store in _HOOKS:
            self._keep("items", fields[store], content(fields[store]), f"{label}.{store}")
            for name, item in list(fields[store].items()):
                self._note(item, f"{label}.{name}", max(depth - 1, 0))

    def _note_optimizer(self, x: Any, label: str, depth: int) -> None:
        if id(x) not in self._outside:
            self.optimizers.append((x, {p: dict(s) for p, s in x.state.items()}))
            self._outside[id(x)] = x
        self._note(x.param_groups, f"{label}.param_groups", max(depth - 1, 0))

    # ---- what changed

    def effects(self) -> list[Effect]:
        """What changed outside: (description, user's line when known), those with a line first."""
        found = list(self._effects())
        return [e for e in found if e[1] is not None] + [e for e in found if e[1] is None]

    def _effects(self) -> Iterator[Effect]:
        for name, before, now in zip(("random", "numpy.random"), self._random, random_states(), strict=True):
            if before is not None and before != now:
                line = self._line(("LOAD_GLOBAL", "LOAD_ATTR", "LOAD_DEREF", "LOAD_METHOD"), "random")
                drawn = self._draws[0] if self._draws else self._first_line()
                yield f"the state of {name} is moved on", line or drawn
        for globals_, name, value in self._globals.values():
            now = globals_.get(name, MISSING)
            if now is not value:
                yield f"the global {name!r} is written", self._line(("STORE_GLOBAL", "DELETE_GLOBAL"), name)
        for cell, value, name in self._cells.values():
            try:
                now = cell.cell_contents
            except ValueError:
                now = MISSING
            if now is not value:
                yield f"the outer variable {name!r} is written", self._line(("STORE_DEREF", "DELETE_DEREF"), name)
        for kind, x, before, label in self._notes:
            yield from self._changed(kind, x, before, label)

    def _changed(self, kind: str, x: Any, before: Any, label: str) -> Iterator[Effect]:
        called = next((loc for owner, loc in self._calls if owner is x), None)
        if kind == "items":
            now = content(x)
            if len(now) != len(before) or not all(map(identical, now, before)):
                where = called or self._line(("STORE_SUBSCR", "DELETE_SUBSCR"), None)
                where = where or self._line(("LOAD_METHOD", "LOAD_ATTR"), "__setitem__")  # not seen as a call
                yield f"{label} ({type(x).__name__}) is changed", where or self._owner_called(x)
        elif kind == "content":
            if bits(x) != before:
                line = None if isinstance(x, io.IOBase) else self._line(("STORE_SUBSCR", "DELETE_SUBSCR"), None)
                line = called or line or self._line(_LOADS, label.rpartition(".")[2])
                yield f"{label} ({type(x).__name__}) is changed", line or self._first_line()
        elif kind == "size":
            if size_of(x) != before:
                yield f"{label} ({type(x).__name__}) is changed", called or self._owner_called(x)
        elif kind == "iterator":
            # a generator in a loop comes back to the same yield: that its code ran is what tells
            if position(x) != before or (isinstance(x, GeneratorType) and x.gi_code in self.codes):
                line = self._line(_LOADS, label)
                yield f"{label} ({type(x).__name__}) is moved on", line or called or self._first_line()
        else:
            fields = fields_of(kind, x, before)
            for name in sorted(fields.keys() | before.keys()):
                if fields.get(name, MISSING) is not before.get(name, MISSING) and not name.startswith("__"):
                    line = self._line(("STORE_ATTR", "DELETE_ATTR"), name)
                    yield f"{label}.{name} is written", line or called or self._line(("LOAD_CONST",), name)

    def _first_line(self) -> Location | None:
        """Of the function watched, where nothing better is known."""
        return next((Location(code, 0) for code in self.codes if not code.co_filename.startswith("<")), None)

    def _owner_called(self, store: Any) -> Location | None:
        """Where the user called a method of the module that holds `store`."""
        for owner, loc in self._calls:
            fields = getattr(owner, "__dict__", {})
            if any(v is store for v in fields.values()):
                return loc
        return None

    def refuse_outside(self, result: Any, where: Location, depth: int = 0) -> None:
        """Raise RecordingError where the result is or holds a list, dict or dataclass instance made before the call."""
        if isinstance(result, Tensor) or is_module(result) or depth > _DEPTH:
            return
        inner = result.values() if isinstance(result, dict) else result if isinstance(result, (list, tuple)) else ()
        if dataclasses.is_dataclass(result) and not isinstance(result, (type, DType)):
            inner = [getattr(result, f.name) for f in dataclasses.fields(result)]
        elif not isinstance(result, (list, dict, tuple)):
            return
        if id(result) in self._outside:
            raise RecordingError(
                f"the function returns a {type(result).__name__} at {where} that was made outside; return its items or "
                "a new container"
            )
        for item in inner:
            self.refuse_outside(item, where, depth + 1)

    def replace_scalars(self) -> None:
        """Where Python stored a recorded number outside, put the plain number."""
        for kind, x, before, _ in self._notes:
            if kind == "items" and isinstance(x, (list, dict)):
                for key, item in items(x):
                    if isinstance(item, Scalar):
                        x[key] = item.number
            elif kind in ("fields", "slots", "given"):
                names = list(before) if kind == "slots" else list(x.__dict__)
                for name in names:
                    value = getattr(x, name, None) if kind == "slots" else x.__dict__.get(name)
                    if isinstance(value, Scalar):
                        put: Callable[..., None] = setattr if isinstance(x, type) else object.__setattr__
                        put(x, name, value.number)
        for globals_, name, _ in self._globals.values():
            if isinstance(globals_.get(name), Scalar):
                globals_[name] = globals_[name].number
        for cell, _, _ in self._cells.values():
            with suppress(ValueError):
                if isinstance(cell.cell_contents, Scalar):
                    cell.cell_contents = cell.cell_contents.number

    def restore_optimizers(self) -> None:
        """Take away the state that optimisers made during the call."""
        for optimizer, before in self.optimizers:
            for p in [p for p in optimizer.state if p not in before or not before[p]]:
                if p in before:
                    optimizer.state[p].clear()
                else:
                    del optimizer.state[p]

    def _line(self, kinds: tuple[str, ...], name: str | None) -> Location | None:
        for code in self.codes:
            for instruction in instructions_of(code):
                if instruction.opname in kinds and (name is None or instruction.argval == name):
                    return Location(code, instruction.offset)
        return None
