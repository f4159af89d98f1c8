"""Where in the user's program something happens."""

from __future__ import annotations

import dis
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType, FunctionType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from graphc.caller import kind_of, kind_of_file, user_frame
from graphc.ir.graph import Location

_NAMES: WeakKeyDictionary[CodeType, frozenset[str]] = WeakKeyDictionary()
_LOADS: WeakKeyDictionary[CodeType, tuple[frozenset[str], frozenset[str]]] = WeakKeyDictionary()
_PLACES: WeakKeyDictionary[CodeType, dict[str, int]] = WeakKeyDictionary()  # where a name is mentioned first
_CELLS: WeakKeyDictionary[CodeType, frozenset[str]] = WeakKeyDictionary()
_TAKEN_APART: WeakKeyDictionary[CodeType, tuple[dis.Instruction, ...]] = WeakKeyDictionary()
K = TypeVar("K")
V = TypeVar("V")


def remembered(function: Callable[[K], V]) -> Callable[[K], V]:
    """What a function says of code or a class, worked out once, for as long as that lives."""
    known: WeakKeyDictionary[K, V] = WeakKeyDictionary()

    @functools.wraps(function)
    def ask(x: K) -> V:
        try:
            return known[x]
        except KeyError:
            found = known[x] = function(x)
            return found

    return ask


def by_import(frame: FrameType) -> bool:
    """True for code that the import system calls to find a module (hooks of test runners and of editable installs), and
    for the body of a module that graphc itself needs: what they read and do is no part of the function. The body of a
    module that the user's code imports is the user's.
    """
    below, above = frame, frame.f_back
    while above is not None:
        if _imports(above):
            if below.f_code.co_name != "<module>":
                return True
            while above is not None and _imports(above):
                above = above.f_back
            if above is None:
                return False
            if kind_of(above.f_code) == "ours":
                return True
        elif kind_of(above.f_code) == "ours":
            return False
        below, above = above, above.f_back
    return False


def _imports(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith("<frozen importlib")


def outside() -> int:
    """The stack level, for a warning of the caller, of the line that called into graphc."""
    level = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and kind_of(frame.f_code) == "ours":
        frame = frame.f_back
        level += 1
    return level


def here() -> Location:
    """The user's line that is running."""
    frame = user_frame(2)
    return Location() if frame is None else Location(frame.f_code, frame.f_lasti)


def names_of(code: CodeType) -> frozenset[str]:
    """Every name the code mentions: names, variables of outer functions, and strings that may be given to getattr()
    (or, with points between, to attrgetter()).
    """
    found = _NAMES.get(code)
    if found is None:
        words = [c.split(".") for c in _constants(code.co_consts) if isinstance(c, str)]
        strings = {w for parts in words if all(map(str.isidentifier, parts)) for w in parts}
        found = _NAMES[code] = frozenset(strings).union(code.co_names, code.co_freevars)
    return found


def loaded_globals(code: CodeType) -> frozenset[str]:
    """The names the code looks up among globals and builtins."""
    return _instructions(code)[0]


def imported_modules(code: CodeType) -> frozenset[str]:
    """The modules that import statements in the code name."""
    return _instructions(code)[1]


def instructions_of(code: CodeType) -> tuple[dis.Instruction, ...]:
    """The instructions of a code object; to take one apart costs as much as to run it, and it is asked for often."""
    found = _TAKEN_APART.get(code)
    if found is None:
        found = _TAKEN_APART[code] = tuple(dis.get_instructions(code))
    return found


def takes_apart(code: CodeType) -> bool:
    """True for a `match` on classes: it reads the attributes that `__match_args__` names."""
    return any(i.opname == "MATCH_CLASS" for i in instructions_of(code))


def line_with(codes: Iterable[CodeType], label: str) -> Location | None:
    """The first line of these that mentions the last name of what a user calls `label`: "table.rows[3]"."""
    name = label.rsplit(".", 1)[-1].split("[")[0]
    for code in codes:
        found = _PLACES.get(code)
        if found is None:
            named = [i for i in instructions_of(code) if isinstance(i.argval, str)]
            found = _PLACES[code] = {i.argval: i.offset for i in reversed(named)}
        if name in found:
            return Location(code, found[name])
    return None


def read_cells(code: CodeType) -> frozenset[str]:
    """The variables of outer functions that the code itself looks at, rather than hands on to an inner function."""
    found = _CELLS.get(code)
    if found is None:
        pairs = [(i.opname, i.argval) for i in instructions_of(code)]
        found = _CELLS[code] = frozenset(name for op, name in pairs if op.endswith("DEREF"))
    return found


def _instructions(code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    found = _LOADS.get(code)
    if found is None:
        pairs = [(i.opname, i.argval) for i in instructions_of(code)]
        loads = frozenset(name for op, name in pairs if op in ("LOAD_GLOBAL", "LOAD_NAME"))
        found = _LOADS[code] = loads, frozenset(name for op, name in pairs if op == "IMPORT_NAME")
    return found


def users_fields(tensor: Any) -> frozenset[str]:
    """The attributes a user gave a tensor."""
    return frozenset(n for n in vars(tensor) if not n.startswith("_"))


def _constants(values: tuple[Any, ...]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (tuple, frozenset)):
            yield from _constants(tuple(value))
        else:
            yield value


def method_of(frame: FrameType) -> FunctionType | None:
    """The function that runs in this frame, if it is a method (special, static or of a property, too) of its first
    argument's class.
    """
    code = frame.f_code
    if not code.co_argcount:
        return None
    owner = frame.f_locals.get(code.co_varnames[0])
    for base in (owner if isinstance(owner, type) else type(owner)).__mro__:
        for x in vars(base).values():
            if isinstance(x, (classmethod, staticmethod)):
                x = x.__func__
            for part in (x.fget, x.fset, x.fdel) if isinstance(x, property) else (x,):
                if isinstance(part, FunctionType) and part.__code__ is code:
                    return part
    return None


def is_class_body(code: CodeType) -> bool:
    """True for the code between `class …:` and its end."""
    return not code.co_flags & inspect.CO_OPTIMIZED and "__qualname__" in code.co_names


@remembered
def is_user_class(cls: type) -> bool:
    """True for classes defined in user code (not in graphc, NumPy, the standard library or builtins)."""
    name = cls.__module__
    if name.split(".")[0] in ("graphc", *sys.builtin_module_names):
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is None or kind_of_file(file) == "user"


@remembered
def catches(code: CodeType) -> bool:
    """True for code that may go on after an error: with `except`, `finally`, `suppress`, or the exit of a `with`."""
    if "suppress" in code.co_names or code.co_name in ("__exit__", "__aexit__"):
        return True
    before = ""
    for instruction in dis.get_instructions(code):
        if before == "PUSH_EXC_INFO" and instruction.opname != "WITH_EXCEPT_START":
            return True
        before = instruction.opname
    return False
