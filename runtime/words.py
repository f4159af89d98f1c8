"""Whether objects are what they were, by machine code that compares words of their memory.

A Watch is a list of (address, word); asking whether all of them are as they were costs about a nanosecond a word,
where Python takes thirty for one attribute. Words are compared in order and the first that differs ends it, so a word
may lie in memory that is only known to exist because the words before it are as expected. The interpreter lock is held
meanwhile. Whoever has a Watch keeps the objects alive.

The functions below give the words that say one thing of one object. They know where CPython 3.11 and 3.12 keep it
(a dict counts its changes there, PEP 509), they compare what they find with what Python says, and `readable()` tries
all of it out once. Anywhere else it is False, and callers ask Python.
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from types import CellType, FunctionType, MappingProxyType
from typing import Any

import numpy as np

from graphc.runtime import llvm
from graphc.runtime.code import library, once

Word = tuple[int, int]  # address, what it holds
Words = list[Word] | None  # None: this cannot be said in words

_TEXT = """define i64 @graphc_unchanged(ptr %table, i64 %n) nounwind {
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %same ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %look, label %done
look:
  %i2 = shl i64 %i, 1
  %at = getelementptr i64, ptr %table, i64 %i2
  %address = load ptr, ptr %at, align 8
  %expected.at = getelementptr i64, ptr %at, i64 1
  %expected = load i64, ptr %expected.at, align 8
  %found = load i64, ptr %address, align 8
  %equal = icmp eq i64 %found, %expected
  br i1 %equal, label %same, label %done
same:
  %i1 = add i64 %i, 1
  br label %next
done:
  ret i64 %i
}
"""

# byte offsets
_COUNT = 0  # of references, in any object
_CLASS = 8
_MAPPING = 16  # of a mappingproxy
_SIZE = 16  # of a list
_ITEMS = 24
_USED = 24  # number of elements of a set
_CONTENT = 16  # of a cell
_CODE = {"__code__": 48, "__defaults__": 56, "__kwdefaults__": 64}  # of a function
_CHANGES, _KEYS, _VALUES = 24, 32, 40  # of a dict
_SHAPE, _ENTRIES, _FIRST = 8, 24, 32  # of the keys of a dict: sizes and kind, number of entries, the entries
_ARRAY = (16, 24, 32, 40, 56, 64)  # data, rank, sizes, strides, dtype, flags of an ndarray
_GENERAL, _SPLIT = 0, 2  # kinds of keys
_MANAGED = 1 << 4  # flag of a class whose instances have the words before them
_DICT = -24  # from an instance to the address of its dict
_INLINE = -32 if sys.version_info < (3, 12) else -24  # to the address of its values while it has no dict
_LOOKS = ("__getitem__", "__iter__", "__len__")  # what a class of dicts must have from dict
_slots: weakref.WeakKeyDictionary[type, tuple[int, int, dict[str, int]]] = weakref.WeakKeyDictionary()


def word(address: int) -> int:
    """The eight bytes there."""
    return ctypes.c_int64.from_address(address).value


def data_of(array: np.ndarray[Any, Any]) -> int:
    """The address of the first element, where `readable()`."""
    return ctypes.c_int64.from_address(id(array) + _ARRAY[0]).value


class Watch:
    """Words and what they should be."""

    __slots__ = ("_address", "_ask", "_table", "count")

    def __init__(self, words: Sequence[Word]) -> None:
        self._table = np.array(words, np.int64).reshape(-1, 2)
        self._address = self._table.ctypes.data
        self._ask = _native()
        self.count = len(words)

    def first_change(self) -> int:
        """The number of the first word that differs; `count` where all are as expected."""
        return self._ask(self._address, self.count)

    def holds(self, start: int, end: int) -> bool:
        """Whether the words from number `start` up to `end`, which stand for themselves, are as expected."""
        return self._ask(self._address + 16 * start, end - start) == end - start


@once
def _native() -> Callable[[int, int], int]:
    loaded = library().module(lambda _: _TEXT, plain_target())
    return ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(loaded.address("graphc_unchanged"))


def plain_target() -> Any:
    """The plainest target of this machine."""
    from graphc.runtime.driver import native_target

    return native_target()


def same_dict(obj: Any) -> Words:
    """`obj.__dict__` is the dict it is now (which it gets by this question)."""
    found = getattr(obj, "__dict__", None)
    offset = type(obj).__dictoffset__
    if type(obj).__flags__ & _MANAGED:
        offset = _DICT
    if type(found) is not dict or not offset or (offset < 0 and offset != _DICT):
        return None
    return _checked([(id(obj) + offset, id(found))])


def same_class(obj: Any) -> Words:
    """An object is of the class it is of now."""
    return _checked([(id(obj) + _CLASS, id(type(obj)))])


def same_bases(cls: type) -> Words:
    """A class inherits from the classes it inherits from now, in that order."""
    at = _order_at()
    return _checked([(id(cls) + at, id(cls.__mro__))]) if at else None


@once
def _order_at() -> int:
    """Where a class keeps its `__mro__`; 0 if that is not found."""
    classes = (int, OrderedDict, type("Probe", (), {}))
    size: int = type.__dict__["__basicsize__"].__get__(type)
    places = range(_CLASS, size, 8)
    return next((k for k in places if all(word(id(c) + k) == id(c.__mro__) for c in classes)), 0)


def same_items(found: Any) -> Words:
    """No key and no value of a dict was set, replaced or taken away, nor the order changed."""
    cls = type(found)
    if cls is MappingProxyType:  # that of a class
        inner = word(id(found) + _MAPPING)
        return [(inner + _CHANGES, word(inner + _CHANGES))] if word(inner + _CLASS) == id(dict) else None
    alike = issubclass(cls, dict) and all(getattr(cls, name) is getattr(dict, name) for name in _LOOKS)
    if alike or (cls is OrderedDict and not found):
        return [(id(found) + _CHANGES, word(id(found) + _CHANGES))]
    return None


def same_list(found: list[Any], places: Iterable[int] = ()) -> Words:
    """A list has the length it has now, and the same objects at these places."""
    if type(found) is not list:
        return None
    size, items = len(found), word(id(found) + _ITEMS)
    words = [(id(found) + _SIZE, size), (id(found) + _ITEMS, items)]
    for k in places:
        if not -size <= k < size:
            return None
        words.append((items + 8 * (k % size), id(found[k])))
    return _checked(words[:1]) and _checked(words)


def same_size(found: set[Any]) -> Words:
    """A set has as many elements as now."""
    return _checked([(id(found) + _USED, len(found))]) if type(found) is set else None


def same_code(f: Callable[..., Any], name: str) -> Words:
    """`__code__`, `__defaults__` or `__kwdefaults__` of a function is the same object."""
    value = getattr(f, name, None)
    return _checked([(id(f) + _CODE[name], 0 if value is None else id(value))]) if type(f) is FunctionType else None


def same_content(cell: CellType) -> Words:
    """A closure variable is the same object."""
    return _checked([(id(cell) + _CONTENT, id(cell.cell_contents))]) if type(cell) is CellType else None


def same_array(found: np.ndarray[Any, Any]) -> Words:
    """An ndarray has the same memory, shape, strides, dtype and flags."""
    if type(found) is not np.ndarray:
        return None
    at, rank = id(found), found.ndim
    words = [(at + k, word(at + k)) for k in _ARRAY]
    expected = (found.ctypes.data, rank, found.flags.num)
    if (words[0][1], words[1][1] & 0xFFFFFFFF, words[5][1] & 0xFFFFFFFF) != expected or words[4][1] != id(found.dtype):
        return None
    for start, numbers in ((words[2][1], found.shape), (words[3][1], found.strides)):
        words += [(start + 8 * k, number) for k, number in enumerate(numbers)]
    return _checked(words)


def references(obj: Any, count: int) -> Words:
    """`obj` is held `count` times, and by no weak reference."""
    return [(id(obj) + _COUNT, count), (id(obj) + type(obj).__weakrefoffset__, 0)]


def same_fields(obj: Any, names: Sequence[str]) -> Words:
    """Each of these instance attributes is the same object, or still absent."""
    if not type(obj).__flags__ & _MANAGED:
        return None
    inline = word(id(obj) + _INLINE)
    if _INLINE == _DICT:
        return _inline(obj, names, inline, inline + 1) if inline & 1 else _in_dict(obj, names)
    return _inline(obj, names, inline, inline) if inline else _in_dict(obj, names)


def same_instance(obj: Any) -> Words:
    """All instance attributes are the same objects, and no other came. None where they are in a dict."""
    found = same_fields(obj, ("",))  # a name nobody has: the table of names is as it is
    if found is None or len(found) != 2:
        return None
    _, entries, _ = _class_slots(type(obj))
    values = found[0][1] + (_INLINE == _DICT)
    return [*found, *((values + 8 * k, word(values + 8 * k)) for k in range(entries))]


def inline_place(obj: Any, name: str) -> tuple[int, int, int] | None:
    """Where an instance attribute that is set is kept while the instance has no dict: address of the pointer to its
    values, that pointer, address of the value.
    """
    if not readable() or not type(obj).__flags__ & _MANAGED:
        return None
    pointer = word(id(obj) + _INLINE)
    if not pointer or (_INLINE == _DICT and not pointer & 1):
        return None
    slot = _class_slots(type(obj))[2].get(name)
    if slot is None:
        return None
    at = pointer + (_INLINE == _DICT) + 8 * slot
    return (id(obj) + _INLINE, pointer, at) if word(at) else None


def _inline(obj: Any, names: Sequence[str], pointer: int, values: int) -> Words:
    keys, entries, slots = _class_slots(type(obj))
    words = [(id(obj) + _INLINE, pointer)]
    if not all(name in slots for name in names):
        words.append((keys + _ENTRIES, entries))
    words += [(values + 8 * slots[name], word(values + 8 * slots[name])) for name in names if name in slots]
    return words


def _class_slots(cls: type) -> tuple[int, int, dict[str, int]]:
    """Address and size of the table of names that all instances of a class share, and the place of each name."""
    found = _slots.get(cls)
    if found is None or word(found[0] + _ENTRIES) != found[1]:
        keys = word(id(object.__new__(cls).__dict__) + _KEYS)
        found = _slots[cls] = keys, word(keys + _ENTRIES), _names(keys)
    return found


def _start(keys: int) -> int:
    """Where the entries are, behind the index."""
    return keys + _FIRST + (1 << ctypes.c_uint8.from_address(keys + _SHAPE + 1).value)


def _kind(keys: int) -> int:
    return ctypes.c_uint8.from_address(keys + _SHAPE + 2).value


def _names(keys: int) -> dict[str, int]:
    start = _start(keys)
    return {_object(word(start + 16 * k)): k for k in range(word(keys + _ENTRIES))}


def _object(address: int) -> Any:
    return ctypes.cast(address, ctypes.py_object).value


def _in_dict(obj: Any, names: Sequence[str]) -> Words:
    found = obj.__dict__
    keys, values = word(id(found) + _KEYS), word(id(found) + _VALUES)
    words = same_dict(obj)
    if words is None or _kind(keys) == _GENERAL or bool(values) is not (_kind(keys) == _SPLIT):
        return None
    words.append((id(found) + _VALUES, values))
    start, names_there = _start(keys), (keys + _ENTRIES, word(keys + _ENTRIES))
    if not values:  # a table of its own: all its keys, so that no other can have come
        words += [(id(found) + _KEYS, keys), names_there]
        words += [(start + 16 * k, word(start + 16 * k)) for k in range(names_there[1])]
    slots, at, step = (_names(keys), values, 8) if values else (_filled(keys), start + 8, 16)
    if values and not all(name in slots for name in names):  # the table of the class: it may get more names
        words.append(names_there)
    words += [(at + step * slots[name], word(at + step * slots[name])) for name in names if name in slots]
    return words


def _filled(keys: int) -> dict[str, int]:
    start = _start(keys)
    entries = ((k, word(start + 16 * k), word(start + 16 * k + 8)) for k in range(word(keys + _ENTRIES)))
    return {_object(key): k for k, key, value in entries if key and value}


def _checked(words: list[Word]) -> Words:
    """The words, if they are what is there."""
    return words if all(word(address) == expected for address, expected in words) else None


# ---------------------------------------------------------------- trying it out


@once
def readable() -> bool:
    """Whether this interpreter keeps things where the functions above look."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False
    if sys.version_info[:2] not in ((3, 11), (3, 12)) or object.__basicsize__ != 16 or sys.byteorder != "little":
        return False
    llvm.host()
    return _dicts() and _lists() and _arrays() and all(_instances(dict_first) for dict_first in (False, True))


def _notices(words: Words, change: Callable[[], Any]) -> bool:
    """True when the words hold, and do not after a change."""
    if words is None:
        return False
    watch = Watch(words)
    held = watch.first_change() == watch.count
    change()
    return held and watch.first_change() < watch.count


def _dicts() -> bool:
    d: dict[Any, Any] = {"a": object(), "b": object(), 1: object()}
    changes: list[Callable[[], Any]] = [
        lambda: d.__setitem__("a", object()), lambda: d.__setitem__("c", 1), lambda: d.pop("b"),
        lambda: d.update(a=object()), lambda: d.setdefault("e", 2), lambda: d.__delitem__(1), d.popitem,
        lambda: d.__ior__({"a": None}), d.clear,
    ]  # fmt: skip
    Changed = type("Changed", (), {"a": 1})
    Derived = type("Derived", (Changed,), {})
    grown: Any = defaultdict(object)
    ordered: Any = OrderedDict()
    return (
        all(_notices(same_items(d), change) for change in changes)
        and _notices(same_items(grown), lambda: grown["a"])
        and _notices(same_items(ordered), lambda: ordered.setdefault("a"))
        and _notices(same_bases(Derived), lambda: setattr(Derived, "__bases__", (type("New", (), {}),)))
        and _notices(same_items(vars(Changed)), lambda: setattr(Changed, "a", 2))
        and _notices(same_items(vars(Changed)), lambda: setattr(Changed, "b", 2))
    )


def _lists() -> bool:
    items = [object(), object()]
    held = [object()]

    def cell() -> Any:
        return held

    def put() -> None:
        nonlocal held
        held = []

    def other(a: int = 1, *, b: int = 2) -> int:
        return a + b

    closure, elements = cell.__closure__ or (), {1}
    return (
        _notices(same_list(items, (0, -1)), lambda: items.__setitem__(1, object()))
        and _notices(same_list(items), lambda: items.append(object()))
        and _notices(same_list(items, (0, 1, 2)), lambda: items.insert(0, items.pop()))
        and _notices(same_content(closure[0]), put)
        and _notices(same_size(elements), elements.clear)
        and _notices(same_code(other, "__code__"), lambda: setattr(other, "__code__", _dicts.__code__))
        and _notices(same_code(other, "__defaults__"), lambda: setattr(other, "__defaults__", (2,)))
        and _notices(same_code(other, "__kwdefaults__"), lambda: setattr(other, "__kwdefaults__", {"b": 3}))
    )


def _arrays() -> bool:
    a = np.zeros((3, 4))
    held: list[Any] = []
    words = references(a, sys.getrefcount(a) - 2)  # less the argument of both calls
    return (
        _notices(same_array(a), lambda: a.resize((4, 3), refcheck=False))
        and _notices(same_array(a), lambda: a.setflags(write=False))
        and _notices(words, lambda: held.append(a))
    )


def _instances(dict_first: bool) -> bool:
    class Probe:
        usual: Any = None
        a: Any
        b: Any

    def make() -> Any:
        made = Probe()
        made.a, made.b = object(), object()
        if dict_first:
            vars(made)
        return made

    names = ("a", "b", "usual", "other")
    changes: list[Callable[[Any], Any]] = [
        lambda x: setattr(x, "b", None), lambda x: setattr(x, "usual", 1), lambda x: delattr(x, "a"),
        lambda x: vars(x).update(b=2), lambda x: setattr(x, "__dict__", {}), lambda x: setattr(x, "other", 1),
        lambda x: vars(x).update({f"more{k}": k for k in range(40)}, a=5),
    ]  # fmt: skip
    right = True
    for change in changes:
        x = make()
        right = right and _notices(same_fields(x, names), lambda x=x, change=change: change(x))  # type: ignore[misc]
    x = make()
    right = right and _notices(same_class(x), lambda: setattr(x, "__class__", type("Other", (Probe,), {})))
    x = make()
    right = right and _notices(same_dict(x), lambda: setattr(x, "__dict__", dict(vars(x))))
    y = make()
    kept: list[Any] = []
    return right and _notices(references(y, sys.getrefcount(y) - 2), lambda: kept.append(weakref.ref(y)))
