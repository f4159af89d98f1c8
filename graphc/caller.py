"""Whose code runs: frames of the user's program told from those of graphc and of libraries."""

from __future__ import annotations

import os
import sys
import sysconfig
from types import CodeType, FrameType


def _our_folders() -> tuple[str, ...]:
    root = os.path.dirname(os.path.abspath(__file__))
    linked = [os.path.realpath(os.path.join(root, name)) for name in ("frontend", "ir", "codegen", "runtime")]
    return tuple(sorted({f + os.sep for f in (root, os.path.realpath(root), *linked)}))


_OURS = _our_folders()
_COMMANDS = tuple(f + os.path.join("cli", "") for f in _OURS)  # whoever called these is no part of the user's program
_STDLIB = tuple({sysconfig.get_paths()["stdlib"] + os.sep, sysconfig.get_paths()["platstdlib"] + os.sep})
_LIBRARIES = tuple(os.sep + part for part in ("site-packages", "dist-packages"))
# what graphc itself runs on, and may import in the middle of a recording
_DEPENDENCIES = tuple(f"{os.sep}{name}{os.sep}" for name in ("numpy", "llvmlite", "networkx", "safetensors"))
KINDS: dict[str, str] = {}  # of files, those met


def kind_of(code: CodeType) -> str:
    """ "ours" (graphc itself), "library" (standard library, frozen modules, what graphc runs on) or "user"."""
    found = KINDS.get(code.co_filename)  # by name: the hash of a code object is slow
    if found is None:
        found = KINDS[code.co_filename] = kind_of_file(code.co_filename)
    return found


def kind_of_file(filename: str) -> str:
    """The same of a file."""
    if filename.startswith(_OURS):
        return "ours"
    if filename.startswith("<frozen"):
        return "library"
    if any(part in filename for part in _LIBRARIES):
        return "library" if any(part in filename for part in _DEPENDENCIES) else "user"
    return "library" if filename.startswith(_STDLIB) else "user"


def user_frame(start: int = 1) -> FrameType | None:
    """The innermost frame that runs user code."""
    frame: FrameType | None = sys._getframe(start + 1)
    while frame is not None:
        code = frame.f_code
        if (KINDS.get(code.co_filename) or kind_of(code)) == "user":  # asked for at every node: one call less a frame
            break
        frame = frame.f_back
    return frame


def user_place(start: int = 1) -> tuple[str, int] | None:
    """File and line of the user's code that is running. None where there is none: a thread of graphc's own, or a
    command (what a command runs of the user's counts).
    """
    frame: FrameType | None = sys._getframe(start + 1)
    while frame is not None:
        code = frame.f_code
        kind = kind_of(code)
        if kind == "user":
            return code.co_filename, frame.f_lineno or code.co_firstlineno
        if kind == "ours" and code.co_filename.startswith(_COMMANDS):
            return None
        frame = frame.f_back
    return None
