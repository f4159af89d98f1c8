"""Saving and loading values: state dicts, and lists, tuples and dicts of tensors and plain values.

A file is a safetensors file that any such tool reads: the tensors under their dotted names, and in its metadata, as
JSON, how they are put together. Loading runs nothing from it; a file of another tool gives a flat dict of tensors.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from graphc.errors import ArgumentError, ArtifactError, GraphcError
from graphc.frontend.mode import mode
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.limits import Limits, legal_name
from graphc.ir.op import Array

__all__ = ["save"]

_KEY = "graphc.structure"
_LEAVES = (bool, int, str, type(None))


class _Writer:
    """Turns a value into JSON and a table of arrays; the same memory is stored once and is one tensor again."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self.names: dict[tuple[Any, ...], str] = {}
        self.held: list[Tensor] = []  # names are keyed by address

    def plain(self, x: Any, path: str) -> Any:
        """`x` as JSON: a list of a kind and its content."""
        if isinstance(x, Tensor):
            from graphc.frontend.nn.parameter import Parameter  # here, for programs without modules

            return ["tensor", self._name(x, path), isinstance(x, Parameter), bool(x._requires_grad)]
        if isinstance(x, dict):
            return [
                "dict",
                [[self._key(k, path), self.plain(v, f"{path}.{k}" if path else str(k))] for k, v in x.items()],
            ]
        if isinstance(x, (list, tuple)):
            kind = "tuple" if isinstance(x, tuple) else "list"
            return [kind, [self.plain(v, f"{path}.{i}" if path else str(i)) for i, v in enumerate(x)]]
        if isinstance(x, float):
            return ["float", x.hex()]
        if type(x) in _LEAVES:
            return ["value", x]
        raise ArgumentError(
            f"save: {path or 'the value'} is a {type(x).__name__}; tensors, numbers, strings, None, lists, tuples and "
            "dicts can be saved (for a Module save its state_dict())"
        )

    def _key(self, key: Any, path: str) -> Any:
        if type(key) not in (str, int):
            raise ArgumentError(f"save: a key of {path or 'the dict'} is a {type(key).__name__}, expected str or int")
        return key

    def _name(self, x: Tensor, path: str) -> str:
        place = (x._a.__array_interface__["data"][0], x._l) if x._l.size else (id(x), x._l)
        if place not in self.names:
            name = path if path != "__metadata__" and legal_name(path) else f"tensor{len(self.arrays)}"
            while name in self.arrays:
                name += "'"
            self.names[place] = name
            self.arrays[name] = x._a
            self.held.append(x)
        return self.names[place]


def save(obj: Any, f: str | os.PathLike[str] | BinaryIO) -> None:
    """Write a value made of tensors, numbers, strings, None, lists, tuples and dicts to a path or a binary file.

    Writing to a path is atomic. Raises ArgumentError for other values, ArtifactError when the path cannot be written.
    """
    from graphc.runtime.artifact import tensor_bytes
    from graphc.runtime.atomic import atomic_write

    if not isinstance(f, (str, bytes, os.PathLike)) and not hasattr(f, "write"):
        raise ArgumentError(f"save: expected a path or a binary file, got {type(f).__name__} {f!r:.40}; give its name")
    recorder = mode.get().recorder
    writer = _Writer()
    structure = writer.plain(obj, "")
    if recorder is not None:
        for x in writer.held:
            recorder.on_escape(x, "save()")
    data = tensor_bytes(writer.arrays, {_KEY: json.dumps(structure, separators=(",", ":"))})
    if hasattr(f, "write"):
        f.write(data)
        return
    try:
        atomic_write(f, [data])
    except OSError as error:
        raise ArtifactError(f"{os.fspath(f)}: cannot be written: {error}") from error


def read(data: bytes, name: str) -> Any:
    """The value in the bytes of a file. Raises ArtifactError, which names the file, for anything but a valid one."""
    from graphc.frontend.nn.parameter import Parameter
    from graphc.ir.parse import HOSTILE
    from graphc.runtime.artifact import read_tensors

    arrays = read_tensors(name, data, Limits())
    tensors: dict[tuple[str, bool, bool], Tensor] = {}

    def tensor(key: str, parameter: bool, grad: bool) -> Tensor:
        found = tensors.get((key, parameter, grad))
        if found is None:
            found = fresh(np.array(arrays[key], order="C"))
            found = Parameter(found, grad) if parameter else found.requires_grad_() if grad else found
            tensors[(key, parameter, grad)] = found
        return found

    def build(node: Any) -> Any:
        kind, *rest = node
        if kind == "tensor":
            return tensor(*rest)
        if kind == "dict":
            return {key: build(value) for key, value in rest[0]}
        if kind in ("list", "tuple"):
            items = [build(value) for value in rest[0]]
            return items if kind == "list" else tuple(items)
        if kind == "float":
            return float.fromhex(rest[0])
        if kind == "value" and type(rest[0]) in _LEAVES:
            return rest[0]
        raise ValueError(f"unknown kind {kind!r}")

    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        text = header.get("__metadata__", {}).get(_KEY)
        if text is None:
            return {key: tensor(key, False, False) for key in arrays}
        return build(json.loads(text))
    except (GraphcError, *HOSTILE) as error:
        raise ArtifactError(f"{name}: its structure is not valid: {str(error)[:200]}") from error


def read_file(f: str | os.PathLike[str] | BinaryIO) -> tuple[bytes, str]:
    """The bytes of a path or a binary file, and its name for messages. Raises ArtifactError."""
    if hasattr(f, "read"):
        return f.read(), "the file"
    try:
        return Path(f).read_bytes(), os.fspath(f)
    except OSError as error:
        raise ArtifactError(f"{os.fspath(f)}: cannot be read: {error}") from error
