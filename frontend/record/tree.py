"""Nested Python containers as a shape and a flat list of leaves.

Containers are tuple (and named tuple), list, dict (and OrderedDict, defaultdict) and dataclass instances; everything
else is a leaf. A TreeSpec is plain data: it compares by value and turns into JSON for files.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from graphc.errors import ArtifactError, RecordingError
from graphc.ir.types import DType

_MAX_DEPTH = 32
_DICTS = ("dict", "ordered", "default")


@dataclasses.dataclass(frozen=True, slots=True)
class TreeSpec:
    """kind: "leaf", "tuple", "list", "dict", "ordered" (OrderedDict), "default" (defaultdict), "named" (named tuple) or
    "data" (dataclass); keys are dict keys or field names.
    """

    kind: str
    keys: tuple[Any, ...] = ()
    children: tuple[TreeSpec, ...] = ()
    make: Any = None  # class of a named tuple or dataclass, default_factory of a defaultdict
    exact: tuple[Any, ...] = ()  # tells keys apart that compare equal: 1, True and 1.0; 0.0 and -0.0

    @property
    def leaves(self) -> int:
        """How many leaves there are."""
        return 1 if self.kind == "leaf" else sum(c.leaves for c in self.children)


LEAF = TreeSpec("leaf")


def flatten(tree: Any, depth: int = 0) -> tuple[list[Any], TreeSpec]:
    """Leaves in order, and the shape. Raises RecordingError beyond 32 levels (a container holding itself)."""
    if depth > _MAX_DEPTH:
        raise RecordingError("containers are nested more than 32 levels deep (or hold themselves)")
    found = _children(tree)
    if found is None:
        return [tree], LEAF
    kind, keys, items, make = found
    leaves: list[Any] = []
    specs = []
    for item in items:
        more, spec = flatten(item, depth + 1)
        leaves += more
        specs.append(spec)
    exact = tuple(map(_exact, keys)) if kind in _DICTS else ()
    return leaves, TreeSpec(kind, keys, tuple(specs), make, exact)


def _exact(key: Any) -> Any:
    t = type(key)
    if t is str:
        return None
    if t is float:
        return key.hex()
    return tuple(map(_exact, key)) if t is tuple else t


def _children(x: Any) -> tuple[str, tuple[Any, ...], Sequence[Any], Any] | None:
    t = type(x)
    if t is tuple or t is list:
        return t.__name__, (), x, None
    if t is dict:
        return "dict", tuple(x), list(x.values()), None
    if t is OrderedDict:
        return "ordered", tuple(x), list(x.values()), None
    if t is defaultdict:
        return "default", tuple(x), list(x.values()), x.default_factory
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return None if getattr(x, "__dict__", None) else ("named", tuple(x._fields), x, t)
    if dataclasses.is_dataclass(x) and not isinstance(x, (type, DType)):  # a dtype is one value
        names = tuple(f.name for f in dataclasses.fields(x))
        whole = all(hasattr(x, n) for n in names) and set(getattr(x, "__dict__", ())) <= set(names)
        return ("data", names, [getattr(x, n) for n in names], t) if whole else None
    return None


def unflatten(spec: TreeSpec, leaves: Sequence[Any]) -> Any:
    """The inverse of flatten."""
    tree, used = _build(spec, leaves, 0)
    if used != len(leaves):
        raise RecordingError(f"{len(leaves)} leaves given, {used} needed")
    return tree


def _build(spec: TreeSpec, leaves: Sequence[Any], at: int) -> tuple[Any, int]:
    if spec.kind == "leaf":
        return leaves[at], at + 1
    items = []
    for child in spec.children:
        item, at = _build(child, leaves, at)
        items.append(item)
    if spec.kind == "tuple":
        return tuple(items), at
    if spec.kind == "list":
        return items, at
    if spec.kind == "named":
        return tuple.__new__(spec.make, items), at
    pairs = zip(spec.keys, items, strict=True)
    if spec.kind == "data":
        return _instance(spec.make, pairs), at
    if spec.kind == "default":
        return defaultdict(spec.make, pairs), at
    return (OrderedDict(pairs) if spec.kind == "ordered" else dict(pairs)), at


def _instance(cls: type, fields: Iterator[tuple[str, Any]]) -> Any:
    """An instance of a dataclass with these fields; what its __init__ would do has been done."""
    made: Any = object.__new__(cls)
    for name, value in fields:
        object.__setattr__(made, name, value)
    return made


def substitute(
    given: tuple[Sequence[Any], Mapping[str, Any]], spec: TreeSpec, leaves: Sequence[Any]
) -> tuple[Any, Any, Callable[[], None]]:
    """(args, kwargs, undo) with `leaves` in place of the leaves of `given`.

    The user's own lists, dicts and dataclass instances stay the objects they are: a leaf that is another one is put
    into them, and taken out by `undo`.
    """
    changed: list[tuple[Any, str, Any, Any, Any]] = []
    feed = iter(leaves)
    args, kwargs = (
        _put(x, s, feed, changed) for x, s in zip((tuple(given[0]), dict(given[1])), spec.children, strict=True)
    )

    def undo() -> None:
        for owner, kind, key, old, new in changed:
            if kind == "data":
                if getattr(owner, key) is new:
                    object.__setattr__(owner, key, old)
            elif (key in owner if kind in _DICTS else key < len(owner)) and owner[key] is new:
                owner[key] = old

    return args, kwargs, undo


def _put(x: Any, spec: TreeSpec, feed: Iterator[Any], changed: list[Any]) -> Any:
    if spec.kind == "leaf":
        return next(feed)
    kind, keys, items, _ = _children(x) or ("", (), (), None)
    made = [_put(item, s, feed, changed) for item, s in zip(items, spec.children, strict=True)]
    if all(a is b for a, b in zip(made, items, strict=True)):
        return x
    if kind in ("tuple", "named"):
        return tuple(made) if kind == "tuple" else tuple.__new__(type(x), made)
    for key, old, new in zip(keys or range(len(made)), list(items), made, strict=True):
        if old is not new:
            changed.append((x, kind, key, old, new))
            if kind == "data":
                object.__setattr__(x, key, new)
            else:
                x[key] = new
    return x


def to_json(spec: TreeSpec) -> Any:
    """Plain JSON for a file; named tuples, dataclasses and all kinds of dict become dicts there (a file names no
    classes).
    """
    if spec.kind == "leaf":
        return "*"
    kind = spec.kind if spec.kind in ("leaf", "tuple", "list") else "dict"
    keys = [k if type(k) is int else str(k) for k in spec.keys]
    return {"kind": kind, "keys": keys, "children": [to_json(c) for c in spec.children]}


def from_json(data: Any, depth: int = 0) -> TreeSpec:
    """The inverse of to_json. Raises ArtifactError for anything else."""
    if data == "*":
        return LEAF
    if depth > _MAX_DEPTH or not isinstance(data, dict) or set(data) != {"kind", "keys", "children"}:
        raise ArtifactError("signature: not a tree of inputs or outputs")
    kind, keys, children = data["kind"], data["keys"], data["children"]
    if kind not in ("tuple", "list", "dict") or not isinstance(keys, list) or not isinstance(children, list):
        raise ArtifactError("signature: not a tree of inputs or outputs")
    if any(type(k) not in (str, int) for k in keys) or (kind == "dict" and len(keys) != len(children)):
        raise ArtifactError("signature: the keys of a dict do not fit")
    return TreeSpec(kind, tuple(keys), tuple(from_json(c, depth + 1) for c in children))
