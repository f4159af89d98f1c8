"""What a recording knows of the memory it has met."""

from __future__ import annotations

import threading
from typing import Any

from graphc.frontend.record.trace import Source
from graphc.frontend.tensor import Chain, Storage, Tensor
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
    """What one recording knows of one storage. `other`: what a recording in another thread knows of it."""

    __slots__ = ("other", "recording", "roots")

    def __init__(self, recording: Any, other: Slot | None = None) -> None:
        self.recording = recording
        self.roots: list[Root] = []
        self.other = other


_changing = threading.Lock()  # the slots of a storage; looking needs no lock


def slot_in(storage: Storage, recording: Any) -> Slot | None:
    """What `recording` knows of a storage."""
    slot: Slot | None = storage.slot
    while slot is not None and slot.recording is not recording:
        slot = slot.other
    return slot


def make_slot(storage: Storage, recording: Any) -> Slot:
    """A slot for `recording`, which has none; those of recordings that have ended go."""
    with _changing:
        other: Slot | None = storage.slot
        while other is not None and other.recording.finished:
            other = other.other
        made = storage.slot = Slot(recording, other)
    return made


def drop_slot(storage: Storage, recording: Any) -> None:
    """Forget what `recording` knows of a storage."""
    with _changing:
        before, slot = None, storage.slot
        while slot is not None and slot.recording is not recording:
            before, slot = slot, slot.other
        if slot is None:
            return
        if before is None:
            storage.slot = slot.other
        else:
            before.other = slot.other


def starts_with(chain: Chain, prefix: Chain) -> bool:
    """True when a chain of views goes on from `prefix`."""
    if not prefix or chain is prefix:
        return True
    return len(chain) >= len(prefix) and all(
        a is b or (a[0] is b[0] and a[1] == b[1]) for a, b in zip(chain, prefix, strict=False)
    )
