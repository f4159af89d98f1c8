"""Every error graphc raises on purpose. Each also derives from the builtin PyTorch raises in the same place."""

from __future__ import annotations

import os
import re
from typing import Any

from graphc.caller import user_place

_LINE = re.compile(r"\bat (\S+|<[^>]*>):\d")  # a message that names a line already


class GraphcError(Exception):
    """Base of all errors raised on purpose.

    `str(error)` is the message and, unless the message names a line, the one of the user's program that ran when the
    error was made. It is looked for then, so that nothing else pays for it.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.find_place()

    def find_place(self) -> None:
        """Name the line of the user's program that runs now."""
        place = user_place()
        self.place = "" if place is None else f"{os.path.basename(place[0])}:{place[1]}"

    @property
    def message(self) -> str:
        """What is wrong, without the place."""
        return Exception.__str__(self)

    def __str__(self) -> str:
        text = self.message
        return f"{text} (at {self.place})" if self.place and not _LINE.search(text) else text


class ShapeError(GraphcError, RuntimeError):
    """Shapes do not fit the operation (PyTorch: RuntimeError)."""


class DTypeError(GraphcError, RuntimeError, TypeError):
    """A dtype is not accepted by the operation (PyTorch: RuntimeError, sometimes TypeError)."""


class DimError(GraphcError, IndexError):
    """An axis is out of range or given twice (PyTorch: IndexError)."""


class IndexingError(GraphcError, IndexError):
    """An index is out of range or of an unsupported kind (PyTorch: IndexError)."""


class ArgumentError(GraphcError, ValueError, TypeError):
    """An argument has a value or a kind that is not accepted (PyTorch: ValueError or TypeError)."""


class AutogradError(GraphcError, RuntimeError):
    """A gradient cannot be computed as asked (PyTorch: RuntimeError)."""


class StateError(GraphcError, RuntimeError, KeyError):
    """A state dict does not fit the module or optimiser (PyTorch: RuntimeError, sometimes KeyError)."""


class RecordingError(GraphcError, RuntimeError):
    """The recorder refuses a form it does not support; the message names the user's line and what to do."""


class GuardError(GraphcError, RuntimeError):
    """A guard does not hold where recording again is not allowed."""


class ArtifactError(GraphcError, ValueError):
    """A file is not a valid model: truncated, altered, too new, or beyond the limits."""


class MissingFileError(ArtifactError, FileNotFoundError):
    """There is no file of this name."""


class GraphError(GraphcError, ValueError):
    """A graph or its text is not valid; the message starts with the number of the broken invariant."""


class LinAlgError(GraphcError, RuntimeError):
    """A matrix has no inverse, or no factors of the kind asked for."""


class UnsupportedError(GraphcError, NotImplementedError, RuntimeError):
    """A valid request that this version does not support."""


class EmptyMeanWarning(UserWarning):
    """The mean of no elements was asked for: it is NaN."""


class OutOfMemoryError(GraphcError, MemoryError, RuntimeError):
    """The memory for a result cannot be had (PyTorch: RuntimeError)."""


class InternalError(GraphcError, AssertionError):
    """A bug in graphc, never the user's fault. Please report it."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message} (this is a bug in graphc, please report it)")


class AuditError(InternalError):
    """compile(audit=…) found a compiled call that does not give what the function gives line by line: a bug in graphc,
    or the function reads something that changes inside a C extension, where no condition can look.
    """

    def __init__(self, message: str) -> None:
        GraphcError.__init__(
            self,
            f"{message}. Either the function reads what changes inside a C extension (pass that as an argument), or "
            "this is a bug in graphc (please report it)",
        )
