"""Bounds on graphs and files that come from outside, so that a small file cannot ask for unbounded work."""

from __future__ import annotations

from dataclasses import dataclass

MAX_RANK = 32
MAX_SIZE = 1 << 40  # one dimension
MAX_BYTES = 1 << 48  # one tensor: below any overflow of 64-bit offsets, above any machine
MAX_NAME = 256  # bytes of UTF-8
MAX_INT = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader accepts. Pass another instance to read something larger on purpose."""

    text: int = 16 << 20  # characters of graph text or bytes of a JSON member
    nodes: int = 100_000
    tensors: int = 100_000
    nesting: int = 32  # of tuples, or of JSON
    file: int = 1 << 40  # bytes of a whole file


def legal_name(name: object) -> bool:
    """True for a string of at most 256 bytes of UTF-8 without control characters or lone surrogates."""
    if not isinstance(name, str):
        return False
    if name.isascii() and name.isprintable():
        return len(name) <= MAX_NAME
    if any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in name):
        return False
    return len(name.encode()) <= MAX_NAME
