"""The shortest way into native code: small programs, called with the interpreter lock held.

`Executable.run` serves any program; eager execution calls the same few small ones over and over, and there its
generality costs more than the kernel. A function made here checks no layout and knows its number of inputs. The lock
is kept because a kernel of some microseconds is over before another thread could use the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.runtime.driver import native
from graphc.runtime.entry import WORKSPACE_BYTES, entries
from graphc.runtime.executable import DATA_OFFSET, Executable
from graphc.runtime.frame import IO_AT
from graphc.runtime.memory import aligned_bytes

Array = np.ndarray[Any, Any]

SMALL_BYTES = 1 << 16  # of all operands together


def direct(exe: Executable) -> Callable[..., Any] | None:
    """`run(*arrays)` for a small program, giving its one output bare and several as a tuple; None for larger ones.

    The arrays must have exactly the layouts of the program, and live as long as the call.
    """
    program = exe.program
    if exe.workspace_bytes > WORKSPACE_BYTES or DATA_OFFSET < 0:
        return None
    size = sum(layout.type.nbytes for layout in program.inputs)
    size += sum(spec.layout.type.nbytes for spec in program.outputs)
    if size > SMALL_BYTES:
        return None
    means = entries()
    if means is None:
        return _portable(exe)
    return means.program(exe.new_context(), len(program.inputs), program.outputs, exe)


def _portable(exe: Executable) -> Callable[..., Any]:
    """The same through ctypes: for interpreters that runtime/entry.py does not know."""
    free: list[Any] = []
    pack, run = exe.pack, native().run_held
    outputs = [(s.donated, s.layout.type.sizes, s.layout.type.dtype.np) for s in exe.program.outputs]
    one = len(outputs) == 1

    def call(*arrays: Array) -> Any:
        outs = [np.empty(shape, dtype) if k is None else arrays[k] for k, shape, dtype in outputs]
        workspace = aligned_bytes(exe.workspace_bytes)
        try:
            context = free.pop()  # one caller at a time: another thread finds the list empty
        except IndexError:
            context = exe.new_context()  # this also keeps `exe` alive: the context holds addresses of its arrays
        pack(context.view, IO_AT, *map(id, arrays), *map(id, outs), id(workspace))
        run(context.frame)
        free.append(context)
        return outs[0] if one else tuple(outs)

    return call
