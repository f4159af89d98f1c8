"""The one module that touches llvmlite: LLVM text to object bytes, and object bytes to addresses.

llvmlite is imported at the first use, so that `import graphc` does not load it. LLVM ends the process on many mistakes
(a damaged object, a missing symbol, a second run of a pass manager), so everything cheap is checked before LLVM sees
it. One lock serves all calls: llvmlite serialises them anyway, and a fork must not happen in the middle of one.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from graphc.errors import InternalError
from graphc.runtime.elf import Symbols, read_symbols
from graphc.runtime.mapped import place

OPT_LEVEL = 2  # code generation only: no pass pipeline runs; level 0 aborts on AVX-512 masks

_FORBIDDEN = ("target triple", "target datalayout", "module asm")
_ALWAYS_ALLOWED = frozenset({"_GLOBAL_OFFSET_TABLE_"})  # made by the loader itself
_MACHINES = {"x86_64": 62, "aarch64": 183, "arm64": 183}
_lock = threading.RLock()


class TargetSpec(Protocol):
    """What code is made for."""

    @property
    def triple(self) -> str:
        """LLVM target triple, such as x86_64-unknown-linux-gnu."""

    @property
    def cpu(self) -> str:
        """LLVM CPU name, such as x86-64-v3."""

    @property
    def features(self) -> str:
        """LLVM feature string, such as +avx2,+fma; may be empty."""


@functools.cache
def _binding() -> Any:
    """llvmlite's binding, with the native target set up."""
    import llvmlite.binding as binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding


@functools.cache
def _all_targets() -> None:
    _binding().initialize_all_targets()
    _binding().initialize_all_asmprinters()


@functools.cache
def host() -> tuple[str, str, str]:
    """Triple, CPU name and feature string of this machine."""
    with _lock:
        binding = _binding()
        return binding.get_process_triple(), binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()


@functools.cache
def versions() -> str:
    """The versions of llvmlite and LLVM, as part of cache keys."""
    import llvmlite

    with _lock:
        numbers = ".".join(map(str, _binding().llvm_version_info))
    return f"llvmlite {llvmlite.__version__} LLVM {numbers}"


def _arch(triple: str) -> str:
    return triple.partition("-")[0]


def _new_machine(triple: str, cpu: str, features: str) -> Any:
    binding = _binding()
    if _arch(triple) != _arch(host()[0]):
        _all_targets()
    target = binding.Target.from_triple(triple)
    return target.create_target_machine(cpu=cpu, features=features, opt=OPT_LEVEL, reloc="pic", codemodel="small")


@functools.lru_cache(maxsize=16)
def _machine(triple: str, cpu: str, features: str) -> Any:
    return _new_machine(triple, cpu, features)


def compile_text(text: str, target: TargetSpec, allowed: Iterable[str] = ()) -> bytes:
    """The object file of a module given as LLVM text (which must not name a triple or a data layout).

    No pass runs; instructions are selected at optimisation level 2, position independent, small code model.
    Raises InternalError if LLVM refuses the text, or if the object needs a symbol that is not in `allowed`.
    """
    found = next((word for word in _FORBIDDEN if word in text), None)
    if found is not None or "\0" in text:
        raise InternalError(f"LLVM text must not hold {found or 'a NUL character'!r}")
    with _lock:
        data = bytes(_compile(text, target))
    _refuse_missing(read_symbols(data), allowed)
    return data


def assembly_of(text: str, target: TargetSpec) -> str:
    """The assembly `compile_text` turns the same text into. Raises InternalError if LLVM refuses the text."""
    with _lock:
        return str(_compile(text, target, assembly=True))


def _compile(text: str, target: TargetSpec, assembly: bool = False) -> Any:
    machine = _machine(target.triple, target.cpu, target.features)
    binding = _binding()
    context = binding.create_context()
    try:
        with binding.parse_assembly(text, context) as module:
            module.triple = target.triple
            module.data_layout = str(machine.target_data)
            module.verify()
            return machine.emit_assembly(module) if assembly else machine.emit_object(module)
    except RuntimeError as error:
        raise InternalError(f"LLVM refused a module: {error}") from error
    finally:
        context.close()


def _refuse_missing(symbols: Symbols, allowed: Iterable[str]) -> None:
    missing = symbols.undefined - _ALWAYS_ALLOWED - frozenset(allowed)
    if missing:
        raise InternalError(f"compiled code calls functions outside itself: {', '.join(sorted(missing))}")


class LoadedCode:
    """Machine code in memory; `address` finds its functions. The code is unmapped when this object dies."""

    __slots__ = ("__weakref__", "_addresses", "_finalizer")

    def __init__(self, addresses: Callable[[str], int], symbols: frozenset[str], unmap: Callable[[], None]) -> None:
        self._addresses = {symbol: addresses(symbol) for symbol in sorted(symbols)}
        self._finalizer = weakref.finalize(self, unmap)
        self._finalizer.atexit = False  # threads may still run this code at exit

    def address(self, symbol: str) -> int:
        """The address of a function. Raises InternalError if the code does not define it."""
        found = self._addresses.get(symbol)
        if found is None:
            raise InternalError(f"the loaded code does not define {symbol!r}")
        return found

    def close(self) -> None:
        """Unmap the code now. No address of it may be used afterwards."""
        self._addresses = {}
        self._finalizer()


def load_objects(objects: Sequence[bytes], allowed: Iterable[str] = ()) -> LoadedCode:
    """Map object files into this process, together. Trust is the caller's matter: the bytes will run.

    Raises InternalError for a damaged object, one of another machine, one that needs symbols outside `allowed`,
    or two that define the same symbol.
    """
    defined: set[str] = set()
    for data in objects:
        symbols = read_symbols(data)
        _refuse_missing(symbols, allowed)
        if symbols.machine != _MACHINES.get(_arch(host()[0]), 0):
            raise InternalError("an object file is made for another machine")
        if defined & symbols.defined:
            raise InternalError(f"two objects define {min(defined & symbols.defined)!r}")
        defined |= symbols.defined
    names = frozenset(defined)
    mapping = place(objects)
    if mapping is not None:
        return LoadedCode(mapping.symbols.__getitem__, names, mapping.unmap)
    with _lock:
        engine, context = _open_engine(objects)
        return LoadedCode(engine.get_function_address, names, functools.partial(_dispose, engine, context))


def _dispose(engine: Any, context: Any) -> None:
    with _lock:
        engine.close()
        context.close()


def _open_engine(objects: Sequence[bytes]) -> tuple[Any, Any]:
    binding = _binding()
    context = binding.create_context()
    # the engine owns its machine, so the shared one cannot be used
    engine = binding.create_mcjit_compiler(binding.parse_assembly("", context), _new_machine(*host()))
    for data in objects:
        engine.add_object_file(binding.ObjectFileRef.from_data(data))
    engine.finalize_object()
    return engine, context


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
