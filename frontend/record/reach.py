"""What the executed user code could read: guards on it, and the access paths of tensors found there."""

from __future__ import annotations

import abc
import array
import builtins
import enum
import functools
import sys
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextvars import ContextVar
from itertools import filterfalse
from types import BuiltinFunctionType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from graphc.caller import kind_of, kind_of_file
from graphc.errors import RecordingError
from graphc.frontend.record.calls import Calls
from graphc.frontend.record.containers import item_of, keys_of
from graphc.frontend.record.guards import fingerprint, flat
from graphc.frontend.record.known import fixed, python_class, readable
from graphc.frontend.record.paths import PathTable, in_context, missing
from graphc.frontend.record.reach_settings import Optimizers
from graphc.frontend.record.snapshots import MAX_BYTES
from graphc.frontend.record.texts import is_logger
from graphc.frontend.record.trace import Guard
from graphc.frontend.record.watch import is_module, is_optimizer
from graphc.frontend.record.where import (
    catches,
    imported_modules,
    is_user_class,
    line_with,
    loaded_globals,
    names_of,
    read_cells,
    takes_apart,
    users_fields,
)
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType

_SCALARS = (bool, int, float, complex, str, bytes, type(None), DType)
_BY_IDENTITY = (type, FunctionType, BuiltinFunctionType, np.ufunc, np.dtype, property)
_CONTAINERS = (list, tuple, dict, set, frozenset, deque, MappingProxyType)
_BYTES = (bytearray, array.array)
_WRAPPERS = ("collections", "os", "types")  # whose mappings and sequences keep their content in attributes
_ASKS = frozenset({"hasattr", "getattr"})
_ALL_NAMES = frozenset({"locals", "eval", "exec"})  # may read every variable
# who says this may read every attribute
_ALL_FIELDS = frozenset({"vars", "__dict__", "__getattribute__", "attrgetter", "methodcaller", "__reduce_ex__"})
_MAX_LEAVES = 1000
_DEPTH = 8
_TESTS = frozenset({"isinstance", "issubclass"})  # ask abstract classes what is registered with them
_MADE = frozenset({"__init__", "__new__", "__init_subclass__", "__class_getitem__", "__set_name__", "__del__"})
_IMPORTED = frozenset({"__loader__", "__spec__"})  # of modules: how they were found
_STORES = ("_parameters", "_buffers", "_modules")
_FILED = frozenset({"_state_callbacks", "_non_persistent"})  # of Modules, read for their files alone
_CALLED = frozenset({"forward", "backward", "vjp", "setup_context", "__call__"})  # looked up by our own code


class Reach:
    """Walks from the function and its arguments along the names the executed code mentions.

    `guards` are the conditions found, `tensors` maps id -> (tensor, path step) and holds the tensors, `unguarded`
    counts what was left out.
    """

    def __init__(
        self,
        table: PathTable,
        codes: dict[CodeType, dict[str, Any]],
        old_grads: Mapping[int, tuple[Tensor, Tensor | None]],
        arguments: Sequence[Any] = (),
        calls: Calls | None = None,
    ) -> None:
        self.table = table
        self.codes = codes
        self.old_grads = old_grads  # id of a leaf -> the leaf, and its `.grad` before the call replaced it
        words = frozenset(x for x in arguments if isinstance(x, str))  # may be given to getattr()
        self.names = words.union(*map(names_of, codes), () if calls is None else calls.names)
        whole = (calls is not None and calls.whole) or any(map(takes_apart, codes))
        self.whole = whole or not self.names.isdisjoint(_ALL_FIELDS)  # attributes of any name may have been read
        self.cells = frozenset[str]().union(*map(read_cells, codes))
        # whether an attribute is there at all; an AttributeError may be caught
        asks = not self.names.isdisjoint(_ASKS) or any(map(catches, codes))
        self.asked = frozenset(n for n in self.names if not hasattr(Tensor, n)) if asks else frozenset()
        self.guards: list[Guard] = []
        self.tensors: dict[int, tuple[Tensor, int]] = {}
        self.shared: set[int] = set()  # tensors with more than one path
        self.again: list[tuple[Tensor, int]] = []  # their other paths
        self.owners: dict[int, tuple[Any, int]] = {}  # modules, optimisers and objects seen -> path step
        self.unguarded = 0
        self.first_unguarded = ""
        self._leaves = 0
        self._contents: dict[type, int] = {}
        self.optimizers = Optimizers()

    def function(self, f: Any, name: str) -> None:
        """Start at the recorded function (or Module, whose state keeps the names of its state_dict)."""
        if isinstance(f, MethodType):
            self.visit(f.__self__, self.table.hold(f.__self__, "" if is_module(f.__self__) else "self"), 0)
            f = f.__func__
        if isinstance(f, FunctionType):
            self.require("is", self.table.step("attr", self.table.hold(f, name), "__code__"), f.__code__)
            self._closure(f, 0)
        else:
            self.visit(f, self.table.hold(f, "" if is_module(f) else name), 0)
        self._replaceable(vars(Tensor), "Tensor", self.names)
        for code, globals_ in self.codes.items():
            root = self.table.hold(globals_, "globals()")
            loaded = loaded_globals(code)
            for key in code.co_names:
                if key in globals_ and key in loaded and not _hidden(key):
                    self.visit(globals_[key], self.table.step("item", root, key, key), 0)
            absent = loaded - globals_.keys()
            if absent:  # builtins, or names yet to come
                self.require("absent", root, absent)
                self._replaceable(vars(builtins), "builtins", absent)
            for key in sorted(imported_modules(code) & sys.modules.keys()):
                modules = self.table.hold(sys.modules, "sys.modules")
                self.visit(sys.modules[key], self.table.step("item", modules, key, key), 0)

    def _replaceable(self, owner: Mapping[str, Any], name: str, wanted: Collection[str]) -> None:
        """Functions of builtins, and methods of tensors, may be replaced too."""
        root = self.table.hold(owner, name)
        for key in sorted(owner.keys() & wanted):
            if callable(owner[key]):
                self.require("is", self.table.step("item", root, key), owner[key], 0)

    def argument(self, x: Any, number: int, name: str) -> None:
        """Start at argument leaf `number`."""
        self.visit(x, self.table.arg(number, name), 0, guard=False)

    def visit(self, x: Any, step: int, depth: int, guard: bool = True) -> None:
        """Note `x`, found at path `step`."""
        if isinstance(x, Tensor):
            self.tensor(x, step)
        elif isinstance(x, _SCALARS):
            if guard:
                self.require("bits", step, x)
            if type(x) not in _SCALARS and is_user_class(type(x)) and id(x) not in self.owners:
                self.owners[id(x)] = (x, step)
                self._fields(x, step, depth, self._read(x))
        elif isinstance(x, BuiltinFunctionType) and x.__self__ is not None and not isinstance(x.__self__, ModuleType):
            self.require("is", step, x)
            self.visit(x.__self__, self.table.step("attr", step, "__self__"), depth + 1)
        elif isinstance(x, _BY_IDENTITY) or x is missing():
            if guard:
                self.require("is", step, x)
            if isinstance(x, type) and (x.__module__, x.__name__) == ("decimal", "Decimal"):
                self._refuse(x, step)  # its results depend on the context of the thread
            if id(x) not in self.owners:
                self._definition(x, step, depth)
        elif id(x) not in self.owners:
            if depth <= _DEPTH:
                self._object(x, step, depth, guard)
            else:
                self._left_out(step, 1)
        elif guard and self.owners[id(x)][1] != step:
            self.require("is", step, x, 0)  # what was found there is looked at along its first path

    def _definition(self, x: Any, step: int, depth: int) -> None:
        """A function, property or class of the user: what it reads."""
        if isinstance(x, FunctionType):
            self.owners[id(x)] = (x, step)
            users = kind_of(x.__code__) == "user"
            if x.__code__ in self.codes or not users:
                self._closure(x, depth)
            if users:
                self.require("is", self.table.step("attr", step, "__code__"), x.__code__)
                self._fields(x, step, depth, self._read(x))
        elif isinstance(x, property) and x.fget is not None:
            self.owners[id(x)] = (x, step)
            self.visit(x.fget, self.table.step("attr", step, "fget"), depth + 1)
        elif isinstance(x, type) and is_user_class(x):
            self._class(x, depth)
            self._class(type(x), depth)

    def _left_out(self, step: int, leaves: int) -> None:
        self.first_unguarded = self.first_unguarded or self.table.names[step]
        self.unguarded += leaves

    def _read(self, x: Any) -> frozenset[str]:
        """The attributes of `x` that may be read, by any name if need be."""
        return self.names.union(getattr(x, "__dict__", ())) if self.whole else self.names

    def _refuse(self, x: Any, step: int) -> None:
        """Of all things not known to be watched."""
        label = self.table.names[step]
        line = line_with(self.codes, label)
        raise RecordingError(
            f"{label} is a {type(x).__module__}.{type(x).__qualname__}, used at {line or 'an unknown line'}: what it "
            "holds cannot be watched for changes; read it outside and pass what it gives as an argument"
        )

    def require(self, kind: str, step: int, expected: Any, leaves: int = 1) -> None:
        """Add a condition; `leaves` of the user's values stand behind it."""
        self._leaves += leaves
        if self._leaves > _MAX_LEAVES:
            self._left_out(step, leaves)
        else:
            line = line_with(self.codes, self.table.names[step]) if leaves else None
            self.guards.append(Guard(kind, step, expected, line))

    def tensor(self, t: Tensor, step: int) -> None:
        """A tensor at path `step`, its gradient and its hooks."""
        found = self.tensors.get(id(t))
        if found is not None:
            if found[1] == step:
                return
            self.shared.add(id(t))
            self.again.append((t, step))
            # a module's name says more than a place in an optimiser
            if found[1] in self.optimizers.params and step not in self.optimizers.params:
                self.table.names[found[1]] = self.table.names[step]
                for grad in (t._grad, self.old_grads.get(id(t), (t, None))[1]):
                    if grad is not None and id(grad) in self.tensors:
                        self.table.names[self.tensors[id(grad)][1]] = f"{self.table.names[step]}.grad"
                self.optimizers.params.discard(found[1])
            return
        self.tensors[id(t)] = (t, step)
        for grad in (t._grad, self.old_grads.get(id(t), (t, None))[1]):
            if grad is not None:
                self.tensor(grad, self.table.step("grad", step, None))
        if t._hooks:
            self.visit(t._hooks, self.table.step("attr", step, "_hooks"), _DEPTH - 2)
        given = users_fields(t)
        if self.asked - given:
            self.require("absent", self.table.step("attr", step, "__dict__"), self.asked - given)
        for name in sorted(self.names & given):
            self.visit(t.__dict__[name], self.table.step("var", step, name), _DEPTH - 4)

    def _closure(self, f: FunctionType, depth: int) -> None:
        followed = kind_of(f.__code__) == "user"  # of code of ours (no_grad's wrapper) nobody noted what it reads
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            if followed and name not in self.cells and self.names.isdisjoint(_ALL_NAMES):
                continue  # handed on to an inner function that did not run, or ran as a callback
            try:
                value = cell.cell_contents
            except ValueError:
                value = missing()  # not yet set, or deleted
            self.visit(value, self.table.cell(cell, name), depth + 1)
        for name in ("__defaults__", "__kwdefaults__"):
            if f.__code__ in self.codes and (f.__code__.co_argcount or f.__code__.co_kwonlyargcount):
                holder = self.table.step("attr", self.table.hold(f, f.__name__), name, f.__name__)
                self.visit(getattr(f, name), holder, depth + 1)

    def _object(self, x: Any, step: int, depth: int, guard: bool) -> None:
        self.owners[id(x)] = (x, step)
        if isinstance(x, _CONTAINERS):
            self._container(x, step, depth)
            if is_user_class(type(x)):
                self._fields(x, step, depth, self._read(x))
        elif isinstance(x, MethodType):
            self.visit(x.__self__, self.table.step("attr", step, "__self__"), depth + 1)
            self.visit(x.__func__, self.table.step("attr", step, "__func__"), depth + 1)
        elif type(x) is np.ndarray and not x.dtype.hasobject:
            self._array(x, step)
        elif isinstance(x, _BYTES):
            self.require("bytes", step, (type(x), bytes(x)))
        elif isinstance(x, ContextVar):
            self.require("is", step, x)
            self.visit(in_context(x), self.table.step("context", step, None), depth + 1)
        elif fixed(x) and not is_user_class(type(x)):
            if guard:
                self.require("is", step, x)
        else:
            if guard:
                self.require("is", step, x)
            self._parts(x, step, depth)

    def _parts(self, x: Any, step: int, depth: int) -> None:
        if is_module(x):
            self._module(x, step, depth)
        elif is_optimizer(x):
            self.optimizers.visit(self, x, step)
        elif isinstance(x, functools.partial):
            for name in ("func", "args", "keywords"):
                self.visit(getattr(x, name), self.table.step("attr", step, name), depth + 1)
        elif hasattr(type(x), "_graphc_compiled"):
            self.visit(x.function, self.table.step("var", step, "function", self.table.names[step]), depth + 1)
        elif is_logger(x):
            self._logger(x, step)
        elif isinstance(x, ModuleType):
            self._namespace(x, step, depth)
        elif not (python_class(type(x)) if is_user_class(type(x)) else readable(x, self.names)):
            self._refuse(x, step)
        else:
            whole = type(x).__module__ in _WRAPPERS and isinstance(x, (Mapping, Sequence))
            whole = whole or (self.whole and (is_user_class(type(x)) or type(x) is SimpleNamespace))
            self._fields(x, step, depth, self.names.union(getattr(x, "__dict__", ())) if whole else self.names)

    def _namespace(self, x: ModuleType, step: int, depth: int) -> None:
        """A module: of the libraries we know, which functions it has; of others, what is read."""
        library = x.__name__.split(".")[0] in ("graphc", "numpy")
        library = library or x.__name__ in sys.builtin_module_names
        if not library:
            whole = self.whole and kind_of_module(x) == "user"
            self._fields(
                x,
                step,
                depth,
                self.names.union(filterfalse(_hidden, vars(x).keys() - _IMPORTED)) if whole else self.names,
            )
            return
        for name in sorted(self.names & vars(x).keys()):
            value = vars(x)[name]
            if value is sys.modules:
                self._refuse(value, self.table.step("var", step, name))
            elif isinstance(value, (ModuleType, *_SCALARS, *_CONTAINERS)):
                self.visit(value, self.table.step("var", step, name), depth + 1)
            elif callable(value):
                self.require("is", self.table.step("var", step, name), value, 0)

    def _logger(self, x: Any, step: int) -> None:
        """What decides whether it speaks."""
        logger = x
        while logger is not None:
            for name in ("level", "disabled"):
                self.visit(getattr(logger, name), self.table.step("var", step, name), 0)
            logger, step = logger.parent, self.table.step("var", step, "parent")
        manager = self.table.step("var", self.table.hold(x, x.name), "manager")
        self.visit(x.manager.disable, self.table.step("attr", manager, "disable"), 0)

    def _fields(self, x: Any, step: int, depth: int, names: frozenset[str]) -> None:
        """Attributes of an object, of its slots and of its class."""
        fields = getattr(x, "__dict__", {})
        ours = not is_user_class(type(x))
        if hasattr(x, "__dict__") and not isinstance(x, ModuleType):
            self._own_fields(x, step, fields, names)
        for name in sorted(names & fields.keys()):
            self.visit(fields[name], self.table.step("var", step, name), depth + 1)
        if ours:
            return
        self.require("type", step, type(x), 0)
        for cls in type(x).__mro__:
            slots = set(_slots(cls)) - {"__dict__", "__weakref__"}
            for name in sorted(slots if self.whole else names & slots):
                if name not in fields:
                    self.visit(getattr(x, name, missing()), self.table.step("attr", step, name), depth + 1)
        if isinstance(x, enum.Enum):
            self.visit(x._value_, self.table.step("var", step, "_value_"), depth + 1)
        self._class(type(x), depth)

    def _own_fields(self, x: Any, step: int, fields: Mapping[str, Any], names: frozenset[str]) -> None:
        """Which attributes an object has; those nobody mentions may come and go (`self.out = step(x)`)."""
        if not is_user_class(type(x)) or names is not self.names or not self.names.isdisjoint(_ASKS):
            self.require("fields", step, tuple(fields))
        else:
            self.require("absent", self.table.step("attr", step, "__dict__"), names - fields.keys())

    def _class(self, cls: type, depth: int) -> None:
        if id(cls) in self.owners or not is_user_class(cls):
            return
        holder = self.table.hold(cls, cls.__name__)
        self.owners[id(cls)] = (cls, holder)
        self.require("is", self.table.step("attr", holder, "__mro__"), cls.__mro__, 0)
        users = [c for c in cls.__mro__ if is_user_class(c)]
        for base in users:  # a special method that comes later is found by no name
            self.require("keys", self._content(base), (MappingProxyType, tuple(vars(base))), 0)
        if isinstance(cls, abc.ABCMeta) and not self.names.isdisjoint(_TESTS):
            self.require("token", holder, abc.get_cache_token())
        special = {n for c in users for n, value in vars(c).items() if self.whole or self._special(n, value)}
        for name in sorted(self.names | _CALLED | special):
            owners = [c for c in cls.__mro__ if name in c.__dict__]
            for base in owners[1:] if "super" in self.names else ():
                if is_user_class(base) and isinstance(base.__dict__[name], FunctionType):
                    self.visit(
                        base.__dict__[name],
                        self.table.step("attr", self.table.hold(base, base.__name__), name),
                        depth + 1,
                    )
            if owners and is_user_class(owners[0]):
                self._member(owners[0], name, holder, depth)

    def _special(self, name: str, value: Any) -> bool:
        """True for a method that Python looks up by itself; one that makes objects, if it ran."""
        if not (name.startswith("__") and name.endswith("__")):
            return False
        if name in _MADE:
            return isinstance(value, FunctionType) and value.__code__ in self.codes
        return isinstance(value, (FunctionType, staticmethod, classmethod))

    def _content(self, cls: type) -> int:
        """The way to what a class has of its own, which is always the same dictionary."""
        if cls not in self._contents:
            self._contents[cls] = self.table.hold(vars(cls), cls.__name__)
        return self._contents[cls]

    def _member(self, owner: type, name: str, holder: int, depth: int) -> None:
        """What a class has under a name, from its base `owner`."""
        raw = owner.__dict__[name]
        if is_user_class(type(raw)) and hasattr(type(raw), "__get__"):  # a descriptor: asking the class would run it
            self.visit(raw, self.table.step("item", self._content(owner), name), depth + 1)
            return
        if isinstance(raw, classmethod) and not isinstance(raw.__func__, FunctionType):  # a property of the class
            step = self.table.step("item", self._content(owner), name)
            self.visit(raw.__func__, self.table.step("attr", step, "__func__"), depth + 1)
            return
        step = self.table.step("attr", holder, name)
        if isinstance(raw, classmethod):
            self.visit(raw.__func__, self.table.step("attr", step, "__func__"), depth + 1)
        elif isinstance(raw, staticmethod):
            self.visit(raw.__func__, step, depth + 1)
        elif not hasattr(type(raw), "__get__") or isinstance(raw, (FunctionType, property)):
            self.visit(raw, step, depth + 1)

    def _array(self, x: Any, step: int) -> None:
        if x.nbytes > MAX_BYTES:
            self._left_out(step, 1)
        else:
            self.require("array", step, (x.dtype, x.shape, x.tobytes()))

    def _container(self, x: Any, step: int, depth: int) -> None:
        if flat(x):
            self.require("flat", step, fingerprint(x), max(1, len(x)))
            return
        if isinstance(x, (set, frozenset)):
            self._refuse(x, step)
        keys = keys_of(x)
        self.require("keys", step, (type(x), tuple(keys)))
        for key in keys:
            self.visit(item_of(x, key), self.table.step("item", step, key), depth + 1)
            if isinstance(x, (dict, MappingProxyType)) and type(key) not in _SCALARS and not isinstance(key, Tensor):
                self.visit(key, self.table.hold(key, f"a key of {self.table.names[step]}"), depth + 1)

    def _module(self, x: Any, step: int, depth: int) -> None:
        fields = x.__dict__
        self.require("fields", step, tuple(fields), 0)  # what every module has is no data of the user's: not counted
        for store in _STORES:
            holder = self.table.step("var", step, store, self.table.names[step])
            entries = fields.get(store, {})
            self.require("keys", holder, (type(entries), tuple(entries)), 0)
            for name, item in entries.items():
                prefix = self.table.names[step]
                path = self.table.step("item", holder, name, f"{prefix}.{name}" if prefix else name)
                if item is None:
                    self.require("bits", path, None, 0)
                else:
                    self.visit(item, path, max(depth - 1, 0))
        own = not is_user_class(type(x))
        for name in sorted(fields):
            hooks = name.endswith("_hooks")
            used = own or self.whole or name in self.names or name in _CALLED or name == "training" or hooks
            if used and name not in _STORES and (name not in _FILED or name in self.names):
                before = self._leaves
                self.visit(fields[name], self.table.step("var", step, name), depth + 1)
                if not fields[name] if hooks else own or name == "training":
                    self._leaves = before
        self.require("type", step, type(x), 0)
        forward = type(x).forward
        if isinstance(forward, FunctionType):
            holder = self.table.hold(type(x), type(x).__name__)
            self.require("is", self.table.step("attr", holder, "forward"), forward, 0)
        if not own:
            self._class(type(x), depth)


def _slots(cls: type) -> tuple[str, ...]:
    slots = cls.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _hidden(name: str) -> bool:
    """True for globals that no program reads by their names: those that rewritten assertions bring start with @."""
    return name == "__builtins__" or name.startswith("@")


def kind_of_module(module: ModuleType) -> str:
    """Whose a module is: "ours", "library" or "user"."""
    file = vars(module).get("__file__")
    return "user" if file is None else kind_of_file(file)
