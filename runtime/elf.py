"""A small reader of ELF64 object files: enough to know which symbols an object defines and which it needs.

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


def read_symbols(data: bytes) -> Symbols:
    """The global symbols of a little-endian ELF64 relocatable object. Raises InternalError for other or cut data."""
    try:
        return _read(data)
    except (struct.error, ValueError, IndexError, UnicodeDecodeError) as error:
        raise InternalError(f"not a valid object file: {error}") from error


def _read(data: bytes) -> Symbols:
    header = _HEADER.unpack_from(data, 0)
    ident, kind, machine, table, entry_size, count = header[0], header[1], header[2], header[6], header[11], header[12]
    if ident[:6] != b"\x7fELF\x02\x01" or kind != _RELOCATABLE or entry_size != _SECTION.size:
        raise ValueError("the header is not that of an ELF64 relocatable object")
    sections = [_SECTION.unpack_from(data, table + _SECTION.size * i) for i in range(count)]
    for section in sections:
        if section[1] != _NOBITS and section[4] + section[5] > len(data):
            raise ValueError("a section reaches past the end of the file")
    defined: set[str] = set()
    undefined: set[str] = set()
    for section in sections:
        if section[1] == _SYMTAB:
            _collect(data, section, sections[section[6]], defined, undefined)
    return Symbols(machine, frozenset(defined), frozenset(undefined))


def _collect(
    data: bytes, section: tuple[int, ...], strings: tuple[int, ...], defined: set[str], undefined: set[str]
) -> None:
    names = data[strings[4] : strings[4] + strings[5]]
    for start in range(section[4] + _SYMBOL.size, section[4] + section[5], _SYMBOL.size):  # entry 0 is reserved
        name, info, _, where, _, _ = _SYMBOL.unpack_from(data, start)
        if info >> 4 == 0 or name == 0:  # local, or a section symbol
            continue
        text = names[name : names.index(b"\0", name)].decode("ascii")
        (defined if where else undefined).add(text)
