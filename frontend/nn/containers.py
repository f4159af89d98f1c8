"""Modules that hold modules or parameters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graphc.errors import ArgumentError, IndexingError
from graphc.frontend.given import whole
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.tensor import Tensor

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


class _Numbered(Module):
    """Entries of one store under the names "0", "1", …"""

    _kind = "_modules"

    @property
    def _entries(self) -> dict[str, Any]:
        found: dict[str, Any] = self.__dict__[self._kind]
        return found

    def _name_at(self, index: Any) -> str:
        size, at = len(self._entries), whole(type(self).__name__, "index", index)
        if not -size <= at < size:
            raise IndexingError(
                f"{type(self).__name__}: index {at} is out of range for {size} modules; use {-size} to {size - 1}"
            )
        return list(self._entries)[at]

    def _refill(self, entries: Iterable[Any]) -> None:
        kept = list(entries)
        self._entries.clear()
        for k, entry in enumerate(kept):
            setattr(self, str(k), entry)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._entries.values()))

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._part(list(self._entries.items())[index])
        return self._entries[self._name_at(index)]

    def _part(self, items: list[tuple[str, Any]]) -> Any:
        return type(self)([entry for _, entry in items])  # type: ignore[call-arg]

    def __setitem__(self, index: int, entry: Any) -> None:
        setattr(self, self._name_at(index), entry)

    def __delitem__(self, index: int | slice) -> None:
        entries = list(self)
        if not isinstance(index, slice):
            self._name_at(index)  # a typed error
        del entries[index]
        self._refill(entries)

    def append(self, entry: Any) -> Any:
        """Add at the end; returns itself."""
        setattr(self, str(len(self)), entry)
        return self

    def insert(self, index: int, entry: Any) -> Any:
        """Add before `index`; returns itself."""
        entries = list(self)
        entries.insert(index, entry)
        self._refill(entries)
        return self

    def extend(self, entries: Iterable[Any]) -> Any:
        """Add several at the end; returns itself."""
        for entry in list(entries):
            self.append(entry)
        return self

    def pop(self, index: int = -1) -> Any:
        """Take one out and return it."""
        entry = self[index]
        del self[index]
        return entry

    def __iadd__(self, entries: Iterable[Any]) -> Any:
        return self.extend(entries)

    def __add__(self, entries: Iterable[Any]) -> Any:
        return self._part([("", entry) for entry in (*self, *entries)])

    def _must_be_module(self, entry: Any) -> Module:
        if not isinstance(entry, Module):
            raise ArgumentError(f"{type(self).__name__}: {type(entry).__name__} is not a Module")
        return entry


class Sequential(_Numbered):
    """Modules run one after the other. Takes modules, or one OrderedDict of named modules."""

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            for name, module in args[0].items():
                self.add_module(name, module)
            return
        for k, module in enumerate(args):
            self.add_module(str(k), self._must_be_module(module))

    def _part(self, items: list[tuple[str, Any]]) -> Any:
        if any(not name for name, _ in items):
            return type(self)(*(module for _, module in items))
        return type(self)(OrderedDict(items))

    def append(self, entry: Any) -> Any:
        """Add a module at the end; returns itself."""
        return super().append(self._must_be_module(entry))

    def forward(self, input: Any) -> Any:
        """The last module's output."""
        for module in self._modules.values():
            assert module is not None
            input = module(input)
        return input


class ModuleList(_Numbered):
    """A list of modules; has no forward of its own."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(modules or ())

    def append(self, entry: Any) -> Any:
        """Add a module at the end; returns itself."""
        return super().append(self._must_be_module(entry))

    def __repr__(self) -> str:
        """Equal neighbours share a line: `(0-2): 3 x Linear(…)`."""
        if not len(self):
            return f"{self._get_name()}()"
        groups: list[list[Any]] = []
        for k, module in enumerate(self):
            text = repr(module)
            if groups and groups[-1][2] == text:
                groups[-1][1] = k
            else:
                groups.append([k, k, text])
        lines = []
        for first, last, text in groups:
            label = f"({first}): " if first == last else f"({first}-{last}): {last - first + 1} x "
            lines.append("  " + (label + text).replace("\n", "\n  "))
        return f"{self._get_name()}(\n" + "\n".join(lines) + "\n)"


class ParameterList(_Numbered):
    """A list of parameters; a plain tensor becomes a Parameter."""

    _kind = "_parameters"

    def __init__(self, values: Iterable[Tensor] | None = None) -> None:
        super().__init__()
        self.extend(values or ())

    def append(self, entry: Any) -> Any:
        """Add a parameter at the end; returns itself."""
        return super().append(_parameter(entry))

    def __setitem__(self, index: int, entry: Any) -> None:
        super().__setitem__(index, _parameter(entry))

    def extra_repr(self) -> str:
        """One line a parameter."""
        return _listed(self._entries)


class _Named(Module):
    """Entries of one store under names of the user."""

    _kind = "_modules"

    @property
    def _entries(self) -> dict[str, Any]:
        found: dict[str, Any] = self.__dict__[self._kind]
        return found

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def __setitem__(self, key: str, entry: Any) -> None:
        self._register(self._kind, Module, key, entry)

    def __delitem__(self, key: str) -> None:
        del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._entries.keys()

    def values(self) -> Iterable[Any]:
        """The entries."""
        return self._entries.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and entries."""
        return self._entries.items()

    def pop(self, key: str) -> Any:
        """Take one out and return it."""
        return self._entries.pop(key)

    def clear(self) -> None:
        """Take all out."""
        self._entries.clear()

    def update(self, entries: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Add or replace several."""
        for name, entry in dict(entries).items():
            self[name] = entry


class ModuleDict(_Named):
    """A dict of modules; has no forward of its own."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        self.update(modules or {})


class ParameterDict(_Named):
    """A dict of parameters; a plain tensor becomes a Parameter."""

    _kind = "_parameters"

    def __init__(self, parameters: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] | None = None) -> None:
        super().__init__()
        self.update(parameters or {})

    def __setitem__(self, key: str, entry: Any) -> None:
        self._register("_parameters", Parameter, key, _parameter(entry))

    def extra_repr(self) -> str:
        """One line a parameter."""
        return _listed(self._entries)


def _parameter(entry: Any) -> Parameter:
    return entry if isinstance(entry, Parameter) else Parameter(entry)


def _listed(entries: Mapping[str, Any]) -> str:
    if not entries:
        return ""
    lines = [
        f"({name}): Parameter containing: [{p.dtype} of size {'x'.join(map(str, p.shape))}]"
        for name, p in entries.items()
    ]
    return "\n  " + "\n  ".join(lines) + "\n"
