"""The closed list of objects whose content conditions can stand for; whatever is not on it is refused."""

from __future__ import annotations

import abc
import argparse
import datetime
import enum
import functools
import inspect
import io
import numbers
import pathlib
import re
import sys
import types
import typing
import uuid
from fractions import Fraction
from threading import Lock, RLock
from typing import Any

import numpy as np

from graphc.caller import kind_of_file
from graphc.frontend.record.texts import is_logger

# what cannot change: the object itself is the condition
_FIXED = (
    re.Pattern, re.Match, slice, range, datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo,
    pathlib.PurePath, uuid.UUID, np.generic, types.CodeType, types.EllipsisType, types.NotImplementedType,
    types.GenericAlias, types.UnionType, inspect.Signature, enum.auto, BaseException, np.dtype, np.ufunc,
    type(np.sum),  # what numpy calls a function
)  # fmt: skip
_PLAIN = (object, list, tuple, dict, set, frozenset, str, int, float, complex, bytes, bytearray, type, property)
# attributes in Python that are read by name
_NAMED = (
    types.SimpleNamespace, argparse.Namespace, types.ModuleType, functools.cached_property, functools.partialmethod,
)  # fmt: skip
_BASES = frozenset({"abc", "collections", "collections.abc", "contextlib", "enum", "numbers", "types", "typing"})
_LOCKS = (type(Lock()), type(RLock()))
_READS = frozenset({
    "getvalue", "getbuffer", "read", "read1", "readall", "readinto", "readline", "readlines", "tell", "seek",
    "truncate", "next", "iter", "closed", "name", "mode",
})  # fmt: skip
_DESCRIPTORS = (
    types.MethodDescriptorType, types.WrapperDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType,
    types.ClassMethodDescriptorType, staticmethod, classmethod,
)  # fmt: skip
_ABSTRACT = (abc.ABCMeta, typing.Generic, numbers.Number)


def fixed(x: Any) -> bool:
    """True for an object that cannot change."""
    module = type(x).__module__
    return isinstance(x, _FIXED) or module == "typing" or (module == "fractions" and type(x) is Fraction)


def readable(x: Any, names: frozenset[str]) -> bool:
    """True for an object of the standard library (or of builtins, or of C) that is watched through its attributes, or
    has none that `names` could read. Objects of graphc are.
    """
    cls = type(x)
    module = cls.__module__
    if isinstance(x, _LOCKS):
        return "locked" not in names
    if isinstance(x, io.IOBase):
        return names.isdisjoint(_READS)  # what is written there is no matter of reading
    if module.split(".")[0] == "graphc" or isinstance(x, (*_NAMED, *_DESCRIPTORS)) or is_logger(x):
        return True
    if module in ("collections", "os", "types", "_thread", "contextlib", "functools") and hasattr(x, "__dict__"):
        return cls is not functools._lru_cache_wrapper
    return cls is object or hasattr(cls, "__next__") or isinstance(x, functools.partial)


def python_class(cls: type) -> bool:
    """True for a user's class whose instances keep all they have where Python can look: no base in C of another
    library.
    """
    return all(map(_plain_base, cls.__mro__))


def _plain_base(cls: type) -> bool:
    module = cls.__module__
    if cls in _PLAIN or module.split(".")[0] == "graphc" or module in _BASES or issubclass(cls, (*_FIXED, *_NAMED)):
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return module not in sys.builtin_module_names
    return kind_of_file(file) == "user" and not file.endswith((".so", ".pyd"))
