"""Text made of recorded values: free where it is printed, written or logged at once, else Python may act on it."""

from __future__ import annotations

import dis
import sys
from types import CodeType, FrameType
from typing import Any

from graphc.caller import kind_of
from graphc.frontend.tensor import Tensor
from graphc.ir.graph import Location

_KEEPS = ("STORE_", "RETURN_", "YIELD_", "LIST_APPEND", "SET_ADD", "MAP_ADD")


class Texts:
    """The texts of one recording; `shown` are the lines that made text of a whole tensor."""

    def __init__(self) -> None:
        self.shown: list[Location] = []
        self._pending: list[tuple[Tensor, Location, int]] = []
        self._showing: tuple[int, CodeType, int] | None = None  # frame, code and instruction that shows something

    def note(self, tensor: Tensor) -> None:
        """`tensor`, or the number read from it, becomes text now."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and kind_of(frame.f_code) != "user":
            if is_logging(frame):
                return
            frame = frame.f_back
        if frame is not None and self._showing != (id(frame), frame.f_code, frame.f_lasti):
            self._pending.append((tensor, Location(frame.f_code, frame.f_lasti), id(frame)))

    def show(self, frame: FrameType) -> None:
        """`frame` calls print(), write() or a logger: what its statement made so far goes there."""
        self._showing = id(frame), frame.f_code, frame.f_lasti
        self._pending = [p for p in self._pending if p[2] != id(frame) or _kept(p[1], frame)]

    def take(self) -> list[tuple[Tensor, Location]]:
        """What was shown nowhere, once."""
        found, self._pending = self._pending, []
        return [(tensor, loc) for tensor, loc, _ in found]


def is_logging(frame: FrameType) -> bool:
    """True for code of the standard library's logging."""
    return str(frame.f_globals.get("__name__", "")).split(".")[0] == "logging"


def is_logger(x: Any) -> bool:
    """True for a logger. Nothing is one where the module, slow to import, was never asked for."""
    logging = sys.modules.get("logging")
    return logging is not None and isinstance(x, logging.Logger)


def _kept(loc: Location, frame: FrameType) -> bool:
    """True when code between the text and the call may have stored it."""
    if loc.code is not frame.f_code or loc.offset > frame.f_lasti:
        return True
    between = (i for i in dis.get_instructions(frame.f_code) if loc.offset <= i.offset < frame.f_lasti)
    return any(i.opname.startswith(_KEEPS) for i in between)
