"""Code that asks for `type(x)`, tests `x is 3` or uses a library that does, sees that a followed number is none of
Python's; it gets plain numbers instead.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from graphc.caller import kind_of
from graphc.ir.graph import Location

_METHODS = frozenset({"LOAD_METHOD", "LOAD_ATTR"})
_NAMING = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME", "LOAD_DEREF", *_METHODS})
_LIBRARIES = frozenset({
    "calendar", "datetime", "decimal", "deque", "fractions", "json", "marshal", "plistlib", "statistics", "struct",
    "time",
})  # fmt: skip
_DEPTH = 4
_KNOWN: dict[CodeType, Location | None] = {}


def type_test(function: Any) -> Location | None:
    """The first line, in user code that `function` can name, that names `type`, tests for a number by `is` or
    names one of the libraries that take nothing but Python's own numbers, if any.
    """
    method = getattr(function, "forward", None) if hasattr(type(function), "_graphc_module") else function
    for code, variables in _codes(getattr(method, "__func__", method), 0, set()):
        if code not in _KNOWN:
            _KNOWN[code] = _find(code)
        found = _KNOWN[code] or _library(code, variables)
        if found is not None:
            return found
    return None


def _library(code: CodeType, variables: Mapping[str, Any]) -> Location | None:
    """Where the code names one of the libraries, or what comes from one."""
    names = set()
    for name in code.co_names:
        x = variables.get(name)
        known = isinstance(x, (type, FunctionType, BuiltinFunctionType))
        home = x.__name__ if isinstance(x, ModuleType) else x.__module__ if known else ""
        if name in _LIBRARIES or _root(home) in _LIBRARIES:
            names.add(name)
    if not names:
        return None
    used = (i for i in dis.get_instructions(code) if i.argval in names and i.opname in _NAMING)
    return next((Location(code, i.offset) for i in used), None)


def _root(module: Any) -> str:
    return module.split(".")[0].removeprefix("_") if isinstance(module, str) else ""


def _codes(f: Any, depth: int, seen: set[int]) -> Iterator[tuple[CodeType, Mapping[str, Any]]]:
    """Code with its global variables."""
    if not isinstance(f, FunctionType) or depth > _DEPTH or id(f) in seen or kind_of(f.__code__) != "user":
        return
    seen.add(id(f))
    todo = [f.__code__]
    while todo:
        code = todo.pop()
        yield code, f.__globals__
        todo += [c for c in code.co_consts if isinstance(c, CodeType)]
        for name in code.co_names:
            yield from _codes(f.__globals__.get(name), depth + 1, seen)
    for cell in f.__closure__ or ():
        try:
            yield from _codes(cell.cell_contents, depth + 1, seen)
        except ValueError:
            continue


def _find(code: CodeType) -> Location | None:
    number = kind = False  # the instruction before loads a number, or float or int, whose methods take no other
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") and instruction.argval == "type":
            return Location(code, instruction.offset)
        if (instruction.opname == "IS_OP" and number) or (instruction.opname in _METHODS and kind):
            return Location(code, instruction.offset)
        kind = instruction.opname == "LOAD_GLOBAL" and instruction.argval in ("float", "int")
        number = instruction.opname == "LOAD_CONST" and type(instruction.argval) in (int, float)
    return None
