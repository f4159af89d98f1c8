"""Adding one to many integer attributes in one native call.

A compiled training step counts a write to every parameter and every state: in Python that is most of what it costs.
Integers that are equal become one object on the way, so that the next time most of them need no arithmetic.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.runtime.code import library, once
from graphc.runtime.words import inline_place, plain_target

# Row: address of the pointer to an object's values, that pointer, address of the value. Functions: those of _NAMES.
_TEXT = """define i64 @graphc_add_one(ptr %rows, i64 %n, ptr %functions) nounwind {
entry:
  %as = load ptr, ptr %functions, align 8
  %f1 = getelementptr i64, ptr %functions, i64 1
  %from = load ptr, ptr %f1, align 8
  %f2 = getelementptr i64, ptr %functions, i64 2
  %hold = load ptr, ptr %f2, align 8
  %drop = getelementptr i64, ptr %functions, i64 3
  %release = load ptr, ptr %drop, align 8
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %store ]
  %before = phi ptr [ null, %entry ], [ %held, %store ]
  %after = phi ptr [ null, %entry ], [ %new, %store ]
  %last = phi i64 [ -1, %entry ], [ %now, %store ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %check, label %done
check:
  %i3 = mul i64 %i, 3
  %row = getelementptr i64, ptr %rows, i64 %i3
  %place = load ptr, ptr %row, align 8
  %r1 = getelementptr i64, ptr %row, i64 1
  %expected = load i64, ptr %r1, align 8
  %found = load i64, ptr %place, align 8
  %same = icmp eq i64 %found, %expected
  br i1 %same, label %look, label %done
look:
  %r2 = getelementptr i64, ptr %row, i64 2
  %slot = load ptr, ptr %r2, align 8
  %old = load ptr, ptr %slot, align 8
  %known = icmp eq ptr %old, %before
  br i1 %known, label %store, label %absent
absent:
  %none = icmp eq ptr %old, null
  br i1 %none, label %done, label %count
count:
  %number = call i64 %as(ptr %old)
  %bad = icmp slt i64 %number, 0
  br i1 %bad, label %done, label %compare
compare:
  %equal = icmp eq i64 %number, %last
  br i1 %equal, label %store, label %make
make:
  %number1 = add i64 %number, 1
  %made = call ptr %from(i64 %number1)
  %failed = icmp eq ptr %made, null
  br i1 %failed, label %done, label %turn
turn:
  call void %hold(ptr %old)
  call void %release(ptr %before)
  call void %release(ptr %after)
  br label %store
store:
  %new = phi ptr [ %after, %look ], [ %after, %compare ], [ %made, %turn ]
  %held = phi ptr [ %before, %look ], [ %before, %compare ], [ %old, %turn ]
  %now = phi i64 [ %last, %look ], [ %last, %compare ], [ %number, %turn ]
  call void %hold(ptr %new)
  store ptr %new, ptr %slot, align 8
  call void %release(ptr %old)
  %i1 = add i64 %i, 1
  br label %next
done:
  call void %release(ptr %before)
  call void %release(ptr %after)
  ret i64 %i
}
"""
_NAMES = ("PyLong_AsLong", "PyLong_FromLong", "Py_IncRef", "Py_DecRef")  # the last two take a null pointer, too


class Counters:
    """Integer attributes (of objects, by name) that count together."""

    def __init__(self, owners: Sequence[tuple[Any, str]]) -> None:
        self._owners = list(owners)
        self._bind()

    def _bind(self) -> None:
        self._inline: list[tuple[Any, str]] = []
        self._others: list[tuple[Any, str]] = []
        rows = []
        self._owners.sort(key=_number)  # equal ones stay neighbours
        for obj, name in self._owners:
            row = inline_place(obj, name)
            if row is None:
                self._others.append((obj, name))
            else:
                self._inline.append((obj, name))
                rows.append(row)
        self._rows = np.array(rows, np.int64).reshape(-1, 3)
        self._address = self._rows.ctypes.data

    def add_one(self) -> None:
        """Every attribute is one more than before."""
        done = 0
        if self._inline:
            add, functions = _native()
            done = add(self._address, len(self._inline), functions)
        rest = [*self._inline[done:], *self._others]
        for obj, name in rest:
            setattr(obj, name, getattr(obj, name) + 1)
        if done < len(self._inline):  # an object keeps its attributes elsewhere by now
            self._bind()


def _number(pair: tuple[Any, str]) -> int:
    found: int = getattr(*pair)
    return found


@once
def _native() -> tuple[Callable[[int, int, int], int], int]:
    loaded = library().module(lambda _: _TEXT, plain_target())
    found = [ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0 for name in _NAMES]
    _kept.append(np.array(found, np.int64))
    add = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    return add(loaded.address("graphc_add_one")), _kept[0].ctypes.data


_kept: list[np.ndarray[Any, Any]] = []  # the addresses of the functions
