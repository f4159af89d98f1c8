"""Plans as builtin functions: small programs and views that Python calls without ctypes between.

The machine code (runtime/entry_ir.py) relies on where CPython and NumPy keep a few fields and on numbered functions
of NumPy's C interface. All of it is checked once, on arrays made for that; where anything differs (another
interpreter, one without the global lock) `entries()` is None and callers keep to the portable way.
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.types import Layout
from graphc.runtime import entry_ir
from graphc.runtime.code import once
from graphc.runtime.driver import native
from graphc.runtime.frame import IO_AT, Instance, build_template
from graphc.runtime.memory import aligned_bytes
from graphc.runtime.program import OutputSpec, Program

Array = np.ndarray[Any, Any]
Words = np.ndarray[Any, np.dtype[np.int64]]

WORKSPACE_BYTES = 1 << 20  # shared by all programs called here: the lock is held while one runs
_FASTCALL = 0x0080  # METH_FASTCALL
# numbers in NumPy's table of C functions; they never change
_ARRAY_TYPE, _NEW_FROM_DESCR, _EMPTY, _SET_BASE = 2, 94, 184, 282


class _Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (("name", ctypes.c_char_p), ("f", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p))


@dataclass(frozen=True, slots=True)
class Entries:
    """What builtin functions are made from. The methods must live as long as any of the functions."""

    table: Words
    entry: _Method
    view: _Method
    workspace: Array
    new: Callable[[int, Any, Any], Any]  # PyCFunction_NewEx

    def program(self, frame: Instance, inputs: int, outputs: Sequence[OutputSpec], keep: Any) -> Callable[..., Any]:
        """`run(*arrays)` for a frame whose io starts with `inputs` operands, then these outputs.

        `keep` lives as long as the function. The arrays must have exactly the layouts of the program.
        """
        frame.words[IO_AT // 8 + inputs + len(outputs)] = id(self.workspace)
        head = entry_ir.ENTRY_WORDS + entry_ir.RESULT_WORDS * len(outputs)
        record = np.zeros(head + sum(len(o.layout.type.shape) for o in outputs), np.int64)
        start, free = record.ctypes.data, head
        record[:4] = self.table.ctypes.data, frame.frame, inputs, len(outputs)
        for k, spec in enumerate(outputs):
            sizes, dtype = spec.layout.type.sizes, spec.layout.type.dtype.np
            at = entry_ir.ENTRY_WORDS + entry_ir.RESULT_WORDS * k
            donor = -1 if spec.donated is None else spec.donated
            record[at : at + 4] = donor, len(sizes), start + 8 * free, id(dtype)
            record[free : free + len(sizes)] = sizes
            free += len(sizes)
        run: Callable[..., Any] = self.new(ctypes.addressof(self.entry), record, (self, frame, outputs, keep))
        return run

    def viewer(self, array: Array, offset: int) -> Callable[[Array], Array]:
        """`view(base)` for bases laid out alike: a view of shape, strides and dtype of `array` at that byte offset."""
        rank = array.ndim
        record = np.zeros(6 + 2 * rank, np.int64)
        start = record.ctypes.data
        record[:6] = self.table.ctypes.data, rank, start + 48, start + 48 + 8 * rank, offset, id(array.dtype)
        record[6 : 6 + rank] = array.shape
        record[6 + rank :] = array.strides
        run: Callable[[Array], Array] = self.new(ctypes.addressof(self.view), record, (self, array.dtype))
        return run


@once
def entries() -> Entries | None:
    """The means to make builtin functions, or None where this interpreter or NumPy are not as they need them."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED") or not _as_expected():
        return None
    table = _table()
    if table is None:
        return None
    method = [
        _Method(name, address, _FASTCALL, None)
        for name, address in ((b"graphc_entry", native().entry), (b"graphc_view", native().view))
    ]
    new = ctypes.pythonapi.PyCFunction_NewEx
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.py_object)(
        ctypes.cast(new, ctypes.c_void_p).value or 0
    )
    found = Entries(table, method[0], method[1], aligned_bytes(WORKSPACE_BYTES), make)
    return found if _works(found) else None


def _as_expected() -> bool:
    """Whether the fields the machine code reads lie where it looks."""
    probes: list[Any] = [np.empty(3), np.arange(12, dtype=np.int64).reshape(3, 4)[1:, ::2], np.zeros((), np.bool_)]
    probes[0].flags.writeable = False
    for array in probes:
        at = id(array)
        if ctypes.c_void_p.from_address(at + entry_ir.TYPE_AT).value != id(np.ndarray):
            return False
        if ctypes.c_void_p.from_address(at + entry_ir.DATA_AT).value != array.ctypes.data:
            return False
        if ctypes.c_int.from_address(at + entry_ir.FLAGS_AT).value != array.flags.num:
            return False
    return True


def _table() -> Words | None:
    """The addresses the machine code calls; None if NumPy's table is not the known one."""
    capsule: Any = np._core._multiarray_umath._ARRAY_API  # type: ignore[attr-defined]
    get = ctypes.pythonapi.PyCapsule_GetPointer
    address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ctypes.cast(get, ctypes.c_void_p).value or 0
    )(capsule, None)
    if not address:
        return None
    api = (ctypes.c_void_p * (_SET_BASE + 1)).from_address(address)
    if api[_ARRAY_TYPE] != id(np.ndarray):
        return None
    python = {
        "incref": "Py_IncRef", "decref": "Py_DecRef", "bad_call": "PyErr_BadInternalCall",
        "is_subtype": "PyType_IsSubtype", "new_tuple": "PyTuple_New", "set_item": "PyTuple_SetItem",
    }  # fmt: skip
    numpy = {"ndarray": _ARRAY_TYPE, "empty": _EMPTY, "new_array": _NEW_FROM_DESCR, "set_base": _SET_BASE}
    words = [
        api[numpy[name]]
        if name in numpy
        else ctypes.cast(getattr(ctypes.pythonapi, python[name]), ctypes.c_void_p).value
        for name in entry_ir.NAMES
    ]
    return None if None in words else np.array(words, np.int64)


def _works(found: Entries) -> bool:
    """Try a view and programs without kernels: whether what comes back is right, and nothing else is kept."""
    base = np.arange(6.0).reshape(2, 3)
    look = found.viewer(base[1:, ::2], 24)
    view = look(base)
    right = view.tolist() == [[3.0, 5.0]] and view.strides == (24, 16) and view.base is not None
    right = right and view.flags.writeable and not view.flags.owndata and not _keeps(look, base)
    layouts = [Layout.of(base), Layout.of(np.empty((2, 3), np.float32)), Layout.of(np.empty((), np.int64))]
    fresh = [OutputSpec(layout, None, "output", str(k)) for k, layout in enumerate(layouts[1:])]
    donated = OutputSpec(layouts[0], 0, "output", "base")
    for outputs in ([*fresh, donated], fresh[:1]):
        program = Program("probe", (layouts[0],), tuple(outputs), (), (), 0)
        frame = build_template(program, (), (), entry_ir.DATA_AT, 0).instantiate()
        run = found.program(frame, 1, outputs, None)
        got = run(base)
        arrays = got if len(outputs) > 1 else (got,)
        right = right and [Layout.of(a) for a in arrays] == [spec.layout for spec in outputs]
        right = right and all((a is base) is (spec is donated) for a, spec in zip(arrays, outputs, strict=True))
        right = right and not _keeps(run, base)
    return right


def _keeps(run: Callable[[Array], Any], base: Array) -> bool:
    """Whether calls hold on to their operand or to dtypes. (Other threads use dtypes, too: a few more say nothing.)"""
    objects = (base, np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.int64))
    before = [sys.getrefcount(x) for x in objects]
    for _ in range(64):
        run(base)
    return any(sys.getrefcount(x) - count >= 32 for x, count in zip(objects, before, strict=True))
