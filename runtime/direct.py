"""The shortest way into native code: small programs of one output, called with the interpreter lock held.

`Executable.run` serves any program; eager execution calls the same few small ones over and over, and there its
generality costs more than the kernel. A function made here checks nothing and knows its number of inputs. The lock is
kept because a kernel of some microseconds is over before another thread could use the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.runtime.driver import native
from graphc.runtime.executable import DATA_OFFSET, Executable
from graphc.runtime.frame import IO_AT

Array = np.ndarray[Any, Any]

SMALL_BYTES = 1 << 16  # of all operands together
_NOTHING = np.empty(0, np.uint8)  # stands for the workspace of a program without one


def direct(exe: Executable) -> Callable[..., Array] | None:
    """`run(*arrays) -> array` for a small program of one or two inputs and one fresh output without a workspace, else
    None.

    The arrays must have exactly the layouts of the program, and live as long as the call.
    """
    program = exe.program
    if len(program.outputs) != 1 or program.outputs[0].donated is not None or exe.workspace_bytes or DATA_OFFSET < 0:
        return None
    size = sum(layout.type.nbytes for layout in program.inputs) + program.outputs[0].layout.type.nbytes
    if size > SMALL_BYTES or len(program.inputs) not in (1, 2):
        return None
    return _one(exe) if len(program.inputs) == 1 else _two(exe)


def _one(exe: Executable) -> Callable[[Array], Array]:
    free, pack, run, empty, shape, dtype, nothing = _parts(exe)

    def call(x: Array) -> Array:
        out: Array = empty(shape, dtype)
        try:
            context = free.pop()  # one caller at a time: another thread finds the list empty
        except IndexError:
            context = exe.new_context()  # this also keeps `exe` alive: the context holds addresses of its arrays
        pack(context.view, IO_AT, id(x), id(out), nothing)
        run(context.frame)
        free.append(context)
        return out

    return call


def _two(exe: Executable) -> Callable[[Array, Array], Array]:
    free, pack, run, empty, shape, dtype, nothing = _parts(exe)

    def call(x: Array, y: Array) -> Array:
        out: Array = empty(shape, dtype)
        try:
            context = free.pop()
        except IndexError:
            context = exe.new_context()
        pack(context.view, IO_AT, id(x), id(y), id(out), nothing)
        run(context.frame)
        free.append(context)
        return out

    return call


def _parts(exe: Executable) -> Any:
    layout = exe.program.outputs[0].layout
    return (
        [],
        exe.pack,
        native().run_held,
        np.empty,
        layout.type.sizes,
        layout.type.dtype.np,
        id(_NOTHING),
    )
