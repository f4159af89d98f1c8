"""A small reader of ELF64 object files: their sections, which symbols an object defines and which it needs.

LLVM ends the process on a damaged object, so an object is looked at here before LLVM sees it.
Source of the layout: the System V ABI, "Object Files" (sections 4.1 to 4.3).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from graphc.errors import InternalError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMTAB, _NOBITS = 2, 8
_RELOCATABLE = 1


@dataclass(frozen=True, slots=True)
class Symbols:
    """The global names of an object file."""

    machine: int  # 62 is x86-64, 183 is aarch64
    defined: frozenset[str]
    undefined: frozenset[str]


@dataclass(frozen=True, slots=True)
class Section:
    """An entry of the table of sections. `link` and `info` are numbers of sections, for some kinds."""

    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int


def read_symbols(data: bytes) -> Symbols:
    """The global symbols of a little-endian ELF64 relocatable object. Raises InternalError for other or cut data."""
    machine, sections = read_sections(data)
    defined: set[str] = set()
    undefined: set[str] = set()
    try:
        for section in sections:
            if section.kind == _SYMTAB:
                _collect(data, section, sections[section.link], defined, undefined)
    except (struct.error, ValueError, IndexError, UnicodeDecodeError) as error:
        raise InternalError(f"not a valid object file: {error}") from error
    return Symbols(machine, frozenset(defined), frozenset(undefined))


def read_sections(data: bytes) -> tuple[int, list[Section]]:
    """The machine and the sections of a little-endian ELF64 relocatable object; all lie inside of it. Raises
    InternalError for other or cut data.
    """
    try:
        return _read(data)
    except (struct.error, ValueError, IndexError) as error:
        raise InternalError(f"not a valid object file: {error}") from error


def _read(data: bytes) -> tuple[int, list[Section]]:
    header = _HEADER.unpack_from(data, 0)
    ident, kind, machine, table, entry_size, count = header[0], header[1], header[2], header[6], header[11], header[12]
    if ident[:6] != b"\x7fELF\x02\x01" or kind != _RELOCATABLE or entry_size != _SECTION.size:
        raise ValueError("the header is not that of an ELF64 relocatable object")
    sections = []
    for at in range(table, table + _SECTION.size * count, _SECTION.size):
        _, of, flags, _, offset, size, link, info, align, _ = _SECTION.unpack_from(data, at)
        if of != _NOBITS and offset + size > len(data):
            raise ValueError("a section reaches past the end of the file")
        sections.append(Section(of, flags, offset, size, link, info, align))
    return machine, sections


def _collect(data: bytes, section: Section, strings: Section, defined: set[str], undefined: set[str]) -> None:
    names = data[strings.offset : strings.offset + strings.size]
    for start in range(section.offset + _SYMBOL.size, section.offset + section.size, _SYMBOL.size):  # 0 is reserved
        name, info, _, where, _, _ = _SYMBOL.unpack_from(data, start)
        if info >> 4 == 0 or name == 0:  # local, or a section symbol
            continue
        text = names[name : names.index(b"\0", name)].decode("ascii")
        (defined if where else undefined).add(text)
