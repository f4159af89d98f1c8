"""A strict subset of ZIP: members stored one after the other, every byte of the file accounted for.

Any ZIP tool reads what `pack` writes (the 64-bit form, whatever the size, with a fixed date: equal members give equal
bytes).
`Container` reads nothing else: no compression, no gaps, no comments, no second copy of a name or header that says
otherwise.
Layout: APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.14 to 4.3.16 (its end), 4.5.3
(64-bit sizes).
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from graphc.errors import ArtifactError

_ENTRY_HEAD = struct.Struct("<4sHHHHHHIIIHHHHHII")
_ENTRY_TAIL = struct.Struct("<HHQQQ")
_LOCAL_HEAD = struct.Struct("<4sHHHHHIIIHH")
_LOCAL_TAIL = struct.Struct("<HHQQ")
_END = struct.Struct("<4sQHHIIQQQQ" + "4sIQI" + "4sHHHHIIH")
_VERSION = 45  # the first with 64-bit sizes
_UNIX = 3 << 8
_FILE_MODE = 0o100644 << 16
_DATE = 0x21  # 1980-01-01, the earliest ZIP knows
_FULL = 0xFFFFFFFF  # "see the 64-bit field"
_MAX_MEMBERS = 64
_NAME = re.compile(r"[a-z0-9_]+(?:[./-][a-z0-9_]+)*\Z")


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of a member stand."""

    name: str
    crc: int
    size: int
    header: int  # offset of its local header

    @property
    def start(self) -> int:
        """Offset of its first byte."""
        return self.header + _LOCAL_HEAD.size + len(self.name) + _LOCAL_TAIL.size


def pack(members: Mapping[str, bytes]) -> Iterator[bytes]:
    """The bytes of a container, member after member in the order given."""
    offset, entries = 0, []
    for name, data in members.items():
        member = Member(name, zlib.crc32(data), len(data), offset)
        entries.append(member)
        yield _local_header(member)
        yield data
        offset = member.start + member.size
    directory = b"".join(map(_directory_entry, entries))
    yield directory
    yield _end(len(entries), len(directory), offset)


def _local_header(m: Member) -> bytes:
    name = m.name.encode()
    head = _LOCAL_HEAD.pack(b"PK\3\4", _VERSION, 0, 0, 0, _DATE, m.crc, _FULL, _FULL, len(name), _LOCAL_TAIL.size)
    return head + name + _LOCAL_TAIL.pack(1, 16, m.size, m.size)


def _directory_entry(m: Member) -> bytes:
    name = m.name.encode()
    head = _ENTRY_HEAD.pack(
        b"PK\1\2", _UNIX | _VERSION, _VERSION, 0, 0, 0, _DATE, m.crc, _FULL, _FULL, len(name), _ENTRY_TAIL.size,
        0, 0, 0, _FILE_MODE, _FULL,
    )  # fmt: skip
    return head + name + _ENTRY_TAIL.pack(1, 24, m.size, m.size, m.header)


def _end(count: int, size: int, offset: int) -> bytes:
    """The end of the directory in its 64-bit form, the pointer to it, and the old form that says to look there."""
    return _END.pack(
        b"PK\6\6", 44, _UNIX | _VERSION, _VERSION, 0, 0, count, count, size, offset,
        b"PK\6\7", 0, offset + size, 1,
        b"PK\5\6", 0, 0, count, count, _FULL, _FULL, 0,
    )  # fmt: skip


class Container:
    """A container open for reading. Raises ArtifactError for anything but what `pack` writes, and OSError."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError("not a regular file")
        self.size = status.st_size
        if self.size > limit:
            raise ArtifactError(f"a file of {self.size} bytes, at most {limit} are accepted")
        self.members = {m.name: m for m in self._directory()}
        for member in self.members.values():
            if self._at(member.header, member.start - member.header) != _local_header(member):
                raise ArtifactError(f"{member.name}: its header differs from its entry in the directory")

    def read(self, name: str) -> bytes:
        """The bytes of a member, its checksum verified."""
        member = self.members[name]
        data = self._at(member.start, member.size)
        if zlib.crc32(data) != member.crc:
            raise ArtifactError(f"{name}: its checksum differs; the file is damaged")
        return data

    def _at(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise ArtifactError("the file is cut short")
        return data

    def _directory(self) -> Iterator[Member]:
        if self.size < _END.size:
            raise ArtifactError("the file is cut short or not a model")
        end = self._at(self.size - _END.size, _END.size)
        fields = _END.unpack(end)
        count, size, offset = fields[6], fields[8], fields[9]
        whole = offset + size + _END.size == self.size and count <= _MAX_MEMBERS  # first: it bounds all three
        if not whole or end != _end(count, size, offset):
            raise ArtifactError(
                "the end of the file is not that of a model; it is cut short, altered or no model at all"
            )
        directory = self._at(offset, size)
        at = expected = 0
        seen: dict[str, bool] = {}
        for _ in range(count):
            member = _read_entry(directory, at, expected)
            if member.name in seen:
                raise ArtifactError(f"{member.name}: the member stands twice")
            seen[member.name] = True
            at += _ENTRY_HEAD.size + len(member.name) + _ENTRY_TAIL.size
            expected = member.start + member.size
            if expected > offset:
                raise ArtifactError(f"{member.name}: {member.size} bytes are declared, more than the file holds")
            yield member
        if at != size or expected != offset:
            raise ArtifactError("the file holds bytes that belong to no member")


def _read_entry(directory: bytes, at: int, expected: int) -> Member:
    if at + _ENTRY_HEAD.size > len(directory):
        raise ArtifactError("the directory is cut short")
    head = _ENTRY_HEAD.unpack_from(directory, at)
    flags, method, crc, name_size = head[3], head[4], head[7], head[10]
    tail = at + _ENTRY_HEAD.size + name_size
    if tail + _ENTRY_TAIL.size > len(directory):
        raise ArtifactError("the directory is cut short")
    name = directory[tail - name_size : tail].decode("ascii", "replace")
    if not _NAME.match(name) or len(name) > 200:
        raise ArtifactError(f"{name[:80]!r} is not the name of a member")
    if method != 0 or flags != 0:
        raise ArtifactError(f"{name}: the member is compressed or encrypted; members must be stored as they are")
    _, _, size, _, header = _ENTRY_TAIL.unpack_from(directory, tail)
    member = Member(name, crc, size, header)
    if header != expected or directory[at : tail + _ENTRY_TAIL.size] != _directory_entry(member):
        raise ArtifactError(f"{name}: its entry in the directory is not as graphc writes it")
    return member
