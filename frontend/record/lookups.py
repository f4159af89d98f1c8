"""What must be found unchanged for all guards of a trace to hold as they did: look-ups, containers, tensors.

`Lookups` is the list of it, and asks Python in a few C loops. `Watched` has most of it in words of memory instead
(runtime/words.py) and leaves to Python what cannot be said in words: context variables, attributes of foreign objects,
order in an OrderedDict, and the dicts that change from call to call for other reasons (the globals of a script).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter, contains, getitem, is_
from types import FunctionType
from typing import Any

from graphc.frontend.record.containers import is_plain, item_of
from graphc.frontend.record.paths import in_context
from graphc.frontend.tensor import Tensor
from graphc.runtime import words
from graphc.runtime.words import Watch, Word, Words

STATE = ("_l", "_requires_grad", "_edge", "_gbase", "_hooks")
_state = attrgetter(*STATE)
_array = attrgetter("_a")
_contents = attrgetter("cell_contents")
_fields = attrgetter("__dict__")
_CHANGED = (KeyError, IndexError, AttributeError, ValueError, TypeError)
_CODE = ("__code__", "__defaults__", "__kwdefaults__")


@dataclass(slots=True, eq=False)
class Lookups:
    """Objects with what was found there."""

    dicts: list[tuple[Any, Any]] = field(default_factory=list)  # object, its __dict__
    kinds: list[tuple[Any, Any]] = field(default_factory=list)  # object, its class
    items: list[tuple[Any, Any, Any]] = field(default_factory=list)  # container, key, what is there
    attributes: list[tuple[Any, str, Any]] = field(default_factory=list)
    cells: list[tuple[Any, Any]] = field(default_factory=list)
    variables: list[tuple[Any, Any]] = field(default_factory=list)  # of the context
    sized: list[Any] = field(default_factory=list)  # their lengths matter
    ordered: list[Any] = field(default_factory=list)  # their keys and order matter
    absent: list[tuple[Any, Any]] = field(default_factory=list)  # dict, a key it does not have
    empties: list[Any] = field(default_factory=list)
    bare: list[Any] = field(default_factory=list)  # tensors that have no .grad
    tensors: list[Tensor] = field(default_factory=list)  # whose layout and place on the tape matter
    tests: list[Callable[[], bool]] = field(default_factory=list)

    def close(self) -> None:
        """Make the loops; what was added is taken to be as it is now."""
        tests: list[Callable[[], bool]] = []
        pairs = (self.dicts, _fields), (self.kinds, type), (self.cells, _contents), (self.variables, in_context)
        for columns, get in pairs:
            if columns:
                tests.append(_same_each(get, *zip(*columns, strict=True)))
        plain = [row for row in self.items if is_plain(row[0])]
        others = [row for row in self.items if not is_plain(row[0])]
        for rows, find in ((plain, getitem), (others, item_of), (self.attributes, getattr)):
            if rows:
                tests.append(_same_found(find, *zip(*rows, strict=True)))
        sized = [*self.sized, *self.ordered]
        if sized:
            tests.append(_equal_list(len, sized))
        if self.ordered:
            tests.append(_same_order(self.ordered))
        if self.absent:
            tests.append(_none_there(*zip(*self.absent, strict=True)))
        if self.empties:
            tests.append(lambda: not any(map(len, self.empties)))
        if self.bare:
            tests.append(lambda: all(t._grad is None for t in self.bare))
        if self.tensors:
            hooks = [t._hooks for t in self.tensors if t._hooks is not None]
            tests += [_equal_list(_state, self.tensors), _equal_list(len, hooks)]
        self.tests = tests

    def same(self) -> bool:
        """True when everything is as it was found."""
        try:
            for test in self.tests:
                if not test():
                    return False
        except _CHANGED:
            return False
        return True


def _same_each(get: Callable[[Any], Any], owners: Sequence[Any], found: Sequence[Any]) -> Callable[[], bool]:
    return lambda: all(map(is_, map(get, owners), found))


def _same_found(find: Any, owners: Sequence[Any], keys: Sequence[Any], found: Sequence[Any]) -> Callable[[], bool]:
    return lambda: all(map(is_, map(find, owners, keys), found))


def _none_there(owners: Sequence[Any], keys: Sequence[Any]) -> Callable[[], bool]:
    return lambda: not any(map(contains, owners, keys))


def _equal_list(get: Callable[[Any], Any], owners: Sequence[Any]) -> Callable[[], bool]:
    found = list(map(get, owners))
    return lambda: list(map(get, owners)) == found


def _same_order(owners: Sequence[Any]) -> Callable[[], bool]:
    order = list(chain.from_iterable(owners))
    return lambda: all(map(is_, chain.from_iterable(owners), order))


class Watched:
    """Look-ups as words, as far as that goes. `busy`: containers (by id; held) that are left to Python."""

    def __init__(self, lookups: Lookups, busy: dict[int, Any]) -> None:
        self.rest = Lookups()
        self._busy = busy
        self._words: list[Word] = []
        self._starts: list[int] = []
        self._owners: list[Any] = []  # of the words from each start on
        self._seen: dict[tuple[int, str], Any] = {}
        self._containers(lookups)
        self._objects(lookups)
        self._tensors(lookups.tensors)
        self.rest.close()
        if self.rest.tensors:
            self.rest.tests.append(_same_each(_array, self.rest.tensors, [t._a for t in self.rest.tensors]))
        self.watch = Watch(self._words)
        self._words = []

    def same(self) -> bool:
        """True when everything is as it was found."""
        return self.watch.first_change() == self.watch.count and self.rest.same()

    def changed(self) -> list[Any]:
        """The objects whose words are others now."""
        ends = [*self._starts[1:], self.watch.count]
        groups = zip(self._starts, ends, self._owners, strict=True)
        return [owner for start, end, owner in groups if not self.watch.holds(start, end)]

    def _say(self, owner: Any, found: Words, kind: str = "") -> bool:
        """Take these words on `owner`; once for each kind. False when there are none."""
        if found is None or id(owner) in self._busy:
            return False
        if kind:
            if (id(owner), kind) in self._seen:
                return True
            self._seen[id(owner), kind] = owner
        if found:
            self._starts.append(len(self._words))
            self._owners.append(owner)
            self._words += found
        return True

    def _unchanged(self, owner: Any) -> bool:
        """Take words that say that a container has the keys, values and length it has."""
        if type(owner) is list:
            return self._say(owner, words.same_list(owner), "size")
        if type(owner) is set:
            return self._say(owner, words.same_size(owner), "size")
        return self._say(owner, words.same_items(owner), "items")

    def _containers(self, lookups: Lookups) -> None:
        rest = self.rest
        lists: dict[int, list[tuple[Any, Any, Any]]] = {}
        for row in lookups.items:
            owner = row[0]
            if type(owner) is list:
                lists.setdefault(id(owner), []).append(row)
            elif type(owner) is not tuple and not self._unchanged(owner):  # a tuple is what it was
                rest.items.append(row)
        for rows in lists.values():
            if not self._say(rows[0][0], words.same_list(rows[0][0], [key for _, key, _ in rows]), "items"):
                rest.items += rows
        rest.sized += [x for x in lookups.sized if not self._unchanged(x)]
        rest.ordered += [x for x in lookups.ordered if not self._unchanged(x)]
        rest.absent += [pair for pair in lookups.absent if not self._unchanged(pair[0])]
        rest.empties += [x for x in lookups.empties if not self._unchanged(x)]

    def _objects(self, lookups: Lookups) -> None:
        rest = self.rest
        rest.dicts += [pair for pair in lookups.dicts if not self._say(pair[0], words.same_dict(pair[0]))]
        rest.kinds += [pair for pair in lookups.kinds if not self._say(pair[0], words.same_class(pair[0]))]
        rest.cells += [pair for pair in lookups.cells if not self._say(pair[0], words.same_content(pair[0]))]
        rest.variables += lookups.variables
        for row in lookups.attributes:
            owner, name, _ = row
            found: Words = None
            if isinstance(owner, Tensor) and name == "_grad":
                found = words.same_fields(owner, (name,))
            elif name == "__dict__":
                found = words.same_dict(owner)
            elif type(owner) is FunctionType and name in _CODE:
                found = words.same_code(owner, name)
            elif isinstance(owner, type) and name == "__mro__":
                found = words.same_bases(owner)
            elif isinstance(owner, type) and self._class(owner, name):
                continue
            if not self._say(owner, found):
                rest.attributes.append(row)
        rest.bare += [t for t in lookups.bare if not self._say(t, words.same_fields(t, ("_grad",)))]

    def _class(self, cls: type, name: str) -> bool:
        """Take words that say that a class has, from the class it has it from, the attribute it has."""
        for base in cls.__mro__:
            if not self._say(base, words.same_items(vars(base)), "items"):
                return False
            if name in vars(base):
                return not hasattr(type(cls), name)
        return False

    def _tensors(self, tensors: Sequence[Tensor]) -> None:
        """Layout, place on the tape, and the array, which nobody else has."""
        for t in tensors:
            parts = [words.same_fields(t, ("_a", *STATE))]
            if t._hooks is not None:
                parts.append(words.same_items(t._hooks))
            found = None if None in parts else list(chain.from_iterable(p or () for p in parts))
            if not self._say(t, found):
                self.rest.tensors.append(t)


def watched(lookups: Lookups, busy: dict[int, Any]) -> Watched | None:
    """The look-ups as words where this interpreter can be read that way; None, too, when another thread changed
    something meanwhile.
    """
    if not words.readable():
        return None
    made = Watched(lookups, busy)
    return made if lookups.same() and made.same() else None
