"""Object files as machine code in memory, without a linker: what our own kernels are made of needs next to none.

Their code refers to their own constants alone, by distances that are known once both lie in memory. A page or two hold
a kernel then, and it is there in a tenth of a millisecond; an engine of LLVM takes ten times as long and 60 to 150 KB.
What is not of this kind (`place` gives None) is LLVM's matter. Source of the relocations: the System V ABI, AMD64
supplement, section 4.4.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.errors import InternalError
from graphc.runtime.elf import Section, read_sections

_RELOCATION = struct.Struct("<QQq")
_SYMBOL = struct.Struct("<IBBHQQ")
_DISTANCE = struct.Struct("<i")
_X86_64 = 62
_PC32, _PLT32 = 2, 4  # both: symbol + addend - place, as long as the symbol is in the same memory
_PROGBITS, _SYMTAB, _RELA = 1, 2, 4
_WRITE, _ALLOC, _TLS = 1, 2, 0x400
_RESERVED = 0xFF00  # from here on the number of a section means something else


@dataclass(frozen=True, slots=True)
class Mapping:
    """Memory that holds code, and where in it the global symbols are."""

    address: int
    size: int
    symbols: dict[str, int]

    def unmap(self) -> None:
        """Give the memory back. No address of it may be used afterwards."""
        _libc().munmap(self.address, self.size)


class _Unfit(Exception):
    """An object that takes a real linker."""


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    place, word, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.argtypes, libc.mmap.restype = [place, word, number, number, number, ctypes.c_long], place
    libc.mprotect.argtypes, libc.mprotect.restype = [place, word, number], number
    libc.munmap.argtypes, libc.munmap.restype = [place, word], number
    return libc


def place(objects: Sequence[bytes]) -> Mapping | None:
    """Map objects whose symbols were checked (runtime/elf.py), all into one piece of memory that can then be run and
    read, not written. None for objects that take a linker, or where the system gives no such memory. Raises
    InternalError for damaged ones.
    """
    try:
        image, symbols = _image(objects)
    except _Unfit:
        return None
    except (struct.error, ValueError, IndexError) as error:
        raise InternalError(f"not a valid object file: {error}") from error
    libc, size = _libc(), -(-len(image) // mmap.PAGESIZE) * mmap.PAGESIZE
    how = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, how, -1, 0)
    if address in (None, ctypes.c_size_t(-1).value):
        return None
    ctypes.memmove(address, bytes(image), len(image))
    if libc.mprotect(address, size, mmap.PROT_READ | mmap.PROT_EXEC):
        libc.munmap(address, size)
        return None
    return Mapping(address, size, {name: address + at for name, at in symbols.items()})


def _image(objects: Sequence[bytes]) -> tuple[bytearray, dict[str, int]]:
    """What memory has to hold, and where in it the global symbols are."""
    image = bytearray()
    symbols: dict[str, int] = {}
    for data in objects:
        machine, sections = read_sections(data)
        if machine != _X86_64:
            raise _Unfit
        starts = _lay_out(data, sections, image)
        for section in sections:
            if section.kind == _RELA and section.info in starts:
                _relocate(data, section, sections, starts, image)
        for section in sections:
            if section.kind == _SYMTAB:
                _note_globals(data, section, sections, starts, symbols)
    return image, symbols


def _lay_out(data: bytes, sections: Sequence[Section], image: bytearray) -> dict[int, int]:
    """Append the sections that are part of the program; where each begins."""
    starts: dict[int, int] = {}
    for number, section in enumerate(sections):
        if not section.flags & _ALLOC:
            continue
        if section.kind != _PROGBITS or section.flags & (_WRITE | _TLS) or section.align > mmap.PAGESIZE:
            raise _Unfit
        image.extend(bytes(-len(image) % max(1, section.align)))
        starts[number] = len(image)
        image.extend(data[section.offset : section.offset + section.size])
    return starts


def _relocate(
    data: bytes, section: Section, sections: Sequence[Section], starts: dict[int, int], image: bytearray
) -> None:
    """Write the distances one section's code asks for."""
    target, table = sections[section.info], sections[section.link]
    for at in range(section.offset, section.offset + section.size, _RELOCATION.size):
        offset, info, addend = _RELOCATION.unpack_from(data, at)
        number = info >> 32
        if info & 0xFFFFFFFF not in (_PC32, _PLT32):
            raise _Unfit
        if offset + _DISTANCE.size > target.size or (number + 1) * _SYMBOL.size > table.size:
            raise ValueError("a relocation reaches past the end of its section")
        _, _, _, home, value, _ = _SYMBOL.unpack_from(data, table.offset + number * _SYMBOL.size)
        if home not in starts:
            raise _Unfit
        where = starts[section.info] + offset
        _DISTANCE.pack_into(image, where, starts[home] + value + addend - where)


def _note_globals(
    data: bytes, section: Section, sections: Sequence[Section], starts: dict[int, int], symbols: dict[str, int]
) -> None:
    strings = sections[section.link]
    names = data[strings.offset : strings.offset + strings.size]
    for at in range(section.offset + _SYMBOL.size, section.offset + section.size, _SYMBOL.size):
        name, info, _, home, value, _ = _SYMBOL.unpack_from(data, at)
        if info >> 4 == 0 or name == 0 or home == 0:
            continue
        if home not in starts or value > sections[home].size:
            raise _Unfit
        symbols[names[name : names.index(b"\0", name)].decode("ascii")] = starts[home] + value
