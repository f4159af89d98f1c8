"""What functions of C and of the standard library may be called while recording.

A graph repeats tensor operations, and its conditions repeat what Python reads from objects it can walk through. A call
that asks the machine (files, the environment, the interpreter's own settings) or that reads attributes whose names
nobody can see leaves no such trace: the first kind is refused, the second makes every attribute count.
"""

from __future__ import annotations

import dis
import io
import random
import string
import sys
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any
from weakref import WeakKeyDictionary

from graphc.caller import kind_of
from graphc.frontend.record.texts import is_logging
from graphc.frontend.record.where import by_import
from graphc.ir.graph import Location

# the standard library's modules in Python that only compute, or that are followed elsewhere
_FOLLOWED = frozenset({
    "__future__", "_collections_abc", "_py_abc", "_weakrefset", "abc", "ast", "base64", "bisect", "cmath", "codecs",
    "collections", "contextlib", "copy", "copyreg", "dataclasses", "dis", "enum", "fractions", "functools",
    "genericpath", "hashlib", "heapq", "inspect", "itertools", "json", "keyword", "linecache", "logging", "math",
    "numbers", "operator", "pathlib", "posixpath", "pprint", "random", "re", "reprlib", "shlex", "sre_compile",
    "sre_parse", "statistics", "string", "struct", "textwrap", "timeit", "token", "tokenize", "traceback", "types",
    "typing", "unittest", "uuid", "warnings", "weakref", "cProfile", "profile", "pstats", "encodings", "numpy",
    "llvmlite", "networkx", "safetensors", "zipimport", "importlib",
})  # fmt: skip
# look at all there is
_WHOLE = frozenset({"copy", "copyreg", "dataclasses", "inspect", "json", "pprint", "statistics"})
# functions of modules that are not followed, which read only what is watched
_FINE = {
    "os": frozenset({
        "getenv", "__getitem__", "__contains__", "__iter__", "__len__", "get", "encode", "decode", "encodekey",
        "check_str", "fspath", "_fspath",
    }),
    "threading": frozenset({"__enter__", "__exit__", "acquire", "release", "Lock", "RLock"}),
    "locale": frozenset({"normalize"}),
}  # fmt: skip
_SETTINGS = {
    "importlib": frozenset({"import_module", "reload"}),
    "numpy": frozenset({"geterr", "geterrcall", "get_printoptions"}),
}
# modules in C that ask the machine, and the functions of others that do
_MACHINE = frozenset({
    "_posixsubprocess", "_socket", "_ssl", "atexit", "fcntl", "grp", "mmap", "nt", "posix", "pwd", "resource", "select",
    "_signal", "signal", "syslog", "termios", "_locale", "_posixshmem", "_sqlite3", "_curses", "readline",
})  # fmt: skip
_PURE_POSIX = frozenset({"fspath", "fsencode", "fsdecode", "_path_normpath", "_path_splitroot"})
_ASKS = {
    "builtins": frozenset({"globals", "dir", "input", "breakpoint"}),
    "sys": frozenset({
        "getrecursionlimit", "setrecursionlimit", "getswitchinterval", "setswitchinterval", "getrefcount", "_getframe",
        "getallocatedblocks", "gettrace", "getprofile", "settrace", "setprofile", "_current_frames",
        "get_int_max_str_digits", "set_int_max_str_digits", "getsizeof",
    }),
    "gc": frozenset({
        "isenabled", "get_count", "get_stats", "get_objects", "get_threshold", "get_referrers", "get_referents",
        "enable", "disable", "set_threshold", "freeze", "unfreeze", "get_freeze_count", "get_debug", "set_debug",
    }),
    "time": frozenset({"localtime", "gmtime", "ctime", "asctime", "strftime", "tzset"}),
    "_thread": frozenset({"get_ident", "get_native_id", "_count", "start_new_thread", "stack_size"}),
    "_contextvars": frozenset({"copy_context"}),
    "_weakref": frozenset({"getweakrefcount", "getweakrefs"}),
    "_decimal": frozenset({"getcontext", "setcontext", "localcontext"}),
    "decimal": frozenset({"getcontext", "setcontext", "localcontext"}),
}  # fmt: skip
_METHODS = {  # of objects of C, by the name of their type
    "lock": frozenset({"locked"}), "RLock": frozenset({"locked", "_is_owned"}),
    "Context": frozenset({"run", "get", "copy", "items", "keys", "values"}),
    "Random": frozenset({"getstate"}),
}  # fmt: skip
_CLOCKS = frozenset({"today", "now", "utcnow", "fromtimestamp"})  # of date and datetime
_BY_NAME = frozenset({"getattr", "hasattr", "delattr", "setattr"})
_CALL = "PRECALL" if sys.version_info < (3, 12) else "CALL"  # the instruction that takes arguments off the stack
_DYNAMIC: WeakKeyDictionary[CodeType, bool] = WeakKeyDictionary()


class Calls:
    """Of one recording: `refused` are the calls no condition can stand for, with their lines; `whole` says that
    attributes were read whose names the code does not show; `names` are those found in format strings.
    """

    def __init__(self) -> None:
        self.refused: list[tuple[str, Location]] = []
        self.whole = False
        self.names: set[str] = set()

    def entered(self, frame: FrameType) -> bool:
        """A function of the standard library begins. True when what it reads is to be followed as if it were the
        user's.
        """
        caller = frame.f_back
        if caller is None or kind_of(caller.f_code) != "user":
            return False
        module = str(frame.f_globals.get("__name__", "")).split(".")[0]
        name = frame.f_code.co_name
        if name in _SETTINGS.get(module, ()):
            self._refuse(f"{module}.{name}", caller)
        elif module in _WHOLE:
            self.whole = self.whole or name not in ("replace", "wrap")
        elif module not in _FOLLOWED and not module.startswith(("graphc", "sre_")):
            if name in _FINE.get(module, ()):
                return name == "getenv"
            self._refuse(f"{module}.{name}", caller)
        return False

    def called(self, frame: FrameType, function: Any) -> None:
        """User code calls a function in C."""
        owner = getattr(function, "__self__", None)
        if function.__name__ in ("format", "format_map") and isinstance(owner, str):
            self._format(owner)
        elif asks(function, owner):
            self._refuse(name_of(function, owner), frame)
        elif function.__name__ in _BY_NAME and dynamic_names(frame.f_code):
            self.whole = True

    def called_behind(self, frame: FrameType, function: Any) -> None:
        """A function of the standard library calls one in C."""
        if function.__name__ in _BY_NAME or not asks_machine(function, getattr(function, "__self__", None)):
            return
        above: FrameType | None = frame
        while above is not None and kind_of(above.f_code) == "library":
            name = str(above.f_globals.get("__name__", "")).split(".")[0]
            if name in ("warnings", "linecache", "traceback", "importlib", "zipimport") or is_logging(above):
                return
            if above.f_code.co_filename.startswith("<frozen importlib"):
                return
            above = above.f_back
        if above is not None and kind_of(above.f_code) == "user":
            self._refuse(name_of(function, getattr(function, "__self__", None)), above)

    def _refuse(self, what: str, frame: FrameType) -> None:
        if not by_import(frame):
            self.refused.append((what, Location(frame.f_code, frame.f_lasti)))

    def _format(self, text: str) -> None:
        """The attributes that "{0.scale}" reads."""
        try:
            fields = [field for _, field, _, _ in string.Formatter().parse(text) if field]
        except ValueError:
            return
        for field in fields:
            self.names.update(part.split("[")[0] for part in field.split(".")[1:])


def name_of(function: Any, owner: Any) -> str:
    """How a user would call it."""
    if isinstance(owner, type):
        return f"{owner.__name__}.{function.__name__}"
    module = getattr(function, "__module__", None)
    home = type(owner).__name__ if module is None else str(module).removeprefix("_")
    home = {"posix": "os", "nt": "os", "io": "builtins"}.get(home, home)
    return function.__name__ if home == "builtins" else f"{home}.{function.__name__}"


def asks(function: Any, owner: Any) -> bool:
    """True for a function in C whose answer is no function of what Python can walk through."""
    name, module = str(function.__name__), getattr(function, "__module__", None)
    if asks_machine(function, owner) or name in _ASKS.get(str(module), ()):
        return True
    if isinstance(owner, type):
        return owner.__module__ == "datetime" and name in _CLOCKS
    if isinstance(owner, random.Random):
        return name == "getstate"
    return name in _METHODS.get(type(owner).__name__, ()) and type(owner).__module__ in ("_thread", "_contextvars")


def asks_machine(function: Any, owner: Any) -> bool:
    """True for what opens or reads files and asks the system."""
    module, name = str(getattr(function, "__module__", None)), str(function.__name__)
    if module in ("_io", "io") and name in ("open", "open_code"):
        return True
    if isinstance(owner, io.IOBase) and not isinstance(owner, (io.StringIO, io.BytesIO)):
        return name.startswith(("read", "tell", "seek"))
    return module in _MACHINE and name not in _PURE_POSIX


def dynamic_names(code: CodeType) -> bool:
    """True when getattr() or one of its kind is given anything but a constant name."""
    found = _DYNAMIC.get(code)
    if found is None:
        found = _DYNAMIC[code] = any(not constant for constant in _given_names(code))
    return found


def _given_names(code: CodeType) -> Iterator[bool]:
    """For each use of getattr() and its kind: whether the name it is given is a constant."""
    instructions = [i for i in dis.get_instructions(code) if i.opname not in ("CACHE", "EXTENDED_ARG", "RESUME")]
    for k, instruction in enumerate(instructions):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_FAST") and (
            instruction.argval in _BY_NAME
        ):
            yield _second_is_constant(instructions[k + 1 :])


def _second_is_constant(following: list[dis.Instruction]) -> bool:
    """Whether a call is given a constant as its second argument; `following` begins behind the function called."""
    stack: list[dis.Instruction] = []  # what made each thing that lies on the stack above the function
    for instruction in following:
        name = instruction.opname
        if name == _CALL and instruction.argval == len(stack):
            return len(stack) > 1 and stack[1].opname == "LOAD_CONST"
        if instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs:
            return False
        if name == "KW_NAMES":
            continue
        effect = dis.stack_effect(instruction.opcode, instruction.arg, jump=False)
        made = effect if name.startswith("LOAD_") and name not in ("LOAD_ATTR", "LOAD_METHOD") else 1
        made = 2 if name == "LOAD_METHOD" else 0 if name == "PRECALL" else made
        if made - effect > len(stack):
            return False  # it was not called, but handed on
        del stack[len(stack) - (made - effect) :]
        stack += [instruction] * made
    return False
