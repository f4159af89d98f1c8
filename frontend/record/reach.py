"""What the executed user code could read: guards on it, and the access paths of tensors found there."""

from __future__ import annotations

from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from graphc.frontend.record.paths import PathTable
from graphc.frontend.record.trace import Guard
from graphc.frontend.record.watch import is_module, is_optimizer
from graphc.frontend.record.where import kind_of
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType

_SCALARS = (bool, int, float, complex, str, bytes, type(None), DType)
_BY_IDENTITY = (type, FunctionType, BuiltinFunctionType, np.ufunc, np.dtype)
_MAX_LEAVES = 1000
_DEPTH = 8
_HIDDEN = frozenset({"__builtins__"})


class Reach:
    """Walks from the function and its arguments along the names the executed code mentions.

    `guards` are the conditions found, `tensors` maps id -> (tensor, path step) and holds the tensors, `unguarded` counts what was left out.
    """

    def __init__(self, table: PathTable, codes: dict[CodeType, dict[str, Any]]) -> None:
        self.table = table
        self.codes = codes
        self.names = frozenset(n for c in codes for n in (*c.co_names, *c.co_freevars))
        self.guards: list[Guard] = []
        self.tensors: dict[int, tuple[Tensor, int]] = {}
        self.owners: dict[int, tuple[Any, int]] = {}  # modules, optimisers and objects seen -> path step
        self.unguarded = 0
        self._leaves = 0

    def function(self, f: Any, name: str) -> None:
        """Start at the recorded function (or Module)."""
        if isinstance(f, MethodType):
            self.visit(f.__self__, self.table.hold(f.__self__, "self"), 0)
            f = f.__func__
        if isinstance(f, FunctionType):
            self._closure(f, 0)
        else:
            self.visit(f, self.table.hold(f, name), 0)
        for code, globals_ in self.codes.items():
            root = self.table.hold(globals_, "globals()")
            for key in code.co_names:
                if key in globals_ and key not in _HIDDEN:
                    self.visit(globals_[key], self.table.step("item", root, key, key), 0)

    def argument(self, x: Any, number: int, name: str) -> None:
        """Start at argument leaf `number`."""
        self.visit(x, self.table.arg(number, name), 0, guard=False)

    def visit(self, x: Any, step: int, depth: int, guard: bool = True) -> None:
        """Note `x`, found at path `step`."""
        if isinstance(x, Tensor):
            self._tensor(x, step)
        elif isinstance(x, _SCALARS):
            if guard:
                self._guard("bits", step, x)
        elif isinstance(x, _BY_IDENTITY):
            if guard:
                self._guard("is", step, x)
            if isinstance(x, FunctionType) and x.__code__ in self.codes and id(x) not in self.owners:
                self.owners[id(x)] = (x, step)
                self._closure(x, depth)
        elif id(x) not in self.owners and depth <= _DEPTH:
            self._object(x, step, depth, guard)

    def _guard(self, kind: str, step: int, expected: Any) -> None:
        self._leaves += 1
        if self._leaves > _MAX_LEAVES:
            self.unguarded += 1
        else:
            self.guards.append(Guard(kind, step, expected))

    def _tensor(self, t: Tensor, step: int) -> None:
        if id(t) in self.tensors:
            return
        self.tensors[id(t)] = (t, step)
        if t._grad is not None:
            self._tensor(t._grad, self.table.step("grad", step, None))

    def _closure(self, f: FunctionType, depth: int) -> None:
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:
                continue
            self.visit(value, self.table.cell(cell, name), depth + 1)
        for k, value in enumerate(f.__defaults__ or ()):
            holder = self.table.step("attr", self.table.hold(f, f.__name__), "__defaults__")
            self.visit(value, self.table.step("item", holder, k), depth + 1)

    def _object(self, x: Any, step: int, depth: int, guard: bool) -> None:
        self.owners[id(x)] = (x, step)
        if isinstance(x, (list, tuple, dict)):
            self._container(x, step, depth)
            return
        if guard:
            self._guard("is", step, x)
        if isinstance(x, MethodType):
            self.visit(x.__self__, self.table.step("attr", step, "__self__"), depth + 1)
            return
        fields = getattr(x, "__dict__", None)
        if not isinstance(fields, dict):
            return
        if is_module(x):
            self._module(x, step, depth)
        elif is_optimizer(x):
            self._optimizer(x, step)
        elif not isinstance(x, ModuleType) or not x.__name__.startswith(("graphc", "numpy")):
            for name in sorted(self.names & fields.keys()):
                self.visit(fields[name], self.table.step("var", step, name), depth + 1)

    def _container(self, x: Any, step: int, depth: int) -> None:
        keys = list(x) if isinstance(x, dict) else list(range(len(x)))
        self._guard("keys", step, (type(x), tuple(keys)))
        for key in keys:
            if isinstance(x, dict) and not isinstance(key, (str, int, Tensor)):
                continue
            self.visit(x[key], self.table.step("item", step, key), depth + 1)

    def _module(self, x: Any, step: int, depth: int) -> None:
        fields = x.__dict__
        for store in ("_parameters", "_buffers", "_modules"):
            holder = self.table.step("var", step, store, self.table.names[step])
            entries = fields.get(store, {})
            self._guard("keys", holder, (type(entries), tuple(entries)))
            for name, item in entries.items():
                path = self.table.step("item", holder, name, f"{self.table.names[step]}.{name}")
                if item is None:
                    self._guard("bits", path, None)
                else:
                    self.visit(item, path, max(depth - 1, 0))
        own = kind_of_class(type(x)) == "ours"
        for name in sorted(fields):
            if name in ("_parameters", "_buffers", "_modules") or not (own or name in self.names or name == "training" or name.endswith("_hooks")):
                continue
            self.visit(fields[name], self.table.step("var", step, name), depth + 1)

    def _optimizer(self, x: Any, step: int) -> None:
        groups = self.table.step("var", step, "param_groups")
        for g, group in enumerate(x.param_groups):
            holder = self.table.step("item", groups, g)
            self._guard("keys", holder, (dict, tuple(group)))
            for key, value in group.items():
                path = self.table.step("item", holder, key)
                if key == "params":
                    self._guard("keys", path, (type(value), tuple(range(len(value)))))
                    for k, p in enumerate(value):
                        self._tensor(p, self.table.step("item", path, k))
                elif not isinstance(value, float):  # floats are inputs: a schedule changes them
                    self.visit(value, path, 4)
        states = self.table.step("var", step, "state")
        for p, entries in x.state.items():
            holder = self.table.step("item", states, p, f"{self.table.names[step]}.state")
            for key, value in entries.items():
                self.visit(value, self.table.step("item", holder, key), 4)


def kind_of_class(cls: type) -> str:
    """ "ours" when the class's forward is defined in graphc."""
    forward = getattr(cls, "forward", None)
    code = getattr(forward, "__code__", None)
    return "ours" if code is not None and kind_of(code) == "ours" else "user"


def holds(guard: Guard, value: Any) -> bool:
    """True when the value found at the guard's step is what it was while recording."""
    expected = guard.expected
    if guard.kind == "is":
        return value is expected
    if guard.kind == "bits":
        if value is expected:
            return True
        if type(value) is not type(expected):
            return False
        return bool(value.hex() == expected.hex()) if isinstance(value, float) else bool(value == expected)
    if guard.kind == "keys":
        kind, keys = expected
        if type(value) is not kind or len(value) != len(keys):
            return False
        return kind is not dict or all(map(_same_key, value, keys))
    return (getattr(value, "_grad", None) is None) is expected  # "grad"


def _same_key(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and not isinstance(a, Tensor) and bool(a == b))
