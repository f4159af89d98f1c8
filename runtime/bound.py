"""A context of an executable whose operands stay from run to run: only what is another array is put in again."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.runtime import executable
from graphc.runtime.direct import SMALL_BYTES
from graphc.runtime.driver import native
from graphc.runtime.executable import DATA_OFFSET, Executable
from graphc.runtime.frame import IO_AT
from graphc.runtime.workspace import give_workspace, take_workspace

Array = np.ndarray[Any, Any]


class Bound:
    """For one caller at a time. `operands`: inputs, then outputs; it keeps them alive, so set to None what it need not.

    The arrays must have exactly the layouts of the program.
    """

    def __init__(self, exe: Executable) -> None:
        program = exe.program
        self.exe = exe
        self.operands: list[Any] = [None] * (len(program.inputs) + len(program.outputs))
        self.context = exe.new_context()  # keeps what it holds addresses of
        self.addresses = self.context.view  # that of operand k is at io + k
        self.io = IO_AT // 8
        self._first_output = len(program.inputs)
        self._workspace = self.io + len(self.operands)
        self._bytes = exe.workspace_bytes
        size = sum(layout.type.nbytes for layout in program.inputs)
        size += sum(spec.layout.type.nbytes for spec in program.outputs)
        self._run = native().run_held if size <= SMALL_BYTES else native().run

    def put(self, k: int, array: Array) -> None:
        """Operand `k` is `array` from now on."""
        self.operands[k] = array
        self.addresses[self.io + k] = id(array)

    def run(self) -> None:
        """One native call; all operands have been put."""
        exe = self.exe
        if exe._parallel and not exe._pool.ready:
            exe._pool.ensure()
        if self._bytes:
            workspace = take_workspace(self._bytes)
            self.addresses[self._workspace] = id(workspace)
            if exe.poison:
                exe.fill(workspace, self.operands[self._first_output :])
            self._run(self.context.frame)
            give_workspace(workspace)
        else:
            self.addresses[self._workspace] = id(executable._NO_WORKSPACE)
            if exe.poison:
                exe.fill(executable._NO_WORKSPACE, self.operands[self._first_output :])
            self._run(self.context.frame)
        exe.stats.native_calls += 1


def bindable(exe: Any) -> bool:
    """Whether runs of `exe` may go through a Bound now: nobody observes them."""
    return isinstance(exe, Executable) and DATA_OFFSET >= 0 and executable.observer is None
