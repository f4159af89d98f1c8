"""Compiled Modules: still Modules of their class, with the same fields, state_dict keys and methods.

A compiled Module is a second object over the attributes of the first: they share one `__dict__`, so whatever is
assigned, registered or switched on one is so on the other. Its class derives from the Module's own.
"""

from __future__ import annotations

import copy
import types
import weakref
from typing import Any, ClassVar

from graphc.frontend.mode import mode
from graphc.frontend.nn.hooks import call_module
from graphc.frontend.nn.module import Module
from graphc.frontend.record.compiled import Compiled, wrap

_OWN = frozenset({"stats", "explain", "traces", "graph", "function", "fullgraph", "dynamic", "warm", "reset"})
_classes: weakref.WeakKeyDictionary[type, weakref.ref[type]] = weakref.WeakKeyDictionary()


class CompiledModule(Module):
    """What compile(module) gives: calling it runs the compiled graph. `_orig_mod` is the Module itself; names that
    neither it nor its class has (`stats`, `explain()`, `graph`, …) are those of a compiled function.
    """

    _graphc_compiled: ClassVar[bool] = True
    _graphc_engine: Compiled

    def __init_subclass__(cls, **given: Any) -> None:
        """No class of the user's: whoever counts subclasses hears nothing of it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the compiled graph where its guards hold, else the Module."""
        if mode.get().recorder is not None:
            return call_module(self, args, kwargs)  # part of an outer recording
        return self._graphc_engine(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "_orig_mod":
            return self._graphc_engine.function
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in _OWN:
                return getattr(self._graphc_engine, name)
            if not name.startswith("__"):
                return getattr(self._graphc_engine.function, name)  # a slot of its class
            raise

    def __repr__(self) -> str:
        return f"compiled {self._graphc_engine.function!r}"

    def __copy__(self) -> Any:
        engine = self._graphc_engine
        return wrap(copy.copy(engine.function), engine.fullgraph, engine.dynamic, audit=engine.period)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        engine = self._graphc_engine
        return wrap(copy.deepcopy(engine.function, memo), engine.fullgraph, engine.dynamic, audit=engine.period)

    def __reduce_ex__(self, protocol: Any) -> Any:
        engine = self._graphc_engine
        return wrap, (engine.function, engine.fullgraph, engine.dynamic, False, engine.period)


def wrap_module(module: Any, engine: Compiled) -> CompiledModule:
    """The compiled form of `module`."""
    made: CompiledModule = object.__new__(_class_for(type(module)))
    object.__setattr__(made, "__dict__", module.__dict__)
    object.__setattr__(made, "_graphc_engine", engine)
    return made


def _class_for(cls: type) -> type[CompiledModule]:
    reference = _classes.get(cls)
    found: Any = None if reference is None else reference()
    if found is None:
        names = {"__slots__": ("_graphc_engine",), "__module__": cls.__module__, "__qualname__": cls.__qualname__}
        found = types.new_class(cls.__name__, (CompiledModule, cls), {}, lambda body: body.update(names))
        _classes[cls] = weakref.ref(found)
    made: type[CompiledModule] = found
    return made
