"""What a recording knows of the memory it has met."""

from __future__ import annotations

from typing import Any

from graphc.frontend.record.trace import Source
from graphc.frontend.tensor import Chain, Tensor
from graphc.ir.graph import Location, Value


class Root:
    """A tensor whose graph value is known: the value after `chain` from the storage's root. `source`: the graph input
    it came from, if any.
    """

    __slots__ = ("chain", "source", "tensor", "value", "written")

    def __init__(self, chain: Chain, value: Value, source: Source | None, tensor: Tensor | None) -> None:
        self.chain = chain
        self.value = value
        self.source = source
        self.tensor = tensor
        self.written: Location | None = None


class Slot:
    """What one recording knows of one storage."""

    __slots__ = ("recording", "roots")

    def __init__(self, recording: Any) -> None:
        self.recording = recording
        self.roots: list[Root] = []


def starts_with(chain: Chain, prefix: Chain) -> bool:
    """True when a chain of views goes on from `prefix`."""
    if not prefix or chain is prefix:
        return True
    return len(chain) >= len(prefix) and all(
        a is b or (a[0] is b[0] and a[1] == b[1]) for a, b in zip(chain, prefix, strict=False)
    )
