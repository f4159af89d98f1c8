"""Attributes of one Module that are computed from others: its class becomes one with properties."""

from __future__ import annotations

import weakref
from typing import Any

from graphc.errors import StateError
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter

_classes: weakref.WeakValueDictionary[tuple[Any, ...], type[Module]] = weakref.WeakValueDictionary()


class _Computed:
    """First base of classes with computed attributes. Modules with the same ones share a class, which never changes."""

    _graphc_base: type[Module]
    _graphc_computed: dict[str, property]

    def __setattr__(self, name: str, value: Any) -> None:
        found = type(self)._graphc_computed.get(name)
        if found is None:
            super().__setattr__(name, value)
        elif found.fset is None or isinstance(value, Parameter):
            raise StateError(f"attribute '{name}' of this module is computed; it cannot be set to a Parameter")
        else:
            found.fset(self, value)


def base_class(module: Module) -> type[Module]:
    """The class of a module without computed attributes."""
    return getattr(type(module), "_graphc_base", type(module))


def computed_of(module: Module) -> dict[str, property]:
    """The computed attributes of a module by name."""
    return dict(getattr(type(module), "_graphc_computed", {}))


def set_computed(module: Module, computed: dict[str, property], prefix: str = "") -> None:
    """Make `module` one with exactly these computed attributes; `prefix` begins the name of its class."""
    base = base_class(module)
    object.__setattr__(module, "__class__", _class_for(base, computed, prefix) if computed else base)


def _class_for(base: type[Module], computed: dict[str, property], prefix: str) -> type[Module]:
    key = (base, prefix, *computed.items())
    found = _classes.get(key)
    if found is None:
        body: dict[str, Any] = {
            **computed,
            "_graphc_base": base,
            "_graphc_computed": dict(computed),
            "__module__": base.__module__,
            "__doc__": base.__doc__,
        }
        found = _classes[key] = type(prefix + base.__name__, (_Computed, base), body)
    return found
