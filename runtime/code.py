"""Kernels as addresses: found in this process, else in the cache on disk, else compiled.

Each kernel is one object file, and so one cache entry: any graph that needs it finds it, whatever else it was compiled
with. One module for all missing kernels of a graph would save 0.65 ms a kernel (40 trivial kernels: 38 against 65 ms;
a real kernel costs 5 to 30 ms). All objects of one request are mapped together (0.05 ms; where LLVM does it, 1 ms).
"""

from __future__ import annotations

import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from graphc.runtime import llvm
from graphc.runtime.cache import ObjectCache, key_of
from graphc.runtime.llvm import LoadedCode, TargetSpec

# Kernels kept after the last executable that uses them is gone. One takes a page or two; where LLVM loads objects,
# 60 to 150 KB. The object is in the cache on disk.
KEPT = 128

Emit = Callable[[Any], str]
Request = tuple[str, str, Emit]
_Key = tuple[str, str, str, str]
T = TypeVar("T")

# one lock for all libraries: LLVM compiles one module at a time anyway, and a fork waits for it
_lock = threading.RLock()


class Code:
    """One loaded kernel. The code stays mapped as long as this object lives."""

    __slots__ = ("__weakref__", "_loaded", "address", "symbol")

    def __init__(self, loaded: LoadedCode, symbol: str) -> None:
        self._loaded = loaded
        self.symbol = symbol
        self.address = loaded.address(symbol)


class KernelLibrary:
    """The kernels of this process by structure key and target. Threads that ask for one at once compile it once."""

    def __init__(self, cache: ObjectCache | None = None, kept: int = KEPT) -> None:
        self._cache = cache
        self._kept = kept
        self._table: WeakValueDictionary[_Key, Code] = WeakValueDictionary()
        self._recent: OrderedDict[_Key, Code] = OrderedDict()
        self._pinned: list[Code | LoadedCode] = []
        self.compiled = 0
        self.from_cache = 0

    def load(self, requests: Sequence[Request], target: TargetSpec) -> list[Code]:
        """The code of each request (structure key, symbol, emit); `emit(target)` gives the LLVM text if it is needed.

        Raises InternalError if LLVM refuses a text.
        """
        with _lock:
            wanted = [(key, target.triple, target.cpu, target.features) for key, _, _ in requests]
            found = {key: code for key in wanted if (code := self._table.get(key)) is not None}
            missing = {key: request for key, request in zip(wanted, requests, strict=True) if key not in found}
            if missing:
                objects = [self._object(emit, target) for _, _, emit in missing.values()]
                loaded = llvm.load_objects(objects)
                for key, (_, symbol, _) in missing.items():
                    found[key] = self._table[key] = Code(loaded, symbol)
            self._keep(found)
            return [found[key] for key in wanted]

    def addresses(self, requests: Sequence[Request], target: TargetSpec) -> list[int]:
        """Like `load`, but as plain addresses, which stay valid as long as the library lives."""
        with _lock:
            codes = self.load(requests, target)
            self._pinned.extend(codes)
        return [code.address for code in codes]

    def module(self, emit: Emit, target: TargetSpec) -> LoadedCode:
        """The module that `emit(target)` gives the text of, kept as long as the library lives."""
        with _lock:
            loaded = llvm.load_objects([self._object(emit, target)])
            self._pinned.append(loaded)
        return loaded

    @contextmanager
    def using(self, cache: ObjectCache | None, kept: int) -> Iterator[None]:
        """Inside, missing kernels are looked for in `cache`, and `kept` stay when nobody uses them."""
        with _lock:
            before = self._cache, self._kept
            self._cache, self._kept = cache, kept
        try:
            yield
        finally:
            with _lock:
                self._cache, self._kept = before

    def _object(self, emit: Emit, target: TargetSpec) -> bytes:
        text = emit(target)
        key = key_of(text, target.triple, target.cpu, target.features, llvm.versions(), str(llvm.OPT_LEVEL))
        data = self._cache.get(key) if self._cache is not None else None
        if data is not None:
            self.from_cache += 1
            return data
        data = llvm.compile_text(text, target)
        self.compiled += 1
        if self._cache is not None:
            self._cache.put(key, data)
        return data

    def _keep(self, codes: dict[_Key, Code]) -> None:
        for key, code in codes.items():
            self._recent[key] = code
            self._recent.move_to_end(key)
        while len(self._recent) > self._kept:
            self._recent.popitem(last=False)


def once(make: Callable[[], T]) -> Callable[[], T]:
    """`make` as a function that runs at the first call alone: threads that call meanwhile wait for its result.

    (With functools.cache each of them would get a result of its own.)
    """
    made: list[T] = []

    @functools.wraps(make)
    def get() -> T:
        if not made:
            with _lock:
                if not made:
                    made.append(make())
        return made[0]

    return get


@once
def library() -> KernelLibrary:
    """The library of this process, with the cache that the settings ask for."""
    return KernelLibrary(ObjectCache.from_config())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
