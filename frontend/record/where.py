"""Where in the user's program something happens."""

from __future__ import annotations

import dis
import os
import sys
import sysconfig
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any
from weakref import WeakKeyDictionary

from graphc.ir.graph import Location


def _our_folders() -> tuple[str, ...]:
    packages = ("graphc", "graphc.frontend", "graphc.ir", "graphc.codegen", "graphc.runtime")
    paths = [p for name in packages if name in sys.modules for p in sys.modules[name].__path__]
    folders = {*paths, *map(os.path.realpath, paths), _ROOT, os.path.realpath(_ROOT)}
    return tuple(sorted(f + os.sep for f in folders))


_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # the frontend folder
_OURS = _our_folders()
_STDLIB = tuple({sysconfig.get_paths()["stdlib"] + os.sep, sysconfig.get_paths()["platstdlib"] + os.sep})
_LIBRARIES = tuple(os.sep + part for part in ("site-packages", "dist-packages"))
# what graphc itself runs on, and may import in the middle of a recording
_DEPENDENCIES = tuple(f"{os.sep}{name}{os.sep}" for name in ("numpy", "llvmlite", "networkx", "safetensors"))
KINDS: dict[str, str] = {}  # of files, those met
_NAMES: dict[CodeType, frozenset[str]] = {}
_LOADS: dict[CodeType, tuple[frozenset[str], frozenset[str]]] = {}
_CELLS: dict[CodeType, frozenset[str]] = {}
_CLASSES: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


def kind_of(code: CodeType) -> str:
    """ "ours" (graphc itself), "library" (standard library, frozen modules, what graphc runs on) or "user"."""
    found = KINDS.get(code.co_filename)  # by name: the hash of a code object is slow
    if found is None:
        found = KINDS[code.co_filename] = _classify(code.co_filename)
    return found


def _classify(filename: str) -> str:
    if filename.startswith(_OURS):
        return "ours"
    if filename.startswith("<frozen"):
        return "library"
    if any(part in filename for part in _LIBRARIES):
        return "library" if any(part in filename for part in _DEPENDENCIES) else "user"
    return "library" if filename.startswith(_STDLIB) else "user"


def by_import(frame: FrameType) -> bool:
    """True for code that the import system calls to find a module (hooks of test runners and of editable installs):
    what it reads and does is no part of the function. The body of a module is the user's.
    """
    above: FrameType | None = frame
    while above is not None and above.f_code.co_name != "<module>":
        if above.f_code.co_filename.startswith("<frozen importlib"):
            return True
        above = above.f_back
    return False


def user_frame(start: int = 1) -> FrameType | None:
    """The innermost frame that runs user code."""
    frame: FrameType | None = sys._getframe(start + 1)
    while frame is not None:
        code = frame.f_code
        if (KINDS.get(code.co_filename) or kind_of(code)) == "user":  # asked for at every node: one call less a frame
            break
        frame = frame.f_back
    return frame


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
    """Every name the code mentions: names, variables of outer functions, and strings that may be given to getattr()."""
    found = _NAMES.get(code)
    if found is None:
        strings = {c for c in _constants(code.co_consts) if isinstance(c, str) and c.isidentifier()}
        found = _NAMES[code] = frozenset(strings).union(code.co_names, code.co_freevars)
    return found


def loaded_globals(code: CodeType) -> frozenset[str]:
    """The names the code looks up among globals and builtins."""
    return _instructions(code)[0]


def imported_modules(code: CodeType) -> frozenset[str]:
    """The modules that import statements in the code name."""
    return _instructions(code)[1]


def read_cells(code: CodeType) -> frozenset[str]:
    """The variables of outer functions that the code itself looks at, rather than hands on to an inner function."""
    found = _CELLS.get(code)
    if found is None:
        pairs = [(i.opname, i.argval) for i in dis.get_instructions(code)]
        found = _CELLS[code] = frozenset(name for op, name in pairs if op.endswith("DEREF"))
    return found


def _instructions(code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    found = _LOADS.get(code)
    if found is None:
        pairs = [(i.opname, i.argval) for i in dis.get_instructions(code)]
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


def is_user_class(cls: type) -> bool:
    """True for classes defined in user code (not in graphc, NumPy, the standard library or builtins)."""
    found = _CLASSES.get(cls)
    if found is None:
        found = _CLASSES[cls] = _defined_by_user(cls)
    return found


def _defined_by_user(cls: type) -> bool:
    name = cls.__module__
    if name == "builtins" or name.split(".")[0] == "graphc":
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is None or _classify(file) == "user"
